//! `shardwise nightly`: build, check, verify, train, evaluate, publish when better, decide. Each finished stage is kept with the
//! key of what it was made from, so that a night that was interrupted goes on where it was; a night that is finished is not
//! done again.

mod calibrate;
mod environment;
mod evaluate;
mod failure;
mod lock;
mod mlflow;
mod quality;
mod report;
mod retention;
mod run_folder;
mod window;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use miette::{IntoDiagnostic, miette};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shardwise_datasets::{BuildOptions, DatasetCard, History};
use shardwise_evaluation::{Analysis, visible};
use shardwise_models::{CHAMPION, HeadMetrics, ModelBundle, Registry, SigningKey};
use shardwise_policies::{Runtime, StrategiesConfig};
use shardwise_types::{ShardPrediction, Timestamp, key_of};

use self::environment::environment;
pub(crate) use self::evaluate::{Contest, EndOfHistory, Judged, Period, champion_of, closed_loop, seeds};
pub(crate) use self::failure::NightResult;
use self::failure::{Kind, NightFailure};
use self::lock::WorkLock;
use self::report::summary;
pub(crate) use self::report::{card_of, in_words, model_facts, table};
use self::retention::remove_old_runs;
use self::run_folder::{RunFolder, RunState};
use super::analysis::analyse;
use super::train::{self, Lesson};
use super::{dataset, files, keys, predict};
use crate::arguments::{NightlyArguments, SearchArguments};
use crate::output::{self, note, progress, progress::kept};

const DAY_MS: f64 = 86_400_000.0;

/// What became of the new version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// It is the champion from now on.
    Promoted,
    /// It was the champion before.
    Champion,
    /// The history has no world to judge it in.
    NotJudged,
    /// It was not shown to be better.
    Refused,
}

impl Outcome {
    fn is_live(self) -> bool {
        matches!(self, Self::Promoted | Self::Champion)
    }

    fn exit_code(self) -> u8 {
        if self == Self::Refused { 3 } else { 0 }
    }
}

/// What the training stage leaves for the next.
#[derive(Serialize, Deserialize)]
struct TrainedVersion {
    version: String,
    metrics: HeadMetrics,
    /// How well each head does, by name.
    heads: Value,
}

/// What the stages of a night found.
struct Found {
    card: DatasetCard,
    quality: Value,
    verified: Value,
    trained: TrainedVersion,
    judged: Option<Judged>,
    analysis: Option<Analysis>,
    outcome: Outcome,
    prediction: Option<ShardPrediction>,
}

/// A night that got to its end.
pub(crate) struct Done {
    /// The machine-readable last line.
    pub(crate) result: Value,
    summary: String,
    pub(crate) exit_code: u8,
}

pub(crate) fn run(options: &NightlyArguments, json: bool) -> miette::Result<ExitCode> {
    let panicked = |_| {
        let help = "this is a bug; what is finished is kept, and what panicked is said above";
        Err(NightFailure::new(Kind::Failed, miette!(help = help, "the night's program panicked")))
    };
    // A panic has an exit code of its own, which no operator should have to know.
    let done = catch_unwind(AssertUnwindSafe(|| night(options))).unwrap_or_else(panicked);
    match done {
        Ok(Done { result, exit_code, .. }) if json => output::print_json(&result).map(|()| ExitCode::from(exit_code)),
        Ok(Done { summary, exit_code, .. }) => {
            print!("{}", visible(&summary));
            Ok(ExitCode::from(exit_code))
        }
        Err(failure) => {
            progress::error(&failure.report);
            if json {
                output::print_json(&failure.to_json())?;
            }
            Ok(ExitCode::from(failure.kind.exit_code()))
        }
    }
}

/// A whole night.
pub(crate) fn night(options: &NightlyArguments) -> NightResult<Done> {
    let _lock = WorkLock::take(&options.work)?;
    let history = History::open(&options.history)?;
    let night = Night::new(options, history)?;
    if let Some(done) = night.finished_before()? {
        night.tell_mlflow();
        return Ok(done);
    }
    night.run.begin(&night.parameters(), &environment())?;
    let done = night.work().inspect_err(|failure| night.run.fail(failure));
    if done.is_ok() {
        night.tell_mlflow();
    }
    // After a failure as well: nights that fail for weeks must not fill the disk.
    let removed = remove_old_runs(&options.work, options.keep_runs);
    if removed > 0 {
        note(format!("{removed} old runs were removed, --keep-runs is {}", options.keep_runs));
    }
    done
}

