//! What a run amounts to: latencies as users feel them, errors, use of the fleet, over the measured part of the run.

use serde::{Deserialize, Serialize};
use shardwise_features::Answer;
use shardwise_types::{PlacementRequest, RiskLevel, Timestamp, combine_keys};

use crate::answers::AnswerRecord;
use crate::audit::Finding;
use crate::shard::{Presence, SimTime};

/// Buckets of a latency histogram, and bins of a timeline.
const BUCKETS: usize = 120;
const BINS: usize = 200;
/// Lower edge of the first bucket, in ms.
const LEAST_EDGE_MS: f64 = 0.5;
/// Requests that a risk tier must have before its share of missed objectives says anything.
const LEAST_IN_TIER: u64 = 100;

/// The result of a run. Latency is *effective*: a failed or refused request counts as the timeout, so failing fast
/// wins nothing. All but the counts of whole requests cover the measured part, after the warm-up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunSummary {
    /// Name of the policy (of the first router).
    pub policy: String,
    /// Seed of the run.
    pub seed: u64,
    /// What became of all arrivals, the warm-up included.
    pub counts: Counts,
    /// Requests that were measured.
    pub requests: u64,
    /// Mean latency in ms.
    pub mean_ms: f64,
    /// Median latency in ms.
    pub p50_ms: f64,
    /// 90th percentile in ms.
    pub p90_ms: f64,
    /// 99th percentile in ms.
    pub p99_ms: f64,
    /// 99.9th percentile in ms.
    pub p999_ms: f64,
    /// Share that missed the objective of its urgency.
    pub slo_miss: f64,
    /// Share that failed, timed out or was refused.
    pub error_rate: f64,
    /// Share of executions that had to load the function.
    pub cold_rate: f64,
    /// Busy core time over core capacity until arrivals end.
    pub core_use: f64,
    /// Jain's index over the shards' use: 1 is even, 1/n is one shard alone. A diagnosis, not a goal.
    pub jain: f64,
    /// Use of the busiest shard over the mean.
    pub max_over_mean: f64,
    /// Objectives missed in the worst risk tier less those in the best, in percentage points.
    pub risk_gap_pp: f64,
    /// How much later than on the best eligible shard a request was foreseen to be done when it was placed, in ms: the
    /// mean over the requests looked at. `None` when none was.
    pub regret_ms: Option<f64>,
    /// How true the policy's answers were; `None` when it gave none.
    pub answers: Option<AnswerRecord>,
    /// Median, 95th and 99th percentile of the time that a decision took, in µs; `None` without a stopwatch.
    pub decide_us: Option<[f64; 3]>,
    /// Every end of a request in order, as a hash: the same for the same run.
    pub log_hash: u64,
    /// Bugs of the policy that the run brought to light.
    pub findings: Vec<Finding>,
    /// When the last request was settled.
    pub end: Timestamp,
    /// Latencies, fine enough to draw their distribution.
    pub histogram: LatencyHistogram,
    /// Latencies over the run, warm-up included, by time of arrival.
    pub timeline: Vec<TimelineBin>,
}

/// What became of all arrivals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Requests that reached a router.
    pub arrivals: u64,
    /// Answered in time and well.
    pub completed: u64,
    /// Answered in time with an error.
    pub failed: u64,
    /// Not answered in time.
    pub timeouts: u64,
    /// Not placed: no shard was eligible.
    pub refused: u64,
    /// Neither answered nor given up when the run ended; 0 unless it was interrupted.
    pub in_flight: u64,
    /// Sent once more after an error or a timeout.
    pub retries: u64,
    /// Copies sent while the first was out.
    pub copies: u64,
    /// Called off because another copy was answered.
    pub cancelled: u64,
    /// Probes sent.
    pub probes: u64,
    /// Dropped by a shard because their time was up; they are among the timeouts.
    pub dropped: u64,
}

/// Latencies in log-spaced buckets; bucket `i` lies between `edges_ms[i]` and `edges_ms[i + 1]`, and what is below the
/// first edge is in the first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LatencyHistogram {
    /// Edges in ms, one more than buckets.
    pub edges_ms: Vec<f64>,
    /// Requests by bucket.
    pub counts: Vec<u64>,
}

/// A stretch of the run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TimelineBin {
    /// Its beginning, in ms since the start of the workload.
    pub from_ms: f64,
    /// Requests that arrived in it.
    pub requests: u64,
    /// Their mean latency in ms; 0 without requests.
    pub mean_ms: f64,
    /// Their 99th percentile in ms; 0 without requests.
    pub p99_ms: f64,
}

