//! Subflows coming up: the first one and joins, opened by us or by the peer (RFC 8684 §3.1, §3.2).

use anabranch_frame::PathId;

use crate::config::Handshake;
use crate::options::SocketOptions;
use crate::pm::{Notice, PmEvent, RemoteAddr};
use crate::sched::{SchedEvent, SubflowId};
use crate::shard::{Capability, Event, Slot};
use crate::tcp::{
    Backup, Disposition, EcnWish, FastOpened, IpOptions, Joining, Link, Local, Negotiated, Opening, Retries,
    SubflowStart, Want, reset_for, syn_options, timestamp_offset,
};
use crate::wire::{Flags, MpCapable, MpJoin, MptcpOption, Segment, SegmentOut, Tuple};
use crate::{Error, FallbackReason, ResetReason};
use anabranch_frame::{Instant, Payload, Slices, Transmit};

use super::addr::{established_entry, opening_entry};
use super::conn::{Conn, Cx, Stage};
use super::input::is_final;
use super::options::pacing_of;
use super::{Fast, Key, Mode, Mp, join_ack, join_synack, same};

/// Window scale for a receive buffer that may grow to `max` bytes (RFC 7323 §2.3).
pub(crate) fn scale_for(max: u64) -> u8 {
    (0..14).find(|scale| u64::from(u16::MAX) << scale >= max).unwrap_or(14)
}

/// Segments that may wait to go out before answers to segments of a handshake are left out.
const PARTING_MAX: usize = 16;

/// A join that the peer opened and proved.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) tuple: Tuple,
    pub(crate) link: Link,
    pub(crate) negotiated: Negotiated,
    pub(crate) ts_offset: u32,
    pub(crate) local_id: u8,
    pub(crate) remote_id: u8,
    pub(crate) backup: Backup,
    /// The window on our SYN/ACK.
    pub(crate) told_window: u16,
}

impl Conn {
    pub(super) fn take_subflow_id(&mut self) -> SubflowId {
        let id = self.next_subflow;
        self.next_subflow = self.next_subflow.saturating_add(1);
        id
    }

    /// Starts the first subflow of an active open.
    pub(crate) fn open_first(
        &mut self,
        cx: &mut Cx<'_>,
        tuple: Tuple,
        link: Link,
        options: &SocketOptions,
        fast: Option<Fast>,
    ) -> usize {
        let want = match self.mp() {
            Some(_) => Want::Capable,
            None => Want::Plain,
        };
        let opening = self.open(cx, tuple, link, want, options.recv_max());
        if let Some(retries) = options.syncnt {
            opening.set_retries(retries);
        }
        cx.counters.tcp_active_opens += 1;
        fast.map_or(0, |fast| self.prepare_fast(cx, fast, options))
    }

    fn open(&mut self, cx: &mut Cx<'_>, tuple: Tuple, link: Link, want: Want, recv_max: u64) -> &mut Opening {
        let id = self.take_subflow_id();
        let iss = cx.take_tuple(tuple, Slot::Conn(self.id.index(), id));
        let offset = timestamp_offset(&cx.config.isn_key, &tuple);
        let mss = self.options.max_seg.unwrap_or(u16::MAX).min(cx.pmtus.local_mss(cx.now, link, &tuple));
        let ecn = EcnWish::to_ask(&self.options);
        let ip = IpOptions::of(&self.options);
        let Handshake { syn_retries, syn_linear_timeouts, offers, .. } = cx.config.handshake;
        let local = Local { mss, scale: scale_for(recv_max), ecn, ip, offers };
        let retries = Retries { linear: syn_linear_timeouts, doubling: syn_retries };
        self.openings.push(Opening::new(cx.now, id, tuple, link, iss, offset, local, want, retries));
        let last = self.openings.len() - 1;
        &mut self.openings[last]
    }

    /// Opens a further subflow from `local` on `path` to an address of the peer.
    pub(super) fn open_join(
        &mut self,
        cx: &mut Cx<'_>,
        local: core::net::IpAddr,
        path: PathId,
        ids: (u8, u8),
        remote: core::net::SocketAddr,
        backup: bool,
    ) {
        let recv_max = self.rx.max();
        let Some(token) = self.mp().and_then(|mp| mp.remote).map(|remote| remote.token) else { return };
        let tuple = cx.free_tuple(local, remote);
        let (Some(tuple), Some(link)) = (tuple, cx.paths.link(path)) else {
            cx.counters.mp_join_syn_tx_connect_err += 1;
            return;
        };
        let nonce = cx.rng.u32();
        if let Some(mp) = self.mp_mut() {
            mp.note_join(ids.0);
        }
        let opening = self.open(cx, tuple, link, Want::Join { token, nonce }, recv_max);
        opening.local_id = ids.0;
        opening.remote_id = ids.1;
        opening.backup = backup;
        cx.counters.mp_join_syn_tx += 1;
    }

