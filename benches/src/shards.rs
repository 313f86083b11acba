//! Two stacks on one thread, with nothing between them but a copy.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anabranch_core::shard::{Read, Shutdown};
use anabranch_core::{
    ConnId, EndpointFlags, Error, Event, IpCidr, ListenerId, Mail, PathConfig, Shard, ShardConfig, SocketOptions,
};
use anabranch_frame::{BufferPool, HEADER_MAX, Instant, PathId, Payload, RxChecksum, RxPacket, Transmit, gso};
use crossbeam_queue::SegQueue;

/// The longest datagram, in bytes.
const LONGEST: usize = 65_535;
/// A datagram of Ethernet's MTU, and an ACK.
const MIDDLE: usize = 1_664;
const SMALL: usize = 256;
/// What an application writes or reads at once, in bytes.
const CHUNK: usize = 64 << 10;
/// Packets that a stack sends in one turn.
const BATCH: usize = 16;
/// Bytes that all connections together have written and not got through.
const IN_FLIGHT: usize = 1 << 20;
/// And each of them at least.
const IN_FLIGHT_EACH: usize = 2 * CHUNK;
const PORT: u16 = 5001;

/// What a [`Pair`] is like.
#[derive(Clone, Copy, Debug)]
pub struct PairConfig {
    /// Workers of either stack. Worker *n* of one exchanges packets with worker *n* of the other.
    pub workers: u16,
    /// Super-segments pass whole and their checksums are trusted; otherwise they are cut up and completed, and
    /// verified at the other end.
    pub offload: bool,
    /// Paths; with more than one the connections are MPTCP.
    pub paths: u16,
    /// Connections of each worker, of which the buffers depend.
    pub connections: usize,
}

impl Default for PairConfig {
    /// One worker, offload, one path, one connection.
    fn default() -> Self {
        Self { workers: 1, offload: true, paths: 1, connections: 1 }
    }
}

/// One worker of a client and one of a server.
#[derive(Debug)]
pub struct Pair {
    /// The stack that connects.
    pub client: Side,
    /// The stack that listens.
    pub server: Side,
    listener: ListenerId,
    clock: std::time::Instant,
    options: SocketOptions,
    sending: VecDeque<ConnId>,
    content: Vec<u8>,
    pool: BufferPool,
    packets: Vec<RxPacket>,
}

/// A worker of one of the stacks.
#[derive(Debug)]
pub struct Side {
    /// The stack.
    pub shard: Shard,
    /// What its packets leave by.
    pub wire: Wire,
    /// What all workers of this stack have for each other.
    mail: Arc<[SegQueue<Mail>]>,
    worker: u16,
    /// Where an application reads into.
    buffer: Vec<u8>,
    received: u64,
    accepted: u64,
}

