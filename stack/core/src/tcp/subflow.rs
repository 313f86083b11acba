//! One subflow from the moment its handshake is done until nothing of it is left.

mod info;
mod rest;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;

use anabranch_frame::{Instant, PathId, Payload, Slices, Transmit};
use arrayvec::ArrayVec;

use crate::IcmpCause;
use crate::cc::{CongestionControl, Sibling};
use crate::config::ShardConfig;
use crate::info::TcpState;
use crate::mptcp::{AlarmRecord, Mappings, Silence};
use crate::options::SocketOptions;
use crate::sched::{SubflowId, SubflowView};
use crate::shard::{Pmtu, SynEntry};
use crate::wire::{
    FastOpen, Flags, IpOut, MptcpOption, OPTIONS_MAX, OptionWriter, SackBlock, Segment, SegmentOut, SeqNum, Timestamps,
    Tuple,
};

use super::snd::{Pacing, Snd, SndConfig};
use super::{AckDue, EarlyAck, EcnState, IpOptions, Local, Negotiated, Rcv, Search, flow_label};

pub(crate) use info::Counts;
pub(crate) use rest::RestingSubflow;

/// Bytes that timestamps take on every segment.
const TIMESTAMPS_LEN: u16 = 12;
/// Bytes that a DSS with 8-byte DATA_ACK and 8-byte DSN takes, padded.
const DSS_LEN: u16 = 28;

/// The path under a subflow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub(crate) path: PathId,
    pub(crate) mtu: u16,
    pub(crate) gso_max: u32,
    pub(crate) cost: u32,
}

impl Link {
    /// Largest segment that fits, without options.
    pub(crate) fn mss(&self, tuple: &Tuple) -> u16 {
        let headers = if tuple.local.is_ipv4() { 40 } else { 60 };
        self.mtu.saturating_sub(headers).max(64)
    }
}

/// Where an MP_JOIN that we opened stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Joining {
    /// Not a join of ours, or done: data may flow.
    Done,
    /// The third ACK is repeated until the peer's ACK shows that it arrived (RFC 8684 §3.2).
    AwaitsAck {
        /// Our HMAC.
        hmac: [u8; 20],
        /// When to repeat.
        deadline: Instant,
        /// How often it was sent.
        sent: u8,
        /// To be sent now.
        due: bool,
    },
}

/// Who wants a subflow to be used only when no other works. Either side's wish is enough, for both directions, as in Linux
/// since 6.11: RFC 8684 §3.3.8 leaves the other direction alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Backup {
    pub(crate) ours: bool,
    pub(crate) theirs: bool,
}

impl Backup {
    pub(crate) fn is_wanted(self) -> bool {
        self.ours || self.theirs
    }
}

/// What Fast Open (RFC 7413) left behind on a subflow.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FastOpened {
    /// The option was on our SYN.
    pub(crate) asked: bool,
    /// The SYN's data was taken, all of it (`TCPI_OPT_SYN_DATA`).
    pub(crate) syn_data: bool,
    /// Bytes of our SYN, and of the peer's, that were taken. MPTCP counts them in neither its data sequence numbers nor
    /// the subflow's (RFC 8684 appendix B, as the kernel reads it).
    pub(crate) sent: u16,
    pub(crate) received: u16,
    /// Bytes of our SYN behind those: they go out as if for the first time.
    pub(crate) refused: u16,
}

/// What a subflow begins with.
#[derive(Debug)]
pub(crate) struct SubflowStart {
    pub(crate) id: SubflowId,
    pub(crate) tuple: Tuple,
    pub(crate) link: Link,
    pub(crate) negotiated: Negotiated,
    pub(crate) ts_offset: u32,
    pub(crate) cc: Box<dyn CongestionControl>,
    pub(crate) pacing: Pacing,
    /// Room is left for DSS on each segment.
    pub(crate) mptcp: bool,
    pub(crate) ip: IpOptions,
    pub(crate) local_id: u8,
    pub(crate) remote_id: u8,
    pub(crate) backup: Backup,
    pub(crate) joining: Joining,
    pub(crate) passive: bool,
    /// The window on our SYN or SYN/ACK, in bytes: the peer may have used it.
    pub(crate) told_window: u16,
    pub(crate) fast: FastOpened,
    /// Data is acknowledged at once until the connection looks interactive.
    pub(crate) quickack: bool,
}

