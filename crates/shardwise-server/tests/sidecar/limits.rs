//! What is refused, and that it is refused in words.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use serde_json::json;
use shardwise_server::{Limits, ServeConfig};

use crate::support::{Sidecar, config, request};

fn with(limits: Limits, folder: &tempfile::TempDir) -> Sidecar {
    let limits = Limits { shed_above_ms: 1e5, ..limits };
    Sidecar::start(ServeConfig { limits, ..config(folder) })
}

/// Sends bytes as they are and reads until the other side closes or is silent for a while.
fn raw(sidecar: &Sidecar, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(&sidecar.started.listen).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(read) = stream.read(&mut buffer) {
        answer.extend_from_slice(&buffer[..read]);
        if read == 0 || answer.ends_with(b"}") {
            break;
        }
    }
    String::from_utf8(answer).unwrap()
}

#[test]
fn what_is_wrong_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = with(Limits { body_bytes: 2_000, batch: 2, ..Limits::default() }, &folder);
    let json = "application/json";
    let place = "/v1/predict-optimal-shard";
    let long = format!("{{\"function\":\"{}\"}}", "x".repeat(3_000));
    let three = json!({ "requests": [{}, {}, {}] }).to_string();
    let strange = request().to_string().replace("\"low\"", "\"none\"");
    let outcome = |field: &str, value: &str| format!("{{\"decisionId\":\"1\",\"totalMs\":1,\"{field}\":{value}}}");
    for (path, kind, text, status, told) in [
        (place, json, "", 400, "EOF"),
        (place, json, "{", 400, "EOF"),
        (place, json, "[]", 400, "struct"),
        (place, json, "{}", 400, "function"),
        (place, json, &strange, 400, "low, medium, high, critical"),
        (place, "text/plain", "{}", 415, "application/json"),
        (place, json, &long, 413, "2000 bytes"),
        ("/v1/predict-optimal-shard/batch", json, &three, 413, "the 2 of a batch"),
        ("/v1/outcomes", json, "{\"decisionId\":\"x\",\"totalMs\":1}", 400, "decisionId"),
        ("/v1/outcomes", json, "{\"decisionId\":\"1\"}", 400, "totalMs"),
        ("/v1/outcomes", json, "[{\"decisionId\":\"1\",\"totalMs\":-1}]", 400, "outcome 0"),
        ("/v1/outcomes", json, &outcome("error", "\"bored\""), 400, "timeout"),
        ("/v1/outcomes", json, &outcome("execMs", "1e99"), 400, "range"),
        ("/v1/reports", json, "{}", 400, "shard"),
        ("/v1/reports", json, "{\"shard\":\"a\",\"schemaVersion\":9}", 400, "only 1"),
        ("/v1/market", json, "{\"instrument\":\"\",\"priceUsd\":1}", 400, "instrument"),
        ("/v1/nothing", json, "{}", 404, "/v1/nothing"),
        ("/v1/fleet", json, "{}", 405, "POST"),
    ] {
        let (answered, problem) = sidecar.post_text(path, kind, text);
        assert_eq!(answered, status, "{path} {text}: {problem}");
        assert_eq!(problem["status"], status, "{problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(told), "{path} {text}: {detail}");
    }
    assert_eq!(sidecar.get("/v1/decisions?limit=many").0, 400);
    assert_eq!(sidecar.get("/v2/models/other").0, 404);
    assert_eq!(sidecar.json("/v1/status")["decisions"], json!([]), "nothing was decided");
    assert_eq!(sidecar.get("/v2/health/ready").0, 200, "and it goes on");
}

#[test]
fn slow_and_broken_clients_are_let_go() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = with(Limits { head_ms: 200, body_ms: 200, ..Limits::default() }, &folder);
    let slow_body = raw(
        &sidecar,
        b"POST /v1/predict-optimal-shard HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{",
    );
    assert!(slow_body.starts_with("HTTP/1.1 408") && slow_body.contains("200 ms"), "{slow_body}");
    let slow_head = raw(&sidecar, b"POST /v1/predict-optimal-shard HTTP/1.1\r\nhost:");
    assert!(slow_head.is_empty() || slow_head.starts_with("HTTP/1.1 408"), "{slow_head}");
    let nonsense = raw(&sidecar, b"\x16\x03\x01 what\r\n\r\n");
    assert!(nonsense.is_empty() || nonsense.starts_with("HTTP/1.1 400"), "{nonsense}");
    sidecar.place();
}

