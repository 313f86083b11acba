//! Sockets come, find each other, and go.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;

use anabranch_core::shard::{Read, Shutdown};
use anabranch_core::{Event, ListenerId};
use anabranch_frame::Payload;

use crate::address::{Address, Family};
use crate::buffers::Buffers;
use crate::errno::{Errno, Result};
use crate::handle::{self, Handle};
use crate::socket::{Opening, Socket, Stage};
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
        let mut socket = Socket::new(family, options, self.settings.send_buffer());
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
        let template = socket.child();
        for id in ids {
            let Some((conn, peer)) = self.shard.accept(id) else { continue };
            let family = template.family;
            let mut socket = template;
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
            Stage::Connected(_) if socket.opening == Some(Opening::Underway) => return Err(Errno(libc::EALREADY)),
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
        socket.begin(conn);
        self.pump();
        let socket = self.socket(fd)?;
        if matches!(socket.stage, Stage::Connected(_)) {
            // Nothing was sent yet, so it cannot be connected: the stack waits for data to send along.
            (socket.opening, socket.connect_told) = (Some(Opening::Deferred), true);
            return Ok(());
        }
        Err(Errno(libc::EINPROGRESS))
    }

    /// The connection that `MSG_FASTOPEN` opens, with as much of `buffers` as goes with the SYN.
    pub(crate) fn connect_with(&mut self, fd: RawFd, addr: Address, buffers: &mut Buffers, flags: i32) -> Result<()> {
        if !self.settings.handshake.fastopen.client {
            return Err(Errno(libc::EOPNOTSUPP));
        }
        let Address::Inet(remote) = addr else { return Err(Errno(libc::EOPNOTSUPP)) };
        let socket = self.socket(fd)?;
        match (&socket.stage, socket.opening) {
            (Stage::Idle, _) => {}
            // The SYN waits for data: the write that follows sends it.
            (Stage::Connected(_), Some(Opening::Deferred)) => return Ok(()),
            (Stage::Connecting(_), _) | (_, Some(Opening::Underway)) => return Err(Errno(libc::EALREADY)),
            // The first call after the handshake finds it done, as `connect` would.
            (Stage::Connected(_), None) if !core::mem::replace(&mut socket.connect_told, true) => return Ok(()),
            (Stage::Ended(_), _) => return Ok(()),
            _ => return Err(Errno(libc::EISCONN)),
        }
        let (local, options) = (socket.bound, socket.options.clone());
        let data = buffers.look()?;
        let now = self.now();
        let (conn, taken) = self.shard.connect_with(now, local, remote, &options, Payload::from(data))?;
        buffers.skip(taken);
        self.own_conn(conn, fd);
        let socket = self.socket(fd)?;
        socket.begin(conn);
        if taken > 0 {
            socket.send_buffer.take_all(taken as u64);
            socket.errors.on_write(0, taken as u64, flags & libc::MSG_ZEROCOPY != 0);
        }
        Ok(())
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
                // Of the reading half only the reader hears: as in the kernel, what still comes is taken.
                if matches!(how, Shutdown::Write | Shutdown::Both) {
                    socket.write_shut = true;
                    self.shard.shutdown(now, conn, Shutdown::Write)?;
                }
            }
        }
        self.wake(fd, handle::READ | handle::WRITE | handle::HANG_UP);
        Ok(())
    }
}
