//! `shardwise evaluate ope`: what a target policy would have cost, from what a policy that explores has logged.

use std::sync::Arc;

use miette::{IntoDiagnostic, miette};
use serde_json::json;
use shardwise_datasets::{History, Replay};
use shardwise_evaluation::ope::{
    CostModel, Limits, LogReader, Logs, OffPolicy, OpeOptions, Shift, Support, off_policy,
};
use shardwise_models::{CHAMPION, Registry};
use shardwise_policies::{NAMES, Policy, Runtime, by_name};
use shardwise_simulator::WorldSpec;
use shardwise_training::{TrainingError, fit_cost_model};
use shardwise_types::{HistoryRecord, Timestamp};

use crate::arguments::EvaluateOpeArguments;
use crate::commands::history::in_range;
use crate::commands::placers::placer;
use crate::output::{self, Stage};

/// Logged decisions that are looked at, about.
const MOST_LOGGED: u64 = 40_000;
/// Shares of a history's time before the measured part: a model may have learned from as much, as in datasets; without one
/// routers only begin to know their shards.
const SKIP_WITH_MODEL: f64 = 0.8;
const SKIP_WITH_POLICY: f64 = 0.1;
/// Seed of the models of costs.
const SEED: u64 = 1;

/// Trees of `shardwise-training`.
struct Trees(shardwise_training::CostModel);

impl CostModel for Trees {
    fn predict_rows(&self, rows: &[f32], out: &mut [f64]) {
        self.0.predict_rows(rows, out);
    }
}

/// Whose costs are asked for.
struct Target {
    name: String,
    version: Option<String>,
    policy: Box<dyn Policy>,
    skip: f64,
}

/// The measured part of a history, and how many decisions there are to one that is looked at.
struct Measured {
    from: Timestamp,
    every: u64,
}

pub(crate) fn run(options: &EvaluateOpeArguments, json: bool) -> miette::Result<()> {
    let history = History::open(&options.history).into_diagnostic()?;
    let runtime = runtime_of(&history)?;
    let target = Target::find(options, runtime)?;
    in_range("--skip", target.skip, 0.0, 0.99)?;
    let measured = Measured::find(&history, target.skip)?;
    let (name, version) = (target.name, target.version);
    let reader = LogReader::new(target.policy, runtime.timeout_ms, measured.from, measured.every);
    let stage = Stage::start(format!("asking {name} in each logged state"));
    let logs = read(&history, reader)?;
    stage.done(format!("{} decisions", logs.counts().decisions));
    output::stop_if_interrupted()?;
    let stage = Stage::start("fitting what placements cost".to_owned());
    let fit = &mut |rows: &[f32], costs: &[f64]| -> Result<Trees, TrainingError> {
        fit_cost_model(rows, costs, SEED).map(Trees)
    };
    let found = off_policy(&logs, fit, Limits::default(), &OpeOptions::default()).into_diagnostic()?;
    stage.done(found.validity.to_string());
    if json {
        return output::print_json(&json!({
            "target": name, "version": version, "history": options.history,
            "measured_from": measured.from, "one_in": measured.every, "timeout_ms": runtime.timeout_ms,
            "counts": found.counts, "logged_ms": found.logged_ms,
            "support": found.validity.support, "shift": found.validity.shift, "limits": found.validity.limits,
            "refusals": found.validity.refusals, "estimates": found.estimates,
        }));
    }
    print!("{}", in_words(&name, &found));
    Ok(())
}

impl Target {
    fn find(options: &EvaluateOpeArguments, runtime: Runtime) -> miette::Result<Self> {
        if let Some(name) = &options.policy {
            let policy = by_name(name, runtime).ok_or_else(|| {
                let help = format!("choose one of {}", NAMES.join(", "));
                miette!(help = help, "there is no policy '{name}' that places without a model")
            })?;
            let skip = options.skip.unwrap_or(SKIP_WITH_POLICY);
            return Ok(Self { name: name.clone(), version: None, policy, skip });
        }
        let models = options.models.as_ref().expect("required without a policy");
        let registry = Registry::open(models, &options.name).into_diagnostic()?;
        let version = registry.resolve(options.version.as_deref().unwrap_or(CHAMPION)).into_diagnostic()?;
        let bundle = Arc::new(registry.load(&version).into_diagnostic()?);
        let placer = placer(Some(&bundle), runtime);
        let skip = options.skip.unwrap_or(SKIP_WITH_MODEL);
        Ok(Self { name: options.name.clone(), version: Some(version), policy: Box::new(placer), skip })
    }
}

