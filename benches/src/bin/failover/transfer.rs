//! One transfer in the midst of which a path dies.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anabranch_benches::bulk::{LOOK, read_until, write_until};
use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::site::{Ours, Site};
use crate::{Link, Pairing};

const PORT: u16 = 5001;
/// From the start of the emulators to the death: both paths are in use by then, and their queues have been full.
const LIFE: Duration = Duration::from_millis(2500);
/// From there to the end.
const AFTER: Duration = Duration::from_millis(2500);
/// How long before the death, and before the end, the rate is measured.
const RATE_TIME: Duration = Duration::from_millis(1000);
/// What has to have come over a path before it dies, or its death means nothing.
const USED: u64 = 1_000_000;

/// What came of a transfer.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Outcome {
    /// Who sent and who received.
    pub(crate) pairing: Pairing,
    pub(crate) round: u32,
    /// Which path died.
    pub(crate) dead: u8,
    /// Longest time between two reads after the death, in milliseconds.
    pub(crate) pause_ms: f64,
    /// How often our stack, where it sends, suspected a path, and how often for nothing.
    pub(crate) suspected: u64,
    pub(crate) in_vain: u64,
    /// Mbit/s of the application, before the death and some time after it.
    pub(crate) before: f64,
    pub(crate) after: f64,
}

/// A read that brought something.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    at: Instant,
    bytes: u64,
}

/// Measures once.
pub(crate) fn measure(link: &Link, pairing: Pairing, round: u32) -> Result<Outcome> {
    let ours = Ours { left: pairing == Pairing::Sends, right: pairing == Pairing::Receives };
    let dead = (round % 2) as u8;
    // Not always at the same place of the window's sawtooth.
    let life = LIFE + Duration::from_millis(u64::from(round) * 67 % 500);
    let site = Site::new(link, ours, dead, life)?;
    let death = site.death;
    let listener = site.right.listen(PORT)?;
    let stream = site.left.connect(site.right.socket_addr(PORT)).context("connecting")?;
    let accepted = listener.accept().context("accepting")?;
    let stop = AtomicBool::new(false);
    let arrivals = thread::scope(|scope| {
        let sender = scope.spawn(|| write_until(&stream, &stop));
        let watch = scope.spawn(|| {
            thread::sleep(death.saturating_duration_since(Instant::now() + LOOK));
            site.right.received()
        });
        let mut arrivals = Vec::new();
        let read = read_until(&accepted, death + AFTER, |at, bytes| arrivals.push(Arrival { at, bytes }));
        stop.store(true, Ordering::Relaxed);
        sender.join().expect("no panic in a sender")?;
        let received = watch.join().expect("no panic in a watcher")?;
        ensure!(received.iter().all(|&bytes| bytes > USED), "the paths brought only {received:?} bytes until then");
        read.map(|()| arrivals)
    })?;
    let (suspected, in_vain) = site.left.suspicions();
    drop((stream, accepted));
    site.finish()?;
    let pause = longest_gap(&arrivals, death).context("nothing came after the death")?;
    let (before, after) = (rate(&arrivals, death), rate(&arrivals, death + AFTER));
    Ok(Outcome { pairing, round, dead, pause_ms: pause.as_secs_f64() * 1e3, suspected, in_vain, before, after })
}

/// The longest time between two arrivals of which the second comes after `from`.
fn longest_gap(arrivals: &[Arrival], from: Instant) -> Option<Duration> {
    arrivals.windows(2).filter(|pair| pair[1].at >= from).map(|pair| pair[1].at - pair[0].at).max()
}

/// Mbit/s in the time before `end`.
fn rate(arrivals: &[Arrival], end: Instant) -> f64 {
    let start = end - RATE_TIME;
    let within = arrivals.iter().filter(|arrival| (start..end).contains(&arrival.at));
    within.map(|arrival| arrival.bytes).sum::<u64>() as f64 * 8e-6 / RATE_TIME.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_count_from_the_death_on() {
        let start = Instant::now();
        let arrivals = [0, 500, 510, 600, 640].map(|ms| Arrival { at: start + Duration::from_millis(ms), bytes: 1 });
        let gap = |from| longest_gap(&arrivals, start + Duration::from_millis(from)).map(|gap| gap.as_millis());
        assert_eq!([gap(0), gap(505), gap(605), gap(700)], [Some(500), Some(90), Some(40), None]);
    }
}
