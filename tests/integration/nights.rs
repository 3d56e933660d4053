//! Nights as operators run them: one run per date, its folder, the lock, signals, progress and exit codes.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{command, contents, json, night, refused, shardwise, text};

/// A small history and a whole night on it, which tests of other nights are held against. One replicate shows nothing, so the
/// gate refuses the model.
pub(crate) struct Reference {
    folder: TempDir,
    output: Output,
}

impl Reference {
    pub(crate) fn history(&self) -> PathBuf {
        self.folder.path().join("history")
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    pub(crate) fn result(&self) -> Value {
        last_line(&self.output)
    }
}

pub(crate) fn reference() -> &'static Reference {
    static REFERENCE: LazyLock<Reference> = LazyLock::new(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        history(&folder.path().join("history"), "0.008", "2026-01-05T12:00:00Z");
        let (history, work) = (folder.path().join("history"), folder.path().join("work"));
        let output = shardwise(&[&arguments(&history, &work)[..], &["--progress", "json"]].concat());
        Reference { folder, output }
    });
    &REFERENCE
}

pub(crate) fn history(out: &Path, hours: &str, start: &str) {
    json(&[
        "history",
        "simulate",
        "--fleet-seed",
        "3",
        "--seed",
        "1",
        "--hours",
        hours,
        "--start",
        start,
        "--out",
        text(out),
    ]);
}

/// A night with one replicate.
pub(crate) fn arguments<'a>(history: &'a Path, work: &'a Path) -> [&'a str; 8] {
    ["nightly", "--history", text(history), "--work", text(work), "--replicates", "1", "--json"]
}

pub(crate) fn start(history: &Path, work: &Path) -> Child {
    command(&arguments(history, work)).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
}

pub(crate) fn last_line(output: &Output) -> Value {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let last = stdout.lines().last().unwrap_or_else(|| panic!("nothing was printed: {stderr}"));
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{error} in {last}"))
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args(["-s", name, &child.id().to_string()]).status().expect("kill starts");
    assert!(sent.success(), "SIG{name} was not sent");
}

