//! A subflow on which nothing is under way.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use anabranch_frame::{Instant, PathId};
use arrayvec::ArrayVec;

use super::{Backup, Counts, FastOpened, Joining, Link, Subflow};
use crate::IcmpCause;
use crate::info::TcpState;
use crate::mptcp::{AlarmRecord, Mappings, Silence};
use crate::sched::SubflowId;
use crate::shard::Pmtu;
use crate::tcp::rcv::RestingRcv;
use crate::tcp::snd::{Pacing, RestingSnd};
use crate::tcp::{EcnState, IpOptions, Search};
use crate::wire::{PackedTuple, SeqNum, Tuple};

/// A [`Subflow`] in ESTABLISHED without what is only of use while something is under way.
#[derive(Debug)]
pub(crate) struct RestingSubflow {
    pub(super) snd: RestingSnd,
    pub(super) rcv: RestingRcv,
    pub(super) tuple: PackedTuple,
    pub(super) link: Link,
    walked: u64,
    pub(super) bytes_received: u64,
    pub(super) last_rx: Instant,
    last_tx: Instant,
    alarms: AlarmRecord,
    pub(super) rcv_rtt: Duration,
    iss: SeqNum,
    pub(super) ts_offset: Option<u32>,
    wire_mss: u16,
    peer_mss: u16,
    options_len: u16,
    pub(super) pmtu: Option<Box<Pmtu>>,
    search: Option<Box<Search>>,
    soft_error: Option<IcmpCause>,
    pub(super) ecn: EcnState,
    ip: IpOptions,
    flow_label: u32,
    ip_id: u16,
    pub(super) told_window: u16,
    pub(super) advmss: u16,
    pub(super) counts: Counts,
    pub(super) snd_scale: u8,
    pub(super) rcv_scale: u8,
    pub(super) id: SubflowId,
    pub(super) local_id: u8,
    pub(super) remote_id: u8,
    signal_acks: u8,
    pub(super) backup: Backup,
    passive: bool,
    pub(super) fast: FastOpened,
    pub(super) sack: bool,
    pub(super) scaled: bool,
}

impl Subflow {
    /// Whether nothing is under way here, in either direction, and nothing waits to be said.
    pub(crate) fn may_rest(&self) -> bool {
        let silent =
            self.early_acks.is_empty() && self.signals.is_empty() && !self.tell_data_fin && !self.probe && !self.ping;
        let sound = self.state == TcpState::Established && self.usable() && !self.stale && self.keepalive_probes == 0;
        silent
            && sound
            && self.persist.is_none()
            && self.mappings.is_empty()
            && self.snd.may_rest()
            && self.rcv.may_rest()
    }

    /// Shrinks to what has to be remembered. Only if it [may](Self::may_rest).
    pub(crate) fn rest(self) -> RestingSubflow {
        RestingSubflow {
            snd: self.snd.rest(),
            rcv: self.rcv.rest(),
            tuple: PackedTuple::new(&self.tuple),
            link: self.link,
            walked: self.walked,
            bytes_received: self.bytes_received,
            last_rx: self.last_rx,
            last_tx: self.last_tx,
            alarms: self.silence.record(),
            rcv_rtt: self.rcv_rtt,
            iss: self.iss,
            ts_offset: self.ts_offset,
            wire_mss: self.wire_mss,
            peer_mss: self.peer_mss,
            options_len: self.options_len,
            pmtu: self.pmtu,
            search: self.search,
            soft_error: self.soft_error,
            ecn: self.ecn,
            ip: self.ip,
            flow_label: self.flow_label,
            ip_id: self.ip_id,
            told_window: self.told_window,
            advmss: self.advmss,
            scaled: self.scaled,
            counts: self.counts,
            snd_scale: self.snd_scale,
            rcv_scale: self.rcv_scale,
            id: self.id,
            local_id: self.local_id,
            remote_id: self.remote_id,
            signal_acks: self.signal_acks,
            backup: self.backup,
            passive: self.passive,
            fast: self.fast,
            sack: self.sack,
        }
    }
}

impl RestingSubflow {
    pub(crate) fn tuple(&self) -> Tuple {
        self.tuple.unpack()
    }

    /// The path that it is on.
    pub(crate) fn path(&self) -> PathId {
        self.link.path
    }

    /// Bytes of memory that it holds.
    pub(crate) fn memory(&self) -> usize {
        let pmtu = self.pmtu.as_ref().map_or(0, |_| size_of::<Pmtu>());
        let search = self.search.as_ref().map_or(0, |_| size_of::<Search>());
        size_of::<Self>() + pmtu + search + self.snd.memory()
    }

    pub(crate) fn id(&self) -> SubflowId {
        self.id
    }

    /// As [`Rcv::is_interactive`](crate::tcp::Rcv::is_interactive).
    pub(crate) fn is_interactive(&self) -> bool {
        self.rcv.is_interactive()
    }

    pub(crate) fn resume(self, pacing: Pacing) -> Subflow {
        let last = self.last_rx.max(self.last_tx);
        Subflow {
            id: self.id,
            tuple: self.tuple.unpack(),
            link: self.link,
            local_id: self.local_id,
            remote_id: self.remote_id,
            state: TcpState::Established,
            snd: self.snd.resume(pacing),
            rcv: self.rcv.resume(),
            mappings: Mappings::default(),
            backup: self.backup,
            stale: false,
            silence: Silence::new(self.alarms),
            joining: Joining::Done,
            passive: self.passive,
            fast: self.fast,
            synack: None,
            signals: ArrayVec::new(),
            tell_data_fin: false,
            wants_fin: false,
            probe: false,
            walked: self.walked,
            bytes_received: self.bytes_received,
            persist: None,
            persist_backoff: 0,
            window_probes: 0,
            ping: false,
            keepalive_probes: 0,
            last_probe: self.last_rx,
            last_rx: self.last_rx,
            silent_since: last,
            last_tx: self.last_tx,
            last_oow_ack: None,
            snd_scale: self.snd_scale,
            rcv_rtt: self.rcv_rtt,
            iss: self.iss,
            rcv_scale: self.rcv_scale,
            ts_offset: self.ts_offset,
            sack: self.sack,
            wire_mss: self.wire_mss,
            peer_mss: self.peer_mss,
            options_len: self.options_len,
            pmtu: self.pmtu,
            search: self.search,
            soft_error: self.soft_error,
            ecn: self.ecn,
            early_acks: Vec::new(),
            ip: self.ip,
            flow_label: self.flow_label,
            ip_id: self.ip_id,
            signal_acks: self.signal_acks,
            mute: false,
            told_window: self.told_window,
            advmss: self.advmss,
            scaled: self.scaled,
            counts: self.counts,
        }
    }
}