/// A segment to be sent on a subflow.
#[derive(Debug)]
pub(crate) struct Out<'a> {
    pub(crate) pos: u64,
    pub(crate) flags: Flags,
    pub(crate) payload: Slices,
    pub(crate) mptcp: &'a [MptcpOption],
    /// The connection's window in bytes.
    pub(crate) window: u64,
    pub(crate) with_sack: bool,
    /// It is sent for the first time.
    pub(crate) fresh: bool,
}

/// One subflow in a synchronised state.
#[derive(Debug)]
pub(crate) struct Subflow {
    pub(crate) id: SubflowId,
    pub(crate) tuple: Tuple,
    pub(crate) link: Link,
    pub(crate) local_id: u8,
    pub(crate) remote_id: u8,
    pub(crate) state: TcpState,
    pub(crate) snd: Snd,
    pub(crate) rcv: Rcv,
    pub(crate) mappings: Mappings,
    pub(crate) backup: Backup,
    pub(crate) stale: bool,
    pub(crate) silence: Silence,
    pub(crate) joining: Joining,
    pub(crate) passive: bool,
    pub(crate) fast: FastOpened,
    /// The SYN/ACK of a passive Fast Open, while the peer has not acknowledged it: the subflow is in SYN-RECEIVED.
    pub(crate) synack: Option<Box<SynEntry>>,
    /// Options other than DSS that wait for a segment, in their order.
    pub(crate) signals: ArrayVec<MptcpOption, 8>,
    /// A DATA_FIN is to be told here.
    pub(crate) tell_data_fin: bool,
    /// Our FIN is to be sent once everything before it was.
    pub(crate) wants_fin: bool,
    /// A tail loss probe is due.
    pub(crate) probe: bool,
    /// First offset past everything that was ever sent here, see `SubflowView::walked`.
    pub(crate) walked: u64,
    pub(crate) bytes_received: u64,
    /// When the closed window is asked about, or what is held back goes anyway.
    pub(crate) persist: Option<Instant>,
    pub(crate) persist_backoff: u32,
    /// Window probes that nobody has answered.
    pub(crate) window_probes: u32,
    /// A window probe or keepalive is to be sent now.
    pub(crate) ping: bool,
    pub(crate) keepalive_probes: u32,
    /// When the last keepalive probe was due.
    pub(crate) last_probe: Instant,
    pub(crate) last_rx: Instant,
    /// When the timeouts or window probes began that go on without an acknowledgement.
    pub(crate) silent_since: Instant,
    pub(crate) last_tx: Instant,
    /// When a segment that did not fit was last answered (Linux: `last_oow_ack_time`).
    pub(super) last_oow_ack: Option<Instant>,
    pub(super) snd_scale: u8,
    pub(super) rcv_rtt: Duration,
    iss: SeqNum,
    rcv_scale: u8,
    ts_offset: Option<u32>,
    sack: bool,
    /// What the peer takes, and what fits the path, too; without options.
    peer_mss: u16,
    wire_mss: u16,
    /// Bytes of options that data segments carry.
    options_len: u16,
    /// What is known of the path beyond its device.
    pub(super) pmtu: Option<Box<Pmtu>>,
    /// The search for the largest packet that gets through.
    pub(super) search: Option<Box<Search>>,
    /// The last ICMP error about it, unless something was heard since.
    pub(crate) soft_error: Option<IcmpCause>,
    pub(crate) ecn: EcnState,
    /// Acknowledgements that go before all others.
    pub(crate) early_acks: Vec<EarlyAck>,
    pub(crate) ip: IpOptions,
    flow_label: u32,
    ip_id: u16,
    signal_acks: u8,
    /// The last acknowledgement of new data here, or the last answer to a probe, said nothing of MPTCP.
    pub(crate) mute: bool,
    /// Window field of the last segment sent.
    told_window: u16,
    /// What we told the peer of our segments' size.
    advmss: u16,
    /// Both ends scale windows.
    scaled: bool,
    pub(crate) counts: Counts,
}

