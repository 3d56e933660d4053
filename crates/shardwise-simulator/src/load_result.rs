//! What a load test amounts to: one sample per event in, the specification's result out.
//!
//! Latency counts from the moment at which an event was *meant* to be sent, so that a stall shows in all events that
//! waited behind it; failures are counted apart and their times are no latencies. It sends nothing and reads no clock.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shardwise_types::ShardId;

use crate::load_events::LoadScenario;
use crate::summary::{mean, percentiles, share};

/// A shard is slow when its p99 is this many times that of the median shard.
const SLOW_FACTOR: f64 = 3.0;
/// A shard is failing when it fails more than this share.
const FAILING_SHARE: f64 = 0.05;
/// Failures of a kind are worth a word when they are more than this share of all events.
const NOTABLE_SHARE: f64 = 0.001;
/// Fewer requests than this say nothing about a shard.
const LEAST_REQUESTS: u64 = 50;
/// The driver is late when one event in a hundred left later than this, in ms.
const LATE_MS: f64 = 10.0;

/// The failure of an event that never left the driver: all requests that may be on their way at once were, until it was too late.
pub const NOT_SENT: &str = "not sent";

/// What became of one event.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadSample {
    /// When it was meant to be sent, in ms since the first event.
    pub intended_ms: f64,
    /// How much later it left the driver, in ms.
    pub late_ms: f64,
    /// From the intended moment to the answer or the failure, in ms.
    pub latency_ms: f64,
    /// Where it went, as far as is known.
    pub shard: Option<ShardId>,
    /// Why it failed, such as `timeout` or `http 500`; `None` when it succeeded.
    pub failure: Option<String>,
}

/// What was run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadRun {
    /// The scenario.
    pub scenario: LoadScenario,
    /// `sim`, or the address of the server.
    pub target: String,
    /// The policy, when it is known.
    pub policy: Option<String>,
    /// Seed of the events.
    pub seed: u64,
}

/// The result of a load test; times are in ms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadResult {
    /// The scenario.
    pub scenario: LoadScenario,
    /// `sim`, or the address of the server.
    pub target: String,
    /// The policy, when it is known.
    pub policy: Option<String>,
    /// Seed of the events.
    pub seed: u64,
    /// Events that were to be sent.
    pub total_events: u64,
    /// Those that never left the driver; they have failed.
    pub not_sent: u64,
    /// Most events that were on their way at once.
    pub most_in_flight: u64,
    /// From the first event to the last answer or failure.
    pub total_duration: f64,
    /// Share of events that succeeded.
    pub success_rate: f64,
    /// Mean latency of the events that succeeded; `None` when none did.
    pub avg_latency: Option<f64>,
    /// Percentiles of the same.
    pub latency: Option<LatencyPercentiles>,
    /// Events that failed, by reason.
    pub failures: BTreeMap<String, u64>,
    /// How late the driver itself was.
    pub lateness: Lateness,
    /// The events of each second, by the moment at which they were meant to be sent, up to the last one's.
    pub by_second: Vec<LoadSecond>,
    /// Where events went.
    pub shard_distribution: ShardDistribution,
    /// Shards that held the test up, by shard.
    pub bottlenecks: Vec<Bottleneck>,
    /// What to do, most pressing first.
    pub recommendations: Vec<String>,
}

/// Nearest-rank percentiles in ms.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LatencyPercentiles {
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

/// How much later than intended events left the driver, in ms.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Lateness {
    /// Mean.
    pub mean: f64,
    /// 99th percentile.
    pub p99: f64,
    /// The most.
    pub max: f64,
}

/// One second of a load test.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadSecond {
    /// Events that were to be sent.
    pub events: u64,
    /// Median latency of those that succeeded, in ms; `None` without any.
    pub p50_ms: Option<f64>,
    /// 99th percentile of the same, in ms.
    pub p99_ms: Option<f64>,
    /// Those that failed, by reason.
    pub failures: BTreeMap<String, u64>,
}

/// Where events went.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardDistribution {
    /// By shard; a shard that got nothing is not there.
    pub by_shard_id: BTreeMap<ShardId, ShardLoad>,
}

