//! Who used the processors.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Ticks of `/proc` in a second (`USER_HZ`, the same on every Linux that Rust's std supports).
const TICKS: f64 = 100.0;
/// The parent of all threads of the kernel.
const KTHREADD: u32 = 2;

/// How many processors this process may use.
#[must_use]
pub fn count() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Keeps the calling thread, and those that it starts from now on, on these processors. Empty: everywhere.
///
/// # Errors
/// There is no such processor.
pub fn pin(cpus: &[usize]) -> Result<()> {
    if cpus.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    for &cpu in cpus {
        ensure!(cpu < CpuSet::MAX_CPU, "processor {cpu} is beyond what an affinity mask holds");
        set.set(cpu);
    }
    sched_setaffinity(None, &set).with_context(|| format!("keeping to processors {cpus:?}"))
}

/// Seconds of processor time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Time {
    /// Outside of the kernel.
    pub user: f64,
    /// In it.
    pub system: f64,
}

impl Time {
    /// Both.
    #[must_use]
    pub fn total(self) -> f64 {
        self.user + self.system
    }

    fn since(self, earlier: Self) -> Self {
        Self { user: self.user - earlier.user, system: self.system - earlier.system }
    }
}

/// The accounts at the beginning of a run.
#[derive(Debug)]
pub struct Accounts {
    at: Instant,
    machine: f64,
    kernel: f64,
    ended: f64,
    server: Option<(u32, Time)>,
}

/// Who used how much during a run.
#[derive(Clone, Copy, Debug)]
pub struct Shares {
    /// Length of the run in seconds.
    pub elapsed: f64,
    /// The server's, if there was one.
    pub server: Time,
    /// That of processes that this one started and waited for during the run, in seconds.
    pub client: f64,
    /// The part of the whole machine that others used: 0 to 1.
    pub others: f64,
}

impl Accounts {
    /// Opens them. `server` goes on running; other processes of ours are started and waited for meanwhile.
    ///
    /// # Errors
    /// What `/proc` says cannot be read.
    pub fn open(server: Option<u32>) -> Result<Self> {
        Ok(Self {
            at: Instant::now(),
            machine: machine()?,
            kernel: kernel_threads(),
            ended: own()?,
            server: server.map(|pid| process(pid).map(|time| (pid, time))).transpose()?,
        })
    }

    /// Closes them.
    ///
    /// # Errors
    /// See [`open`](Self::open); the server is gone.
    pub fn close(self) -> Result<Shares> {
        let server = match self.server {
            Some((pid, before)) => process(pid)?.since(before),
            None => Time::default(),
        };
        let elapsed = self.at.elapsed().as_secs_f64();
        let client = own()? - self.ended;
        let ours = server.total() + client + kernel_threads() - self.kernel;
        let others = (machine()? - self.machine - ours).max(0.0) / (elapsed * count() as f64);
        Ok(Shares { elapsed, server, client, others })
    }
}

/// Waits until the machine uses fewer than `cores` cores, at most `patience`.
///
/// # Errors
/// What `/proc` says cannot be read.
pub fn settle(cores: f64, patience: Duration) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < patience {
        let (from, at) = (machine()?, Instant::now());
        thread::sleep(Duration::from_millis(200));
        if (machine()? - from) / at.elapsed().as_secs_f64() < cores {
            break;
        }
    }
    Ok(())
}

/// All but idle and waiting: stolen time and interrupts, too.
fn machine() -> Result<f64> {
    let text = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    let line = text.lines().next().context("/proc/stat is empty")?;
    let ticks = line.split_whitespace().skip(1).filter_map(|word| word.parse::<f64>().ok());
    let busy: f64 = ticks.take(8).enumerate().filter(|(at, _)| !matches!(at, 3 | 4)).map(|(_, ticks)| ticks).sum();
    Ok(busy / TICKS)
}

/// Of the kernel's threads. Most of what they do is for us: soft interrupts, and closing MPTCP connections. Others
/// that keep them busy use processors themselves, too.
fn kernel_threads() -> f64 {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().into_string().ok());
    let pids = pids.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    // One that is gone again has used nothing to speak of.
    let threads = pids.filter_map(|pid| stat(&pid).ok()).filter(|stat| stat.parent == KTHREADD);
    threads.map(|stat| stat.times[0] + stat.times[1]).sum()
}

/// Of one live process.
fn process(pid: u32) -> Result<Time> {
    let [user, system, ..] = stat(&pid.to_string())?.times;
    Ok(Time { user, system })
}

/// Of this process and of its children that were waited for.
fn own() -> Result<f64> {
    Ok(stat("self")?.times.iter().sum())
}

/// Part of proc_pid_stat(5).
struct Stat {
    parent: u32,
    /// `utime`, `stime`, `cutime`, `cstime`, in seconds.
    times: [f64; 4],
}

fn stat(pid: &str) -> Result<Stat> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}: is the process still there?"))?;
    // The name, in brackets, may hold anything; after it the state is the third field of the manual.
    let (_, fields) = text.rsplit_once(')').context("a name in brackets")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).context("too few fields");
    let time = |number| anyhow::Ok(field(number)?.parse::<f64>()? / TICKS);
    Ok(Stat { parent: field(4)?.parse()?, times: [time(14)?, time(15)?, time(16)?, time(17)?] })
}
