//! From outlooks to numbers: how much each shard has too much, how much each other has room for, what may move.

use std::collections::BTreeMap;

use shardwise_types::ShardId;

use super::problem::{BalanceProblem, BalanceSettings, Bottleneck, BottleneckKind, Expected, Part, ShardOutlook};
use crate::{Estimate, Unit};

/// How much of a shard's load has to go.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Goal {
    /// Cores.
    pub(super) cpu: f64,
    /// Memory, as that share of the cores.
    pub(super) memory: f64,
    /// The excess at the ends of the forecasts' intervals, relative to the likeliest.
    pub(super) certainty: (f64, f64),
}

/// Bottlenecks, and what has to go of shards where that helps.
pub(super) fn goals<'a>(
    shards: &'a [ShardOutlook],
    parts: &[&Part],
    settings: &BalanceSettings,
) -> (Vec<Bottleneck>, BTreeMap<&'a ShardId, Goal>) {
    let service = service_ms(parts);
    let (mut bottlenecks, mut goals) = (vec![], BTreeMap::new());
    for shard in shards {
        let found = bottlenecks_of(shard, service.get(&shard.id).copied(), settings);
        let of =
            |kind: BottleneckKind| found.iter().find(|bottleneck| bottleneck.kind == kind).map(|it| it.excess_cores);
        let cpu = [BottleneckKind::CpuExhaustion, BottleneckKind::HighLatency].into_iter().filter_map(of);
        let cpu = cpu.max_by(|a, b| a.value.total_cmp(&b.value));
        let memory = of(BottleneckKind::MemoryExhaustion);
        let total = Estimate::sum(Unit::Cores, cpu.iter().chain(&memory));
        if total.value > 0.0 {
            let value = |part: Option<Estimate>| part.map_or(0.0, |estimate| estimate.value);
            let certainty = (total.low.max(0.0) / total.value, total.high / total.value);
            goals.insert(&shard.id, Goal { cpu: value(cpu), memory: value(memory), certainty });
        }
        bottlenecks.extend(found);
    }
    (bottlenecks, goals)
}

/// Mean execution on each shard, by busy cores.
fn service_ms<'a>(parts: &[&'a Part]) -> BTreeMap<&'a ShardId, f64> {
    let mut sums: BTreeMap<&ShardId, (f64, f64)> = BTreeMap::new();
    for part in parts.iter().filter(|part| part.exec_ms > 0.0) {
        let (requests, busy) = sums.entry(&part.shard).or_default();
        *requests += part.cores / part.exec_ms;
        *busy += part.cores;
    }
    sums.into_iter()
        .filter(|(_, (requests, _))| *requests > 0.0)
        .map(|(id, (requests, busy))| (id, busy / requests))
        .collect()
}

fn bottlenecks_of(shard: &ShardOutlook, service_ms: Option<f64>, settings: &BalanceSettings) -> Vec<Bottleneck> {
    let acted_on = |expected: &Expected| settings.reactive || expected.switched_off.is_none();
    let above = |expected: Option<Expected>, threshold: f64| {
        expected.filter(|expected| acted_on(expected) && expected.value > threshold)
    };
    let make = |kind, expected: Expected, threshold, excess: &dyn Fn(f64) -> f64| Bottleneck {
        shard_id: shard.id.clone(),
        kind,
        expected: expected.value,
        threshold,
        excess_cores: Estimate::new(excess(expected.value), excess(expected.low), excess(expected.high), Unit::Cores),
    };
    let linear = |threshold: f64| move |value: f64| (value - threshold).max(0.0) * shard.cores;
    let mut found = vec![];
    if let Some(cpu) = above(shard.cpu, settings.cpu_threshold) {
        let kind = BottleneckKind::CpuExhaustion;
        found.push(make(kind, cpu, settings.cpu_threshold, &linear(settings.cpu_threshold)));
    }
    if let Some(memory) = above(shard.memory, settings.memory_threshold) {
        let kind = BottleneckKind::MemoryExhaustion;
        found.push(make(kind, memory, settings.memory_threshold, &linear(settings.memory_threshold)));
    }
    if let Some(latency) = above(shard.latency_ms, settings.latency_threshold_ms) {
        let threshold = settings.latency_threshold_ms;
        let excess = |value: f64| latency_excess(shard, service_ms, value, threshold);
        found.push(make(BottleneckKind::HighLatency, latency, threshold, &excess));
    }
    found
}

/// Cores' worth of load that must go for latency to come down to the threshold.
///
/// What is above execution is waiting, which goes with ρ/(1 − ρ). Where execution alone is above the threshold, less load
/// does not help, and nothing has to go.
fn latency_excess(shard: &ShardOutlook, service_ms: Option<f64>, latency_ms: f64, threshold_ms: f64) -> f64 {
    let (Some(cpu), Some(service_ms)) = (shard.cpu, service_ms) else { return 0.0 };
    if service_ms >= threshold_ms || latency_ms <= threshold_ms {
        return 0.0;
    }
    let busy = cpu.value.min(0.99);
    let odds = busy / (1.0 - busy) * (threshold_ms - service_ms) / (latency_ms - service_ms);
    (busy - odds / (1.0 + odds)).max(0.0) * shard.cores
}

/// A shard that gives: what it has too much, in cores.
pub(super) struct Source {
    pub(super) cores: f64,
    pub(super) cpu: f64,
    pub(super) memory: f64,
}

/// A shard that takes: how much it has room for.
pub(super) struct Taker<'a> {
    pub(super) id: &'a ShardId,
    pub(super) cores: f64,
    pub(super) memory_mb: f64,
}

