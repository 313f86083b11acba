//! How often a worker answers segments that may be an attack, or part of a loop of ACKs.

use core::time::Duration;

use anabranch_frame::Instant;

use crate::rng::Rng;

/// Limits of answers to segments that do not fit (RFC 5961 §7, Linux's `tcp_invalid_ratelimit` and
/// `tcp_challenge_ack_limit`).
#[derive(Debug)]
pub(crate) struct Guard {
    /// Time between two answers on one subflow.
    interval: Duration,
    /// Challenge ACKs a second, of the whole worker.
    per_second: u32,
    second: Instant,
    left: u32,
}

impl Guard {
    pub(crate) fn new(interval: Duration, per_second: u32) -> Self {
        Self { interval, per_second, second: Instant::ZERO, left: 0 }
    }

    /// A segment came in: another second may have begun. The limit is drawn anew each second, since whoever can count
    /// challenge ACKs up to a known limit learns of connections that are not his (CVE-2016-5696).
    pub(crate) fn tick(&mut self, now: Instant, rng: &mut Rng) {
        if self.per_second != u32::MAX && now.saturating_since(self.second) >= Duration::from_secs(1) {
            self.second = now;
            self.left = self.per_second.div_ceil(2) + rng.below(self.per_second);
        }
    }

    /// Whether a subflow may answer that last did so at `last`.
    pub(crate) fn admits(&self, now: Instant, last: &mut Option<Instant>) -> bool {
        let admits = last.is_none_or(|last| now.saturating_since(last) >= self.interval);
        if admits {
            *last = Some(now);
        }
        admits
    }

    /// Takes one of the worker's challenge ACKs of this second.
    pub(crate) fn take(&mut self) -> bool {
        if self.per_second == u32::MAX {
            return true;
        }
        let left = self.left > 0;
        self.left -= u32::from(left);
        left
    }
}
