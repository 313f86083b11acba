use core::net::SocketAddr;
use core::time::Duration;
use std::collections::BTreeMap;

use anabranch_core::shard::{Read, Shutdown};
use anabranch_core::{ConnId, ConnInfo, Error, Event, SocketOptions, SubflowInfo, WorkerId};
use anabranch_frame::{Instant, Payload};
use sha2::{Digest, Sha256};

use crate::{Application, HostCtx, Pattern};

/// Most bytes written in one go.
const CHUNK: usize = 64 * 1024;

/// How often a reader of a limited rate looks.
const READ_TICK: Duration = Duration::from_millis(5);

/// Streams of pseudo-random bytes, each way, checked by the receiver.
///
/// As a client it opens one connection, as a server it accepts any number; what it does is the same
/// on each: it sends so many bytes, checks what comes, and closes. Bulk sender, sink and both at once.
#[derive(Debug)]
pub struct Transfer {
    role: Role,
    options: SocketOptions,
    backlog: usize,
    sends: u64,
    close_when_sent: Option<bool>,
    sent_pattern: u64,
    expected_pattern: u64,
    read_rate: Option<u64>,
    hashed: bool,
    flows: Vec<Flow>,
    by_conn: BTreeMap<(WorkerId, ConnId), usize>,
}

#[derive(Debug)]
enum Role {
    Connect { local: Option<SocketAddr>, remote: SocketAddr },
    Listen(SocketAddr),
}

/// What came in on a connection.
#[derive(Clone, Debug)]
pub struct Received {
    /// Bytes.
    pub bytes: u64,
    /// Offset of the first byte that was not what the peer sent.
    pub wrong_at: Option<u64>,
    /// When the first byte came.
    pub first_at: Option<Instant>,
    /// When the last one came.
    pub last_at: Option<Instant>,
    /// Longest time between two deliveries.
    pub longest_gap: Duration,
    pattern: Pattern,
    hash: Option<Sha256>,
}

impl Received {
    fn new(pattern: u64, hashed: bool) -> Self {
        Self {
            bytes: 0,
            wrong_at: None,
            first_at: None,
            last_at: None,
            longest_gap: Duration::ZERO,
            pattern: Pattern::new(pattern),
            hash: hashed.then(Sha256::new),
        }
    }

    fn take(&mut self, now: Instant, data: &[u8]) {
        if self.wrong_at.is_none() {
            self.wrong_at = self.pattern.mismatch(data).map(|at| self.bytes + at as u64);
        }
        if let Some(hash) = &mut self.hash {
            hash.update(data);
        }
        self.bytes += data.len() as u64;
        self.longest_gap = self.longest_gap.max(self.last_at.map_or(Duration::ZERO, |last| now - last));
        self.first_at.get_or_insert(now);
        self.last_at = Some(now);
    }

    /// SHA-256 of what came, if the application was asked to compute it.
    #[must_use]
    pub fn sha256(&self) -> Option<[u8; 32]> {
        self.hash.clone().map(|hash| hash.finalize().into())
    }

    /// Bits per second between the first and the last delivery; 0 if there were not two.
    #[must_use]
    pub fn rate(&self) -> f64 {
        let (Some(first), Some(last)) = (self.first_at, self.last_at) else { return 0.0 };
        let seconds = (last - first).as_secs_f64();
        if seconds > 0.0 { self.bytes as f64 * 8.0 / seconds } else { 0.0 }
    }
}

