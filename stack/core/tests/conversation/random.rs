//! Random networks, random applications: whatever happens, what arrives is what was sent.

use std::time::Duration;

use anabranch_core::SocketOptions;
use anabranch_core::shard::Shutdown;
use anabranch_frame::PathId;
use anabranch_sim::middlebox::Split;
use anabranch_sim::{
    Action, Chatter, HostConfig, Jitter, LinkChange, LinkConfig, Pair, PairBuilder, Pattern, Random, Steering,
    Transfer, World, seed_from_env,
};

use crate::support::*;

fn random_link(random: &mut Random) -> LinkConfig {
    let mut link = LinkConfig::default()
        .rate(500_000 + random.below(60_000_000))
        .delay(random.duration(ms(80)))
        .queue_time(ms(20) + random.duration(ms(300)));
    if random.chance(0.5) {
        link = link.loss(random.unit() * 0.03);
    }
    if random.chance(0.2) {
        link = link.duplicate(0.02);
    }
    if random.chance(0.2) {
        link = link.corrupt(0.01);
    }
    if random.chance(0.3) {
        link = link.reorder(0.03, random.duration(ms(20)));
    }
    if random.chance(0.3) {
        link = link.jitter(Jitter::Uniform(random.duration(ms(20))));
    }
    if random.chance(0.3) {
        let from = random.duration(secs(3));
        link = link.outage(from, from + random.duration(secs(3)));
    }
    if random.chance(0.2) {
        link = link.at(random.duration(secs(3)), LinkChange::Rate(Some(1_000_000 + random.below(20_000_000))));
    }
    link
}

fn pick<'a>(random: &mut Random, names: &'a str) -> &'a str {
    let names: Vec<_> = names.split(", ").collect();
    names[random.below(names.len() as u64) as usize]
}

fn random_options(random: &mut Random) -> SocketOptions {
    SocketOptions {
        mptcp: !random.chance(0.15),
        nodelay: random.chance(0.3),
        scheduler: pick(random, anabranch_core::sched::NAMES).into(),
        congestion: pick(random, anabranch_core::cc::NAMES).into(),
        recv_buffer_max: 50_000 + random.below(2_000_000) as u32,
        send_buffer_max: 50_000 + random.below(2_000_000) as u32,
        ..SocketOptions::default()
    }
}

/// A path of either host goes down for a while; there is always another one that stays.
fn flap(net: &mut Pair, random: &mut Random, paths: u16) {
    let host = if random.chance(0.5) { Pair::CLIENT } else { Pair::SERVER };
    let path = PathId(1 + random.below(u64::from(paths) - 1) as u16);
    let from = random.duration(secs(3));
    let until = from + random.duration(secs(2));
    net.at(from, move |world| world.set_path_up(host, path, false).unwrap());
    net.at(until, move |world| world.set_path_up(host, path, true).unwrap());
}

/// One to three paths, in every arrangement.
fn random_net(seed: u64, random: &mut Random) -> Pair {
    let paths = 1 + random.below(3) as u16;
    let mut builder = Pair::seeded(seed);
    for path in 0..paths {
        builder = builder.path_with(random_link(random), random_link(random));
        if path > 0 && random.chance(0.2) {
            builder = builder.backup(path);
        }
    }
    if random.chance(0.3) {
        builder = builder.announced();
    }
    builder = random_hosts(builder, random);
    let mut net = builder.build();
    for link in (0..paths).flat_map(|path| [net.up_link(path), net.down_link(path)]).collect::<Vec<_>>() {
        if random.chance(0.1) {
            net.add_middlebox(link, Split::pieces_of(100 + random.below(1_000) as usize));
        }
    }
    if paths > 1 && random.chance(0.4) {
        flap(&mut net, random, paths);
    }
    net
}

/// One or several workers, with and without receive offload.
fn random_hosts(builder: PairBuilder, random: &mut Random) -> PairBuilder {
    let mut change = |host: &mut HostConfig| {
        host.steering = Steering::Random;
        host.workers = if random.chance(0.2) { 2 + random.below(3) as u16 } else { 1 };
        host.gro = random.chance(0.4).then(|| random.duration(ms(1)));
    };
    builder.client(&mut change).server(&mut change)
}

