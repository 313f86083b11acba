//! Writing.

use std::os::fd::RawFd;

use anabranch_core::ConnId;
use anabranch_core::Follows;
use anabranch_frame::Payload;

use crate::buffers::Buffers;
use crate::errno::{Errno, Result};
use crate::handle::Handle;
use crate::plugin::Wait;
use crate::sendbuf::Filled;
use crate::socket::{Opening, Stage};
use crate::world::World;

/// Pieces of the caller's memory in one buffer at most, with `MSG_ZEROCOPY` (`MAX_SKB_FRAGS`).
const FRAGMENTS_MAX: usize = 17;

/// A call that writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) flags: i32,
    pub(crate) wait: Wait,
    /// It has been tried before, and waited.
    pub(crate) again: bool,
    /// The connection was there: from here on what was written counts, whatever happens.
    pub(crate) opened: bool,
}

impl Call {
    fn is_zerocopy(&self) -> bool {
        self.flags & libc::MSG_ZEROCOPY != 0
    }

    /// What follows a piece that is the `last` of the call or for the moment, that `filled` a buffer, and is pushed anyway
    /// if `forced`: segments keep within the kernel's buffers, unless these are of one segment only.
    fn follows(&self, last: bool, filled: Option<Filled>, forced: bool) -> Follows {
        let pushed = forced || (last && self.flags & libc::MSG_MORE == 0);
        match filled {
            _ if last && self.flags & libc::MSG_EOR != 0 => Follows::Boundary,
            Some(_) if forced => Follows::Boundary,
            Some(Filled::Segments) if pushed => Follows::Boundary,
            Some(Filled::Segments) => Follows::Apart,
            _ if pushed => Follows::Nothing,
            _ => Follows::More,
        }
    }

    pub(crate) fn new(flags: i32, wait: Wait) -> Self {
        Self { flags, wait, again: false, opened: false }
    }
}

impl World {
    /// Writes what is left in `buffers` as far as there is room; `EAGAIN` while some of it is to be waited for.
    pub(crate) fn send(&mut self, fd: RawFd, buffers: &mut Buffers, call: &mut Call) -> Result<usize> {
        if let &mut Handle::Pipe(end) = self.handle(fd)? {
            return self.pipe_write(end, buffers);
        }
        let again = core::mem::replace(&mut call.again, true);
        let socket = self.socket(fd)?;
        let stage = socket.stage.clone();
        if socket.error.is_some() || socket.write_shut {
            return self.send_failed(fd, buffers, call);
        }
        let conn = match stage {
            Stage::Connected(conn) => conn,
            Stage::Connecting(_) => return Err(Errno::AGAIN),
            Stage::Idle | Stage::Listening(_) | Stage::Ended(_) => return Err(Errno::PIPE),
        };
        // Who waits for room is woken when there is enough of it, not when there is any.
        if again && socket.send_buffer.is_wanted() {
            return Err(Errno::AGAIN);
        }
        match socket.opening {
            Some(Opening::Deferred) => return self.send_with_syn(fd, conn, buffers, call),
            Some(Opening::Underway) => return Err(Errno::AGAIN),
            None => {}
        }
        call.opened = true;
        let start = socket.send_buffer.written();
        let now = self.now();
        while buffers.room() > 0 {
            buffers.check()?;
            let most = if call.is_zerocopy() { buffers.span(FRAGMENTS_MAX) } else { buffers.room() };
            let send_buffer = &mut self.socket(fd)?.send_buffer;
            let taken = send_buffer.take(most as u64);
            if taken == 0 {
                break;
            }
            // A buffer holds so many pieces and no more (`MAX_SKB_FRAGS`), and is pushed then.
            let crowded = most < buffers.room() && taken == most as u64;
            if crowded {
                send_buffer.close_last();
            }
            let filled = send_buffer.last_is_full();
            let bytes = buffers.take(taken as usize)?;
            let last = buffers.room() == 0;
            let forced = crowded || ((filled.is_some() || last) && send_buffer.is_push_due());
            // Whoever finds the buffer full pushes what he has written.
            let forced = forced || (!last && send_buffer.is_full());
            let follows = call.follows(last, filled, forced);
            if matches!(follows, Follows::Nothing | Follows::Boundary) {
                send_buffer.on_push();
            }
            self.shard.write_with(now, conn, Payload::from(bytes), follows)?;
            self.pump();
        }
        let socket = self.socket(fd)?;
        let end = socket.send_buffer.written();
        if end > start {
            socket.errors.on_write(start, end, call.is_zerocopy());
            if call.flags & libc::MSG_EOR != 0 && buffers.room() == 0 {
                socket.send_buffer.close_last();
            }
        }
        match (buffers.done(), buffers.room()) {
            (done, 0) => Ok(done),
            (0, _) => Err(Errno::AGAIN),
            (done, _) if call.wait == Wait::Never => Ok(done),
            _ => Err(Errno::AGAIN),
        }
    }

    /// The first write on a connection that waits for data to send along with its SYN.
    fn send_with_syn(&mut self, fd: RawFd, conn: ConnId, buffers: &mut Buffers, call: &Call) -> Result<usize> {
        if buffers.room() > 0 {
            buffers.check()?;
        }
        let now = self.now();
        let bytes = buffers.take(self.shard.write_room(conn))?;
        let taken = bytes.len() as u64;
        self.shard.write(now, conn, Payload::from(bytes))?;
        let socket = self.socket(fd)?;
        socket.send_buffer.take_all(taken);
        socket.errors.on_write(0, taken, call.is_zerocopy());
        socket.opening = Some(Opening::Underway);
        self.pump();
        match buffers.room() {
            _ if call.wait == Wait::Never && taken == 0 => Err(Errno(libc::EINPROGRESS)),
            _ if call.wait == Wait::Never => Ok(buffers.done()),
            // Who may wait hears whether the peer was there.
            _ => {
                self.wait_to_write(fd, buffers);
                Err(Errno::AGAIN)
            }
        }
    }

    /// Tells the stack that what is left in `buffers` waits.
    pub(crate) fn wait_to_write(&mut self, fd: RawFd, buffers: &Buffers) {
        let conn = self.socket(fd).ok().and_then(|socket| socket.conn());
        if let Some(conn) = conn.filter(|_| buffers.room() > 0) {
            // It notes that somebody wants room if there is none.
            let _ = self.shard.write_room(conn);
        }
    }

    /// The connection broke: what was written before counts, unless that was before it existed.
    fn send_failed(&mut self, fd: RawFd, buffers: &Buffers, call: &Call) -> Result<usize> {
        if buffers.done() > 0 && call.opened {
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
