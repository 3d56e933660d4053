//! The figures of a closed-loop comparison as plain data, and the one table of metrics that every view reads off.

use serde::{Deserialize, Serialize};

/// Name of the policy under test.
pub const CANDIDATE: &str = "shardwise";

/// Name under which the present champion runs, when there is one.
pub const CHAMPION: &str = "champion";

/// How one policy did, on one seed or over all.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Metrics {
    /// Mean effective latency in ms.
    pub mean_ms: f64,
    /// Median effective latency in ms.
    pub p50_ms: f64,
    /// 90th percentile of the effective latency in ms.
    pub p90_ms: f64,
    /// 99th percentile of the effective latency in ms.
    pub p99_ms: f64,
    /// 99.9th percentile of the effective latency in ms.
    pub p999_ms: f64,
    /// Share of requests beyond the objective of their urgency.
    pub slo_miss: f64,
    /// Share of requests that failed, timed out or were refused.
    pub error_rate: f64,
    /// Share of all core time that was busy.
    pub core_use: f64,
    /// Share of executions for which the function had to be loaded first.
    pub cold_rate: f64,
    /// Jain's index of the shards' loads in (0, 1]; 1 is even.
    pub jain: f64,
    /// Busiest shard's load over the mean load; 1 is even.
    pub max_over_mean: f64,
}

/// How a metric is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Milliseconds.
    Millis,
    /// A share, shown in percent.
    Share,
    /// A plain number.
    Plain,
}

/// One metric: how it is called, read and judged.
#[derive(Debug)]
pub struct Metric {
    /// Its name in JSON.
    pub key: &'static str,
    /// Its name in tables.
    pub label: &'static str,
    /// How it is written.
    pub unit: Unit,
    /// Whether less is better; otherwise more is.
    pub lower_is_better: bool,
    /// Whether it is a goal; otherwise it is shown for information only.
    pub is_goal: bool,
    /// What it means, in a line.
    pub meaning: &'static str,
    /// Where it lies.
    pub read: fn(&Metrics) -> f64,
}

macro_rules! metrics {
    ($($field:ident $label:literal $unit:ident lower=$lower:literal goal=$goal:literal $meaning:literal;)*) => {
        /// All metrics in the order of the tables.
        pub const METRICS: &[Metric] = &[$(Metric {
            key: stringify!($field), label: $label, unit: Unit::$unit, lower_is_better: $lower, is_goal: $goal,
            meaning: $meaning, read: |m| m.$field,
        }),*];
    };
}

metrics! {
    mean_ms "Mean" Millis lower=true goal=true
        "Mean effective latency: from the router's dispatch to the answer. A failure or a timeout counts as the full timeout, so failing fast cannot win.";
    p50_ms "p50" Millis lower=true goal=true "Half of the requests are faster than this.";
    p90_ms "p90" Millis lower=true goal=true "Nine in ten requests are faster than this.";
    p99_ms "p99" Millis lower=true goal=true "99 in 100 requests are faster than this.";
    p999_ms "p99.9" Millis lower=true goal=true "999 in 1,000 requests are faster than this.";
    slo_miss "SLO miss" Share lower=true goal=true
        "Requests slower than the objective of their urgency: 1,000, 400, 200 and 120 ms from low to critical.";
    error_rate "Errors" Share lower=true goal=true "Requests that failed, timed out or found no eligible shard.";
    core_use "Core use" Share lower=true goal=true
        "Busy share of all core time for the same requests: less means that the fleet could carry more.";
    cold_rate "Cold starts" Share lower=true goal=true "Executions for which the function had to be loaded first.";
    jain "Jain" Plain lower=false goal=false
        "Jain's index of how even the load is, 1 is even. For information: an even load is no goal of its own.";
    max_over_mean "Max/mean" Plain lower=true goal=false
        "Load of the busiest shard over the mean load. For information only.";
}

impl Metric {
    /// The metric with this key.
    pub fn by_key(key: &str) -> Option<&'static Self> {
        METRICS.iter().find(|metric| metric.key == key)
    }

    /// Ratio of the candidate to a rival such that above 1 is worse; `None` when the rival's figure is 0 and ours is
    /// worse, so that no ratio says how much.
    pub(crate) fn harm(&self, candidate: f64, rival: f64) -> Option<f64> {
        let (worse, base) = if self.lower_is_better { (candidate, rival) } else { (rival, candidate) };
        if worse == base {
            return Some(1.0);
        }
        (base > 0.0).then(|| worse / base)
    }
}

