//! Where bytes that are written are kept until the peer has acknowledged them.

use anabranch_frame::{Payload, Pools};

/// Lengths of buffers, and how many idle ones of each are kept: of the largest one connection's full send buffer.
const SIZES: [(usize, usize); 5] = [(256, 512), (1 << 10, 256), (4 << 10, 256), (16 << 10, 128), (LARGEST, 256)];
const LARGEST: usize = 64 << 10;

/// Buffers in a few sizes, shared by all sockets of a stack, so that small writes do not pin large buffers.
#[derive(Debug)]
pub(crate) struct WriteBuffers(Pools<{ SIZES.len() }>);

impl WriteBuffers {
    pub(crate) fn new() -> Self {
        Self(Pools::new(SIZES))
    }

    /// A copy of the first bytes, at most one large buffer of them.
    pub(crate) fn copy_prefix(&self, bytes: &[u8]) -> Payload {
        let n = bytes.len().min(LARGEST);
        self.0.copy(&bytes[..n], n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_pins_little_more_than_its_bytes() {
        let buffers = WriteBuffers::new();
        for (len, taken, storage) in
            [(1, 1, 256), (4_096, 4_096, 4_096), (5_000, 5_000, 16_384), (17_000, 17_000, 65_536)]
        {
            let payload = buffers.copy_prefix(&vec![7; len]);
            assert_eq!((payload.len(), payload.storage_len()), (taken, storage));
        }
        assert_eq!(buffers.copy_prefix(&vec![7; 100_000]).len(), 65_536);
    }
}
