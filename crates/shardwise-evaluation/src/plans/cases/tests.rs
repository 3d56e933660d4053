use shardwise_policies::by_name;
use shardwise_simulator::{GeneratorOptions, generate_inputs, generate_traces};

use super::*;

fn play(world: &CaseWorld, arms: &[&str]) -> CaseResult {
    let make = || by_name("sed_tab_lambda", world.world.timing.runtime()).unwrap();
    world.run_some(&|name| arms.contains(&name), &make, &mut |_| {}, &AtomicBool::new(false)).unwrap()
}

fn inputs(functions: usize) -> ReplayInputs {
    generate_inputs(2, &GeneratorOptions { functions, days: 1, market_minutes: 1_440 }).unwrap()
}

fn arm<'a>(result: &'a CaseResult, name: &str) -> &'a PlanArm {
    result.arms.iter().find(|arm| arm.name == name).unwrap()
}

#[test]
fn what_is_kept_warm_starts_cold_less_often_and_answers_sooner() {
    let options = CaseOptions { hours: 6.0, ..CaseOptions::new(PlanCase::Warm, 2) };
    let world = case_world(PlanCase::Warm, options, &inputs(150), &[]).unwrap();
    assert!((world.load - 0.12).abs() < 0.01, "{}", world.load);
    let result = play(&world, &["nothing", "keep-warm"]);
    let ratios = &result.ratios[1];
    assert!(ratios.cold_rate.unwrap() < 0.8 && ratios.mean_ms.unwrap() < 1.0, "{ratios:?}");
    assert!(ratios.memory.unwrap() > 1.0, "it costs memory: {ratios:?}");
    assert!(arm(&result, "keep-warm").warmed > 0 && arm(&result, "nothing").warmed == 0);
}

#[test]
fn a_fleet_that_is_ready_for_a_spike_beats_one_that_reacts_which_beats_one_that_does_nothing() {
    let traces = generate_traces(3, &GeneratorOptions { functions: 10, days: 1, market_minutes: 60 }).unwrap();
    let options = CaseOptions {
        spike_minutes: [5.0, 4.0],
        alert_leads_ms: vec![60_000.0],
        ..CaseOptions::new(PlanCase::Spike, 3)
    };
    let world = case_world(PlanCase::Spike, options, &ReplayInputs::default(), &traces.crash).unwrap();
    let result = play(&world, &["nothing", "reactive", "prepared 60 s before"]);
    let demand = result.spike.unwrap();
    assert!(demand.peak_load > 1.0 && demand.needed_shards > 1.0, "{demand:?}");
    let [_, reactive, prepared] = [0, 1, 2].map(|at| &result.ratios[at].p99_over_calm);
    assert!(prepared[1] < 1.5 && prepared[1] < 0.5 * reactive[1], "{prepared:?} {reactive:?}");
    // Whoever reacts is too late for the worst of the first minutes, but not for the rest.
    let spike_ms = |name: &str| arm(&result, name).phases[2].mean_ms;
    assert!(spike_ms("reactive") < spike_ms("nothing"));
    let plan = arm(&result, "prepared 60 s before");
    assert!(
        plan.joined > 0
            && plan.warmed > 0
            && plan.spike_plan.is_some()
            && arm(&result, "reactive").spike_plan.is_none()
    );
    assert!(result.checks.iter().any(|check| check.arm == plan.name && check.most == 1.5 && check.holds));
}

#[test]
fn nothing_comes_back_and_plans_are_idempotent_on_a_loaded_day() {
    let options = CaseOptions { hours: 4.0, ..CaseOptions::new(PlanCase::Day, 2) };
    let world = case_world(PlanCase::Day, options, &inputs(200), &[]).unwrap();
    let result = play(&world, &["nothing", "balancer, reactive", "optimizer", "all"]);
    assert!(arm(&result, "nothing").shard_minutes_over > 0);
    assert!(arm(&result, "balancer, reactive").moves > 0);
    for arm in &result.arms {
        assert_eq!((arm.returns, arm.not_idempotent), (0, 0), "{arm:?}");
    }
    assert!(result.checks.iter().filter(|check| check.most == 0.0).all(|check| check.holds));
}

#[test]
fn seeds_are_paired_by_arm() {
    let options = CaseOptions { hours: 1.0, ..CaseOptions::new(PlanCase::Warm, 2) };
    let world = case_world(PlanCase::Warm, options, &inputs(20), &[]).unwrap();
    let one = play(&world, &["nothing", "keep-warm"]);
    let mut other = one.clone();
    other.ratios[1].p99_ms = one.ratios[1].p99_ms.map(|ratio| 4.0 * ratio);
    let paired = paired_arms(&[one.clone(), other]);
    let of = |metric: &str| paired.iter().find(|it| it.name == "keep-warm" && it.metric == metric).unwrap();
    assert!((of("p99Ms").ratio / one.ratios[1].p99_ms.unwrap() - 2.0).abs() < 1e-9);
    assert_eq!((of("p99Ms").seeds, of("meanMs").low), (2, of("meanMs").high));
    assert!(paired_arms(&[]).is_empty());
}

#[test]
fn a_case_that_cannot_be_made_says_why() {
    let problem = |case, options: CaseOptions| {
        case_world(case, options, &ReplayInputs::default(), &[]).map(|_| ()).unwrap_err().to_string()
    };
    let spike = CaseOptions::new(PlanCase::Spike, 1);
    assert!(problem(PlanCase::Spike, spike.clone()).contains("crash"));
    assert!(problem(PlanCase::Day, CaseOptions::new(PlanCase::Day, 1)).contains("arrival traces"));
    assert!(problem(PlanCase::Spike, CaseOptions { load: f64::NAN, ..spike.clone() }).contains("load"));
    assert!(problem(PlanCase::Spike, CaseOptions { spike_minutes: [3.0, 5.0], ..spike }).contains("calmMinutes"));
}
