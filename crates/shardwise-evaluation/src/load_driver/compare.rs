//! What a comparison amounts to: each router's latencies, and their ratios to one of them.
//!
//! Intervals are from a jackknife over rounds: one round is left out of both routers at a time, so that what the
//! machine did in a round, and how bursty its arrivals were, is in both and cancels.

use std::collections::BTreeMap;

use serde::Serialize;
use shardwise_simulator::Lateness;
use shardwise_types::ShardId;

use super::LoadDriverError;
use super::blocks::{Arm, LiveOptions};
use super::live::LiveSample;
use crate::statistics::ratio_interval;

/// Latencies in ms, from the moment at which a request was meant to leave. A failure counts as the timeout, or as long
/// as it took when that is longer: failing fast is no speed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LiveLatency {
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
}

/// A figure of one router over the same of the baseline; below 1 is faster.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LatencyRatio {
    /// `mean`, `p50`, `p90` or `p99`.
    pub metric: &'static str,
    /// The ratio over all rounds.
    pub ratio: f64,
    /// The 95 % interval; `None` with fewer than two rounds.
    pub bounds: Option<(f64, f64)>,
}

/// One router's result.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ArmResult {
    /// Its name.
    pub name: String,
    /// Its address.
    pub router: String,
    /// Requests that were measured.
    pub requests: u64,
    /// Those that failed, by reason.
    pub failures: BTreeMap<String, u64>,
    /// Outcomes that the router did not take, of all requests.
    pub outcomes_lost: u64,
    /// Their latencies.
    pub latency: LiveLatency,
    /// Mean time of the router's answer, in ms.
    pub decision_ms: f64,
    /// Mean execution, as shards measured it, in ms.
    pub exec_ms: f64,
    /// Mean wait in queues, as shards measured it, in ms.
    pub queue_ms: f64,
    /// Share of executions for which the function had to be loaded.
    pub cold: f64,
    /// How much later than intended its requests left, in ms: a driver that has too much to do shows here.
    pub lateness: Lateness,
    /// Requests by shard.
    pub shards: BTreeMap<ShardId, u64>,
    /// Ratios to the baseline; none for the baseline itself.
    pub ratios: Vec<LatencyRatio>,
}

/// The result of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LiveComparison {
    /// The router that the others are held against.
    pub baseline: String,
    /// Rounds, in each of which every router had one block.
    pub rounds: usize,
    /// How long a block was, in ms.
    pub block_ms: f64,
    /// The beginning of each block that is not counted, in ms.
    pub settle_ms: f64,
    /// The routers, in the order in which they were named.
    pub arms: Vec<ArmResult>,
}

