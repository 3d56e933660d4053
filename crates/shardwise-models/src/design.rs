//! What models that know no missing values and no units are given: standardised columns, the mean where a value is missing,
//! and a flag for each feature that can be missing.

use shardwise_features::FEATURE_COUNT;

/// Values further out, in standard deviations, are drawn in: a straight line would follow them anywhere.
pub(crate) const MAX_DEVIATION: f64 = 8.0;

/// What a column is computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The value of the feature at this position.
    Value(usize),
    /// 1 when that feature is missing, else 0.
    Missing(usize),
}

/// One standardised column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Column {
    pub(crate) source: Source,
    /// Of the rows that shaped it.
    pub(crate) mean: f64,
    /// Of the same rows; above 0.
    pub(crate) sd: f64,
}

/// Columns as training rows shape them: of zero mean and unit variance on those rows, each in [-8, 8]. A feature that does not
/// vary has none.
#[derive(Debug, Clone, PartialEq)]
pub struct Design {
    columns: Vec<Column>,
}

impl Design {
    /// Takes means and standard deviations from rows, each one feature vector.
    pub fn fit<'a>(rows: &(impl Iterator<Item = &'a [f32]> + Clone)) -> Self {
        Self { columns: (0..FEATURE_COUNT).flat_map(|feature| columns_of(rows.clone(), feature)).collect() }
    }

    /// Number of columns.
    pub fn width(&self) -> usize {
        self.columns.len()
    }

    pub(crate) fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Computes the columns of these rows, one column after the other.
    pub fn column_major<'a>(&self, rows: &(impl Iterator<Item = &'a [f32]> + Clone)) -> Vec<f64> {
        self.columns.iter().flat_map(|column| rows.clone().map(|row| column.value(row))).collect()
    }
}

fn columns_of<'a>(rows: impl Iterator<Item = &'a [f32]> + Clone, feature: usize) -> Vec<Column> {
    let (mut all, mut n, mut sum, mut squares) = (0_u32, 0.0, 0.0, 0.0);
    for row in rows {
        all += 1;
        let value = f64::from(row[feature]);
        if value.is_finite() {
            n += 1.0;
            sum += value;
            squares += value * value;
        }
    }
    let mut columns = Vec::new();
    let (mean, share) = (sum / n, 1.0 - n / f64::from(all));
    let sd = (squares / n - mean * mean).max(0.0).sqrt();
    // NaN when the feature is never known; relative, because rounding alone gives a constant some spread.
    if sd > 1e-6 * (1.0 + mean.abs()) {
        columns.push(Column { source: Source::Value(feature), mean, sd });
    }
    if share > 0.0 && share < 1.0 {
        columns.push(Column { source: Source::Missing(feature), mean: share, sd: (share * (1.0 - share)).sqrt() });
    }
    columns
}

impl Column {
    fn value(&self, row: &[f32]) -> f64 {
        let value = match self.source {
            Source::Value(feature) if row[feature].is_finite() => f64::from(row[feature]),
            Source::Value(_) => self.mean,
            Source::Missing(feature) => f64::from(u8::from(!row[feature].is_finite())),
        };
        ((value - self.mean) / self.sd).clamp(-MAX_DEVIATION, MAX_DEVIATION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(features: &[f32]) -> impl Iterator<Item = &[f32]> + Clone {
        features.chunks_exact(FEATURE_COUNT)
    }

    #[test]
    fn columns_are_finite_whatever_the_rows() {
        let special = [f32::NAN, f32::INFINITY, f32::MAX, f32::MIN, 0.0, 1.0, -2.5];
        let value = |i: usize| match i % FEATURE_COUNT {
            0 => f32::NAN,
            1 => 7.0,
            2 => special[i / FEATURE_COUNT % special.len()],
            feature => ((i / FEATURE_COUNT + 3 * feature) % 50) as f32,
        };
        let features: Vec<f32> = (0..400 * FEATURE_COUNT).map(value).collect();
        let design = Design::fit(&rows(&features));
        let values = design.column_major(&rows(&features));
        assert_eq!(values.len(), design.width() * 400);
        assert!(values.iter().all(|value| value.abs() <= MAX_DEVIATION));
        // Two columns of feature 2, none of those that are never known or never vary.
        assert_eq!(design.width(), FEATURE_COUNT - 3 + 2);
    }

    #[test]
    fn columns_are_standardised() {
        let features: Vec<f32> = (0..1000 * FEATURE_COUNT).map(|i| ((i / FEATURE_COUNT) % 10) as f32).collect();
        let column = &Design::fit(&rows(&features)).column_major(&rows(&features))[..1000];
        let mean = column.iter().sum::<f64>() / 1000.0;
        let variance = column.iter().map(|value| value * value).sum::<f64>() / 1000.0;
        assert!(mean.abs() < 1e-9 && (variance - 1.0).abs() < 1e-9);
    }
}
