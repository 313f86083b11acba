//! The emulator between two ports in memory, on a clock of the test's.

use std::collections::VecDeque;
use std::time::Duration;

use anabranch_frame::Payload;
use anabranch_sim::{Link, LinkConfig, Random, seed_from_env};
use clap::Parser;

use super::emulator::Emulator;
use super::port::{Frame, Instant, Port};
use super::{Args, Plan, Way};

/// What comes is known beforehand, what was sent is kept.
#[derive(Debug, Default)]
struct MemoryPort {
    coming: VecDeque<(Instant, Payload)>,
    /// Frames that one call hands over.
    at_once: usize,
    sent: Vec<Payload>,
    gone: bool,
}

impl Port for MemoryPort {
    fn receive(&mut self, now: Instant, sink: &mut dyn FnMut(Instant, Payload)) -> anyhow::Result<Instant> {
        if self.gone {
            anyhow::bail!("gone");
        }
        let mut last = now;
        for _ in 0..self.at_once {
            match self.coming.pop_front_if(|(at, _)| *at <= now) {
                Some((at, frame)) => {
                    last = at;
                    sink(at, frame);
                }
                None => return Ok(now),
            }
        }
        Ok(last)
    }

    fn send(&mut self, frames: &[Frame]) -> anyhow::Result<()> {
        self.sent.extend(frames.iter().map(|frame| frame.data.clone()));
        Ok(())
    }

    fn missed(&self) -> u64 {
        0
    }

    fn refused(&self) -> u64 {
        0
    }
}

fn at(micros: u64) -> Instant {
    Instant::from_micros(micros)
}

/// Frame number `n`, one each `gap` microseconds, as long as that says.
fn frames(count: u32, gap: u64, len: usize) -> VecDeque<(Instant, Payload)> {
    let frame = |n: u32| {
        let mut bytes = vec![0; len];
        bytes[14..18].copy_from_slice(&n.to_be_bytes());
        (at(u64::from(n) * gap), Payload::from(bytes))
    };
    (0..count).map(frame).collect()
}

fn numbers(frames: &[Payload]) -> Vec<u32> {
    frames.iter().map(|frame| u32::from_be_bytes(frame[14..18].try_into().unwrap())).collect()
}

fn plan(words: &[&str]) -> anyhow::Result<Plan> {
    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }
    let line = Line::try_parse_from([&["link", "left", "right"], words].concat())?;
    line.args.plan()
}

fn emulator(words: &[&str], left: MemoryPort, right: MemoryPort) -> Emulator<MemoryPort> {
    let plan = plan(words).unwrap_or_else(|error| panic!("{error:#}"));
    Emulator::new([left, right], plan.configs, plan.seed, Instant::ZERO)
}

fn coming(coming: VecDeque<(Instant, Payload)>) -> MemoryPort {
    MemoryPort { coming, at_once: usize::MAX, ..MemoryPort::default() }
}

#[test]
fn frames_come_out_on_the_other_side_when_the_link_says() {
    // Given 8 Mbit/s and 10 ms, and frames of 1000 bytes behind their header on both sides.
    let mut it =
        emulator(&["--rate", "8mbit", "--delay", "10ms"], coming(frames(3, 0, 1014)), coming(frames(1, 0, 514)));
    // When the clock shows what the emulator waits for, then one more is out.
    let mut times = Vec::new();
    it.step(at(0), || at(0)).unwrap();
    while let Some(next) = it.next() {
        it.step(next, || next).unwrap();
        let [left, right] = it.ports();
        times.push((next.as_micros(), left.sent.len(), right.sent.len()));
    }
    times.retain(|&(micros, ..)| micros >= 10_500);
    assert_eq!(times, [(10_500, 1, 0), (11_000, 1, 1), (12_000, 1, 2), (13_000, 1, 3)]);
    let [right, left] = it.report();
    assert_eq!((right.link.delivered_packets, left.link.delivered_packets), (3, 1));
    assert_eq!((right.late.max(), left.late.max()), (Duration::ZERO, Duration::ZERO));
}

