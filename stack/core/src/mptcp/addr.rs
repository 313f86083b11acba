//! Addresses: announcing ours, believing the peer's, and what the path manager makes of them
//! (RFC 8684 §3.4).

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use anabranch_frame::{Instant, PathId};
use smallvec::SmallVec;

use crate::Error;
use crate::config::Endpoint;
use crate::pm::{PmCommand, PmEvent, PmView, RemoteAddr, SubflowEntry};
use crate::sched::SubflowId;
use crate::tcp::{Opening, Subflow};
use crate::wire::{AddAddr, MptcpOption, RemoveAddr};

use super::conn::{Conn, Cx, Stage};
use super::crypto;
use super::state::Announcement;

/// Addresses of the peer that are remembered, the initial one included.
const REMOTES_MAX: usize = 16;
/// ADD_ADDR is sent this often at most (Linux: `ADD_ADDR_RETRANS_MAX`, three retransmissions).
const ADD_ADDR_TRIES: u8 = 4;

impl Conn {
    /// Tells the path manager what happened and does what it wants.
    pub(super) fn manage_paths(&mut self, cx: &mut Cx<'_>, event: &PmEvent) {
        let mut commands = Vec::new();
        let endpoints = cx.paths.endpoints();
        let subflows: SmallVec<[SubflowEntry; 8]> =
            self.subflows.iter().map(established_entry).chain(self.openings.iter().map(opening_entry)).collect();
        let left = self.options.limits.subflows.saturating_sub(self.extra_subflows());
        let (local, remote) = self.tuple;
        {
            let Some(mp) = self.mp().filter(|mp| mp.fully_established) else { return };
            let announced: SmallVec<[u8; 8]> = mp.announcements.iter().map(|one| one.id).collect();
            let remotes: SmallVec<[RemoteAddr; 8]> = mp.remotes.iter().copied().collect();
            let view = PmView {
                now: cx.now,
                endpoints: &endpoints,
                subflows: &subflows,
                remotes: &remotes,
                announced: &announced,
                limits: self.options.limits,
                subflows_left: left,
                server_side: self.server_side,
                deny_join_initial: mp.deny_join_initial,
                initial_local: local.ip(),
                initial_remote: remote,
            };
            self.path_manager.on_event(&view, event, &mut commands);
        }
        for command in commands {
            self.obey(cx, &endpoints, command);
        }
    }

    /// When the path manager wants to be asked again.
    pub(super) fn path_manager_deadline(&self) -> Option<Instant> {
        let asked = self.stage == Stage::Open && self.mp().is_some_and(|mp| mp.fully_established);
        self.path_manager.deadline().filter(|_| asked)
    }

    fn obey(&mut self, cx: &mut Cx<'_>, endpoints: &[Endpoint], command: PmCommand) {
        if self.stage != Stage::Open {
            return;
        }
        let find = |id: u8| endpoints.iter().find(|endpoint| endpoint.id == id).copied();
        match command {
            PmCommand::Announce(id) => {
                if let Some(endpoint) = find(id) {
                    self.announce(cx, endpoint);
                }
            }
            PmCommand::Withdraw(id) => self.withdraw(cx, id),
            PmCommand::Open { endpoint, remote, backup } => {
                if let Some(endpoint) = find(endpoint)
                    && self.may_have_another()
                    && endpoint.addr.is_ipv4() == remote.addr.is_ipv4()
                {
                    let local_id = self.local_id_of(&endpoint);
                    self.open_join(cx, endpoint.addr, endpoint.path, (local_id, remote.id), remote.addr, backup);
                }
            }
            PmCommand::Close(id) => {
                if let Some(at) = self.index_of(id) {
                    self.subflows[at].wants_fin = true;
                }
            }
        }
    }

    /// Address identifier of an endpoint: 0 for the address of the initial subflow.
    fn local_id_of(&self, endpoint: &Endpoint) -> u8 {
        if endpoint.addr == self.tuple.0.ip() { 0 } else { endpoint.id }
    }

