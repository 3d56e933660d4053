//! Every policy on the same sample paths, and the candidate paired with each rival. It judges nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rayon::prelude::*;
use shardwise_policies::Policy;
use shardwise_simulator::{
    LatencyHistogram, NoRecorder, Recorder, RunSummary, SimulateOptions, Workload, WorldSpec, simulate_with,
};

use crate::numbers::{grouped, millis, percent};
use crate::statistics::ratio_interval;
use crate::{
    CANDIDATE, CdfPoint, ClosedLoop, Comparison, EvaluationError, Fact, METRICS, Metric, Metrics, PolicyResult,
    Replicate, SeedResult, TimelinePoint,
};

/// Metrics in which the candidate is compared with its rivals.
const COMPARED: [&str; 2] = ["mean_ms", "p99_ms"];

/// A policy that takes part: its name in the tables and how one object of it is made.
pub struct Contender {
    /// Its name; the policy under test is [`CANDIDATE`], the present champion [`CHAMPION`](crate::CHAMPION).
    pub name: String,
    /// Makes one policy object; it is called once per router and run.
    pub make: Box<dyn Fn() -> Box<dyn Policy> + Send + Sync>,
}

impl Contender {
    /// Names a policy and how it is made.
    pub fn new(name: &str, make: impl Fn() -> Box<dyn Policy> + Send + Sync + 'static) -> Self {
        Self { name: name.to_owned(), make: Box::new(make) }
    }
}

/// What all contenders are run on.
#[derive(Clone, Copy)]
pub struct SamplePaths<'a> {
    /// The world.
    pub world: &'a WorldSpec,
    /// The arrivals.
    pub workload: &'a Workload,
    /// Share of the workload's time in which routers learn and nothing is measured, in [0, 1).
    pub warm_up: f64,
    /// Seeds of run times, failures, delays and noise.
    pub seeds: &'a [u64],
}

/// Runs all contenders on all seeds, in parallel, and compares [`CANDIDATE`] with every other.
///
/// All share the workload's arrivals; a seed decides run times, failures, delays and noise, alike for every policy
/// (common random numbers). The result does not depend on the number of threads. `progress` hears the contender's
/// name, the runs done and the runs in all after each run; setting `interrupted` ends it before the next run.
///
/// # Errors
/// When seeds or contenders are missing or repeated, a run fails or measures nothing, or it was interrupted.
///
/// ```
/// use shardwise_evaluation::{Contender, SamplePaths, run};
/// use shardwise_policies::{Runtime, by_name};
/// use shardwise_simulator::{FleetOptions, Workload, WorkloadOptions, WorldSpec};
///
/// let world = WorldSpec::generate(1, &FleetOptions { shards: 4, functions: 10, ..FleetOptions::default() });
/// let options = WorkloadOptions::new("2026-01-05T12:00:00Z".parse()?, 1_000.0, 0.3);
/// let workload = Workload::generate(&world, 1, &options)?;
/// let policy = |name: &'static str| move || by_name(name, Runtime::default()).expect("a known name");
/// let contenders = [Contender::new("shardwise", policy("sed_tab")), Contender::new("random", policy("random"))];
/// let paths = SamplePaths { world: &world, workload: &workload, warm_up: 0.1, seeds: &[11, 12] };
/// let closed_loop = run(&paths, &contenders, &|_, _, _| (), &false.into())?;
/// assert!(closed_loop.comparison("random", "mean_ms").is_some_and(|mean| mean.ratio < 1.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn run(
    paths: &SamplePaths<'_>,
    contenders: &[Contender],
    progress: &(dyn Fn(&str, usize, usize) + Sync),
    interrupted: &AtomicBool,
) -> Result<ClosedLoop, EvaluationError> {
    let seeds = paths.seeds;
    check(seeds, contenders)?;
    let jobs: Vec<(&Contender, u64)> =
        contenders.iter().flat_map(|contender| seeds.iter().map(move |&seed| (contender, seed))).collect();
    let done = AtomicUsize::new(0);
    let options = SimulateOptions { warm_up: paths.warm_up, ..SimulateOptions::default() };
    let run_job = |&(contender, seed): &(&Contender, u64)| {
        let summary = run_once(paths, seed, contender, &options, interrupted)?;
        progress(&contender.name, done.fetch_add(1, Ordering::Relaxed) + 1, jobs.len());
        Ok(summary)
    };
    // Collected in the order of the jobs, so that threads change nothing.
    let summaries = jobs.par_iter().map(run_job).collect::<Result<Vec<RunSummary>, EvaluationError>>()?;
    let policies: Vec<PolicyResult> = contenders
        .iter()
        .zip(summaries.chunks(seeds.len()))
        .map(|(contender, runs)| policy_result(&contender.name, seeds, runs))
        .collect();
    Ok(ClosedLoop {
        candidate: CANDIDATE.to_owned(),
        seeds: seeds.to_vec(),
        setting: setting(paths.world, paths.workload),
        comparisons: compare(CANDIDATE, &policies),
        policies,
    })
}

