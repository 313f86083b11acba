//! What can be read of a connection and its subflows, under the names of `mptcp_info` and `tcp_info`.

use core::net::SocketAddr;
use core::time::Duration;

use anabranch_frame::{Instant, PathId};

use crate::FallbackReason;

/// State of a subflow (RFC 9293 §3.3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[allow(missing_docs)] // the RFC's own words
pub enum TcpState {
    SynSent,
    SynReceived,
    Established,
    FinWait1,
    FinWait2,
    Closing,
    TimeWait,
    CloseWait,
    LastAck,
    Closed,
}

impl TcpState {
    /// The name in the RFC, such as `SYN-SENT`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SynSent => "SYN-SENT",
            Self::SynReceived => "SYN-RECEIVED",
            Self::Established => "ESTABLISHED",
            Self::FinWait1 => "FIN-WAIT-1",
            Self::FinWait2 => "FIN-WAIT-2",
            Self::Closing => "CLOSING",
            Self::TimeWait => "TIME-WAIT",
            Self::CloseWait => "CLOSE-WAIT",
            Self::LastAck => "LAST-ACK",
            Self::Closed => "CLOSED",
        }
    }
}

/// A connection, in the words of `struct mptcp_info`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnInfo {
    /// First subflow's addresses, as the application knows them.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// Whether the connection speaks MPTCP now.
    pub mptcp: bool,
    /// Why it does not, if it does not.
    pub fallback: Option<FallbackReason>,
    /// Our token; 0 on plain TCP.
    pub token: u32,
    /// Scheduler, congestion control and path manager by name.
    pub scheduler: &'static str,
    /// See `scheduler`.
    pub congestion: &'static str,
    /// See `scheduler`.
    pub path_manager: &'static str,
    /// Extra subflows now (`mptcpi_subflows`).
    pub subflows: u8,
    /// Subflows now, the first one included (`mptcpi_subflows_total`).
    pub subflows_total: u8,
    /// Limit of extra subflows (`mptcpi_subflows_max`).
    pub subflows_max: u8,
    /// Addresses announced to the peer (`mptcpi_add_addr_signal`).
    pub add_addr_signal: u8,
    /// Addresses of the peer that were accepted (`mptcpi_add_addr_accepted`).
    pub add_addr_accepted: u8,
    /// Limit of accepted addresses (`mptcpi_add_addr_accepted_max`).
    pub add_addr_accepted_max: u8,
    /// Bytes written by the application so far.
    pub bytes_written: u64,
    /// Bytes sent at data level, retransmissions not counted (`mptcpi_bytes_sent`).
    pub bytes_sent: u64,
    /// Bytes acknowledged at data level (`mptcpi_bytes_acked`).
    pub bytes_acked: u64,
    /// Bytes received in order at data level (`mptcpi_bytes_received`).
    pub bytes_received: u64,
    /// Bytes sent again at data level, on another subflow or the same (`mptcpi_bytes_retrans`).
    pub bytes_retrans: u64,
    /// Data-level retransmissions (`mptcpi_retransmits`).
    pub retransmits: u32,
    /// The data in the SYN was taken, all of it (`TCPI_OPT_SYN_DATA`, which outlives the subflow).
    pub syn_data: bool,
    /// Bytes that wait to be read.
    pub recv_queued: u64,
    /// Bytes received beyond a hole.
    pub recv_out_of_order: u64,
    /// Size the receive buffer has grown to, in bytes.
    pub recv_buffer: u32,
    /// Size the send buffer has grown to, in bytes.
    pub send_buffer: u32,
    /// Bytes written but not yet acknowledged.
    pub send_queued: u64,
    /// Bytes written but not yet sent for the first time (`tcpi_notsent_bytes`).
    pub notsent_bytes: u64,
    /// Peer's window left at data level, in bytes.
    pub send_window: u64,
    /// Most bytes that one round trip brought to the application (`tcpi_rcv_space`).
    pub rcv_space: u64,
    /// Window that is offered at most now, in bytes (`tcpi_rcv_ssthresh`).
    pub rcv_ssthresh: u64,
    /// What holds the sender back now.
    pub limit: Limit,
    /// Since when. The times that follow are those up to then.
    pub limit_since: Instant,
    /// Time with data to send or under way (`tcpi_busy_time`).
    pub busy_time: Duration,
    /// Of that, the time in which the peer's window was what held data back (`tcpi_rwnd_limited`).
    pub rwnd_limited: Duration,
    /// Of that, the time in which a full send buffer held the application back while everything in it was sent
    /// (`tcpi_sndbuf_limited`).
    pub sndbuf_limited: Duration,
}

