//! Which points are measured: a sample that fills the space of all settings evenly.
//!
//! After Santiago, Claeys-Bruno and Sergent, "Construction of space-filling designs using WSP algorithm for high
//! dimensional spaces" (2012): from a point on, drop all that are nearer than some distance, go to the nearest one left,
//! and so on. The distance is chosen so that just as many points stay as are wanted.

use anabranch_sim::Random;

use crate::case::{Loss, Point};

const RATES: [u32; 3] = [10, 100, 1000];
const RTTS: [u32; 4] = [2, 20, 100, 300];
const LOSSES: [Loss; 7] = [
    Loss::None,
    Loss::Random(0.1),
    Loss::Random(1.0),
    Loss::Random(3.0),
    Loss::Bursts(0.1),
    Loss::Bursts(1.0),
    Loss::Bursts(3.0),
];
const REORDERS: [u32; 3] = [0, 1, 10];
const QUEUES: [f64; 3] = [0.25, 1.0, 4.0];

/// Factors: rate, round-trip time, amount of loss, its kind, reordering, queue.
const FACTORS: usize = 6;
/// Shakes the grid, so that no two distances are the same; small beside its steps.
const SHAKE: f64 = 0.02;
/// Halvings of the interval in which the distance is looked for.
const HALVINGS: usize = 40;

/// A point and where it lies: each factor from 0 to 1.
#[derive(Clone, Copy)]
struct Candidate {
    point: Point,
    at: [f64; FACTORS],
}

/// All settings there are.
fn candidates(random: &mut Random) -> Vec<Candidate> {
    let step = |index: usize, of: usize| index as f64 / (of - 1) as f64;
    let mut all = Vec::new();
    for (at_rate, rate) in RATES.into_iter().enumerate() {
        for (at_rtt, rtt) in RTTS.into_iter().enumerate() {
            for loss in LOSSES {
                for (at_reorder, reorder) in REORDERS.into_iter().enumerate() {
                    for (at_queue, queue) in QUEUES.into_iter().enumerate() {
                        let [amount, kind] = place_of(loss);
                        let at = [
                            step(at_rate, RATES.len()),
                            step(at_rtt, RTTS.len()),
                            amount,
                            kind,
                            step(at_reorder, REORDERS.len()),
                            step(at_queue, QUEUES.len()),
                        ];
                        let at = at.map(|value| value + SHAKE * (random.unit() - 0.5));
                        all.push(Candidate { point: Point { rate, rtt, loss, reorder, queue }, at });
                    }
                }
            }
        }
    }
    all
}

/// How much, and of which kind; where nothing is lost, neither.
fn place_of(loss: Loss) -> [f64; 2] {
    let amount = |percent: f64| match percent {
        3.0.. => 1.0,
        1.0.. => 2.0 / 3.0,
        _ => 1.0 / 3.0,
    };
    match loss {
        Loss::None => [0.0, 0.5],
        Loss::Random(percent) => [amount(percent), 0.0],
        Loss::Bursts(percent) => [amount(percent), 1.0],
    }
}

fn distance(one: &Candidate, other: &Candidate) -> f64 {
    one.at.iter().zip(other.at).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
}

/// What stays when no two points are to be nearer than `least`.
fn thin(all: &[Candidate], first: usize, least: f64) -> Vec<Point> {
    let mut left = all.to_vec();
    let mut here = left.swap_remove(first);
    let mut kept = vec![here.point];
    loop {
        left.retain(|other| distance(&here, other) >= least);
        let nearest = (0..left.len()).min_by(|&a, &b| distance(&here, &left[a]).total_cmp(&distance(&here, &left[b])));
        let Some(nearest) = nearest else { return kept };
        here = left.swap_remove(nearest);
        kept.push(here.point);
    }
}

/// At least `count` points, as few more as the design allows; always the same ones for a seed.
pub(crate) fn sample(count: usize, seed: u64) -> Vec<Point> {
    let mut random = Random::new(seed, 0);
    let all = candidates(&mut random);
    let first = random.below(all.len() as u64) as usize;
    let count = count.min(all.len());
    let (mut enough, mut too_few) = (0.0, (FACTORS as f64).sqrt() + 1.0);
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(enough, too_few);
        if thin(&all, first, middle).len() >= count { enough = middle } else { too_few = middle }
    }
    thin(&all, first, enough)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_every_value_of_every_factor_about_equally_often() {
        let points = sample(64, 1);
        assert!((64..80).contains(&points.len()), "{} points", points.len());
        let share =
            |of: &dyn Fn(&Point) -> bool| points.iter().filter(|point| of(point)).count() as f64 / points.len() as f64;
        for rate in RATES {
            let part = share(&|point| point.rate == rate);
            assert!((0.15..0.55).contains(&part), "{rate} Mbit/s: {part}");
        }
        for rtt in RTTS {
            let part = share(&|point| point.rtt == rtt);
            assert!((0.1..0.45).contains(&part), "{rtt} ms: {part}");
        }
        for loss in LOSSES {
            let part = share(&|point| point.loss == loss);
            assert!((0.04..0.3).contains(&part), "{loss:?}: {part}");
        }
        for queue in QUEUES {
            let part = share(&|point| point.queue == queue);
            assert!((0.15..0.55).contains(&part), "{queue} BDP: {part}");
        }
    }

    #[test]
    fn a_seed_gives_the_same_points_again_and_another_one_others() {
        assert_eq!(sample(30, 7), sample(30, 7));
        assert_ne!(sample(30, 7), sample(30, 8));
    }

    #[test]
    fn no_point_comes_twice() {
        let points = sample(200, 3);
        for (at, point) in points.iter().enumerate() {
            assert!(!points[..at].contains(point), "{point:?}");
        }
    }
}