fn check(seeds: &[u64], contenders: &[Contender]) -> Result<(), EvaluationError> {
    if seeds.is_empty() {
        return Err(EvaluationError::NoSeed);
    }
    if let Some(seed) = first_repeated(seeds) {
        return Err(EvaluationError::RepeatedSeed(*seed));
    }
    let names: Vec<&str> = contenders.iter().map(|contender| contender.name.as_str()).collect();
    if let Some(name) = first_repeated(&names) {
        return Err(EvaluationError::RepeatedContender((*name).to_owned()));
    }
    if !names.contains(&CANDIDATE) {
        return Err(EvaluationError::NoCandidate(CANDIDATE.to_owned()));
    }
    if names.len() == 1 {
        return Err(EvaluationError::NoRival(CANDIDATE.to_owned()));
    }
    Ok(())
}

fn first_repeated<T: PartialEq>(items: &[T]) -> Option<&T> {
    items.iter().enumerate().find(|(i, item)| items[..*i].contains(item)).map(|(_, item)| item)
}

pub(crate) fn run_once(
    paths: &SamplePaths<'_>,
    seed: u64,
    contender: &Contender,
    options: &SimulateOptions,
    interrupted: &AtomicBool,
) -> Result<RunSummary, EvaluationError> {
    run_path(paths, seed, (&contender.name, &*contender.make), options, &mut NoRecorder, interrupted)
}

/// Runs a policy, given by its name and how it is made, on one path.
pub(crate) fn run_path(
    paths: &SamplePaths<'_>,
    seed: u64,
    (name, make): (&str, &dyn Fn() -> Box<dyn Policy>),
    options: &SimulateOptions,
    recorder: &mut dyn Recorder,
    interrupted: &AtomicBool,
) -> Result<RunSummary, EvaluationError> {
    if interrupted.load(Ordering::Relaxed) {
        return Err(EvaluationError::Interrupted);
    }
    let policies: Vec<Box<dyn Policy>> = paths.world.routers.iter().map(|_| make()).collect();
    let run = simulate_with(paths.world, paths.workload, seed, policies, recorder, options);
    let summary =
        run.map_err(|error| EvaluationError::Simulation { policy: name.to_owned(), seed, problem: error.to_string() })?;
    match summary.requests > 0 && summary.mean_ms > 0.0 {
        true => Ok(summary),
        false => Err(EvaluationError::NothingMeasured { policy: name.to_owned(), seed }),
    }
}

fn setting(world: &WorldSpec, workload: &Workload) -> Vec<Fact> {
    let seconds = workload.end.millis_since(workload.start) / 1e3;
    vec![
        Fact::new("shards", format!("{} with {} cores", world.shards.len(), world.cores())),
        Fact::new("routers", world.routers.len().to_string()),
        Fact::new("functions", world.functions.len().to_string()),
        Fact::new("requests per run", grouped(workload.arrivals.len() as u64)),
        Fact::new("simulated time per run", format!("{} s", millis(seconds))),
        Fact::new("offered load", format!("{} % of all core time", percent(workload.offered_load(world)))),
    ]
}

fn policy_result(name: &str, seeds: &[u64], runs: &[RunSummary]) -> PolicyResult {
    let seeds: Vec<SeedResult> = seeds
        .iter()
        .zip(runs)
        .map(|(&seed, run)| SeedResult { seed, requests: run.requests, metrics: metrics_of(run) })
        .collect();
    PolicyResult {
        name: name.to_owned(),
        requests: seeds.iter().map(|result| result.requests).sum(),
        pooled: average(seeds.iter().map(|result| &result.metrics)),
        seeds,
        cdf: distribution(runs),
        timeline: timeline(runs),
    }
}

pub(crate) fn metrics_of(run: &RunSummary) -> Metrics {
    Metrics {
        mean_ms: run.mean_ms,
        p50_ms: run.p50_ms,
        p90_ms: run.p90_ms,
        p99_ms: run.p99_ms,
        p999_ms: run.p999_ms,
        slo_miss: run.slo_miss,
        error_rate: run.error_rate,
        core_use: run.core_use,
        cold_rate: run.cold_rate,
        jain: run.jain,
        max_over_mean: run.max_over_mean,
    }
}

