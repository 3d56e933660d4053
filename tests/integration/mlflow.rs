//! Nights told to MLflow: all of it and once, whatever the server does, and never at the night's cost. `SHARDWISE_MLFLOW` names
//! the URL of a real server, in which the test leaves an experiment and a registered model.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use shardwise_models::{AliasMove, BundleDraft, CHAMPION, Registry};
use tempfile::TempDir;

use crate::http::{Answer, get};
use crate::mlflow_server::Server;
use crate::nights::{arguments, reference};
use crate::support::{command, json, night, skipped, text};

/// A finished night of another test, to be told; the gate refused its model.
struct Told {
    folder: TempDir,
}

impl Told {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        copy(&reference().work(), &folder.path().join("work"));
        Self { folder }
    }

    fn run(&self) -> PathBuf {
        let latest = self.folder.path().join("work/runs");
        latest.join(reference().result()["run"]["key"].as_str().map(|key| format!("2026-01-05-{key}")).expect("a key"))
    }

    /// The same night once more, which must end as before.
    fn again(&self, more: &[&str], environment: &[(&str, &str)]) -> String {
        let (history, work) = (reference().history(), self.folder.path().join("work"));
        let output = command(&[&arguments(&history, &work)[..], more].concat())
            .envs(environment.iter().copied())
            .output()
            .expect("the binary starts");
        said(&output)
    }

    fn tell(&self, url: &str) -> String {
        self.again(&["--mlflow", url], &[])
    }

    fn tell_within_a_second(&self, url: &str) -> String {
        self.again(&["--mlflow", url, "--mlflow-timeout", "1"], &[])
    }

    fn state(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.run().join("mlflow.json")).expect("mlflow.json")).expect("JSON")
    }

    fn last_event(&self) -> Value {
        let events = std::fs::read_to_string(self.run().join("events.ndjson")).expect("events");
        serde_json::from_str(events.lines().last().expect("an event")).expect("JSON")
    }
}

/// With times, links and all.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").args(["-a", text(from), text(to)]).status().expect("cp starts");
    assert!(copied.success());
}

/// What a night that ended as the gate's refusal does said on standard error.
fn said(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "MLflow is no reason to end otherwise: {said}");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let result: Value = serde_json::from_str(stdout.lines().last().expect("a result")).expect("JSON");
    assert_eq!(result["model"]["version"], reference().result()["model"]["version"]);
    said
}

fn warnings(said: &str) -> usize {
    said.lines().filter(|line| line.starts_with("warning: ")).count()
}

/// The server knows the refused night of `told`, and knows it once.
fn assert_whole(server: &Server, told: &Told) {
    let known = server.known();
    assert_eq!((known.runs.len(), known.versions.len(), known.experiments.len()), (1, 1, 1), "{:?}", known.asked);
    let run = &known.runs[0];
    let name = told.run().file_name().expect("a name").to_string_lossy().into_owned();
    assert_eq!((run.name.as_str(), run.status.as_str()), (name.as_str(), "FINISHED"));
    assert!(0 < run.times_ms[0] && run.times_ms[0] < run.times_ms[1], "{:?}", run.times_ms);
    let version = reference().result()["model"]["version"].as_str().expect("a version").to_owned();
    let state: Value =
        serde_json::from_slice(&std::fs::read(told.run().join("environment.json")).expect("read")).expect("JSON");
    let program = state["program"]["version"].as_str().expect("a version");
    for (tag, value) in [
        ("shardwise.run", name.as_str()),
        ("shardwise.date", "2026-01-05"),
        ("shardwise.version", &version),
        ("shardwise.outcome", "refused"),
        ("shardwise.program_version", program),
    ] {
        assert_eq!(run.tags[tag], value, "{tag}");
    }
    assert!(run.tags["shardwise.verdict"].contains('✗') && run.tags["mlflow.note.content"].contains("sed_off_lambda"));
    assert_eq!((run.params["seed"].as_str(), run.params["replicates"].as_str()), ("1", "1"));
    assert!(run.params["command"].starts_with("shardwise nightly "));
    // All figures of the run's folder.
    let figures = std::fs::read_to_string(told.run().join("metrics.ndjson")).expect("figures");
    let mut wanted = 0;
    for line in figures.lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let name = format!("{}.{}", line["stage"].as_str().expect("s"), line["figure"].as_str().expect("f"));
        if line["value"].is_number() {
            assert_eq!(run.metrics.get(&name).copied(), line["value"].as_f64(), "{name}");
            wanted += 1;
        }
    }
    assert_eq!(run.metrics.len(), wanted);
    for policy in ["shardwise", "sed_off_lambda"] {
        for metric in ["mean_ms", "p99_ms"] {
            assert!(run.metrics[&format!("evaluate.{policy}.{metric}")] > 0.0, "{policy} {metric}");
        }
    }
    assert_eq!(run.metrics["evaluate.may_go_live"], 0.0);
    for file in ["report/report.html", "dataset.json", "result.json", "decision.json", "verdict.json"] {
        let bytes = std::fs::read(told.run().join(file)).expect("read");
        assert!(known.artifacts[&format!("1/0/artifacts/{file}")] == bytes, "{file}");
    }
    // The model is one that can be brought back.
    let tar = &known.artifacts[&format!("1/0/artifacts/model/default-{version}.tar")];
    let file = told.folder.path().join("model.tar");
    std::fs::write(&file, tar).expect("writable");
    let imported = json(&["models", "import", text(&file), "--models", text(&told.folder.path().join("imported"))]);
    assert_eq!(imported["version"], version.as_str());
    let aliases: Vec<_> =
        known.aliases.iter().map(|((model, alias), to)| [model, alias, to].map(String::as_str)).collect();
    assert_eq!(aliases, [["shardwise-default", "challenger", "1"]]);
    assert_eq!(told.state()["complete"], true);
    assert_eq!((&told.last_event()["stage"], &told.last_event()["event"]), (&"mlflow".into(), &"finished".into()));
}