impl Pair {
    /// All workers of two stacks, each pair for a thread of its own.
    ///
    /// # Panics
    /// If there is a bug: all settings are right ones.
    #[must_use]
    pub fn all(config: &PairConfig) -> Vec<Self> {
        let mail = || (0..config.workers).map(|_| SegQueue::new()).collect::<Arc<[_]>>();
        let (clients, servers) = (mail(), mail());
        let in_flight = (IN_FLIGHT / config.connections.max(1)).max(IN_FLIGHT_EACH) as u32;
        let options = SocketOptions { mptcp: config.paths > 1, send_buffer_max: in_flight, ..SocketOptions::default() };
        let pair = |worker| {
            let client = Side::new(config, 1, worker, &clients);
            let mut server = Side::new(config, 2, worker, &servers);
            let listener = server
                .shard
                .listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)), 1 << 16, options.clone())
                .expect("a free port");
            Self {
                client,
                server,
                listener,
                clock: std::time::Instant::now(),
                options: options.clone(),
                sending: VecDeque::new(),
                content: vec![b'x'; CHUNK],
                pool: BufferPool::new(CHUNK, 64),
                packets: Vec::new(),
            }
        };
        (0..config.workers).map(pair).collect()
    }

    /// A single worker on either side.
    ///
    /// # Panics
    /// See [`all`](Self::all).
    #[must_use]
    pub fn new(config: &PairConfig) -> Self {
        Self::all(&PairConfig { workers: 1, ..*config }).remove(0)
    }

    /// Opens connections from the client to the server, over which the client sends from now on, for ever.
    ///
    /// # Errors
    /// What the stack says.
    pub fn connect(&mut self, connections: usize) -> Result<(), Error> {
        for id in self.connect_idle(connections)? {
            self.sending.push_back(id);
        }
        Ok(())
    }

    /// Opens connections over which nothing is sent.
    ///
    /// # Errors
    /// What the stack says.
    pub fn connect_idle(&mut self, connections: usize) -> Result<Vec<ConnId>, Error> {
        let mut all = Vec::new();
        for _ in 0..connections {
            all.push(self.client.shard.connect(self.now(), None, server_addr(), &self.options)?);
            self.turn();
            self.turn();
        }
        Ok(all)
    }

    /// Time since the beginning.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::from_nanos(self.clock.elapsed().as_nanos() as u64)
    }

    /// Bytes that the server's applications have read.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.server.received
    }

    /// Connections that the server has accepted.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.server.accepted
    }

    /// Where the server listens.
    #[must_use]
    pub fn server_addr() -> SocketAddr {
        server_addr()
    }

    /// The applications write, both stacks speak and listen, the applications read.
    pub fn turn(&mut self) {
        let now = self.now();
        self.write(now);
        let mut packets = std::mem::take(&mut self.packets);
        self.exchange(now, &mut packets);
        self.packets = packets;
    }

    /// Packets of data that the client sends now: as many as a turn has. They are on their way.
    pub fn burst(&mut self) -> Vec<RxPacket> {
        let now = self.now();
        let mut packets = Vec::new();
        self.write(now);
        self.client.speak(now, &mut packets);
        packets
    }

    /// The server takes packets in, its application reads, and its answers come out.
    pub fn take(&mut self, mut packets: Vec<RxPacket>) -> Vec<RxPacket> {
        let now = self.now();
        let mut answers = Vec::new();
        for packet in packets.drain(..) {
            self.server.shard.handle_packet(now, packet);
            self.server.speak(now, &mut answers);
            self.server.serve(now, Some(self.listener));
        }
        self.server.speak(now, &mut answers);
        answers
    }

    /// The client hears the server's answers.
    pub fn answer(&mut self, mut answers: Vec<RxPacket>) {
        let now = self.now();
        self.client.listen(now, &mut answers);
        self.client.serve(now, None);
    }

    /// Opens a connection, waits until the server has accepted it, and ends it with a reset.
    ///
    /// # Panics
    /// If there is a bug.
    pub fn open_and_reset(&mut self) {
        let accepted = self.server.accepted;
        let now = self.now();
        let id = self.client.shard.connect(now, None, server_addr(), &self.options).expect("a free port");
        let mut packets = std::mem::take(&mut self.packets);
        while self.server.accepted == accepted {
            self.exchange(now, &mut packets);
        }
        self.client.shard.abort(now, id);
        self.client.shard.release(now, id);
        self.exchange(now, &mut packets);
        self.packets = packets;
    }

    fn exchange(&mut self, now: Instant, packets: &mut Vec<RxPacket>) {
        self.client.speak(now, packets);
        self.server.listen(now, packets);
        self.server.serve(now, Some(self.listener));
        self.server.speak(now, packets);
        self.client.listen(now, packets);
        self.client.serve(now, None);
    }

    /// Each connection in turn gets its next chunk, if it has room.
    fn write(&mut self, now: Instant) {
        for _ in 0..self.sending.len().min(BATCH) {
            let Some(id) = self.sending.pop_front() else { break };
            self.sending.push_back(id);
            while self.client.shard.write_room(id) >= CHUNK {
                let mut buffer = self.pool.take();
                buffer.as_mut_slice().copy_from_slice(&self.content);
                if self.client.shard.write(now, id, buffer.freeze(CHUNK)).is_err() {
                    // Not connected yet.
                    break;
                }
            }
        }
    }
}

impl Side {
    fn new(config: &PairConfig, host: u8, worker: u16, mail: &Arc<[SegQueue<Mail>]>) -> Self {
        let mut shard_config = ShardConfig::single(7);
        shard_config.worker = worker;
        shard_config.workers = config.workers;
        // The keys stay as they are: both stacks find the same home for a connection, as devices that steer do.
        shard_config.seed[0] = host;
        shard_config.seed[1] = worker as u8;
        let mut shard = Shard::new(shard_config);
        for path in 0..config.paths {
            let addr = Ipv4Addr::new(10, 0, path as u8, host);
            let cidr = IpCidr::new(addr.into(), 24).expect("a prefix of IPv4");
            let flags = EndpointFlags { subflow: path > 0 && host == 1, ..EndpointFlags::default() };
            let gso_max = (LONGEST - HEADER_MAX) as u32;
            let path = PathConfig { gso_max, flags, ..PathConfig::new(PathId(path), vec![cidr]) };
            shard.add_path(Instant::ZERO, path).expect("a new path");
        }
        let (wire, mail) = (Wire::new(config.offload), Arc::clone(mail));
        Self { shard, wire, mail, worker, buffer: vec![0; CHUNK], received: 0, accepted: 0 }
    }

