//! `shardwise evaluate`: may a model go live, and why, on the held-out end of a history.

use std::collections::BTreeMap;
use std::sync::Arc;

use miette::{IntoDiagnostic, miette};
use serde_json::json;
use shardwise_datasets::History;
use shardwise_evaluation::{
    Analysis, ClosedLoop, DatasetFacts, Fact, ReportInput, SampleDecision, Verdict, refusal, visible, write_report,
};
use shardwise_models::{CHAMPION, Manifest, ModelBundle, Registry};
use shardwise_policies::StrategiesConfig;
use shardwise_types::{FleetSnapshot, HistoryRecord, PlacementRequest, Timestamp};

use crate::arguments::{EvaluateReportArguments, page_command};
use crate::commands::analysis::analyse;
use crate::commands::nightly::{
    Contest, EndOfHistory, NightResult, Period, card_of, champion_of, closed_loop, in_words, model_facts, seeds, table,
};
use crate::commands::predict;
use crate::output::{self, Stage, note};

/// Share of a history's time that comes before the held-out part, as in datasets.
const TRAIN_SHARE: f64 = 0.8;

/// A version and what it is held against.
struct Subject {
    name: String,
    version: String,
    bundle: Arc<ModelBundle>,
    manifest: Manifest,
    champion: Option<Arc<ModelBundle>>,
    is_champion: bool,
}

pub(crate) fn run(options: &EvaluateReportArguments, json: bool) -> miette::Result<()> {
    evaluate(options, json).map_err(|failure| failure.report)
}

fn evaluate(options: &EvaluateReportArguments, json: bool) -> NightResult<()> {
    let (models, history, out) = options.places();
    if options.replicates == 0 {
        return Err(miette!(help = "eight tell something", "--replicates 0 judges nothing").into());
    }
    // Before minutes of work, not after.
    std::fs::create_dir_all(out).map_err(|error| {
        miette!(help = "name a folder that can be made and written with --out", "{}: {error}", out.display())
    })?;
    let history = History::open(history)?;
    let subject = Subject::find(options)?;
    let whole = period_of(&history)?;
    let stage = Stage::start("reading the end of the history".to_owned());
    let (end, last) = EndOfHistory::read(&history, whole, whole.to)?;
    let end = end.ok_or_else(|| {
        let help = "bring more of it: a world is estimated from a few thousand decisions with their outcomes";
        miette!(help = help, "the history has no world to play in, so nothing can be judged")
    })?;
    stage.done(format!("held out from {}", whole.test_from));

    let (closed_loop, verdict) = match &subject {
        Some(subject) => {
            let exec = subject.manifest.heads.exec.as_ref().map(|head| &head.metrics);
            let contest = Contest {
                bundle: &subject.bundle,
                version: &subject.version,
                champion: subject.champion.as_ref(),
                is_champion: subject.is_champion,
                rmse: [exec.map(|metrics| metrics.rmse), exec.map(|metrics| metrics.table_rmse)],
                end: &end,
            };
            let judged = contest.judge(options.replicates, options.most_replicates())?;
            (judged.closed_loop, judged.verdict)
        }
        None => {
            let played = closed_loop(None, None, &end, &seeds(options.replicates))?;
            let sentence = format!(
                "There is no model '{}' in {}: routers place by heuristics alone. `shardwise nightly` trains one.",
                options.name,
                models.display()
            );
            (played, refusal(sentence))
        }
    };
    let bundle = subject.as_ref().map(|subject| &subject.bundle);
    let analysis = analyse(&history, &end, bundle, &seeds(options.replicates))?;
    let input = ReportInput {
        title: match &subject {
            Some(subject) => format!("shardwise · {} · {}", subject.name, subject.version),
            None => format!("shardwise · {} · no model", options.name),
        },
        command: command(options),
        explain: page_command(history.dir(), models, &options.name),
        dataset: dataset_facts(&history, subject.as_ref(), whole),
        model: subject.as_ref().map(Subject::facts).unwrap_or_default(),
        decision: last.and_then(|(request, fleet)| sample(bundle, &end, &request, &fleet)),
        closed_loop,
        verdict,
        analysis: Some(analysis),
        notes: Vec::new(),
    };
    let paths = write_report(out, &input)?;
    if json {
        output::print_json(&json!({
            "version": subject.as_ref().map(|subject| &subject.version),
            "champion": subject.as_ref().and_then(|subject| subject.champion.as_ref()).map(|champion| champion.version()),
            "verdict": input.verdict,
            "closed_loop": table(&input.closed_loop),
            "report": paths.html,
            "numbers": paths.json,
            "peak_memory_mib": output::peak_memory_mib(),
        }))?;
        return Ok(());
    }
    print!("{}", visible(&summary(&input.verdict, &input.closed_loop, input.analysis.as_ref())));
    println!("\nreport: {}", paths.html.display());
    Ok(())
}

