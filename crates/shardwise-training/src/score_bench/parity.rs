//! Whether the served leaves and their sums are LightGBM's on many rows that were made to find a difference.

use serde::Serialize;
use shardwise_models::forest::{Factored, Forest, Scratch, TreeNode};
use shardwise_models::onnx::OnnxModel;

use super::data::{Generator, sharing_rows};
use super::engines::open_onnx;
use super::lightgbm::RawScores;
use super::{Model, ScoreBenchOptions};
use crate::TrainingError;
use crate::lightgbm_text::{ConversionError, forest_from_lightgbm_text};

/// Rows that share their first values, as the candidates of one decision do.
const DECISION: usize = 16;
/// Rows that are compared at a time.
const BLOCK: usize = 500 * DECISION;
const ODD_VALUES: [f32; 9] =
    [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e-36, f32::MAX, f32::MIN, f32::MIN_POSITIVE];

/// Leaves and their sums compared, sums bit by bit, by the walk and by the factored forest where the trees suit it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Parity {
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
    /// What was compared.
    pub ways: Vec<&'static str>,
    /// Sums that differ in any bit, over all ways.
    pub different: usize,
    /// Leaves that are not LightGBM's, over all ways.
    pub different_leaves: usize,
    /// The largest difference of ONNX Runtime's sums of the exported model; nothing when it is not there.
    pub onnx_max_difference: Option<f64>,
}

/// Trains two models, without and with zero taken for missing, and compares what is served with LightGBM on so many rows of
/// each: values as in training, thresholds and their neighbours, infinities, missing values, zeros.
///
/// # Errors
/// When the parameters make no sense or LightGBM fails. Differences are no error, they are counted.
pub fn check_parity(
    options: &ScoreBenchOptions,
    rows: usize,
    progress: &mut dyn FnMut(String),
) -> Result<Vec<Parity>, TrainingError> {
    if rows == 0 {
        return Err(TrainingError::Option { name: "parity", value: 0.0, rule: "1 or more rows" });
    }
    [false, true].into_iter().map(|zero_is_missing| check_model(options, zero_is_missing, rows, progress)).collect()
}

fn check_model(
    options: &ScoreBenchOptions,
    zero_is_missing: bool,
    rows: usize,
    progress: &mut dyn FnMut(String),
) -> Result<Parity, TrainingError> {
    let mut model = Model::train(options, zero_is_missing)?;
    let thresholds = thresholds(&model, model.generator.width());
    let mut checked = Checked::new(&model)?;
    let mut parity = Parity {
        zero_is_missing,
        rows,
        nan: 0,
        infinite: 0,
        thresholds: 0,
        ways: checked.ways(),
        different: 0,
        different_leaves: 0,
        onnx_max_difference: checked.onnx.is_some().then_some(0.0),
    };
    for first in (0..rows).step_by(BLOCK) {
        progress(format!("parity of row {first} of {rows}"));
        let (generator, width) = (&mut model.generator, thresholds.len());
        let (count, n_shared) = (BLOCK.min(rows - first), generator.n_shared());
        let telling = |feature: usize| telling(generator, &thresholds[feature], feature);
        let values = sharing_rows(count, DECISION, width, n_shared, telling);
        parity.count_values(&values, &thresholds);
        checked.compare(&values, &mut parity)?;
    }
    Ok(parity)
}

/// A model in all the forms that are compared.
struct Checked {
    width: usize,
    lightgbm: RawScores,
    forest: Forest,
    /// Trees with the numbers of their leaves in the place of values, each a forest of its own.
    numbered: Vec<Forest>,
    /// The forest, and its numbered trees.
    factored: Option<(Factored, Factored)>,
    scratch: Scratch,
    onnx: Option<OnnxModel>,
}

impl Checked {
    fn new(model: &Model) -> Result<Self, TrainingError> {
        let width = model.generator.width();
        let lightgbm = RawScores::new(&model.text, width).map_err(lightgbm_failed)?;
        let numbered = forest_from_lightgbm_text(&with_leaf_numbers(&model.text), width)?.to_trees();
        let numbered: Vec<Forest> = numbered
            .into_iter()
            .map(|tree| Forest::new(width, &[tree]))
            .collect::<Result<_, _>>()
            .map_err(ConversionError::from)?;
        let n_shared = model.generator.n_shared();
        let by_tree: Vec<&Forest> = numbered.iter().collect();
        let factored = Factored::new(&[&model.forest], n_shared).zip(Factored::new(&by_tree, n_shared));
        let (forest, onnx) = (model.forest.clone(), open_onnx(&model.forest).ok());
        Ok(Self { width, lightgbm, forest, numbered, factored, scratch: Scratch::default(), onnx })
    }

