//! An application's thread that does a worker's turns itself while it waits.

use super::Sleepers;
use super::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use super::clock::{Duration, Instant};

/// Nobody is in the seat.
const FREE: u32 = 0;
/// Somebody is, and looks at things by itself.
const AWAKE: u32 = 1;
/// It waits in epoll, or is about to.
const WAITING: u32 = 2;
/// It was told to look again, and has not woken up yet.
const POKED: u32 = 3;

/// The seat of the one application thread that may wait in a worker's epoll set, beside the worker's own thread.
///
/// Of the threads that wait in an epoll set Linux wakes the one that came last. A driver that comes and goes is in front of
/// the worker's thread, so packets wake the driver. But after the worker's thread had something to do, it would stand in front
/// itself; and a packet that arrives while the driver is busy with the last one would wake it as well. So before it waits in
/// epoll it [gives way](Self::give_way) for as long as there is a driver that comes back between two looks. That is also how
/// long packets wait for somebody when a driver does not come back.
#[derive(Debug)]
pub(crate) struct Driver {
    state: AtomicU32,
    /// Somebody found the seat taken.
    wanted: AtomicBool,
    /// How often somebody drove.
    drives: AtomicU32,
    /// As far as the worker's thread has seen.
    drives_seen: AtomicU32,
    /// The worker's thread, while it waits for the driver to wake up.
    relief: Sleepers,
    /// The worker's thread, while it gives way, and whether it shall do so no longer.
    standby: Sleepers,
    stands_by: AtomicBool,
    hurried: AtomicBool,
}

/// How long the worker's thread gives way before it looks again, at first and at most: each look that finds that the driver
/// was there again doubles it.
const LOOK_AFTER: Duration = Duration::from_micros(100);
const LOOK_AFTER_MAX: Duration = Duration::from_micros(400);
/// How often it looks at a driver that waits. One that waits for longer may as well say when it wakes up.
const LOOKS: u32 = 20;

impl Driver {
    pub(crate) fn new() -> Self {
        Self {
            state: AtomicU32::new(FREE),
            wanted: AtomicBool::new(false),
            drives: AtomicU32::new(0),
            drives_seen: AtomicU32::new(0),
            relief: Sleepers::new(),
            standby: Sleepers::new(),
            stands_by: AtomicBool::new(false),
            hurried: AtomicBool::new(false),
        }
    }

    /// Takes the seat if it is free.
    pub(crate) fn take(&self) -> bool {
        let free = self.state.load(Ordering::Relaxed) == FREE
            && self.state.compare_exchange(FREE, AWAKE, Ordering::Acquire, Ordering::Relaxed).is_ok();
        if !free {
            self.wanted.store(true, Ordering::Relaxed);
        }
        free
    }

    /// Whoever is in the seat shall leave it.
    pub(crate) fn want(&self) {
        if self.state.load(Ordering::Relaxed) != FREE {
            self.wanted.store(true, Ordering::Relaxed);
        }
    }

    /// Whether somebody else wanted the seat since the last call.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) && self.wanted.swap(false, Ordering::Relaxed)
    }

    /// Leaves it.
    pub(crate) fn leave(&self) {
        self.state.store(FREE, Ordering::Release);
    }

    /// Leaves it, and is not back soon: the worker's thread has no reason to give way.
    pub(crate) fn retire(&self) {
        self.leave();
        self.drives_seen.store(self.drives.load(Ordering::Relaxed), Ordering::Relaxed);
        self.hurry();
    }

    /// The driver is about to wait: it must look once more after this, and only then wait.
    pub(crate) fn prepare_wait(&self) {
        self.state.store(WAITING, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The driver waits no more.
    pub(crate) fn awake(&self) {
        self.state.swap(AWAKE, Ordering::AcqRel);
        fence(Ordering::SeqCst);
        self.relief.wake();
    }

    /// Called after something was made true that the driver may wait for. Returns whether the caller has to send an
    /// event.
    pub(crate) fn poke(&self) -> bool {
        fence(Ordering::SeqCst);
        self.state.load(Ordering::Relaxed) == WAITING
            && self.state.compare_exchange(WAITING, POKED, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Whether the driver was poked and has not woken up yet. Whoever takes events and sees this sends one more.
    pub(crate) fn is_poked(&self) -> bool {
        self.state.load(Ordering::Acquire) == POKED
    }

    /// Something was done by a thread that is not the worker's.
    pub(crate) fn drove(&self) {
        self.drives.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the worker's thread gives way, and will look at everything once more before it waits. Called after
    /// work was left for it.
    pub(crate) fn has_standby(&self) -> bool {
        fence(Ordering::SeqCst);
        self.stands_by.load(Ordering::Relaxed)
    }

    /// The worker's thread is about to wait. Returns whether it has to look at everything once more. `event` sends an
    /// event.
    pub(crate) fn give_way(&self, event: impl Fn()) -> bool {
        let mut looks = 0;
        let mut pause = LOOK_AFTER;
        let mut stood_by = false;
        loop {
            let state = self.state.load(Ordering::Acquire);
            let awake = || (self.state.load(Ordering::Acquire) != state).then_some(());
            let drives = self.drives.load(Ordering::Relaxed);
            let drove = self.drives_seen.swap(drives, Ordering::Relaxed) != drives;
            looks = if drove { 0 } else { looks + 1 };
            match state {
                POKED => {
                    event();
                    self.relief.wait(None, awake);
                }
                WAITING if looks > LOOKS => {
                    self.relief.wait(None, awake);
                }
                _ if state != WAITING && !drove => break,
                _ => {
                    stood_by = true;
                    self.stands_by.store(true, Ordering::Relaxed);
                    fence(Ordering::SeqCst);
                    let hurried = || self.hurried.swap(false, Ordering::Acquire).then_some(());
                    if self.standby.wait(Some(Instant::now() + pause), hurried).is_some() {
                        break;
                    }
                    pause = (pause * 2).min(LOOK_AFTER_MAX);
                }
            }
        }
        self.stands_by.store(false, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        stood_by
    }

    /// Called after an event was sent: unless the driver is there to take it, the worker's thread shall.
    pub(crate) fn hurry(&self) {
        fence(Ordering::SeqCst);
        if self.stands_by.load(Ordering::Relaxed) && self.state.load(Ordering::Relaxed) < WAITING {
            self.hurried.store(true, Ordering::Release);
            fence(Ordering::SeqCst);
            self.standby.wake();
        }
    }
}
