//! What a connection sends, and on which subflow.

use core::ops::Range;

use anabranch_frame::{Instant, Slices, Transmit};
use smallvec::SmallVec;

use crate::info::TcpState;
use crate::sched::{Ask, Choice, Decision, SchedEvent, SchedView, SubflowView};
use crate::tcp::{AckDue, Joining, Out, Retransmit, Subflow, TxMapping};
use crate::wire::{Dss, Flags, Mapping, MpCapable, MpJoin, MptcpOption, OptionWriter};

use super::checksum;
use super::conn::{Conn, Cx, Stage};
use super::{Mode, Mp};

/// Decisions asked of a scheduler before it is taken to have nothing to say.
const ASKS_MAX: usize = 4;
/// Ranges to be sent again among which one is looked for that some subflow does not have under way.
const REINJECTIONS_MAX: usize = 8;
/// Bytes of options that a segment has besides timestamps.
const OPTIONS_LEFT: usize = 28;

impl Conn {
    /// The next packet of this connection, if there is one to send now.
    pub(crate) fn poll_transmit(&mut self, cx: &mut Cx<'_>) -> Option<Transmit> {
        if let Some(transmit) = self.parting.pop_front().or_else(|| self.send_syn(cx)) {
            return Some(transmit);
        }
        let count = self.subflows.len();
        for step in 0..count {
            let at = (self.turn + step) % count;
            if let Some(transmit) = self.send_first(cx, at) {
                self.turn = at + 1;
                return Some(transmit);
            }
        }
        if let Some(transmit) = self.send_data(cx) {
            return Some(transmit);
        }
        for at in 0..count {
            if self.subflows[at].snd.new_data_went_first()
                && let Some(transmit) = self.send_retransmission(cx, at)
            {
                return Some(transmit);
            }
            if let Some(transmit) = self.send_last(cx, at) {
                return Some(transmit);
            }
        }
        self.reap_all(cx);
        self.arm_persist(cx);
        self.note_limit(cx.now);
        self.count_windows(cx);
        self.tell_writable(cx);
        None
    }

    /// Counts the windows that were closed and opened since the last time.
    fn count_windows(&mut self, cx: &mut Cx<'_>) {
        for subflow in &mut self.subflows {
            let (closed, opened) = subflow.counts.take_zero_windows();
            cx.counters.tcp_to_zero_window_adv += u64::from(closed);
            cx.counters.tcp_from_zero_window_adv += u64::from(opened);
        }
        cx.counters.tcp_want_zero_window_adv += self.rx.take_wanted_zero();
    }

    /// What goes before new data: the join's third ACK, urgent acknowledgements, signals, retransmissions.
    fn send_first(&mut self, cx: &mut Cx<'_>, at: usize) -> Option<Transmit> {
        if let Some(transmit) = self.send_join_ack(cx, at) {
            return Some(transmit);
        }
        let subflow = &self.subflows[at];
        if subflow.joining != Joining::Done || subflow.state == TcpState::Closed {
            return None;
        }
        if !subflow.early_acks.is_empty() {
            return Some(self.send_ack(cx, at));
        }
        // Under MPTCP a data segment has no room for SACK blocks: they go ahead of it, by themselves.
        if subflow.rcv.due() == AckDue::Now && subflow.rcv.has_sack() {
            return Some(self.send_ack(cx, at));
        }
        if !subflow.signals.is_empty() && subflow.may_signal(cx.now) {
            return Some(self.send_signal(cx, at));
        }
        self.send_retransmission(cx, at)
    }

    fn send_join_ack(&mut self, cx: &mut Cx<'_>, at: usize) -> Option<Transmit> {
        let subflow = &mut self.subflows[at];
        let Joining::AwaitsAck { hmac, ref mut deadline, ref mut sent, ref mut due } = subflow.joining else {
            return None;
        };
        if !*due {
            return None;
        }
        *due = false;
        *deadline = cx.now + subflow.snd.rto() * (1 << (*sent).min(6));
        *sent += 1;
        Some(self.send_bare(cx, at, &[MptcpOption::Join(MpJoin::Ack { hmac })], false))
    }

