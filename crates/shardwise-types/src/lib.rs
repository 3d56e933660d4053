//! The vocabulary of shardwise: names, quantities with units, requests, shards, fleets, responses and decisions.
//!
//! It holds what every other crate speaks of and nothing that acts: no I/O, no clock, no randomness.
//!
//! ```
//! use shardwise_types::{PlacementRequest, RiskLevel};
//!
//! let request: PlacementRequest = PlacementRequest::from_json(
//!     r#"{"function":"price_arbitrage","type":"PriceUpdated","protocol":"uniswap","amountUsd":25000,
//!         "riskLevel":"high","eventAt":"2026-01-05T12:00:00Z"}"#,
//! )?;
//! assert_eq!(request.risk, RiskLevel::High);
//! # Ok::<(), shardwise_types::InvalidInput>(())
//! ```

mod decision;
mod fleet;
mod history;
mod names;
mod outcome;
mod placements;
mod quantities;
mod reasoning;
mod request;
mod traces;

pub use decision::{
    Alternative, CostTerms, DecidedBy, FallbackReason, MOST_ALTERNATIVES, NoEligibleShard, ShardPrediction, Widening,
};
pub use fleet::{FleetSnapshot, HardwareClass, MarketSnapshot, Network, ShardReport, ShardShape, ShardSnapshot};
pub use history::{
    DecisionRecord, DirectiveRecord, HistoryRecord, MarketRecord, OutcomeRecord, ReportRecord, Resized, ShadowRecord,
};
pub use names::{
    EventType, Exchange, FunctionId, Protocol, Region, RouterId, ShardId, TradingPair, combine_keys, key_of, unit_of,
};
pub use outcome::{ErrorClass, Response};
pub use placements::{Placements, Residence};
pub use quantities::{Confidence, InvalidInput, Timestamp, UsdAmount};
pub use request::{PlacementRequest, Priority, RiskLevel, Urgency};
pub use traces::{ArrivalTrace, MarketBar, Percentiles, SpeedTrace};
