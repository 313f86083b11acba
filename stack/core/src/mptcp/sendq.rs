//! The connection's send buffer: what was written, what is assigned to subflows, what is acknowledged.

use alloc::collections::VecDeque;
use core::ops::Range;

use anabranch_frame::{Payload, Slices};

use super::Copies;
use crate::ranges::RangeSet;

/// Payloads shorter than this are copied together while nobody else holds them.
const SMALL: usize = 4096;
/// Ranges of buffers in one transmission: more cost more than they save.
const SLICES_MAX: usize = 32;
/// What a chunk costs beside its storage.
const CHUNK_COST: u64 = 128;
/// Send buffer of a new connection, in bytes.
const INITIAL: u64 = 256 * 1024;

/// Offsets from 0.
#[derive(Debug)]
pub(crate) struct SendQueue {
    chunks: VecDeque<Payload>,
    /// Offset of the first byte of `chunks`.
    start: u64,
    una: u64,
    /// First offset that is not assigned.
    nxt: u64,
    end: u64,
    /// Assigned ranges beyond `nxt`, when a scheduler sends ahead of the head.
    ahead: RangeSet,
    /// Ranges to be sent once more, on any subflow.
    reinject: RangeSet,
    /// The same, unless the subflow that has them answers in time.
    rescue: RangeSet,
    /// Offsets at which a segment has to end, beyond `nxt`, and whether it carries PSH.
    boundaries: VecDeque<(u64, bool)>,
    fin: bool,
    fin_acked: bool,
    max: u64,
    memory: u64,
    /// Position in `chunks` of the last look-up: chunk index and its first offset.
    hint: (usize, u64),
}

impl SendQueue {
    pub(crate) fn new(max: u64) -> Self {
        Self {
            chunks: VecDeque::new(),
            start: 0,
            una: 0,
            nxt: 0,
            end: 0,
            ahead: RangeSet::new(),
            reinject: RangeSet::new(),
            rescue: RangeSet::new(),
            boundaries: VecDeque::new(),
            fin: false,
            fin_acked: false,
            max,
            memory: 0,
            hint: (0, 0),
        }
    }

    /// Whether everything that was written is acknowledged, and more may be written.
    pub(crate) fn may_rest(&self) -> bool {
        self.una == self.end && !self.fin
    }

    /// What has to be remembered of a queue at rest: its only offset, and its limit.
    pub(crate) fn rest(&self) -> (u64, u64) {
        (self.end, self.max)
    }

    /// The queue that rested.
    pub(crate) fn resume((end, max): (u64, u64)) -> Self {
        Self { start: end, una: end, nxt: end, end, hint: (0, end), ..Self::new(max) }
    }

    /// Bytes of memory that it holds.
    pub(crate) fn memory(&self) -> u64 {
        self.memory
    }

    /// First offset that is not acknowledged.
    pub(crate) fn una(&self) -> u64 {
        self.una
    }

    /// First offset that is not assigned to a subflow.
    pub(crate) fn nxt(&self) -> u64 {
        self.nxt
    }

    /// First offset past everything that was ever assigned.
    pub(crate) fn assigned_end(&self) -> u64 {
        self.ahead.last().map_or(self.nxt, |last| last.end)
    }

    /// End of what was written.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// The buffer is bounded otherwise from now on.
    pub(crate) fn set_max(&mut self, max: u64) {
        self.max = max;
    }

    /// Bytes that are not assigned.
    pub(crate) fn unassigned(&self) -> u64 {
        self.end - self.nxt - self.ahead.covered()
    }

    /// Bytes that are not acknowledged.
    pub(crate) fn queued(&self) -> u64 {
        self.end - self.una
    }

    /// Size of the buffer when `cwnd` bytes may be in flight: twice that, within its bounds.
    pub(crate) fn limit(&self, cwnd: u64) -> u64 {
        cwnd.saturating_mul(2).clamp(INITIAL.min(self.max), self.max)
    }

    /// Whether the end of the stream was written.
    pub(crate) fn fin(&self) -> bool {
        self.fin
    }

    /// Whether the peer acknowledged the end of the stream.
    pub(crate) fn fin_acked(&self) -> bool {
        self.fin_acked
    }

    /// Whether everything that was written is assigned.
    pub(crate) fn all_assigned(&self) -> bool {
        self.nxt == self.end
    }

