//! The receiving half of a subflow: what came, what is acknowledged, and when.

mod ack;
#[cfg(test)]
mod tests;

use core::ops::Range;
use core::time::Duration;

use anabranch_frame::Instant;
use arrayvec::ArrayVec;

use crate::info::SubflowInfo;
use crate::ranges::RangeSet;
use crate::wire::{SeqNum, Timestamps};

use ack::{AckPolicy, RestingAckPolicy, Standing};

pub(crate) use ack::{AckDue, Arrival};

/// A timestamp older than this is no longer compared against (RFC 7323 §5.5).
const PAWS_IDLE: Duration = Duration::from_secs(24 * 24 * 3600);
/// Out-of-order ranges beyond which new islands are refused: memory and SACK work stay bounded.
const ISLANDS_MAX: usize = 4096;

/// Bytes of memory for each of them, half-filled nodes of the map included.
const RANGE_COST: usize = 32;

/// Positions are 64-bit: 0 is the peer's SYN, 1 its first byte.
#[derive(Debug)]
pub(crate) struct Rcv {
    irs: SeqNum,
    nxt: u64,
    /// Received beyond `nxt`.
    beyond: RangeSet,
    /// Starts of the ranges that changed last, newest first (RFC 2018 §4).
    recent: ArrayVec<u64, 4>,
    dsack: Option<Range<u64>>,
    /// Largest right edge ever advertised here.
    edge: u64,
    fin: Option<u64>,
    ts_recent: Option<(u32, Instant)>,
    last_ack_sent: u64,
    acks: AckPolicy,
}

/// A [`Rcv`] in which everything came in order and is acknowledged.
#[derive(Debug)]
pub(crate) struct RestingRcv {
    irs: SeqNum,
    nxt: u64,
    edge: u64,
    ts_recent: Option<(u32, Instant)>,
    acks: RestingAckPolicy,
}

impl RestingRcv {
    /// As [`Rcv::is_interactive`].
    pub(crate) fn is_interactive(&self) -> bool {
        self.acks.interactive
    }

    /// As [`Rcv::inform`].
    pub(crate) fn inform(&self, info: &mut SubflowInfo) {
        info.rcv_mss = self.acks.segment;
        info.last_data_recv = self.acks.last_data;
        info.ato = self.acks.delay();
    }

    pub(crate) fn resume(self) -> Rcv {
        let Self { irs, nxt, edge, ts_recent, acks } = self;
        let last_ack_sent = nxt;
        Rcv { nxt, edge, ts_recent, acks: acks.resume(), last_ack_sent, ..Rcv::new(irs, None, Instant::ZERO) }
    }
}

impl Rcv {
    /// Whether everything came in order and is acknowledged, and more may come.
    pub(crate) fn may_rest(&self) -> bool {
        let acknowledged = self.acks.due() == AckDue::Idle && self.last_ack_sent == self.nxt;
        acknowledged && self.beyond.is_empty() && self.dsack.is_none() && self.fin.is_none()
    }

    /// Shrinks to what has to be remembered. Only if it [may](Self::may_rest).
    pub(crate) fn rest(self) -> RestingRcv {
        let Self { irs, nxt, edge, ts_recent, acks, .. } = self;
        RestingRcv { irs, nxt, edge, ts_recent, acks: acks.rest() }
    }

    pub(crate) fn new(irs: SeqNum, ts_recent: Option<u32>, now: Instant) -> Self {
        Self {
            irs,
            nxt: 1,
            beyond: RangeSet::new(),
            recent: ArrayVec::new(),
            dsack: None,
            edge: 1,
            fin: None,
            ts_recent: ts_recent.map(|value| (value, now)),
            last_ack_sent: 1,
            acks: AckPolicy::new(now),
        }
    }

    /// Bytes of memory that it holds beside itself.
    pub(crate) fn memory(&self) -> usize {
        self.beyond.len() * RANGE_COST
    }

    /// What it adds to `tcp_info`.
    pub(crate) fn inform(&self, info: &mut SubflowInfo) {
        info.rcv_mss = self.acks.segment() as u16;
        info.last_data_recv = self.acks.last_data();
        info.ato = self.acks.delay();
    }

    /// Next position expected.
    pub(crate) fn nxt(&self) -> u64 {
        self.nxt
    }

    /// Sequence number of position `pos`.
    pub(crate) fn seq(&self, pos: u64) -> SeqNum {
        self.irs.at(pos)
    }

    /// Position of a sequence number near what is expected.
    pub(crate) fn pos(&self, seq: SeqNum) -> Option<u64> {
        self.irs.unwrap(seq, self.nxt)
    }

