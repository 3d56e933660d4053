//! The back-test: every method on the same steps that it did not learn from, judged by what its forecasts would have done.

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

use super::boosted::Boosted;
use super::methods::{Forecaster, LastValue, Method, Seasonal, Smoothing};
use super::prepared::{Prepared, Target};
use super::{ForecastSettings, Lags, Loss};

/// Blocks that paired losses are averaged in: neighbouring steps err alike and are no independent evidence.
const BLOCKS: usize = 12;
/// Alarms and peaks above the threshold in the back-test before they decide anything.
const FEWEST_EVENTS: usize = 5;

/// Why a series goes by its last value, and the balancer leaves it alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SwitchedOff {
    /// No method is shown to decide better than the last value.
    NotBetter,
    /// It came near its threshold so seldom that no method could show anything.
    NoEvents,
    /// The history is too short, too old or too full of gaps to try any method.
    NoHistory,
}

impl SwitchedOff {
    /// Why, in words.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::NotBetter => "no forecast is shown to decide better than the last value",
            Self::NoEvents => "it came to its threshold too seldom to show whose forecasts are better",
            Self::NoHistory => "its history is too short, too old or too full of gaps",
        }
    }
}

/// How a method did.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Score {
    /// The method.
    pub method: Method,
    /// Mean cost of what its forecasts would have done: of alarms where the metric has a threshold, else its error.
    pub loss: f64,
    /// Mean absolute error of its peaks, in the metric's unit, before what peaks usually lie above is added.
    pub mae: f64,
    /// Probability of doing so much better than the last value by chance; 1 for the last value itself.
    pub p_value: f64,
}

/// All methods on the same steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackTest {
    /// Steps that they were tried on.
    pub steps: usize,
    /// The scores, the last value's first.
    pub scores: Vec<Score>,
    /// The method that was chosen.
    pub chosen: Method,
    /// Why none was, if so.
    pub switched_off: Option<SwitchedOff>,
}

/// Methods that were fitted on the beginning of a series.
pub(super) fn fit_all(series: &Prepared, end: usize, targets: &[Target]) -> Vec<Box<dyn Forecaster>> {
    let lags = Lags::fit(series, end, targets);
    let mut all: Vec<Box<dyn Forecaster>> = vec![
        Box::new(LastValue),
        Box::new(Smoothing::fit(series, end, false)),
        Box::new(Smoothing::fit(series, end, true)),
        Box::new(lags.clone()),
        Box::new(Boosted::fit(series, end, targets, lags)),
    ];
    for (method, days) in [(Method::SeasonalDay, 1), (Method::SeasonalWeek, 7)] {
        let steps = series.day * days;
        if end > steps {
            all.push(Box::new(Seasonal { method, steps }));
        }
    }
    all
}

/// What there is to fall back on.
pub(super) fn last_value_alone() -> Vec<Box<dyn Forecaster>> {
    vec![Box::new(LastValue)]
}

/// Forecasts and truths of a target, step by step; `forecasts[method][step]`, where a method that cannot say falls back
/// to the last value, as it would have to in use.
pub(super) struct Trials {
    pub(super) truths: Vec<f64>,
    pub(super) forecasts: Vec<Vec<f64>>,
}

pub(super) fn trials(
    series: &Prepared,
    methods: &[Box<dyn Forecaster>],
    target: Target,
    steps: impl Iterator<Item = usize>,
    bounds: impl Fn(f64) -> f64,
) -> Trials {
    let mut trials = Trials { truths: vec![], forecasts: vec![vec![]; methods.len()] };
    for step in steps {
        let past = series.until(step);
        let Some((truth, last)) = series.truth(step, target).zip(past.last()) else { continue };
        trials.truths.push(truth);
        for (method, forecasts) in methods.iter().zip(&mut trials.forecasts) {
            let forecast = method.forecast(&past, target).filter(|value| value.is_finite());
            forecasts.push(bounds(forecast.unwrap_or(last)));
        }
    }
    trials
}

impl Trials {
    /// What the truth lay above each forecast by, smallest first.
    pub(super) fn residuals(&self, method: usize) -> Vec<f64> {
        let mut residuals: Vec<f64> =
            self.truths.iter().zip(&self.forecasts[method]).map(|(truth, forecast)| truth - forecast).collect();
        residuals.sort_by(f64::total_cmp);
        residuals
    }

