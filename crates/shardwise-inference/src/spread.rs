//! How far off the quantiles of a latency are: offsets in ln ms by kind of request, which follow what happens.
//!
//! A quantile starts from what the quantile heads say, or else from the expected latency, and is moved by its offset. The
//! offset goes up by `step × q` when the outcome lies above the quantile and down by `step × (1 − q)` when it lies below, so
//! that in the long run a share q lies below, whatever the distribution and however it changes (quantile tracking of
//! Angelopoulos, Candès and Tibshirani, "Conformal PID control", 2023, after adaptive conformal inference of Gibbs and Candès,
//! 2021). A failure counts as the timeout.

use std::array;

use shardwise_features::atomic::{AtomicU64, get, set, update};
use shardwise_types::{CostTerms, RiskLevel};

/// The quantiles that are answered.
pub(crate) const LEVELS: [f64; 3] = [0.5, 0.9, 0.99];
/// Where they begin: of a log-normal whose σ is the share of execution and wait times this.
const FIRST_SIGMA: f64 = 0.5;
const NORMAL_QUANTILES: [f64; 3] = [0.0, 1.2816, 2.3263];
/// Steps in units of ln ms: the first, and the last, to which they fall with the square root of the outcomes.
const FIRST_STEP: f64 = 0.5;
const LAST_STEP: [f64; 3] = [0.02, 0.04, 0.08];

/// No offset leads further, in ln ms: a factor of 160,000.
const MOST_OFFSET: f64 = 12.0;

/// Kinds: risk tier × congestion × share of the latency that is not network.
const CONGESTION: [f64; 2] = [0.7, 1.3];
const SHARES: [f64; 3] = [0.35, 0.6, 0.85];
const KINDS: usize = 4 * (CONGESTION.len() + 1) * (SHARES.len() + 1);

/// Offsets by kind: first from expected latencies, then from what the quantile heads say.
#[derive(Debug)]
pub(crate) struct Spread {
    kinds: [Kind; 2 * KINDS],
}

#[derive(Debug)]
struct Kind {
    ln: [AtomicU64; LEVELS.len()],
    outcomes: AtomicU64,
}

impl Default for Spread {
    fn default() -> Self {
        let middle = |bin: usize| [0.2, 0.5, 0.7, 0.95][bin];
        // The heads say where the first two lie; the last lies as far beyond the second as in a log-normal.
        let steps = |kind: usize, q: usize| match kind < KINDS {
            true => NORMAL_QUANTILES[q],
            false => [0.0, 0.0, NORMAL_QUANTILES[2] - NORMAL_QUANTILES[1]][q],
        };
        let kind = |kind: usize| Kind {
            ln: array::from_fn(|q| {
                AtomicU64::new((steps(kind, q) * FIRST_SIGMA * middle(kind % (SHARES.len() + 1))).to_bits())
            }),
            outcomes: AtomicU64::new(0),
        };
        Self { kinds: array::from_fn(kind) }
    }
}

/// The kind of a request on a shard.
pub(crate) fn kind_of(risk: RiskLevel, terms: &CostTerms, utilisation: f64) -> u16 {
    let bin = |edges: &[f64], value: f64| edges.iter().filter(|edge| value >= **edge).count();
    let varying = 1.0 - terms.network_ms / terms.latency_ms().max(f64::MIN_POSITIVE);
    let congestion = bin(&CONGESTION, utilisation);
    let kind = (usize::from(risk.rank()) * (CONGESTION.len() + 1) + congestion) * (SHARES.len() + 1);
    (kind + bin(&SHARES, varying)) as u16
}

/// The same kind, where quantiles start from the heads: these are off in another way.
pub(crate) fn by_heads(kind: u16) -> u16 {
    kind + KINDS as u16
}

impl Spread {
    /// The quantiles of a latency that start from `base_ms`, rising.
    pub(crate) fn quantiles_ms(&self, kind: u16, base_ms: [f64; 3]) -> [f64; 3] {
        let Some(kind) = self.kinds.get(usize::from(kind)) else { return base_ms };
        let mut least = f64::NEG_INFINITY;
        array::from_fn(|q| {
            least = least.max(base_ms[q] * get(&kind.ln[q]).exp());
            least
        })
    }

