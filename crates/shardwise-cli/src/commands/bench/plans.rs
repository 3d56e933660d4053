//! `shardwise bench plans`: what plans do to a simulated fleet, with the same placement in all arms.

use std::sync::Arc;

use miette::{IntoDiagnostic, miette};
use serde_json::json;
use shardwise_evaluation::{
    CaseOptions, CaseResult, CaseWorld, PairedArm, PlanArm, PlanCase, case_world, paired_arms, plain,
};
use shardwise_models::ModelBundle;
use shardwise_policies::{NAMES, Policy, by_name};
use shardwise_simulator::{GeneratorOptions, ReplayInputs, generate_inputs, generate_traces};
use shardwise_types::MarketBar;

use crate::arguments::BenchPlansArguments;
use crate::commands::fleet_models::fleet_models;
use crate::commands::generator::read_traces;
use crate::commands::nights::wildest;
use crate::commands::placers::{MODEL_POLICY, placer};
use crate::output::{self, Stage, clock_ns};

/// Days of generated arrivals: forecasts look a day back.
const DAYS: usize = 2;

pub(crate) fn plans(options: &BenchPlansArguments, json: bool) -> miette::Result<()> {
    if options.policy != MODEL_POLICY && !NAMES.contains(&options.policy.as_str()) {
        let help = format!("choose {MODEL_POLICY}, or one of {}", NAMES.join(", "));
        return Err(miette!(help = help, "there is no policy '{}'", options.policy));
    }
    let cases: Vec<PlanCase> = match options.case.as_str() {
        "all" => PlanCase::ALL.to_vec(),
        name => vec![case_named(name)?],
    };
    let (mut results, mut paired) = (Vec::new(), Vec::new());
    for case in cases {
        for load in options.load.map_or(case.loads(), |_| options.load.as_slice()) {
            let mut of_load = Vec::new();
            for seed in options.first_seed..options.first_seed + options.seeds {
                of_load.push(play(options, case, seed, *load)?);
                output::stop_if_interrupted()?;
            }
            paired.push(json!({ "case": case, "load": load, "arms": paired_arms(&of_load) }));
            if !json {
                of_load.iter().for_each(print);
                // One seed says nothing of chance, and an arm over itself nothing at all.
                paired_arms(&of_load).iter().filter(|arm| arm.seeds > 1 && arm.ratio != 1.0).for_each(print_paired);
            }
            results.extend(of_load);
        }
    }
    match json {
        true => output::print_json(&json!({ "policy": options.policy, "results": results, "paired": paired })),
        false => Ok(()),
    }
}

fn case_named(name: &str) -> miette::Result<PlanCase> {
    PlanCase::ALL.into_iter().find(|case| case.as_str() == name).ok_or_else(|| {
        let names: Vec<&str> = PlanCase::ALL.into_iter().map(PlanCase::as_str).collect();
        miette!("--case '{name}' is not one of {}, all", names.join(", "))
    })
}

fn play(options: &BenchPlansArguments, case: PlanCase, seed: u64, load: f64) -> miette::Result<CaseResult> {
    let mut sized = CaseOptions::new(case, seed);
    sized.load = load;
    if let Some(hours) = options.hours {
        sized.hours = hours;
    }
    let (inputs, crash) = traces(options, case, seed)?;
    let mut world = case_world(case, sized, &inputs, &crash).into_diagnostic()?;
    let bundle = bundle(options, &world, seed)?;
    world.table = bundle.as_ref().map(|bundle| bundle.service_table());
    let runtime = world.world.timing.runtime();
    let make = || -> Box<dyn Policy> {
        match &bundle {
            Some(bundle) => Box::new(placer(Some(bundle), runtime)),
            None => by_name(&options.policy, runtime).expect("its name was checked"),
        }
    };
    let mut stage = Stage::start(format!("{} with seed {seed} at load {load}", case.as_str()));
    let started_ns = clock_ns();
    let result = world
        .run(&make, &mut |arm| stage.at(format!("{} ({} requests)", arm.name, arm.requests)), output::interrupt_flag())
        .into_diagnostic()?;
    stage.done(format!("{} arms in {:.0} s", result.arms.len(), (clock_ns() - started_ns) as f64 / 1e9));
    Ok(result)
}

/// What a case is made of: real traces where there are any.
fn traces(options: &BenchPlansArguments, case: PlanCase, seed: u64) -> miette::Result<(ReplayInputs, Vec<MarketBar>)> {
    let folder = options.traces.clone().or_else(|| std::env::var_os("SHARDWISE_TRACES").map(Into::into));
    match (case, folder) {
        (PlanCase::Spike, Some(folder)) => {
            let market = folder.join("crypto/btc_perp_1m_20211231-20220201.parquet");
            Ok((ReplayInputs::default(), wildest(&market)?))
        }
        (PlanCase::Spike, None) => {
            let small = GeneratorOptions { functions: 10, days: 1, ..GeneratorOptions::default() };
            Ok((ReplayInputs::default(), generate_traces(seed, &small).into_diagnostic()?.crash))
        }
        (_, Some(folder)) => Ok((read_traces(&folder)?, Vec::new())),
        (_, None) => {
            let generated =
                GeneratorOptions { functions: options.functions, days: DAYS, market_minutes: (DAYS + 1) * 1_440 };
            Ok((generate_inputs(seed, &generated).into_diagnostic()?, Vec::new()))
        }
    }
}

/// A model that is trained on the case's own world; none where another policy places.
fn bundle(options: &BenchPlansArguments, world: &CaseWorld, seed: u64) -> miette::Result<Option<Arc<ModelBundle>>> {
    if options.policy != MODEL_POLICY {
        return Ok(None);
    }
    fleet_models(&world.world, seed, &[], false, &options.work).map(|models| Some(models.bundle))
}

fn print(result: &CaseResult) {
    println!("{}, seed {}, load {:.2}", result.case.as_str(), result.seed, result.load);
    println!("  arm                 mean ms     p99 ms  SLO miss    cold  over 85 %  memory  moves  warmed  joined");
    result.arms.iter().for_each(|arm| println!("{}", row(arm)));
    for ratios in result.ratios.iter().filter(|ratios| !ratios.p99_over_calm.is_empty()) {
        let phases: Vec<String> = ratios.p99_over_calm.iter().map(|ratio| plain(*ratio)).collect();
        println!("  {}: p99 over calm {}", ratios.name, phases.join(", "));
    }
    for check in result.checks.iter().filter(|check| !check.holds) {
        println!("  {}: {} is {}, more than {}", check.arm, check.what, plain(check.value), plain(check.most));
    }
}

fn print_paired(arm: &PairedArm) {
    let interval = match (arm.low, arm.high) {
        (Some(low), Some(high)) => format!(" [{low:.3}, {high:.3}]"),
        _ => String::new(),
    };
    println!("  {} over nothing, {}: {:.3}{interval} ({} seeds)", arm.name, arm.metric, arm.ratio, arm.seeds);
}

fn row(arm: &PlanArm) -> String {
    format!(
        "  {:<18} {:>8.1}  {:>9.1}  {:>8.4}  {:>6.4}  {:>9}  {:>6.3}  {:>5}  {:>6}  {:>6}",
        arm.name,
        arm.mean_ms,
        arm.p99_ms,
        arm.slo_miss,
        arm.cold_rate,
        arm.shard_minutes_over,
        arm.memory,
        arm.moves,
        arm.warmed,
        arm.joined
    )
}
