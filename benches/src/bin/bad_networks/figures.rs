//! From measurements to figures.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::case::{Case, Pairing};
use crate::record::{Record, What};
use crate::run::{Subject, disturbed};
use crate::statistics::{Ratio, jain, median, paired_ratio, quantile, ratio};

/// A point is worse than the kernel if the whole interval of its ratio lies below this.
pub(crate) const LEAST: f64 = 0.9;
/// At most so many times the kernel's retransmissions, in bytes.
pub(crate) const RESENT_MOST: f64 = 1.2;
/// That many bytes of them are no difference: a few segments more or less.
const RESENT_SLACK: f64 = 30_000.0;
/// So much more time in the queue is none: what the clocks make of nothing.
pub(crate) const RTT_MOST: f64 = 1.05;

/// A bulk transfer of ours beside the kernel's on the same network.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Bulk {
    /// Of the goodputs.
    pub(crate) goodput: Option<Ratio>,
    /// Medians in Mbit/s: ours, the kernel's.
    pub(crate) rates: [Option<f64>; 2],
    /// Parts of the bytes sent that were sent again: ours, the kernel's.
    pub(crate) resent: [f64; 2],
    /// Bytes sent again in all rounds, ours as if we had sent as much as the kernel.
    resent_bytes: [f64; 2],
    /// 95 of 100 packets had a round-trip time up to this: ours over the kernel's.
    pub(crate) rtt: Option<f64>,
    pub(crate) rounds: usize,
    pub(crate) failed: usize,
}

impl Bulk {
    pub(crate) fn fails(&self) -> bool {
        self.goodput.is_some_and(|ratio| ratio.high < LEAST)
    }

    pub(crate) fn resends(&self) -> bool {
        let [ours, theirs] = self.resent_bytes;
        ours > theirs * RESENT_MOST + RESENT_SLACK
    }

    pub(crate) fn queues(&self) -> bool {
        self.rtt.is_some_and(|ratio| ratio > RTT_MOST)
    }
}

/// Short transfers of one size: median and 99th percentile, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Short {
    pub(crate) median: f64,
    pub(crate) p99: f64,
    pub(crate) count: usize,
}

/// All measurements, by what they are of.
pub(crate) struct Figures<'a> {
    lines: BTreeMap<(String, What, Vec<Pairing>), Vec<&'a Record>>,
}

impl<'a> Figures<'a> {
    pub(crate) fn new(records: &'a [Record], congestion: &str) -> Self {
        let mut lines: BTreeMap<_, Vec<&Record>> = BTreeMap::new();
        for record in records.iter().filter(|record| record.key.congestion == congestion) {
            let key = &record.key;
            let line = lines.entry((key.case.clone(), key.what, key.flows.clone())).or_default();
            // One that failed and was made again later is replaced.
            match line.iter_mut().find(|other| other.key.round == key.round) {
                Some(other) if record.outcome.is_some() => *other = record,
                Some(_) => {}
                None => line.push(record),
            }
        }
        Self { lines }
    }

    fn of(&self, case: &Case, what: What, flows: &[Pairing]) -> &[&'a Record] {
        self.lines.get(&(case.name.clone(), what, flows.to_vec())).map_or(&[], Vec::as_slice)
    }

    /// Measurements that the emulator disturbed, and all.
    pub(crate) fn disturbed(&self) -> (usize, usize) {
        let all = || self.lines.values().flatten().filter_map(|record| record.outcome.as_ref());
        (all().filter(|outcome| disturbed(outcome)).count(), all().count())
    }

    /// Ours beside the kernel's, if both were measured.
    pub(crate) fn bulk(&self, case: &Case, pairing: Pairing) -> Option<Bulk> {
        let lines = [pairing, Pairing::Kernel].map(|pairing| self.of(case, What::Bulk, &[pairing]));
        if lines.iter().any(|line| line.is_empty()) {
            return None;
        }
        let theirs = |round| lines[1].iter().find(|record| record.key.round == round);
        let rounds = lines[0].iter().filter_map(|ours| Some([goodput(ours), goodput(theirs(ours.key.round)?)]));
        let rounds: Vec<[f64; 2]> = rounds.collect();
        let rates = lines.map(|line| median(&line.iter().map(|record| goodput(record)).collect::<Vec<f64>>()));
        let sent = lines.map(|line| flows(line).map(|flow| flow.0).sum::<f64>());
        let again = lines.map(|line| flows(line).map(|flow| flow.1).sum::<f64>());
        let rtts = lines.map(|line| {
            let of = |record: &&Record| Some(f64::from(case.rtt) + record.outcome.as_ref()?.seen.queue_p95);
            median(&line.iter().filter_map(of).collect::<Vec<f64>>())
        });
        let part = |at: usize| if sent[at] > 0.0 { again[at] / sent[at] } else { 0.0 };
        Some(Bulk {
            goodput: paired_ratio(&rounds),
            resent: [part(0), part(1)],
            resent_bytes: [part(0) * sent[1], again[1]],
            rtt: rtts[0].zip(rtts[1]).map(|(ours, theirs)| ours / theirs),
            rounds: rounds.len(),
            failed: lines[0].iter().filter(|record| record.outcome.is_none()).count(),
            rates,
        })
    }

    /// Completion times.
    pub(crate) fn short(&self, case: &Case, bytes: usize, pairing: Pairing) -> Option<Short> {
        let times = self.times(case, bytes, pairing);
        Some(Short { median: median(&times)?, p99: quantile(&times, 0.99)?, count: times.len() })
    }

