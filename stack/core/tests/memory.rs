//! The budget of memory, against peers that do their worst and applications that never read.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anabranch_core::shard::{MemoryUse, Read};
use anabranch_core::wire::{Flags, IpOut, OptionWriter, Segment, SegmentOut, SeqNum, Tuple};
use anabranch_core::{ConnId, Error, Event, IpCidr, ListenerId, PathConfig, Shard, ShardConfig, SocketOptions};
use anabranch_counting::{Counting, bytes_of_this_thread};
use anabranch_frame::{Instant, PathId, Payload, RxChecksum, RxPacket, Slices, Transmit};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const PATH: PathId = PathId(0);
const SEGMENT: usize = 1448;
/// What every received packet lies in here, however short it is.
const BUFFER: usize = 64 << 10;
const MIB: u64 = 1 << 20;

/// A server with a budget, and the time.
struct Server {
    shard: Shard,
    listener: ListenerId,
    now: Instant,
    /// Connections that were told of room to write.
    writable: BTreeSet<ConnId>,
}

fn server_addr() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 5001)
}

impl Server {
    fn new(budget: u64) -> Self {
        let mut shard = Shard::new(ShardConfig { memory: budget, ..ShardConfig::single(1) });
        let addr = IpCidr { addr: server_addr().ip(), prefix: 24 };
        shard.add_path(Instant::ZERO, PathConfig::new(PATH, vec![addr])).unwrap();
        let options = SocketOptions { mptcp: false, nodelay: true, ..SocketOptions::default() };
        let listener = shard.listen(server_addr(), 10_000, options).unwrap();
        Self { shard, listener, now: Instant::from_millis(1), writable: BTreeSet::new() }
    }

    /// Hands it a segment. What it says to `peer`, the peer notes; the books are checked.
    fn hear(&mut self, peer: &mut Peer, flags: Flags, at: u32, bytes: &[u8]) {
        let packet = peer.segment(flags, at, bytes);
        self.shard.handle_packet(self.now, packet);
        self.speak(peer);
    }

    fn speak(&mut self, peer: &mut Peer) {
        while let Some(transmit) = self.shard.poll_transmit(self.now) {
            let segment = seen(&transmit);
            assert_eq!(segment.tuple.local, peer.tuple.local, "said to somebody else");
            peer.note(&segment);
        }
        self.hear_events();
    }

    /// Lets go what is delayed. What is said to others than `peers` is lost.
    fn wait(&mut self, peers: &mut [Peer]) {
        self.now += Duration::from_millis(250);
        self.shard.handle_timeout(self.now);
        while let Some(transmit) = self.shard.poll_transmit(self.now) {
            let segment = seen(&transmit);
            if let Some(peer) = peers.iter_mut().find(|peer| peer.tuple.local == segment.tuple.local) {
                peer.note(&segment);
            }
        }
        self.hear_events();
    }

    fn hear_events(&mut self) {
        while let Some(event) = self.shard.poll_event() {
            if let Event::Writable(conn) = event {
                self.writable.insert(conn);
            }
        }
        assert_eq!(self.memory().used, self.shard.counters().memory);
    }

    fn memory(&self) -> MemoryUse {
        self.shard.memory()
    }

    fn check_books(&self) {
        assert_eq!(self.memory().used, self.shard.audit_memory(), "what is accounted is not what is held");
    }

    fn accept(&mut self, peer: &mut Peer) -> ConnId {
        self.hear(peer, Flags::SYN, 0, b"");
        assert!(peer.connected, "no SYN/ACK for {:?}", peer.tuple);
        self.hear(peer, Flags::ACK, 1, b"");
        self.shard.accept(self.listener).expect("a connection").0
    }

    /// Reads everything and gives it back.
    fn read(&mut self, peer: &mut Peer, conn: ConnId) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Read::Data(piece) = self.shard.read(conn, usize::MAX) {
            bytes.extend_from_slice(&piece);
        }
        self.shard.consumed(self.now, conn, bytes.len());
        self.speak(peer);
        bytes
    }
}