    /// The next SYN (or SYN/ACK of a simultaneous open) that is due.
    pub(super) fn send_syn(&mut self, cx: &mut Cx<'_>) -> Option<Transmit> {
        let at = self.openings.iter().position(Opening::due)?;
        let drop_after = cx.config.syn_retrans_before_tcp_fallback;
        let checksum_required = self.mp().is_some_and(|mp| mp.checksum);
        let deny_join_initial = !self.options.allow_join_initial_addr_port;
        let opening = &mut self.openings[at];
        let answers = opening.answers();
        let option = match opening.want {
            Want::Capable if answers.is_none() && opening.transmissions() > drop_after => {
                cx.counters.mp_capable_syn_tx_drop += u64::from(opening.transmissions() == drop_after + 1);
                None
            }
            Want::Capable if answers.is_none() => {
                cx.counters.mp_capable_syn_tx += u64::from(opening.transmissions() == 0);
                let offer = MpCapable::offer(None, None, None);
                Some(MptcpOption::Capable(MpCapable { checksum_required, deny_join_initial, ..offer }))
            }
            Want::Join { token, nonce } => {
                Some(MptcpOption::Join(MpJoin::Syn { backup: opening.backup, addr_id: opening.local_id, token, nonce }))
            }
            _ => None,
        };
        let window = self.rx.window().min(0xffff) as u16;
        opening.told_window = window;
        cx.counters.tcp_retrans_segs += u64::from(opening.transmissions() > 0);
        let mut data = Slices::new();
        // Neither data nor option is sent a second time: they may be what the path does not let pass (RFC 7413 §4.2.1).
        let first = opening.transmissions() == 0;
        if let Some(fast) = opening.fast.as_mut().filter(|_| first) {
            let (slices, len) = self.tx.slices(0..u64::from(fast.room).min(self.tx.end()));
            fast.data = len as u16;
            data = slices;
        }
        let flags = opening.flags(cx.config.ecn_fallback);
        let transmit = syn_segment(cx.now, opening, answers.as_ref(), flags, window, option.as_ref(), data);
        opening.on_sent(cx.now);
        Some(transmit)
    }

    /// A segment came in for a subflow that we are opening.
    pub(super) fn on_opening_segment(&mut self, cx: &mut Cx<'_>, at: usize, segment: &Segment) {
        match self.openings[at].on_segment(cx.now, segment, cx.guard) {
            Disposition::Ignore => {}
            // While the device is blocked, forged segments must not fill the memory with answers.
            Disposition::Answer | Disposition::Reset { .. } if self.parting.len() >= PARTING_MAX => {}
            Disposition::Answer => self.parting.extend(self.openings[at].ack(cx.now)),
            Disposition::Reset { paws } => {
                cx.counters.paws_active_rejected += u64::from(paws);
                let reset = reset_for(segment, None);
                cx.counters.tcp_out_rsts += u64::from(reset.is_some());
                self.parting.extend(reset);
            }
            Disposition::Refused => {
                let told = segment.options.mptcp.iter().any(|option| matches!(option, MptcpOption::Reset { .. }));
                cx.counters.mp_rst_rx += u64::from(told);
                self.opening_failed(cx, at, Error::Refused, is_final(segment));
            }
            Disposition::SynReceived => {
                if self.openings[at].id == 0 && self.mp().is_some() {
                    cx.counters.simult_connect_fallback += 1;
                    self.fall_back(cx, FallbackReason::SimultaneousConnect);
                }
            }
            Disposition::Established { negotiated, synack, acked } => {
                let opening = self.openings.remove(at);
                if opening.id == 0 {
                    let fast = self.finish_fast_syn(cx, &opening, acked, segment);
                    self.opened_first(cx, &opening, (negotiated, fast), synack, segment);
                } else {
                    self.opened_join(cx, &opening, negotiated, segment);
                }
            }
        }
        self.settle(cx);
    }

    /// An open came to nothing, for good if it is `last`.
    pub(super) fn opening_failed(&mut self, cx: &mut Cx<'_>, at: usize, error: Error, last: bool) {
        let opening = self.openings.remove(at);
        cx.release_tuple(&opening.tuple, Slot::Conn(self.id.index(), opening.id));
        cx.counters.tcp_attempt_fails += 1;
        if opening.id == 0 {
            self.fail(cx, error, None);
        } else {
            self.join_failed(cx, &opening, error, last);
        }
    }

