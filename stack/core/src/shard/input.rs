//! Packets that came in: whose they are, and what becomes of those that belong to no connection.

use alloc::sync::Arc;

use anabranch_frame::{Instant, RxPacket};

use crate::mptcp::{self, Cx, Joined, Mode};
use crate::options::SocketOptions;
use crate::tcp::{Local, Negotiated, initial_seq, reset_for, timestamp_offset};
use crate::wire::{Dropped, Flags, MpJoin, MptcpOption, Segment, ecn, is_icmp, peek_tuple};
use crate::{Ecn, FallbackReason, ResetReason};

use super::fastopen::Answer;
use super::listen::{SynEntry, SynKind, capable_syn};
use super::paths::Paths;
use super::timewait::Waited;
use super::{ConnId, Event, Level, ListenerId, Mail, Shard, Slot, WorkerId, cx};

/// Answers to segments of no connection that may wait to be sent; more of them are dropped.
const LOOSE_MAX: usize = 4096;

/// An MP_JOIN on a SYN.
#[derive(Clone, Copy, Debug)]
struct JoinSyn {
    backup: bool,
    addr_id: u8,
    token: u32,
    nonce: u32,
}

fn join_syn(segment: &Segment) -> Option<JoinSyn> {
    segment.options.mptcp.iter().find_map(|option| match *option {
        MptcpOption::Join(MpJoin::Syn { backup, addr_id, token, nonce }) => {
            Some(JoinSyn { backup, addr_id, token, nonce })
        }
        _ => None,
    })
}

impl Shard {
    /// A packet straight from a device may belong to any worker.
    pub(super) fn steer(&mut self, now: Instant, packet: RxPacket) {
        if is_icmp(&packet.data) {
            return self.receive_icmp(now, packet, false);
        }
        if self.crew.is_alone() {
            let Some(segment) = self.parse(packet) else { return };
            let slot = self.table.find(&segment.tuple);
            return self.receive(now, &segment, slot, None);
        }
        // What cannot be read is counted where it came in.
        let Some(tuple) = peek_tuple(&packet.data) else { return drop(self.parse(packet)) };
        match self.table.find(&tuple) {
            Some(Slot::Forward(worker)) => self.hand_over(worker, packet),
            None => match self.crew.home(&tuple) {
                home if home != self.crew.own() => self.hand_over(home, packet),
                _ => self.receive_one_of_many(now, packet, None),
            },
            slot => self.receive_one_of_many(now, packet, slot),
        }
    }

    /// Another worker says that a packet is ours, because we are at home there or own the token.
    pub(super) fn receive_mail(&mut self, now: Instant, packet: RxPacket) {
        self.counters.handed_over_rx += 1;
        if is_icmp(&packet.data) {
            return self.receive_icmp(now, packet, true);
        }
        let slot = peek_tuple(&packet.data).and_then(|tuple| self.table.find(&tuple));
        match slot {
            Some(Slot::Forward(worker)) => self.hand_over(worker, packet),
            slot => self.receive_one_of_many(now, packet, slot),
        }
    }

    pub(super) fn hand_over(&mut self, worker: WorkerId, packet: RxPacket) {
        self.counters.handed_over_tx += 1;
        self.mail.push_back((worker, Mail::Packet(packet)));
    }

    /// A packet that this worker deals with, one of several. What may turn out to be a join of another's connection
    /// is kept as it came.
    fn receive_one_of_many(&mut self, now: Instant, packet: RxPacket, slot: Option<Slot>) {
        let kept = matches!(slot, None | Some(Slot::TimeWait(_))).then(|| packet.clone());
        if let Some(segment) = self.parse(packet) {
            self.receive(now, &segment, slot, kept);
        }
    }

    /// The segment in a packet that is for us; counts what it is otherwise.
    fn parse(&mut self, packet: RxPacket) -> Option<Segment> {
        let segment = match Segment::parse(packet) {
            Ok(segment) => segment,
            Err(dropped) => {
                self.count_dropped(dropped);
                return None;
            }
        };
        self.counters.tcp_in_segs += 1;
        self.count_ecn(&segment);
        self.counters.tcp_malformed_options += u64::from(segment.options.malformed);
        if !self.paths.owns(segment.tuple.local.ip()) {
            self.counters.ip_in_addr_errors += 1;
            return None;
        }
        Some(segment)
    }

    fn count_ecn(&mut self, segment: &Segment) {
        let packets = segment.segment_size.map_or(1, |size| segment.payload.len().div_ceil(usize::from(size).max(1)));
        let counter = match segment.ecn {
            ecn::NOT_ECT => &mut self.counters.ip_in_no_ect,
            ecn::ECT_0 => &mut self.counters.ip_in_ect0,
            ecn::CE => &mut self.counters.ip_in_ce,
            _ => &mut self.counters.ip_in_ect1,
        };
        *counter += packets as u64;
    }

