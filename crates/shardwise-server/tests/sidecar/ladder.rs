//! Each rung of the ladder on which decisions fall back, forced on a live server: it answers, says who decided and why nobody
//! better did, and counts that.

use std::path::Path;

use serde_json::{Value, json};
use shardwise_models::forest::{Forest, Missing, TreeNode};
use shardwise_models::{AliasMove, BundleDraft, CHAMPION, ExecDraft, ExecHead, Registry};
use shardwise_policies::StrategyName;
use shardwise_server::{Clock, ServeConfig};

use crate::support::{Sidecar, config, request, root};

const DAY_MS: f64 = 86_400_000.0;

/// The sample's request, whose urgency leaves nothing to chance.
fn urgent() -> Value {
    let mut request = request();
    request["urgency"] = json!("critical");
    request
}

fn place(sidecar: &Sidecar, request: &Value) -> Value {
    let (status, answer) = sidecar.post("/v1/predict-optimal-shard", request);
    assert_eq!(status, 200, "{answer}");
    assert!(answer["recommendedShard"].is_string() && !answer["reasoning"].as_array().unwrap().is_empty(), "{answer}");
    answer
}

/// Tells an outcome that took so long on a core.
fn settle(sidecar: &Sidecar, answer: &Value, exec_ms: f64) {
    let outcome = json!({ "decisionId": answer["decisionId"], "totalMs": exec_ms + 20.0, "execMs": exec_ms });
    assert_eq!(sidecar.post("/v1/outcomes", &outcome).1["accepted"], 1);
}

/// A decision's count in the metrics.
fn counted(sidecar: &Sidecar, decided_by: &str, reason: &str) -> u64 {
    let line = format!("shardwise_decisions_total{{decided_by=\"{decided_by}\",reason=\"{reason}\"}} ");
    let (_, text) = sidecar.get("/metrics");
    text.lines().find_map(|text| text.strip_prefix(&line)).map_or(0, |count| count.parse().unwrap())
}

/// Places once, and checks who decided, why, and that it was counted.
fn rung(sidecar: &Sidecar, request: &Value, decided_by: &str, reason: Option<&str>) -> Value {
    let before = counted(sidecar, decided_by, reason.unwrap_or("none"));
    let answer = place(sidecar, request);
    assert_eq!((&answer["decidedBy"], &answer["fallbackReason"]), (&json!(decided_by), &json!(reason)), "{answer}");
    assert_eq!(counted(sidecar, decided_by, reason.unwrap_or("none")), before + 1, "{decided_by} {reason:?}");
    answer
}

/// The sample's service table under one tree, which multiplies executions by e to the `leaf`, trained a day ago.
fn draft(leaf: f64) -> BundleDraft {
    with_tree(vec![TreeNode::Leaf(leaf)])
}

fn with_tree(tree: Vec<TreeNode>) -> BundleDraft {
    let ExecDraft { head, metrics } = BundleDraft::example().exec.expect("the example has an execution head");
    let forest = Forest::new(head.forest().n_features(), &[tree]).expect("a sound tree");
    let head = ExecHead::new(forest, head.offset_feature(), 2.5, 1.0, 0.5).expect("sound numbers");
    let sample = Registry::open(&root("models"), "default").expect("the sample's registry");
    let service_table = sample.load(CHAMPION).expect("a sound champion").service_table().as_ref().clone();
    BundleDraft {
        name: "default".to_owned(),
        trained_to: Clock::new().now().plus_millis(-DAY_MS),
        exec: Some(ExecDraft { head, metrics }),
        service_table,
        ..BundleDraft::example()
    }
}

fn publish(models: &Path, draft: &BundleDraft) {
    let registry = Registry::open_or_create(models, "default").expect("a registry");
    let version = registry.publish(draft).expect("published");
    let by = AliasMove {
        at: "2026-01-05T12:00:00Z".parse().expect("a time"),
        who: "test".to_owned(),
        why: "To be followed.".to_owned(),
        ..AliasMove::default()
    };
    registry.set_alias(CHAMPION, &version, &by).expect("an alias");
}