/// Waits until a file holds a text.
fn wait_for(file: &Path, wanted: &str) {
    for _ in 0..15_000 {
        if std::fs::read_to_string(file).is_ok_and(|text| text.contains(wanted)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("'{wanted}' is not in {} after five minutes", file.display());
}

fn json_lines(text: &str) -> Vec<Value> {
    let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
    text.lines().map(read).collect()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn a_run_leaves_all_that_it_did_in_its_folder() {
    let reference = reference();
    assert_eq!(reference.output.status.code(), Some(3), "a judged model that is not promoted");
    let result = reference.result();
    assert_eq!((&result["run"]["outcome"], &result["model"]["published"]), (&"refused".into(), &false.into()));
    let folder = PathBuf::from(result["run"]["folder"].as_str().expect("a path"));
    let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(name.starts_with("2026-01-05-"), "{name}");
    let latest = std::fs::read_link(reference.work().join("runs/latest")).expect("a link");
    assert_eq!(latest.to_string_lossy(), name);

    let object = |file: &str| -> Value { serde_json::from_str(&read(&folder.join(file))).expect("JSON") };
    assert_eq!(object("dataset.json")["content_hash"], result["dataset"]["hash"]);
    assert_eq!(object("model.json")["version"], result["model"]["version"]);
    assert_eq!(object("result.json"), result);
    assert_eq!(object("parameters.json")["date"], "2026-01-05");
    assert_eq!(object("run.json")["exit_code"], 3);
    let environment = object("environment.json");
    for pointer in
        ["/program/version", "/program/built", "/cpu/model", "/memory/total_mib", "/kernel/release", "/threads"]
    {
        assert!(environment.pointer(pointer).is_some_and(|value| !value.is_null()), "{pointer} in {environment}");
    }
    assert!(read(&folder.join("report/report.html")).contains("<html"));

    let events = json_lines(&read(&folder.join("events.ndjson")));
    for stage in ["build", "check", "verify", "train", "decide", "evaluate", "publish", "report"] {
        let of_stage: Vec<&Value> = events.iter().filter(|event| event["stage"] == stage).collect();
        let names: Vec<&str> = of_stage.iter().filter_map(|event| event["event"].as_str()).collect();
        assert_eq!(names, ["started", "finished"], "{stage}");
        assert!(of_stage[1]["seconds"].is_number() && of_stage.iter().all(|event| event["at"].is_string()));
    }
    // Nobody puts live by mistake what the gate refused.
    let (models, version) = (reference.work().join("models"), result["model"]["version"].as_str().expect("a version"));
    let said = refused(&["models", "promote", version, "--models", text(&models), "--why", "x"]);
    assert!(said.contains("may not go live: ") && !said.contains("never judged"), "{said}");
    let metrics = json_lines(&read(&folder.join("metrics.ndjson")));
    let mut figures: Vec<(&str, &str)> =
        metrics.iter().map(|line| (line["stage"].as_str().expect("s"), line["figure"].as_str().expect("f"))).collect();
    for figure in [
        ("build", "rows"),
        ("verify", "mismatches"),
        ("train", "exec.rmse"),
        ("train", "wait.loss"),
        ("train", "quantiles.q90.coverage"),
        ("train", "confidence.error"),
        ("evaluate", "shardwise.mean_ms"),
    ] {
        assert!(figures.contains(&figure), "{figure:?}");
    }
    let all = figures.len();
    figures.sort_unstable();
    figures.dedup();
    assert_eq!(figures.len(), all, "one line for each stage and figure");
}

#[test]
fn json_progress_is_one_object_per_line() {
    let said = String::from_utf8_lossy(&reference().output.stderr).into_owned();
    let lines = json_lines(&said);
    for line in &lines {
        for field in ["stage", "done", "total", "message", "at"] {
            assert!(line.get(field).is_some(), "{field} in {line}");
        }
    }
    for stage in ["build", "verify", "train", "evaluate"] {
        let last = lines.iter().rfind(|line| line["stage"] == stage).unwrap_or_else(|| panic!("{stage} in {said}"));
        assert!(last["done"].is_number() && last["done"] == last["total"], "{last}");
    }
}

#[test]
fn a_finished_night_is_not_done_again() {
    let reference = reference();
    let (history, work) = (reference.history(), reference.work());
    let before = contents(&work);
    for (mode, words) in [("plain", "2026-01-05 is finished already"), ("none", "")] {
        let arguments = arguments(&history, &work);
        let again = shardwise(&[&arguments[..], &["--date", "2026-01-05", "--progress", mode]].concat());
        let said = String::from_utf8_lossy(&again.stderr).into_owned();
        assert!(said.contains(words) && (mode != "none" || said.is_empty()), "{mode}: {said}");
        assert_eq!(again.status.code(), Some(3), "as it ended the first time");
        let mut result = last_line(&again);
        assert_eq!(result["run"]["kept"], true);
        result["run"]["kept"] = false.into();
        assert_eq!(result, reference.result());
    }
    let lock = work.join("lock");
    let but_lock =
        |files: Vec<(PathBuf, Vec<u8>)>| files.into_iter().filter(|(path, _)| *path != lock).collect::<Vec<_>>();
    assert!(but_lock(contents(&work)) == but_lock(before), "nothing but the lock's holder is written");
}

#[test]
fn a_promoted_model_that_was_rolled_back_is_not_promoted_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (history, work) = (night().path("history"), folder.path().join("work"));
    let arguments = ["nightly", "--history", text(&history), "--work", text(&work), "--replicates", "4", "--json"];
    let first = shardwise(&arguments);
    assert_eq!((first.status.code(), &last_line(&first)["run"]["outcome"]), (Some(0), &"promoted".into()));
    let models = work.join("models");
    let version = last_line(&first)["model"]["version"].as_str().expect("a version").to_owned();
    // Another version takes its place, as after a roll back.
    let dataset = work.join("dataset");
    let other = json(&["train", "--dataset", text(&dataset), "--models", text(&models), "--seed", "2"]);
    let other = other["version"].as_str().expect("a version");
    // No gate saw it.
    json(&["models", "promote", "--models", text(&models), other, "--force", "--why", "A test rolls back."]);
    let again = shardwise(&arguments);
    assert_eq!(again.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&again.stderr).contains(&format!("version {version} was live and is no longer")));
    let list = json(&["models", "show", "--models", text(&models), "champion"]).to_string();
    assert!(list.contains(other), "{list}");
}

#[test]
fn data_that_cannot_be_used_ends_with_4_and_an_object() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("empty")).expect("writable");
    history(&path("short"), "0.002", "2026-01-05T12:00:00Z");
    let refused = |history: &Path, work: &str, more: &[&str]| {
        let work = path(work);
        let output = shardwise(&[&arguments(history, &work)[..], more].concat());
        let error = last_line(&output)["error"].clone();
        assert_eq!(output.status.code(), Some(4), "{error}");
        assert_eq!(error["kind"], "data_refused");
        assert!(error["help"].as_str().is_some_and(|help| !help.is_empty()), "{error}");
        error["message"].as_str().expect("a message").to_owned()
    };
    assert!(refused(&path("empty"), "a", &[]).contains("decisions"));
    assert!(refused(&path("none"), "b", &[]).contains("no history"));
    assert!(refused(&path("short"), "c", &["--date", "2026-01-04"]).contains("has no day 2026-01-04"));
    // Nights that fail keep to the number of runs as well.
    for seed in ["1", "2", "3"] {
        let said = refused(&path("short"), "d", &["--seed", seed, "--keep-runs", "2"]);
        assert!(said.contains("too few"), "{said}");
    }
    let runs = std::fs::read_dir(path("d/runs"))
        .expect("readable")
        .filter(|entry| entry.as_ref().expect("an entry").file_name().to_string_lossy().starts_with("2026"));
    assert_eq!(runs.count(), 2);
}

