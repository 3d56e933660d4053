//! Drives a load test against a running server, open loop: each request leaves when it was meant to, however long those
//! before it take, and its latency counts from then on.
//!
//! It is the one place of this crate that reads a clock. It speaks plain HTTP, and sums nothing up.

use std::net::{TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use shardwise_simulator::{Arrival, LoadSample};
use shardwise_types::ShardId;

/// Where servers take requests.
const PATH: &str = "/v1/predict-optimal-shard";
/// How often a sleeping worker looks whether the user has had enough.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How requests are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HttpOptions {
    /// Requests on their way at once; more wait in the driver, which shows as lateness and in their latency.
    pub concurrency: usize,
    /// A request that takes longer has failed, in ms.
    pub timeout_ms: f64,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self { concurrency: 64, timeout_ms: 3_000.0 }
    }
}

/// Why a server could not be driven.
#[derive(Debug, thiserror::Error)]
pub enum LoadDriverError {
    /// The address is none.
    #[error("target '{0}' is no address of a server; write it as http://host:port")]
    Address(String),
    /// Nobody answers there.
    #[error("target '{target}' cannot be reached: {problem}; check that the server runs and listens there")]
    Unreachable {
        /// The address.
        target: String,
        /// What the system says.
        problem: std::io::Error,
    },
    /// There is nothing to send.
    #[error("0 events are no load test; ask for at least one")]
    NoEvents,
    /// The user stopped it.
    #[error("interrupted; nothing was measured")]
    Interrupted,
}

/// What a server answers; it may say more.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    recommended_shard: ShardId,
}

/// A request and the moment, since the first one, at which it is to leave.
struct Planned {
    after: Duration,
    body: String,
}

/// Sends the requests of all arrivals to the server at `target` (`http://host:port`), each at its time; one sample per
/// arrival, in their order. Setting `interrupted` ends it within a tenth of a second and the requests under way.
///
/// # Errors
/// When the address is none, nobody answers there, there is nothing to send, or it was interrupted.
pub fn drive_http(
    target: &str,
    arrivals: &[Arrival],
    options: &HttpOptions,
    interrupted: &AtomicBool,
) -> Result<Vec<LoadSample>, LoadDriverError> {
    let plan = plan(arrivals)?;
    let timeout = Duration::from_secs_f64(options.timeout_ms / 1e3);
    reach(target, timeout)?;
    let client = Client::new(target, timeout, options.concurrency, now());
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Relaxed);
            let Some(planned) =
                plan.get(index).filter(|planned| sleep_until(client.start + planned.after, interrupted))
            else {
                return done;
            };
            done.push((index, client.send(planned)));
        }
    };
    let mut samples: Vec<(usize, LoadSample)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..options.concurrency.clamp(1, plan.len())).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("sending does not panic")).collect()
    });
    if interrupted.load(Relaxed) {
        return Err(LoadDriverError::Interrupted);
    }
    samples.sort_by_key(|(index, _)| *index);
    Ok(samples.into_iter().map(|(_, sample)| sample).collect())
}

/// Requests are written before the first one leaves, so that writing takes no time from sending.
fn plan(arrivals: &[Arrival]) -> Result<Vec<Planned>, LoadDriverError> {
    let first = arrivals.first().ok_or(LoadDriverError::NoEvents)?.at;
    let planned = |arrival: &Arrival| Planned {
        after: Duration::from_secs_f64(arrival.at.millis_since(first).max(0.0) / 1e3),
        body: serde_json::to_string(&arrival.request).expect("a request has nothing that JSON lacks"),
    };
    Ok(arrivals.iter().map(planned).collect())
}

