//! Training rows, one per decision and its chosen shard, and the choice of those that the execution head learns from.
//!
//! Left out: how rows are made; they come from a dataset.

use std::fmt;
use std::ops::Range;

use shardwise_features::{FEATURE_COUNT, position};
use shardwise_types::Timestamp;

use crate::TrainingError;

/// Fewest rows that are trained on.
pub(crate) const MIN_TRAIN_ROWS: usize = 1000;
/// Fewest rows that are measured on.
pub(crate) const MIN_TEST_ROWS: usize = 200;
/// Share of the training rows, the latest, that tell when to stop.
pub(crate) const VALIDATION_SHARE: f64 = 0.15;

/// What a row may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// To learn from.
    Train,
    /// Nothing: it has no history to learn from, or lies between the others, so that neither tells of the other.
    Gap,
    /// To measure on.
    Test,
}

/// Rows in columns; all have one value per row, `features` one feature vector.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    /// Feature vectors, row after row.
    pub features: Vec<f32>,
    /// When the decision was made.
    pub known_at: Vec<Timestamp>,
    /// Block of time; what the features know of history comes from earlier blocks, so that those of block 0 know nothing.
    pub block: Vec<i32>,
    /// Whether the function had to be loaded first.
    pub cold: Vec<bool>,
    /// Milliseconds in the shard's queue.
    pub queue_ms: Vec<f32>,
    /// Milliseconds from dispatch to response.
    pub total_ms: Vec<f32>,
    /// Milliseconds of execution, cold start included; not above 0 when it never ran.
    pub exec_ms: Vec<f32>,
    /// Whether the request succeeded.
    pub ok: Vec<bool>,
    /// What the row may be used for.
    pub part: Vec<Part>,
    /// How many rows it stands for, when rows were left out; empty when each stands for itself.
    pub weight: Vec<f32>,
}

impl Rows {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.known_at.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.known_at.is_empty()
    }

    /// Checks that all columns have one value per row.
    pub(crate) fn check(&self) -> Result<(), TrainingError> {
        for (column, found, width) in [
            ("features", self.features.len(), FEATURE_COUNT),
            ("block", self.block.len(), 1),
            ("cold", self.cold.len(), 1),
            ("queue_ms", self.queue_ms.len(), 1),
            ("total_ms", self.total_ms.len(), 1),
            ("exec_ms", self.exec_ms.len(), 1),
            ("ok", self.ok.len(), 1),
            ("split", self.part.len(), 1),
        ] {
            let expected = self.len() * width;
            if found != expected {
                return Err(TrainingError::Columns { column, expected, found });
            }
        }
        if !self.weight.is_empty() && self.weight.len() != self.len() {
            let (expected, found) = (self.len(), self.weight.len());
            return Err(TrainingError::Columns { column: "weight", expected, found });
        }
        Ok(())
    }

    pub(crate) fn features(&self, row: usize) -> &[f32] {
        &self.features[row * FEATURE_COUNT..][..FEATURE_COUNT]
    }

    /// The feature vectors of some rows, one after the other.
    pub(crate) fn features_of(&self, chosen: &[usize]) -> Vec<f32> {
        let mut features = Vec::with_capacity(chosen.len() * FEATURE_COUNT);
        chosen.iter().for_each(|row| features.extend_from_slice(self.features(*row)));
        features
    }

    pub(crate) fn is_executed(&self, row: usize) -> bool {
        self.ok[row] && self.exec_ms[row].is_finite() && self.exec_ms[row] > 0.0
    }
}

/// Where the rows of a dataset went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowCounts {
    /// All rows.
    pub all: usize,
    /// Rows that failed or have no execution time.
    pub not_executed: usize,
    /// Rows that were cold, which tell nothing of warm execution.
    pub cold: usize,
    /// Executed rows for training whose features know nothing of history.
    pub without_history: usize,
    /// Executed rows that the dataset sets aside: in its first block, or between training and test.
    pub gap: usize,
}

impl fmt::Display for RowCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { all, not_executed, cold, without_history, gap } = self;
        write!(
            f,
            "of {all} rows {not_executed} failed or never ran, {cold} were cold, {without_history} have no history to learn from, and {gap} \
             are set aside in the first block or between training and test"
        )
    }
}

