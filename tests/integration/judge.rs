//! The judge's command line: arena, generator check, load test and validator keep their contract, find what is wrong, and
//! refuse what makes no sense.

use std::path::Path;

use serde_json::{Value, json as object};

use crate::support::{json, refused, shardwise, text};

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is not a number"))
}

/// Runs an arena of cells of so many requests into a folder.
fn arena_of(requests: &str, out: &Path, arguments: &[&str]) -> Value {
    json(&[&["arena", "--requests", requests, "--out", text(out)], arguments].concat())
}

/// Runs an arena of small cells into a folder.
fn arena(out: &Path, arguments: &[&str]) -> Value {
    arena_of("2000", out, arguments)
}

fn rows(result: &Value, list: &str) -> Vec<Value> {
    result[list].as_array().unwrap_or_else(|| panic!("no {list} in {result}")).clone()
}

fn mean(result: &Value, policy: &str) -> f64 {
    let of_policy = |row: &&Value| row["policy"] == policy;
    number(&rows(result, "cells").iter().find(of_policy).unwrap_or_else(|| panic!("no row of {policy}"))["mean_ms"])
}

#[test]
fn an_arena_reports_every_field_of_the_contract() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let policies = "random,sed_tab_lambda,c3,oracle_greedy,no_queue_bound";
    let grid = ["--fleets", "1,2", "--seeds", "11-12", "--load", "0.5,0.7", "--routers", "1", "--policies", policies];
    let result = arena(folder.path(), &grid);
    let cells = rows(&result, "cells");
    assert_eq!(cells.len(), 2 * 2 * 2 * 5);
    for field in [
        "load",
        "routers",
        "report_age_s",
        "fleet",
        "seed",
        "mean_ms",
        "p50_ms",
        "p90_ms",
        "p99_ms",
        "p999_ms",
        "slo_miss",
        "error_rate",
        "core_use",
        "cold_rate",
        "jain",
        "max_over_mean",
        "risk_gap_pp",
        "regret",
        "decide_us_p50",
        "decide_us_p99",
    ] {
        assert!(number(&cells[0][field]).is_finite(), "{field}: {}", cells[0]);
    }
    assert_eq!((&cells[0]["scenario"], &cells[0]["net"]), (&object!("base"), &object!("metro")));
    let pair = rows(&result, "paired")
        .into_iter()
        .find(|pair| pair["policy"] == "sed_tab_lambda" && pair["versus"] == "random" && pair["metric"] == "mean_ms");
    let pair = pair.expect("every policy is paired with every other");
    for field in ["ratio", "low", "high", "worst", "wins"] {
        assert!(number(&pair[field]).is_finite(), "{field}: {pair}");
    }
    assert_eq!(pair["replicates"], 4);
    assert!(number(&pair["ratio"]) < 0.5, "{pair}");
    assert!(number(&result["requests_per_s"]) > 0.0 && number(&result["elapsed_s"]) > 0.0);
    assert_eq!(result["problems"], object!([]));
    let page = std::fs::read_to_string(result["page"].as_str().expect("a path")).expect("the page is there");
    assert!(page.contains("<html") && page.contains("here it loses"));
    assert!(mean(&result, "no_queue_bound") < mean(&result, "oracle_greedy"));
    assert!(mean(&result, "oracle_greedy") < mean(&result, "sed_tab_lambda"));
}

#[test]
fn a_cell_alone_is_the_same_and_a_finished_run_is_not_run_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (first, alone) = (folder.path().join("first"), folder.path().join("alone"));
    let grid = ["--fleets", "1,2", "--seeds", "11", "--load", "0.5,0.7", "--routers", "1,2", "--policies", "c3,random"];
    let hash = |result: &Value| {
        let cells = rows(result, "cells");
        let cell = cells
            .iter()
            .find(|cell| cell["policy"] == "c3" && cell["fleet"] == 2 && cell["load"] == 0.7 && cell["routers"] == 2);
        cell.expect("the cell is there")["log_hash"].clone()
    };
    let whole = arena(&first, &grid);
    let cell = ["--fleets", "2", "--seeds", "11", "--load", "0.7", "--routers", "2", "--policies", "c3"];
    assert_eq!(hash(&whole), hash(&arena(&alone, &cell)));
    let again = shardwise(&[&["arena", "--requests", "2000", "--out", text(&first)], &grid[..]].concat());
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(said.contains("16 runs are kept from before"), "{said}");
}

