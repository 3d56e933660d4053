//! Claims that deciding, learning and logging allocate nothing once they have run for a while.

use std::hint::black_box;
use std::sync::Arc;

use allocation_counter::measure;
use shardwise_features::golden::{GoldenContext, contexts};
use shardwise_features::{DecisionContext, DecisionFeatures, FeatureVector};
use shardwise_inference::{
    DecisionLog, LogConfig, LoggedDecision, LoggedOutcome, ModelSlot, Placer, PlacerConfig, Shadow, ShadowConfig,
};
use shardwise_models::BundleDraft;
use shardwise_policies::Decision;
use shardwise_types::Response;

const WARM_UP: u64 = 1_000;
const CALLS: u64 = 10_000;
const RESPONSE: Response =
    Response { error: None, total_ms: 14.0, exec_ms: 9.0, queue_ms: 1.0, queue_len: 2, cold: false };

fn golden() -> GoldenContext {
    contexts().remove(1)
}

/// The context at the n-th of a row of instants, a tenth of a millisecond apart.
fn at(golden: &GoldenContext, n: u64) -> DecisionContext<'_> {
    let context = golden.context();
    DecisionContext { decided_at: context.decided_at.plus_millis(n as f64 / 10.0), ..context }
}

/// A draft with heads of the usual size.
fn draft(golden: &GoldenContext) -> BundleDraft {
    let context = golden.context();
    let features = DecisionFeatures::new(&context);
    let rows: Vec<_> = (0..3).map(|position| FeatureVector::extract(&features, position).into_array()).collect();
    let table = golden.service_table.clone().expect("the golden context has a table");
    shardwise_workload::draft(&rows, table)
}

/// Bytes and calls that ten thousand rounds allocate, after a thousand that may.
fn allocated(mut round: impl FnMut(u64)) -> (u64, u64) {
    (0..WARM_UP).for_each(&mut round);
    let allocations = measure(|| (WARM_UP..WARM_UP + CALLS).for_each(&mut round));
    (allocations.bytes_total, allocations.count_total)
}

fn with_model(draft: &BundleDraft) -> Placer {
    Placer::with_model(Arc::new(draft.bundle().expect("a sound draft")))
}

fn allocated_by(placer: &Placer) -> (u64, u64) {
    let golden = golden();
    allocated(|n| {
        let context = at(&golden, n);
        let prediction = placer.predict_optimal_shard(&context).expect("a healthy shard");
        let chosen = golden.fleet.position(&prediction.recommended_shard).expect("a shard of the fleet");
        let ticket = golden.router.on_dispatch(&context, chosen);
        golden.router.on_response(&ticket, &RESPONSE, context.decided_at.plus_millis(10.0));
    })
}

fn log(candidate_share: f64) -> DecisionLog {
    let (router, router_region) = ("router-1".into(), "us-east".into());
    DecisionLog::new(LogConfig { capacity: 256, router, router_region, candidate_share })
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocated(|n| drop(black_box(Box::new(n)))), (CALLS * 8, CALLS));
}

#[test]
fn decisions_with_a_model_allocate_nothing() {
    assert_eq!(allocated_by(&with_model(&draft(&golden()))), (0, 0));
}

#[test]
fn decisions_with_a_service_table_alone_allocate_nothing() {
    let table_alone = BundleDraft { exec: None, cold: None, wait: None, ..draft(&golden()) };
    assert_eq!(allocated_by(&with_model(&table_alone)), (0, 0));
}

#[test]
fn decisions_without_a_model_allocate_nothing() {
    assert_eq!(allocated_by(&Placer::without_model()), (0, 0));
}

#[test]
fn learning_from_dispatch_and_response_allocates_nothing() {
    let golden = golden();
    let round = |n: u64| {
        let context = at(&golden, n);
        let ticket = golden.router.on_dispatch(&context, (n % 3) as usize);
        golden.router.on_response(&ticket, &RESPONSE, context.decided_at);
    };
    assert_eq!(allocated(round), (0, 0));
}

#[test]
fn logging_and_draining_allocate_nothing_at_any_candidate_share() {
    let mut golden = golden();
    golden.request.residency = Some("us-east".into());
    golden.request.market = Some(golden.market);
    for share in [0.0, 0.1, 1.0] {
        let log = log(share);
        let mut drained = 0;
        let round = |n: u64| {
            record(&log, &at(&golden, n), n);
            // Every so often, so that records wait and are recycled many at a time.
            if n.is_multiple_of(50) {
                log.drain(usize::MAX, |_| drained += 1);
            }
        };
        assert_eq!(allocated(round), (0, 0), "share {share}");
        assert!(drained >= 2 * (WARM_UP + CALLS - 50) && log.dropped() == 0, "{drained} drained");
    }
}

#[test]
fn a_full_log_allocates_nothing() {
    let (golden, log) = (golden(), log(0.1));
    assert_eq!(allocated(|n| record(&log, &at(&golden, n), n)), (0, 0));
    assert_eq!(log.dropped(), 2 * (WARM_UP + CALLS) - 256);
}

/// The worker allocates: it is not what decides.
#[test]
fn observing_for_a_challenger_allocates_nothing_whether_there_is_room_or_not() {
    let golden = golden();
    for capacity in [1_u64, 2 * (WARM_UP + CALLS)] {
        let shadow = Shadow::new(ShadowConfig {
            capacity: usize::try_from(capacity).expect("few"),
            share: 1.0,
            placer: PlacerConfig::default(),
        });
        shadow.replace(Arc::new(draft(&golden).bundle().expect("a sound draft")));
        // Every record is filled once, so that its buffers have grown.
        (0..capacity).for_each(|n| observe(&shadow, &at(&golden, n), n));
        assert_eq!(shadow.score(usize::MAX, |_| ()) as u64, capacity);
        assert_eq!(allocated(|n| observe(&shadow, &at(&golden, n), n)), (0, 0), "room for {capacity}");
        assert_eq!(shadow.dropped(), (WARM_UP + CALLS).saturating_sub(capacity));
    }
}

fn observe(shadow: &Shadow, context: &DecisionContext<'_>, n: u64) {
    shadow.observe(&logged(context, &decision(n), n));
}

fn decision(n: u64) -> Decision {
    Decision::by_rule((n % 3) as usize, 1.0, 3)
}

fn logged<'a>(context: &'a DecisionContext<'a>, decision: &'a Decision, n: u64) -> LoggedDecision<'a> {
    LoggedDecision {
        decision_id: n,
        sequence: n,
        context,
        decision,
        policy: "shardwise",
        model_version: Some("0123456789abcdef"),
        candidates: &[0, 1, 2],
    }
}

fn record(log: &DecisionLog, context: &DecisionContext<'_>, n: u64) {
    log.record(&logged(context, &decision(n), n));
    let (event_at, known_at) = (context.decided_at, context.decided_at.plus_millis(10.0));
    log.record_outcome(&LoggedOutcome { decision_id: n, sequence: n, event_at, known_at, response: &RESPONSE });
}
