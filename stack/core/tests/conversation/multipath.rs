//! MPTCP with one, two and three subflows on links that work.

use std::time::Duration;

use anabranch_core::{EndpointFlags, Limits, SocketOptions};
use anabranch_sim::{Action, Chatter, LinkConfig, Pair, Transfer, Verdict};

use crate::support::*;

fn scheduled(name: &str) -> SocketOptions {
    SocketOptions { scheduler: name.into(), ..SocketOptions::default() }
}

/// Both paths carried a good share of what went up and down; which share, of the bytes on path 1.
fn assert_both_carry(net: &Pair, at_least: f64) {
    for (way, first, second) in
        [("up", net.up_stats(0), net.up_stats(1)), ("down", net.down_stats(0), net.down_stats(1))]
    {
        let (first, second) = (first.delivered_bytes as f64, second.delivered_bytes as f64);
        let share = first.min(second) / (first + second);
        assert!(share > at_least, "{way}: {first} bytes on path 0, {second} on path 1");
    }
}

#[test]
fn one_subflow_carries_both_streams() {
    let mut net = Pair::seeded(801).path(wifi()).build();
    let apps = start(&mut net, 5 * MEGABYTE, 5 * MEGABYTE, &SocketOptions::default());
    let took = finish(&mut net, apps, secs(5));
    assert!(took < ms(1500), "{took:?}");
    for app in [apps.0, apps.1] {
        let info = net.app(app).flow().info.clone().unwrap();
        assert!(info.mptcp && info.fallback.is_none() && info.token != 0, "{info:?}");
    }
    close(&mut net, apps);
    assert_no_reset(&net);
    let (client, server) = (net.counters(Pair::CLIENT), net.counters(Pair::SERVER));
    assert_eq!((client.mp_capable_syn_tx, client.mp_capable_synack_rx), (1, 1));
    assert_eq!((server.mp_capable_syn_rx, server.mp_capable_ack_rx), (1, 1));
    assert_eq!(client.mptcp_retrans + server.mptcp_retrans, 0);
}

#[test]
fn the_client_joins_a_second_subflow() {
    let mut net = two_paths(802);
    let apps = start(&mut net, 10 * MEGABYTE, 10 * MEGABYTE, &SocketOptions::default());
    finish(&mut net, apps, secs(5));
    assert_both_carry(&net, 0.15);
    let subflows = &net.app(apps.1).flow().subflows;
    assert_eq!(subflows.len(), 2);
    assert_eq!(subflows[1].remote.ip(), Pair::client_addr(1));
    close(&mut net, apps);
    assert_no_reset(&net);
    let (client, server) = (net.counters(Pair::CLIENT), net.counters(Pair::SERVER));
    assert_eq!((client.mp_join_syn_tx, client.mp_join_synack_rx), (1, 1));
    assert_eq!((server.mp_join_syn_rx, server.mp_join_ack_rx), (1, 1));
    assert_eq!(server.add_addr_tx + client.add_addr_tx, 0);
}

#[test]
fn a_half_open_join_goes_with_its_connection() {
    // Given a second path that breaks right after the SYN of the join,
    let mut net = two_paths(804);
    let link = net.up_link(1);
    let mut passed = 0;
    net.set_middlebox(link, move |_, packet| {
        passed += 1;
        if passed == 1 { Verdict::Pass(packet) } else { Verdict::Drop }
    });
    let apps = start(&mut net, 5 * MEGABYTE, 1000, &SocketOptions::default());
    finish(&mut net, apps, secs(20));
    assert_eq!(net.sizes(Pair::SERVER).0[0].half_open, 1);
    // when the connection is over, then what is left of the join does not wait for its last SYN/ACK.
    close(&mut net, apps);
    net.run_for(secs(5));
    assert_eq!(net.sizes(Pair::SERVER).0[0].half_open, 0);
}

#[test]
fn the_server_announces_its_second_address() {
    let mut net = Pair::seeded(803).path(wifi()).path(lte()).announced().build();
    let apps = start(&mut net, 10 * MEGABYTE, 10 * MEGABYTE, &SocketOptions::default());
    finish(&mut net, apps, secs(5));
    assert_both_carry(&net, 0.15);
    close(&mut net, apps);
    assert_no_reset(&net);
    let (client, server) = (net.counters(Pair::CLIENT), net.counters(Pair::SERVER));
    // Three addresses beside the one that the client knows: IPv6 of path 0, both of path 1.
    assert!(server.add_addr_tx >= 1 && client.add_addr == server.add_addr_tx, "{}", server.add_addr_tx);
    assert_eq!(server.echo_add, client.echo_add_tx);
    assert!(server.mp_join_ack_rx >= 1);
}