/// What one shard got.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardLoad {
    /// Events that went there, failed ones included.
    pub requests: u64,
    /// Their share of the events that went anywhere.
    pub share: f64,
    /// Mean latency of those that succeeded, in ms; `None` without any.
    pub mean_ms: Option<f64>,
    /// 99th percentile of the same, in ms.
    pub p99_ms: Option<f64>,
    /// Those that failed.
    pub failures: u64,
}

/// A shard that held the test up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bottleneck {
    /// The shard.
    pub shard_id: ShardId,
    /// In which way.
    pub kind: BottleneckKind,
    /// The figures behind it.
    pub detail: String,
}

/// How a shard holds a test up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BottleneckKind {
    /// Its p99 is three times that of the median shard.
    Slow,
    /// It fails more than 5 %.
    Failing,
}

/// A load test without events has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("0 events were sent, so there is nothing to measure; ask for at least one")]
pub struct NoSamples;

impl LoadResult {
    /// Sums up a run.
    ///
    /// # Errors
    /// Without any sample.
    pub fn new(run: LoadRun, samples: &[LoadSample]) -> Result<Self, NoSamples> {
        if samples.is_empty() {
            return Err(NoSamples);
        }
        let mut good = Latencies::default();
        let mut failures = BTreeMap::new();
        for sample in samples {
            match &sample.failure {
                None => good.0.push(sample.latency_ms as f32),
                Some(reason) => *failures.entry(reason.clone()).or_default() += 1,
            }
        }
        let succeeded = good.0.len() as u64;
        let by_shard_id = by_shard(samples);
        let bottlenecks = bottlenecks(&by_shard_id);
        let mut result = Self {
            scenario: run.scenario,
            target: run.target,
            policy: run.policy,
            seed: run.seed,
            total_events: samples.len() as u64,
            not_sent: failures.get(NOT_SENT).copied().unwrap_or(0),
            most_in_flight: most_in_flight(samples),
            total_duration: samples.iter().map(|sample| sample.intended_ms + sample.latency_ms).fold(0.0, f64::max),
            success_rate: share(succeeded, samples.len() as u64),
            avg_latency: good.mean(),
            latency: good.percentiles(),
            failures,
            lateness: lateness(samples),
            by_second: by_second(samples),
            shard_distribution: ShardDistribution { by_shard_id },
            bottlenecks,
            recommendations: Vec::new(),
        };
        result.recommendations = recommendations(&result);
        Ok(result)
    }
}

/// Latencies in ms of events that succeeded.
#[derive(Default)]
struct Latencies(Vec<f32>);

impl Latencies {
    fn mean(&self) -> Option<f64> {
        (!self.0.is_empty()).then(|| mean(&self.0))
    }

    fn percentiles(&mut self) -> Option<LatencyPercentiles> {
        let [max, p999, p99, p90, p50] = percentiles(&mut self.0, [1.0, 0.999, 0.99, 0.9, 0.5]);
        (!self.0.is_empty()).then_some(LatencyPercentiles { p50, p90, p99, p999, max })
    }
}

fn lateness(samples: &[LoadSample]) -> Lateness {
    let mut late_ms: Vec<f32> = samples.iter().map(|sample| sample.late_ms as f32).collect();
    let mean = mean(&late_ms);
    let [max, p99] = percentiles(&mut late_ms, [1.0, 0.99]);
    Lateness { mean, p99, max }
}

/// The most that were on their way at once; an answer makes room for an event of the same moment.
fn most_in_flight(samples: &[LoadSample]) -> u64 {
    let sent = samples.iter().filter(|sample| sample.failure.as_deref() != Some(NOT_SENT));
    let moments = |sample: &LoadSample| {
        [(sample.intended_ms + sample.late_ms, 1_i64), (sample.intended_ms + sample.latency_ms, -1)]
    };
    let mut moments: Vec<(f64, i64)> = sent.flat_map(moments).collect();
    moments.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let (mut in_flight, mut most) = (0, 0);
    for (_, change) in moments {
        in_flight += change;
        most = most.max(in_flight);
    }
    most.unsigned_abs()
}

