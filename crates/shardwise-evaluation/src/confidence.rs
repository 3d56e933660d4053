//! What a model's confidence stands for: isotonic regression of what came true on what was said, in a closed loop whose truth
//! is known.

use std::sync::atomic::AtomicBool;

use rayon::prelude::*;
use shardwise_models::{CalibrationDraft, CalibrationMetrics, ConfidenceCurve};
use shardwise_simulator::{AnswerRecord, ConfidenceBin, SimulateOptions};

use crate::closed_loop::run_once;
use crate::{Contender, EvaluationError, SamplePaths};

/// Every so many choices one is held against the truth, which costs a look at every shard's queue.
const REGRET_EVERY: usize = 16;
/// Fewer choices say nothing.
const FEWEST_CHOICES: u64 = 200;
/// So many choices that came true as often as was said are added to each bin, so that a few do not make certainties.
const PRIOR_CHOICES: f64 = 20.0;

/// Fits what the confidence of a policy stands for, on all seeds but the last quarter of them, and measures it on these; at
/// least two seeds are needed. `None` when too few choices were looked at.
///
/// The policy's confidence must be the built-in one.
///
/// # Errors
/// When seeds are missing, a run fails or measures nothing, or it was interrupted.
pub fn calibrate(
    paths: &SamplePaths<'_>,
    contender: &Contender,
    interrupted: &AtomicBool,
) -> Result<Option<CalibrationDraft>, EvaluationError> {
    if paths.seeds.len() < 2 {
        return Err(EvaluationError::NoSeed);
    }
    let options = SimulateOptions { warm_up: paths.warm_up, regret_every: REGRET_EVERY, ..SimulateOptions::default() };
    let run = |seed: &u64| Ok(run_once(paths, *seed, contender, &options, interrupted)?.answers.unwrap_or_default());
    let answers = paths.seeds.par_iter().map(run).collect::<Result<Vec<AnswerRecord>, EvaluationError>>()?;
    let held_out = (answers.len() / 4).max(1);
    let (fitted, measured) = answers.split_at(answers.len() - held_out);
    Ok(fit(&pooled(fitted), &pooled(measured)))
}

fn pooled(runs: &[AnswerRecord]) -> AnswerRecord {
    let mut sum = AnswerRecord::default();
    runs.iter().for_each(|run| sum.add(run));
    sum
}

fn fit(fitted: &AnswerRecord, measured: &AnswerRecord) -> Option<CalibrationDraft> {
    let choices = |record: &AnswerRecord| record.by_confidence.iter().map(|bin| bin.choices).sum::<u64>();
    let (train_choices, test_choices) = (choices(fitted), choices(measured));
    if train_choices < FEWEST_CHOICES || test_choices == 0 {
        return None;
    }
    let points: Vec<[f64; 3]> = occupied(fitted)
        .map(|(said, true_share, n)| {
            let shrunk = (true_share * n + PRIOR_CHOICES * said) / (n + PRIOR_CHOICES);
            [said, shrunk, n + PRIOR_CHOICES]
        })
        .collect();
    let knots =
        points.iter().zip(isotonic(&points)).map(|(point, level)| [rounded(point[0]), rounded(level)]).collect();
    let curve = ConfidenceCurve::new(knots).ok()?;
    let error = |of: &dyn Fn(f64) -> f64| {
        let off: f64 = occupied(measured).map(|(said, true_share, n)| n * (of(said) - true_share).abs()).sum();
        rounded(off / test_choices as f64)
    };
    let metrics = CalibrationMetrics {
        train_choices,
        test_choices,
        error: error(&|said| curve.of(said)),
        built_in_error: error(&|said| said),
    };
    Some(CalibrationDraft { curve, metrics })
}

/// Mean confidence, share that came true, and number of the choices of each bin that has any.
fn occupied(record: &AnswerRecord) -> impl Iterator<Item = (f64, f64, f64)> {
    let bins = record.by_confidence.iter().filter(|bin| bin.choices > 0);
    bins.map(|ConfidenceBin { choices, confidence, right }| {
        let n = *choices as f64;
        (confidence / n, *right as f64 / n, n)
    })
}

