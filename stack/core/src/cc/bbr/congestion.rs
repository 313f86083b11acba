//! What losses and marks change of the model (§5.5.10), and taking it back (§5.5.11).
//!
//! Two things are not the draft's:
//!
//! * It takes every round with a loss outside of a probe for congestion, and comes down by what was lost. On a path that loses
//!   1 % by itself that leaves half of the rate. Here such a round counts if it lost more than `LossThresh`, as in a probe.
//! * A queue that overflows is a queue that delays. As long as round trips are about as short as they ever were, so much as
//!   [`LOSS_WITHOUT_QUEUE`] is the path's own loss. Shorter queues than an eighth of a round trip, and policers, are seen at
//!   that share.
//!
//! It leaves ECN open but for one thing: a mark is a sign of congestion (§3.7). Here a round in which a mark is echoed is a
//! round with a loss that matters.

use anabranch_frame::Instant;

use super::phases::State;
use super::{Ack, Bbr};
use crate::cc::{AckSample, Loss};

/// `BBR.LossThresh`: more than this share of a round trip's data is too much.
const LOSS_THRESH: f64 = 0.02;
/// The same as long as there is no queue to be seen.
const LOSS_WITHOUT_QUEUE: f64 = 0.1;
/// `BBR.Beta`.
const BETA: f64 = 0.7;
/// `BBRStartupFullLossCnt`: acknowledgements that tell of losses, within a round trip, to leave Startup for.
const STARTUP_LOSSES: u32 = 6;

/// What an episode changes, and what it was before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Undo {
    /// `BBR.is_loss_in_round`.
    loss_in_round: bool,
    /// A mark was echoed in this round.
    mark_in_round: bool,
    /// Acknowledgements that told of losses in this round.
    loss_events: u32,
    /// Bytes lost since the first loss of the round, and delivered before it.
    lost: u64,
    delivered_before: u64,
    /// `BBR.undo_state`: what was left because of a loss.
    state: Option<State>,
    bw_shortterm: u64,
    inflight_shortterm: u64,
    inflight_longterm: u64,
}

/// `InflightAtLoss`: what part of a lost super-segment still fitted in with less than [`LOSS_THRESH`].
pub(super) fn inflight_at_loss(loss: &Loss) -> u64 {
    let before = loss.tx_in_flight.saturating_sub(loss.bytes) as f64;
    let lost_before = loss.lost.saturating_sub(loss.bytes) as f64;
    let prefix = (LOSS_THRESH * before - lost_before) / (1.0 - LOSS_THRESH);
    (before + prefix.max(0.0)) as u64
}

impl Bbr {
    /// Whether so much lost says that `of` was too much.
    fn too_much(&self, lost: u64, of: u64) -> bool {
        let most = if self.min_rtt.sees_queue() { LOSS_THRESH } else { LOSS_WITHOUT_QUEUE };
        lost as f64 > of as f64 * most
    }

    /// `SaveStateUponLoss`, once an episode.
    pub(super) fn save_state(&mut self) {
        self.save_cwnd();
        if self.recovering || self.undo.loss_in_round {
            return;
        }
        self.undo.state = None;
        self.undo.bw_shortterm = self.bandwidth.shortterm;
        self.undo.inflight_shortterm = self.volume.shortterm;
        self.undo.inflight_longterm = self.volume.longterm;
    }

    /// `HandleLostPacket` (§5.5.10.2).
    pub(super) fn handle_lost(&mut self, loss: &Loss) {
        self.note_loss(loss.total_delivered);
        self.undo.lost += loss.bytes;
        if self.cycle.is_probe_sample && self.too_much(loss.lost, loss.tx_in_flight) {
            self.handle_inflight_too_high(loss.now, loss.total_delivered, inflight_at_loss(loss), loss.app_limited);
        }
    }

    /// `NoteLoss`.
    fn note_loss(&mut self, delivered: u64) {
        if !self.undo.loss_in_round {
            self.rounds.loss_delivered = delivered;
            self.save_state();
            self.undo.lost = 0;
            self.undo.delivered_before = delivered;
        }
        self.undo.loss_in_round = true;
    }

    /// `HandleInflightTooHigh` (§5.5.10.2).
    fn handle_inflight_too_high(&mut self, now: Instant, delivered: u64, tx_in_flight: u64, app_limited: bool) {
        self.cycle.prev_probe_too_high = true;
        self.cycle.is_probe_sample = false;
        if !app_limited {
            let least = (self.target_inflight() as f64 * BETA) as u64;
            self.volume.longterm = tx_in_flight.max(least);
        }
        if self.state == State::ProbeUp {
            self.undo.state = Some(State::ProbeUp);
            self.start_probe_down(now, delivered);
        }
    }

