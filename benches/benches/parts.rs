//! What the parts cost in time: `cargo bench -p anabranch-benches --bench parts -- [FILTER]`.

#![allow(missing_docs, reason = "the macros make items that nobody documents")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use anabranch_benches::parts::{self, Choosing, Options, Timers};
use anabranch_benches::{Pair, PairConfig};
use anabranch_frame::checksum::sum_be;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn options(c: &mut Criterion) {
    let mut group = c.benchmark_group("options");
    for (name, options) in Options::ALL {
        let bytes = options.emit();
        group.bench_function(BenchmarkId::new("parse", name), |b| b.iter(|| parts::parse_options(bytes.as_slice())));
        group.bench_function(BenchmarkId::new("emit", name), |b| b.iter(|| black_box(options).emit()));
    }
}

fn checksum(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum");
    for len in [40, 1460, 65_535] {
        let bytes = vec![0xa5; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::from_parameter(len), |b| b.iter(|| sum_be(black_box(&bytes))));
    }
}

/// Only the server's work is timed: a segment in, its bytes read, the acknowledgement out.
fn segments(c: &mut Criterion) {
    let mut group = c.benchmark_group("segment in, ACK out");
    group.throughput(Throughput::Elements(1));
    for (name, paths, offload) in [
        ("1460 bytes, TCP", 1, false),
        ("1460 bytes, DSS mapping", 2, false),
        ("64 KiB, TCP", 1, true),
        ("64 KiB, DSS mapping", 2, true),
    ] {
        let mut pair = parts::connected(paths, offload);
        group.bench_function(name, |b| b.iter_custom(|iterations| take(&mut pair, iterations)));
    }
}

/// Time for so many packets, those of whole bursts in proportion.
fn take(pair: &mut Pair, packets: u64) -> Duration {
    let mut taken = 0;
    let mut time = Duration::ZERO;
    while taken < packets {
        let burst = pair.burst();
        taken += burst.len() as u64;
        let start = Instant::now();
        let answers = pair.take(burst);
        time += start.elapsed();
        pair.answer(answers);
    }
    time.mul_f64(packets as f64 / taken as f64)
}

/// A piece into each hole.
fn reorder(c: &mut Criterion) {
    let mut group = c.benchmark_group("reorder buffer, holes filled");
    for holes in [1, 64, 4096] {
        group.throughput(Throughput::Elements(holes as u64));
        group.bench_function(BenchmarkId::from_parameter(holes), |b| {
            b.iter_batched(
                || parts::holes(holes),
                |(mut pair, missing)| (pair.take(missing), pair),
                BatchSize::PerIteration,
            );
        });
    }
}

fn schedulers(c: &mut Criterion) {
    let mut group = c.benchmark_group("scheduler's decision");
    for name in Choosing::names() {
        for subflows in [2, 8] {
            let mut choosing = Choosing::new(name, subflows);
            group.bench_function(BenchmarkId::new(name, subflows), |b| b.iter(|| choosing.choose()));
        }
    }
}

/// Both sides' work, from the SYN to the accepted connection, and a reset.
fn set_up(c: &mut Criterion) {
    let mut group = c.benchmark_group("connection set up and reset");
    for (name, paths) in [("TCP", 1), ("MPTCP", 2)] {
        let mut pair = Pair::new(&PairConfig { paths, ..PairConfig::default() });
        group.bench_function(name, |b| b.iter(|| pair.open_and_reset()));
    }
}

fn timers(c: &mut Criterion) {
    let mut group = c.benchmark_group("timer moved, of so many");
    for connections in [100, 10_000] {
        let mut timers = Timers::new(connections);
        group.bench_function(BenchmarkId::from_parameter(connections), |b| b.iter(|| timers.move_one()));
    }
}

/// Two seconds for each: enough for parts that cost nanoseconds.
fn quick() -> Criterion {
    Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_millis(1500))
}

criterion_group! {
    name = all;
    config = quick();
    targets = options, checksum, segments, reorder, schedulers, set_up, timers
}
criterion_main!(all);