/// One connection of a [`Transfer`].
#[derive(Clone, Debug)]
pub struct Flow {
    /// Its worker and handle there.
    pub conn: (WorkerId, ConnId),
    /// When it was opened or accepted.
    pub opened_at: Instant,
    /// When it was established, as far as this side knows.
    pub connected_at: Option<Instant>,
    /// Bytes written so far.
    pub sent: u64,
    /// When the last byte was written.
    pub sent_at: Option<Instant>,
    /// What was received so far.
    pub received: Received,
    /// When the end of the peer's stream was read.
    pub eof_at: Option<Instant>,
    /// When it was over, and the error if it broke.
    pub closed: Option<(Instant, Option<Error>)>,
    /// Subflows that came up.
    pub subflows_up: usize,
    /// Subflows that went away.
    pub subflows_down: usize,
    /// The connection when the end of the stream was read, or when it broke.
    pub info: Option<ConnInfo>,
    /// Its subflows then.
    pub subflows: Vec<SubflowInfo>,
    /// It writes no more: it shut down, or it cannot.
    write_shut: bool,
    /// Bytes that a reader of a limited rate took so far.
    drained: u64,
    sending: Pattern,
    sent_hash: Option<Sha256>,
}

impl Flow {
    /// SHA-256 of what was written, if the application was asked to compute it.
    #[must_use]
    pub fn sent_sha256(&self) -> Option<[u8; 32]> {
        self.sent_hash.clone().map(|hash| hash.finalize().into())
    }

    /// The peer's stream was read to its end and it was the right one, and ours was written and shut.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.eof_at.is_some() && self.write_shut && self.received.wrong_at.is_none()
    }

    /// How far it came, in a line.
    #[must_use]
    pub fn summary(&self) -> String {
        let received = &self.received;
        let wrong = received.wrong_at.map_or(String::new(), |at| format!(" (wrong from byte {at} on)"));
        format!(
            "sent {}, received {}{wrong} with a gap of {:?} at most, end of stream {:?}, closed {:?}",
            self.sent, received.bytes, received.longest_gap, self.eof_at, self.closed
        )
    }

    /// It is over without an error, and complete.
    #[must_use]
    pub fn closed_well(&self) -> bool {
        self.is_complete() && matches!(self.closed, Some((_, None)))
    }
}

/// Setting it up.
impl Transfer {
    fn new(role: Role, sent_pattern: u64, expected_pattern: u64) -> Self {
        Self {
            role,
            options: SocketOptions::default(),
            backlog: 1024,
            sends: 0,
            close_when_sent: None,
            sent_pattern,
            expected_pattern,
            read_rate: None,
            hashed: false,
            flows: Vec::new(),
            by_conn: BTreeMap::new(),
        }
    }

    /// A client of `remote`. It expects the bytes that a listening [`Transfer`] sends.
    #[must_use]
    pub fn connect(remote: SocketAddr) -> Self {
        Self::new(Role::Connect { local: None, remote }, 1, 2)
    }

    /// A server on `local`. It expects the bytes that a connecting [`Transfer`] sends.
    #[must_use]
    pub fn listen(local: SocketAddr) -> Self {
        Self::new(Role::Listen(local), 2, 1)
    }

    /// Connects from `local`; of no meaning for a server.
    #[must_use]
    pub fn from(mut self, from: SocketAddr) -> Self {
        if let Role::Connect { local, .. } = &mut self.role {
            *local = Some(from);
        }
        self
    }

    /// Sets the socket's options.
    #[must_use]
    pub fn options(mut self, options: SocketOptions) -> Self {
        self.options = options;
        self
    }

    /// Speaks plain TCP.
    #[must_use]
    pub fn plain(mut self) -> Self {
        self.options.mptcp = false;
        self
    }

    /// Sets the backlog of a server.
    #[must_use]
    pub fn backlog(mut self, backlog: usize) -> Self {
        self.backlog = backlog;
        self
    }

    /// Sends `bytes` bytes on each connection.
    #[must_use]
    pub fn sends(mut self, bytes: u64) -> Self {
        self.sends = bytes;
        self
    }

    /// Expects its own bytes back, as an [`Echo`](crate::Echo) sends them.
    #[must_use]
    pub fn expects_echo(mut self) -> Self {
        self.expected_pattern = self.sent_pattern;
        self
    }

    /// Shuts down its sending side as soon as everything is written (`true`, the default with bytes
    /// to send) or only when the peer has shut down its own (`false`).
    #[must_use]
    pub fn closes_when_sent(mut self, at_once: bool) -> Self {
        self.close_when_sent = Some(at_once);
        self
    }

