//! Synthetic traces of the same form as real ones, calibrated to their statistics, for
//! [`world_and_workload`](crate::world_and_workload).
//!
//! | file | makes |
//! |---|---|
//! | `arrivals` | how often each function runs, in which minutes, how bursty |
//! | `durations` | run times of functions and their cold starts |
//! | `memory` | memory of functions |
//! | `speed` | slowness of equal machines |
//! | `market` beside this folder | prices and volumes |
//! | `statistics`, `bands` | what is measured on traces, generated or real, and where it should lie |
//!
//! It leaves out who calls whom: functions run independently of each other, and of the market. Nothing is fitted at run
//! time; the numbers behind it are tables in these files.

mod arrivals;
mod bands;
mod curves;
mod durations;
mod memory;
mod speed;
mod statistics;

use rand::RngExt;
use shardwise_types::MarketBar;

use crate::constants::WHALE_USD;
use crate::market::{MINUTES_PER_MONTH, generate_bars, generate_crash};
use crate::replay::ReplayInputs;
use crate::streams::{KeyedStream, Purpose, stream};
use crate::workload::amount_usd;
use crate::world::WorldError;

pub use bands::{Band, bands};
pub use curves::{Curve, Mark, Reference, curves, references};
pub(crate) use durations::cold_start_ms;
pub use statistics::{Statistic, measure};

/// Minutes of a day.
pub(crate) const DAY_MINUTES: usize = 1440;
/// Amounts that are drawn for the record.
const TRADES: usize = 20_000;

/// How much to generate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GeneratorOptions {
    /// Functions, 10 to 20,000. The bands hold for about as many as the real traces have, 2,200.
    pub functions: usize,
    /// Days of arrivals, 1 to 31; the first is a Monday.
    pub days: usize,
    /// Minutes of market, 2 to 400 days.
    pub market_minutes: usize,
}

impl Default for GeneratorOptions {
    /// As many functions as the real traces have, a week of arrivals, a month of market.
    fn default() -> Self {
        Self { functions: 2_200, days: 7, market_minutes: MINUTES_PER_MONTH }
    }
}

/// Traces and what is measured beside them, generated or real.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Traces {
    /// What a replay takes.
    pub inputs: ReplayInputs,
    /// A month of market with one crash in its middle; empty when there is none.
    pub crash: Vec<MarketBar>,
    /// Sizes of trades in US dollars, without whales; empty when they are not known.
    pub trades_usd: Vec<f64>,
}

/// Generates traces; the same seed and options give the same ones.
///
/// # Errors
/// When an option is out of range.
pub fn generate_traces(seed: u64, options: &GeneratorOptions) -> Result<Traces, WorldError> {
    let inputs = generate_inputs(seed, options)?;
    let mut rng = stream(seed, Purpose::TradeSizes, 0);
    // Whales are the specification's, not the market's.
    let trades_usd = (0..TRADES).filter_map(|_| amount_usd(&mut rng)).filter(|usd| *usd < WHALE_USD).collect();
    Ok(Traces { inputs, crash: generate_crash(seed), trades_usd })
}

/// Generates what a replay takes, without what only a check needs.
///
/// # Errors
/// When an option is out of range.
pub fn generate_inputs(seed: u64, options: &GeneratorOptions) -> Result<ReplayInputs, WorldError> {
    check(options)?;
    Ok(ReplayInputs {
        arrivals: arrivals::generate(seed, options.functions, options.days),
        durations_ms: durations::generate(seed, options.functions),
        memory_mb: memory::generate(seed, options.functions),
        load_ms: durations::generate_loads(seed, options.functions),
        market: generate_bars(seed, options.market_minutes),
        speed: speed::generate(seed),
    })
}

fn check(options: &GeneratorOptions) -> Result<(), WorldError> {
    for (field, value, least, most) in [
        ("functions", options.functions, 10, 20_000),
        ("days", options.days, 1, 31),
        ("marketMinutes", options.market_minutes, 2, 400 * DAY_MINUTES),
    ] {
        if !(least..=most).contains(&value) {
            let problem = format!("{value} is out of range; it must lie between {least} and {most}");
            return Err(WorldError::field(field, problem));
        }
    }
    Ok(())
}

/// `n` uniform numbers, one in each n-th of [0, 1), in random order: their distribution hardly varies with the seed.
fn strata(rng: &mut KeyedStream, n: usize) -> Vec<f64> {
    let mut values: Vec<f64> = (0..n).map(|i| (i as f64 + rng.random::<f64>()) / n as f64).collect();
    for i in (1..n).rev() {
        values.swap(i, rng.random_range(0..=i));
    }
    values
}

/// Linear between the knots (position, value), whose positions rise; the nearest value outside of them.
fn interpolate(knots: &[(f64, f64)], at: f64) -> f64 {
    let above = knots.partition_point(|(position, _)| *position <= at);
    match (above.checked_sub(1), knots.get(above)) {
        (Some(below), Some((high, high_value))) => {
            let (low, low_value) = knots[below];
            low_value + (high_value - low_value) * (at - low) / (high - low)
        }
        (Some(last), None) => knots[last].1,
        (None, _) => knots[0].1,
    }
}

/// Share of a normal variable that lies below `z`.
fn normal_share(z: f64) -> f64 {
    0.5 * libm::erfc(-z / std::f64::consts::SQRT_2)
}

/// Where a share in (0, 1) of a normal variable lies below, within ±8, by bisection.
fn normal_quantile(share: f64) -> f64 {
    let (mut low, mut high) = (-8.0, 8.0);
    for _ in 0..50 {
        let middle = 0.5 * (low + high);
        if normal_share(middle) < share { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_means_the_same_traces() {
        let options = GeneratorOptions { functions: 60, days: 2, market_minutes: 200 };
        let traces = generate_traces(4, &options).unwrap();
        assert_eq!(traces, generate_traces(4, &options).unwrap());
        assert_ne!(traces.inputs.arrivals, generate_traces(5, &options).unwrap().inputs.arrivals);
        assert!(traces.inputs.arrivals.iter().all(|trace| trace.per_minute.len() == 2 * DAY_MINUTES));
    }

    #[test]
    fn more_days_leave_the_first_as_it_was() {
        let day = |days| {
            let options = GeneratorOptions { functions: 40, days, market_minutes: 200 };
            let traces = generate_inputs(4, &options).unwrap();
            traces.arrivals.into_iter().map(|trace| trace.per_minute[..DAY_MINUTES].to_vec()).collect::<Vec<_>>()
        };
        assert_eq!(day(1), day(3));
    }

    #[test]
    fn every_band_is_measured_and_holds() {
        let statistics = measure(&generate_traces(1, &GeneratorOptions::default()).unwrap());
        assert_eq!(statistics.len(), bands().len());
        for statistic in &statistics {
            assert!(statistic.in_band(), "{statistic:?}");
        }
    }

    #[test]
    fn options_out_of_range_are_named() {
        let error = generate_inputs(1, &GeneratorOptions { days: 0, ..GeneratorOptions::default() }).unwrap_err();
        assert!(error.to_string().contains("days"), "{error}");
    }

    #[test]
    fn the_normal_quantile_undoes_the_share() {
        for (share, score) in [(0.5, 0.0), (0.975, 1.959_964), (0.01, -2.326_348)] {
            assert!((normal_quantile(share) - score).abs() < 1e-5, "{share}");
        }
    }
}
