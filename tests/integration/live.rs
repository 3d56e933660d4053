//! The live system as processes: shards that run functions, routers that place, clients that ask, and what is left in the history.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use serde_json::{Value, json};

use crate::http::{get, post};
use crate::support::{command, json as run_json, root, shardwise, skipped, text};

/// A process that ends when the test does, however it does.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.0.id().to_string()]).status();
        assert!(sent.expect("kill is everywhere").success());
    }

    /// What it printed last, once it has ended by itself.
    fn result(mut self) -> Value {
        let output = self.0.stdout.take().expect("piped");
        let last = BufReader::new(output).lines().map(|line| line.expect("UTF-8")).last();
        assert!(self.0.wait().expect("it ends").success());
        serde_json::from_str(&last.expect("a result")).expect("JSON")
    }
}

/// An address of this test alone: of the loopback network each test has a host of its own, so that nobody takes the port between
/// the moment that it is found free and the one that a router listens there.
fn free_address() -> String {
    static HOSTS: AtomicU8 = AtomicU8::new(1);
    let [a, b, _, _] = std::process::id().to_le_bytes();
    let host = Ipv4Addr::new(127, 1 + a % 254, b, HOSTS.fetch_add(1, Relaxed));
    TcpListener::bind((host, 0)).and_then(|free| free.local_addr()).expect("a free port").to_string()
}

/// Starts a router and waits until it answers.
fn serve(folder: &Path, address: &str, options: &[&str]) -> Running {
    let data = folder.join("data");
    let fleet = root().join("data/sample-fleet.json");
    let fleet = if folder.join("fleet/fleet.json").exists() { folder.join("fleet/fleet.json") } else { fleet };
    let fixed = ["serve", "--listen", address, "--data", text(&data), "--fleet", text(&fleet), "--json"];
    let mut command = command(&[&fixed, options].concat());
    // Other tests have the machine, too: what waits is no sign of load here.
    command.env("SHARDWISE_SERVE_LIMITS__SHED_ABOVE_MS", "100000");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let running = Running(child.expect("the binary starts"));
    wait_until("the router answers", || ask(address, "/v2/health/ready").is_some());
    running
}

/// Starts shards that report to routers, and waits for the file that says where they are.
fn fleet(folder: &Path, shards: &str, routers: &[&str]) -> Running {
    let (dir, routers) = (folder.join("fleet"), routers.iter().map(|router| format!("http://{router}")));
    let mut arguments =
        ["fleet", "up", "--shards", shards, "--dir", text(&dir), "--no-restart"].map(str::to_owned).to_vec();
    arguments.extend(routers.flat_map(|router| ["--report-to".to_owned(), router]));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let child = command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let running = Running(child.expect("the binary starts"));
    wait_until("the fleet is up", || dir.join("fleet.json").exists());
    running
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..600 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("not within a minute: {what}");
}

/// A JSON document of a router; none when it does not answer with one.
fn ask(address: &str, path: &str) -> Option<Value> {
    let response = get(address, path)?;
    let is_ok = response.lines().next().is_some_and(|line| line.contains(" 200 "));
    if is_ok { serde_json::from_str(body(&response)).ok() } else { None }
}

