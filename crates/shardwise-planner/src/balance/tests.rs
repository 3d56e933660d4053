//! Small fleets drawn at random: what must hold of any plan, and the exact optimum beside it.

use std::collections::BTreeSet;

use super::*;
use crate::Ledger;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use shardwise_types::FunctionId;

const MINUTE_MS: f64 = 60_000.0;

fn shard(id: usize, cpu: f64, memory: f64, latency_ms: f64, rng: &mut StdRng) -> ShardOutlook {
    let spread = |value: f64, rng: &mut StdRng| Expected {
        low: value * 0.95,
        high: (value + rng.random_range(0.0..0.04)).min(1.0),
        ..Expected::exactly(value)
    };
    ShardOutlook {
        id: ShardId::new(&format!("shard-{id:04}")),
        cores: [2.0, 4.0, 8.0][rng.random_range(0..3)],
        memory_mb: 8192.0,
        accepts: rng.random_bool(0.95),
        cpu: Some(spread(cpu, rng)),
        memory: Some(spread(memory, rng)),
        latency_ms: Some(Expected::exactly(latency_ms)),
        queue_per_core: None,
    }
}

/// `hot` shards above some threshold, `cool` ones below, each loaded by `per_shard` functions.
fn fleet(seed: u64, hot: usize, cool: usize, per_shard: usize) -> (Vec<ShardOutlook>, Vec<Part>) {
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut shards, mut parts) = (vec![], vec![]);
    for id in 0..hot + cool {
        let (cpu, memory, latency) = match id < hot {
            true => (rng.random_range(0.8..1.0), rng.random_range(0.6..0.99), rng.random_range(100.0..700.0)),
            false => (rng.random_range(0.2..0.8), rng.random_range(0.3..0.8), 100.0),
        };
        let shard = shard(id, cpu, memory, latency, &mut rng);
        let weights: Vec<f64> = (0..per_shard).map(|_| rng.random_range(0.02..1.0_f64).powi(2)).collect();
        let total: f64 = weights.iter().sum();
        for (at, weight) in weights.into_iter().enumerate() {
            let function = rng.random_range(0..per_shard * 8) * per_shard + at;
            parts.push(Part {
                function: FunctionId::new(&format!("function-{function:05}")),
                shard: shard.id.clone(),
                cores: cpu * shard.cores * weight / total,
                memory_mb: memory * shard.memory_mb * rng.random_range(0.2..1.0) / per_shard as f64,
                exec_ms: rng.random_range(5.0..120.0),
                load_core_minutes: rng.random_range(0.0..0.05),
                allowed: None,
            });
        }
        shards.push(shard);
    }
    (shards, parts)
}

fn now() -> Timestamp {
    Timestamp::from_nanos(1_700_000_000_000_000_000)
}

fn problem<'a>(shards: &[ShardOutlook], parts: &[Part], ledger: &'a Ledger) -> BalanceProblem<'a> {
    BalanceProblem { now: now(), shards: shards.to_vec(), parts: parts.to_vec(), ledger }
}

/// What a move is worth when all others are as they are, less its price, in core-minutes.
fn margin(parts: &[Part], plan: &LoadBalancingPlan, action: &Action) -> f64 {
    let settings = BalanceSettings::default();
    let (function, from, _) = moved(action);
    let outlook = plan.predictions.iter().find(|shard| shard.id == *from).unwrap();
    let sizes = |of: &dyn Fn(&Part) -> f64, without: bool| -> f64 {
        let moves = plan
            .actions
            .iter()
            .map(moved)
            .filter(|(other, source, _)| *source == from && !(without && *other == function));
        moves
            .map(|(other, source, _)| of(parts.iter().find(|it| it.function == *other && it.shard == *source).unwrap()))
            .sum()
    };
    let excess = |kinds: &[BottleneckKind]| {
        let of = plan.bottlenecks.iter().filter(|it| it.shard_id == *from && kinds.contains(&it.kind));
        of.map(|it| it.excess_cores.value).fold(0.0, f64::max)
    };
    let relief = |of: &dyn Fn(&Part) -> f64, kinds: &[BottleneckKind]| {
        let excess = excess(kinds);
        sizes(of, false).min(excess) - sizes(of, true).min(excess)
    };
    let cores = relief(&|part| part.cores, &[BottleneckKind::CpuExhaustion, BottleneckKind::HighLatency]);
    let share = outlook.cores / outlook.memory_mb;
    let memory = relief(&|part| part.memory_mb * share, &[BottleneckKind::MemoryExhaustion]);
    let part = parts.iter().find(|it| it.function == *function && it.shard == *from).unwrap();
    (cores + memory) * settings.horizon_minutes - settings.move_price_core_minutes - part.load_core_minutes
}

