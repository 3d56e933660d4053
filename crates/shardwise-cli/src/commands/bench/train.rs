//! `shardwise bench train`: four heads learned here and by Python's LightGBM, one after the other, each in a process of its own.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use miette::{IntoDiagnostic, miette};
use serde::Serialize;
use serde_json::json;
use shardwise_models::CHAMPION;
use shardwise_training::{HeadTimes, TrainBenchPlan, TrainTimes, train_in_python};
use shardwise_workload::processor_ns;

use crate::arguments::{BenchTrainArguments, RunArguments, SimulateArguments, Traffic};
use crate::commands::{dataset, history};
use crate::output::{self, Stage};

/// Hours of simulated traffic of which a million rows are for training, warm and executed.
const HOURS_OF_A_MILLION: f64 = 0.52;
/// Shorter histories have too few rows to measure on.
const FEWEST_HOURS: f64 = 0.02;
/// What a failed request counts as, that of simulated worlds.
const TIMEOUT_MS: f64 = 3_000.0;
const FEWEST_ROWS: usize = 1_000;

/// One side, and how long its process took from start to end.
#[derive(Serialize)]
struct Side {
    wall_ms: f64,
    #[serde(flatten)]
    times: TrainTimes,
}

pub(crate) fn train(options: &BenchTrainArguments, json: bool) -> miette::Result<()> {
    let BenchTrainArguments { rows, trees, seed, .. } = *options;
    if rows < FEWEST_ROWS {
        return Err(miette!(help = format!("give {FEWEST_ROWS} or more"), "{rows} rows are too few to train on"));
    }
    let python = std::env::var_os("SHARDWISE_PYTHON").map(PathBuf::from);
    let python = python
        .ok_or_else(|| miette!(help = "run `eval \"$(cargo dev env)\"` first", "SHARDWISE_PYTHON names no Python"))?;
    let dataset = match &options.dataset {
        Some(dataset) => dataset.clone(),
        None => simulated(options)?,
    };
    let plan = TrainBenchPlan { dataset, rows, trees, seed, timeout_ms: TIMEOUT_MS };
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for round in 0..options.rounds {
        let mut train_here = || timed("training here", &mut here, || in_own_process(&plan));
        let mut train_there =
            || timed("training in Python", &mut there, || train_in_python(&plan, &python).into_diagnostic());
        if round.is_multiple_of(2) {
            train_here()?;
            train_there()?;
        } else {
            train_there()?;
            train_here()?;
        }
    }
    let (here, there) = (Side::mean_of(&here)?, Side::mean_of(&there)?);
    print(&here, &there);
    if json {
        output::print_json(&json!({
            "rows": rows, "trees": trees, "seed": seed, "threads": 1, "rounds": options.rounds, "dataset": plan.dataset, "here": here,
            "python": there, "ratios": ratios(&here, &there),
        }))?;
    }
    Ok(())
}

/// The other end of [`in_own_process`].
pub(crate) fn train_here() -> miette::Result<()> {
    let plan: TrainBenchPlan = serde_json::from_reader(std::io::stdin()).into_diagnostic()?;
    let mut stage = Stage::start("training here");
    let times = shardwise_training::train_here(&plan, processor_ns, &mut |progress| stage.at(progress));
    let times = times.into_diagnostic()?;
    stage.done(format!("{} heads", times.heads.len()));
    output::print_json(&TrainTimes { peak_mib: output::peak_memory_mib(), ..times })
}

/// The dataset of these rows and this seed, simulated when it is not there yet.
fn simulated(options: &BenchTrainArguments) -> miette::Result<PathBuf> {
    let BenchTrainArguments { rows, seed, out, .. } = options;
    let made = out.join(format!("dataset-{rows}-{seed}"));
    if shardwise_datasets::load_card(&made).is_ok() {
        output::note(format!("{}: kept from an earlier run", made.display()));
        return Ok(made);
    }
    std::fs::create_dir_all(out).into_diagnostic()?;
    let scratch = tempfile::tempdir_in(out).into_diagnostic()?;
    let run = RunArguments {
        seed: *seed,
        policy: "sed_tab_softmax".to_owned(),
        models: None,
        name: "default".to_owned(),
        version: CHAMPION.to_owned(),
        shards: 20,
        routers: 2,
        log_share: 0.0,
        out: scratch.path().join("history"),
    };
    let simulate = SimulateArguments {
        fleet_seed: *seed,
        traffic: Traffic::Market,
        hours: (HOURS_OF_A_MILLION * *rows as f64 / 1e6).max(FEWEST_HOURS),
        load: 0.6,
        functions: 0,
        duration_scale: 1.0,
        start: "2026-01-05T12:00:00Z".parse().into_diagnostic()?,
        run,
    };
    history::simulate(&simulate, false)?;
    dataset::build_with(&simulate.run.out, &made, &Default::default()).into_diagnostic()?;
    Ok(made)
}

