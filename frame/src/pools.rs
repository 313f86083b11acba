use crate::{BufferMut, BufferPool, Payload};

/// Pools of buffers in a few sizes, so that a few bytes never keep a large buffer alive.
#[derive(Clone, Debug)]
pub struct Pools<const N: usize> {
    /// Shortest first.
    classes: [BufferPool; N],
}

impl<const N: usize> Pools<N> {
    /// One pool for each pair of a length in bytes and a number of idle buffers that are kept, shortest first.
    #[must_use]
    pub fn new(classes: [(usize, usize); N]) -> Self {
        debug_assert!(classes.is_sorted_by_key(|&(len, _)| len));
        Self { classes: classes.map(|(len, keep)| BufferPool::new(len, keep)) }
    }

    /// The shortest buffer of at least `len` bytes, or `None` if none is long enough.
    #[must_use]
    pub fn take(&self, len: usize) -> Option<BufferMut> {
        self.classes.iter().find(|class| class.buffer_len() >= len).map(BufferPool::take)
    }

    /// A copy of `bytes` with room for `capacity` bytes or more, from a pool if there is one of that size.
    #[must_use]
    pub fn copy(&self, bytes: &[u8], capacity: usize) -> Payload {
        match self.take(capacity.max(bytes.len())) {
            Some(mut buffer) => {
                buffer.as_mut_slice()[..bytes.len()].copy_from_slice(bytes);
                buffer.freeze(bytes.len())
            }
            None => Payload::copy_with_capacity(bytes, capacity),
        }
    }

    /// A copy of `bytes` from a pool, or, where that would pin more than four times their number, of just their size.
    #[must_use]
    pub fn copy_tight(&self, bytes: &[u8]) -> Payload {
        let fitting = self.classes.iter().find(|class| class.buffer_len() >= bytes.len());
        match fitting {
            Some(class) if class.buffer_len() <= 4 * bytes.len() => self.copy(bytes, bytes.len()),
            _ => Payload::from(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn copies_pin_little_more_than_they_need() {
        let pools = Pools::new([(256, 8), (4096, 8)]);
        for (len, capacity, storage) in [(1, 0, 256), (10, 300, 4096), (300, 0, 4096), (5000, 6000, 6000)] {
            let copy = pools.copy(&vec![7; len], capacity);
            assert_eq!((copy.len(), copy.storage_len()), (len, storage));
        }
        for (len, storage) in [(1, 1), (64, 256), (300, 300), (1024, 4096), (5000, 5000)] {
            let copy = pools.copy_tight(&vec![7; len]);
            assert_eq!((copy.len(), copy.storage_len()), (len, storage));
        }
    }

    #[test]
    fn copies_can_be_appended_to_and_come_back() {
        let pools = Pools::new([(256, 8)]);
        let mut copy = pools.copy(b"abc", 10);
        assert_eq!(copy.append(b"def"), 3);
        assert_eq!(&*copy, b"abcdef");
        drop(copy);
        assert_eq!(pools.classes[0].idle(), 1);
    }
}
