//! A bulk transfer between two simulated hosts, from command-line parameters.
//!
//! ```text
//! cargo run -p anabranch-sim --example bulk -- --path 50,10 --path 20,40 --bytes 20000000
//! ```

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anabranch_core::SocketOptions;
use anabranch_sim::{Flow, LinkConfig, Pair, Transfer};
use clap::Parser;

/// Moves bytes from a client to a server over simulated paths and says how it went.
#[derive(Parser)]
struct Args {
    /// A path: rate in Mbit/s, one-way delay in ms, loss in percent, queue in ms of the rate, percent of the packets held
    /// back for up to 20 ms.
    #[arg(long = "path", value_name = "MBITS,MS[,LOSS%[,QUEUE_MS[,HELD%]]]", default_value = "50,10")]
    paths: Vec<String>,
    /// A path goes silent for a while: number of the path, from and to in ms.
    #[arg(long, value_name = "PATH,FROM,TO")]
    outage: Vec<String>,
    /// Bytes to send.
    #[arg(long, default_value_t = 10_000_000)]
    bytes: u64,
    /// The server sends too.
    #[arg(long)]
    both: bool,
    /// Only the server sends.
    #[arg(long)]
    reverse: bool,
    /// Plain TCP.
    #[arg(long)]
    plain: bool,
    /// IPv6.
    #[arg(long)]
    v6: bool,
    /// The server announces its addresses instead of the client joining.
    #[arg(long)]
    announced: bool,
    /// Number of a path that is only a backup.
    #[arg(long)]
    backup: Vec<u16>,
    /// Packet scheduler.
    #[arg(long, default_value = "minrtt")]
    scheduler: String,
    /// Congestion control.
    #[arg(long, default_value = "cubic")]
    congestion: String,
    /// Give up after this many seconds of virtual time.
    #[arg(long, default_value_t = 300)]
    limit: u64,
    /// Seed of everything random; `ANABRANCH_SEED` overrules it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print counters that are not zero.
    #[arg(long)]
    counters: bool,
}

fn numbers(text: &str) -> Vec<f64> {
    text.split(',')
        .map(|part| part.parse().unwrap_or_else(|_| panic!("{part:?} in {text:?} is not a number")))
        .collect()
}

fn ms(millis: f64) -> Duration {
    Duration::from_secs_f64(millis / 1000.0)
}

fn link(args: &Args, path: usize, text: &str) -> LinkConfig {
    let numbers = numbers(text);
    let part = |index: usize, default: f64| numbers.get(index).copied().unwrap_or(default);
    let mut link = LinkConfig::default()
        .rate((part(0, 50.0) * 1e6) as u64)
        .delay(ms(part(1, 10.0)))
        .loss(part(2, 0.0) / 100.0)
        .queue_time(ms(part(3, 100.0)))
        .reorder_within(part(4, 0.0) / 100.0, Duration::ZERO, ms(20.0));
    for outage in args.outage.iter().map(|text| self::numbers(text)) {
        if let [which, from, to] = outage[..]
            && which as usize == path
        {
            link = link.outage(ms(from), ms(to));
        }
    }
    link
}

fn report(name: &str, flow: &Flow) {
    let received = &flow.received;
    println!(
        "{name} received {} bytes, {}, at {:.2} Mbit/s, longest gap {:?}, end of stream at {:?}",
        received.bytes,
        received.wrong_at.map_or("intact".into(), |at| format!("WRONG FROM BYTE {at}")),
        received.rate() / 1e6,
        received.longest_gap,
        flow.eof_at,
    );
    println!("  closed: {:?}; subflows up {}, down {}", flow.closed, flow.subflows_up, flow.subflows_down);
    for subflow in &flow.subflows {
        println!(
            "  subflow {} on {} {:?}: sent {}, retransmitted {}, received {}, srtt {:?}, cwnd {}",
            subflow.id,
            subflow.path,
            subflow.state,
            subflow.bytes_sent,
            subflow.bytes_retrans,
            subflow.bytes_received,
            subflow.srtt,
            subflow.cwnd,
        );
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut builder = Pair::seeded(args.seed);
    for (path, text) in args.paths.iter().enumerate() {
        builder = builder.path(link(&args, path, text));
    }
    if args.announced {
        builder = builder.announced();
    }
    for &path in &args.backup {
        builder = builder.backup(path);
    }
    let mut net = builder.build();

    let options = SocketOptions {
        mptcp: !args.plain,
        scheduler: args.scheduler.clone(),
        congestion: args.congestion.clone(),
        ..SocketOptions::default()
    };
    let remote: SocketAddr = if args.v6 { Pair::server_addr_v6(0) } else { Pair::server_addr(0) };
    let from_server = if args.both || args.reverse { args.bytes } else { 0 };
    let from_client = if args.reverse { 0 } else { args.bytes };
    let server = net.spawn(Pair::SERVER, Transfer::listen(remote).options(options.clone()).sends(from_server));
    let client = net.spawn(Pair::CLIENT, Transfer::connect(remote).options(options).sends(from_client));

    let done = net.run_until(Duration::from_secs(args.limit), |world| {
        world.app(server).completed(1) && world.app(client).completed(1)
    });
    let at = net.elapsed();
    println!("seed {}: {} at {at:?}", net.seed(), if done { "finished" } else { "NOT FINISHED" });
    for flow in net.app(server).flows() {
        report("server", flow);
    }
    report("client", net.app(client).flow());
    for path in 0..args.paths.len() as u16 {
        for (direction, stats) in [("up", net.up_stats(path)), ("down", net.down_stats(path))] {
            let rate = stats.delivered_bytes as f64 * 8.0 / at.as_secs_f64() / 1e6;
            println!(
                "path {path} {direction:4}: {:>11} bytes, {rate:7.2} Mbit/s, drops: queue {}, loss {}, outage {}; queue up to {} packets",
                stats.delivered_bytes,
                stats.dropped_queue,
                stats.dropped_loss,
                stats.dropped_down,
                stats.queue_max_packets,
            );
        }
    }
    if args.counters {
        for (name, host) in [("client", Pair::CLIENT), ("server", Pair::SERVER)] {
            let counters = net.counters(host);
            let set: Vec<_> = counters.iter().filter(|&(_, value)| value > 0).collect();
            println!("{name}: {set:?}");
        }
    }
    if done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
