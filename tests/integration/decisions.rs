//! What every decision promises, whoever decides: eligible, explained, independent of the order of the input.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use shardwise_features::RouterState;
use shardwise_features::golden::{GoldenContext, contexts};
use shardwise_inference::Placer;
use shardwise_policies::{NAMES, Policy, Rules, Runtime, by_name, eligible};
use shardwise_types::{
    DecidedBy, ErrorClass, FleetSnapshot, FunctionId, NoEligibleShard, PlacementRequest, Response, UsdAmount,
};

use crate::support::{night, text};

fn all_policies() -> Vec<Box<dyn Policy>> {
    let mut policies: Vec<Box<dyn Policy>> =
        NAMES.iter().map(|name| by_name(name, Runtime::default()).expect("a listed policy")).collect();
    policies.push(Box::new(Placer::without_model()));
    policies.push(Box::new(trained()));
    policies
}

/// The placer with the model of the finished night.
fn trained() -> Placer {
    let models = night().path("work/models");
    let registry = shardwise_models::Registry::open(&models, "default").expect("the night published");
    Placer::with_model(std::sync::Arc::new(registry.load("champion").expect("a verified bundle")))
}

/// Turns a golden context into one of many odd ones.
fn disturb(golden: &mut GoldenContext, rng: &mut StdRng) {
    for shard in &mut golden.fleet.shards {
        if rng.random_bool(0.2) {
            shard.report = None;
        } else if let Some(report) = &mut shard.report {
            report.healthy = rng.random_bool(0.7);
            report.event_at = golden.decided_at.plus_millis(-rng.random_range(0.0..6_000.0));
        }
        shard.shape.max_amount_usd = [None, Some(0.0), Some(1e6)][rng.random_range(0..3)];
    }
    golden.request.amount_usd =
        [None, UsdAmount::new(0.0).ok(), UsdAmount::new(5e6).ok(), UsdAmount::new(1e300).ok()][rng.random_range(0..4)];
    golden.request.residency =
        [None, None, None, None, Some("us-west".into()), Some("atlantis".into())][rng.random_range(0..6)].clone();
    golden.request.memory_mb = [0.0, 128.0, 1e9][rng.random_range(0..9) / 4];
    golden.request.data_complexity = [1.0, f32::MIN_POSITIVE, f32::MAX][rng.random_range(0..3)];
    golden.request.protocol = ["uniswap", "unheard-of"][rng.random_range(0..2)].into();
    for _ in 0..rng.random_range(0..8) {
        let chosen = rng.random_range(0..golden.fleet.shards.len());
        let ticket = golden.router.on_dispatch(&golden.context(), chosen);
        let error = rng.random_bool(0.8).then_some(ErrorClass::Failed);
        let response =
            Response { error, total_ms: 5.0, exec_ms: 4.0, queue_ms: 0.0, queue_len: 9, cold: rng.random_bool(0.3) };
        golden.router.on_response(&ticket, &response, golden.decided_at);
    }
}

#[test]
fn no_policy_leaves_the_eligible_shards() {
    let mut rng = StdRng::seed_from_u64(5);
    let mut policies = all_policies();
    let (mut placed, mut refused) = (0, 0);
    for round in 0..600 {
        let mut golden = contexts().remove(1 + round % 2);
        disturb(&mut golden, &mut rng);
        let mut allowed = Vec::new();
        let verdict = eligible(&golden.context(), &Rules::default(), &mut allowed);
        for policy in &mut policies {
            match policy.decide(&golden.context(), &mut rng) {
                Ok(decision) => {
                    placed += 1;
                    assert!(allowed.contains(&decision.chosen), "{} broke a hard rule", policy.name());
                    assert!(decision.propensity > 0.0 && decision.propensity <= 1.0 + 1e-12, "{}", policy.name());
                    assert_eq!(decision.eligible as usize, allowed.len());
                }
                Err(refusal) => {
                    refused += 1;
                    assert_eq!(Err(refusal), verdict, "{} refused for reasons of its own", policy.name());
                }
            }
        }
    }
    assert!(placed > 1000 && refused > 1000, "{placed} placed, {refused} refused: both must be tried");
}

#[test]
fn an_empty_fleet_is_a_typed_refusal() {
    let mut golden = contexts().remove(1);
    golden.fleet.shards.clear();
    let placer = trained();
    let refusal = placer.predict_optimal_shard(&golden.context()).unwrap_err();
    assert_eq!(placer.counts().refused(), 1);
    assert_eq!(
        refusal,
        NoEligibleShard { shards: 0, unhealthy: 0, stale: 0, forbidden: 0, too_small: 0, may_run_locally: false }
    );
}

