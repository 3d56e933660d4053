//! The truth about a simulated fleet, which no router sees: who stands where, how fast what runs, what goes wrong when.
//!
//! It leaves out arrivals (see `workload`) and every choice of a policy.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shardwise_policies::Runtime;
use shardwise_types::{
    EventType, Exchange, FleetSnapshot, FunctionId, InvalidInput, Network, Protocol, Region, RiskLevel, RouterId,
    ShardId, ShardShape, ShardSnapshot, TradingPair, Urgency,
};

use rand::RngExt;
use rand_distr::StandardNormal;

use crate::streams::{Purpose, stream};

/// A world or a workload that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorldError {
    /// A field is out of range.
    #[error("world: {0}")]
    Field(#[from] InvalidInput),
    /// A record names a function that the world does not have.
    #[error(
        "decision {decision}: the world has no function '{function}'; simulate in the world that the history is of"
    )]
    UnknownFunction {
        /// The decision's id.
        decision: u64,
        /// The function's name.
        function: String,
    },
    /// A record names a router that the world does not have.
    #[error("decision {decision}: the world has no router '{router}'; simulate in the world that the history is of")]
    UnknownRouter {
        /// The decision's id.
        decision: u64,
        /// The router's name.
        router: String,
    },
    /// There is nothing to replay.
    #[error("{what}: nothing there; {remedy}")]
    Empty {
        /// The input.
        what: &'static str,
        /// What to do.
        remedy: &'static str,
    },
}

impl WorldError {
    pub(crate) fn field(field: &str, problem: impl Into<String>) -> Self {
        Self::Field(InvalidInput::new(field, problem))
    }
}

/// A whole simulated world; it is written beside a simulated history as `world.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorldSpec {
    /// Distances.
    pub network: Network,
    /// The routers.
    pub routers: Vec<RouterSpec>,
    /// The shards.
    pub shards: Vec<ShardSpec>,
    /// The functions.
    pub functions: Vec<FunctionSpec>,
    /// Clocks, noise and limits that hold everywhere.
    pub timing: Timing,
}

/// A router.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouterSpec {
    /// Its name.
    pub id: RouterId,
    /// Where it stands.
    pub region: Region,
}

/// A shard: what everybody may know of it, and how fast it really is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardSpec {
    /// Its name.
    pub id: ShardId,
    /// What it reports of itself.
    pub shape: ShardShape,
    /// How fast it is.
    pub speed: ShardSpeed,
    /// How its speed wanders.
    #[serde(default)]
    pub noise: SpeedNoise,
    /// A neighbour on the same machine that comes and goes.
    pub antagonist: Option<Antagonist>,
    /// Slowness over time, at most one trace per resource.
    pub slowness: Vec<SlownessTrace>,
    /// What goes wrong, and when.
    pub faults: Vec<Fault>,
}

/// Speed of a shard: for a function the product of `base`, the factor of its resource, the speciality when the
/// protocol is one of them, and a log-normal factor of the pair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardSpeed {
    /// 1 is an ordinary shard; larger is faster.
    pub base: f64,
    /// Factors by [`ResourceClass`]: compute, memory, i/o.
    pub by_resource: [f64; 3],
    /// Protocols that run faster here.
    pub specialities: Vec<Protocol>,
    /// How much faster.
    pub speciality: f64,
    /// Seed of the pairs' factors.
    pub pair_seed: u64,
    /// Standard deviation of their logarithm.
    pub pair_sigma: f64,
    /// Speeds that are known by function; they stand for all of the above.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub measured: BTreeMap<FunctionId, f64>,
}

/// What a function leans on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResourceClass {
    /// Cores.
    Compute,
    /// Caches and memory.
    Memory,
    /// Disks and sockets.
    Io,
}

/// A slowness that wanders: ln slowness is an AR(1) around 0, one for each resource.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpeedNoise {
    /// Standard deviation of ln slowness by [`ResourceClass`]: compute, memory, i/o.
    pub sigma: [f64; 3],
    /// How long a value holds, in ms.
    pub step_ms: f64,
    /// What a step keeps of the one before, in [0, 1).
    pub persistence: f64,
}

