//! `struct tcp_info` and its like, byte by byte as the kernel lays them out.

use std::os::fd::RawFd;
use std::time::Duration;

use anabranch_core::SubflowInfo;
use anabranch_core::info::TcpState;
use anabranch_frame::Instant;

use crate::socket::Stage;
use crate::world::World;

/// Bytes of `struct tcp_info` (Linux 6.18).
const TCP_INFO_LEN: usize = 280;
/// Bytes of `struct mptcp_info`.
const MPTCP_INFO_LEN: usize = 96;
/// `TCP_INFINITE_SSTHRESH`.
const INFINITE: u32 = 0x7fff_ffff;

/// Numbers of the states in `tcpi_state`.
fn state_number(state: TcpState) -> u8 {
    match state {
        TcpState::Established => 1,
        TcpState::SynSent => 2,
        TcpState::SynReceived => 3,
        TcpState::FinWait1 => 4,
        TcpState::FinWait2 => 5,
        TcpState::TimeWait => 6,
        TcpState::Closed => 7,
        TcpState::CloseWait => 8,
        TcpState::LastAck => 9,
        TcpState::Closing => 11,
    }
}

/// `TCP_LISTEN` in `tcpi_state`.
const LISTEN: u8 = 10;

/// `TCPI_OPT_SYN_DATA` in `tcpi_options`.
const SYN_DATA: u8 = 32;

/// The struct, to be filled in by offset.
struct Layout(Vec<u8>);

impl Layout {
    fn u8(&mut self, at: usize, value: u8) {
        self.0[at] = value;
    }

    fn u32(&mut self, at: usize, value: u32) {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }

    fn u64(&mut self, at: usize, value: u64) {
        self.0[at..at + 8].copy_from_slice(&value.to_ne_bytes());
    }

    fn micros(&mut self, at: usize, value: Duration) {
        self.u32(at, u32::try_from(value.as_micros()).unwrap_or(u32::MAX));
    }
}

/// `TCP_INFO` of a socket: that of its first subflow.
pub(crate) fn tcp_info(world: &mut World, fd: RawFd) -> Vec<u8> {
    let now = world.now();
    let mut out = Layout(vec![0; TCP_INFO_LEN]);
    let Ok(socket) = world.socket(fd) else { return out.0 };
    let max_pacing_rate = socket.options.max_pacing_rate;
    let Some(conn) = socket.conn() else {
        let listens = matches!(socket.stage, Stage::Listening(_));
        out.u8(0, if listens { LISTEN } else { state_number(TcpState::Closed) });
        return out.0;
    };
    // What is known of a connection outlives it.
    let last = socket.info.clone();
    let subflows = world.shard.subflows(conn).unwrap_or_default();
    if let Some(subflow) = subflows.first().or(last.as_ref()) {
        fill(&mut out, subflow, now);
        out.u32(52, saturate((now - subflow.last_data_recv).as_millis() as u64));
    }
    if subflows.is_empty() {
        out.u8(0, state_number(TcpState::Closed));
    }
    out.u64(112, max_pacing_rate.unwrap_or(u64::MAX));
    if let Some(info) = world.shard.info(conn).map(|info| info.at(now)) {
        out.0[5] |= if info.syn_data { SYN_DATA } else { 0 };
        out.u32(64, saturate(info.rcv_ssthresh));
        out.u32(96, saturate(info.rcv_space));
        out.u32(144, saturate(info.notsent_bytes));
        out.u64(168, info.busy_time.as_micros() as u64);
        out.u64(176, info.rwnd_limited.as_micros() as u64);
        out.u64(184, info.sndbuf_limited.as_micros() as u64);
    }
    out.0
}

