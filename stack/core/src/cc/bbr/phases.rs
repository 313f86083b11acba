//! Startup, Drain, and the cycle of ProbeBW (§5.3).

use core::time::Duration;

use anabranch_frame::Instant;

use super::{Ack, Bbr, mix};

/// `BBR.Headroom`: so much of the long-term volume is left to others.
const HEADROOM: f64 = 0.15;
/// Rounds of Drain at most (§5.3.2).
const DRAIN_ROUNDS: u64 = 3;
/// Rounds between two probes at most, so that a Reno flow beside it gets its share (§5.3.3.5).
const RENO_ROUNDS: u64 = 63;
/// Time between two probes at least; up to a second comes on top.
const PROBE_WAIT: Duration = Duration::from_secs(2);
/// Where others leave a queue a probe goes on for so many of the shortest round trips at least.
const CROWDED_PROBE: u32 = 4;
/// A probe stops at this multiple of the bandwidth-delay product.
const QUEUE_GAIN: f64 = 1.25;

/// `BBR.state`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Startup,
    Drain,
    ProbeDown,
    ProbeCruise,
    ProbeRefill,
    ProbeUp,
    ProbeRtt,
}

impl State {
    /// `BBR.pacing_gain` (§5.6.1).
    pub(super) fn pacing_gain(self) -> f64 {
        match self {
            // 4 ln 2: doubles the rate each round.
            Self::Startup => 2.77,
            Self::Drain => 0.5,
            Self::ProbeDown => 0.9,
            Self::ProbeCruise | Self::ProbeRefill | Self::ProbeRtt => 1.0,
            Self::ProbeUp => 1.25,
        }
    }

    /// `BBR.cwnd_gain`.
    pub(super) fn cwnd_gain(self) -> f64 {
        match self {
            Self::ProbeUp => 2.25,
            Self::ProbeRtt => 0.5,
            _ => 2.0,
        }
    }

    /// `IsInAProbeBWState`.
    pub(super) fn is_probe_bw(self) -> bool {
        matches!(self, Self::ProbeDown | Self::ProbeCruise | Self::ProbeRefill | Self::ProbeUp)
    }

    /// `IsProbingBW`.
    pub(super) fn is_probing(self) -> bool {
        matches!(self, Self::Startup | Self::ProbeRefill | Self::ProbeUp)
    }
}

/// `BBR.ack_phase`: what acknowledgements are about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Acks {
    #[default]
    Init,
    Refilling,
    ProbeStarting,
    ProbeFeedback,
    ProbeStopping,
}

/// Where the cycle of ProbeBW stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cycle {
    pub(super) acks: Acks,
    /// `BBR.is_bw_probe_sample`: losses tell of a probe.
    pub(super) is_probe_sample: bool,
    /// The last probe lost too much, and the last probe ended before it could.
    pub(super) prev_probe_too_high: bool,
    prev_probe_precautionary: bool,
    /// `BBR.cycle_stamp`, and how long it takes at most.
    start: Instant,
    wait: Duration,
    pub(super) rounds_since_probe_up: u64,
    /// There was a probe, or Startup, since the filter of rates moved on.
    probed: bool,
    /// There was a queue when the probe began: somebody else's.
    crowded: bool,
    /// `BBR.bw_probe_up_rounds`, `BBR.bw_probe_up_acked`, `BBR.probe_up_acked_per_inc`.
    up_rounds: u32,
    up_acked: u64,
    acked_per_increase: u64,
    drain_start_round: u64,
}

impl Default for Cycle {
    fn default() -> Self {
        Self {
            acks: Acks::Init,
            is_probe_sample: false,
            prev_probe_too_high: false,
            prev_probe_precautionary: false,
            start: Instant::ZERO,
            wait: Duration::ZERO,
            rounds_since_probe_up: 0,
            probed: true,
            crowded: false,
            up_rounds: 0,
            up_acked: 0,
            acked_per_increase: u64::MAX,
            drain_start_round: 0,
        }
    }
}

