use super::atomic::{AtomicU32, Ordering, fence};
use super::clock::{Duration, Instant};
use super::futex;

/// Threads that wait until another one says that they should look again.
///
/// Like [`Announcement`](super::Announcement), with a count of those who wait and a futex to sleep on. The futex word is read
/// before the last look, so an opening after that look changes it and the thread does not fall asleep.
#[derive(Debug)]
pub(crate) struct Sleepers {
    /// Threads that sleep or are about to.
    count: AtomicU32,
    /// The futex word: counts openings that had sleepers.
    epoch: AtomicU32,
}

impl Sleepers {
    pub(crate) fn new() -> Self {
        Self { count: AtomicU32::new(0), epoch: AtomicU32::new(0) }
    }

    /// Wakes all of them to look again. Called after what they wait for was made true, and after a
    /// sequentially consistent fence.
    pub(crate) fn wake(&self) {
        self.wake_some(u32::MAX);
    }

    /// Wakes as many of them: for what can be had so many times, so that the others sleep on.
    pub(crate) fn wake_some(&self, most: u32) {
        if self.count.load(Ordering::Relaxed) != 0 {
            self.epoch.fetch_add(1, Ordering::Release);
            futex::wake(&self.epoch, most);
        }
    }

    /// Blocks the thread until `ready` gives something or the deadline passes (`None`).
    pub(crate) fn wait<T>(&self, deadline: Option<Instant>, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
        self.count.fetch_add(1, Ordering::Relaxed);
        let found = loop {
            let epoch = self.epoch.load(Ordering::Acquire);
            fence(Ordering::SeqCst);
            if let Some(found) = ready() {
                break Some(found);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                break None;
            }
            // Woken, interrupted, too late or for nothing: look again in every case.
            futex::wait(&self.epoch, epoch, left);
        };
        self.count.fetch_sub(1, Ordering::Relaxed);
        found
    }
}
