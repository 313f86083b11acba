//! What an acknowledgement says, in the order in which it has to be heard.

use core::ops::Range;
use core::time::Duration;

use anabranch_frame::Instant;
use arrayvec::ArrayVec;

use super::record::Record;
use super::recovery::Phase;
use super::scoreboard::MAX_SACK_BLOCKS;
use super::{AckIn, AckOut, Snd};
use crate::Counters;
use crate::cc::{AckSample, Group};

/// No echo is believed that is older.
const ECHO_MAX: Duration = Duration::from_secs(120);

/// What one acknowledgement brought.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Positions by which una moved.
    pub(super) acked: u64,
    /// Positions delivered for the first time.
    pub(super) delivered: u64,
    /// The segment that caused it left before, by the echoed timestamp: the next tick, milliseconds apart.
    pub(super) echoed: Option<Instant>,
    /// It echoes congestion.
    ece: bool,
    /// Something that was presumed lost by the timeout, and not sent again, was delivered.
    pub(super) late_original: bool,
    /// Something was SACKed for the first time.
    pub(super) sacked: bool,
    /// The duplicate that the peer reports.
    pub(super) dsack: Option<Range<u64>>,
    /// A duplicate ACK that says nothing else.
    pub(super) duplicate: bool,
    /// Something acknowledged had been sent twice: the round-trip time of the rest is not to be trusted (Karn).
    pub(super) ambiguous: bool,
    /// Where the first of what was delivered later than something after it begins.
    overtaken: Option<u64>,
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
    pub(crate) fn on_ack(
        &mut self,
        now: Instant,
        ack: &AckIn<'_>,
        group: Group<'_>,
        counters: &mut Counters,
    ) -> AckOut {
        let mut out = AckOut::default();
        self.check_app_limited();
        let prior = Prior {
            in_flight: self.in_flight(),
            cwnd_limited: self.usage.cwnd_limited(self.cc.as_ref()),
            phase: self.recovery.phase,
        };
        let echo = ack.ts_rtt.filter(|&rtt| self.timestamps && rtt <= ECHO_MAX);
        let echoed = echo.map(|rtt| Instant::from_millis((now - rtt).as_millis() + 1));
        let mut news = News { echoed, ece: ack.ece, ..News::default() };
        let window = self.peer.update(ack);
        out.window_opened = window.opened;
        let to = ack.ack.clamp(self.una(), self.nxt());

        self.take_cumulative(now, to, &mut news);
        self.note_overtaken(&mut news, counters);
        let blocks = self.sort_blocks(ack, &mut news, &mut out);
        self.weigh_dsack(&mut news, &mut out, counters);
        self.take_sacks(now, &blocks, &mut news);
        self.note_overtaken(&mut news, counters);
        news.duplicate = ack.pure
            && !ack.signal
            && ack.ack == self.una()
            && news.acked == 0
            && news.delivered == 0
            && !window.changed;
        if !self.sack {
            self.count_duplicates(now, &mut news, counters);
        }
        self.take_rtt(now, &news, echo, &mut out);
        self.judge_probe(now, to, prior.in_flight, &news, group, counters);
        self.recover(now, &news, &prior, group, &mut out, counters);
        self.stats.delivered(news.delivered, self.mss);
        self.stats.delivered_ce += if ack.ece { news.delivered } else { 0 };
        self.tell_congestion_control(now, &news, &prior, out.lost, group);
        self.repace();
        let sacked_rtt = news.sacked_rtt.newest.map(|(_, rtt)| rtt);
        self.rearm(now, news.acked > 0, news.delivered > 0, sacked_rtt);

        out.acked = news.acked;
        out.fin_acked = news.acked > 0 && self.fin_sent && self.board.is_empty();
        out.acked_bytes = news.acked - u64::from(out.fin_acked);
        self.stats.acked(out.acked_bytes);
        out.delivered = news.delivered;
        out
    }

    fn take_cumulative(&mut self, now: Instant, to: u64, news: &mut News) {
        news.acked = to - self.board.una();
        if news.acked == 0 {
            return;
        }
        self.recovery.timeouts = 0;
        let Self { board, rack, rate, rtt, recovery, .. } = self;
        board.acknowledge(to, |record, part| {
            if rack.on_delivered(now, record, &part, rtt.min(), news.echoed) {
                news.overtaken.get_or_insert(part.start);
            }
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
                if rack.on_delivered(now, record, &part, rtt.min(), None) {
                    news.overtaken.get_or_insert(part.start);
                }
                news.sacked = true;
                rate.deliver(now, &record.stamp, part.end - part.start);
                news.note(now, record, part.end - part.start, false, recovery.rto_tx);
            });
        }
    }

    /// What was delivered later than something after it shows that segments change places on this path.
    fn note_overtaken(&mut self, news: &mut News, counters: &mut Counters) {
        if let Some(from) = news.overtaken.take() {
            self.rack.note_reordering(from, self.rack.fack(), self.mss, self.rules.max_reordering);
            counters.tcp_sack_reorder += 1;
        }
    }

    /// A DSACK for more than was ever sent twice is none (Linux: `tcp_dsack_seen`).
    fn weigh_dsack(&mut self, news: &mut News, out: &mut AckOut, counters: &mut Counters) {
        let Some(dsack) = &news.dsack else { return };
        out.dsack = true;
        let dups = u32::try_from((dsack.end - dsack.start).div_ceil(self.mss)).unwrap_or(u32::MAX);
        self.stats.dsack_dups = self.stats.dsack_dups.saturating_add(dups);
        if self.stats.dsack_dups > self.stats.total_retrans {
            counters.tcp_dsack_ignored_dubious += 1;
            news.dsack = None;
        } else {
            counters.tcp_dsack_recv_segs += u64::from(dups);
        }
    }

    /// Without SACK a duplicate ACK stands for a segment that arrived.
    fn count_duplicates(&mut self, now: Instant, news: &mut News, counters: &mut Counters) {
        if news.acked > 0 {
            self.recovery.dup_acks = 0;
            let announced = self.board.reno_sacked().min(news.acked - news.acked.min(self.mss));
            self.board.remove_reno_sacks(news.acked, self.mss);
            if self.recovery.phase != Phase::Recovery {
                // No hole is known: what the duplicates were about is acknowledged.
                self.board.clear_reno_sacks();
            }
            news.delivered -= announced;
            self.rate.adjust(now, -(announced as i64));
        } else if news.duplicate && !self.board.is_empty() {
            self.recovery.dup_acks = self.recovery.dup_acks.saturating_add(1);
            // After a timeout only new data, which goes for F-RTO, tells by duplicates that it arrived.
            if self.recovery.phase != Phase::Loss || self.nxt() > self.recovery.point {
                let arrived = self.board.add_reno_sack(self.mss);
                if arrived < self.mss {
                    // More duplicates than segments: some of those are older, so segments change places.
                    self.rack.note_reordering(self.una(), self.nxt(), self.mss, self.rules.max_reordering);
                    counters.tcp_reno_reorder += 1;
                }
                news.delivered += arrived;
                self.rate.adjust(now, arrived as i64);
            }
        }
    }

    fn take_rtt(&mut self, now: Instant, news: &News, echo: Option<Duration>, out: &mut AckOut) {
        out.rtt = news.oldest_rtt().or(echo.filter(|_| news.acked > 0));
        if let Some(rtt) = out.rtt {
            self.rtt.sample(now, rtt, self.board.una(), self.board.nxt());
            // Only a measurement shows that the timeout is long enough (RFC 6298 §5.7, Karn).
            self.rtt.clear_backoff();
        }
        if let Some(rtt) = news.newest_rtt() {
            self.rtt.note_extremes(now, rtt);
        }
    }

    /// Whether a tail loss probe repaired a loss that nobody would have heard of otherwise (RFC 8985 §7.4.2).
    fn judge_probe(
        &mut self,
        now: Instant,
        to: u64,
        in_flight: u64,
        news: &News,
        group: Group<'_>,
        counters: &mut Counters,
    ) {
        if news.acked > 0 || news.delivered > 0 {
            self.tlp.due = false;
        }
        let duplicate = self.tlp.retrans && news.dsack.as_ref().is_some_and(|dsack| Some(dsack.end) == self.tlp.end);
        if !self.rules.static_reo_wnd {
            // That the probe was needless says nothing about reordering.
            self.rack.adapt(news.dsack.is_some() && !duplicate, to, self.board.nxt());
        }
        let Some(end) = self.tlp.end.filter(|&end| to >= end) else { return };
        if !self.tlp.retrans || duplicate || news.duplicate {
            self.tlp.reset();
        } else if to > end {
            self.tlp.reset();
            counters.tcp_loss_probe_recovery += 1;
            self.reduce(now, in_flight, group);
        }
    }

    fn recover(
        &mut self,
        now: Instant,
        news: &News,
        prior: &Prior,
        group: Group<'_>,
        out: &mut AckOut,
        counters: &mut Counters,
    ) {
        if let (Some(undo), Some(dsack)) = (&mut self.recovery.undo, &news.dsack) {
            undo.on_dsack(dsack.start, dsack.end);
        }
        self.recovery.new_first = false;
        self.recovery.lost_again = false;
        out.spurious = self.undo_if_spurious(now, news, counters);
        out.left_recovery = self.leave_if_done(now) || (out.spurious && prior.phase != Phase::Open);
        out.lost = if self.sack { self.detect_losses(now, counters) } else { self.newreno_losses(now, news) };
        self.stats.lost(out.lost, self.mss);
        let begins = match self.recovery.phase {
            Phase::Open | Phase::Cwr => self.board.tally().lost > 0,
            Phase::Recovery => false,
            // That a retransmission is lost after a timeout is another sign of congestion (RFC 5681 §4.3).
            Phase::Loss => self.recovery.lost_again,
        };
        if begins {
            self.enter_recovery(now, prior.in_flight, news.delivered, group, counters);
            out.entered_recovery = self.recovery.phase == Phase::Recovery;
        }
        if news.ece {
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
            Phase::Open | Phase::Cwr
                if self.recovery.dup_acks >= u32::from(self.rack.reordering()) && self.una() > self.recovery.point => {}
            Phase::Recovery if news.acked > 0 => self.recovery.force = true,
            _ => return 0,
        }
        let lost = self.board.mark_head_lost();
        if lost > 0 {
            self.cc.on_lost(&self.rate.lose(now, &self.board.records()[0].stamp, lost));
        }
        lost
    }

    fn tell_congestion_control(&mut self, now: Instant, news: &News, prior: &Prior, lost: u64, group: Group<'_>) {
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
            ce_bytes: if news.ece { news.delivered } else { 0 },
            delivery: rate.delivery,
            cwnd_limited: prior.cwnd_limited,
            round_start: rate.round_start,
            in_recovery: [prior.phase, self.recovery.phase]
                .iter()
                .any(|phase| matches!(phase, Phase::Recovery | Phase::Cwr)),
            // Linux: `tcp_may_raise_cwnd`.
            disordered: news.acked == 0 && self.rack.reordering() <= self.rules.reordering,
        };
        self.cc.on_ack(&sample, group);
    }
}
