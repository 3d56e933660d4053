//! The benchmark of the dataset builder: all engines make the same rows of the same history, and say the same of them.

use serde_json::Value;

use crate::support::{command, json, skipped, text};

const HISTORY: [&str; 8] = ["bench", "dataset", "--decisions", "6000", "--days", "2", "--routers", "3"];

fn engines(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().map(|entry| entry["engine"].as_str().expect("a name")).collect()
}

#[test]
fn all_engines_say_the_same_of_the_same_rows() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let keep = ["--keep", text(folder.path())];
    let found = json(&[&HISTORY[..], &keep].concat());
    assert_eq!((&found["decisions"], &found["days"], &found["routers"]), (&6000.into(), &2.into(), &3.into()));
    assert!(found["history"]["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0));
    let left_out = engines(&found["left_out"]);
    if !left_out.is_empty() {
        skipped(&format!("no comparison with {}: {}", left_out.join(", "), found["left_out"]));
    }
    let ours = &found["results"][0];
    assert_eq!(ours["engine"], "shardwise");
    for result in found["results"].as_array().expect("a list") {
        assert_eq!(result["rows"], ours["rows"], "{result}");
        assert!(result["wall_s"].as_f64().is_some_and(|seconds| seconds > 0.0), "{result}");
        assert!(result["columns"].as_u64() >= Some(60), "{result}");
    }
    for agreement in found["agreements"].as_array().expect("a list") {
        assert!(agreement["rows"].as_u64() > Some(6000), "all rows are compared: {agreement}");
        assert!(agreement["columns"].as_u64() > Some(60), "{agreement}");
    }
    assert_eq!(engines(&found["agreements"]), engines(&found["results"])[1..]);
    assert_eq!(found["slowdown"].is_null(), left_out.len() == 2);
}

#[test]
fn the_history_is_kept_and_the_rest_goes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let once = || {
        let mut command = command(&HISTORY);
        command.args(["--json", "--keep", text(folder.path())]).env_remove("SHARDWISE_PYTHON");
        let output = command.output().expect("the binary starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        serde_json::from_str::<Value>(stdout.lines().last().expect("a line")).expect("JSON")
    };
    let (first, second) = (once(), once());
    assert!(first["history"]["seconds"].is_number() && second["history"]["seconds"].is_null());
    assert_eq!(first["results"][0]["rows"], second["results"][0]["rows"]);
    assert_eq!(engines(&second["left_out"]), ["duckdb", "polars"], "there is no Python to run them");
    let kept: Vec<_> = std::fs::read_dir(folder.path()).expect("a folder").collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
}
