//! Turning work away in time: how long work waits for a thread is measured, and while it is too long new work is refused.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::Poll;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::clock::instant;

/// Time between two measurements; what a timer can do.
const EVERY: Duration = Duration::from_millis(1);
/// A sleep is over up to so much late without any load: timers count whole milliseconds.
const TIMER_SLACK: Duration = Duration::from_micros(1_500);
/// How long measurements are gathered of which the least counts, and how many there must be: one long wait is a hiccup of the
/// machine, a queue is there all the time.
const WINDOW: Duration = Duration::from_millis(10);
const FEWEST: u32 = 3;
/// Measurements that are under way at once.
const MOST_UNDER_WAY: usize = 64;

/// How long work waits for a thread: until the runtime looks at sockets and timers, and then behind all that was ready before.
/// Taken is the least of some measurements, as CoDel does (Nichols and Jacobson 2012): only a standing queue is to be shortened.
#[derive(Clone)]
pub(crate) struct Pressure {
    waits_us: Arc<AtomicU64>,
    limit_us: u64,
}

impl Pressure {
    pub(crate) fn new(limit_ms: f64) -> Self {
        Self { waits_us: Arc::new(AtomicU64::new(0)), limit_us: (limit_ms * 1e3) as u64 }
    }

    /// Measures for ever. Measurements overlap: one takes as long as the queue that it measures.
    pub(crate) async fn watch(self) {
        let (mut since, mut measured, mut least_us) = (instant(), 0, u64::MAX);
        let mut under_way = JoinSet::new();
        loop {
            let asleep_at = instant();
            tokio::time::sleep(EVERY).await;
            let late = asleep_at.elapsed().saturating_sub(EVERY + TIMER_SLACK);
            if under_way.len() < MOST_UNDER_WAY {
                under_way.spawn(async move { late + time_to_the_end().await });
            }
            while let Some(waited) = under_way.try_join_next() {
                let us = waited.map_or(u64::MAX, |waited| u64::try_from(waited.as_micros()).unwrap_or(u64::MAX));
                (measured, least_us) = (measured + 1, least_us.min(us));
                // Whoever was in time ends the refusals at once.
                if us <= self.limit_us {
                    self.waits_us.fetch_min(us, Relaxed);
                }
            }
            if measured >= FEWEST && since.elapsed() >= WINDOW {
                self.waits_us.store(least_us, Relaxed);
                (since, measured, least_us) = (instant(), 0, u64::MAX);
            }
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

/// What somebody waits behind all that is ready.
async fn time_to_the_end() -> Duration {
    let ready_at = instant();
    go_to_the_end().await;
    ready_at.elapsed()
}

/// Lets everything run that is ready: whoever wakes itself while it runs goes to the end of the thread's queue. A timer, and tokio's
/// own `yield_now`, are woken with what the runtime looks at in between, and may be run ahead of the queue.
async fn go_to_the_end() {
    let mut has_waited = false;
    poll_fn(|context| {
        if std::mem::replace(&mut has_waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[test]
    fn what_is_ready_runs_before_a_task_that_goes_to_the_end() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let has_run = Arc::new(AtomicU32::new(0));
        let counted = runtime.block_on(runtime.spawn(async move {
            for _ in 0..100 {
                let has_run = Arc::clone(&has_run);
                tokio::spawn(async move { has_run.fetch_add(1, Relaxed) });
            }
            go_to_the_end().await;
            has_run.load(Relaxed)
        }));
        assert_eq!(counted.unwrap(), 100);
    }
}
