//! `shardwise nightly`: build, verify, train, evaluate, publish when better, decide. Each finished stage is kept with the
//! key of what it was made from, so that a night that was interrupted goes on where it was.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use miette::IntoDiagnostic;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shardwise_datasets::{BuildOptions, DatasetCard, History};
use shardwise_evaluation::{
    ClosedLoop, Contender, DatasetFacts, Evidence, ExecScore, ModelFacts, ReportInput, SampleDecision, SamplePaths,
    Verdict, judge, run as run_closed_loop, write_report,
};
use shardwise_inference::{Placer, PlacerConfig};
use shardwise_models::{AliasMove, CHAMPION, HeadMetrics, ModelBundle, Registry};
use shardwise_policies::sed::SedConfig;
use shardwise_policies::{Runtime, Sed, by_name};
use shardwise_simulator::{Workload, WorldSpec};
use shardwise_types::{FleetSnapshot, HistoryRecord, MarketRecord, PlacementRequest, ShardPrediction, Timestamp};

use super::{dataset, files, predict, train};
use crate::arguments::NightlyArguments;
use crate::output::{self, Stage};

/// Seeds of the closed loop begin here; lower ones are for tuning.
const FIRST_SEED: u64 = 11;
/// Routers learn online through this many times the measured period before it begins, where the history is that long.
const WARM_UP_PERIODS: i64 = 4;
/// Policies that need no model and are judged beside it.
const RIVALS: [&str; 5] = ["random", "p2c_in_flight", "least_in_flight", "sed_tab", "sed_tab_lambda"];

/// What the training stage leaves for the next.
#[derive(Serialize, Deserialize)]
struct TrainedVersion {
    version: String,
    metrics: HeadMetrics,
}

/// What the evaluation leaves for the next; `None` when the history has no world to simulate.
#[derive(Serialize, Deserialize)]
struct Judged {
    closed_loop: ClosedLoop,
    verdict: Verdict,
    champion: Option<String>,
}

pub(crate) fn run(options: &NightlyArguments, json: bool) -> miette::Result<()> {
    let night = Night::new(options)?;
    let card = dataset::build_with(&options.history, &night.dataset, &BuildOptions::default())?;
    output::stop_if_interrupted()?;
    let verified: Value = night.once("verify", &card.content_hash, || {
        let report =
            dataset::verify_with(&options.history, &night.dataset, Some(night.models.as_path()), &options.name)?;
        dataset::no_mismatch(&report)?;
        Ok(json!({ "rows": report.rows, "mismatches": report.mismatches }))
    })?;
    output::stop_if_interrupted()?;
    let trained = night.train(&card)?;
    output::stop_if_interrupted()?;
    let bundle = Arc::new(night.registry.load(&trained.version).into_diagnostic()?);
    let end = night.end_of_history(&card)?;
    let prediction = predict::decide(Arc::clone(&bundle), &night.request_file(), &night.fleet_file())?;
    let judged = night.evaluate(&card, &trained, &bundle, end)?;
    let published = night.publish(&trained, judged.as_ref())?;
    let report = night.report(&card, &trained, judged.as_ref(), published, &prediction)?;
    let result = json!({
        "dataset": {
            "rows": card.rows, "candidates_per_decision": card.candidates_per_decision,
            "fingerprint": card.feature_fingerprint, "hash": card.content_hash,
        },
        "verified": verified,
        "model": { "version": trained.version, "published": published },
        "heads": { "exec": trained.metrics },
        "closed_loop": judged.as_ref().map_or_else(Vec::new, |judged| table(&judged.closed_loop)),
        "decision": prediction,
        "report": report,
        "peak_memory_mib": peak_memory_mib(),
    });
    if json {
        output::print_json(&result)
    } else {
        night.print(judged.as_ref(), published, &prediction, report.as_deref())
    }
}

/// The folders of a night and its registry.
struct Night<'a> {
    options: &'a NightlyArguments,
    dataset: PathBuf,
    models: PathBuf,
    registry: Registry,
}

/// The held-out end of the history, to be played again.
struct EndOfHistory {
    workload: Workload,
    world: WorldSpec,
    /// Share of the workload before the held-out period.
    warm_up: f64,
}

