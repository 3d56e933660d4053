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

mod bounded_hash;
mod c3;
mod config;
mod eligible;
mod executions;
mod geographic_strategy;
mod in_flight;
mod join_idle;
mod loads;
mod peak_ewma;
mod prequal;
mod protocol_strategy;
mod quantity;
mod random;
mod ranking;
mod reported;
mod resource_matcher;
mod revisit;
mod risk_strategy;
mod round_robin;
#[cfg(test)]
mod samples;
pub mod sed;
mod sed_policies;
mod strategies;

use std::sync::Arc;

use rand::Rng;
use shardwise_features::{DecisionContext, Forecast, ServiceTable, Ticket};
use shardwise_types::{
    CostTerms, DecidedBy, FallbackReason, NoEligibleShard, PlacementRequest, Response, ShardId, ShardReport, Timestamp,
};

pub use bounded_hash::{BoundedHash, BoundedHashConfig};
pub use c3::{C3, C3Config};
pub use config::{LocalConfig, Mode, StrategiesConfig, StrategyName};
pub use eligible::{Rules, eligible, is_eligible};
pub use executions::AffinityConfig;
pub use geographic_strategy::{GeographicConfig, GeographicStrategy};
pub use in_flight::{LeastInFlight, TwoChoicesInFlight};
pub use join_idle::JoinIdle;
pub use peak_ewma::{PeakEwma, PeakEwmaConfig};
pub use prequal::{Prequal, PrequalConfig};
pub use protocol_strategy::{ProtocolConfig, ProtocolStrategy, ProtocolWeights};
pub use quantity::Quantity;
pub use random::Random;
pub use ranking::{Parts, Ranked, Ranking, Rejection};
pub use reported::{LeastReported, TwoChoicesReported};
pub use resource_matcher::{Requirements, ResourceConfig, ResourceMatcher, ResourcePlacement, ResourceWeights};
pub use risk_strategy::{RiskAssessment, RiskConfig, RiskStrategy, RiskWeights};
pub use round_robin::RoundRobin;
pub use sed::Runtime;
pub use sed_policies::{Sed, SedSoftmax};
pub use strategies::{AsPolicy, Strategies, Strategy};

/// Names that [`by_name`] knows.
pub const NAMES: &[&str] = &[
    "random",
    "round_robin",
    "least_reported",
    "p2c_reported",
    "p2c_in_flight",
    "least_in_flight",
    "peak_ewma_p2c",
    "join_idle",
    "prequal",
    "c3",
    "bounded_hash",
    "protocol_strategy",
    "risk_strategy",
    "geographic_strategy",
    "resource_matcher",
    "sed_tab",
    "sed_tab_lambda",
    "sed_tab_softmax",
];

/// Makes a policy that needs no model; `None` for a name that is not in [`NAMES`].
pub fn by_name(name: &str, runtime: Runtime) -> Option<Box<dyn Policy>> {
    Some(match name {
        "random" => Box::new(Random::default()),
        "round_robin" => Box::new(RoundRobin::default()),
        "least_reported" => Box::new(LeastReported::default()),
        "p2c_reported" => Box::new(TwoChoicesReported::default()),
        "p2c_in_flight" => Box::new(TwoChoicesInFlight::default()),
        "least_in_flight" => Box::new(LeastInFlight::default()),
        "peak_ewma_p2c" => Box::new(PeakEwma::new(PeakEwmaConfig { runtime, ..PeakEwmaConfig::default() })),
        "join_idle" => Box::new(JoinIdle::default()),
        "prequal" => Box::new(Prequal::new(PrequalConfig { runtime, ..PrequalConfig::default() })),
        "c3" => Box::new(C3::new(C3Config { runtime, ..C3Config::default() })),
        "bounded_hash" => Box::new(BoundedHash::default()),
        "protocol_strategy" => Box::new(AsPolicy::new(ProtocolStrategy::default())),
        "risk_strategy" => Box::new(AsPolicy::new(RiskStrategy::default())),
        "geographic_strategy" => Box::new(AsPolicy::new(GeographicStrategy::default())),
        "resource_matcher" => Box::new(AsPolicy::new(ResourceMatcher::default())),
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
    /// What was foretold of it; whoever dispatches puts it on the ticket.
    pub forecast: Forecast,
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
            forecast: Forecast::default(),
        }
    }
}

