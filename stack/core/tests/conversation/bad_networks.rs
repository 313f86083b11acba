//! Networks that hurt: a small part of what `bad-networks` measures, in virtual time.
//!
//! The kernel's figures are medians of kernel to kernel (Linux 6.18, CUBIC) on the same links, as that program measured
//! them; docs/performance.md has all.

use crate::support::*;
use anabranch_core::SocketOptions;
use anabranch_sim::{LinkConfig, Pair};

/// No network may be worse than this part of the kernel's goodput: chance decides on some of a few seconds.
const LEAST: f64 = 0.85;

/// A link both ways, how long it is used, and what the kernel's goodput is there, in Mbit/s.
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

/// A loss of so many parts of a thousand in bursts of four.
fn bursts(link: LinkConfig, per_mille: f64) -> LinkConfig {
    let loss = per_mille / 1000.0;
    link.burst_loss(0.25 * loss / (1.0 - loss), 0.25, 1.0)
}

fn networks() -> Vec<Network> {
    let of = |name, seconds, kernel, link| Network { name, link, seconds, kernel };
    let held = |link: LinkConfig, p| link.reorder_within(p, ms(0), ms(20));
    vec![
        of("50 Mbit/s, 40 ms", 6, 46.7, link(50, 40, 1.0)),
        of("10 Mbit/s, 300 ms, a long queue", 12, 8.37, link(10, 300, 4.0)),
        of("100 Mbit/s, 100 ms", 8, 87.2, link(100, 100, 1.0)),
        of("100 Mbit/s, 20 ms, 0.1 % lost, a short queue", 5, 22.4, link(100, 20, 0.25).loss(0.001)),
        of("10 Mbit/s, 20 ms, 3 % lost", 5, 2.89, link(10, 20, 1.0).loss(0.03)),
        of("10 Mbit/s, 300 ms, 1 % lost", 12, 2.10, link(10, 300, 1.0).loss(0.01)),
        of("10 Mbit/s, 20 ms, 3 % lost in bursts", 5, 5.55, bursts(link(10, 20, 1.0), 30.0)),
        of("100 Mbit/s, 100 ms, 3 % lost, 1 % held back", 8, 1.62, held(link(100, 100, 1.0).loss(0.03), 0.01)),
        of("100 Mbit/s, 20 ms, 1 % held back", 5, 94.6, held(link(100, 20, 4.0), 0.01)),
    ]
}

#[test]
fn goodput_is_the_kernels_on_bad_networks() {
    let options = SocketOptions { recv_buffer_max: 64 << 20, send_buffer_max: 64 << 20, ..plain() };
    let mut logs = 0.0;
    let networks = networks();
    for Network { name, link, seconds, kernel } in &networks {
        // Given a link, when a client sends without end,
        let mut net = Pair::seeded(4101).path(link.clone()).build();
        let apps = start(&mut net, 10_000 * MEGABYTE, 0, &options);
        net.run_for(secs(*seconds));
        // then its server has got, unharmed, about what the kernel's gets in this time.
        let received = &net.app(apps.1).flow().received;
        assert_eq!(received.wrong_at, None, "{name}");
        let ratio = received.bytes as f64 * 8e-6 / *seconds as f64 / kernel;
        eprintln!("{name}: {ratio:.3}");
        assert!(ratio >= 0.1, "{name}: {ratio:.2} of the kernel's, seed {}", net.seed());
        logs += ratio.ln();
    }
    let mean = (logs / networks.len() as f64).exp();
    assert!(mean >= 1.0, "{mean:.3} of the kernel's in the geometric mean");
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
