//! Paths that fall silent while data is outstanding: how soon the others take over, and what it costs when the silence
//! meant nothing.

use std::time::Duration;

use anabranch_core::{Counters, SocketOptions};
use anabranch_sim::{LinkChange, LinkConfig, Pair};

use crate::support::*;

/// 50 Mbit/s and 20 ms there and back, with a queue of one bandwidth-delay product.
fn path() -> LinkConfig {
    LinkConfig::new(50, 10).queue_bytes(125_000)
}

/// `paths` such paths, one of which dies at `at`, while the client sends. The longest time that the reader waited.
fn pause(seed: u64, paths: u16, dead: u16, at: Duration) -> Duration {
    let mut builder = Pair::seeded(seed);
    for index in 0..paths {
        builder = builder.path(if index == dead { path().outage(at, secs(100_000)) } else { path() });
    }
    let mut net = builder.build();
    let apps = start(&mut net, 25 * MEGABYTE, 0, &SocketOptions::default());
    finish(&mut net, apps, secs(60));
    assert_eq!(net.counters(Pair::CLIENT).subflow_suspect, 1, "seed {seed}, {paths} paths, {dead} dies at {at:?}");
    net.app(apps.1).flow().received.longest_gap
}

#[test]
fn what_a_dead_path_held_arrives_within_150_ms() {
    for paths in [2, 3] {
        let mut pauses = Vec::new();
        for seed in 1000..1008 {
            for dead in 0..paths {
                // Not always at the same place of the window's sawtooth.
                let at = ms(900 + 37 * (seed - 1000));
                pauses.push(pause(seed, paths, dead, at));
            }
        }
        let longest = pauses.iter().max().unwrap();
        assert!(*longest <= ms(150), "{paths} paths: {pauses:?}");
    }
}

/// The counters of a client that sends 20 MB over two paths of which the first does what `link` says, how long that took,
/// and what the server got twice.
fn disturbed(seed: u64, link: LinkConfig) -> (Counters, Duration, u64) {
    let mut net = Pair::seeded(seed).path(link).path(path()).build();
    let apps = start(&mut net, 20 * MEGABYTE, 0, &SocketOptions::default());
    let took = finish(&mut net, apps, secs(60));
    let delivered = net.up_stats(0).delivered_bytes + net.up_stats(1).delivered_bytes;
    (net.counters(Pair::CLIENT), took, delivered)
}

#[test]
fn late_acknowledgements_cost_little() {
    for seed in 1010..1014 {
        let (calm, usual, least) = disturbed(seed, path());
        assert_eq!(calm.subflow_suspect, 0, "seed {seed}");
        // Given a path that now and then holds everything back for 100 ms, which is less than a timeout,
        let mut link = path();
        for blip in 0..6 {
            let at = ms(600 + 200 * blip);
            link = link.at(at, LinkChange::Delay(ms(110))).at(at + ms(1), LinkChange::Delay(ms(10)));
        }
        let (counters, took, delivered) = disturbed(seed, link);
        // when that makes it suspect, it soon is no more,
        assert!(counters.subflow_suspect > 0, "seed {seed}: nothing was suspected");
        assert_eq!(counters.subflow_suspect, counters.subflow_false_alarm, "seed {seed}");
        assert_eq!(counters.tcp_timeouts, 0, "seed {seed}");
        // and less so from one time to the next; what goes twice is a small part, and time is hardly lost.
        assert!(counters.subflow_suspect <= 3, "seed {seed}: {} alarms", counters.subflow_suspect);
        assert!(delivered < least + MEGABYTE, "seed {seed}: {} bytes more", delivered - least);
        assert!(took < usual + ms(700), "seed {seed}: {took:?} instead of {usual:?}");
    }
}

#[test]
fn two_subflows_may_die_with_one_path() {
    for seed in 1020..1024 {
        for dead in 0..2 {
            // Given a client that joins by itself, and where the server tells it to, both on the second path,
            let at = ms(1100 + 53 * (seed - 1020));
            let mut builder = Pair::seeded(seed);
            for index in 0..2 {
                builder = builder.path(if index == dead { path().outage(at, secs(100_000)) } else { path() });
            }
            let mut net = builder.server(|host| host.paths[1].flags.signal = true).build();
            let apps = start(&mut net, 25 * MEGABYTE, 0, &SocketOptions::default());
            net.run_to(secs(1));
            assert_eq!(net.app(apps.0).flow().subflows_up, 3, "seed {seed}");
            // then the rescue of one is not entrusted to the other.
            finish(&mut net, apps, secs(60));
            let pause = net.app(apps.1).flow().received.longest_gap;
            assert!(pause <= ms(150), "seed {seed}, path {dead}: {pause:?}");
        }
    }
}
