//! S1 of the specification: protocols have shards made for them; of those it takes the emptiest that has run the
//! protocol well and quickly.
//!
//! Ladder: the protocol's shards below the load limit, the least loaded general shard, the least loaded of all.

use std::collections::BTreeMap;

use rand::Rng;
use shardwise_features::DecisionContext;
use shardwise_types::{NoEligibleShard, Protocol, ShardId, combine_keys};

use crate::executions::{AffinityConfig, Executions};
use crate::shortlist::{Shortlist, latency_score, load};
use crate::{Decision, Observed, Policy};

/// Maps, weights and limits of [`ProtocolStrategy`].
#[derive(Debug, Clone, PartialEq)]
pub struct ProtocolConfig {
    /// Shards made for a protocol.
    pub shards: BTreeMap<Protocol, Vec<ShardId>>,
    /// Shards of every other protocol, and the way out when those of a protocol are full.
    pub general: Vec<ShardId>,
    /// A shard is full from this load on, in [0, 1].
    pub max_load: f64,
    /// Weight of 1 − load.
    pub load: f64,
    /// Weight of the affinity of protocol and shard.
    pub affinity: f64,
    /// Weight of 1 − latency / scale.
    pub latency: f64,
    /// Latency that is worth nothing, in ms.
    pub latency_scale_ms: f64,
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
            shards: shards.map(|(protocol, shards)| (protocol.into(), shards.map(ShardId::from).to_vec())).into(),
            general: vec!["shard-general".into()],
            max_load: 0.8,
            load: 0.5,
            affinity: 0.3,
            latency: 0.2,
            latency_scale_ms: 1_000.0,
            executions: AffinityConfig::default(),
        }
    }
}

/// By protocol.
pub struct ProtocolStrategy {
    config: ProtocolConfig,
    executions: Executions,
    shortlist: Shortlist,
}

impl ProtocolStrategy {
    /// With its configuration.
    pub fn new(config: ProtocolConfig) -> Self {
        Self { executions: Executions::new(config.executions), config, shortlist: Shortlist::default() }
    }

    fn score(&self, context: &DecisionContext<'_>, position: usize) -> f64 {
        let (config, shard) = (&self.config, &context.fleet.shards[position]);
        let affinity = self.executions.affinity(combine_keys(context.request.protocol.key(), shard.id.key()));
        config.load * (1.0 - load(shard))
            + config.affinity * affinity
            + config.latency * latency_score(shard, config.latency_scale_ms)
    }
}

impl Default for ProtocolStrategy {
    fn default() -> Self {
        Self::new(ProtocolConfig::default())
    }
}

impl Policy for ProtocolStrategy {
    fn name(&self) -> &'static str {
        "protocol_strategy"
    }

    fn decide(&mut self, context: &DecisionContext<'_>, _rng: &mut dyn Rng) -> Result<Decision, NoEligibleShard> {
        self.shortlist.begin(context)?;
        let config = &self.config;
        let made_for_it = config.shards.get(&context.request.protocol).unwrap_or(&config.general);
        if self.shortlist.like(context, made_for_it, |shard| load(shard) < config.max_load) {
            return Ok(self.shortlist.decide(context, |position| self.score(context, position)));
        }
        self.shortlist.like(context, &config.general, |_| true);
        Ok(self.shortlist.decide(context, |position| -load(&context.fleet.shards[position])))
    }

    fn on_response(&mut self, observed: &Observed<'_>) {
        let key = combine_keys(observed.request.protocol.key(), observed.shard.key());
        self.executions.learn(key, observed.response);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{decide, named_fleet, respond};
    use shardwise_types::ErrorClass;

    #[test]
    fn a_protocol_goes_to_the_emptier_of_its_shards() {
        let mut golden =
            named_fleet(&[("shard-dex-general", 0.5), ("shard-general", 0.0), ("shard-uniswap-primary", 0.4)]);
        assert_eq!(decide(&mut ProtocolStrategy::default(), &golden), "shard-uniswap-primary");
        golden.request.protocol = "unheard-of".into();
        assert_eq!(decide(&mut ProtocolStrategy::default(), &golden), "shard-general");
    }

    #[test]
    fn affinity_outweighs_a_little_load() {
        let golden = named_fleet(&[("shard-dex-general", 0.5), ("shard-uniswap-primary", 0.4)]);
        let mut strategy = ProtocolStrategy::default();
        (0..10).for_each(|_| respond(&mut strategy, &golden, 1, Some(ErrorClass::Failed)));
        assert_eq!(decide(&mut strategy, &golden), "shard-dex-general", "0.15 for unknown against 0");
    }

    #[test]
    fn an_idle_shard_is_not_full_and_a_full_one_is_left() {
        let mut golden =
            named_fleet(&[("shard-dex-general", 0.8), ("shard-general", 0.95), ("shard-uniswap-primary", 0.0)]);
        assert_eq!(decide(&mut ProtocolStrategy::default(), &golden), "shard-uniswap-primary");
        golden.fleet.shards[2].report.as_mut().unwrap().cpu = 0.8;
        assert_eq!(decide(&mut ProtocolStrategy::default(), &golden), "shard-general", "0.8 is full");
        golden.fleet.shards[1].report.as_mut().unwrap().healthy = false;
        golden.fleet.shards[0].report.as_mut().unwrap().cpu = 0.85;
        assert_eq!(decide(&mut ProtocolStrategy::default(), &golden), "shard-uniswap-primary", "least loaded of all");
    }
}