    /// Reads no more than this many bytes per second.
    #[must_use]
    pub fn reads_at(mut self, bytes_per_second: u64) -> Self {
        self.read_rate = Some(bytes_per_second);
        self
    }

    /// Computes the SHA-256 of what it sends and of what it receives.
    #[must_use]
    pub fn hashed(mut self) -> Self {
        self.hashed = true;
        self
    }
}

/// Looking at it.
impl Transfer {
    /// Its connections in the order in which they were made.
    #[must_use]
    pub fn flows(&self) -> &[Flow] {
        &self.flows
    }

    /// Its only connection.
    ///
    /// # Panics
    /// If there are none or several.
    #[must_use]
    pub fn flow(&self) -> &Flow {
        match &self.flows[..] {
            [flow] => flow,
            flows => panic!("there are {} connections, not one", flows.len()),
        }
    }

    /// `count` connections and all of them [complete](Flow::is_complete).
    #[must_use]
    pub fn completed(&self, count: usize) -> bool {
        self.flows.len() == count && self.flows.iter().all(Flow::is_complete)
    }

    /// There are connections and all are over, well or not.
    #[must_use]
    pub fn is_over(&self) -> bool {
        !self.flows.is_empty() && self.flows.iter().all(|flow| flow.closed.is_some())
    }
}

/// At work.
impl Transfer {
    fn open(&mut self, ctx: &HostCtx<'_>, conn: ConnId) -> usize {
        self.by_conn.insert((ctx.worker(), conn), self.flows.len());
        self.flows.push(Flow {
            conn: (ctx.worker(), conn),
            opened_at: ctx.now(),
            connected_at: None,
            sent: 0,
            sent_at: None,
            received: Received::new(self.expected_pattern, self.hashed),
            eof_at: None,
            closed: None,
            subflows_up: 0,
            subflows_down: 0,
            info: None,
            subflows: Vec::new(),
            write_shut: false,
            drained: 0,
            sending: Pattern::new(self.sent_pattern),
            sent_hash: self.hashed.then(Sha256::new),
        });
        self.flows.len() - 1
    }

    fn index_of(&self, ctx: &HostCtx<'_>, conn: ConnId) -> Option<usize> {
        self.by_conn.get(&(ctx.worker(), conn)).copied()
    }

    fn established(&mut self, ctx: &mut HostCtx<'_>, index: usize) {
        self.flows[index].connected_at = Some(ctx.now());
        if self.read_rate.is_some() {
            ctx.wake_after(READ_TICK, index as u64);
        }
        self.read(ctx, index);
        self.write(ctx, index);
    }

    fn write(&mut self, ctx: &mut HostCtx<'_>, index: usize) {
        let now = ctx.now();
        let flow = &mut self.flows[index];
        let conn = flow.conn.1;
        while flow.sent < self.sends && !flow.write_shut {
            let room = ctx.shard().write_room(conn).min(CHUNK);
            let len = room.min(usize::try_from(self.sends - flow.sent).unwrap_or(usize::MAX));
            if len == 0 {
                return;
            }
            let mut bytes = vec![0; len];
            flow.sending.fill(&mut bytes);
            if let Some(hash) = &mut flow.sent_hash {
                hash.update(&bytes);
            }
            if ctx.shard().write(now, conn, Payload::from(bytes)).is_err() {
                // `Event::Closed` tells why.
                flow.write_shut = true;
                return;
            }
            flow.sent += len as u64;
            flow.sent_at = Some(now);
        }
        let at_once = self.close_when_sent.unwrap_or(self.sends > 0);
        if !flow.write_shut && (at_once || flow.eof_at.is_some()) {
            flow.write_shut = true;
            let _ = ctx.shard().shutdown(now, conn, Shutdown::Write);
        }
    }

