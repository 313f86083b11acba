//! Recovery episodes: fast recovery with PRR (RFC 6937bis), recovery from a timeout, and taking either back when
//! it proves needless.

use anabranch_frame::Instant;

use super::Snd;
use super::ack::News;
use crate::cc::Group;

/// Where loss recovery stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// Nothing is presumed lost.
    Open,
    /// Nothing is presumed lost either, but the peer echoes congestion: down to the new window (Linux: CWR).
    Cwr,
    /// Fast recovery.
    Recovery,
    /// After a retransmission timeout.
    Loss,
}

#[derive(Debug)]
pub(super) struct Recovery {
    pub(super) phase: Phase,
    /// The episode ends when this position is acknowledged; RFC 6582's `recover` afterwards.
    pub(super) point: u64,
    pub(super) prr: Prr,
    pub(super) undo: Option<Undo>,
    /// The next retransmission goes whatever the window says.
    pub(super) force: bool,
    /// Duplicate ACKs in a row, without SACK.
    pub(super) dup_acks: u32,
    /// The last transmission before the timeout.
    pub(super) rto_tx: u64,
}

impl Recovery {
    pub(super) fn new() -> Self {
        Self { phase: Phase::Open, point: 0, prr: Prr::default(), undo: None, force: false, dup_acks: 0, rto_tx: 0 }
    }
}

/// Proportional rate reduction: how fast fast recovery comes down to the new window.
#[derive(Debug, Default)]
pub(super) struct Prr {
    /// Positions that may be in flight now.
    pub(super) cwnd: u64,
    delivered: u64,
    out: u64,
    /// RecoverFS: positions in flight when recovery began.
    flight: u64,
}

impl Prr {
    fn new(flight: u64) -> Self {
        Self { flight: flight.max(1), ..Self::default() }
    }

    pub(super) fn on_sent(&mut self, len: u64) {
        self.out += len;
    }

    /// `delivered` positions were delivered, `pipe` are in flight, `target` is the window to come down to. `safe`: una
    /// advanced and nothing more was lost.
    pub(super) fn update(&mut self, delivered: u64, pipe: u64, target: u64, mss: u64, safe: bool) {
        self.delivered += delivered;
        let mut quota = if pipe > target {
            let share = (u128::from(self.delivered) * u128::from(target)).div_ceil(u128::from(self.flight));
            u64::try_from(share).unwrap_or(u64::MAX).saturating_sub(self.out)
        } else {
            // Conservation of packets (CRB), or with a good ACK slow start (SSRB), up to the target.
            let bound = self.delivered.saturating_sub(self.out).max(delivered) + if safe { mss } else { 0 };
            bound.min(target - pipe)
        };
        if self.out == 0 {
            quota = quota.max(mss);
        }
        self.cwnd = pipe + quota;
    }
}

/// What must happen for the last reduction of the window to be taken back.
#[derive(Debug)]
pub(super) struct Undo {
    /// First position outstanding when the episode began.
    marker: u64,
    /// The episode began with a timeout, and there was no other since.
    timeout: bool,
    /// Positions sent again in this episode, and how many of those the peer says it got twice.
    retransmitted: u64,
    duplicates: u64,
    /// When the first of them was sent.
    first_at: Option<Instant>,
    /// An ACK advanced since: later retransmissions say nothing of the first.
    judged: bool,
}

impl Undo {
    fn new(marker: u64, timeout: bool, retransmitted: u64) -> Self {
        Self { marker, timeout, retransmitted, duplicates: 0, first_at: None, judged: false }
    }

    pub(super) fn on_retransmit(&mut self, now: Instant, len: u64) {
        self.retransmitted += len;
        self.first_at.get_or_insert(now);
    }

    pub(super) fn on_dsack(&mut self, start: u64, end: u64) {
        self.duplicates += end.saturating_sub(start.max(self.marker));
    }

    fn all_duplicates(&self) -> bool {
        self.retransmitted > 0 && self.duplicates >= self.retransmitted
    }

    /// Eifel (RFC 3522): the first ACK that advances after the first retransmission echoes an earlier timestamp.
    fn eifel(&mut self, advanced: bool, echoed: Option<Instant>) -> bool {
        if !advanced {
            return false;
        }
        let Some(first_at) = self.first_at.filter(|_| !self.judged) else { return false };
        self.judged = true;
        echoed.is_some_and(|echoed| echoed < first_at)
    }
}

