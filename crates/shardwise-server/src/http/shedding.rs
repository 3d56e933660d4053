//! Turning work away in time: how long work waits for a thread is measured, and while it is too long new work is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::clock::instant;

/// Time between two measurements; what a timer can do.
const EVERY: Duration = Duration::from_millis(1);
/// A sleep is over up to so much late without any load: timers count whole milliseconds.
const TIMER_SLACK_US: u64 = 1_500;

/// Measurements of which the least counts: one long wait is a hiccup of the machine, a queue is there all the time.
const WINDOW: u32 = 10;

/// How long work waits for a thread. Everything that is ready to run stands in the same queue as the task that measures. Taken is
/// the least of some measurements, as CoDel does (Nichols and Jacobson 2012): only a standing queue is to be shortened.
#[derive(Clone)]
pub(crate) struct Pressure {
    waits_us: Arc<AtomicU64>,
    limit_us: u64,
}

impl Pressure {
    pub(crate) fn new(limit_ms: f64) -> Self {
        Self { waits_us: Arc::new(AtomicU64::new(0)), limit_us: (limit_ms * 1e3) as u64 }
    }

    /// Measures for ever.
    pub(crate) async fn watch(self) {
        loop {
            let mut least_us = u64::MAX;
            for _ in 0..WINDOW {
                let asleep_at = instant();
                tokio::time::sleep(EVERY).await;
                let late_us = asleep_at.elapsed().saturating_sub(EVERY).as_micros();
                least_us = least_us.min(u64::try_from(late_us).unwrap_or(u64::MAX).saturating_sub(TIMER_SLACK_US));
                // Whoever was in time ends the refusals at once.
                if least_us <= self.limit_us {
                    self.waits_us.fetch_min(least_us, Relaxed);
                }
            }
            self.waits_us.store(least_us, Relaxed);
        }
    }

    /// Whether new work is to be turned away.
    pub(crate) fn is_too_high(&self) -> bool {
        self.waits_us.load(Relaxed) > self.limit_us
    }

    /// What was measured last, in seconds.
    pub(crate) fn seconds(&self) -> f64 {
        self.waits_us.load(Relaxed) as f64 / 1e6
    }
}
