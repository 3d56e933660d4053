//! The last executions of something on a shard, by key: how many succeeded and how long they took.
//!
//! The specification's strategies judge a shard by them; what a key stands for is theirs to say. Threads share the table
//! without a lock, and its memory is bounded: 2 MB at once and a ring of `window` × 4 bytes for each key that is in use,
//! 15 MB in all at the usual window of 100.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};
use shardwise_types::{ErrorClass, Response};

/// Slots for keys; a power of two.
const SLOTS: usize = 32_768;

/// Slots in which a key is looked for. When all are taken the first is taken over: what is remembered there is forgotten.
const PROBES: usize = 16;

/// Ring entries: nothing yet, a failure, or microseconds above [`SUCCESS`].
const NOTHING: u32 = 0;
const FAILURE: u32 = 1;
const SUCCESS: u32 = 2;

/// How affinity is made of executions (S1).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AffinityConfig {
    /// Last executions that count.
    pub window: usize,
    /// Weight of the share of successes.
    pub success: f64,
    /// Weight of 1 − mean duration / scale.
    pub speed: f64,
    /// Duration that is worth nothing, in ms.
    pub scale_ms: f64,
    /// Affinity without executions.
    pub unknown: f64,
}

impl Default for AffinityConfig {
    /// The specification's: the last 100, 0.7, 0.3, 10 s, 0.5.
    fn default() -> Self {
        Self { window: 100, success: 0.7, speed: 0.3, scale_ms: 10_000.0, unknown: 0.5 }
    }
}

/// The last executions by key.
pub(crate) struct Executions {
    window: usize,
    slots: Box<[Slot]>,
}

/// The executions of one key. The sums are whole numbers that every change of the ring carries along, so they are exact
/// whoever changes it at the same time, and reading them costs the same for any window.
#[derive(Default)]
struct Slot {
    /// 0 while the slot is free.
    key: AtomicU64,
    executions: AtomicU32,
    successes: AtomicU32,
    /// Of the successes.
    sum_micros: AtomicU64,
    /// Where the next execution goes.
    next: AtomicU32,
    /// Made at the first execution: most slots stay free.
    ring: OnceLock<Box<[AtomicU32]>>,
}

/// What the last executions of a key amount to.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Record {
    pub(crate) executions: f64,
    pub(crate) successes: f64,
    /// Mean duration of the successes, in ms: failing fast is not being fast. 0 without one.
    pub(crate) mean_ms: f64,
}

impl Record {
    /// Share of successes, drawn toward a prior that counts as so many executions.
    pub(crate) fn success_rate(&self, prior: f64, prior_weight: f64) -> f64 {
        let weight = self.executions + prior_weight;
        if weight > 0.0 { (self.successes + prior * prior_weight) / weight } else { prior }
    }

    /// Success and speed in one number in [0, 1]; what never succeeded is not fast.
    pub(crate) fn affinity(&self, config: &AffinityConfig) -> f64 {
        if self.executions == 0.0 {
            return config.unknown;
        }
        let speed = if self.successes > 0.0 { (1.0 - self.mean_ms / config.scale_ms).max(0.0) } else { 0.0 };
        config.success * self.successes / self.executions + config.speed * speed
    }
}

impl Slot {
    fn push(&self, window: usize, entry: u32) {
        let ring = self.ring.get_or_init(|| (0..window).map(|_| AtomicU32::new(NOTHING)).collect());
        let place = self.next.fetch_add(1, Relaxed) as usize % ring.len();
        self.exchange(&ring[place], entry);
    }

    /// Puts an entry in the place of another, and its part of the sums likewise.
    fn exchange(&self, place: &AtomicU32, entry: u32) {
        let before = place.swap(entry, Relaxed);
        let executions = |entry: u32| u32::from(entry != NOTHING);
        let successes = |entry: u32| u32::from(entry >= SUCCESS);
        let micros = |entry: u32| u64::from(entry.saturating_sub(SUCCESS));
        // Differences wrap and come back: the sum of them all is never negative.
        self.executions.fetch_add(executions(entry).wrapping_sub(executions(before)), Relaxed);
        self.successes.fetch_add(successes(entry).wrapping_sub(successes(before)), Relaxed);
        self.sum_micros.fetch_add(micros(entry).wrapping_sub(micros(before)), Relaxed);
    }

    fn forget(&self) {
        for place in self.ring.get().into_iter().flatten() {
            self.exchange(place, NOTHING);
        }
    }

    /// Fields are read one by one; beside a writer they may be one execution apart, which the bounds make harmless.
    fn record(&self, window: usize) -> Record {
        let executions = f64::from(self.executions.load(Relaxed)).min(window as f64);
        let successes = f64::from(self.successes.load(Relaxed)).min(executions);
        let sum_ms = self.sum_micros.load(Relaxed).cast_signed().max(0) as f64 / 1e3;
        Record { executions, successes, mean_ms: sum_ms / f64::max(successes, 1.0) }
    }
}

