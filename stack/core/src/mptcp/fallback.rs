//! Falling back to TCP (RFC 8684 §3.7), as the kernel does it: possible while no second subflow was
//! ever tried; after that a subflow that breaks the rules is reset.

use crate::info::TcpState;
use crate::pm::Notice;
use crate::shard::Slot;
use crate::tcp::Joining;
use crate::wire::{DataAck, Dss, Flags, MptcpOption, Segment};
use crate::{FallbackReason, ResetReason};

use super::Mode;
use super::conn::{Conn, Cx, Stage};
use super::state::Plain;

impl Conn {
    /// From now on the connection is plain TCP. Offsets and positions of the only subflow agree, since
    /// nothing was ever sent or received on another.
    pub(super) fn fall_back(&mut self, cx: &mut Cx<'_>, reason: FallbackReason) {
        self.report(cx, || Notice::Closed { fallback: true });
        let Mode::Mptcp(mp) = &self.mode else { return };
        cx.tokens.remove(mp.local.token);
        if mp.fully_established {
            cx.counters.mp_curr_estab = cx.counters.mp_curr_estab.saturating_sub(1);
        }
        let idsn = mp.remote.map_or(0, |remote| remote.idsn);
        self.mode = Mode::Plain(Plain { reason, idsn });
        self.release_held(cx);
        self.data_timer = None;
        for subflow in &mut self.subflows {
            subflow.signals.clear();
            subflow.tell_data_fin = false;
            // Plain TCP sends its FIN after the last byte, and the peer's FIN is the end of its stream.
            subflow.wants_fin = false;
            if matches!(subflow.state, TcpState::CloseWait | TcpState::LastAck) {
                self.rx.note_fin(subflow.rcv.nxt() - 2);
            }
        }
        for opening in self.openings.extract_if(.., |opening| opening.id != 0) {
            cx.release_tuple(&opening.tuple, Slot::Conn(self.id.index(), opening.id));
        }
        if let Some(first) = self.subflows.first() {
            self.peer_edge = self.peer_edge.max(first.snd.right_edge() - 1);
            // The DATA_ACK for it will not come.
            self.free_acked(cx.now, 0);
        }
    }

    /// Whether offsets of the stream and positions on the only subflow agree, so that it can go on as plain
    /// TCP: nothing was ever sent or received elsewhere, or twice (Linux: `allow_infinite_fallback`).
    pub(super) fn may_fall_back(&self, at: usize) -> bool {
        self.may_fall_back_holding(at, 0)
    }

    /// The same, while `held` bytes more than the mappings hold came in order but are not in the stream yet.
    pub(super) fn may_fall_back_holding(&self, at: usize, held: u64) -> bool {
        let joined = self.mp().is_some_and(|mp| mp.joined);
        let subflow = &self.subflows[at];
        let received = subflow.rcv.nxt() - 1 - u64::from(subflow.rcv.fin_received());
        let held = held + subflow.mappings.held_before(subflow.rcv.nxt());
        !joined && self.stats.retransmits == 0 && self.rx.nxt() + held == received
    }

    /// Falls back if it still can, or resets the subflow. True if the subflow lives on, as plain TCP.
    pub(super) fn fall_back_or_reset(&mut self, cx: &mut Cx<'_>, at: usize, reason: FallbackReason) -> bool {
        let can = self.may_fall_back(at);
        if can {
            self.fall_back(cx, reason);
        } else {
            cx.counters.fallback_failed += 1;
            self.reset_subflow(cx, at, ResetReason::Middlebox);
        }
        can
    }

    /// Data in subflow order has no mapping. True if it may be read as plain TCP now.
    pub(super) fn on_missing_dss(&mut self, cx: &mut Cx<'_>, at: usize) -> bool {
        if self.mp().is_none() {
            return false;
        }
        let first = self.subflows[at].rcv.nxt() == 1;
        let reason = if first { FallbackReason::FirstDataNoMapping } else { FallbackReason::NoDss };
        let lives = self.fall_back_or_reset(cx, at, reason);
        cx.counters.mp_capable_data_fallback += u64::from(lives && first);
        cx.counters.dss_fallback += u64::from(lives && !first);
        lives
    }

    /// Data of ours was acknowledged by a segment without DATA_ACK.
    pub(super) fn on_ack_without_dss(&mut self, cx: &mut Cx<'_>, at: usize, any_option: bool) {
        let Some(mp) = self.mp() else { return };
        let all_acked = self.tx.una() == self.tx.assigned_end();
        // ADD_ADDR and its like may leave no room for DSS; the peer's closing states send bare ACKs.
        if any_option || all_acked {
            return;
        }
        if mp.joined {
            // Another subflow may carry the DATA_ACK; the data-level timer judges.
            self.subflows[at].mute = true;
            return;
        }
        let lives = self.fall_back_or_reset(cx, at, FallbackReason::NoDss);
        cx.counters.dss_fallback += u64::from(lives);
    }

