//! Socket options.

use std::os::fd::RawFd;
use std::time::Duration;

use anabranch_core::{SockOpt, SocketOptions};

use crate::address::Family;
use crate::errno::{Errno, Result};
use crate::info;
use crate::socket::{Socket, Stage};
use crate::value::{self, Given};
use crate::world::World;

/// Options that the C library's bindings lack.
const TCP_CC_INFO: i32 = 26;
const TCP_FASTOPEN_KEY: i32 = 33;
const TCP_FASTOPEN_NO_COOKIE: i32 = 34;
const SO_MEMINFO: i32 = 55;
const IPV6_AUTOFLOWLABEL: i32 = 70;
const SOL_MPTCP: i32 = 284;
const MPTCP_INFO: i32 = 1;
/// Last of the options of TCP (Linux 6.18).
const TCP_LAST: i32 = 47;
/// `IPPROTO_MPTCP`.
const MPTCP: i32 = 262;
/// Least buffers (`SOCK_MIN_SNDBUF`, `SOCK_MIN_RCVBUF`).
const SNDBUF_MIN: u64 = 4608;
const RCVBUF_MIN: u32 = 2304;
/// MSS of a socket without a connection (`TCP_MSS_DEFAULT`).
const MSS_DEFAULT: u16 = 536;

impl World {
    /// `getsockopt`: the bytes of the value, of which the caller gets as many as it has room for.
    pub(crate) fn get_option(&mut self, fd: RawFd, level: i32, name: i32) -> Result<Vec<u8>> {
        self.socket(fd)?;
        match (level, name) {
            (libc::SOL_SOCKET, SO_MEMINFO) => return Ok(info::meminfo(self, fd)),
            (libc::IPPROTO_TCP, libc::TCP_INFO) => return Ok(info::tcp_info(self, fd)),
            (libc::IPPROTO_TCP, TCP_CC_INFO) => return Ok(Vec::new()),
            (libc::IPPROTO_TCP, libc::TCP_MAXSEG) => return Ok(value::int(self.segment_size(fd)?.into())),
            (SOL_MPTCP, MPTCP_INFO) => return info::mptcp_info(self, fd).ok_or(Errno(libc::EOPNOTSUPP)),
            (libc::IPPROTO_IP, libc::IP_MTU) | (libc::IPPROTO_IPV6, libc::IPV6_MTU) => {
                let conn = self.socket(fd)?.conn().ok_or(Errno::NOT_CONNECTED)?;
                let subflows = self.shard.subflows(conn).ok_or(Errno::NOT_CONNECTED)?;
                return Ok(value::int(subflows.first().map_or(0, |subflow| subflow.pmtu).into()));
            }
            _ => {}
        }
        if let Some(conn) = self.socket(fd)?.conn()
            && let Some(options) = self.shard.options(conn)
        {
            self.socket(fd)?.options = options;
        }
        let socket = self.socket(fd)?;
        if let Some(value) = read_own(socket, level, name).or_else(|| read(&socket.options, level, name)) {
            return Ok(value);
        }
        match socket.values.get(&(level, name)) {
            Some(value) => Ok(value.clone()),
            None if is_known(level, name) => Ok(value::int(0)),
            None => Err(Errno::NO_OPTION),
        }
    }

    /// `TCP_MAXSEG`: what was asked for until there is a connection, then what is sent.
    fn segment_size(&mut self, fd: RawFd) -> Result<u16> {
        let socket = self.socket(fd)?;
        let asked = socket.options.max_seg.unwrap_or(MSS_DEFAULT);
        let Some(conn) = socket.conn() else { return Ok(asked) };
        let subflows = self.shard.subflows(conn).unwrap_or_default();
        Ok(subflows.first().map_or(asked, |subflow| subflow.snd_mss))
    }

    /// `setsockopt`.
    pub(crate) fn set_option(&mut self, fd: RawFd, level: i32, name: i32, bytes: &[u8]) -> Result<()> {
        let value = Given(bytes);
        if self.set_own(fd, level, name, value)? {
            return Ok(());
        }
        if let Some(option) = parse(level, name, value)? {
            return self.apply(fd, option);
        }
        if !is_known(level, name) {
            return Err(Errno::NO_OPTION);
        }
        self.socket(fd)?.values.insert((level, name), bytes.to_vec());
        Ok(())
    }