type Figure = (&'static str, fn(&LiveLatency) -> f64);

const METRICS: [Figure; 4] = [
    ("mean", |latency| latency.mean),
    ("p50", |latency| latency.p50),
    ("p90", |latency| latency.p90),
    ("p99", |latency| latency.p99),
];

impl LiveComparison {
    /// Sums up the measured samples.
    pub(super) fn new(arms: &[Arm], samples: &[LiveSample], options: &LiveOptions) -> Result<Self, LoadDriverError> {
        let baseline = options.baseline(arms)?;
        let rounds = samples.iter().map(|sample| sample.round + 1).max().unwrap_or(0);
        let latencies: Vec<Rounds> =
            (0..arms.len()).map(|arm| Rounds::new(arm, rounds, samples, options.http.timeout_ms)).collect();
        let result = |(index, arm): (usize, &Arm)| {
            let ratios = match index == baseline {
                true => Vec::new(),
                false => METRICS.iter().filter_map(|m| ratio(m, &latencies[index], &latencies[baseline])).collect(),
            };
            let of_arm: Vec<&LiveSample> = samples.iter().filter(|sample| sample.arm == index).collect();
            let nothing = || LoadDriverError::Plan(format!("nothing was measured of '{}'; send more events", arm.name));
            ArmResult::new(arm, &of_arm, latencies[index].latency(None), ratios).ok_or_else(nothing)
        };
        Ok(Self {
            baseline: arms[baseline].name.clone(),
            rounds,
            block_ms: options.block_ms,
            settle_ms: options.settle_ms,
            arms: arms.iter().enumerate().map(result).collect::<Result<_, _>>()?,
        })
    }
}

impl ArmResult {
    /// `None` when nothing was measured.
    fn new(
        arm: &Arm,
        samples: &[&LiveSample],
        latency: Option<LiveLatency>,
        ratios: Vec<LatencyRatio>,
    ) -> Option<Self> {
        let measured: Vec<&LiveSample> = samples.iter().copied().filter(|sample| sample.measured).collect();
        let executions: Vec<_> = measured.iter().filter_map(|sample| sample.execution).collect();
        let mut late_ms: Vec<f64> = measured.iter().map(|sample| sample.sample.late_ms).collect();
        late_ms.sort_by(f64::total_cmp);
        Some(Self {
            name: arm.name.clone(),
            router: arm.router.clone(),
            requests: measured.len() as u64,
            failures: count(measured.iter().filter_map(|sample| sample.sample.failure.clone())),
            outcomes_lost: samples.iter().filter(|sample| sample.told == Some(false)).count() as u64,
            latency: latency?,
            decision_ms: mean(measured.iter().map(|sample| sample.decision_ms)),
            exec_ms: mean(executions.iter().map(|execution| execution.exec_ms)),
            queue_ms: mean(executions.iter().map(|execution| execution.queue_ms)),
            cold: mean(executions.iter().map(|execution| f64::from(u8::from(execution.cold)))),
            lateness: Lateness {
                mean: mean(late_ms.iter().copied()),
                p99: percentile(&late_ms, 0.99),
                max: percentile(&late_ms, 1.0),
            },
            shards: count(measured.iter().filter_map(|sample| sample.sample.shard.clone())),
            ratios,
        })
    }
}

/// Latencies of one arm by round, each round's sorted.
struct Rounds(Vec<Vec<f64>>);

impl Rounds {
    fn new(arm: usize, rounds: usize, samples: &[LiveSample], timeout_ms: f64) -> Self {
        let mut by_round = vec![Vec::new(); rounds];
        for sample in samples.iter().filter(|sample| sample.arm == arm && sample.measured) {
            let latency_ms = sample.sample.latency_ms;
            let failed = sample.sample.failure.is_some();
            by_round[sample.round].push(if failed { latency_ms.max(timeout_ms) } else { latency_ms });
        }
        Self(by_round)
    }

    /// Figures over all rounds but one; `None` when nothing is left.
    fn latency(&self, without: Option<usize>) -> Option<LiveLatency> {
        let kept = self.0.iter().enumerate().filter(|(round, _)| Some(*round) != without);
        let mut all: Vec<f64> = kept.flat_map(|(_, latencies)| latencies.iter().copied()).collect();
        all.sort_by(f64::total_cmp);
        (!all.is_empty()).then(|| LiveLatency {
            mean: mean(all.iter().copied()),
            p50: percentile(&all, 0.5),
            p90: percentile(&all, 0.9),
            p99: percentile(&all, 0.99),
        })
    }
}

/// The ratio of a figure with its jackknife interval: pseudo-values of ln ratio, one for each round, and Student's t.
fn ratio((metric, figure): &Figure, ours: &Rounds, theirs: &Rounds) -> Option<LatencyRatio> {
    let ln_ratio = |without| Some((figure(&ours.latency(without)?) / figure(&theirs.latency(without)?)).ln());
    let (all, rounds) = (ln_ratio(None)?, ours.0.len());
    let pseudo: Option<Vec<f64>> =
        (0..rounds).map(|round| Some(rounds as f64 * all - (rounds as f64 - 1.0) * ln_ratio(Some(round))?)).collect();
    let bounds = pseudo.and_then(|pseudo| ratio_interval(&pseudo)).and_then(|interval| interval.bounds);
    Some(LatencyRatio { metric, ratio: all.exp(), bounds })
}

fn count<T: Ord>(values: impl Iterator<Item = T>) -> BTreeMap<T, u64> {
    let mut counts = BTreeMap::new();
    values.for_each(|value| *counts.entry(value).or_default() += 1);
    counts
}

/// 0 of nothing.
fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len().max(1) as f64;
    values.sum::<f64>() / count
}

/// Nearest rank; 0 of nothing.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(of: impl Fn(usize, usize) -> f64) -> Rounds {
        Rounds((0..8).map(|round| (0..200).map(|n| of(round, n)).collect()).collect())
    }

    #[test]
    fn what_a_round_does_to_both_cancels() {
        // Rounds differ by up to 8 times; in each, one arm takes 0.8 times as long as the other.
        let theirs = rounds(|round, n| (round + 1) as f64 * (10.0 + (n % 50) as f64));
        let ours = rounds(|round, n| 0.8 * (round + 1) as f64 * (10.0 + (n % 50) as f64));
        for metric in &METRICS {
            let found = ratio(metric, &ours, &theirs).unwrap();
            let (low, high) = found.bounds.unwrap();
            assert!((found.ratio - 0.8).abs() < 1e-9 && high - low < 1e-6, "{found:?}");
        }
    }

    #[test]
    fn an_interval_covers_what_it_should_about_as_often_as_it_says() {
        use rand::{RngExt, SeedableRng};
        let mut rng = rand::rngs::StdRng::seed_from_u64(7);
        let mut draw = |scale: f64| {
            let by_round = (0..12).map(|_| (0..100).map(|_| -scale * rng.random::<f64>().ln()).collect());
            Rounds(by_round.collect())
        };
        let covered = (0..400).filter(|_| {
            let (ours, theirs) = (draw(9.0), draw(10.0));
            let (low, high) = ratio(&METRICS[0], &ours, &theirs).unwrap().bounds.unwrap();
            (low..high).contains(&0.9)
        });
        let share = covered.count() as f64 / 400.0;
        assert!((0.91..=0.985).contains(&share), "{share}");
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let sorted: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|share| percentile(&sorted, share)), [1.0, 100.0, 198.0, 200.0]);
        assert_eq!(percentile(&[], 0.5), 0.0);
    }
}
