//! Bad input is refused with words that help, and nothing is left half written.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{binary, contents, json, night, refused, skipped, small_history, text};

/// Runs `dataset build` on a history that must be refused; the words and the absence of output are checked.
fn build_refused(history: &Path, words: &[&str]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("dataset");
    let said = refused(&["dataset", "build", "--history", text(history), "--out", text(&out)]);
    for word in words {
        assert!(said.contains(word), "'{word}' is not in: {said}");
    }
    assert!(!out.join("dataset.json").exists(), "a card without a dataset");
    let left: Vec<PathBuf> = std::fs::read_dir(folder.path())
        .expect("readable")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| *path != out)
        .collect();
    assert!(left.is_empty(), "left over: {left:?}");
}

fn only_file(history: &Path, table: &str) -> PathBuf {
    contents(&history.join(table)).into_iter().map(|(path, _)| path).next().expect("a file of the table")
}

#[test]
fn a_missing_folder_is_named() {
    build_refused(Path::new("/no/such/history"), &["/no/such/history"]);
}

#[test]
fn an_empty_history_says_what_to_do() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    build_refused(folder.path(), &["decisions"]);
}

#[test]
fn a_file_cut_in_the_middle_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let history = folder.path().join("history");
    small_history(&history, "3");
    let file = only_file(&history, "outcomes");
    let bytes = std::fs::read(&file).expect("readable");
    std::fs::write(&file, &bytes[..bytes.len() / 2]).expect("writable");
    build_refused(&history, &["outcomes", "parquet"]);
}

#[test]
fn outcomes_without_their_decisions_are_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (history, other) = (folder.path().join("history"), folder.path().join("other"));
    small_history(&history, "3");
    json(&["history", "simulate", "--fleet-seed", "3", "--seed", "5", "--hours", "0.004", "--out", text(&other)]);
    std::fs::copy(only_file(&other, "decisions"), only_file(&history, "decisions")).expect("copied");
    build_refused(&history, &["outcome", "decision"]);
}

#[test]
fn requests_that_make_no_sense_are_refused_by_field() {
    let night = night();
    let (models, fleet) = (night.path("work/models"), night.path("work/decision/fleet.json"));
    let good = std::fs::read_to_string(night.path("work/decision/request.json")).expect("nightly leaves its request");
    for (field, value, word) in [
        ("amountUsd", "-5", "amountUsd"),
        ("amountUsd", "NaN", "line"),
        ("riskLevel", "\"extreme\"", "low, medium, high, critical"),
        ("urgency", "\"now\"", "urgency"),
        ("eventAt", "\"yesterday\"", "2026-01-05T12:00:00Z"),
        ("dataComplexity", "0", "dataComplexity"),
        ("unheardOf", "1", "unheardOf"),
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("request.json");
        let mut request: serde_json::Value = serde_json::from_str(&good).expect("JSON");
        request.as_object_mut().expect("an object").remove(field);
        let json = request.to_string().replacen('{', &format!("{{\"{field}\":{value},"), 1);
        std::fs::write(&file, json).expect("writable");
        let said = refused(&["predict", "--models", text(&models), "--request", text(&file), "--fleet", text(&fleet)]);
        assert!(said.contains(word) && said.contains("request.json"), "{field} = {value}: {said}");
    }
}

#[test]
fn an_unknown_protocol_is_answered_and_said() {
    let night = night();
    let mut request: serde_json::Value =
        serde_json::from_slice(&std::fs::read(night.path("work/decision/request.json")).expect("readable"))
            .expect("JSON");
    request["protocol"] = "brand-new-protocol".into();
    let file = night.path("new-protocol.json");
    std::fs::write(&file, request.to_string()).expect("writable");
    let output = Command::new(binary())
        .args([
            "predict",
            "--models",
            text(&night.path("work/models")),
            "--request",
            text(&file),
            "--fleet",
            text(&night.path("work/decision/fleet.json")),
            "--json",
        ])
        .output()
        .expect("the binary starts");
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("brand-new-protocol"));
}

