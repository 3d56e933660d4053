//! Off-policy estimates: against the Open Bandit Pipeline, against runs of the target, and as a command.

use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use shardwise_datasets::Replay;
use shardwise_evaluation::ope::{
    CostModel, Estimate, Estimator, Limits, LogReader, Logs, OpeOptions, Round, estimate, off_policy,
};
use shardwise_policies::{Policy, SedSoftmax};
use shardwise_simulator::{
    ArrivalProcess, FleetOptions, KeepAll, NoRecorder, Workload, WorkloadOptions, WorldSpec, simulate,
};
use shardwise_training::{TrainingError, fit_cost_model};
use shardwise_types::{HistoryRecord, Timestamp};

use crate::python::python;
use crate::support::{json as run_json, night, refused, shardwise, skipped, text};

/// How many seeds each load is judged on; ten when it is not set.
const SEEDS: &str = "SHARDWISE_OPE_SEEDS";
/// The limits were set on seeds below 200.
const FIRST_SEED: u64 = 1_000;
const DURATION_MS: f64 = 10_000.0;
/// What the simulator does not measure.
const WARM_UP: f64 = 0.1;

struct Trees(shardwise_training::CostModel);

impl CostModel for Trees {
    fn predict_rows(&self, rows: &[f32], out: &mut [f64]) {
        self.0.predict_rows(rows, out);
    }
}

/// A world with traffic, and the seed of both.
struct Case {
    seed: u64,
    world: WorldSpec,
    workload: Workload,
}

/// What was said of a target that was run as well.
struct Judged {
    /// Estimate and the ends of its interval over the truth; `None` where none was given.
    ratios: Option<[f64; 3]>,
    logged: f64,
    refusals: Vec<String>,
}

impl Case {
    fn new(load: f64, process: ArrivalProcess, seed: u64) -> Self {
        let world = WorldSpec::generate(seed, &FleetOptions::default());
        let start = "2026-01-05T12:00:00Z".parse().expect("a time");
        let options = WorkloadOptions { process, ..WorkloadOptions::new(start, DURATION_MS, load) };
        let workload = Workload::generate(&world, seed, &options).expect("traffic");
        Self { seed, world, workload }
    }

    fn logging(&self) -> SedSoftmax {
        SedSoftmax::new(self.world.timing.runtime())
    }

    /// A local change: it draws a third less.
    fn target(&self) -> SedSoftmax {
        self.logging().exploring(0.2, 0.1)
    }

    fn mean_ms(&self) -> f64 {
        let policies = self.world.routers.iter().map(|_| Box::new(self.target()) as Box<dyn Policy>).collect();
        simulate(&self.world, &self.workload, self.seed, policies, &mut NoRecorder).expect("a run").mean_ms
    }

    fn logs(&self) -> Logs {
        let policies = self.world.routers.iter().map(|_| Box::new(self.logging()) as Box<dyn Policy>).collect();
        let mut log = KeepAll::default();
        simulate(&self.world, &self.workload, self.seed, policies, &mut log).expect("a run");
        let from: Timestamp = self.workload.start.plus_millis(WARM_UP * DURATION_MS);
        let mut reader = LogReader::new(Box::new(self.target()), self.world.timing.timeout_ms, from, 1);
        let mut replay = Replay::new(self.world.network.clone());
        for record in &log.records {
            match record {
                HistoryRecord::Decision(decision) => {
                    reader.decided(&replay.context(decision), decision).expect("it knows its odds");
                }
                HistoryRecord::Outcome(outcome) => reader.answered(outcome.decision_id, &outcome.response),
                HistoryRecord::Report(_)
                | HistoryRecord::Market(_)
                | HistoryRecord::Shadow(_)
                | HistoryRecord::Directive(_) => {}
            }
            replay.apply(record).expect("a sound log");
        }
        reader.finish()
    }