impl<'a> Night<'a> {
    fn new(options: &'a NightlyArguments) -> miette::Result<Self> {
        let models = options.models.clone().unwrap_or_else(|| options.work.join("models"));
        History::open(&options.history).into_diagnostic()?;
        let registry = Registry::open_or_create(&models, &options.name).into_diagnostic()?;
        Ok(Self { options, dataset: options.work.join("dataset"), models, registry })
    }

    fn request_file(&self) -> PathBuf {
        self.options.work.join("decision/request.json")
    }

    fn fleet_file(&self) -> PathBuf {
        self.options.work.join("decision/fleet.json")
    }

    /// The value of a finished stage, when it was made from the same key, else the value that is made now.
    fn once<T: Serialize + DeserializeOwned>(
        &self,
        stage: &str,
        key: &str,
        make: impl FnOnce() -> miette::Result<T>,
    ) -> miette::Result<T> {
        #[derive(Serialize, Deserialize)]
        struct Finished<T> {
            key: String,
            value: T,
        }
        let file = self.options.work.join("stages").join(format!("{stage}.json"));
        let earlier = std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice::<Finished<T>>(&bytes).ok());
        if let Some(finished) = earlier.filter(|finished| finished.key == key) {
            eprintln!("{stage}: kept from the last run");
            return Ok(finished.value);
        }
        let finished = Finished { key: key.to_owned(), value: make()? };
        files::write_json(&file, &finished)?;
        Ok(finished.value)
    }

    fn train(&self, card: &DatasetCard) -> miette::Result<TrainedVersion> {
        let make = || {
            let trained = train::train_with(&self.dataset, &self.options.name, self.options.seed)?;
            let version = self.registry.publish(&trained.draft).into_diagnostic()?;
            Ok(TrainedVersion { version, metrics: trained.metrics })
        };
        let key = format!("{} seed {} {}", card.content_hash, self.options.seed, self.options.name);
        let trained = self.once("train", &key, make)?;
        // The models folder may have been emptied since.
        if self.registry.resolve(&trained.version).is_ok() { Ok(trained) } else { make() }
    }

    /// Reads the end of the history: arrivals for the closed loop, and the last request and fleet for a decision.
    fn end_of_history(&self, card: &DatasetCard) -> miette::Result<Option<EndOfHistory>> {
        let history = History::open(&self.options.history).into_diagnostic()?;
        let test_from = card.splits.test.from;
        let measured_ns = card.to.nanos() - test_from.nanos();
        let from = Timestamp::from_nanos(test_from.nanos() - WARM_UP_PERIODS * measured_ns).max(card.from);
        let (mut decisions, mut market) = (Vec::new(), Vec::<MarketRecord>::new());
        let mut fleet =
            FleetSnapshot::new(Vec::new(), history.network().clone(), history.network().default_region.clone())
                .into_diagnostic()?;
        for record in history.records(Some(from), None).into_diagnostic()? {
            match record.into_diagnostic()? {
                HistoryRecord::Decision(mut decision) => {
                    decision.logged_shards = Vec::new();
                    decision.logged_features = Vec::new();
                    decisions.push(*decision);
                }
                HistoryRecord::Report(report) => fleet.apply_report(&report),
                HistoryRecord::Market(minute) => market.push(minute),
                HistoryRecord::Outcome(_) => {}
            }
        }
        if let Some(last) = decisions.last() {
            fleet.router_region = last.router_region.clone();
            files::write_json(&self.request_file(), &last.request)?;
            files::write_json(&self.fleet_file(), &fleet)?;
        }
        let Some(world) = history.world_json() else { return Ok(None) };
        let world: WorldSpec = serde_json::from_str(world).into_diagnostic()?;
        world.check().into_diagnostic()?;
        let workload = Workload::from_decisions(&world, decisions, market).into_diagnostic()?;
        let span_ns = (workload.end.nanos() - workload.start.nanos()).max(1);
        let warm_up = (test_from.nanos() - workload.start.nanos()).max(0) as f64 / span_ns as f64;
        Ok(Some(EndOfHistory { workload, world, warm_up }))
    }

    /// Plays the held-out end of the history with the model and its rivals. A version that is champion already was
    /// judged when it became so, and is not judged against itself.
    fn evaluate(
        &self,
        card: &DatasetCard,
        trained: &TrainedVersion,
        bundle: &Arc<ModelBundle>,
        end: Option<EndOfHistory>,
    ) -> miette::Result<Option<Judged>> {
        let Some(end) = end else {
            eprintln!("note: the history has no world.json, so there is no closed loop and the model is not promoted");
            return Ok(None);
        };
        let champion = self.registry.alias(CHAMPION).into_diagnostic()?.filter(|champion| *champion != trained.version);
        let against = champion.as_deref().unwrap_or("none");
        let key = format!(
            "{} {} against {against}, {} replicates",
            card.content_hash, trained.version, self.options.replicates
        );
        let judged = self.once("evaluate", &key, || {
            let closed_loop = self.closed_loop(bundle, champion.as_deref(), &end)?;
            let verdict = judge(&Evidence {
                closed_loop: &closed_loop,
                candidate_version: &trained.version,
                champion_version: champion.as_deref(),
                exec_rmse: Some(trained.metrics.rmse),
                table_rmse: Some(trained.metrics.table_rmse),
            });
            Ok(Judged { closed_loop, verdict, champion: champion.clone() })
        })?;
        Ok(Some(judged))
    }

    fn closed_loop(
        &self,
        bundle: &Arc<ModelBundle>,
        champion: Option<&str>,
        end: &EndOfHistory,
    ) -> miette::Result<ClosedLoop> {
        let runtime = end.world.timing.runtime();
        let mut contenders = vec![placer("shardwise", Arc::clone(bundle), runtime)];
        if let Some(version) = champion {
            let champion = Arc::new(self.registry.load(version).into_diagnostic()?);
            contenders.push(placer(CHAMPION, champion, runtime));
        }
        let table = bundle.service_table();
        contenders.push(Contender::new("sed_off_lambda", move || Box::new(Sed::offline(Arc::clone(&table), runtime))));
        contenders.extend(
            RIVALS.map(|name| Contender::new(name, move || by_name(name, runtime).expect("rivals are known policies"))),
        );
        let seeds: Vec<u64> = (FIRST_SEED..FIRST_SEED + self.options.replicates).collect();
        let stage = Stage::start(format!(
            "closed loop: {} policies × {} seeds × {} requests",
            contenders.len(),
            seeds.len(),
            end.workload.arrivals.len()
        ));
        let progress = |policy: &str, done: usize, all: usize| eprintln!("  {policy}: {done} of {all} runs");
        let paths = SamplePaths { world: &end.world, workload: &end.workload, warm_up: end.warm_up, seeds: &seeds };
        let closed_loop =
            run_closed_loop(&paths, &contenders, &progress, output::interrupt_flag()).into_diagnostic()?;
        stage.done("all on the same sample paths");
        Ok(closed_loop)
    }

    /// Moves the champion alias when the verdict allows; returns whether this version is the champion now.
    fn publish(&self, trained: &TrainedVersion, judged: Option<&Judged>) -> miette::Result<bool> {
        let champion = self.registry.alias(CHAMPION).into_diagnostic()?;
        if champion.as_deref() == Some(trained.version.as_str()) {
            return Ok(true);
        }
        let Some(judged) = judged.filter(|judged| judged.verdict.may_go_live) else { return Ok(false) };
        let why: Vec<String> = judged.verdict.reasons.iter().map(ToString::to_string).collect();
        let by = AliasMove {
            at: output::wall_clock(),
            who: "nightly".to_owned(),
            why: why.join(" "),
            metrics: json!({ "exec": trained.metrics, "closed_loop": table(&judged.closed_loop) }),
        };
        self.registry.set_alias(CHAMPION, &trained.version, by).into_diagnostic()
    }

    fn report(
        &self,
        card: &DatasetCard,
        trained: &TrainedVersion,
        judged: Option<&Judged>,
        published: bool,
        prediction: &ShardPrediction,
    ) -> miette::Result<Option<PathBuf>> {
        let Some(judged) = judged else { return Ok(None) };
        let request = PlacementRequest::from_json(&files::read(&self.request_file())?).into_diagnostic()?;
        let input = ReportInput {
            title: format!("shardwise · {} · {}", self.options.name, trained.version),
            command: self.command(),
            dataset: dataset_facts(card, &self.options.history),
            model: model_facts(&self.options.name, trained, judged, published),
            closed_loop: judged.closed_loop.clone(),
            verdict: judged.verdict.clone(),
            decision: Some(SampleDecision::new(&request, prediction)),
            notes: notes(),
        };
        let paths = write_report(&self.options.work.join("report"), &input).into_diagnostic()?;
        Ok(Some(paths.html))
    }

    fn command(&self) -> String {
        let path = |path: &Path| path.display().to_string();
        format!(
            "shardwise nightly --history {} --work {} --name {} --seed {} --replicates {}",
            path(&self.options.history),
            path(&self.options.work),
            self.options.name,
            self.options.seed,
            self.options.replicates
        )
    }

    fn print(
        &self,
        judged: Option<&Judged>,
        published: bool,
        prediction: &ShardPrediction,
        report: Option<&Path>,
    ) -> miette::Result<()> {
        if let Some(judged) = judged {
            println!("{:<18}{:>10}{:>10}{:>11}", "policy", "mean ms", "p99 ms", "SLO missed");
            for policy in &judged.closed_loop.policies {
                let figures = &policy.pooled;
                println!(
                    "{:<18}{:>10.1}{:>10.1}{:>10.2}%",
                    policy.name,
                    figures.mean_ms,
                    figures.p99_ms,
                    figures.slo_miss * 100.0
                );
            }
            for reason in &judged.verdict.reasons {
                println!("{} {reason}", if reason.holds { "✓" } else { "✗" });
            }
        }
        println!("{}\n", if published { "The model is live (champion)." } else { "The model is not live." });
        predict::print(prediction);
        if let Some(report) = report {
            println!("\nreport: {}", report.display());
        }
        Ok(())
    }
}

