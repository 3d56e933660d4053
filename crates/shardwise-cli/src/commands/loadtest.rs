//! `shardwise loadtest`: a scenario's events to the simulated fleet or to a running server.

mod live;

use miette::IntoDiagnostic;
use serde_json::json;
use shardwise_evaluation::{HttpOptions, drive_http};
use shardwise_models::CHAMPION;
use shardwise_policies::Runtime;
use shardwise_simulator::{
    Arrival, FleetOptions, LoadEvent, LoadParameters, LoadResult, LoadRun, LoadSample, ShardLoad, Workload,
    WorkloadOptions, WorldSpec, capacity_plan, generate_load, load_arrivals, simulate_load, with_launch,
};
use shardwise_types::{ShardId, Timestamp};

use super::files;
use super::history::in_range;
use super::placers::{MakePolicy, Wanted, maker};
use crate::arguments::LoadtestArguments;
use crate::output::{self, Stage};

/// The simulator as a target.
const SIMULATOR: &str = "sim";
/// Simulated tests begin here, so that the same arguments give the same events.
const SIMULATED_START: &str = "2026-01-05T12:00:00Z";
/// Ordinary traffic begins so long before the first event: routers learn, functions warm up.
const LEAD_MS: f64 = 10_000.0;
/// Rows of the table that fit a screen, and the width of its bars.
const MOST_ROWS: usize = 24;
const BAR_WIDTH: f64 = 20.0;

pub(crate) fn run(options: &LoadtestArguments, json: bool) -> miette::Result<()> {
    in_range("--load", options.load, 0.0, 2.0)?;
    in_range("--concurrency", options.concurrency as f64, 1.0, 16_384.0)?;
    in_range("--timeout-ms", options.timeout_ms, 1.0, 600_000.0)?;
    in_range("--latest-ms", options.latest_ms.unwrap_or(options.timeout_ms), 1.0, 600_000.0)?;
    if options.target.contains('=') {
        return live::run(options, json);
    }
    let simulated = options.target == SIMULATOR;
    let start = if simulated { SIMULATED_START.parse().into_diagnostic()? } else { output::wall_clock() };
    let events = generate_load(options.scenario, &parameters(options)?, start, options.seed).into_diagnostic()?;
    let fleet = WorldSpec::generate(options.fleet_seed, &FleetOptions { routers: 2, ..FleetOptions::default() });
    let world = with_launch(&fleet, &events, options.seed);
    let arrivals = load_arrivals(&world, &events, options.seed).into_diagnostic()?;
    let samples = if simulated { simulate(options, &fleet, &world, &events)? } else { drive(options, &arrivals)? };
    let run = LoadRun {
        scenario: options.scenario,
        target: options.target.clone(),
        policy: simulated.then(|| options.policy.clone()),
        seed: options.seed,
    };
    let result = LoadResult::new(run, &samples).into_diagnostic()?;
    if let Some(path) = &options.out {
        files::write_json(path, &result)?;
    }
    if let Some(path) = &options.expected_out {
        files::write_json(path, &json!({ "byShardId": capacity_plan(&world, &arrivals) }))?;
    }
    if json {
        return output::print_json(&result);
    }
    print(&result);
    Ok(())
}

fn parameters(options: &LoadtestArguments) -> miette::Result<LoadParameters> {
    let (usual_events, usual_rate) = LoadParameters::usual_size(options.scenario);
    let rate = options.rate.unwrap_or(usual_rate);
    in_range("--rate", rate, 1e-2, 1e6)?;
    let events = match (options.events, options.duration) {
        (Some(events), _) => events,
        (None, Some(seconds)) => (seconds * rate) as usize,
        (None, None) => usual_events,
    };
    in_range("--events, or --duration times --rate,", events as f64, 1.0, 1e7)?;
    Ok(LoadParameters::sized(options.scenario, events, rate))
}

/// `fleet` is the world of the ordinary traffic, `world` the same with what is launched.
fn simulate(
    options: &LoadtestArguments,
    fleet: &WorldSpec,
    world: &WorldSpec,
    events: &[LoadEvent],
) -> miette::Result<Vec<LoadSample>> {
    let make = policy(options, world.timing.runtime())?;
    let stage = Stage::start(format!("playing {} events to the simulated fleet", events.len()));
    let policies = world.routers.iter().map(|_| make()).collect();
    let samples =
        simulate_load(world, background(options, fleet, events)?, events, options.seed, policies).into_diagnostic()?;
    stage.done("every event has its end");
    Ok(samples)
}

