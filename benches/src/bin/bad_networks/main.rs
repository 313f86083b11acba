//! `bad-networks`: TCP beside the kernel's, where networks hurt.
//!
//! Each measurement has two hosts of its own, which are network namespaces, with `anabranch link` between them: the
//! kernel sends to the kernel, ours to the kernel, the kernel to ours, over the same network with the same congestion
//! control and buffers. The rounds go over all networks, and within one of them the three come right after each other.
//! What was measured is in a file of JSON lines at once, and not measured again when the program goes on another time.
//!
//! * [`case`], [`sample`], [`singles`]: the networks;
//! * [`run`], [`site`], [`transfer`]: measuring;
//! * [`record`]: the file;
//! * [`figures`], [`statistics`], [`mod@report`], [`picture`]: what came of it.

mod case;
mod figures;
mod picture;
mod record;
mod report;
mod run;
mod sample;
mod singles;
mod site;
mod statistics;
mod transfer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anabranch_benches::Machine;
use anyhow::{Context, Result, bail};
use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::case::{Case, Loss, Pairing, Point};
use crate::figures::Figures;
use crate::record::{Log, What};
use crate::report::Report;
use crate::run::{Settings, Subject};

/// Compares TCP with the kernel's on networks that are slow, long, lossy or otherwise bad, and prints tables in Markdown.
///
/// Needs root, `ip`, `ss`, and the command `anabranch` beside it (cargo build --release -p anabranch-tools). Everything
/// happens in network namespaces that end with it. Ctrl-C lets what is being measured end, and reports.
#[derive(Debug, Parser)]
#[command(name = "bad-networks", version)]
struct Args {
    /// Points of the grid, at least. Always the same ones for a number and a seed.
    #[arg(long, default_value_t = 64)]
    points: usize,
    /// Which sample of the grid.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only what has one of these in its name, such as "bulk 10m-", "300ms", "short 100 " or "policer".
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Print the names and how long each bulk transfer takes, and end.
    #[arg(long)]
    list: bool,
    /// Rounds over everything.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Length of all bulk transfers [default: 3 to 12 s, by the round-trip time].
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,
    /// Congestion control of both stacks.
    #[arg(long, default_value = "cubic")]
    congestion: String,
    /// Networks that are measured at the same time, those where a Gbit/s may pass left out.
    #[arg(long, default_value_t = 2)]
    parallel: usize,
    /// How often a measurement is made again that broke, or in which the emulator was late.
    #[arg(long, default_value_t = 2)]
    again: usize,
    /// Begin nothing after so many seconds. The next time it goes on.
    #[arg(long, value_name = "SECONDS")]
    time: Option<u64>,
    /// Measure nothing: report what the file has.
    #[arg(long)]
    report: bool,
    /// The measurements, as JSON lines.
    #[arg(long, value_name = "FILE", default_value = "bad-networks.jsonl")]
    log: PathBuf,
    /// Write all figures to this file, as one JSON object.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the ratios of all points into this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// Bytes of the short transfers.
const SHORT: [usize; 3] = [10_000, 100_000, 1_000_000];
/// How long two connections share a bottleneck, in seconds and in round trips at least.
const FAIR: (f64, f64) = (15.0, 150.0);

/// All there is to measure.
struct Plan {
    grid: Vec<Subject>,
    singles: Vec<Subject>,
    short: Vec<Subject>,
    fair: Vec<Subject>,
}

impl Plan {
    fn new(points: usize, seed: u64) -> Self {
        let beside = || Pairing::ALL.map(|pairing| vec![pairing]).to_vec();
        let bulk = |case: Case| Subject { case, what: What::Bulk, lines: beside() };
        let short =
            |case: Case| SHORT.map(|bytes| Subject { case: case.clone(), what: What::Short(bytes), lines: beside() });
        Self {
            grid: sample::sample(points, seed).into_iter().map(Case::from).map(bulk).collect(),
            singles: singles::all().into_iter().map(bulk).collect(),
            short: short_networks().into_iter().flat_map(short).collect(),
            fair: shared_networks().into_iter().map(shared).collect(),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Subject> {
        [&self.grid, &self.singles, &self.short, &self.fair].into_iter().flatten()
    }
}

/// Where short transfers are timed.
fn short_networks() -> Vec<Case> {
    let point = |rate, rtt, loss| Case::from(Point { rate, rtt, loss, reorder: 0, queue: 1.0 });
    vec![
        point(100, 20, Loss::None),
        point(100, 20, Loss::Random(1.0)),
        point(10, 100, Loss::None),
        point(10, 100, Loss::Bursts(3.0)),
    ]
}

/// Where two connections meet.
fn shared_networks() -> Vec<Case> {
    let point = |rate, rtt, queue| Point { rate, rtt, loss: Loss::None, reorder: 0, queue };
    [point(10, 20, 1.0), point(100, 20, 1.0), point(100, 100, 1.0), point(10, 100, 4.0)].map(Case::from).to_vec()
}

fn shared(case: Case) -> Subject {
    let seconds = FAIR.0.max(case.rtt().as_secs_f64() * FAIR.1);
    let case = Case { name: format!("shared-{}", case.name), seconds, ..case };
    let lines = vec![
        vec![Pairing::Kernel, Pairing::Kernel],
        vec![Pairing::Sends, Pairing::Sends],
        vec![Pairing::Sends, Pairing::Kernel],
    ];
    Subject { case, what: What::Bulk, lines }
}

fn main() -> Result<()> {
    let args = Args::parse();
    let plan = Plan::new(args.points, args.seed);
    let meant = |subject: &&Subject| args.only.is_empty() || args.only.iter().any(|word| subject.is_meant(word));
    let chosen: Vec<Subject> = plan.all().filter(meant).cloned().collect();
    if chosen.is_empty() {
        bail!("nothing has {} in its name; --list shows all there is", args.only.join(" or "));
    }
    if args.list {
        chosen.iter().for_each(|subject| println!("{subject}"));
        return Ok(());
    }
    if !args.report {
        measure(&args, &chosen)?;
    }
    report(&args, &plan)
}

fn measure(args: &Args, subjects: &[Subject]) -> Result<()> {
    let settings = Settings {
        rounds: args.rounds,
        congestion: args.congestion.clone(),
        seconds: args.seconds,
        parallel: args.parallel,
        again: args.again,
        until: args.time.map(|seconds| Instant::now() + Duration::from_secs(seconds)),
    };
    let done = record::done(&record::read(&args.log)?);
    let log = Log::open(&args.log)?;
    let stop = stop_at_signal()?;
    run::run(subjects, &settings, &done, &log, &stop)
}

fn report(args: &Args, plan: &Plan) -> Result<()> {
    let records = record::read(&args.log)?;
    let report = Report {
        machine: Machine::this()?,
        grid: &plan.grid,
        singles: &plan.singles,
        short: &plan.short,
        fair: &plan.fair,
        figures: Figures::new(&records, &args.congestion),
        congestion: &args.congestion,
    };
    print!("{}", report.markdown());
    if let Some(path) = &args.json {
        std::fs::write(path, report.json()? + "\n").with_context(|| format!("writing {}", path.display()))?;
    }
    if let Some(path) = &args.svg {
        picture::write(&report.figures, &plan.grid, path)?;
    }
    Ok(())
}

/// Set by the first SIGINT or SIGTERM; the second one ends the program.
fn stop_at_signal() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))?;
        flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}
