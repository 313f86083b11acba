//! What every window-based algorithm does alike.

use core::time::Duration;

use super::{INITIAL_WINDOW, MIN_WINDOW, Metrics};

/// Largest window in bytes: four times what TCP's window field can express (RFC 7323 §2.2).
const MAX_WINDOW: u64 = 1 << 32;

/// Congestion window and slow-start threshold, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) mss: u64,
    pub(super) cwnd: u64,
    /// `u64::MAX` while unset.
    pub(super) ssthresh: u64,
}

impl Window {
    pub(super) fn new(mss: u64) -> Self {
        let mss = mss.max(1);
        Self { mss, cwnd: INITIAL_WINDOW * mss, ssthresh: u64::MAX }
    }

    /// A window that nothing has moved yet stays ten segments; any other keeps its bytes.
    pub(super) fn set_mss(&mut self, mss: u64) {
        let fresh = Self::new(self.mss);
        if (fresh.cwnd, fresh.ssthresh) == (self.cwnd, self.ssthresh) {
            *self = Self::new(mss);
        } else {
            self.mss = mss.max(1);
            self.cwnd = self.cwnd.max(self.mss);
        }
    }

    /// The window of an algorithm that this one replaces.
    pub(super) fn adopt(&mut self, before: Metrics) {
        self.cwnd = before.cwnd.max(self.mss);
        self.ssthresh = before.ssthresh;
    }

    pub(super) fn in_slow_start(&self) -> bool {
        self.cwnd < self.ssthresh
    }

    /// The smallest window after a reduction (RFC 5681 equation 4).
    pub(super) fn floor(&self) -> u64 {
        MIN_WINDOW * self.mss
    }

    pub(super) fn grow(&mut self, bytes: u64) {
        self.cwnd = (self.cwnd + bytes).min(MAX_WINDOW);
    }

    /// Slow start by bytes (RFC 5681 equation 2, RFC 3465). There is no limit for one
    /// acknowledgement: with receive offload it stands for dozens of segments, and the kernel has no
    /// limit either. Returns the bytes that are left for congestion avoidance.
    pub(super) fn slow_start(&mut self, bytes: u64) -> u64 {
        let used = bytes.min(self.ssthresh.saturating_sub(self.cwnd));
        self.grow(used);
        bytes - used
    }

    /// Reduces to `target` bytes, but not below the floor.
    pub(super) fn reduce_to(&mut self, target: u64) {
        self.ssthresh = target.max(self.floor());
        self.cwnd = self.ssthresh;
    }

    /// One segment, the loss window of RFC 5681 §3.1, beyond what is still under way.
    pub(super) fn collapse(&mut self, in_flight: u64) {
        self.cwnd = in_flight + self.mss;
    }

    /// Half-way down to what is used, but not below the initial window (RFC 2861 §3.1); the threshold remembers three
    /// quarters of it.
    pub(super) fn come_down_to(&mut self, used: u64) {
        let used = used.max(INITIAL_WINDOW * self.mss);
        if used < self.cwnd {
            self.ssthresh = self.ssthresh.max(self.cwnd / 4 * 3);
            self.cwnd = u64::midpoint(self.cwnd, used);
        }
    }

    /// After an idle time (RFC 2861 §3.1, as the kernel does it): half the window for each
    /// retransmission timeout beyond the first, but not below the initial window; the threshold
    /// remembers three quarters of it.
    pub(super) fn restart(&mut self, rto: Duration, idle: Duration) {
        if idle <= rto {
            return;
        }
        self.ssthresh = self.ssthresh.max(self.cwnd / 4 * 3);
        let restart = self.cwnd.min(INITIAL_WINDOW * self.mss);
        let mut left = idle - rto;
        while !left.is_zero() && self.cwnd > restart {
            self.cwnd /= 2;
            left = left.saturating_sub(rto);
        }
        self.cwnd = self.cwnd.max(restart);
    }

    /// Half the window, and half the threshold outside slow start (Raiciu et al., NSDI 2012, §4.2).
    pub(super) fn penalise(&mut self) {
        if !self.in_slow_start() {
            self.ssthresh = (self.ssthresh / 2).max(self.floor());
        }
        self.cwnd = (self.cwnd / 2).max(self.floor()).min(self.cwnd);
    }
}
