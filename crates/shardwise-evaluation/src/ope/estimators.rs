//! The estimators and their intervals, from sums over blocks of time.
//!
//! With *w* the probability of the logged choice under the target policy over the one it was drawn with, *r* what it cost, *q* what
//! a model said that it would cost, and *v* what the model says of the target's own choice:
//!
//! | estimator | mean over rounds of | source |
//! |---|---|---|
//! | DM | v | direct method |
//! | IPS | w r | Horvitz and Thompson, 1952 |
//! | SNIPS | w r, over the mean of w | Swaminathan and Joachims, 2015 |
//! | DR | v + w (r − q) | Dudík, Langford and Li, 2011 |
//! | SNDR | v, plus w (r − q) over the mean of w | |
//! | Switch-DR | v + w (r − q) where w ≤ τ, else v | Wang, Agarwal and Dudík, 2017 |
//! | DRos | v + λ w / (w² + λ) (r − q) | Su, Dimakopoulou, Krishnamurthy and Dudík, 2020 |

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

/// Fewer blocks than this tell of no interval.
const LEAST_BLOCKS: f64 = 15.0;

/// One logged decision with its outcome, as the estimators see it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Round {
    /// When it was decided, in ns of any clock; rounds come in its order.
    pub at_ns: i64,
    /// Probability of the logged choice under the target policy over its probability under the logging policy; 0 or more.
    pub weight: f64,
    /// What it cost, in ms.
    pub outcome: f64,
    /// What the model says that the logged choice costs, in ms; made without this round's outcome.
    pub predicted: f64,
    /// What the model says that the target policy's choice costs, in the mean over its draws, in ms.
    pub predicted_target: f64,
}

/// How costs are estimated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Estimator {
    /// Direct method: the model alone.
    Dm,
    /// Inverse propensity scores.
    Ips,
    /// Self-normalised inverse propensity scores.
    Snips,
    /// Doubly robust.
    Dr,
    /// Self-normalised doubly robust.
    Sndr,
    /// Doubly robust where weights are small, else the model.
    SwitchDr,
    /// Doubly robust with weights that are shrunk.
    DrOs,
}

impl Estimator {
    /// All of them.
    pub const ALL: [Self; 7] = [Self::Dm, Self::Ips, Self::Snips, Self::Dr, Self::Sndr, Self::SwitchDr, Self::DrOs];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dm => "DM",
            Self::Ips => "IPS",
            Self::Snips => "SNIPS",
            Self::Dr => "DR",
            Self::Sndr => "SNDR",
            Self::SwitchDr => "Switch-DR",
            Self::DrOs => "DRos",
        }
    }

    fn of(self, sums: &Sums) -> f64 {
        let Sums { rounds, weight, target, weighted, error, switched, shrunk } = *sums;
        match self {
            Self::Dm => target / rounds,
            Self::Ips => weighted / rounds,
            Self::Snips => weighted / weight,
            Self::Dr => (target + error) / rounds,
            Self::Sndr => target / rounds + error / weight,
            Self::SwitchDr => (target + switched) / rounds,
            Self::DrOs => (target + shrunk) / rounds,
        }
    }
}

/// The knobs of the estimators.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OpeOptions {
    /// Switch-DR trusts weights up to this, τ.
    pub switch_at: f64,
    /// DRos shrinks weights by this, λ.
    pub shrinkage: f64,
    /// Length of the blocks that are drawn together, in ms: requests that share a queue are not independent. Shorter where
    /// there would be fewer than fifteen, of which no interval can be told.
    pub block_ms: f64,
    /// Draws of the bootstrap.
    pub resamples: usize,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for OpeOptions {
    fn default() -> Self {
        Self { switch_at: 10.0, shrinkage: 100.0, block_ms: 10_000.0, resamples: 1_000, seed: 1 }
    }
}

