//! A router: decide, log, dispatch, learn. One alias of the registry names the model that decides, another one a challenger that
//! only says what it would have done. The shards' answers are made up, and what belongs into the history is printed.
//!
//! `cargo run --release -p shardwise-inference --example router`

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use shardwise_features::{DecisionContext, RouterState};
use shardwise_inference::{
    DecisionLog, LogConfig, LoggedDecision, LoggedOutcome, ModelSlot, Placement, Placer, PlacerConfig, Shadow,
    ShadowConfig, WatchConfig, WatchEvent, Watcher,
};
use shardwise_models::{CHAMPION, Registry};
use shardwise_policies::{Observed, Rules, eligible};
use shardwise_types::{FleetSnapshot, HistoryRecord, MarketSnapshot, PlacementRequest, Response};

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
    // The sample's registry names no challenger, so its champion stands in for one.
    route(&models, CHAMPION, 3, &mut |record| println!("{record:?}"))
}

/// Places some requests. `keep` gets what belongs into the history, on a thread of its own: routers compile no Parquet, but
/// `HistoryWriter::record` of `shardwise-datasets` takes the same records.
pub(crate) fn route(
    models: &Path,
    challenger: &str,
    requests: u64,
    keep: &mut (dyn FnMut(&HistoryRecord) + Send),
) -> Result<(), Box<dyn Error>> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data");
    let read = |name: &str| std::fs::read_to_string(data.join(name));

    // Once: what decides and what looks over its shoulder, each with its model, what the router sees, and a log.
    let placer = Arc::new(Placer::without_model());
    let shadow = ShadowConfig { capacity: 1024, share: 1.0, placer: PlacerConfig::default() };
    let shadow = Arc::new(Shadow::new(shadow));
    let registry = Registry::open(models, "default")?;
    let _watchers = [follow(&placer, &registry, CHAMPION)?, follow(&shadow, &registry, challenger)?];
    let fleet = FleetSnapshot::from_json(&read("sample-fleet.json")?)?;
    let (router, market) = (RouterState::new(), MarketSnapshot::default());
    let log = DecisionLog::new(LogConfig {
        capacity: 4096,
        router: "router-1".into(),
        router_region: fleet.router_region.clone(),
        candidate_share: 0.02,
    });
    let sample = PlacementRequest::from_json(&read("sample-request.json")?)?;
    let mut candidates = Vec::new();

    thread::scope(|scope| {
        let (_until_dropped, over) = channel();
        let (log, shadow) = (&log, &*shadow);
        scope.spawn(move || write(log, shadow, &over, keep));

        for id in 1..=requests {
            // For each request: decide …
            let request =
                PlacementRequest { event_at: sample.event_at.plus_millis(50.0 * id as f64), ..sample.clone() };
            let decided_at = request.event_at.plus_millis(1.0);
            let context = DecisionContext {
                request: &request,
                decided_at,
                fleet: &fleet,
                router: &router,
                market: &market,
                service_table: None,
            };
            let Placement { prediction, decision, service_table } = placer.place(&context)?;
            println!("{} in {:.1} ms", prediction.recommended_shard, prediction.expected_latency);
            prediction.reasoning().iter().for_each(|reason| println!("  {reason}"));

            // … log and shadow, before the dispatch changes what was decided on …
            let context = DecisionContext { service_table: service_table.as_deref(), ..context };
            eligible(&context, &Rules::default(), &mut candidates)?;
            let logged = LoggedDecision {
                decision_id: id,
                sequence: 2 * id,
                context: &context,
                decision: &decision,
                policy: "shardwise",
                model_version: prediction.model_version.as_deref(),
                candidates: &candidates,
            };
            log.record(&logged);
            shadow.observe(&logged);

            // … send it off, and learn from what comes back.
            let mut ticket = router.on_dispatch(&context, decision.chosen);
            ticket.forecast = decision.forecast;
            let response =
                Response { error: None, total_ms: 41.0, exec_ms: 23.0, queue_ms: 2.0, queue_len: 1, cold: false };
            let known_at = decided_at.plus_millis(f64::from(response.total_ms));
            router.on_response(&ticket, &response, known_at);
            let shard = &prediction.recommended_shard;
            placer.learn(&Observed { request: &request, shard, ticket: &ticket, response: &response, known_at });
            let event_at = known_at.plus_millis(-8.0);
            let (decision_id, sequence) = (id, 2 * id + 1);
            log.record_outcome(&LoggedOutcome { decision_id, sequence, event_at, known_at, response: &response });
        }
        Ok(())
    })
}

/// Has a slot follow an alias from now on; returns after the first look, with a model or without.
fn follow(slot: &Arc<impl ModelSlot + 'static>, registry: &Registry, alias: &str) -> Result<Watcher, Box<dyn Error>> {
    let (looked, first_look) = channel();
    let name = alias.to_owned();
    let watcher = Watcher::start(Arc::clone(slot), registry.clone(), WatchConfig::of(alias), move |event| {
        println!("{name}: {event:?}");
        if !matches!(event, WatchEvent::Loading { .. }) {
            // Later looks are waited for by nobody.
            _ = looked.send(());
        }
    })?;
    first_look.recv()?;
    Ok(watcher)
}

/// Now and then, away from the decisions: asks the challenger, and hands on what belongs into the history.
fn write(log: &DecisionLog, shadow: &Shadow, over: &Receiver<()>, keep: &mut (dyn FnMut(&HistoryRecord) + Send)) {
    loop {
        let is_last = over.recv_timeout(Duration::from_millis(100)) != Err(RecvTimeoutError::Timeout);
        log.drain(usize::MAX, &mut *keep);
        shadow.score(usize::MAX, |said| keep(&HistoryRecord::Shadow(Box::new(said))));
        if is_last {
            return;
        }
    }
}
