//! S3 of the specification: shards of the region where the exchange stands; near before familiar before empty.
//!
//! The three are applied as an elimination, because the specification's comparison of pairs is no order and its winner
//! depends on the order of the input. Ladder: the region's shards below the load limit, those of the regions nearby,
//! the least loaded of all.

use std::collections::BTreeMap;

use rand::Rng;
use shardwise_features::DecisionContext;
use shardwise_types::{Exchange, NoEligibleShard, Region, ShardId, ShardSnapshot, combine_keys};

use crate::executions::{AffinityConfig, Executions};
use crate::shortlist::{Shortlist, load};
use crate::{Decision, Observed, Policy};

/// Maps and limits of [`GeographicStrategy`].
#[derive(Debug, Clone, PartialEq)]
pub struct GeographicConfig {
    /// The region of each exchange.
    pub exchanges: BTreeMap<Exchange, Region>,
    /// The region of an exchange that is not listed.
    pub default_region: Region,
    /// Shards of each region.
    pub shards: BTreeMap<Region, Vec<ShardId>>,
    /// Regions nearby each region: for what is critically urgent, and when the region has no shard left.
    pub nearby: BTreeMap<Region, Vec<Region>>,
    /// A shard is full from this load on, in [0, 1].
    pub max_load: f64,
    /// Shards this much farther than the nearest are as near, in ms.
    pub latency_margin_ms: f64,
    /// Shards with this much less affinity than the most familiar are as familiar.
    pub affinity_margin: f64,
    /// How affinity of exchange and shard is made.
    pub executions: AffinityConfig,
}

impl Default for GeographicConfig {
    /// The specification's; which regions are nearby, which it leaves open, is ours.
    fn default() -> Self {
        let exchanges = [
            ("binance", "asia-pacific"),
            ("okx", "asia-pacific"),
            ("coinbase", "us-west"),
            ("kraken", "us-west"),
            ("bitstamp", "eu-central"),
        ];
        let shards = [
            ("us-east", ["shard-us-east-1", "shard-us-east-2"]),
            ("us-west", ["shard-us-west-1", "shard-us-west-2"]),
            ("eu-central", ["shard-eu-central-1", "shard-eu-central-2"]),
            ("asia-pacific", ["shard-ap-1", "shard-ap-2"]),
        ];
        let nearby: [(&str, &[&str]); 4] = [
            ("us-east", &["us-west", "eu-central"]),
            ("us-west", &["us-east"]),
            ("eu-central", &["us-east"]),
            ("asia-pacific", &["us-west"]),
        ];
        let regions = |names: &[&str]| names.iter().map(|name| Region::new(name)).collect();
        Self {
            exchanges: exchanges.map(|(exchange, region)| (exchange.into(), region.into())).into(),
            default_region: "us-east".into(),
            shards: shards.map(|(region, shards)| (region.into(), shards.map(ShardId::from).to_vec())).into(),
            nearby: nearby.map(|(region, near)| (region.into(), regions(near))).into(),
            max_load: 0.85,
            latency_margin_ms: 50.0,
            affinity_margin: 0.2,
            executions: AffinityConfig::default(),
        }
    }
}

/// By the region of the exchange.
pub struct GeographicStrategy {
    config: GeographicConfig,
    executions: Executions,
    shortlist: Shortlist,
}

impl GeographicStrategy {
    /// With its configuration.
    pub fn new(config: GeographicConfig) -> Self {
        Self { executions: Executions::new(config.executions), config, shortlist: Shortlist::default() }
    }

    fn like_regions(&mut self, context: &DecisionContext<'_>) {
        let (config, request) = (&self.config, context.request);
        let region = config.exchanges.get(&request.exchange).unwrap_or(&config.default_region);
        let has_room = |shard: &ShardSnapshot| load(shard) < config.max_load;
        let there = self.shortlist.like(context, config.shards.get(region).into_iter().flatten(), has_room);
        if !there || request.urgency == shardwise_types::Urgency::Critical {
            let nearby = config.nearby.get(region).into_iter().flatten();
            let shards = nearby.filter_map(|region| config.shards.get(region)).flatten();
            self.shortlist.like(context, shards, has_room);
        }
    }
}

impl Default for GeographicStrategy {
    fn default() -> Self {
        Self::new(GeographicConfig::default())
    }
}

