//! Policies: filter → score → pick. One trait, which routers, the simulator and the evaluation all speak.
//!
//! Hard rules are filters ([`eligible`]): a shard that breaks one never reaches a scorer. The cost ([`sed`]) is shared by
//! all policies of the shortest-expected-delay family, with and without a model.
//!
//! ```
//! use rand::SeedableRng;
//! use shardwise_features::golden;
//!
//! let golden = golden::contexts().remove(1);
//! let mut policy = shardwise_policies::by_name("sed_tab", Default::default()).expect("a known name");
//! let mut rng = rand::rngs::StdRng::seed_from_u64(1);
//! let decision = policy.decide(&golden.context(), &mut rng).expect("a healthy shard");
//! assert!(decision.propensity > 0.0);
//! ```

mod eligible;
mod in_flight;
mod random;
pub mod sed;
mod sed_policies;

use std::sync::Arc;

use rand::Rng;
use shardwise_features::{DecisionContext, ServiceTable, Ticket};
use shardwise_types::{DecidedBy, FallbackReason, NoEligibleShard, Response, ShardId, ShardReport, Timestamp};

pub use eligible::{Rules, eligible, is_eligible};
pub use in_flight::{LeastInFlight, TwoChoicesInFlight};
pub use random::Random;
pub use sed::Runtime;
pub use sed_policies::{Sed, SedSoftmax};

/// Names that [`by_name`] knows.
pub const NAMES: &[&str] =
    &["random", "p2c_in_flight", "least_in_flight", "sed_tab", "sed_tab_lambda", "sed_tab_softmax"];

/// Makes a policy that needs no model; `None` for a name that is not in [`NAMES`].
pub fn by_name(name: &str, runtime: Runtime) -> Option<Box<dyn Policy>> {
    Some(match name {
        "random" => Box::new(Random::default()),
        "p2c_in_flight" => Box::new(TwoChoicesInFlight::default()),
        "least_in_flight" => Box::new(LeastInFlight::default()),
        "sed_tab" => Box::new(Sed::online(0.0, runtime)),
        "sed_tab_lambda" => Box::new(Sed::online(sed::LAMBDA, runtime)),
        "sed_tab_softmax" => Box::new(SedSoftmax::new(runtime)),
        _ => return None,
    })
}

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

impl Decision {
    /// A choice by a rule: certain unless `propensity` says otherwise, by [`DecidedBy::Policy`].
    pub fn by_rule(chosen: usize, propensity: f64, eligible: usize) -> Self {
        Self {
            chosen,
            propensity,
            eligible: u32::try_from(eligible).unwrap_or(u32::MAX),
            predicted_ms: None,
            decided_by: DecidedBy::Policy,
            fallback_reason: None,
        }
    }
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

/// What a shard says when it is probed.
#[derive(Debug, Clone, Copy)]
pub struct ProbeAnswer<'a> {
    /// The shard.
    pub shard: &'a ShardId,
    /// Requests that wait or run there.
    pub in_flight: u32,
    /// The shard's own estimate of how long a request takes there at that many in flight, in ms: the median of its
    /// recent ones. `None` before the first.
    pub latency_ms: Option<f64>,
    /// When the answer reached the router.
    pub known_at: Timestamp,
}

/// A request that was sent and is not answered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outstanding {
    /// Position of its shard in the context's fleet.
    pub position: usize,
    /// When it was sent.
    pub sent_at: Timestamp,
    /// Whether the shard's notice that it has begun to run has arrived.
    pub started: bool,
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

    /// Puts positions of the context's fleet into `out` that should be probed beside the request just placed. Each
    /// answer comes to [`on_probe`](Self::on_probe) a round trip later.
    fn probe(&mut self, _context: &DecisionContext<'_>, _rng: &mut dyn Rng, _out: &mut Vec<usize>) {}

    /// Learns from a probe.
    fn on_probe(&mut self, _answer: &ProbeAnswer<'_>) {}

    /// Whether shards should say when they have a core to spare; asked once.
    fn wants_idle_notices(&self) -> bool {
        false
    }

    /// Hears that a shard has a core to spare. It tells one router, drawn at random.
    fn on_idle(&mut self, _shard: &ShardId) {}

    /// In how many ms the request just placed should be looked at again if it is still out; `None` for never.
    /// Functions are pure, so a copy may be sent elsewhere.
    fn look_again_ms(&mut self, _context: &DecisionContext<'_>, _decision: &Decision) -> Option<f64> {
        None
    }

    /// Where a copy of a request that is still out should go. The first good answer counts, the other is cancelled.
    fn copy_to(&mut self, _context: &DecisionContext<'_>, _outstanding: &Outstanding) -> Option<usize> {
        None
    }

    /// The service table that contexts for this policy carry, if it has one.
    fn service_table(&self) -> Option<Arc<ServiceTable>> {
        None
    }

    /// Version of the model bundle behind it, for the log.
    fn model_version(&self) -> Option<&str> {
        None
    }
}