fn placer(name: &str, bundle: Arc<ModelBundle>, runtime: Runtime) -> Contender {
    let config = PlacerConfig { cost: SedConfig { runtime, ..SedConfig::default() }, ..PlacerConfig::default() };
    Contender::new(name, move || Box::new(Placer::with_model(Arc::clone(&bundle)).with_config(config)))
}

fn table(closed_loop: &ClosedLoop) -> Vec<Value> {
    let row = |policy: &shardwise_evaluation::PolicyResult| {
        json!({
            "policy": policy.name, "mean_ms": policy.pooled.mean_ms, "p99_ms": policy.pooled.p99_ms,
            "slo_miss": policy.pooled.slo_miss, "error_rate": policy.pooled.error_rate, "core_use": policy.pooled.core_use,
        })
    };
    closed_loop.policies.iter().map(row).collect()
}

fn dataset_facts(card: &DatasetCard, history: &Path) -> DatasetFacts {
    DatasetFacts {
        id: card.id.clone(),
        source: history.display().to_string(),
        rows: card.rows,
        earlier_rows: card.splits.train.rows,
        later_rows: card.splits.test.rows,
        from_utc: card.from.to_string(),
        to_utc: card.to.to_string(),
        features: card.feature_names.len() as u64,
        feature_fingerprint: card.feature_fingerprint.clone(),
        hash: card.content_hash.clone(),
    }
}

