//! The quantile heads: within how long half and nine tenths of such requests on a candidate are done.
//!
//! Two forests say how far these quantiles of ln total_ms lie from what a formula expects of the row; heads that learned
//! nothing say what the formula says. Left out: the mean, by which shards are chosen, and what responses teach a router.

use std::path::Path;

use serde::{Deserialize, Serialize};
use shardwise_features::{FEATURE_COUNT, position};

use crate::HeadProblem;
use crate::bundle::{BundleError, Files, admit_forest};
use crate::forest::Forest;
use crate::manifest::MANIFEST_FILE;

/// The quantiles that are predicted.
pub const QUANTILE_LEVELS: [f64; 2] = [0.5, 0.9];
/// Files of their forests.
pub(crate) const QUANTILE_FILES: [&str; 2] = ["q50.forest", "q90.forest"];
/// What they predict.
const QUANTILE_TARGET: &str = "ln(total_ms / formula)";
/// What the formula takes for an execution of which nothing is known, in ms.
const UNKNOWN_SERVICE_MS: f64 = 10.0;
/// Latencies lie within these, in ln ms: a microsecond to eleven days.
const LN_MS: [f64; 2] = [-6.9, 20.6];

/// What the formula needs of a row, by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Columns {
    network: [usize; 2],
    service_ln_ms: usize,
    wait_ms: usize,
}

impl Columns {
    fn known() -> Self {
        let at = |name| position(name).expect("a feature that the formula names is in the table");
        Self {
            network: [at("rtt_ms"), at("exchange_net_ms")],
            service_ln_ms: at("prior_service_ln_ms"),
            wait_ms: at("expected_wait_ms"),
        }
    }

    /// ln of network, execution and wait; what is missing, or is no time, counts as nothing.
    fn formula_ln_ms(&self, row: &[f32]) -> f64 {
        let ms = |value: f64| if value.is_finite() { value.max(0.0) } else { 0.0 };
        let service_ln_ms = f64::from(row[self.service_ln_ms]);
        let service_ms = if service_ln_ms.is_nan() { UNKNOWN_SERVICE_MS } else { bounded(service_ln_ms).exp() };
        let others = [self.network[0], self.network[1], self.wait_ms].map(|column| ms(f64::from(row[column])));
        bounded((service_ms + others.iter().sum::<f64>()).ln())
    }
}

fn bounded(ln_ms: f64) -> f64 {
    ln_ms.clamp(LN_MS[0], LN_MS[1])
}

/// ln of the latency that the formula expects of a feature vector, in ln ms: network, execution by history or own
/// measurements, and wait by the queue formula. Always finite.
///
/// # Panics
/// If `row` is shorter than a feature vector.
pub fn formula_latency_ln_ms(row: &[f32]) -> f64 {
    Columns::known().formula_ln_ms(row)
}

/// Predicts the median and the 90th percentile of a request's latency on a candidate; a failure takes longest of all.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantileHead {
    forests: [Forest; 2],
    columns: Columns,
}

impl QuantileHead {
    /// Joins the forests of the two [quantiles](QUANTILE_LEVELS), which speak in ln of the latency over the
    /// [formula](formula_latency_ln_ms).
    ///
    /// # Errors
    /// When a forest was trained on rows of another width.
    pub fn new(forests: [Forest; 2]) -> Result<Self, HeadProblem> {
        match forests.iter().map(Forest::n_features).find(|width| *width != FEATURE_COUNT) {
            None => Ok(Self { forests, columns: Columns::known() }),
            Some(found) => Err(HeadProblem::Width { found, expected: FEATURE_COUNT }),
        }
    }

    /// The trees of both.
    pub fn forests(&self) -> &[Forest; 2] {
        &self.forests
    }

    /// Predicts both quantiles of a feature vector, in ms: finite, above 0, and the second not below the first. Allocates
    /// nothing.
    ///
    /// # Panics
    /// If `row` is shorter than a feature vector.
    pub fn predict_ms(&self, row: &[f32]) -> [f64; 2] {
        let row = &row[..FEATURE_COUNT];
        let formula = self.columns.formula_ln_ms(row);
        let scores = Forest::predict_each(self.forests.each_ref(), row);
        let [median, upper] = scores.map(|score| bounded(formula + score).exp());
        // Two forests that know nothing of each other may cross.
        [median, upper.max(median)]
    }
}

/// What the manifest says of the quantile heads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantilesManifest {
    /// Files of the forests.
    pub files: [String; 2],
    /// What they predict.
    pub target: String,
    /// The quantiles.
    pub levels: [f64; 2],
    /// Trees in the forests.
    pub trees: [usize; 2],
    /// How well they do.
    pub metrics: QuantileMetrics,
}

