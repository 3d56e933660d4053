//! Plays a load test to the simulated fleet, on top of ordinary traffic, and says what became of every event.
//!
//! Open loop: each event reaches its router when it was meant to, however long those before it take.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use rustc_hash::{FxHashMap, FxHashSet};
use shardwise_policies::Policy;
use shardwise_types::{DecisionRecord, HistoryRecord, OutcomeRecord, PlacementRequest, ShardId, UsdAmount};

use rand::RngExt;

use crate::engine::{SimulateOptions, SimulationError, simulate_with};
use crate::fleet::timed_function;
use crate::load_events::{LoadEvent, LoadEventData};
use crate::load_result::LoadSample;
use crate::recorder::Recorder;
use crate::streams::{Purpose, stream};
use crate::workload::{Arrival, Cumulative, Workload};
use crate::world::{FunctionSpec, ShardSpec, WorldError, WorldSpec};

/// A load test that cannot be played.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadTestError {
    /// There is nothing to play.
    #[error("0 events are no load test; ask for at least one")]
    NoEvents,
    /// An event names a function that the world lacks.
    #[error("event {event}: the world has no function '{function}'; add what is launched with with_launch")]
    UnknownFunction {
        /// The event's id.
        event: String,
        /// The function's name.
        function: String,
    },
    /// The world or an event is not sound.
    #[error(transparent)]
    World(#[from] WorldError),
    /// The simulator refused.
    #[error(transparent)]
    Simulation(#[from] SimulationError),
}

/// The world with the functions that events name and it lacks: drawn by seed, of weight 0 so that ordinary traffic never
/// asks for them, appended so that the others keep their positions.
#[must_use]
pub fn with_launch(world: &WorldSpec, events: &[LoadEvent], seed: u64) -> WorldSpec {
    let mut launched = world.clone();
    let mut known: FxHashSet<u64> = world.functions.iter().map(|function| function.id.key()).collect();
    for event in events {
        let LoadEventData::ProtocolLaunch { protocol, function_name, trading_pair, .. } = &event.data else { continue };
        if known.insert(function_name.key()) {
            let mut rng = stream(seed, Purpose::LoadEvents, function_name.key());
            launched.functions.push(FunctionSpec {
                protocol: protocol.clone(),
                event_type: event.event_type.clone(),
                trading_pair: trading_pair.clone(),
                weight: 0.0,
                ..timed_function(&mut rng, |_| function_name.clone())
            });
        }
    }
    launched
}

/// The events as arrivals in a world: each asks for a function of the world that suits it, drawn by popularity from the
/// event's own id, and reaches any router.
///
/// # Errors
/// When an event launches a function that the world lacks, or makes no sound request.
pub fn load_arrivals(world: &WorldSpec, events: &[LoadEvent], seed: u64) -> Result<Vec<Arrival>, LoadTestError> {
    world.check()?;
    let by_name: FxHashMap<u64, u32> =
        world.functions.iter().zip(0..).map(|(function, position)| (function.id.key(), position)).collect();
    let fitting = Fitting::new(world);
    let arrival = |event: &LoadEvent| {
        let mut rng = stream(seed, Purpose::LoadEvents, shardwise_types::key_of(&event.event_id));
        let function = match &event.data {
            LoadEventData::MarketData { .. } => fitting.market.draw(&mut rng),
            LoadEventData::Arbitrage { .. } => fitting.arbitrage.draw(&mut rng),
            LoadEventData::WhaleTrade { .. } => fitting.swap.draw(&mut rng),
            LoadEventData::ProtocolLaunch { function_name, .. } => {
                let known = by_name.get(&function_name.key()).copied();
                known.ok_or_else(|| LoadTestError::UnknownFunction {
                    event: event.event_id.clone(),
                    function: function_name.as_str().to_owned(),
                })?
            }
        };
        let request = event.request(&world.functions[function as usize]).map_err(WorldError::from)?;
        let router = rng.random_range(0..world.routers.len()) as u32;
        Ok(Arrival { at: event.timestamp, router, function, request })
    };
    events.iter().map(arrival).collect()
}

/// Functions that suit a kind of event.
struct Fitting {
    market: Cumulative,
    arbitrage: Cumulative,
    swap: Cumulative,
}

impl Fitting {
    fn new(world: &WorldSpec) -> Self {
        let those = |suits: &dyn Fn(&FunctionSpec) -> bool| {
            let weights = |suits: &dyn Fn(&FunctionSpec) -> bool| {
                let all = world.functions.iter().zip(0..).filter(|(function, _)| suits(function));
                Cumulative::new(all.map(|(function, position)| (position, function.weight)))
            };
            let fitting = weights(suits);
            // A world without such a function is still loaded.
            if fitting.total() > 0.0 { fitting } else { weights(&|_| true) }
        };
        Self {
            market: those(&|function| function.event_type.as_str() == "PriceUpdated"),
            arbitrage: those(&|function| function.protocol.as_str() == "arbitrage"),
            swap: those(&|function| function.event_type.as_str() == "SwapExecuted"),
        }
    }
}

/// Plays events to one policy per router, among the ordinary traffic of `background` if there is any; one sample per
/// event, in the order of the events.
///
/// The background may begin before the first event, so that routers are not judged while they know nothing.
///
/// # Errors
/// Without events, when one asks for a function that the world lacks, or when the simulator refuses.
///
/// ```
/// use shardwise_simulator::{FleetOptions, LoadParameters, LoadScenario, WorldSpec, generate_load, simulate_load};
///
/// let world = WorldSpec::generate(1, &FleetOptions::default());
/// let scenario = LoadScenario::ArbitrageSurge;
/// let parameters = LoadParameters::sized(scenario, 100, 50.0);
/// let events = generate_load(scenario, &parameters, "2026-01-05T12:00:00Z".parse()?, 11)?;
/// let policy = Box::new(shardwise_policies::LeastInFlight::default());
/// let samples = simulate_load(&world, None, &events, 11, vec![policy])?;
/// assert!(samples.iter().all(|sample| sample.shard.is_some()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn simulate_load(
    world: &WorldSpec,
    background: Option<Workload>,
    events: &[LoadEvent],
    seed: u64,
    policies: Vec<Box<dyn Policy>>,
) -> Result<Vec<LoadSample>, LoadTestError> {
    let arrivals = load_arrivals(world, events, seed)?;
    let (Some(first), Some(last)) = (arrivals.first(), arrivals.last()) else { return Err(LoadTestError::NoEvents) };
    let mut workload = background.unwrap_or_else(|| Workload {
        start: first.at,
        end: last.at,
        elapsed_ms: 0.0,
        arrivals: Vec::new(),
        market: Vec::new(),
    });
    workload.start = workload.start.min(first.at);
    workload.end = workload.end.max(last.at);
    let mut recorder = LoadRecorder::new(&arrivals);
    workload.arrivals.extend(arrivals);
    workload.arrivals.sort_by_key(|arrival| arrival.at);
    simulate_with(
        world,
        &workload,
        seed,
        policies,
        &mut recorder,
        &SimulateOptions { warm_up: 0.0, ..SimulateOptions::default() },
    )?;
    Ok(recorder.samples)
}

