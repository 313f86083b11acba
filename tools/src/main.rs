//! The `anabranch` command: services, netcat, throughput measurement and a demonstration, all of them
//! over a TCP and Multipath TCP stack that runs in this process; and a link emulator.

mod addresses;
mod cat;
mod control;
mod demo;
mod format;
mod link;
mod options;
mod output;
mod perf;
mod serve;
mod server;
mod signals;
mod sockets;
mod stack;
mod usage;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::output::Output;
use crate::usage::Usage;

const AFTER_HELP: &str = "\
Begin with:
  anabranch demo                    needs no privileges and no network

Each command has examples in its own help: anabranch serve --help
Exit codes: 0 done, 1 failed, 2 wrong usage.";

/// TCP and Multipath TCP (RFC 8684) in user space.
///
/// Every command but `demo`, `link` and `mptcp` brings up a stack of its own on the paths that it is given, and speaks to
/// any TCP or MPTCP peer on the other side.
#[derive(Parser, Debug)]
#[command(name = "anabranch", version, after_help = AFTER_HELP, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Serve(serve::Args),
    Cat(cat::Args),
    Perf(perf::Args),
    Demo(demo::Args),
    Link(Box<link::Args>),
    Mptcp(control::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut output = Output::default();
    let result = match cli.command {
        Command::Serve(args) => serve::run(args, &mut output),
        Command::Cat(args) => cat::run(args, &mut output),
        Command::Perf(args) => perf::run(args, &mut output),
        Command::Demo(args) => demo::run(&args, &mut output),
        Command::Link(args) => link::run(&args, &mut output),
        Command::Mptcp(args) => control::run(args),
    };
    let Err(error) = result else { return ExitCode::SUCCESS };
    output.error(&error);
    match error.is::<Usage>() {
        true => ExitCode::from(2),
        false => ExitCode::FAILURE,
    }
}