/// How well quantile heads do on rows later than all that was trained on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantileMetrics {
    /// Rows that were trained on.
    pub train_rows: u64,
    /// Rows that were measured on.
    pub test_rows: u64,
    /// Of the median.
    pub q50: QuantileFigures,
    /// Of the 90th percentile.
    pub q90: QuantileFigures,
}

/// How well the head of one quantile does.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantileFigures {
    /// Mean pinball loss of ln total_ms.
    pub loss: f64,
    /// The same of the formula times the factor that suits the training rows best.
    pub formula_loss: f64,
    /// Share of rows that were done within the quantile; the level is right.
    pub coverage: f64,
}

/// Quantile heads and how well they do.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantileDraft {
    /// The heads.
    pub head: QuantileHead,
    /// Their losses.
    pub metrics: QuantileMetrics,
}

impl QuantileDraft {
    pub(crate) fn manifest(&self) -> QuantilesManifest {
        QuantilesManifest {
            files: QUANTILE_FILES.map(str::to_owned),
            target: QUANTILE_TARGET.to_owned(),
            levels: QUANTILE_LEVELS,
            trees: self.head.forests.each_ref().map(Forest::n_trees),
            metrics: self.metrics,
        }
    }
}

/// The heads that a manifest describes.
pub(crate) fn admit_quantiles(
    place: &Path,
    said: &QuantilesManifest,
    files: &Files,
) -> Result<QuantileHead, BundleError> {
    let problem = |source| BundleError::Head { path: place.join(MANIFEST_FILE), source };
    if said.target != QUANTILE_TARGET || said.levels != QUANTILE_LEVELS {
        let found = format!("{} at {:?}", said.target, said.levels);
        return Err(problem(HeadProblem::Target { found, expected: QUANTILE_TARGET }));
    }
    let [median, upper] = &said.files;
    let forests = [admit_forest(place, median, files)?, admit_forest(place, upper, files)?];
    for (forest, expected) in forests.iter().zip(said.trees) {
        if forest.n_trees() != expected {
            return Err(problem(HeadProblem::Trees { expected, found: forest.n_trees() }));
        }
    }
    QuantileHead::new(forests).map_err(problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forest::TreeNode;

    fn head(leaves: [f64; 2]) -> QuantileHead {
        let forest = |leaf| Forest::new(FEATURE_COUNT, &[vec![TreeNode::Leaf(leaf)]]).expect("a sound tree");
        QuantileHead::new(leaves.map(forest)).expect("a sound head")
    }

    fn row(edit: &[(&str, f32)]) -> Vec<f32> {
        let mut row = vec![f32::NAN; FEATURE_COUNT];
        edit.iter().for_each(|(name, value)| row[position(name).expect("a feature")] = *value);
        row
    }

    #[test]
    fn the_formula_adds_network_execution_and_wait() {
        let full = [
            ("rtt_ms", 4.0),
            ("exchange_net_ms", 6.0),
            ("prior_service_ln_ms", 20_f32.ln()),
            ("expected_wait_ms", 10.0),
        ];
        assert!((formula_latency_ln_ms(&row(&full)).exp() - 40.0).abs() < 1e-4);
        assert!((formula_latency_ln_ms(&row(&full[..2])).exp() - 20.0).abs() < 1e-9, "10 ms where nothing is known");
        let [median, upper] = head([0.0, 2_f64.ln()]).predict_ms(&row(&full));
        assert!((median - 40.0).abs() < 1e-4 && (upper - 80.0).abs() < 1e-4, "{median} {upper}");
    }

    #[test]
    fn quantiles_never_cross_and_are_always_times() {
        for leaves in [[1.0, -1.0], [1e300, -1e300], [-1e300, 1e300], [0.0, 0.0]] {
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -5.0, 0.0, 1e30] {
                let [median, upper] = head(leaves).predict_ms(&[value; FEATURE_COUNT]);
                assert!(median > 0.0 && upper.is_finite() && median <= upper, "{leaves:?} {value}: {median} {upper}");
            }
        }
    }

    #[test]
    fn a_forest_on_other_rows_is_refused() {
        let [narrow, wide] =
            [3, FEATURE_COUNT].map(|width| Forest::new(width, &[vec![TreeNode::Leaf(0.0)]]).expect("a sound tree"));
        assert!(QuantileHead::new([wide.clone(), narrow]).is_err());
        assert!(QuantileHead::new([wide.clone(), wide]).is_ok());
    }
}
