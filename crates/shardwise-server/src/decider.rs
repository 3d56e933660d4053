//! Who decides: the placer, or a policy that it is compared with on the same fleet.

use std::sync::{Arc, Mutex, PoisonError};

use rand::SeedableRng;
use rand::rngs::StdRng;
use shardwise_features::{DecisionContext, ServiceTable};
use shardwise_inference::Placer;
use shardwise_policies::{Decision, Observed, Policy};
use shardwise_types::{NoEligibleShard, ShardId, ShardPrediction, ShardReport};

/// The name of the placer among the policies.
pub const PLACER: &str = "shardwise";

/// Decides, and learns from responses.
pub(crate) enum Decider {
    Placer(Arc<Placer>),
    /// A rival. One thread at a time: it is there to be measured, not to be fast.
    Rival {
        name: String,
        policy: Mutex<(Box<dyn Policy>, Box<StdRng>)>,
    },
}

/// A decision with all that is to be told of it.
pub(crate) struct Decided {
    pub(crate) decision: Decision,
    /// What the placer says; rivals say no more than the shard.
    pub(crate) prediction: Option<ShardPrediction>,
    pub(crate) service_table: Option<Arc<ServiceTable>>,
}

impl Decider {
    pub(crate) fn rival(policy: Box<dyn Policy>, seed: u64) -> Self {
        let name = policy.name().to_owned();
        Self::Rival { name, policy: Mutex::new((policy, Box::new(StdRng::seed_from_u64(seed)))) }
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Placer(_) => PLACER,
            Self::Rival { name, .. } => name,
        }
    }

    pub(crate) fn placer(&self) -> Option<&Placer> {
        match self {
            Self::Placer(placer) => Some(placer),
            Self::Rival { .. } => None,
        }
    }

    pub(crate) fn decide(&self, context: &DecisionContext<'_>) -> Result<Decided, NoEligibleShard> {
        match self {
            Self::Placer(placer) => placer.place(context).map(|placement| Decided {
                decision: placement.decision,
                prediction: Some(placement.prediction),
                service_table: placement.service_table,
            }),
            Self::Rival { policy, .. } => {
                let mut locked = policy.lock().unwrap_or_else(PoisonError::into_inner);
                let (policy, rng) = &mut *locked;
                let decision = policy.decide(context, rng)?;
                Ok(Decided { decision, prediction: None, service_table: None })
            }
        }
    }

    pub(crate) fn learn(&self, observed: &Observed<'_>) {
        match self {
            Self::Placer(placer) => placer.learn(observed),
            Self::Rival { policy, .. } => {
                policy.lock().unwrap_or_else(PoisonError::into_inner).0.on_response(observed);
            }
        }
    }

    pub(crate) fn hear(&self, shard: &ShardId, report: &ShardReport) {
        if let Self::Rival { policy, .. } = self {
            policy.lock().unwrap_or_else(PoisonError::into_inner).0.on_report(shard, report);
        }
    }
}
