//! A command under test, in a namespace.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::Netns;

/// Reads one of its outputs to the end.
type Reader = JoinHandle<Vec<u8>>;

/// A running command. It is killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    lines: Receiver<String>,
    output: Option<(Reader, Reader)>,
}

/// What a command left behind.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// All it wrote to standard output.
    pub stdout: Vec<u8>,
    /// All it wrote to standard error.
    pub stderr: String,
}

impl Process {
    /// Starts `program` with `args` in the namespace, with standard input from a file or from nothing.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start<S: AsRef<OsStr>>(netns: &Netns, program: &str, args: &[S], stdin: Option<File>) -> Result<Self> {
        let mut command = Command::new(program);
        command
            .args(args)
            .stdin(stdin.map_or_else(Stdio::null, Stdio::from))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = netns.run(|| command.spawn()).with_context(|| format!("starting {program}"))?;
        let (sender, lines) = channel();
        let stdout = child.stdout.take().context("a pipe was asked for")?;
        let mut stderr = child.stderr.take().context("a pipe was asked for")?;
        let stdout = thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            let mut all = Vec::new();
            let mut from = 0;
            while stdout.read_until(b'\n', &mut all).is_ok_and(|count| count > 0) {
                // Nobody may be waiting for lines.
                let _ = sender.send(String::from_utf8_lossy(&all[from..]).trim_end().to_owned());
                from = all.len();
            }
            all
        });
        let stderr = thread::spawn(move || {
            let mut all = Vec::new();
            let _ = stderr.read_to_end(&mut all);
            all
        });
        Ok(Self { child, lines, output: Some((stdout, stderr)) })
    }

    /// The next line of standard output.
    ///
    /// # Errors
    /// When none comes for so long, or the command ends; with what it said on standard error.
    pub fn line(&mut self, patience: Duration) -> Result<String> {
        match self.lines.recv_timeout(patience) {
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Timeout) => bail!("no line of output for {patience:?}"),
            Err(RecvTimeoutError::Disconnected) => {
                let finished = self.finish(patience)?;
                bail!("it ended ({}): {}", finished.status, finished.stderr)
            }
        }
    }

    /// Asks it to end, as Ctrl-C does.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn interrupt(&self) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), Signal::INT)?)
    }

    /// Asks for its counters (SIGUSR1).
    ///
    /// # Errors
    /// When it is gone already.
    pub fn ask_for_counters(&self) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), Signal::USR1)?)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end in time; then it is killed.
    ///
    /// # Panics
    /// When called again.
    pub fn finish(&mut self, patience: Duration) -> Result<Finished> {
        let deadline = Instant::now() + patience;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break Some(status);
            }
            if Instant::now() > deadline {
                break None;
            }
            thread::sleep(Duration::from_millis(10));
        };
        if status.is_none() {
            self.child.kill()?;
            self.child.wait()?;
        }
        let (stdout, stderr) = self.output.take().expect("waited for once");
        let stdout = stdout.join().expect("a reader");
        let stderr = String::from_utf8_lossy(&stderr.join().expect("a reader")).into_owned();
        match status {
            Some(status) => Ok(Finished { status, stdout, stderr }),
            None => bail!("still running after {patience:?}; it said: {stderr}"),
        }
    }

    /// Processor time it has used.
    ///
    /// # Errors
    /// When it is gone.
    pub fn cpu_time(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let (_, fields) = stat.rsplit_once(')').context("a name in brackets")?;
        let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|word| word.parse::<u64>().ok()).sum();
        Ok(Duration::from_millis(ticks * 10))
    }

    /// Whether it is still there.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Finished {
    /// That it ended with this code.
    ///
    /// # Errors
    /// With what it said instead.
    pub fn code(&self, code: i32) -> Result<()> {
        ensure!(self.status.code() == Some(code), "{} instead of exit code {code}: {}", self.status, self.stderr);
        Ok(())
    }

    /// That its complaint has all these words.
    ///
    /// # Errors
    /// With the complaint.
    pub fn says(&self, words: &[&str]) -> Result<()> {
        for word in words {
            ensure!(self.stderr.contains(word), "no word of {word:?} in: {}", self.stderr);
        }
        Ok(())
    }
}