/// Why data is not sent faster.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Limit {
    /// There is none to send.
    #[default]
    Idle,
    /// The network.
    Network,
    /// The peer's window.
    PeerWindow,
    /// A send buffer that is full of what is under way.
    SendBuffer,
}

impl ConnInfo {
    /// The same with its times up to `now`.
    #[must_use]
    pub fn at(mut self, now: Instant) -> Self {
        let spent = now.saturating_since(self.limit_since);
        self.limit_since = self.limit_since.max(now);
        self.busy_time += if self.limit == Limit::Idle { Duration::ZERO } else { spent };
        self.rwnd_limited += if self.limit == Limit::PeerWindow { spent } else { Duration::ZERO };
        self.sndbuf_limited += if self.limit == Limit::SendBuffer { spent } else { Duration::ZERO };
        self
    }
}

/// Where loss recovery of a subflow stands (`tcpi_ca_state`). The values are the kernel's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub enum CaState {
    /// Nothing is missing.
    #[default]
    Open = 0,
    /// Something was acknowledged out of order.
    Disorder = 1,
    /// The window is reduced because of a congestion mark.
    Cwr = 2,
    /// Fast recovery.
    Recovery = 3,
    /// Recovery from a retransmission timeout.
    Loss = 4,
}

/// A subflow, in the words of `struct tcp_info`. Windows are in bytes, counts called segments in segments; times that the
/// kernel gives as an age are given as the instant.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SubflowInfo {
    /// Identifier within the connection, never reused.
    pub id: u8,
    /// The path it runs on.
    pub path: PathId,
    /// Our address.
    pub local: SocketAddr,
    /// The peer's address.
    pub remote: SocketAddr,
    /// Our address identifier.
    pub local_id: u8,
    /// The peer's address identifier.
    pub remote_id: u8,
    /// TCP state (`tcpi_state`).
    pub state: TcpState,
    /// The peer asked us to use it only as a backup.
    pub backup: bool,
    /// No progress for a while; skipped by the scheduler.
    pub stale: bool,

    /// Where loss recovery stands (`tcpi_ca_state`).
    pub ca_state: CaState,
    /// Retransmission timeouts in a row (`tcpi_retransmits`).
    pub retransmits: u32,
    /// Window and keepalive probes that nobody has answered (`tcpi_probes`).
    pub probes: u32,
    /// Doublings of the retransmission timeout or of the time between window probes (`tcpi_backoff`).
    pub backoff: u32,
    /// Both ends speak timestamps (`TCPI_OPT_TIMESTAMPS`).
    pub timestamps: bool,
    /// The peer sends SACK (`TCPI_OPT_SACK`).
    pub sack: bool,
    /// Both ends scale windows (`TCPI_OPT_WSCALE`).
    pub window_scaling: bool,
    /// Scale of the windows that the peer sends (`tcpi_snd_wscale`).
    pub snd_wscale: u8,
    /// Scale of those that we send (`tcpi_rcv_wscale`).
    pub rcv_wscale: u8,

    /// Retransmission timeout (`tcpi_rto`).
    pub rto: Duration,
    /// How long an acknowledgement may be delayed (`tcpi_ato`); zero before there was data.
    pub ato: Duration,
    /// Largest payload of one segment sent (`tcpi_snd_mss`).
    pub snd_mss: u16,
    /// Estimated payload of the peer's segments (`tcpi_rcv_mss`).
    pub rcv_mss: u16,
    /// Largest segment that we told the peer to send, without options (`tcpi_advmss`).
    pub advmss: u16,
    /// Largest IP packet that the path takes (`tcpi_pmtu`).
    pub pmtu: u16,

    /// Segments sent and not acknowledged (`tcpi_unacked`).
    pub unacked: u32,
    /// Segments selectively acknowledged (`tcpi_sacked`).
    pub sacked: u32,
    /// Segments presumed lost (`tcpi_lost`).
    pub lost: u32,
    /// Segments sent again and not acknowledged (`tcpi_retrans`).
    pub retrans: u32,
    /// Segments by which one may come later than those after it (`tcpi_reordering`).
    pub reordering: u32,
    /// How often segments came later than those after them (`tcpi_reord_seen`).
    pub reord_seen: u32,
    /// Bytes in flight.
    pub in_flight: u64,
    /// When data was last sent (`tcpi_last_data_sent`).
    pub last_data_sent: Option<Instant>,
    /// When data last came, or the handshake was done (`tcpi_last_data_recv`).
    pub last_data_recv: Instant,
    /// When an acceptable segment with an acknowledgement last came (`tcpi_last_ack_recv`).
    pub last_ack_recv: Instant,

    /// Smoothed round-trip time (`tcpi_rtt`).
    pub srtt: Duration,
    /// Its variation (`tcpi_rttvar`).
    pub rttvar: Duration,
    /// Smallest round-trip time seen lately (`tcpi_min_rtt`).
    pub min_rtt: Duration,
    /// Round-trip time as the receiver measures it (`tcpi_rcv_rtt`).
    pub rcv_rtt: Duration,
    /// Congestion window in bytes (`tcpi_snd_cwnd` × `tcpi_snd_mss`).
    pub cwnd: u64,
    /// Slow-start threshold in bytes (`tcpi_snd_ssthresh` × `tcpi_snd_mss`); `u64::MAX` before the first loss.
    pub ssthresh: u64,
    /// Pacing rate in bytes a second: what congestion control paces at or would (`tcpi_pacing_rate`).
    pub pacing_rate: u64,
    /// Delivery rate in bytes per second, 0 while unknown (`tcpi_delivery_rate`).
    pub delivery_rate: u64,
    /// The peer's window in bytes, as last told (`tcpi_snd_wnd`).
    pub snd_wnd: u64,
    /// Our window in bytes, as last told here (`tcpi_rcv_wnd`).
    pub rcv_wnd: u64,

    /// Payload bytes sent, retransmissions included (`tcpi_bytes_sent`).
    pub bytes_sent: u64,
    /// Payload bytes acknowledged (`tcpi_bytes_acked`).
    pub bytes_acked: u64,
    /// Payload bytes received, in order and not twice (`tcpi_bytes_received`).
    pub bytes_received: u64,
    /// Payload bytes sent again (`tcpi_bytes_retrans`).
    pub bytes_retrans: u64,
    /// Segments sent again (`tcpi_total_retrans`).
    pub total_retrans: u32,
    /// Segments sent (`tcpi_segs_out`), those with payload (`tcpi_data_segs_out`).
    pub segs_out: u32,
    /// See `segs_out`.
    pub data_segs_out: u32,
    /// Segments received (`tcpi_segs_in`), those with payload (`tcpi_data_segs_in`).
    pub segs_in: u32,
    /// See `segs_in`.
    pub data_segs_in: u32,
    /// Segments delivered, those included that were sent again (`tcpi_delivered`).
    pub delivered: u32,
    /// DSACKs received (`tcpi_dsack_dups`).
    pub dsack_dups: u32,
    /// Segments received out of order (`tcpi_rcv_ooopack`).
    pub rcv_ooopack: u32,
    /// Both sides take part in ECN (`TCPI_OPT_ECN` in `tcpi_options`).
    pub ecn: bool,
    /// The peer sent something ECN-capable (`TCPI_OPT_ECN_SEEN`).
    pub ecn_seen: bool,
    /// Bytes delivered under acknowledgements that echo congestion (`tcpi_delivered_ce` × `tcpi_snd_mss`).
    pub delivered_ce: u64,
    /// The data in the SYN was taken, all of it (`TCPI_OPT_SYN_DATA`).
    pub syn_data: bool,
}
