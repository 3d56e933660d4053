//! Logged decisions come out again bit for bit, whoever made them; where they cannot, that is said.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand::Rng;
use serde_json::Value;
use shardwise_datasets::HistoryWriter;
use shardwise_features::{DecisionContext, ServiceTable};
use shardwise_inference::{Placer, PlacerConfig};
use shardwise_models::{BundleDraft, ModelBundle, Registry};
use shardwise_policies::{Decision, Observed, Policy};
use shardwise_simulator::{FleetOptions, KeepAll, Recorder, Workload, WorkloadOptions, WorldSpec, simulate};
use shardwise_types::{DecisionRecord, HistoryRecord, NoEligibleShard};
use tempfile::TempDir;

use crate::reports::strangers_of_decision;
use crate::support::{contents, json, night, refused, shardwise, small_history, text};

/// Responses after which a router's model is swapped, in [`Swapping`].
const RESPONSES_PER_MODEL: u64 = 500;

fn sample(history: &Path, more: &[&str]) -> Value {
    json(&[&["explain", "--history", text(history), "--sample", "1000"], more].concat())
}

fn explained(history: &Path, id: u64, more: &[&str]) -> Value {
    json(&[&["explain", "--history", text(history), "--decision", &id.to_string()], more].concat())
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().unwrap_or_else(|| panic!("no {name} in {value}"))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is not a number"))
}

/// A placer whose model changes while requests are out: two models and none, in turn.
struct Swapping {
    placer: Placer,
    models: Vec<Option<Arc<ModelBundle>>>,
    responses: u64,
}

impl Policy for Swapping {
    fn name(&self) -> &str {
        self.placer.name()
    }

    fn decide(&mut self, context: &DecisionContext<'_>, rng: &mut dyn Rng) -> Result<Decision, NoEligibleShard> {
        self.placer.decide(context, rng)
    }

    fn on_response(&mut self, observed: &Observed<'_>) {
        self.placer.on_response(observed);
        self.responses += 1;
        if self.responses.is_multiple_of(RESPONSES_PER_MODEL) {
            let next = (self.responses / RESPONSES_PER_MODEL) as usize % self.models.len();
            self.placer.swap_model(self.models[next].clone());
        }
    }

    fn service_table(&self) -> Option<Arc<ServiceTable>> {
        self.placer.service_table()
    }

    fn model_version(&self) -> Option<Arc<str>> {
        self.placer.model_version()
    }
}

/// What three such routers left, and the registry of their models.
struct Swapped {
    folder: TempDir,
    world: WorldSpec,
    records: Vec<HistoryRecord>,
}

impl Swapped {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let models = folder.path().join("models");
        for (path, bytes) in contents(&night().path("work/models")) {
            let to = models.join(path.strip_prefix(night().path("work/models")).expect("a path below it"));
            std::fs::create_dir_all(to.parent().expect("a folder")).expect("a folder can be made");
            std::fs::write(to, bytes).expect("writable");
        }
        let registry = Registry::open(&models, "default").expect("the night's models");
        let draft = BundleDraft { name: "default".to_owned(), ..BundleDraft::example() };
        let other = registry.publish(&draft).expect("a sound draft");
        let load = |version: &str| Some(Arc::new(registry.load(version).expect("it is there")));
        let models = vec![load("champion"), load(&other), None];

        let world = WorldSpec::generate(3, &FleetOptions { routers: 3, ..FleetOptions::default() });
        let start = "2026-01-05T12:00:00Z".parse().expect("a time");
        let traffic = WorkloadOptions::new(start, 20_000.0, 0.8);
        let workload = Workload::generate(&world, 9, &traffic).expect("the world's own");
        let config = PlacerConfig::for_runtime(world.timing.runtime());
        let router = || {
            let placer = Placer::without_model().with_config(config);
            placer.swap_model(models[0].clone());
            Swapping { placer, models: models.clone(), responses: 0 }
        };
        let routers = world.routers.iter().map(|_| Box::new(router()) as Box<dyn Policy>).collect();
        let mut kept = KeepAll { features_every: 20, ..KeepAll::default() };
        simulate(&world, &workload, 9, routers, &mut kept as &mut dyn Recorder).expect("a sound run");
        Self { folder, world, records: kept.records }
    }

    fn models(&self) -> PathBuf {
        self.folder.path().join("models")
    }

    /// Writes the history under a name, with its decisions changed.
    fn write(&self, name: &str, mut change: impl FnMut(&mut DecisionRecord), has_world: bool) -> PathBuf {
        let dir = self.folder.path().join(name);
        let world = serde_json::to_string(&self.world).expect("a world is JSON");
        let world = has_world.then_some(world.as_str());
        let mut writer = HistoryWriter::create(&dir, &self.world.network, world).expect("a free folder");
        for record in &self.records {
            let mut record = record.clone();
            if let HistoryRecord::Decision(decision) = &mut record {
                change(decision);
            }
            writer.record(record).expect("writable");
        }
        writer.finish().expect("writable");
        dir
    }

    fn decisions(&self) -> impl Iterator<Item = &DecisionRecord> {
        self.records.iter().filter_map(|record| match record {
            HistoryRecord::Decision(decision) => Some(&**decision),
            _ => None,
        })
    }
}

