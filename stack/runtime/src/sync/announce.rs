//! The two hand-shakes on which everything that waits in here rests. `tests/loom.rs` checks them with every
//! interleaving and every reordering that the memory model allows.

use super::atomic::{AtomicBool, Ordering, fence};

/// One side announces that it waits for something, the other makes it true and looks for the announcement.
///
/// The waiter [announces](Self::announce) and then looks once more whether what it waits for is true; the other side
/// makes it true and then [takes](Self::take) the announcement. A sequentially consistent fence stands between the two
/// steps on both sides, so one of the fences comes first: if the waiter's, the other side sees the announcement; if the
/// other side's, the waiter sees that it need not wait.
#[derive(Debug)]
pub(crate) struct Announcement(AtomicBool);

impl Announcement {
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// The waiter must look once more after this, and only then wait.
    pub(crate) fn announce(&self) {
        self.0.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The waiter waits no more.
    pub(crate) fn withdraw(&self) {
        if self.0.load(Ordering::Relaxed) {
            self.0.store(false, Ordering::Relaxed);
        }
    }

    /// Whether somebody waits. Called after what it waits for was made true.
    pub(crate) fn stands(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed)
    }

    /// Whether the caller is the one who has to wake the waiter: somebody waits, and nobody else took
    /// the announcement.
    pub(crate) fn take(&self) -> bool {
        // The plain load first: an exchange by every caller would bounce the cache line of a busy waiter. And nothing is
        // written unless it succeeds: the waiter may have withdrawn and announced itself anew.
        self.stands() && self.0.compare_exchange(true, false, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// Many sides ask one server to look at something, and put it into the server's queue once.
///
/// A caller publishes its work and then [asks](Self::ask); the server takes it from its queue, [begins](Self::begin),
/// and then looks at the work. The two swaps are ordered: a caller that finds the request standing comes before
/// the server's `begin`, which therefore sees its work.
#[derive(Debug)]
pub(crate) struct Request(AtomicBool);

impl Request {
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Whether the caller has to put it into the queue.
    pub(crate) fn ask(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }

    /// The server is about to look.
    pub(crate) fn begin(&self) {
        self.0.swap(false, Ordering::AcqRel);
    }
}
