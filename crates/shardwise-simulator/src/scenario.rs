//! What may go wrong, or change, in the middle of a run: scenarios change the traffic, the world, or both.
//!
//! Load is always that of the fleet before the change, so that scenarios compare with `base`. What concerns the model only
//! (a missing one) is the caller's to do, see [`Scenario::takes_model`].

use rand::RngExt;
use rand_distr::StandardNormal;
use shardwise_types::{FunctionId, Protocol, RiskLevel, UsdAmount};

use crate::fleet::FleetOptions;
use crate::streams::{Purpose, stream};
use crate::workload::{Surge, Workload, WorkloadOptions};
use crate::world::{Discipline, Fault, FaultKind, WorldError, WorldSpec};

macro_rules! scenarios {
    ($($(#[$doc:meta])* $name:ident $text:literal $story:literal;)*) => {
        /// A scenario.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Scenario { $($(#[$doc])* $name),* }

        impl Scenario {
            /// All scenarios.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Its name in commands and tables.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }

            /// What happens, in a line.
            pub fn story(self) -> &'static str {
                match self { $(Self::$name => $story),* }
            }
        }
    };
}

scenarios! {
    /// Nothing special.
    Base "base" "nothing special happens";
    /// The largest shard is gone for a while.
    FailStop "fail_stop" "the largest shard is gone with all its work from 30 % to 70 % of the run";
    /// The largest shard is slow for a while.
    SlowShard "slow_shard" "the largest shard is four times as slow from 30 % to 70 % of the run";
    /// The largest shard fails fast for a while.
    Sinkhole "sinkhole" "the largest shard fails 60 % of its requests at once from 30 % to 70 % of the run";
    /// Twice the traffic for a while.
    VolatilitySpike "volatility_spike" "twice the traffic, all of it hot, from 40 % to 60 % of the run";
    /// A shard joins that history does not know.
    NewShard "new_shard" "a shard that history does not know joins in the middle of the run, with nothing loaded";
    /// The world is not what history knew.
    Drift "drift" "30 % of the functions cost exp(0.7 N) times as much, and six shards are other machines, than in history";
    /// The world is far from what history knew.
    StaleModel "stale_model" "drift, seven times over";
    /// Half of the reports are lost.
    ReportLoss "report_loss" "half of all reports are lost";
    /// Clocks of shards go wrong.
    ClockSkew "clock_skew" "the clocks of every third shard go ten seconds wrong, alternately ahead and behind";
    /// Impatient routers make more work of trouble.
    RetryStorm "retry_storm" "routers send again after 400 ms, three times at most, and the largest shard is four times as slow from 40 % to 60 % of the run";
    /// Many large amounts, which few shards may take.
    WhaleBurst "whale_burst" "one in ten requests is worth more than a million from 40 % to 60 % of the run";
    /// A protocol that nobody has seen.
    ProtocolLaunch "protocol_launch" "a protocol with ten functions that nobody has seen takes a fifth of the traffic from the middle of the run on";
    /// Shards share their cores.
    ProcessorSharing "processor_sharing" "shards give all requests an equal share of their cores";
    /// The model cannot be loaded.
    ModelMissing "model_missing" "no model can be loaded";
}

/// From and until when, as shares of a run.
const TROUBLE: (f64, f64) = (0.3, 0.7);
const BURST: (f64, f64) = (0.4, 0.6);
/// Functions that a launch brings, and the share of traffic that they take.
const LAUNCHED: usize = 10;
const LAUNCH_SHARE: f64 = 0.2;
/// Share of requests of a whale burst that are worth more than a million.
const WHALE_SHARE: f64 = 0.1;
/// What drifts: share and spread of functions' costs, and shards that become other machines.
const DRIFTING: f64 = 0.3;
const DRIFT_SIGMA: f64 = 0.7;
const RESPEEDED: usize = 6;

impl Scenario {
    /// Reads a name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|scenario| scenario.as_str() == text)
    }

    /// Whether policies run without their model.
    pub fn takes_model(self) -> bool {
        self == Self::ModelMissing
    }

    /// Generates the traffic of a world under this scenario, and makes the world what the scenario says.
    ///
    /// # Errors
    /// When the world is not sound or an option is out of range.
    pub fn play(
        self,
        world: &mut WorldSpec,
        fleet_seed: u64,
        fleet: &FleetOptions,
        seed: u64,
        options: &WorkloadOptions,
    ) -> Result<Workload, WorldError> {
        let surge = Surge { from: BURST.0, until: BURST.1, factor: 2.0 };
        let surge = (self == Self::VolatilitySpike).then_some(surge).or(options.surge);
        let mut workload = Workload::generate(world, seed, &WorkloadOptions { surge, ..*options })?;
        let duration_ms = options.duration_ms;
        let fault = |(from, until): (f64, f64), kind| Fault {
            from_ms: from * duration_ms,
            until_ms: until * duration_ms,
            kind,
        };
        let largest = largest(world);
        match self {
            Self::Base | Self::VolatilitySpike | Self::ModelMissing => {}
            Self::FailStop => world.shards[largest].faults.push(fault(TROUBLE, FaultKind::Down)),
            Self::SlowShard => world.shards[largest].faults.push(fault(TROUBLE, FaultKind::Slow(4.0))),
            Self::Sinkhole => world.shards[largest].faults.push(fault(TROUBLE, FaultKind::Failing(0.6))),
            Self::NewShard => {
                let mut shard = world.another_shard(fleet_seed, fleet);
                shard.faults.push(fault((0.0, 0.5), FaultKind::Absent));
                world.shards.push(shard);
            }
            Self::Drift => drift(world, fleet_seed, fleet, 1),
            Self::StaleModel => (1..=7).for_each(|day| drift(world, fleet_seed, fleet, day)),
            Self::ReportLoss => world.timing.report_loss = 0.5,
            Self::ClockSkew => {
                for (index, shard) in world.shards.iter_mut().step_by(3).enumerate() {
                    let ahead_ms = if index % 2 == 0 { 10_000.0 } else { -10_000.0 };
                    shard.faults.push(fault((0.0, 2.0), FaultKind::ClockAhead(ahead_ms)));
                }
            }
            Self::RetryStorm => {
                (world.timing.attempts, world.timing.attempt_timeout_ms) = (4, 400.0);
                world.shards[largest].faults.push(fault(BURST, FaultKind::Slow(4.0)));
            }
            Self::WhaleBurst => burst_of_whales(&mut workload, seed),
            Self::ProtocolLaunch => launch(world, &mut workload, fleet_seed, fleet, seed),
            Self::ProcessorSharing => world.timing.discipline = Discipline::ProcessorSharing,
        }
        world.check()?;
        Ok(workload)
    }
}

