//! Several workers under the worst steering there is, with mail between them that comes late or not at all.

use anabranch_core::{Error, SocketOptions};
use anabranch_sim::{
    AppId, Flow, HostConfig, HostId, LinkConfig, Mailing, Pair, PairBuilder, Random, Steering, Transfer,
};

use crate::random::runs;
use crate::support::*;

const HOSTS: [HostId; 2] = [Pair::CLIENT, Pair::SERVER];

fn wires(seed: u64) -> PairBuilder {
    let link = || LinkConfig::new(300, 2).queue_time(ms(50));
    Pair::seeded(seed).path(link()).path(link())
}

fn scrambled(host: &mut HostConfig, workers: u16, mail: Mailing) {
    (host.workers, host.steering, host.mail) = (workers, Steering::Random, mail);
}

/// A server and `count` clients, which join from their second path.
fn spawn(net: &mut Pair, count: usize, up: u64, down: u64) -> (Vec<AppId<Transfer>>, AppId<Transfer>) {
    let server = net.spawn(Pair::SERVER, Transfer::listen(Pair::server_addr(0)).hashed().sends(down));
    let client = || Transfer::connect(Pair::server_addr(0)).hashed().sends(up);
    ((0..count).map(|_| net.spawn(Pair::CLIENT, client())).collect(), server)
}

fn assert_nothing_left(net: &Pair) {
    for host in HOSTS {
        let (sizes, letters) = net.sizes(host);
        for (worker, sizes) in sizes.into_iter().enumerate() {
            assert_eq!(sizes, Default::default(), "{host:?}, worker {worker}");
        }
        assert_eq!(letters, 0, "{host:?}: letters that nobody reads");
    }
}

/// Whichever worker a packet comes in at, and however late its mail is, every byte arrives, nobody resets what is
/// another's, and in the end nothing is left.
fn scrambled_run(seed: u64) {
    let mut random = Random::new(seed, 1 << 43);
    let mut mailing = |dropped: bool| Mailing {
        late: if random.chance(0.7) { random.duration(ms(3)) } else { ms(0) },
        dropped: if dropped && random.chance(0.5) { 0.02 } else { 0.0 },
    };
    let (ours, theirs) = (mailing(true), mailing(true));
    let count = 5 + random.below(20) as usize;
    let mut bytes = || if random.chance(0.3) { 0 } else { random.below(150_000) };
    let (up, down) = (1 + bytes(), bytes());
    let mut workers = || 2 + random.below(4) as u16;
    let mut net = wires(seed)
        .client(|host| scrambled(host, workers(), ours))
        .server(|host| scrambled(host, workers(), theirs))
        .build();
    let (clients, server) = spawn(&mut net, count, up, down);
    let done = net.run_until(secs(100), |world| {
        world.app(server).completed(count) && clients.iter().all(|&client| world.app(client).completed(1))
    });
    let progress = |app: AppId<Transfer>| net.app(app).flows().iter().map(Flow::summary).collect::<Vec<_>>();
    let all = || clients.iter().chain([&server]).flat_map(|app| progress(*app)).collect::<Vec<_>>();
    assert!(done, "not done after {:?}: {:#?}", net.elapsed(), all());
    for &client in &clients {
        let flow = net.app(client).flow();
        assert_eq!((flow.received.bytes, flow.received.sha256()), (down, net.app(server).flows()[0].sent_sha256()));
    }
    for flow in net.app(server).flows() {
        assert_eq!((flow.received.bytes, flow.received.sha256()), (up, net.app(clients[0]).flow().sent_sha256()));
    }
    // TIME-WAIT, and SYNs of joins that the end of their connection left behind.
    net.run_for(secs(200));
    assert_nothing_left(&net);
    for host in HOSTS {
        let counters = net.counters(host);
        // A join whose connection has ended meanwhile is answered with a reset; nothing established is.
        assert_eq!((counters.tcp_estab_resets, counters.tcp_curr_estab, counters.mp_curr_estab), (0, 0, 0), "{host:?}");
        assert!(counters.handed_over_tx > 0, "{host:?} handed nothing over");
        assert!(counters.handed_over_rx <= counters.handed_over_tx);
    }
}

#[test]
fn whatever_comes_in_anywhere_finds_its_worker() {
    runs(50_000, scrambled_run);
}

#[test]
fn a_worker_that_ends_takes_only_its_own_connections_with_it() {
    // Given a server with three workers and transfers over two subflows each,
    let mut net = wires(711).server(|host| scrambled(host, 3, Mailing { late: ms(1), dropped: 0.0 })).build();
    let (clients, server) = spawn(&mut net, 30, 0, 2 * MEGABYTE);
    assert!(net.run_until(secs(20), |world| {
        let flows = world.app(server).flows();
        flows.len() == 30 && flows.iter().all(|flow| flow.subflows_up >= 1)
    }));
    // when one of the workers ends,
    net.end_worker(Pair::SERVER, 1);
    // then connections of the others go on to their ends, and those of that one are reset, so that their clients know.
    let over = net.run_until(secs(100), |world| {
        clients.iter().all(|&client| world.app(client).completed(1) || world.app(client).flow().closed.is_some())
    });
    assert!(over, "at {:?} clients still wait", net.elapsed());
    let mut lost = 0;
    for (conn, flow) in net.app(server).flows().iter().map(|flow| (flow.conn, flow)) {
        let whole = |client: &&AppId<Transfer>| net.app(**client).flow().received.sha256() == flow.sent_sha256();
        let arrived = flow.sent == 2 * MEGABYTE && clients.iter().any(|client| whole(&client));
        assert!(arrived || conn.0 == 1, "a connection of worker {} broke", conn.0);
        lost += usize::from(conn.0 == 1 && !arrived);
    }
    // All of their subflows were reset; MPTCP waits a while for another one before it gives up.
    let told = |client: &&AppId<Transfer>| matches!(net.app(**client).flow().closed, Some((_, Some(Error::TimedOut))));
    assert_eq!(clients.iter().filter(told).count(), lost);
    assert!(net.counters(Pair::SERVER).tcp_out_rsts >= lost as u64);
    assert!(lost > 0, "worker 1 had no connection");
    // And whoever comes now is served by those that are left.
    let more = net.spawn(Pair::CLIENT, Transfer::connect(Pair::server_addr(0)).sends(1000));
    let options = SocketOptions { mptcp: false, ..SocketOptions::default() };
    let plain: Vec<_> = (0..20)
        .map(|_| net.spawn(Pair::CLIENT, Transfer::connect(Pair::server_addr(0)).options(options.clone()).sends(1000)))
        .collect();
    let deadline = net.elapsed() + secs(20);
    let done = |app| move |world: &anabranch_sim::World| world.app::<Transfer>(app).completed(1);
    assert!(net.run_until(deadline, done(more)));
    for app in plain {
        assert!(net.run_until(deadline, done(app)));
    }
}
