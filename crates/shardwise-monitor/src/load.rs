//! How full and how well a shard is, in three figures.

use serde::{Deserialize, Serialize};
use shardwise_types::ShardReport;

/// How the overall load is made of the resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LoadFormula {
    /// The fullest of CPU, memory and queue ([`ShardReport::load`]) and of disk and business: that one makes requests
    /// wait.
    #[default]
    Bottleneck,
    /// The weighted sum of the specification, min(1, 0.6·(0.4·cpu + 0.3·memory + 0.1·disk) + 0.3·0.5·queue/1000 +
    /// 0.1·business). A shard whose CPU, memory and disk are full reads 0.48 as long as nobody waits.
    Weighted,
}

/// What a load is made of, beside the report.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct OtherResources {
    /// Share of the disk in use, in [0, 1].
    pub disk: f32,
    /// Load that the business metrics speak of, in [0, 1].
    pub business: f32,
}

impl LoadFormula {
    /// Overall load in [0, 1] of a shard with so many cores.
    pub fn load(self, report: &ShardReport, cores: f32, other: OtherResources) -> f32 {
        let OtherResources { disk, business } = other;
        let load = match self {
            Self::Bottleneck => report.load(cores).max(disk).max(business),
            Self::Weighted => {
                let system = 0.4 * report.cpu + 0.3 * report.memory + 0.1 * disk;
                0.6 * system + 0.3 * (0.5 * report.queue_len as f32 / 1000.0) + 0.1 * business
            }
        };
        load.clamp(0.0, 1.0)
    }
}

/// Load from which on a shard's health suffers.
const BUSY: f32 = 0.8;

/// Load, health and what is left of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// The formula of the load.
    pub formula: LoadFormula,
    /// Overall load in [0, 1].
    pub load: f32,
    /// 0 when the shard calls itself sick, else 1 less the worse of its error rate and its overload, which grows from 0
    /// at a load of 0.8 to 1 at a load of 1. In [0, 1].
    pub health: f32,
    /// Cores' worth of work that it could take on: (1 − load) of its cores; 0 when it calls itself sick.
    pub remaining_cores: f32,
}

impl Standing {
    /// Judges a shard with so many cores.
    pub fn of(formula: LoadFormula, report: &ShardReport, cores: f32, other: OtherResources) -> Self {
        let load = formula.load(report, cores, other);
        let overload = ((load - BUSY) / (1.0 - BUSY)).clamp(0.0, 1.0);
        let well = f32::from(u8::from(report.healthy));
        let health = well * (1.0 - report.error_rate.clamp(0.0, 1.0).max(overload));
        Self { formula, load, health, remaining_cores: well * (1.0 - load) * cores }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::test_support::report;

    #[test]
    fn the_specification_never_calls_a_full_machine_overloaded() {
        let full = ShardReport { cpu: 1.0, memory: 1.0, queue_len: 0, ..report() };
        let other = OtherResources { disk: 1.0, business: 0.0 };
        assert!((LoadFormula::Weighted.load(&full, 2.0, other) - 0.48).abs() < 1e-6);
        assert_eq!(LoadFormula::Bottleneck.load(&full, 2.0, other), 1.0);
        let busy = ShardReport { queue_len: 10_000, ..full };
        assert_eq!(LoadFormula::Weighted.load(&busy, 2.0, OtherResources { disk: 1.0, business: 1.0 }), 1.0);
    }

    #[test]
    fn any_one_full_resource_is_a_bottleneck() {
        let idle = ShardReport { cpu: 0.0, memory: 0.0, queue_len: 0, ..report() };
        let load = |report: &ShardReport, disk, business| {
            LoadFormula::default().load(report, 2.0, OtherResources { disk, business })
        };
        assert_eq!(load(&idle, 0.0, 0.0), 0.0);
        assert_eq!(load(&idle, 0.9, 0.0), 0.9);
        assert_eq!(load(&idle, 0.0, 0.7), 0.7);
        assert_eq!(load(&ShardReport { queue_len: 8, ..idle.clone() }, 0.0, 0.0), 0.5);
        assert_eq!(load(&ShardReport { memory: 0.6, ..idle }, 0.1, 0.1), 0.6);
    }

    #[test]
    fn sick_shards_have_no_health_and_nothing_left() {
        let sick = ShardReport { healthy: false, ..report() };
        let standing = Standing::of(LoadFormula::default(), &sick, 4.0, OtherResources::default());
        assert_eq!((standing.health, standing.remaining_cores), (0.0, 0.0));
        let well = ShardReport { cpu: 0.5, memory: 0.1, queue_len: 0, error_rate: 0.1, ..report() };
        let standing = Standing::of(LoadFormula::default(), &well, 4.0, OtherResources::default());
        assert_eq!((standing.load, standing.health, standing.remaining_cores), (0.5, 0.9, 2.0));
    }

    proptest! {
        #[test]
        fn all_figures_keep_their_ranges(
            (cpu, memory, queue_len, error_rate) in (0f32..=1.0, 0f32..=1.0, any::<u32>(), 0f32..=1.0),
            (disk, business, cores, healthy) in (0f32..=1.0, 0f32..=1.0, 0.1f32..128.0, any::<bool>()),
        ) {
            let report = ShardReport { cpu, memory, queue_len, error_rate, healthy, ..report() };
            for formula in [LoadFormula::Bottleneck, LoadFormula::Weighted] {
                let standing = Standing::of(formula, &report, cores, OtherResources { disk, business });
                prop_assert!((0.0..=1.0).contains(&standing.load));
                prop_assert!((0.0..=1.0).contains(&standing.health));
                prop_assert!((0.0..=cores).contains(&standing.remaining_cores));
            }
        }
    }
}
