//! The one stack of the process, its lock, and the turns of the two threads that call it.
//!
//! The tool has a main thread, which injects packets and makes time pass, and a second one for calls that a script
//! says will block. Time is virtual. While a call of the second thread is under way only the main thread moves it, and
//! waits whenever the second one has something to do: a run does not depend on how the threads are scheduled.

use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use anabranch_frame::Instant;

use crate::errno::{Errno, Result};
use crate::preload;
use crate::world::{Packet, World};

/// How long, of real time, the main thread waits for the other one to take its turn before it goes on anyway.
const PATIENCE: Duration = Duration::from_secs(2);
/// What the second thread gets, of real time, to make known that its call is over.
const RETURN: Duration = Duration::from_millis(5);
/// What passes when somebody waits for time to pass: much less than the microsecond that is seen, so that a few looks do
/// not make an event that follows at once a microsecond late.
const TICK: Duration = Duration::from_nanos(50);
/// Timers that may come due at one instant before the stack counts as broken.
const TIMERS_AT_ONCE: u32 = 100_000;

/// The process's stack.
pub(crate) static PLUGIN: LazyLock<Plugin> = LazyLock::new(Plugin::new);

/// What is behind the exported functions.
#[derive(Debug)]
pub(crate) struct Plugin {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    world: World,
    /// The thread that moves time.
    main: ThreadId,
    /// Counts whatever may end somebody's waiting.
    epoch: u64,
    other: Other,
    /// The last call asked for the time.
    looked: bool,
    /// A call of the second thread has come back since time last passed.
    returned: bool,
}

/// What the second thread is up to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Other {
    /// Outside, or in a call that has not had to wait.
    Away,
    /// Waits in a call since it looked at the state of this epoch, at most until the deadline.
    Asleep { seen: u64, deadline: Option<Instant> },
    /// Its call has ended; it has yet to ask when that was.
    Woken,
}

/// How long a call may wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wait {
    /// Not at all: `EAGAIN`.
    Never,
    /// For so long.
    For(Duration),
    Forever,
}

type Guard<'a> = MutexGuard<'a, State>;

