//! The sent records in order of position, what is known of each, and the sums that follow from it
//! (RFC 6675's scoreboard).

use alloc::collections::VecDeque;
use core::ops::Range;
use core::time::Duration;

use anabranch_frame::Instant;

use super::rate::TxStamp;
use super::record::Record;
use crate::ranges::RangeSet;

/// More SACK blocks than this never fit into one segment.
pub(super) const MAX_SACK_BLOCKS: usize = 4;

/// Positions in each state.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Tally {
    pub(super) sacked: u64,
    /// Segments that the SACKed records stand for.
    pub(super) sacked_segments: u64,
    pub(super) lost: u64,
    pub(super) retrans: u64,
    /// Lost and not sent again.
    pub(super) waiting: u64,
}

impl Tally {
    pub(super) fn add(&mut self, record: &Record) {
        let len = record.len();
        if record.sacked {
            self.sacked += len;
            self.sacked_segments += record.segments();
        }
        self.lost += if record.lost { len } else { 0 };
        self.retrans += if record.retrans { len } else { 0 };
        self.waiting += if record.waits() { len } else { 0 };
    }

    fn sub(&mut self, record: &Record) {
        let mut one = Self::default();
        one.add(record);
        self.sacked -= one.sacked;
        self.sacked_segments -= one.sacked_segments;
        self.lost -= one.lost;
        self.retrans -= one.retrans;
        self.waiting -= one.waiting;
    }
}

/// What [`Scoreboard::mark_timed_out`] found.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct TimedOut {
    /// Positions newly marked lost.
    pub(super) lost: u64,
    /// Segments among them that had been sent again before.
    pub(super) lost_again: u64,
    /// The head had been SACKed.
    pub(super) reneged: bool,
}

#[derive(Debug)]
pub(super) struct Scoreboard {
    /// Contiguous from `una` to `nxt`.
    records: VecDeque<Record>,
    una: u64,
    nxt: u64,
    tally: Tally,
    /// Without SACK: positions that duplicate ACKs say have left the network.
    reno_sacked: u64,
    /// No record before this position waits to be sent again.
    waiting_from: u64,
    /// What is SACKed, as ranges: a block that was told before costs no walk over its records, whatever else the peer tells
    /// in between.
    sacked: RangeSet,
}

impl Scoreboard {
    pub(super) fn new(start: u64) -> Self {
        Self {
            records: VecDeque::new(),
            una: start,
            nxt: start,
            tally: Tally::default(),
            reno_sacked: 0,
            waiting_from: start,
            sacked: RangeSet::new(),
        }
    }

    /// Bytes of memory that it holds beside itself, payload left out.
    pub(super) fn memory(&self) -> usize {
        self.records.len() * size_of::<Record>() + self.sacked.len() * size_of::<Range<u64>>()
    }

    pub(super) fn una(&self) -> u64 {
        self.una
    }

    pub(super) fn nxt(&self) -> u64 {
        self.nxt
    }

    #[cfg(test)]
    pub(super) fn sacked(&self) -> &RangeSet {
        &self.sacked
    }

    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(super) fn outstanding(&self) -> u64 {
        self.nxt - self.una
    }

    /// RFC 6675's pipe.
    pub(super) fn in_flight(&self) -> u64 {
        (self.outstanding() + self.tally.retrans).saturating_sub(self.tally.sacked + self.tally.lost + self.reno_sacked)
    }

    pub(super) fn records(&self) -> &VecDeque<Record> {
        &self.records
    }

    pub(super) fn push(&mut self, record: Record) {
        self.nxt = record.end;
        self.records.push_back(record);
    }

    /// The last record was sent with PSH.
    pub(super) fn mark_pushed(&mut self) {
        if let Some(last) = self.records.back_mut() {
            last.push = true;
        }
    }

    /// Index of the record that holds position `at`, or of the first one after it.
    pub(super) fn find(&self, at: u64) -> usize {
        self.records.partition_point(|record| record.end <= at)
    }

    fn change(&mut self, index: usize, how: impl FnOnce(&mut Record)) {
        let record = &mut self.records[index];
        self.tally.sub(record);
        how(record);
        self.tally.add(record);
    }

    /// Cuts a record in two; `at` is strictly inside.
    pub(super) fn split(&mut self, index: usize, at: u64) {
        let record = &mut self.records[index];
        self.tally.sub(record);
        let rest = record.split_off(at);
        self.tally.add(record);
        self.tally.add(&rest);
        self.records.insert(index + 1, rest);
    }

    /// A cumulative acknowledgement. Shows what it delivers for the first time, in order.
    pub(super) fn acknowledge(&mut self, to: u64, mut delivered: impl FnMut(&Record, Range<u64>)) {
        while let Some(record) = self.records.front_mut() {
            if record.start >= to {
                break;
            }
            if !record.sacked {
                delivered(record, record.start..record.end.min(to));
            }
            self.tally.sub(record);
            if record.end > to {
                record.advance_to(to);
                self.tally.add(record);
                break;
            }
            self.records.pop_front();
        }
        self.una = self.una.max(to);
        self.sacked.remove_before(to);
    }

    /// One SACK block, within `una..nxt`. Shows what it delivers for the first time, in order.
    pub(super) fn sack(&mut self, block: &Range<u64>, mut delivered: impl FnMut(&Record, Range<u64>)) {
        let mut index = self.find(block.start);
        while let Some(record) = self.records.get(index) {
            if record.start >= block.end {
                break;
            }
            if record.sacked {
                let known = self.sacked.range_at(record.start);
                index = known.map_or(index + 1, |known| self.find(known.end).max(index + 1));
                continue;
            }
            let part = record.start.max(block.start)..record.end.min(block.end);
            if !plausible(record, &part) {
                index += 1;
                continue;
            }
            if part.end < record.end {
                self.split(index, part.end);
            }
            if part.start > self.records[index].start {
                self.split(index, part.start);
                index += 1;
            }
            self.sacked.insert(part.clone());
            delivered(&self.records[index], part);
            self.change(index, |record| {
                record.sacked = true;
                record.lost = false;
                record.retrans = false;
            });
            index += 1;
        }
    }

