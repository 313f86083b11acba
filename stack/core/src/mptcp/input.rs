//! Segments that came in on a connection's subflows.

use core::ops::Range;

use anabranch_frame::{Instant, Payload};

use crate::info::TcpState;
use crate::pm::Notice;
use crate::sched::{SchedEvent, SubflowId};
use crate::shard::Event;
use crate::tcp::{AckOut, Arrival, Joining, Verdict};
use crate::wire::{AddAddr, DataAck, Dss, Flags, Mapping, MpCapable, MptcpOption, Segment};
use crate::{Error, FallbackReason, ResetReason};

use super::addr::established_entry;
use super::conn::{Conn, Cx, Stage, group};
use super::{Mode, Noted, RxMapping};

/// What the options of one segment said of its data.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    /// The segment's own mapping.
    mapping: Option<RxMapping>,
    /// There was any MPTCP option at all.
    any: bool,
    /// There was a DATA_ACK.
    data_ack: bool,
}

impl Conn {
    /// A segment came in for one of our tuples.
    pub(crate) fn on_segment(&mut self, cx: &mut Cx<'_>, id: SubflowId, segment: &Segment) {
        if let Some(at) = self.openings.iter().position(|opening| opening.id == id) {
            self.on_opening_segment(cx, at, segment);
            return;
        }
        let Some(at) = self.index_of(id) else { return };
        self.on_subflow_segment(cx, at, segment);
    }

    /// A segment came in on a subflow whose handshake is done.
    pub(super) fn on_subflow_segment(&mut self, cx: &mut Cx<'_>, at: usize, segment: &Segment) {
        if self.subflows[at].synack.is_some() && !self.in_syn_received(cx, at, segment) {
            self.settle(cx);
            return;
        }
        let siblings = self.siblings();
        let again = self.under_way_again(at);
        let subflow = &mut self.subflows[at];
        let was_stale = subflow.stale;
        cx.guard.tick(cx.now, cx.rng);
        match subflow.check(cx.now, segment, group(&siblings, at), cx.guard, cx.counters) {
            Verdict::Drop => {}
            Verdict::Reset => self.on_peer_reset(cx, at, segment),
            Verdict::Accept { pos, ack } => {
                cx.counters.subflow_recover += u64::from(was_stale && !self.subflows[at].stale);
                if self.subflows[at].silence.is_suspect() && (ack.delivered > 0 || ack.acked > 0) {
                    self.on_answer(cx, at);
                }
                if !again.is_empty() {
                    self.spare_delivered(at, &again);
                }
                let id = self.subflows[at].id;
                self.nagle.on_ack();
                self.on_accepted(cx, at, pos, &ack, segment);
                // The subflow may be gone: a bad mapping resets it.
                if let Some(at) = self.index_of(id) {
                    self.after_segment(cx, at);
                }
            }
        }
        self.settle(cx);
    }

