//! The simulator against queueing theory and against published set-ups whose ordering of policies is known.

use std::ops::ControlFlow;

use rand::{Rng, RngExt};
use shardwise_features::DecisionContext;
use shardwise_policies::{Decision, Policy, Random, Rules, TwoChoicesInFlight, by_name, eligible};
use shardwise_types::{HistoryRecord, NoEligibleShard};

use crate::conformance::{RoundRobin, poisson, textbook};
use crate::*;

/// So many identical shards of one core instead of one.
fn many(shards: usize) -> WorldSpec {
    let mut world = textbook(1.0);
    let one = world.shards[0].clone();
    world.shards = (0..shards).map(|n| ShardSpec { id: format!("shard-{n:03}").into(), ..one.clone() }).collect();
    world
}

/// Occupancy of the shards as they report it.
struct Occupancies(Vec<u64>);

impl Recorder for Occupancies {
    fn wants_history(&self) -> bool {
        true
    }

    fn record(&mut self, record: HistoryRecord) -> ControlFlow<()> {
        if let HistoryRecord::Report(report) = record {
            let occupancy = (report.report.queue_len + report.report.running) as usize;
            self.0.resize(self.0.len().max(occupancy + 1), 0);
            self.0[occupancy] += 1;
        }
        ControlFlow::Continue(())
    }
}

#[test]
fn two_choices_have_the_tail_of_their_fixed_point() {
    // Mitzenmacher: the share of servers with at least k requests is λ^(2^k − 1).
    let mut world = many(500);
    world.timing.report_interval_ms = 5.0;
    world.timing.report_jitter_ms = 1.0;
    world.timing.report_loss = 0.0;
    let load: f64 = 0.8;
    let workload = poisson(&world, 3, 1_000.0, load);
    let mut seen = Occupancies(Vec::new());
    simulate(&world, &workload, 3, vec![Box::new(TwoChoicesInFlight::default())], &mut seen).unwrap();
    let all: u64 = seen.0.iter().sum();
    for k in 1..=4_u32 {
        let at_least = seen.0[k as usize..].iter().sum::<u64>() as f64 / all as f64;
        let theory = load.powi(2_i32.pow(k) - 1);
        assert!((at_least - theory).abs() < 0.02 * theory + 0.004, "at least {k}: {at_least}, should be {theory}");
    }
}

#[test]
fn shared_cores_take_as_long_as_theory_says() {
    // M/M/1 under processor sharing has the mean of first come first served, 1 / (μ − λ).
    let mut world = textbook(1.0);
    world.timing.discipline = Discipline::ProcessorSharing;
    let workload = poisson(&world, 11, 350_000.0, 0.5);
    let run = |world: &WorldSpec| simulate(world, &workload, 5, vec![RoundRobin::boxed(1)], &mut NoRecorder).unwrap();
    let shared = run(&world);
    assert!((shared.mean_ms / 2.0 - 1.0).abs() < 0.02, "{} ms, should be 2", shared.mean_ms);
    // Its mean depends on the mean of the work alone, unlike that of first come first served.
    world.timing.service_noise = ServiceNoise::LogNormal;
    world.timing.tail_share = 0.0;
    let log_sd: f64 = 1.2;
    world.functions[0].log_sd = log_sd;
    world.functions[0].base_ms = (-log_sd * log_sd / 2.0).exp();
    let uneven = run(&world);
    assert!((uneven.mean_ms / 2.0 - 1.0).abs() < 0.04, "{} ms, should be 2 whatever the spread", uneven.mean_ms);
    world.timing.discipline = Discipline::FirstComeFirstServed;
    assert!(run(&world).mean_ms > 1.25 * uneven.mean_ms, "Pollaczek and Khinchine: long ones hold up short ones");
}

/// The least in flight among so many drawn at random.
struct PowerOf {
    choices: usize,
    candidates: Vec<usize>,
}

impl Policy for PowerOf {
    fn name(&self) -> &'static str {
        "power_of"
    }

    fn decide(&mut self, context: &DecisionContext<'_>, rng: &mut dyn Rng) -> Result<Decision, NoEligibleShard> {
        eligible(context, &Rules::default(), &mut self.candidates)?;
        let n = self.candidates.len();
        for place in 0..self.choices.min(n) {
            let other = rng.random_range(place..n);
            self.candidates.swap(place, other);
        }
        let in_flight =
            |position: &usize| context.router.in_flight(&context.fleet.shards[*position].id, context.decided_at);
        let drawn = &self.candidates[..self.choices.min(n)];
        let least = drawn.iter().min_by(|a, b| in_flight(a).total_cmp(&in_flight(b))).expect("one at least is drawn");
        Ok(Decision::by_rule(*least, 1.0, n))
    }
}

