//! The shard as its clients see it.

use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use serde_json::{Value, json};
use shardwise_client::Access;

use super::*;

/// A shard whose work takes a while without much of the processor: a quarter of a millisecond holds a core for 5 ms.
fn options() -> ShardOptions {
    ShardOptions { speed: 0.05, report_every_ms: 50, ..ShardOptions::default() }
}

fn start(options: &ShardOptions) -> RunningShard {
    RunningShard::start(options, |_: &Envelope| ()).unwrap()
}

fn body(function: &str, complexity: f64) -> Value {
    json!({
        "function": function, "type": "PriceUpdated", "protocol": "aave", "dataComplexity": complexity, "eventAt": 0,
        "decisionId": "17",
    })
}

/// Status and body of an answer.
fn post(shard: &RunningShard, body: &str) -> (u16, Value) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut answer = agent.post(format!("{}/v1/execute", shard.address())).send(body).unwrap();
    let text = answer.body_mut().read_to_string().unwrap();
    (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

fn get(shard: &RunningShard, path: &str) -> (u16, Value) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut answer = agent.get(format!("{}{path}", shard.address())).call().unwrap();
    (answer.status().as_u16(), serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap())
}

fn execute(shard: &RunningShard, function: &str, complexity: f64) -> Value {
    let (status, answer) = post(shard, &body(function, complexity).to_string());
    assert_eq!(status, 200, "{answer}");
    answer
}

/// Functions of the kind, the smallest first.
fn functions(kind: FunctionKind) -> Vec<String> {
    let steps = |name: &String| FunctionBody::of(&name.as_str().into()).steps;
    let names = (0..2_000).map(|n| format!("function-{n}"));
    let mut names: Vec<String> = names.filter(|name| FunctionBody::of(&name.as_str().into()).kind == kind).collect();
    names.sort_by(|a, b| steps(a).total_cmp(&steps(b)));
    names
}

