//! What is answered to whom.

use serde_json::{Value, json};
use shardwise_monitor::{BootId, Envelope, EnvelopeId};
use shardwise_types::{HardwareClass, ShardReport, ShardShape};

use crate::support::{Sidecar, config, outcome, request, root};

#[test]
fn a_request_is_placed_and_its_outcome_learned_once() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(config(&folder));
    let answer = sidecar.place();
    let shards = sidecar.json("/v1/fleet")["shards"].as_array().unwrap().clone();
    assert!(shards.iter().any(|shard| shard["id"] == answer["recommendedShard"]), "{answer}");
    assert!(!answer["reasoning"].as_array().unwrap().is_empty(), "{answer}");
    assert_eq!(answer["alternativeShards"].as_array().unwrap().len(), 3);
    assert_eq!(sidecar.settle(&answer), (200, json!({ "accepted": 1, "duplicates": 0, "late": 0, "unmatched": 0 })));
    assert_eq!(sidecar.settle(&answer), (200, json!({ "accepted": 0, "duplicates": 1, "late": 0, "unmatched": 0 })));
    let status = sidecar.json("/v1/status");
    assert_eq!((&status["outcomes"]["ok"], &status["waiting"]), (&json!(1), &json!(0)), "{status}");
}

#[test]
fn in_flight_counts_until_the_outcome() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(config(&folder));
    let answers: Vec<Value> = (0..20).map(|_| sidecar.place()).collect();
    let in_flight = || -> f64 {
        let fleet = sidecar.json("/v1/fleet");
        fleet["shards"].as_array().unwrap().iter().map(|shard| shard["inFlight"].as_f64().unwrap()).sum()
    };
    assert_eq!(in_flight(), 20.0);
    let outcomes: Value = answers.iter().map(outcome).collect();
    assert_eq!(sidecar.post("/v1/outcomes", &outcomes).1["accepted"], 20);
    assert_eq!(in_flight(), 0.0);
}

#[test]
fn the_requests_of_a_batch_are_answered_each_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(config(&folder));
    let wrong = json!({ "function": "f" });
    let (status, answer) =
        sidecar.post("/v1/predict-optimal-shard/batch", &json!({ "requests": [request(), wrong, request()] }));
    assert_eq!(status, 200);
    let predictions = answer["predictions"].as_array().unwrap();
    assert!(predictions[0]["recommendedShard"].is_string() && predictions[2]["recommendedShard"].is_string());
    assert_eq!((&predictions[1]["status"], &predictions[1]["reason"]), (&json!(400), &json!("bad_request")));
    assert!(predictions[1]["detail"].as_str().unwrap().contains("type"), "{}", predictions[1]);
}

#[test]
fn a_model_decides_as_soon_as_it_is_there_and_the_gate_watches_it() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(shardwise_server::ServeConfig {
        models: Some(root("models")),
        challenger: Some("champion".to_owned()),
        ..config(&folder)
    });
    sidecar.wait_until("a model", |status| status["model"]["version"].is_string());
    let answer = sidecar.place();
    // The sample's model may be older than the guard allows: then its table decides, and says so.
    let known = [(json!("model"), Value::Null), (json!("service_table"), json!("stale_model"))];
    assert!(known.contains(&(answer["decidedBy"].clone(), answer["fallbackReason"].clone())), "{answer}");
    assert!(answer["modelVersion"].is_string());
    let models = sidecar.json("/v1/models");
    assert_eq!(models["serving"], answer["modelVersion"]);
    assert!(models["events"].as_array().unwrap().iter().any(|event| event["what"] == "swapped"), "{models}");
    assert_eq!(sidecar.get("/v2/models/default/ready").0, 200);
}

#[test]
fn rivals_answer_in_the_same_words() {
    for policy in ["p2c_in_flight", "peak_ewma_p2c", "sed_tab_lambda"] {
        let folder = tempfile::tempdir().unwrap();
        let sidecar = Sidecar::start(shardwise_server::ServeConfig { policy: policy.to_owned(), ..config(&folder) });
        let answer = sidecar.place();
        let decider = if policy == "sed_tab_lambda" { "online_estimates" } else { "policy" };
        assert!(answer["recommendedShard"].is_string() && answer["decidedBy"] == decider, "{policy}: {answer}");
        assert_eq!(sidecar.settle(&answer).1["accepted"], 1, "{policy}");
    }
}

