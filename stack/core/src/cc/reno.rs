//! NewReno (RFC 5681, RFC 6582) with byte counting (RFC 3465).

use core::time::Duration;

use anabranch_frame::Instant;

use super::window::Window;
use super::{AckSample, CongestionControl, Group, Metrics};

/// NewReno: one segment more each round trip, half after a loss.
///
/// The reduction starts from the window, not from the bytes in flight, as in the kernel: the window
/// does not grow while the application leaves it unused (RFC 7661), so the two differ little.
#[derive(Debug)]
pub struct Reno {
    window: Window,
    /// Bytes delivered since the last step of congestion avoidance.
    credit: u64,
    undo: Option<Window>,
}

impl Reno {
    /// An initial window of segments of `mss` bytes.
    #[must_use]
    pub fn new(mss: u64) -> Self {
        Self { window: Window::new(mss), credit: 0, undo: None }
    }
}

impl Reno {
    /// Brings the window down to a part of it. There is no way back.
    pub(super) fn scale(&mut self, part: f64) {
        self.window.reduce_to((self.window.cwnd as f64 * part) as u64);
        self.credit = 0;
        self.undo = None;
    }
}

impl CongestionControl for Reno {
    fn name(&self) -> &'static str {
        "reno"
    }

    fn set_mss(&mut self, mss: u64) {
        self.window.set_mss(mss);
    }

    fn adopt(&mut self, before: Metrics) {
        self.window.adopt(before);
    }

    fn on_ack(&mut self, sample: &AckSample, _: Group<'_>) {
        if sample.in_recovery || sample.disordered || !sample.cwnd_limited {
            return;
        }
        self.credit += self.window.slow_start(sample.delivered);
        // RFC 3465 §2.1: a segment for each window of bytes.
        while self.credit >= self.window.cwnd {
            self.credit -= self.window.cwnd;
            self.window.grow(self.window.mss);
        }
    }

    fn on_congestion(&mut self, _: Instant, _: u64, _: Group<'_>) {
        self.undo = Some(self.window);
        self.window.reduce_to(self.window.cwnd / 2);
        self.credit = 0;
    }

    fn on_rto(&mut self, _: Instant, in_flight: u64, first: bool) {
        if first {
            self.undo = Some(self.window);
            self.window.reduce_to(self.window.cwnd / 2);
        }
        self.window.collapse(in_flight);
        self.credit = 0;
    }

    fn on_spurious(&mut self, _: Instant) {
        if let Some(before) = self.undo.take() {
            self.window.cwnd = self.window.cwnd.max(before.cwnd);
            self.window.ssthresh = self.window.ssthresh.max(before.ssthresh);
        }
    }

    fn on_idle(&mut self, _: Instant, rto: Duration, idle: Duration) {
        self.window.restart(rto, idle);
        self.credit = 0;
    }

    fn on_app_limited(&mut self, used: u64) {
        self.window.come_down_to(used);
    }

    fn penalise(&mut self, _: Instant) {
        self.window.penalise();
        self.credit = 0;
    }

    fn cwnd(&self) -> u64 {
        self.window.cwnd
    }

    fn ssthresh(&self) -> u64 {
        self.window.ssthresh
    }
}