    /// `slot` is what stands behind the segment's tuple.
    fn receive(&mut self, now: Instant, segment: &Segment, slot: Option<Slot>, kept: Option<RxPacket>) {
        match slot {
            Some(Slot::Conn(index, subflow)) => {
                if let Some(place) = self.conns.get_mut(index as usize) {
                    let conn = place.wake(&mut self.counters.conns_at_rest, self.memory.level());
                    conn.on_segment(&mut cx!(self, now), subflow, segment);
                    self.touch(index);
                }
            }
            Some(Slot::Syn(key)) => self.on_syn_segment(now, key, segment),
            Some(Slot::TimeWait(index)) => self.on_time_wait(now, index, segment, kept),
            // Sent on before.
            Some(Slot::Forward(_)) => {}
            None => self.on_stranger(now, segment, kept),
        }
    }

    /// A segment of a tuple that nobody uses. A join goes on to the worker of its token.
    fn on_stranger(&mut self, now: Instant, segment: &Segment, kept: Option<RxPacket>) {
        let join = join_syn(segment).filter(|_| is_syn(segment));
        let owner = join.map(|join| self.crew.of_token(join.token));
        match (owner, kept) {
            (Some(owner), Some(packet)) if owner != self.crew.own() => self.hand_over(owner, packet),
            _ => self.on_unknown(now, segment),
        }
    }

    pub(super) fn count_dropped(&mut self, dropped: Dropped) {
        match dropped {
            Dropped::IpHeader => self.counters.ip_in_hdr_errors += 1,
            Dropped::Fragment => self.counters.ip_in_fragments += 1,
            Dropped::NotTcp => self.counters.ip_in_unknown_protos += 1,
            Dropped::TcpHeader => self.counters.tcp_in_errs += 1,
            Dropped::Checksum => self.counters.tcp_in_csum_errors += 1,
            Dropped::Icmp => self.counters.icmp_in_errors += 1,
            Dropped::IcmpChecksum => {
                self.counters.icmp_in_errors += 1;
                self.counters.icmp_in_csum_errors += 1;
            }
        }
    }

    /// A segment of no connection: a SYN for a listener, a join, or something to be reset.
    fn on_unknown(&mut self, now: Instant, segment: &Segment) {
        if is_syn(segment) {
            if let Some(join) = join_syn(segment) {
                return self.on_join_syn(now, segment, join);
            }
            if let Some(listener) = self.listeners.find(segment.tuple.local) {
                return self.on_syn(now, segment, listener);
            }
        }
        self.reset(segment, None);
    }

    fn reset(&mut self, segment: &Segment, reason: Option<ResetReason>) {
        if self.loose.len() >= LOOSE_MAX {
            return;
        }
        let option = reason.map(|reason| MptcpOption::Reset { transient: false, reason });
        if let Some(reset) = reset_for(segment, option.as_ref()) {
            self.counters.tcp_out_rsts += 1;
            self.counters.mp_rst_tx += u64::from(option.is_some());
            self.loose.push_back(reset);
        }
    }

    // --- passive opens ---------------------------------------------------------------------------

    fn on_syn(&mut self, now: Instant, segment: &Segment, id: ListenerId) {
        let Some(listener) = self.listeners.get(id) else { return };
        let options = Arc::clone(&listener.options);
        let (mptcp, checksum) = (options.mptcp, options.checksum);
        if self.refuses(segment, None) {
            return;
        }
        if self.syns.is_full() {
            self.counters.listen_drops += 1;
            return;
        }
        let capable = capable_syn(segment).copied();
        self.counters.mp_capable_syn_rx += u64::from(capable.is_some());
        // A version above ours is answered with ours.
        let usable =
            capable.filter(|capable| mptcp && capable.version >= 1 && capable.hmac_sha256 && !capable.extensibility);
        let key = usable.map(|_| self.new_key());
        let kind = SynKind::New {
            listener: id,
            key,
            deny_join_initial: usable.is_some_and(|capable| capable.deny_join_initial),
            checksum: checksum || usable.is_some_and(|capable| capable.checksum_required),
        };
        self.answer_syn(now, segment, id, kind, &options);
    }

