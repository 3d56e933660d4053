//! Events of load tests: four scenarios, with the ids, streams and fields of the specification.
//!
//! It holds the shapes and what an event asks of a function. How events are drawn is in `generate`; what becomes of
//! them in `load_test`.

mod generate;

use serde::{Deserialize, Serialize};
use shardwise_types::{
    EventType, Exchange, FunctionId, InvalidInput, PlacementRequest, Protocol, Timestamp, TradingPair, Urgency,
    UsdAmount,
};

use crate::workload::{priority_of, risk_of};
use crate::world::FunctionSpec;

pub use generate::generate_load;

/// What a load test plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadScenario {
    /// Price updates along a path whose volatility clusters, and the arbitrage that its largest moves open.
    MarketVolatility,
    /// Arbitrage opportunities alone.
    ArbitrageSurge,
    /// Trades above 1 M US dollars, every tenth above 10 M: few shards may take them.
    WhaleActivity,
    /// A protocol and functions that nobody has seen, released one after the other: everything is cold and unknown.
    ProtocolLaunch,
}

impl LoadScenario {
    /// All scenarios.
    pub const ALL: [Self; 4] =
        [Self::MarketVolatility, Self::ArbitrageSurge, Self::WhaleActivity, Self::ProtocolLaunch];

    /// The scenario as it is written in commands and results.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MarketVolatility => "market_volatility",
            Self::ArbitrageSurge => "arbitrage_surge",
            Self::WhaleActivity => "whale_activity",
            Self::ProtocolLaunch => "protocol_launch",
        }
    }

    /// Reads a scenario.
    ///
    /// # Errors
    /// Anything but the four words is refused.
    pub fn parse(text: &str) -> Result<Self, InvalidInput> {
        Self::ALL.into_iter().find(|scenario| scenario.as_str() == text).ok_or_else(|| {
            let words = Self::ALL.map(Self::as_str).join(", ");
            InvalidInput::new("scenario", format!("'{text}' is not one of {words}"))
        })
    }

    /// The word in the metadata of its events.
    fn tag(self) -> &'static str {
        match self {
            Self::MarketVolatility => "volatility",
            Self::ArbitrageSurge => "arbitrage",
            Self::WhaleActivity => "whale",
            Self::ProtocolLaunch => "protocol-launch",
        }
    }
}

/// How large a load test is and what its events are about. A scenario reads the counts that it needs.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadParameters {
    /// Price updates (volatility).
    pub price_spikes: usize,
    /// Arbitrage opportunities (volatility, where they follow price updates and are at most as many; arbitrage).
    pub arbitrage_opportunities: usize,
    /// Trades (whales).
    pub whale_trades: usize,
    /// Events of the new protocol (launch).
    pub launch_events: usize,
    /// Functions of the new protocol (launch).
    pub launched_functions: usize,
    /// Mean time between events in ms; bursts are shorter, calm stretches longer.
    pub interval_ms: f64,
    /// What is traded.
    pub trading_pair: TradingPair,
    /// Where it is traded, in turn; two at least.
    pub exchanges: Vec<Exchange>,
    /// Price in US dollars at the beginning.
    pub base_price: f64,
    /// The largest move of the price away from the beginning, as a share of it, in [0, 0.99].
    pub volatility_factor: f64,
    /// Mean volume of a price update, in units of the pair's first token.
    pub base_volume: f64,
    /// The new protocol (launch).
    pub protocol: Protocol,
}

/// A quarter of a volatility test are arbitrage opportunities.
const ARBITRAGE_SHARE: usize = 4;

impl LoadParameters {
    /// Parameters of a test with so many events at a mean rate per second.
    pub fn sized(scenario: LoadScenario, events: usize, events_per_s: f64) -> Self {
        let opportunities = if scenario == LoadScenario::MarketVolatility { events / ARBITRAGE_SHARE } else { events };
        let spikes = events - events / ARBITRAGE_SHARE;
        let clocked = if scenario == LoadScenario::MarketVolatility { spikes } else { events };
        Self {
            price_spikes: spikes,
            arbitrage_opportunities: opportunities,
            whale_trades: events,
            launch_events: events,
            launched_functions: 12,
            interval_ms: 1e3 / events_per_s * events as f64 / clocked.max(1) as f64,
            trading_pair: "ETH/USDC".into(),
            exchanges: ["binance", "coinbase", "kraken", "okx", "bitstamp"].map(Exchange::from).to_vec(),
            base_price: 2_500.0,
            volatility_factor: 0.15,
            base_volume: 120.0,
            protocol: "hyperlaunch".into(),
        }
    }

    /// Events and mean rate per second that suit the fleet of the specification: one or two shards take whales.
    pub fn usual_size(scenario: LoadScenario) -> (usize, f64) {
        match scenario {
            LoadScenario::MarketVolatility | LoadScenario::ArbitrageSurge => (10_000, 400.0),
            LoadScenario::WhaleActivity => (2_000, 20.0),
            LoadScenario::ProtocolLaunch => (5_000, 200.0),
        }
    }

