//! A router: decide, log, dispatch, learn. The shard's answer is made up, and what is logged is printed.
//!
//! `cargo run --release -p shardwise-inference --example router`

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use shardwise_features::{DecisionContext, RouterState};
use shardwise_inference::{DecisionLog, LogConfig, LoggedDecision, LoggedOutcome, Placement, Placer};
use shardwise_models::{CHAMPION, Registry};
use shardwise_policies::{Observed, Rules, eligible};
use shardwise_types::{FleetSnapshot, MarketSnapshot, PlacementRequest, Response};

fn main() -> Result<(), Box<dyn Error>> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |name: &str| std::fs::read_to_string(home.join("data").join(name));

    // Once: a placer with the champion, what the router sees, and a log.
    let placer = match Registry::open(&home.join("models"), "default").and_then(|models| models.load(CHAMPION)) {
        Ok(bundle) => Placer::with_model(Arc::new(bundle)),
        Err(refusal) => {
            println!("without a model, because {refusal}");
            Placer::without_model()
        }
    };
    let fleet = FleetSnapshot::from_json(&read("sample-fleet.json")?)?;
    let (router, market) = (RouterState::new(), MarketSnapshot::default());
    let region = fleet.router_region.clone();
    let log = DecisionLog::new(LogConfig {
        capacity: 4096,
        router: "router-1".into(),
        router_region: region,
        candidate_share: 0.02,
    });

    // For each request: decide …
    let request = PlacementRequest::from_json(&read("sample-request.json")?)?;
    let decided_at = request.event_at.plus_millis(1.0);
    let table = shardwise_policies::Policy::service_table(&placer);
    let context = DecisionContext {
        request: &request,
        decided_at,
        fleet: &fleet,
        router: &router,
        market: &market,
        service_table: table.as_deref(),
    };
    let Placement { prediction, decision } = placer.place(&context)?;
    println!("{} in {:.1} ms", prediction.recommended_shard, prediction.expected_latency);
    prediction.reasoning().iter().for_each(|reason| println!("  {reason}"));

    // … log, before the dispatch changes what was decided on …
    let mut candidates = Vec::new();
    eligible(&context, &Rules::default(), &mut candidates)?;
    log.record(&LoggedDecision {
        decision_id: 1,
        sequence: 1,
        context: &context,
        decision: &decision,
        policy: "shardwise",
        model_version: prediction.model_version.as_deref(),
        candidates: &candidates,
    });

    // … send it off, and learn from what comes back.
    let mut ticket = router.on_dispatch(&context, decision.chosen);
    ticket.forecast = decision.forecast;
    let response = Response { error: None, total_ms: 41.0, exec_ms: 23.0, queue_ms: 2.0, queue_len: 1, cold: false };
    let known_at = decided_at.plus_millis(f64::from(response.total_ms));
    router.on_response(&ticket, &response, known_at);
    let shard = &prediction.recommended_shard;
    placer.learn(&Observed { request: &request, shard, ticket: &ticket, response: &response, known_at });
    let event_at = known_at.plus_millis(-8.0);
    log.record_outcome(&LoggedOutcome { decision_id: 1, sequence: 2, event_at, known_at, response: &response });

    // Now and then, on another thread: write what was logged.
    log.drain(usize::MAX, |record| println!("{record:?}"));
    Ok(())
}
