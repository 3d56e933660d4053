//! Who plays: a policy, which knows what a router knows, or one of those that know the truth and serve as bounds.

use std::sync::Arc;

use shardwise_features::ServiceTable;
use shardwise_policies::Policy;

/// What decides for one router.
pub enum Player {
    /// A policy as it runs in production.
    Policy(Box<dyn Policy>),
    /// Knows every queue and every request's own run time, and takes the shard where this request is done first. It is
    /// greedy and selfish, so it is no lower bound.
    Oracle {
        /// Its price of congestion, see [`shardwise_policies::sed`]; 0 for none.
        lambda: f64,
    },
    /// Every request runs warm and alone on its best shard: a lower bound that nobody reaches.
    NoQueueBound,
}

/// Prices of congestion and names of the players that know the truth.
pub const ORACLES: [(&str, f64); 2] = [("oracle_greedy", 0.0), ("oracle_greedy_lambda", 0.5)];
/// Name of [`Player::NoQueueBound`].
pub const NO_QUEUE_BOUND: &str = "no_queue_bound";

impl From<Box<dyn Policy>> for Player {
    fn from(policy: Box<dyn Policy>) -> Self {
        Self::Policy(policy)
    }
}

impl Player {
    /// One of those that know the truth; `None` for other names.
    pub fn knowing(name: &str) -> Option<Self> {
        if name == NO_QUEUE_BOUND {
            return Some(Self::NoQueueBound);
        }
        ORACLES.iter().find(|(oracle, _)| *oracle == name).map(|(_, lambda)| Self::Oracle { lambda: *lambda })
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Policy(policy) => policy.name(),
            Self::Oracle { lambda } => ORACLES[usize::from(*lambda > 0.0)].0,
            Self::NoQueueBound => NO_QUEUE_BOUND,
        }
    }

    pub(crate) fn policy(&mut self) -> Option<&mut dyn Policy> {
        match self {
            Self::Policy(policy) => Some(policy.as_mut()),
            _ => None,
        }
    }

    pub(crate) fn model_version(&self) -> Option<Arc<str>> {
        match self {
            Self::Policy(policy) => policy.model_version(),
            _ => None,
        }
    }

    pub(crate) fn service_table(&self) -> Option<Arc<ServiceTable>> {
        match self {
            Self::Policy(policy) => policy.service_table(),
            _ => None,
        }
    }
}