/// The average of every metric over runs, which count alike.
pub(crate) fn average<'a>(runs: impl Iterator<Item = &'a Metrics>) -> Metrics {
    let runs: Vec<&Metrics> = runs.collect();
    let mean = |read: fn(&Metrics) -> f64| runs.iter().map(|run| read(run)).sum::<f64>() / runs.len().max(1) as f64;
    Metrics {
        mean_ms: mean(|m| m.mean_ms),
        p50_ms: mean(|m| m.p50_ms),
        p90_ms: mean(|m| m.p90_ms),
        p99_ms: mean(|m| m.p99_ms),
        p999_ms: mean(|m| m.p999_ms),
        slo_miss: mean(|m| m.slo_miss),
        error_rate: mean(|m| m.error_rate),
        core_use: mean(|m| m.core_use),
        cold_rate: mean(|m| m.cold_rate),
        jain: mean(|m| m.jain),
        max_over_mean: mean(|m| m.max_over_mean),
    }
}

/// The distribution of all runs together. They share the timeout and so the buckets; the share of a bucket holds at
/// its upper edge.
fn distribution(runs: &[RunSummary]) -> Vec<CdfPoint> {
    let Some(LatencyHistogram { edges_ms, counts }) = runs.first().map(|run| &run.histogram) else {
        return Vec::new();
    };
    let mut merged = vec![0_u64; counts.len()];
    for run in runs {
        for (sum, count) in merged.iter_mut().zip(&run.histogram.counts) {
            *sum += count;
        }
    }
    let total = merged.iter().sum::<u64>().max(1) as f64;
    let mut below = 0;
    edges_ms[1..]
        .iter()
        .zip(merged)
        .map(|(&latency_ms, count)| {
            below += count;
            CdfPoint { latency_ms, share: below as f64 / total }
        })
        .collect()
}

/// p99 by bin, averaged over the runs that have requests in it.
fn timeline(runs: &[RunSummary]) -> Vec<TimelinePoint> {
    let mut bins: BTreeMap<u64, (f64, u32)> = BTreeMap::new();
    for bin in runs.iter().flat_map(|run| &run.timeline).filter(|bin| bin.requests > 0) {
        let (sum, count) = bins.entry(bin.from_ms as u64).or_default();
        *sum += bin.p99_ms;
        *count += 1;
    }
    let point = |(from_ms, (sum, count)): (u64, (f64, u32))| TimelinePoint {
        at_s: from_ms as f64 / 1e3,
        p99_ms: sum / f64::from(count),
    };
    bins.into_iter().map(point).collect()
}

/// Pairs the candidate with every other policy, seed by seed, in mean and p99.
pub fn compare(candidate: &str, policies: &[PolicyResult]) -> Vec<Comparison> {
    let Some(ours) = policies.iter().find(|policy| policy.name == candidate) else { return Vec::new() };
    let metrics = || METRICS.iter().filter(|metric| COMPARED.contains(&metric.key));
    policies
        .iter()
        .filter(|policy| policy.name != candidate)
        .flat_map(|rival| metrics().filter_map(|metric| pair(metric, ours, rival)))
        .collect()
}

