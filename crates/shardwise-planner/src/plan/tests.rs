//! All kinds of plans from one fold, and fleets of which some shards are drained, silent or dead.

use super::*;
use crate::observations::history_of;
use crate::{Estimate, ProtocolAction, Unit};
use shardwise_types::{Placements, Residence};

#[test]
fn every_kind_is_planned_from_the_same_observations_and_written_with_the_specifications_fields() {
    let observations = crate::observations::small_history();
    let (ledger, settings) = (Ledger::default(), PlannerSettings::default());
    let now = observations.now().unwrap();
    let planner = Planner {
        observations: &observations,
        ledger: &ledger,
        settings: &settings,
        now,
        assumed_spike: Some(6.0),
        teacher: None,
    };
    for (kind, fields) in [
        (PlanKind::Optimize, &["optimizations", "estimatedBenefit", "estimatedMigrationTime"][..]),
        (PlanKind::Predict, &["predictions", "bottlenecks", "actions", "estimatedBenefit", "executionTime"]),
        (PlanKind::Spike, &["triggerEvent", "loadPrediction", "resourceAllocation", "timeWindow", "costEstimate"]),
        (PlanKind::Protocol, &["protocols"]),
        (PlanKind::Warm, &["actions", "estimatedBenefit"]),
    ] {
        assert_eq!(PlanKind::parse(kind.as_str()), Some(kind));
        let plan = planner.plan(kind).unwrap();
        let json = serde_json::to_value(&plan).unwrap();
        fields.iter().for_each(|field| assert!(!json[field].is_null(), "{field} is missing in {json}"));
        let story = plan.story(&observations);
        assert_eq!(story.steps.len(), plan.actions().len());
        assert!(story.sentence.ends_with('.') && !story.picture.rows.is_empty(), "{story:?}");
    }
    let calm = Planner { assumed_spike: None, ..planner }.plan(PlanKind::Spike).unwrap();
    assert!(calm.actions().is_empty());
}

fn planner<'a>(
    observations: &'a Observations,
    ledger: &'a Ledger,
    settings: &'a PlannerSettings,
    now: Timestamp,
) -> Planner<'a> {
    Planner { observations, ledger, settings, now, assumed_spike: None, teacher: None }
}

fn protocol(observations: &Observations, ledger: &Ledger) -> ProtocolOptimization {
    let settings = PlannerSettings::default();
    let now = observations.now().unwrap();
    match planner(observations, ledger, &settings, now).plan(PlanKind::Protocol).unwrap() {
        Plan::Protocol(plan) => plan.protocols.into_iter().next().unwrap(),
        other => panic!("{other:?}"),
    }
}

fn drain(shards: &[&str]) -> Action {
    Action::DrainShards {
        group: "aave".to_owned(),
        shards: shards.iter().map(|shard| ShardId::new(shard)).collect(),
        reason: String::new(),
        estimated_benefit: Estimate::new(1.0, 1.0, 1.0, Unit::Shards),
    }
}

