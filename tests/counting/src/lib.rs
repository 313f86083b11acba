//! A global allocator that counts, for tests of the promise that a packet costs no allocation, and for
//! measuring what a connection costs.
//!
//! ```
//! use anabranch_counting::{Counting, Heap};
//!
//! #[global_allocator]
//! static ALLOCATOR: Counting = Counting;
//!
//! let before = Heap::now();
//! let kept = vec![0u8; 100];
//! let cost = Heap::now() - before;
//! assert_eq!((cost.allocations, cost.bytes, cost.of_size(100)), (1, 100, 1));
//! # drop(kept);
//! ```

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ops::Sub;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// Blocks of up to so many bytes are counted by their size.
const SIZES: usize = 8192;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicI64 = AtomicI64::new(0);
static BLOCKS: [AtomicI64; SIZES] = [const { AtomicI64::new(0) }; SIZES];

thread_local! {
    // Without a destructor and with a constant to begin with: touching it allocates nothing.
    static OF_THREAD: Cell<i64> = const { Cell::new(0) };
    static ALLOCATIONS_OF_THREAD: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, with counters. To be installed with `#[global_allocator]`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counting;

/// What the process holds on the heap, or the difference between two moments.
#[derive(Clone, Debug)]
pub struct Heap {
    /// Blocks that were asked for so far, those that were made larger or smaller included.
    pub allocations: u64,
    /// Bytes held, as they were asked for: what the allocator itself adds is not in it.
    pub bytes: i64,
    blocks: Vec<i64>,
}

impl Heap {
    /// As it is now.
    #[must_use]
    pub fn now() -> Self {
        // Its own block must be neither in it nor missing from the next one.
        let mut blocks = Vec::with_capacity(SIZES);
        let (allocations, bytes) = (ALLOCATIONS.load(Relaxed), BYTES.load(Relaxed));
        blocks.extend(BLOCKS.iter().map(|blocks| blocks.load(Relaxed)));
        Self { allocations, bytes, blocks }
    }

    /// Blocks of this size that are held, the size below 8192 bytes.
    #[must_use]
    pub fn of_size(&self, bytes: usize) -> i64 {
        self.blocks.get(bytes).copied().unwrap_or(0)
    }

    /// Sizes of blocks, and how many of each are held; sizes below 8192 bytes of which there are some.
    pub fn sizes(&self) -> impl Iterator<Item = (usize, i64)> + '_ {
        self.blocks.iter().copied().enumerate().filter(|&(_, blocks)| blocks != 0)
    }
}

/// What came since `before`. That `before` itself is held is left out.
impl Sub for Heap {
    type Output = Self;

    fn sub(mut self, before: Self) -> Self {
        let own = (SIZES * size_of::<i64>()) as i64;
        self.allocations -= before.allocations;
        self.bytes -= before.bytes;
        self.blocks.iter_mut().zip(&before.blocks).for_each(|(now, before)| *now -= before);
        // The later one was taken while the earlier one, and itself, were on the heap; the earlier one only itself.
        self.allocations -= 1;
        self.bytes -= own;
        self
    }
}

/// How many blocks the process has asked for so far. Unlike [`Heap::now`] this allocates nothing itself.
#[must_use]
pub fn allocations() -> u64 {
    ALLOCATIONS.load(Relaxed)
}

/// How many blocks this thread has asked for so far.
#[must_use]
pub fn allocations_of_this_thread() -> u64 {
    ALLOCATIONS_OF_THREAD.get()
}

/// Bytes that this thread has asked for and nobody has given back, less those that it gave back and others had
/// asked for.
#[must_use]
pub fn bytes_of_this_thread() -> i64 {
    OF_THREAD.get()
}

fn count_allocation() {
    ALLOCATIONS.fetch_add(1, Relaxed);
    let _ = ALLOCATIONS_OF_THREAD.try_with(|allocations| allocations.set(allocations.get() + 1));
}

fn count(size: usize, blocks: i64) {
    // A thread that ends frees its last blocks when its variables are gone.
    let _ = OF_THREAD.try_with(|bytes| bytes.set(bytes.get() + blocks * size as i64));
    BYTES.fetch_add(blocks * size as i64, Relaxed);
    if let Some(of_size) = BLOCKS.get(size) {
        of_size.fetch_add(blocks, Relaxed);
    }
}

// SAFETY: everything is passed on to the system's allocator as it came; counting touches atomics only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count_allocation();
        count(layout.size(), 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count_allocation();
        count(layout.size(), 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count_allocation();
        count(layout.size(), -1);
        count(size, 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(block, layout) }
    }
}
