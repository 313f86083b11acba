//! Reading.

use std::os::fd::RawFd;

use anabranch_core::shard::Read;
use anabranch_frame::Payload;

use crate::buffers::Buffers;
use crate::control::Control;
use crate::errno::{Errno, Result};
use crate::errqueue::Taken;
use crate::handle::Handle;
use crate::plugin::Wait;
use crate::socket::Stage;
use crate::world::World;

/// Which way the bytes go that a call waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    Receive,
    Send,
}

impl World {
    /// How long a call on `fd` may wait, by its mode and its flags.
    pub(crate) fn patience(&mut self, fd: RawFd, flags: i32, direction: Direction) -> Wait {
        let Some(Handle::Socket(socket)) = self.handles.get(&fd) else { return Wait::Forever };
        let limit = match direction {
            Direction::Receive => socket.receive_timeout,
            Direction::Send => socket.send_timeout,
        };
        match limit {
            _ if socket.nonblocking || flags & libc::MSG_DONTWAIT != 0 => Wait::Never,
            Some(limit) => Wait::For(limit),
            None => Wait::Forever,
        }
    }

    /// What the oldest note of the error queue says (`MSG_ERRQUEUE`).
    pub(crate) fn take_note(&mut self, fd: RawFd) -> Result<Taken> {
        let socket = self.socket(fd)?;
        socket.errors.take(socket.family).ok_or(Errno::AGAIN)
    }

    /// Control messages that go with what was read.
    pub(crate) fn notes_on_reading(&mut self, fd: RawFd) -> Result<Control> {
        let mut control = Control::default();
        let (unread, socket) = (self.unread(fd)?, self.socket(fd)?);
        if socket.tells_unread {
            let conn = socket.conn();
            // Nothing to read but the end of the stream counts as one byte.
            let ended = unread == 0 && conn.is_some_and(|conn| self.has_ended(conn));
            let unread = unread.max(ended.into()) as i32;
            control.push(libc::SOL_TCP, libc::TCP_CM_INQ, &unread.to_ne_bytes());
        }
        Ok(control)
    }

    /// Reads up to the room in `buffers`, which gets what has come so far also when the rest is waited for.
    pub(crate) fn receive(&mut self, fd: RawFd, buffers: &mut Buffers, flags: i32, wait: Wait) -> Result<usize> {
        if flags & libc::MSG_OOB != 0 {
            return Err(Errno::INVALID);
        }
        if let &mut Handle::Pipe(end) = self.handle(fd)? {
            return self.pipe_read(end, buffers);
        }
        let socket = self.socket(fd)?;
        let stage = socket.stage.clone();
        let conn = match stage {
            Stage::Idle | Stage::Listening(_) => {
                return Err(socket.take_error().unwrap_or(Errno::NOT_CONNECTED));
            }
            Stage::Connecting(_) => return Err(Errno::AGAIN),
            Stage::Connected(conn) | Stage::Ended(conn) => conn,
        };
        let peek = flags & libc::MSG_PEEK != 0;
        if peek {
            buffers.rewind();
            self.take_to_peek(fd, buffers.room())?;
        }
        let truncate = flags & libc::MSG_TRUNC != 0;
        let mut end = None;
        while buffers.room() > 0 {
            if !truncate && self.unread(fd)? > 0 {
                // Nothing is read that cannot be delivered.
                buffers.check()?;
            }
            match self.next_piece(fd, buffers, peek)? {
                Read::Data(piece) => {
                    if truncate {
                        buffers.skip(piece.len());
                    } else {
                        buffers.put(&piece)?;
                    }
                    if !peek {
                        let now = self.now();
                        self.shard.consumed(now, conn, piece.len());
                    }
                }
                other => {
                    end = Some(other);
                    break;
                }
            }
        }
        let all = flags & libc::MSG_WAITALL != 0 && wait != Wait::Never;
        match (buffers.done(), end) {
            (0, Some(Read::Failed(_))) => {
                let socket = self.socket(fd)?;
                socket.take_error().map_or(Ok(0), Err)
            }
            (0, Some(Read::Empty)) if self.socket(fd)?.read_shut => Ok(0),
            (0, Some(Read::Empty)) => Err(Errno::AGAIN),
            (_, Some(Read::Empty)) if all => Err(Errno::AGAIN),
            (done, _) => Ok(done),
        }
    }

    /// Has `bytes` in the socket's list of what was looked at, if there are so many.
    fn take_to_peek(&mut self, fd: RawFd, bytes: usize) -> Result<()> {
        while self.socket(fd)?.peeked_len() < bytes {
            let socket = self.socket(fd)?;
            let (missing, Some(conn)) = (bytes - socket.peeked_len(), socket.conn()) else { return Ok(()) };
            let Read::Data(piece) = self.shard.read(conn, missing) else { return Ok(()) };
            self.socket(fd)?.peeked.push_back(piece);
        }
        Ok(())
    }

    /// The next bytes to be read: those that were looked at come first. Looking, only those there are.
    fn next_piece(&mut self, fd: RawFd, buffers: &Buffers, peek: bool) -> Result<Read> {
        let socket = self.socket(fd)?;
        let Some(conn) = socket.conn() else { return Ok(Read::Eof) };
        if peek {
            let mut skip = buffers.done();
            for piece in &socket.peeked {
                if skip < piece.len() {
                    let len = (piece.len() - skip).min(buffers.room());
                    return Ok(Read::Data(piece.slice(skip..skip + len)));
                }
                skip -= piece.len();
            }
        } else if let Some(mut piece) = socket.peeked.pop_front() {
            let taken = piece.split_to(piece.len().min(buffers.room()));
            if !piece.is_empty() {
                socket.peeked.push_front(piece);
            }
            return Ok(Read::Data(taken));
        }
        let read = self.shard.read(conn, if peek { 0 } else { buffers.room() });
        if read == Read::Eof {
            self.socket(fd)?.at_eof = true;
        }
        Ok(read)
    }

    /// Bytes that can be read at once (`SIOCINQ`).
    pub(crate) fn unread(&mut self, fd: RawFd) -> Result<u64> {
        let socket = self.socket(fd)?;
        let peeked = socket.peeked.iter().map(Payload::len).sum::<usize>() as u64;
        Ok(peeked + socket.conn().map_or(0, |conn| self.readable(conn)))
    }
}
