//! What can be known of a subflow, at work or at rest.

use core::time::Duration;

use anabranch_frame::Instant;

use super::{Link, RestingSubflow, Subflow};
use crate::info::{CaState, SubflowInfo, TcpState};
use crate::tcp::EcnState;
use crate::tcp::snd::AckOut;
use crate::wire::{Segment, Tuple};

/// What is only counted, for `tcp_info`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    segs_in: u32,
    segs_out: u32,
    data_segs_in: u32,
    data_segs_out: u32,
    delivered: u32,
    dsack_dups: u32,
    rcv_ooopack: u32,
    /// Window fields that closed the window, and that opened it again, since they were last asked for.
    zero_windows: (u16, u16),
}

fn add(count: &mut u32, more: u64) {
    *count = count.wrapping_add(more as u32);
}

impl Counts {
    pub(crate) fn sent(&mut self, segments: u64, data: bool) {
        add(&mut self.segs_out, segments);
        add(&mut self.data_segs_out, if data { segments } else { 0 });
    }

    /// The peer is told of another window.
    pub(crate) fn told(&mut self, before: u16, window: u16) {
        self.zero_windows.0 += u16::from(window == 0 && before > 0);
        self.zero_windows.1 += u16::from(window > 0 && before == 0);
    }

    /// How often the window was closed and opened since the last call.
    pub(crate) fn take_zero_windows(&mut self) -> (u16, u16) {
        core::mem::take(&mut self.zero_windows)
    }

    pub(crate) fn received(&mut self, segment: &Segment) {
        let segments = segment.segment_count();
        add(&mut self.segs_in, segments);
        add(&mut self.data_segs_in, if segment.payload.is_empty() { 0 } else { segments });
    }

    pub(crate) fn received_early(&mut self, segment: &Segment) {
        add(&mut self.rcv_ooopack, segment.segment_count());
    }

    pub(crate) fn acked(&mut self, ack: &AckOut, mss: u16) {
        add(&mut self.delivered, ack.delivered.div_ceil(u64::from(mss)));
        add(&mut self.dsack_dups, u64::from(ack.dsack));
    }
}

/// What is known without either half.
struct Outline<'a> {
    id: u8,
    local_id: u8,
    remote_id: u8,
    state: TcpState,
    backup: bool,
    stale: bool,
    tuple: &'a Tuple,
    link: &'a Link,
    pmtu: u16,
    counts: &'a Counts,
    scales: (u8, u8),
    advmss: u16,
    rcv_rtt: Duration,
    bytes_received: u64,
    last_rx: Instant,
    told_window: u16,
    probes: u32,
    /// Timestamps, SACK, window scaling.
    options: (bool, bool, bool),
    ecn: EcnState,
    syn_data: bool,
}

impl Outline<'_> {
    /// Nothing is under way.
    fn info(&self) -> SubflowInfo {
        let &Counts { segs_in, segs_out, data_segs_in, data_segs_out, delivered, dsack_dups, rcv_ooopack, .. } =
            self.counts;
        let (snd_wscale, rcv_wscale) = self.scales;
        let (timestamps, sack, window_scaling) = self.options;
        SubflowInfo {
            id: self.id,
            path: self.link.path,
            local: self.tuple.local,
            remote: self.tuple.remote,
            local_id: self.local_id,
            remote_id: self.remote_id,
            state: self.state,
            backup: self.backup,
            stale: self.stale,
            ca_state: CaState::Open,
            retransmits: 0,
            probes: self.probes,
            backoff: 0,
            timestamps,
            sack,
            window_scaling,
            snd_wscale,
            rcv_wscale,
            rto: Duration::ZERO,
            ato: Duration::ZERO,
            snd_mss: 0,
            rcv_mss: 0,
            advmss: self.advmss,
            pmtu: self.pmtu,
            unacked: 0,
            sacked: 0,
            lost: 0,
            retrans: 0,
            reordering: 0,
            reord_seen: 0,
            in_flight: 0,
            last_data_sent: None,
            last_data_recv: self.last_rx,
            last_ack_recv: self.last_rx,
            srtt: Duration::ZERO,
            rttvar: Duration::ZERO,
            min_rtt: Duration::ZERO,
            rcv_rtt: self.rcv_rtt,
            cwnd: 0,
            ssthresh: 0,
            pacing_rate: 0,
            delivery_rate: 0,
            snd_wnd: 0,
            rcv_wnd: u64::from(self.told_window) << rcv_wscale,
            bytes_sent: 0,
            bytes_acked: 0,
            bytes_received: self.bytes_received,
            bytes_retrans: 0,
            total_retrans: 0,
            segs_out,
            data_segs_out,
            segs_in,
            data_segs_in,
            // The SYN is a segment, too.
            delivered: delivered.saturating_add(u32::from(self.state != TcpState::SynReceived)),
            dsack_dups,
            rcv_ooopack,
            ecn: self.ecn.on(),
            ecn_seen: self.ecn.seen(),
            delivered_ce: 0,
            syn_data: self.syn_data,
        }
    }
}

impl Subflow {
    /// Segments under way of what our SYN carried in vain.
    fn syn_data_again(&self) -> u32 {
        let end = 1 + u64::from(self.fast.sent) + u64::from(self.fast.refused);
        let left = end.min(self.snd.nxt()).saturating_sub(self.snd.una());
        u32::try_from(left.div_ceil(u64::from(self.snd.mss()))).unwrap_or(u32::MAX)
    }

    pub(crate) fn info(&self) -> SubflowInfo {
        let outline = Outline {
            id: self.id,
            local_id: self.local_id,
            remote_id: self.remote_id,
            state: self.state,
            backup: self.backup.is_wanted(),
            stale: self.is_doubtful(),
            tuple: &self.tuple,
            link: &self.link,
            pmtu: self.path_mtu(),
            counts: &self.counts,
            scales: (self.snd_scale, self.rcv_scale),
            advmss: self.advmss,
            rcv_rtt: self.rcv_rtt,
            bytes_received: self.bytes_received,
            last_rx: self.last_rx,
            told_window: self.told_window,
            probes: self.window_probes.max(self.keepalive_probes),
            options: (self.ts_offset.is_some(), self.sack, self.scaled),
            ecn: self.ecn,
            syn_data: self.fast.syn_data,
        };
        let mut info = outline.info();
        info.backoff = self.persist_backoff;
        self.snd.inform(&mut info);
        info.retrans = info.retrans.max(self.syn_data_again());
        self.rcv.inform(&mut info);
        info
    }
}

impl RestingSubflow {
    /// As [`Subflow::info`].
    pub(crate) fn info(&self) -> SubflowInfo {
        let outline = Outline {
            id: self.id,
            local_id: self.local_id,
            remote_id: self.remote_id,
            state: TcpState::Established,
            backup: self.backup.is_wanted(),
            stale: false,
            tuple: &self.tuple.unpack(),
            link: &self.link,
            pmtu: self.pmtu.as_ref().map_or(self.link.mtu, |pmtu| pmtu.mtu.min(self.link.mtu)),
            counts: &self.counts,
            scales: (self.snd_scale, self.rcv_scale),
            advmss: self.advmss,
            rcv_rtt: self.rcv_rtt,
            bytes_received: self.bytes_received,
            last_rx: self.last_rx,
            told_window: self.told_window,
            probes: 0,
            options: (self.ts_offset.is_some(), self.sack, self.scaled),
            ecn: self.ecn,
            syn_data: self.fast.syn_data,
        };
        let mut info = outline.info();
        self.snd.inform(&mut info);
        self.rcv.inform(&mut info);
        info
    }
}
