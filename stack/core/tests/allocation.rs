//! In steady state a packet costs no allocation.
//!
//! Two shards hand each other their packets over links in virtual time. Buffers come from pools, as those of devices
//! do. After a warm-up, in which queues and tables grow to their sizes, whole transfers must pass without one
//! allocation, whatever it is for.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anabranch_core::shard::Read;
use anabranch_core::{ConnId, EndpointFlags, Event, IpCidr, ListenerId, PathConfig, Shard, ShardConfig, SocketOptions};
use anabranch_counting::{Counting, allocations_of_this_thread};
use anabranch_frame::{BufferPool, Instant, PathId, Payload, RxChecksum, RxPacket, Transmit};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const DELAY: Duration = Duration::from_millis(1);
const CHUNK: usize = 64 << 10;
const CLIENT: usize = 0;
const SERVER: usize = 1;

/// What passes between the two, and how.
#[derive(Clone, Copy, Debug)]
struct Setting {
    mptcp: bool,
    paths: u16,
    /// Largest super-segment, 0 for none.
    gso_max: u32,
    /// Every so manieth packet with payload is lost; 0: none.
    lose: u32,
}

struct Net {
    hosts: [Shard; 2],
    listener: ListenerId,
    now: Instant,
    /// Packets on their way: when they arrive, and where.
    wire: VecDeque<(Instant, usize, RxPacket)>,
    buffers: [BufferPool; 2],
    lose: u32,
    packets: u64,
    with_payload: u32,
    subflows: usize,
}

impl Net {
    fn new(setting: Setting) -> Self {
        let options = options(setting);
        let mut hosts = [CLIENT, SERVER].map(|host| {
            let mut shard = Shard::new(ShardConfig::single(host as u64));
            for path in 0..setting.paths {
                let addr = IpCidr { addr: addr(path, host), prefix: 24 };
                let flags = EndpointFlags { subflow: host == CLIENT && path > 0, ..EndpointFlags::default() };
                let config = PathConfig::new(PathId(path), vec![addr]);
                shard.add_path(Instant::ZERO, PathConfig { flags, gso_max: setting.gso_max, ..config }).unwrap();
            }
            shard
        });
        let listener = hosts[SERVER].listen(server_addr(), 1, options).unwrap();
        let (now, buffers) = (Instant::from_millis(1), [BufferPool::new(256, 8192), BufferPool::new(CHUNK, 8192)]);
        let (wire, lose) = (VecDeque::with_capacity(8192), setting.lose);
        Self { hosts, listener, now, wire, buffers, lose, packets: 0, with_payload: 0, subflows: 1 }
    }

    fn payload(&self, len: usize) -> Payload {
        let pool = &self.buffers[usize::from(len > 256)];
        pool.take().freeze(len)
    }