fn by_second(samples: &[LoadSample]) -> Vec<LoadSecond> {
    let mut seconds: Vec<(LoadSecond, Latencies)> = Vec::new();
    for sample in samples {
        let second = (sample.intended_ms / 1e3) as usize;
        if seconds.len() <= second {
            seconds.resize_with(second + 1, Default::default);
        }
        let (counts, good) = &mut seconds[second];
        counts.events += 1;
        match &sample.failure {
            None => good.0.push(sample.latency_ms as f32),
            Some(reason) => *counts.failures.entry(reason.clone()).or_default() += 1,
        }
    }
    let done = |(counts, mut good): (LoadSecond, Latencies)| {
        let latency = good.percentiles();
        LoadSecond { p50_ms: latency.map(|latency| latency.p50), p99_ms: latency.map(|latency| latency.p99), ..counts }
    };
    seconds.into_iter().map(done).collect()
}

fn by_shard(samples: &[LoadSample]) -> BTreeMap<ShardId, ShardLoad> {
    let mut shards: BTreeMap<&ShardId, (u64, Latencies)> = BTreeMap::new();
    for sample in samples {
        let Some(shard) = &sample.shard else { continue };
        let (requests, good) = shards.entry(shard).or_default();
        *requests += 1;
        if sample.failure.is_none() {
            good.0.push(sample.latency_ms as f32);
        }
    }
    let placed: u64 = shards.values().map(|(requests, _)| requests).sum();
    let load = |(shard, (requests, mut good)): (&ShardId, (u64, Latencies))| {
        let load = ShardLoad {
            requests,
            share: share(requests, placed),
            mean_ms: good.mean(),
            p99_ms: good.percentiles().map(|latency| latency.p99),
            failures: requests - good.0.len() as u64,
        };
        (shard.clone(), load)
    };
    shards.into_iter().map(load).collect()
}

fn bottlenecks(by_shard: &BTreeMap<ShardId, ShardLoad>) -> Vec<Bottleneck> {
    let mut p99s: Vec<f32> = by_shard.values().filter_map(|load| load.p99_ms).map(|ms| ms as f32).collect();
    let [median_ms] = percentiles(&mut p99s, [0.5]);
    let mut found = Vec::new();
    for (shard, load) in by_shard.iter().filter(|(_, load)| load.requests >= LEAST_REQUESTS) {
        let mut add = |kind, detail| found.push(Bottleneck { shard_id: shard.clone(), kind, detail });
        if let Some(p99_ms) = load.p99_ms.filter(|ms| *ms > SLOW_FACTOR * median_ms) {
            add(BottleneckKind::Slow, format!("p99 {p99_ms:.1} ms where the median shard has {median_ms:.1} ms"));
        }
        if share(load.failures, load.requests) > FAILING_SHARE {
            add(BottleneckKind::Failing, format!("{} of {} requests failed", load.failures, load.requests));
        }
    }
    found
}