/// Settled latencies and counters of a run; the engine fills them in.
pub(crate) struct Tally {
    pub(crate) counts: Counts,
    /// Effective latency by arrival, NaN until it is settled.
    latency_ms: Vec<f32>,
    timeout_ms: f32,
    first_measured: usize,
    errors: u64,
    slo_misses: u64,
    executions: u64,
    cold: u64,
    /// Measured requests and missed objectives by risk tier.
    tiers: [(u64, u64); RiskLevel::ALL.len()],
    regret: (f64, u64),
    answers: AnswerRecord,
    /// Times that decisions took, in ns; `None` when nobody looks.
    decide_ns: Option<Vec<u32>>,
    log_hash: u64,
    in_system: Presence,
    /// Core time of each shard at the beginning and the end of the measured time, in ns.
    pub(crate) busy_ns: [Vec<u64>; 2],
}

impl Tally {
    pub(crate) fn new(arrivals: usize, first_measured: usize, timeout_ms: f64, is_timed: bool) -> Self {
        Self {
            counts: Counts::default(),
            latency_ms: vec![f32::NAN; arrivals],
            timeout_ms: timeout_ms as f32,
            first_measured,
            errors: 0,
            slo_misses: 0,
            executions: 0,
            cold: 0,
            tiers: Default::default(),
            regret: (0.0, 0),
            answers: AnswerRecord::default(),
            decide_ns: is_timed.then(Vec::new),
            log_hash: 0,
            in_system: Presence::default(),
            busy_ns: [Vec::new(), Vec::new()],
        }
    }

    /// Settles an arrival: `Some` latency of a good answer, `None` for everything else.
    pub(crate) fn settle(&mut self, arrival: usize, good_ms: Option<f32>, request: &PlacementRequest, shard: u16) {
        let effective_ms = good_ms.unwrap_or(self.timeout_ms);
        self.latency_ms[arrival] = effective_ms;
        let end = (u64::from(shard) << 32) | u64::from(effective_ms.to_bits());
        self.log_hash = combine_keys(self.log_hash, combine_keys(arrival as u64, end));
        if arrival >= self.first_measured {
            let missed = u64::from(good_ms.is_none() || f64::from(effective_ms) > request.urgency.objective_ms());
            self.errors += u64::from(good_ms.is_none());
            self.slo_misses += missed;
            let tier = &mut self.tiers[usize::from(request.risk.rank())];
            *tier = (tier.0 + 1, tier.1 + missed);
        }
    }

    /// Counts an execution.
    pub(crate) fn count_execution(&mut self, arrival: usize, cold: bool) {
        if arrival >= self.first_measured {
            self.executions += 1;
            self.cold += u64::from(cold);
        }
    }

    /// Notes a measured decision.
    pub(crate) fn count_decision(&mut self, regret_ms: Option<f64>, decide_ns: Option<u64>) {
        if let Some(ms) = regret_ms {
            self.regret = (self.regret.0 + ms, self.regret.1 + 1);
        }
        if let (Some(times), Some(ns)) = (&mut self.decide_ns, decide_ns) {
            times.push(u32::try_from(ns).unwrap_or(u32::MAX));
        }
    }

    /// Notes what became of an attempt that an answer was given for; a failure took the timeout.
    pub(crate) fn count_answer(&mut self, arrival: usize, answer: &Answer, risk: RiskLevel, good_ms: Option<f32>) {
        if arrival >= self.first_measured {
            self.answers.count(answer, risk, good_ms.unwrap_or(self.timeout_ms));
        }
    }

    /// Notes whether a measured choice was about the best.
    pub(crate) fn judge_answer(&mut self, answer: &Answer, was_right: bool) {
        self.answers.judge(answer, was_right);
    }

    /// A request comes into the system.
    pub(crate) fn open(&mut self, now: SimTime) {
        self.in_system.enter(now);
    }

    /// A request that came at `since` leaves the system.
    pub(crate) fn close(&mut self, now: SimTime, since: SimTime) {
        self.in_system.leave(now, since);
    }

    /// Whether requests were in the system, summed over time, for as long as they say they stayed (Little's law).
    pub(crate) fn stays_add_up(&mut self, now: SimTime, still_out_ns: u128) -> bool {
        self.in_system.adds_up(now, still_out_ns)
    }