#[test]
fn a_loop_that_is_late_does_not_make_the_link_slower() {
    // Given a loop that comes back every 700 µs only, some frames at a time, on a link of 80 Mbit/s that is offered
    // 90 Mbit/s for half a second.
    let left = MemoryPort { at_once: 7, ..coming(frames(5_000, 100, 1139)) };
    let mut it = emulator(&["--rate", "80mbit", "--delay", "5ms", "--queue", "300p"], left, MemoryPort::default());
    for micros in (0..2_000_000).step_by(700) {
        it.step(at(micros), || at(micros)).unwrap();
    }
    // Then what comes out is what the model says when it is told everything in time.
    let mut link = Link::new(
        LinkConfig { framing: anabranch_sim::Framing::Ethernet, ..LinkConfig::new(80, 5).queue_packets(300) },
        Random::new(1, 1),
        Instant::ZERO,
    );
    for (at, frame) in frames(5_000, 100, 1139) {
        link.enqueue(at, frame);
    }
    let expected: Vec<Payload> = std::iter::from_fn(|| link.poll(Instant::MAX)).collect();
    assert!(link.stats().dropped_queue > 100);
    assert_eq!(numbers(&it.ports()[1].sent), numbers(&expected));
    let [report, _] = it.report();
    assert_eq!(report.link, *link.stats());
    assert!(report.late.max() < Duration::from_micros(1_401), "{:?}", report.late.max());
}

#[test]
fn the_same_seed_loses_the_same_frames() {
    let run = |seed: &str, loss: &str| {
        let ports = [coming(frames(2_000, 10, 100)), coming(frames(2_000, 10, 100))];
        let [left, right] = ports;
        let mut it = emulator(&["--loss", loss, "--seed", seed], left, right);
        it.step(at(1_000_000), || at(1_000_000)).unwrap();
        [0, 1].map(|port| numbers(&it.ports()[port].sent))
    };
    let seed = seed_from_env(7).to_string();
    let [there, back] = run(&seed, "3%");
    assert_eq!([there.clone(), back.clone()], run(&seed, "3%"));
    assert_ne!(there, back, "each direction has its own luck");
    assert!((1_850..1_990).contains(&there.len()), "{}", there.len());
    assert_ne!(run("8", "3%")[0], there);
}

#[test]
fn changes_come_at_their_time_in_their_direction() {
    // Given frames each millisecond both ways, and an outage from left to right from 20 to 30 ms.
    let words = ["--delay", "1ms", "--at", "20ms", "a-to-b:down", "--at", "30ms", "up", "--at", "40ms", "delay=50ms"];
    let mut it = emulator(&words, coming(frames(50, 1_000, 100)), coming(frames(50, 1_000, 100)));
    for millis in 0..=45 {
        it.step(at(millis * 1_000), || at(millis * 1_000)).unwrap();
    }
    let [left, right] = it.ports();
    assert_eq!(numbers(&left.sent), (0..40).collect::<Vec<_>>());
    assert_eq!(numbers(&right.sent), (0..20).chain(30..40).collect::<Vec<_>>());
    assert_eq!(it.report()[0].link.dropped_down, 10);
}

#[test]
fn a_port_that_is_gone_ends_it_by_name() {
    let gone = MemoryPort { gone: true, ..MemoryPort::default() };
    let mut it = emulator(&[], MemoryPort::default(), gone);
    let error = format!("{:#}", it.step(at(0), || at(0)).unwrap_err());
    assert!(error.contains("b-to-a"), "{error}");
}

