//! What came of a case, and what follows from it.

use serde::Serialize;
use shardwise_simulator::{Arrival, Workload};

use super::arms::{NOTHING, TARGET};
use super::worlds::cores_of;
use super::{CaseWorld, PlanCase};
use crate::plans::PlanArm;
use crate::statistics::ratio_interval;

/// Latency in a spike over that of calm which a prepared fleet is to keep.
const PREPARED: f64 = 1.5;

/// An arm over the arm without a planner, below 1 when the planner's is lower; none where that had none of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ArmRatios {
    /// The arm.
    pub name: String,
    /// Mean latency.
    pub mean_ms: Option<f64>,
    /// 99th percentile.
    pub p99_ms: Option<f64>,
    /// Share that missed its objective.
    pub slo_miss: Option<f64>,
    /// Share of cold starts.
    pub cold_rate: Option<f64>,
    /// Core time.
    pub core_use: Option<f64>,
    /// Memory.
    pub memory: Option<f64>,
    /// Minutes of full shards.
    pub shard_minutes_over: Option<f64>,
    /// 99th percentile of each phase over that of the arm's first one, which is calm; without phases empty.
    pub p99_over_calm: Vec<f64>,
}

/// Something that was to hold, and whether it did.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// The arm.
    pub arm: String,
    /// What was to hold.
    pub what: &'static str,
    /// What was measured.
    pub value: f64,
    /// The most that it was to be.
    pub most: f64,
    /// Whether it holds.
    pub holds: bool,
}

/// What a spike takes, from its traffic.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SpikeDemand {
    /// Offered load of calm over the cores that are there.
    pub calm_load: f64,
    /// Offered load of the highest minute over the same cores.
    pub peak_load: f64,
    /// Shards to join so that the highest minute loads them to the plan's target.
    pub needed_shards: f64,
    /// Shards that stand by.
    pub standby: usize,
}

/// What came of a case.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CaseResult {
    /// The case.
    pub case: PlanCase,
    /// Its seed.
    pub seed: u64,
    /// Offered load over the shards that are there from the beginning.
    pub load: f64,
    /// The arms, the one without a planner first.
    pub arms: Vec<PlanArm>,
    /// All others over that one.
    pub ratios: Vec<ArmRatios>,
    /// What follows.
    pub checks: Vec<Check>,
    /// What the spike takes; none in other cases.
    pub spike: Option<SpikeDemand>,
}

impl CaseResult {
    pub(super) fn of(world: &CaseWorld, arms: Vec<PlanArm>) -> Self {
        let without = arms.iter().find(|arm| arm.name == NOTHING);
        let ratios = without.map_or_else(Vec::new, |base| arms.iter().map(|arm| ratios(arm, base)).collect());
        Self {
            case: world.case,
            seed: world.options.seed,
            load: world.load,
            checks: arms.iter().flat_map(|arm| checks(world.case, arm, without)).collect(),
            ratios,
            arms,
            spike: (world.case == PlanCase::Spike).then(|| demand(world)),
        }
    }
}

fn over(with: f64, without: f64) -> Option<f64> {
    (without > 0.0).then(|| with / without)
}

fn ratios(arm: &PlanArm, without: &PlanArm) -> ArmRatios {
    let calm = arm.phases.first().map_or(0.0, |phase| phase.p99_ms);
    ArmRatios {
        name: arm.name.clone(),
        mean_ms: over(arm.mean_ms, without.mean_ms),
        p99_ms: over(arm.p99_ms, without.p99_ms),
        slo_miss: over(arm.slo_miss, without.slo_miss),
        cold_rate: over(arm.cold_rate, without.cold_rate),
        core_use: over(arm.core_use, without.core_use),
        memory: over(arm.memory, without.memory),
        shard_minutes_over: over(arm.shard_minutes_over as f64, without.shard_minutes_over as f64),
        p99_over_calm: arm.phases.iter().filter_map(|phase| over(phase.p99_ms, calm)).collect(),
    }
}

