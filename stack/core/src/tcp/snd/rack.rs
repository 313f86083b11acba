//! RACK: what is lost follows from when it was sent and what was delivered since (RFC 8985).

use alloc::collections::VecDeque;
use core::ops::Range;
use core::time::Duration;

use anabranch_frame::Instant;

use super::Rules;
use super::record::Record;
use super::scoreboard::Scoreboard;

/// The reordering window grows no further (Linux).
const REO_WND_MULT_MAX: u32 = 255;
/// Recoveries without a DSACK after which the reordering window goes back to its first size.
const PERSIST_RECOVERIES: u32 = 16;

/// RACK.segment: of the delivered segments the one sent last.
#[derive(Clone, Copy, Debug)]
struct Newest {
    tx: u64,
    end: u64,
}

/// One transmission. Where its records are concerned it may be out of date: pieces may be delivered, lost or sent again.
#[derive(Clone, Debug)]
struct Sent {
    tx: u64,
    range: Range<u64>,
}

/// What [`Rack::detect`] found.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Detected {
    /// Positions newly marked lost.
    pub(super) lost: u64,
    /// Segments among them that had been sent again before.
    pub(super) lost_again: u64,
    /// When to look again: the next segment is overdue then.
    pub(super) again: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Rack {
    newest: Option<Newest>,
    /// RACK.rtt: of the segment that was delivered last.
    rtt: Duration,
    /// Highest position delivered.
    fack: u64,
    /// How often segments came later than ones after them, and by how many segments at most (Linux: `tcpi_reord_seen`,
    /// `tcpi_reordering`).
    reord_seen: u32,
    reordering: u16,
    /// A DSACK does not widen the window again before this position is acknowledged.
    dsack_round: Option<u64>,
    reo_wnd_mult: u32,
    reo_wnd_persist: u32,
    /// Transmissions in order of time. What RACK is done with goes from its front, so a look costs what changed.
    log: VecDeque<Sent>,
}

/// What RACK knows of the path, which holds when nothing is outstanding, too.
#[derive(Debug)]
pub(super) struct RestingRack {
    fack: u64,
    pub(super) reord_seen: u32,
    pub(super) reordering: u16,
    reo_wnd_mult: u8,
    reo_wnd_persist: u8,
}

impl RestingRack {
    pub(super) fn resume(&self) -> Rack {
        let Self { fack, reord_seen, reordering, reo_wnd_mult, reo_wnd_persist } = *self;
        Rack {
            fack,
            reord_seen,
            reo_wnd_mult: reo_wnd_mult.into(),
            reo_wnd_persist: reo_wnd_persist.into(),
            ..Rack::new(reordering)
        }
    }
}

impl Rack {
    pub(super) fn rest(&self) -> RestingRack {
        let Self { fack, reord_seen, reordering, reo_wnd_mult, reo_wnd_persist, .. } = *self;
        let (reo_wnd_mult, reo_wnd_persist) = (reo_wnd_mult as u8, reo_wnd_persist as u8);
        RestingRack { fack, reord_seen, reordering, reo_wnd_mult, reo_wnd_persist }
    }

    /// `reordering` segments are taken for possible from the beginning.
    pub(super) fn new(reordering: u16) -> Self {
        Self {
            newest: None,
            rtt: Duration::ZERO,
            fack: 0,
            reord_seen: 0,
            reordering,
            dsack_round: None,
            reo_wnd_mult: 1,
            reo_wnd_persist: 0,
            log: VecDeque::new(),
        }
    }

    /// Bytes of memory that it holds beside itself.
    pub(super) fn memory(&self) -> usize {
        self.log.len() * size_of::<Sent>()
    }

    pub(super) fn on_sent(&mut self, tx: u64, range: Range<u64>) {
        self.log.push_back(Sent { tx, range });
    }

    /// `part` of `record` is delivered (§6.2 steps 1 to 3). Its segment left before `echoed`, by the timestamp that came
    /// back. Returns whether it came later than something after it.
    pub(super) fn on_delivered(
        &mut self,
        now: Instant,
        record: &Record,
        part: &Range<u64>,
        min_rtt: Duration,
        echoed: Option<Instant>,
    ) -> bool {
        let overtaken = part.end < self.fack && !record.retransmitted;
        self.fack = self.fack.max(part.end);
        let sent_at = record.stamp.sent_at;
        let rtt = now - sent_at;
        // Too soon after a retransmission it is the original that arrived.
        if record.retransmitted && (rtt < min_rtt || echoed.is_some_and(|echoed| echoed <= sent_at)) {
            return overtaken;
        }
        self.rtt = rtt;
        let tx = record.stamp.tx;
        if self.newest.is_none_or(|newest| (tx, part.end) > (newest.tx, newest.end)) {
            self.newest = Some(Newest { tx, end: part.end });
        }
        overtaken
    }