#[test]
fn a_fleet_without_a_healthy_shard_is_a_refusal_with_reasons() {
    let night = night();
    let mut fleet: serde_json::Value =
        serde_json::from_slice(&std::fs::read(night.path("work/decision/fleet.json")).expect("readable"))
            .expect("JSON");
    for shard in fleet["shards"].as_array_mut().expect("shards") {
        shard["report"]["healthy"] = false.into();
    }
    let file = night.path("sick.json");
    std::fs::write(&file, fleet.to_string()).expect("writable");
    let said = refused(&[
        "predict",
        "--models",
        text(&night.path("work/models")),
        "--request",
        text(&night.path("work/decision/request.json")),
        "--fleet",
        text(&file),
    ]);
    assert!(said.contains("no eligible shard") && said.contains("unhealthy"), "{said}");
}

#[test]
fn a_model_of_other_features_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let models = folder.path().join("models");
    copy(&night().path("work/models"), &models);
    let (manifest, bytes) =
        contents(&models).into_iter().find(|(path, _)| path.ends_with("manifest.json")).expect("a manifest");
    let own = shardwise_features::fingerprint();
    let other = String::from_utf8(bytes).expect("UTF-8").replace(own, &own.replace(['a', '1'], "0"));
    std::fs::write(&manifest, other).expect("writable");
    let said = refused(&[
        "predict",
        "--models",
        text(&models),
        "--request",
        text(&night().path("work/decision/request.json")),
        "--fleet",
        text(&night().path("work/decision/fleet.json")),
    ]);
    assert!(said.contains("was made for the features") && said.contains("retrain"), "{said}");
}

#[test]
fn an_unknown_model_name_lists_those_that_are_there() {
    let night = night();
    let said = refused(&[
        "predict",
        "--models",
        text(&night.path("work/models")),
        "--name",
        "nosuch",
        "--request",
        text(&night.path("work/decision/request.json")),
        "--fleet",
        text(&night.path("work/decision/fleet.json")),
    ]);
    assert!(said.contains("nosuch") && said.contains("default"), "{said}");
}

#[test]
fn an_unknown_policy_lists_the_known_ones() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("history");
    let said = refused(&["history", "simulate", "--policy", "clever", "--out", text(&out)]);
    assert!(said.contains("clever") && said.contains("sed_tab_softmax"), "{said}");
    assert!(!out.exists());
}

#[test]
fn an_existing_history_is_not_overwritten() {
    let before = contents(&night().path("history"));
    let said = refused(&["history", "simulate", "--hours", "0.001", "--out", text(&night().path("history"))]);
    assert!(said.contains("history"), "{said}");
    assert_eq!(contents(&night().path("history")), before);
}

#[test]
fn a_full_disk_leaves_nothing_half() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).expect("writable");
    let history = night().path("history");
    // A file system of its own that is too small, in a mount namespace of its own.
    let script = format!(
        "mount -t tmpfs -o size=300k tmpfs {disk} && echo mounted && \
         {binary} dataset build --history {history} --out {disk}/dataset; echo code $?; ls -A {disk}",
        disk = text(&disk),
        binary = text(&binary()),
        history = text(&history),
    );
    let output = Command::new("unshare").args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]).output();
    let Some(output) = output.ok().filter(|output| String::from_utf8_lossy(&output.stdout).contains("mounted")) else {
        skipped("this machine allows no mount namespaces, so there is no small disk to fill");
        return;
    };
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(stdout.contains("code 1"), "{stdout}{stderr}");
    assert!(stderr.to_lowercase().contains("no space left"), "{stderr}");
    let left = stdout.split("code 1").nth(1).unwrap_or_default().trim();
    assert!(left.is_empty() || left == "dataset", "left over: {left}");
}

fn copy(from: &Path, to: &Path) {
    for (path, bytes) in contents(from) {
        let target = to.join(path.strip_prefix(from).expect("below the folder"));
        std::fs::create_dir_all(target.parent().expect("a parent")).expect("writable");
        std::fs::write(target, bytes).expect("writable");
    }
}
