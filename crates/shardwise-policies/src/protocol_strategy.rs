//! S1 of the specification: protocols have shards made for them; of those it takes the emptiest that has run the
//! protocol well and quickly.
//!
//! Ladder: the protocol's shards below the load limit, the least loaded general shard, the least loaded of all.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use shardwise_features::DecisionContext;
use shardwise_types::{DecidedBy, Protocol, ShardId, ShardSnapshot, Widening, combine_keys};

use crate::executions::{AffinityConfig, Executions};
use crate::ranking::{Demand, Named, Parts, Ranking, Rejection, Rung, has_room, latency_score, load};
use crate::{Mode, Observed, Strategy};

/// What counts for [`ProtocolStrategy`]; the weights add up to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProtocolWeights {
    /// Weight of 1 − load.
    pub load: f64,
    /// Weight of the affinity of protocol and shard.
    pub affinity: f64,
    /// Weight of 1 − latency / scale.
    pub latency: f64,
}

impl Default for ProtocolWeights {
    /// The specification's.
    fn default() -> Self {
        Self { load: 0.5, affinity: 0.3, latency: 0.2 }
    }
}

/// Maps, weights and limits of [`ProtocolStrategy`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProtocolConfig {
    /// What the strategy is used for.
    pub mode: Mode,
    /// Shards of every other protocol, and the way out when those of a protocol are full.
    pub general: Vec<ShardId>,
    /// A shard is full from this load on, in [0, 1].
    pub max_load: f64,
    /// Latency that is worth nothing, in ms.
    pub latency_scale_ms: f64,
    /// Shards made for a protocol.
    pub shards: BTreeMap<Protocol, Vec<ShardId>>,
    /// What counts.
    pub weights: ProtocolWeights,
    /// How affinity is made.
    pub executions: AffinityConfig,
}

impl Default for ProtocolConfig {
    /// The specification's.
    fn default() -> Self {
        let shards = [
            ("aave", ["shard-aave-primary", "shard-aave-secondary"]),
            ("compound", ["shard-compound-primary", "shard-compound-secondary"]),
            ("uniswap", ["shard-uniswap-primary", "shard-dex-general"]),
            ("curve", ["shard-curve-primary", "shard-dex-general"]),
            ("arbitrage", ["shard-arbitrage-primary", "shard-arbitrage-secondary"]),
        ];
        Self {
            mode: Mode::default(),
            general: vec!["shard-general".into()],
            max_load: 0.8,
            latency_scale_ms: 1_000.0,
            shards: shards.map(|(protocol, shards)| (protocol.into(), shards.map(ShardId::from).to_vec())).into(),
            weights: ProtocolWeights::default(),
            executions: AffinityConfig::default(),
        }
    }
}

/// By protocol.
pub struct ProtocolStrategy {
    config: ProtocolConfig,
    executions: Arc<Executions>,
    made_for: FxHashMap<u64, Named>,
    general: Named,
}

/// What it demands for one request.
pub(crate) struct ProtocolDemand<'a> {
    made_for_it: &'a Named,
    general: &'a Named,
    max_load: f64,
}

impl Demand for ProtocolDemand<'_> {
    fn judge(&self, shard: &ShardSnapshot) -> Result<(), (Rejection, Rung)> {
        let is_named = self.made_for_it.has(shard);
        let met = if is_named { has_room(shard, self.max_load) } else { Err(Rejection::NotInMap) };
        met.map_err(|why| {
            let wider = if self.general.has(shard) { Widening::General } else { Widening::AnyHealthy };
            (why, Rung::new(wider, 0))
        })
    }
}

impl ProtocolStrategy {
    /// With its configuration.
    pub fn new(config: ProtocolConfig) -> Self {
        let executions = Arc::new(Executions::new(config.executions.window));
        Self::with_executions(config, executions)
    }

