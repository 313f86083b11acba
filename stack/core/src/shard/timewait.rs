//! TIME-WAIT: what is left of a subflow that we closed first (RFC 9293 §3.10.7.4, RFC 1337).

use alloc::collections::VecDeque;

use anabranch_frame::{Instant, Transmit};
use slab::Slab;

use crate::tcp::{Link, Subflow};
use crate::wire::{Flags, IpOut, OptionWriter, Segment, SegmentOut, SeqNum, Timestamps, Tuple};

/// A subflow in TIME-WAIT.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeWait {
    pub(crate) tuple: Tuple,
    link: Link,
    snd_nxt: SeqNum,
    rcv_nxt: SeqNum,
    /// Offset of our timestamp clock and the peer's last timestamp.
    timestamps: Option<(u32, u32)>,
    until: Instant,
}

/// What a segment means to a subflow in TIME-WAIT.
#[derive(Debug)]
pub(crate) enum Waited {
    /// Nothing.
    Ignore,
    /// It is answered with an [`ack`](TimeWaits::ack).
    Answer,
    /// It begins a new connection on the same tuple.
    Reopen,
}

impl TimeWait {
    pub(crate) fn of(subflow: &Subflow) -> Self {
        Self {
            tuple: subflow.tuple,
            link: subflow.link,
            snd_nxt: subflow.seq(subflow.snd.nxt()),
            rcv_nxt: subflow.rcv.seq(subflow.rcv.nxt()),
            timestamps: subflow.ts_offset().map(|offset| (offset, subflow.rcv.ts_echo())),
            until: Instant::ZERO,
        }
    }

    fn on_segment(&self, segment: &Segment) -> Waited {
        if segment.flags.has(Flags::RST) {
            // RFC 1337: a reset must not cut TIME-WAIT short.
            return Waited::Ignore;
        }
        let newer = match (self.timestamps, segment.options.timestamps) {
            (Some((_, recent)), Some(ts)) => (ts.value.wrapping_sub(recent) as i32) > 0,
            _ => false,
        };
        if segment.flags.has(Flags::SYN) && !segment.flags.has(Flags::ACK) && (newer || segment.seq.after(self.rcv_nxt))
        {
            return Waited::Reopen;
        }
        if segment.seq_len() == 0 && segment.seq == self.rcv_nxt {
            return Waited::Ignore;
        }
        Waited::Answer
    }

    fn ack(&self, now: Instant) -> Transmit {
        let mut options = OptionWriter::new();
        if let Some((offset, recent)) = self.timestamps {
            let value = (now.as_millis() as u32).wrapping_add(offset);
            options.timestamps(Timestamps { value, echo: recent });
        }
        SegmentOut {
            tuple: self.tuple,
            seq: self.snd_nxt,
            ack: self.rcv_nxt,
            flags: Flags::ACK,
            window: 0,
            ip: IpOut::default(),
            options: &options,
            payload_len: 0,
        }
        .bare(self.link.path)
    }
}

/// All subflows in TIME-WAIT of this worker, bounded: beyond it the oldest goes early.
#[derive(Debug)]
pub(crate) struct TimeWaits {
    entries: Slab<TimeWait>,
    /// In order of their ends; an entry that was prolonged stands here more than once.
    order: VecDeque<(Instant, u32)>,
    most: usize,
}

impl TimeWaits {
    pub(crate) fn new(most: usize) -> Self {
        Self { entries: Slab::new(), order: VecDeque::new(), most: most.max(1) }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Adds an entry. Returns its index, and the entry that had to go for it.
    pub(crate) fn insert(&mut self, until: Instant, entry: TimeWait) -> (u32, Option<(u32, TimeWait)>) {
        let evicted = if self.entries.len() >= self.most { self.pop_oldest() } else { None };
        let index = self.entries.insert(TimeWait { until, ..entry }) as u32;
        self.order.push_back((until, index));
        (index, evicted)
    }

    fn pop_oldest(&mut self) -> Option<(u32, TimeWait)> {
        while let Some((until, index)) = self.order.pop_front() {
            if self.entries.get(index as usize).is_some_and(|entry| entry.until == until) {
                return Some((index, self.entries.remove(index as usize)));
            }
        }
        None
    }

    pub(crate) fn on_segment(&self, index: u32, segment: &Segment) -> Waited {
        self.entries.get(index as usize).map_or(Waited::Ignore, |entry| entry.on_segment(segment))
    }

    /// The ACK that shows the peer where the subflow stood.
    pub(crate) fn ack(&self, now: Instant, index: u32) -> Option<Transmit> {
        self.entries.get(index as usize).map(|entry| entry.ack(now))
    }

    pub(crate) fn remove(&mut self, index: u32) -> Option<TimeWait> {
        self.entries.try_remove(index as usize)
    }

    /// The next entry that is over.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<(u32, TimeWait)> {
        while let Some(&(until, index)) = self.order.front() {
            let alive = self.entries.get(index as usize).is_some_and(|entry| entry.until == until);
            if alive && until > now {
                return None;
            }
            self.order.pop_front();
            if alive {
                return Some((index, self.entries.remove(index as usize)));
            }
        }
        None
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.order.front().map(|(until, _)| *until)
    }
}
