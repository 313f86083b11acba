//! The smallest round trip and how to see it again (§5.3.4), and the return from idleness (§5.4).

use core::time::Duration;

use anabranch_frame::Instant;

use super::phases::{Acks, State};
use super::{Ack, Bbr};

/// `BBR.MinRTTFilterLen`.
const MIN_RTT_FILTER: Duration = Duration::from_secs(10);
/// `BBR.ProbeRTTInterval`.
const PROBE_RTT_INTERVAL: Duration = Duration::from_secs(5);
/// `BBR.ProbeRTTDuration`.
const PROBE_RTT_DURATION: Duration = Duration::from_millis(200);
/// A queue shows when it adds that part of the smallest round trip.
const QUEUE_DIVISOR: u32 = 8;
/// Samples of which the smallest counts for that, at least.
const RECENT_SAMPLES: u8 = 4;

/// `BBR.min_rtt`, and when to look for it again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MinRtt {
    min: Option<Duration>,
    stamp: Instant,
    /// `BBR.probe_rtt_min_delay` and its stamp: of the last five seconds.
    probe_min: Option<Duration>,
    probe_stamp: Instant,
    /// `BBR.probe_rtt_done_stamp`.
    done: Option<Instant>,
    round_done: bool,
    /// Bytes per second that were delivered before ProbeRTT.
    probe_bw: u64,
    /// The smallest of the last few samples, and of as many before.
    recent: [Option<Duration>; 2],
    samples: u8,
    /// What was sent while so many bytes were delivered was sent in ProbeRTT: no measure of the path.
    probe_samples: (u64, u64),
}

impl MinRtt {
    /// `None` before the first sample.
    pub(super) fn get(&self) -> Option<Duration> {
        self.min
    }

    /// The handshake's.
    pub(super) fn seed(&mut self, now: Instant, rtt: Duration) {
        (self.min, self.stamp) = (Some(rtt), now);
        (self.probe_min, self.probe_stamp) = (Some(rtt), now);
    }

    /// Whether a queue shows: round trips take an eighth longer than they have to. Of some samples the smallest counts, as one
    /// may be late for other reasons.
    pub(super) fn sees_queue(&self) -> bool {
        let recent = self.recent.into_iter().flatten().min();
        recent.zip(self.min).is_some_and(|(recent, min)| recent > min + min / QUEUE_DIVISOR)
    }

    fn note_recent(&mut self, rtt: Duration) {
        if self.samples >= RECENT_SAMPLES {
            self.recent = [self.recent[1], None];
            self.samples = 0;
        }
        self.samples += 1;
        self.recent[1] = Some(self.recent[1].map_or(rtt, |least| least.min(rtt)));
    }

    /// Whether what was sent at `prior_delivered` was sent in ProbeRTT.
    pub(super) fn is_probe_sample(&self, prior_delivered: u64) -> bool {
        (self.probe_samples.0..self.probe_samples.1).contains(&prior_delivered)
    }

    /// `UpdateMinRTT`. Returns `BBR.probe_rtt_expired`.
    pub(super) fn update(&mut self, ack: &Ack<'_>) -> bool {
        let now = ack.now;
        let expired = self.probe_min.is_some() && now > self.probe_stamp + PROBE_RTT_INTERVAL;
        if let Some(rtt) = ack.sample.rtt {
            self.note_recent(rtt);
        }
        if let Some(rtt) = ack.sample.rtt
            && (expired || self.probe_min.is_none_or(|min| rtt < min))
        {
            (self.probe_min, self.probe_stamp) = (Some(rtt), now);
        }
        if self.min.is_none() || self.probe_min < self.min || now > self.stamp + MIN_RTT_FILTER {
            (self.min, self.stamp) = (self.probe_min, self.probe_stamp);
        }
        expired
    }
}

impl Bbr {
    /// `ProbeRTTCwnd` (§5.6.4.5), of what was delivered in the round before: the model may be of a rate that is gone, and half
    /// of that would leave the queue as it is.
    pub(super) fn probe_rtt_cwnd(&self) -> u64 {
        let bw = self.bandwidth.bw().min(self.min_rtt.probe_bw);
        self.bdp_multiple(bw, State::ProbeRtt.cwnd_gain()).max(self.min_pipe_cwnd())
    }

    /// `CheckProbeRTT`.
    pub(super) fn check_probe_rtt(&mut self, ack: &Ack<'_>, expired: bool) {
        if self.state != State::ProbeRtt && expired && !self.idle_restart {
            self.save_cwnd();
            self.state = State::ProbeRtt;
            self.min_rtt.done = None;
            self.min_rtt.probe_bw = self.latest.bw;
            self.min_rtt.probe_samples = (ack.delivered, ack.delivered + 1);
            self.cycle.acks = Acks::ProbeStopping;
            self.rounds.restart(ack.delivered);
        }
        if self.state == State::ProbeRtt {
            self.handle_probe_rtt(ack);
        }
        if ack.rs.delivered > 0 {
            self.idle_restart = false;
        }
    }

    /// `HandleProbeRTT`.
    fn handle_probe_rtt(&mut self, ack: &Ack<'_>) {
        self.min_rtt.probe_samples.1 = ack.delivered + ack.sample.in_flight + 1;
        if self.min_rtt.done.is_none() {
            if ack.sample.in_flight <= self.probe_rtt_cwnd() {
                self.min_rtt.done = Some(ack.now + PROBE_RTT_DURATION);
                self.min_rtt.round_done = false;
                self.rounds.restart(ack.delivered);
            }
            return;
        }
        self.min_rtt.round_done |= self.rounds.start;
        if self.min_rtt.round_done {
            self.check_probe_rtt_done(ack.now, ack.delivered);
        }
    }

    /// `CheckProbeRTTDone` and `ExitProbeRTT`.
    fn check_probe_rtt_done(&mut self, now: Instant, delivered: u64) {
        if self.min_rtt.done.is_none_or(|done| now <= done) {
            return;
        }
        self.min_rtt.probe_stamp = now;
        self.restore_cwnd();
        self.reset_short_term_model();
        if self.full.reached {
            self.start_probe_down(now, delivered);
            self.start_probe_cruise();
        } else {
            self.state = State::Startup;
        }
    }

    /// `HandleRestartFromIdle` (§5.4.1).
    pub(super) fn handle_restart_from_idle(&mut self, now: Instant) {
        self.idle_restart = true;
        self.aggregation.restart(now);
        if self.state.is_probe_bw() {
            self.set_pacing_rate_with_gain(1.0);
        } else if self.state == State::ProbeRtt {
            // Nothing is in flight: so much is delivered.
            self.check_probe_rtt_done(now, self.min_rtt.probe_samples.1 - 1);
        }
    }
}
