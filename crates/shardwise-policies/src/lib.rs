//! Policies: filter → score → pick. One trait, which routers, the simulator and the arena all speak.

use std::sync::Arc;

use rand::Rng;
use shardwise_features::{DecisionContext, ServiceTable, Ticket};
use shardwise_types::{DecidedBy, FallbackReason, NoEligibleShard, Response, ShardId, ShardReport, Timestamp};

/// Where a request goes, and how that came about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decision {
    /// Position in the context's fleet.
    pub chosen: usize,
    /// Probability with which it was drawn, in (0, 1].
    pub propensity: f64,
    /// Shards that were eligible.
    pub eligible: u32,
    /// Expected latency in ms, when the policy predicts one.
    pub predicted_ms: Option<f64>,
    /// Who decided.
    pub decided_by: DecidedBy,
    /// Why a better decider was passed over, if one was.
    pub fallback_reason: Option<FallbackReason>,
}

/// A response, with what the router remembered of its request.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    /// The shard that answered.
    pub shard: &'a ShardId,
    /// What was remembered at dispatch.
    pub ticket: &'a Ticket,
    /// The response.
    pub response: &'a Response,
    /// When it reached the router.
    pub known_at: Timestamp,
}

/// A way to place requests. Whoever runs it keeps the [`RouterState`](shardwise_features::RouterState) up to date for
/// all policies alike, so every rival sees the same signals; a policy keeps only what is its own.
pub trait Policy: Send {
    /// Its name in commands and tables, such as `sed_tab`.
    fn name(&self) -> &str;

    /// Names a shard among the eligible ones.
    ///
    /// # Errors
    /// When no shard is eligible.
    fn decide(&mut self, context: &DecisionContext<'_>, rng: &mut dyn Rng) -> Result<Decision, NoEligibleShard>;

    /// Learns from a response; the router state has learned from it already.
    fn on_response(&mut self, _observed: &Observed<'_>) {}

    /// Learns from a report; the fleet snapshot holds it already.
    fn on_report(&mut self, _shard: &ShardId, _report: &ShardReport) {}

    /// The service table that contexts for this policy carry, if it has one.
    fn service_table(&self) -> Option<Arc<ServiceTable>> {
        None
    }

    /// Version of the model bundle behind it, for the log.
    fn model_version(&self) -> Option<&str> {
        None
    }
}
