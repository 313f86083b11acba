//! What a connection does when time passes.

use alloc::sync::Arc;
use core::time::Duration;

use anabranch_frame::Instant;
use smallvec::SmallVec;

use crate::pm::PmEvent;
use crate::sched::{SchedEvent, SubflowId};
use crate::tcp::{Fired, Joining, Opening, Subflow};
use crate::{Error, MtuProbing};

use super::conn::{Conn, Cx, Stage, group};

/// Longest time between two retransmissions on a stale subflow while others work.
const STALE_PROBE: Duration = Duration::from_secs(1);
/// Silence after which only what is large may be lost (Linux: `tcp_retries1`, 15 least timeouts).
const BLACK_HOLE: Duration = Duration::from_secs(3);
/// Third ACKs of a join before it is given up.
const JOIN_ACK_TRIES: u8 = 6;
/// At data level this much is sent again at once when its timer fires.
const DATA_RETRANSMIT: u64 = 64 * 1024;
/// Longest data-level timeout.
const DATA_TIMEOUT_MAX: Duration = Duration::from_secs(120);

impl Conn {
    /// The earliest of all its deadlines.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let subflows = self.subflows.iter().filter_map(Subflow::deadline).min();
        let openings = self.openings.iter().filter_map(Opening::deadline).min();
        [
            subflows,
            openings,
            self.data_timer,
            self.silence_deadline(),
            self.scheduler_timer,
            self.give_up,
            self.failing.answer_due,
            self.announcement_deadline(),
            self.doubt_deadline(),
            self.path_manager_deadline(),
            self.keepalive_deadline(),
            self.user_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Time passed.
    pub(crate) fn on_timeout(&mut self, cx: &mut Cx<'_>) {
        self.on_opening_timers(cx);
        let ids: SmallVec<[SubflowId; 4]> = self.subflows.iter().map(|subflow| subflow.id).collect();
        for id in ids {
            if let Some(at) = self.index_of(id) {
                self.on_subflow_timers(cx, at);
            }
            self.on_recovery_timer(cx, id);
            self.on_silence_timer(cx, id);
        }
        self.on_connection_timers(cx);
        self.settle(cx);
    }

    fn on_opening_timers(&mut self, cx: &mut Cx<'_>) {
        let mut at = 0;
        while at < self.openings.len() {
            let before = self.openings[at].transmissions();
            if self.openings[at].on_timer(cx.now) {
                // As in Linux, the third silence in a row.
                if before == 3 && self.openings[at].due() && self.openings[at].fast.is_some() {
                    cx.fastopens.note_swallowed(cx.now, &cx.config.handshake.fastopen, cx.counters);
                }
                at += 1;
            } else {
                self.opening_failed(cx, at, Error::TimedOut, false);
            }
        }
    }

    /// Timers of the receiving side and of the handshake.
    fn on_subflow_timers(&mut self, cx: &mut Cx<'_>, at: usize) {
        let now = cx.now;
        if !self.on_synack_timer(cx, at) {
            return;
        }
        let options = Arc::clone(&self.options);
        let subflow = &mut self.subflows[at];
        let rto = subflow.snd.rto();
        cx.counters.delayed_acks += u64::from(subflow.rcv.on_timer(now, rto));
        if !self.on_persist_timer(cx, at) {
            return;
        }
        let subflow = &mut self.subflows[at];
        if options.keepalive && subflow.keepalive_due(&options).is_some_and(|due| due <= now) {
            if subflow.keepalive_probes >= u32::from(options.keepcnt) {
                let id = subflow.id;
                self.on_subflow_timeout(cx, id);
                return;
            }
            cx.counters.tcp_keepalive += 1;
            subflow.keepalive_probes += 1;
            subflow.last_probe = now;
            subflow.ping = true;
        }
        if let Joining::AwaitsAck { deadline, sent, ref mut due, .. } = subflow.joining
            && sent > 0
            && deadline <= now
        {
            if sent >= JOIN_ACK_TRIES {
                self.drop_subflow(cx, at, Some(crate::ResetReason::Unspecified));
            } else {
                *due = true;
            }
        }
    }

    /// The timer of loss recovery.
    fn on_recovery_timer(&mut self, cx: &mut Cx<'_>, id: SubflowId) {
        let Some(at) = self.index_of(id).filter(|&at| self.subflows[at].synack.is_none()) else { return };
        if self.subflows[at].snd.deadline().is_none_or(|due| due > cx.now) {
            return;
        }
        let siblings = self.siblings();
        let linear = self.options.thin_linear_timeouts;
        let fired = self.subflows[at].snd.on_timer(cx.now, linear, group(&siblings, at), cx.counters);
        self.subflows[at].judge_mtu_probe(cx.counters);
        match fired {
            None | Some(Fired::Reordering) => {}
            Some(Fired::Probe) => {
                cx.counters.tcp_loss_probes += 1;
                self.subflows[at].probe = true;
            }
            Some(Fired::Rto { consecutive }) => self.on_rto(cx, at, consecutive),
        }
    }

    fn on_rto(&mut self, cx: &mut Cx<'_>, at: usize, consecutive: u32) {
        cx.counters.tcp_timeouts += 1;
        cx.counters.tcp_timeout_rehash += u64::from(self.subflows[at].relabel());
        if consecutive == 2 && self.subflows[at].fast.asked {
            cx.fastopens.note_swallowed(cx.now, &cx.config.handshake.fastopen, cx.counters);
        }
        let now = cx.now;
        let id = self.subflows[at].id;
        let recovery = &cx.config.recovery;
        let subflow = &mut self.subflows[at];
        // A peer that shrank its window to nothing and answers is there: what it gets are window probes, in effect.
        let held = !self.released
            && subflow.snd.peer_window() == 0
            && now.saturating_since(subflow.last_rx) <= recovery.rto_max * 2;
        if consecutive <= 1 {
            subflow.silent_since = now;
        } else if now.saturating_since(subflow.silent_since) >= recovery.patience(self.released) && !held {
            self.on_subflow_timeout(cx, id);
            return;
        }
        let pmtu = &cx.config.pmtu;
        if pmtu.mtu_probing != MtuProbing::Off && now.saturating_since(subflow.silent_since) >= BLACK_HOLE {
            subflow.on_black_hole(now, pmtu);
            cx.counters.tcp_mtu_black_holes += 1;
        }
        let others = self.subflows.iter().any(|subflow| subflow.id != id && subflow.usable() && !subflow.stale);
        let Some(base) = self.mp().map(|mp| mp.dsn(0)).filter(|_| others) else {
            self.subflows[at].snd.set_longest_rto(Duration::MAX);
            return;
        };
        let subflow = &mut self.subflows[at];
        // The connection goes on elsewhere; this path is asked often enough to be back soon after it recovers.
        subflow.snd.set_longest_rto(STALE_PROBE);
        if !subflow.stale {
            subflow.stale = true;
            cx.counters.subflow_stale += 1;
            self.scheduler.on_event(&SchedEvent::Stale(id));
        }
        if self.subflows[at].silence.confirm() {
            // What it holds is on its way elsewhere, the rest follows even if it answers now: its window is small.
            self.tx.confirm_rescue();
            return;
        }
        if consecutive > 1 {
            // What is stuck here went elsewhere the first time; the data-level timer sees to the rest.
            return;
        }
        for range in self.subflows[at].outstanding(base) {
            self.tx.reinject(range);
        }
    }

    fn on_connection_timers(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now;
        if self.scheduler_timer.is_some_and(|due| due <= now) {
            self.scheduler_timer = None;
        }
        if self.data_timer.is_some_and(|due| due <= now) {
            self.on_data_timer(cx);
        }
        if self.announcement_deadline().is_some_and(|due| due <= now) {
            self.announce_next(cx);
        }
        if self.doubt_deadline().is_some_and(|due| due <= now) {
            self.on_doubt_timer(cx);
        }
        if self.path_manager_deadline().is_some_and(|due| due <= now) {
            self.manage_paths(cx, &PmEvent::Timer);
        }
        if self.give_up.is_some_and(|due| due <= now) {
            // Plain TCP leaves FIN-WAIT-2 without a word, as Linux does: should the peer's FIN come, a reset answers it.
            let silent = self.mp().is_none() && self.in_fin_wait_2();
            cx.counters.tcp_abort_on_timeout += u64::from(!silent);
            let reset = (self.stage == Stage::Open && !silent).then_some(crate::ResetReason::Unspecified);
            self.fail(cx, Error::TimedOut, reset);
        }
        if self.failing.answer_due.is_some_and(|due| due <= now) {
            self.on_fail_timeout(cx);
        }
        if self.user_deadline().is_some_and(|due| due <= now) {
            cx.counters.tcp_abort_on_timeout += 1;
            self.fail(cx, Error::TimedOut, Some(crate::ResetReason::Unspecified));
        }
    }

    /// Starts, restarts or stops the data-level retransmission timer.
    pub(super) fn arm_data_timer(&mut self, now: Instant) {
        let fin_waits = self.data_fin_sent && !self.tx.fin_acked();
        let waits = self.tx.una() < self.tx.assigned_end() || fin_waits;
        self.data_timer = (waits && self.mp().is_some()).then(|| {
            let timeout = self.slowest_rto().max(Duration::from_millis(200)) * (1 << self.data_backoff.min(8));
            now + timeout.min(DATA_TIMEOUT_MAX)
        });
    }

    /// No DATA_ACK for too long: the head of the data goes once more, on whatever works. Where there is one subflow only, and
    /// it took the data, the peer is asked first.
    fn on_data_timer(&mut self, cx: &mut Cx<'_>) {
        if self.released && cx.now.saturating_since(self.last_progress) > cx.config.recovery.patience(true) {
            // DATA_FIN rides on ACKs, which no subflow retransmits: nobody else would ever give up.
            cx.counters.tcp_abort_on_timeout += 1;
            self.fail(cx, Error::TimedOut, Some(crate::ResetReason::Unspecified));
            return;
        }
        let una = self.tx.una();
        if una < self.tx.assigned_end() {
            if self.judges_mute(cx) {
                return;
            }
            if self.has_under_way(una) {
                // TCP sends it again. As in Linux nothing goes twice over the same way before it is through.
                self.arm_data_timer(cx.now);
                return;
            }
            if let [only] = &mut self.subflows[..]
                && self.data_backoff == 0
            {
                // It arrived. The peer may be slow, or its DATA_ACK have been stripped: the answer to a probe tells.
                only.ping = only.usable();
            } else {
                self.tx.reinject(una..una + DATA_RETRANSMIT);
            }
        } else if self.data_fin_sent && !self.tx.fin_acked() {
            // A peer may have fallen back unheard, and has no reason to answer an ACK without data. A probe it must answer,
            // and the answer tells.
            let alone = self.subflows.len() == 1;
            for subflow in &mut self.subflows {
                subflow.tell_data_fin |= subflow.usable();
                subflow.ping |= alone && subflow.usable();
            }
        }
        self.data_backoff += 1;
        self.arm_data_timer(cx.now);
    }

    /// Whether `off` is under way on the only subflow.
    fn has_under_way(&self, off: u64) -> bool {
        let [only] = &self.subflows[..] else { return false };
        self.mp().is_some_and(|mp| only.outstanding(mp.dsn(0)).any(|range| range.contains(&off)))
    }

    fn keepalive_deadline(&self) -> Option<Instant> {
        if !self.options.keepalive {
            return None;
        }
        self.subflows.iter().filter_map(|subflow| subflow.keepalive_due(&self.options)).min()
    }

    /// The user timeout (RFC 5482) runs, as in the kernel, from the first retransmission or window probe that brought
    /// nothing; with several subflows, from when the last of them was without an answer.
    fn user_deadline(&self) -> Option<Instant> {
        let timeout = self.options.user_timeout.filter(|_| self.stage == Stage::Open)?;
        let since = self
            .subflows
            .iter()
            .map(Subflow::silent_since)
            .try_fold(Instant::ZERO, |latest, since| since.map(|since| since.max(latest)))?;
        (!self.subflows.is_empty()).then(|| since + timeout)
    }
}
