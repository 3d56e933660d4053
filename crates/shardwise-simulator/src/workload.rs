//! What arrives and when, and the market beside it: generated, or taken from a history.
//!
//! It knows nothing of placement: the same workload is played to every policy.

use rand::RngExt;
use rand_distr::{Exp1, Geometric, StandardNormal};
use rustc_hash::FxHashMap;
use shardwise_types::{
    DecisionRecord, Exchange, MarketBar, MarketRecord, PlacementRequest, Priority, Region, RiskLevel, Timestamp,
    Urgency, UsdAmount,
};

use crate::constants::*;
use crate::market::{generate_bars, records_of_bars};
use crate::streams::{KeyedStream, Purpose, stream};
use crate::world::{FunctionSpec, WorldError, WorldSpec};

/// One request that reaches a router.
#[derive(Debug, Clone, PartialEq)]
pub struct Arrival {
    /// When.
    pub at: Timestamp,
    /// Which router, by position in the world.
    pub router: u32,
    /// Which function, by position in the world.
    pub function: u32,
    /// The request.
    pub request: PlacementRequest,
}

/// Arrivals in the order of time, and the market.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// When it begins; reports and market news from before are known from then on.
    pub start: Timestamp,
    /// When arrivals end.
    pub end: Timestamp,
    /// How long the world had run when it begins, in ms: slowness and faults of the shards go on from there.
    pub elapsed_ms: f64,
    /// The requests, in the order of time.
    pub arrivals: Vec<Arrival>,
    /// The market, in the order in which it becomes known; sequence numbers are given by the run.
    pub market: Vec<MarketRecord>,
}

/// How arrivals come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArrivalProcess {
    /// Calm and hot spells that follow the market, with cascades.
    Market,
    /// Poisson at a constant rate, for queues whose answer is known.
    Poisson,
}

/// What to generate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WorkloadOptions {
    /// When it begins.
    pub start: Timestamp,
    /// How long arrivals come, in ms.
    pub duration_ms: f64,
    /// Offered core time over the cores of the fleet, as [`Workload::offered_load`] counts it; 1 is full.
    pub load: f64,
    /// Standard deviation of ln complexity.
    pub complexity_sigma: f64,
    /// How arrivals come.
    pub process: ArrivalProcess,
    /// A stretch of more traffic than that; it does not count into the load.
    pub surge: Option<Surge>,
}

/// A stretch in which the market is hot and so many times as much comes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Surge {
    /// Its beginning as a share of the duration.
    pub from: f64,
    /// Its end as a share of the duration.
    pub until: f64,
    /// Rate over what it would be.
    pub factor: f64,
}

impl WorkloadOptions {
    /// Bursty market traffic.
    pub fn new(start: Timestamp, duration_ms: f64, load: f64) -> Self {
        Self { start, duration_ms, load, complexity_sigma: 0.5, process: ArrivalProcess::Market, surge: None }
    }
}

/// A stretch of time with one rate and one mix.
#[derive(Debug, Clone, Copy)]
struct Spell {
    from_ms: f64,
    until_ms: f64,
    hot: bool,
    /// Rate over what it would be.
    factor: f64,
}

impl Workload {
    /// Generates a workload; the same world, seed and options give the same one.
    ///
    /// # Errors
    /// When the world is not sound or an option is out of range.
    pub fn generate(world: &WorldSpec, seed: u64, options: &WorkloadOptions) -> Result<Self, WorldError> {
        check_options(options)?;
        let minutes = (options.duration_ms / 6e4).ceil() as usize + 1;
        Self::generate_on(world, seed, options, &generate_bars(seed, VOLATILITY_MINUTES + 1 + minutes))
    }

