//! Who is kept warm, who is let go, and that plans are stable.

use super::*;
use proptest::prelude::*;
use shardwise_types::Timestamp;

fn candidate(function: &str, arrivals_per_minute: f64, memory_mb: f64) -> WarmCandidate {
    WarmCandidate {
        function: function.into(),
        shard: "a".into(),
        arrivals_per_minute,
        dispersion: 1.0,
        load_ms: 200.0,
        memory_mb,
    }
}

fn solve(candidates: Vec<WarmCandidate>, used_mb: f64, ledger: &Ledger) -> WarmPlan {
    let shards = vec![WarmShard { id: "a".into(), memory_mb: 1000.0, used_mb }];
    WarmProblem { shards, candidates, ledger }.solve(&WarmSettings::default()).unwrap()
}

fn applied(ledger: &Ledger, plan: &WarmPlan) -> Ledger {
    let mut ledger = ledger.clone();
    plan.actions.iter().for_each(|action| ledger.record(action, Timestamp::default()));
    ledger
}

#[test]
fn silence_follows_the_counts() {
    let one = candidate("f", 0.2, 100.0);
    assert!((one.silent_for(5.0) - (-1.0_f64).exp()).abs() < 1e-12, "Poisson");
    let bursty = WarmCandidate { dispersion: 3.0, ..one.clone() };
    assert!((bursty.silent_for(5.0) - 3.0_f64.powf(-0.5)).abs() < 1e-12, "negative binomial");
    let nearly = WarmCandidate { dispersion: 1.0 + 1e-5, ..one.clone() };
    assert!((nearly.silent_for(5.0) - one.silent_for(5.0)).abs() < 1e-4);
}

#[test]
fn neither_the_busy_nor_the_forgotten_are_kept_warm() {
    let plan = solve(
        vec![candidate("busy", 60.0, 50.0), candidate("now and then", 0.2, 50.0), candidate("never", 0.0001, 50.0)],
        0.0,
        &Ledger::default(),
    );
    let functions: Vec<&str> = plan
        .actions
        .iter()
        .map(|action| match action {
            Action::KeepWarm { function_name, .. } => function_name.as_str(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(functions, ["now and then"]);
    assert!((plan.cold_starts_avoided - 3.0 * (-1.0_f64).exp()).abs() < 1e-9);
}

#[test]
fn memory_above_the_pressure_is_never_filled() {
    let many: Vec<WarmCandidate> = (0..30).map(|at| candidate(&format!("f{at:02}"), 0.2, 90.0)).collect();
    let plan = solve(many.clone(), 500.0, &Ledger::default());
    assert_eq!((plan.actions.len(), plan.memory_mb), (3, 270.0), "300 MB are left below 80 %");
    assert_eq!(solve(many, 900.0, &Ledger::default()).actions, vec![]);
}

#[test]
fn what_is_held_goes_when_demand_does_and_not_before() {
    let ledger = applied(&Ledger::default(), &solve(vec![candidate("f", 0.2, 50.0)], 0.0, &Ledger::default()));
    assert!(ledger.is_warm(&"f".into(), &"a".into()));
    for arrivals in [0.15, 0.3, 0.1] {
        assert_eq!(solve(vec![candidate("f", arrivals, 50.0)], 0.0, &ledger).actions, vec![], "{arrivals}");
    }
    let gone = solve(vec![candidate("f", 0.0001, 50.0)], 0.0, &ledger);
    assert!(matches!(gone.actions[..], [Action::LetCool { .. }]), "{gone:?}");
    assert!(matches!(solve(vec![], 0.0, &ledger).actions[..], [Action::LetCool { .. }]), "not even a candidate");
}

#[test]
fn what_is_held_stays_while_what_runs_comes_and_goes() {
    let held: Vec<WarmCandidate> = (0..3).map(|at| candidate(&format!("f{at}"), 0.2, 100.0)).collect();
    let ledger = applied(&Ledger::default(), &solve(held.clone(), 500.0, &Ledger::default()));
    assert_eq!(solve(held.clone(), 600.0, &ledger).actions, vec![], "90 % are full");
    assert_eq!(solve(held, 650.0, &ledger).actions.len(), 1, "more than that");
}

#[test]
fn absurd_problems_are_refused() {
    let ledger = Ledger::default();
    let refused = |candidates: Vec<WarmCandidate>, used_mb: f64| {
        let shards = vec![WarmShard { id: "a".into(), memory_mb: 1000.0, used_mb }];
        WarmProblem { shards, candidates, ledger: &ledger }.solve(&WarmSettings::default()).unwrap_err().to_string()
    };
    assert!(refused(vec![candidate("f", f64::NAN, 1.0)], 0.0).contains("f on a"));
    assert!(refused(vec![candidate("f", 1.0, 1.0), candidate("f", 1.0, 1.0)], 0.0).contains("twice"));
    assert!(refused(vec![], f64::NAN).contains("shards[a]"));
}

proptest! {
    #[test]
    fn plans_are_stable_and_never_fill_too_much(
        drawn in prop::collection::vec((0.0..2.0_f64, 0.0..8.0_f64, 0.0..500.0_f64, 1.0..300.0_f64), 0..40),
        used_mb in 0.0..900.0_f64,
    ) {
        let candidates: Vec<WarmCandidate> = drawn
            .into_iter()
            .enumerate()
            .map(|(at, (arrivals_per_minute, dispersion, load_ms, memory_mb))| WarmCandidate {
                dispersion, load_ms, ..candidate(&format!("f{at:02}"), arrivals_per_minute, memory_mb)
            })
            .collect();
        let first = solve(candidates.clone(), used_mb, &Ledger::default());
        prop_assert!(first.memory_mb <= (800.0 - used_mb).max(0.0) + 1e-9);
        prop_assert!(first.actions.iter().all(|action| action.estimated_benefit().value > 0.0));
        let held = applied(&Ledger::default(), &first);
        let second = solve(candidates.clone(), used_mb, &held);
        prop_assert_eq!(second.actions, vec![], "idempotent");
        let mut reversed = candidates;
        reversed.reverse();
        prop_assert_eq!(solve(reversed, used_mb, &Ledger::default()), first);
    }
}
