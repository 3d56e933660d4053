//! Regression on lags, hour and market: what is added to the last value, robustly fitted, shrunk towards nothing.

use super::methods::{Forecaster, Method};
use super::prepared::{Past, Prepared, Target};

pub(super) const FEATURES: usize = 15;
/// Ridge: this many rows' worth of belief that a (standardised) feature says nothing.
const SHRINKAGE: f64 = 8.0;
/// Rounds of reweighting, which turn squares into absolute errors.
const ROUNDS: usize = 5;
/// Fewest rows of training for a fit.
const FEWEST_ROWS: usize = 60;

type Row = [f64; FEATURES];

/// See [`Method::Lags`]; a fit for each target.
#[derive(Clone)]
pub(super) struct Lags {
    fits: Vec<(Target, Fit)>,
    /// Mean of the training part.
    pub(super) level: f64,
}

#[derive(Clone)]
struct Fit {
    means: Row,
    scales: Row,
    weights: Row,
    intercept: f64,
}

impl Lags {
    /// Fits all targets on the steps before `end`.
    pub(super) fn fit(train: &Prepared, end: usize, targets: &[Target]) -> Self {
        let level = train.until(end).mean(end).unwrap_or(0.0);
        let fits = targets.iter().filter_map(|target| {
            let last = end.checked_sub(target.reach())?;
            let rows = (2..=last).filter_map(|step| {
                let past = train.until(step);
                Some((features(&past, *target, level)?, train.truth(step, *target)? - past.last()?))
            });
            fit(&rows.collect::<Vec<_>>()).map(|fit| (*target, fit))
        });
        Self { fits: fits.collect(), level }
    }
}

impl Forecaster for Lags {
    fn method(&self) -> Method {
        Method::Lags
    }

    fn forecast(&self, past: &Past<'_>, target: Target) -> Option<f64> {
        let (_, fit) = self.fits.iter().find(|(known, _)| *known == target)?;
        Some(past.last()? + fit.predict(&features(past, target, self.level)?))
    }
}

/// Differences to the last value, so that nothing known means nothing added; NaN is missing.
pub(super) fn features(past: &Past<'_>, target: Target, level: f64) -> Option<Row> {
    let last = past.last()?;
    let (day, step) = (past.prepared.day, past.values.len());
    let to = |value: Option<f64>| value.map_or(f64::NAN, |value| value - last);
    let ago = |shift: usize| past.season_ago(target, day + shift);
    let around =
        [ago(0), ago(1), ago(2), day.checked_sub(target.reach() + 1).and_then(|_| past.season_ago(target, day - 1))];
    let there: Vec<f64> = around.into_iter().flatten().collect();
    let smooth = (!there.is_empty()).then(|| there.iter().sum::<f64>() / there.len() as f64);
    // What a day ago was different from what was then its last value: the shape of the day without its level.
    let shape = ago(0).zip(past.back(day + 1)).map_or(f64::NAN, |(then, level)| then - level);
    let angle = past.prepared.hour(step) / 24.0 * std::f64::consts::TAU;
    let market = past.prepared.market.get(step.wrapping_sub(1)).copied().unwrap_or(f64::NAN);
    Some([
        to(past.back(2)),
        to(past.back(3)),
        to(past.back(4)),
        to(past.mean(3)),
        to(past.mean(6)),
        to(past.mean(12)),
        to(past.mean(36)),
        level - last,
        to(ago(0)),
        to(smooth),
        shape,
        to(past.season_ago(target, day * 7)),
        angle.sin(),
        angle.cos(),
        market,
    ])
}

impl Fit {
    fn predict(&self, row: &Row) -> f64 {
        let term = |at: usize| self.weights[at] * standard(row[at], self.means[at], self.scales[at]);
        self.intercept + (0..FEATURES).map(term).sum::<f64>()
    }
}

/// What is missing is as usual; what is far beyond all training is cut off.
fn standard(value: f64, mean: f64, scale: f64) -> f64 {
    if value.is_finite() && scale > 0.0 { ((value - mean) / scale).clamp(-6.0, 6.0) } else { 0.0 }
}