/// The shard with the most core speed among those that others can stand in for.
fn largest(world: &WorldSpec) -> usize {
    let speed = |index: &usize| {
        let shard = &world.shards[*index];
        f64::from(shard.shape.cores) * shard.speed.base * shard.speed.by_resource.iter().sum::<f64>()
    };
    let replaceable = |index: &usize| world.shards[*index].shape.max_amount_usd.is_some();
    let ordinary = (0..world.shards.len()).filter(replaceable).max_by(|a, b| speed(a).total_cmp(&speed(b)));
    ordinary.unwrap_or(0)
}

/// A day of change: some functions cost more or less, and some shards are other machines of the same size.
fn drift(world: &mut WorldSpec, fleet_seed: u64, fleet: &FleetOptions, day: u64) {
    let mut rng = stream(fleet_seed, Purpose::Scenario, day);
    for function in &mut world.functions {
        let (drifts, normal) = (rng.random_bool(DRIFTING), rng.sample::<f64, _>(StandardNormal));
        if drifts {
            function.base_ms = (function.base_ms * (DRIFT_SIGMA * normal).exp()).clamp(0.5, 1_000.0);
        }
    }
    for shard in 0..RESPEEDED.min(world.shards.len()) {
        let other = WorldSpec::generate(fleet_seed.wrapping_add(1_000 * day), fleet);
        let place = rng.random_range(shard..world.shards.len());
        let speed = &other.shards[place.min(other.shards.len() - 1)].speed;
        let specialities = std::mem::take(&mut world.shards[place].speed.specialities);
        let speciality = world.shards[place].speed.speciality;
        world.shards[place].speed = speed.clone();
        (world.shards[place].speed.specialities, world.shards[place].speed.speciality) = (specialities, speciality);
    }
}

