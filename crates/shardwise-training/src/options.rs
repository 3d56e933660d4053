//! How to train; the same options on the same dataset give the same model.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use shardwise_features::FeatureGroup;

use crate::TrainingError;
use crate::grow::Loss;

/// LightGBM adds up gradients per thread, so that the last bits of a model depend on the number of threads: it is fixed, and
/// the same on every machine. One, because its threads spin while they wait for each other: two of them on a machine that is
/// busy otherwise were measured to take more than ten times as long.
pub(crate) const THREADS: u32 = 1;
/// Most trees and leaves of a small head: it is walked for every decision, and larger forests learn rare failures by heart.
pub(crate) const SMALL_HEAD_TREES: u32 = 30;
const SMALL_HEAD_LEAVES: u32 = 8;
const SMALL_HEAD_LEARNING_RATE: f64 = 0.2;
/// Deeper trees cost every prediction and are seldom better.
const MAX_DEPTH: u32 = 16;

/// How to train.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainOptions {
    /// Name of the model in the registry.
    pub name: String,
    /// Seed of all that is drawn.
    pub seed: u64,
    /// Most trees of the forest; training stops earlier when later rows gain nothing.
    pub trees: u32,
    /// Most leaves of a tree.
    pub leaves: u32,
    /// Share of each tree that is added, in (0, 1].
    pub learning_rate: f64,
    /// Fewest rows in a leaf.
    pub min_leaf: u32,
    /// Share of the features that each tree may look at, in (0, 1].
    pub feature_fraction: f64,
    /// Share of the rows that each tree is grown on, in (0, 1].
    pub bagging_fraction: f64,
    /// Weight of a leaf's prior, in rows.
    pub leaf_shrinkage: f64,
    /// Trees without a gain on the validation rows before training stops.
    pub patience: u32,
    /// Most rows to train on; of more, a weighted sample that keeps rare congestion, evenly thinned over time.
    pub max_rows: usize,
    /// A group of features that trees may not look at, to find out what it is worth.
    pub blind_to: Option<FeatureGroup>,
    /// Whether an elastic net and a random forest are fitted to compare with; they take as long as the trees.
    pub rivals: bool,
    /// The command that makes the bundle again, for its manifest; empty for that of the command line.
    pub how_to_make_again: String,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            name: "exec".to_owned(),
            seed: 1,
            trees: 200,
            leaves: 63,
            learning_rate: 0.06,
            min_leaf: 50,
            feature_fraction: 0.7,
            bagging_fraction: 0.8,
            leaf_shrinkage: 5.0,
            patience: 25,
            max_rows: 400_000,
            blind_to: None,
            rivals: true,
            how_to_make_again: String::new(),
        }
    }
}

impl TrainOptions {
    /// The same for a small head, which decisions ask beside the large ones. Few trees must learn in larger steps, and each
    /// from all features: one that may not look at what matters moves all rows alike, and few trees follow to put that right.
    pub(crate) fn of_a_small_head(&self) -> Self {
        Self {
            trees: self.trees.min(SMALL_HEAD_TREES),
            leaves: self.leaves.min(SMALL_HEAD_LEAVES),
            learning_rate: self.learning_rate.max(SMALL_HEAD_LEARNING_RATE),
            feature_fraction: 1.0,
            ..self.clone()
        }
    }

