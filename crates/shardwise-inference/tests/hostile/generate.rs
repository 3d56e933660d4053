//! Requests, fleets, times and answers by a seeded generator: as the borders let them in, or as nobody should make them.

use shardwise_types::{
    ErrorClass, Exchange, FleetSnapshot, FunctionId, HardwareClass, MarketSnapshot, Network, PlacementRequest,
    Priority, Protocol, Region, Response, RiskLevel, ShardId, ShardReport, ShardShape, ShardSnapshot, Timestamp,
    Urgency, UsdAmount,
};

/// The largest fleet.
const LARGE: usize = 10_000;
/// Names that small fleets take: those that the strategies know, and those that the service table does.
const KNOWN: [&str; 20] = [
    "shard-a",
    "shard-b",
    "shard-c",
    "shard-general",
    "shard-overflow",
    "shard-retail-primary",
    "shard-institutional-primary",
    "shard-whale-primary",
    "shard-whale-secondary",
    "shard-critical-primary",
    "shard-aave-primary",
    "shard-uniswap-primary",
    "shard-dex-general",
    "shard-us-east-1",
    "shard-us-west-1",
    "shard-ap-1",
    "shard-ap-2",
    "",
    "shard-ü",
    "shard-x",
];
const ABSURD: [f64; 16] = [
    f64::NAN,
    f64::INFINITY,
    f64::NEG_INFINITY,
    -0.0,
    0.0,
    -1.0,
    1e300,
    -1e300,
    f64::MAX,
    f64::MIN,
    f64::MIN_POSITIVE,
    5e-324,
    3.4e38,
    -3.4e38,
    1e-45,
    1e9,
];
/// What a check lets through, if barely.
const EXTREME: [f32; 6] = [f32::MIN_POSITIVE, 1e-45, 1e-20, 1e9, 1e20, f32::MAX];
const INSTANTS: [i64; 8] = [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX, -86_400_000_000_000];
/// The instant of the golden contexts.
const NOW_NS: i64 = 1_767_600_000_000_000_000;

/// SplitMix64, and how wild it is.
pub(crate) struct Dice {
    state: u64,
    /// Share of numbers that are absurd; 0 for what the borders let in.
    wildness: f64,
}

/// Names, made once.
pub(crate) struct Names {
    shards: Vec<ShardId>,
    functions: Vec<FunctionId>,
    protocols: Vec<Protocol>,
    exchanges: Vec<Exchange>,
    regions: Vec<Region>,
}

