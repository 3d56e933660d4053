//! The command line as a contract: names, options, JSON fields, and the night as a whole.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::support::{NIGHT_SEED, command, json, night, root, shardwise, skipped, small_history, text};

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is not a number"))
}

#[test]
fn a_night_reports_every_field_of_the_contract() {
    let result = &night().result;
    assert!(number(&result["dataset"]["rows"]) > 10_000.0);
    assert!(number(&result["dataset"]["candidates_per_decision"]) > 1.0);
    assert_eq!(result["dataset"]["fingerprint"], shardwise_features::fingerprint());
    assert_eq!(result["dataset"]["hash"].as_str().map(str::len), Some(64));
    assert!(result["model"]["version"].is_string() && result["model"]["published"].is_boolean());
    for metric in ["rmse", "r2", "table_rmse", "elastic_net_rmse", "forest_rmse"] {
        assert!(number(&result["heads"]["exec"][metric]).is_finite(), "{metric}");
    }
    for head in ["cold", "wait"] {
        assert!(number(&result["heads"][head]["loss"]) < number(&result["heads"][head]["formula_loss"]), "{head}");
    }
    for (quantile, level) in [("q50", 0.5), ("q90", 0.9)] {
        let figures = &result["heads"]["quantiles"][quantile];
        assert!(number(&figures["loss"]) < number(&figures["formula_loss"]), "{quantile}: {figures}");
        assert!((number(&figures["coverage"]) - level).abs() < 0.1, "{quantile}: {figures}");
    }
    let confidence = &result["heads"]["confidence"];
    assert!(number(&confidence["train_choices"]) > number(&confidence["test_choices"]), "{confidence}");
    assert!(number(&confidence["error"]) < 0.2, "{confidence}");
    let policies: Vec<&str> =
        result["closed_loop"].as_array().expect("rows").iter().filter_map(|row| row["policy"].as_str()).collect();
    for policy in ["shardwise", "random", "p2c_in_flight", "least_in_flight", "sed_tab", "sed_off_lambda"] {
        assert!(policies.contains(&policy), "{policy} is missing among {policies:?}");
    }
    for field in ["recommendedShard", "confidence", "expectedLatency", "expectedLoad", "reasoning", "alternativeShards"]
    {
        assert!(!result["decision"][field].is_null(), "{field}");
    }
    let report = std::fs::read_to_string(result["report"].as_str().expect("a path")).expect("the report is there");
    assert!(report.contains("<html"));
}

#[test]
fn the_model_earns_its_place_on_held_out_traffic() {
    let rows = night().result["closed_loop"].as_array().expect("rows").clone();
    let mean = |policy: &str| number(&rows.iter().find(|row| row["policy"] == policy).expect("a row")["mean_ms"]);
    assert!(mean("shardwise") < mean("sed_tab"), "{} against {}", mean("shardwise"), mean("sed_tab"));
    assert!(mean("shardwise") < 0.8 * mean("p2c_in_flight"), "{} against {}", mean("shardwise"), mean("p2c_in_flight"));
    let exec = &night().result["heads"]["exec"];
    assert!(number(&exec["rmse"]) < number(&exec["table_rmse"]), "the trees add to the table: {exec}");
}

#[test]
fn a_verified_dataset_has_no_mismatch() {
    let (history, dataset) = (night().path("history"), night().path("work/dataset"));
    let report = json(&["dataset", "verify", "--history", text(&history), "--dataset", text(&dataset)]);
    assert_eq!(report["mismatches"], 0);
    assert!(number(&report["rows"]) > 10_000.0);
}

#[test]
fn the_same_seed_gives_the_same_dataset_and_model() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (history, work) = (folder.path().join("history"), folder.path().join("work"));
    small_history(&history, NIGHT_SEED);
    let again = json(&["nightly", "--history", text(&history), "--work", text(&work), "--replicates", "4"]);
    let first = &night().result;
    assert_eq!(again["dataset"]["hash"], first["dataset"]["hash"]);
    assert_eq!(again["model"]["version"], first["model"]["version"]);
    assert_eq!(again["closed_loop"], first["closed_loop"]);
    assert_eq!(again["decision"], first["decision"]);
}

