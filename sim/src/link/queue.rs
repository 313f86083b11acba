use core::fmt;
use std::collections::VecDeque;

use anabranch_frame::{Instant, Payload};

use super::QueueLimit;

/// Where packets wait for a link to become free.
///
/// A discipline may drop on the way in, by not taking a packet, and on the way out, as CoDel does:
/// then it counts into `dropped`.
pub trait Queue: fmt::Debug + Send {
    /// Takes a packet, or gives it up.
    fn push(&mut self, now: Instant, packet: Payload, dropped: &mut u64);
    /// The next packet to send.
    fn pop(&mut self, now: Instant, dropped: &mut u64) -> Option<Payload>;
    /// Packets that wait.
    fn packets(&self) -> usize;
    /// Their bytes.
    fn bytes(&self) -> usize;
}

/// First in, first out; what does not fit is dropped.
#[derive(Debug)]
pub struct DropTail {
    limit: QueueLimit,
    packets: VecDeque<Payload>,
    bytes: usize,
}

impl DropTail {
    /// An empty queue.
    #[must_use]
    pub fn new(limit: QueueLimit) -> Self {
        Self { limit, packets: VecDeque::new(), bytes: 0 }
    }
}

impl Queue for DropTail {
    fn push(&mut self, _now: Instant, packet: Payload, dropped: &mut u64) {
        if self.packets.len() >= self.limit.packets || self.bytes + packet.len() > self.limit.bytes {
            *dropped += 1;
            return;
        }
        self.bytes += packet.len();
        self.packets.push_back(packet);
    }

    fn pop(&mut self, _now: Instant, _dropped: &mut u64) -> Option<Payload> {
        let packet = self.packets.pop_front()?;
        self.bytes -= packet.len();
        Some(packet)
    }

    fn packets(&self) -> usize {
        self.packets.len()
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}
