//! The emulator on the wall clock.

use std::num::NonZeroU64;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anabranch_drivers::packet::Wire;
use anabranch_sim::LinkStats;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::emulator::Emulator;
use super::port::{Instant, Time, WirePort};

/// Longest sleep: whoever wants the emulator to stop waits no longer.
const NAP: Duration = Duration::from_millis(50);

/// How much too late the kernel may wake us, in nanoseconds: the least there is would cost it more.
const TIMER_SLACK: u64 = 1_000;

/// The `nice` value of who comes first.
const FIRST: i32 = -20;

/// How long before a deadline the emulator stays awake, if it is left to it.
const AWAKE: Duration = Duration::from_micros(60);

/// How long before a deadline the processor is kept busy rather than given away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BusyWait(Duration);

impl BusyWait {
    const MOST: Duration = Duration::from_millis(10);

    /// Some time where there is another processor for the rest of the world.
    pub(super) fn auto() -> Self {
        let several = thread::available_parallelism().is_ok_and(|count| count.get() > 1);
        Self(if several { AWAKE } else { Duration::ZERO })
    }
}

impl FromStr for BusyWait {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.parse()) {
            ("auto", _) => Ok(Self::auto()),
            ("off", _) => Ok(Self(Duration::ZERO)),
            (_, Ok(super::values::Time(time))) if time <= Self::MOST => Ok(Self(time)),
            _ => Err("give auto, off or a time from 0 to 10ms"),
        }
    }
}

/// What the loop asks of whoever runs it.
pub(super) struct Orders<'a, F> {
    pub(super) time: Time,
    pub(super) busy_wait: BusyWait,
    /// When to end at the latest.
    pub(super) end: Instant,
    pub(super) stop: &'a AtomicBool,
    /// Is told the statistics now and then, and must not take long.
    pub(super) tick: Duration,
    pub(super) on_tick: F,
}

/// Runs until it is time to stop.
///
/// # Errors
/// An interface is gone.
pub(super) fn run<F>(emulator: &mut Emulator<WirePort>, mut orders: Orders<'_, F>) -> anyhow::Result<()>
where
    F: FnMut(Instant, [LinkStats; 2]),
{
    let time = orders.time;
    if let Err(error) = rustix::thread::set_current_timer_slack(NonZeroU64::new(TIMER_SLACK)) {
        tracing::warn!(%error, "the kernel's timers stay coarse");
    }
    prefer_us();
    let mut next_tick = time.now() + orders.tick;
    loop {
        let now = time.now();
        if now >= orders.end || orders.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        emulator.step(now, || time.now())?;
        if now >= next_tick {
            (orders.on_tick)(now, emulator.stats(now));
            next_tick = now + orders.tick;
        }
        let deadline = emulator.next().unwrap_or(Instant::MAX).min(orders.end);
        wait(emulator, time, deadline, orders.busy_wait);
    }
}

/// Has this thread run before others that are ready, if we may: a link does not wait for its hosts.
fn prefer_us() {
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), FIRST) {
        tracing::info!(%error, "running with the priority of everybody else");
    }
}

/// Waits for frames, but no longer than until `deadline`.
fn wait(emulator: &Emulator<WirePort>, time: Time, deadline: Instant, BusyWait(awake): BusyWait) {
    let left = deadline - time.now();
    if left > awake {
        let sleep = (left - awake).min(NAP);
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(sleep.subsec_nanos()) };
        let [a, b] = emulator.ports().each_ref().map(|port| Wire::poll_fd(port.wire()));
        let mut fds = [PollFd::new(&a, PollFlags::IN), PollFd::new(&b, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            // It is time, or almost.
            Ok(0) if left <= awake + NAP => {}
            Ok(_) | Err(Errno::INTR) => return,
            Err(error) => {
                tracing::warn!(%error, "waiting for frames");
                return thread::sleep(Duration::from_millis(1));
            }
        }
    }
    while time.now() < deadline {
        std::hint::spin_loop();
    }
}
