//! Paths, addresses and subflows at run time: what comes, goes and changes, and programs that manage paths.

use alloc::vec::Vec;
use core::num::NonZeroU16;

use anabranch_frame::{Instant, PathId};

use crate::Error;
use crate::config::{Endpoint, EndpointFlags, Limits, NewEndpoint, PathConfig};
use crate::mptcp::{Conn, Cx, RestingConn};
use crate::options::SockOpt;
use crate::pm::{Command, Report};

use super::{ConnId, Gone, ListenerId, Place, Shard, cx};

impl Shard {
    /// Adds a path.
    ///
    /// # Errors
    /// [`Error::BadPath`] if the identifier is taken.
    pub fn add_path(&mut self, now: Instant, path: PathConfig) -> Result<(), Error> {
        let id = path.id;
        self.paths.add(path)?;
        self.tell_path(now, id, true);
        Ok(())
    }

    /// Adds a path that is down until [`set_path_up`](Self::set_path_up): its addresses are ours from now on, but not used.
    ///
    /// # Errors
    /// [`Error::BadPath`] if the identifier is taken.
    pub fn add_path_down(&mut self, path: PathConfig) -> Result<(), Error> {
        let id = path.id;
        self.paths.add(path)?;
        self.paths.set_up(id, false).map(|_| ())
    }

    /// Removes a path, and its addresses with it: they are withdrawn, and the subflows on the path reset. Their data goes elsewhere. What
    /// has nothing but the path, plain TCP or what is not fully established, ends with [`Error::Unreachable`]; an MPTCP connection
    /// waits for another subflow.
    ///
    /// # Errors
    /// [`Error::BadPath`] if there is no such path.
    pub fn remove_path(&mut self, now: Instant, path: PathId) -> Result<(), Error> {
        let endpoints = self.paths.remove(path)?;
        self.forgo(now, &Gone { path: Some(path), endpoints: &endpoints });
        Ok(())
    }

    /// The path's device came up or went down. Subflows on a path that is down are closed if there is
    /// another one to go on with; their data goes there.
    ///
    /// # Errors
    /// [`Error::BadPath`] if there is no such path.
    pub fn set_path_up(&mut self, now: Instant, path: PathId, up: bool) -> Result<(), Error> {
        if self.paths.set_up(path, up)? {
            self.tell_path(now, path, up);
        }
        Ok(())
    }

    /// The path's MTU in bytes is another one now: segments that are sent from now on fit it, those that are repeated,
    /// too, and new connections tell their peers.
    ///
    /// # Errors
    /// [`Error::BadPath`] if there is no such path.
    pub fn set_path_mtu(&mut self, path: PathId, mtu: u16) -> Result<(), Error> {
        if let Some(mtu) = self.paths.set_mtu(path, mtu)? {
            let all: Vec<u32> = self.conns.iter().map(|(index, _)| index as u32).collect();
            for index in all {
                let place = &mut self.conns[index as usize];
                place.wake(&mut self.counters.conns_at_rest, self.memory.level()).on_path_mtu(path, mtu);
                self.touch(index);
            }
        }
        Ok(())
    }

