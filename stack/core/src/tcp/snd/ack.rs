//! What an acknowledgement says, in the order in which it has to be heard.

use core::ops::Range;
use core::time::Duration;

use anabranch_frame::Instant;
use arrayvec::ArrayVec;

use super::record::Record;
use super::recovery::Phase;
use super::rtt::RTO_MAX;
use super::scoreboard::MAX_SACK_BLOCKS;
use super::{AckIn, AckOut, Snd};
use crate::cc::{AckSample, Group};

/// Duplicate ACKs that make a loss without SACK (RFC 5681 §3.2).
const DUP_ACKS: u32 = 3;
/// Timestamps tick in milliseconds: so much later than its echo says may a segment have left.
const TIMESTAMP_SLACK: Duration = Duration::from_millis(2);

/// What one acknowledgement brought.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Positions by which una moved.
    pub(super) acked: u64,
    /// Positions delivered for the first time.
    pub(super) delivered: u64,
    /// When the segment that caused it left at the latest, by the echoed timestamp.
    pub(super) echoed: Option<Instant>,
    /// Something that was presumed lost by the timeout, and not sent again, was delivered.
    pub(super) late_original: bool,
    /// The duplicate that the peer reports.
    pub(super) dsack: Option<Range<u64>>,
    /// A duplicate ACK that says nothing else.
    duplicate: bool,
    /// Something acknowledged had been sent twice: the round-trip time of the rest is not to be trusted (Karn).
    ambiguous: bool,
    acked_rtt: Times,
    sacked_rtt: Times,
}

/// Round-trip times of segments that were sent only once.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    first: Option<Duration>,
    newest: Option<(u64, Duration)>,
}

impl Times {
    fn note(&mut self, tx: u64, rtt: Duration) {
        self.first.get_or_insert(rtt);
        if self.newest.is_none_or(|(newest, _)| tx > newest) {
            self.newest = Some((tx, rtt));
        }
    }
}

impl News {
    fn note(&mut self, now: Instant, record: &Record, len: u64, cumulative: bool, rto_tx: u64) {
        self.delivered += len;
        if record.retransmitted {
            self.ambiguous |= cumulative;
            return;
        }
        if record.lost {
            // It may have arrived long ago, and all that told of it was lost: no measure of a round trip.
            self.late_original |= record.stamp.tx <= rto_tx;
            return;
        }
        let times = if cumulative { &mut self.acked_rtt } else { &mut self.sacked_rtt };
        times.note(record.stamp.tx, now - record.stamp.sent_at);
    }

    /// Of the newest segment.
    fn newest_rtt(&self) -> Option<Duration> {
        let acked = self.acked_rtt.newest.filter(|_| !self.ambiguous);
        acked.max(self.sacked_rtt.newest).map(|(_, rtt)| rtt)
    }

    /// Of the oldest segment: the timeout must allow for delayed ACKs.
    fn oldest_rtt(&self) -> Option<Duration> {
        self.acked_rtt.first.filter(|_| !self.ambiguous).or(self.sacked_rtt.first)
    }
}

/// What was so before the acknowledgement.
struct Prior {
    in_flight: u64,
    cwnd_limited: bool,
    phase: Phase,
}

impl Snd {
    /// An acknowledgement came. `group` is for congestion control.
    pub(crate) fn on_ack(&mut self, now: Instant, ack: &AckIn<'_>, group: Group<'_>) -> AckOut {
        let mut out = AckOut::default();
        self.check_app_limited();
        let prior = Prior {
            in_flight: self.in_flight(),
            cwnd_limited: self.usage.cwnd_limited(self.cc.as_ref()),
            phase: self.recovery.phase,
        };
        let echo = ack.ts_rtt.filter(|&rtt| self.timestamps && rtt <= RTO_MAX);
        let mut news = News { echoed: echo.map(|rtt| now - rtt + TIMESTAMP_SLACK), ..News::default() };
        let window = self.peer.update(ack);
        out.window_opened = window.opened;
        let to = ack.ack.clamp(self.una(), self.nxt());

        self.take_cumulative(now, to, &mut news);
        let blocks = self.sort_blocks(ack, &mut news, &mut out);
        self.take_sacks(now, &blocks, &mut news);
        news.duplicate = ack.pure
            && !ack.signal
            && ack.ack == self.una()
            && news.acked == 0
            && news.delivered == 0
            && !window.changed;
        if !self.sack {
            self.count_duplicates(now, &mut news);
        }
        self.take_rtt(now, &news, echo, &mut out);
        self.judge_probe(now, to, prior.in_flight, &news, group);
        self.recover(now, ack.ece, &news, &prior, group, &mut out);
        self.stats.delivered(news.delivered, self.mss);
        self.stats.delivered_ce += if ack.ece { news.delivered } else { 0 };
        self.tell_congestion_control(now, ack.ece, &news, &prior, out.lost, group);
        self.rearm(now, news.acked > 0, news.delivered > 0);

        out.acked = news.acked;
        out.fin_acked = news.acked > 0 && self.fin_sent && self.board.is_empty();
        out.acked_bytes = news.acked - u64::from(out.fin_acked);
        self.stats.acked(out.acked_bytes);
        out.delivered = news.delivered;
        out.dsack = news.dsack.is_some();
        out
    }

