//! Opening again what was lost, ever more seldom as long as it is in vain.

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use anabranch_frame::Instant;

use super::{Opener, PmView, RemoteAddr, SubflowEntry};
use crate::config::Endpoint;

/// First waiting time. It doubles with each attempt.
const FIRST: Duration = Duration::from_secs(1);
/// Longest waiting time.
const LONGEST: Duration = Duration::from_secs(64);

/// Attempts at one thing and when the next is due.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    attempts: u8,
    due: Option<Instant>,
    /// Since when it needs no attempt.
    well_since: Option<Instant>,
}

impl Backoff {
    /// It was lost, or an attempt failed. What was well for as long as the next waiting time begins anew.
    pub(super) fn on_lost(&mut self, now: Instant) {
        let well = self.well_since.take().map(|since| now.saturating_since(since));
        if well.is_some_and(|well| well > self.interval()) {
            self.attempts = 0;
        }
        if self.due.is_none() {
            self.due = Some(now + self.interval());
        }
    }

    /// It is there again.
    pub(super) fn on_well(&mut self, now: Instant) {
        self.due = None;
        self.well_since = Some(now);
    }

    /// Whether to try now. An attempt of which nothing is heard is followed by another.
    pub(super) fn take_due(&mut self, now: Instant) -> bool {
        let due = self.due.is_some_and(|due| due <= now);
        if due {
            self.attempts = self.attempts.saturating_add(1);
            self.due = Some(now + self.interval());
        }
        due
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    fn interval(&self) -> Duration {
        (FIRST * 2u32.saturating_pow(u32::from(self.attempts.min(16)))).min(LONGEST)
    }
}

/// Pairs of addresses that are remembered: as many as a connection may have subflows.
const LOST_MAX: usize = 9;

/// A pair of addresses that had a subflow.
#[derive(Clone, Copy, Debug)]
struct Lost {
    local: IpAddr,
    remote: SocketAddr,
    backoff: Backoff,
}

/// The pairs of addresses whose subflow broke while both addresses are still there. The kernel does not open such a subflow
/// again; here the path may only have been silent for a while, and a connection would never get it back.
#[derive(Debug, Default)]
pub(super) struct Rejoin {
    /// Most connections never lose one: nothing is held for that.
    lost: Vec<Lost>,
}

impl Rejoin {
    /// A subflow broke, or could not be opened.
    pub(super) fn on_lost(&mut self, view: &PmView<'_>, subflow: &SubflowEntry) {
        if view.server_side {
            return;
        }
        let remote = subflow.remote;
        let local = subflow.local.ip();
        if self.find(subflow).is_none() {
            // When there is no room the oldest is forgotten.
            if self.lost.len() >= LOST_MAX {
                self.lost.remove(0);
            }
            self.lost.push(Lost { local, remote, backoff: Backoff::default() });
        }
        if let Some(lost) = self.find(subflow) {
            lost.backoff.on_lost(view.now);
        }
    }

    /// A subflow came up.
    pub(super) fn on_up(&mut self, view: &PmView<'_>, subflow: &SubflowEntry) {
        if let Some(lost) = self.find(subflow) {
            lost.backoff.on_well(view.now);
        }
    }

    /// An address of ours is there again: what was lost on it is opened, whatever its flags.
    pub(super) fn on_address(&mut self, view: &PmView<'_>, back: &Endpoint, out: &mut Vec<super::Command>) {
        let mut opener = Opener::new(view, out);
        for lost in self.lost.iter().filter(|lost| lost.local == back.addr) {
            opener.open_all(&[*back], known(view, lost.remote), |_, _| true);
        }
    }

    fn find(&mut self, subflow: &SubflowEntry) -> Option<&mut Lost> {
        self.lost.iter_mut().find(|lost| lost.local == subflow.local.ip() && lost.remote == subflow.remote)
    }

    /// Opens what is due. A pair of which an address is gone is forgotten.
    pub(super) fn on_timer(&mut self, view: &PmView<'_>, out: &mut Vec<super::Command>) {
        self.lost.retain(|lost| !known(view, lost.remote).is_empty());
        let mut opener = Opener::new(view, out);
        for lost in &mut self.lost {
            if !lost.backoff.take_due(view.now) {
                continue;
            }
            match view.endpoints.iter().find(|endpoint| endpoint.addr == lost.local) {
                Some(endpoint) if endpoint.up => opener.open_all(&[*endpoint], known(view, lost.remote), |_, _| true),
                // When the address comes back.
                _ => lost.backoff = Backoff::default(),
            }
        }
    }

    /// When something is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.lost.iter().filter_map(|lost| lost.backoff.due()).min()
    }
}

/// The peer's address, if it has it still; its identifier is another after it was withdrawn and came back.
fn known<'a>(view: &PmView<'a>, addr: SocketAddr) -> &'a [RemoteAddr] {
    view.remotes.iter().find(|remote| remote.addr == addr).map(core::slice::from_ref).unwrap_or_default()
}
