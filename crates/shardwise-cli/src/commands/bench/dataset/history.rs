//! The history of the benchmark: some days of traffic on one fleet, each as long as it takes to make its decisions.

use std::path::{Path, PathBuf};

use miette::{IntoDiagnostic, miette};
use serde::Serialize;
use shardwise_datasets::{History, HistoryWriter};
use shardwise_policies::{Policy, by_name};
use shardwise_simulator::{FleetOptions, Numbered, WorldSpec, simulate, workload_of_requests};

use crate::arguments::BenchDatasetArguments;
use crate::commands::history::Recording;
use crate::output::{self, Stage};

/// Noon of a Monday.
const FIRST_DAY: &str = "2026-01-05T12:00:00Z";
const DAY_MS: f64 = 86_400_000.0;
/// Load of the arena's middle.
const LOAD: f64 = 0.7;
/// It explores, and needs no model.
const POLICY: &str = "sed_tab_softmax";
/// More traffic than is wanted, to be cut: how much comes in a time is known about only.
const MARGIN: f64 = 1.3;

/// Where the history is, and what it took to make.
#[derive(Serialize)]
pub(super) struct Made {
    pub(super) dir: PathBuf,
    pub(super) decisions: u64,
    /// Seconds of simulating and writing; nothing when it was there.
    seconds: Option<f64>,
}

/// Makes the history in a folder, unless it is there.
pub(super) fn history(parent: &Path, options: &BenchDatasetArguments) -> miette::Result<Made> {
    let BenchDatasetArguments { decisions, days, routers, seed, .. } = options;
    let dir = parent.join(format!("history-{decisions}-{days}-{routers}-{seed}"));
    let mut seconds = None;
    if !dir.exists() {
        let begun = output::clock_ns();
        write(&dir, options)?;
        seconds = Some((output::clock_ns() - begun) as f64 / 1e9);
    }
    let rows = History::open(&dir).into_diagnostic()?.row_counts();
    Ok(Made { dir, decisions: rows["decisions"], seconds })
}

fn write(dir: &Path, options: &BenchDatasetArguments) -> miette::Result<()> {
    let fleet = FleetOptions { routers: options.routers, ..FleetOptions::default() };
    let world = WorldSpec::generate(options.seed, &fleet);
    let world_json = serde_json::to_string(&world).into_diagnostic()?;
    let writer = HistoryWriter::create(dir, &world.network, Some(&world_json)).into_diagnostic()?;
    let mut recording = Recording::new(writer, Stage::start(format!("simulating {} decisions", options.decisions)));
    for day in 0..options.days {
        let requests = (options.decisions * (day + 1) / options.days - options.decisions * day / options.days) as usize;
        let start = FIRST_DAY.parse::<shardwise_types::Timestamp>().into_diagnostic()?.plus_millis(DAY_MS * day as f64);
        let seed = options.seed + day;
        let wanted = (requests as f64 * MARGIN) as usize;
        let mut workload = workload_of_requests(&world, seed, start, LOAD, wanted).into_diagnostic()?;
        workload.arrivals.truncate(requests);
        let mut numbered = Numbered::new(&mut recording, day);
        let policies = world.routers.iter().map(|_| policy(&world)).collect::<miette::Result<Vec<_>>>()?;
        simulate(&world, &workload, seed, policies, &mut numbered).into_diagnostic()?;
        if output::is_interrupted() {
            break;
        }
    }
    let (written, stage) = recording.finish()?;
    stage.done(format!("{:.0} MiB", written.bytes as f64 / 1_048_576.0));
    Ok(())
}

fn policy(world: &WorldSpec) -> miette::Result<Box<dyn Policy>> {
    by_name(POLICY, world.timing.runtime()).ok_or_else(|| miette!("there is no policy '{POLICY}'"))
}