    /// The same on a market of one's own: minute bars, of which the 62nd is the first minute of the traffic.
    ///
    /// # Errors
    /// As [`generate`](Self::generate).
    pub fn generate_on(
        world: &WorldSpec,
        seed: u64,
        options: &WorkloadOptions,
        bars: &[MarketBar],
    ) -> Result<Self, WorldError> {
        world.check()?;
        check_options(options)?;
        let first_end = Timestamp::from_nanos(options.start.nanos() - VOLATILITY_MINUTES as i64 * MINUTE_NS);
        let market = records_of_bars(bars, first_end, world.timing.market_delay_ms, "BTC-PERP");
        let end = options.start.plus_millis(options.duration_ms);
        // The minute before the start is known by then; later ones when they have ended.
        let earliest = Timestamp::from_nanos(options.start.nanos() - MINUTE_NS);
        let market: Vec<MarketRecord> =
            market.into_iter().filter(|record| (earliest..=end).contains(&record.event_at)).collect();
        let mut rng = stream(seed, Purpose::Arrivals, 0);
        let spells = spells(&mut rng, options, &market);
        let mixes = [Mix::new(world, false), Mix::new(world, options.process == ArrivalProcess::Market)];
        let times = arrival_times(&mut rng, world, options, &spells, &mixes);
        let maker = RequestMaker::new(world, seed, options);
        let arrivals = times.iter().enumerate().map(|(index, event)| maker.arrival(index as u64, event)).collect();
        Ok(Self { start: options.start, end, elapsed_ms: 0.0, arrivals, market })
    }

    /// The arrivals of a history, so that a closed loop can be run on real or held-out ones.
    ///
    /// `history_from` is when the history begins: records may be its end only, and the world goes on as it was then.
    /// Where they went and what became of them is left out: that is the policy's and the simulator's to say. Records
    /// may come in any order.
    ///
    /// # Errors
    /// When there are no records, or one names a function or router that the world does not have.
    pub fn from_decisions(
        world: &WorldSpec,
        mut records: Vec<DecisionRecord>,
        mut market: Vec<MarketRecord>,
        history_from: Timestamp,
    ) -> Result<Self, WorldError> {
        records.sort_by_key(|record| (record.known_at, record.sequence));
        market.sort_by_key(|record| (record.known_at, record.sequence));
        let (Some(first), Some(last)) = (records.first(), records.last()) else {
            return Err(WorldError::Empty { what: "decisions", remedy: "choose days that the history holds" });
        };
        let (start, end) = (first.known_at, last.known_at);
        // Of the market before the start only the latest news matters.
        let old = market.partition_point(|record| record.known_at < start).saturating_sub(1);
        market.drain(..old);
        market.retain(|record| record.known_at <= end);
        let by_name: FxHashMap<u64, u32> =
            world.functions.iter().zip(0..).map(|(function, index)| (function.id.key(), index)).collect();
        let arrivals = records
            .into_iter()
            .map(|record| arrival_of(world, &by_name, record))
            .collect::<Result<Vec<Arrival>, WorldError>>()?;
        let elapsed_ms = start.millis_since(history_from).max(0.0);
        Ok(Self { start, end, elapsed_ms, arrivals, market })
    }

    /// Core time that the arrivals want over the cores of the fleet, were each function spread over all shards: with
    /// the mean speed and the loading that comes of it. A policy that places well needs less.
    pub fn offered_load(&self, world: &WorldSpec) -> f64 {
        let duration_ms = self.end.millis_since(self.start);
        let mut per_ms = vec![0.0; world.functions.len()];
        self.arrivals.iter().for_each(|arrival| per_ms[arrival.function as usize] += 1.0 / duration_ms);
        let mean_ms = world.mean_service_ms();
        let wanted = |arrival: &Arrival| {
            let function = arrival.function as usize;
            let exponent = world.functions[function].complexity_exponent;
            mean_ms[function] * f64::from(arrival.request.data_complexity).powf(exponent)
                + world.mean_load_ms(function, per_ms[function])
        };
        self.arrivals.iter().map(wanted).sum::<f64>() / (world.cores() * duration_ms)
    }
}

