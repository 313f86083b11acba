//! The tables, and the same as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};

use crate::aims::{self, Aim, Verdict};
use crate::plan::{Case, Measure, Row};
use crate::task::{Quantity, Sample};
use anabranch_benches::Machine;

/// All that was measured.
#[derive(Debug)]
pub(crate) struct Report {
    machine: Machine,
    rounds: usize,
    seconds: f64,
    took: Duration,
    lines: BTreeMap<Case, Line>,
}

/// All runs of one case.
#[derive(Debug, Default)]
struct Line {
    samples: Vec<Sample>,
    /// Runs that were thrown away because others were busy.
    disturbed: usize,
    failed: usize,
}

/// Least, middle and greatest.
#[derive(Clone, Copy, Debug, Serialize)]
struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
        Some(Self { min, median, max })
    }
}

impl Report {
    pub(crate) fn new(rounds: usize, seconds: f64) -> Result<Self> {
        let machine = Machine::this()?;
        Ok(Self { machine, rounds, seconds, took: Duration::ZERO, lines: BTreeMap::new() })
    }

    /// One more run.
    pub(crate) fn add(&mut self, case: Case, sample: Sample) {
        self.line(case).samples.push(sample);
    }

    /// A run that was thrown away.
    pub(crate) fn disturbed(&mut self, case: Case) {
        self.line(case).disturbed += 1;
    }

    /// A run that gave nothing.
    pub(crate) fn failed(&mut self, case: Case) {
        self.line(case).failed += 1;
    }

    /// How long all of it took.
    pub(crate) fn took(&mut self, time: Duration) {
        self.took = time;
    }

    fn line(&mut self, case: Case) -> &mut Line {
        self.lines.entry(case).or_default()
    }

    fn spread(&self, case: Case, quantity: Quantity) -> Option<Spread> {
        Spread::of(self.lines.get(&case)?.samples.iter().filter_map(|sample| sample.get(&quantity).copied()))
    }

    /// Median over the median of another row for the same measure.
    fn ratio(&self, case: Case, to: Row, quantity: Quantity) -> Option<f64> {
        let other = Case { row: to, ..case };
        if other == case {
            return None;
        }
        Some(self.spread(case, quantity)?.median / self.spread(other, quantity)?.median)
    }

    /// What an aim's figure came to.
    fn reached(&self, aim: &Aim) -> Option<f64> {
        let ours = self.spread(aim.ours, aim.quantity)?.median;
        match aim.theirs {
            Some(theirs) => Some(ours / self.spread(theirs, aim.quantity)?.median),
            None => Some(ours),
        }
    }

    /// Everything as one JSON object.
    pub(crate) fn json(&self) -> Result<String> {
        let lines: Vec<Value> = self.lines.iter().map(|(&case, line)| self.json_line(case, line)).collect();
        let aims: Vec<Value> = aims::all().iter().map(|aim| self.json_aim(aim)).collect();
        Ok(serde_json::to_string_pretty(&json!({
            "machine": self.machine,
            "rounds": self.rounds,
            "seconds": self.seconds,
            "took_s": self.took.as_secs_f64(),
            "lines": lines,
            "aims": aims,
        }))?)
    }

    fn json_line(&self, case: Case, line: &Line) -> Value {
        let figures = |&quantity: &Quantity| {
            json!({
                "quantity": quantity,
                "spread": self.spread(case, quantity),
                "to_kernel": self.ratio(case, Row::kernel(case.row.kind), quantity),
                "to_bare_loop": self.ratio(case, Row::BARE, quantity),
            })
        };
        json!({
            "who": case.row.to_string(),
            "measure": case.measure.to_string(),
            "figures": case.measure.quantities().iter().map(figures).collect::<Vec<_>>(),
            "samples": line.samples,
            "disturbed": line.disturbed,
            "failed": line.failed,
        })
    }

    fn json_aim(&self, aim: &Aim) -> Value {
        let value = self.reached(aim);
        json!({
            "name": aim.name,
            "ours": aim.ours.to_string(),
            "theirs": aim.theirs.map(|case| case.to_string()),
            "quantity": aim.quantity,
            "measured": value,
            "at_least": aim.least,
            "aim": aim.aim,
            "smaller_is_better": aim.quantity.is_cost(),
            "verdict": value.map(|value| verdict(aim.verdict(value))),
        })
    }

