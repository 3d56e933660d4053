//! The figures by which models are compared.

use crate::rows::Samples;

/// Root of the mean squared difference; 0 for nothing.
pub(crate) fn rmse(truth: &[f64], predicted: &[f64]) -> f64 {
    let squares: f64 = truth.iter().zip(predicted).map(|(y, p)| (y - p) * (y - p)).sum();
    (squares / truth.len().max(1) as f64).sqrt()
}

/// Share of the variance that is explained; 0 where nothing varies.
pub(crate) fn r2(truth: &[f64], predicted: &[f64]) -> f64 {
    let mean = mean(truth);
    let spread = rmse(truth, &vec![mean; truth.len()]);
    // What rounding alone makes of a constant.
    if spread <= 1e-12 * (1.0 + mean.abs()) { 0.0 } else { 1.0 - (rmse(truth, predicted) / spread).powi(2) }
}

/// Mean; 0 for nothing.
pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Weighted mean; without weights the plain one.
pub(crate) fn weighted_mean(values: &[f64], weights: &[f32]) -> f64 {
    if weights.is_empty() {
        return mean(values);
    }
    let sum: f64 = values.iter().zip(weights).map(|(value, weight)| value * f64::from(*weight)).sum();
    sum / weights.iter().map(|weight| f64::from(*weight)).sum::<f64>()
}

/// Rounds to six decimals: all that a figure says, and what JSON brings back to the last bit.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// Root of the mean squared error of predictions of ln exec_ms, rounded.
pub(crate) fn rmse_of(samples: &Samples, predicted: &[f64]) -> f64 {
    rounded(rmse(&samples.ln_ms, predicted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_the_textbook() {
        let truth = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(rmse(&truth, &[1.0, 2.0, 3.0, 2.0]), 1.0);
        assert_eq!(r2(&truth, &truth), 1.0);
        assert_eq!(r2(&truth, &[2.5; 4]), 0.0);
        assert!((r2(&truth, &[1.0, 2.0, 3.0, 2.0]) - 0.2).abs() < 1e-12);
        assert_eq!((weighted_mean(&truth, &[]), weighted_mean(&truth, &[3.0, 1.0, 0.0, 0.0])), (2.5, 1.25));
    }

    #[test]
    fn constants_and_nothing_give_numbers() {
        assert_eq!(r2(&[0.1; 7], &[0.3; 7]), 0.0);
        assert_eq!((rmse(&[], &[]), r2(&[], &[]), mean(&[])), (0.0, 0.0, 0.0));
    }
}
