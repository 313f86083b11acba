//! The hand-shakes of `src/sync` under every interleaving, with loom's atomics in place of the real ones.

#![allow(dead_code)] // only what is modelled is used

mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
}

/// What a futex does, by loom's means.
mod futex {
    use std::time::Duration;

    use super::atomic::{AtomicU32, Ordering};

    loom::lazy_static! {
        static ref KERNEL: (loom::sync::Mutex<()>, loom::sync::Condvar) = Default::default();
    }

    pub(crate) fn wait(word: &AtomicU32, value: u32, _: Option<Duration>) {
        let held = KERNEL.0.lock().unwrap();
        if word.load(Ordering::Relaxed) == value {
            drop(KERNEL.1.wait(held).unwrap());
        }
    }

    pub(crate) fn wake_all(_: &AtomicU32) {
        let _held = KERNEL.0.lock().unwrap();
        KERNEL.1.notify_all();
    }
}

#[path = "../src/sync/announce.rs"]
mod announce;
#[path = "../src/sync/sleepers.rs"]
mod sleepers;

use std::sync::Arc;

use announce::{Announcement, Request};
use atomic::{AtomicU32, Ordering, fence};
use loom::thread;
use sleepers::Sleepers;

#[test]
fn a_waiter_sees_the_work_or_is_woken() {
    loom::model(|| {
        let shared = Arc::new((Announcement::new(), AtomicU32::new(0)));
        let publisher = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                shared.1.store(1, Ordering::Relaxed);
                shared.0.take()
            })
        };
        shared.0.announce();
        let seen = shared.1.load(Ordering::Relaxed) == 1;
        let woken = publisher.join().unwrap();
        assert!(seen || woken, "the waiter sleeps for ever");
    });
}

#[test]
fn of_two_publishers_one_wakes_the_waiter_for_both() {
    loom::model(|| {
        let shared = Arc::new((Announcement::new(), [AtomicU32::new(0), AtomicU32::new(0)]));
        let publishers = [0, 1].map(|at| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                shared.1[at].store(1, Ordering::Relaxed);
                u32::from(shared.0.take())
            })
        });
        shared.0.announce();
        let seen = shared.1.iter().all(|work| work.load(Ordering::Relaxed) == 1);
        let woken: u32 = publishers.into_iter().map(|publisher| publisher.join().unwrap()).sum();
        assert!(woken <= 1, "one wake-up is enough");
        assert!(seen || woken == 1, "the waiter sleeps although there is work");
    });
}

#[test]
fn whoever_asks_is_looked_at_afterwards() {
    loom::model(|| {
        let shared = Arc::new((Request::new(), AtomicU32::new(0), [AtomicU32::new(0), AtomicU32::new(0)]));
        let callers = [0, 1].map(|at| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                shared.2[at].store(1, Ordering::Relaxed);
                if shared.0.ask() {
                    shared.1.fetch_add(1, Ordering::AcqRel);
                }
            })
        });
        // The server looks at most once before both have asked, and then for whatever is still in its queue.
        let mut served = [0, 0];
        let look = |served: &mut [u32; 2]| {
            if shared.1.load(Ordering::Acquire) > 0 {
                shared.1.fetch_sub(1, Ordering::AcqRel);
                shared.0.begin();
                *served = [0, 1].map(|at| served[at].max(shared.2[at].load(Ordering::Relaxed)));
            }
        };
        look(&mut served);
        for caller in callers {
            caller.join().unwrap();
        }
        // By joining we would see everything: what counts is that there is a request for what was not seen.
        let left = shared.1.load(Ordering::Acquire);
        assert!(served == [1, 1] || left > 0, "a request was lost: {served:?}");
    });
}

#[test]
fn no_thread_sleeps_through_an_opening() {
    loom::model(|| {
        let shared = Arc::new((Sleepers::new(), AtomicU32::new(0)));
        let waiter = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                // loom reports a deadlock if this never returns.
                shared.0.wait(None, || (shared.1.load(Ordering::Relaxed) == 1).then_some(()))
            })
        };
        shared.1.store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        shared.0.wake();
        assert_eq!(waiter.join().unwrap(), Some(()));
    });
}