impl Names {
    pub(crate) fn new() -> Self {
        let others = (KNOWN.len()..LARGE).map(|n| format!("shard-{n}").into());
        Self {
            shards: KNOWN.map(ShardId::from).into_iter().chain(others).collect(),
            functions: ["price_arbitrage", "liquidate", "unheard-of", ""].map(FunctionId::from).into(),
            protocols: ["uniswap", "aave", "unheard-of", ""].map(Protocol::from).into(),
            exchanges: ["binance", "kraken", "unheard-of", ""].map(Exchange::from).into(),
            regions: ["us-east", "us-west", "asia-pacific", "mars", ""].map(Region::from).into(),
        }
    }
}

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5eed, wildness: 0.0 }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn chance(&mut self, share: f64) -> bool {
        share > 0.0 && self.unit() < share
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(crate) fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// From now on what the borders let in, or something wilder; says whether it is wild.
    pub(crate) fn change_manners(&mut self) -> bool {
        self.wildness = *self.one(&[0.0, 0.0, 0.0, 0.02, 0.2, 0.8]);
        self.is_wild()
    }

    pub(crate) fn is_wild(&self) -> bool {
        self.wildness > 0.0
    }

    /// A number above 0, up to `usual` as a rule.
    fn above_zero(&mut self, usual: f32) -> f32 {
        if self.chance(self.wildness) {
            return *self.one(&ABSURD) as f32;
        }
        if self.chance(0.01) { *self.one(&EXTREME) } else { usual * (1.0 - self.unit() as f32).max(1e-6) }
    }

    /// A number in [0, 1].
    fn share(&mut self) -> f32 {
        match self.chance(self.wildness) {
            true => *self.one(&ABSURD) as f32,
            false => (self.unit() as f32 * 1.2 - 0.1).clamp(0.0, 1.0),
        }
    }

    fn integer(&mut self, usual: usize) -> u32 {
        if self.chance(0.01) { u32::MAX } else { self.below(usual) as u32 }
    }

    /// Within two minutes of the usual instant, or anywhere in time.
    pub(crate) fn instant(&mut self) -> Timestamp {
        match self.below(64) {
            0 => Timestamp::from_nanos(*self.one(&INSTANTS)),
            1 => Timestamp::from_nanos(self.next().cast_signed()),
            _ => Timestamp::from_nanos(NOW_NS + self.below(120_000_000_000) as i64),
        }
    }

    /// Shortly before or after an instant, or anywhere in time.
    pub(crate) fn near(&mut self, at: Timestamp, millis: f64) -> Timestamp {
        if self.below(64) == 0 { self.instant() } else { at.plus_millis(self.unit() * millis) }
    }

    fn amount_usd(&mut self) -> Option<UsdAmount> {
        let usd = *self.one(&[0.0, 5e-324, 100.0, 9_999.0, 1e6, 1e6 + 1.0, 2e7, 1e300]);
        UsdAmount::new(usd).ok().filter(|_| self.chance(0.7))
    }

    pub(crate) fn market(&mut self) -> MarketSnapshot {
        MarketSnapshot {
            volatility: self.chance(0.5).then(|| self.above_zero(20.0)),
            trend: self.chance(0.5).then(|| self.above_zero(200.0)),
        }
    }

    pub(crate) fn request(&mut self, names: &Names) -> PlacementRequest {
        let named = if self.is_wild() { 4 } else { 3 };
        let request = PlacementRequest {
            function: names.functions[self.below(named)].clone(),
            event_type: "PriceUpdated".into(),
            protocol: self.one(&names.protocols).clone(),
            trading_pair: "ETH/USDC".into(),
            exchange: self.one(&names.exchanges).clone(),
            risk: *self.one(RiskLevel::ALL),
            urgency: *self.one(Urgency::ALL),
            priority: *self.one(Priority::ALL),
            amount_usd: self.amount_usd(),
            data_complexity: self.above_zero(3.0),
            expected_compute_ms: self.chance(0.5).then(|| self.above_zero(50.0)),
            exchange_calls: self.integer(4),
            memory_mb: self.above_zero(1_000.0),
            residency: self.chance(0.1).then(|| self.one(&names.regions).clone()),
            event_at: self.instant(),
            market: self.chance(0.3).then(|| self.market()),
        };
        if self.is_wild() { request } else { request.check().expect("it is tame") }
    }

    pub(crate) fn response(&mut self, failures: f64) -> Response {
        let exec_ms = self.above_zero(50.0);
        let total_ms = if self.chance(0.9) { exec_ms + self.above_zero(20.0) } else { self.above_zero(100.0) };
        Response {
            error: self.chance(failures).then(|| *self.one(&ErrorClass::ALL)),
            total_ms,
            exec_ms,
            queue_ms: self.above_zero(5.0),
            queue_len: self.integer(20),
            cold: self.chance(0.1),
        }
    }

    /// An answer of a shard that says what it likes: nobody checks those.
    pub(crate) fn wild_response(&mut self, failures: f64) -> Response {
        let wildness = std::mem::replace(&mut self.wildness, 0.05);
        let response = self.response(failures);
        self.wildness = wildness;
        response
    }

    fn shape(&mut self, names: &Names) -> ShardShape {
        let limits = [None, None, None, Some(0.0), Some(1e6), Some(1e300), Some(f64::INFINITY)];
        let limit = if self.chance(self.wildness) { Some(*self.one(&ABSURD)) } else { *self.one(&limits) };
        ShardShape {
            region: self.one(&names.regions).clone(),
            cores: self.above_zero(16.0),
            clock_ghz: self.above_zero(4.0),
            memory_mb: self.above_zero(16_000.0),
            hardware: *self.one(&HardwareClass::ALL),
            max_amount_usd: limit,
        }
    }

    fn report(&mut self, now: Timestamp, healthy: f64, age_ms: f64) -> ShardReport {
        let event_at = self.near(now, -age_ms);
        ShardReport {
            event_at,
            known_at: self.near(event_at, 300.0),
            healthy: self.chance(healthy),
            cpu: self.share(),
            memory: self.share(),
            queue_len: self.integer(30),
            running: self.integer(8),
            error_rate: self.share(),
            mean_latency_ms: self.above_zero(100.0),
        }
    }

    fn network(&mut self, names: &Names) -> Network {
        let regions = self.below(5);
        // A matrix of the wrong size is nothing that a check lets through.
        let cells = if self.is_wild() && self.chance(0.1) { self.below(8) } else { regions * regions };
        Network {
            regions: names.regions[..regions].to_vec(),
            rtt_ms: (0..cells).map(|_| self.above_zero(200.0)).collect(),
            exchanges: vec![(names.exchanges[0].clone(), self.one(&names.regions).clone())],
            default_region: self.one(&names.regions).clone(),
        }
    }

    fn size(&mut self) -> usize {
        match self.below(20_000) {
            0 => LARGE,
            1..=400 => 0,
            _ => 1 + self.below(12),
        }
    }

    /// A fleet, which has the usual order only when it is tame.
    pub(crate) fn fleet(&mut self, names: &Names, now: Timestamp) -> FleetSnapshot {
        let (size, first) = (self.size(), self.below(KNOWN.len()));
        let (reporting, healthy, age_ms) =
            *self.one(&[(0.9, 0.9, 4_000.0), (1.0, 1.0, 500.0), (1.0, 0.1, 500.0), (1.0, 1.0, 1e6), (0.0, 1.0, 0.0)]);
        let id = |n: usize| if size == LARGE { n } else { (first + n) % KNOWN.len() };
        let mut shards: Vec<_> = (0..size)
            .map(|n| ShardSnapshot {
                id: names.shards[id(n)].clone(),
                shape: self.shape(names),
                report: self.chance(reporting).then(|| self.report(now, healthy, age_ms)),
            })
            .collect();
        let (network, router_region) = (self.network(names), self.one(&names.regions).clone());
        if !self.is_wild() {
            return FleetSnapshot::new(shards, network, router_region).expect("it is tame");
        }
        if size > 1 && self.chance(0.2) {
            shards[0].id = self.one(&shards[1..]).id.clone();
        }
        FleetSnapshot { shards, network, router_region, placements: Default::default() }
    }

    pub(crate) fn shuffled(&mut self, fleet: &FleetSnapshot) -> FleetSnapshot {
        let mut shards = fleet.shards.clone();
        for last in (1..shards.len()).rev() {
            shards.swap(last, self.below(last + 1));
        }
        FleetSnapshot::new(shards, fleet.network.clone(), fleet.router_region.clone()).expect("it was valid before")
    }
}