fn recommendations(result: &LoadResult) -> Vec<String> {
    let mut advice = Vec::new();
    if result.lateness.p99 > LATE_MS {
        advice.push(format!(
            "the driver itself sent events {:.0} ms late (p99): raise its concurrency or lower the rate, else the \
             latencies hold the driver's own queue",
            result.lateness.p99
        ));
    }
    let notable = |(_, events): &(&String, &u64)| share(**events, result.total_events) > NOTABLE_SHARE;
    for (reason, events) in result.failures.iter().filter(notable) {
        let why = match reason.as_str() {
            "refused" => "no shard may take them: look at the limits of amounts, regions and memory",
            NOT_SENT => "the driver may have too few on their way at once: raise its concurrency, or lower the rate",
            "timeout" | "dropped" => "queues are too long: add cores where they went, or lower the rate",
            _ => "look at the shards and servers that failed",
        };
        advice.push(format!("{events} of {} events ended as '{reason}'; {why}", result.total_events));
    }
    advice.extend(result.bottlenecks.iter().map(|bottleneck| match bottleneck.kind {
        BottleneckKind::Slow => {
            format!("give {} more cores or less traffic: {}", bottleneck.shard_id, bottleneck.detail)
        }
        BottleneckKind::Failing => format!("repair {} or take it out: {}", bottleneck.shard_id, bottleneck.detail),
    }));
    advice
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> LoadRun {
        LoadRun { scenario: LoadScenario::ArbitrageSurge, target: "sim".to_owned(), policy: None, seed: 1 }
    }

    fn sample(index: usize, shard: &str, latency_ms: f64, failure: Option<&str>) -> LoadSample {
        LoadSample {
            intended_ms: index as f64,
            late_ms: 0.0,
            latency_ms,
            shard: Some(shard.into()),
            failure: failure.map(str::to_owned),
        }
    }

    #[test]
    fn failures_are_counted_and_their_times_are_no_latencies() {
        let samples =
            [sample(0, "a", 10.0, None), sample(1, "a", 3_000.0, Some("timeout")), sample(2, "b", 20.0, None)];
        let result = LoadResult::new(run(), &samples).unwrap();
        assert_eq!((result.avg_latency, result.success_rate), (Some(15.0), 2.0 / 3.0));
        assert_eq!(result.latency.unwrap().max, 20.0);
        assert_eq!((result.failures["timeout"], result.total_duration), (1, 3_001.0));
        let shards = &result.shard_distribution.by_shard_id;
        assert_eq!((shards["a"].requests, shards["a"].failures, shards["b"].share), (2, 1, 1.0 / 3.0));
        let json = serde_json::to_value(&result).unwrap();
        assert_eq!(json["shardDistribution"]["byShardId"]["a"]["p99Ms"], 10.0);
        assert_eq!(serde_json::from_value::<LoadResult>(json).unwrap(), result);
    }

    #[test]
    fn nothing_sent_and_nothing_answered_are_not_zero_latency() {
        let error = LoadResult::new(run(), &[]).unwrap_err();
        assert!(error.to_string().contains("0 events"), "{error}");
        let result = LoadResult::new(run(), &[sample(0, "a", 3_000.0, Some("timeout"))]).unwrap();
        assert_eq!((result.avg_latency, result.latency, result.success_rate), (None, None, 0.0));
    }

    #[test]
    fn seconds_are_told_apart_and_what_is_under_way_is_counted() {
        let at = |intended_ms: f64, late_ms: f64, latency_ms: f64, failure: Option<&str>| LoadSample {
            intended_ms,
            late_ms,
            ..sample(0, "a", latency_ms, failure)
        };
        let samples = [
            at(0.0, 0.0, 100.0, None),
            at(50.0, 50.0, 60.0, None),
            at(60.0, 0.0, 40.0, Some("http 503 overloaded")),
            at(70.0, 900.0, 900.0, Some(NOT_SENT)),
            at(2_500.0, 0.0, 7.0, None),
        ];
        let result = LoadResult::new(run(), &samples).unwrap();
        // The third ends and the second leaves when the first is answered.
        assert_eq!((result.most_in_flight, result.not_sent), (2, 1));
        let events: Vec<u64> = result.by_second.iter().map(|second| second.events).collect();
        assert_eq!(events, [4, 0, 1]);
        let p99s: Vec<Option<f64>> = result.by_second.iter().map(|second| second.p99_ms).collect();
        assert_eq!(p99s, [Some(100.0), None, Some(7.0)]);
        assert_eq!(result.by_second[0].failures, result.failures);
        assert!(result.recommendations[2].contains("too few"), "{:?}", result.recommendations);
    }

    #[test]
    fn slow_and_failing_shards_are_named() {
        let mut samples = Vec::new();
        for index in 0..100 {
            samples.push(sample(index, "a", 10.0, None));
            samples.push(sample(index, "b", 12.0, (index < 10).then_some("failed")));
            samples.push(sample(index, "c", 100.0, None));
        }
        let result = LoadResult::new(run(), &samples).unwrap();
        let found: Vec<(&str, BottleneckKind)> =
            result.bottlenecks.iter().map(|bottleneck| (bottleneck.shard_id.as_str(), bottleneck.kind)).collect();
        assert_eq!(found, [("b", BottleneckKind::Failing), ("c", BottleneckKind::Slow)]);
        assert_eq!(result.recommendations.len(), 3, "{:?}", result.recommendations);
    }
}
