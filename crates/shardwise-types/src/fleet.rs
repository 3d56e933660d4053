//! What a router knows of the fleet: shapes of shards, their last reports, distances, the market.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Exchange, InvalidInput, Placements, Region, ReportRecord, ShardId, Timestamp};

/// What a machine is good at; it decides which functions run fast on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HardwareClass {
    /// Nothing special.
    General,
    /// Fast cores.
    Compute,
    /// Large caches and memory.
    Memory,
    /// Cheap cores that are throttled now and then.
    Burstable,
}

impl HardwareClass {
    /// All classes.
    pub const ALL: [Self; 4] = [Self::General, Self::Compute, Self::Memory, Self::Burstable];

    /// The class as it is written in the history.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::General => "general",
            Self::Compute => "compute",
            Self::Memory => "memory",
            Self::Burstable => "burstable",
        }
    }

    /// Reads a class.
    ///
    /// # Errors
    /// Anything but the listed words is refused.
    pub fn parse(text: &str) -> Result<Self, InvalidInput> {
        Self::ALL.into_iter().find(|class| class.as_str() == text).ok_or_else(|| {
            InvalidInput::new("hardware", format!("'{text}' is not one of general, compute, memory, burstable"))
        })
    }
}

/// What does not change about a shard while it lives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardShape {
    /// Where it stands.
    pub region: Region,
    /// Cores that run requests.
    pub cores: f32,
    /// Clock in GHz.
    pub clock_ghz: f32,
    /// Memory in MB.
    pub memory_mb: f32,
    /// What the machine is good at.
    pub hardware: HardwareClass,
    /// The largest amount that may run here, in US dollars; `None` is no limit. A hard rule.
    pub max_amount_usd: Option<f64>,
}

/// What a shard last said of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardReport {
    /// When it was measured, by the shard's clock.
    pub event_at: Timestamp,
    /// When the router learned it.
    pub known_at: Timestamp,
    /// Whether the shard calls itself healthy.
    pub healthy: bool,
    /// Share of its cores in use, in [0, 1].
    pub cpu: f32,
    /// Share of its memory in use, in [0, 1].
    pub memory: f32,
    /// Requests that wait.
    pub queue_len: u32,
    /// Requests that run.
    pub running: u32,
    /// Share of requests that failed since the report before, in [0, 1].
    pub error_rate: f32,
    /// Mean time of a request on the shard since the report before, in ms.
    pub mean_latency_ms: f32,
}

/// Queue length per core at which a shard counts as half full.
const QUEUE_HALF_PER_CORE: f32 = 4.0;

impl ShardReport {
    /// Overall load in [0, 1]: the fullest of CPU, memory and queue, because that one makes requests wait.
    #[inline]
    pub fn load(&self, cores: f32) -> f32 {
        let queue_per_core = self.queue_len as f32 / cores.max(f32::MIN_POSITIVE);
        let queue = queue_per_core / (queue_per_core + QUEUE_HALF_PER_CORE);
        self.cpu.max(self.memory).max(queue).clamp(0.0, 1.0)
    }

    fn check(&self) -> Result<(), InvalidInput> {
        for (field, value) in [("cpu", self.cpu), ("memory", self.memory), ("errorRate", self.error_rate)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(InvalidInput::new(field, format!("{value} is not a share; it must lie between 0 and 1")));
            }
        }
        if !(self.mean_latency_ms.is_finite() && self.mean_latency_ms >= 0.0) {
            return Err(InvalidInput::new("meanLatencyMs", format!("{} must be 0 or more", self.mean_latency_ms)));
        }
        Ok(())
    }
}

/// One shard as a router sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardSnapshot {
    /// Its name.
    pub id: ShardId,
    /// What does not change about it.
    pub shape: ShardShape,
    /// Its last report; `None` when it never reported.
    pub report: Option<ShardReport>,
}

impl ShardSnapshot {
    /// Overall load in [0, 1]; `None` when unknown.
    pub fn load(&self) -> Option<f32> {
        self.report.as_ref().map(|report| report.load(self.shape.cores))
    }

    /// Whether its last report says that it is healthy.
    pub fn is_healthy(&self) -> bool {
        self.report.as_ref().is_some_and(|report| report.healthy)
    }