    /// The peer fell back and we have not heard of it, if its segments say nothing of MPTCP where they would have to: on a
    /// FIN before the end of its stream, or on the answer to a DATA_FIN that it does not acknowledge or to a second probe of
    /// its closed window. False if the subflow is gone.
    pub(super) fn notice_fallback(&mut self, cx: &mut Cx<'_>, at: usize, pos: u64, segment: &Segment) -> bool {
        if self.mp().is_none() || self.has_joined_subflow() || self.stage != Stage::Open {
            return true;
        }
        // What was asked for is a DATA_ACK: the next timeout judges, unless one comes before.
        self.subflows[at].mute |= self.data_backoff > 0 && self.tx.una() < self.tx.assigned_end();
        let end = pos + segment.payload.len() as u64;
        let ends = segment.flags.has(Flags::FIN) && !self.rx.at_fin() && end == self.subflows[at].rcv.nxt();
        let waits = self.data_fin_sent && !self.tx.fin_acked() && self.data_backoff > 0;
        let closed = self.subflows[at].persist_backoff > 1;
        let asked = (waits || closed) && self.tx.una() == self.tx.assigned_end();
        if !ends && !asked {
            return true;
        }
        let lives = self.fall_back_or_reset(cx, at, FallbackReason::NoDss);
        cx.counters.dss_fallback += u64::from(lives);
        lives
    }

    /// Whether a FIN without an option counts now. Before it is in order it is not known what it ends: it comes again.
    pub(super) fn may_end(&self, at: usize, pos: u64, segment: &Segment) -> bool {
        let end = pos + segment.payload.len() as u64;
        self.mp().is_none() || self.has_joined_subflow() || end <= self.subflows[at].rcv.nxt()
    }

    /// Whether the peer knows of more than one subflow. Of a join that it has not confirmed it may never have heard.
    fn has_joined_subflow(&self) -> bool {
        self.subflows.iter().filter(|subflow| subflow.joining == Joining::Done).count() > 1
    }

    /// Plain TCP now, but the peer goes on with MPTCP and has sent data again at another place in the subflow: read as it
    /// comes it would be in the stream twice.
    pub(super) fn is_contradicted(&self, at: usize, segment: &Segment) -> bool {
        let Mode::Plain(Plain { idsn: idsn @ 1.., .. }) = self.mode else { return false };
        // As long as offsets and positions agree the two numbers of a mapping are the same distance apart.
        let apart = (idsn as u32).wrapping_add(u32::from(self.subflows[at].fast.received));
        let elsewhere = |option: &MptcpOption| match option {
            MptcpOption::Dss(Dss { mapping: Some(mapping), .. }) => {
                mapping.len > 0 && (mapping.dsn as u32).wrapping_sub(mapping.ssn) != apart
            }
            _ => false,
        };
        !segment.payload.is_empty() && segment.options.mptcp.iter().any(elsewhere)
    }

    /// TCP now, but the peer may not know, and repeat what is not acknowledged at data level: we would read it twice. What is
    /// new is acknowledged there, too; the answer to a probe is not, which tells such a peer of ours.
    pub(super) fn data_ack_for_unaware(&self, at: usize) -> Option<MptcpOption> {
        let Mode::Plain(Plain { reason: FallbackReason::NoDss, idsn: idsn @ 1.. }) = self.mode else { return None };
        let ack = DataAck::Long(idsn.wrapping_add(1).wrapping_add(self.rx.ack()));
        let owed = self.subflows[at].rcv.owes_ack();
        owed.then_some(MptcpOption::Dss(Dss { ack: Some(ack), mapping: None, data_fin: false }))
    }

    /// The only subflow acknowledges data without a word of MPTCP, after a second one was tried, or answers so when it is
    /// asked for a DATA_ACK: the peer may have fallen back, a box strip its options, or a proxy be faster.
    pub(super) fn is_mute(&self) -> bool {
        matches!(&self.subflows[..], [only] if only.mute)
    }

    /// No DATA_ACK for too long: if the only subflow is mute it goes on as plain TCP, or is reset. True if it was mute.
    pub(super) fn judges_mute(&mut self, cx: &mut Cx<'_>) -> bool {
        let mute = self.is_mute();
        if mute {
            let lives = self.fall_back_or_reset(cx, 0, FallbackReason::NoDss);
            cx.counters.dss_fallback += u64::from(lives);
            if lives {
                self.free_acked(cx.now, 0);
            }
        }
        mute
    }

    /// A mapping contradicts another. False if the subflow is gone.
    pub(super) fn on_bad_dss(&mut self, cx: &mut Cx<'_>, at: usize) -> bool {
        if self.mp().is_none() {
            return true;
        }
        if !self.may_fall_back(at) {
            cx.counters.dss_corruption_reset += 1;
            self.reset_subflow(cx, at, ResetReason::MptcpError);
            return false;
        }
        cx.counters.dss_corruption_fallback += 1;
        self.fall_back(cx, FallbackReason::DssCorrupt);
        true
    }
}