    /// With what another one has learned.
    pub(crate) fn with_executions(config: ProtocolConfig, executions: Arc<Executions>) -> Self {
        let made_for = config.shards.iter().map(|(protocol, shards)| (protocol.key(), Named::new(shards))).collect();
        Self { made_for, general: Named::new(&config.general), executions, config }
    }

    pub(crate) fn executions(&self) -> &Arc<Executions> {
        &self.executions
    }

    pub(crate) fn demand(&self, context: &DecisionContext<'_>) -> ProtocolDemand<'_> {
        let made_for_it = self.made_for.get(&context.request.protocol.key()).unwrap_or(&self.general);
        ProtocolDemand { made_for_it, general: &self.general, max_load: self.config.max_load }
    }

    fn parts(&self, context: &DecisionContext<'_>, shard: &ShardSnapshot) -> Parts {
        let (config, weights) = (&self.config, &self.config.weights);
        let record = self.executions.record(combine_keys(context.request.protocol.key(), shard.id.key()));
        [
            ("load", weights.load * (1.0 - load(shard).unwrap_or(1.0))),
            ("affinity", weights.affinity * record.affinity(&config.executions)),
            ("latency", weights.latency * latency_score(shard, config.latency_scale_ms)),
        ]
        .into_iter()
        .collect()
    }
}

impl Default for ProtocolStrategy {
    fn default() -> Self {
        Self::new(ProtocolConfig::default())
    }
}

impl Strategy for ProtocolStrategy {
    fn decided_by(&self) -> DecidedBy {
        DecidedBy::ProtocolStrategy
    }

    fn rank(&self, context: &DecisionContext<'_>, eligible: &[usize], out: &mut Ranking) {
        out.fill(&context.fleet.shards, eligible, &self.demand(context), |shard| self.parts(context, shard));
    }

    fn on_response(&self, observed: &Observed<'_>) {
        let key = combine_keys(observed.request.protocol.key(), observed.shard.key());
        self.executions.learn(key, observed.response);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AsPolicy;
    use crate::samples::{decide, named_fleet, respond};
    use shardwise_types::ErrorClass;

    #[test]
    fn a_protocol_goes_to_the_emptier_of_its_shards() {
        let mut golden =
            named_fleet(&[("shard-dex-general", 0.5), ("shard-general", 0.0), ("shard-uniswap-primary", 0.4)]);
        assert_eq!(decide(&mut AsPolicy::new(ProtocolStrategy::default()), &golden), "shard-uniswap-primary");
        golden.request.protocol = "unheard-of".into();
        assert_eq!(decide(&mut AsPolicy::new(ProtocolStrategy::default()), &golden), "shard-general");
    }

    #[test]
    fn affinity_outweighs_a_little_load() {
        let golden = named_fleet(&[("shard-dex-general", 0.5), ("shard-uniswap-primary", 0.4)]);
        let mut strategy = AsPolicy::new(ProtocolStrategy::default());
        (0..10).for_each(|_| respond(&mut strategy, &golden, 1, Some(ErrorClass::Failed)));
        assert_eq!(decide(&mut strategy, &golden), "shard-dex-general", "0.15 for unknown against 0");
    }

    #[test]
    fn an_idle_shard_is_not_full_and_a_full_one_is_left() {
        let mut golden =
            named_fleet(&[("shard-dex-general", 0.8), ("shard-general", 0.95), ("shard-uniswap-primary", 0.0)]);
        assert_eq!(decide(&mut AsPolicy::new(ProtocolStrategy::default()), &golden), "shard-uniswap-primary");
        golden.fleet.shards[2].report.as_mut().unwrap().cpu = 0.8;
        assert_eq!(decide(&mut AsPolicy::new(ProtocolStrategy::default()), &golden), "shard-general", "0.8 is full");
        golden.fleet.shards[1].report.as_mut().unwrap().healthy = false;
        golden.fleet.shards[0].report.as_mut().unwrap().cpu = 0.85;
        assert_eq!(
            decide(&mut AsPolicy::new(ProtocolStrategy::default()), &golden),
            "shard-uniswap-primary",
            "least loaded of all"
        );
    }
}