    /// `IsInflightTooHigh` of an acknowledgement (§5.5.10.2).
    pub(super) fn is_inflight_too_high(&self, ack: &Ack<'_>) -> bool {
        self.too_much(ack.rs.lost, ack.rs.tx_in_flight)
    }

    /// `UpdateCongestionSignals` (§5.5.10.3): once a round the short-term model comes nearer to what is delivered.
    pub(super) fn update_congestion_signals(&mut self, ack: &Ack<'_>) {
        self.rounds.loss_start = ack.rs.prior_delivered >= self.rounds.loss_delivered;
        if self.rounds.loss_start {
            self.rounds.loss_delivered = ack.delivered;
        }
        self.update_max_bw(ack);
        self.hear_marks(ack);
        if !self.rounds.loss_start {
            return;
        }
        if self.undo.loss_in_round && !self.state.is_probing() && self.is_round_congested(ack.delivered) {
            self.adapt_lower_bounds();
        }
        self.undo.loss_in_round = false;
    }

    /// Whether the round that ends with so much delivered lost too much of it, or was marked.
    fn is_round_congested(&self, delivered: u64) -> bool {
        let Undo { lost, delivered_before, mark_in_round, .. } = self.undo;
        mark_in_round || self.too_much(lost, lost + delivered.saturating_sub(delivered_before))
    }

    /// Marks say at once what losses have to sum up to.
    fn hear_marks(&mut self, ack: &Ack<'_>) {
        if ack.sample.ce_bytes == 0 {
            return;
        }
        self.note_loss(ack.delivered);
        self.undo.mark_in_round = true;
        if self.cycle.is_probe_sample {
            self.handle_inflight_too_high(ack.now, ack.delivered, ack.rs.tx_in_flight, ack.rs.app_limited);
        }
    }

    /// `InitLowerBounds` and `LossLowerBounds`.
    fn adapt_lower_bounds(&mut self) {
        if self.bandwidth.shortterm == u64::MAX {
            self.bandwidth.shortterm = self.bandwidth.max();
        }
        if self.volume.shortterm == u64::MAX {
            self.volume.shortterm = self.cwnd;
        }
        let less = |value: u64| (value as f64 * BETA) as u64;
        self.bandwidth.shortterm = self.latest.bw.max(less(self.bandwidth.shortterm));
        self.volume.shortterm = self.latest.inflight.max(less(self.volume.shortterm));
    }

    /// `ResetShortTermModel`.
    pub(super) fn reset_short_term_model(&mut self) {
        self.bandwidth.shortterm = u64::MAX;
        self.volume.shortterm = u64::MAX;
    }

    /// `ResetCongestionSignals`.
    pub(super) fn reset_congestion_signals(&mut self) {
        self.undo.loss_in_round = false;
        self.latest = super::Latest::default();
    }

    /// `CheckStartupHighLoss` (§5.3.1.3): enough losses, in enough places, for a round of recovery; or a mark.
    pub(super) fn check_startup_high_loss(&mut self, ack: &Ack<'_>) {
        let AckSample { lost, in_recovery, .. } = *ack.sample;
        self.undo.loss_events = self.undo.loss_events.saturating_add(u32::from(lost > 0));
        if !self.rounds.loss_start {
            return;
        }
        let many = in_recovery && self.undo.loss_events >= STARTUP_LOSSES && self.is_inflight_too_high(ack);
        if self.state == State::Startup && !self.full.reached && (many || self.undo.mark_in_round) {
            self.undo.state = Some(State::Startup);
            self.full.reached = true;
            self.volume.longterm = self.bdp().max(self.latest.inflight);
        }
        self.undo.loss_events = 0;
        self.undo.mark_in_round = false;
    }

    /// `HandleSpuriousLossDetection` (§5.5.11.2).
    pub(super) fn handle_spurious(&mut self, now: Instant) {
        self.recovering = false;
        self.restore_cwnd();
        self.undo.loss_in_round = false;
        self.full.reset(0);
        self.bandwidth.shortterm = self.bandwidth.shortterm.max(self.undo.bw_shortterm);
        self.volume.shortterm = self.volume.shortterm.max(self.undo.inflight_shortterm);
        self.volume.longterm = self.volume.longterm.max(self.undo.inflight_longterm);
        match self.undo.state.take() {
            Some(State::Startup) if self.state != State::Startup => {
                self.full.reached = false;
                if self.state != State::ProbeRtt {
                    self.state = State::Startup;
                }
            }
            Some(State::ProbeUp) if !matches!(self.state, State::ProbeUp | State::ProbeRtt) => {
                self.start_probe_refill(now, self.rounds.loss_delivered);
            }
            _ => {}
        }
    }
}
