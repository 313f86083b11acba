//! `anabranch demo`: two simulated links, one transfer, one of the links cut in the middle.

mod chart;
mod scenario;
mod screen;
mod summary;

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anabranch::{SocketOptions, cc, sched};
use anyhow::bail;

use self::scenario::{LIMIT, Scenario, Using};
use self::screen::Screen;
use crate::options::TalkArgs;
use crate::output::Output;
use crate::stack::check_name;
use crate::usage::Usage;

const EXAMPLES: &str = "\
Examples:
  anabranch demo
  anabranch demo --scheduler roundrobin --speed 10 --svg roundrobin.svg
  anabranch demo --json | jq -c 'select(.event == \"summary\")'

The two hosts run the same protocol code that moves real packets; only the clock and the
links are simulated. The same seed gives the same run.";

/// Show a transfer over two simulated links that survives the loss of one: no privileges, no network.
///
/// Wi-Fi (50 Mbit/s, 10 ms one way) is cut for three seconds while a file comes in over it and LTE (20
/// Mbit/s, 40 ms). Nobody tells the stacks: they have to notice. Takes about ten seconds.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Where to draw the rate of each link over time.
    #[arg(long, value_name = "FILE", default_value = "anabranch-demo.svg")]
    svg: PathBuf,
    /// Seed of everything that is random in the simulation.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// How fast the simulated time runs, in times of the real one: 0.1 to 1000.
    #[arg(long, value_name = "TIMES", default_value_t = 1.0)]
    speed: f64,
    /// Packet scheduler of both hosts.
    #[arg(long, value_name = "NAME", default_value = "minrtt")]
    scheduler: String,
    /// Congestion control of both hosts.
    #[arg(long, value_name = "NAME", default_value = "cubic")]
    congestion: String,
    #[command(flatten)]
    talk: TalkArgs,
}

pub(crate) fn run(args: &Args, output: &mut Output) -> anyhow::Result<()> {
    *output = Output::new(args.talk.json.unwrap_or(false));
    args.talk.start_log();
    check_name("--scheduler", Some(&args.scheduler), sched::NAMES)?;
    check_name("--congestion", Some(&args.congestion), cc::NAMES)?;
    if !(0.1..=1000.0).contains(&args.speed) {
        return Err(Usage::error(format!("--speed {}: give a number from 0.1 to 1000", args.speed)));
    }
    let options = SocketOptions {
        scheduler: args.scheduler.clone(),
        congestion: args.congestion.clone(),
        ..SocketOptions::default()
    };
    let scenario = Scenario { seed: args.seed, options };
    summary::intro(*output, &scenario);

    // What to compare with is found out while the transfer can be watched.
    let comparison = scenario.clone();
    let comparing =
        thread::spawn(move || [Using::Only(0), Using::Only(1), Using::Both].map(|using| comparison.compare(using)));
    let mut screen = Screen::new(*output);
    let begin = Instant::now();
    let mut pacer = |at: Duration| {
        thread::sleep(at.div_f64(args.speed).saturating_sub(begin.elapsed()));
    };
    let outcome = scenario.run(&mut pacer, |sample| screen.show(sample));
    screen.finish();
    let Ok(alone) = comparing.join() else { bail!("the comparison failed; this is a bug") };

    chart::write(&outcome, &args.svg)?;
    summary::print(*output, alone, &outcome, &args.svg);
    match (outcome.took, outcome.is_intact()) {
        (_, true) => Ok(()),
        (None, _) => bail!("the transfer did not end within {} seconds; this is a bug", LIMIT.as_secs_f64()),
        (Some(_), false) => bail!("the bytes that arrived are not those that were sent; this is a bug"),
    }
}
