//! Which function does badly on which shard: the specification's three thresholds, each only where chance cannot explain it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shardwise_types::FunctionId;
use statrs::distribution::{Binomial, ContinuousCDF, DiscreteCDF, StudentsT};

use super::OptimizeSettings;
use crate::{Cell, Moments, Observed};

/// Which threshold a function passes on a shard, compared with itself on the other shards.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "measure", rename_all = "snake_case")]
pub enum Fault {
    /// Its latency there is so many times that of elsewhere.
    Latency {
        /// Ratio of the geometric means: single slow requests, of which tails have many, do not sway it.
        ratio: f64,
    },
    /// It fails there so many times as often.
    Errors {
        /// Ratio of the shares that failed.
        ratio: f64,
    },
    /// A second of a core makes so much less of it there.
    Throughput {
        /// Ratio of successes for each busy core second, of warm runs. How many requests a shard gets is the router's
        /// choice and no fault of the shard, nor is that what is seldom sent there starts cold.
        ratio: f64,
    },
}

/// A test: the fault if it is one, and how probable so much is by chance.
struct Trial {
    cell: usize,
    fault: Fault,
    beyond: bool,
    p_value: f64,
}

/// The faults of each cell that has any, by the cell's place.
pub(super) fn faults(cells: &[Cell], settings: &OptimizeSettings) -> BTreeMap<usize, Vec<Fault>> {
    let mut totals: BTreeMap<&FunctionId, Observed> = BTreeMap::new();
    cells.iter().for_each(|cell| totals.entry(&cell.function).or_default().merge(&cell.seen));
    let mut trials: Vec<Trial> = vec![];
    for (place, cell) in cells.iter().enumerate() {
        let total = &totals[&cell.function];
        let elsewhere = total.requests - cell.seen.requests;
        if cell.seen.requests >= settings.fewest_requests && elsewhere >= settings.fewest_requests {
            trials.extend(latency(place, &cell.seen, total, settings));
            trials.extend(errors(place, &cell.seen, total, settings));
            trials.extend(throughput(place, &cell.seen, total, settings));
        }
    }
    significant(trials, settings.false_alarms)
}

/// Holm's step-down: the chance of any false alarm among all tests stays below the level.
fn significant(mut trials: Vec<Trial>, level: f64) -> BTreeMap<usize, Vec<Fault>> {
    trials.sort_by(|a, b| a.p_value.total_cmp(&b.p_value).then(a.cell.cmp(&b.cell)));
    let count = trials.len();
    let rejected =
        trials.iter().enumerate().take_while(|(place, trial)| trial.p_value * (count - place) as f64 <= level);
    let mut faults: BTreeMap<usize, Vec<Fault>> = BTreeMap::new();
    for (_, trial) in rejected.filter(|(_, trial)| trial.beyond) {
        faults.entry(trial.cell).or_default().push(trial.fault);
    }
    faults
}

fn latency(cell: usize, here: &Observed, total: &Observed, settings: &OptimizeSettings) -> Option<Trial> {
    let elsewhere = total.total_ln.without(&here.total_ln);
    let (difference, p_value) = longer(&here.total_ln, &elsewhere, settings.latency_factor, settings)?;
    let ratio = difference.exp();
    Some(Trial { cell, fault: Fault::Latency { ratio }, beyond: ratio > settings.latency_factor, p_value })
}

fn throughput(cell: usize, here: &Observed, total: &Observed, settings: &OptimizeSettings) -> Option<Trial> {
    let elsewhere = total.exec_ln.without(&here.exec_ln);
    let (difference, p_value) = longer(&here.exec_ln, &elsewhere, 1.0 / settings.throughput_factor, settings)?;
    let succeeds = |requests: f64, errors: f64| (requests - errors) / requests;
    let others = succeeds(total.requests - here.requests, total.errors - here.errors);
    let ratio = (-difference).exp() * succeeds(here.requests, here.errors) / others.max(f64::MIN_POSITIVE);
    Some(Trial { cell, fault: Fault::Throughput { ratio }, beyond: ratio < settings.throughput_factor, p_value })
}

/// What must be beyond chance: half of the way to the threshold, as a factor. No two shards are quite alike, so that some
/// difference is sure to be found with enough samples; and with the whole way, half of those at the threshold are missed.
fn half_way(factor: f64) -> f64 {
    factor.sqrt()
}

/// By how much the mean here is above elsewhere, in ln, and how probable that is if it is at most half of the way to a factor
/// (Welch, one-sided).
fn longer(here: &Moments, elsewhere: &Moments, factor: f64, settings: &OptimizeSettings) -> Option<(f64, f64)> {
    let fewest = settings.fewest_requests;
    if here.count < fewest || elsewhere.count < fewest {
        return None;
    }
    let share = |moments: &Moments| moments.variance().map(|variance| variance * settings.clustering / moments.count);
    let (near, far) = (share(here)?, share(elsewhere)?);
    let difference = here.mean - elsewhere.mean;
    let beyond = difference - half_way(factor).ln();
    if near + far <= 0.0 {
        // No spread at all: whatever differs differs for certain.
        return Some((difference, if beyond > 0.0 { 0.0 } else { 1.0 }));
    }
    let freedom = (near + far).powi(2) / (near * near / (here.count - 1.0) + far * far / (elsewhere.count - 1.0));
    let student = StudentsT::new(0.0, 1.0, freedom.max(1.0)).ok()?;
    Some((difference, student.sf(beyond / (near + far).sqrt())))
}

/// Given how many failed altogether, so many here: an exact test of two shares. Failures come in clusters, so that they
/// count for fewer.
fn errors(cell: usize, here: &Observed, total: &Observed, settings: &OptimizeSettings) -> Option<Trial> {
    let others = (total.requests - here.requests, total.errors - here.errors);
    let ratio = (here.errors / here.requests) / ((others.1 + 0.5) / (others.0 + 1.0));
    let (failed, failed_here) =
        ((total.errors / settings.clustering).floor(), (here.errors / settings.clustering).floor());
    let beyond = ratio > settings.error_factor;
    let p_value = if failed_here < 1.0 {
        1.0
    } else {
        let odds = half_way(settings.error_factor) * here.requests;
        Binomial::new(odds / (odds + others.0), failed as u64).ok()?.sf(failed_here as u64 - 1)
    };
    Some(Trial { cell, fault: Fault::Errors { ratio }, beyond, p_value })
}
