//! Fits the quantile heads: small forests, by pinball loss, on ln of the latency over what a formula expects of the row.
//!
//! A request that failed takes as long as the longest did: the loss asks only on which side of the quantile it lies.

use shardwise_features::FEATURE_COUNT;
use shardwise_models::forest::Forest;
use shardwise_models::{
    QUANTILE_LEVELS, QuantileDraft, QuantileFigures, QuantileHead, QuantileMetrics, formula_latency_ln_ms,
};

use crate::figures::{mean, rounded};
use crate::grow::{Examples, Loss, grow};
use crate::rows::{Rows, choose_rows, early_of, weights_of};
use crate::{TrainOptions, TrainingError};

/// No latency is taken to be shorter, so that its logarithm stays within bounds.
const MIN_LATENCY_MS: f32 = 1e-3;

/// Fits both heads on the training rows; as many trees as the later of them gain from.
///
/// # Errors
/// As [`crate::train_rows`].
pub(crate) fn fit_quantile_heads(rows: &Rows, options: &TrainOptions) -> Result<QuantileDraft, TrainingError> {
    let options = options.of_a_small_head();
    let (train, test) = choose_rows(rows, options.max_rows, |_| None)?;
    let longest = longest_ms(rows, &train);
    let [train, test] = [train, test].map(|chosen| Sample::gather(rows, &chosen, longest));
    let [median, upper] = PERCENTS.map(|percent| train.grow(Loss::Quantile(percent), &options));
    let head = QuantileHead::new([median?, upper?])?;
    let metrics = measure(&head, &train, &test);
    Ok(QuantileDraft { head, metrics })
}

/// The levels in hundredths.
const PERCENTS: [u8; 2] = [50, 90];

/// The longest latency of these rows.
fn longest_ms(rows: &Rows, chosen: &[usize]) -> f32 {
    chosen.iter().map(|row| rows.total_ms[*row]).filter(|ms| ms.is_finite()).fold(MIN_LATENCY_MS, f32::max)
}

/// Rows with what the formula misses of them.
struct Sample {
    features: Vec<f32>,
    /// ln of the latency over the formula.
    missed_ln: Vec<f64>,
    weights: Vec<f32>,
}

impl Sample {
    fn gather(rows: &Rows, chosen: &[usize], longest_ms: f32) -> Self {
        let missed_ln = |row: usize| {
            let ms = if rows.ok[row] && rows.total_ms[row].is_finite() { rows.total_ms[row] } else { longest_ms };
            f64::from(ms.max(MIN_LATENCY_MS)).ln() - formula_latency_ln_ms(rows.features(row))
        };
        Self {
            features: chosen.iter().flat_map(|row| rows.features(*row)).copied().collect(),
            missed_ln: chosen.iter().map(|row| missed_ln(*row)).collect(),
            weights: weights_of(&rows.weight, chosen),
        }
    }

    fn part(&self, places: std::ops::Range<usize>) -> Examples<'_> {
        let (from, to) = (places.start, places.end.min(self.missed_ln.len()));
        let rows = &self.features[from * FEATURE_COUNT..to * FEATURE_COUNT];
        let weights = if self.weights.is_empty() { &[] } else { &self.weights[from..to] };
        Examples { rows, width: FEATURE_COUNT, labels: &self.missed_ln[from..to], weights, rising: &[] }
    }

    fn grow(&self, loss: Loss, options: &TrainOptions) -> Result<Forest, TrainingError> {
        let early = early_of(self.missed_ln.len());
        let (train, later) = (self.part(0..early), self.part(early..usize::MAX));
        let (_, trees) = grow(&train, Some(&later), loss, options.trees, options)?;
        grow(&self.part(0..usize::MAX), None, loss, trees, options).map(|(forest, _)| forest)
    }
}

fn measure(head: &QuantileHead, train: &Sample, test: &Sample) -> QuantileMetrics {
    let rows = || test.features.chunks_exact(FEATURE_COUNT);
    let predicted: Vec<[f64; 2]> =
        rows().map(|row| head.predict_ms(row).map(|ms| ms.ln() - formula_latency_ln_ms(row))).collect();
    let figures = |which: usize| {
        let loss = Loss::Quantile(PERCENTS[which]);
        let constant = quantile(&train.missed_ln, QUANTILE_LEVELS[which]);
        let over_rows = |of: &dyn Fn(f64, f64) -> f64| {
            let values: Vec<f64> =
                predicted.iter().zip(&test.missed_ln).map(|(quantiles, y)| of(quantiles[which], *y)).collect();
            rounded(mean(&values))
        };
        QuantileFigures {
            loss: over_rows(&|predicted, y| loss.of(predicted, y)),
            formula_loss: over_rows(&|_, y| loss.of(constant, y)),
            coverage: over_rows(&|predicted, y| f64::from(u8::from(y <= predicted))),
        }
    };
    QuantileMetrics {
        train_rows: train.missed_ln.len() as u64,
        test_rows: test.missed_ln.len() as u64,
        q50: figures(0),
        q90: figures(1),
    }
}

