//! The heads beside the execution head: how probable a cold start is, how long the request will queue, and how probable it is
//! that it fails.
//!
//! All are forests behind a link function, on the features of a candidate. Left out: what a cold start costs, which the
//! service table knows.

use serde::{Deserialize, Serialize};
use shardwise_features::FEATURE_COUNT;

use crate::HeadProblem;
use crate::forest::Forest;

/// No queue is predicted to be longer, in ms: an exponential must stay a number.
pub(crate) const MAX_WAIT_MS: f64 = 1e9;

/// What a side head predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SideTarget {
    /// Probability that the function must be loaded first, in [0, 1]. The forest speaks in log-odds.
    #[serde(rename = "probability of cold")]
    Cold,
    /// Time in the shard's queue in ms. The forest speaks in means of ln(1 + ms).
    #[serde(rename = "ln(1 + queue_ms)")]
    Wait,
    /// Probability that the request fails there, by an error, a timeout or a drop, in [0, 1]. The forest speaks in log-odds.
    #[serde(rename = "probability of failure")]
    Error,
}

impl SideTarget {
    /// Its name in manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cold => "probability of cold",
            Self::Wait => "ln(1 + queue_ms)",
            Self::Error => "probability of failure",
        }
    }

    /// The file of its forest in a bundle.
    pub(crate) fn file(self) -> &'static str {
        match self {
            Self::Cold => "cold.forest",
            Self::Wait => "wait.forest",
            Self::Error => "error.forest",
        }
    }

    /// From what the forest says to what is predicted.
    pub fn of_score(self, score: f64) -> f64 {
        match self {
            Self::Cold | Self::Error => 1.0 / (1.0 + (-score).exp()),
            Self::Wait => score.exp_m1().clamp(0.0, MAX_WAIT_MS),
        }
    }
}

/// Predicts one thing of a request on a candidate. Every prediction is finite and not below 0.
#[derive(Debug, Clone, PartialEq)]
pub struct SideHead {
    target: SideTarget,
    forest: Forest,
}

impl SideHead {
    /// Joins a forest with what it predicts.
    ///
    /// # Errors
    /// When the forest was trained on rows of another width.
    pub fn new(target: SideTarget, forest: Forest) -> Result<Self, HeadProblem> {
        match forest.n_features() {
            FEATURE_COUNT => Ok(Self { target, forest }),
            found => Err(HeadProblem::Width { found, expected: FEATURE_COUNT }),
        }
    }

    /// What it predicts.
    pub fn target(&self) -> SideTarget {
        self.target
    }

    /// Its trees.
    pub fn forest(&self) -> &Forest {
        &self.forest
    }

    /// Predicts many rows, one feature vector after the other in `rows`. Allocates nothing.
    ///
    /// # Panics
    /// If `rows` does not hold one feature vector for each place in `out`.
    pub fn predict_rows(&self, rows: &[f32], out: &mut [f64]) {
        self.forest.predict_rows(rows, FEATURE_COUNT, out);
        out.iter_mut().for_each(|answer| *answer = self.target.of_score(*answer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forest::TreeNode;

    fn head(target: SideTarget, leaf: f64) -> SideHead {
        let forest = Forest::new(FEATURE_COUNT, &[vec![TreeNode::Leaf(leaf)]]).expect("a sound tree");
        SideHead::new(target, forest).expect("a sound head")
    }

    #[test]
    fn a_probability_is_one_and_a_wait_is_a_time() {
        let rows = [f32::NAN; FEATURE_COUNT];
        let answer = |target, leaf| {
            let mut out = [f64::NAN];
            head(target, leaf).predict_rows(&rows, &mut out);
            out[0]
        };
        assert_eq!(answer(SideTarget::Cold, 0.0), 0.5);
        assert_eq!(answer(SideTarget::Wait, 0.0), 0.0);
        for leaf in [-1e300, -800.0, 800.0, 1e300] {
            for target in [SideTarget::Cold, SideTarget::Error] {
                assert!((0.0..=1.0).contains(&answer(target, leaf)));
            }
            assert!((0.0..=MAX_WAIT_MS).contains(&answer(SideTarget::Wait, leaf)));
        }
    }

    #[test]
    fn a_forest_on_other_rows_is_refused() {
        let narrow = Forest::new(3, &[vec![TreeNode::Leaf(0.0)]]).expect("a sound tree");
        assert!(SideHead::new(SideTarget::Cold, narrow).is_err());
    }
}
