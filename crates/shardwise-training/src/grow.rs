//! Grows forests with LightGBM on rows of any width, and proves that they are served as they were trained.

use lightgbm3::{Booster, Dataset};
use serde_json::Value;
use shardwise_features::{FEATURES, FeatureGroup};
use shardwise_models::forest::Forest;

use crate::lightgbm_text::forest_from_lightgbm_text;
use crate::options::THREADS;
use crate::rows::evenly;
use crate::{TrainOptions, TrainingError};

/// Training rows that the parity check looks at as they are, and once more with odd values in them.
const PARITY_ROWS: usize = 2000;
/// What the parity check plants.
const ODD_VALUES: [f32; 8] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e-36, f32::MAX, f32::MIN];

/// What trees are grown on: rows of `width` values, one after the other, and what to predict of each.
#[derive(Clone, Copy)]
pub(crate) struct Examples<'a> {
    pub(crate) rows: &'a [f32],
    pub(crate) width: usize,
    pub(crate) labels: &'a [f64],
    /// Weights; empty when all are equal.
    pub(crate) weights: &'a [f32],
    /// Features of which more never means less: trees that say otherwise are not grown.
    pub(crate) rising: &'static [&'static str],
}

impl<'a> Examples<'a> {
    /// Splits after `first` rows.
    pub(crate) fn split_at(&self, first: usize) -> (Self, Self) {
        let (early_rows, late_rows) = self.rows.split_at(first * self.width);
        let (early_labels, late_labels) = self.labels.split_at(first);
        let (early_weights, late_weights) = self.weights.split_at(first.min(self.weights.len()));
        let part = |rows, labels, weights| Self { rows, labels, weights, ..*self };
        (part(early_rows, early_labels, early_weights), part(late_rows, late_labels, late_weights))
    }
}

/// What trees make small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Squared error; the forest speaks in units of the labels.
    Squared,
    /// Logarithmic loss of labels 0 and 1; the forest speaks in log-odds.
    Logarithmic,
    /// Pinball loss of the quantile of so many hundredths; the forest speaks in units of the labels.
    Quantile(u8),
}

impl Loss {
    /// Objective and metric as LightGBM names them.
    pub(crate) fn names(self) -> [&'static str; 2] {
        match self {
            Self::Squared => ["regression", "l2"],
            Self::Logarithmic => ["binary", "binary_logloss"],
            Self::Quantile(_) => ["quantile", "quantile"],
        }
    }

    /// Loss of what a forest says.
    pub(crate) fn of_sum(self, sum: f64, label: f64) -> f64 {
        match self {
            Self::Squared | Self::Quantile(_) => self.of(sum, label),
            Self::Logarithmic => self.of(1.0 / (1.0 + (-sum).exp()), label),
        }
    }

    /// Loss of a prediction in units of the labels.
    pub(crate) fn of(self, predicted: f64, label: f64) -> f64 {
        let ln = |value: f64| value.max(1e-12).ln();
        match self {
            Self::Squared => (label - predicted).powi(2),
            Self::Quantile(percent) => {
                let (level, above) = (f64::from(percent) / 100.0, label - predicted);
                (level * above).max((level - 1.0) * above)
            }
            Self::Logarithmic => -(label * ln(predicted) + (1.0 - label) * ln(1.0 - predicted)),
        }
    }
}

/// Grows at most `trees` trees; with validation rows, no more than these gain from. Returns how many there are.
pub(crate) fn grow(
    train: &Examples<'_>,
    validation: Option<&Examples<'_>>,
    loss: Loss,
    trees: u32,
    options: &TrainOptions,
) -> Result<(Forest, u32), TrainingError> {
    Binned::new(train, validation, options)?.grow(train, loss, trees, options)
}

/// Rows as trees look at them: each value is one of LightGBM's bins.
pub(crate) struct Binned {
    train: Dataset,
    validation: Option<Dataset>,
}

