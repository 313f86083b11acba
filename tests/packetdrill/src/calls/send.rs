//! Writing.

use std::os::fd::RawFd;

use anabranch_frame::Payload;

use crate::buffers::Buffers;
use crate::errno::{Errno, Result};
use crate::handle::Handle;
use crate::plugin::Wait;
use crate::socket::Stage;
use crate::world::World;

impl World {
    /// Writes what is left in `buffers` as far as there is room; `EAGAIN` while some of it is to be waited for.
    pub(crate) fn send(&mut self, fd: RawFd, buffers: &mut Buffers, wait: Wait) -> Result<usize> {
        if let &mut Handle::Pipe(end) = self.handle(fd)? {
            return self.pipe_write(end, buffers);
        }
        let socket = self.socket(fd)?;
        let stage = socket.stage.clone();
        if socket.error.is_some() || socket.write_shut {
            return self.send_failed(fd, buffers);
        }
        let conn = match stage {
            Stage::Connected(conn) => conn,
            Stage::Connecting(_) => return Err(Errno::AGAIN),
            Stage::Idle | Stage::Listening(_) | Stage::Ended(_) => return Err(Errno::PIPE),
        };
        let now = self.now();
        while buffers.room() > 0 {
            let room = self.shard.write_room(conn);
            if room == 0 {
                break;
            }
            let bytes = buffers.take(room)?;
            self.shard.write(now, conn, Payload::from(bytes))?;
            self.pump();
        }
        match (buffers.done(), buffers.room()) {
            (done, 0) => Ok(done),
            (0, _) => Err(Errno::AGAIN),
            (done, _) if wait == Wait::Never => Ok(done),
            _ => Err(Errno::AGAIN),
        }
    }

    /// The connection broke: what was written before counts.
    fn send_failed(&mut self, fd: RawFd, buffers: &Buffers) -> Result<usize> {
        if buffers.done() > 0 {
            return Ok(buffers.done());
        }
        Err(self.socket(fd)?.take_error().unwrap_or(Errno::PIPE))
    }

    /// Bytes that were written and not acknowledged (`SIOCOUTQ`).
    pub(crate) fn unacknowledged(&mut self, fd: RawFd) -> Result<u64> {
        let conn = self.socket(fd)?.conn();
        Ok(conn.and_then(|conn| self.shard.info(conn)).map_or(0, |info| info.send_queued))
    }
}
