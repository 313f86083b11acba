//! Sockets come, find each other, and go.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;

use anabranch_core::shard::{Read, Shutdown};
use anabranch_core::{Event, ListenerId};

use crate::address::{Address, Family};
use crate::errno::{Errno, Result};
use crate::handle::{self, Handle};
use crate::socket::{Socket, Stage};
use crate::world::World;

/// `IPPROTO_MPTCP`.
const MPTCP: i32 = 262;
/// First port of those that the kernel gives to who asks for none.
const FIRST_FREE_PORT: u16 = 32_768;

impl World {
    /// `socket`.
    pub(crate) fn make_socket(&mut self, domain: i32, kind: i32, protocol: i32) -> Result<RawFd> {
        let family = Family::from_c(domain)?;
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        if kind & !flags != libc::SOCK_STREAM {
            return Err(Errno(libc::ESOCKTNOSUPPORT));
        }
        let mptcp = match protocol {
            0 | libc::IPPROTO_TCP => false,
            MPTCP => true,
            _ => return Err(Errno(libc::EPROTONOSUPPORT)),
        };
        self.refresh();
        if mptcp && !self.settings.mptcp_enabled {
            return Err(Errno::NO_OPTION);
        }
        let mut options = self.settings.socket_options(mptcp);
        options.limits = self.network.limits();
        let mut socket = Socket::new(family, options);
        socket.nonblocking = kind & libc::SOCK_NONBLOCK != 0;
        self.open(Handle::Socket(Box::new(socket)))
    }

    /// `bind`.
    pub(crate) fn bind(&mut self, fd: RawFd, addr: Address) -> Result<()> {
        let Address::Inet(mut addr) = addr else { return Err(Errno(libc::EAFNOSUPPORT)) };
        let socket = self.socket(fd)?;
        if socket.bound.is_some() || socket.stage != Stage::Idle {
            return Err(Errno::INVALID);
        }
        if socket.family == Family::V4 && addr.is_ipv6() {
            return Err(Errno(libc::EAFNOSUPPORT));
        }
        let now = self.now();
        self.network.adopt(now, &mut self.shard, addr.ip());
        if !addr.ip().is_unspecified() && !self.shard.owns(addr.ip()) {
            return Err(Errno(libc::EADDRNOTAVAIL));
        }
        if addr.port() == 0 {
            addr.set_port(self.free_port());
        }
        self.socket(fd)?.bound = Some(addr);
        Ok(())
    }

    fn free_port(&self) -> u16 {
        let used = |port| {
            self.handles.values().any(|handle| match handle {
                Handle::Socket(socket) => socket.bound.is_some_and(|bound| bound.port() == port),
                _ => false,
            })
        };
        (FIRST_FREE_PORT..u16::MAX).find(|&port| !used(port)).unwrap_or(FIRST_FREE_PORT)
    }

    /// `listen`.
    pub(crate) fn listen(&mut self, fd: RawFd, backlog: i32) -> Result<()> {
        let port = self.free_port();
        let socket = self.socket(fd)?;
        match &socket.stage {
            Stage::Idle => {}
            // Listening already: only the backlog changes, and the stack's stays.
            Stage::Listening(_) => return Ok(()),
            _ => return Err(Errno::INVALID),
        }
        let (family, options) = (socket.family, socket.options.clone());
        let local = *socket.bound.get_or_insert_with(|| SocketAddr::new(family.unspecified(), port));
        let mut locals = vec![local];
        if family == Family::V6 && local.ip().is_unspecified() && local.is_ipv6() {
            locals.push(SocketAddr::new(Family::V4.unspecified(), local.port()));
        }
        // As in the kernel, the backlog is what may wait beyond the one that is next.
        let backlog = usize::try_from(backlog).unwrap_or(usize::MAX).saturating_add(1);
        let mut ids: Vec<ListenerId> = Vec::new();
        for local in locals {
            ids.push(self.shard.listen(local, backlog, options.clone())?);
        }
        for &id in &ids {
            self.own_listener(id, fd);
        }
        self.socket(fd)?.stage = Stage::Listening(ids);
        Ok(())
    }

    /// `accept`: the new socket's descriptor and the peer's address, as the socket sees it.
    pub(crate) fn accept(&mut self, fd: RawFd) -> Result<(RawFd, Family, SocketAddr)> {
        let socket = self.socket(fd)?;
        let Stage::Listening(ids) = socket.stage.clone() else { return Err(Errno::INVALID) };
        let (family, options, bound) = (socket.family, socket.options.clone(), socket.bound);
        for id in ids {
            let Some((conn, peer)) = self.shard.accept(id) else { continue };
            let mut socket = Socket::new(family, options);
            socket.bound = bound;
            socket.stage = Stage::Connected(conn);
            // It may be over before anybody has seen it.
            match self.shard.read(conn, 0) {
                Read::Failed(error) => socket.on_event(Event::Closed(conn, Some(error))),
                Read::Eof => socket.at_eof = true,
                Read::Empty | Read::Data(_) => {}
            }
            let new = self.open(Handle::Socket(Box::new(socket)))?;
            self.own_conn(conn, new);
            return Ok((new, family, peer));
        }
        Err(Errno::AGAIN)
    }

