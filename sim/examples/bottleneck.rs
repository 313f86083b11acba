//! Flows that share one bottleneck: what each gets, how long the queue is, what is sent twice.
//!
//! ```text
//! cargo run --release -p anabranch-sim --example bottleneck -- --rate 100 --rtt 20 --queue 0.25 bbr cubic
//! ```

use std::time::Duration;

use anabranch_core::SocketOptions;
use anabranch_sim::{LinkConfig, Pair, Transfer};
use clap::Parser;

/// Bulk flows over a simulated bottleneck, one for each congestion control that is named.
#[derive(Parser)]
struct Args {
    /// Rate of the bottleneck in Mbit/s.
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// Round-trip time in ms.
    #[arg(long, default_value_t = 20.0)]
    rtt: f64,
    /// Length of the queue in bandwidth-delay products.
    #[arg(long, default_value_t = 1.0)]
    queue: f64,
    /// Share of packets lost at random, in percent.
    #[arg(long, default_value_t = 0.0)]
    loss: f64,
    /// Losses come four in a row.
    #[arg(long)]
    bursts: bool,
    /// Share of packets held back for up to 20 ms, in percent.
    #[arg(long, default_value_t = 0.0)]
    reorder: f64,
    /// Seconds for which it goes on.
    #[arg(long, default_value_t = 20.0)]
    time: f64,
    /// Seconds between the starts of the flows.
    #[arg(long, default_value_t = 0.5)]
    apart: f64,
    /// Pace controllers that do not ask for it.
    #[arg(long)]
    pacing: bool,
    /// Receive offload holds a segment back for so many µs.
    #[arg(long, default_value_t = 0)]
    gro: u64,
    /// Print windows and rates that often, in ms.
    #[arg(long)]
    every: Option<u64>,
    /// Seed of everything random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Congestion control of each flow.
    #[arg(default_value = "cubic")]
    flows: Vec<String>,
}

fn main() {
    let args = Args::parse();
    let rtt = Duration::from_secs_f64(args.rtt / 1e3);
    let bits = (args.rate * 1e6) as u64;
    let bdp = args.rate * 1e6 / 8.0 * rtt.as_secs_f64();
    let queue = ((bdp * args.queue) as usize).max(3000);
    let up = LinkConfig::default().rate(bits).delay(rtt / 2).queue_bytes(queue).reorder_within(
        args.reorder / 100.0,
        Duration::ZERO,
        Duration::from_millis(20),
    );
    let loss = args.loss / 100.0;
    let up = if args.bursts { up.burst_loss(0.25 * loss / (1.0 - loss), 0.25, 1.0) } else { up.loss(loss) };
    let down = LinkConfig::default().rate(1_000_000_000).delay(rtt / 2).queue_packets(10_000);
    let gro = (args.gro > 0).then(|| Duration::from_micros(args.gro));
    let mut net = Pair::seeded(args.seed).path_with(up, down).server(|host| host.gro = gro).build();
    let server = net.spawn(Pair::SERVER, Transfer::listen(Pair::server_addr(0)).options(options(&args, "cubic")));
    let mut clients = Vec::new();
    for name in &args.flows {
        let transfer = Transfer::connect(Pair::server_addr(0)).options(options(&args, name)).sends(1 << 40);
        clients.push(net.spawn(Pair::CLIENT, transfer));
        net.run_for(Duration::from_secs_f64(args.apart));
    }
    let mut before = Vec::new();
    let mut warm = None;
    let end = Duration::from_secs_f64(args.time);
    let step = Duration::from_millis(args.every.unwrap_or(100));
    while net.elapsed() < end {
        net.run_for(step);
        let received: Vec<u64> = net.app(server).flows().iter().map(|flow| flow.received.bytes).collect();
        if args.every.is_some() {
            let (_, queued) = net.link(net.up_link(0)).queued();
            print!("{:8.3} s queue {queued:8}", net.elapsed().as_secs_f64());
            for (at, bytes) in received.iter().enumerate() {
                let new = bytes - before.get(at).copied().unwrap_or(0);
                print!("  {:8.2} Mbit/s", new as f64 * 8.0 / step.as_secs_f64() / 1e6);
            }
            println!();
        }
        if warm.is_none() && net.elapsed() * 3 >= end {
            warm = Some((net.elapsed(), received.clone()));
        }
        before = received;
    }
    let (since, base) = warm.expect("time passed");
    let time = (net.elapsed() - since).as_secs_f64();
    let rate = |at: usize| (before[at] - base.get(at).copied().unwrap_or(0)) as f64 * 8.0 / time / 1e6;
    let rates: Vec<f64> = (0..before.len()).map(rate).collect();
    let (sum, squares) = (rates.iter().sum::<f64>(), rates.iter().map(|rate| rate * rate).sum::<f64>());
    let stats = net.up_stats(0);
    let delay = net.link(net.up_link(0)).queue_delay();
    let all = before.iter().sum::<u64>() as f64 * 8.0 / net.elapsed().as_secs_f64() / 1e6;
    println!(
        "{:?} {} Mbit/s {} ms queue {} BDP loss {} %: last two thirds {:.1?} Mbit/s ({:.1} % of the rate), all {all:.1}; Jain {:.3}; \
         queue p50 {:.2} p95 {:.2} max {:.2} ms; dropped {} of {}",
        args.flows,
        args.rate,
        args.rtt,
        args.queue,
        args.loss,
        rates,
        sum / args.rate * 100.0,
        sum * sum / squares / rates.len() as f64,
        delay.percentile(50.0).as_secs_f64() * 1e3,
        delay.percentile(95.0).as_secs_f64() * 1e3,
        delay.max().as_secs_f64() * 1e3,
        stats.dropped_queue,
        stats.delivered_packets + stats.dropped(),
    );
    let counters = net.counters(Pair::CLIENT);
    let sent = counters.tcp_out_segs.max(1) as f64;
    print!("sent again {:.2} %:", counters.tcp_retrans_segs as f64 / sent * 100.0);
    let recovery = ["Retrans", "Undo", "Recovery", "Reorder", "DSACK", "Timeouts", "RTO", "Probe"];
    for (name, value) in
        counters.iter().filter(|(name, value)| *value > 0 && recovery.iter().any(|part| name.contains(part)))
    {
        print!(" {}={value}", name.trim_start_matches("TcpExt"));
    }
    println!();
}

fn options(args: &Args, congestion: &str) -> SocketOptions {
    SocketOptions {
        mptcp: false,
        congestion: congestion.into(),
        pacing: args.pacing,
        send_buffer_max: 256 << 20,
        recv_buffer_max: 256 << 20,
        ..SocketOptions::default()
    }
}
