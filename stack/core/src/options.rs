//! What a socket can be told, under the names of the kernel's socket options.
//!
//! [`SocketOptions`] is all of it, for whoever opens a connection or a listener; [`SockOpt`] is one of them, for a
//! socket that exists. A listener's options are those of the connections that it accepts from then on.

use alloc::string::String;
use core::time::Duration;

use crate::config::{FastOpenKeys, Limits};
use crate::{Error, cc, pm, sched};

mod share;

pub(crate) use share::Shared;

macro_rules! socket_options {
    ($( $(#[$doc:meta])* $field:ident: $type:ty = $default:expr => $variant:ident ),* $(,)?) => {
        /// What a socket is opened with. Each field is an option of the kernel's, or close to one.
        #[derive(Clone, Debug, PartialEq)]
        pub struct SocketOptions {
            $( $(#[$doc])* pub $field: $type, )*
        }

        impl Default for SocketOptions {
            fn default() -> Self {
                Self { $( $field: $default, )* }
            }
        }

        /// One option and its value, see the field of the same name in [`SocketOptions`].
        #[derive(Clone, Debug, PartialEq)]
        #[non_exhaustive]
        #[allow(missing_docs)] // they are the fields'
        pub enum SockOpt {
            $( $variant($type), )*
        }

        impl SockOpt {
            /// The field's name.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self {
                    $( Self::$variant(_) => stringify!($field), )*
                }
            }
        }

        impl SocketOptions {
            fn assign(&mut self, option: SockOpt) {
                match option {
                    $( SockOpt::$variant(value) => self.$field = value, )*
                }
            }
        }
    };
}

socket_options! {
    /// Speak MPTCP if the peer does. Settled when the connection is opened.
    mptcp: bool = true => Mptcp,
    /// Ask for DSS checksums (`net.mptcp.checksum_enabled`); a peer that asks gets them in any case. Settled when the
    /// connection is opened.
    checksum: bool = false => Checksum,
    /// Whether the peer may join this connection at the address and port of its first subflow
    /// (`net.mptcp.allow_join_initial_addr_port`). If not, it is told so (the C flag) and has to wait for an announcement:
    /// that is for servers whose first address is a load balancer's. Settled when the connection is opened.
    allow_join_initial_addr_port: bool = true => AllowJoinInitialAddrPort,
    /// Name of the packet scheduler.
    scheduler: String = "minrtt".into() => Scheduler,
    /// Name of the congestion control (`TCP_CONGESTION`). A live connection goes on with the window that it has.
    congestion: String = "cubic".into() => Congestion,
    /// Name of the path manager. Settled when the connection is opened.
    path_manager: String = "endpoints".into() => PathManager,
    /// Limits for extra subflows.
    limits: Limits = Limits::default() => Limits,

    /// Send small segments at once (`TCP_NODELAY`), without waiting for acknowledgements as Nagle wants
    /// (RFC 9293 §3.7.4).
    nodelay: bool = false => Nodelay,
    /// Send no partial segment (`TCP_CORK`) until this is cleared, the stream ends, or 200 ms have passed.
    cork: bool = false => Cork,
    /// Acknowledge at once (`TCP_QUICKACK`). Not for good: the connection falls back to delayed acknowledgements when
    /// it looks interactive, and reading the option tells what holds now.
    quickack: bool = true => Quickack,
    /// Send keepalive probes on an idle connection (`SO_KEEPALIVE`, RFC 9293 §3.8.4).
    keepalive: bool = false => Keepalive,
    /// Idle time before the first probe (`TCP_KEEPIDLE`), 1 s to 32,767 s.
    keepidle: Duration = Duration::from_secs(7200) => Keepidle,
    /// Time between probes (`TCP_KEEPINTVL`), 1 s to 32,767 s.
    keepintvl: Duration = Duration::from_secs(75) => Keepintvl,
    /// Unanswered probes before the connection is dropped (`TCP_KEEPCNT`), 1 to 127.
    keepcnt: u8 = 9 => Keepcnt,
    /// Give up after this long without any answer (`TCP_USER_TIMEOUT`, RFC 5482); `None` for the retransmission limit.
    user_timeout: Option<Duration> = None => UserTimeout,
    /// Largest segment to send and to ask the peer for, without options (`TCP_MAXSEG`), 88 to 32,767 bytes; `None`: what
    /// fits the path. Asked for when the connection is opened; sending heeds it at any time.
    max_seg: Option<u16> = None => MaxSeg,
    /// The socket is writable only while fewer bytes than this wait unsent (`TCP_NOTSENT_LOWAT`).
    notsent_lowat: u32 = u32::MAX => NotsentLowat,
    /// Closing waits so long for everything to be acknowledged; zero resets the connection (`SO_LINGER`). `None`: closing
    /// waits for nothing, and the rest is sent behind the application's back.
    linger: Option<Duration> = None => Linger,
    /// How long a connection that the application closed waits for the peer's end of the stream in FIN-WAIT-2
    /// (`TCP_LINGER2`), at most 120 s; `None`: not at all.
    linger2: Option<Duration> = Some(Duration::from_secs(60)) => Linger2,
    /// A listener hands over connections only when their first data came, or after about so long
    /// (`TCP_DEFER_ACCEPT`); zero: at once.
    defer_accept: Duration = Duration::ZERO => DeferAccept,
    /// Bound of the receive window in bytes (`TCP_WINDOW_CLAMP`), at least 1,152; `None`: the buffer's.
    window_clamp: Option<u32> = None => WindowClamp,
    /// Send buffer in bytes (`SO_SNDBUF`, without its doubling), 2,048 to 1 GiB; `None`: it grows with the
    /// congestion window, to `send_buffer_max`.
    sndbuf: Option<u32> = None => Sndbuf,
    /// Receive buffer in bytes (`SO_RCVBUF`, without its doubling), 1,152 to 1 GiB; `None`: it grows with the
    /// rate, to `recv_buffer_max`. Settles the window scale, which is why it should be set before the connection is opened.
    rcvbuf: Option<u32> = None => Rcvbuf,
    /// Most bytes that may wait to be sent or acknowledged; autotuning stays under it (`tcp_wmem`).
    send_buffer_max: u32 = 15 << 20 => SendBufferMax,
    /// Most bytes that may wait to be read; autotuning stays under it, the window scale follows it (`tcp_rmem`).
    recv_buffer_max: u32 = 15 << 20 => RecvBufferMax,
    /// The socket is readable only when so many bytes wait, or the stream ended (`SO_RCVLOWAT`); at least 1.
    rcvlowat: u32 = 1 => Rcvlowat,
    /// Retransmissions of a SYN before `connect` fails (`TCP_SYNCNT`), 1 to 127; `None`: the stack's.
    syncnt: Option<u8> = None => Syncnt,
    /// Retransmission timeouts of a thin stream do not back off, six times (`TCP_THIN_LINEAR_TIMEOUTS`).
    thin_linear_timeouts: bool = false => ThinLinearTimeouts,
    /// Bytes a second that each subflow sends at most (`SO_MAX_PACING_RATE`); `None`: no bound.
    max_pacing_rate: Option<u64> = None => MaxPacingRate,
    /// Pace also what congestion control leaves to the window, at the rates that the kernel uses (2 × cwnd / srtt in slow
    /// start, 1.2 × after), as its `fq` does. BBR and `max_pacing_rate` pace in any case.
    pacing: bool = false => Pacing,
    /// Type of service, or traffic class, of packets sent (`IP_TOS`, `IPV6_TCLASS`), without the two ECN bits.
    tos: u8 = 0 => Tos,
    /// TCP Fast Open (RFC 7413). On a listener: how many connections may wait whose SYN brought data and whose third
    /// ACK has not come (`TCP_FASTOPEN`); 0: such data is not taken.
    fastopen: u32 = 0 => Fastopen,
    /// Keys of a listener's cookies (`TCP_FASTOPEN_KEY`); `None`: the stack's.
    fastopen_keys: Option<FastOpenKeys> = None => FastopenKeys,
    /// Connect at once and send the SYN with the first data, if a cookie for the peer is known; else ask for one
    /// (`TCP_FASTOPEN_CONNECT`). The application must be the one to speak first.
    fastopen_connect: bool = false => FastopenConnect,
    /// Send and take data in SYNs without a cookie (`TCP_FASTOPEN_NO_COOKIE`): only where addresses cannot be forged.
    fastopen_no_cookie: bool = false => FastopenNoCookie,
    /// Time to live, or hop limit, of packets sent (`IP_TTL`, `IPV6_UNICAST_HOPS`), at least 1.
    hop_limit: u8 = 64 => HopLimit,
    /// Give each flow over IPv6 a flow label (`IPV6_AUTOFLOWLABEL`); otherwise 0.
    autoflowlabel: bool = true => Autoflowlabel,
    /// Explicit congestion notification (`tcp_ecn`, RFC 3168). Settled when the connection is opened.
    ecn: Ecn = Ecn::Accept => Ecn,
}

/// Whether ECN is spoken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Ecn {
    /// Not at all.
    Off,
    /// If the peer asks for it.
    #[default]
    Accept,
    /// Asked for, and accepted.
    Request,
}

const SECOND: Duration = Duration::from_secs(1);
/// Longest time of keepalive.
const KEEP_MAX: Duration = Duration::from_secs(32_767);
/// Longest time in FIN-WAIT-2 (Linux: `TCP_FIN_TIMEOUT_MAX`).
const LINGER2_MAX: Duration = Duration::from_secs(120);
/// Largest buffer: what the window field can express.
const BUFFER_MAX: u32 = 1 << 30;
/// Least buffers of a socket that chooses them (Linux: half of `SOCK_MIN_SNDBUF` and `SOCK_MIN_RCVBUF`).
const SNDBUF_MIN: u32 = 2_048;
const RCVBUF_MIN: u32 = 1_152;

impl SocketOptions {
    /// Changes one option. Buffers and clamps below what a connection needs to work are raised to that, as the
    /// kernel does.
    ///
    /// # Errors
    /// [`Error::BadOption`] for a value out of range, [`Error::UnknownName`].
    pub fn set(&mut self, option: SockOpt) -> Result<(), Error> {
        check(&option)?;
        self.assign(match option {
            SockOpt::Sndbuf(Some(bytes)) => SockOpt::Sndbuf(Some(bytes.clamp(SNDBUF_MIN, BUFFER_MAX))),
            SockOpt::Rcvbuf(Some(bytes)) => SockOpt::Rcvbuf(Some(bytes.clamp(RCVBUF_MIN, BUFFER_MAX))),
            SockOpt::WindowClamp(Some(bytes)) => SockOpt::WindowClamp(Some(bytes.max(RCVBUF_MIN))),
            SockOpt::Rcvlowat(bytes) => SockOpt::Rcvlowat(bytes.max(1)),
            SockOpt::Tos(tos) => SockOpt::Tos(tos & !0b11),
            SockOpt::Linger2(time) => SockOpt::Linger2(time.map(|time| time.min(LINGER2_MAX))),
            option => option,
        });
        Ok(())
    }

    /// Whether every option has a value that may be: for whoever filled in the fields.
    ///
    /// # Errors
    /// Those of [`set`](Self::set).
    pub fn check(&self) -> Result<(), Error> {
        sched::by_name(&self.scheduler)?;
        pm::by_name(&self.path_manager)?;
        cc::by_name(&self.congestion, 1)?;
        for option in [
            SockOpt::Keepidle(self.keepidle),
            SockOpt::Keepintvl(self.keepintvl),
            SockOpt::Keepcnt(self.keepcnt),
            SockOpt::MaxSeg(self.max_seg),
            SockOpt::Syncnt(self.syncnt),
            SockOpt::SendBufferMax(self.send_buffer_max),
            SockOpt::RecvBufferMax(self.recv_buffer_max),
            SockOpt::MaxPacingRate(self.max_pacing_rate),
            SockOpt::HopLimit(self.hop_limit),
        ] {
            check(&option)?;
        }
        Ok(())
    }

    /// Most bytes that may wait to be read, whether the buffer is fixed or not: the window scale follows it.
    pub(crate) fn recv_max(&self) -> u64 {
        u64::from(self.rcvbuf.unwrap_or(self.recv_buffer_max))
    }

    /// Most bytes that may wait to be sent.
    pub(crate) fn send_max(&self) -> u64 {
        u64::from(self.sndbuf.unwrap_or(self.send_buffer_max))
    }
}

/// Refuses what the kernel refuses.
fn check(option: &SockOpt) -> Result<(), Error> {
    let bad = |problem| Err(Error::BadOption { option: option.name(), problem });
    match option {
        SockOpt::Scheduler(name) => sched::by_name(name).map(|_| ()),
        SockOpt::PathManager(name) => pm::by_name(name).map(|_| ()),
        SockOpt::Congestion(name) => cc::by_name(name, 1).map(|_| ()),
        SockOpt::Keepidle(time) | SockOpt::Keepintvl(time) if !(SECOND..=KEEP_MAX).contains(time) => {
            bad("give 1 s to 32,767 s")
        }
        SockOpt::Keepcnt(count) | SockOpt::Syncnt(Some(count)) if !(1..=127).contains(count) => bad("give 1 to 127"),
        SockOpt::MaxSeg(Some(bytes)) if !(88..=32_767).contains(bytes) => bad("give 88 to 32,767 bytes"),
        SockOpt::SendBufferMax(bytes) | SockOpt::RecvBufferMax(bytes) if !(1..=BUFFER_MAX).contains(bytes) => {
            bad("give at most 1 GiB, and not nothing")
        }
        SockOpt::HopLimit(0) => bad("give at least 1"),
        SockOpt::MaxPacingRate(Some(0)) => bad("give at least a byte a second"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(SocketOptions::default().check(), Ok(()));
    }

    #[test]
    fn what_is_out_of_range_is_refused_by_name_and_changes_nothing() {
        for option in [
            SockOpt::Keepidle(Duration::ZERO),
            SockOpt::Keepintvl(Duration::from_secs(32_768)),
            SockOpt::Keepcnt(0),
            SockOpt::Syncnt(Some(128)),
            SockOpt::MaxSeg(Some(87)),
            SockOpt::RecvBufferMax(0),
            SockOpt::HopLimit(0),
            SockOpt::MaxPacingRate(Some(0)),
        ] {
            let mut options = SocketOptions::default();
            let (name, result) = (option.name(), options.set(option));
            assert!(matches!(result, Err(Error::BadOption { option, .. }) if option == name), "{name}: {result:?}");
            assert_eq!(options, SocketOptions::default());
        }
        let unknown = SocketOptions::default().set(SockOpt::Congestion("best".into()));
        assert!(matches!(unknown, Err(Error::UnknownName { .. })));
    }

    #[test]
    fn values_that_the_kernel_corrects_are_corrected() {
        let mut options = SocketOptions::default();
        for option in [
            SockOpt::Rcvbuf(Some(1)),
            SockOpt::Sndbuf(Some(u32::MAX)),
            SockOpt::WindowClamp(Some(1)),
            SockOpt::Rcvlowat(0),
            SockOpt::Tos(0xff),
            SockOpt::Linger2(Some(Duration::from_secs(1000))),
        ] {
            options.set(option).unwrap();
        }
        assert_eq!((options.rcvbuf, options.sndbuf), (Some(RCVBUF_MIN), Some(BUFFER_MAX)));
        assert_eq!((options.window_clamp, options.rcvlowat, options.tos), (Some(RCVBUF_MIN), 1, 0xfc));
        assert_eq!(options.linger2, Some(LINGER2_MAX));
    }
}