    /// Answers the SYN of a new connection, which may be open at once (RFC 7413 §4.2.2).
    fn answer_syn(
        &mut self,
        now: Instant,
        segment: &Segment,
        id: ListenerId,
        kind: SynKind,
        options: &Arc<SocketOptions>,
    ) {
        let config = self.config.handshake.fastopen;
        let asks = (id.0, &**options);
        let answer = self.fastopens.answer(now, &config, asks, segment, &mut self.counters);
        let Some(mut entry) = self.syn_entry(now, segment, kind, options) else { return };
        match answer {
            Answer::Ordinary(cookie) => entry.fast_open = cookie,
            Answer::Open(cookie) => {
                entry.fast_open = cookie;
                if self.open_fast(now, segment, id, options, entry) {
                    return;
                }
                self.counters.tcp_fastopen_passive_fail += 1;
            }
        }
        self.half_open(now, entry);
    }

    /// Opens a connection with the data of its SYN. False if there is no room for it.
    fn open_fast(
        &mut self,
        now: Instant,
        segment: &Segment,
        id: ListenerId,
        options: &Arc<SocketOptions>,
        entry: SynEntry,
    ) -> bool {
        let SynKind::New { key, deny_join_initial, .. } = entry.kind else { return false };
        if self.conns.len() >= self.config.max_connections {
            return false;
        }
        let mode = match key {
            Some(key) => mptcp::fast_mode(key, deny_join_initial),
            None if options.mptcp => Mode::Plain(FallbackReason::SynNoCapable),
            None => Mode::Plain(FallbackReason::Disabled),
        };
        let addrs = (entry.tuple.local, entry.tuple.remote);
        let Ok(conn) = self.add_conn(now, addrs, mode, Arc::clone(options), true) else { return false };
        self.counters.tcp_fastopen_passive += 1;
        self.fastopens.opened(id.0);
        let joined = joined_of(now, &self.paths, &entry, segment);
        let joined = Joined { negotiated: entry.negotiated, ..joined };
        let answer = self.with(now, conn, |conn, cx| {
            cx.claim_tuple(&entry.tuple);
            conn.accept_fast(cx, &joined, entry, segment)
        });
        self.loose.extend(answer);
        if let Some(listener) = self.listeners.get_mut(id) {
            listener.accepted.push_back(conn);
            self.events.push_back(Event::Acceptable(id));
        }
        true
    }

    /// Answers a SYN with a reset if memory is used up.
    fn refuses(&mut self, segment: &Segment, reason: Option<ResetReason>) -> bool {
        let refused = self.memory.level() == Level::Exhausted;
        if refused {
            self.counters.listen_drops += 1;
            self.counters.tcp_abort_on_memory += 1;
            self.reset(segment, reason);
        }
        refused
    }

    fn on_join_syn(&mut self, now: Instant, segment: &Segment, join: JoinSyn) {
        self.counters.mp_join_syn_rx += 1;
        self.counters.mp_join_syn_backup_rx += u64::from(join.backup);
        let Some(index) = self.tokens.find(join.token) else {
            self.counters.mp_join_no_token_found += 1;
            return self.reset(segment, Some(ResetReason::MptcpError));
        };
        if self.refuses(segment, Some(ResetReason::LackOfResources)) {
            return;
        }
        if self.syns.is_full() {
            self.counters.listen_drops += 1;
            return;
        }
        let nonce = self.rng.u32();
        let Some(place) = self.conns.get_mut(index as usize) else { return };
        let conn = &*place.wake(&mut self.counters.conns_at_rest, self.memory.level());
        let keys = conn.mp().and_then(|mp| Some((mp.local.key, mp.remote?.key)));
        let (true, Some((local, remote))) = (conn.admits_join(), keys) else {
            self.counters.mp_join_rejected += 1;
            return self.reset(segment, Some(ResetReason::Prohibited));
        };
        let id = conn.id;
        let at = segment.tuple.local.ip();
        let local_id = if at == conn.info().local.ip() { 0 } else { self.paths.endpoint_id(at).unwrap_or(0) };
        let kind = SynKind::Join {
            conn: id,
            hmac: mptcp::join_synack(local, remote, nonce, join.nonce),
            nonce,
            peer_nonce: join.nonce,
            local_id,
            remote_id: join.addr_id,
            backup: join.backup,
        };
        let options = conn.shared_options();
        if let Some(entry) = self.syn_entry(now, segment, kind, &options) {
            self.half_open(now, entry);
        }
    }