fn body(response: &str) -> &str {
    response.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

fn place(address: &str) -> Option<String> {
    let request = std::fs::read_to_string(root().join("data/sample-request.json")).expect("the sample");
    let response = post(address, "/v1/predict-optimal-shard", &request)?;
    let answer: Value = serde_json::from_str(body(&response)).ok()?;
    answer["decisionId"].as_str().map(str::to_owned)
}

fn import(folder: &Path) -> Value {
    let (journal, out) = (folder.join("data/journal"), folder.join("history"));
    run_json(&["history", "import", "--from", "journal", "--input", text(&journal), "--out", text(&out)])
}

#[test]
fn shards_run_what_routers_place_and_all_of_it_becomes_history() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let address = free_address();
    let fleet = fleet(folder.path(), "3", &[&address]);
    let router = serve(folder.path(), &address, &["--models", text(&root().join("models")), "--router", "live"]);
    wait_until("all shards report", || {
        ask(&address, "/v1/status").is_some_and(|status| status["reports"]["new"].as_u64() >= Some(6))
    });
    let target = format!("live=http://{address}");
    let options = ["--rate", "40", "--duration", "6", "--block", "2", "--settle", "0.5"];
    let scenario = ["loadtest", "--scenario", "market_volatility", "--target", &target];
    let compared = run_json(&[&scenario[..], &options].concat());
    let arm = &compared["arms"][0];
    assert_eq!((&arm["failures"], &arm["outcomesLost"]), (&json!({}), &json!(0)), "{arm}");
    assert!(arm["requests"].as_u64() > Some(50) && arm["shards"].as_object().expect("shards").len() > 1, "{arm}");

    // A split holds everywhere at one instant, the router included; with a shard that is gone the next one holds nowhere.
    let server = format!("http://{address}");
    let split = |weights: &str| {
        let arguments = ["config", "split", "--server", &server, "--function", "f", "--why", "test", "--step", weights];
        shardwise(&[&arguments[..], &["--json"]].concat())
    };
    let shards = ask(&address, "/v1/fleet").expect("a fleet")["shards"].clone();
    let names: Vec<&str> =
        shards.as_array().expect("shards").iter().map(|shard| shard["id"].as_str().expect("id")).collect();
    let changed = split(&format!("{}=1", names[1]));
    assert_eq!(changed.status.code(), Some(0), "{}", String::from_utf8_lossy(&changed.stderr));
    wait_until("version 1 holds", || ask(&address, "/v1/config").is_some_and(|config| config["agent"]["serves"] == 1));
    // Until the slowest clock has come to its instant, the next change is refused.
    std::thread::sleep(Duration::from_secs(2));
    let pid = std::fs::read_to_string(folder.path().join("fleet/fleet.json")).expect("the fleet's file");
    let pid = serde_json::from_str::<Value>(&pid).expect("JSON")["shards"][0]["pid"].to_string();
    assert!(Command::new("kill").args(["-KILL", &pid]).status().expect("kill is everywhere").success());
    let withdrawn = split(&format!("{}=1", names[2]));
    assert_eq!(withdrawn.status.code(), Some(3), "{}", String::from_utf8_lossy(&withdrawn.stderr));
    assert_eq!(ask(&address, "/v1/config").expect("a configuration")["agent"]["serves"], 1);
    let history = run_json(&["config", "history", "--server", &server]);
    let outcomes: Vec<&Value> = history["changes"].as_array().expect("changes").iter().map(|c| &c["outcome"]).collect();
    assert_eq!(outcomes, ["withdrawn", "committed"]);

    let before = ask(&address, "/v1/status").expect("a status");
    router.signal("TERM");
    let summary = router.result();
    drop(fleet);
    assert_eq!(summary["dropped"], 0);
    let report = import(folder.path());
    assert_eq!(report["refused"], 0, "{report}");
    assert_eq!(report["stored"]["decisions"], summary["decisions"]);
    assert_eq!(report["stored"]["outcomes"], summary["outcomes"]);
    assert!(report["stored"]["shard_reports"].as_u64() >= before["reports"]["new"].as_u64(), "{report} {before}");
    let (history, dataset) = (folder.path().join("history"), folder.path().join("dataset"));
    let built = run_json(&["dataset", "build", "--history", text(&history), "--out", text(&dataset)]);
    assert!(built["rows"].as_u64() > Some(50), "{built}");
}

