//! The execution head: what history expects of the request on the candidate, and what the trees add to it.
//!
//! It predicts the mean of ln exec_ms. Left out: queueing, network and failures.

use shardwise_features::{FEATURE_COUNT, FEATURES};

use crate::forest::Forest;

/// Says why the parts do not make an execution head.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum HeadProblem {
    /// The forest was trained on rows of another width.
    #[error("its forest reads {found} features, not {expected}: train it on the features of this version")]
    Width {
        /// Features that the forest reads.
        found: usize,
        /// Values that it will be given.
        expected: usize,
    },
    /// There is no feature of that name.
    #[error("there is no feature `{name}` to add its answer to")]
    NoSuchFeature {
        /// The name.
        name: String,
    },
    /// It predicts something that is not served.
    #[error("its target is `{found}`, not `{expected}`")]
    Target {
        /// What it predicts.
        found: String,
        /// What is served.
        expected: &'static str,
    },
    /// A number cannot be worked with.
    #[error("its `{field}` is {value}: it must be {rule}")]
    Number {
        /// The number's name in the manifest.
        field: &'static str,
        /// Its value.
        value: f64,
        /// What it must be.
        rule: &'static str,
    },
    /// The forest is not the one that the manifest describes.
    #[error("its forest has {found} trees, but its manifest says {expected}")]
    Trees {
        /// Trees by the manifest.
        expected: usize,
        /// Trees in the forest.
        found: usize,
    },
}

/// Predicts in the place of a bundle's execution head: a model that somebody else made.
pub trait ExecModel: Send + Sync {
    /// Predicts the mean of ln warm execution ms of `out.len()` feature vectors, one after the other in `rows`; NaN where it
    /// cannot, upon which a router decides without a model.
    fn predict_ln_ms_rows(&self, rows: &[f32], out: &mut [f64]);
}

/// Predicts ln exec_ms of a request on a candidate. Every prediction is finite.
#[derive(Debug, Clone, PartialEq)]
pub struct ExecHead {
    forest: Forest,
    offset_feature: usize,
    offset_default_ln_ms: f64,
    smearing: f64,
    residual_sd: f64,
}

/// Checks what heads of trees and neural heads have in common.
pub(crate) fn check_numbers(
    (offset_feature, offset_default_ln_ms): (usize, f64),
    smearing: f64,
    residual_sd: f64,
) -> Result<(), HeadProblem> {
    if offset_feature >= FEATURE_COUNT {
        return Err(HeadProblem::NoSuchFeature { name: format!("number {offset_feature}") });
    }
    for (field, value, holds, rule) in [
        ("offset_default_ln_ms", offset_default_ln_ms, offset_default_ln_ms.is_finite(), "finite"),
        ("smearing", smearing, smearing.is_finite() && smearing > 0.0, "finite and above 0"),
        ("residual_sd", residual_sd, residual_sd.is_finite() && residual_sd >= 0.0, "finite and not below 0"),
    ] {
        if !holds {
            return Err(HeadProblem::Number { field, value, rule });
        }
    }
    Ok(())
}

impl ExecHead {
    /// Checks the parts and joins them; the offset feature is given by its position.
    ///
    /// # Errors
    /// Says which part cannot be served.
    pub fn new(
        forest: Forest,
        offset_feature: usize,
        offset_default_ln_ms: f64,
        smearing: f64,
        residual_sd: f64,
    ) -> Result<Self, HeadProblem> {
        if forest.n_features() != FEATURE_COUNT {
            return Err(HeadProblem::Width { found: forest.n_features(), expected: FEATURE_COUNT });
        }
        check_numbers((offset_feature, offset_default_ln_ms), smearing, residual_sd)?;
        Ok(Self { forest, offset_feature, offset_default_ln_ms, smearing, residual_sd })
    }

    /// The trees: what the offset misses.
    pub fn forest(&self) -> &Forest {
        &self.forest
    }

    /// Position of the feature that the trees add to.
    pub fn offset_feature(&self) -> usize {
        self.offset_feature
    }

