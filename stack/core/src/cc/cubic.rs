use super::{AckSample, CongestionControl, Group, INITIAL_WINDOW};
use anabranch_frame::Instant;
use core::time::Duration;

/// Cubic.
#[derive(Debug)]
pub struct Cubic {
    mss: u64,
}
impl Cubic {
    /// New.
    #[must_use]
    pub fn new(mss: u64) -> Self {
        Self { mss }
    }
}
impl CongestionControl for Cubic {
    fn name(&self) -> &'static str {
        "cubic"
    }
    fn set_mss(&mut self, mss: u64) {
        self.mss = mss;
    }
    fn on_ack(&mut self, _: &AckSample, _: Group<'_>) {}
    fn on_congestion(&mut self, _: Instant, _: u64, _: Group<'_>) {}
    fn on_rto(&mut self, _: Instant, _: u64, _: bool) {}
    fn on_spurious(&mut self, _: Instant) {}
    fn on_idle(&mut self, _: Instant, _: Duration, _: Duration) {}
    fn cwnd(&self) -> u64 {
        INITIAL_WINDOW * self.mss
    }
    fn ssthresh(&self) -> u64 {
        u64::MAX
    }
}
