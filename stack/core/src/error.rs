//! What can go wrong, as small enums.

use core::net::{IpAddr, SocketAddr};

use thiserror::Error;

/// Why a command failed or a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The peer answered the SYN with a reset.
    #[error("connection refused")]
    Refused,
    /// The peer reset the connection (RST or MP_FASTCLOSE).
    #[error("connection reset by peer")]
    Reset,
    /// The peer ended its stream and then reset the connection: it takes nothing more.
    #[error("broken pipe: the peer takes nothing more")]
    BrokenPipe,
    /// No answer for as long as the retransmission limit allows.
    #[error("connection timed out")]
    TimedOut,
    /// An ICMP message said that nothing gets there (RFC 5461).
    #[error("{0}")]
    Icmp(IcmpCause),
    /// The connection was aborted on this side.
    #[error("connection aborted")]
    Aborted,
    /// Writing after the sending side was shut down.
    #[error("the sending side is shut down")]
    ShutDown,
    /// The handle names no live connection or listener.
    #[error("no such connection")]
    NotConnected,
    /// The handshake has not finished.
    #[error("not connected yet")]
    InProgress,
    /// The local address is in use.
    #[error("address {0} is in use")]
    AddrInUse(SocketAddr),
    /// The address belongs to no path of this stack.
    #[error("address {0} belongs to no path of this stack")]
    AddrNotAvailable(IpAddr),
    /// No path leads to the remote address.
    #[error("no path leads to {0}: give one with a matching addr= or a gw=")]
    Unreachable(IpAddr),
    /// The address names no single host: it is unspecified, multicast or broadcast.
    #[error("{0} is no single host's address, and TCP speaks to single hosts only")]
    NotUnicast(IpAddr),
    /// Every ephemeral port towards this remote address is taken.
    #[error("no free local port towards {0}")]
    NoFreePort(SocketAddr),
    /// The configured limit of connections is reached.
    #[error("too many connections")]
    TooManyConnections,
    /// The budget of memory is used up.
    #[error("the budget of memory is used up: close connections, or give the stack more")]
    OutOfMemory,
    /// A name that the registry of schedulers, congestion controls or path managers does not know.
    #[error("unknown {kind}; known are {known}")]
    UnknownName {
        /// What was looked up: "scheduler", "congestion control" or "path manager".
        kind: &'static str,
        /// The known names, separated by commas.
        known: &'static str,
    },
    /// A socket option that cannot have this value, or not now.
    #[error("{option}: {problem}")]
    BadOption {
        /// Which one.
        option: &'static str,
        /// What is wrong, and what to do.
        problem: &'static str,
    },
    /// The path identifier is taken or unknown.
    #[error("no such path, or its identifier is taken")]
    BadPath,
}

/// Why a packet did not get where it should, by ICMP. Several codes come to the same, as in the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Error)]
#[non_exhaustive]
pub enum IcmpCause {
    /// No route to the network (`ENETUNREACH`).
    #[error("network is unreachable")]
    NetworkUnreachable,
    /// No way to the host, or a filter or the hop limit stopped it (`EHOSTUNREACH`).
    #[error("no route to host")]
    HostUnreachable,
    /// The host speaks no TCP (`ENOPROTOOPT`).
    #[error("protocol not available")]
    ProtocolUnreachable,
    /// Nobody listens (`ECONNREFUSED`).
    #[error("connection refused")]
    PortUnreachable,
    /// A source route failed (`EOPNOTSUPP`).
    #[error("operation not supported")]
    SourceRouteFailed,
    /// There is no such host (`EHOSTDOWN`).
    #[error("host is down")]
    HostUnknown,
    /// Our host is cut off (`ENONET`).
    #[error("machine is not on the network")]
    HostIsolated,
    /// A policy forbids it (`EACCES`).
    #[error("permission denied")]
    Prohibited,
    /// Somebody did not understand the packet's header (`EPROTO`).
    #[error("protocol error")]
    BadHeader,
}

impl From<IcmpCause> for Error {
    fn from(cause: IcmpCause) -> Self {
        match cause {
            IcmpCause::PortUnreachable => Self::Refused,
            cause => Self::Icmp(cause),
        }
    }
}

/// Why a connection that asked for MPTCP is plain TCP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum FallbackReason {
    /// MPTCP was not asked for.
    Disabled,
    /// The SYN carried no MP_CAPABLE that we can speak.
    SynNoCapable,
    /// The SYN/ACK carried none (`MPTcpExtMPCapableFallbackSYNACK`).
    SynAckNoCapable,
    /// The third ACK carried none (`MPTcpExtMPCapableFallbackACK`).
    AckNoCapable,
    /// The first data carried no mapping (`MPTcpExtMPCapableDataFallback`).
    FirstDataNoMapping,
    /// Data was acknowledged without DATA_ACK, or later data came unmapped (`MPTcpExtDssFallback`).
    NoDss,
    /// A mapping did not fit (`MPTcpExtDSSCorruptionFallback`).
    DssCorrupt,
    /// The peer sent an infinite mapping (`MPTcpExtInfiniteMapRx`).
    InfiniteMap,
    /// A checksum was wrong on the only subflow (`MPTcpExtDataCsumErr`, `MPTcpExtMPFailRx`).
    Checksum,
    /// Both sides opened at once (`MPTcpExtSimultConnectFallback`).
    SimultaneousConnect,
    /// SYNs with MP_CAPABLE went unanswered (`MPTcpExtMPCapableSYNTXDrop`).
    SynDropped,
    /// The same happened to an earlier connection to that destination, not long ago (`MPTcpExtMPCapableSYNTXDisabled`).
    Blackhole,
}

impl FallbackReason {
    /// A word for logs and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::SynNoCapable => "syn-no-capable",
            Self::SynAckNoCapable => "synack-no-capable",
            Self::AckNoCapable => "ack-no-capable",
            Self::FirstDataNoMapping => "first-data-no-mapping",
            Self::NoDss => "no-dss",
            Self::DssCorrupt => "dss-corrupt",
            Self::InfiniteMap => "infinite-map",
            Self::Checksum => "checksum",
            Self::SimultaneousConnect => "simultaneous-connect",
            Self::SynDropped => "syn-dropped",
            Self::Blackhole => "blackhole",
        }
    }
}

/// Reason codes of MP_TCPRST (RFC 8684 §3.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
#[repr(u8)]
pub enum ResetReason {
    /// 0: unspecified.
    #[default]
    Unspecified = 0,
    /// 1: MPTCP-specific error.
    MptcpError = 1,
    /// 2: lack of resources.
    LackOfResources = 2,
    /// 3: administratively prohibited.
    Prohibited = 3,
    /// 4: too much outstanding data.
    TooMuchOutstanding = 4,
    /// 5: unacceptable performance.
    UnacceptablePerformance = 5,
    /// 6: middlebox interference.
    Middlebox = 6,
}

impl ResetReason {
    /// Whether it may be otherwise the next time (the T flag): memory that was short, a path that fell silent or led
    /// through a box that meddles.
    #[must_use]
    pub fn is_transient(self) -> bool {
        !matches!(self, Self::MptcpError | Self::Prohibited | Self::TooMuchOutstanding)
    }

    /// The reason with this code; unknown codes read as unspecified.
    #[must_use]
    pub fn from_code(code: u8) -> Self {
        match code {
            1 => Self::MptcpError,
            2 => Self::LackOfResources,
            3 => Self::Prohibited,
            4 => Self::TooMuchOutstanding,
            5 => Self::UnacceptablePerformance,
            6 => Self::Middlebox,
            _ => Self::Unspecified,
        }
    }
}
