//! Reports of shards out of Prometheus: a real one where there is one, and answers that go wrong.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use shardwise_types::Timestamp;

use crate::http::{Answer, get, serve};
use crate::support::{json, refused, skipped, text};

const MAPPING: &str = r#"
[[fleet]]
shard = "worker-a"
region = "eu"
cores = 4
clock_ghz = 3.2
memory_mb = 16384

[[fleet]]
shard = "worker-b"
region = "eu"
cores = 2
clock_ghz = 2.8
memory_mb = 8192

[[tables]]
fills = "shard_reports"

[tables.prometheus]
shard_label = "shard"
step_s = 1

[tables.fields]
cpu = { query = "shard_cpu_percent", unit = "percent" }
memory = "shard_memory_share"
queue_len = { query = "shard_queue", round = true }
running = { constant = 1 }
error_rate = { constant = 0 }
mean_latency_ms = { query = "shard_latency_seconds", unit = "s" }
"#;

const METRICS: &str = "shard_cpu_percent{shard=\"worker-a\"} 25\nshard_cpu_percent{shard=\"worker-b\"} 80\n\
    shard_memory_share{shard=\"worker-a\"} 0.5\nshard_memory_share{shard=\"worker-b\"} 1.5\n\
    shard_queue{shard=\"worker-a\"} 2.4\nshard_queue{shard=\"worker-b\"} 7\n\
    shard_latency_seconds{shard=\"worker-a\"} 0.0125\nshard_latency_seconds{shard=\"worker-b\"} 0.02\n";

/// The binary that the environment names, or that is on the path.
fn prometheus() -> Option<PathBuf> {
    let named = std::env::var_os("SHARDWISE_PROMETHEUS").map(PathBuf::from);
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = || std::env::split_paths(&paths).map(|folder| folder.join("prometheus")).find(|path| path.is_file());
    named.or_else(found)
}

/// Ends its process when the test does, however it does.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "Prometheus keeps what it scrapes at the time of the clock")]
fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    Timestamp::from_nanos(since.as_nanos() as i64)
}

fn arguments<'a>(map: &'a Path, server: &'a str, out: &'a Path, since: &'a str, until: &'a str) -> Vec<&'a str> {
    let (map, out) = (text(map), text(out));
    vec![
        "history",
        "import",
        "--from",
        "prometheus",
        "--map",
        map,
        "--input",
        server,
        "--out",
        out,
        "--since",
        since,
        "--until",
        until,
        "--max-refused",
        "0.6",
    ]
}

