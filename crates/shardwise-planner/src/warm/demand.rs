//! What is expected of a function's requests: the rate of the next quarter of an hour, by the method that foretold its past
//! best, in the deviance of Poisson counts; by the mean of the last hours where none is shown to.

use crate::{Moments, Series};

/// Minutes of a bin: as far as a keep-warm plan looks ahead.
const BIN: usize = 15;
/// Bins of the mean that all others must beat, which is also what dispersion is taken from: what is rare needs long, what
/// changes needs short.
const RECENT: usize = 24;
const DAY: usize = 1440 / BIN;
/// Bins at the end that methods are tried on.
const TRIED: usize = DAY;
/// Half-lives of weighted means, in bins.
const HALF_LIVES: [f64; 3] = [1.0, 4.0, 96.0];
/// So many bins' worth of belief that the same time of other days says no more than the last hours.
const SHRINKAGE: f64 = 4.0;
/// By how much the deviance, relative to the dispersion, must fall: chi-squared for one degree at 1 %, three rivals and more.
const PROOF: f64 = 6.6;

/// Requests a minute, and variance over mean of the counts a minute.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Demand {
    pub(crate) per_minute: f64,
    pub(crate) dispersion: f64,
}

impl Demand {
    /// What the counts of past minutes lead to expect; none of less than two.
    pub(crate) fn of(arrivals: &Series) -> Option<Self> {
        let counts = &arrivals.values;
        let mut moments = Moments::default();
        counts.iter().rev().take(RECENT * BIN).for_each(|count| moments.push(*count));
        let variance = moments.variance()?;
        let dispersion = if moments.mean > 0.0 { variance / moments.mean } else { 1.0 };
        // The last bin ends now.
        let bins: Vec<f64> = counts[counts.len() % BIN..].chunks(BIN).map(|bin| bin.iter().sum()).collect();
        let per_minute = better(&bins, dispersion).map_or(moments.mean, |expected| expected / BIN as f64);
        Some(Self { per_minute, dispersion })
    }
}

/// The next bin by a method that is shown to foretell better than the mean of the last hours.
fn better(bins: &[f64], dispersion: f64) -> Option<f64> {
    let first = RECENT.max(bins.len().saturating_sub(TRIED));
    let mut weighted = HALF_LIVES.map(|_| (0.0, 0.0));
    let mut deviances = [0.0; 2 + HALF_LIVES.len()];
    let mut last = [0.0; 2 + HALF_LIVES.len()];
    for end in 0..=bins.len() {
        let recent = mean(&bins[end.saturating_sub(RECENT)..end]);
        last[0] = recent;
        last[1] = like_other_days(bins, end, recent);
        for (said, (sum, weight)) in last[2..].iter_mut().zip(weighted) {
            *said = if weight > 0.0 { sum / weight } else { 0.0 };
        }
        let Some(&count) = bins.get(end) else { break };
        if end >= first {
            deviances.iter_mut().zip(last).for_each(|(sum, said)| *sum += deviance(count, said));
        }
        for ((sum, weight), half_life) in weighted.iter_mut().zip(HALF_LIVES) {
            let left = (-1.0 / half_life).exp2();
            (*sum, *weight) = (*sum * left + count, *weight * left + 1.0);
        }
    }
    let best = (1..last.len()).min_by(|a, b| deviances[*a].total_cmp(&deviances[*b]))?;
    (deviances[0] - deviances[best] > PROOF * dispersion.max(1.0)).then_some(last[best])
}

/// The mean of the last hours, drawn towards what came at this time of the days before, an hour about it.
fn like_other_days(bins: &[f64], end: usize, recent: f64) -> f64 {
    let (mut sum, mut count) = (SHRINKAGE * recent, SHRINKAGE);
    for place in (1..).map_while(|days: usize| end.checked_sub(days * DAY)) {
        let around = &bins[place.saturating_sub(1)..(place + 2).min(end)];
        (sum, count) = (sum + around.iter().sum::<f64>(), count + around.len() as f64);
    }
    sum / count
}

fn mean(bins: &[f64]) -> f64 {
    bins.iter().sum::<f64>() / bins.len().max(1) as f64
}

/// Of a Poisson count from what was expected; nothing is thought to be impossible.
fn deviance(count: f64, expected: f64) -> f64 {
    let expected = expected.max(0.5 / DAY as f64);
    let log = if count > 0.0 { count * (count / expected).ln() } else { 0.0 };
    2.0 * (log - (count - expected))
}

#[cfg(test)]
mod tests {
    use super::*;
    use shardwise_types::Timestamp;

    fn of(count: impl Fn(usize) -> f64) -> Demand {
        let values = (0..2880).map(count).collect();
        Demand::of(&Series { start: Timestamp::default(), step_minutes: 1, values }).unwrap()
    }

    #[test]
    fn what_stays_as_it_is_goes_by_the_last_hours() {
        let demand = of(|minute| f64::from(u8::from(minute % 5 == 0)));
        assert!((demand.per_minute - 0.2).abs() < 1e-9, "{demand:?}");
    }

    #[test]
    fn what_has_begun_is_believed_and_what_returns_daily_is_known() {
        let begun = of(|minute| if minute < 2820 { 0.0 } else { 4.0 });
        assert!(begun.per_minute > 1.0, "{begun:?}");
        // It ends at midnight, when it is always busy for an hour.
        let daily = of(|minute| if minute % 1440 < 60 { 6.0 } else { 0.1 });
        assert!(daily.per_minute > 1.0, "{daily:?}");
    }

    #[test]
    fn too_little_says_nothing() {
        let series = |values: Vec<f64>| Series { start: Timestamp::default(), step_minutes: 1, values };
        assert_eq!(Demand::of(&series(vec![1.0])), None);
        assert_eq!(Demand::of(&series(vec![1.0, 1.0])), Some(Demand { per_minute: 1.0, dispersion: 0.0 }));
        assert_eq!(Demand::of(&series(vec![0.0; 30])), Some(Demand { per_minute: 0.0, dispersion: 1.0 }));
    }
}
