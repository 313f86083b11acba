//! BBR, version 3 (draft-ietf-ccwg-bbr): sends as fast as the path was seen to deliver, and keeps about as much in flight
//! as that rate needs, rather than filling the queue until something is lost.
//!
//! Sections are those of the draft. Names are its names, too: what it calls `BBR.x` is a field `x` here.
//!
//! | file | what of it |
//! |---|---|
//! | `mod.rs` | the steps of each event (§5.2), pacing rate and window (§5.6) |
//! | `model.rs` | what is believed of the path: rates, volumes, round trips (§5.5) |
//! | `phases.rs` | Startup, Drain and the cycle of ProbeBW (§5.3) |
//! | `probe_rtt.rs` | smallest round trip, ProbeRTT (§5.3.4), return from idleness (§5.4) |
//! | `congestion.rs` | what losses and marks change (§5.5.10), and taking it back (§5.5.11) |

mod congestion;
mod model;
mod phases;
mod probe_rtt;
#[cfg(test)]
mod tests;

use core::time::Duration;

use anabranch_frame::Instant;

use self::congestion::Undo;
use self::model::{Aggregation, Bandwidth, FullPipe, Latest, Rounds, Volume};
use self::phases::{Cycle, State};
use self::probe_rtt::MinRtt;
use super::{AckSample, CongestionControl, Delivery, Group, INITIAL_WINDOW, Loss, Metrics};

/// `BBR.PacingMarginPercent`: so much less than the estimate is what is sent at.
const PACING_MARGIN_PERCENT: f64 = 1.0;
/// `BBR.MinPipeCwnd` in segments: two of data on the way, and ACKs for two on the way back.
const MIN_PIPE: u64 = 4;
/// A super-segment has no more bytes.
const QUANTUM_MAX: u64 = 64 * 1024;
/// Super-segments that may be under way within the hosts: one that waits, one that is cut up, one that is put together.
const QUANTA: u64 = 3;
/// No more than can be acknowledged in all windows of TCP.
const MAX_WINDOW: u64 = 1 << 32;

/// BBR, version 3.
#[derive(Debug)]
pub struct Bbr {
    mss: u64,
    cwnd: u64,
    /// The last window that neither recovery nor ProbeRTT had made smaller.
    prior_cwnd: u64,
    /// Bytes per second.
    pacing_rate: u64,
    state: State,
    rounds: Rounds,
    bandwidth: Bandwidth,
    volume: Volume,
    latest: Latest,
    full: FullPipe,
    aggregation: Aggregation,
    min_rtt: MinRtt,
    cycle: Cycle,
    undo: Undo,
    /// The connection was idle, and nothing was acknowledged since.
    idle_restart: bool,
    /// An episode of recovery, fast or after a timeout, goes on.
    recovering: bool,
}

/// An acknowledgement that delivered something, in the draft's words.
#[derive(Clone, Copy, Debug)]
struct Ack<'a> {
    now: Instant,
    sample: &'a AckSample,
    rs: Delivery,
    /// `RS.delivery_rate`, 0 if there is none.
    rate: u64,
    /// `C.delivered`.
    delivered: u64,
}

impl Bbr {
    /// An initial window of segments of `mss` bytes.
    #[must_use]
    pub fn new(mss: u64) -> Self {
        let mss = mss.max(1);
        let mut bbr = Self {
            mss,
            cwnd: INITIAL_WINDOW * mss,
            prior_cwnd: 0,
            pacing_rate: 0,
            state: State::Startup,
            rounds: Rounds::default(),
            bandwidth: Bandwidth::default(),
            volume: Volume::default(),
            latest: Latest::default(),
            full: FullPipe::default(),
            aggregation: Aggregation::default(),
            min_rtt: MinRtt::default(),
            cycle: Cycle::default(),
            undo: Undo::default(),
            idle_restart: false,
            recovering: false,
        };
        bbr.init_pacing_rate(Duration::ZERO);
        bbr
    }

