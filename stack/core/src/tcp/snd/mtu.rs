//! Segments that were larger than the path takes, or may be.

use anabranch_frame::Instant;

use super::Snd;
use super::recovery::Phase;

/// A probe on its way (RFC 4821 §7).
#[derive(Clone, Copy, Debug)]
pub(super) struct MtuProbe {
    start: u64,
    end: u64,
    lost: Option<Probed>,
}

/// What became of a probe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Probed {
    /// It arrived.
    Passed,
    /// It was lost, and nothing else was.
    Lost,
    /// Nobody knows: all that was under way was lost.
    Unclear,
}

impl Snd {
    /// Whether this is a time for a probe: nothing is lost or overtaken, none is out, and the window has room for what
    /// must follow (Linux: eleven segments).
    pub(crate) fn may_probe_mtu(&self) -> bool {
        self.recovery.phase == Phase::Open
            && self.mtu_probe.is_none()
            && !self.tlp.due
            && self.board.tally().sacked == 0
            && self.cc.cwnd() >= 11 * self.mss
    }

    /// What was sent last, at `start`, is a probe: one segment.
    pub(crate) fn begin_mtu_probe(&mut self, start: u64) {
        self.board.make_last_one_segment();
        self.mtu_probe = Some(MtuProbe { start, end: self.nxt(), lost: None });
    }

    /// Whether a probe is under way.
    pub(crate) fn mtu_probe_out(&self) -> bool {
        self.mtu_probe.is_some()
    }

    /// Whether `len` positions from `pos` on are the probe.
    pub(crate) fn is_mtu_probe(&self, pos: u64, len: u64) -> bool {
        self.mtu_probe.is_some_and(|probe| probe.start == pos && probe.end == pos + len)
    }

    /// What became of the probe, once that is known.
    pub(crate) fn judge_mtu_probe(&mut self) -> Option<Probed> {
        let probe = self.mtu_probe?;
        let passed = (self.una() >= probe.end).then_some(Probed::Passed);
        let probed = probe.lost.or(passed)?;
        self.mtu_probe = None;
        Some(probed)
    }

    /// If only the probe was lost: that is no congestion (§7.5). It goes again in segments of the usual size.
    pub(super) fn excuse_mtu_probe(&mut self, now: Instant) -> bool {
        let lost = self.board.tally().lost;
        let Some(probe) = self.mtu_probe.as_mut().filter(|probe| probe.lost.is_none()) else { return false };
        if self.board.una() != probe.start || lost != probe.end - probe.start {
            return false;
        }
        probe.lost = Some(Probed::Lost);
        self.recover_without_blame(now);
        true
    }

    /// All that is under way is taken for lost.
    pub(super) fn doubt_mtu_probe(&mut self) {
        if let Some(probe) = &mut self.mtu_probe {
            probe.lost.get_or_insert(Probed::Unclear);
        }
    }

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
        self.recovery.frto = false;
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