fn fit(rows: &[(Row, f64)]) -> Option<Fit> {
    if rows.len() < FEWEST_ROWS {
        return None;
    }
    let (means, scales) = scales_of(rows);
    let standardised: Vec<Row> =
        rows.iter().map(|(row, _)| std::array::from_fn(|at| standard(row[at], means[at], scales[at]))).collect();
    let spread = rows.iter().map(|(_, y)| y.abs()).sum::<f64>() / rows.len() as f64;
    let mut fit = Fit { means, scales, weights: [0.0; FEATURES], intercept: 0.0 };
    for _ in 0..ROUNDS {
        let residual = |(row, (_, y)): (&Row, &(Row, f64))| {
            y - fit.intercept - row.iter().zip(&fit.weights).map(|(x, w)| x * w).sum::<f64>()
        };
        let floor = (spread * 0.1).max(1e-9);
        let trust: Vec<f64> =
            standardised.iter().zip(rows).map(|pair| spread.max(1e-9) / residual(pair).abs().max(floor)).collect();
        let solution = weighted_ridge(&standardised, rows, &trust)?;
        fit.weights.copy_from_slice(&solution[..FEATURES]);
        fit.intercept = solution[FEATURES];
    }
    Some(fit)
}

fn scales_of(rows: &[(Row, f64)]) -> (Row, Row) {
    let of = |at: usize| {
        let mut moments = crate::Moments::default();
        rows.iter().for_each(|(row, _)| moments.push(row[at]));
        (moments.mean, moments.variance().unwrap_or(0.0).sqrt())
    };
    (std::array::from_fn(|at| of(at).0), std::array::from_fn(|at| of(at).1))
}

/// Normal equations with an intercept, which is not shrunk.
fn weighted_ridge(x: &[Row], rows: &[(Row, f64)], trust: &[f64]) -> Option<[f64; FEATURES + 1]> {
    const N: usize = FEATURES + 1;
    let (mut a, mut b) = ([[0.0; N]; N], [0.0; N]);
    for ((row, (_, y)), weight) in x.iter().zip(rows).zip(trust) {
        let with_one: [f64; N] = std::array::from_fn(|at| row.get(at).copied().unwrap_or(1.0));
        for i in 0..N {
            b[i] += weight * with_one[i] * y;
            for j in 0..=i {
                a[i][j] += weight * with_one[i] * with_one[j];
            }
        }
    }
    for (at, row) in a.iter_mut().enumerate() {
        row[at] += if at < FEATURES { SHRINKAGE } else { 1e-9 };
    }
    cholesky(a, b)
}

/// Solves a symmetric system whose lower half is given; none when it is not positive definite.
pub(crate) fn cholesky<const N: usize>(mut a: [[f64; N]; N], mut b: [f64; N]) -> Option<[f64; N]> {
    for i in 0..N {
        for j in 0..=i {
            let sum = a[i][j] - (0..j).map(|k| a[i][k] * a[j][k]).sum::<f64>();
            a[i][j] = if i != j {
                sum / a[j][j]
            } else if sum > 0.0 && sum.is_finite() {
                sum.sqrt()
            } else {
                return None;
            };
        }
    }
    for i in 0..N {
        b[i] = (b[i] - (0..i).map(|k| a[i][k] * b[k]).sum::<f64>()) / a[i][i];
    }
    for i in (0..N).rev() {
        b[i] = (b[i] - (i + 1..N).map(|k| a[k][i] * b[k]).sum::<f64>()) / a[i][i];
    }
    Some(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_is_solved() {
        let x = cholesky([[4.0, 0.0], [2.0, 3.0]], [10.0, 8.0]).unwrap();
        assert!((x[0] - 1.75).abs() < 1e-12 && (x[1] - 1.5).abs() < 1e-12, "{x:?}");
        assert_eq!(cholesky([[0.0, 0.0], [0.0, 0.0]], [1.0, 1.0]), None);
    }

    #[test]
    fn what_is_unknown_adds_nothing() {
        let mut rows: Vec<(Row, f64)> = vec![];
        for step in 0..210 {
            let mut row = [f64::NAN; FEATURES];
            row[0] = f64::from(step % 7) - 3.0;
            rows.push((row, row[0] * 0.5));
        }
        let fit = fit(&rows).unwrap();
        let mut row = [f64::NAN; FEATURES];
        assert!(fit.predict(&row).abs() < 1e-6);
        row[0] = 2.0;
        assert!((fit.predict(&row) - 1.0).abs() < 0.1, "{}", fit.predict(&row));
    }
}
