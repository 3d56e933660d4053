//! `shardwise onnx compare`: an ONNX execution head and the one of trees, trained on the same rows, measured on the same rows held
//! out, played on the same sample paths and judged by the same gate.

use std::fs;
use std::sync::{Arc, Mutex};

use miette::{IntoDiagnostic, miette};
use serde::Serialize;
use shardwise_datasets::{History, load_card};
use shardwise_evaluation::{
    BASELINES, CANDIDATE, CHAMPION, ClosedLoop, Comparison, Evidence, STANDARD, Verdict, compare, judge,
    run as run_closed_loop,
};
use shardwise_inference::Placer;
use shardwise_models::onnx::{OnnxModel, read_neural};
use shardwise_models::{ExecModel, ModelBundle};
use shardwise_training::{ExecFigures, Rows, TrainOptions, Trained, dataset_rows, measure_exec_model, train_rows};
use shardwise_workload::{World, draft, typical_rows};

use super::bench::{DecideRow, measured};
use super::contenders::contenders;
use super::nightly::{EndOfHistory, seeds};
use super::onnx;
use super::shadowed::shadow_test;
use crate::arguments::OnnxCompareArguments;
use crate::output::{self, Stage};

/// Numbers of candidates between which decisions are timed, on one thread.
const CANDIDATES: [usize; 2] = [20, 64];

/// Everything that was found.
#[derive(Serialize)]
struct Results {
    train_rows: u64,
    test_rows: u64,
    /// Error of the service table alone.
    table_rmse: f64,
    replicates: u64,
    /// The heads of trees and of the ONNX file.
    heads: [HeadResult; 2],
    /// The ONNX head answered without ONNX Runtime, when it is a neural head of ours.
    native: Option<NativeResult>,
    /// The head that may go live where the other is champion; `None` when neither is shown to be better.
    winner: Option<&'static str>,
}

#[derive(Serialize)]
struct HeadResult {
    head: &'static str,
    exec: ExecFigures,
    mean_ms: f64,
    p99_ms: f64,
    to_standard: Ratios,
    to_other: Ratios,
    decisions: Vec<Timing>,
    /// The gate's verdict where there is no champion.
    alone: Verdict,
    /// The gate's verdict where the other head is champion.
    against_other: Verdict,
}

#[derive(Serialize)]
struct NativeResult {
    exec: ExecFigures,
    /// Largest difference from ONNX Runtime on the rows held out, in ln ms.
    largest_difference: f64,
    decisions: Vec<Timing>,
}

/// How long one decision takes.
#[derive(Serialize)]
struct Timing {
    candidates: u64,
    p50_us: f64,
    p99_us: f64,
}

/// Paired ratios to a rival, below 1 when better.
#[derive(Serialize)]
struct Ratios {
    mean: Ratio,
    p99: Ratio,
}

/// A ratio with its 95 % interval over replicates.
#[derive(Serialize)]
struct Ratio {
    ratio: f64,
    low: Option<f64>,
    high: Option<f64>,
}

pub(crate) fn run(options: &OnnxCompareArguments, json: bool) -> miette::Result<()> {
    if options.replicates == 0 {
        return Err(miette!(help = "eight tell something", "--replicates 0 compares nothing"));
    }
    let history = History::open(&options.history).into_diagnostic()?;
    let card = load_card(&options.dataset).into_diagnostic()?;
    let (end, _) = EndOfHistory::read(&history, (&card).into(), card.to).map_err(|failure| failure.report)?;
    let help = "take one of `shardwise history simulate` or `replay`";
    let end = end.ok_or_else(|| miette!(help = help, "the history has no world.json, so there is no closed loop"))?;
    let (_, model) = onnx::open(&options.file, false)?;
    let errors = onnx::errors_of(&model)?.ok_or_else(|| {
        miette!("the ONNX model does not say how much it errs: export it with the metadata `shardwise.smearing` and `shardwise.residual_sd`")
    })?;
    let contest = Contest::new(options, Arc::new(Mutex::new(model)), errors)?;
    let results = contest.results(options, &end)?;
    if json {
        return output::print_json(&results);
    }
    print(&results);
    Ok(())
}

/// The two heads in one bundle each, and what they are measured on.
struct Contest {
    rows: Rows,
    trained: Trained,
    trees: Arc<ModelBundle>,
    onnx: Arc<ModelBundle>,
    model: Arc<Mutex<OnnxModel>>,
    errors: [f64; 2],
}

