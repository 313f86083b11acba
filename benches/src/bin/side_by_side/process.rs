//! The processes of one measure: this program again, with a [`Task`].

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anabranch_tests::Netns;
use anyhow::{Context, Result, bail, ensure};

use crate::task::{Sample, Task};

/// A process; it is killed when dropped. Its standard input ends when this process does, however that ends.
#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(netns: &Netns, mut command: Command) -> Result<Process> {
    // What went wrong is said in one line.
    command.env("RUST_LIB_BACKTRACE", "0").stdin(Stdio::piped()).stdout(Stdio::piped());
    let program = command.get_program().to_owned();
    Ok(Process(netns.run(|| command.spawn()).with_context(|| format!("starting {}", program.display()))?))
}

/// This program with a task.
fn task_command(task: &Task) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["task", &serde_json::to_string(task)?]);
    Ok(command)
}

/// A server that is ready. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Server(Process);

impl Server {
    /// Starts one and waits until it is ready.
    pub(crate) fn start(netns: &Netns, task: &Task) -> Result<Self> {
        let mut process = start(netns, task_command(task)?)?;
        let stdout = process.0.stdout.take().context("a pipe was asked for")?;
        let mut line = String::new();
        if BufReader::new(stdout).read_line(&mut line)? == 0 {
            bail!("the server ended before it was ready: {}", process.0.wait()?);
        }
        Ok(Self(process))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.0.id()
    }
}

/// Runs a process that measures to its end.
pub(crate) fn measure(netns: &Netns, task: &Task, patience: Duration) -> Result<Sample> {
    run(netns, task_command(task)?, patience)
}

/// Runs the program `idle`, which was built with this one. It has an allocator that counts.
pub(crate) fn rest(netns: &Netns, connections: usize, kind: &str, patience: Duration) -> Result<Sample> {
    let program = std::env::current_exe()?.with_file_name("idle");
    ensure!(
        program.exists(),
        "{} is not there: build the whole package, cargo build --release -p anabranch-benches",
        program.display()
    );
    let mut command = Command::new(program);
    command.args([&connections.to_string(), "--kinds", kind, "--json"]);
    run(netns, command, patience)
}

fn run(netns: &Netns, command: Command, patience: Duration) -> Result<Sample> {
    let mut process = start(netns, command)?;
    let mut stdout = process.0.stdout.take().context("a pipe was asked for")?;
    let reader = thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).map(|_| text)
    });
    let deadline = Instant::now() + patience;
    let status = loop {
        if let Some(status) = process.0.try_wait()? {
            break status;
        }
        ensure!(Instant::now() < deadline, "the client did not end within {patience:?}");
        thread::sleep(Duration::from_millis(5));
    };
    ensure!(status.success(), "the client failed: {status}");
    let text = reader.join().expect("no panic in a reader")?;
    serde_json::from_str(&text).with_context(|| format!("the client said {text:?}"))
}
