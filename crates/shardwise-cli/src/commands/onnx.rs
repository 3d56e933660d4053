//! `shardwise onnx …`: heads as ONNX files, and whether an ONNX file can be asked about candidates.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use miette::{IntoDiagnostic, miette};
use serde_json::json;
use shardwise_features::{DecisionFeatures, FEATURE_COUNT, FeatureVector, golden};
use shardwise_models::onnx::{
    FeatureCheck, OnnxModel, OnnxRuntime, RESIDUAL_SD_PROPERTY, SMEARING_PROPERTY, export_bundle,
};
use shardwise_models::{ExecModel, ModelBundle, Registry};

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

/// A bundle in which the model answers for the execution head, with the figures of its errors where it says them.
pub(crate) fn in_place_of_trees(
    bundle: &ModelBundle,
    model: Arc<dyn ExecModel>,
    errors: Option<[f64; 2]>,
) -> miette::Result<ModelBundle> {
    let Some(head) = bundle.exec() else {
        return Err(miette!(
            "version {} has no execution head that an ONNX model could stand in for",
            bundle.version()
        ));
    };
    let head = match errors {
        Some([smearing, residual_sd]) => head.with_errors(smearing, residual_sd).into_diagnostic()?,
        None => head.clone(),
    };
    Ok(bundle.with_exec(Some(head)).with_exec_model(model))
}

/// Smearing and standard deviation that the model says of itself; `None` where it says neither.
pub(crate) fn errors_of(model: &OnnxModel) -> miette::Result<Option<[f64; 2]>> {
    let metadata = &model.signature().metadata;
    let number = |key: &str| {
        let wrong = |value: &String| miette!("the ONNX model's metadata `{key}` is `{value}`: it must be a number");
        metadata.get(key).map(|value| value.parse::<f64>().map_err(|_| wrong(value))).transpose()
    };
    match (number(SMEARING_PROPERTY)?, number(RESIDUAL_SD_PROPERTY)?) {
        (Some(smearing), Some(residual_sd)) => Ok(Some([smearing, residual_sd])),
        (None, None) => Ok(None),
        _ => Err(miette!(
            "the ONNX model has one of the metadata `{SMEARING_PROPERTY}` and `{RESIDUAL_SD_PROPERTY}`: export both"
        )),
    }
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
