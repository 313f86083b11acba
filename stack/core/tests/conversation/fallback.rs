//! Peers and middleboxes that do not speak MPTCP.

use anabranch_core::wire::{Flags, Segment};
use anabranch_core::{FallbackReason, SocketOptions};
use anabranch_frame::{PathId, RxPacket};
use anabranch_sim::{Pair, Transfer, Verdict};

use crate::support::*;

/// Takes the MPTCP options off packets on path 0 that `which` picks.
fn strip(net: &mut Pair, way: Way, which: impl Fn(&Segment) -> bool + Send + 'static) {
    let link = way.link(net, 0);
    net.set_middlebox(link, move |_, packet| match Segment::parse(RxPacket::new(PathId(0), packet.clone())) {
        Ok(segment) if which(&segment) => Verdict::Pass(without_mptcp(&packet)),
        _ => Verdict::Pass(packet),
    });
}

/// Both streams arrive, over plain TCP, and either side knows why.
fn assert_falls_back(net: &mut Pair, client: Option<FallbackReason>, server: Option<FallbackReason>) {
    let apps = start(net, MEGABYTE, MEGABYTE, &SocketOptions::default());
    finish(net, apps, secs(10));
    for (app, reason) in [(apps.0, client), (apps.1, server)] {
        let info = net.app(app).flow().info.clone().unwrap();
        assert!(!info.mptcp, "{info:?}");
        assert_eq!(info.fallback, reason);
    }
    close(net, apps);
    assert_no_reset(net);
}

#[test]
fn the_server_speaks_plain_tcp() {
    let mut net = two_paths(1001);
    let server = net.spawn(Pair::SERVER, Transfer::listen(Pair::server_addr(0)).plain().sends(MEGABYTE));
    let client = net.spawn(Pair::CLIENT, Transfer::connect(Pair::server_addr(0)).sends(MEGABYTE));
    finish(&mut net, (client, server), secs(5));
    let info = net.app(client).flow().info.clone().unwrap();
    assert_eq!((info.mptcp, info.fallback), (false, Some(FallbackReason::SynAckNoCapable)));
    assert_eq!(net.counters(Pair::CLIENT).mp_capable_fallback_synack, 1);
    assert_eq!(net.up_stats(1).offered_packets, 0);
    close(&mut net, (client, server));
}

#[test]
fn the_client_speaks_plain_tcp() {
    let mut net = two_paths(1002);
    let server = net.spawn(Pair::SERVER, Transfer::listen(Pair::server_addr(0)).sends(MEGABYTE));
    let client = net.spawn(Pair::CLIENT, Transfer::connect(Pair::server_addr(0)).plain().sends(MEGABYTE));
    finish(&mut net, (client, server), secs(5));
    let info = net.app(server).flow().info.clone().unwrap();
    assert_eq!((info.mptcp, info.fallback), (false, Some(FallbackReason::SynNoCapable)));
    close(&mut net, (client, server));
}

#[test]
fn a_firewall_strips_everything() {
    for way in [Way::Up, Way::Down] {
        let mut net = two_paths(1003);
        strip(&mut net, way, |_| true);
        let reason = match way {
            Way::Up => FallbackReason::SynNoCapable,
            Way::Down => FallbackReason::SynAckNoCapable,
        };
        let apps = start(&mut net, MEGABYTE, MEGABYTE, &SocketOptions::default());
        finish(&mut net, apps, secs(10));
        // Who is asked without MP_CAPABLE never offers it; who gets no answer with it stops.
        let which = if matches!(way, Way::Up) { apps.1 } else { apps.0 };
        assert_eq!(net.app(which).flow().info.as_ref().unwrap().fallback, Some(reason));
        for app in [apps.0, apps.1] {
            assert!(!net.app(app).flow().info.as_ref().unwrap().mptcp, "{way:?}");
        }
        close(&mut net, apps);
        assert_no_reset(&net);
    }
}