fn burst_of_whales(workload: &mut Workload, seed: u64) {
    let mut rng = stream(seed, Purpose::Scenario, 100);
    let (start, length_ms) = (workload.start, workload.end.millis_since(workload.start));
    for arrival in &mut workload.arrivals {
        let at = arrival.at.millis_since(start) / length_ms;
        let (is_whale, normal) = (rng.random_bool(WHALE_SHARE), rng.sample::<f64, _>(StandardNormal));
        if is_whale && (BURST.0..BURST.1).contains(&at) {
            let usd = 1e6 * (0.05 + 1.5 * normal.abs()).exp();
            arrival.request.amount_usd = Some(UsdAmount::new(usd).expect("an exponential is a finite amount"));
            arrival.request.risk = RiskLevel::Critical;
            arrival.request.residency = None;
        }
    }
}

/// Functions of a new protocol, drawn like all others, take the place of a share of the later arrivals.
fn launch(world: &mut WorldSpec, workload: &mut Workload, fleet_seed: u64, fleet: &FleetOptions, seed: u64) {
    let unseen = FleetOptions { functions: fleet.functions + LAUNCHED, shards: 1, ..*fleet };
    let launched = WorldSpec::generate(fleet_seed, &unseen).functions.split_off(fleet.functions);
    let first = world.functions.len() as u32;
    world.functions.extend(launched.into_iter().enumerate().map(|(index, mut function)| {
        function.id = FunctionId::from(format!("launched-function-{:02}", index + 1));
        function.protocol = Protocol::new("launched");
        function
    }));
    let mut rng = stream(seed, Purpose::Scenario, 101);
    let middle = workload.start.plus_millis(workload.end.millis_since(workload.start) / 2.0);
    for arrival in &mut workload.arrivals {
        let (is_launched, which) = (rng.random_bool(LAUNCH_SHARE), rng.random_range(0..LAUNCHED as u32));
        if is_launched && arrival.at >= middle {
            arrival.function = first + which;
            let function = &world.functions[arrival.function as usize];
            let request = &mut arrival.request;
            (request.function, request.protocol) = (function.id.clone(), function.protocol.clone());
            (request.event_type, request.trading_pair) = (function.event_type.clone(), function.trading_pair.clone());
            (request.exchange, request.exchange_calls) = (function.exchange.clone(), function.exchange_calls);
            request.memory_mb = function.memory_mb;
            request.expected_compute_ms = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NoRecorder, RunSummary, simulate};

    fn options() -> WorkloadOptions {
        WorkloadOptions::new("2026-01-05T12:00:00Z".parse().unwrap(), 10_000.0, 0.6)
    }

    fn run(scenario: Scenario) -> (RunSummary, WorldSpec, Workload) {
        let fleet = FleetOptions::default();
        let mut world = WorldSpec::generate(2, &fleet);
        let workload = scenario.play(&mut world, 2, &fleet, 5, &options()).unwrap();
        let policy = shardwise_policies::by_name("sed_tab_lambda", world.timing.runtime()).unwrap();
        let summary = simulate(&world, &workload, 5, vec![policy], &mut NoRecorder).unwrap();
        (summary, world, workload)
    }

    #[test]
    fn every_scenario_runs_and_is_felt() {
        let (base, world, workload) = run(Scenario::Base);
        for &scenario in &Scenario::ALL[1..] {
            let (summary, changed, traffic) = run(scenario);
            assert_eq!(Scenario::parse(scenario.as_str()), Some(scenario));
            if scenario != Scenario::ModelMissing {
                assert!(changed != world || traffic != workload, "{}", scenario.as_str());
                assert_ne!(summary.log_hash, base.log_hash, "{}", scenario.as_str());
            }
        }
        assert_eq!(Scenario::parse("none"), None);
    }

    #[test]
    fn a_shard_that_fails_takes_its_work_with_it_and_comes_back() {
        let (failed, ..) = run(Scenario::FailStop);
        assert!(failed.counts.timeouts > 0 && failed.error_rate < 0.05, "{:?}", failed.counts);
    }

    #[test]
    fn a_retry_storm_retries() {
        let (storm, ..) = run(Scenario::RetryStorm);
        assert!(storm.counts.retries > 0, "{:?}", storm.counts);
        assert!(storm.error_rate < 0.01, "what failed by chance is tried again: {}", storm.error_rate);
    }
}
