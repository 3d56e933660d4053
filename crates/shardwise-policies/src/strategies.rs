//! The specification's strategies together: as constraints they bound the candidates of whoever decides, as fallbacks
//! they decide when nothing better can. Threads share them; the configuration may be replaced while they decide.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rand::Rng;
use shardwise_features::DecisionContext;
use shardwise_types::{DecidedBy, InvalidInput, NoEligibleShard, ShardSnapshot, UsdAmount, Widening};

use crate::eligible::{admit, is_admitted};
use crate::executions::Executions;
use crate::geographic_strategy::GeographicDemand;
use crate::protocol_strategy::ProtocolDemand;
use crate::ranking::{Demand, Ranking, Rung};
use crate::resource_matcher::ResourceDemand;
use crate::risk_strategy::RiskDemand;
use crate::{
    Decision, GeographicStrategy, Mode, Observed, Policy, ProtocolStrategy, ResourceMatcher, RiskStrategy, Rules,
    StrategiesConfig, StrategyName, eligible,
};

/// A strategy of the specification: it ranks eligible shards, decides through `&self` and is shared between threads.
pub trait Strategy: Send + Sync {
    /// Its name as a decider.
    fn decided_by(&self) -> DecidedBy;

    /// Ranks eligible shards, given by position in the context's fleet, each once and in any order.
    fn rank(&self, context: &DecisionContext<'_>, eligible: &[usize], out: &mut Ranking);

    /// Learns from a response.
    fn on_response(&self, observed: &Observed<'_>);

    /// The latency that it expects of a shard in ms, when it expects one.
    fn expected_ms(&self, _shard: &ShardSnapshot) -> Option<f64> {
        None
    }
}

/// A strategy as a policy of its own, without any other decider.
#[derive(Default)]
pub struct AsPolicy<S> {
    strategy: S,
    eligible: Vec<usize>,
    ranking: Ranking,
}

impl<S: Strategy> AsPolicy<S> {
    /// By this strategy.
    pub fn new(strategy: S) -> Self {
        Self { strategy, eligible: Vec::new(), ranking: Ranking::default() }
    }

    /// The strategy.
    pub fn strategy(&self) -> &S {
        &self.strategy
    }

    /// The ranking behind the last decision.
    pub fn ranking(&self) -> &Ranking {
        &self.ranking
    }
}

impl<S: Strategy> Policy for AsPolicy<S> {
    fn name(&self) -> &str {
        self.strategy.decided_by().as_str()
    }

    fn decide(&mut self, context: &DecisionContext<'_>, _rng: &mut dyn Rng) -> Result<Decision, NoEligibleShard> {
        eligible(context, &Rules::default(), &mut self.eligible)?;
        self.strategy.rank(context, &self.eligible, &mut self.ranking);
        let chosen = self.ranking.best().expect("the last rung lets in all that are eligible").position;
        let predicted_ms = self.strategy.expected_ms(&context.fleet.shards[chosen]);
        Ok(Decision { predicted_ms, ..Decision::by_rule(chosen, 1.0, self.eligible.len()) })
    }

    fn on_response(&mut self, observed: &Observed<'_>) {
        self.strategy.on_response(observed);
    }
}

/// All strategies under one configuration. What is read of it for one request comes from one snapshot.
pub struct Strategies {
    now: ArcSwap<Snapshot>,
}

struct Snapshot {
    config: Arc<StrategiesConfig>,
    protocol: ProtocolStrategy,
    risk: RiskStrategy,
    geographic: GeographicStrategy,
    resource: ResourceMatcher,
    has_constraint: bool,
}

impl Default for Strategies {
    /// The specification's.
    fn default() -> Self {
        Self::new(StrategiesConfig::default()).expect("the defaults are in range")
    }
}

impl Strategies {
    /// With a configuration.
    ///
    /// # Errors
    /// Names the field that is out of range.
    pub fn new(config: StrategiesConfig) -> Result<Self, InvalidInput> {
        Ok(Self { now: ArcSwap::from_pointee(Snapshot::new(config, None)?) })
    }

    /// The configuration.
    pub fn config(&self) -> Arc<StrategiesConfig> {
        self.now.load().config.clone()
    }

    /// Takes another configuration from the next request on. What was learned stays, but for a strategy whose window is
    /// another now.
    ///
    /// # Errors
    /// Names the field that is out of range; then all stays as it is.
    pub fn replace(&self, config: StrategiesConfig) -> Result<(), InvalidInput> {
        let after = Snapshot::new(config, Some(&**self.now.load()))?;
        self.now.store(Arc::new(after));
        Ok(())
    }

    /// Changes the configuration from the next request on, as when a map grows. No change of another thread is lost, for
    /// which `change` may be called again.
    ///
    /// # Errors
    /// Names the field that is out of range; then all stays as it is.
    pub fn update(&self, change: impl Fn(&mut StrategiesConfig)) -> Result<(), InvalidInput> {
        loop {
            let before = self.now.load_full();
            let mut config = (*before.config).clone();
            change(&mut config);
            let after = Arc::new(Snapshot::new(config, Some(&before))?);
            if Arc::ptr_eq(&self.now.compare_and_swap(&before, after), &before) {
                return Ok(());
            }
        }
    }

    /// Puts the positions of the shards that the request may go to into `out`, in the order of the fleet: those that the
    /// hard rules and all strategies of mode `constraint` let in. When there are none, the constraints are widened rung
    /// by rung, the hard rules never; says how far.
    ///
    /// # Errors
    /// When nothing is left; the refusal counts the reasons.
    pub fn candidates(&self, context: &DecisionContext<'_>, out: &mut Vec<usize>) -> Result<Widening, NoEligibleShard> {
        let now = self.now.load();
        if !now.has_constraint {
            return admit(context, &now.config.rules, |_| Some(Rung::FIRST), out);
        }
        let constraints = now.constraints(context);
        admit(context, &now.config.rules, |shard| constraints.rung(shard), out)
    }

    /// Whether [`candidates`](Self::candidates) lets in the shard at a position: what is asked of a choice after it was
    /// made.
    pub fn is_allowed(&self, context: &DecisionContext<'_>, position: usize) -> bool {
        let now = self.now.load();
        let constraints = now.constraints(context);
        is_admitted(context, &now.config.rules, |shard| constraints.rung(shard), position)
    }

    /// Asks the strategies of mode `fallback` in the configured order; the first that names an eligible shard without
    /// going down its ladder decides, and `out` is its ranking. When none does `out` is empty.
    pub fn fall_back(&self, context: &DecisionContext<'_>, eligible: &[usize], out: &mut Ranking) -> Option<DecidedBy> {
        let now = self.now.load();
        for name in now.config.order.iter().filter(|name| now.config.mode(**name) == Mode::Fallback) {
            let strategy = now.strategy(*name);
            strategy.rank(context, eligible, out);
            if out.widening == Widening::None && out.best().is_some() {
                return Some(strategy.decided_by());
            }
        }
        out.clear();
        None
    }

    /// Learns from a response; strategies that are off learn nothing.
    pub fn on_response(&self, observed: &Observed<'_>) {
        let now = self.now.load();
        for name in StrategyName::ALL.into_iter().filter(|name| now.config.mode(*name) != Mode::Off) {
            now.strategy(name).on_response(observed);
        }
    }

    /// Whether the router may run the request itself when no shard is eligible (S13).
    pub fn may_run_locally(&self, context: &DecisionContext<'_>) -> bool {
        let now = self.now.load();
        let (config, request) = (&now.config, context.request);
        // What is bound to shards by name may run nowhere else.
        let is_bound = |usd: f64| config.risk.mode == Mode::Constraint && usd > config.risk.large_usd;
        let amount_fits = |usd: f64| usd <= config.local.max_amount_usd && !is_bound(usd);
        config.local.enabled
            && request.amount_usd.map(UsdAmount::usd).is_none_or(amount_fits)
            && request.memory_mb <= config.local.memory_mb
            && request.residency.as_ref().is_none_or(|region| *region == context.fleet.router_region)
    }
}

/// What the strategies of mode `constraint` demand for one request.
struct Constraints<'a> {
    risk: Option<RiskDemand<'a>>,
    protocol: Option<ProtocolDemand<'a>>,
    geographic: Option<GeographicDemand<'a>>,
    resource: Option<ResourceDemand<'a>>,
}

impl Constraints<'_> {
    /// The widest of the rungs on which they let in a shard; `None` when the amount may not go there on any.
    fn rung(&self, shard: &ShardSnapshot) -> Option<Rung> {
        if self.risk.as_ref().is_some_and(|risk| !risk.allows(shard)) {
            return None;
        }
        let rungs = [
            rung(self.risk.as_ref(), shard),
            rung(self.protocol.as_ref(), shard),
            rung(self.geographic.as_ref(), shard),
            rung(self.resource.as_ref(), shard),
        ];
        rungs.into_iter().max()
    }
}