#[test]
fn what_several_routers_heard_and_did_is_played_back_to_the_same_bits() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let addresses = [free_address(), free_address()];
    let _fleet = fleet(folder.path(), "3", &[&addresses[0], &addresses[1]]);
    let folders = ["one", "two"].map(|name| folder.path().join(name));
    let routers: Vec<Running> = folders
        .iter()
        .zip(&addresses)
        .zip(["one", "two"])
        .map(|((of_router, address), name)| {
            let fleet = of_router.join("fleet");
            std::fs::create_dir_all(&fleet).expect("a folder");
            std::fs::copy(folder.path().join("fleet/fleet.json"), fleet.join("fleet.json")).expect("the fleet's file");
            serve(of_router, address, &["--policy", "p2c_in_flight", "--router", name])
        })
        .collect();
    for address in &addresses {
        wait_until("all shards report", || {
            ask(address, "/v1/status").is_some_and(|status| status["reports"]["new"].as_u64() >= Some(6))
        });
    }
    let target = format!("one=http://{},two=http://{}", addresses[0], addresses[1]);
    let options = ["--rate", "60", "--duration", "10", "--block", "2", "--settle", "0.5"];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            run_json(&[&["loadtest", "--scenario", "market_volatility", "--target", &target][..], &options].concat())
        });
        // A limit comes to hold in the first router between two reports, ten seconds from now.
        let shard = ask(&addresses[0], "/v1/fleet").expect("a fleet")["shards"][0].clone();
        let cores = (shard["shape"]["cores"].as_f64().expect("cores") - 0.25).to_string();
        let memory = shard["shape"]["memoryMb"].as_f64().expect("memory").to_string();
        let server = format!("http://{}", addresses[0]);
        let limits = ["--max-cpu-cores", &cores, "--max-memory-mb", &memory, "--server", &server, "--why", "a test"];
        let limited = [&["config", "limits", "--shard", shard["id"].as_str().expect("a name")][..], &limits].concat();
        assert_eq!(run_json(&limited)["outcome"], "committed");
    });
    for router in routers {
        router.signal("TERM");
        assert_eq!(router.result()["dropped"], 0);
    }
    let journals = folders.map(|of_router| of_router.join("data/journal"));
    let [history, dataset] = ["history", "dataset"].map(|name| folder.path().join(name));
    let input = ["--input", text(&journals[0]), "--input", text(&journals[1])];
    let imported =
        run_json(&[&["history", "import", "--from", "journal", "--out", text(&history)][..], &input].concat());
    assert_eq!(imported["refused"], 0, "{imported}");
    run_json(&["dataset", "build", "--history", text(&history), "--out", text(&dataset)]);
    let verified = run_json(&["dataset", "verify", "--history", text(&history), "--dataset", text(&dataset)]);
    assert_eq!(verified["mismatches"], 0, "{verified}");
    assert!(verified["rows"].as_u64() > Some(300), "{verified}");
}

#[test]
fn of_a_router_that_is_killed_at_most_a_second_is_lost_and_that_is_counted() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let address = free_address();
    let router = serve(folder.path(), &address, &[]);
    let place_all = |count: u64| (0..count).filter_map(|_| place(&address)).count() as u64;
    let early = place_all(200);
    // More than the second that may be lost.
    std::thread::sleep(Duration::from_millis(1_500));
    let late = place_all(100);
    assert_eq!((early, late), (200, 100));
    router.signal("KILL");
    drop(router);
    let again = serve(folder.path(), &address, &[]);
    let status = ask(&address, "/v1/status").expect("a status");
    let lost = status["journal"]["lostBefore"].as_u64().expect("a count");
    again.signal("TERM");
    again.result();
    let kept = import(folder.path())["stored"]["decisions"].as_u64().unwrap_or(0);
    assert_eq!(kept + lost, early + late, "{kept} kept, {lost} lost");
    assert!(kept >= early, "{kept} kept of {early} that were made in time");
}

/// A program that the environment names, or that is on the path.
fn program(variable: &str, name: &str) -> Option<PathBuf> {
    let named = std::env::var_os(variable).map(|path| PathBuf::from(path).with_file_name(name));
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = || std::env::split_paths(&paths).map(|folder| folder.join(name)).find(|path| path.is_file());
    named.filter(|path| path.is_file()).or_else(found)
}