/// One policy on one seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SeedResult {
    /// The sample path.
    pub seed: u64,
    /// Measured requests.
    pub requests: u64,
    /// The figures.
    pub metrics: Metrics,
}

/// A point of the distribution of latency.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CdfPoint {
    /// Effective latency in ms.
    pub latency_ms: f64,
    /// Share of requests that are at most this slow, in [0, 1].
    pub share: f64,
}

/// One bin of the timeline.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TimelinePoint {
    /// Start of the bin in seconds since the workload began, warm-up included.
    pub at_s: f64,
    /// 99th percentile of the effective latency in the bin in ms, averaged over the seeds.
    pub p99_ms: f64,
}

/// One policy over all seeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PolicyResult {
    /// Its name.
    pub name: String,
    /// Measured requests over all seeds.
    pub requests: u64,
    /// Every figure averaged over the seeds, which count alike. Percentiles too: those of one seed are exact, those of
    /// merged histograms would only be as fine as their buckets.
    pub pooled: Metrics,
    /// Seed by seed, in the order given.
    pub seeds: Vec<SeedResult>,
    /// The distribution of latency over all seeds' requests, rising; as fine as the simulator's histogram.
    pub cdf: Vec<CdfPoint>,
    /// p99 over time.
    pub timeline: Vec<TimelinePoint>,
}

/// The ratio of the candidate to a rival on one seed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Replicate {
    /// The sample path.
    pub seed: u64,
    /// Candidate over rival; below 1 the candidate is lower.
    pub ratio: f64,
}

/// The candidate against one rival in one metric, paired by seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Comparison {
    /// The other policy.
    pub rival: String,
    /// The metric's key, see [`METRICS`].
    pub metric: String,
    /// Geometric mean over seeds of candidate / rival.
    pub ratio: f64,
    /// Lower bound of the 95 % Student-t interval; `None` with fewer than two seeds.
    pub low: Option<f64>,
    /// Upper bound of the same.
    pub high: Option<f64>,
    /// Seeds in which the candidate is strictly lower.
    pub wins: usize,
    /// Seeds compared.
    pub seeds: usize,
    /// The seed in which the candidate does worst.
    pub worst: Replicate,
}

/// A name and its value, for what is only shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Fact {
    /// What it is.
    pub name: String,
    /// Its value with its unit.
    pub value: String,
}

impl Fact {
    /// Makes a fact.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.into() }
    }
}

/// All policies on the same sample paths.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ClosedLoop {
    /// The policy under test.
    pub candidate: String,
    /// The sample paths.
    pub seeds: Vec<u64>,
    /// What was simulated, in words.
    pub setting: Vec<Fact>,
    /// The policies in the order given.
    pub policies: Vec<PolicyResult>,
    /// The candidate against every rival, mean and p99.
    pub comparisons: Vec<Comparison>,
}

impl ClosedLoop {
    /// The figures of a policy.
    pub fn policy(&self, name: &str) -> Option<&PolicyResult> {
        self.policies.iter().find(|policy| policy.name == name)
    }

    /// The rivals in the order given.
    pub fn rivals(&self) -> impl Iterator<Item = &PolicyResult> {
        self.policies.iter().filter(|policy| policy.name != self.candidate)
    }

    /// The candidate against a rival in a metric.
    pub fn comparison(&self, rival: &str, metric: &str) -> Option<&Comparison> {
        self.comparisons.iter().find(|c| c.rival == rival && c.metric == metric)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harm_is_above_one_when_worse() {
        let [p99, jain] = ["p99_ms", "jain"].map(|key| Metric::by_key(key).unwrap());
        assert_eq!(p99.harm(30.0, 20.0), Some(1.5));
        assert_eq!(jain.harm(0.5, 1.0), Some(2.0));
        assert_eq!(p99.harm(0.0, 0.0), Some(1.0));
        assert_eq!(p99.harm(1.0, 0.0), None, "worse than nothing at all has no ratio");
    }

    #[test]
    fn metric_keys_are_the_json_names() {
        let json = serde_json::to_value(Metrics::default()).unwrap();
        let keys: Vec<&str> = METRICS.iter().map(|metric| metric.key).collect();
        assert_eq!(json.as_object().unwrap().len(), keys.len());
        assert!(keys.iter().all(|key| json.get(key).is_some()), "{keys:?}");
    }
}
