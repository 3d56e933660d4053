//! Breakers: who fails five times in a row is left alone for a while, then tried with one request at a time.
//!
//! Closed → open for 1, 2, 4, 8, 16 s → half-open → closed after three trials in a row that succeed, or open again, for
//! longer, after one that fails. Each ten seconds closed take one ejection off the count. A half-open shard that nobody
//! tried for a minute counts as closed: nothing is known of it any more.

use shardwise_types::Timestamp;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::shard_slot::{self as shard, Fields};
use super::stamp::{instant, stamp};
use crate::atomic::{AtomicU64, get, set, update};
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
        if instant(until).is_none_or(|until| outcome.sent_at < until) {
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

#[cfg(test)]
mod tests {
    use super::super::tests::Bench;
    use super::BreakerState::{Closed, HalfOpen, Open};
    use super::*;
    use crate::router_state::{RouterConfig, RouterState};
    use shardwise_types::ErrorClass;

    const FAILED: Option<ErrorClass> = Some(ErrorClass::Failed);

    fn bench() -> Bench {
        Bench::with(RouterState::new())
    }

    fn state(bench: &Bench, at_ms: f64) -> BreakerState {
        bench.state.breaker(&bench.id(0), bench.at(at_ms))
    }

    fn admits(bench: &Bench, at_ms: f64) -> bool {
        bench.state.breaker_admits(&bench.id(0), bench.at(at_ms))
    }

    fn play(bench: &Bench, shard: usize, error: Option<ErrorClass>, at_ms: f64) {
        bench.answer(&bench.send(shard, at_ms), error, at_ms);
    }

    fn fail_five_times(bench: &Bench, shard: usize, at_ms: f64) {
        (0..5).for_each(|_| play(bench, shard, FAILED, at_ms));
    }

    #[test]
    fn five_errors_in_a_row_eject_and_four_do_not() {
        let bench = bench();
        [FAILED, FAILED, FAILED, FAILED, None, FAILED].into_iter().for_each(|error| play(&bench, 0, error, 0.0));
        assert_eq!((state(&bench, 0.0), bench.state.has_ejected(bench.at(0.0))), (Closed, false));
        (0..4).for_each(|_| play(&bench, 0, FAILED, 0.0));
        assert_eq!((state(&bench, 999.0), admits(&bench, 999.0)), (Open, false));
        assert_eq!((state(&bench, 1_000.0), admits(&bench, 1_000.0)), (HalfOpen, true));
        assert!(bench.state.has_ejected(bench.at(1_000.0)));
    }

    #[test]
    fn one_trial_at_a_time_and_three_good_ones_close() {
        let bench = bench();
        fail_five_times(&bench, 0, 0.0);
        for trial in 0..3 {
            let at_ms = 1_000.0 + 10.0 * f64::from(trial);
            assert_eq!((state(&bench, at_ms), admits(&bench, at_ms)), (HalfOpen, true));
            let ticket = bench.send(0, at_ms);
            assert!(!admits(&bench, at_ms + 1.0), "a trial is out");
            bench.answer(&ticket, None, at_ms + 5.0);
        }
        assert_eq!((state(&bench, 1_030.0), bench.state.has_ejected(bench.at(1_030.0))), (Closed, false));
    }

    #[test]
    fn each_failed_trial_doubles_the_ejection_up_to_sixteen_seconds() {
        let bench = bench();
        fail_five_times(&bench, 0, 0.0);
        let mut at_ms = 1_000.0;
        for seconds in [2.0, 4.0, 8.0, 16.0, 16.0] {
            play(&bench, 0, None, at_ms);
            play(&bench, 0, FAILED, at_ms);
            at_ms += 1_000.0 * seconds;
            assert_eq!((state(&bench, at_ms - 1.0), state(&bench, at_ms)), (Open, HalfOpen), "{seconds} s");
        }
    }

    #[test]
    fn ejections_are_forgiven_one_by_one() {
        let eject_again_after = |closed_ms: f64| {
            let bench = bench();
            fail_five_times(&bench, 0, 0.0);
            play(&bench, 0, FAILED, 1_000.0);
            (0..3).for_each(|_| play(&bench, 0, None, 3_000.0));
            fail_five_times(&bench, 0, 3_000.0 + closed_ms);
            (0..5).find(|power| state(&bench, 3_000.0 + closed_ms + 1_000.0 * f64::from(*power).exp2()) == HalfOpen)
        };
        assert_eq!([0.0, 10_000.0, 20_000.0, 90_000.0].map(eject_again_after), [Some(2), Some(1), Some(0), Some(0)]);
    }

    #[test]
    fn a_burst_that_was_out_ejects_once() {
        let bench = bench();
        let burst: Vec<_> = (0..50).map(|_| bench.send(0, 0.0)).collect();
        burst.iter().for_each(|ticket| bench.answer(ticket, FAILED, 500.0));
        assert_eq!((state(&bench, 1_499.0), state(&bench, 1_500.0)), (Open, HalfOpen));
        let stray = bench.send(0, 1_400.0);
        bench.answer(&stray, None, 1_600.0);
        play(&bench, 0, FAILED, 1_600.0);
        assert_eq!(state(&bench, 3_599.0), Open, "2 s after the failed trial");
    }

    #[test]
    fn a_trial_that_is_called_off_or_lost_makes_way_for_the_next() {
        let bench = bench();
        fail_five_times(&bench, 0, 0.0);
        let trial = bench.send(0, 1_000.0);
        bench.answer(&trial, Some(ErrorClass::Cancelled), 1_100.0);
        assert!(admits(&bench, 1_100.0));
        bench.send(0, 1_200.0);
        assert!(!admits(&bench, 31_199.0));
        assert!(admits(&bench, 31_200.0));
    }

    #[test]
    fn a_half_open_shard_that_nobody_tries_is_closed_in_the_end() {
        let bench = bench();
        fail_five_times(&bench, 0, 0.0);
        assert_eq!((state(&bench, 60_999.0), state(&bench, 61_000.0)), (HalfOpen, Closed));
        assert!(!bench.state.has_ejected(bench.at(61_000.0)));
        fail_five_times(&bench, 0, 70_000.0);
        assert_eq!(state(&bench, 71_999.0), Open, "the ejection was not forgotten");
    }

    #[test]
    fn no_more_than_the_share_is_ejected_at_once() {
        let bench = bench();
        fail_five_times(&bench, 0, 0.0);
        fail_five_times(&bench, 1, 0.0);
        let others = [1, 2].map(|shard| bench.state.breaker(&bench.id(shard), bench.at(1.0)));
        assert_eq!((state(&bench, 1.0), others), (Open, [Closed, Closed]), "half of three shards is one");
        assert_eq!(bench.state.refused_ejections(), 1);
        (0..3).for_each(|_| play(&bench, 0, None, 1_000.0));
        fail_five_times(&bench, 1, 1_100.0);
        assert_eq!(bench.state.breaker(&bench.id(1), bench.at(1_100.0)), Open, "there is room again");
        let all = RouterConfig { max_ejected_share: 1.0, ..RouterConfig::default() };
        let bench = Bench::with(RouterState::with_config(all));
        (0..3).for_each(|shard| fail_five_times(&bench, shard, 0.0));
        assert_eq!((bench.state.refused_ejections(), state(&bench, 1.0)), (0, Open));
    }

    #[test]
    fn threads_never_eject_more_than_the_share() {
        for _ in 0..50 {
            let bench = bench();
            std::thread::scope(|scope| {
                for shard in 0..3 {
                    let bench = &bench;
                    scope.spawn(move || (0..5).for_each(|_| play(bench, shard, FAILED, 0.0)));
                }
            });
            let open = (0..3).filter(|shard| bench.state.breaker(&bench.id(*shard), bench.at(1.0)) == Open).count();
            assert!(open <= 1, "{open} of 3");
        }
    }
}
