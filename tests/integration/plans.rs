//! Plans from a history, as a command.

use serde_json::Value;

use crate::support::{json, refused, shardwise, small_history, text};

/// A history of two hours with rarely used functions.
fn history(folder: &std::path::Path) -> std::path::PathBuf {
    let out = folder.join("history");
    json(&["history", "simulate", "--traffic", "calibrated", "--functions", "80", "--hours", "2", "--out", text(&out)]);
    out
}

#[test]
fn every_plan_has_the_specifications_fields_a_table_and_a_page() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let history = history(folder.path());
    for (kind, fields) in [
        ("optimize", &["optimizations", "estimatedBenefit", "estimatedMigrationTime"][..]),
        ("predict", &["predictions", "bottlenecks", "actions", "estimatedBenefit", "executionTime"]),
        ("protocol", &["protocols"]),
        ("warm", &["actions", "estimatedBenefit", "memoryMb"]),
    ] {
        let page = folder.path().join(format!("{kind}.html"));
        let plan = json(&["plan", kind, "--history", text(&history), "--html", text(&page)]);
        fields.iter().for_each(|field| assert!(!plan[field].is_null(), "{kind} has no {field}: {plan}"));
        assert_eq!(plan["kind"], kind);
        let html = std::fs::read_to_string(&page).expect("a page");
        // Where nothing is to be moved there is nothing to draw.
        let is_drawn = html.contains("<svg") || (kind == "optimize" && plan["actions"] == serde_json::json!([]));
        assert!(is_drawn && !html.contains("<script") && !html.contains("src="), "{kind}");
        let printed = shardwise(&["plan", kind, "--history", text(&history)]);
        let printed = String::from_utf8(printed.stdout).expect("UTF-8");
        assert_eq!(printed.lines().next(), plan["summary"].as_str(), "{printed}");
    }
    let warm = json(&["plan", "warm", "--history", text(&history)]);
    let actions = warm["actions"].as_array().expect("steps");
    assert!(!actions.is_empty() && actions.iter().all(|action| action["type"] == "keep_warm"), "{warm}");
    // What was done is known the next time: nothing is left to do.
    let ledger = folder.path().join("ledger.json");
    let mut by_shard = serde_json::Map::new();
    for action in actions {
        let shard = action["shard"].as_str().expect("a shard").to_owned();
        let held = by_shard.entry(shard).or_insert_with(|| Value::Object(serde_json::Map::new()));
        held[action["functionName"].as_str().expect("a function")] = warm["now"].clone();
    }
    std::fs::write(&ledger, serde_json::json!({ "moves": {}, "warm": by_shard }).to_string()).expect("a file");
    let again = json(&["plan", "warm", "--history", text(&history), "--ledger", text(&ledger)]);
    assert_eq!(again["actions"], serde_json::json!([]), "{again}");
}

#[test]
fn a_spike_is_planned_when_there_is_one_or_one_is_assumed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let history = folder.path().join("history");
    small_history(&history, "5");
    let calm = json(&["plan", "spike", "--history", text(&history)]);
    assert!(calm["triggerEvent"].is_null() && calm["elasticities"]["arbitrage"].is_object(), "{calm}");
    let assumed = json(&["plan", "spike", "--history", text(&history), "--factor", "10"]);
    for field in ["triggerEvent", "loadPrediction", "resourceAllocation", "timeWindow", "costEstimate", "actions"] {
        assert!(!assumed[field].is_null(), "{field}: {assumed}");
    }
    assert!(assumed["loadPrediction"]["arbitrage"]["multiplier"].as_f64() > Some(2.0), "{assumed}");
}

#[test]
fn what_cannot_be_planned_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (history, settings) = (folder.path().join("history"), folder.path().join("settings.json"));
    small_history(&history, "5");
    let nowhere = folder.path().join("nowhere");
    assert!(refused(&["plan", "warm", "--history", text(&nowhere)]).contains("nowhere"));
    std::fs::write(&settings, r#"{"warm":{"pressure":2.0}}"#).expect("a file");
    let said = refused(&["plan", "warm", "--history", text(&history), "--settings", text(&settings)]);
    assert!(said.contains("pressure"), "{said}");
    std::fs::write(&settings, r#"{"warmth":{}}"#).expect("a file");
    let said = refused(&["plan", "warm", "--history", text(&history), "--settings", text(&settings)]);
    assert!(said.contains("warmth"), "{said}");
    let said = refused(&["plan", "spike", "--history", text(&history), "--factor=-3"]);
    assert!(said.contains("factor: -3 must be a finite number above 1"), "{said}");
    let said = refused(&["plan", "warm", "--live", "http://127.0.0.1:9"]);
    assert!(said.contains("does not answer"), "{said}");
    // What belongs to a running fleet cannot be asked of a history.
    let said = refused(&["plan", "warm", "--history", text(&history), "--apply"]);
    assert!(said.contains("--live"), "{said}");
    assert_eq!(shardwise(&["plan", "warm"]).status.code(), Some(2));
}