#[test]
fn the_sum_of_two_links_is_used() {
    let best = goodput(50.0 + 20.0, MPTCP_OVERHEAD);
    for (name, up, down) in [("up", 60, 0), ("down", 0, 60)] {
        let mut net = two_paths(804);
        let took = transfer(&mut net, up * MEGABYTE, down * MEGABYTE, &SocketOptions::default(), secs(30));
        let rate = 60e6 / took.as_secs_f64();
        assert!(rate > 0.9 * best, "{name}: {:.3} of the sum", rate / best);
    }
}

#[test]
fn equal_links_are_used_equally() {
    let mut net = Pair::seeded(805).path(wifi()).path(wifi()).build();
    let took = transfer(&mut net, 60 * MEGABYTE, 0, &SocketOptions::default(), secs(30));
    let best = goodput(100.0, MPTCP_OVERHEAD);
    assert!(60e6 / took.as_secs_f64() > 0.9 * best, "{:.3} of the sum", 60e6 / took.as_secs_f64() / best);
    let share = net.up_stats(0).delivered_bytes as f64 / net.up_stats(1).delivered_bytes as f64;
    assert!((0.8..1.25).contains(&share), "path 0 carried {share:.2} of what path 1 did");
}

#[test]
fn three_links_are_three_times_as_good() {
    let link = || LinkConfig::new(20, 15).queue_time(ms(60));
    let mut net = Pair::seeded(806).path(link()).path(link()).path(link()).build();
    let took = transfer(&mut net, 50 * MEGABYTE, 0, &SocketOptions::default(), secs(30));
    let best = goodput(60.0, MPTCP_OVERHEAD);
    assert!(50e6 / took.as_secs_f64() > 0.9 * best, "{:.3} of the sum", 50e6 / took.as_secs_f64() / best);
}

#[test]
fn a_bad_second_link_does_not_slow_the_first_down() {
    // Given a slow, long, lossy link beside a good one, and a send buffer of a few round trips,
    let bad = LinkConfig::new(1, 200).queue_time(ms(300)).loss(0.01);
    let alone = {
        let mut net = Pair::seeded(807).path(wifi()).build();
        transfer(&mut net, 20 * MEGABYTE, 0, &SocketOptions::default(), secs(30))
    };
    let mut net = Pair::seeded(807).path(wifi()).path(bad).build();
    let apps = start(&mut net, 20 * MEGABYTE, 0, &SocketOptions::default());
    let both = finish(&mut net, apps, secs(60));
    // then both together are about as fast as the good one alone.
    assert!(both < alone * 115 / 100 + ms(600), "alone {alone:?}, together {both:?}");
}

#[test]
fn every_scheduler_delivers_both_streams_intact() {
    for name in anabranch_core::sched::NAMES.split(", ") {
        let mut net = two_paths(808);
        let took = transfer(&mut net, 8 * MEGABYTE, 8 * MEGABYTE, &scheduled(name), secs(20));
        // No scheduler is much slower than the better path alone would be.
        assert!(took < ms(2200), "{name}: {took:?}");
        let second = net.up_stats(1).delivered_bytes;
        match name {
            "backup" => {}
            _ => assert!(second > 500_000, "{name}: {second} bytes on path 1"),
        }
    }
}

#[test]
fn a_redundant_stream_is_on_every_path() {
    let link = || LinkConfig::new(20, 15).queue_time(ms(60));
    let mut net = Pair::seeded(809).path(link()).path(link()).build();
    transfer(&mut net, 5 * MEGABYTE, 0, &scheduled("redundant"), secs(20));
    // All but the tail, that the other path had brought already.
    for path in 0..2 {
        let bytes = net.up_stats(path).delivered_bytes;
        assert!(bytes > 4 * MEGABYTE, "path {path} carried {bytes}");
    }
}

#[test]
fn a_redundant_stream_does_not_feel_loss() {
    let lossy = || LinkConfig::new(50, 20).queue_time(ms(60)).loss(0.02);
    let gap_of = |seed: u64, scheduler: &str| {
        let mut net = Pair::seeded(seed).path(lossy()).path(lossy()).build();
        let apps = start(&mut net, 2 * MEGABYTE, 0, &scheduled(scheduler));
        finish(&mut net, apps, secs(30));
        net.app(apps.1).flow().received.longest_gap
    };
    // The longest gap of one stream is a matter of luck.
    let gap = |scheduler: &str| (810..820).map(|seed| gap_of(seed, scheduler)).sum::<Duration>();
    let (redundant, minrtt) = (gap("redundant"), gap("minrtt"));
    assert!(redundant < minrtt, "redundant {redundant:?}, minrtt {minrtt:?}");
}

#[test]
fn a_small_receive_buffer_does_not_block() {
    // Given round-trip times of 20 and 200 ms, and less buffer than the long path's share,
    let mut net = Pair::seeded(811).path(wifi()).path(LinkConfig::new(10, 100).queue_time(ms(100))).build();
    let options = SocketOptions { recv_buffer_max: 200_000, ..SocketOptions::default() };
    let took = transfer(&mut net, 10 * MEGABYTE, 0, &options, secs(60));
    // then the fast path alone, which could do it in 1.7 s with that buffer, is not held up for long.
    assert!(took < secs(6), "{took:?}");
}