fn with_model(draft: &BundleDraft, change: impl FnOnce(&mut ServeConfig)) -> (tempfile::TempDir, Sidecar) {
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().join("models");
    publish(&models, draft);
    let mut config = ServeConfig { models: Some(models), ..config(&folder) };
    change(&mut config);
    let sidecar = Sidecar::start(config);
    sidecar.wait_until("a model", |status| status["model"]["version"].is_string());
    (folder, sidecar)
}

#[test]
fn a_model_decides_where_nothing_is_wrong_with_it() {
    let (_folder, sidecar) = with_model(&draft(0.0), |_| ());
    rung(&sidecar, &urgent(), "model", None);
}

#[test]
fn a_stale_model_leaves_it_to_its_table() {
    let old = BundleDraft { trained_to: Clock::new().now().plus_millis(-8.0 * DAY_MS), ..draft(0.0) };
    let (_folder, sidecar) = with_model(&old, |_| ());
    rung(&sidecar, &urgent(), "service_table", Some("stale_model"));
}

#[test]
fn a_model_without_an_execution_head_leaves_it_to_its_table() {
    let (_folder, sidecar) = with_model(&BundleDraft { exec: None, ..draft(0.0) }, |_| ());
    rung(&sidecar, &urgent(), "service_table", Some("no_exec_head"));
}

#[test]
fn a_model_that_predicts_no_time_leaves_it_to_its_table() {
    let feature = shardwise_features::position("data_complexity").expect("the feature table has it") as u32;
    // What the contexts with which a model is tried do not have, so that it is taken for a sound one.
    let split = TreeNode::Split { feature, threshold: 50.0, missing: Missing::NanLeft, left: 1, right: 2 };
    let (_folder, sidecar) = with_model(&with_tree(vec![split, TreeNode::Leaf(0.0), TreeNode::Leaf(1e3)]), |_| ());
    rung(&sidecar, &urgent(), "model", None);
    let mut complex = urgent();
    complex["dataComplexity"] = json!(99.0);
    rung(&sidecar, &complex, "service_table", Some("bad_prediction"));
}

#[test]
fn a_model_that_takes_too_long_leaves_it_to_its_table() {
    let (_folder, sidecar) = with_model(&draft(0.0), |config| config.limits.model_us = 1e-6);
    let first = rung(&sidecar, &urgent(), "model", None);
    settle(&sidecar, &first, 20.0);
    rung(&sidecar, &urgent(), "service_table", Some("over_budget"));
}

#[test]
fn a_model_of_whose_features_too_many_are_missing_leaves_it_to_its_table() {
    // By default half of all may be: so many are missing only of functions of which nothing is known at all.
    let (_folder, sidecar) = with_model(&draft(0.0), |config| config.limits.missing_share = 0.15);
    let mut answer = rung(&sidecar, &urgent(), "service_table", Some("missing_features"));
    // A router that has seen responses, and heard of the market, misses less.
    let minute = json!({ "instrument": "BTC-PERP", "priceUsd": 65_000.0, "volatilityBp": 3.0, "trendBp": 1.0 });
    assert_eq!(sidecar.post("/v1/market", &minute).0, 200);
    for _ in 0..100 {
        settle(&sidecar, &answer, 20.0);
        answer = place(&sidecar, &urgent());
        if answer["decidedBy"] == "model" {
            break;
        }
    }
    rung(&sidecar, &urgent(), "model", None);
}

#[test]
fn a_model_that_errs_is_passed_over_and_a_table_that_errs_is_too() {
    let (_folder, sidecar) = with_model(&draft(2.0), |_| ());
    let table_ms = {
        let (_folder, plain) = with_model(&BundleDraft { exec: None, ..draft(0.0) }, |_| ());
        place(&plain, &urgent())["cost"]["executionMs"].as_f64().unwrap()
    };
    let mut decided = Value::Null;
    for _ in 0..200 {
        let answer = place(&sidecar, &urgent());
        decided = answer["fallbackReason"].clone();
        if decided == "gate_closed" {
            break;
        }
        settle(&sidecar, &answer, table_ms);
    }
    assert_eq!(decided, "gate_closed", "{}", sidecar.json("/v1/status"));
    rung(&sidecar, &urgent(), "service_table", Some("gate_closed"));
    // Now all takes a hundred times as long as the table says, and the router has seen it.
    for _ in 0..400 {
        let answer = place(&sidecar, &urgent());
        settle(&sidecar, &answer, 100.0 * table_ms);
    }
    rung(&sidecar, &urgent(), "online_estimates", Some("gate_closed"));
}