/// The other end of a connection, by hand.
struct Peer {
    tuple: Tuple,
    connected: bool,
    reset: bool,
    /// Sequence number of the server's SYN, and the server's bytes that came in order.
    irs: SeqNum,
    received: u32,
    /// How far the server acknowledged, and the largest edge that it told, counted from our SYN.
    acked: u32,
    edge: u32,
}

impl Peer {
    const ISS: SeqNum = SeqNum(u32::MAX - 1000);

    fn new(number: u16) -> Self {
        let local = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 10_000 + number);
        let tuple = Tuple { local, remote: server_addr() };
        Self { tuple, connected: false, reset: false, irs: SeqNum(0), received: 0, acked: 0, edge: 0 }
    }

    fn segment(&self, flags: Flags, at: u32, bytes: &[u8]) -> RxPacket {
        let mut options = OptionWriter::new();
        if flags.has(Flags::SYN) {
            options.syn(1460, Some(8), true, None);
        }
        let ack = if self.connected { self.irs.add(1 + self.received) } else { SeqNum(0) };
        let flags = if self.connected { flags.with(Flags::ACK) } else { flags };
        let out = SegmentOut {
            tuple: self.tuple,
            seq: Self::ISS.add(at),
            ack,
            flags,
            window: u16::MAX,
            ip: IpOut::default(),
            options: &options,
            payload_len: bytes.len() as u32,
        };
        let transmit = out.transmit(PATH, Slices::from_iter([Payload::from(bytes)]), None);
        let datagram: Vec<u8> = transmit.header.iter().chain(bytes).copied().collect();
        let data = Payload::copy_with_capacity(&datagram, BUFFER);
        RxPacket { checksum: RxChecksum::Trusted, ..RxPacket::new(PATH, data) }
    }

    fn note(&mut self, segment: &Segment) {
        if segment.flags.has(Flags::RST) {
            self.reset = true;
            return;
        }
        self.acked = segment.ack.distance(Self::ISS) as u32;
        if segment.flags.has(Flags::SYN) {
            self.connected = true;
            self.irs = segment.seq;
            self.edge = self.acked + u32::from(segment.window);
            return;
        }
        // The default receive buffer of 15 MiB needs a scale of 8.
        let edge = self.acked + (u32::from(segment.window) << 8);
        assert!(edge + 256 > self.edge, "the window shrank from {} to {edge}", self.edge);
        self.edge = self.edge.max(edge);
        if segment.seq == self.irs.add(1 + self.received) {
            self.received += segment.payload.len() as u32;
        }
    }
}

/// A segment as its receiver sees it.
fn seen(transmit: &Transmit) -> Segment {
    let mut bytes = transmit.header.to_vec();
    transmit.payload.iter().for_each(|piece| bytes.extend_from_slice(piece));
    let packet = RxPacket { checksum: RxChecksum::Trusted, ..RxPacket::new(PATH, Payload::from(bytes)) };
    Segment::parse(packet).unwrap()
}

fn pattern(at: u32, len: usize) -> Vec<u8> {
    (0..len as u32).map(|n| ((at + n) % 251) as u8).collect()
}

/// Sends what the window allows, from what is acknowledged on. Returns whether anything of it was taken.
fn push(server: &mut Server, peer: &mut Peer) -> bool {
    let begin = peer.acked;
    let mut at = begin;
    while at < peer.edge {
        let bytes = pattern(at, SEGMENT.min((peer.edge - at) as usize));
        server.hear(peer, Flags::PSH, at, &bytes);
        at += bytes.len() as u32;
    }
    if peer.acked == begin {
        server.wait(core::slice::from_mut(peer));
    }
    peer.acked > begin
}