#[test]
fn connections_beyond_the_limit_are_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = with(Limits { connections: 2, ..Limits::default() }, &folder);
    let held: Vec<TcpStream> = (0..2).map(|_| TcpStream::connect(&sidecar.started.listen).unwrap()).collect();
    std::thread::sleep(Duration::from_millis(200));
    let refused = raw(&sidecar, b"");
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("too many connections"), "{refused}");
    drop(held);
    std::thread::sleep(Duration::from_millis(200));
    sidecar.place();
    assert_eq!(sidecar.json("/v1/status")["rejected"]["connections"], 1);
}

#[test]
fn more_than_can_be_answered_in_time_is_turned_away_until_it_is_less() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder);
    let limits = Limits { shed_above_ms: 2.0, ..config.limits };
    let sidecar = Sidecar::start(ServeConfig { limits, workers: 1, ..config });
    let batch = json!({ "requests": vec![request(); 256] });
    let is_enough = AtomicBool::new(false);
    let refusals = std::thread::scope(|scope| {
        let clients = [(); 16].map(|()| {
            scope.spawn(|| {
                for _ in 0..1_000 {
                    if is_enough.load(Relaxed) {
                        break;
                    }
                    let (status, told) = sidecar.post("/v1/predict-optimal-shard/batch", &batch);
                    if status == 503 {
                        is_enough.store(true, Relaxed);
                        return Some(told["reason"].clone());
                    }
                }
                None
            })
        });
        clients.into_iter().filter_map(|client| client.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(!refusals.is_empty() && refusals.iter().all(|reason| reason == "overloaded"), "{refusals:?}");
    assert!(sidecar.json("/v1/status")["rejected"]["overload"].as_u64() >= Some(1));
    // A machine that others use, too, may take several tries.
    let is_answered = || sidecar.post("/v1/predict-optimal-shard", &request()).0 == 200;
    assert!((0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        is_answered()
    }));
}

#[test]
fn a_deadline_that_is_over_is_not_answered() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(config(&folder));
    let body = request().to_string();
    let head = |deadline: &str| {
        format!(
            "POST /v1/predict-optimal-shard HTTP/1.1\r\nhost: x\r\nx-deadline-ms: {deadline}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    assert!(raw(&sidecar, head("0").as_bytes()).starts_with("HTTP/1.1 408"));
    assert!(raw(&sidecar, head("soon").as_bytes()).starts_with("HTTP/1.1 400"));
    assert!(raw(&sidecar, head("5000").as_bytes()).starts_with("HTTP/1.1 200"));
}

#[test]
fn decisions_beyond_those_that_are_remembered_are_made_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = with(Limits { pending: 5, ..Limits::default() }, &folder);
    let answers: Vec<_> = (0..8).map(|_| sidecar.place()).collect();
    let status = sidecar.json("/v1/status");
    assert_eq!((&status["waiting"], &status["forgotten"]), (&json!(5), &json!(3)));
    let tallies: Vec<_> = answers.iter().map(|answer| sidecar.settle(answer).1).collect();
    assert_eq!(tallies.iter().filter(|tally| tally["accepted"] == 1).count(), 5);
    assert_eq!(tallies.iter().filter(|tally| tally["late"] == 1).count(), 3, "nothing can be learned of them");
}

#[test]
fn a_request_that_outlasts_the_drain_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = with(Limits { drain_ms: 200, body_ms: 60_000, ..Limits::default() }, &folder);
    let mut stream = TcpStream::connect(&sidecar.started.listen).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let body = request().to_string();
    let head = format!(
        "POST /v1/predict-optimal-shard HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let (sender, stopped) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(sidecar.stop()));
    // Otherwise it would wait for the body, a minute.
    let summary = stopped.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!((summary.decisions, summary.journaled), (0, 0));
    _ = stream.write_all(body.as_bytes());
    let mut answer = Vec::new();
    _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
}
