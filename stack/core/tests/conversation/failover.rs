//! Paths that die, come back, or are only there for that.

use std::time::Duration;

use anabranch_core::config::EndpointFlags;
use anabranch_core::wire::Flags;
use anabranch_core::{Error, SocketOptions};
use anabranch_frame::PathId;
use anabranch_sim::middlebox::TcpPacket;
use anabranch_sim::{Action, Chatter, HostConfig, LinkConfig, Note, Pair, PairBuilder, Verdict};

use crate::support::*;

/// A link that goes silent for good.
fn dying(link: LinkConfig, at: Duration) -> LinkConfig {
    link.outage(at, secs(100_000))
}

/// Two paths of which `dead` goes silent both ways at one second, while `up` and `down` bytes flow.
/// How long that took and the longest time that a reader waited.
fn silence(seed: u64, dead: u16, up: u64, down: u64, scheduler: &str) -> (Duration, Duration) {
    let links = [wifi(), lte()].into_iter().enumerate();
    let mut builder = Pair::seeded(seed);
    for (path, link) in links {
        builder = builder.path(if path == usize::from(dead) { dying(link, secs(1)) } else { link });
    }
    let mut net = builder.build();
    let options = SocketOptions { scheduler: scheduler.into(), ..SocketOptions::default() };
    let apps = start(&mut net, up, down, &options);
    let took = finish(&mut net, apps, secs(60));
    let gap = net.app(apps.0).flow().received.longest_gap.max(net.app(apps.1).flow().received.longest_gap);
    (took, gap)
}

#[test]
fn the_first_path_goes_silent() {
    for (up, down) in [(20, 0), (0, 20), (20, 20)] {
        let (took, gap) = silence(901, 0, up * MEGABYTE, down * MEGABYTE, "minrtt");
        // 1 s of both paths moved 7 MB; 13 MB over LTE alone take 6 s, longer when both directions share it.
        assert!(took < secs(if up * down > 0 { 12 } else { 9 }), "{up} up, {down} down: {took:?}");
        assert!(gap < ms(1500), "{up} up, {down} down: nothing for {gap:?}");
    }
}

#[test]
fn the_second_path_goes_silent() {
    for (up, down) in [(20, 0), (0, 20), (20, 20)] {
        let (took, gap) = silence(902, 1, up * MEGABYTE, down * MEGABYTE, "minrtt");
        assert!(took < secs(5), "{up} up, {down} down: {took:?}");
        assert!(gap < ms(1500), "{up} up, {down} down: nothing for {gap:?}");
    }
}

#[test]
fn every_scheduler_survives_the_loss_of_a_path() {
    for name in anabranch_core::sched::NAMES.split(", ") {
        for dead in 0..2 {
            let (took, gap) = silence(903, dead, 15 * MEGABYTE, 15 * MEGABYTE, name);
            assert!(took < secs(12), "{name}, path {dead}: {took:?}");
            assert!(gap < secs(2), "{name}, path {dead}: nothing for {gap:?}");
        }
    }
}

#[test]
fn only_one_direction_goes_silent() {
    for (up_dies, down_dies) in [(true, false), (false, true)] {
        let die = |dies: bool| if dies { dying(wifi(), secs(1)) } else { wifi() };
        let mut net = Pair::seeded(904).path_with(die(up_dies), die(down_dies)).path(lte()).build();
        let apps = start(&mut net, 20 * MEGABYTE, 0, &SocketOptions::default());
        let took = finish(&mut net, apps, secs(60));
        let gap = net.app(apps.1).flow().received.longest_gap;
        assert!(took < secs(9) && gap < ms(1500), "up {up_dies}, down {down_dies}: {took:?}, nothing for {gap:?}");
    }
}

#[test]
fn a_path_that_comes_back_is_used_again() {
    let mut net = Pair::seeded(905).path(wifi().outage(secs(1), secs(3))).path(lte()).build();
    let apps = start(&mut net, 40 * MEGABYTE, 0, &SocketOptions::default());
    net.run_to(secs(3));
    let before = net.up_stats(0).delivered_bytes;
    let took = finish(&mut net, apps, secs(60));
    // Of 40 MB about 8 moved before and 4 during the outage; 28 MB over both take 3.5 s.
    assert!(took < secs(11), "{took:?}");
    let after = net.up_stats(0).delivered_bytes - before;
    assert!(after > 10 * MEGABYTE, "only {after} bytes went over it after it came back");
}