#[test]
fn subflows_over_both_families() {
    // Given a connection over IPv6 and a second path with IPv4 only,
    let mut net = Pair::seeded(812)
        .path(wifi())
        .path(wifi())
        .server(|host| {
            host.paths[1].addrs.truncate(1);
            host.paths[1].flags = EndpointFlags { signal: true, ..EndpointFlags::default() };
        })
        .client(|host| host.paths.iter_mut().for_each(|path| path.flags = EndpointFlags::default()))
        .build();
    let remote = Pair::server_addr_v6(0);
    let server = net.spawn(Pair::SERVER, Transfer::listen(remote));
    let client = net.spawn(Pair::CLIENT, Transfer::connect(remote).sends(10 * MEGABYTE));
    finish(&mut net, (client, server), secs(5));
    let families: Vec<_> = net.app(server).flow().subflows.iter().map(|subflow| subflow.local.is_ipv4()).collect();
    assert_eq!(families, [false, true]);
    assert!(net.up_stats(1).delivered_bytes > MEGABYTE);
}

#[test]
fn fullmesh_joins_every_pair() {
    let mut net = Pair::seeded(813)
        .path(wifi())
        .path(wifi())
        .client(|host| {
            for path in &mut host.paths {
                path.addrs.truncate(1);
                path.flags = EndpointFlags { subflow: true, fullmesh: true, ..EndpointFlags::default() };
            }
        })
        .server(|host| {
            for path in &mut host.paths {
                path.addrs.truncate(1);
                path.flags = EndpointFlags { signal: true, ..EndpointFlags::default() };
            }
        })
        .build();
    let apps = start(&mut net, 10 * MEGABYTE, 0, &SocketOptions::default());
    finish(&mut net, apps, secs(5));
    let mut pairs: Vec<_> =
        net.app(apps.1).flow().subflows.iter().map(|subflow| (subflow.local.ip(), subflow.remote.ip())).collect();
    pairs.sort();
    pairs.dedup();
    assert_eq!(pairs.len(), 4, "{pairs:?}");
}

#[test]
fn limits_are_kept() {
    let mut net = Pair::seeded(814).path(wifi()).path(wifi()).path(wifi()).build();
    // Given a server that takes one extra subflow from a client with two to offer,
    let limits = Limits { subflows: 1, add_addr_accepted: 0 };
    let server = Transfer::listen(Pair::server_addr(0)).options(SocketOptions { limits, ..SocketOptions::default() });
    let server = net.spawn(Pair::SERVER, server);
    let client = net.spawn(Pair::CLIENT, Transfer::connect(Pair::server_addr(0)).sends(5 * MEGABYTE));
    finish(&mut net, (client, server), secs(5));
    assert_eq!(net.app(server).flow().subflows.len(), 2);
    assert!(net.counters(Pair::SERVER).mp_join_rejected > 0);
    close(&mut net, (client, server));
}

#[test]
fn a_little_data_on_many_paths_closes_in_good_order() {
    for bytes in [0, 1, 1000, 20_000] {
        let mut net = two_paths(815);
        let server =
            net.spawn(Pair::SERVER, Transfer::listen(Pair::server_addr(0)).sends(bytes).closes_when_sent(true));
        let client = Transfer::connect(Pair::server_addr(0)).sends(bytes).closes_when_sent(true);
        let client = net.spawn(Pair::CLIENT, client);
        finish(&mut net, (client, server), secs(5));
        close(&mut net, (client, server));
        net.run_to(secs(75));
        for host in [Pair::CLIENT, Pair::SERVER] {
            assert_eq!(net.shard(host, 0).connections(), 0, "{bytes} bytes: {host:?} kept the connection");
        }
    }
}

#[test]
fn a_conversation_stays_on_one_path_and_the_other_is_there() {
    let mut net = two_paths(816);
    let server = net.spawn(Pair::SERVER, Chatter::listen(Pair::server_addr(0)));
    let mut talk = Chatter::connect(Pair::server_addr(0));
    for n in 0..50u64 {
        talk = talk.at(ms(500 + 100 * n), Action::Write(vec![n as u8; 200]));
    }
    let client = net.spawn(Pair::CLIENT, talk);
    net.run_to(ms(400));
    let before = net.up_stats(1).delivered_bytes;
    net.run_to(secs(6));
    assert_eq!(net.app(server).heard().len(), 10_000);
    // The path with the smaller round-trip time has room all the time: nothing goes on the other one.
    assert!(net.up_stats(1).delivered_bytes - before < 1000, "{}", net.up_stats(1).delivered_bytes - before);
    let conn = net.app(client).conn().unwrap();
    assert_eq!(net.shard(Pair::CLIENT, 0).subflows(conn).unwrap().len(), 2);
}
