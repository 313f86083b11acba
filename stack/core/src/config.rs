//! What a stack, a path and a socket can be told.

mod handshake;
mod pacing;
mod pmtu;
mod recovery;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::num::NonZeroU16;
use core::str::FromStr;
use core::time::Duration;

use anabranch_frame::PathId;

pub use handshake::{FastOpenConfig, FastOpenKeys, Handshake, Offers, SynCookies};
pub use pacing::PacingConfig;
pub use pmtu::{MtuProbing, PmtuConfig};
pub use recovery::Recovery;

/// An address with the length of its network's prefix.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct IpCidr {
    /// The address, host bits included.
    pub addr: IpAddr,
    /// Prefix length in bits, at most 32 or 128.
    pub prefix: u8,
}

impl IpCidr {
    /// `addr/prefix`, or `None` if the prefix is too long for the family.
    #[must_use]
    pub fn new(addr: IpAddr, prefix: u8) -> Option<Self> {
        let max = if addr.is_ipv4() { 32 } else { 128 };
        (prefix <= max).then_some(Self { addr, prefix })
    }

    /// Whether `other` is this network's broadcast address, or the one that stands for the network itself.
    #[must_use]
    pub fn is_broadcast(&self, other: IpAddr) -> bool {
        match (self.addr, other) {
            (IpAddr::V4(_), IpAddr::V4(addr)) if self.prefix < 31 && self.contains(other) => {
                let host = u32::MAX.checked_shr(u32::from(self.prefix)).unwrap_or(0);
                let bits = addr.to_bits() & host;
                bits == 0 || bits == host
            }
            _ => false,
        }
    }

    /// Whether `other` lies in this network.
    #[must_use]
    pub fn contains(&self, other: IpAddr) -> bool {
        match (self.addr, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                (a.to_bits() ^ b.to_bits()) & mask == 0
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                (a.to_bits() ^ b.to_bits()) & mask == 0
            }
            _ => false,
        }
    }
}

impl fmt::Display for IpCidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix)
    }
}

impl fmt::Debug for IpCidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `10.9.0.2/24`; without a prefix the whole address is meant (`/32`, `/128`).
impl FromStr for IpCidr {
    type Err = IpCidrError;

    fn from_str(text: &str) -> Result<Self, IpCidrError> {
        let (addr, prefix) = match text.split_once('/') {
            Some((addr, prefix)) => (addr, Some(prefix)),
            None => (text, None),
        };
        let addr: IpAddr = addr.parse().map_err(|_| IpCidrError)?;
        let max = if addr.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(max), |prefix| prefix.parse().map_err(|_| IpCidrError))?;
        Self::new(addr, prefix).ok_or(IpCidrError)
    }
}

/// Not an address with a prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not an address with a prefix such as 10.9.0.2/24 or fd00::2/64")]
pub struct IpCidrError;

/// The flags of `ip mptcp endpoint`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EndpointFlags {
    /// Announce the address to the peer with ADD_ADDR.
    pub signal: bool,
    /// Open a subflow from this address to the peer's initial address.
    pub subflow: bool,
    /// Ask the peer to use subflows on this address only when no other works.
    pub backup: bool,
    /// Open a subflow from this address to every known address of the peer.
    pub fullmesh: bool,
    /// Join an announced address from this one, if nothing uses it yet.
    pub laminar: bool,
}

