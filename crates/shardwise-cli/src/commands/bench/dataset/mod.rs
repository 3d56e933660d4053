//! `shardwise bench dataset`: a simulated history into a dataset, beside the same joins and windows in DuckDB and polars.
//!
//! Each engine is a process of its own with as many threads, one after the other. What the others cannot say (moving means, breakers,
//! what else follows from a router's state) they leave out, which is in their favour; what they do say is compared, row by row.

mod agreement;
mod history;
mod process;

use std::path::{Path, PathBuf};
use std::process::Command;

use miette::{IntoDiagnostic, miette};
use serde::Serialize;
use serde_json::{Value, json};
use shardwise_datasets::{BuildOptions, load_card};
use shardwise_types::key_of;

use self::agreement::{Agreement, agreement};
use self::process::{Measured, measure};
use crate::arguments::BenchDatasetArguments;
use crate::output::{self, Stage};

/// What `combine_keys` makes of the second key when the first is the id of a decision that may get rows for all candidates. Were it
/// another one than the build's, the engines would not have the same rows, and the command would fail.
const SALT: u64 = key_of("shardwise dataset candidates").wrapping_mul(0x9e37_79b9_7f4a_7c15);
const NANOS_PER_S: i64 = 1_000_000_000;

/// The others, and what they run.
const RIVALS: [(&str, &str); 2] =
    [("duckdb", include_str!("with_duckdb.py")), ("polars", include_str!("with_polars.py"))];

/// How long an engine took.
#[derive(Serialize)]
struct EngineRun {
    engine: &'static str,
    #[serde(flatten)]
    measured: Measured,
    rows: u64,
    columns: usize,
    decisions_per_s: f64,
    rows_per_s: f64,
}

#[derive(Serialize)]
struct LeftOut {
    engine: &'static str,
    reason: String,
}

/// What is the same for all engines.
struct Bench<'a> {
    options: &'a BenchDatasetArguments,
    history: PathBuf,
    /// Goes when all is done.
    work: tempfile::TempDir,
    decisions: u64,
}

pub(crate) fn dataset(options: &BenchDatasetArguments, json: bool) -> miette::Result<()> {
    check(options)?;
    let folder = options.keep.clone().unwrap_or_else(std::env::temp_dir);
    std::fs::create_dir_all(&folder).into_diagnostic()?;
    let work = tempfile::Builder::new().prefix("shardwise-bench-").tempdir_in(&folder).into_diagnostic()?;
    let parent = options.keep.clone().unwrap_or_else(|| work.path().to_owned());
    let made = history::history(&parent, options)?;
    let bench = Bench { options, history: made.dir.clone(), work, decisions: made.decisions };
    let ours = bench.ours()?;
    let (mut runs, mut left_out, mut agreements) = (vec![ours], Vec::new(), Vec::new());
    match std::env::var_os("SHARDWISE_PYTHON").map(PathBuf::from) {
        Some(python) => {
            for (engine, script) in RIVALS {
                match bench.rival(engine, script, &python)? {
                    Ok(run) => {
                        agreements.push(bench.agreement(engine, &python)?);
                        runs.push(run);
                    }
                    Err(reason) => left_out.push(LeftOut { engine, reason }),
                }
            }
        }
        None => {
            let reason = "SHARDWISE_PYTHON is not set; eval \"$(cargo dev env)\" sets it".to_owned();
            left_out.extend(RIVALS.map(|(engine, _)| LeftOut { engine, reason: reason.clone() }));
        }
    }
    print(&runs, &agreements, &left_out);
    if json {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        output::print_json(&json!({
            "decisions": bench.decisions, "days": options.days, "routers": options.routers, "threads": options.threads, "cores": cores,
            "history": made, "results": runs, "slowdown": slowdown(&runs), "agreements": agreements, "left_out": left_out,
        }))?;
    }
    agreements.iter().try_for_each(|agreement| agreement.hold(runs[0].rows))
}

fn check(options: &BenchDatasetArguments) -> miette::Result<()> {
    let of = |name: &str, value: u64, least: u64, most: u64| match (least..=most).contains(&value) {
        true => Ok(()),
        false => Err(miette!("{name} {value} is out of range; it must lie between {least} and {most}")),
    };
    of("--decisions", options.decisions, 1_000, 1_000_000_000)?;
    of("--days", options.days, 1, 28)?;
    of("--routers", options.routers as u64, 1, 64)?;
    of("--threads", options.threads as u64, 1, 256)?;
    of("--memory-gib", options.memory_gib, 1, 4_096)
}

/// Our time over that of the faster other; nothing without any.
fn slowdown(runs: &[EngineRun]) -> Option<f64> {
    let others = runs[1..].iter().map(|run| run.measured.wall_s);
    others.min_by(f64::total_cmp).map(|fastest| runs[0].measured.wall_s / fastest)
}