impl Binned {
    /// Puts the values into bins; those of the validation rows are the training rows' bins.
    pub(crate) fn new(
        train: &Examples<'_>,
        validation: Option<&Examples<'_>>,
        options: &TrainOptions,
    ) -> Result<Self, TrainingError> {
        let binned = |examples: &Examples<'_>, reference: Option<&Dataset>| {
            let blind = options.blind_to.map(|group| without(examples, group));
            let rows = blind.as_deref().unwrap_or(examples.rows);
            lightgbm_dataset(&Examples { rows, ..*examples }, reference)
        };
        let train = binned(train, None)?;
        let validation = validation.map(|examples| binned(examples, Some(&train))).transpose()?;
        Ok(Self { train, validation })
    }

    /// As [`grow`]; `train` are the rows that were binned.
    pub(crate) fn grow(
        self,
        train: &Examples<'_>,
        loss: Loss,
        trees: u32,
        options: &TrainOptions,
    ) -> Result<(Forest, u32), TrainingError> {
        let patience = self.validation.is_some().then_some(options.patience);
        let mut parameters = options.for_lightgbm(loss, trees, patience);
        constrain(&mut parameters, train.rising);
        let booster = Booster::train_with_valid(self.train, self.validation, &parameters)?;
        let forest = forest_from_lightgbm_text(&booster.save_string()?, train.width)?;
        check_parity(&booster, &forest, train)?;
        let grown = u32::try_from(booster.num_iterations()).unwrap_or(1).max(1);
        Ok((forest, grown))
    }
}

/// Tells LightGBM of which features more never means less. Of its methods `intermediate` erred least on simulated waits:
/// `basic` forbids more than it must, `advanced` takes half as long again.
pub(crate) fn constrain(parameters: &mut Value, rising: &[&str]) {
    if !rising.is_empty() {
        let signs = FEATURES.iter().map(|feature| if rising.contains(&feature.name) { "1" } else { "0" });
        parameters["monotone_constraints"] = signs.collect::<Vec<_>>().join(",").into();
        parameters["monotone_constraints_method"] = "intermediate".into();
    }
}

/// The rows with nothing in the features of a group: no tree splits on what is missing everywhere.
fn without(examples: &Examples<'_>, group: FeatureGroup) -> Vec<f32> {
    let mut rows = examples.rows.to_vec();
    for row in rows.chunks_exact_mut(examples.width) {
        for (value, feature) in row.iter_mut().zip(FEATURES) {
            if feature.group == group {
                *value = f32::NAN;
            }
        }
    }
    rows
}

fn lightgbm_dataset(examples: &Examples<'_>, reference: Option<&Dataset>) -> Result<Dataset, TrainingError> {
    let labels: Vec<f32> = examples.labels.iter().map(|label| *label as f32).collect();
    let width = examples.width as i32;
    let mut dataset = Dataset::from_slice_with_reference(examples.rows, &labels, width, true, reference)?;
    if !examples.weights.is_empty() {
        dataset.set_weights(examples.weights)?;
    }
    Ok(dataset)
}

/// Proves that the forest answers as LightGBM does, bit for bit, on training rows and on rows with odd values in them.
fn check_parity(booster: &Booster, forest: &Forest, train: &Examples<'_>) -> Result<(), TrainingError> {
    let (rows, width) = (parity_rows(train), train.width);
    let trained = booster.raw_scores_with_params(&rows, width as i32, true, &format!("num_threads={THREADS}"))?;
    let differs = |(row, trained): (usize, &f64)| {
        let served = forest.predict(&rows[row * width..][..width]);
        (served.to_bits() != trained.to_bits()).then_some((row, *trained, served))
    };
    match trained.iter().enumerate().find_map(differs) {
        None => Ok(()),
        Some((row, trained, served)) => Err(TrainingError::Parity { row, trained, served }),
    }
}

