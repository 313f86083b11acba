use core::time::Duration;

use anabranch_frame::Instant;
use hdrhistogram::Histogram;

/// What a link did so far. Bytes are those of IP packets, and the link's overhead.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LinkStats {
    /// Packets handed to it.
    pub offered_packets: u64,
    /// Bytes handed to it.
    pub offered_bytes: u64,
    /// Packets that came out at the other end, duplicates included.
    pub delivered_packets: u64,
    /// Bytes that came out.
    pub delivered_bytes: u64,
    /// Packets that the policer dropped.
    pub dropped_police: u64,
    /// Packets that the queue had no room for.
    pub dropped_queue: u64,
    /// Packets that the queue's management dropped while there was room.
    pub dropped_aqm: u64,
    /// Packets that it marked "congestion experienced" instead.
    pub marked: u64,
    /// Packets lost at random.
    pub dropped_loss: u64,
    /// Packets sent while the link was down.
    pub dropped_down: u64,
    /// Packets that the wire's memory had no room for, see [`LinkConfig`](super::LinkConfig).
    pub dropped_memory: u64,
    /// Packets that arrived twice.
    pub duplicated: u64,
    /// Packets with a bit turned over.
    pub corrupted: u64,
    /// Packets held back.
    pub reordered: u64,
    /// Most packets that waited at once.
    pub queue_max_packets: usize,
    /// Most bytes that waited at once.
    pub queue_max_bytes: usize,
}

impl LinkStats {
    /// Packets lost for whatever reason.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped_police
            + self.dropped_queue
            + self.dropped_aqm
            + self.dropped_loss
            + self.dropped_down
            + self.dropped_memory
    }
}

/// How long things took: a histogram of two significant digits.
#[derive(Clone, PartialEq, Debug)]
pub struct Durations(Histogram<u64>);

/// Two digits of any number are good for the histogram, and a small one grows with what is recorded.
const DIGITS: u8 = 2;

impl Default for Durations {
    fn default() -> Self {
        match Histogram::new(DIGITS) {
            Ok(histogram) => Self(histogram),
            Err(error) => unreachable!("a histogram of {DIGITS} digits: {error:?}"),
        }
    }
}

impl Durations {
    /// Takes note of one.
    pub fn record(&mut self, time: Duration) {
        // A histogram that grows takes every number.
        let _ = self.0.record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time that `percent` of all did not exceed; zero if there was none.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> Duration {
        Duration::from_nanos(self.0.value_at_percentile(percent))
    }

    /// The longest one, to two digits; zero if there was none.
    #[must_use]
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.0.max())
    }

    /// The mean; zero if there was none.
    #[must_use]
    pub fn mean(&self) -> Duration {
        Duration::from_nanos(self.0.mean() as u64)
    }
}

/// Bytes delivered in each interval since the start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Series {
    start: Instant,
    interval: Duration,
    bytes: Vec<u64>,
}

impl Series {
    pub(super) fn new(start: Instant, interval: Duration) -> Self {
        Self { start, interval: interval.max(Duration::from_micros(1)), bytes: Vec::new() }
    }

    pub(super) fn add(&mut self, at: Instant, bytes: u64) {
        let slot = (at.saturating_since(self.start).as_nanos() / self.interval.as_nanos()) as usize;
        if slot >= self.bytes.len() {
            self.bytes.resize(slot + 1, 0);
        }
        self.bytes[slot] += bytes;
    }

    /// Length of an interval.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// Bytes of each interval, up to the last one in which something arrived.
    #[must_use]
    pub fn bytes(&self) -> &[u64] {
        &self.bytes
    }

    /// The rate of each interval in bits per second.
    pub fn rates(&self) -> impl Iterator<Item = f64> + '_ {
        let seconds = self.interval.as_secs_f64();
        self.bytes.iter().map(move |&bytes| bytes as f64 * 8.0 / seconds)
    }
}