#[test]
fn many_shards_that_share_a_protocol_evenly_all_serve_it() {
    let names: Vec<String> = (0..40).map(|at| format!("shard-{at:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let seldom = |shard: &str| shard == "shard-39";
    let observations = history_of(&names, |shard, _| if seldom(shard) { 1.0 } else { 100.0 }, |_, _| 0.3);
    let plan = protocol(&observations, &Ledger::default());
    assert_eq!(plan.current_shards, 39, "all but one that takes a hundredth of what others do");
    let mut ledger = Ledger::default();
    ledger.record(&drain(&names[..9]), Timestamp::default());
    assert_eq!(protocol(&observations, &ledger).current_shards, 30, "who is drained does not serve");
}

#[test]
fn a_protocol_that_keeps_no_core_busy_is_served_by_whoever_answers_it() {
    let observations = history_of(&["a", "b"], |_, _| 0.0, |_, _| 0.3);
    assert_eq!(protocol(&observations, &Ledger::default()).current_shards, 2);
}

#[test]
fn shards_that_joined_for_a_protocol_are_not_asked_for_twice() {
    // Both cores of a are busy: one shard's worth, for which two are needed at 70 %.
    let busy = |shard: &str, _| if shard == "a" { 120_000.0 } else { -1.0 };
    let observations = history_of(&["a", "b", "c"], busy, |_, _| 0.3);
    let mut ledger = Ledger::default();
    ledger.record(&drain(&["b", "c"]), observations.window_start());
    let plan = protocol(&observations, &ledger);
    assert_eq!((plan.action, plan.current_shards, plan.recommended_shards), (ProtocolAction::Expand, 1, 2));
    plan.actions.iter().for_each(|action| ledger.record(action, observations.now().unwrap()));
    let again = protocol(&observations, &ledger);
    assert_eq!((again.action, again.actions.len()), (ProtocolAction::Maintain, 0), "{}", again.reasoning);
    // Long ago it joined, and still takes nothing: it is not waited for any longer.
    let mut old = Ledger::default();
    let before = observations.window_start().plus_millis(-60_000.0);
    old.record(&drain(&["b", "c"]), before);
    plan.actions.iter().for_each(|action| old.record(action, before));
    assert_eq!(protocol(&observations, &old).action, ProtocolAction::Expand);
}

/// A fleet in which a runs full at the end, b has room and c is idle: who is sent something?
fn takers(ledger: &Ledger, late_ms: f64, kind: PlanKind) -> BTreeSet<ShardId> {
    let cpu = |shard: &str, minute: u32| match shard {
        "a" if minute > 60 => 0.99,
        "c" => 0.0,
        _ => 0.4,
    };
    let exec_ms = |shard: &str, _| if shard == "a" { 20_000.0 } else { 4_000.0 };
    let observations = history_of(&["a", "b", "c"], exec_ms, cpu);
    let settings = PlannerSettings {
        balance: BalanceSettings { reactive: true, ..BalanceSettings::default() },
        ..PlannerSettings::default()
    };
    let now = observations.now().unwrap().plus_millis(late_ms);
    let plan = planner(&observations, ledger, &settings, now).plan(kind).unwrap();
    let taker = |action: &&Action| match action {
        Action::MigrateFunction { to_shard, .. } => Some(to_shard.clone()),
        _ => None,
    };
    plan.actions().iter().filter_map(taker).collect()
}

#[test]
fn nothing_is_sent_to_shards_that_are_drained_or_fell_silent() {
    for kind in [PlanKind::Predict, PlanKind::Optimize] {
        let all = takers(&Ledger::default(), 0.0, kind);
        assert!(all.contains("c") || all.contains("b"), "{kind:?}: {all:?}");
        let mut ledger = Ledger::default();
        ledger.record(&drain(&["c"]), Timestamp::default());
        assert_eq!(takers(&ledger, 0.0, kind), ["b".into()].into(), "{kind:?}");
        ledger.record(&drain(&["b"]), Timestamp::default());
        assert_eq!(takers(&ledger, 0.0, kind), [].into(), "{kind:?}");
        assert_eq!(takers(&Ledger::default(), 180_000.0, kind), [].into(), "{kind:?}: silent");
        let mut leaving = Ledger::default();
        leaving.record(&drain(&["a"]), Timestamp::default());
        assert_eq!(takers(&leaving, 0.0, kind), [].into(), "{kind:?}: what is drained runs empty by itself");
    }
}

#[test]
fn while_nobody_knows_who_took_no_shard_is_offered_until_reports_show_it() {
    let now = crate::observations::history_of(&["a"], |_, _| 1.0, |_, _| 0.1).now().unwrap();
    for kind in [PlanKind::Predict, PlanKind::Optimize] {
        let moved = |minutes: f64| {
            let mut ledger = Ledger::default();
            let avoided = [Residence::new("g", "z")].into();
            let after = Placements::new(avoided, [].into(), [].into());
            ledger.placed(&Placements::default(), &after, now.plus_millis(-minutes * 60_000.0));
            takers(&ledger, 0.0, kind)
        };
        assert_eq!(moved(5.0), [].into(), "{kind:?}");
        assert!(!moved(20.0).is_empty(), "{kind:?}");
    }
}

#[test]
fn settings_and_factors_out_of_range_are_refused_by_name() {
    let observations = crate::observations::small_history();
    let ledger = Ledger::default();
    let now = observations.now().unwrap();
    let mut settings = PlannerSettings::default();
    settings.forecasts.coverage = 2.0;
    let error = planner(&observations, &ledger, &settings, now).plan(PlanKind::Predict).unwrap_err().to_string();
    assert!(error.contains("forecasts.coverage"), "{error}");
    let settings = PlannerSettings::default();
    for factor in [1.0, -1.0, f64::NAN] {
        let planner = Planner { assumed_spike: Some(factor), ..planner(&observations, &ledger, &settings, now) };
        let error = planner.plan(PlanKind::Spike).unwrap_err().to_string();
        assert!(error.contains("factor"), "{error}");
    }
}
