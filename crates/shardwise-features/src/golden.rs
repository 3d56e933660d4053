//! Golden contexts and the schema fingerprint that is taken from them.
//!
//! A model is tied to the features by more than their names: the fingerprint also covers what `extract` computes on
//! these contexts, so a formula that changes its meaning changes the fingerprint and old models are refused.

use std::sync::LazyLock;

use shardwise_types::{
    FleetSnapshot, HardwareClass, MarketSnapshot, Network, PlacementRequest, Response, ShardReport, ShardShape,
    ShardSnapshot, Timestamp,
};

use crate::{
    DecisionContext, DecisionFeatures, FEATURES, FeatureVector, RouterState, ServiceObservations, ServiceTable,
};

/// A context that owns its parts.
pub struct GoldenContext {
    /// The request to place.
    pub request: PlacementRequest,
    /// The fleet.
    pub fleet: FleetSnapshot,
    /// What the router saw.
    pub router: RouterState,
    /// The market.
    pub market: MarketSnapshot,
    /// What history taught, if anything.
    pub service_table: Option<ServiceTable>,
    /// The instant of the decision.
    pub decided_at: Timestamp,
}

impl GoldenContext {
    /// Borrows it as a decision does.
    pub fn context(&self) -> DecisionContext<'_> {
        DecisionContext {
            request: &self.request,
            decided_at: self.decided_at,
            fleet: &self.fleet,
            router: &self.router,
            market: &self.market,
            service_table: self.service_table.as_ref(),
        }
    }
}

/// The feature fingerprint: BLAKE3 over names, groups and order, and over the values on the golden contexts rounded to
/// six digits (mathematical libraries differ in the last bits). 64 hexadecimal digits.
pub fn fingerprint() -> &'static str {
    static FINGERPRINT: LazyLock<String> = LazyLock::new(|| {
        let mut hasher = blake3::Hasher::new();
        for feature in FEATURES {
            hasher.update(format!("{}/{}\n", feature.group.name(), feature.name).as_bytes());
        }
        for golden in contexts() {
            let decision = DecisionFeatures::new(&golden.context());
            for candidate in 0..golden.fleet.shards.len() {
                for value in FeatureVector::extract(&decision, candidate).as_slice() {
                    hasher.update(format!("{value:.5e}\n").as_bytes());
                }
            }
        }
        hasher.finalize().to_hex().to_string()
    });
    &FINGERPRINT
}

/// The golden contexts: a router that knows nothing, one that knows everything, and one in trouble.
pub fn contexts() -> Vec<GoldenContext> {
    vec![newborn(), informed(), troubled()]
}

fn newborn() -> GoldenContext {
    let request = r#"{"function":"price_arbitrage","type":"PriceUpdated","protocol":"uniswap","tradingPair":"ETH/USDC",
        "exchange":"binance","dataComplexity":1.5,"exchangeCalls":1,"memoryMb":128,"eventAt":"2026-01-05T07:40:00Z"}"#;
    GoldenContext {
        request: PlacementRequest::from_json(request).expect("the golden request is valid"),
        fleet: fleet([None, None, None]),
        router: RouterState::new(),
        market: MarketSnapshot::default(),
        service_table: None,
        decided_at: at(0.0),
    }
}

fn informed() -> GoldenContext {
    let mut golden = newborn();
    golden.fleet = fleet([Some(report(0.2, 0, 0.0)), Some(report(0.7, 3, 0.01)), Some(report(0.95, 20, 0.0))]);
    golden.market = MarketSnapshot { volatility: Some(7.5), trend: Some(-30.0) };
    golden.request.amount_usd = shardwise_types::UsdAmount::new(25_000.0).ok();
    golden.request.expected_compute_ms = Some(12.0);
    let mut observations = ServiceObservations::default();
    for i in 0..300_u32 {
        let shard = &golden.fleet.shards[(i % 3) as usize].id;
        let exec_ms = 8.0 + 4.0 * f64::from(i % 3) + f64::from(i % 7);
        observations.observe(&golden.request, shard, &response(exec_ms as f32, i % 50 == 0));
    }
    golden.service_table = Some(observations.fit());
    play(&golden, 40, |i| response(9.0 + (i % 5) as f32, i % 9 == 0));
    golden.decided_at = at(2_500.0);
    golden
}