/// Rounds to six decimals, what JSON brings back to the last bit.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// The levels, not falling, that lie nearest to the points `[x, y, weight]` in weighted squares; the x must rise. Pool adjacent
/// violators: Ayer et al., "An empirical distribution function for sampling with incomplete information", 1955.
fn isotonic(points: &[[f64; 3]]) -> Vec<f64> {
    // Each block has a mean, a weight and a number of points.
    let mut blocks: Vec<(f64, f64, usize)> = Vec::new();
    for [_, y, weight] in points {
        let mut block = (*y, *weight, 1);
        while let Some((mean, weight, count)) = blocks.pop_if(|before| before.0 > block.0) {
            let sum = weight + block.1;
            block = ((mean * weight + block.0 * block.1) / sum, sum, count + block.2);
        }
        blocks.push(block);
    }
    blocks.into_iter().flat_map(|(mean, _, count)| std::iter::repeat_n(mean, count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(shares: impl Fn(usize) -> f64) -> AnswerRecord {
        let mut record = AnswerRecord::default();
        for (place, bin) in record.by_confidence.iter_mut().enumerate() {
            let said = (place as f64 + 0.5) / 20.0;
            *bin =
                ConfidenceBin { choices: 1_000, confidence: 1_000.0 * said, right: (1_000.0 * shares(place)) as u64 };
        }
        record
    }

    #[test]
    fn levels_are_the_nearest_that_do_not_fall() {
        let points = |values: &[(f64, f64)]| -> Vec<[f64; 3]> {
            values.iter().enumerate().map(|(x, (y, weight))| [x as f64, *y, *weight]).collect()
        };
        assert_eq!(isotonic(&points(&[(0.1, 1.0), (0.2, 1.0), (0.9, 1.0)])), [0.1, 0.2, 0.9]);
        assert_eq!(isotonic(&points(&[(0.3, 1.0), (0.0, 3.0), (0.5, 1.0)])), [0.075, 0.075, 0.5]);
        assert_eq!(isotonic(&points(&[(3.0, 1.0), (2.0, 1.0), (1.0, 1.0)])), [2.0; 3]);
        assert!(isotonic(&[]).is_empty());
        // The formula of the textbook: the greatest over starts of the least over ends of the mean between them.
        let mut state = 9_u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        for _ in 0..50 {
            let random: Vec<(f64, f64)> = (0..12).map(|_| (uniform(), 0.1 + uniform())).collect();
            let mean = |from: usize, to: usize| {
                let part = &random[from..=to];
                part.iter().map(|(y, w)| y * w).sum::<f64>() / part.iter().map(|(_, w)| w).sum::<f64>()
            };
            for (place, level) in isotonic(&points(&random)).into_iter().enumerate() {
                let least = |from: usize| (place..12).map(|to| mean(from, to)).fold(f64::INFINITY, f64::min);
                let expected = (0..=place).map(least).fold(f64::NEG_INFINITY, f64::max);
                assert!((level - expected).abs() < 1e-12, "{level} where {expected} was expected");
            }
        }
    }

    #[test]
    fn a_boaster_is_brought_down_to_what_comes_true() {
        let half = |place: usize| (place as f64 + 0.5) / 40.0;
        let draft = fit(&record(half), &record(half)).expect("a curve");
        assert!(draft.metrics.built_in_error > 0.2 && draft.metrics.error < 0.02, "{:?}", draft.metrics);
        assert!((draft.curve.of(0.9) - 0.45).abs() < 0.02);
    }

    #[test]
    fn few_choices_make_no_curve_and_sparse_bins_no_certainty() {
        assert!(fit(&AnswerRecord::default(), &record(|_| 0.5)).is_none());
        assert!(fit(&record(|_| 0.5), &AnswerRecord::default()).is_none());
        let mut sparse = record(|place| (place as f64 + 0.5) / 20.0);
        sparse.by_confidence[19] = ConfidenceBin { choices: 2, confidence: 1.95, right: 2 };
        let curve = fit(&sparse, &sparse).expect("a curve").curve;
        assert!(curve.of(1.0) < 0.99, "{curve:?}");
    }
}