#[test]
fn ten_bytes_never_pin_a_buffer() {
    // Given a connection with all the memory it may want,
    let mut server = Server::new(u64::MAX);
    let mut peer = Peer::new(0);
    let conn = server.accept(&mut peer);
    server.hear(&mut peer, Flags::PSH, 1, b"x");
    let (before, used) = (bytes_of_this_thread(), server.memory().used);

    // when its peer leaves a hole after every byte,
    for island in 0..5000 {
        server.hear(&mut peer, Flags::PSH, 3 + 2 * island, b"x");
        if island % 100 == 0 {
            server.check_books();
        }
    }

    // then what that costs is bounded, and the books do not say less than the allocator.
    let accounted = server.memory().used - used;
    let held = (bytes_of_this_thread() - before) as u64;
    assert!(held > 0 && held <= accounted, "{held} bytes are held, {accounted} accounted");
    assert!(accounted < 2 * MIB, "{accounted}");

    // In order they end up in few buffers.
    for island in 0..5000 {
        server.hear(&mut peer, Flags::PSH, 2 + 2 * island, b"x");
    }
    server.check_books();
    let bytes = server.read(&mut peer, conn).len() as u32;
    assert!(bytes > 2 * 4096 && bytes + 1 == peer.acked, "{bytes}");
}

#[test]
fn readers_that_never_read_leave_the_others_alive() {
    const READERS: u16 = 1000;
    const BUDGET: u64 = 16 * MIB;
    // Given a thousand connections whose applications do not read, and one whose does,
    let mut server = Server::new(BUDGET);
    let mut peers: Vec<Peer> = (0..=READERS).map(Peer::new).collect();
    let conns: Vec<ConnId> = peers.iter_mut().map(|peer| server.accept(peer)).collect();
    let (alive, stuck) = peers.split_first_mut().unwrap();

    // when their peers send all that they may, again and again,
    for round in 0..3 {
        for peer in &mut *stuck {
            push(&mut server, peer);
        }
        server.check_books();
        assert!(server.memory().tight, "round {round}");
    }

    // then the budget holds but for one packet of each,
    let MemoryUse { used, .. } = server.memory();
    assert!((BUDGET..BUDGET + 2 * MIB).contains(&used), "{used}");
    let counters = *server.shard.counters();
    assert!(counters.tcp_memory_pressures == 1 && counters.tcp_rcvq_drop > 0, "{counters:?}");

    // a new connection is refused with a reset, from either side,
    let mut stranger = Peer::new(READERS + 1);
    server.hear(&mut stranger, Flags::SYN, 0, b"");
    assert!(stranger.reset);
    let now = server.now;
    let options = SocketOptions::default();
    assert_eq!(server.shard.connect(now, None, alive.tuple.local, &options), Err(Error::OutOfMemory));
    let after = *server.shard.counters();
    assert_eq!((after.listen_drops, after.tcp_abort_on_memory), (counters.listen_drops + 1, 1));

    // and the one that reads gets everything, and can answer.
    for _ in 0..20 {
        let at = alive.acked;
        assert!(push(&mut server, alive));
        assert_eq!(server.read(alive, conns[0]), pattern(at, (alive.acked - at) as usize));
        let now = server.now;
        let answered = alive.received;
        server.shard.write(now, conns[0], Payload::from(b"answer")).unwrap();
        server.speak(alive);
        assert_eq!(alive.received, answered + 6);
    }

    // When the others read at last, all that was acknowledged is there,
    for (peer, conn) in stuck.iter_mut().zip(&conns[1..]) {
        assert_eq!(server.read(peer, *conn), pattern(1, peer.acked as usize - 1));
    }
    server.check_books();
    assert!(!server.memory().tight);
    // and there is room for strangers.
    let mut stranger = Peer::new(READERS + 2);
    server.accept(&mut stranger);
}

