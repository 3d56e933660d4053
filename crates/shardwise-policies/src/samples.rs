//! Contexts and shorthands for tests of policies.

use rand::{SeedableRng, rngs::StdRng};
use shardwise_features::RouterState;
use shardwise_features::golden::{GoldenContext, contexts};
use shardwise_types::{ErrorClass, Response, ShardId};

use crate::{Observed, Policy};

/// A fleet of shards by name and CPU in use, otherwise alike, and a uniswap request that calls binance; nothing was
/// sent anywhere.
pub(crate) fn named_fleet(shards: &[(&str, f32)]) -> GoldenContext {
    let mut golden = GoldenContext { router: RouterState::new(), ..contexts().remove(1) };
    let template = golden.fleet.shards[1].clone();
    let named = shards.iter().map(|(name, cpu)| {
        let mut shard = template.clone();
        shard.id = ShardId::new(name);
        let report = shard.report.as_mut().unwrap();
        (report.cpu, report.queue_len) = (*cpu, 0);
        // The load is the fullest part of a shard; let it be the CPU.
        report.memory = report.memory.min(*cpu);
        shard
    });
    golden.fleet.shards = named.collect();
    assert!(golden.fleet.shards.is_sorted_by_key(|shard| shard.id.as_str()), "a fleet is in the order of its names");
    golden
}

/// The name of the shard that a policy takes.
pub(crate) fn decide(policy: &mut dyn Policy, golden: &GoldenContext) -> String {
    let decision = policy.decide(&golden.context(), &mut StdRng::seed_from_u64(1)).unwrap();
    golden.fleet.shards[decision.chosen].id.to_string()
}

/// Tells a policy that the shard at a position answered the request, in 10 ms when nothing failed.
pub(crate) fn respond(policy: &mut dyn Policy, golden: &GoldenContext, position: usize, error: Option<ErrorClass>) {
    let ticket = golden.router.on_dispatch(&golden.context(), position);
    let exec_ms = if error.is_none() { 10.0 } else { 0.1 };
    let response = Response { error, total_ms: exec_ms, exec_ms, queue_ms: 0.0, queue_len: 1, cold: false };
    golden.router.on_response(&ticket, &response, golden.decided_at);
    policy.on_response(&Observed {
        request: &golden.request,
        shard: &golden.fleet.shards[position].id,
        ticket: &ticket,
        response: &response,
        known_at: golden.decided_at,
    });
}
