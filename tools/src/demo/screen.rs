//! The live part on the screen: bars on a terminal, plain lines elsewhere, events for programs.

use std::fmt;
use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::scenario::{BYTES, CUT, LINKS, Sample};
use crate::format::{Bytes, Rate};
use crate::output::Output;

/// Of how many samples the bars show the mean.
const SMOOTH: usize = 3;
/// Time between two plain lines.
const LINE: Duration = Duration::from_millis(500);

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Event {
    Sample { at: f64, wifi_bits_per_second: f64, lte_bits_per_second: f64, bits_per_second: f64, received: u64 },
    Link { at: f64, link: &'static str, up: bool },
}

/// Where the samples go.
#[derive(Debug)]
pub(super) struct Screen {
    output: Output,
    bars: Option<Bars>,
    recent: Vec<Sample>,
    lined_at: Duration,
    wifi_up: bool,
}

impl Screen {
    pub(super) fn new(output: Output) -> Self {
        let bars = (!output.is_json() && std::io::stdout().is_terminal()).then(Bars::new);
        Self { output, bars, recent: Vec::new(), lined_at: Duration::ZERO, wifi_up: true }
    }

    pub(super) fn show(&mut self, sample: &Sample) {
        self.tell_link(sample.at);
        self.output.event(&Event::Sample {
            at: sample.at.as_secs_f64(),
            wifi_bits_per_second: sample.rates[0],
            lte_bits_per_second: sample.rates[1],
            bits_per_second: sample.sum(),
            received: sample.received,
        });
        self.recent.push(*sample);
        match &self.bars {
            Some(bars) => {
                let from = self.recent.len().saturating_sub(SMOOTH);
                bars.show(&mean(&self.recent[from..]), self.wifi_up);
                self.recent.drain(..from);
            }
            None if sample.at >= self.lined_at + LINE => {
                self.output.line(line(&mean(&self.recent)));
                self.recent.clear();
                self.lined_at = sample.at;
            }
            None => {}
        }
    }

    /// Takes the bars away.
    pub(super) fn finish(self) {
        if let Some(bars) = self.bars {
            // A terminal that is gone needs no clearing.
            let _ = bars.all.clear();
        }
    }

    fn tell_link(&mut self, at: Duration) {
        let up = at <= CUT.0 || at > CUT.1;
        if up == self.wifi_up {
            return;
        }
        self.wifi_up = up;
        self.output.event(&Event::Link { at: at.as_secs_f64(), link: LINKS[0].name, up });
        if self.bars.is_none() {
            let what = if up { "is back" } else { "is cut: from now on every packet on it is lost" };
            self.output.line(format_args!("        --- {} {what} ---", LINKS[0].name));
        }
    }
}

/// The latest sample with the mean rates of all.
fn mean(samples: &[Sample]) -> Sample {
    let count = samples.len().max(1) as f64;
    let rates = [0, 1].map(|link| samples.iter().map(|sample| sample.rates[link]).sum::<f64>() / count);
    let last = samples.last();
    Sample { at: last.map_or(Duration::ZERO, |it| it.at), rates, received: last.map_or(0, |it| it.received) }
}

fn line(sample: &Sample) -> String {
    format!(
        "{:>5.1} s  {} {:>12}   {} {:>12}   sum {:>12}   {:>8} of {}",
        sample.at.as_secs_f64(),
        LINKS[0].name,
        Rate(sample.rates[0]),
        LINKS[1].name,
        Rate(sample.rates[1]),
        Rate(sample.sum()),
        Bytes(sample.received),
        Bytes(BYTES),
    )
}

/// A bar for each link, one for the sum, one for the file.
#[derive(Debug)]
struct Bars {
    all: MultiProgress,
    rates: [ProgressBar; 3],
    file: ProgressBar,
}

impl Bars {
    fn new() -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
        let sum: u64 = LINKS.iter().map(|link| link.mbits).sum();
        let bar = |name: &str, full: u64, template: &str| {
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::new(full).with_style(style.progress_chars("█▉▊▋▌▍▎▏ ")).with_prefix(name.to_owned());
            all.add(bar)
        };
        // All rates on one scale, so that the bars can be compared.
        let rate = |name, color| bar(name, sum * 1000, &format!("  {{prefix:6}} {{wide_bar:.{color}}} {{msg}}"));
        let rates = [rate(LINKS[0].name, "green"), rate(LINKS[1].name, "blue"), rate("sum", "white")];
        let file = bar("file", BYTES, "  {prefix:6} {wide_bar:.dim} {msg}");
        Self { all, rates, file }
    }

    fn show(&self, sample: &Sample, wifi_up: bool) {
        let rates = [sample.rates[0], sample.rates[1], sample.sum()];
        for (number, (bar, rate)) in self.rates.iter().zip(rates).enumerate() {
            bar.set_position((rate / 1000.0) as u64);
            let note = if number == 0 && !wifi_up { "CUT" } else { "" };
            bar.set_message(message(Rate(rate), note));
        }
        self.file.set_position(sample.received);
        let time = format!("{:.1} s", sample.at.as_secs_f64());
        self.file.set_message(message(Bytes(sample.received), &time));
    }
}

/// All of one width, so that the bars are of one length.
fn message(number: impl fmt::Display, note: &str) -> String {
    format!("{number:>12}  {note:<6}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_all_rates_and_how_far_the_file_is() {
        let sample =
            |mbits: f64, received| Sample { at: Duration::from_millis(1500), rates: [mbits * 1e6, 10e6], received };
        let mean = mean(&[sample(40.0, 1_000_000), sample(50.0, 2_000_000)]);
        assert_eq!(
            line(&mean),
            "  1.5 s  Wi-Fi  45.0 Mbit/s   LTE  10.0 Mbit/s   sum  55.0 Mbit/s    2.00 MB of 64.0 MB"
        );
    }
}
