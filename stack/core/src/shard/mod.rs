//! One worker's part of the stack: connections, listeners, tables, timers.

mod audit;
mod blackhole;
mod context;
mod crew;
mod destinations;
mod fastopen;
mod icmp;
mod input;
mod known;
mod listen;
mod mail;
mod manage;
mod memory;
mod options;
mod passive;
mod paths;
mod place;
mod pmtu;
mod ports;
mod syncookie;
mod table;
mod timewait;
mod wheel;

use alloc::borrow::Cow;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use core::net::{IpAddr, SocketAddr};

use anabranch_frame::{Instant, Payload, RxPacket, Transmit};
use slab::Slab;
use smallvec::SmallVec;

use crate::config::{Handshake, PacingConfig, Recovery, ShardConfig};
use crate::info::{ConnInfo, SubflowInfo};
use crate::mptcp::{self, Conn, Copies, Cx, Fast, Follows, Key, Mode};
use crate::options::{Shared, SocketOptions};
use crate::pm::{Notice, Reports};
use crate::rng::Rng;
use crate::tcp::Guard;
use crate::wire::{SeqNum, Tuple};
use crate::{Counters, Error};

use listen::{Listener, Listeners, SynQueue};
use memory::Memory;
use place::Place;
use wheel::Wheel;

pub use blackhole::Capability;
pub use mail::{Mail, Sizes};
pub use memory::MemoryUse;

pub(crate) use blackhole::Blackholes;
pub(crate) use crew::Crew;
pub use crew::worker_of_token;
pub(crate) use destinations::Destinations;
pub(crate) use fastopen::{FastOpens, Heard, Offer};
pub(crate) use listen::{SynEntry, SynKind};
pub(crate) use memory::Level;
pub(crate) use paths::{Gone, Paths};
pub(crate) use pmtu::{Pmtu, Pmtus};
pub(crate) use ports::Ports;
pub(crate) use table::{Slot, Table, Tokens};
pub(crate) use timewait::{TimeWait, TimeWaits};

/// Which worker; 0 to `workers - 1`.
pub type WorkerId = u16;

/// A connection of this worker. Never reused: a stale handle names nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct ConnId {
    index: u32,
    generation: u32,
}

impl ConnId {
    pub(crate) fn index(self) -> u32 {
        self.index
    }
}

/// A listener of this worker. Never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct ListenerId(u32);

impl ListenerId {
    pub(crate) fn number(self) -> u32 {
        self.0
    }
}

/// What happened. Each event says "look again": several changes may stand behind one of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A listener has a connection to accept.
    Acceptable(ListenerId),
    /// A connection that we opened is established.
    Connected(ConnId),
    /// There are bytes to read, or the end of the stream.
    Readable(ConnId),
    /// There is room to write again.
    Writable(ConnId),
    /// All that was written is acknowledged, and the end of the stream. Told of connections that
    /// [linger](crate::SocketOptions::linger).
    Drained(ConnId),
    /// A subflow of the connection came up.
    SubflowUp(ConnId, u8),
    /// A subflow of the connection is gone.
    SubflowDown(ConnId, u8),
    /// The connection is over in good order or by an error (`None`: in good order). Its handle stays
    /// valid, for reading what came before, until [`Shard::release`].
    Closed(ConnId, Option<Error>),
}

/// What there is to read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Read {
    /// Bytes, at most as many as asked for, at least one.
    Data(Payload),
    /// Nothing now.
    Empty,
    /// The peer's stream ended in good order and everything was read.
    Eof,
    /// The connection broke.
    Failed(Error),
}

/// Which direction to shut down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shutdown {
    /// Reading: what still comes is thrown away.
    Read,
    /// Writing: what was written is sent, then the end of the stream.
    Write,
    /// Both.
    Both,
}

