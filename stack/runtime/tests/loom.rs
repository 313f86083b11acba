//! The hand-shakes of `src/sync` under every interleaving, with loom's atomics in place of the real ones.

#![allow(dead_code)] // only what is modelled is used

mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
}

/// A clock by which whoever waits until some time finds that it has passed.
mod clock {
    pub(crate) use std::time::Duration;

    #[derive(Clone, Copy)]
    pub(crate) struct Instant;

    impl Instant {
        pub(crate) fn now() -> Self {
            Self
        }

        pub(crate) fn saturating_duration_since(self, _: Self) -> Duration {
            Duration::ZERO
        }
    }

    impl std::ops::Add<Duration> for Instant {
        type Output = Self;

        fn add(self, _: Duration) -> Self {
            self
        }
    }
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

    /// Either everybody is woken or one, and then there is one word in the model.
    pub(crate) fn wake(_: &AtomicU32, most: u32) {
        let _held = KERNEL.0.lock().unwrap();
        match most {
            1 => KERNEL.1.notify_one(),
            _ => KERNEL.1.notify_all(),
        }
    }
}

/// Crossbeam's queues by a lock: what matters here is that an item that was pushed is there, with all that its pusher
/// did before, in the order of the pushes.
mod queue {
    use std::collections::VecDeque;

    use loom::sync::Mutex;

    pub(crate) struct SegQueue<T>(Mutex<VecDeque<T>>);

    impl<T> SegQueue<T> {
        pub(crate) fn new() -> Self {
            Self(Mutex::new(VecDeque::new()))
        }

        pub(crate) fn push(&self, item: T) {
            self.0.lock().unwrap().push_back(item);
        }

        pub(crate) fn pop(&self) -> Option<T> {
            self.0.lock().unwrap().pop_front()
        }

        pub(crate) fn len(&self) -> usize {
            self.0.lock().unwrap().len()
        }

        pub(crate) fn is_empty(&self) -> bool {
            self.len() == 0
        }
    }

    impl<T> std::fmt::Debug for SegQueue<T> {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("SegQueue")
        }
    }

    #[derive(Debug)]
    pub(crate) struct ArrayQueue<T>(SegQueue<T>, usize);

    impl<T> ArrayQueue<T> {
        pub(crate) fn new(room: usize) -> Self {
            Self(SegQueue::new(), room)
        }

        pub(crate) fn push(&self, item: T) -> Result<(), T> {
            let mut items = self.0.0.lock().unwrap();
            if items.len() == self.1 {
                return Err(item);
            }
            items.push_back(item);
            Ok(())
        }

        pub(crate) fn pop(&self) -> Option<T> {
            self.0.pop()
        }

        pub(crate) fn len(&self) -> usize {
            self.0.len()
        }

        pub(crate) fn is_empty(&self) -> bool {
            self.0.is_empty()
        }
    }
}

/// An event descriptor in an epoll set that watches for edges.
mod event {
    use std::io;

    use loom::sync::{Condvar, Mutex};

    #[derive(Debug)]
    pub(crate) struct EventFd(Mutex<bool>, Condvar);

    impl EventFd {
        pub(crate) fn new() -> io::Result<Self> {
            Ok(Self(Mutex::new(false), Condvar::new()))
        }

        pub(crate) fn set(&self) {
            *self.0.lock().unwrap() = true;
            self.1.notify_all();
        }

        /// Sleeps until an edge has come since the last time. Of several who wait any one may get it.
        pub(crate) fn wait(&self) {
            let mut edge = self.0.lock().unwrap();
            while !*edge {
                edge = self.1.wait(edge).unwrap();
            }
            *edge = false;
        }
    }
}

#[path = "../src/sync/announce.rs"]
mod announce;
#[path = "../src/sync/bell.rs"]
mod bell;
#[path = "../src/sync/driver.rs"]
mod driver;
#[path = "../src/sync/mailbox.rs"]
mod mailbox;
#[path = "../src/sync/sleepers.rs"]
mod sleepers;

use std::sync::Arc;

use announce::{Announcement, Request};
use atomic::{AtomicU32, Ordering, fence};
use bell::Bell;
use driver::Driver;
use event::EventFd;
use loom::thread;
use mailbox::Mailbox;
use queue::SegQueue;
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

/// A worker with its mailbox and its bell.
struct Post {
    bell: Bell,
    mail: Mailbox<u32, u32>,
}

impl Post {
    fn new(room: usize) -> Arc<Self> {
        Arc::new(Self { bell: Bell::new().unwrap(), mail: Mailbox::new(room) })
    }

    /// What a worker does between two turns.
    fn sleep(&self) {
        self.bell.prepare_sleep();
        if self.mail.is_empty() {
            // loom reports a deadlock if nobody ever rings.
            self.bell.event().wait();
        }
        self.bell.awake();
    }

    /// Takes packets, then notes.
    fn take(&self, packets: &mut Vec<u32>, notes: &mut Vec<u32>) {
        self.mail.take_packets(usize::MAX, packets);
        notes.extend(std::iter::from_fn(|| self.mail.take_note()));
    }
}