impl Plugin {
    fn new() -> Self {
        let state = State {
            world: World::new(),
            main: thread::current().id(),
            epoch: 0,
            other: Other::Away,
            looked: false,
            returned: false,
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> Guard<'_> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The calling thread is the main one from now on.
    pub(crate) fn begin(&self, flags: &str) {
        let mut state = self.lock();
        state.main = thread::current().id();
        state.world.begin(flags);
    }

    /// A command is about to run: what it may want to know is written down.
    pub(crate) fn before_command(&self) {
        if let Some(file) = preload::counters_file() {
            self.lock().world.write_counters(&file);
        }
    }

    /// A command has run: the namespace may be another.
    pub(crate) fn after_command(&self) {
        self.run(World::refresh);
    }

    /// Does something at once, and lets the other thread see what came of it.
    pub(crate) fn run<T>(&self, work: impl FnOnce(&mut World) -> T) -> T {
        let mut state = self.lock();
        let result = work(&mut state.world);
        state.world.pump();
        drop(self.settle(state));
        result
    }

    /// Does something that may have to wait: `attempt` gives `EAGAIN` until it need not.
    pub(crate) fn wait<T>(&self, wait: Wait, mut attempt: impl FnMut(&mut World) -> Result<T>) -> Result<T> {
        let mut state = self.lock();
        let deadline = match wait {
            Wait::Never | Wait::Forever => None,
            Wait::For(time) => Some(state.world.now() + time),
        };
        let mut slept = false;
        let result = loop {
            let result = attempt(&mut state.world);
            state.world.pump();
            let over = deadline.is_some_and(|deadline| state.world.now() >= deadline);
            if !matches!(result, Err(Errno::AGAIN)) || wait == Wait::Never || over {
                break result;
            }
            let awake;
            (state, awake) = self.sleep(state, deadline);
            slept = true;
            if !awake {
                break result;
            }
        };
        if slept && thread::current().id() != state.main {
            state.other = Other::Woken;
            self.changed.notify_all();
        }
        drop(self.settle(state));
        result
    }

    /// Waits until something has changed. Says no if nothing ever will: the main thread waits, and no timer runs.
    fn sleep<'a>(&'a self, mut state: Guard<'a>, deadline: Option<Instant>) -> (Guard<'a>, bool) {
        if thread::current().id() == state.main {
            let next = state.world.next_timer().into_iter().chain(deadline).min();
            let Some(next) = next else { return (state, false) };
            state.world.run_timers(next);
            return (self.settle(state), true);
        }
        state.other = Other::Asleep { seen: state.epoch, deadline };
        self.changed.notify_all();
        let epoch = state.epoch;
        let state =
            self.changed.wait_while(state, |state| state.epoch == epoch).unwrap_or_else(PoisonError::into_inner);
        (state, true)
    }

    /// Something may have changed: the main thread waits until the other one has done what follows for it.
    fn settle<'a>(&'a self, mut state: Guard<'a>) -> Guard<'a> {
        if thread::current().id() != state.main {
            return state;
        }
        state.epoch += 1;
        state.looked = false;
        self.changed.notify_all();
        let busy = |state: &mut State| match state.other {
            Other::Away => false,
            Other::Asleep { seen, .. } => seen != state.epoch,
            Other::Woken => true,
        };
        let waited = self.changed.wait_timeout_while(state, PATIENCE, busy);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    // --- time ------------------------------------------------------------------------------------

    /// The time of day, which moves on a little with each look at it but the first.
    pub(crate) fn time_of_day(&self) -> Duration {
        let mut state = self.lock();
        if thread::current().id() != state.main && state.other == Other::Woken {
            (state.other, state.returned) = (Other::Away, true);
            self.changed.notify_all();
            return state.world.time_of_day();
        }
        // Whoever looks again without doing anything else waits for time to pass.
        if !core::mem::replace(&mut state.looked, true) {
            return state.world.time_of_day();
        }
        let next = state.world.now() + TICK;
        let mut state = self.advance(state, next);
        state.looked = true;
        state.world.time_of_day()
    }

    /// Lets `time` pass.
    pub(crate) fn pass(&self, time: Duration) {
        let mut state = self.lock();
        if core::mem::take(&mut state.returned) && thread::current().id() == state.main {
            // The other thread has its result and takes the tool's own lock now, which the main thread has let go of for
            // this call only: without virtual time it would have all of `time` for that.
            drop(state);
            thread::sleep(RETURN);
            state = self.lock();
        }
        let target = state.world.now() + time;
        drop(self.advance(state, target));
    }

    /// Runs all timers up to `target`, in order, and makes that the time.
    fn advance<'a>(&'a self, mut state: Guard<'a>, target: Instant) -> Guard<'a> {
        state = self.settle(state);
        while let Some(next) = next_change(&state).filter(|&next| next <= target) {
            state = self.step(state, next);
        }
        state.world.run_timers(target);
        state
    }

    fn step<'a>(&'a self, mut state: Guard<'a>, next: Instant) -> Guard<'a> {
        state.world.run_timers(next);
        self.settle(state)
    }

    /// The next packet out of the stack, at whatever time it comes; `None` if none ever does.
    pub(crate) fn next_packet(&self) -> Option<Packet> {
        let mut state = self.lock();
        let (mut at, mut times) = (state.world.now(), 0);
        loop {
            if let Some(packet) = state.world.take_packet() {
                return Some(packet);
            }
            let next = next_change(&state)?;
            state = self.step(state, next);
            times = if state.world.now() > at { 0 } else { times + 1 };
            at = state.world.now();
            assert!(times < TIMERS_AT_ONCE, "a timer of the stack is due again and again at {at:?}");
        }
    }
}

/// When something happens next without anybody's doing.
fn next_change(state: &State) -> Option<Instant> {
    let deadline = match state.other {
        Other::Asleep { deadline, .. } => deadline,
        Other::Away | Other::Woken => None,
    };
    state.world.next_timer().into_iter().chain(deadline).min()
}