    /// The cost of each step, and whether an alarm or a peak was among them how often.
    fn losses(&self, method: usize, loss: Loss) -> (Vec<f64>, usize) {
        let pairs = self.truths.iter().zip(&self.forecasts[method]);
        match loss {
            Loss::Error => {
                // Peaks lie above what is likeliest at any one instant, by about as much for every method: no merit.
                let usual = quantile(&self.residuals(method), 0.5);
                (pairs.map(|(truth, forecast)| (truth - forecast - usual).abs()).collect(), usize::MAX)
            }
            Loss::Alarm { threshold, miss, false_alarm } => {
                // An alarm pays when a peak is likelier than what a false one costs of both: the residuals say how likely.
                let lift = quantile(&self.residuals(method), miss / (miss + false_alarm));
                let mut events = 0;
                let cost = pairs.map(|(truth, forecast)| {
                    let (alarm, peak) = (forecast + lift >= threshold, *truth >= threshold);
                    events += usize::from(alarm || peak);
                    match (alarm, peak) {
                        (false, true) => miss,
                        (true, false) => false_alarm,
                        _ => 0.0,
                    }
                });
                let cost = cost.collect();
                (cost, events)
            }
        }
    }
}

/// The quantile of sorted values, between neighbours; 0 of none.
pub(super) fn quantile(sorted: &[f64], level: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let place = level.clamp(0.0, 1.0) * last as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

/// Chooses by the peak's trials; the first method is the last value.
pub(super) fn choose(
    methods: &[Box<dyn Forecaster>],
    peaks: &Trials,
    loss: Loss,
    settings: &ForecastSettings,
) -> (usize, BackTest) {
    let losses: Vec<(Vec<f64>, usize)> = (0..methods.len()).map(|method| peaks.losses(method, loss)).collect();
    let scores: Vec<Score> = losses
        .iter()
        .enumerate()
        .map(|(method, (each, _))| Score {
            method: methods[method].method(),
            loss: mean(each),
            mae: mean(&peaks.residuals(method).iter().map(|residual| residual.abs()).collect::<Vec<_>>()),
            p_value: if method == 0 { 1.0 } else { p_of_better(&losses[0].0, each) },
        })
        .collect();
    let events = losses.iter().map(|(_, events)| *events).max().unwrap_or(0);
    // One chance in twenty for all rivals together.
    let level = settings.significance / (methods.len() - 1).max(1) as f64;
    let better = |score: &Score| score.p_value <= level && score.loss <= scores[0].loss * (1.0 - settings.margin);
    let best = (1..scores.len())
        .filter(|place| better(&scores[*place]))
        .min_by(|a, b| scores[*a].loss.total_cmp(&scores[*b].loss).then(scores[*a].mae.total_cmp(&scores[*b].mae)));
    let switched_off = match best {
        Some(_) => None,
        None if events < FEWEST_EVENTS => Some(SwitchedOff::NoEvents),
        None => Some(SwitchedOff::NotBetter),
    };
    let chosen = best.unwrap_or(0);
    let test = BackTest { steps: peaks.truths.len(), chosen: scores[chosen].method, scores, switched_off };
    (chosen, test)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Probability of so large a saving in the mean of blocks if there were none (one-sided t-test).
fn p_of_better(base: &[f64], rival: &[f64]) -> f64 {
    let length = base.len().div_ceil(BLOCKS).max(1);
    let saved: Vec<f64> = base.iter().zip(rival).map(|(base, rival)| base - rival).collect();
    let mut blocks = crate::Moments::default();
    saved.chunks(length).for_each(|block| blocks.push(mean(block)));
    let Some(variance) = blocks.variance() else { return 1.0 };
    if blocks.mean <= 0.0 {
        return 1.0;
    }
    let t = blocks.mean / (variance / blocks.count).sqrt().max(f64::MIN_POSITIVE);
    StudentsT::new(0.0, 1.0, blocks.count - 1.0).map_or(1.0, |student| 1.0 - student.cdf(t.min(1e6)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saving_that_chance_explains_is_none() {
        let base: Vec<f64> = (0..240).map(|step| f64::from(step * 7919 % 101)).collect();
        let shuffled: Vec<f64> = (0..240).map(|step| f64::from(step * 104_729 % 101) - 0.5).collect();
        assert!(p_of_better(&base, &shuffled) > 0.05);
        let better: Vec<f64> = base.iter().map(|loss| loss * 0.8).collect();
        assert!(p_of_better(&base, &better) < 1e-6);
        assert_eq!(p_of_better(&base, &base), 1.0);
    }

    #[test]
    fn quantiles_lie_between_neighbours() {
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.75), 3.0);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }
}