fn pair(metric: &Metric, ours: &PolicyResult, rival: &PolicyResult) -> Option<Comparison> {
    let replicates: Vec<Replicate> = ours
        .seeds
        .iter()
        .zip(&rival.seeds)
        .map(|(a, b)| Replicate { seed: a.seed, ratio: (metric.read)(&a.metrics) / (metric.read)(&b.metrics) })
        .collect();
    let log_ratios: Vec<f64> = replicates.iter().map(|replicate| replicate.ratio.ln()).collect();
    let interval = ratio_interval(&log_ratios)?;
    let worst = *replicates.iter().max_by(|a, b| a.ratio.total_cmp(&b.ratio).then(b.seed.cmp(&a.seed)))?;
    Some(Comparison {
        rival: rival.name.clone(),
        metric: metric.key.to_owned(),
        ratio: interval.ratio,
        low: interval.bounds.map(|(low, _)| low),
        high: interval.bounds.map(|(_, high)| high),
        wins: replicates.iter().filter(|replicate| replicate.ratio < 1.0).count(),
        seeds: replicates.len(),
        worst,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use shardwise_policies::{Runtime, by_name};
    use shardwise_simulator::{FleetOptions, WorkloadOptions};

    use super::*;

    fn contender(name: &str, policy: &'static str) -> Contender {
        Contender::new(name, move || by_name(policy, Runtime::default()).expect("a known policy"))
    }

    fn contenders() -> Vec<Contender> {
        vec![contender(CANDIDATE, "sed_tab"), contender("twin", "sed_tab"), contender("random", "random")]
    }

    /// Runs two seconds of light load on six shards and two routers.
    fn run_small(seeds: &[u64], contenders: &[Contender], interrupted: bool) -> Result<ClosedLoop, EvaluationError> {
        let options = FleetOptions { shards: 6, routers: 2, functions: 20, ..FleetOptions::default() };
        let world = WorldSpec::generate(1, &options);
        let options = WorkloadOptions::new("2026-01-05T12:00:00Z".parse().unwrap(), 2_000.0, 0.5);
        let workload = Workload::generate(&world, 1, &options).unwrap();
        let paths = SamplePaths { world: &world, workload: &workload, warm_up: 0.1, seeds };
        run(&paths, contenders, &|_, _, _| (), &AtomicBool::new(interrupted))
    }

    #[test]
    fn the_same_policy_twice_is_a_draw_to_the_bit() {
        let closed_loop = run_small(&[11, 12, 13], &contenders(), false).unwrap();
        for metric in COMPARED {
            let twin = closed_loop.comparison("twin", metric).unwrap();
            assert_eq!((twin.ratio, twin.low, twin.high, twin.wins), (1.0, Some(1.0), Some(1.0), 0), "{metric}");
        }
        let [ours, random] = [CANDIDATE, "random"].map(|name| closed_loop.policy(name).unwrap());
        assert_ne!(ours.pooled, random.pooled, "another policy does otherwise on the same path");
        assert_ne!(ours.seeds[0].metrics, ours.seeds[1].metrics, "another seed is another path");
    }

    #[test]
    fn threads_do_not_change_the_result() {
        let on_threads = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| run_small(&[11, 12], &contenders(), false)).unwrap()
        };
        assert_eq!(on_threads(1), on_threads(3));
    }

    #[test]
    fn one_seed_gives_a_ratio_without_an_interval() {
        let closed_loop = run_small(&[11], &contenders(), false).unwrap();
        let row = closed_loop.comparison("random", "mean_ms").unwrap();
        assert!(row.ratio.is_finite() && row.low.is_none() && row.high.is_none());
        assert_eq!(row.seeds, 1);
        assert!((row.worst.ratio - row.ratio).abs() < 1e-12, "one seed is the worst and the mean");
    }

    #[test]
    fn distributions_rise_to_one() {
        let closed_loop = run_small(&[11, 12], &contenders(), false).unwrap();
        for policy in &closed_loop.policies {
            assert!(policy.cdf.windows(2).all(|pair| pair[0].share <= pair[1].share));
            assert_eq!(policy.cdf.last().map(|point| point.share), Some(1.0));
            assert!(!policy.timeline.is_empty());
        }
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        let alone = || vec![contender(CANDIDATE, "sed_tab")];
        let twice = || vec![contender(CANDIDATE, "sed_tab"), contender(CANDIDATE, "random")];
        for (seeds, contenders, words) in [
            (vec![], contenders(), "no seed"),
            (vec![3, 3], contenders(), "seed 3 is given twice"),
            (vec![3], alone(), "only contender"),
            (vec![3], twice(), "two contenders"),
            (vec![3], vec![contender("a", "random"), contender("b", "random")], "no contender is named"),
        ] {
            let error = run_small(&seeds, &contenders, false).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn an_interrupted_comparison_gives_no_figures() {
        assert!(matches!(run_small(&[11], &contenders(), true), Err(EvaluationError::Interrupted)));
    }

    #[test]
    fn progress_counts_every_run_once() {
        let world = WorldSpec::generate(1, &FleetOptions { shards: 3, functions: 5, ..FleetOptions::default() });
        let options = WorkloadOptions::new("2026-01-05T12:00:00Z".parse().unwrap(), 1_000.0, 0.3);
        let workload = Workload::generate(&world, 1, &options).unwrap();
        let heard = Mutex::new(Vec::new());
        let progress = |_: &str, done: usize, all: usize| heard.lock().unwrap().push((done, all));
        let paths = SamplePaths { world: &world, workload: &workload, warm_up: 0.1, seeds: &[1, 2] };
        run(&paths, &contenders(), &progress, &AtomicBool::new(false)).unwrap();
        let mut heard = heard.into_inner().unwrap();
        heard.sort_unstable();
        assert_eq!(heard, [(1, 6), (2, 6), (3, 6), (4, 6), (5, 6), (6, 6)]);
    }
}
