//! A capture of a namespace, by tcpdump.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::Netns;
use crate::command::missing;

/// tcpdump at work; ends when dropped.
#[derive(Debug)]
pub struct Capture {
    child: Child,
    stderr: BufReader<ChildStderr>,
    dir: TempDir,
}

impl Capture {
    /// Captures the first `bytes` bytes of every TCP packet on all devices of the namespace.
    ///
    /// # Errors
    /// When tcpdump is missing or does not start.
    pub fn start(netns: &Netns, bytes: usize) -> Result<Self> {
        let dir = TempDir::with_prefix("anabranch-capture-")?;
        // Without immediate mode up to a second of packets is lost at the end.
        let mut command = Command::new("tcpdump");
        command
            .args(["-i", "any", "-n", "-Z", "root", "--immediate-mode", "-B", "65536", "-s", &bytes.to_string(), "-w"])
            .arg(file(dir.path()))
            .arg("tcp or ip6 proto 6")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = netns.run(|| command.spawn()).map_err(|error| missing("tcpdump", error))?;
        let mut stderr = BufReader::new(child.stderr.take().expect("a pipe was asked for"));
        let mut said = String::new();
        while !said.contains("listening on") {
            if stderr.read_line(&mut said)? == 0 {
                bail!("tcpdump did not start: {said}");
            }
        }
        Ok(Self { child, stderr, dir })
    }

    /// Ends the capture and gives its file; it is gone with the returned handle.
    ///
    /// # Errors
    /// When packets were lost, or tcpdump failed.
    pub fn stop(mut self) -> Result<Captured> {
        thread::sleep(Duration::from_millis(100));
        self.interrupt().context("stopping tcpdump")?;
        let mut said = String::new();
        self.stderr.read_to_string(&mut said)?;
        self.child.wait()?;
        let complete = said.lines().any(|line| line.starts_with("0 packets dropped by kernel"));
        ensure!(complete, "the capture is not complete: {said}");
        let dir = std::mem::replace(&mut self.dir, TempDir::new()?);
        Ok(Captured { dir })
    }

    fn interrupt(&self) -> Result<()> {
        let pid = Pid::from_child(&self.child);
        Ok(kill_process(pid, Signal::INT)?)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A finished capture.
#[derive(Debug)]
pub struct Captured {
    dir: TempDir,
}

impl Captured {
    /// The file, in pcap format.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        file(self.dir.path())
    }

    /// Keeps a copy for a person, if [`keep_captures`].
    ///
    /// # Panics
    /// If the directory cannot be written to.
    pub fn keep(&self, name: &str) {
        if let Some(to) = std::env::var_os(KEEP) {
            let to = Path::new(&to).join(format!("{name}.pcap"));
            std::fs::copy(self.path(), &to).unwrap_or_else(|error| panic!("writing {}: {error}", to.display()));
        }
    }
}

/// Names a directory for captures that a person wants to look at.
const KEEP: &str = "ANABRANCH_KEEP_CAPTURES";

/// Whether `ANABRANCH_KEEP_CAPTURES` names a directory.
#[must_use]
pub fn keep_captures() -> bool {
    std::env::var_os(KEEP).is_some()
}

fn file(dir: &Path) -> PathBuf {
    dir.join("capture.pcap")
}