impl Policy for GeographicStrategy {
    fn name(&self) -> &'static str {
        "geographic_strategy"
    }

    fn decide(&mut self, context: &DecisionContext<'_>, _rng: &mut dyn Rng) -> Result<Decision, NoEligibleShard> {
        self.shortlist.begin(context)?;
        self.like_regions(context);
        let (request, fleet) = (context.request, context.fleet);
        let exchange_region = fleet.network.exchange_region(&request.exchange);
        self.shortlist.keep_within(self.config.latency_margin_ms, |position| {
            f64::from(fleet.network.rtt_ms(&fleet.shards[position].shape.region, exchange_region))
        });
        let executions = &self.executions;
        self.shortlist.keep_within(self.config.affinity_margin, |position| {
            -executions.affinity(combine_keys(request.exchange.key(), fleet.shards[position].id.key()))
        });
        Ok(self.shortlist.decide(context, |position| -load(&fleet.shards[position])))
    }

    fn on_response(&mut self, observed: &Observed<'_>) {
        let key = combine_keys(observed.request.exchange.key(), observed.shard.key());
        self.executions.learn(key, observed.response);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{decide, named_fleet, respond};
    use shardwise_features::golden::GoldenContext;
    use shardwise_types::{ErrorClass, Urgency};

    /// Two shards of the exchange's region and one across the ocean, 110 ms away.
    fn fleet() -> GoldenContext {
        let mut golden = named_fleet(&[("shard-ap-1", 0.6), ("shard-ap-2", 0.4), ("shard-us-west-1", 0.0)]);
        let regions = ["asia-pacific", "asia-pacific", "us-west"];
        for (shard, region) in golden.fleet.shards.iter_mut().zip(regions) {
            shard.shape.region = region.into();
        }
        golden
    }

    #[test]
    fn near_before_familiar_before_empty() {
        let mut golden = fleet();
        let mut strategy = GeographicStrategy::default();
        assert_eq!(decide(&mut strategy, &golden), "shard-ap-2", "the emptier of the region");
        golden.request.urgency = Urgency::Critical;
        assert_eq!(decide(&mut strategy, &golden), "shard-ap-2", "empty, but 110 ms away");
        (0..5).for_each(|_| respond(&mut strategy, &golden, 1, Some(ErrorClass::Failed)));
        assert_eq!(decide(&mut strategy, &golden), "shard-ap-1", "unknown is more familiar than failing");
        golden.fleet.network.rtt_ms.fill(50.0);
        assert_eq!(decide(&mut strategy, &golden), "shard-us-west-1", "as near, as familiar, empty");
    }

    #[test]
    fn the_winner_does_not_depend_on_the_order_of_the_names() {
        // By pairs the first beats the second, the second the third and the third the first.
        let mut golden = fleet();
        golden.fleet.network.regions = vec!["asia-pacific".into(), "us-west".into(), "far".into()];
        golden.fleet.network.rtt_ms = vec![0.0, 40.0, 80.0, 40.0, 0.0, 40.0, 80.0, 40.0, 0.0];
        for (shard, (region, cpu)) in
            golden.fleet.shards.iter_mut().zip([("asia-pacific", 0.6), ("us-west", 0.4), ("far", 0.2)])
        {
            shard.shape.region = region.into();
            shard.report.as_mut().unwrap().cpu = cpu;
        }
        let names = ["shard-ap-1", "shard-ap-2", "shard-us-west-1"];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut config = GeographicConfig::default();
            config.shards.insert("asia-pacific".into(), order.map(|i| names[i].into()).to_vec());
            assert_eq!(decide(&mut GeographicStrategy::new(config), &golden), "shard-ap-2", "{order:?}");
        }
    }

    #[test]
    fn a_full_region_spills_into_the_one_nearby_and_then_anywhere() {
        let mut golden = fleet();
        golden.fleet.shards[0].report.as_mut().unwrap().cpu = 0.9;
        golden.fleet.shards[1].report.as_mut().unwrap().cpu = 0.85;
        assert_eq!(decide(&mut GeographicStrategy::default(), &golden), "shard-us-west-1");
        golden.fleet.shards[2].report.as_mut().unwrap().cpu = 0.95;
        assert_eq!(decide(&mut GeographicStrategy::default(), &golden), "shard-ap-2", "the least loaded of all");
    }
}
