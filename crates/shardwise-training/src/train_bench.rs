//! Times how long learning takes, and how much memory: here, and by Python's LightGBM on the same files.
//!
//! Both sides read the dataset's Parquet, choose the same rows, and fit the same heads with the same parameters: once on
//! the earlier training rows, until the later ones gain nothing, and once more on all. Each side is to run in a process of
//! its own, on one thread. Left out: service table, rivals and bundles, which have no counterpart in Python.

mod head;
mod rival;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use shardwise_datasets::training_data;
use shardwise_models::forest::Forest;

pub use self::head::BenchHead;
use self::head::{Lesson, Source};
pub use self::rival::train_in_python;
use crate::exec::predict;
use crate::figures::{mean, rounded};
use crate::grow::{Binned, Examples, Loss};
use crate::{TrainOptions, TrainingError};

/// What both sides are told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TrainBenchPlan {
    /// The dataset's folder.
    pub dataset: PathBuf,
    /// Most training rows of a head; of more, evenly thinned over time.
    pub rows: usize,
    /// Most trees of a head.
    pub trees: u32,
    /// Seed of all that is drawn.
    pub seed: u64,
    /// What a request that failed or took longer counts as, in ms; of the latency head.
    pub timeout_ms: f64,
}

impl TrainBenchPlan {
    fn options(&self) -> TrainOptions {
        TrainOptions { max_rows: self.rows, trees: self.trees, seed: self.seed, ..TrainOptions::default() }
    }
}

/// How long one side took, in ms of processor time, and how well it learned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainTimes {
    /// Who trained, with its version.
    pub engine: String,
    /// From files to rows in memory.
    pub reading_ms: f64,
    /// From rows to those of a head and their labels; the sum over heads, as all that follow.
    pub choosing_ms: f64,
    /// From values to LightGBM's bins.
    pub binning_ms: f64,
    /// From bins to trees.
    pub growing_ms: f64,
    /// Answering the test rows.
    pub testing_ms: f64,
    /// The most memory that the process ever held, in MiB; `None` where the system does not say.
    pub peak_mib: Option<u64>,
    /// What was learned, in the order of [`BenchHead::ALL`].
    pub heads: Vec<HeadTimes>,
}

impl TrainTimes {
    /// All phases together.
    pub fn processor_ms(&self) -> f64 {
        self.reading_ms + self.choosing_ms + self.binning_ms + self.growing_ms + self.testing_ms
    }

    /// The mean times and the largest peak of trainings on the same plan, which must have learned the same; `None` of none.
    ///
    /// # Errors
    /// When one learned otherwise than the first.
    pub fn mean_of(rounds: &[Self]) -> Result<Option<Self>, TrainingError> {
        let Some(first) = rounds.first() else { return Ok(None) };
        if rounds.iter().any(|round| round.heads != first.heads) {
            let problem = "the same rows, parameters and seed gave other trees".to_owned();
            return Err(TrainingError::Engine { engine: "a trainer", problem });
        }
        let mean_ms = |phase: fn(&Self) -> f64| mean(&rounds.iter().map(phase).collect::<Vec<_>>());
        Ok(Some(Self {
            engine: first.engine.clone(),
            reading_ms: mean_ms(|round| round.reading_ms),
            choosing_ms: mean_ms(|round| round.choosing_ms),
            binning_ms: mean_ms(|round| round.binning_ms),
            growing_ms: mean_ms(|round| round.growing_ms),
            testing_ms: mean_ms(|round| round.testing_ms),
            peak_mib: rounds.iter().map(|round| round.peak_mib).max().flatten(),
            heads: first.heads.clone(),
        }))
    }
}

/// One head of one side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadTimes {
    /// Name of the head.
    pub head: String,
    /// Rows that it learned from.
    pub train_rows: u64,
    /// Rows that it was measured on.
    pub test_rows: u64,
    /// Its trees.
    pub trees: u32,
    /// Root of the mean squared error on the test rows in units of the label, or the mean logarithmic loss.
    pub error: f64,
}

