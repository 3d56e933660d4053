//! What the arena compares on what.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shardwise_simulator::{
    FleetKind, FleetOptions, GeneratorOptions, LoadTestError, ReplayInputs, ReplayOptions, Scenario, Workload,
    WorkloadOptions, WorldSpec, generate_inputs, world_and_workload,
};
use shardwise_types::Timestamp;

/// How far apart regions are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Net {
    /// In one building: no distance.
    Lan,
    /// In one city: a tenth of the distances between continents.
    Metro,
    /// On four continents.
    Global,
}

impl Net {
    /// All distances.
    pub const ALL: [Self; 3] = [Self::Lan, Self::Metro, Self::Global];

    /// Its name in commands and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lan => "lan",
            Self::Metro => "metro",
            Self::Global => "global",
        }
    }

    /// Round trips as a share of those between continents.
    pub fn scale(self) -> f32 {
        match self {
            Self::Lan => 0.0,
            Self::Metro => 0.1,
            Self::Global => 1.0,
        }
    }
}

/// The grid: every list is crossed with every other.
#[derive(Debug, Clone, PartialEq)]
pub struct ArenaPlan {
    /// Which fleets.
    pub kind: FleetKind,
    /// Their seeds.
    pub fleets: Vec<u64>,
    /// Seeds of traffic, run times, faults and noise.
    pub seeds: Vec<u64>,
    /// Offered core time over the fleet's.
    pub loads: Vec<f64>,
    /// Numbers of routers.
    pub routers: Vec<usize>,
    /// Times between reports in s.
    pub report_ages_s: Vec<f64>,
    /// Distances.
    pub nets: Vec<Net>,
    /// Scenarios.
    pub scenarios: Vec<Scenario>,
    /// Names of policies.
    pub policies: Vec<String>,
    /// Requests of a cell, about: traffic is bursty and its duration is what is set.
    pub requests: usize,
    /// Shards of a fleet; the specification's fleet has its own.
    pub shards: usize,
    /// How unequal machines are, see [`FleetOptions`].
    pub heterogeneity: f32,
    /// What the scenario `replay` plays; without any, traces that are generated after real ones.
    pub traces: Option<Arc<ReplayInputs>>,
}

/// Share of a run in which routers learn and nothing is measured.
pub(crate) const WARM_UP: f64 = 1.0 / 6.0;
/// When cells begin: noon of a Monday, in ns.
const START_NS: i64 = 1_767_614_400_000_000_000;
/// Rounds of scaling a replay's run times to the load: loading does not scale with them.
const SCALINGS: usize = 4;
/// Traffic that tells how long a cell must last.
const TRIAL_MS: f64 = 20_000.0;

impl Default for ArenaPlan {
    /// One fleet and seed at load 0.7 with one router, metropolitan distances and reports once a second.
    fn default() -> Self {
        Self {
            kind: FleetKind::Heterogeneous,
            fleets: vec![1],
            seeds: vec![11],
            loads: vec![0.7],
            routers: vec![1],
            report_ages_s: vec![1.0],
            nets: vec![Net::Metro],
            scenarios: vec![Scenario::Base],
            policies: Vec::new(),
            requests: 30_000,
            shards: 20,
            heterogeneity: 1.0,
            traces: None,
        }
    }
}

/// Names a cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellKey {
    /// The scenario.
    pub scenario: String,
    /// Offered core time over the fleet's.
    pub load: f64,
    /// Routers.
    pub routers: usize,
    /// Time between reports in s.
    pub report_age_s: f64,
    /// Distances.
    pub net: Net,
    /// Seed of the fleet.
    pub fleet: u64,
    /// Seed of the traffic and all else.
    pub seed: u64,
}

/// A cell to be run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CellPlan {
    pub(crate) scenario: Scenario,
    pub(crate) load: f64,
    pub(crate) routers: usize,
    pub(crate) report_age_s: f64,
    pub(crate) net: Net,
    pub(crate) fleet: u64,
    pub(crate) seed: u64,
}

impl CellPlan {
    pub(crate) fn key(&self) -> CellKey {
        let Self { scenario, load, routers, report_age_s, net, fleet, seed } = *self;
        CellKey { scenario: scenario.as_str().to_owned(), load, routers, report_age_s, net, fleet, seed }
    }
}