fn model_facts(name: &str, trained: &TrainedVersion, judged: &Judged, published: bool) -> ModelFacts {
    let metrics = &trained.metrics;
    let score = |predictor: &str, rmse: f64, r2: Option<f64>| ExecScore { predictor: predictor.to_owned(), rmse, r2 };
    ModelFacts {
        name: name.to_owned(),
        version: trained.version.clone(),
        published,
        champion_version: judged.champion.clone(),
        exec: Some(score("boosted trees on the service table", metrics.rmse, Some(metrics.r2))),
        table: Some(score("service table alone", metrics.table_rmse, None)),
        others: vec![
            score("elastic net", metrics.elastic_net_rmse, None),
            score("random forest", metrics.forest_rmse, None),
        ],
    }
}

fn notes() -> Vec<String> {
    vec![
        "The closed loop plays the history's held-out arrivals in the simulated world that the history names; service noise, neighbours and faults are drawn anew per seed and are the same for all policies.".to_owned(),
        "Routers learn online through the traffic before the held-out period, and only that period is measured.".to_owned(),
        "Confidence is not calibrated yet: it takes the spread of a single execution for the doubt about its mean, and so errs on the low side.".to_owned(),
    ]
}

/// The most memory that this process held so far; `None` where the system does not say.
fn peak_memory_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib / 1024)
}
