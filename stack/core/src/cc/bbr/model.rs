//! What is believed of the path (§5.5): rates, volumes, and the rounds in which they are told.

use core::time::Duration;

use anabranch_frame::Instant;

use super::{Ack, Bbr};

/// Growth of a round that counts as growth (§5.3.1.2).
const FULL_BW_GROWTH: f64 = 1.25;
/// Rounds without it until the pipe is full.
const FULL_BW_ROUNDS: u32 = 3;
/// `BBR.ExtraAckedFilterLen` in rounds; each of two halves of the window has half of it.
const EXTRA_ACKED_ROUNDS: u64 = 10;
/// Most of the rate's worth that ACKs are believed to be held back.
const EXTRA_ACKED_MAX: Duration = Duration::from_millis(100);

/// Round trips counted by packets (§5.5.1).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rounds {
    /// `BBR.round_count`.
    pub(super) count: u64,
    /// `BBR.round_start`: the acknowledgement begins a round.
    pub(super) start: bool,
    next_delivered: u64,
    /// `BBR.loss_round_start`, of the rounds that begin with a loss.
    pub(super) loss_start: bool,
    pub(super) loss_delivered: u64,
}

impl Rounds {
    /// `UpdateRound`.
    pub(super) fn update(&mut self, ack: &Ack<'_>) {
        self.start = ack.rs.prior_delivered >= self.next_delivered;
        if self.start {
            self.restart(ack.delivered);
            self.count += 1;
        }
    }

    /// `StartRound`.
    pub(super) fn restart(&mut self, delivered: u64) {
        self.next_delivered = delivered;
    }
}

/// Bytes per second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bandwidth {
    /// `BBR.max_bw_filter`: the best of the cycle before and of this one (§5.5.5).
    cycles: [u64; 2],
    /// `BBR.bw_shortterm`; `u64::MAX` is none.
    pub(super) shortterm: u64,
}

impl Default for Bandwidth {
    fn default() -> Self {
        Self { cycles: [0; 2], shortterm: u64::MAX }
    }
}

impl Bandwidth {
    /// `BBR.max_bw`.
    pub(super) fn max(&self) -> u64 {
        self.cycles[0].max(self.cycles[1])
    }

    /// `BBR.bw`.
    pub(super) fn bw(&self) -> u64 {
        self.max().min(self.shortterm)
    }

    /// `UpdateMaxBw`: what the application limited counts only if it is more.
    fn update(&mut self, rate: u64, app_limited: bool) {
        if rate >= self.max() || !app_limited {
            self.cycles[1] = self.cycles[1].max(rate);
        }
    }

    /// `AdvanceMaxBwFilter`. A cycle without a sample forgets nothing.
    pub(super) fn advance(&mut self) {
        if self.cycles[1] > 0 {
            self.cycles = [self.cycles[1], 0];
        }
    }
}

/// Bytes in flight; `u64::MAX` is no bound.
#[derive(Clone, Copy, Debug)]
pub(super) struct Volume {
    /// `BBR.inflight_longterm`.
    pub(super) longterm: u64,
    /// `BBR.inflight_shortterm`.
    pub(super) shortterm: u64,
}

impl Default for Volume {
    fn default() -> Self {
        Self { longterm: u64::MAX, shortterm: u64::MAX }
    }
}

/// The best of the round that goes on, to fall back to when it loses (§5.5.10.3).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Latest {
    /// `BBR.bw_latest`.
    pub(super) bw: u64,
    /// `BBR.inflight_latest`.
    pub(super) inflight: u64,
}

/// Whether the path takes no more (§5.3.1.2).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FullPipe {
    /// `BBR.full_bw_reached`, at some time.
    pub(super) reached: bool,
    /// `BBR.full_bw_now`, since it was last looked for.
    pub(super) now: bool,
    bw: u64,
    rounds: u32,
}

impl FullPipe {
    /// `ResetFullBW`, with a new baseline.
    pub(super) fn reset(&mut self, bw: u64) {
        *self = Self { reached: self.reached, now: false, bw, rounds: 0 };
    }
}

/// How much more than the rate says is acknowledged at once (§5.5.9).
#[derive(Clone, Copy, Debug)]
pub(super) struct Aggregation {
    start: Instant,
    delivered: u64,
    /// The most of the half of the window before, and of this one.
    halves: [u64; 2],
    half_since: u64,
}

impl Default for Aggregation {
    fn default() -> Self {
        Self { start: Instant::ZERO, delivered: 0, halves: [0; 2], half_since: 0 }
    }
}

impl Aggregation {
    /// `BBR.extra_acked`.
    pub(super) fn extra_acked(&self) -> u64 {
        self.halves[0].max(self.halves[1])
    }

    /// What is acknowledged is measured from now on.
    pub(super) fn restart(&mut self, now: Instant) {
        self.start = now;
        self.delivered = 0;
    }
}

impl Latest {
    /// `UpdateLatestDeliverySignals`.
    pub(super) fn update(&mut self, ack: &Ack<'_>) {
        self.bw = self.bw.max(ack.rate);
        self.inflight = self.inflight.max(ack.rs.delivered);
    }

    /// `AdvanceLatestDeliverySignals`, at the end of a round.
    pub(super) fn advance(&mut self, ack: &Ack<'_>) {
        *self = Self { bw: ack.rate, inflight: ack.rs.delivered };
    }
}

impl Bbr {
    /// `UpdateMaxBw` (§5.5.5).
    pub(super) fn update_max_bw(&mut self, ack: &Ack<'_>) {
        self.rounds.update(ack);
        if self.rounds.start {
            self.cycle.rounds_since_probe_up += 1;
        }
        if ack.rate > 0 {
            self.bandwidth.update(ack.rate, ack.rs.app_limited);
        }
    }

    /// `UpdateACKAggregation` (§5.5.9).
    pub(super) fn update_ack_aggregation(&mut self, ack: &Ack<'_>) {
        let aggregation = &mut self.aggregation;
        let bw = self.bandwidth.bw();
        let worth = |time: Duration| (bw as f64 * time.as_secs_f64()) as u64;
        let mut expected = worth(ack.now - aggregation.start);
        if aggregation.delivered <= expected {
            aggregation.restart(ack.now);
            expected = 0;
        }
        aggregation.delivered += ack.sample.delivered;
        let extra = (aggregation.delivered - expected.min(aggregation.delivered)).min(self.cwnd);
        let half = if self.full.reached { EXTRA_ACKED_ROUNDS / 2 } else { 1 };
        if self.rounds.start && self.rounds.count >= aggregation.half_since + half {
            aggregation.halves = [aggregation.halves[1], 0];
            aggregation.half_since = self.rounds.count;
        }
        aggregation.halves[1] = aggregation.halves[1].max(extra.min(worth(EXTRA_ACKED_MAX)));
    }

    /// `CheckFullBWReached` (§5.3.1.2).
    pub(super) fn check_full_pipe(&mut self, ack: &Ack<'_>) {
        if self.full.now || !self.rounds.start || ack.rs.app_limited {
            return;
        }
        if ack.rate as f64 >= self.full.bw as f64 * FULL_BW_GROWTH {
            return self.full.reset(ack.rate);
        }
        self.full.rounds += 1;
        self.full.now = self.full.rounds >= FULL_BW_ROUNDS;
        self.full.reached |= self.full.now;
    }
}
