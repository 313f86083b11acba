//! Pooled buffers in a few sizes, so that a small packet never keeps a large buffer alive.

use anabranch_frame::{BufferMut, BufferPool, Payload, Pools};

/// Buffer length in bytes and how many idle ones are kept, smallest first. The sizes fit an ACK, a
/// packet of Ethernet's MTU, and two steps up to the largest packet there is.
const CLASSES: [(usize, usize); 4] = [(256, 1024), (1_664, 1024), (4_096, 256), (16_384, 128)];

/// Idle buffers of the largest size that are kept: 16 MiB of them, a full receive window.
const LARGE_KEPT: usize = 256;

/// Pools of [`CLASSES`], and one of large buffers.
#[derive(Debug)]
pub(crate) struct Buffers {
    classes: Pools<{ CLASSES.len() }>,
    large: BufferPool,
}

impl Buffers {
    /// Pools whose large buffers have `large_len` bytes.
    pub(crate) fn new(large_len: usize) -> Self {
        Self { classes: Pools::new(CLASSES), large: BufferPool::new(large_len, LARGE_KEPT) }
    }

    /// A buffer of the largest size.
    pub(crate) fn take_large(&self) -> BufferMut {
        self.large.take()
    }

    /// The smallest buffer for `len` bytes, or `None` when only a large one would do.
    pub(crate) fn take_fitting(&self, len: usize) -> Option<BufferMut> {
        self.classes.take(len)
    }

    /// A copy of `parts`, one after the other.
    ///
    /// # Panics
    /// If they are longer than a large buffer.
    pub(crate) fn gather<'a>(&self, len: usize, parts: impl Iterator<Item = &'a [u8]>) -> Payload {
        let mut buffer = self.take_fitting(len).unwrap_or_else(|| self.take_large());
        let mut at = 0;
        for part in parts {
            buffer.as_mut_slice()[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        buffer.freeze(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_bytes_do_not_pin_a_large_buffer() {
        let buffers = Buffers::new(65_600);

        let small = buffers.gather(10, [b"01234".as_slice(), b"56789"].into_iter());
        let large = buffers.gather(20_000, std::iter::once([7; 20_000].as_slice()));

        assert_eq!((&*small, small.storage_len()), (b"0123456789".as_slice(), 256));
        assert_eq!((large.len(), large.storage_len()), (20_000, 65_600));
    }
}
