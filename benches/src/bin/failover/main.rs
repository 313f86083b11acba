//! `failover`: how long a stream pauses when one of its two paths dies, beside the kernel's.
//!
//! Each measurement has two hosts of its own, which are network namespaces, with two `anabranch link` between them. The
//! kernel writes to the kernel, ours to the kernel, the kernel to ours; the rounds go over all three in turn, and which of
//! the paths dies changes from round to round. The pause is the longest time between two reads after that.
//!
//! * [`site`]: the hosts and the paths;
//! * [`transfer`]: one measurement.

mod site;
mod transfer;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anabranch_benches::Machine;
use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::transfer::Outcome;

/// Measures the pause of a stream when one of its two paths dies, and prints a table in Markdown.
///
/// Needs root, `ip` of iproute2, a kernel with MPTCP, and the command `anabranch` beside it (cargo build --release -p
/// anabranch-tools). Everything happens in network namespaces that end with it. Ctrl-C lets the measurement end, and reports.
#[derive(Debug, Parser)]
#[command(name = "failover", version)]
struct Args {
    /// Measurements of each pairing.
    #[arg(long, default_value_t = 10)]
    rounds: u32,
    /// Only these pairings: kernel, sends, receives.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// How often a measurement is made again that went wrong.
    #[arg(long, default_value_t = 2)]
    again: u32,
    #[command(flatten)]
    link: Link,
    /// Write all measurements to this file, as one JSON object.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Each of the two paths.
#[derive(Clone, Debug, clap::Args, Serialize)]
struct Link {
    /// Mbit/s.
    #[arg(long, default_value_t = 50)]
    mbits: u32,
    /// Round-trip time without queue, in milliseconds.
    #[arg(long = "rtt", default_value_t = 20)]
    rtt_ms: u32,
    /// Queue, in bandwidth-delay products.
    #[arg(long = "queue", default_value_t = 1.0)]
    queue_bdp: f64,
    /// Congestion control of both stacks.
    #[arg(long, default_value = "cubic")]
    congestion: String,
}

/// Who writes to whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Pairing {
    /// The kernel to the kernel.
    Kernel,
    /// Ours to the kernel.
    Sends,
    /// The kernel to ours.
    Receives,
}

impl Pairing {
    const ALL: [Self; 3] = [Self::Kernel, Self::Sends, Self::Receives];

    fn word(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Sends => "sends",
            Self::Receives => "receives",
        }
    }
}

impl fmt::Display for Pairing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "the kernel writes, the kernel reads",
            Self::Sends => "ours writes, the kernel reads",
            Self::Receives => "the kernel writes, ours reads",
        })
    }
}

/// All there is to say.
#[derive(Debug, Serialize)]
struct Report<'a> {
    machine: Machine,
    link: &'a Link,
    outcomes: &'a [Outcome],
}

fn main() -> Result<()> {
    let args = Args::parse();
    let meant = |pairing: &Pairing| args.only.is_empty() || args.only.iter().any(|word| word == pairing.word());
    let pairings: Vec<Pairing> = Pairing::ALL.into_iter().filter(meant).collect();
    ensure!(
        !pairings.is_empty(),
        "no pairing is called {}: there are kernel, sends and receives",
        args.only.join(", ")
    );
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))?;
        flag::register(signal, Arc::clone(&stop))?;
    }
    let mut outcomes = Vec::new();
    for round in 0..args.rounds {
        for &pairing in &pairings {
            if !stop.load(Ordering::Relaxed) {
                outcomes.extend(one(&args, pairing, round));
            }
        }
    }
    let report = Report { machine: Machine::this()?, link: &args.link, outcomes: &outcomes };
    print_table(&report, &pairings);
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(&report)? + "\n";
        std::fs::write(path, json).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// One measurement, made again if something went wrong.
fn one(args: &Args, pairing: Pairing, round: u32) -> Option<Outcome> {
    for _ in 0..=args.again {
        match transfer::measure(&args.link, pairing, round) {
            Ok(outcome) => {
                let Outcome { dead, pause_ms, suspected, in_vain, before, after, .. } = outcome;
                eprintln!(
                    "[{}/{}] {pairing}: path {dead} dies, pause {pause_ms:.0} ms, {before:.0} then {after:.0} Mbit/s, \
                     suspected {suspected}, {in_vain} in vain",
                    round + 1,
                    args.rounds
                );
                return Some(outcome);
            }
            Err(error) => eprintln!("[{}/{}] {pairing}: {error:#}", round + 1, args.rounds),
        }
    }
    None
}

fn print_table(report: &Report<'_>, pairings: &[Pairing]) {
    let Machine { model, cores, kernel, is_virtual } = &report.machine;
    let kind = if *is_virtual { ", virtual" } else { "" };
    let Link { mbits, rtt_ms, queue_bdp, congestion } = report.link;
    println!("{model}{kind}, {cores} cores, Linux {kernel}; {congestion}.");
    println!("Two paths of {mbits} Mbit/s and {rtt_ms} ms, a queue of {queue_bdp} BDP each.\n");
    println!("| | pause, ms: min / **median** / max | Mbit/s before | after | runs |\n|---|---|---|---|---|");
    for pairing in pairings {
        let of = |value: fn(&Outcome) -> f64| {
            let mut values: Vec<f64> =
                report.outcomes.iter().filter(|outcome| outcome.pairing == *pairing).map(value).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let pauses = of(|outcome| outcome.pause_ms);
        let (Some(least), Some(most)) = (pauses.first(), pauses.last()) else { continue };
        let (before, after) = (median(&of(|outcome| outcome.before)), median(&of(|outcome| outcome.after)));
        let middle = median(&pauses);
        let runs = pauses.len();
        println!("| {pairing} | {least:.0} / **{middle:.0}** / {most:.0} | {before:.0} | {after:.0} | {runs} |");
    }
}

/// Of sorted values.
fn median(values: &[f64]) -> f64 {
    let upper = values.get(values.len() / 2).copied().unwrap_or(f64::NAN);
    let lower = values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN);
    (lower + upper) / 2.0
}