#[test]
fn no_letter_lies_there_while_the_worker_sleeps() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(|| {
        let post = Post::new(2);
        let senders = [1, 2].map(|letter| {
            let post = Arc::clone(&post);
            thread::spawn(move || {
                match letter {
                    1 => assert!(post.mail.post_packet(letter)),
                    _ => post.mail.post_note(letter),
                }
                post.bell.ring();
            })
        });
        let (mut packets, mut notes) = (Vec::new(), Vec::new());
        while packets.len() + notes.len() < 2 {
            post.take(&mut packets, &mut notes);
            if packets.len() + notes.len() < 2 {
                post.sleep();
            }
        }
        assert_eq!((packets, notes), (vec![1], vec![2]));
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        assert_eq!(post.mail.len(), 0);
    });
}

#[test]
fn a_packet_never_overtakes_the_note_that_it_depends_on() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(|| {
        // A worker notes at the tuple's home where the tuple lives, then answers the peer; the peer's next packet comes in at
        // a third worker, which hands it to the home.
        let home = Post::new(1);
        let network = Arc::new(SegQueue::new());
        let owner = {
            let (home, network) = (Arc::clone(&home), Arc::clone(&network));
            thread::spawn(move || {
                home.mail.post_note(7);
                network.push(7);
            })
        };
        let third = {
            let (home, network) = (Arc::clone(&home), Arc::clone(&network));
            thread::spawn(move || network.pop().is_some_and(|packet| home.mail.post_packet(packet)))
        };
        let (mut packets, mut notes) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            home.take(&mut packets, &mut notes);
            assert!(packets.is_empty() || notes == [7], "the home knows nothing of the tuple");
        }
        owner.join().unwrap();
        let posted = third.join().unwrap();
        home.take(&mut packets, &mut notes);
        assert_eq!((packets.len(), notes), (usize::from(posted), vec![7]));
    });
}

#[test]
fn a_full_mailbox_drops_packets_and_no_notes() {
    loom::model(|| {
        let post = Post::new(1);
        let senders = [1, 2].map(|letter| {
            let post = Arc::clone(&post);
            thread::spawn(move || {
                post.mail.post_note(letter);
                u32::from(post.mail.post_packet(letter))
            })
        });
        let (mut packets, mut notes) = (Vec::new(), Vec::new());
        post.take(&mut packets, &mut notes);
        let posted: u32 = senders.into_iter().map(|sender| sender.join().unwrap()).sum();
        post.take(&mut packets, &mut notes);
        notes.sort_unstable();
        assert_eq!(notes, [1, 2]);
        assert_eq!(packets.len(), posted as usize);
        assert!(posted >= 1);
    });
}

#[test]
fn a_command_is_dropped_by_the_worker_that_ends_or_refused() {
    loom::model(|| {
        let shared = Arc::new((Announcement::new(), SegQueue::new()));
        let application = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                shared.1.push(());
                !shared.0.stands()
            })
        };
        // The worker ends: from now on nobody takes anything out of its queue.
        shared.0.announce();
        let dropped = shared.1.pop().is_some();
        let accepted = application.join().unwrap();
        assert!(!accepted || dropped, "somebody waits for an answer that never comes");
    });
}

#[test]
fn a_driver_hears_of_what_it_waits_for_whoever_takes_the_event() {
    struct Shared {
        driver: Driver,
        gate: Sleepers,
        event: EventFd,
        found: AtomicU32,
        over: AtomicU32,
    }
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(|| {
        let shared = Arc::new(Shared {
            driver: Driver::new(),
            gate: Sleepers::new(),
            event: EventFd::new().unwrap(),
            found: AtomicU32::new(0),
            over: AtomicU32::new(0),
        });
        // The worker's own thread, which goes to sleep and takes whatever event it can get.
        let own = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                while shared.over.load(Ordering::Acquire) == 0 {
                    shared.driver.give_way(|| shared.event.set());
                    shared.event.wait();
                }
            })
        };
        // An application's thread waits in the worker's place, and if that brings nothing, for the worker.
        let application = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let found = || (shared.found.load(Ordering::Acquire) == 1).then_some(());
                assert!(shared.driver.take());
                shared.driver.prepare_wait();
                if found().is_none() {
                    shared.event.wait();
                }
                shared.driver.awake();
                shared.driver.leave();
                shared.gate.wait(None, found).unwrap();
            })
        };
        // Whoever does a turn that brings what it waits for.
        shared.found.store(1, Ordering::Release);
        fence(Ordering::SeqCst);
        shared.gate.wake();
        if shared.driver.poke() {
            shared.event.set();
        }
        application.join().unwrap();
        shared.over.store(1, Ordering::Release);
        shared.event.set();
        own.join().unwrap();
    });
}

#[test]
fn as_many_threads_are_woken_as_there_is_something_for() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(|| {
        // Two acceptors, and two connections that come one after the other, each of them for one thread.
        let shared = Arc::new((Sleepers::new(), SegQueue::new()));
        let acceptors = [0, 1].map(|_| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.0.wait(None, || shared.1.pop()))
        });
        for connection in [1, 2] {
            shared.1.push(connection);
            fence(Ordering::SeqCst);
            shared.0.wake_some(1);
        }
        let got: u32 = acceptors.into_iter().map(|acceptor| acceptor.join().unwrap().unwrap()).sum();
        assert_eq!(got, 3);
    });
}
