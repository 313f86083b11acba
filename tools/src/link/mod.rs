//! `anabranch link`: a link of any kind between two interfaces.

mod emulator;
mod file;
mod port;
mod report;
mod run;
mod schedule;
mod settings;
#[cfg(test)]
mod tests;
mod values;

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anabranch_sim::{LinkConfig, Opportunities};

use self::emulator::Emulator;
use self::port::{Instant, WirePort};
use self::report::Reporter;
use self::run::{BusyWait, Orders};
use self::schedule::Step;
use self::settings::Settings;
use crate::options::TalkArgs;
use crate::output::Output;
use crate::signals;
use crate::usage::Usage;

const EXAMPLES: &str = "\
Examples:
  Two hosts with an emulator between them, in three namespaces (see netns-scripts/two-links.sh):
    anabranch link left right --rate 50mbit --delay 20ms --loss 1% --queue 1bdp

  An asymmetric line with bursts of loss towards the subscriber:
    anabranch link left right --delay 10ms --a-to-b rate=10mbit,queue=50ms --b-to-a rate=50mbit,loss=ge:0.1%:20%

  Wi-Fi that fails for a while and comes back slower:
    anabranch link left right --rate 50mbit --delay 10ms --at 2s down --at 3s up --at 5s rate=5mbit,delay=80ms

  A mobile network, as mahimahi recorded it:
    anabranch link left right --delay 30ms --trace-up LTE.up --trace-down LTE.down --queue 1000p

  A bottleneck that marks rather than drops, for a minute, read by a program:
    anabranch link left right --rate 20mbit --delay 15ms --aqm codel --ecn --duration 60s --json

Both interfaces must be up, and be without addresses: the host itself would talk on them past the emulator.";

/// Emulate a link between two interfaces of this machine: rate, delay, loss, queues, outages, traces.
///
/// Every Ethernet frame that comes in on A leaves on B as late, as often and as damaged as the link has it,
/// and the other way round. The link is that of the simulator: the same settings and the same seed do the same to the
/// same packets here and there. Needs root, or CAP_NET_RAW and CAP_NET_ADMIN.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// One interface.
    #[arg(value_name = "A")]
    a: String,
    /// The other one.
    #[arg(value_name = "B")]
    b: String,
    #[command(flatten)]
    both: Settings,
    /// Other settings from A to B: the link options above, without the dashes.
    #[arg(long, value_name = "KEY=VALUE,...", help_heading = "Link options")]
    a_to_b: Vec<String>,
    /// Other settings from B to A.
    #[arg(long, value_name = "KEY=VALUE,...", help_heading = "Link options")]
    b_to_a: Vec<String>,
    /// A trace from A to B, instead of a rate: lines of milliseconds, 1500 bytes may leave at each (mm-link's format).
    #[arg(long, value_name = "FILE", help_heading = "Link options")]
    trace_up: Option<PathBuf>,
    /// A trace from B to A.
    #[arg(long, value_name = "FILE", help_heading = "Link options")]
    trace_down: Option<PathBuf>,
    /// A change at a time since the start: down, up, or KEY=VALUE,...; a-to-b: or b-to-a: before it for one direction.
    /// Repeat it for more.
    #[arg(long, num_args = 2, value_names = ["TIME", "CHANGE"], help_heading = "Link options")]
    at: Vec<String>,
    /// Seed of everything that is random [default: 1].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Ends by itself after this time; Ctrl-C ends it at any time.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// How long before a frame is due the processor is kept busy: auto, off or a time. The longer the more punctual
    /// [default: auto, which is 60us with more than one processor].
    #[arg(long, value_name = "TIME")]
    busy_wait: Option<BusyWait>,
    /// Reads options from a TOML file; what the command line says wins.
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
    #[command(flatten)]
    talk: TalkArgs,
}

/// A direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    AToB,
    BToA,
}

impl Way {
    const BOTH: [Self; 2] = [Self::AToB, Self::BToA];

    fn index(self) -> usize {
        self as usize
    }

    /// Index of the port that leads in.
    fn source(self) -> usize {
        self as usize
    }

    /// Index of the port that leads out.
    fn destination(self) -> usize {
        1 - self as usize
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AToB => "a-to-b",
            Self::BToA => "b-to-a",
        })
    }
}

