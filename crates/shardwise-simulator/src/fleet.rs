//! Generates a heterogeneous fleet from a seed: the named shards of the specification, regions, functions.
//!
//! It draws no arrivals.

use rand::RngExt;
use rand_distr::{LogNormal, StandardNormal};
use shardwise_types::{
    FunctionId, HardwareClass, Network, Protocol, Region, RiskLevel, RouterId, ShardId, ShardShape, Urgency,
};

use crate::constants::{SPECIALITY, ZIPF_SLOPE};
use crate::heterogeneity::{self, Machine};
use crate::streams::{KeyedStream, Purpose, stream};
use crate::world::{FunctionSpec, ResourceClass, RouterSpec, ShardSpec, Timing, WorldSpec};

/// How large and how unequal a generated fleet is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FleetOptions {
    /// Shards: the first so many of the specification's 26, then `shard-extra-27` and on.
    pub shards: usize,
    /// Routers, spread over the regions.
    pub routers: usize,
    /// Functions.
    pub functions: usize,
    /// Distances as a share of those between continents: 1 global, 0.1 metro, 0 none.
    pub net_scale: f32,
    /// How unequal machines are: 1 as measured, 0 identical machines (regions stay; `net_scale` removes them).
    pub heterogeneity: f32,
}

/// Which fleet to generate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FleetKind {
    /// Machines as unequal as measured.
    Heterogeneous,
    /// Identical machines, without neighbours and noise of their own.
    Homogeneous,
    /// Every shard that the specification names, on identical machines, and faster on the protocols that it is made for:
    /// the fleet that the specification's maps have in mind.
    AsSpecified,
}

impl FleetKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Heterogeneous, Self::Homogeneous, Self::AsSpecified];

    /// Its name in commands.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Heterogeneous => "heterogeneous",
            Self::Homogeneous => "homogeneous",
            Self::AsSpecified => "as-specified",
        }
    }

    /// What its machines are like, in sentences.
    pub fn story(self) -> String {
        match self {
            Self::Heterogeneous => heterogeneity::in_words(),
            Self::Homogeneous => "Machines are identical, without neighbours and noise of their own.".to_owned(),
            Self::AsSpecified => format!(
                "Every shard that the specification names, on identical machines, {SPECIALITY} times as fast on the \
                 protocols that it is made for."
            ),
        }
    }
}

impl Default for FleetOptions {
    fn default() -> Self {
        Self { shards: 20, routers: 1, functions: 150, net_scale: 0.1, heterogeneity: 1.0 }
    }
}

const REGIONS: [&str; 4] = ["us-east", "us-west", "eu-central", "asia-pacific"];

/// Round-trip times between the regions over public clouds, in ms.
const GLOBAL_RTT_MS: [f32; 16] =
    [0.8, 62.0, 90.0, 180.0, 62.0, 0.8, 145.0, 110.0, 90.0, 145.0, 0.8, 160.0, 180.0, 110.0, 160.0, 0.8];

/// Exchanges and where they stand; others stand in us-east (S3).
const EXCHANGES: [(&str, &str); 5] = [
    ("binance", "asia-pacific"),
    ("okx", "asia-pacific"),
    ("coinbase", "us-west"),
    ("kraken", "us-west"),
    ("bitstamp", "eu-central"),
];

/// The specification's shards: name, index of the region, protocols that they are made for (S1, S2, S3).
const SITES: [(&str, usize, &[&str]); 26] = [
    ("shard-aave-primary", 0, &["aave"]),
    ("shard-aave-secondary", 2, &["aave"]),
    ("shard-compound-primary", 0, &["compound"]),
    ("shard-compound-secondary", 1, &["compound"]),
    ("shard-uniswap-primary", 0, &["uniswap"]),
    ("shard-curve-primary", 2, &["curve"]),
    ("shard-dex-general", 0, &["uniswap", "curve", "dex"]),
    ("shard-arbitrage-primary", 3, &["arbitrage"]),
    ("shard-arbitrage-secondary", 1, &["arbitrage"]),
    ("shard-general", 0, &[]),
    ("shard-retail-primary", 0, &[]),
    ("shard-retail-secondary", 1, &[]),
    ("shard-institutional-primary", 0, &[]),
    ("shard-institutional-secondary", 2, &[]),
    ("shard-whale-primary", 0, &[]),
    ("shard-whale-secondary", 2, &[]),
    ("shard-critical-primary", 0, &[]),
    ("shard-us-west-1", 1, &[]),
    ("shard-eu-central-1", 2, &[]),
    ("shard-ap-1", 3, &[]),
    ("shard-us-east-1", 0, &[]),
    ("shard-us-east-2", 0, &[]),
    ("shard-us-west-2", 1, &[]),
    ("shard-eu-central-2", 2, &[]),
    ("shard-ap-2", 3, &[]),
    ("shard-overflow", 0, &[]),
];

