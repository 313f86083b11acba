//! Paths with a link that takes less than the first one, with routers that say so and without (RFC 1191, RFC 8201,
//! RFC 4821).

use std::time::Duration;

use anabranch_core::{MtuProbing, PmtuConfig, SocketOptions};
use anabranch_sim::middlebox::Router;
use anabranch_sim::{LinkConfig, Pair, Steering, Transfer, World};

use crate::support::*;

/// Hosts that look for the path's MTU in this way, on links of which one takes no more than `mtu`.
fn narrow(seed: u64, paths: u16, router: Router, mtu_probing: MtuProbing) -> Pair {
    let pmtu = PmtuConfig { mtu_probing, ..PmtuConfig::default() };
    let mut builder = Pair::seeded(seed).client(|host| host.shard.pmtu = pmtu).server(|host| host.shard.pmtu = pmtu);
    for _ in 0..paths {
        // The queue is long enough for nothing to be lost to it.
        builder = builder.path(LinkConfig::new(50, 10).queue_time(secs(2)));
    }
    let mut net = builder.build();
    let link = net.up_link(0);
    net.add_middlebox(link, router);
    net
}

fn mptcp() -> SocketOptions {
    SocketOptions::default()
}

/// Lets the client send so much, and says what it knew of its path and of its segments near the end, and how long it took.
fn sent(net: &mut Pair, bytes: u64, options: &SocketOptions) -> (u16, u16, Duration) {
    let apps = start(net, bytes, 0, options);
    let nearly =
        |world: &World| world.app(apps.1).flows().first().is_some_and(|flow| flow.received.bytes > bytes * 9 / 10);
    assert!(net.run_until(secs(60), nearly));
    let conn = net.app(apps.0).flow().conn.1;
    let subflow = net.shard(Pair::CLIENT, 0).subflows(conn).unwrap()[0].clone();
    (subflow.pmtu, subflow.snd_mss, finish(net, apps, secs(60)))
}

#[test]
fn a_router_that_tells_costs_a_round_trip() {
    for (mptcp_on, v6) in [(false, false), (true, false), (false, true), (true, true)] {
        // Given a link in the middle that takes 1280 bytes,
        let mut net = narrow(3201, 1, Router { mtu: 1280, tells: true }, MtuProbing::Off);
        let server = if v6 { Pair::server_addr_v6(0) } else { Pair::server_addr(0) };
        let options = if mptcp_on { mptcp() } else { plain() };
        let accept = net.spawn(Pair::SERVER, Transfer::listen(server).options(options.clone()));
        let connect = net.spawn(Pair::CLIENT, Transfer::connect(server).options(options).sends(MEGABYTE));
        // when a megabyte goes through it,
        let took = finish(&mut net, (connect, accept), secs(10));
        // then no timeout is needed, and only the first flight goes twice.
        let counters = net.counters(Pair::CLIENT);
        assert_eq!(counters.tcp_timeouts, 0);
        assert!(counters.tcp_retrans_segs <= 15, "{} segments again", counters.tcp_retrans_segs);
        assert!(took < ms(400), "{took:?}");
        assert_eq!(net.app(accept).flow().received.bytes, MEGABYTE);
    }
}

#[test]
fn a_mapping_stays_whole_when_its_bytes_are_cut_anew() {
    // Given two paths, of which one takes less, and that only later, when large mappings are under way,
    let mut net = narrow(3202, 2, Router { mtu: 1500, tells: true }, MtuProbing::Off);
    let link = net.up_link(0);
    net.at(ms(300), move |world| world.add_middlebox(link, Router { mtu: 700, tells: true }));
    transfer(&mut net, 5 * MEGABYTE, 5 * MEGABYTE, &mptcp(), secs(10));
    let counters = net.counters(Pair::SERVER);
    assert_eq!((counters.dss_not_matching, counters.dss_corruption_fallback), (0, 0));
    assert!(net.counters(Pair::CLIENT).icmp_in_pkt_too_bigs > 0);
}

#[test]
fn a_black_hole_is_evaded_in_seconds() {
    for mptcp_on in [false, true] {
        let options = if mptcp_on { mptcp() } else { plain() };
        // Given a router that drops what is too big and says nothing,
        let router = Router { mtu: 1300, tells: false };
        // then without probing nothing gets through,
        let mut net = narrow(3203, 1, router, MtuProbing::Off);
        let apps = start(&mut net, MEGABYTE, 0, &options);
        assert!(!net.run_until(secs(60), |world| world.app(apps.1).completed(1)));

        // and with it everything does, at a size that is within eight bytes of the largest one.
        let mut net = narrow(3203, 1, router, MtuProbing::BlackHole);
        let (_, mss, took) = sent(&mut net, 20 * MEGABYTE, &options);
        // The server sends nothing: four bytes are enough for the DATA_ACK in the DSS.
        let overhead = if mptcp_on { 40 + 12 + 24 } else { 40 + 12 };
        assert!((1292..=1300).contains(&(mss + overhead)), "segments of {mss} bytes");
        assert!(took < secs(15), "{took:?}");
        let counters = net.counters(Pair::CLIENT);
        assert!(counters.tcp_mtu_black_holes > 0 && counters.tcp_mtup_success > 0 && counters.tcp_mtup_fail > 0);
    }
}

#[test]
fn probes_find_the_largest_size_without_a_loss_to_congestion() {
    // Given hosts that always begin small,
    let mut net = narrow(3204, 1, Router { mtu: 1300, tells: false }, MtuProbing::Always);
    let (_, mss, _) = sent(&mut net, 20 * MEGABYTE, &plain());
    assert!((1292..=1300).contains(&(mss + 52)), "segments of {mss} bytes");
    // then only probes were lost, and no window was reduced for them.
    let counters = net.counters(Pair::CLIENT);
    assert_eq!(counters.tcp_timeouts, 0);
    assert!(counters.tcp_mtup_fail > 0 && counters.tcp_mtup_success > 0);
    assert_eq!(counters.tcp_sack_recovery, 0);
}

#[test]
fn a_path_that_takes_all_is_used_in_full() {
    let mut net = narrow(3205, 1, Router { mtu: 1500, tells: false }, MtuProbing::Always);
    let (pmtu, mss, _) = sent(&mut net, 20 * MEGABYTE, &plain());
    assert!(pmtu == 1500 && mss >= 1500 - 52 - 8, "segments of {mss} bytes");
    assert_eq!(net.counters(Pair::CLIENT).tcp_retrans_segs, 0);
}

#[test]
fn a_message_finds_the_worker_of_its_connection() {
    // Given a client with three workers, any of which may get to hear of anything,
    let mut net =
        Pair::seeded(3206).client(|host| (host.workers, host.steering) = (3, Steering::Random)).path(wifi()).build();
    let link = net.up_link(0);
    net.add_middlebox(link, Router { mtu: 1200, tells: true });
    // when several connections meet a router with a small link,
    let server = net.spawn(Pair::SERVER, Transfer::listen(Pair::server_addr(0)));
    let clients: Vec<_> =
        (0..6).map(|_| net.spawn(Pair::CLIENT, Transfer::connect(Pair::server_addr(0)).sends(MEGABYTE / 4))).collect();
    // then all of them come through, though no message is about a stranger.
    assert!(net.run_until(secs(20), |world| world.app(server).completed(clients.len())));
    let counters = net.counters(Pair::CLIENT);
    assert!(counters.icmp_in_pkt_too_bigs > 0);
    assert_eq!((counters.icmp_in_errors, counters.tcp_timeouts), (0, 0));
}