impl Measured {
    fn find(history: &History, skip: f64) -> miette::Result<Self> {
        let empty = || miette!(help = "bring a history with decisions", "the history has no decision");
        let (mut first, mut last) = (None, None);
        for record in history.records(None, None).into_diagnostic()? {
            if let HistoryRecord::Decision(decision) = record.into_diagnostic()? {
                first.get_or_insert(decision.known_at);
                last = Some(decision.known_at);
            }
        }
        let (first, last) = (first.ok_or_else(empty)?, last.ok_or_else(empty)?);
        let from = first.plus_millis(skip * last.millis_since(first));
        let decisions = history.row_counts().get("decisions").copied().unwrap_or(0);
        let every = ((1.0 - skip) * decisions as f64 / MOST_LOGGED as f64).ceil().max(1.0) as u64;
        Ok(Self { from, every })
    }
}

/// What the cost needs to know of the runtime: the simulated world's, where the history is of one.
fn runtime_of(history: &History) -> miette::Result<Runtime> {
    let Some(world) = history.world_json() else { return Ok(Runtime::default()) };
    let world: WorldSpec = serde_json::from_str(world).into_diagnostic()?;
    Ok(world.timing.runtime())
}

/// Replays the history and asks the target before each decision.
fn read(history: &History, mut reader: LogReader) -> miette::Result<Logs> {
    let mut replay = Replay::new(history.network().clone());
    replay.set_table(reader.service_table());
    for (number, record) in history.records(None, None).into_diagnostic()?.enumerate() {
        let record = record.into_diagnostic()?;
        match &record {
            HistoryRecord::Decision(decision) => {
                let context = replay.context(decision);
                reader.decided(&context, decision).into_diagnostic()?;
                // A router that knows nothing of a shard cannot have learned anything by it.
                if context.fleet.position(&decision.shard).is_none() {
                    continue;
                }
            }
            HistoryRecord::Outcome(outcome) if replay.is_open(outcome.decision_id) => {
                reader.answered(outcome.decision_id, &outcome.response);
            }
            HistoryRecord::Outcome(_) => continue,
            HistoryRecord::Report(_)
            | HistoryRecord::Market(_)
            | HistoryRecord::Shadow(_)
            | HistoryRecord::Directive(_) => {}
        }
        replay.apply(&record).into_diagnostic()?;
        if number.is_multiple_of(1 << 16) {
            output::stop_if_interrupted()?;
        }
    }
    Ok(reader.finish())
}

fn in_words(name: &str, found: &OffPolicy) -> String {
    let counts = found.counts;
    let mut text = format!(
        "{} decisions: {} settled, {} without an outcome at the end, {} called off, {} that {name} would not place, {} on \
         shards that never reported\n",
        counts.decisions, counts.settled, counts.censored, counts.cancelled, counts.refused, counts.unknown
    );
    let Support { covered, effective_share, largest_weight, .. } = found.validity.support;
    let Shift { utilisation, moved, queueing, .. } = found.validity.shift;
    text += &format!("support {:.1} %, effective sample size {:.1} %, ", 100.0 * covered, 100.0 * effective_share);
    text += &format!("largest weight {largest_weight:.1}\n");
    text += &format!("fleet {:.1} % busy, {:.1} % of the costs were waiting, ", 100.0 * utilisation, 100.0 * queueing);
    text += &format!("{name} moves {:.1} % of the core time\n", 100.0 * moved);
    if let Some(logged_ms) = found.logged_ms {
        text += &format!("logged mean {logged_ms:.2} ms\n");
    }
    match &found.estimates {
        Some(estimates) => {
            text += &format!("{:<12}{:>10}{:>22}\n", "estimator", "mean ms", "95 % interval");
            for estimate in estimates {
                let interval = format!("[{:.2}, {:.2}]", estimate.low_ms, estimate.high_ms);
                text += &format!("{:<12}{:>10.2}{interval:>22}\n", estimate.estimator.name(), estimate.mean_ms);
            }
        }
        None => {
            text += "no estimate:\n";
            found.validity.refusals.iter().for_each(|reason| text += &format!("- {reason}\n"));
        }
    }
    text
}