    fn judge(&self) -> Judged {
        let fit = &mut |rows: &[f32], costs: &[f64]| -> Result<Trees, TrainingError> {
            fit_cost_model(rows, costs, self.seed).map(Trees)
        };
        let logs = self.logs();
        let found = off_policy(&logs, fit, Limits::default(), &OpeOptions::default()).expect("models of costs");
        let truth_ms = self.mean_ms();
        let doubly_robust = |estimates: Vec<Estimate>| {
            let it = estimates.into_iter().find(|it| it.estimator == Estimator::Dr).expect("all are there");
            [it.mean_ms, it.low_ms, it.high_ms].map(|ms| ms / truth_ms)
        };
        Judged {
            ratios: found.estimates.map(doubly_robust),
            logged: found.logged_ms.expect("outcomes") / truth_ms,
            refusals: found.validity.refusals,
        }
    }
}

/// Judges so many seeds at a load, on two threads.
fn judge(load: f64, process: ArrivalProcess) -> Vec<Judged> {
    let seeds: u64 = std::env::var(SEEDS).map_or(10, |seeds| seeds.parse().expect("a number of seeds"));
    let half = |first: u64| (first..FIRST_SEED + seeds).step_by(2).map(|seed| Case::new(load, process, seed).judge());
    thread::scope(|scope| {
        let other = scope.spawn(|| half(FIRST_SEED + 1).collect::<Vec<_>>());
        let own: Vec<Judged> = half(FIRST_SEED).collect();
        own.into_iter().chain(other.join().expect("no thread panics")).collect()
    })
}

#[test]
fn estimates_of_a_local_change_are_near_the_truth_or_are_refused() {
    // At .7 queues are often long, and that is refused: of 200 seeds of Poisson traffic 91 were given.
    for (load, process, least_given) in
        [(0.5, ArrivalProcess::Market, 0.8), (0.7, ArrivalProcess::Poisson, 0.3), (0.7, ArrivalProcess::Market, 0.1)]
    {
        let judged = judge(load, process);
        let given: Vec<([f64; 3], f64)> =
            judged.iter().filter_map(|judged| Some((judged.ratios?, judged.logged))).collect();
        let share = |holds: &dyn Fn([f64; 3]) -> bool| {
            given.iter().filter(|(ratios, _)| holds(*ratios)).count() as f64 / given.len() as f64
        };
        let [covered, within] =
            [share(&|[_, low, high]| low <= 1.0 && 1.0 <= high), share(&|[mean, ..]| (mean - 1.0).abs() < 0.08)];
        let mean = |of: fn(&([f64; 3], f64)) -> f64| given.iter().map(of).sum::<f64>() / given.len() as f64;
        println!(
            "load {load}, {process:?}: {} of {} given; {covered:.3} cover the truth, {within:.3} within 8 %; worst {:.3}, mean error {:.4}, \
             mean size of errors {:.4}, half the intervals' width {:.4}; the logged mean is off by {:.4}",
            given.len(),
            judged.len(),
            given.iter().map(|([mean, ..], _)| (mean - 1.0).abs()).fold(0.0, f64::max),
            mean(|([mean, ..], _)| mean - 1.0),
            mean(|([mean, ..], _)| (mean - 1.0).abs()),
            mean(|([_, low, high], _)| (high - low) / 2.0),
            mean(|(_, logged)| logged - 1.0),
        );
        assert!(given.len() as f64 >= least_given * judged.len() as f64, "refused too often at load {load}");
        // Seven in a hundred may miss; of few, one.
        let least = 1.0 - 0.07_f64.max(1.0 / given.len() as f64) - 1e-9;
        assert!(covered >= least, "{covered} cover the truth at load {load}");
        assert!(within >= least, "{within} within 8 % at load {load}");
    }
    let judged = judge(0.85, ArrivalProcess::Market);
    let refused = judged.iter().filter(|judged| judged.ratios.is_none() && !judged.refusals.is_empty()).count();
    let given: Vec<[f64; 3]> = judged.iter().filter_map(|judged| judged.ratios).collect();
    println!("load 0.85: {refused} of {} refused, such as: {}", judged.len(), judged[0].refusals.join("; "));
    println!("given (over the truth): {given:?}");
    assert_eq!(refused, judged.len());
}