#[test]
fn islands_are_refused_when_memory_is_used_up() {
    const BUDGET: u64 = 4 * MIB;
    let mut server = Server::new(BUDGET);
    let mut peers: Vec<Peer> = (0..100).map(Peer::new).collect();
    let conns: Vec<ConnId> = peers.iter_mut().map(|peer| server.accept(peer)).collect();

    for peer in &mut peers {
        server.hear(peer, Flags::PSH, 1, b"x");
    }
    for island in 0..3000 {
        for peer in &mut peers {
            server.hear(peer, Flags::PSH, 3 + 2 * island, b"x");
        }
    }

    server.wait(&mut peers);
    server.check_books();
    let counters = *server.shard.counters();
    assert!(server.memory().used < BUDGET + MIB / 4 && counters.tcp_ofo_drop > 0, "{:?}", server.memory());
    // Each of them comes on as soon as its hole is filled and it is read.
    for (peer, conn) in peers.iter_mut().zip(conns) {
        assert_eq!(server.read(peer, conn), b"x");
        while peer.acked < 2 * 3000 {
            let at = peer.acked;
            server.hear(peer, Flags::PSH, at, b"xx");
            if peer.acked == at {
                // A delayed acknowledgement.
                server.wait(core::slice::from_mut(peer));
            }
            assert!(!server.read(peer, conn).is_empty());
        }
    }
    server.check_books();
}

#[test]
fn writers_get_room_again_when_memory_does() {
    const BUDGET: u64 = 8 * MIB;
    // Given connections whose peers acknowledge nothing, and applications that write while there is room,
    let mut server = Server::new(BUDGET);
    let mut peers: Vec<Peer> = (0..180).map(Peer::new).collect();
    let conns: Vec<ConnId> = peers.iter_mut().map(|peer| server.accept(peer)).collect();
    let now = server.now;
    for &conn in &conns {
        while server.shard.write_room(conn) > 0 {
            server.shard.write(now, conn, Payload::from(vec![7; 16 << 10])).unwrap();
        }
    }
    while server.shard.poll_transmit(now).is_some() {}
    server.check_books();
    // then under pressure each gets a small buffer, and the budget holds.
    assert!(server.memory().tight && server.memory().used < BUDGET + 4 * MIB + MIB / 2, "{:?}", server.memory());

    // When the peers acknowledge what was sent, then every writer hears that there is room.
    for peer in &mut peers {
        for _ in 0..200 {
            peer.received += SEGMENT as u32 * 10;
            let was = server.shard.counters().tcp_ack_unsent;
            let packet = peer.segment(Flags::ACK, 1, b"");
            server.shard.handle_packet(now, packet);
            while server.shard.poll_transmit(now).is_some() {}
            if server.shard.counters().tcp_ack_unsent > was {
                peer.received -= SEGMENT as u32 * 10;
            }
        }
    }
    while let Some(event) = server.shard.poll_event() {
        if let Event::Writable(conn) = event {
            server.writable.insert(conn);
        }
    }
    assert_eq!(server.writable.len(), conns.len());
    assert!(!server.memory().tight, "{:?}", server.memory());
    server.check_books();
}

#[test]
fn closed_connections_hold_nothing() {
    let mut server = Server::new(64 * MIB);
    for number in 0..100 {
        let mut peer = Peer::new(number);
        let conn = server.accept(&mut peer);
        push(&mut server, &mut peer);
        let now = server.now;
        server.shard.abort(now, conn);
        server.shard.release(now, conn);
        server.speak(&mut peer);
        assert!(peer.reset);
    }
    assert_eq!((server.memory().used, server.shard.audit_memory(), server.shard.connections()), (0, 0, 0));
}

#[test]
fn a_connection_at_rest_is_small() {
    const CONNECTIONS: u16 = 1000;
    /// Bytes of the heap, tables included. Whoever needs more says so in docs/performance.md.
    const MOST: i64 = 1400;
    // Given connections that have carried a byte,
    let mut server = Server::new(u64::MAX);
    let mut peers: Vec<Peer> = (0..CONNECTIONS).map(Peer::new).collect();
    let before = bytes_of_this_thread();
    for peer in &mut peers {
        let conn = server.accept(peer);
        server.hear(peer, Flags::PSH, 1, b"x");
        assert_eq!(server.read(peer, conn), b"x");
    }
    let awake = bytes_of_this_thread() - before;

    // when nothing happens for a while,
    for _ in 0..10 {
        server.wait(&mut peers);
    }

    // then little is held for each.
    let each = (bytes_of_this_thread() - before) / i64::from(CONNECTIONS);
    assert!(each > 0 && each <= MOST, "{each} bytes, {} before it rested", awake / i64::from(CONNECTIONS));
}
