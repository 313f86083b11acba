//! One direction of a link: a queue, a transmitter of a certain rate, a wire of a certain delay.
//!
//! The model is pure. It is told the time, so it runs on a virtual clock in a
//! [`World`](crate::World) and on the wall clock in front of a real device.

mod config;
mod ecn;
mod opportunities;
mod police;
mod queue;
mod stats;
#[cfg(test)]
mod tests;

use core::cmp::{Ordering, Reverse};
use core::time::Duration;
use std::collections::{BinaryHeap, VecDeque};

use anabranch_frame::{Instant, Payload};

use crate::Random;

pub use config::{Jitter, LinkChange, LinkConfig, Loss, QueueLimit, Reorder};
pub use ecn::Framing;
pub use opportunities::{BadTrace, Opportunities};
pub use police::Police;
pub use queue::{Aqm, Codel, DropTail, Queue, Queued, Red, Tally};
pub use stats::{Durations, LinkStats, Series};

use opportunities::Cursor;
use police::Bucket;

/// Bits that pass in a nanosecond at one bit per second, inverted: bit counts times this are exact
/// for every rate.
const NANOS: u64 = 1_000_000_000;

/// The packet that is being sent.
#[derive(Debug)]
struct Sending {
    packet: Queued,
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
    bytes: usize,
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
    tally: Tally,
    bucket: Option<Bucket>,
    cursor: Option<Cursor>,
    schedule: VecDeque<(Instant, LinkChange)>,
    up: bool,
    bad_state: bool,
    /// Packets that took part in a loss by numbers.
    numbered: u64,
    sending: Option<Sending>,
    /// When the transmitter was last done.
    free_at: Instant,
    /// What the last packet's end was rounded up by, in bits times [`NANOS`].
    credit: u64,
    flying: BinaryHeap<Reverse<Flying>>,
    flying_memory: usize,
    departures: u64,
    last_arrival: Instant,
    stats: LinkStats,
    queue_delay: Durations,
    series: Option<Series>,
}

impl Link {
    /// A link that starts at `start`, with the queue that its configuration asks for.
    #[must_use]
    pub fn new(config: LinkConfig, mut random: Random, start: Instant) -> Self {
        let queue = queue::of(&config, &mut random);
        Self::with_queue(config, random, start, queue)
    }

    /// A link with another queue discipline.
    #[must_use]
    pub fn with_queue(config: LinkConfig, random: Random, start: Instant, queue: Box<dyn Queue>) -> Self {
        let mut schedule: Vec<_> = config.schedule.iter().map(|&(at, change)| (start + at, change)).collect();
        schedule.sort_by_key(|&(at, _)| at);
        let series = config.series.map(|interval| Series::new(start, interval));
        Self {
            random,
            queue,
            tally: Tally::default(),
            bucket: config.police.map(|police| Bucket::full(police, start)),
            cursor: config.trace.clone().map(|trace| Cursor::new(trace, start)),
            schedule: schedule.into(),
            up: true,
            bad_state: false,
            numbered: 0,
            sending: None,
            free_at: start,
            credit: 0,
            flying: BinaryHeap::new(),
            flying_memory: 0,
            departures: 0,
            last_arrival: start,
            stats: LinkStats::default(),
            queue_delay: Durations::default(),
            series,
            config,
        }
    }

    /// Hands a packet to the link that came at `at`. That may be earlier than the times that the link
    /// was told before: it is sent when it would have been then, or after what was sent meanwhile.
    pub fn enqueue(&mut self, at: Instant, packet: Payload) {
        self.advance(at);
        let bytes = self.size_of(&packet);
        self.stats.offered_packets += 1;
        self.stats.offered_bytes += bytes as u64;
        if self.bucket.as_mut().is_some_and(|bucket| !bucket.admits(at, bytes)) {
            self.stats.dropped_police += 1;
            return;
        }
        let packet = Queued { data: packet, bytes, since: at };
        if self.sending.is_none() {
            self.start_sending(at, packet);
            self.advance(at);
        } else {
            self.queue.push(packet, &mut self.tally);
            self.note_tally();
            self.stats.queue_max_packets = self.stats.queue_max_packets.max(self.queue.packets());
            self.stats.queue_max_bytes = self.stats.queue_max_bytes.max(self.queue.bytes());
        }
    }

    /// What a packet counts: that of its IP header on, and the overhead.
    fn size_of(&self, packet: &Payload) -> usize {
        let bytes = packet.len().saturating_sub(self.config.framing.header_len());
        bytes.saturating_add_signed(self.config.overhead as isize)
    }

    fn note_tally(&mut self) {
        self.stats.dropped_queue = self.tally.dropped_full;
        self.stats.dropped_aqm = self.tally.dropped_early;
        self.stats.marked = self.tally.marked;
    }

    /// The next packet that has arrived by `now`.
    pub fn poll(&mut self, now: Instant) -> Option<Payload> {
        self.poll_arrival(now).map(|(_, packet)| packet)
    }

