//! The caller's memory, as an `iovec` names it.

use crate::errno::{Errno, Result};

/// Pieces of the caller's memory, and how far they were used.
#[derive(Debug)]
pub(crate) struct Buffers {
    pieces: Vec<(*mut u8, usize)>,
    total: usize,
    done: usize,
}

impl Buffers {
    /// # Safety
    /// Until this is dropped each piece is null, or as many bytes as said may be read there, and written if anything is
    /// [put](Self::put) there.
    pub(crate) unsafe fn new(pieces: impl IntoIterator<Item = (*mut u8, usize)>) -> Self {
        let pieces: Vec<_> = pieces.into_iter().collect();
        let total = pieces.iter().map(|(_, len)| len).sum();
        Self { pieces, total, done: 0 }
    }

    /// Bytes that were put or taken.
    pub(crate) fn done(&self) -> usize {
        self.done
    }

    /// Bytes that are left.
    pub(crate) fn room(&self) -> usize {
        self.total - self.done
    }

    /// Begins anew.
    pub(crate) fn rewind(&mut self) {
        self.done = 0;
    }

    /// Counts bytes that nobody wants to see.
    pub(crate) fn skip(&mut self, bytes: usize) {
        self.done = self.total.min(self.done + bytes);
    }

    /// Appends `bytes`, of which there is room for all.
    pub(crate) fn put(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let (at, room) = self.place()?;
            let len = room.min(bytes.len());
            // SAFETY: `place` gives memory of the caller's that may be written.
            unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), at, len) };
            bytes = &bytes[len..];
            self.done += len;
        }
        Ok(())
    }

    /// Bytes that are left in the next `pieces` pieces of the caller's memory.
    pub(crate) fn span(&self, pieces: usize) -> usize {
        let mut skip = self.done;
        let left = self.pieces.iter().map(|&(_, len)| {
            let gone = skip.min(len);
            skip -= gone;
            len - gone
        });
        left.filter(|&len| len > 0).take(pieces).sum()
    }

    /// A copy of all that is left.
    pub(crate) fn look(&mut self) -> Result<Vec<u8>> {
        let done = self.done;
        let bytes = self.take(self.room());
        self.done = done;
        bytes
    }

    /// Takes up to `max` bytes out.
    pub(crate) fn take(&mut self, max: usize) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(max.min(self.room()));
        while out.len() < max && self.room() > 0 {
            let (at, room) = self.place()?;
            let len = room.min(max - out.len());
            // SAFETY: `place` gives memory of the caller's that may be read.
            out.extend_from_slice(unsafe { core::slice::from_raw_parts(at, len) });
            self.done += len;
        }
        Ok(out)
    }

    /// Whether there is memory where the next byte is.
    pub(crate) fn check(&self) -> Result<()> {
        self.place().map(|_| ())
    }

    /// Where the next byte is, and how many follow it there.
    fn place(&self) -> Result<(*mut u8, usize)> {
        let mut skip = self.done;
        for &(start, len) in &self.pieces {
            if skip < len {
                if start.is_null() {
                    return Err(Errno::FAULT);
                }
                // SAFETY: within the piece.
                return Ok((unsafe { start.add(skip) }, len - skip));
            }
            skip -= len;
        }
        Err(Errno::FAULT)
    }
}
