//! TCP Fast Open (RFC 7413): what a worker knows of servers, and how many clients it trusts that have not yet shown that
//! their addresses are theirs.

use alloc::collections::{BTreeMap, VecDeque};
use core::net::IpAddr;
use core::time::Duration;

use anabranch_frame::Instant;

use crate::Counters;
use crate::config::{FastOpenConfig, FastOpenKeys};
use crate::options::SocketOptions;
use crate::tcp::{fast_open_cookie, fast_open_key};
use crate::wire::{FastOpen, MptcpOption, Segment, Tuple};

use super::known::{Aging, Known};

/// A client that reset its connection counts against the listener's limit for so long: whoever forges addresses makes
/// their owners send resets (RFC 7413 §5.1).
const RESET_COUNTS: Duration = Duration::from_secs(60);
/// No data is sent to a server for this time, doubled each time, when a second SYN with data in a row got lost
/// (RFC 7413 §4.1.3.1).
const LOSS_PAUSE: Duration = Duration::from_secs(60);
/// Pauses are doubled so often at most.
const DOUBLED_MAX: u32 = 6;
/// A cookie that fits beside MP_CAPABLE and timestamps on a SYN/ACK (RFC 8684 appendix B.1).
const MPTCP_COOKIE: usize = 4;

/// What is known of a server (RFC 7413 §4.1.3).
#[derive(Clone, Copy, Debug, Default)]
struct Server {
    /// Its MSS, without options.
    mss: Option<u16>,
    cookie: Option<FastOpen>,
    /// 1: it did not answer a request, so the experimental option is tried; 2: nor that one, so it is not tried again.
    experimental: u8,
    /// SYNs with data that got lost in a row, and when the last one did.
    lost: (u32, Instant),
    /// When it was last asked for, in calls.
    used: u64,
}

impl Aging for Server {
    type Since = u64;

    fn since(&self) -> u64 {
        self.used
    }
}

/// What the first SYN of an active open may carry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Offer {
    /// Data, with this cookie if it takes one; the server's MSS if that is known.
    Data(Option<FastOpen>, Option<u16>),
    /// The request for a cookie, or nothing.
    Request(Option<FastOpen>),
}

/// How a SYN for a listener is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// As any other, with a cookie if one is due.
    Ordinary(Option<FastOpen>),
    /// With a connection at once, and a cookie if the client's is to be replaced.
    Open(Option<FastOpen>),
}

/// What the SYN/ACK of an active open said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heard {
    /// The peer's MSS.
    pub(crate) mss: u16,
    /// The cookie, if there was one.
    pub(crate) cookie: Option<FastOpen>,
    /// The option that stood on our SYN.
    pub(crate) asked: Option<FastOpen>,
    /// Our SYN carried data.
    pub(crate) data: bool,
    /// Not all of it is acknowledged.
    pub(crate) unacked: bool,
    /// The SYN was repeated, without data and option.
    pub(crate) repeated: bool,
}

/// Connections of a listener that are open before their handshake is finished.
#[derive(Debug, Default)]
struct Pending {
    open: u32,
    /// Until when those count that their clients reset.
    reset: VecDeque<Instant>,
}

/// Fast Open of one worker.
#[derive(Debug)]
pub(crate) struct FastOpens {
    key: FastOpenKeys,
    /// By our address and theirs. The one that was not asked for the longest time is forgotten first.
    servers: Known<(IpAddr, IpAddr), Server>,
    calls: u64,
    /// How often a path was found to swallow connections with data in the SYN, and when it last was.
    swallowed: (u32, Instant),
    pending: BTreeMap<u32, Pending>,
}

impl FastOpens {
    pub(crate) fn new(isn_key: &[u8; 16]) -> Self {
        Self {
            key: FastOpenKeys { primary: fast_open_key(isn_key), backup: None },
            servers: Known::default(),
            calls: 0,
            swallowed: (0, Instant::ZERO),
            pending: BTreeMap::new(),
        }
    }

    // --- client ----------------------------------------------------------------------------------

    /// What a SYN of ours may carry (RFC 7413 §4.2.1).
    pub(crate) fn offer(&mut self, now: Instant, config: &FastOpenConfig, no_cookie: bool, tuple: &Tuple) -> Offer {
        if !config.client || self.pauses(now, config.blackhole_timeout) {
            return Offer::Request(None);
        }
        self.calls += 1;
        let known = self.servers.get_mut(&(tuple.local.ip(), tuple.remote.ip()));
        let server = known.map(|server| {
            server.used = self.calls;
            *server
        });
        let Server { mss, cookie, experimental, lost: (lost, at), .. } = server.unwrap_or_default();
        if lost > 1 && now.saturating_since(at) < LOSS_PAUSE * (1 << lost.min(DOUBLED_MAX)) {
            return Offer::Request(None);
        }
        if no_cookie || config.client_no_cookie {
            return Offer::Data(None, mss);
        }
        match cookie {
            Some(cookie) => Offer::Data(Some(cookie), mss),
            None => Offer::Request(Some(FastOpen::REQUEST.in_form(experimental == 1))),
        }
    }

