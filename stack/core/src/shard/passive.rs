//! Passive opens: from the SYN to the connection that is accepted, or the subflow that is joined.

use alloc::sync::Arc;
use core::time::Duration;

use anabranch_frame::Instant;

use crate::config::SynCookies;
use crate::mptcp::{self, Cx, Joined, Mode};
use crate::options::SocketOptions;
use crate::tcp::{Backup, EcnWish, Half, IpOptions, Local, Negotiated, initial_seq, syn_cookie_key, timestamp_offset};
use crate::wire::{Flags, MpJoin, MptcpOption, Segment, SeqNum, Tuple};
use crate::{FallbackReason, ResetReason};

use super::fastopen::Answer;
use super::input::LOOSE_MAX;
use super::listen::{SynEntry, SynKind, capable_syn};
use super::paths::Paths;
use super::place::Place;
use super::{ConnId, Event, Level, ListenerId, Shard, Slot, cx, syncookie};

/// Cookies come back so long after the last one was sent, at most.
const COOKIES_LAST: Duration = Duration::from_secs(120);

/// Joins of one connection that may wait for their third ACK, so that who knows one token takes no room from others.
const HALF_OPEN_JOINS_MAX: u8 = 8;

/// An MP_JOIN on a SYN.
#[derive(Clone, Copy, Debug)]
pub(super) struct JoinSyn {
    backup: bool,
    addr_id: u8,
    pub(super) token: u32,
    nonce: u32,
}

pub(super) fn join_syn(segment: &Segment) -> Option<JoinSyn> {
    segment.options.mptcp.iter().find_map(|option| match *option {
        MptcpOption::Join(MpJoin::Syn { backup, addr_id, token, nonce }) => {
            Some(JoinSyn { backup, addr_id, token, nonce })
        }
        _ => None,
    })
}

impl Shard {
    pub(super) fn on_syn(&mut self, now: Instant, segment: &Segment, id: ListenerId) {
        let Some(listener) = self.listeners.get(id) else { return };
        let options = Arc::clone(&listener.options);
        let (mptcp, checksum, full) = (options.mptcp, options.checksum, listener.is_full());
        if self.refuses(segment, None) {
            return;
        }
        if full {
            // What is established could not be accepted: no more is begun.
            self.counters.listen_overflows += 1;
            self.counters.listen_drops += 1;
            return;
        }
        let Some(cookie) = self.must_bake(now) else {
            self.counters.tcp_req_q_full_drop += 1;
            self.counters.listen_drops += 1;
            return;
        };
        let capable = capable_syn(segment).copied();
        self.counters.mp_capable_syn_rx += u64::from(capable.is_some());
        // A version above ours is answered with ours.
        let usable =
            capable.filter(|capable| mptcp && capable.version >= 1 && capable.hmac_sha256 && !capable.extensibility);
        let key = usable.filter(|_| !cookie).map(|_| self.new_key());
        let kind = SynKind::New {
            listener: id,
            key,
            deny_join_initial: usable.is_some_and(|capable| capable.deny_join_initial),
            denies_join: !options.allow_join_initial_addr_port,
            checksum: checksum || usable.is_some_and(|capable| capable.checksum_required),
        };
        if cookie {
            self.send_cookie(now, segment, kind, &options, usable.is_some());
        } else {
            self.answer_syn(now, segment, id, kind, &options);
        }
    }

    /// Whether a SYN is answered with a cookie; `None` if it is not answered at all.
    fn must_bake(&mut self, now: Instant) -> Option<bool> {
        let full = self.syns.is_full();
        match self.config.handshake.syncookies {
            // A SYN that may reopen a tuple in TIME-WAIT needs a sequence number past the old ones.
            _ if self.next_isn.is_some() => (!full).then_some(false),
            SynCookies::Always => {
                self.cookies_until = Some(now + COOKIES_LAST);
                Some(true)
            }
            SynCookies::UnderLoad if full => {
                self.counters.tcp_req_q_full_do_cookies += 1;
                self.cookies_until = Some(now + COOKIES_LAST);
                Some(true)
            }
            SynCookies::UnderLoad => Some(false),
            SynCookies::Never => (!full).then_some(false),
        }
    }