fn checks(case: PlanCase, arm: &PlanArm, without: Option<&PlanArm>) -> Vec<Check> {
    let Some(without) = without.filter(|without| without.name != arm.name) else { return Vec::new() };
    let check = |what, value: f64, most: f64| Check { arm: arm.name.clone(), what, value, most, holds: value <= most };
    let mut checks = vec![
        check("functions that came back within the cooldown", arm.returns as f64, 0.0),
        check("plans that solved again were not empty", arm.not_idempotent as f64, 0.0),
    ];
    match case {
        PlanCase::Day => checks.extend([
            check("minutes of full shards", arm.shard_minutes_over as f64, without.shard_minutes_over as f64),
            check("share that missed its objective", arm.slo_miss, without.slo_miss),
        ]),
        PlanCase::Warm => checks.extend([
            check("share of cold starts", arm.cold_rate, without.cold_rate),
            check("99th percentile in ms", arm.p99_ms, without.p99_ms),
        ]),
        PlanCase::Spike => {
            let calm = arm.phases.first().map_or(0.0, |phase| phase.p99_ms);
            let spike = arm.phases.iter().skip(1).filter_map(|phase| over(phase.p99_ms, calm));
            checks.push(check("99th percentile in the spike over that in calm", spike.fold(0.0, f64::max), PREPARED));
        }
    }
    checks
}

fn demand(world: &CaseWorld) -> SpikeDemand {
    let there = world.world.shards.iter().filter(|shard| !world.standby.contains(&shard.id));
    let (shards, cores) = there.fold((0.0, 0.0), |(shards, cores), shard| (shards + 1.0, cores + cores_of(shard)));
    let begin = world.workload.start.plus_millis(world.options.spike_minutes[0] * 60_000.0);
    // The ramp is over by then.
    let (from, until) = (begin.plus_millis(30_000.0), begin.plus_millis(60_000.0));
    let is_in = |arrival: &&Arrival| (from..until).contains(&arrival.at);
    let arrivals = world.workload.arrivals.iter().filter(is_in).cloned().collect();
    let peak = Workload { start: from, end: until, arrivals, market: Vec::new(), ..world.workload.clone() };
    let peak_load = peak.offered_load(&world.world) * world.world.cores() / cores;
    SpikeDemand {
        calm_load: world.load,
        peak_load,
        needed_shards: ((peak_load / TARGET - 1.0) * shards).max(0.0),
        standby: world.standby.len(),
    }
}

/// An arm over the arm without a planner, over seeds.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PairedArm {
    /// The arm.
    pub name: String,
    /// Of what: the names of [`ArmRatios`].
    pub metric: &'static str,
    /// Geometric mean of the ratios.
    pub ratio: f64,
    /// Lower bound of the 95 % Student-t interval; none with fewer than two seeds.
    pub low: Option<f64>,
    /// Upper bound of the same.
    pub high: Option<f64>,
    /// Seeds.
    pub seeds: usize,
}

/// Pairs the arms of one case over its seeds. A ratio of nothing, or to nothing, leaves its seed out.
pub fn paired_arms(results: &[CaseResult]) -> Vec<PairedArm> {
    type Read = fn(&ArmRatios) -> Option<f64>;
    let metrics: [(&'static str, Read); 9] = [
        ("meanMs", |it| it.mean_ms),
        ("p99Ms", |it| it.p99_ms),
        ("sloMiss", |it| it.slo_miss),
        ("coldRate", |it| it.cold_rate),
        ("coreUse", |it| it.core_use),
        ("memory", |it| it.memory),
        ("shardMinutesOver", |it| it.shard_minutes_over),
        ("p99OverCalm, first two minutes", |it| it.p99_over_calm.get(1).copied()),
        ("p99OverCalm, spike", |it| it.p99_over_calm.get(2).copied()),
    ];
    let names = results.first().map_or_else(Vec::new, |first| first.ratios.iter().map(|it| &it.name).collect());
    let paired = |name: &String, (metric, read): (&'static str, Read)| {
        let of = results.iter().filter_map(|result| result.ratios.iter().find(|it| it.name == *name));
        let log_ratios: Vec<f64> = of.filter_map(read).map(f64::ln).filter(|ln| ln.is_finite()).collect();
        let interval = ratio_interval(&log_ratios)?;
        Some(PairedArm {
            name: name.clone(),
            metric,
            ratio: interval.ratio,
            low: interval.bounds.map(|bounds| bounds.0),
            high: interval.bounds.map(|bounds| bounds.1),
            seeds: log_ratios.len(),
        })
    };
    names.into_iter().flat_map(|name| metrics.into_iter().filter_map(move |metric| paired(name, metric))).collect()
}
