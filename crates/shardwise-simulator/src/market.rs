//! The market: a stochastic-volatility path of minute bars, and what routers are told of it.
//!
//! It leaves out what the market does to traffic (see `workload`).

use rand::RngExt;
use rand_distr::StandardNormal;
use shardwise_types::{MarketBar, MarketRecord, Timestamp};

use crate::constants::*;
use crate::streams::{Purpose, stream};

/// Minutes of a month of thirty days.
pub(crate) const MINUTES_PER_MONTH: usize = 43_200;

/// Generates minute bars whose volatility clusters: ln volatility is the sum of a fast and a slow AR(1) and of spikes, one
/// in each stretch of a few days. Volume rises with the range of the minute.
pub fn generate_bars(seed: u64, minutes: usize) -> Vec<MarketBar> {
    bars(seed, &spikes(seed, minutes))
}

/// Generates a month of bars with a crash in its middle: volatility and volume jump, and fall back over a day.
pub(crate) fn generate_crash(seed: u64) -> Vec<MarketBar> {
    let mut spikes = spikes(seed, MINUTES_PER_MONTH);
    rise(&mut spikes[MINUTES_PER_MONTH / 2..], CRASH_VOLATILITY.ln(), 0, CRASH_MINUTES);
    bars(seed, &spikes)
}

/// How much spikes add to ln volatility, by minute.
fn spikes(seed: u64, minutes: usize) -> Vec<f64> {
    let mut rng = stream(seed, Purpose::MarketSpikes, 0);
    let mut heights = vec![0.0; minutes];
    for stretch in (0..minutes).step_by(SPIKE_EVERY) {
        // Two never come so close that they are one.
        let start = stretch + rng.random_range(0..SPIKE_EVERY * 4 / 5);
        let height = SPIKE_VOLATILITY.ln() + SPIKE_SIGMA * rng.sample::<f64, _>(StandardNormal);
        rise(&mut heights[start.min(minutes)..], height, SPIKE_HOLDS, SPIKE_MINUTES);
    }
    heights
}

/// Lifts ln volatility at once to `height`, where it stays for some minutes, from where it falls to 1/e in `minutes`.
fn rise(heights: &mut [f64], height: f64, holds: usize, minutes: f64) {
    for (minute, at) in heights.iter_mut().enumerate().take(holds + (5.0 * minutes) as usize) {
        *at = at.max(height * (-(minute.saturating_sub(holds) as f64) / minutes).exp());
    }
}

fn bars(seed: u64, spikes: &[f64]) -> Vec<MarketBar> {
    let mut rng = stream(seed, Purpose::Market, 0);
    let mut normal = || -> f64 { rng.sample(StandardNormal) };
    let (mut fast, mut slow, mut mood) = (FAST_VOLATILITY.1 * normal(), SLOW_VOLATILITY.1 * normal(), 0.0);
    let mut ln_price = 40_000.0_f64.ln();
    let step = |state: f64, (persistence, sd): (f64, f64), shock: f64| {
        persistence * state + sd * (1.0 - persistence * persistence).sqrt() * shock
    };
    let bar = |spike: &f64| {
        fast = step(fast, FAST_VOLATILITY, normal());
        slow = step(slow, SLOW_VOLATILITY, normal());
        mood = step(mood, VOLUME_MOOD, normal());
        let in_spike = *spike > SPIKE_LEAST && *spike > slow;
        let volatility = if in_spike { spike + SPIKE_FAST * fast } else { fast + slow.min(SLOW_CEILING) }.exp();
        let (mut high, mut low) = (0.0_f64, 0.0_f64);
        let mut moved = 0.0;
        for _ in 0..STEPS_PER_MINUTE {
            moved += volatility * normal() / f64::from(STEPS_PER_MINUTE).sqrt();
            (high, low) = (high.max(moved), low.min(moved));
        }
        let open = ln_price;
        ln_price += MINUTE_RETURN * moved;
        let ln_range = (high - low).ln();
        let ln_volume = LN_VOLUME
            + VOLUME_ELASTICITY * ln_range.min(VOLUME_SATURATION)
            + SATURATED_ELASTICITY * (ln_range - VOLUME_SATURATION).max(0.0)
            + if in_spike { SPIKE_MOOD } else { mood }
            + VOLUME_NOISE * normal();
        MarketBar {
            high_usd: (open + MINUTE_RETURN * high).exp(),
            low_usd: (open + MINUTE_RETURN * low).exp(),
            close_usd: ln_price.exp(),
            volume: ln_volume.exp(),
        }
    };
    spikes.iter().map(bar).collect()
}

