//! S2 of the specification: risk has tiers of shards, a large amount raises the tier, and urgency weighs latency
//! against load, experience and cost.
//!
//! Ladder: the tier's shards, those of the nearest tier above that has any, the least loaded general shard, the least
//! loaded of all. What a large amount may not use comes after everything else there, and as a constraint not at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shardwise_features::DecisionContext;
use shardwise_types::{
    DecidedBy, PlacementRequest, RiskLevel, ShardId, ShardSnapshot, Urgency, UsdAmount, Widening, combine_keys, key_of,
};

use crate::executions::Executions;
use crate::ranking::{Demand, Named, Parts, Ranking, Rejection, Rung, latency_ms, latency_score, load};
use crate::{Mode, Observed, Strategy};

/// What counts for a request of some urgency; the weights add up to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RiskConfig {
    /// What the strategy is used for. As a constraint its amounts are hard rules.
    pub mode: Mode,
    /// Above this amount a request belongs to the tier `high` at least, in US dollars.
    pub large_usd: f64,
    /// Above this amount it belongs to `huge_shards` alone, in US dollars.
    pub huge_usd: f64,
    /// Shards for huge amounts.
    pub huge_shards: Vec<ShardId>,
    /// Shards that may take what is critically urgent: by default the first of each tier.
    pub critical_capable: Vec<ShardId>,
    /// The way out when no tier has a shard left.
    pub general: Vec<ShardId>,
    /// Latency that is worth nothing, in ms.
    pub latency_scale_ms: f64,
    /// Executions that the prior success rate of one half counts for.
    pub experience_prior: f64,
    /// Price of a core, in US dollars per hour.
    pub core_hour_usd: f64,
    /// Last executions that experience is made of.
    pub window: usize,
    /// Shards of each risk level.
    pub shards: BTreeMap<RiskLevel, Vec<ShardId>>,
    /// What counts, by urgency; an urgency that is not listed counts as medium.
    pub weights: BTreeMap<Urgency, RiskWeights>,
}

const MEDIUM: RiskWeights = RiskWeights { latency: 0.3, load: 0.3, experience: 0.3, cost: 0.1 };

impl Default for RiskConfig {
    /// The specification's; capability, the general shards, the prior and the price, which it leaves open, are ours.
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
            mode: Mode::default(),
            large_usd: 1e6,
            huge_usd: 1e7,
            huge_shards: ids(&["shard-whale-primary"]),
            critical_capable: ids(&capable),
            general: ids(&["shard-general"]),
            latency_scale_ms: 1_000.0,
            experience_prior: 10.0,
            core_hour_usd: 0.05,
            window: 100,
            shards: shards.map(|(risk, names)| (risk, ids(names))).into(),
            weights: [
                (Urgency::Low, RiskWeights { latency: 0.2, load: 0.4, experience: 0.3, cost: 0.1 }),
                (Urgency::Medium, MEDIUM),
                (Urgency::High, RiskWeights { latency: 0.4, load: 0.2, experience: 0.4, cost: 0.0 }),
                (Urgency::Critical, RiskWeights { latency: 0.5, load: 0.1, experience: 0.4, cost: 0.0 }),
            ]
            .into(),
        }
    }
}

const LEVELS: usize = RiskLevel::ALL.len();

/// By risk, amount and urgency.
pub struct RiskStrategy {
    config: RiskConfig,
    executions: Arc<Executions>,
    /// By rank of the risk level.
    tiers: [Named; LEVELS],
    huge: Named,
    capable: Named,
    general: Named,
}

/// What a shard is to a request's risk.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RiskAssessment {
    /// The shard's reported mean latency in ms, when known.
    pub expected_latency_ms: Option<f64>,
    /// Its load in [0, 1], when known.
    pub load: Option<f64>,
    /// Share of successes at the risk level, drawn toward one half while there are few.
    pub suitability: f64,
    /// What running the request there costs, in US dollars; 0 while it never succeeded.
    pub cost_usd: f64,
}

