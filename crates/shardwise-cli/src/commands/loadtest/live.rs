//! `loadtest` with several routers: they take turns in placing the same requests on the same real shards.

use std::fmt::Write;

use miette::IntoDiagnostic;
use shardwise_evaluation::{Arm, HttpOptions, LatencyRatio, LiveComparison, LiveOptions, drive_live};
use shardwise_simulator::{Arrival, FleetOptions, Workload, WorkloadOptions, WorldSpec};

use super::super::files;
use super::super::history::in_range;
use crate::arguments::LoadtestArguments;
use crate::output::{self, Stage};

/// Offered load at which the density of the traffic is measured.
const PROBE_LOAD: f64 = 0.1;
/// Requests a second when nothing is said: what eight reference shards on two processors take.
const USUAL_RATE: f64 = 60.0;
/// Seconds of each router's traffic when nothing is said.
const USUAL_SECONDS: f64 = 60.0;

pub(super) fn run(options: &LoadtestArguments, json: bool) -> miette::Result<()> {
    let arms: Vec<Arm> = options.target.split(',').map(str::parse).collect::<Result<_, _>>().into_diagnostic()?;
    let arrivals = arrivals(options)?;
    let live = LiveOptions {
        http: HttpOptions {
            concurrency: options.concurrency,
            latest_ms: options.latest_ms.unwrap_or(options.timeout_ms),
            timeout_ms: options.timeout_ms,
            access: options.access.files(),
        },
        block_ms: options.block * 1e3,
        settle_ms: options.settle * 1e3,
        seed: options.seed,
        baseline: options.baseline.clone(),
        ..LiveOptions::default()
    };
    let seconds = arrivals.last().map_or(0.0, |last| last.at.millis_since(arrivals[0].at) / 1e3) * arms.len() as f64;
    let stage = Stage::start(format!(
        "{} routers take turns with {} requests each, {seconds:.0} s",
        arms.len(),
        arrivals.len()
    ));
    let (comparison, _) = drive_live(&arms, &arrivals, &live, output::interrupt_flag()).into_diagnostic()?;
    stage.done("every request has its end");
    if let Some(path) = &options.out {
        files::write_json(path, &comparison)?;
    }
    if json {
        return output::print_json(&comparison);
    }
    print!("{}", shardwise_evaluation::visible(&table(&comparison)));
    Ok(())
}

/// Ordinary traffic of the simulated fleet with that seed, as dense as asked; its bursts stay.
fn arrivals(options: &LoadtestArguments) -> miette::Result<Vec<Arrival>> {
    let rate = options.rate.unwrap_or(USUAL_RATE);
    in_range("--rate", rate, 0.1, 1e5)?;
    let seconds = match options.events {
        Some(events) => events as f64 / rate,
        None => options.duration.unwrap_or(USUAL_SECONDS),
    };
    in_range("--duration", seconds, 1.0, 86_400.0)?;
    let world = WorldSpec::generate(options.fleet_seed, &FleetOptions::default());
    let start = super::SIMULATED_START.parse().into_diagnostic()?;
    let generate = |load: f64| {
        let traffic = WorkloadOptions::new(start, seconds * 1e3, load);
        Workload::generate(&world, options.seed, &traffic).into_diagnostic().map(|workload| workload.arrivals)
    };
    let probed = generate(PROBE_LOAD)?.len() as f64 / seconds;
    generate(PROBE_LOAD * rate / probed.max(f64::MIN_POSITIVE))
}

fn table(comparison: &LiveComparison) -> String {
    let mut text = format!(
        "{} rounds of {:.0} s each, the first {:.0} s of which do not count; ratios to {} with 95 % intervals over rounds\n\n",
        comparison.rounds,
        comparison.block_ms / 1e3,
        comparison.settle_ms / 1e3,
        comparison.baseline
    );
    let head = ["mean ms", "p50", "p90", "p99", "exec", "queue", "cold", "failed", "decision"];
    _ = write!(text, "{:<18}{:>9}", "router", "requests");
    head.iter().for_each(|name| _ = write!(text, "{name:>9}"));
    text.push('\n');
    for arm in &comparison.arms {
        let latency = &arm.latency;
        let failed: u64 = arm.failures.values().sum();
        _ = writeln!(
            text,
            "{:<18}{:>9}{:>9.1}{:>9.1}{:>9.1}{:>9.1}{:>9.1}{:>9.1}{:>8.1}%{:>9}{:>9.2}",
            arm.name,
            arm.requests,
            latency.mean,
            latency.p50,
            latency.p90,
            latency.p99,
            arm.exec_ms,
            arm.queue_ms,
            arm.cold * 100.0,
            failed,
            arm.decision_ms
        );
    }
    text.push('\n');
    for arm in comparison.arms.iter().filter(|arm| !arm.ratios.is_empty()) {
        let ratios: Vec<String> = arm.ratios.iter().map(told).collect();
        _ = writeln!(text, "{} over {}: {}", arm.name, comparison.baseline, ratios.join(", "));
    }
    let late = comparison.arms.iter().map(|arm| arm.lateness.p99).fold(0.0, f64::max);
    _ = writeln!(text, "the driver sent 99 % of its requests at most {late:.1} ms late");
    text
}

fn told(ratio: &LatencyRatio) -> String {
    match ratio.bounds {
        Some((low, high)) => format!("{} {:.3} [{low:.3}, {high:.3}]", ratio.metric, ratio.ratio),
        None => format!("{} {:.3}", ratio.metric, ratio.ratio),
    }
}