    /// The connection's window, moved along with every segment.
    fn window(&mut self) -> u64 {
        self.rx.refresh_edge(self.receive_segment());
        self.rx.window()
    }

    /// DSS with DATA_ACK alone, or what stands in its place while the handshake is not proven.
    fn ack_option(&mut self, at: usize) -> Option<MptcpOption> {
        let ack = self.rx.ack();
        let first = self.subflows[at].id == 0;
        let short = self.subflows[at].rcv.has_sack();
        let server_side = self.server_side;
        let deny_join_initial = !self.options.allow_join_initial_addr_port;
        let mp = self.mp_mut()?;
        let remote = mp.remote?;
        if first && !server_side && !mp.fully_established {
            return Some(MptcpOption::Capable(MpCapable { deny_join_initial, ..capable(mp, remote.key, None) }));
        }
        let long = mp.long_ack && !short;
        Some(MptcpOption::Dss(Dss { ack: Some(mp.data_ack(ack, long)), mapping: None, data_fin: false }))
    }

    /// The option that a data segment carries.
    fn data_option(&mut self, mapping: Option<TxMapping>) -> Option<MptcpOption> {
        let ack = self.rx.ack();
        let deny_join_initial = !self.options.allow_join_initial_addr_port;
        let mp = self.mp_mut()?;
        let mapping = mapping?;
        if mapping.capable {
            let offer = capable(mp, mp.remote?.key, Some(&mapping));
            return Some(MptcpOption::Capable(MpCapable { deny_join_initial, ..offer }));
        }
        Some(MptcpOption::Dss(Dss {
            ack: Some(mp.data_ack(ack, mp.long_ack)),
            mapping: Some(Mapping {
                dsn: mapping.dsn,
                dsn_long: true,
                ssn: mapping.ssn,
                len: mapping.len,
                checksum: mapping.checksum,
            }),
            data_fin: mapping.data_fin,
        }))
    }

    /// A segment without payload, with these options.
    fn send_bare(&mut self, cx: &Cx<'_>, at: usize, mptcp: &[MptcpOption], with_sack: bool) -> Transmit {
        let window = self.window();
        let subflow = &mut self.subflows[at];
        let pos = subflow.snd.nxt();
        subflow.emit(
            cx.now,
            Out { pos, flags: Flags::ACK, payload: Slices::new(), mptcp, window, with_sack, fresh: false },
        )
    }

    fn send_ack(&mut self, cx: &mut Cx<'_>, at: usize) -> Transmit {
        let option = self.ack_option(at).or_else(|| self.data_ack_for_unaware(at));
        self.send_bare(cx, at, option.as_slice(), true)
    }

    /// A pure ACK for one waiting option, with DATA_ACK if there is room for both.
    fn send_signal(&mut self, cx: &mut Cx<'_>, at: usize) -> Transmit {
        let signal = self.subflows[at].signals.remove(0);
        let room = OPTIONS_LEFT.saturating_sub(OptionWriter::mptcp_len(&signal));
        // ADD_ADDR goes alone, as the kernel sends it: what else there is to say, the last ACK said.
        let alone = matches!(signal, MptcpOption::AddAddr(_));
        let ack = self.ack_option(at).filter(|ack| !alone && OptionWriter::mptcp_len(ack) <= room);
        let mut options: SmallVec<[MptcpOption; 2]> = ack.into_iter().collect();
        options.push(signal);
        self.subflows[at].count_signal();
        // There is room for what found none.
        self.send_withdrawn(cx);
        self.send_bare(cx, at, &options, false)
    }

    fn send_retransmission(&mut self, cx: &mut Cx<'_>, at: usize) -> Option<Transmit> {
        let quantum = self.subflows[at].resend_quantum();
        let again = self.subflows[at].snd.next_retransmit(cx.now, quantum, cx.counters)?;
        Some(self.transmit_again(cx, at, again))
    }

