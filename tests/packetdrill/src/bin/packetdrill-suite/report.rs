//! What came of the runs, for people and for programs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::known::Known;
use crate::run::Outcome;
use crate::scripts::Case;

/// What the tool says of a machine that does not let a namespace choose everything; no failure.
const NOISE: &[&str] = &["sysctl: ", "Error: Specified qdisc", "nstat: "];

/// Collects the results.
#[derive(Debug)]
pub(crate) struct Report {
    total: usize,
    known: Known,
    json: Option<File>,
    verbose: bool,
    folders: BTreeMap<(String, &'static str), Tally>,
    done: usize,
    unexpected: usize,
}

#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    passed: usize,
    known: usize,
    failed: usize,
    timed_out: usize,
}

/// A line of the machine-readable output.
#[derive(Serialize)]
struct Line<'a> {
    script: &'a str,
    folder: &'a str,
    variant: &'a str,
    result: &'a str,
    known: Option<&'a str>,
    message: Option<&'a str>,
}

impl Report {
    pub(crate) fn new(total: usize, known: Known, json: Option<&Path>, verbose: bool) -> Result<Self> {
        let json = json.map(|path| File::create(path).with_context(|| format!("{}", path.display()))).transpose()?;
        Ok(Self { total, known, json, verbose, folders: BTreeMap::new(), done: 0, unexpected: 0 })
    }

    pub(crate) fn add(&mut self, case: &Case, outcome: Outcome) {
        self.done += 1;
        let reason = self.known.reason(case);
        let tally = self.folders.entry((case.folder.clone(), case.variant.name())).or_default();
        let (result, message) = match outcome {
            Outcome::Passed => {
                tally.passed += 1;
                ("passed", None)
            }
            Outcome::Failed(text) => {
                if reason.is_some() {
                    tally.known += 1;
                } else {
                    tally.failed += 1;
                }
                ("failed", Some(essence(&text)))
            }
            Outcome::TimedOut => {
                tally.timed_out += 1;
                ("timed out", None)
            }
        };
        // One that is listed and passes is to be taken off the list: nobody would notice when it fails again.
        let expected = (result == "passed") == reason.is_none();
        self.unexpected += usize::from(!expected);
        let name = case.script.file_stem().unwrap_or_default().to_string_lossy();
        let script = format!("{}/{name}", case.folder);
        if !expected {
            let note = if result == "passed" { " although it is listed as different" } else { "" };
            println!("[{}/{}] {result}{note}: {script} ({})", self.done, self.total, case.variant.name());
            for line in message.iter().flat_map(|text| text.lines()).take(if self.verbose { 40 } else { 3 }) {
                println!("    {line}");
            }
        }
        let message = message.as_deref();
        let line = Line {
            script: &script,
            folder: &case.folder,
            variant: case.variant.name(),
            result,
            known: reason,
            message,
        };
        if let (Some(file), Ok(line)) = (&mut self.json, serde_json::to_string(&line)) {
            // What cannot be written is missed by whoever reads it; the summary still comes.
            let _ = writeln!(file, "{line}");
        }
    }

    /// Prints the summary. Whether everything was as expected.
    pub(crate) fn finish(self) -> Result<bool> {
        println!(
            "{:<44} {:<17} {:>6} {:>6} {:>6} {:>9}",
            "folder", "addresses", "passed", "known", "failed", "timed out"
        );
        let mut all: BTreeMap<&str, Tally> = BTreeMap::new();
        for ((folder, variant), tally) in &self.folders {
            print_row(folder, variant, *tally);
            let sum = all.entry(variant).or_default();
            sum.passed += tally.passed;
            sum.known += tally.known;
            sum.failed += tally.failed;
            sum.timed_out += tally.timed_out;
        }
        for (variant, sum) in &all {
            print_row("all", variant, *sum);
        }
        Ok(self.unexpected == 0)
    }
}

fn print_row(folder: &str, variant: &str, tally: Tally) {
    let Tally { passed, known, failed, timed_out } = tally;
    println!("{folder:<44} {variant:<17} {passed:>6} {known:>6} {failed:>6} {timed_out:>9}");
}

/// What the tool said, without what it always says.
fn essence(text: &str) -> String {
    let lines = text.lines().filter(|line| !NOISE.iter().any(|noise| line.starts_with(noise)) && !line.is_empty());
    lines.collect::<Vec<_>>().join("\n")
}
