//! What is read off a small history, and who is left out.

use super::*;
use crate::{Action, BalanceProblem, Effects, OptimizeProblem, OptimizeSettings, WarmProblem, WarmSettings};
use shardwise_types::Placements;

#[test]
fn one_fold_feeds_every_part() {
    let observations = crate::observations::small_history();
    let now = observations.now().unwrap();
    let (ledger, balance) = (Ledger::default(), BalanceSettings { watch_from: 0.0, ..BalanceSettings::default() });
    let outlooks = |at: Timestamp| observations.outlooks(at, &ledger, &ForecastSettings::default(), &balance).unwrap();
    let shards = outlooks(now);
    assert_eq!(shards.iter().map(|shard| shard.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(shards[0].cpu.unwrap().switched_off, Some(SwitchedOff::NoHistory), "seventy minutes are too few");
    let parts = observations.parts();
    let cores: f64 = parts.iter().map(|part| part.cores).sum();
    assert!((cores - observations.busy_cores(|_, _| true)).abs() < 1e-9 && cores > 0.0);
    let plan = BalanceProblem { now, shards, parts, ledger: &ledger }.solve(&balance).unwrap();
    assert_eq!((plan.actions.len(), plan.switched_off.len()), (0, 8));
    let later = now.plus_millis(3_600_000.0);
    let silent = outlooks(later);
    assert!(silent.iter().all(|shard| shard.cpu.is_none()), "nothing is known of who was silent for an hour");

    let cells = observations.cells();
    let (functions, free_cores) = (observations.movables(), observations.free_cores(now, &ledger));
    let problem = OptimizeProblem {
        now,
        since: observations.window_start(),
        cells: &cells,
        functions: &functions,
        free_cores: &free_cores,
        expected: &Effects::of(&cells, None),
        ledger: &ledger,
    };
    let plan = problem.solve(&OptimizeSettings::default()).unwrap();
    assert_eq!(plan.optimizations[0].current_shard.as_str(), "b", "b takes five times as long");

    let warm = WarmProblem {
        shards: observations.warm_shards(&ledger),
        candidates: observations.warm_candidates(now, &ledger),
        ledger: &ledger,
    };
    assert_eq!(warm.candidates[0].shard.as_str(), "a", "there it runs faster, and there all of it would go");
    assert!((warm.candidates[0].arrivals_per_minute - 2.0).abs() < 0.1, "{:?}", warm.candidates[0]);
    let plan = warm.solve(&WarmSettings::default()).unwrap();
    assert_eq!((plan.actions.len(), plan.memory_mb), (0, 0.0), "asked for twice a minute, it is warm by itself");
    let short = WarmSettings { time_to_live_minutes: 0.5, ..WarmSettings::default() };
    let plan = warm.solve(&short).unwrap();
    assert!(
        matches!(&plan.actions[..], [Action::KeepWarm { function_name, shard, .. }]
            if function_name.as_str() == "f" && shard.as_str() == "a"),
        "{plan:?}"
    );
    assert_eq!(plan.memory_mb, 128.0);

    let load = observations.protocol_load(&"aave".into(), &["a".into(), "b".into()]);
    assert!((load - cores / 2.0).abs() < 1e-9, "shards have two cores");
    let groups = observations.spike_groups(now, &ledger, &SpikeSettings::default());
    assert_eq!((groups.yields.cores, groups.yields.elasticity.minutes), (4.0, 0), "aave is all there is");
}

fn drained(shards: &[&str]) -> Ledger {
    let drained = shards.iter().map(|shard| ShardId::new(shard)).collect();
    let mut ledger = Ledger::default();
    let placements = Placements::new([].into(), [].into(), drained);
    ledger.placed(&Placements::default(), &placements, Timestamp::default());
    ledger
}

#[test]
fn nothing_is_offered_to_shards_that_are_drained_silent_or_ill_and_their_cores_do_not_count() {
    let observations = crate::observations::small_history();
    let now = observations.now().unwrap();
    let of = |observations: &Observations, now: Timestamp, ledger: &Ledger| {
        let (forecasts, balance) = (ForecastSettings::default(), BalanceSettings::default());
        let outlooks = observations.outlooks(now, ledger, &forecasts, &balance).unwrap();
        let accept: Vec<String> =
            outlooks.iter().filter(|shard| shard.accepts).map(|shard| shard.id.to_string()).collect();
        let free: Vec<String> = observations.free_cores(now, ledger).keys().map(ShardId::to_string).collect();
        let warm = observations.warm_candidates(now, ledger).into_iter().map(|one| one.shard.to_string()).collect();
        let groups = observations.spike_groups(now, ledger, &SpikeSettings::default());
        (accept, free, warm, (groups.yields.cores, groups.yields.cores_per_shard))
    };
    let names = |all: &[&str]| -> Vec<String> { all.iter().map(|name| (*name).to_owned()).collect() };
    let all = of(&observations, now, &Ledger::default());
    assert_eq!(all, (names(&["a", "b"]), names(&["a", "b"]), names(&["a"]), (4.0, 2.0)));
    let one = (names(&["b"]), names(&["b"]), names(&["b"]), (2.0, 2.0));
    assert_eq!(of(&observations, now, &drained(&["a"])), one, "drained");
    let none = (vec![], vec![], vec![], (0.0, 2.0));
    assert_eq!(of(&observations, now, &drained(&["a", "b"])), none, "all drained");
    let later = now.plus_millis(180_000.0);
    assert_eq!(of(&observations, later, &Ledger::default()), none, "silent");
    let mut ill = observations.clone();
    ill.observe(&crate::observations::report_of("a", now, false)).unwrap();
    assert_eq!(of(&ill, now, &Ledger::default()), one, "ill");
}

#[test]
fn settings_of_forecasts_out_of_range_are_refused_and_no_history_is_none() {
    let observations = crate::observations::small_history();
    let now = observations.now().unwrap();
    let wrong = ForecastSettings { coverage: 2.0, ..ForecastSettings::default() };
    let watched = BalanceSettings { watch_from: 0.0, ..BalanceSettings::default() };
    let error = observations.outlooks(now, &Ledger::default(), &wrong, &watched).unwrap_err();
    assert!(error.to_string().contains("coverage"), "{error}");
}
