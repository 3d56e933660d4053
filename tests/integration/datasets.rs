//! Datasets as operators meet them: the quality gate as a command and in the night, exit code 4 and how to go on; and that threads
//! change nothing.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use polars::prelude::*;
use serde_json::Value;

use crate::nights::{arguments, history, last_line};
use crate::support::{binary, contents, json, night, shardwise, small_history, text};

fn checks(report: &Value) -> &Vec<Value> {
    report["checks"].as_array().expect("checks")
}

fn named<'a>(report: &'a Value, name: &str) -> &'a Value {
    checks(report).iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("{name} in {report}"))
}

fn read(path: &Path) -> Value {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).expect("JSON")
}

/// Removes every fifth outcome.
fn lose_outcomes(history: &Path) {
    for (path, _) in contents(&history.join("outcomes")) {
        let frame = ParquetReader::new(File::open(&path).expect("readable")).finish().expect("Parquet");
        let kept: Vec<u32> = (0..frame.height() as u32).filter(|row| row % 5 != 0).collect();
        let mut frame = frame.take(&UInt32Chunked::from_vec("rows".into(), kept)).expect("rows");
        ParquetWriter::new(File::create(&path).expect("writable")).finish(&mut frame).expect("written");
    }
}

#[test]
fn the_night_checks_its_dataset_and_records_what_it_accepted() {
    let (work, result) = (night().path("work"), &night().result);
    let names = ["schema", "nulls", "ranges", "duplicates", "join_rate", "clock_skew", "psi", "ks", "drift"];
    let found: Vec<&str> =
        result["quality"].as_array().expect("checks").iter().filter_map(|check| check["name"].as_str()).collect();
    assert_eq!(found, names);
    let run = work.join("runs/latest");
    let quality = read(&run.join("quality.json"));
    assert_eq!((&quality["accepted"], &quality["checks"]), (&true.into(), &result["quality"]));
    for check in checks(&quality) {
        assert!(check["ok"] == true && check["value"].is_number() && check["limit"].is_number(), "{check}");
        assert!(
            check["where"].is_object() && check["sentence"].as_str().is_some_and(|said| !said.is_empty()),
            "{check}"
        );
    }
    let summary = std::fs::read_to_string(run.join("summary.txt")).expect("a summary");
    assert!(summary.starts_with("The data holds in all 9 checks."), "{summary}");
    let page = std::fs::read_to_string(run.join("report/report.html")).expect("a page");
    assert!(page.contains("The data holds in all 9 checks."));
    let metrics = std::fs::read_to_string(run.join("metrics.ndjson")).expect("metrics");
    assert!(metrics.contains(r#""figure":"join_rate","stage":"check""#), "{metrics}");

    let (dataset, accepted) = (work.join("dataset"), work.join("accepted-profile.json"));
    for against in [&accepted, &dataset] {
        let again = json(&["dataset", "check", "--dataset", text(&dataset), "--against", text(against)]);
        assert_eq!((&again["accepted"], &again["columns"][0]["psi"]), (&true.into(), &0.0.into()));
        assert!(again["columns"].as_array().is_some_and(|columns| columns.len() > 70));
    }
}

#[test]
fn a_night_whose_outcomes_were_lost_is_refused_and_says_where() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (history, work) = (folder.path().join("history"), folder.path().join("work"));
    small_history(&history, "3");
    lose_outcomes(&history);
    let output = shardwise(&arguments(&history, &work));
    let error = last_line(&output)["error"].clone();
    assert_eq!((output.status.code(), &error["kind"]), (Some(4), &"data_refused".into()), "{error}");
    let message = error["message"].as_str().expect("a message");
    for word in ["join_rate", "decisions have their outcome", "at least 95.00 % must"] {
        assert!(message.contains(word), "'{word}' is not in {message}");
    }
    let quality = read(&work.join("runs/latest/quality.json"));
    let join_rate = named(&quality, "join_rate");
    assert_eq!((&quality["accepted"], &join_rate["ok"]), (&false.into(), &false.into()));
    assert!(join_rate["where"]["day"].is_string() && join_rate["value"].as_f64().is_some_and(|rate| rate < 0.85));
    assert!(!work.join("accepted-profile.json").exists(), "what was refused is nothing to compare with");
    assert!(!work.join("stages/train.json").exists());

    let dataset = work.join("dataset");
    let refused = shardwise(&["dataset", "check", "--dataset", text(&dataset), "--json"]);
    assert_eq!((refused.status.code(), &last_line(&refused)["accepted"]), (Some(4), &false.into()));
    let limits = folder.path().join("limits.toml");
    std::fs::write(&limits, "min_join_rate = 0.5\n").expect("writable");
    let output = shardwise(&["dataset", "check", "--dataset", text(&dataset), "--limits", text(&limits)]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.ends_with("the dataset is accepted\n"), "{said}");
}

#[test]
fn drift_beyond_the_limit_is_refused_until_somebody_accepts_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (past, work, limits) =
        (folder.path().join("history"), folder.path().join("work"), folder.path().join("limits.toml"));
    history(&past, "0.008", "2026-01-05T12:00:00Z");
    std::fs::create_dir(&work).expect("writable");
    let accepted = work.join("accepted-profile.json");
    let before = std::fs::read(night().path("work/accepted-profile.json")).expect("a profile");
    std::fs::write(&accepted, &before).expect("writable");
    std::fs::write(&limits, "warn_psi = 0.001\nmax_drifted = 0.01\nmin_decisions = 100\n").expect("writable");
    let run = |more: &[&str]| shardwise(&[&arguments(&past, &work)[..], &["--limits", text(&limits)], more].concat());
    let refused = run(&[]);
    let error = last_line(&refused)["error"].clone();
    assert_eq!((refused.status.code(), &error["kind"]), (Some(4), &"data_refused".into()), "{error}");
    assert!(error["message"].as_str().is_some_and(|said| said.contains("columns look otherwise")), "{error}");
    assert!(error["help"].as_str().is_some_and(|help| help.contains("--accept-drift")), "{error}");
    assert_eq!(std::fs::read(&accepted).expect("a profile"), before, "the reference stays");
    let taken = run(&["--accept-drift"]);
    // One replicate shows nothing, so that the gate refuses the model; the night is a whole one.
    assert_eq!(taken.status.code(), Some(3), "{}", String::from_utf8_lossy(&taken.stderr));
    assert!(String::from_utf8_lossy(&taken.stderr).contains("drift was accepted"));
    let dataset = work.join("dataset/profile.json");
    assert_eq!(std::fs::read(&accepted).expect("a profile"), std::fs::read(dataset).expect("a profile"));
}

#[test]
fn limits_that_are_none_are_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let limits = folder.path().join("limits.toml");
    std::fs::write(&limits, "min_joined = 0.5\n").expect("writable");
    let dataset = night().path("work/dataset");
    let output = shardwise(&["dataset", "check", "--dataset", text(&dataset), "--limits", text(&limits)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("min_joined"));
}

#[test]
fn threads_change_no_row() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hash = |threads: &str| {
        let out = folder.path().join(threads);
        let output = Command::new(binary())
            .args(["dataset", "build", "--history", text(&night().path("history")), "--out", text(&out), "--json"])
            .envs([("POLARS_MAX_THREADS", threads), ("RAYON_NUM_THREADS", threads)])
            .output()
            .expect("the binary starts");
        last_line(&output)["hash"].clone()
    };
    assert_eq!((hash("1"), hash("5")), (night().result["dataset"]["hash"].clone(), hash("2")));
}