/// The quantile of values; 0 of none.
fn quantile(values: &[f64], level: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get((level * sorted.len() as f64) as usize).or(sorted.last()).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use shardwise_features::position;
    use shardwise_types::Timestamp;

    use super::*;
    use crate::Part;

    /// Executions that the table knows, of which a tenth takes `tail` times as long on a burstable shard and none elsewhere.
    fn world(n: usize, tail: f32) -> Rows {
        let at = |name| position(name).expect("a feature");
        let mut rows = Rows::default();
        let mut state = 1_u64;
        for row in 0..n {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let uniform = ((state >> 40) as f32 + 0.5) / (1_u64 << 24) as f32;
            let burstable = row % 2 == 0;
            let service_ms = 10.0 + (row % 7) as f32;
            let mut features = vec![f32::NAN; FEATURE_COUNT];
            features[at("prior_service_ln_ms")] = service_ms.ln();
            features[at("hardware_burstable")] = f32::from(u8::from(burstable));
            rows.features.extend(features);
            // Even around the expected, between 0.8 and 1.2 of it; the slow ones are beyond the 80th percentile.
            let slow = if burstable && uniform > 0.8 { tail } else { 1.0 };
            rows.total_ms.push(service_ms * (0.8 + 0.4 * uniform) * slow);
            rows.exec_ms.push(service_ms);
            rows.queue_ms.push(0.0);
            rows.cold.push(false);
            rows.ok.push(true);
            rows.block.push(1);
            rows.known_at.push(Timestamp::from_nanos(row as i64));
            rows.part.push(if row < n * 4 / 5 { Part::Train } else { Part::Test });
        }
        rows
    }

    fn fitted(rows: &Rows) -> QuantileDraft {
        fit_quantile_heads(rows, &TrainOptions::default()).expect("heads")
    }

    fn predict(draft: &QuantileDraft, rows: &Rows, row: usize) -> [f64; 2] {
        draft.head.predict_ms(rows.features(row)).map(|ms| ms / f64::from(rows.exec_ms[row]))
    }

    #[test]
    fn a_planted_tail_is_found_where_it_is() {
        let rows = world(12_000, 3.0);
        let draft = fitted(&rows);
        let ([half, most], [half_plain, most_plain]) = (predict(&draft, &rows, 0), predict(&draft, &rows, 1));
        assert!((half - 1.0).abs() < 0.03 && (half_plain - 1.0).abs() < 0.03, "{half} {half_plain}");
        assert!((most_plain - 1.16).abs() < 0.03, "the 90th percentile without a tail: {most_plain}");
        assert!((most - 1.16 * 3.0).abs() < 0.15, "and with it: {most}");
        let QuantileMetrics { q50, q90, .. } = draft.metrics;
        assert!(q90.loss < 0.6 * q90.formula_loss, "{q90:?}");
        assert!((q50.coverage - 0.5).abs() < 0.03 && (q90.coverage - 0.9).abs() < 0.02, "{q50:?} {q90:?}");
    }

    #[test]
    fn what_takes_longer_everywhere_is_predicted_longer_everywhere() {
        let (rows, mut slower) = (world(4_000, 2.0), world(4_000, 2.0));
        slower.total_ms.iter_mut().for_each(|ms| *ms *= 2.0);
        let (draft, slower) = (fitted(&rows), fitted(&slower));
        for row in 0..20 {
            for (plain, twice) in predict(&draft, &rows, row).into_iter().zip(predict(&slower, &rows, row)) {
                assert!((twice / plain - 2.0).abs() < 0.02, "row {row}: {plain} then {twice}");
            }
        }
    }

    #[test]
    fn failures_are_the_longest_of_all() {
        let mut rows = world(4_000, 1.0);
        // Every fifth fails at once: more than a tenth is then longest of all.
        for row in (0..rows.len()).step_by(5) {
            (rows.ok[row], rows.total_ms[row]) = (false, 0.1);
        }
        let longest = f64::from(longest_ms(&rows, &(0..3_200).collect::<Vec<_>>()));
        let [half, most] = fitted(&rows).head.predict_ms(rows.features(1));
        assert!((most - longest).abs() < 0.1 * longest, "{most} of {longest}");
        assert!(half < 1.2 * f64::from(rows.exec_ms[1]), "{half}");
    }
}
