//! Congestion control on bottlenecks, in virtual time: the rate is found, the queue stays bounded, flows share.

use std::time::Duration;

use anabranch_core::SocketOptions;
use anabranch_sim::{AppId, LinkConfig, Pair, Transfer};

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn options(congestion: &str) -> SocketOptions {
    SocketOptions { mptcp: false, congestion: congestion.into(), ..SocketOptions::default() }
}

/// 10 Mbit/s, a round trip of 40 ms, and a queue of so many bandwidth-delay products, 50 kB each.
fn bottleneck(queue: f64, loss: f64) -> Pair {
    let up = LinkConfig::new(10, 20).queue_bytes((50_000.0 * queue) as usize).loss(loss);
    Pair::seeded(1).path_with(up, LinkConfig::new(1000, 20)).build()
}

/// Starts a flow without end; its server counts.
fn start(net: &mut Pair, options: SocketOptions) {
    net.spawn(Pair::CLIENT, Transfer::connect(Pair::server_addr(0)).options(options).sends(1 << 40));
}

fn serve(net: &mut Pair) -> AppId<Transfer> {
    net.spawn(Pair::SERVER, Transfer::listen(Pair::server_addr(0)).options(options("cubic")))
}

/// Mbit/s of each flow from now until `end`.
fn rates(net: &mut Pair, server: AppId<Transfer>, end: Duration) -> Vec<f64> {
    let received = |net: &Pair| net.app(server).flows().iter().map(|flow| flow.received.bytes).collect::<Vec<_>>();
    let (from, before) = (net.elapsed(), received(net));
    net.run_to(end);
    let time = (end - from).as_secs_f64();
    received(net).iter().zip(before).map(|(after, before)| (after - before) as f64 * 8.0 / time / 1e6).collect()
}

/// Jain's index: 1 if all get the same.
fn jain(rates: &[f64]) -> f64 {
    rates.iter().sum::<f64>().powi(2) / rates.iter().map(|rate| rate * rate).sum::<f64>() / rates.len() as f64
}

#[test]
fn every_controller_finds_the_rate() {
    // Of 10 Mbit/s the headers leave 9.65. Reno halves its window and needs a queue of a product to stay busy.
    for (name, queue, least) in [
        ("reno", 0.25, 8.0),
        ("reno", 1.0, 9.5),
        ("cubic", 0.25, 9.0),
        ("cubic", 1.0, 9.5),
        ("bbr", 0.25, 9.0),
        ("bbr", 1.0, 9.1),
        ("bbr", 4.0, 9.1),
    ] {
        let mut net = bottleneck(queue, 0.0);
        let server = serve(&mut net);
        start(&mut net, options(name));
        net.run_to(secs(3));
        let rate = rates(&mut net, server, secs(15))[0];
        assert!(rate >= least, "{name}, queue of {queue}: {rate:.2} Mbit/s");
    }
}

#[test]
fn bbr_leaves_a_long_queue_alone() {
    let mut net = bottleneck(4.0, 0.0);
    let server = serve(&mut net);
    start(&mut net, options("bbr"));
    net.run_to(secs(1));
    let rate = rates(&mut net, server, secs(15))[0];
    let delay = net.link(net.up_link(0)).queue_delay();
    // A probe makes a quarter of the round trip, Startup one more.
    assert!(delay.percentile(95.0) <= Duration::from_millis(16), "{:?}", delay.percentile(95.0));
    assert!(delay.max() <= Duration::from_millis(60), "{:?}", delay.max());
    assert_eq!(net.up_stats(0).dropped_queue, 0, "at {rate:.2} Mbit/s");
}

#[test]
fn bbr_goes_on_where_packets_are_lost_by_themselves() {
    for (loss, least) in [(0.01, 8.6), (0.03, 8.1)] {
        let mut net = bottleneck(1.0, loss);
        let server = serve(&mut net);
        start(&mut net, options("bbr"));
        net.run_to(secs(3));
        let rate = rates(&mut net, server, secs(20))[0];
        assert!(rate >= least, "loss of {loss}: {rate:.2} Mbit/s");
    }
}

