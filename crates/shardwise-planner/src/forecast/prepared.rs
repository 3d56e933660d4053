//! A series made ready: gaps closed for a while by the last value, seasons counted in steps, the market beside it.

use shardwise_types::Timestamp;

use crate::Series;

/// What is to be foretold, in steps from the end of the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The value of the step so many steps ahead, at least 1.
    Ahead(usize),
    /// The largest value of the next so many steps, at least 1.
    PeakWithin(usize),
}

impl Target {
    /// The last step that it speaks of.
    pub fn reach(self) -> usize {
        match self {
            Self::Ahead(steps) | Self::PeakWithin(steps) => steps,
        }
    }

    /// What it turned out to be, of values that begin at the end of the past; none when nothing of it was measured.
    pub fn of(self, future: &[f64]) -> Option<f64> {
        match self {
            Self::Ahead(steps) => future.get(steps.checked_sub(1)?).copied().filter(|value| value.is_finite()),
            Self::PeakWithin(steps) => {
                let within = future.get(..steps)?.iter().copied().filter(|value| value.is_finite());
                within.max_by(f64::total_cmp)
            }
        }
    }
}

/// A series that forecasters read.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// As measured; NaN is missing.
    pub(super) raw: Vec<f64>,
    /// Gaps closed by the value before them, as long as they are short; NaN beyond.
    pub(super) filled: Vec<f64>,
    /// Volatility of the market in the same steps, in ln basis points; empty when unknown.
    pub(super) market: Vec<f64>,
    /// Steps in a day.
    pub(super) day: usize,
    start: Timestamp,
    step_minutes: u32,
}

impl Prepared {
    /// Makes a series ready; gaps of at most `most_gap` steps are closed.
    pub fn new(series: &Series, market: Option<&Series>, most_gap: usize) -> Self {
        let raw: Vec<f64> =
            series.values.iter().map(|value| if value.is_finite() { *value } else { f64::NAN }).collect();
        let market = market.map_or(vec![], |market| {
            let at = |step| market.at(series.instant(step)).map_or(f64::NAN, |bp| bp.max(0.0).ln_1p());
            (0..raw.len()).map(at).collect()
        });
        let step_minutes = series.step_minutes.max(1);
        let day = (1440 / step_minutes as usize).max(1);
        Self { filled: close_gaps(&raw, most_gap), raw, market, day, start: series.start, step_minutes }
    }

    /// The past up to a step, which does not belong to it.
    pub fn until(&self, step: usize) -> Past<'_> {
        let end = step.min(self.filled.len());
        Past { values: &self.filled[..end], prepared: self }
    }

    /// What became of a target, seen from the end of the past at a step.
    pub fn truth(&self, step: usize, target: Target) -> Option<f64> {
        target.of(self.raw.get(step..)?)
    }

    /// Steps that it has.
    pub fn len(&self) -> usize {
        self.raw.len()
    }

    /// Whether it has no step at all.
    pub fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// Hour of the day in UTC at the beginning of a step, in [0, 24).
    pub(super) fn hour(&self, step: usize) -> f64 {
        let minutes = step as f64 * f64::from(self.step_minutes);
        self.start.plus_millis(minutes * 60_000.0).hour_utc()
    }
}

/// What a forecaster may look at: values up to the present, and nothing after it.
#[derive(Debug, Clone, Copy)]
pub struct Past<'a> {
    /// The values, oldest first; NaN where a gap was too long.
    pub values: &'a [f64],
    pub(super) prepared: &'a Prepared,
}

impl Past<'_> {
    /// The last value; none within a long gap.
    pub fn last(&self) -> Option<f64> {
        self.values.last().copied().filter(|value| value.is_finite())
    }

    /// The value so many steps before the end (1 is the last); none when missing.
    pub fn back(&self, steps: usize) -> Option<f64> {
        let place = self.values.len().checked_sub(steps)?;
        self.values.get(place).copied().filter(|value| value.is_finite())
    }

    /// Mean of the last so many values that there are.
    pub fn mean(&self, steps: usize) -> Option<f64> {
        let recent = &self.values[self.values.len().saturating_sub(steps)..];
        let there: Vec<f64> = recent.iter().copied().filter(|value| value.is_finite()).collect();
        (!there.is_empty()).then(|| there.iter().sum::<f64>() / there.len() as f64)
    }

    /// The target, `season` steps ago.
    pub fn season_ago(&self, target: Target, season: usize) -> Option<f64> {
        let begin = self.values.len().checked_sub(season).filter(|_| target.reach() <= season)?;
        target.of(&self.values[begin..])
    }
}

fn close_gaps(raw: &[f64], most_gap: usize) -> Vec<f64> {
    let (mut last, mut gap) = (f64::NAN, 0);
    let fill = |value: &f64| {
        if value.is_finite() {
            (last, gap) = (*value, 0);
        } else {
            gap += 1;
        }
        if gap <= most_gap { last } else { f64::NAN }
    };
    raw.iter().map(fill).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_gaps_are_closed_and_long_ones_stay() {
        let nan = f64::NAN;
        let filled = close_gaps(&[nan, 1.0, nan, nan, nan, 2.0], 2);
        assert_eq!(filled.iter().map(|v| v.is_nan()).collect::<Vec<_>>(), [true, false, false, false, true, false]);
        assert_eq!((filled[3], filled[5]), (1.0, 2.0));
    }

    #[test]
    fn a_target_that_was_not_measured_has_no_truth() {
        assert_eq!(Target::Ahead(2).of(&[1.0, 2.0]), Some(2.0));
        assert_eq!(Target::Ahead(2).of(&[1.0, f64::NAN]), None);
        assert_eq!(Target::PeakWithin(2).of(&[3.0, 2.0, 9.0]), Some(3.0));
        assert_eq!(Target::PeakWithin(2).of(&[f64::NAN, f64::NAN]), None);
        assert_eq!(Target::PeakWithin(4).of(&[1.0]), None, "the future is not over yet");
    }
}
