//! Breakers: who fails five times in a row is left alone for a while, then tried with one request at a time.
//!
//! Closed → open for 1, 2, 4, 8, 16 s → half-open → closed after three trials in a row that succeed, or open again, for
//! longer, after one that fails. Each ten seconds closed take one ejection off the count. A half-open shard that nobody
//! tried for a minute counts as closed: nothing is known of it any more.

use shardwise_types::Timestamp;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

use super::shard_slot::{self as shard, Fields};
use super::stamp::{instant, stamp};
use crate::atomic::{get, set, update};
use crate::slots::SlotTable;

/// Errors in a row after which a shard is ejected.
const ERRORS: f64 = 5.0;
/// The longest ejection is 2 to this power, in seconds.
const MAX_POWER: f64 = 4.0;
/// Trials in a row that must succeed.
const TRIALS: f64 = 3.0;
/// A breaker that was closed for so long forgives one ejection, in ms.
const FORGIVEN_AFTER_MS: f64 = 10_000.0;
/// How long a shard stays half-open, in ms.
const HALF_OPEN_MS: f64 = 60_000.0;

/// Whether a shard may be sent requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// It may.
    Closed,
    /// It failed too often in a row and is ejected for a while.
    Open,
    /// Its ejection is over; it is tried with one request at a time.
    HalfOpen,
}

/// What is known of all breakers together.
#[derive(Default)]
pub(super) struct Breakers {
    /// Shards that were ejected and not closed since.
    pub(super) unclosed: AtomicU64,
    /// When the last ejection of any shard ends.
    pub(super) last_ends: AtomicU64,
    /// Ejections refused because too many shards were ejected already.
    pub(super) refused: AtomicU64,
}

/// An outcome as a breaker sees it.
#[derive(Clone, Copy)]
pub(super) struct Outcome {
    pub(super) sent_at: Timestamp,
    pub(super) known_at: Timestamp,
    pub(super) is_ok: bool,
}

impl Breakers {
    /// Whether any breaker may not be closed at `now`.
    #[inline]
    pub(super) fn any(&self, now: Timestamp) -> bool {
        self.unclosed.load(Relaxed) > 0
            && instant(self.last_ends.load(Relaxed)).is_some_and(|until| now < until.plus_millis(HALF_OPEN_MS))
    }

    /// Learns from an outcome. At most `max_ejected` shards of the table are ejected at once.
    pub(super) fn learn(
        &self,
        shards: &SlotTable<{ shard::FIELDS }>,
        fields: &Fields,
        outcome: Outcome,
        max_ejected: impl Fn() -> usize,
    ) {
        let until = fields[shard::EJECTED_UNTIL].load(Relaxed);
        match outcome.is_ok {
            true => {
                set(&fields[shard::ERRORS_IN_A_ROW], 0.0);
                if until != 0 {
                    self.succeed(fields, until, outcome);
                }
            }
            false if is_tripped(fields, until, outcome) => {
                let has_room = || count_ejected(shards, outcome.known_at) <= max_ejected();
                self.eject(fields, until, outcome.known_at, has_room);
            }
            false => {}
        }
    }

    fn succeed(&self, fields: &Fields, until: u64, outcome: Outcome) {
        // What was sent before says nothing of the shard as it is now.
        if !instant(until).is_some_and(|until| outcome.sent_at >= until) {
            return;
        }
        let passed = update(&fields[shard::TRIALS_PASSED], |n| n + 1.0) >= TRIALS;
        let is_over = passed || state_until(until, outcome.known_at) == BreakerState::Closed;
        if is_over && fields[shard::EJECTED_UNTIL].compare_exchange(until, 0, SeqCst, Relaxed).is_ok() {
            fields[shard::BREAKER_CHANGED_AT].store(stamp(outcome.known_at), Relaxed);
            set(&fields[shard::TRIALS_PASSED], 0.0);
            self.unclosed.fetch_sub(1, SeqCst);
        }
    }

