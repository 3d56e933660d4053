//! Heads that predict the whole latency of a request on a candidate, network and queueing included: what the execution
//! head is compared with.
//!
//! No router serves them and no bundle holds them.

use serde::{Deserialize, Serialize};
use shardwise_features::{FEATURE_COUNT, SPECIFICATION_FEATURES};

use crate::HeadProblem;
use crate::forest::Forest;

/// What a latency head reads of a candidate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LatencyColumns {
    /// All features.
    Features,
    /// The specification's features, which say nothing of the candidate, and then which one it is: one column for each
    /// shard of these keys, which rise. An unseen shard has 0 in all of them.
    SpecificationAndShard(Vec<u64>),
}

impl LatencyColumns {
    /// The specification's features and the shards of these keys, which may repeat themselves.
    pub fn specification_and_shard(mut shards: Vec<u64>) -> Self {
        shards.sort_unstable();
        shards.dedup();
        Self::SpecificationAndShard(shards)
    }

    /// Number of columns.
    pub fn width(&self) -> usize {
        match self {
            Self::Features => FEATURE_COUNT,
            Self::SpecificationAndShard(shards) => SPECIFICATION_FEATURES + shards.len(),
        }
    }

    /// Adds the row of a candidate, given its feature vector and its shard's key, to the end of `rows`.
    ///
    /// # Panics
    /// If `features` is shorter than a feature vector.
    pub fn push_row(&self, features: &[f32], shard: u64, rows: &mut Vec<f32>) {
        match self {
            Self::Features => rows.extend_from_slice(&features[..FEATURE_COUNT]),
            Self::SpecificationAndShard(shards) => {
                rows.extend_from_slice(&features[..SPECIFICATION_FEATURES]);
                rows.extend(shards.iter().map(|key| f32::from(u8::from(*key == shard))));
            }
        }
    }
}

/// Predicts the mean of ln total_ms, where a failure counts as the timeout. Every prediction is finite.
#[derive(Debug, Clone, PartialEq)]
pub struct LatencyHead {
    columns: LatencyColumns,
    forest: Forest,
}

impl LatencyHead {
    /// Joins a forest with the columns that it was trained on.
    ///
    /// # Errors
    /// When the forest reads another number of columns.
    pub fn new(columns: LatencyColumns, forest: Forest) -> Result<Self, HeadProblem> {
        match forest.n_features() == columns.width() {
            true => Ok(Self { columns, forest }),
            false => Err(HeadProblem::Width { found: forest.n_features(), expected: columns.width() }),
        }
    }

    /// What it reads.
    pub fn columns(&self) -> &LatencyColumns {
        &self.columns
    }

    /// Its trees.
    pub fn forest(&self) -> &Forest {
        &self.forest
    }

    /// Predicts rows of [`LatencyColumns::push_row`], one after the other in `rows`, in ln ms. Allocates nothing.
    ///
    /// # Panics
    /// If `rows` does not hold one row for each place in `out`.
    pub fn predict_ln_ms_rows(&self, rows: &[f32], out: &mut [f64]) {
        self.forest.predict_rows(rows, self.columns.width(), out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forest::TreeNode;

    #[test]
    fn a_row_names_its_shard_and_an_unseen_shard_has_no_name() {
        let columns = LatencyColumns::specification_and_shard(vec![9, 4, 9]);
        assert_eq!(columns.width(), SPECIFICATION_FEATURES + 2);
        let features: Vec<f32> = (0..FEATURE_COUNT).map(|i| i as f32).collect();
        for (shard, named) in [(4, [1.0, 0.0]), (9, [0.0, 1.0]), (5, [0.0, 0.0])] {
            let mut row = Vec::new();
            columns.push_row(&features, shard, &mut row);
            assert_eq!(row[..SPECIFICATION_FEATURES], features[..SPECIFICATION_FEATURES]);
            assert_eq!(row[SPECIFICATION_FEATURES..], named);
        }
    }

    #[test]
    fn a_forest_for_other_columns_is_refused() {
        let forest = Forest::new(FEATURE_COUNT, &[vec![TreeNode::Leaf(1.0)]]).expect("a sound tree");
        let columns = LatencyColumns::specification_and_shard(vec![1, 2, 3]);
        let refusal = LatencyHead::new(columns, forest.clone()).expect_err("a refusal").to_string();
        assert!(refusal.contains(&format!("reads {FEATURE_COUNT} features, not 25")), "{refusal}");
        assert!(LatencyHead::new(LatencyColumns::Features, forest).is_ok());
    }
}
