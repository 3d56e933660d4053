//! Python's LightGBM: the script that trains with it, and what the script is told.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use shardwise_datasets::{DatasetCard, load_card};
use shardwise_features::FEATURES;

use super::{BenchHead, TrainBenchPlan, TrainTimes};
use crate::exec::OFFSET_FEATURE;
use crate::grow::constrain;
use crate::latency::MIN_LATENCY_MS;
use crate::options::THREADS;
use crate::rows::VALIDATION_SHARE;
use crate::side::MAX_QUEUE_MS;
use crate::{TrainOptions, TrainingError};

const SCRIPT: &str = include_str!("train.py");

/// Has Python train on the plan, in a process of its own, and take the time.
///
/// # Errors
/// When the dataset cannot be read, or Python or one of its packages is not there or fails.
pub fn train_in_python(plan: &TrainBenchPlan, python: &Path) -> Result<TrainTimes, TrainingError> {
    let told = told(plan, &load_card(&plan.dataset)?);
    run(python, &told).map_err(|problem| TrainingError::Engine { engine: "Python's LightGBM", problem })
}

fn run(python: &Path, told: &Value) -> Result<TrainTimes, String> {
    let mut child = Command::new(python)
        .args(["-c", SCRIPT])
        // Polars reads on as many threads as it is allowed, before anything is grown; one, as shardwise reads.
        .env("POLARS_MAX_THREADS", THREADS.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{} does not start: {error}", python.display()))?;
    let mut stdin = child.stdin.take().expect("its input is a pipe");
    let written = stdin.write_all(told.to_string().as_bytes());
    drop(stdin);
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(said.trim().lines().last().unwrap_or("it did not say why").to_owned());
    }
    written.map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout);
    let last = said.lines().last().unwrap_or_default();
    serde_json::from_str(last).map_err(|error| format!("it printed no result ({error})"))
}

/// The plan with all that the library decides, so that nothing is decided twice.
fn told(plan: &TrainBenchPlan, card: &DatasetCard) -> Value {
    let options = plan.options();
    let splits = [card.splits.train, card.splits.test].map(|range| [range.from.nanos(), range.to.nanos()]);
    json!({
        "dataset": plan.dataset,
        "features": FEATURES.iter().map(|feature| feature.name).collect::<Vec<_>>(),
        "train": splits[0],
        "test": splits[1],
        "max_rows": plan.rows,
        "validation_share": VALIDATION_SHARE,
        "offset_feature": OFFSET_FEATURE,
        "max_queue_ms": MAX_QUEUE_MS,
        "timeout_ms": plan.timeout_ms,
        "min_latency_ms": MIN_LATENCY_MS,
        "patience": options.patience,
        "trees": options.trees,
        "heads": BenchHead::ALL.map(|head| json!({ "head": head.name(), "parameters": parameters(head, &options) })),
    })
}

fn parameters(head: BenchHead, options: &TrainOptions) -> Value {
    let mut parameters = options.for_lightgbm(head.loss(), options.trees, None);
    constrain(&mut parameters, head.rising());
    // What is not said here is LightGBM's default on both sides. The seed of the sample that bins are made from is said,
    // because Python derives it from `seed`, and the crate, which makes bins before it is told the seed, does not.
    parameters["data_random_seed"] = json!(1);
    parameters
}