    fn join_failed(&mut self, cx: &mut Cx<'_>, opening: &Opening, error: Error, last: bool) {
        let subflow = opening_entry(opening);
        self.report(cx, || Notice::SubflowDown { subflow, broken: true, error: Some(error) });
        self.manage_paths(cx, &PmEvent::SubflowDown { subflow, broken: !last });
        self.note_no_subflow(cx);
    }

    fn opened_first(
        &mut self,
        cx: &mut Cx<'_>,
        opening: &Opening,
        (negotiated, fast): (Negotiated, FastOpened),
        synack: bool,
        segment: &Segment,
    ) {
        let capable = segment.options.mptcp.iter().find_map(|option| match option {
            MptcpOption::Capable(capable) if synack && capable.is_spoken() => Some(capable),
            _ => None,
        });
        if self.mp().is_some() {
            match capable {
                Some(capable) => {
                    cx.counters.mp_capable_synack_rx += 1;
                    cx.note_capability(opening.tuple.remote.ip(), Capability::Answered);
                    if let (Some(mp), Some(key)) = (self.mp_mut(), capable.sender_key) {
                        mp.remote = Some(Key::new(key));
                        mp.deny_join_initial = capable.deny_join_initial;
                        mp.checksum |= capable.checksum_required;
                        mp.remotes.push(RemoteAddr { id: 0, addr: opening.tuple.remote });
                    }
                }
                _ => cx.counters.mp_capable_fallback_synack += 1,
            }
            self.report_created(cx);
            if self.mp().is_some_and(|mp| mp.remote.is_none()) {
                let given_up = opening.transmissions() > cx.config.syn_retrans_before_tcp_fallback + 1;
                if given_up {
                    cx.note_capability(opening.tuple.remote.ip(), Capability::Lost);
                }
                let reason = if given_up { FallbackReason::SynDropped } else { FallbackReason::SynAckNoCapable };
                self.fall_back(cx, reason);
            }
        }
        let start = SubflowStart { fast, ..self.start_of(opening, negotiated, Joining::Done) };
        let mut subflow = cx.subflow(start);
        if self.wants_room && self.mp().is_none() {
            // Somebody waits to write: that will carry the ACK.
            subflow.rcv.ack_with_data(cx.now);
        } else {
            subflow.rcv.ack_now();
        }
        self.peer_edge = u64::from(fast.sent) + negotiated.window;
        self.peer_window = negotiated.window;
        self.subflows.push(subflow);
        self.stage = Stage::Open;
        self.last_progress = cx.now;
        cx.counters.tcp_curr_estab += 1;
        self.tune_send_buffer();
        if !opening.was_deferred() {
            self.tell(cx, Event::Connected(self.id));
        }
        self.scheduler.on_event(&SchedEvent::Up(opening.id));
        self.after_handshake(cx, negotiated, synack, segment);
    }

    /// What the segment that finished an active open holds besides.
    fn after_handshake(&mut self, cx: &mut Cx<'_>, negotiated: Negotiated, synack: bool, segment: &Segment) {
        let at = self.subflows.len() - 1;
        if !segment.flags.has(Flags::SYN) {
            return self.on_subflow_segment(cx, at, segment);
        }
        if !synack {
            // The SYN came before, by itself (RFC 2883).
            let _ = self.subflows[at].rcv.missing(&(0..1));
        }
        let more = !segment.payload.is_empty() || segment.flags.has(Flags::FIN);
        if more && self.mp().is_none() {
            // Text and FIN of a SYN/ACK count as if they came behind it (RFC 9293 §3.10.7.3).
            let mut rest = segment.clone();
            rest.seq = segment.seq.add(1);
            rest.flags = Flags(segment.flags.0 & !Flags::SYN.0);
            rest.window = (negotiated.window >> negotiated.snd_scale) as u16;
            self.on_subflow_segment(cx, at, &rest);
        }
    }

    fn start_of(&self, opening: &Opening, negotiated: Negotiated, joining: Joining) -> SubflowStart {
        SubflowStart {
            id: opening.id,
            tuple: opening.tuple,
            link: opening.link,
            negotiated: self.within_max_seg(negotiated),
            ts_offset: opening.ts_offset,
            cc: self.new_congestion(&negotiated),
            pacing: pacing_of(&self.options),
            quickack: self.options.quickack,
            mptcp: self.mp().is_some(),
            ip: IpOptions::of(&self.options),
            local_id: opening.local_id,
            remote_id: opening.remote_id,
            backup: Backup { ours: opening.backup, theirs: false },
            joining,
            passive: false,
            told_window: opening.told_window,
            fast: FastOpened::default(),
        }
    }