fn arrival_of(world: &WorldSpec, by_name: &FxHashMap<u64, u32>, record: DecisionRecord) -> Result<Arrival, WorldError> {
    let decision = record.decision_id;
    let function = *by_name.get(&record.request.function.key()).ok_or_else(|| WorldError::UnknownFunction {
        decision,
        function: record.request.function.as_str().to_owned(),
    })?;
    let router = world
        .routers
        .iter()
        .position(|router| router.id == record.router)
        .ok_or_else(|| WorldError::UnknownRouter { decision, router: record.router.as_str().to_owned() })?;
    Ok(Arrival { at: record.known_at, router: router as u32, function, request: record.request })
}

fn check_options(options: &WorkloadOptions) -> Result<(), WorldError> {
    for (field, value, most) in [
        ("durationMs", options.duration_ms, 1e10),
        ("load", options.load, 100.0),
        ("complexitySigma", options.complexity_sigma + 1e-300, 3.0),
        ("surge.factor", options.surge.map_or(1.0, |surge| surge.factor), 100.0),
    ] {
        if !(value > 0.0 && value <= most) {
            return Err(WorldError::field(
                field,
                format!("{value} is out of range; it must lie above 0, up to {most}"),
            ));
        }
    }
    Ok(())
}

/// Calm and hot spells; the calm ones are the shorter, the higher the market's volatility is over its mean.
fn spells(rng: &mut KeyedStream, options: &WorkloadOptions, market: &[MarketRecord]) -> Vec<Spell> {
    if options.process == ArrivalProcess::Poisson {
        return vec![Spell { from_ms: 0.0, until_ms: options.duration_ms, hot: false, factor: 1.0 }];
    }
    let mut spells = Vec::new();
    let (mut from_ms, mut hot) = (0.0, rng.random_bool(HOT_MS / (HOT_MS + CALM_MS)));
    while from_ms < options.duration_ms {
        let mean_ms = if hot { HOT_MS } else { CALM_MS / agitation(options.start.plus_millis(from_ms), market) };
        let until_ms = from_ms + mean_ms * rng.sample::<f64, _>(Exp1);
        spells.push(Spell { from_ms, until_ms: until_ms.min(options.duration_ms), hot, factor: 1.0 });
        (from_ms, hot) = (until_ms, !hot);
    }
    spells
}

/// Volatility at an instant over the usual one, in [0.3, 4].
fn agitation(at: Timestamp, market: &[MarketRecord]) -> f64 {
    let passed = market.partition_point(|record| record.event_at <= at);
    let volatility_bp = passed.checked_sub(1).and_then(|last| market[last].volatility_bp);
    volatility_bp.map_or(1.0, |bp| (f64::from(bp) / (MINUTE_RETURN * 1e4)).clamp(0.3, 4.0))
}

/// Popularity as cumulative weights, over all functions and over each one's protocol.
struct Mix {
    all: Cumulative,
    /// Functions of the same protocol, by function.
    protocol_of: Vec<usize>,
    protocols: Vec<Cumulative>,
}

pub(crate) struct Cumulative {
    functions: Vec<u32>,
    sums: Vec<f64>,
}

impl Cumulative {
    pub(crate) fn new(weights: impl Iterator<Item = (u32, f64)>) -> Self {
        let (mut functions, mut sums, mut sum) = (Vec::new(), Vec::new(), 0.0);
        for (function, weight) in weights {
            sum += weight;
            functions.push(function);
            sums.push(sum);
        }
        Self { functions, sums }
    }

    pub(crate) fn total(&self) -> f64 {
        self.sums.last().copied().unwrap_or(0.0)
    }

    pub(crate) fn draw(&self, rng: &mut KeyedStream) -> u32 {
        let at = rng.random::<f64>() * self.total();
        self.functions[self.sums.partition_point(|sum| *sum <= at).min(self.functions.len() - 1)]
    }
}

