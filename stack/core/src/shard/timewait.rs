//! TIME-WAIT: what is left of a subflow that we closed first (RFC 9293 §3.10.7.4, RFC 6191, RFC 1337).

use alloc::collections::VecDeque;
use core::time::Duration;

use anabranch_frame::{Instant, PathId, Transmit};
use slab::Slab;

use crate::tcp::{BareAck, Guard, Subflow};
use crate::wire::{Flags, IpOut, Segment, SeqNum, Tuple, ecn};

use super::Paths;

/// An entry is not prolonged for less: each time leaves a note behind.
const PROLONG_LEAST: Duration = Duration::from_secs(1);

/// A subflow in TIME-WAIT.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeWait {
    pub(crate) tuple: Tuple,
    path: PathId,
    ip: IpOut,
    snd_nxt: SeqNum,
    rcv_nxt: SeqNum,
    /// Offset of our timestamp clock, the peer's last timestamp and when it came.
    timestamps: Option<(u32, u32, Instant)>,
    /// When a segment that did not fit was last answered.
    last_oow_ack: Option<Instant>,
    until: Instant,
}

/// What a segment means to a subflow in TIME-WAIT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Waited {
    /// Nothing.
    Ignore,
    /// It is answered with an [`ack`](TimeWaits::ack), if that is due; `paws` if its timestamp is old.
    Answer {
        /// Its timestamp is old.
        paws: bool,
        /// TIME-WAIT begins anew.
        prolong: bool,
    },
    /// A last ACK that came again: TIME-WAIT begins anew.
    Prolong,
    /// The peer knows nothing of the connection any more.
    Kill,
    /// It begins a new connection on the same tuple, whose sequence numbers should start here.
    Reopen(SeqNum),
}

impl TimeWait {
    pub(crate) fn of(now: Instant, subflow: &Subflow) -> Self {
        Self {
            tuple: subflow.tuple,
            path: subflow.link.path,
            ip: subflow.ip_out(ecn::NOT_ECT),
            snd_nxt: subflow.seq(subflow.snd.nxt()),
            rcv_nxt: subflow.rcv.seq(subflow.rcv.nxt()),
            timestamps: subflow.ts_offset().map(|offset| (offset, subflow.rcv.ts_echo(), now)),
            last_oow_ack: None,
            until: Instant::ZERO,
        }
    }

    /// Where the sequence numbers of a new connection on the same tuple start: past all of the old one's, as in Linux.
    fn next_isn(&self) -> SeqNum {
        self.snd_nxt.add(65_535 + 2)
    }

    fn on_segment(&self, segment: &Segment, rfc1337: bool) -> Waited {
        let (syn, rst) = (segment.flags.has(Flags::SYN), segment.flags.has(Flags::RST));
        let acks = segment.flags.has(Flags::ACK);
        let ts = self.timestamps.zip(segment.options.timestamps);
        let newer = ts.map(|((_, recent, _), ts)| ts.value.wrapping_sub(recent) as i32);
        let paws = newer.is_some_and(|newer| newer < 0) && !rst;
        if !paws && segment.seq == self.rcv_nxt && (rst || segment.seq_len() == 0) {
            return match rst {
                // RFC 1337 would have a reset ignored, as it may belong to the old connection; RFC 9293 and Linux obey.
                true if rfc1337 => Waited::Ignore,
                true => Waited::Kill,
                false => Waited::Prolong,
            };
        }
        if rst {
            return Waited::Ignore;
        }
        // RFC 6191 §2, RFC 1122 §4.2.2.13: a SYN that cannot be an old one.
        if syn && !acks && !paws && (segment.seq.after(self.rcv_nxt) || newer.is_some_and(|newer| newer > 0)) {
            return Waited::Reopen(self.next_isn());
        }
        // A SYN without ACK that is not newer may be of a new connection with a number of its own: that one waits.
        Waited::Answer { paws, prolong: paws || acks }
    }

    /// Whether we may open a connection on the tuple: timestamps tell it from the old one (RFC 6191), once the clock of
    /// the peer has ticked.
    fn may_reuse(&self, now: Instant, delay: Duration) -> bool {
        self.timestamps.is_some_and(|(_, _, at)| now.saturating_since(at) > delay)
    }

    /// Its path may have been removed; the address may be on another one since.
    fn ack(&self, now: Instant, paths: &Paths) -> Option<Transmit> {
        let owner = || paths.link(paths.owner(self.tuple.local.ip())?);
        let ack = BareAck {
            tuple: self.tuple,
            link: paths.link(self.path).or_else(owner)?,
            seq: self.snd_nxt,
            ack: self.rcv_nxt,
            window: 0,
            timestamps: self.timestamps.map(|(offset, recent, _)| (offset, recent)),
            ip: self.ip,
        };
        Some(ack.transmit(now))
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

    /// Their tuples.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Tuple)> {
        self.entries.iter().map(|(index, entry)| (index as u32, &entry.tuple))
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

    pub(crate) fn on_segment(&self, index: u32, segment: &Segment, rfc1337: bool) -> Waited {
        self.entries.get(index as usize).map_or(Waited::Ignore, |entry| entry.on_segment(segment, rfc1337))
    }

    /// TIME-WAIT begins anew.
    pub(crate) fn prolong(&mut self, index: u32, until: Instant) {
        if let Some(entry) = self.entries.get_mut(index as usize)
            && until.saturating_since(entry.until) >= PROLONG_LEAST
        {
            entry.until = until;
            self.order.push_back((until, index));
        }
    }

    /// Whether an answer is due, and not too soon after another.
    pub(crate) fn may_answer(&mut self, now: Instant, index: u32, guard: &Guard) -> bool {
        self.entries.get_mut(index as usize).is_some_and(|entry| guard.admits(now, &mut entry.last_oow_ack))
    }

    /// Where a connection of ours on the entry's tuple may start, if it may be opened at all.
    pub(crate) fn reuse(&self, now: Instant, index: u32, delay: Duration) -> Option<SeqNum> {
        let entry = self.entries.get(index as usize)?;
        entry.may_reuse(now, delay).then(|| entry.next_isn())
    }

    /// The ACK that shows the peer where the subflow stood.
    pub(crate) fn ack(&self, now: Instant, index: u32, paths: &Paths) -> Option<Transmit> {
        self.entries.get(index as usize)?.ack(now, paths)
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
