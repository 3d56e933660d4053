//! Fits the latency heads: trees on ln of the whole latency, once from all features and once from what the specification
//! lists and the shard's name. They are the rivals that a closed loop compares the execution head with.

use std::path::Path;

use serde::{Deserialize, Serialize};
use shardwise_datasets::{Split, TrainingData, training_data};
use shardwise_features::FEATURE_COUNT;
use shardwise_models::{LatencyColumns, LatencyHead};

use crate::dataset::READ_FOR_EACH_TRAINED;
use crate::figures::{rmse, rounded};
use crate::grow::{Examples, Loss, grow};
use crate::rows::{MIN_TEST_ROWS, MIN_TRAIN_ROWS, RowCounts, early_of, evenly, require, weights_of};
use crate::{TrainOptions, TrainingError};

/// No latency is taken to be shorter, so that its logarithm stays within bounds.
pub(crate) const MIN_LATENCY_MS: f64 = 1e-3;

/// The two latency heads of a dataset.
#[derive(Debug, Clone, PartialEq)]
pub struct LatencyModels {
    /// Reads all features.
    pub end_to_end: LatencyHead,
    /// Reads the specification's features and which shard it is, of those that training rows went to.
    pub specification: LatencyHead,
    /// How well they do on the test rows.
    pub metrics: LatencyMetrics,
}

/// How well latency heads do; errors are roots of mean squares, of ln total_ms.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatencyMetrics {
    /// Rows trained on.
    pub train_rows: u64,
    /// Rows measured on.
    pub test_rows: u64,
    /// Of the head that reads all features.
    pub end_to_end_rmse: f64,
    /// Of the head that reads the specification's features and the shard.
    pub specification_rmse: f64,
}

/// Trains both latency heads on a dataset; a request that failed or took longer than the timeout, in ms, counts as the
/// timeout.
///
/// # Errors
/// When the dataset cannot be read, and as [`train_latency_rows`].
pub fn train_latency(
    dataset: &Path,
    timeout_ms: f64,
    options: &TrainOptions,
    progress: &mut dyn FnMut(&str),
) -> Result<LatencyModels, TrainingError> {
    progress("reading the dataset");
    let data = training_data(dataset, Some(options.max_rows.saturating_mul(READ_FOR_EACH_TRAINED)))?;
    train_latency_rows(&data, timeout_ms, options, progress)
}

/// As [`train_latency`], on rows that are in memory.
///
/// # Errors
/// Says what is missing when there are too few rows, and refuses a model that would not be served as it was trained.
pub fn train_latency_rows(
    data: &TrainingData,
    timeout_ms: f64,
    options: &TrainOptions,
    progress: &mut dyn FnMut(&str),
) -> Result<LatencyModels, TrainingError> {
    options.check()?;
    let chosen = Chosen::of(data, options.max_rows)?;
    let shards = chosen.train.iter().map(|row| data.shard[*row]).collect();
    progress(&format!("growing up to {} trees of latency on {} rows", options.trees, chosen.train.len()));
    let (end_to_end, end_to_end_rmse) = fit(LatencyColumns::Features, data, &chosen, timeout_ms, options)?;
    progress("growing trees of latency on the specification's features and the shard");
    let columns = LatencyColumns::specification_and_shard(shards);
    let (specification, specification_rmse) = fit(columns, data, &chosen, timeout_ms, options)?;
    let metrics = LatencyMetrics {
        train_rows: chosen.train.len() as u64,
        test_rows: chosen.test.len() as u64,
        end_to_end_rmse,
        specification_rmse,
    };
    Ok(LatencyModels { end_to_end, specification, metrics })
}

/// Positions of the rows that are learned from and measured on, in the order of time.
struct Chosen {
    train: Vec<usize>,
    test: Vec<usize>,
}

impl Chosen {
    /// Failed requests are among them: how long they took is known.
    fn of(data: &TrainingData, max_rows: usize) -> Result<Self, TrainingError> {
        let mut counts = RowCounts { all: data.len(), ..RowCounts::default() };
        let (mut train, mut test) = (Vec::new(), Vec::new());
        for row in 0..data.len() {
            match data.split[row] {
                Split::Train if data.block[row] <= 0 => counts.without_history += 1,
                Split::Train => train.push(row),
                Split::Gap => counts.gap += 1,
                Split::Test => test.push(row),
            }
        }
        require("training", train.len().min(max_rows), MIN_TRAIN_ROWS, counts)?;
        require("test", test.len(), MIN_TEST_ROWS, counts)?;
        train.sort_by_key(|row| data.known_at[*row]);
        let train = evenly(train.len(), max_rows).map(|place| train[place]).collect();
        Ok(Self { train, test })
    }
}

/// Fits a head and says how far it is off on the test rows.
fn fit(
    columns: LatencyColumns,
    data: &TrainingData,
    chosen: &Chosen,
    timeout_ms: f64,
    options: &TrainOptions,
) -> Result<(LatencyHead, f64), TrainingError> {
    let width = columns.width();
    let gather = |chosen: &[usize]| (rows_of(&columns, data, chosen), ln_ms_of(data, chosen, timeout_ms));
    let (rows, labels) = gather(&chosen.train);
    let weights = weights_of(&data.weight, &chosen.train);
    let all = Examples { rows: &rows, width, labels: &labels, weights: &weights, rising: &[] };
    let (early, late) = all.split_at(early_of(labels.len()));
    let (_, trees) = grow(&early, Some(&late), Loss::Squared, options.trees, options)?;
    let (forest, _) = grow(&all, None, Loss::Squared, trees, options)?;
    let (rows, labels) = gather(&chosen.test);
    let head = LatencyHead::new(columns, forest)?;
    let mut predicted = vec![0.0; labels.len()];
    head.predict_ln_ms_rows(&rows, &mut predicted);
    Ok((head, rounded(rmse(&labels, &predicted))))
}