impl Mix {
    fn new(world: &WorldSpec, hot: bool) -> Self {
        let weight = |function: &FunctionSpec| {
            let favoured = hot && HOT_PROTOCOLS.contains(&function.protocol.as_str());
            function.weight * if favoured { HOT_MIX } else { 1.0 }
        };
        let mut names: Vec<u64> = world.functions.iter().map(|function| function.protocol.key()).collect();
        names.sort_unstable();
        names.dedup();
        let weights =
            || world.functions.iter().zip(0_u32..).map(|(function, index)| (function, index, weight(function)));
        let of_protocol =
            |key: &u64| Cumulative::new(weights().filter(|(f, ..)| f.protocol.key() == *key).map(|(_, i, w)| (i, w)));
        let position =
            |f: &FunctionSpec| names.binary_search(&f.protocol.key()).expect("taken from the same functions");
        Self {
            all: Cumulative::new(weights().map(|(_, index, weight)| (index, weight))),
            protocol_of: world.functions.iter().map(position).collect(),
            protocols: names.iter().map(of_protocol).collect(),
        }
    }

    fn sibling(&self, function: u32, rng: &mut KeyedStream) -> u32 {
        self.protocols[self.protocol_of[function as usize]].draw(rng)
    }

    /// Mean over the mix of a value per function.
    fn mean(&self, values: &[f64]) -> f64 {
        let (mut before, mut sum) = (0.0, 0.0);
        for (function, total) in self.all.functions.iter().zip(&self.all.sums) {
            sum += (total - before) * values[*function as usize];
            before = *total;
        }
        sum / self.all.total()
    }
}

/// An arrival before its request is made.
#[derive(Debug, Clone, Copy)]
struct ArrivalEvent {
    at_ms: f64,
    function: u32,
    hot: bool,
}

fn arrival_times(
    rng: &mut KeyedStream,
    world: &WorldSpec,
    options: &WorkloadOptions,
    spells: &[Spell],
    mixes: &[Mix; 2],
) -> Vec<ArrivalEvent> {
    let market = options.process == ArrivalProcess::Market;
    let rate = calm_rate_per_ms(world, options, spells, mixes);
    let size = Geometric::new(1.0 / (1.0 + CASCADE_MEAN)).expect("a probability");
    let mut events = Vec::new();
    for spell in surged(spells, options) {
        let mix = &mixes[usize::from(spell.hot)];
        let rate = spell.factor * if spell.hot { rate * HOT_RATE } else { rate };
        let mut at_ms = spell.from_ms + rng.sample::<f64, _>(Exp1) / rate;
        while at_ms < spell.until_ms {
            let function = mix.all.draw(rng);
            events.push(ArrivalEvent { at_ms, function, hot: spell.hot });
            if market && rng.random_bool(CASCADE_SHARE) {
                for _ in 0..rng.sample(size) {
                    let at_ms = at_ms + CASCADE_MS * rng.random::<f64>();
                    events.push(ArrivalEvent { at_ms, function: mix.sibling(function, rng), hot: spell.hot });
                }
            }
            at_ms += rng.sample::<f64, _>(Exp1) / rate;
        }
    }
    events.retain(|event| event.at_ms < options.duration_ms);
    events.sort_by(|a, b| a.at_ms.total_cmp(&b.at_ms));
    events
}

/// The spells with the surge, if there is one, cut into them.
fn surged(spells: &[Spell], options: &WorkloadOptions) -> Vec<Spell> {
    let Some(surge) = options.surge else { return spells.to_vec() };
    let (from_ms, until_ms) = (surge.from * options.duration_ms, surge.until * options.duration_ms);
    let cut = |spell: &Spell| {
        let before = Spell { until_ms: spell.until_ms.min(from_ms), ..*spell };
        let within = Spell {
            from_ms: spell.from_ms.max(from_ms),
            until_ms: spell.until_ms.min(until_ms),
            hot: true,
            factor: surge.factor,
        };
        let after = Spell { from_ms: spell.from_ms.max(until_ms), ..*spell };
        [before, within, after].into_iter().filter(|part| part.until_ms > part.from_ms)
    };
    spells.iter().flat_map(cut).collect()
}