    fn check(&self) -> Result<(), InvalidInput> {
        let of = |field: &str| format!("shards[{}].{field}", self.id);
        for (field, value) in
            [("cores", self.shape.cores), ("clockGhz", self.shape.clock_ghz), ("memoryMb", self.shape.memory_mb)]
        {
            if !(value.is_finite() && value > 0.0) {
                return Err(InvalidInput::new(&of(field), format!("{value} must be a finite number above 0")));
            }
        }
        if self.shape.max_amount_usd.is_some_and(|usd| usd.is_nan() || usd < 0.0) {
            return Err(InvalidInput::new(&of("maxAmountUsd"), "must be 0 or more, or left out for no limit"));
        }
        match &self.report {
            Some(report) => report.check().map_err(|e| InvalidInput::new(&of(&e.field), e.problem)),
            None => Ok(()),
        }
    }
}

/// Distances: between regions, and from exchanges to regions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// The regions, in the order of the matrix.
    pub regions: Vec<Region>,
    /// Round-trip times in ms, row by row, `regions.len()` squared.
    pub rtt_ms: Vec<f32>,
    /// The region of each exchange.
    pub exchanges: Vec<(Exchange, Region)>,
    /// The region of an exchange that is not listed.
    pub default_region: Region,
}

impl Network {
    /// Round-trip time in ms between two regions; an unknown region is as far as the farthest known.
    #[inline]
    pub fn rtt_ms(&self, from: &Region, to: &Region) -> f32 {
        // The fields are public: a matrix that was never checked may be too small, and a decision must not panic on it.
        let known = self.index_of(from).zip(self.index_of(to));
        match known.and_then(|(from, to)| self.rtt_ms.get(from * self.regions.len() + to)) {
            Some(rtt_ms) => *rtt_ms,
            None if from == to => 0.0,
            None => self.rtt_ms.iter().copied().fold(0.0, f32::max),
        }
    }

    /// The region where an exchange stands.
    pub fn exchange_region(&self, exchange: &Exchange) -> &Region {
        self.exchanges
            .iter()
            .find(|(name, _)| name.key() == exchange.key())
            .map_or(&self.default_region, |(_, region)| region)
    }

    fn index_of(&self, region: &Region) -> Option<usize> {
        self.regions.iter().position(|known| known.key() == region.key())
    }

    fn check(&self) -> Result<(), InvalidInput> {
        let cells = self.regions.len() * self.regions.len();
        if self.rtt_ms.len() != cells {
            return Err(InvalidInput::new(
                "network.rttMs",
                format!("holds {} values; {} regions need {cells}", self.rtt_ms.len(), self.regions.len()),
            ));
        }
        match self.rtt_ms.iter().find(|rtt| !(rtt.is_finite() && **rtt >= 0.0)) {
            Some(rtt) => {
                Err(InvalidInput::new("network.rttMs", format!("{rtt} is not a round-trip time; it must be 0 or more")))
            }
            None => Ok(()),
        }
    }
}

/// The fleet as one router sees it at one instant; shards are in the order of their names, each once.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FleetSnapshot {
    /// The shards, sorted by id.
    pub shards: Vec<ShardSnapshot>,
    /// Distances.
    pub network: Network,
    /// Where the router stands.
    pub router_region: Region,
    /// Where functions are to live; not part of a fleet that is written down.
    #[serde(skip)]
    pub placements: Arc<Placements>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawFleet {
    shards: Vec<ShardSnapshot>,
    network: Network,
    router_region: Region,
}

impl FleetSnapshot {
    /// Checks and sorts.
    ///
    /// # Errors
    /// Two shards of one name, values out of range, or a distance matrix of the wrong size.
    pub fn new(mut shards: Vec<ShardSnapshot>, network: Network, router_region: Region) -> Result<Self, InvalidInput> {
        shards.sort_by(|a, b| a.id.cmp(&b.id));
        if let Some(pair) = shards.windows(2).find(|pair| pair[0].id == pair[1].id) {
            return Err(InvalidInput::new(
                "shards",
                format!("'{}' is there twice; each shard must have its own id", pair[0].id),
            ));
        }
        shards.iter().try_for_each(ShardSnapshot::check)?;
        network.check()?;
        Ok(Self { shards, network, router_region, placements: Arc::default() })
    }

    /// Reads a fleet from JSON (`shards`, `network`, `routerRegion`).
    ///
    /// # Errors
    /// Names the field that is missing or out of range.
    pub fn from_json(json: &str) -> Result<Self, InvalidInput> {
        let raw: RawFleet = serde_json::from_str(json).map_err(|e| InvalidInput::new("fleet", e.to_string()))?;
        Self::new(raw.shards, raw.network, raw.router_region)
    }

