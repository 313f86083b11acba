//! Path managers on a network: who opens what, and what becomes of subflows that break.

use anabranch_core::SocketOptions;
use anabranch_core::wire::{Flags, Segment};
use anabranch_frame::{PathId, RxPacket};
use anabranch_sim::middlebox::TcpPacket;
use anabranch_sim::{Pair, Verdict};

use crate::support::*;

fn managed(name: &str) -> SocketOptions {
    SocketOptions { path_manager: name.into(), ..SocketOptions::default() }
}

/// A client with flags on none of its addresses.
fn without_flags(seed: u64) -> Pair {
    let unmark = |config: &mut anabranch_sim::HostConfig| {
        for path in &mut config.paths {
            path.flags = Default::default();
        }
    };
    Pair::seeded(seed).path(wifi()).path(lte()).client(unmark).build()
}

#[test]
fn none_opens_nothing() {
    let mut net = two_paths(1001);
    transfer(&mut net, 2 * MEGABYTE, 0, &managed("none"), secs(10));
    assert_eq!(net.counters(Pair::CLIENT).mp_join_syn_tx, 0);
    assert_eq!(net.up_stats(1).delivered_bytes, 0);
}

#[test]
fn fullmesh_joins_every_pair_that_can_be_reached() {
    // Given two hosts with an IPv4 and an IPv6 address on each of two paths, and no flags at all,
    let mut net = without_flags(1002);
    let apps = start(&mut net, 20 * MEGABYTE, 0, &managed("fullmesh"));
    finish(&mut net, apps, secs(20));
    // then each address announced by the server is joined from where it is reached (two of the eight pairs are not of one
    // family, and each path only leads to its own network), and both paths carry data.
    let (client, server) = (net.counters(Pair::CLIENT), net.counters(Pair::SERVER));
    assert_eq!(server.add_addr_tx, 3, "all but the address that the client knows");
    assert!(server.mp_join_ack_rx >= 2, "{} joins", server.mp_join_ack_rx);
    assert!(client.mp_join_syn_tx >= server.mp_join_ack_rx);
    assert!(net.up_stats(1).delivered_bytes > MEGABYTE);
    close(&mut net, apps);
}

#[test]
fn ndiffports_opens_subflows_from_other_ports() {
    let mut net = Pair::seeded(1003).path(wifi()).build();
    let apps = start(&mut net, 5 * MEGABYTE, 0, &managed("ndiffports=4"));
    finish(&mut net, apps, secs(10));
    let subflows = &net.app(apps.1).flow().subflows;
    assert_eq!(subflows.len(), 4);
    assert!(subflows.iter().all(|subflow| subflow.remote.ip() == Pair::client_addr(0)));
    let mut ports: Vec<u16> = subflows.iter().map(|subflow| subflow.remote.port()).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 4);
    close(&mut net, apps);
    assert_no_reset(&net);
}

/// A box on path 1 makes resets of data that passes when it is told to.
fn reset_on_path_1(net: &mut Pair, mut which: impl FnMut(anabranch_frame::Instant) -> bool + Send + 'static) {
    let link = net.up_link(1);
    net.set_middlebox(link, move |now, packet| {
        let parsed = Segment::parse(RxPacket::new(PathId(0), packet.clone()));
        if parsed.is_ok_and(|segment| !segment.payload.is_empty()) && which(now) {
            let mut reset = TcpPacket::read(&packet).expect("it was parsed");
            reset.set_flags(Flags::RST);
            return Verdict::Pass(reset.finish());
        }
        Verdict::Pass(packet)
    });
}

#[test]
fn a_subflow_that_was_reset_is_joined_again() {
    for name in ["endpoints", "fullmesh"] {
        // Given two subflows, of which a box resets the second at half a second,
        let mut net = two_paths(1004);
        let mut resets = 0;
        reset_on_path_1(&mut net, move |now| {
            let now = now.as_nanos() >= 500_000_000 && resets == 0;
            resets += u32::from(now);
            now
        });
        let apps = start(&mut net, 30 * MEGABYTE, 0, &managed(name));
        net.run_to(ms(1200));
        let (joins, before) = (net.counters(Pair::CLIENT).mp_join_synack_rx, net.up_stats(1).delivered_bytes);
        finish(&mut net, apps, secs(20));
        // then the client opens it again after a second, and it carries data again.
        assert_eq!(net.counters(Pair::CLIENT).mp_join_synack_rx, joins + 1, "{name}");
        assert!(net.up_stats(1).delivered_bytes > before + MEGABYTE, "{name}");
        close(&mut net, apps);
    }
}

#[test]
fn a_path_that_never_works_is_tried_ever_more_seldom() {
    // Given a second path on which every subflow is reset as soon as it speaks,
    let mut net = two_paths(1005);
    reset_on_path_1(&mut net, |_| true);
    let apps = start(&mut net, 100 * MEGABYTE, 100 * MEGABYTE, &SocketOptions::default());
    finish(&mut net, apps, secs(60));
    // then within half a minute it is asked five or six times (after 1, 2, 4, 8 and 16 s), and nothing is lost.
    assert!(net.elapsed() > secs(16));
    let asked = net.counters(Pair::CLIENT).mp_join_syn_tx;
    assert!((4..=6).contains(&asked), "asked {asked} times");
    close(&mut net, apps);
}
