//! An application's thread that does a worker's turns itself while it waits.

use super::Sleepers;
use super::atomic::{AtomicU32, Ordering, fence};
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
/// Of the threads that wait in an epoll set Linux wakes the one that came last. The driver comes after the worker's thread, so
/// packets wake the driver. When the worker's thread has worked nevertheless and finds that the driver waits already, it
/// [gives way](Self::give_way): it comes back to epoll while the driver is elsewhere, which it finds out by looking now and
/// then. Until then, nobody can take the event by which the driver shall learn that what it waits for is there.
#[derive(Debug)]
pub(crate) struct Driver {
    state: AtomicU32,
    /// The worker's thread, while it waits for the driver to wake up.
    relief: Sleepers,
    /// The worker's thread, while it waits for the right moment.
    standby: Sleepers,
}

/// How long the worker's thread waits before it looks again for a moment in which the driver is awake.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// How often it looks. A driver that waits for longer may as well say when it wakes up.
const LOOKS: u32 = 8;

impl Driver {
    pub(crate) fn new() -> Self {
        Self { state: AtomicU32::new(FREE), relief: Sleepers::new(), standby: Sleepers::new() }
    }

    /// Takes the seat if it is free.
    pub(crate) fn take(&self) -> bool {
        self.state.load(Ordering::Relaxed) == FREE
            && self.state.compare_exchange(FREE, AWAKE, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Leaves it.
    pub(crate) fn leave(&self) {
        self.state.store(FREE, Ordering::Release);
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

    /// The worker's thread is about to wait: it does so before or after the driver, not while the driver does. `event`
    /// sends an event.
    pub(crate) fn give_way(&self, event: impl Fn()) {
        let mut looks = 0;
        loop {
            let state = self.state.load(Ordering::Acquire);
            let awake = || (self.state.load(Ordering::Acquire) != state).then_some(());
            match state {
                WAITING if looks < LOOKS => {
                    looks += 1;
                    self.standby.wait(Some(Instant::now() + LOOK_EVERY), || None::<()>);
                }
                WAITING => drop(self.relief.wait(None, awake)),
                POKED => {
                    event();
                    self.relief.wait(None, awake);
                }
                _ => return,
            }
        }
    }

    /// Called after an event was sent: the worker's thread shall not wait for a better moment to take it.
    pub(crate) fn hurry(&self) {
        fence(Ordering::SeqCst);
        self.standby.wake();
    }
}