    fn check(&self, scenario: LoadScenario) -> Result<(), InvalidInput> {
        let (field, events) = match scenario {
            LoadScenario::MarketVolatility => ("priceSpikes", self.price_spikes),
            LoadScenario::ArbitrageSurge => ("arbitrageOpportunities", self.arbitrage_opportunities),
            LoadScenario::WhaleActivity => ("whaleTrades", self.whale_trades),
            LoadScenario::ProtocolLaunch => ("launchEvents", self.launch_events),
        };
        check(events > 0, field, || "0 events are no load test; ask for at least one".to_owned())?;
        check(
            scenario != LoadScenario::MarketVolatility || self.arbitrage_opportunities <= self.price_spikes,
            field,
            || {
                format!(
                    "{events} price updates open at most as many opportunities, not {}",
                    self.arbitrage_opportunities
                )
            },
        )?;
        check(self.launched_functions > 0, "launchedFunctions", || "0; a launch needs at least one".to_owned())?;
        check(self.exchanges.len() > 1, "exchanges", || {
            format!("{} given; arbitrage needs two at least", self.exchanges.len())
        })?;
        for (field, value, least, most) in [
            ("intervalMs", self.interval_ms, 1e-3, 1e9),
            ("basePrice", self.base_price, 1e-9, 1e12),
            ("volatilityFactor", self.volatility_factor, 0.0, 0.99),
            ("baseVolume", self.base_volume, 1e-9, 1e15),
        ] {
            check((least..=most).contains(&value), field, || {
                format!("{value} is out of range; it must lie between {least} and {most}")
            })?;
        }
        Ok(())
    }
}

fn check(holds: bool, field: &str, problem: impl FnOnce() -> String) -> Result<(), InvalidInput> {
    if holds { Ok(()) } else { Err(InvalidInput::new(field, problem())) }
}

/// An event of a load test; as JSON it has the specification's names and its time as ISO 8601.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadEvent {
    /// Unique within a test, such as `price-spike-17`.
    pub event_id: String,
    /// Such as `MarketDataUpdated`.
    pub event_type: EventType,
    /// The stream that it belongs to, such as `market-ETH/USDC`.
    pub stream_id: String,
    /// When it happens; it is to be sent then, whatever became of those before.
    pub timestamp: Timestamp,
    /// What happened.
    pub data: LoadEventData,
    /// Where it comes from.
    pub metadata: LoadMetadata,
}

/// What happened; as JSON the fields alone.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
pub enum LoadEventData {
    /// A price update.
    MarketData {
        /// What is traded.
        trading_pair: TradingPair,
        /// In US dollars.
        price: f64,
        /// In units of the pair's first token.
        volume: f64,
        /// Where.
        exchange: Exchange,
    },
    /// Two exchanges disagree.
    Arbitrage {
        /// What is traded.
        trading_pair: TradingPair,
        /// Where it is cheap.
        buy_exchange: Exchange,
        /// Where it is dear.
        sell_exchange: Exchange,
        /// Share of the size that can be won, in [0.01, 0.06].
        profit_potential: f64,
        /// In US dollars, in [10,000, 100,000].
        max_trade_size: f64,
    },
    /// Somebody trades a fortune.
    WhaleTrade {
        /// What is traded.
        trading_pair: TradingPair,
        /// Where.
        exchange: Exchange,
        /// `buy` or `sell`.
        side: &'static str,
        /// In US dollars, above 1,000,000.
        amount_usd: f64,
    },
    /// The new protocol asks for one of its functions.
    ProtocolLaunch {
        /// The new protocol.
        protocol: Protocol,
        /// The function, as new as its protocol.
        function_name: FunctionId,
        /// What is traded.
        trading_pair: TradingPair,
        /// Where.
        exchange: Exchange,
        /// In US dollars.
        amount_usd: f64,
    },
}

/// Marks an event as a test's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadMetadata {
    /// `load-test`.
    pub source: &'static str,
    /// Version of the shapes.
    pub version: &'static str,
    /// The scenario's tag, such as `volatility`.
    pub test_scenario: &'static str,
}

impl LoadEvent {
    /// What the event asks of a function: amounts, urgency and exchange are the event's; protocol, memory and calls the
    /// function's.
    ///
    /// # Errors
    /// When the function's figures make no sound request.
    pub fn request(&self, function: &FunctionSpec) -> Result<PlacementRequest, InvalidInput> {
        let (trading_pair, exchange, amount_usd, urgency) = self.data.terms();
        PlacementRequest {
            function: function.id.clone(),
            event_type: self.event_type.clone(),
            protocol: function.protocol.clone(),
            trading_pair: trading_pair.clone(),
            exchange: exchange.clone(),
            risk: amount_usd.map_or(function.risk, risk_of),
            urgency,
            priority: priority_of(urgency),
            amount_usd: amount_usd.map(UsdAmount::new).transpose()?,
            data_complexity: 1.0,
            expected_compute_ms: None,
            exchange_calls: function.exchange_calls,
            memory_mb: function.memory_mb,
            residency: None,
            event_at: self.timestamp,
            market: None,
        }
        .check()
    }
}

impl LoadEventData {
    /// Pair, exchange to call, amount in US dollars and urgency: an opportunity is gone first, a price comes again.
    fn terms(&self) -> (&TradingPair, &Exchange, Option<f64>, Urgency) {
        match self {
            Self::MarketData { trading_pair, exchange, .. } => (trading_pair, exchange, None, Urgency::Medium),
            Self::Arbitrage { trading_pair, buy_exchange, max_trade_size, .. } => {
                (trading_pair, buy_exchange, Some(*max_trade_size), Urgency::Critical)
            }
            Self::WhaleTrade { trading_pair, exchange, amount_usd, .. } => {
                (trading_pair, exchange, Some(*amount_usd), Urgency::High)
            }
            Self::ProtocolLaunch { trading_pair, exchange, amount_usd, .. } => {
                (trading_pair, exchange, Some(*amount_usd), Urgency::Medium)
            }
        }
    }
}