/// Adds a training and how long it took to the rounds of a side.
fn timed(
    what: &str,
    rounds: &mut Vec<(f64, TrainTimes)>,
    train: impl FnOnce() -> miette::Result<TrainTimes>,
) -> miette::Result<()> {
    let stage = Stage::start(what);
    let start = output::clock_ns();
    let times = train()?;
    let wall_ms = (output::clock_ns() - start) as f64 / 1e6;
    stage.done(format!("{:.1} s, {:.1} s of them on the processor", wall_ms / 1e3, times.processor_ms() / 1e3));
    rounds.push((wall_ms, times));
    Ok(())
}

impl Side {
    fn mean_of(rounds: &[(f64, TrainTimes)]) -> miette::Result<Self> {
        let (walls, times): (Vec<f64>, Vec<TrainTimes>) = rounds.iter().cloned().unzip();
        let times = TrainTimes::mean_of(&times).into_diagnostic()?.expect("there is a round");
        Ok(Self { wall_ms: walls.iter().sum::<f64>() / walls.len() as f64, times })
    }
}

/// Trains in another process of this program, so that its memory is its own.
fn in_own_process(plan: &TrainBenchPlan) -> miette::Result<TrainTimes> {
    let program = std::env::current_exe().into_diagnostic()?;
    let mut child = Command::new(program)
        .args(["bench", "train-here", "--progress", "none"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .into_diagnostic()?;
    let mut stdin = child.stdin.take().expect("its input is a pipe");
    stdin.write_all(json!(plan).to_string().as_bytes()).into_diagnostic()?;
    drop(stdin);
    let output = child.wait_with_output().into_diagnostic()?;
    if !output.status.success() {
        return Err(miette!("training here failed, as it said above"));
    }
    serde_json::from_slice(&output.stdout).into_diagnostic()
}

/// What is compared of two sides: a name, and the figure of each.
fn figures<'a>(here: &'a Side, there: &'a Side) -> Vec<(String, [f64; 2])> {
    let both = |figure: fn(&Side) -> f64| [figure(here), figure(there)];
    let mut figures = vec![
        ("wall_ms".to_owned(), both(|side| side.wall_ms)),
        ("processor_ms".to_owned(), both(|side| side.times.processor_ms())),
        ("reading_ms".to_owned(), both(|side| side.times.reading_ms)),
        ("choosing_ms".to_owned(), both(|side| side.times.choosing_ms)),
        ("binning_ms".to_owned(), both(|side| side.times.binning_ms)),
        ("growing_ms".to_owned(), both(|side| side.times.growing_ms)),
        ("testing_ms".to_owned(), both(|side| side.times.testing_ms)),
        ("peak_mib".to_owned(), both(|side| side.times.peak_mib.map_or(f64::NAN, |mib| mib as f64))),
    ];
    let errors = here.times.heads.iter().zip(&there.times.heads);
    figures.extend(errors.map(|(here, there)| (format!("error_{}", here.head), [here.error, there.error])));
    figures
}

/// What is here over what is there.
fn ratios(here: &Side, there: &Side) -> serde_json::Map<String, serde_json::Value> {
    figures(here, there).into_iter().map(|(name, [here, there])| (name, json!(here / there))).collect()
}

fn print(here: &Side, there: &Side) {
    println!("  {:<16}{:>14}{:>14}{:>8}", "", "here", "Python", "ratio");
    for (name, [here, there]) in figures(here, there) {
        println!("  {name:<16}{here:>14.4}{there:>14.4}{:>8.3}", here / there);
    }
    for (here, there) in here.times.heads.iter().zip(&there.times.heads) {
        let HeadTimes { head, train_rows, test_rows, trees, .. } = here;
        println!("  {head}: {trees} trees here, {} there, on {train_rows} rows, measured on {test_rows}", there.trees);
    }
}
