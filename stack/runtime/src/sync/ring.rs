//! A queue that costs nothing while it is empty for good, and no allocation while it is short.

use std::fmt;
use std::sync::OnceLock;

use crossbeam_queue::{ArrayQueue, SegQueue};

/// A lock-free queue without a limit, of which the first `N` items are kept in place.
///
/// Nothing is allocated before the first item; from then on an item costs an allocation only while more than
/// `N` wait. With one thread at each end items come out in the order in which they went in; with several that put items
/// in, those of each are in order as long as no more than `N` wait.
///
/// Items go beyond the first `N` as long as anything is there, and are taken from there only when nothing is left
/// in place. Whoever takes has to look in place once more after seeing that there is something beyond: what was
/// put in place before that is visible by then, and nothing is put in place from then on until it has been taken.
pub(crate) struct Ring<T, const N: usize> {
    /// On the heap, because an empty ring is what most connections have.
    places: OnceLock<Box<ArrayQueue<T>>>,
    beyond: OnceLock<Box<SegQueue<T>>>,
}

impl<T, const N: usize> Ring<T, N> {
    pub(crate) const fn new() -> Self {
        Self { places: OnceLock::new(), beyond: OnceLock::new() }
    }

    pub(crate) fn push(&self, item: T) {
        let mut item = item;
        if self.none_beyond() {
            match self.places.get_or_init(|| Box::new(ArrayQueue::new(N))).push(item) {
                Ok(()) => return,
                Err(back) => item = back,
            }
        }
        self.beyond.get_or_init(Box::default).push(item);
    }

    pub(crate) fn pop(&self) -> Option<T> {
        let places = self.places.get()?;
        places.pop().or_else(|| {
            if self.none_beyond() {
                return None;
            }
            places.pop().or_else(|| self.beyond.get()?.pop())
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.places.get().is_none_or(|places| places.is_empty()) && self.none_beyond()
    }

    fn none_beyond(&self) -> bool {
        self.beyond.get().is_none_or(|beyond| beyond.is_empty())
    }

    /// How many items wait.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.places.get().map_or(0, |places| places.len()) + self.beyond.get().map_or(0, |beyond| beyond.len())
    }
}

impl<T, const N: usize> fmt::Debug for Ring<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("empty", &self.is_empty()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn items_come_out_in_order_however_many_there_are() {
        let ring = Ring::<u32, 4>::new();
        assert!(ring.is_empty() && ring.pop().is_none());
        let (mut given, mut taken) = (0, 0);
        for (put, take) in [(3, 3), (10, 2), (5, 9), (1, 1), (20, 24), (4, 4)] {
            for _ in 0..put {
                ring.push(given);
                given += 1;
            }
            for _ in 0..take {
                assert_eq!(ring.pop(), Some(taken));
                taken += 1;
            }
            assert_eq!(ring.len(), (given - taken) as usize);
        }
        assert!(ring.is_empty() && ring.pop().is_none());
    }

    #[test]
    fn two_threads_see_every_item_once_and_in_order() {
        const ITEMS: u32 = 300_000;
        let ring = Ring::<u32, 4>::new();
        thread::scope(|scope| {
            scope.spawn(|| {
                for item in 0..ITEMS {
                    ring.push(item);
                    if item % 64 == 0 {
                        // Now and then the other end empties it.
                        while item % 1024 == 0 && !ring.is_empty() {
                            thread::yield_now();
                        }
                    }
                }
            });
            for item in 0..ITEMS {
                let taken = loop {
                    if let Some(taken) = ring.pop() {
                        break taken;
                    }
                    thread::yield_now();
                };
                assert_eq!(taken, item);
            }
        });
        assert!(ring.is_empty());
    }
}
