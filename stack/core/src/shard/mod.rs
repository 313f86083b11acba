//! One worker's part of the stack: connections, listeners, tables, timers.

mod wheel;

use core::net::{IpAddr, SocketAddr};

use anabranch_frame::{Instant, PathId, Payload, RxPacket, Transmit};
use smallvec::SmallVec;

use crate::config::{PathConfig, ShardConfig, SocketOptions};
use crate::info::{ConnInfo, SubflowInfo};
use crate::wire::Tuple;
use crate::{Counters, Error};

/// Which worker; 0 to `workers - 1`.
pub type WorkerId = u16;

/// A connection of this worker. Never reused: a stale handle names nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct ConnId {
    index: u32,
    generation: u32,
}

/// A listener of this worker. Never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct ListenerId(u32);

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
    /// A subflow of the connection came up.
    SubflowUp(ConnId, u8),
    /// A subflow of the connection is gone.
    SubflowDown(ConnId, u8),
    /// The connection is over in good order or by an error (`None`: in good order). Its handle stays
    /// valid, for reading what came before, until [`Shard::release`].
    Closed(ConnId, Option<Error>),
}

/// What one worker has to tell another.
#[derive(Clone, Debug)]
pub enum Mail {
    /// A packet of a connection that lives there.
    Packet(RxPacket),
    /// A joined subflow whose tuple is at home there lives on `worker`: send its packets on.
    Forward {
        /// The subflow's addresses.
        tuple: Tuple,
        /// Where its connection lives.
        worker: WorkerId,
    },
    /// That subflow is gone.
    Forget(Tuple),
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
pub struct Shard {}

impl Shard {
    /// An empty stack.
    #[must_use]
    pub fn new(config: ShardConfig) -> Self {
        todo!()
    }

    // --- input -----------------------------------------------------------------------------------

    /// A packet came in. A packet that another worker owns comes back out of [`poll_mail`](Self::poll_mail).
    pub fn handle_packet(&mut self, now: Instant, packet: RxPacket) {
        todo!()
    }

    /// Time has come to the instant that [`poll_timeout`](Self::poll_timeout) named, or later.
    pub fn handle_timeout(&mut self, now: Instant) {
        todo!()
    }

    /// Another worker has something for us.
    pub fn handle_mail(&mut self, now: Instant, mail: Mail) {
        todo!()
    }

    // --- output ----------------------------------------------------------------------------------

    /// Something for another worker.
    pub fn poll_mail(&mut self) -> Option<(WorkerId, Mail)> {
        todo!()
    }

    /// The next packet to send. It counts as sent: a device that cannot take it hands it back to
    /// whoever polls, who keeps it and stops polling until the device has room.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        todo!()
    }

    /// What happened since the last call.
    pub fn poll_event(&mut self) -> Option<Event> {
        todo!()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }

    // --- paths -----------------------------------------------------------------------------------

    /// Adds a path.
    ///
    /// # Errors
    /// [`Error::BadPath`] if the identifier is taken.
    pub fn add_path(&mut self, now: Instant, path: PathConfig) -> Result<(), Error> {
        todo!()
    }

    /// The path's device came up or went down. Subflows on a path that is down are closed, their data
    /// goes elsewhere.
    ///
    /// # Errors
    /// [`Error::BadPath`] if there is no such path.
    pub fn set_path_up(&mut self, now: Instant, path: PathId, up: bool) -> Result<(), Error> {
        todo!()
    }

    /// Whether `addr` is one of our addresses.
    #[must_use]
    pub fn owns(&self, addr: IpAddr) -> bool {
        todo!()
    }

    // --- connections -----------------------------------------------------------------------------

    /// Listens on `local`; the unspecified address (of either family) means all our addresses of
    /// **that family**. Port 0 is not allowed here.
    ///
    /// # Errors
    /// [`Error::AddrInUse`], [`Error::AddrNotAvailable`], [`Error::UnknownName`].
    pub fn listen(&mut self, local: SocketAddr, backlog: usize, options: SocketOptions) -> Result<ListenerId, Error> {
        todo!()
    }

    /// The next established connection of a listener, with the peer's address.
    pub fn accept(&mut self, listener: ListenerId) -> Option<(ConnId, SocketAddr)> {
        todo!()
    }

