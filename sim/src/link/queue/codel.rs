use core::time::Duration;

use anabranch_frame::Instant;

use super::{Fifo, Framing, Queue, QueueLimit, Queued, Tally, mark};

/// Controlled delay (RFC 8289): drops at the head as soon as packets have waited too long for a while.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Codel {
    /// The waiting time that is fine.
    pub target: Duration,
    /// For how long it may be exceeded: the longest round-trip time that is usual.
    pub interval: Duration,
}

impl Default for Codel {
    /// 5 ms and 100 ms, as RFC 8289 §4.3 and §4.4 say.
    fn default() -> Self {
        Self { target: Duration::from_millis(5), interval: Duration::from_millis(100) }
    }
}

/// With no more than this in the queue nothing is dropped: the link needs something to send.
const LEAST_BYTES: usize = 1514;

/// A dropping spell begins with the rate at which the one before ended, if that was so few intervals ago.
const MEMORY_INTERVALS: u32 = 16;

#[derive(Debug)]
pub(super) struct CodelQueue {
    codel: Codel,
    fifo: Fifo,
    marks: Option<Framing>,
    /// Since the waiting time is above the target: when that will have lasted an interval.
    patience_ends: Option<Instant>,
    dropping: bool,
    drop_next: Instant,
    /// Packets dropped in this spell, and in the last one when this began.
    count: u32,
    last_count: u32,
}

impl CodelQueue {
    pub(super) fn new(codel: Codel, fifo: Fifo, marks: Option<Framing>) -> Self {
        Self {
            codel,
            fifo,
            marks,
            patience_ends: None,
            dropping: false,
            drop_next: Instant::ZERO,
            count: 0,
            last_count: 0,
        }
    }

    /// The packet at the head, and whether packets have waited too long for too long.
    fn take(&mut self, now: Instant) -> Option<(Queued, bool)> {
        let Some(packet) = self.fifo.pop() else {
            self.patience_ends = None;
            return None;
        };
        let waited = now.saturating_since(packet.since);
        if waited < self.codel.target || self.fifo.bytes <= LEAST_BYTES {
            self.patience_ends = None;
            return Some((packet, false));
        }
        let ends = *self.patience_ends.get_or_insert(now + self.codel.interval);
        Some((packet, now >= ends))
    }

    /// When the next packet is to be dropped, the more the sooner (RFC 8289 §5.3).
    fn control_law(&self, from: Instant) -> Instant {
        from + self.codel.interval.div_f64(libm::sqrt(f64::from(self.count.max(1))))
    }

    /// Goes on in a spell: drops or marks what is due.
    fn go_on(&mut self, now: Instant, head: (Queued, bool), tally: &mut Tally) -> Option<Queued> {
        let (mut packet, mut late) = head;
        while late && now >= self.drop_next {
            self.count += 1;
            self.drop_next = self.control_law(self.drop_next);
            if mark(self.marks, &mut packet, tally) {
                return Some(packet);
            }
            let Some(next) = self.take(now) else {
                self.dropping = false;
                return None;
            };
            (packet, late) = next;
        }
        self.dropping = late;
        Some(packet)
    }

    /// Begins a spell with this packet.
    fn begin(&mut self, now: Instant, mut packet: Queued, tally: &mut Tally) -> Option<Queued> {
        let fresh = now.saturating_since(self.drop_next) >= self.codel.interval * MEMORY_INTERVALS;
        let since_last = self.count - self.last_count;
        self.count = if since_last > 1 && !fresh { since_last } else { 1 };
        self.last_count = self.count;
        self.drop_next = self.control_law(now);
        self.dropping = true;
        match mark(self.marks, &mut packet, tally) {
            true => Some(packet),
            false => self.take(now).map(|(packet, _)| packet),
        }
    }
}

impl Queue for CodelQueue {
    fn push(&mut self, packet: Queued, tally: &mut Tally) {
        self.fifo.push(packet, tally);
    }

    fn pop(&mut self, now: Instant, tally: &mut Tally) -> Option<Queued> {
        let Some(head) = self.take(now) else {
            self.dropping = false;
            return None;
        };
        match (self.dropping, head.1) {
            (true, _) => self.go_on(now, head, tally),
            (false, true) => self.begin(now, head.0, tally),
            (false, false) => Some(head.0),
        }
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