impl Contest {
    /// Trains the trees as `shardwise train` does; cold starts and waits have the same heads in both bundles.
    fn new(options: &OnnxCompareArguments, model: Arc<Mutex<OnnxModel>>, errors: [f64; 2]) -> miette::Result<Self> {
        let mut stage = Stage::start("training the trees");
        let how = TrainOptions { seed: options.seed, rivals: false, ..TrainOptions::default() };
        let (rows, origin) = dataset_rows(&options.dataset, how.max_rows).into_diagnostic()?;
        let trained = train_rows(&rows, origin, &how, &mut |step| stage.at(step)).into_diagnostic()?;
        stage.done(format!("rmse {:.4}, the table alone {:.4}", trained.metrics.rmse, trained.metrics.table_rmse));
        output::stop_if_interrupted()?;
        let trees = Arc::new(trained.draft.bundle().into_diagnostic()?);
        let onnx = Arc::new(onnx::in_place_of_trees(&trees, model.clone(), Some(errors))?);
        Ok(Self { rows, trained, trees, onnx, model, errors })
    }

    fn results(&self, options: &OnnxCompareArguments, end: &EndOfHistory) -> miette::Result<Results> {
        let (of_trees, _) = self.measure(self.trees.exec().expect("it was trained with one"), None)?;
        let (of_onnx, said) = self.measure(&*self.model, Some(self.errors))?;
        let seeds = seeds(options.replicates);
        let paths = end.paths(&seeds);
        let stage = Stage::start(format!("closed loop: {} seeds", seeds.len()));
        let players = contenders(&self.onnx, Some(&self.trees), &BASELINES, end.world.timing.runtime());
        let onnx_first =
            run_closed_loop(&paths, &players, &|_, _, _| (), output::interrupt_flag()).into_diagnostic()?;
        let trees_first = with_roles_changed(&onnx_first);
        stage.done("all on the same sample paths");
        let judged = |bundle, other: &Arc<ModelBundle>, closed_loop: &ClosedLoop, exec: &ExecFigures| {
            let stage = Stage::start("watching decisions beside the table, and beside the other");
            let table_alone = Arc::new(other.with_exec(None));
            let verdict = |live: &Arc<ModelBundle>, champion_version| {
                output::stop_if_interrupted()?;
                let shadow = shadow_test(&paths, live, bundle)?;
                Ok::<_, miette::Report>(judge(&Evidence {
                    closed_loop,
                    candidate_version: "candidate",
                    champion_version,
                    exec_rmse: Some(exec.rmse),
                    table_rmse: Some(self.trained.metrics.table_rmse),
                    shadow: Some(&shadow),
                }))
            };
            let verdicts = [verdict(&table_alone, None)?, verdict(other, Some("other"))?];
            stage.done("judged");
            Ok::<_, miette::Report>(verdicts)
        };
        let judged_trees = judged(&self.trees, &self.onnx, &trees_first, &of_trees)?;
        let judged_onnx = judged(&self.onnx, &self.trees, &onnx_first, &of_onnx)?;
        let stage = Stage::start("timing decisions");
        let timed = [self.timed(None)?, self.timed(Some(&(self.model.clone() as Arc<dyn ExecModel>)))?];
        let native = self.native(options, &said)?;
        stage.done("on this machine, as busy as it is");
        let [trees_timed, onnx_timed] = timed;
        let heads = [
            head_result("trees", of_trees, &trees_first, trees_timed, judged_trees)?,
            head_result("onnx", of_onnx, &onnx_first, onnx_timed, judged_onnx)?,
        ];
        Ok(Results {
            train_rows: self.trained.metrics.train_rows,
            test_rows: self.trained.metrics.test_rows,
            table_rmse: self.trained.metrics.table_rmse,
            replicates: options.replicates,
            winner: heads.iter().find(|head| head.against_other.may_go_live).map(|head| head.head),
            heads,
            native,
        })
    }

    fn measure(&self, model: &dyn ExecModel, errors: Option<[f64; 2]>) -> miette::Result<(ExecFigures, Vec<f64>)> {
        let head = self.trees.exec().expect("it was trained with one");
        let errors = errors.unwrap_or([head.smearing(), head.residual_sd()]);
        measure_exec_model(model, errors, &self.rows, TrainOptions::default().max_rows).into_diagnostic()
    }

    /// The same head without ONNX Runtime; `None` when it is no neural head of ours.
    fn native(&self, options: &OnnxCompareArguments, said: &[f64]) -> miette::Result<Option<NativeResult>> {
        let Ok(head) = read_neural(&fs::read(&options.file).into_diagnostic()?) else { return Ok(None) };
        let (exec, answers) = self.measure(&head, Some(self.errors))?;
        let differences = answers.iter().zip(said).map(|(here, there)| (here - there).abs());
        let largest_difference = differences.fold(0.0, f64::max);
        Ok(Some(NativeResult {
            exec,
            largest_difference,
            decisions: self.timed(Some(&(Arc::new(head) as Arc<dyn ExecModel>)))?,
        }))
    }

