//! The bell with its descriptor. The hand-shakes themselves are checked in `tests/loom.rs`.

use std::sync::Arc;
use std::thread;

use crossbeam_queue::SegQueue;
use rustix::event::{PollFd, PollFlags, poll};

use super::Bell;

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
            let ready = poll(&mut [PollFd::new(&bell.event().fd(), PollFlags::IN)], Some(&timeout)).unwrap();
            assert_eq!(ready, 1, "lost the wake-up for item {next}");
            rustix::io::read(bell.event().fd(), &mut [0; 8]).unwrap();
        }
        bell.awake();
        // The ringer may be between its swap and its write: the descriptor may become readable
        // later, which makes the next sleep short, no more.
    }
    producer.join().unwrap();
}
