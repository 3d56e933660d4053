//! The shape of the workspace: who may depend on whom, and what the core must not touch.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{contents, root};

/// For each crate, the shardwise crates that it may depend on.
const ARROWS: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("features", &["types"]),
    ("policies", &["types", "features"]),
    ("models", &["types", "features"]),
    ("inference", &["types", "features", "policies", "models"]),
    ("client", &[]),
    ("monitor", &["types"]),
    ("control", &["types"]),
    ("planner", &["types"]),
    ("server", &["types", "features", "policies", "models", "inference", "monitor", "control", "planner", "client"]),
    ("simulator", &["types", "features", "policies"]),
    ("datasets", &["types", "features"]),
    ("training", &["types", "features", "models", "datasets"]),
    ("evaluation", &["types", "features", "models", "policies", "simulator", "planner", "client"]),
    (
        "cli",
        &[
            "types",
            "features",
            "policies",
            "models",
            "inference",
            "simulator",
            "datasets",
            "training",
            "evaluation",
            "workload",
            "monitor",
            "control",
            "planner",
            "client",
            "server",
        ],
    ),
    ("dev", &["features"]),
    ("workload", &["types", "features", "policies", "models"]),
    ("neural", &["types", "features", "models"]),
    ("bench", &["types", "features", "policies", "models", "inference", "workload"]),
];

fn dependencies(name: &str) -> BTreeSet<String> {
    let manifest = root().join(format!("crates/shardwise-{name}/Cargo.toml"));
    let text = std::fs::read_to_string(&manifest).unwrap_or_else(|error| panic!("{}: {error}", manifest.display()));
    let normal = text.split("[dependencies]").nth(1).unwrap_or_default().split("\n[").next().unwrap_or_default();
    normal
        .lines()
        .filter_map(|line| line.strip_prefix("shardwise-"))
        .map(|line| line.split(['.', ' ']).next().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn arrows_point_one_way() {
    for (name, allowed) in ARROWS {
        for dependency in dependencies(name) {
            assert!(
                allowed.contains(&dependency.as_str()),
                "shardwise-{name} must not depend on shardwise-{dependency}"
            );
        }
    }
    let listed: BTreeSet<String> = ARROWS.iter().map(|(name, _)| format!("shardwise-{name}")).collect();
    let present: BTreeSet<String> = std::fs::read_dir(root().join("crates"))
        .expect("crates/")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    assert_eq!(listed, present, "a new crate needs its arrows");
}

#[test]
fn a_router_compiles_no_dataframe_and_no_trainer() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let tree = Command::new(cargo)
        .args(["tree", "--offline", "--package", "shardwise-inference", "--edges", "normal,build", "--prefix", "none"])
        .current_dir(root())
        .output()
        .expect("cargo tree runs");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8_lossy(&tree.stdout);
    assert!(tree.contains("shardwise-features"));
    for heavy in ["polars", "parquet", "arrow", "lightgbm", "linfa", "smartcore", "cmake", "bindgen", "ort ", "prost"] {
        assert!(!tree.lines().any(|line| line.starts_with(heavy)), "{heavy} reaches the router");
    }
}

#[test]
fn the_core_reads_no_clock_no_chance_and_no_disk() {
    let forbidden =
        ["Instant::now", "SystemTime", "Timestamp::now", "std::fs", "File::", "rand::rng()", "thread_rng", "std::env"];
    for name in ["types", "features", "policies", "planner", "simulator", "inference"] {
        for (path, bytes) in contents(&root().join(format!("crates/shardwise-{name}/src"))) {
            let text = String::from_utf8(bytes).expect("sources are UTF-8");
            for word in forbidden {
                assert!(!text.contains(word), "{} speaks of {word}", path.display());
            }
        }
    }
}

#[test]
fn feature_vectors_are_made_in_one_place() {
    for (path, bytes) in contents(&root().join("crates")) {
        if path.extension().is_some_and(|extension| extension == "rs")
            && !path.ends_with("shardwise-features/src/extract.rs")
        {
            let text = String::from_utf8(bytes).expect("sources are UTF-8");
            assert!(!text.contains("FeatureVector("), "{} makes a feature vector", path.display());
        }
    }
}

#[test]
fn every_committed_model_says_how_to_make_it_again() {
    let folders = |path: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_dir()).collect()
    };
    let models = folders(&root().join("models"));
    let versions: Vec<PathBuf> = models.iter().flat_map(|model| folders(&model.join("versions"))).collect();
    assert!(!versions.is_empty(), "models/ holds no bundle");
    for version in versions {
        let manifest = std::fs::read(version.join("manifest.json"))
            .unwrap_or_else(|error| panic!("{} has no manifest: {error}", version.display()));
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("a manifest is JSON");
        let command = manifest["how_to_make_again"].as_str().unwrap_or_default();
        assert!(command.contains("shardwise train"), "{}: {command:?}", version.display());
    }
}

#[test]
fn a_decision_waits_for_no_lock() {
    for name in ["types", "features", "policies", "inference"] {
        for (path, bytes) in contents(&root().join(format!("crates/shardwise-{name}/src"))) {
            let text = String::from_utf8(bytes).expect("sources are UTF-8");
            for lock in ["Mutex", "RwLock", "Condvar"] {
                assert!(!text.contains(lock), "{} speaks of {lock}", path.display());
            }
        }
    }
}
