//! The path manager and programs in its place: what they hear and what they may do; our own paths and addresses.

use alloc::vec::Vec;
use core::net::IpAddr;

use anabranch_frame::{Instant, PathId};
use smallvec::SmallVec;

use crate::config::Endpoint;
use crate::pm::{Command, Notice, PmEvent, PmView, RemoteAddr, SubflowEntry};
use crate::sched::SubflowId;
use crate::shard::Gone;
use crate::tcp::{Link, Subflow};
use crate::wire::{MptcpOption, Tuple};
use crate::{Error, ResetReason};

use super::addr::{established_entry, opening_entry};
use super::conn::{Conn, Cx, Stage};

const NO_ENDPOINT: Error = Error::BadOption { option: "endpoint", problem: "there is none of this identifier" };
const NO_SUBFLOW: Error = Error::BadOption { option: "subflow", problem: "there is none of this identifier" };
const BAD_REMOTE: Error = Error::BadOption { option: "remote address", problem: "no host can be reached at it" };
const NO_MORE: Error =
    Error::BadOption { option: "subflow", problem: "the limit is reached, or the addresses are of two families" };

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
                initial_withdrawn: mp.initial_withdrawn && self.options.allow_join_initial_addr_port,
                initial_remote: remote,
            };
            self.path_manager.on_event(&view, event, &mut commands);
        }
        for command in commands {
            // What cannot be done any more, after another command, is not.
            let _ = self.command(cx, command);
        }
    }

    /// When the path manager wants to be asked again.
    pub(super) fn path_manager_deadline(&self) -> Option<Instant> {
        let asked = self.stage == Stage::Open && self.mp().is_some_and(|mp| mp.fully_established);
        self.path_manager.deadline().filter(|_| asked)
    }

    /// Opens a subflow from an endpoint, if that can be. Whether it was begun.
    fn open_from(&mut self, cx: &mut Cx<'_>, endpoint: &Endpoint, remote: RemoteAddr, backup: bool) -> bool {
        let possible = self.may_have_another() && endpoint.addr.is_ipv4() == remote.addr.is_ipv4();
        if possible {
            let local_id = self.local_id_of(endpoint.addr, endpoint.id);
            self.open_join(cx, endpoint.addr, endpoint.path, (local_id, remote.id), remote.addr, backup);
        }
        possible
    }

    /// Does what the path manager or a program wants done.
    pub(crate) fn command(&mut self, cx: &mut Cx<'_>, command: Command) -> Result<(), Error> {
        let ready = self.stage == Stage::Open && self.mp().is_some_and(|mp| mp.fully_established);
        if !ready {
            return Err(Error::NotConnected);
        }
        let find = |cx: &Cx<'_>, id: u8| cx.paths.endpoints().into_iter().find(|endpoint| endpoint.id == id);
        match command {
            Command::Announce { endpoint, port } => {
                let mut endpoint = find(cx, endpoint).ok_or(NO_ENDPOINT)?;
                endpoint.port = port.or(endpoint.port);
                if let Some(mp) = self.mp_mut() {
                    mp.announcements.retain(|one| (one.id, one.port) != (endpoint.id, endpoint.port));
                }
                self.announce(cx, &endpoint);
            }
            Command::Withdraw(id) => self.withdraw(cx, id),
            Command::Open { endpoint, remote, backup } => {
                let endpoint = find(cx, endpoint).ok_or(NO_ENDPOINT)?;
                if !cx.paths.may_join(remote.addr.ip()) || remote.addr.port() == 0 {
                    return Err(BAD_REMOTE);
                }
                if !self.open_from(cx, &endpoint, remote, backup) {
                    return Err(NO_MORE);
                }
            }
            Command::Close(id) => {
                let at = self.index_of(id).ok_or(NO_SUBFLOW)?;
                self.subflows[at].wants_fin = true;
            }
            Command::SetBackup { subflow, backup } => self.set_backup(cx, subflow, backup).map_err(|_| NO_SUBFLOW)?,
        }
        Ok(())
    }

    /// Tells programs that manage paths what happened, once the connection has both keys.
    pub(super) fn report(&self, cx: &mut Cx<'_>, notice: impl FnOnce() -> Notice) {
        if let Some(mp) = self.mp()
            && mp.remote.is_some()
        {
            cx.reports.tell(mp.local.token, notice);
        }
    }

    /// The connection has both keys.
    pub(super) fn report_created(&self, cx: &mut Cx<'_>) {
        let (local, remote) = self.tuple;
        let server_side = self.server_side;
        let deny_join_initial = self.mp().is_some_and(|mp| mp.deny_join_initial);
        self.report(cx, || Notice::Created { local, remote, server_side, deny_join_initial });
    }

    /// Uses a subflow as a backup, or no longer, and asks the peer with MP_PRIO to do so, too.
    pub(crate) fn set_backup(&mut self, cx: &mut Cx<'_>, id: SubflowId, backup: bool) -> Result<(), Error> {
        let at = self.index_of(id).ok_or(Error::NotConnected)?;
        self.subflows[at].backup.ours = backup;
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

    /// A path or an address of ours was removed: what used it ends, or goes on elsewhere.
    pub(crate) fn on_gone(&mut self, cx: &mut Cx<'_>, gone: &Gone<'_>) {
        let unreachable = Error::Unreachable(self.tuple.1.ip());
        let takes = |link: Link, tuple: &Tuple| gone.takes(link.path, tuple.local.ip());
        while let Some(at) = self.openings.iter().position(|opening| takes(opening.link, &opening.tuple)) {
            self.opening_failed(cx, at, unreachable, true);
        }
        let uses = |subflow: &Subflow| takes(subflow.link, &subflow.tuple);
        if self.mp().is_some_and(|mp| mp.fully_established) {
            self.leave(cx, false, uses);
            for endpoint in gone.endpoints {
                if self.mp().is_some_and(|mp| mp.has_announced(endpoint.id)) {
                    self.retract(endpoint.id);
                }
            }
            self.send_withdrawn(cx);
            for endpoint in gone.endpoints {
                self.manage_paths(cx, &PmEvent::EndpointDown(*endpoint));
            }
        } else if self.subflows.iter().any(uses) {
            // Nothing can take its place.
            cx.counters.tcp_estab_resets += u64::from(self.stage == Stage::Open);
            self.fail(cx, unreachable, Some(ResetReason::Unspecified));
        }
        self.settle(cx);
    }

    /// An address of ours came.
    pub(crate) fn on_endpoint_added(&mut self, cx: &mut Cx<'_>, endpoint: &Endpoint) {
        self.manage_paths(cx, &PmEvent::EndpointUp(*endpoint));
        self.settle(cx);
    }

    /// What may be done with an address of ours is something else now.
    pub(crate) fn on_endpoint_changed(&mut self, cx: &mut Cx<'_>, before: Endpoint, after: Endpoint) {
        let (was, is) = (before.flags, after.flags);
        let unwanted = was.signal && (!is.signal || before.port != after.port);
        if unwanted && self.mp().is_some_and(|mp| mp.has_announced(before.id)) {
            self.withdraw(cx, before.id);
        }
        if was.backup != is.backup {
            let there = |subflow: &&Subflow| subflow.tuple.local.ip() == after.addr;
            let ids: SmallVec<[SubflowId; 4]> = self.subflows.iter().filter(there).map(|subflow| subflow.id).collect();
            for id in ids {
                // It was there a moment ago.
                let _ = self.set_backup(cx, id, is.backup);
            }
        }
        self.manage_paths(cx, &PmEvent::EndpointChanged { before, after });
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
        self.leave(cx, true, |subflow| subflow.link.path == path);
        self.send_withdrawn(cx);
    }

    /// Ends some subflows; the others are to tell the peer. If there are none to go on with they `may_stay`, should the path
    /// come back before the peer gives up.
    fn leave(&mut self, cx: &mut Cx<'_>, may_stay: bool, leaves: impl Fn(&Subflow) -> bool) {
        let elsewhere = self.subflows.iter().any(|subflow| subflow.usable() && !leaves(subflow));
        if may_stay && !elsewhere {
            return;
        }
        let mut ids: SmallVec<[u8; 4]> = SmallVec::new();
        while let Some(at) = self.subflows.iter().position(&leaves) {
            // Only the path is gone when the address is another's.
            if !cx.paths.is_up(self.subflows[at].tuple.local.ip()) {
                ids.push(self.subflows[at].local_id);
            }
            cx.counters.rm_subflow += u64::from(!may_stay);
            // As a courtesy to what is on the way, if something can be said there (RFC 8684 §3.4.2).
            let reset = (!may_stay).then_some(ResetReason::Unspecified);
            self.drop_subflow(cx, at, reset);
        }
        for id in ids {
            // The address may be in use on another path, as the first one is when the peer joins to it:
            // the peer would close that subflow, too.
            if !self.subflows.iter().any(|other| other.local_id == id) {
                self.retract(id);
            }
        }
    }

    /// Address identifier of our address `addr`, whose endpoint is `endpoint`: 0 for the initial subflow's until it was withdrawn.
    pub(crate) fn local_id_of(&self, addr: IpAddr, endpoint: u8) -> u8 {
        let initial = addr == self.tuple.0.ip() && !self.mp().is_some_and(|mp| mp.initial_withdrawn);
        if initial { 0 } else { endpoint }
    }
}
