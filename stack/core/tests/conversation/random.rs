//! Random networks, random applications: whatever happens, what arrives is what was sent.

use std::time::Duration;

use anabranch_core::SocketOptions;
use anabranch_frame::PathId;
use anabranch_sim::{Jitter, LinkChange, LinkConfig, Pair, Random, Transfer, seed_from_env};

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

fn one_run(seed: u64) {
    let mut random = Random::new(seed, 1 << 41);
    let paths = 1 + random.below(3) as u16;
    let mut builder = Pair::seeded(seed);
    for path in 0..paths {
        builder = builder.path_with(random_link(&mut random), random_link(&mut random));
        if path > 0 && random.chance(0.2) {
            builder = builder.backup(path);
        }
    }
    if random.chance(0.3) {
        builder = builder.announced();
    }
    let mut net = builder.build();
    if paths > 1 && random.chance(0.4) {
        flap(&mut net, &mut random, paths);
    }
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

/// Runs 40 seeds from `first` on, or as many as `ANABRANCH_RUNS` says; with `ANABRANCH_SEED` set, only that one.
fn runs(first: u64) {
    let only = seed_from_env(0);
    if only != 0 {
        return one_run(only);
    }
    let count = std::env::var("ANABRANCH_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(40);
    for seed in first..first + count {
        one_run(seed);
    }
}

#[test]
fn random_runs_a() {
    runs(10_000);
}

#[test]
fn random_runs_b() {
    runs(20_000);
}

#[test]
fn random_runs_c() {
    runs(30_000);
}
