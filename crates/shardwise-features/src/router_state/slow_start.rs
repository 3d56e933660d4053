//! Shards that join later are sent little at first: caches are cold, and nothing is known of them.

use shardwise_types::Timestamp;
use std::sync::atomic::Ordering::Relaxed;

use crate::atomic::AtomicU64;

use super::shard_slot::{self as shard, Fields};
use super::stamp::{instant, stamp};
use crate::atomic::get;

/// How long a shard counts as new, in ms.
const NEW_FOR_MS: f64 = 30_000.0;
/// The share of its capacity that a shard gets at once.
const FIRST_SHARE: f64 = 0.1;
/// Stands for the joining of a shard that was there from the start.
const FROM_THE_START: u64 = 1;

/// What is known of new shards together.
#[derive(Default)]
pub(super) struct SlowStart {
    /// When any shard first reported.
    pub(super) first_report: AtomicU64,
    /// When the newest shard joined.
    pub(super) last_join: AtomicU64,
    /// Requests sent while any shard was new.
    pub(super) sent: AtomicU64,
}

impl SlowStart {
    /// Notes the report of a shard; its first one later than `grace_ms` after the first of all makes it new.
    pub(super) fn on_report(&self, fields: &Fields, grace_ms: f64, now: Timestamp) {
        if fields[shard::JOINED_AT].load(Relaxed) != 0 {
            return;
        }
        let first = self.first_report.compare_exchange(0, stamp(now), Relaxed, Relaxed).unwrap_or_else(|first| first);
        let is_late = instant(first).is_some_and(|first| now.millis_since(first) > grace_ms);
        // Who was sent requests before it reported is known from elsewhere.
        let is_new = is_late && get(&fields[shard::DISPATCHES]) == 0.0;
        fields[shard::SENT_BEFORE_JOIN].store(self.sent.load(Relaxed), Relaxed);
        fields[shard::JOINED_AT].store(if is_new { stamp(now) } else { FROM_THE_START }, Relaxed);
        if is_new {
            self.last_join.fetch_max(stamp(now), Relaxed);
        }
    }

    /// Counts a request to any shard.
    pub(super) fn on_dispatch(&self, now: Timestamp) {
        if self.is_on(now) {
            self.sent.fetch_add(1, Relaxed);
        }
    }

    /// Whether any shard is new.
    #[inline]
    pub(super) fn is_on(&self, now: Timestamp) -> bool {
        instant(self.last_join.load(Relaxed)).is_some_and(|joined| now.millis_since(joined) < NEW_FOR_MS)
    }

    /// Whether the shard, whose part of the fleet's capacity is `capacity_share`, has had no more than its due.
    pub(super) fn allows(&self, fields: &Fields, capacity_share: f64, now: Timestamp) -> bool {
        let Some(joined_at) = instant(fields[shard::JOINED_AT].load(Relaxed)) else { return true };
        let age = now.millis_since(joined_at) / NEW_FOR_MS;
        let since_join = self.sent.load(Relaxed).saturating_sub(fields[shard::SENT_BEFORE_JOIN].load(Relaxed));
        age >= 1.0 || get(&fields[shard::DISPATCHES]) <= capacity_share * age.max(FIRST_SHARE) * since_join as f64
    }
}

#[cfg(test)]
mod tests {
    use super::super::RouterState;
    use super::super::tests::Bench;

    /// Two shards from the start, the third new after a minute.
    fn bench() -> Bench {
        let bench = Bench::with(RouterState::new());
        bench.state.on_report(&bench.id(0), bench.at(0.0));
        bench.state.on_report(&bench.id(1), bench.at(4_000.0));
        bench.state.on_report(&bench.id(2), bench.at(60_000.0));
        bench
    }

    /// The new shard's part of so many requests that all would like to go there.
    fn share_at(age_ms: f64) -> f64 {
        let (bench, at_ms, requests) = (bench(), 60_000.0 + age_ms, 3_000);
        let allowed = |shard: usize| bench.state.slow_start_allows(&bench.id(shard), 0.5, bench.at(at_ms));
        for _ in 0..requests {
            assert!(allowed(0) && allowed(1), "they are not new");
            bench.send(if allowed(2) { 2 } else { 0 }, at_ms);
        }
        bench.state.shard(&bench.id(2), bench.at(at_ms)).dispatches / f64::from(requests)
    }

    #[test]
    fn a_new_shards_part_grows_with_its_age() {
        for (age_ms, share) in [(0.0, 0.05), (1_000.0, 0.05), (6_000.0, 0.1), (15_000.0, 0.25), (29_999.0, 0.5)] {
            assert!((share_at(age_ms) - share).abs() < 0.001, "{age_ms} ms: {} is not {share}", share_at(age_ms));
        }
        assert_eq!(share_at(30_000.0), 1.0);
    }

    #[test]
    fn who_reported_in_the_first_seconds_or_was_sent_to_before_is_not_new() {
        let bench = Bench::with(RouterState::new());
        bench.send(2, 0.0);
        bench.state.on_report(&bench.id(0), bench.at(0.0));
        bench.state.on_report(&bench.id(1), bench.at(5_000.0));
        bench.state.on_report(&bench.id(2), bench.at(9_000.0));
        bench.send(0, 9_000.0);
        assert!((0..3).all(|shard| bench.state.slow_start_allows(&bench.id(shard), 0.0, bench.at(9_000.0))));
    }
}