    /// Marks a record lost, or its retransmission if there was one. Returns how many positions.
    pub(super) fn mark_lost(&mut self, index: usize) -> u64 {
        self.change(index, |record| {
            record.lost = true;
            record.retrans = false;
        });
        let record = &self.records[index];
        self.waiting_from = self.waiting_from.min(record.start);
        record.len()
    }

    /// Marks the first segment lost, unless it is already. Returns how many positions.
    pub(super) fn mark_head_lost(&mut self) -> u64 {
        let Some(head) = self.records.front() else { return 0 };
        if head.lost || head.sacked {
            return 0;
        }
        let mss = u64::from(head.mss);
        if head.payload_len() > mss {
            let at = head.start + mss;
            self.split(0, at);
        }
        let lost = self.mark_lost(0);
        self.limit_reno_sacked();
        lost
    }

    /// Marks lost the head and what was sent a round-trip time ago or longer and is not SACKed (RFC 8985 §6.3). If the
    /// head is SACKed the peer took its word back, and SACKs count for nothing (RFC 2018 §8). Shows what is newly lost.
    pub(super) fn mark_timed_out(&mut self, now: Instant, rtt: Duration, mut newly: impl FnMut(&Record)) -> TimedOut {
        let mut found =
            TimedOut { reneged: self.records.front().is_some_and(|head| head.sacked), ..TimedOut::default() };
        self.reno_sacked = 0;
        if found.reneged {
            self.sacked.clear();
        }
        for (index, record) in self.records.iter_mut().enumerate() {
            if record.sacked && !found.reneged {
                continue;
            }
            let overdue = index == 0 || found.reneged || record.stamp.sent_at + rtt <= now;
            if !overdue {
                continue;
            }
            self.tally.sub(record);
            record.sacked = false;
            if record.in_flight() {
                found.lost += record.len();
                newly(record);
                found.lost_again += if record.lost && record.retrans { record.segments() } else { 0 };
            }
            record.lost = true;
            record.retrans = false;
            self.tally.add(record);
        }
        self.waiting_from = self.una;
        found
    }

    /// The last record is one segment, whatever its size.
    pub(super) fn make_last_one_segment(&mut self) {
        if let Some(last) = self.records.back_mut() {
            last.mss = u16::try_from(last.payload_len()).unwrap_or(u16::MAX);
        }
    }

    /// Nothing was lost after all.
    pub(super) fn unmark_lost(&mut self) {
        for record in &mut self.records {
            self.tally.sub(record);
            record.lost = false;
            self.tally.add(record);
        }
        self.waiting_from = self.nxt;
    }

    /// Index of the first record that waits to be sent again.
    pub(super) fn first_waiting(&mut self) -> Option<usize> {
        if self.tally.waiting == 0 {
            self.waiting_from = self.nxt;
            return None;
        }
        let from = self.find(self.waiting_from);
        let index = (from..self.records.len()).find(|&index| self.records[index].waits())?;
        self.waiting_from = self.records[index].start;
        Some(index)
    }

    /// A record goes out again, in segments of `mss`.
    pub(super) fn mark_retransmitted(&mut self, index: usize, stamp: TxStamp, mss: u16) {
        self.change(index, |record| {
            record.retrans = true;
            record.retransmitted = true;
            record.stamp = stamp;
            record.mss = mss;
        });
    }

    pub(super) fn reno_sacked(&self) -> u64 {
        self.reno_sacked
    }

    /// Without SACK: another duplicate ACK, so another segment has arrived. Returns how many positions that makes.
    pub(super) fn add_reno_sack(&mut self, mss: u64) -> u64 {
        let before = self.reno_sacked;
        self.reno_sacked += mss;
        self.limit_reno_sacked();
        self.reno_sacked.saturating_sub(before)
    }

    /// Without SACK: `acked` positions were acknowledged, of which one segment was the hole. Returns how many of
    /// them duplicate ACKs had announced.
    pub(super) fn remove_reno_sacks(&mut self, acked: u64, mss: u64) -> u64 {
        let before = self.reno_sacked;
        self.reno_sacked = before.saturating_sub(acked.saturating_sub(mss));
        self.limit_reno_sacked();
        before - self.reno_sacked
    }

    /// Without SACK: nothing that is known has left the network.
    pub(super) fn clear_reno_sacks(&mut self) {
        self.reno_sacked = 0;
    }

    /// Something must be missing, or there would be no duplicate ACKs.
    fn limit_reno_sacked(&mut self) {
        let mss = self.records.front().map_or(0, |head| u64::from(head.mss).min(head.len()));
        let most = self.outstanding().saturating_sub(self.tally.lost.max(mss));
        self.reno_sacked = self.reno_sacked.min(most);
    }
}

/// Whether `part` of `record` can be what segments that arrived made of it. Cutting at every byte that a peer names
/// would let it grow the list without bound, so a part is at least half a segment, or the short segment at the end.
fn plausible(record: &Record, part: &Range<u64>) -> bool {
    let len = part.end - part.start;
    let short = record.payload_len() % u64::from(record.mss);
    let tail = record.tail && part.end == record.end && short > 0 && len >= short;
    len == record.len() || len * 2 >= u64::from(record.mss) || tail
}