#[test]
fn other_failures_have_codes_and_objects_of_their_own() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("writable");
    let history = reference().history();
    let output = shardwise(&arguments(&history, &file));
    assert_eq!(output.status.code(), Some(1), "a file is no work folder");
    assert_eq!(last_line(&output)["error"]["kind"], "failed");
    let work = folder.path().join("work");
    for more in [["--date", "yesterday"], ["--progress", "loud"], ["--keep-runs", "-1"]] {
        let output = shardwise(&[&arguments(&history, &work)[..], &more].concat());
        assert_eq!(output.status.code(), Some(2), "{more:?}");
    }
    assert!(!work.exists(), "a wrong command line does nothing");
}

#[test]
fn the_night_of_a_day_reads_nothing_of_the_days_after() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (past, work) = (folder.path().join("history"), folder.path().join("work"));
    history(&past, "0.016", "2026-01-05T23:59:30Z");
    let night = || shardwise(&[&arguments(&past, &work)[..], &["--date", "2026-01-05"]].concat());
    let first = last_line(&night());
    let made = folder.path().join("dataset");
    let built = json(&["dataset", "build", "--history", text(&past), "--out", text(&made), "--to", "2026-01-06"]);
    assert_eq!(first["dataset"]["hash"], built["hash"]);
    assert_eq!(first["run"]["date"], "2026-01-05");
    for table in ["decisions", "outcomes", "shard_reports", "market"] {
        let later = past.join(table).join("date=2026-01-06");
        if later.exists() {
            std::fs::remove_dir_all(later).expect("removable");
        }
    }
    let second = last_line(&night());
    assert_eq!((&second["run"]["kept"], &second["run"]["key"]), (&true.into(), &first["run"]["key"]));
}

#[test]
fn one_night_at_a_time_and_signals_stop_it_in_order() {
    let reference = reference();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (history, work) = (reference.history(), folder.path().join("work"));
    let latest = work.join("runs/latest");
    let training = r#""event":"started","stage":"train""#;
    let code = |status: ExitStatus| status.code();

    let mut killed = start(&history, &work);
    wait_for(&latest.join("events.ndjson"), training);
    let second = shardwise(&arguments(&history, &work));
    let error = last_line(&second)["error"].clone();
    assert_eq!((second.status.code(), &error["kind"]), (Some(1), &"locked".into()));
    let words = error.to_string();
    for word in [format!("process {} on ", killed.id()), "since 2".to_owned(), format!("kill -TERM {}", killed.id())] {
        assert!(words.contains(&word), "'{word}' is not in {words}");
    }
    killed.kill().expect("it can be killed");
    killed.wait().expect("it ends");

    // Nothing is cleaned up; the next one has the lock and goes on until it is asked to stop.
    std::fs::remove_file(latest.join("events.ndjson")).expect("removable");
    let terminated = start(&history, &work);
    wait_for(&latest.join("events.ndjson"), training);
    signal(&terminated, "TERM");
    let output = terminated.wait_with_output().expect("it ends");
    assert_eq!(code(output.status), Some(143), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(last_line(&output)["error"]["kind"], "interrupted");
    let state: Value = serde_json::from_str(&read(&latest.join("run.json"))).expect("JSON");
    assert_eq!((&state["status"], &state["exit_code"]), (&"interrupted".into(), &143.into()));
    assert!(work.join("stages/train.json").exists(), "the stage at work was finished");

    // The second signal does not wait for the stage.
    std::fs::remove_file(work.join("stages/train.json")).expect("removable");
    std::fs::remove_file(latest.join("events.ndjson")).expect("removable");
    let interrupted = start(&history, &work);
    wait_for(&latest.join("events.ndjson"), training);
    signal(&interrupted, "INT");
    std::thread::sleep(Duration::from_millis(300));
    signal(&interrupted, "INT");
    let output = interrupted.wait_with_output().expect("it ends");
    assert_eq!(code(output.status), Some(130));
    assert!(output.stdout.is_empty() && !work.join("stages/train.json").exists(), "it ended at once");

    let output = start(&history, &work).wait_with_output().expect("it ends");
    let result = last_line(&output);
    assert_eq!((code(output.status), &result["run"]["attempts"]), (Some(3), &4.into()));
    assert_eq!(result["model"]["version"], reference.result()["model"]["version"]);
    assert_eq!(result["closed_loop"], reference.result()["closed_loop"]);
}