fn troubled() -> GoldenContext {
    let mut golden = informed();
    golden.router = RouterState::new();
    golden.market.trend = None;
    play(&golden, 12, |i| Response {
        error: (i % 2 == 0).then_some(shardwise_types::ErrorClass::Failed),
        ..response(400.0, false)
    });
    golden.fleet.shards[0].report.as_mut().expect("it reported").healthy = false;
    golden.decided_at = at(9_000.0);
    golden
}

/// Sends requests round-robin, 50 ms apart; each is answered before the one after the next, the last two never.
fn play(golden: &GoldenContext, requests: usize, answer: impl Fn(usize) -> Response) {
    let mut tickets = Vec::new();
    for i in 0..requests {
        let context = DecisionContext { decided_at: at(50.0 * i as f64), ..golden.context() };
        tickets.push(golden.router.on_dispatch(&context, i % golden.fleet.shards.len()));
        if i >= 2 {
            golden.router.on_response(&tickets[i - 2], &answer(i - 2), context.decided_at);
        }
    }
}

fn at(millis: f64) -> Timestamp {
    Timestamp::from_nanos(1_767_600_000_000_000_000).plus_millis(millis)
}

fn response(exec_ms: f32, cold: bool) -> Response {
    Response { error: None, total_ms: exec_ms + 5.0, exec_ms, queue_ms: 1.0, queue_len: 2, cold }
}

fn report(cpu: f32, queue_len: u32, error_rate: f32) -> ShardReport {
    ShardReport {
        event_at: at(-400.0),
        known_at: at(-100.0),
        healthy: true,
        cpu,
        memory: 0.5,
        queue_len,
        running: 2,
        error_rate,
        mean_latency_ms: 30.0,
    }
}

fn fleet(reports: [Option<ShardReport>; 3]) -> FleetSnapshot {
    let shapes = [
        ("shard-a", "us-east", 4.0, HardwareClass::Compute, None),
        ("shard-b", "us-west", 2.0, HardwareClass::General, Some(1e6)),
        ("shard-c", "asia-pacific", 1.0, HardwareClass::Burstable, Some(1e6)),
    ];
    let shards = shapes.into_iter().zip(reports).map(|((id, region, cores, hardware, max_amount_usd), report)| {
        let shape =
            ShardShape { region: region.into(), cores, clock_ghz: 3.0, memory_mb: 8192.0, hardware, max_amount_usd };
        ShardSnapshot { id: id.into(), shape, report }
    });
    let network = Network {
        regions: vec!["us-east".into(), "us-west".into(), "asia-pacific".into()],
        rtt_ms: vec![0.5, 60.0, 170.0, 60.0, 0.5, 110.0, 170.0, 110.0, 0.5],
        exchanges: vec![("binance".into(), "asia-pacific".into())],
        default_region: "us-east".into(),
    };
    FleetSnapshot::new(shards.collect(), network, "us-east".into()).expect("the golden fleet is valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_is_known_somewhere() {
        let rows: Vec<_> = contexts()
            .iter()
            .flat_map(|golden| {
                let decision = DecisionFeatures::new(&golden.context());
                (0..3).map(|candidate| FeatureVector::extract(&decision, candidate)).collect::<Vec<_>>()
            })
            .collect();
        for (i, feature) in FEATURES.iter().enumerate() {
            assert!(rows.iter().any(|row| row.as_slice()[i].is_finite()), "{} is never known", feature.name);
        }
    }

    #[test]
    fn the_fingerprint_is_stable_within_a_build() {
        assert_eq!(fingerprint().len(), 64);
        assert_eq!(fingerprint(), fingerprint());
    }
}