/// Payload of a full segment behind so many bytes of options.
fn payload_mss(wire_mss: u16, options_len: u16) -> u16 {
    wire_mss.saturating_sub(options_len).max(32)
}

impl Subflow {
    pub(crate) fn new(now: Instant, start: SubflowStart, config: &ShardConfig) -> Self {
        let SubflowStart { id, tuple, link, negotiated, ts_offset, mut cc, pacing, mptcp, ip, .. } = start;
        let wire_mss = negotiated.peer_mss.min(link.mss(&tuple));
        let timestamps = negotiated.ts_recent.is_some();
        let options_len = if timestamps { TIMESTAMPS_LEN } else { 0 } + if mptcp { DSS_LEN } else { 0 };
        let mss = payload_mss(wire_mss, options_len);
        cc.set_mss(u64::from(mss));
        let accurate = cc.needs_ecn();
        let first = 1 + u64::from(start.fast.sent);
        let (sack, recovery, sizes) = (negotiated.sack, config.recovery, config.pacing);
        let mut snd = Snd::new(now, SndConfig { mss, sack, timestamps, cc, pacing, recovery, sizes });
        snd.start_at(first);
        snd.set_right_edge(first + negotiated.window);
        if let Some(rtt) = negotiated.rtt {
            snd.seed_rtt(rtt);
        }
        let mut rcv = Rcv::new(negotiated.irs, negotiated.ts_recent, now);
        rcv.on_ack_sent(u64::from(start.told_window));
        if !start.quickack {
            rcv.set_quickack(false);
        }
        Self {
            id,
            tuple,
            link,
            local_id: start.local_id,
            remote_id: start.remote_id,
            state: TcpState::Established,
            snd,
            rcv,
            mappings: Mappings::default(),
            backup: start.backup,
            stale: false,
            silence: Silence::new(AlarmRecord::default()),
            joining: start.joining,
            passive: start.passive,
            fast: start.fast,
            synack: None,
            signals: ArrayVec::new(),
            tell_data_fin: false,
            wants_fin: false,
            probe: false,
            walked: 0,
            bytes_received: 0,
            persist: None,
            persist_backoff: 0,
            window_probes: 0,
            ping: false,
            keepalive_probes: 0,
            last_probe: now,
            last_rx: now,
            silent_since: now,
            last_tx: now,
            last_oow_ack: None,
            snd_scale: negotiated.snd_scale,
            rcv_rtt: negotiated.rtt.unwrap_or_default(),
            iss: negotiated.iss,
            rcv_scale: negotiated.rcv_scale,
            ts_offset: timestamps.then_some(ts_offset),
            sack: negotiated.sack,
            peer_mss: negotiated.peer_mss,
            wire_mss,
            options_len,
            pmtu: None,
            search: None,
            soft_error: None,
            ecn: EcnState::new(negotiated.ecn, accurate),
            early_acks: Vec::new(),
            ip,
            flow_label: flow_label(negotiated.iss, 0),
            ip_id: negotiated.iss.0 as u16,
            signal_acks: 0,
            mute: false,
            told_window: u16::MAX,
            advmss: negotiated.own_mss,
            scaled: negotiated.scaled,
            counts: Counts::default(),
        }
    }

    /// Fits segments to what the path takes now.
    pub(super) fn resize(&mut self) {
        let tried = self.search.as_ref().map_or(u16::MAX, |search| search.low());
        let fits = Link { mtu: self.path_mtu().min(tried), ..self.link };
        self.wire_mss = self.peer_mss.min(fits.mss(&self.tuple));
        self.snd.set_mss(payload_mss(self.wire_mss, self.options_len));
    }

