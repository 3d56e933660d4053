//! Forecasts (S8): the last hours of a series → its next minutes with intervals, by the method that would have decided
//! best; by the last value, and saying so, where none is shown to decide better.

mod back_test;
mod boosted;
mod lags;
mod methods;
mod prepared;

use serde::{Deserialize, Serialize};
use shardwise_types::{InvalidInput, Timestamp};

use crate::Series;
pub use back_test::{BackTest, Score, SwitchedOff};
use back_test::{Trials, choose, fit_all, last_value_alone, quantile, trials};
use lags::Lags;
pub(crate) use lags::cholesky;
pub use methods::{Forecaster, Method};
pub use prepared::{Past, Prepared, Target};

/// How far ahead, how wide, and when to trust a method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ForecastSettings {
    /// Minutes ahead of single forecasts, rising; the last is also how far the peak is looked for.
    pub horizons_minutes: Vec<u32>,
    /// Share of truths that intervals are to hold, in (0, 1).
    pub coverage: f64,
    /// Share of the series, at its end, that methods are tried on and do not learn from, in (0, 1).
    pub test_share: f64,
    /// Steps of the back-test at most, evenly spread.
    pub most_test_steps: usize,
    /// Fewest steps of a series for any back-test.
    pub fewest_steps: usize,
    /// Minutes of a gap that the value before it closes.
    pub most_gap_minutes: u32,
    /// Chance of taking a method that is no better, in (0, 1).
    pub significance: f64,
    /// Share of the last value's loss by which a method must be better, in [0, 1).
    pub margin: f64,
    /// Cost of a peak without an alarm, above 0.
    pub miss: f64,
    /// Cost of an alarm without a peak, above 0.
    pub false_alarm: f64,
}

impl Default for ForecastSettings {
    fn default() -> Self {
        Self {
            horizons_minutes: vec![5, 10, 15],
            coverage: 0.9,
            test_share: 0.4,
            most_test_steps: 500,
            fewest_steps: 90,
            most_gap_minutes: 5,
            significance: 0.05,
            margin: 0.02,
            miss: 4.0,
            false_alarm: 1.0,
        }
    }
}

impl ForecastSettings {
    pub(crate) fn check(&self) -> Result<(), InvalidInput> {
        let share = |field: &str, value: f64| match value > 0.0 && value < 1.0 {
            true => Ok(()),
            false => Err(InvalidInput::new(field, format!("{value} must lie between 0 and 1"))),
        };
        share("coverage", self.coverage)?;
        share("testShare", self.test_share)?;
        share("significance", self.significance)?;
        if !(0.0..1.0).contains(&self.margin) {
            return Err(InvalidInput::new("margin", "must be at least 0 and less than 1"));
        }
        if !(self.miss > 0.0 && self.false_alarm > 0.0 && self.miss.is_finite() && self.false_alarm.is_finite()) {
            return Err(InvalidInput::new("miss", "and falseAlarm must be finite numbers above 0"));
        }
        let rising = self.horizons_minutes.windows(2).all(|pair| pair[0] < pair[1]);
        match self.horizons_minutes.first() {
            Some(first) if *first > 0 && rising => Ok(()),
            _ => Err(InvalidInput::new("horizonsMinutes", "must be rising numbers of minutes, at least one, above 0")),
        }
    }

    fn reach_minutes(&self) -> u32 {
        self.horizons_minutes.last().copied().unwrap_or(1)
    }
}

/// What a forecast's errors cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    /// As much as they are large: the metric has no threshold.
    Error,
    /// What wrong alarms cost, see [`ForecastSettings`].
    Alarm {
        /// Peaks from here on want an alarm.
        threshold: f64,
        /// Cost of a peak without an alarm.
        miss: f64,
        /// Cost of an alarm without a peak.
        false_alarm: f64,
    },
}

/// What to foretell.
#[derive(Debug, Clone, Copy)]
pub struct ForecastProblem<'a> {
    /// The series.
    pub series: &'a Series,
    /// The market's volatility in basis points, when known.
    pub market: Option<&'a Series>,
    /// The largest value that there can be: 1 for shares, infinity elsewhere. The smallest is 0.
    pub most: f64,
    /// Where the metric becomes a problem, if anywhere.
    pub threshold: Option<f64>,
    /// Now.
    pub now: Timestamp,
}

/// A forecast for one instant.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ahead {
    /// The end of the step that it is for; later than now.
    pub at: Timestamp,
    /// Minutes from the end of the series.
    pub minutes: u32,
    /// The most likely value.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