#[test]
fn a_second_night_on_the_same_history_changes_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (history, work) = (folder.path().join("history"), folder.path().join("work"));
    small_history(&history, NIGHT_SEED);
    let night = || json(&["nightly", "--history", text(&history), "--work", text(&work), "--replicates", "4"]);
    let (first, second) = (night(), night());
    assert_eq!(first["model"]["published"], true, "a first model that beats its rivals goes live");
    assert_eq!(second["model"], first["model"]);
    assert_eq!(second["decision"], first["decision"]);
    assert_eq!(second["closed_loop"], first["closed_loop"], "the judgement that made it champion stands");
}

#[test]
fn a_killed_night_goes_on_where_it_was() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (history, work) = (folder.path().join("history"), folder.path().join("work"));
    small_history(&history, NIGHT_SEED);
    let arguments = ["nightly", "--history", text(&history), "--work", text(&work), "--replicates", "4", "--json"];
    let start = || command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = start().expect("it starts");
    // Killed as soon as the model is there, in the middle of the evaluation.
    let mut waits = 0;
    while !work.join("stages/train.json").exists() {
        std::thread::sleep(Duration::from_millis(20));
        waits += 1;
        assert!(waits < 15_000, "no model after five minutes");
    }
    child.kill().expect("it can be killed");
    child.wait().expect("it ends");
    let output = start().expect("it starts").wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    for kept in ["1 kept", "verify: kept from the last run", "train: kept from the last run"] {
        assert!(said.contains(kept), "'{kept}' is not in: {said}");
    }
    let stdout = String::from_utf8_lossy(&output.stdout);
    let result: Value = serde_json::from_str(stdout.lines().last().expect("a result")).expect("JSON");
    let left = std::fs::read_dir(&work).expect("readable").map(|entry| entry.expect("an entry").file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().starts_with('.')).collect();
    assert!(left.is_empty(), "left over: {left:?}");
    assert_eq!(result["dataset"]["hash"], night().result["dataset"]["hash"]);
    assert_eq!(result["model"]["version"], night().result["model"]["version"]);
    assert_eq!(result["closed_loop"], night().result["closed_loop"]);
}

#[test]
fn the_committed_model_answers_right_after_the_build() {
    let (models, sample) = (root().join("models"), root().join("data"));
    let (request, fleet) = (sample.join("sample-request.json"), sample.join("sample-fleet.json"));
    let decision = json(&["predict", "--models", text(&models), "--request", text(&request), "--fleet", text(&fleet)]);
    assert_eq!(decision["decidedBy"], "model", "{decision}");
    assert_eq!(decision["alternativeShards"].as_array().map(Vec::len), Some(3));
}

#[test]
fn the_reasons_are_exact() {
    let decision = &night().result["decision"];
    let total = |cost: &Value| cost.as_object().expect("terms").values().map(number).sum::<f64>();
    let (own, other) = (&decision["cost"], &decision["alternativeShards"][0]["cost"]);
    let differences: f64 =
        own.as_object().expect("terms").keys().map(|term| number(&other[term]) - number(&own[term])).sum();
    assert!((differences - (total(other) - total(own))).abs() < 1e-9);
}

#[test]
fn help_is_given_for_every_command() {
    for command in [
        &["history", "simulate"][..],
        &["history", "replay"],
        &["dataset", "build"],
        &["dataset", "verify"],
        &["train"],
        &["predict"],
        &["nightly"],
    ] {
        let output = shardwise(&[command, &["--help"]].concat());
        assert!(output.status.success() && output.stdout.len() > 200, "{command:?}");
    }
}

#[test]
fn a_real_day_replays_when_the_traces_are_there() {
    let Some(traces) = std::env::var_os("SHARDWISE_TRACES").map(std::path::PathBuf::from) else {
        skipped("SHARDWISE_TRACES is not set, so there are no real traces to replay");
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("history");
    let file = |name: &str| traces.join(name).to_str().expect("UTF-8").to_owned();
    let summary = json(&[
        "history",
        "replay",
        "--hours",
        "0.5",
        "--arrivals",
        &file("requests/azure_functions_2019_invocations.parquet"),
        "--durations",
        &file("requests/azure_functions_2019_durations.parquet"),
        "--memory",
        &file("requests/azure_functions_2019_memory.parquet"),
        "--market",
        &file("crypto/btc_perp_1m_20211231-20220201.parquet"),
        "--speed-noise",
        &file("nodes/azure_vm_noise_westus2.parquet"),
        "--out",
        text(&out),
    ]);
    assert!(number(&summary["decisions"]) > 5_000.0, "{summary}");
}
