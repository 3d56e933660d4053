//! A plan for people: what it says in a sentence, its steps as a table, and the fleet before and after.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shardwise_types::ShardId;

use crate::{
    Action, Estimate, LoadBalancingPlan, LoadGroup, Observations, OptimizationPlan, Plan, ProtocolAction, ProtocolPlan,
    SpikePlan, Unit, WarmPlan, after_moves,
};

/// Rows of a picture at most: on more nobody looks.
const MOST_ROWS: usize = 40;

/// The fleet before and after.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BeforeAfter {
    /// What is shown, in words.
    pub what: String,
    /// The value that is not to be passed, if there is one.
    pub limit: Option<f64>,
    /// Name, before, after.
    pub rows: Vec<(String, f64, f64)>,
}

/// A plan in words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanStory {
    /// What it comes to.
    pub sentence: String,
    /// What else should be known.
    pub notes: Vec<String>,
    /// The steps: what is done, to what, where, what it saves, why.
    pub steps: Vec<[String; 5]>,
    /// The fleet before and after.
    pub picture: BeforeAfter,
}

impl Plan {
    /// The plan in words; `observations` are those that it was made from.
    pub fn story(&self, observations: &Observations) -> PlanStory {
        let (sentence, mut notes, mut picture) = match self {
            Self::Optimize(plan) => optimize(plan),
            Self::Predict(plan) => predict(plan, observations),
            Self::Spike(plan) => spike(plan),
            Self::Protocol(plan) => protocol(plan),
            Self::Warm(plan) => warm(plan, observations),
        };
        let cut = picture.rows.len().saturating_sub(MOST_ROWS);
        if cut > 0 {
            // Stable: what the plan has first stays first.
            picture.rows.sort_by_key(|(_, before, after)| before == after);
            let changed = picture.rows[MOST_ROWS..].iter().filter(|(_, before, after)| before != after).count();
            notes.push(format!("{cut} more rows are left out of the picture; {changed} of them change."));
            picture.rows.truncate(MOST_ROWS);
        }
        PlanStory { sentence, notes, steps: self.actions().into_iter().map(step).collect(), picture }
    }
}

fn step(action: &Action) -> [String; 5] {
    let [what, which, place] = match action {
        Action::MigrateFunction { function_name, from_shard, to_shard, .. } => {
            ["migrate_function".to_owned(), function_name.to_string(), format!("{from_shard} → {to_shard}")]
        }
        Action::ReturnFunction { function_name, shard, .. } => {
            ["return_function".to_owned(), function_name.to_string(), shard.to_string()]
        }
        Action::KeepWarm { function_name, shard, .. } => {
            ["keep_warm".to_owned(), function_name.to_string(), shard.to_string()]
        }
        Action::LetCool { function_name, shard, .. } => {
            ["let_cool".to_owned(), function_name.to_string(), shard.to_string()]
        }
        Action::JoinShards { group, count, .. } => ["join_shards".to_owned(), group.clone(), format!("{count} more")],
        Action::DrainShards { group, shards, .. } => {
            let names: Vec<&str> = shards.iter().map(ShardId::as_str).collect();
            ["drain_shards".to_owned(), group.clone(), names.join(", ")]
        }
    };
    [what, which, place, estimate(action.estimated_benefit()), action.reason().to_owned()]
}

fn estimate(estimate: &Estimate) -> String {
    let unit = match estimate.unit {
        Unit::LatencyMs => "ms",
        Unit::CoreMinutes => "core-minutes",
        Unit::Shards => "shards",
        Unit::Cores => "cores",
    };
    format!("{} [{}, {}] {unit}", short(estimate.value), short(estimate.low), short(estimate.high))
}

