//! What plans do to a fleet: the same world, traffic and placement with and without a planner, judged by latency, full
//! shards, cold starts and what it cost, never by the error of a forecast.

mod cases;
mod meter;
mod steward;

use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use shardwise_planner::VolatilityResponse;
use shardwise_policies::Policy;
use shardwise_simulator::{Operations, RunSummary, SimulateOptions, Workload, WorldSpec, simulate_operated};

use crate::EvaluationError;
pub use cases::{
    ArmRatios, CaseOptions, CaseResult, CaseWorld, Check, PairedArm, PlanCase, SpikeDemand, case_world, paired_arms,
};
use meter::Meter;
pub use meter::{Phase, PhaseLatency};
pub use steward::{Alert, Reaction, Steward, StewardParts};

/// From an order to the instant at which all follow it, in ms, as control has it.
pub const LEAD_MS: f64 = 10_000.0;

/// The world, its traffic, who places in it, and what is looked at.
pub struct PlanSetting<'a> {
    /// The world.
    pub world: &'a WorldSpec,
    /// The traffic.
    pub workload: &'a Workload,
    /// Makes one router's policy; the same in all arms.
    pub make: &'a dyn Fn() -> Box<dyn Policy>,
    /// Seed of run times, failures, delays and noise.
    pub seed: u64,
    /// Share of the time that is not measured.
    pub warm_up: f64,
    /// Stretches of time that are looked at by themselves.
    pub phases: &'a [Phase],
    /// Time between looks, in ms.
    pub look_ms: f64,
    /// Until a shard that joins answers, in ms.
    pub boot_ms: f64,
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanArm {
    /// What moved the furniture.
    pub name: String,
    /// Requests that were measured.
    pub requests: u64,
    /// Mean latency in ms.
    pub mean_ms: f64,
    /// Median in ms.
    pub p50_ms: f64,
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
    /// Busy core time over core capacity.
    pub core_use: f64,
    /// Minutes of single shards whose reported CPU was above 85 % in the mean.
    pub shard_minutes_over: u64,
    /// Minutes of single shards that reported at all.
    pub shard_minutes: u64,
    /// Mean share of the shards' memory in use.
    pub memory: f64,
    /// Latency by phase, in the order of the setting.
    pub phases: Vec<PhaseLatency>,
    /// Functions that were moved.
    pub moves: u64,
    /// Functions that came back to a shard that they had left less than the cooldown before: must be 0.
    pub returns: u64,
    /// Functions × shards that were kept warm, and let cool.
    pub warmed: u64,
    /// See `warmed`.
    pub cooled: u64,
    /// Shards that were asked to join.
    pub joined: u64,
    /// Plans that were made and found nothing to do.
    pub idle_plans: u64,
    /// Plans that were solved once more right after they were made, and then were not empty: must be 0.
    pub not_idempotent: u64,
    /// Series that went by their last value when plans were last made, and series in all.
    pub switched_off: [u64; 2],
    /// The plan for the spike that was alerted to, if any: what it expected and asked for.
    pub spike_plan: Option<VolatilityResponse>,
}

/// Plays the traffic with somebody who moves the furniture, or nobody.
///
/// # Errors
/// When the world or the traffic is not sound, or it was interrupted.
pub fn run_plans(
    setting: &PlanSetting<'_>,
    name: &str,
    mut steward: Option<Steward>,
    interrupted: &AtomicBool,
) -> Result<PlanArm, EvaluationError> {
    if interrupted.load(Ordering::Relaxed) {
        return Err(EvaluationError::Interrupted);
    }
    let mut meter = Meter::new(setting.workload, setting.phases, setting.world.timing.timeout_ms);
    let policies: Vec<Box<dyn Policy>> = setting.world.routers.iter().map(|_| (setting.make)()).collect();
    let options = SimulateOptions { warm_up: setting.warm_up, ..SimulateOptions::default() };
    let operations = steward.as_mut().map(|steward| Operations {
        look_ms: setting.look_ms,
        lead_ms: LEAD_MS,
        boot_ms: setting.boot_ms,
        ..Operations::new(steward)
    });
    let run =
        simulate_operated(setting.world, setting.workload, setting.seed, policies, &mut meter, &options, operations);
    let summary = run.map_err(|error| EvaluationError::Simulation {
        policy: name.to_owned(),
        seed: setting.seed,
        problem: error.to_string(),
    })?;
    Ok(arm(name, &summary, meter, steward.as_ref()))
}

fn arm(name: &str, run: &RunSummary, meter: Meter, steward: Option<&Steward>) -> PlanArm {
    let counts = steward.map(Steward::counts).unwrap_or_default();
    PlanArm {
        name: name.to_owned(),
        requests: run.requests,
        mean_ms: run.mean_ms,
        p50_ms: run.p50_ms,
        p99_ms: run.p99_ms,
        p999_ms: run.p999_ms,
        slo_miss: run.slo_miss,
        error_rate: run.error_rate,
        cold_rate: run.cold_rate,
        core_use: run.core_use,
        shard_minutes_over: meter.over(),
        shard_minutes: meter.minutes(),
        memory: meter.memory(),
        moves: counts.moves,
        returns: counts.returns,
        warmed: counts.warmed,
        cooled: counts.cooled,
        joined: counts.joined,
        idle_plans: counts.idle_plans,
        not_idempotent: counts.not_idempotent,
        switched_off: counts.switched_off,
        spike_plan: steward.and_then(Steward::response).cloned(),
        phases: meter.phases(),
    }
}
