//! Who used the processors.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Ticks of `/proc` in a second (`USER_HZ`, the same on every Linux that Rust's std supports).
const TICKS: f64 = 100.0;

/// Seconds of processor time used so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// By everybody, interrupts and stolen time included.
    pub(crate) all: f64,
    /// By one process.
    pub(crate) process: f64,
    /// By this one.
    pub(crate) own: f64,
}

impl Usage {
    /// Now; `pid` is the process of interest.
    pub(crate) fn now(pid: u32) -> Result<Self> {
        Ok(Self { all: machine()?, process: process(&pid.to_string())?, own: process("self")? })
    }

    /// Growth since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self { all: self.all - earlier.all, process: self.process - earlier.process, own: self.own - earlier.own }
    }

    /// By all others.
    pub(crate) fn others(self) -> f64 {
        (self.all - self.process - self.own).max(0.0)
    }
}

/// Waits until the machine uses fewer than `cores` cores, at most `patience`.
pub(crate) fn settle(cores: f64, patience: Duration) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < patience {
        let (from, at) = (machine()?, Instant::now());
        thread::sleep(Duration::from_millis(300));
        if (machine()? - from) / at.elapsed().as_secs_f64() < cores {
            break;
        }
    }
    Ok(())
}

/// All but idle and waiting.
fn machine() -> Result<f64> {
    let text = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    let line = text.lines().next().context("/proc/stat is empty")?;
    let ticks: Vec<f64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    let busy: f64 =
        ticks.iter().take(8).enumerate().filter(|(at, _)| !matches!(at, 3 | 4)).map(|(_, ticks)| ticks).sum();
    Ok(busy / TICKS)
}

fn process(pid: &str) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}: is the server still there?"))?;
    // The name, in brackets, may hold anything; after it the state is the third field of the manual.
    let (_, fields) = text.rsplit_once(')').context("a name in brackets")?;
    let ticks: f64 = fields.split_whitespace().skip(11).take(2).filter_map(|word| word.parse::<f64>().ok()).sum();
    Ok(ticks / TICKS)
}