/// Trains as the library does, and takes the time by a clock that gives nanoseconds: of the processor, as Python's side
/// takes it, so that what else the machine does counts on neither.
///
/// # Errors
/// When the dataset cannot be read or has too few rows, or LightGBM fails.
pub fn train_here(
    plan: &TrainBenchPlan,
    clock_ns: fn() -> u64,
    progress: &mut dyn FnMut(&str),
) -> Result<TrainTimes, TrainingError> {
    let options = plan.options();
    options.check()?;
    let mut laps = Laps { clock_ns, since: clock_ns() };
    progress("reading the dataset");
    let data = training_data(&plan.dataset, None)?;
    let mut times = TrainTimes {
        engine: format!("shardwise {}", env!("CARGO_PKG_VERSION")),
        reading_ms: laps.lap_ms(),
        choosing_ms: 0.0,
        binning_ms: 0.0,
        growing_ms: 0.0,
        testing_ms: 0.0,
        peak_mib: None,
        heads: Vec::new(),
    };
    let source = Source::new(data);
    for head in BenchHead::ALL {
        progress(&format!("growing trees of {}", head.name()));
        laps.lap_ms();
        let lesson = source.lesson(head, plan)?;
        times.choosing_ms += laps.lap_ms();
        let learned = fit(head, &lesson, &options, &mut laps, &mut times)?;
        times.heads.push(learned);
    }
    Ok(times)
}

fn fit(
    head: BenchHead,
    lesson: &Lesson,
    options: &TrainOptions,
    laps: &mut Laps,
    times: &mut TrainTimes,
) -> Result<HeadTimes, TrainingError> {
    let (loss, all) = (head.loss(), lesson.train.examples());
    let (early, late) = all.split_at(lesson.early);
    let (_, trees) = grow(loss, (&early, Some(&late)), options.trees, options, laps, times)?;
    let (forest, trees) = grow(loss, (&all, None), trees, options, laps, times)?;
    let (test, labels) = (&lesson.test, &lesson.test.labels);
    let error = error_of(loss, &predict(&forest, &test.features), labels);
    times.testing_ms += laps.lap_ms();
    let (train_rows, test_rows) = (lesson.train.labels.len() as u64, labels.len() as u64);
    Ok(HeadTimes { head: head.name().to_owned(), train_rows, test_rows, trees, error })
}

/// As [`crate::grow::grow`], which is the same two steps.
fn grow(
    loss: Loss,
    (train, validation): (&Examples<'_>, Option<&Examples<'_>>),
    trees: u32,
    options: &TrainOptions,
    laps: &mut Laps,
    times: &mut TrainTimes,
) -> Result<(Forest, u32), TrainingError> {
    let binned = Binned::new(train, validation, options)?;
    times.binning_ms += laps.lap_ms();
    let grown = binned.grow(train, loss, trees, options)?;
    times.growing_ms += laps.lap_ms();
    Ok(grown)
}

/// The error of sums of leaves.
fn error_of(loss: Loss, sums: &[f64], labels: &[f64]) -> f64 {
    let losses: Vec<f64> = sums.iter().zip(labels).map(|(sum, label)| loss.of_sum(*sum, *label)).collect();
    match loss {
        Loss::Squared => rounded(mean(&losses).sqrt()),
        Loss::Logarithmic | Loss::Quantile(_) => rounded(mean(&losses)),
    }
}

/// Time since the last look at the clock.
struct Laps {
    clock_ns: fn() -> u64,
    since: u64,
}

impl Laps {
    fn lap_ms(&mut self) -> f64 {
        let now = (self.clock_ns)();
        let lap_ns = now.saturating_sub(self.since);
        self.since = now;
        lap_ns as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_averaged_when_they_learned_the_same() {
        let head = |trees| HeadTimes { head: "exec".to_owned(), train_rows: 9, test_rows: 3, trees, error: 0.5 };
        let round = |ms: f64, peak, trees| TrainTimes {
            engine: "one".to_owned(),
            reading_ms: ms,
            choosing_ms: 0.0,
            binning_ms: 0.0,
            growing_ms: 2.0 * ms,
            testing_ms: 0.0,
            peak_mib: Some(peak),
            heads: vec![head(trees)],
        };
        let both = TrainTimes::mean_of(&[round(1.0, 7, 4), round(3.0, 5, 4)]).expect("the same trees").expect("rounds");
        assert_eq!(both, round(2.0, 7, 4));
        assert_eq!(both.processor_ms(), 6.0);
        assert!(TrainTimes::mean_of(&[round(1.0, 7, 4), round(1.0, 7, 5)]).is_err());
        assert_eq!(TrainTimes::mean_of(&[]).expect("nothing differs"), None);
    }
}
