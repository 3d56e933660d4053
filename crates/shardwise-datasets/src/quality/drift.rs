//! How far a column has moved from what it looked like in another dataset.
//!
//! - **PSI**, the population stability index: Σ (p − q) · ln(p / q) over about ten bins of equal depth of the reference and one for
//!   missing values. Below 0.1 a population counts as stable, above 0.25 as another one (E. Lewis, *An Introduction to Credit
//!   Scoring*, 1994; N. Siddiqi, *Credit Risk Scorecards*, 2006).
//! - **KS**, the Kolmogorov–Smirnov distance: the largest difference of the two cumulative distributions. The distance itself is
//!   judged, not its p-value: at millions of rows any difference is significant. Two normal distributions of equal spread
//!   have a PSI of δ² and a distance of 2 Φ(δ / 2) − 1 when their means are δ standard deviations apart, so that a PSI of
//!   0.25 goes with a distance of 0.2.

use serde::Serialize;

use super::profile::{ColumnProfile, Counts, bucket};

/// Least share that a bin counts as having: an empty one would make the index infinite.
const MIN_SHARE: f64 = 1e-4;
/// Share of the reference that one of the index's bins holds at least.
const BIN_SHARE: f64 = 0.1;

/// How far a column is from the reference.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub(crate) struct Distance {
    /// Population stability index.
    pub(crate) psi: f64,
    /// Kolmogorov–Smirnov distance, 0 to 1; names have none.
    pub(crate) ks: f64,
}

/// Compares what was counted with a reference; `None` when one of them has no rows, or they are of different kinds.
pub(crate) fn distance(reference: &ColumnProfile, counts: &Counts) -> Option<Distance> {
    let (before, now, has_order) = match (reference, counts) {
        (ColumnProfile::Numbers { borders, counts: bins, missing }, Counts::Numbers { buckets, missing: absent }) => {
            // Below and above the reference is a bin each, which nothing lay in.
            let mut now = vec![0; bins.len() + 2];
            let borders: Vec<u16> = borders.iter().map(|border| bucket(*border)).collect();
            for (bucket, n) in buckets {
                now[borders.partition_point(|border| border <= bucket)] += n;
            }
            let mut before = vec![0];
            before.extend(bins);
            before.push(0);
            // A reference in which all is missing has no borders.
            now.truncate(before.len());
            ((before, *missing), (now, *absent), true)
        }
        (ColumnProfile::Names { counts: names, rarer, missing }, Counts::Names { counts, missing: absent }) => {
            let mut before: Vec<u64> = names.values().copied().collect();
            let mut now: Vec<u64> = names.keys().map(|name| counts.get(name).copied().unwrap_or(0)).collect();
            let elsewhere = counts.values().sum::<u64>() - now.iter().sum::<u64>();
            before.push(*rarer);
            now.push(elsewhere);
            ((before, *missing), (now, *absent), false)
        }
        _ => return None,
    };
    let rows = |(bins, missing): &(Vec<u64>, u64)| bins.iter().sum::<u64>() + missing;
    if rows(&before) == 0 || rows(&now) == 0 {
        return None;
    }
    let ks = if has_order { ks(&before.0, &now.0) } else { 0.0 };
    Some(Distance { psi: psi(&before, &now, has_order), ks })
}

/// The index over bins that are joined until each holds a tenth of the reference; bins of names stand alone.
fn psi(before: &(Vec<u64>, u64), now: &(Vec<u64>, u64), may_join: bool) -> f64 {
    let all = |(bins, missing): &(Vec<u64>, u64)| (bins.iter().sum::<u64>() + missing) as f64;
    let (all_before, all_now) = (all(before), all(now));
    let deep = |n: u64| n as f64 >= BIN_SHARE * all_before;
    let mut bins: Vec<(u64, u64)> = Vec::new();
    let last = before.0.len() - 1;
    for (place, (p, q)) in before.0.iter().zip(&now.0).enumerate() {
        // The bins outside of the reference stay alone: what was never seen must not hide among its neighbours.
        let joins = may_join && place > 1 && place < last && !deep(*p);
        match bins.last_mut().filter(|(before, _)| joins && !deep(*before)) {
            Some(bin) => *bin = (bin.0 + p, bin.1 + q),
            None => bins.push((*p, *q)),
        }
    }
    bins.push((before.1, now.1));
    let term = |(p, q): (u64, u64)| {
        let (p, q) = ((p as f64 / all_before).max(MIN_SHARE), (q as f64 / all_now).max(MIN_SHARE));
        (p - q) * (p / q).ln()
    };
    bins.into_iter().map(term).sum()
}

