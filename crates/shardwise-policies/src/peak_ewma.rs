//! Peak-EWMA with two choices: latency by a moving mean that believes a peak at once and forgets it slowly, times what
//! is pending.
//!
//! After Finagle's `PeakEwma` and tower's `load::peak_ewma`: cost = EWMA × (pending + 1), a default for the unknown. Two things are added that their authors leave to the layers around them: pending work is counted per core,
//! and the price of errors is the one that every cost here has.

use rand::Rng;
use rustc_hash::FxHashMap;
use shardwise_features::DecisionContext;
use shardwise_types::{ErrorClass, NoEligibleShard, Timestamp};

use crate::loads::Loads;
use crate::sed::error_ms;
use crate::{Decision, Observed, Policy, Runtime};

/// Knobs of [`PeakEwma`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PeakEwmaConfig {
    /// Time constant with which an estimate falls, in ms.
    pub decay_ms: f64,
    /// Latency of a shard that has not answered yet, in ms.
    pub default_ms: f64,
    /// What it places for.
    pub runtime: Runtime,
}

impl Default for PeakEwmaConfig {
    /// Linkerd's default of 30 ms; 3 s instead of its 10 s, a little better in simulated fleets (seeds 1 to 9).
    fn default() -> Self {
        Self { decay_ms: 3_000.0, default_ms: 30.0, runtime: Runtime::default() }
    }
}

/// A latency that falls with time.
#[derive(Debug, Clone, Copy)]
struct Estimate {
    latency_ms: f64,
    updated_at: Timestamp,
}

impl Estimate {
    /// The estimate at `now`: without news it falls, so that a shard once slow is tried again.
    fn at(&self, now: Timestamp, decay_ms: f64) -> f64 {
        self.latency_ms * self.remains(now, decay_ms)
    }

    fn observe(&mut self, latency_ms: f64, now: Timestamp, decay_ms: f64) {
        let remains = self.remains(now, decay_ms);
        let smoothed_ms = latency_ms * (1.0 - remains) + self.latency_ms * remains;
        self.latency_ms = latency_ms.max(smoothed_ms);
        self.updated_at = now;
    }

    fn remains(&self, now: Timestamp, decay_ms: f64) -> f64 {
        (-now.millis_since(self.updated_at).max(0.0) / decay_ms).exp()
    }
}

/// Of two shards drawn at random, the one with the lower peak-sensitive latency × pending requests per core.
pub struct PeakEwma {
    config: PeakEwmaConfig,
    estimates: FxHashMap<u64, Estimate>,
    loads: Loads,
}

impl PeakEwma {
    /// With its knobs.
    pub fn new(config: PeakEwmaConfig) -> Self {
        Self { config, estimates: FxHashMap::default(), loads: Loads::default() }
    }

    fn read(&mut self, context: &DecisionContext<'_>) -> Result<(), NoEligibleShard> {
        let (config, estimates) = (&self.config, &self.estimates);
        self.loads.read(context, |position| {
            let shard = &context.fleet.shards[position];
            let estimate = estimates.get(&shard.id.key());
            let latency_ms = estimate.map_or(config.default_ms, |e| e.at(context.decided_at, config.decay_ms));
            let local = context.router.shard(&shard.id, context.decided_at);
            let errors_ms = error_ms(local.error_rate, &config.runtime);
            (latency_ms + errors_ms) * (local.in_flight + 1.0) / f64::from(shard.shape.cores)
        })
    }
}

impl Policy for PeakEwma {
    fn name(&self) -> &'static str {
        "peak_ewma_p2c"
    }

    fn decide(&mut self, context: &DecisionContext<'_>, rng: &mut dyn Rng) -> Result<Decision, NoEligibleShard> {
        self.read(context)?;
        Ok(self.loads.draw_better_of_two(rng))
    }

    fn revisit(&mut self, context: &DecisionContext<'_>, chosen: usize) -> Option<Result<Decision, NoEligibleShard>> {
        Some(self.read(context).map(|()| self.loads.revisit_better_of_two(chosen)))
    }

    fn on_response(&mut self, observed: &Observed<'_>) {
        // A fast failure says nothing about latency and a cancelled copy nothing at all; the price of errors sees the
        // one, and the time of a request that ran out of it is known.
        if matches!(observed.response.error, Some(ErrorClass::Failed | ErrorClass::Cancelled)) {
            return;
        }
        let latency_ms = f64::from(observed.response.total_ms);
        let new = Estimate { latency_ms, updated_at: observed.known_at };
        let estimate = self.estimates.entry(observed.shard.key()).or_insert(new);
        estimate.observe(latency_ms, observed.known_at, self.config.decay_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(latencies_ms: &[f64]) -> Estimate {
        let mut estimate = Estimate { latency_ms: 10.0, updated_at: Timestamp::from_nanos(0) };
        for latency_ms in latencies_ms {
            let now = estimate.updated_at.plus_millis(100.0);
            estimate.observe(*latency_ms, now, 1_000.0);
        }
        estimate
    }

    #[test]
    fn a_peak_is_believed_at_once_and_forgotten_slowly() {
        assert_eq!(after(&[500.0]).latency_ms, 500.0);
        let recovering = after(&[500.0, 10.0, 10.0]).latency_ms;
        assert!((400.0..420.0).contains(&recovering), "{recovering} after two tenths of the time constant");
    }

    #[test]
    fn without_news_a_slow_shard_is_forgiven() {
        let slow = after(&[500.0]);
        let later = slow.at(slow.updated_at.plus_millis(5_000.0), 1_000.0);
        assert!(later < 4.0, "{later}");
    }
}
