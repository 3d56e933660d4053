//! What MLflow is told of a run, all of it out of the run's folder, within the limits of the server.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use shardwise_types::Timestamp;

use super::super::run_folder::{RunState, read_json};

/// Most parameters, tags and metrics in one request, and the longest values that servers take, in characters.
const PARAMS_PER_BATCH: usize = 100;
const TAGS_PER_BATCH: usize = 100;
const METRICS_PER_BATCH: usize = 1_000;
const LONGEST_PARAM: usize = 500;
const LONGEST_TAG: usize = 5_000;
const MODEL_TAGS: [&str; 3] = ["shardwise.version", "shardwise.date", "shardwise.program_version"];
/// Names the run of a date and inputs, so that it is found again.
pub(super) const RUN_TAG: &str = "shardwise.run";

/// The files of a run that are sent, where they are there, and what they are.
pub(super) const FILES: [(&str, &str); 10] = [
    ("report/report.html", "text/html"),
    ("report/report.json", "application/json"),
    ("dataset.json", "application/json"),
    ("result.json", "application/json"),
    ("decision.json", "application/json"),
    ("verdict.json", "application/json"),
    ("model.json", "application/json"),
    ("parameters.json", "application/json"),
    ("environment.json", "application/json"),
    ("summary.txt", "text/plain"),
];

/// A run in the words of MLflow.
pub(super) struct Record {
    params: Vec<(String, String)>,
    metrics: Vec<Value>,
    tags: Vec<(String, String)>,
    pub(super) start_ms: i64,
    pub(super) end_ms: i64,
}

impl Record {
    /// Reads a finished run; what is not there is left out.
    pub(super) fn of(folder: &Path, state: &RunState) -> Self {
        let object = |name: &str| read_json::<Value>(&folder.join(name)).unwrap_or_default();
        let (parameters, result, verdict) = (object("parameters.json"), object("result.json"), object("verdict.json"));
        let mut params: Vec<(String, String)> = parameters
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), in_words(value)))
            .collect();
        for name in ["hash", "fingerprint"] {
            params.push((format!("dataset.{name}"), in_words(&result["dataset"][name])));
        }
        let metrics = fs::read_to_string(folder.join("metrics.ndjson")).unwrap_or_default();
        let reasons = verdict["reasons"].as_array().into_iter().flatten();
        let reasons: Vec<String> = reasons
            .map(|reason| {
                let sign = if reason["holds"] == true { "✓" } else { "✗" };
                format!("{sign} {}", in_words(&reason["sentence"]))
            })
            .collect();
        let summary = fs::read_to_string(folder.join("summary.txt")).unwrap_or_default();
        let program = in_words(&object("environment.json")["program"]["version"]);
        let outcome = in_words(&json!(state.outcome));
        let tags = [
            (RUN_TAG, name_of(state)),
            ("shardwise.date", state.date.clone()),
            ("shardwise.version", state.version.clone().unwrap_or_default()),
            ("shardwise.outcome", outcome),
            ("shardwise.program_version", program),
            ("shardwise.verdict", reasons.join("\n")),
            ("mlflow.runName", name_of(state)),
            ("mlflow.source.name", "shardwise nightly".to_owned()),
            ("mlflow.source.type", "JOB".to_owned()),
            // The description that its page shows, as Markdown.
            ("mlflow.note.content", format!("```\n{summary}\n```")),
        ];
        let tags = tags.into_iter().filter(|(_, value)| !value.is_empty());
        let start_ms = ms(&state.started).unwrap_or_default();
        Self {
            params: params.into_iter().map(|(name, value)| (name, cut(&value, LONGEST_PARAM))).collect(),
            metrics: metrics.lines().filter_map(metric).collect(),
            tags: tags.map(|(name, value)| (name.to_owned(), cut(&value, LONGEST_TAG))).collect(),
            start_ms,
            end_ms: state.ended.as_deref().and_then(ms).unwrap_or(start_ms),
        }
    }

    /// All tags, for a new run.
    pub(super) fn run_tags(&self) -> Vec<Value> {
        key_values(&self.tags)
    }

    /// Those that say of a model what it is.
    pub(super) fn model_tags(&self) -> Vec<Value> {
        let of_model = |name: &str| MODEL_TAGS.contains(&name);
        self.tags.iter().filter(|(name, _)| of_model(name)).map(|(name, value)| pair(name, value)).collect()
    }

    /// What `runs/log-batch` is told, one request after the other; parameters that the run has are left out, for they cannot be
    /// changed.
    pub(super) fn batches(&self, run_id: &str, has_param: impl Fn(&str) -> bool) -> Vec<Value> {
        let params: Vec<Value> =
            self.params.iter().filter(|(name, _)| !has_param(name)).map(|(name, value)| pair(name, value)).collect();
        let tags = key_values(&self.tags);
        let batch = |field: &str, values: &[Value]| json!({ "run_id": run_id, field: values });
        let params = params.chunks(PARAMS_PER_BATCH).map(|chunk| batch("params", chunk));
        let tags = tags.chunks(TAGS_PER_BATCH).map(|chunk| batch("tags", chunk));
        let metrics = self.metrics.chunks(METRICS_PER_BATCH).map(|chunk| batch("metrics", chunk));
        params.chain(tags).chain(metrics).collect()
    }
}

