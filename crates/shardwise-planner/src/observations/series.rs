//! Values minute by minute: what is kept of shards and functions, and what is handed out.

use std::collections::VecDeque;

use shardwise_types::Timestamp;

pub(super) const MINUTE_NS: i64 = 60_000_000_000;

/// The minute that an instant lies in, counted from 1970.
pub(super) fn minute_of(instant: Timestamp) -> i64 {
    instant.nanos().div_euclid(MINUTE_NS)
}

/// Evenly spaced values; NaN where nothing was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// The beginning of the first step.
    pub start: Timestamp,
    /// Length of a step in minutes, at least 1.
    pub step_minutes: u32,
    /// A value for each step; NaN is missing.
    pub values: Vec<f64>,
}

impl Series {
    /// A series from values that may be missing.
    pub fn new(start: Timestamp, step_minutes: u32, values: impl IntoIterator<Item = Option<f64>>) -> Self {
        let values = values.into_iter().map(|value| value.unwrap_or(f64::NAN)).collect();
        Self { start, step_minutes: step_minutes.max(1), values }
    }

    /// The end of the last step.
    pub fn end(&self) -> Timestamp {
        self.instant(self.values.len())
    }

    /// The beginning of a step, which may lie beyond the end.
    pub fn instant(&self, step: usize) -> Timestamp {
        let minutes = i64::try_from(step).unwrap_or(i64::MAX).saturating_mul(i64::from(self.step_minutes));
        Timestamp::from_nanos(self.start.nanos().saturating_add(minutes.saturating_mul(MINUTE_NS)))
    }

    /// Share of the steps that hold no finite number, in [0, 1]; 1 for an empty series.
    pub fn missing(&self) -> f64 {
        let there = self.values.iter().filter(|value| value.is_finite()).count();
        if self.values.is_empty() { 1.0 } else { 1.0 - there as f64 / self.values.len() as f64 }
    }

    /// The value of the step in which an instant lies, if there is one.
    pub fn at(&self, instant: Timestamp) -> Option<f64> {
        let step = (instant.nanos() - self.start.nanos()).div_euclid(MINUTE_NS * i64::from(self.step_minutes));
        usize::try_from(step).ok().and_then(|step| self.values.get(step)).copied().filter(|value| value.is_finite())
    }
}

/// Sums and counts of the last minutes, oldest first, without gaps.
#[derive(Debug, Clone, Default)]
pub(super) struct Minutes {
    first: i64,
    sums: VecDeque<(f32, u32)>,
}

impl Minutes {
    /// Adds a value to a minute; the oldest minutes beyond `keep` are let go.
    pub(super) fn add(&mut self, minute: i64, value: f32, keep: usize) {
        if self.sums.is_empty() {
            self.first = minute;
        }
        // Records come in order, but for a minute: what comes before the first is put into the first.
        let place = usize::try_from(minute - self.first).unwrap_or(0);
        if place >= self.sums.len() + keep {
            self.sums.clear();
            self.first = minute;
        }
        let place = usize::try_from(minute - self.first).unwrap_or(0);
        while self.sums.len() <= place {
            self.sums.push_back((0.0, 0));
        }
        self.sums[place].0 += value;
        self.sums[place].1 += 1;
        while self.sums.len() > keep.max(1) {
            self.sums.pop_front();
            self.first += 1;
        }
    }

    /// Means of the minutes from `since` on and before `until`; what has no value is missing.
    pub(super) fn means(&self, since: i64, until: i64) -> Series {
        self.series(since, until, |&(sum, count)| if count == 0 { f64::NAN } else { f64::from(sum) / f64::from(count) })
    }

    /// Counts of the minutes from `since` on and before `until`; a minute without any counts 0.
    pub(super) fn counts(&self, since: i64, until: i64) -> Series {
        let mut series = self.series(since, until, |&(_, count)| f64::from(count));
        series.values.iter_mut().filter(|value| value.is_nan()).for_each(|value| *value = 0.0);
        series
    }

    /// Begins with the first minute that has a value, or with `since` when that is long gone: whoever fell silent long ago
    /// is no reason for a series of years.
    fn series(&self, since: i64, until: i64, value: impl Fn(&(f32, u32)) -> f64) -> Series {
        let first = if self.sums.is_empty() { until } else { self.first.max(since) };
        let steps = usize::try_from(until - first).unwrap_or(0);
        let gone = usize::try_from(first - self.first).unwrap_or(0);
        let mut values: Vec<f64> = self.sums.iter().skip(gone).take(steps).map(value).collect();
        values.resize(steps, f64::NAN);
        Series { start: Timestamp::from_nanos(first.saturating_mul(MINUTE_NS)), step_minutes: 1, values }
    }
}

/// Counts of the minutes that have any, oldest first: most functions are asked for seldom.
#[derive(Debug, Clone, Default)]
pub(super) struct SparseCounts(VecDeque<(i64, u32)>);

impl SparseCounts {
    pub(super) fn add(&mut self, minute: i64, keep: usize) {
        match self.0.back_mut() {
            Some((last, count)) if *last >= minute => *count += 1,
            _ => self.0.push_back((minute, 1)),
        }
        let oldest = minute.saturating_sub(i64::try_from(keep).unwrap_or(i64::MAX));
        while self.0.front().is_some_and(|(first, _)| *first <= oldest) {
            self.0.pop_front();
        }
    }

    /// Adds the counts to the steps of a series of minutes.
    pub(super) fn add_to(&self, first: i64, values: &mut [f64]) {
        for (minute, count) in &self.0 {
            if let Some(value) = usize::try_from(minute - first).ok().and_then(|step| values.get_mut(step)) {
                *value += f64::from(*count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_minutes_are_missing_and_old_ones_go() {
        let mut minutes = Minutes::default();
        for (minute, value) in [(10, 0.2), (10, 0.4), (13, 0.5)] {
            minutes.add(minute, value, 3);
        }
        let series = minutes.means(0, 15);
        assert_eq!(series.start, Timestamp::from_nanos(11 * MINUTE_NS));
        assert_eq!(series.values.iter().map(|v| v.is_nan()).collect::<Vec<_>>(), [true, true, false, true]);
        assert_eq!(series.missing(), 0.75);
        assert_eq!(minutes.counts(0, 15).values, [0.0, 0.0, 1.0, 0.0]);
        assert_eq!(series.end(), Timestamp::from_nanos(15 * MINUTE_NS));
    }

    #[test]
    fn a_long_silence_takes_no_memory() {
        let mut minutes = Minutes::default();
        minutes.add(0, 1.0, 5);
        minutes.add(i64::MAX / MINUTE_NS, 1.0, 5);
        assert_eq!(minutes.sums.len(), 1);
        let mut silent = Minutes::default();
        silent.add(0, 1.0, 5);
        assert_eq!(silent.means(999_995, 1_000_000).values.len(), 5);
    }

    #[test]
    fn the_unfinished_minute_is_not_handed_out() {
        let mut minutes = Minutes::default();
        minutes.add(7, 0.5, 5);
        minutes.add(8, 0.9, 5);
        assert_eq!(minutes.means(0, 8).values, [0.5]);
    }
}
