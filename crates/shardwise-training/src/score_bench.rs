//! Times how fast a boosted model is answered: by what serves here, and by what others serve with.
//!
//! One model, trained by LightGBM on generated rows; the same rows for all engines, on one thread of one process. Engines
//! take turns in short rounds, so that what disturbs the machine disturbs all of them, and all answers are compared with
//! LightGBM's. Left out: anything but scoring, and engines that are not installed, which are named with the reason.

mod compiled;
mod data;
mod engines;
mod lightgbm;
mod parity;

use std::path::PathBuf;

use lightgbm3::{Booster, Dataset};
use serde::Serialize;
use shardwise_models::forest::Forest;

use self::data::{Decisions, Generator};
use self::engines::{Contender, contenders};
pub use self::parity::{Parity, check_parity};
use crate::grow::Loss;
use crate::lightgbm_text::forest_from_lightgbm_text;
use crate::{TrainOptions, TrainingError};

/// Rows of one call.
const ROWS: [usize; 4] = [1, 16, 64, 256];
/// Different decisions of one size.
const DECISIONS: usize = 64;
/// Calls of an engine before others take their turn; the first ones, which find its data out of the caches, are not timed.
const BURST: usize = 25;
const UNTIMED: usize = 5;
/// Timed calls of each engine at each size: enough rows, but not more or fewer calls than these.
const TIMED_ROWS: usize = 160_000;
const MOST_CALLS: usize = 20_000;
const FEWEST_CALLS: usize = 800;
/// Bursts that an engine's ways to answer are compared in.
const TRIALS: usize = 8;
/// Rows that the model is trained on.
const TRAINING_DECISIONS: usize = 4_000;
const TRAINING_CANDIDATES: usize = 16;
/// Of the features, what the rows of one decision share.
const SHARED_SHARE: f64 = 0.6;

/// What is timed.
#[derive(Debug, Clone)]
pub struct ScoreBenchOptions {
    /// Trees of the model.
    pub trees: u32,
    /// Most leaves of a tree.
    pub leaves: u32,
    /// Features in a row.
    pub features: usize,
    /// Seed of rows and training.
    pub seed: u64,
    /// The Python whose treelite and tl2cgen make the compiled engine; `None` leaves it out.
    pub python: Option<PathBuf>,
}

/// How long calls of one engine take.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EngineTime {
    /// The engine.
    pub engine: &'static str,
    /// Which of its ways to answer was the fastest here.
    pub way: &'static str,
    /// Rows of a call.
    pub rows: usize,
    /// Features, from the first on, that the rows of a call share.
    pub shared_features: usize,
    /// Timed calls.
    pub calls: usize,
    /// Median time of a call in µs.
    pub p50_us: f64,
    /// 99th percentile in µs.
    pub p99_us: f64,
    /// Median time of a call over its rows, in ns.
    pub ns_per_row: f64,
}

/// How far an engine's answers are from LightGBM's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EngineDifference {
    /// The engine.
    pub engine: &'static str,
    /// Rows compared.
    pub rows: usize,
    /// The largest absolute difference.
    pub max_difference: f64,
}

/// An engine that is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// The engine.
    pub engine: &'static str,
    /// Why.
    pub reason: String,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScoreBench {
    /// Times by size, sharing and engine.
    pub results: Vec<EngineTime>,
    /// Differences by engine.
    pub differences: Vec<EngineDifference>,
    /// Engines that could not take part.
    pub left_out: Vec<LeftOut>,
}

/// A model in both of its forms, and where its rows come from.
struct Model {
    text: String,
    forest: Forest,
    generator: Generator,
}

/// Trains, times and compares. The clock gives nanoseconds.
///
/// # Errors
/// When the parameters make no sense, LightGBM fails, or an engine that began fails.
pub fn score_bench(
    options: &ScoreBenchOptions,
    clock_ns: fn() -> u64,
    progress: &mut dyn FnMut(String),
) -> Result<ScoreBench, TrainingError> {
    progress("training".to_owned());
    let mut model = Model::train(options, false)?;
    progress("preparing engines".to_owned());
    let (mut contenders, mut left_out) = contenders(&model, options.python.as_deref());
    let differences = compare(&mut contenders, &mut model, &mut left_out)?;
    let mut results = Vec::new();
    for rows in ROWS {
        for shared in [model.generator.n_shared(), 0] {
            progress(format!("{rows} rows, of which {shared} features are shared"));
            let decisions = model.generator.decisions(DECISIONS, rows, shared);
            results.extend(time(&mut contenders, &decisions, clock_ns)?);
        }
    }
    Ok(ScoreBench { results, differences, left_out })
}

impl Model {
    fn train(options: &ScoreBenchOptions, zero_is_missing: bool) -> Result<Self, TrainingError> {
        if !(2..=10_000).contains(&options.features) {
            let value = options.features as f64;
            return Err(TrainingError::Option { name: "features", value, rule: "2 to 10000" });
        }
        let (trees, leaves, seed) = (options.trees, options.leaves, options.seed);
        let parameters = TrainOptions { trees, leaves, seed, min_leaf: 20, ..TrainOptions::default() };
        parameters.check()?;
        let n_shared = ((SHARED_SHARE * options.features as f64) as usize).max(1);
        let mut generator = Generator::new(options.features, n_shared, seed);
        let decisions = generator.decisions(TRAINING_DECISIONS, TRAINING_CANDIDATES, n_shared);
        let labels = generator.labels(&decisions);
        let dataset = Dataset::from_slice(&decisions.rows, &labels, options.features as i32, true)?;
        let mut parameters = parameters.for_lightgbm(Loss::Squared, trees, None);
        parameters["zero_as_missing"] = zero_is_missing.into();
        let text = Booster::train(dataset, &parameters)?.save_string()?;
        let forest = forest_from_lightgbm_text(&text, options.features)?;
        Ok(Self { text, forest, generator })
    }
}

