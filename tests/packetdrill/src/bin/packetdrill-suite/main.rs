//! Runs folders of packetdrill scripts against the stack and says which of them pass.
//!
//! `PACKETDRILL=/path/to/packetdrill packetdrill-suite FOLDER…`, as root: each script gets a network namespace of its
//! own, with an unused `tun0`. Neither the tool nor scripts are part of this project.

mod known;
mod nstat;
mod report;
mod run;
mod scripts;

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;

use known::Known;
use report::Report;
use run::Runner;
use scripts::Variant;

/// Runs folders of packetdrill scripts against the stack.
#[derive(Debug, Parser)]
struct Args {
    /// Scripts, or folders of them.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// The tool.
    #[arg(long, env = "PACKETDRILL")]
    tool: PathBuf,
    /// The plugin; by default the one that was built together with this program.
    #[arg(long)]
    library: Option<PathBuf>,
    /// Kinds of addresses.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Variant::Ipv4, Variant::Ipv4MappedIpv6, Variant::Ipv6])]
    variants: Vec<Variant>,
    /// Only scripts whose path contains this.
    #[arg(long)]
    only: Option<String>,
    /// Scripts that run at the same time.
    #[arg(long, default_value_t = thread::available_parallelism().map_or(1, usize::from))]
    jobs: usize,
    /// Seconds that a script may take, of real time.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Time that a packet may be early or late, in microseconds of virtual time.
    #[arg(long, default_value_t = 1000)]
    tolerance: u32,
    /// What a packet may be early or late beyond that, in per cent of the time since the event before it.
    #[arg(long, default_value_t = 0.0)]
    tolerance_percent: f64,
    /// Differences that are known, each with its reason (TOML).
    #[arg(long)]
    known: Option<PathBuf>,
    /// Write each result as a line of JSON to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Tell more of each failure.
    #[arg(short, long)]
    verbose: bool,
    /// Further options of the tool.
    #[arg(last = true)]
    rest: Vec<String>,
}

fn main() -> ExitCode {
    if nstat::is_meant() {
        return nstat::main();
    }
    match suite(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("packetdrill-suite: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn suite(args: &Args) -> Result<bool> {
    let library = match &args.library {
        Some(library) => library.clone(),
        None => beside_this_program().context("looking for the plugin; name it with --library")?,
    };
    ensure!(args.tool.is_file(), "no tool at {}: set PACKETDRILL", args.tool.display());
    let known = args.known.as_deref().map_or_else(|| Ok(Known::default()), Known::read)?;
    let cases = scripts::find(&args.paths, &args.variants, args.only.as_deref())?;
    ensure!(!cases.is_empty(), "there is no script in {:?}", args.paths);

    let runner = Runner::new(args, &library.canonicalize()?)?;
    let report = Mutex::new(Report::new(cases.len(), known, args.json.as_deref(), args.verbose)?);
    let next = Mutex::new(cases.iter());
    thread::scope(|scope| {
        for _ in 0..args.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let Some(case) = next.lock().expect("the list of scripts").next() else { break };
                    let outcome = runner.run(case, Duration::from_secs(args.seconds));
                    report.lock().expect("the report").add(case, outcome);
                }
            });
        }
    });
    report.into_inner().expect("the report").finish()
}

fn beside_this_program() -> Result<PathBuf> {
    let program = env::current_exe()?;
    let library = program.parent().unwrap_or(Path::new(".")).join("libanabranch_packetdrill.so");
    ensure!(library.is_file(), "there is no {}", library.display());
    Ok(library)
}
