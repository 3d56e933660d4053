//! Everything a decision may look at, borrowed: nothing is copied to decide.

use shardwise_types::{FleetSnapshot, MarketSnapshot, PlacementRequest, ShardId, Timestamp};

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

    /// When the function was last sent to a shard by this router; now, as long as the shard is to keep it loaded.
    pub fn last_dispatch(&self, shard: &ShardId) -> Option<Timestamp> {
        match self.is_kept_warm(shard) {
            true => Some(self.decided_at),
            false => self.router.last_dispatch(self.request, shard),
        }
    }

    /// Requests that this router sent to a shard since it last sent the function there, that one included; 1, as if that had
    /// just been, as long as the shard is to keep it loaded. `None` when it never did.
    pub fn dispatches_since(&self, shard: &ShardId) -> Option<f64> {
        match self.is_kept_warm(shard) {
            true => Some(1.0),
            false => self.router.dispatches_since(self.request, shard),
        }
    }

    fn is_kept_warm(&self, shard: &ShardId) -> bool {
        self.fleet.placements.keeps_warm(&self.request.function, shard)
    }
}
