//! Where packets wait for a link to become free.

mod codel;
mod red;
#[cfg(test)]
mod tests;

use core::fmt;
use std::collections::VecDeque;

use anabranch_frame::{Instant, Payload};

use super::ecn::{self, Framing};
use super::{LinkConfig, QueueLimit};
use crate::Random;

pub use codel::Codel;
pub use red::Red;

/// How a queue is managed: which packets it drops, or marks, before it is full.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub enum Aqm {
    /// None: it drops what does not fit.
    #[default]
    None,
    /// Random early detection, with these thresholds or those that follow from the queue's limit.
    Red(Option<Red>),
    /// Controlled delay.
    Codel(Codel),
}

/// A packet in a queue.
#[derive(Clone, Debug)]
pub struct Queued {
    /// The packet.
    pub data: Payload,
    /// What it counts, in bytes.
    pub bytes: usize,
    /// When it came.
    pub since: Instant,
}

/// What a queue did to packets; it only grows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Dropped because there was no room.
    pub dropped_full: u64,
    /// Dropped by its management while there was room.
    pub dropped_early: u64,
    /// Marked "congestion experienced" instead, and passed on.
    pub marked: u64,
}

/// A queue discipline.
///
/// It may drop on the way in, by not taking a packet, and on the way out, as CoDel does. Whatever it
/// drops or marks it counts.
pub trait Queue: fmt::Debug + Send {
    /// Takes a packet, or gives it up.
    fn push(&mut self, packet: Queued, tally: &mut Tally);
    /// The next packet to send. After `None` nothing waits.
    fn pop(&mut self, now: Instant, tally: &mut Tally) -> Option<Queued>;
    /// Sets what it holds at most from now on.
    fn set_limit(&mut self, limit: QueueLimit);
    /// Packets that wait.
    fn packets(&self) -> usize;
    /// Their bytes.
    fn bytes(&self) -> usize;
}

/// The queue that a configuration asks for.
pub(super) fn of(config: &LinkConfig, random: &mut Random) -> Box<dyn Queue> {
    let fifo = Fifo::new(config.queue);
    let marks = config.ecn.then_some(config.framing);
    match config.aqm {
        Aqm::None => Box::new(DropTail(fifo)),
        Aqm::Codel(codel) => Box::new(codel::CodelQueue::new(codel, fifo, marks)),
        Aqm::Red(red) => {
            let red = red.unwrap_or_else(|| Red::for_limit(config.queue));
            Box::new(red::RedQueue::new(red, fifo, marks, config.mean_rate(), random.split()))
        }
    }
}

/// First in, first out, with a limit.
#[derive(Debug)]
struct Fifo {
    limit: QueueLimit,
    packets: VecDeque<Queued>,
    bytes: usize,
}

impl Fifo {
    fn new(limit: QueueLimit) -> Self {
        Self { limit, packets: VecDeque::new(), bytes: 0 }
    }

    fn push(&mut self, packet: Queued, tally: &mut Tally) {
        if self.packets.len() >= self.limit.packets || self.bytes + packet.bytes > self.limit.bytes {
            tally.dropped_full += 1;
            return;
        }
        self.bytes += packet.bytes;
        self.packets.push_back(packet);
    }

    fn pop(&mut self) -> Option<Queued> {
        let packet = self.packets.pop_front()?;
        self.bytes -= packet.bytes;
        Some(packet)
    }
}

/// Marks a packet if that is wanted and possible, and says whether; it is to be dropped otherwise.
fn mark(marks: Option<Framing>, packet: &mut Queued, tally: &mut Tally) -> bool {
    let marked = marks.is_some_and(|framing| ecn::mark(&mut packet.data, framing));
    match marked {
        true => tally.marked += 1,
        false => tally.dropped_early += 1,
    }
    marked
}

/// First in, first out; what does not fit is dropped.
#[derive(Debug)]
pub struct DropTail(Fifo);

impl DropTail {
    /// An empty queue.
    #[must_use]
    pub fn new(limit: QueueLimit) -> Self {
        Self(Fifo::new(limit))
    }
}

impl Queue for DropTail {
    fn push(&mut self, packet: Queued, tally: &mut Tally) {
        self.0.push(packet, tally);
    }

    fn pop(&mut self, _now: Instant, _tally: &mut Tally) -> Option<Queued> {
        self.0.pop()
    }

    fn set_limit(&mut self, limit: QueueLimit) {
        self.0.limit = limit;
    }

    fn packets(&self) -> usize {
        self.0.packets.len()
    }

    fn bytes(&self) -> usize {
        self.0.bytes
    }
}
