//! Execution heads that somebody else trained on our rows compete with trees under the same gate.

use std::fs;
use std::path::Path;

use serde_json::Value;
use shardwise_models::onnx::export_neural;
use shardwise_models::{Dense, Design, ExecRows, NeuralHead, NeuralInputs};

use crate::python::python;
use crate::support::{json, night, refused, root, text};

/// A head that learned nothing: it says what the service table says.
fn untaught(rows: &ExecRows, smearing: f64) -> Vec<u8> {
    let inputs = NeuralInputs::from(&Design::fit(&rows.rows()));
    let layers = vec![Dense { weights: vec![0.0; inputs.width()], biases: vec![0.0] }];
    export_neural(&NeuralHead::new(inputs, layers, rows.offset(), smearing, 0.3).expect("sound parts"), &[])
}

fn number(value: &Value, pointer: &str) -> f64 {
    value.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer} in {value}"))
}

#[test]
fn a_head_on_our_rows_competes_with_trees() {
    let dataset = night().path("work/dataset");
    let home = tempfile::tempdir().expect("a folder");
    let [file, head] = ["rows.bin", "exec.onnx"].map(|name| home.path().join(name));
    let written = json(&["dataset", "rows", "--dataset", text(&dataset), "--out", text(&file)]);
    let rows = ExecRows::from_bytes(&fs::read(&file).expect("a file")).expect("sound rows");
    assert_eq!((number(&written, "/rows"), number(&written, "/early")), (rows.len() as f64, rows.early as f64));
    let card: Value = serde_json::from_slice(&fs::read(dataset.join("dataset.json")).expect("a card")).expect("JSON");
    let test_from = card["splits"]["test"]["from"].as_str().expect("a time").parse().expect("a time");
    let trained_to = shardwise_types::Timestamp::from_nanos(rows.trained_to_ns);
    assert!(trained_to < test_from, "rows that are measured on stay behind: {trained_to} and {test_from}");
    if python().is_none() {
        return;
    }
    fs::write(&head, untaught(&rows, 1.02)).expect("a head");
    let (history, replicates) = (night().path("history"), "2");
    let compared = ["--history", text(&history), "--dataset", text(&dataset), "--replicates", replicates];
    let found = json(&[&["onnx", "compare", text(&head)], &compared[..]].concat());
    assert_eq!(number(&found, "/train_rows"), rows.len() as f64, "both learn from the same rows");
    let [trees, onnx] = ["/heads/0", "/heads/1"].map(|head| found.pointer(head).expect("two heads"));
    assert_eq!((&trees["head"], &onnx["head"]), (&Value::from("trees"), &Value::from("onnx")));
    // It is the table; the table's rule may take what was measured of the shard into account as well.
    assert!(number(onnx, "/exec/rmse") > number(&found, "/table_rmse") - 1e-6, "{found}");
    assert!(number(trees, "/exec/rmse") < number(onnx, "/exec/rmse"), "{found}");
    assert!(number(&found, "/native/largest_difference") < 1e-5, "{found}");
    for metric in ["/to_other/mean/ratio", "/to_other/p99/ratio"] {
        let product = number(trees, metric) * number(onnx, metric);
        assert!((product - 1.0).abs() < 1e-9, "the same runs seen from both sides: {product}");
    }
    assert!(number(trees, "/to_standard/mean/ratio") != number(onnx, "/to_standard/mean/ratio"), "both are heard");
    assert_eq!(onnx["alone"]["may_go_live"], false, "who knows what the table knows does not go live");
    assert_ne!(found["winner"], "onnx");
    for timed in [&trees["decisions"], &onnx["decisions"], &found["native"]["decisions"]] {
        assert_eq!((number(timed, "/0/candidates"), number(timed, "/1/candidates")), (20.0, 64.0));
        assert!(number(timed, "/0/p50_us") > 0.0 && number(timed, "/1/p99_us") >= number(timed, "/1/p50_us"));
    }
    let said = refused(&[&["onnx", "compare", text(&head), "--replicates", "0"], &compared[..4]].concat());
    assert!(said.contains("compares nothing"), "{said}");
}

#[test]
fn what_a_head_says_of_its_errors_counts() {
    if python().is_none() {
        return;
    }
    let home = tempfile::tempdir().expect("a folder");
    let file = home.path().join("rows.bin");
    json(&["dataset", "rows", "--dataset", text(&night().path("work/dataset")), "--out", text(&file)]);
    let rows = ExecRows::from_bytes(&fs::read(&file).expect("a file")).expect("sound rows");
    let cost = |smearing: f64| {
        let head = home.path().join(format!("{smearing}.onnx"));
        fs::write(&head, untaught(&rows, smearing)).expect("a head");
        decided_with(&head)["cost"].clone()
    };
    assert_ne!(cost(1.0), cost(2.0), "twice the smearing is twice the execution time");
}

/// The sample's decision with an ONNX model in the place of the execution head.
fn decided_with(model: &Path) -> Value {
    let file = |name: &str| root().join(name);
    let (models, request, fleet) = (file("models"), file("data/sample-request.json"), file("data/sample-fleet.json"));
    let asked = ["predict", "--models", text(&models), "--request", text(&request), "--fleet", text(&fleet)];
    json(&[&asked[..], &["--onnx", text(model)]].concat())
}

#[test]
fn what_are_no_rows_is_refused() {
    let home = tempfile::tempdir().expect("a folder");
    let said = refused(&["dataset", "rows", "--dataset", text(home.path()), "--out", text(&home.path().join("rows"))]);
    assert!(said.contains("dataset.json"), "{said}");
    assert!(!home.path().join("rows").exists());
}
