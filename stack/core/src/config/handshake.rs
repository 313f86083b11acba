//! What a stack does while connections come and go, under the names of the kernel's settings.

use core::fmt;
use core::time::Duration;

/// How connections are opened: the settings `net.ipv4.tcp_*` of the same names, with the kernel's defaults.
///
/// They may be changed at any time, see [`Shard::set_handshake`](crate::Shard::set_handshake).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Handshake {
    /// Retransmissions of a SYN with a timeout that doubles (`tcp_syn_retries`).
    pub syn_retries: u8,
    /// Retransmissions of a SYN before those, one a second (`tcp_syn_linear_timeouts`).
    pub syn_linear_timeouts: u8,
    /// Retransmissions of a SYN/ACK (`tcp_synack_retries`).
    pub synack_retries: u8,
    /// Whether SYNs are answered without being remembered (`tcp_syncookies`).
    pub syncookies: SynCookies,
    /// A connection that is established while the listener's backlog is full is reset, and not left to be tried again
    /// (`tcp_abort_on_overflow`).
    pub abort_on_overflow: bool,
    /// Options that both sides have to offer.
    pub offers: Offers,
    /// TCP Fast Open.
    pub fastopen: FastOpenConfig,
    /// A reset does not end TIME-WAIT (RFC 1337, `tcp_rfc1337`).
    pub rfc1337: bool,
    /// Connections may be opened on a tuple in TIME-WAIT if timestamps tell them from the old one (RFC 6191,
    /// `tcp_tw_reuse` 1)…
    pub tw_reuse: bool,
    /// …and its end is so long ago (`tcp_tw_reuse_delay`).
    pub tw_reuse_delay: Duration,
    /// Connections in TIME-WAIT that a worker keeps (`tcp_max_tw_buckets`); the oldest goes early. Settled when the
    /// stack is made.
    pub max_tw_buckets: usize,
    /// Longest time in FIN-WAIT-2 of a connection that the application let go of (`tcp_fin_timeout`).
    pub fin_timeout: Duration,
    /// Connections that may be closing after the application let go of them; more are reset (`tcp_max_orphans`).
    pub max_orphans: usize,
    /// Segments that do not fit are answered no more often on one connection (`tcp_invalid_ratelimit`).
    pub invalid_ratelimit: Duration,
    /// Challenge ACKs a second (RFC 5961 §7) on all connections of a worker; `u32::MAX`: no limit
    /// (`tcp_challenge_ack_limit`).
    pub challenge_ack_limit: u32,
}

/// Options of a SYN that take effect when both sides offer them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Offers {
    /// Timestamps (`tcp_timestamps`, RFC 7323 §3).
    pub timestamps: bool,
    /// Selective acknowledgements (`tcp_sack`, RFC 2018).
    pub sack: bool,
    /// Window scaling (`tcp_window_scaling`, RFC 7323 §2).
    pub window_scaling: bool,
}

impl Default for Offers {
    /// All of them.
    fn default() -> Self {
        Self { timestamps: true, sack: true, window_scaling: true }
    }
}

impl Default for Handshake {
    fn default() -> Self {
        Self {
            syn_retries: 6,
            syn_linear_timeouts: 4,
            synack_retries: 5,
            offers: Offers::default(),
            syncookies: SynCookies::UnderLoad,
            abort_on_overflow: false,
            fastopen: FastOpenConfig::default(),
            rfc1337: false,
            tw_reuse: false,
            tw_reuse_delay: Duration::from_secs(1),
            max_tw_buckets: 65_536,
            fin_timeout: Duration::from_secs(60),
            max_orphans: 131_072,
            invalid_ratelimit: Duration::from_millis(500),
            challenge_ack_limit: u32::MAX,
        }
    }
}

/// When SYN cookies are used (RFC 4987 §3.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SynCookies {
    /// Never: SYNs beyond the queue are dropped.
    Never,
    /// While the SYN queue is full. Connections opened so lose what the cookie has no room for: without timestamps
    /// window scale, SACK and ECN.
    #[default]
    UnderLoad,
    /// Always, for tests.
    Always,
}

/// TCP Fast Open (RFC 7413): the bits of `tcp_fastopen`, and what goes with them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct FastOpenConfig {
    /// Connections that ask for it send data in their SYNs (bit 0x1).
    pub client: bool,
    /// Listeners that ask for it take data in SYNs (bit 0x2).
    pub server: bool,
    /// Data is sent in SYNs without a cookie, too (bit 0x4).
    pub client_no_cookie: bool,
    /// Data is taken from SYNs without a cookie, too (bit 0x200). Safe only where nobody forges addresses.
    pub server_no_cookie: bool,
    /// All listeners take data in SYNs, those that ask for nothing with their backlog as the limit (bit 0x400).
    pub all_listeners: bool,
    /// Keys of the cookies that are given out (`tcp_fastopen_key`). `None`: made from the stack's secret.
    pub keys: Option<FastOpenKeys>,
    /// For so long no data is sent in SYNs after a path was found to swallow such connections, and longer each time it
    /// happens (`tcp_fastopen_blackhole_timeout_sec`); zero: such paths are not looked for.
    pub blackhole_timeout: Duration,
}

impl Default for FastOpenConfig {
    /// Client and server, for those who ask for it.
    fn default() -> Self {
        Self {
            client: true,
            server: true,
            client_no_cookie: false,
            server_no_cookie: false,
            all_listeners: false,
            keys: None,
            blackhole_timeout: Duration::ZERO,
        }
    }
}

impl FastOpenConfig {
    /// Sets client, server and the other bits as the kernel's `tcp_fastopen` has them.
    pub fn set_bits(&mut self, bits: u32) {
        let set = |bit| bits & bit != 0;
        self.client = set(0x1);
        self.server = set(0x2);
        self.client_no_cookie = set(0x4);
        self.server_no_cookie = set(0x200);
        self.all_listeners = set(0x400);
    }
}

/// The keys of a server's Fast Open cookies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FastOpenKeys {
    /// New cookies are made with it.
    pub primary: [u8; 16],
    /// Cookies of it are still taken, and replaced: keys can be changed without losing all clients' cookies.
    pub backup: Option<[u8; 16]>,
}

/// They are secrets.
impl fmt::Debug for FastOpenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.backup.is_some() { "FastOpenKeys(2)" } else { "FastOpenKeys(1)" })
    }
}