impl EndpointFlags {
    /// The words of `ip mptcp endpoint` that are set.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        let Self { signal, subflow, backup, fullmesh, laminar } = self;
        let all = [
            (signal, "signal"),
            (subflow, "subflow"),
            (backup, "backup"),
            (fullmesh, "fullmesh"),
            (laminar, "laminar"),
        ];
        all.into_iter().filter_map(|(set, word)| set.then_some(word))
    }

    /// Sets what a word of `ip mptcp endpoint` means, or clears it. False if there is no such word.
    pub fn set(&mut self, word: &str, on: bool) -> bool {
        let flag = match word {
            "signal" => &mut self.signal,
            "subflow" => &mut self.subflow,
            "backup" => &mut self.backup,
            "fullmesh" => &mut self.fullmesh,
            "laminar" => &mut self.laminar,
            _ => return false,
        };
        *flag = on;
        true
    }

    /// Whether an endpoint may have these flags and this port, as `ip mptcp` sees it.
    ///
    /// # Errors
    /// With what is wrong.
    pub fn check(self, port: Option<NonZeroU16>) -> Result<(), &'static str> {
        match port {
            Some(_) if !self.signal => Err("a port is announced: it needs 'signal'"),
            _ if self.signal && self.fullmesh => Err("'signal' and 'fullmesh' do not go together"),
            _ => Ok(()),
        }
    }
}

/// A path of the stack: one device with our addresses on it.
#[derive(Clone, Debug)]
pub struct PathConfig {
    /// Its identifier, the same that packets carry.
    pub id: PathId,
    /// A name for people: the interface's.
    pub name: String,
    /// Our addresses on it.
    pub addrs: Vec<IpCidr>,
    /// Gateways beyond which everything else is reached, at most one a family.
    pub gateways: Vec<IpAddr>,
    /// Whether any destination can be sent down here without a gateway (a TUN device).
    pub point_to_point: bool,
    /// Largest IP packet, in bytes; at least 576.
    pub mtu: u16,
    /// Largest payload of a super-segment in bytes; 0 when the device takes none.
    pub gso_max: u32,
    /// MPTCP address identifier of the first address; 0 lets the stack choose.
    pub endpoint_id: u8,
    /// What the path manager may do with its addresses.
    pub flags: EndpointFlags,
    /// The port that is announced with them: joins are taken there, connections are not. `None`: the connection's own.
    pub port: Option<NonZeroU16>,
    /// Preference among paths that all lead to a destination: lower first.
    pub cost: u32,
}

impl PathConfig {
    /// A path with `addrs` on it, MTU 1500, without offload and flags.
    #[must_use]
    pub fn new(id: PathId, addrs: Vec<IpCidr>) -> Self {
        Self {
            id,
            name: alloc::format!("path{}", id.0),
            addrs,
            gateways: Vec::new(),
            point_to_point: true,
            mtu: 1500,
            gso_max: 0,
            endpoint_id: 0,
            flags: EndpointFlags::default(),
            port: None,
            cost: 0,
        }
    }
}

/// One local address as the path manager sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// MPTCP address identifier, never 0.
    pub id: u8,
    /// The address.
    pub addr: IpAddr,
    /// Prefix length of its network, in bits.
    pub prefix: u8,
    /// The path that owns it.
    pub path: PathId,
    /// What may be done with it.
    pub flags: EndpointFlags,
    /// The port that is announced with it; `None`: the connection's own.
    pub port: Option<NonZeroU16>,
    /// Whether the path is up.
    pub up: bool,
}

/// An address that comes to a path while the stack runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewEndpoint {
    /// The path that it is on.
    pub path: PathId,
    /// The address with its network.
    pub addr: IpCidr,
    /// MPTCP address identifier; 0 lets the stack choose.
    pub id: u8,
    /// What may be done with it.
    pub flags: EndpointFlags,
    /// The port that is announced with it; `None`: the connection's own.
    pub port: Option<NonZeroU16>,
}

/// The limits of `ip mptcp limits`. They belong to the connection, not to the path manager.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Subflows beyond the first, opened and accepted together; 0 to 8.
    pub subflows: u8,
    /// ADD_ADDRs that are acted on; 0 to 8.
    pub add_addr_accepted: u8,
}

impl Default for Limits {
    /// Wider than the kernel's (2 and 0): a user-space stack is started for its paths.
    fn default() -> Self {
        Self { subflows: 8, add_addr_accepted: 8 }
    }
}

