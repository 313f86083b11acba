//! Boxes on the way that do more with packets than to pass them on.
//!
//! A [`Middlebox`] stands in front of a link and sees what a host sends into it; several stand in a row, in the order
//! in which they were [added](crate::World::add_middlebox). What one lets through the next one sees. Boxes that have to
//! know both directions of a path are [`TwoWay`]. What they draw at random follows from the world's seed.
//!
//! | box | what it does |
//! |---|---|
//! | [`Strip`] | overwrites options with NOPs |
//! | [`Discard`] | drops segments |
//! | [`Alter`], [`Gateway`] | change payload, of the same length, checksum mended |
//! | [`Split`], [`Coalesce`] | cut segments up, put them together; both in a row are receive and segmentation offload |
//! | [`Renumber`] | makes initial sequence numbers random |
//! | [`Nat`] | translates addresses, forgets idle flows, gives them another port |
//! | [`Proxy`] | acknowledges data before its receiver has it |
//! | [`Firewall`] | forgets idle flows, and lets nothing of them through then |
//! | [`Router`], [`Unreachable`], [`Forger`] | tell senders of errors by ICMP, true ones and forged ones |

mod alter;
mod firewall;
mod icmp;
mod nat;
mod packet;
mod proxy;
mod renumber;
mod segments;
mod strip;
mod which;

pub use alter::{Alter, Gateway};
pub use firewall::Firewall;
pub use icmp::{Forger, Router, Unreachable};
pub use nat::Nat;
pub use packet::{Endpoint, Ends, TcpPacket, option};
pub use proxy::Proxy;
pub use renumber::Renumber;
pub use segments::{Coalesce, Keep, Split};
pub use strip::{Discard, Strip};
pub use which::Which;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anabranch_frame::{Instant, Payload};

use crate::{Random, Verdict};

/// A box that packets of one direction go through.
pub trait Middlebox: Send {
    /// A packet came in. What becomes of it, now or later, the box tells the hop.
    fn on_packet(&mut self, hop: &mut Hop<'_>, packet: Payload);

    /// When to call [`on_timeout`](Self::on_timeout).
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// The time of the deadline has come.
    fn on_timeout(&mut self, hop: &mut Hop<'_>) {
        let _ = hop;
    }
}

/// Where a box stands: what it may know and do.
#[derive(Debug)]
pub struct Hop<'a> {
    /// Now.
    pub now: Instant,
    /// The path's own randomness.
    pub random: &'a mut Random,
    onward: &'a mut Vec<Payload>,
    back: &'a mut Vec<Payload>,
}

impl Hop<'_> {
    /// Sends a packet on.
    pub fn forward(&mut self, packet: Payload) {
        self.onward.push(packet);
    }

    /// Sends a packet to where the others come from, past the boxes of that direction.
    pub fn reply(&mut self, packet: Payload) {
        self.back.push(packet);
    }
}

/// A direction of a path, as a [`TwoWay`] box sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heading {
    /// From the side that the box serves, such as the inside of a firewall.
    Out,
    /// To it.
    In,
}

/// A box that packets of both directions go through.
pub trait TwoWay: Send {
    /// As [`Middlebox::on_packet`].
    fn on_packet(&mut self, heading: Heading, hop: &mut Hop<'_>, packet: Payload);

    /// As [`Middlebox::deadline`].
    fn deadline(&self, heading: Heading) -> Option<Instant> {
        let _ = heading;
        None
    }

    /// As [`Middlebox::on_timeout`].
    fn on_timeout(&mut self, heading: Heading, hop: &mut Hop<'_>) {
        let _ = (heading, hop);
    }
}

/// One side of a [`TwoWay`] box.
pub(crate) struct Side<B> {
    both: Arc<Mutex<B>>,
    heading: Heading,
}

/// Both sides of a box: what stands in front of the link out, and of the one in.
pub(crate) fn sides<B: TwoWay>(both: B) -> [Side<B>; 2] {
    let both = Arc::new(Mutex::new(both));
    [Heading::Out, Heading::In].map(|heading| Side { both: Arc::clone(&both), heading })
}

impl<B> Side<B> {
    fn both(&self) -> MutexGuard<'_, B> {
        self.both.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: TwoWay> Middlebox for Side<B> {
    fn on_packet(&mut self, hop: &mut Hop<'_>, packet: Payload) {
        self.both().on_packet(self.heading, hop, packet);
    }

    fn deadline(&self) -> Option<Instant> {
        self.both().deadline(self.heading)
    }

    fn on_timeout(&mut self, hop: &mut Hop<'_>) {
        self.both().on_timeout(self.heading, hop);
    }
}

/// A function as a box.
pub(crate) struct Function<F>(pub(crate) F);

impl<F: FnMut(Instant, Payload) -> Verdict + Send> Middlebox for Function<F> {
    fn on_packet(&mut self, hop: &mut Hop<'_>, packet: Payload) {
        match (self.0)(hop.now, packet) {
            Verdict::Pass(packet) => hop.forward(packet),
            Verdict::Replace(packets) => packets.into_iter().for_each(|packet| hop.forward(packet)),
            Verdict::Drop => {}
        }
    }
}

/// The boxes in front of a link.
#[derive(Default)]
pub(crate) struct Chain {
    boxes: Vec<Box<dyn Middlebox>>,
}

/// What came out of a [`Chain`].
#[derive(Debug, Default)]
pub(crate) struct Passed {
    /// At its end.
    pub(crate) onward: Vec<Payload>,
    /// At its beginning.
    pub(crate) back: Vec<Payload>,
}

impl Chain {
    pub(crate) fn push(&mut self, one: impl Middlebox + 'static) {
        self.boxes.push(Box::new(one));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.boxes.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.boxes.clear();
    }

    /// A packet goes through all of them.
    pub(crate) fn on_packet(&mut self, now: Instant, random: &mut Random, packet: Payload) -> Passed {
        let mut back = Vec::new();
        let onward = self.pass(0, now, random, vec![packet], &mut back);
        Passed { onward, back }
    }

    /// Packets reach box number `first` and go on from there.
    fn pass(
        &mut self,
        first: usize,
        now: Instant,
        random: &mut Random,
        mut packets: Vec<Payload>,
        back: &mut Vec<Payload>,
    ) -> Vec<Payload> {
        for one in &mut self.boxes[first..] {
            let mut onward = Vec::new();
            for packet in packets {
                one.on_packet(&mut Hop { now, random, onward: &mut onward, back }, packet);
            }
            packets = onward;
        }
        packets
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.boxes.iter().filter_map(|one| one.deadline()).min()
    }

    /// Lets all boxes do what is due.
    pub(crate) fn on_timeout(&mut self, now: Instant, random: &mut Random) -> Passed {
        let mut passed = Passed::default();
        for at in 0..self.boxes.len() {
            if self.boxes[at].deadline().is_none_or(|due| due > now) {
                continue;
            }
            let mut onward = Vec::new();
            let mut hop = Hop { now, random, onward: &mut onward, back: &mut passed.back };
            self.boxes[at].on_timeout(&mut hop);
            let through = self.pass(at + 1, now, random, onward, &mut passed.back);
            passed.onward.extend(through);
        }
        passed
    }
}

#[cfg(test)]
mod tests;
