//! Shards that join later are sent little at first: caches are cold, and nothing is known of them.

use shardwise_types::Timestamp;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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
