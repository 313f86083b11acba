//! Ends: of a direction, of a subflow, of the connection.

use core::time::Duration;

use smallvec::SmallVec;

use crate::info::TcpState;
use crate::pm::{Notice, PmEvent};
use crate::sched::{SchedEvent, SubflowId};
use crate::shard::{Event, Shutdown, Slot, TimeWait};
use crate::tcp::{Out, Subflow};
use crate::wire::{Flags, MptcpOption};
use crate::{Error, ResetReason};

use super::Mode;
use super::addr::established_entry;
use super::conn::{Conn, Cx, Stage};

impl Conn {
    /// Shuts down one or both directions.
    pub(crate) fn shutdown(&mut self, cx: &mut Cx<'_>, how: Shutdown) -> Result<(), Error> {
        match self.stage {
            Stage::Open => {}
            // With Fast Open the application was told that it is connected.
            Stage::Connecting => self.begin_deferred(cx.now).map_err(|_| Error::NotConnected)?,
            Stage::Closed(_) => return Err(Error::NotConnected),
        }
        if matches!(how, Shutdown::Write | Shutdown::Both) && !self.tx.fin() {
            self.tx.finish();
        }
        self.read_shut |= matches!(how, Shutdown::Read | Shutdown::Both);
        self.settle(cx);
        Ok(())
    }

    /// The application lets go of the connection.
    pub(crate) fn release(&mut self, cx: &mut Cx<'_>) {
        self.released = true;
        match self.stage {
            Stage::Closed(_) => {}
            // What was taken for the SYN is still delivered.
            Stage::Connecting if self.tx.queued() > 0 => self.tx.finish(),
            Stage::Connecting => self.fail(cx, Error::Aborted, None),
            // `SO_LINGER` with a time of zero: the application wants no farewell.
            Stage::Open if self.options.linger == Some(Duration::ZERO) => self.abort(cx),
            Stage::Open if self.rx.readable() > 0 && !self.read_shut => {
                cx.counters.tcp_abort_on_close += 1;
                self.abort(cx);
            }
            Stage::Open => {
                if !self.tx.fin() {
                    self.tx.finish();
                }
                self.settle(cx);
            }
        }
    }

    /// Ends the connection at once.
    pub(crate) fn abort(&mut self, cx: &mut Cx<'_>) {
        if !matches!(self.stage, Stage::Closed(_)) {
            cx.counters.tcp_estab_resets += u64::from(self.stage == Stage::Open);
            self.fail(cx, Error::Aborted, Some(ResetReason::Unspecified));
        }
    }

    /// The connection is over because of `error`. With `reset` the peer is told, on every subflow.
    pub(super) fn fail(&mut self, cx: &mut Cx<'_>, error: Error, reset: Option<ResetReason>) {
        if reset.is_some() {
            self.fastclose(cx);
        }
        for opening in core::mem::take(&mut self.openings) {
            cx.release_tuple(&opening.tuple, Slot::Conn(self.id.index(), opening.id));
        }
        for subflow in core::mem::take(&mut self.subflows) {
            self.forget(cx, &subflow);
        }
        self.retire_token(cx);
        self.tx.discard();
        self.data_timer = None;
        self.give_up = None;
        self.failing = Default::default();
        if !matches!(self.stage, Stage::Closed(_)) {
            self.stage = Stage::Closed(Some(error));
            self.tell(cx, Event::Closed(self.id, Some(error)));
        }
    }

    /// RST on every subflow, with MP_FASTCLOSE if the peer's key is known (RFC 8684 §3.5, RST form).
    fn fastclose(&mut self, cx: &mut Cx<'_>) {
        let key = self.mp().and_then(|mp| mp.remote).map(|remote| remote.key);
        cx.counters.mp_fastclose_tx += u64::from(key.is_some() && !self.subflows.is_empty());
        for at in 0..self.subflows.len() {
            let mut options: SmallVec<[MptcpOption; 2]> = SmallVec::new();
            options.extend(key.map(|receiver_key| MptcpOption::Fastclose { receiver_key }));
            self.send_reset(cx, at, &options);
        }
    }

    pub(super) fn send_reset(&mut self, cx: &mut Cx<'_>, at: usize, options: &[MptcpOption]) {
        cx.counters.tcp_out_rsts += 1;
        let window = self.rx.window();
        let subflow = &mut self.subflows[at];
        let out = Out {
            pos: subflow.snd.nxt(),
            flags: Flags::RST,
            payload: Default::default(),
            mptcp: options,
            window,
            with_sack: false,
            fresh: false,
        };
        let transmit = subflow.emit(cx.now, out);
        self.parting.push_back(transmit);
    }