impl Subject {
    /// The version that was asked for, else the one that was trained on the latest rows; `None` when there is no model at all.
    fn find(options: &EvaluateReportArguments) -> NightResult<Option<Self>> {
        let (models, ..) = options.places();
        let registry = match Registry::open(models, &options.name) {
            Ok(registry) => registry,
            Err(error) if options.version.is_some() => return Err(error).into_diagnostic()?,
            Err(error) => {
                note(format!("without a model: {error}"));
                return Ok(None);
            }
        };
        let version = match &options.version {
            Some(wanted) => registry.resolve(wanted).into_diagnostic()?,
            None => match newest(&registry)? {
                Some(version) => version,
                None => {
                    note(format!("without a model: {} has no version", registry.place().display()));
                    return Ok(None);
                }
            },
        };
        let is_champion = registry.alias(CHAMPION).into_diagnostic()?.as_ref() == Some(&version);
        Ok(Some(Self {
            name: options.name.clone(),
            bundle: Arc::new(registry.load(&version).into_diagnostic()?),
            manifest: registry.describe(&version).into_diagnostic()?,
            champion: if is_champion { None } else { champion_of(&registry)? },
            is_champion,
            version,
        }))
    }

    fn facts(&self) -> shardwise_evaluation::ModelFacts {
        let exec = self.manifest.heads.exec.as_ref().map(|head| &head.metrics);
        let champion = self.champion.as_ref().map(|champion| champion.version());
        let mut facts = model_facts(&self.name, &self.version, exec, champion, self.is_champion);
        facts.card = card_of(&self.manifest);
        facts
    }
}

/// The version that was trained on the latest rows, one that is not champion first.
fn newest(registry: &Registry) -> miette::Result<Option<String>> {
    let champion = registry.alias(CHAMPION).into_diagnostic()?;
    let mut newest: Option<(Timestamp, bool, String)> = None;
    for version in registry.versions().into_diagnostic()? {
        let trained_to = match registry.describe(&version) {
            Ok(manifest) => manifest.trained_to,
            Err(error) => {
                note(format!("version {version} is left out: {error}"));
                continue;
            }
        };
        let key = (trained_to, champion.as_ref() != Some(&version), version);
        newest = Some(newest.map_or(key.clone(), |other| other.max(key)));
    }
    Ok(newest.map(|(.., version)| version))
}

/// From the first decision to the last, and where the held-out part begins.
fn period_of(history: &History) -> NightResult<Period> {
    let empty = || miette!(help = "bring a history with decisions", "the history has no decision");
    let mut from = None;
    for record in history.records(None, None)? {
        if let HistoryRecord::Decision(decision) = record? {
            from = Some(decision.known_at);
            break;
        }
    }
    let from = from.ok_or_else(empty)?;
    let last_day = history.days().last().ok_or_else(empty)?.parse::<Timestamp>().into_diagnostic()?;
    let mut to = from;
    for record in history.records(Some(last_day), None)? {
        if let HistoryRecord::Decision(decision) = record? {
            to = to.max(decision.known_at);
        }
    }
    // The last decision itself is part of it.
    let to = Timestamp::from_nanos(to.nanos() + 1);
    let train_ns = ((to.nanos() - from.nanos()) as f64 * TRAIN_SHARE) as i64;
    Ok(Period { from, test_from: Timestamp::from_nanos(from.nanos() + train_ns), to })
}