/// Follows the test's events among all decisions and outcomes.
struct LoadRecorder {
    /// Events that no decision was seen of, by instant and function.
    waiting: FxHashMap<(i64, u64), Vec<usize>>,
    /// Events that were placed, by decision.
    placed: FxHashMap<u64, usize>,
    arrived_ns: Vec<i64>,
    samples: Vec<LoadSample>,
}

impl LoadRecorder {
    fn new(arrivals: &[Arrival]) -> Self {
        let start = arrivals[0].at;
        let mut waiting: FxHashMap<(i64, u64), Vec<usize>> = FxHashMap::default();
        // The last of an instant goes in first, so that the first comes out first.
        for (index, arrival) in arrivals.iter().enumerate().rev() {
            waiting.entry((arrival.at.nanos(), arrival.request.function.key())).or_default().push(index);
        }
        let sample = |arrival: &Arrival| LoadSample {
            intended_ms: arrival.at.millis_since(start),
            late_ms: 0.0,
            latency_ms: 0.0,
            shard: None,
            failure: Some("refused".to_owned()),
        };
        Self {
            waiting,
            placed: FxHashMap::default(),
            arrived_ns: arrivals.iter().map(|arrival| arrival.at.nanos()).collect(),
            samples: arrivals.iter().map(sample).collect(),
        }
    }