/// The folders of a night and its registry.
struct Night<'a> {
    options: &'a NightlyArguments,
    history: History,
    date: String,
    /// The end of that day: nothing that was known then or later is read.
    to: Timestamp,
    dataset: PathBuf,
    models: PathBuf,
    registry: Registry,
    signing_key: Option<SigningKey>,
    run: RunFolder,
}

impl<'a> Night<'a> {
    fn new(options: &'a NightlyArguments, history: History) -> NightResult<Self> {
        let date = date_of(options, &history)?;
        let to = date.parse::<Timestamp>().into_diagnostic()?.plus_millis(DAY_MS);
        let models = options.models.clone().unwrap_or_else(|| options.work.join("models"));
        let signing_key = keys::signing_key(&options.signing)?;
        let registry = Registry::open_or_create(&models, &options.name).into_diagnostic()?;
        let run = RunFolder::of(&options.work, &date, &run_key(options, &history, to)?);
        let dataset = options.work.join("dataset");
        Ok(Self { options, history, date, to, dataset, models, registry, signing_key, run })
    }

    /// What an earlier run of the same date and inputs printed, when there is nothing left to do.
    fn finished_before(&self) -> NightResult<Option<Done>> {
        let Some((state, mut result, summary)) = self.run.finished() else { return Ok(None) };
        let (Some(outcome), Some(version)) = (state.outcome, &state.version) else { return Ok(None) };
        // The models folder may have been emptied since.
        if self.registry.resolve(version).is_err() {
            return Ok(None);
        }
        let champion = self.registry.alias(CHAMPION).into_diagnostic()?;
        // Against another champion it may win.
        if outcome == Outcome::Refused && champion != state.champion {
            return Ok(None);
        }
        progress::enter("night");
        if outcome.is_live() && champion.as_ref() != Some(version) {
            // Whoever rolled back knew more.
            note(format!("version {version} was live and is no longer; `shardwise models promote` brings it back"));
        }
        let why = format!("{} is finished already ({}), nothing is done anew", self.date, self.run.path.display());
        kept("nightly", &why);
        result["run"]["kept"] = true.into();
        Ok(Some(Done { result, summary, exit_code: outcome.exit_code() }))
    }

    fn work(&self) -> NightResult<Done> {
        let run = &self.run;
        let card = run.stage("build", || self.build())?;
        let key = self.key(&card);
        let quality = run.stage("check", || self.check(&key, &card))?;
        let verified = run.stage("verify", || self.verify(&key))?;
        let trained = run.stage("train", || self.train(&key, &card))?;
        let bundle = Arc::new(self.registry.load(&trained.version).into_diagnostic()?);
        let (end, prediction) = run.stage("decide", || {
            let end = self.end_of_history(&card)?;
            let prediction = self.decide(&bundle, end.as_ref());
            Ok((end, prediction))
        })?;
        run.write_json("decision.json", &prediction)?;
        let judged = run.stage("evaluate", || {
            let judged = self.evaluate(&key, &trained, &bundle, end.as_ref())?;
            if let Some(judged) = &judged {
                run.write_json("verdict.json", &judged.verdict)?;
                run.figure("evaluate", "may_go_live", u8::from(judged.verdict.may_go_live));
            }
            for policy in judged.iter().flat_map(|judged| table(&judged.closed_loop)) {
                run.figures("evaluate", &policy, &format!("{}.", policy["policy"].as_str().unwrap_or_default()));
            }
            Ok(judged)
        })?;
        let outcome = run.stage("publish", || {
            let outcome = self.publish(&trained, judged.as_ref())?;
            run.figure("publish", "published", u8::from(outcome.is_live()));
            Ok(outcome)
        })?;
        let analysis = run.stage("analyse", || self.analyse(&key, &trained, &bundle, end.as_ref()))?;
        let found = Found { card, quality, verified, trained, judged, analysis, outcome, prediction };
        let done = run.stage("report", || self.conclude(&found))?;
        let Found { trained, .. } = found;
        let champion = self.registry.alias(CHAMPION).into_diagnostic()?;
        run.finish(&done.result, &done.summary, |state| {
            state.exit_code = Some(done.exit_code);
            state.outcome = Some(outcome);
            state.version = Some(trained.version);
            state.champion = champion;
        })?;
        Ok(done)
    }

    /// Builds the dataset, whose finished days are kept, and leaves its card in the run's folder.
    fn build(&self) -> NightResult<DatasetCard> {
        let range = BuildOptions { to: Some(self.to), ..BuildOptions::default() };
        let card = dataset::build_with(&self.options.history, &self.dataset, &range)?;
        if card.days_built == 0 {
            self.run.keep();
        }
        self.run.figures("build", &json!(card), "");
        self.run.write_json("dataset.json", &card)?;
        Ok(card)
    }

