//! Who does a worker's turns.
//!
//! A worker stands in a seat, behind a lock that whoever does its turns holds. Mostly that is the worker's own thread. But
//! handing work from thread to thread costs more than the work when there is little of it, so an application's thread does it
//! itself when nobody else is at it: after a write or a command it does the turn that sends ([`Handle::call`]), and
//! instead of sleeping until the worker wakes it, it waits in the worker's epoll set for the packet and takes it in
//! ([`Handle::wait`]). A request and its answer then cost as many context switches as with sockets of the kernel.
//! A thread that writes much and fast has enough to do with copying: it [leaves](Handle::leave) the turns to the worker's.
//!
//! Nobody but the worker's thread ever blocks on the lock, and that for a few turns at most: an application's thread that
//! finds it taken leaves its work in a queue, which the holder looks at before it lets go.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

use super::poll::Events;
use super::{Handle, Stats, Worker};
use crate::conn::Conn;
use crate::listener::Accepting;
use crate::sync::{Gate, spin};

/// Somebody to wake when the worker has done its turns.
pub(super) enum Wake {
    Conn {
        conn: Arc<Conn>,
        rx: bool,
        tx: bool,
    },
    /// With so many connections more.
    Accepting(Arc<Accepting>, u32),
}

impl Wake {
    /// Wakes them, but for the caller, who looks himself whether what he waits for at his `own` gate has come.
    pub(super) fn open(self, own: Option<&Gate>) {
        match self {
            Self::Conn { conn, rx, tx } => {
                if rx {
                    conn.rx_gate.open();
                }
                if tx {
                    conn.tx_gate.open();
                }
            }
            Self::Accepting(accepting, connections) => {
                let gate = &accepting.gate;
                let others = connections - u32::from(own.is_some_and(|own| std::ptr::eq(own, gate)));
                if others > 0 {
                    gate.open_for(others);
                }
            }
        }
    }
}

/// All whom to wake.
pub(super) type Woken = SmallVec<[Wake; 4]>;

/// A worker, unless it has not begun or has ended.
pub(crate) type Seat = Mutex<Option<Box<Worker>>>;

/// What came of a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    /// There is nothing left to do.
    Finished,
    /// There is.
    Unfinished,
    /// Another thread does the turns, or the worker has ended.
    SomebodyElses,
}

/// What came of driving.
enum Driven<T> {
    Found(T),
    TimedOut,
    /// Somebody else does the turns now.
    Relieved,
}

/// A worker in whose turn a thread panics is lost, whoever's thread it is.
struct Turns<'a>(MutexGuard<'a, Option<Box<Worker>>>);

impl Drop for Turns<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            *self.0 = None;
        }
    }
}

impl Handle {
    /// The worker's own thread. Returns how many connections had to be aborted at the end, or `None` if an
    /// application's thread panicked in a turn.
    pub(crate) fn run(&self) -> Option<usize> {
        tracing::debug!(worker = self.id, "worker started");
        let mut events = Events::new();
        let mut woken = Woken::new();
        let aborted = loop {
            let mut turns = Turns(self.seat.lock());
            let Some(worker) = turns.0.as_mut() else { break None };
            self.unfinished.store(false, Ordering::Relaxed);
            worker.take_events(std::mem::take(&mut events));
            if let Some(aborted) = worker.work() {
                *turns.0 = None;
                break Some(aborted);
            }
            worker.hand_out_woken(&mut woken);
            drop(turns);
            Stats::count(&self.stats.sleeps);
            self.resting.store(true, Ordering::Release);
            self.wake(&mut woken, None);
            if !self.driver.give_way(|| self.bell.send_event()) {
                events = self.poll.wait(None);
            }
            self.resting.store(false, Ordering::Release);
        };
        tracing::debug!(worker = self.id, aborted, "worker ends");
        aborted
    }

    /// Has the worker look at its queues: on the calling thread if nobody does the worker's turns. For
    /// the application's threads, after they put something there.
    pub(crate) fn call(&self) {
        if !self.is_open() {
            self.ring();
        } else if self.bell.worker_sleeps() && self.do_turn(self.untended_events(), None) == Turn::Unfinished {
            self.leave_rest();
        }
    }

    /// What epoll has to say, if the worker's thread gives way: a thread that calls again and again keeps it from looking.
    fn untended_events(&self) -> Events {
        if self.driver.has_standby() { self.events_now() } else { Events::new() }
    }

    /// What epoll has to say, without waiting.
    pub(super) fn events_now(&self) -> Events {
        let events = self.poll.wait(Some(Duration::ZERO));
        if self.driver.is_poked() {
            // One of them may have been the driver's.
            self.bell.send_event();
        }
        events
    }

    /// Whether threads of the application may do the worker's turns.
    fn is_open(&self) -> bool {
        !self.draining.load(Ordering::Relaxed) && !self.crowded.load(Ordering::Relaxed)
    }