    fn syn_entry(&self, now: Instant, segment: &Segment, kind: SynKind, options: &SocketOptions) -> Option<SynEntry> {
        // A passive subflow leaves by the path it came in on.
        let link = self.paths.link(segment.path)?;
        let tuple = segment.tuple;
        let iss = initial_seq(&self.config.isn_key, &tuple, now);
        let ts_offset = timestamp_offset(&self.config.isn_key, &tuple);
        let mss = options.max_seg.unwrap_or(u16::MAX).min(self.pmtus.local_mss(now, link, &tuple));
        let (ecn, tos) = (options.ecn != Ecn::Off, options.tos & !0b11);
        let local = Local { mss, scale: mptcp::scale_for(options.recv_max()), ecn, tos };
        let window = mptcp::initial_window(options).min(0xffff) as u16;
        let negotiated = Negotiated::new(iss, local, segment, None);
        Some(SynEntry::new(now, tuple, link, local, negotiated, ts_offset, kind, window))
    }

    /// Adds a half-open connection and answers its SYN.
    fn half_open(&mut self, now: Instant, mut entry: SynEntry) {
        let tuple = entry.tuple;
        self.loose.push_back(entry.synack(now));
        let deadline = entry.deadline();
        let key = self.syns.insert(entry);
        self.table.insert(tuple, Slot::Syn(key));
        self.syn_wheel.arm(key, deadline);
        cx!(self, now).claim_tuple(&tuple);
    }

    pub(super) fn remove_syn(&mut self, now: Instant, key: u32) {
        self.syn_wheel.cancel(key);
        if let Some(entry) = self.syns.remove(key) {
            cx!(self, now).release_tuple(&entry.tuple, Slot::Syn(key));
        }
    }

    pub(super) fn on_syn_timer(&mut self, now: Instant, key: u32) {
        let Some(entry) = self.syns.get_mut(key) else { return };
        // A subflow of a connection that is over joins nothing any more.
        let orphaned = matches!(entry.kind, SynKind::Join { conn, .. }
            if self.conns.get(conn.index as usize).is_none_or(|place| place.id() != Some(conn)));
        if entry.exhausted(self.config.handshake.synack_retries) || orphaned {
            self.counters.tcp_attempt_fails += 1;
            self.remove_syn(now, key);
            return;
        }
        self.loose.push_back(entry.synack(now));
        self.counters.tcp_retrans_segs += 1;
        let deadline = entry.deadline();
        self.syn_wheel.arm(key, deadline);
    }

    /// SYN-RECEIVED (RFC 9293 §3.10.7.4) of a passive open.
    fn on_syn_segment(&mut self, now: Instant, key: u32, segment: &Segment) {
        let Some(entry) = self.syns.get_mut(key) else { return };
        let first = entry.negotiated.irs.add(1);
        if segment.flags.has(Flags::RST) {
            if segment.seq == first {
                self.counters.tcp_attempt_fails += 1;
                self.remove_syn(now, key);
            }
            return;
        }
        if segment.flags.has(Flags::SYN) {
            if segment.seq == entry.negotiated.irs && self.loose.len() < LOOSE_MAX {
                let again = entry.synack(now);
                self.loose.push_back(again);
            }
            return;
        }
        if !segment.flags.has(Flags::ACK) {
            return;
        }
        if segment.ack != entry.negotiated.iss.add(1) {
            return self.reset(segment, None);
        }
        let offset = segment.seq.distance(first);
        if offset < 0 || offset > i32::from(u16::MAX) {
            self.counters.tcp_out_of_window += 1;
            return;
        }
        let entry = *entry;
        match entry.kind {
            SynKind::New { listener, key: local, deny_join_initial, checksum } => {
                self.finish_new(now, key, &entry, (listener, local, deny_join_initial, checksum), segment);
            }
            SynKind::Join { conn, .. } => self.finish_join(now, key, &entry, conn, segment),
        }
    }