impl Bbr {
    /// `CheckStartupDone` (§5.3.1).
    pub(super) fn check_startup_done(&mut self, ack: &Ack<'_>) {
        self.check_startup_high_loss(ack);
        if self.state == State::Startup && self.full.reached {
            self.state = State::Drain;
            self.cycle.drain_start_round = self.rounds.count;
        }
    }

    /// `CheckDrainDone` (§5.3.2).
    pub(super) fn check_drain_done(&mut self, ack: &Ack<'_>) {
        let drained = || ack.sample.in_flight <= self.inflight(self.bandwidth.bw(), 1.0);
        let long = self.rounds.count > self.cycle.drain_start_round + DRAIN_ROUNDS;
        if self.state == State::Drain && (long || drained()) {
            self.start_probe_down(ack.now, ack.delivered);
        }
    }

    /// `StartProbeBW_DOWN`, with `PickProbeWait` (§5.3.3.5.3).
    pub(super) fn start_probe_down(&mut self, now: Instant, delivered: u64) {
        self.reset_congestion_signals();
        let random = mix(now, delivered);
        let cycle = &mut self.cycle;
        cycle.acked_per_increase = u64::MAX;
        cycle.rounds_since_probe_up = random & 1;
        cycle.wait = PROBE_WAIT + Duration::from_nanos((random >> 32) % 1_000_000_000);
        cycle.start = now;
        cycle.acks = Acks::ProbeStopping;
        self.rounds.restart(delivered);
        self.state = State::ProbeDown;
    }

    /// `StartProbeBW_CRUISE`.
    pub(super) fn start_probe_cruise(&mut self) {
        self.state = State::ProbeCruise;
    }

    /// `StartProbeBW_REFILL`.
    pub(super) fn start_probe_refill(&mut self, now: Instant, delivered: u64) {
        self.reset_short_term_model();
        let cycle = &mut self.cycle;
        cycle.up_rounds = 0;
        cycle.up_acked = 0;
        cycle.prev_probe_precautionary = false;
        cycle.acks = Acks::Refilling;
        cycle.start = now;
        self.rounds.restart(delivered);
        self.state = State::ProbeRefill;
    }

    /// `StartProbeBW_UP`.
    fn start_probe_up(&mut self, ack: &Ack<'_>) {
        self.cycle.is_probe_sample = true;
        self.cycle.probed = true;
        self.cycle.crowded = self.min_rtt.sees_queue();
        self.cycle.acks = Acks::ProbeStarting;
        self.cycle.start = ack.now;
        self.rounds.restart(ack.delivered);
        self.full.reset(ack.rate);
        self.state = State::ProbeUp;
        self.raise_inflight_slope();
    }

    /// `UpdateProbeBWCyclePhase` (§5.3.3.6).
    pub(super) fn update_cycle_phase(&mut self, ack: &Ack<'_>) {
        if !self.full.reached || self.adapt_long_term_model(ack) {
            return;
        }
        match self.state {
            State::ProbeDown | State::ProbeCruise if self.is_time_to_probe(ack.now) => {
                self.start_probe_refill(ack.now, ack.delivered);
            }
            State::ProbeDown if self.is_time_to_cruise(ack.sample.in_flight) => self.start_probe_cruise(),
            State::ProbeRefill if self.rounds.start => self.start_probe_up(ack),
            State::ProbeUp => self.probe_up(ack),
            _ => {}
        }
    }

    fn probe_up(&mut self, ack: &Ack<'_>) {
        if self.is_time_to_go_down(ack) {
            // No loss yet.
            self.cycle.prev_probe_too_high = false;
            self.start_probe_down(ack.now, ack.delivered);
        }
    }

    /// `IsTimeToProbeBW` (§5.3.3.5.3).
    fn is_time_to_probe(&self, now: Instant) -> bool {
        let reno = (self.target_inflight() / self.mss).min(RENO_ROUNDS);
        now > self.cycle.start + self.cycle.wait || self.cycle.rounds_since_probe_up >= reno
    }

    /// `IsTimeToCruise`.
    fn is_time_to_cruise(&self, in_flight: u64) -> bool {
        in_flight <= self.inflight_with_headroom() && in_flight <= self.inflight(self.bandwidth.max(), 1.0)
    }

