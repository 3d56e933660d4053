//! What moves the predictions of the execution head: exact TreeSHAP and the gain of its splits, on logged rows.

use rayon::prelude::*;
use shardwise_features::{FEATURE_COUNT, FEATURES};
use shardwise_models::ExecHead;
use shardwise_models::forest::Covers;

use super::figures::{EffectPoint, FeatureEffect, FeatureImportance, Importance};

/// Features whose effect is drawn.
const DRAWN: usize = 6;
/// Points of an effect.
const POINTS: usize = 16;
/// Fewer rows of a value say nothing.
const FEWEST_ROWS: usize = 20;

/// Logged decisions with what became of them: the features of the shard that was chosen.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LoggedRows {
    /// Feature vectors, one after the other.
    pub features: Vec<f32>,
    /// Execution in ms by row; NaN where it was cold, failed, or is not known.
    pub warm_exec_ms: Vec<f32>,
}

impl LoggedRows {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.warm_exec_ms.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.warm_exec_ms.is_empty()
    }

    /// Rows whose warm execution is known: features, and ln ms.
    pub(super) fn executed(&self) -> (Vec<f32>, Vec<f64>) {
        let rows = self.features.chunks_exact(FEATURE_COUNT).zip(&self.warm_exec_ms);
        let (mut features, mut ln_ms) = (Vec::new(), Vec::new());
        for (row, ms) in rows.filter(|(_, ms)| **ms > 0.0) {
            features.extend_from_slice(row);
            ln_ms.push(f64::from(*ms).ln());
        }
        (features, ln_ms)
    }
}

/// Explains a head on rows, at most `most` of them, evenly spaced; `None` without rows of warm executions.
pub fn importance(head: &ExecHead, rows: &LoggedRows, most: usize) -> Option<Importance> {
    let (features, ln_ms) = rows.executed();
    if ln_ms.is_empty() {
        return None;
    }
    let forest = head.forest();
    let covers = Covers::on_rows(forest, &features, FEATURE_COUNT);
    // The head adds one feature to what the trees say: what that contributes is known without them.
    let offset = head.offset_feature();
    let offsets: Vec<f64> = features.chunks_exact(FEATURE_COUNT).map(|row| head.offset_ln_ms(row)).collect();
    let mean_offset = offsets.iter().sum::<f64>() / offsets.len() as f64;
    let explained: Vec<&[f32]> =
        features.chunks_exact(FEATURE_COUNT).step_by(ln_ms.len().div_ceil(most.max(1))).collect();
    let explain = |row: &&[f32]| {
        let mut out = vec![0.0; FEATURE_COUNT];
        let mean = forest.contributions(&covers, row, &mut out) + mean_offset;
        out[offset] += head.offset_ln_ms(row) - mean_offset;
        let gap = (mean + out.iter().sum::<f64>() - head.predict_ln_ms(row)).abs();
        (out, mean, gap)
    };
    let contributions: Vec<(Vec<f64>, f64, f64)> = explained.par_iter().map(explain).collect();
    let left: Vec<f64> = ln_ms.iter().zip(&offsets).map(|(ln_ms, offset)| ln_ms - offset).collect();
    let gains = forest.gains(&features, FEATURE_COUNT, &left);
    let all_gains: f64 = gains.iter().sum();
    let n = contributions.len() as f64;
    let mean_of = |feature: usize| contributions.iter().map(|(own, ..)| own[feature].abs()).sum::<f64>() / n;
    let mut order: Vec<(usize, f64)> = (0..FEATURE_COUNT).map(|feature| (feature, mean_of(feature))).collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let row = |&(feature, mean_contribution): &(usize, f64)| FeatureImportance {
        feature: FEATURES[feature].name.to_owned(),
        mean_contribution,
        gain: if all_gains > 0.0 { gains[feature] / all_gains } else { 0.0 },
    };
    let effect = |&(feature, _): &(usize, f64)| {
        let points =
            explained.iter().zip(&contributions).map(|(row, (own, ..))| (f64::from(row[feature]), own[feature]));
        FeatureEffect { feature: FEATURES[feature].name.to_owned(), points: effect_points(points.collect()) }
    };
    Some(Importance {
        rows: contributions.len() as u64,
        mean_ln_ms: contributions.first().map_or(0.0, |(_, mean, _)| *mean),
        largest_gap: contributions.iter().map(|(.., gap)| *gap).fold(0.0, f64::max),
        features: order.iter().filter(|(feature, mean)| *mean > 0.0 || gains[*feature] > 0.0).map(row).collect(),
        effects: order.iter().filter(|(_, mean)| *mean > 0.0).take(DRAWN).map(effect).collect(),
    })
}

/// Means of contributions over rows of about the same value.
fn effect_points(mut rows: Vec<(f64, f64)>) -> Vec<EffectPoint> {
    rows.retain(|(value, _)| value.is_finite());
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    let depth = rows.len().div_ceil(POINTS).max(FEWEST_ROWS);
    let mut points = Vec::new();
    let mut from = 0;
    while from < rows.len() {
        let mut until = (from + depth).min(rows.len());
        // Equal values stay together.
        while until < rows.len() && rows[until].0 == rows[until - 1].0 {
            until += 1;
        }
        if rows.len() - until < FEWEST_ROWS {
            until = rows.len();
        }
        let part = &rows[from..until];
        let mean = |read: fn(&(f64, f64)) -> f64| part.iter().map(read).sum::<f64>() / part.len() as f64;
        let mut own: Vec<f64> = part.iter().map(|row| row.1).collect();
        own.sort_by(f64::total_cmp);
        points.push(EffectPoint {
            value: mean(|row| row.0),
            mean: mean(|row| row.1),
            low: own[own.len() / 10],
            high: own[(own.len() * 9 / 10).min(own.len() - 1)],
        });
        from = until;
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effects_are_means_over_rows_of_about_the_same_value() {
        let rows = (0..1_000).map(|i| (f64::from(i % 10), f64::from(i % 10) * 2.0)).chain([(f64::NAN, 9.0)]);
        let points = effect_points(rows.collect());
        assert_eq!(points.len(), 10, "one for each value");
        for (value, point) in points.iter().enumerate() {
            let value = value as f64;
            assert_eq!(
                (point.value, point.mean, point.low, point.high),
                (value, 2.0 * value, 2.0 * value, 2.0 * value)
            );
        }
        assert!(effect_points(Vec::new()).is_empty());
    }
}
