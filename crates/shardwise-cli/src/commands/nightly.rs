//! `shardwise nightly`: build, verify, train, evaluate, publish when better, decide. Each finished stage is kept with the
//! key of what it was made from, so that a night that was interrupted goes on where it was.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use miette::{IntoDiagnostic, miette};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shardwise_datasets::{BuildOptions, DatasetCard, History};
use shardwise_evaluation::{
    CANDIDATE, CHAMPION as CHAMPION_ROW, ClosedLoop, Contender, DatasetFacts, Evidence, ExecScore, ModelFacts,
    ReportInput, SampleDecision, SamplePaths, ShadowTest, Verdict, judge, run as run_closed_loop, write_report,
};
use shardwise_inference::{Placer, PlacerConfig};
use shardwise_models::{
    AliasMove, BundleError, CHAMPION, HeadMetrics, ModelBundle, Registry, RegistryError, SigningKey,
};
use shardwise_policies::sed::SedConfig;
use shardwise_policies::{Runtime, Sed, StrategiesConfig, by_name};
use shardwise_simulator::{Workload, WorldSpec};
use shardwise_types::{
    FleetSnapshot, HistoryRecord, MarketRecord, PlacementRequest, ShardPrediction, Timestamp, key_of,
};

use super::shadowed::shadow_test;
use super::{dataset, files, keys, predict, train};
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
    shadow: Option<ShadowTest>,
    verdict: Verdict,
    champion: Option<String>,
}

pub(crate) fn run(options: &NightlyArguments, json: bool) -> miette::Result<()> {
    let history = History::open(&options.history).into_diagnostic()?;
    let night = Night::new(options, history)?;
    let card = dataset::build_with(&options.history, &night.dataset, &BuildOptions::default())?;
    output::stop_if_interrupted()?;
    let key = night.key(&card);
    let verified: Value = night.once("verify", &key, |_| true, || night.verify())?;
    output::stop_if_interrupted()?;
    let trained = night.train(&key)?;
    output::stop_if_interrupted()?;
    let bundle = Arc::new(night.registry.load(&trained.version).into_diagnostic()?);
    let end = night.end_of_history(&card)?;
    let prediction = night.decide(&bundle, end.as_ref());
    let judged = night.evaluate(&key, &trained, &bundle, end)?;
    let published = night.publish(&trained, judged.as_ref())?;
    let report = night.report(&card, &trained, judged.as_ref(), published, prediction.as_ref())?;
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
        "peak_memory_mib": output::peak_memory_mib(),
    });
    if json {
        output::print_json(&result)
    } else {
        print(judged.as_ref(), published, prediction.as_ref(), report.as_deref());
        Ok(())
    }
}

/// The folders of a night and its registry.
struct Night<'a> {
    options: &'a NightlyArguments,
    history: History,
    dataset: PathBuf,
    models: PathBuf,
    registry: Registry,
    signing_key: Option<SigningKey>,
}

/// The held-out end of the history, to be played again.
struct EndOfHistory {
    workload: Workload,
    world: WorldSpec,
    /// Share of the workload before the held-out period.
    warm_up: f64,
}

