//! Drives a load test against a running server, open loop: each request leaves when it was meant to, however long those
//! before it take, and its latency counts from then on.
//!
//! [`drive_http`] asks one router and dispatches nothing. [`drive_live`] asks several in turns, sends each request to
//! the shard that was named, and tells the router what became of it. It is the one place of this crate that reads
//! clocks. It speaks HTTP, from threads: each request has one from its moment on, until its outcome is told.

mod blocks;
mod client;
mod compare;
mod fleet;
mod live;
#[cfg(test)]
mod live_tests;
#[cfg(test)]
mod stub;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde::Deserialize;
use shardwise_client::{AccessError, AccessFiles};
use shardwise_simulator::{Arrival, LoadSample, NOT_SENT};
use shardwise_types::{ShardId, Timestamp};

pub use blocks::{Arm, LiveOptions};
pub use compare::{ArmResult, LatencyRatio, LiveComparison, LiveLatency};
pub use live::{LiveSample, ShardExecution, drive_live};

use client::{Connections, PREDICT, reach};

/// How often a sleeping worker looks whether the user has had enough.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How requests are sent.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpOptions {
    /// Requests on their way at once, each on a connection of its own. So many must be more than the server holds up, or else they
    /// are what sets the pace: further ones wait in the driver, which shows as lateness and in their latency.
    pub concurrency: usize,
    /// A request that cannot leave within so many ms of its moment is not sent, and counted. Only when that is short does the driver
    /// keep no queue of its own, which would go on when the server's is long gone.
    pub latest_ms: f64,
    /// A request that takes longer has failed, in ms.
    pub timeout_ms: f64,
    /// What the routers ask of their clients.
    pub access: AccessFiles,
}

impl HttpOptions {
    fn timeout(&self) -> Duration {
        Duration::from_secs_f64(self.timeout_ms / 1e3)
    }
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self { concurrency: 1_024, latest_ms: 3_000.0, timeout_ms: 3_000.0, access: AccessFiles::default() }
    }
}

/// Why a server could not be driven.
#[derive(Debug, thiserror::Error)]
pub enum LoadDriverError {
    /// The address is none.
    #[error("target '{0}' is no address of a server; write it as http://host:port or https://host:port")]
    Address(String),
    /// Nobody answers there.
    #[error("target '{target}' cannot be reached: {problem}; check that the server runs and listens there")]
    Unreachable {
        /// The address.
        target: String,
        /// What the system says.
        problem: std::io::Error,
    },
    /// The token or the authority's certificate cannot be used.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// There is nothing to send.
    #[error("0 events are no load test; ask for at least one")]
    NoEvents,
    /// A comparison cannot be made like this.
    #[error("{0}")]
    Plan(String),
    /// A router does not say where its shards are.
    #[error("router '{router}' does not say where its shards are ({problem}); it must answer GET /v1/fleet")]
    Fleet {
        /// The router's address.
        router: String,
        /// What went wrong.
        problem: String,
    },
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

/// Sends the requests of all arrivals to the server at `target` (`http://host:port`, or `https`), each at its time; one sample per
/// arrival, in their order. Setting `interrupted` ends it within a tenth of a second and the requests under way.
///
/// # Errors
/// When the address is none, nobody answers there, there is nothing to send, the token or the certificate cannot be read, or it
/// was interrupted.
pub fn drive_http(
    target: &str,
    arrivals: &[Arrival],
    options: &HttpOptions,
    interrupted: &AtomicBool,
) -> Result<Vec<LoadSample>, LoadDriverError> {
    let plan = plan(arrivals)?;
    let connections = Connections::new(options)?;
    reach(target, options)?;
    let url = format!("{}{PREDICT}", target.trim_end_matches('/'));
    let start = now();
    let send = |planned: &Planned| {
        let intended = start + planned.after;
        let late_ms = millis_since(intended);
        let answer = match late_ms < options.latest_ms {
            true => ask(&connections, &url, &planned.body),
            false => Err(NOT_SENT.to_owned()),
        };
        let latency_ms = millis_since(intended);
        let (shard, failure) = match answer {
            Ok(shard) => (Some(shard), None),
            Err(failure) => (None, Some(failure)),
        };
        LoadSample { intended_ms: planned.after.as_secs_f64() * 1e3, late_ms, latency_ms, shard, failure }
    };
    send_each(&plan, |planned| start + planned.after, options.concurrency, interrupted, send)
}

/// Calls `send` for each of the planned when it is due, on as many threads; what it gives is in the order of the plan.
fn send_each<P: Sync, T: Send>(
    plan: &[P],
    due: impl Fn(&P) -> Instant + Sync,
    concurrency: usize,
    interrupted: &AtomicBool,
    send: impl Fn(&P) -> T + Sync,
) -> Result<Vec<T>, LoadDriverError> {
    let next = Mutex::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            // One thread waits for the next moment, and the others for their turn: thousands of timers would be a load of their own.
            let mut turn = next.lock().unwrap_or_else(PoisonError::into_inner);
            let index = *turn;
            let Some(planned) = plan.get(index).filter(|planned| sleep_until(due(planned), interrupted)) else {
                return done;
            };
            *turn += 1;
            drop(turn);
            done.push((index, send(planned)));
        }
    };
    let mut sent: Vec<(usize, T)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..concurrency.clamp(1, plan.len())).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("sending does not panic")).collect()
    });
    if interrupted.load(Relaxed) {
        return Err(LoadDriverError::Interrupted);
    }
    sent.sort_by_key(|(index, _)| *index);
    Ok(sent.into_iter().map(|(_, sent)| sent).collect())
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

