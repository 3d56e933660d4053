//! The fields of a shard's slot, and the share of its requests that failed of late.

use shardwise_types::Timestamp;
use std::sync::atomic::Ordering::Relaxed;

use super::stamp::{instant, stamp};
use crate::atomic::{AtomicU64, get, set};

/// Generation and number of requests in flight, of even generations and of odd ones: see [`super::in_flight`].
pub(super) const IN_FLIGHT: [usize; 2] = [0, 1];
pub(super) const IN_FLIGHT_CORES: usize = 2;
pub(super) const PENDING_MS: usize = 3;
pub(super) const OTHERS: usize = 4;
pub(super) const EXEC_LN_MS: usize = 5;
pub(super) const RESIDUAL: usize = 6;
pub(super) const ERRORS: usize = 7;
pub(super) const LATENCY_MS: usize = 8;
pub(super) const PIGGYBACK_QUEUE: usize = 9;
pub(super) const PIGGYBACK_AT: usize = 10;
pub(super) const SINCE_REPORT: usize = 11;
/// Sum of the instants at which what is in flight was sent, in ns, modulo 2^64.
pub(super) const SENT_AT: usize = 12;
pub(super) const DISPATCHES: usize = 13;
pub(super) const RESPONSES: usize = 14;
pub(super) const EXECUTIONS: usize = 15;
/// Answered requests, forgotten as errors are.
pub(super) const ANSWERED: usize = 16;
/// When errors and answered requests were last counted.
pub(super) const COUNTED_AT: usize = 17;
pub(super) const ERRORS_IN_A_ROW: usize = 18;
/// When the ejection ends or ended; 0 while the breaker is closed.
pub(super) const EJECTED_UNTIL: usize = 19;
pub(super) const EJECTIONS: usize = 20;
/// When the breaker last opened or closed.
pub(super) const BREAKER_CHANGED_AT: usize = 21;
/// When the trial request that is out was sent; 0 when none is.
pub(super) const TRIAL: usize = 22;
/// Trial requests in a row that succeeded.
pub(super) const TRIALS_PASSED: usize = 23;
/// When it first reported, if it is a new shard; 1 for those that were there from the start.
pub(super) const JOINED_AT: usize = 24;
/// How many requests the router had sent while shards were new when this one joined.
pub(super) const SENT_BEFORE_JOIN: usize = 25;
/// Parts of the sums above that belong to even generations and to odd ones.
pub(super) const GENERATION_CORES: [usize; 2] = [26, 27];
pub(super) const GENERATION_PENDING_MS: [usize; 2] = [28, 29];
pub(super) const GENERATION_SENT_AT: [usize; 2] = [30, 31];

/// When the shard last reported, and the moving mean of the time between its reports in ms.
pub(super) const LAST_REPORT: usize = 32;
pub(super) const REPORT_GAP_MS: usize = 33;
pub(super) const FIELDS: usize = 34;

pub(super) type Fields = [AtomicU64; FIELDS];

/// Failures and requests are forgotten to 1/e after this, in ms: a shard that is passed over for its errors answers nothing
/// that could clear it, so time must.
const ERROR_MEMORY_MS: f64 = 10_000.0;
/// Good requests that a shard is given credit for: one failure by chance is no reason to leave it.
const ERROR_CREDIT: f64 = 100.0;

/// What is left at `now` of what was counted before.
fn remembered(fields: &Fields, now: Timestamp) -> f64 {
    let counted_at = instant(fields[COUNTED_AT].load(Relaxed));
    counted_at.map_or(0.0, |at| (-now.millis_since(at).max(0.0) / ERROR_MEMORY_MS).exp())
}

/// The share of failed requests over the last seconds.
pub(super) fn error_rate(fields: &Fields, now: Timestamp) -> f64 {
    let errors = get(&fields[ERRORS]);
    if errors == 0.0 {
        return 0.0;
    }
    let left = remembered(fields, now);
    errors * left / (get(&fields[ANSWERED]) * left + ERROR_CREDIT)
}

/// Counts an answer; `failed` is 1 or 0.
pub(super) fn count_answer(fields: &Fields, failed: f64, now: Timestamp) {
    let left = remembered(fields, now);
    set(&fields[ERRORS], get(&fields[ERRORS]) * left + failed);
    set(&fields[ANSWERED], get(&fields[ANSWERED]) * left + 1.0);
    fields[COUNTED_AT].store(stamp(now), Relaxed);
}