    /// Answers a SYN without remembering anything of it (RFC 4987 §3.6).
    fn send_cookie(&mut self, now: Instant, segment: &Segment, kind: SynKind, options: &SocketOptions, mptcp: bool) {
        let Some(mut entry) = self.syn_entry(now, segment, kind, options).filter(|_| self.loose.len() < LOOSE_MAX)
        else {
            return;
        };
        let negotiated = &mut entry.negotiated;
        negotiated.iss = syncookie::isn(&self.config.isn_key, &segment.tuple, now, negotiated.irs, negotiated.peer_mss);
        entry.ts_offset = syncookie::hide_options(now, entry.ts_offset, negotiated);
        let iss = negotiated.iss;
        if let SynKind::New { key, .. } = &mut entry.kind
            && mptcp
        {
            *key = self.cookie_keys(&segment.tuple, iss).find(|key| self.may_have(key));
            self.counters.mp_fallback_token_init += u64::from(key.is_none());
        }
        self.counters.syncookies_sent += 1;
        self.loose.push_back(entry.synack(now, self.config.recovery.rto_max));
    }

    /// A segment of a tuple that nobody uses may be the third ACK to a SYN/ACK with a cookie. False if it is not.
    pub(super) fn on_cookie(&mut self, now: Instant, segment: &Segment) -> bool {
        let plausible =
            segment.flags.has(Flags::ACK) && !segment.flags.has(Flags::RST) && !segment.flags.has(Flags::SYN);
        // None was sent lately: whatever this is, it is none.
        if !plausible || self.cookies_until.is_none_or(|until| until < now) {
            return false;
        }
        let Some(id) = self.listeners.find(segment.tuple.local) else { return false };
        let Some(listener) = self.listeners.get(id) else { return false };
        let options = Arc::clone(&listener.options);
        // The client repeats our key: it need not be remembered, since only we could have made it.
        let capable = capable_syn(segment).filter(|capable| options.mptcp && capable.is_spoken());
        let told = capable.filter(|capable| capable.sender_key.is_some()).and_then(|capable| capable.receiver_key);
        let iss = SeqNum(segment.ack.0.wrapping_sub(1));
        let key = told.and_then(|told| self.cookie_keys(&segment.tuple, iss).find(|key| key.is(told)));
        let key = key.filter(|key| self.may_have(key));
        self.counters.mp_fallback_token_init += u64::from(told.is_some() && key.is_none());
        let checksum = options.checksum || capable_syn(segment).is_some_and(|capable| capable.checksum_required);
        let denies_join = !options.allow_join_initial_addr_port;
        let kind = SynKind::New { listener: id, key, deny_join_initial: false, denies_join, checksum };
        let Some(mut entry) = self.syn_entry(now, segment, kind, &options) else { return false };
        let Some(negotiated) = syncookie::recall(&self.config.isn_key, now, segment, entry.local) else {
            self.counters.syncookies_failed += 1;
            return false;
        };
        entry.negotiated = negotiated;
        self.counters.syncookies_recv += 1;
        self.finish_new(now, None, &entry, (id, key, false, checksum), segment);
        true
    }

    /// The keys that a connection may have whose SYN/ACK has the cookie `iss`.
    fn cookie_keys(&self, tuple: &Tuple, iss: SeqNum) -> impl Iterator<Item = mptcp::Key> {
        // One of as many as there are workers has a token that names this one.
        let attempts = 8 * self.crew.len() as u16;
        (0..attempts).map(move |attempt| mptcp::Key::new(syn_cookie_key(&self.config.isn_key, tuple, iss, attempt)))
    }