#[test]
fn only_the_syn_ack_loses_its_option() {
    let mut net = two_paths(1004);
    strip(&mut net, Way::Down, |segment| segment.flags.has(Flags::SYN));
    // The server offered, and hears from a client that does not speak it.
    let server = Some(FallbackReason::AckNoCapable);
    assert_falls_back(&mut net, Some(FallbackReason::SynAckNoCapable), server);
}

#[test]
fn the_third_ack_and_the_data_lose_theirs() {
    let mut net = Pair::seeded(1005).path(wifi()).build();
    strip(&mut net, Way::Up, |segment| !segment.flags.has(Flags::SYN));
    let apps = start(&mut net, MEGABYTE, MEGABYTE, &SocketOptions::default());
    finish(&mut net, apps, secs(10));
    for app in [apps.0, apps.1] {
        assert!(!net.app(app).flow().info.as_ref().unwrap().mptcp);
    }
    close(&mut net, apps);
}

#[test]
fn a_server_that_fell_back_hears_the_end_of_a_stream_without_bytes() {
    // Given a firewall that strips all but the SYNs of the client, and nothing but their ends to say,
    for (up, down) in [(0, 0), (1000, 0), (0, 1000)] {
        let mut net = Pair::seeded(1009).path(wifi()).build();
        strip(&mut net, Way::Up, |segment| !segment.flags.has(Flags::SYN));
        let server = net.spawn(Pair::SERVER, Transfer::listen(Pair::server_addr(0)).sends(down));
        let client = Transfer::connect(Pair::server_addr(0)).sends(up).closes_when_sent(true);
        let client = net.spawn(Pair::CLIENT, client);
        // then the client finds out, and ends it as TCP does.
        finish(&mut net, (client, server), secs(20));
        close(&mut net, (client, server));
    }
}

#[test]
fn syns_with_mptcp_are_swallowed() {
    // Given a firewall that drops what it does not know, the third SYN goes without MP_CAPABLE.
    let mut net = Pair::seeded(1006).path(wifi()).build();
    lose(&mut net, Way::Up, usize::MAX, |segment| segment.flags.has(Flags::SYN) && !segment.options.mptcp.is_empty());
    let apps = start(&mut net, 1000, 1000, &SocketOptions::default());
    let took = finish(&mut net, apps, secs(20));
    assert!(took > secs(2) && took < secs(8), "{took:?}");
    let info = net.app(apps.0).flow().info.clone().unwrap();
    assert_eq!(info.fallback, Some(FallbackReason::SynDropped));
    assert_eq!(net.counters(Pair::CLIENT).mp_capable_syn_tx_drop, 1);
}

#[test]
fn joins_that_a_firewall_strips_leave_the_connection_alone() {
    let mut net = two_paths(1007);
    let link = net.up_link(1);
    net.set_middlebox(link, |_, packet| Verdict::Pass(without_mptcp(&packet)));
    let apps = start(&mut net, 5 * MEGABYTE, 5 * MEGABYTE, &SocketOptions::default());
    let took = finish(&mut net, apps, secs(10));
    assert!(took < ms(1700), "{took:?}");
    let info = net.app(apps.0).flow().info.clone().unwrap();
    assert!(info.mptcp);
    assert_eq!(info.subflows_total, 1);
    close(&mut net, apps);
}

#[test]
fn a_path_that_begins_to_strip_loses_its_subflow_only() {
    let mut net = two_paths(1008);
    let link = net.up_link(1);
    net.set_middlebox(link, |now, packet| {
        Verdict::Pass(if now.as_millis() > 500 { without_mptcp(&packet) } else { packet })
    });
    let apps = start(&mut net, 20 * MEGABYTE, 5 * MEGABYTE, &SocketOptions::default());
    finish(&mut net, apps, secs(30));
    assert!(net.app(apps.1).flow().info.as_ref().unwrap().mptcp);
}
