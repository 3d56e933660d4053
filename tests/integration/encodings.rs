//! Encodings on data that nobody here generated: who asks and which model runs tell more of run times than sizes do.

use std::path::{Path, PathBuf};

use crate::support::{json, root, skipped, text};

/// Requests of a serverless image generation service, Alibaba cluster-trace-v2026-GenAI.
const REQUESTS: &str = "requests/gentd26_requests_to_2024-12-01.parquet";
/// Fields of the mapping that say who asks and which model runs; adapters and lengths of prompts as good as name them.
const IDENTITY: [&str; 5] = ["function", "trading_pair", "exchange_calls", "amount_usd", "memory_mb"];

/// Share of the variance of ln exec_ms that a model explains of the last requests, when it may learn from these fields.
fn r2(folder: &Path, requests: &Path, keep: impl Fn(&str) -> bool) -> f64 {
    let map = std::fs::read_to_string(root().join("data/import/gentd26.toml")).expect("the mapping is committed");
    let (fields, fleet) = map.split_once("[[fleet]]").expect("it describes the fleet");
    let kept = fields.lines().filter(|line| keep(line.split(' ').next().unwrap_or_default()));
    let mut map = kept.collect::<Vec<_>>().join("\n") + "\n";
    if !keep("function") {
        map += "function = { constant = \"image\" }\n";
    }
    map += "[[fleet]]";
    map += fleet;
    let path = |name: &str| folder.join(name);
    let (mapping, history, dataset, models) = (path("map.toml"), path("history"), path("dataset"), path("models"));
    std::fs::write(&mapping, map).expect("writable");
    let input = ["--map", text(&mapping), "--input", text(requests), "--out", text(&history)];
    let imported = json(&[&["history", "import", "--from", "parquet"][..], &input].concat());
    assert!(imported["refused"].as_u64().expect("a count") <= 15, "only requests without a model: {imported}");
    json(&["dataset", "build", "--history", text(&history), "--out", text(&dataset)]);
    let trained = json(&["train", "--dataset", text(&dataset), "--models", text(&models), "--name", "image"]);
    trained["heads"]["exec"]["r2"].as_f64().expect("a share")
}

#[test]
fn identities_tell_more_of_run_times_than_sizes_when_the_traces_are_there() {
    let requests = std::env::var_os("SHARDWISE_TRACES").map(|folder| PathBuf::from(folder).join(REQUESTS));
    let Some(requests) = requests.filter(|file| file.exists()) else {
        skipped("SHARDWISE_TRACES names no folder with requests of image generation");
        return;
    };
    let r2 = |keep: &dyn Fn(&str) -> bool| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        r2(folder.path(), &requests, keep)
    };
    let (all, sizes) = (r2(&|_| true), r2(&|field| !IDENTITY.contains(&field)));
    println!("R² of ln exec_ms on the last requests: {all:.3} with model and tenant, {sizes:.3} with images and steps");
    assert!(all > 0.55 && sizes < 0.30, "{all} with model and tenant, {sizes} with sizes only");
}