    fn on_accepted(&mut self, cx: &mut Cx<'_>, at: usize, pos: u64, ack: &AckOut, segment: &Segment) {
        self.finish_join(cx, at);
        if self.subflows[at].synack.is_some() {
            self.finish_fast(cx, at, segment);
        }
        let id = self.subflows[at].id;
        if ack.delivered > 0 {
            self.scheduler.on_event(&SchedEvent::Acked { subflow: id, bytes: ack.delivered });
        }
        if ack.lost > 0 {
            self.scheduler.on_event(&SchedEvent::Lost { subflow: id, bytes: ack.lost });
        }
        let Some(told) = self.on_options(cx, at, pos, segment) else { return };
        if ack.acked_bytes > 0 && !told.data_ack {
            self.on_ack_without_dss(cx, at, told.any);
            if self.index_of(id) != Some(at) {
                return;
            }
        }
        if pos == 1 + u64::from(self.subflows[at].fast.received)
            && !told.any
            && self.mp().is_some_and(|mp| !mp.fully_established && !mp.joined)
        {
            // The first word after the handshake says nothing of MPTCP: as the kernel, we go on without.
            cx.counters.mp_capable_data_fallback += 1;
            if !self.fall_back_or_reset(cx, at, FallbackReason::FirstDataNoMapping) {
                return;
            }
        }
        if !told.any && !self.notice_fallback(cx, at, pos, segment) {
            return;
        }
        if matches!(self.mode, Mode::Plain(_)) {
            self.take_subflow_ack(cx, at, segment);
        }
        if self.subflows[at].rcv.fin_received() {
            // Behind the peer's FIN nothing can come (RFC 9293 §3.10.7.4, seventh step).
            return;
        }
        let plain = matches!(self.mode, Mode::Plain(_));
        let new = pos + segment.payload.len() as u64 > self.subflows[at].rcv.nxt();
        if plain && self.released && !self.read_shut && !segment.payload.is_empty() && new {
            // Data for an application that is gone (RFC 2525 §2.17): answered, as in Linux, as if nothing were left.
            cx.counters.tcp_abort_on_data += 1;
            cx.counters.tcp_estab_resets += 1;
            cx.counters.tcp_out_rsts += 1;
            self.parting.extend(crate::tcp::reset_for(segment, None));
            self.fail(cx, Error::Aborted, None);
            return;
        }
        if !segment.payload.is_empty() && !self.on_payload(cx, at, pos, told, segment) {
            return;
        }
        if segment.flags.has(Flags::FIN) && (told.any || self.may_end(at, pos, segment)) {
            self.on_fin(cx, at, pos + segment.payload.len() as u64);
        }
    }

    /// Reads the options. `None` if the subflow is gone because of one.
    fn on_options(&mut self, cx: &mut Cx<'_>, at: usize, pos: u64, segment: &Segment) -> Option<Told> {
        let mut told = Told::default();
        if self.mp().is_none() {
            if self.fallback() == Some(FallbackReason::Checksum) {
                segment.options.mptcp.iter().for_each(|option| self.hear_answer(cx, option));
            }
            if self.is_contradicted(at, segment) {
                cx.counters.dss_corruption_reset += 1;
                self.fail(cx, Error::Reset, Some(ResetReason::Middlebox));
                return None;
            }
            return Some(told);
        }
        let id = self.subflows[at].id;
        for option in &segment.options.mptcp {
            told.any = true;
            match option {
                MptcpOption::Dss(dss) => self.on_dss(cx, at, dss, segment, &mut told),
                MptcpOption::Capable(capable) => self.on_late_capable(cx, at, capable, &mut told),
                MptcpOption::AddAddr(add) => self.on_add_addr_option(cx, at, *add),
                MptcpOption::RemoveAddr(remove) => self.on_remove_addr(cx, &remove.ids),
                MptcpOption::Prio { backup } => self.on_prio(cx, at, *backup),
                MptcpOption::Fastclose { receiver_key } => self.on_fastclose(cx, *receiver_key),
                MptcpOption::Fail { .. } => self.on_fail(cx, at),
                // The third ACK of a join repeated: our answer got lost.
                MptcpOption::Join(_) if self.subflows[at].passive => self.subflows[at].rcv.ack_now(),
                MptcpOption::Reset { .. } | MptcpOption::Join(_) => {}
            }
            if self.index_of(id) != Some(at) {
                return None;
            }
        }
        if let Some(mapping) = told.mapping {
            let end = pos + segment.payload.len() as u64;
            let beyond = mapping.pos < pos || mapping.end() > end;
            let noted = if beyond { self.subflows[at].mappings.note(mapping) } else { Noted::Known };
            cx.counters.mappings_full += u64::from(noted == Noted::Full);
            if noted == Noted::Conflict {
                cx.counters.dss_not_matching += 1;
                return self.on_bad_dss(cx, at).then_some(told);
            }
        }
        Some(told)
    }

    fn on_add_addr_option(&mut self, cx: &mut Cx<'_>, at: usize, add: AddAddr) {
        if add.echo {
            self.on_add_addr_echo(cx, &add);
        } else {
            self.on_add_addr(cx, at, add);
        }
    }

    fn on_prio(&mut self, cx: &mut Cx<'_>, at: usize, backup: bool) {
        cx.counters.mp_prio_rx += 1;
        self.subflows[at].backup.theirs = backup;
        let subflow = established_entry(&self.subflows[at]);
        self.report(cx, || Notice::Priority { subflow, backup });
    }

