//! What models that know no missing values and no units are given: standardised columns, the mean where a value is missing,
//! and a flag for each feature that can be missing.

use shardwise_features::FEATURE_COUNT;

use crate::rows::Samples;

/// Values further out, in standard deviations, are drawn in: a straight line would follow them anywhere.
const MAX_DEVIATION: f64 = 8.0;

/// A column and what it is computed from.
enum Column {
    /// The value of a feature.
    Value { feature: usize, mean: f64, sd: f64 },
    /// Whether the feature is missing, standardised as well.
    Missing { feature: usize, share: f64 },
}

/// Columns as the training rows shape them; a feature that does not vary has none.
pub(crate) struct Design {
    columns: Vec<Column>,
}

impl Design {
    pub(crate) fn fit(samples: &Samples) -> Self {
        Self { columns: (0..FEATURE_COUNT).flat_map(|feature| columns_of(samples, feature)).collect() }
    }

    pub(crate) fn width(&self) -> usize {
        self.columns.len()
    }

    /// Computes the columns of these rows, one after the other.
    pub(crate) fn column_major(&self, samples: &Samples) -> Vec<f64> {
        let mut values = Vec::with_capacity(self.width() * samples.len());
        for column in &self.columns {
            values.extend(samples.rows().map(|row| column.value(row)));
        }
        values
    }
}

fn columns_of(samples: &Samples, feature: usize) -> Vec<Column> {
    let (mut n, mut sum, mut squares) = (0.0, 0.0, 0.0);
    for value in samples.rows().map(|row| f64::from(row[feature])).filter(|value| value.is_finite()) {
        n += 1.0;
        sum += value;
        squares += value * value;
    }
    let mut columns = Vec::new();
    let (mean, share) = (sum / n, 1.0 - n / samples.len() as f64);
    let sd = (squares / n - mean * mean).max(0.0).sqrt();
    // NaN when the feature is never known; relative, because rounding alone gives a constant some spread.
    if sd > 1e-6 * (1.0 + mean.abs()) {
        columns.push(Column::Value { feature, mean, sd });
    }
    if share > 0.0 && share < 1.0 {
        columns.push(Column::Missing { feature, share });
    }
    columns
}

impl Column {
    fn value(&self, row: &[f32]) -> f64 {
        match self {
            Self::Value { feature, mean, sd } => {
                let value = f64::from(row[*feature]);
                let deviation = if value.is_finite() { (value - mean) / sd } else { 0.0 };
                deviation.clamp(-MAX_DEVIATION, MAX_DEVIATION)
            }
            Self::Missing { feature, share } => {
                let missing = f64::from(u8::from(!row[*feature].is_finite()));
                ((missing - share) / (share * (1.0 - share)).sqrt()).clamp(-MAX_DEVIATION, MAX_DEVIATION)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_finite_whatever_the_rows() {
        let special = [f32::NAN, f32::INFINITY, f32::MAX, f32::MIN, 0.0, 1.0, -2.5];
        let value = |i: usize| match i % FEATURE_COUNT {
            0 => f32::NAN,
            1 => 7.0,
            2 => special[i / FEATURE_COUNT % special.len()],
            feature => ((i / FEATURE_COUNT + 3 * feature) % 50) as f32,
        };
        let samples = Samples {
            features: (0..400 * FEATURE_COUNT).map(value).collect(),
            ln_ms: vec![0.0; 400],
            weights: Vec::new(),
        };
        let design = Design::fit(&samples);
        let values = design.column_major(&samples);
        assert_eq!(values.len(), design.width() * 400);
        assert!(values.iter().all(|value| value.abs() <= MAX_DEVIATION));
        // Two columns of feature 2, none of those that are never known or never vary.
        assert_eq!(design.width(), FEATURE_COUNT - 3 + 2);
    }

    #[test]
    fn columns_are_standardised() {
        let features = (0..1000 * FEATURE_COUNT).map(|i| ((i / FEATURE_COUNT) % 10) as f32).collect();
        let samples = Samples { features, ln_ms: vec![0.0; 1000], weights: Vec::new() };
        let column = &Design::fit(&samples).column_major(&samples)[..1000];
        let mean = column.iter().sum::<f64>() / 1000.0;
        let variance = column.iter().map(|value| value * value).sum::<f64>() / 1000.0;
        assert!(mean.abs() < 1e-9 && (variance - 1.0).abs() < 1e-9);
    }
}