    /// `IsTimeToGoDown`, and the rule that went before it in version 2: the draft goes on for three rounds, which leaves
    /// three quarters of a bandwidth-delay product in a deep queue. What is in flight beyond 1.25 times the product after a
    /// round trip waits in a queue: the product grows along if the path delivers more. Among others, who left a queue when the
    /// probe began, more time is needed to get a fair share.
    fn is_time_to_go_down(&mut self, ack: &Ack<'_>) -> bool {
        let in_flight = ack.sample.in_flight;
        if self.cycle.prev_probe_too_high && in_flight >= self.volume.longterm {
            self.cycle.prev_probe_precautionary = true;
            return true;
        }
        if ack.sample.cwnd_limited && self.cwnd >= self.volume.longterm {
            // The volume is what limits the rate.
            self.full.reset(ack.rate);
            return false;
        }
        let patience = self.min_rtt.get().unwrap_or_default() * if self.cycle.crowded { CROWDED_PROBE } else { 1 };
        let queues =
            ack.now > self.cycle.start + patience && in_flight > self.inflight(self.bandwidth.max(), QUEUE_GAIN);
        self.full.now || queues
    }

    /// `TargetInflight`.
    pub(super) fn target_inflight(&self) -> u64 {
        self.bdp().min(self.cwnd)
    }

    /// `InflightWithHeadroom`. The draft leaves 15 % of the long-term volume to others even where that is less than the product,
    /// and so part of the rate unused. Here the room is in the queue: the product stays, and what is acknowledged in heaps.
    pub(super) fn inflight_with_headroom(&self) -> u64 {
        let most = self.volume.longterm;
        if most == u64::MAX {
            return most;
        }
        let headroom = ((most as f64 * HEADROOM) as u64).max(self.mss);
        let needed = self.bdp_multiple(self.bandwidth.max(), 1.0) + self.aggregation.extra_acked();
        most.saturating_sub(headroom).max(needed.min(most)).max(self.min_pipe_cwnd())
    }

    /// `RaiseInflightLongtermSlope`: twice as steep each round.
    fn raise_inflight_slope(&mut self) {
        let growth = 1 << self.cycle.up_rounds;
        self.cycle.up_rounds = (self.cycle.up_rounds + 1).min(30);
        self.cycle.acked_per_increase = (self.cwnd / growth).max(self.mss);
    }

    /// `ProbeInflightLongtermUpward`.
    fn probe_inflight_upward(&mut self, ack: &Ack<'_>) {
        if !ack.sample.cwnd_limited || self.cwnd < self.volume.longterm {
            return;
        }
        self.cycle.up_acked += ack.sample.delivered;
        let increases = self.cycle.up_acked / self.cycle.acked_per_increase;
        self.cycle.up_acked -= increases * self.cycle.acked_per_increase;
        self.volume.longterm = self.volume.longterm.saturating_add(increases * self.mss);
        if self.rounds.start {
            self.raise_inflight_slope();
        }
    }

    /// `AdaptLongTermModel`. Returns whether it changed the state.
    fn adapt_long_term_model(&mut self, ack: &Ack<'_>) -> bool {
        if self.cycle.acks == Acks::ProbeStarting && self.rounds.start {
            self.cycle.acks = Acks::ProbeFeedback;
        }
        if self.cycle.acks == Acks::ProbeStopping && self.rounds.start {
            self.cycle.is_probe_sample = false;
            self.cycle.acks = Acks::Init;
            // The draft forgets nothing if ProbeRTT comes before the round ends, as it does again and again where a rate fell
            // and rounds became long. Here the probe counts.
            if core::mem::take(&mut self.cycle.probed) && !ack.rs.app_limited {
                self.bandwidth.advance();
            }
            if self.state.is_probe_bw() && self.cycle.prev_probe_precautionary && !self.cycle.prev_probe_too_high {
                self.start_probe_refill(ack.now, ack.delivered);
                return true;
            }
        }
        if !self.is_inflight_too_high(ack) && self.volume.longterm != u64::MAX {
            self.volume.longterm = self.volume.longterm.max(ack.rs.tx_in_flight);
            if self.state == State::ProbeUp {
                self.probe_inflight_upward(ack);
            }
        }
        false
    }
}
