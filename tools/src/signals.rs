//! SIGINT (Ctrl-C), SIGTERM and SIGHUP end a command, SIGUSR1 makes it report.

use std::fs;
use std::process;
use std::thread;

use anyhow::Context as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

/// Calls `stop` with the signal's name when the first one comes; the second one ends the process.
///
/// A handler of our own is a must: the peers of a stack that is killed hear nothing, for the kernel
/// knows no connection of ours that it could reset.
pub(crate) fn on_stop(stop: impl FnOnce(&'static str) + Send + 'static) -> anyhow::Result<()> {
    let hang_up = Some(SIGHUP).filter(|&signal| !is_ignored(signal));
    let mut signals = Signals::new([SIGINT, SIGTERM].into_iter().chain(hang_up)).context("cannot handle signals")?;
    let wait = move || {
        let mut stop = Some(stop);
        for signal in signals.forever() {
            match stop.take() {
                Some(stop) => stop(name_of(signal)),
                None => process::exit(1),
            }
        }
    };
    thread::Builder::new().name("signals".into()).spawn(wait).context("cannot start a thread")?;
    Ok(())
}

/// Calls `report` each time SIGUSR1 comes.
pub(crate) fn on_report(report: impl Fn() + Send + 'static) -> anyhow::Result<()> {
    let mut signals = Signals::new([SIGUSR1]).context("cannot handle signals")?;
    let wait = move || signals.forever().for_each(|_| report());
    thread::Builder::new().name("report".into()).spawn(wait).context("cannot start a thread")?;
    Ok(())
}

/// Whether whoever started us wants the signal to be ignored, as `nohup` does.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

fn name_of(signal: i32) -> &'static str {
    match signal {
        SIGINT => "SIGINT",
        SIGHUP => "SIGHUP",
        _ => "SIGTERM",
    }
}