#[test]
fn a_night_is_told_whole_and_once() {
    let server = Server::start();
    let told = Told::new();
    std::fs::remove_dir_all(told.folder.path().join("work")).expect("removable");
    let first = told.tell(&server.url());
    assert_eq!(warnings(&first), 0, "{first}");
    assert_whole(&server, &told);
    let asked = server.known().asked.len();
    let second = told.again(&["--progress", "none"], &[("MLFLOW_TRACKING_URI", &server.url())]);
    assert_eq!((second.as_str(), server.known().asked.len()), ("", asked), "what is told is not told again");
    // Another server knows nothing of it.
    let other = Server::start();
    told.tell(&other.url());
    assert_whole(&other, &told);
}

#[test]
fn a_server_that_is_not_well_costs_one_warning() {
    let told = Told::new();
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let reply = |status: u16, body: &str| {
        let body = body.to_owned();
        Server::with(move |_| Some((false, Answer::Reply(status, body.clone())))).url()
    };
    let denied = r#"{"error_code":"PERMISSION_DENIED","message":"not\n\u001b[2Jyou"}"#;
    for (url, words) in [
        (
            format!("http://127.0.0.1:{closed}"),
            &["cannot be asked", "check the address, and that MLflow runs there"][..],
        ),
        ("http://no-such-host.invalid".to_owned(), &["no-such-host.invalid"]),
        ("https://localhost:5000".to_owned(), &["TLS", "forward the server's port"]),
        ("sqlite:///mlflow.db".to_owned(), &["write it as http://host:port"]),
        (Server::with(|_| Some((false, Answer::Silence))).url(), &["within ", "--mlflow-timeout"]),
        (Server::with(|_| Some((false, Answer::Drip))).url(), &["within ", "--mlflow-timeout"]),
        (Server::with(|_| Some((false, Answer::HangUp))).url(), &["cannot be asked"]),
        (reply(500, "<html>\n oops</html>"), &["500", "<html> oops</html>", "the server's log"]),
        (reply(401, ""), &["401", "MLFLOW_TRACKING_TOKEN"]),
        (reply(403, denied), &["403 PERMISSION_DENIED", "not [2Jyou", "MLFLOW_TRACKING_USERNAME"]),
        (reply(404, "no such page"), &["404", "check that it is the address of an MLflow server"]),
        (reply(200, "<html></html>"), &["not as MLflow does"]),
        (reply(200, "[1, 2]"), &["not as MLflow does"]),
        (reply(200, "{}"), &["without /experiment/experiment_id"]),
        (reply(200, ""), &["not as MLflow does"]),
        (reply(200, &"x".repeat(20 << 20)), &["experiments/get-by-name"]),
    ] {
        let before = now();
        let said = told.tell_within_a_second(&url);
        assert!(before.elapsed() < Duration::from_secs(15), "{url} took {:?}", before.elapsed());
        assert_eq!(warnings(&said), 1, "{url}: {said}");
        for word in words {
            assert!(said.contains(word), "'{word}' is not in: {said}");
        }
        assert!(said.contains("tells the rest") && !said.contains('\u{1b}'), "{said}");
        let event = told.last_event();
        assert_eq!((&event["stage"], &event["event"]), (&"mlflow".into(), &"failed".into()), "{url}");
        assert!(said.contains(event["message"].as_str().expect("a message")), "{event}");
        assert_eq!(told.state()["complete"], false, "{url}");
    }
    let server = Server::start();
    told.tell(&server.url());
    assert_whole(&server, &told);
}

