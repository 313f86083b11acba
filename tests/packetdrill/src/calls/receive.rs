//! Reading.

use std::os::fd::RawFd;

use anabranch_core::shard::Read;
use anabranch_frame::Payload;

use crate::buffers::Buffers;
use crate::errno::{Errno, Result};
use crate::handle::Handle;
use crate::plugin::Wait;
use crate::socket::Stage;
use crate::world::World;

impl World {
    /// How long a call on `fd` may wait, by its mode and its flags.
    pub(crate) fn patience(&mut self, fd: RawFd, flags: i32) -> Wait {
        match self.handles.get(&fd) {
            Some(Handle::Socket(socket)) if socket.nonblocking || flags & libc::MSG_DONTWAIT != 0 => Wait::Never,
            _ => Wait::Forever,
        }
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