#[test]
fn a_policy_with_a_bug_is_named_and_fails_the_arena() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let policies = "faulty_same_shard,faulty_nan_scores,faulty_ineligible_shard,faulty_panic,least_in_flight";
    let out = ["--out", text(folder.path()), "--policies", policies, "--requests", "3000"];
    let said = refused(&[&["arena"], &out[..]].concat());
    for words in ["faulty_same_shard sends nearly everything", "are no numbers", "hard rule forbids", "panicked"] {
        assert!(said.contains(words), "'{words}' is not in: {said}");
    }
    let written = std::fs::read_to_string(folder.path().join("arena.json")).expect("results are written all the same");
    let result: Value = serde_json::from_str(&written).expect("JSON");
    assert_eq!(rows(&result, "problems").len(), 4);
    assert!(rows(&result, "paired").is_empty(), "one sound policy has no pair");
}

#[test]
fn every_scenario_can_be_played() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let result =
        arena(folder.path(), &["--scenario", "all", "--policies", "shardwise,sed_tab_lambda", "--routers", "2"]);
    let cells = rows(&result, "cells");
    assert!(cells.len() > 30, "{}", cells.len());
    assert!(cells.iter().all(|cell| number(&cell["mean_ms"]) > 0.0));
}

#[test]
fn learned_policies_take_part_when_each_fleet_is_trained() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let policies = "shardwise,sed_off_lambda,end_to_end_model,spec_feature_model,sed_tab_lambda";
    let result = arena_of("12000", folder.path(), &["--train", "--policies", policies]);
    let [ours, online, naive] = ["shardwise", "sed_tab_lambda", "spec_feature_model"].map(|name| mean(&result, name));
    assert!(ours < online, "history pays: {ours} against {online}");
    assert!(naive > 3.0 * ours, "no state of its own requests, no placement: {naive}");
    assert_eq!(result["subject"], "shardwise");
}

#[test]
fn the_generator_is_checked_against_its_bands() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let page = folder.path().join("generator.html");
    let result = json(&["generator", "check", "--seeds", "1-2", "--out", text(&page)]);
    let statistics = rows(&result, "statistics");
    assert!(statistics.len() > 20, "{}", statistics.len());
    assert!(statistics.iter().all(|row| row["values"].as_array().is_some_and(|values| values.len() == 2)));
    assert_eq!(result["in_band"], true);
    assert!(std::fs::read_to_string(page).expect("the page is there").contains("<svg"));
}

#[test]
fn a_load_test_is_validated_against_what_was_expected() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [result, plan] = ["result.json", "plan.json"].map(|name| folder.path().join(name));
    for scenario in ["market_volatility", "arbitrage_surge", "whale_activity", "protocol_launch"] {
        let run = ["loadtest", "--scenario", scenario, "--target", "sim", "--events", "600", "--load", "0.3"];
        let files = ["--out", text(&result), "--expected-out", text(&plan)];
        let found = json(&[&run[..], &files[..]].concat());
        assert_eq!(found["totalEvents"], 600, "{scenario}");
        assert!(number(&found["successRate"]) > 0.9 && number(&found["latency"]["p99"]) > 0.0, "{found}");
        for field in ["shardDistribution", "bottlenecks", "recommendations", "avgLatency", "totalDuration"] {
            assert!(!found[field].is_null(), "{field}");
        }
    }
    let judged = shardwise(&["validate", "--result", text(&result), "--expected", text(&plan), "--json"]);
    assert!([Some(0), Some(1)].contains(&judged.status.code()), "{judged:?}");
}

