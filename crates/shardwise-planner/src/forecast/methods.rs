//! The simple forecasters: last value, the same time a day or a week before, exponential smoothing with a damped trend.

use serde::{Deserialize, Serialize};

use super::prepared::{Past, Prepared, Target};

/// Steps that smoothing looks back; older ones weigh nothing any more.
const SMOOTHED: usize = 90;
/// Points of the training part that smoothing is tuned on, at most.
const TUNED_ON: usize = 400;

/// How a forecast was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// All stays as it is: what every other must beat.
    LastValue,
    /// As at the same time a day before.
    SeasonalDay,
    /// As at the same time a week before.
    SeasonalWeek,
    /// Exponentially weighted mean.
    Ewma,
    /// Level and trend, both smoothed, the trend dying out (Gardner and McKenzie).
    DampedHolt,
    /// Regression on lags, hour and market.
    Lags,
    /// Boosted trees on lags, hour, volatility and market.
    Boosted,
}

impl Method {
    /// Its name, as JSON has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LastValue => "last_value",
            Self::SeasonalDay => "seasonal_day",
            Self::SeasonalWeek => "seasonal_week",
            Self::Ewma => "ewma",
            Self::DampedHolt => "damped_holt",
            Self::Lags => "lags",
            Self::Boosted => "boosted",
        }
    }
}

/// Foretells a series from its past; made by fitting, after which it learns nothing more.
pub trait Forecaster {
    /// What it is called.
    fn method(&self) -> Method;

    /// The most likely value of the target; none when it cannot say. The caller keeps it within the metric's range.
    fn forecast(&self, past: &Past<'_>, target: Target) -> Option<f64>;
}

/// See [`Method::LastValue`].
pub(super) struct LastValue;

impl Forecaster for LastValue {
    fn method(&self) -> Method {
        Method::LastValue
    }

    fn forecast(&self, past: &Past<'_>, _target: Target) -> Option<f64> {
        past.last()
    }
}

/// See [`Method::SeasonalDay`] and [`Method::SeasonalWeek`].
pub(super) struct Seasonal {
    pub(super) method: Method,
    pub(super) steps: usize,
}

impl Forecaster for Seasonal {
    fn method(&self) -> Method {
        self.method
    }

    fn forecast(&self, past: &Past<'_>, target: Target) -> Option<f64> {
        past.season_ago(target, self.steps)
    }
}

/// Level and trend; without a trend it is the exponentially weighted mean.
pub(super) struct Smoothing {
    level: f64,
    /// Weight of the newest trend, and what is left of a trend after a step; 0 is no trend.
    trend: f64,
    damping: f64,
}

impl Smoothing {
    /// The weights that foretell the next step best on the training part.
    pub(super) fn fit(train: &Prepared, end: usize, with_trend: bool) -> Self {
        let trends: &[(f64, f64)] =
            if with_trend { &[(0.05, 0.8), (0.1, 0.9), (0.3, 0.8), (0.5, 0.5)] } else { &[(0.0, 0.0)] };
        let levels = [0.1, 0.2, 0.35, 0.5, 0.7, 0.9];
        let candidates =
            levels.iter().flat_map(|level| trends.iter().map(move |(trend, damping)| (level, trend, damping)));
        let stride = (end / TUNED_ON).max(1);
        candidates
            .map(|(&level, &trend, &damping)| {
                let smoothing = Self { level, trend, damping };
                let errors = (SMOOTHED.min(end / 2)..end).step_by(stride).filter_map(|step| {
                    let forecast = smoothing.forecast(&train.until(step), Target::Ahead(1))?;
                    Some((train.truth(step, Target::Ahead(1))? - forecast).abs())
                });
                (errors.sum::<f64>(), smoothing)
            })
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, smoothing)| smoothing)
            .expect("the grid is not empty")
    }
}

impl Forecaster for Smoothing {
    fn method(&self) -> Method {
        if self.trend > 0.0 { Method::DampedHolt } else { Method::Ewma }
    }

    fn forecast(&self, past: &Past<'_>, target: Target) -> Option<f64> {
        past.last()?;
        let recent = &past.values[past.values.len().saturating_sub(SMOOTHED)..];
        let mut values = recent.iter().copied().filter(|value| value.is_finite());
        let (mut level, mut trend) = (values.next()?, 0.0);
        for value in values {
            let next = self.level * value + (1.0 - self.level) * (level + self.damping * trend);
            trend = self.trend * (next - level) + (1.0 - self.trend) * self.damping * trend;
            level = next;
        }
        // A trend that dies out goes one way: its peak is at an end of the stretch.
        let ahead = |steps: usize| {
            let sum: f64 = (1..=steps).map(|step| self.damping.powi(i32::try_from(step).unwrap_or(i32::MAX))).sum();
            level + trend * sum
        };
        Some(match target {
            Target::Ahead(steps) => ahead(steps),
            Target::PeakWithin(steps) => ahead(1).max(ahead(steps)),
        })
    }
}
