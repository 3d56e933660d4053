//! S2 of the specification: risk has tiers of shards, a large amount raises the tier, and urgency weighs latency
//! against load, experience and cost.
//!
//! Ladder: the tier's shards, those of the tiers above, the least loaded of all. That amounts hold on the last rung too
//! is the hard rules' doing, which bound what a shard may take.

use std::collections::BTreeMap;

use rand::Rng;
use shardwise_features::DecisionContext;
use shardwise_types::{
    NoEligibleShard, PlacementRequest, RiskLevel, ShardId, ShardSnapshot, Urgency, UsdAmount, combine_keys, key_of,
};

use crate::executions::{AffinityConfig, Executions};
use crate::shortlist::{Shortlist, latency_ms, latency_score, load};
use crate::{Decision, Observed, Policy};

/// What counts for a request of some urgency; the weights add up to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RiskWeights {
    /// Weight of 1 − latency / scale.
    pub latency: f64,
    /// Weight of 1 − load.
    pub load: f64,
    /// Weight of experience with the risk level.
    pub experience: f64,
    /// Weight of 1 − execution cost / amount at stake.
    pub cost: f64,
}

/// Maps, weights and limits of [`RiskStrategy`].
#[derive(Debug, Clone, PartialEq)]
pub struct RiskConfig {
    /// Shards of each risk level.
    pub shards: BTreeMap<RiskLevel, Vec<ShardId>>,
    /// Above this amount a request belongs to the tier `high` at least, in US dollars.
    pub large_usd: f64,
    /// Above this amount it belongs to `huge_shards` alone, in US dollars.
    pub huge_usd: f64,
    /// Shards for huge amounts.
    pub huge_shards: Vec<ShardId>,
    /// Shards that may take what is critically urgent: by default the first of each tier.
    pub critical_capable: Vec<ShardId>,
    /// What counts, by urgency; an urgency that is not listed counts as medium.
    pub weights: BTreeMap<Urgency, RiskWeights>,
    /// Latency that is worth nothing, in ms.
    pub latency_scale_ms: f64,
    /// Executions that the prior success rate of one half counts for.
    pub experience_prior: f64,
    /// Price of a core, in US dollars per hour.
    pub core_hour_usd: f64,
    /// Last executions that experience is made of.
    pub window: usize,
}

const MEDIUM: RiskWeights = RiskWeights { latency: 0.3, load: 0.3, experience: 0.3, cost: 0.1 };

impl Default for RiskConfig {
    /// The specification's; capability, the prior and the price, which it leaves open, are ours.
    fn default() -> Self {
        let ids = |names: &[&str]| names.iter().map(|name| ShardId::new(name)).collect();
        let shards: [(_, &[&str]); 4] = [
            (RiskLevel::Low, &["shard-retail-primary", "shard-retail-secondary", "shard-general"]),
            (RiskLevel::Medium, &["shard-institutional-primary", "shard-institutional-secondary"]),
            (RiskLevel::High, &["shard-whale-primary", "shard-whale-secondary"]),
            (RiskLevel::Critical, &["shard-critical-primary"]),
        ];
        let capable =
            ["shard-retail-primary", "shard-institutional-primary", "shard-whale-primary", "shard-critical-primary"];
        Self {
            shards: shards.map(|(risk, names)| (risk, ids(names))).into(),
            large_usd: 1e6,
            huge_usd: 1e7,
            huge_shards: ids(&["shard-whale-primary"]),
            critical_capable: ids(&capable),
            weights: [
                (Urgency::Low, RiskWeights { latency: 0.2, load: 0.4, experience: 0.3, cost: 0.1 }),
                (Urgency::Medium, MEDIUM),
                (Urgency::High, RiskWeights { latency: 0.4, load: 0.2, experience: 0.4, cost: 0.0 }),
                (Urgency::Critical, RiskWeights { latency: 0.5, load: 0.1, experience: 0.4, cost: 0.0 }),
            ]
            .into(),
            latency_scale_ms: 1_000.0,
            experience_prior: 10.0,
            core_hour_usd: 0.05,
            window: 100,
        }
    }
}

/// By risk, amount and urgency.
pub struct RiskStrategy {
    config: RiskConfig,
    executions: Executions,
    shortlist: Shortlist,
}

impl RiskStrategy {
    /// With its configuration.
    pub fn new(config: RiskConfig) -> Self {
        let executions = Executions::new(AffinityConfig { window: config.window, ..AffinityConfig::default() });
        Self { config, executions, shortlist: Shortlist::default() }
    }

    /// Likes the shards of the lowest tier that has any for the request.
    fn like_tier(&mut self, context: &DecisionContext<'_>) {
        let (config, request) = (&self.config, context.request);
        let amount_usd = request.amount_usd.map_or(0.0, UsdAmount::usd);
        let urgent = request.urgency == Urgency::Critical;
        let capable = |shard: &ShardSnapshot| !urgent || config.critical_capable.contains(&shard.id);
        if amount_usd > config.huge_usd {
            self.shortlist.like(context, &config.huge_shards, capable);
            return;
        }
        // An amount may only raise the tier.
        let by_amount = if amount_usd > config.large_usd { RiskLevel::High } else { RiskLevel::Low };
        for (_, shards) in config.shards.range(request.risk.max(by_amount)..) {
            if self.shortlist.like(context, shards, capable) {
                return;
            }
        }
    }

