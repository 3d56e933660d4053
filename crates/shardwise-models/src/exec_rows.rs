//! The rows that an execution head learns from, in a file: for trainers that cannot read a dataset.
//!
//! Rows that models are measured on are not in it.

use serde::{Deserialize, Serialize};
use shardwise_features::{FEATURE_COUNT, fingerprint, position};

/// First bytes of a file; the last digit is the format's version.
const MAGIC: &[u8; 8] = b"SWROWS01";

/// Training rows of warm executions in the order of time, chosen as the execution head of trees has them chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecRows {
    /// How the features are computed.
    pub feature_fingerprint: String,
    /// Name of the dataset that they were chosen from.
    pub dataset: String,
    /// Hash of its content.
    pub dataset_hash: String,
    /// Time of the first row, in nanoseconds since 1970, UTC.
    pub trained_from_ns: i64,
    /// Time of the last row, likewise.
    pub trained_to_ns: i64,
    /// The feature whose value a head adds to, ln ms.
    pub offset_feature: String,
    /// Stands in for it where it is not known, ln ms.
    pub offset_default_ln_ms: f64,
    /// How many of the rows come before those that tell when to stop.
    pub early: u64,
    /// Feature vectors, row after row.
    pub features: Vec<f32>,
    /// ln exec_ms of each row.
    pub ln_ms: Vec<f64>,
    /// How much each row counts, 1 in the mean; empty when all count alike.
    pub weights: Vec<f32>,
}

/// Says why bytes are no rows.
#[derive(Debug, thiserror::Error)]
pub enum ExecRowsError {
    /// They are something else or cut off.
    #[error("not a file of training rows, or cut off: write it again with `shardwise dataset rows`")]
    NotRows(#[from] postcard::Error),
    /// It begins otherwise.
    #[error("not a file of training rows of this version: write it again with `shardwise dataset rows`")]
    Magic,
    /// Their features are computed in another way.
    #[error(
        "the rows have the features {found}, but this version computes {expected}: write them again with `shardwise dataset rows`"
    )]
    Fingerprint {
        /// The file's.
        found: String,
        /// This version's.
        expected: &'static str,
    },
    /// Columns do not match or hold what nothing can be learned from.
    #[error("the rows are not sound: {problem}; write them again with `shardwise dataset rows`")]
    Unsound {
        /// What is wrong.
        problem: &'static str,
    },
}

impl ExecRows {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.ln_ms.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ln_ms.is_empty()
    }

    /// The feature vectors.
    pub fn rows(&self) -> impl Iterator<Item = &[f32]> + Clone {
        self.features.chunks_exact(FEATURE_COUNT)
    }

    /// Position of the feature that a head adds to, and what stands in for it.
    ///
    /// # Panics
    /// If the rows were not checked and name a feature that does not exist.
    pub fn offset(&self) -> (usize, f64) {
        (position(&self.offset_feature).expect("checked when read"), self.offset_default_ln_ms)
    }

    /// The bytes of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_extend(self, MAGIC.to_vec()).expect("plain columns can be written to memory")
    }

    /// Reads and checks the bytes of a file.
    ///
    /// # Errors
    /// When they are no rows of this version's features.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ExecRowsError> {
        let content = bytes.strip_prefix(MAGIC).ok_or(ExecRowsError::Magic)?;
        let rows: Self = postcard::from_bytes(content)?;
        if rows.feature_fingerprint != fingerprint() {
            return Err(ExecRowsError::Fingerprint { found: rows.feature_fingerprint, expected: fingerprint() });
        }
        rows.check().map_err(|problem| ExecRowsError::Unsound { problem })?;
        Ok(rows)
    }

    fn check(&self) -> Result<(), &'static str> {
        let n = self.len();
        let early = usize::try_from(self.early).unwrap_or(usize::MAX);
        for (holds, problem) in [
            (self.features.len() == n * FEATURE_COUNT, "there is not one feature vector for each label"),
            (self.weights.is_empty() || self.weights.len() == n, "there is not one weight for each label"),
            (early > 0 && early < n, "the earlier rows are none or all"),
            (position(&self.offset_feature).is_some(), "the offset is not among the features"),
            (self.offset_default_ln_ms.is_finite(), "the offset's default is not finite"),
            (self.ln_ms.iter().all(|ln_ms| ln_ms.is_finite()), "a label is not finite"),
            (self.weights.iter().all(|weight| weight.is_finite() && *weight > 0.0), "a weight is not above 0"),
        ] {
            if !holds {
                return Err(problem);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> ExecRows {
        ExecRows {
            feature_fingerprint: fingerprint().to_owned(),
            dataset: "sample".to_owned(),
            dataset_hash: "0123".to_owned(),
            trained_from_ns: 1,
            trained_to_ns: 2,
            offset_feature: "prior_service_ln_ms".to_owned(),
            offset_default_ln_ms: 2.5,
            early: 2,
            features: (0..3 * FEATURE_COUNT).map(|i| i as f32).collect(),
            ln_ms: vec![1.0, -2.0, 0.5],
            weights: vec![0.5, 1.5, 1.0],
        }
    }

    #[test]
    fn a_file_brings_back_every_row() {
        assert_eq!(ExecRows::from_bytes(&rows().to_bytes()).expect("sound rows"), rows());
    }

    #[test]
    fn what_nothing_can_be_learned_from_is_refused() {
        let refusal = |change: fn(&mut ExecRows)| {
            let mut rows = rows();
            change(&mut rows);
            ExecRows::from_bytes(&rows.to_bytes()).expect_err("a refusal").to_string()
        };
        assert!(refusal(|rows| rows.feature_fingerprint.push('0')).contains("this version computes"));
        assert!(refusal(|rows| _ = rows.features.pop()).contains("one feature vector for each label"));
        assert!(refusal(|rows| _ = rows.weights.pop()).contains("one weight for each label"));
        assert!(refusal(|rows| rows.weights[1] = 0.0).contains("a weight is not above 0"));
        assert!(refusal(|rows| rows.early = 3).contains("none or all"));
        assert!(refusal(|rows| rows.ln_ms[0] = f64::NAN).contains("a label is not finite"));
        assert!(refusal(|rows| rows.offset_feature.clear()).contains("offset is not among"));
        let bytes = rows().to_bytes();
        for end in 0..bytes.len() {
            assert!(ExecRows::from_bytes(&bytes[..end]).is_err(), "cut after {end}");
        }
    }
}