/// Protocols, the events that their functions run for, and their share of the functions.
const PROTOCOLS: [(&str, &[&str], f64); 7] = [
    ("aave", &["PositionHealthChanged", "InterestRateUpdated"], 0.17),
    ("compound", &["PositionHealthChanged", "InterestRateUpdated"], 0.12),
    ("uniswap", &["SwapExecuted", "PriceUpdated", "LiquidityChanged"], 0.22),
    ("curve", &["SwapExecuted", "PoolRebalanced"], 0.11),
    ("dex", &["SwapExecuted", "PriceUpdated"], 0.10),
    ("arbitrage", &["PriceUpdated", "ArbitrageDetected"], 0.16),
    ("market", &["PriceUpdated", "GasPriceChanged"], 0.12),
];

const PAIRS: [&str; 6] = ["ETH/USDC", "BTC/USDC", "WBTC/ETH", "SOL/USDC", "DAI/USDC", "ARB/ETH"];
const CALLED: [&str; 7] = ["binance", "okx", "coinbase", "kraken", "bitstamp", "uniswap-router", "none"];

impl WorldSpec {
    /// Generates a fleet; the same seed and options give the same world.
    ///
    /// ```
    /// use shardwise_simulator::{FleetOptions, WorldSpec};
    /// let world = WorldSpec::generate(7, &FleetOptions::default());
    /// assert_eq!(world.shards[0].id.as_str(), "shard-aave-primary");
    /// assert!(world.check().is_ok());
    /// ```
    pub fn generate(fleet_seed: u64, options: &FleetOptions) -> Self {
        let mut shards: Vec<ShardSpec> = (0..options.shards).map(|index| shard(fleet_seed, index, options)).collect();
        let unlimited = shards.iter().any(|shard| shard.shape.max_amount_usd.is_none());
        if let (false, Some(last)) = (unlimited, shards.last_mut()) {
            // A fleet too small for the whale shards still serves every amount.
            last.shape.max_amount_usd = None;
        }
        Self {
            network: network(options.net_scale),
            routers: (0..options.routers).map(router).collect(),
            shards,
            functions: (0..options.functions).map(|index| function(fleet_seed, index)).collect(),
            timing: Timing::default(),
        }
    }

    /// Generates a fleet of a kind; `options` holds for what the kind leaves open.
    pub fn generate_kind(kind: FleetKind, fleet_seed: u64, options: &FleetOptions) -> Self {
        let identical = FleetOptions { heterogeneity: 0.0, ..*options };
        match kind {
            FleetKind::Heterogeneous => Self::generate(fleet_seed, options),
            FleetKind::Homogeneous => Self::generate(fleet_seed, &identical),
            FleetKind::AsSpecified => {
                let mut world = Self::generate(fleet_seed, &FleetOptions { shards: SITES.len(), ..identical });
                for (index, shard) in world.shards.iter_mut().enumerate() {
                    (_, _, shard.speed.specialities) = site(index);
                    shard.speed.speciality = SPECIALITY;
                }
                world
            }
        }
    }

    /// One more shard of the same making, which history has not seen.
    pub fn another_shard(&self, fleet_seed: u64, options: &FleetOptions) -> ShardSpec {
        ShardSpec { id: ShardId::new("shard-new"), ..shard(fleet_seed, SITES.len() + self.shards.len(), options) }
    }
}

/// Rounds to six digits: a world then reads well and is exactly what it was after JSON, whoever parses it.
pub(crate) fn tidy(value: f64) -> f64 {
    format!("{value:.5e}").parse().expect("a number in scientific notation")
}

