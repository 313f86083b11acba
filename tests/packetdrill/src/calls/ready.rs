//! What `poll` says of a descriptor.

use std::os::fd::RawFd;

use anabranch_core::ConnId;
use anabranch_core::info::TcpState;
use anabranch_core::shard::Read;

use crate::errno::Result;
use crate::handle::{Handle, READ, WRITE};
use crate::socket::{Opening, Stage};
use crate::world::World;

impl World {
    /// Everything that holds of `fd`, whether asked for or not.
    pub(crate) fn poll_mask(&mut self, fd: RawFd) -> Result<i16> {
        Ok(match self.handle(fd)? {
            Handle::Socket(_) => self.socket_mask(fd)?,
            &mut Handle::Pipe(end) => self.pipe_mask(end),
            Handle::Epoll(_) => 0,
        })
    }

    fn socket_mask(&mut self, fd: RawFd) -> Result<i16> {
        let socket = self.socket(fd)?;
        let stage = socket.stage.clone();
        let (read_shut, write_shut) = (socket.read_shut || socket.at_eof, socket.write_shut);
        let error = socket.error.is_some() || !socket.errors.is_empty();
        let peeked = !socket.peeked.is_empty();
        let (writable, opening) = (socket.send_buffer.is_writable(), socket.opening);
        let mut mask = if error { libc::POLLERR } else { 0 };
        match stage {
            Stage::Listening(ids) => {
                if ids.iter().any(|&id| self.shard.acceptable(id)) {
                    mask |= READ;
                }
                return Ok(mask);
            }
            Stage::Connecting(_) => return Ok(mask),
            Stage::Connected(_) if opening == Some(Opening::Underway) => return Ok(mask),
            Stage::Connected(_) if opening == Some(Opening::Deferred) => return Ok(mask | WRITE),
            Stage::Idle => return Ok(mask | libc::POLLHUP | WRITE),
            Stage::Connected(conn) | Stage::Ended(conn) => {
                let ended = matches!(stage, Stage::Ended(_));
                let eof = read_shut || self.has_ended(conn);
                if ended || (eof && write_shut) {
                    mask |= libc::POLLHUP;
                }
                if ended || eof {
                    mask |= READ | libc::POLLRDHUP;
                }
                if peeked || self.readable(conn) > 0 {
                    mask |= READ;
                }
                if ended || write_shut || writable {
                    mask |= WRITE;
                }
            }
        }
        Ok(mask)
    }

    /// Bytes that the stack has for the reader.
    pub(crate) fn readable(&self, conn: ConnId) -> u64 {
        self.shard.info(conn).map_or(0, |info| info.recv_queued)
    }

    /// Whether the peer's stream has ended, read or not.
    pub(crate) fn has_ended(&mut self, conn: ConnId) -> bool {
        let ended =
            |state| matches!(state, TcpState::CloseWait | TcpState::LastAck | TcpState::Closing | TcpState::TimeWait);
        // With MPTCP a subflow's end is not the stream's, and the stream's shows when all was read.
        let plain = self.shard.info(conn).is_some_and(|info| !info.mptcp);
        let first = self.shard.subflows(conn).unwrap_or_default().first().map(|first| first.state);
        (plain && first.is_some_and(ended)) || matches!(self.shard.read(conn, 0), Read::Eof | Read::Failed(_))
    }

    /// `poll`, without waiting.
    pub(crate) fn poll(&mut self, fds: &mut [libc::pollfd]) -> usize {
        let mut ready = 0;
        for poll in fds {
            poll.revents = match self.poll_mask(poll.fd) {
                _ if poll.fd < 0 => 0,
                Ok(mask) => mask & (poll.events | libc::POLLERR | libc::POLLHUP),
                Err(_) => libc::POLLNVAL,
            };
            ready += usize::from(poll.revents != 0);
        }
        ready
    }
}