    /// RACK.rtt: zero before anything was delivered.
    pub(super) fn rtt(&self) -> Duration {
        self.rtt
    }

    /// Highest position delivered.
    pub(super) fn fack(&self) -> u64 {
        self.fack
    }

    /// Segments change places on this path: what begins at `from` came later than what lies before `to`.
    pub(super) fn note_reordering(&mut self, from: u64, to: u64, mss: u64, most: u16) {
        self.reord_seen = self.reord_seen.saturating_add(1);
        let degree = u16::try_from(to.saturating_sub(from).div_ceil(mss)).unwrap_or(u16::MAX);
        self.reordering = self.reordering.max(degree.min(most));
    }

    pub(super) fn reord_seen(&self) -> u32 {
        self.reord_seen
    }

    pub(super) fn reordering(&self) -> u16 {
        self.reordering
    }

    /// A DSACK widens the reordering window, once a round trip (§6.2 step 4).
    pub(super) fn adapt(&mut self, dsack: bool, una: u64, nxt: u64) {
        if self.dsack_round.is_some_and(|round| una >= round) {
            self.dsack_round = None;
        }
        if dsack && self.dsack_round.is_none() && self.reord_seen > 0 {
            self.dsack_round = Some(nxt);
            self.reo_wnd_mult = (self.reo_wnd_mult + 1).min(REO_WND_MULT_MAX);
            self.reo_wnd_persist = PERSIST_RECOVERIES;
        }
    }

    /// A recovery ended, and was taken back or not.
    pub(super) fn on_recovered(&mut self) {
        self.reo_wnd_persist = self.reo_wnd_persist.saturating_sub(1);
        if self.reo_wnd_persist == 0 {
            self.reo_wnd_mult = 1;
        }
    }

    /// How much later than expected a segment may be (§6.2 step 4).
    pub(super) fn reo_wnd(
        &self,
        rules: &Rules,
        recovering: bool,
        sacked_segments: u64,
        min_rtt: Duration,
        srtt: Option<Duration>,
    ) -> Duration {
        let many = sacked_segments >= u64::from(self.reordering) && !rules.no_dupthresh;
        if self.reord_seen == 0 && (recovering || many) {
            return Duration::ZERO;
        }
        (min_rtt / 4).saturating_mul(self.reo_wnd_mult).min(srtt.unwrap_or(Duration::MAX))
    }

    /// Marks lost what was sent before [`Newest`] and is overdue (§6.2 step 5), and shows it.
    pub(super) fn detect(
        &mut self,
        now: Instant,
        board: &mut Scoreboard,
        reo_wnd: Duration,
        mut lost: impl FnMut(&Record),
    ) -> Detected {
        let mut found = Detected::default();
        while self.log.front().is_some_and(|sent| sent.range.end <= board.una()) {
            self.log.pop_front();
        }
        let Some(newest) = self.newest else { return found };
        let allowance = self.rtt + reo_wnd;
        while let Some(sent) = self.log.front_mut() {
            if sent.tx > newest.tx {
                break;
            }
            let mut index = board.find(sent.range.start);
            let pending = loop {
                let Some(record) = board.records().get(index).filter(|record| record.start < sent.range.end) else {
                    break false;
                };
                if record.stamp.tx == sent.tx && record.in_flight() {
                    // What is pending is found again without walking over what is settled before it.
                    sent.range.start = record.start;
                    if (sent.tx, record.end) > (newest.tx, newest.end) {
                        break true;
                    }
                    let overdue = record.stamp.sent_at + allowance;
                    if overdue > now {
                        found.again = Some(overdue);
                        break true;
                    }
                    if record.lost && record.retrans {
                        found.lost_again += record.segments();
                    }
                    found.lost += board.mark_lost(index);
                    lost(&board.records()[index]);
                }
                index += 1;
            };
            if pending {
                break;
            }
            self.log.pop_front();
        }
        found
    }

    /// Makes the log anew: losses were taken back, or nearly everything is lost.
    pub(super) fn relog(&mut self, board: &Scoreboard) {
        self.log.clear();
        let live = board.records().iter().filter(|record| record.in_flight());
        self.log.extend(live.map(|record| Sent { tx: record.stamp.tx, range: record.range() }));
        self.log.make_contiguous().sort_unstable_by_key(|sent| (sent.tx, sent.range.start));
    }

    /// The log has no more entries than this; for tests of its bounds.
    #[cfg(test)]
    pub(super) fn log_len(&self) -> usize {
        self.log.len()
    }
}
