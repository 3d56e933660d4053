//! What the functions of this process do: counts and times, recorded where they run.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use hdrhistogram::Histogram;
use shardwise_types::FunctionId;

use crate::details::FunctionMetrics;

/// Functions that are told apart; the calls of all further ones count as those of [`OTHER`].
const MOST_FUNCTIONS: usize = 1024;
/// The function that stands for those beyond the limit.
const OTHER: &str = "other";
const LONGEST_US: u64 = 3_600_000_000;

/// Records the calls of functions. A call costs a look-up, a few atomic counters and one short lock of its function.
pub struct FunctionRecorder {
    functions: RwLock<HashMap<FunctionId, Arc<Function>>>,
    other: Arc<Function>,
}

struct Function {
    id: FunctionId,
    queued: AtomicU32,
    active: AtomicU32,
    ended: AtomicU64,
    failed: AtomicU64,
    interval: Mutex<Interval>,
}

/// What ended since the recorder was asked before.
struct Interval {
    times_us: Histogram<u32>,
    sum_us: u64,
    ended: u64,
    failed: u64,
}

/// What all functions did since the recorder was asked before.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Activity {
    /// Those that did something, or still do, in the order of their names.
    pub functions: Vec<FunctionMetrics>,
    /// Calls that wait now.
    pub queued: u32,
    /// Calls that run now.
    pub active: u32,
    /// Calls that ended.
    pub ended: u64,
    /// Share of them that failed, in [0, 1].
    pub error_rate: f32,
    /// Mean time in ms; 0 when none ended.
    pub mean_ms: f32,
}

impl Default for FunctionRecorder {
    fn default() -> Self {
        Self { functions: RwLock::default(), other: Arc::new(Function::new(OTHER.into())) }
    }
}

impl FunctionRecorder {
    /// A call has arrived and waits, until it is started or dropped.
    pub fn arrive(&self, function: &FunctionId) -> WaitingCall {
        let function = self.function(function);
        function.queued.fetch_add(1, Relaxed);
        WaitingCall { function }
    }

    /// What happened since it was asked before, `elapsed` ago.
    pub fn take(&self, elapsed: Duration) -> Activity {
        let known = self.functions.read().unwrap_or_else(PoisonError::into_inner);
        let mut functions: Vec<_> = known.values().chain([&self.other]).cloned().collect();
        drop(known);
        functions.sort_by(|a, b| a.id.cmp(&b.id));
        let (mut activity, mut failed, mut sum_us) = (Activity::default(), 0, 0);
        for function in functions {
            let mut interval = function.interval();
            let metrics = function.metrics(&interval, elapsed);
            activity.queued += metrics.queued;
            activity.active += metrics.active;
            activity.ended += interval.ended;
            failed += interval.failed;
            sum_us += interval.sum_us;
            if interval.ended > 0 || metrics.queued + metrics.active > 0 {
                activity.functions.push(metrics);
            }
            interval.clear();
        }
        activity.error_rate = share(failed, activity.ended);
        activity.mean_ms = mean_ms(sum_us, activity.ended);
        activity
    }

    fn function(&self, id: &FunctionId) -> Arc<Function> {
        let known = self.functions.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = known.get(id) {
            return function.clone();
        }
        drop(known);
        let mut functions = self.functions.write().unwrap_or_else(PoisonError::into_inner);
        if functions.len() >= MOST_FUNCTIONS && !functions.contains_key(id) {
            return self.other.clone();
        }
        functions.entry(id.clone()).or_insert_with(|| Arc::new(Function::new(id.clone()))).clone()
    }
}

impl Function {
    fn new(id: FunctionId) -> Self {
        let interval = Interval { times_us: histogram(), sum_us: 0, ended: 0, failed: 0 };
        Self {
            id,
            queued: AtomicU32::new(0),
            active: AtomicU32::new(0),
            ended: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            interval: Mutex::new(interval),
        }
    }

    fn interval(&self) -> MutexGuard<'_, Interval> {
        self.interval.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call has ended, after that time if it is known.
    fn end(&self, took: Option<Duration>, succeeded: bool) {
        self.active.fetch_sub(1, Relaxed);
        self.ended.fetch_add(1, Relaxed);
        self.failed.fetch_add(u64::from(!succeeded), Relaxed);
        let mut interval = self.interval();
        interval.ended += 1;
        interval.failed += u64::from(!succeeded);
        if let Some(took) = took {
            let us = u64::try_from(took.as_micros()).unwrap_or(LONGEST_US).min(LONGEST_US);
            interval.times_us.saturating_record(us);
            interval.sum_us += us;
        }
    }

    fn metrics(&self, interval: &Interval, elapsed: Duration) -> FunctionMetrics {
        let seconds = elapsed.as_secs_f64();
        let at = |quantile| interval.times_us.value_at_quantile(quantile) as f32 / 1e3;
        FunctionMetrics {
            function: self.id.clone(),
            total: self.ended.load(Relaxed),
            failed: self.failed.load(Relaxed),
            active: self.active.load(Relaxed),
            queued: self.queued.load(Relaxed),
            throughput_per_s: if seconds > 0.0 { interval.ended as f64 / seconds } else { 0.0 },
            error_rate: share(interval.failed, interval.ended),
            mean_ms: mean_ms(interval.sum_us, interval.times_us.len()),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
        }
    }
}

