//! One direction of a link: a queue, a transmitter of a certain rate, a wire of a certain delay.
//!
//! The model is pure. It is told the time, so it runs on a virtual clock in a
//! [`World`](crate::World) and on the wall clock in front of a real device.

mod config;
mod queue;
mod stats;
#[cfg(test)]
mod tests;

use core::cmp::{Ordering, Reverse};
use core::time::Duration;
use std::collections::{BinaryHeap, VecDeque};

use anabranch_frame::{Instant, Payload};

use crate::Random;

pub use config::{Jitter, LinkChange, LinkConfig, Loss, QueueLimit};
pub use queue::{DropTail, Queue};
pub use stats::{LinkStats, Series};

/// Bits that pass in a nanosecond at one bit per second, inverted: bit counts times this are exact
/// for every rate.
const NANOS: u64 = 1_000_000_000;

/// The packet that is being sent.
#[derive(Debug)]
struct Sending {
    packet: Payload,
    /// Bits left at `since`, times [`NANOS`].
    left: u64,
    since: Instant,
    end: Instant,
}

/// A packet on the wire; ordered by arrival and then by departure.
#[derive(Debug)]
struct Flying {
    arrival: Instant,
    order: u64,
    packet: Payload,
}

impl PartialEq for Flying {
    fn eq(&self, other: &Self) -> bool {
        (self.arrival, self.order) == (other.arrival, other.order)
    }
}

impl Eq for Flying {}

impl PartialOrd for Flying {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Flying {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.arrival, self.order).cmp(&(other.arrival, other.order))
    }
}

/// One direction of a link.
#[derive(Debug)]
pub struct Link {
    config: LinkConfig,
    random: Random,
    queue: Box<dyn Queue>,
    schedule: VecDeque<(Instant, LinkChange)>,
    up: bool,
    bad_state: bool,
    sending: Option<Sending>,
    /// What the last packet's end was rounded up by, in bits times [`NANOS`].
    credit: u64,
    flying: BinaryHeap<Reverse<Flying>>,
    departures: u64,
    last_arrival: Instant,
    stats: LinkStats,
    series: Option<Series>,
}

impl Link {
    /// A link that starts at `start`, with a drop-tail queue.
    #[must_use]
    pub fn new(config: LinkConfig, random: Random, start: Instant) -> Self {
        let queue = Box::new(DropTail::new(config.queue));
        Self::with_queue(config, random, start, queue)
    }

    /// A link with another queue discipline.
    #[must_use]
    pub fn with_queue(config: LinkConfig, random: Random, start: Instant, queue: Box<dyn Queue>) -> Self {
        let mut schedule: Vec<_> = config.schedule.iter().map(|&(at, change)| (start + at, change)).collect();
        schedule.sort_by_key(|&(at, _)| at);
        let series = config.series.map(|interval| Series::new(start, interval));
        Self {
            config,
            random,
            queue,
            schedule: schedule.into(),
            up: true,
            bad_state: false,
            sending: None,
            credit: 0,
            flying: BinaryHeap::new(),
            departures: 0,
            last_arrival: start,
            stats: LinkStats::default(),
            series,
        }
    }

    /// Hands an IP packet to the link.
    pub fn enqueue(&mut self, now: Instant, packet: Payload) {
        self.advance(now);
        self.stats.offered_packets += 1;
        self.stats.offered_bytes += packet.len() as u64;
        if self.sending.is_none() {
            self.start_sending(now, packet, 0);
            self.advance(now);
        } else {
            self.queue.push(now, packet, &mut self.stats.dropped_queue);
            self.stats.queue_max_packets = self.stats.queue_max_packets.max(self.queue.packets());
            self.stats.queue_max_bytes = self.stats.queue_max_bytes.max(self.queue.bytes());
        }
    }

    /// The next packet that has arrived by `now`.
    pub fn poll(&mut self, now: Instant) -> Option<Payload> {
        self.advance(now);
        if self.flying.peek().is_none_or(|Reverse(flying)| flying.arrival > now) {
            return None;
        }
        let Reverse(Flying { arrival, packet, .. }) = self.flying.pop()?;
        self.stats.delivered_packets += 1;
        self.stats.delivered_bytes += packet.len() as u64;
        if let Some(series) = &mut self.series {
            series.add(arrival, packet.len() as u64);
        }
        Some(packet)
    }