#[test]
fn settings_of_a_direction_win_over_those_of_both() {
    let plan = plan(&[
        "--rate",
        "50mbit",
        "--delay",
        "20ms",
        "--queue",
        "2bdp",
        "--jitter",
        "1ms:normal:unordered",
        "--b-to-a",
        "rate=5mbit,loss=every:10",
        "--b-to-a",
        "delay=30ms",
        "--overhead=14",
        "--aqm",
        "red",
        "--ecn",
    ])
    .unwrap();
    let [there, back] = &plan.configs;
    assert_eq!((there.rate, back.rate), (Some(50_000_000), Some(5_000_000)));
    // Twice the rate times the round trip of 50 ms.
    assert_eq!((there.queue.bytes, back.queue.bytes), (625_000, 62_500));
    assert_eq!((there.delay, back.delay), (Duration::from_millis(20), Duration::from_millis(30)));
    assert!(!there.keep_order && there.ecn && there.overhead == 14);
    assert_ne!(there.loss, back.loss);
}

#[test]
fn all_points_of_a_large_matrix_can_be_said() {
    for rate in ["10mbit", "1gbit"] {
        for delay in ["1ms", "150ms"] {
            for queue in ["0.25bdp", "4bdp"] {
                let words =
                    ["--rate", rate, "--delay", delay, "--queue", queue, "--loss", "1%", "--reorder", "2%:0..20ms"];
                let plan = plan(&words).unwrap();
                assert!(plan.configs[0].queue.bytes >= 3_000, "{words:?}");
            }
        }
    }
    for words in [
        &["--b-to-a", "loss=30%"][..],
        &["--at", "2s", "delay=200ms", "--at", "4s", "delay=20ms"],
        &["--rate", "100mbit", "--at", "2s", "rate=5mbit", "--at", "4s", "rate=100mbit"],
        &["--police", "20mbit:50kB"],
        &["--rate", "10mbit", "--queue", "100ms", "--aqm", "codel:5ms:100ms"],
    ] {
        plan(words).unwrap_or_else(|error| panic!("{words:?}: {error:#}"));
    }
}

#[test]
fn what_does_not_go_together_is_refused_by_name() {
    for (words, part) in [
        (&["--ecn"][..], "--ecn: a queue that only drops what does not fit marks nothing: add --aqm"),
        (&["--queue", "1bdp", "--delay", "1ms"], "give --rate or a trace"),
        (&["--queue", "1bdp", "--rate", "1mbit"], "give --delay, too"),
        (&["--a-to-b", "rate=5"], "--a-to-b rate=5: rate: '5': give a rate"),
        (&["--a-to-b", "down"], "'down' is no KEY=VALUE"),
        (&["--at", "2s", "ecn"], "ecn cannot change on the way"),
        (&["--trace-up", "/nowhere"], "--trace-up /nowhere: No such file"),
        (&["--config", "/nowhere"], "--config /nowhere"),
        (&["--rate", "5"], "'5' for '--rate <RATE>': give a rate such as 50mbit"),
        (&["--busy-wait", "1s"], "give auto, off or a time from 0 to 10ms"),
    ] {
        let error = format!("{:#}", plan(words).unwrap_err());
        assert!(error.contains(part), "{words:?}: {error}");
    }
    assert_eq!(Way::AToB.to_string(), "a-to-b");
}

#[test]
fn a_trace_takes_the_place_of_the_rate() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("up");
    std::fs::write(&file, "10\n20\n").unwrap();
    let path = file.to_str().unwrap();
    let words = ["--trace-up", path, "--queue", "100p"];
    let mut it = emulator(&words, coming(frames(4, 0, 1_514)), coming(frames(4, 0, 1_514)));
    let mut times = Vec::new();
    it.step(at(0), || at(0)).unwrap();
    while let Some(next) = it.next() {
        it.step(next, || next).unwrap();
        times.push((next.as_millis(), it.ports()[1].sent.len()));
    }
    assert_eq!(times, [(10, 1), (20, 2), (30, 3), (40, 4)]);
    assert_eq!(it.ports()[0].sent.len(), 4, "the other way is as fast as can be");
    let error = plan(&["--trace-up", path, "--rate", "1mbit"]).unwrap_err().to_string();
    assert!(error.contains("give one of them"), "{error}");
    std::fs::write(&file, "10\nsoon\n").unwrap();
    let error = plan(&words).unwrap_err().to_string();
    assert!(error.contains("line 2: a whole number of milliseconds"), "{error}");
}
