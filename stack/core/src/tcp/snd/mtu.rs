//! Segments that were larger than the path takes.

use anabranch_frame::Instant;

use super::Snd;
use super::recovery::Phase;

impl Snd {
    /// The path takes no segments above the current size: what is under way in larger ones was dropped. It goes again
    /// at once, cut anew, and since that is no congestion the window stays (RFC 1191 §6.4, RFC 8201 §5.4).
    pub(crate) fn resend_oversized(&mut self, now: Instant) {
        let mut lost = 0;
        for index in 0..self.board.records().len() {
            let record = &self.board.records()[index];
            if record.in_flight() && u64::from(record.mss) > self.mss && record.payload_len() > self.mss {
                lost += self.board.mark_lost(index);
            }
        }
        if lost > 0 {
            self.recover_without_blame(now);
        }
    }

    /// Sends again what is marked lost, as after a timeout, but with the window that there is.
    fn recover_without_blame(&mut self, now: Instant) {
        self.recovery.phase = Phase::Loss;
        self.recovery.point = self.board.nxt();
        self.recovery.undo = None;
        self.recovery.force = true;
        self.recovery.dup_acks = 0;
        self.recovery.rto_tx = self.rate.last_tx();
        self.tlp.reset();
        self.timers.tlp = None;
        self.restart_rto(now);
    }

    /// A router says that the link was gone on which the segment at `pos` was to leave. If that is what was sent again
    /// last, it was not for congestion that nothing was heard: one doubling of the timeout is taken back (RFC 6069 §4).
    /// The first one stays, since by it is counted for how long the path has been silent.
    pub(crate) fn revert_backoff(&mut self, now: Instant, pos: u64) {
        if self.recovery.phase != Phase::Loss || pos != self.una() || self.rtt.backoff() < 2 {
            return;
        }
        self.rtt.limit_backoff(self.rtt.backoff() - 1);
        let sent_at = self.board.records().front().map_or(now, |head| head.stamp.sent_at);
        self.timers.rto = Some((sent_at + self.rtt.rto()).max(now));
    }
}