impl<'a> Night<'a> {
    fn new(options: &'a NightlyArguments, history: History) -> miette::Result<Self> {
        let models = options.models.clone().unwrap_or_else(|| options.work.join("models"));
        let registry = Registry::open_or_create(&models, &options.name).into_diagnostic()?;
        let signing_key = keys::signing_key(&options.signing)?;
        Ok(Self { options, history, dataset: options.work.join("dataset"), models, registry, signing_key })
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
        make: impl FnOnce() -> miette::Result<T>,
    ) -> miette::Result<T> {
        #[derive(Serialize, Deserialize)]
        struct Finished<T> {
            key: String,
            value: T,
        }
        let file = self.options.work.join("stages").join(format!("{stage}.json"));
        let earlier = std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice::<Finished<T>>(&bytes).ok());
        if let Some(finished) = earlier.filter(|finished| finished.key == key && serves(&finished.value)) {
            eprintln!("{stage}: kept from the last run");
            return Ok(finished.value);
        }
        let finished = Finished { key: key.to_owned(), value: make()? };
        files::write_json(&file, &finished)?;
        Ok(finished.value)
    }

    fn verify(&self) -> miette::Result<Value> {
        let report = dataset::verify_with(&self.options.history, &self.dataset, Some(&self.registry))?;
        dataset::no_mismatch(&report)?;
        Ok(json!({ "rows": report.rows, "mismatches": report.mismatches }))
    }

    fn train(&self, key: &str) -> miette::Result<TrainedVersion> {
        let key = format!("{key} seed {} {}", self.options.seed, self.options.name);
        // The models folder may have been emptied since.
        let is_there = |trained: &TrainedVersion| self.registry.resolve(&trained.version).is_ok();
        self.once("train", &key, is_there, || {
            let trained = train::train_with(&self.dataset, &self.options.name, self.options.seed)?;
            let version = train::publish(&self.registry, &trained, self.signing_key.as_ref())?;
            Ok(TrainedVersion { version, metrics: trained.metrics })
        })
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
        .inspect_err(|refusal| eprintln!("note: no sample decision: {refusal}"))
        .ok()
    }

    /// Reads the end of the history: arrivals for the closed loop, and the last request and fleet for a decision.
    fn end_of_history(&self, card: &DatasetCard) -> miette::Result<Option<EndOfHistory>> {
        let test_from = card.splits.test.from;
        let measured_ns = card.to.nanos() - test_from.nanos();
        let from = Timestamp::from_nanos(test_from.nanos() - WARM_UP_PERIODS * measured_ns).max(card.from);
        let (mut decisions, mut market, mut reports) = (Vec::new(), Vec::<MarketRecord>::new(), Vec::new());
        let network = self.history.network();
        let mut fleet =
            FleetSnapshot::new(Vec::new(), network.clone(), network.default_region.clone()).into_diagnostic()?;
        for record in self.history.records(Some(from), None).into_diagnostic()? {
            match record.into_diagnostic()? {
                HistoryRecord::Decision(mut decision) => {
                    // The fleet is kept as the last decision saw it.
                    reports.drain(..).for_each(|report| fleet.apply_report(&report));
                    fleet.router_region.clone_from(&decision.router_region);
                    (decision.logged_shards, decision.logged_features) = (Vec::new(), Vec::new());
                    decisions.push(*decision);
                }
                HistoryRecord::Report(report) => reports.push(*report),
                HistoryRecord::Market(minute) => market.push(minute),
                HistoryRecord::Outcome(_) | HistoryRecord::Shadow(_) => {}
            }
        }
        if let Some(last) = decisions.last() {
            files::write_json(&self.request_file(), &last.request)?;
            files::write_json(&self.fleet_file(), &fleet)?;
        }
        let Some(world) = self.history.world_json() else { return Ok(None) };
        let world: WorldSpec = serde_json::from_str(world).into_diagnostic()?;
        world.check().into_diagnostic()?;
        let workload = Workload::from_decisions(&world, decisions, market, card.from).into_diagnostic()?;
        let span_ns = (workload.end.nanos() - workload.start.nanos()).max(1);
        let warm_up = (test_from.nanos() - workload.start.nanos()).max(0) as f64 / span_ns as f64;
        Ok(Some(EndOfHistory { workload, world, warm_up }))
    }

    /// Plays the held-out end of the history with the model and its rivals. A version that is champion already was
    /// judged when it became so, and that judgement stands.
    fn evaluate(
        &self,
        key: &str,
        trained: &TrainedVersion,
        bundle: &Arc<ModelBundle>,
        end: Option<EndOfHistory>,
    ) -> miette::Result<Option<Judged>> {
        let Some(end) = end else {
            eprintln!("note: the history has no world.json, so there is no closed loop and the model is not promoted");
            return Ok(None);
        };
        let alias = self.registry.alias(CHAMPION).into_diagnostic()?;
        let is_champion = alias.as_deref() == Some(trained.version.as_str());
        let champion = if is_champion { None } else { self.champion()? };
        let against = champion.as_ref().map(|champion| champion.version().to_owned());
        let key = format!("{key} {}, {} replicates", trained.version, self.options.replicates);
        let still_stands = |judged: &Judged| is_champion || judged.champion == against;
        let judged = self.once("evaluate", &key, still_stands, || {
            let closed_loop = self.closed_loop(bundle, champion.clone(), &end)?;
            output::stop_if_interrupted()?;
            // The champion has nobody to watch.
            let shadow = (!is_champion).then(|| self.shadow(bundle, champion.as_ref(), &end)).transpose()?;
            let verdict = judge(&Evidence {
                closed_loop: &closed_loop,
                shadow: shadow.as_ref(),
                candidate_version: &trained.version,
                champion_version: if is_champion { alias.as_deref() } else { against.as_deref() },
                exec_rmse: Some(trained.metrics.rmse),
                table_rmse: Some(trained.metrics.table_rmse),
            });
            Ok(Judged { closed_loop, shadow, verdict, champion: against.clone() })
        })?;
        Ok(Some(judged))
    }

    /// The present champion; `None` when there is none, or when it was made for other features, so that no router of this
    /// version could serve it.
    fn champion(&self) -> miette::Result<Option<Arc<ModelBundle>>> {
        match self.registry.load(CHAMPION) {
            Ok(champion) => Ok(Some(Arc::new(champion))),
            Err(RegistryError::NoSuchAlias { .. }) => Ok(None),
            Err(RegistryError::Bundle(error @ BundleError::Fingerprint { .. })) => {
                eprintln!("note: the champion is left out: {error}");
                Ok(None)
            }
            Err(error) => Err(error).into_diagnostic(),
        }
    }

    fn closed_loop(
        &self,
        bundle: &Arc<ModelBundle>,
        champion: Option<Arc<ModelBundle>>,
        end: &EndOfHistory,
    ) -> miette::Result<ClosedLoop> {
        let runtime = end.world.timing.runtime();
        let mut contenders = vec![placer(CANDIDATE, Arc::clone(bundle), runtime)];
        contenders.extend(champion.map(|champion| placer(CHAMPION_ROW, champion, runtime)));
        let table = bundle.service_table();
        contenders.push(Contender::new("sed_off_lambda", move || Box::new(Sed::offline(Arc::clone(&table), runtime))));
        contenders.extend(
            RIVALS.map(|name| Contender::new(name, move || by_name(name, runtime).expect("rivals are known policies"))),
        );
        let seeds = self.seeds();
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

    fn seeds(&self) -> Vec<u64> {
        (FIRST_SEED..FIRST_SEED + self.options.replicates).collect()
    }

    /// Lets the model watch the champion decide, or its own service table where there is none.
    fn shadow(
        &self,
        bundle: &Arc<ModelBundle>,
        champion: Option<&Arc<ModelBundle>>,
        end: &EndOfHistory,
    ) -> miette::Result<ShadowTest> {
        let stage = Stage::start("watching decisions beside what serves".to_owned());
        let seeds = self.seeds();
        let paths = SamplePaths { world: &end.world, workload: &end.workload, warm_up: end.warm_up, seeds: &seeds };
        let live = champion.map_or_else(|| Arc::new(bundle.with_exec(None)), Arc::clone);
        let test = shadow_test(&paths, &live, bundle, placer_config(end.world.timing.runtime()))?;
        stage.done(format!("{} executions foretold by both", test.compared));
        Ok(test)
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
        // Who rolled back or promoted during the night knew more.
        if judged.champion.is_some() && judged.champion != champion {
            return Err(miette!(
                help = "run the same command again to judge against the present one",
                "the champion was changed while this version was judged"
            ));
        }
        self.registry.set_alias_if(CHAMPION, &trained.version, champion.as_deref(), &by).into_diagnostic()
    }

    fn report(
        &self,
        card: &DatasetCard,
        trained: &TrainedVersion,
        judged: Option<&Judged>,
        published: bool,
        prediction: Option<&ShardPrediction>,
    ) -> miette::Result<Option<PathBuf>> {
        let Some(judged) = judged else { return Ok(None) };
        let request = PlacementRequest::from_json(&files::read(&self.request_file())?).into_diagnostic()?;
        let input = ReportInput {
            title: format!("shardwise · {} · {}", self.options.name, trained.version),
            command: self.command(),
            dataset: dataset_facts(card, &trained.metrics, &self.options.history),
            model: model_facts(&self.options.name, trained, judged, published),
            closed_loop: judged.closed_loop.clone(),
            verdict: judged.verdict.clone(),
            decision: prediction.map(|prediction| SampleDecision::new(&request, prediction)),
            notes: notes(),
        };
        let paths = write_report(&self.options.work.join("report"), &input).into_diagnostic()?;
        Ok(Some(paths.html))
    }

    fn command(&self) -> String {
        let Self { options, models, .. } = self;
        let (history, work, models) = (options.history.display(), options.work.display(), models.display());
        let NightlyArguments { name, seed, replicates, .. } = options;
        format!(
            "shardwise nightly --history {history} --work {work} --models {models} --name {name} --seed {seed} \
             --replicates {replicates}"
        )
    }
}

