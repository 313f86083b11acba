//! What is measured in which order, several slow networks at once, with progress.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::case::{Case, Pairing};
use crate::record::{Key, Log, Record, What};
use crate::site::How;
use crate::transfer::{self, Outcome};

/// An emulator that was later than this measured something else, in microseconds.
const LATE: f64 = 1500.0;
/// Building and leaving a site, in seconds, to tell the time left.
const SITE: f64 = 0.8;
/// Short transfers of one size in one measurement, and how long all of them may take.
pub(crate) const SHORT_COUNT: usize = 25;
const SHORT_TIME: Duration = Duration::from_secs(40);

/// A network and what to do on it. All `lines` of one subject are compared, so they are measured one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) case: Case,
    pub(crate) what: What,
    pub(crate) lines: Vec<Vec<Pairing>>,
}

/// How everything is measured.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) rounds: usize,
    pub(crate) congestion: String,
    /// Length of all bulk transfers, instead of their own.
    pub(crate) seconds: Option<f64>,
    /// Slow networks at once.
    pub(crate) parallel: usize,
    /// How often a disturbed measurement is made again.
    pub(crate) again: usize,
    /// Nothing is begun after this.
    pub(crate) until: Option<Instant>,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<40} {:>4} s  {}", self.name(), self.case.seconds, self.case.link.join(" "))
    }
}

impl Subject {
    fn name(&self) -> String {
        match self.what {
            What::Bulk => format!("bulk {}", self.case.name),
            What::Short(bytes) => format!("short {} {}", bytes / 1000, self.case.name),
        }
    }

    /// Whether a word of the command line means it.
    pub(crate) fn is_meant(&self, word: &str) -> bool {
        self.name().contains(word)
    }

    fn seconds(&self, settings: &Settings) -> f64 {
        match self.what {
            What::Bulk => settings.seconds.unwrap_or(self.case.seconds),
            // A guess, for the time left: some round trips each, and the bytes.
            What::Short(bytes) => {
                let one = f64::from(self.case.rtt) / 1e3 * 6.0 + bytes as f64 * 8e-6 / f64::from(self.case.rate);
                (one * SHORT_COUNT as f64).min(SHORT_TIME.as_secs_f64())
            }
        }
    }

    fn measure(&self, line: &[Pairing], round: usize, settings: &Settings) -> Result<Outcome> {
        // The same packets are lost to all lines of a round, as far as they send the same.
        let how = How { congestion: &settings.congestion, seed: round as u64 };
        match self.what {
            What::Bulk => {
                let time = Duration::from_secs_f64(self.seconds(settings));
                transfer::bulk(&self.case, line, how, time)
            }
            What::Short(bytes) => {
                let pairing = *line.first().context("a line without a connection")?;
                transfer::short(&self.case, pairing, how, bytes, SHORT_COUNT, SHORT_TIME)
            }
        }
    }
}

/// A round of a subject: what of it is left to do.
struct Unit<'a> {
    subject: &'a Subject,
    keys: Vec<Key>,
}

/// Measures what was not measured yet.
pub(crate) fn run(
    subjects: &[Subject],
    settings: &Settings,
    done: &HashSet<Key>,
    log: &Log,
    stop: &AtomicBool,
) -> Result<()> {
    let units = units(subjects, settings, done);
    let (fast, slow): (VecDeque<_>, VecDeque<_>) = units.into_iter().partition(|unit| unit.subject.case.alone);
    let progress = Progress::new(settings, &[(&slow, settings.parallel), (&fast, 1)]);
    for (units, workers) in [(slow, settings.parallel), (fast, 1)] {
        let queue = Mutex::new(units);
        let results: Vec<Result<()>> = thread::scope(|scope| {
            let work = || work(&queue, settings, log, stop, &progress);
            let threads: Vec<_> = (0..workers.max(1)).map(|_| scope.spawn(work)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic in a measurement")).collect()
        });
        results.into_iter().collect::<Result<()>>()?;
    }
    Ok(())
}

/// All units in the order of the rounds. Who comes first within one changes from round to round.
fn units<'a>(subjects: &'a [Subject], settings: &Settings, done: &HashSet<Key>) -> Vec<Unit<'a>> {
    let mut units = Vec::new();
    for round in 1..=settings.rounds {
        for subject in subjects {
            let key = |flows: &Vec<Pairing>| Key {
                case: subject.case.name.clone(),
                what: subject.what,
                flows: flows.clone(),
                congestion: settings.congestion.clone(),
                round,
            };
            let mut keys: Vec<Key> = subject.lines.iter().map(key).collect();
            let first = round % keys.len().max(1);
            keys.rotate_left(first);
            keys.retain(|key| !done.contains(key));
            if !keys.is_empty() {
                units.push(Unit { subject, keys });
            }
        }
    }
    units
}

