//! Whether the served sums are LightGBM's on many rows that were made to find a difference.

use serde::Serialize;
use shardwise_models::forest::TreeNode;

use super::data::Generator;
use super::lightgbm::RawScores;
use super::{Model, ScoreBenchOptions};
use crate::TrainingError;

/// Rows that are compared at a time.
const BLOCK: usize = 10_000;
const ODD_VALUES: [f32; 9] =
    [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e-36, f32::MAX, f32::MIN, f32::MIN_POSITIVE];

/// Sums of leaves compared bit by bit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SumParity {
    /// Whether the model was trained with zero taken for missing.
    pub zero_is_missing: bool,
    /// Rows compared.
    pub rows: usize,
    /// Values in them that are NaN.
    pub nan: u64,
    /// Infinite ones.
    pub infinite: u64,
    /// Exact thresholds.
    pub thresholds: u64,
    /// Rows whose sums differ in any bit.
    pub different: usize,
}

/// Trains two models, without and with zero taken for missing, and compares the served sums with LightGBM's on so many rows
/// of each: values as in training, thresholds and their neighbours, infinities, missing values, zeros.
///
/// # Errors
/// When the parameters make no sense or LightGBM fails. Differences are no error, they are counted.
pub fn check_sums(
    options: &ScoreBenchOptions,
    rows: usize,
    progress: &mut dyn FnMut(String),
) -> Result<Vec<SumParity>, TrainingError> {
    [false, true].into_iter().map(|zero_is_missing| check_model(options, zero_is_missing, rows, progress)).collect()
}

fn check_model(
    options: &ScoreBenchOptions,
    zero_is_missing: bool,
    rows: usize,
    progress: &mut dyn FnMut(String),
) -> Result<SumParity, TrainingError> {
    let engine_error = |problem| TrainingError::Engine { engine: "lightgbm", problem };
    let mut model = Model::train(options, zero_is_missing)?;
    let width = model.generator.width();
    let mut lightgbm = RawScores::new(&model.text, width).map_err(engine_error)?;
    let thresholds = thresholds(&model, width);
    let mut parity = SumParity { zero_is_missing, rows, nan: 0, infinite: 0, thresholds: 0, different: 0 };
    for first in (0..rows).step_by(BLOCK) {
        progress(format!("parity of row {first} of {rows}"));
        let n_rows = BLOCK.min(rows - first);
        let values: Vec<f32> =
            (0..n_rows * width).map(|place| telling(&mut model.generator, &thresholds, place % width)).collect();
        let [mut trained, mut served] = [vec![0.0; n_rows], vec![0.0; n_rows]];
        lightgbm.matrix(&values, &mut trained).map_err(engine_error)?;
        model.forest.predict_rows(&values, width, &mut served);
        parity.count(&values, &thresholds);
        parity.different += trained.iter().zip(&served).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
    }
    Ok(parity)
}

/// The thresholds of each feature, sorted.
fn thresholds(model: &Model, width: usize) -> Vec<Vec<f32>> {
    let mut thresholds = vec![Vec::new(); width];
    for node in model.forest.to_trees().into_iter().flatten() {
        if let TreeNode::Split { feature, threshold, .. } = node {
            thresholds[feature as usize].push(threshold);
        }
    }
    thresholds.iter_mut().for_each(|thresholds| thresholds.sort_unstable_by(f32::total_cmp));
    thresholds
}

/// Half of the values as in training, the others where a split may go wrong.
fn telling(generator: &mut Generator, thresholds: &[Vec<f32>], feature: usize) -> f32 {
    let thresholds = &thresholds[feature];
    match generator.below(10) {
        0..=4 => generator.value(feature),
        5..=8 if !thresholds.is_empty() => {
            let threshold = thresholds[generator.below(thresholds.len())];
            [threshold, threshold, threshold.next_up(), threshold.next_down()][generator.below(4)]
        }
        _ => ODD_VALUES[generator.below(ODD_VALUES.len())],
    }
}

impl SumParity {
    fn count(&mut self, rows: &[f32], thresholds: &[Vec<f32>]) {
        for row in rows.chunks_exact(thresholds.len()) {
            for (value, thresholds) in row.iter().zip(thresholds) {
                self.nan += u64::from(value.is_nan());
                self.infinite += u64::from(value.is_infinite());
                self.thresholds += u64::from(thresholds.binary_search_by(|it| it.total_cmp(value)).is_ok());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_sum_differs_from_lightgbm() {
        let options = ScoreBenchOptions { trees: 30, leaves: 31, features: 12, seed: 5, python: None };
        for parity in check_sums(&options, 20_000, &mut |_| {}).expect("a comparison") {
            assert_eq!((parity.rows, parity.different), (20_000, 0), "{parity:?}");
            assert!(parity.nan > 1_000 && parity.infinite > 1_000 && parity.thresholds > 1_000, "{parity:?}");
        }
    }
}
