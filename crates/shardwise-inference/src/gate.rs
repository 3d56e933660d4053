//! The outcome gate: whose forecasts of warm executions were nearest to what the shards measured, of the model, the service
//! table and this router's own measurements. A predictor that errs more than a simpler one is passed over until it no
//! longer does.
//!
//! They are compared by the moving mean of |ln measured − ln predicted|, on those choices that model and table agree on:
//! whoever picks a shard alone picks where it errs in the shard's favour, and would be judged by that.

use shardwise_features::Forecast;
use shardwise_features::atomic::{AtomicU64, get, set, update};

/// Weight of a new error in the moving mean, once there are enough of them.
const WEIGHT: f64 = 0.001;
/// Fewer errors than this say nothing.
const LEAST_SAMPLES: f64 = 50.0;
/// Chance alone makes errors differ by this over the root of their number; it is given to the one on trial.
const CHANCE: f64 = 0.5;
/// A predictor that was passed over comes back when it errs this much less than would shut it out, so that it does not come
/// and go.
const HYSTERESIS: f64 = 0.02;
/// The service table must err this much more than own measurements, beside the gate's factor, before it is passed over:
/// it knows shards that this router has never tried, and these do not show in the comparison.
const TABLE_CREDIT: f64 = 1.15;

/// What a decision may lean on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trust {
    /// Only what this router measured itself.
    Online,
    /// The service table too.
    Table,
    /// And the model.
    Model,
}

/// Errors of the three predictors.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    model: Errors,
    table: Errors,
    /// The table's errors where own measurements spoke as well, and theirs.
    table_beside_online: Errors,
    online: Errors,
    /// Whether the model was passed over when last asked: 1 or 0.
    closed: AtomicU64,
}

#[derive(Debug, Default)]
struct Errors {
    mean: AtomicU64,
    samples: AtomicU64,
}

impl Errors {
    fn add(&self, ln_error: f64) {
        let n = update(&self.samples, |n| n + 1.0);
        let weight = WEIGHT.max(1.0 / n);
        set(&self.mean, get(&self.mean) + weight * (ln_error - get(&self.mean)));
    }

    /// Whether these are `factor` times those of another, as far as both are known.
    fn exceed(&self, other: &Self, factor: f64) -> bool {
        let known = |errors: &Self| get(&errors.samples) >= LEAST_SAMPLES;
        let chance = CHANCE / get(&self.samples).clamp(1.0, 1.0 / WEIGHT).sqrt();
        known(self) && known(other) && get(&self.mean) > (factor + chance) * get(&other.mean)
    }
}

impl Gate {
    /// Learns how long a warm execution took in truth, in ms.
    pub(crate) fn learn(&self, forecast: &Forecast, exec_ms: f64) {
        let Forecast { model_ms, table_ms, online_ms, agreed, .. } = *forecast;
        // The means would never forget an error that is not finite, and the gate would be stuck.
        let [model_ms, table_ms, online_ms] = [model_ms, table_ms, online_ms].map(|ms| ms.filter(|ms| ms.is_finite()));
        if !exec_ms.is_finite() {
            return;
        }
        let error = |ms: f32| (exec_ms.max(1e-3) / f64::from(ms).max(1e-3)).ln().abs();
        if let (Some(model_ms), Some(table_ms), true) = (model_ms, table_ms, agreed) {
            self.model.add(error(model_ms));
            self.table.add(error(table_ms));
        }
        if let (Some(table_ms), Some(online_ms)) = (table_ms, online_ms) {
            self.table_beside_online.add(error(table_ms));
            self.online.add(error(online_ms));
        }
    }

    /// How much may be trusted when a predictor may err `factor` times as much as a simpler one.
    pub(crate) fn trust(&self, factor: f64) -> Trust {
        if self.table_beside_online.exceed(&self.online, factor * TABLE_CREDIT) {
            // A bundle whose very table is wrong has nothing to offer.
            return Trust::Online;
        }
        let was_closed = get(&self.closed) > 0.0;
        let is_closed = self.model.exceed(&self.table, if was_closed { factor - HYSTERESIS } else { factor });
        if is_closed != was_closed {
            set(&self.closed, f64::from(u8::from(is_closed)));
        }
        if is_closed { Trust::Table } else { Trust::Model }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(model_ms: f32, table_ms: f32, online_ms: f32, n: usize) -> Gate {
        let gate = Gate::default();
        let forecast = Forecast {
            model_ms: Some(model_ms),
            table_ms: Some(table_ms),
            online_ms: Some(online_ms),
            agreed: true,
            ..Forecast::default()
        };
        (0..n).for_each(|_| gate.learn(&forecast, 10.0));
        gate
    }

    #[test]
    fn whoever_errs_more_than_a_simpler_one_is_passed_over() {
        assert_eq!(gate(11.0, 12.0, 13.0, 100).trust(1.05), Trust::Model);
        assert_eq!(gate(20.0, 12.0, 13.0, 100).trust(1.05), Trust::Table);
        assert_eq!(gate(20.0, 30.0, 13.0, 100).trust(1.05), Trust::Online);
        assert_eq!(gate(20.0, 12.0, 13.0, 30).trust(1.05), Trust::Model, "too early to tell");
    }

    #[test]
    fn times_that_are_not_finite_teach_nothing() {
        let gate = gate(11.0, 12.0, 13.0, 100);
        let absurd =
            Forecast { model_ms: Some(f32::INFINITY), table_ms: Some(f32::NAN), agreed: true, ..Forecast::default() };
        gate.learn(&absurd, 10.0);
        let sound = Forecast { model_ms: Some(20.0), table_ms: Some(12.0), agreed: true, ..Forecast::default() };
        [f64::INFINITY, f64::NAN].into_iter().for_each(|exec_ms| gate.learn(&sound, exec_ms));
        assert_eq!(gate.trust(1.05), Trust::Model);
        (0..5000).for_each(|_| gate.learn(&sound, 10.0));
        assert_eq!(gate.trust(1.05), Trust::Table, "it still learns");
    }

    #[test]
    fn a_predictor_that_mends_comes_back() {
        let gate = gate(20.0, 12.0, 13.0, 200);
        assert_eq!(gate.trust(1.05), Trust::Table);
        let mended = Forecast { model_ms: Some(10.5), table_ms: Some(12.0), agreed: true, ..Forecast::default() };
        (0..5000).for_each(|_| gate.learn(&mended, 10.0));
        assert_eq!(gate.trust(1.05), Trust::Model);
    }
}