    /// Learns how long a request took whose quantiles started from `base_ms`. What is not finite teaches nothing.
    pub(crate) fn learn(&self, kind: u16, base_ms: [f64; 3], measured_ms: f64) {
        let Some(kind) = self.kinds.get(usize::from(kind)) else { return };
        if !measured_ms.is_finite() || !base_ms.iter().all(|ms| ms.is_finite()) {
            return;
        }
        let n = update(&kind.outcomes, |n| n + 1.0);
        for (q, level) in LEVELS.into_iter().enumerate() {
            let step = (FIRST_STEP / n.sqrt()).max(LAST_STEP[q]);
            let ln = (measured_ms.max(1e-3) / base_ms[q].max(1e-3)).ln();
            let below = f64::from(u8::from(ln <= get(&kind.ln[q])));
            let offset = get(&kind.ln[q]) + step * (level - below);
            set(&kind.ln[q], offset.clamp(-MOST_OFFSET, MOST_OFFSET));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_below_the_quantiles_are_what_they_should_be() {
        for (kind, base_ms) in [(0, [10.0; 3]), (by_heads(0), [10.0, 14.0, 14.0])] {
            check_shares(kind, base_ms);
        }
    }

    fn check_shares(kind: u16, base_ms: [f64; 3]) {
        let spread = Spread::default();
        let mut state = 1_u64;
        let mut below = [0.0; 3];
        let n = 60_000;
        for i in 0..n {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let uniform = ((state >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
            // Heavy-tailed, and twice as long from the middle on.
            let measured_ms = 10.0 * uniform.powf(-0.4) * if i > n / 2 { 2.0 } else { 1.0 };
            for (q, ms) in spread.quantiles_ms(kind, base_ms).into_iter().enumerate() {
                below[q] += f64::from(u8::from(measured_ms <= ms)) / f64::from(n);
            }
            spread.learn(kind, base_ms, measured_ms);
        }
        for (share, level) in below.into_iter().zip(LEVELS) {
            assert!((share - level).abs() < 0.01, "{below:?}");
        }
    }

    #[test]
    fn offsets_stay_within_bounds_whatever_comes() {
        let spread = Spread::default();
        let before = spread.quantiles_ms(0, [10.0; 3]);
        for odd in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            spread.learn(0, [10.0; 3], odd);
            spread.learn(0, [10.0, odd, 10.0], 10.0);
        }
        spread.learn(u16::MAX, [10.0; 3], 10.0);
        assert_eq!(spread.quantiles_ms(0, [10.0; 3]), before);
        for (measured_ms, most) in [(1e300, MOST_OFFSET), (-1e300, -MOST_OFFSET)] {
            (0..100_000).for_each(|_| spread.learn(0, [10.0; 3], measured_ms));
            let [median, ..] = spread.quantiles_ms(0, [10.0; 3]);
            assert!((median / 10.0).ln().abs() <= most.abs() + 1e-9 && (median / 10.0).ln() * most > 0.0, "{median}");
        }
    }

    #[test]
    fn quantiles_rise_and_kinds_are_all_there() {
        let spread = Spread::default();
        for risk in RiskLevel::ALL {
            for (network_ms, utilisation) in [(0.0, 0.0), (50.0, 1.0), (1e9, 1e9), (f64::NAN, f64::NAN)] {
                let terms = CostTerms { network_ms, execution_ms: 50.0, ..CostTerms::default() };
                let kind = kind_of(*risk, &terms, utilisation);
                assert!(usize::from(kind) < KINDS);
                for kind in [kind, by_heads(kind)] {
                    assert!(usize::from(kind) < 2 * KINDS);
                    assert!(spread.quantiles_ms(kind, [10.0, 8.0, 9.0]).is_sorted());
                }
            }
        }
    }
}