fn work(
    queue: &Mutex<VecDeque<Unit<'_>>>,
    settings: &Settings,
    log: &Log,
    stop: &AtomicBool,
    progress: &Progress,
) -> Result<()> {
    loop {
        let unit = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(unit) = unit else { return Ok(()) };
        for key in &unit.keys {
            let late = settings.until.is_some_and(|until| Instant::now() >= until);
            if late || stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let record = one(unit.subject, key, settings);
            log.add(&record)?;
            progress.tell(unit.subject, &record);
        }
    }
}

/// One measurement, made again if the emulator could not keep up or something broke.
fn one(subject: &Subject, key: &Key, settings: &Settings) -> Record {
    let mut last = None;
    for _ in 0..=settings.again {
        match subject.measure(&key.flows, key.round, settings) {
            Ok(outcome) if outcome.seen.late_p99 <= LATE && outcome.seen.missed == 0 => {
                last = Some(Ok(outcome));
                break;
            }
            // What was disturbed may be better than nothing; the report says how many there are.
            Ok(outcome) => last = Some(Ok(outcome)),
            Err(error) => last = last.filter(Result::is_ok).or(Some(Err(error))),
        }
    }
    let (outcome, error) = match last {
        Some(Ok(outcome)) => (Some(outcome), None),
        Some(Err(error)) => (None, Some(format!("{error:#}"))),
        None => (None, Some("not measured".into())),
    };
    Record { key: key.clone(), seconds: subject.seconds(settings), outcome, error }
}

/// Whether the emulator could not keep up.
pub(crate) fn disturbed(outcome: &Outcome) -> bool {
    outcome.seen.late_p99 > LATE || outcome.seen.missed > 0
}

/// How far it has come.
struct Progress {
    start: Instant,
    total: f64,
    count: usize,
    state: Mutex<(usize, f64)>,
    settings: Settings,
}

impl Progress {
    fn new(settings: &Settings, queues: &[(&VecDeque<Unit<'_>>, usize)]) -> Self {
        let time = |(units, workers): &(&VecDeque<Unit<'_>>, usize)| {
            units.iter().map(|unit| Self::cost(unit.subject, settings, *workers) * unit.keys.len() as f64).sum::<f64>()
        };
        let count = queues.iter().flat_map(|(units, _)| units.iter()).map(|unit| unit.keys.len()).sum();
        Self {
            start: Instant::now(),
            total: queues.iter().map(time).sum(),
            count,
            state: Mutex::new((0, 0.0)),
            settings: settings.clone(),
        }
    }

    fn cost(subject: &Subject, settings: &Settings, workers: usize) -> f64 {
        (subject.seconds(settings) + SITE) / workers.max(1) as f64
    }

    fn tell(&self, subject: &Subject, record: &Record) {
        let workers = if subject.case.alone { 1 } else { self.settings.parallel };
        let (number, spent) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.0 += 1;
            state.1 += Self::cost(subject, &self.settings, workers);
            *state
        };
        // What was expected of the rest, as much longer or shorter as what is done has taken.
        let left = self.start.elapsed().as_secs_f64() / spent * (self.total - spent).max(0.0);
        let flows: Vec<String> = record.key.flows.iter().map(ToString::to_string).collect();
        let came = match (&record.outcome, &record.error) {
            (Some(outcome), _) => brief(outcome, record.seconds),
            (None, Some(error)) => format!("FAILED: {error}"),
            (None, None) => "nothing".into(),
        };
        eprintln!(
            "[{number}/{}, {:.0} min left] round {}: {}, {}: {came}",
            self.count,
            left / 60.0,
            record.key.round,
            subject.name(),
            flows.join(" + "),
        );
    }
}

fn brief(outcome: &Outcome, seconds: f64) -> String {
    let mut words: Vec<String> = outcome
        .flows
        .iter()
        .map(|flow| {
            let (rate, again) = (flow.bytes as f64 * 8e-6 / seconds, flow.resent as f64 / flow.sent.max(1) as f64);
            format!("{rate:.2} Mbit/s, {:.2} % again", again * 100.0)
        })
        .collect();
    if let Some(median) = crate::statistics::quantile(&outcome.times, 0.5) {
        words.push(format!("{} times, median {median:.1} ms", outcome.times.len()));
    }
    words.push(format!("queue p95 {:.1} ms", outcome.seen.queue_p95));
    if disturbed(outcome) {
        words.push(format!("DISTURBED: {:.0} us late, {} missed", outcome.seen.late_p99, outcome.seen.missed));
    }
    words.join("; ")
}
