//! The cases that plans are judged by: a day, a spike, and what is kept warm; each a world with its traffic, and the arms
//! that are played in it.
//!
//! | case | world | arms |
//! |---|---|---|
//! | day | replayed arrivals, slow stretches of machines, a third of the shards slower from noon on | each part of the planner, and all |
//! | spike | a generated fleet with shards that stand by; arbitrage grows manyfold, and falls as the volume of a crash does | nothing, reactive scaling, a plan that an alert begins |
//! | warm | replayed arrivals | keep-warm |

mod arms;
mod results;
mod worlds;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::Serialize;
use shardwise_features::ServiceTable;
use shardwise_policies::Policy;
use shardwise_simulator::{ReplayInputs, Workload, WorldSpec};
use shardwise_types::{MarketBar, ShardId};

use crate::EvaluationError;
use crate::plans::{Phase, PlanArm, PlanSetting, run_plans};
pub use results::{ArmRatios, CaseResult, Check, PairedArm, SpikeDemand, paired_arms};

/// Until a shard that joins answers, in ms.
pub(super) const BOOT_MS: f64 = 30_000.0;

/// What plans are judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanCase {
    /// A loaded day with drift.
    Day,
    /// A spike of arbitrage.
    Spike,
    /// Cold starts.
    Warm,
}

impl PlanCase {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Day, Self::Spike, Self::Warm];

    /// Its name in commands.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Spike => "spike",
            Self::Warm => "warm",
        }
    }

    /// Offered loads that it is played at: see [`CaseOptions::load`].
    pub fn loads(self) -> &'static [f64] {
        match self {
            Self::Day => &[0.6],
            Self::Spike => &[0.55],
            Self::Warm => &[0.12, 0.4],
        }
    }
}

/// How large a case is.
#[derive(Debug, Clone, PartialEq)]
pub struct CaseOptions {
    /// Seed of the world, the traffic and the run.
    pub seed: u64,
    /// Offered core time over the cores of the shards that are there, as [`Workload::offered_load`] counts it, above 0. Run
    /// times of replays are scaled to it; where loading alone takes more, they are as short as they can be.
    pub load: f64,
    /// Length of a replay in hours, above 0.
    pub hours: f64,
    /// Shards that are there from the beginning, 1 or more.
    pub shards: usize,
    /// Shards that stand by in a spike.
    pub standby: usize,
    /// Minutes of calm before a spike, and of the spike, each 3 or more.
    pub spike_minutes: [f64; 2],
    /// Height of the spike: so many times as much arbitrage, within 30 s; above 1.
    pub spike_factor: f64,
    /// Volatility over the usual that plans for the spike assume, above 1.
    pub assumed_volatility: f64,
    /// How long before the spike the alert comes, in ms, 0 or more; an arm for each.
    pub alert_leads_ms: Vec<f64>,
}

impl CaseOptions {
    /// A day on twelve shards; a tenfold spike after ten minutes of calm, with 36 shards that stand by and alerts up to
    /// 90 s before. The load is the first of the case.
    pub fn new(case: PlanCase, seed: u64) -> Self {
        Self {
            seed,
            load: case.loads()[0],
            hours: 24.0,
            shards: 12,
            standby: 36,
            spike_minutes: [10.0, 10.0],
            spike_factor: 10.0,
            assumed_volatility: 4.0,
            alert_leads_ms: vec![0.0, 30_000.0, 60_000.0, 90_000.0],
        }
    }

    fn longest_lead_ms(&self) -> f64 {
        self.alert_leads_ms.iter().copied().fold(0.0, f64::max)
    }
}

/// A case before it is played; a model may be trained on its world first.
#[derive(Debug, Clone)]
pub struct CaseWorld {
    /// The case.
    pub case: PlanCase,
    /// The world.
    pub world: WorldSpec,
    /// The traffic.
    pub workload: Workload,
    /// Offered load as it came out, over the shards that are there from the beginning.
    pub load: f64,
    /// The service table of the model that places, for whoever plans; none without a model.
    pub table: Option<Arc<ServiceTable>>,
    options: CaseOptions,
    phases: Vec<Phase>,
    standby: Vec<ShardId>,
}

/// Makes the world and the traffic of a case. A spike needs bars of a market with a crash and no replay inputs, the other
/// cases the opposite.
///
/// # Errors
/// Options out of range, traces that are missing, bars without a crash.
pub fn case_world(
    case: PlanCase,
    options: CaseOptions,
    inputs: &ReplayInputs,
    crash: &[MarketBar],
) -> Result<CaseWorld, EvaluationError> {
    worlds::check(&options)?;
    match case {
        PlanCase::Spike => worlds::spike(options, crash),
        PlanCase::Day | PlanCase::Warm => worlds::replay(case, options, inputs),
    }
}

impl CaseWorld {
    /// Plays all arms; `progress` hears of each that is done.
    ///
    /// # Errors
    /// When the world or the traffic is not sound, or it was interrupted.
    pub fn run(
        &self,
        make: &dyn Fn() -> Box<dyn Policy>,
        progress: &mut dyn FnMut(&PlanArm),
        interrupted: &AtomicBool,
    ) -> Result<CaseResult, EvaluationError> {
        self.run_some(&|_| true, make, progress, interrupted)
    }

    /// Plays the arms with names that are wanted.
    fn run_some(
        &self,
        wanted: &dyn Fn(&str) -> bool,
        make: &dyn Fn() -> Box<dyn Policy>,
        progress: &mut dyn FnMut(&PlanArm),
        interrupted: &AtomicBool,
    ) -> Result<CaseResult, EvaluationError> {
        let setting = PlanSetting {
            world: &self.world,
            workload: &self.workload,
            make,
            seed: self.options.seed,
            warm_up: if self.case == PlanCase::Spike { 0.05 } else { 0.1 },
            phases: &self.phases,
            look_ms: if self.case == PlanCase::Spike { 10_000.0 } else { 60_000.0 },
            boot_ms: BOOT_MS,
        };
        let mut arms = Vec::new();
        for (name, parts) in self.arms().into_iter().filter(|(name, _)| wanted(name)) {
            let steward = parts.map(|parts| self.steward(parts)).transpose()?;
            let arm = run_plans(&setting, &name, steward, interrupted)?;
            progress(&arm);
            arms.push(arm);
        }
        Ok(CaseResult::of(self, arms))
    }
}

#[cfg(test)]
mod tests;