#[test]
fn the_validator_warns_at_21_percent_and_is_alarmed_at_51() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let judge = |requests: &Value, expected: &Value| {
        let [result, plan] = ["result.json", "expected.json"].map(|name| folder.path().join(name));
        std::fs::write(&result, object!({ "byShardId": requests }).to_string()).expect("written");
        std::fs::write(&plan, object!({ "byShardId": expected }).to_string()).expect("written");
        let output = shardwise(&["validate", "--result", text(&result), "--expected", text(&plan), "--json"]);
        let last = String::from_utf8_lossy(&output.stdout).lines().last().map(str::to_owned).expect("a line");
        (output.status.code(), serde_json::from_str::<Value>(&last).expect("JSON"))
    };
    let even = object!({ "a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0 });
    let severity = |off: i64| {
        let requests = object!({ "a": 10_000 + off, "b": 10_000 - off, "c": 10_000, "d": 10_000 });
        let (code, found) = judge(&requests, &even);
        let of_a = rows(&found, "deviations").into_iter().find(|row| row["shardId"] == "a");
        (code, of_a.map(|row| row["severity"].clone()))
    };
    assert_eq!(severity(1_900), (Some(0), None));
    assert_eq!(severity(2_100), (Some(1), Some(object!("warning"))));
    assert_eq!(severity(5_100), (Some(1), Some(object!("critical"))));
    let (code, found) = judge(&object!({ "a": 7, "b": 1, "c": 1, "d": 1 }), &even);
    assert_eq!((code, &found["isValid"]), (Some(3), &Value::Null), "ten events give no verdict: {found}");
}

#[test]
fn careless_arenas_are_refused_with_words_that_help() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = text(folder.path());
    for (arguments, words) in [
        (["--policies", "sed_tabb"], "there is no policy 'sed_tabb'"),
        (["--policies", "sed_off_lambda"], "add --train"),
        (["--scenario", "storm"], "'storm' is not one of base"),
        (["--load", "70"], "--load 70 is out of range"),
        (["--net", "moon"], "lan, metro, global"),
        (["--fleet-kind", "large"], "is not one of heterogeneous, homogeneous"),
        (["--requests", "3"], "out of range"),
    ] {
        let said = refused(&[&["arena", "--out", out], &arguments[..]].concat());
        assert!(said.contains(words), "'{words}' is not in: {said}");
    }
    let said = refused(&["gate", "trial", "--trials", "0", "--out", out]);
    assert!(said.contains("--trials 0 tries nothing"), "{said}");
}

/// Two days of fast motion, the second in a run of its own: each day has its night, and days are not done twice.
#[test]
fn nights_in_fast_motion_go_on_where_they_were() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("nights");
    let out = text(&out);
    let run =
        |days: &str| json(&["gate", "nights", "--days", days, "--requests", "4000", "--replicates", "1", "--out", out]);
    let one = run("1");
    let two = run("2");
    assert_eq!(two["days"][0], one["days"][0], "the first day is kept");
    assert_eq!((&two["live_days"], &two["worst_mean_ratio"]), (&object!(0), &Value::Null));
    let days = two["days"].as_array().expect("days");
    assert_eq!(days.iter().map(|day| &day["date"]).collect::<Vec<_>>(), ["2026-01-05", "2026-01-06"]);
    for day in days {
        // So little data is refused, or teaches a model that one replicate cannot prove.
        assert!([3, 4].contains(&day["exit_code"].as_u64().expect("a code")), "{day}");
        assert!(!day["said"].as_array().expect("reasons").is_empty(), "{day}");
        assert!(day["live"].is_null() && day["mean_ratio"].as_f64().is_some_and(|ratio| ratio > 0.0), "{day}");
        assert!((2_000..8_000).contains(&day["requests"].as_u64().expect("a count")), "{day}");
    }
    let history = Path::new(out).join("history/decisions");
    assert_eq!(std::fs::read_dir(history).expect("a history").count(), 2, "a folder for each day");
    let refusal = |arguments: &[&str]| refused(&[&["gate", "nights", "--out", out], arguments].concat());
    assert!(refusal(&["--requests", "5000"]).contains("nights of other options"));
    assert!(refusal(&["--days", "0"]).contains("--days 0 is out of range"));
    assert!(refusal(&["--requests", "10"]).contains("too few to train on"));
}
