//! DCTCP (RFC 8257): comes down by as much as the share of what was marked says, instead of by half.
//!
//! For networks whose queues mark early, and only for those: it is not fair to others elsewhere (RFC 8257 §6).

use core::time::Duration;

use anabranch_frame::Instant;

use super::{AckSample, CongestionControl, Group, Metrics, Reno};

/// RFC 8257 §4.2: the weight of the last window in the average.
const G: f64 = 1.0 / 16.0;

/// NewReno that hears how much was marked.
#[derive(Debug)]
pub struct Dctcp {
    reno: Reno,
    /// `DCTCP.Alpha`, the share of marked bytes. It begins with the worst (§4.2).
    alpha: f64,
    /// Bytes delivered, and marked, in this window.
    delivered: u64,
    marked: u64,
    /// The window came down for a mark in this round trip: it does not grow in it either.
    reduced: bool,
}

impl Dctcp {
    /// An initial window of segments of `mss` bytes.
    #[must_use]
    pub fn new(mss: u64) -> Self {
        Self { reno: Reno::new(mss), alpha: 1.0, delivered: 0, marked: 0, reduced: false }
    }

    /// The end of an observation window (§3.3 steps 3 to 8).
    fn end_window(&mut self) {
        if self.delivered > 0 {
            let share = self.marked.min(self.delivered) as f64 / self.delivered as f64;
            self.alpha = (self.alpha * (1.0 - G) + share * G).min(1.0);
        }
        self.delivered = 0;
        self.marked = 0;
        self.reduced = false;
    }
}

impl CongestionControl for Dctcp {
    fn name(&self) -> &'static str {
        "dctcp"
    }

    fn set_mss(&mut self, mss: u64) {
        self.reno.set_mss(mss);
    }

    fn on_ack(&mut self, sample: &AckSample, group: Group<'_>) {
        if sample.round_start {
            self.end_window();
        }
        self.delivered += sample.delivered;
        self.marked += sample.ce_bytes;
        if sample.ce_bytes > 0 && !self.reduced {
            // Once a round trip, and at the first mark of it (§3.3 step 9; Linux: on entering CWR).
            self.reduced = true;
            self.reno.scale(1.0 - self.alpha / 2.0);
        }
        if !self.reduced {
            self.reno.on_ack(sample, group);
        }
    }

    fn on_congestion(&mut self, now: Instant, in_flight: u64, group: Group<'_>) {
        // A loss is a loss (§3.5).
        self.reno.on_congestion(now, in_flight, group);
    }

    fn on_rto(&mut self, now: Instant, in_flight: u64, first: bool) {
        self.reno.on_rto(now, in_flight, first);
    }

    fn on_spurious(&mut self, now: Instant) {
        self.reno.on_spurious(now);
    }

    fn on_idle(&mut self, now: Instant, rto: Duration, idle: Duration) {
        self.reno.on_idle(now, rto, idle);
    }

    fn on_app_limited(&mut self, used: u64) {
        self.reno.on_app_limited(used);
    }

    fn penalise(&mut self, now: Instant) {
        self.reno.penalise(now);
    }

    fn adopt(&mut self, before: Metrics) {
        self.reno.adopt(before);
    }

    fn cwnd(&self) -> u64 {
        self.reno.cwnd()
    }

    fn ssthresh(&self) -> u64 {
        self.reno.ssthresh()
    }

    fn needs_ecn(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cc::tests::{ALONE, MSS, sample};

    /// A round trip in which the first `marked` of `segments` segments come with marks, from a window of `segments`.
    fn round(cc: &mut Dctcp, at: &mut Instant, segments: u64, marked: u64) {
        for n in 0..segments {
            *at += Duration::from_micros(10);
            let ce_bytes = if n < marked { MSS } else { 0 };
            let sample = AckSample { ce_bytes, round_start: n == 0, ..sample(*at, MSS, Duration::from_millis(1)) };
            cc.on_ack(&sample, ALONE);
        }
    }

    #[test]
    fn the_first_mark_halves_and_ends_slow_start() {
        let (mut cc, mut at) = (Dctcp::new(MSS), Instant::ZERO);
        round(&mut cc, &mut at, 10, 0);
        assert_eq!(cc.cwnd(), 20 * MSS);
        round(&mut cc, &mut at, 20, 20);
        // Alpha began with 1, and a round without marks made it 15/16: 20 × (1 − 15/32).
        assert_eq!((cc.cwnd(), cc.in_slow_start()), (10_625, false));
    }

    #[test]
    fn the_window_follows_the_share_of_marks() {
        // Given a tenth of all that is marked for so long that the average knows (§3.3),
        let (mut cc, mut at) = (Dctcp::new(MSS), Instant::ZERO);
        for _ in 0..200 {
            round(&mut cc, &mut at, 20, 2);
        }
        assert!((cc.alpha - 0.1).abs() < 0.001, "{}", cc.alpha);
        // when the next window is marked, then it comes down by a twentieth, once.
        let before = 1000 * MSS;
        cc.adopt(Metrics { cwnd: before, ssthresh: before, pacing_rate: None });
        round(&mut cc, &mut at, 20, 1);
        let expected = (before as f64 * (1.0 - cc.alpha / 2.0)) as u64;
        assert!(cc.cwnd().abs_diff(expected) <= before / 200, "{} instead of {expected}", cc.cwnd());
    }

    #[test]
    fn without_marks_it_is_reno_and_a_loss_is_a_loss() {
        let (mut cc, mut reno, mut at) = (Dctcp::new(MSS), Reno::new(MSS), Instant::ZERO);
        for segments in [10, 20, 40, 20, 20] {
            for _ in 0..segments {
                at += Duration::from_micros(10);
                let sample = sample(at, MSS, Duration::from_millis(1));
                cc.on_ack(&sample, ALONE);
                reno.on_ack(&sample, ALONE);
            }
            if segments == 40 {
                cc.on_congestion(at, 0, ALONE);
                reno.on_congestion(at, 0, ALONE);
            }
            assert_eq!((cc.cwnd(), cc.ssthresh()), (reno.cwnd(), reno.ssthresh()));
        }
        assert!(cc.cwnd() >= 40 * MSS && cc.cwnd() < 44 * MSS, "{}", cc.cwnd());
    }
}