#[expect(clippy::disallowed_methods, reason = "what a slow server costs is measured")]
fn now() -> Instant {
    Instant::now()
}

#[test]
fn a_server_that_dies_at_any_request_is_told_the_rest_and_nothing_twice() {
    let told = Told::new();
    let whole = Server::start();
    told.tell(&whole.url());
    let requests = whole.known().asked.len();
    assert!(requests > 15, "{requests}");
    // The answer to the last request that it did is lost, or it was never done.
    for (number, is_done) in (0..requests).flat_map(|number| [(number, true), (number, false)]) {
        let server = Server::with(move |n| (n >= number).then_some((is_done && n == number, Answer::HangUp)));
        let first = told.tell(&server.url());
        assert_eq!(warnings(&first), 1, "request {number}: {first}");
        server.recover();
        let second = told.tell(&server.url());
        assert_eq!(warnings(&second), 0, "after request {number}: {second}");
        assert_whole(&server, &told);
    }
}

#[test]
fn what_a_server_lost_or_somebody_removed_is_told_anew() {
    let told = Told::new();
    let server = Server::with(|n| (n >= 8).then_some((false, Answer::HangUp)));
    told.tell(&server.url());
    assert!(told.state()["run_id"].is_string() && !server.known().runs.is_empty());
    server.recover();
    server.known().runs[0].deleted = true;
    told.tell(&server.url());
    let (runs, run_id) = (server.known().runs.len(), told.state()["run_id"].clone());
    assert_eq!((runs, run_id), (2, "1".into()));
    assert!(server.known().artifacts.contains_key("1/1/artifacts/report/report.html"));

    // Another attempt is told as the same run; its parameters cannot be changed, which is no error.
    let parameters = told.run().join("parameters.json");
    let other = std::fs::read_to_string(&parameters).expect("read").replace("\"keep_runs\": 30", "\"keep_runs\": 31");
    std::fs::write(&parameters, other).expect("writable");
    let mut state = told.state();
    state["attempt"] = 0.into();
    std::fs::write(told.run().join("mlflow.json"), state.to_string()).expect("writable");
    assert_eq!(warnings(&told.tell(&server.url())), 0);
    let known = server.known();
    assert_eq!((known.runs.len(), known.versions.len(), known.runs[1].batches), (2, 1, 5));
    assert_eq!(known.runs[1].params["keep_runs"], "30");
}

