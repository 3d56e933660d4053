//! What may happen to a request beside the usual: copies, calling off, trying again, probes, notices of idle cores. And
//! the players that know the truth.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rand::Rng;
use shardwise_features::DecisionContext;
use shardwise_policies::{Decision, LeastInFlight, Outstanding, Policy, ProbeAnswer, by_name};
use shardwise_types::{ErrorClass, HistoryRecord, NoEligibleShard, ShardId};

use crate::conformance::{poisson, start, textbook};
use crate::*;

/// Sends a copy of what is out after a while, and counts what it hears.
struct Curious {
    inner: LeastInFlight,
    look_again_ms: Option<f64>,
    heard: &'static [AtomicU64; 3],
}

impl Policy for Curious {
    fn name(&self) -> &'static str {
        "curious"
    }

    fn decide(&mut self, context: &DecisionContext<'_>, rng: &mut dyn Rng) -> Result<Decision, NoEligibleShard> {
        self.inner.decide(context, rng)
    }

    fn look_again_ms(&mut self, _context: &DecisionContext<'_>, _decision: &Decision) -> Option<f64> {
        self.look_again_ms
    }

    fn copy_to(&mut self, context: &DecisionContext<'_>, outstanding: &Outstanding) -> Option<usize> {
        self.heard[0].fetch_add(u64::from(outstanding.started), Relaxed);
        Some((outstanding.position + 1) % context.fleet.shards.len())
    }

    fn probe(&mut self, context: &DecisionContext<'_>, _rng: &mut dyn Rng, out: &mut Vec<usize>) {
        out.extend(0..context.fleet.shards.len().min(2));
    }

    fn on_probe(&mut self, answer: &ProbeAnswer<'_>) {
        self.heard[1].fetch_add(u64::from(answer.latency_ms.is_some()), Relaxed);
    }

    fn wants_idle_notices(&self) -> bool {
        true
    }

    fn on_idle(&mut self, _shard: &ShardId) {
        self.heard[2].fetch_add(1, Relaxed);
    }
}

fn curious(look_again_ms: Option<f64>, heard: &'static [AtomicU64; 3]) -> Box<dyn Policy> {
    Box::new(Curious { inner: LeastInFlight::default(), look_again_ms, heard })
}

/// Two single-core shards with one function of 1 ms, some of whose runs take up to 300 times as long.
fn two_shards(discipline: Discipline) -> WorldSpec {
    let mut world = textbook(1.0);
    let twin = ShardSpec { id: "shard-twin".into(), ..world.shards[0].clone() };
    world.shards.push(twin);
    world.timing.discipline = discipline;
    world.network.rtt_ms.fill(0.2);
    world
}

#[test]
fn copies_race_and_the_loser_is_called_off() {
    static HEARD: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
    for discipline in [Discipline::FirstComeFirstServed, Discipline::ProcessorSharing] {
        let mut world = two_shards(discipline);
        // One shard stalls now and then, so that a copy on the other wins.
        let stalls = (0..20).map(|n| f64::from(n) * 1_000.0);
        world.shards[0].faults =
            stalls.map(|from_ms| Fault { from_ms, until_ms: from_ms + 100.0, kind: FaultKind::Slow(200.0) }).collect();
        let workload = poisson(&world, 2, 20_000.0, 0.2);
        let run = |policy| {
            let mut kept = KeepAll::default();
            let summary = simulate(&world, &workload, 1, vec![policy], &mut kept).unwrap();
            (summary, kept)
        };
        let (alone, _) = run(curious(None, &HEARD));
        let (raced, kept) = run(curious(Some(5.0), &HEARD));
        let counts = raced.counts;
        assert!(counts.copies > 50 && counts.cancelled > 0 && counts.cancelled <= counts.copies, "{counts:?}");
        assert!(raced.p999_ms < 0.7 * alone.p999_ms, "{} then {}", alone.p999_ms, raced.p999_ms);
        let cancelled = kept.records.iter().filter(|record| match record {
            HistoryRecord::Outcome(outcome) => outcome.response.error == Some(ErrorClass::Cancelled),
            _ => false,
        });
        assert_eq!(cancelled.count() as u64, counts.cancelled);
        assert_eq!((counts.completed, counts.failed), (counts.arrivals, 0));
    }
    assert!(HEARD.iter().all(|count| count.load(Relaxed) > 0), "started, probes and idle cores are heard of");
}