/// One worker's part of a stack.
#[derive(Debug)]
pub struct Shard {
    config: ShardConfig,
    crew: Crew,
    counters: Counters,
    rng: Rng,
    paths: Paths,
    pmtus: Pmtus,
    destinations: Destinations,
    blackholes: Blackholes,
    table: Table,
    tokens: Tokens,
    conns: Slab<Place>,
    memory: Memory,
    copies: Copies,
    shared_options: Shared,
    generation: u32,
    listeners: Listeners,
    syns: SynQueue,
    fastopens: FastOpens,
    guard: Guard,
    ports: Ports,
    /// Connections that are closing after the application let go of them.
    orphans: usize,
    /// Third ACKs may bring SYN cookies back until then.
    cookies_until: Option<Instant>,
    /// Where the connection starts that the SYN begins which is looked at.
    next_isn: Option<SeqNum>,
    time_waits: TimeWaits,
    conn_wheel: Wheel,
    syn_wheel: Wheel,
    /// Connections that may have something to send, each once.
    ready: VecDeque<u32>,
    /// Packets of no connection: SYN/ACKs, resets, answers out of TIME-WAIT.
    loose: VecDeque<Transmit>,
    events: VecDeque<Event>,
    reports: Reports,
    mail: VecDeque<(WorkerId, Mail)>,
    fired: Vec<u32>,
}

/// The context of a connection, from fields that are disjoint from `conns`.
macro_rules! cx {
    ($shard:ident, $now:expr) => {
        Cx {
            now: $now,
            counters: &mut $shard.counters,
            rng: &mut $shard.rng,
            paths: &$shard.paths,
            pmtus: &mut $shard.pmtus,
            destinations: &mut $shard.destinations,
            blackholes: &mut $shard.blackholes,
            table: &mut $shard.table,
            time_waits: &mut $shard.time_waits,
            tokens: &mut $shard.tokens,
            events: &mut $shard.events,
            reports: &mut $shard.reports,
            mail: &mut $shard.mail,
            fastopens: &mut $shard.fastopens,
            guard: &mut $shard.guard,
            ports: &mut $shard.ports,
            crew: &$shard.crew,
            config: &$shard.config,
            copies: &$shard.copies,
        }
    };
}
use cx;

impl Shard {
    /// An empty stack.
    #[must_use]
    pub fn new(config: ShardConfig) -> Self {
        Self {
            counters: Counters::default(),
            rng: Rng::new(config.seed),
            paths: Paths::default(),
            pmtus: Pmtus::default(),
            destinations: Destinations::default(),
            blackholes: Blackholes::new(config.blackhole_timeout),
            table: Table::new(config.hash_key),
            tokens: Tokens::new(),
            conns: Slab::new(),
            memory: Memory::new(config.memory),
            copies: mptcp::copies(),
            shared_options: Shared::default(),
            generation: 0,
            listeners: Listeners::default(),
            syns: SynQueue::new(config.max_syn_queue),
            fastopens: FastOpens::new(&config.isn_key),
            guard: guard_of(&config.handshake),
            ports: Ports::default(),
            orphans: 0,
            cookies_until: None,
            next_isn: None,
            time_waits: TimeWaits::new(config.handshake.max_tw_buckets),
            conn_wheel: Wheel::new(),
            syn_wheel: Wheel::new(),
            ready: VecDeque::new(),
            loose: VecDeque::new(),
            events: VecDeque::new(),
            reports: Reports::default(),
            mail: VecDeque::new(),
            fired: Vec::new(),
            crew: Crew::new(&config),
            config,
        }
    }

    // --- input -----------------------------------------------------------------------------------

    /// A packet came in. A packet that another worker owns comes back out of [`poll_mail`](Self::poll_mail).
    pub fn handle_packet(&mut self, now: Instant, packet: RxPacket) {
        self.counters.ip_in_receives += 1;
        self.steer(now, packet);
    }

    /// Time has come to the instant that [`poll_timeout`](Self::poll_timeout) named, or later.
    pub fn handle_timeout(&mut self, now: Instant) {
        let mut fired = core::mem::take(&mut self.fired);
        self.conn_wheel.expire(now, &mut fired);
        for index in fired.drain(..) {
            if let Some(place) = self.conns.get_mut(index as usize) {
                let conn = place.wake(&mut self.counters.conns_at_rest, self.memory.level());
                if self.memory.level() == Level::Exhausted && conn.is_dispensable() {
                    self.counters.tcp_abort_on_memory += 1;
                    conn.abort(&mut cx!(self, now));
                }
                conn.on_timeout(&mut cx!(self, now));
                if !self.put_to_rest(now, index) {
                    self.touch(index);
                }
            }
        }
        self.syn_wheel.expire(now, &mut fired);
        for key in fired.drain(..) {
            self.on_syn_timer(now, key);
        }
        self.fired = fired;
        while let Some((index, entry)) = self.time_waits.expire(now) {
            cx!(self, now).release_tuple(&entry.tuple, Slot::TimeWait(index));
        }
    }

