//! S5 of the specification: shards whose free cores and memory cover what a function needs, scored by what is left.
//!
//! Ladder: a shard that fits, the overflow shard, the least loaded of all.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shardwise_features::DecisionContext;
use shardwise_types::{
    Confidence, DecidedBy, FunctionId, PlacementRequest, Priority, ShardId, ShardSnapshot, Widening, combine_keys,
};

use crate::executions::{AffinityConfig, Executions, Record};
use crate::quantity::Quantity;
use crate::ranking::{Demand, Parts, Ranking, Rejection, Rung, latency_ms, load};
use crate::{Mode, Observed, Strategy};

/// What a function needs of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Requirements {
    /// Cores.
    pub cpu: Quantity,
    /// Memory in bytes; `None` is what the request says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
}

impl Default for Requirements {
    /// Half a core, and the memory that the request says.
    fn default() -> Self {
        Self { cpu: "500m".parse().expect("a quantity"), memory: None }
    }
}

/// What counts for [`ResourceMatcher`]; the weights add up to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResourceWeights {
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
}

impl Default for ResourceWeights {
    /// The specification's; what a priority is worth, which it leaves open, is ours.
    fn default() -> Self {
        Self { cpu: 0.25, memory: 0.25, load: 0.2, priority: 0.15, affinity: 0.15 }
    }
}

/// Requirements, weights and the way out of [`ResourceMatcher`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResourceConfig {
    /// What the matcher is used for.
    pub mode: Mode,
    /// Where to go when nothing fits.
    pub overflow: ShardId,
    /// Success probability of a function that never ran on a shard, in [0, 1].
    pub success_prior: f64,
    /// Executions that the prior counts for.
    pub success_prior_weight: f64,
    /// What functions need; the default for those that are not listed.
    pub functions: BTreeMap<FunctionId, Requirements>,
    /// What other functions need.
    pub others: Requirements,
    /// What counts.
    pub weights: ResourceWeights,
    /// How affinity is made.
    pub executions: AffinityConfig,
}

impl Default for ResourceConfig {
    /// The specification's, with its constant probability of success as the prior; the prior's weight is ours.
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            overflow: "shard-overflow".into(),
            success_prior: 0.95,
            success_prior_weight: 10.0,
            functions: BTreeMap::new(),
            others: Requirements::default(),
            weights: ResourceWeights::default(),
            executions: AffinityConfig::default(),
        }
    }
}

/// By free resources.
pub struct ResourceMatcher {
    config: ResourceConfig,
    executions: Arc<Executions>,
}

/// What becomes of a request on a shard, and of the shard.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ResourcePlacement {
    /// The shard's reported mean latency in ms, when known.
    pub expected_latency_ms: Option<f64>,
    /// Share of the cores in use with the request; above 1 when they do not suffice, `None` when unknown.
    pub cpu_after: Option<f64>,
    /// Share of the memory in use with the request, likewise.
    pub memory_after: Option<f64>,
    /// Share of the function's executions on the shard that succeeded, drawn toward the prior while there are few.
    pub success_probability: Confidence,
    /// Why it is a makeshift: what the shard has too little of. `None` when the request fits.
    pub degraded: Option<Rejection>,
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

    /// What there is too little of, if anything.
    fn lack(&self) -> Option<Rejection> {
        if self.free_cores.is_nan() || self.free_mb.is_nan() {
            Some(Rejection::UnknownLoad)
        } else if self.free_cores < self.required_cores {
            Some(Rejection::CpuTooSmall)
        } else {
            (self.free_mb < self.required_mb).then_some(Rejection::MemoryTooSmall)
        }
    }

    /// What is left of the free cores, in [0, 1]; 0 when none is free.
    fn cpu_score(&self) -> f64 {
        if self.free_cores > 0.0 { (self.free_cores - self.required_cores) / self.free_cores } else { 0.0 }
    }
}

/// What it demands for one request.
pub(crate) struct ResourceDemand<'a> {
    requirements: &'a Requirements,
    request: &'a PlacementRequest,
    overflow: &'a ShardId,
}

impl Demand for ResourceDemand<'_> {
    fn judge(&self, shard: &ShardSnapshot) -> Result<(), (Rejection, Rung)> {
        let Some(why) = Fit::of(self.requirements, self.request, shard).lack() else { return Ok(()) };
        let wider = if shard.id == *self.overflow { Widening::General } else { Widening::AnyHealthy };
        Err((why, Rung::new(wider, 0)))
    }
}

impl ResourceMatcher {
    /// With its configuration.
    pub fn new(config: ResourceConfig) -> Self {
        let executions = Arc::new(Executions::new(config.executions.window));
        Self::with_executions(config, executions)
    }

    /// With what another one has learned.
    pub(crate) fn with_executions(config: ResourceConfig, executions: Arc<Executions>) -> Self {
        Self { config, executions }
    }

