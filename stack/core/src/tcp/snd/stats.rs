//! Sums for `tcp_info`, the scheduler and coupled congestion control.

use anabranch_frame::Instant;

/// Segments after which lost and delivered bytes count half.
const AGEING_SEGMENTS: u64 = 2048;

#[derive(Debug, Default)]
pub(super) struct Stats {
    pub(super) bytes_sent: u64,
    pub(super) bytes_acked: u64,
    pub(super) bytes_retrans: u64,
    pub(super) total_retrans: u32,
    /// Segments that the peer says it got twice.
    pub(super) dsack_dups: u32,
    pub(super) last_sent: Option<Instant>,
    pub(super) lost_aged: u64,
    pub(super) delivered_aged: u64,
    pub(super) delivered_ce: u64,
    pub(super) acked_since_loss: u64,
    pub(super) acked_between_losses: u64,
}

impl Stats {
    pub(super) fn sent(&mut self, now: Instant, bytes: u64) {
        self.bytes_sent += bytes;
        self.last_sent = Some(now);
    }

    pub(super) fn resent(&mut self, now: Instant, bytes: u64, segments: u64) {
        self.sent(now, bytes);
        self.bytes_retrans += bytes;
        self.total_retrans = self.total_retrans.saturating_add(u32::try_from(segments).unwrap_or(u32::MAX));
    }

    pub(super) fn acked(&mut self, bytes: u64) {
        self.bytes_acked += bytes;
        self.acked_since_loss += bytes;
    }

    pub(super) fn delivered(&mut self, positions: u64, mss: u64) {
        self.delivered_aged += positions;
        self.age(mss);
    }

    pub(super) fn lost(&mut self, positions: u64, mss: u64) {
        self.lost_aged += positions;
        self.age(mss);
    }

    /// Congestion control hears of a loss.
    pub(super) fn on_loss(&mut self) {
        self.acked_between_losses = core::mem::take(&mut self.acked_since_loss);
    }

    fn age(&mut self, mss: u64) {
        while self.lost_aged + self.delivered_aged >= AGEING_SEGMENTS * mss {
            self.lost_aged /= 2;
            self.delivered_aged /= 2;
        }
    }
}