#[test]
fn what_fails_is_tried_again_until_its_time_is_up() {
    let mut world = two_shards(Discipline::FirstComeFirstServed);
    world.timing.failure_rate = 0.0;
    world.shards[0].faults = vec![Fault { from_ms: 0.0, until_ms: 1e9, kind: FaultKind::Failing(1.0) }];
    let workload = poisson(&world, 2, 5_000.0, 0.2);
    let random = |world: &WorldSpec| {
        let policy = by_name("random", world.timing.runtime()).unwrap();
        simulate(world, &workload, 1, vec![policy], &mut NoRecorder).unwrap()
    };
    let once = random(&world);
    assert!(once.counts.failed > 0 && once.counts.retries == 0);
    world.timing.attempts = 3;
    let thrice = random(&world);
    assert!(thrice.counts.failed < once.counts.failed / 2 && thrice.counts.retries > 0, "{:?}", thrice.counts);
    // A shard that is gone answers nothing; impatient routers go elsewhere before the request's time is up.
    world.shards[0].faults = vec![Fault { from_ms: 1_000.0, until_ms: 1e9, kind: FaultKind::Down }];
    (world.timing.timeout_ms, world.timing.attempt_timeout_ms) = (300.0, 50.0);
    let impatient = random(&world);
    world.timing.attempts = 1;
    let patient = random(&world);
    assert!(impatient.counts.timeouts < patient.counts.timeouts / 2, "{:?}", impatient.counts);
    assert!(patient.counts.timeouts > 0);
}

fn knowing(world: &WorldSpec, workload: &Workload, name: &str) -> RunSummary {
    let players = world.routers.iter().map(|_| Player::knowing(name).unwrap()).collect::<Vec<_>>();
    simulate_with(world, workload, 1, players, &mut NoRecorder, &SimulateOptions::default()).unwrap()
}

#[test]
fn the_truth_is_foreseen_exactly_on_an_otherwise_empty_fleet() {
    // One request at a time on one shard: what the oracle expects is what happens, but for antagonists.
    let mut world = WorldSpec::generate(3, &FleetOptions { shards: 5, ..FleetOptions::default() });
    world.shards.iter_mut().for_each(|shard| (shard.antagonist, shard.noise) = (None, SpeedNoise::default()));
    let workload = Workload::generate(&world, 4, &WorkloadOptions::new(start(), 20_000.0, 0.3)).unwrap();
    let mut kept = KeepAll::default();
    let players = vec![Player::knowing("oracle_greedy").unwrap()];
    simulate_with(&world, &workload, 1, players, &mut kept, &SimulateOptions::default()).unwrap();
    let mut expected = std::collections::BTreeMap::new();
    let (mut right, mut all) = (0, 0);
    for record in &kept.records {
        match record {
            HistoryRecord::Decision(decision) => {
                expected.insert(decision.decision_id, decision.predicted_ms.unwrap());
            }
            HistoryRecord::Outcome(outcome) if outcome.response.is_ok() => {
                let error = (expected[&outcome.decision_id] / f64::from(outcome.response.total_ms) - 1.0).abs();
                (right, all) = (right + u32::from(error < 0.01), all + 1);
            }
            _ => {}
        }
    }
    assert!(f64::from(right) > 0.97 * f64::from(all), "{right} of {all}: a later arrival may warm a function up");
}

#[test]
fn nobody_beats_the_bound_and_the_oracle_beats_everybody() {
    let world = WorldSpec::generate(2, &FleetOptions::default());
    let workload = Workload::generate(&world, 4, &WorkloadOptions::new(start(), 20_000.0, 0.7)).unwrap();
    let [bound, oracle] = [NO_QUEUE_BOUND, "oracle_greedy"].map(|name| knowing(&world, &workload, name));
    let regrets = SimulateOptions { regret_every: 16, ..SimulateOptions::default() };
    let policy = |name| {
        let policies = vec![by_name(name, world.timing.runtime()).unwrap()];
        simulate_with(&world, &workload, 1, policies, &mut NoRecorder, &regrets).unwrap()
    };
    let [sed, random] = ["sed_tab_lambda", "random"].map(policy);
    assert!(bound.mean_ms < oracle.mean_ms && oracle.mean_ms < sed.mean_ms && sed.mean_ms < random.mean_ms);
    assert!(bound.p99_ms < oracle.p99_ms, "{} {}", bound.p99_ms, oracle.p99_ms);
    let (sed, random) = (sed.regret_ms.unwrap(), random.regret_ms.unwrap());
    assert!(sed > 0.0 && random > 3.0 * sed, "{sed} {random}");
}
