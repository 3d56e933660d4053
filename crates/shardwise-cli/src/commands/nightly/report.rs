//! What a night leaves to read: the report's pages, the summary on the terminal.

use std::path::{Path, PathBuf};

use miette::IntoDiagnostic;
use serde_json::{Value, json};
use shardwise_datasets::DatasetCard;
use shardwise_evaluation::{
    ClosedLoop, DatasetFacts, ExecScore, Fact, ModelFacts, PolicyResult, ReportInput, SampleDecision, Verdict,
    write_report,
};
use shardwise_models::{HeadMetrics, Manifest};
use shardwise_types::{PlacementRequest, ShardPrediction};

use super::evaluate::Judged;
use super::failure::NightResult;
use super::quality::in_a_line;
use super::{Found, Night, Outcome, TrainedVersion};
use crate::arguments::{NightlyArguments, page_command};
use crate::commands::{files, predict};

impl Night<'_> {
    pub(super) fn report(&self, found: &Found) -> NightResult<Option<PathBuf>> {
        let Found { card, quality, trained, judged, outcome, prediction, analysis, .. } = found;
        let Some(judged) = judged else { return Ok(None) };
        let request = PlacementRequest::from_json(&files::read(&self.request_file())?).into_diagnostic()?;
        let manifest = self.registry.describe(&trained.version).into_diagnostic()?;
        let input = ReportInput {
            title: format!("shardwise · {} · {}", self.options.name, trained.version),
            command: self.command(),
            explain: page_command(&self.options.history, &self.models, &self.options.name),
            dataset: dataset_facts(card, &trained.metrics, &self.options.history),
            model: ModelFacts {
                card: card_of(&manifest),
                ..model_facts(
                    &self.options.name,
                    &trained.version,
                    Some(&trained.metrics),
                    judged.champion.as_deref(),
                    outcome.is_live(),
                )
            },
            closed_loop: judged.closed_loop.clone(),
            verdict: judged.verdict.clone(),
            analysis: analysis.clone(),
            decision: prediction.as_ref().map(|prediction| SampleDecision::new(&request, prediction)),
            notes: std::iter::once(in_a_line(quality)).chain(notes(trained)).collect(),
        };
        // The last night's page has the same address every day; a run's own stays what it was.
        write_report(&self.options.work.join("report"), &input)?;
        let paths = write_report(&self.run.path.join("report"), &input)?;
        Ok(Some(paths.html))
    }

    pub(super) fn command(&self) -> String {
        let Self { options, models, .. } = self;
        let (history, work, models) = (options.history.display(), options.work.display(), models.display());
        let date = &self.date;
        let NightlyArguments { name, seed, replicates, search, .. } = options;
        let mut more = options.most_replicates.map_or_else(String::new, |most| format!(" --most-replicates {most}"));
        more += &search.search.map_or_else(String::new, |trials| format!(" --search {trials}"));
        more += &search.search_minutes.map_or_else(String::new, |minutes| format!(" --search-minutes {minutes}"));
        format!(
            "shardwise nightly --history {history} --work {work} --models {models} --name {name} --seed {seed} \
             --replicates {replicates}{more} --date {date}"
        )
    }
}

/// The outcome for people.
pub(super) fn summary(
    quality: &Value,
    judged: Option<&Judged>,
    outcome: Outcome,
    prediction: Option<&ShardPrediction>,
    report: Option<&Path>,
) -> String {
    let mut text = format!("{}\n", in_a_line(quality));
    if let Some(judged) = judged {
        text += &in_words(&judged.closed_loop, &judged.verdict);
    }
    text += match outcome {
        Outcome::Promoted | Outcome::Champion => "The model is live (champion).\n\n",
        Outcome::NotJudged | Outcome::Refused => "The model is not live.\n\n",
    };
    text += &prediction.map(predict::in_words).unwrap_or_default();
    if let Some(report) = report {
        text += &format!("\nreport: {}\n", report.display());
    }
    text
}

/// The closed loop and the reasons of the verdict.
pub(crate) fn in_words(closed_loop: &ClosedLoop, verdict: &Verdict) -> String {
    let mut text = format!("{:<18}{:>10}{:>10}{:>11}\n", "policy", "mean ms", "p99 ms", "SLO missed");
    for policy in &closed_loop.policies {
        let (mean_ms, p99_ms, missed) = (policy.pooled.mean_ms, policy.pooled.p99_ms, policy.pooled.slo_miss * 100.0);
        text += &format!("{:<18}{mean_ms:>10.1}{p99_ms:>10.1}{missed:>10.2}%\n", policy.name);
    }
    for reason in &verdict.reasons {
        text += &format!("{} {reason}\n", if reason.holds { "✓" } else { "✗" });
    }
    text
}