#[test]
fn the_default_history_comes_out_bit_for_bit() {
    let found = sample(&night().path("history"), &[]);
    assert_eq!((&found["decisions"], &found["identical"]), (&1000.into(), &1000.into()), "{found}");
    assert_eq!(found["policies"], serde_json::json!(["sed_tab_softmax"]));
    assert!(number(&found["feature_rows"]) > 50.0, "{found}");
    assert!(list(&found, "different").is_empty() && list(&found, "notes").is_empty(), "{found}");
}

#[test]
fn a_history_that_a_model_decided_comes_out_bit_for_bit() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (history, models) = (folder.path().join("history"), night().path("work/models"));
    let words = ["history", "simulate", "--fleet-seed", "3", "--seed", "8", "--hours", "0.016", "--routers", "3"];
    let placed = ["--policy", "shardwise", "--models", text(&models), "--log-share", "0.05", "--out", text(&history)];
    json(&[&words[..], &placed].concat());
    let found = sample(&history, &["--models", text(&models)]);
    assert_eq!((&found["decisions"], &found["identical"]), (&1000.into(), &1000.into()), "{found}");
    assert_eq!(list(&found, "model_versions").len(), 1);
    // All of them: a draw in a hundred comes out as it was drawn.
    let all = json(&["explain", "--history", text(&history), "--models", text(&models), "--sample", "10000000"]);
    assert_eq!(all["decisions"], all["identical"], "{all}");
    assert!(number(&all["decided_by"]["exploration"]) > 20.0 && number(&all["decisions"]) > 10_000.0, "{all}");
}

#[test]
fn models_may_change_while_requests_are_out() {
    let swapped = Swapped::new();
    let models = swapped.models();
    let models = text(&models);
    let history = swapped.write("as-it-was", |_| {}, true);
    let all = json(&["explain", "--history", text(&history), "--models", models, "--sample", "10000000"]);
    assert_eq!(all["decisions"], all["identical"], "{all}");
    assert!(list(&all, "model_versions").len() == 2 && number(&all["decisions"]) > 5_000.0, "{all}");
    assert!(number(&all["feature_rows"]) > 1_000.0, "{all}");

    // One bit of one decision, and one of a logged feature, are found.
    let middle = swapped.decisions().filter(|decision| !decision.logged_features.is_empty()).nth(100);
    let flipped = middle.expect("many are logged").decision_id;
    let spoil = |decision: &mut DecisionRecord| {
        if decision.decision_id == flipped {
            decision.predicted_ms = decision.predicted_ms.map(|ms| f64::from_bits(ms.to_bits() ^ 1));
            decision.logged_features[1] = f32::from_bits(decision.logged_features[1].to_bits() ^ 1);
        }
    };
    let history = swapped.write("flipped", spoil, true);
    let all = json(&["explain", "--history", text(&history), "--models", models, "--sample", "10000000"]);
    assert_eq!(number(&all["identical"]), number(&all["decisions"]) - 1.0);
    let different = &list(&all, "different")[0];
    let fields: Vec<&str> = list(different, "differences").iter().filter_map(|found| found["field"].as_str()).collect();
    assert_eq!(different["decision_id"], flipped);
    assert!(fields[0] == "predicted_ms" && fields[1].starts_with("data_complexity of "), "{fields:?}");
    let alone = explained(&history, flipped, &["--models", models]);
    assert_eq!((&alone["identical"], list(&alone, "differences").len()), (&false.into(), 2));
}

