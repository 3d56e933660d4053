//! Fits the head of failures, where history holds enough of them: a small forest, which decisions can afford.

use shardwise_models::{SideDraft, SideTarget};

use crate::rows::{Part, Rows};
use crate::side::fit_side_head;
use crate::{TrainOptions, TrainingError};

/// Fewest failures among the rows to learn from and among those to measure on.
const FEWEST: [usize; 2] = [50, 10];

/// Fits the head; `None` when there are too few failures to learn from or to measure on.
///
/// # Errors
/// As [`crate::train_rows`].
pub(crate) fn fit_error_head(rows: &Rows, options: &TrainOptions) -> Result<Option<SideDraft>, TrainingError> {
    let fails = |row: &usize, part: Part| rows.part[*row] == part && rows.block[*row] > 0 && !rows.ok[*row];
    let failures = |part: Part| (0..rows.len()).filter(|row| fails(row, part)).count();
    if [Part::Train, Part::Test].map(failures).iter().zip(FEWEST).any(|(found, fewest)| *found < fewest) {
        return Ok(None);
    }
    fit_side_head(SideTarget::Error, rows, &options.of_a_small_head()).map(Some)
}

#[cfg(test)]
mod tests {
    use shardwise_features::{FEATURE_COUNT, position};
    use shardwise_types::Timestamp;

    use super::*;
    use crate::options::SMALL_HEAD_TREES;

    /// A shard of which a third failed of late fails six requests in ten, another one in a hundred; every fourth row is of
    /// the former.
    fn world(n: usize, failing: f64) -> Rows {
        let counted = position("shard_error_rate").expect("a feature");
        let mut rows = Rows::default();
        let mut state = 1_u64;
        for row in 0..n {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let uniform = (state >> 11) as f64 / (1_u64 << 53) as f64;
            let is_failing = row % 4 == 0;
            let mut features = vec![f32::NAN; FEATURE_COUNT];
            features[counted] = if is_failing { 0.3 } else { 0.01 };
            rows.features.extend(features);
            let ok = uniform >= if is_failing { failing } else { 0.01 };
            rows.ok.push(ok);
            rows.total_ms.push(10.0);
            rows.exec_ms.push(if ok { 9.0 } else { 0.0 });
            rows.queue_ms.push(0.0);
            rows.cold.push(false);
            rows.block.push(1);
            rows.known_at.push(Timestamp::from_nanos(row as i64));
            rows.part.push(if row < n * 4 / 5 { Part::Train } else { Part::Test });
        }
        rows
    }

    fn fitted(rows: &Rows) -> Option<SideDraft> {
        fit_error_head(rows, &TrainOptions::default()).expect("no failure")
    }

    fn predict(draft: &SideDraft, rows: &Rows, row: usize) -> f64 {
        let mut answer = [f64::NAN];
        draft.head.predict_rows(&rows.features[row * FEATURE_COUNT..][..FEATURE_COUNT], &mut answer);
        answer[0]
    }

    #[test]
    fn a_failing_shard_is_known_by_what_it_failed_of_late() {
        let rows = world(12_000, 0.6);
        let draft = fitted(&rows).expect("a head");
        let [failing, other] = [0, 1].map(|row| predict(&draft, &rows, row));
        assert!((failing - 0.6).abs() < 0.05 && (other - 0.01).abs() < 0.01, "{failing} {other}");
        let metrics = draft.metrics;
        assert!(metrics.loss < metrics.formula_loss && (metrics.bias - 1.0).abs() < 0.1, "{metrics:?}");
        assert!(draft.head.forest().n_trees() <= SMALL_HEAD_TREES as usize);
    }

    #[test]
    fn the_more_fails_the_more_is_foretold() {
        let foretold = [0.2, 0.4, 0.8].map(|failing| {
            let rows = world(8_000, failing);
            predict(&fitted(&rows).expect("a head"), &rows, 0)
        });
        assert!(foretold.is_sorted_by(|less, more| less + 0.1 < *more), "{foretold:?}");
    }

    #[test]
    fn few_failures_teach_nothing() {
        let mut rows = world(4_000, 0.6);
        rows.ok.fill(true);
        assert_eq!(fitted(&rows), None);
        rows.ok[..100].fill(false);
        assert_eq!(fitted(&rows), None, "nothing to measure on");
        rows.ok[3_900..].fill(false);
        assert!(fitted(&rows).is_some());
    }
}
