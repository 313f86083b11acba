use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::ops::{Bound, Deref, RangeBounds};

use crate::shelf::Shelf;

/// Storage behind one or more [`Payload`]s. `filled` is the end of what was written so far.
struct Buffer {
    bytes: Box<[u8]>,
    filled: usize,
    home: Weak<Idle>,
}

/// The buffers of a pool that nobody uses.
struct Idle {
    shelf: Shelf<Buffer>,
    buffer_len: usize,
}

/// A pool of equally long buffers.
///
/// A buffer goes back by itself when the last [`Payload`] that points into it is dropped, on
/// whatever thread that happens. The pool never blocks and never refuses: beyond `keep` buffers it
/// allocates, and gives what does not fit back to the allocator.
#[derive(Clone)]
pub struct BufferPool {
    idle: Arc<Idle>,
}

impl BufferPool {
    /// A pool of buffers of `buffer_len` bytes that keeps at most `keep` idle ones.
    #[must_use]
    pub fn new(buffer_len: usize, keep: usize) -> Self {
        Self { idle: Arc::new(Idle { shelf: Shelf::new(keep), buffer_len }) }
    }

    /// A buffer that nobody else sees. Its content is whatever its last user left.
    #[must_use]
    pub fn take(&self) -> BufferMut {
        let buffer = self.idle.shelf.take().unwrap_or_else(|| {
            Arc::new(Buffer {
                bytes: vec![0; self.idle.buffer_len].into_boxed_slice(),
                filled: 0,
                home: Arc::downgrade(&self.idle),
            })
        });
        BufferMut { payload: Payload { buffer: Some(buffer), start: 0, end: 0 } }
    }

    /// Idle buffers on the shelf.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.idle.shelf.len()
    }

    /// Length of each buffer, in bytes.
    #[must_use]
    pub fn buffer_len(&self) -> usize {
        self.idle.buffer_len
    }
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferPool")
            .field("buffer_len", &self.idle.buffer_len)
            .field("idle", &self.idle.shelf.len())
            .finish()
    }
}

/// A buffer with a single owner, to be filled and then frozen into a [`Payload`].
pub struct BufferMut {
    /// An empty range of a buffer that nobody else holds; dropped unfrozen, it goes back to its pool.
    payload: Payload,
}

impl BufferMut {
    fn buffer_mut(&mut self) -> &mut Buffer {
        match self.payload.buffer.as_mut().and_then(Arc::get_mut) {
            Some(buffer) => buffer,
            // It is made from a unique buffer and hands out no clones.
            None => unreachable!("a BufferMut is the only owner of its buffer"),
        }
    }

    /// The whole buffer, for writing.
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.buffer_mut().bytes
    }

    /// Capacity in bytes.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.payload.storage_len()
    }

    /// The first `len` bytes as a payload.
    ///
    /// # Panics
    /// If `len` is more than the capacity.
    #[must_use]
    pub fn freeze(mut self, len: usize) -> Payload {
        assert!(len <= self.capacity(), "froze {len} bytes of a {}-byte buffer", self.capacity());
        self.buffer_mut().filled = len;
        self.payload.end = len as u32;
        self.payload
    }
}

impl fmt::Debug for BufferMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferMut").field("capacity", &self.capacity()).finish()
    }
}

/// An immutable range of bytes in a refcounted, usually pooled, buffer. Cloning and slicing copy no bytes.
#[derive(Clone, Default)]
pub struct Payload {
    buffer: Option<Arc<Buffer>>,
    start: u32,
    end: u32,
}

impl Payload {
    /// No bytes.
    pub const EMPTY: Self = Self { buffer: None, start: 0, end: 0 };

    /// A copy of `bytes` in a buffer of its own with room for `capacity` bytes, so that later bytes
    /// can be [appended](Self::append).
    ///
    /// # Panics
    /// If the buffer would be 4 GiB or more.
    #[must_use]
    pub fn copy_with_capacity(bytes: &[u8], capacity: usize) -> Self {
        let mut storage = vec![0; capacity.max(bytes.len())];
        storage[..bytes.len()].copy_from_slice(bytes);
        Self::from_storage(storage.into_boxed_slice(), bytes.len())
    }

