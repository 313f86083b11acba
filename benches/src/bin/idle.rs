//! `idle`: what a connection costs that is established and has nothing to do.
//!
//! Both ends live in this process, without devices: two shards of the core that hand each other their packets,
//! or two stacks with their workers and sockets on links in memory. A global allocator counts; what it
//! counted is divided by the number of *ends*.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anabranch::{PathConfig, SocketOptions, Stack};
use anabranch_core::{EndpointFlags, Event, IpCidr, Shard, ShardConfig};
use anabranch_counting::{Counting, Heap};
use anabranch_drivers::memory::{MemoryConfig, pair};
use anabranch_frame::{Instant, PathId, Payload, RxChecksum, RxPacket, Transmit};
use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Connections to one port of the server; the ports of the client must suffice for them twice.
const PER_PORT: usize = 12_000;
/// First port of the server.
const FIRST_PORT: u16 = 5001;

/// Bytes of memory per idle connection, one end of it.
#[derive(Debug, Parser)]
#[command(name = "idle", version)]
struct Args {
    /// How many connections.
    #[arg(default_value_t = 100_000)]
    connections: usize,
    /// What to open.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Kind::Tcp, Kind::Mptcp2])]
    kinds: Vec<Kind>,
    /// Count what a program sees: stacks with a worker each and a socket for each end, not the core alone.
    #[arg(long)]
    sockets: bool,
    /// Leave out the byte that goes each way on every connection before it is idle (with one subflow only: before
    /// the first byte the opener does not know that it may join).
    #[arg(long)]
    fresh: bool,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    /// Say how many blocks of which size there are.
    #[arg(long)]
    blocks: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Kind {
    /// Plain TCP.
    Tcp,
    /// MPTCP with one subflow.
    Mptcp1,
    /// MPTCP with two subflows.
    Mptcp2,
}

impl Kind {
    fn paths(self) -> u16 {
        if self == Self::Mptcp2 { 2 } else { 1 }
    }

    fn options(self) -> SocketOptions {
        SocketOptions { mptcp: self != Self::Tcp, ..SocketOptions::default() }
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    for &kind in &args.kinds {
        let used = !args.fresh || kind.paths() > 1;
        let cost = match args.sockets {
            true => sockets(kind, args.connections, used)?,
            false => shards(kind, args.connections, used)?,
        };
        report(&args, kind, &cost);
    }
    Ok(())
}

fn report(args: &Args, kind: Kind, cost: &Heap) {
    let ends = 2.0 * args.connections as f64;
    let each = cost.bytes as f64 / ends;
    let name = kind.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
    let level = if args.sockets { "socket" } else { "core" };
    if args.json {
        let object = serde_json::json!({
            "kind": name, "level": level, "connections": args.connections, "bytes_per_end": each,
        });
        println!("{object}");
    } else {
        println!("{level:<6} {name:<6} {:>9} connections: {each:>7.0} bytes an end", args.connections);
    }
    if args.blocks {
        for (size, blocks) in cost.sizes().filter(|(_, blocks)| blocks.unsigned_abs() as f64 > ends / 100.0) {
            let each = blocks as f64 / ends;
            println!("    {size:>6} bytes × {each:.2} = {:>7.1}", size as f64 * each);
        }
        let small: i64 = cost.sizes().map(|(size, blocks)| size as i64 * blocks).sum();
        println!("    tables and other large blocks: {:.1}", (cost.bytes - small) as f64 / ends);
    }
}

fn path_config(path: u16, host: u8) -> PathConfig {
    let id = PathId(path);
    let addr = IpCidr { addr: addr(path, host), prefix: 24 };
    let flags = EndpointFlags { subflow: host == 1 && path > 0, ..EndpointFlags::default() };
    PathConfig { flags, ..PathConfig::new(id, vec![addr]) }
}

fn addr(path: u16, host: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, path as u8, host))
}

fn server(connection: usize) -> SocketAddr {
    SocketAddr::new(addr(0, 2), FIRST_PORT + (connection / PER_PORT) as u16)
}

fn ports(connections: usize) -> usize {
    connections.div_ceil(PER_PORT)
}

// --- the core alone ----------------------------------------------------------------------------------------

/// Two shards, the client first, and the time.
struct Net {
    hosts: [Shard; 2],
    now: Instant,
    closed: usize,
    subflows_up: usize,
}

impl Net {
    fn new(paths: u16, connections: usize) -> Result<Self> {
        let host = |number: u8| {
            let mut config = ShardConfig::single(u64::from(number));
            config.max_connections = connections;
            let mut shard = Shard::new(config);
            for path in 0..paths {
                shard.add_path(Instant::ZERO, path_config(path, number))?;
            }
            Ok::<_, anabranch_core::Error>(shard)
        };
        Ok(Self { hosts: [host(1)?, host(2)?], now: Instant::from_millis(1), closed: 0, subflows_up: 0 })
    }