/// The distance at the borders of the bins, of what is not missing; 0 when all is missing in one of them, which the index tells.
fn ks(before: &[u64], now: &[u64]) -> f64 {
    let (all_before, all_now) = (before.iter().sum::<u64>() as f64, now.iter().sum::<u64>() as f64);
    if all_before == 0.0 || all_now == 0.0 {
        return 0.0;
    }
    let (mut p, mut q, mut largest) = (0, 0, 0.0_f64);
    for (before, now) in before.iter().zip(now) {
        p += before;
        q += now;
        largest = largest.max((p as f64 / all_before - q as f64 / all_now).abs());
    }
    largest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Normal numbers of that mean and standard deviation: quantiles at evenly spaced shares, by bisection of the distribution.
    fn normal(mean: f64, sd: f64) -> Counts {
        let mut counts = Counts::numbers();
        // Sums of twelve evenly scrambled fractions: close enough to the normal distribution for the claims below.
        for n in 0..200_000_u64 {
            let fraction = |salt: u64| shardwise_types::unit_of(shardwise_types::combine_keys(n, salt));
            let sum: f64 = (1..=12).map(fraction).sum();
            counts.number((mean + sd * (sum - 6.0)) as f32);
        }
        counts
    }

    fn moved(by: f64) -> Distance {
        distance(&normal(10.0, 1.0).profile(), &normal(10.0 + by, 1.0)).unwrap()
    }

    #[test]
    fn what_is_the_same_has_no_distance() {
        assert_eq!(moved(0.0), Distance::default());
    }

    #[test]
    fn half_a_standard_deviation_is_an_index_of_a_quarter_and_a_distance_of_a_fifth() {
        let Distance { psi, ks } = moved(0.5);
        assert!((psi - 0.25).abs() < 0.03 && (ks - 0.197).abs() < 0.01, "{psi} {ks}");
        let Distance { psi, ks } = moved(0.1_f64.sqrt());
        assert!((psi - 0.1).abs() < 0.02 && (ks - 0.126).abs() < 0.01, "{psi} {ks}");
    }

    #[test]
    fn the_distance_is_that_of_the_rows_within_a_bin() {
        // By the definition, over all rows sorted.
        let values =
            |shift: f32| (0..5_000).map(move |n| ((n * 7_919 % 5_000) as f32).sqrt() + shift).collect::<Vec<_>>();
        let (a, b) = (values(0.0), values(4.0));
        let share = |of: &[f32], at: f32| of.iter().filter(|value| **value <= at).count() as f64 / of.len() as f64;
        let exact = a.iter().chain(&b).map(|at| (share(&a, *at) - share(&b, *at)).abs()).fold(0.0, f64::max);
        let counted = |values: &[f32]| {
            let mut counts = Counts::numbers();
            values.iter().for_each(|value| counts.number(*value));
            counts
        };
        let found = distance(&counted(&a).profile(), &counted(&b)).unwrap().ks;
        assert!((exact - found).abs() < 0.01, "{exact} {found}");
    }

    #[test]
    fn another_unit_and_what_went_missing_are_far_away() {
        let mut constant = Counts::numbers();
        (0..1_000).for_each(|_| constant.number(5.0));
        let (mut above, mut gone) = (Counts::numbers(), Counts::numbers());
        (0..1_000).for_each(|_| above.number(5_000.0));
        (0..1_000).for_each(|_| gone.number(f32::NAN));
        let reference = constant.profile();
        let far = distance(&reference, &above).unwrap();
        assert!(far.psi > 5.0 && far.ks == 1.0, "{far:?}");
        assert!(distance(&reference, &gone).unwrap().psi > 5.0);
        assert!(distance(&gone.profile(), &constant).unwrap().psi > 5.0);
        assert_eq!(distance(&reference, &Counts::numbers()), None);
    }

    #[test]
    fn names_are_compared_by_their_shares() {
        let shares = |a: usize, b: usize| {
            let mut counts = Counts::names();
            (0..a).for_each(|_| counts.name(Some("a")));
            (0..b).for_each(|_| counts.name(Some("b")));
            counts
        };
        let psi = |now: &Counts| distance(&shares(500, 500).profile(), now).unwrap().psi;
        assert_eq!(psi(&shares(50, 50)), 0.0);
        // (.5 − .9) ln(.5/.9) + (.5 − .1) ln(.5/.1)
        assert!((psi(&shares(900, 100)) - 0.8789).abs() < 1e-3, "{}", psi(&shares(900, 100)));
    }
}