    /// Opens the breaker, unless another thread has just done so. It takes a place first and then looks whether there was
    /// room, so that two threads cannot both take the last one.
    fn eject(&self, fields: &Fields, before: u64, now: Timestamp, has_room: impl Fn() -> bool) {
        let ejections = ejections(fields, before, now);
        let until = stamp(now.plus_millis(1000.0 * ejections.exp2()));
        set(&fields[shard::ERRORS_IN_A_ROW], 0.0);
        set(&fields[shard::TRIALS_PASSED], 0.0);
        if fields[shard::EJECTED_UNTIL].compare_exchange(before, until, SeqCst, Relaxed).is_err() {
            return;
        }
        if !has_room() {
            fields[shard::EJECTED_UNTIL].store(before, SeqCst);
            self.refused.fetch_add(1, Relaxed);
            return;
        }
        self.last_ends.fetch_max(until, Relaxed);
        if before == 0 {
            self.unclosed.fetch_add(1, SeqCst);
        }
        set(&fields[shard::EJECTIONS], (ejections + 1.0).min(MAX_POWER));
        fields[shard::BREAKER_CHANGED_AT].store(stamp(now), Relaxed);
        fields[shard::TRIAL].store(0, Relaxed);
    }
}

/// The state of a shard's breaker.
pub(super) fn state(fields: &Fields, now: Timestamp) -> BreakerState {
    state_until(fields[shard::EJECTED_UNTIL].load(Relaxed), now)
}

fn state_until(until: u64, now: Timestamp) -> BreakerState {
    match instant(until) {
        Some(until) if now < until => BreakerState::Open,
        Some(until) if now < until.plus_millis(HALF_OPEN_MS) => BreakerState::HalfOpen,
        _ => BreakerState::Closed,
    }
}

/// Whether the shard may be sent a request: its breaker is closed, or half-open and no trial is out. A trial whose outcome
/// is lost is out for `lost_after_ms`.
pub(super) fn admits(fields: &Fields, now: Timestamp, lost_after_ms: f64) -> bool {
    match state(fields, now) {
        BreakerState::Closed => true,
        BreakerState::Open => false,
        BreakerState::HalfOpen => !is_out(fields[shard::TRIAL].load(Relaxed), now, lost_after_ms),
    }
}

fn is_out(trial: u64, now: Timestamp, lost_after_ms: f64) -> bool {
    instant(trial).is_some_and(|sent_at| now.millis_since(sent_at) < lost_after_ms)
}

/// Notes that a request to a half-open shard is its trial, if none is out. Threads that decided before they saw it may send
/// one more each.
pub(super) fn claim_trial(fields: &Fields, now: Timestamp, lost_after_ms: f64) {
    let trial = fields[shard::TRIAL].load(Relaxed);
    if state(fields, now) == BreakerState::HalfOpen && !is_out(trial, now, lost_after_ms) {
        // Whoever is second does not wait: its request is on its way.
        let _claimed = fields[shard::TRIAL].compare_exchange(trial, stamp(now), SeqCst, Relaxed);
    }
}

/// Notes that the trial sent at an instant is no longer out.
pub(super) fn release_trial(fields: &Fields, sent_at: Timestamp) {
    if fields[shard::TRIAL].load(Relaxed) == stamp(sent_at) {
        let _released = fields[shard::TRIAL].compare_exchange(stamp(sent_at), 0, SeqCst, Relaxed);
    }
}

/// Whether a failure opens the breaker.
fn is_tripped(fields: &Fields, until: u64, outcome: Outcome) -> bool {
    if let Some(until) = instant(until)
        && state_until(stamp(until), outcome.known_at) != BreakerState::Closed
    {
        if outcome.sent_at >= until {
            return true;
        }
        // A burst that was out when the breaker opened failed for the same reason: it is not counted again.
        let opened_at = instant(fields[shard::BREAKER_CHANGED_AT].load(Relaxed));
        if opened_at.is_some_and(|opened_at| outcome.sent_at < opened_at) {
            return false;
        }
    }
    update(&fields[shard::ERRORS_IN_A_ROW], |n| n + 1.0) >= ERRORS
}

/// Ejections that are not forgiven yet.
fn ejections(fields: &Fields, until: u64, now: Timestamp) -> f64 {
    let counted = get(&fields[shard::EJECTIONS]);
    match instant(fields[shard::BREAKER_CHANGED_AT].load(Relaxed)) {
        Some(closed_at) if until == 0 => {
            let forgiven = (now.millis_since(closed_at).max(0.0) / FORGIVEN_AFTER_MS).floor();
            (counted - forgiven).max(0.0)
        }
        _ => counted,
    }
}

/// Shards whose breaker is not closed. It looks at the whole table, but only when a breaker opens.
fn count_ejected(shards: &SlotTable<{ shard::FIELDS }>, now: Timestamp) -> usize {
    let until = |fields: &Fields| fields[shard::EJECTED_UNTIL].load(SeqCst);
    shards.values().filter(|fields| state_until(until(fields), now) != BreakerState::Closed).count()
}