/// What routers are told at the end of each minute; the first bar's minute ends at `first_end`.
///
/// Volatility and trend look back over an hour of bars, or what there is of it; with fewer than ten returns they are
/// unknown. A minute without trade repeats the price before.
pub fn records_of_bars(bars: &[MarketBar], first_end: Timestamp, delay_ms: f64, instrument: &str) -> Vec<MarketRecord> {
    let returns: Vec<f64> = bars.windows(2).map(|pair| (pair[1].close_usd / pair[0].close_usd).ln()).collect();
    let record = |(minute, bar): (usize, &MarketBar)| {
        let hour = &returns[minute.saturating_sub(VOLATILITY_MINUTES)..minute];
        let known = hour.len() >= LEAST_RETURNS;
        let event_at = Timestamp::from_nanos(first_end.nanos() + minute as i64 * MINUTE_NS);
        MarketRecord {
            sequence: 0,
            router: None,
            event_at,
            known_at: event_at.plus_millis(delay_ms),
            instrument: instrument.to_owned(),
            price_usd: bar.close_usd,
            volume: bar.volume,
            volatility_bp: known.then(|| (deviation(hour) * 1e4) as f32),
            trend_bp: known.then(|| (hour.iter().sum::<f64>() * 1e4) as f32),
        }
    };
    bars.iter().enumerate().map(record).collect()
}

fn deviation(returns: &[f64]) -> f64 {
    let mean = returns.iter().sum::<f64>() / returns.len() as f64;
    (returns.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (returns.len() - 1) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn autocorrelation(values: &[f64], lag: usize) -> f64 {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let product = |lag: usize| -> f64 {
            values.iter().zip(&values[lag..]).map(|(a, b)| (a - mean) * (b - mean)).sum::<f64>()
        };
        product(lag) / product(0)
    }

    #[test]
    fn volatility_clusters_as_real_markets_do() {
        let bars = generate_bars(3, 60_000);
        let moves: Vec<f64> = bars.windows(2).map(|pair| (pair[1].close_usd / pair[0].close_usd).ln().abs()).collect();
        let (minute, hour) = (autocorrelation(&moves, 1), autocorrelation(&moves, 60));
        assert!((0.2..0.42).contains(&minute), "after a minute {minute}");
        assert!((0.08..0.24).contains(&hour), "after an hour {hour}");
    }

    #[test]
    fn volatility_and_trend_look_back_one_hour() {
        let bar = |close_usd| MarketBar { high_usd: close_usd, low_usd: close_usd, close_usd, volume: 1.0 };
        let bars: Vec<MarketBar> =
            (0..100).map(|i| bar(if i < 30 { 100.0 * f64::from(i + 1) } else { 3000.0 })).collect();
        let records = records_of_bars(&bars, Timestamp::from_nanos(0), 5.0, "BTC-PERP");
        assert_eq!((records[9].volatility_bp, records[9].trend_bp), (None, None));
        assert_eq!(records[99].volatility_bp, Some(0.0), "the climb is more than an hour ago");
        assert!(records[40].trend_bp.unwrap() > 3e4);
        assert_eq!(records[3].known_at.millis_since(records[3].event_at), 5.0);
    }
}
