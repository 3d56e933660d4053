//! S5 of the specification: shards whose free cores and memory cover what a function needs, scored by what is left.
//!
//! Ladder: a shard that fits, the overflow shard, the least loaded of all.

use std::collections::BTreeMap;

use rand::Rng;
use shardwise_features::DecisionContext;
use shardwise_types::{FunctionId, NoEligibleShard, PlacementRequest, Priority, ShardId, ShardSnapshot, combine_keys};

use crate::executions::{AffinityConfig, Executions};
use crate::quantity::Quantity;
use crate::shortlist::{Shortlist, latency_ms, load};
use crate::{Decision, Observed, Policy};

/// What a function needs of a shard.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Requirements {
    /// Cores.
    pub cpu: Quantity,
    /// Memory in bytes; `None` is what the request says.
    pub memory: Option<Quantity>,
}

impl Default for Requirements {
    /// Half a core, and the memory that the request says.
    fn default() -> Self {
        Self { cpu: "500m".parse().expect("a quantity"), memory: None }
    }
}

/// Requirements, weights and the way out of [`ResourceMatcher`].
#[derive(Debug, Clone, PartialEq)]
pub struct ResourceConfig {
    /// What functions need; the default for those that are not listed.
    pub functions: BTreeMap<FunctionId, Requirements>,
    /// What other functions need.
    pub others: Requirements,
    /// Weight of (free − required) / free cores.
    pub cpu: f64,
    /// Weight of (free − required) / all memory.
    pub memory: f64,
    /// Weight of 1 − load.
    pub load: f64,
    /// Weight of 1 − load × priority: load matters the more, the higher the priority.
    pub priority: f64,
    /// Weight of the affinity of function and shard.
    pub affinity: f64,
    /// Where to go when nothing fits.
    pub overflow: ShardId,
    /// How affinity is made.
    pub executions: AffinityConfig,
}

impl Default for ResourceConfig {
    /// The specification's; what a priority is worth, which it leaves open, is ours.
    fn default() -> Self {
        Self {
            functions: BTreeMap::new(),
            others: Requirements::default(),
            cpu: 0.25,
            memory: 0.25,
            load: 0.2,
            priority: 0.15,
            affinity: 0.15,
            overflow: "shard-overflow".into(),
            executions: AffinityConfig::default(),
        }
    }
}

/// By free resources.
pub struct ResourceMatcher {
    config: ResourceConfig,
    executions: Executions,
    shortlist: Shortlist,
}

/// Free and required resources of a candidate.
struct Fit {
    free_cores: f64,
    required_cores: f64,
    free_mb: f64,
    required_mb: f64,
}

impl Fit {
    fn of(requirements: &Requirements, request: &PlacementRequest, shard: &ShardSnapshot) -> Self {
        let free = |used: Option<f32>| 1.0 - used.map_or(f64::NAN, f64::from);
        let report = shard.report.as_ref();
        Self {
            free_cores: free(report.map(|report| report.cpu)) * f64::from(shard.shape.cores),
            required_cores: requirements.cpu.value(),
            free_mb: free(report.map(|report| report.memory)) * f64::from(shard.shape.memory_mb),
            required_mb: requirements.memory.map_or(f64::from(request.memory_mb), Quantity::megabytes),
        }
    }

    fn is_enough(&self) -> bool {
        self.free_cores >= self.required_cores && self.free_mb >= self.required_mb
    }

    /// What is left of the free cores, in [0, 1]; 0 when none is free.
    fn cpu_score(&self) -> f64 {
        if self.free_cores > 0.0 { (self.free_cores - self.required_cores) / self.free_cores } else { 0.0 }
    }
}

impl ResourceMatcher {
    /// With its configuration.
    pub fn new(config: ResourceConfig) -> Self {
        Self { executions: Executions::new(config.executions), config, shortlist: Shortlist::default() }
    }

