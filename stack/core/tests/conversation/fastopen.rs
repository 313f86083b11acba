//! Data in the SYN between two hosts, plain and over MPTCP (RFC 7413, RFC 8684 appendix B).

use anabranch_core::SocketOptions;
use anabranch_core::wire::{Flags, Segment};
use anabranch_sim::{Pair, Transfer};

use crate::support::*;

/// Picks segments.
type Which = fn(&Segment) -> bool;

fn options(mptcp: bool) -> SocketOptions {
    SocketOptions { mptcp, fastopen: 8, fastopen_connect: true, ..SocketOptions::default() }
}

fn has_data(segment: &Segment) -> bool {
    segment.flags.has(Flags::SYN) && !segment.payload.is_empty()
}

/// A client that asks for a cookie, and then one that has it. Returns how long the second one took to send `up` bytes and
/// to receive `down`; both sides check every byte.
fn twice(seed: u64, mptcp: bool, up: u64, down: u64, prepare: impl Fn(&mut Pair)) -> (Pair, core::time::Duration) {
    let mut net = two_paths(seed);
    let server = Transfer::listen(Pair::server_addr(0)).options(options(mptcp)).sends(down);
    let server = net.spawn(Pair::SERVER, server);
    let connect = || Transfer::connect(Pair::server_addr(0)).options(options(mptcp)).sends(up);
    let first = net.spawn(Pair::CLIENT, connect());
    assert!(net.run_until(secs(30), |world| world.app(first).is_over()));
    let begin = net.elapsed();
    prepare(&mut net);
    let second = net.spawn(Pair::CLIENT, connect());
    assert!(net.run_until(begin + secs(60), |world| world.app(second).completed(1) && world.app(server).completed(2)));
    let took = net.elapsed() - begin;
    for app in [first, second] {
        let flow = net.app(app).flow();
        assert_eq!(flow.received.bytes, down);
        assert_eq!(flow.info.as_ref().map(|info| info.mptcp), Some(mptcp));
    }
    let over = net.run_until(begin + secs(90), |world| world.app(second).is_over() && world.app(server).is_over());
    assert!(over && net.app(second).flow().closed_well(), "{:?}", net.app(second).flow().closed);
    if !mptcp {
        // A join may be under way when the connection ends.
        assert_no_reset(&net);
    }
    (net, took)
}

#[test]
fn a_second_connection_saves_half_of_its_time() {
    for mptcp in [false, true] {
        let (net, took) = twice(1501, mptcp, 500, 500, |_| ());
        // A round trip takes 20 ms: the answer is there after one, the end of the client's stream half a one later. With
        // MPTCP the answer waits for the client's key.
        let most = if mptcp { ms(45) } else { ms(35) };
        assert!(took < most, "{took:?}");
        assert_eq!(net.counters(Pair::CLIENT).tcp_fastopen_active, 1);
        assert_eq!(net.counters(Pair::SERVER).tcp_fastopen_passive, 1);
        assert_eq!(net.counters(Pair::SERVER).tcp_fastopen_cookie_reqd, 1);
    }
}

#[test]
fn streams_go_on_behind_the_data_of_the_syn() {
    for (seed, mptcp) in [(1502, false), (1503, true)] {
        // Long enough for joins to carry a share of it, and for what is lost to be sent again.
        let (net, _) = twice(seed, mptcp, 2 * MEGABYTE, 3 * MEGABYTE, |_| ());
        assert_eq!(net.counters(Pair::CLIENT).tcp_fastopen_active, 1);
        if mptcp {
            assert!(net.counters(Pair::SERVER).mp_join_ack_rx > 1, "both connections had a second subflow");
        }
    }
}

#[test]
fn what_gets_lost_of_the_handshake_is_sent_again() {
    for mptcp in [false, true] {
        let lost: [(&str, Way, Which); 4] = [
            ("the SYN with data", Way::Up, has_data),
            ("the SYN/ACK", Way::Down, |segment| segment.flags.has(Flags::SYN)),
            ("the third ACK", Way::Up, |segment| segment.flags == Flags::ACK && segment.payload.is_empty()),
            ("the answer", Way::Down, |segment| !segment.payload.is_empty()),
        ];
        for (seed, (what, way, which)) in (1510..).zip(lost) {
            let (_, took) = twice(seed, mptcp, 50_000, 50_000, |net| lose(net, way, 1, which));
            assert!(took < ms(1500), "{what} got lost, mptcp {mptcp}: {took:?}");
        }
    }
}

#[test]
fn a_server_that_takes_no_data_costs_nothing() {
    for mptcp in [false, true] {
        let mut net = two_paths(1520);
        let server = SocketOptions { fastopen: 0, ..options(mptcp) };
        let server = net.spawn(Pair::SERVER, Transfer::listen(Pair::server_addr(0)).options(server).sends(1000));
        for n in 1..=3 {
            let client = Transfer::connect(Pair::server_addr(0)).options(options(mptcp)).sends(1000);
            let client = net.spawn(Pair::CLIENT, client);
            let begin = net.elapsed();
            let done = |world: &anabranch_sim::World| world.app(client).completed(1) && world.app(server).completed(n);
            assert!(net.run_until(begin + secs(10), done));
            assert!(net.elapsed() - begin < ms(60));
        }
        assert_eq!(net.counters(Pair::SERVER).tcp_fastopen_passive, 0);
    }
}