    /// Bytes of memory that it holds, without the payload of what is outstanding.
    pub(crate) fn memory(&self) -> usize {
        let pmtu = self.pmtu.as_ref().map_or(0, |_| size_of::<Pmtu>());
        let search = self.search.as_ref().map_or(0, |_| size_of::<Search>());
        size_of::<Self>() + pmtu + search + self.snd.memory() + self.rcv.memory() + self.mappings.memory()
    }

    /// Sequence number of one of our positions.
    pub(crate) fn seq(&self, pos: u64) -> SeqNum {
        self.iss.at(pos)
    }

    /// Position of an acknowledgement number.
    pub(crate) fn ack_pos(&self, ack: SeqNum) -> Option<u64> {
        self.iss.unwrap(ack, self.snd.una())
    }

    /// Whether the scheduler may be offered this subflow. A server that took data from a SYN may answer it before the
    /// handshake is finished (RFC 7413 §4.2.2); with MPTCP it waits for the client's key.
    pub(crate) fn usable(&self) -> bool {
        let answers = self.synack.as_ref().is_some_and(|synack| !synack.is_mptcp());
        (matches!(self.state, TcpState::Established | TcpState::CloseWait) || answers)
            && self.joining == Joining::Done
            && !self.wants_fin
    }

    /// When the next keepalive probe is due, if probes are what tells that the peer is gone: it owes us
    /// no ACK, but may still speak.
    pub(crate) fn keepalive_due(&self, options: &SocketOptions) -> Option<Instant> {
        let state = matches!(self.state, TcpState::Established | TcpState::CloseWait | TcpState::FinWait2);
        let due = match self.keepalive_probes {
            0 => self.last_rx + options.keepidle,
            _ => self.last_probe + options.keepintvl,
        };
        (state && self.snd.in_flight() == 0).then_some(due)
    }

    /// Round-trip time for the receive buffer: the sender's, or what timestamps tell a pure receiver.
    pub(crate) fn receiver_rtt(&self) -> Duration {
        if self.snd.bytes_acked() > self.bytes_received / 8 && !self.snd.srtt().is_zero() {
            self.snd.srtt()
        } else {
            self.rcv_rtt
        }
    }

    /// Round-trip time by which acknowledgements are delayed: the smaller of what both halves know.
    pub(crate) fn ack_rtt(&self) -> Duration {
        [self.snd.srtt(), self.rcv_rtt].into_iter().filter(|rtt| !rtt.is_zero()).min().unwrap_or_default()
    }

    /// What we told the peer of our segments' size.
    pub(crate) fn advmss(&self) -> u16 {
        self.advmss
    }

    /// Whether the peer understands SACK.
    pub(crate) fn sack(&self) -> bool {
        self.sack
    }

    /// The one place where a subflow's state changes.
    pub(crate) fn transition(&mut self) {
        let fin_sent = self.snd.fin_sent();
        let fin_acked = fin_sent && self.snd.everything_acked();
        let fin_received = self.rcv.fin_received();
        self.state = match (self.state, fin_sent, fin_acked, fin_received) {
            (TcpState::Closed, ..) => TcpState::Closed,
            (TcpState::TimeWait, ..) => TcpState::TimeWait,
            (_, false, _, false) if self.synack.is_some() => TcpState::SynReceived,
            (_, false, _, false) => TcpState::Established,
            (_, false, _, true) => TcpState::CloseWait,
            (TcpState::CloseWait | TcpState::LastAck, true, false, _) => TcpState::LastAck,
            (TcpState::CloseWait | TcpState::LastAck, true, true, _) => TcpState::Closed,
            (_, true, false, false) => TcpState::FinWait1,
            (_, true, true, false) => TcpState::FinWait2,
            (_, true, false, true) => TcpState::Closing,
            (_, true, true, true) => TcpState::TimeWait,
        };
    }

    /// Puts an option on the next segment that has room. What does not fit is dropped and reported.
    #[must_use]
    pub(crate) fn signal(&mut self, option: MptcpOption) -> bool {
        if self.signals.contains(&option) {
            return true;
        }
        self.signals.try_push(option).is_ok()
    }