    fn transmit_again(&mut self, cx: &mut Cx<'_>, at: usize, again: Retransmit) -> Transmit {
        let window = self.window();
        let mss = u64::from(self.subflows[at].snd.mss());
        cx.counters.tcp_retrans_segs += (again.range.end - again.range.start).div_ceil(mss);
        let option = match (again.mapping, &self.mode) {
            (Some(mapping), Mode::Mptcp(_)) => self.data_option(Some(mapping)),
            (_, Mode::Plain(_)) => self.infinite_option(cx, at, again.range.end),
            (None, _) => self.ack_option(at),
        };
        let mut flags = if again.fin { Flags::FIN } else { Flags::ACK };
        if again.push && !again.fin {
            flags = flags.with(Flags::PSH);
        }
        let plain = matches!(self.mode, Mode::Plain(_));
        let subflow = &mut self.subflows[at];
        let out = Out {
            pos: again.range.start,
            flags,
            payload: again.payload,
            mptcp: option.as_slice(),
            window,
            with_sack: plain,
            fresh: false,
        };
        subflow.emit(cx.now, out)
    }

    // --- new data ---------------------------------------------------------------------------------

    fn send_data(&mut self, cx: &mut Cx<'_>) -> Option<Transmit> {
        if !matches!(self.stage, Stage::Open) {
            return None;
        }
        if let Some(transmit) = self.send_reinjection(cx) {
            return Some(transmit);
        }
        let usable = self.subflows.iter().filter(|subflow| subflow.usable()).count();
        match usable {
            0 => None,
            1 => {
                let at = self.subflows.iter().position(Subflow::usable)?;
                let range = self.tx.next_unassigned(0);
                self.send_new(cx, at, range)
            }
            _ => self.send_scheduled(cx),
        }
    }

    /// What lost its subflow, or was not acknowledged at data level in time, goes before new data.
    ///
    /// Never on a subflow that still has it under way, which retransmits by itself, nor on the only one while it is mute: a
    /// peer that fell back unheard would take the same bytes at a new position for new ones.
    fn send_reinjection(&mut self, cx: &mut Cx<'_>) -> Option<Transmit> {
        let (at, range) = self.next_reinjection(cx.now)?;
        let transmit = self.send_range(cx, at, range, true)?;
        self.stats.retransmits += 1;
        cx.counters.mptcp_retrans += 1;
        Some(transmit)
    }

    /// What is to be sent once more, and the best subflow that has room for it.
    fn next_reinjection(&self, now: Instant) -> Option<(usize, Range<u64>)> {
        self.tx.reinjections().next()?;
        let base = self.mp().filter(|_| !self.is_mute())?.dsn(0);
        // A doubtful one only if there is no other, busy or not: what it swallows nobody sends once more.
        let sound = self.subflows.iter().any(|subflow| subflow.usable() && !subflow.is_doubtful());
        let able = |subflow: &Subflow| {
            let fit = subflow.usable() && !subflow.snd.in_rto() && !(sound && subflow.is_doubtful());
            fit && subflow.snd.room(now) > 0
        };
        let mut able: SmallVec<[(usize, &Subflow); 4]> =
            self.subflows.iter().enumerate().filter(|(_, subflow)| able(subflow)).collect();
        if able.is_empty() {
            return None;
        }
        able.sort_by_key(|(_, subflow)| (subflow.backup.is_wanted(), subflow.snd.srtt(), subflow.id));
        let has = |subflow: &Subflow, off: u64| subflow.outstanding(base).any(|piece| piece.contains(&off));
        self.tx.reinjections().take(REINJECTIONS_MAX).find_map(|range| {
            let &(at, _) = able.iter().find(|(_, subflow)| !has(subflow, range.start))?;
            Some((at, range))
        })
    }

