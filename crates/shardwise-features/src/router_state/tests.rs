//! Claims about a router's memory.

use super::*;
use crate::golden;
use shardwise_types::ErrorClass;

const OK: Response = Response { error: None, total_ms: 12.0, exec_ms: 10.0, queue_ms: 1.0, queue_len: 3, cold: false };

fn after(responses: &[Response]) -> (RouterState, ShardId, Timestamp) {
    let golden = golden::contexts().remove(0);
    let (state, context) = (RouterState::new(), golden.context());
    let id = context.fleet.shards[0].id.clone();
    for response in responses {
        let context = DecisionContext { router: &state, ..context };
        let ticket = state.on_dispatch(&context, 0);
        state.on_response(&ticket, response, context.decided_at);
    }
    let now = context.decided_at;
    (state, id, now)
}

#[test]
fn what_was_sent_is_in_flight_until_it_comes_back() {
    let golden = golden::contexts().remove(0);
    let (state, context) = (RouterState::new(), golden.context());
    let context = DecisionContext { router: &state, ..context };
    let tickets: Vec<_> = (0..3).map(|_| state.on_dispatch(&context, 0)).collect();
    let id = &context.fleet.shards[0].id;
    assert_eq!(state.shard(id, context.decided_at).in_flight, 3.0);
    assert!(state.shard(id, context.decided_at).pending_ms > 0.0);
    tickets.iter().for_each(|ticket| state.on_response(ticket, &OK, context.decided_at));
    let local = state.shard(id, context.decided_at);
    assert_eq!((local.in_flight, local.in_flight_cores, local.pending_ms), (0.0, 0.0, 0.0));
}

#[test]
fn five_errors_in_a_row_eject_and_the_next_five_for_twice_as_long() {
    let failed = Response { error: Some(ErrorClass::Failed), ..OK };
    let (state, id, now) = after(&[failed; 5]);
    assert_eq!(state.breaker(&id, now.plus_millis(999.0)), BreakerState::Open);
    assert_eq!(state.breaker(&id, now.plus_millis(1001.0)), BreakerState::Closed);
    let (state, id, now) = after(&[failed; 10]);
    assert_eq!(state.breaker(&id, now.plus_millis(1999.0)), BreakerState::Open);
    let (state, id, now) = after(&[failed, failed, failed, failed, OK, failed]);
    assert_eq!(state.breaker(&id, now), BreakerState::Closed);
}

#[test]
fn repeated_times_are_learned() {
    let (state, id, now) = after(&[OK; 200]);
    let golden = golden::contexts().remove(0);
    let expected = state.online_service_ln_ms(golden.context().request, &id).unwrap();
    assert!((expected.exp() - 10.0).abs() < 0.1, "{}", expected.exp());
    assert!((state.shard(&id, now).residual).abs() < 0.01);
}

#[test]
fn one_failure_by_chance_exiles_no_shard_and_many_are_forgotten_in_time() {
    let failed = Response { error: Some(ErrorClass::Failed), ..OK };
    let (state, id, now) = after(&[failed]);
    assert!(state.shard(&id, now).error_rate < 0.01);
    let (state, id, now) = after(&[failed, OK, failed, failed, OK, failed, failed, OK, failed, failed]);
    assert!(state.shard(&id, now).error_rate > 0.05);
    assert!(state.shard(&id, now.plus_millis(30_000.0)).error_rate < 0.005);
}

#[test]
fn how_long_requests_are_out_is_known() {
    let golden = golden::contexts().remove(0);
    let (state, context) = (RouterState::new(), golden.context());
    let context = DecisionContext { router: &state, ..context };
    let later = DecisionContext { decided_at: context.decided_at.plus_millis(30.0), ..context };
    let first = state.on_dispatch(&context, 0);
    state.on_dispatch(&later, 0);
    let (id, now) = (&context.fleet.shards[0].id, context.decided_at.plus_millis(50.0));
    let age_ms = || state.shard(id, now).in_flight_age_ms(now);
    assert_eq!(age_ms(), Some(35.0), "50 and 20");
    state.on_response(&first, &OK, now);
    assert_eq!(age_ms(), Some(20.0));
    assert_eq!(state.dispatches_since(context.request, id), Some(1.0));
}

#[test]
fn a_restored_router_is_the_same_router() {
    let (state, ..) = after(&[OK, Response { error: Some(ErrorClass::Timeout), ..OK }, OK]);
    assert_eq!(RouterState::restore(&state.save()).unwrap().save(), state.save());
}
