//! Where bytes that are written are kept until the peer has acknowledged them.

use anabranch_frame::{BufferPool, Payload};

/// Up to this many bytes get a buffer of just their size, from the allocator.
const EXACT_MAX: usize = 4 << 10;
/// Length of medium buffers, and how many idle ones are kept.
const MEDIUM: (usize, usize) = (16 << 10, 128);
/// Length of large buffers, and how many idle ones are kept: one connection's full send buffer.
const LARGE: (usize, usize) = (64 << 10, 256);

/// Buffers in a few sizes, shared by all sockets of a stack, so that small writes do not pin large buffers.
#[derive(Debug)]
pub(crate) struct WriteBuffers {
    medium: BufferPool,
    large: BufferPool,
}

impl WriteBuffers {
    pub(crate) fn new() -> Self {
        Self { medium: BufferPool::new(MEDIUM.0, MEDIUM.1), large: BufferPool::new(LARGE.0, LARGE.1) }
    }

    /// A copy of the first bytes, at most one large buffer of them.
    pub(crate) fn copy_prefix(&self, bytes: &[u8]) -> Payload {
        let pool = match bytes.len() {
            0..=EXACT_MAX => return Payload::from(bytes),
            len if len <= MEDIUM.0 => &self.medium,
            _ => &self.large,
        };
        let n = bytes.len().min(pool.buffer_len());
        let mut buffer = pool.take();
        buffer.as_mut_slice()[..n].copy_from_slice(&bytes[..n]);
        buffer.freeze(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_pins_little_more_than_its_bytes() {
        let buffers = WriteBuffers::new();
        for (len, taken, storage) in
            [(1, 1, 1), (4_096, 4_096, 4_096), (5_000, 5_000, 16_384), (17_000, 17_000, 65_536)]
        {
            let payload = buffers.copy_prefix(&vec![7; len]);
            assert_eq!((payload.len(), payload.storage_len()), (taken, storage));
        }
        assert_eq!(buffers.copy_prefix(&vec![7; 100_000]).len(), 65_536);
    }
}
