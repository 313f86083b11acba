//! SIGINT (Ctrl-C), SIGTERM and SIGHUP.

use std::process;
use std::thread;

use anyhow::Context as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Calls `stop` with the signal's name when the first one comes; the second one ends the process.
///
/// A handler of our own is a must: the peers of a stack that is killed hear nothing, for the kernel
/// knows no connection of ours that it could reset.
pub(crate) fn on_stop(stop: impl FnOnce(&'static str) + Send + 'static) -> anyhow::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot handle signals")?;
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

fn name_of(signal: i32) -> &'static str {
    match signal {
        SIGINT => "SIGINT",
        SIGHUP => "SIGHUP",
        _ => "SIGTERM",
    }
}