/// Rate in calm spells that makes the expected core time over all spells the wanted load, by fixed-point iteration:
/// the more requests come, the fewer find their function cold.
fn calm_rate_per_ms(world: &WorldSpec, options: &WorkloadOptions, spells: &[Spell], mixes: &[Mix; 2]) -> f64 {
    let sigma = options.complexity_sigma;
    let warm_ms: Vec<f64> = world
        .mean_service_ms()
        .iter()
        .zip(&world.functions)
        .map(|(ms, function)| ms * ((function.complexity_exponent * sigma).powi(2) / 2.0).exp())
        .collect();
    let weights: f64 = world.functions.iter().map(|function| function.weight).sum();
    let cascades = if options.process == ArrivalProcess::Market { 1.0 + CASCADE_SHARE * CASCADE_MEAN } else { 1.0 };
    let volume = |spell: &Spell| (spell.until_ms - spell.from_ms) * cascades * if spell.hot { HOT_RATE } else { 1.0 };
    let requests_per_rate: f64 = spells.iter().map(volume).sum();
    let wanted_ms = options.load * world.cores() * options.duration_ms;
    let mut rate = 0.0;
    for _ in 0..20 {
        let all_per_ms = rate * requests_per_rate / options.duration_ms;
        let service_ms: Vec<f64> = (0..warm_ms.len())
            .map(|f| warm_ms[f] + world.mean_load_ms(f, all_per_ms * world.functions[f].weight / weights))
            .collect();
        let means = [mixes[0].mean(&service_ms), mixes[1].mean(&service_ms)];
        rate = wanted_ms / spells.iter().map(|spell| volume(spell) * means[usize::from(spell.hot)]).sum::<f64>();
    }
    rate
}

/// Makes requests; what a request holds depends on its index, not on what was drawn for others.
pub(crate) struct RequestMaker<'a> {
    world: &'a WorldSpec,
    seed: u64,
    start: Timestamp,
    complexity_sigma: f64,
    exchanges: Vec<Exchange>,
    /// Regions where a shard stands, so that residency can be met.
    regions: Vec<Region>,
}

impl<'a> RequestMaker<'a> {
    fn new(world: &'a WorldSpec, seed: u64, options: &WorkloadOptions) -> Self {
        Self::at(world, seed, options.start, options.complexity_sigma)
    }

    pub(crate) fn at(world: &'a WorldSpec, seed: u64, start: Timestamp, complexity_sigma: f64) -> Self {
        let mut regions: Vec<Region> = world.shards.iter().map(|shard| shard.shape.region.clone()).collect();
        regions.sort();
        regions.dedup();
        let exchanges = world.network.exchanges.iter().map(|(exchange, _)| exchange.clone()).collect();
        Self { world, seed, start, complexity_sigma, exchanges, regions }
    }

    fn arrival(&self, index: u64, event: &ArrivalEvent) -> Arrival {
        let mut rng = stream(self.seed, Purpose::Requests, index);
        let at = self.start.plus_millis(event.at_ms);
        self.request(&mut rng, at, event.function, event.hot, self.complexity_sigma)
    }

