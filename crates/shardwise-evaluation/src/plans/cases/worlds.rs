//! Worlds and traffic of the cases.

use shardwise_simulator::{
    Fault, FaultKind, FleetOptions, FunctionSpec, LoadTestError, ReplayInputs, ReplayOptions, ShardSpec, Spike,
    Workload, WorkloadOptions, WorldError, WorldSpec, world_and_workload,
};
use shardwise_types::{InvalidInput, MarketBar, ShardId, Timestamp};

use super::{CaseOptions, CaseWorld, PlanCase};
use crate::EvaluationError;
use crate::plans::Phase;

/// A Monday, in seconds since 1970: 2026-01-05.
const START_S: i64 = 1_767_571_200;
/// Protocol of the functions that a spike asks for.
const ARBITRAGE: &str = "arbitrage";
const MINUTE_MS: f64 = 60_000.0;
/// Until a spike has its height, in ms.
const RAMP_MS: f64 = 30_000.0;
/// Drift: in the second half of a day, every third shard takes so many times as long.
const DRIFT: f64 = 1.6;
/// Bounds of the factor on run times, and halvings of it until the load is met.
const SCALES: [f64; 2] = [1e-3, 1e2];
const HALVINGS: u32 = 20;
/// No run takes longer in the mean than this share of the timeout.
const LONGEST: f64 = 1.0 / 3.0;

fn start() -> Timestamp {
    Timestamp::from_nanos(START_S * 1_000_000_000)
}

fn refused(error: WorldError) -> EvaluationError {
    LoadTestError::from(error).into()
}

fn out_of_range(field: &str, problem: impl Into<String>) -> EvaluationError {
    refused(InvalidInput::new(field, problem).into())
}

pub(super) fn check(options: &CaseOptions) -> Result<(), EvaluationError> {
    let [calm, spike] = options.spike_minutes;
    for (field, value, least, most) in [
        ("load", options.load, 1e-6, 10.0),
        ("shards", options.shards as f64, 1.0, 1e4),
        ("calmMinutes", calm, 3.0 + options.longest_lead_ms() / MINUTE_MS, 1e4),
        ("spikeMinutes", spike, 3.0, 1e4),
        ("spikeFactor", options.spike_factor, 1.0, 1e3),
        ("assumedVolatility", options.assumed_volatility, 1.0, 1e3),
    ] {
        if !(value >= least && value <= most) {
            let problem = format!("{value} is out of range; it must lie from {least} to {most}");
            return Err(out_of_range(field, problem));
        }
    }
    let sound = options.alert_leads_ms.iter().all(|lead| lead.is_finite() && *lead >= 0.0);
    if sound { Ok(()) } else { Err(out_of_range("alertLeadsMs", "must be finite numbers, 0 or more")) }
}

/// A replay at a load; a day has drift as well.
pub(super) fn replay(
    case: PlanCase,
    options: CaseOptions,
    inputs: &ReplayInputs,
) -> Result<CaseWorld, EvaluationError> {
    let mut replay = ReplayOptions::new(options.seed, start(), options.hours);
    replay.shards = options.shards;
    let (mut world, workload) = world_and_workload(inputs, &replay).map_err(refused)?;
    scale(&mut world, &workload, options.load);
    let load = workload.offered_load(&world);
    if case == PlanCase::Day {
        let half = options.hours * 60.0 * MINUTE_MS / 2.0;
        let slower = Fault { from_ms: half, until_ms: 2.0 * half, kind: FaultKind::Slow(DRIFT) };
        world.shards.iter_mut().step_by(3).for_each(|shard| shard.faults.push(slower));
    }
    Ok(CaseWorld { case, world, workload, load, table: None, options, phases: Vec::new(), standby: Vec::new() })
}

/// Scales run times until the load is met, by halving.
fn scale(world: &mut WorldSpec, workload: &Workload, load: f64) {
    let base: Vec<f64> = world.functions.iter().map(|function| function.base_ms).collect();
    let most = world.timing.timeout_ms * LONGEST;
    let [mut low, mut high] = SCALES.map(f64::ln);
    for _ in 0..HALVINGS {
        let middle = (low + high) / 2.0;
        for (function, base) in world.functions.iter_mut().zip(&base) {
            function.base_ms = (base * middle.exp()).clamp(0.5, most);
        }
        if workload.offered_load(world) < load { low = middle } else { high = middle }
    }
}

/// A generated fleet, some of it absent; calm, then arbitrage.
pub(super) fn spike(options: CaseOptions, crash: &[MarketBar]) -> Result<CaseWorld, EvaluationError> {
    let fleet = FleetOptions { shards: options.shards + options.standby, functions: 150, ..FleetOptions::default() };
    let mut world = WorldSpec::generate(options.seed, &fleet);
    let cores = world.cores();
    // Who may see any amount has nobody to stand in for it.
    let may_miss = |shard: &&mut ShardSpec| shard.shape.max_amount_usd.is_some();
    let absent = Fault { from_ms: 0.0, until_ms: 1e10, kind: FaultKind::Absent };
    let mut standby: Vec<ShardId> = Vec::new();
    for shard in world.shards.iter_mut().rev().filter(may_miss).take(options.standby) {
        shard.faults = vec![absent];
        standby.push(shard.id.clone());
    }
    let there: f64 = world.shards.iter().filter(|shard| !standby.contains(&shard.id)).map(cores_of).sum();
    let [calm_ms, spike_ms] = options.spike_minutes.map(|minutes| minutes * MINUTE_MS);
    let traffic = WorkloadOptions::new(start(), calm_ms + spike_ms, options.load * there / cores);
    let calm = Workload::generate(&world, options.seed, &traffic).map_err(refused)?;
    let load = calm.offered_load(&world) * cores / there;
    let spike = Spike::of_crash(crash, calm_ms, RAMP_MS, options.spike_factor).map_err(refused)?;
    let is_arbitrage = |function: &FunctionSpec| function.protocol.as_str() == ARBITRAGE;
    let workload = calm.with_spike(&world, options.seed, &spike, is_arbitrage);
    let phase = |name: &str, from_ms: f64, until_ms: f64| Phase { name: name.to_owned(), from_ms, until_ms };
    let phases = vec![
        phase("calm", 2.0 * MINUTE_MS, calm_ms - options.longest_lead_ms()),
        phase("first two minutes", calm_ms, calm_ms + 2.0 * MINUTE_MS),
        phase("spike", calm_ms, calm_ms + spike_ms),
    ];
    Ok(CaseWorld { case: PlanCase::Spike, world, workload, load, table: None, options, phases, standby })
}

pub(super) fn cores_of(shard: &ShardSpec) -> f64 {
    f64::from(shard.shape.cores).floor()
}
