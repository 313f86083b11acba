//! Flow control: windows that close and open again.

use anabranch_core::{Error, SocketOptions};
use anabranch_sim::{Action, Chatter, LinkChange, Note, Pair, Transfer};

use crate::support::*;

fn options(mptcp: bool, recv_buffer_max: u32) -> SocketOptions {
    SocketOptions { mptcp, recv_buffer_max, ..SocketOptions::default() }
}

#[test]
fn a_window_closes_and_opens_again() {
    for mptcp in [true, false] {
        // Given a reader that stops for three seconds while a megabyte is sent into 64 KiB of buffer,
        let mut net = Pair::seeded(401).path(wifi()).build();
        let server = Chatter::listen(Pair::server_addr(0))
            .options(options(mptcp, 64 << 10))
            .at(ms(0), Action::Read(false))
            .at(ms(3000), Action::Read(true));
        let server = net.spawn(Pair::SERVER, server);
        let client = Transfer::connect(Pair::server_addr(0)).options(options(mptcp, 64 << 10)).sends(MEGABYTE);
        net.spawn(Pair::CLIENT, client);
        net.run_to(ms(2900));
        assert_eq!(net.app(server).heard().len(), 0);
        assert!(net.up_stats(0).delivered_bytes < 100_000, "mptcp {mptcp}: {}", net.up_stats(0).delivered_bytes);
        let probes = net.counters(Pair::CLIENT).tcp_winprobe;
        assert!((2..20).contains(&probes), "mptcp {mptcp}: {probes} probes in three seconds");
        // when it reads again, then the rest comes at the speed of that window.
        assert!(net.run_until(secs(6), |world| world.app(server).saw(&Note::Eof)));
        assert_eq!(net.app(server).heard().len(), 1_000_000);
    }
}

#[test]
fn a_lost_window_update_does_not_stall() {
    for mptcp in [true, false] {
        let mut net = Pair::seeded(402).path(wifi()).build();
        let server = Chatter::listen(Pair::server_addr(0))
            .options(options(mptcp, 64 << 10))
            .at(ms(0), Action::Read(false))
            .at(ms(2000), Action::Read(true));
        let server = net.spawn(Pair::SERVER, server);
        let client = Transfer::connect(Pair::server_addr(0)).options(options(mptcp, 64 << 10)).sends(MEGABYTE);
        net.spawn(Pair::CLIENT, client);
        // What says that the window is open gets lost, and all else for a while: only a probe helps.
        let back = net.down_link(0);
        net.at(ms(1990), move |world| world.change_link(back, LinkChange::Down));
        net.at(ms(2100), move |world| world.change_link(back, LinkChange::Up));
        assert!(net.run_until(secs(12), |world| world.app(server).saw(&Note::Eof)), "mptcp {mptcp}");
        assert_eq!(net.app(server).heard().len(), 1_000_000);
    }
}

#[test]
fn a_closed_window_holds_for_as_long_as_the_peer_answers() {
    let mut net = Pair::seeded(403).path(wifi()).build();
    let server = Chatter::listen(Pair::server_addr(0)).options(options(true, 64 << 10)).at(ms(0), Action::Read(false));
    let server = net.spawn(Pair::SERVER, server);
    let client = Transfer::connect(Pair::server_addr(0)).sends(MEGABYTE);
    let client = net.spawn(Pair::CLIENT, client);
    // Half an hour is longer than any retransmission limit.
    net.run_to(secs(1800));
    assert_eq!(net.app(client).flow().closed, None);
    net.with_app(server, |_, ctx| ctx.wake_after(ms(1), 1));
    assert_eq!(net.app(server).closed(), None);
}

#[test]
fn a_slow_reader_sets_the_pace() {
    for mptcp in [true, false] {
        // Given a reader of 250 kB/s on a link of 6.25 MB/s,
        let mut net = Pair::seeded(404).path(wifi()).build();
        let server = Transfer::listen(Pair::server_addr(0)).options(options(mptcp, 128 << 10)).reads_at(250_000);
        let server = net.spawn(Pair::SERVER, server);
        let client = Transfer::connect(Pair::server_addr(0)).options(options(mptcp, 128 << 10)).sends(MEGABYTE);
        let client = net.spawn(Pair::CLIENT, client);
        let took = finish(&mut net, (client, server), secs(10));
        assert!(took > ms(3900) && took < ms(4600), "mptcp {mptcp}: {took:?}");
        // then no silly little segments are sent (RFC 9293 §3.8.6.2): most are full ones.
        let packets = net.up_stats(0).delivered_packets;
        assert!(packets < 1100, "mptcp {mptcp}: {packets} packets for 700 segments' worth");
        close(&mut net, (client, server));
    }
}

#[test]
fn a_small_buffer_bounds_what_is_under_way() {
    for mptcp in [true, false] {
        let mut net = Pair::seeded(405).path(wifi()).build();
        let server = Transfer::listen(Pair::server_addr(0)).options(options(mptcp, 100_000));
        let server = net.spawn(Pair::SERVER, server);
        let client = Transfer::connect(Pair::server_addr(0)).options(options(mptcp, 100_000)).sends(2 * MEGABYTE);
        let client = net.spawn(Pair::CLIENT, client);
        let took = finish(&mut net, (client, server), secs(10));
        // No more than a buffer a round trip, but not much less than half of one.
        assert!(took > ms(400) && took < ms(1000), "mptcp {mptcp}: {took:?}");
    }
}

#[test]
fn the_send_buffer_is_bounded() {
    let mut net = Pair::seeded(406).path(wifi()).build();
    let server = Chatter::listen(Pair::server_addr(0)).options(options(true, 64 << 10)).at(ms(0), Action::Read(false));
    net.spawn(Pair::SERVER, server);
    let options = SocketOptions { send_buffer_max: 200_000, ..SocketOptions::default() };
    let client = Transfer::connect(Pair::server_addr(0)).options(options).sends(10 * MEGABYTE);
    let client = net.spawn(Pair::CLIENT, client);
    net.run_to(secs(5));
    let written = net.app(client).flow().sent;
    assert!((100_000..=300_000).contains(&written), "{written} bytes were taken");
}

#[test]
fn a_peer_that_dies_behind_a_closed_window_is_noticed() {
    let mut net = Pair::seeded(407).path(wifi()).build();
    let server = Chatter::listen(Pair::server_addr(0)).options(plain()).at(ms(0), Action::Read(false));
    net.spawn(Pair::SERVER, server);
    let options = SocketOptions { user_timeout: Some(secs(30)), ..plain() };
    let client = net.spawn(Pair::CLIENT, Transfer::connect(Pair::server_addr(0)).options(options).sends(20 * MEGABYTE));
    net.run_to(secs(20));
    assert_eq!(net.app(client).flow().closed, None);
    let link = net.up_link(0);
    net.change_link(link, LinkChange::Down);
    assert!(net.run_until(secs(120), |world| world.app(client).is_over()));
    assert_eq!(net.app(client).flow().closed.and_then(|(_, error)| error), Some(Error::TimedOut));
}
