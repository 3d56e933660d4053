//! Carrying a plan out: one step at a time, by agreement of all, each held against what was before it, and taken back when
//! what it was made for does not appear.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use miette::{IntoDiagnostic, miette};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shardwise_control::commands::Changed;
use shardwise_control::{Configuration, Entry, Outcome};
use shardwise_planner::{Action, Effect, EffectReport, Observed, judge_effect};
use shardwise_types::{FunctionId, ShardId, Timestamp};

use crate::arguments::PlanArguments;
use crate::commands::configuration::{ask_at, held};
use crate::commands::files;
use crate::output::{self, Stage};

/// Between two looks at how long is left, in seconds.
const LOOK_S: f64 = 0.25;
/// A step that cannot be judged is watched so many times as long before it is given up.
const PATIENCE: f64 = 3.0;

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Step {
    /// The step.
    action: Action,
    /// Whether it holds now.
    kept: bool,
    /// Why.
    why: String,
    /// The version of the configuration that it made, and the one that took it back.
    versions: Vec<u64>,
    /// What was measured; none when it was never carried out.
    effect: Option<EffectReport>,
}

impl Step {
    fn name(&self) -> String {
        match &self.action {
            Action::MigrateFunction { function_name, from_shard, to_shard, .. } => {
                format!("migrate {function_name}: {from_shard} → {to_shard}")
            }
            Action::ReturnFunction { function_name, shard, .. } => format!("let {function_name} back to {shard}"),
            Action::KeepWarm { function_name, shard, .. } => format!("keep {function_name} warm on {shard}"),
            Action::LetCool { function_name, shard, .. } => format!("let {function_name} cool on {shard}"),
            Action::JoinShards { group, count, .. } => format!("{count} more shards for {group}"),
            Action::DrainShards { group, .. } => format!("drain shards of {group}"),
        }
    }

    pub(super) fn row(&self) -> [String; 3] {
        [self.name(), if self.kept { "kept" } else { "not kept" }.to_owned(), self.why.clone()]
    }

    pub(super) fn line(&self) -> String {
        let [name, outcome, why] = self.row();
        format!("{name}: {outcome}; {why}")
    }
}

/// The router that coordinates the fleet.
struct Fleet<'a> {
    server: &'a str,
    options: &'a PlanArguments,
}

/// Carries out the first steps of a plan.
pub(super) fn apply(server: &str, options: &PlanArguments, plan: &Value) -> miette::Result<Vec<Step>> {
    if !(options.watch_s >= 1.0 && options.watch_s <= 3_600.0) {
        return Err(miette!("--watch-s {} is out of range; it must lie between 1 and 3600", options.watch_s));
    }
    let saved: Option<Value> = options.steps_from.as_deref().map(files::read_json).transpose()?;
    let actions = actions_of(saved.as_ref().unwrap_or(plan))?;
    let fleet = Fleet { server, options };
    let mut done = Vec::new();
    for action in actions.into_iter().take(options.most_steps) {
        done.push(fleet.step(action)?);
        output::stop_if_interrupted()?;
    }
    Ok(done)
}

/// The steps of a plan of any kind, as `--json` prints it.
fn actions_of(plan: &Value) -> miette::Result<Vec<Action>> {
    let of = |plan: &Value| -> miette::Result<Vec<Action>> {
        match plan.get("actions") {
            Some(actions) => serde_json::from_value(actions.clone()).into_diagnostic(),
            None => Ok(Vec::new()),
        }
    };
    match plan.get("protocols").and_then(Value::as_array) {
        Some(protocols) => Ok(protocols.iter().map(of).collect::<miette::Result<Vec<_>>>()?.concat()),
        None => of(plan),
    }
}

