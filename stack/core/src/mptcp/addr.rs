//! Addresses: announcing ours, and hearing of the peer's (RFC 8684 §3.4.1).

use core::net::SocketAddr;
use core::num::NonZeroU16;
use core::time::Duration;

use anabranch_frame::Instant;

use crate::config::Endpoint;
use crate::pm::{Notice, PmEvent, RemoteAddr, SubflowEntry};
use crate::tcp::{Opening, Subflow};
use crate::wire::{AddAddr, MptcpOption};

use super::conn::{Conn, Cx};
use super::state::Announcement;
use super::{Mp, crypto};

/// Addresses of the peer that are remembered, the initial one included.
const REMOTES_MAX: usize = 16;
/// Announcements of ours.
const ANNOUNCEMENTS_MAX: usize = 64;
/// ADD_ADDR is sent this often at most (Linux: `ADD_ADDR_RETRANS_MAX`, three retransmissions).
const ADD_ADDR_TRIES: u8 = 4;

impl Conn {
    /// Announces an endpoint, unless that was done. Another port makes another announcement of the same identifier.
    pub(super) fn announce(&mut self, cx: &mut Cx<'_>, endpoint: &Endpoint) {
        let now = cx.now;
        if let Some(mp) = self.mp_mut()
            && !mp.announcements.iter().any(|one| (one.id, one.port) == (endpoint.id, endpoint.port))
            && mp.announcements.len() < ANNOUNCEMENTS_MAX
        {
            mp.announcements.push(Announcement {
                id: endpoint.id,
                addr: endpoint.addr,
                port: endpoint.port,
                echoed: false,
                sent: 0,
                deadline: now,
            });
        }
        self.announce_next(cx);
    }

    /// Sends the first announcement that waits for its echo: one at a time, as the kernel does.
    pub(super) fn announce_next(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now;
        let first = self.slowest_rto();
        let most = cx.config.add_addr_timeout;
        let Some(mp) = self.mp_mut() else { return };
        let keys = mp.remote.map(|remote| (mp.local.key, remote.key));
        let (Some(at), Some((local, remote))) = (next_of(mp), keys) else { return };
        let one = &mut mp.announcements[at];
        if now < one.deadline {
            return;
        }
        one.deadline = now + (first * (1 << one.sent)).min(most);
        // As in Linux a time of zero means that it is sent once.
        one.sent = if most.is_zero() { ADD_ADDR_TRIES } else { one.sent + 1 };
        let port = one.port.map(NonZeroU16::get);
        let hmac = crypto::add_addr(local, remote, one.id, one.addr, port.unwrap_or(0));
        let option = MptcpOption::AddAddr(AddAddr { echo: false, id: one.id, addr: one.addr, port, hmac: Some(hmac) });
        match self.signal_somewhere(option) {
            true => cx.counters.add_addr_tx += 1,
            false => cx.counters.add_addr_tx_drop += 1,
        }
    }

    /// When the next announcement is due.
    pub(super) fn announcement_deadline(&self) -> Option<Instant> {
        let mp = self.mp()?;
        next_of(mp).map(|at| mp.announcements[at].deadline)
    }

    /// Puts an option on the best subflow there is for it.
    pub(super) fn signal_somewhere(&mut self, option: MptcpOption) -> bool {
        let best = self
            .subflows
            .iter_mut()
            .filter(|subflow| subflow.usable())
            .min_by_key(|subflow| (subflow.is_doubtful(), subflow.snd.in_rto(), subflow.id));
        best.is_some_and(|subflow| subflow.signal(option))
    }

    pub(super) fn slowest_rto(&self) -> Duration {
        self.subflows.iter().map(|subflow| subflow.snd.rto()).max().unwrap_or(Duration::from_secs(1))
    }

    pub(super) fn on_add_addr_echo(&mut self, cx: &mut Cx<'_>, echo: &AddAddr) {
        cx.counters.echo_add += 1;
        if let Some(mp) = self.mp_mut() {
            for one in &mut mp.announcements {
                one.echoed |= (one.id, one.addr) == (echo.id, echo.addr) && one.port.map(NonZeroU16::get) == echo.port;
            }
        }
        self.announce_next(cx);
    }