    fn take_cumulative(&mut self, now: Instant, to: u64, news: &mut News) {
        news.acked = to - self.board.una();
        if news.acked == 0 {
            return;
        }
        self.rtt.clear_backoff();
        let Self { board, rack, rate, rtt, recovery, .. } = self;
        board.acknowledge(to, |record, part| {
            rack.on_delivered(now, record, &part, rtt.min(), news.echoed);
            rate.deliver(now, &record.stamp, part.end - part.start);
            news.note(now, record, part.end - part.start, true, recovery.rto_tx);
        });
    }

    /// The blocks that make sense, ascending and within una..nxt; a DSACK goes to `news` (RFC 2883 §4).
    fn sort_blocks(&self, ack: &AckIn<'_>, news: &mut News, out: &mut AckOut) -> ArrayVec<Range<u64>, MAX_SACK_BLOCKS> {
        let mut blocks = ArrayVec::new();
        let (una, nxt) = (self.una(), self.nxt());
        for (index, block) in ack.sack.iter().enumerate() {
            let inside = |other: &Range<u64>| other.start <= block.start && block.end <= other.end;
            let sane = self.sack && block.start < block.end && block.end <= nxt && block.start > 0;
            if sane && index == 0 && (block.end <= ack.ack || ack.sack.get(1).is_some_and(inside)) {
                news.dsack = Some(block.clone());
            } else if sane && block.end <= una && block.start >= ack.ack {
                // An old ACK, overtaken by a later one: nothing wrong with it, and nothing new.
            } else if !sane || block.start < una.min(ack.ack) || block.end <= una || blocks.is_full() {
                out.sack_discarded += 1;
            } else {
                blocks.push(block.start.max(una)..block.end);
            }
        }
        blocks.sort_unstable_by_key(|block| block.start);
        blocks
    }

    fn take_sacks(&mut self, now: Instant, blocks: &[Range<u64>], news: &mut News) {
        let Self { board, rack, rate, rtt, recovery, .. } = self;
        for block in blocks {
            board.sack(block, |record, part| {
                // Beyond a hole the peer echoes what came before the hole.
                rack.on_delivered(now, record, &part, rtt.min(), None);
                rate.deliver(now, &record.stamp, part.end - part.start);
                news.note(now, record, part.end - part.start, false, recovery.rto_tx);
            });
        }
        if !blocks.is_empty() {
            board.remember(blocks);
        }
    }

    /// Without SACK a duplicate ACK stands for a segment that arrived.
    fn count_duplicates(&mut self, now: Instant, news: &mut News) {
        if news.acked > 0 {
            self.recovery.dup_acks = 0;
            let announced = self.board.reno_sacked().min(news.acked - news.acked.min(self.mss));
            self.board.remove_reno_sacks(news.acked, self.mss);
            news.delivered -= announced;
            self.rate.adjust(now, -(announced as i64));
        } else if news.duplicate && !self.board.is_empty() {
            self.recovery.dup_acks = self.recovery.dup_acks.saturating_add(1);
            if self.recovery.phase != Phase::Loss {
                let arrived = self.board.add_reno_sack(self.mss);
                news.delivered += arrived;
                self.rate.adjust(now, arrived as i64);
            }
        }
    }

