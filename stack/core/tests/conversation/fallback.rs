//! Peers and middleboxes that do not speak MPTCP.

use std::time::Duration;

use anabranch_core::wire::{Flags, Segment};
use anabranch_core::{FallbackReason, Shard, SocketOptions};
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

/// What one side makes of it, and under which of the kernel's counters.
type Seen = (FallbackReason, &'static str);

/// Which segments lose their option.
type Picks = fn(&Segment) -> bool;

const SYNACK: Seen = (FallbackReason::SynAckNoCapable, "MPTcpExtMPCapableFallbackSYNACK");
const ACK: Seen = (FallbackReason::AckNoCapable, "MPTcpExtMPCapableFallbackACK");
const FIRST_DATA: Seen = (FallbackReason::FirstDataNoMapping, "MPTcpExtMPCapableDataFallback");
const DSS: Seen = (FallbackReason::NoDss, "MPTcpExtDssFallback");

#[test]
fn each_fallback_has_its_reason_and_its_counter() {
    let syn = |segment: &Segment| segment.flags.has(Flags::SYN);
    let later = |segment: &Segment| !segment.flags.has(Flags::SYN);
    let table: [(&str, Way, Picks, u64, [Seen; 2]); 5] = [
        ("the SYN/ACK", Way::Down, syn, 0, [SYNACK, ACK]),
        ("the third ACK and the client's data", Way::Up, later, 0, [FIRST_DATA, ACK]),
        ("the server's first data and acknowledgements", Way::Down, later, 0, [FIRST_DATA, DSS]),
        ("the client's data from the middle on", Way::Up, later, 150, [DSS, DSS]),
        ("the server's data from the middle on", Way::Down, later, 150, [DSS, DSS]),
    ];
    for (what, way, which, from, seen) in table {
        // Given a firewall that strips MPTCP off some segments of the only path,
        let mut net = Pair::seeded(1004).path(wifi()).build();
        let link = way.link(&net, 0);
        net.set_middlebox(link, move |now, packet| {
            let segment = Segment::parse(RxPacket::new(PathId(0), packet.clone())).unwrap();
            let stripped = which(&segment) && now.as_millis() >= from;
            Verdict::Pass(if stripped { without_mptcp(&packet) } else { packet })
        });
        // then both streams arrive over plain TCP, and either side says why.
        let apps = start(&mut net, 2 * MEGABYTE, 2 * MEGABYTE, &SocketOptions::default());
        finish(&mut net, apps, secs(10));
        for (host, app, (reason, counter)) in [(Pair::CLIENT, apps.0, seen[0]), (Pair::SERVER, apps.1, seen[1])] {
            let info = net.app(app).flow().info.clone().unwrap();
            assert_eq!((info.mptcp, info.fallback), (false, Some(reason)), "{what}: {host:?}");
            let counters = net.counters(host);
            let count = counters.iter().find(|(name, _)| *name == counter).map(|(_, count)| count);
            assert_eq!(count, Some(1), "{what}: {counter} of {host:?}");
        }
        close(&mut net, apps);
        assert_no_reset(&net);
    }
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

/// What came of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Opened {
    mptcp: bool,
    fallback: Option<FallbackReason>,
    /// SYNs with MP_CAPABLE, connections that did not even try, blackholes that were found.
    counts: [u64; 3],
}

/// Opens a connection at `at`, and lets it come to its end.
fn open_at(net: &mut Pair, at: Duration) -> Opened {
    let counts = |net: &Pair| {
        let counters = net.counters(Pair::CLIENT);
        [counters.mp_capable_syn_tx, counters.mp_capable_syn_tx_disabled, counters.mp_blackhole]
    };
    net.run_to(at);
    let before = counts(net);
    let client = net.spawn(Pair::CLIENT, Transfer::connect(Pair::server_addr(0)).sends(1000));
    assert!(net.run_until(at + secs(60), |world| world.app(client).is_over()), "not over by {:?}", net.elapsed());
    let info = net.app(client).flow().info.clone().unwrap();
    let after = counts(net);
    let counts = [0, 1, 2].map(|which| after[which] - before[which]);
    Opened { mptcp: info.mptcp, fallback: info.fallback, counts }
}

#[test]
fn a_blackhole_is_remembered_and_tried_again_ever_later() {
    // Given a firewall that swallows SYNs with MP_CAPABLE for two hours,
    let hours = |hours: u64| secs(hours * 3600);
    let mut net = Pair::seeded(1010).path(wifi()).client(|host| host.workers = 2).build();
    let link = net.up_link(0);
    net.set_middlebox(link, move |now, packet| {
        let segment = Segment::parse(RxPacket::new(PathId(0), packet.clone())).unwrap();
        let swallows = segment.flags.has(Flags::SYN) && !segment.options.mptcp.is_empty();
        if swallows && now.as_millis() < 7_200_000 { Verdict::Drop } else { Verdict::Pass(packet) }
    });
    net.spawn(Pair::SERVER, Transfer::listen(Pair::server_addr(0)));
    let known = Some(FallbackReason::Blackhole);
    let finds_out = Opened { mptcp: false, fallback: Some(FallbackReason::SynDropped), counts: [1, 0, 1] };
    let knows = Opened { mptcp: false, fallback: known, counts: [0, 1, 0] };
    let succeeds = Opened { mptcp: true, fallback: None, counts: [1, 0, 0] };
    // when the first connection finds that out,
    assert_eq!(open_at(&mut net, secs(1)), finds_out);
    // then no other one tries for an hour, whichever worker opens it,
    for minute in 1..7 {
        assert_eq!(open_at(&mut net, secs(minute * 500)), knows, "at {:?}", net.elapsed());
    }
    for worker in 0..2 {
        let before = net.shard(Pair::CLIENT, worker).counters().mp_capable_syn_tx_disabled;
        let options = SocketOptions::default();
        let connect = |now, shard: &mut Shard| shard.connect(now, None, Pair::server_addr(0), &options).unwrap();
        let conn = net.with_shard(Pair::CLIENT, worker, connect);
        let shard = net.shard(Pair::CLIENT, worker);
        assert_eq!(shard.info(conn).unwrap().fallback, known, "worker {worker}");
        assert_eq!(shard.counters().mp_capable_syn_tx_disabled, before + 1);
    }
    // one tries again in vain after that, and the next one not before two more hours.
    assert_eq!(open_at(&mut net, hours(1) + secs(10)), finds_out);
    assert_eq!(open_at(&mut net, hours(3)), knows);
    assert_eq!(open_at(&mut net, hours(3) + secs(60)), succeeds);
    // Then all is forgotten.
    assert_eq!(open_at(&mut net, hours(3) + secs(120)), succeeds);
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
