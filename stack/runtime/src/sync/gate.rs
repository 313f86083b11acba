//! Where threads and tasks of the application wait for something that a worker does.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::task::Waker;
use std::time::Instant;

use parking_lot::Mutex;

use super::Sleepers;

/// Names one future among those that wait at a gate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TaskKey(u64);

/// A place to wait: for threads (a futex) and for tasks (wakers).
///
/// The waiter announces itself, then looks whether what it waits for is there, then sleeps. The other side
/// makes it true, then [opens](Self::open) the gate. A sequentially consistent fence stands between the two steps on
/// both sides: either the waiter sees that it is true or the opener sees the waiter. With nobody waiting an
/// `open` is that fence and two loads.
///
/// `open` never blocks: it takes the lock of the wakers only if it is free. If it is not, `missed` is set
/// already, and whoever holds the lock looks at it after unlocking, again with fences in between on both sides.
pub(crate) struct Gate {
    threads: Sleepers,
    /// Whether any waker is registered.
    registered: AtomicBool,
    /// The wakers are to be woken.
    missed: AtomicBool,
    tasks: Mutex<Tasks>,
}

#[derive(Default)]
struct Tasks {
    /// The task that polled last, for `poll_*` functions.
    polled: Option<Waker>,
    /// Futures that wait, each with a key of its own.
    futures: Vec<(TaskKey, Waker)>,
    #[cfg(feature = "tokio")]
    next_key: u64,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self {
            threads: Sleepers::new(),
            registered: AtomicBool::new(false),
            missed: AtomicBool::new(false),
            tasks: Mutex::new(Tasks::default()),
        }
    }

    /// Wakes everybody who waits, to look again.
    pub(crate) fn open(&self) {
        self.open_for(u32::MAX);
    }

    /// The same when there is something for that many threads only; tasks are all woken.
    pub(crate) fn open_for(&self, threads: u32) {
        fence(Ordering::SeqCst);
        self.threads.wake_some(threads);
        if self.registered.load(Ordering::Relaxed) {
            self.missed.store(true, Ordering::Relaxed);
            self.wake_missed();
        }
    }

    /// Blocks the thread until `ready` gives something or the deadline passes (`None`).
    pub(crate) fn wait<T>(&self, deadline: Option<Instant>, ready: impl FnMut() -> Option<T>) -> Option<T> {
        self.threads.wait(deadline, ready)
    }

    /// Wakes the tasks if `missed` says so and nobody holds their lock.
    fn wake_missed(&self) {
        loop {
            fence(Ordering::SeqCst);
            if !self.missed.load(Ordering::Relaxed) {
                return;
            }
            let Some(mut tasks) = self.tasks.try_lock() else { return };
            self.missed.store(false, Ordering::Relaxed);
            self.registered.store(false, Ordering::Relaxed);
            let polled = tasks.polled.take();
            let futures = std::mem::take(&mut tasks.futures);
            drop(tasks);
            polled.into_iter().chain(futures.into_iter().map(|(_, waker)| waker)).for_each(Waker::wake);
        }
    }
}

