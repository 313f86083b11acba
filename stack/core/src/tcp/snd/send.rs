//! What may go out, and the bookkeeping of what does.

use core::ops::Range;

use anabranch_frame::{Instant, Slices};

use super::record::{Record, TxMapping, segments};
use super::recovery::Phase;
use super::{Retransmit, Snd};
use crate::Counters;
use crate::cc::{CongestionControl, INITIAL_WINDOW};

/// How much of the congestion window was used (RFC 7661; Linux: `tcp_cwnd_validate`).
#[derive(Debug)]
pub(super) struct Usage {
    /// The round trip ends when this position is acknowledged.
    end: u64,
    /// Most that was outstanding in it.
    most: u64,
    /// Whether the window was full at least once.
    limited: bool,
    /// Since when the window was not full, and how much was outstanding at most.
    pub(super) unused: Unused,
}

/// A time in which the window was not full.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unused {
    since: Instant,
    most: u64,
}

impl Unused {
    fn new(now: Instant) -> Self {
        Self { since: now, most: 0 }
    }
}

impl Usage {
    pub(super) fn new(now: Instant) -> Self {
        Self::resume(Unused::new(now))
    }

    /// After a time when nothing was outstanding.
    pub(super) fn resume(unused: Unused) -> Self {
        Self { end: 0, most: 0, limited: false, unused }
    }

    /// In slow start half a window is enough: it doubles each round trip.
    pub(super) fn cwnd_limited(&self, cc: &dyn CongestionControl) -> bool {
        self.limited || (cc.in_slow_start() && cc.cwnd() < 2 * self.most)
    }
}

impl Snd {
    /// Bytes of new data that may go now: 0 while lost data waits, which goes first; whole segments unless the peer's
    /// window allows less; and a segment in any case when a tail loss probe is due or nothing is in flight. Nothing before
    /// it is time by the pace, but for a probe.
    pub(crate) fn room(&self, now: Instant) -> u64 {
        if self.pace.holds(now) && !self.tlp.due { 0 } else { self.window_room(now) }
    }

    /// The same whatever the pace.
    pub(crate) fn window_room(&self, now: Instant) -> u64 {
        if self.board.tally().waiting > 0 && !self.recovery.new_first {
            return 0;
        }
        let in_flight = self.in_flight();
        let quota = self.window_after_idle(now, self.window()).saturating_sub(in_flight);
        let whole = quota - quota % self.mss;
        let least = if self.tlp.due || in_flight == 0 { self.mss } else { 0 };
        whole.max(least).min(self.peer_room())
    }

    /// What is left of a `window` that was not used for long.
    pub(super) fn window_after_idle(&self, now: Instant, window: u64) -> u64 {
        let reduced = self.rules.slow_start_after_idle && self.idle_for(now).is_some();
        if reduced { window.min(INITIAL_WINDOW * self.mss) } else { window }
    }

    /// Bytes that the peer's window has room for.
    pub(crate) fn peer_room(&self) -> u64 {
        self.peer.right_edge.saturating_sub(self.nxt())
    }

    /// Positions that may be in flight: the congestion window, or what PRR makes of it.
    pub(super) fn window(&self) -> u64 {
        match self.recovery.phase {
            Phase::Recovery | Phase::Cwr if self.cc.uses_prr() => self.recovery.prr.cwnd,
            _ => self.cc.cwnd(),
        }
    }

    /// How long nothing was sent, if that is a retransmission timeout or longer and nothing is outstanding.
    fn idle_for(&self, now: Instant) -> Option<core::time::Duration> {
        let idle = now - self.stats.last_sent?;
        (self.board.is_empty() && idle >= self.rtt.rto()).then_some(idle)
    }

    /// Registers new data that the caller transmits, at the position it returns.
    pub(crate) fn on_send_new(&mut self, now: Instant, payload: Slices, mapping: Option<TxMapping>, fin: bool) -> u64 {
        let bytes: u64 = payload.iter().map(|slice| slice.len() as u64).sum();
        let start = self.nxt();
        let end = start + bytes + u64::from(fin);
        if start == end {
            return start;
        }
        if let Some(idle) = self.idle_for(now).filter(|_| self.rules.slow_start_after_idle) {
            self.cc.on_idle(now, self.rtt.rto(), idle);
            self.usage.unused = Unused::new(now);
            self.repace();
        }
        self.check_app_limited();
        let in_flight = self.in_flight();
        if in_flight == 0 && self.rate.is_app_limited() {
            self.cc.on_restart(now);
            self.repace();
        }
        let stamp = self.rate.stamp(now, in_flight, end - start);
        self.board.push(Record {
            start,
            end,
            payload,
            mapping,
            fin,
            push: false,
            tail: true,
            mss: self.mss_u16(),
            sacked: false,
            lost: false,
            retrans: false,
            retransmitted: false,
            stamp,
        });
        self.fin_sent |= fin;
        self.stats.sent(now, bytes);
        self.on_transmitted(now, stamp.tx, start..end);
        if self.tlp.due {
            self.tlp.end = Some(self.nxt());
            self.tlp.retrans = false;
            self.tlp.due = false;
            self.restart_rto(now);
        } else if self.timers.rto.is_none() {
            self.restart_rto(now);
        }
        self.postpone_probe(now);
        start
    }

