//! Timers that fire when nothing else happens: keepalive, user timeout, Nagle, delayed ACK.

use anabranch_core::{Error, SocketOptions};
use anabranch_sim::{Action, Chatter, LinkChange, Note, Pair};

use crate::support::*;

fn keepalive(mptcp: bool) -> SocketOptions {
    SocketOptions {
        mptcp,
        keepalive: true,
        keepidle: secs(10),
        keepintvl: secs(2),
        keepcnt: 5,
        ..SocketOptions::default()
    }
}

#[test]
fn an_idle_connection_lives_while_its_peer_answers() {
    for mptcp in [true, false] {
        let mut net = Pair::seeded(601).path(wifi()).build();
        let server = net.spawn(Pair::SERVER, Chatter::listen(Pair::server_addr(0)));
        let talk = Chatter::connect(Pair::server_addr(0))
            .options(keepalive(mptcp))
            .at(ms(100), Action::Write(b"hello".to_vec()))
            .at(secs(600), Action::Write(b"still there".to_vec()));
        let client = net.spawn(Pair::CLIENT, talk);
        net.run_to(secs(601));
        assert_eq!(net.app(server).heard(), b"hellostill there");
        assert_eq!(net.app(client).closed(), None);
        let probes = net.counters(Pair::CLIENT).tcp_keepalive;
        assert!((55..=60).contains(&probes), "mptcp {mptcp}: {probes} probes in 600 s, one every 10 s");
    }
}

#[test]
fn a_silent_peer_is_given_up_after_the_last_probe() {
    for mptcp in [true, false] {
        let mut net = Pair::seeded(602).path(wifi()).build();
        net.spawn(Pair::SERVER, Chatter::listen(Pair::server_addr(0)));
        let talk = Chatter::connect(Pair::server_addr(0))
            .options(keepalive(mptcp))
            .at(ms(100), Action::Write(b"hello".to_vec()));
        let client = net.spawn(Pair::CLIENT, talk);
        let link = net.up_link(0);
        net.at(secs(5), move |world| world.change_link(link, LinkChange::Down));
        assert!(net.run_until(secs(100), |world| world.app(client).closed().is_some()), "mptcp {mptcp}");
        assert_eq!(net.app(client).closed(), Some(Some(Error::TimedOut)));
        // Ten idle seconds, five probes two seconds apart; MPTCP then waits for another subflow.
        let least = secs(19);
        assert!(net.elapsed() > least, "mptcp {mptcp}: {:?}", net.elapsed());
        assert!(mptcp || net.elapsed() < secs(22), "{:?}", net.elapsed());
    }
}

#[test]
fn the_user_timeout_ends_a_connection_that_gets_no_answer() {
    let mut net = Pair::seeded(603).path(wifi()).build();
    net.spawn(Pair::SERVER, Chatter::listen(Pair::server_addr(0)));
    let options = SocketOptions { user_timeout: Some(secs(10)), ..plain() };
    let talk = Chatter::connect(Pair::server_addr(0)).options(options).at(secs(2), Action::Write(b"hello".to_vec()));
    let client = net.spawn(Pair::CLIENT, talk);
    let link = net.up_link(0);
    net.at(secs(1), move |world| world.change_link(link, LinkChange::Down));
    assert!(net.run_until(secs(60), |world| world.app(client).closed().is_some()));
    assert_eq!(net.app(client).closed(), Some(Some(Error::TimedOut)));
    assert!(net.elapsed() > secs(11) && net.elapsed() < secs(20), "{:?}", net.elapsed());
}

#[test]
fn without_a_user_timeout_it_takes_a_quarter_of_an_hour() {
    let mut net = Pair::seeded(604).path(wifi()).build();
    net.spawn(Pair::SERVER, Chatter::listen(Pair::server_addr(0)));
    let talk = Chatter::connect(Pair::server_addr(0)).options(plain()).at(secs(2), Action::Write(b"hello".to_vec()));
    let client = net.spawn(Pair::CLIENT, talk);
    let link = net.up_link(0);
    net.at(secs(1), move |world| world.change_link(link, LinkChange::Down));
    assert!(net.run_until(secs(3000), |world| world.app(client).closed().is_some()));
    assert_eq!(net.app(client).closed(), Some(Some(Error::TimedOut)));
    // The kernel's 15 retransmissions: 924 s at a timeout of 200 ms; RFC 9293 asks for 100 s at least.
    assert!(net.elapsed() > secs(100) && net.elapsed() < secs(1200), "{:?}", net.elapsed());
}

/// Twenty writes of ten bytes, 2 ms apart, over a round trip of 20 ms: packets with data that this takes.
fn little_writes(nodelay: bool, mptcp: bool) -> u64 {
    let mut net = Pair::seeded(605).path(wifi()).build();
    let server = net.spawn(Pair::SERVER, Chatter::listen(Pair::server_addr(0)));
    let mut talk =
        Chatter::connect(Pair::server_addr(0)).options(SocketOptions { nodelay, mptcp, ..SocketOptions::default() });
    for n in 0..20 {
        talk = talk.at(ms(100 + 2 * n), Action::Write(vec![n as u8; 10]));
    }
    net.spawn(Pair::CLIENT, talk);
    net.run_to(ms(99));
    let before = net.up_stats(0).delivered_packets;
    net.run_to(secs(2));
    assert_eq!(net.app(server).heard().len(), 200);
    net.up_stats(0).delivered_packets - before
}

#[test]
fn nagle_gathers_little_writes_and_nodelay_does_not() {
    for mptcp in [true, false] {
        let gathered = little_writes(false, mptcp);
        assert!((2..=6).contains(&gathered), "mptcp {mptcp}: {gathered} packets");
        let at_once = little_writes(true, mptcp);
        assert!((20..=23).contains(&at_once), "mptcp {mptcp}: {at_once} packets");
    }
}

#[test]
fn a_lone_segment_is_acknowledged_soon() {
    let mut net = Pair::seeded(606).path(wifi()).build();
    net.spawn(Pair::SERVER, Chatter::listen(Pair::server_addr(0)));
    let talk = Chatter::connect(Pair::server_addr(0)).options(plain()).at(secs(1), Action::Write(b"hello".to_vec()));
    let client = net.spawn(Pair::CLIENT, talk);
    net.run_to(ms(1250));
    // A delayed ACK comes within 200 ms, before the sender's timer fires.
    let conn = net.app(client).conn().unwrap();
    let info = net.shard(Pair::CLIENT, 0).info(conn).unwrap();
    assert_eq!((info.bytes_acked, info.send_queued), (5, 0));
    assert_eq!(net.counters(Pair::CLIENT).tcp_retrans_segs, 0);
    assert_eq!(net.app(client).log().last().map(|(_, note)| note.clone()), Some(Note::Connected));
}