    /// Takes in a shard's report; the first one makes the shard known. Whoever makes the record has checked its values.
    pub fn apply_report(&mut self, record: &ReportRecord) {
        match self.shards.binary_search_by(|shard| shard.id.cmp(&record.shard)) {
            Ok(known) => {
                // It may have come back as another machine, or be limited.
                self.shards[known].shape.clone_from(&record.shape);
                self.shards[known].report = Some(record.report.clone());
            }
            Err(place) => {
                let (id, shape) = (record.shard.clone(), record.shape.clone());
                self.shards.insert(place, ShardSnapshot { id, shape, report: Some(record.report.clone()) });
            }
        }
    }

    /// Position of a shard; `None` when it is not in the fleet.
    pub fn position(&self, id: &ShardId) -> Option<usize> {
        self.shards.binary_search_by(|shard| shard.id.cmp(id)).ok()
    }
}

/// The market at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MarketSnapshot {
    /// Standard deviation of one-minute log returns over the last hour, in basis points; `None` when unknown.
    #[serde(default)]
    pub volatility: Option<f32>,
    /// Log return over the last hour, in basis points; `None` when unknown.
    #[serde(default)]
    pub trend: Option<f32>,
}

impl MarketSnapshot {
    /// Checks the values that it has.
    ///
    /// # Errors
    /// Names the field that is out of range.
    pub fn check(&self) -> Result<(), InvalidInput> {
        if self.volatility.is_some_and(|v| !(v.is_finite() && v >= 0.0)) {
            return Err(InvalidInput::new(
                "marketConditions.volatility",
                "must be a finite number, 0 or more (leave it out when unknown)",
            ));
        }
        if self.trend.is_some_and(|t| !t.is_finite()) {
            return Err(InvalidInput::new(
                "marketConditions.trend",
                "must be a finite number (leave it out when unknown)",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Network {
        Network {
            regions: vec!["us-east".into(), "us-west".into()],
            rtt_ms: vec![0.5, 60.0, 60.0, 0.5],
            exchanges: vec![("kraken".into(), "us-west".into())],
            default_region: "us-east".into(),
        }
    }

    fn shard(id: &str) -> ShardSnapshot {
        let shape = ShardShape {
            region: "us-east".into(),
            cores: 2.0,
            clock_ghz: 3.0,
            memory_mb: 4096.0,
            hardware: HardwareClass::General,
            max_amount_usd: None,
        };
        ShardSnapshot { id: id.into(), shape, report: None }
    }

    #[test]
    fn the_order_of_the_input_is_forgotten() {
        let one = FleetSnapshot::new(vec![shard("b"), shard("a")], network(), "us-east".into()).unwrap();
        let two = FleetSnapshot::new(vec![shard("a"), shard("b")], network(), "us-east".into()).unwrap();
        assert_eq!(one, two);
        assert_eq!(one.position(&"b".into()), Some(1));
    }

    #[test]
    fn a_shard_that_is_there_twice_is_refused() {
        let error = FleetSnapshot::new(vec![shard("a"), shard("a")], network(), "us-east".into()).unwrap_err();
        assert!(error.to_string().contains("'a' is there twice"), "{error}");
    }

    #[test]
    fn an_idle_shard_is_idle_and_a_full_one_is_full() {
        let idle = ShardReport {
            event_at: Timestamp::default(),
            known_at: Timestamp::default(),
            healthy: true,
            cpu: 0.0,
            memory: 0.0,
            queue_len: 0,
            running: 0,
            error_rate: 0.0,
            mean_latency_ms: 0.0,
        };
        assert_eq!(idle.load(2.0), 0.0);
        assert_eq!(ShardReport { memory: 1.0, ..idle.clone() }.load(2.0), 1.0);
        assert_eq!(ShardReport { queue_len: 8, ..idle }.load(2.0), 0.5);
    }

    #[test]
    fn unknown_places_are_far() {
        let network = network();
        assert_eq!(network.rtt_ms(&"us-east".into(), &"us-west".into()), 60.0);
        assert_eq!(network.rtt_ms(&"us-east".into(), &"mars".into()), 60.0);
        assert_eq!(network.exchange_region(&"kraken".into()).as_str(), "us-west");
        assert_eq!(network.exchange_region(&"unheard-of".into()).as_str(), "us-east");
    }
}