    /// `InitPacingRate` (§5.6.2): the first window within a round trip, or within a millisecond as long as none is known.
    fn init_pacing_rate(&mut self, srtt: Duration) {
        let srtt = if srtt.is_zero() { Duration::from_millis(1) } else { srtt };
        let nominal = (INITIAL_WINDOW * self.mss) as f64 / srtt.as_secs_f64();
        self.pacing_rate = (State::Startup.pacing_gain() * nominal) as u64;
    }

    /// `UpdateModelAndState` (§5.2.3).
    fn update_model_and_state(&mut self, ack: &Ack<'_>) {
        self.latest.update(ack);
        self.update_congestion_signals(ack);
        self.update_ack_aggregation(ack);
        self.check_full_pipe(ack);
        self.check_startup_done(ack);
        self.check_drain_done(ack);
        self.update_cycle_phase(ack);
        let expired = self.min_rtt.update(ack);
        self.check_probe_rtt(ack, expired);
        if self.rounds.loss_start {
            self.latest.advance(ack);
        }
    }

    // --- control parameters (§5.6) ----------------------------------------------------------------

    /// `SetPacingRateWithGain` (§5.6.2).
    fn set_pacing_rate_with_gain(&mut self, gain: f64) {
        let rate = (gain * self.bandwidth.bw() as f64 * (100.0 - PACING_MARGIN_PERCENT) / 100.0) as u64;
        if self.full.reached || rate > self.pacing_rate {
            self.pacing_rate = rate.max(1);
        }
    }

    /// `SetSendQuantum` (§5.6.3). The sender cuts its super-segments alike, by the rate.
    fn send_quantum(&self) -> u64 {
        (self.pacing_rate / 1000).min(QUANTUM_MAX).max(2 * self.mss)
    }

    fn min_pipe_cwnd(&self) -> u64 {
        MIN_PIPE * self.mss
    }

    /// `BDPMultiple` (§5.6.4.2).
    fn bdp_multiple(&self, bw: u64, gain: f64) -> u64 {
        match self.min_rtt.get() {
            None => INITIAL_WINDOW * self.mss,
            Some(min_rtt) => (gain * bw as f64 * min_rtt.as_secs_f64()) as u64,
        }
    }

    /// `BBR.bdp`.
    fn bdp(&self) -> u64 {
        self.bdp_multiple(self.bandwidth.bw(), 1.0)
    }

    /// `QuantizationBudget` (§5.6.4.2).
    fn quantization_budget(&self, inflight: u64) -> u64 {
        let inflight = inflight.max(QUANTA * self.send_quantum()).max(self.min_pipe_cwnd());
        inflight + if self.state == State::ProbeUp { 2 * self.mss } else { 0 }
    }

    /// `Inflight` (§5.6.4.2).
    fn inflight(&self, bw: u64, gain: f64) -> u64 {
        self.quantization_budget(self.bdp_multiple(bw, gain))
    }

    /// `UpdateMaxInflight` (§5.6.4.2).
    fn max_inflight(&self) -> u64 {
        let bdp = self.bdp_multiple(self.bandwidth.bw(), self.state.cwnd_gain());
        self.quantization_budget(bdp + self.aggregation.extra_acked())
    }

    /// `SetCwnd` (§5.6.4.6).
    fn set_cwnd(&mut self, newly_acked: u64, delivered: u64) {
        let most = self.max_inflight();
        if self.full.reached {
            self.cwnd = (self.cwnd + newly_acked).min(most);
        } else if self.cwnd < most || delivered < INITIAL_WINDOW * self.mss {
            self.cwnd += newly_acked;
        }
        self.cwnd = self.cwnd.clamp(self.min_pipe_cwnd(), MAX_WINDOW.max(self.min_pipe_cwnd()));
        if self.state == State::ProbeRtt {
            self.cwnd = self.cwnd.min(self.probe_rtt_cwnd());
        }
        self.bound_cwnd_for_model();
    }

    /// `BoundCwndForModel` (§5.6.4.7).
    fn bound_cwnd_for_model(&mut self) {
        let long = match self.state {
            State::ProbeDown | State::ProbeRefill | State::ProbeUp => self.volume.longterm,
            State::ProbeCruise | State::ProbeRtt => self.inflight_with_headroom(),
            State::Startup | State::Drain => u64::MAX,
        };
        let most = long.min(self.volume.shortterm).max(self.min_pipe_cwnd());
        self.cwnd = self.cwnd.min(most);
    }

