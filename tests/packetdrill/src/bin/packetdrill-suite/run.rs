//! One run of the tool, in a network namespace of its own.

use std::fs;
use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::Args;
use crate::scripts::Case;

/// How often a run is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// How a run ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    Passed,
    /// What the tool said.
    Failed(String),
    TimedOut,
}

/// Runs the tool.
#[derive(Debug)]
pub(crate) struct Runner {
    tool: PathBuf,
    library: PathBuf,
    options: Vec<String>,
    tolerance: Vec<String>,
    /// Holds our `nstat`, and the counters of the runs. Removed at the end.
    folder: tempfile::TempDir,
    runs: AtomicU64,
}

impl Runner {
    pub(crate) fn new(args: &Args, library: &Path) -> Result<Self> {
        let folder = tempfile::tempdir().context("a folder for nstat")?;
        std::os::unix::fs::symlink(std::env::current_exe()?, folder.path().join("nstat"))?;
        let tool = args.tool.canonicalize()?;
        let mut tolerance = vec![format!("--tolerance_usecs={}", args.tolerance)];
        if usage(&tool)?.contains("tolerance_percent") {
            tolerance.push(format!("--tolerance_percent={}", args.tolerance_percent));
        }
        let mut options = vec!["--send_omit_free".to_owned()];
        options.extend(args.rest.iter().cloned());
        Ok(Self { tool, library: library.to_owned(), options, tolerance, folder, runs: AtomicU64::new(0) })
    }

    /// Runs one script, at most for `limit`.
    pub(crate) fn run(&self, case: &Case, limit: Duration) -> Outcome {
        self.try_run(case, limit).unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")))
    }

    fn try_run(&self, case: &Case, limit: Duration) -> Result<Outcome> {
        let mut output = tempfile::tempfile_in(self.folder.path())?;
        let mut child = self.command(case, &output)?.spawn().context("starting unshare")?;
        let Some(success) = wait(&mut child, limit)? else { return Ok(Outcome::TimedOut) };
        if success {
            return Ok(Outcome::Passed);
        }
        let mut text = Vec::new();
        output.rewind()?;
        output.read_to_end(&mut text)?;
        Ok(Outcome::Failed(String::from_utf8_lossy(&text).into_owned()))
    }

    /// How exact times have to be, if the script does not say.
    fn tolerance(&self, case: &Case) -> &[String] {
        if case.sets("tolerance_usecs") { &[] } else { &self.tolerance }
    }

    fn command(&self, case: &Case, output: &fs::File) -> Result<Command> {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let mut path = std::ffi::OsString::from(self.folder.path());
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let setup = format!(
            "ip link set lo up && ip tuntap add tun0 mode tun && ip link set tun0 up && {} && \
             exec env LD_PRELOAD=\"$LIBRARY\" \"$@\"",
            case.setup()
        );
        let mut command = Command::new("unshare");
        command
            .args(["--net", "sh", "-c", &setup, "sh"])
            .arg(&self.tool)
            .arg(format!("--so_filename={}", self.library.display()))
            .arg(format!("--so_flags=local_ip={}", case.local_ip()))
            .args(case.options())
            .args(self.tolerance(case))
            .args(&self.options)
            .arg(case.script.file_name().context("a script has a name")?)
            .current_dir(case.script.parent().context("a script is in a folder")?)
            .env("LIBRARY", &self.library)
            .env("OPT_LOCAL_DEV", "tun0")
            .env("ANABRANCH_COUNTERS", self.folder.path().join(format!("counters-{run}")))
            .env("PATH", path)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output.try_clone()?)
            .process_group(0);
        Ok(command)
    }
}

/// What the tool says of its options: not every edition has all.
fn usage(tool: &Path) -> Result<String> {
    let output = Command::new(tool).arg("--help").stdin(Stdio::null()).output().context("starting the tool")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

/// Whether the child succeeded; `None` if it was killed for taking too long.
fn wait(child: &mut Child, limit: Duration) -> Result<Option<bool>> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        if begin.elapsed() > limit {
            // The commands of the script, too: they are in the child's group.
            if let Some(group) = Pid::from_raw(child.id() as i32) {
                let _ = kill_process_group(group, Signal::KILL);
            }
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(LOOK);
    }
}