/// The rows of the closed loop that the result holds.
pub(crate) fn table(closed_loop: &ClosedLoop) -> Vec<Value> {
    let row = |policy: &PolicyResult| {
        json!({
            "policy": policy.name, "mean_ms": policy.pooled.mean_ms, "p99_ms": policy.pooled.p99_ms,
            "slo_miss": policy.pooled.slo_miss, "error_rate": policy.pooled.error_rate, "core_use": policy.pooled.core_use,
        })
    };
    closed_loop.policies.iter().map(row).collect()
}

fn dataset_facts(card: &DatasetCard, metrics: &HeadMetrics, history: &Path) -> DatasetFacts {
    DatasetFacts {
        id: card.id.clone(),
        source: history.display().to_string(),
        rows: card.rows,
        earlier_rows: metrics.train_rows,
        later_rows: metrics.test_rows,
        from_utc: card.from.to_string(),
        to_utc: card.to.to_string(),
        features: card.feature_names.len() as u64,
        feature_fingerprint: card.feature_fingerprint.clone(),
        hash: card.content_hash.clone(),
        card: Vec::new(),
    }
}

/// What a model's manifest says of it, for its card.
pub(crate) fn card_of(manifest: &Manifest) -> Vec<Fact> {
    let Manifest { trained_from, trained_to, seed, code_version, parameters, files, how_to_make_again, .. } = manifest;
    let bytes: u64 = files.values().map(|file| file.bytes).sum();
    let parameters = parameters.iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ");
    let heads = manifest.metrics();
    let heads = heads.as_object().map(|heads| heads.keys().cloned().collect::<Vec<_>>().join(", "));
    vec![
        Fact::new("trained on rows from", trained_from.to_string()),
        Fact::new("to", trained_to.to_string()),
        Fact::new("heads", heads.unwrap_or_default()),
        Fact::new("learning parameters", parameters),
        Fact::new("seed", seed.to_string()),
        Fact::new("made by", format!("shardwise {code_version}")),
        Fact::new("size", format!("{:.0} kB in {} files", bytes as f64 / 1e3, files.len())),
        Fact::new("made again with", how_to_make_again.clone()),
        Fact::new(
            "meant for",
            "choosing among the shards of a fleet whose routers and features are those of its manifest",
        ),
        Fact::new(
            "not meant for",
            "other fleets, other feature tables, or prices: it knows nothing of markets but how busy they make shards",
        ),
    ]
}

pub(crate) fn model_facts(
    name: &str,
    version: &str,
    metrics: Option<&HeadMetrics>,
    champion: Option<&str>,
    published: bool,
) -> ModelFacts {
    let score = |predictor: &str, rmse: f64, r2: Option<f64>| ExecScore { predictor: predictor.to_owned(), rmse, r2 };
    ModelFacts {
        name: name.to_owned(),
        version: version.to_owned(),
        published,
        champion_version: champion.map(str::to_owned),
        exec: metrics.map(|metrics| score("boosted trees on the service table", metrics.rmse, Some(metrics.r2))),
        table: metrics.map(|metrics| score("service table alone", metrics.table_rmse, None)),
        others: [
            ("elastic net on 20,000 rows", metrics.and_then(|metrics| metrics.elastic_net_rmse)),
            ("random forest on 20,000 rows", metrics.and_then(|metrics| metrics.forest_rmse)),
        ]
        .into_iter()
        .filter_map(|(name, rmse)| Some(score(name, rmse?, None)))
        .collect(),
        card: Vec::new(),
    }
}

fn notes(trained: &TrainedVersion) -> Vec<String> {
    let confidence = &trained.heads["confidence"];
    let calibrated = match (confidence["error"].as_f64(), confidence["built_in_error"].as_f64()) {
        (Some(error), Some(built_in)) => format!(
            "Confidence is calibrated in the simulated world of this history, on the days before the held-out ones and other seeds; on a seed that was kept back it was off by {error:.3}, by {built_in:.3} without."
        ),
        _ => "Confidence is calibrated on other simulated fleets, not on this history.".to_owned(),
    };
    vec![
        "The closed loop plays the history's held-out arrivals in the simulated world that the history names, or in one that is estimated from it: fleet, distances, run times of every function on every shard, slowness over time, failures. Service noise, failures and neighbours are drawn anew per seed and are the same for all policies; traced slowness of machines goes on as it was.".to_owned(),
        "Routers learn online through the traffic before the held-out period, and only that period is measured.".to_owned(),
        calibrated,
    ]
}
