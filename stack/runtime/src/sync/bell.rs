//! How a worker sleeps and is woken.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};

use super::Announcement;

/// Wakes one worker, with a system call only when it sleeps.
///
/// Whoever has work for the worker puts it into one of its queues and [rings](Self::ring). The worker
/// [announces](Self::prepare_sleep) that it sleeps, looks at all its queues once more, and waits in epoll, which holds an
/// event descriptor that the ringer writes. [`Announcement`] says why no wake-up is lost.
///
/// The descriptor is registered edge-triggered and never read: every write is an edge.
#[derive(Debug)]
pub(crate) struct Bell {
    sleeping: Announcement,
    event: OwnedFd,
}

impl Bell {
    pub(crate) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { sleeping: Announcement::new(), event })
    }

    /// Called after work was published. Returns whether the worker had to be woken.
    pub(crate) fn ring(&self) -> bool {
        let sleeps = self.sleeping.take();
        if sleeps {
            self.send_event();
        }
        sleeps
    }

    /// Whether nobody does the worker's turns now. Called after work was published.
    pub(crate) fn worker_sleeps(&self) -> bool {
        self.sleeping.stands()
    }

    /// Wakes one thread that waits in the worker's epoll set, or the next one that would.
    pub(crate) fn send_event(&self) {
        // The counter would have to reach 2^64 - 1 for this to fail.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }

    /// The worker is about to sleep: it must look at its queues once more after this, and only then wait.
    pub(crate) fn prepare_sleep(&self) {
        self.sleeping.announce();
    }

    /// The worker is awake, or did not sleep after all.
    pub(crate) fn awake(&self) {
        self.sleeping.withdraw();
    }

    /// What to register in epoll, for `EPOLLIN | EPOLLET`.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use crossbeam_queue::SegQueue;
    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    #[test]
    fn a_worker_that_is_awake_costs_no_system_call() {
        let bell = Bell::new().unwrap();
        assert!(!bell.ring());

        bell.prepare_sleep();
        assert!(bell.ring());
        assert!(!bell.ring(), "one wake-up is enough");

        bell.prepare_sleep();
        bell.awake();
        assert!(!bell.ring());
    }

    #[test]
    fn every_item_arrives_however_the_two_interleave() {
        const ITEMS: u32 = 100_000;
        let shared = Arc::new((Bell::new().unwrap(), SegQueue::new()));
        let producer = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                for item in 0..ITEMS {
                    shared.1.push(item);
                    shared.0.ring();
                    if item % 64 == 0 {
                        thread::yield_now();
                    }
                }
            })
        };
        let (bell, queue) = &*shared;
        let mut next = 0;
        while next < ITEMS {
            while let Some(item) = queue.pop() {
                assert_eq!(item, next);
                next += 1;
            }
            bell.prepare_sleep();
            if queue.is_empty() && next < ITEMS {
                // A lost wake-up shows as a timeout here.
                let timeout = rustix::time::Timespec { tv_sec: 10, tv_nsec: 0 };
                let ready = poll(&mut [PollFd::new(&bell.fd(), PollFlags::IN)], Some(&timeout)).unwrap();
                assert_eq!(ready, 1, "lost the wake-up for item {next}");
                rustix::io::read(bell.fd(), &mut [0; 8]).unwrap();
            }
            bell.awake();
            // The ringer may be between its swap and its write: the descriptor may become readable
            // later, which makes the next sleep short, no more.
        }
        producer.join().unwrap();
    }
}
