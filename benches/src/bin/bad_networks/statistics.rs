//! Medians, and how sure they are.

use anabranch_sim::Random;

/// Draws of the bootstrap.
const DRAWS: usize = 2000;

/// A ratio of medians with the interval in which it lies with a probability of 95 %.
#[derive(Clone, Copy, PartialEq, Debug, serde::Serialize)]
pub(crate) struct Ratio {
    pub(crate) value: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// The value that this part of all does not exceed, between two of them linearly.
pub(crate) fn quantile(values: &[f64], part: f64) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let at = part * values.len().checked_sub(1)? as f64;
    let (low, high) = (values[at.floor() as usize], values[at.ceil() as usize]);
    Some(low + (high - low) * at.fract())
}

pub(crate) fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// A quantile of `ours` over that of `theirs`, by the percentile bootstrap (Efron 1979): both are drawn from anew.
pub(crate) fn ratio(ours: &[f64], theirs: &[f64], part: f64) -> Option<Ratio> {
    let value = quantile(ours, part)? / quantile(theirs, part)?;
    if !value.is_finite() {
        return None;
    }
    let mut random = Random::new(1, 0);
    let mut draw = |values: &[f64]| -> Vec<f64> {
        values.iter().map(|_| values[random.below(values.len() as u64) as usize]).collect()
    };
    let mut drawn: Vec<f64> = (0..DRAWS)
        .filter_map(|_| Some(quantile(&draw(ours), part)? / quantile(&draw(theirs), part)?))
        .filter(|value| value.is_finite())
        .collect();
    drawn.sort_by(f64::total_cmp);
    Some(Ratio { value, low: quantile(&drawn, 0.025)?, high: quantile(&drawn, 0.975)? })
}

/// The median of `ours` over that of `theirs`, of rounds in which both met the same chances: rounds are drawn, not values.
pub(crate) fn paired_ratio(rounds: &[[f64; 2]]) -> Option<Ratio> {
    let of = |rounds: &[[f64; 2]]| {
        let medians = [0, 1].map(|at| median(&rounds.iter().map(|round| round[at]).collect::<Vec<f64>>()));
        Some(medians[0]? / medians[1]?).filter(|value| value.is_finite())
    };
    let value = of(rounds)?;
    let mut random = Random::new(1, 0);
    let mut draw =
        || -> Vec<[f64; 2]> { rounds.iter().map(|_| rounds[random.below(rounds.len() as u64) as usize]).collect() };
    let drawn: Vec<f64> = (0..DRAWS).filter_map(|_| of(&draw())).collect();
    Some(Ratio { value, low: quantile(&drawn, 0.025)?, high: quantile(&drawn, 0.975)? })
}

/// The geometric mean of what is above zero.
pub(crate) fn geometric_mean(values: &[f64]) -> Option<f64> {
    let logs: Vec<f64> = values.iter().filter(|&&value| value > 0.0).map(|value| value.ln()).collect();
    if logs.is_empty() {
        return None;
    }
    Some((logs.iter().sum::<f64>() / logs.len() as f64).exp())
}

/// Jain's index of fairness (1984): 1 if all have the same, 1/n if one has all.
pub(crate) fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    sum * sum / (squares * shares.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_values() {
        assert_eq!(quantile(&[4.0, 1.0, 3.0, 2.0], 0.5), Some(2.5));
        assert_eq!(quantile(&[1.0, 2.0, 3.0], 1.0), Some(3.0));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn an_interval_is_wide_where_values_scatter_and_covers_the_ratio() {
        let steady = ratio(&[99.0, 100.0, 101.0, 100.0, 100.0], &[100.0; 5], 0.5).expect("a ratio");
        let wild = ratio(&[50.0, 100.0, 150.0, 80.0, 130.0], &[100.0; 5], 0.5).expect("a ratio");
        for ratio in [steady, wild] {
            assert!(ratio.low <= ratio.value && ratio.value <= ratio.high, "{ratio:?}");
        }
        assert!(wild.high - wild.low > 5.0 * (steady.high - steady.low), "{steady:?} {wild:?}");
    }

    #[test]
    fn what_both_met_makes_no_interval_wide() {
        // Given rounds of very different luck, in each of which ours is a tenth faster,
        let rounds = [10.0, 50.0, 90.0, 20.0, 70.0].map(|luck| [1.1 * luck, luck]);
        let ratio = paired_ratio(&rounds).expect("a ratio");
        for value in [ratio.value, ratio.low, ratio.high] {
            assert!((value - 1.1).abs() < 1e-9, "{ratio:?}");
        }
    }

    #[test]
    fn means_and_fairness() {
        assert!((geometric_mean(&[0.5, 2.0]).expect("a mean") - 1.0).abs() < 1e-12);
        assert!((jain(&[1.0, 1.0]) - 1.0).abs() < 1e-12);
        assert!((jain(&[1.0, 0.0]) - 0.5).abs() < 1e-12);
    }
}
