//! What the demonstration says before and after the live part.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use super::scenario::{BYTES, CUT, LINKS, Outcome, Scenario};
use crate::format::{Bytes, Rate, Time};
use crate::output::Output;

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Event<'a> {
    Start { seed: u64, bytes: u64, scheduler: &'a str, congestion: &'a str, links: [LinkAt; 2], cut: [f64; 2] },
    Summary(Box<Summary<'a>>),
}

#[derive(Serialize)]
struct LinkAt {
    name: &'static str,
    bits_per_second: u64,
    delay_ms: u64,
}

#[derive(Serialize)]
struct Summary<'a> {
    wifi_alone_bits_per_second: f64,
    lte_alone_bits_per_second: f64,
    both_bits_per_second: f64,
    /// Of the transfer that was shown, with the cut in it.
    bits_per_second: f64,
    before_cut_bits_per_second: f64,
    during_cut_bits_per_second: f64,
    after_cut_bits_per_second: f64,
    seconds: Option<f64>,
    longest_gap_ms: f64,
    bytes_received: u64,
    intact: bool,
    sha256_sent: String,
    sha256_received: String,
    svg: &'a Path,
}

pub(super) fn intro(output: Output, scenario: &Scenario) {
    let links = LINKS.map(|link| format!("{} ({} Mbit/s, {} ms one way)", link.name, link.mbits, link.delay_ms));
    output.line(format_args!("{} from a server, over {}.", Bytes(BYTES), links.join(" and ")));
    let [from, to] = [CUT.0, CUT.1].map(|at| at.as_secs_f64());
    output.line(format_args!("After {from} seconds {} is cut, after {to} it is back.\n", LINKS[0].name));
    output.event(&Event::Start {
        seed: scenario.seed,
        bytes: BYTES,
        scheduler: &scenario.options.scheduler,
        congestion: &scenario.options.congestion,
        links: LINKS.map(|link| LinkAt {
            name: link.name,
            bits_per_second: link.mbits * 1_000_000,
            delay_ms: link.delay_ms,
        }),
        cut: [from, to],
    });
}

/// `alone` are the rates of the first link, of the second one, and of both, undisturbed.
pub(super) fn print(output: Output, alone: [f64; 3], outcome: &Outcome, svg: &Path) {
    let [before, during, after] = [
        outcome.rate_between(CUT.0 / 2, CUT.0),
        outcome.rate_between(CUT.0, CUT.1),
        outcome.rate_between(CUT.1, outcome.samples.last().map_or(CUT.1, |sample| sample.at)),
    ];
    let [sent, received] = outcome.hashes.map(|hash| hex(&hash));
    output.line(format_args!("Undisturbed, as the application sees it:"));
    output.line(format_args!("  {} alone          {:>12}", LINKS[0].name, Rate(alone[0])));
    output.line(format_args!("  {} alone            {:>12}", LINKS[1].name, Rate(alone[1])));
    output.line(format_args!("  both together        {:>12}\n", Rate(alone[2])));
    output.line(format_args!("The transfer that you saw:"));
    output.line(format_args!("  before the cut       {:>12}", Rate(before)));
    output.line(format_args!("  {} cut            {:>12}", LINKS[0].name, Rate(during)));
    output.line(format_args!("  after it came back   {:>12}", Rate(after)));
    match outcome.took {
        Some(took) => output.line(format_args!("  the whole file       {:>12}, in {}", Rate(outcome.rate), Time(took))),
        None => output.line(format_args!("  not finished: {} of {}", Bytes(outcome.received), Bytes(BYTES))),
    }
    let gap = Time(outcome.longest_gap);
    output.line(format_args!("  longest time without a byte for the application: {gap}"));
    match outcome.is_intact() {
        true => output.line(format_args!("  bytes intact: SHA-256 {}... at both ends\n", &sent[..16])),
        false => output.line(format_args!("  BYTES DIFFER: SHA-256 {sent} sent, {received} received\n")),
    }
    output.line(format_args!("Chart: {}", svg.display()));
    output.event(&Event::Summary(Box::new(Summary {
        wifi_alone_bits_per_second: alone[0],
        lte_alone_bits_per_second: alone[1],
        both_bits_per_second: alone[2],
        bits_per_second: outcome.rate,
        before_cut_bits_per_second: before,
        during_cut_bits_per_second: during,
        after_cut_bits_per_second: after,
        seconds: outcome.took.map(|took| took.as_secs_f64()),
        longest_gap_ms: outcome.longest_gap.as_secs_f64() * 1e3,
        bytes_received: outcome.received,
        intact: outcome.is_intact(),
        sha256_sent: sent,
        sha256_received: received,
        svg,
    })));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