impl Snd {
    /// Begins fast recovery. `in_flight` is what it was before the loss was noticed, `delivered` what the ACK that
    /// told brought.
    pub(super) fn enter_recovery(&mut self, now: Instant, in_flight: u64, delivered: u64, group: Group<'_>) {
        let sacked = self.board.tally().sacked + self.board.reno_sacked();
        let flight = (self.board.outstanding() + delivered).saturating_sub(sacked);
        let reducing = core::mem::replace(&mut self.recovery.phase, Phase::Recovery) == Phase::Cwr;
        self.recovery.force = true;
        self.tlp.reset();
        if reducing {
            // One congestion, one reduction: what was lost left in the same window as what was marked.
            return;
        }
        self.recovery.point = self.board.nxt();
        self.recovery.prr = Prr::new(flight);
        self.recovery.undo = Some(Undo::new(self.board.una(), false, self.board.tally().retrans));
        self.reduce(now, in_flight, group);
    }

    /// The peer echoes congestion: once a window that is as good as a loss, but nothing is sent again (RFC 3168
    /// §6.1.2). A mark is never a mistake, so nothing of it is taken back.
    pub(super) fn on_echo(&mut self, now: Instant, in_flight: u64, delivered: u64, group: Group<'_>) {
        self.recovery.undo = None;
        if self.recovery.phase != Phase::Open || self.board.una() <= self.recovery.point {
            return;
        }
        self.recovery.phase = Phase::Cwr;
        self.recovery.point = self.board.nxt();
        self.recovery.prr = Prr::new(self.board.outstanding() + delivered);
        self.tlp.reset();
        self.reduce(now, in_flight, group);
    }

    /// Tells congestion control of a loss or a mark.
    pub(super) fn reduce(&mut self, now: Instant, in_flight: u64, group: Group<'_>) {
        self.stats.on_loss();
        self.cwr_due = true;
        self.cc.on_congestion(now, in_flight, group);
    }

    /// The retransmission timer fired: everything in flight is presumed lost. Returns whether the peer reneged.
    pub(super) fn enter_loss(&mut self, now: Instant) -> bool {
        let in_flight = self.board.in_flight();
        let first = self.rtt.backoff() == 0 && !matches!(self.recovery.phase, Phase::Recovery | Phase::Cwr);
        self.rtt.back_off();
        let Self { board, rate, cc, .. } = self;
        let (lost, reneged) = board.mark_all_lost(|record| cc.on_lost(&rate.lose(now, &record.stamp, record.len())));
        self.stats.lost(lost, self.mss);
        self.rack.forget();
        if first {
            self.recovery.undo = Some(Undo::new(self.board.una(), true, 0));
            self.stats.on_loss();
            self.cwr_due = true;
        } else if let Some(undo) = &mut self.recovery.undo {
            // The path was away for so long that nothing is known of it.
            undo.timeout = false;
        }
        self.recovery.phase = Phase::Loss;
        self.recovery.point = self.board.nxt();
        self.recovery.force = true;
        self.recovery.dup_acks = 0;
        self.recovery.rto_tx = self.rate.last_tx();
        self.tlp.reset();
        self.cc.on_rto(now, in_flight, first);
        reneged
    }

    /// The path came up again: after a timeout, tries at once what would have to wait for the next one.
    pub(crate) fn on_path_up(&mut self, now: Instant) {
        if self.recovery.phase != Phase::Loss || self.rtt.backoff() == 0 {
            return;
        }
        self.board.mark_all_lost(|_| {});
        self.rack.forget();
        self.timers.reo = None;
        self.recovery.force = true;
        self.recovery.rto_tx = self.rate.last_tx();
        self.rtt.limit_backoff(1);
        self.restart_rto(now);
    }

    /// Takes the last reduction back if it proves to have been a mistake: all that was sent again arrived twice
    /// (DSACK), the original's timestamp came back (Eifel), or originals still arrive after the timeout (F-RTO with
    /// SACK, RFC 5682 §3.1).
    pub(super) fn undo_if_spurious(&mut self, now: Instant, news: &News) -> bool {
        let Some(undo) = &mut self.recovery.undo else { return false };
        let late_original = self.recovery.phase == Phase::Loss && undo.timeout && self.sack && news.late_original;
        if !(undo.eifel(news.acked > 0, news.echoed) || undo.all_duplicates() || late_original) {
            return false;
        }
        if self.recovery.phase == Phase::Recovery {
            self.rack.note_reordering();
        }
        self.recovery.undo = None;
        self.recovery.phase = Phase::Open;
        self.recovery.force = false;
        self.board.unmark_lost();
        if self.sack {
            self.rack.relog(&self.board);
        }
        self.cc.on_spurious(now);
        true
    }

    /// Ends the episode when all that was outstanding at its start is acknowledged.
    pub(super) fn leave_if_done(&mut self, now: Instant) -> bool {
        if self.recovery.phase == Phase::Open || self.board.una() < self.recovery.point {
            return false;
        }
        self.recovery.phase = Phase::Open;
        self.recovery.force = false;
        self.rack.on_recovered();
        self.cc.on_recovered(now);
        true
    }
}