    /// Resets one subflow that broke the rules or lost its address.
    pub(super) fn reset_subflow(&mut self, cx: &mut Cx<'_>, at: usize, reason: ResetReason) {
        self.drop_subflow(cx, at, Some(reason));
    }

    /// Drops one subflow, with a reset or silently; its data goes elsewhere.
    pub(super) fn drop_subflow(&mut self, cx: &mut Cx<'_>, at: usize, reset: Option<ResetReason>) {
        if let Some(reason) = reset {
            let mp = self.mp().is_some();
            cx.counters.mp_rst_tx += u64::from(mp);
            let option = MptcpOption::Reset { transient: reason.is_transient(), reason };
            self.send_reset(cx, at, if mp { core::slice::from_ref(&option) } else { &[] });
        }
        self.lose_subflow(cx, at, reset.is_none_or(ResetReason::is_transient));
    }

    /// A subflow is gone; `broken` if it may be opened again.
    pub(super) fn lose_subflow(&mut self, cx: &mut Cx<'_>, at: usize, broken: bool) {
        let subflow = self.subflows.remove(at);
        self.salvage(&subflow);
        self.forget(cx, &subflow);
        if matches!(self.mode, Mode::Plain(_)) {
            self.fail(cx, Error::Reset, None);
            return;
        }
        self.after_loss_of(cx, &subflow, broken);
    }

    /// What only this subflow carried is to be sent once more, on another.
    pub(super) fn salvage(&mut self, subflow: &Subflow) {
        let Mode::Mptcp(mp) = &self.mode else { return };
        let base = mp.dsn(0);
        for range in subflow.outstanding(base) {
            self.tx.reinject(range);
        }
    }

    fn after_loss_of(&mut self, cx: &mut Cx<'_>, subflow: &Subflow, broken: bool) {
        self.scheduler.on_event(&SchedEvent::Down(subflow.id));
        self.tell(cx, Event::SubflowDown(self.id, subflow.id));
        let subflow = established_entry(subflow);
        self.report(cx, || Notice::SubflowDown { subflow, broken, error: None });
        self.manage_paths(cx, &PmEvent::SubflowDown { subflow, broken });
        self.note_no_subflow(cx);
    }

    /// A connection without a subflow is kept for a while: another may come. Attempts in vain do not prolong that.
    pub(super) fn note_no_subflow(&mut self, cx: &mut Cx<'_>) {
        if !self.subflows.is_empty() || self.stage != Stage::Open {
            return;
        }
        if self.released && self.openings.is_empty() {
            self.fail(cx, Error::Reset, None);
        } else if self.give_up.is_none() {
            self.give_up = Some(cx.now + cx.config.close_timeout);
        }
    }

    pub(super) fn forget(&self, cx: &mut Cx<'_>, subflow: &Subflow) {
        cx.release_tuple(&subflow.tuple, Slot::Conn(self.id.index(), subflow.id));
        self.count_out(cx, subflow);
    }

    /// A subflow is gone.
    fn count_out(&self, cx: &mut Cx<'_>, subflow: &Subflow) {
        self.note_fast_end(cx, subflow);
        cx.learn_from(subflow);
        if subflow.synack.is_none() {
            cx.counters.tcp_curr_estab = cx.counters.tcp_curr_estab.saturating_sub(1);
        }
    }

    fn retire_token(&mut self, cx: &mut Cx<'_>) {
        if !matches!(self.stage, Stage::Closed(_)) {
            self.report(cx, || Notice::Closed { fallback: false });
        }
        if let Some(mp) = self.mp() {
            let fully = mp.fully_established;
            cx.tokens.remove(mp.local.token);
            if fully && !matches!(self.stage, Stage::Closed(None)) {
                cx.counters.mp_curr_estab = cx.counters.mp_curr_estab.saturating_sub(1);
            }
        }
    }

    /// Takes out what had only its last acknowledgement to send.
    pub(super) fn reap_all(&mut self, cx: &mut Cx<'_>) {
        for at in (0..self.subflows.len()).rev() {
            if at < self.subflows.len() {
                self.reap(cx, at);
            }
        }
    }

