//! A connection: what it is made of, and the application's commands.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;

use anabranch_frame::{Instant, Payload, Transmit};
use smallvec::SmallVec;

use crate::cc::{self, Group, Sibling};
use crate::config::ShardConfig;
use crate::info::{ConnInfo, SubflowInfo};
use crate::options::SocketOptions;
use crate::pm::{self, PathManager, Reports};
use crate::rng::Rng;
use crate::sched::{self, Scheduler, SubflowId};
use crate::shard::{
    Blackholes, ConnId, Crew, Destinations, Event, FastOpens, Level, Mail, Paths, Pmtus, Ports, Read, Table, TimeWaits,
    Tokens, WorkerId,
};
use crate::tcp::{Guard, Negotiated, Opening, Subflow};
use crate::{Counters, Error, FallbackReason};

use super::checksum::Failing;
use super::chrono::Chrono;
use super::nagle::{Follows, Nagle};
use super::recvq::RecvQueue;
use super::sendq::SendQueue;
use super::{Copies, Mode, Mp};
use crate::info::Limit;

/// Everything of the shard that a connection may touch while it is at work.
#[derive(Debug)]
pub(crate) struct Cx<'a> {
    pub(crate) now: Instant,
    pub(crate) counters: &'a mut Counters,
    pub(crate) rng: &'a mut Rng,
    pub(crate) paths: &'a Paths,
    pub(crate) pmtus: &'a mut Pmtus,
    pub(crate) destinations: &'a mut Destinations,
    pub(crate) blackholes: &'a mut Blackholes,
    pub(crate) table: &'a mut Table,
    pub(crate) time_waits: &'a mut TimeWaits,
    pub(crate) tokens: &'a mut Tokens,
    pub(crate) events: &'a mut VecDeque<Event>,
    pub(crate) reports: &'a mut Reports,
    pub(crate) mail: &'a mut VecDeque<(WorkerId, Mail)>,
    pub(crate) fastopens: &'a mut FastOpens,
    pub(crate) guard: &'a mut Guard,
    pub(crate) ports: &'a mut Ports,
    pub(crate) crew: &'a Crew,
    pub(crate) config: &'a ShardConfig,
    pub(crate) copies: &'a Copies,
}

/// Where a connection stands in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// The first subflow is in its handshake.
    Connecting,
    /// Data may flow.
    Open,
    /// Over, in good order or by an error.
    Closed(Option<Error>),
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) id: ConnId,
    pub(super) stage: Stage,
    pub(super) mode: Mode,
    pub(super) subflows: Vec<Subflow>,
    pub(super) openings: Vec<Opening>,
    pub(super) next_subflow: SubflowId,
    pub(super) tx: SendQueue,
    pub(super) rx: RecvQueue,
    /// Right edge of the peer's window, in our offsets.
    pub(super) peer_edge: u64,
    /// Largest window that it told.
    pub(super) peer_window: u64,
    pub(super) scheduler: Box<dyn Scheduler>,
    pub(super) congestion: &'static str,
    pub(super) path_manager: Box<dyn PathManager>,
    /// What the application asked for, but for what it may change with every write.
    pub(super) options: Arc<SocketOptions>,
    pub(super) nagle: Nagle,
    pub(super) server_side: bool,
    pub(super) tuple: (SocketAddr, SocketAddr),
    /// The application let go of it.
    pub(super) released: bool,
    /// It counts as an orphan.
    pub(crate) orphan: bool,
    /// The application wants no more data.
    pub(super) read_shut: bool,
    /// The application filled the send buffer and waits for room.
    pub(super) wants_room: bool,
    pub(super) send_limit: u64,
    /// Segments that wait to go out whatever happens to their subflow: resets.
    pub(super) parting: VecDeque<Transmit>,
    /// DATA_FIN went out at least once.
    pub(super) data_fin_sent: bool,
    pub(super) eof_told: bool,
    pub(super) drained_told: bool,
    /// The application was told that there is something to read and has not looked since.
    pub(super) readable_told: bool,
    /// Data-level retransmission timer, with its back-off.
    pub(super) data_timer: Option<Instant>,
    pub(super) data_backoff: u32,
    pub(super) scheduler_timer: Option<Instant>,
    /// The connection is dropped then: no subflow left, or orphaned.
    pub(super) give_up: Option<Instant>,
    pub(super) failing: Failing,
    /// Last time that anything was acknowledged, for the user timeout.
    pub(super) last_progress: Instant,
    pub(super) turn: usize,
    /// Last call of the application, and when it was last tried in vain to put the connection to rest.
    pub(super) last_call: Instant,
    pub(super) restless: Option<Instant>,
    /// How short memory is, and what the connection was last found to hold.
    pub(super) level: Level,
    pub(super) charged: u64,
    pub(super) stats: Stats,
}