/// What it demands for one request.
pub(crate) struct RiskDemand<'a> {
    strategy: &'a RiskStrategy,
    tier: RiskLevel,
    is_large: bool,
    is_huge: bool,
    is_urgent: bool,
}

impl RiskDemand<'_> {
    /// Whether the amount may go to the shard at all: no rung and no other strategy gets past this.
    pub(crate) fn allows(&self, shard: &ShardSnapshot) -> bool {
        let strategy = self.strategy;
        if self.is_huge {
            return strategy.huge.has(shard);
        }
        !self.is_large || strategy.tiers[RiskLevel::High.rank() as usize..].iter().any(|tier| tier.has(shard))
    }

    /// How many tiers above the request's the shard's is; `None` for a shard of none of them.
    fn tiers_above(&self, shard: &ShardSnapshot) -> Option<u8> {
        if self.is_huge {
            return Some(0);
        }
        let place = self.strategy.tiers[self.tier.rank() as usize..].iter().position(|tier| tier.has(shard))?;
        u8::try_from(place).ok()
    }

    fn is_capable(&self, shard: &ShardSnapshot) -> bool {
        !self.is_urgent || self.strategy.capable.has(shard)
    }
}

impl Demand for RiskDemand<'_> {
    fn judge(&self, shard: &ShardSnapshot) -> Result<(), (Rejection, Rung)> {
        if !self.allows(shard) {
            return Err((Rejection::AmountTooLarge, Rung::new(Widening::AnyHealthy, 1)));
        }
        let (tiers_above, is_capable) = (self.tiers_above(shard), self.is_capable(shard));
        let why = match tiers_above {
            _ if load(shard).is_none() => Rejection::UnknownLoad,
            Some(0) if is_capable => return Ok(()),
            Some(0) => Rejection::NotCapable,
            _ => Rejection::OtherTier,
        };
        let rung = match tiers_above {
            Some(steps @ 1..) if is_capable && why != Rejection::UnknownLoad => Rung::new(Widening::HigherTier, steps),
            _ if is_capable && self.strategy.general.has(shard) => Rung::new(Widening::General, 0),
            _ => Rung::new(Widening::AnyHealthy, 0),
        };
        Err((why, rung))
    }
}

impl RiskStrategy {
    /// With its configuration.
    pub fn new(config: RiskConfig) -> Self {
        let executions = Arc::new(Executions::new(config.window));
        Self::with_executions(config, executions)
    }

    /// With what another one has learned.
    pub(crate) fn with_executions(config: RiskConfig, executions: Arc<Executions>) -> Self {
        let tier = |rank: usize| Named::new(config.shards.get(&RiskLevel::ALL[rank]).into_iter().flatten());
        Self {
            tiers: std::array::from_fn(tier),
            huge: Named::new(&config.huge_shards),
            capable: Named::new(&config.critical_capable),
            general: Named::new(&config.general),
            executions,
            config,
        }
    }

    /// What a shard is to the request's risk.
    pub fn assess(&self, request: &PlacementRequest, shard: &ShardSnapshot) -> RiskAssessment {
        let record = self.executions.record(key(request.risk, &shard.id));
        RiskAssessment {
            expected_latency_ms: latency_ms(shard),
            load: load(shard),
            suitability: record.success_rate(0.5, self.config.experience_prior),
            cost_usd: record.mean_ms / 3.6e6 * self.config.core_hour_usd,
        }
    }

    pub(crate) fn executions(&self) -> &Arc<Executions> {
        &self.executions
    }