    fn decision(&mut self, record: &DecisionRecord) {
        let key = (record.known_at.nanos(), record.request.function.key());
        let Some(index) = self.waiting.get_mut(&key).and_then(Vec::pop) else { return };
        self.placed.insert(record.decision_id, index);
        self.samples[index].shard = Some(record.shard.clone());
        self.samples[index].failure = Some("unanswered".to_owned());
    }

    fn outcome(&mut self, record: &OutcomeRecord) {
        let Some(index) = self.placed.remove(&record.decision_id) else { return };
        self.samples[index].latency_ms = (record.known_at.nanos() - self.arrived_ns[index]) as f64 / 1e6;
        self.samples[index].failure = record.response.error.map(|error| error.as_str().to_owned());
    }
}

impl Recorder for LoadRecorder {
    fn wants_history(&self) -> bool {
        true
    }

    fn record(&mut self, record: HistoryRecord) -> ControlFlow<()> {
        match record {
            HistoryRecord::Decision(record) => self.decision(&record),
            HistoryRecord::Outcome(record) => self.outcome(&record),
            HistoryRecord::Shadow(_)
            | HistoryRecord::Report(_)
            | HistoryRecord::Market(_)
            | HistoryRecord::Directive(_) => {}
        }
        ControlFlow::Continue(())
    }
}

/// The share of the arrivals that each shard would get if every one were spread over the shards that may take it by what
/// they can do of it: cores × speed on its function. It is the distribution to expect of a policy that fills the fleet
/// evenly; one that minimises latency leaves it, the more so the emptier the fleet is.
pub fn capacity_plan(world: &WorldSpec, arrivals: &[Arrival]) -> BTreeMap<ShardId, f64> {
    let capacity = |shard: &ShardSpec, function| f64::from(shard.servers()) * shard.speed_of(function);
    let of_function = |function| world.shards.iter().map(|shard| capacity(shard, function)).collect();
    let capacities: Vec<Vec<f64>> = world.functions.iter().map(of_function).collect();
    let mut shares = vec![0.0; world.shards.len()];
    for arrival in arrivals {
        let weights = || world.shards.iter().zip(&capacities[arrival.function as usize]);
        let may_take = |shard: &ShardSpec| is_allowed(shard, &arrival.request);
        let all: f64 = weights().filter(|(shard, _)| may_take(shard)).map(|(_, weight)| weight).sum();
        for (share, (_, weight)) in shares.iter_mut().zip(weights()).filter(|(_, (shard, _))| may_take(shard)) {
            *share += weight / all / arrivals.len() as f64;
        }
    }
    world.shards.iter().map(|shard| shard.id.clone()).zip(shares).collect()
}

/// The hard rules that a shard's shape alone decides: amount, residency and memory.
fn is_allowed(shard: &ShardSpec, request: &PlacementRequest) -> bool {
    let amount_usd = request.amount_usd.map_or(0.0, UsdAmount::usd);
    shard.shape.max_amount_usd.is_none_or(|limit_usd| amount_usd <= limit_usd)
        && request.residency.as_ref().is_none_or(|region| *region == shard.shape.region)
        && request.memory_mb <= shard.shape.memory_mb
}

#[cfg(test)]
mod tests {
    use shardwise_policies::{Runtime, by_name};
    use shardwise_types::Timestamp;