/// Both streams arrive whole.
fn transfer_run(seed: u64) {
    let mut random = Random::new(seed, 1 << 41);
    let mut net = random_net(seed, &mut random);
    let bytes = |random: &mut Random| if random.chance(0.2) { 0 } else { random.below(1_500_000) };
    let (up, down) = (bytes(&mut random), bytes(&mut random));
    let mut server = Transfer::listen(Pair::server_addr(0)).options(random_options(&mut random)).sends(down);
    let mut client = Transfer::connect(Pair::server_addr(0)).options(random_options(&mut random)).sends(up);
    client = client.closes_when_sent(true);
    if random.chance(0.2) {
        server = server.reads_at(100_000 + random.below(2_000_000));
    }
    let server = net.spawn(Pair::SERVER, server);
    let client = net.spawn(Pair::CLIENT, client);
    finish(&mut net, (client, server), Duration::from_secs(240));
    assert_eq!(net.app(server).flow().received.bytes, up);
    assert_eq!(net.app(client).flow().received.bytes, down);
}

/// What one side of a conversation does: writes and, at some time, an end of some kind.
fn random_script(mut chatter: Chatter, random: &mut Random, pattern: u64) -> Chatter {
    let mut pattern = Pattern::new(pattern);
    let mut at = random.duration(secs(1));
    for _ in 0..random.below(12) {
        let most = if random.chance(0.3) { 200_000 } else { 2_000 };
        let mut bytes = vec![0; 1 + random.below(most) as usize];
        pattern.fill(&mut bytes);
        chatter = chatter.at(at, Action::Write(bytes));
        if random.chance(0.1) {
            let (subflow, backup) = (random.below(3) as u8, random.chance(0.5));
            chatter = chatter.at(at, Action::SetBackup { subflow, backup });
        }
        if random.chance(0.1) {
            chatter = chatter.at(at, Action::Read(false)).at(at + random.duration(secs(5)), Action::Read(true));
        }
        at += random.duration(secs(1));
    }
    match random.below(4) {
        0 => chatter = chatter.at(at, Action::Abort),
        1 => chatter = chatter.at(at, Action::Shutdown(Shutdown::Both)),
        2 => chatter = chatter.at(at, Action::Shutdown(Shutdown::Write)),
        _ => {}
    }
    chatter.at(at + random.duration(secs(20)), Action::Release)
}

/// What one side wrote, as far as it arrived.
fn assert_prefix(heard: &[u8], pattern: u64) {
    assert_eq!(Pattern::new(pattern).mismatch(heard), None, "what arrived is not what was sent");
}

/// Whatever both sides do, what arrives is the beginning of what was sent, and in the end nothing is left.
fn chatter_run(seed: u64) {
    let mut random = Random::new(seed, 1 << 42);
    let mut net = random_net(seed, &mut random);
    let server = Chatter::listen(Pair::server_addr(0)).options(random_options(&mut random));
    let server = net.spawn(Pair::SERVER, random_script(server, &mut random, 2));
    let client = Chatter::connect(Pair::server_addr(0)).options(random_options(&mut random));
    let client = net.spawn(Pair::CLIENT, random_script(client, &mut random, 1));
    let connections = |world: &World| -> usize {
        let hosts = [Pair::CLIENT, Pair::SERVER].into_iter();
        hosts
            .flat_map(|host| (0..world.workers(host)).map(move |worker| (host, worker)))
            .map(|(host, worker)| world.shard(host, worker).connections())
            .sum()
    };
    net.run_to(secs(40));
    assert!(net.run_until(secs(4_000), |world| connections(world) == 0), "{} are left", connections(&net));
    assert_prefix(&net.app(server).heard(), 1);
    assert_prefix(&net.app(client).heard(), 2);
    for host in [Pair::CLIENT, Pair::SERVER] {
        let counters = net.counters(host);
        assert_eq!((counters.tcp_curr_estab, counters.mp_curr_estab), (0, 0), "{host:?}");
    }
}

/// Runs 40 seeds from `first` on, or as many as `ANABRANCH_RUNS` says; with `ANABRANCH_SEED` set, only that one.
pub(crate) fn runs(first: u64, run: impl Fn(u64)) {
    let only = seed_from_env(0);
    if only != 0 {
        return run(only);
    }
    let count = std::env::var("ANABRANCH_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(40);
    for seed in first..first + count {
        run(seed);
    }
}

#[test]
fn random_transfers_a() {
    runs(10_000, transfer_run);
}

#[test]
fn random_transfers_b() {
    runs(20_000, transfer_run);
}

#[test]
fn random_conversations_a() {
    runs(30_000, chatter_run);
}

#[test]
fn random_conversations_b() {
    runs(40_000, chatter_run);
}