fn small(kind: FunctionKind) -> String {
    functions(kind).swap_remove(0)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn median_exec_ms(shard: &RunningShard, function: &str, complexity: f64) -> f64 {
    execute(shard, function, complexity);
    median((0..9).map(|_| execute(shard, function, complexity)["exec_ms"].as_f64().unwrap()).collect())
}

#[test]
fn results_are_the_same_on_every_shard() {
    let slow = start(&options());
    let shape = shardwise_types::ShardShape { hardware: shardwise_types::HardwareClass::Burstable, ..options().shape };
    let fast = start(&ShardOptions { speed: 0.5, shape, ..options() });
    for kind in FunctionKind::ALL {
        let name = small(kind);
        let [a, b] = [&slow, &fast].map(|shard| execute(shard, &name, 1.5)["result"].clone());
        assert!(a.is_u64() && a == b, "{name}: {a} and {b}");
        assert_ne!(a, execute(&slow, &name, 2.5)["result"], "{name}: another input");
    }
}

#[test]
fn time_follows_complexity_speed_and_hardware() {
    let (slow, fast) = (start(&options()), start(&ShardOptions { speed: 0.2, ..options() }));
    let name = small(FunctionKind::Pricing);
    let (usual, fourfold) = (median_exec_ms(&slow, &name, 1.0), median_exec_ms(&slow, &name, 40.0));
    assert!(fourfold > 2.0 * usual, "{usual} ms, {fourfold} ms at forty times the complexity");
    let on_fast = median_exec_ms(&fast, &name, 1.0);
    assert!(usual > 1.8 * on_fast, "{usual} ms where a shard four times as fast takes {on_fast} ms");
    let memory = shardwise_types::ShardShape { hardware: shardwise_types::HardwareClass::Burstable, ..options().shape };
    let burstable = median_exec_ms(&start(&ShardOptions { shape: memory, ..options() }), &name, 1.0);
    assert!(burstable > 1.2 * usual, "{burstable} ms on a burstable machine, {usual} ms on a general one");
}

#[test]
fn a_function_is_loaded_once_and_again_when_it_was_not_used() {
    let shard = start(&ShardOptions { warm_ttl_ms: 3_000.0, ..options() });
    let names = &functions(FunctionKind::Hashing)[..9];
    let ask = |cold: bool| {
        let execution = |name: &String| {
            let answer = execute(&shard, name, 1.0);
            assert_eq!(answer["cold"], cold, "{name}: {answer}");
            answer["exec_ms"].as_f64().unwrap()
        };
        median(names.iter().map(execution).collect())
    };
    let (cold_ms, warm_ms) = (ask(true), ask(false));
    assert!(cold_ms > 1.5 * warm_ms, "{cold_ms} ms cold, {warm_ms} ms warm");
    assert!(shard.report().memory > 0.0);
    thread::sleep(Duration::from_millis(3_500));
    assert_eq!(shard.report().memory, 0.0);
    ask(true);
}

#[test]
fn one_core_takes_requests_in_their_order_and_refuses_beyond_its_queue() {
    let shape = shardwise_types::ShardShape { cores: 1.0, ..options().shape };
    // Nothing begins until the stall is over, so that all are in the queue by then.
    let faults = vec!["stall@0..1500".parse().unwrap()];
    let shard = start(&ShardOptions { shape, faults, queue_capacity: 4, speed: 0.005, ..options() });
    let name = small(FunctionKind::Hashing);
    let order = Mutex::new(Vec::new());
    let statuses: Vec<u16> = thread::scope(|scope| {
        let ask = |number: usize| {
            let (status, answer) = post(&shard, &body(&name, 1.0 + number as f64).to_string());
            if status == 200 {
                order.lock().unwrap().push((answer["queue_ms"].as_f64().unwrap(), number));
            }
            status
        };
        let clients: Vec<_> = (0..7)
            .map(|number| {
                thread::sleep(Duration::from_millis(60));
                scope.spawn(move || ask(number))
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    // One is on the core, four wait.
    assert_eq!(statuses, [200, 200, 200, 200, 200, 503, 503]);
    let order: Vec<usize> = order.into_inner().unwrap().into_iter().map(|(_, number)| number).collect();
    assert_eq!(order, [0, 1, 2, 3, 4]);
}

#[test]
fn what_cannot_be_read_or_may_not_run_is_refused_with_the_reason() {
    let shape = shardwise_types::ShardShape { max_amount_usd: Some(1e6), ..options().shape };
    let shard = start(&ShardOptions { shape, ..options() });
    let with = |field: &str, value: Value| {
        let mut body = body("f", 1.0);
        body[field] = value;
        body.to_string()
    };
    for (text, status, reason) in [
        (String::new(), 400, "body"),
        ("{".to_owned(), 400, "body"),
        ("[1]".to_owned(), 400, "object"),
        ("\u{0}\u{1}".to_owned(), 400, "body"),
        ("[".repeat(10_000), 400, "recursion"),
        (with("function", json!("")), 400, "function"),
        (with("dataComplexity", json!(-1)), 400, "dataComplexity"),
        (with("dataComplexity", json!(1e9)), 400, "at most 100"),
        (with("exchangeCalls", json!(4_000_000)), 400, "exchangeCalls"),
        (with("timeoutMs", json!("soon")), 400, "timeoutMs"),
        (with("decisionId", json!([1])), 400, "decisionId"),
        (with("surprise", json!(1)), 400, "surprise"),
        (with("amountUsd", json!(2e6)), 422, "amountUsd"),
        (with("residency", json!("eu-central")), 422, "residency"),
        (with("memoryMb", json!(1e6)), 422, "memoryMb"),
        (with("function", json!("x".repeat(100_000))), 413, "limit"),
    ] {
        let (found, answer) = post(&shard, &text);
        assert_eq!(found, status, "{text:.60}: {answer}");
        assert!(answer["problem"].as_str().is_some_and(|problem| problem.contains(reason)), "{text:.60}: {answer}");
    }
    execute(&shard, "f", 1.0);
}

#[test]
fn nothing_that_was_taken_is_lost_when_it_stops() {
    let shape = shardwise_types::ShardShape { cores: 1.0, ..options().shape };
    let faults = vec!["stall@0..60000".parse().unwrap()];
    let shard = start(&ShardOptions { shape, faults, rtt_ms: 20.0, ..options() });
    let name = small(FunctionKind::Hashing);
    let address = shard.address().to_owned();
    let statuses: Vec<u16> = thread::scope(|scope| {
        let send = || ureq::post(format!("{address}/v1/execute")).send(body(&name, 1.0).to_string());
        let clients: Vec<_> = (0..6).map(|_| scope.spawn(send)).collect();
        while shard.report().queue_len < 5 {
            thread::sleep(Duration::from_millis(5));
        }
        shard.stop();
        clients.into_iter().map(|client| client.join().unwrap().unwrap().status().as_u16()).collect()
    });
    assert_eq!(statuses, [200; 6]);
    assert!(ureq::get(format!("{address}/health/live")).call().is_err(), "it has ended");
}

#[test]
fn while_it_drains_it_refuses_and_says_that_it_is_not_ready() {
    let shard = start(&options());
    assert_eq!(get(&shard, "/health/ready").0, 200);
    shard.workers.drain();
    let (status, answer) = post(&shard, &body("f", 1.0).to_string());
    assert!(status == 503 && answer["problem"].as_str().unwrap().contains("shutting down"), "{answer}");
    assert_eq!((get(&shard, "/health/ready").0, get(&shard, "/health/live").0), (503, 200));
    assert!(!shard.report().healthy);
}

#[test]
fn faults_do_what_they_say() {
    let faulty = |fault: &str| start(&ShardOptions { faults: vec![fault.parse().unwrap()], ..options() });
    let failing = faulty("failing=0.5");
    let name = small(FunctionKind::Hashing);
    let fails = |shard: &RunningShard| -> Vec<bool> {
        let ask = |_| post(shard, &body(&name, 1.0).to_string());
        (0..30).map(ask).map(|(status, answer)| status == 500 && answer["error"] == "failed").collect()
    };
    let failed = fails(&failing);
    let count = failed.iter().filter(|failed| **failed).count();
    assert!((5..=25).contains(&count), "{count} of 30 at one half");
    assert_eq!(failed, fails(&faulty("failing=0.5")), "the same seed fails the same ones");
    let slow = median_exec_ms(&faulty("slow=4"), &name, 1.0);
    let usual = median_exec_ms(&start(&options()), &name, 1.0);
    assert!(slow > 2.0 * usual, "{slow} ms four times as slow as {usual} ms");
    let nonsense = faulty("nonsense").report();
    assert!(nonsense.cpu == -1.0 && nonsense.error_rate > 1.0);
    let sick = faulty("unhealthy");
    assert!(!sick.report().healthy && get(&sick, "/health/ready").0 == 503);
    execute(&sick, &name, 1.0);
}

#[test]
fn a_black_hole_answers_nothing_and_still_ends() {
    let shard = start(&ShardOptions { faults: vec!["black-hole".parse().unwrap()], ..options() });
    let agent: ureq::Agent =
        ureq::Agent::config_builder().timeout_global(Some(Duration::from_millis(300))).build().into();
    let url = format!("{}/v1/execute", shard.address());
    assert!(matches!(agent.post(&url).send(body("f", 1.0).to_string()), Err(ureq::Error::Timeout(_))));
    assert!(shard.report().healthy, "it looks well");
    let held = thread::spawn(move || post_status(&url));
    thread::sleep(Duration::from_millis(100));
    shard.stop();
    assert_eq!(held.join().unwrap(), 503);
}

fn post_status(url: &str) -> u16 {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    agent.post(url).send(body("f", 1.0).to_string()).unwrap().status().as_u16()
}

#[test]
fn what_waited_too_long_is_dropped_and_never_runs() {
    let shard = start(&ShardOptions { faults: vec!["stall@0..600".parse().unwrap()], ..options() });
    let mut late = body("f", 1.0);
    late["timeoutMs"] = json!(100);
    let (status, answer) = post(&shard, &late.to_string());
    assert_eq!((status, &answer["error"], &answer["exec_ms"]), (504, &json!("dropped"), &json!(0.0)), "{answer}");
    assert!(answer["queue_ms"].as_f64().unwrap() > 100.0 && answer["result"].is_null());
}

#[test]
fn answers_travel_as_far_as_the_shard_and_the_exchange_are() {
    let exchange_rtt_ms = std::collections::BTreeMap::from([("kraken".to_owned(), 60.0)]);
    let shard = start(&ShardOptions { rtt_ms: 50.0, exchange_rtt_ms, ..options() });
    let mut request = body(&small(FunctionKind::Hashing), 1.0);
    (request["exchange"], request["exchangeCalls"]) = (json!("kraken"), json!(2));
    let start = clock::now();
    let (_, answer) = post(&shard, &request.to_string());
    let away_ms = clock::millis(start.elapsed()) - answer["exec_ms"].as_f64().unwrap();
    assert!(away_ms >= 170.0, "{away_ms} ms away, on the road for 170");
    let shard_ms = answer["exec_ms"].as_f64().unwrap() + answer["queue_ms"].as_f64().unwrap();
    assert!(shard_ms < 170.0, "the road is no part of {shard_ms} ms on the shard");
}

#[test]
fn reports_come_in_order_and_hold_what_happened_between_them() {
    let (send, reports) = mpsc::channel();
    let publish = move |report: &Envelope| {
        let _ = send.send(report.clone());
    };
    let shard = RunningShard::start(&options(), publish).unwrap();
    let name = small(FunctionKind::Matrix);
    for _ in 0..20 {
        execute(&shard, &name, 4.0);
    }
    let address = shard.address().to_owned();
    shard.stop();
    let reports: Vec<Envelope> = reports.into_iter().collect();
    assert!(reports.iter().map(|report| report.sequence).eq(0..reports.len() as u64));
    assert!(
        reports.iter().all(|report| report.boot_id == reports[0].boot_id && report.address.as_ref() == Some(&address))
    );
    assert!(reports.iter().any(|report| report.report.cpu > 0.1 && report.report.mean_latency_ms > 0.0));
    let (last, others) = reports.split_last().unwrap();
    assert!(!last.report.healthy && others[0].report.healthy);
    let json = serde_json::to_value(&reports[0]).unwrap();
    for field in ["shard", "shape", "address", "bootId", "sequence", "standing", "system", "functions", "report"] {
        assert!(json.get(field).is_some(), "{field}: {json}");
    }
}

#[test]
fn a_look_takes_nothing_from_what_is_published() {
    let shard = start(&ShardOptions { report_every_ms: 3_600_000, ..options() });
    let name = small(FunctionKind::Hashing);
    execute(&shard, &name, 1.0);
    let (first, second) = (shard.report(), get(&shard, "/v1/report").1);
    assert!(first.mean_latency_ms > 0.0);
    let seen = second["report"]["meanLatencyMs"].as_f64().unwrap();
    assert!((seen / f64::from(first.mean_latency_ms) - 1.0).abs() < 1e-5);
    assert_eq!((second["shard"].as_str(), second["shape"]["cores"].as_f64()), (Some("shard-general"), Some(2.0)));
}

#[test]
fn reports_are_posted_to_routers_and_a_dead_one_is_no_harm() {
    let received = Arc::new(AtomicU64::new(0));
    let (listener, count) = (TcpListener::bind("127.0.0.1:0").unwrap(), Arc::clone(&received));
    let router = format!("http://{}", listener.local_addr().unwrap());
    let dead = format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let take = move |body: axum::Json<Envelope>| async move {
        count.fetch_max(body.sequence, Relaxed);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_io().build().unwrap();
    listener.set_nonblocking(true).unwrap();
    runtime.spawn(async move {
        let routes = axum::Router::new().route("/v1/reports", axum::routing::post(take));
        axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), routes).await
    });
    let _shard = RunningShard::start(&options(), HttpPublisher::new(&[dead, router], Access::default())).unwrap();
    let deadline = clock::now() + Duration::from_secs(20);
    while received.load(Relaxed) < 3 {
        assert!(clock::now() < deadline, "{} reports arrived", received.load(Relaxed));
        thread::sleep(Duration::from_millis(10));
    }
    runtime.shutdown_background();
}

#[test]
fn an_address_that_is_taken_is_said() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap();
    let error = RunningShard::start(&ShardOptions { listen, ..options() }, |_: &Envelope| ()).err().unwrap();
    assert!(error.to_string().contains("cannot listen at"), "{error}");
}