    /// Sends one turn's packets.
    pub fn speak(&mut self, now: Instant, packets: &mut Vec<RxPacket>) {
        for _ in 0..BATCH {
            let Some(packet) = self.shard.poll_transmit(now) else { break };
            self.wire.pass(&packet, packets);
        }
        while let Some((worker, mail)) = self.shard.poll_mail() {
            self.mail[usize::from(worker)].push(mail);
        }
    }

    /// Takes in packets, mail, and time.
    pub fn listen(&mut self, now: Instant, packets: &mut Vec<RxPacket>) {
        for packet in packets.drain(..) {
            self.shard.handle_packet(now, packet);
        }
        while let Some(mail) = self.mail[usize::from(self.worker)].pop() {
            self.shard.handle_mail(now, mail);
        }
        if self.shard.poll_timeout().is_some_and(|due| due <= now) {
            self.shard.handle_timeout(now);
        }
    }

    /// Accepts and reads.
    fn serve(&mut self, now: Instant, listener: Option<ListenerId>) {
        while let Some(event) = self.shard.poll_event() {
            match event {
                Event::Acceptable(_) => {
                    while listener.and_then(|id| self.shard.accept(id)).is_some() {
                        self.accepted += 1;
                    }
                }
                // It broke; what came before was read.
                Event::Closed(id, _) => self.shard.release(now, id),
                Event::Readable(id) => self.read(now, id),
                _ => {}
            }
        }
    }

    fn read(&mut self, now: Instant, id: ConnId) {
        let mut all = 0;
        loop {
            match self.shard.read(id, CHUNK) {
                Read::Data(data) => {
                    self.buffer[..data.len()].copy_from_slice(&data);
                    all += data.len();
                }
                Read::Empty => break,
                Read::Eof | Read::Failed(_) => {
                    // It is over either way; closing what broke does nothing.
                    let _ = self.shard.shutdown(now, id, Shutdown::Both);
                    self.shard.release(now, id);
                    break;
                }
            }
        }
        self.shard.consumed(now, id, all);
        self.received += all as u64;
    }
}

/// Makes received packets of sent ones, as the driver of a device does.
#[derive(Debug)]
pub struct Wire {
    offload: bool,
    pools: [BufferPool; 3],
    segment: Vec<u8>,
}

impl Wire {
    /// With or without offload, see [`PairConfig::offload`].
    #[must_use]
    pub fn new(offload: bool) -> Self {
        let pools = [SMALL, MIDDLE, LONGEST].map(|len| BufferPool::new(len, 256));
        Self { offload, pools, segment: Vec::new() }
    }

    /// Appends what arrives at the other end.
    pub fn pass(&mut self, packet: &Transmit, arrived: &mut Vec<RxPacket>) {
        let Self { offload, pools, segment } = self;
        if *offload {
            let parts = std::iter::once(&*packet.header).chain(packet.payload.iter().map(Payload::as_slice));
            arrived.push(RxPacket {
                path: packet.path,
                data: gather(pools, packet.len(), parts),
                checksum: RxChecksum::Trusted,
                segment_size: packet.segment_size.filter(|&size| packet.payload_len() > usize::from(size)),
            });
        } else {
            gso::for_each_segment(packet, segment, |segment| {
                let data = gather(pools, segment.len(), std::iter::once(segment));
                arrived.push(RxPacket::new(packet.path, data));
            });
        }
    }
}

fn gather<'a>(pools: &[BufferPool; 3], len: usize, parts: impl Iterator<Item = &'a [u8]>) -> Payload {
    let fitting = pools.iter().find(|pool| pool.buffer_len() >= len).unwrap_or(&pools[2]);
    let mut buffer = fitting.take();
    let mut at = 0;
    for part in parts {
        buffer.as_mut_slice()[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    buffer.freeze(at)
}

fn server_addr() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(10, 0, 0, 2), PORT))
}
