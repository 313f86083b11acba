//! Networks that hurt: a small part of what `bad-networks` measures, in virtual time.
//!
//! The kernel's figures are medians of kernel to kernel (Linux 6.18, CUBIC) on the same links, as that program measured
//! them; docs/performance.md has all.

use crate::support::*;
use anabranch_sim::{LinkConfig, Pair};

/// No network may be worse than this part of the kernel's goodput: chance decides on some of a few seconds.
const LEAST: f64 = 0.9;
/// Chances that a network gets. Its figure is their median, as the kernel's is.
const SEEDS: std::ops::Range<u64> = 4101..4106;

/// A link both ways, how many seconds it is used, and what the kernel's goodput is there, in Mbit/s.
struct Network {
    name: &'static str,
    link: LinkConfig,
    seconds: u64,
    kernel: f64,
}

/// So many Mbit/s, milliseconds of round trip, and bandwidth-delay products of queue.
fn link(mbits: u64, rtt: u64, queue: f64) -> LinkConfig {
    LinkConfig::new(mbits, rtt / 2).queue_time(ms(rtt).mul_f64(queue))
}

/// So many per cent held back for up to 20 ms.
fn held(link: LinkConfig, percent: f64) -> LinkConfig {
    link.reorder_within(percent / 100.0, ms(0), ms(20))
}

fn networks() -> Vec<Network> {
    let of = |name, seconds, kernel, link| Network { name, link, seconds, kernel };
    vec![
        of("50 Mbit/s, 40 ms", 6, 46.75, link(50, 40, 1.0)),
        of("100 Mbit/s, 20 ms, 0.1 % lost, a short queue", 5, 22.4, link(100, 20, 0.25).loss(0.001)),
        of("10 Mbit/s, 20 ms, 3 % lost", 5, 2.89, link(10, 20, 1.0).loss(0.03)),
        of("10 Mbit/s, 20 ms, 1 % lost, 1 % held back", 5, 5.09, held(link(10, 20, 0.25).loss(0.01), 1.0)),
        of("100 Mbit/s, 2 ms, 1 % lost, 1 % held back", 3, 32.2, held(link(100, 2, 1.0).loss(0.01), 1.0)),
        of("1000 Mbit/s, 2 ms, 3 % lost, 1 % held back", 3, 16.6, held(link(1000, 2, 4.0).loss(0.03), 1.0)),
    ]
}

/// What a server gets from a client that sends without end, in Mbit/s; unharmed.
fn goodput_of(network: &Network, seed: u64) -> f64 {
    let mut net = Pair::seeded(seed).path(network.link.clone()).build();
    let apps = start(&mut net, 10_000 * MEGABYTE, 0, &plain());
    net.run_for(secs(network.seconds));
    let received = &net.app(apps.1).flow().received;
    assert_eq!(received.wrong_at, None, "{}, seed {}", network.name, net.seed());
    received.bytes as f64 * 8e-6 / network.seconds as f64
}

#[test]
fn goodput_is_the_kernels_on_bad_networks() {
    let mut ratios = Vec::new();
    for network in networks() {
        let mut goodputs: Vec<f64> = SEEDS.map(|seed| goodput_of(&network, seed)).collect();
        goodputs.sort_by(f64::total_cmp);
        ratios.push((network.name, goodputs[goodputs.len() / 2] / network.kernel));
    }
    assert!(ratios.iter().all(|&(_, ratio)| ratio >= LEAST), "of the kernel's: {ratios:.2?}");
    let mean = ratios.iter().map(|(_, ratio)| ratio.ln()).sum::<f64>() / ratios.len() as f64;
    assert!(mean >= 0.0, "{:.3} of the kernel's in the geometric mean: {ratios:.2?}", mean.exp());
}

#[test]
fn slow_start_ends_before_the_queue_is_full() {
    // Given a path with a queue for one round trip, and nothing lost but by that queue,
    for (mbits, rtt) in [(50, 40), (100, 100), (100, 20)] {
        let mut net = Pair::seeded(4102).path(link(mbits, rtt, 1.0)).build();
        start(&mut net, 10_000 * MEGABYTE, 0, &plain());
        // when a client begins to send,
        net.run_for(ms(20 * rtt));
        // then nothing was dropped in the first twenty round trips.
        assert_eq!(net.up_stats(0).dropped(), 0, "{mbits} Mbit/s, {rtt} ms");
    }
}

#[test]
fn slow_start_ends_in_time_where_packets_are_held_back() {
    // Given paths that hold one packet in ten back, and lose none but by their queue,
    for (mbits, rtt, queue) in [(10, 300, 4.0), (100, 100, 1.0)] {
        for seed in SEEDS {
            let mut net = Pair::seeded(seed).path(held(link(mbits, rtt, queue), 10.0)).build();
            start(&mut net, 10_000 * MEGABYTE, 0, &plain());
            // when a client begins to send, whose acknowledgements never come without a pause for long,
            net.run_for(ms(20 * rtt));
            // then nothing was dropped in the first twenty round trips.
            assert_eq!(net.up_stats(0).dropped(), 0, "{mbits} Mbit/s, {rtt} ms, seed {seed}");
        }
    }
}
