//! The tables, and the same as JSON.

use std::fmt::Write as _;

use anabranch_benches::Machine;
use anyhow::Result;
use serde_json::{Value, json};

use crate::case::Pairing;
use crate::figures::{Bulk, Figures, LEAST, RESENT_MOST, RTT_MOST};
use crate::record::What;
use crate::run::Subject;
use crate::statistics::{Ratio, geometric_mean};

/// What is reported.
pub(crate) struct Report<'a> {
    pub(crate) machine: Machine,
    /// Points of the grid.
    pub(crate) grid: &'a [Subject],
    pub(crate) singles: &'a [Subject],
    pub(crate) short: &'a [Subject],
    pub(crate) fair: &'a [Subject],
    pub(crate) figures: Figures<'a>,
    pub(crate) congestion: &'a str,
}

impl Report<'_> {
    /// Everything that was measured, in Markdown.
    pub(crate) fn markdown(&self) -> String {
        let Machine { model, cores, kernel, is_virtual } = &self.machine;
        let virtual_ = if *is_virtual { "virtual, " } else { "" };
        let (disturbed, all) = self.figures.disturbed();
        let mut text = format!(
            "{model}, {virtual_}{cores} cores, Linux {kernel}; {}. {all} measurements, in {disturbed} of them the emulator was late.\n",
            self.congestion
        );
        let head = "Mbit/s | RTT, ms | loss | held back | queue, BDP";
        text += &self.bulk_table("Grid", head, self.grid);
        text += &self.bulk_table("Single cases", "50 Mbit/s, 40 ms, 1 BDP", self.singles);
        text += &self.short_table();
        text += &self.fair_table();
        text
    }

    /// Ours beside the kernel's on a network.
    fn bulk(&self, subject: &Subject, pairing: Pairing) -> Option<Bulk> {
        self.figures.bulk(&subject.case, pairing)
    }

    fn bulk_table(&self, title: &str, head: &str, subjects: &[Subject]) -> String {
        let measured: Vec<&Subject> = subjects
            .iter()
            .filter(|subject| Pairing::OURS.iter().any(|&ours| self.bulk(subject, ours).is_some()))
            .collect();
        if measured.is_empty() {
            return String::new();
        }
        let mut text = format!("\n### {title}: {} of {}\n\n", measured.len(), subjects.len());
        for pairing in Pairing::OURS {
            text += &self.summary(&measured, pairing);
        }
        let columns = "kernel, Mbit/s | sends | again | RTT p95 | receives | again | RTT p95 | rounds";
        let rules = "---|".repeat(head.split('|').count() + columns.split('|').count());
        let _ = writeln!(text, "\n| {head} | {columns} |\n|{rules}");
        for subject in measured {
            let both = Pairing::OURS.map(|pairing| self.bulk(subject, pairing));
            let kernel = both.iter().flatten().find_map(|bulk| bulk.rates[1]);
            let cells = both.each_ref().map(|bulk| bulk.as_ref().map_or_else(|| "– | – | –".into(), cells));
            let rounds = both.iter().flatten().map(|bulk| bulk.rounds).min().unwrap_or(0);
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {rounds} |",
                subject.case.about,
                number(kernel.unwrap_or(0.0)),
                cells[0],
                cells[1],
            );
        }
        text
    }

    fn summary(&self, subjects: &[&Subject], pairing: Pairing) -> String {
        let bulks: Vec<(&str, Bulk)> = subjects
            .iter()
            .filter_map(|subject| Some((subject.case.name.as_str(), self.bulk(subject, pairing)?)))
            .collect();
        let ratios: Vec<f64> = bulks.iter().filter_map(|(_, bulk)| Some(bulk.goodput?.value)).collect();
        let names = |of: &dyn Fn(&Bulk) -> bool| {
            let names: Vec<&str> = bulks.iter().filter(|(_, bulk)| of(bulk)).map(|&(name, _)| name).collect();
            if names.is_empty() { "none".into() } else { format!("{}: {}", names.len(), names.join(", ")) }
        };
        let again: Vec<f64> = bulks
            .iter()
            .filter(|(_, bulk)| bulk.resent[1] > 0.0)
            .map(|(_, bulk)| bulk.resent[0] / bulk.resent[1])
            .collect();
        let delays: Vec<f64> = bulks.iter().filter_map(|(_, bulk)| bulk.rtt).collect();
        let broken: usize = bulks.iter().map(|(_, bulk)| bulk.failed).sum();
        format!(
            "* **{pairing}**: goodput {} of the kernel's (geometric mean of {} networks), below {LEAST} at {}. Surely below it: {}. Sent again: {} times as \
             much; more than {RESENT_MOST} times: {}. RTT p95: {} times; more than {RTT_MOST}: {}. Broken transfers: {broken}.\n",
            geometric_mean(&ratios).map_or("–".into(), |mean| format!("{mean:.3}")),
            ratios.len(),
            ratios.iter().filter(|&&ratio| ratio < LEAST).count(),
            names(&Bulk::fails),
            geometric_mean(&again).map_or("–".into(), |mean| format!("{mean:.2}")),
            names(&Bulk::resends),
            geometric_mean(&delays).map_or("–".into(), |mean| format!("{mean:.3}")),
            names(&Bulk::queues),
        )
    }

    fn short_table(&self) -> String {
        let mut rows = String::new();
        for subject in self.short {
            let What::Short(bytes) = subject.what else { continue };
            let Some(kernel) = self.figures.short(&subject.case, bytes, Pairing::Kernel) else { continue };
            let _ =
                write!(rows, "| {} | {} | {:.1} / {:.1}", subject.case.about, bytes / 1000, kernel.median, kernel.p99);
            for pairing in Pairing::OURS {
                let part =
                    |part| self.figures.short_ratio(&subject.case, bytes, pairing, part).map_or("–".into(), spread);
                let _ = write!(rows, " | {} | {}", part(0.5), part(0.99));
            }
            let _ = writeln!(rows, " | {} |", kernel.count);
        }
        if rows.is_empty() {
            return rows;
        }
        format!(
            "\n### Short transfers: time from SYN to the end of the stream, over the kernel's\n\n\
             | Mbit/s | RTT, ms | loss | held back | queue, BDP | kB | kernel median / p99, ms | sends, median | p99 | receives, median | p99 | count |\n\
             |{}\n{rows}",
            "---|".repeat(12)
        )
    }

    fn fair_table(&self) -> String {
        let mut rows = String::new();
        for subject in self.fair {
            for flows in &subject.lines {
                let Some((index, shares)) = self.figures.fairness(&subject.case, flows) else { continue };
                let who: Vec<String> = flows.iter().map(ToString::to_string).collect();
                let shares: Vec<String> = shares.iter().map(|share| format!("{:.0} %", share * 100.0)).collect();
                let rounds = self.figures.rounds(subject, flows);
                let _ = writeln!(
                    rows,
                    "| {} | {} | {} | {index:.3} | {rounds} |",
                    subject.case.about,
                    who.join(" + "),
                    shares.join(", ")
                );
            }
        }
        if rows.is_empty() {
            return rows;
        }
        format!(
            "\n### Two connections over one bottleneck\n\n\
             | Mbit/s | RTT, ms | loss | held back | queue, BDP | connections | shares | Jain's index | rounds |\n|{}\n{rows}",
            "---|".repeat(9)
        )
    }

    /// The same for programs.
    pub(crate) fn json(&self) -> Result<String> {
        let bulk = |subject: &Subject| {
            let mut value =
                json!({ "case": subject.case.name, "link": subject.case.link, "seconds": subject.case.seconds });
            for pairing in Pairing::OURS {
                value[format!("{pairing:?}").to_lowercase()] = json!(self.bulk(subject, pairing));
            }
            value
        };
        let short = |subject: &Subject| {
            let What::Short(bytes) = subject.what else { return Value::Null };
            let times = Pairing::ALL.map(|pairing| self.figures.short(&subject.case, bytes, pairing));
            json!({ "case": subject.case.name, "bytes": bytes, "kernel": times[0], "sends": times[1], "receives": times[2] })
        };
        let fair = |subject: &Subject| -> Vec<Value> {
            let line = |flows: &Vec<Pairing>| {
                let (index, shares) = self.figures.fairness(&subject.case, flows)?;
                Some(json!({ "case": subject.case.name, "flows": flows, "jain": index, "shares": shares }))
            };
            subject.lines.iter().filter_map(line).collect()
        };
        Ok(serde_json::to_string_pretty(&json!({
            "machine": self.machine,
            "congestion": self.congestion,
            "grid": self.grid.iter().map(bulk).collect::<Vec<_>>(),
            "singles": self.singles.iter().map(bulk).collect::<Vec<_>>(),
            "short": self.short.iter().map(short).collect::<Vec<_>>(),
            "fairness": self.fair.iter().flat_map(fair).collect::<Vec<_>>(),
        }))?)
    }
}

/// Goodput, retransmissions and delay of one direction.
fn cells(bulk: &Bulk) -> String {
    let mark = if bulk.fails() { "**" } else { "" };
    let goodput = bulk.goodput.map_or("–".into(), |ratio| format!("{mark}{}{mark}", spread(ratio)));
    let [ours, theirs] = bulk.resent.map(|part| part * 100.0);
    let delay = bulk.rtt.map_or("–".into(), |ratio| format!("{ratio:.2}"));
    format!("{goodput} | {ours:.2} / {theirs:.2} % | {delay}")
}

fn spread(ratio: Ratio) -> String {
    format!("{:.2} ({:.2}–{:.2})", ratio.value, ratio.low, ratio.high)
}

fn number(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}