/// Fails when nobody listens at the address, before anything is measured.
fn reach(target: &str, timeout: Duration) -> Result<(), LoadDriverError> {
    let no_address = || LoadDriverError::Address(target.to_owned());
    let unreachable = |problem| LoadDriverError::Unreachable { target: target.to_owned(), problem };
    let authority = target.strip_prefix("http://").ok_or_else(no_address)?.trim_end_matches('/');
    if authority.contains('/') || !authority.contains(':') {
        return Err(no_address());
    }
    let address = authority.to_socket_addrs().map_err(unreachable)?.next().ok_or_else(no_address)?;
    TcpStream::connect_timeout(&address, timeout).map(drop).map_err(unreachable)
}

/// Whether the time has come; `false` when the user has had enough before.
fn sleep_until(due: Instant, interrupted: &AtomicBool) -> bool {
    loop {
        let left = due.saturating_duration_since(now());
        if interrupted.load(Relaxed) || left.is_zero() {
            return !interrupted.load(Relaxed);
        }
        thread::sleep(left.min(LOOK_EVERY));
    }
}

struct Client {
    agent: ureq::Agent,
    url: String,
    start: Instant,
}

impl Client {
    fn new(target: &str, timeout: Duration, concurrency: usize, start: Instant) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_idle_connections(concurrency)
            .max_idle_connections_per_host(concurrency)
            // What is measured is the server, not what the environment puts in between.
            .proxy(None)
            .timeout_global(Some(timeout))
            .build();
        Self { agent: config.new_agent(), url: format!("{}{PATH}", target.trim_end_matches('/')), start }
    }

    fn send(&self, planned: &Planned) -> LoadSample {
        let intended = self.start + planned.after;
        let late_ms = millis_since(intended);
        let answer = self.ask(&planned.body);
        let latency_ms = millis_since(intended);
        let (shard, failure) = match answer {
            Ok(shard) => (Some(shard), None),
            Err(failure) => (None, Some(failure)),
        };
        LoadSample { intended_ms: planned.after.as_secs_f64() * 1e3, late_ms, latency_ms, shard, failure }
    }

    /// The shard that the server names, or why it named none.
    fn ask(&self, body: &str) -> Result<ShardId, String> {
        let request = self.agent.post(&self.url).content_type("application/json");
        let mut response = request.send(body).map_err(|error| reason(&error))?;
        let text = response.body_mut().read_to_string().map_err(|error| reason(&error))?;
        if !response.status().is_success() {
            return Err(format!("http {}", response.status().as_u16()));
        }
        let answer: Answer = serde_json::from_str(&text).map_err(|_| "no shard in the answer".to_owned())?;
        Ok(answer.recommended_shard)
    }
}

fn reason(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(_) => "timeout",
        ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => "timeout",
        ureq::Error::Io(_) | ureq::Error::ConnectionFailed => "connection lost",
        _ => "no valid http",
    }
    .to_owned()
}

/// Milliseconds that have passed since; 0 before.
fn millis_since(earlier: Instant) -> f64 {
    now().saturating_duration_since(earlier).as_secs_f64() * 1e3
}

