//! How long the model takes of a decision, and whether it may go on taking it.

use std::sync::atomic::Ordering::Relaxed;

use shardwise_features::atomic::{AtomicU64, get, smooth};

const WEIGHT: f64 = 0.05;
/// Of the decisions that pass over a slow model, one in so many tries it all the same, to learn when it is fast again.
const TRY_EVERY: u64 = 64;

/// Moving mean of the model's time.
#[derive(Debug, Default)]
pub(crate) struct ModelTime {
    mean_us: AtomicU64,
    passed_over: AtomicU64,
}

impl ModelTime {
    /// Whether the model keeps within a budget, or must be tried again.
    pub(crate) fn allows(&self, budget_us: f64) -> bool {
        get(&self.mean_us) <= budget_us || self.passed_over.fetch_add(1, Relaxed) % TRY_EVERY == TRY_EVERY - 1
    }

    /// Learns how long it took.
    pub(crate) fn took(&self, ns: u64) {
        smooth(&self.mean_us, ns as f64 / 1e3, WEIGHT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_model_is_passed_over_and_tried_again() {
        let time = ModelTime::default();
        (0..100).for_each(|_| time.took(500_000));
        let allowed = (0..128).filter(|_| time.allows(100.0)).count();
        assert_eq!(allowed, 2);
        (0..100).for_each(|_| time.took(1_000));
        assert!(time.allows(100.0));
    }
}
