//! Every interleaving of two threads that count requests, within two preemptions, or `LOOM_MAX_PREEMPTIONS` of them (three take
//! some minutes):
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p shardwise-features --lib --target-dir target/loom interleavings`

use loom::sync::Arc;
use loom::thread;

use super::*;
use crate::atomic::AtomicU64;

const PART: InFlight = InFlight { count: 1, cores: 0.5, pending_ms: 8.0, sent_at: 7 };

fn explore(case: impl Fn(Generations, Arc<Fields>) + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(2));
    builder.check(move || {
        let generations = Generations { length_ns: 1_000 };
        case(generations, Arc::new(std::array::from_fn(|_| AtomicU64::new(0))));
    });
}

fn at(ns: i64) -> Timestamp {
    Timestamp::from_nanos(ns)
}

fn assert_idle(generations: Generations, fields: &Fields, now: Timestamp) {
    assert_eq!(generations.alive(fields, now), InFlight::default());
    assert_eq!(generations.count(fields, now), 0);
}

#[test]
fn what_two_threads_send_and_settle_leaves_nothing_behind() {
    explore(|generations, fields| {
        let round = move |fields: &Fields| {
            let generation = generations.enter(fields, &PART, at(10));
            assert!(leave(fields, generation, &PART), "nobody else settles it");
        };
        let other = Arc::clone(&fields);
        let thread = thread::spawn(move || round(&other));
        round(&fields);
        thread.join().expect("a sound thread");
        assert_idle(generations, &fields, at(10));
    });
}

#[test]
fn a_late_outcome_is_settled_or_lost_and_never_both() {
    explore(|generations, fields| {
        let generation = generations.enter(&fields, &PART, at(10));
        let other = Arc::clone(&fields);
        let thread = thread::spawn(move || generations.drop_lost(&other, at(2_500)));
        let settled = leave(&fields, generation, &PART);
        let lost = thread.join().expect("a sound thread");
        assert_eq!(u64::from(settled) + lost, 1);
        assert_eq!(generations.count(&fields, at(2_500)), 0);
    });
}

#[test]
fn what_is_lost_is_dropped_by_one_of_two_threads() {
    explore(|generations, fields| {
        (0..2).for_each(|_| _ = generations.enter(&fields, &PART, at(10)));
        let other = Arc::clone(&fields);
        let thread = thread::spawn(move || generations.drop_lost(&other, at(2_500)));
        let lost = generations.drop_lost(&fields, at(2_500)) + thread.join().expect("a sound thread");
        assert_eq!(lost, 2);
        assert_idle(generations, &fields, at(2_500));
    });
}

#[test]
fn a_request_that_takes_the_place_of_a_lost_one_is_counted_once() {
    explore(|generations, fields| {
        let old = generations.enter(&fields, &PART, at(10));
        let other = Arc::clone(&fields);
        let thread = thread::spawn(move || generations.enter(&other, &PART, at(2_500)));
        leave(&fields, old, &PART);
        let young = thread.join().expect("a sound thread");
        assert_eq!(generations.count(&fields, at(2_500)), 1);
        assert!(!leave(&fields, old, &PART), "it is settled or lost");
        assert!(leave(&fields, young, &PART));
        assert_eq!(generations.count(&fields, at(2_500)), 0);
    });
}