#[expect(clippy::disallowed_methods, reason = "a driver of real servers sends at real times and measures them")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;
    use std::sync::Arc;

    use shardwise_simulator::{FleetOptions, LoadParameters, LoadScenario, WorldSpec, generate_load, load_arrivals};
    use shardwise_types::PlacementRequest;

    use super::*;

    /// Answers request number `n` with the status that `status(n)` gives; keeps connections open; stops with the test.
    fn serve(status: impl Fn(usize) -> u16 + Send + Sync + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (status, served) = (Arc::new(status), Arc::new(AtomicUsize::new(0)));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (status, served) = (Arc::clone(&status), Arc::clone(&served));
                thread::spawn(move || while answer(&stream, &served, &*status).is_some() {});
            }
        });
        address
    }

    /// Reads one request and answers it; `None` when the client has gone.
    fn answer(stream: &TcpStream, served: &AtomicUsize, status: &dyn Fn(usize) -> u16) -> Option<()> {
        let mut reader = BufReader::new(stream);
        let mut length = 0;
        let mut line = String::new();
        while reader.read_line(&mut line).ok()? > 2 {
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            line.clear();
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok().filter(|()| length > 0)?;
        let request =
            PlacementRequest::from_json(std::str::from_utf8(&body).ok()?).expect("a request that is accepted");
        let text = format!("{{\"recommendedShard\":\"shard-of-{}\"}}", request.protocol);
        let status = status(served.fetch_add(1, Relaxed));
        let head = format!(
            "HTTP/1.1 {status} Status\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            text.len()
        );
        let mut stream = stream;
        stream.write_all((head + &text).as_bytes()).ok()
    }

    fn arrivals(events: usize, events_per_s: f64) -> Vec<Arrival> {
        let world = WorldSpec::generate(1, &FleetOptions::default());
        let scenario = LoadScenario::ArbitrageSurge;
        let parameters = LoadParameters::sized(scenario, events, events_per_s);
        let events = generate_load(scenario, &parameters, "2026-01-05T12:00:00Z".parse().unwrap(), 11).unwrap();
        load_arrivals(&world, &events, 11).unwrap()
    }

    fn drive(target: &str, arrivals: &[Arrival], concurrency: usize) -> Result<Vec<LoadSample>, LoadDriverError> {
        let options = HttpOptions { concurrency, timeout_ms: 2_000.0 };
        drive_http(target, arrivals, &options, &AtomicBool::new(false))
    }

    #[test]
    fn a_stall_shows_in_everything_that_waited_behind_it() {
        let stalling = || {
            serve(|request| {
                thread::sleep(Duration::from_millis(if request == 20 { 300 } else { 0 }));
                200
            })
        };
        let arrivals = arrivals(100, 200.0);
        let samples = drive(&stalling(), &arrivals, 1).unwrap();
        let stalled = samples[20].intended_ms;
        let behind = |sample: &&LoadSample| (stalled..stalled + 250.0).contains(&sample.intended_ms);
        for sample in samples.iter().filter(behind) {
            let left_ms = stalled + 300.0 - sample.intended_ms;
            assert!(
                sample.failure.is_none() && sample.latency_ms >= left_ms,
                "{sample:?}: {left_ms} ms of the stall left"
            );
        }
        let waited = samples.iter().filter(|sample| sample.late_ms > 50.0).count();
        assert!(samples.iter().filter(behind).count() > 10 && waited > 10, "{waited} waited");
        let parallel = drive(&stalling(), &arrivals, 16).unwrap();
        let slow = parallel.iter().filter(|sample| sample.latency_ms > 250.0).count();
        assert_eq!(slow, 1, "with room for others only the stalled request is slow");
    }

    #[test]
    fn refusals_of_the_server_are_failures_and_answers_name_the_shard() {
        let target = serve(|request| if request.is_multiple_of(4) { 500 } else { 200 });
        let samples = drive(&target, &arrivals(40, 2_000.0), 4).unwrap();
        let failed: Vec<_> = samples.iter().filter_map(|sample| sample.failure.as_deref()).collect();
        assert_eq!(failed, ["http 500"; 10]);
        let named = samples.iter().filter_map(|sample| sample.shard.as_ref()).map(ShardId::as_str);
        assert_eq!(named.filter(|shard| *shard == "shard-of-arbitrage").count(), 30);
    }

    #[test]
    fn a_server_that_is_not_there_is_said_at_once() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let arrivals = arrivals(10, 1.0);
        let error = |target: &str| drive(target, &arrivals, 1).unwrap_err().to_string();
        assert!(error(&format!("http://{free}")).contains("cannot be reached"));
        for target in ["127.0.0.1:80", "https://127.0.0.1:80", "http://localhost", "http://a:1/path"] {
            assert!(error(target).contains("http://host:port"), "{target}: {}", error(target));
        }
        assert!(drive("http://127.0.0.1:1", &[], 1).unwrap_err().to_string().contains("0 events"));
    }
}