fn power_of(choices: usize) -> Box<dyn Policy> {
    Box::new(PowerOf { choices, candidates: Vec::new() })
}

fn mean_ms(world: &WorldSpec, workload: &Workload, policy: Box<dyn Policy>) -> f64 {
    simulate(world, workload, 7, vec![policy], &mut NoRecorder).unwrap().mean_ms
}

#[test]
fn eight_unequal_servers_order_policies_as_published() {
    // The load-balancing problem of CausalSim (NSDI 2023): 8 servers, slowdowns 5^U(−1, 1), policies that sample more
    // queues are better, up to the shortest of all. Load 0.6.
    let mut world = many(8);
    let mut rng = stream(4, Purpose::Scenario, 0);
    world.shards.iter_mut().for_each(|shard| shard.speed.base = 5.0_f64.powf(rng.random_range(-1.0..1.0)));
    let workload = poisson(&world, 5, 100_000.0, 0.6 * capacity_of_even_spread(&world));
    let means: Vec<f64> = (1..=5).chain([8]).map(|choices| mean_ms(&world, &workload, power_of(choices))).collect();
    assert!(means.is_sorted_by(|fewer, more| fewer > more), "random, P2 … P5, shortest queue: {means:?}");
    assert!(means[0] > 3.0 * means[1], "random overloads the slow ones: {means:?}");
}

/// Load is counted as if requests were spread evenly; of the true capacity that is this share.
fn capacity_of_even_spread(world: &WorldSpec) -> f64 {
    let n = world.shards.len() as f64;
    let speed: f64 = world.shards.iter().map(|shard| shard.speed.base).sum::<f64>() / n;
    let slowness: f64 = world.shards.iter().map(|shard| 1.0 / shard.speed.base).sum::<f64>() / n;
    speed * slowness
}

#[test]
fn ten_servers_and_pareto_jobs_order_policies_as_published() {
    // The load-balancing environment of Park (NeurIPS 2019): rates 0.15 to 1.05, Pareto sizes (shape 1.5, scale 100),
    // one every 55 units on average. Sizes and
    // rates are known there: least work left beats the shortest queue, which beats two choices, which beat chance.
    let mut world = many(10);
    for (shard, rate) in world.shards.iter_mut().zip(0_u8..) {
        shard.speed.base = 0.15 + 0.1 * f64::from(rate);
    }
    world.timing.service_noise = ServiceNoise::LogNormal;
    (world.timing.tail_share, world.timing.tail_exponent, world.timing.tail_cap) = (1.0, 1.5, 1e4);
    (world.timing.timeout_ms, world.timing.warm_ttl_ms) = (1e9, 1e9);
    world.timing.report_interval_ms = 1_000.0;
    (world.functions[0].base_ms, world.functions[0].log_sd) = (1.0, 0.0);
    // Sizes in units of 100: one every 0.55 ms.
    let mut workload = poisson(&world, 6, 60_000.0, 0.5);
    let stretch = 0.55 * workload.arrivals.len() as f64 / 60_000.0;
    for arrival in &mut workload.arrivals {
        let at_ms = arrival.at.millis_since(workload.start) * stretch;
        arrival.at = workload.start.plus_millis(at_ms);
    }
    workload.end = workload.start.plus_millis(60_000.0 * stretch);
    let named = |name: &str| mean_ms(&world, &workload, by_name(name, world.timing.runtime()).unwrap());
    let random = mean_ms(&world, &workload, Box::new(Random::default()));
    let (two, least) = (named("p2c_in_flight"), named("least_in_flight"));
    let oracle = vec![Player::knowing("oracle_greedy").unwrap()];
    let least_work =
        simulate_with(&world, &workload, 7, oracle, &mut NoRecorder, &SimulateOptions::default()).unwrap().mean_ms;
    let all = [random, two, least, least_work];
    assert!(all.is_sorted_by(|worse, better| *worse > 1.2 * better), "{all:?}");
}