    use super::*;
    use crate::{FleetOptions, LoadParameters, LoadScenario, WorkloadOptions, generate_load};

    fn start() -> Timestamp {
        "2026-01-05T12:00:10Z".parse().unwrap()
    }

    fn world() -> WorldSpec {
        WorldSpec::generate(1, &FleetOptions { routers: 2, ..FleetOptions::default() })
    }

    fn events(scenario: LoadScenario) -> Vec<LoadEvent> {
        generate_load(scenario, &LoadParameters::sized(scenario, 400, 100.0), start(), 11).unwrap()
    }

    fn play(world: &WorldSpec, background: Option<Workload>, events: &[LoadEvent]) -> Vec<LoadSample> {
        let policy = |_: &_| by_name("sed_tab_lambda", Runtime::default()).unwrap();
        simulate_load(world, background, events, 11, world.routers.iter().map(policy).collect()).unwrap()
    }

    #[test]
    fn every_event_is_followed_through_the_traffic_of_others() {
        let world = world();
        let options = WorkloadOptions::new("2026-01-05T12:00:08Z".parse().unwrap(), 6_000.0, 0.6);
        let background = Workload::generate(&world, 3, &options).unwrap();
        for scenario in LoadScenario::ALL {
            let events = events(scenario);
            let world = with_launch(&world, &events, 11);
            let samples = play(&world, Some(background.clone()), &events);
            assert_eq!(samples, play(&world, Some(background.clone()), &events), "the same run again");
            let good = samples.iter().filter(|sample| sample.failure.is_none()).count();
            assert!(samples.len() == 400 && good >= 380, "{}: {good} of {}", scenario.as_str(), samples.len());
            assert!(samples.iter().all(|sample| sample.latency_ms > 0.0 && sample.shard.is_some()));
        }
    }

    #[test]
    fn whales_stay_on_the_shards_that_may_take_them() {
        let (world, events) = (world(), events(LoadScenario::WhaleActivity));
        let allowed = |sample: &LoadSample| sample.shard.as_ref().is_some_and(|id| id.as_str().contains("whale"));
        assert!(play(&world, None, &events).iter().all(allowed));
        let plan = capacity_plan(&world, &load_arrivals(&world, &events, 11).unwrap());
        assert!((plan.values().sum::<f64>() - 1.0).abs() < 1e-9);
        assert!(plan.iter().all(|(shard, share)| shard.as_str().contains("whale") == (*share > 0.0)), "{plan:?}");
    }

    #[test]
    fn what_is_launched_is_unknown_to_the_world_before() {
        let (world, events) = (world(), events(LoadScenario::ProtocolLaunch));
        let error = load_arrivals(&world, &events, 11).unwrap_err();
        assert!(error.to_string().contains("hyperlaunch-function-001"), "{error}");
        let launched = with_launch(&world, &events, 11);
        assert_eq!(launched.functions.len(), world.functions.len() + 12);
        assert_eq!(launched.functions[..world.functions.len()], world.functions[..]);
        assert_eq!(with_launch(&launched, &events, 11), launched, "what is there is not launched again");
    }

    #[test]
    fn an_overloaded_fleet_shows_in_the_latency_of_what_waits() {
        let world = WorldSpec::generate(1, &FleetOptions { shards: 1, ..FleetOptions::default() });
        let scenario = LoadScenario::ArbitrageSurge;
        let p50 = |events_per_s: f64| {
            let parameters = LoadParameters::sized(scenario, 400, events_per_s);
            let mut samples = play(&world, None, &generate_load(scenario, &parameters, start(), 11).unwrap());
            samples.sort_by(|a, b| a.latency_ms.total_cmp(&b.latency_ms));
            samples[200].latency_ms
        };
        let (calm, storm) = (p50(10.0), p50(2_000.0));
        assert!(storm > 10.0 * calm, "{calm} ms at 10 per second, {storm} ms at 2,000");
    }
}
