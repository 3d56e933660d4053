//! The simulator against what must hold: queueing theory, conservation, repeatability, the order of the history.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::ControlFlow;

use rand::Rng;
use shardwise_features::DecisionContext;
use shardwise_policies::{Decision, LeastInFlight, Policy, Rules, TwoChoicesInFlight, eligible};
use shardwise_types::{HistoryRecord, NoEligibleShard, Timestamp};

use crate::*;

#[derive(Default)]
pub(crate) struct RoundRobin {
    next: usize,
    stride: usize,
    candidates: Vec<usize>,
}

impl RoundRobin {
    pub(crate) fn boxed(stride: usize) -> Box<dyn Policy> {
        Box::new(Self { stride, ..Self::default() })
    }
}

impl Policy for RoundRobin {
    fn name(&self) -> &'static str {
        "round_robin"
    }

    fn decide(&mut self, context: &DecisionContext<'_>, _rng: &mut dyn Rng) -> Result<Decision, NoEligibleShard> {
        eligible(context, &Rules::default(), &mut self.candidates)?;
        self.next += self.stride;
        let n = self.candidates.len();
        Ok(Decision::by_rule(self.candidates[self.next % n], 1.0, n))
    }
}

pub(crate) fn start() -> Timestamp {
    "2026-01-05T12:00:00Z".parse().unwrap()
}

/// One shard, one function of 1 ms, exponential service, no distance, nothing that goes wrong.
pub(crate) fn textbook(cores: f32) -> WorldSpec {
    let options = FleetOptions { shards: 1, functions: 1, net_scale: 0.0, heterogeneity: 0.0, ..Default::default() };
    let mut world = WorldSpec::generate(1, &options);
    world.shards[0].shape.cores = cores;
    world.shards[0].antagonist = None;
    let function = &mut world.functions[0];
    (function.base_ms, function.load_ms, function.exchange_calls) = (1.0, 0.0, 0);
    world.timing.service_noise = ServiceNoise::Exponential;
    world.timing.failure_rate = 0.0;
    world.timing.timeout_ms = 1e6;
    world
}

pub(crate) fn poisson(world: &WorldSpec, seed: u64, duration_ms: f64, load: f64) -> Workload {
    let options = WorkloadOptions {
        process: ArrivalProcess::Poisson,
        complexity_sigma: 0.0,
        ..WorkloadOptions::new(start(), duration_ms, load)
    };
    let mut workload = Workload::generate(world, seed, &options).unwrap();
    workload.arrivals.iter_mut().for_each(|arrival| arrival.request.residency = None);
    workload
}

/// Sums what the shards measured.
#[derive(Default)]
struct Means {
    outcomes: f64,
    queue_ms: f64,
    on_shard_ms: f64,
    samples: f64,
    occupancy: f64,
}

impl Recorder for Means {
    fn wants_history(&self) -> bool {
        true
    }