fn print(judged: Option<&Judged>, published: bool, prediction: Option<&ShardPrediction>, report: Option<&Path>) {
    if let Some(judged) = judged {
        println!("{:<18}{:>10}{:>10}{:>11}", "policy", "mean ms", "p99 ms", "SLO missed");
        for policy in &judged.closed_loop.policies {
            let (mean_ms, p99_ms) = (policy.pooled.mean_ms, policy.pooled.p99_ms);
            println!("{:<18}{mean_ms:>10.1}{p99_ms:>10.1}{:>10.2}%", policy.name, policy.pooled.slo_miss * 100.0);
        }
        for reason in &judged.verdict.reasons {
            println!("{} {reason}", if reason.holds { "✓" } else { "✗" });
        }
    }
    println!("{}\n", if published { "The model is live (champion)." } else { "The model is not live." });
    prediction.into_iter().for_each(predict::print);
    if let Some(report) = report {
        println!("\nreport: {}", report.display());
    }
}

fn placer_config(runtime: Runtime) -> PlacerConfig {
    PlacerConfig { cost: SedConfig { runtime, ..SedConfig::default() }, ..PlacerConfig::default() }
}

pub(crate) fn placer(name: &str, bundle: Arc<ModelBundle>, runtime: Runtime) -> Contender {
    let config = placer_config(runtime);
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
        others: [
            ("elastic net on 20,000 rows", metrics.elastic_net_rmse),
            ("random forest on 20,000 rows", metrics.forest_rmse),
        ]
        .into_iter()
        .filter_map(|(name, rmse)| Some(score(name, rmse?, None)))
        .collect(),
    }
}

fn notes() -> Vec<String> {
    vec![
        "The closed loop plays the history's held-out arrivals in the simulated world that the history names; service noise, failures and neighbours are drawn anew per seed and are the same for all policies; traced slowness of machines goes on as it was.".to_owned(),
        "Routers learn online through the traffic before the held-out period, and only that period is measured.".to_owned(),
        "Confidence is not calibrated yet: it takes the spread of a single execution for the doubt about its mean, and so errs on the low side.".to_owned(),
    ]
}