#[test]
fn both_paths_go_silent_for_a_while() {
    let pause = |link: LinkConfig| link.outage(secs(1), secs(5));
    let mut net = Pair::seeded(906).path(pause(wifi())).path(pause(lte())).build();
    let apps = start(&mut net, 20 * MEGABYTE, 20 * MEGABYTE, &SocketOptions::default());
    let took = finish(&mut net, apps, secs(60));
    assert!(took < secs(14), "{took:?}");
}

#[test]
fn a_device_goes_down_on_either_side() {
    for host in [Pair::CLIENT, Pair::SERVER] {
        for dead in [0, 1] {
            let mut net = two_paths(907);
            let apps = start(&mut net, 20 * MEGABYTE, 20 * MEGABYTE, &SocketOptions::default());
            net.at(secs(1), move |world| world.set_path_up(host, PathId(dead), false).unwrap());
            let took = finish(&mut net, apps, secs(60));
            assert!(took < secs(12), "{host:?}, path {dead}: {took:?}");
            // Who knows that it is down moves over at once, the other one is told by REMOVE_ADDR or finds out.
            let (client, server) = (net.app(apps.0).flow(), net.app(apps.1).flow());
            let gap = client.received.longest_gap.max(server.received.longest_gap);
            assert!(gap < ms(800), "{host:?}, path {dead}: nothing for {gap:?}");
            // The server's first address serves both subflows: it is not withdrawn with its device.
            let withdrawn = u64::from(host == Pair::CLIENT);
            assert_eq!(net.counters(Pair::CLIENT).rm_addr_tx, withdrawn, "{host:?}, path {dead}");
            assert_eq!(net.counters(Pair::SERVER).rm_addr, withdrawn, "{host:?}, path {dead}");
        }
    }
}

#[test]
fn an_announced_address_is_withdrawn_with_its_device() {
    let mut net = Pair::seeded(915).path(wifi()).path(lte()).announced().build();
    let apps = start(&mut net, 20 * MEGABYTE, 20 * MEGABYTE, &SocketOptions::default());
    net.at(secs(1), |world| world.set_path_up(Pair::SERVER, PathId(1), false).unwrap());
    let took = finish(&mut net, apps, secs(60));
    assert!(took < secs(6), "{took:?}");
    assert!(net.counters(Pair::SERVER).rm_addr_tx > 0);
    assert!(net.counters(Pair::CLIENT).rm_addr > 0);
}

#[test]
fn a_device_comes_up_again_and_is_joined_again() {
    let mut net = two_paths(908);
    let apps = start(&mut net, 40 * MEGABYTE, 0, &SocketOptions::default());
    net.at(secs(1), |world| world.set_path_up(Pair::CLIENT, PathId(1), false).unwrap());
    net.at(secs(2), |world| world.set_path_up(Pair::CLIENT, PathId(1), true).unwrap());
    finish(&mut net, apps, secs(60));
    assert_eq!(net.counters(Pair::SERVER).mp_join_ack_rx, 2);
    let subflows = &net.app(apps.1).flow().subflows;
    assert_eq!(subflows.len(), 2);
    assert!(subflows[1].bytes_received > MEGABYTE, "{} bytes", subflows[1].bytes_received);
}