    fn opened_join(&mut self, cx: &mut Cx<'_>, opening: &Opening, negotiated: Negotiated, segment: &Segment) {
        let slot = Slot::Conn(self.id.index(), opening.id);
        let answer = segment.options.mptcp.iter().find_map(|option| match *option {
            MptcpOption::Join(MpJoin::SynAck { backup, hmac, nonce, .. }) => Some((backup, hmac, nonce)),
            _ => None,
        });
        let keys = self.mp().and_then(|mp| Some((mp.local.key, mp.remote?.key)));
        let Want::Join { nonce, .. } = opening.want else { return };
        let proven = match (answer, keys) {
            (Some((backup, hmac, peer_nonce)), Some((local, remote))) => {
                let expected = join_synack(remote, local, peer_nonce, nonce);
                let good = same(&expected.to_be_bytes(), &hmac.to_be_bytes());
                let port = opening.tuple.remote.port() != self.tuple.1.port();
                cx.counters.mp_join_synack_rx += u64::from(good);
                cx.counters.mp_join_port_synack_rx += u64::from(good && port);
                cx.counters.mp_join_synack_backup_rx += u64::from(good && backup);
                cx.counters.mp_join_synack_hmac_failure += u64::from(!good);
                good.then_some((backup, join_ack(local, remote, nonce, peer_nonce)))
            }
            (Some(_), None) => None,
            (None, _) => {
                cx.counters.mp_join_synack_no_mpjoin += 1;
                None
            }
        };
        let (Some((backup, hmac)), Stage::Open) = (proven, self.stage) else {
            cx.release_tuple(&opening.tuple, slot);
            let reason = MptcpOption::Reset { transient: false, reason: ResetReason::MptcpError };
            cx.counters.mp_rst_tx += 1;
            cx.counters.tcp_out_rsts += 1;
            self.parting.extend(reset_for(segment, Some(&reason)));
            self.join_failed(cx, opening, Error::Refused, true);
            return;
        };
        let joining = Joining::AwaitsAck { hmac, deadline: cx.now, sent: 0, due: true };
        let mut start = self.start_of(opening, negotiated, joining);
        start.backup.theirs = backup;
        self.subflows.push(cx.subflow(start));
        cx.counters.tcp_curr_estab += 1;
    }

    /// Whether another subflow may be accepted from the peer now.
    pub(crate) fn admits_join(&self) -> bool {
        self.stage == Stage::Open
            && self.mp().is_some_and(|mp| mp.fully_established)
            && self.may_have_another()
            && !(self.tx.fin_acked() && self.rx.at_fin())
    }

    /// The limit, and identifiers that are never used twice, leave room for one more subflow.
    pub(super) fn may_have_another(&self) -> bool {
        self.extra_subflows() < self.options.limits.subflows && self.next_subflow < SubflowId::MAX
    }

    /// Subflows beyond the first, those in their handshake included.
    pub(super) fn extra_subflows(&self) -> u8 {
        let up = self.subflows.iter().filter(|subflow| subflow.id != 0).count();
        let opening = self.openings.iter().filter(|opening| opening.id != 0).count();
        (up + opening).min(usize::from(u8::MAX)) as u8
    }

    /// Segments are no larger than the application allows.
    fn within_max_seg(&self, negotiated: Negotiated) -> Negotiated {
        let max_seg = self.options.max_seg.unwrap_or(u16::MAX);
        Negotiated { peer_mss: negotiated.peer_mss.min(max_seg), ..negotiated }
    }

    pub(super) fn passive_start(&mut self, joined: &Joined) -> SubflowStart {
        SubflowStart {
            id: self.take_subflow_id(),
            tuple: joined.tuple,
            link: joined.link,
            negotiated: self.within_max_seg(joined.negotiated),
            ts_offset: joined.ts_offset,
            cc: self.new_congestion(&joined.negotiated),
            pacing: pacing_of(&self.options),
            quickack: self.options.quickack,
            mptcp: self.mp().is_some(),
            ip: IpOptions::of(&self.options),
            local_id: joined.local_id,
            remote_id: joined.remote_id,
            backup: joined.backup,
            joining: Joining::Done,
            passive: true,
            told_window: joined.told_window,
            fast: FastOpened::default(),
        }
    }

