//! The measurements in a file of JSON lines: written as they end, read when the program goes on later.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::case::Pairing;
use crate::transfer::Outcome;

/// What happens on a network.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum What {
    /// As much as goes in some seconds.
    Bulk,
    /// So many bytes, again and again.
    Short(usize),
}

/// Which measurement.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) struct Key {
    pub(crate) case: String,
    pub(crate) what: What,
    /// One for each connection at once.
    pub(crate) flows: Vec<Pairing>,
    pub(crate) congestion: String,
    pub(crate) round: usize,
}

/// A measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    #[serde(flatten)]
    pub(crate) key: Key,
    /// Length of a bulk transfer.
    pub(crate) seconds: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) outcome: Option<Outcome>,
    /// Why there is no outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// The file.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: Mutex<File>,
}

impl Log {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.with_context(|| format!("opening {}", path.display()))?;
        Ok(Self { path: path.to_owned(), file: Mutex::new(file) })
    }

    /// Writes one more line.
    pub(crate) fn add(&self, record: &Record) -> Result<()> {
        let line = serde_json::to_string(record)? + "\n";
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(line.as_bytes()).with_context(|| format!("writing to {}", self.path.display()))
    }
}

/// All measurements of a file; none if it is not there. The last line may have been cut short.
pub(crate) fn read(path: &Path) -> Result<Vec<Record>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let mut records = Vec::new();
    for (number, line) in text.lines().enumerate() {
        match serde_json::from_str(line) {
            Ok(record) => records.push(record),
            Err(error) if text.ends_with('\n') => {
                return Err(error).with_context(|| format!("{}, line {}", path.display(), number + 1));
            }
            Err(_) => {}
        }
    }
    Ok(records)
}

/// What need not be measured again.
pub(crate) fn done(records: &[Record]) -> HashSet<Key> {
    records.iter().filter(|record| record.outcome.is_some()).map(|record| record.key.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::Seen;

    fn record(round: usize) -> Record {
        let key = Key {
            case: "10m".into(),
            what: What::Short(10_000),
            flows: vec![Pairing::Sends],
            congestion: "cubic".into(),
            round,
        };
        let seen = Seen {
            offered: 1,
            offered_bytes: 2,
            dropped_queue: 0,
            lost: 0,
            queue_p50: 0.5,
            queue_p95: 1.5,
            late_p99: 4.0,
            missed: 0,
        };
        let outcome = Outcome { flows: Vec::new(), times: vec![1.5, 2.5], seen };
        Record { key, seconds: 3.0, outcome: Some(outcome), error: None }
    }

    #[test]
    fn what_was_written_is_not_measured_again_even_if_the_last_line_was_cut() {
        let file = std::env::temp_dir().join(format!("bad-networks-test-{}.jsonl", std::process::id()));
        let log = Log::open(&file).expect("a file");
        for round in 1..=3 {
            log.add(&record(round)).expect("a line");
        }
        let text = fs::read_to_string(&file).expect("the lines");
        fs::write(&file, &text[..text.len() - 10]).expect("the file again");

        let records = read(&file);
        fs::remove_file(&file).expect("the file");
        let done = done(&records.expect("two lines and a half"));
        assert_eq!(done, HashSet::from([record(1).key, record(2).key]));
    }
}