#[test]
fn the_servers_first_path_comes_back_and_is_joined() {
    // Given a server with two addresses to announce, and a client that joins what it hears of,
    let flagged = |signal| {
        let flags = EndpointFlags { signal, ..EndpointFlags::default() };
        move |host: &mut HostConfig| host.paths.iter_mut().for_each(|path| path.flags = flags)
    };
    for (seed, back) in [(931, ms(1100)), (932, secs(5))] {
        let mut net = Pair::seeded(seed).path(wifi()).path(lte()).client(flagged(false)).server(flagged(true)).build();
        let apps = start(&mut net, 60 * MEGABYTE, 0, &SocketOptions::default());
        // when the path goes on which it all began, then its addresses, one of each family, are withdrawn,
        net.at(secs(1), |world| world.set_path_up(Pair::SERVER, PathId(0), false).unwrap());
        net.at(back, |world| world.set_path_up(Pair::SERVER, PathId(0), true).unwrap());
        finish(&mut net, apps, secs(60));
        assert_eq!(net.counters(Pair::CLIENT).rm_addr, 2, "{back:?}");
        // and when it comes back it is announced under its endpoint's identifier, joined, and used.
        let flow = net.app(apps.1).flow();
        let subflow = flow.subflows.iter().find(|subflow| subflow.local == Pair::server_addr(0));
        let subflow = subflow.unwrap_or_else(|| panic!("{back:?}: {:?}", flow.subflows));
        assert_ne!(subflow.local_id, 0, "{back:?}");
        assert!(subflow.bytes_received > MEGABYTE, "{back:?}: {} bytes", subflow.bytes_received);
    }
}

#[test]
fn a_backup_waits_until_it_is_needed() {
    // Given a backup path, nothing but its handshake goes over it while the other one works.
    let mut net = Pair::seeded(909).path(dying(wifi(), secs(2))).path(lte()).backup(1).build();
    let apps = start(&mut net, 20 * MEGABYTE, 20 * MEGABYTE, &SocketOptions::default());
    net.run_to(secs(2));
    assert_eq!(net.counters(Pair::SERVER).mp_join_syn_backup_rx, 1);
    let used = (net.up_stats(1).delivered_bytes, net.down_stats(1).delivered_bytes);
    assert!(used.0 < 3000 && used.1 < 3000, "{used:?} bytes on the backup");
    // When that dies, the backup takes over in both directions.
    let took = finish(&mut net, apps, secs(60));
    assert!(took < secs(9), "{took:?}");
    let gap = net.app(apps.0).flow().received.longest_gap.max(net.app(apps.1).flow().received.longest_gap);
    assert!(gap < ms(1500), "nothing for {gap:?}");
}

#[test]
fn a_backup_takes_over_from_a_device_that_goes_down() {
    let mut net = Pair::seeded(910).path(wifi()).path(lte()).backup(1).build();
    let apps = start(&mut net, 20 * MEGABYTE, 0, &SocketOptions::default());
    net.at(secs(2), |world| world.set_path_up(Pair::CLIENT, PathId(0), false).unwrap());
    finish(&mut net, apps, secs(60));
    let gap = net.app(apps.1).flow().received.longest_gap;
    assert!(gap < ms(400), "nothing for {gap:?}");
}

#[test]
fn priorities_change_while_data_flows() {
    let mut net = two_paths(911);
    let apps = start(&mut net, 0, 40 * MEGABYTE, &SocketOptions::default());
    // The client asks the server to keep the second path as a backup from now on.
    net.at(secs(2), move |world| {
        let (_, conn) = world.app(apps.0).flow().conn;
        let second = world.shard(Pair::CLIENT, 0).subflows(conn).unwrap()[1].id;
        world.with_shard(Pair::CLIENT, 0, |now, shard| shard.set_backup(now, conn, second, true)).unwrap();
    });
    net.run_to(ms(2600));
    let before = net.down_stats(1).delivered_bytes;
    assert!(before > 2 * MEGABYTE);
    finish(&mut net, apps, secs(30));
    let after = net.down_stats(1).delivered_bytes - before;
    assert!(after < 100_000, "{after} bytes after MP_PRIO");
    assert_eq!((net.counters(Pair::CLIENT).mp_prio_tx, net.counters(Pair::SERVER).mp_prio_rx), (1, 1));
}

/// Bytes that the client sends over the second path between two times.
fn sent_on_second(net: &mut Pair, from: u64, to: u64) -> u64 {
    net.run_to(ms(from));
    let before = net.up_stats(1).delivered_bytes;
    net.run_to(ms(to));
    net.up_stats(1).delivered_bytes - before
}