    /// The peer announces an address.
    pub(super) fn on_add_addr(&mut self, cx: &mut Cx<'_>, at: usize, add: AddAddr) {
        cx.counters.add_addr += 1;
        cx.counters.port_add += u64::from(add.port.is_some());
        let initial = self.tuple.1;
        let limit = self.options.limits.add_addr_accepted;
        let Some(mp) = self.mp_mut() else { return };
        let genuine = mp.remote.is_some_and(|remote| {
            let expected = crypto::add_addr(remote.key, mp.local.key, add.id, add.addr, add.port.unwrap_or(0));
            crypto::same(&expected.to_be_bytes(), &add.hmac.unwrap_or(!expected).to_be_bytes())
        });
        if !genuine || add.port == Some(0) || !cx.paths.may_join(add.addr) {
            cx.counters.add_addr_drop += 1;
            return;
        }
        let addr = SocketAddr::new(add.addr, add.port.unwrap_or(initial.port()));
        let remote = RemoteAddr { id: add.id, addr };
        // Heard before: it is asked for another attempt (RFC 8684 §3.4.1).
        let known = mp.remotes.contains(&remote);
        // An identifier stays with its address until it is withdrawn, 0 is that of the first subflow.
        let taken = mp.remotes.iter().any(|one| one.id == add.id && one.addr.ip() != add.addr);
        let within = match add.id {
            0 => addr == initial,
            _ => mp.add_addr_accepted < limit,
        };
        let accepted = known || (within && !taken && mp.remotes.len() < REMOTES_MAX);
        if accepted && !known {
            mp.remotes.push(remote);
            mp.add_addr_accepted += u8::from(add.id != 0);
        }
        let token = mp.local.token;
        cx.counters.add_addr_drop += u64::from(!accepted);
        cx.reports.tell(token, || Notice::Announced(remote));
        // Echoed whatever becomes of it: the peer only wants to know that it arrived.
        let echo = MptcpOption::AddAddr(AddAddr { echo: true, hmac: None, ..add });
        match self.subflows[at].signal(echo) {
            true => cx.counters.echo_add_tx += 1,
            false => cx.counters.echo_add_tx_drop += 1,
        }
        if accepted {
            self.manage_paths(cx, &PmEvent::AddAddr(remote));
        }
    }

    /// Whether a join of the peer's may come in at `local`, and whether that is an address that was announced with a port.
    pub(crate) fn admits_join_at(&self, local: SocketAddr) -> Option<bool> {
        if local.port() == self.tuple.0.port() {
            return Some(false);
        }
        let announced =
            |one: &Announcement| one.addr == local.ip() && one.port.map(NonZeroU16::get) == Some(local.port());
        self.mp()?.announcements.iter().any(announced).then_some(true)
    }

    /// Whether we told the peer to join elsewhere only (the C flag).
    pub(crate) fn denies_join_at(&self, local: SocketAddr) -> bool {
        !self.options.allow_join_initial_addr_port && local == self.tuple.0
    }
}

/// The announcement to make next. An identifier that another address had is withdrawn first (RFC 8684 §3.4.1).
fn next_of(mp: &Mp) -> Option<usize> {
    let waits = |one: &Announcement| !one.echoed && one.sent < ADD_ADDR_TRIES && !mp.withdrawn.contains(&one.id);
    mp.announcements.iter().position(waits)
}

pub(super) fn established_entry(subflow: &Subflow) -> SubflowEntry {
    SubflowEntry {
        id: subflow.id,
        local: subflow.tuple.local,
        remote: subflow.tuple.remote,
        local_id: subflow.local_id,
        remote_id: subflow.remote_id,
        established: true,
    }
}

pub(super) fn opening_entry(opening: &Opening) -> SubflowEntry {
    SubflowEntry {
        id: opening.id,
        local: opening.tuple.local,
        remote: opening.tuple.remote,
        local_id: opening.local_id,
        remote_id: opening.remote_id,
        established: false,
    }
}
