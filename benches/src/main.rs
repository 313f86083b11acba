//! `side-by-side`: how fast is anabranch beside the kernel, with the same client, in the same namespaces?
//!
//! Two namespaces. In the first there is the client, a kernel socket, and the `anabranch` command with two
//! TUN devices. In the second there is the kernel's own server behind two veth pairs. The rounds go over
//! all peers in turn, so that a change of the machine's mood falls on all of them.

mod bench;
mod cpu;
mod peer;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::bench::Bench;
use crate::report::Report;

/// Bulk rates of anabranch and of the kernel's own TCP and MPTCP, measured in turn.
///
/// Needs root. Only ratios within one run mean something; the column "others" says how many cores the rest
/// of the machine used meanwhile.
#[derive(Debug, Parser)]
#[command(name = "side-by-side", version)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Rounds over all peers.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each transfer.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Congestion control of the kernel's sockets.
    #[arg(long, default_value = "cubic")]
    congestion: String,
    /// Before each transfer wait, 10 s at most, until the machine uses fewer cores than this.
    #[arg(long, default_value_t = 0.3)]
    quiet: f64,
    /// Only rows and directions whose name contains one of these words, such as `mptcp2` or `into`.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// The command under test; by default the one beside this program.
    #[arg(long)]
    anabranch: Option<PathBuf>,
    /// More options for it, such as `--serve-args="--workers 2"`.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    serve_args: String,
    /// Leave anabranch out.
    #[arg(long)]
    kernel_only: bool,
    /// Write every measure and the table to this file, as one JSON object.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The kernel's server, until standard input ends.
    #[command(hide = true)]
    ServeKernel {
        /// Congestion control of its sockets.
        congestion: String,
    },
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(Command::ServeKernel { congestion }) = args.command {
        return peer::serve_kernel(&congestion);
    }
    let command = match (&args.anabranch, args.kernel_only) {
        (_, true) => None,
        (Some(path), _) => Some(path.clone()),
        (None, _) => Some(std::env::current_exe()?.with_file_name("anabranch")),
    };
    let bench = Bench::new(command.as_deref(), &args.serve_args, &args.congestion)?;
    let mut report = Report::default();
    for round in 1..=args.rounds {
        for measure in bench.measures().filter(|measure| measure.wanted(&args.only)) {
            eprint!("round {round}: {measure}");
            cpu::settle(args.quiet, Duration::from_secs(10))?;
            let sample = bench.run(measure, Duration::from_secs_f64(args.seconds));
            let sample = sample.with_context(|| format!("round {round}: {measure}"))?;
            eprintln!("  {:.2} Gbit/s", sample.gbps);
            report.add(measure, sample);
        }
    }
    print!("{report}");
    if let Some(path) = args.json {
        std::fs::write(&path, report.json()? + "\n").with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}