impl Executions {
    /// Remembers so many executions of each key, at least one.
    pub(crate) fn new(window: usize) -> Self {
        Self { window: window.max(1), slots: (0..SLOTS).map(|_| Slot::default()).collect() }
    }

    pub(crate) fn window(&self) -> usize {
        self.window
    }

    pub(crate) fn learn(&self, key: u64, response: &Response) {
        if response.error == Some(ErrorClass::Cancelled) {
            return;
        }
        let micros = (f64::from(response.exec_ms) * 1e3).round() as u32;
        let entry = if response.is_ok() { micros.saturating_add(SUCCESS) } else { FAILURE };
        self.claim(key.max(1)).push(self.window, entry);
    }

    pub(crate) fn record(&self, key: u64) -> Record {
        self.find(key.max(1)).map_or_else(Record::default, |slot| slot.record(self.window))
    }

    fn probes(&self, key: u64) -> impl Iterator<Item = &Slot> {
        (0..PROBES).map(move |probe| &self.slots[(key as usize).wrapping_add(probe) % SLOTS])
    }

    fn find(&self, key: u64) -> Option<&Slot> {
        for slot in self.probes(key) {
            match slot.key.load(Relaxed) {
                found if found == key => return Some(slot),
                0 => return None,
                _ => {}
            }
        }
        None
    }

    fn claim(&self, key: u64) -> &Slot {
        for slot in self.probes(key) {
            match slot.key.compare_exchange(0, key, Relaxed, Relaxed) {
                Ok(_) => return slot,
                Err(found) if found == key => return slot,
                Err(_) => {}
            }
        }
        let home = &self.slots[key as usize % SLOTS];
        home.key.store(key, Relaxed);
        home.forget();
        home
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(error: Option<ErrorClass>, exec_ms: f32) -> Response {
        Response { error, total_ms: exec_ms, exec_ms, queue_ms: 0.0, queue_len: 0, cold: false }
    }

    fn affinity(executions: &Executions) -> f64 {
        executions.record(1).affinity(&AffinityConfig::default())
    }

    #[test]
    fn affinity_is_success_and_speed() {
        let executions = Executions::new(100);
        assert_eq!(affinity(&executions), 0.5, "nothing is known");
        executions.learn(1, &response(None, 5_000.0));
        assert_eq!(affinity(&executions), 0.7 + 0.3 * 0.5);
        executions.learn(1, &response(Some(ErrorClass::Failed), 0.1));
        assert_eq!(affinity(&executions), 0.35 + 0.15, "the failure was fast, which is no merit");
        executions.learn(1, &response(Some(ErrorClass::Cancelled), 0.0));
        assert_eq!(affinity(&executions), 0.35 + 0.15);
    }

    #[test]
    fn only_the_last_hundred_count() {
        let executions = Executions::new(100);
        (0..50).for_each(|_| executions.learn(1, &response(Some(ErrorClass::Failed), 0.0)));
        (0..100).for_each(|_| executions.learn(1, &response(None, 0.0)));
        assert_eq!(affinity(&executions), 1.0);
    }

    #[test]
    fn a_slow_shard_loses_its_speed_and_no_more() {
        let executions = Executions::new(100);
        executions.learn(1, &response(None, 90_000.0));
        assert_eq!(affinity(&executions), 0.7);
        executions.learn(1, &response(None, f32::INFINITY));
        executions.learn(1, &response(None, f32::NAN));
        assert!(affinity(&executions).is_finite());
    }

    #[test]
    fn a_full_table_forgets_instead_of_growing() {
        let executions = Executions::new(4);
        let key = |i: usize| (i * SLOTS + 7) as u64;
        (0..100).for_each(|i| executions.learn(key(i), &response(Some(ErrorClass::Failed), 0.0)));
        executions.learn(key(100), &response(None, 8.0));
        assert_eq!(executions.record(key(100)), Record { executions: 1.0, successes: 1.0, mean_ms: 8.0 });
        assert_eq!(executions.record(key(0)), Record::default(), "the first gave way");
        assert_eq!(executions.record(key(1)).executions, 1.0);
    }

    #[test]
    fn threads_lose_nothing() {
        let executions = Executions::new(100);
        let failed = response(Some(ErrorClass::Failed), 0.0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..10_000).for_each(|_| executions.learn(1, &failed)));
                scope.spawn(|| (0..10_000).for_each(|i| executions.learn(1, &response(None, i as f32))));
            }
        });
        (0..50).for_each(|_| executions.learn(1, &failed));
        (0..50).for_each(|_| executions.learn(1, &response(None, 3.0)));
        assert_eq!(executions.record(1), Record { executions: 100.0, successes: 50.0, mean_ms: 3.0 });
    }
}