    fn score(&self, context: &DecisionContext<'_>, position: usize) -> f64 {
        let (config, request, shard) = (&self.config, context.request, &context.fleet.shards[position]);
        let weights = config.weights.get(&request.urgency).unwrap_or(&MEDIUM);
        let record = self.executions.record(key(request.risk, &shard.id));
        weights.latency * latency_score(shard, config.latency_scale_ms)
            + weights.load * (1.0 - load(shard))
            + weights.experience * record.success_rate(0.5, config.experience_prior)
            + weights.cost * self.cost_efficiency(request, record.mean_ms)
    }

    /// 1 − execution cost / amount at stake, in [0, 1]; 0 when nothing is at stake or the amount is unknown.
    fn cost_efficiency(&self, request: &PlacementRequest, execution_ms: f64) -> f64 {
        let cost_usd = execution_ms / 3.6e6 * self.config.core_hour_usd;
        let at_stake = request.amount_usd.map(UsdAmount::usd).filter(|usd| *usd > 0.0);
        at_stake.map_or(0.0, |usd| (1.0 - cost_usd / usd).clamp(0.0, 1.0))
    }
}

fn key(risk: RiskLevel, shard: &ShardId) -> u64 {
    combine_keys(key_of(risk.as_str()), shard.key())
}

impl Default for RiskStrategy {
    fn default() -> Self {
        Self::new(RiskConfig::default())
    }
}

impl Policy for RiskStrategy {
    fn name(&self) -> &'static str {
        "risk_strategy"
    }

    fn decide(&mut self, context: &DecisionContext<'_>, _rng: &mut dyn Rng) -> Result<Decision, NoEligibleShard> {
        self.shortlist.begin(context)?;
        self.like_tier(context);
        let decision = self.shortlist.decide(context, |position| self.score(context, position));
        let latency_ms = latency_ms(&context.fleet.shards[decision.chosen]);
        Ok(Decision { predicted_ms: Some(latency_ms).filter(|ms| ms.is_finite()), ..decision })
    }

    fn on_response(&mut self, observed: &Observed<'_>) {
        self.executions.learn(key(observed.request.risk, observed.shard), observed.response);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{decide, named_fleet, respond};
    use shardwise_features::golden::GoldenContext;
    use shardwise_types::ErrorClass;

    fn fleet() -> GoldenContext {
        let mut golden = named_fleet(&[
            ("shard-critical-primary", 0.5),
            ("shard-institutional-primary", 0.5),
            ("shard-institutional-secondary", 0.1),
            ("shard-retail-primary", 0.5),
            ("shard-whale-primary", 0.5),
            ("shard-whale-secondary", 0.4),
        ]);
        golden.fleet.shards.iter_mut().for_each(|shard| shard.shape.max_amount_usd = None);
        golden
    }

    fn chosen(golden: &mut GoldenContext, risk: RiskLevel, usd: f64) -> String {
        golden.request.risk = risk;
        golden.request.amount_usd = UsdAmount::new(usd).ok();
        decide(&mut RiskStrategy::default(), golden)
    }

    #[test]
    fn an_amount_may_only_raise_the_tier() {
        let mut golden = fleet();
        assert_eq!(chosen(&mut golden, RiskLevel::Low, 100.0), "shard-retail-primary");
        assert_eq!(chosen(&mut golden, RiskLevel::Low, 2e6), "shard-whale-secondary");
        assert_eq!(chosen(&mut golden, RiskLevel::Critical, 2e6), "shard-critical-primary");
        assert_eq!(chosen(&mut golden, RiskLevel::Critical, 2e7), "shard-whale-primary");
    }

    #[test]
    fn a_tier_that_is_gone_is_replaced_by_the_one_above() {
        let mut golden = fleet();
        golden.fleet.shards[3].report.as_mut().unwrap().healthy = false;
        assert_eq!(chosen(&mut golden, RiskLevel::Low, 100.0), "shard-institutional-secondary");
        golden.fleet.shards[0].report.as_mut().unwrap().healthy = false;
        assert_eq!(
            chosen(&mut golden, RiskLevel::Critical, 100.0),
            "shard-institutional-secondary",
            "least loaded of all"
        );
    }

    #[test]
    fn no_rung_of_the_ladder_breaks_a_hard_rule() {
        let mut golden = fleet();
        golden.fleet.shards.iter_mut().for_each(|shard| shard.shape.max_amount_usd = Some(1e6));
        golden.fleet.shards[5].shape.max_amount_usd = None;
        assert_eq!(chosen(&mut golden, RiskLevel::Critical, 2e7), "shard-whale-secondary");
    }

    #[test]
    fn critical_urgency_needs_a_capable_shard() {
        let mut golden = fleet();
        assert_eq!(chosen(&mut golden, RiskLevel::Medium, 100.0), "shard-institutional-secondary");
        golden.request.urgency = Urgency::Critical;
        assert_eq!(chosen(&mut golden, RiskLevel::Medium, 100.0), "shard-institutional-primary");
    }

    #[test]
    fn experience_is_of_the_risk_level_and_takes_more_than_one_execution() {
        let mut golden = fleet();
        golden.request.urgency = Urgency::High;
        let mut strategy = RiskStrategy::default();
        golden.request.risk = RiskLevel::Medium;
        respond(&mut strategy, &golden, 2, Some(ErrorClass::Failed));
        assert_eq!(decide(&mut strategy, &golden), "shard-institutional-secondary");
        (0..30).for_each(|_| respond(&mut strategy, &golden, 2, Some(ErrorClass::Failed)));
        assert_eq!(decide(&mut strategy, &golden), "shard-institutional-primary");
        golden.request.risk = RiskLevel::High;
        assert_eq!(decide(&mut strategy, &golden), "shard-whale-secondary");
    }
}
