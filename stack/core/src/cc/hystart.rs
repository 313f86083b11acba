//! HyStart++ (RFC 9406): leave slow start when round trips begin to take longer, before packets are lost.

use core::num::NonZeroU64;
use core::time::Duration;

use super::AckSample;

/// RFC 9406 §4.3, times in nanoseconds.
const MIN_RTT_THRESH: u64 = 4_000_000;
const MAX_RTT_THRESH: u64 = 16_000_000;
const MIN_RTT_DIVISOR: u64 = 8;
const N_RTT_SAMPLE: u32 = 8;
const CSS_GROWTH_DIVISOR: u64 = 4;
const CSS_ROUNDS: u32 = 5;

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

/// State of the first slow start of a connection; later ones have a threshold to stop at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HyStart {
    last_round_min: Option<Nanos>,
    round_min: Option<Nanos>,
    samples: u32,
    conservative: Option<Conservative>,
}

impl HyStart {
    /// An acknowledgement came (RFC 9406 §4.2).
    pub(super) fn on_ack(&mut self, sample: &AckSample) -> Verdict {
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