    /// What becomes of the request on a shard, and of the shard.
    pub fn place(&self, request: &PlacementRequest, shard: &ShardSnapshot) -> ResourcePlacement {
        let (config, fit) = (&self.config, self.fit(request, shard));
        let after = |free: f64, required: f64, all: f32| {
            Some(1.0 - (free - required) / f64::from(all)).filter(|share| share.is_finite())
        };
        let success = self.record(request, shard).success_rate(config.success_prior, config.success_prior_weight);
        ResourcePlacement {
            expected_latency_ms: latency_ms(shard),
            cpu_after: after(fit.free_cores, fit.required_cores, shard.shape.cores),
            memory_after: after(fit.free_mb, fit.required_mb, shard.shape.memory_mb),
            success_probability: Confidence::clamped(success),
            degraded: fit.lack(),
        }
    }

    pub(crate) fn executions(&self) -> &Arc<Executions> {
        &self.executions
    }

    pub(crate) fn demand<'a>(&'a self, context: &DecisionContext<'a>) -> ResourceDemand<'a> {
        let request = context.request;
        ResourceDemand { requirements: self.requirements(request), request, overflow: &self.config.overflow }
    }

    fn requirements(&self, request: &PlacementRequest) -> &Requirements {
        self.config.functions.get(&request.function).unwrap_or(&self.config.others)
    }

    fn fit(&self, request: &PlacementRequest, shard: &ShardSnapshot) -> Fit {
        Fit::of(self.requirements(request), request, shard)
    }

    fn record(&self, request: &PlacementRequest, shard: &ShardSnapshot) -> Record {
        self.executions.record(combine_keys(request.function.key(), shard.id.key()))
    }

    fn parts(&self, request: &PlacementRequest, shard: &ShardSnapshot) -> Parts {
        let (weights, fit) = (&self.config.weights, self.fit(request, shard));
        let load = load(shard).unwrap_or(1.0);
        let priority = f64::from(request.priority.rank()) / f64::from(Priority::Critical.rank());
        let affinity = self.record(request, shard).affinity(&self.config.executions);
        Parts::from([
            ("cpu", weights.cpu * fit.cpu_score()),
            ("memory", weights.memory * (fit.free_mb - fit.required_mb) / f64::from(shard.shape.memory_mb)),
            ("load", weights.load * (1.0 - load)),
            ("priority", weights.priority * (1.0 - load * priority)),
            ("affinity", weights.affinity * affinity),
        ])
    }
}

impl Default for ResourceMatcher {
    fn default() -> Self {
        Self::new(ResourceConfig::default())
    }
}

impl Strategy for ResourceMatcher {
    fn decided_by(&self) -> DecidedBy {
        DecidedBy::ResourceMatcher
    }

    fn rank(&self, context: &DecisionContext<'_>, eligible: &[usize], out: &mut Ranking) {
        out.fill(&context.fleet.shards, eligible, &self.demand(context), |shard| self.parts(context.request, shard));
    }

    fn on_response(&self, observed: &Observed<'_>) {
        let key = combine_keys(observed.request.function.key(), observed.shard.key());
        self.executions.learn(key, observed.response);
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

    /// Alike but for what is used: 2 cores and 8,192 MB each.
    fn fleet(cpus: [f32; 3]) -> GoldenContext {
        let mut golden = named_fleet(&[("shard-a", cpus[0]), ("shard-b", cpus[1]), ("shard-overflow", cpus[2])]);
        for shard in &mut golden.fleet.shards {
            (shard.shape.cores, shard.shape.memory_mb) = (2.0, 8_192.0);
        }
        golden
    }

    fn needing(cpu: &str, memory: &str) -> AsPolicy<ResourceMatcher> {
        let others = Requirements { cpu: cpu.parse().unwrap(), memory: Some(memory.parse().unwrap()) };
        AsPolicy::new(ResourceMatcher::new(ResourceConfig { others, ..ResourceConfig::default() }))
    }

    #[test]
    fn the_shard_with_the_most_left_is_taken() {
        let golden = fleet([0.4, 0.2, 0.9]);
        assert_eq!(decide(&mut AsPolicy::new(ResourceMatcher::default()), &golden), "shard-b");
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

    #[test]
    fn a_placement_says_what_becomes_of_it() {
        let golden = fleet([0.5, 0.0, 0.75]);
        let mut matcher = needing("1", "2Gi");
        let place = |matcher: &AsPolicy<ResourceMatcher>, position: usize| {
            matcher.strategy().place(&golden.request, &golden.fleet.shards[position])
        };
        let fits = place(&matcher, 1);
        assert_eq!((fits.cpu_after, fits.memory_after, fits.degraded), (Some(0.5), Some(0.25), None));
        assert_eq!(fits.success_probability.value(), 0.95, "nothing is known");
        let overflows = place(&matcher, 2);
        assert_eq!((overflows.cpu_after, overflows.degraded), (Some(1.25), Some(Rejection::CpuTooSmall)));
        (0..10).for_each(|_| respond(&mut matcher, &golden, 1, Some(ErrorClass::Failed)));
        assert_eq!(place(&matcher, 1).success_probability.value(), 0.475, "ten failures weigh as much as the prior");
        assert_eq!(place(&matcher, 0).success_probability.value(), 0.95, "success is of the shard");
    }
}