    /// Whether a pure ACK for signalling alone may go: not more than two in a row (RFC 8684 §3.4), unless nothing else was
    /// to be said for a while.
    pub(crate) fn may_signal(&self, now: Instant) -> bool {
        self.signal_due().is_none_or(|due| due <= now)
    }

    /// When what is to be signalled may go, if not now.
    fn signal_due(&self) -> Option<Instant> {
        let waits = self.signal_acks >= 2 && !self.signals.is_empty();
        waits.then(|| self.last_tx + self.snd.rto())
    }

    /// Something other than signalling passed: it may be signalled again.
    pub(crate) fn on_progress(&mut self) {
        self.signal_acks = 0;
    }

    pub(crate) fn count_signal(&mut self) {
        self.signal_acks += 1;
    }

    /// What the peer takes, without options.
    pub(super) fn peer_mss(&self) -> u16 {
        self.peer_mss
    }

    /// Bytes of options that data segments carry.
    pub(super) fn options_len(&self) -> u16 {
        self.options_len
    }

    /// The largest payload of one transmission.
    pub(crate) fn send_quantum(&self, now: Instant) -> u64 {
        self.snd.quantum(now, self.most_payload())
    }

    /// The same of what goes once more.
    pub(crate) fn resend_quantum(&self) -> u64 {
        self.snd.quantum_again(self.most_payload())
    }

    fn most_payload(&self) -> u64 {
        u64::from(self.link.gso_max.min(65_535 - 160))
    }

    /// Whether `window` is more than the peer was last told here: only then is it worth a segment.
    pub(crate) fn widens(&self, window: u64) -> bool {
        window >> self.rcv_scale > u64::from(self.told_window)
    }

    /// Builds the segment and notes what it acknowledges. Options that do not fit are left out, DSS
    /// and its like first in line before SACK blocks.
    pub(crate) fn emit(&mut self, now: Instant, out: Out<'_>) -> Transmit {
        let mut options = OptionWriter::new();
        let mptcp_len = || out.mptcp.iter().map(OptionWriter::mptcp_len).sum::<usize>();
        // An announcement of an IPv6 address with a port has room only without timestamps (as the kernel sends it).
        let has_room = !out.payload.is_empty() || mptcp_len() + usize::from(TIMESTAMPS_LEN) <= OPTIONS_MAX;
        if let Some(offset) = self.ts_offset.filter(|_| has_room) {
            let value = (now.as_millis() as u32).wrapping_add(offset);
            options.timestamps(Timestamps { value, echo: self.rcv.ts_echo() });
        }
        if out.with_sack && self.sack && self.rcv.has_sack() {
            let blocks: ArrayVec<SackBlock, 4> = self
                .rcv
                .sack_blocks()
                .iter()
                .map(|block| (self.rcv.seq(block.start), self.rcv.seq(block.end)))
                .collect();
            options.sack(&blocks, mptcp_len());
        }
        for option in out.mptcp {
            let fits = options.mptcp(option);
            debug_assert!(fits, "{option:?} does not fit into {} bytes", options.remaining());
        }
        let payload_len = out.payload.iter().map(Payload::len).sum::<usize>() as u32;
        let room = self.wire_mss.saturating_sub(options.as_slice().len() as u16).max(1);
        let probe = out.fresh && self.snd.is_mtu_probe(out.pos, u64::from(payload_len));
        let segment_size = if probe { payload_len as u16 } else { self.snd.mss().min(room) };
        let field = (out.window >> self.rcv_scale).min(0xffff) as u16;
        let pure = payload_len == 0 && out.flags == Flags::ACK;
        let early = (pure && !self.early_acks.is_empty()).then(|| self.early_acks.remove(0));
        if early.is_none() {
            self.counts.told(self.told_window, field);
            self.told_window = field;
            self.rcv.on_ack_sent(u64::from(field) << self.rcv_scale);
        }
        if payload_len > 0 {
            self.rcv.on_data_sent(now);
        }
        self.last_tx = now;
        if self.tuple.local.is_ipv4() {
            // For IPv6 it is the flow label, which stays.
            self.ip_id = self.ip_id.wrapping_add(payload_len.div_ceil(u32::from(segment_size)).max(1) as u16);
        }
        let (mut said, codepoint) = self.ecn.mark(out.fresh && payload_len > 0, || self.snd.take_cwr());
        if let Some(early) = early {
            said = if early.echo { Flags::ECE } else { Flags::default() };
        }
        // As in Linux a super-segment pushes: whoever puts its segments together again need not wait for more.
        let cut = payload_len > u32::from(segment_size);
        let push = if cut { Flags::PSH } else { Flags::default() };
        let segment = SegmentOut {
            tuple: self.tuple,
            seq: self.seq(out.pos),
            ack: self.rcv.seq(early.map_or(self.rcv.nxt(), |early| early.nxt)),
            flags: out.flags.with(Flags::ACK).with(said).with(push),
            window: field,
            ip: self.ip_out(codepoint),
            options: &options,
            payload_len,
        };
        let segments = payload_len.div_ceil(u32::from(segment_size)).max(1);
        self.counts.sent(u64::from(segments), payload_len > 0);
        let segment_size = cut.then_some(segment_size);
        segment.transmit(self.link.path, out.payload, segment_size)
    }