/// Counts at data level.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stats {
    pub(super) bytes_written: u64,
    pub(super) bytes_sent: u64,
    pub(super) bytes_retrans: u64,
    pub(super) retransmits: u32,
    /// The data of the SYN was taken, all of it.
    pub(super) syn_data: bool,
    pub(super) chrono: Chrono,
}

impl Conn {
    /// A connection without any subflow yet.
    ///
    /// # Errors
    /// [`Error::UnknownName`].
    pub(crate) fn new(
        now: Instant,
        id: ConnId,
        tuple: (SocketAddr, SocketAddr),
        mode: Mode,
        options: Arc<SocketOptions>,
        server_side: bool,
    ) -> Result<Self, Error> {
        let congestion = cc::by_name(&options.congestion, 1)?.name();
        Ok(Self {
            id,
            stage: Stage::Connecting,
            mode,
            subflows: Vec::with_capacity(1),
            openings: Vec::new(),
            next_subflow: 0,
            tx: SendQueue::new(options.send_max()),
            rx: RecvQueue::new(now, &options),
            peer_edge: 0,
            peer_window: 0,
            scheduler: sched::by_name(&options.scheduler)?,
            congestion,
            path_manager: pm::by_name(&options.path_manager)?,
            nagle: Nagle::new(options.nodelay, options.cork),
            options,
            server_side,
            tuple,
            released: false,
            orphan: false,
            read_shut: false,
            wants_room: false,
            send_limit: 0,
            parting: VecDeque::new(),
            data_fin_sent: false,
            eof_told: false,
            drained_told: false,
            readable_told: false,
            data_timer: None,
            data_backoff: 0,
            scheduler_timer: None,
            give_up: None,
            failing: Failing::default(),
            last_progress: now,
            turn: 0,
            last_call: now,
            restless: None,
            level: Level::Plenty,
            charged: 0,
            stats: Stats::default(),
        })
    }

    // --- the application's commands ---------------------------------------------------------------

    /// Bytes that may be written now.
    pub(crate) fn write_room(&self) -> u64 {
        match self.stage {
            Stage::Open if !self.tx.fin() => {
                let unsent_room = u64::from(self.options.notsent_lowat).saturating_sub(self.tx.unassigned());
                self.send_limit_now().saturating_sub(self.tx.queued()).min(unsent_room)
            }
            Stage::Connecting => self.deferred_room(),
            _ => 0,
        }
    }

    /// Whether so much room is worth waking a writer: a quarter of the buffer, and half of what may wait unsent (Linux:
    /// `__tcp_stream_memory_free`).
    pub(super) fn is_writable(&self) -> bool {
        let lowat = u64::from(self.options.notsent_lowat);
        let room = self.write_room();
        room >= (self.send_limit_now() / 4).min(lowat / 2).max(1)
    }

    /// The same, for an application that will wait if there is no room.
    pub(crate) fn ask_room(&mut self) -> u64 {
        let room = self.write_room();
        self.wants_room |= room == 0;
        room
    }

