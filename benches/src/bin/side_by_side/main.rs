//! `side-by-side`: how fast is anabranch beside its peers, with the same client, on the same machine, in the
//! same run?
//!
//! Each line of the report has network namespaces of its own, and each of its runs fresh processes: a server and a
//! client, both this program again with a [`task`]. The rounds go over all lines in turn, so that a change of the
//! machine's mood falls on all of them. A run during which others used too much of the machine is thrown
//! away and made again.
//!
//! * [`plan`], [`aims`]: what is measured, and what is to be reached;
//! * [`run`], [`site`], [`process`]: one run;
//! * [`load`], [`peers`], [`memory`]: what the processes do;
//! * [`report`]: tables and JSON.

mod aims;
mod load;
mod memory;
mod peers;
mod plan;
mod process;
mod report;
mod run;
mod site;
mod socket;
mod task;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anabranch_benches::cpu;
use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::plan::Case;
use crate::report::Report;
use crate::run::{Runner, Settings};
use crate::task::{Quantity, Task};

/// How long to wait for the machine to be idle before each run.
const PATIENCE: Duration = Duration::from_secs(10);

/// Measures anabranch beside the kernel, smoltcp and a bare TUN loop, and prints tables in Markdown.
///
/// Needs root, /dev/net/tun and `ip`. Everything happens in network namespaces that end with it. Only ratios
/// within one run mean something.
#[derive(Debug, Parser)]
#[command(name = "side-by-side", version)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Only lines whose name is one of these or, where no line has that name, contains it, such as "tun mptcp2" or
    /// "echo-1"; "aims" for what the table of aims needs.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Print the names of the lines and end.
    #[arg(long)]
    list: bool,
    /// Rounds over all lines.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each run.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Before each run wait, 10 s at most, until the machine uses fewer cores than this.
    #[arg(long, value_name = "CORES", default_value_t = 0.3)]
    quiet: f64,
    /// Throw a run away if others used more than this part of the machine.
    #[arg(long, value_name = "PART", default_value_t = 0.05)]
    others: f64,
    /// How often a run is made again before it is left out.
    #[arg(long, default_value_t = 3)]
    again: usize,
    /// Congestion control of the kernel's sockets.
    #[arg(long, default_value = "cubic")]
    congestion: String,
    /// Write every run and all tables to this file, as one JSON object.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What a process of a run does.
    #[command(hide = true)]
    Task {
        /// A task as JSON.
        task: String,
    },
}

fn main() -> Result<()> {
    let args = Args::parse();
    match args.command {
        Some(Command::Task { task }) => work(&serde_json::from_str(&task).context("a task")?),
        None => compare(&args),
    }
}

fn work(task: &Task) -> Result<()> {
    let sample = match task {
        Task::Serve(serve) => return peers::serve(serve),
        Task::Load(load) => load::run(load)?,
        Task::Memory(memory) => memory::run(memory)?,
    };
    println!("{}", serde_json::to_string(&sample)?);
    Ok(())
}

fn compare(args: &Args) -> Result<()> {
    let cases = chosen(&args.only)?;
    if args.list {
        cases.iter().for_each(|case| println!("{case}"));
        return Ok(());
    }
    let settings = Settings { seconds: args.seconds, congestion: args.congestion.clone() };
    let mut runner = Runner::new(settings);
    let mut report = Report::new(args.rounds, args.seconds)?;
    let stop = stop_at_signal()?;
    let start = Instant::now();
    'rounds: for round in 1..=args.rounds {
        // What does not vary is measured once.
        for &case in cases.iter().filter(|case| round == 1 || case.measure.varies()) {
            if stop.load(Ordering::Relaxed) {
                eprintln!("stopped in round {round}");
                break 'rounds;
            }
            one(args, round, case, &mut runner, &mut report)?;
        }
    }
    report.took(start.elapsed());
    print!("{report}");
    if let Some(path) = &args.json {
        std::fs::write(path, report.json()? + "\n").with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// Set by the first SIGINT or SIGTERM: what was measured until then is reported. The second one ends the program.
fn stop_at_signal() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))?;
        flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// Runs a case until it was quiet enough. One that fails is told and left out: the others are worth having.
fn one(args: &Args, round: usize, case: Case, runner: &mut Runner, report: &mut Report) -> Result<()> {
    for _ in 0..=args.again {
        cpu::settle(args.quiet, PATIENCE)?;
        let sample = match runner.run(case) {
            Ok(sample) => sample,
            Err(error) => {
                eprintln!("round {round}: {case}: {error:#}");
                report.failed(case);
                return Ok(());
            }
        };
        let others = sample.get(&Quantity::Others).copied().unwrap_or(0.0);
        eprintln!("round {round}: {case}: {}, others {:.1} %", report::brief(case, &sample), others * 100.0);
        if others <= args.others {
            report.add(case, sample);
            return Ok(());
        }
        report.disturbed(case);
    }
    eprintln!("round {round}: {case}: left out, others are too busy");
    Ok(())
}

/// The cases that the words name.
fn chosen(only: &[String]) -> Result<Vec<Case>> {
    let mut cases = plan::all();
    let aims: Vec<Case> = aims::all().iter().flat_map(aims::Aim::cases).collect();
    cases.extend(&aims);
    cases.sort();
    cases.dedup();
    if only.is_empty() {
        return Ok(cases);
    }
    let names: BTreeSet<String> = cases.iter().map(Case::to_string).collect();
    let wanted = |case: &Case, word: &str| match word {
        "aims" => aims.contains(case),
        _ if names.contains(word) => case.to_string() == word,
        _ => case.to_string().contains(word),
    };
    cases.retain(|case| only.iter().any(|word| wanted(case, word)));
    if cases.is_empty() {
        bail!("no line has {} in its name; --list shows them all", only.join(" or "));
    }
    Ok(cases)
}
