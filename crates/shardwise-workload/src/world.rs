//! Fleets of any size, 150 functions that are asked for by Zipf's law, and what history taught about them.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use shardwise_features::{ServiceObservations, ServiceTable, golden};
use shardwise_types::{
    FleetSnapshot, PlacementRequest, Response, ShardReport, ShardSnapshot, Timestamp, Urgency, combine_keys,
};

const FUNCTIONS: usize = 150;
/// Responses to each function from each shard that the table is fitted on.
const TAUGHT: usize = 2;
const PROTOCOLS: [&str; 5] = ["uniswap", "aave", "curve", "compound", "arbitrage"];
const EVENTS: [&str; 3] = ["PriceUpdated", "WhaleMoved", "ArbitrageFound"];
const PAIRS: [&str; 4] = ["ETH/USDC", "BTC/USDC", "SOL/USDC", "ARB/ETH"];

/// What all contenders place in.
pub struct World {
    /// Its shards, all healthy.
    pub fleet: FleetSnapshot,
    /// One request for each function.
    pub requests: Vec<PlacementRequest>,
    /// What history taught about them.
    pub table: Arc<ServiceTable>,
    /// When it begins.
    pub start: Timestamp,
    /// Weights of the functions, summed up.
    cumulative: Vec<f64>,
}

impl World {
    /// Golden shards under so many names, all of them healthy.
    pub fn new(shards: usize) -> Self {
        let golden = golden::contexts().remove(1);
        let copies = golden.fleet.shards.iter().cycle().take(shards).enumerate();
        let copies = copies.map(|(n, shard)| ShardSnapshot { id: format!("shard-{n:04}").into(), ..shard.clone() });
        let (network, region) = (golden.fleet.network.clone(), golden.fleet.router_region.clone());
        let mut fleet = FleetSnapshot::new(copies.collect(), network, region).expect("a sound fleet");
        refresh(&mut fleet, golden.decided_at);
        let requests: Vec<_> = (0..FUNCTIONS).map(|n| request(&golden.request, n)).collect();
        let table = Arc::new(table(&fleet, &requests));
        let cumulative = (1..=FUNCTIONS).scan(0.0, |sum, rank| {
            *sum += 1.0 / rank as f64;
            Some(*sum)
        });
        Self { cumulative: cumulative.collect(), fleet, requests, table, start: golden.decided_at }
    }

    /// Draws a function.
    pub fn draw(&self, rng: &mut StdRng) -> usize {
        let all = self.cumulative.last().expect("there are functions");
        let drawn = rng.random_range(0.0..*all);
        self.cumulative.partition_point(|sum| *sum <= drawn).min(FUNCTIONS - 1)
    }
}

/// Fresh reports from all shards.
pub(crate) fn refresh(fleet: &mut FleetSnapshot, now: Timestamp) {
    for (n, shard) in fleet.shards.iter_mut().enumerate() {
        shard.report = Some(ShardReport {
            event_at: now.plus_millis(-100.0),
            known_at: now.plus_millis(-50.0),
            healthy: true,
            cpu: 0.3 + 0.05 * (n % 8) as f32,
            memory: 0.5,
            queue_len: (n % 3) as u32,
            running: 1,
            error_rate: 0.0,
            mean_latency_ms: 30.0,
        });
    }
}

/// What a shard would answer: each function has its time, each pair of function and shard its factor.
pub(crate) fn response(request: &PlacementRequest, shard: &ShardSnapshot, rng: &mut StdRng) -> Response {
    let share = |key: u64| (key % 1_000) as f32 / 1_000.0;
    let (function, pair) = (request.function.key(), combine_keys(request.function.key(), shard.id.key()));
    let exec_ms = (4.0 + 16.0 * share(function)) * (0.7 + 0.6 * share(pair)) * rng.random_range(0.8..1.25);
    let cold = rng.random_bool(0.02);
    let exec_ms = if cold { exec_ms + 40.0 } else { exec_ms };
    Response { error: None, total_ms: exec_ms + 8.0, exec_ms, queue_ms: 0.5, queue_len: rng.random_range(0..4), cold }
}

fn request(golden: &PlacementRequest, n: usize) -> PlacementRequest {
    PlacementRequest {
        function: format!("function-{n:03}").into(),
        event_type: EVENTS[n % EVENTS.len()].into(),
        protocol: PROTOCOLS[n % PROTOCOLS.len()].into(),
        trading_pair: PAIRS[n % PAIRS.len()].into(),
        urgency: Urgency::ALL[n % Urgency::ALL.len()],
        data_complexity: 0.5 + (n % 7) as f32 / 3.0,
        ..golden.clone()
    }
}

fn table(fleet: &FleetSnapshot, requests: &[PlacementRequest]) -> ServiceTable {
    let (mut observations, mut rng) = (ServiceObservations::default(), StdRng::seed_from_u64(5));
    for request in requests {
        for shard in fleet.shards.iter().cycle().take(fleet.shards.len() * TAUGHT) {
            observations.observe(request, &shard.id, &response(request, shard, &mut rng));
        }
    }
    observations.fit()
}