    fn send_scheduled(&mut self, cx: &mut Cx<'_>) -> Option<Transmit> {
        for _ in 0..ASKS_MAX {
            let Choice { decision, penalise } = self.ask_scheduler(cx)?;
            if let Some(at) = penalise.and_then(|id| self.index_of(id)) {
                self.subflows[at].snd.penalise(cx.now);
            }
            let sent = match decision {
                Decision::Wait { until } => {
                    self.scheduler_timer = until;
                    return None;
                }
                Decision::Send { subflow, skip, max_bytes } => {
                    let at = self.index_of(subflow)?;
                    let mut range = self.tx.next_unassigned(skip);
                    range.end = range.end.min(range.start.saturating_add(max_bytes));
                    self.send_new(cx, at, range)
                }
                Decision::Reinject { subflow, range } => {
                    let at = self.index_of(subflow)?;
                    let range = range.start.max(self.tx.una())..range.end.min(self.tx.assigned_end());
                    if range.start >= range.end {
                        continue;
                    }
                    let sent = self.send_range(cx, at, range, true);
                    self.stats.retransmits += u32::from(sent.is_some());
                    cx.counters.mptcp_retrans += u64::from(sent.is_some());
                    sent
                }
            };
            if sent.is_some() {
                self.scheduler_timer = None;
            }
            return sent;
        }
        None
    }

    fn ask_scheduler(&mut self, cx: &Cx<'_>) -> Option<Choice> {
        let una = self.tx.una();
        let unassigned = self.tx.unassigned();
        let window_left = self.peer_edge.saturating_sub(self.tx.nxt());
        let blocked = unassigned == 0 || window_left == 0;
        if blocked && self.tx.assigned_end() == una {
            return None;
        }
        let base = self.mp().map_or(0, |mp| mp.dsn(0));
        let views: SmallVec<[SubflowView; 4]> = self
            .subflows
            .iter()
            .filter(|subflow| subflow.usable())
            .map(|subflow| {
                let carried = blocked && subflow.outstanding(base).any(|range| range.contains(&una));
                subflow.view(cx.now, una, carried)
            })
            .collect();
        if views.iter().all(|view| view.room == 0) {
            return None;
        }
        let view = SchedView {
            now: cx.now,
            ask: if blocked { Ask::Blocked } else { Ask::NewData },
            subflows: &views,
            data_una: una,
            data_nxt: self.tx.nxt(),
            unassigned,
            window: self.peer_edge.saturating_sub(una),
            window_left,
            send_buffer_full: self.write_room() == 0,
        };
        Some(self.scheduler.select(&view))
    }

    /// Sends new data, unless it is better to wait: silly windows (RFC 9293 §3.8.6.2.1), Nagle (see `nagle`).
    fn send_new(&mut self, cx: &mut Cx<'_>, at: usize, mut range: Range<u64>) -> Option<Transmit> {
        let wanted = range.end - range.start;
        let window = self.peer_edge.saturating_sub(range.start);
        let subflow = &mut self.subflows[at];
        subflow.expire_mtu(cx.now);
        if let Some(len) = subflow.plan_probe(cx.now, wanted.min(window), &cx.config.pmtu) {
            return self.send_range(cx, at, range.start..range.start + len, false);
        }
        let subflow = &self.subflows[at];
        let room = subflow.snd.room(cx.now).min(window).min(subflow.send_quantum(cx.now));
        let mss = u64::from(subflow.snd.mss());
        let idle = subflow.snd.in_flight() == 0;
        let len = self.admitted(range.start, wanted, room, window, mss, idle);
        if len == 0 {
            return None;
        }
        range.end = range.start + len;
        self.send_range(cx, at, range, false)
    }

    /// How much of the `wanted` bytes from `start` on goes now, when there is `room` and the peer's window has `window` left.
    /// Whole segments always go. A partial one goes at the end of what there is if Nagle allows, and in a window
    /// that has no room for more.
    fn admitted(&self, start: u64, wanted: u64, room: u64, window: u64, mss: u64, idle: bool) -> u64 {
        let len = wanted.min(room);
        let whole = len - len % mss;
        if len == whole {
            return len;
        }
        let (una, forced) = (self.tx.una(), self.nagle.is_forced());
        let partial = if len == wanted {
            let all = start + len == self.tx.end();
            !all || self.tx.fin() || self.nagle.admits(start + len, una)
        } else if whole > 0 {
            // As the kernel does: the window is used to its last byte when it is used at all.
            len == window && self.nagle.admits(start + len, una)
        } else {
            // The windows are small. Wait for them, unless nothing is under way and it is the best that there was.
            forced || (idle && len * 2 >= self.peer_window.max(len))
        };
        if partial { len } else { whole }
    }