/// A response, with what the router remembered of its request.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    /// The request.
    pub request: &'a PlacementRequest,
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

    /// Puts into `out` every choice that it might make here, as a position of the context's fleet, with its exact probability;
    /// they add up to 1. It draws nothing and stays as it is. `None` from a policy that cannot say: its choice hangs on what it
    /// drew or probed before.
    fn odds(
        &mut self,
        _context: &DecisionContext<'_>,
        _out: &mut Vec<(usize, f64)>,
    ) -> Option<Result<(), NoEligibleShard>> {
        None
    }

    /// Decides again what it decided in the same state, chance included: wherever it drew, it drew the shard at the position
    /// `chosen`. `None` when it drew and cannot tell what it would have made of that.
    fn revisit(&mut self, context: &DecisionContext<'_>, _chosen: usize) -> Option<Result<Decision, NoEligibleShard>> {
        let mut chance = revisit::NoChance::default();
        let decided = self.decide(context, &mut chance);
        (!chance.was_asked).then_some(decided)
    }

    /// Adds the positions of all shards that its last decision chose between, with the terms of their costs; nothing when it
    /// goes by no such cost.
    fn costs(&self, _out: &mut Vec<(usize, CostTerms)>) {}

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
    fn model_version(&self) -> Option<Arc<str>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    use shardwise_features::golden::{GoldenContext, contexts};
    use shardwise_types::{ErrorClass, UsdAmount};

    use super::*;
    use crate::samples::respond;

    /// Turns a golden context into one of many odd ones.
    fn disturb(golden: &mut GoldenContext, rng: &mut StdRng) {
        for shard in &mut golden.fleet.shards {
            if rng.random_bool(0.1) {
                shard.report = None;
            } else if let Some(report) = &mut shard.report {
                report.healthy = rng.random_bool(0.7);
                report.event_at = golden.decided_at.plus_millis(-rng.random_range(0.0..6_000.0));
                report.cpu = [0.0, 0.5, 1.0, f32::NAN][rng.random_range(0..4)];
                report.mean_latency_ms = [0.0, 40.0, f32::NAN, f32::INFINITY][rng.random_range(0..4)];
            }
            shard.shape.cores = [1.0, 4.0, f32::NAN, 0.0][rng.random_range(0..8) / 2];
            shard.shape.max_amount_usd = [None, Some(1e6)][rng.random_range(0..2)];
        }
        golden.request.amount_usd = [None, UsdAmount::new(0.0).ok(), UsdAmount::new(2e7).ok()][rng.random_range(0..3)];
        golden.request.urgency = shardwise_types::Urgency::ALL[rng.random_range(0..4)];
    }

    /// What a policy hears between decisions, some of it absurd.
    fn tell(policy: &mut dyn Policy, golden: &GoldenContext, rng: &mut StdRng) {
        let position = rng.random_range(0..golden.fleet.shards.len());
        let shard = &golden.fleet.shards[position].id;
        let mut probed = Vec::new();
        policy.probe(&golden.context(), rng, &mut probed);
        assert!(probed.iter().all(|position| *position < golden.fleet.shards.len()), "{}", policy.name());
        let latency_ms = [None, Some(5.0), Some(f64::NAN)][rng.random_range(0..3)];
        policy.on_probe(&ProbeAnswer { shard, in_flight: 3, latency_ms, known_at: golden.decided_at });
        policy.on_idle(shard);
        let errors = [None, Some(ErrorClass::Failed), Some(ErrorClass::Timeout), Some(ErrorClass::Cancelled)];
        respond(policy, golden, position, errors[rng.random_range(0..4)]);
    }

    /// Two hundred odd decisions of a policy, each checked.
    fn decisions(name: &str) -> Vec<Option<Decision>> {
        let (mut rng, mut draws) = (StdRng::seed_from_u64(3), StdRng::seed_from_u64(4));
        let mut policy = by_name(name, Runtime::default()).expect("a listed policy");
        assert_eq!(policy.name(), name);
        let mut decide = |golden: &GoldenContext, rng: &mut StdRng| {
            let mut allowed = Vec::new();
            let verdict = eligible(&golden.context(), &Rules::default(), &mut allowed);
            let decided = policy.decide(&golden.context(), &mut draws);
            tell(&mut *policy, golden, rng);
            assert_eq!(decided.as_ref().err(), verdict.as_ref().err(), "{name} refuses for reasons of its own");
            let decision = decided.ok()?;
            assert!(allowed.contains(&decision.chosen), "{name} broke a hard rule");
            assert!(decision.propensity > 0.0 && decision.propensity <= 1.0 + 1e-12, "{name}: {decision:?}");
            assert!(decision.predicted_ms.is_none_or(f64::is_finite), "{name}: {decision:?}");
            assert_eq!(decision.eligible as usize, allowed.len());
            Some(decision)
        };
        let mut golden = contexts().remove(1);
        let fleet = golden.fleet.clone();
        let mut odd = |_| {
            golden.fleet = fleet.clone();
            golden.decided_at = golden.decided_at.plus_millis(100.0);
            disturb(&mut golden, &mut rng);
            decide(&golden, &mut rng)
        };
        (0..200).map(&mut odd).collect()
    }

    #[test]
    fn odds_are_the_propensities_of_what_is_drawn() {
        let (mut rng, mut draws) = (StdRng::seed_from_u64(5), StdRng::seed_from_u64(6));
        let mut golden = contexts().remove(1);
        let fleet = golden.fleet.clone();
        let mut telling = Vec::new();
        for name in NAMES {
            let mut policy = by_name(name, Runtime::default()).expect("a listed policy");
            for _ in 0..100 {
                golden.fleet = fleet.clone();
                golden.decided_at = golden.decided_at.plus_millis(100.0);
                disturb(&mut golden, &mut rng);
                let mut odds = Vec::new();
                let Some(said) = policy.odds(&golden.context(), &mut odds) else { break };
                telling.push(*name);
                let decided = policy.decide(&golden.context(), &mut draws);
                assert_eq!(decided.as_ref().err(), said.as_ref().err(), "{name}");
                let Ok(decision) = decided else { continue };
                let all: f64 = odds.iter().map(|(_, probability)| probability).sum();
                assert!((all - 1.0).abs() < 1e-9, "{name}: {odds:?}");
                let stated = odds.iter().find(|(position, _)| *position == decision.chosen).map(|(_, odds)| *odds);
                assert_eq!(stated, Some(decision.propensity), "{name}: {odds:?}");
            }
        }
        telling.dedup();
        let alone = ["random", "least_reported", "least_in_flight", "bounded_hash"];
        assert_eq!(telling, [&alone[..], &["sed_tab", "sed_tab_lambda", "sed_tab_softmax"]].concat());
    }

    #[test]
    fn a_decision_is_the_same_again_without_its_draws() {
        for name in NAMES {
            let [mut policy, mut again] = [(); 2].map(|()| by_name(name, Runtime::default()).expect("a listed policy"));
            let (mut rng, mut draws) = (StdRng::seed_from_u64(5), StdRng::seed_from_u64(6));
            let mut golden = contexts().remove(1);
            let fleet = golden.fleet.clone();
            let mut same = 0;
            for _ in 0..200 {
                golden.fleet = fleet.clone();
                golden.decided_at = golden.decided_at.plus_millis(100.0);
                disturb(&mut golden, &mut rng);
                let decided = policy.decide(&golden.context(), &mut draws);
                let chosen = decided.as_ref().map_or(0, |decision| decision.chosen);
                match again.revisit(&golden.context(), chosen) {
                    Some(revisited) => assert_eq!(revisited, decided, "{name}"),
                    None => continue,
                }
                same += usize::from(decided.is_ok());
                let failed = rng.random_bool(0.2).then_some(ErrorClass::Failed);
                for policy in [&mut policy, &mut again] {
                    respond(&mut **policy, &golden, chosen, failed);
                }
            }
            // These go by what shards say when they are asked, which is no part of a decision.
            let forgets = ["join_idle", "prequal"].contains(name);
            assert!(if forgets { same == 0 } else { same >= 50 }, "{name}: {same}");
        }
    }

    #[test]
    fn every_policy_keeps_the_hard_rules_answers_when_it_can_and_repeats_itself() {
        for name in NAMES {
            let made = decisions(name);
            assert!((50..200).contains(&made.iter().flatten().count()), "{name}: both must be tried");
            assert_eq!(made, decisions(name), "{name}");
        }
    }
}
