//! Fits the execution head: trees that learn, by squared error on ln exec_ms of warm executions, what the service table misses.
//!
//! The table's expectation is the offset; so a head that learns nothing is the table. The later training rows tell how many
//! trees are enough and how far predictions lie off; then the trees are grown again on all training rows.

use shardwise_features::FEATURE_COUNT;
use shardwise_models::ExecHead;
use shardwise_models::forest::Forest;

use crate::figures::{rounded, weighted_mean};
use crate::grow::{Examples, Loss, grow};
use crate::rows::{ExecSamples, Samples, known_feature};
use crate::{TrainOptions, TrainingError};

/// Feature that the trees add to.
pub(crate) const OFFSET_FEATURE: &str = "prior_service_ln_ms";
/// Smallest factor that rounding leaves above 0.
const MIN_SMEARING: f64 = 1e-6;

/// What is expected of a row before anything is learned.
pub(crate) struct Offset {
    pub(crate) feature: usize,
    pub(crate) default_ln_ms: f64,
}

impl Offset {
    /// The service table's expectation, and where there is none the mean of these rows.
    pub(crate) fn of(train: &Samples) -> Self {
        Self {
            feature: known_feature(OFFSET_FEATURE),
            default_ln_ms: rounded(weighted_mean(&train.ln_ms, &train.weights)),
        }
    }

    pub(crate) fn ln_ms(&self, row: &[f32]) -> f64 {
        let known = f64::from(row[self.feature]);
        if known.is_finite() { known } else { self.default_ln_ms }
    }

    /// What the offset misses of each row.
    pub(crate) fn residuals(&self, samples: &Samples) -> Vec<f64> {
        samples.rows().zip(&samples.ln_ms).map(|(row, ln_ms)| ln_ms - self.ln_ms(row)).collect()
    }

    /// Adds the offset of each row to what was learned of it.
    pub(crate) fn added_to(&self, samples: &Samples, learned: &[f64]) -> Vec<f64> {
        samples.rows().zip(learned).map(|(row, learned)| self.ln_ms(row) + learned).collect()
    }
}

/// Fits the head on the training rows.
pub(crate) fn fit_exec_head(
    offset: &Offset,
    samples: &ExecSamples,
    (early, late): (&Samples, &Samples),
    options: &TrainOptions,
) -> Result<ExecHead, TrainingError> {
    let [residuals, missed] = [early, late].map(|samples| offset.residuals(samples));
    let (forest, trees) =
        grow(&examples(early, &residuals), Some(&examples(late, &missed)), Loss::Squared, options.trees, options)?;
    let missed: Vec<f64> = missed.iter().zip(predict(&forest, late)).map(|(residual, tree)| residual - tree).collect();
    let squares: Vec<f64> = missed.iter().map(|error| error * error).collect();
    let factors: Vec<f64> = missed.iter().map(|error| error.exp()).collect();
    let mean_of = |values: &[f64]| rounded(weighted_mean(values, &late.weights));
    let (smearing, residual_sd) =
        (mean_of(&factors).max(MIN_SMEARING), rounded(weighted_mean(&squares, &late.weights).sqrt()));
    let residuals = offset.residuals(&samples.train);
    let (forest, _) = grow(&examples(&samples.train, &residuals), None, Loss::Squared, trees, options)?;
    Ok(ExecHead::new(forest, offset.feature, offset.default_ln_ms, smearing, residual_sd)?)
}

pub(crate) fn predict(forest: &Forest, samples: &Samples) -> Vec<f64> {
    let mut answers = vec![0.0; samples.len()];
    forest.predict_rows(&samples.features, FEATURE_COUNT, &mut answers);
    answers
}

fn examples<'a>(samples: &'a Samples, labels: &'a [f64]) -> Examples<'a> {
    Examples { rows: &samples.features, width: FEATURE_COUNT, labels, weights: &samples.weights }
}