#[test]
fn one_decision_is_told_in_full() {
    let swapped = Swapped::new();
    let (models, history) = (swapped.models(), swapped.write("history", |_| {}, true));
    let of_model = |decision: &&DecisionRecord| decision.decided_by.as_str() == "model" && decision.eligible > 8;
    let decision = swapped.decisions().filter(of_model).nth(500).expect("models decide");
    let changes = ["--models", text(&models), "--what-if", "prior_service_ln_ms=7"];
    let told = explained(&history, decision.decision_id, &changes);
    assert_eq!(told["identical"], true, "{told}");
    assert_eq!(told["logged"], told["again"]);
    assert_eq!(told["request"]["function"], decision.request.function.as_str());
    assert_eq!(told["model_version"].as_str(), decision.model_version.as_deref());
    assert!(!told["answer"]["confidence"].is_null() && !list(&told, "reasons").is_empty());
    assert!(number(&told["outcome"]["total_ms"]) > 0.0);

    let candidates = list(&told, "candidates");
    assert_eq!(candidates.len(), decision.eligible as usize);
    assert!(candidates.iter().map(|candidate| number(&candidate["cost_ms"])).is_sorted(), "cheapest first");
    let chosen: Vec<&Value> = candidates.iter().filter(|candidate| candidate["chosen"] == true).collect();
    assert_eq!(chosen.len(), 1);
    assert_eq!(chosen[0]["shard"], decision.shard.as_str());
    assert_eq!(number(&chosen[0]["latency_ms"]).to_bits(), decision.predicted_ms.expect("a time").to_bits());
    for candidate in candidates {
        let terms = candidate["terms_ms"].as_object().expect("terms").values().map(number).sum::<f64>();
        assert!((terms - number(&candidate["cost_ms"])).abs() < 1e-6, "{candidate}");
        assert_eq!(
            candidate["features"].as_object().map(serde_json::Map::len),
            Some(shardwise_features::FEATURE_COUNT)
        );
    }
    let rivals: Vec<&str> = list(&told, "rivals").iter().filter_map(|rival| rival["policy"].as_str()).collect();
    assert_eq!(rivals[..3], ["sed_off_lambda", "sed_tab", "sed_tab_lambda"]);

    let what_if = &told["what_if"];
    let asked = list(what_if, "candidates").iter().filter(|candidate| !candidate["before"]["model_exec_ms"].is_null());
    let slower = asked.filter(|candidate| {
        number(&candidate["after"]["model_exec_ms"]) > 2.0 * number(&candidate["before"]["model_exec_ms"])
    });
    assert!(slower.count() >= 5, "e^7 ms is a second: {what_if}");

    let words = shardwise(&[
        "explain",
        "--history",
        text(&history),
        "--models",
        text(&models),
        "--decision",
        &decision.decision_id.to_string(),
    ]);
    let words = String::from_utf8(words.stdout).expect("UTF-8");
    assert!(words.contains("the same, bit for bit") && words.contains("→"), "{words}");
    assert!(words.lines().count() > 40, "{words}");
    assert!(words.lines().all(|line| line.chars().count() <= 80), "{words}");
}

#[test]
fn a_decision_has_a_page_whose_numbers_are_all_in_its_json() {
    let swapped = Swapped::new();
    let (models, history) = (swapped.models(), swapped.write("history", |_| {}, true));
    let decisions: Vec<&DecisionRecord> = swapped.decisions().collect();
    let of_model = decisions.iter().filter(|decision| decision.decided_by.as_str() == "model").nth(300);
    let without = decisions.iter().filter(|decision| decision.model_version.is_none()).nth(300);
    let [of_model, without] = [of_model, without].map(|decision| decision.expect("one of each").decision_id);
    let page = swapped.folder.path().join("pages/decision.html");
    let what_if: &[&str] = &["--what-if", "prior_service_ln_ms=7.25", "--what-if", "data_complexity=3.5"];
    for (id, changes) in [(of_model, what_if), (without, &[])] {
        let asked = [&["--models", text(&models), "--html", text(&page)], changes].concat();
        let told = explained(&history, id, &asked);
        let html = std::fs::read_to_string(&page).expect("a page");
        assert_eq!(strangers_of_decision(&html, &told), [""; 0], "decision {id}");
        assert!(html.contains(&format!("decision {id}")) && html.contains("<svg"), "decision {id}");
        assert_eq!(html.contains("id=\"what-if\""), !changes.is_empty());
        let command = told["command"].as_str().expect("a command");
        assert!(command.split(" --").all(|option| html.contains(option)), "{command}");
        for rival in list(&told, "rivals") {
            assert!(html.contains(rival["policy"].as_str().expect("a name")), "{rival}");
        }
        assert!(!html.contains("<script") && html.len() < 2_000_000);
        // The walk would notice: other costs are strangers.
        let mut other = told;
        other["candidates"] = Value::Array(Vec::new());
        assert!(strangers_of_decision(&html, &other).len() > 20);
    }
    // A policy that knows no cost, and one that other software made.
    let stranger = swapped.write("stranger", |decision| decision.policy = "elsewhere".to_owned(), true);
    explained(&stranger, of_model, &["--models", text(&models), "--html", text(&page)]);
    let html = std::fs::read_to_string(&page).expect("a page");
    assert!(html.contains("It cannot be made again") && !html.contains("<svg"), "{html}");
}