    /// Name of the feature that the trees add to.
    pub fn offset_feature_name(&self) -> &'static str {
        FEATURES[self.offset_feature].name
    }

    /// Stands in for that feature where it is not known.
    pub fn offset_default_ln_ms(&self) -> f64 {
        self.offset_default_ln_ms
    }

    /// Factor from the exponential of a prediction to the mean execution time.
    pub fn smearing(&self) -> f64 {
        self.smearing
    }

    /// Standard deviation of ln exec_ms around a prediction.
    pub fn residual_sd(&self) -> f64 {
        self.residual_sd
    }

    /// The same head with other figures of its errors, for a model that answers in the place of its trees.
    ///
    /// # Errors
    /// When a figure is not one that can be served.
    pub fn with_errors(&self, smearing: f64, residual_sd: f64) -> Result<Self, HeadProblem> {
        check_numbers((self.offset_feature, self.offset_default_ln_ms), smearing, residual_sd)?;
        Ok(Self { smearing, residual_sd, ..self.clone() })
    }

    /// The same head with trees that say `factor` times as much; -1 inverts what they learned. For trying out guards.
    #[must_use]
    pub fn with_trees_scaled(&self, factor: f64) -> Self {
        Self { forest: self.forest.scaled(factor), ..self.clone() }
    }

    /// What is expected of this row before the trees have spoken, in ln ms.
    ///
    /// # Panics
    /// If `row` is shorter than a feature vector.
    pub fn offset_ln_ms(&self, row: &[f32]) -> f64 {
        let known = f64::from(row[self.offset_feature]);
        if known.is_finite() { known } else { self.offset_default_ln_ms }
    }

    /// Mean of ln execution ms for this row. Allocates nothing.
    ///
    /// # Panics
    /// If `row` is shorter than a feature vector.
    pub fn predict_ln_ms(&self, row: &[f32]) -> f64 {
        self.offset_ln_ms(row) + self.forest.predict(row)
    }

    /// Predicts many rows, one after the other in `rows`, with the answers of [`ExecHead::predict_ln_ms`], bit for bit.
    /// Allocates nothing.
    ///
    /// # Panics
    /// If `rows` does not hold one feature vector for each place in `out`.
    pub fn predict_ln_ms_rows(&self, rows: &[f32], out: &mut [f64]) {
        self.forest.predict_rows(rows, FEATURE_COUNT, out);
        self.add_offsets(rows, out);
    }

    pub(crate) fn add_offsets(&self, rows: &[f32], out: &mut [f64]) {
        for (row, answer) in rows.chunks_exact(FEATURE_COUNT).zip(out) {
            *answer += self.offset_ln_ms(row);
        }
    }
}

impl ExecModel for ExecHead {
    fn predict_ln_ms_rows(&self, rows: &[f32], out: &mut [f64]) {
        Self::predict_ln_ms_rows(self, rows, out);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use shardwise_features::position;

    use super::*;
    use crate::forest::{Missing, TreeNode};

    pub(crate) fn forest() -> Forest {
        let split = TreeNode::Split { feature: 1, threshold: 1.5, missing: Missing::NanRight, left: 1, right: 2 };
        let tree = vec![split, TreeNode::Leaf(-0.25), TreeNode::Leaf(0.5)];
        Forest::new(FEATURE_COUNT, &[tree.clone(), tree]).expect("sound trees")
    }

    fn offset_feature() -> usize {
        position("prior_service_ln_ms").expect("the feature exists")
    }

    pub(crate) fn head() -> ExecHead {
        ExecHead::new(forest(), offset_feature(), 3.25, 1.125, 0.5).expect("a sound head")
    }

    #[test]
    fn trees_add_to_what_is_known_or_to_the_default() {
        let mut row = [0.0; FEATURE_COUNT];
        row[offset_feature()] = 2.0;
        assert_eq!(head().predict_ln_ms(&row), 1.5);
        row[1] = 2.0;
        assert_eq!(head().predict_ln_ms(&row), 3.0);
        for unknown in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            row[offset_feature()] = unknown;
            assert_eq!(head().predict_ln_ms(&row), 4.25);
        }
    }

    #[test]
    fn many_rows_get_the_answers_of_one_row_at_a_time() {
        let special = [f32::NAN, f32::INFINITY, 0.1, -7.3, 1.5, f32::MAX];
        let rows: Vec<f32> = (0..FEATURE_COUNT * 37).map(|i| special[(i * i + i / 5) % special.len()]).collect();
        let mut answers = [0.0; 37];
        head().predict_ln_ms_rows(&rows, &mut answers);
        for (row, answer) in rows.chunks_exact(FEATURE_COUNT).zip(answers) {
            assert_eq!(head().predict_ln_ms(row).to_bits(), answer.to_bits());
            assert!(answer.is_finite());
        }
    }

    #[test]
    fn parts_that_cannot_be_served_are_refused() {
        let narrow = Forest::new(3, &[vec![TreeNode::Leaf(0.0)]]).expect("a sound tree");
        let refusal = |forest, feature, default, smearing, sd| {
            ExecHead::new(forest, feature, default, smearing, sd).expect_err("a refusal").to_string()
        };
        assert!(refusal(narrow, 0, 0.0, 1.0, 0.0).contains("reads 3 features"));
        assert!(refusal(forest(), FEATURE_COUNT, 0.0, 1.0, 0.0).contains("no feature"));
        assert!(refusal(forest(), 0, f64::NAN, 1.0, 0.0).contains("offset_default_ln_ms"));
        assert!(refusal(forest(), 0, 0.0, 0.0, 0.0).contains("smearing"));
        assert!(refusal(forest(), 0, 0.0, 1.0, -1.0).contains("residual_sd"));
    }
}