/// The shard that the server names, or why it named none.
fn ask(connections: &Connections<'_>, url: &str, body: &str) -> Result<ShardId, String> {
    let body = connections.tell(url, body)?.success()?;
    let answer: Answer = serde_json::from_str(&body).map_err(|_| "no shard in the answer".to_owned())?;
    Ok(answer.recommended_shard)
}

/// Milliseconds that have passed since; 0 before.
fn millis_since(earlier: Instant) -> f64 {
    now().saturating_duration_since(earlier).as_secs_f64() * 1e3
}

#[expect(clippy::disallowed_methods, reason = "a driver of real servers sends at real times and measures them")]
fn now() -> Instant {
    Instant::now()
}

/// The wall clock.
#[expect(clippy::disallowed_methods, reason = "a live event happens now")]
fn wall() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_nanos(i64::try_from(since_1970.as_nanos()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::atomic::AtomicUsize;

    use shardwise_simulator::{FleetOptions, LoadParameters, LoadScenario, WorldSpec, generate_load, load_arrivals};
    use shardwise_types::PlacementRequest;

    use super::*;

    /// Answers request number `n` with the status that `status(n)` gives; keeps connections open; stops with the test.
    fn serve(status: impl Fn(usize) -> u16 + Send + Sync + 'static) -> String {
        let served = AtomicUsize::new(0);
        stub::serve(move |_, body| {
            let request = PlacementRequest::from_json(body).expect("a request that is accepted");
            let text = format!("{{\"recommendedShard\":\"shard-of-{}\"}}", request.protocol);
            (status(served.fetch_add(1, Relaxed)), text)
        })
    }

    fn arrivals(events: usize, events_per_s: f64) -> Vec<Arrival> {
        let world = WorldSpec::generate(1, &FleetOptions::default());
        let scenario = LoadScenario::ArbitrageSurge;
        let parameters = LoadParameters::sized(scenario, events, events_per_s);
        let events = generate_load(scenario, &parameters, "2026-01-05T12:00:00Z".parse().unwrap(), 11).unwrap();
        load_arrivals(&world, &events, 11).unwrap()
    }

    fn drive(target: &str, arrivals: &[Arrival], concurrency: usize) -> Result<Vec<LoadSample>, LoadDriverError> {
        let options = HttpOptions { concurrency, timeout_ms: 2_000.0, ..HttpOptions::default() };
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
    fn what_cannot_leave_in_time_is_not_sent_and_counted() {
        let target = serve(|request| {
            thread::sleep(Duration::from_millis(if request == 0 { 400 } else { 0 }));
            200
        });
        let options = HttpOptions { concurrency: 1, latest_ms: 200.0, timeout_ms: 200.0, ..HttpOptions::default() };
        let samples = drive_http(&target, &arrivals(100, 200.0), &options, &AtomicBool::new(false)).unwrap();
        assert_eq!(samples[0].failure.as_deref(), Some("timeout"));
        // What was due while the first one was on its way leaves when that has failed, unless it has waited for as long itself.
        let not_sent = |sample: &&LoadSample| sample.failure.as_deref() == Some(NOT_SENT);
        assert!(samples.iter().filter(not_sent).all(|sample| sample.late_ms >= 200.0 && sample.shard.is_none()));
        assert!(samples.iter().any(|sample| sample.failure.is_none()));
        let slow = serve(|_| {
            thread::sleep(Duration::from_millis(150));
            200
        });
        let samples = drive_http(&slow, &arrivals(40, 200.0), &options, &AtomicBool::new(false)).unwrap();
        let (unsent, sent): (Vec<_>, Vec<_>) = samples.iter().partition(|sample| not_sent(sample));
        assert!(unsent.len() > 30 && !sent.is_empty(), "{} of {} not sent", unsent.len(), samples.len());
        assert!(sent.iter().all(|sample| sample.late_ms < 200.0));
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
        for target in ["127.0.0.1:80", "ftp://127.0.0.1:80", "http://localhost", "http://a:1/path"] {
            assert!(error(target).contains("http://host:port"), "{target}: {}", error(target));
        }
        assert!(drive("http://127.0.0.1:1", &[], 1).unwrap_err().to_string().contains("0 events"));
    }
}
