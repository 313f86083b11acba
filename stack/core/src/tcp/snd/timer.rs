//! The timers of the sending half: retransmission timeout (RFC 6298 §5), tail loss probe (RFC 8985 §7) and RACK's
//! reordering timer (RFC 8985 §6.3).

use core::time::Duration;

use anabranch_frame::Instant;

use super::record::Record;
use super::recovery::Phase;
use super::{Fired, Snd};
use crate::Counters;
use crate::cc::Group;

/// The probe timeout before the first round-trip time is known (RFC 8985 §7.2).
const PROBE_INITIAL: Duration = Duration::from_secs(1);
/// Allowance for clocks and for waking up, in probe timeouts and in the reordering timer (Linux: `TCP_TIMEOUT_MIN`).
const GRANULARITY: Duration = Duration::from_millis(2);
/// How long a peer delays an acknowledgement as a rule (Linux: `TCP_DELACK_MIN`).
const DELAYED_ACK: Duration = Duration::from_millis(40);
/// How long busy hosts forget their network now and then.
const HICCUP: Duration = Duration::from_millis(20);
/// A stream is thin with less segments than this outstanding (Linux: `tcp_stream_is_thin`).
const THIN: u64 = 4;
/// Timeouts that a thin stream repeats at the same distance.
const THIN_RETRIES: u32 = 6;
/// The least time that a peer which takes SACKs back has to show that it did not mean it.
const RENEGING_DELAY: Duration = Duration::from_millis(10);

#[derive(Debug, Default)]
pub(super) struct Timers {
    pub(super) rto: Option<Instant>,
    pub(super) tlp: Option<Instant>,
    pub(super) reo: Option<Instant>,
}

impl Timers {
    fn earliest(&self) -> Option<Instant> {
        [self.rto, self.tlp, self.reo].into_iter().flatten().min()
    }

    #[cfg(test)]
    pub(super) fn any(&self) -> bool {
        self.earliest().is_some()
    }
}

/// The tail loss probe that is out or about to be.
#[derive(Debug, Default)]
pub(super) struct Tlp {
    /// What follows the probe: the episode ends when this is acknowledged.
    pub(super) end: Option<u64>,
    /// The probe was a retransmission.
    pub(super) retrans: bool,
    /// The timer fired and nothing was sent yet.
    pub(super) due: bool,
}

impl Tlp {
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

impl Snd {
    /// When [`on_timer`](Self::on_timer) has to be called; `None` if nothing is outstanding, and pacing holds nothing back.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.timers.earliest().into_iter().chain(self.pace.deadline()).min()
    }

    /// A timer may be due. Returns what happened, `None` if none was due or it was to no effect. `linear`: the socket wants
    /// that a thin stream's timeouts do not back off. `group` is for congestion control.
    pub(crate) fn on_timer(
        &mut self,
        now: Instant,
        linear: bool,
        group: Group<'_>,
        counters: &mut Counters,
    ) -> Option<Fired> {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        self.pace.on_timer(now);
        if due(self.timers.reo) && self.on_reordering_timer(now, group, counters) {
            return Some(Fired::Reordering);
        }
        if due(self.timers.tlp) {
            self.timers.tlp = None;
            if self.may_probe() {
                self.tlp.due = true;
                self.restart_rto(now);
                return Some(Fired::Probe);
            }
        }
        if due(self.timers.rto) {
            self.enter_loss(now, counters);
            self.back_off(linear);
            self.timers.tlp = None;
            self.timers.reo = None;
            self.restart_rto(now);
            self.repace();
            return Some(Fired::Rto { consecutive: self.recovery.timeouts });
        }
        None
    }

    /// The next timeout takes twice the time (RFC 6298 §5.5). A thin stream, which has nothing but timeouts to find a
    /// loss with, may be allowed to try some times at the same distance.
    fn back_off(&mut self, linear: bool) {
        self.recovery.timeouts = self.recovery.timeouts.saturating_add(1);
        let thin = || {
            let segments: u64 = self.board.records().iter().take(THIN as usize).map(Record::segments).sum();
            segments < THIN && self.cc.ssthresh() < u64::MAX
        };
        let linear = linear || self.rules.thin_linear_timeouts;
        if linear && self.recovery.timeouts <= THIN_RETRIES && thin() {
            self.rtt.clear_backoff();
        } else {
            self.rtt.back_off();
        }
    }

    fn on_reordering_timer(&mut self, now: Instant, group: Group<'_>, counters: &mut Counters) -> bool {
        let in_flight = self.in_flight();
        let lost = self.detect_losses(now, counters);
        if lost == 0 {
            return false;
        }
        self.stats.lost(lost, self.mss);
        if matches!(self.recovery.phase, Phase::Open | Phase::Cwr) {
            self.enter_recovery(now, in_flight, 0, group, counters);
        }
        if self.recovery.phase == Phase::Recovery {
            self.recovery.prr.update(0, self.board.in_flight(), self.cc.cwnd(), self.mss, false);
        }
        self.timers.tlp = None;
        self.restart_rto(now);
        self.repace();
        true
    }