impl Default for SpeedNoise {
    fn default() -> Self {
        Self { sigma: [0.0; 3], step_ms: 1_000.0, persistence: 0.0 }
    }
}

/// A neighbour that takes a share of the shard's speed while it is there: exponential spells, a uniform share.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Antagonist {
    /// Mean length of a visit in ms.
    pub on_ms: f64,
    /// Mean time between visits in ms.
    pub off_ms: f64,
    /// The least that it takes, in [0, 1).
    pub least_share: f64,
    /// The most that it takes, in [0, 1).
    pub most_share: f64,
}

/// Piecewise constant slowness: value `i` holds from `i × step_ms` on, and the trace starts over at its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlownessTrace {
    /// The functions that feel it.
    pub resource: ResourceClass,
    /// How long a value holds, in ms.
    pub step_ms: f64,
    /// Factors on the execution time; 1 is ordinary.
    pub values: Vec<f32>,
}

/// Something that goes wrong on a shard for a while; times count from the start of the workload.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// When it begins, in ms.
    pub from_ms: f64,
    /// When it ends, in ms.
    pub until_ms: f64,
    /// What happens.
    pub kind: FaultKind,
}

/// What a fault does.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FaultKind {
    /// Everything takes so many times as long.
    Slow(f64),
    /// This share of requests fails at once.
    Failing(f64),
    /// It calls itself unhealthy, and works on.
    Unhealthy,
    /// It is gone with all its work, and answers and reports nothing; when it comes back nothing is loaded.
    Down,
    /// It has not joined the fleet, and nobody knows of it.
    Absent,
    /// Its clock goes wrong by so many ms, which its reports are stamped with.
    ClockAhead(f64),
}

/// A function.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FunctionSpec {
    /// Its name.
    pub id: FunctionId,
    /// The protocol that it serves.
    pub protocol: Protocol,
    /// The event that asks for it.
    pub event_type: EventType,
    /// The trading pair that it usually concerns.
    pub trading_pair: TradingPair,
    /// The exchange that it usually calls.
    pub exchange: Exchange,
    /// How soon it is usually needed.
    pub urgency: Urgency,
    /// How risky it is when the amount says nothing.
    pub risk: RiskLevel,
    /// Median execution on an ordinary shard at complexity 1, in ms (the mean where noise is exponential).
    pub base_ms: f64,
    /// Exponent of the complexity.
    pub complexity_exponent: f64,
    /// Standard deviation of ln execution from call to call.
    pub log_sd: f64,
    /// Sequential calls to the exchange, off the core.
    pub exchange_calls: u32,
    /// Memory in MB.
    pub memory_mb: f32,
    /// Loading when it is not warm, in ms.
    pub load_ms: f64,
    /// Relative popularity.
    pub weight: f64,
    /// What it leans on.
    pub resource: ResourceClass,
}

/// How execution varies from call to call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceNoise {
    /// Log-normal with the function's deviation, and a heavy tail.
    LogNormal,
    /// Exponential, for queues whose answer is known.
    Exponential,
}

/// How a shard gives its cores to requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Discipline {
    /// One request a core until it is done; others wait in the order in which they came.
    #[default]
    FirstComeFirstServed,
    /// All run at once and share the cores equally, none faster than one core. What a request waits because of others
    /// counts as queueing.
    ProcessorSharing,
}