    /// Sends the offsets of `range`, or the first of them, on a subflow under a mapping of its own.
    fn send_range(&mut self, cx: &mut Cx<'_>, at: usize, range: Range<u64>, again: bool) -> Option<Transmit> {
        let subflow = &self.subflows[at];
        let probe = subflow.planned_probe();
        let quantum = probe.unwrap_or_else(|| subflow.send_quantum(cx.now));
        let most = quantum.min(subflow.snd.room(cx.now)).min(range.end - range.start);
        if most == 0 {
            return None;
        }
        let (payload, len) = self.tx.slices(range.start..range.start + most);
        if len == 0 {
            return None;
        }
        let range = range.start..range.start + len;
        let window = self.window();
        let mapping = self.new_mapping(at, &range, &payload);
        let option = match mapping {
            Some(_) => self.data_option(mapping),
            None => self.infinite_option(cx, at, self.subflows[at].snd.nxt() + len),
        };
        let pushed = self.tx.is_pushed(range.end);
        if again {
            self.tx.reinjected(range.clone());
            self.stats.bytes_retrans += len;
        } else {
            self.tx.assign(range.clone());
            self.stats.bytes_sent += len;
        }
        let plain = matches!(self.mode, Mode::Plain(_));
        let more = self.tx.unassigned() > 0;
        let mss = u64::from(self.subflows[at].snd.mss());
        let segment = probe.unwrap_or(mss);
        let push = self.nagle.on_sent(range.start, range.end, len % segment > 0) || pushed;
        let fin = plain && !again && !more && self.tx.fin() && self.subflows[at].snd.queued_lost() == 0;
        let subflow = &mut self.subflows[at];
        if subflow.snd.everything_acked() {
            subflow.silence.begin(cx.now);
        }
        if range.start <= subflow.walked {
            subflow.walked = subflow.walked.max(range.end);
        } else if range.start == self.tx.una() {
            subflow.walked = range.end;
        }
        let pos = subflow.snd.on_send_new(cx.now, payload.clone(), mapping, fin);
        if push {
            subflow.snd.mark_pushed();
        }
        subflow.snd.set_drained(!more);
        if probe.is_some() {
            subflow.launch_probe(pos, cx.counters);
        }
        subflow.probe = false;
        let id = subflow.id;
        let flags = if fin { Flags::FIN } else { Flags::ACK };
        let out = Out {
            pos,
            flags: if push { flags.with(Flags::PSH) } else { flags },
            payload,
            mptcp: option.as_slice(),
            window,
            with_sack: plain,
            fresh: true,
        };
        let transmit = subflow.emit(cx.now, out);
        if fin {
            // The end of the stream goes with the last of its bytes.
            subflow.wants_fin = true;
            subflow.transition();
        }
        self.scheduler.on_event(&SchedEvent::Sent { subflow: id, bytes: len });
        if !plain && self.data_timer.is_none() {
            self.arm_data_timer(cx.now);
        }
        Some(transmit)
    }

    /// The mapping of offsets that go on a subflow from its next position on.
    fn new_mapping(&self, at: usize, range: &Range<u64>, payload: &Slices) -> Option<TxMapping> {
        let mp = self.mp()?;
        let subflow = &self.subflows[at];
        let pos = subflow.snd.nxt();
        let ssn = (pos - u64::from(subflow.fast.sent)) as u32;
        let (dsn, len) = (mp.dsn(range.start), (range.end - range.start) as u16);
        Some(TxMapping {
            dsn,
            ssn,
            len,
            data_fin: false,
            // Only the very first data of the opener still proves its keys (RFC 8684 §3.1).
            capable: subflow.id == 0
                && pos == 1 + u64::from(subflow.fast.sent)
                && !self.server_side
                && !mp.fully_established,
            checksum: mp.checksum.then(|| checksum::of_payload(dsn, ssn, len, payload)),
        })
    }

    // --- what goes after data ---------------------------------------------------------------------

