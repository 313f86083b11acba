//! Many connections, full backlogs, several workers.

use anabranch_core::shard::Shutdown;
use anabranch_core::{Error, Event, Limits, ListenerId, SocketOptions};
use anabranch_sim::{Action, Application, Chatter, Echo, HostCtx, LinkConfig, Note, Pair, Steering, Transfer};

use crate::support::*;

#[test]
fn two_hundred_connections_share_a_link() {
    for mptcp in [true, false] {
        let options = SocketOptions { mptcp, ..SocketOptions::default() };
        let mut net = Pair::seeded(701).path(LinkConfig::new(200, 10).queue_time(ms(50))).build();
        let listen = Transfer::listen(Pair::server_addr(0)).options(options.clone()).sends(50_000);
        let server = net.spawn(Pair::SERVER, listen);
        let clients: Vec<_> = (0..200)
            .map(|_| {
                let client = Transfer::connect(Pair::server_addr(0)).options(options.clone()).sends(50_000);
                net.spawn(Pair::CLIENT, client)
            })
            .collect();
        let done = net.run_until(secs(20), |world| {
            world.app(server).completed(200) && clients.iter().all(|&client| world.app(client).completed(1))
        });
        assert!(done, "mptcp {mptcp}: not done after {:?}", net.elapsed());
        // 20 MB in all at 200 Mbit/s.
        assert!(net.elapsed() < secs(5), "mptcp {mptcp}: {:?}", net.elapsed());
        assert_no_reset(&net);
        net.run_for(secs(70));
        for host in [Pair::CLIENT, Pair::SERVER] {
            assert_eq!(net.shard(host, 0).connections(), 0, "mptcp {mptcp}: {host:?} kept connections");
            assert_eq!(net.counters(host).tcp_curr_estab, 0);
        }
    }
}

#[test]
fn echoes_come_back() {
    let mut net = two_paths(702);
    let server = net.spawn(Pair::SERVER, Echo::listen(Pair::server_addr(0)));
    let clients = [10_000, 1, 3_000_000]
        .map(|bytes| net.spawn(Pair::CLIENT, Transfer::connect(Pair::server_addr(0)).sends(bytes).expects_echo()));
    assert!(net.run_until(secs(10), |world| clients.iter().all(|&client| world.app(client).completed(1))));
    for (client, bytes) in clients.into_iter().zip([10_000, 1, 3_000_000]) {
        assert_eq!(net.app(client).flow().received.bytes, bytes);
    }
    net.run_for(secs(1));
    assert_eq!((net.app(server).served(), net.app(server).open()), (3, 0));
}

/// Listens and never accepts.
#[derive(Debug, Default)]
struct Deaf {
    listener: Option<ListenerId>,
}

impl Application for Deaf {
    fn on_start(&mut self, ctx: &mut HostCtx<'_>) {
        self.listener = ctx.listen(Pair::server_addr(0), 4, SocketOptions::default()).ok();
    }

