//! Recovery episodes: fast recovery with PRR (RFC 6937bis), recovery from a timeout, and taking either back when
//! it proves needless.

use core::time::Duration;

use anabranch_frame::Instant;

use super::Snd;
use super::ack::News;
use super::record::Record;
use super::scoreboard::Scoreboard;
use crate::Counters;
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
    /// The peer was told of marks before this position.
    pub(super) told: u64,
    pub(super) prr: Prr,
    pub(super) undo: Option<Undo>,
    /// The next retransmission goes whatever the window says.
    pub(super) force: bool,
    /// Duplicate ACKs in a row, without SACK.
    pub(super) dup_acks: u32,
    /// The last transmission before the timeout.
    pub(super) rto_tx: u64,
    /// Timeouts since una moved.
    pub(super) timeouts: u32,
    /// It is not yet clear whether the timeout was spurious (F-RTO, RFC 5682).
    pub(super) frto: bool,
    /// New data is to go before what waits to be sent again, to find that out.
    pub(super) new_first: bool,
    /// Something that had been sent again was found lost by the acknowledgement or timer being handled.
    pub(super) lost_again: bool,
}

impl Recovery {
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Open,
            point: 0,
            told: 0,
            prr: Prr::default(),
            undo: None,
            force: false,
            dup_acks: 0,
            rto_tx: 0,
            timeouts: 0,
            frto: false,
            new_first: false,
            lost_again: false,
        }
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
    /// Positions sent again in this episode, and how many of those the peer says it got twice.
    retransmitted: u64,
    duplicates: u64,
    /// When the first of them was sent.
    first_at: Option<Instant>,
    /// An ACK advanced since: later retransmissions say nothing of the first.
    judged: bool,
}

impl Undo {
    /// For what is outstanding now.
    fn new(board: &Scoreboard) -> Self {
        Self {
            marker: board.una(),
            retransmitted: board.tally().retrans,
            duplicates: 0,
            first_at: None,
            // The head was sent again before: the ACK for that echoes an earlier time than anything of this episode.
            judged: board.records().front().is_some_and(|head| head.retransmitted),
        }
    }

    pub(super) fn on_retransmit(&mut self, now: Instant, len: u64) {
        self.retransmitted += len;
        self.first_at.get_or_insert(now);
    }

    /// A tail loss probe was sent after the episode: a DSACK for it is none for what was sent again in it.
    pub(super) fn on_probe(&mut self, len: u64) {
        self.retransmitted += len;
    }

    pub(super) fn on_dsack(&mut self, start: u64, end: u64) {
        self.duplicates += end.saturating_sub(start.max(self.marker));
    }

    fn all_duplicates(&self) -> bool {
        self.retransmitted > 0 && self.duplicates >= self.retransmitted
    }

    /// Eifel detection (RFC 3522 §3.2): the first ACK that advances after the first retransmission echoes an earlier
    /// timestamp, so it is for the original.
    fn eifel(&mut self, advanced: bool, echoed: Option<Instant>) -> bool {
        if !advanced {
            return false;
        }
        let Some(first_at) = self.first_at.filter(|_| !self.judged) else { return false };
        self.judged = true;
        echoed.is_some_and(|echoed| echoed <= first_at)
    }
}

impl Snd {
    /// Begins fast recovery (RFC 6675 §5, RFC 6582 §3.2 without SACK). `in_flight` is what it was before the loss was
    /// noticed, `delivered` what the ACK that told brought.
    pub(super) fn enter_recovery(
        &mut self,
        now: Instant,
        in_flight: u64,
        delivered: u64,
        group: Group<'_>,
        counters: &mut Counters,
    ) {
        if self.excuse_mtu_probe(now) {
            return;
        }
        if self.sack {
            counters.tcp_sack_recovery += 1;
        } else {
            counters.tcp_reno_recovery += 1;
        }
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
        self.recovery.undo = Some(Undo::new(&self.board));
        self.reduce(now, in_flight, group);
    }