/// A part that may move.
pub(super) struct Piece<'a> {
    pub(super) part: &'a Part,
    pub(super) source: usize,
    /// What its going relieves the source of: cores, and memory as a share of the source's cores.
    pub(super) cpu: f64,
    pub(super) memory: f64,
    /// Price of moving it, in core-minutes.
    pub(super) price: f64,
    /// The places of takers that may run it and that it has not left of late, rising; none is all.
    pub(super) allowed: Option<Vec<usize>>,
    /// The place of its function among all, and how often that may still move.
    pub(super) function: usize,
}

impl Piece<'_> {
    /// Whether a target has room for it alone.
    pub(super) fn fits(&self, target: &Taker<'_>) -> bool {
        self.part.cores <= target.cores + ROUNDING && self.part.memory_mb <= target.memory_mb + ROUNDING
    }

    /// Whether a target may run it.
    pub(super) fn is_allowed(&self, target: usize) -> bool {
        self.allowed.as_ref().is_none_or(|places| places.binary_search(&target).is_ok())
    }
}

/// The problem in numbers; everything in the order of names.
pub(super) struct Reduced<'a> {
    pub(super) sources: Vec<Source>,
    pub(super) targets: Vec<Taker<'a>>,
    pub(super) pieces: Vec<Piece<'a>>,
    /// For each function of a piece, how often it may still move.
    pub(super) function_moves: Vec<usize>,
    /// How many moves there may be altogether.
    pub(super) moves: usize,
    pub(super) minutes: f64,
}

/// Sums of sizes may pass room by this much, which is rounding.
pub(super) const ROUNDING: f64 = 1e-9;

const HOUR_MS: f64 = 3_600_000.0;

pub(super) fn reduce<'a>(
    problem: &BalanceProblem<'_>,
    parts: &[&'a Part],
    shards: &'a [ShardOutlook],
    goals: &BTreeMap<&ShardId, Goal>,
    settings: &BalanceSettings,
) -> Reduced<'a> {
    let hour = problem.now.plus_millis(-HOUR_MS);
    let cooling = problem.now.plus_millis(-settings.cooldown_minutes * 60_000.0);
    let (relieved, loaded) = problem.ledger.touched_since(cooling);
    // What moved a moment ago does not show yet: who was part of it is left alone until it does.
    let (gave, took) = problem.ledger.touched_since(problem.settling_since(settings));
    let is_settling = problem.is_settling(settings);
    let targets: Vec<Taker<'a>> = shards
        .iter()
        .filter(|_| !is_settling)
        .filter(|shard| !goals.contains_key(&shard.id) && !relieved.contains(&shard.id) && !took.contains(&shard.id))
        .filter_map(|shard| taker(shard, settings))
        .collect();
    let mut sources = vec![];
    let mut place_of: BTreeMap<&ShardId, usize> = BTreeMap::new();
    // What is drained runs empty by itself.
    let stays = |id: &ShardId| loaded.contains(id) || gave.contains(id) || problem.ledger.is_drained(id);
    for shard in shards.iter().filter(|shard| !stays(&shard.id)) {
        if let Some(goal) = goals.get(&shard.id) {
            place_of.insert(&shard.id, sources.len());
            sources.push((shard, Source { cores: shard.cores, cpu: goal.cpu, memory: goal.memory }));
        }
    }
    let (mut pieces, mut function_moves) = (vec![], vec![]);
    let mut last = None;
    for &part in parts {
        let Some(&source) = place_of.get(&part.shard) else { continue };
        let shard = sources[source].0;
        if last != Some(&part.function) {
            let moved = problem.ledger.moves_since(&part.function, hour);
            function_moves.push(settings.most_moves_per_function_hour.saturating_sub(moved));
            last = Some(&part.function);
        }
        pieces.push(Piece {
            part,
            source,
            cpu: part.cores,
            memory: part.memory_mb / shard.memory_mb * shard.cores,
            price: settings.move_price_core_minutes + part.load_core_minutes,
            allowed: allowed(problem, part, &targets, cooling),
            function: function_moves.len() - 1,
        });
    }
    Reduced {
        sources: sources.into_iter().map(|(_, source)| source).collect(),
        targets,
        pieces,
        function_moves,
        moves: settings.most_moves_hour.saturating_sub(problem.ledger.all_moves_since(hour)),
        minutes: settings.horizon_minutes,
    }
}

/// The room of a shard that may take; a shard with a bottleneck of any kind is none, nor is one of which little is known.
fn taker<'a>(shard: &'a ShardOutlook, settings: &BalanceSettings) -> Option<Taker<'a>> {
    let (cpu, memory) = (shard.cpu?, shard.memory?);
    let slow = shard.latency_ms.is_some_and(|latency| latency.value > settings.latency_threshold_ms);
    if !shard.accepts || slow {
        return None;
    }
    let cores = (settings.cpu_threshold - settings.headroom - cpu.high) * shard.cores;
    let memory_mb = (settings.memory_threshold - settings.headroom - memory.high) * shard.memory_mb;
    (cores > 0.0 && memory_mb > 0.0).then_some(Taker { id: &shard.id, cores, memory_mb })
}

fn allowed(
    problem: &BalanceProblem<'_>,
    part: &Part,
    targets: &[Taker<'_>],
    cooling: shardwise_types::Timestamp,
) -> Option<Vec<usize>> {
    let moves = problem.ledger.of(&part.function);
    let barred = |id: &ShardId| moves.iter().any(|step| step.at >= cooling && step.from_shard == *id);
    if part.allowed.is_none() && !moves.iter().any(|step| step.at >= cooling) {
        return None;
    }
    let may = |id: &ShardId| part.allowed.as_ref().is_none_or(|ids| ids.contains(id)) && !barred(id);
    Some((0..targets.len()).filter(|place| may(targets[*place].id)).collect())
}