/// An estimate of the mean cost of the target policy.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// How it was made.
    pub estimator: Estimator,
    /// The mean cost in ms.
    pub mean_ms: f64,
    /// 95 % percentile interval of the block bootstrap, in ms.
    pub low_ms: f64,
    /// Its upper end.
    pub high_ms: f64,
}

/// Estimates the target's mean cost in every way. NaN where nothing can be said: without rounds, or when the target never
/// makes a logged choice.
pub fn estimate(rounds: &[Round], options: &OpeOptions) -> Vec<Estimate> {
    let blocks = blocks(rounds, options);
    let all = blocks.iter().fold(Sums::default(), Sums::plus);
    let drawn = resampled(&blocks, options);
    let interval = |estimator: Estimator| {
        let mut values: Vec<f64> =
            drawn.iter().map(|sums| estimator.of(sums)).filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        [0.025, 0.975].map(|level| quantile(&values, level))
    };
    let estimate = |estimator: Estimator| {
        let [low_ms, high_ms] = interval(estimator);
        Estimate { estimator, mean_ms: estimator.of(&all), low_ms, high_ms }
    };
    Estimator::ALL.into_iter().map(estimate).collect()
}

/// The value below which a share `level` of the sorted values lies, linear between them; NaN of none.
fn quantile(sorted: &[f64], level: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = level * last as f64;
    let (below, part) = (place.floor() as usize, place.fract());
    sorted[below] + part * (sorted[(below + 1).min(last)] - sorted[below])
}

/// All that the estimators need of some rounds.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    rounds: f64,
    weight: f64,
    target: f64,
    weighted: f64,
    error: f64,
    switched: f64,
    shrunk: f64,
}

impl Sums {
    fn of(round: &Round, options: &OpeOptions) -> Self {
        let Round { weight, outcome, predicted, predicted_target, .. } = *round;
        let error = outcome - predicted;
        let shrunk = match options.shrinkage {
            endless if endless == f64::INFINITY => weight,
            lambda if weight > 0.0 => lambda * weight / (weight * weight + lambda),
            _ => 0.0,
        };
        Self {
            rounds: 1.0,
            weight,
            target: predicted_target,
            weighted: weight * outcome,
            error: weight * error,
            switched: if weight <= options.switch_at { weight * error } else { 0.0 },
            shrunk: shrunk * error,
        }
    }

    fn plus(self, other: &Self) -> Self {
        Self {
            rounds: self.rounds + other.rounds,
            weight: self.weight + other.weight,
            target: self.target + other.target,
            weighted: self.weighted + other.weighted,
            error: self.error + other.error,
            switched: self.switched + other.switched,
            shrunk: self.shrunk + other.shrunk,
        }
    }
}

fn blocks(rounds: &[Round], options: &OpeOptions) -> Vec<Sums> {
    let [first_ns, last_ns] = [rounds.first(), rounds.last()].map(|round| round.map_or(0, |round| round.at_ns));
    let longest_ns = last_ns.saturating_sub(first_ns) as f64 / LEAST_BLOCKS;
    let length_ns = (options.block_ms * 1e6).min(longest_ns).max(1.0) as i64;
    let block_of = |round: &Round| round.at_ns.saturating_sub(first_ns).div_euclid(length_ns);
    rounds
        .chunk_by(|a, b| block_of(a) == block_of(b))
        .map(|block| block.iter().fold(Sums::default(), |sum, round| sum.plus(&Sums::of(round, options))))
        .collect()
}