    /// Whether a key's token is free and names this worker.
    fn may_have(&self, key: &mptcp::Key) -> bool {
        self.crew.may_give(key.token) && self.tokens.find(key.token).is_none()
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
            None if options.mptcp => Mode::plain(FallbackReason::SynNoCapable),
            None => Mode::plain(FallbackReason::Disabled),
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

    pub(super) fn on_join_syn(&mut self, now: Instant, segment: &Segment, join: JoinSyn) {
        self.counters.mp_join_syn_rx += 1;
        self.counters.mp_join_syn_backup_rx += u64::from(join.backup);
        let Some(index) = self.tokens.find(join.token) else {
            self.counters.mp_join_no_token_found += 1;
            return self.reset(segment, Some(ResetReason::MptcpError));
        };
        if self.refuses(segment, Some(ResetReason::LackOfResources)) {
            return;
        }
        if self.syns.has_no_room_for_joins() {
            self.counters.listen_drops += 1;
            return;
        }
        let half_open = self.syns.joins_of(index);
        let nonce = self.rng.u32();
        let Some(place) = self.conns.get_mut(index as usize) else { return };
        place.wake(&mut self.counters.conns_at_rest, self.memory.level());
        // Whatever comes of it: who was woken has its timer and its account again.
        self.touch(index);
        let Some(Place::Awake { conn, .. }) = self.conns.get(index as usize) else { return };
        let keys = conn.mp().and_then(|mp| Some((mp.local.key, mp.remote?.key)));
        let at = segment.tuple.local;
        let (true, false, Some((local, remote))) = (conn.admits_join(), conn.denies_join_at(at), keys) else {
            self.counters.mp_join_rejected += 1;
            return self.reset(segment, Some(ResetReason::Prohibited));
        };
        let Some(port) = conn.admits_join_at(at) else {
            self.counters.mismatch_port_syn_rx += 1;
            return self.reset(segment, Some(ResetReason::Prohibited));
        };
        self.counters.mp_join_port_syn_rx += u64::from(port);
        if half_open >= HALF_OPEN_JOINS_MAX {
            self.counters.mp_join_rejected += 1;
            return self.reset(segment, Some(ResetReason::LackOfResources));
        }
        let id = conn.id;
        let local_id = conn.local_id_of(at.ip(), self.paths.endpoint_id(at.ip()).unwrap_or(0));
        let kind = SynKind::Join {
            conn: id,
            hmac: mptcp::join_synack(local, remote, nonce, join.nonce),
            nonce,
            peer_nonce: join.nonce,
            local_id,
            remote_id: join.addr_id,
            backup: Backup { ours: self.paths.wants_backup(at.ip()), theirs: join.backup },
        };
        let options = conn.shared_options();
        if let Some(entry) = self.syn_entry(now, segment, kind, &options) {
            self.half_open(now, entry);
        }
    }

    fn syn_entry(
        &mut self,
        now: Instant,
        segment: &Segment,
        kind: SynKind,
        options: &SocketOptions,
    ) -> Option<SynEntry> {
        // A passive subflow leaves by the path it came in on.
        let Some(link) = self.paths.link(segment.path) else {
            self.counters.listen_drops += 1;
            return None;
        };
        let tuple = segment.tuple;
        let iss = self.next_isn.unwrap_or_else(|| initial_seq(&self.config.isn_key, &tuple, now));
        let ts_offset = timestamp_offset(&self.config.isn_key, &tuple);
        let mss = options.max_seg.unwrap_or(u16::MAX).min(self.pmtus.local_mss(now, link, &tuple));
        let (ecn, ip) = (EcnWish::to_agree(options), IpOptions::of(options));
        let offers = self.config.handshake.offers;
        let local = Local { mss, scale: mptcp::scale_for(options.recv_max()), ecn, ip, offers };
        let window = mptcp::initial_window(options).min(0xffff) as u16;
        let negotiated = Negotiated::new(iss, local, segment, None);
        Some(SynEntry::new(now, tuple, link, local, negotiated, ts_offset, kind, window))
    }

    /// Adds a half-open connection and answers its SYN.
    fn half_open(&mut self, now: Instant, mut entry: SynEntry) {
        let tuple = entry.tuple;
        self.loose.push_back(entry.synack(now, self.config.recovery.rto_max));
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
        let retries = self.syns.retries(self.config.handshake.synack_retries);
        let Some(entry) = self.syns.get_mut(key) else { return };
        // A subflow of a connection that is over joins nothing any more.
        let orphaned = matches!(entry.kind, SynKind::Join { conn, .. }
            if self.conns.get(conn.index as usize).is_none_or(|place| place.id() != Some(conn)));
        if entry.exhausted(retries) || orphaned {
            self.counters.tcp_attempt_fails += 1;
            self.remove_syn(now, key);
            return;
        }
        let defer_accept = match entry.kind {
            SynKind::New { listener, .. } => self.listeners.get(listener).map(|listener| listener.options.defer_accept),
            SynKind::Join { .. } => None,
        };
        let again = entry
            .repeats(now, defer_accept.unwrap_or_default(), self.config.recovery.rto_max)
            .then(|| entry.synack(now, self.config.recovery.rto_max));
        let deadline = entry.deadline();
        self.counters.tcp_retrans_segs += u64::from(again.is_some());
        self.loose.extend(again);
        self.syns.note_repeated(key);
        self.syn_wheel.arm(key, deadline);
    }

    /// SYN-RECEIVED (RFC 9293 §3.10.7.4) of a passive open.
    pub(super) fn on_syn_segment(&mut self, now: Instant, key: u32, segment: &Segment) {
        let Some(entry) = self.syns.get_mut(key) else { return };
        let verdict = entry.check(now, segment, &self.guard);
        match verdict {
            Half::Finish => {}
            Half::Ignore => return,
            Half::Skip => {
                self.counters.tcp_ack_skipped_syn_recv += 1;
                return;
            }
            Half::Repeat => {
                if capable_syn(segment).is_none() {
                    entry.forgo_mptcp();
                }
                if self.loose.len() < LOOSE_MAX {
                    let again = entry.synack(now, self.config.recovery.rto_max);
                    self.loose.push_back(again);
                    self.syns.note_repeated(key);
                    self.counters.tcp_retrans_segs += 1;
                }
                return;
            }
            Half::Answer { paws } => {
                self.counters.paws_estab += u64::from(paws);
                self.counters.tcp_out_of_window += u64::from(!paws);
                if self.loose.len() < LOOSE_MAX {
                    self.loose.push_back(entry.ack(now));
                }
                return;
            }
            Half::Reset => return self.reset(segment, None),
            Half::Refused => {
                self.counters.tcp_attempt_fails += 1;
                return self.remove_syn(now, key);
            }
            Half::Restart => {
                self.counters.tcp_attempt_fails += 1;
                self.remove_syn(now, key);
                return self.on_unknown(now, segment);
            }
        }
        let entry = *entry;
        match entry.kind {
            SynKind::New { listener, key: local, deny_join_initial, checksum, .. } => {
                self.finish_new(now, Some(key), &entry, (listener, local, deny_join_initial, checksum), segment);
            }
            SynKind::Join { conn, .. } => self.finish_join(now, key, &entry, conn, segment),
        }
    }

    fn finish_new(
        &mut self,
        now: Instant,
        key: Option<u32>,
        entry: &SynEntry,
        (id, local, deny, checksum): (ListenerId, Option<mptcp::Key>, bool, bool),
        segment: &Segment,
    ) {
        let Some(listener) = self.listeners.get(id) else { return };
        let defer_accept = listener.options.defer_accept;
        if let Some(entry) = key.and_then(|key| self.syns.get_mut(key))
            && entry.defers(defer_accept, segment)
        {
            self.counters.tcp_defer_accept_drop += 1;
            return;
        }
        if listener.is_full() || self.conns.len() >= self.config.max_connections {
            self.counters.listen_overflows += 1;
            if self.config.handshake.abort_on_overflow {
                if let Some(key) = key {
                    self.remove_syn(now, key);
                }
                self.reset(segment, None);
            }
            // The entry stays: the peer repeats its data, or we our SYN/ACK, until there is room.
            return;
        }
        // After a cookie only the third ACK tells.
        let deny = deny || capable_syn(segment).is_some_and(|capable| capable.deny_join_initial);
        let remote = capable_syn(segment).filter(|capable| capable.is_spoken()).and_then(|capable| {
            let genuine = local.zip(capable.receiver_key).is_some_and(|(local, told)| local.is(told));
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
                Mode::plain(FallbackReason::AckNoCapable)
            }
            (None, _) if listener.options.mptcp => Mode::plain(FallbackReason::SynNoCapable),
            (None, _) => Mode::plain(FallbackReason::Disabled),
        };
        let options = Arc::clone(&listener.options);
        let addrs = (entry.tuple.local, entry.tuple.remote);
        let Ok(conn) = self.add_conn(now, addrs, mode, options, true) else { return };
        if let Some(key) = key {
            self.syn_wheel.cancel(key);
            self.syns.remove(key);
        }
        let joined = Joined {
            local_id: 0,
            remote_id: 0,
            backup: Backup::default(),
            ..joined_of(now, &self.paths, entry, segment)
        };
        self.with(now, conn, |conn, cx| {
            cx.claim_tuple(&entry.tuple);
            conn.accept_first(cx, &joined, segment);
        });
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
            // The joiner says nothing else before we answer: somebody stripped it (RFC 8684 §3.2).
            self.counters.mp_join_ack_no_mpjoin += 1;
            self.remove_syn(now, key);
            return self.reset(segment, Some(ResetReason::MptcpError));
        };
        let keys_of = |conn: &mptcp::Conn| conn.mp().and_then(|mp| Some((mp.local.key, mp.remote?.key)));
        let at = segment.tuple.local;
        let (keys, admitted, port) = self
            .conn_mut(id)
            .map_or((None, false, None), |conn| (keys_of(conn), conn.admits_join(), conn.admits_join_at(at)));
        // Whatever comes of it: who was woken has its timer and its account again.
        self.touch(id.index());
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
        let Some(port) = port else {
            self.counters.mismatch_port_ack_rx += 1;
            self.remove_syn(now, key);
            return self.reset(segment, Some(ResetReason::Prohibited));
        };
        self.counters.mp_join_ack_rx += 1;
        self.counters.mp_join_port_ack_rx += u64::from(port);
        self.syn_wheel.cancel(key);
        self.syns.remove(key);
        let joined = Joined { local_id, remote_id, backup, ..joined_of(now, &self.paths, entry, segment) };
        self.with(now, id, |conn, cx| conn.accept_join(cx, &joined, segment));
    }
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
        backup: Backup::default(),
        told_window: entry.window,
    }
}
