//! Opening connections, also when packets of the handshake get lost.

use std::net::SocketAddr;
use std::time::Duration;

use anabranch_core::wire::{Flags, Segment};
use anabranch_core::{Error, FallbackReason, SocketOptions};
use anabranch_sim::{Action, Chatter, Note, Pair};

use crate::support::*;

fn is_third_ack(segment: &Segment) -> bool {
    segment.flags == Flags::ACK && segment.payload.is_empty()
}

/// How long a small transfer takes, with MPTCP and without, when `prepare` broke something.
fn with_loss(seed: u64, prepare: impl Fn(&mut Pair)) -> [Duration; 2] {
    [true, false].map(|mptcp| {
        let mut net = Pair::seeded(seed).path(wifi()).build();
        prepare(&mut net);
        let options = SocketOptions { mptcp, ..SocketOptions::default() };
        let apps = start(&mut net, 1000, 1000, &options);
        let took = finish(&mut net, apps, secs(10));
        assert_eq!(net.app(apps.1).flow().info.as_ref().map(|info| info.mptcp), Some(mptcp));
        close(&mut net, apps);
        assert_no_reset(&net);
        took
    })
}

#[test]
fn a_lost_syn_is_sent_again_after_a_second() {
    for took in with_loss(201, |net| lose(net, Way::Up, 1, |segment| segment.flags.has(Flags::SYN))) {
        assert!(took > ms(1040) && took < ms(1200), "{took:?}");
    }
}

#[test]
fn a_lost_syn_ack_is_sent_again_after_a_second() {
    for took in with_loss(202, |net| lose(net, Way::Down, 1, |segment| segment.flags.has(Flags::SYN))) {
        assert!(took > ms(1000) && took < ms(1200), "{took:?}");
    }
}

#[test]
fn a_lost_third_ack_does_not_matter_when_data_follows() {
    for took in with_loss(203, |net| lose(net, Way::Up, 1, is_third_ack)) {
        assert!(took < ms(1500), "{took:?}");
    }
}

#[test]
fn a_lost_third_ack_does_not_matter_when_the_server_speaks_first() {
    for mptcp in [true, false] {
        let mut net = Pair::seeded(204).path(wifi()).build();
        lose(&mut net, Way::Up, 1, is_third_ack);
        let options = SocketOptions { mptcp, ..SocketOptions::default() };
        let apps = start(&mut net, 0, 100_000, &options);
        // Only the SYN/ACK's retransmission gets the connection going.
        let took = finish(&mut net, apps, secs(10));
        assert!(took < ms(1500), "{took:?}");
    }
}

#[test]
fn two_syns_that_get_lost_make_it_two_seconds() {
    for took in with_loss(205, |net| lose(net, Way::Up, 2, |segment| segment.flags.has(Flags::SYN))) {
        assert!(took > ms(2000) && took < ms(2300), "{took:?}");
    }
}

#[test]
fn nobody_answers() {
    let mut net = Pair::seeded(206).path(wifi()).build();
    lose(&mut net, Way::Up, usize::MAX, |_| true);
    let client = net.spawn(Pair::CLIENT, Chatter::connect(Pair::server_addr(0)));
    assert!(net.run_until(secs(300), |world| world.app(client).closed().is_some()), "still trying after 5 minutes");
    assert_eq!(net.app(client).closed(), Some(Some(Error::TimedOut)));
    // As many SYNs as the kernel sends: the first, four more a second apart, and six more with doubling timeouts.
    assert_eq!(net.elapsed().as_secs(), 131);
    assert_eq!(net.counters(Pair::CLIENT).tcp_attempt_fails, 1);
}

#[test]
fn a_closed_port_refuses() {
    let mut net = Pair::seeded(207).path(wifi()).build();
    let client = net.spawn(Pair::CLIENT, Chatter::connect(Pair::server_addr(0)));
    assert!(net.run_until(secs(1), |world| world.app(client).closed().is_some()));
    assert_eq!(net.app(client).closed(), Some(Some(Error::Refused)));
    assert_eq!(net.elapsed().as_millis(), 20);
    assert_eq!(net.counters(Pair::SERVER).tcp_out_rsts, 1);
}

#[test]
fn no_path_no_connection() {
    let mut net = Pair::seeded(208)
        .path(wifi())
        .client(|host| host.paths.iter_mut().for_each(|path| path.point_to_point = false))
        .build();
    let client = net.spawn(Pair::CLIENT, Chatter::connect("192.0.2.1:80".parse().unwrap()));
    assert!(net.app(client).saw(&Note::Refused(Error::Unreachable("192.0.2.1".parse().unwrap()))));
}

#[test]
fn an_address_is_listened_on_once() {
    let mut net = Pair::seeded(209).path(wifi()).build();
    let addr = Pair::server_addr(0);
    net.spawn(Pair::SERVER, Chatter::listen(addr));
    let second = net.spawn(Pair::SERVER, Chatter::listen(addr));
    assert!(net.app(second).saw(&Note::Refused(Error::AddrInUse(addr))));
}

#[test]
fn both_open_at_once() {
    for mptcp in [true, false] {
        let mut net = Pair::seeded(210).path(wifi()).build();
        let options = SocketOptions { mptcp, ..SocketOptions::default() };
        let a = SocketAddr::new(Pair::client_addr(0), 4000);
        let b = SocketAddr::new(Pair::server_addr(0).ip(), 4000);
        let talk = |from, to, say: &str| {
            Chatter::connect_from(from, to)
                .options(options.clone())
                .at(ms(100), Action::Write(say.as_bytes().to_vec()))
                .at(ms(200), Action::Shutdown(anabranch_core::shard::Shutdown::Write))
        };
        let left = net.spawn(Pair::CLIENT, talk(a, b, "left"));
        let right = net.spawn(Pair::SERVER, talk(b, a, "right"));
        net.run_to(ms(500));
        assert_eq!(net.app(left).heard(), b"right");
        assert_eq!(net.app(right).heard(), b"left");
        // Closing at once, both went through CLOSING and in the end nobody is at fault.
        for app in [left, right] {
            assert!(net.app(app).saw(&Note::Eof));
            assert_ne!(net.app(app).closed(), Some(Some(Error::Reset)));
        }
        assert_no_reset(&net);
        let fallbacks = net.counters(Pair::CLIENT).simult_connect_fallback;
        assert_eq!(fallbacks, u64::from(mptcp), "MPTCP falls back in a simultaneous open");
        let info = net.shard(Pair::CLIENT, 0).info(net.app(left).conn().unwrap()).unwrap();
        let reason = if mptcp { FallbackReason::SimultaneousConnect } else { FallbackReason::Disabled };
        assert_eq!((info.mptcp, info.fallback), (false, Some(reason)));
    }
}