    /// When to [`poll`](Self::poll) next. `None` while the link is empty: a change that is scheduled
    /// is no reason to wake up.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        let sent = self.sending.as_ref().map(|sending| sending.end);
        let arrives = self.flying.peek().map(|Reverse(flying)| flying.arrival);
        let next = sent.into_iter().chain(arrives).min()?;
        // A change moves the end of a packet that is being sent.
        let change = self.schedule.front().map(|&(at, _)| at).filter(|_| sent.is_some());
        Some(change.map_or(next, |at| at.min(next)))
    }

    /// Changes the link now.
    pub fn change(&mut self, now: Instant, change: LinkChange) {
        self.advance(now);
        self.apply(now, change);
        self.advance(now);
    }

    /// Whether it is up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// What it is made of, changes so far included.
    #[must_use]
    pub fn config(&self) -> &LinkConfig {
        &self.config
    }

    /// What it did so far.
    #[must_use]
    pub fn stats(&self) -> &LinkStats {
        &self.stats
    }

    /// Delivered bytes over time, if the configuration asks for it.
    #[must_use]
    pub fn series(&self) -> Option<&Series> {
        self.series.as_ref()
    }

    /// Packets and bytes that wait in its queue.
    #[must_use]
    pub fn queued(&self) -> (usize, usize) {
        (self.queue.packets(), self.queue.bytes())
    }

    /// Brings the transmitter and the schedule up to `now`, in the order of time.
    fn advance(&mut self, now: Instant) {
        loop {
            let change = self.schedule.front().map_or(Instant::MAX, |&(at, _)| at);
            let end = self.sending.as_ref().map_or(Instant::MAX, |sending| sending.end);
            if change.min(end) > now || (change == Instant::MAX && end == Instant::MAX) {
                return;
            }
            if change <= end {
                if let Some((at, change)) = self.schedule.pop_front() {
                    self.apply(at, change);
                }
            } else if let Some(sent) = self.sending.take() {
                self.depart(end, sent.packet);
                if let Some(packet) = self.queue.pop(end, &mut self.stats.dropped_queue) {
                    self.start_sending(end, packet, self.credit);
                }
            }
        }
    }

    fn start_sending(&mut self, now: Instant, packet: Payload, credit: u64) {
        let bits = packet.len() as u64 * 8 * NANOS;
        self.sending = Some(Sending { packet, left: bits.saturating_sub(credit), since: now, end: now });
        self.set_end();
    }

    /// Computes when the packet that is being sent will be out, from what is left of it.
    fn set_end(&mut self) {
        let Some(sending) = &mut self.sending else { return };
        (sending.end, self.credit) = match self.config.rate {
            None => (sending.since, 0),
            Some(rate) => {
                let nanos = sending.left.div_ceil(rate.max(1));
                let surplus = nanos.saturating_mul(rate.max(1)).saturating_sub(sending.left);
                (sending.since + Duration::from_nanos(nanos), surplus)
            }
        };
    }

    fn apply(&mut self, at: Instant, change: LinkChange) {
        match change {
            LinkChange::Down => self.up = false,
            LinkChange::Up => self.up = true,
            LinkChange::Delay(delay) => self.config.delay = delay,
            LinkChange::Jitter(jitter) => self.config.jitter = jitter,
            LinkChange::Loss(loss) => self.config.loss = loss,
            LinkChange::Rate(rate) => {
                if let (Some(sending), Some(old)) = (&mut self.sending, self.config.rate) {
                    let sent = at.saturating_since(sending.since).as_nanos() * u128::from(old.max(1));
                    sending.left = sending.left.saturating_sub(u64::try_from(sent).unwrap_or(u64::MAX));
                    sending.since = at;
                }
                self.config.rate = rate;
                self.set_end();
            }
        }
    }

    /// The last bit of `packet` left the transmitter: onto the wire with it, or not.
    fn depart(&mut self, at: Instant, mut packet: Payload) {
        if !self.up {
            self.stats.dropped_down += 1;
            return;
        }
        if self.is_lost() {
            self.stats.dropped_loss += 1;
            return;
        }
        if self.random.chance(self.config.corrupt) {
            self.stats.corrupted += 1;
            packet = self.turn_a_bit(&packet);
        }
        if self.random.chance(self.config.duplicate) {
            self.stats.duplicated += 1;
            let arrival = self.arrival(at);
            self.fly(arrival, packet.clone());
        }
        let arrival = self.arrival(at);
        self.fly(arrival, packet);
    }

    fn fly(&mut self, arrival: Instant, packet: Payload) {
        self.flying.push(Reverse(Flying { arrival, order: self.departures, packet }));
        self.departures += 1;
    }

    fn is_lost(&mut self) -> bool {
        match self.config.loss {
            Loss::None => false,
            Loss::Random(p) => self.random.chance(p),
            Loss::Burst { enter, leave, loss } => {
                let turn = if self.bad_state { leave } else { enter };
                self.bad_state ^= self.random.chance(turn);
                self.bad_state && self.random.chance(loss)
            }
        }
    }

    fn turn_a_bit(&mut self, packet: &Payload) -> Payload {
        let mut bytes = packet.to_vec();
        let bit = self.random.below(bytes.len() as u64 * 8) as usize;
        if let Some(byte) = bytes.get_mut(bit / 8) {
            *byte ^= 1 << (bit % 8);
        }
        Payload::from(bytes)
    }

    fn arrival(&mut self, at: Instant) -> Instant {
        let delay = self.config.delay;
        let delayed = match self.config.jitter {
            Jitter::None => delay,
            Jitter::Uniform(spread) => (delay + self.random.duration(spread * 2)).saturating_sub(spread),
            Jitter::Normal(deviation) => {
                let draw = self.random.normal().clamp(-4.0, 4.0) * deviation.as_nanos() as f64;
                let moved = Duration::from_nanos(libm::fabs(draw) as u64);
                if draw < 0.0 { delay.saturating_sub(moved) } else { delay + moved }
            }
        };
        if self.random.chance(self.config.reorder) {
            self.stats.reordered += 1;
            return at + delayed + self.config.reorder_by;
        }
        if !self.config.keep_order {
            return at + delayed;
        }
        self.last_arrival = self.last_arrival.max(at + delayed);
        self.last_arrival
    }
}