    pub(crate) fn summarise(&self, run: &RunFacts<'_>) -> RunSummary {
        let mut measured: Vec<f32> =
            self.latency_ms[self.first_measured..].iter().copied().filter(|ms| !ms.is_nan()).collect();
        let requests = measured.len() as u64;
        let histogram = LatencyHistogram::of(&measured, f64::from(self.timeout_ms));
        let mean_ms = mean(&measured);
        let [p999_ms, p99_ms, p90_ms, p50_ms] = percentiles(&mut measured, [0.999, 0.99, 0.9, 0.5]);
        let usage = Usage::of(&self.busy_ns, run.cores, run.measured_ns);
        RunSummary {
            policy: run.policy.to_owned(),
            seed: run.seed,
            counts: self.counts,
            requests,
            mean_ms,
            p50_ms,
            p90_ms,
            p99_ms,
            p999_ms,
            slo_miss: share(self.slo_misses, requests),
            error_rate: share(self.errors, requests),
            cold_rate: share(self.cold, self.executions),
            core_use: usage.mean,
            jain: usage.jain,
            max_over_mean: usage.max_over_mean,
            risk_gap_pp: self.risk_gap_pp(),
            regret_ms: (self.regret.1 > 0).then(|| self.regret.0 / self.regret.1 as f64),
            answers: (self.answers.all.requests > 0).then(|| self.answers.clone()),
            decide_us: self.decide_us(),
            log_hash: self.log_hash,
            findings: run.findings.clone(),
            end: run.end,
            histogram,
            timeline: self.timeline(run.arrival_ms),
        }
    }

    fn risk_gap_pp(&self) -> f64 {
        let known = self.tiers.iter().filter(|(requests, _)| *requests >= LEAST_IN_TIER);
        let misses = known.map(|(requests, missed)| share(*missed, *requests));
        let (least, most) = misses.fold((1.0_f64, 0.0_f64), |(least, most), miss| (least.min(miss), most.max(miss)));
        100.0 * (most - least).max(0.0)
    }

    fn decide_us(&self) -> Option<[f64; 3]> {
        let mut us: Vec<f32> = self.decide_ns.as_ref()?.iter().map(|ns| *ns as f32 / 1e3).collect();
        let [p99, p95, p50] = percentiles(&mut us, [0.99, 0.95, 0.5]);
        Some([p50, p95, p99])
    }

    fn timeline(&self, arrival_ms: &dyn Fn(usize) -> f64) -> Vec<TimelineBin> {
        let arrivals = self.latency_ms.len();
        let Some(last) = arrivals.checked_sub(1) else { return Vec::new() };
        // Whole seconds where they suffice.
        let width_ms = (arrival_ms(last) / BINS as f64 / 1e3).ceil().max(1.0) * 1e3;
        let (mut bins, mut from) = (Vec::new(), 0);
        while from < arrivals {
            let from_ms = bins.len() as f64 * width_ms;
            let mut until = from;
            while until < arrivals && arrival_ms(until) < from_ms + width_ms {
                until += 1;
            }
            let mut latencies: Vec<f32> =
                self.latency_ms[from..until].iter().copied().filter(|ms| !ms.is_nan()).collect();
            let [p99_ms] = percentiles(&mut latencies, [0.99]);
            bins.push(TimelineBin { from_ms, requests: latencies.len() as u64, mean_ms: mean(&latencies), p99_ms });
            from = until;
        }
        bins
    }
}

/// What the tally does not know of a run.
pub(crate) struct RunFacts<'a> {
    pub(crate) policy: &'a str,
    pub(crate) seed: u64,
    pub(crate) cores: &'a [f64],
    pub(crate) measured_ns: f64,
    pub(crate) end: Timestamp,
    pub(crate) arrival_ms: &'a dyn Fn(usize) -> f64,
    pub(crate) findings: Vec<Finding>,
}

struct Usage {
    mean: f64,
    jain: f64,
    max_over_mean: f64,
}

impl Usage {
    fn of(busy_ns: &[Vec<u64>; 2], cores: &[f64], measured_ns: f64) -> Self {
        let busy: Vec<f64> = busy_ns[0].iter().zip(&busy_ns[1]).map(|(from, until)| (until - from) as f64).collect();
        let by_core: Vec<f64> = busy.iter().zip(cores).map(|(busy, cores)| busy / cores).collect();
        let total: f64 = busy.iter().sum();
        let sum: f64 = by_core.iter().sum();
        let squares: f64 = by_core.iter().map(|x| x * x).sum();
        let n = by_core.len().max(1) as f64;
        let nothing = total == 0.0;
        Self {
            mean: if nothing { 0.0 } else { total / (measured_ns * cores.iter().sum::<f64>()) },
            jain: if nothing { 1.0 } else { sum * sum / (n * squares) },
            max_over_mean: if nothing { 1.0 } else { by_core.iter().copied().fold(0.0, f64::max) * n / sum },
        }
    }
}

