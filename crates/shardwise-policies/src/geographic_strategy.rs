//! S3 of the specification: shards of the region where the exchange stands; near before familiar before empty.
//!
//! The three are applied as an elimination, because the specification's comparison of pairs is no order and its winner
//! depends on the order of the input. Ladder: the region's shards below the load limit, those of the regions nearby,
//! the least loaded of all.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use shardwise_features::DecisionContext;
use shardwise_types::{DecidedBy, Exchange, Region, ShardId, ShardSnapshot, Urgency, Widening, combine_keys};

use crate::executions::{AffinityConfig, Executions};
use crate::ranking::{Demand, Named, Ranking, Rejection, Rung, emptiness, has_room};
use crate::{Mode, Observed, Strategy};

/// Maps and limits of [`GeographicStrategy`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GeographicConfig {
    /// What the strategy is used for.
    pub mode: Mode,
    /// The region of an exchange that is not listed.
    pub default_region: Region,
    /// A shard is full from this load on, in [0, 1].
    pub max_load: f64,
    /// Shards this much farther than the nearest are as near, in ms.
    pub latency_margin_ms: f64,
    /// Shards with this much less affinity than the most familiar are as familiar.
    pub affinity_margin: f64,
    /// The region of each exchange.
    pub exchanges: BTreeMap<Exchange, Region>,
    /// Shards of each region.
    pub shards: BTreeMap<Region, Vec<ShardId>>,
    /// Regions nearby each region: for what is critically urgent, and when the region has no shard left.
    pub nearby: BTreeMap<Region, Vec<Region>>,
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
            mode: Mode::default(),
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
    executions: Arc<Executions>,
    by_region: FxHashMap<u64, Places>,
    /// Of a region that no map names.
    nowhere: Places,
}

/// The shards of a region and of those nearby.
#[derive(Default)]
struct Places {
    there: Named,
    nearby: Named,
}

/// What it demands for one request.
pub(crate) struct GeographicDemand<'a> {
    places: &'a Places,
    max_load: f64,
    takes_nearby: bool,
}

impl Demand for GeographicDemand<'_> {
    fn judge(&self, shard: &ShardSnapshot) -> Result<(), (Rejection, Rung)> {
        let is_nearby = self.places.nearby.has(shard);
        let is_named = self.places.there.has(shard) || self.takes_nearby && is_nearby;
        let room = has_room(shard, self.max_load);
        let met = if is_named { room } else { Err(Rejection::NotInMap) };
        met.map_err(|why| {
            let wider = if is_nearby && room.is_ok() { Widening::General } else { Widening::AnyHealthy };
            (why, Rung::new(wider, 0))
        })
    }
}

impl GeographicStrategy {
    /// With its configuration.
    pub fn new(config: GeographicConfig) -> Self {
        let executions = Arc::new(Executions::new(config.executions.window));
        Self::with_executions(config, executions)
    }

    /// With what another one has learned.
    pub(crate) fn with_executions(config: GeographicConfig, executions: Arc<Executions>) -> Self {
        let shards_of = |region: &Region| config.shards.get(region).into_iter().flatten();
        let places = |region: &Region| Places {
            there: Named::new(shards_of(region)),
            nearby: Named::new(config.nearby.get(region).into_iter().flatten().flat_map(shards_of)),
        };
        let regions = config.shards.keys().chain(config.nearby.keys());
        let by_region = regions.map(|region| (region.key(), places(region))).collect();
        Self { by_region, nowhere: Places::default(), executions, config }
    }

    pub(crate) fn executions(&self) -> &Arc<Executions> {
        &self.executions
    }

    pub(crate) fn demand(&self, context: &DecisionContext<'_>) -> GeographicDemand<'_> {
        let (config, request) = (&self.config, context.request);
        let region = config.exchanges.get(&request.exchange).unwrap_or(&config.default_region);
        GeographicDemand {
            places: self.by_region.get(&region.key()).unwrap_or(&self.nowhere),
            max_load: config.max_load,
            takes_nearby: request.urgency == Urgency::Critical,
        }
    }

    fn eliminate(&self, context: &DecisionContext<'_>, out: &mut Ranking) {
        let (request, fleet) = (context.request, context.fleet);
        let exchange_region = fleet.network.exchange_region(&request.exchange);
        out.keep_within(self.config.latency_margin_ms, Rejection::TooFar, |position| {
            f64::from(fleet.network.rtt_ms(&fleet.shards[position].shape.region, exchange_region))
        });
        out.keep_within(self.config.affinity_margin, Rejection::LessFamiliar, |position| {
            let record = self.executions.record(combine_keys(request.exchange.key(), fleet.shards[position].id.key()));
            -record.affinity(&self.config.executions)
        });
    }
}

impl Default for GeographicStrategy {
    fn default() -> Self {
        Self::new(GeographicConfig::default())
    }
}

impl Strategy for GeographicStrategy {
    fn decided_by(&self) -> DecidedBy {
        DecidedBy::GeographicStrategy
    }

    fn rank(&self, context: &DecisionContext<'_>, eligible: &[usize], out: &mut Ranking) {
        out.fill(&context.fleet.shards, eligible, &self.demand(context), emptiness);
        if out.widening < Widening::AnyHealthy {
            self.eliminate(context, out);
        }
    }

    fn on_response(&self, observed: &Observed<'_>) {
        let key = combine_keys(observed.request.exchange.key(), observed.shard.key());
        self.executions.learn(key, observed.response);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AsPolicy;
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
        let mut strategy = AsPolicy::new(GeographicStrategy::default());
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
            assert_eq!(decide(&mut AsPolicy::new(GeographicStrategy::new(config)), &golden), "shard-ap-2", "{order:?}");
        }
    }

    #[test]
    fn a_full_region_spills_into_the_one_nearby_and_then_anywhere() {
        let mut golden = fleet();
        golden.fleet.shards[0].report.as_mut().unwrap().cpu = 0.9;
        golden.fleet.shards[1].report.as_mut().unwrap().cpu = 0.85;
        assert_eq!(decide(&mut AsPolicy::new(GeographicStrategy::default()), &golden), "shard-us-west-1");
        golden.fleet.shards[2].report.as_mut().unwrap().cpu = 0.95;
        assert_eq!(
            decide(&mut AsPolicy::new(GeographicStrategy::default()), &golden),
            "shard-ap-2",
            "the least loaded of all"
        );
    }
}