#[test]
fn a_shard_that_reports_joins_and_one_that_lies_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(config(&folder));
    let before = sidecar.json("/v1/fleet")["shards"].as_array().unwrap().len();
    let mut envelope = envelope("shard-new", 0);
    envelope["system"]["diskReadBytesPerS"] = json!(4096.0);
    assert_eq!(sidecar.post("/v1/reports", &envelope), (200, json!({ "taken": true })));
    assert_eq!(sidecar.post("/v1/reports", &envelope).1["reason"], "duplicate");
    envelope["sequence"] = json!(1);
    envelope["report"]["cpu"] = json!(-1.0);
    let (status, problem) = sidecar.post("/v1/reports", &envelope);
    assert_eq!((status, &problem["reason"]), (422, &json!("distrusted")), "{problem}");
    let fleet = sidecar.json("/v1/fleet");
    let shards = fleet["shards"].as_array().unwrap();
    let new = shards.iter().find(|shard| shard["id"] == "shard-new").unwrap();
    assert_eq!(shards.len(), before + 1);
    assert_eq!(new["address"], "http://127.0.0.1:9");
    assert_eq!((&new["system"]["diskReadBytesPerS"], &new["system"]["sentBytesPerS"]), (&json!(4096.0), &Value::Null));
    let metrics = sidecar.get("/metrics").1;
    let read = "shardwise_shard_disk_read_bytes_per_second{shard=\"shard-new\"} 4096.0\n";
    assert!(metrics.contains(read) && !metrics.contains("network_sent_bytes_per_second{"), "{metrics}");
    assert!(new["report"]["cpu"].as_f64().unwrap() > 0.0 && !new["distrust"].is_null(), "{new}");
    sidecar.stop();
    // Beside what the fleet file says of the others.
    assert_eq!(crate::support::journal(&folder, "report").len(), before + 1, "one report is in the journal");
}

#[test]
fn what_is_answered_is_a_number_whatever_the_caller_expects() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(config(&folder));
    let mut long = request();
    long["expectedComputeMs"] = json!(3e38);
    let (_, answer) = sidecar.post("/v1/predict-optimal-shard", &long);
    for field in ["expectedLatency", "latencyP50", "latencyP90", "latencyP99"] {
        assert!(answer[field].is_f64(), "{field}: {answer}");
    }
}

#[test]
fn the_market_is_heard() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(config(&folder));
    let minute = json!({ "instrument": "BTC-PERP", "priceUsd": 65_000.0, "volatilityBp": 12.5, "trendBp": -3.0 });
    assert_eq!(sidecar.post("/v1/market", &minute).0, 200);
    assert_eq!(sidecar.json("/v1/fleet")["market"], json!({ "volatility": 12.5, "trend": -3.0 }));
    let wrong = json!({ "instrument": "BTC-PERP", "priceUsd": 0.0 });
    assert_eq!(sidecar.post("/v1/market", &wrong).0, 400);
}

#[test]
fn when_no_shard_is_eligible_it_says_so_or_has_the_caller_run_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder);
    let too_large = json!({
        "function": "f", "type": "t", "protocol": "aave", "memoryMb": 1e9, "eventAt": "2026-01-05T12:00:00Z",
    });
    let sidecar = Sidecar::start(config.clone());
    let (status, problem) = sidecar.post("/v1/predict-optimal-shard", &too_large);
    assert_eq!((status, &problem["reason"]), (503, &json!("no_eligible_shard")), "{problem}");
    assert!(problem["extra"]["too_small"].as_u64().unwrap() > 0, "{problem}");
    assert_eq!(sidecar.stop().refused, 1);

    config.strategies.local.enabled = true;
    config.strategies.local.memory_mb = 1e10;
    let sidecar = Sidecar::start(config);
    let (status, answer) = sidecar.post("/v1/predict-optimal-shard", &too_large);
    assert_eq!((status, &answer["recommendedShard"], &answer["decidedBy"]), (200, &json!("local"), &json!("local")));
}

