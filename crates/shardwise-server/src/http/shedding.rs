//! Turning work away in time: how long work waits for a thread is measured, and while it is too long new work is refused.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::clock::instant;

/// Time between two measurements.
const EVERY: Duration = Duration::from_millis(1);
/// How long measurements are gathered of which the least counts, and how many there must be: one long wait is a hiccup of the
/// machine, a queue is there all the time.
const WINDOW: Duration = Duration::from_millis(10);
const FEWEST: u32 = 3;
/// Measurements that are under way at once.
const MOST_UNDER_WAY: u32 = 64;

/// How long work waits for a thread. Taken is the least of some measurements, as CoDel does (Nichols and Jacobson 2012): only a
/// standing queue is to be shortened.
#[derive(Clone)]
pub(crate) struct Pressure {
    waits_us: Arc<AtomicU64>,
    limit_us: u64,
}

impl Pressure {
    pub(crate) fn new(limit_ms: f64) -> Self {
        Self { waits_us: Arc::new(AtomicU64::new(0)), limit_us: (limit_ms * 1e3) as u64 }
    }

    /// Measures until `is_over`. It asks from outside of the runtime: whoever comes from there waits at the end of the queue that
    /// all threads share, and then of the queue of one of them, behind all that is ready. Tasks, timers and sockets wake their
    /// tasks into the queue of a thread alone, and what does not fit there stands in the other one.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn watch(&self, runtime: Handle, is_over: Arc<AtomicBool>) -> io::Result<()> {
        let it = self.clone();
        let watch = move || it.measure(&runtime, &is_over);
        thread::Builder::new().name("pressure".to_owned()).spawn(watch).map(drop)
    }

    fn measure(&self, runtime: &Handle, is_over: &AtomicBool) {
        let (sender, waits): (Sender<Duration>, Receiver<Duration>) = channel();
        let (mut since, mut measured, mut least_us, mut under_way) = (instant(), 0, u64::MAX, 0);
        while !is_over.load(Relaxed) {
            thread::sleep(EVERY);
            if under_way < MOST_UNDER_WAY {
                let (asked_at, sender) = (instant(), sender.clone());
                runtime.spawn(async move {
                    go_to_the_end().await;
                    // Nobody hears it when the thread has ended.
                    _ = sender.send(asked_at.elapsed());
                });
                under_way += 1;
            }
            for waited in waits.try_iter() {
                let us = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
                (measured, least_us, under_way) = (measured + 1, least_us.min(us), under_way - 1);
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

    /// Whether a router with so much work on its only thread would turn away more.
    fn is_too_high(work: Duration) -> bool {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let (pressure, is_over) = (Pressure::new(20.0), Arc::new(AtomicBool::new(false)));
        pressure.watch(runtime.handle().clone(), Arc::clone(&is_over)).unwrap();
        // As connections that always have a request ready.
        for _ in 0..50 {
            runtime.spawn(async move {
                loop {
                    thread::sleep(work);
                    go_to_the_end().await;
                }
            });
        }
        let found = (0..200).any(|_| {
            thread::sleep(Duration::from_millis(10));
            pressure.is_too_high()
        });
        is_over.store(true, Relaxed);
        runtime.shutdown_background();
        found
    }

    #[test]
    fn a_queue_that_is_always_there_is_seen() {
        assert!(is_too_high(Duration::from_millis(2)), "each of fifty takes 2 ms, so that one waits for 100");
    }
}