    /// MP_CAPABLE after the handshake: the third ACK repeated, or the first data's mapping.
    fn on_late_capable(&mut self, cx: &mut Cx<'_>, at: usize, capable: &MpCapable, told: &mut Told) {
        let Some(len) = capable.data_len.filter(|&len| len > 0) else { return };
        if self.server_side && self.subflows[at].id == 0 {
            self.become_fully_established(cx);
            if let Some(mp) = self.mp_mut() {
                // Its sender may go on with long ones.
                mp.long_ack = true;
            }
            let received = u64::from(self.subflows[at].fast.received);
            let wire = Mapping { dsn: 0, dsn_long: true, ssn: 1, len, checksum: capable.checksum };
            let Some(Ok(check)) = self.mp().map(|mp| mp.check(&wire, received)) else {
                self.on_bad_dss(cx, at);
                return;
            };
            told.mapping = Some(RxMapping { pos: 1 + received, off: received, len: u64::from(len), check });
            // The client acknowledges nothing at data level before it heard from us: nothing is missing.
            told.data_ack = true;
        }
    }

    fn on_dss(&mut self, cx: &mut Cx<'_>, at: usize, dss: &Dss, segment: &Segment, told: &mut Told) {
        let (una, nxt) = (self.tx.una(), self.rx.nxt());
        let Some(mp) = self.mp_mut() else { return };
        if let Some(ack) = dss.ack {
            told.data_ack = true;
            let off = mp.acked_offset(ack, una);
            self.subflows[at].mute = false;
            let window = u64::from(segment.window) << self.subflows[at].snd_scale();
            if !off.is_some_and(|off| self.on_data_ack(cx, off, window)) {
                cx.counters.data_ack_ignored += 1;
            }
            self.become_fully_established(cx);
        }
        let Some(mp) = self.mp_mut() else { return };
        let Some(mapping) = dss.mapping else { return };
        if !segment.payload.is_empty() {
            mp.long_ack = mapping.dsn_long;
        } else if mapping.len == 0 {
            // Without data there is nothing to map, for ever or not.
            return;
        }
        if mapping.len == 0 {
            cx.counters.infinite_map_rx += 1;
            self.fall_back_or_reset(cx, at, FallbackReason::InfiniteMap);
            return;
        }
        let dsn = if mapping.dsn_long { DataAck::Long(mapping.dsn) } else { DataAck::Short(mapping.dsn as u32) };
        let Some(off) = mp.remote_offset(dsn, nxt) else {
            cx.counters.dss_ignored += 1;
            return;
        };
        let len = u64::from(mapping.len) - u64::from(dss.data_fin);
        if dss.data_fin {
            if self.rx.note_fin(off + len) {
                // DATA_FIN is acknowledged at once, on the subflow it came on.
                self.subflows[at].rcv.ack_now();
            } else {
                cx.counters.dss_ignored += 1;
            }
        }
        if len == 0 {
            return;
        }
        let Some(Ok(check)) = self.mp().map(|mp| mp.check(&mapping, off)) else {
            cx.counters.dss_not_matching += 1;
            self.on_bad_dss(cx, at);
            return;
        };
        let subflow = &self.subflows[at];
        // The relative subflow sequence number is our position, cut to 32 bits.
        let near = subflow.rcv.nxt();
        let ssn = mapping.ssn.wrapping_add(u32::from(subflow.fast.received));
        let pos = near.checked_add_signed(i64::from(ssn.wrapping_sub(near as u32) as i32));
        let Some(pos) = pos.filter(|&pos| pos > 0) else {
            cx.counters.dss_ignored += 1;
            return;
        };
        told.mapping = Some(RxMapping { pos, off, len, check });
        self.become_fully_established(cx);
    }

