//! A connection at rest: a fraction of its size, until something happens.
//!
//! Most connections of a large server have nothing under way. What such a one must remember are some numbers of each
//! subflow; queues, scoreboards, timers and all that is known of bytes in flight are empty. After a while of silence
//! the shard shrinks it to those numbers, and grows it again with the next packet or command. Nobody else
//! notices: what it does then is what it would have done.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::time::Duration;

use anabranch_frame::Instant;
use smallvec::SmallVec;

use crate::info::{ConnInfo, SubflowInfo};
use crate::options::SocketOptions;
use crate::pm::PathManager;
use crate::sched::{Scheduler, SubflowId};
use crate::shard::{ConnId, Gone, Level};
use crate::tcp::{RestingSubflow, Subflow};
use crate::wire::{PackedTuple, Tuple};

use super::conn::{Conn, Stage, Stats};
use super::nagle::RestingNagle;
use super::options::pacing_of;
use super::recvq::RestingRecvQueue;
use super::sendq::SendQueue;
use super::{Mode, memory};

/// A [`Conn`] that is open and has nothing under way.
#[derive(Debug)]
pub(crate) struct RestingConn {
    pub(crate) id: ConnId,
    pub(super) mode: Mode,
    tuple: PackedTuple,
    pub(super) subflows: Box<[RestingSubflow]>,
    tx: (u64, u64),
    rx: RestingRecvQueue,
    peer_edge: u64,
    peer_window: u64,
    scheduler: Box<dyn Scheduler>,
    path_manager: Box<dyn PathManager>,
    congestion: &'static str,
    send_limit: u64,
    last_progress: Instant,
    last_call: Instant,
    stats: Stats,
    pub(super) options: Arc<SocketOptions>,
    turn: u32,
    next_subflow: SubflowId,
    pub(super) nagle: RestingNagle,
    server_side: bool,
}

impl Conn {
    /// When to see whether the connection can be put to rest, `after` nothing happened for so long; `None` if that was
    /// tried and nothing happened since.
    pub(crate) fn rest_due(&self, after: Duration) -> Option<Instant> {
        let active = |last: Instant, subflow: &Subflow| last.max(subflow.last_rx).max(subflow.last_tx);
        let due = self.subflows.iter().fold(self.last_call, active) + after;
        (self.restless != Some(due)).then_some(due)
    }

    /// The application did something.
    pub(crate) fn note_call(&mut self, now: Instant) {
        self.last_call = now;
    }

    /// It was seen that the connection cannot rest: not again before something happens.
    pub(crate) fn stay_awake(&mut self, after: Duration) {
        self.restless = self.rest_due(after).or(self.restless);
    }

    /// Whether there is nothing under way, and nothing but keepalive to wait for.
    pub(crate) fn may_rest(&self) -> bool {
        let wanted = self.stage == Stage::Open && !self.released && !self.read_shut && !self.data_fin_sent;
        let silent = self.openings.is_empty() && self.parting.is_empty() && self.scheduler_timer.is_none();
        let settled = self.data_timer.is_none()
            && self.give_up.is_none()
            && self.failing.is_over()
            && self.announcement_deadline().is_none();
        let managed = self.path_manager_deadline().is_none();
        let told = self.mp().is_none_or(|mp| mp.withdrawn.is_empty() && mp.doubts.is_empty());
        let queues = self.tx.may_rest() && self.rx.may_rest() && !self.wants_room;
        let whole = wanted && silent && settled && managed && told && queues && !self.subflows.is_empty();
        whole && self.subflows.iter().all(Subflow::may_rest)
    }

    /// Shrinks to what has to be remembered. Only if it [may](Self::may_rest).
    pub(crate) fn rest(self) -> RestingConn {
        let mut mode = self.mode;
        if let Mode::Mptcp(mp) = &mut mode {
            mp.remotes.shrink_to_fit();
            mp.announcements.shrink_to_fit();
            mp.withdrawn.shrink_to_fit();
            mp.doubts.shrink_to_fit();
        }
        RestingConn {
            id: self.id,
            mode,
            tuple: PackedTuple::new(&Tuple { local: self.tuple.0, remote: self.tuple.1 }),
            subflows: self.subflows.into_iter().map(Subflow::rest).collect(),
            tx: self.tx.rest(),
            rx: self.rx.rest(),
            peer_edge: self.peer_edge,
            peer_window: self.peer_window,
            scheduler: self.scheduler,
            path_manager: self.path_manager,
            congestion: self.congestion,
            send_limit: self.send_limit,
            last_progress: self.last_progress,
            last_call: self.last_call,
            stats: self.stats,
            options: self.options,
            turn: self.turn as u32,
            next_subflow: self.next_subflow,
            nagle: self.nagle.rest(),
            server_side: self.server_side,
        }
    }
}