    fn ways(&self) -> Vec<&'static str> {
        ["walk"].into_iter().chain(self.factored.is_some().then_some("factored")).collect()
    }

    fn compare(&mut self, rows: &[f32], parity: &mut Parity) -> Result<(), TrainingError> {
        let (n_rows, n_trees) = (rows.len() / self.width, self.numbered.len());
        let mut sums = vec![0.0; n_rows];
        let mut leaves = vec![0.0; n_rows * n_trees];
        self.lightgbm.matrix(rows, &mut sums).map_err(lightgbm_failed)?;
        self.lightgbm.leaves(rows, n_trees, &mut leaves).map_err(lightgbm_failed)?;
        let mut served = vec![0.0; n_rows];
        self.forest.predict_rows(rows, self.width, &mut served);
        parity.different += differences(&sums, &served);
        for (tree, forest) in self.numbered.iter().enumerate() {
            forest.predict_rows(rows, self.width, &mut served);
            let expected: Vec<f64> = leaves.iter().skip(tree).step_by(n_trees).copied().collect();
            parity.different_leaves += differences(&expected, &served);
        }
        if let Some((whole, by_tree)) = &self.factored {
            let decisions = rows.chunks(self.width * DECISION).zip(sums.chunks(DECISION));
            for ((rows, sums), leaves) in decisions.zip(leaves.chunks(DECISION * n_trees)) {
                let mut served = vec![0.0; sums.len()];
                whole.predict_rows(rows, self.width, &mut self.scratch, &mut served);
                parity.different += differences(sums, &served);
                let mut served = vec![0.0; leaves.len()];
                by_tree.predict_rows(rows, self.width, &mut self.scratch, &mut served);
                // Tree by tree here, row by row there.
                let expected: Vec<f64> =
                    (0..leaves.len()).map(|place| leaves[place % sums.len() * n_trees + place / sums.len()]).collect();
                parity.different_leaves += differences(&expected, &served);
            }
        }
        if let (Some(onnx), Some(most)) = (&mut self.onnx, &mut parity.onnx_max_difference) {
            let failed = |error: shardwise_models::onnx::OnnxError| TrainingError::Engine {
                engine: "onnxruntime",
                problem: error.to_string(),
            };
            onnx.predict_rows(rows, &mut served).map_err(failed)?;
            *most = sums.iter().zip(&served).fold(*most, |most, (a, b)| most.max((a - b).abs()));
        }
        Ok(())
    }
}

fn lightgbm_failed(problem: String) -> TrainingError {
    TrainingError::Engine { engine: "lightgbm", problem }
}

/// Values that differ in any bit.
fn differences(expected: &[f64], served: &[f64]) -> usize {
    expected.iter().zip(served).filter(|(a, b)| a.to_bits() != b.to_bits()).count()
}

