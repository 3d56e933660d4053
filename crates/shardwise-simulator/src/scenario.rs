//! What may go wrong, or change, in the middle of a run: scenarios change the traffic, the world, or both.
//!
//! Load is always that of the fleet before the change, so that scenarios compare with `base`. What concerns the model only
//! (a missing one) is the caller's to do, see [`Scenario::takes_model`], and so are the world and traffic of a replay.

use rand::RngExt;
use rand_distr::StandardNormal;
use shardwise_types::{RiskLevel, UsdAmount};

use crate::fleet::FleetOptions;
use crate::load_events::{LoadParameters, LoadScenario, generate_load};
use crate::load_test::{LoadTestError, load_arrivals, with_launch};
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
    /// Price updates and arbitrage by the specification's load test (S10).
    MarketVolatility "market_volatility" "price updates in bursts and the arbitrage that follows, a quarter as many as there is traffic, from 30 % to 70 % of the run";
    /// Arbitrage by the specification's load test (S10).
    ArbitrageSurge "arbitrage_surge" "arbitrage opportunities, a quarter as many as there is traffic, from 30 % to 70 % of the run";
    /// Whales by the specification's load test (S10).
    WhaleActivity "whale_activity" "trades of more than a million, a quarter as many as there is traffic, from 30 % to 70 % of the run";
    /// A protocol that nobody has seen, by the specification's load test (S10).
    ProtocolLaunch "protocol_launch" "functions of a protocol that nobody has seen, a quarter as many requests as there is traffic, from 30 % to 70 % of the run";
    /// Shards share their cores.
    ProcessorSharing "processor_sharing" "shards give all requests an equal share of their cores";
    /// Arrivals, run times, memory, market and machine noise of traces; whoever has the traces makes world and traffic.
    Replay "replay" "arrivals, run times, memory, market and machine noise of traces, run times scaled to the load; no history knows these functions";
    /// The model cannot be loaded.
    ModelMissing "model_missing" "no model can be loaded";
}

