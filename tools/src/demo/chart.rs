//! The rate of each link over time, as an SVG.

use std::path::Path;
use std::time::Duration;

use anyhow::anyhow;
use plotters::prelude::*;

use super::scenario::{CUT, LINKS, Outcome, Sample};

const SIZE: (u32, u32) = (960, 420);
const WIFI: RGBColor = RGBColor(0x2e, 0x8b, 0x57);
const LTE: RGBColor = RGBColor(0x1f, 0x5f, 0xbf);
const SUM: RGBColor = RGBColor(0x22, 0x22, 0x22);
const OUTAGE: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);

/// Draws the chart into `file`.
pub(super) fn write(outcome: &Outcome, file: &Path) -> anyhow::Result<()> {
    let mut text = String::new();
    draw(outcome, &mut text).map_err(|error| anyhow!("cannot draw the chart: {error}"))?;
    std::fs::write(file, text).map_err(|error| {
        anyhow!("cannot write the chart to {}: {error}; --svg FILE chooses another place", file.display())
    })
}

fn draw(outcome: &Outcome, text: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let end = outcome.samples.last().map_or(1.0, |sample| seconds(sample.at));
    let top = LINKS.iter().map(|link| link.mbits).sum::<u64>() as f64 * 1.15;
    let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let title = format!("One MPTCP transfer over {} and {}, {0} cut in the middle", LINKS[0].name, LINKS[1].name);
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..end, 0.0..top)?;
    chart.configure_mesh().disable_x_mesh().x_desc("seconds").y_desc("Mbit/s").light_line_style(WHITE).draw()?;

    let outage = [(seconds(CUT.0), top), (seconds(CUT.1), 0.0)];
    chart
        .draw_series([Rectangle::new(outage, OUTAGE.filled())])?
        .label(format!("{} cut", LINKS[0].name))
        .legend(|(x, y)| Rectangle::new([(x, y - 5), (x + 18, y + 5)], OUTAGE.filled()));
    let mut line = |name: &str, color: RGBColor, width, rate: &dyn Fn(&Sample) -> f64| {
        let points = outcome.samples.iter().map(|sample| (seconds(sample.at), rate(sample) / 1e6));
        let series = LineSeries::new(points, color.stroke_width(width));
        chart.draw_series(series).map(|drawn| {
            drawn.label(name).legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(width)));
        })
    };
    line(LINKS[0].name, WIFI, 2, &|sample| sample.rates[0])?;
    line(LINKS[1].name, LTE, 2, &|sample| sample.rates[1])?;
    line("sum", SUM, 1, &Sample::sum)?;
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::MiddleMiddle)
        .background_style(WHITE.mix(0.85))
        .border_style(OUTAGE)
        .draw()?;
    area.present()?;
    Ok(())
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chart_names_what_it_shows() {
        let samples = (1..=100)
            .map(|n| Sample { at: Duration::from_millis(n * 100), rates: [n as f64 * 1e5, 18e6], received: 0 })
            .collect();
        let outcome =
            Outcome { took: None, received: 0, rate: 0.0, longest_gap: Duration::ZERO, hashes: [[0; 32]; 2], samples };
        let mut text = String::new();
        draw(&outcome, &mut text).unwrap();
        for word in ["<svg", "Wi-Fi cut", "LTE", "sum", "Mbit/s", "seconds"] {
            assert!(text.contains(word), "{word}");
        }
        assert!(text.matches("<polyline").count() >= 3, "a line for each link and one for the sum");
    }
}
