//! Mail between the workers of one host: what a lock-free mailbox between threads may do to it.

use std::collections::VecDeque;
use std::time::Duration;

use anabranch_core::shard::Mail;
use anabranch_core::{Shard, WorkerId};
use anabranch_frame::Instant;

use crate::random::Random;

/// How mail between workers travels.
///
/// What a runtime guarantees always holds: mail of one kind from one worker to another keeps its order, notes are
/// never lost, and a worker that handles a packet, wherever it came from, has read all notes that were written before
/// that packet was handed over.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Mailing {
    /// It is read this late at most; each letter draws its own time.
    pub late: Duration,
    /// The share of packets that find the mailbox full and are dropped.
    pub dropped: f64,
}

/// The mailboxes of all workers of a host.
#[derive(Debug)]
pub(crate) struct PostOffice {
    mailing: Mailing,
    /// By worker: letters in the order in which they were posted, with the time at which they are read.
    boxes: Vec<Mailbox>,
}

#[derive(Debug, Default)]
struct Mailbox {
    notes: VecDeque<(Instant, Mail)>,
    packets: VecDeque<(Instant, Mail)>,
}

impl PostOffice {
    pub(crate) fn new(mailing: Mailing, workers: usize) -> Self {
        Self { mailing, boxes: (0..workers).map(|_| Mailbox::default()).collect() }
    }

    /// Takes what the shards have to tell each other. True if there was any.
    pub(crate) fn collect(&mut self, now: Instant, shards: &mut [Shard], random: &mut Random) -> bool {
        let mut any = false;
        for shard in shards {
            while let Some((to, mail)) = shard.poll_mail() {
                any = true;
                self.post(now, to, mail, random);
            }
        }
        any
    }

    fn post(&mut self, now: Instant, to: WorkerId, mail: Mail, random: &mut Random) {
        let late = self.mailing.late;
        let read_at = if late.is_zero() { now } else { now + random.duration(late) };
        let mailbox = &mut self.boxes[usize::from(to)];
        let queue = match mail {
            Mail::Packet(_) if self.mailing.dropped > 0.0 && random.chance(self.mailing.dropped) => return,
            Mail::Packet(_) => &mut mailbox.packets,
            _ => &mut mailbox.notes,
        };
        let read_at = queue.back().map_or(read_at, |(before, _)| read_at.max(*before));
        queue.push_back((read_at, mail));
    }

    /// Lets every worker read what is due. True if there was any.
    pub(crate) fn deliver(&mut self, now: Instant, shards: &mut [Shard]) -> bool {
        let mut any = false;
        for (worker, shard) in shards.iter_mut().enumerate() {
            while self.boxes[worker].notes.front().is_some_and(|(at, _)| *at <= now) {
                any = true;
                let note = self.boxes[worker].notes.pop_front();
                note.into_iter().for_each(|(_, note)| shard.handle_mail(now, note));
            }
            while self.boxes[worker].packets.front().is_some_and(|(at, _)| *at <= now) {
                any = true;
                self.read_notes(now, worker, shard);
                let packet = self.boxes[worker].packets.pop_front();
                packet.into_iter().for_each(|(_, packet)| shard.handle_mail(now, packet));
            }
        }
        any
    }

    /// A worker reads all notes, as it does before it handles a packet.
    pub(crate) fn read_notes(&mut self, now: Instant, worker: usize, shard: &mut Shard) {
        self.boxes[worker].notes.drain(..).for_each(|(_, note)| shard.handle_mail(now, note));
    }

    /// When the next letter is read.
    pub(crate) fn next(&self) -> Option<Instant> {
        let due = |queue: &VecDeque<(Instant, Mail)>| queue.front().map(|(at, _)| *at);
        self.boxes.iter().flat_map(|mailbox| [due(&mailbox.notes), due(&mailbox.packets)]).flatten().min()
    }

    /// Letters that nobody has read yet.
    pub(crate) fn waiting(&self) -> usize {
        self.boxes.iter().map(|mailbox| mailbox.notes.len() + mailbox.packets.len()).sum()
    }
}