    /// Our addresses as path managers see them, those of paths that are down included.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.paths.endpoints()
    }

    /// An address comes to a path. Returns its endpoint's identifier.
    ///
    /// # Errors
    /// [`Error::BadPath`] if there is no such path, [`Error::AddrInUse`], [`Error::BadOption`] for flags that do not go
    /// together and for an identifier that is taken.
    pub fn add_endpoint(&mut self, now: Instant, new: &NewEndpoint) -> Result<u8, Error> {
        let endpoint = self.paths.add_endpoint(new)?;
        self.tell_all(now, |conn, cx| conn.on_endpoint_added(cx, &endpoint));
        Ok(endpoint.id)
    }

    /// An address goes: it is withdrawn, and what uses it ends as if its path [went](Self::remove_path).
    ///
    /// # Errors
    /// [`Error::BadOption`] if there is no such endpoint.
    pub fn remove_endpoint(&mut self, now: Instant, id: u8) -> Result<(), Error> {
        let endpoint = self.paths.remove_endpoint(id)?;
        self.forgo(now, &Gone { path: None, endpoints: &[endpoint] });
        Ok(())
    }

    /// Ends what cannot go on without what is gone.
    fn forgo(&mut self, now: Instant, gone: &Gone<'_>) {
        for key in self.syns.taken_by(gone) {
            self.remove_syn(now, key);
        }
        let elsewhere = |resting: &RestingConn| !resting.is_mptcp() && !resting.is_taken_by(gone);
        self.tell_all_but(now, elsewhere, |conn, cx| conn.on_gone(cx, gone));
    }

    /// Changes what may be done with an address. Live connections heed it: what is to be announced is, `backup` goes to
    /// the peers with MP_PRIO.
    ///
    /// # Errors
    /// [`Error::BadOption`] if there is no such endpoint, or the flags do not go together.
    pub fn change_endpoint(
        &mut self,
        now: Instant,
        id: u8,
        flags: EndpointFlags,
        port: Option<NonZeroU16>,
    ) -> Result<(), Error> {
        let (before, after) = self.paths.change_endpoint(id, flags, port)?;
        if before != after {
            self.tell_all(now, |conn, cx| conn.on_endpoint_changed(cx, before, after));
        }
        Ok(())
    }

    /// Changes the limits of all connections and listeners that there are. New ones have those of their options.
    pub fn set_limits(&mut self, now: Instant, limits: Limits) {
        // Limits are never refused.
        let listeners: Vec<ListenerId> = self.listeners.ids().collect();
        for id in listeners {
            let _ = self.set_listener_option(id, SockOpt::Limits(limits));
        }
        let all: Vec<ConnId> = self.conns.iter().filter_map(|(_, place)| place.id()).collect();
        for id in all {
            let _ = self.set_option(now, id, SockOpt::Limits(limits));
        }
    }

    /// Whether [`poll_report`](Self::poll_report) shall have something to say.
    pub fn want_reports(&mut self, wanted: bool) {
        self.reports.want(wanted);
    }

    /// The next thing that happened to connections and their paths.
    pub fn poll_report(&mut self) -> Option<Report> {
        self.reports.next()
    }

    /// How many reports were dropped since the last call, because nobody polled.
    pub fn take_dropped_reports(&mut self) -> u64 {
        self.reports.take_dropped()
    }

    /// The connection of this worker that has a token.
    #[must_use]
    pub fn by_token(&self, token: u32) -> Option<ConnId> {
        self.tokens.find(token).and_then(|index| self.conns.get(index as usize)).and_then(Place::id)
    }

    /// Does with a connection what a program that manages paths wants, whatever its path manager. The limits hold.
    ///
    /// # Errors
    /// [`Error::NotConnected`] if there is no such connection or it is not fully established, [`Error::BadOption`] for what
    /// is not there or not possible.
    pub fn command(&mut self, now: Instant, conn: ConnId, command: Command) -> Result<(), Error> {
        self.with(now, conn, |conn, cx| conn.command(cx, command)).ok_or(Error::NotConnected)?
    }

    /// Uses a subflow only when no other works, or no longer so, and asks the peer (MP_PRIO) to do the same.
    ///
    /// # Errors
    /// [`Error::NotConnected`] if there is no such subflow.
    pub fn set_backup(&mut self, now: Instant, conn: ConnId, subflow: u8, backup: bool) -> Result<(), Error> {
        self.with(now, conn, |conn, cx| conn.set_backup(cx, subflow, backup)).ok_or(Error::NotConnected)?
    }

    pub(super) fn tell_path(&mut self, now: Instant, path: PathId, up: bool) {
        let endpoints = self.paths.endpoints_of(path);
        self.tell_all(now, |conn, cx| conn.on_path(cx, path, &endpoints, up));
    }

    /// Tells all connections that have other paths to go to.
    fn tell_all(&mut self, now: Instant, tell: impl Fn(&mut Conn, &mut Cx<'_>)) {
        // Plain TCP at rest has nowhere else to go, and nothing under way to be sent again.
        self.tell_all_but(now, |resting| !resting.is_mptcp(), tell);
    }

    /// Tells all connections but those at rest that need not be woken for it.
    fn tell_all_but(
        &mut self,
        now: Instant,
        may_rest: impl Fn(&RestingConn) -> bool,
        tell: impl Fn(&mut Conn, &mut Cx<'_>),
    ) {
        let all: Vec<u32> = self.conns.iter().map(|(index, _)| index as u32).collect();
        for index in all {
            let place = &mut self.conns[index as usize];
            if matches!(place, Place::Resting(Some(resting)) if may_rest(resting)) {
                continue;
            }
            let conn = place.wake(&mut self.counters.conns_at_rest, self.memory.level());
            tell(conn, &mut cx!(self, now));
            self.touch(index);
        }
    }
}