    // --- output ----------------------------------------------------------------------------------

    /// The next packet to send. It counts as sent: a device that cannot take it hands it back to
    /// whoever polls, who keeps it and stops polling until the device has room.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        let transmit = self.loose.pop_front().or_else(|| self.poll_ready(now))?;
        self.counters.tcp_out_segs += transmit.segment_count() as u64;
        Some(transmit)
    }

    fn poll_ready(&mut self, now: Instant) -> Option<Transmit> {
        while let Some(index) = self.ready.pop_front() {
            let Some(Place::Awake { conn, queued }) = self.conns.get_mut(index as usize) else { continue };
            conn.heed(self.memory.level());
            if let Some(transmit) = conn.poll_transmit(&mut cx!(self, now)) {
                // One transmission a turn: connections share the device fairly.
                self.ready.push_back(index);
                return Some(transmit);
            }
            *queued = false;
            self.account(index);
            self.rest(index);
        }
        None
    }

    /// A connection has nothing to send: its timer is set, or it goes for good.
    fn rest(&mut self, index: u32) {
        let Some(Place::Awake { conn, .. }) = self.conns.get(index as usize) else { return };
        if conn.is_finished() {
            self.orphans -= usize::from(conn.orphan);
            let gone = self.conns.remove(index as usize);
            self.memory.change(gone.charged(), 0, &mut self.counters);
            self.conn_wheel.cancel(index);
            return;
        }
        match [conn.deadline(), conn.rest_due(self.config.rest_after)].into_iter().flatten().min() {
            Some(deadline) => self.conn_wheel.arm(index, deadline),
            None => self.conn_wheel.cancel(index),
        }
    }

    /// Shrinks a connection on which nothing happened for a while. Returns whether it rests.
    fn put_to_rest(&mut self, now: Instant, index: u32) -> bool {
        let Some(place) = self.conns.get_mut(index as usize) else { return false };
        let Place::Awake { conn, .. } = place else { return true };
        if conn.rest_due(self.config.rest_after).is_none_or(|due| due > now) {
            return false;
        }
        conn.stay_awake(self.config.rest_after);
        let deadline = conn.deadline();
        let before = place.charged();
        let rests = place.rest(&mut self.counters.conns_at_rest);
        self.memory.change(before, place.charged(), &mut self.counters);
        if rests && let Some(deadline) = deadline {
            self.conn_wheel.arm(index, deadline);
        }
        rests
    }

    /// What happened since the last call.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.conn_wheel.next(), self.syn_wheel.next(), self.time_waits.next()].into_iter().flatten().min()
    }

    // --- settings --------------------------------------------------------------------------------

    /// Changes how lost data is found and sent again, for connections that are established from now on; the limits on
    /// retries hold for all at once.
    pub fn set_recovery(&mut self, recovery: Recovery) {
        self.config.recovery = recovery;
    }

    /// Changes how much goes at once, and how fast, for connections that are established from now on.
    pub fn set_pacing(&mut self, pacing: PacingConfig) {
        self.config.pacing = pacing;
    }

    /// Whether `addr` is one of our addresses.
    #[must_use]
    pub fn owns(&self, addr: IpAddr) -> bool {
        self.paths.owns(addr)
    }

    // --- connections -----------------------------------------------------------------------------

    /// Listens on `local`; the unspecified address (of either family) means all our addresses of
    /// **that family**. Port 0 is not allowed here.
    ///
    /// # Errors
    /// [`Error::AddrInUse`], [`Error::AddrNotAvailable`], [`Error::UnknownName`].
    pub fn listen(
        &mut self,
        local: SocketAddr,
        backlog: usize,
        mut options: SocketOptions,
    ) -> Result<ListenerId, Error> {
        options.check()?;
        if self.config.handshake.fastopen.all_listeners && options.fastopen == 0 {
            options.fastopen = u32::try_from(backlog).unwrap_or(u32::MAX);
        }
        if local.port() == 0 || !(local.ip().is_unspecified() || self.paths.owns(local.ip())) {
            return Err(Error::AddrNotAvailable(local.ip()));
        }
        let listener = self.listeners.insert(Listener {
            local,
            backlog: backlog.max(1),
            options: self.shared_options.get(Cow::Owned(options)),
            accepted: VecDeque::new(),
        })?;
        self.reports.tell(0, || Notice::ListenerCreated(local));
        Ok(listener)
    }

    /// The next established connection of a listener, with the peer's address.
    pub fn accept(&mut self, listener: ListenerId) -> Option<(ConnId, SocketAddr)> {
        while let Some(id) = self.listeners.get_mut(listener)?.accepted.pop_front() {
            // One that was reset meanwhile is still handed out if there is anything to read of it.
            match self.place(id) {
                Some(Place::Awake { conn, .. }) => return Some((id, conn.remote())),
                Some(Place::Resting(Some(resting))) => return Some((id, resting.remote())),
                Some(Place::Resting(None)) | None => {}
            }
        }
        None
    }

    /// Whether [`accept`](Self::accept) would give a connection.
    #[must_use]
    pub fn acceptable(&self, listener: ListenerId) -> bool {
        self.listeners.get(listener).is_some_and(|entry| entry.accepted.iter().any(|&id| self.place(id).is_some()))
    }

    /// Stops listening. Connections that wait to be accepted are reset.
    pub fn close_listener(&mut self, now: Instant, listener: ListenerId) {
        let Some(entry) = self.listeners.remove(listener) else { return };
        self.reports.tell(0, || Notice::ListenerClosed(entry.local));
        self.fastopens.remove(listener.0);
        for key in self.syns.of_listener(listener) {
            self.remove_syn(now, key);
        }
        for id in entry.accepted {
            self.abort(now, id);
            self.release(now, id);
        }
    }

    /// Opens a connection. `local` may name an address, a port or both (unspecified address, port 0:
    /// the stack chooses). [`Event::Connected`] or [`Event::Closed`] follows.
    ///
    /// # Errors
    /// [`Error::NotUnicast`], [`Error::Unreachable`], [`Error::AddrNotAvailable`], [`Error::AddrInUse`], [`Error::NoFreePort`],
    /// [`Error::TooManyConnections`], [`Error::OutOfMemory`], [`Error::UnknownName`].
    pub fn connect(
        &mut self,
        now: Instant,
        local: Option<SocketAddr>,
        remote: SocketAddr,
        options: &SocketOptions,
    ) -> Result<ConnId, Error> {
        self.open(now, local, remote, options, options.fastopen_connect.then_some(Fast::Deferred)).map(|(id, _)| id)
    }

    /// Opens a connection and sends the first bytes of `data` with its SYN, if the peer is known to take them
    /// (`MSG_FASTOPEN`, RFC 7413): at most a segment of them, see the second value. Otherwise it asks for a cookie and
    /// takes nothing. The rest is [written](Self::write) when the connection is established.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn connect_with(
        &mut self,
        now: Instant,
        local: Option<SocketAddr>,
        remote: SocketAddr,
        options: &SocketOptions,
        data: Payload,
    ) -> Result<(ConnId, usize), Error> {
        self.open(now, local, remote, options, Some(Fast::With(data)))
    }

    fn open(
        &mut self,
        now: Instant,
        local: Option<SocketAddr>,
        remote: SocketAddr,
        options: &SocketOptions,
        fast: Option<Fast>,
    ) -> Result<(ConnId, usize), Error> {
        options.check()?;
        if !self.paths.may_be_peer(remote.ip()) {
            return Err(Error::NotUnicast(remote.ip()));
        }
        if self.conns.len() >= self.config.max_connections {
            return Err(Error::TooManyConnections);
        }
        if self.memory.level() == Level::Exhausted {
            return Err(Error::OutOfMemory);
        }
        let tuple = self.choose_tuple(now, local, remote)?;
        let path = self.paths.owner(tuple.local.ip()).ok_or(Error::AddrNotAvailable(tuple.local.ip()))?;
        let link = self.paths.link(path).ok_or(Error::BadPath)?;
        let mode = self.mode_to_ask_for(now, remote.ip(), options);
        let shared = self.shared_options.get(Cow::Borrowed(options));
        let id = self.add_conn(now, (tuple.local, tuple.remote), mode, shared, false)?;
        cx!(self, now).claim_tuple(&tuple);
        let taken = self.with(now, id, |conn, cx| conn.open_first(cx, tuple, link, options, fast));
        Ok((id, taken.unwrap_or_default()))
    }

    fn choose_tuple(&mut self, now: Instant, local: Option<SocketAddr>, remote: SocketAddr) -> Result<Tuple, Error> {
        let (addr, port) = (self.choose_address(local, remote)?, local.map_or(0, |local| local.port()));
        if port == 0 {
            return cx!(self, now).free_tuple(addr, remote).ok_or(Error::NoFreePort(remote));
        }
        let tuple = Tuple { local: SocketAddr::new(addr, port), remote };
        if cx!(self, now).is_free(&tuple) { Ok(tuple) } else { Err(Error::AddrInUse(tuple.local)) }
    }

    fn choose_address(&self, local: Option<SocketAddr>, remote: SocketAddr) -> Result<IpAddr, Error> {
        match local.map(|local| local.ip()).filter(|ip| !ip.is_unspecified()) {
            Some(addr) if !self.paths.owns(addr) || addr.is_ipv4() != remote.is_ipv4() => {
                Err(Error::AddrNotAvailable(addr))
            }
            Some(addr) => Ok(addr),
            None => Ok(self.paths.route(remote.ip()).ok_or(Error::Unreachable(remote.ip()))?.1),
        }
    }

    /// A key whose token is free and names this worker.
    fn new_key(&mut self) -> Key {
        loop {
            let key = Key::new(self.rng.u64());
            let ours = self.crew.may_give(key.token);
            if ours && self.tokens.find(key.token).is_none() {
                return key;
            }
            self.counters.mp_fallback_token_init += u64::from(ours);
        }
    }

    /// Adds a connection without subflows. Its token is registered.
    fn add_conn(
        &mut self,
        now: Instant,
        tuple: (SocketAddr, SocketAddr),
        mode: Mode,
        options: Arc<SocketOptions>,
        server_side: bool,
    ) -> Result<ConnId, Error> {
        self.generation = self.generation.wrapping_add(1);
        let entry = self.conns.vacant_entry();
        let id = ConnId { index: entry.key() as u32, generation: self.generation };
        if let Mode::Mptcp(mp) = &mode {
            self.tokens.insert(mp.local.token, id.index);
        }
        let conn = Conn::new(now, id, tuple, mode, options, server_side)?;
        entry.insert(Place::new(conn));
        Ok(id)
    }

    /// A connection may have something to send, or a timer to set.
    fn touch(&mut self, index: u32) {
        self.account(index);
        if let Some(Place::Awake { queued, .. }) = self.conns.get_mut(index as usize)
            && !*queued
        {
            *queued = true;
            self.ready.push_back(index);
        }
    }

    /// Sees what a connection holds now.
    fn account(&mut self, index: u32) {
        if let Some(Place::Awake { conn, .. }) = self.conns.get_mut(index as usize) {
            let (before, now) = conn.recharge();
            self.memory.change(before, now, &mut self.counters);
        }
    }

    fn place(&self, id: ConnId) -> Option<&Place> {
        self.conns.get(id.index as usize).filter(|place| place.id() == Some(id))
    }

    /// A connection, awake.
    fn conn_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        let place = self.conns.get_mut(id.index as usize).filter(|place| place.id() == Some(id))?;
        Some(place.wake(&mut self.counters.conns_at_rest, self.memory.level()))
    }

    /// Runs a command of a connection that needs the shard, then looks after the connection.
    fn with<T>(&mut self, now: Instant, id: ConnId, command: impl FnOnce(&mut Conn, &mut Cx<'_>) -> T) -> Option<T> {
        let place = self.conns.get_mut(id.index as usize).filter(|place| place.id() == Some(id))?;
        let conn = place.wake(&mut self.counters.conns_at_rest, self.memory.level());
        conn.note_call(now);
        let result = command(conn, &mut cx!(self, now));
        self.touch(id.index);
        Some(result)
    }

    /// Bytes that [`write`](Self::write) would take now. If there is no room, [`Event::Writable`] says when there is.
    #[must_use]
    pub fn write_room(&mut self, conn: ConnId) -> usize {
        let level = self.memory.level();
        match self.conns.get_mut(conn.index as usize).filter(|place| place.id() == Some(conn)) {
            Some(Place::Awake { conn, .. }) => {
                conn.heed(level);
                conn.ask_room() as usize
            }
            Some(Place::Resting(Some(resting))) => resting.write_room(level) as usize,
            Some(Place::Resting(None)) | None => 0,
        }
    }

    /// Takes the whole payload to be sent, whatever [`write_room`](Self::write_room) says: the caller
    /// minds the limit. Small payloads are copied together.
    ///
    /// # Errors
    /// [`Error::NotConnected`], [`Error::InProgress`], [`Error::ShutDown`], or what the connection broke of.
    pub fn write(&mut self, now: Instant, conn: ConnId, payload: Payload) -> Result<(), Error> {
        self.write_with(now, conn, payload, Follows::Nothing)
    }

    /// The same, and says what comes next.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_with(&mut self, now: Instant, conn: ConnId, payload: Payload, follows: Follows) -> Result<(), Error> {
        self.with(now, conn, |conn, cx| conn.write(cx, payload, follows)).ok_or(Error::NotConnected)?
    }

    /// Takes up to `max` bytes of what can be read, in one contiguous piece. The receive window opens
    /// again only when they are [`consumed`](Self::consumed).
    pub fn read(&mut self, conn: ConnId, max: usize) -> Read {
        if matches!(self.place(conn), Some(Place::Resting(_))) {
            return Read::Empty;
        }
        let read = self.conn_mut(conn).map_or(Read::Failed(Error::NotConnected), |conn| conn.read(max));
        self.account(conn.index);
        read
    }

    /// The application is done with `bytes` bytes that it [`read`](Self::read).
    pub fn consumed(&mut self, now: Instant, conn: ConnId, bytes: usize) {
        self.with(now, conn, |conn, _| conn.consumed(now, bytes as u64));
    }

    /// Shuts down one or both directions.
    ///
    /// # Errors
    /// [`Error::NotConnected`].
    pub fn shutdown(&mut self, now: Instant, conn: ConnId, how: Shutdown) -> Result<(), Error> {
        self.with(now, conn, |conn, cx| conn.shutdown(cx, how)).ok_or(Error::NotConnected)?
    }

    /// Ends the connection at once: MP_FASTCLOSE, or RST on plain TCP.
    pub fn abort(&mut self, now: Instant, conn: ConnId) {
        self.with(now, conn, Conn::abort);
    }

    /// The application lets go of the handle: both directions are shut down in good order, unread or
    /// still arriving data resets the connection (RFC 9293 §3.6.1, RFC 2525 §2.17), and the state
    /// goes when the protocol is done with it.
    pub fn release(&mut self, now: Instant, conn: ConnId) {
        self.with(now, conn, Conn::release);
        let left = self.conn_mut(conn).filter(|conn| !conn.is_finished());
        if left.is_some_and(|left| !core::mem::replace(&mut left.orphan, true)) {
            self.orphans += 1;
            if self.orphans > self.config.handshake.max_orphans {
                self.counters.tcp_abort_on_memory += 1;
                self.abort(now, conn);
            }
        }
    }

    /// Changes how connections are opened from now on.
    pub fn set_handshake(&mut self, handshake: Handshake) {
        self.guard = guard_of(&handshake);
        self.config.handshake = handshake;
    }

    /// Forgets what was learned of the servers that take data in SYNs.
    pub fn forget_fastopen(&mut self) {
        self.fastopens.forget();
    }

    // --- getters ---------------------------------------------------------------------------------

    /// What can be known of a connection.
    #[must_use]
    pub fn info(&self, conn: ConnId) -> Option<ConnInfo> {
        match self.place(conn)? {
            Place::Awake { conn, .. } => Some(conn.info()),
            Place::Resting(resting) => resting.as_ref().map(|resting| resting.info()),
        }
    }

    /// What can be known of its subflows.
    #[must_use]
    pub fn subflows(&self, conn: ConnId) -> Option<SmallVec<[SubflowInfo; 4]>> {
        match self.place(conn)? {
            Place::Awake { conn, .. } => Some(conn.subflow_info()),
            Place::Resting(resting) => resting.as_ref().map(|resting| resting.subflow_info()),
        }
    }

    /// Connections that exist, those in TIME-WAIT included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.conns.len() + self.time_waits.len()
    }

    /// What the connections hold, and what they may.
    #[must_use]
    pub fn memory(&self) -> MemoryUse {
        self.memory.get()
    }

    /// Goes through all connections and adds up what they hold: what [`memory`](Self::memory) says, if its bookkeeping
    /// is right and nothing waits to be [sent](Self::poll_transmit). For tests.
    #[must_use]
    pub fn audit_memory(&self) -> u64 {
        self.conns.iter().map(|(_, place)| place.memory()).sum()
    }

    /// This worker's counters.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

fn guard_of(handshake: &Handshake) -> Guard {
    Guard::new(handshake.invalid_ratelimit, handshake.challenge_ack_limit)
}

#[cfg(test)]
mod tests;