impl Interval {
    fn clear(&mut self) {
        if self.ended > 0 {
            self.times_us.reset();
            (self.sum_us, self.ended, self.failed) = (0, 0, 0);
        }
    }
}

/// A call that waits.
pub struct WaitingCall {
    function: Arc<Function>,
}

impl WaitingCall {
    /// The call runs, until it is finished; dropped before, it has failed.
    pub fn start(self) -> RunningCall {
        self.function.active.fetch_add(1, Relaxed);
        RunningCall { function: self.function.clone(), is_finished: false }
    }
}

impl Drop for WaitingCall {
    fn drop(&mut self) {
        self.function.queued.fetch_sub(1, Relaxed);
    }
}

/// A call that runs.
pub struct RunningCall {
    function: Arc<Function>,
    is_finished: bool,
}

impl RunningCall {
    /// The call has ended after that time; what is longer than an hour counts as an hour.
    pub fn finish(mut self, took: Duration, succeeded: bool) {
        self.is_finished = true;
        self.function.end(Some(took), succeeded);
    }
}

impl Drop for RunningCall {
    fn drop(&mut self) {
        if !self.is_finished {
            self.function.end(None, false);
        }
    }
}

/// Two digits of precision, from a microsecond to an hour.
fn histogram() -> Histogram<u32> {
    Histogram::new_with_bounds(1, LONGEST_US, 2).expect("the bounds are legal")
}

fn share(part: u64, all: u64) -> f32 {
    if all == 0 { 0.0 } else { part as f32 / all as f32 }
}

fn mean_ms(sum_us: u64, count: u64) -> f32 {
    if count == 0 { 0.0 } else { (sum_us as f64 / count as f64 / 1e3) as f32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn call(recorder: &FunctionRecorder, function: &str, ms: u64, succeeded: bool) {
        recorder.arrive(&function.into()).start().finish(Duration::from_millis(ms), succeeded);
    }

    #[test]
    fn an_interval_tells_what_happened_in_it() {
        let recorder = FunctionRecorder::default();
        (0..98).for_each(|_| call(&recorder, "price", 10, true));
        (0..2).for_each(|_| call(&recorder, "price", 1000, false));
        call(&recorder, "hash", 20, true);
        let waiting = recorder.arrive(&"price".into());
        let running = recorder.arrive(&"price".into()).start();
        let activity = recorder.take(2 * SECOND);
        assert_eq!((activity.queued, activity.active, activity.ended), (1, 1, 101));
        assert!((activity.error_rate - 2.0 / 101.0).abs() < 1e-6);
        assert!((activity.mean_ms - 3000.0 / 101.0).abs() < 1e-3);
        assert_eq!(
            activity.functions.iter().map(|metrics| metrics.function.as_str()).collect::<Vec<_>>(),
            ["hash", "price"]
        );
        let price = &activity.functions[1];
        assert_eq!((price.total, price.failed, price.throughput_per_s, price.error_rate), (100, 2, 50.0, 0.02));
        assert!((price.mean_ms - 29.8).abs() < 1e-3);
        assert!((price.p50_ms - 10.0).abs() < 0.2 && (price.p99_ms - 1000.0).abs() < 10.0, "{price:?}");

        drop((waiting, running));
        let activity = recorder.take(SECOND);
        assert_eq!((activity.queued, activity.active, activity.ended, activity.error_rate), (0, 0, 1, 1.0));
        assert_eq!(activity.mean_ms, 0.0, "nobody knows how long it took");
        assert_eq!((activity.functions.len(), activity.functions[0].total), (1, 101));
        assert_eq!(recorder.take(Duration::ZERO), Activity::default());
    }

    #[test]
    fn functions_without_end_share_one_name() {
        let recorder = FunctionRecorder::default();
        (0..MOST_FUNCTIONS + 50).for_each(|number| call(&recorder, &format!("f{number}"), 1, true));
        let activity = recorder.take(SECOND);
        assert_eq!((activity.functions.len(), activity.ended), (MOST_FUNCTIONS + 1, MOST_FUNCTIONS as u64 + 50));
        let other = activity.functions.iter().find(|metrics| metrics.function.as_str() == OTHER).unwrap();
        assert_eq!(other.total, 50);
    }

    #[test]
    fn no_time_is_too_long() {
        let recorder = FunctionRecorder::default();
        recorder.arrive(&"f".into()).start().finish(Duration::MAX, true);
        assert!((recorder.take(SECOND).mean_ms - 3.6e6).abs() < 1.0);
    }

    #[test]
    fn threads_lose_nothing() {
        let recorder = FunctionRecorder::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| call(&recorder, "f", 1, true)));
            }
        });
        assert_eq!(recorder.take(SECOND).ended, 4000);
    }
}
