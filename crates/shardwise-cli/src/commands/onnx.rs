//! `shardwise onnx …`: heads as ONNX files, and whether an ONNX file can be asked about candidates.

use std::path::{Path, PathBuf};

use miette::{IntoDiagnostic, miette};
use serde_json::json;
use shardwise_features::{DecisionFeatures, FEATURE_COUNT, FeatureVector, golden};
use shardwise_models::Registry;
use shardwise_models::onnx::{FeatureCheck, OnnxModel, OnnxRuntime, export_bundle};

use super::files;
use crate::arguments::{OnnxCheckArguments, OnnxExportArguments};
use crate::output;

pub(crate) fn export(options: &OnnxExportArguments, json: bool) -> miette::Result<()> {
    let registry = Registry::open(&options.models, &options.name).into_diagnostic()?;
    let bundle = registry.load(&options.version).into_diagnostic()?;
    let mut heads = Vec::new();
    for export in export_bundle(&bundle).into_diagnostic()? {
        let path = options.out.join(format!("{}.onnx", export.head));
        files::write(&path, &export.bytes)?;
        println!("{}: {} in {}, {} bytes", path.display(), export.target, export.unit, export.bytes.len());
        heads.push(json!({
            "head": export.head, "file": path, "target": export.target, "unit": export.unit, "bytes": export.bytes.len(),
        }));
    }
    if heads.is_empty() {
        return Err(miette!("version {} has a service table but no heads: train one that has", bundle.version()));
    }
    match json {
        true => output::print_json(&json!({ "version": bundle.version(), "heads": heads })),
        false => Ok(()),
    }
}

pub(crate) fn check(options: &OnnxCheckArguments, json: bool) -> miette::Result<()> {
    let (library, mut model) = open(&options.file, options.any_features)?;
    let rows = golden_rows();
    let mut answers = vec![0.0; rows.len() / FEATURE_COUNT];
    model.predict_rows(&rows, &mut answers).into_diagnostic()?;
    let signature = model.signature();
    let found = ["head", "target", "unit"].map(|key| signature.metadata.get(&format!("shardwise.{key}")));
    if json {
        return output::print_json(&json!({
            "library": library, "input": signature.input, "output": signature.output, "metadata": signature.metadata,
            "rows": answers.len(), "answers": answers,
        }));
    }
    let [head, target, unit] = found.map(|it| it.map_or("not said", String::as_str));
    println!("{}: takes the features of this version", options.file.display());
    println!("head {head}, target {target}, unit {unit}");
    println!("answers to {} golden rows: {answers:?}", answers.len());
    Ok(())
}

/// Opens a model, and says with which library.
pub(crate) fn open(file: &Path, any_features: bool) -> miette::Result<(PathBuf, OnnxModel)> {
    let library = OnnxRuntime::find().into_diagnostic()?;
    // Said before it is loaded: whatever a library does then, the user knows which it was.
    eprintln!("ONNX Runtime: {}", library.display());
    let runtime = OnnxRuntime::load(&library).into_diagnostic()?;
    let check = if any_features { FeatureCheck::Any } else { FeatureCheck::Fingerprint };
    let model = OnnxModel::open(&runtime, file, check).into_diagnostic()?;
    Ok((library, model))
}

/// The candidates of the golden decisions: known and unknown, idle and in trouble.
fn golden_rows() -> Vec<f32> {
    let mut rows = Vec::new();
    for golden in golden::contexts() {
        let decision = DecisionFeatures::new(&golden.context());
        for candidate in 0..golden.fleet.shards.len() {
            rows.extend_from_slice(FeatureVector::extract(&decision, candidate).as_slice());
        }
    }
    rows
}