    /// Wakes the worker if it sleeps.
    pub(crate) fn ring(&self) {
        if self.bell.ring() {
            self.driver.hurry();
            Stats::count(&self.stats.wakeups);
        }
    }

    /// Has the worker's own thread look at its queues, where there is more to do for it than a waiting thread should.
    pub(crate) fn leave(&self) {
        self.driver.want();
        self.ring();
    }

    /// Lets the driver look again whether what it waits for has come.
    pub(super) fn poke_driver(&self) {
        if self.driver.poke() {
            self.bell.send_event();
        }
    }

    /// Wakes who waits for what was done, and not before everything was done: they may run at once, in place of
    /// this thread.
    fn wake(&self, woken: &mut Woken, own: Option<&Gate>) {
        if woken.is_empty() {
            return;
        }
        woken.drain(..).for_each(|wake| wake.open(own));
        self.poke_driver();
    }

    /// Takes in `events` and does a turn, if nobody else does the worker's turns. If somebody does, the events
    /// are left where they will be found. The caller waits at his `own` gate, if at any.
    fn do_turn(&self, events: Events, own: Option<&Gate>) -> Turn {
        let mut turns = self.seat.try_lock().map(Turns);
        let Some(worker) = turns.as_mut().and_then(|turns| turns.0.as_mut()) else {
            events.into_iter().for_each(|event| self.events.push(event));
            // Whoever it is may have looked there for the last time.
            self.ring();
            return Turn::SomebodyElses;
        };
        worker.take_events(events);
        let finished = worker.work_once();
        self.unfinished.store(!finished, Ordering::Relaxed);
        let mut woken = Woken::new();
        worker.hand_out_woken(&mut woken);
        drop(turns);
        self.driver.drove();
        self.wake(&mut woken, own);
        if finished { Turn::Finished } else { Turn::Unfinished }
    }

    /// What is left to do is the worker's thread's, unless this thread comes back soon.
    fn leave_rest(&self) {
        if !self.driver.has_standby() {
            self.bell.send_event();
        }
    }

    /// Blocks the thread until `ready` gives something or the deadline passes (`None`). Whoever makes it true
    /// opens the gate. Where possible the thread does the worker's turns meanwhile.
    pub(crate) fn wait<T>(
        &self,
        gate: &Gate,
        deadline: Option<Instant>,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        if let Some(found) = spin(self.busy_poll.min(left_until(deadline)), &mut ready) {
            return Some(found);
        }
        if self.resting.load(Ordering::Acquire) && self.is_open() && self.driver.take() {
            match self.drive(gate, deadline, &mut ready) {
                Driven::Found(found) => {
                    self.driver.leave();
                    return Some(found);
                }
                Driven::TimedOut => {
                    self.driver.retire();
                    return None;
                }
                Driven::Relieved => self.driver.retire(),
            }
        }
        gate.wait(deadline, ready)
    }

    /// Blocks likewise, and leaves all turns to the worker's thread.
    pub(crate) fn wait_aside<T>(
        &self,
        gate: &Gate,
        deadline: Option<Instant>,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        spin(self.busy_poll.min(left_until(deadline)), &mut ready).or_else(|| {
            self.driver.hurry();
            gate.wait(deadline, ready)
        })
    }

    /// Does turns and waits in epoll in between. If a turn brings only others something, one of them may have the seat.
    fn drive<T>(&self, gate: &Gate, deadline: Option<Instant>, ready: &mut impl FnMut() -> Option<T>) -> Driven<T> {
        loop {
            let mut events = Events::new();
            if !self.unfinished.load(Ordering::Relaxed) {
                self.driver.prepare_wait();
                if let Some(found) = ready() {
                    self.driver.awake();
                    return Driven::Found(found);
                }
                let left = deadline.map(|_| left_until(deadline));
                if left != Some(Duration::ZERO) {
                    events = self.poll.wait(left);
                }
                self.driver.awake();
            }
            let turn = self.do_turn(events, Some(gate));
            let found = ready();
            let timed_out = deadline.is_some() && left_until(deadline).is_zero();
            // Only the worker's own thread ends it.
            let relieved = turn == Turn::SomebodyElses || self.driver.is_wanted() || !self.is_open();
            if found.is_none() && !timed_out && !relieved {
                continue;
            }
            if turn == Turn::Unfinished {
                self.leave_rest();
            }
            return match found {
                Some(found) => Driven::Found(found),
                None if timed_out => Driven::TimedOut,
                None => Driven::Relieved,
            };
        }
    }
}

fn left_until(deadline: Option<Instant>) -> Duration {
    deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()))
}

/// A worker's thread, from its beginning to its end.
pub(crate) fn thread(handle: &Arc<Handle>) -> usize {
    // One that was lost in a panic took its connections with it.
    handle.run().unwrap_or(1)
}