    /// Their ratio to the kernel's at a quantile.
    pub(crate) fn short_ratio(&self, case: &Case, bytes: usize, pairing: Pairing, part: f64) -> Option<Ratio> {
        ratio(&self.times(case, bytes, pairing), &self.times(case, bytes, Pairing::Kernel), part)
    }

    fn times(&self, case: &Case, bytes: usize, pairing: Pairing) -> Vec<f64> {
        let line = self.of(case, What::Short(bytes), &[pairing]);
        line.iter().filter_map(|record| record.outcome.as_ref()).flat_map(|outcome| outcome.times.clone()).collect()
    }

    /// Jain's index of some connections over one bottleneck, its median over the rounds, and the median of their
    /// shares. The first third of each run does not count.
    pub(crate) fn fairness(&self, case: &Case, flows: &[Pairing]) -> Option<(f64, Vec<f64>)> {
        let mut indices = Vec::new();
        let mut shares: Vec<Vec<f64>> = vec![Vec::new(); flows.len()];
        for record in self.of(case, What::Bulk, flows) {
            let Some(outcome) = &record.outcome else { continue };
            let bytes: Vec<f64> = outcome
                .flows
                .iter()
                .map(|flow| flow.slots.iter().skip(record_third(record)).sum::<u64>() as f64)
                .collect();
            let sum: f64 = bytes.iter().sum();
            indices.push(jain(&bytes));
            bytes.iter().zip(&mut shares).for_each(|(bytes, shares)| shares.push(bytes / sum));
        }
        Some((median(&indices)?, shares.iter().filter_map(|shares| median(shares)).collect()))
    }

    /// Of how many rounds.
    pub(crate) fn rounds(&self, subject: &Subject, flows: &[Pairing]) -> usize {
        self.of(&subject.case, subject.what, flows).iter().filter(|record| record.outcome.is_some()).count()
    }
}

/// Slots of the first third of a run.
fn record_third(record: &Record) -> usize {
    (record.seconds / 3.0 * 2.0) as usize
}

/// Goodput in Mbit/s. A transfer that broke had none.
fn goodput(record: &Record) -> f64 {
    let flow = record.outcome.as_ref().and_then(|outcome| outcome.flows.first());
    flow.map_or(0.0, |flow| flow.bytes as f64 * 8e-6 / record.seconds)
}

/// Bytes sent and sent again.
fn flows<'a>(line: &'a [&Record]) -> impl Iterator<Item = (f64, f64)> + 'a {
    line.iter()
        .filter_map(|record| record.outcome.as_ref()?.flows.first())
        .map(|flow| (flow.sent as f64, flow.resent as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{Loss, Point};
    use crate::record::Key;
    use crate::site::Seen;
    use crate::transfer::{Flow, Outcome};

    fn record(flows: &[(Pairing, u64)], round: usize) -> Record {
        let key = Key {
            case: case().name,
            what: What::Bulk,
            flows: flows.iter().map(|&(pairing, _)| pairing).collect(),
            congestion: "cubic".into(),
            round,
        };
        let seen = Seen {
            offered: 0,
            offered_bytes: 0,
            dropped_queue: 0,
            lost: 0,
            queue_p50: 0.0,
            queue_p95: 10.0,
            late_p99: 0.0,
            missed: 0,
        };
        let flow =
            |&(_, bytes): &(Pairing, u64)| Flow { bytes, sent: bytes, resent: bytes / 10, slots: vec![bytes / 6; 6] };
        let outcome = Outcome { flows: flows.iter().map(flow).collect(), times: Vec::new(), seen };
        Record { key, seconds: 3.0, outcome: Some(outcome), error: None }
    }

    fn case() -> Case {
        Point { rate: 10, rtt: 20, loss: Loss::None, reorder: 0, queue: 1.0 }.into()
    }

    #[test]
    fn a_point_fails_when_it_is_surely_below_nine_tenths() {
        let both = |ours: u64| -> Vec<Record> {
            let of = |round: usize| {
                let noise = round as u64 * 10_000;
                [
                    record(&[(Pairing::Sends, ours + noise)], round),
                    // In the other direction: rounds are drawn as pairs, and what both share cancels out.
                    record(&[(Pairing::Kernel, 1_060_000 - noise)], round),
                ]
            };
            (1..=5).flat_map(of).collect()
        };
        for (ours, fails) in [(500_000, true), (880_000, false), (1_000_000, false)] {
            let records = both(ours);
            let bulk = Figures::new(&records, "cubic").bulk(&case(), Pairing::Sends).expect("both were measured");
            assert_eq!(bulk.fails(), fails, "{bulk:?}");
            assert!((bulk.rtt.expect("a time") - 1.0).abs() < 1e-9);
            assert!(!bulk.resends(), "the same part of the bytes: {bulk:?}");
        }
    }

    #[test]
    fn fairness_is_that_of_the_shares_after_the_first_third() {
        let flows = [Pairing::Sends, Pairing::Kernel];
        let records = [record(&[(Pairing::Sends, 3_000_000), (Pairing::Kernel, 1_000_000)], 1)];
        let (index, shares) = Figures::new(&records, "cubic").fairness(&case(), &flows).expect("one run");
        assert!((index - 0.8).abs() < 1e-6, "{index}");
        assert!((shares[0] - 0.75).abs() < 1e-6, "{shares:?}");
    }
}