    /// Times decisions with the trained heads over a table that knows the fleet, as `bench decide` does.
    fn timed(&self, model: Option<&Arc<dyn ExecModel>>) -> miette::Result<Vec<Timing>> {
        let time = |candidates| {
            let world = Arc::new(World::new(candidates));
            let table = draft(&typical_rows(&world), (*world.table).clone()).bundle().into_diagnostic()?;
            let mut bundle = table.with_heads_of(&self.trees);
            if let Some(model) = model {
                bundle = onnx::in_place_of_trees(&bundle, Arc::clone(model), Some(self.errors))?;
            }
            let mut stage = Stage::start(format!("{candidates} candidates"));
            let row = measured(&world, &Placer::with_model(Arc::new(bundle)), 1, &mut stage)?;
            let DecideRow { candidates, p50_us, p99_us, .. } = row;
            stage.done(format!("p50 {p50_us:.2} µs, p99 {p99_us:.2} µs"));
            Ok(Timing { candidates, p50_us, p99_us })
        };
        CANDIDATES.into_iter().map(time).collect()
    }
}

/// The same runs with candidate and champion in each other's place.
fn with_roles_changed(closed_loop: &ClosedLoop) -> ClosedLoop {
    let mut policies = closed_loop.policies.clone();
    for policy in &mut policies {
        policy.name = match policy.name.as_str() {
            CANDIDATE => CHAMPION.to_owned(),
            CHAMPION => CANDIDATE.to_owned(),
            _ => continue,
        };
    }
    ClosedLoop { comparisons: compare(CANDIDATE, &policies), policies, ..closed_loop.clone() }
}

fn head_result(
    head: &'static str,
    exec: ExecFigures,
    closed_loop: &ClosedLoop,
    decisions: Vec<Timing>,
    [alone, against_other]: [Verdict; 2],
) -> miette::Result<HeadResult> {
    let of = |rival: &str, metric: &str| {
        let Comparison { ratio, low, high, .. } =
            *closed_loop.comparison(rival, metric).ok_or_else(|| miette!("{rival} did not run in the closed loop"))?;
        Ok::<_, miette::Report>(Ratio { ratio, low, high })
    };
    let ratios = |rival| Ok::<_, miette::Report>(Ratios { mean: of(rival, "mean_ms")?, p99: of(rival, "p99_ms")? });
    let pooled = closed_loop.policy(CANDIDATE).ok_or_else(|| miette!("{head} did not run in the closed loop"))?.pooled;
    let (mean_ms, p99_ms) = (pooled.mean_ms, pooled.p99_ms);
    let (to_standard, to_other) = (ratios(STANDARD)?, ratios(CHAMPION)?);
    Ok(HeadResult { head, exec, mean_ms, p99_ms, to_standard, to_other, decisions, alone, against_other })
}

fn print(results: &Results) {
    let Results { train_rows, test_rows, table_rmse, replicates, heads, native, winner } = results;
    println!(
        "{train_rows} rows to learn from, {test_rows} held out, table rmse {table_rmse:.4}, {replicates} replicates\n"
    );
    println!("{:<8}{:>9}{:>8}{:>9}{:>12}{:>13}", "head", "rmse", "r2", "bias", "mean ratio", "coverage .8");
    let line = |name: &str, exec: &ExecFigures| {
        let ExecFigures { rmse, r2, bias, mean_ratio, coverage_80 } = exec;
        println!("{name:<8}{rmse:>9.4}{r2:>8.4}{bias:>9.4}{mean_ratio:>12.4}{coverage_80:>13.4}");
    };
    heads.iter().for_each(|head| line(head.head, &head.exec));
    native.iter().for_each(|native| line("native", &native.exec));
    println!(
        "\n{:<8}{:>10}{:>10}  ratios of mean and p99 to {STANDARD}, and to the other head",
        "head", "mean ms", "p99 ms"
    );
    for HeadResult { head, mean_ms, p99_ms, to_standard, to_other, .. } in heads {
        println!("{head:<8}{mean_ms:>10.3}{p99_ms:>10.2}  {}, {}", in_words(to_standard), in_words(to_other));
    }
    println!("\nµs of a decision, p50 and p99");
    let timed = heads.iter().map(|head| (head.head, &head.decisions));
    for (name, decisions) in timed.chain(native.iter().map(|native| ("native", &native.decisions))) {
        for Timing { candidates, p50_us, p99_us } in decisions {
            println!("{name:<8}{candidates:>4} candidates{p50_us:>10.2}{p99_us:>10.2}");
        }
    }
    for HeadResult { head, alone, against_other, .. } in heads {
        for (beside, verdict) in [("no champion", alone), ("the other as champion", against_other)] {
            println!("\n{head} with {beside}: {}", if verdict.may_go_live { "may go live" } else { "refused" });
            verdict.reasons.iter().filter(|reason| !reason.holds).for_each(|reason| println!("  {reason}"));
        }
    }
    println!("\nwinner by the gate: {}", winner.unwrap_or("neither is shown to be better than the other"));
}

fn in_words(Ratios { mean, p99 }: &Ratios) -> String {
    let word = |Ratio { ratio, low, high }: &Ratio| match (low, high) {
        (Some(low), Some(high)) => format!("{ratio:.3} [{low:.3}, {high:.3}]"),
        _ => format!("{ratio:.3}"),
    };
    format!("{} {}", word(mean), word(p99))
}