#[test]
fn a_real_prometheus_gives_the_reports() {
    let Some(binary) = prometheus() else {
        skipped("no prometheus on PATH, and SHARDWISE_PROMETHEUS names none");
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let metrics = serve(|_| Answer::Reply(200, METRICS.to_owned()));
    let config = folder.path().join("prometheus.yml");
    let scrape = format!(
        "global:\n  scrape_interval: 1s\nscrape_configs:\n  - job_name: shards\n    static_configs:\n      - targets: ['127.0.0.1:{metrics}']\n"
    );
    std::fs::write(&config, scrape).expect("writable");
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let started = Command::new(&binary)
        .arg(format!("--config.file={}", text(&config)))
        .arg(format!("--storage.tsdb.path={}", text(&folder.path().join("data"))))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _running = Running(started.unwrap_or_else(|error| panic!("{}: {error}", binary.display())));
    let address = format!("127.0.0.1:{port}");
    let has_samples = || {
        let answer = get(&address, "/api/v1/query?query=count_over_time(shard_queue[1m])").unwrap_or_default();
        answer.contains("\"3\"") || answer.contains("\"4\"") || answer.contains("\"5\"")
    };
    let mut waited = 0;
    while !has_samples() {
        thread::sleep(Duration::from_millis(250));
        waited += 1;
        assert!(waited < 240, "Prometheus has no samples after a minute");
    }

    // Four hours of seconds: more points than one answer may hold.
    let until = now();
    let (since, until) = (until.plus_millis(-4.0 * 3.6e6).to_string(), until.to_string());
    let whole = get(&address, &format!("/api/v1/query_range?query=shard_queue&start={since}&end={until}&step=1"));
    assert!(whole.expect("an answer").contains("11,000"), "the range must be too long for one query");
    let (map, out) = (folder.path().join("mapping.toml"), folder.path().join("history"));
    std::fs::write(&map, MAPPING).expect("writable");
    let server = format!("http://127.0.0.1:{port}");
    let result = json(&arguments(&map, &server, &out, &since, &until));
    let rows = result["rows"].as_u64().expect("a number");
    assert!(rows >= 2, "{result}");
    // A share of memory of 1.5 is no share, so the other shard's rows are refused: as many.
    assert_eq!((&result["table"], &result["refused"]), (&"shard_reports".into(), &rows.into()), "{result}");
    assert_eq!(result["reasons"]["memory is not allowed"], rows);

    let (_, stored) = crate::tables::rows(&crate::tables::read(&out.join("shard_reports")));
    let (names, _) = crate::tables::rows(&crate::tables::read(&out.join("shard_reports")));
    assert_eq!(stored.len() as u64, rows);
    let column = |name: &str| names.iter().position(|known| known == name).expect("a column");
    for row in stored {
        assert_eq!(row[column("shard")], "worker-a");
        assert_eq!((&row[column("cpu")], &row[column("memory")]), (&0.25.into(), &0.5.into()));
        assert_eq!((&row[column("queue_len")], &row[column("mean_latency_ms")]), (&2.into(), &12.5.into()));
        assert_eq!((&row[column("cores")], &row[column("region")]), (&4.0.into(), &"eu".into()));
    }

    let broken = MAPPING.replace("\"shard_memory_share\"", "\"sum by (shard\"");
    std::fs::write(&map, broken).expect("writable");
    let said = refused(&arguments(&map, &server, &folder.path().join("none"), &since, &until));
    assert!(said.contains("refused 'sum by (shard' (400)") && said.contains("parse error"), "{said}");
}

#[test]
fn what_a_server_does_wrong_is_told_in_words() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (map, out) = (folder.path().join("mapping.toml"), folder.path().join("history"));
    std::fs::write(&map, MAPPING).expect("writable");
    let (since, until) = ("2026-01-05T12:00:00Z", "2026-01-05T13:00:00Z");
    let matrix = |result: &str| {
        format!("{{\"status\":\"success\",\"data\":{{\"resultType\":\"matrix\",\"result\":[{result}]}}}}")
    };
    let one = |labels: &str| format!("{{\"metric\":{{{labels}}},\"values\":[[1767614400,\"1\"]]}}");
    let twice = format!("{0},{0}", one("\"shard\":\"worker-a\""));
    let asked_too_much =
        "{\"status\":\"error\",\"errorType\":\"execution\",\"error\":\"query processing would load too many samples\"}";
    for (status, body, words) in [
        (404, "<html>nothing here</html>".to_owned(), &["answered 404", "is it a Prometheus?"][..]),
        (422, asked_too_much.to_owned(), &["422", "too many samples"]),
        (200, matrix(&one("\"pod\":\"worker-a\"")), &["without the label 'shard'", "pod"]),
        (200, matrix(&twice), &["several series of shard 'worker-a'", "sum by (shard)"]),
        (200, matrix(""), &["has nothing for 'shard_cpu_percent'"]),
    ] {
        let port = serve(move |_| Answer::Reply(status, body.clone()));
        let said = refused(&arguments(&map, &format!("http://127.0.0.1:{port}"), &out, since, until));
        words.iter().for_each(|word| assert!(said.contains(word), "'{word}' is not in: {said}"));
        assert!(said.contains("127.0.0.1"), "{said}");
    }
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    for (server, word) in [
        (format!("http://127.0.0.1:{closed}"), "is Prometheus running there?"),
        ("https://localhost:9090".to_owned(), "TLS"),
        ("localhost:9090".to_owned(), "http://host:port"),
    ] {
        let said = refused(&arguments(&map, &server, &out, since, until));
        assert!(said.contains(word), "'{word}' is not in: {said}");
    }
    let said = refused(&arguments(&map, "http://localhost:9090", &out, until, since));
    assert!(said.contains("begins before it ends"), "{said}");
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).expect("readable").map(|entry| entry.expect("one").file_name()).collect();
    assert_eq!(left, ["mapping.toml"]);
}