    fn take_rtt(&mut self, now: Instant, news: &News, echo: Option<Duration>, out: &mut AckOut) {
        out.rtt = news.oldest_rtt().or(echo.filter(|_| news.acked > 0));
        if let Some(rtt) = out.rtt {
            self.rtt.sample(now, rtt, self.board.una(), self.board.nxt());
        }
        if let Some(rtt) = news.newest_rtt() {
            self.rtt.note_extremes(now, rtt);
        }
    }

    /// Whether a tail loss probe repaired a loss that nobody would have heard of otherwise (RFC 8985 §7.4.2).
    fn judge_probe(&mut self, now: Instant, to: u64, in_flight: u64, news: &News, group: Group<'_>) {
        if news.acked > 0 || news.delivered > 0 {
            self.tlp.due = false;
        }
        let duplicate = self.tlp.retrans && news.dsack.as_ref().is_some_and(|dsack| Some(dsack.end) == self.tlp.end);
        // That the probe was needless says nothing about reordering.
        self.rack.adapt(news.dsack.is_some() && !duplicate, to, self.board.nxt());
        let Some(end) = self.tlp.end.filter(|&end| to >= end) else { return };
        if !self.tlp.retrans || duplicate || news.duplicate {
            self.tlp.reset();
        } else if to > end {
            self.tlp.reset();
            self.reduce(now, in_flight, group);
        }
    }

    fn recover(&mut self, now: Instant, ece: bool, news: &News, prior: &Prior, group: Group<'_>, out: &mut AckOut) {
        if let (Some(undo), Some(dsack)) = (&mut self.recovery.undo, &news.dsack) {
            undo.on_dsack(dsack.start, dsack.end);
        }
        out.spurious = self.undo_if_spurious(now, news);
        out.left_recovery = self.leave_if_done(now) || (out.spurious && prior.phase != Phase::Open);
        out.lost = if self.sack { self.detect_losses(now) } else { self.newreno_losses(now, news) };
        self.stats.lost(out.lost, self.mss);
        if matches!(self.recovery.phase, Phase::Open | Phase::Cwr) && self.board.tally().lost > 0 {
            self.enter_recovery(now, prior.in_flight, news.delivered, group);
            out.entered_recovery = true;
        }
        if ece {
            self.on_echo(now, prior.in_flight, news.delivered, group);
        }
        let reducing = matches!(self.recovery.phase, Phase::Recovery | Phase::Cwr);
        if reducing && (news.delivered > 0 || out.entered_recovery) {
            let safe = news.acked > 0 && out.lost == 0;
            self.recovery.prr.update(news.delivered, self.board.in_flight(), self.cc.cwnd(), self.mss, safe);
        }
    }

    /// Fast retransmit and partial ACKs without SACK (RFC 6582 §3.2).
    fn newreno_losses(&mut self, now: Instant, news: &News) -> u64 {
        match self.recovery.phase {
            Phase::Open | Phase::Cwr if self.recovery.dup_acks >= DUP_ACKS && self.una() > self.recovery.point => {}
            Phase::Recovery if news.acked > 0 => self.recovery.force = true,
            _ => return 0,
        }
        let lost = self.board.mark_head_lost();
        if lost > 0 {
            self.cc.on_lost(&self.rate.lose(now, &self.board.records()[0].stamp, lost));
        }
        lost
    }

    fn tell_congestion_control(
        &mut self,
        now: Instant,
        ece: bool,
        news: &News,
        prior: &Prior,
        lost: u64,
        group: Group<'_>,
    ) {
        let rate = self.rate.finish(self.rtt.min());
        if news.acked == 0 && news.delivered == 0 {
            return;
        }
        let sample = AckSample {
            now,
            delivered: news.delivered,
            acked: news.acked,
            rtt: news.newest_rtt(),
            srtt: self.srtt(),
            min_rtt: self.min_rtt(),
            prior_in_flight: prior.in_flight,
            in_flight: self.in_flight(),
            lost,
            ce_bytes: if ece { news.delivered } else { 0 },
            delivery: rate.delivery,
            cwnd_limited: prior.cwnd_limited,
            round_start: rate.round_start,
            in_recovery: [prior.phase, self.recovery.phase]
                .iter()
                .any(|phase| matches!(phase, Phase::Recovery | Phase::Cwr)),
        };
        self.cc.on_ack(&sample, group);
        self.repace();
    }
}
