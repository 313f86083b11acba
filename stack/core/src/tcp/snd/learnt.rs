//! What a subflow learnt of its path, and what the next one to the same destination makes of it (RFC 9040 §6.2).

use core::time::Duration;

use super::{Pacing, Snd};
use crate::cc::{INITIAL_WINDOW, Metrics};

/// What is remembered of a destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Learnt {
    /// Congestion window in bytes.
    pub(crate) cwnd: u64,
    /// Slow-start threshold in bytes; `u64::MAX` if slow start went on.
    pub(crate) ssthresh: u64,
    /// Smoothed round-trip time.
    pub(crate) srtt: Duration,
}

impl Snd {
    /// What the end of the subflow leaves behind; `None` if it saw next to nothing of the path. In recovery the window is none
    /// that holds; the threshold is what it will come to (Linux: `tcp_update_metrics`).
    pub(crate) fn learnt(&self) -> Option<Learnt> {
        let srtt = self.rtt.srtt()?;
        let enough = self.bytes_acked() > INITIAL_WINDOW * self.mss;
        let cwnd = if self.in_rto() || self.in_recovery() { self.ssthresh() } else { self.cwnd() };
        enough.then_some(Learnt { cwnd, ssthresh: self.ssthresh(), srtt })
    }

    /// Begins where an earlier subflow was, with half of its window: what else is on the path may have changed. It is paced,
    /// since nothing is under way that would set the pace. To be called before anything is sent.
    pub(crate) fn start_from(&mut self, learnt: &Learnt) {
        if self.rtt.srtt().is_none() {
            self.seed_rtt(learnt.srtt);
        }
        let cwnd = (learnt.cwnd / 2).max(INITIAL_WINDOW * self.mss).min(learnt.ssthresh.max(self.mss));
        self.cc.adopt(Metrics { cwnd, ssthresh: learnt.ssthresh, pacing_rate: None });
        self.set_pacing(Pacing { always: true, ..self.pace.socket() });
    }
}