    /// One arrival of a function; `complexity_sigma` is the deviation of ln complexity.
    pub(crate) fn request(
        &self,
        rng: &mut KeyedStream,
        at: Timestamp,
        function: u32,
        hot: bool,
        complexity_sigma: f64,
    ) -> Arrival {
        let spec = &self.world.functions[function as usize];
        let router = rng.random_range(0..self.world.routers.len()) as u32;
        let complexity = (complexity_sigma * rng.sample::<f64, _>(StandardNormal)).exp();
        let amount_usd = amount_usd(rng);
        let urgency = urgency(rng, spec.urgency, hot);
        let expected = rng.random_bool(EXPECTED_SHARE);
        let error = EXPECTED_SIGMA * rng.sample::<f64, _>(StandardNormal);
        let expected_ms = spec.base_ms * complexity.powf(spec.complexity_exponent) * error.exp();
        let request = PlacementRequest {
            function: spec.id.clone(),
            event_type: spec.event_type.clone(),
            protocol: spec.protocol.clone(),
            trading_pair: spec.trading_pair.clone(),
            exchange: self.exchange(rng, spec),
            risk: amount_usd.map_or(spec.risk, risk_of),
            urgency,
            priority: priority_of(urgency),
            amount_usd: amount_usd.map(|usd| UsdAmount::new(usd).expect("an exponential is a finite amount")),
            data_complexity: complexity as f32,
            expected_compute_ms: expected.then_some(expected_ms.max(1e-3) as f32),
            exchange_calls: spec.exchange_calls,
            memory_mb: spec.memory_mb,
            residency: self.residency(rng, amount_usd),
            event_at: at.plus_millis(-2.0 * rng.random::<f64>()),
            market: None,
        };
        Arrival { at, router, function, request }
    }

    fn exchange(&self, rng: &mut KeyedStream, spec: &FunctionSpec) -> Exchange {
        match rng.random_bool(OTHER_EXCHANGE) && !self.exchanges.is_empty() {
            true => self.exchanges[rng.random_range(0..self.exchanges.len())].clone(),
            false => spec.exchange.clone(),
        }
    }

    fn residency(&self, rng: &mut KeyedStream, amount_usd: Option<f64>) -> Option<Region> {
        // Whales have few shards; binding them to a region as well would leave none.
        let bound = rng.random_bool(RESIDENCY_SHARE) && amount_usd.is_none_or(|usd| usd <= WHALE_USD);
        bound.then(|| self.regions[rng.random_range(0..self.regions.len())].clone())
    }
}

pub(crate) fn amount_usd(rng: &mut KeyedStream) -> Option<f64> {
    let normal: f64 = rng.sample(StandardNormal);
    match rng.random::<f64>() {
        share if share < WHALE_SHARE => Some(WHALE_USD * (0.05 + 1.5 * normal.abs()).exp()),
        share if share < WHALE_SHARE + AMOUNT_MISSING => None,
        _ => Some((AMOUNT_MU + AMOUNT_SIGMA * normal).exp().min(WHALE_USD)),
    }
}

/// Tiers of the specification (S2): 10 k, 100 k and 1 M US dollars.
pub(crate) fn risk_of(usd: f64) -> RiskLevel {
    match usd {
        usd if usd < 1e4 => RiskLevel::Low,
        usd if usd < 1e5 => RiskLevel::Medium,
        usd if usd < 1e6 => RiskLevel::High,
        _ => RiskLevel::Critical,
    }
}

fn urgency(rng: &mut KeyedStream, usual: Urgency, hot: bool) -> Urgency {
    let rank = usize::from(usual.rank()) + usize::from(hot && rng.random_bool(HOT_URGENCY));
    Urgency::ALL[rank.min(Urgency::ALL.len() - 1)]
}