fn solve(shards: &[ShardOutlook], parts: &[Part], ledger: &Ledger) -> LoadBalancingPlan {
    solve_with(shards, parts, ledger, usize::MAX)
}

/// With so many moves in the hour at most, past ones counted; the usual many when that is more.
fn solve_with(shards: &[ShardOutlook], parts: &[Part], ledger: &Ledger, most_moves: usize) -> LoadBalancingPlan {
    problem(shards, parts, ledger).solve(&settings(most_moves)).unwrap()
}

fn settings(most_moves: usize) -> BalanceSettings {
    let usual = BalanceSettings::default();
    BalanceSettings { most_moves_hour: usual.most_moves_hour.min(most_moves), ..usual }
}

/// Moves of the last hour: some functions of the fleet left its shards for others, some twice.
fn past(parts: &[Part], shards: &[ShardOutlook], rng: &mut StdRng) -> Ledger {
    let mut ledger = Ledger::default();
    let mut steps = vec![];
    for part in parts {
        for _ in 0..2 {
            if rng.random_bool(0.1) {
                let to = shards[rng.random_range(0..shards.len())].id.clone();
                steps.push((rng.random_range(16.0..70.0), part.function.clone(), part.shard.clone(), to));
            }
        }
    }
    steps.sort_by(|a: &(f64, _, _, _), b| b.0.total_cmp(&a.0));
    for (minutes_ago, function_name, from_shard, to_shard) in steps.into_iter().filter(|step| step.2 != step.3) {
        let (reason, estimated_benefit) = (String::new(), Estimate::new(1.0, 1.0, 1.0, Unit::CoreMinutes));
        let step = Action::MigrateFunction { function_name, from_shard, to_shard, reason, estimated_benefit };
        ledger.record(&step, now().plus_millis(-minutes_ago * MINUTE_MS));
    }
    ledger
}

fn moved(action: &Action) -> (&FunctionId, &ShardId, &ShardId) {
    match action {
        Action::MigrateFunction { function_name, from_shard, to_shard, .. } => (function_name, from_shard, to_shard),
        other => panic!("{other:?}"),
    }
}

/// Every post-condition but idempotence.
fn check(shards: &[ShardOutlook], parts: &[Part], ledger: &Ledger, plan: &LoadBalancingPlan, most_moves: usize) {
    let settings = settings(most_moves);
    let (givers, takers): (BTreeSet<&ShardId>, BTreeSet<&ShardId>) =
        plan.actions.iter().map(moved).map(|(_, from, to)| (from, to)).unzip();
    let sources: BTreeSet<&ShardId> = plan.bottlenecks.iter().map(|bottleneck| &bottleneck.shard_id).collect();
    assert!(givers.is_subset(&sources), "sources");
    assert!(givers.is_disjoint(&takers), "never fights");
    let pairs: BTreeSet<_> = plan.actions.iter().map(|action| (moved(action).0, moved(action).1)).collect();
    assert_eq!(pairs.len(), plan.actions.len(), "never fights");
    let (after, _) = after_moves(shards, parts, &plan.actions);
    for shard in after.iter().filter(|shard| takers.contains(&shard.id)) {
        let (cpu, memory) = (shard.cpu.unwrap().high, shard.memory.unwrap().high);
        assert!(cpu <= settings.cpu_threshold - settings.headroom + 1e-6, "room: {cpu}");
        assert!(memory <= settings.memory_threshold - settings.headroom + 1e-6, "room: {memory}");
        assert!(shard.accepts, "room");
    }
    let cooling = now().plus_millis(-settings.cooldown_minutes * MINUTE_MS);
    let hour = now().plus_millis(-60.0 * MINUTE_MS);
    let (relieved, loaded) = ledger.touched_since(cooling);
    assert!(takers.is_disjoint(&relieved) && givers.is_disjoint(&loaded), "cooldown");
    let past = ledger.all_moves_since(hour);
    assert!(plan.actions.is_empty() || plan.actions.len() + past <= settings.most_moves_hour, "caps: {past} before");
    let mut counts: BTreeMap<&FunctionId, usize> = BTreeMap::new();
    for action in &plan.actions {
        let (function, _, to) = moved(action);
        assert!(!ledger.left_since(function, to, cooling), "cooldown");
        *counts.entry(function).or_insert_with(|| ledger.moves_since(function, hour)) += 1;
        assert!(action.estimated_benefit().value > 0.0, "pays: {action:?}");
        assert!(margin(parts, plan, action) > -1e-9, "pays, all others as they are: {action:?}");
    }
    assert!(counts.values().all(|count| *count <= settings.most_moves_per_function_hour), "caps");
}

