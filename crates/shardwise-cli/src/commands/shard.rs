//! `shardwise shard` and `shardwise fleet up`: reference shards that run real functions.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use miette::{IntoDiagnostic, miette};
use shardwise_server::fleet_up::{
    FleetError, FleetEvent, FleetOptions, FleetPlan, RunOptions, run as run_fleet, this_program,
};
use shardwise_server::shard::{Envelope, ShardOptions, run as run_shard};
use shardwise_types::HardwareClass;

use super::files;
use crate::arguments::{FleetUpArguments, ShardArguments};
use crate::output;

/// How often a fleet is begun again on other free ports.
const OTHER_PORTS: u32 = 3;

pub(crate) fn run(arguments: &ShardArguments) -> miette::Result<()> {
    output::log::show();
    let options = options(arguments)?;
    let stop: &AtomicBool = output::interrupt_flag();
    run_shard(
        &options,
        |_: &Envelope| (),
        stop,
        |address| {
            output::note(format!("{} runs functions at {address}", options.id));
        },
    )
    .into_diagnostic()
}

/// The file's options, and over them those of the command line.
fn options(arguments: &ShardArguments) -> miette::Result<ShardOptions> {
    let mut options = match &arguments.options {
        Some(path) => read(path)?,
        None => ShardOptions::default(),
    };
    if let Some(id) = &arguments.id {
        options.id = id.as_str().into();
    }
    if let Some(listen) = arguments.listen {
        options.listen = listen;
    }
    if let Some(region) = &arguments.region {
        options.shape.region = region.as_str().into();
    }
    if let Some(hardware) = &arguments.hardware {
        options.shape.hardware = HardwareClass::parse(hardware).into_diagnostic()?;
    }
    options.shape.cores = arguments.cores.unwrap_or(options.shape.cores);
    options.shape.memory_mb = arguments.memory_mb.unwrap_or(options.shape.memory_mb);
    options.speed = arguments.speed.unwrap_or(options.speed);
    options.seed = arguments.seed.unwrap_or(options.seed);
    options.nats = arguments.nats.clone().or(options.nats);
    options.state = arguments.state.clone().or(options.state);
    options.report_to.extend(arguments.report_to.iter().cloned());
    let access = arguments.access.files();
    options.token_file = access.token_file.or(options.token_file);
    options.ca_file = access.ca_file.or(options.ca_file);
    for fault in &arguments.fault {
        options.faults.push(fault.parse().into_diagnostic()?);
    }
    Ok(options)
}

fn read(path: &Path) -> miette::Result<ShardOptions> {
    serde_json::from_str(&files::read(path)?).map_err(|error| miette!("{}: {error}", path.display()))
}

pub(crate) fn fleet_up(arguments: &FleetUpArguments, json: bool) -> miette::Result<()> {
    output::log::show();
    let mut options = FleetOptions {
        shards: arguments.shards,
        seed: arguments.seed,
        first_port: arguments.first_port,
        report_to: arguments.report_to.clone(),
        access: arguments.access.files(),
        nats: arguments.nats.clone(),
        ..FleetOptions::default()
    };
    options.pace = arguments.pace.unwrap_or(options.pace);
    for fault in &arguments.fault {
        let (shard, fault) = fault.split_once(':').ok_or_else(|| {
            miette!(help = "such as shard-general:slow=3@10000..20000", "'{fault}' is no SHARD:FAULT")
        })?;
        options.faults.push((shard.into(), fault.parse().into_diagnostic()?));
    }
    let run = RunOptions { directory: &arguments.dir, restart: !arguments.no_restart };
    let mut ready = None;
    let mut once = || {
        let plan = FleetPlan::new(&options)?;
        run_fleet(&plan, &run, &this_program, output::interrupt_flag(), &mut |event| {
            if let FleetEvent::Ready(file) = event {
                ready = Some(file.clone());
            }
            output::note(told(event, &arguments.dir));
        })
    };
    let mut ended = once();
    // Somebody may take a port between the moment that it is found free and the one that its shard listens there.
    for _ in 0..OTHER_PORTS {
        if !matches!(ended, Err(FleetError::Taken { .. })) || options.first_port.is_some() {
            break;
        }
        ended = once();
    }
    ended.into_diagnostic()?;
    match ready {
        Some(file) if json => output::print_json(&file),
        _ => Ok(()),
    }
}

fn told(event: &FleetEvent, dir: &Path) -> String {
    match event {
        FleetEvent::Ready(file) => {
            let path = dir.join(shardwise_server::fleet_up::FLEET_FILE);
            format!("{} shards are ready; {} says where, Ctrl-C ends them", file.shards.len(), path.display())
        }
        FleetEvent::Died { shard, status, again_in: Some(wait) } => {
            format!("{shard} ended ({status}); it is started again in {:.1} s", wait.as_secs_f64())
        }
        FleetEvent::Died { shard, status, again_in: None } => format!("{shard} ended ({status}) and is left as it is"),
        FleetEvent::Restarted { shard, pid } => format!("{shard} runs again as process {pid}"),
        FleetEvent::NotRestarted { shard, problem } => format!("{shard} could not be started again: {problem}"),
    }
}
