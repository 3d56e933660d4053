//! ONNX: the heads of a bundle as models that other programs open, and models of other programs for this one.
//!
//! A head becomes a graph from `features`, floats `[N, FEATURE_COUNT]`, to `prediction`, floats `[N, 1]`: what the head
//! answers, offset and link function included. Its metadata say which features it reads, in what order and what it predicts.
//! Left out: the service table, which is no function of a row.

mod error;
mod export;
mod graph;
mod neural;
mod proto;
#[cfg(feature = "onnxruntime")]
mod runtime;
mod signature;

pub use error::OnnxError;
pub use export::{OnnxExport, export_bundle, export_forest};
pub use neural::{export_neural, read_neural};
#[cfg(feature = "onnxruntime")]
pub use runtime::{LIBRARY_VARIABLE, OnnxModel, OnnxRuntime};
pub use signature::{FeatureCheck, OnnxSignature};

/// The metadata property that names the features a model reads, by their fingerprint.
pub const FINGERPRINT_PROPERTY: &str = "shardwise.feature_fingerprint";
/// The metadata property of an execution head: factor from the exponential of a prediction to the mean execution time.
pub const SMEARING_PROPERTY: &str = "shardwise.smearing";
/// The metadata property of an execution head: standard deviation of ln exec_ms around a prediction.
pub const RESIDUAL_SD_PROPERTY: &str = "shardwise.residual_sd";