    /// The IP header of its packets.
    pub(crate) fn ip_out(&self, codepoint: u8) -> IpOut {
        let ip = self.ip.out(self.flow_label, codepoint);
        IpOut { id: self.ip_id, dont_fragment: !self.may_fragment(), ..ip }
    }

    /// The path is in doubt: routers may know another one for another flow. Whether that can be.
    pub(crate) fn relabel(&mut self) -> bool {
        self.flow_label = flow_label(self.iss, self.flow_label);
        self.tuple.local.is_ipv6()
    }

    /// Since when retransmissions or window probes bring nothing.
    pub(crate) fn silent_since(&self) -> Option<Instant> {
        let probes = self.persist.is_some() && self.persist_backoff > 0;
        (probes || self.snd.timeouts() > 0).then_some(self.silent_since)
    }

    /// The earliest of its deadlines.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let delayed = match self.rcv.due() {
            AckDue::Delayed(at) | AckDue::Compressed(at) => Some(at),
            AckDue::Idle | AckDue::Now => None,
        };
        let joining = match self.joining {
            Joining::AwaitsAck { deadline, .. } => Some(deadline),
            Joining::Done => None,
        };
        // Until the SYN/ACK is acknowledged its timer is the only one that sends again.
        let again = self.synack.as_ref().map_or_else(|| self.snd.deadline(), |synack| Some(synack.deadline()));
        [again, delayed, joining, self.persist, self.signal_due()].into_iter().flatten().min()
    }

    pub(crate) fn sibling(&self) -> Sibling {
        self.snd.sibling()
    }

    pub(crate) fn view(&self, now: Instant, data_una: u64, carried_una: bool) -> SubflowView {
        SubflowView {
            id: self.id,
            local_id: self.local_id,
            remote_id: self.remote_id,
            backup: self.backup.is_wanted(),
            stale: self.is_doubtful(),
            in_rto: self.snd.in_rto(),
            in_recovery: self.snd.in_recovery(),
            in_slow_start: self.snd.cwnd() < self.snd.ssthresh(),
            srtt: self.snd.srtt(),
            rttvar: self.snd.rttvar(),
            min_rtt: self.snd.min_rtt(),
            max_rtt: self.snd.max_rtt(),
            cwnd: self.snd.cwnd(),
            ssthresh: self.snd.ssthresh(),
            in_flight: self.snd.in_flight(),
            queued: self.snd.queued_lost(),
            room: self.snd.room(now),
            pacing_rate: self.snd.pacing_rate_estimate(),
            delivery_rate: self.snd.delivery_rate(),
            mss: u64::from(self.snd.mss()),
            lost: self.snd.lost_aged(),
            delivered: self.snd.delivered_aged(),
            last_activity: self.last_rx.max(self.last_tx),
            cost: self.link.cost,
            carried_una,
            walked: self.walked.max(data_una),
        }
    }

    /// Offsets of the stream that went here and are not acknowledged here; `base` is the DSN of offset 0.
    /// Selectively acknowledged ones are among them: a receiver may hold them back until the hole
    /// before them is filled.
    pub(crate) fn outstanding(&self, base: u64) -> impl Iterator<Item = Range<u64>> + '_ {
        self.snd.unacked().filter_map(move |(range, mapping, _)| {
            let mapping = mapping?;
            let ssn = (range.start as u32).wrapping_sub(u32::from(self.fast.sent));
            let within = u64::from(ssn.wrapping_sub(mapping.ssn));
            let start = mapping.dsn.wrapping_sub(base).wrapping_add(within);
            Some(start..start + (range.end - range.start))
        })
    }

    /// Milliseconds of our timestamp clock that passed since the peer's echo.
    pub(super) fn echo_age(&self, now: Instant, ts: Timestamps) -> Option<Duration> {
        let offset = self.ts_offset?;
        let age = (now.as_millis() as u32).wrapping_add(offset).wrapping_sub(ts.echo);
        (ts.echo != 0 && age < 1 << 20).then(|| Duration::from_millis(u64::from(age)))
    }

    /// Scale of the windows that the peer sends.
    pub(crate) fn snd_scale(&self) -> u8 {
        self.snd_scale
    }

    /// Offset of our timestamp clock, if timestamps are used.
    pub(crate) fn ts_offset(&self) -> Option<u32> {
        self.ts_offset
    }

    pub(super) fn uses_timestamps(&self) -> bool {
        self.ts_offset.is_some()
    }
}

