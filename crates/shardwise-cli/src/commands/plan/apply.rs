//! Carrying a plan out: one step at a time, by agreement of all, each held against what was before it, and taken back when
//! what it was made for does not appear.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use miette::{IntoDiagnostic, miette};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shardwise_control::commands::Changed;
use shardwise_control::{Configuration, Entry, Outcome};
use shardwise_planner::{Action, Effect, EffectReport, Observed, judge_effect};
use shardwise_types::{FunctionId, Placements, ShardId, Timestamp};

use crate::arguments::PlanArguments;
use crate::commands::configuration::{ask_at, held};
use crate::output::{self, Stage};

/// Between two looks at how long is left, in seconds.
const LOOK_S: f64 = 0.25;
/// A step that cannot be judged is watched so many times before it is given up.
const LOOKS: u32 = 3;

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Step {
    /// What it consists of: one action, or several of a kind.
    actions: Vec<Action>,
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
        let named = match &self.actions[0] {
            Action::MigrateFunction { function_name, from_shard, to_shard, .. } => {
                format!("migrate {function_name}: {from_shard} → {to_shard}")
            }
            Action::ReturnFunction { function_name, shard, .. } => format!("let {function_name} back to {shard}"),
            Action::KeepWarm { function_name, shard, .. } => format!("keep {function_name} warm on {shard}"),
            Action::LetCool { function_name, shard, .. } => format!("let {function_name} cool on {shard}"),
            Action::JoinShards { group, count, .. } => format!("{count} more shards for {group}"),
            Action::DrainShards { group, .. } => format!("drain shards of {group}"),
        };
        match self.actions.len() {
            1 => named,
            all => format!("{named}, and {} more of the kind", all - 1),
        }
    }

    /// Why, for the audit.
    fn reasons(&self) -> String {
        match self.actions.len() {
            1 => self.actions[0].reason().to_owned(),
            all => format!("{}, and {} more of the kind", self.actions[0].reason(), all - 1),
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
    let fleet = Fleet { server, options };
    let mut done = Vec::new();
    for actions in together(actions_of(plan)?).into_iter().take(options.most_steps) {
        done.push(fleet.step(actions)?);
        output::stop_if_interrupted()?;
    }
    Ok(done)
}

/// Actions that are one step. What is to be warm is asked for so seldom that each function by itself could never be judged: all
/// of a plan are one step, so is what may cool.
fn together(actions: Vec<Action>) -> Vec<Vec<Action>> {
    let mut steps: Vec<Vec<Action>> = Vec::new();
    for action in actions {
        let is_alike = |step: &&mut Vec<Action>| {
            matches!(
                (&step[0], &action),
                (Action::KeepWarm { .. }, Action::KeepWarm { .. }) | (Action::LetCool { .. }, Action::LetCool { .. })
            )
        };
        match steps.iter_mut().find(is_alike) {
            Some(step) => step.push(action),
            None => steps.push(vec![action]),
        }
    }
    steps
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
        // A plan for a spike has no actions when there is none.
        None if plan.get("actions").is_none() && plan.get("elasticities").is_none() => {
            let help = "name what `shardwise plan … --json` or a router's /v1/plans/KIND said";
            Err(miette!(help = help, "that is no plan: it has neither `actions` nor `protocols`"))
        }
        None => of(plan),
    }
}

