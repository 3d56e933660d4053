//! Comparisons on real shards in this process, with routers that place by rule.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use shardwise_server::shard::{Envelope, RunningShard, ShardOptions};
use shardwise_server::{Access, Limits, ServeConfig, serve};
use shardwise_simulator::{FleetOptions, LoadParameters, LoadScenario, WorldSpec, generate_load, load_arrivals};

use super::*;

/// What a router was told, in its order.
type Log = Arc<Mutex<Vec<(String, Value)>>>;

fn shard(id: &str, speed: f64, faults: &[&str]) -> RunningShard {
    let faults = faults.iter().map(|fault| fault.parse().unwrap()).collect();
    let options = ShardOptions { id: id.into(), speed, faults, ..ShardOptions::default() };
    RunningShard::start(&options, |_: &Envelope| ()).unwrap()
}

/// A router that sends everything to the shards at these addresses in turns.
fn router(shards: &[(&str, &str)]) -> (String, Log) {
    let shards: Vec<(String, String)> = shards.iter().map(|(id, at)| ((*id).to_owned(), (*at).to_owned())).collect();
    let (log, next) = (Log::default(), AtomicUsize::new(0));
    let told = Arc::clone(&log);
    let address = stub::serve(move |path, body| match path {
        "/v1/fleet" => {
            let listed: Vec<Value> = shards.iter().map(|(id, at)| json!({ "id": id, "address": at })).collect();
            (200, json!({ "shards": listed }).to_string())
        }
        "/v1/predict-optimal-shard" => {
            let number = next.fetch_add(1, Relaxed);
            let (shard, _) = &shards[number % shards.len()];
            let answer = json!({ "recommendedShard": shard, "decisionId": number.to_string() });
            told.lock().unwrap().push((path.to_owned(), serde_json::from_str(body).unwrap()));
            (200, answer.to_string())
        }
        _ => {
            told.lock().unwrap().push((path.to_owned(), serde_json::from_str(body).unwrap()));
            (204, String::new())
        }
    });
    (address, log)
}

fn arm(name: &str, router: &str) -> Arm {
    format!("{name}={router}").parse().unwrap()
}

fn arrivals(events: usize, events_per_s: f64) -> Vec<Arrival> {
    let world = WorldSpec::generate(1, &FleetOptions::default());
    let scenario = LoadScenario::ArbitrageSurge;
    let parameters = LoadParameters::sized(scenario, events, events_per_s);
    let events = generate_load(scenario, &parameters, "2026-01-05T12:00:00Z".parse().unwrap(), 11).unwrap();
    let mut arrivals = load_arrivals(&world, &events, 11).unwrap();
    arrivals.iter_mut().for_each(|arrival| arrival.request.residency = None);
    arrivals
}

/// Blocks of a second, the first tenth of which is not measured.
fn options() -> LiveOptions {
    LiveOptions { block_ms: 1_000.0, settle_ms: 100.0, ..LiveOptions::default() }
}

fn of<'a>(log: &'a [(String, Value)], path: &str) -> Vec<&'a Value> {
    log.iter().filter(|(at, _)| at == path).map(|(_, body)| body).collect()
}

#[test]
fn every_decision_is_dispatched_and_its_outcome_told_once() {
    let (fast, failing) = (shard("shard-a", 0.5, &[]), shard("shard-b", 0.5, &["failing=0.5"]));
    let (address, log) = router(&[("shard-a", fast.address()), ("shard-b", failing.address())]);
    let arrivals = arrivals(100, 50.0);
    let (comparison, samples) =
        drive_live(&[arm("only", &address)], &arrivals, &options(), &AtomicBool::new(false)).unwrap();
    let log = log.lock().unwrap();
    let (decisions, outcomes) = (of(&log, "/v1/predict-optimal-shard"), of(&log, "/v1/outcomes"));
    assert_eq!((samples.len(), decisions.len(), outcomes.len()), (100, 100, 100));
    let mut told: Vec<usize> =
        outcomes.iter().map(|outcome| outcome["decisionId"].as_str().unwrap().parse().unwrap()).collect();
    told.sort_unstable();
    assert!(told.into_iter().eq(0..100), "each decision once");
    for outcome in &outcomes {
        let number = |field: &str| outcome[field].as_f64().unwrap();
        assert!(number("totalMs") >= number("execMs") + number("queueMs"), "{outcome}");
        let failed = outcome["error"] == "failed";
        assert!(failed || (outcome["error"].is_null() && number("execMs") > 0.0), "{outcome}");
        assert!(outcome["eventAt"].is_string() && outcome["cold"].is_boolean() && outcome["queueLen"].is_u64());
    }
    let failed = outcomes.iter().filter(|outcome| outcome["error"] == "failed").count();
    assert!((5..45).contains(&failed), "{failed} of 50 at one half");
    let result = &comparison.arms[0];
    assert!(result.failures["failed"] <= failed as u64 && result.outcomes_lost == 0);
    assert!(result.latency.p99 >= 3_000.0, "a failure is as slow as the timeout");
    assert!(samples.iter().all(|sample| sample.told == Some(true)));
}

