//! Fits the execution head: trees that learn, by squared error on ln exec_ms, what the service table misses.
//!
//! The table's expectation is the offset; so a head that learns nothing is the table. The later training rows tell how many
//! trees are enough and how far predictions lie off; then the trees are grown again on all training rows.

use lightgbm3::{Booster, Dataset};
use shardwise_features::FEATURE_COUNT;
use shardwise_models::ExecHead;
use shardwise_models::forest::Forest;

use crate::figures::{mean, rounded};
use crate::lightgbm_text::forest_from_lightgbm_text;
use crate::options::THREADS;
use crate::rows::{ExecSamples, Samples, known_feature};
use crate::{TrainOptions, TrainingError};

/// Feature that the trees add to.
const OFFSET_FEATURE: &str = "prior_service_ln_ms";
/// Training rows that the parity check looks at as they are, and once more with odd values in them.
const PARITY_ROWS: usize = 2000;
/// What the parity check plants.
const ODD_VALUES: [f32; 8] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e-36, f32::MAX, f32::MIN];
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
        Self { feature: known_feature(OFFSET_FEATURE), default_ln_ms: rounded(mean(&train.ln_ms)) }
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
    let (forest, trees) = grow(offset, early, Some(late), options.trees, options)?;
    let missed = offset.residuals(late);
    let missed: Vec<f64> = missed.iter().zip(predict(&forest, late)).map(|(residual, tree)| residual - tree).collect();
    let squares: Vec<f64> = missed.iter().map(|error| error * error).collect();
    let factors: Vec<f64> = missed.iter().map(|error| error.exp()).collect();
    let (smearing, residual_sd) = (rounded(mean(&factors)).max(MIN_SMEARING), rounded(mean(&squares).sqrt()));
    let (forest, _) = grow(offset, &samples.train, None, trees, options)?;
    Ok(ExecHead::new(forest, offset.feature, offset.default_ln_ms, smearing, residual_sd)?)
}

pub(crate) fn predict(forest: &Forest, samples: &Samples) -> Vec<f64> {
    let mut answers = vec![0.0; samples.len()];
    forest.predict_rows(&samples.features, FEATURE_COUNT, &mut answers);
    answers
}

/// Grows at most `trees` trees; with validation rows, no more than these gain from. Returns how many there are.
fn grow(
    offset: &Offset,
    train: &Samples,
    validation: Option<&Samples>,
    trees: u32,
    options: &TrainOptions,
) -> Result<(Forest, u32), TrainingError> {
    let dataset = lightgbm_dataset(offset, train, None)?;
    let validation = validation.map(|samples| lightgbm_dataset(offset, samples, Some(&dataset))).transpose()?;
    let patience = validation.is_some().then_some(options.patience);
    let booster = Booster::train_with_valid(dataset, validation, &options.for_lightgbm(trees, patience))?;
    let forest = forest_from_lightgbm_text(&booster.save_string()?, FEATURE_COUNT)?;
    check_parity(&booster, &forest, train)?;
    let grown = u32::try_from(booster.num_iterations()).unwrap_or(1).max(1);
    Ok((forest, grown))
}

fn lightgbm_dataset(offset: &Offset, samples: &Samples, reference: Option<&Dataset>) -> Result<Dataset, TrainingError> {
    let labels: Vec<f32> = offset.residuals(samples).into_iter().map(|residual| residual as f32).collect();
    let width = FEATURE_COUNT as i32;
    Ok(Dataset::from_slice_with_reference(&samples.features, &labels, width, true, reference)?)
}

/// Proves that the forest answers as LightGBM does, bit for bit, on training rows and on rows with odd values in them.
fn check_parity(booster: &Booster, forest: &Forest, train: &Samples) -> Result<(), TrainingError> {
    let rows = parity_rows(train);
    let trained =
        booster.raw_scores_with_params(&rows, FEATURE_COUNT as i32, true, &format!("num_threads={THREADS}"))?;
    let differs = |(row, trained): (usize, &f64)| {
        let served = forest.predict(&rows[row * FEATURE_COUNT..][..FEATURE_COUNT]);
        (served.to_bits() != trained.to_bits()).then_some((row, *trained, served))
    };
    match trained.iter().enumerate().find_map(differs) {
        None => Ok(()),
        Some((row, trained, served)) => Err(TrainingError::Parity { row, trained, served }),
    }
}

/// Training rows as they are, then the same with an odd value in every seventh place, another one in each row.
fn parity_rows(train: &Samples) -> Vec<f32> {
    let mut rows = train.thinned(PARITY_ROWS).features;
    let plain = rows.len();
    rows.extend_from_within(..);
    for (place, value) in rows[plain..].iter_mut().enumerate() {
        let (row, feature) = (place / FEATURE_COUNT, place % FEATURE_COUNT);
        if (row + feature) % 7 == 0 {
            *value = ODD_VALUES[(row / 7 + feature) % ODD_VALUES.len()];
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use shardwise_models::forest::TreeNode;

    use super::*;

    #[test]
    fn forest_that_answers_otherwise_is_refused() {
        let features: Vec<f32> = (0..200 * FEATURE_COUNT).map(|i| (i % 97) as f32).collect();
        let samples = Samples { ln_ms: (0..200).map(|i| f64::from(i % 9)).collect(), features };
        let offset = Offset { feature: 0, default_ln_ms: 0.0 };
        let dataset = lightgbm_dataset(&offset, &samples, None).expect("a data set");
        let options = TrainOptions { min_leaf: 20, ..TrainOptions::default() };
        let booster = Booster::train(dataset, &options.for_lightgbm(5, None)).expect("a model");
        let text = booster.save_string().expect("its text");
        let forest = forest_from_lightgbm_text(&text, FEATURE_COUNT).expect("a forest");
        check_parity(&booster, &forest, &samples).expect("the same answers");
        let other = Forest::new(FEATURE_COUNT, &[vec![TreeNode::Leaf(0.5)]]).expect("a sound tree");
        assert!(matches!(check_parity(&booster, &other, &samples), Err(TrainingError::Parity { row: 0, .. })));
    }

    #[test]
    fn parity_is_checked_on_odd_values_too() {
        let samples = Samples { features: vec![0.5; 100 * FEATURE_COUNT], ln_ms: vec![0.0; 100] };
        let rows = parity_rows(&samples);
        assert_eq!(rows.len(), 200 * FEATURE_COUNT);
        assert_eq!(rows[..100 * FEATURE_COUNT], samples.features);
        let odd = &rows[100 * FEATURE_COUNT..];
        for expected in ODD_VALUES {
            assert!(odd.iter().any(|value| value.to_bits() == expected.to_bits()), "{expected:e}");
        }
        assert!(odd.chunks_exact(FEATURE_COUNT).all(|row| row.contains(&0.5)));
    }
}
