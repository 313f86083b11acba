//! The table.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Result;
use serde_json::json;

use crate::bench::{Measure, Peer, Sample};
use crate::peer::Service;

/// All samples.
#[derive(Debug, Default)]
pub(crate) struct Report {
    samples: BTreeMap<Measure, Vec<Sample>>,
}

/// Least, middle and greatest.
#[derive(Clone, Copy, Debug)]
struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let (min, max) = (*values.first()?, *values.last()?);
        let median =
            if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
        Some(Self { min, median, max })
    }
}

impl Report {
    /// One more sample.
    pub(crate) fn add(&mut self, measure: Measure, sample: Sample) {
        self.samples.entry(measure).or_default().push(sample);
    }

    fn spread(&self, measure: Measure, value: fn(&Sample) -> f64) -> Option<Spread> {
        Spread::of(self.samples.get(&measure)?.iter().map(value))
    }

    /// Median rate of anabranch over that of the kernel, for the same kind and direction.
    fn ratio(&self, measure: Measure) -> Option<f64> {
        let median = |peer| self.spread(Measure { peer, ..measure }, |sample| sample.gbps).map(|rate| rate.median);
        Some(median(Peer::Anabranch)? / median(Peer::Kernel)?)
    }

    /// Everything as one JSON object.
    pub(crate) fn json(&self) -> Result<String> {
        let measures: Vec<_> = self
            .samples
            .iter()
            .map(|(measure, samples)| {
                let rate = self.spread(*measure, |sample| sample.gbps);
                json!({
                    "row": measure.row(),
                    "direction": measure.direction(),
                    "gbps": rate.map(|rate| json!({ "min": rate.min, "median": rate.median, "max": rate.max })),
                    "ratio_to_kernel": self.ratio(*measure).filter(|_| measure.peer == Peer::Anabranch),
                    "samples": samples,
                })
            })
            .collect();
        Ok(serde_json::to_string(&json!({ "measures": measures }))?)
    }

    fn cell(&self, f: &mut fmt::Formatter<'_>, measure: Measure) -> fmt::Result {
        match self.spread(measure, |sample| sample.gbps) {
            Some(rate) => write!(f, " │ {:6.2} {:6.2} {:6.2}", rate.min, rate.median, rate.max)?,
            None => write!(f, " │ {:6} {:6} {:6}", "-", "-", "-")?,
        }
        match self.ratio(measure).filter(|_| measure.peer == Peer::Anabranch) {
            Some(ratio) => write!(f, " {ratio:5.2}"),
            None => write!(f, " {:5}", ""),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:17} │ {:^26} │ {:^26} │ cores used: medians", "Gbit/s", "into the server", "out of the server")?;
        let columns = format!("{:>6} {:>6} {:>6} {:>5}", "min", "median", "max", "ratio");
        writeln!(f, "{:17} │ {columns} │ {columns} │ client server others", "")?;
        let mut rows: Vec<Measure> = self.samples.keys().copied().collect();
        rows.dedup_by_key(|measure| measure.row());
        for row in rows {
            write!(f, "{:17}", row.row())?;
            for service in [Service::Discard, Service::Chargen] {
                self.cell(f, Measure { service, ..row })?;
            }
            write!(f, " │")?;
            let cores: [fn(&Sample) -> f64; 3] = [|s| s.client_cores, |s| s.server_cores, |s| s.other_cores];
            for value in cores {
                let both = [Service::Discard, Service::Chargen].map(|service| Measure { service, ..row });
                let samples = both.iter().filter_map(|measure| self.samples.get(measure)).flatten();
                let median = Spread::of(samples.map(value)).map_or(0.0, |cores| cores.median);
                write!(f, " {median:6.2}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
