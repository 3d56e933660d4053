//! A model of what a placement costs, small and quick to fit: off-policy estimates fit one for every block of time.

use shardwise_features::FEATURE_COUNT;
use shardwise_models::forest::Forest;

use crate::grow::{Examples, Loss, grow};
use crate::{TrainOptions, TrainingError};

const TREES: u32 = 30;
const LEAVES: u32 = 15;
const LEARNING_RATE: f64 = 0.2;
const MIN_LEAF: u32 = 30;
/// Costs below this are all as small, in ms.
const LEAST_MS: f64 = 0.01;

/// Boosted trees on ln ms, and the factor from there to the mean.
#[derive(Debug, Clone)]
pub struct CostModel {
    forest: Forest,
    smearing: f64,
}

/// Fits on rows of [`FEATURE_COUNT`] values and what each cost, in ms.
///
/// # Errors
/// When LightGBM fails, or its trees cannot be served.
pub fn fit_cost_model(rows: &[f32], costs_ms: &[f64], seed: u64) -> Result<CostModel, TrainingError> {
    let labels: Vec<f64> = costs_ms.iter().map(|ms| ms.max(LEAST_MS).ln()).collect();
    let examples = Examples { rows, width: FEATURE_COUNT, labels: &labels, weights: &[], rising: &[] };
    let options = TrainOptions {
        seed,
        leaves: LEAVES,
        learning_rate: LEARNING_RATE,
        min_leaf: MIN_LEAF,
        // Few trees must each see what matters.
        feature_fraction: 1.0,
        ..TrainOptions::default()
    };
    let (forest, _) = grow(&examples, None, Loss::Squared, TREES, &options)?;
    let mut model = CostModel { forest, smearing: 1.0 };
    let mut predicted = vec![0.0; costs_ms.len()];
    model.predict_rows(rows, &mut predicted);
    model.smearing = costs_ms.iter().sum::<f64>() / predicted.iter().sum::<f64>();
    Ok(model)
}

impl CostModel {
    /// Foretells the costs of rows of [`FEATURE_COUNT`] values, in ms.
    pub fn predict_rows(&self, rows: &[f32], out: &mut [f64]) {
        self.forest.predict_rows(rows, FEATURE_COUNT, out);
        out.iter_mut().for_each(|ln_ms| *ln_ms = self.smearing * ln_ms.exp());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_learned_and_right_in_the_mean() {
        let n = 3_000;
        let rows: Vec<f32> = (0..n * FEATURE_COUNT).map(|i| (i * i % 8191 % 101) as f32).collect();
        let costs: Vec<f64> = (0..n).map(|row| if rows[row * FEATURE_COUNT] > 50.0 { 40.0 } else { 10.0 }).collect();
        let model = fit_cost_model(&rows, &costs, 1).expect("a model");
        let mut predicted = vec![0.0; n];
        model.predict_rows(&rows, &mut predicted);
        let mean = |values: &[f64]| values.iter().sum::<f64>() / n as f64;
        assert!((mean(&predicted) - mean(&costs)).abs() < 1e-9 * mean(&costs));
        assert!(predicted.iter().zip(&costs).all(|(p, y)| (p / y - 1.0).abs() < 0.1), "what tells them apart is found");
    }
}