    fn record(&mut self, record: HistoryRecord) -> ControlFlow<()> {
        match record {
            HistoryRecord::Outcome(outcome) => {
                self.outcomes += 1.0;
                self.queue_ms += f64::from(outcome.response.queue_ms);
                self.on_shard_ms += f64::from(outcome.response.queue_ms + outcome.response.exec_ms);
            }
            HistoryRecord::Report(report) => {
                self.samples += 1.0;
                self.occupancy += f64::from(report.report.queue_len + report.report.running);
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

fn mean_wait_ms(cores: f32, load: f64) -> f64 {
    let world = textbook(cores);
    let workload = poisson(&world, 11, 350_000.0 / f64::from(cores), load);
    let mut means = Means::default();
    simulate(&world, &workload, 5, vec![RoundRobin::boxed(1)], &mut means).unwrap();
    means.queue_ms / means.outcomes
}

#[test]
fn one_server_waits_as_long_as_theory_says() {
    // M/M/1: ρ / (μ − λ).
    let (theory_ms, measured_ms) = (0.5 / 0.5, mean_wait_ms(1.0, 0.5));
    assert!((measured_ms / theory_ms - 1.0).abs() < 0.02, "{measured_ms} ms, should be {theory_ms}");
}

#[test]
fn several_servers_wait_as_long_as_theory_says() {
    // M/M/c by Erlang's C formula, for c = 3 and offered 1.8.
    let offered: f64 = 1.8;
    let waiting = offered.powi(3) / 6.0 / (1.0 - offered / 3.0);
    let probability = waiting / (1.0 + offered + offered.powi(2) / 2.0 + waiting);
    let theory_ms = probability / (3.0 - offered);
    let measured_ms = mean_wait_ms(3.0, 0.6);
    assert!((measured_ms / theory_ms - 1.0).abs() < 0.02, "{measured_ms} ms, should be {theory_ms}");
}

#[test]
fn littles_law_holds_on_the_fleet() {
    let mut world = WorldSpec::generate(4, &FleetOptions { shards: 6, ..FleetOptions::default() });
    world.timing.report_interval_ms = 10.0;
    world.timing.report_jitter_ms = 1.0;
    world.timing.report_loss = 0.0;
    let workload = poisson(&world, 2, 60_000.0, 0.4);
    let mut means = Means::default();
    let policy = Box::new(LeastInFlight::default());
    let summary = simulate(&world, &workload, 3, vec![policy], &mut means).unwrap();
    assert_eq!(summary.counts.timeouts, 0, "a timeout hides its time on the shard");
    let rate_per_ms = means.outcomes / 60_000.0;
    let by_law = rate_per_ms * means.on_shard_ms / means.outcomes;
    let sampled = means.occupancy / means.samples * 6.0;
    assert!((sampled / by_law - 1.0).abs() < 0.03, "{sampled} on the shards, the law says {by_law}");
}

fn fleet(routers: usize) -> WorldSpec {
    WorldSpec::generate(7, &FleetOptions { routers, ..FleetOptions::default() })
}

fn traffic(world: &WorldSpec, load: f64) -> Workload {
    Workload::generate(world, 9, &WorkloadOptions::new(start(), 5_000.0, load)).unwrap()
}

fn play(world: &WorldSpec, workload: &Workload, stride: usize, recorder: &mut dyn Recorder) -> RunSummary {
    let policies = world.routers.iter().map(|_| RoundRobin::boxed(stride)).collect();
    simulate(world, workload, 3, policies, recorder).unwrap()
}

#[test]
fn every_request_is_accounted_for() {
    let mut world = fleet(2);
    world.timing.timeout_ms = 400.0;
    for (load, shards) in [(0.6, 20), (3.0, 20), (3.0, 4)] {
        world.shards.truncate(shards);
        let summary = play(&world, &traffic(&world, load), 1, &mut NoRecorder);
        let counts = summary.counts;
        let settled = counts.completed + counts.failed + counts.timeouts + counts.refused;
        assert_eq!((counts.arrivals, counts.in_flight), (settled, 0), "{counts:?}");
        assert!(counts.dropped <= counts.timeouts);
        assert!(load < 1.0 || counts.dropped > 0, "an overloaded shard drops what is too late: {counts:?}");
        assert_eq!(shards == 4, counts.refused > 0, "whales find no shard among four: {counts:?}");
    }
}

fn digest(records: &[HistoryRecord]) -> u64 {
    let mut hasher = DefaultHasher::new();
    records.iter().for_each(|record| format!("{record:?}").hash(&mut hasher));
    hasher.finish()
}

#[test]
fn the_same_seed_tells_the_same_story() {
    let world = fleet(2);
    let workload = traffic(&world, 0.7);
    let run = |seed| {
        let mut kept = KeepAll { features_every: 50, ..KeepAll::default() };
        let policies = (0..2).map(|_| Box::new(TwoChoicesInFlight::default()) as Box<dyn Policy>).collect();
        let summary = simulate(&world, &workload, seed, policies, &mut kept).unwrap();
        (digest(&kept.records), summary)
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3).0, run(4).0);
}

#[test]
fn watching_changes_nothing() {
    let world = fleet(1);
    let workload = traffic(&world, 0.7);
    assert_eq!(play(&world, &workload, 1, &mut KeepAll::default()), play(&world, &workload, 1, &mut NoRecorder));
}

/// Execution of each request that was answered, by arrival.
fn executions(kept: &KeepAll) -> Vec<(u64, f32)> {
    let mut executions: Vec<(u64, f32)> = kept
        .records
        .iter()
        .filter_map(|record| match record {
            HistoryRecord::Outcome(outcome) => Some((outcome.decision_id, outcome.response.exec_ms)),
            _ => None,
        })
        .collect();
    executions.sort_by_key(|(decision, _)| *decision);
    executions
}

#[test]
fn a_request_draws_the_same_noise_wherever_it_goes() {
    let mut world = WorldSpec::generate(7, &FleetOptions { heterogeneity: 0.0, ..FleetOptions::default() });
    world.functions.iter_mut().for_each(|function| function.load_ms = 0.0);
    world.timing.memory_slowdown = 1.0;
    world.shards.iter_mut().for_each(|shard| {
        (shard.antagonist, shard.shape.max_amount_usd) = (None, None);
    });
    let mut workload = traffic(&world, 0.4);
    workload.arrivals.iter_mut().for_each(|arrival| arrival.request.residency = None);
    let [one, other] = [1, 7].map(|stride| {
        let mut kept = KeepAll::default();
        assert_eq!(play(&world, &workload, stride, &mut kept).counts.timeouts, 0);
        kept
    });
    assert_ne!(digest(&one.records), digest(&other.records), "they went elsewhere");
    assert_eq!(executions(&one), executions(&other));
}

#[test]
fn the_history_is_in_order_and_reports_come_late() {
    let world = fleet(2);
    let workload = traffic(&world, 0.7);
    let mut kept = KeepAll::default();
    let summary = play(&world, &workload, 1, &mut kept);
    assert!(kept.records.is_sorted_by_key(HistoryRecord::order));
    let mut decisions = Vec::new();
    let mut last_report = std::collections::BTreeMap::new();
    for record in &kept.records {
        match record {
            HistoryRecord::Decision(decision) => decisions.push(decision.decision_id),
            HistoryRecord::Report(report) => {
                let clocks = &report.report;
                assert!(clocks.known_at > clocks.event_at);
                let before = last_report.insert(report.shard.clone(), clocks.event_at);
                assert!(before.is_none_or(|before| before < clocks.event_at), "{}", report.shard);
            }
            HistoryRecord::Outcome(outcome) => assert!(outcome.known_at >= outcome.event_at),
            HistoryRecord::Market(_) => {}
            HistoryRecord::Shadow(_) => unreachable!("a simulated router has no challenger"),
            HistoryRecord::Directive(_) => unreachable!("nobody moves the furniture"),
        }
    }
    assert_eq!(last_report.len(), 20);
    assert_eq!(decisions.len() as u64 + summary.counts.refused, summary.counts.arrivals);
    assert!(decisions.iter().any(|id| id >> 40 == 1), "the second router's ids have their own range");
    decisions.sort_unstable();
    decisions.dedup();
    assert_eq!(decisions.len() as u64 + summary.counts.refused, summary.counts.arrivals, "ids are unique");
}

#[test]
fn logged_features_are_those_of_every_eligible_shard() {
    let world = fleet(1);
    let mut kept = KeepAll { features_every: 10, ..KeepAll::default() };
    play(&world, &traffic(&world, 0.5), 1, &mut kept);
    let mut logged = 0;
    for record in &kept.records {
        let HistoryRecord::Decision(decision) = record else { continue };
        let wanted = decision.decision_id.is_multiple_of(10);
        assert_eq!(decision.logged_shards.len() as u32, if wanted { decision.eligible } else { 0 });
        assert_eq!(decision.logged_features.len(), decision.logged_shards.len() * shardwise_features::FEATURE_COUNT);
        logged += u32::from(wanted);
    }
    assert!(logged > 100, "{logged}");
}

#[test]
fn a_history_can_be_played_again() {
    let world = fleet(2);
    let workload = traffic(&world, 0.5);
    let mut kept = KeepAll::default();
    let first = play(&world, &workload, 1, &mut kept);
    let (mut decisions, mut market) = (Vec::new(), Vec::new());
    for record in kept.records {
        match record {
            HistoryRecord::Decision(decision) => decisions.push(*decision),
            HistoryRecord::Market(record) => market.push(record),
            _ => {}
        }
    }
    decisions.reverse();
    let again = Workload::from_decisions(&world, decisions.clone(), market, workload.start).unwrap();
    assert_eq!(first.counts.refused, 0);
    assert_eq!(again.arrivals, workload.arrivals);
    let mut smaller = world.clone();
    smaller.functions.truncate(1);
    let error = Workload::from_decisions(&smaller, decisions, Vec::new(), workload.start).unwrap_err();
    assert!(error.to_string().contains("the world has no function"), "{error}");
}

#[test]
fn a_replay_of_traces_runs_in_its_world() {
    let percentiles = |median: f32| shardwise_types::Percentiles {
        points: vec![(25.0, 0.7 * median), (50.0, median), (75.0, 1.5 * median), (99.0, 5.0 * median)],
        mean: 1.2 * median,
        samples: 100.0,
    };
    let trace = |index: u32| shardwise_types::ArrivalTrace {
        function: format!("series-{index}"),
        per_minute: (0..1440).map(|minute| (minute * 7 + index) % 20).collect(),
    };
    let inputs = ReplayInputs {
        arrivals: (0..40).map(trace).collect(),
        durations_ms: (1..50_u16).map(|i| percentiles(f32::from(i) * 20.0)).collect(),
        market: generate_bars(1, 200),
        ..ReplayInputs::default()
    };
    let (world, workload) = world_and_workload(&inputs, &ReplayOptions::new(1, start(), 0.5)).unwrap();
    let policies = (0..2).map(|_| Box::new(LeastInFlight::default()) as Box<dyn Policy>).collect();
    let summary = simulate(&world, &workload, 1, policies, &mut NoRecorder).unwrap();
    assert_eq!(summary.counts.arrivals, workload.arrivals.len() as u64);
    assert!(summary.counts.completed as f64 > 0.99 * summary.counts.arrivals as f64, "{:?}", summary.counts);
    assert!((workload.offered_load(&world) / summary.core_use - 1.0).abs() < 0.5, "{}", summary.core_use);
}

struct Impatient(usize);

impl Recorder for Impatient {
    fn wants_history(&self) -> bool {
        true
    }

    fn record(&mut self, _record: HistoryRecord) -> ControlFlow<()> {
        self.0 -= 1;
        if self.0 == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

#[test]
fn an_interrupted_run_ends() {
    let world = fleet(1);
    let workload = traffic(&world, 0.7);
    for patience in [1, 20, 2_000] {
        let mut recorder = Impatient(patience);
        let counts = play(&world, &workload, 1, &mut recorder).counts;
        assert_eq!(recorder.0, 0, "no record comes after the end");
        assert!(counts.arrivals < workload.arrivals.len() as u64);
        let settled = counts.completed + counts.failed + counts.timeouts + counts.refused;
        assert_eq!(counts.arrivals, settled + counts.in_flight);
    }
}

#[test]
fn faults_are_felt_and_end() {
    let mut world = textbook(1.0);
    let fault = |kind| vec![Fault { from_ms: 0.0, until_ms: 10_000.0, kind }];
    let workload = poisson(&world, 1, 20_000.0, 0.2);
    let run = |world: &WorldSpec| {
        let whole = SimulateOptions { warm_up: 0.0, ..SimulateOptions::default() };
        simulate_with(world, &workload, 1, vec![RoundRobin::boxed(1)], &mut NoRecorder, &whole).unwrap()
    };
    let sound = run(&world);
    world.shards[0].faults = fault(FaultKind::Slow(3.0));
    let slow = run(&world);
    assert!(slow.timeline[5].mean_ms > 2.5 * sound.timeline[5].mean_ms);
    assert_eq!(slow.timeline[15], sound.timeline[15], "what came after the fault is as without it");
    world.shards[0].faults = fault(FaultKind::Failing(0.5));
    assert!((run(&world).error_rate - 0.25).abs() < 0.03);
    world.shards[0].faults = fault(FaultKind::Unhealthy);
    let refused = run(&world).counts.refused as f64 / workload.arrivals.len() as f64;
    assert!((refused - 0.5).abs() < 0.06, "until the next report, {refused}");
}

#[test]
fn wrong_inputs_are_refused() {
    let world = fleet(2);
    let workload = traffic(&world, 0.1);
    let run = |world: &WorldSpec, workload: &Workload, policies| {
        let policies = (0..policies).map(|_| RoundRobin::boxed(1)).collect();
        simulate(world, workload, 1, policies, &mut NoRecorder).unwrap_err().to_string()
    };
    assert!(run(&world, &workload, 1).contains("1 policies for 2 routers"));
    let mut unsorted = workload.clone();
    unsorted.arrivals.swap(0, 1);
    assert!(run(&world, &unsorted, 2).contains("arrival 1"));
    let mut bad = world.clone();
    bad.timing.report_loss = 2.0;
    assert!(run(&bad, &workload, 2).contains("reportLoss"));
}