#[test]
fn blocks_are_balanced_and_arms_get_the_same_requests() {
    let (address, log) = router(&[("shard-a", "http://127.0.0.1:1")]);
    let (other, other_log) = router(&[("shard-a", "http://127.0.0.1:1")]);
    let arms = [arm("one", &address), arm("two", &other)];
    let arrivals = arrivals(120, 40.0);
    let plan = blocks::plan(&arms, &arrivals, &options()).unwrap();
    let mut blocks: BTreeMap<(u64, usize, usize), usize> = BTreeMap::new();
    for event in &plan {
        *blocks.entry((event.after.as_secs(), event.round, event.arm)).or_default() += 1;
    }
    assert_eq!(blocks.len(), 6, "three rounds of two, none of which overlap: {blocks:?}");
    for round in 0..3 {
        let sizes: Vec<_> = blocks.iter().filter(|((_, of, _), _)| *of == round).map(|(_, events)| *events).collect();
        assert!(sizes.len() == 2 && sizes[0] == sizes[1], "{blocks:?}");
    }
    assert!(plan.windows(2).all(|pair| pair[0].after <= pair[1].after), "in the order of time");
    let settled = |event: &blocks::PlannedEvent<'_>| event.after.subsec_millis() >= 100;
    assert!(plan.iter().all(|event| event.measured == settled(event)) && plan.iter().any(|event| !event.measured));
    let orders = |seed| -> Vec<usize> {
        let options = LiveOptions { seed, ..options() };
        blocks::plan(&arms, &arrivals, &options).unwrap().iter().map(|event| event.arm).collect()
    };
    assert!(orders(1) == orders(1) && (2..12).any(|seed| orders(seed) != orders(1)));
    drive_live(&arms, &arrivals, &options(), &AtomicBool::new(false)).unwrap();
    let functions = |log: &Log| -> Vec<String> {
        let log = log.lock().unwrap();
        let requests = of(&log, "/v1/predict-optimal-shard");
        let mut names: Vec<_> = requests.iter().map(|request| request["function"].to_string()).collect();
        names.sort();
        names
    };
    assert_eq!(functions(&log), functions(&other_log));
}

#[test]
fn the_faster_shard_is_seen_to_be_faster() {
    // Everything on one arm takes ten times as long.
    let (fast, slow) = (shard("shard-a", 0.5, &[]), shard("shard-b", 0.05, &[]));
    let (quick, _) = router(&[("shard-a", fast.address())]);
    let (lazy, _) = router(&[("shard-b", slow.address())]);
    let arms = [arm("lazy", &lazy), arm("quick", &quick)];
    let (comparison, _) = drive_live(&arms, &arrivals(120, 30.0), &options(), &AtomicBool::new(false)).unwrap();
    assert_eq!((comparison.baseline.as_str(), comparison.rounds), ("lazy", 4));
    let [lazy, quick] = &comparison.arms[..] else { panic!("two arms") };
    assert!(lazy.ratios.is_empty() && quick.exec_ms < 0.5 * lazy.exec_ms, "{comparison:?}");
    let mean = &quick.ratios[0];
    assert!(mean.metric == "mean" && mean.ratio < 0.8 && mean.bounds.is_some(), "{mean:?}");
    assert!(quick.shards.keys().map(ShardId::as_str).eq(["shard-a"]) && quick.requests == lazy.requests);
}

