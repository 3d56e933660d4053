//! A whole day in the life of a router to which nobody speaks but its clients.

use serde_json::json;
use shardwise_types::{DecidedBy, PlacementRequest};

use super::*;
use crate::live::{Outcome, Said, Settled};

const DAY_S: u64 = 86_400;

fn request(n: u64) -> PlacementRequest {
    let request = json!({
        "function": format!("arbitrage-function-{:03}", n % 50), "type": "PriceUpdated", "protocol": "arbitrage",
        "riskLevel": "low", "eventAt": "2026-01-05T12:00:00Z",
    });
    serde_json::from_value(request).unwrap()
}

fn outcome(decision_id: &str, n: u64) -> Outcome {
    let exec_ms = 10 + n % 7;
    let outcome = json!({ "decisionId": decision_id, "totalMs": exec_ms + 20, "execMs": exec_ms, "queueLen": n % 3 });
    serde_json::from_value(outcome).unwrap()
}

#[test]
fn what_changes_the_view_without_a_report_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let config = ServeConfig {
        fleet: Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/sample-fleet.json"),
        data: folder.path().join("data"),
        ..ServeConfig::default()
    };
    let Made { app, .. } = make(Box::new(SystemDisk), config).unwrap();
    let live = &app.live;
    let shard = live.view.snapshot().shards[0].clone();
    let half = shardwise_monitor::Capacity { cores: shard.shape.cores / 2.0, memory_mb: shard.shape.memory_mb };
    live.limit([(shard.id.clone(), half)].into());
    let told = live.directives.take().unwrap();
    assert_eq!((told.resized.shards, told.resized.cores), (vec![shard.id.clone()], vec![half.cores]));
    live.limit([(shard.id.clone(), half)].into());
    assert!(live.directives.take().is_none(), "nothing has changed");
    live.limit(Default::default());
    assert_eq!(live.directives.take().unwrap().resized.cores, [shard.shape.cores]);
    assert_eq!(live.let_go(&Vec::new), []);
    assert!(live.directives.take().is_none());
    live.let_go(&|| vec![shard.id.clone()]);
    let told = live.directives.take().unwrap();
    assert_eq!((told.gone, told.router.as_str()), (vec![shard.id], app.config.router.as_str()));
}

#[test]
fn a_day_without_registry_and_reports_has_no_decision_that_failed() {
    let folder = tempfile::tempdir().unwrap();
    let config = ServeConfig {
        models: Some(folder.path().join("nowhere")),
        watch_s: 0.02,
        fleet: Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/sample-fleet.json"),
        data: folder.path().join("data"),
        ..ServeConfig::default()
    };
    let Made { app, placer, .. } = make(Box::new(SystemDisk), config).unwrap();
    let _watchers = follow(&app, placer).unwrap();
    let live = &app.live;
    for second in 0..DAY_S {
        let answer = live.place(request(second)).unwrap_or_else(|refusal| panic!("second {second}: {refusal}"));
        let Said::Prediction(said) = &answer.said else { panic!("the placer says all that it knows") };
        assert!(said.model_version.is_none() && !said.reasoning().is_empty());
        live.clock.advance(40.0);
        assert_eq!(live.settle(&outcome(&answer.decision_id, second)).unwrap(), Settled::Taken);
        live.clock.advance(960.0);
        live.pending.give_up(live.clock.now().plus_millis(-app.config.outcome_wait_ms));
        assert_eq!(live.view.tick(live.clock.now()), [], "nobody vanishes because the bus is silent");
        live.log.drain(usize::MAX, |_| ());
    }
    let decisions = live.figures.decisions();
    let by = |who: &[DecidedBy]| -> u64 {
        decisions.iter().filter(|(decider, _, _)| who.contains(decider)).map(|(_, _, count)| count).sum()
    };
    assert_eq!((by(&DecidedBy::ALL), live.figures.refused()), (DAY_S, 0));
    // What the router measured itself decides, but for the first requests and what guards and draws changed.
    assert!(by(&[DecidedBy::OnlineEstimates]) > DAY_S * 8 / 10, "{decisions:?}");
    assert_eq!(by(&[DecidedBy::Model, DecidedBy::ServiceTable, DecidedBy::Policy]), 0, "{decisions:?}");
    let status = live.view.status(live.clock.now());
    assert!(status.silent && status.shards.iter().all(|shard| shard.stale), "{status:?}");
    let aged = status.shards.iter().map(|shard| shard.age_ms.unwrap()).fold(f64::INFINITY, f64::min);
    assert!(aged >= 0.99 * 1e3 * DAY_S as f64, "the reports are a day old: {aged} ms");
    while app.models.failures() == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(app.models.serving().is_none() && live.log.dropped() == 0);
}