    /// Whether the peer's FIN was received in order.
    pub(crate) fn fin_received(&self) -> bool {
        self.fin.is_some_and(|fin| self.nxt > fin)
    }

    /// The end of what came behind a hole, if there is one.
    pub(crate) fn sacked_to(&self) -> Option<u64> {
        self.beyond.last().map(|last| last.end)
    }

    /// Whether the peer's FIN came, and not all that stands before it.
    pub(crate) fn fin_waits(&self) -> bool {
        self.fin.is_some_and(|fin| self.nxt < fin)
    }

    /// Estimate of the peer's segment size.
    pub(crate) fn segment(&self) -> u64 {
        self.acks.segment()
    }

    /// The four cases of RFC 9293 §3.10.7.4, against the largest edge ever advertised: the edge of a
    /// subflow may move left, see RFC 8684 §3.3.5. A zero-length segment one before `nxt` is a
    /// keepalive or window probe and not acceptable, so that it is answered.
    pub(crate) fn acceptable(&self, pos: u64, len: u64) -> bool {
        let edge = self.edge.max(self.nxt);
        if len == 0 {
            // As in Linux: an ACK that was overtaken still tells of the window and of SACK blocks.
            return pos >= self.last_ack_sent.min(self.nxt) && pos <= edge;
        }
        if edge == self.nxt {
            // Zero window: only what is not beyond `nxt` may be looked at for its ACK and FIN.
            return pos <= self.nxt && pos + len > self.nxt;
        }
        pos < edge && pos + len > self.nxt
    }

    /// PAWS (RFC 7323 §5): whether the segment's timestamp is older than the last good one.
    pub(crate) fn paws_reject(&self, ts: Timestamps, now: Instant) -> bool {
        self.ts_recent.is_some_and(|(recent, at)| {
            (ts.value.wrapping_sub(recent) as i32) < 0 && now.saturating_since(at) < PAWS_IDLE
        })
    }

    /// Remembers the timestamp to echo (RFC 7323 §4.3).
    pub(crate) fn note_timestamp(&mut self, pos: u64, ts: Timestamps, now: Instant) {
        if pos <= self.last_ack_sent
            && self.ts_recent.is_none_or(|(recent, _)| (ts.value.wrapping_sub(recent) as i32) >= 0)
        {
            self.ts_recent = Some((ts.value, now));
        }
    }

    /// The timestamp to echo.
    pub(crate) fn ts_echo(&self) -> u32 {
        self.ts_recent.map_or(0, |(recent, _)| recent)
    }

    /// The parts of `range` that are new, after noting a duplicate for DSACK.
    pub(crate) fn missing(&mut self, range: &Range<u64>) -> ArrayVec<Range<u64>, 4> {
        let mut parts = ArrayVec::new();
        let start = range.start.max(self.nxt);
        if start >= range.end {
            self.duplicate(range.clone());
            return parts;
        }
        if range.start < self.nxt {
            self.duplicate(range.start..self.nxt);
        }
        if self.beyond.is_empty() {
            parts.push(start..range.end);
            return parts;
        }
        if range.start >= self.nxt
            && let Some(first) = self.first_beyond(start..range.end)
        {
            self.duplicate(first);
        }
        for gap in self.beyond.gaps(start..range.end) {
            // What does not fit comes again; four gaps under one segment need an unusual peer.
            if parts.try_push(gap).is_err() {
                break;
            }
        }
        parts
    }

    /// The first part of `range` that is stored already.
    fn first_beyond(&self, range: Range<u64>) -> Option<Range<u64>> {
        let gap = self.beyond.gaps(range.clone()).next();
        let start = match gap {
            Some(gap) if gap.start == range.start => gap.end,
            _ => range.start,
        };
        let island = self.beyond.range_at(start).filter(|_| start < range.end)?;
        Some(start..island.end.min(range.end))
    }

    /// Something came that had come already (RFC 2883): say so, and at once.
    fn duplicate(&mut self, range: Range<u64>) {
        if !range.is_empty() {
            self.dsack = Some(range);
            self.acks.ack_now();
        }
    }

    /// Whether out-of-order data may be stored at `range`, where nothing is stored: however many islands there are, it may
    /// make one of them larger, or join two.
    pub(crate) fn admits(&self, range: &Range<u64>) -> bool {
        let touches = |pos: u64| self.beyond.range_at(pos).is_some();
        let enough = range.start <= self.nxt || self.beyond.len() < ISLANDS_MAX;
        enough || touches(range.start - 1) || touches(range.end)
    }