    /// A join that the peer opened is proven: it is a subflow from now on.
    pub(crate) fn accept_join(&mut self, cx: &mut Cx<'_>, joined: &Joined, segment: &Segment) {
        let start = self.passive_start(joined);
        let id = start.id;
        let mut subflow = cx.subflow(start);
        // The fourth message: the joiner sends no data before it.
        subflow.rcv.ack_now();
        self.subflows.push(subflow);
        if let Some(mp) = self.mp_mut() {
            mp.note_join(joined.local_id);
        }
        cx.counters.tcp_curr_estab += 1;
        cx.table.insert(joined.tuple, Slot::Conn(self.id.index(), id));
        self.on_subflow_up(cx, id);
        self.on_subflow_segment(cx, self.subflows.len() - 1, segment);
    }

    /// The first subflow of a passive open: the third ACK was good.
    pub(crate) fn accept_first(&mut self, cx: &mut Cx<'_>, joined: &Joined, segment: &Segment) {
        let start = self.passive_start(joined);
        let id = start.id;
        let subflow = cx.subflow(start);
        self.peer_edge = joined.negotiated.window;
        self.peer_window = self.peer_edge;
        self.subflows.push(subflow);
        self.stage = Stage::Open;
        cx.counters.tcp_curr_estab += 1;
        cx.counters.tcp_passive_opens += 1;
        cx.table.insert(joined.tuple, Slot::Conn(self.id.index(), id));
        self.scheduler.on_event(&SchedEvent::Up(id));
        self.tune_send_buffer();
        if let Some(mp) = self.mp_mut() {
            mp.remotes.push(RemoteAddr { id: 0, addr: joined.tuple.remote });
            self.report_created(cx);
            // Both keys came with the third ACK: the peer understands us.
            self.become_fully_established(cx);
        }
        self.on_subflow_segment(cx, 0, segment);
    }

    /// The peer is known to speak MPTCP on this connection.
    pub(super) fn become_fully_established(&mut self, cx: &mut Cx<'_>) {
        let Mode::Mptcp(mp) = &mut self.mode else { return };
        if mp.fully_established || mp.remote.is_none() {
            return;
        }
        mp.fully_established = true;
        cx.counters.mp_curr_estab += 1;
        self.report(cx, || Notice::Established);
        self.manage_paths(cx, &PmEvent::FullyEstablished);
    }

    pub(super) fn on_subflow_up(&mut self, cx: &mut Cx<'_>, id: SubflowId) {
        if self.stage == Stage::Open {
            self.give_up = None;
        }
        self.scheduler.on_event(&SchedEvent::Up(id));
        self.tell(cx, Event::SubflowUp(self.id, id));
        let Some(at) = self.index_of(id) else { return };
        let entry = established_entry(&self.subflows[at]);
        self.subflows[at].tell_data_fin |= self.data_fin_sent && !self.tx.fin_acked();
        let backup = self.subflows[at].backup.is_wanted();
        self.report(cx, || Notice::SubflowUp { subflow: entry, backup });
        self.send_withdrawn(cx);
        self.manage_paths(cx, &PmEvent::SubflowUp(entry));
    }
}

/// A SYN, or the SYN/ACK of a simultaneous open.
fn syn_segment(
    now: Instant,
    opening: &Opening,
    answers: Option<&Negotiated>,
    flags: Flags,
    window: u16,
    option: Option<&MptcpOption>,
    data: Slices,
) -> Transmit {
    let fast = opening.fast.as_ref().filter(|_| opening.transmissions() == 0);
    let cookie = fast.and_then(|fast| fast.option.as_ref());
    let options = syn_options(now, opening.local, answers, opening.ts_offset, cookie, option);
    SegmentOut {
        tuple: opening.tuple,
        seq: opening.iss,
        ack: answers.map_or(crate::wire::SeqNum(0), |negotiated| negotiated.irs.add(1)),
        flags,
        window,
        ip: opening.ip_out(),
        options: &options,
        payload_len: data.iter().map(Payload::len).sum::<usize>() as u32,
    }
    .transmit(opening.link.path, data, None)
}

/// Keys of a passive open once the third ACK brought the peer's.
pub(crate) fn passive_mode(local: Key, remote: u64, deny_join_initial: bool, checksum: bool) -> Mode {
    let mut mp = Mp::new(local, Some(Key::new(remote)));
    mp.deny_join_initial = deny_join_initial;
    mp.checksum = checksum;
    Mode::Mptcp(mp)
}