    pub(crate) fn write(&mut self, cx: &Cx<'_>, payload: Payload, follows: Follows) -> Result<(), Error> {
        match self.stage {
            Stage::Connecting => self.begin_deferred(cx.now)?,
            Stage::Closed(error) => return Err(error.unwrap_or(Error::ShutDown)),
            Stage::Open => {}
        }
        if self.tx.fin() {
            return Err(Error::ShutDown);
        }
        if self.tx.una() == self.tx.end() {
            // The user timeout counts from when there is something to be acknowledged.
            self.last_progress = cx.now;
        }
        self.stats.bytes_written += payload.len() as u64;
        self.tx.push(payload, cx.copies);
        if matches!(follows, Follows::Boundary | Follows::Apart) {
            self.tx.mark_boundary(follows == Follows::Boundary);
        }
        self.nagle.on_write(follows, self.tx.end());
        self.wants_room |= matches!(self.stage, Stage::Open) && self.write_room() == 0;
        Ok(())
    }

    pub(crate) fn read(&mut self, max: usize) -> Read {
        self.readable_told = false;
        if max > 0
            && let Some(piece) = self.rx.read(max)
        {
            return Read::Data(piece);
        }
        if self.rx.at_eof() || self.read_shut {
            return Read::Eof;
        }
        match self.stage {
            Stage::Closed(Some(error)) => Read::Failed(error),
            Stage::Closed(None) => Read::Eof,
            _ => Read::Empty,
        }
    }

    /// The application is done with `bytes` bytes.
    pub(crate) fn consumed(&mut self, now: Instant, bytes: u64) {
        let rtt = self.subflows.iter().map(Subflow::receiver_rtt).max().unwrap_or_default();
        if self.rx.readable() == 0 {
            self.subflows.iter_mut().for_each(|subflow| subflow.rcv.on_read_all());
        }
        if self.rx.consume(now, bytes, rtt, self.receive_segment()) {
            let window = self.rx.next_window();
            for subflow in self.subflows.iter_mut().filter(|subflow| subflow.widens(window)) {
                subflow.rcv.ack_now();
            }
        }
    }

    /// Size of the peer's segments, as far as it is known.
    pub(super) fn receive_segment(&self) -> u64 {
        self.subflows.iter().map(|subflow| subflow.rcv.segment()).max().unwrap_or(536)
    }

    // --- getters ----------------------------------------------------------------------------------

    /// MPTCP state, while the connection speaks it.
    pub(crate) fn mp(&self) -> Option<&Mp> {
        match &self.mode {
            Mode::Mptcp(mp) => Some(mp),
            Mode::Plain(_) => None,
        }
    }

    pub(crate) fn mp_mut(&mut self) -> Option<&mut Mp> {
        match &mut self.mode {
            Mode::Mptcp(mp) => Some(mp),
            Mode::Plain(_) => None,
        }
    }

    /// Nothing of it is left to do, and nobody holds its handle.
    pub(crate) fn is_finished(&self) -> bool {
        matches!(self.stage, Stage::Closed(_))
            && self.released
            && self.subflows.is_empty()
            && self.openings.is_empty()
            && self.parting.is_empty()
    }

    pub(crate) fn remote(&self) -> SocketAddr {
        self.tuple.1
    }

    pub(super) fn index_of(&self, id: SubflowId) -> Option<usize> {
        self.subflows.iter().position(|subflow| subflow.id == id)
    }

    /// The read-only view of all subflows that coupled congestion control needs.
    pub(super) fn siblings(&self) -> SmallVec<[Sibling; 4]> {
        self.subflows.iter().map(Subflow::sibling).collect()
    }

    /// A congestion control of the connection's kind.
    pub(super) fn new_congestion(&self, negotiated: &Negotiated) -> Box<dyn cc::CongestionControl> {
        match cc::by_name(self.congestion, u64::from(negotiated.peer_mss)) {
            Ok(congestion) => congestion,
            Err(_) => unreachable!("the name was looked up when the connection was made"),
        }
    }