/// Clocks, noise and limits that hold everywhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Timing {
    /// The router gives up after this, in ms, and the shard drops what is older when its turn comes.
    pub timeout_ms: f64,
    /// How often a router sends a request at most; more than 1 is trying again after an error or a timeout.
    #[serde(default = "one_attempt")]
    pub attempts: u32,
    /// A router that may try again gives up on an attempt after this, in ms; the shard works on, unaware.
    #[serde(default = "no_limit")]
    pub attempt_timeout_ms: f64,
    /// How shards give their cores to requests.
    #[serde(default)]
    pub discipline: Discipline,
    /// A function that was not used for this long must be loaded again, in ms.
    pub warm_ttl_ms: f64,
    /// Time between reports in ms.
    pub report_interval_ms: f64,
    /// How long a report travels, in ms.
    pub report_delay_ms: f64,
    /// Up to this much longer, in ms; less than the interval, so that reports stay in order.
    pub report_jitter_ms: f64,
    /// Relative noise of what reports measure.
    pub report_noise: f64,
    /// Share of reports that are lost.
    pub report_loss: f64,
    /// How long the market's minute bars travel, in ms.
    pub market_delay_ms: f64,
    /// How execution varies.
    pub service_noise: ServiceNoise,
    /// Share of executions with a heavy tail.
    pub tail_share: f64,
    /// Exponent of the tail (Pareto, from 1).
    pub tail_exponent: f64,
    /// The longest that the tail gets, as a factor.
    pub tail_cap: f64,
    /// Share of executions that fail.
    pub failure_rate: f64,
    /// Share of memory in use above which a shard slows down.
    pub memory_pressure: f64,
    /// How slow a shard with full memory is, as a factor.
    pub memory_slowdown: f64,
}

fn one_attempt() -> u32 {
    1
}

fn no_limit() -> f64 {
    MOST_MS
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            timeout_ms: 3_000.0,
            attempts: one_attempt(),
            attempt_timeout_ms: no_limit(),
            discipline: Discipline::default(),
            warm_ttl_ms: 30_000.0,
            report_interval_ms: 1_000.0,
            report_delay_ms: 20.0,
            report_jitter_ms: 30.0,
            report_noise: 0.05,
            report_loss: 0.01,
            market_delay_ms: 50.0,
            service_noise: ServiceNoise::LogNormal,
            tail_share: 0.008,
            tail_exponent: 1.5,
            tail_cap: 30.0,
            failure_rate: 0.0005,
            memory_pressure: 0.9,
            memory_slowdown: 1.25,
        }
    }
}

impl ShardSpec {
    /// Speed of a function here, 1 being ordinary; antagonists and faults not counted.
    pub fn speed_of(&self, function: &FunctionSpec) -> f64 {
        let speed = &self.speed;
        if let Some(measured) = speed.measured.get(&function.id) {
            return *measured;
        }
        let special = speed.specialities.contains(&function.protocol);
        let noise: f64 = stream(speed.pair_seed, Purpose::PairNoise, function.id.key()).sample(StandardNormal);
        speed.base
            * speed.by_resource[function.resource as usize]
            * if special { speed.speciality } else { 1.0 }
            * (speed.pair_sigma * noise).exp()
    }

    /// Mean slowness over time: antagonist and slowness trace of the resource.
    fn mean_slowness(&self, resource: ResourceClass) -> f64 {
        let trace = self.slowness.iter().find(|trace| trace.resource == resource).map_or(1.0, |trace| {
            trace.values.iter().map(|value| f64::from(*value)).sum::<f64>() / trace.values.len() as f64
        });
        let noise = (self.noise.sigma[resource as usize].powi(2) / 2.0).exp();
        trace * noise * self.antagonist.map_or(1.0, Antagonist::mean_slowness)
    }

    /// Whole cores, the servers of its queue.
    pub(crate) fn servers(&self) -> u32 {
        self.shape.cores as u32
    }
}

impl Antagonist {
    fn mean_slowness(self) -> f64 {
        let (least, most) = (self.least_share, self.most_share);
        // Mean of 1 / (1 − share) over a uniform share.
        let there = if most - least < 1e-9 {
            1.0 / (1.0 - least)
        } else {
            ((1.0 - least) / (1.0 - most)).ln() / (most - least)
        };
        (self.on_ms * there + self.off_ms) / (self.on_ms + self.off_ms)
    }
}

impl WorldSpec {
    /// Cores of the fleet.
    pub fn cores(&self) -> f64 {
        self.shards.iter().map(|shard| f64::from(shard.servers())).sum()
    }

