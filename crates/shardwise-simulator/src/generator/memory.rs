//! Memory of functions.

use rand::RngExt;
use rand_distr::StandardNormal;
use shardwise_types::Percentiles;

use super::{interpolate, normal_quantile, strata};
use crate::streams::{Purpose, stream};

/// ln of the memory of a function in MB by the normal score of its rank; known at 5, 50, 95 and 99 %.
const LN_MB: [(f64, f64); 6] = [(-3.5, 4.0), (-1.645, 4.605), (0.0, 4.956), (1.645, 5.481), (2.326, 5.889), (3.5, 6.6)];
/// Spread within a function, as a sigma of ln: median over functions, and sigma of its ln.
const WITHIN_SIGMA: f64 = 0.055;
const WITHIN_SPREAD: f64 = 0.8;
const MOST_WITHIN: f64 = 0.5;
/// Samples of a function over a day: mu and sigma of ln.
const SAMPLES_MU: f64 = 8.5;
const SAMPLES_SIGMA: f64 = 1.8;
/// Percents and their normal scores.
const SCORES: [(f32, f64); 8] = [
    (1.0, -2.326),
    (5.0, -1.645),
    (25.0, -0.674),
    (50.0, 0.0),
    (75.0, 0.674),
    (95.0, 1.645),
    (99.0, 2.326),
    (100.0, 3.5),
];

/// Generates the memory of `functions` functions in MB.
pub(super) fn generate(seed: u64, functions: usize) -> Vec<Percentiles> {
    let mut rng = stream(seed, Purpose::GeneratedMemory, 0);
    let places = strata(&mut rng, functions);
    let mut normal = || -> f64 { rng.sample(StandardNormal) };
    let mut profile = |place: f64| {
        let ln_mb = interpolate(&LN_MB, normal_quantile(place));
        let within = (WITHIN_SIGMA * (WITHIN_SPREAD * normal()).exp()).min(MOST_WITHIN);
        let points = SCORES.map(|(percent, score)| (percent, (ln_mb + within * score).exp() as f32)).to_vec();
        let mean = (ln_mb + within * within / 2.0).exp() as f32;
        Percentiles { points, mean, samples: (SAMPLES_MU + SAMPLES_SIGMA * normal()).exp().ceil() }
    };
    places.into_iter().map(&mut profile).collect()
}