/// All that was asked for, understood.
#[derive(Clone, Debug)]
struct Plan {
    configs: [LinkConfig; 2],
    steps: Vec<Step>,
    seed: u64,
    duration: Option<Duration>,
    busy_wait: BusyWait,
    talk: TalkArgs,
}

impl Args {
    /// Understands the options, those of the file included.
    fn plan(&self) -> anyhow::Result<Plan> {
        let file = self.config.as_deref().map(file::read).transpose()?.unwrap_or_default();
        let both = self.both.or(file.both);
        let one = |way: Way, lists: &[String], of_file: Settings| -> anyhow::Result<Settings> {
            let mut settings = Settings::default();
            for list in lists {
                let more =
                    Settings::from_list(list).map_err(|error| Usage::error(format!("--{way} {list}: {error}")))?;
                settings = more.or(settings);
            }
            Ok(settings.or(of_file).or(both))
        };
        let settings = [one(Way::AToB, &self.a_to_b, file.a_to_b)?, one(Way::BToA, &self.b_to_a, file.b_to_a)?];
        let traces = [
            trace("--trace-up", self.trace_up.as_ref().or(file.trace_up.as_ref()))?,
            trace("--trace-down", self.trace_down.as_ref().or(file.trace_down.as_ref()))?,
        ];
        let mut steps = file.steps;
        for pair in self.at.chunks_exact(2) {
            steps.push(Step::parse(&pair[0], &pair[1])?);
        }
        steps.sort_by_key(|step| step.at);
        let round_trip = settings[0].delay() + settings[1].delay();
        let mut configs = Vec::new();
        for ((way, settings), trace) in Way::BOTH.into_iter().zip(&settings).zip(traces) {
            let mut config = settings.config(round_trip, trace)?;
            for step in steps.iter().filter(|step| step.concerns(way)) {
                config.schedule.extend(step.changes.iter().map(|&change| (step.at, change)));
            }
            configs.push(config);
        }
        let Ok(configs) = configs.try_into() else { unreachable!("one configuration for each direction") };
        Ok(Plan {
            configs,
            steps,
            seed: self.seed.or(file.seed).unwrap_or(1),
            duration: self.duration.or(file.duration),
            busy_wait: self.busy_wait.or(file.busy_wait).unwrap_or_else(BusyWait::auto),
            talk: TalkArgs { log: self.talk.log.or(file.log), json: self.talk.json.or(file.json) },
        })
    }
}

fn trace(option: &str, path: Option<&PathBuf>) -> anyhow::Result<Option<Arc<Opportunities>>> {
    let Some(path) = path else { return Ok(None) };
    let wrong = |error: &dyn fmt::Display| Usage::error(format!("{option} {}: {error}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| wrong(&error))?;
    Ok(Some(Arc::new(Opportunities::parse(&text).map_err(|error| wrong(&error))?)))
}

pub(crate) fn run(args: &Args, output: &mut Output) -> anyhow::Result<()> {
    *output = Output::new(args.talk.json.unwrap_or(false));
    let plan = args.plan()?;
    *output = Output::new(plan.talk.json.unwrap_or(false));
    plan.talk.start_log();
    if args.a == args.b {
        return Err(Usage::error(format!("{} is no link to itself: give two interfaces", args.a)));
    }
    let time = port::Time::start();
    let ports = [WirePort::open(&args.a, time)?, WirePort::open(&args.b, time)?];

    static STOP: AtomicBool = AtomicBool::new(false);
    signals::on_stop(|_| STOP.store(true, Ordering::Relaxed))?;

    let start = time.now();
    let mut emulator = Emulator::new(ports, plan.configs.clone(), plan.seed, start);
    let reporter = Reporter::start(*output, [&args.a, &args.b], &plan, start)?;
    let orders = Orders {
        time,
        busy_wait: plan.busy_wait,
        end: plan.duration.map_or(Instant::MAX, |duration| start + duration),
        stop: &STOP,
        tick: report::TICK,
        on_tick: |now, stats| reporter.tick(now, stats),
    };
    let result = run::run(&mut emulator, orders);
    let now = time.now();
    let stats = emulator.stats(now);
    reporter.finish(now, stats, &emulator.report());
    result
}