    /// Mean core time of each function at complexity 1, in ms, were it spread over the fleet by cores: speed, noise,
    /// tail and antagonists counted, loading not.
    pub fn mean_service_ms(&self) -> Vec<f64> {
        let cores = self.cores();
        let spread = |function: &FunctionSpec| -> f64 {
            let slowness = |shard: &ShardSpec| shard.mean_slowness(function.resource) / shard.speed_of(function);
            self.shards.iter().map(|shard| f64::from(shard.servers()) * slowness(shard)).sum::<f64>() / cores
        };
        self.functions.iter().map(|function| function.base_ms * self.mean_noise(function) * spread(function)).collect()
    }

    /// Mean loading time per request in ms of a function that comes so often and is spread over the shards: it is cold
    /// when no request came to the shard for as long as it stays warm.
    pub(crate) fn mean_load_ms(&self, function: usize, arrivals_per_ms: f64) -> f64 {
        let expected = arrivals_per_ms * self.timing.warm_ttl_ms / self.shards.len() as f64;
        self.functions[function].load_ms * (-expected).exp()
    }

    fn mean_noise(&self, function: &FunctionSpec) -> f64 {
        let timing = &self.timing;
        match timing.service_noise {
            ServiceNoise::Exponential => 1.0,
            ServiceNoise::LogNormal => {
                let slope = 1.0 - timing.tail_exponent;
                let tail = 1.0 + (timing.tail_cap.powf(slope) - 1.0) / slope;
                (function.log_sd.powi(2) / 2.0).exp() * (1.0 + timing.tail_share * (tail - 1.0))
            }
        }
    }

    /// Checks everything that a run relies on.
    ///
    /// # Errors
    /// Names the first field that is out of range.
    pub fn check(&self) -> Result<(), WorldError> {
        for (field, empty) in [
            ("shards", self.shards.is_empty()),
            ("routers", self.routers.is_empty()),
            ("functions", self.functions.is_empty()),
        ] {
            require(!empty, field, || "is empty; a world needs at least one".to_owned())?;
        }
        require(self.shards.len() < 1 << 16, "shards", || format!("{} are too many", self.shards.len()))?;
        self.check_shapes()?;
        self.shards.iter().try_for_each(ShardSpec::check)?;
        self.functions.iter().try_for_each(FunctionSpec::check)?;
        self.check_names()?;
        self.timing.check()
    }

    /// Shapes and distances are checked where routers check them.
    fn check_shapes(&self) -> Result<(), WorldError> {
        let snapshot =
            |shard: &ShardSpec| ShardSnapshot { id: shard.id.clone(), shape: shard.shape.clone(), report: None };
        let shards = self.shards.iter().map(snapshot).collect();
        FleetSnapshot::new(shards, self.network.clone(), self.routers[0].region.clone())?;
        Ok(())
    }

    fn check_names(&self) -> Result<(), WorldError> {
        let unique = |field: &str, mut names: Vec<&str>| {
            names.sort_unstable();
            match names.windows(2).find(|pair| pair[0] == pair[1]) {
                Some(pair) => Err(WorldError::field(field, format!("'{}' is there twice; rename one", pair[0]))),
                None => Ok(()),
            }
        };
        unique("functions", self.functions.iter().map(|function| function.id.as_str()).collect())?;
        unique("routers", self.routers.iter().map(|router| router.id.as_str()).collect())
    }
}

fn require(holds: bool, field: &str, problem: impl FnOnce() -> String) -> Result<(), WorldError> {
    if holds { Ok(()) } else { Err(WorldError::field(field, problem())) }
}

/// Rows of (field, value, least, most); NaN is never in range.
fn in_range(of: &dyn Fn(&str) -> String, rows: &[(&str, f64, f64, f64)]) -> Result<(), WorldError> {
    rows.iter().try_for_each(|(field, value, least, most)| {
        require((*least..=*most).contains(value), &of(field), || {
            format!("{value} is out of range; it must lie between {least} and {most}")
        })
    })
}

/// The shortest and longest times that make sense, in ms: a nanosecond and a year.
const LEAST_MS: f64 = 1e-6;
const MOST_MS: f64 = 3.2e10;