    /// Stops listening. Connections that wait to be accepted are reset.
    pub fn close_listener(&mut self, now: Instant, listener: ListenerId) {
        todo!()
    }

    /// Opens a connection. `local` may name an address, a port or both (unspecified address, port 0:
    /// the stack chooses). [`Event::Connected`] or [`Event::Closed`] follows.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::AddrNotAvailable`], [`Error::AddrInUse`], [`Error::NoFreePort`],
    /// [`Error::TooManyConnections`], [`Error::UnknownName`].
    pub fn connect(
        &mut self,
        now: Instant,
        local: Option<SocketAddr>,
        remote: SocketAddr,
        options: SocketOptions,
    ) -> Result<ConnId, Error> {
        todo!()
    }

    /// Bytes that [`write`](Self::write) would take now.
    #[must_use]
    pub fn write_room(&self, conn: ConnId) -> usize {
        todo!()
    }

    /// Takes the whole payload to be sent, whatever [`write_room`](Self::write_room) says: the caller
    /// minds the limit. Small payloads are copied together.
    ///
    /// # Errors
    /// [`Error::NotConnected`], [`Error::InProgress`], [`Error::ShutDown`], or what the connection broke of.
    pub fn write(&mut self, now: Instant, conn: ConnId, payload: Payload) -> Result<(), Error> {
        todo!()
    }

    /// Takes up to `max` bytes of what can be read, in one contiguous piece. The receive window opens
    /// again only when they are [`consumed`](Self::consumed).
    pub fn read(&mut self, conn: ConnId, max: usize) -> Read {
        todo!()
    }

    /// The application is done with `bytes` bytes that it [`read`](Self::read).
    pub fn consumed(&mut self, now: Instant, conn: ConnId, bytes: usize) {
        todo!()
    }

    /// Shuts down one or both directions.
    ///
    /// # Errors
    /// [`Error::NotConnected`].
    pub fn shutdown(&mut self, now: Instant, conn: ConnId, how: Shutdown) -> Result<(), Error> {
        todo!()
    }

    /// Ends the connection at once: MP_FASTCLOSE, or RST on plain TCP.
    pub fn abort(&mut self, now: Instant, conn: ConnId) {
        todo!()
    }

    /// The application lets go of the handle: both directions are shut down in good order, unread or
    /// still arriving data resets the connection (RFC 9293 §3.6.1, RFC 2525 §2.17), and the state
    /// goes when the protocol is done with it.
    pub fn release(&mut self, now: Instant, conn: ConnId) {
        todo!()
    }

    /// Switches Nagle's algorithm off or on.
    ///
    /// # Errors
    /// [`Error::NotConnected`].
    pub fn set_nodelay(&mut self, now: Instant, conn: ConnId, nodelay: bool) -> Result<(), Error> {
        todo!()
    }

    /// Sets or clears keepalive.
    ///
    /// # Errors
    /// [`Error::NotConnected`].
    pub fn set_keepalive(
        &mut self,
        now: Instant,
        conn: ConnId,
        keepalive: Option<crate::config::Keepalive>,
    ) -> Result<(), Error> {
        todo!()
    }

    /// Changes the scheduler of a live connection.
    ///
    /// # Errors
    /// [`Error::NotConnected`], [`Error::UnknownName`].
    pub fn set_scheduler(&mut self, conn: ConnId, name: &str) -> Result<(), Error> {
        todo!()
    }

    /// Asks the peer (MP_PRIO) to use, or not to use, a subflow as a backup.
    ///
    /// # Errors
    /// [`Error::NotConnected`] if there is no such subflow.
    pub fn set_backup(&mut self, now: Instant, conn: ConnId, subflow: u8, backup: bool) -> Result<(), Error> {
        todo!()
    }

    // --- getters ---------------------------------------------------------------------------------

    /// What can be known of a connection.
    #[must_use]
    pub fn info(&self, conn: ConnId) -> Option<ConnInfo> {
        todo!()
    }

    /// What can be known of its subflows.
    #[must_use]
    pub fn subflows(&self, conn: ConnId) -> Option<SmallVec<[SubflowInfo; 4]>> {
        todo!()
    }

    /// Connections that exist, those in TIME-WAIT included.
    #[must_use]
    pub fn connections(&self) -> usize {
        todo!()
    }

    /// This worker's counters.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        todo!()
    }
}