    fn score(&self, context: &DecisionContext<'_>, fit: &Fit, position: usize) -> f64 {
        let (config, request, shard) = (&self.config, context.request, &context.fleet.shards[position]);
        let load = load(shard);
        let priority = f64::from(request.priority.rank()) / f64::from(Priority::Critical.rank());
        config.cpu * fit.cpu_score()
            + config.memory * (fit.free_mb - fit.required_mb) / f64::from(shard.shape.memory_mb)
            + config.load * (1.0 - load)
            + config.priority * (1.0 - load * priority)
            + config.affinity * self.executions.affinity(combine_keys(request.function.key(), shard.id.key()))
    }
}

impl Default for ResourceMatcher {
    fn default() -> Self {
        Self::new(ResourceConfig::default())
    }
}

impl Policy for ResourceMatcher {
    fn name(&self) -> &'static str {
        "resource_matcher"
    }

    fn decide(&mut self, context: &DecisionContext<'_>, _rng: &mut dyn Rng) -> Result<Decision, NoEligibleShard> {
        self.shortlist.begin(context)?;
        let (config, request, shards) = (&self.config, context.request, &context.fleet.shards);
        let requirements = config.functions.get(&request.function).unwrap_or(&config.others);
        let fit = |position: usize| Fit::of(requirements, request, &shards[position]);
        if !self.shortlist.like_all(|position| fit(position).is_enough()) {
            self.shortlist.like(context, [&config.overflow], |_| true);
        }
        let decision = self.shortlist.decide(context, |position| self.score(context, &fit(position), position));
        let latency_ms = latency_ms(&shards[decision.chosen]);
        Ok(Decision { predicted_ms: Some(latency_ms).filter(|ms| ms.is_finite()), ..decision })
    }

    fn on_response(&mut self, observed: &Observed<'_>) {
        let key = combine_keys(observed.request.function.key(), observed.shard.key());
        self.executions.learn(key, observed.response);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{decide, named_fleet};
    use shardwise_features::golden::GoldenContext;

    /// Alike but for what is used: 2 cores and 8,192 MB each.
    fn fleet(cpus: [f32; 3]) -> GoldenContext {
        let mut golden = named_fleet(&[("shard-a", cpus[0]), ("shard-b", cpus[1]), ("shard-overflow", cpus[2])]);
        for shard in &mut golden.fleet.shards {
            (shard.shape.cores, shard.shape.memory_mb) = (2.0, 8_192.0);
        }
        golden
    }

    fn needing(cpu: &str, memory: &str) -> ResourceMatcher {
        let others = Requirements { cpu: cpu.parse().unwrap(), memory: Some(memory.parse().unwrap()) };
        ResourceMatcher::new(ResourceConfig { others, ..ResourceConfig::default() })
    }

    #[test]
    fn the_shard_with_the_most_left_is_taken() {
        let golden = fleet([0.4, 0.2, 0.9]);
        assert_eq!(decide(&mut ResourceMatcher::default(), &golden), "shard-b");
    }

    #[test]
    fn what_does_not_fit_overflows() {
        let golden = fleet([0.4, 0.5, 0.95]);
        assert_eq!(decide(&mut needing("1", "1Gi"), &golden), "shard-a");
        assert_eq!(decide(&mut needing("1500m", "1Gi"), &golden), "shard-overflow");
        assert_eq!(decide(&mut needing("1", "7Gi"), &golden), "shard-overflow", "half of 8 GiB is in use");
    }

    #[test]
    fn without_an_overflow_shard_the_least_loaded_is_taken() {
        let mut golden = fleet([0.7, 0.6, 0.0]);
        golden.fleet.shards.pop();
        assert_eq!(decide(&mut needing("1500m", "1Gi"), &golden), "shard-b");
    }

    #[test]
    fn a_full_shard_is_no_number_to_divide_by() {
        let golden = fleet([1.0, 1.0, 1.0]);
        assert_eq!(decide(&mut needing("0", "0"), &golden), "shard-a", "all alike, by name");
    }
}