impl ShardSpec {
    fn check(&self) -> Result<(), WorldError> {
        let of = |field: &str| format!("shards[{}].{field}", self.id);
        let cores = self.shape.cores;
        require(cores.fract() == 0.0 && (1.0..=1024.0).contains(&cores), &of("cores"), || {
            format!("{cores} must be a whole number from 1 to 1024")
        })?;
        let [compute, memory, io] = self.speed.by_resource;
        in_range(
            &of,
            &[
                ("speed.base", self.speed.base, 1e-3, 1e3),
                ("speed.byResource", compute, 1e-3, 1e3),
                ("speed.byResource", memory, 1e-3, 1e3),
                ("speed.byResource", io, 1e-3, 1e3),
                ("speed.speciality", self.speed.speciality, 1e-3, 1e3),
                ("speed.pairSigma", self.speed.pair_sigma, 0.0, 3.0),
                ("noise.sigma", self.noise.sigma.into_iter().fold(0.0, f64::max), 0.0, 3.0),
                ("noise.stepMs", self.noise.step_ms, 1.0, MOST_MS),
                ("noise.persistence", self.noise.persistence, 0.0, 0.999_999),
            ],
        )?;
        for speed in self.speed.measured.values() {
            in_range(&of, &[("speed.measured", *speed, 1e-3, 1e3)])?;
        }
        if let Some(antagonist) = &self.antagonist {
            in_range(
                &of,
                &[
                    ("antagonist.onMs", antagonist.on_ms, LEAST_MS, MOST_MS),
                    ("antagonist.offMs", antagonist.off_ms, LEAST_MS, MOST_MS),
                    ("antagonist.leastShare", antagonist.least_share, 0.0, 0.99),
                    ("antagonist.mostShare", antagonist.most_share, antagonist.least_share, 0.99),
                ],
            )?;
        }
        self.slowness.iter().try_for_each(|trace| trace.check(&of))?;
        self.faults.iter().try_for_each(|fault| fault.check(&of))
    }
}

impl SlownessTrace {
    fn check(&self, of: &dyn Fn(&str) -> String) -> Result<(), WorldError> {
        require(!self.values.is_empty(), &of("slowness.values"), || "is empty; leave the trace out".to_owned())?;
        in_range(of, &[("slowness.stepMs", self.step_ms, LEAST_MS, MOST_MS)])?;
        self.values.iter().try_for_each(|value| in_range(of, &[("slowness.values", f64::from(*value), 1e-2, 1e3)]))
    }
}

impl Fault {
    fn check(&self, of: &dyn Fn(&str) -> String) -> Result<(), WorldError> {
        in_range(
            of,
            &[("faults.fromMs", self.from_ms, 0.0, MOST_MS), ("faults.untilMs", self.until_ms, self.from_ms, MOST_MS)],
        )?;
        match self.kind {
            FaultKind::Slow(factor) => in_range(of, &[("faults.slow", factor, 1e-2, 1e4)]),
            FaultKind::Failing(share) => in_range(of, &[("faults.failing", share, 0.0, 1.0)]),
            FaultKind::ClockAhead(ms) => in_range(of, &[("faults.clockAhead", ms, -MOST_MS, MOST_MS)]),
            FaultKind::Unhealthy | FaultKind::Down | FaultKind::Absent => Ok(()),
        }
    }
}

impl FunctionSpec {
    /// How much longer an input of this size takes than one of size 1.
    pub(crate) fn complexity_factor(&self, complexity: f32) -> f64 {
        if complexity == 1.0 { 1.0 } else { f64::from(complexity).powf(self.complexity_exponent) }
    }

    fn check(&self) -> Result<(), WorldError> {
        let of = |field: &str| format!("functions[{}].{field}", self.id);
        in_range(
            &of,
            &[
                ("baseMs", self.base_ms, LEAST_MS, MOST_MS),
                ("complexityExponent", self.complexity_exponent, -3.0, 3.0),
                ("logSd", self.log_sd, 0.0, 3.0),
                ("exchangeCalls", f64::from(self.exchange_calls), 0.0, 1000.0),
                ("memoryMb", f64::from(self.memory_mb), 0.0, 1e9),
                ("loadMs", self.load_ms, 0.0, MOST_MS),
                ("weight", self.weight, 0.0, 1e12),
            ],
        )
    }
}