/// The options of a SYN or SYN/ACK. `answers` holds what the peer offered, on a SYN/ACK. Where not all of them fit,
/// Fast Open goes without: it saves a round trip, MPTCP cannot be had later.
pub(crate) fn syn_options(
    now: Instant,
    local: Local,
    answers: Option<&Negotiated>,
    ts_offset: u32,
    fast_open: Option<&FastOpen>,
    mptcp: Option<&MptcpOption>,
) -> OptionWriter {
    let echo = answers.map_or(local.offers.timestamps.then_some(0), |negotiated| negotiated.ts_recent);
    let timestamps = echo.map(|echo| Timestamps { value: (now.as_millis() as u32).wrapping_add(ts_offset), echo });
    let mut options = OptionWriter::new();
    let scaled = answers.map_or(local.offers.window_scaling, |negotiated| negotiated.scaled);
    let sack = answers.map_or(local.offers.sack, |negotiated| negotiated.sack);
    options.syn(local.mss, scaled.then_some(local.scale), sack, timestamps);
    let reserved = mptcp.map_or(0, OptionWriter::mptcp_len);
    if let Some(option) = fast_open
        && option.wire_len() + reserved <= options.remaining()
    {
        options.fast_open(option);
    }
    if let Some(option) = mptcp {
        options.mptcp(option);
    }
    options
}

/// The reset that answers a segment without a connection (RFC 9293 §3.10.7.1), or none to a reset.
pub(crate) fn reset_for(segment: &Segment, reason: Option<&MptcpOption>) -> Option<Transmit> {
    if segment.flags.has(Flags::RST) {
        return None;
    }
    let mut options = OptionWriter::new();
    if let Some(option) = reason {
        options.mptcp(option);
    }
    let (seq, ack, flags) = if segment.flags.has(Flags::ACK) {
        (segment.ack, SeqNum(0), Flags::RST)
    } else {
        (SeqNum(0), segment.seq.add(segment.seq_len()), Flags::RST.with(Flags::ACK))
    };
    let out = SegmentOut {
        tuple: segment.tuple,
        seq,
        ack,
        flags,
        window: 0,
        ip: IpOut::default(),
        options: &options,
        payload_len: 0,
    };
    Some(out.bare(segment.path))
}