fn rung(demand: Option<&impl Demand>, shard: &ShardSnapshot) -> Rung {
    demand.map_or(Rung::FIRST, |demand| demand.rung(shard))
}

impl Snapshot {
    fn new(config: StrategiesConfig, before: Option<&Self>) -> Result<Self, InvalidInput> {
        config.check()?;
        let kept = |of: fn(&Self) -> &Arc<Executions>, window| keep_or_begin(before.map(of), window);
        let protocol = kept(|now| now.protocol.executions(), config.protocol.executions.window);
        let risk = kept(|now| now.risk.executions(), config.risk.window);
        let geographic = kept(|now| now.geographic.executions(), config.geographic.executions.window);
        let resource = kept(|now| now.resource.executions(), config.resource.executions.window);
        Ok(Self {
            protocol: ProtocolStrategy::with_executions(config.protocol.clone(), protocol),
            risk: RiskStrategy::with_executions(config.risk.clone(), risk),
            geographic: GeographicStrategy::with_executions(config.geographic.clone(), geographic),
            resource: ResourceMatcher::with_executions(config.resource.clone(), resource),
            has_constraint: StrategyName::ALL.into_iter().any(|name| config.mode(name) == Mode::Constraint),
            config: Arc::new(config),
        })
    }

    fn strategy(&self, name: StrategyName) -> &dyn Strategy {
        match name {
            StrategyName::Protocol => &self.protocol,
            StrategyName::Risk => &self.risk,
            StrategyName::Geographic => &self.geographic,
            StrategyName::Resource => &self.resource,
        }
    }

    fn constraints<'a>(&'a self, context: &DecisionContext<'a>) -> Constraints<'a> {
        let is_one = |name| self.config.mode(name) == Mode::Constraint;
        Constraints {
            risk: is_one(StrategyName::Risk).then(|| self.risk.demand(context)),
            protocol: is_one(StrategyName::Protocol).then(|| self.protocol.demand(context)),
            geographic: is_one(StrategyName::Geographic).then(|| self.geographic.demand(context)),
            resource: is_one(StrategyName::Resource).then(|| self.resource.demand(context)),
        }
    }
}

fn keep_or_begin(before: Option<&Arc<Executions>>, window: usize) -> Arc<Executions> {
    let kept = before.filter(|executions| executions.window() == window).cloned();
    kept.unwrap_or_else(|| Arc::new(Executions::new(window)))
}

#[cfg(test)]
mod tests;
