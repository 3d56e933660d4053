//! `shardwise generator …`: the statistics of generated traces beside their bands, in a table and on a page.

use std::path::Path;

use miette::{IntoDiagnostic, miette};
use serde_json::json;
use shardwise_datasets::traces;
use shardwise_evaluation::{CheckedStatistic, GeneratorCheck, figure, summary, write_generator_page};
use shardwise_simulator::{
    Band, Curve, GeneratorOptions, ReplayInputs, Statistic, Traces, bands, curves, generate_traces, measure,
};

use crate::arguments::GeneratorCheckArguments;
use crate::output::{self, Stage};

/// What one set of traces shows.
type Measured = (Vec<Statistic>, Vec<Curve>);

/// Most seeds of one check.
const MOST_SEEDS: usize = 1_000;

pub(crate) fn check(options: &GeneratorCheckArguments, json: bool) -> miette::Result<()> {
    let seeds = options.seeds.0.clone();
    if seeds.len() > MOST_SEEDS {
        return Err(miette!("--seeds names {} seeds; name {MOST_SEEDS} at most", seeds.len()));
    }
    let (real, real_curves) = options.traces.as_deref().map(measure_real).transpose()?.unwrap_or_default();
    let (measured, curves): (Vec<_>, Vec<_>) = measure_seeds(&seeds, options.functions)?.into_iter().unzip();
    let statistics = bands().iter().map(|band| checked(band, &measured, &real)).collect();
    let listed = seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
    let command = format!("shardwise generator check --seeds {listed} --functions {}", options.functions);
    let check = GeneratorCheck { seeds, statistics, curves, real_curves, command };
    write_generator_page(&options.out, &check).into_diagnostic()?;
    print_table(&check);
    println!("page: {}", options.out.display());
    if json {
        output::print_json(&json!({
            "statistics": check.statistics, "seeds": check.seeds, "in_band": check.in_band(), "page": options.out,
        }))?;
    }
    all_in_band(&check)
}

fn measure_seeds(seeds: &[u64], functions: usize) -> miette::Result<Vec<Measured>> {
    let mut stage = Stage::start(format!("generating traces of {} seeds", seeds.len()));
    let options = GeneratorOptions { functions, ..GeneratorOptions::default() };
    let mut measured = Vec::new();
    for seed in seeds {
        output::stop_if_interrupted()?;
        let traces = generate_traces(*seed, &options).into_diagnostic()?;
        measured.push((measure(&traces), curves(&traces)));
        stage.at(format!("seed {seed}"));
    }
    stage.done(format!("{} statistics each", bands().len()));
    Ok(measured)
}

/// The traces in a folder, by the names that they have in public collections.
pub(crate) fn read_traces(folder: &Path) -> miette::Result<ReplayInputs> {
    let requests = |name: &str| folder.join("requests").join(name);
    Ok(ReplayInputs {
        arrivals: traces::read_arrivals(&requests("azure_functions_2019_invocations.parquet")).into_diagnostic()?,
        durations_ms: traces::read_durations(&requests("azure_functions_2019_durations.parquet")).into_diagnostic()?,
        memory_mb: traces::read_memory(&requests("azure_functions_2019_memory.parquet")).into_diagnostic()?,
        market: traces::read_market(&folder.join("crypto/btc_perp_1m_20211231-20220201.parquet")).into_diagnostic()?,
        ..ReplayInputs::default()
    })
}

fn measure_real(folder: &Path) -> miette::Result<Measured> {
    let stage = Stage::start("measuring real traces");
    let inputs = read_traces(folder)?;
    let real = Traces { inputs, ..Traces::default() };
    let measured = measure(&real);
    stage.done(format!("{} statistics", measured.len()));
    Ok((measured, curves(&real)))
}

fn checked(band: &Band, measured: &[Vec<Statistic>], real: &[Statistic]) -> CheckedStatistic {
    let of_band = |statistics: &[Statistic]| {
        statistics.iter().find(|statistic| (statistic.group, statistic.name) == (band.group, band.name)).copied()
    };
    let (low, high) = band.range();
    let found: Vec<Option<Statistic>> = measured.iter().map(|statistics| of_band(statistics)).collect();
    CheckedStatistic {
        group: band.group.to_owned(),
        name: band.name.to_owned(),
        unit: band.unit.to_owned(),
        low,
        high,
        values: found.iter().map(|statistic| statistic.map(|statistic| statistic.value)).collect(),
        in_band: found.iter().all(|statistic| statistic.is_some_and(|statistic| statistic.in_band())),
        real: of_band(real).map(|statistic| statistic.value),
        source: band.source.to_owned(),
    }
}

fn print_table(check: &GeneratorCheck) {
    println!("{:<14} {:<42} {:>26} {:>21} {:>9}", "group", "statistic", "median (least – most)", "band", "real");
    for statistic in &check.statistics {
        let (median, least, most) = summary(statistic);
        let value = format!("{} ({} – {})", figure(median), figure(least), figure(most));
        let band = format!("{} – {}", figure(statistic.low), figure(statistic.high));
        let real = statistic.real.map_or("–".to_owned(), figure);
        let verdict = if statistic.in_band { "in" } else { "OUT" };
        println!("{:<14} {:<42} {value:>26} {band:>21} {real:>9}  {verdict}", statistic.group, statistic.name);
    }
}

/// Each seed that leaves a band, by name.
fn failures(check: &GeneratorCheck) -> Vec<String> {
    let of_statistic = |statistic: &CheckedStatistic| -> Vec<String> {
        let inside = |value: &Option<f64>| value.is_some_and(|value| (statistic.low..=statistic.high).contains(&value));
        let failing = check.seeds.iter().zip(&statistic.values).filter(|(_, value)| !inside(value));
        let line = |(seed, value): (&u64, &Option<f64>)| {
            let value = value.map_or("unknown".to_owned(), figure);
            format!("seed {seed}: {}, {} is {value}", statistic.group, statistic.name)
        };
        failing.map(line).collect()
    };
    check.statistics.iter().flat_map(of_statistic).collect()
}

fn all_in_band(check: &GeneratorCheck) -> miette::Result<()> {
    let failures = failures(check);
    if failures.is_empty() {
        return Ok(());
    }
    failures.iter().for_each(|failure| eprintln!("{failure}"));
    Err(miette!(
        help = "the bands hold for the default number of functions; --functions changes what tails and mixes show",
        "{} of {} checks lie outside of their bands",
        failures.len(),
        check.statistics.len() * check.seeds.len()
    ))
}
