//! DSS checksums, and boxes that change what they carry.

use anabranch_core::{FallbackReason, SocketOptions};
use anabranch_sim::middlebox::{Alter, Gateway, Split, Which};
use anabranch_sim::{Action, Chatter, LinkConfig, Note, Pair, Transfer};

use crate::support::*;

fn checked() -> SocketOptions {
    SocketOptions { checksum: true, ..SocketOptions::default() }
}

fn rough() -> LinkConfig {
    wifi().loss(0.01).reorder(0.02, ms(3)).duplicate(0.01)
}

#[test]
fn either_side_may_ask_for_checksums() {
    for (client, server) in [(true, true), (true, false), (false, true), (false, false)] {
        // Given two paths that lose, reorder and repeat, and cut segments in two, so that few mappings come in one piece,
        let mut net = Pair::seeded(1501).path(rough()).path(rough()).build();
        for path in 0..2 {
            net.box_up(path, Split::pieces_of(333));
            net.box_down(path, Split::pieces_of(333));
        }
        let options = |checksum| SocketOptions { checksum, ..SocketOptions::default() };
        let listening = Transfer::listen(Pair::server_addr(0)).options(options(server)).sends(3 * MEGABYTE);
        let server = net.spawn(Pair::SERVER, listening);
        let connecting = Transfer::connect(Pair::server_addr(0)).options(options(client)).sends(3 * MEGABYTE);
        let client = net.spawn(Pair::CLIENT, connecting);
        // then both streams arrive over MPTCP.
        finish(&mut net, (client, server), secs(60));
        for app in [client, server] {
            assert!(net.app(app).flow().info.as_ref().is_some_and(|info| info.mptcp));
        }
        for host in [Pair::CLIENT, Pair::SERVER] {
            let counters = net.counters(host);
            assert_eq!((counters.data_csum_err, counters.dss_corruption_reset, counters.dss_not_matching), (0, 0, 0));
        }
        close(&mut net, (client, server));
    }
}

#[test]
fn a_path_that_changes_bytes_is_left() {
    // Given two paths of which the second spoils every 20th segment,
    let mut net = two_paths(1502);
    net.box_up(1, Alter::new(Which::DATA.after(19).every(20)));
    let apps = start(&mut net, 10 * MEGABYTE, MEGABYTE, &checked());
    // then all bytes arrive as they were sent: what came changed comes again on the first path,
    finish(&mut net, apps, secs(60));
    let (client, server) = (net.counters(Pair::CLIENT), net.counters(Pair::SERVER));
    assert!(server.data_csum_err >= 1);
    // and the sender is told each time.
    assert_eq!(server.mp_fail_tx, server.data_csum_err);
    assert_eq!((client.mp_rst_rx, server.mp_rst_tx), (server.data_csum_err, server.data_csum_err));
    let info = net.app(apps.1).flow().info.clone().unwrap();
    assert!(info.mptcp && info.fallback.is_none());
    close(&mut net, apps);
}

#[test]
fn without_checksums_nobody_notices() {
    let mut net = two_paths(1502);
    net.box_up(1, Alter::new(Which::DATA.after(19).every(20)));
    let apps = start(&mut net, 10 * MEGABYTE, 0, &SocketOptions::default());
    net.run_to(secs(3));
    assert!(net.app(apps.1).flow().received.wrong_at.is_some(), "or this test tests nothing");
}

/// A client that says three things, which a gateway on the only path changes from the `changed`th on, and a server that
/// answers. What the server heard and how the two ended up.
fn gateway(seed: u64, changed: &'static [&'static str]) -> (String, Pair, [Option<FallbackReason>; 2]) {
    let mut net = Pair::seeded(seed).path(wifi()).build();
    let server = Chatter::listen(Pair::server_addr(0))
        .options(checked())
        .at(ms(150), Action::Write(b"yes ".to_vec()))
        .at(ms(450), Action::Write(b"well ".to_vec()));
    let server = net.spawn(Pair::SERVER, server);
    let client = ["one ", "two ", "three ", "four ", "five "]
        .iter()
        .zip(1..)
        .fold(Chatter::connect(Pair::server_addr(0)).options(checked()), |client, (word, tenths)| {
            client.at(ms(100 * tenths), Action::Write(word.as_bytes().to_vec()))
        });
    let client = net.spawn(Pair::CLIENT, client);
    let upper: Vec<_> = changed.iter().map(|word| (*word, word.to_uppercase())).collect();
    net.box_up(0, Gateway::replacing(upper.iter().map(|(word, upper)| (*word, upper.as_str()))));
    net.run_to(secs(3));
    let heard = String::from_utf8(net.app(server).heard()).unwrap();
    assert_eq!(net.app(client).heard(), b"yes well ");
    let reasons = [(Pair::CLIENT, net.app(client).conn()), (Pair::SERVER, net.app(server).conn())]
        .map(|(host, conn)| net.shard(host, 0).info(conn.unwrap()).unwrap().fallback);
    // Nobody waits for an answer that came.
    net.run_to(secs(200));
    assert!(!net.app(client).saw(&Note::Eof) && net.app(client).closed().is_none());
    (heard, net, reasons)
}

#[test]
fn the_only_path_goes_on_as_tcp_with_what_the_gateway_wrote() {
    // Given a gateway that leaves the first words alone,
    let (heard, net, reasons) = gateway(1503, &["three", "four"]);
    // then from the first change on the stream is TCP's, changes and all, for both sides,
    assert_eq!(heard, "one two THREE FOUR five ");
    assert_eq!(reasons, [Some(FallbackReason::Checksum); 2]);
    // which have told each other.
    let (client, server) = (net.counters(Pair::CLIENT), net.counters(Pair::SERVER));
    assert_eq!((server.data_csum_err, server.mp_fail_tx, client.mp_fail_rx), (1, 1, 1));
    assert_eq!((client.mp_fail_tx, server.mp_fail_rx), (1, 1));
    assert_eq!((client.infinite_map_tx, server.infinite_map_rx), (1, 1));
}

#[test]
fn a_gateway_that_changes_the_first_bytes_makes_it_tcp_from_the_start() {
    let (heard, net, reasons) = gateway(1504, &["one", "two", "three"]);
    assert_eq!(heard, "ONE TWO THREE four five ");
    assert!(reasons.iter().all(Option::is_some), "{reasons:?}");
    let server = net.counters(Pair::SERVER);
    assert_eq!((server.data_csum_err, server.mp_fail_tx), (1, 0));
    assert_no_reset(&net);
}