#[test]
fn without_a_model_own_measurements_decide_and_before_there_are_any_each_strategy_in_turn() {
    let strategies = [
        (StrategyName::Protocol, "protocol_strategy"),
        (StrategyName::Risk, "risk_strategy"),
        (StrategyName::Geographic, "geographic_strategy"),
        (StrategyName::Resource, "resource_matcher"),
    ];
    let mut sample: Value =
        serde_json::from_str(&std::fs::read_to_string(root("data/sample-request.json")).unwrap()).unwrap();
    sample["urgency"] = json!("critical");
    for (strategy, decider) in strategies {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(&folder);
        config.strategies.order = vec![strategy];
        let sidecar = Sidecar::start(config);
        let answer = rung(&sidecar, &sample, decider, Some("no_model"));
        settle(&sidecar, &answer, 20.0);
        rung(&sidecar, &sample, "online_estimates", Some("no_model"));
    }
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder);
    config.strategies.order = Vec::new();
    rung(&Sidecar::start(config), &sample, "least_loaded", Some("no_model"));
}

#[test]
fn of_a_function_that_nobody_knows_the_strategies_decide_beside_a_model() {
    let (_folder, sidecar) = with_model(&draft(0.0), |config| config.strategies.order = Vec::new());
    let mut unknown = urgent();
    unknown["function"] = json!("never-seen");
    rung(&sidecar, &unknown, "least_loaded", Some("nothing_known"));
}

#[test]
fn where_no_shard_may_run_it_the_caller_does_or_is_refused() {
    let too_large = json!({
        "function": "f", "type": "t", "protocol": "aave", "memoryMb": 1e9, "eventAt": "2026-01-05T12:00:00Z",
    });
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder);
    let sidecar = Sidecar::start(config.clone());
    let (status, problem) = sidecar.post("/v1/predict-optimal-shard", &too_large);
    assert_eq!((status, &problem["reason"]), (503, &json!("no_eligible_shard")), "{problem}");
    assert!(sidecar.get("/metrics").1.contains("shardwise_decisions_refused_total 1\n"));
    sidecar.stop();
    (config.strategies.local.enabled, config.strategies.local.memory_mb) = (true, 1e10);
    let sidecar = Sidecar::start(config);
    let answer = place(&sidecar, &too_large);
    assert_eq!((&answer["recommendedShard"], &answer["decidedBy"]), (&json!("local"), &json!("local")));
    assert_eq!(counted(&sidecar, "local", "none"), 1);
}

#[test]
fn a_registry_that_comes_later_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().join("models");
    // What is there in its place cannot be read as one.
    std::fs::write(&models, "no folder").unwrap();
    let sidecar = Sidecar::start(ServeConfig { models: Some(models.clone()), ..config(&folder) });
    let first = rung(&sidecar, &urgent(), "risk_strategy", Some("no_model"));
    settle(&sidecar, &first, 20.0);
    sidecar.wait_until("it says so", |status| status["model"]["registryUnreachable"] == true);
    std::fs::remove_file(&models).unwrap();
    publish(&models, &draft(0.0));
    sidecar.wait_until("a model", |status| status["model"]["version"].is_string());
    rung(&sidecar, &urgent(), "model", None);
    drop(sidecar);
    let bad = ServeConfig { models: Some(models), name: "No Name".to_owned(), ..config(&folder) };
    let error = Sidecar::try_start(bad).err().unwrap().to_string();
    assert!(error.contains("No Name"), "waiting would not help: {error}");
}