/// The name of the run's folder.
pub(super) fn name_of(state: &RunState) -> String {
    format!("{}-{}", state.date, state.key)
}

/// Pairs as MLflow writes them.
fn key_values(pairs: &[(String, String)]) -> Vec<Value> {
    pairs.iter().map(|(name, value)| pair(name, value)).collect()
}

fn pair(name: &str, value: &str) -> Value {
    json!({ "key": name, "value": value })
}

/// A line of `metrics.ndjson`; what is no number is none of MLflow's metrics.
fn metric(line: &str) -> Option<Value> {
    let line: Value = serde_json::from_str(line).ok()?;
    let (stage, figure) = (line["stage"].as_str()?, line["figure"].as_str()?);
    let (value, at) = (line["value"].as_f64()?, ms(line["at"].as_str()?)?);
    Some(json!({ "key": format!("{stage}.{figure}"), "value": value, "timestamp": at, "step": 0 }))
}

/// Milliseconds since 1970.
fn ms(at: &str) -> Option<i64> {
    Some(at.parse::<Timestamp>().ok()?.nanos().div_euclid(1_000_000))
}

/// A value without the quotes of JSON; nothing for null.
fn in_words(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

fn cut(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some(_) => text.chars().take(longest - 1).chain(['…']).collect(),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_keep_to_the_limits_of_the_server() {
        let pairs = |count: usize| (0..count).map(|n| (format!("p{n}"), n.to_string())).collect::<Vec<_>>();
        let (params, tags, metrics) = (pairs(250), pairs(101), vec![json!({ "key": "m" }); 2_500]);
        let record = Record { params, metrics, tags, start_ms: 0, end_ms: 0 };
        let batches = record.batches("r", |name| name == "p7");
        let sizes = |field: &str| -> Vec<usize> {
            batches.iter().filter_map(|batch| batch[field].as_array().map(Vec::len)).collect()
        };
        assert_eq!((sizes("params"), sizes("tags")), (vec![100, 100, 49], vec![100, 1]));
        assert_eq!(sizes("metrics"), [1_000, 1_000, 500]);
        assert!(
            batches.iter().all(|batch| batch["run_id"] == "r" && batch.as_object().is_some_and(|all| all.len() == 2))
        );
    }

    #[test]
    fn figures_become_metrics_and_long_texts_are_cut() {
        let line = |value: &str| {
            metric(&format!(r#"{{"at":"2026-01-05T00:00:01.5Z","figure":"rows","stage":"build","value":{value}}}"#))
        };
        let at = 1_767_571_201_500_i64;
        assert_eq!(line("3"), Some(json!({ "key": "build.rows", "value": 3.0, "timestamp": at, "step": 0 })));
        assert_eq!((line("null"), line("\"x\""), metric("{\"at\":")), (None, None, None));
        assert_eq!((cut("äöü", 3).as_str(), cut("äöüß", 3).as_str()), ("äöü", "äö…"));
    }
}
