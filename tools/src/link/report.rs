//! What `link` says: that it is ready, how it goes, what changed, and a summary.

use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anabranch_sim::{Durations, LinkStats};
use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::emulator::Report;
use super::port::Instant;
use super::schedule::Step;
use super::{Plan, Way};
use crate::format::{Bytes, Rate, Time};
use crate::output::Output;

/// Time between two looks at the statistics.
pub(super) const TICK: Duration = Duration::from_millis(250);

/// Time of an `interval` event.
const INTERVAL: Duration = Duration::from_secs(1);

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Event<'a> {
    Ready { a: &'a str, b: &'a str, seed: u64 },
    Change { at: f64, direction: Option<String>, change: &'a str },
    Interval { start: f64, end: f64, a_to_b: Span, b_to_a: Span },
    Summary { seconds: f64, seed: u64, a_to_b: Box<Summary>, b_to_a: Box<Summary> },
}

/// A direction in an interval.
#[derive(Serialize)]
struct Span {
    delivered_packets: u64,
    delivered_bytes: u64,
    bits_per_second: f64,
    dropped: u64,
    marked: u64,
}

/// A direction over all the time.
#[derive(Serialize)]
struct Summary {
    offered_packets: u64,
    offered_bytes: u64,
    delivered_packets: u64,
    delivered_bytes: u64,
    bits_per_second: f64,
    dropped_police: u64,
    dropped_queue: u64,
    dropped_aqm: u64,
    dropped_loss: u64,
    dropped_outage: u64,
    dropped_memory: u64,
    /// Lost before the emulator saw them.
    missed: u64,
    /// Not taken by the interface they were to leave on.
    refused: u64,
    marked: u64,
    reordered: u64,
    duplicated: u64,
    corrupted: u64,
    queue_max_packets: usize,
    queue_max_bytes: usize,
    queue_delay_ms: Percentiles,
    late_us: Percentiles,
}

#[derive(Serialize)]
struct Percentiles {
    mean: f64,
    p50: f64,
    p90: f64,
    p95: f64,
    p99: f64,
    max: f64,
}

impl Percentiles {
    fn of(durations: &Durations, unit: Duration) -> Self {
        let number = |time: Duration| time.div_duration_f64(unit);
        Self {
            mean: number(durations.mean()),
            p50: number(durations.percentile(50.0)),
            p90: number(durations.percentile(90.0)),
            p95: number(durations.percentile(95.0)),
            p99: number(durations.percentile(99.0)),
            max: number(durations.max()),
        }
    }
}

impl Span {
    fn between(before: &LinkStats, after: &LinkStats, time: Duration) -> Self {
        let bytes = after.delivered_bytes - before.delivered_bytes;
        Self {
            delivered_packets: after.delivered_packets - before.delivered_packets,
            delivered_bytes: bytes,
            bits_per_second: Rate::of(bytes, time).0,
            dropped: after.dropped() - before.dropped(),
            marked: after.marked - before.marked,
        }
    }
}

impl Summary {
    fn of(report: &Report, time: Duration) -> Self {
        let link = &report.link;
        Self {
            offered_packets: link.offered_packets,
            offered_bytes: link.offered_bytes,
            delivered_packets: link.delivered_packets,
            delivered_bytes: link.delivered_bytes,
            bits_per_second: Rate::of(link.delivered_bytes, time).0,
            dropped_police: link.dropped_police,
            dropped_queue: link.dropped_queue,
            dropped_aqm: link.dropped_aqm,
            dropped_loss: link.dropped_loss,
            dropped_outage: link.dropped_down,
            dropped_memory: link.dropped_memory,
            missed: report.missed,
            refused: report.refused,
            marked: link.marked,
            reordered: link.reordered,
            duplicated: link.duplicated,
            corrupted: link.corrupted,
            queue_max_packets: link.queue_max_packets,
            queue_max_bytes: link.queue_max_bytes,
            queue_delay_ms: Percentiles::of(&report.queue_delay, Duration::from_millis(1)),
            late_us: Percentiles::of(&report.late, Duration::from_micros(1)),
        }
    }
}