    fn carry(&mut self, from: usize, transmit: &Transmit) {
        self.packets += 1;
        let len = transmit.payload_len();
        if len > 0 && self.lose > 0 {
            self.with_payload += 1;
            if self.with_payload.is_multiple_of(self.lose) {
                return;
            }
        }
        let pool = &self.buffers[usize::from(transmit.len() > 256)];
        let mut buffer = pool.take();
        let mut at = 0;
        for part in std::iter::once(&*transmit.header).chain(transmit.payload.iter().map(Payload::as_slice)) {
            buffer.as_mut_slice()[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        let packet = RxPacket {
            path: transmit.path,
            data: buffer.freeze(at),
            checksum: RxChecksum::Trusted,
            segment_size: transmit.segment_size,
        };
        self.wire.push_back((self.now + DELAY, 1 - from, packet));
    }

    /// Both hosts say what they have to say, then time passes until something happens.
    fn step(&mut self) {
        for host in [CLIENT, SERVER] {
            while let Some(transmit) = self.hosts[host].poll_transmit(self.now) {
                self.carry(host, &transmit);
            }
            while let Some(event) = self.hosts[host].poll_event() {
                assert!(!matches!(event, Event::Closed(..)), "{event:?}");
                self.subflows += usize::from(host == CLIENT && matches!(event, Event::SubflowUp(..)));
            }
        }
        let timers = self.hosts.iter().filter_map(Shard::poll_timeout);
        let next = self.wire.front().map(|(at, ..)| *at).into_iter().chain(timers).min();
        self.now = self.now.max(next.expect("something to wait for"));
        for host in &mut self.hosts {
            host.handle_timeout(self.now);
        }
        while self.wire.front().is_some_and(|(at, ..)| *at <= self.now) {
            let Some((_, host, packet)) = self.wire.pop_front() else { break };
            self.hosts[host].handle_packet(self.now, packet);
        }
    }

    /// Reads and gives back everything. How much that was.
    fn read(&mut self, host: usize, conn: ConnId) -> usize {
        let mut bytes = 0;
        while let Read::Data(piece) = self.hosts[host].read(conn, usize::MAX) {
            bytes += piece.len();
        }
        if bytes > 0 {
            self.hosts[host].consumed(self.now, conn, bytes);
        }
        bytes
    }

    /// Sends `total` bytes one way, as fast as it goes.
    fn bulk(&mut self, from: usize, conns: [ConnId; 2], total: usize) {
        let (mut written, mut read) = (0, 0);
        while read < total {
            while written < total && self.hosts[from].write_room(conns[from]) > 0 {
                let chunk = self.payload(CHUNK.min(total - written));
                written += chunk.len();
                self.hosts[from].write(self.now, conns[from], chunk).unwrap();
            }
            self.step();
            read += self.read(1 - from, conns[1 - from]);
        }
    }

    /// A request of `len` bytes and an answer of as many, `times` times.
    fn ping_pong(&mut self, conns: [ConnId; 2], len: usize, times: usize) {
        for _ in 0..times {
            for from in [CLIENT, SERVER] {
                let message = self.payload(len);
                self.hosts[from].write(self.now, conns[from], message).unwrap();
                let mut read = 0;
                while read < len {
                    self.step();
                    read += self.read(1 - from, conns[1 - from]);
                }
            }
        }
    }

    fn connect(&mut self, setting: Setting) -> [ConnId; 2] {
        let ours = self.hosts[CLIENT].connect(self.now, None, server_addr(), &options(setting)).unwrap();
        let theirs = loop {
            self.step();
            if let Some((theirs, _)) = self.hosts[SERVER].accept(self.listener) {
                break theirs;
            }
        };
        let conns = [ours, theirs];
        self.ping_pong(conns, 100, 20);
        assert_eq!(self.subflows, usize::from(setting.paths), "{setting:?}");
        conns
    }
}

/// Small buffers, so that they have grown to their sizes soon.
fn options(setting: Setting) -> SocketOptions {
    SocketOptions {
        mptcp: setting.mptcp,
        nodelay: true,
        send_buffer_max: 2 << 20,
        recv_buffer_max: 1 << 20,
        ..SocketOptions::default()
    }
}

fn addr(path: u16, host: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, path as u8, host as u8 + 1))
}

fn server_addr() -> SocketAddr {
    SocketAddr::new(addr(0, SERVER), 5001)
}

const SETTINGS: [Setting; 4] = [
    Setting { mptcp: false, paths: 1, gso_max: 0, lose: 0 },
    Setting { mptcp: false, paths: 1, gso_max: 60_000, lose: 0 },
    Setting { mptcp: true, paths: 2, gso_max: 0, lose: 0 },
    Setting { mptcp: true, paths: 2, gso_max: 60_000, lose: 0 },
];

/// Runs `work` until it is warm, then once more, and says how many allocations and packets that cost.
fn cost(net: &mut Net, warm_up: usize, mut work: impl FnMut(&mut Net)) -> (u64, u64) {
    for _ in 0..warm_up {
        work(net);
    }
    let before = (allocations_of_this_thread(), net.packets);
    work(net);
    (allocations_of_this_thread() - before.0, net.packets - before.1)
}

#[test]
fn bulk_costs_no_allocation() {
    for setting in SETTINGS {
        let mut net = Net::new(setting);
        let conns = net.connect(setting);
        for from in [CLIENT, SERVER] {
            let (allocations, packets) = cost(&mut net, 3, |net| net.bulk(from, conns, 40 << 20));
            assert!(packets > 500, "{packets} packets");
            assert_eq!(allocations, 0, "{setting:?} from {from}: {packets} packets");
        }
    }
}

#[test]
fn requests_and_answers_cost_no_allocation() {
    for setting in SETTINGS {
        for len in [1, 200, 20_000] {
            let mut net = Net::new(setting);
            let conns = net.connect(setting);
            let (allocations, packets) = cost(&mut net, 2, |net| net.ping_pong(conns, len, 1000));
            assert!(packets >= 2000, "{packets} packets");
            assert_eq!(allocations, 0, "{setting:?}, {len} bytes: {packets} packets");
        }
    }
}

/// What lies behind a hole is in maps, whose nodes come and go with the holes.
#[test]
fn losses_cost_an_allocation_at_most_and_other_packets_none() {
    for setting in SETTINGS {
        let setting = Setting { lose: 200, ..setting };
        let mut net = Net::new(setting);
        let conns = net.connect(setting);
        for from in [CLIENT, SERVER] {
            let (allocations, packets) = cost(&mut net, 4, |net| net.bulk(from, conns, 40 << 20));
            let lost = packets / u64::from(setting.lose);
            assert!(allocations <= lost, "{setting:?} from {from}: {allocations} allocations, {packets} packets");
        }
    }
}