fn saturate(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn fill(out: &mut Layout, info: &SubflowInfo, now: Instant) {
    let mss = u64::from(info.snd_mss.max(1));
    let segments = |bytes: u64| saturate(bytes / mss);
    let age = |then: Option<Instant>| saturate(then.map_or(0, |then| (now - then).as_millis() as u64));
    out.u8(0, state_number(info.state));
    out.u8(1, info.ca_state as u8);
    out.u8(2, info.retransmits.min(255) as u8);
    out.u8(3, info.probes.min(255) as u8);
    out.u8(4, info.backoff.min(255) as u8);
    out.u8(5, options(info));
    out.u8(6, info.snd_wscale & 15 | info.rcv_wscale << 4);
    out.micros(8, info.rto);
    out.micros(12, info.ato);
    for (at, value) in [(16, info.snd_mss), (20, info.rcv_mss), (60, info.pmtu), (84, info.advmss)] {
        out.u32(at, value.into());
    }
    for (at, value) in [(24, info.unacked), (28, info.sacked), (32, info.lost), (36, info.retrans)] {
        out.u32(at, value);
    }
    out.u32(44, age(info.last_data_sent));
    out.u32(56, age(Some(info.last_ack_recv)));
    out.micros(68, info.srtt);
    out.micros(72, info.rttvar);
    out.u32(76, if info.ssthresh == u64::MAX { INFINITE } else { segments(info.ssthresh) });
    out.u32(80, segments(info.cwnd));
    out.u32(88, info.reordering);
    out.micros(92, info.rcv_rtt);
    out.u32(100, info.total_retrans);
    out.u64(104, info.pacing_rate);
    out.u64(120, info.bytes_acked);
    out.u64(128, info.bytes_received);
    out.u32(136, info.segs_out);
    out.u32(140, info.segs_in);
    out.micros(148, info.min_rtt);
    out.u32(152, info.data_segs_in);
    out.u32(156, info.data_segs_out);
    out.u64(160, info.delivery_rate);
    out.u32(192, info.delivered);
    out.u32(196, segments(info.delivered_ce));
    out.u64(200, info.bytes_sent);
    out.u64(208, info.bytes_retrans);
    out.u32(216, info.dsack_dups);
    out.u32(220, info.reord_seen);
    out.u32(224, info.rcv_ooopack);
    out.u32(228, saturate(info.snd_wnd));
    out.u32(232, saturate(info.rcv_wnd));
}

/// The bits of `tcpi_options`.
fn options(info: &SubflowInfo) -> u8 {
    let bits = [
        (info.timestamps, 1),
        (info.sack, 2),
        (info.window_scaling, 4),
        (info.ecn, 8),
        (info.ecn_seen, 16),
        (info.syn_data, SYN_DATA),
    ];
    bits.iter().map(|&(holds, bit)| if holds { bit } else { 0 }).sum()
}

/// `MPTCP_INFO` of a socket, if it speaks MPTCP.
pub(crate) fn mptcp_info(world: &mut World, fd: RawFd) -> Option<Vec<u8>> {
    let conn = world.socket(fd).ok().filter(|socket| socket.options.mptcp)?.conn()?;
    let info = world.shard.info(conn)?;
    let mut out = Layout(vec![0; MPTCP_INFO_LEN]);
    for (at, value) in [
        (0, info.subflows),
        (1, info.add_addr_signal),
        (2, info.add_addr_accepted),
        (3, info.subflows_max),
        (5, info.add_addr_accepted_max),
    ] {
        out.u8(at, value);
    }
    out.u32(8, info.fallback.is_some().into());
    out.u32(12, info.token);
    out.u32(44, info.retransmits);
    out.u64(48, info.bytes_retrans);
    out.u64(56, info.bytes_sent);
    out.u64(64, info.bytes_received);
    out.u64(72, info.bytes_acked);
    out.u8(80, info.subflows_total);
    Some(out.0)
}

/// `SO_MEMINFO`: what is in the buffers, and how large these are.
pub(crate) fn meminfo(world: &mut World, fd: RawFd) -> Vec<u8> {
    let mut out = Layout(vec![0; 36]);
    let Some(conn) = world.socket(fd).ok().and_then(|socket| socket.conn()) else { return out.0 };
    if let Some(info) = world.shard.info(conn) {
        out.u32(0, info.recv_queued as u32);
        out.u32(4, info.recv_buffer);
        out.u32(12, info.send_buffer);
        out.u32(20, info.send_queued as u32);
    }
    out.0
}