/// As many blocks as there are, drawn with replacement, again and again.
fn resampled(blocks: &[Sums], options: &OpeOptions) -> Vec<Sums> {
    if blocks.is_empty() {
        return Vec::new();
    }
    let mut rng = StdRng::seed_from_u64(options.seed);
    let mut draw = || {
        let drawn = (0..blocks.len()).map(|_| &blocks[rng.random_range(0..blocks.len())]);
        drawn.fold(Sums::default(), Sums::plus)
    };
    (0..options.resamples).map(|_| draw()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bandit of three arms that cost 10, 20 and 40 ms and a half of what an arm costs more or less; the log draws them with
    /// .2, .3 and .5, the target with .7, .2 and .1: its mean is 15.
    fn bandit(rounds: usize, model_is_off_by: f64) -> Vec<Round> {
        let mut rng = StdRng::seed_from_u64(7);
        let (costs, logged, target) = ([10.0, 20.0, 40.0], [0.2, 0.3, 0.5], [0.7, 0.2, 0.1]);
        let predicted_target: f64 = (0..3).map(|arm| target[arm] * (costs[arm] + model_is_off_by)).sum();
        (0..rounds)
            .map(|i| {
                let draw: f64 = rng.random();
                let arm = if draw < 0.2 { 0 } else { 1 + usize::from(draw >= 0.5) };
                Round {
                    at_ns: i as i64 * 100_000_000,
                    weight: target[arm] / logged[arm],
                    outcome: costs[arm] * (0.5 + rng.random::<f64>()),
                    predicted: costs[arm] + model_is_off_by,
                    predicted_target,
                }
            })
            .collect()
    }

    #[test]
    fn all_but_the_model_alone_find_the_truth_with_a_wrong_model() {
        let estimates = estimate(&bandit(40_000, 9.0), &OpeOptions::default());
        for Estimate { estimator, mean_ms, low_ms, high_ms } in estimates {
            assert!(low_ms < mean_ms && mean_ms < high_ms || estimator == Estimator::Dm, "{estimator:?}");
            match estimator {
                Estimator::Dm => assert!((mean_ms - 24.0).abs() < 1e-9, "the model is 9 off: {mean_ms}"),
                // It shrinks a weight of 3.5 by a tenth.
                Estimator::DrOs => assert!((mean_ms - 15.0).abs() < 1.0, "{mean_ms}"),
                _ => {
                    assert!((mean_ms - 15.0).abs() < 0.5 && low_ms < 15.1 && high_ms > 14.9, "{estimator:?} {mean_ms}");
                }
            }
        }
    }

    #[test]
    fn intervals_cover_as_often_as_they_should() {
        let covers = |seed: usize| {
            let rounds = &bandit(40_000, 0.0)[seed * 2_000..][..2_000];
            let options = OpeOptions { seed: seed as u64, resamples: 300, ..OpeOptions::default() };
            let dr = estimate(rounds, &options)[3];
            dr.low_ms < 15.0 && 15.0 < dr.high_ms
        };
        let covered = (0..20).filter(|seed| covers(*seed)).count();
        assert!(covered >= 16, "{covered} of 20");
    }

    #[test]
    fn nothing_gives_no_number() {
        assert!(estimate(&[], &OpeOptions::default()).iter().all(|estimate| estimate.mean_ms.is_nan()));
        let never: Vec<Round> = bandit(50, 0.0).into_iter().map(|round| Round { weight: 0.0, ..round }).collect();
        let estimates = estimate(&never, &OpeOptions::default());
        assert!(estimates[2].mean_ms.is_nan() && estimates[2].low_ms.is_nan());
        assert_eq!(estimates[1].mean_ms, 0.0, "which the check of the support refuses");
    }

    #[test]
    fn endless_shrinkage_is_none() {
        let rounds = bandit(500, 3.0);
        let options = OpeOptions { shrinkage: f64::INFINITY, switch_at: f64::INFINITY, ..OpeOptions::default() };
        let estimates = estimate(&rounds, &options);
        assert_eq!(estimates[6].mean_ms, estimates[3].mean_ms);
        assert_eq!(estimates[5].mean_ms, estimates[3].mean_ms);
        let none = estimate(&rounds, &OpeOptions { shrinkage: 0.0, ..options });
        assert_eq!(none[6].mean_ms, none[0].mean_ms, "the model alone");
    }
}