    /// What every stage depends on: the history's files, its world, the dataset, and this build of shardwise.
    fn key(&self, card: &DatasetCard) -> String {
        let sources: Vec<&str> = card.sources.iter().map(|source| source.blake3.as_str()).collect();
        let world = self.history.world_json().unwrap_or_default();
        let program = files::this_program();
        format!("{} {:016x}", card.content_hash, key_of(&format!("{sources:?} {world} {program:?}")))
    }

    fn request_file(&self) -> PathBuf {
        self.options.work.join("decision/request.json")
    }

    fn fleet_file(&self) -> PathBuf {
        self.options.work.join("decision/fleet.json")
    }

    /// The value of a finished stage, when it was made from the same key and still serves, else the value that is made
    /// now.
    fn once<T: Serialize + DeserializeOwned>(
        &self,
        stage: &str,
        key: &str,
        serves: impl Fn(&T) -> bool,
        make: impl FnOnce() -> NightResult<T>,
    ) -> NightResult<T> {
        #[derive(Serialize, Deserialize)]
        struct Finished<T> {
            key: String,
            value: T,
        }
        let file = self.options.work.join("stages").join(format!("{stage}.json"));
        let earlier = std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice::<Finished<T>>(&bytes).ok());
        if let Some(finished) = earlier.filter(|finished| finished.key == key && serves(&finished.value)) {
            self.run.keep();
            kept(stage, "kept from the last run");
            return Ok(finished.value);
        }
        let finished = Finished { key: key.to_owned(), value: make()? };
        files::write_json(&file, &finished)?;
        Ok(finished.value)
    }

    fn verify(&self, key: &str) -> NightResult<Value> {
        let verified = self.once(
            "verify",
            key,
            |_| true,
            || {
                let report = dataset::verify_with(&self.options.history, &self.dataset, Some(&self.registry))?;
                // The dataset was built a moment ago: what differs is what routers logged.
                dataset::no_mismatch(&report).map_err(|error| NightFailure::new(Kind::DataRefused, error))?;
                Ok(json!({ "rows": report.rows, "mismatches": report.mismatches }))
            },
        )?;
        self.run.figures("verify", &verified, "");
        Ok(verified)
    }

    fn train(&self, key: &str, card: &DatasetCard) -> NightResult<TrainedVersion> {
        let NightlyArguments { seed, name, search, .. } = self.options;
        let key = format!("{key} seed {seed} {name}{}", search_key(search));
        // The models folder may have been emptied since.
        let is_there = |trained: &TrainedVersion| self.registry.resolve(&trained.version).is_ok();
        let trained = self.once("train", &key, is_there, || {
            let journal = self.run.path.join("search.ndjson");
            let lesson = Lesson { dataset: &self.dataset, name, seed: *seed, search: *search, journal };
            let mut trained = train::train_with(&lesson)?;
            self.calibrate(&mut trained.draft, card)?;
            let (version, heads) = train::publish(&self.registry, &trained, self.signing_key.as_ref())?;
            Ok(TrainedVersion { version, metrics: trained.metrics, heads })
        })?;
        self.head_figures(&trained.heads);
        let model = json!({ "name": self.options.name, "version": trained.version, "models": self.models });
        self.run.write_json("model.json", &model)?;
        Ok(trained)
    }

    /// Notes the figures of each head, and of the parts of those that have several.
    fn head_figures(&self, heads: &Value) {
        for (head, metrics) in heads.as_object().into_iter().flatten() {
            self.run.figures("train", metrics, &format!("{head}."));
            for (part, metrics) in metrics.as_object().into_iter().flatten() {
                self.run.figures("train", metrics, &format!("{head}.{part}."));
            }
        }
    }

    /// Looks into the version, for the report; `None` without a world to play in.
    fn analyse(
        &self,
        key: &str,
        trained: &TrainedVersion,
        bundle: &Arc<ModelBundle>,
        end: Option<&EndOfHistory>,
    ) -> NightResult<Option<Analysis>> {
        let Some(end) = end else { return Ok(None) };
        let seeds = seeds(self.options.replicates);
        let key = format!("{key} {} {seeds:?}", trained.version);
        let analyse = || analyse(&self.history, end, Some(bundle), &seeds).map_err(NightFailure::of_stoppable);
        self.once("analyse", &key, |_| true, analyse).map(Some)
    }

    /// Decides the history's last request; a refusal is said and does not end the night.
    fn decide(&self, bundle: &Arc<ModelBundle>, end: Option<&EndOfHistory>) -> Option<ShardPrediction> {
        let runtime = end.map_or_else(Runtime::default, |end| end.world.timing.runtime());
        predict::decide(
            Arc::clone(bundle),
            &self.request_file(),
            &self.fleet_file(),
            runtime,
            StrategiesConfig::default(),
        )
        .inspect_err(|refusal| note(format!("no sample decision: {refusal}")))
        .ok()
    }

    /// Writes the report and composes the result.
    fn conclude(&self, found: &Found) -> NightResult<Done> {
        let Found { card, quality, verified, trained, judged, outcome, prediction, .. } = found;
        let outcome = *outcome;
        let run = &self.run;
        let report = self.report(found)?;
        let policies = judged.as_ref().map_or_else(Vec::new, |judged| table(&judged.closed_loop));
        let peak_memory_mib = output::peak_memory_mib();
        run.figure("report", "peak_memory_mib", peak_memory_mib);
        let RunState { date, key, attempts, .. } = run.state();
        let result = json!({
            "dataset": {
                "rows": card.rows, "candidates_per_decision": card.candidates_per_decision,
                "fingerprint": card.feature_fingerprint, "hash": card.content_hash,
            },
            "quality": quality["checks"],
            "verified": verified,
            "model": { "version": trained.version, "published": outcome.is_live() },
            "heads": trained.heads,
            "closed_loop": policies,
            "verdict": judged.as_ref().map(|judged| &judged.verdict),
            "decision": prediction,
            "report": report,
            "peak_memory_mib": peak_memory_mib,
            "run": {
                "date": date, "key": key, "folder": run.path, "outcome": outcome, "attempts": attempts, "kept": false,
            },
        });
        let summary = summary(quality, judged.as_ref(), outcome, prediction.as_ref(), report.as_deref());
        let champion = self.registry.alias(CHAMPION).into_diagnostic()?;
        run.write_json(
            "model.json",
            &json!({
                "name": self.options.name, "version": trained.version, "models": self.models, "outcome": outcome,
                "champion": champion,
            }),
        )?;
        Ok(Done { result, summary, exit_code: outcome.exit_code() })
    }

    /// What was asked, for `parameters.json`.
    fn parameters(&self) -> Value {
        let NightlyArguments { history, work, name, seed, replicates, keep_runs, quality, search, .. } = self.options;
        json!({
            "date": self.date, "history": history, "work": work, "models": self.models, "name": name, "seed": seed,
            "replicates": replicates, "most_replicates": self.options.most_replicates(), "keep_runs": keep_runs,
            "search": search.search, "search_minutes": search.search_minutes, "limits": quality.limits,
            "accept_drift": quality.accept_drift, "signed": self.signing_key.is_some(),
            "command": self.command(),
        })
    }
}