#[test]
fn two_flows_of_a_kind_share_fairly() {
    for name in ["reno", "cubic", "bbr"] {
        let mut net = bottleneck(1.0, 0.0);
        let server = serve(&mut net);
        start(&mut net, options(name));
        net.run_to(secs(3));
        start(&mut net, options(name));
        net.run_to(secs(20));
        let rates = rates(&mut net, server, secs(60));
        assert!(jain(&rates) >= 0.95, "{name}: {rates:.2?} Mbit/s");
        assert!(rates.iter().sum::<f64>() >= 9.0, "{name}: {rates:.2?} Mbit/s");
    }
}

#[test]
fn bbr_and_cubic_get_along() {
    let mut net = bottleneck(1.0, 0.0);
    let server = serve(&mut net);
    start(&mut net, options("bbr"));
    start(&mut net, options("cubic"));
    net.run_to(secs(10));
    let rates = rates(&mut net, server, secs(60));
    assert!(jain(&rates) >= 0.8, "{rates:.2?} Mbit/s");
}

#[test]
fn a_largest_rate_is_kept_to_and_made_use_of() {
    for (mptcp, congestion) in [(false, "cubic"), (false, "bbr"), (true, "cubic")] {
        let mut net = bottleneck(4.0, 0.0);
        let server = net.spawn(Pair::SERVER, Transfer::listen(Pair::server_addr(0)));
        // 500 kB/s are 4 Mbit/s.
        start(&mut net, SocketOptions { mptcp, max_pacing_rate: Some(500_000), ..options(congestion) });
        net.run_to(secs(2));
        let rate = rates(&mut net, server, secs(6))[0];
        assert!((3.75..=4.05).contains(&rate), "{congestion}, MPTCP {mptcp}: {rate:.2} Mbit/s");
        let delay = net.link(net.up_link(0)).queue_delay();
        assert!(delay.max() <= Duration::from_millis(10), "what is paced does not queue: {:?}", delay.max());
    }
}

#[test]
fn bbr_runs_on_every_subflow() {
    let link = |mbits, delay| LinkConfig::new(mbits, delay).queue_time(Duration::from_millis(40));
    let mut net = Pair::seeded(3).path(link(10, 10)).path(link(5, 25)).build();
    let server = net.spawn(Pair::SERVER, Transfer::listen(Pair::server_addr(0)));
    start(&mut net, SocketOptions { mptcp: true, ..options("bbr") });
    net.run_to(secs(3));
    let rate = rates(&mut net, server, secs(10))[0];
    assert!(rate >= 12.5, "{rate:.2} Mbit/s of 15");
}

#[test]
fn a_second_connection_starts_where_the_first_one_ended_if_that_is_wanted() {
    // 100 Mbit/s and 100 ms: 1 MB takes seven round trips from ten segments on.
    let took = |save: bool| {
        let link = LinkConfig::new(100, 50).queue_bytes(1_000_000);
        let mut net = Pair::seeded(1).path(link).client(|host| host.shard.no_metrics_save = !save).build();
        let server = serve(&mut net);
        let mut last = Duration::ZERO;
        for count in 1..=2 {
            let start = net.elapsed();
            net.spawn(Pair::CLIENT, Transfer::connect(Pair::server_addr(0)).options(options("cubic")).sends(1_000_000));
            assert!(net.run_until(start + secs(20), |world| world.app(server).completed(count)));
            last = net.elapsed() - start;
        }
        assert_eq!(net.up_stats(0).dropped_queue, 0);
        last
    };
    let (cold, warm) = (took(false), took(true));
    assert!(warm + Duration::from_millis(250) <= cold, "{warm:?} instead of {cold:?}");
}