/// What only tasks need.
#[cfg(feature = "tokio")]
impl Gate {
    /// Registers the task that polled last, in place of the one before. The caller must look again whether what it waits for
    /// is there before it answers "pending".
    pub(crate) fn register_polled(&self, waker: &Waker) {
        let mut tasks = self.tasks.lock();
        match &mut tasks.polled {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        self.registered.store(true, Ordering::Relaxed);
        drop(tasks);
        self.wake_missed();
    }

    /// Registers a future, which keeps its key for the next time. The caller must look again, as above, and
    /// [forget](Self::forget) the key when it is done or dropped.
    pub(crate) fn register(&self, key: &mut Option<TaskKey>, waker: &Waker) {
        let mut tasks = self.tasks.lock();
        let key = *key.get_or_insert_with(|| {
            tasks.next_key += 1;
            TaskKey(tasks.next_key)
        });
        match tasks.futures.iter_mut().find(|(known, _)| *known == key) {
            Some((_, known)) => known.clone_from(waker),
            None => tasks.futures.push((key, waker.clone())),
        }
        self.registered.store(true, Ordering::Relaxed);
        drop(tasks);
        self.wake_missed();
    }

    /// The future with this key waits no more.
    pub(crate) fn forget(&self, key: TaskKey) {
        let mut tasks = self.tasks.lock();
        tasks.futures.retain(|(known, _)| *known != key);
        drop(tasks);
        self.wake_missed();
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("threads", &self.threads).field("registered", &self.registered).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;
    use std::thread;
    use std::time::Duration;
    #[cfg(feature = "tokio")]
    use std::{sync::atomic::AtomicUsize, task::Wake};

    use super::*;

    #[cfg(feature = "tokio")]
    #[derive(Default)]
    struct Count(AtomicUsize);
    #[cfg(feature = "tokio")]
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_thread_passes_each_time_the_gate_opens_for_it() {
        const ROUNDS: u32 = 50_000;
        let shared = Arc::new((Gate::new(), AtomicU32::new(0), Gate::new()));
        let other = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                for round in (0..ROUNDS).filter(|round| round % 2 == 1) {
                    let waited = Some(Instant::now() + Duration::from_secs(10));
                    let turn = || (shared.1.load(Ordering::Relaxed) == round).then_some(());
                    shared.2.wait(waited, turn).expect("lost a wake-up");
                    shared.1.store(round + 1, Ordering::Relaxed);
                    shared.0.open();
                }
            })
        };
        for round in (0..ROUNDS).filter(|round| round % 2 == 0) {
            let waited = Some(Instant::now() + Duration::from_secs(10));
            let turn = || (shared.1.load(Ordering::Relaxed) == round).then_some(());
            shared.0.wait(waited, turn).expect("lost a wake-up");
            shared.1.store(round + 1, Ordering::Relaxed);
            shared.2.open();
        }
        other.join().unwrap();
        assert_eq!(shared.1.load(Ordering::Relaxed), ROUNDS);
    }

    #[test]
    fn waiting_ends_at_the_deadline() {
        let gate = Gate::new();
        let begin = Instant::now();
        assert_eq!(gate.wait(Some(begin + Duration::from_millis(20)), || None::<()>), None);
        assert!(begin.elapsed() >= Duration::from_millis(20));
    }

    #[cfg(feature = "tokio")]
    #[test]
    fn the_last_poller_and_every_future_are_woken_once() {
        let gate = Gate::new();
        let [first, last, future] = [(); 3].map(|()| Arc::new(Count::default()));
        gate.register_polled(&Arc::clone(&first).into());
        gate.register_polled(&Arc::clone(&last).into());
        let mut key = None;
        gate.register(&mut key, &Arc::clone(&future).into());
        gate.register(&mut key, &Arc::clone(&future).into());

        gate.open();
        gate.open();

        assert_eq!([&first, &last, &future].map(|count| count.0.load(Ordering::SeqCst)), [0, 1, 1]);
    }

    #[cfg(feature = "tokio")]
    #[test]
    fn a_future_that_was_dropped_leaves_nothing_behind() {
        let gate = Gate::new();
        let future = Arc::new(Count::default());
        let mut key = None;
        gate.register(&mut key, &Arc::clone(&future).into());
        gate.forget(key.unwrap());
        gate.open();
        assert_eq!(Arc::strong_count(&future), 1);
        assert_eq!(future.0.load(Ordering::SeqCst), 0);
    }

    #[cfg(feature = "tokio")]
    #[test]
    fn an_opener_that_finds_the_lock_taken_leaves_the_waking_to_its_holder() {
        let gate = Gate::new();
        let task = Arc::new(Count::default());
        gate.register_polled(&Arc::clone(&task).into());

        let held = gate.tasks.lock();
        gate.open();
        assert_eq!(task.0.load(Ordering::SeqCst), 0);
        drop(held);
        gate.wake_missed();

        assert_eq!(task.0.load(Ordering::SeqCst), 1);
    }

    #[cfg(feature = "tokio")]
    #[test]
    fn tasks_miss_nothing_however_registering_and_opening_interleave() {
        const ROUNDS: usize = 50_000;
        let shared = Arc::new((Gate::new(), AtomicUsize::new(0)));
        let opener = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                for round in 1..=ROUNDS {
                    shared.1.store(round, Ordering::Relaxed);
                    shared.0.open();
                }
            })
        };
        let woken = Arc::new(Count::default());
        let mut wakes_seen = 0;
        while shared.1.load(Ordering::Relaxed) < ROUNDS {
            let before = shared.1.load(Ordering::Relaxed);
            shared.0.register_polled(&Arc::clone(&woken).into());
            fence(Ordering::SeqCst);
            if shared.1.load(Ordering::Relaxed) != before || before == ROUNDS {
                continue;
            }
            // Pending: from here on the opener owes us a wake-up.
            let limit = Instant::now() + Duration::from_secs(10);
            while woken.0.load(Ordering::SeqCst) == wakes_seen {
                assert!(Instant::now() < limit, "lost the wake-up after round {before}");
                thread::yield_now();
            }
            wakes_seen = woken.0.load(Ordering::SeqCst);
        }
        opener.join().unwrap();
    }
}