    /// `SaveCwnd` (§5.6.4.4).
    fn save_cwnd(&mut self) {
        let modulated = self.recovering || self.state == State::ProbeRtt;
        self.prior_cwnd = if modulated { self.prior_cwnd.max(self.cwnd) } else { self.cwnd };
    }

    /// `RestoreCwnd`.
    fn restore_cwnd(&mut self) {
        self.cwnd = self.cwnd.max(self.prior_cwnd);
    }
}

impl CongestionControl for Bbr {
    fn name(&self) -> &'static str {
        "bbr"
    }

    fn set_mss(&mut self, mss: u64) {
        let fresh = self.rounds.count == 0 && self.cwnd == INITIAL_WINDOW * self.mss;
        self.mss = mss.max(1);
        if fresh {
            self.cwnd = INITIAL_WINDOW * self.mss;
            self.init_pacing_rate(self.min_rtt.get().unwrap_or_default());
        }
        self.cwnd = self.cwnd.max(self.mss);
    }

    fn on_handshake(&mut self, now: Instant, rtt: Duration) {
        self.min_rtt.seed(now, rtt);
        self.aggregation.restart(now);
        self.init_pacing_rate(rtt);
    }

    fn on_restart(&mut self, now: Instant) {
        self.handle_restart_from_idle(now);
    }

    fn on_ack(&mut self, sample: &AckSample, _: Group<'_>) {
        let Some(rs) = sample.delivery else { return };
        let ack = Ack {
            now: sample.now,
            sample,
            rs: Delivery { app_limited: rs.app_limited || self.min_rtt.is_probe_sample(rs.prior_delivered), ..rs },
            rate: rs.rate.unwrap_or(0),
            delivered: rs.prior_delivered + rs.delivered,
        };
        self.update_model_and_state(&ack);
        self.set_pacing_rate_with_gain(self.state.pacing_gain());
        self.set_cwnd(sample.delivered, ack.delivered);
    }

    fn on_lost(&mut self, loss: &Loss) {
        self.handle_lost(loss);
    }

    fn on_congestion(&mut self, _: Instant, _: u64, _: Group<'_>) {
        self.save_state();
        self.recovering = true;
    }

    fn on_rto(&mut self, _: Instant, in_flight: u64, _: bool) {
        self.save_state();
        self.recovering = true;
        self.cwnd = in_flight + self.mss;
    }

    fn on_spurious(&mut self, now: Instant) {
        self.handle_spurious(now);
    }

    fn on_recovered(&mut self, _: Instant) {
        self.recovering = false;
        self.restore_cwnd();
        self.bound_cwnd_for_model();
    }

    fn on_idle(&mut self, _: Instant, _: Duration, _: Duration) {
        // The window stays; what goes out is paced (§5.4).
    }

    fn penalise(&mut self, _: Instant) {
        self.volume.shortterm = (self.cwnd / 2).max(self.min_pipe_cwnd());
        self.cwnd = self.cwnd.min(self.volume.shortterm);
    }

    fn adopt(&mut self, before: Metrics) {
        // The window of another kind is a start: Startup finds out what it is worth.
        self.cwnd = before.cwnd.max(self.min_pipe_cwnd());
    }

    fn cwnd(&self) -> u64 {
        self.cwnd
    }

    fn ssthresh(&self) -> u64 {
        // There is none; whoever asks wants to know whether the pipe is still being filled.
        if self.full.reached { self.cwnd } else { u64::MAX }
    }

    fn pacing_rate(&self) -> Option<u64> {
        Some(self.pacing_rate)
    }

    fn uses_prr(&self) -> bool {
        false
    }
}

/// A number that differs from connection to connection and from time to time, from what is known anyway: the core has no
/// randomness of its own (SplitMix64).
fn mix(now: Instant, delivered: u64) -> u64 {
    let mut z = now.as_nanos() ^ delivered.rotate_left(32);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
