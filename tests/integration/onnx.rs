//! Heads answer in ONNX Runtime as they do here, and models of others are taken or refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use shardwise_features::FEATURE_COUNT;
use shardwise_models::forest::{Forest, Missing, TreeNode, ZERO_THRESHOLD};
use shardwise_models::onnx::{FINGERPRINT_PROPERTY, FeatureCheck, OnnxError, OnnxModel, OnnxRuntime, export_bundle};
use shardwise_models::{BundleDraft, ExecDraft, ExecHead, ModelBundle, SideDraft, SideHead, SideMetrics, SideTarget};

use crate::python::python;
use crate::support::{binary, json, root, text};

const N_ROWS: usize = 3_000;
const MISSING: [Missing; 4] = [Missing::NanRight, Missing::NanLeft, Missing::ZeroRight, Missing::ZeroLeft];
const ODD_VALUES: [f32; 10] = [
    f32::NAN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    0.0,
    -0.0,
    1e-36,
    -1e-36,
    ZERO_THRESHOLD,
    ZERO_THRESHOLD.next_up(),
    f32::MIN_POSITIVE,
];

/// A threshold, and so often a value: close enough together that values meet thresholds exactly.
fn threshold(rng: &mut StdRng) -> f32 {
    match rng.random_range(0..4) {
        0 => ODD_VALUES[rng.random_range(1..ODD_VALUES.len())],
        _ => rng.random_range(-20..20) as f32 / 8.0 + 0.1,
    }
}

fn tree(rng: &mut StdRng) -> Vec<TreeNode> {
    let leaf = |rng: &mut StdRng| TreeNode::Leaf(rng.random_range(-0.1..0.1));
    let mut nodes = vec![leaf(rng)];
    for _ in 0..rng.random_range(0..40) {
        let place = rng.random_range(0..nodes.len());
        if let TreeNode::Leaf(_) = nodes[place] {
            let left = nodes.len() as u32;
            nodes.extend([leaf(rng), leaf(rng)]);
            let (feature, missing) = (rng.random_range(0..FEATURE_COUNT as u32), MISSING[rng.random_range(0..4)]);
            nodes[place] = TreeNode::Split { feature, threshold: threshold(rng), missing, left, right: left + 1 };
        }
    }
    nodes
}

/// A bundle with four heads of trees with all rules for missing values.
fn bundle(rng: &mut StdRng) -> ModelBundle {
    let example = BundleDraft::example();
    let exec = example.exec.as_ref().expect("the example has an execution head");
    let mut forest = || Forest::new(FEATURE_COUNT, &[(); 100].map(|()| tree(rng))).expect("sound trees");
    let head = ExecHead::new(forest(), exec.head.offset_feature(), 2.5, 1.02, 0.3).expect("sound numbers");
    let exec = Some(ExecDraft { head, metrics: exec.metrics });
    let metrics = SideMetrics { train_rows: 0, test_rows: 0, loss: 0.1, formula_loss: 0.1, bias: 1.0 };
    let side = |target| Some(SideDraft { head: SideHead::new(target, forest()).expect("a head"), metrics });
    let [cold, wait, error] = [SideTarget::Cold, SideTarget::Wait, SideTarget::Error].map(side);
    BundleDraft { exec, cold, wait, error, ..example }.bundle().expect("a bundle")
}

fn rows(rng: &mut StdRng) -> Vec<f32> {
    let value = |rng: &mut StdRng| match rng.random_range(0..4) {
        0 => ODD_VALUES[rng.random_range(0..ODD_VALUES.len())],
        1 => rng.random_range(-3.0..3.0),
        _ => threshold(rng),
    };
    (0..N_ROWS * FEATURE_COUNT).map(|_| value(rng)).collect()
}

/// What the head of this name answers here.
fn answers_here(bundle: &ModelBundle, head: &str, rows: &[f32]) -> Vec<f64> {
    let mut answers = vec![f64::NAN; rows.len() / FEATURE_COUNT];
    match head {
        "exec" => bundle.exec().expect("a head").predict_ln_ms_rows(rows, &mut answers),
        "cold" => bundle.cold().expect("a head").predict_rows(rows, &mut answers),
        "error" => bundle.error().expect("a head").predict_rows(rows, &mut answers),
        _ => bundle.wait().expect("a head").predict_rows(rows, &mut answers),
    }
    answers
}

fn assert_close(what: &str, expected: &[f64], answers: &[f64]) {
    assert_eq!(expected.len(), answers.len(), "{what}");
    for (row, (expected, answer)) in expected.iter().zip(answers).enumerate() {
        let error = (expected - answer).abs() / expected.abs().max(1.0);
        assert!(error <= 1e-5, "{what}, row {row}: {answer} where {expected} was expected");
    }
}