/// The same model with the number of each leaf in its tree as its value.
fn with_leaf_numbers(text: &str) -> String {
    let numbered = |line: &str| match line.strip_prefix("leaf_value=") {
        Some(values) => {
            let numbers: Vec<String> =
                (0..values.split_ascii_whitespace().count()).map(|number| number.to_string()).collect();
            format!("leaf_value={}", numbers.join(" "))
        }
        None => line.to_owned(),
    };
    text.split('\n').map(numbered).collect::<Vec<_>>().join("\n")
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
fn telling(generator: &mut Generator, thresholds: &[f32], feature: usize) -> f32 {
    match generator.below(10) {
        0..=4 => generator.value(feature),
        5..=8 if !thresholds.is_empty() => {
            let threshold = thresholds[generator.below(thresholds.len())];
            [threshold, threshold, threshold.next_up(), threshold.next_down()][generator.below(4)]
        }
        _ => ODD_VALUES[generator.below(ODD_VALUES.len())],
    }
}

impl Parity {
    fn count_values(&mut self, rows: &[f32], thresholds: &[Vec<f32>]) {
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
    use crate::covered_forest_from_lightgbm_text;

    const OPTIONS: ScoreBenchOptions = ScoreBenchOptions { trees: 30, leaves: 31, features: 12, seed: 5, python: None };

    #[test]
    fn no_sum_and_no_leaf_differs_from_lightgbm() {
        for parity in check_parity(&OPTIONS, 20_000, &mut |_| {}).expect("a comparison") {
            assert_eq!((parity.rows, parity.different, parity.different_leaves), (20_000, 0, 0), "{parity:?}");
            assert_eq!(parity.ways, ["walk", "factored"]);
            assert!(parity.nan > 1_000 && parity.infinite > 1_000 && parity.thresholds > 1_000, "{parity:?}");
        }
    }

    /// The same model where zero, too, is missing in all splits where NaN is.
    fn with_zero_missing(text: &str) -> String {
        // As long as before: LightGBM finds its trees by their sizes.
        let rule = |rule: &str| if rule == "8" { "4" } else { "06" }.to_owned();
        let changed = |line: &str| match line.strip_prefix("decision_type=") {
            Some(rules) => {
                format!("decision_type={}", rules.split_ascii_whitespace().map(rule).collect::<Vec<_>>().join(" "))
            }
            None => line.to_owned(),
        };
        text.split('\n').map(changed).collect::<Vec<_>>().join("\n")
    }

    /// The largest difference of any contribution from LightGBM's, and of a row's sum from its answer, both over the mean size
    /// of an answer.
    fn contributions_differ_by(zero_is_missing: bool, n_rows: usize) -> [f64; 2] {
        let mut model = Model::train(&OPTIONS, false).expect("a model");
        if zero_is_missing {
            model.text = with_zero_missing(&model.text);
        }
        let width = OPTIONS.features;
        let thresholds = thresholds(&model, width);
        let rows: Vec<f32> = (0..n_rows * width)
            .map(|place| telling(&mut model.generator, &thresholds[place % width], place % width))
            .collect();
        let (forest, covers) = covered_forest_from_lightgbm_text(&model.text, width).expect("a forest with its counts");
        let mut expected = vec![0.0; n_rows * (width + 1)];
        let mut lightgbm = RawScores::new(&model.text, width).expect("LightGBM's own");
        lightgbm.contributions(&rows, &mut expected).expect("LightGBM's contributions");
        let (mut scale, mut differ, mut sum_differs) = (0.0, 0.0_f64, 0.0_f64);
        for (row, expected) in rows.chunks_exact(width).zip(expected.chunks_exact(width + 1)) {
            let mut out = vec![0.0; width];
            let mean = forest.contributions(&covers, row, &mut out);
            out.push(mean);
            let answer = forest.predict(row);
            scale += answer.abs() / n_rows as f64;
            sum_differs = sum_differs.max((out.iter().sum::<f64>() - answer).abs());
            differ = out.iter().zip(expected).fold(differ, |most, (a, b)| most.max((a - b).abs()));
        }
        [differ / scale, sum_differs / scale]
    }

    #[test]
    fn contributions_are_lightgbms_and_add_up() {
        for zero_is_missing in [false, true] {
            let [differ, sum_differs] = contributions_differ_by(zero_is_missing, 10_000);
            println!("contributions differ by {differ:e}, their sums by {sum_differs:e} of an answer");
            assert!(differ < 1e-9 && sum_differs < 1e-9, "{differ:e}, {sum_differs:e}");
        }
    }

    #[test]
    fn nothing_is_not_compared() {
        assert!(matches!(check_parity(&OPTIONS, 0, &mut |_| {}), Err(TrainingError::Option { .. })));
    }

    #[test]
    fn wrong_sums_and_leaves_are_counted() {
        let mut model = Model::train(&OPTIONS, false).expect("a model");
        let rows = model.generator.decisions(3, DECISION, model.generator.n_shared()).rows;
        let mut parity = check_parity(&OPTIONS, 1, &mut |_| {}).expect("a comparison").remove(0);
        let mut checked = Checked::new(&model).expect("a model to compare");
        checked.forest = checked.forest.scaled(1.0 + f64::EPSILON);
        checked.numbered.swap(0, 1);
        checked.compare(&rows, &mut parity).expect("a comparison");
        assert!(parity.different > 0 && parity.different <= 3 * DECISION, "only the walk errs: {parity:?}");
        assert!(parity.different_leaves > 0 && parity.different_leaves <= 2 * 3 * DECISION, "{parity:?}");
    }
}
