//! Boxes that remember flows, answer for others, or report errors.

use anabranch_sim::middlebox::{Firewall, Forger, Nat, Proxy, Router, Unreachable, Which};
use anabranch_sim::{Action, Chatter};

use super::*;

#[test]
fn both_paths_go_through_nats() {
    Scenario::two_paths(|net| (0..2).for_each(|path| net.box_both(path, Nat::new(77)))).run(7201);
}

#[test]
fn the_nat_of_the_second_path_is_restarted() {
    Scenario {
        bytes: 20 * MEGABYTE,
        within: secs(9),
        trouble: [&[], &[("TcpOutRsts", 1..=500)]],
        ..Scenario::two_paths(|net| net.box_both(1, Nat::new(77).rebinds_at(ms(400))))
    }
    .run(7202);
}

#[test]
fn the_nat_of_the_second_path_is_restarted_and_resets() {
    Scenario {
        bytes: 20 * MEGABYTE,
        within: secs(9),
        trouble: [&[], &[("TcpOutRsts", 1..=500)]],
        ..Scenario::two_paths(|net| net.box_both(1, Nat::new(77).rebinds_at(ms(400)).resets()))
    }
    .run(7203);
}

#[test]
fn the_nat_of_the_first_path_is_restarted() {
    Scenario {
        bytes: 20 * MEGABYTE,
        within: secs(9),
        trouble: [&[], &[("TcpOutRsts", 1..=500)]],
        ..Scenario::two_paths(|net| net.box_both(0, Nat::new(77).rebinds_at(ms(400))))
    }
    .run(7204);
}

#[test]
fn a_proxy_acknowledges_early_on_the_only_path() {
    Scenario {
        // Its acknowledgements have no DATA_ACK: to the client that is a server that fell back.
        fallback: [Some(FallbackReason::NoDss); 2],
        trouble: [&[("MPTcpExtDssFallback", 1..=1)], &[("MPTcpExtDssFallback", 1..=1)]],
        ..Scenario::one_path(|net| net.box_both(0, Proxy::default()))
    }
    .run(7205);
}

#[test]
fn a_proxy_acknowledges_early_on_the_second_path() {
    Scenario::two_paths(|net| net.box_both(1, Proxy::default())).run(7206);
}

#[test]
fn proxies_acknowledge_early_on_both_paths() {
    Scenario {
        // As on one path: it says so before there is a second one.
        carried: [USED, 0..=0],
        fallback: [Some(FallbackReason::NoDss); 2],
        trouble: [&[("MPTcpExtDssFallback", 1..=1)], &[("MPTcpExtDssFallback", 1..=1)]],
        ..Scenario::two_paths(|net| (0..2).for_each(|path| net.box_both(path, Proxy::default())))
    }
    .run(7207);
}

#[test]
fn a_router_on_the_second_path_takes_less() {
    Scenario::two_paths(|net| net.box_up(1, Router { mtu: 1300, tells: true })).run(7208);
}

#[test]
fn the_second_path_becomes_unreachable() {
    Scenario {
        carried: [USED, ANY],
        ..Scenario::two_paths(|net| {
            net.box_up(1, Unreachable::new(Which::ALL.from(ms(400))));
        })
    }
    .run(7209);
}

#[test]
fn errors_are_forged() {
    let scenario = || Scenario::two_paths(|net| everywhere(net, 2, || Forger::new(Which::ALL.every(5))));
    scenario().run(7210);
    scenario().plain().run(7210);
}

/// A client that says something of 300 kB at 100 ms and at 30 s, and a server that answers a second later each time.
fn talk_twice(net: &mut Pair, options: &SocketOptions) {
    let words = |chatter: Chatter, at: [u64; 2], byte: u8| {
        let chatter = chatter.options(options.clone());
        at.into_iter().fold(chatter, |chatter, at| chatter.at(ms(at), Action::Write(vec![byte; 300_000])))
    };
    let server = net.spawn(Pair::SERVER, words(Chatter::listen(Pair::server_addr(0)), [1_000, 31_000], b's'));
    let client = net.spawn(Pair::CLIENT, words(Chatter::connect(Pair::server_addr(0)), [100, 30_000], b'c'));
    net.run_to(secs(34));
    for (app, byte) in [(server, b'c'), (client, b's')] {
        let heard = net.app(app).heard();
        assert_eq!(heard.len(), 600_000, "{}", net.trace());
        assert!(heard.iter().all(|heard| *heard == byte));
        assert_eq!(net.app(app).closed(), None);
    }
}

#[test]
fn a_firewall_forgets_an_idle_path() {
    for resets in [false, true] {
        // Given a firewall before the first path that forgets flows after ten seconds,
        let firewall = Firewall::new(secs(10));
        let mut net = two_paths(7211);
        net.box_both(0, if resets { firewall.resets() } else { firewall });
        // when the two ends are silent for half a minute and go on then, what they say goes by the other path.
        talk_twice(&mut net, &SocketOptions::default());
        assert!(net.up_stats(1).delivered_bytes > 250_000, "{} bytes", net.up_stats(1).delivered_bytes);
        let client = net.counters(Pair::CLIENT);
        assert_eq!(client.subflow_stale, u64::from(!resets), "a reset says it at once");
    }
}

#[test]
fn a_nat_forgets_an_idle_path() {
    let mut net = two_paths(7212);
    net.box_both(0, Nat::new(77).timeout(secs(10)));
    talk_twice(&mut net, &SocketOptions::default());
    assert!(net.up_stats(1).delivered_bytes > 250_000, "{} bytes", net.up_stats(1).delivered_bytes);
}

#[test]
fn keepalive_keeps_the_only_path_open() {
    for mptcp in [true, false] {
        let mut net = Pair::seeded(7213).path(wifi()).build();
        net.box_both(0, Firewall::new(secs(10)));
        let keepalive = SocketOptions { keepalive: true, keepidle: secs(5), mptcp, ..SocketOptions::default() };
        talk_twice(&mut net, &keepalive);
    }
}
