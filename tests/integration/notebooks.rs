//! The notebooks run from top to bottom on what a small night left, and draw.

use std::process::Command;

use crate::python::python;
use crate::support::{binary, night, root};

#[test]
fn every_notebook_runs_from_top_to_bottom_and_draws() {
    let Some(python) = python() else { return };
    let out = tempfile::tempdir().expect("a temporary folder");
    let output = Command::new(python)
        .arg(root().join("notebooks/run.py"))
        .arg("--out")
        .arg(out.path())
        .env("SHARDWISE_HISTORY", night().path("history"))
        .env("SHARDWISE_WORK", night().path("work"))
        .env("SHARDWISE", binary())
        .env_remove("SHARDWISE_RUNS")
        .env_remove("SHARDWISE_DAYS")
        .output()
        .expect("Python starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let drawn: Vec<(&str, u32)> = stdout
        .lines()
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, pictures)| (name, pictures.parse().expect("a number of pictures")))
        .collect();
    let notebooks = std::fs::read_dir(root().join("notebooks")).expect("notebooks").flatten();
    let notebooks = notebooks.filter(|file| file.path().extension().is_some_and(|ending| ending == "ipynb")).count();
    assert_eq!(drawn.len(), notebooks, "{stdout}");
    assert!(drawn.iter().all(|(_, pictures)| *pictures >= 2), "a story without pictures: {drawn:?}");
}
