//! `shardwise history …`: a simulated fleet under generated or real traffic, written as history.

use std::ops::ControlFlow;

use miette::{IntoDiagnostic, miette};
use serde_json::json;
use shardwise_datasets::{DatasetError, HistorySummary, HistoryWriter, traces};
use shardwise_simulator::{
    FleetOptions, GeneratorOptions, Recorder, ReplayInputs, ReplayOptions, Workload, WorkloadOptions, WorldSpec,
    generate_inputs, simulate as play, world_and_workload,
};
use shardwise_types::{HistoryRecord, combine_keys};

use super::placers::{MODEL_POLICY, MakePolicy, Wanted, maker};
use crate::arguments::{ReplayArguments, RunArguments, SimulateArguments, Traffic};
use crate::output::{self, Stage};

const MS_PER_HOUR: f64 = 3.6e6;

pub(crate) fn simulate(options: &SimulateArguments, json: bool) -> miette::Result<()> {
    let run = &options.run;
    run_in_range(run)?;
    in_range("--hours", options.hours, 1e-4, 24.0 * 366.0)?;
    if options.traffic == Traffic::Calibrated {
        return simulate_calibrated(options, json);
    }
    in_range("--load", options.load, 1e-3, 2.0)?;
    let fleet = FleetOptions { shards: run.shards, routers: run.routers, ..FleetOptions::default() };
    let world = WorldSpec::generate(options.fleet_seed, &fleet);
    let traffic = WorkloadOptions::new(options.start, options.hours * MS_PER_HOUR, options.load);
    let workload = Workload::generate(&world, run.seed, &traffic).into_diagnostic()?;
    write(&world, &workload, run, json)
}

/// Generated traces take the way of real ones.
fn simulate_calibrated(options: &SimulateArguments, json: bool) -> miette::Result<()> {
    let run = &options.run;
    in_range("--hours", options.hours, 0.01, 24.0 * 31.0)?;
    in_range("--duration-scale", options.duration_scale, 1e-3, 1e3)?;
    let from_midnight = options.hours + options.start.hour_utc();
    let traces = GeneratorOptions {
        functions: options.functions,
        days: ((from_midnight / 24.0).ceil() as usize).clamp(1, 31),
        market_minutes: (options.hours * 60.0).ceil() as usize + 120,
    };
    let stage = Stage::start("generating traces");
    let inputs = generate_inputs(run.seed, &traces).into_diagnostic()?;
    stage.done(format!("{} functions, {} days", inputs.arrivals.len(), traces.days));
    let replayed = ReplayOptions {
        shards: run.shards,
        routers: run.routers,
        duration_scale: options.duration_scale,
        ..ReplayOptions::new(run.seed, options.start, options.hours)
    };
    let (world, workload) = world_and_workload(&inputs, &replayed).into_diagnostic()?;
    write(&world, &workload, run, json)
}

pub(crate) fn replay(options: &ReplayArguments, json: bool) -> miette::Result<()> {
    let run = &options.run;
    run_in_range(run)?;
    in_range("--hours", options.hours, 0.01, 24.0)?;
    in_range("--duration-scale", options.duration_scale, 1e-3, 1e3)?;
    let reading = Stage::start("reading traces");
    let inputs = ReplayInputs {
        arrivals: traces::read_arrivals(&options.arrivals).into_diagnostic()?,
        durations_ms: traces::read_durations(&options.durations).into_diagnostic()?,
        memory_mb: traces::read_memory(&options.memory).into_diagnostic()?,
        load_ms: Vec::new(),
        market: traces::read_market(&options.market).into_diagnostic()?,
        speed: traces::read_speed_noise(&options.speed_noise).into_diagnostic()?,
    };
    reading.done(format!("{} functions, {} minutes of market", inputs.arrivals.len(), inputs.market.len()));
    let replayed = ReplayOptions {
        shards: run.shards,
        routers: run.routers,
        duration_scale: options.duration_scale,
        ..ReplayOptions::new(run.seed, options.start, options.hours)
    };
    let (world, workload) = world_and_workload(&inputs, &replayed).into_diagnostic()?;
    write(&world, &workload, run, json)
}

