//! Pipes, which `splice` needs.

use std::collections::VecDeque;
use std::os::fd::RawFd;

use crate::buffers::Buffers;
use crate::calls::send::Call;
use crate::errno::{Errno, Result};
use crate::handle::{Handle, READ, WRITE};
use crate::plugin::Wait;
use crate::world::World;

/// What a pipe holds at most, in bytes (Linux: 16 pages).
const CAPACITY: usize = 65_536;

/// A pipe.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    bytes: VecDeque<u8>,
    ends: u8,
}

/// One end of a pipe.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PipeEnd {
    pipe: usize,
    writes: bool,
}

impl World {
    /// `pipe`: the end to read from, and the end to write to.
    pub(crate) fn make_pipe(&mut self) -> Result<[RawFd; 2]> {
        let pipe = self.pipes.len();
        self.pipes.push(Pipe { bytes: VecDeque::new(), ends: 2 });
        Ok([
            self.open(Handle::Pipe(PipeEnd { pipe, writes: false }))?,
            self.open(Handle::Pipe(PipeEnd { pipe, writes: true }))?,
        ])
    }

    fn pipe(&mut self, end: PipeEnd) -> &mut Pipe {
        &mut self.pipes[end.pipe]
    }

    pub(crate) fn pipe_mask(&mut self, end: PipeEnd) -> i16 {
        let pipe = self.pipe(end);
        let (holds, alone) = (pipe.bytes.len(), pipe.ends < 2);
        match end.writes {
            true => (if holds < CAPACITY { WRITE } else { 0 }) | if alone { libc::POLLERR } else { 0 },
            false => (if holds > 0 { READ } else { 0 }) | if alone { libc::POLLHUP } else { 0 },
        }
    }

    pub(crate) fn pipe_read(&mut self, end: PipeEnd, buffers: &mut Buffers) -> Result<usize> {
        if end.writes {
            return Err(Errno::BAD_FD);
        }
        let pipe = self.pipe(end);
        let len = pipe.bytes.len().min(buffers.room());
        if len == 0 {
            return if pipe.ends < 2 || buffers.room() == 0 { Ok(0) } else { Err(Errno::AGAIN) };
        }
        let bytes: Vec<u8> = pipe.bytes.drain(..len).collect();
        buffers.put(&bytes)?;
        Ok(len)
    }

    pub(crate) fn pipe_write(&mut self, end: PipeEnd, buffers: &mut Buffers) -> Result<usize> {
        if !end.writes {
            return Err(Errno::BAD_FD);
        }
        let pipe = self.pipe(end);
        if pipe.ends < 2 {
            return Err(Errno::PIPE);
        }
        let bytes = buffers.take(CAPACITY - pipe.bytes.len())?;
        if bytes.is_empty() && buffers.room() > 0 {
            return Err(Errno::AGAIN);
        }
        pipe.bytes.extend(bytes);
        Ok(buffers.done())
    }

    pub(crate) fn close_pipe(&mut self, end: PipeEnd) {
        self.pipe(end).ends -= 1;
    }

    /// `splice`: moves up to `len` bytes between a pipe and something else.
    pub(crate) fn splice(&mut self, from: RawFd, to: RawFd, len: usize) -> Result<usize> {
        let is_pipe = |world: &Self, fd| matches!(world.handles.get(&fd), Some(Handle::Pipe(_)));
        if !is_pipe(self, from) && !is_pipe(self, to) {
            return Err(Errno::INVALID);
        }
        let mut room = len.min(CAPACITY);
        if let Some(&Handle::Pipe(end)) = self.handles.get(&to) {
            room = room.min(CAPACITY - self.pipe(end).bytes.len());
        }
        let mut bytes = vec![0; room];
        // SAFETY: the bytes outlive what points to them, and nobody else uses them meanwhile.
        let mut into = unsafe { Buffers::new([(bytes.as_mut_ptr(), room)]) };
        let got = self.receive(from, &mut into, libc::MSG_DONTWAIT, Wait::Never)?;
        // SAFETY: as above.
        let mut out = unsafe { Buffers::new([(bytes.as_mut_ptr(), got)]) };
        self.send(to, &mut out, &mut Call::new(0, Wait::Never))
    }
}
