//! Draws the events of a scenario. Prices follow the market generator, one bar per event, and events come the faster
//! the more the price has moved of late: bursts, as markets make them, not a metronome.

use rand::RngExt;
use rand_distr::Exp1;
use shardwise_types::{Exchange, FunctionId, InvalidInput, Timestamp};

use super::{LoadEvent, LoadEventData, LoadMetadata, LoadParameters, LoadScenario};
use crate::market::generate_bars;
use crate::streams::{KeyedStream, Purpose, stream};

/// An opportunity shows so long after the move that opened it.
const ARBITRAGE_DELAY_MS: f64 = 1_000.0;
/// Every so many whale trades one is above 10 M US dollars.
const LARGEST_EVERY: usize = 10;
/// Functions of a launch are released over this share of the test.
const RELEASE_SHARE: f64 = 0.5;
/// Weight of the newest move in the volatility of now, and the bars that settle it before the first event.
const VOLATILITY_WEIGHT: f64 = 0.1;
const SETTLING_BARS: usize = 50;
/// The rate of events stays within these factors of its mean.
const RATE_RANGE: std::ops::RangeInclusive<f64> = 0.2..=5.0;

/// Draws the events of a test that begins at `start`, in the order of time; the same arguments give the same ones.
///
/// # Errors
/// When there would be no events, or a parameter is out of range; the field is named.
///
/// ```
/// use shardwise_simulator::{LoadParameters, LoadScenario, generate_load};
///
/// let scenario = LoadScenario::MarketVolatility;
/// let parameters = LoadParameters::sized(scenario, 100, 50.0);
/// let events = generate_load(scenario, &parameters, "2026-01-05T12:00:00Z".parse()?, 11)?;
/// assert_eq!((events.len(), events[0].event_id.as_str()), (100, "price-spike-0"));
/// # Ok::<(), shardwise_types::InvalidInput>(())
/// ```
pub fn generate_load(
    scenario: LoadScenario,
    parameters: &LoadParameters,
    start: Timestamp,
    seed: u64,
) -> Result<Vec<LoadEvent>, InvalidInput> {
    parameters.check(scenario)?;
    let maker = Maker { scenario, parameters, start, seed };
    let mut events = match scenario {
        LoadScenario::MarketVolatility => maker.volatility(),
        LoadScenario::ArbitrageSurge => maker.arbitrage(&maker.times(parameters.arbitrage_opportunities)),
        LoadScenario::WhaleActivity => maker.whales(),
        LoadScenario::ProtocolLaunch => maker.launch(),
    };
    events.sort_by_key(|event| event.timestamp);
    Ok(events)
}

/// A moment of the market.
#[derive(Debug, Clone, Copy)]
struct Tick {
    at_ms: f64,
    /// Where the logarithm of the price stands, as a share of its largest excursion, in [-1, 1].
    level: f64,
    /// Size of the move that led here, as a log return.
    move_size: f64,
    /// Volume over its mean.
    volume: f64,
}

/// Moments whose mean distance is `interval_ms` and whose rate follows the volatility.
fn ticks(seed: u64, count: usize, interval_ms: f64) -> Vec<Tick> {
    let bars = generate_bars(seed, SETTLING_BARS + count);
    let ln_price = |bar: usize| bars[bar].close_usd.ln();
    let first = ln_price(SETTLING_BARS);
    let largest =
        (SETTLING_BARS..bars.len()).map(|bar| (ln_price(bar) - first).abs()).fold(f64::MIN_POSITIVE, f64::max);
    let mean_volume = bars[SETTLING_BARS..].iter().map(|bar| bar.volume).sum::<f64>() / count as f64;
    let move_size = |bar: usize| (ln_price(bar) - ln_price(bar - 1)).abs();
    let settle = |volatility: &mut f64, bar: usize| {
        *volatility += VOLATILITY_WEIGHT * (move_size(bar) - *volatility);
        Some(*volatility)
    };
    let volatilities: Vec<f64> = (1..bars.len()).scan(move_size(1), settle).skip(SETTLING_BARS - 1).collect();
    let times = times(seed, &volatilities, interval_ms);
    let tick = |(index, at_ms): (usize, f64)| {
        let bar = SETTLING_BARS + index;
        Tick {
            at_ms,
            level: (ln_price(bar) - first) / largest,
            move_size: move_size(bar),
            volume: bars[bar].volume / mean_volume,
        }
    };
    times.into_iter().enumerate().map(tick).collect()
}