    fn send_last(&mut self, cx: &mut Cx<'_>, at: usize) -> Option<Transmit> {
        let subflow = &mut self.subflows[at];
        if subflow.joining != Joining::Done || subflow.state == TcpState::Closed {
            return None;
        }
        if core::mem::take(&mut subflow.probe)
            && let Some(again) = subflow.snd.send_probe(cx.now)
        {
            return Some(self.transmit_again(cx, at, again));
        }
        if subflow.tell_data_fin {
            if subflow.rcv.due() == AckDue::Now && self.owes_keys(at) {
                // A DSS would say nothing to a peer that does not have our key.
                return Some(self.send_ack(cx, at));
            }
            return Some(self.send_data_fin(cx, at));
        }
        if self.fin_is_due(at) {
            return Some(self.send_fin(cx, at));
        }
        let subflow = &mut self.subflows[at];
        if core::mem::take(&mut subflow.ping) {
            return Some(self.send_ping(cx, at));
        }
        if subflow.rcv.due() == AckDue::Now {
            return Some(self.send_ack(cx, at));
        }
        None
    }

    /// Whether the third ACK of the first subflow, which brings both keys (RFC 8684 §3.1), may not have gone out.
    fn owes_keys(&self, at: usize) -> bool {
        !self.server_side && self.subflows[at].id == 0 && self.mp().is_some_and(|mp| !mp.fully_established)
    }

    /// DATA_FIN by itself: subflow sequence number 0, length 1 (RFC 8684 §3.3.3).
    fn send_data_fin(&mut self, cx: &mut Cx<'_>, at: usize) -> Transmit {
        self.subflows[at].tell_data_fin = false;
        let end = self.tx.end();
        let ack = self.rx.ack();
        let option = self.mp_mut().map(|mp| {
            let dsn = mp.dsn(end);
            let checksum = mp.checksum.then(|| checksum::of_payload(dsn, 0, 1, &Slices::new()));
            MptcpOption::Dss(Dss {
                ack: Some(mp.data_ack(ack, mp.long_ack)),
                mapping: Some(Mapping { dsn, dsn_long: true, ssn: 0, len: 1, checksum }),
                data_fin: true,
            })
        });
        self.send_bare(cx, at, option.as_slice(), false)
    }

    fn fin_is_due(&self, at: usize) -> bool {
        let subflow = &self.subflows[at];
        let drained = self.tx.all_assigned() || matches!(self.mode, Mode::Mptcp(_));
        subflow.wants_fin && !subflow.snd.fin_sent() && subflow.snd.queued_lost() == 0 && drained
    }

    fn send_fin(&mut self, cx: &mut Cx<'_>, at: usize) -> Transmit {
        let window = self.window();
        let option = self.ack_option(at);
        let subflow = &mut self.subflows[at];
        let pos = subflow.snd.on_send_new(cx.now, Slices::new(), None, true);
        let out = Out {
            pos,
            flags: Flags::FIN,
            payload: Slices::new(),
            mptcp: option.as_slice(),
            window,
            with_sack: true,
            fresh: true,
        };
        let transmit = subflow.emit(cx.now, out);
        subflow.transition();
        transmit
    }

    /// One position before the next: the peer has it and must answer (keepalive, window probe).
    fn send_ping(&mut self, cx: &mut Cx<'_>, at: usize) -> Transmit {
        let window = self.window();
        let option = self.ack_option(at);
        let subflow = &mut self.subflows[at];
        let out = Out {
            pos: subflow.snd.una().saturating_sub(1),
            flags: Flags::ACK,
            payload: Slices::new(),
            mptcp: option.as_slice(),
            window,
            with_sack: false,
            fresh: false,
        };
        subflow.emit(cx.now, out)
    }
}

/// MP_CAPABLE with both keys: the third ACK, or the first data.
fn capable(mp: &Mp, remote: u64, first: Option<&TxMapping>) -> MpCapable {
    MpCapable {
        checksum_required: mp.checksum,
        checksum: first.and_then(|mapping| mapping.checksum),
        ..MpCapable::offer(Some(mp.local.key), Some(remote), first.map(|mapping| mapping.len))
    }
}