#[test]
fn prometheus_takes_the_metrics_and_the_rules() {
    let Some(promtool) = program("SHARDWISE_PROMETHEUS", "promtool") else {
        skipped("no promtool on PATH, and none beside SHARDWISE_PROMETHEUS");
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let address = free_address();
    let _router = serve(folder.path(), &address, &["--models", text(&root().join("models"))]);
    place(&address).expect("a decision");
    // A router answers before it has loaded its model.
    let metrics = || get(&address, "/metrics").expect("an answer");
    let has_model = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(25));
        body(&metrics()).contains("shardwise_model_age_seconds")
    });
    assert!(has_model, "the model was not loaded within five seconds");
    let response = metrics();
    let file = folder.path().join("metrics");
    std::fs::write(&file, body(&response)).expect("writable");
    let metrics = std::fs::File::open(&file).expect("readable");
    let checked = Command::new(&promtool).args(["check", "metrics"]).stdin(metrics).output().expect("it starts");
    let said = [checked.stdout, checked.stderr].concat();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&said));
    let rules = root().join("crates/shardwise-server/deploy/alerts.yaml");
    let checked = Command::new(&promtool).args(["check", "rules", text(&rules)]).output().expect("it starts");
    let said = [checked.stdout, checked.stderr].concat();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&said));

    // Every metric that a rule or the dashboard asks for is there.
    let known: std::collections::BTreeSet<&str> =
        body(&response).lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    for name in ["alerts.yaml", "grafana.json"] {
        let path = root().join("crates/shardwise-server/deploy").join(name);
        let text = std::fs::read_to_string(&path).expect("readable");
        for word in text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')) {
            let metric = word.strip_suffix("_bucket").unwrap_or(word);
            let is_metric = word.starts_with("shardwise_") && !word.ends_with('_');
            assert!(!is_metric || known.contains(metric), "{name} asks for {word}, which is not among {known:?}");
        }
    }
}

/// Asks where the sample's function should run, as often as a busy client does, and tells that one shard is five times as fast as all
/// others; until it is told to stop.
fn pretend(address: &str, fast: &str, stop: &AtomicBool) {
    let request = std::fs::read_to_string(root().join("data/sample-request.json")).expect("the sample");
    let mut number = 0_u32;
    while !stop.load(Relaxed) {
        let answer = post(address, "/v1/predict-optimal-shard", &request).unwrap_or_default();
        if let Ok(answer) = serde_json::from_str::<Value>(body(&answer)) {
            number += 1;
            let usual_ms = if answer["recommendedShard"] == fast { 20.0 } else { 100.0 };
            let total_ms = usual_ms * (1.0 + 0.1 * f64::from(number % 5));
            let outcome = json!({ "decisionId": answer["decisionId"], "totalMs": total_ms, "execMs": total_ms });
            post(address, "/v1/outcomes", &outcome.to_string());
        }
        std::thread::sleep(Duration::from_millis(25));
    }
}

#[test]
fn a_step_that_helps_is_kept_and_one_that_harms_is_taken_back() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let address = free_address();
    let _fleet = fleet(folder.path(), "2", &[&address]);
    let _router = serve(folder.path(), &address, &["--policy", "p2c_in_flight", "--router", "planned"]);
    wait_until("all shards report", || {
        ask(&address, "/v1/fleet").is_some_and(|fleet| fleet["shards"].as_array().map(Vec::len) == Some(2))
    });
    let shards = ask(&address, "/v1/fleet").expect("a fleet")["shards"].clone();
    let [fast, slow] = [0, 1].map(|at| shards[at]["id"].as_str().expect("a name").to_owned());
    let step = |from: &str, to: &str| {
        json!({
            "type": "migrate_function", "functionName": "arbitrage-function-047", "fromShard": from, "toShard": to,
            "reason": "a test", "estimatedBenefit": { "value": 1.0, "low": 0.0, "high": 2.0, "unit": "latency_ms" },
        })
    };
    let steps = folder.path().join("steps.json");
    let plan = json!({ "actions": [step(&slow, &fast), step(&fast, &slow)] });
    std::fs::write(&steps, plan.to_string()).expect("a file");
    let stop = AtomicBool::new(false);
    let server = format!("http://{address}");
    let done = std::thread::scope(|scope| {
        scope.spawn(|| pretend(&address, &fast, &stop));
        let watch = ["--watch-s", "3", "--steps-from", text(&steps)];
        let output = shardwise(&[&["plan", "optimize", "--live", &server, "--apply", "--json"][..], &watch].concat());
        stop.store(true, Relaxed);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let stdout = String::from_utf8(output.stdout).expect("UTF-8");
        serde_json::from_str::<Value>(stdout.lines().last().expect("a result")).expect("JSON")["applied"].clone()
    });
    let said = |at: usize| (done[at]["kept"].as_bool(), done[at]["effect"]["effect"].as_str());
    assert_eq!([said(0), said(1)], [(Some(true), Some("seen")), (Some(false), Some("harm"))], "{done}");
    let holds = ask(&address, "/v1/config").expect("a configuration")["coordinator"]["current"]["placements"].clone();
    assert_eq!(holds["avoided"], json!([{ "function": "arbitrage-function-047", "shard": slow }]), "{holds}");
}

