//! Socket options on the command line and, under the same names, in the table `[socket]` of the file: what sockets are
//! opened with.

use std::str::FromStr;
use std::time::Duration;

use anabranch::SockOpt;
use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// A time such as `30s`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Time(Duration);

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let complaint = |error| format!("'{text}' is no time such as '30s': {error}");
        humantime::parse_duration(text).map(Self).map_err(complaint)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// So many bytes: what does not fit is out of every range, and the stack says so.
fn bytes(ByteSize(bytes): ByteSize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Whether ECN is spoken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Ecn {
    Off,
    Accept,
    Request,
}

impl From<Ecn> for anabranch::Ecn {
    fn from(ecn: Ecn) -> Self {
        match ecn {
            Ecn::Off => Self::Off,
            Ecn::Accept => Self::Accept,
            Ecn::Request => Self::Request,
        }
    }
}

macro_rules! socket_args {
    ($( $(#[$meta:meta])* $field:ident: $type:ty => $option:expr ),* $(,)?) => {
        /// Options of sockets, named after the kernel's.
        #[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
        #[command(next_help_heading = "Socket options")]
        #[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
        pub(crate) struct SocketArgs {
            $( $(#[$meta])* pub(crate) $field: Option<$type>, )*
        }

        impl SocketArgs {
            /// What is left open here is as in the file.
            pub(crate) fn or(self, file: Self) -> Self {
                Self { $( $field: self.$field.or(file.$field), )* }
            }

            /// Those that were given.
            pub(crate) fn options(self) -> impl Iterator<Item = SockOpt> {
                [ $( self.$field.map($option), )* ].into_iter().flatten()
            }
        }
    };
}

socket_args! {
    /// Send small segments at once, without Nagle's algorithm.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    nodelay: bool => SockOpt::Nodelay,
    /// Send no partial segments, for 200 ms at most.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    cork: bool => SockOpt::Cork,
    /// Acknowledge at once when a connection begins [default: true].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    quickack: bool => SockOpt::Quickack,
    /// Probe idle connections.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    keepalive: bool => SockOpt::Keepalive,
    /// Idle time before the first of these probes [default: 2h].
    #[arg(long, value_name = "TIME")]
    keepidle: Time => |Time(time)| SockOpt::Keepidle(time),
    /// Time between them [default: 75s].
    #[arg(long, value_name = "TIME")]
    keepintvl: Time => |Time(time)| SockOpt::Keepintvl(time),
    /// How many of them may go without an answer [default: 9].
    #[arg(long, value_name = "N")]
    keepcnt: u8 => SockOpt::Keepcnt,
    /// Give a connection up that gets no answer for so long.
    #[arg(long, value_name = "TIME")]
    user_timeout: Time => |Time(time)| SockOpt::UserTimeout(Some(time)),
    /// Largest segment, without options, in bytes.
    #[arg(long, value_name = "N")]
    max_seg: u16 => |bytes| SockOpt::MaxSeg(Some(bytes)),
    /// A socket is writable only while less than this waits unsent.
    #[arg(long, value_name = "SIZE")]
    notsent_lowat: ByteSize => |size| SockOpt::NotsentLowat(bytes(size)),
    /// Closing waits so long until all is acknowledged; 0s resets the connection.
    #[arg(long, value_name = "TIME")]
    linger: Time => |Time(time)| SockOpt::Linger(Some(time)),
    /// How long a closed connection waits for the peer's end of the stream; 0s: not at all [default: 60s].
    #[arg(long, value_name = "TIME")]
    linger2: Time => |Time(time)| SockOpt::Linger2((!time.is_zero()).then_some(time)),
    /// A server accepts connections only when their first data came, or after about so long.
    #[arg(long, value_name = "TIME")]
    defer_accept: Time => |Time(time)| SockOpt::DeferAccept(time),
    /// Bound of the receive window.
    #[arg(long, value_name = "SIZE")]
    window_clamp: ByteSize => |size| SockOpt::WindowClamp(Some(bytes(size))),
    /// Send buffer of this size, which does not grow.
    #[arg(long, value_name = "SIZE")]
    sndbuf: ByteSize => |size| SockOpt::Sndbuf(Some(bytes(size))),
    /// Receive buffer of this size, which does not grow.
    #[arg(long, value_name = "SIZE")]
    rcvbuf: ByteSize => |size| SockOpt::Rcvbuf(Some(bytes(size))),
    /// Wake a reader only when so much waits.
    #[arg(long, value_name = "SIZE")]
    rcvlowat: ByteSize => |size| SockOpt::Rcvlowat(bytes(size)),
    /// Repetitions of a SYN before a connect fails.
    #[arg(long, value_name = "N")]
    syncnt: u8 => |count| SockOpt::Syncnt(Some(count)),
    /// Do not back off the timeouts of thin streams.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    thin_linear_timeouts: bool => SockOpt::ThinLinearTimeouts,
    /// Bytes a second that a subflow sends at most, such as 1MB.
    #[arg(long, value_name = "SIZE")]
    max_pacing_rate: ByteSize => |ByteSize(rate)| SockOpt::MaxPacingRate(Some(rate)),
    /// Pace what congestion control does not.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pacing: bool => SockOpt::Pacing,
    /// Type of service, or traffic class, of packets: a number, without its two ECN bits.
    #[arg(long, value_name = "N")]
    tos: u8 => SockOpt::Tos,
    /// Time to live, or hop limit, of packets [default: 64].
    #[arg(long, value_name = "N")]
    hop_limit: u8 => SockOpt::HopLimit,
    /// Give flows over IPv6 a label [default: true].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    autoflowlabel: bool => SockOpt::Autoflowlabel,
    /// A server takes data in the SYNs of so many connections at once (TCP Fast Open).
    #[arg(long, value_name = "N")]
    fastopen: u32 => SockOpt::Fastopen,
    /// A client sends its first data with the SYN, where it has a cookie.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    fastopen_connect: bool => SockOpt::FastopenConnect,
    /// TCP Fast Open without cookies: where nobody forges addresses.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    fastopen_no_cookie: bool => SockOpt::FastopenNoCookie,
    /// Explicit congestion notification: off, accept or request [default: accept].
    #[arg(long, value_name = "WORD")]
    ecn: Ecn => |ecn| SockOpt::Ecn(ecn.into()),
}