    /// `connect`: begins it, or says how it stands.
    pub(crate) fn connect(&mut self, fd: RawFd, addr: Address) -> Result<()> {
        let Address::Inet(mut remote) = addr else { return self.disconnect(fd) };
        let socket = self.socket(fd)?;
        match socket.stage {
            Stage::Idle => {}
            Stage::Listening(_) => return Err(Errno(libc::EISCONN)),
            Stage::Connecting(_) => return Err(Errno(libc::EALREADY)),
            Stage::Connected(_) => {
                let told = core::mem::replace(&mut socket.connect_told, true);
                return if told { Err(Errno(libc::EISCONN)) } else { Ok(()) };
            }
            Stage::Ended(conn) => {
                if let Some(error) = socket.take_error() {
                    return Err(error);
                }
                if socket.connect_told {
                    return Err(Errno(libc::EISCONN));
                }
                socket.stage = Stage::Idle;
                self.let_go(conn);
            }
        }
        if remote.ip().is_unspecified() {
            let loopback = if remote.is_ipv4() { IpAddr::from([127, 0, 0, 1]) } else { IpAddr::V6(1.into()) };
            remote.set_ip(loopback);
        }
        let socket = self.socket(fd)?;
        let (local, options) = (socket.bound, socket.options.clone());
        let now = self.now();
        let conn = self.shard.connect(now, local, remote, &options)?;
        self.own_conn(conn, fd);
        let socket = self.socket(fd)?;
        (socket.stage, socket.connect_told) = (Stage::Connecting(conn), false);
        (socket.read_shut, socket.write_shut, socket.at_eof) = (false, false, false);
        Err(Errno(libc::EINPROGRESS))
    }

    /// How the `connect` that is under way ended; `EAGAIN` while it has not.
    pub(crate) fn connected(&mut self, fd: RawFd) -> Result<()> {
        let socket = self.socket(fd)?;
        if matches!(socket.stage, Stage::Connecting(_)) {
            return Err(Errno::AGAIN);
        }
        match socket.take_error() {
            Some(error) => Err(error),
            None => {
                socket.connect_told = true;
                Ok(())
            }
        }
    }

    fn disconnect(&mut self, fd: RawFd) -> Result<()> {
        let now = self.now();
        let socket = self.socket(fd)?;
        let stage = core::mem::replace(&mut socket.stage, Stage::Idle);
        (socket.error, socket.connect_told) = (None, false);
        socket.peeked.clear();
        (socket.read_shut, socket.write_shut) = (false, false);
        match stage {
            Stage::Idle => {}
            Stage::Listening(ids) => self.stop_listening(ids),
            Stage::Connecting(conn) | Stage::Connected(conn) | Stage::Ended(conn) => {
                self.shard.abort(now, conn);
                self.let_go(conn);
            }
        }
        self.wake(fd, handle::READ | handle::WRITE | handle::HANG_UP);
        Ok(())
    }

    fn let_go(&mut self, conn: anabranch_core::ConnId) {
        self.disown_conn(conn);
        let now = self.now();
        self.shard.release(now, conn);
    }

    fn stop_listening(&mut self, ids: Vec<ListenerId>) {
        let now = self.now();
        for id in ids {
            self.disown_listener(id);
            self.shard.close_listener(now, id);
        }
    }

    /// `close`.
    pub(crate) fn close(&mut self, fd: RawFd) -> Result<()> {
        let handle = self.handles.remove(&fd).ok_or(Errno::BAD_FD)?;
        self.forget_in_sets(fd);
        let now = self.now();
        match handle {
            Handle::Socket(socket) => match socket.stage {
                Stage::Idle => {}
                Stage::Listening(ids) => self.stop_listening(ids),
                Stage::Connecting(conn) | Stage::Connected(conn) | Stage::Ended(conn) => {
                    if !socket.peeked.is_empty() {
                        self.shard.abort(now, conn);
                    }
                    self.let_go(conn);
                }
            },
            Handle::Pipe(end) => self.close_pipe(end),
            Handle::Epoll(_) => {}
        }
        handle::close_descriptor(fd)
    }

    /// `shutdown`.
    pub(crate) fn shutdown(&mut self, fd: RawFd, how: i32) -> Result<()> {
        let how = match how {
            libc::SHUT_RD => Shutdown::Read,
            libc::SHUT_WR => Shutdown::Write,
            libc::SHUT_RDWR => Shutdown::Both,
            _ => return Err(Errno::INVALID),
        };
        let now = self.now();
        let socket = self.socket(fd)?;
        let read = matches!(how, Shutdown::Read | Shutdown::Both);
        match socket.stage.clone() {
            Stage::Idle | Stage::Ended(_) => return Err(Errno::NOT_CONNECTED),
            Stage::Listening(ids) => {
                if read {
                    socket.stage = Stage::Idle;
                    self.stop_listening(ids);
                }
            }
            Stage::Connecting(conn) => {
                socket.stage = Stage::Idle;
                self.let_go(conn);
            }
            Stage::Connected(conn) => {
                socket.read_shut |= read;
                socket.write_shut |= matches!(how, Shutdown::Write | Shutdown::Both);
                self.shard.shutdown(now, conn, how)?;
            }
        }
        self.wake(fd, handle::READ | handle::WRITE | handle::HANG_UP);
        Ok(())
    }
}
