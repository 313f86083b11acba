use core::time::Duration;

use anabranch_frame::Instant;

use super::{Fifo, Framing, Queue, QueueLimit, Queued, Tally, mark};
use crate::Random;

/// Random early detection (Floyd and Jacobson 1993) in bytes, "gentle" (Floyd 2000): the more there is
/// in the queue on average, the more packets are dropped.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Red {
    /// Average bytes in the queue below which nothing is dropped.
    pub min: usize,
    /// Average from which on a packet is dropped with `probability`; at twice as much all are.
    pub max: usize,
    /// See `max`; 0 to 1.
    pub probability: f64,
    /// What the newest length weighs in the average, above 0 and up to 1.
    pub weight: f64,
}

/// What a packet is taken to have where packets are counted.
const PACKET_BYTES: usize = 1500;

impl Red {
    /// What `tc` takes for a queue of this limit: a quarter of it as `max`, a third of that as `min`, 2 %.
    #[must_use]
    pub fn for_limit(limit: QueueLimit) -> Self {
        let bytes = limit.bytes.min(limit.packets.saturating_mul(PACKET_BYTES));
        Self::between((bytes / 12).max(PACKET_BYTES), (bytes / 4).max(2 * PACKET_BYTES))
    }

    /// With these thresholds, 2 %, and the weight of the paper.
    #[must_use]
    pub fn between(min: usize, max: usize) -> Self {
        Self { min, max, probability: 0.02, weight: 0.002 }
    }

    /// The probability of a drop by the average alone.
    fn base_probability(&self, average: f64) -> f64 {
        let (min, max) = (self.min as f64, (self.max as f64).max(self.min as f64 + 1.0));
        match average {
            low if low < min => 0.0,
            middle if middle < max => self.probability * (middle - min) / (max - min),
            high => (self.probability + (1.0 - self.probability) * (high - max) / max).min(1.0),
        }
    }
}

#[derive(Debug)]
pub(super) struct RedQueue {
    red: Red,
    fifo: Fifo,
    marks: Option<Framing>,
    random: Random,
    /// How long a packet takes to be sent: an empty queue ages by one of them.
    packet_time: Duration,
    average: f64,
    /// Since when it is empty.
    empty_since: Option<Instant>,
    /// Packets since the last drop or mark.
    count: u32,
}

impl RedQueue {
    pub(super) fn new(red: Red, fifo: Fifo, marks: Option<Framing>, rate: Option<u64>, random: Random) -> Self {
        let nanos = rate.map_or(1, |rate| PACKET_BYTES as u64 * 8_000_000_000 / rate.max(1));
        Self {
            red,
            fifo,
            marks,
            random,
            packet_time: Duration::from_nanos(nanos.max(1)),
            average: 0.0,
            empty_since: Some(Instant::ZERO),
            count: 0,
        }
    }

    fn update_average(&mut self, now: Instant) {
        match self.empty_since.take() {
            Some(since) => {
                let packets = now.saturating_since(since).div_duration_f64(self.packet_time);
                self.average *= libm::pow(1.0 - self.red.weight, packets);
            }
            None => self.average += self.red.weight * (self.fifo.bytes as f64 - self.average),
        }
    }

    /// Whether this packet is one of those that are dropped or marked, which are spread evenly.
    fn picks(&mut self) -> bool {
        let base = self.red.base_probability(self.average);
        if base <= 0.0 {
            self.count = 0;
            return false;
        }
        let spread = 1.0 - f64::from(self.count) * base;
        let picked = spread <= base || self.random.chance(base / spread);
        self.count = if picked { 0 } else { self.count + 1 };
        picked
    }
}

impl Queue for RedQueue {
    fn push(&mut self, mut packet: Queued, tally: &mut Tally) {
        self.update_average(packet.since);
        // Beyond twice the threshold marks have not helped: drop (RFC 3168 §7).
        let hopeless = self.average >= 2.0 * self.red.max as f64;
        let marks = self.marks.filter(|_| !hopeless);
        if self.picks() && !mark(marks, &mut packet, tally) {
            return self.note_if_empty(packet.since);
        }
        let now = packet.since;
        self.fifo.push(packet, tally);
        self.note_if_empty(now);
    }

    fn pop(&mut self, now: Instant, _tally: &mut Tally) -> Option<Queued> {
        let packet = self.fifo.pop();
        self.note_if_empty(now);
        packet
    }

    fn set_limit(&mut self, limit: QueueLimit) {
        self.fifo.limit = limit;
    }

    fn packets(&self) -> usize {
        self.fifo.packets.len()
    }

    fn bytes(&self) -> usize {
        self.fifo.bytes
    }
}

impl RedQueue {
    fn note_if_empty(&mut self, now: Instant) {
        if self.fifo.packets.is_empty() {
            self.empty_since.get_or_insert(now);
        }
    }
}