#[test]
fn shards_that_are_gone_or_silent_are_failures_that_the_router_hears_of() {
    let silent = shard("shard-b", 0.5, &["black-hole"]);
    let (address, log) = router(&[("shard-a", "http://127.0.0.1:1"), ("shard-b", silent.address())]);
    let http = HttpOptions { timeout_ms: 400.0, ..options().http };
    let options = LiveOptions { http, ..options() };
    let (comparison, _) =
        drive_live(&[arm("only", &address)], &arrivals(30, 30.0), &options, &AtomicBool::new(false)).unwrap();
    let failures = &comparison.arms[0].failures;
    assert!(failures["timeout"] > 0 && failures["connection lost"] > 0, "{failures:?}");
    assert_eq!(failures.values().sum::<u64>(), comparison.arms[0].requests);
    let log = log.lock().unwrap();
    let outcomes = of(&log, "/v1/outcomes");
    let told = |error: &str| outcomes.iter().filter(|outcome| outcome["error"] == error).count();
    assert_eq!((outcomes.len(), told("timeout"), told("failed")), (30, 15, 15));
}

#[test]
fn what_cannot_be_compared_is_said_before_anything_is_sent() {
    let (address, log) = router(&[]);
    let arrivals = arrivals(10, 10.0);
    let refused = |arms: &[Arm], options: &LiveOptions| {
        drive_live(arms, &arrivals, options, &AtomicBool::new(false)).unwrap_err().to_string()
    };
    let both = [arm("one", &address), arm("one", &address)];
    let one = &both[..1];
    assert!(refused(&[], &options()).contains("0 targets"));
    assert!(refused(&both, &options()).contains("two targets are named 'one'"));
    assert!(refused(one, &LiveOptions { block_ms: 10.0, ..options() }).contains("blocks of 10 ms"));
    assert!(refused(one, &LiveOptions { settle_ms: 1e4, ..options() }).contains("settle"));
    let baseline = Some("none".to_owned());
    assert!(refused(one, &LiveOptions { baseline, ..options() }).contains("there are one"));
    assert!(refused(one, &options()).contains("none of its shards has an address"));
    assert!("no-address".parse::<Arm>().unwrap_err().to_string().contains("name=http://host:port"));
    assert!(log.lock().unwrap().is_empty());
}

#[test]
fn a_router_that_asks_for_a_token_is_given_it() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "open sesame").unwrap();
    let config = ServeConfig {
        listen: "127.0.0.1:0".to_owned(),
        fleet: Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/sample-fleet.json"),
        data: folder.path().join("data"),
        limits: Limits { shed_above_ms: 1e5, ..Limits::default() },
        access: Access { token_file: Some(token.clone()), ..Access::default() },
        ..ServeConfig::default()
    };
    // It lives as long as the process, as the flag of a signal does.
    let stop: &'static AtomicBool = Box::leak(Box::default());
    let (sender, started) = std::sync::mpsc::channel();
    let server = thread::spawn(move || serve(config, stop, |started| sender.send(started.listen.clone()).unwrap()));
    let target = format!("http://{}", started.recv().unwrap());
    let drive = |access: AccessFiles| {
        let options = HttpOptions { access, ..HttpOptions::default() };
        super::drive_http(&target, &arrivals(5, 100.0), &options, &AtomicBool::new(false))
    };
    let failures =
        |samples: Vec<LoadSample>| samples.into_iter().filter_map(|sample| sample.failure).collect::<Vec<_>>();
    let with = drive(AccessFiles { token_file: Some(token), ca_file: None }).unwrap();
    assert_eq!(failures(with), Vec::<String>::new());
    let without = failures(drive(AccessFiles::default()).unwrap());
    assert!(!without.is_empty() && without.iter().all(|failure| failure == "http 401"), "{without:?}");
    let nowhere = AccessFiles { token_file: Some(folder.path().join("none")), ca_file: None };
    assert!(drive(nowhere).unwrap_err().to_string().contains("cannot be read"));
    let without_trust = super::drive_http(
        &target.replace("http:", "https:"),
        &arrivals(5, 100.0),
        &HttpOptions::default(),
        &AtomicBool::new(false),
    );
    assert!(without_trust.unwrap_err().to_string().contains("--ca-file"));
    stop.store(true, Relaxed);
    assert_eq!(server.join().unwrap().unwrap().refused, 0);
}