fn network(scale: f32) -> Network {
    Network {
        regions: REGIONS.map(Region::from).to_vec(),
        rtt_ms: GLOBAL_RTT_MS.map(|rtt| rtt * scale).to_vec(),
        exchanges: EXCHANGES.map(|(exchange, region)| (exchange.into(), region.into())).to_vec(),
        default_region: REGIONS[0].into(),
    }
}

fn router(index: usize) -> RouterSpec {
    // East coast, Europe, west coast, Asia: where the traffic comes from, largest first.
    const ORDER: [usize; 4] = [0, 2, 1, 3];
    RouterSpec { id: RouterId::from(format!("router-{}", index + 1)), region: REGIONS[ORDER[index % 4]].into() }
}

fn site(index: usize) -> (ShardId, Region, Vec<Protocol>) {
    match SITES.get(index) {
        Some((name, region, protocols)) => {
            (ShardId::new(name), REGIONS[*region].into(), protocols.iter().map(|name| Protocol::new(name)).collect())
        }
        None => (format!("shard-extra-{}", index + 1).into(), REGIONS[index % 4].into(), Vec::new()),
    }
}

fn max_amount_usd(id: &ShardId) -> Option<f64> {
    match id.as_str() {
        "shard-whale-primary" => None,
        "shard-whale-secondary" => Some(10e6),
        _ => Some(1e6),
    }
}

fn shard(fleet_seed: u64, index: usize, options: &FleetOptions) -> ShardSpec {
    let mut rng = stream(fleet_seed, Purpose::Shards, index as u64);
    let (id, region, _) = site(index);
    let max_amount_usd = max_amount_usd(&id);
    let Machine { cores, hardware, clock_ghz, speed, noise, antagonist } =
        Machine::draw(&mut rng, options, u64::from(fleet_seed as u32));
    let shape = ShardShape {
        region,
        cores: f32::from(cores),
        clock_ghz: clock_ghz as f32,
        memory_mb: 8192.0 * f32::from(cores + 1) * if hardware == HardwareClass::Memory { 1.5 } else { 1.0 },
        hardware,
        max_amount_usd,
    };
    ShardSpec { id, shape, speed, noise, antagonist, slowness: Vec::new(), faults: Vec::new() }
}

/// Draws from rows of (value, share); shares add up to 1.
pub(crate) fn pick<T: Copy>(rng: &mut KeyedStream, shares: &[(T, f64)]) -> T {
    let mut left: f64 = rng.random();
    for (value, share) in shares {
        left -= share;
        if left < 0.0 {
            return *value;
        }
    }
    shares[shares.len() - 1].0
}

/// What a function is for, drawn by seed: all but its times and popularity; replays draw it too.
pub(crate) fn function_profile(rng: &mut KeyedStream, name: impl FnOnce(&str) -> FunctionId) -> FunctionSpec {
    let (protocol, events, _) = PROTOCOLS[pick_index(rng, PROTOCOLS.map(|(_, _, share)| share))];
    let urgency =
        pick(rng, &[(Urgency::Low, 0.35), (Urgency::Medium, 0.40), (Urgency::High, 0.18), (Urgency::Critical, 0.07)]);
    let resource = pick(rng, &[(ResourceClass::Compute, 0.5), (ResourceClass::Memory, 0.3), (ResourceClass::Io, 0.2)]);
    FunctionSpec {
        id: name(protocol),
        protocol: protocol.into(),
        event_type: events[rng.random_range(0..events.len())].into(),
        trading_pair: PAIRS[rng.random_range(0..PAIRS.len())].into(),
        exchange: CALLED[rng.random_range(0..CALLED.len())].into(),
        urgency,
        risk: pick(rng, &[(RiskLevel::Low, 0.5), (RiskLevel::Medium, 0.4), (RiskLevel::High, 0.1)]),
        base_ms: 1.0,
        complexity_exponent: tidy(rng.random_range(0.4..0.9)),
        log_sd: 0.0,
        exchange_calls: pick(rng, &[(0, 0.5), (1, 0.3), (2, 0.15), (3, 0.05)]),
        memory_mb: rng.sample(LogNormal::new(142.0_f32.ln(), 0.3).expect("a deviation above 0")),
        load_ms: tidy(rng.random_range(20.0..80.0)),
        weight: 1.0,
        resource,
    }
}

