//! Models of a bundle's heads with what whoever asks them must know.

use prost::Message;

use super::graph::{After, ML_DOMAIN, graph};
use super::proto::{Entry, Graph, Model, OperatorSet};
use super::{FINGERPRINT_PROPERTY, OnnxError, RESIDUAL_SD_PROPERTY, SMEARING_PROPERTY};
use crate::forest::Forest;
use crate::{ExecHead, Manifest, ModelBundle, SideHead, SideTarget};

/// IR version 8 with these operator sets is read by ONNX Runtime from 1.13 on.
const IR_VERSION: i64 = 8;
const OPERATORS: i64 = 17;
const ML_OPERATORS: i64 = 3;

/// Name, target and unit of an execution head.
pub(super) const EXEC: [&str; 3] = ["exec", "mean of ln warm exec_ms", "ln ms"];

/// One head as an ONNX model.
#[derive(Debug, Clone, PartialEq)]
pub struct OnnxExport {
    /// `exec`, `cold`, `wait` or `error`.
    pub head: &'static str,
    /// What it predicts.
    pub target: &'static str,
    /// In what unit.
    pub unit: &'static str,
    /// The content of the file.
    pub bytes: Vec<u8>,
}

/// Writes every head of a bundle but the quantile heads, which are no part of the cost; the same bundle gives the same bytes.
///
/// # Errors
/// When a head says numbers that 32-bit floats do not hold.
pub fn export_bundle(bundle: &ModelBundle) -> Result<Vec<OnnxExport>, OnnxError> {
    let exec = bundle.exec().map(|head| export_exec(bundle, head));
    let sides =
        [bundle.cold(), bundle.wait(), bundle.error()].into_iter().flatten().map(|head| export_side(bundle, head));
    exec.into_iter().chain(sides).collect()
}

/// Writes a forest by itself, on rows of its width and without metadata: the sums of its leaves.
///
/// # Errors
/// When the sums are numbers that 32-bit floats do not hold.
pub fn export_forest(forest: &Forest) -> Result<Vec<u8>, OnnxError> {
    Ok(model(graph("forest", forest, After::Sum)?, Vec::new()).encode_to_vec())
}

fn export_exec(bundle: &ModelBundle, head: &ExecHead) -> Result<OnnxExport, OnnxError> {
    let after = After::Offset { feature: head.offset_feature(), default: head.offset_default_ln_ms() };
    let numbers = errors(head.smearing(), head.residual_sd());
    export(bundle, EXEC, head.forest(), after, &numbers)
}

fn export_side(bundle: &ModelBundle, head: &SideHead) -> Result<OnnxExport, OnnxError> {
    let names = match head.target() {
        SideTarget::Cold => ["cold", "probability of cold", "1"],
        SideTarget::Wait => ["wait", "queue_ms", "ms"],
        SideTarget::Error => ["error", "probability of failure", "1"],
    };
    export(bundle, names, head.forest(), After::Link(head.target()), &[])
}

fn export(
    bundle: &ModelBundle,
    [head, target, unit]: [&'static str; 3],
    forest: &Forest,
    after: After,
    more: &[Entry],
) -> Result<OnnxExport, OnnxError> {
    let mut metadata = metadata(bundle.manifest(), bundle.version());
    metadata.extend(answers([head, target, unit]));
    metadata.extend_from_slice(more);
    let bytes = model(graph(head, forest, after)?, metadata).encode_to_vec();
    Ok(OnnxExport { head, target, unit, bytes })
}

/// What a head answers.
pub(super) fn answers([head, target, unit]: [&str; 3]) -> [Entry; 3] {
    [("head", head), ("target", target), ("unit", unit)]
        .map(|(key, value)| entry(&format!("shardwise.{key}"), value.to_owned()))
}

/// What an execution head is known to err.
pub(super) fn errors(smearing: f64, residual_sd: f64) -> [Entry; 2] {
    [entry(SMEARING_PROPERTY, smearing.to_string()), entry(RESIDUAL_SD_PROPERTY, residual_sd.to_string())]
}

fn metadata(manifest: &Manifest, version: &str) -> Vec<Entry> {
    let names = serde_json::to_string(&manifest.feature_names).expect("a list of names is JSON");
    vec![
        entry(FINGERPRINT_PROPERTY, manifest.feature_fingerprint.clone()),
        entry("shardwise.feature_names", names),
        entry("shardwise.model", manifest.name.clone()),
        entry("shardwise.version", version.to_owned()),
        entry("shardwise.trained_from", manifest.trained_from.to_string()),
        entry("shardwise.trained_to", manifest.trained_to.to_string()),
    ]
}

pub(super) fn entry(key: &str, value: String) -> Entry {
    Entry { key: Some(key.to_owned()), value: Some(value) }
}

pub(super) fn model(graph: Graph, metadata_props: Vec<Entry>) -> Model {
    let operators = |domain: &str, version| OperatorSet { domain: Some(domain.to_owned()), version: Some(version) };
    Model {
        ir_version: Some(IR_VERSION),
        producer_name: Some("shardwise".to_owned()),
        producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        graph: Some(graph),
        opset_import: vec![operators("", OPERATORS), operators(ML_DOMAIN, ML_OPERATORS)],
        metadata_props,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::BundleDraft;
    use crate::forest::TreeNode;
    use crate::onnx::{FeatureCheck, OnnxSignature};

    #[test]
    fn an_exported_head_says_what_it_reads() {
        let bundle = BundleDraft::example().bundle().expect("a bundle");
        let exports = export_bundle(&bundle).expect("its heads");
        assert_eq!(exports.iter().map(|export| export.head).collect::<Vec<_>>(), ["exec"]);
        assert_eq!(exports, export_bundle(&bundle).expect("the same again"));
        let signature = OnnxSignature::read(&exports[0].bytes, Path::new("exec.onnx")).expect("a signature");
        signature.check(Path::new("exec.onnx"), FeatureCheck::Fingerprint).expect("our own features");
        assert_eq!(signature.metadata["shardwise.unit"], "ln ms");
        assert_eq!(signature.metadata["shardwise.trained_to"], bundle.manifest().trained_to.to_string());
        let names: Vec<String> = serde_json::from_str(&signature.metadata["shardwise.feature_names"]).expect("JSON");
        assert_eq!(names, bundle.manifest().feature_names);
    }

    #[test]
    fn what_single_floats_do_not_hold_is_refused() {
        let forest = Forest::new(1, &[vec![TreeNode::Leaf(1e39)]]).expect("a sound tree");
        assert!(matches!(export_forest(&forest), Err(OnnxError::NotSingle)));
        let forest = Forest::new(1, &vec![vec![TreeNode::Leaf(3e38)]; 2]).expect("sound trees");
        assert!(matches!(export_forest(&forest), Err(OnnxError::NotSingle)));
    }
}