impl ArenaPlan {
    /// Cells in the order of the lists; the last list varies fastest.
    pub(crate) fn cells(&self) -> Vec<CellPlan> {
        let mut cells = Vec::new();
        for &scenario in &self.scenarios {
            for &net in &self.nets {
                for &report_age_s in &self.report_ages_s {
                    for &routers in &self.routers {
                        for &load in &self.loads {
                            for &fleet in &self.fleets {
                                for &seed in &self.seeds {
                                    cells.push(CellPlan { scenario, load, routers, report_age_s, net, fleet, seed });
                                }
                            }
                        }
                    }
                }
            }
        }
        cells
    }

    /// Runs that the plan asks for.
    pub fn runs(&self) -> usize {
        self.cells().len() * self.policies.len()
    }

    /// The fleet of a seed with so many routers, as it is in `base`; what models of this fleet are trained on.
    pub fn world(&self, fleet: u64, routers: usize, net: Net) -> WorldSpec {
        WorldSpec::generate_kind(self.kind, fleet, &self.fleet_options(routers, net))
    }

    fn fleet_options(&self, routers: usize, net: Net) -> FleetOptions {
        FleetOptions {
            shards: self.shards,
            routers,
            net_scale: net.scale(),
            heterogeneity: self.heterogeneity,
            ..FleetOptions::default()
        }
    }

    /// The world and the traffic of a cell.
    pub(crate) fn play(&self, cell: &CellPlan) -> Result<(WorldSpec, Workload), LoadTestError> {
        if cell.scenario == Scenario::Replay {
            return self.replay(cell);
        }
        let fleet = self.fleet_options(cell.routers, cell.net);
        let mut world = self.world(cell.fleet, cell.routers, cell.net);
        world.timing.report_interval_ms = cell.report_age_s * 1e3;
        world.timing.report_jitter_ms = world.timing.report_jitter_ms.min(world.timing.report_interval_ms / 2.0);
        let start = Timestamp::from_nanos(START_NS);
        let trial = WorkloadOptions::new(start, TRIAL_MS, cell.load);
        let of_trial = Workload::generate(&world, cell.seed, &trial)?.arrivals.len().max(1);
        let duration_ms = TRIAL_MS * self.requests as f64 / of_trial as f64;
        let options = WorkloadOptions::new(start, duration_ms, cell.load);
        let workload = cell.scenario.play(&mut world, cell.fleet, &fleet, cell.seed, &options)?;
        Ok((world, workload))
    }

    /// Traces on this fleet's machines, for as long as the requests of a cell take, run times scaled to the load.
    fn replay(&self, cell: &CellPlan) -> Result<(WorldSpec, Workload), LoadTestError> {
        let generated = match &self.traces {
            Some(_) => None,
            None => Some(generate_inputs(cell.fleet, &GeneratorOptions { days: 1, ..GeneratorOptions::default() })?),
        };
        let inputs = self.traces.as_deref().or(generated.as_ref()).expect("traces are given or were generated");
        let minutes = inputs.arrivals.iter().map(|trace| trace.per_minute.len()).max().unwrap_or(0).max(1);
        let all: u64 = inputs.arrivals.iter().flat_map(|trace| &trace.per_minute).map(|count| u64::from(*count)).sum();
        let hours = (self.requests as f64 / all.max(1) as f64 * minutes as f64 / 60.0).clamp(0.1, 24.0);
        let mut options = ReplayOptions {
            shards: self.shards,
            routers: cell.routers,
            net_scale: cell.net.scale(),
            heterogeneity: self.heterogeneity,
            duration_scale: 0.1,
            ..ReplayOptions::new(cell.fleet, Timestamp::from_nanos(START_NS), hours)
        };
        let mut played = world_and_workload(inputs, &options)?;
        for _ in 0..SCALINGS {
            let offered = played.1.offered_load(&played.0);
            options.duration_scale = (options.duration_scale * cell.load / offered).clamp(1e-4, 1e3);
            played = world_and_workload(inputs, &options)?;
        }
        Ok(played)
    }
}