/// A series' next minutes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Forecast {
    /// The method that made it.
    pub method: Method,
    /// Where the series ended.
    pub ended: Timestamp,
    /// Single instants, all later than now.
    pub ahead: Vec<Ahead>,
    /// The largest value until the last of the horizons.
    pub peak: Ahead,
    /// The peak to be ready for: above it lies one so seldom that being ready for it would cost more than it saves.
    pub ready_for: f64,
    /// Whether an alarm for the threshold pays: it is not above what to be ready for.
    pub alarm: bool,
    /// Share of the series that was missing, in [0, 1].
    pub missing: f64,
    /// How all methods did.
    pub back_test: BackTest,
}

/// Why there is no forecast.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ForecastError {
    /// Settings out of range.
    #[error(transparent)]
    Invalid(#[from] InvalidInput),
    /// All that could be foretold is past.
    #[error(
        "the series ended {ended} and forecasts reach {reach_minutes} minutes, which is before {now}: bring newer values"
    )]
    Stale {
        /// The end of the series.
        ended: Timestamp,
        /// Now.
        now: Timestamp,
        /// How far forecasts reach.
        reach_minutes: u32,
    },
    /// Too few values for a back-test.
    #[error("{steps} values are too few to try any method on; {needed} are needed")]
    TooShort {
        /// Values that there are.
        steps: usize,
        /// Values that are needed.
        needed: usize,
    },
    /// The series ends in a gap.
    #[error("nothing was measured for more than {minutes} minutes before {ended}")]
    Gap {
        /// The end of the series.
        ended: Timestamp,
        /// How long a gap may be.
        minutes: u32,
    },
}

/// Foretells a series by the method that its past recommends.
///
/// # Errors
/// A series that ended too long ago, is too short, or ends in a gap; settings out of range.
pub fn forecast(problem: &ForecastProblem<'_>, settings: &ForecastSettings) -> Result<Forecast, ForecastError> {
    settings.check()?;
    let (series, ended) = (problem.series, problem.series.end());
    let reach_minutes = settings.reach_minutes();
    if ended.plus_millis(f64::from(reach_minutes) * 60_000.0) <= problem.now {
        return Err(ForecastError::Stale { ended, now: problem.now, reach_minutes });
    }
    let steps_of = |minutes: u32| minutes.div_ceil(series.step_minutes.max(1)).max(1) as usize;
    let prepared = Prepared::new(series, problem.market, steps_of(settings.most_gap_minutes));
    if prepared.until(prepared.len()).last().is_none() && !prepared.is_empty() {
        return Err(ForecastError::Gap { ended, minutes: settings.most_gap_minutes });
    }
    let steps = series.values.iter().filter(|value| value.is_finite()).count();
    if steps < settings.fewest_steps {
        return Err(ForecastError::TooShort { steps, needed: settings.fewest_steps });
    }
    let fitted = Fitted::on(&prepared, prepared.len(), problem, settings);
    let instant = |minutes: u32| series.instant(prepared.len() + steps_of(minutes));
    let ahead_at = |at: usize| {
        let minutes = settings.horizons_minutes[at];
        let at_instant = instant(minutes);
        (at_instant > problem.now).then(|| fitted.ahead(&prepared, at, minutes, at_instant))
    };
    let ready_for = fitted.ready_for(fitted.back_test.chosen, &prepared.until(prepared.len())).unwrap_or(0.0);
    let peak = fitted.ahead(&prepared, fitted.targets.len() - 1, reach_minutes, instant(reach_minutes));
    Ok(Forecast {
        method: fitted.back_test.chosen,
        ended,
        ahead: (0..settings.horizons_minutes.len()).filter_map(ahead_at).collect(),
        ready_for,
        alarm: problem.threshold.is_some_and(|threshold| ready_for >= threshold),
        peak,
        missing: series.missing(),
        back_test: fitted.back_test.clone(),
    })
}

/// Methods fitted and tried on a stretch of a series, one of them chosen.
pub struct Fitted {
    methods: Vec<Box<dyn Forecaster>>,
    /// Single horizons in their order, and the peak.
    targets: Vec<Target>,
    /// Residuals of the chosen method for each target, smallest first.
    residuals: Vec<Vec<f64>>,
    most: f64,
    coverage: f64,
    /// For each method what peaks usually lie above its word, and what an alarm adds to that.
    above: Vec<(f64, f64)>,
    /// How all methods did.
    pub back_test: BackTest,
}