impl RestingConn {
    /// Whether it has a subflow that cannot go on without what is gone.
    pub(crate) fn is_taken_by(&self, gone: &Gone<'_>) -> bool {
        self.subflows.iter().any(|subflow| gone.takes(subflow.path(), subflow.tuple().local.ip()))
    }

    /// The connection as it was.
    pub(crate) fn resume(self) -> Conn {
        let charged = self.memory();
        let pacing = pacing_of(&self.options);
        let Tuple { local, remote } = self.tuple.unpack();
        Conn {
            id: self.id,
            stage: Stage::Open,
            mode: self.mode,
            subflows: self.subflows.into_iter().map(|subflow| subflow.resume(pacing)).collect(),
            openings: Default::default(),
            next_subflow: self.next_subflow,
            tx: SendQueue::resume(self.tx),
            rx: RestingRecvQueue::resume(self.rx),
            peer_edge: self.peer_edge,
            peer_window: self.peer_window,
            scheduler: self.scheduler,
            congestion: self.congestion,
            path_manager: self.path_manager,
            options: self.options,
            nagle: self.nagle.resume(),
            server_side: self.server_side,
            tuple: (local, remote),
            released: false,
            orphan: false,
            read_shut: false,
            wants_room: false,
            send_limit: self.send_limit,
            parting: Default::default(),
            data_fin_sent: false,
            eof_told: false,
            drained_told: false,
            readable_told: false,
            data_timer: None,
            data_backoff: 0,
            scheduler_timer: None,
            give_up: None,
            failing: Default::default(),
            last_progress: self.last_progress,
            turn: self.turn as usize,
            last_call: self.last_call,
            restless: None,
            level: Level::Plenty,
            charged,
            stats: self.stats,
        }
    }

    /// Whether it speaks MPTCP.
    pub(crate) fn is_mptcp(&self) -> bool {
        matches!(self.mode, Mode::Mptcp(_))
    }

    /// The peer's address, as the application knows it.
    pub(crate) fn remote(&self) -> core::net::SocketAddr {
        self.tuple.unpack().remote
    }

    /// Bytes that may be written now.
    pub(crate) fn write_room(&self, level: Level) -> u64 {
        memory::send_limit(self.send_limit, level)
    }

    /// Bytes of memory that it holds.
    pub(crate) fn memory(&self) -> u64 {
        let subflows: usize = self.subflows.iter().map(RestingSubflow::memory).sum();
        (size_of::<Self>() + memory::BESIDE + subflows) as u64 + self.rx.taken()
    }

    /// As [`Conn::subflow_info`].
    pub(crate) fn subflow_info(&self) -> SmallVec<[SubflowInfo; 4]> {
        self.subflows.iter().map(RestingSubflow::info).collect()
    }

    /// As [`Conn::info`].
    pub(crate) fn info(&self) -> ConnInfo {
        let Tuple { local, remote } = self.tuple.unpack();
        let (mp, fallback) = match &self.mode {
            Mode::Mptcp(mp) => (Some(mp), None),
            Mode::Plain(plain) => (None, Some(plain.reason)),
        };
        ConnInfo {
            local,
            remote,
            mptcp: mp.is_some(),
            fallback,
            token: mp.map_or(0, |mp| mp.local.token),
            scheduler: self.scheduler.name(),
            congestion: self.congestion,
            path_manager: self.path_manager.name(),
            subflows: self.subflows.iter().filter(|subflow| subflow.id() != 0).count() as u8,
            subflows_total: self.subflows.len() as u8,
            subflows_max: self.options.limits.subflows,
            add_addr_signal: mp.map_or(0, |mp| mp.announcements.len() as u8),
            add_addr_accepted: mp.map_or(0, |mp| mp.add_addr_accepted),
            add_addr_accepted_max: self.options.limits.add_addr_accepted,
            bytes_written: self.stats.bytes_written,
            bytes_sent: self.stats.bytes_sent,
            bytes_acked: self.tx.0,
            bytes_received: self.rx.nxt(),
            bytes_retrans: self.stats.bytes_retrans,
            retransmits: self.stats.retransmits,
            syn_data: self.stats.syn_data,
            recv_queued: 0,
            recv_out_of_order: 0,
            recv_buffer: self.rx.buffer() as u32,
            send_buffer: self.send_limit as u32,
            send_queued: 0,
            notsent_bytes: 0,
            send_window: self.peer_edge.saturating_sub(self.tx.0),
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