impl Timing {
    /// What a policy's cost needs to know of this world.
    pub fn runtime(&self) -> Runtime {
        Runtime { timeout_ms: self.timeout_ms, warm_ttl_ms: self.warm_ttl_ms }
    }

    fn check(&self) -> Result<(), WorldError> {
        let of = |field: &str| format!("timing.{field}");
        in_range(
            &of,
            &[
                ("timeoutMs", self.timeout_ms, LEAST_MS, MOST_MS),
                ("attempts", f64::from(self.attempts), 1.0, 100.0),
                ("attemptTimeoutMs", self.attempt_timeout_ms, LEAST_MS, MOST_MS),
                ("warmTtlMs", self.warm_ttl_ms, 0.0, MOST_MS),
                ("reportIntervalMs", self.report_interval_ms, 1.0, MOST_MS),
                ("reportDelayMs", self.report_delay_ms, 0.0, MOST_MS),
                ("reportJitterMs", self.report_jitter_ms, 0.0, self.report_interval_ms * 0.999),
                ("reportNoise", self.report_noise, 0.0, 1.0),
                ("reportLoss", self.report_loss, 0.0, 1.0),
                ("marketDelayMs", self.market_delay_ms, 0.0, MOST_MS),
                ("tailShare", self.tail_share, 0.0, 1.0),
                ("tailExponent", self.tail_exponent, 1.001, 100.0),
                ("tailCap", self.tail_cap, 1.0, 1e6),
                ("failureRate", self.failure_rate, 0.0, 1.0),
                ("memoryPressure", self.memory_pressure, 0.0, 1.0),
                ("memorySlowdown", self.memory_slowdown, 1.0, 100.0),
            ],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FleetOptions;

    #[test]
    fn a_bad_world_is_refused_with_the_name_of_the_field() {
        type Spoil = fn(&mut WorldSpec);
        let cases: [(&str, Spoil); 9] = [
            ("shards", |world| world.shards.clear()),
            ("routers", |world| world.routers[0].id = world.routers[1].id.clone()),
            ("cores", |world| world.shards[3].shape.cores = 1.5),
            ("memoryMb", |world| world.shards[3].shape.memory_mb = f32::NAN),
            ("rttMs", |world| world.network.rtt_ms.clear()),
            ("baseMs", |world| world.functions[5].base_ms = 0.0),
            ("timing.reportJitterMs", |world| world.timing.report_jitter_ms = 1_000.0),
            ("timing.timeoutMs", |world| world.timing.timeout_ms = f64::NAN),
            ("faults.slow", |world| {
                world.shards[0].faults.push(Fault { from_ms: 0.0, until_ms: 1.0, kind: FaultKind::Slow(0.0) });
            }),
        ];
        let sound = WorldSpec::generate(1, &FleetOptions { routers: 2, ..FleetOptions::default() });
        assert_eq!(sound.check(), Ok(()));
        for (field, spoil) in cases {
            let mut world = sound.clone();
            spoil(&mut world);
            let error = world.check().unwrap_err().to_string();
            assert!(error.contains(field), "{field}: {error}");
        }
    }

    #[test]
    fn a_world_survives_being_written() {
        for (seed, heterogeneity) in [(1, 1.0), (2, 0.7)] {
            let world = WorldSpec::generate(seed, &FleetOptions { heterogeneity, ..FleetOptions::default() });
            let json = serde_json::to_string(&world).unwrap();
            assert!(serde_json::from_str::<WorldSpec>(&json).unwrap() == world, "seed {seed}");
        }
    }

    #[test]
    fn an_antagonist_costs_what_it_takes() {
        let half = Antagonist { on_ms: 10.0, off_ms: 30.0, least_share: 0.5, most_share: 0.5 };
        assert!((half.mean_slowness() - 1.25).abs() < 1e-12);
        let wide = Antagonist { least_share: 0.2, most_share: 0.7, ..half };
        let sum: f64 = (0..10_000).map(|i| 1.0 / (1.0 - (0.2 + 0.5 * (f64::from(i) + 0.5) / 1e4))).sum();
        assert!((wide.mean_slowness() - (0.25 * sum / 1e4 + 0.75)).abs() < 1e-6);
    }
}