/// From and until when, as shares of a run.
pub(crate) const TROUBLE: (f64, f64) = (0.3, 0.7);
/// Share of its requests that a failing shard fails.
pub(crate) const SINKHOLE: f64 = 0.6;
const BURST: (f64, f64) = (0.4, 0.6);
/// Events of a load test for each request of the ordinary traffic.
const EVENT_SHARE: f64 = 0.25;
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
    ) -> Result<Workload, LoadTestError> {
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
            Self::Base | Self::VolatilitySpike | Self::Replay | Self::ModelMissing => {}
            Self::FailStop => world.shards[largest].faults.push(fault(TROUBLE, FaultKind::Down)),
            Self::SlowShard => world.shards[largest].faults.push(fault(TROUBLE, FaultKind::Slow(4.0))),
            Self::Sinkhole => world.shards[largest].faults.push(fault(TROUBLE, FaultKind::Failing(SINKHOLE))),
            Self::NewShard => {
                let mut shard = world.another_shard(fleet_seed, fleet);
                shard.faults.push(fault((0.0, 0.5), FaultKind::Absent));
                world.shards.push(shard);
            }
            Self::Drift => world.drift(fleet_seed, fleet, 1),
            Self::StaleModel => (1..=7).for_each(|day| world.drift(fleet_seed, fleet, day)),
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
            Self::MarketVolatility => add_events(LoadScenario::MarketVolatility, world, &mut workload, seed)?,
            Self::ArbitrageSurge => add_events(LoadScenario::ArbitrageSurge, world, &mut workload, seed)?,
            Self::WhaleActivity => add_events(LoadScenario::WhaleActivity, world, &mut workload, seed)?,
            Self::ProtocolLaunch => add_events(LoadScenario::ProtocolLaunch, world, &mut workload, seed)?,
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

impl WorldSpec {
    /// A day of change, which its number draws: some functions cost more or less, and some shards are other machines of the
    /// same size.
    pub fn drift(&mut self, fleet_seed: u64, fleet: &FleetOptions, day: u64) {
        let mut rng = stream(fleet_seed, Purpose::Scenario, day);
        for function in &mut self.functions {
            let (drifts, normal) = (rng.random_bool(DRIFTING), rng.sample::<f64, _>(StandardNormal));
            if drifts {
                function.base_ms = (function.base_ms * (DRIFT_SIGMA * normal).exp()).clamp(0.5, 1_000.0);
            }
        }
        for shard in 0..RESPEEDED.min(self.shards.len()) {
            let other = WorldSpec::generate(fleet_seed.wrapping_add(1_000 * day), fleet);
            let place = rng.random_range(shard..self.shards.len());
            let speed = &other.shards[place.min(other.shards.len() - 1)].speed;
            let specialities = std::mem::take(&mut self.shards[place].speed.specialities);
            let speciality = self.shards[place].speed.speciality;
            self.shards[place].speed = speed.clone();
            (self.shards[place].speed.specialities, self.shards[place].speed.speciality) = (specialities, speciality);
        }
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

/// Plays a load test's events among the traffic while the trouble lasts.
fn add_events(
    load: LoadScenario,
    world: &mut WorldSpec,
    workload: &mut Workload,
    seed: u64,
) -> Result<(), LoadTestError> {
    let length_ms = workload.end.millis_since(workload.start);
    let events = ((workload.arrivals.len() as f64 * EVENT_SHARE) as usize).max(1);
    let rate_per_s = events as f64 / ((TROUBLE.1 - TROUBLE.0) * length_ms / 1e3);
    let start = workload.start.plus_millis(TROUBLE.0 * length_ms);
    let parameters = LoadParameters::sized(load, events, rate_per_s);
    let events = generate_load(load, &parameters, start, seed).map_err(WorldError::from)?;
    *world = with_launch(world, &events, seed);
    let mut arrivals = load_arrivals(world, &events, seed)?;
    arrivals.retain(|arrival| arrival.at <= workload.end);
    workload.arrivals.extend(arrivals);
    workload.arrivals.sort_by_key(|arrival| arrival.at);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NoRecorder, RunSummary, simulate};

    fn options() -> WorkloadOptions {
        WorkloadOptions::new("2026-01-05T12:00:00Z".parse().unwrap(), 10_000.0, 0.6)
    }

    fn run(scenario: Scenario, policy: &str) -> (RunSummary, WorldSpec, Workload) {
        let fleet = FleetOptions::default();
        let mut world = WorldSpec::generate(2, &fleet);
        let workload = scenario.play(&mut world, 2, &fleet, 5, &options()).unwrap();
        let policy = shardwise_policies::by_name(policy, world.timing.runtime()).unwrap();
        let summary = simulate(&world, &workload, 5, vec![policy], &mut NoRecorder).unwrap();
        (summary, world, workload)
    }

    #[test]
    fn every_scenario_runs_and_is_felt() {
        let (base, world, workload) = run(Scenario::Base, "least_in_flight");
        for &scenario in &Scenario::ALL[1..] {
            let (summary, changed, traffic) = run(scenario, "least_in_flight");
            assert_eq!(Scenario::parse(scenario.as_str()), Some(scenario));
            if ![Scenario::ModelMissing, Scenario::Replay].contains(&scenario) {
                assert!(changed != world || traffic != workload, "{}", scenario.as_str());
                assert_ne!(summary.log_hash, base.log_hash, "{}", scenario.as_str());
            }
        }
        assert_eq!(Scenario::parse("none"), None);
    }

    #[test]
    fn a_shard_that_fails_takes_its_work_with_it_and_comes_back() {
        let (failed, ..) = run(Scenario::FailStop, "sed_tab_lambda");
        assert!(failed.counts.timeouts > 0 && failed.error_rate < 0.05, "{:?}", failed.counts);
    }

    #[test]
    fn a_retry_storm_retries() {
        let (storm, ..) = run(Scenario::RetryStorm, "sed_tab_lambda");
        assert!(storm.counts.retries > 0, "{:?}", storm.counts);
        assert!(storm.error_rate < 0.01, "what failed by chance is tried again: {}", storm.error_rate);
    }
}