    fn write_aims(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reached: Vec<(Aim, f64)> =
            aims::all().into_iter().filter_map(|aim| self.reached(&aim).map(|value| (aim, value))).collect();
        if reached.is_empty() {
            return Ok(());
        }
        writeln!(f, "\n### Aims\n\n| | measured | at least | aim | |\n|---|---|---|---|---|")?;
        for (aim, value) in reached {
            let sign = if aim.quantity.is_cost() { "≤ " } else { "" };
            let (value, met) = (number(value), verdict(aim.verdict(value)));
            writeln!(f, "| {} | {value} | {sign}{} | {sign}{} | {met} |", aim.name, aim.least, aim.aim)?;
        }
        Ok(())
    }

    fn write_measure(&self, f: &mut fmt::Formatter<'_>, measure: Measure, quantity: Quantity) -> fmt::Result {
        writeln!(f, "\n### {measure}: {}\n", title(quantity))?;
        writeln!(f, "| | min | median | max | to kernel | to bare loop | runs | thrown away |")?;
        writeln!(f, "|---|---|---|---|---|---|---|---|")?;
        for (&case, line) in self.lines.iter().filter(|(case, _)| case.measure == measure) {
            let [min, median, max] = match self.spread(case, quantity) {
                Some(spread) => [spread.min, spread.median, spread.max].map(number),
                None => [const { String::new() }; 3],
            };
            let ratio = |to| self.ratio(case, to, quantity).map(number).unwrap_or_default();
            let (kernel, bare) = (ratio(Row::kernel(case.row.kind)), ratio(Row::BARE));
            let failed = if line.failed > 0 { format!(", {} failed", line.failed) } else { String::new() };
            let (runs, disturbed) = (line.samples.len(), line.disturbed);
            let row = case.row;
            writeln!(f, "| {row} | {min} | {median} | {max} | {kernel} | {bare} | {runs}{failed} | {disturbed} |")?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { model, cores, kernel, is_virtual } = &self.machine;
        let kind = if *is_virtual { "virtual machine" } else { "machine" };
        let (rounds, seconds, took) = (self.rounds, self.seconds, self.took.as_secs());
        writeln!(
            f,
            "{model}, {cores} cores, {kind}, Linux {kernel}; {rounds} rounds of {seconds} s, {took} s in all."
        )?;
        self.write_aims(f)?;
        let mut measures: Vec<Measure> = self.lines.keys().map(|case| case.measure).collect();
        measures.dedup();
        for measure in measures {
            for &quantity in measure.quantities() {
                self.write_measure(f, measure, quantity)?;
            }
        }
        Ok(())
    }
}

/// One run in a few words.
pub(crate) fn brief(case: Case, sample: &Sample) -> String {
    let figures =
        case.measure.quantities().iter().filter_map(|quantity| {
            sample.get(quantity).map(|&value| format!("{} {}", number(value), title(*quantity)))
        });
    figures.collect::<Vec<_>>().join(", ")
}

fn title(quantity: Quantity) -> &'static str {
    match quantity {
        Quantity::Gbps => "Gbit/s",
        Quantity::PerSecond => "a second",
        Quantity::P50Us => "µs p50",
        Quantity::P99Us => "µs p99",
        Quantity::ServerUs => "µs of the server's CPU each",
        Quantity::ServerUserUs => "µs of the server's CPU each, outside of the kernel",
        Quantity::ServerCores => "cores of the server",
        Quantity::ClientCores => "cores of the client",
        Quantity::HeapPerEnd => "bytes of the heap for each end",
        Quantity::ResidentPerEnd => "bytes of the process for each end",
        Quantity::Others => "of the machine used by others",
    }
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Reached => "aim reached",
        Verdict::AtLeast => "reached",
        Verdict::Missed => "missed",
    }
}

/// Three or four digits that matter.
fn number(value: f64) -> String {
    let digits = if value >= 1000.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.digits$}")
}