fn background(
    options: &LoadtestArguments,
    fleet: &WorldSpec,
    events: &[LoadEvent],
) -> miette::Result<Option<Workload>> {
    let (Some(first), Some(last)) = (events.first(), events.last()) else { return Ok(None) };
    if options.load == 0.0 {
        return Ok(None);
    }
    let start: Timestamp = first.timestamp.plus_millis(-LEAD_MS);
    let traffic = WorkloadOptions::new(start, last.timestamp.millis_since(start) + 1.0, options.load);
    Workload::generate(fleet, options.seed, &traffic).into_diagnostic().map(Some)
}

/// How the policy of one router is made.
fn policy(options: &LoadtestArguments, runtime: Runtime) -> miette::Result<MakePolicy> {
    let wanted = Wanted { models: options.models.as_deref(), name: &options.name, version: CHAMPION };
    maker(&options.policy, &wanted, runtime)
}

fn drive(options: &LoadtestArguments, arrivals: &[Arrival]) -> miette::Result<Vec<LoadSample>> {
    let seconds = match (arrivals.first(), arrivals.last()) {
        (Some(first), Some(last)) => last.at.millis_since(first.at) / 1e3,
        _ => 0.0,
    };
    let stage = Stage::start(format!("sending {} events to {} over {seconds:.0} s", arrivals.len(), options.target));
    let http = HttpOptions {
        concurrency: options.concurrency,
        latest_ms: options.latest_ms.unwrap_or(options.timeout_ms),
        timeout_ms: options.timeout_ms,
        access: options.access.files(),
    };
    let samples = drive_http(&options.target, arrivals, &http, output::interrupt_flag()).into_diagnostic()?;
    stage.done("every event has its answer");
    Ok(samples)
}

/// The result for people.
fn print(result: &LoadResult) {
    let by = result.policy.as_ref().map_or(String::new(), |policy| format!(" under {policy}"));
    println!("{} on {}{by}, seed {}", result.scenario.as_str(), result.target, result.seed);
    println!(
        "{} events in {:.1} s, {:.2} % succeeded",
        result.total_events,
        result.total_duration / 1e3,
        result.success_rate * 100.0
    );
    if let (Some(mean), Some(latency)) = (result.avg_latency, &result.latency) {
        println!(
            "latency ms   mean {mean:.1}   p50 {:.1}   p90 {:.1}   p99 {:.1}   p99.9 {:.1}   max {:.1}",
            latency.p50, latency.p90, latency.p99, latency.p999, latency.max
        );
    }
    let late = &result.lateness;
    println!("driver late  mean {:.2}   p99 {:.2}   max {:.2}", late.mean, late.p99, late.max);
    println!("on their way at most {} at once; {} were not sent\n", result.most_in_flight, result.not_sent);
    print_shards(result);
    result.recommendations.iter().for_each(|advice| println!("→ {advice}"));
}

/// The busiest shards first.
fn print_shards(result: &LoadResult) {
    let mut shards: Vec<(&ShardId, &ShardLoad)> = result.shard_distribution.by_shard_id.iter().collect();
    shards.sort_by(|(a, left), (b, right)| right.requests.cmp(&left.requests).then(a.cmp(b)));
    let most = shards.first().map_or(1.0, |(_, load)| load.share);
    let millis = |ms: Option<f64>| ms.map_or("–".to_owned(), |ms| format!("{ms:.1}"));
    println!("{:<30}{:>9}{:>8}{:>9}{:>9}{:>8}", "shard", "requests", "share", "mean ms", "p99 ms", "failed");
    for (shard, load) in shards.iter().take(MOST_ROWS) {
        let ShardLoad { requests, share, mean_ms, p99_ms, failures } = load;
        let bar = "█".repeat((BAR_WIDTH * share / most).round() as usize);
        let (percent, mean, p99) = (share * 100.0, millis(*mean_ms), millis(*p99_ms));
        println!("{shard:<30}{requests:>9}{percent:>7.1}%{mean:>9}{p99:>9}{failures:>8}  {bar}");
    }
    if shards.len() > MOST_ROWS {
        println!("and {} shards with less", shards.len() - MOST_ROWS);
    }
}