/// The night's date: the one that was asked for, if the history has it, else its last.
fn date_of(options: &NightlyArguments, history: &History) -> NightResult<String> {
    let (first, last) = match history.days() {
        [only] => (only, only),
        [first, .., last] => (first, last),
        [] => return Err(NightFailure::new(Kind::DataRefused, miette!("the history has no days"))),
    };
    let Some(date) = options.date else { return Ok(last.clone()) };
    let date = date.to_string();
    if history.days().contains(&date) {
        return Ok(date);
    }
    let help = "bring that day, or leave out --date for the night of the last day";
    let path = options.history.display();
    let report = miette!(help = help, "the history at {path} has no day {date}; its days go from {first} to {last}");
    Err(NightFailure::new(Kind::DataRefused, report))
}

/// What a search changes about a night; nothing without one.
fn search_key(SearchArguments { search, search_minutes }: &SearchArguments) -> String {
    search.map_or_else(String::new, |trials| format!(" search {trials} {search_minutes:?}"))
}

/// Names a run by all that decides its outcome but the registry: nights with the same key are the same night.
fn run_key(options: &NightlyArguments, history: &History, to: Timestamp) -> NightResult<String> {
    let sources = history.sources(Some(to))?;
    let sources: Vec<&str> = sources.iter().map(|source| source.blake3.as_str()).collect();
    let world = history.world_json().unwrap_or_default();
    let NightlyArguments { models, name, seed, replicates, search, .. } = options;
    let program = files::this_program();
    let quality = quality::quality_key(&dataset::limits(&options.quality)?, options.quality.accept_drift);
    let replicates = (replicates, options.most_replicates());
    let all = format!(
        "{sources:?} {world} {program:?} {models:?} {name} {seed} {replicates:?} {quality}{}",
        search_key(search)
    );
    Ok(format!("{:016x}", key_of(&all)))
}