    /// Adds to the end. Small pieces are copied together, into `copies`.
    pub(crate) fn push(&mut self, mut payload: Payload, copies: &Copies) {
        debug_assert!(!self.fin, "data after the end of the stream");
        self.end += payload.len() as u64;
        if payload.len() < SMALL
            && let Some(last) = self.chunks.back_mut()
            && last.len() < SMALL
        {
            let fitted = last.append(&payload);
            payload.advance(fitted);
        }
        if payload.is_empty() {
            return;
        }
        if payload.len() < SMALL / 2 {
            payload = copies.copy(&payload, (payload.len() * 4).clamp(256, SMALL));
        }
        self.memory += cost(&payload);
        self.chunks.push_back(payload);
    }

    /// What was written so far shares no segment with what is written next, and is pushed or not.
    pub(crate) fn mark_boundary(&mut self, push: bool) {
        match self.boundaries.back_mut() {
            Some((at, pushed)) if *at == self.end => *pushed |= push,
            _ => self.boundaries.push_back((self.end, push)),
        }
    }

    /// Whether `off` is a boundary that is pushed.
    pub(crate) fn is_pushed(&self, off: u64) -> bool {
        self.boundaries.iter().any(|&boundary| boundary == (off, true))
    }

    /// The first of them behind `start`.
    fn boundary_after(&self, start: u64) -> u64 {
        self.boundaries.iter().map(|&(at, _)| at).find(|&at| at > start).unwrap_or(u64::MAX)
    }

    /// The stream ends here.
    pub(crate) fn finish(&mut self) {
        self.fin = true;
    }

    /// The first run of unassigned bytes from `skip` unassigned bytes past the first on.
    pub(crate) fn next_unassigned(&self, skip: u64) -> Range<u64> {
        let mut left = skip;
        for gap in self.ahead.gaps(self.nxt..self.end) {
            let len = gap.end - gap.start;
            if left < len {
                let start = gap.start + left;
                return start..gap.end.min(self.boundary_after(start));
            }
            left -= len;
        }
        self.end..self.end
    }

    /// `range` went to a subflow for the first time.
    pub(crate) fn assign(&mut self, range: Range<u64>) {
        if range.start > self.nxt {
            self.ahead.insert(range);
            return;
        }
        self.nxt = self.nxt.max(range.end);
        while self.boundaries.front().is_some_and(|&(at, _)| at <= self.nxt) {
            self.boundaries.pop_front();
        }
        while let Some(first) = self.ahead.first()
            && first.start <= self.nxt
        {
            self.nxt = self.nxt.max(first.end);
            self.ahead.remove_before(self.nxt);
        }
    }

    /// The bytes of `range` as slices; shorter than `range` if that would take too many of them.
    pub(crate) fn slices(&mut self, range: Range<u64>) -> (Slices, u64) {
        let mut slices = Slices::new();
        let (mut index, mut at) = self.hint;
        if at > range.start || at < self.start || index >= self.chunks.len() {
            (index, at) = (0, self.start);
        }
        let mut pos = range.start.max(self.start);
        while pos < range.end && slices.len() < SLICES_MAX {
            let Some(chunk) = self.chunks.get(index) else { break };
            let chunk_end = at + chunk.len() as u64;
            if pos >= chunk_end {
                (index, at) = (index + 1, chunk_end);
                continue;
            }
            let end = chunk_end.min(range.end);
            slices.push(chunk.slice((pos - at) as usize..(end - at) as usize));
            pos = end;
        }
        self.hint = (index, at);
        (slices, pos - range.start)
    }

    /// Everything before `off` is acknowledged at data level; an `off` one past the end acknowledges
    /// the end of the stream. Returns the bytes newly acknowledged, or `None` if `off` was never sent.
    pub(crate) fn ack(&mut self, off: u64) -> Option<u64> {
        let fin = u64::from(self.fin && self.all_assigned());
        if off > self.assigned_end() + fin {
            return None;
        }
        if off > self.end {
            self.fin_acked = true;
        }
        let off = off.min(self.end);
        if off <= self.una {
            return Some(0);
        }
        let acked = off - self.una;
        self.una = off;
        // What the peer has need not be assigned any more either.
        if self.nxt < off {
            self.assign(self.nxt..off);
        }
        self.reinject.remove_before(off);
        self.rescue.remove_before(off);
        while let Some(first) = self.chunks.front() {
            let len = first.len() as u64;
            if self.start + len > off {
                break;
            }
            self.start += len;
            self.memory -= cost(first);
            self.chunks.pop_front();
            self.hint.0 = self.hint.0.saturating_sub(1);
        }
        if self.hint.1 < self.start {
            self.hint = (0, self.start);
        }
        Some(acked)
    }