    /// The peer echoes congestion: once a window that is as good as a loss, but nothing is sent again (RFC 3168
    /// §6.1.2). A mark is never a mistake, so nothing of it is taken back.
    pub(super) fn on_echo(&mut self, now: Instant, in_flight: u64, delivered: u64, group: Group<'_>) {
        if self.cc.needs_ecn() {
            // What it makes of marks is its own business, but a peer that echoes until it hears of it shall stop (RFC 8257 §3.4).
            if self.board.una() > self.recovery.told {
                self.recovery.told = self.board.nxt();
                self.cwr_due = true;
            }
            return;
        }
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

    /// The retransmission timer fired: what has been in flight for a round trip is presumed lost (RFC 8985 §6.3).
    pub(super) fn enter_loss(&mut self, now: Instant, counters: &mut Counters) {
        self.doubt_mtu_probe();
        // One reduction for all that goes wrong in one window (RFC 5681 §3.1).
        let first = match self.recovery.phase {
            Phase::Open => true,
            Phase::Recovery | Phase::Cwr => false,
            Phase::Loss => self.recovery.timeouts == 0,
        };
        self.count_timeout(counters);
        let Self { board, rate, cc, rack, .. } = self;
        let on_lost = |record: &Record| cc.on_lost(&rate.lose(now, &record.stamp, record.len()));
        let found = board.mark_timed_out(now, rack.rtt(), on_lost);
        counters.tcp_lost_retransmit += found.lost_again;
        counters.tcp_sack_reneging += u64::from(found.reneged);
        self.stats.lost(found.lost, self.mss);
        self.relog();
        if first {
            self.recovery.undo = Some(Undo::new(&self.board));
            self.stats.on_loss();
            self.cwr_due = true;
        }
        // After several timeouts it may just as well be the acknowledgements that were lost with the path, and timestamps
        // tell. Without them, originals that turn up are what there is (Linux: again with each timeout of a series).
        self.recovery.frto = self.rules.frto && (first || (self.recovery.timeouts > 0 && !self.timestamps));
        self.recovery.phase = Phase::Loss;
        self.recovery.point = self.board.nxt();
        self.recovery.force = true;
        self.recovery.new_first = false;
        self.recovery.dup_acks = 0;
        self.recovery.rto_tx = self.rate.last_tx();
        self.tlp.reset();
        self.cc.on_rto(now, self.board.in_flight(), first);
    }

    fn relog(&mut self) {
        if self.sack {
            self.rack.relog(&self.board);
        }
    }

    /// What the first timeout of a series says of what went before it.
    fn count_timeout(&self, counters: &mut Counters) {
        if self.recovery.timeouts > 0 {
            return;
        }
        let disorder = self.board.tally().sacked > 0 || self.board.reno_sacked() > 0;
        let failure = match (self.recovery.phase, self.sack) {
            (Phase::Recovery, true) => &mut counters.tcp_sack_recovery_fail,
            (Phase::Recovery, false) => &mut counters.tcp_reno_recovery_fail,
            (Phase::Loss, _) => &mut counters.tcp_loss_failures,
            (Phase::Open | Phase::Cwr, true) if disorder => &mut counters.tcp_sack_failures,
            (Phase::Open | Phase::Cwr, false) if disorder => &mut counters.tcp_reno_failures,
            (Phase::Open | Phase::Cwr, _) => return,
        };
        *failure += 1;
    }

    /// The path came up again: after a timeout, tries at once what would have to wait for the next one.
    pub(crate) fn on_path_up(&mut self, now: Instant) {
        if self.recovery.phase != Phase::Loss || self.rtt.backoff() == 0 {
            return;
        }
        self.board.mark_timed_out(now, Duration::ZERO, |_| {});
        self.relog();
        self.timers.reo = None;
        self.recovery.force = true;
        self.recovery.rto_tx = self.rate.last_tx();
        self.recovery.timeouts = self.recovery.timeouts.min(1);
        self.rtt.limit_backoff(1);
        self.restart_rto(now);
    }

    /// F-RTO (RFC 5682 §2.1, with SACK §3.1): whether the timeout was spurious, because originals arrive that were not
    /// sent again. If that is open yet, and there is new data, it goes first: retransmissions would blur the picture.
    pub(super) fn judge_timeout(&mut self, news: &News) -> bool {
        if self.recovery.phase != Phase::Loss || !self.recovery.frto {
            return false;
        }
        // Without SACK what is acknowledged with a retransmission may have been there all along, behind the hole.
        if news.late_original && (self.sack || !news.ambiguous) {
            return true;
        }
        let (una, nxt, point) = (self.una(), self.nxt(), self.recovery.point);
        if nxt > point {
            // Step 3a: new data arrived beyond a hole.
            self.recovery.frto = !news.sacked && !news.duplicate;
        } else if news.acked > 0 && una < point {
            // Step 2b.
            self.recovery.new_first = true;
        }
        false
    }

    /// New data had its turn before what waits to be sent again. Returns whether it had.
    pub(crate) fn new_data_went_first(&mut self) -> bool {
        if !core::mem::take(&mut self.recovery.new_first) {
            return false;
        }
        // None was sent: recovery goes on as usual.
        self.recovery.frto = self.nxt() > self.recovery.point;
        true
    }

    /// Takes the last reduction back if it proves to have been a mistake (RFC 4015): all that was sent again arrived twice
    /// (DSACK, RFC 3708), the original's timestamp came back (Eifel), or F-RTO says so.
    pub(super) fn undo_if_spurious(&mut self, now: Instant, news: &News, counters: &mut Counters) -> bool {
        let late_originals = self.judge_timeout(news);
        let Some(undo) = &mut self.recovery.undo else { return false };
        let eifel = undo.eifel(news.acked > 0, news.echoed);
        if !(eifel || undo.all_duplicates() || late_originals) {
            return false;
        }
        match self.recovery.phase {
            Phase::Loss => {
                counters.tcp_loss_undo += 1;
                counters.tcp_spurious_rtos += u64::from(late_originals);
            }
            Phase::Recovery if self.board.una() >= self.recovery.point => counters.tcp_full_undo += 1,
            Phase::Recovery if eifel => counters.tcp_partial_undo += 1,
            Phase::Recovery | Phase::Open | Phase::Cwr => counters.tcp_dsack_undo += 1,
        }
        if self.recovery.phase == Phase::Recovery {
            let prior_una = self.board.una() - news.acked;
            self.rack.note_reordering(prior_una, self.rack.fack(), self.mss, self.rules.max_reordering);
            counters.tcp_ts_reorder += u64::from(eifel);
        }
        self.recovery.undo = None;
        self.recovery.phase = Phase::Open;
        self.recovery.force = false;
        self.recovery.new_first = false;
        self.board.unmark_lost();
        self.relog();
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
        self.recovery.new_first = false;
        self.rack.on_recovered();
        self.cc.on_recovered(now);
        true
    }
}
