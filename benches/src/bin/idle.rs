//! `idle`: what a connection costs that is established and has nothing to do.
//!
//! Both ends live in this process, without devices: two shards of the core that hand each other their packets,
//! or two stacks with their workers and sockets on links in memory. A global allocator counts; what it
//! counted is divided by the number of *ends*.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anabranch::{SocketOptions, Stack};
use anabranch_benches::idle::{self, Kind};
use anabranch_counting::{Counting, Heap};
use anabranch_drivers::memory::{MemoryConfig, pair};
use anabranch_frame::PathId;
use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

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
    /// One JSON object a line, with nothing but numbers in it.
    #[arg(long)]
    json: bool,
    /// Say how many blocks of which size there are.
    #[arg(long)]
    blocks: bool,
}

/// What the process holds.
struct Held {
    heap: Heap,
    /// Bytes of its memory that no file stands behind.
    resident: i64,
}

impl Held {
    fn now() -> Result<Self> {
        let status = fs::read_to_string("/proc/self/status").context("reading /proc/self/status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<i64>().ok());
        Ok(Self { heap: Heap::now(), resident: kib.context("no RssAnon in /proc/self/status")? << 10 })
    }

    fn since(self, before: Self) -> Self {
        Self { resident: self.resident - before.resident, heap: self.heap - before.heap }
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    for &kind in &args.kinds {
        let used = !args.fresh || kind.paths() > 1;
        let cost = match args.sockets {
            true => sockets(kind, args.connections, used)?,
            false => {
                let [before, after] = idle::rest(kind, args.connections, used, Held::now)?;
                after?.since(before?)
            }
        };
        report(&args, kind, &cost);
    }
    Ok(())
}

fn report(args: &Args, kind: Kind, cost: &Held) {
    let ends = 2.0 * args.connections as f64;
    let (heap, resident) = (cost.heap.bytes as f64 / ends, cost.resident as f64 / ends);
    let name = kind.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
    let level = if args.sockets { "socket" } else { "core" };
    if args.json {
        println!("{}", serde_json::json!({ "heap_per_end": heap, "resident_per_end": resident }));
    } else {
        let connections = args.connections;
        println!(
            "{level:<6} {name:<6} {connections:>9} connections: {heap:>7.0} bytes an end, {resident:>7.0} resident"
        );
    }
    if args.blocks {
        for (size, blocks) in cost.heap.sizes().filter(|(_, blocks)| blocks.unsigned_abs() as f64 > ends / 100.0) {
            let each = blocks as f64 / ends;
            println!("    {size:>6} bytes × {each:.2} = {:>7.1}", size as f64 * each);
        }
        let small: i64 = cost.heap.sizes().map(|(size, blocks)| size as i64 * blocks).sum();
        println!("    tables and other large blocks: {:.1}", (cost.heap.bytes - small) as f64 / ends);
    }
}

fn stacks(paths: u16, connections: usize) -> Result<[Stack; 2]> {
    let builder = || Stack::builder().workers(1).max_connections(connections);
    let mut builders = [builder(), builder()];
    for path in 0..paths {
        let (a, b) = pair([PathId(path); 2], MemoryConfig::default())?;
        let [client, server] = builders;
        builders = [
            client.devices(idle::path_config(path, 1), vec![Box::new(a)]),
            server.devices(idle::path_config(path, 2), vec![Box::new(b)]),
        ];
    }
    let [client, server] = builders;
    Ok([client.build()?, server.build()?])
}

fn sockets(kind: Kind, connections: usize, used: bool) -> Result<Held> {
    use std::io::{Read as _, Write as _};
    let [client, host] = stacks(kind.paths(), connections)?;
    let options = |stack: &Stack| SocketOptions { mptcp: kind != Kind::Tcp, ..stack.socket_options() };
    let listeners: Vec<_> = (0..idle::ports(connections))
        .map(|port| host.listen_with(idle::server(port * idle::PER_PORT), 128, options(&host)))
        .collect::<Result<_, _>>()?;
    let mut ends = Vec::with_capacity(2 * connections);
    let before = Held::now()?;
    for connection in 0..connections {
        let connect = anabranch::ConnectOptions { options: Some(options(&client)), ..Default::default() };
        let ours = client.connect_with(idle::server(connection), connect)?;
        let (theirs, _) = listeners[connection / idle::PER_PORT].accept()?;
        if used {
            for (mut from, mut to) in [(&ours, &theirs), (&theirs, &ours)] {
                from.write_all(b"x")?;
                to.read_exact(&mut [0])?;
            }
        }
        ends.extend([ours, theirs]);
    }
    std::thread::sleep(Duration::from_secs(3));
    let cost = Held::now()?.since(before);
    let mut subflows = BTreeMap::new();
    for end in [ends.first(), ends.last()].into_iter().flatten() {
        *subflows.entry(end.subflows()?.len()).or_insert(0) += 1;
    }
    ensure!(subflows.get(&usize::from(kind.paths())) == Some(&2), "subflows: {subflows:?}");
    Ok(cost)
}