fn write_rows(path: &Path, rows: &[f32]) {
    fs::write(path, rows.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>()).expect("a file of rows");
}

/// Runs a script and reads the 64-bit floats that it writes to the path in its last argument.
fn run_python(python: &Path, script: &str, arguments: &[&Path]) -> Vec<f64> {
    let output = Command::new(python).args(["-c", script]).args(arguments).output().expect("python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let bytes = fs::read(arguments.last().expect("a path to write to")).expect("answers");
    bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect()
}

fn runtime() -> OnnxRuntime {
    OnnxRuntime::load(&OnnxRuntime::find().expect("the library of the environment")).expect("ONNX Runtime")
}

const ASK: &str = r#"
import sys, numpy, onnx, onnxruntime
model, rows, out = sys.argv[1:]
onnx.checker.check_model(model, full_check=True)
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
width = session.get_inputs()[0].shape[1]
answers = session.run(None, {"features": numpy.fromfile(rows, dtype="<f4").reshape(-1, width)})[0]
assert answers.shape[1] == 1
answers.astype("<f8").tofile(out)
"#;

#[test]
fn every_head_answers_in_onnx_runtime_as_here() {
    let Some(python) = python() else { return };
    let home = tempfile::tempdir().expect("a folder");
    let [model, rows_file, out] = ["head.onnx", "rows", "answers"].map(|name| home.path().join(name));
    let mut rng = StdRng::seed_from_u64(1);
    for _ in 0..3 {
        let (bundle, rows) = (bundle(&mut rng), rows(&mut rng));
        write_rows(&rows_file, &rows);
        let exports = export_bundle(&bundle).expect("its heads");
        assert_eq!(exports.len(), 4);
        for export in exports {
            fs::write(&model, &export.bytes).expect("a model");
            let expected = answers_here(&bundle, export.head, &rows);
            assert_close(export.head, &expected, &run_python(&python, ASK, &[&model, &rows_file, &out]));
            let mut answers = vec![f64::NAN; N_ROWS];
            let mut model = OnnxModel::open(&runtime(), &model, FeatureCheck::Fingerprint).expect("our own model");
            model.predict_rows(&rows, &mut answers).expect("answers");
            assert_close(export.head, &expected, &answers);
        }
    }
}

#[test]
fn the_committed_model_is_exported_and_checked() {
    if python().is_none() {
        return;
    }
    let home = tempfile::tempdir().expect("a folder");
    let out = home.path().join("onnx");
    let exported = json(&["onnx", "export", "--models", text(&root().join("models")), "--out", text(&out)]);
    let heads = exported["heads"].as_array().expect("a list");
    assert_eq!(heads.len(), 3);
    for head in heads {
        let checked = json(&["onnx", "check", head["file"].as_str().expect("a path")]);
        assert_eq!(checked["metadata"]["shardwise.target"], head["target"]);
        assert_eq!(checked["metadata"]["shardwise.version"], exported["version"]);
        assert!(checked["answers"].as_array().is_some_and(|answers| answers.len() == 9));
    }
}

const TRAIN: &str = r#"
import sys, numpy, skl2onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
kind, key, fingerprint, width, rows, model, out = sys.argv[1:]
X = numpy.fromfile(rows, dtype="<f4").reshape(-1, int(width))
y = numpy.nan_to_num(X[:, 3]) - numpy.nan_to_num(X[:, 0]) ** 2
# No HistGradientBoostingRegressor: skl2onnx 1.20 hands its numpy booleans to protobuf 7, which refuses them.
if kind == "trees":
    steps = [GradientBoostingRegressor(n_estimators=20, random_state=1)]
else:
    steps = [StandardScaler(), MLPRegressor(hidden_layer_sizes=(16,), max_iter=30, random_state=1)]
trained = make_pipeline(SimpleImputer(), *steps).fit(X, y)
converted = skl2onnx.to_onnx(trained, initial_types=[("features", FloatTensorType([None, int(width)]))], target_opset=17)
if fingerprint:
    entry = converted.metadata_props.add()
    entry.key, entry.value = key, fingerprint
open(model, "wb").write(converted.SerializeToString())
trained.predict(X).astype("<f8").tofile(out)
"#;

#[test]
fn models_of_scikit_learn_are_opened_and_answer() {
    let Some(python) = python() else { return };
    let home = tempfile::tempdir().expect("a folder");
    let [rows_file, model, out] = ["rows", "model.onnx", "answers"].map(|name| home.path().join(name));
    let mut rng = StdRng::seed_from_u64(2);
    let value = |rng: &mut StdRng| if rng.random_bool(0.1) { f32::NAN } else { rng.random_range(-2.0..2.0) };
    let rows: Vec<f32> = (0..400 * FEATURE_COUNT).map(|_| value(&mut rng)).collect();
    write_rows(&rows_file, &rows);
    let width = FEATURE_COUNT.to_string();
    for (kind, fingerprint) in [("trees", shardwise_features::fingerprint()), ("dense", "")] {
        let words = [kind, FINGERPRINT_PROPERTY, fingerprint, &width].map(Path::new);
        let expected = run_python(&python, TRAIN, &[&words[..], &[&rows_file, &model, &out]].concat());
        let check = if fingerprint.is_empty() { FeatureCheck::Any } else { FeatureCheck::Fingerprint };
        if check == FeatureCheck::Any {
            let refused = OnnxModel::open(&runtime(), &model, FeatureCheck::Fingerprint);
            assert!(matches!(refused, Err(OnnxError::Fingerprint { .. })));
            json(&["onnx", "check", text(&model), "--any-features"]);
            // Trained on values around zero, it says what is no time of memory in megabytes; the guard passes it over.
            let decision = decided_with(&model, &["--any-features"]);
            assert_eq!(decision["fallbackReason"], "bad_prediction", "{decision}");
            assert_eq!(decision["decidedBy"], "service_table", "{decision}");
        } else {
            json(&["onnx", "check", text(&model)]);
            let decision = decided_with(&model, &[]);
            assert_eq!(decision["decidedBy"], "model", "{decision}");
            assert_ne!(decision["cost"], decided_with(&model, &["--without"])["cost"], "the model is heard");
        }
        let mut answers = vec![f64::NAN; expected.len()];
        let mut opened = OnnxModel::open(&runtime(), &model, check).expect("a model on our columns");
        opened.predict_rows(&rows, &mut answers).expect("answers");
        assert_close(kind, &expected, &answers);
        let other_rows = opened.predict_rows(&rows[1..], &mut answers);
        assert!(matches!(other_rows, Err(OnnxError::Rows { .. })));
    }
}

/// The sample's decision with an ONNX model in the place of the execution head, or without it.
fn decided_with(model: &Path, options: &[&str]) -> serde_json::Value {
    let file = |name: &str| root().join(name);
    let (models, request, fleet) = (file("models"), file("data/sample-request.json"), file("data/sample-fleet.json"));
    let asked = ["predict", "--models", text(&models), "--request", text(&request), "--fleet", text(&fleet)];
    match options {
        ["--without"] => json(&asked),
        _ => json(&[&asked[..], &["--onnx", text(model)], options].concat()),
    }
}

/// Runs `onnx check` with this library, which must end in an orderly refusal.
fn refused_with(library: &Path, model: &Path) -> String {
    let check = ["onnx", "check", text(model)];
    let output: Output =
        Command::new(binary()).args(check).env("ORT_DYLIB_PATH", library).output().expect("the binary starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("ONNX Runtime: "), "the library is named before it is loaded: {said}");
    said
}

#[test]
fn broken_libraries_and_models_are_refused() {
    let home = tempfile::tempdir().expect("a folder");
    let file = |name: &str, content: &[u8]| -> PathBuf {
        let path = home.path().join(name);
        fs::write(&path, content).expect("a file");
        path
    };
    let exports = export_bundle(&bundle(&mut StdRng::seed_from_u64(3))).expect("its heads");
    let sound = file("sound.onnx", &exports[0].bytes);
    for library in [file("text.so", b"not a library"), home.path().join("none.so"), home.path().to_owned()] {
        assert!(refused_with(&library, &sound).contains("cannot be used"));
    }
    if python().is_none() {
        return;
    }
    let library = OnnxRuntime::find().expect("the library of the environment");
    // An operator that does not exist passes the look at the input, and must be refused by ONNX Runtime.
    let unknown = exports[0].bytes.windows(5).position(|word| word == b"IsNaN").expect("an operator");
    let mut other = exports[0].bytes.clone();
    let places: Vec<usize> = (unknown..other.len() - 5).filter(|at| other[*at..].starts_with(b"IsNaN")).collect();
    places.into_iter().for_each(|at| other[at..at + 5].copy_from_slice(b"IsNon"));
    for (name, content) in [
        ("empty.onnx", &b""[..]),
        ("noise.onnx", &[0xff; 64]),
        ("cut.onnx", &exports[0].bytes[..exports[0].bytes.len() / 2]),
        ("operator.onnx", &other),
    ] {
        refused_with(&library, &file(name, content));
    }
    refused_with(&library, &home.path().join("none.onnx"));
}