    /// Checks that the parameters make sense.
    ///
    /// # Errors
    /// Names the parameter and what it must be.
    pub(crate) fn check(&self) -> Result<(), TrainingError> {
        let in_unit = |share: f64| share > 0.0 && share <= 1.0;
        for (name, value, holds, rule) in [
            ("trees", f64::from(self.trees), (1..=5000).contains(&self.trees), "1 to 5000"),
            ("leaves", f64::from(self.leaves), (2..=4096).contains(&self.leaves), "2 to 4096"),
            ("learning_rate", self.learning_rate, in_unit(self.learning_rate), "above 0 and at most 1"),
            ("min_leaf", f64::from(self.min_leaf), (1..=1_000_000).contains(&self.min_leaf), "1 to 1000000"),
            ("feature_fraction", self.feature_fraction, in_unit(self.feature_fraction), "above 0 and at most 1"),
            ("bagging_fraction", self.bagging_fraction, in_unit(self.bagging_fraction), "above 0 and at most 1"),
            ("leaf_shrinkage", self.leaf_shrinkage, (0.0..=1e9).contains(&self.leaf_shrinkage), "0 to 1e9"),
            ("patience", f64::from(self.patience), self.patience >= 1, "at least 1"),
            ("max_rows", self.max_rows as f64, self.max_rows >= 1, "at least 1"),
        ] {
            if !holds {
                return Err(TrainingError::Option { name, value, rule });
            }
        }
        Ok(())
    }

    /// Parameters for LightGBM to grow `trees` trees; `patience` needs validation rows.
    pub(crate) fn for_lightgbm(&self, loss: Loss, trees: u32, patience: Option<u32>) -> Value {
        let [objective, metric] = loss.names();
        let mut parameters = json!({
            "objective": objective,
            "metric": metric,
            "num_iterations": trees,
            "num_leaves": self.leaves,
            "max_depth": MAX_DEPTH,
            "learning_rate": self.learning_rate,
            "min_data_in_leaf": self.min_leaf,
            "feature_fraction": self.feature_fraction,
            "bagging_fraction": self.bagging_fraction,
            "bagging_freq": 1,
            "lambda_l2": self.leaf_shrinkage,
            // LightGBM takes 31 bits.
            "seed": self.seed % (1 << 31),
            "deterministic": true,
            "force_row_wise": true,
            "num_threads": THREADS,
            "verbosity": -1,
        });
        if let Loss::Quantile(percent) = loss {
            parameters["alpha"] = json!(f64::from(percent) / 100.0);
        }
        if let Some(rounds) = patience {
            parameters["early_stopping_rounds"] = json!(rounds);
        }
        parameters
    }

    /// The learning parameters by name, for the manifest.
    pub(crate) fn for_manifest(&self) -> BTreeMap<String, Value> {
        let parameters = [
            ("trees", json!(self.trees)),
            ("leaves", json!(self.leaves)),
            ("max_depth", json!(MAX_DEPTH)),
            ("learning_rate", json!(self.learning_rate)),
            ("min_leaf", json!(self.min_leaf)),
            ("feature_fraction", json!(self.feature_fraction)),
            ("bagging_fraction", json!(self.bagging_fraction)),
            ("leaf_shrinkage", json!(self.leaf_shrinkage)),
            ("patience", json!(self.patience)),
            ("max_rows", json!(self.max_rows)),
            ("threads", json!(THREADS)),
        ];
        parameters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absurd_parameters_are_refused_by_name() {
        let usual = TrainOptions::default;
        assert!(usual().check().is_ok());
        for (options, name) in [
            (TrainOptions { trees: 0, ..usual() }, "trees"),
            (TrainOptions { leaves: 1, ..usual() }, "leaves"),
            (TrainOptions { learning_rate: f64::NAN, ..usual() }, "learning_rate"),
            (TrainOptions { feature_fraction: 0.0, ..usual() }, "feature_fraction"),
            (TrainOptions { bagging_fraction: 1.5, ..usual() }, "bagging_fraction"),
            (TrainOptions { leaf_shrinkage: f64::INFINITY, ..usual() }, "leaf_shrinkage"),
            (TrainOptions { patience: 0, ..usual() }, "patience"),
            (TrainOptions { max_rows: 0, ..usual() }, "max_rows"),
        ] {
            let refused = options.check().expect_err(name).to_string();
            assert!(refused.contains(&format!("`{name}`")), "{refused}");
        }
    }
}