impl LatencyHistogram {
    fn of(latencies_ms: &[f32], timeout_ms: f64) -> Self {
        let most = timeout_ms.max(2.0 * LEAST_EDGE_MS);
        let step = (most / LEAST_EDGE_MS).ln() / BUCKETS as f64;
        let edges_ms = (0..=BUCKETS).map(|edge| LEAST_EDGE_MS * (edge as f64 * step).exp()).collect();
        let mut counts = vec![0; BUCKETS];
        for ms in latencies_ms {
            // A conversion from a negative float gives 0.
            let bucket = ((f64::from(*ms) / LEAST_EDGE_MS).ln() / step) as usize;
            counts[bucket.min(BUCKETS - 1)] += 1;
        }
        Self { edges_ms, counts }
    }
}

pub(crate) fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

pub(crate) fn mean(values: &[f32]) -> f64 {
    values.iter().map(|value| f64::from(*value)).sum::<f64>() / values.len().max(1) as f64
}

/// Nearest-rank percentiles for falling `shares`; 0 without values. Reorders the values.
pub(crate) fn percentiles<const N: usize>(values: &mut [f32], shares: [f64; N]) -> [f64; N] {
    let n = values.len();
    // Each selection leaves the smaller values in front, where the next one looks.
    let mut reach = n;
    shares.map(|share| {
        if n == 0 {
            return 0.0;
        }
        let rank = ((share * n as f64).ceil() as usize).clamp(1, n) - 1;
        let (_, value, _) = values[..reach].select_nth_unstable_by(rank, f32::total_cmp);
        reach = rank + 1;
        f64::from(*value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_exact() {
        let mut values: Vec<f32> = (1..=1000).rev().map(|i| i as f32).collect();
        assert_eq!(percentiles(&mut values, [0.999, 0.99, 0.9, 0.5]), [999.0, 990.0, 900.0, 500.0]);
        assert_eq!(percentiles(&mut [], [0.99]), [0.0]);
        assert_eq!(percentiles(&mut [7.0], [0.999, 0.5]), [7.0, 7.0]);
    }

    #[test]
    fn the_histogram_holds_every_request_between_its_edges() {
        let latencies = [0.1_f32, 0.6, 30.0, 2_999.0, 3_000.0];
        let histogram = LatencyHistogram::of(&latencies, 3_000.0);
        assert_eq!(histogram.counts.iter().sum::<u64>(), 5);
        assert_eq!((histogram.counts[0], histogram.counts[BUCKETS - 1]), (1, 2));
        let bucket = histogram.edges_ms.partition_point(|edge| *edge <= 30.0) - 1;
        assert_eq!(histogram.counts[bucket], 1);
    }

    #[test]
    fn evenness_is_one_for_equal_use_and_low_for_one_busy_shard() {
        let usage = |busy: [u64; 2]| Usage::of(&[vec![0, 0], busy.to_vec()], &[1.0, 1.0], 10.0);
        assert_eq!((usage([4, 4]).jain, usage([4, 4]).max_over_mean, usage([4, 4]).mean), (1.0, 1.0, 0.4));
        assert_eq!((usage([8, 0]).jain, usage([8, 0]).max_over_mean), (0.5, 2.0));
        assert_eq!(usage([0, 0]).jain, 1.0);
    }

    #[test]
    fn failing_fast_wins_nothing() {
        let request = shardwise_features::golden::contexts().remove(0).request;
        let mut tally = Tally::new(2, 0, 3_000.0, false);
        tally.settle(0, Some(10.0), &request, 0);
        tally.settle(1, None, &request, 0);
        let facts = RunFacts {
            policy: "p",
            seed: 1,
            cores: &[],
            measured_ns: 1.0,
            end: Timestamp::default(),
            arrival_ms: &|i| i as f64,
            findings: Vec::new(),
        };
        let summary = tally.summarise(&facts);
        assert_eq!((summary.mean_ms, summary.error_rate, summary.slo_miss), (1_505.0, 0.5, 0.5));
    }
}
