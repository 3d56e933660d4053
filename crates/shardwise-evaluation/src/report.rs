//! The report of a training run: what goes in, and two files that come out, a page and its numbers. It gathers nothing
//! itself; the caller fills the facts in.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shardwise_types::{CostTerms, PlacementRequest, ShardPrediction};

use crate::analysis::Analysis;
use crate::losses::{WhereItLoses, where_it_loses};
use crate::numbers::millis;
#[cfg(feature = "schema")]
use crate::schema::cost_terms;
use crate::{ClosedLoop, EvaluationError, Fact, METRICS, Verdict, page};

/// What the dataset is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DatasetFacts {
    /// Its id.
    pub id: String,
    /// Where its rows come from, such as `synthetic` or the folder of a history.
    pub source: String,
    /// Rows, one per decision and measured shard.
    pub rows: u64,
    /// Rows of the earlier split, on which the heads were fitted.
    pub earlier_rows: u64,
    /// Rows of the later split, on which the errors are measured.
    pub later_rows: u64,
    /// First decision, UTC.
    pub from_utc: String,
    /// Last decision, UTC.
    pub to_utc: String,
    /// Columns that the model sees.
    pub features: u64,
    /// Fingerprint of the feature table.
    pub feature_fingerprint: String,
    /// Hash of the dataset's contents.
    pub hash: String,
    /// What else its card says.
    #[serde(default)]
    pub card: Vec<Fact>,
}

/// How well something predicts execution time on the later split.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ExecScore {
    /// What predicts, such as `elastic net`.
    pub predictor: String,
    /// Root mean square error of ln(execution time in ms).
    pub rmse: f64,
    /// Share of the variance of ln(execution time) that is explained, at most 1; `None` when it was not measured.
    pub r2: Option<f64>,
}

/// What the model is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ModelFacts {
    /// Its name in the registry.
    pub name: String,
    /// Its version, the digest of its files.
    pub version: String,
    /// Whether it was published as champion.
    pub published: bool,
    /// Version of the champion that it was compared with, if there was one.
    pub champion_version: Option<String>,
    /// The execution head that routers would run; `None` when the model has none.
    pub exec: Option<ExecScore>,
    /// The service table alone.
    pub table: Option<ExecScore>,
    /// Other predictors fitted on the same rows, for comparison.
    pub others: Vec<ExecScore>,
    /// What else its card says.
    #[serde(default)]
    pub card: Vec<Fact>,
}

/// An alternative of the sample decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AlternativeFacts {
    /// The shard.
    pub shard: String,
    /// The terms of its cost.
    #[cfg_attr(feature = "schema", schemars(schema_with = "cost_terms"))]
    pub cost: CostTerms,
    /// Latency that it would have, in ms.
    pub expected_latency_ms: f64,
    /// Probability that it would have been the best.
    pub probability_best: f64,
}

/// One decision, to look at closely.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SampleDecision {
    /// The request in words.
    pub request: Vec<Fact>,
    /// Where it should run.
    pub recommended_shard: String,
    /// Probability that this is within 10 % and 5 ms of the best.
    pub confidence: f64,
    /// Latency that it will feel, in ms.
    pub expected_latency_ms: f64,
    /// Requests per core on the shard once it is there.
    pub expected_load: f64,
    /// Who decided.
    pub decided_by: String,
    /// Why a better decider was passed over, if one was.
    pub fallback_reason: Option<String>,
    /// The terms of the cost.
    #[cfg_attr(feature = "schema", schemars(schema_with = "cost_terms"))]
    pub cost: CostTerms,
    /// Why, in words.
    pub reasoning: Vec<String>,
    /// The next best, cheapest first.
    pub alternatives: Vec<AlternativeFacts>,
}

impl SampleDecision {
    /// Summarises a request and the answer to it.
    pub fn new(request: &PlacementRequest, prediction: &ShardPrediction) -> Self {
        let alternatives = prediction.alternative_shards.iter().map(|alternative| AlternativeFacts {
            shard: alternative.shard.as_str().to_owned(),
            cost: alternative.cost,
            expected_latency_ms: alternative.expected_latency,
            probability_best: alternative.probability_best.value(),
        });
        Self {
            request: request_facts(request),
            recommended_shard: prediction.recommended_shard.as_str().to_owned(),
            confidence: prediction.confidence.value(),
            expected_latency_ms: prediction.expected_latency,
            expected_load: prediction.expected_load,
            decided_by: prediction.decided_by.as_str().to_owned(),
            fallback_reason: prediction.fallback_reason.map(|reason| reason.to_string()),
            cost: prediction.cost,
            reasoning: prediction.reasoning(),
            alternatives: alternatives.collect(),
        }
    }
}

pub(crate) fn request_facts(request: &PlacementRequest) -> Vec<Fact> {
    let amount = request.amount_usd.map_or("unknown".to_owned(), |amount| format!("{} USD", millis(amount.usd())));
    let region = request.residency.as_ref().map_or("any region", |region| region.as_str());
    vec![
        Fact::new("function", request.function.as_str()),
        Fact::new("event", request.event_type.as_str()),
        Fact::new("protocol", request.protocol.as_str()),
        Fact::new("trading pair", request.trading_pair.as_str()),
        Fact::new("exchange", request.exchange.as_str()),
        Fact::new("risk, urgency, priority", {
            format!("{}, {}, {}", request.risk.as_str(), request.urgency.as_str(), request.priority.as_str())
        }),
        Fact::new("amount", amount),
        Fact::new("residency", region),
        Fact::new("data complexity", format!("{} × usual", request.data_complexity)),
        Fact::new("event at", request.event_at.to_string()),
    ]
    .into_iter()
    .filter(|fact| !fact.value.is_empty())
    .collect()
}

