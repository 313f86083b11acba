use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_utils::atomic::AtomicCell;

/// Where idle things wait for their next use, the last one on top: what was in use a moment ago is still in the
/// processor's cache. Any thread may put something down or take it; nobody ever waits.
///
/// A place on the shelf is claimed first, and filled or emptied then. A thread that is overtaken in between finds an empty
/// place and takes what lies below, or puts its thing where another one lies and that one on top.
pub(crate) struct Shelf<T> {
    places: Box<[AtomicCell<Option<Arc<T>>>]>,
    taken: AtomicUsize,
}

impl<T> Shelf<T> {
    pub(crate) fn new(places: usize) -> Self {
        Self { places: (0..places).map(|_| AtomicCell::new(None)).collect(), taken: AtomicUsize::new(0) }
    }

    /// Keeps `thing` if there is a place for it, and drops it otherwise.
    pub(crate) fn put(&self, thing: Arc<T>) {
        let mut homeless = Some(thing);
        let up = |taken| (taken < self.places.len()).then_some(taken + 1);
        while homeless.is_some()
            && let Ok(at) = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, up)
        {
            homeless = self.places[at].swap(homeless);
        }
    }

    /// What was put down last.
    pub(crate) fn take(&self) -> Option<Arc<T>> {
        let down = |taken: usize| taken.checked_sub(1);
        loop {
            let above = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, down).ok()?;
            if let Some(thing) = self.places[above - 1].take() {
                return Some(thing);
            }
        }
    }

    /// How many things wait.
    pub(crate) fn len(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use std::vec::Vec;

    #[test]
    fn the_last_one_put_down_is_the_first_to_be_taken() {
        let shelf = Shelf::new(3);
        for thing in 1..=4 {
            shelf.put(Arc::new(thing));
        }
        assert_eq!(shelf.len(), 3, "the fourth had no place");
        let taken: Vec<i32> = core::iter::from_fn(|| shelf.take()).map(|thing| *thing).collect();
        assert_eq!(taken, [3, 2, 1]);
    }

    #[test]
    fn no_two_threads_hold_the_same_thing() {
        let shelf = Shelf::new(4);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..20_000 {
                        let mut thing = shelf.take().unwrap_or_else(|| Arc::new(0));
                        *Arc::get_mut(&mut thing).expect("nobody else holds it") += round;
                        shelf.put(thing);
                    }
                });
            }
        });
        assert!(shelf.len() <= 4);
        assert!(core::iter::from_fn(|| shelf.take()).all(|thing| Arc::strong_count(&thing) == 1));
    }
}
