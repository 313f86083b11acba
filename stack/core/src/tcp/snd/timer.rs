//! The timers of the sending half: retransmission timeout (RFC 6298 §5), tail loss probe (RFC 8985 §7) and RACK's
//! reordering timer (RFC 8985 §6.3).

use core::time::Duration;

use anabranch_frame::Instant;

use super::recovery::Phase;
use super::rtt::RTO_INITIAL;
use super::{Fired, Snd};
use crate::cc::Group;

/// A lone segment may wait so long for its ACK (RFC 1122 allows more; this is what stacks do today).
const DELAYED_ACK_MAX: Duration = Duration::from_millis(40);
/// Allowance for clocks and for waking up, in probe timeouts.
const GRANULARITY: Duration = Duration::from_millis(2);

#[derive(Debug, Default)]
pub(super) struct Timers {
    pub(super) rto: Option<Instant>,
    pub(super) tlp: Option<Instant>,
    pub(super) reo: Option<Instant>,
}

impl Timers {
    fn earliest(&self) -> Option<Instant> {
        [self.rto, self.tlp, self.reo].into_iter().flatten().min()
    }

    #[cfg(test)]
    pub(super) fn any(&self) -> bool {
        self.earliest().is_some()
    }
}

/// The tail loss probe that is out or about to be.
#[derive(Debug, Default)]
pub(super) struct Tlp {
    /// What follows the probe: the episode ends when this is acknowledged.
    pub(super) end: Option<u64>,
    /// The probe was a retransmission.
    pub(super) retrans: bool,
    /// The timer fired and nothing was sent yet.
    pub(super) due: bool,
}

impl Tlp {
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

impl Snd {
    /// When [`on_timer`](Self::on_timer) has to be called; `None` if nothing is outstanding, and pacing holds nothing back.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.timers.earliest().into_iter().chain(self.pace.deadline()).min()
    }

    /// A timer may be due. Returns what happened, `None` if none was due or it was to no effect.
    pub(crate) fn on_timer(&mut self, now: Instant) -> Option<Fired> {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        self.pace.on_timer(now);
        if due(self.timers.reo) && self.on_reordering_timer(now) {
            return Some(Fired::Reordering);
        }
        if due(self.timers.tlp) {
            self.timers.tlp = None;
            if self.may_probe() {
                self.tlp.due = true;
                self.restart_rto(now);
                return Some(Fired::Probe);
            }
        }
        if due(self.timers.rto) {
            let reneged = self.enter_loss(now);
            self.timers.tlp = None;
            self.timers.reo = None;
            self.restart_rto(now);
            self.repace();
            return Some(Fired::Rto { consecutive: self.rtt.backoff(), reneged });
        }
        None
    }

    fn on_reordering_timer(&mut self, now: Instant) -> bool {
        let in_flight = self.in_flight();
        let lost = self.detect_losses(now);
        if lost == 0 {
            return false;
        }
        self.stats.lost(lost, self.mss);
        if matches!(self.recovery.phase, Phase::Open | Phase::Cwr) {
            let me = [self.sibling()];
            self.enter_recovery(now, in_flight, 0, Group { siblings: &me, me: 0 });
        }
        if self.recovery.phase == Phase::Recovery {
            self.recovery.prr.update(0, self.board.in_flight(), self.cc.cwnd(), self.mss, false);
        }
        self.timers.tlp = None;
        self.restart_rto(now);
        self.repace();
        true
    }

    /// Marks lost what RACK says is, and sets the timer for what it will say so of later.
    pub(super) fn detect_losses(&mut self, now: Instant) -> u64 {
        let recovering = self.recovery.phase != Phase::Open;
        let sacked = self.board.tally().sacked_segments;
        let reo_wnd = self.rack.reo_wnd(recovering, sacked, self.rtt.min(), self.rtt.srtt());
        let Self { rack, board, rate, cc, .. } = self;
        let found = rack.detect(now, board, reo_wnd, |record| cc.on_lost(&rate.lose(now, &record.stamp, record.len())));
        self.timers.reo = found.again;
        found.lost
    }

    pub(super) fn restart_rto(&mut self, now: Instant) {
        self.timers.rto = Some(now + self.rtt.rto()).filter(|_| !self.board.is_empty());
    }

    /// After an acknowledgement: `advanced` if una moved, `progress` if anything was delivered.
    pub(super) fn rearm(&mut self, now: Instant, advanced: bool, progress: bool) {
        if self.board.is_empty() {
            self.timers = Timers::default();
            return;
        }
        if advanced {
            self.restart_rto(now);
        }
        self.rearm_probe(now, advanced || progress);
    }

    /// `restart` if something was sent or delivered.
    pub(super) fn rearm_probe(&mut self, now: Instant, restart: bool) {
        if !self.may_probe() || self.timers.reo.is_some() {
            self.timers.tlp = None;
        } else if restart {
            // Not later than the timeout, which would have worse consequences.
            let at = now + self.probe_timeout();
            self.timers.tlp = Some(self.timers.rto.map_or(at, |rto| at.min(rto)));
        }
    }

    /// Whether the last data sent may be probed for: nothing tells of a loss otherwise (RFC 8985 §7.2).
    fn may_probe(&self) -> bool {
        self.sack
            && matches!(self.recovery.phase, Phase::Open | Phase::Cwr)
            && self.board.tally().sacked == 0
            && !self.board.is_empty()
            && self.tlp.end.is_none()
            && !self.tlp.due
    }

    fn probe_timeout(&self) -> Duration {
        let Some(srtt) = self.rtt.srtt() else { return RTO_INITIAL };
        let delayed = if self.board.outstanding() <= self.mss { DELAYED_ACK_MAX } else { Duration::ZERO };
        2 * srtt + delayed.max(GRANULARITY)
    }
}