#[test]
fn metrics_count_what_was_done() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(config(&folder));
    for _ in 0..3 {
        let answer = sidecar.place();
        sidecar.settle(&answer);
    }
    _ = sidecar.place();
    let (_, text) = sidecar.get("/metrics");
    let sum = |name: &str| -> f64 {
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
    };
    assert_eq!(sum("shardwise_decisions_total{"), 4.0, "{text}");
    assert_eq!(sum("shardwise_outcomes_total{result=\"ok\"}"), 3.0, "{text}");
    assert_eq!(sum("shardwise_decisions_waiting "), 1.0, "{text}");
    assert!(sum("shardwise_answer_seconds_count") >= 7.0, "{text}");
    assert!(text.contains("# TYPE shardwise_decisions_total counter"), "{text}");
}

/// An envelope as a shard publishes it.
pub(crate) fn envelope(shard: &str, sequence: u64) -> Value {
    let now = shardwise_server::Clock::new().now();
    let id = EnvelopeId { shard: shard.into(), boot: BootId::parse("boot-1").unwrap(), sequence };
    let shape = ShardShape {
        region: "us-east".into(),
        cores: 2.0,
        clock_ghz: 3.0,
        memory_mb: 8192.0,
        hardware: HardwareClass::General,
        max_amount_usd: None,
    };
    let report = ShardReport {
        event_at: now,
        known_at: now,
        healthy: true,
        cpu: 0.25,
        memory: 0.5,
        queue_len: 0,
        running: 1,
        error_rate: 0.0,
        mean_latency_ms: 12.0,
    };
    let envelope = Envelope::new(id, 1000 * sequence, shape, report);
    serde_json::to_value(Envelope { address: Some("http://127.0.0.1:9".to_owned()), ..envelope }).unwrap()
}

#[test]
fn placements_hold_by_agreement_and_name_shards_of_the_fleet() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(config(&folder));
    let shards = sidecar.json("/v1/fleet")["shards"].as_array().unwrap().clone();
    // The sample's shards are names in a file: they have no agents that could agree.
    let without: Vec<String> = shards.iter().map(|shard| format!("shard/{}", shard["id"].as_str().unwrap())).collect();
    let change = json!({ "author": "ann", "why": "a test", "without": without });
    let place = |placements: Value| {
        sidecar.post("/v1/config/placements", &json!({ "placements": placements, "change": change }))
    };
    let (status, entry) = place(json!({}));
    assert_eq!((status, &entry["change"]["what"]["kind"]), (200, &json!("placements")), "{entry}");
    assert_eq!(sidecar.json("/v1/config")["agent"]["prepared"], entry["change"]["version"], "it holds in ten seconds");
    let (status, refusal) = place(json!({ "drained": ["shard-nowhere"] }));
    assert_eq!(status, 409, "{refusal}");
    assert!(refusal.to_string().contains("shard-nowhere"), "{refusal}");
    assert_eq!(place(json!({ "cold": [] })).0, 400);
}

#[test]
fn plans_are_made_of_what_was_seen() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(config(&folder));
    for _ in 0..30 {
        let answer = sidecar.place();
        sidecar.settle(&answer);
    }
    // What is logged is written, and seen, ten times a second.
    let function = request()["function"].as_str().unwrap().to_owned();
    let seen = || sidecar.json("/v1/totals")["functions"][&function]["requests"].as_f64();
    let came = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(25));
        seen() == Some(30.0)
    });
    assert!(came, "{}", sidecar.json("/v1/totals"));
    for (kind, field) in [
        ("optimize", "optimizations"),
        ("predict", "bottlenecks"),
        ("spike?factor=6", "costEstimate"),
        ("protocol", "protocols"),
        ("warm", "estimatedBenefit"),
    ] {
        let answer = sidecar.json(&format!("/v1/plans/{kind}"));
        assert!(!answer["plan"][field].is_null() && answer["story"]["sentence"].is_string(), "{answer}");
    }
    assert_eq!(sidecar.get("/v1/plans/dance").0, 404);
    assert_eq!(sidecar.get("/v1/plans/spike?factor=-1").0, 400);
    assert_eq!(sidecar.get("/v1/plans/spike?factor=x").0, 400);
}
