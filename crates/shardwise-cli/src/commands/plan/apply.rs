//! Carrying a plan out: one step at a time, by agreement of all, each held against what was before it, and taken back when
//! what it was made for does not appear.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use miette::{IntoDiagnostic, miette};
use serde::Serialize;
use serde_json::{Value, json};
use shardwise_control::commands::Changed;
use shardwise_control::{Configuration, Entry, Outcome};
use shardwise_planner::{Action, Effect, EffectReport, Observed, judge_effect};
use shardwise_types::{FunctionId, Timestamp};

use crate::arguments::PlanArguments;
use crate::commands::configuration::ask_at;
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
        let by_hand = match &step.action {
            Action::JoinShards { .. } => Some("start them (`shardwise shard`): they join by their reports"),
            Action::DrainShards { .. } => Some("they may serve others, too: that is for whoever runs them to say"),
            _ => None,
        };
        if let Some(why) = by_hand {
            step.why = why.to_owned();
            return Ok(step);
        }
        let stage = Stage::start(step.name());
        let Configuration { version: before_it, placements, .. } = self.holds()?;
        let next = step.action.carried_out_on(&placements);
        if next == placements {
            step.why = "it holds already".to_owned();
            step.kept = true;
            stage.done(step.why.clone());
            return Ok(step);
        }
        let before = self.watched(self.options.watch_s, &step.action)?;
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
        self.judge(&mut step, &before)?;
        if !step.kept {
            self.take_back(&mut step, before_it, &entry)?;
        }
        stage.done(format!("{}; {}", if step.kept { "kept" } else { "taken back" }, step.why));
        Ok(step)
    }

    /// Watches until there is something to say, or there has been time enough.
    fn judge(&self, step: &mut Step, before: &Observed) -> miette::Result<()> {
        let start = self.totals()?;
        let mut watched_s = 0.0;
        loop {
            sleep(self.options.watch_s)?;
            watched_s += self.options.watch_s;
            let after = of_action(&step.action, &self.totals()?).without(&of_action(&step.action, &start));
            let report = judge_effect(&step.action, before, &after);
            let is_over = watched_s >= PATIENCE * self.options.watch_s;
            if report.effect != Effect::Unclear || is_over {
                step.kept = report.effect == Effect::Seen;
                step.why = in_words(&report, watched_s);
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
        Ok(of_action(action, &self.totals()?).without(&of_action(action, &start)))
    }

    fn totals(&self) -> miette::Result<BTreeMap<FunctionId, Observed>> {
        let (_, mut answer) = self.ask("totals", None)?;
        serde_json::from_value(answer["functions"].take()).into_diagnostic()
    }

    fn holds(&self) -> miette::Result<Configuration> {
        let (_, mut answer) = self.ask("config", None)?;
        let help = "name the router that coordinates the fleet with --live";
        match answer["coordinator"]["current"].take() {
            Value::Null => Err(miette!(help = help, "{} is not the coordinator of its fleet", self.server)),
            current => serde_json::from_value(current).into_diagnostic(),
        }
    }

    fn who(&self, step: &Step) -> Value {
        json!({ "author": author(), "why": format!("plan: {}", step.action.reason()), "without": self.options.without })
    }
}

fn author() -> String {
    std::env::var("USER").unwrap_or_else(|_| "shardwise plan".to_owned())
}

/// All of a step's function; of a step that concerns whole shards, all there is.
fn of_action(action: &Action, totals: &BTreeMap<FunctionId, Observed>) -> Observed {
    match action {
        Action::MigrateFunction { function_name, .. }
        | Action::ReturnFunction { function_name, .. }
        | Action::KeepWarm { function_name, .. }
        | Action::LetCool { function_name, .. } => totals.get(function_name).copied().unwrap_or_default(),
        Action::JoinShards { .. } | Action::DrainShards { .. } => {
            let mut all = Observed::default();
            totals.values().for_each(|function| all.merge(function));
            all
        }
    }
}

fn in_words(report: &EffectReport, watched_s: f64) -> String {
    let [ratio, low, high] = report.latency_ratio;
    let [before, after] = report.requests;
    let said = match report.effect {
        Effect::Seen => "the effect is there",
        Effect::Harm => "it does harm",
        Effect::Unclear => "its effect does not appear",
    };
    format!(
        "{said}: latency {ratio:.2} [{low:.2}, {high:.2}] times that of before, cold {:.1} % instead of {:.1} %, \
         {after:.0} requests in {watched_s:.0} s, {before:.0} before",
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