#[test]
fn a_shard_that_stands_by_joins_when_a_plan_asks_for_more() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let address = free_address();
    let _fleet = fleet(folder.path(), "2", &[&address]);
    let _router = serve(folder.path(), &address, &["--policy", "p2c_in_flight", "--router", "planned"]);
    wait_until("all shards report", || {
        ask(&address, "/v1/fleet").is_some_and(|fleet| fleet["shards"].as_array().map(Vec::len) == Some(2))
    });
    let shards = ask(&address, "/v1/fleet").expect("a fleet")["shards"].clone();
    let [busy, spare] = [0, 1].map(|at| shards[at]["id"].as_str().expect("a name").to_owned());
    let server = format!("http://{address}");
    let drained = || {
        let holds = ask(&address, "/v1/config").expect("a configuration");
        holds["coordinator"]["current"]["placements"]["drained"].clone()
    };
    let drain = |what: &str, shard: &str| {
        let asked = ["config", what, "--shard", shard, "--server", &server, "--why", "a test", "--json"];
        shardwise(&asked)
    };
    assert_eq!(drain("drain", &spare).status.code(), Some(0));
    wait_until("version 1 holds", || ask(&address, "/v1/config").is_some_and(|config| config["agent"]["serves"] == 1));
    assert_eq!(drained(), json!([spare]));
    // Until the slowest clock has come to its instant, the next change is refused.
    std::thread::sleep(Duration::from_secs(2));
    let refused = drain("undrain", &busy);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("is not drained"));
    let steps = folder.path().join("steps.json");
    let step = json!({
        "type": "join_shards", "group": "arbitrage", "count": 3, "reason": "a test",
        "estimatedBenefit": { "value": 1.0, "low": 0.0, "high": 2.0, "unit": "core_minutes" },
    });
    std::fs::write(&steps, json!({ "actions": [step] }).to_string()).expect("a file");
    let stop = AtomicBool::new(false);
    let done = std::thread::scope(|scope| {
        scope.spawn(|| pretend(&address, &busy, &stop));
        let watch = ["--watch-s", "3", "--steps-from", text(&steps)];
        let output = shardwise(&[&["plan", "spike", "--live", &server, "--apply", "--json"][..], &watch].concat());
        stop.store(true, Relaxed);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let stdout = String::from_utf8(output.stdout).expect("UTF-8");
        serde_json::from_str::<Value>(stdout.lines().last().expect("a result")).expect("JSON")["applied"].clone()
    });
    // It is five times as slow, and answers: that is no harm.
    assert_eq!((done[0]["kept"].as_bool(), done[0]["effect"]["effect"].as_str()), (Some(true), Some("seen")), "{done}");
    assert!(done[0]["why"].as_str().expect("words").contains("1 of 3 stood by"), "{done}");
    // A configuration in which nothing is placed does not mention it.
    assert_eq!(drained(), Value::Null);
}
