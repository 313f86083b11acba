//! What workers hand to each other.

use super::queue::{ArrayQueue, SegQueue};

/// Letters to one worker, from all others, without a lock.
///
/// There are packets, which may be dropped when there is no room, as anywhere on their way, and notes, which say whose
/// a tuple is and must not be lost. Notes are not bounded by the queue but by what they are about: a worker writes one only
/// after the reader has handed it a packet of that tuple, and another when the tuple is free again.
///
/// A worker writes its note before it lets go of anything that could make the network send a packet of that tuple. The
/// reader takes its packets first, from here and from its devices, then all notes, and only then handles any of them: so
/// whatever note a packet depends on has been read.
#[derive(Debug)]
pub(crate) struct Mailbox<P, N> {
    packets: ArrayQueue<P>,
    notes: SegQueue<N>,
}

impl<P, N> Mailbox<P, N> {
    /// A mailbox with room for that many packets.
    pub(crate) fn new(room: usize) -> Self {
        Self { packets: ArrayQueue::new(room), notes: SegQueue::new() }
    }

    /// Whether there was room for the packet.
    pub(crate) fn post_packet(&self, packet: P) -> bool {
        self.packets.push(packet).is_ok()
    }

    pub(crate) fn post_note(&self, note: N) {
        self.notes.push(note);
    }

    /// Takes packets until there are `most` in `packets`. The caller must take all notes before it handles them.
    pub(crate) fn take_packets(&self, most: usize, packets: &mut Vec<P>) {
        while packets.len() < most
            && let Some(packet) = self.packets.pop()
        {
            packets.push(packet);
        }
    }

    pub(crate) fn take_note(&self) -> Option<N> {
        self.notes.pop()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.packets.is_empty() && self.notes.is_empty()
    }

    /// Letters that wait.
    pub(crate) fn len(&self) -> usize {
        self.packets.len() + self.notes.len()
    }
}