    /// Takes a subflow out once it is closed; in TIME-WAIT a small entry stays behind.
    pub(super) fn reap(&mut self, cx: &mut Cx<'_>, at: usize) {
        let state = self.subflows[at].state;
        if !matches!(state, TcpState::Closed | TcpState::TimeWait) {
            return;
        }
        if state == TcpState::TimeWait && self.subflows[at].rcv.due() != crate::tcp::AckDue::Idle {
            // The peer's FIN is acknowledged by the subflow itself first, with DATA_ACK.
            return;
        }
        // Plain TCP: what its end tells of the stream must be taken before it goes.
        self.advance_close(cx);
        if at >= self.subflows.len() || self.subflows[at].state != state {
            return;
        }
        let subflow = self.subflows.remove(at);
        self.salvage(&subflow);
        self.count_out(cx, &subflow);
        let slot = Slot::Conn(self.id.index(), subflow.id);
        if state == TcpState::TimeWait {
            cx.counters.tw += 1;
            cx.enter_time_wait(slot, TimeWait::of(cx.now, &subflow));
        } else {
            cx.release_tuple(&subflow.tuple, slot);
        }
        if self.stage == Stage::Open {
            self.after_loss_of(cx, &subflow, false);
        } else if self.subflows.is_empty() {
            self.give_up = None;
        }
    }

    /// Carries the end of the streams forward: DATA_FIN, FIN, and the end of the connection.
    pub(super) fn advance_close(&mut self, cx: &mut Cx<'_>) {
        if self.stage != Stage::Open {
            return;
        }
        if self.released && self.rx.readable() > 0 && !self.read_shut {
            // Data for an application that is gone (RFC 2525 §2.17).
            cx.counters.tcp_abort_on_data += 1;
            self.abort(cx);
            return;
        }
        if self.tx.fin() && self.tx.all_assigned() {
            self.send_end_of_stream(cx);
        }
        if self.tx.fin_acked() && self.options.linger.is_some() && !core::mem::replace(&mut self.drained_told, true) {
            self.tell(cx, Event::Drained(self.id));
        }
        if self.in_fin_wait_2() && self.give_up.is_none() {
            let Some(patience) = self.options.linger2 else {
                cx.counters.tcp_abort_on_linger += 1;
                self.abort(cx);
                return;
            };
            // As in Linux, long enough for the peer to have seen our FIN.
            let rto = self.slowest_rto();
            self.give_up = Some(cx.now + patience.min(cx.config.handshake.fin_timeout).max(rto * 7 / 2));
        }
        if self.tx.fin_acked() && self.rx.at_fin() {
            self.finish_in_good_order(cx);
        }
    }

    /// The application let go, the peer has all of ours, and its end of the stream is all that is waited for: for ever,
    /// if nobody minds (RFC 9293 §3.6).
    pub(super) fn in_fin_wait_2(&self) -> bool {
        self.stage == Stage::Open && self.released && self.tx.fin_acked() && !self.rx.at_fin()
    }

    fn send_end_of_stream(&mut self, cx: &mut Cx<'_>) {
        let plain = matches!(self.mode, Mode::Plain(_));
        for subflow in &mut self.subflows {
            if plain {
                subflow.wants_fin = true;
            } else if !self.data_fin_sent && subflow.usable() {
                subflow.tell_data_fin = true;
            }
        }
        if !plain && !self.data_fin_sent && self.subflows.iter().any(|subflow| subflow.tell_data_fin) {
            self.data_fin_sent = true;
            self.arm_data_timer(cx.now);
        }
    }

    /// Both streams ended and both ends know it.
    fn finish_in_good_order(&mut self, cx: &mut Cx<'_>) {
        self.retire_token(cx);
        self.stage = Stage::Closed(None);
        self.data_timer = None;
        // A subflow may wait in FIN-WAIT-2 for a peer that is gone already.
        self.give_up = (!self.subflows.is_empty()).then(|| cx.now + cx.config.handshake.fin_timeout);
        for subflow in &mut self.subflows {
            subflow.wants_fin = true;
            subflow.tell_data_fin = false;
            subflow.signals.clear();
        }
        for opening in core::mem::take(&mut self.openings) {
            cx.release_tuple(&opening.tuple, Slot::Conn(self.id.index(), opening.id));
        }
        self.tell(cx, Event::Closed(self.id, None));
    }

    /// A subflow gave up: nothing was heard for too long.
    pub(super) fn on_subflow_timeout(&mut self, cx: &mut Cx<'_>, id: SubflowId) {
        let Some(at) = self.index_of(id) else { return };
        cx.counters.tcp_abort_on_timeout += 1;
        if matches!(self.mode, Mode::Plain(_)) || self.stage != Stage::Open {
            let reset = (self.stage == Stage::Open).then_some(ResetReason::Unspecified);
            // What ICMP said meanwhile is the better reason (RFC 5461 §2.2).
            let error = self.subflows[at].soft_error.map_or(Error::TimedOut, Error::from);
            self.fail(cx, error, reset);
        } else {
            self.drop_subflow(cx, at, Some(ResetReason::UnacceptablePerformance));
        }
    }
}