/// All that a report shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ReportInput {
    /// The page's title.
    pub title: String,
    /// The command that makes this report again.
    pub command: String,
    /// The command that makes a page of any logged decision, with `ID` in the place of its id; empty when none was logged.
    #[serde(default)]
    pub explain: String,
    /// The dataset.
    pub dataset: DatasetFacts,
    /// The model.
    pub model: ModelFacts,
    /// The closed-loop comparison.
    pub closed_loop: ClosedLoop,
    /// The verdict on it.
    pub verdict: Verdict,
    /// Why the model decides as it does, and where; `None` when that was not looked at.
    #[serde(default)]
    pub analysis: Option<Analysis>,
    /// A decision to look at, if one was made.
    pub decision: Option<SampleDecision>,
    /// What a reader should know besides, one sentence each.
    pub notes: Vec<String>,
}

/// Where the report lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportPaths {
    /// The page.
    pub html: PathBuf,
    /// Its numbers.
    pub json: PathBuf,
    /// What the numbers look like, as JSON Schema.
    pub schema: PathBuf,
}

/// What `report.json` holds: the input and all that the page computes from it.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct ReportJson<'a> {
    format: u32,
    #[serde(flatten)]
    input: &'a ReportInput,
    where_it_loses: &'a WhereItLoses,
    terms: Vec<Fact>,
}

/// The JSON Schema (draft 2020-12) of `report.json`.
pub const REPORT_SCHEMA: &str = include_str!("../report.schema.json");

/// Writes `report.html`, one file that needs no network, `report.json`, its numbers, and `report.schema.json`, what these look
/// like, into `dir`. Each file is whole or untouched.
///
/// # Errors
/// When the folder cannot be made or written.
pub fn write_report(dir: &Path, input: &ReportInput) -> Result<ReportPaths, EvaluationError> {
    let losses = where_it_loses(&input.closed_loop);
    let html = page::render(input, &losses)?;
    let json = to_json(input, &losses)?;
    fs::create_dir_all(dir).map_err(|source| EvaluationError::Write { path: dir.to_owned(), source })?;
    let paths = ReportPaths {
        html: dir.join("report.html"),
        json: dir.join("report.json"),
        schema: dir.join("report.schema.json"),
    };
    write_atomically(&paths.schema, REPORT_SCHEMA.as_bytes())?;
    write_atomically(&paths.json, json.as_bytes())?;
    write_atomically(&paths.html, html.as_bytes())?;
    Ok(paths)
}

fn to_json(input: &ReportInput, where_it_loses: &WhereItLoses) -> Result<String, EvaluationError> {
    let terms = METRICS.iter().map(|metric| Fact::new(metric.key, metric.meaning)).collect();
    let mut json = serde_json::to_string_pretty(&ReportJson { format: 1, input, where_it_loses, terms })?;
    json.push('\n');
    Ok(json)
}

/// Writes a file whole or not at all.
pub(crate) fn write_atomically(path: &Path, contents: &[u8]) -> Result<(), EvaluationError> {
    let temporary = path.with_added_extension(format!("tmp{}", std::process::id()));
    let write = || {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(contents)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|source| {
        // The failure is what matters; what is left of the temporary file can only be tried to remove.
        let _ = fs::remove_file(&temporary);
        EvaluationError::Write { path: path.to_owned(), source }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic;

    #[test]
    fn a_report_is_two_whole_files() {
        let temporary = tempfile::tempdir().unwrap();
        // Set it to look at the page in a browser.
        let kept = std::env::var_os("SHARDWISE_REPORT_DIR").map(PathBuf::from);
        let dir = kept.unwrap_or_else(|| temporary.path().join("new"));
        let paths = write_report(&dir, &synthetic::report_input()).unwrap();
        let html = fs::read_to_string(&paths.html).unwrap();
        assert!(html.trim_end().ends_with("</html>"));
        assert!(html.len() <= 500_000, "{} bytes", html.len());
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 3, "no temporary file is left");
    }

    #[test]
    fn the_json_reads_back_as_the_input() {
        let input = synthetic::report_input();
        let json = to_json(&input, &where_it_loses(&input.closed_loop)).unwrap();
        let read: ReportInput = serde_json::from_str(&json).unwrap();
        assert_eq!(read.closed_loop.policies.len(), input.closed_loop.policies.len());
        assert_eq!(read.verdict, input.verdict);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert!(!value["where_it_loses"]["losses"].as_array().unwrap().is_empty());
        assert_eq!(value["format"], 1);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("taken");
        fs::write(&file, "").unwrap();
        let error = write_report(&file, &synthetic::report_input()).unwrap_err();
        assert!(error.to_string().contains("taken"), "{error}");
    }
}