    fn announce(&mut self, cx: &mut Cx<'_>, endpoint: Endpoint) {
        let now = cx.now;
        if let Some(mp) = self.mp_mut()
            && !mp.announcements.iter().any(|one| one.id == endpoint.id)
        {
            mp.withdrawn.retain(|id| *id != endpoint.id);
            mp.announcements.push(Announcement {
                id: endpoint.id,
                addr: endpoint.addr,
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
        let next = mp.announcements.iter_mut().find(|one| !one.echoed && one.sent < ADD_ADDR_TRIES);
        let (Some(one), Some((local, remote))) = (next, keys) else { return };
        if now < one.deadline {
            return;
        }
        one.deadline = now + (first * (1 << one.sent)).min(most);
        one.sent += 1;
        let hmac = crypto::add_addr(local, remote, one.id, one.addr, 0);
        let option =
            MptcpOption::AddAddr(AddAddr { echo: false, id: one.id, addr: one.addr, port: None, hmac: Some(hmac) });
        if self.signal_somewhere(option) {
            cx.counters.add_addr_tx += 1;
        }
    }

    /// When the next announcement is due.
    pub(super) fn announcement_deadline(&self) -> Option<Instant> {
        let mp = self.mp()?;
        mp.announcements.iter().find(|one| !one.echoed && one.sent < ADD_ADDR_TRIES).map(|one| one.deadline)
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

    fn withdraw(&mut self, cx: &mut Cx<'_>, id: u8) {
        let Some(mp) = self.mp_mut() else { return };
        mp.announcements.retain(|one| one.id != id);
        if !mp.withdrawn.contains(&id) {
            mp.withdrawn.push(id);
        }
        self.send_withdrawn(cx);
    }

    /// Sends REMOVE_ADDR for what was withdrawn, if there is a subflow to send it on.
    pub(super) fn send_withdrawn(&mut self, cx: &mut Cx<'_>) {
        let Some(mp) = self.mp_mut() else { return };
        if mp.withdrawn.is_empty() {
            return;
        }
        let ids = mp.withdrawn.iter().copied().take(8).collect();
        if self.signal_somewhere(MptcpOption::RemoveAddr(RemoveAddr { ids })) {
            cx.counters.rm_addr_tx += 1;
            if let Some(mp) = self.mp_mut() {
                let told = mp.withdrawn.len().min(8);
                mp.withdrawn.drain(..told);
            }
        }
    }

    pub(super) fn on_add_addr_echo(&mut self, cx: &mut Cx<'_>, echo: &AddAddr) {
        cx.counters.echo_add += 1;
        if let Some(mp) = self.mp_mut() {
            for one in &mut mp.announcements {
                one.echoed |= one.id == echo.id && one.addr == echo.addr;
            }
        }
        self.announce_next(cx);
    }

    /// The peer announces an address.
    pub(super) fn on_add_addr(&mut self, cx: &mut Cx<'_>, at: usize, add: AddAddr) {
        cx.counters.add_addr += 1;
        cx.counters.port_add += u64::from(add.port.is_some());
        let port = self.tuple.1.port();
        let limit = self.options.limits.add_addr_accepted;
        let Some(mp) = self.mp_mut() else { return };
        let genuine = mp.remote.is_some_and(|remote| {
            let expected = crypto::add_addr(remote.key, mp.local.key, add.id, add.addr, add.port.unwrap_or(0));
            crypto::same(&expected.to_be_bytes(), &add.hmac.unwrap_or(!expected).to_be_bytes())
        });
        if !genuine || !routable(add.addr) {
            cx.counters.add_addr_drop += 1;
            return;
        }
        // Echoed whatever becomes of it: the peer only wants to know that it arrived.
        let echo = MptcpOption::AddAddr(AddAddr { echo: true, hmac: None, ..add });
        let remote = RemoteAddr { id: add.id, addr: SocketAddr::new(add.addr, add.port.unwrap_or(port)) };
        let known = mp.remotes.contains(&remote);
        let accepted = !known && mp.add_addr_accepted < limit && mp.remotes.len() < REMOTES_MAX && add.id != 0;
        if accepted {
            mp.remotes.retain(|one| one.id != add.id);
            mp.remotes.push(remote);
            mp.add_addr_accepted += 1;
        } else if !known {
            cx.counters.add_addr_drop += 1;
        }
        if self.subflows[at].signal(echo) {
            cx.counters.echo_add_tx += 1;
        }
        if accepted {
            self.manage_paths(cx, &PmEvent::AddAddr(remote));
        }
    }

    /// The peer withdraws addresses: what used them is closed, except the subflow that told us so if
    /// it is the last one.
    pub(super) fn on_remove_addr(&mut self, cx: &mut Cx<'_>, told_by: SubflowId, ids: &[u8]) {
        for &id in ids {
            cx.counters.rm_addr += 1;
            let Some(mp) = self.mp_mut() else { return };
            let known = mp.remotes.iter().any(|one| one.id == id);
            if id != 0 && known {
                mp.remotes.retain(|one| one.id != id);
                mp.add_addr_accepted = mp.add_addr_accepted.saturating_sub(1);
            }
            let using: SmallVec<[SubflowId; 4]> = self
                .subflows
                .iter()
                .filter(|subflow| subflow.remote_id == id && subflow.id != told_by)
                .map(|subflow| subflow.id)
                .collect();
            cx.counters.rm_addr_drop += u64::from(!known && using.is_empty());
            for id in using {
                if let Some(at) = self.index_of(id) {
                    cx.counters.rm_subflow += 1;
                    self.reset_subflow(cx, at, crate::ResetReason::Unspecified);
                }
            }
            self.manage_paths(cx, &PmEvent::RemoveAddr(id));
        }
    }

    /// Asks the peer with MP_PRIO to use a subflow as a backup, or no longer.
    pub(crate) fn set_backup(&mut self, cx: &mut Cx<'_>, id: SubflowId, backup: bool) -> Result<(), Error> {
        let at = self.index_of(id).ok_or(Error::NotConnected)?;
        if self.mp().is_some() && self.subflows[at].signal(MptcpOption::Prio { backup }) {
            cx.counters.mp_prio_tx += 1;
        }
        Ok(())
    }

    /// A path of ours came up or went down, with these addresses.
    pub(crate) fn on_path(&mut self, cx: &mut Cx<'_>, path: PathId, endpoints: &[Endpoint], up: bool) {
        if !up && self.mp().is_some() {
            self.leave_path(cx, path);
        }
        if up {
            for subflow in self.subflows.iter_mut().filter(|subflow| subflow.link.path == path) {
                subflow.snd.on_path_up(cx.now);
            }
        }
        for endpoint in endpoints {
            let event = if up { PmEvent::EndpointUp(*endpoint) } else { PmEvent::EndpointDown(*endpoint) };
            self.manage_paths(cx, &event);
        }
        self.settle(cx);
    }

    /// A path of ours has another MTU.
    pub(crate) fn on_path_mtu(&mut self, path: PathId, mtu: u16) {
        for opening in self.openings.iter_mut().filter(|opening| opening.link.path == path) {
            opening.link.mtu = mtu;
            opening.on_mtu();
        }
        for subflow in self.subflows.iter_mut().filter(|subflow| subflow.link.path == path) {
            subflow.set_mtu(mtu);
        }
    }

    /// Closes the subflows of a path that is down, if there is another one to go on with.
    fn leave_path(&mut self, cx: &mut Cx<'_>, path: PathId) {
        let elsewhere = self.subflows.iter().any(|subflow| subflow.usable() && subflow.link.path != path);
        let there: SmallVec<[SubflowId; 4]> =
            self.subflows.iter().filter(|subflow| subflow.link.path == path).map(|subflow| subflow.id).collect();
        for id in there {
            let Some(at) = self.index_of(id) else { continue };
            if !elsewhere {
                // The last one stays: the path may come back before the peer gives up.
                continue;
            }
            let local_id = self.subflows[at].local_id;
            self.drop_subflow(cx, at, None);
            // The address may be in use on another path, as the first one is when the peer joins to it:
            // the peer would close that subflow, too.
            if !self.subflows.iter().any(|other| other.link.path != path && other.local_id == local_id) {
                self.withdraw(cx, local_id);
            }
        }
        self.send_withdrawn(cx);
    }
}

/// Whether a peer may name this address to us: never loopback, multicast or broadcast.
fn routable(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => {
            !(addr.is_loopback() || addr.is_multicast() || addr.is_broadcast() || addr.is_unspecified())
        }
        IpAddr::V6(addr) => {
            !(addr.is_loopback() || addr.is_multicast() || addr.is_unspecified() || addr.is_unicast_link_local())
        }
    }
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