/// Says everything, on a thread of its own while the emulator runs: a terminal is slower than a link.
#[derive(Debug)]
pub(super) struct Reporter {
    output: Output,
    names: [String; 2],
    seed: u64,
    start: Instant,
    ticks: Sender<(Duration, [LinkStats; 2])>,
    thread: JoinHandle<()>,
}

impl Reporter {
    /// Says that the link between these interfaces is ready.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(super) fn start(output: Output, [a, b]: [&str; 2], plan: &Plan, start: Instant) -> anyhow::Result<Self> {
        output.line(format_args!("ready: {a} <-> {b}, seed {}", plan.seed));
        output.event(&Event::Ready { a, b, seed: plan.seed });
        let names = [a.to_owned(), b.to_owned()];
        let (ticks, received) = mpsc::channel();
        let progress = Progress::new(output, names.clone(), plan.steps.clone());
        let thread = thread::Builder::new().name("report".into()).spawn(move || progress.run(&received));
        let thread = thread.context("cannot start a thread")?;
        Ok(Self { output, names, seed: plan.seed, start, ticks, thread })
    }

    /// Takes note of how it goes.
    pub(super) fn tick(&self, now: Instant, stats: [LinkStats; 2]) {
        // A reporter that is gone does not stop the emulator.
        let _ = self.ticks.send((now - self.start, stats));
    }

    /// Sums up.
    pub(super) fn finish(self, now: Instant, stats: [LinkStats; 2], reports: &[Report; 2]) {
        self.tick(now, stats);
        drop(self.ticks);
        if self.thread.join().is_err() {
            tracing::error!("the reporter failed; this is a bug");
        }
        let time = now - self.start;
        let summaries = Way::BOTH.map(|way| Box::new(Summary::of(&reports[way.index()], time)));
        for line in table(&self.names, &summaries) {
            self.output.line(line);
        }
        let [a_to_b, b_to_a] = summaries;
        self.output.event(&Event::Summary { seconds: time.as_secs_f64(), seed: self.seed, a_to_b, b_to_a });
    }
}

/// The running part.
struct Progress {
    output: Output,
    names: [String; 2],
    steps: Vec<Step>,
    bar: Option<ProgressBar>,
    /// Steps that were told.
    told: usize,
    before: (Duration, [LinkStats; 2]),
}

impl Progress {
    fn new(output: Output, names: [String; 2], steps: Vec<Step>) -> Self {
        let bar = (!output.is_json() && std::io::IsTerminal::is_terminal(&std::io::stderr())).then(|| {
            let style = ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style)
        });
        Self { output, names, steps, bar, told: 0, before: (Duration::ZERO, Default::default()) }
    }

    fn run(mut self, ticks: &Receiver<(Duration, [LinkStats; 2])>) {
        for (at, stats) in ticks {
            self.tell_steps(at);
            match &self.bar {
                Some(bar) => {
                    bar.set_message(self.line(at, &stats));
                    self.before = (at, stats);
                }
                None => self.interval(at, stats),
            }
        }
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }

    fn tell_steps(&mut self, now: Duration) {
        while let Some(step) = self.steps.get(self.told).filter(|step| step.at <= now) {
            self.told += 1;
            let text = format!("{:>7.3} s  {}", step.at.as_secs_f64(), step.text);
            match &self.bar {
                Some(bar) => bar.suspend(|| self.output.line(text)),
                None => self.output.line(text),
            }
            let direction = step.way.map(|way| way.to_string());
            self.output.event(&Event::Change { at: step.at.as_secs_f64(), direction, change: &step.text });
        }
    }

    fn line(&self, at: Duration, stats: &[LinkStats; 2]) -> String {
        let [a, b] = &self.names;
        let (before_at, before) = &self.before;
        let way = |index: usize| {
            let span = Span::between(&before[index], &stats[index], at.saturating_sub(*before_at));
            format!("{:>12}, {} dropped", Rate(span.bits_per_second), stats[index].dropped())
        };
        format!("{:>7.1} s   {a} > {b} {}   {b} > {a} {}", at.as_secs_f64(), way(0), way(1))
    }

    fn interval(&mut self, at: Duration, stats: [LinkStats; 2]) {
        let (start, before) = &self.before;
        let time = at.saturating_sub(*start);
        if time < INTERVAL {
            return;
        }
        let [a_to_b, b_to_a] = [0, 1].map(|way| Span::between(&before[way], &stats[way], time));
        let (start, end) = (start.as_secs_f64(), at.as_secs_f64());
        self.output.event(&Event::Interval { start, end, a_to_b, b_to_a });
        self.before = (at, stats);
    }
}

