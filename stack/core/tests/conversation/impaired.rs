//! Links that lose, duplicate, corrupt and reorder.

use std::time::Duration;

use anabranch_core::SocketOptions;
use anabranch_sim::{Jitter, LinkConfig, Pair};

use crate::support::*;

/// Moves 5 MB each way, with and without MPTCP; how long each took.
fn both_ways(seed: u64, link: &LinkConfig, deadline: Duration) -> [(Duration, Pair); 2] {
    [true, false].map(|mptcp| {
        let mut net = Pair::seeded(seed).path(link.clone()).build();
        let options = SocketOptions { mptcp, ..SocketOptions::default() };
        let took = transfer(&mut net, 5 * MEGABYTE, 5 * MEGABYTE, &options, deadline);
        (took, net)
    })
}

#[test]
fn a_tenth_of_a_percent_is_lost() {
    for (took, net) in both_ways(501, &wifi().loss(0.001), secs(10)) {
        assert!(took < ms(3000), "{took:?}");
        assert!(net.up_stats(0).dropped_loss > 0);
        assert_eq!(net.counters(Pair::CLIENT).tcp_timeouts, 0, "fast recovery is enough");
    }
}

#[test]
fn one_percent_is_lost() {
    for (took, net) in both_ways(502, &wifi().loss(0.01), secs(30)) {
        assert!(took < secs(10), "{took:?}");
        let counters = net.counters(Pair::CLIENT);
        assert!(counters.tcp_sack_recovery > 0);
        // What is sent again is about what was lost: no more than twice that and a few probes.
        let lost = net.up_stats(0).dropped();
        assert!(counters.tcp_retrans_segs <= 2 * lost + 10, "{} for {lost} lost", counters.tcp_retrans_segs);
    }
}

#[test]
fn three_percent_are_lost() {
    for (took, _) in both_ways(503, &wifi().loss(0.03), secs(60)) {
        assert!(took < secs(30), "{took:?}");
    }
}

#[test]
fn losses_come_in_bursts() {
    for (took, _) in both_ways(504, &wifi().burst_loss(0.001, 0.1, 0.8), secs(60)) {
        assert!(took < secs(30), "{took:?}");
    }
}

#[test]
fn a_short_queue_overflows() {
    for mptcp in [true, false] {
        let mut net = Pair::seeded(505).path(LinkConfig::new(20, 20).queue_packets(20)).build();
        let options = SocketOptions { mptcp, ..SocketOptions::default() };
        let took = transfer(&mut net, 5 * MEGABYTE, 0, &options, secs(30));
        assert!(net.up_stats(0).dropped_queue > 0);
        // The queue holds 30 % of what is under way: CUBIC keeps the link nearly busy.
        let least = 5e6 / goodput(20.0, MPTCP_OVERHEAD);
        assert!(took.as_secs_f64() < 1.2 * least, "mptcp {mptcp}: {took:?}, at best {least} s");
    }
}

#[test]
fn a_little_reordering_costs_little() {
    // Every tenth packet comes a millisecond late: within a quarter of the round trip (RFC 8985 §6.2).
    for (took, net) in both_ways(506, &wifi().reorder(0.1, ms(1)), secs(10)) {
        assert!(took < ms(1800), "{took:?}");
        let (resent, lost) = (net.counters(Pair::CLIENT).tcp_retrans_segs, net.up_stats(0).dropped());
        assert!(resent < lost + 20, "{resent} segments sent twice, {lost} lost");
    }
}

#[test]
fn much_reordering_is_survived() {
    for (took, _) in both_ways(507, &wifi().jitter(Jitter::Uniform(ms(9))).unordered(), secs(60)) {
        assert!(took < secs(20), "{took:?}");
    }
}

#[test]
fn duplicates_do_no_harm() {
    // A seed with which the very last ACK is not duplicated: that one finds nobody, and is answered with a reset.
    for (took, net) in both_ways(519, &wifi().duplicate(0.05), secs(10)) {
        assert!(took < ms(2000), "{took:?}");
        assert!(net.up_stats(0).duplicated > 100);
    }
}

#[test]
fn corrupted_packets_are_dropped_and_counted() {
    for (took, net) in both_ways(509, &wifi().corrupt(0.01), secs(30)) {
        assert!(took < secs(10), "{took:?}");
        let counters = net.counters(Pair::SERVER);
        let noticed = counters.tcp_in_csum_errors
            + counters.ip_in_hdr_errors
            + counters.ip_in_addr_errors
            + counters.ip_in_unknown_protos
            + counters.ip_in_fragments
            + counters.tcp_in_errs;
        assert_eq!(noticed, net.up_stats(0).corrupted);
    }
}

#[test]
fn everything_at_once() {
    let link = wifi().loss(0.01).duplicate(0.01).corrupt(0.005).reorder(0.02, ms(5)).jitter(Jitter::Normal(ms(2)));
    for (took, _) in both_ways(510, &link, secs(60)) {
        assert!(took < secs(30), "{took:?}");
    }
}

#[test]
fn acknowledgements_get_lost() {
    for mptcp in [true, false] {
        let mut net = Pair::seeded(511).path_with(wifi(), wifi().loss(0.3)).build();
        let options = SocketOptions { mptcp, ..SocketOptions::default() };
        let took = transfer(&mut net, 5 * MEGABYTE, 0, &options, secs(20));
        // ACKs are cumulative: losing a third of them hardly slows a sender down.
        assert!(took < ms(2500), "mptcp {mptcp}: {took:?}");
    }
}

#[test]
fn a_link_that_pauses_goes_on_where_it_stopped() {
    for mptcp in [true, false] {
        let mut net = Pair::seeded(512).path(wifi().outage(ms(300), ms(900))).build();
        let options = SocketOptions { mptcp, ..SocketOptions::default() };
        let took = transfer(&mut net, 5 * MEGABYTE, 0, &options, secs(10));
        // Backoff must not make the pause much longer than twice what it was.
        assert!(took < ms(2700), "mptcp {mptcp}: {took:?}");
    }
}

#[test]
fn the_delay_grows_and_nothing_is_resent_for_long() {
    let change = anabranch_sim::LinkChange::Delay(ms(100));
    let mut net = Pair::seeded(513).path(wifi().at(ms(500), change)).build();
    let apps = start(&mut net, 5 * MEGABYTE, 0, &plain());
    finish(&mut net, apps, secs(20));
    // A tenfold round-trip time fires the timer once at most, which F-RTO (RFC 5682) takes back.
    let counters = net.counters(Pair::CLIENT);
    assert!(counters.tcp_timeouts <= 2, "{} timeouts", counters.tcp_timeouts);
    assert!(counters.tcp_retrans_segs < 300, "{} segments sent twice", counters.tcp_retrans_segs);
}