pub(crate) fn priority_of(urgency: Urgency) -> Priority {
    match urgency {
        Urgency::Low => Priority::Low,
        Urgency::Medium => Priority::Normal,
        Urgency::High => Priority::High,
        Urgency::Critical => Priority::Critical,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FleetOptions;

    fn world() -> WorldSpec {
        WorldSpec::generate(1, &FleetOptions { routers: 3, ..FleetOptions::default() })
    }

    fn options() -> WorkloadOptions {
        WorkloadOptions::new("2026-01-05T12:00:00Z".parse().unwrap(), 120_000.0, 0.7)
    }

    #[test]
    fn the_offered_load_is_the_one_that_was_asked_for() {
        let world = world();
        for (load, process) in [(0.5, ArrivalProcess::Market), (0.9, ArrivalProcess::Poisson)] {
            let workload = Workload::generate(&world, 3, &WorkloadOptions { load, process, ..options() }).unwrap();
            let offered = workload.offered_load(&world);
            assert!((offered / load - 1.0).abs() < 0.03, "{load} was asked for, {offered} came");
        }
    }

    #[test]
    fn arrivals_come_in_order_within_the_time_and_for_all_routers() {
        let world = world();
        let workload = Workload::generate(&world, 3, &options()).unwrap();
        assert!(workload.arrivals.is_sorted_by_key(|arrival| arrival.at));
        assert!(workload.arrivals[0].at >= workload.start && workload.arrivals.last().unwrap().at < workload.end);
        assert!((0..3).all(|router| workload.arrivals.iter().any(|arrival| arrival.router == router)));
        assert!(workload.arrivals.iter().take(1000).all(|arrival| arrival.request.clone().check().is_ok()));
    }

    #[test]
    fn market_traffic_is_burstier_than_poisson() {
        let dispersion = |process| {
            let workload = Workload::generate(&world(), 3, &WorkloadOptions { process, ..options() }).unwrap();
            let mut counts = vec![0.0_f64; 1200];
            for arrival in &workload.arrivals {
                counts[(arrival.at.millis_since(workload.start) / 100.0) as usize] += 1.0;
            }
            let mean = counts.iter().sum::<f64>() / counts.len() as f64;
            counts.iter().map(|n| (n - mean).powi(2)).sum::<f64>() / counts.len() as f64 / mean
        };
        let (market, poisson) = (dispersion(ArrivalProcess::Market), dispersion(ArrivalProcess::Poisson));
        assert!((0.8..1.2).contains(&poisson) && market > 2.0, "{market} against {poisson}");
    }

    #[test]
    fn amounts_follow_their_shares() {
        let workload = Workload::generate(&world(), 3, &options()).unwrap();
        let share = |wanted: &dyn Fn(Option<f64>) -> bool| {
            let amounts = workload.arrivals.iter().map(|arrival| arrival.request.amount_usd.map(UsdAmount::usd));
            amounts.filter(|amount| wanted(*amount)).count() as f64 / workload.arrivals.len() as f64
        };
        assert!((share(&|amount| amount.is_none()) - 0.15).abs() < 0.01);
        assert!((share(&|amount| amount.is_some_and(|usd| usd > 1e6)) - 0.004).abs() < 0.001);
        assert!((share(&|amount| amount.is_some_and(|usd| usd < 221.4)) / 0.846 - 0.5).abs() < 0.01, "the median");
    }

    #[test]
    fn a_surge_multiplies_what_comes_while_it_lasts() {
        let count = |surge| {
            let workload = Workload::generate(&world(), 3, &WorkloadOptions { surge, ..options() }).unwrap();
            let within =
                |arrival: &&Arrival| (0.4..0.6).contains(&(arrival.at.millis_since(workload.start) / 120_000.0));
            (workload.arrivals.iter().filter(within).count() as f64, workload.arrivals.len() as f64)
        };
        let (usual, surge) = (count(None), count(Some(Surge { from: 0.4, until: 0.6, factor: 3.0 })));
        assert!((3.0..5.0).contains(&(surge.0 / usual.0)), "three times as much, all of it hot: {surge:?} {usual:?}");
        assert!(((surge.1 - surge.0) / (usual.1 - usual.0) - 1.0).abs() < 0.05, "elsewhere as before");
    }

    #[test]
    fn bad_options_are_refused_by_name() {
        let error = Workload::generate(&world(), 1, &WorkloadOptions { load: f64::NAN, ..options() }).unwrap_err();
        assert!(error.to_string().contains("load"), "{error}");
    }
}
