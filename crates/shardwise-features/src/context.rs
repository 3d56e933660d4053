//! Everything a decision may look at, borrowed: nothing is copied to decide.

use shardwise_types::{FleetSnapshot, MarketSnapshot, PlacementRequest, Timestamp};

use crate::{RouterState, ServiceTable};

/// What is known when a request must be placed.
#[derive(Clone, Copy)]
pub struct DecisionContext<'a> {
    /// The request.
    pub request: &'a PlacementRequest,
    /// The instant of the decision; every age is measured from it.
    pub decided_at: Timestamp,
    /// The fleet as reports describe it.
    pub fleet: &'a FleetSnapshot,
    /// What this router saw itself.
    pub router: &'a RouterState,
    /// The market as this router last heard of it.
    pub market: &'a MarketSnapshot,
    /// What history taught about functions and shards, when a bundle is loaded.
    pub service_table: Option<&'a ServiceTable>,
}

impl DecisionContext<'_> {
    /// The market that the event reports, else the router's view.
    pub fn market_now(&self) -> MarketSnapshot {
        let reported = self.request.market.unwrap_or_default();
        MarketSnapshot {
            volatility: reported.volatility.or(self.market.volatility),
            trend: reported.trend.or(self.market.trend),
        }
    }
}