    /// `range` is stored now. Returns by how much the in-order edge moved.
    pub(crate) fn record(&mut self, range: Range<u64>) -> u64 {
        let before = self.nxt;
        if range.start <= self.nxt {
            self.nxt = self.nxt.max(range.end);
            if let Some(joined) = self.beyond.range_at(self.nxt) {
                self.nxt = joined.end;
            }
            self.beyond.remove_before(self.nxt);
        } else {
            self.beyond.insert(range.clone());
            let start = self.beyond.range_at(range.start).map_or(range.start, |joined| joined.start);
            self.recent.retain(|&mut other| other != start && !range.contains(&other));
            if self.recent.is_full() {
                self.recent.pop();
            }
            self.recent.insert(0, start);
        }
        self.nxt - before
    }

    /// The peer's FIN stands at `pos`. Returns false if it contradicts an earlier one.
    pub(crate) fn note_fin(&mut self, pos: u64) -> bool {
        if self.fin.is_some_and(|fin| fin != pos) || pos < self.nxt.saturating_sub(1) {
            return self.fin == Some(pos);
        }
        self.fin = Some(pos);
        true
    }

    /// Takes the FIN when everything before it is there.
    pub(crate) fn take_fin(&mut self) -> bool {
        if self.fin == Some(self.nxt) {
            self.nxt += 1;
            // As in Linux: behind the end SACK blocks repair nothing.
            self.dsack = None;
            self.acks.ack_now();
            return true;
        }
        false
    }

    /// Data came and was recorded; there were holes before or not. Decides when to acknowledge it. Returns whether a
    /// SACK is put together with others.
    pub(crate) fn on_data(&mut self, now: Instant, arrival: &Arrival, had_holes: bool) -> bool {
        let standing = Standing {
            nxt: self.nxt,
            unacked: self.nxt - self.last_ack_sent.min(self.nxt),
            holes: self.has_holes(),
            had_holes,
        };
        let window = self.edge.saturating_sub(self.nxt);
        self.acks.on_data(now, arrival, standing, window)
    }

    /// Whether something came behind a hole.
    pub(crate) fn has_holes(&self) -> bool {
        !self.beyond.is_empty()
    }

    /// We sent data of our own.
    pub(crate) fn on_data_sent(&mut self, now: Instant) {
        self.acks.on_data_sent(now);
    }

    /// The application has read everything.
    pub(crate) fn on_read_all(&mut self) {
        self.acks.on_read_all();
    }

    /// Time passed. Returns whether a delayed acknowledgement is due now.
    pub(crate) fn on_timer(&mut self, now: Instant, rto: Duration) -> bool {
        self.acks.on_timer(now, rto)
    }

    /// Whether acknowledgements wait for data to ride on, as long as they may (Linux: pingpong mode).
    pub(crate) fn is_interactive(&self) -> bool {
        self.acks.is_interactive()
    }

    /// The application wants acknowledgements at once, or not (`TCP_QUICKACK`).
    pub(crate) fn set_quickack(&mut self, quickack: bool) {
        self.acks.set_quickack(quickack, self.edge.saturating_sub(self.nxt));
    }

    /// Whether something in order was not acknowledged yet.
    pub(crate) fn owes_ack(&self) -> bool {
        self.last_ack_sent < self.nxt
    }

    /// An acknowledgement is due now.
    pub(crate) fn ack_now(&mut self) {
        self.acks.ack_now();
    }

    /// An acknowledgement is due, and data will go at once that can carry it.
    pub(crate) fn ack_with_data(&mut self, now: Instant) {
        self.acks.wait_for_data(now);
    }

    /// The sender needs to hear soon: the next `count` segments with data are acknowledged at once.
    pub(crate) fn quick_acks(&mut self, count: u8) {
        self.acks.hurry(count);
    }

    /// When the next acknowledgement is due.
    pub(crate) fn due(&self) -> AckDue {
        self.acks.due()
    }

    /// A segment with this acknowledgement and `window` bytes left.
    pub(crate) fn on_ack_sent(&mut self, window: u64) {
        self.last_ack_sent = self.nxt;
        self.edge = self.edge.max(self.nxt + window);
        self.acks.on_ack_sent();
    }

    /// SACK blocks, newest first; a DSACK stands before them and is told once.
    pub(crate) fn sack_blocks(&mut self) -> ArrayVec<Range<u64>, 4> {
        let mut blocks = ArrayVec::new();
        if let Some(dsack) = self.dsack.take() {
            blocks.push(dsack);
        }
        for &start in &self.recent {
            if let Some(range) = self.beyond.range_at(start)
                && !blocks.contains(&range)
                && blocks.try_push(range).is_err()
            {
                break;
            }
        }
        self.recent.retain(|start| *start >= self.nxt);
        blocks
    }

    /// Whether SACK or DSACK blocks wait to be told.
    pub(crate) fn has_sack(&self) -> bool {
        self.dsack.is_some() || !self.beyond.is_empty()
    }
}
