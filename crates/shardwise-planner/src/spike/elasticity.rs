//! Elasticities: how load goes with volatility, learned minute by minute.

use serde::{Deserialize, Serialize};

use super::SpikeSettings;
use crate::forecast::cholesky;
use crate::{Moments, Series};

/// Level, elasticity, and a wave of a day.
const TERMS: usize = 4;
/// Variance of ln volatility below which it does not vary: a per cent up and down is what rounding and sampling make.
const LEAST_VARIANCE: f64 = 1e-4;
/// Standard deviation from which a history says less than the priors do, of which the widest has this one. It comes out like
/// that where volatility varies with the hour alone, or too little for the noise of the counts.
const SAYS_NOTHING: f64 = 0.6;

/// By how many per cent load goes up when volatility goes up by one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Elasticity {
    /// The exponent, 0 or more.
    pub value: f64,
    /// Its standard deviation.
    pub deviation: f64,
    /// Minutes that it was learned from; 0 for a prior.
    pub minutes: usize,
}

impl Elasticity {
    /// What is believed before any history.
    pub fn prior(value: f64) -> Self {
        Self { value, deviation: value / 2.0, minutes: 0 }
    }

    /// Learns it from arrivals and volatility, minute by minute; none where these are too few, where volatility hardly varies,
    /// and where the answer is no surer than a prior.
    ///
    /// Regression of ln(arrivals + ½) on ln volatility and the hour. Neighbouring minutes are alike: their autocorrelation
    /// widens the deviation.
    pub fn learn(arrivals: &Series, volatility: &Series, settings: &SpikeSettings) -> Option<Self> {
        let rows: Vec<([f64; TERMS], f64)> = (0..arrivals.values.len())
            .filter_map(|step| {
                let (at, count) = (arrivals.instant(step), arrivals.values[step]);
                let market = volatility.at(at).filter(|bp| *bp > 0.0)?;
                let angle = at.hour_utc() / 24.0 * std::f64::consts::TAU;
                (count >= 0.0).then(|| ([1.0, market.ln(), angle.sin(), angle.cos()], (count + 0.5).ln()))
            })
            .collect();
        if rows.len() < settings.fewest_minutes.max(TERMS + 1) {
            return None;
        }
        // The ridge below makes a matrix definite that is not: of volatility that stands still it would learn the noise.
        let mut market = Moments::default();
        rows.iter().for_each(|(x, _)| market.push(x[1]));
        if market.variance().is_none_or(|variance| variance < LEAST_VARIANCE) {
            return None;
        }
        let (mut a, mut b) = ([[0.0; TERMS]; TERMS], [0.0; TERMS]);
        for (x, y) in &rows {
            for i in 0..TERMS {
                b[i] += x[i] * y;
                for j in 0..=i {
                    a[i][j] += x[i] * x[j];
                }
            }
        }
        (0..TERMS).for_each(|at| a[at][at] += 1e-6 * rows.len() as f64);
        let fit = cholesky(a, b)?;
        // The column of the inverse that belongs to the elasticity.
        let inverse = cholesky(a, std::array::from_fn(|at| f64::from(u8::from(at == 1))))?;
        let residuals: Vec<f64> =
            rows.iter().map(|(x, y)| y - x.iter().zip(&fit).map(|(x, w)| x * w).sum::<f64>()).collect();
        let squares: f64 = residuals.iter().map(|residual| residual * residual).sum();
        let next: f64 = residuals.windows(2).map(|pair| pair[0] * pair[1]).sum();
        let alike = if squares > 0.0 { (next / squares).clamp(0.0, 0.98) } else { 0.0 };
        let variance = squares / (rows.len() - TERMS) as f64 * inverse[1] * (1.0 + alike) / (1.0 - alike);
        let deviation = variance.max(0.0).sqrt();
        (deviation < SAYS_NOTHING).then(|| Self { value: fit[1].max(0.0), deviation, minutes: rows.len() })
    }

    /// Load over the load before, when volatility is so many times the usual.
    pub(super) fn multiplier(&self, jump: f64, deviations: f64, most: f64) -> f64 {
        jump.max(1.0).powf((self.value + deviations * self.deviation).max(0.0)).min(most)
    }
}