/// Training rows as they are, then the same with an odd value in every seventh place, another one in each row.
fn parity_rows(train: &Examples<'_>) -> Vec<f32> {
    let width = train.width;
    let chosen = evenly(train.labels.len(), PARITY_ROWS);
    let mut rows: Vec<f32> = chosen.flat_map(|row| &train.rows[row * width..][..width]).copied().collect();
    let plain = rows.len();
    rows.extend_from_within(..);
    for (place, value) in rows[plain..].iter_mut().enumerate() {
        let (row, feature) = (place / width, place % width);
        if (row + feature) % 7 == 0 {
            *value = ODD_VALUES[(row / 7 + feature) % ODD_VALUES.len()];
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use shardwise_features::position;
    use shardwise_models::forest::TreeNode;

    use super::*;

    const WIDTH: usize = 30;

    #[test]
    fn forest_that_answers_otherwise_is_refused() {
        let rows: Vec<f32> = (0..200 * WIDTH).map(|i| (i % 97) as f32).collect();
        let labels: Vec<f64> = (0..200).map(|i| f64::from(i % 9) - f64::from(rows[i as usize * WIDTH])).collect();
        let train = Examples { rows: &rows, width: WIDTH, labels: &labels, weights: &[], rising: &[] };
        let dataset = lightgbm_dataset(&train, None).expect("a data set");
        let options = TrainOptions { min_leaf: 20, ..TrainOptions::default() };
        let booster = Booster::train(dataset, &options.for_lightgbm(Loss::Squared, 5, None)).expect("a model");
        let text = booster.save_string().expect("its text");
        let forest = forest_from_lightgbm_text(&text, WIDTH).expect("a forest");
        check_parity(&booster, &forest, &train).expect("the same answers");
        let other = Forest::new(WIDTH, &[vec![TreeNode::Leaf(0.5)]]).expect("a sound tree");
        assert!(matches!(check_parity(&booster, &other, &train), Err(TrainingError::Parity { row: 0, .. })));
    }

    #[test]
    fn weighted_rows_count_as_often_as_they_weigh() {
        // Half of the rows say 0 and the others 1, and nothing tells them apart.
        let rows = vec![0.5; 400 * WIDTH];
        let labels: Vec<f64> = (0..400).map(|row| f64::from(row % 2)).collect();
        let weights: Vec<f32> = (0..400).map(|row| if row % 2 == 0 { 0.5 } else { 1.5 }).collect();
        let mean = |weights: &[f32]| {
            let train = Examples { rows: &rows, width: WIDTH, labels: &labels, weights, rising: &[] };
            let (forest, _) = grow(&train, None, Loss::Squared, 1, &TrainOptions::default()).expect("a forest");
            forest.predict(&rows[..WIDTH])
        };
        assert!((mean(&[]) - 0.5).abs() < 1e-3 && (mean(&weights) - 0.75).abs() < 1e-3, "{}", mean(&weights));
    }

    #[test]
    fn a_rising_feature_never_lowers_what_is_served() {
        // The labels fall with the one feature and depend on all others, too.
        let (width, rising) = (FEATURES.len(), position("expected_wait_ms").expect("a feature"));
        let rows: Vec<f32> = (0..3000 * width).map(|i| (i * i % 8191 % 101) as f32).collect();
        let label =
            |row: &[f32]| row.iter().map(|value| f64::from(*value)).sum::<f64>() / 9.0 - 9.0 * f64::from(row[rising]);
        let labels: Vec<f64> = rows.chunks_exact(width).map(label).collect();
        let falls = |names: &'static [&'static str]| {
            let train = Examples { rows: &rows, width, labels: &labels, weights: &[], rising: names };
            let options = TrainOptions { min_leaf: 5, ..TrainOptions::default() };
            let (forest, _) = grow(&train, None, Loss::Squared, 40, &options).expect("a forest");
            let served = |row: &[f32], value: f32| {
                let mut row = row.to_vec();
                row[rising] = value;
                forest.predict(&row)
            };
            let steps = |row: &[f32]| (0..110).map(|step| served(row, step as f32)).collect::<Vec<_>>();
            rows.chunks_exact(width).step_by(10).filter(|row| !steps(row).is_sorted()).count()
        };
        assert_eq!(falls(&["expected_wait_ms"]), 0);
        assert_eq!(falls(&[]), 300, "without the constraint every row falls");
    }

    #[test]
    fn a_blind_forest_does_not_look_at_the_group() {
        let width = FEATURES.len();
        let rows: Vec<f32> = (0..400 * width).map(|i| (i * i % 97) as f32).collect();
        let labels: Vec<f64> = rows.chunks_exact(width).map(|row| row.iter().copied().map(f64::from).sum()).collect();
        let train = Examples { rows: &rows, width, labels: &labels, weights: &[], rising: &[] };
        for group in [FeatureGroup::Request, FeatureGroup::Local, FeatureGroup::Report] {
            let options = TrainOptions { min_leaf: 5, blind_to: Some(group), ..TrainOptions::default() };
            let (forest, _) = grow(&train, None, Loss::Squared, 20, &options).expect("a forest");
            let blind = without(&train, group);
            assert_ne!(blind.iter().filter(|value| value.is_nan()).count(), 0);
            for (row, blind) in rows.chunks_exact(width).zip(blind.chunks_exact(width)) {
                assert_eq!(forest.predict(row).to_bits(), forest.predict(blind).to_bits());
            }
        }
    }

    #[test]
    fn parity_is_checked_on_odd_values_too() {
        let (rows, labels) = (vec![0.5; 100 * WIDTH], vec![0.0; 100]);
        let parity = parity_rows(&Examples { rows: &rows, width: WIDTH, labels: &labels, weights: &[], rising: &[] });
        assert_eq!(parity.len(), 200 * WIDTH);
        assert_eq!(parity[..100 * WIDTH], rows);
        let odd = &parity[100 * WIDTH..];
        for expected in ODD_VALUES {
            assert!(odd.iter().any(|value| value.to_bits() == expected.to_bits()), "{expected:e}");
        }
        assert!(odd.chunks_exact(WIDTH).all(|row| row.contains(&0.5)));
    }
}