/// One number of a summary.
type Count = fn(&Summary) -> u64;

/// The summary for people; what did not happen in either direction is left out.
fn table([a, b]: &[String; 2], summaries: &[Box<Summary>; 2]) -> Vec<String> {
    let mut lines = vec![format!("{:<24}{:>22}{:>22}", "", format!("{a} > {b}"), format!("{b} > {a}"))];
    let mut row = |name: &str, of: &dyn Fn(&Summary) -> String| {
        let [there, back] = summaries.each_ref().map(|summary| of(summary));
        lines.push(format!("{name:<24}{there:>22}{back:>22}"));
    };
    row("received", &|it| format!("{} ({})", it.offered_packets, Bytes(it.offered_bytes)));
    row("delivered", &|it| format!("{} ({})", it.delivered_packets, Bytes(it.delivered_bytes)));
    row("mean rate", &|it| Rate(it.bits_per_second).to_string());
    let counts: [(&str, Count); 12] = [
        ("dropped by the policer", |it| it.dropped_police),
        ("dropped, queue full", |it| it.dropped_queue),
        ("dropped by the AQM", |it| it.dropped_aqm),
        ("lost", |it| it.dropped_loss),
        ("lost in an outage", |it| it.dropped_outage),
        ("dropped, out of memory", |it| it.dropped_memory),
        ("missed by the emulator", |it| it.missed),
        ("refused by the interface", |it| it.refused),
        ("marked", |it| it.marked),
        ("held back", |it| it.reordered),
        ("duplicated", |it| it.duplicated),
        ("corrupted", |it| it.corrupted),
    ];
    for (name, count) in counts {
        if summaries.iter().any(|summary| count(summary) > 0) {
            row(name, &|it| count(it).to_string());
        }
    }
    row("longest queue", &|it| format!("{} ({})", it.queue_max_packets, Bytes(it.queue_max_bytes as u64)));
    let millis = |ms: f64| Time(Duration::from_secs_f64(ms / 1e3));
    row("waiting, median", &|it| millis(it.queue_delay_ms.p50).to_string());
    row("waiting, 99 %", &|it| millis(it.queue_delay_ms.p99).to_string());
    let micros = |us: f64| Time(Duration::from_secs_f64(us / 1e6));
    row("sent late, median", &|it| micros(it.late_us.p50).to_string());
    row("sent late, 99 %", &|it| micros(it.late_us.p99).to_string());
    row("sent late, at most", &|it| micros(it.late_us.max).to_string());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_leaves_out_what_did_not_happen() {
        let mut late = Durations::default();
        late.record(Duration::from_nanos(100));
        let report = |lost| Report {
            link: LinkStats {
                offered_packets: 9,
                delivered_bytes: 1_000_000,
                dropped_loss: lost,
                ..LinkStats::default()
            },
            queue_delay: Durations::default(),
            late: late.clone(),
            missed: 0,
            refused: 0,
        };
        let summary = |lost| Box::new(Summary::of(&report(lost), Duration::from_secs(4)));
        let lines = table(&["left".into(), "right".into()], &[summary(0), summary(3)]);
        for expected in [
            "                                  left > right          right > left",
            "mean rate                          2.00 Mbit/s           2.00 Mbit/s",
            "lost                                         0                     3",
            "sent late, at most                     0.10 µs               0.10 µs",
        ] {
            assert!(lines.iter().any(|line| line == expected), "{expected}\n{lines:#?}");
        }
        assert!(!lines.iter().any(|line| line.contains("outage")), "{lines:#?}");
    }
}
