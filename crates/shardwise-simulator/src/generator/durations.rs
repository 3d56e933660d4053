//! Run times of functions and their cold starts.
//!
//! It leaves out what depends on the shard or on the size of the input: that is the world's.

use rand::RngExt;
use rand_distr::StandardNormal;
use shardwise_types::Percentiles;

use super::arrivals::daily_count;
use super::{interpolate, normal_quantile, strata};
use crate::constants::{REPLAY_LOAD_MS, REPLAY_LOAD_SIGMA};
use crate::streams::{KeyedStream, Purpose, stream};

/// Mean run time of a function: ln-normal, in s.
pub(super) const MEAN_MU: f64 = -0.38;
pub(super) const MEAN_SIGMA: f64 = 2.5;
/// Correlation of its normal score with that of popularity; the one of logs, which are not quite normal, is −0.23.
const SPEED: f64 = -0.25;
/// Run times of the hottest functions differ less: part of the spread that is left by the normal score of popularity.
const SPREAD_LEFT: [(f64, f64); 3] = [(0.5, 1.06), (1.5, 0.9), (2.5, 0.6)];
/// Spread within a function by quartiles, (p75 / p25), as a sigma of ln: median over functions, and sigma of its ln.
const QUARTILE_SIGMA: f64 = 0.49;
const QUARTILE_SPREAD: f64 = 0.9;
/// Spread within a function by its tail, p99 / p50.
const TAIL_SIGMA: f64 = 0.78;
const TAIL_SPREAD: f64 = 0.62;
/// How far both follow each other.
const SPREADS_TOGETHER: f64 = 0.7;
/// Most that either spread can be.
const MOST_SIGMA: f64 = 2.0;
/// Normal scores of the percentiles 75 and 99.
const SCORE_75: f64 = 0.674_49;
const SCORE_99: f64 = 2.326_35;
/// Longest run, in ms: a platform's limit.
const LONGEST_MS: f64 = 600_000.0;
/// Share of functions that load a model when they start cold, and how long that takes, in ms.
const MODEL_SHARE: f64 = 0.1;
const MODEL_LOAD_MS: (f64, f64) = (4_000.0, 23_000.0);

/// Generates the run times of `functions` functions in ms, with the invocations behind them.
pub(super) fn generate(seed: u64, functions: usize) -> Vec<Percentiles> {
    let mut rng = stream(seed, Purpose::GeneratedDurations, 0);
    let popularity = strata(&mut rng, functions);
    let noise = strata(&mut rng, functions);
    popularity.into_iter().zip(noise).map(|(share, noise)| profile(&mut rng, share, normal_quantile(noise))).collect()
}

/// A function that is more popular than all but `share` of the functions.
fn profile(rng: &mut KeyedStream, share: f64, noise: f64) -> Percentiles {
    let score = normal_quantile(1.0 - share);
    let left = (1.0 - SPEED * SPEED).sqrt() * interpolate(&SPREAD_LEFT, score);
    let mean_ms = 1e3 * (MEAN_MU + MEAN_SIGMA * (SPEED * score + left * noise)).exp();
    let samples = daily_count(share);
    // A single run has no spread, a few have less of it.
    let seen = 1.0 - 1.0 / samples.sqrt();
    let common: f64 = rng.sample(StandardNormal);
    let mut spread = |median: f64, sigma: f64| {
        let own: f64 = rng.sample(StandardNormal);
        let own = SPREADS_TOGETHER * common + (1.0 - SPREADS_TOGETHER * SPREADS_TOGETHER).sqrt() * own;
        seen * (median * (sigma * own).exp()).min(MOST_SIGMA)
    };
    let (quartile, tail) = (spread(QUARTILE_SIGMA, QUARTILE_SPREAD), spread(TAIL_SIGMA, TAIL_SPREAD));
    // The tail makes the mean of a ln-normal.
    let median_ms = mean_ms / (tail * tail / 2.0).exp();
    let at = |sigma: f64, score: f64| (median_ms * (sigma * score).exp()).min(LONGEST_MS) as f32;
    let low = at(quartile, -SCORE_75);
    let high = at(quartile, SCORE_75);
    let p99 = at(tail, SCORE_99).max(high);
    let points = vec![
        (0.0, low.min(at(quartile, -3.0))),
        (1.0, low.min(at(quartile, -SCORE_99))),
        (25.0, low),
        (50.0, at(tail, 0.0)),
        (75.0, high),
        (99.0, p99),
        (100.0, p99.max(at(tail, 3.0))),
    ];
    Percentiles { points, mean: mean_ms.min(LONGEST_MS) as f32, samples }
}

/// Generates how long functions load when they start cold, in ms.
pub(super) fn generate_loads(seed: u64, functions: usize) -> Vec<f32> {
    let mut rng = stream(seed, Purpose::GeneratedLoads, 0);
    let load = |place: f64| {
        if place < MODEL_SHARE {
            let (least, most) = MODEL_LOAD_MS;
            return (least * (most / least).powf(place / MODEL_SHARE)) as f32;
        }
        cold_start_ms(&mut rng) as f32
    };
    let places = strata(&mut stream(seed, Purpose::GeneratedLoads, 1), functions);
    places.into_iter().map(load).collect()
}

/// Draws how long a container starts, in ms.
pub(crate) fn cold_start_ms(rng: &mut KeyedStream) -> f64 {
    REPLAY_LOAD_MS * (REPLAY_LOAD_SIGMA * rng.sample::<f64, _>(StandardNormal)).exp()
}
