//! The execution head's rows for other trainers, and how well any model of warm executions does on the rows held out.

use serde::Serialize;
use shardwise_features::fingerprint;
use shardwise_models::{DatasetSource, ExecModel, ExecRows};

use crate::TrainingError;
use crate::exec::{OFFSET_FEATURE, Offset};
use crate::figures::{mean, r2, rmse_of, rounded};
use crate::rows::{ExecSamples, Rows};

/// Nine in ten of a normal distribution lie below so many standard deviations, one in ten below minus so many.
const TENTH_SD: f64 = 1.281_551_565_545;

/// What a model of warm executions says of rows that it was not trained on, and what came. All of ln exec_ms but `mean_ratio`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ExecFigures {
    /// Root of the mean squared error.
    pub rmse: f64,
    /// Share of the variance that is explained.
    pub r2: f64,
    /// Mean of what came less what was said; 0 is best.
    pub bias: f64,
    /// Mean execution time over the mean that the model says with its smearing; 1 is best.
    pub mean_ratio: f64,
    /// Share of rows within ±1.28 of the model's standard deviations; 0.8 is best where errors are normal.
    pub coverage_80: f64,
}

/// Chooses the rows that an execution head learns from, at most `max_rows`, as [`train_rows`](crate::train_rows) does. None of those
/// that it is measured on is among them.
///
/// # Errors
/// When there are too few rows.
pub fn exec_rows(rows: &Rows, dataset: &DatasetSource, max_rows: usize) -> Result<ExecRows, TrainingError> {
    let ExecSamples { train, early, trained_from, trained_to, .. } = ExecSamples::choose(rows, max_rows)?;
    Ok(ExecRows {
        feature_fingerprint: fingerprint().to_owned(),
        dataset: dataset.id.clone(),
        dataset_hash: dataset.hash.clone(),
        trained_from_ns: trained_from.nanos(),
        trained_to_ns: trained_to.nanos(),
        offset_feature: OFFSET_FEATURE.to_owned(),
        offset_default_ln_ms: Offset::of(&train).default_ln_ms,
        early: early as u64,
        features: train.features,
        ln_ms: train.ln_ms,
        weights: train.weights,
    })
}

/// Measures a model with its smearing and standard deviation on the test rows, and returns what it says of each beside that.
///
/// # Errors
/// When there are too few rows.
pub fn measure_exec_model(
    model: &dyn ExecModel,
    [smearing, residual_sd]: [f64; 2],
    rows: &Rows,
    max_rows: usize,
) -> Result<(ExecFigures, Vec<f64>), TrainingError> {
    let test = ExecSamples::choose(rows, max_rows)?.test;
    let mut predicted = vec![f64::NAN; test.len()];
    model.predict_ln_ms_rows(&test.features, &mut predicted);
    let missed: Vec<f64> = test.ln_ms.iter().zip(&predicted).map(|(came, said)| came - said).collect();
    let times = |ln_ms: &[f64]| mean(&ln_ms.iter().map(|ln_ms| ln_ms.exp()).collect::<Vec<_>>());
    let within = missed.iter().filter(|missed| missed.abs() <= TENTH_SD * residual_sd).count();
    let figures = ExecFigures {
        rmse: rmse_of(&test, &predicted),
        r2: rounded(r2(&test.ln_ms, &predicted)),
        bias: rounded(mean(&missed)),
        mean_ratio: rounded(times(&test.ln_ms) / (smearing * times(&predicted))),
        coverage_80: rounded(within as f64 / test.len() as f64),
    };
    Ok((figures, predicted))
}

#[cfg(test)]
mod tests {
    use shardwise_features::FEATURE_COUNT;
    use shardwise_models::BundleDraft;
    use shardwise_types::Timestamp;

    use super::*;
    use crate::Part;

    /// Says the same of all.
    struct Constant(f64);

    impl ExecModel for Constant {
        fn predict_ln_ms_rows(&self, _: &[f32], out: &mut [f64]) {
            out.fill(self.0);
        }
    }

    /// A thousand rows to learn from, whose time is 1 ms, and two hundred to measure on of 1 ms and e² ms in turn.
    fn rows() -> Rows {
        let n = 1200;
        Rows {
            features: (0..n * FEATURE_COUNT).map(|i| (i / FEATURE_COUNT) as f32).collect(),
            known_at: (0..n).map(|row| Timestamp::from_nanos(row as i64)).collect(),
            block: vec![1; n],
            cold: vec![false; n],
            queue_ms: vec![0.0; n],
            total_ms: vec![10.0; n],
            exec_ms: (0..n).map(|row| if row >= 1000 && row % 2 == 1 { 2_f32.exp() } else { 1.0 }).collect(),
            ok: vec![true; n],
            part: (0..n).map(|row| if row < 1000 { Part::Train } else { Part::Test }).collect(),
            weight: Vec::new(),
        }
    }

    #[test]
    fn figures_are_those_of_the_rows_held_out() {
        let measure = |ln_ms: f64, errors| {
            measure_exec_model(&Constant(ln_ms), errors, &rows(), usize::MAX).expect("enough rows").0
        };
        let mean_ms = f64::midpoint(1.0, 2_f64.exp());
        let ExecFigures { rmse, r2, bias, mean_ratio, coverage_80 } = measure(1.0, [1.0, 1.0]);
        assert_eq!((rmse, r2, bias, coverage_80), (1.0, 0.0, 0.0, 1.0));
        assert!((mean_ratio - mean_ms / 1_f64.exp()).abs() < 1e-6, "{mean_ratio}");
        let ExecFigures { bias, mean_ratio, coverage_80, .. } = measure(0.0, [mean_ms, 0.5]);
        assert_eq!((bias, mean_ratio, coverage_80), (1.0, 1.0, 0.5));
        assert_eq!(measure(1.0, [1.0, 0.5]).coverage_80, 0.0);
    }

    #[test]
    fn rows_for_others_are_those_that_trees_learn_from() {
        let chosen = exec_rows(&rows(), &BundleDraft::example().dataset, usize::MAX).expect("enough rows");
        assert_eq!((chosen.len(), chosen.early), (1000, 850));
        assert!(chosen.rows().enumerate().all(|(row, features)| features[0] == row as f32), "none is held out");
        assert!(chosen.ln_ms.iter().all(|ln_ms| *ln_ms == 0.0) && chosen.offset_default_ln_ms == 0.0);
        assert_eq!(ExecRows::from_bytes(&chosen.to_bytes()).expect("a sound file"), chosen);
    }
}