fn write(world: &WorldSpec, workload: &Workload, run: &RunArguments, json: bool) -> miette::Result<()> {
    let make = policy(run, world)?;
    let policies = (0..world.routers.len()).map(|_| make()).collect();
    let world_json = serde_json::to_string(world).into_diagnostic()?;
    let writer = HistoryWriter::create(&run.out, &world.network, Some(&world_json)).into_diagnostic()?;
    let requests = workload.arrivals.len();
    let load = workload.offered_load(world);
    let stage = Stage::start(format!("simulating {requests} requests under {}, offered load {load:.2}", run.policy));
    let mut recording = Recording { share: run.log_share, ..Recording::new(writer, stage) };
    let summary = play(world, workload, run.seed, policies, &mut recording).into_diagnostic()?;
    let (written, stage) = recording.finish()?;
    let rows = |table: &str| written.rows.get(table).copied().unwrap_or(0);
    let (decisions, mean_ms, p99_ms) = (rows("decisions"), summary.mean_ms, summary.p99_ms);
    stage.done(format!("{decisions} decisions, mean {mean_ms:.1} ms, p99 {p99_ms:.1} ms"));
    if json {
        return output::print_json(&json!({
            "history": run.out, "decisions": decisions, "outcomes": rows("outcomes"),
            "shard_reports": rows("shard_reports"), "market": rows("market"), "days": written.days, "bytes": written.bytes,
            "mean_ms": mean_ms, "p99_ms": p99_ms, "core_use": summary.core_use, "offered_load": load,
        }));
    }
    let mebibytes = written.bytes as f64 / 1_048_576.0;
    println!("{}: {decisions} decisions, {} outcomes, {mebibytes:.1} MiB", run.out.display(), rows("outcomes"));
    Ok(())
}

/// How the policy of one router is made.
fn policy(run: &RunArguments, world: &WorldSpec) -> miette::Result<MakePolicy> {
    if run.models.is_some() && run.policy != MODEL_POLICY {
        let help = format!("add --policy {MODEL_POLICY}, or leave --models out");
        return Err(miette!(help = help, "the policy '{}' decides without a model", run.policy));
    }
    let wanted = Wanted { models: run.models.as_deref(), name: &run.name, version: &run.version };
    maker(&run.policy, &wanted, world.timing.runtime())
}

fn run_in_range(run: &RunArguments) -> miette::Result<()> {
    in_range("--shards", run.shards as f64, 1.0, 4_096.0)?;
    in_range("--routers", run.routers as f64, 1.0, 64.0)?;
    in_range("--log-share", run.log_share, 0.0, 1.0)
}

pub(super) fn in_range(option: &str, value: f64, least: f64, most: f64) -> miette::Result<()> {
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err(miette!("{option} {value} is out of range; it must lie between {least} and {most}"))
    }
}

/// Writes what happens as history; stops the run when the user or the disk says so.
pub(crate) struct Recording {
    writer: HistoryWriter,
    stage: Stage,
    /// Share of the decisions whose features are logged.
    share: f64,
    decisions: u64,
    failed: Option<DatasetError>,
}

impl Recording {
    /// Logs no features.
    pub(crate) fn new(writer: HistoryWriter, stage: Stage) -> Self {
        Self { writer, stage, share: 0.0, decisions: 0, failed: None }
    }

    /// Finishes the history, unless the user or the disk stopped the run; gives the stage back for its result.
    pub(crate) fn finish(self) -> miette::Result<(HistorySummary, Stage)> {
        if let Some(error) = self.failed {
            return Err(error).into_diagnostic();
        }
        output::stop_if_interrupted()?;
        Ok((self.writer.finish().into_diagnostic()?, self.stage))
    }
}

impl Recorder for Recording {
    fn record(&mut self, record: HistoryRecord) -> ControlFlow<()> {
        if matches!(record, HistoryRecord::Decision(_)) {
            self.decisions += 1;
            if self.decisions.is_multiple_of(20_000) {
                self.stage.at(format!("{} decisions", self.decisions));
            }
        }
        if output::is_interrupted() {
            return ControlFlow::Break(());
        }
        match self.writer.record(record) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.failed = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    fn wants_history(&self) -> bool {
        true
    }

    /// By a hash of the id, so that the same decisions are logged whatever else happens.
    fn wants_features(&self, decision_id: u64) -> bool {
        (combine_keys(decision_id, 0) as f64) < self.share * u64::MAX as f64
    }
}