impl Bench<'_> {
    fn dataset(&self) -> PathBuf {
        self.work.path().join("dataset")
    }

    fn output_of(&self, engine: &str) -> PathBuf {
        self.work.path().join(format!("{engine}.parquet"))
    }

    fn ours(&self) -> miette::Result<EngineRun> {
        let stage = Stage::start("building the dataset");
        let mut command = Command::new(std::env::current_exe().into_diagnostic()?);
        command.args(["dataset", "build", "--json", "--progress", "none", "--history"]).arg(&self.history);
        command.arg("--out").arg(self.dataset()).env("POLARS_MAX_THREADS", self.options.threads.to_string());
        let (measured, _) = measure(&mut command, self.work.path())?.map_err(|reason| miette!("{reason}"))?;
        let card = load_card(&self.dataset()).into_diagnostic()?;
        stage.done(format!("{} rows in {:.1} s", card.rows, measured.wall_s));
        Ok(self.run("shardwise", measured, card.rows, shardwise_datasets::dataset_columns().len()))
    }

    /// What one of the others took, or why it took no part.
    fn rival(&self, engine: &'static str, script: &str, python: &Path) -> miette::Result<Result<EngineRun, String>> {
        let stage = Stage::start(format!("the same with {engine}"));
        let scratch = self.work.path().join(format!("{engine}-scratch"));
        std::fs::create_dir_all(&scratch).into_diagnostic()?;
        let mut command = Command::new(python);
        command.args(["-c", script]).arg(self.plan(engine, &scratch)?.to_string());
        command.env("POLARS_MAX_THREADS", self.options.threads.to_string()).env("POLARS_TEMP_DIR", &scratch);
        let run = measure(&mut command, &scratch)?.and_then(|(measured, said)| {
            let count = |name: &str| said[name].as_u64().ok_or_else(|| format!("{engine} did not say its {name}"));
            Ok(self.run(engine, measured, count("rows")?, count("columns")? as usize))
        });
        stage.done(match &run {
            Ok(run) => format!("{} rows in {:.1} s", run.rows, run.measured.wall_s),
            Err(reason) => format!("left out: {reason}"),
        });
        Ok(run)
    }

    /// What the scripts need to know beyond the history.
    fn plan(&self, engine: &str, scratch: &Path) -> miette::Result<Value> {
        let blocks = load_card(&self.dataset()).into_diagnostic()?.blocks;
        let block_ns = blocks.length_s.cast_signed() * NANOS_PER_S;
        let first_ns = blocks.first_at.nanos();
        Ok(json!({
            "history": self.history, "out": self.output_of(engine), "scratch": scratch, "threads": self.options.threads,
            "memory_gib": self.options.memory_gib, "block_ns": block_ns, "first_ns": first_ns,
            "first_block": first_ns.div_euclid(block_ns), "candidate_share": BuildOptions::default().candidate_share,
            "salt": SALT,
        }))
    }

    /// Compares what an engine wrote with the dataset, and removes it.
    fn agreement(&self, engine: &'static str, python: &Path) -> miette::Result<Agreement> {
        let stage = Stage::start(format!("comparing with {engine}"));
        let agreement = agreement(engine, python, &self.dataset(), &self.output_of(engine))?;
        std::fs::remove_file(self.output_of(engine)).into_diagnostic()?;
        stage.done(format!("{} rows, {} columns", agreement.rows, agreement.columns));
        Ok(agreement)
    }

    fn run(&self, engine: &'static str, measured: Measured, rows: u64, columns: usize) -> EngineRun {
        let per_s = |n: u64| n as f64 / measured.wall_s;
        let (decisions_per_s, rows_per_s) = (per_s(self.decisions), per_s(rows));
        EngineRun { engine, measured, rows, columns, decisions_per_s, rows_per_s }
    }
}

fn print(runs: &[EngineRun], agreements: &[Agreement], left_out: &[LeftOut]) {
    println!(
        "{:<11}{:>9}{:>9}{:>11}{:>12}{:>12}{:>9}{:>12}",
        "engine", "time s", "CPU s", "peak MiB", "spilled MiB", "rows", "columns", "rows/s"
    );
    for EngineRun { engine, measured, rows, columns, rows_per_s, .. } in runs {
        let Measured { wall_s, cpu_s, peak_mib, spilled_mib } = measured;
        println!(
            "{engine:<11}{wall_s:>9.1}{cpu_s:>9.1}{peak_mib:>11}{spilled_mib:>12}{rows:>12}{columns:>9}{rows_per_s:>12.0}"
        );
    }
    agreements.iter().for_each(Agreement::print);
    for LeftOut { engine, reason } in left_out {
        println!("{engine} is left out: {reason}");
    }
}