#[test]
fn a_decision_says_who_why_and_what_else() {
    let golden = contexts().remove(1);
    let placer = trained();
    let prediction = placer.predict_optimal_shard(&golden.context()).expect("healthy shards");
    assert_eq!(prediction.alternative_shards.len(), 2, "three shards, one chosen");
    assert!(prediction.reasoning().len() >= 2);
    assert!(prediction.model_version.is_some());
    let costs: Vec<f64> = prediction.alternative_shards.iter().map(|other| other.cost.total_ms()).collect();
    assert!(costs.iter().all(|cost| *cost >= prediction.cost.total_ms()), "the cheapest is chosen");
    assert!(costs.is_sorted(), "the next best comes first");
    assert_eq!(placer.counts().decided_by(prediction.decided_by), 1, "and it is counted");
}

#[test]
fn fallbacks_say_why() {
    let golden = contexts().remove(1);
    let placer = Placer::without_model();
    let prediction = placer.predict_optimal_shard(&golden.context()).expect("healthy shards");
    assert_eq!(prediction.fallback_reason, Some(shardwise_types::FallbackReason::NoModel));
    assert_eq!(placer.counts().fallbacks(shardwise_types::FallbackReason::NoModel), 1);
    assert!(
        prediction.reasoning().iter().any(|reason| reason.contains("no model is loaded")),
        "{:?}",
        prediction.reasoning()
    );
}

#[test]
fn a_function_never_seen_goes_where_others_were_fast() {
    let mut golden = contexts().remove(1);
    golden.fleet.network.rtt_ms.fill(0.0);
    golden.request.expected_compute_ms = None;
    let decided_by = |golden: &GoldenContext| {
        let placement = Placer::without_model().place(&golden.context()).expect("a placement");
        (placement.prediction.decided_by, placement.prediction.recommended_shard)
    };
    golden.router = RouterState::new();
    let (by, _) = decided_by(&golden);
    assert!(!matches!(by, DecidedBy::OnlineEstimates | DecidedBy::Model), "nothing was measured: {by:?}");
    let fast = 1;
    for shard in 0..golden.fleet.shards.len() {
        for _ in 0..20 {
            let ticket = golden.router.on_dispatch(&golden.context(), shard);
            let exec_ms = if shard == fast { 5.0 } else { 80.0 };
            let response =
                Response { error: None, total_ms: exec_ms, exec_ms, queue_ms: 0.0, queue_len: 0, cold: false };
            golden.router.on_response(&ticket, &response, golden.decided_at);
        }
    }
    golden.request.function = FunctionId::new("never-seen");
    let expected = golden.fleet.shards[fast].id.clone();
    assert_eq!(decided_by(&golden), (DecidedBy::OnlineEstimates, expected));
}

#[test]
fn the_order_of_the_input_does_not_matter() {
    let night = night();
    let fleet_json = std::fs::read_to_string(night.path("work/decision/fleet.json")).expect("nightly leaves its fleet");
    let mut fleet: serde_json::Value = serde_json::from_str(&fleet_json).expect("JSON");
    fleet["shards"].as_array_mut().expect("shards").reverse();
    let reversed = night.path("reversed.json");
    std::fs::write(&reversed, fleet.to_string()).expect("writable");
    let (models, request) = (night.path("work/models"), night.path("work/decision/request.json"));
    let decide = |fleet: &std::path::Path| {
        crate::support::json(&[
            "predict",
            "--models",
            text(&models),
            "--request",
            text(&request),
            "--fleet",
            text(fleet),
        ])
    };
    assert_eq!(decide(&reversed), decide(&night.path("work/decision/fleet.json")));
}

#[test]
fn threads_share_one_placer() {
    let golden = contexts().remove(1);
    let request: &PlacementRequest = &golden.request;
    let fleet: &FleetSnapshot = &golden.fleet;
    // Draws differ from call to call by design.
    let certain = shardwise_inference::PlacerConfig { exploration: None, ..Default::default() };
    let placer = trained().with_config(certain);
    let alone = placer.predict_optimal_shard(&golden.context()).expect("healthy shards");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let context = shardwise_features::DecisionContext { request, fleet, ..golden.context() };
                    assert_eq!(placer.predict_optimal_shard(&context).as_ref(), Ok(&alone));
                }
            });
        }
    });
}