fn recorded(ledger: &Ledger, plan: &LoadBalancingPlan) -> Ledger {
    let mut ledger = ledger.clone();
    plan.actions.iter().for_each(|action| ledger.record(action, now()));
    ledger
}

/// All of them, from a ledger and under a cap.
fn post_conditions_from(shards: &[ShardOutlook], parts: &[Part], before: &Ledger, most_moves: usize) -> usize {
    let first = solve_with(shards, parts, before, most_moves);
    check(shards, parts, before, &first, most_moves);
    // Right after, whether forecasts know of the moves already or not.
    let ledger = recorded(before, &first);
    assert_eq!(solve_with(shards, parts, &ledger, most_moves).actions, vec![], "idempotent on old forecasts");
    let (after, moved) = after_moves(shards, parts, &first.actions);
    assert_eq!(solve_with(&after, &moved, &ledger, most_moves).actions, vec![], "idempotent on new ones");
    first.actions.len()
}

fn post_conditions(seed: u64, hot: usize, cool: usize, per_shard: usize) {
    let (shards, parts) = fleet(seed, hot, cool, per_shard);
    post_conditions_from(&shards, &parts, &Ledger::default(), usize::MAX);
}

#[test]
fn room_that_is_left_is_used() {
    // Once a piece was counted twice here, and another stayed.
    post_conditions(462_671, 5, 3, 2);
}

#[test]
fn past_moves_count_towards_the_caps() {
    let (mut moved, mut held_back) = (0, 0);
    for seed in 0..200 {
        let (shards, parts) = fleet(seed, 4, 8, 6);
        let ledger = past(&parts, &shards, &mut StdRng::seed_from_u64(seed));
        let past = ledger.all_moves_since(now().plus_millis(-60.0 * MINUTE_MS));
        moved += post_conditions_from(&shards, &parts, &ledger, past + 3);
        held_back += usize::from(post_conditions_from(&shards, &parts, &ledger, usize::MAX) > 3);
        assert_eq!(post_conditions_from(&shards, &parts, &ledger, past), 0, "seed {seed}: nothing is left");
        assert!(post_conditions_from(&shards, &parts, &Ledger::default(), 3) <= 3, "seed {seed}");
    }
    assert!(moved > 100 && held_back > 10, "{moved} moves, {held_back} times fewer than without the cap");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn post_conditions_hold(seed in 0_u64..1_000_000, hot in 0_usize..6, cool in 0_usize..10, per_shard in 1_usize..12) {
        post_conditions(seed, hot, cool, per_shard);
    }

    #[test]
    fn the_order_of_the_input_does_not_matter(seed in 0_u64..1_000_000) {
        let (mut shards, mut parts) = fleet(seed, 3, 4, 6);
        let first = solve(&shards, &parts, &Ledger::default());
        shards.reverse();
        parts.reverse();
        prop_assert_eq!(solve(&shards, &parts, &Ledger::default()), first);
    }

    #[test]
    fn nothing_comes_back_within_the_cooldown(seed in 0_u64..1_000_000) {
        // Ten rounds of five minutes, in each of which other shards run hot.
        let settings = BalanceSettings::default();
        let (_, mut parts) = fleet(seed, 4, 6, 6);
        let mut ledger = Ledger::default();
        for round in 0..10 {
            let (shards, _) = fleet(seed + round, 4, 6, 6);
            let mut rotated = shards.clone();
            rotated.rotate_left(round as usize);
            let shards: Vec<ShardOutlook> =
                rotated.into_iter().zip(shards).map(|(state, name)| ShardOutlook { id: name.id, ..state }).collect();
            let at = now().plus_millis(round as f64 * 5.0 * MINUTE_MS);
            let problem = BalanceProblem { now: at, ..problem(&shards, &parts, &ledger) };
            let plan = problem.solve(&settings).unwrap();
            for action in &plan.actions {
                let (function, _, to) = moved(action);
                prop_assert!(!ledger.left_since(function, to, at.plus_millis(-settings.cooldown_minutes * MINUTE_MS)));
            }
            plan.actions.iter().for_each(|action| ledger.record(action, at));
            parts = after_moves(&shards, &parts, &plan.actions).1;
        }
    }
}