#[test]
fn a_backup_is_one_for_both_directions_until_it_is_none() {
    // Given a client that sends over two paths and makes the second one a backup for a second,
    let mut net = two_paths(917);
    let apps = start(&mut net, 40 * MEGABYTE, 0, &SocketOptions::default());
    for (at, backup) in [(secs(2), true), (secs(3), false)] {
        net.at(at, move |world| {
            let (_, conn) = world.app(apps.0).flow().conn;
            let second = world.shard(Pair::CLIENT, 0).subflows(conn).unwrap()[1].id;
            world.with_shard(Pair::CLIENT, 0, |now, shard| shard.set_backup(now, conn, second, backup)).unwrap();
            assert_eq!(world.shard(Pair::CLIENT, 0).subflows(conn).unwrap()[1].backup, backup);
        });
    }
    // then it sends nothing there itself in that time (what waits in the queue arrives yet), and does again afterwards.
    assert!(sent_on_second(&mut net, 1500, 2000) > MEGABYTE / 2);
    assert!(sent_on_second(&mut net, 2300, 3000) < 10_000);
    assert!(sent_on_second(&mut net, 3200, 4000) > MEGABYTE / 2);
    finish(&mut net, apps, secs(30));
    assert_eq!((net.counters(Pair::CLIENT).mp_prio_tx, net.counters(Pair::SERVER).mp_prio_rx), (2, 2));
}

#[test]
fn a_server_says_of_its_backup_address_what_it_is() {
    // Given a server that announces a second address and keeps its path as a backup,
    let mut net =
        Pair::seeded(918).path(wifi()).path(lte()).announced().server(|host| host.paths[1].flags.backup = true).build();
    let apps = start(&mut net, 10 * MEGABYTE, 10 * MEGABYTE, &SocketOptions::default());
    finish(&mut net, apps, secs(30));
    // then the SYN/ACKs of the joins there say so (one of each family), and neither side sends there.
    assert_eq!(net.counters(Pair::CLIENT).mp_join_synack_backup_rx, 2);
    let used = (net.up_stats(1).delivered_bytes, net.down_stats(1).delivered_bytes);
    assert!(used.0 < 6000 && used.1 < 6000, "{used:?} bytes on the backup");
}

#[test]
fn without_any_path_the_connection_ends_some_day() {
    let mut net = Pair::seeded(912).path(wifi()).path(lte()).build();
    let apps = start(&mut net, 20 * MEGABYTE, 0, &SocketOptions::default());
    for path in 0..2 {
        net.at(secs(1), move |world| world.set_path_up(Pair::CLIENT, PathId(path), false).unwrap());
    }
    assert!(net.run_until(secs(2000), |world| world.app(apps.0).is_over()));
    let flow = net.app(apps.0).flow();
    assert_eq!(flow.closed.and_then(|(_, error)| error), Some(Error::TimedOut));
    // A connection without a subflow is kept for a minute (`net.mptcp.close_timeout`).
    assert!(net.elapsed() >= secs(60), "{:?}", net.elapsed());
}

#[test]
fn a_path_that_comes_up_within_a_minute_saves_the_connection() {
    let mut net = Pair::seeded(913).path(wifi()).path(lte()).build();
    let apps = start(&mut net, 20 * MEGABYTE, 0, &SocketOptions::default());
    for path in 0..2 {
        net.at(secs(1), move |world| world.set_path_up(Pair::CLIENT, PathId(path), false).unwrap());
    }
    net.at(secs(20), |world| world.set_path_up(Pair::CLIENT, PathId(1), true).unwrap());
    let took = finish(&mut net, apps, secs(60));
    // The subflow that was left goes on when its timer fires, backed off by then; the rest takes 6 s.
    assert!(took < secs(33), "{took:?}");
}

/// Firewalls on both paths that turn what the client sends into resets, from `from` to `to`.
fn reset_everything(net: &mut Pair, from: Duration, to: Duration) {
    for path in 0..2 {
        let link = net.up_link(path);
        net.set_middlebox(link, move |now, packet| {
            let now = Duration::from_millis(now.as_millis());
            let Some(mut tcp) = TcpPacket::read(&packet).filter(|_| (from..to).contains(&now)) else {
                return Verdict::Pass(packet);
            };
            tcp.set_options(&[]);
            tcp.truncate(0);
            tcp.set_flags(Flags::RST);
            Verdict::Pass(tcp.finish())
        });
    }
}