    fn read(&mut self, ctx: &mut HostCtx<'_>, index: usize) {
        let now = ctx.now();
        let flow = &mut self.flows[index];
        let conn = flow.conn.1;
        while flow.eof_at.is_none() {
            let max = match (self.read_rate, flow.connected_at) {
                (Some(rate), Some(since)) => {
                    let allowed = u128::from(rate) * (now - since).as_nanos() / 1_000_000_000;
                    usize::try_from(allowed).unwrap_or(usize::MAX).saturating_sub(flow.drained as usize)
                }
                _ => usize::MAX,
            };
            if max == 0 {
                return;
            }
            match ctx.shard().read(conn, max) {
                Read::Data(data) => {
                    flow.received.take(now, &data);
                    flow.drained += data.len() as u64;
                    ctx.shard().consumed(now, conn, data.len());
                }
                Read::Eof => {
                    flow.eof_at = Some(now);
                    Self::snapshot(ctx, flow);
                    if flow.closed.is_some() {
                        ctx.release(conn);
                    }
                    return self.write(ctx, index);
                }
                Read::Empty | Read::Failed(_) => return,
            }
        }
    }

    fn snapshot(ctx: &mut HostCtx<'_>, flow: &mut Flow) {
        flow.info = ctx.shard().info(flow.conn.1);
        flow.subflows = ctx.shard().subflows(flow.conn.1).map(|subflows| subflows.to_vec()).unwrap_or_default();
    }
}

impl Application for Transfer {
    fn on_start(&mut self, ctx: &mut HostCtx<'_>) {
        match self.role {
            Role::Connect { local, remote } => match ctx.connect(local, remote, &self.options) {
                Ok(conn) => {
                    self.open(ctx, conn);
                }
                Err(error) => panic!("cannot connect to {remote}: {error}"),
            },
            Role::Listen(local) => {
                for worker in 0..ctx.workers() {
                    if let Err(error) = ctx.on_worker(worker).listen(local, self.backlog, self.options.clone()) {
                        panic!("cannot listen on {local}: {error}");
                    }
                }
            }
        }
    }

    fn on_event(&mut self, ctx: &mut HostCtx<'_>, event: Event) {
        match event {
            Event::Acceptable(listener) => {
                while let Some((conn, _)) = ctx.accept(listener) {
                    let index = self.open(ctx, conn);
                    self.established(ctx, index);
                }
            }
            Event::Connected(conn) => {
                if let Some(index) = self.index_of(ctx, conn) {
                    self.established(ctx, index);
                }
            }
            Event::Readable(conn) => {
                if let Some(index) = self.index_of(ctx, conn) {
                    self.read(ctx, index);
                }
            }
            Event::Writable(conn) => {
                if let Some(index) = self.index_of(ctx, conn) {
                    self.write(ctx, index);
                }
            }
            Event::SubflowUp(conn, _) => {
                if let Some(index) = self.index_of(ctx, conn) {
                    self.flows[index].subflows_up += 1;
                }
            }
            Event::SubflowDown(conn, _) => {
                if let Some(index) = self.index_of(ctx, conn) {
                    self.flows[index].subflows_down += 1;
                }
            }
            Event::Closed(conn, error) => {
                let Some(index) = self.index_of(ctx, conn) else { return };
                self.read(ctx, index);
                let flow = &mut self.flows[index];
                flow.closed = Some((ctx.now(), error));
                if flow.eof_at.is_none() {
                    Self::snapshot(ctx, flow);
                }
                // A slow reader still has something to read of a connection that ended in good order.
                if flow.eof_at.is_some() || error.is_some() || self.read_rate.is_none() {
                    ctx.release(conn);
                }
            }
            _ => {}
        }
    }

    fn on_wake(&mut self, ctx: &mut HostCtx<'_>, token: u64) {
        let index = token as usize;
        let flow = &self.flows[index];
        if flow.eof_at.is_none() && !matches!(flow.closed, Some((_, Some(_)))) {
            self.read(ctx, index);
            ctx.wake_after(READ_TICK, token);
        }
    }
}