    /// The next packet that has arrived by `now`, and when it did.
    pub fn poll_arrival(&mut self, now: Instant) -> Option<(Instant, Payload)> {
        self.advance(now);
        if self.flying.peek().is_none_or(|Reverse(flying)| flying.arrival > now) {
            return None;
        }
        let Reverse(Flying { arrival, packet, bytes, .. }) = self.flying.pop()?;
        self.flying_memory -= packet.storage_len();
        self.stats.delivered_packets += 1;
        self.stats.delivered_bytes += bytes as u64;
        if let Some(series) = &mut self.series {
            series.add(arrival, bytes as u64);
        }
        Some((arrival, packet))
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

    /// How long packets waited for their turn, those that were sent.
    #[must_use]
    pub fn queue_delay(&self) -> &Durations {
        &self.queue_delay
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

    /// Brings the transmitter and the schedule up to `now`, in the order of time, as every other call does.
    pub fn advance(&mut self, now: Instant) {
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
                self.free_at = end;
                self.depart(end, sent.packet);
                let next = self.queue.pop(end, &mut self.tally);
                self.note_tally();
                if let Some(packet) = next {
                    self.start_sending(end, packet);
                }
            }
        }
    }

    /// Starts with a packet that is ready at `now`, as soon as the one before is out.
    fn start_sending(&mut self, now: Instant, packet: Queued) {
        let since = now.max(self.free_at);
        let credit = if now <= self.free_at { self.credit } else { 0 };
        self.queue_delay.record(since.saturating_since(packet.since));
        let left = (packet.bytes as u64 * 8 * NANOS).saturating_sub(credit);
        let bytes = packet.bytes;
        self.sending = Some(Sending { packet, left, since, end: since });
        match &mut self.cursor {
            None => self.set_end(),
            Some(cursor) => {
                let end = cursor.send(since, bytes);
                self.credit = 0;
                self.sending.iter_mut().for_each(|sending| sending.end = end);
            }
        }
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
            LinkChange::Loss(loss) => (self.config.loss, self.numbered) = (loss, 0),
            LinkChange::Duplicate(p) => self.config.duplicate = p,
            LinkChange::Corrupt(p) => self.config.corrupt = p,
            LinkChange::Reorder(reorder) => self.config.reorder = reorder,
            LinkChange::Queue(limit) => {
                self.config.queue = limit;
                self.queue.set_limit(limit);
            }
            LinkChange::Police(police) => {
                self.config.police = police;
                self.bucket = police.map(|police| Bucket::full(police, at));
            }
            LinkChange::Rate(rate) => self.set_rate(at, rate),
        }
    }

    fn set_rate(&mut self, at: Instant, rate: Option<u64>) {
        if let Some(sending) = &mut self.sending {
            let old = if self.cursor.is_none() { self.config.rate } else { None };
            if let Some(old) = old {
                let sent = at.saturating_since(sending.since).as_nanos() * u128::from(old.max(1));
                sending.left = sending.left.saturating_sub(u64::try_from(sent).unwrap_or(u64::MAX));
            }
            sending.since = sending.since.max(at);
        }
        (self.cursor, self.config.trace) = (None, None);
        self.config.rate = rate;
        self.set_end();
    }

    /// The last bit of `packet` left the transmitter: onto the wire with it, or not.
    fn depart(&mut self, at: Instant, packet: Queued) {
        if !self.up {
            self.stats.dropped_down += 1;
            return;
        }
        if self.is_lost() {
            self.stats.dropped_loss += 1;
            return;
        }
        let Queued { data: mut packet, bytes, .. } = packet;
        if self.random.chance(self.config.corrupt) {
            self.stats.corrupted += 1;
            packet = self.turn_a_bit(&packet);
        }
        if self.random.chance(self.config.duplicate) {
            self.stats.duplicated += 1;
            let arrival = self.arrival(at);
            self.fly(arrival, packet.clone(), bytes);
        }
        let arrival = self.arrival(at);
        self.fly(arrival, packet, bytes);
    }

    fn fly(&mut self, arrival: Instant, packet: Payload, bytes: usize) {
        let memory = self.flying_memory + packet.storage_len();
        if memory > self.config.wire_memory {
            self.stats.dropped_memory += 1;
            return;
        }
        self.flying_memory = memory;
        self.flying.push(Reverse(Flying { arrival, order: self.departures, packet, bytes }));
        self.departures += 1;
    }

    fn is_lost(&mut self) -> bool {
        match self.config.loss {
            Loss::None => false,
            Loss::Random(p) => self.random.chance(p),
            Loss::Every(n) => {
                self.numbered += 1;
                self.numbered.is_multiple_of(n.max(1))
            }
            Loss::Burst { enter, leave, loss, good_loss } => {
                let turn = if self.bad_state { leave } else { enter };
                self.bad_state ^= self.random.chance(turn);
                let p = if self.bad_state { loss } else { good_loss };
                self.random.chance(p)
            }
        }
    }

    fn turn_a_bit(&mut self, packet: &Payload) -> Payload {
        let mut bytes = packet.to_vec();
        // An Ethernet header is spared: a frame must still find its receiver.
        let from = self.config.framing.header_len().min(bytes.len());
        let bit = self.random.below((bytes.len() - from) as u64 * 8) as usize;
        if let Some(byte) = bytes.get_mut(from + bit / 8) {
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
        if self.random.chance(self.config.reorder.probability) {
            self.stats.reordered += 1;
            return at + delayed + self.hold_back();
        }
        if !self.config.keep_order {
            return at + delayed;
        }
        self.last_arrival = self.last_arrival.max(at + delayed);
        self.last_arrival
    }

    fn hold_back(&mut self) -> Duration {
        let Reorder { least, most, .. } = self.config.reorder;
        match most.checked_sub(least) {
            Some(spread) if !spread.is_zero() => least + self.random.duration(spread),
            _ => least,
        }
    }
}