fn dataset_facts(history: &History, subject: Option<&Subject>, whole: Period) -> DatasetFacts {
    let counts: BTreeMap<&str, u64> = history.row_counts();
    let count = |table: &str| counts.get(table).copied().unwrap_or(0);
    let exec = subject.and_then(|subject| subject.manifest.heads.exec.as_ref()).map(|head| &head.metrics);
    let source = subject.map(|subject| &subject.manifest.dataset);
    DatasetFacts {
        id: source.map_or_else(String::new, |source| source.id.clone()),
        source: history.dir().display().to_string(),
        rows: source.map_or(0, |source| source.rows),
        earlier_rows: exec.map_or(0, |metrics| metrics.train_rows),
        later_rows: exec.map_or(0, |metrics| metrics.test_rows),
        from_utc: whole.from.to_string(),
        to_utc: whole.to.to_string(),
        features: subject.map_or(0, |subject| subject.manifest.feature_names.len() as u64),
        feature_fingerprint: subject.map_or_else(String::new, |subject| subject.manifest.feature_fingerprint.clone()),
        hash: source.map_or_else(String::new, |source| source.hash.clone()),
        card: ["decisions", "outcomes", "shard_reports", "market"]
            .map(|table| Fact::new(format!("{} in the history", table.replace('_', " ")), count(table).to_string()))
            .into_iter()
            .chain([
                Fact::new("days", history.days().join(", ")),
                Fact::new("held out from", whole.test_from.to_string()),
            ])
            .collect(),
    }
}

/// The history's last request, decided.
fn sample(
    bundle: Option<&Arc<ModelBundle>>,
    end: &EndOfHistory,
    request: &PlacementRequest,
    fleet: &FleetSnapshot,
) -> Option<SampleDecision> {
    let runtime = end.world.timing.runtime();
    predict::decide_for(bundle.cloned(), request, fleet, runtime, StrategiesConfig::default())
        .inspect_err(|refusal| note(format!("no sample decision: {refusal}")))
        .ok()
        .map(|prediction| SampleDecision::new(request, &prediction))
}

/// What fits a screen.
fn summary(verdict: &Verdict, closed_loop: &ClosedLoop, analysis: Option<&Analysis>) -> String {
    let answer = if verdict.may_go_live { "Yes, it may go live." } else { "No, not yet." };
    let mut text = format!("{answer}\n{}", in_words(closed_loop, verdict));
    if let Some(played) = analysis.and_then(|analysis| analysis.played.as_ref()) {
        if let Some(regret) = &played.regret {
            let (mean_ms, right) = (regret.mean_ms, regret.right * 100.0);
            text += &format!("\nregret {mean_ms:.2} ms in the mean; {right:.1} % of choices are about the best\n");
        }
        let losing: Vec<String> = played
            .slices
            .iter()
            .filter(|slice| slice.loses())
            .map(|slice| format!("{} {}", slice.kind.name(), slice.of))
            .collect();
        let losing = if losing.is_empty() { "in no part of the traffic".to_owned() } else { losing.join(", ") };
        text += &format!("shown to be worse than {}: {losing}\n", played.rival);
    }
    text
}

fn command(options: &EvaluateReportArguments) -> String {
    let (models, history, out) = options.places();
    let mut text = format!(
        "shardwise evaluate --models {} --history {} --out {} --name {} --replicates {}",
        models.display(),
        history.display(),
        out.display(),
        options.name,
        options.replicates
    );
    if let Some(version) = &options.version {
        text += &format!(" --version {version}");
    }
    if let Some(most) = options.most_replicates {
        text += &format!(" --most-replicates {most}");
    }
    text
}