    /// Marks what is unacknowledged of `range` to be sent once more.
    pub(crate) fn reinject(&mut self, range: Range<u64>) -> u64 {
        let range = range.start.max(self.una)..range.end.min(self.assigned_end());
        if range.start < range.end { self.reinject.insert(range) } else { 0 }
    }

    /// Marks what is unacknowledged of `range` to be sent once more, as long as its subflow is suspect.
    pub(crate) fn rescue(&mut self, range: Range<u64>) {
        self.rescue.insert(range.start.max(self.una)..range.end);
    }

    /// What waits for rescue goes in any case.
    pub(crate) fn confirm_rescue(&mut self) {
        for range in core::mem::take(&mut self.rescue).iter() {
            self.reinject.insert(range);
        }
    }

    /// Of what waits for rescue only what lies in `still` goes on waiting for it.
    pub(crate) fn end_rescue(&mut self, still: impl Iterator<Item = Range<u64>>) {
        let waiting = core::mem::take(&mut self.rescue);
        for range in still {
            let mut start = range.start;
            for gap in waiting.gaps(range.clone()) {
                self.rescue.insert(start..gap.start);
                start = gap.end;
            }
            self.rescue.insert(start..range.end);
        }
    }

    /// The ranges that are to be sent once more, in order of urgency.
    pub(crate) fn reinjections(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.reinject.iter().chain(self.rescue.iter())
    }

    /// `range` was sent once more.
    pub(crate) fn reinjected(&mut self, range: Range<u64>) {
        self.reinject.remove(range.clone());
        self.rescue.remove(range);
    }

    /// Throws away everything that was not acknowledged: nobody will ask for it.
    pub(crate) fn discard(&mut self) {
        self.chunks.clear();
        self.memory = 0;
        self.start = self.una;
        self.end = self.una;
        self.nxt = self.una;
        self.ahead = RangeSet::new();
        self.reinject = RangeSet::new();
        self.rescue = RangeSet::new();
        self.hint = (0, self.start);
    }
}

fn cost(chunk: &Payload) -> u64 {
    chunk.storage_len() as u64 + CHUNK_COST
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{vec, vec::Vec};

    fn assigned(bytes: usize) -> SendQueue {
        let mut queue = SendQueue::new(1 << 20);
        queue.push(Payload::from(vec![0; bytes]), &crate::mptcp::copies());
        queue.assign(0..bytes as u64);
        queue
    }

    fn reinjections(queue: &SendQueue) -> Vec<(u64, u64)> {
        queue.reinjections().map(|range| (range.start, range.end)).collect()
    }

    #[test]
    fn a_rescue_ends_for_what_nobody_else_needs() {
        // Given what two suspect subflows hold, by turns, of which some went once more already,
        let mut queue = assigned(100);
        let (first, second) = ([0..10, 20..30, 40..50], [10..20, 30..40]);
        first.iter().chain(&second).for_each(|range| queue.rescue(range.clone()));
        queue.reinjected(0..15);
        assert_eq!(reinjections(&queue), [(15, 50)]);
        // when the first one answers, what the second one holds still waits, and only what has not gone yet.
        queue.end_rescue(second.into_iter());
        assert_eq!(reinjections(&queue), [(15, 20), (30, 40)]);
        queue.ack(32);
        assert_eq!(reinjections(&queue), [(32, 40)]);
        queue.end_rescue([].into_iter());
        assert_eq!(reinjections(&queue), []);
    }

    #[test]
    fn a_timeout_makes_a_rescue_final() {
        let mut queue = assigned(100);
        queue.reinject(50..60);
        queue.rescue(0..10);
        queue.confirm_rescue();
        queue.end_rescue([].into_iter());
        assert_eq!(reinjections(&queue), [(0, 10), (50, 60)]);
    }
}
