//! What is searched: the parameters, their ranges, and how one set is drawn.

use std::fmt;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::TrainOptions;

/// The learning parameters that a search may change; see [`TrainOptions`] for what they are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented where they are options")]
pub struct Parameters {
    pub trees: u32,
    pub leaves: u32,
    pub learning_rate: f64,
    pub min_leaf: u32,
    pub feature_fraction: f64,
    pub bagging_fraction: f64,
    pub leaf_shrinkage: f64,
}

impl Parameters {
    /// Those of some options.
    pub fn of(options: &TrainOptions) -> Self {
        Self {
            trees: options.trees,
            leaves: options.leaves,
            learning_rate: options.learning_rate,
            min_leaf: options.min_leaf,
            feature_fraction: options.feature_fraction,
            bagging_fraction: options.bagging_fraction,
            leaf_shrinkage: options.leaf_shrinkage,
        }
    }

    /// The options with these in their place.
    pub fn applied_to(&self, options: &TrainOptions) -> TrainOptions {
        let Self { trees, leaves, learning_rate, min_leaf, feature_fraction, bagging_fraction, leaf_shrinkage } = *self;
        TrainOptions {
            trees,
            leaves,
            learning_rate,
            min_leaf,
            feature_fraction,
            bagging_fraction,
            leaf_shrinkage,
            ..options.clone()
        }
    }

    /// Those of a trial: the options' own for trial 0, else drawn by seed and number alone, so that a trial is the same
    /// whatever came before it. Scales are searched in their logarithm. More trees cost every prediction: never more than
    /// twice the options'.
    pub(super) fn of_trial(number: u32, options: &TrainOptions) -> Self {
        if number == 0 {
            return Self::of(options);
        }
        let mut rng = StdRng::seed_from_u64(options.seed ^ (u64::from(number) << 32));
        let mut scale = |from: f64, to: f64| rounded(rng.random_range(from.ln()..to.ln()).exp());
        let trees = f64::from(options.trees);
        Self {
            trees: (scale(trees / 2.0, trees * 2.0) as u32).clamp(1, 5_000),
            leaves: scale(12.0, 160.0) as u32,
            learning_rate: scale(0.02, 0.2),
            min_leaf: scale(10.0, 500.0) as u32,
            feature_fraction: scale(0.35, 1.0),
            bagging_fraction: scale(0.5, 1.0),
            leaf_shrinkage: scale(0.3, 60.0),
        }
    }
}

/// Three digits: more say nothing.
fn rounded(value: f64) -> f64 {
    let unit = 10_f64.powf(value.log10().floor() - 2.0);
    (value / unit).round() * unit
}

impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trees, leaves, learning_rate, min_leaf, feature_fraction, bagging_fraction, leaf_shrinkage } = self;
        write!(
            f,
            "{trees} trees, {leaves} leaves of {min_leaf} rows and prior {leaf_shrinkage:.3}, rate {learning_rate:.3}, \
             {feature_fraction:.2} of features, {bagging_fraction:.2} of rows"
        )
    }
}