    fn from_storage(bytes: Box<[u8]>, filled: usize) -> Self {
        let end = u32::try_from(filled).unwrap_or_else(|_| panic!("a payload of {filled} bytes; the limit is 4 GiB"));
        Self { buffer: Some(Arc::new(Buffer { bytes, filled, home: Weak::new() })), start: 0, end }
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        match &self.buffer {
            Some(buffer) => &buffer.bytes[self.start as usize..self.end as usize],
            None => &[],
        }
    }

    /// Bytes of storage that this payload keeps alive, shared or not.
    #[must_use]
    pub fn storage_len(&self) -> usize {
        self.buffer.as_ref().map_or(0, |buffer| buffer.bytes.len())
    }

    /// The sub-range `range` of this payload.
    ///
    /// # Panics
    /// If `range` is not within `0..self.len()`.
    #[must_use]
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Self {
        let start = match range.start_bound() {
            Bound::Included(&n) => n,
            Bound::Excluded(&n) => n + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&n) => n + 1,
            Bound::Excluded(&n) => n,
            Bound::Unbounded => self.len(),
        };
        assert!(start <= end && end <= self.len(), "slice {start}..{end} of a payload of {} bytes", self.len());
        if start == end {
            return Self::EMPTY;
        }
        Self { buffer: self.buffer.clone(), start: self.start + start as u32, end: self.start + end as u32 }
    }

    /// Removes the first `n` bytes and returns them.
    ///
    /// # Panics
    /// If there are fewer than `n` bytes.
    #[must_use]
    pub fn split_to(&mut self, n: usize) -> Self {
        if n == self.len() {
            return core::mem::take(self);
        }
        let head = self.slice(..n);
        self.start += n as u32;
        head
    }

    /// Removes the first `n` bytes.
    ///
    /// # Panics
    /// If there are fewer than `n` bytes.
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.len(), "advance {n} in a payload of {} bytes", self.len());
        self.start += n as u32;
    }

    /// Shortens to the first `len` bytes; longer than it is, it stays as it is.
    pub fn truncate(&mut self, len: usize) {
        if len < self.len() {
            self.end = self.start + len as u32;
        }
    }

    /// Appends a prefix of `bytes` in place and returns how much fitted: zero when the buffer is
    /// shared, full, or this range is not its last.
    pub fn append(&mut self, bytes: &[u8]) -> usize {
        let end = self.end as usize;
        let Some(buffer) = self.buffer.as_mut().and_then(Arc::get_mut) else { return 0 };
        if buffer.filled != end {
            return 0;
        }
        let n = bytes.len().min(buffer.bytes.len() - end);
        buffer.bytes[end..end + n].copy_from_slice(&bytes[..n]);
        buffer.filled += n;
        self.end += n as u32;
        n
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        let Some(mut arc) = self.buffer.take() else { return };
        // Two last owners on two threads may each see the other and both let go: then the buffer is
        // freed instead of kept, which is safe and rare.
        let Some(buffer) = Arc::get_mut(&mut arc) else { return };
        if let Some(idle) = buffer.home.upgrade() {
            idle.shelf.put(arc);
        }
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        let filled = bytes.len();
        if filled == 0 {
            return Self::EMPTY;
        }
        Self::from_storage(bytes.into_boxed_slice(), filled)
    }
}

impl From<&[u8]> for Payload {
    fn from(bytes: &[u8]) -> Self {
        Self::from(Vec::from(bytes))
    }
}

impl<const N: usize> From<&[u8; N]> for Payload {
    fn from(bytes: &[u8; N]) -> Self {
        Self::from(bytes.as_slice())
    }
}

impl Deref for Payload {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Payload {}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.len())
    }
}