/// Rows that a model of execution times learns from or is measured on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples {
    /// Feature vectors, row after row.
    pub(crate) features: Vec<f32>,
    /// ln exec_ms.
    pub(crate) ln_ms: Vec<f64>,
    /// Weights, 1 in the mean; empty when all are equal.
    pub(crate) weights: Vec<f32>,
}

impl Samples {
    fn gather(rows: &Rows, chosen: &[usize]) -> Self {
        let ln_ms = chosen.iter().map(|row| f64::from(rows.exec_ms[*row]).ln()).collect();
        Self { features: rows.features_of(chosen), ln_ms, weights: weights_of(&rows.weight, chosen) }
    }

    pub(crate) fn len(&self) -> usize {
        self.ln_ms.len()
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = &[f32]> + Clone {
        self.features.chunks_exact(FEATURE_COUNT)
    }

    /// Takes at most `limit` of the rows at some places, evenly spaced.
    pub(crate) fn thinned(&self, places: Range<usize>, limit: usize) -> Self {
        let chosen: Vec<_> = evenly(places.len(), limit).map(|place| places.start + place).collect();
        let features = chosen.iter().flat_map(|row| &self.features[row * FEATURE_COUNT..][..FEATURE_COUNT]);
        Self {
            features: features.copied().collect(),
            ln_ms: chosen.iter().map(|row| self.ln_ms[*row]).collect(),
            weights: weights_of(&self.weights, &chosen),
        }
    }
}

/// The rows of a dataset that concern warm execution times, in the order of time.
#[derive(Debug)]
pub(crate) struct ExecSamples {
    /// To learn from.
    pub(crate) train: Samples,
    /// How many of them come before those that tell when to stop.
    pub(crate) early: usize,
    /// To measure on.
    pub(crate) test: Samples,
    /// Time of the first training row.
    pub(crate) trained_from: Timestamp,
    /// Time of the last training row.
    pub(crate) trained_to: Timestamp,
}

impl ExecSamples {
    /// Chooses the executed rows, at most `max_rows` for training.
    pub(crate) fn choose(rows: &Rows, max_rows: usize) -> Result<Self, TrainingError> {
        rows.check()?;
        let (train, test) = choose_rows(rows, max_rows, |row| match (rows.is_executed(row), rows.cold[row]) {
            (false, _) => Some(Unfit::NotExecuted),
            (true, cold) => cold.then_some(Unfit::Cold),
        })?;
        let early = early_of(train.len());
        let [trained_from, trained_to] = [train[0], train[train.len() - 1]].map(|row| rows.known_at[row]);
        let (train, test) = (Samples::gather(rows, &train), Samples::gather(rows, &test));
        Ok(Self { train, early, test, trained_from, trained_to })
    }
}

/// Why a row tells a head nothing.
pub(crate) enum Unfit {
    /// It failed or has no time.
    NotExecuted,
    /// It was cold.
    Cold,
}

/// Chooses what a head learns from, at most `max_rows` rows in the order of time, and what it is measured on.
pub(crate) fn choose_rows(
    rows: &Rows,
    max_rows: usize,
    unfit: impl Fn(usize) -> Option<Unfit>,
) -> Result<(Vec<usize>, Vec<usize>), TrainingError> {
    let mut counts = RowCounts { all: rows.len(), ..RowCounts::default() };
    let (mut train, mut test) = (Vec::new(), Vec::new());
    for row in 0..rows.len() {
        match (unfit(row), rows.part[row]) {
            (Some(Unfit::NotExecuted), _) => counts.not_executed += 1,
            (Some(Unfit::Cold), _) => counts.cold += 1,
            (None, Part::Train) if rows.block[row] <= 0 => counts.without_history += 1,
            (None, Part::Train) => train.push(row),
            (None, Part::Gap) => counts.gap += 1,
            (None, Part::Test) => test.push(row),
        }
    }
    require("training", train.len().min(max_rows), MIN_TRAIN_ROWS, counts)?;
    require("test", test.len(), MIN_TEST_ROWS, counts)?;
    train.sort_by_key(|row| rows.known_at[*row]);
    let train = evenly(train.len(), max_rows).map(|place| train[place]).collect();
    Ok((train, test))
}

/// How many of the training rows, in the order of time, come before those that tell when to stop.
pub(crate) fn early_of(rows: usize) -> usize {
    (rows as f64 * (1.0 - VALIDATION_SHARE)) as usize
}

/// Refuses too few rows.
pub(crate) fn require(part: &'static str, found: usize, needed: usize, counts: RowCounts) -> Result<(), TrainingError> {
    if found >= needed { Ok(()) } else { Err(TrainingError::TooFewRows { part, found, needed, counts }) }
}

/// The weights of some rows, 1 in the mean, so that a leaf's prior weighs as much as without; none when all are equal.
pub(crate) fn weights_of(weights: &[f32], chosen: &[usize]) -> Vec<f32> {
    if weights.is_empty() || chosen.iter().all(|row| weights[*row] == weights[chosen[0]]) {
        return Vec::new();
    }
    let mean = chosen.iter().map(|row| f64::from(weights[*row])).sum::<f64>() / chosen.len() as f64;
    chosen.iter().map(|row| (f64::from(weights[*row]) / mean) as f32).collect()
}

/// At most `limit` of `n` places, evenly spaced.
pub(crate) fn evenly(n: usize, limit: usize) -> impl Iterator<Item = usize> {
    let taken = n.min(limit);
    (0..taken).map(move |place| (place as u128 * n as u128 / taken as u128) as usize)
}

/// Position of a feature that training knows by name.
pub(crate) fn known_feature(name: &str) -> usize {
    position(name).expect("a feature that training names is in the table")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(n_train: usize, n_test: usize) -> Rows {
        let n = n_train + n_test;
        Rows {
            features: vec![1.0; n * FEATURE_COUNT],
            // The later, the earlier in the columns: order must come from time.
            known_at: (0..n).map(|row| Timestamp::from_nanos((n - row) as i64)).collect(),
            block: vec![1; n],
            cold: vec![false; n],
            queue_ms: vec![0.0; n],
            total_ms: vec![2.0; n],
            exec_ms: (0..n).map(|row| 1.0 + row as f32).collect(),
            ok: vec![true; n],
            weight: Vec::new(),
            part: (0..n).map(|row| if row < n_train { Part::Train } else { Part::Test }).collect(),
        }
    }

    fn refusal(rows: &Rows) -> String {
        ExecSamples::choose(rows, usize::MAX).expect_err("a refusal").to_string()
    }

    #[test]
    fn too_few_rows_are_refused_with_what_is_there() {
        assert!(ExecSamples::choose(&rows(1000, 200), usize::MAX).is_ok());
        let said = refusal(&rows(999, 200));
        assert!(said.starts_with("999 usable training rows are too few: 1000 are needed"), "{said}");
        assert!(refusal(&rows(1000, 199)).starts_with("199 usable test rows"));
        assert!(refusal(&Rows::default()).starts_with("0 usable training rows"));
        let mut failed = rows(1000, 200);
        failed.ok[..3].fill(false);
        failed.exec_ms[3] = f32::NAN;
        failed.exec_ms[4] = 0.0;
        failed.block[5] = 0;
        failed.part[6] = Part::Gap;
        let said = refusal(&failed);
        assert!(said.contains("993 usable") && said.contains("of 1200 rows 5 failed"), "{said}");
        assert!(said.contains("1 have no history") && said.contains("and 1 are set aside"), "{said}");
    }

    #[test]
    fn training_rows_come_in_the_order_of_time() {
        let samples = ExecSamples::choose(&rows(1000, 200), usize::MAX).expect("samples");
        assert!(samples.train.ln_ms.is_sorted_by(|one, other| one >= other));
        assert_eq!(samples.early, 850);
        assert!(samples.trained_from < samples.trained_to);
    }

    #[test]
    fn too_many_rows_are_thinned_over_all_time() {
        let samples = ExecSamples::choose(&rows(5000, 200), 1000).expect("samples");
        assert_eq!(samples.train.len(), 1000);
        assert_eq!(samples.trained_to.millis_since(samples.trained_from), 4995.0 / 1e6);
        assert_eq!(evenly(10, 4).collect::<Vec<_>>(), [0, 2, 5, 7]);
        assert_eq!(evenly(3, 10).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(evenly(0, 10).count(), 0);
    }

    #[test]
    fn columns_of_different_lengths_are_refused() {
        let mut uneven = rows(1000, 200);
        uneven.ok.pop();
        assert!(refusal(&uneven).starts_with("column `ok` of the training rows has 1199 values"));
    }
}