    /// DATA_ACK up to `off`, with a window counted from there (RFC 8684 §3.3.1). False if that was never sent.
    fn on_data_ack(&mut self, cx: &mut Cx<'_>, off: u64, window: u64) -> bool {
        let Some(acked) = self.tx.ack(off) else { return false };
        if acked > 0 || self.tx.fin_acked() {
            self.data_backoff = 0;
            self.last_progress = cx.now;
            self.arm_data_timer(cx.now);
        }
        let edge = off + window;
        if edge > self.peer_edge {
            self.peer_edge = edge;
            self.clear_persist();
        }
        self.peer_window = self.peer_window.max(window);
        true
    }

    /// Plain TCP: the subflow's acknowledgement is the connection's.
    fn take_subflow_ack(&mut self, cx: &Cx<'_>, at: usize, segment: &Segment) {
        self.free_acked(cx.now, at);
        let subflow = &self.subflows[at];
        // As in the kernel a window that shrinks is heeded (RFC 9293 §3.8.6): what lies beyond it has to wait.
        let edge = subflow.snd.una() - 1 + subflow.snd.peer_window();
        let scale = subflow.snd_scale();
        if edge > self.peer_edge {
            self.clear_persist();
        }
        self.peer_edge = edge;
        self.peer_window = self.peer_window.max(u64::from(segment.window) << scale);
    }

    /// Plain TCP: what the subflow has delivered is done with.
    pub(super) fn free_acked(&mut self, now: Instant, at: usize) {
        let subflow = &self.subflows[at];
        let acked = (subflow.snd.una() - 1).min(self.tx.end());
        if subflow.snd.fin_sent() && subflow.snd.everything_acked() {
            self.tx.ack(self.tx.end() + 1);
        }
        if self.tx.ack(acked).is_some_and(|acked| acked > 0) {
            self.last_progress = now;
        }
    }

    /// Takes the payload of the SYN that opened the first subflow: the stream begins with it.
    pub(super) fn on_syn_payload(&mut self, cx: &mut Cx<'_>, at: usize, segment: &Segment) {
        let len = segment.payload.len() as u64;
        let told = Told { mapping: Some(RxMapping { pos: 1, off: 0, len, check: None }), any: true, data_ack: true };
        self.on_payload(cx, at, 1, told, segment);
    }

    /// Puts payload where it belongs. False if the subflow is gone.
    fn on_payload(&mut self, cx: &mut Cx<'_>, at: usize, pos: u64, told: Told, segment: &Segment) -> bool {
        let len = segment.payload.len() as u64;
        let before = self.subflows[at].rcv.nxt();
        let had_holes = self.subflows[at].rcv.has_holes();
        let missing = self.subflows[at].rcv.missing(&(pos..pos + len));
        self.subflows[at].hear_ecn(segment, !missing.is_empty());
        if pos > before {
            cx.counters.tcp_ofo_queue += 1;
            self.subflows[at].counts.received_early(segment);
        }
        cx.counters.duplicate_data += u64::from(missing.is_empty());
        let id = self.subflows[at].id;
        for part in missing {
            if !self.place(cx, at, pos, part, told.mapping, segment) {
                return self.index_of(id) == Some(at);
            }
        }
        let subflow = &mut self.subflows[at];
        subflow.on_progress();
        let arrival = Arrival {
            len,
            segment: segment.segment_size.map_or(len, u64::from).min(subflow.advmss().into()),
            push: segment.flags.has(Flags::PSH),
            sack: subflow.sack(),
            rtt: subflow.ack_rtt(),
            rto: subflow.snd.rto(),
        };
        cx.counters.tcp_ack_compressed += u64::from(subflow.rcv.on_data(cx.now, &arrival, had_holes));
        let edge = subflow.rcv.nxt();
        subflow.mappings.forget_before(edge);
        true
    }