    pub(crate) fn demand(&self, context: &DecisionContext<'_>) -> RiskDemand<'_> {
        let (config, request) = (&self.config, context.request);
        let amount_usd = request.amount_usd.map_or(0.0, UsdAmount::usd);
        let (is_large, is_huge) = (amount_usd > config.large_usd, amount_usd > config.huge_usd);
        // An amount may only raise the tier.
        let by_amount = if is_large { RiskLevel::High } else { RiskLevel::Low };
        let tier = request.risk.max(by_amount);
        RiskDemand { strategy: self, tier, is_large, is_huge, is_urgent: request.urgency == Urgency::Critical }
    }

    fn parts(&self, request: &PlacementRequest, shard: &ShardSnapshot) -> Parts {
        let weights = self.config.weights.get(&request.urgency).unwrap_or(&MEDIUM);
        let assessment = self.assess(request, shard);
        [
            ("latency", weights.latency * latency_score(shard, self.config.latency_scale_ms)),
            ("load", weights.load * (1.0 - assessment.load.unwrap_or(1.0))),
            ("experience", weights.experience * assessment.suitability),
            ("cost", weights.cost * cost_efficiency(request, assessment.cost_usd)),
        ]
        .into_iter()
        .collect()
    }
}

/// 1 − execution cost / amount at stake, in [0, 1]; 0 when nothing is at stake or the amount is unknown.
fn cost_efficiency(request: &PlacementRequest, cost_usd: f64) -> f64 {
    let at_stake = request.amount_usd.map(UsdAmount::usd).filter(|usd| *usd > 0.0);
    at_stake.map_or(0.0, |usd| (1.0 - cost_usd / usd).clamp(0.0, 1.0))
}

fn key(risk: RiskLevel, shard: &ShardId) -> u64 {
    combine_keys(key_of(risk.as_str()), shard.key())
}

impl Default for RiskStrategy {
    fn default() -> Self {
        Self::new(RiskConfig::default())
    }
}

impl Strategy for RiskStrategy {
    fn decided_by(&self) -> DecidedBy {
        DecidedBy::RiskStrategy
    }

    fn rank(&self, context: &DecisionContext<'_>, eligible: &[usize], out: &mut Ranking) {
        out.fill(&context.fleet.shards, eligible, &self.demand(context), |shard| self.parts(context.request, shard));
    }

    fn on_response(&self, observed: &Observed<'_>) {
        self.executions.learn(key(observed.request.risk, observed.shard), observed.response);
    }

    fn expected_ms(&self, shard: &ShardSnapshot) -> Option<f64> {
        latency_ms(shard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AsPolicy;
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
        decide(&mut AsPolicy::new(RiskStrategy::default()), golden)
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
        let mut strategy = AsPolicy::new(RiskStrategy::default());
        golden.request.risk = RiskLevel::Medium;
        respond(&mut strategy, &golden, 2, Some(ErrorClass::Failed));
        assert_eq!(decide(&mut strategy, &golden), "shard-institutional-secondary");
        (0..30).for_each(|_| respond(&mut strategy, &golden, 2, Some(ErrorClass::Failed)));
        assert_eq!(decide(&mut strategy, &golden), "shard-institutional-primary");
        golden.request.risk = RiskLevel::High;
        assert_eq!(decide(&mut strategy, &golden), "shard-whale-secondary");
    }

    #[test]
    fn an_assessment_is_of_risk_and_shard() {
        let mut golden = fleet();
        golden.request.risk = RiskLevel::High;
        let mut strategy = AsPolicy::new(RiskStrategy::default());
        (0..10).for_each(|_| respond(&mut strategy, &golden, 4, None));
        let assess = |position: usize| strategy.strategy().assess(&golden.request, &golden.fleet.shards[position]);
        let (known, unknown) = (assess(4), assess(5));
        assert_eq!((known.suitability, unknown.suitability), (0.75, 0.5));
        assert_eq!((known.load, unknown.cost_usd), (Some(0.5), 0.0));
        assert!((known.cost_usd - 10.0 / 3.6e6 * 0.05).abs() < 1e-15, "ten milliseconds of a core");
    }
}
