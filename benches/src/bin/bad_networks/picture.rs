//! The goodput of each network beside the kernel's, as an SVG.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plotters::prelude::*;

use crate::case::Pairing;
use crate::figures::{Figures, LEAST};
use crate::run::Subject;
use crate::statistics::Ratio;

const SIZE: (u32, u32) = (960, 440);
const SENDS: RGBColor = RGBColor(0x1f, 0x5f, 0xbf);
const RECEIVES: RGBColor = RGBColor(0x2e, 0x8b, 0x57);
const LINE: RGBColor = RGBColor(0x99, 0x99, 0x99);
/// Ratios beyond these are drawn at the edge.
const AXIS: std::ops::Range<f64> = 0.25..4.0;

/// Draws it into `file`. Nothing if there is nothing to draw.
pub(crate) fn write(figures: &Figures<'_>, grid: &[Subject], file: &Path) -> Result<()> {
    let sorted = |pairing| {
        let ratios = grid.iter().filter_map(|subject| figures.bulk(&subject.case, pairing)?.goodput);
        let mut ratios: Vec<Ratio> = ratios.collect();
        ratios.sort_by(|a, b| a.value.total_cmp(&b.value));
        ratios
    };
    let series = [(Pairing::Sends, SENDS), (Pairing::Receives, RECEIVES)]
        .map(|(pairing, color)| (pairing, color, sorted(pairing)));
    if series.iter().all(|(_, _, ratios)| ratios.is_empty()) {
        return Ok(());
    }
    let mut text = String::new();
    draw(&series, &mut text).map_err(|error| anyhow!("cannot draw the picture: {error}"))?;
    std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))
}

fn draw(series: &[(Pairing, RGBColor, Vec<Ratio>); 2], text: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let count = series.iter().map(|(_, _, ratios)| ratios.len()).max().unwrap_or(0);
    let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("Goodput on bad networks over that of kernel to kernel, 95 % intervals", ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..count as f64 + 1.0, AXIS.log_scale().base(2.0))?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_desc("networks, each direction sorted by its ratio")
        .y_desc("ratio")
        .y_label_formatter(&|value| format!("{value:.2}"))
        .light_line_style(WHITE)
        .draw()?;
    for level in [1.0, LEAST] {
        chart.draw_series([PathElement::new([(0.0, level), (count as f64 + 1.0, level)], LINE)])?;
    }
    for (at, (pairing, color, ratios)) in series.iter().enumerate() {
        let shift = 0.8 + 0.4 * at as f64;
        let clamp = |value: f64| value.clamp(AXIS.start, AXIS.end);
        let place = |index: usize| index as f64 + shift;
        chart.draw_series(ratios.iter().enumerate().map(|(index, ratio)| {
            PathElement::new([(place(index), clamp(ratio.low)), (place(index), clamp(ratio.high))], color.mix(0.5))
        }))?;
        let color = *color;
        chart
            .draw_series(
                ratios
                    .iter()
                    .enumerate()
                    .map(|(index, ratio)| Circle::new((place(index), clamp(ratio.value)), 3, color.filled())),
            )?
            .label(pairing.to_string())
            .legend(move |(x, y)| Circle::new((x + 9, y), 4, color.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(LINE)
        .draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_network_is_a_dot_in_each_direction() {
        let ratios: Vec<Ratio> = (1..=9).map(|n| Ratio { value: 0.1 * f64::from(n), low: 0.01, high: 9.0 }).collect();
        let mut text = String::new();
        draw(&[(Pairing::Sends, SENDS, ratios.clone()), (Pairing::Receives, RECEIVES, ratios)], &mut text)
            .expect("a picture");
        for word in ["<svg", "ours sends", "ours receives", "ratio"] {
            assert!(text.contains(word), "{word}");
        }
        assert_eq!(text.matches("<circle").count(), 2 * 9 + 2, "dots, and one of each colour in the legend");
    }
}