impl Fitted {
    /// Fits on the steps before `end`, tries on the last of them, chooses, and fits on all of them again.
    pub fn on(prepared: &Prepared, end: usize, problem: &ForecastProblem<'_>, settings: &ForecastSettings) -> Self {
        let (end, step_minutes) = (end.min(prepared.len()), problem.series.step_minutes.max(1));
        let steps_of = |minutes: u32| minutes.div_ceil(step_minutes).max(1) as usize;
        let peak = Target::PeakWithin(steps_of(settings.reach_minutes()));
        let mut targets: Vec<Target> =
            settings.horizons_minutes.iter().map(|minutes| Target::Ahead(steps_of(*minutes))).collect();
        targets.push(peak);
        let most = if problem.most.is_nan() { f64::INFINITY } else { problem.most.max(0.0) };
        let split = (end as f64 * (1.0 - settings.test_share)) as usize;
        // Where nothing ever came to the threshold no alarm can be shown to be worth anything: no need to try.
        let quiet = problem.threshold.is_some_and(|threshold| !prepared.raw[..end].iter().any(|it| *it >= threshold));
        let fit = |end: usize| if quiet { last_value_alone() } else { fit_all(prepared, end, &targets) };
        let tried = fit(split);
        let stride = ((end - split) / settings.most_test_steps.max(1)).max(1);
        let trials_of = |target: Target| -> Trials {
            let last = (end + 1).saturating_sub(target.reach());
            trials(prepared, &tried, target, (split..last).step_by(stride), |value| value.clamp(0.0, most))
        };
        let loss = problem.threshold.map_or(Loss::Error, |threshold| Loss::Alarm {
            threshold,
            miss: settings.miss,
            false_alarm: settings.false_alarm,
        });
        let peaks = trials_of(peak);
        let (chosen, back_test) = choose(&tried, &peaks, loss, settings);
        let mut residuals: Vec<Vec<f64>> = targets.iter().map(|target| trials_of(*target).residuals(chosen)).collect();
        let level = settings.miss / (settings.miss + settings.false_alarm);
        let above_of = |method: usize| {
            let residuals = peaks.residuals(method);
            let usual = quantile(&residuals, 0.5);
            (usual, quantile(&residuals, level) - usual)
        };
        let tried_above: Vec<(Method, (f64, f64))> =
            tried.iter().enumerate().map(|(at, method)| (method.method(), above_of(at))).collect();
        let usual = tried_above[chosen].1.0;
        // The peak's value has the usual in it already.
        residuals.last_mut().into_iter().flatten().for_each(|residual| *residual -= usual);
        let methods = fit(end);
        // A longer stretch may know a season that the shorter one did not, never the other way round.
        let above_of = |method: Method| tried_above.iter().find(|(name, _)| *name == method).map(|(_, above)| *above);
        let above = methods.iter().map(|method| above_of(method.method()).unwrap_or_default()).collect();
        Self { methods, targets, residuals, most, coverage: settings.coverage, above, back_test }
    }

    /// A method's value for a target, from a past; the last value where it cannot say or was not fitted, none within a
    /// gap. Of the targets with a peak only the one that it was fitted for makes sense.
    pub fn value(&self, method: Method, past: &Past<'_>, target: Target) -> Option<f64> {
        let place = self.place(method);
        let said = self.methods[place].forecast(past, target).filter(|value| value.is_finite());
        let usual = if matches!(target, Target::PeakWithin(_)) { self.above[place].0 } else { 0.0 };
        said.or(past.last()).map(|value| (value + usual).clamp(0.0, self.most))
    }

    /// The peak to be ready for by a method's forecast, see [`Forecast::ready_for`]; none within a gap.
    pub fn ready_for(&self, method: Method, past: &Past<'_>) -> Option<f64> {
        let peak = self.targets[self.targets.len() - 1];
        let lift = self.above[self.place(method)].1;
        self.value(method, past, peak).map(|value| (value + lift).clamp(0.0, self.most))
    }

    fn place(&self, method: Method) -> usize {
        self.methods.iter().position(|known| known.method() == method).unwrap_or(0)
    }

    fn ahead(&self, prepared: &Prepared, at: usize, minutes: u32, instant: Timestamp) -> Ahead {
        let past = prepared.until(prepared.len());
        let value = self.value(self.back_test.chosen, &past, self.targets[at]).unwrap_or(0.0);
        let tail = (1.0 - self.coverage) / 2.0;
        let end = |level: f64| (value + quantile(&self.residuals[at], level)).clamp(0.0, self.most);
        Ahead { at: instant, minutes, value, low: end(tail).min(value), high: end(1.0 - tail).max(value) }
    }
}

#[cfg(test)]
mod tests;