#[test]
fn what_cannot_be_made_again_is_said_to_be_so() {
    let swapped = Swapped::new();
    let (models, id) = (swapped.models(), swapped.decisions().nth(700).expect("many").decision_id);
    let foreign = |decision: &mut DecisionRecord| {
        decision.policy = "nginx".to_owned();
        decision.model_version = None;
        (decision.logged_shards, decision.logged_features) = (Vec::new(), Vec::new());
    };
    let history = swapped.write("foreign", foreign, false);
    let error = refused(&["explain", "--history", text(&history), "--sample", "100"]);
    assert!(error.contains("nginx") && error.contains("--decision ID"), "{error}");
    let told = explained(&history, id, &[]);
    assert!(told["identical"].is_null() && told["again"].is_null(), "{told}");
    let notes: Vec<&str> = list(&told, "notes").iter().filter_map(Value::as_str).collect();
    assert!(notes.iter().any(|note| note.contains("no world.json")), "{notes:?}");
    assert!(notes.iter().any(|note| note.contains("no policy of shardwise")), "{notes:?}");
    assert!(!list(&told, "candidates").is_empty() && !list(&told, "rivals").is_empty());

    // Routers that were started in the middle know nothing from before, and the log of routers that did is another.
    let whole = swapped.write("whole", |_| {}, true);
    let middle = swapped.decisions().nth(3_000).expect("many").known_at.to_string();
    let found = sample(&whole, &["--models", text(&models), "--from", &middle]);
    assert!(number(&found["identical"]) < number(&found["decisions"]), "{found}");
    assert!(list(&found, "notes")[0].as_str().expect("words").contains("--from"), "{found}");
}

#[test]
fn what_is_missing_is_named_with_what_to_do() {
    let swapped = Swapped::new();
    let (models, history) = (swapped.models(), swapped.write("history", |_| {}, true));
    let explain = |more: &[&str]| refused(&[&["explain", "--history", text(&history)], more].concat());
    let error = explain(&["--decision", "77"]);
    assert!(error.contains("--models"), "on the way there a model decides: {error}");
    let error = explain(&["--decision", "7777777", "--models", text(&models)]);
    assert!(error.contains("no decision 7777777") && error.contains("the first is"), "{error}");
    let empty = swapped.folder.path().join("night-only");
    let registry = Registry::open_or_create(&empty, "default").expect("a folder");
    let draft = BundleDraft { name: "default".to_owned(), seed: 77, ..BundleDraft::example() };
    registry.publish(&draft).expect("a sound draft");
    let error = explain(&["--sample", "10", "--models", text(&empty)]);
    assert!(error.contains("cannot be loaded") && error.contains("models import"), "{error}");
    let error = explain(&["--sample", "10", "--from", "2030-01-01", "--models", text(&models)]);
    assert!(error.contains("--from"), "{error}");

    let plain = swapped.folder.path().join("plain");
    small_history(&plain, "4");
    let error = refused(&["explain", "--history", text(&plain), "--decision", "9", "--what-if", "trend_bp=0"]);
    assert!(error.contains("without a model"), "{error}");
    let usage = shardwise(&["explain", "--history", text(&plain), "--decision", "9", "--what-if", "complexity=1"]);
    assert!(String::from_utf8_lossy(&usage.stderr).contains("did you mean data_complexity"));
    let out = swapped.folder.path().join("out");
    let error = refused(&["history", "simulate", "--policy", "shardwise", "--out", text(&out)]);
    assert!(error.contains("--models"), "{error}");
    let error = refused(&["history", "simulate", "--models", text(&models), "--out", text(&out)]);
    assert!(error.contains("--policy shardwise"), "{error}");
}