    /// The next lost data that the window admits, oldest first, at most `max_bytes`; it counts as sent.
    pub(crate) fn next_retransmit(
        &mut self,
        now: Instant,
        max_bytes: u64,
        counters: &mut Counters,
    ) -> Option<Retransmit> {
        if self.recovery.new_first {
            return None;
        }
        let first = self.board.first_waiting()?;
        if self.pace.holds(now) {
            return None;
        }
        let in_flight = self.in_flight();
        let quota = self.window().saturating_sub(in_flight);
        let head = &self.board.records()[first];
        let least = head.payload_len().min(self.mss);
        let admitted = match quota {
            quota if quota >= least => quota,
            _ if self.recovery.force || in_flight == 0 => least,
            _ => return None,
        };
        let admitted = admitted.min(max_bytes);
        if admitted == 0 && least > 0 {
            return None;
        }
        self.cut_to(first, admitted);
        let mss = self.mss_u16();
        let record = &self.board.records()[first];
        let stamp = self.rate.stamp(now, in_flight, record.len());
        self.board.mark_retransmitted(first, stamp, mss);
        let sent = self.board.records()[first].again();
        self.recovery.force = false;
        let segments = segments(sent.range.end - sent.range.start - u64::from(sent.fin), self.mss);
        if self.recovery.phase == Phase::Loss {
            counters.tcp_slow_start_retrans += segments;
        } else {
            counters.tcp_fast_retrans += segments;
        }
        if let Some(undo) = &mut self.recovery.undo {
            undo.on_retransmit(now, sent.range.end - sent.range.start);
        }
        self.on_retransmitted(now, stamp.tx, &sent);
        if sent.range.start == self.una() {
            self.restart_rto(now);
        }
        Some(sent)
    }

    /// Leaves no more than `admitted` bytes in record `index`, in whole segments if that is one at least.
    fn cut_to(&mut self, index: usize, admitted: u64) {
        let record = &self.board.records()[index];
        if record.payload_len() <= admitted {
            return;
        }
        let whole = admitted - admitted % self.mss;
        let at = record.start + if whole == 0 { admitted } else { whole };
        self.board.split(index, at);
    }

    /// A tail loss probe: the last segment again. For when there is no new data to send, or no window for it. `None` if
    /// none is due any more: new data went out instead, or an acknowledgement came.
    pub(crate) fn send_probe(&mut self, now: Instant) -> Option<Retransmit> {
        if !core::mem::take(&mut self.tlp.due) {
            return None;
        }
        let mut index = self.board.records().iter().rposition(Record::in_flight)?;
        let record = &self.board.records()[index];
        let (mss, len) = (u64::from(record.mss), record.payload_len());
        if len > mss {
            let tail = if len % mss == 0 { mss } else { len % mss };
            let at = record.start + len - tail;
            self.board.split(index, at);
            index += 1;
        }
        let record = &self.board.records()[index];
        let (mss, len) = (record.mss, record.len());
        let stamp = self.rate.stamp(now, self.in_flight(), len);
        self.board.mark_retransmitted(index, stamp, mss);
        let probe = self.board.records()[index].again();
        self.tlp.end = Some(self.nxt());
        self.tlp.retrans = true;
        if let Some(undo) = &mut self.recovery.undo {
            undo.on_probe(probe.range.end - probe.range.start);
        }
        self.on_retransmitted(now, stamp.tx, &probe);
        self.restart_rto(now);
        self.rearm_probe(now, false);
        Some(probe)
    }

    fn on_retransmitted(&mut self, now: Instant, tx: u64, sent: &Retransmit) {
        let bytes = sent.range.end - sent.range.start - u64::from(sent.fin);
        self.stats.resent(now, bytes, segments(bytes, self.mss));
        self.on_transmitted(now, tx, sent.range.clone());
    }

    fn on_transmitted(&mut self, now: Instant, tx: u64, range: Range<u64>) {
        let len = range.end - range.start;
        if self.sack {
            self.rack.on_sent(tx, range);
        }
        self.recovery.prr.on_sent(len);
        self.validate(now, self.in_flight() + self.mss > self.window());
        self.pace.on_sent(now, len);
    }

    /// Notes whether the window is full. One that was not for a retransmission timeout says nothing of the path any more, and
    /// comes half-way down to what is used (RFC 2861 §3.1, RFC 7661 §4.4).
    fn validate(&mut self, now: Instant, limited: bool) {
        let outstanding = self.board.outstanding();
        let usage = &mut self.usage;
        if self.board.una() >= usage.end || limited || (!usage.limited && outstanding > usage.most) {
            (usage.end, usage.most, usage.limited) = (self.board.nxt(), outstanding, limited);
        }
        if usage.cwnd_limited(self.cc.as_ref()) {
            usage.unused = Unused::new(now);
            return;
        }
        usage.unused.most = usage.unused.most.max(outstanding);
        if now - usage.unused.since >= self.rtt.rto() && self.rules.slow_start_after_idle {
            if self.recovery.phase == Phase::Open {
                self.cc.on_app_limited(usage.unused.most);
            }
            usage.unused = Unused::new(now);
        }
    }
}