#[test]
fn a_hot_shard_is_relieved_by_what_is_needed_and_no_more() {
    let (shards, parts) = fleet(11, 1, 3, 8);
    let plan = solve(&shards, &parts, &Ledger::default());
    assert!(!plan.actions.is_empty() && plan.estimated_benefit.value > 0.0, "{plan:?}");
    assert_eq!(plan.execution_time, now().plus_millis(5.0 * MINUTE_MS));
    let json = serde_json::to_value(&plan).unwrap();
    for field in ["predictions", "bottlenecks", "actions", "estimatedBenefit", "executionTime", "switchedOff"] {
        assert!(!json[field].is_null(), "{field} is missing");
    }
    assert_eq!(json["actions"][0]["type"], "migrate_function");
}

#[test]
fn what_is_switched_off_is_listed_and_left_alone_unless_asked() {
    let (mut shards, parts) = fleet(11, 1, 3, 8);
    let hot = &mut shards[0];
    for expected in [&mut hot.cpu, &mut hot.memory, &mut hot.latency_ms] {
        expected.as_mut().unwrap().switched_off = Some(SwitchedOff::NotBetter);
    }
    let plan = solve(&shards, &parts, &Ledger::default());
    assert_eq!((plan.actions.len(), plan.bottlenecks.len(), plan.switched_off.len()), (0, 0, 3));
    let ledger = Ledger::default();
    let reactive = BalanceSettings { reactive: true, ..BalanceSettings::default() };
    assert!(!problem(&shards, &parts, &ledger).solve(&reactive).unwrap().actions.is_empty());
}

#[test]
fn functions_go_only_where_they_may() {
    let (shards, mut parts) = fleet(11, 1, 3, 8);
    parts.iter_mut().for_each(|part| part.allowed = Some(vec![shards[2].id.clone()]));
    let plan = solve(&shards, &parts, &Ledger::default());
    assert!(plan.actions.iter().all(|action| *moved(action).2 == shards[2].id), "{:?}", plan.actions);
    parts.iter_mut().for_each(|part| part.allowed = Some(vec![]));
    assert_eq!(solve(&shards, &parts, &Ledger::default()).actions, vec![]);
}

#[test]
fn slow_executions_are_no_matter_of_load() {
    let (mut shards, mut parts) = fleet(11, 1, 3, 8);
    shards[0].cpu = Some(Expected::exactly(0.5));
    shards[0].memory = Some(Expected::exactly(0.5));
    shards[0].latency_ms = Some(Expected::exactly(900.0));
    parts.iter_mut().for_each(|part| part.exec_ms = 800.0);
    let plan = solve(&shards, &parts, &Ledger::default());
    assert_eq!((plan.bottlenecks[0].kind, plan.actions.len()), (BottleneckKind::HighLatency, 0));
    parts.iter_mut().for_each(|part| part.exec_ms = 100.0);
    assert!(!solve(&shards, &parts, &Ledger::default()).actions.is_empty(), "waiting is");
}

#[test]
fn absurd_problems_are_refused() {
    let (shards, parts) = fleet(11, 1, 1, 2);
    let ledger = Ledger::default();
    let refused = |shards: &[ShardOutlook], parts: &[Part], says: &str| {
        let error = problem(shards, parts, &ledger).solve(&BalanceSettings::default()).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    };
    refused(&[shards[0].clone(), shards[0].clone()], &parts, "is there twice");
    refused(&shards, &[parts[0].clone(), parts[0].clone()], "is there twice");
    refused(&shards, &[Part { cores: f64::NAN, ..parts[0].clone() }], "0 or more");
    refused(&[ShardOutlook { cores: 0.0, ..shards[0].clone() }], &[], "above 0");
    let settings = BalanceSettings { move_price_core_minutes: 0.0, ..BalanceSettings::default() };
    assert!(problem(&shards, &parts, &ledger).solve(&settings).unwrap_err().to_string().contains("movePrice"));
}