    fn finish_new(
        &mut self,
        now: Instant,
        key: u32,
        entry: &SynEntry,
        (id, local, deny, checksum): (ListenerId, Option<mptcp::Key>, bool, bool),
        segment: &Segment,
    ) {
        let Some(listener) = self.listeners.get(id) else { return };
        if listener.accepted.len() >= listener.backlog || self.conns.len() >= self.config.max_connections {
            // The entry stays: the peer repeats its data, or we our SYN/ACK, until there is room.
            self.counters.listen_overflows += 1;
            return;
        }
        let remote = capable_syn(segment).and_then(|capable| {
            let genuine = capable.receiver_key == local.map(|local| local.key);
            capable.sender_key.filter(|_| genuine)
        });
        let mode = match (local, remote) {
            (Some(local), Some(remote)) => {
                self.counters.mp_capable_ack_rx += 1;
                mptcp::passive_mode(local, remote, deny, checksum)
            }
            (Some(_), None) if segment.seq != entry.negotiated.irs.add(1) || has_dss(segment) => {
                // The third ACK got lost or late; the first data repeats what it said, and so does the answer to
                // our next SYN/ACK.
                self.counters.tcp_out_of_window += 1;
                return;
            }
            (Some(_), None) => {
                self.counters.mp_capable_fallback_ack += 1;
                Mode::Plain(FallbackReason::AckNoCapable)
            }
            (None, _) if listener.options.mptcp => Mode::Plain(FallbackReason::SynNoCapable),
            (None, _) => Mode::Plain(FallbackReason::Disabled),
        };
        let options = Arc::clone(&listener.options);
        let addrs = (entry.tuple.local, entry.tuple.remote);
        let Ok(conn) = self.add_conn(now, addrs, mode, options, true) else { return };
        self.syn_wheel.cancel(key);
        self.syns.remove(key);
        let joined = Joined { local_id: 0, remote_id: 0, backup: false, ..joined_of(now, &self.paths, entry, segment) };
        self.with(now, conn, |conn, cx| conn.accept_first(cx, &joined, segment));
        if let Some(listener) = self.listeners.get_mut(id) {
            listener.accepted.push_back(conn);
            self.events.push_back(Event::Acceptable(id));
        }
    }

    fn finish_join(&mut self, now: Instant, key: u32, entry: &SynEntry, id: ConnId, segment: &Segment) {
        let SynKind::Join { nonce, peer_nonce, local_id, remote_id, backup, .. } = entry.kind else { return };
        let told = segment.options.mptcp.iter().find_map(|option| match option {
            MptcpOption::Join(MpJoin::Ack { hmac }) => Some(*hmac),
            _ => None,
        });
        let Some(told) = told else {
            // Data before the third ACK, or a stripped option: the joiner repeats its ACK until we answer.
            self.counters.mp_join_ack_no_mpjoin += 1;
            return;
        };
        self.counters.mp_join_ack_rx += 1;
        let keys_of = |conn: &mptcp::Conn| conn.mp().and_then(|mp| Some((mp.local.key, mp.remote?.key)));
        let (keys, admitted) = self.conn_mut(id).map_or((None, false), |conn| (keys_of(conn), conn.admits_join()));
        let genuine =
            keys.is_some_and(|(local, remote)| mptcp::same(&mptcp::join_ack(remote, local, peer_nonce, nonce), &told));
        if !genuine {
            self.counters.mp_join_ack_hmac_failure += 1;
            self.remove_syn(now, key);
            return self.reset(segment, Some(ResetReason::MptcpError));
        }
        if !admitted {
            self.counters.mp_join_rejected += 1;
            self.remove_syn(now, key);
            return self.reset(segment, Some(ResetReason::Prohibited));
        }
        self.syn_wheel.cancel(key);
        self.syns.remove(key);
        let joined = Joined { local_id, remote_id, backup, ..joined_of(now, &self.paths, entry, segment) };
        self.with(now, id, |conn, cx| conn.accept_join(cx, &joined, segment));
    }

    fn on_time_wait(&mut self, now: Instant, index: u32, segment: &Segment, kept: Option<RxPacket>) {
        match self.time_waits.on_segment(index, segment) {
            Waited::Ignore => {}
            Waited::Answer => {
                if self.loose.len() < LOOSE_MAX {
                    self.loose.extend(self.time_waits.ack(now, index));
                }
            }
            Waited::Reopen => {
                if let Some(entry) = self.time_waits.remove(index) {
                    cx!(self, now).release_tuple(&entry.tuple, Slot::TimeWait(index));
                    self.on_stranger(now, segment, kept);
                }
            }
        }
    }
}

fn is_syn(segment: &Segment) -> bool {
    segment.flags.has(Flags::SYN) && !segment.flags.has(Flags::ACK) && !segment.flags.has(Flags::RST)
}

/// Whether the peer takes MPTCP for granted: no middlebox strips MP_CAPABLE and leaves DSS.
fn has_dss(segment: &Segment) -> bool {
    segment.options.mptcp.iter().any(|option| matches!(option, MptcpOption::Dss(_)))
}

/// What the third ACK adds to a half-open connection.
fn joined_of(now: Instant, paths: &Paths, entry: &SynEntry, segment: &Segment) -> Joined {
    let window = u64::from(segment.window) << entry.negotiated.snd_scale;
    Joined {
        tuple: entry.tuple,
        // Its MTU may have changed since the SYN.
        link: paths.link(entry.link.path).unwrap_or(entry.link),
        negotiated: Negotiated { window, rtt: entry.rtt(now), ..entry.negotiated },
        ts_offset: entry.ts_offset,
        local_id: 0,
        remote_id: 0,
        backup: false,
        told_window: entry.window,
    }
}