/// Compares all engines with LightGBM on rows of any kind; those that fail at once take no part.
fn compare(
    contenders: &mut Vec<Contender>,
    model: &mut Model,
    left_out: &mut Vec<LeftOut>,
) -> Result<Vec<EngineDifference>, TrainingError> {
    let decisions = model.generator.decisions(DECISIONS, 16, model.generator.n_shared());
    let truth = lightgbm::RawScores::new(&model.text, model.generator.width());
    let mut truth = truth.map_err(|problem| TrainingError::Engine { engine: "lightgbm", problem })?;
    let mut expected = vec![0.0; DECISIONS * decisions.n_rows];
    let answered = truth.matrix(&decisions.rows, &mut expected);
    answered.map_err(|problem| TrainingError::Engine { engine: "lightgbm", problem })?;
    let mut differences = Vec::new();
    contenders.retain_mut(|contender| match contender.max_difference(&decisions, &expected) {
        Ok(max_difference) => {
            differences.push(EngineDifference { engine: contender.engine, rows: expected.len(), max_difference });
            true
        }
        Err(reason) => {
            left_out.push(LeftOut { engine: contender.engine, reason });
            false
        }
    });
    Ok(differences)
}

/// Times all engines in turns on the same decisions.
fn time(
    contenders: &mut [Contender],
    decisions: &Decisions,
    clock_ns: fn() -> u64,
) -> Result<Vec<EngineTime>, TrainingError> {
    let calls = (TIMED_ROWS / decisions.n_rows).clamp(FEWEST_CALLS, MOST_CALLS);
    let burst = |contender: &mut Contender, way: usize, first: usize, times: &mut Vec<u64>| {
        let engine = contender.engine;
        let mut out = vec![0.0; decisions.n_rows];
        for call in 0..UNTIMED + BURST {
            let rows = decisions.of(first + call);
            let start = clock_ns();
            let answered = contender.ways[way].1.score(rows, decisions.n_shared, &mut out);
            let end = clock_ns();
            answered.map_err(|problem| TrainingError::Engine { engine, problem })?;
            if call >= UNTIMED {
                times.push(end - start);
            }
        }
        Ok::<_, TrainingError>(())
    };
    let mut chosen = Vec::new();
    for contender in contenders.iter_mut() {
        let mut trials = vec![Vec::new(); contender.ways.len()];
        for trial in 0..TRIALS {
            for (way, times) in trials.iter_mut().enumerate() {
                burst(contender, way, trial * BURST, times)?;
            }
        }
        let medians = trials.iter_mut().map(|times| quantile(times, 0.5));
        chosen.push(medians.enumerate().min_by_key(|(_, median)| *median).map_or(0, |(way, _)| way));
    }
    let mut times = vec![Vec::with_capacity(calls); contenders.len()];
    for round in 0..calls.div_ceil(BURST) {
        for turn in 0..contenders.len() {
            let index = (round + turn) % contenders.len();
            burst(&mut contenders[index], chosen[index], round * BURST, &mut times[index])?;
        }
    }
    let of_engine = |((contender, way), times): ((&Contender, usize), &mut Vec<u64>)| {
        let [p50, p99] = [0.5, 0.99].map(|share| quantile(times, share) as f64);
        EngineTime {
            engine: contender.engine,
            way: contender.ways[way].0,
            rows: decisions.n_rows,
            shared_features: decisions.n_shared,
            calls: times.len(),
            p50_us: p50 / 1e3,
            p99_us: p99 / 1e3,
            ns_per_row: p50 / decisions.n_rows as f64,
        }
    };
    Ok(contenders.iter().zip(chosen).zip(&mut times).map(of_engine).collect())
}

/// Sorts times and takes one of them; 0 when there is none.
fn quantile(times: &mut [u64], share: f64) -> u64 {
    times.sort_unstable();
    let place = (share * times.len().saturating_sub(1) as f64) as usize;
    times.get(place).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn tick() -> u64 {
        static TICKS: AtomicU64 = AtomicU64::new(0);
        TICKS.fetch_add(1_000, Ordering::Relaxed)
    }

    #[test]
    fn engines_agree_and_absent_ones_are_named() {
        let options = ScoreBenchOptions { trees: 5, leaves: 8, features: 10, seed: 3, python: None };
        let bench = score_bench(&options, tick, &mut |_| {}).expect("a measurement");
        let absent: Vec<_> = bench.left_out.iter().map(|left_out| left_out.engine).collect();
        assert!(absent.contains(&"tl2cgen"), "{absent:?}");
        for engine in ["shardwise", "lightgbm"] {
            let difference = bench.differences.iter().find(|it| it.engine == engine).expect("it takes part");
            assert_eq!(difference.max_difference, 0.0, "{engine}");
            let times: Vec<_> = bench.results.iter().filter(|time| time.engine == engine).collect();
            assert_eq!(times.len(), 2 * ROWS.len());
            assert!(times.iter().all(|time| time.p50_us >= 1.0 && time.p99_us >= time.p50_us));
        }
    }

    #[test]
    fn absurd_sizes_are_refused() {
        let options = ScoreBenchOptions { trees: 5, leaves: 8, features: 1, seed: 3, python: None };
        assert!(matches!(score_bench(&options, tick, &mut |_| {}), Err(TrainingError::Option { .. })));
    }
}