/// What one worker's stack is made with.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// Which worker this is: 0 to `workers - 1`.
    pub worker: u16,
    /// How many workers share the stack's tuples and tokens.
    pub workers: u16,
    /// Seed of this worker's generator: keys, nonces, ports.
    pub seed: [u8; 32],
    /// Key of the tuple hash, the same on all workers.
    pub hash_key: [u8; 16],
    /// Secret of the initial sequence numbers (RFC 6528), the same on all workers.
    pub isn_key: [u8; 16],
    /// Connections that may exist at once on this worker.
    pub max_connections: usize,
    /// Bytes of memory that the connections of this worker may hold. Near the end of it buffers stay small; at the end
    /// new connections are refused with a reset.
    pub memory: u64,
    /// Half-open connections that may wait at once, over all listeners of this worker.
    pub max_syn_queue: usize,
    /// How long TIME-WAIT lasts.
    pub time_wait: Duration,
    /// How long a connection without a subflow is kept (`net.mptcp.close_timeout`).
    pub close_timeout: Duration,
    /// A connection is shrunk to what it has to remember when nothing happened for so long; [`Duration::MAX`]: never.
    pub rest_after: Duration,
    /// Longest time between two transmissions of ADD_ADDR (`net.mptcp.add_addr_timeout`).
    pub add_addr_timeout: Duration,
    /// SYNs with MP_CAPABLE before a plain one (`net.mptcp.syn_retrans_before_tcp_fallback`).
    pub syn_retrans_before_tcp_fallback: u8,
    /// How long a destination is asked for plain TCP at once when SYNs with MP_CAPABLE got lost on the way there and
    /// plain ones did not: doubled each time up to 64 times as long, until one gets through; zero: never
    /// (`net.mptcp.blackhole_timeout`).
    pub blackhole_timeout: Duration,
    /// Path MTU discovery.
    pub pmtu: PmtuConfig,
    /// A SYN that asked for ECN in vain is repeated without (`tcp_ecn_fallback`, RFC 3168 §6.1.1.1).
    pub ecn_fallback: bool,
    /// Connections start without what earlier ones to the same destination learnt: window, threshold and round-trip time
    /// (`tcp_no_metrics_save`, but true by default: addresses say little of paths today).
    pub no_metrics_save: bool,
    /// First and last ephemeral port.
    pub ephemeral_ports: (u16, u16),
    /// How connections are opened.
    pub handshake: Handshake,
    /// How lost data is found and sent again.
    pub recovery: Recovery,
    /// How much goes at once, and how fast.
    pub pacing: PacingConfig,
}

impl ShardConfig {
    /// The only worker of a stack, everything derived from `seed`.
    #[must_use]
    pub fn single(seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let mut hash_key = [0x5a; 16];
        hash_key[..8].copy_from_slice(&seed.to_be_bytes());
        let mut isn_key = [0xa5; 16];
        isn_key[8..].copy_from_slice(&seed.to_be_bytes());
        Self {
            worker: 0,
            workers: 1,
            seed: bytes,
            hash_key,
            isn_key,
            max_connections: 1 << 20,
            memory: u64::MAX,
            max_syn_queue: 4096,
            time_wait: Duration::from_secs(60),
            close_timeout: Duration::from_secs(60),
            rest_after: Duration::from_secs(1),
            add_addr_timeout: Duration::from_secs(120),
            syn_retrans_before_tcp_fallback: 2,
            blackhole_timeout: Duration::from_secs(3600),
            pmtu: PmtuConfig::default(),
            ecn_fallback: true,
            no_metrics_save: true,
            ephemeral_ports: (32768, 60999),
            handshake: Handshake::default(),
            recovery: Recovery::default(),
            pacing: PacingConfig::default(),
        }
    }
}

/// The unspecified address of the same family as `addr`.
#[must_use]
pub fn unspecified_like(addr: IpAddr) -> IpAddr {
    match addr {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}