    /// Places the bytes of `part` by their mapping. False to stop: the subflow is gone, or the rest
    /// has to come again.
    fn place(
        &mut self,
        cx: &mut Cx<'_>,
        at: usize,
        first: u64,
        part: Range<u64>,
        own: Option<RxMapping>,
        segment: &Segment,
    ) -> bool {
        let mut pos = part.start;
        while pos < part.end {
            let subflow = &self.subflows[at];
            if !subflow.rcv.admits(&(pos..part.end)) {
                cx.counters.tcp_ofo_drop += 1;
                return true;
            }
            let in_order = pos == subflow.rcv.nxt();
            let Some(mapping) = self.mapping_of(at, pos, own) else {
                // Judged in subflow order only: before that, what is missing may still come.
                cx.counters.dss_no_match_tcp += 1;
                if in_order && self.on_missing_dss(cx, at) {
                    continue;
                }
                return false;
            };
            let off = mapping.offset(pos);
            let joined = self.mp().is_some_and(|mp| mp.joined);
            if !in_order && subflow.rcv.nxt() == 1 && !joined && off != pos - 1 {
                // Nothing unusual goes early before the first byte was judged: it may all be plain TCP.
                cx.counters.early_drop += 1;
                return true;
            }
            if !in_order && self.rx.is_overloaded(self.held_memory()) {
                cx.counters.rcv_pruned += 1;
                return true;
            }
            if !self.admits(cx, in_order) {
                return true;
            }
            let mut end = part.end.min(mapping.end());
            let room = self.rx.limit(joined).saturating_sub(off);
            if room == 0 {
                let plain = matches!(self.mode, Mode::Plain(_));
                let counter =
                    if plain { &mut cx.counters.tcp_zero_window_drop } else { &mut cx.counters.no_dss_in_window };
                *counter += 1;
                self.subflows[at].rcv.ack_now();
                return true;
            }
            end = end.min(pos.saturating_add(room));
            let payload = segment.payload.slice((pos - first) as usize..(end - first) as usize);
            let subflow = &mut self.subflows[at];
            subflow.bytes_received += end - pos;
            subflow.rcv.record(pos..end);
            if mapping.check.is_none() {
                self.insert(cx, at, off, payload);
            } else if !self.place_checked(cx, at, &mapping, (pos, payload)) {
                return false;
            }
            pos = end;
        }
        true
    }

    /// Bytes that are part of the stream from now on.
    pub(super) fn insert(&mut self, cx: &mut Cx<'_>, at: usize, off: u64, payload: Payload) {
        let len = payload.len() as u64;
        let inserted = self.rx.insert(off, self.thrifty(payload, cx.copies), cx.copies);
        cx.counters.ofo_queue += u64::from(inserted.advanced == 0 && inserted.new_bytes > 0);
        cx.counters.duplicate_data += u64::from(inserted.duplicate_bytes > 0);
        if inserted.advanced > len {
            // Filling a hole is told at once (RFC 5681 §4.2), at data level, too: a small piece here
            // may stand before a megabyte from elsewhere, which fills the peer's send buffer.
            self.subflows[at].rcv.ack_now();
        }
    }

    fn mapping_of(&self, at: usize, pos: u64, own: Option<RxMapping>) -> Option<RxMapping> {
        match self.mode {
            Mode::Plain(_) => Some(RxMapping { pos: 1, off: 0, len: u64::MAX / 2, check: None }),
            Mode::Mptcp(_) => own.filter(|own| own.covers(pos)).or_else(|| self.subflows[at].mappings.find(pos)),
        }
    }

    /// The subflow's FIN stands at `pos`.
    fn on_fin(&mut self, cx: &mut Cx<'_>, at: usize, pos: u64) {
        let subflow = &mut self.subflows[at];
        if !subflow.rcv.note_fin(pos) {
            cx.counters.tcp_out_of_window += 1;
        }
        subflow.rcv.ack_now();
    }

    /// After each accepted segment: the subflow's FIN, and its state.
    fn after_segment(&mut self, cx: &mut Cx<'_>, at: usize) {
        let plain = matches!(self.mode, Mode::Plain(_));
        let subflow = &mut self.subflows[at];
        if subflow.rcv.take_fin() {
            if plain {
                let off = subflow.rcv.nxt() - 2;
                self.rx.note_fin(off);
            } else if !self.data_fin_sent && !self.rx.at_fin() {
                // The peer will send no more here; we finish what is in flight and close our side. Once the connection
                // is being closed that waits for its end, which the last subflow has to tell.
                self.subflows[at].wants_fin = true;
            }
        }
        self.subflows[at].transition();
        self.reap(cx, at);
    }