    /// Passes packets until nobody has anything to say.
    fn settle(&mut self) {
        loop {
            let mut said = false;
            for from in [0, 1] {
                while let Some(packet) = self.hosts[from].poll_transmit(self.now) {
                    said = true;
                    self.hosts[1 - from].handle_packet(self.now, received(&packet));
                }
                while let Some(event) = self.hosts[from].poll_event() {
                    self.closed += usize::from(matches!(event, Event::Closed(..)));
                    self.subflows_up += usize::from(matches!(event, Event::SubflowUp(..)));
                }
            }
            if !said {
                break;
            }
        }
    }

    /// Lets time pass: whatever waits for it happens.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.hosts.iter().filter_map(Shard::poll_timeout).min().filter(|&next| next <= end) {
            self.now = self.now.max(next);
            for host in &mut self.hosts {
                host.handle_timeout(self.now);
            }
            self.settle();
        }
        self.now = end;
    }
}

fn received(packet: &Transmit) -> RxPacket {
    let mut bytes = packet.header.to_vec();
    packet.payload.iter().for_each(|piece| bytes.extend_from_slice(piece));
    RxPacket { checksum: RxChecksum::Trusted, ..RxPacket::new(packet.path, Payload::from(bytes)) }
}

fn shards(kind: Kind, connections: usize, used: bool) -> Result<Heap> {
    let mut net = Net::new(kind.paths(), connections)?;
    let options = kind.options();
    let listeners: Vec<_> = (0..ports(connections))
        .map(|port| net.hosts[1].listen(server(port * PER_PORT), PER_PORT, options.clone()))
        .collect::<Result<_, _>>()?;
    let before = Heap::now();
    for connection in 0..connections {
        let ours = net.hosts[0].connect(net.now, None, server(connection), &options)?;
        net.settle();
        let (theirs, _) = net.hosts[1].accept(listeners[connection / PER_PORT]).context("nothing to accept")?;
        if used {
            for (host, id) in [(0, ours), (1, theirs)] {
                net.hosts[host].write(net.now, id, Payload::from(b"x"))?;
                net.settle();
                let other = if host == 0 { theirs } else { ours };
                net.hosts[1 - host].read(other, 1);
                net.hosts[1 - host].consumed(net.now, other, 1);
            }
        }
        if connection % 1000 == 999 {
            net.pass(Duration::from_millis(1));
        }
    }
    net.pass(Duration::from_secs(10));
    let cost = Heap::now() - before;
    let expected = 2 * connections * usize::from(kind.paths() - 1);
    ensure!(net.closed == 0, "{} connections broke", net.closed);
    ensure!(net.subflows_up == expected, "{} subflows joined, not {expected}", net.subflows_up);
    Ok(cost)
}

// --- stacks and sockets ------------------------------------------------------------------------------------

fn stacks(paths: u16, connections: usize) -> Result<[Stack; 2]> {
    let builder = || Stack::builder().workers(1).max_connections(connections);
    let mut builders = [builder(), builder()];
    for path in 0..paths {
        let (a, b) = pair([PathId(path); 2], MemoryConfig::default())?;
        let [client, server] = builders;
        builders = [
            client.devices(path_config(path, 1), vec![Box::new(a)]),
            server.devices(path_config(path, 2), vec![Box::new(b)]),
        ];
    }
    let [client, server] = builders;
    Ok([client.build()?, server.build()?])
}

fn sockets(kind: Kind, connections: usize, used: bool) -> Result<Heap> {
    use std::io::{Read as _, Write as _};
    let [client, host] = stacks(kind.paths(), connections)?;
    let options = |stack: &Stack| SocketOptions { mptcp: kind != Kind::Tcp, ..stack.socket_options() };
    let listeners: Vec<_> = (0..ports(connections))
        .map(|port| host.listen_with(server(port * PER_PORT), 128, options(&host)))
        .collect::<Result<_, _>>()?;
    let mut ends = Vec::with_capacity(2 * connections);
    let before = Heap::now();
    for connection in 0..connections {
        let connect = anabranch::ConnectOptions { options: Some(options(&client)), ..Default::default() };
        let ours = client.connect_with(server(connection), connect)?;
        let (theirs, _) = listeners[connection / PER_PORT].accept()?;
        if used {
            for (mut from, mut to) in [(&ours, &theirs), (&theirs, &ours)] {
                from.write_all(b"x")?;
                to.read_exact(&mut [0])?;
            }
        }
        ends.extend([ours, theirs]);
    }
    std::thread::sleep(Duration::from_secs(3));
    let cost = Heap::now() - before;
    let mut subflows = BTreeMap::new();
    for end in [ends.first(), ends.last()].into_iter().flatten() {
        *subflows.entry(end.subflows()?.len()).or_insert(0) += 1;
    }
    ensure!(subflows.get(&usize::from(kind.paths())) == Some(&2), "subflows: {subflows:?}");
    Ok(cost)
}