    /// Tells the stack.
    fn apply(&mut self, fd: RawFd, option: SockOpt) -> Result<()> {
        let now = self.now();
        let (client, live) = (self.settings.handshake.fastopen.client, self.socket(fd)?.conn().is_some());
        if let SockOpt::FastopenConnect(_) = option {
            let idle = self.socket(fd)?.stage == Stage::Idle;
            match (client, idle) {
                (false, _) => return Err(Errno(libc::EOPNOTSUPP)),
                (_, false) => return Err(Errno::INVALID),
                _ => {}
            }
        }
        let socket = self.socket(fd)?;
        socket.options.set(option.clone()).map_err(|_| Errno::INVALID)?;
        match socket.stage.clone() {
            Stage::Listening(ids) => {
                for id in ids {
                    self.shard.set_listener_option(id, option.clone())?;
                }
            }
            Stage::Connecting(conn) | Stage::Connected(conn) if live => {
                // What was settled when the connection was opened is kept for the next one.
                let _ = self.shard.set_option(now, conn, option);
            }
            _ => {}
        }
        Ok(())
    }

    /// Options that are the socket's own business. Whether this is one.
    fn set_own(&mut self, fd: RawFd, level: i32, name: i32, value: Given<'_>) -> Result<bool> {
        let lowat = self.settings.tcp_notsent_lowat;
        let socket = self.socket(fd)?;
        match (level, name) {
            (libc::IPPROTO_TCP, libc::TCP_INQ) => socket.tells_unread = value.boolean()?,
            (libc::SOL_SOCKET, libc::SO_RCVTIMEO) => socket.receive_timeout = value.time()?,
            (libc::SOL_SOCKET, libc::SO_SNDTIMEO) => socket.send_timeout = value.time()?,
            (libc::SOL_SOCKET, libc::SO_SNDBUF | libc::SO_SNDBUFFORCE) => {
                let bytes = value.number()?.max(0) as u32;
                socket.send_buffer.settle((2 * u64::from(bytes)).max(SNDBUF_MIN));
                // The stack has its own limit, which is not to be the narrower one.
                self.apply(fd, SockOpt::Sndbuf(Some(bytes.saturating_mul(2).max(SNDBUF_MIN as u32))))?;
            }
            (libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT) => {
                let asked = value.number()? as u32;
                socket.send_buffer.set_notsent_lowat(if asked == 0 { lowat } else { asked }.into());
                socket.values.insert((level, name), value.0.to_vec());
            }
            (libc::SOL_SOCKET, libc::SO_ZEROCOPY) => match value.number()? {
                on @ (0 | 1) => socket.errors.zerocopy = on == 1,
                _ => return Err(Errno::INVALID),
            },
            (libc::SOL_SOCKET, libc::SO_TIMESTAMPING) => {
                let (flags, written) = (value.number()? as u32, socket.send_buffer.written());
                let conn = socket.conn();
                let acked = conn.and_then(|conn| self.shard.info(conn)).map_or(0, |info| info.bytes_acked);
                self.socket(fd)?.errors.set_timestamping(flags, written, acked);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Whether an option that means nothing to this stack exists in the kernel.
fn is_known(level: i32, name: i32) -> bool {
    match level {
        libc::SOL_SOCKET | libc::IPPROTO_IP | libc::IPPROTO_IPV6 => true,
        libc::IPPROTO_TCP => (1..=TCP_LAST).contains(&name),
        _ => false,
    }
}

/// Options that are the socket's own business.
fn read_own(socket: &mut Socket, level: i32, name: i32) -> Option<Vec<u8>> {
    Some(match (level, name) {
        (libc::SOL_SOCKET, libc::SO_ERROR) => value::int(socket.take_error().map_or(0, |error| error.0)),
        (libc::SOL_SOCKET, libc::SO_TYPE) => value::int(libc::SOCK_STREAM),
        (libc::SOL_SOCKET, libc::SO_DOMAIN) => {
            value::int(if socket.family == Family::V4 { libc::AF_INET } else { libc::AF_INET6 })
        }
        (libc::SOL_SOCKET, libc::SO_PROTOCOL) => {
            value::int(if socket.options.mptcp { MPTCP } else { libc::IPPROTO_TCP })
        }
        (libc::SOL_SOCKET, libc::SO_ACCEPTCONN) => value::int(matches!(socket.stage, Stage::Listening(_)).into()),
        (libc::SOL_SOCKET, libc::SO_SNDBUF) => value::int(socket.send_buffer.limit() as i32),
        (libc::SOL_SOCKET, libc::SO_ZEROCOPY) => value::int(socket.errors.zerocopy.into()),
        (libc::SOL_SOCKET, libc::SO_TIMESTAMPING) => value::int(socket.errors.timestamping as i32),
        (libc::SOL_SOCKET, libc::SO_RCVTIMEO) => value::timeval(socket.receive_timeout),
        (libc::SOL_SOCKET, libc::SO_SNDTIMEO) => value::timeval(socket.send_timeout),
        (libc::IPPROTO_TCP, libc::TCP_INQ) => value::int(socket.tells_unread.into()),
        _ => return None,
    })
}

/// An option of the stack's.
fn read(options: &SocketOptions, level: i32, name: i32) -> Option<Vec<u8>> {
    Some(match (level, name) {
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE) => value::int(options.keepalive.into()),
        (libc::SOL_SOCKET, libc::SO_RCVLOWAT) => value::int(options.rcvlowat as i32),
        (libc::SOL_SOCKET, libc::SO_RCVBUF) => {
            value::int(options.rcvbuf.map_or(options.recv_buffer_max, |bytes| 2 * bytes) as i32)
        }
        (libc::SOL_SOCKET, libc::SO_LINGER) => value::linger(options.linger),
        (libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE) => value::rate(options.max_pacing_rate),
        (libc::IPPROTO_TCP, libc::TCP_NODELAY) => value::int(options.nodelay.into()),
        (libc::IPPROTO_TCP, libc::TCP_CORK) => value::int(options.cork.into()),
        (libc::IPPROTO_TCP, libc::TCP_QUICKACK) => value::int(options.quickack.into()),
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE) => value::seconds(options.keepidle),
        (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL) => value::seconds(options.keepintvl),
        (libc::IPPROTO_TCP, libc::TCP_KEEPCNT) => value::int(options.keepcnt.into()),
        (libc::IPPROTO_TCP, libc::TCP_SYNCNT) => value::int(options.syncnt?.into()),
        (libc::IPPROTO_TCP, libc::TCP_LINGER2) => options.linger2.map_or(value::int(-1), value::seconds),
        (libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT) => value::seconds(options.defer_accept),
        (libc::IPPROTO_TCP, libc::TCP_WINDOW_CLAMP) => value::int(options.window_clamp.unwrap_or(0) as i32),
        (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT) => {
            value::int(options.user_timeout.map_or(0, |time| time.as_millis()) as i32)
        }
        (libc::IPPROTO_TCP, libc::TCP_CONGESTION) => value::text(&options.congestion),
        (libc::IPPROTO_TCP, libc::TCP_THIN_LINEAR_TIMEOUTS) => value::int(options.thin_linear_timeouts.into()),
        (libc::IPPROTO_TCP, libc::TCP_FASTOPEN) => value::int(options.fastopen as i32),
        (libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT) => value::int(options.fastopen_connect.into()),
        (libc::IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE) => value::int(options.fastopen_no_cookie.into()),
        (libc::IPPROTO_TCP, TCP_FASTOPEN_KEY) => value::keys(&options.fastopen_keys?),
        (libc::IPPROTO_IP, libc::IP_TOS) | (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => value::int(options.tos.into()),
        (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS) => {
            value::int(options.hop_limit.into())
        }
        (libc::IPPROTO_IPV6, IPV6_AUTOFLOWLABEL) => value::int(options.autoflowlabel.into()),
        _ => return None,
    })
}

/// An option of the stack's, from what the caller gave.
fn parse(level: i32, name: i32, value: Given<'_>) -> Result<Option<SockOpt>> {
    let seconds =
        || value.number().and_then(|secs| u64::try_from(secs).map_err(|_| Errno::INVALID)).map(Duration::from_secs);
    let byte = || value.number().and_then(|number| u8::try_from(number).map_err(|_| Errno::INVALID));
    let length = || value.number().map(|number| number.max(0) as u32);
    Ok(Some(match (level, name) {
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE) => SockOpt::Keepalive(value.boolean()?),
        (libc::SOL_SOCKET, libc::SO_RCVLOWAT) => SockOpt::Rcvlowat(length()?),
        (libc::SOL_SOCKET, libc::SO_RCVBUF | libc::SO_RCVBUFFORCE) => {
            SockOpt::Rcvbuf(Some(length()?.max(RCVBUF_MIN / 2)))
        }
        (libc::SOL_SOCKET, libc::SO_LINGER) => SockOpt::Linger(value.linger()?),
        (libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE) => SockOpt::MaxPacingRate(value.rate()?),
        (libc::IPPROTO_TCP, libc::TCP_NODELAY) => SockOpt::Nodelay(value.boolean()?),
        (libc::IPPROTO_TCP, libc::TCP_CORK) => SockOpt::Cork(value.boolean()?),
        (libc::IPPROTO_TCP, libc::TCP_QUICKACK) => SockOpt::Quickack(value.boolean()?),
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE) => SockOpt::Keepidle(seconds()?),
        (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL) => SockOpt::Keepintvl(seconds()?),
        (libc::IPPROTO_TCP, libc::TCP_KEEPCNT) => SockOpt::Keepcnt(byte()?),
        (libc::IPPROTO_TCP, libc::TCP_SYNCNT) => SockOpt::Syncnt(Some(byte()?)),
        (libc::IPPROTO_TCP, libc::TCP_LINGER2) => {
            SockOpt::Linger2(u64::try_from(value.number()?).ok().map(Duration::from_secs))
        }
        (libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT) => SockOpt::DeferAccept(seconds()?),
        (libc::IPPROTO_TCP, libc::TCP_WINDOW_CLAMP) => SockOpt::WindowClamp(Some(length()?).filter(|&bytes| bytes > 0)),
        (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT) => match value.number()? {
            ms if ms < 0 => return Err(Errno::INVALID),
            ms => SockOpt::UserTimeout(Some(Duration::from_millis(ms as u64)).filter(|time| !time.is_zero())),
        },
        (libc::IPPROTO_TCP, libc::TCP_MAXSEG) => match value.number()? {
            0 => SockOpt::MaxSeg(None),
            bytes => SockOpt::MaxSeg(Some(u16::try_from(bytes).map_err(|_| Errno::INVALID)?)),
        },
        (libc::IPPROTO_TCP, libc::TCP_CONGESTION) => SockOpt::Congestion(value.text()?),
        (libc::IPPROTO_TCP, libc::TCP_THIN_LINEAR_TIMEOUTS) => SockOpt::ThinLinearTimeouts(value.boolean()?),
        (libc::IPPROTO_TCP, libc::TCP_FASTOPEN) => SockOpt::Fastopen(length()?),
        (libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT) => match value.number()? {
            on @ (0 | 1) => SockOpt::FastopenConnect(on == 1),
            _ => return Err(Errno::INVALID),
        },
        (libc::IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE) => match value.number()? {
            on @ (0 | 1) => SockOpt::FastopenNoCookie(on == 1),
            _ => return Err(Errno::INVALID),
        },
        (libc::IPPROTO_TCP, TCP_FASTOPEN_KEY) => SockOpt::FastopenKeys(Some(value.keys()?)),
        (libc::IPPROTO_IP, libc::IP_TOS) | (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
            SockOpt::Tos(value.small()?.max(0) as u8)
        }
        (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS) => match value.small()? {
            -1 => SockOpt::HopLimit(64),
            hops => SockOpt::HopLimit(u8::try_from(hops).map_err(|_| Errno::INVALID)?),
        },
        (libc::IPPROTO_IPV6, IPV6_AUTOFLOWLABEL) => SockOpt::Autoflowlabel(value.boolean()?),
        _ => return Ok(None),
    }))
}