    /// Marks lost what RACK says is, and sets the timer for what it will say so of later.
    pub(super) fn detect_losses(&mut self, now: Instant, counters: &mut Counters) -> u64 {
        let recovering = matches!(self.recovery.phase, Phase::Recovery | Phase::Loss);
        let sacked = self.board.tally().sacked_segments;
        let reo_wnd = self.rack.reo_wnd(&self.rules, recovering, sacked, self.rtt.min(), self.rtt.srtt());
        let Self { rack, board, rate, cc, .. } = self;
        let found = rack.detect(now, board, reo_wnd, |record| cc.on_lost(&rate.lose(now, &record.stamp, record.len())));
        self.timers.reo = found.again.map(|at| at + GRANULARITY);
        self.recovery.lost_again |= found.lost_again > 0;
        counters.tcp_lost_retransmit += found.lost_again;
        found.lost
    }

    pub(super) fn restart_rto(&mut self, now: Instant) {
        self.timers.rto = Some(now + self.rtt.rto()).filter(|_| !self.board.is_empty());
    }

    /// After an acknowledgement: `advanced` if una moved, `progress` if anything was delivered, `sacked_rtt` the
    /// round-trip time of what was SACKed.
    pub(super) fn rearm(&mut self, now: Instant, advanced: bool, progress: bool, sacked_rtt: Option<Duration>) {
        let Some(head) = self.board.records().front() else {
            self.timers = Timers::default();
            return;
        };
        let head_age = now - head.stamp.sent_at;
        if head.sacked && advanced {
            // The peer acknowledged up to what it has, it said before. If it does not think better of it soon, it threw
            // that away (RFC 2018 §8).
            self.timers.rto = Some(now + (self.srtt() / 2).max(RENEGING_DELAY));
            self.timers.tlp = None;
            return;
        }
        // What was SACKed left before the head did, for the last time: nothing is known of that yet.
        if advanced || sacked_rtt.is_some_and(|rtt| rtt > head_age) {
            self.restart_rto(now);
        }
        self.rearm_probe(now, advanced || progress);
    }

    /// `restart` if something was sent or delivered.
    pub(super) fn rearm_probe(&mut self, now: Instant, restart: bool) {
        if !self.may_probe() || self.timers.reo.is_some() {
            self.timers.tlp = None;
        } else if restart {
            // Not later than the timeout, which would have worse consequences.
            let at = now + self.probe_timeout();
            self.timers.tlp = Some(self.timers.rto.map_or(at, |rto| at.min(rto)));
        }
    }

    /// New data went out: the probe comes later, but not later than the timeout of the oldest segment would.
    pub(super) fn postpone_probe(&mut self, now: Instant) {
        self.rearm_probe(now, true);
        let oldest = self.board.records().front().map(|head| head.stamp.sent_at + self.rtt.rto());
        if let (Some(at), Some(oldest)) = (&mut self.timers.tlp, oldest.filter(|&oldest| oldest > now)) {
            *at = oldest.min(*at);
        }
    }

    /// Whether the last data sent may be probed for: nothing tells of a loss otherwise (RFC 8985 §7.2).
    fn may_probe(&self) -> bool {
        self.sack
            && self.rules.early_retrans
            && matches!(self.recovery.phase, Phase::Open | Phase::Cwr)
            && self.board.tally().sacked == 0
            && !self.board.is_empty()
            && self.tlp.end.is_none()
            && !self.tlp.due
    }

    /// Nothing was heard for longer than usual: a probe goes at once, if one may. Returns whether.
    pub(crate) fn hasten_probe(&mut self, now: Instant) -> bool {
        let may = self.may_probe();
        if may {
            self.timers.tlp = None;
            self.tlp.due = true;
            self.restart_rto(now);
        }
        may
    }

    /// Silence that is longer than usual while something is outstanding; `None` before the first round-trip time. The
    /// acknowledgement of a lone segment may be delayed.
    pub(crate) fn patience(&self) -> Option<Duration> {
        let srtt = self.rtt.srtt()?;
        let usual = srtt + (4 * self.rtt.rttvar()).max(srtt / 4).max(HICCUP);
        Some(if self.is_alone() { usual + DELAYED_ACK } else { usual })
    }

    /// Whether a single segment is outstanding.
    fn is_alone(&self) -> bool {
        self.board.records().len() == 1 && self.board.records()[0].segments() == 1
    }

    /// PTO of RFC 8985 §7.2. The acknowledgement of a lone segment may be delayed: 200 ms is what a peer takes for that,
    /// and the least allowance of a timeout (Linux: `tcp_rto_min`).
    fn probe_timeout(&self) -> Duration {
        let Some(srtt) = self.rtt.srtt() else { return PROBE_INITIAL };
        2 * srtt + if self.is_alone() { self.rtt.shortest() } else { GRANULARITY }
    }
}
