//! HyStart++ (RFC 9406): leave slow start when round trips begin to take longer, before packets are lost.
//!
//! With the other half of the original HyStart (Ha and Rhee, "Taming the elephants: New TCP slow start", 2011), which the
//! RFC leaves out and Linux has: acknowledgements that keep coming without a pause tell that the pipe is full, before its
//! queue is. In Linux the first pause ends a round's train. A path that holds packets back puts pauses into every round; here
//! they are taken out of the train, and the rest of it counts.

use core::num::NonZeroU64;
use core::time::Duration;

use anabranch_frame::Instant;

use super::AckSample;
use super::window::Window;

/// RFC 9406 §4.3, times in nanoseconds.
const MIN_RTT_THRESH: u64 = 4_000_000;
const MAX_RTT_THRESH: u64 = 16_000_000;
const MIN_RTT_DIVISOR: u64 = 8;
const N_RTT_SAMPLE: u32 = 8;
const CSS_GROWTH_DIVISOR: u64 = 4;
const CSS_ROUNDS: u32 = 5;
/// Acknowledgements no further apart belong to one train (Linux: `hystart_ack_delta_us`), for each segment that the later one
/// stands for. A receiver that delays them acknowledges every second segment.
const TRAIN_GAP: Duration = Duration::from_millis(2);
const TRAIN_SEGMENTS: u64 = 2;
/// A train is over the pipe's length when it takes this part of the smallest round trip: it took half of it on the way.
const TRAIN_DIVISOR: u32 = 2;
/// Windows of fewer segments are too small for a train to mean something (Linux: `hystart_low_window`).
const TRAIN_WINDOW: u64 = 16;

/// Conservative slow start: a time of slower growth that finds out whether the delay was real.
#[derive(Clone, Copy, Debug)]
struct Conservative {
    baseline: Nanos,
    rounds: u32,
}

/// A round-trip time in nanoseconds: a connection keeps three of them for ever.
type Nanos = NonZeroU64;

fn nanos(rtt: Duration) -> Nanos {
    let nanos = u64::try_from(rtt.as_nanos()).unwrap_or(u64::MAX);
    Nanos::new(nanos).unwrap_or(Nanos::MIN)
}

/// What an acknowledgement in slow start means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// Grow by this many bytes.
    Grow(u64),
    /// Slow start is over.
    Leave,
}

/// Acknowledgements of a round: when the first one came, later by all pauses since, and when the last one did.
#[derive(Clone, Copy, Debug)]
struct Train {
    begin: Instant,
    last: Instant,
}

/// State of the first slow start of a connection; later ones have a threshold to stop at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HyStart {
    last_round_min: Option<Nanos>,
    round_min: Option<Nanos>,
    samples: u32,
    conservative: Option<Conservative>,
    train: Option<Train>,
}

impl HyStart {
    /// An acknowledgement came (RFC 9406 §4.2), with this window.
    pub(super) fn on_ack(&mut self, sample: &AckSample, window: &Window) -> Verdict {
        if self.train_fills_the_pipe(sample, window.mss) && window.cwnd >= TRAIN_WINDOW * window.mss {
            return Verdict::Leave;
        }
        if sample.round_start {
            self.last_round_min = self.round_min.take();
            self.samples = 0;
            if let Some(conservative) = &mut self.conservative {
                conservative.rounds += 1;
                if conservative.rounds >= CSS_ROUNDS {
                    return Verdict::Leave;
                }
            }
        }
        if let Some(rtt) = sample.rtt.map(nanos) {
            self.round_min = Some(self.round_min.map_or(rtt, |min| min.min(rtt)));
            self.samples += 1;
        }
        if self.samples >= N_RTT_SAMPLE {
            self.judge();
        }
        let divisor = if self.conservative.is_some() { CSS_GROWTH_DIVISOR } else { 1 };
        Verdict::Grow(sample.delivered / divisor)
    }

    /// Whether acknowledgements have come for half a round trip, pauses left out.
    fn train_fills_the_pipe(&mut self, sample: &AckSample, mss: u64) -> bool {
        let now = sample.now;
        let Some(train) = self.train.as_mut().filter(|_| !sample.round_start) else {
            self.train = Some(Train { begin: now, last: now });
            return false;
        };
        let gap = now.saturating_since(core::mem::replace(&mut train.last, now));
        let segments = (sample.delivered / mss).clamp(1, TRAIN_SEGMENTS);
        if gap > TRAIN_GAP * segments as u32 {
            train.begin += gap;
            return false;
        }
        now.saturating_since(train.begin) > sample.min_rtt / TRAIN_DIVISOR
    }

    /// Enters or leaves conservative slow start, with enough samples of this round.
    fn judge(&mut self) {
        let Some(min) = self.round_min else { return };
        match self.conservative {
            Some(Conservative { baseline, .. }) => {
                if min < baseline {
                    self.conservative = None;
                }
            }
            None => {
                let Some(last) = self.last_round_min else { return };
                let thresh = (last.get() / MIN_RTT_DIVISOR).clamp(MIN_RTT_THRESH, MAX_RTT_THRESH);
                if min.get() >= last.get().saturating_add(thresh) {
                    // The rest of this round is the first of the conservative ones.
                    self.conservative = Some(Conservative { baseline: min, rounds: 0 });
                }
            }
        }
    }
}
