//! How loss recovery behaves, under the names of the kernel's settings.

use core::time::Duration;

/// How a sender finds out what was lost, and when it gives up: the settings `net.ipv4.tcp_*` of the same names, with the
/// kernel's defaults. Connections take over what holds when they are established, but for the limits on retries, which
/// hold at once.
///
/// They may be changed at any time, see [`Shard::set_recovery`](crate::Shard::set_recovery).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Recovery {
    /// Send tail loss probes (RFC 8985 §7; `tcp_early_retrans` 3 or 4).
    pub early_retrans: bool,
    /// Find out by new data whether a timeout was spurious (RFC 5682; `tcp_frto`).
    pub frto: bool,
    /// Leave RACK's reordering window at a quarter of the smallest round-trip time (bit 2 of `tcp_recovery`).
    pub static_reo_wnd: bool,
    /// Do not take three SACKed segments for a loss without waiting for the reordering window (bit 4 of `tcp_recovery`).
    pub no_dupthresh: bool,
    /// So many duplicate ACKs or SACKed segments make a loss as long as no reordering was seen (`tcp_reordering`).
    pub reordering: u16,
    /// The degree of reordering that is learned goes no further, in segments (`tcp_max_reordering`).
    pub max_reordering: u16,
    /// Retransmission timeouts without progress after which the peer is given up (`tcp_retries2`). They stand for the time
    /// that they take from a timeout of 200 ms on: 15 are 924.6 s.
    pub retries2: u8,
    /// The same for a connection that the application let go of (`tcp_orphan_retries`); 0 stands for 8.
    pub orphan_retries: u8,
    /// Reduce a window that was not used for a timeout or longer (RFC 2861; `tcp_slow_start_after_idle`).
    pub slow_start_after_idle: bool,
    /// Least allowance for variation in the retransmission timeout (`tcp_rto_min_us`), 1 ms to 1 s.
    pub rto_min: Duration,
    /// Longest retransmission timeout, back-off included (`tcp_rto_max_ms`), 1 s to 120 s.
    pub rto_max: Duration,
    /// Repeat the first six timeouts at the same distance when less than four segments are outstanding
    /// (`tcp_thin_linear_timeouts`).
    pub thin_linear_timeouts: bool,
}

impl Default for Recovery {
    fn default() -> Self {
        Self {
            early_retrans: true,
            frto: true,
            static_reo_wnd: false,
            no_dupthresh: false,
            reordering: 3,
            max_reordering: 300,
            retries2: 15,
            orphan_retries: 0,
            slow_start_after_idle: true,
            rto_min: Duration::from_millis(200),
            rto_max: Duration::from_secs(120),
            thin_linear_timeouts: false,
        }
    }
}

impl Recovery {
    /// The same with all values in their bounds.
    pub(crate) fn bounded(self) -> Self {
        Self {
            reordering: self.reordering.clamp(1, self.max_reordering.max(1)),
            rto_min: self.rto_min.clamp(Duration::from_millis(1), Duration::from_secs(1)),
            rto_max: self.rto_max.clamp(Duration::from_secs(1), Duration::from_secs(120)),
            ..self
        }
    }

    /// How long a sender goes on that hears nothing, from its first retransmission on. The number of retries stands for
    /// the time that it takes from the shortest timeout on (RFC 9293 §3.8.3 R2; Linux: `tcp_model_timeout`).
    pub(crate) fn patience(&self, orphan: bool) -> Duration {
        let retries = self.retries(orphan);
        let shortest = Duration::from_millis(200);
        let doublings = (self.rto_max.as_millis() / shortest.as_millis()).max(1).ilog2();
        let doubled = retries.min(doublings);
        shortest * ((2 << doubled) - 1) + self.rto_max * (retries - doubled)
    }

    /// How often a peer is asked that says nothing, by retransmissions or window probes.
    pub(crate) fn retries(&self, orphan: bool) -> u32 {
        match (orphan, self.orphan_retries) {
            (false, _) => self.retries2.into(),
            (true, 0) => 8,
            (true, retries) => retries.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_stand_for_the_time_that_they_take() {
        let recovery = Recovery::default();
        assert_eq!(recovery.patience(false), Duration::from_millis(924_600), "what the kernel documents for 15");
        assert_eq!(recovery.patience(true), Duration::from_millis(102_200));
        let short = Recovery { retries2: 3, orphan_retries: 1, ..recovery };
        assert_eq!(short.patience(false), Duration::from_secs(3));
        assert_eq!(short.patience(true), Duration::from_millis(600));
        let steady = Recovery { retries2: 5, rto_max: Duration::from_secs(1), ..recovery };
        assert_eq!(steady.patience(false), Duration::from_millis(200 + 400 + 800 + 3000));
    }
}