#[test]
fn a_connection_without_a_subflow_goes_on_with_the_next_one() {
    // Given firewalls that reset every subflow, and what comes next for four seconds,
    let mut net = two_paths(919);
    reset_everything(&mut net, secs(1), secs(5));
    let apps = start(&mut net, 20 * MEGABYTE, 20 * MEGABYTE, &SocketOptions::default());
    net.run_to(ms(4900));
    let server = net.app(apps.1).flow();
    assert_eq!((server.subflows_down, server.closed), (2, None));
    let held = net.shard(Pair::SERVER, 0).info(server.conn.1).unwrap();
    assert_eq!((held.subflows_total, held.mptcp), (0, true));
    // when they calm down, then the client joins again, and no byte is missing.
    let took = finish(&mut net, apps, secs(60));
    assert!(took < secs(30), "{took:?}");
    close(&mut net, apps);
}

#[test]
fn it_is_kept_as_long_as_it_is_told_to() {
    for seconds in [3, 20] {
        let mut net =
            Pair::seeded(920).path(wifi()).path(lte()).server(|host| host.shard.close_timeout = secs(seconds)).build();
        reset_everything(&mut net, secs(1), secs(10_000));
        let apps = start(&mut net, 20 * MEGABYTE, 0, &SocketOptions::default());
        assert!(net.run_until(secs(100), |world| world.app(apps.1).is_over()));
        let (at, error) = net.app(apps.1).flow().closed.unwrap();
        assert_eq!(error, Some(Error::TimedOut));
        let after = at.as_millis() - 1000;
        assert!((seconds * 1000..seconds * 1000 + 500).contains(&after), "{after} ms instead of {seconds} s");
    }
}

#[test]
fn a_second_path_that_never_worked_costs_nothing() {
    let dead = lte().outage(ms(0), secs(100_000));
    let took = |builder: PairBuilder| {
        let mut net = builder.build();
        transfer(&mut net, 20 * MEGABYTE, 20 * MEGABYTE, &SocketOptions::default(), secs(30))
    };
    let alone = took(Pair::seeded(914).path(wifi()));
    let beside = took(Pair::seeded(914).path(wifi()).path(dead));
    assert!(beside < alone + ms(100), "{beside:?} instead of {alone:?}");
}

#[test]
fn a_conversation_of_little_messages_moves_over_quickly() {
    for dead in 0..2 {
        // Given a message of 200 bytes every 100 ms, as a game or a shell sends them, when its path goes silent,
        let mut net = Pair::seeded(916 + dead)
            .path(if dead == 0 { dying(wifi(), secs(3)) } else { wifi() })
            .path(if dead == 1 { dying(lte(), secs(3)) } else { lte() })
            .build();
        let server = net.spawn(Pair::SERVER, Chatter::listen(Pair::server_addr(0)));
        let options = SocketOptions { nodelay: true, ..SocketOptions::default() };
        let mut talk = Chatter::connect(Pair::server_addr(0)).options(options);
        for n in 0..80 {
            talk = talk.at(ms(500 + 100 * n), Action::Write(vec![n as u8; 200]));
        }
        net.spawn(Pair::CLIENT, talk);
        net.run_to(secs(12));
        let heard = net.app(server).heard();
        assert!(heard.iter().enumerate().all(|(at, &byte)| usize::from(byte) == at / 200), "in order and intact");
        assert_eq!(heard.len(), 80 * 200, "path {dead}");
        // then it is a little late, once, and goes on over the other one.
        let times: Vec<_> =
            net.app(server).log().iter().filter(|(_, note)| matches!(note, Note::Data(_))).map(|&(at, _)| at).collect();
        let gap = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        assert!(gap < ms(if dead == 0 { 350 } else { 150 }), "path {dead}: nothing for {gap:?}");
        assert_eq!(net.counters(Pair::SERVER).mp_join_ack_rx, 1);
    }
}