    fn on_event(&mut self, _ctx: &mut HostCtx<'_>, _event: Event) {}
}

#[test]
fn a_full_backlog_turns_away_without_a_reset() {
    let mut net = Pair::seeded(703).path(wifi()).build();
    net.spawn(Pair::SERVER, Deaf::default());
    let clients: Vec<_> =
        (0..20).map(|_| net.spawn(Pair::CLIENT, Chatter::connect(Pair::server_addr(0)).plain())).collect();
    net.run_to(secs(5));
    // As many as the backlog says, give or take one, are complete on the server; it sent no reset to the others.
    let counters = net.counters(Pair::SERVER);
    assert!(counters.listen_overflows + counters.listen_drops > 0);
    assert_eq!(counters.tcp_out_rsts, 0);
    assert!((4..=5).contains(&counters.tcp_curr_estab), "{} are established", counters.tcp_curr_estab);
    assert!(clients.iter().filter(|&&client| net.app(client).saw(&Note::Connected)).count() >= 4);
}

#[test]
fn closing_a_listener_resets_who_waits() {
    for mptcp in [true, false] {
        let mut net = Pair::seeded(704).path(wifi()).build();
        let deaf = net.spawn(Pair::SERVER, Deaf::default());
        let options = SocketOptions { mptcp, ..SocketOptions::default() };
        let client = net.spawn(Pair::CLIENT, Chatter::connect(Pair::server_addr(0)).options(options));
        net.run_to(ms(200));
        assert!(net.app(client).saw(&Note::Connected));
        let listener = net.app(deaf).listener.unwrap();
        net.with_shard(Pair::SERVER, 0, |now, shard| shard.close_listener(now, listener));
        net.run_to(ms(300));
        assert_eq!(net.app(client).closed(), Some(Some(Error::Reset)), "mptcp {mptcp}");
        assert_eq!(net.shard(Pair::SERVER, 0).connections(), 0);
    }
}

#[test]
fn workers_hand_each_other_what_is_not_theirs() {
    // Given two and three workers, and packets that arrive at any of them,
    for mptcp in [true, false] {
        let mut net = Pair::seeded(705)
            .path(wifi())
            .path(lte())
            .client(|host| (host.workers, host.steering) = (2, Steering::Random))
            .server(|host| (host.workers, host.steering) = (3, Steering::Random))
            .build();
        let options = SocketOptions { mptcp, ..SocketOptions::default() };
        let listen = Transfer::listen(Pair::server_addr(0)).options(options.clone()).sends(300_000);
        let server = net.spawn(Pair::SERVER, listen);
        let clients: Vec<_> = (0..12)
            .map(|_| {
                let client = Transfer::connect(Pair::server_addr(0)).options(options.clone()).sends(300_000);
                net.spawn(Pair::CLIENT, client)
            })
            .collect();
        // then every connection works, joined subflows included, and nobody resets what is another's.
        let done = net.run_until(secs(20), |world| {
            world.app(server).completed(12) && clients.iter().all(|&client| world.app(client).completed(1))
        });
        assert!(done, "mptcp {mptcp}: not done after {:?}", net.elapsed());
        assert_no_reset(&net);
        let joins = net.counters(Pair::SERVER).mp_join_ack_rx;
        assert_eq!(joins > 0, mptcp, "{joins} joins");
        let workers: std::collections::BTreeSet<_> = net.app(server).flows().iter().map(|flow| flow.conn.0).collect();
        assert!(workers.len() > 1, "all connections are on one worker");
    }
}

#[test]
fn a_port_is_free_again_after_time_wait() {
    let mut net = Pair::seeded(706).path(wifi()).build();
    let from = std::net::SocketAddr::new(Pair::client_addr(0), 4000);
    let listen = Chatter::listen(Pair::server_addr(0)).at(ms(100), Action::Shutdown(Shutdown::Write));
    net.spawn(Pair::SERVER, listen);
    let talk = || {
        Chatter::connect_from(from, Pair::server_addr(0))
            .at(ms(50), Action::Shutdown(Shutdown::Write))
            .at(ms(500), Action::Release)
    };
    net.spawn(Pair::CLIENT, talk());
    net.run_to(secs(2));
    let early = net.spawn(Pair::CLIENT, talk());
    assert!(net.app(early).saw(&Note::Refused(Error::AddrInUse(from))));
    net.run_to(secs(70));
    let late = net.spawn(Pair::CLIENT, talk());
    assert!(net.app(late).log().is_empty(), "{:?}", net.app(late).log());
}

/// As in the kernel each subflow waits for itself, in a small entry, and there are never more than `max_tw_buckets`.
#[test]
fn a_thousand_connections_of_eight_subflows_close_without_a_storm() {
    const CONNECTIONS: usize = 1000;
    const SUBFLOWS: u64 = 8;
    for most in [65_536, 500] {
        let mut net = (0..SUBFLOWS).fold(Pair::seeded(707), |net, _| net.path(LinkConfig::new(1000, 5)));
        net = net.client(|host| host.shard.handshake.max_tw_buckets = most);
        let mut net = net.server(|host| host.shard.handshake.max_tw_buckets = most).build();
        let limits = Limits { subflows: SUBFLOWS as u8 - 1, ..Limits::default() };
        let options = SocketOptions { limits, ..SocketOptions::default() };
        let listen = Transfer::listen(Pair::server_addr(0)).options(options.clone()).sends(1000);
        net.spawn(Pair::SERVER, listen.closes_when_sent(false));
        // Given all with all their subflows,
        let closing = || {
            let talk = Chatter::connect(Pair::server_addr(0)).options(options.clone());
            talk.at(secs(2), Action::Shutdown(Shutdown::Write)).at(secs(3), Action::Release)
        };
        for _ in 0..CONNECTIONS {
            net.spawn(Pair::CLIENT, closing());
        }
        net.run_for(ms(1900));
        let joins = net.counters(Pair::SERVER).mp_join_ack_rx;
        assert_eq!(joins, CONNECTIONS as u64 * (SUBFLOWS - 1), "at most {most}");
        // when all close at once,
        net.run_for(secs(3));
        for host in [Pair::CLIENT, Pair::SERVER] {
            let (sizes, counters) = (net.shard(host, 0).sizes(), net.counters(host));
            // then there is one entry for each subflow at most, and no more than there may be.
            assert_eq!(sizes.connections, 0, "{host:?}, at most {most}");
            assert!(
                sizes.time_waits <= most.min(CONNECTIONS * SUBFLOWS as usize),
                "{host:?}, at most {most}: {sizes:?}"
            );
            assert_eq!(counters.tw_overflow, counters.tw - sizes.time_waits as u64, "{host:?}, at most {most}");
        }
        let waited = net.counters(Pair::CLIENT).tw + net.counters(Pair::SERVER).tw;
        assert!(waited >= CONNECTIONS as u64 * SUBFLOWS, "at most {most}: only {waited} waited");
        assert_no_reset(&net);
        // After a minute nothing is left, and all ports are free.
        net.run_for(secs(61));
        for host in [Pair::CLIENT, Pair::SERVER] {
            let sizes = net.shard(host, 0).sizes();
            assert_eq!((sizes.time_waits, sizes.tuples), (0, 0), "{host:?}, at most {most}");
        }
    }
}