#[test]
fn artefacts_that_only_the_server_can_write_are_said() {
    let told = Told::new();
    let elsewhere = |n: usize| {
        let run = r#"{"runs":[{"info":{"run_id":"0","artifact_uri":"s3://bucket/0"},"data":{}}]}"#;
        Some((true, Answer::Reply(200, if n == 2 { run.to_owned() } else { r#"{"experiment_id":"1"}"#.to_owned() })))
            .filter(|_| n != 0)
    };
    let server = Server::with(elsewhere);
    let said = told.tell(&server.url());
    assert!(said.contains("s3://bucket/0") && said.contains("--artifacts-destination"), "{said}");
    assert_eq!(told.state()["figures"], true, "all else is told");
}

fn versions_and_aliases(server: &Server) -> (usize, usize) {
    let known = server.known();
    (known.versions.len(), known.aliases.len())
}

#[test]
fn a_late_night_moves_no_alias_back() {
    let told = Told::new();
    let latest = told.folder.path().join("work/runs/latest");
    std::fs::remove_file(&latest).expect("removable");
    std::os::unix::fs::symlink("2026-01-06-0", &latest).expect("a link");
    let server = Server::start();
    told.tell(&server.url());
    assert_eq!(versions_and_aliases(&server), (1, 0));

    // What is live is `champion`, until something else is.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (history, work) = (night().path("history"), folder.path().join("work"));
    copy(&night().path("work"), &work);
    let tell = |server: &Server| {
        let arguments = ["nightly", "--history", text(&history), "--work", text(&work), "--replicates", "4"];
        json(&[&arguments[..], &["--mlflow", &server.url()]].concat());
    };
    let server = Server::start();
    tell(&server);
    let alias = ("shardwise-default".to_owned(), "champion".to_owned());
    assert_eq!(server.known().aliases.iter().collect::<Vec<_>>(), [(&alias, &"1".to_owned())]);
    assert_eq!(server.known().runs[0].tags["shardwise.outcome"], "promoted");
    let registry = Registry::open(&work.join("models"), "default").expect("a registry");
    let draft = BundleDraft { name: "default".to_owned(), ..BundleDraft::example() };
    let other = registry.publish(&draft).expect("a version");
    registry.set_alias(CHAMPION, &other, &AliasMove::default()).expect("a move");
    let server = Server::start();
    tell(&server);
    assert_eq!(versions_and_aliases(&server), (1, 0));
}

#[test]
fn users_tokens_and_experiments_come_from_the_environment_and_stay_secret() {
    let told = Told::new();
    for (before, environment, expected) in [
        ("", &[("MLFLOW_TRACKING_USERNAME", "me"), ("MLFLOW_TRACKING_PASSWORD", "secret")][..], "Basic bWU6c2VjcmV0"),
        ("", &[("MLFLOW_TRACKING_TOKEN", "secret")], "Bearer secret"),
        ("me:secret@", &[], "Basic bWU6c2VjcmV0"),
    ] {
        let server = Server::with(|n| (n == 6).then_some((false, Answer::HangUp)));
        let url = server.url_with(before);
        let variables = [("MLFLOW_TRACKING_URI", url.as_str()), ("MLFLOW_EXPERIMENT_NAME", "mine")];
        let said = told.again(&[], &[&variables, environment].concat());
        assert_eq!(server.known().authorization.as_deref(), Some(expected));
        assert_eq!(server.known().experiments, ["mine"]);
        assert_eq!(warnings(&said), 1);
        let noted = std::fs::read_to_string(told.run().join("events.ndjson")).expect("events");
        for text in [said, noted, told.state().to_string()] {
            assert!(!text.contains("secret"), "{text}");
        }
    }
    let server = Server::start();
    let variables = [("MLFLOW_EXPERIMENT_NAME", "mine"), ("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")];
    told.again(&["--mlflow", &server.url(), "--mlflow-experiment", "other"], &variables);
    assert_eq!(server.known().experiments, ["other"], "options go before the environment");
}

#[test]
fn a_real_server_knows_the_night() {
    let Ok(url) = std::env::var("SHARDWISE_MLFLOW") else {
        skipped("SHARDWISE_MLFLOW names no MLflow tracking server, such as http://127.0.0.1:5000");
        return;
    };
    let told = Told::new();
    // A model of its own: nobody's alias is moved.
    let name = format!("test-{}", std::process::id());
    std::fs::remove_dir_all(told.folder.path().join("work")).expect("removable");
    let (history, work) = (reference().history(), told.folder.path().join("work"));
    let more = ["--name", &name, "--mlflow", &url, "--mlflow-experiment", &name];
    let output = command(&[&arguments(&history, &work)[..], &more].concat()).output().expect("the binary starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), warnings(&said)), (Some(3), 0), "{said}");

    let address = url.trim_start_matches("http://").trim_end_matches('/');
    let body = |path: &str| {
        let answer = get(address, path).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
        assert!(head.contains(" 200 "), "{path}: {answer}");
        body.to_owned()
    };
    let object = |path: &str| -> Value {
        let body = body(&format!("/api/2.0/mlflow/{path}"));
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error} in {body}"))
    };
    let run = work.join("runs/latest");
    let result: Value = serde_json::from_slice(&std::fs::read(run.join("result.json")).expect("read")).expect("JSON");
    let alias = object(&format!("registered-models/alias?name=shardwise-{name}&alias=challenger"));
    let version = &alias["model_version"];
    assert_eq!(version["version"], "1");
    let id = version["run_id"].as_str().expect("a run");
    let answer = object(&format!("runs/get?run_id={id}"));
    assert_eq!(answer["run"]["info"]["status"], "FINISHED");
    let value = |field: &str, name: &str| {
        let pairs = answer["run"]["data"][field].as_array().expect("pairs");
        let pair = pairs.iter().find(|pair| pair["key"] == name).unwrap_or_else(|| panic!("{name} in {pairs:?}"));
        pair["value"].clone()
    };
    assert_eq!(value("tags", "shardwise.version"), result["model"]["version"]);
    assert_eq!(value("params", "name"), name.as_str());
    let row = result["closed_loop"].as_array().expect("rows").iter().find(|row| row["policy"] == "shardwise");
    assert_eq!(value("metrics", "evaluate.shardwise.mean_ms"), row.expect("a row")["mean_ms"]);
    let root =
        answer["run"]["info"]["artifact_uri"].as_str().expect("a place").trim_start_matches("mlflow-artifacts:/");
    let sent = body(&format!("/api/2.0/mlflow-artifacts/artifacts/{root}/decision.json"));
    assert!(sent == std::fs::read_to_string(run.join("decision.json")).expect("read"), "{sent}");
}