    /// Lets the send buffer grow with the congestion windows. Several paths: bytes on the fast ones are not
    /// acknowledged before those on the slowest, so each sends for the longest round trip (RFC 6182 §5.3).
    pub(super) fn tune_send_buffer(&mut self) {
        let longest = self.subflows.iter().map(|subflow| subflow.snd.srtt().as_nanos()).max().unwrap_or_default();
        let share = |subflow: &Subflow| {
            let (cwnd, rtt) = (u128::from(subflow.snd.cwnd()), subflow.snd.srtt().as_nanos());
            let wanted = (cwnd * longest).checked_div(rtt).unwrap_or(cwnd);
            u64::try_from(wanted).unwrap_or(u64::MAX)
        };
        let wanted = self.subflows.iter().map(share).fold(0, u64::saturating_add);
        let grows = self.options.sndbuf.is_none() && self.level == Level::Plenty;
        if grows || self.send_limit == 0 {
            self.send_limit = self.send_limit.max(self.tx.limit(wanted));
        }
    }

    /// Fallback reason for `info`, if the connection is plain TCP.
    pub(super) fn fallback(&self) -> Option<FallbackReason> {
        match self.mode {
            Mode::Plain(plain) => Some(plain.reason),
            Mode::Mptcp(_) => None,
        }
    }

    /// There is nothing to send now: notes why.
    pub(super) fn note_limit(&mut self, now: Instant) {
        let limit = match (self.tx.queued(), self.tx.unassigned()) {
            (0, _) => Limit::Idle,
            (_, 0) if self.wants_room => Limit::SendBuffer,
            (_, unassigned) if self.lacks_window(unassigned) => Limit::PeerWindow,
            _ => Limit::Network,
        };
        self.stats.chrono.note(now, limit);
    }

    /// Whether the peer's window has no room for the next segment, but congestion control does somewhere.
    fn lacks_window(&self, unassigned: u64) -> bool {
        let left = self.peer_edge.saturating_sub(self.tx.nxt());
        self.subflows.iter().filter(|subflow| subflow.usable()).any(|subflow| {
            let mss = u64::from(subflow.snd.mss());
            left < unassigned.min(mss) && subflow.snd.in_flight() + mss <= subflow.snd.cwnd()
        })
    }

    pub(crate) fn subflow_info(&self) -> SmallVec<[SubflowInfo; 4]> {
        self.subflows.iter().map(Subflow::info).collect()
    }

    pub(crate) fn info(&self) -> ConnInfo {
        let mp = self.mp();
        let extra = self.subflows.iter().filter(|subflow| subflow.id != 0).count() as u8;
        ConnInfo {
            local: self.tuple.0,
            remote: self.tuple.1,
            mptcp: mp.is_some(),
            fallback: self.fallback(),
            token: mp.map_or(0, |mp| mp.local.token),
            scheduler: self.scheduler.name(),
            congestion: self.congestion,
            path_manager: self.path_manager.name(),
            subflows: extra,
            subflows_total: self.subflows.len() as u8,
            subflows_max: self.options.limits.subflows,
            add_addr_signal: mp.map_or(0, |mp| mp.announcements.len() as u8),
            add_addr_accepted: mp.map_or(0, |mp| mp.add_addr_accepted),
            add_addr_accepted_max: self.options.limits.add_addr_accepted,
            bytes_written: self.stats.bytes_written,
            bytes_sent: self.stats.bytes_sent,
            bytes_acked: self.tx.una(),
            bytes_received: self.rx.nxt(),
            bytes_retrans: self.stats.bytes_retrans,
            retransmits: self.stats.retransmits,
            syn_data: self.stats.syn_data,
            recv_queued: self.rx.readable(),
            recv_out_of_order: self.rx.out_of_order(),
            recv_buffer: self.rx.buffer() as u32,
            send_buffer: self.send_limit as u32,
            send_queued: self.tx.queued(),
            notsent_bytes: self.tx.unassigned(),
            send_window: self.peer_edge.saturating_sub(self.tx.nxt()),
            rcv_space: self.rx.space(),
            rcv_ssthresh: self.rx.room(),
            limit: self.stats.chrono.limit(),
            limit_since: self.stats.chrono.since(),
            busy_time: self.stats.chrono.busy(),
            rwnd_limited: self.stats.chrono.peer_window(),
            sndbuf_limited: self.stats.chrono.send_buffer(),
        }
    }
}

/// A group of subflows and which of them asks.
pub(super) fn group(siblings: &[Sibling], me: usize) -> Group<'_> {
    Group { siblings, me }
}
