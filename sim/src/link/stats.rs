use core::time::Duration;

use anabranch_frame::Instant;

/// What a link did so far. Bytes are those of IP packets.
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
    /// Packets that the queue had no room for.
    pub dropped_queue: u64,
    /// Packets lost at random.
    pub dropped_loss: u64,
    /// Packets sent while the link was down.
    pub dropped_down: u64,
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
        self.dropped_queue + self.dropped_loss + self.dropped_down
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