fn pick_index<const N: usize>(rng: &mut KeyedStream, shares: [f64; N]) -> usize {
    let rows: Vec<(usize, f64)> = shares.into_iter().enumerate().collect();
    pick(rng, &rows)
}

fn function(fleet_seed: u64, index: usize) -> FunctionSpec {
    let mut rng = stream(fleet_seed, Purpose::Functions, index as u64);
    let name = |protocol: &str| FunctionId::from(format!("{protocol}-function-{:03}", index + 1));
    FunctionSpec { weight: tidy(((index + 1) as f64).powf(-ZIPF_SLOPE)), ..timed_function(&mut rng, name) }
}

/// A function with its profile and times drawn by seed, of popularity 1.
pub(crate) fn timed_function(rng: &mut KeyedStream, name: impl FnOnce(&str) -> FunctionId) -> FunctionSpec {
    let mut function = function_profile(rng, name);
    let spread: f64 = rng.sample(StandardNormal);
    function.base_ms = tidy((12.0_f64.ln() + 0.8 * spread).exp().clamp(1.5, 150.0));
    function.log_sd = tidy(rng.random_range(0.2..0.7));
    function
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_fleet_and_another_another() {
        let generate = |seed| WorldSpec::generate(seed, &FleetOptions::default());
        assert_eq!(generate(5), generate(5));
        assert_ne!(generate(5), generate(6));
    }

    #[test]
    fn a_larger_fleet_begins_with_the_smaller_one() {
        let small = WorldSpec::generate(5, &FleetOptions { shards: 15, functions: 10, ..FleetOptions::default() });
        let large = WorldSpec::generate(5, &FleetOptions { shards: 30, ..FleetOptions::default() });
        assert_eq!(small.shards[..], large.shards[..15]);
        assert_eq!(small.functions[..], large.functions[..10]);
        assert_eq!(large.shards[29].id.as_str(), "shard-extra-30");
        assert_eq!(large.check(), Ok(()));
    }

    #[test]
    fn without_heterogeneity_machines_are_identical() {
        let world = WorldSpec::generate(5, &FleetOptions { heterogeneity: 0.0, ..FleetOptions::default() });
        for shard in &world.shards {
            assert_eq!((shard.shape.cores, shard.shape.hardware), (2.0, HardwareClass::General));
            assert!(world.functions.iter().all(|function| shard.speed_of(function) == 1.0), "{}", shard.id);
        }
    }

    #[test]
    fn the_specifications_fleet_has_its_shards_and_their_specialities() {
        let world = WorldSpec::generate_kind(FleetKind::AsSpecified, 1, &FleetOptions::default());
        assert_eq!((world.shards.len(), world.shards[25].id.as_str()), (26, "shard-overflow"));
        let (aave, other) = (&world.shards[0], &world.shards[25]);
        let function = world.functions.iter().find(|function| function.protocol.as_str() == "aave").unwrap();
        assert_eq!((aave.speed_of(function), other.speed_of(function)), (1.5, 1.0));
        assert!(world.shards.iter().all(|shard| shard.antagonist.is_none()));
    }

    #[test]
    fn burstable_machines_are_as_slow_as_measured() {
        let options = FleetOptions { shards: 2_000, ..FleetOptions::default() };
        let world = WorldSpec::generate(3, &options);
        let burstable: Vec<_> =
            world.shards.iter().filter(|shard| shard.shape.hardware == HardwareClass::Burstable).collect();
        assert!((burstable.len() as f64 / 2_000.0 - 0.15).abs() < 0.03);
        for (resource, slowness) in [1.83, 1.29, 1.90].into_iter().enumerate() {
            let ln = burstable.iter().map(|shard| shard.speed.by_resource[resource].ln()).sum::<f64>();
            let mean = (-ln / burstable.len() as f64).exp();
            assert!((mean / slowness - 1.0).abs() < 0.03, "{mean} instead of {slowness}");
        }
    }

    #[test]
    fn every_amount_has_a_shard() {
        for shards in [1, 14, 15, 20, 40] {
            let world = WorldSpec::generate(1, &FleetOptions { shards, ..FleetOptions::default() });
            assert!(world.shards.iter().any(|shard| shard.shape.max_amount_usd.is_none()), "{shards} shards");
        }
    }
}