/// Three digits are enough to decide by.
fn short(value: f64) -> String {
    // The sum of nothing is -0.
    let value = value + 0.0;
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// What is moved, and what may come back.
fn moves_and_returns(actions: &[Action]) -> (usize, usize) {
    let count = |wanted: fn(&Action) -> bool| actions.iter().filter(|action| wanted(action)).count();
    (
        count(|action| matches!(action, Action::MigrateFunction { .. })),
        count(|action| matches!(action, Action::ReturnFunction { .. })),
    )
}

/// A sentence that says of functions that come back as well.
fn with_returns(sentence: &str, returns: usize) -> String {
    match returns {
        0 => format!("{sentence}."),
        _ => format!("{sentence}; {returns} functions that were moved away may come back."),
    }
}

/// Why nothing moves though something should.
const SETTLING: &str = "something moved a moment ago, and nobody knows yet which shard took it";

/// What is proven is rounded up.
fn gap_percent(gap: f64) -> f64 {
    (gap * 1000.0 - 1e-6).ceil().max(0.0) / 10.0
}

fn optimize(plan: &OptimizationPlan) -> (String, Vec<String>, BeforeAfter) {
    let (moves, returns) = moves_and_returns(&plan.actions);
    let sentence = match (plan.underperforming, moves) {
        (0, _) => "No function does worse on a shard than elsewhere by more than chance".to_owned(),
        (found, 0) if plan.settling => format!("{found} functions do badly on a shard, and stay: {SETTLING}"),
        (found, 0) => {
            format!("{found} functions do badly on a shard, and none would gain more elsewhere than a move costs")
        }
        (found, moves) => format!(
            "{found} functions do badly on a shard; {moves} moves save {} ms of latency and cost {} ms, at most {:.1} % below the best possible",
            short(plan.estimated_benefit),
            short(plan.estimated_migration_time),
            gap_percent(plan.proven_gap)
        ),
    };
    let row = |one: &crate::Optimization| {
        let expected =
            one.recommended_shards.first().map_or(one.expected_improvement.latency_ms, |best| best.latency_ms);
        (format!("{} on {}", one.function_name, one.current_shard), one.expected_improvement.latency_ms, expected)
    };
    let rows = plan.optimizations.iter().map(row).collect();
    (
        with_returns(&sentence, returns),
        Vec::new(),
        BeforeAfter { what: "mean latency in ms where it runs, and where it would".to_owned(), limit: None, rows },
    )
}

fn predict(plan: &LoadBalancingPlan, observations: &Observations) -> (String, Vec<String>, BeforeAfter) {
    let (moves, returns) = moves_and_returns(&plan.actions);
    let sentence = match (plan.bottlenecks.len(), moves) {
        (0, _) => "No shard is expected to run out of anything".to_owned(),
        (found, 0) if plan.settling => format!("{found} bottlenecks are expected, and nothing moves: {SETTLING}"),
        (found, 0) => format!("{found} bottlenecks are expected, and no move relieves them for less than it costs"),
        (found, moves) => format!(
            "{found} bottlenecks are expected; {moves} moves avoid {} of overload, at most {:.1} % below the best possible",
            estimate(&plan.estimated_benefit),
            gap_percent(plan.proven_gap)
        ),
    };
    let mut why: BTreeMap<&str, usize> = BTreeMap::new();
    plan.switched_off.iter().for_each(|silent| *why.entry(silent.why.meaning()).or_default() += 1);
    let notes =
        why.into_iter().map(|(why, count)| format!("{count} series are left to their last value: {why}.")).collect();
    let (after, _) = after_moves(&plan.predictions, &observations.parts(), &plan.actions);
    let row = |(was, is): (&crate::ShardOutlook, &crate::ShardOutlook)| {
        Some((was.id.to_string(), was.cpu?.value, is.cpu?.value))
    };
    let rows = plan.predictions.iter().zip(&after).filter_map(row).collect();
    let what = "highest share of cores in use that is expected within the horizon".to_owned();
    (with_returns(&sentence, returns), notes, BeforeAfter { what, limit: Some(1.0), rows })
}

fn spike(plan: &SpikePlan) -> (String, Vec<String>, BeforeAfter) {
    let learned = |group: LoadGroup| plan.elasticities.get(group).minutes > 0;
    let priors: Vec<&str> =
        LoadGroup::ALL.into_iter().filter(|group| !learned(*group)).map(LoadGroup::as_str).collect();
    let mut notes = Vec::new();
    if !priors.is_empty() {
        notes.push(format!(
            "The history does not show how the load of {} goes with volatility: what is usual stands in.",
            priors.join(", ")
        ));
    }
    let what = "cores that are busy, and that will be".to_owned();
    let Some(response) = &plan.response else {
        let sentence = "The market is calm: there is nothing to prepare for.".to_owned();
        return (sentence, notes, BeforeAfter { what, limit: None, rows: Vec::new() });
    };
    let row = |group: LoadGroup| {
        let load = response.load_prediction.get(group);
        (group.as_str().to_owned(), load.busy_cores, load.busy_cores + load.extra_cores)
    };
    let shards: u32 = response
        .actions
        .iter()
        .map(|action| if let Action::JoinShards { count, .. } = action { *count } else { 0 })
        .sum();
    let sentence = format!(
        "Volatility is {:.1} times the usual: {shards} more shards until {}, for {} core-minutes.",
        response.trigger_event.volatility_bp / response.trigger_event.baseline_bp,
        response.time_window.to,
        short(response.cost_estimate)
    );
    (sentence, notes, BeforeAfter { what, limit: None, rows: LoadGroup::ALL.into_iter().map(row).collect() })
}

fn protocol(plan: &ProtocolPlan) -> (String, Vec<String>, BeforeAfter) {
    let count = |wanted: ProtocolAction| plan.protocols.iter().filter(|one| one.action == wanted).count();
    let sentence = format!(
        "Of {} protocols {} want more shards, {} fewer, and {} are right.",
        plan.protocols.len(),
        count(ProtocolAction::Expand),
        count(ProtocolAction::Consolidate),
        count(ProtocolAction::Maintain)
    );
    let notes = plan.protocols.iter().map(|one| format!("{}: {}.", one.protocol, one.reasoning)).collect();
    let rows = plan
        .protocols
        .iter()
        .map(|one| (one.protocol.to_string(), one.current_shards as f64, one.recommended_shards as f64))
        .collect();
    (sentence, notes, BeforeAfter { what: "shards that serve it, and that should".to_owned(), limit: None, rows })
}

fn warm(plan: &WarmPlan, observations: &Observations) -> (String, Vec<String>, BeforeAfter) {
    let sentence = match plan.actions.len() {
        0 => format!("Nothing to change: {} MB are held by plan.", short(plan.memory_mb)),
        steps => format!(
            "{steps} steps: what is held avoids {} cold starts and {} of latency for {} MB.",
            short(plan.cold_starts_avoided),
            estimate(&plan.estimated_benefit),
            short(plan.memory_mb)
        ),
    };
    let memory: BTreeMap<_, _> =
        observations.functions().into_iter().map(|view| (view.id.clone(), view.memory_mb)).collect();
    let mut change: BTreeMap<&ShardId, f64> = BTreeMap::new();
    for action in &plan.actions {
        match action {
            Action::KeepWarm { function_name, shard, .. } => {
                *change.entry(shard).or_default() += memory.get(function_name).copied().unwrap_or(0.0);
            }
            Action::LetCool { function_name, shard, .. } => {
                *change.entry(shard).or_default() -= memory.get(function_name).copied().unwrap_or(0.0);
            }
            _ => {}
        }
    }
    let row = |view: crate::ShardView<'_>| {
        let (shape, report) = view.last?;
        let (now, size) = (f64::from(report.memory), f64::from(shape.memory_mb));
        Some((view.id.to_string(), now, (now + change.get(view.id).copied().unwrap_or(0.0) / size).max(0.0)))
    };
    let rows = observations.shards().into_iter().filter_map(row).collect();
    (sentence, Vec::new(), BeforeAfter { what: "share of memory in use, at most".to_owned(), limit: Some(1.0), rows })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Expected, ShardOutlook};
    use shardwise_types::Timestamp;

    fn outlook(id: &str, cpu: Option<f64>) -> ShardOutlook {
        let cpu = cpu.map(Expected::exactly);
        ShardOutlook {
            id: id.into(),
            cores: 4.0,
            memory_mb: 1024.0,
            accepts: true,
            cpu,
            memory: cpu,
            latency_ms: None,
            queue_per_core: None,
        }
    }

    fn plan(predictions: Vec<ShardOutlook>, actions: Vec<Action>) -> Plan {
        Plan::Predict(LoadBalancingPlan {
            predictions,
            bottlenecks: vec![],
            actions,
            estimated_benefit: Estimate::new(0.0, 0.0, 0.0, Unit::CoreMinutes),
            proven_gap: 0.0,
            execution_time: Timestamp::default(),
            switched_off: vec![],
            settling: false,
        })
    }

    #[test]
    fn functions_that_come_back_are_no_moves() {
        let back = Action::ReturnFunction {
            function_name: "f".into(),
            shard: "a".into(),
            reason: String::new(),
            estimated_benefit: Estimate::new(0.0, 0.0, 0.0, Unit::LatencyMs),
        };
        let observations = crate::observations::small_history();
        let sentence = |actions: Vec<Action>| plan(vec![], actions).story(&observations).sentence;
        assert_eq!(sentence(vec![]), "No shard is expected to run out of anything.");
        assert_eq!(
            sentence(vec![back]),
            "No shard is expected to run out of anything; 1 functions that were moved away may come back."
        );
    }

    #[test]
    fn the_picture_has_what_changes_first_and_says_what_is_not_in_it() {
        let observations = crate::observations::small_history();
        let all = |many: usize| -> Vec<ShardOutlook> {
            let mut all: Vec<_> = (0..many).map(|at| outlook(&format!("shard-{at:02}"), Some(0.5))).collect();
            all.push(outlook("b", Some(0.5)));
            all.push(outlook("unknown", None));
            all
        };
        // The function that a history knows runs on b.
        let step = Action::MigrateFunction {
            function_name: "f".into(),
            from_shard: "b".into(),
            to_shard: "shard-07".into(),
            reason: String::new(),
            estimated_benefit: Estimate::new(1.0, 1.0, 1.0, Unit::CoreMinutes),
        };
        let story = plan(all(60), vec![step.clone()]).story(&observations);
        let names: Vec<&str> = story.picture.rows.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!((names.len(), &names[..3]), (MOST_ROWS, &["shard-07", "b", "shard-00"][..]));
        assert_eq!(story.notes, ["21 more rows are left out of the picture; 0 of them change."]);
        let story = plan(all(10), vec![step]).story(&observations);
        assert_eq!((story.picture.rows.len(), story.picture.rows[0].0.as_str()), (11, "shard-00"), "nothing to cut");
        assert!(story.notes.is_empty() && !names.contains(&"unknown"), "what is not known is not 0");
    }
}