impl Fleet<'_> {
    fn ask(&self, path: &str, body: Option<&Value>) -> miette::Result<(bool, Value)> {
        ask_at(self.server, &self.options.access.files(), path, body)
    }

    fn step(&self, action: Action) -> miette::Result<Step> {
        let mut step = Step { action, kept: false, why: String::new(), versions: Vec::new(), effect: None };
        let stage = Stage::start(step.name());
        let Configuration { version: before_it, placements, .. } = self.holds()?;
        let next = step.action.carried_out_on(&placements);
        let joining = step.action.joining(&placements);
        if matches!(step.action, Action::JoinShards { .. }) && joining.is_empty() {
            step.why =
                "no shard stands by, drained; start some (`shardwise shard`): they join by their reports".to_owned();
            stage.done(step.why.clone());
            return Ok(step);
        }
        if next == placements {
            step.why = "it holds already".to_owned();
            step.kept = true;
            stage.done(step.why.clone());
            return Ok(step);
        }
        // Shards that join are held against the others of the same time.
        let before = match joining.is_empty() {
            true => self.watched(self.options.watch_s, &step.action)?,
            false => Observed::default(),
        };
        let body = json!({ "placements": next, "change": self.who(&step) });
        let (withdrawn, entry) = self.ask("config/placements", Some(&body))?;
        let Changed(entry): Changed = serde_json::from_value(entry).into_diagnostic()?;
        if withdrawn || entry.outcome != Outcome::Committed {
            step.why = format!("withdrawn, nothing has changed: {}", entry.reasons.join("; "));
            stage.done(step.why.clone());
            return Ok(step);
        }
        step.versions.push(entry.change.version);
        wait_until(entry.change.effective_at)?;
        self.judge(&mut step, before, &joining)?;
        if let Action::JoinShards { count, .. } = step.action
            && (joining.len() as u64) < u64::from(count)
        {
            step.why += &format!("; {} of {count} stood by, start the others (`shardwise shard`)", joining.len());
        }
        if !step.kept {
            self.take_back(&mut step, before_it, &entry)?;
        }
        stage.done(format!("{}; {}", if step.kept { "kept" } else { "taken back" }, step.why));
        Ok(step)
    }

    /// Watches until there is something to say, or there has been time enough.
    fn judge(&self, step: &mut Step, before: Observed, joining: &[ShardId]) -> miette::Result<()> {
        let start = self.totals()?;
        let mut watched_s = 0.0;
        loop {
            sleep(self.options.watch_s)?;
            watched_s += self.options.watch_s;
            let now = self.totals()?;
            let (before, after) = match joining {
                [] => (before, now.of(&step.action).without(&start.of(&step.action))),
                _ => {
                    let [[joined, others], [joined_before, others_before]] = [&now, &start].map(|it| it.apart(joining));
                    (others.without(&others_before), joined.without(&joined_before))
                }
            };
            let report = judge_effect(&step.action, &before, &after);
            let is_over = watched_s >= PATIENCE * self.options.watch_s;
            if report.effect != Effect::Unclear || is_over {
                step.kept = report.effect == Effect::Seen;
                step.why = in_words(&report, watched_s, if joining.is_empty() { "before" } else { "elsewhere" });
                step.effect = Some(report);
                return Ok(());
            }
        }
    }

    fn take_back(&self, step: &mut Step, to: u64, entry: &Entry) -> miette::Result<()> {
        let why = format!("taking back version {}: {}", entry.change.version, step.why);
        let change = json!({ "author": author(), "why": why, "without": self.options.without });
        let (withdrawn, entry) = self.ask("config/rollback", Some(&json!({ "to": to, "change": change })))?;
        let Changed(entry): Changed = serde_json::from_value(entry).into_diagnostic()?;
        if withdrawn {
            let help = format!("try `shardwise config rollback --to {to} --why …`");
            return Err(miette!(
                help = help,
                "a step did not help and could not be taken back: {}",
                entry.reasons.join("; ")
            ));
        }
        step.versions.push(entry.change.version);
        wait_until(entry.change.effective_at)
    }

    /// What the function of a step, or the fleet, goes through in so many seconds.
    fn watched(&self, seconds: f64, action: &Action) -> miette::Result<Observed> {
        let start = self.totals()?;
        sleep(seconds)?;
        Ok(self.totals()?.of(action).without(&start.of(action)))
    }

    fn totals(&self) -> miette::Result<Totals> {
        serde_json::from_value(self.ask("totals", None)?.1).into_diagnostic()
    }

    fn holds(&self) -> miette::Result<Configuration> {
        held(self.server, &self.options.access.files(), "--live")
    }

    fn who(&self, step: &Step) -> Value {
        json!({ "author": author(), "why": format!("plan: {}", step.action.reason()), "without": self.options.without })
    }
}

fn author() -> String {
    std::env::var("USER").unwrap_or_else(|_| "shardwise plan".to_owned())
}

/// All that a router was answered.
#[derive(Deserialize)]
struct Totals {
    functions: BTreeMap<FunctionId, Observed>,
    shards: BTreeMap<ShardId, Observed>,
}

impl Totals {
    /// Of a step's function; of a step that concerns whole shards, all there is.
    fn of(&self, action: &Action) -> Observed {
        match action {
            Action::MigrateFunction { function_name, .. }
            | Action::ReturnFunction { function_name, .. }
            | Action::KeepWarm { function_name, .. }
            | Action::LetCool { function_name, .. } => self.functions.get(function_name).copied().unwrap_or_default(),
            Action::JoinShards { .. } | Action::DrainShards { .. } => sum(self.functions.values()),
        }
    }

    /// On some shards, and on all others.
    fn apart(&self, shards: &[ShardId]) -> [Observed; 2] {
        let of = |wanted: bool| {
            let wanted = self.shards.iter().filter(move |(shard, _)| shards.contains(shard) == wanted);
            sum(wanted.map(|(_, seen)| seen))
        };
        [of(true), of(false)]
    }
}

fn sum<'a>(all: impl Iterator<Item = &'a Observed>) -> Observed {
    all.fold(Observed::default(), |mut sum, seen| {
        sum.merge(seen);
        sum
    })
}

/// `than` is what it is held against: before, or elsewhere.
fn in_words(report: &EffectReport, watched_s: f64, than: &str) -> String {
    let latency = match report.latency_ratio {
        Some([ratio, low, high]) => format!("latency {ratio:.2} [{low:.2}, {high:.2}] times that {than}"),
        None => format!("too few successes to hold latency against that {than}"),
    };
    let [before, after] = report.requests;
    let said = match report.effect {
        Effect::Seen => "the effect is there",
        Effect::Harm => "it does harm",
        Effect::Unclear => "its effect does not appear",
    };
    format!(
        "{said}: {latency}, failures {:.1} % instead of {:.1} %, cold {:.1} % \
         instead of {:.1} %, {after:.0} requests in {watched_s:.0} s, {before:.0} {than}",
        100.0 * report.errors[1],
        100.0 * report.errors[0],
        100.0 * report.cold[1],
        100.0 * report.cold[0]
    )
}

fn wait_until(at: Timestamp) -> miette::Result<()> {
    sleep((at.millis_since(output::wall_clock()) / 1e3).clamp(0.0, 60.0))
}

/// Sleeps, and wakes when it is interrupted.
fn sleep(seconds: f64) -> miette::Result<()> {
    let mut left = seconds;
    while left > 0.0 {
        output::stop_if_interrupted()?;
        thread::sleep(Duration::from_secs_f64(left.min(LOOK_S)));
        left -= LOOK_S;
    }
    Ok(())
}