fn rows_of(columns: &LatencyColumns, data: &TrainingData, chosen: &[usize]) -> Vec<f32> {
    let mut rows = Vec::with_capacity(chosen.len() * columns.width());
    for row in chosen {
        columns.push_row(&data.features[row * FEATURE_COUNT..], data.shard[*row], &mut rows);
    }
    rows
}

fn ln_ms_of(data: &TrainingData, chosen: &[usize], timeout_ms: f64) -> Vec<f64> {
    chosen.iter().map(|row| effective_ln_ms(data.ok[*row], data.total_ms[*row], timeout_ms)).collect()
}

/// ln of a latency in ms; a request that failed or took longer than the timeout counts as the timeout.
pub(crate) fn effective_ln_ms(ok: bool, total_ms: f32, timeout_ms: f64) -> f64 {
    let total_ms = f64::from(total_ms);
    let effective_ms = if ok && total_ms < timeout_ms { total_ms } else { timeout_ms };
    effective_ms.max(MIN_LATENCY_MS).ln()
}

#[cfg(test)]
mod tests {
    use shardwise_features::position;
    use shardwise_types::Timestamp;

    use super::*;

    const TIMEOUT_MS: f64 = 3000.0;

    /// Latency grows with what is in flight, shard 20 is three times as slow as shard 10, and every 50th request fails
    /// at once. Nothing else in the row tells the shards apart.
    fn world(n_train: usize, n_test: usize) -> TrainingData {
        let in_flight = position("in_flight_per_core").expect("a feature");
        let mut data = TrainingData::default();
        for row in 0..n_train + n_test {
            let (shard, load) = ([10, 20][row % 2], (row * 7 % 11) as f32);
            let mut features = vec![0.5; FEATURE_COUNT];
            features[in_flight] = load;
            data.features.extend(features);
            data.known_at.push(Timestamp::from_nanos(row as i64));
            data.block.push(1);
            data.shard.push(shard);
            data.ok.push(row % 50 != 49);
            data.total_ms.push(if row % 50 == 49 { 0.1 } else { shard_ms(shard) * (1.0 + load) });
            data.split.push(if row < n_train { Split::Train } else { Split::Test });
        }
        data
    }

    fn shard_ms(shard: u64) -> f32 {
        if shard == 10 { 20.0 } else { 60.0 }
    }

    fn predict(head: &LatencyHead, features: &[f32], shard: u64) -> f64 {
        let (mut row, mut answer) = (Vec::new(), [0.0]);
        head.columns().push_row(features, shard, &mut row);
        head.predict_ln_ms_rows(&row, &mut answer);
        answer[0]
    }

    #[test]
    fn each_head_learns_what_it_is_shown() {
        let data = world(8000, 1000);
        let models = train_latency_rows(&data, TIMEOUT_MS, &TrainOptions::default(), &mut |_| {}).expect("models");
        assert_eq!((models.metrics.train_rows, models.metrics.test_rows), (8000, 1000));
        let (mut idle, mut busy) = (vec![0.5; FEATURE_COUNT], vec![0.5; FEATURE_COUNT]);
        let in_flight = position("in_flight_per_core").expect("a feature");
        (idle[in_flight], busy[in_flight]) = (0.0, 10.0);
        let all = &models.end_to_end;
        assert!(predict(all, &busy, 10) - predict(all, &idle, 10) > 1.5, "it sees the load");
        assert_eq!(predict(all, &idle, 10), predict(all, &idle, 20), "it does not see the name");
        let named = &models.specification;
        let apart = predict(named, &idle, 20) - predict(named, &idle, 10);
        assert!((apart - 3.0_f64.ln()).abs() < 0.15, "it sees the name: {apart}");
        assert_eq!(predict(named, &idle, 10), predict(named, &busy, 10), "it does not see the load");
        assert!(predict(named, &idle, 7).is_finite(), "an unseen shard is legal");
    }

    #[test]
    fn a_failure_is_as_bad_as_the_timeout() {
        let mut data = world(2000, 400);
        let rows: Vec<usize> = (0..data.len()).collect();
        data.total_ms[0] = 9999.0;
        data.total_ms[1] = 0.0;
        let ln_ms = ln_ms_of(&data, &rows, TIMEOUT_MS);
        for timed_out in [0, 49, 99] {
            assert_eq!(ln_ms[timed_out], TIMEOUT_MS.ln());
        }
        assert_eq!(ln_ms[1], MIN_LATENCY_MS.ln());
        assert_eq!(ln_ms[2], f64::from(data.total_ms[2]).ln());
    }

    #[test]
    fn rows_without_history_are_left_out() {
        let mut data = world(2000, 400);
        data.block[..1500].fill(0);
        let refusal = train_latency_rows(&data, TIMEOUT_MS, &TrainOptions::default(), &mut |_| {});
        let said = refusal.expect_err("a refusal").to_string();
        assert!(said.starts_with("500 usable training rows") && said.contains("1500 have no history"), "{said}");
    }
}
