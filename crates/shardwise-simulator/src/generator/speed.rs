//! Slowness of equal machines: they differ a little, and each drifts around its own pace.

use rand::RngExt;
use rand_distr::StandardNormal;
use shardwise_types::SpeedTrace;

use crate::streams::{Purpose, stream};

/// A benchmark, and the coefficient of variation of its repetitions over all machines.
///
/// The names choose the resource that a replay slows down. Machines with burstable CPU, which differ far more, are left
/// out. The third number is the share of the variance that lies between machines.
const BENCHMARKS: [(&str, f64, f64); 4] =
    [("cpu", 0.0015, 0.3), ("cache", 0.14, 0.5), ("redis", 0.065, 0.5), ("disk", 0.10, 0.5)];
/// Machines of each benchmark, and repetitions on each.
const MACHINES: u64 = 40;
const REPETITIONS: usize = 2_000;
/// How much of a repetition's departure is left at the next one.
const PERSISTENCE: f64 = 0.8;

/// Generates slowness traces for each benchmark.
pub(super) fn generate(seed: u64) -> Vec<SpeedTrace> {
    let benchmark = |(kind, (name, variation, between)): (u64, (&'static str, f64, f64))| {
        (0..MACHINES).map(move |machine| trace(seed, kind * MACHINES + machine, name, variation, between))
    };
    (0..).zip(BENCHMARKS).flat_map(benchmark).collect()
}

/// `between` is the share of the variance that lies between machines.
fn trace(seed: u64, machine: u64, benchmark: &str, variation: f64, between: f64) -> SpeedTrace {
    let mut rng = stream(seed, Purpose::GeneratedSpeed, machine);
    let mut normal = || -> f64 { rng.sample(StandardNormal) };
    let own = between.sqrt() * normal();
    let mut state = normal();
    let mut repetition = || {
        state = PERSISTENCE * state + (1.0 - PERSISTENCE * PERSISTENCE).sqrt() * normal();
        (variation * (own + (1.0 - between).sqrt() * state)).exp() as f32
    };
    SpeedTrace { benchmark: benchmark.to_owned(), slowness: (0..REPETITIONS).map(|_| repetition()).collect() }
}
