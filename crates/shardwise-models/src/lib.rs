//! What a router serves: the verified model bundle, the forests and the service table in it, the registry of versions, and
//! the policy that says which of them are trusted.
//!
//! A folder becomes a [`ModelBundle`] only when every byte in it is what its manifest says and its features are computed as
//! this version computes them. Left out: training, and any library that trains or that parses foreign model files.
//!
//! ```
//! use shardwise_models::{BundleDraft, ModelBundle};
//!
//! let folder = std::env::temp_dir().join(format!("shardwise-bundle-{}", std::process::id()));
//! let version = BundleDraft::example().write(&folder)?;
//! let bundle = ModelBundle::load(&folder)?;
//! assert_eq!(bundle.version(), version);
//! # std::fs::remove_dir_all(&folder)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod bundle;
mod confidence_curve;
mod design;
mod draft;
mod durable;
mod exec_head;
mod exec_rows;
pub mod forest;
mod latency_head;
mod manifest;
mod neural_head;
#[cfg(feature = "onnx")]
pub mod onnx;
mod package;
mod quantile_head;
mod registry;
mod scorer;
mod side_head;
mod signature;
mod store;
mod table_file;
mod trust;

pub use bundle::{BundleError, ModelBundle};
pub use confidence_curve::{CalibrationDraft, CalibrationManifest, CalibrationMetrics, ConfidenceCurve};
pub use design::Design;
pub use draft::{BundleDraft, ExecDraft, SideDraft};
pub use exec_head::{ExecHead, ExecModel, HeadProblem};
pub use exec_rows::{ExecRows, ExecRowsError};
pub use latency_head::{LatencyColumns, LatencyHead};
pub use manifest::{
    DatasetSource, ExecManifest, FORMAT_VERSION, FileEntry, HeadMetrics, Heads, Manifest, SideManifest, SideMetrics,
};
pub use neural_head::{Dense, MAX_UNITS, NeuralHead, NeuralInputs, NeuralProblem};
pub use package::{Package, PackageError};
pub use quantile_head::{
    QUANTILE_LEVELS, QuantileDraft, QuantileFigures, QuantileHead, QuantileMetrics, QuantilesManifest,
    formula_latency_ln_ms,
};
pub use registry::{
    AliasMove, CHALLENGER, CHAMPION, Garbage, HistoryEntry, Judgement, PREVIOUS, Registry, RegistryError, model_names,
};
pub use scorer::Predictions;
pub use side_head::{SideHead, SideTarget};
pub use signature::{BadKey, PublicKey, Signature, SigningKey};
pub use table_file::{TableFileError, table_from_bytes, table_to_bytes};
pub use trust::{Refusal, TrustPolicy};
