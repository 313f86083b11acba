//! `struct tcp_info` and its like, byte by byte as the kernel lays them out.

use std::os::fd::RawFd;
use std::time::Duration;

use anabranch_core::SubflowInfo;
use anabranch_core::info::TcpState;

use crate::socket::Stage;
use crate::world::World;

/// Bytes of `struct tcp_info` (Linux 6.18).
const TCP_INFO_LEN: usize = 280;
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
    let mut out = Layout(vec![0; TCP_INFO_LEN]);
    let Ok(socket) = world.socket(fd) else { return out.0 };
    match socket.stage {
        Stage::Listening(_) => out.u8(0, LISTEN),
        Stage::Idle => out.u8(0, state_number(TcpState::Closed)),
        Stage::Connecting(conn) | Stage::Connected(conn) | Stage::Ended(conn) => {
            match world.shard.subflows(conn).unwrap_or_default().first() {
                Some(subflow) => fill(&mut out, subflow),
                None => out.u8(0, state_number(TcpState::Closed)),
            }
        }
    }
    out.0
}

fn fill(out: &mut Layout, info: &SubflowInfo) {
    let mss = u64::from(info.snd_mss.max(1));
    let segments = |bytes: u64| u32::try_from(bytes / mss).unwrap_or(u32::MAX);
    out.u8(0, state_number(info.state));
    out.micros(8, info.rto);
    out.u32(16, u32::from(info.snd_mss));
    out.u32(24, u32::try_from(info.in_flight.div_ceil(mss)).unwrap_or(u32::MAX));
    out.micros(68, info.srtt);
    out.micros(72, info.rttvar);
    out.u32(76, if info.ssthresh == u64::MAX { INFINITE } else { segments(info.ssthresh) });
    out.u32(80, segments(info.cwnd));
    out.u32(100, info.total_retrans);
    out.u64(120, info.bytes_acked);
    out.u64(128, info.bytes_received);
    out.micros(148, info.min_rtt);
    out.u64(160, info.delivery_rate);
    out.u64(200, info.bytes_sent);
    out.u64(208, info.bytes_retrans);
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