/// A bandit's log with all that estimators ask for: (log for obp, the same as rounds).
fn bandit(seed: u64, sharpness: f64) -> (Value, Vec<Round>) {
    const ARMS: usize = 5;
    let mut rng = StdRng::seed_from_u64(seed);
    let mut odds = |sharpness: f64| -> Vec<f64> {
        let weights: Vec<f64> = (0..ARMS).map(|_| (sharpness * rng.random::<f64>()).exp()).collect();
        let all: f64 = weights.iter().sum();
        weights.iter().map(|weight| weight / all).collect()
    };
    let drawn: Vec<[Vec<f64>; 4]> = (0..3_000).map(|_| [odds(4.0), odds(sharpness), odds(1.0), odds(0.5)]).collect();
    let mut log = json!({"action": [], "reward": [], "pscore": [], "action_dist": [], "predicted": []});
    let mut push = |key: &str, value: Value| log[key].as_array_mut().expect("a list").push(value);
    let mut rounds = Vec::new();
    for (n, [logging, target, costs, noise]) in drawn.iter().enumerate() {
        let costs: Vec<f64> = costs.iter().map(|cost| 100.0 * cost).collect();
        let predicted: Vec<f64> = costs.iter().zip(noise).map(|(cost, noise)| cost * (0.5 + 3.0 * noise)).collect();
        let mut left = rng.random::<f64>();
        let passed = |odds: &f64| {
            left -= odds;
            left < 0.0
        };
        let arm = logging.iter().position(passed).unwrap_or(ARMS - 1);
        let reward = costs[arm] * (0.5 + rng.random::<f64>());
        rounds.push(Round {
            at_ns: n as i64,
            weight: target[arm] / logging[arm],
            outcome: reward,
            predicted: predicted[arm],
            predicted_target: target.iter().zip(&predicted).map(|(odds, ms)| odds * ms).sum(),
        });
        push("action", arm.into());
        push("reward", reward.into());
        push("pscore", logging[arm].into());
        push("action_dist", target.clone().into());
        push("predicted", predicted.into());
    }
    (log, rounds)
}

/// What asks obp. Its estimators import PyTorch and pandas only to ask whether their input is theirs, and the package itself
/// imports what draws: neither is needed for numbers, nor installed.
const OBP: &str = r#"
import importlib.util, json, sys, types
import numpy as np
for name, member in [("torch", "Tensor"), ("pandas", "DataFrame")]:
    if importlib.util.find_spec(name) is None:
        sys.modules[name] = types.ModuleType(name)
        setattr(sys.modules[name], member, type(member, (), {}))
ope = types.ModuleType("obp.ope")
ope.__path__ = [importlib.util.find_spec("obp").submodule_search_locations[0] + "/ope"]
sys.modules["obp.ope"] = ope
from obp.ope import estimators as obp
log = {name: np.array(values) for name, values in json.load(sys.stdin).items()}
switch_at, shrinkage = log.pop("switch_at").item(), log.pop("shrinkage").item()
log["action_dist"], q = log["action_dist"][:, :, None], log.pop("predicted")[:, :, None]
weighted = [obp.InverseProbabilityWeighting(), obp.SelfNormalizedInverseProbabilityWeighting()]
robust = [
    obp.DoublyRobust(), obp.SelfNormalizedDoublyRobust(),
    obp.SwitchDoublyRobust(tau=switch_at), obp.DoublyRobustWithShrinkage(lambda_=shrinkage),
]
values = [obp.DirectMethod().estimate_policy_value(action_dist=log["action_dist"], estimated_rewards_by_reg_model=q)]
values += [estimator.estimate_policy_value(**log) for estimator in weighted]
values += [estimator.estimate_policy_value(**log, estimated_rewards_by_reg_model=q) for estimator in robust]
print(json.dumps(values))
"#;

