//! The manifest of a bundle: what is in it, what it was made of and how to make it again.
//!
//! It holds no creation time: the same data and seed give the same bytes and so the same version.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shardwise_types::Timestamp;

use crate::confidence_curve::CalibrationManifest;
use crate::quantile_head::QuantilesManifest;
use crate::side_head::SideTarget;

/// The version of the bundle format that is written and read here.
pub const FORMAT_VERSION: u32 = 2;
/// The manifest's file name.
pub(crate) const MANIFEST_FILE: &str = "manifest.json";
/// The service table's file name.
pub(crate) const TABLE_FILE: &str = "service_table.bin";
/// The execution head's file name.
pub(crate) const EXEC_FILE: &str = "exec.forest";
/// What an execution head predicts.
pub(crate) const EXEC_TARGET: &str = "ln warm exec_ms";

/// `manifest.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the bundle format.
    pub format_version: u32,
    /// Name of the model, which versions share.
    pub name: String,
    /// Fingerprint of the features that the heads read.
    pub feature_fingerprint: String,
    /// Names of these features, in order.
    pub feature_names: Vec<String>,
    /// What it was trained on.
    pub dataset: DatasetSource,
    /// Time of the first training row.
    #[serde(serialize_with = "as_text")]
    pub trained_from: Timestamp,
    /// Time of the last training row.
    #[serde(serialize_with = "as_text")]
    pub trained_to: Timestamp,
    /// Seed of the training.
    pub seed: u64,
    /// Version of the code that trained.
    pub code_version: String,
    /// Learning parameters by name.
    pub parameters: BTreeMap<String, serde_json::Value>,
    /// The learned heads.
    pub heads: Heads,
    /// What its confidence stands for, when a closed loop told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<CalibrationManifest>,
    /// All files beside the manifest by name.
    pub files: BTreeMap<String, FileEntry>,
    /// The command that makes this bundle again.
    pub how_to_make_again: String,
}

impl Manifest {
    /// How well each head does, and the calibration of confidence, by name: an object of objects, without what is not there.
    pub fn metrics(&self) -> serde_json::Value {
        let Heads { exec, cold, wait, error, quantiles } = &self.heads;
        let side = |head: &Option<SideManifest>| head.as_ref().map(|head| serde_json::json!(head.metrics));
        let all = [
            ("exec", exec.as_ref().map(|head| serde_json::json!(head.metrics))),
            ("cold", side(cold)),
            ("wait", side(wait)),
            ("error", side(error)),
            ("quantiles", quantiles.as_ref().map(|heads| serde_json::json!(heads.metrics))),
            ("confidence", self.calibration.as_ref().map(|said| serde_json::json!(said.metrics))),
        ];
        all.into_iter().filter_map(|(name, metrics)| Some((name.to_owned(), metrics?))).collect()
    }
}

/// A dataset that a model was trained on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetSource {
    /// Its name.
    pub id: String,
    /// Hash of its content.
    pub hash: String,
    /// Rows in it.
    pub rows: u64,
    /// Start of the time that it covers.
    #[serde(serialize_with = "as_text")]
    pub from: Timestamp,
    /// End of the time that it covers.
    #[serde(serialize_with = "as_text")]
    pub to: Timestamp,
}

/// The learned heads; a bundle without any still has its service table.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heads {
    /// Predicts execution times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecManifest>,
    /// Predicts how probable cold starts are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cold: Option<SideManifest>,
    /// Predicts time in queues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<SideManifest>,
    /// Predicts how probable failures are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<SideManifest>,
    /// Predicts quantiles of the latency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantiles: Option<QuantilesManifest>,
}

/// What the manifest says of a side head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SideManifest {
    /// File of the forest.
    pub file: String,
    /// What it predicts.
    pub target: SideTarget,
    /// Trees in the forest.
    pub trees: usize,
    /// How well it does.
    pub metrics: SideMetrics,
}

/// Losses of a side head on rows later than all that was trained on: logarithmic loss of a probability, squared
/// error of ln(1 + ms).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SideMetrics {
    /// Rows that were trained on.
    pub train_rows: u64,
    /// Rows that were measured on.
    pub test_rows: u64,
    /// Mean loss of the head.
    pub loss: f64,
    /// Mean loss of what a router without the head would assume: that a function is warm for as long as shards keep it,
    /// the expected wait by the queue formula, or that a shard fails as often as of late.
    pub formula_loss: f64,
    /// Mean prediction over mean outcome; 1 is unbiased.
    pub bias: f64,
}

/// What the manifest says of the execution head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecManifest {
    /// File of the forest.
    pub file: String,
    /// What it predicts, `ln warm exec_ms`.
    pub target: String,
    /// Feature that the forest's answer is added to.
    pub offset_feature: String,
    /// Stands in for that feature where it is not known: the mean of ln exec_ms in training.
    pub offset_default_ln_ms: f64,
    /// Factor from the exponential of the prediction to the mean execution time.
    pub smearing: f64,
    /// Standard deviation of ln exec_ms around the prediction.
    pub residual_sd: f64,
    /// Trees in the forest.
    pub trees: usize,
    /// How well it does.
    pub metrics: HeadMetrics,
}

/// Errors of ln exec_ms on rows later than all that was trained on, beside those of the rivals on the same rows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadMetrics {
    /// Rows that were trained on.
    pub train_rows: u64,
    /// Rows that were measured on.
    pub test_rows: u64,
    /// Root of the mean squared error of the head.
    pub rmse: f64,
    /// Share of the variance that the head explains; 0 where nothing varies.
    pub r2: f64,
    /// The service table alone, with its own cold-start term.
    pub table_rmse: f64,
    /// An elastic net on the same features and offset, if it was fitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elastic_net_rmse: Option<f64>,
    /// A random forest on the same features and offset, if it was fitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forest_rmse: Option<f64>,
}

/// What a file must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its size.
    pub bytes: u64,
    /// Its BLAKE3 in 64 hexadecimal digits.
    pub blake3: String,
}

impl FileEntry {
    /// Describes a file of this content.
    pub(crate) fn of(content: &[u8]) -> Self {
        Self { bytes: content.len() as u64, blake3: blake3::hash(content).to_hex().to_string() }
    }
}

/// Writes a time as `2026-01-05T12:00:00Z`, which people read; nanoseconds are read as well.
pub(crate) fn as_text<S: serde::Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(at)
}
