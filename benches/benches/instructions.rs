//! What the parts cost in instructions, which no neighbour disturbs:
//! `cargo bench -p anabranch-benches --bench instructions`.
//!
//! Needs valgrind, and `cargo install gungraun-runner` in the version of `Cargo.lock`.

#![allow(missing_docs, reason = "the macros make items that nobody documents")]

use std::hint::black_box;

use anabranch_benches::parts::{self, Choosing, Options, Timers};
use anabranch_benches::{Pair, PairConfig};
use anabranch_core::sched::Choice;
use anabranch_core::wire::{OptionWriter, TcpOptions};
use anabranch_frame::RxPacket;
use anabranch_frame::checksum::sum_be;
use gungraun::{library_benchmark, library_benchmark_group, main};

#[library_benchmark]
#[bench::timestamps(Options::Timestamps.emit())]
#[bench::sack(Options::Sack.emit())]
#[bench::dss(Options::Dss.emit())]
fn parse(options: OptionWriter) -> TcpOptions {
    parts::parse_options(options.as_slice())
}

#[library_benchmark]
#[bench::timestamps(Options::Timestamps)]
#[bench::sack(Options::Sack)]
#[bench::dss(Options::Dss)]
fn emit(options: Options) -> OptionWriter {
    black_box(options).emit()
}

#[library_benchmark]
#[bench::ack(vec![0xa5; 40])]
#[bench::segment(vec![0xa5; 1460])]
#[bench::super_segment(vec![0xa5; 65_535])]
fn checksum(bytes: Vec<u8>) -> u16 {
    sum_be(black_box(&bytes))
}

/// Two stacks and packets that are on their way. In a box: moving the stacks about would count, too.
type Prepared = Box<(Pair, Vec<RxPacket>)>;

/// A connection, and ten packets of data on their way.
fn data(paths: u16, offload: bool) -> Prepared {
    let mut pair = parts::connected(paths, offload);
    let mut packets = pair.burst();
    packets.truncate(10);
    Box::new((pair, packets))
}

fn take(mut prepared: Prepared) -> (Vec<RxPacket>, Prepared) {
    let packets = std::mem::take(&mut prepared.1);
    (prepared.0.take(packets), prepared)
}

#[library_benchmark]
#[bench::tcp(data(1, false))]
#[bench::dss(data(2, false))]
#[bench::tcp_super_segment(data(1, true))]
#[bench::dss_super_segment(data(2, true))]
fn ten_segments(prepared: Prepared) -> (Vec<RxPacket>, Prepared) {
    take(prepared)
}

#[library_benchmark]
#[bench::of_1(Box::new(parts::holes(1)))]
#[bench::of_64(Box::new(parts::holes(64)))]
#[bench::of_4096(Box::new(parts::holes(4096)))]
fn holes(prepared: Prepared) -> (Vec<RxPacket>, Prepared) {
    take(prepared)
}

#[library_benchmark]
#[bench::minrtt_2(Choosing::new("minrtt", 2))]
#[bench::minrtt_8(Choosing::new("minrtt", 8))]
#[bench::linux_2(Choosing::new("linux", 2))]
#[bench::linux_8(Choosing::new("linux", 8))]
#[bench::roundrobin_2(Choosing::new("roundrobin", 2))]
#[bench::roundrobin_8(Choosing::new("roundrobin", 8))]
#[bench::redundant_2(Choosing::new("redundant", 2))]
#[bench::redundant_8(Choosing::new("redundant", 8))]
#[bench::backup_2(Choosing::new("backup", 2))]
#[bench::backup_8(Choosing::new("backup", 8))]
fn choose(mut choosing: Choosing) -> (Choice, Choosing) {
    (choosing.choose(), choosing)
}

/// Two stacks that have met before.
fn strangers(paths: u16) -> Box<Pair> {
    let mut pair = Box::new(Pair::new(&PairConfig { paths, ..PairConfig::default() }));
    pair.open_and_reset();
    pair
}

#[library_benchmark]
#[bench::tcp(strangers(1))]
#[bench::mptcp(strangers(2))]
fn set_up(mut pair: Box<Pair>) -> Box<Pair> {
    pair.open_and_reset();
    pair
}

#[library_benchmark]
#[bench::of_100(Box::new(Timers::new(100)))]
#[bench::of_10000(Box::new(Timers::new(10_000)))]
fn timer(mut timers: Box<Timers>) -> Box<Timers> {
    timers.move_one();
    timers
}

library_benchmark_group!(
    name = all;
    benchmarks = parse, emit, checksum, ten_segments, holes, choose, set_up, timer
);
main!(library_benchmark_groups = all);