    /// Remembers what a server's SYN/ACK said (RFC 7413 §4.1.3). A cookie that nobody asked for is none.
    pub(crate) fn learn(&mut self, now: Instant, tuple: &Tuple, heard: &Heard) {
        let addrs = (tuple.local.ip(), tuple.remote.ip());
        let server = self.servers.get_or_default(addrs);
        server.used = self.calls;
        server.mss = Some(heard.mss);
        let cookie = heard.cookie.filter(|cookie| heard.asked.is_some() && !cookie.is_request());
        match (cookie, heard.asked) {
            (Some(_), _) => server.cookie = cookie,
            (None, Some(asked)) if !heard.repeated && !heard.data && server.cookie.is_none() => {
                server.experimental = server.experimental.max(if asked.experimental { 2 } else { 1 });
            }
            (None, _) => {}
        }
        // Only the plain SYN was answered: the one with data, or its answer, got lost.
        server.lost = match server.lost {
            (lost, _) if cookie.is_none() && heard.repeated && heard.unacked => (lost.saturating_add(1), now),
            _ => (0, Instant::ZERO),
        };
    }

    /// Forgets all servers.
    pub(crate) fn forget(&mut self) {
        self.servers.clear();
    }

    /// Whether no data is sent in SYNs for now.
    fn pauses(&self, now: Instant, timeout: Duration) -> bool {
        let (times, at) = self.swallowed;
        times > 0 && now.saturating_since(at) < timeout * (1 << (times - 1).min(DOUBLED_MAX))
    }

    /// A path let a handshake with Fast Open pass and swallows what follows, as some middleboxes do.
    pub(crate) fn note_swallowed(&mut self, now: Instant, config: &FastOpenConfig, counters: &mut Counters) {
        if !config.blackhole_timeout.is_zero() {
            self.swallowed = (self.swallowed.0.saturating_add(1), now);
            counters.tcp_fastopen_blackhole += 1;
        }
    }

    /// A connection with Fast Open went well to its end.
    pub(crate) fn note_well(&mut self) {
        self.swallowed = (0, Instant::ZERO);
    }

    // --- server ----------------------------------------------------------------------------------

    /// How to answer a SYN (RFC 7413 §4.2.2).
    pub(crate) fn answer(
        &mut self,
        now: Instant,
        config: &FastOpenConfig,
        (listener, options): (u32, &SocketOptions),
        segment: &Segment,
        counters: &mut Counters,
    ) -> Answer {
        let told = segment.options.fast_open;
        counters.tcp_fastopen_cookie_reqd += u64::from(told.is_some_and(|told| told.is_request()));
        let wanted = config.server && (told.is_some() || !segment.payload.is_empty());
        if !wanted || !self.admits(now, listener, options.fastopen, counters) {
            return Answer::Ordinary(None);
        }
        if config.server_no_cookie || options.fastopen_no_cookie {
            return Answer::Open(None);
        }
        let Some(told) = told else { return Answer::Ordinary(None) };
        let keys = options.fastopen_keys.or(config.keys).unwrap_or(self.key);
        let mptcp = segment.options.mptcp.iter().any(|option| matches!(option, MptcpOption::Capable(_)));
        let len = if mptcp { MPTCP_COOKIE } else { 8 };
        let good = |key: &[u8; 16]| {
            let cookie = fast_open_cookie(key, &segment.tuple);
            told.cookie().len() == len && crate::mptcp::same(&cookie[..len], told.cookie())
        };
        let cookie = fast_open_cookie(&keys.primary, &segment.tuple);
        let fresh = FastOpen::new(&cookie[..len], told.experimental);
        if told.is_request() {
            return Answer::Ordinary(fresh);
        }
        if good(&keys.primary) {
            return Answer::Open(None);
        }
        if keys.backup.as_ref().is_some_and(good) {
            counters.tcp_fastopen_passive_alt_key += 1;
            return Answer::Open(fresh);
        }
        counters.tcp_fastopen_passive_fail += 1;
        Answer::Ordinary(fresh)
    }

    /// Whether another connection may be opened before its handshake is finished (RFC 7413 §5.1).
    fn admits(&mut self, now: Instant, listener: u32, most: u32, counters: &mut Counters) -> bool {
        if most == 0 {
            return false;
        }
        let Some(pending) = self.pending.get_mut(&listener) else { return true };
        while pending.reset.front().is_some_and(|until| *until <= now) {
            pending.reset.pop_front();
        }
        let admits = pending.open as usize + pending.reset.len() < most as usize;
        counters.tcp_fastopen_listen_overflow += u64::from(!admits);
        admits
    }

    /// A connection was opened.
    pub(crate) fn opened(&mut self, listener: u32) {
        self.pending.entry(listener).or_default().open += 1;
    }

    /// A connection that was opened finished its handshake, or is gone; `reset` if its client did not want it.
    pub(crate) fn settled(&mut self, now: Instant, listener: u32, reset: bool) {
        if let Some(pending) = self.pending.get_mut(&listener) {
            pending.open = pending.open.saturating_sub(1);
            if reset {
                pending.reset.push_back(now + RESET_COUNTS);
            }
        }
    }

    /// The listener is closed.
    pub(crate) fn remove(&mut self, listener: u32) {
        self.pending.remove(&listener);
    }
}