    /// After anything that may have moved the stream: events, buffers, the end of the connection.
    pub(super) fn settle(&mut self, cx: &mut Cx<'_>) {
        self.tune_send_buffer();
        if self.read_shut {
            self.rx.discard();
        }
        let eof = self.rx.at_fin() && !self.eof_told;
        if eof && self.mp().is_some() {
            // The end of the stream is acknowledged everywhere: whichever ACK gets through lets the peer go.
            self.subflows.iter_mut().for_each(|subflow| subflow.rcv.ack_now());
        }
        let enough = self.rx.readable() >= u64::from(self.options.rcvlowat) || self.rx.is_full();
        if (enough && !self.readable_told) || eof {
            self.readable_told = true;
            self.eof_told |= eof;
            self.tell(cx, Event::Readable(self.id));
        }
        self.tell_writable(cx);
        self.advance_close(cx);
    }

    /// What was acknowledged or sent makes room for whoever waits for it.
    pub(super) fn tell_writable(&mut self, cx: &mut Cx<'_>) {
        if self.wants_room && self.is_writable() {
            self.wants_room = false;
            self.tell(cx, Event::Writable(self.id));
        }
    }

    /// Tells the application, if there still is one.
    pub(super) fn tell(&self, cx: &mut Cx<'_>, event: Event) {
        if !self.released {
            cx.events.push_back(event);
        }
    }

    /// A join of ours is complete once the peer answers the third ACK.
    fn finish_join(&mut self, cx: &mut Cx<'_>, at: usize) {
        let subflow = &mut self.subflows[at];
        if subflow.joining != Joining::Done {
            subflow.joining = Joining::Done;
            let id = subflow.id;
            self.on_subflow_up(cx, id);
        }
    }

    /// The peer reset a subflow.
    fn on_peer_reset(&mut self, cx: &mut Cx<'_>, at: usize, segment: &Segment) {
        for option in &segment.options.mptcp {
            match option {
                MptcpOption::Reset { .. } => cx.counters.mp_rst_rx += 1,
                MptcpOption::Fastclose { receiver_key } if self.mp().is_some_and(|mp| mp.local.is(*receiver_key)) => {
                    let gone = self.subflows.remove(at);
                    self.forget(cx, &gone);
                    self.on_fastclose(cx, *receiver_key);
                    return;
                }
                _ => {}
            }
        }
        let alone = self.subflows.len() == 1;
        let unproven = self.mp().is_none_or(|mp| !mp.fully_established);
        if alone && unproven {
            cx.counters.tcp_estab_resets += 1;
            let state = self.subflows[at].state;
            let closing = matches!(state, TcpState::Closing | TcpState::LastAck | TcpState::TimeWait);
            // As the kernel has it: a peer that had ended its stream does not break ours off, it takes no more of it.
            let error = if state == TcpState::CloseWait { Error::BrokenPipe } else { Error::Reset };
            self.fail(cx, error, None);
            if closing {
                self.stage = Stage::Closed(None);
            }
            return;
        }
        self.lose_subflow(cx, at, !is_final(segment));
    }

    /// MP_FASTCLOSE: what is left of subflows is reset (RFC 8684 §3.5).
    fn on_fastclose(&mut self, cx: &mut Cx<'_>, key: u64) {
        if self.mp().is_some_and(|mp| mp.local.is(key)) {
            cx.counters.mp_fastclose_rx += 1;
            let reset = MptcpOption::Reset { transient: false, reason: ResetReason::Unspecified };
            for at in 0..self.subflows.len() {
                cx.counters.mp_rst_tx += 1;
                self.send_reset(cx, at, core::slice::from_ref(&reset));
            }
            self.fail(cx, Error::Reset, None);
        }
    }
}

/// Whether a reset says why, and that it will be no other the next time (RFC 8684 §3.6).
pub(super) fn is_final(reset: &Segment) -> bool {
    let says_so = |option: &MptcpOption| matches!(option, MptcpOption::Reset { transient: false, reason } if *reason != ResetReason::Unspecified);
    reset.options.mptcp.iter().any(says_so)
}