/// Values of obp, in the order of [`Estimator::ALL`].
fn by_obp(python: &std::path::Path, log: &Value) -> Vec<f64> {
    let mut child = Command::new(python)
        .args(["-c", OBP])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python starts");
    child.stdin.take().expect("a pipe").write_all(log.to_string().as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("a list of numbers")
}

#[test]
fn estimators_are_those_of_the_open_bandit_pipeline() {
    let Some(python) = python() else { return };
    let has_obp = Command::new(&python).args(["-c", "import obp"]).output().expect("python starts");
    if !has_obp.status.success() {
        skipped("obp cannot be imported; `cargo dev setup` installs it");
        return;
    }
    // A target that draws almost evenly, one like the log, and one that hardly draws at all.
    for (seed, sharpness) in [(1, 0.5), (2, 4.0), (3, 60.0)] {
        let (mut log, rounds) = bandit(seed, sharpness);
        let options = OpeOptions { switch_at: 3.0, shrinkage: 5.0, ..OpeOptions::default() };
        (log["switch_at"], log["shrinkage"]) = (options.switch_at.into(), options.shrinkage.into());
        assert!(rounds.iter().any(|round| round.weight > options.switch_at), "the switch must matter");
        let expected = by_obp(&python, &log);
        let found = estimate(&rounds, &options);
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            let off = (found.mean_ms / expected - 1.0).abs();
            assert!(off < 1e-9, "{:?}: {} here, {expected} there", found.estimator, found.mean_ms);
        }
    }
}

#[test]
fn a_policy_costs_what_was_logged_when_it_is_the_one_that_logged() {
    let history = night().path("history");
    let said = run_json(&["evaluate", "ope", "--policy", "sed_tab_softmax", "--history", text(&history)]);
    let logged_ms = said["logged_ms"].as_f64().expect("a mean");
    assert!(said["support"]["effective_share"].as_f64().expect("a share") > 0.999_999, "{said}");
    assert_eq!(said["counts"]["unknown"], 0);
    let settled = said["counts"]["settled"].as_u64().expect("a count");
    let censored = said["counts"]["censored"].as_u64().expect("a count");
    assert_eq!(said["counts"]["decisions"].as_u64().expect("a count"), settled + censored);
    let estimates = said["estimates"].as_array().unwrap_or_else(|| panic!("{said}"));
    assert_eq!(estimates.len(), Estimator::ALL.len());
    for estimate in estimates.iter().filter(|estimate| estimate["estimator"] != "dm") {
        let mean_ms = estimate["mean_ms"].as_f64().expect("a mean");
        assert!((mean_ms / logged_ms - 1.0).abs() < 0.01, "{estimate} of {logged_ms}");
    }
}

#[test]
fn what_moves_too_much_is_refused_with_reasons() {
    let (history, models) = (night().path("history"), night().path("work/models"));
    let said = run_json(&["evaluate", "ope", "--models", text(&models), "--history", text(&history)]);
    assert_eq!(said["estimates"], Value::Null, "{said}");
    let reasons = said["refusals"].to_string();
    assert!(reasons.contains("of the core time to other shards"), "{reasons}");
    let printed = shardwise(&["evaluate", "ope", "--policy", "sed_tab_lambda", "--history", text(&history)]);
    assert_eq!(printed.status.code(), Some(0));
    let printed = String::from_utf8(printed.stdout).expect("UTF-8");
    assert!(printed.contains("no estimate:\n- ") && !printed.contains("Switch-DR"), "{printed}");
    for (policy, words) in [("c3", "cannot say how probable"), ("nobody", "no policy 'nobody'")] {
        let said = refused(&["evaluate", "ope", "--policy", policy, "--history", text(&history)]);
        assert!(said.contains(words), "'{words}' is not in: {said}");
    }
}