/// Exponential gaps, shorter where the volatility is above its mean, stretched so that the mean is kept.
fn times(seed: u64, volatilities: &[f64], interval_ms: f64) -> Vec<f64> {
    let mean = volatilities.iter().sum::<f64>() / volatilities.len() as f64;
    let mut rng = stream(seed, Purpose::LoadEvents, u64::MAX);
    let mut gap = |volatility: &f64| {
        let rate = (volatility / mean).clamp(*RATE_RANGE.start(), *RATE_RANGE.end());
        rng.sample::<f64, _>(Exp1) / rate
    };
    let gaps: Vec<f64> = volatilities.iter().map(&mut gap).collect();
    let stretch = interval_ms * gaps.len() as f64 / gaps.iter().sum::<f64>();
    let mut at_ms = 0.0;
    let later = |gap: &f64| {
        let at = at_ms;
        at_ms += gap * stretch;
        at
    };
    gaps.iter().map(later).collect()
}

struct Maker<'a> {
    scenario: LoadScenario,
    parameters: &'a LoadParameters,
    start: Timestamp,
    seed: u64,
}

impl Maker<'_> {
    fn volatility(&self) -> Vec<LoadEvent> {
        let ticks = ticks(self.seed, self.parameters.price_spikes, self.parameters.interval_ms);
        let mut events: Vec<LoadEvent> =
            ticks.iter().enumerate().map(|(index, tick)| self.price_update(index, tick)).collect();
        // The largest moves open the opportunities.
        let mut by_size: Vec<&Tick> = ticks.iter().collect();
        by_size.sort_by(|a, b| b.move_size.total_cmp(&a.move_size));
        let mut times: Vec<f64> = by_size[..self.parameters.arbitrage_opportunities]
            .iter()
            .map(|tick| tick.at_ms + ARBITRAGE_DELAY_MS)
            .collect();
        times.sort_by(f64::total_cmp);
        events.extend(self.arbitrage(&times));
        events
    }

    fn price_update(&self, index: usize, tick: &Tick) -> LoadEvent {
        let parameters = self.parameters;
        let data = LoadEventData::MarketData {
            trading_pair: parameters.trading_pair.clone(),
            price: parameters.base_price * (1.0 + parameters.volatility_factor * tick.level),
            volume: parameters.base_volume * tick.volume,
            exchange: self.exchange(index),
        };
        let stream_id = format!("market-{}", parameters.trading_pair);
        self.event(tick.at_ms, format!("price-spike-{index}"), "MarketDataUpdated", stream_id, data)
    }

    fn arbitrage(&self, times: &[f64]) -> Vec<LoadEvent> {
        let opportunity = |(index, at_ms): (usize, &f64)| {
            let mut rng = self.stream(index);
            let data = LoadEventData::Arbitrage {
                trading_pair: self.parameters.trading_pair.clone(),
                buy_exchange: self.exchange(index),
                sell_exchange: self.exchange(index + 1),
                profit_potential: 0.01 + 0.05 * rng.random::<f64>(),
                max_trade_size: 10_000.0 + 90_000.0 * rng.random::<f64>(),
            };
            let stream_id = format!("arbitrage-{}-{index}", self.parameters.trading_pair);
            self.event(*at_ms, format!("arbitrage-opp-{index}"), "ArbitrageOpportunityDetected", stream_id, data)
        };
        times.iter().enumerate().map(opportunity).collect()
    }

    fn whales(&self) -> Vec<LoadEvent> {
        let trade = |(index, at_ms): (usize, f64)| {
            let mut rng = self.stream(index);
            let least_usd = if index.is_multiple_of(LARGEST_EVERY) { 1e7 } else { 1e6 };
            let data = LoadEventData::WhaleTrade {
                trading_pair: self.parameters.trading_pair.clone(),
                exchange: self.exchange(index),
                side: if rng.random_bool(0.5) { "buy" } else { "sell" },
                // Above the least, up to ten times as much.
                amount_usd: least_usd * 10.0_f64.powf(1.0 - rng.random::<f64>()),
            };
            let stream_id = format!("whale-{}-{index}", self.parameters.trading_pair);
            self.event(at_ms, format!("whale-trade-{index}"), "WhaleTradeDetected", stream_id, data)
        };
        self.times(self.parameters.whale_trades).into_iter().enumerate().map(trade).collect()
    }

    fn launch(&self) -> Vec<LoadEvent> {
        let LoadParameters { protocol, launched_functions, launch_events, .. } = self.parameters;
        let release = RELEASE_SHARE * *launch_events as f64 / *launched_functions as f64;
        let call = |(index, at_ms): (usize, f64)| {
            let mut rng = self.stream(index);
            let released = ((index as f64 / release) as usize + 1).min(*launched_functions);
            let number = rng.random_range(0..released) + 1;
            let data = LoadEventData::ProtocolLaunch {
                protocol: protocol.clone(),
                function_name: FunctionId::from(format!("{protocol}-function-{number:03}")),
                trading_pair: self.parameters.trading_pair.clone(),
                exchange: self.exchange(index),
                amount_usd: 100.0 * 1_000.0_f64.powf(rng.random()),
            };
            let (id, stream_id) = (format!("protocol-launch-{index}"), format!("protocol-{protocol}"));
            self.event(at_ms, id, "ProtocolEventReceived", stream_id, data)
        };
        self.times(*launch_events).into_iter().enumerate().map(call).collect()
    }

    fn times(&self, count: usize) -> Vec<f64> {
        ticks(self.seed, count, self.parameters.interval_ms).iter().map(|tick| tick.at_ms).collect()
    }

    fn stream(&self, index: usize) -> KeyedStream {
        stream(self.seed, Purpose::LoadEvents, index as u64)
    }

    /// The exchanges take turns.
    fn exchange(&self, index: usize) -> Exchange {
        self.parameters.exchanges[index % self.parameters.exchanges.len()].clone()
    }

    fn event(&self, at_ms: f64, id: String, event_type: &str, stream_id: String, data: LoadEventData) -> LoadEvent {
        LoadEvent {
            event_id: id,
            event_type: event_type.into(),
            stream_id,
            timestamp: self.start.plus_millis(at_ms),
            data,
            metadata: LoadMetadata { source: "load-test", version: "1.0.0", test_scenario: self.scenario.tag() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn start() -> Timestamp {
        "2026-01-05T12:00:00Z".parse().unwrap()
    }

    fn events(scenario: LoadScenario, count: usize) -> Vec<LoadEvent> {
        generate_load(scenario, &LoadParameters::sized(scenario, count, 100.0), start(), 11).unwrap()
    }

    #[test]
    fn every_scenario_gives_as_many_events_as_were_asked_for_in_order_and_the_same_again() {
        for scenario in LoadScenario::ALL {
            let made = events(scenario, 1_000);
            assert_eq!(made.len(), 1_000, "{}", scenario.as_str());
            assert!(made.is_sorted_by_key(|event| event.timestamp));
            assert_eq!(made, events(scenario, 1_000));
            assert_eq!(LoadScenario::parse(scenario.as_str()), Ok(scenario));
            let seconds = made.last().unwrap().timestamp.millis_since(start()) / 1e3;
            assert!((8.5..12.0).contains(&seconds), "1,000 events at 100 per second took {seconds} s");
        }
    }

    #[test]
    fn events_have_the_names_of_the_specification() {
        let made = events(LoadScenario::MarketVolatility, 400);
        let first = serde_json::to_value(&made[0]).unwrap();
        assert_eq!(first["eventId"], "price-spike-0");
        assert_eq!(first["eventType"], "MarketDataUpdated");
        assert_eq!(first["streamId"], "market-ETH/USDC");
        assert_eq!(first["timestamp"], "2026-01-05T12:00:00Z");
        assert_eq!((&first["data"]["exchange"], &first["data"]["price"]), (&json!("binance"), &json!(2_500.0)));
        assert_eq!(
            first["metadata"],
            json!({ "source": "load-test", "version": "1.0.0", "testScenario": "volatility" })
        );
        let opportunity = made.iter().find(|event| event.event_id == "arbitrage-opp-7").unwrap();
        let opportunity = serde_json::to_value(opportunity).unwrap();
        assert_eq!(opportunity["eventType"], "ArbitrageOpportunityDetected");
        assert_eq!(opportunity["streamId"], "arbitrage-ETH/USDC-7");
        assert_eq!(
            (&opportunity["data"]["buyExchange"], &opportunity["data"]["sellExchange"]),
            (&json!("kraken"), &json!("okx"))
        );
    }

    #[test]
    fn amounts_and_prices_keep_their_ranges() {
        let all = LoadScenario::ALL.iter().flat_map(|scenario| events(*scenario, 500));
        let mut largest = 0;
        for event in all {
            match event.data {
                LoadEventData::MarketData { price, volume, .. } => {
                    assert!((2_125.0..=2_875.0).contains(&price) && volume > 0.0, "{price} {volume}");
                }
                LoadEventData::Arbitrage { profit_potential, max_trade_size, .. } => {
                    assert!((0.01..=0.06).contains(&profit_potential), "{profit_potential}");
                    assert!((1e4..=1e5).contains(&max_trade_size), "{max_trade_size}");
                }
                LoadEventData::WhaleTrade { amount_usd, .. } => {
                    assert!(amount_usd > 1e6, "{amount_usd}");
                    largest += usize::from(amount_usd > 1e7);
                }
                LoadEventData::ProtocolLaunch { protocol, function_name, .. } => {
                    assert!(function_name.as_str().starts_with(protocol.as_str()));
                }
            }
        }
        assert_eq!(largest, 50);
    }

    #[test]
    fn events_come_in_bursts_that_follow_the_volatility() {
        let ticks = ticks(11, 20_000, 10.0);
        let mut counts = vec![0.0_f64; 200];
        let mut moves = vec![0.0_f64; 200];
        for tick in &ticks {
            let second = ((tick.at_ms / 1e3) as usize).min(199);
            counts[second] += 1.0;
            moves[second] += tick.move_size;
        }
        let mean = counts.iter().sum::<f64>() / 200.0;
        let dispersion = counts.iter().map(|n| (n - mean).powi(2)).sum::<f64>() / 200.0 / mean;
        assert!(dispersion > 5.0, "a Poisson process has 1, this one {dispersion}");
        let busy = |wanted: bool| -> f64 {
            let of = || (0..200).filter(|second| (counts[*second] > mean) == wanted);
            of().map(|second| moves[second]).sum::<f64>() / of().map(|second| counts[second]).sum::<f64>()
        };
        assert!(busy(true) > 1.3 * busy(false), "moves are {} in bursts, {} else", busy(true), busy(false));
    }

    #[test]
    fn a_launch_releases_its_functions_one_after_the_other() {
        let names = |events: &[LoadEvent]| {
            let mut names: Vec<FunctionId> = events
                .iter()
                .filter_map(|event| match &event.data {
                    LoadEventData::ProtocolLaunch { function_name, .. } => Some(function_name.clone()),
                    _ => None,
                })
                .collect();
            names.sort();
            names.dedup();
            names.len()
        };
        let made = events(LoadScenario::ProtocolLaunch, 1_200);
        assert_eq!((names(&made[..50]), names(&made)), (1, 12));
    }

    #[test]
    fn what_makes_no_test_is_refused_by_name() {
        type Spoil = fn(&mut LoadParameters);
        let cases: [(&str, Spoil); 5] = [
            ("priceSpikes", |parameters| parameters.price_spikes = 0),
            ("priceSpikes", |parameters| parameters.arbitrage_opportunities = 1_000),
            ("exchanges", |parameters| parameters.exchanges.truncate(1)),
            ("volatilityFactor", |parameters| parameters.volatility_factor = 1.0),
            ("intervalMs", |parameters| parameters.interval_ms = f64::NAN),
        ];
        for (field, spoil) in cases {
            let mut parameters = LoadParameters::sized(LoadScenario::MarketVolatility, 100, 100.0);
            spoil(&mut parameters);
            let error = generate_load(LoadScenario::MarketVolatility, &parameters, start(), 1).unwrap_err();
            assert!(error.to_string().contains(field), "{field}: {error}");
        }
    }
}