impl Fleet<'_> {
    fn ask(&self, path: &str, body: Option<&Value>) -> miette::Result<(bool, Value)> {
        ask_at(self.server, &self.options.access.files(), "--live", path, body)
    }

    fn step(&self, actions: Vec<Action>) -> miette::Result<Step> {
        let mut step = Step { actions, kept: false, why: String::new(), versions: Vec::new(), effect: None };
        let stage = Stage::start(step.name());
        if let Some(why) = self.needless(&step, &self.holds()?.placements) {
            (step.kept, step.why) = why;
            stage.done(step.why.clone());
            return Ok(step);
        }
        let before = match &step.actions[0] {
            // They are held against the others of the same time.
            Action::JoinShards { .. } => Observed::default(),
            // As cold as it was all the time, for within minutes it is hardly asked for.
            Action::KeepWarm { .. } => self.totals()?.of(&step.actions),
            _ => self.watched(self.options.watch_s, &step.actions)?,
        };
        // What others have changed meanwhile stays.
        let Configuration { version: from, placements: before_it, .. } = self.holds()?;
        let after_it = step.actions.iter().fold(before_it.clone(), |held, action| action.carried_out_on(&held));
        let joining = step.actions[0].joining(&before_it);
        let why = format!("plan: {}", step.reasons());
        let entry = match self.change(&after_it, from, &why)? {
            Ok(entry) => entry,
            Err(reasons) => {
                step.why = format!("withdrawn, nothing has changed: {reasons}");
                stage.done(step.why.clone());
                return Ok(step);
            }
        };
        step.versions.push(entry.change.version);
        let judged = wait_until(entry.change.effective_at).and_then(|()| self.judge(&mut step, before, &joining));
        if let Err(error) = &judged {
            step.why = format!("it could not be judged: {error}");
        }
        if let Action::JoinShards { count, .. } = step.actions[0]
            && (joining.len() as u64) < u64::from(count)
        {
            step.why += &format!("; {} of {count} stood by, start the others (`shardwise shard`)", joining.len());
        }
        if !step.kept {
            self.take_back(&mut step, &before_it, &after_it)?;
        }
        stage.done(format!("{}; {}", if step.kept { "kept" } else { "taken back" }, step.why));
        judged.map(|()| step)
    }

    /// Why there is nothing to do, if so, and whether that is as the step wants it.
    fn needless(&self, step: &Step, held: &Placements) -> Option<(bool, String)> {
        let is_alone = matches!(step.actions[0], Action::JoinShards { .. }) && step.actions[0].joining(held).is_empty();
        if is_alone {
            let why = "no shard stands by, drained; start some (`shardwise shard`): they join by their reports";
            return Some((false, why.to_owned()));
        }
        let after = step.actions.iter().fold(held.clone(), |held, action| action.carried_out_on(&held));
        (after == *held).then(|| (true, "it holds already".to_owned()))
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
                [] => (before, now.of(&step.actions).without(&start.of(&step.actions))),
                _ => {
                    let [[joined, others], [joined_before, others_before]] = [&now, &start].map(|it| it.apart(joining));
                    (others.without(&others_before), joined.without(&joined_before))
                }
            };
            let report = judge_effect(&step.actions[0], &before, &after, LOOKS);
            let is_over = watched_s >= f64::from(LOOKS) * self.options.watch_s;
            if report.effect != Effect::Unclear || is_over {
                // Where nobody asked any more, nobody was harmed.
                let gives_back = matches!(step.actions[0], Action::LetCool { .. } | Action::ReturnFunction { .. });
                step.kept = report.effect == Effect::Seen || (report.effect == Effect::Unclear && gives_back);
                step.why = in_words(&report, watched_s, if joining.is_empty() { "before" } else { "elsewhere" });
                step.effect = Some(report);
                return Ok(());
            }
        }
    }

    /// Takes back what the step has changed, and nothing that others have.
    fn take_back(&self, step: &mut Step, before_it: &Placements, after_it: &Placements) -> miette::Result<()> {
        let Configuration { version: from, placements, .. } = self.holds()?;
        let next = placements.without_change(before_it, after_it);
        if next == placements {
            return Ok(());
        }
        let why = format!("taking back version {}: {}", step.versions[0], step.why);
        match self.change(&next, from, &why)? {
            Ok(entry) => {
                step.versions.push(entry.change.version);
                // It is taken back, whoever does not wait for it.
                _ = wait_until(entry.change.effective_at);
                Ok(())
            }
            Err(reasons) => {
                let help = format!("look at `shardwise config history`, and undo version {}", step.versions[0]);
                Err(miette!(help = help, "a step did not help and could not be taken back: {reasons}"))
            }
        }
    }

    /// Has other placements hold; or says why the change was withdrawn.
    fn change(&self, next: &Placements, from: u64, why: &str) -> miette::Result<Result<Entry, String>> {
        let change = json!({
            "author": author(), "why": why, "without": self.options.without, "fromVersion": from,
        });
        let body = json!({ "placements": next, "change": change });
        let (withdrawn, entry) = self.ask("config/placements", Some(&body))?;
        let Changed(entry): Changed = serde_json::from_value(entry).into_diagnostic()?;
        let holds = !withdrawn && entry.outcome == Outcome::Committed;
        Ok(if holds { Ok(entry) } else { Err(entry.reasons.join("; ")) })
    }

    /// What the function of a step, or the fleet, goes through in so many seconds.
    fn watched(&self, seconds: f64, actions: &[Action]) -> miette::Result<Observed> {
        let start = self.totals()?;
        sleep(seconds)?;
        Ok(self.totals()?.of(actions).without(&start.of(actions)))
    }

    fn totals(&self) -> miette::Result<Totals> {
        serde_json::from_value(self.ask("totals", None)?.1).into_diagnostic()
    }

    fn holds(&self) -> miette::Result<Configuration> {
        held(self.server, &self.options.access.files(), "--live")
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
    /// Of a step's functions; of a step that concerns whole shards, all there is.
    fn of(&self, actions: &[Action]) -> Observed {
        let functions: Option<BTreeSet<&FunctionId>> = actions.iter().map(Action::function).collect();
        match functions {
            Some(functions) => sum(functions.into_iter().filter_map(|function| self.functions.get(function))),
            None => sum(self.functions.values()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_warm_is_one_step_and_moves_are_each_one() {
        let benefit = json!({ "value": 1.0, "low": 0.0, "high": 2.0, "unit": "latency_ms" });
        let of_shard = |kind: &str, function: &str| json!({ "type": kind, "functionName": function, "shard": "a", "reason": "", "estimatedBenefit": benefit });
        let migrate = json!({
            "type": "migrate_function", "functionName": "f", "fromShard": "a", "toShard": "b", "reason": "",
            "estimatedBenefit": benefit,
        });
        let actions = [
            of_shard("keep_warm", "f"),
            migrate.clone(),
            of_shard("let_cool", "g"),
            of_shard("keep_warm", "h"),
            migrate,
        ];
        let steps = together(actions_of(&json!({ "actions": actions })).unwrap());
        assert_eq!(steps.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1, 1, 1]);
    }

    #[test]
    fn a_file_that_is_no_plan_is_refused() {
        let error = actions_of(&json!({ "plan": { "actions": [] } })).unwrap_err();
        assert!(error.to_string().contains("neither `actions` nor `protocols`"), "{error}");
        assert!(actions_of(&json!({ "elasticities": {} })).unwrap().is_empty(), "there is no spike");
        assert!(actions_of(&json!({ "protocols": [{ "protocol": "aave" }, { "actions": [] }] })).unwrap().is_empty());
    }
}
