//! Places, dispatches and reports back: ask the router, send the request to the shard that it names, tell it what
//! became of it.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Instant;

use serde::Deserialize;
use serde_json::{Value, json};
use shardwise_simulator::{Arrival, LoadSample};
use shardwise_types::{ErrorClass, ShardId};

use super::blocks::{Arm, LiveOptions, PlannedEvent, plan};
use super::client::{Client, PREDICT, Reply, TIMEOUT, reach};
use super::compare::LiveComparison;
use super::fleet::Addresses;
use super::{LOOK_EVERY, LoadDriverError, millis_since, now, send_each, wall};

const EXECUTE: &str = "/v1/execute";
const OUTCOMES: &str = "/v1/outcomes";

/// What became of one event of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveSample {
    /// The arm, by its place.
    pub arm: usize,
    /// The round.
    pub round: usize,
    /// Whether it counts: it was not meant for the beginning of a block.
    pub measured: bool,
    /// When it was meant to leave, how late it left, and from the intended moment to the shard's answer or the failure.
    pub sample: LoadSample,
    /// What the router took to decide, in ms.
    pub decision_ms: f64,
    /// What the shard said; `None` when it said nothing.
    pub execution: Option<ShardExecution>,
    /// Whether the router took the outcome; `None` when it had decided nothing.
    pub told: Option<bool>,
}

/// A shard's own measurements.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct ShardExecution {
    /// On a core, in ms.
    pub exec_ms: f64,
    /// In the queue, in ms.
    pub queue_ms: f64,
    /// Queued and running when it answered.
    pub queue_len: u32,
    /// Whether the function had to be loaded first.
    pub cold: bool,
    /// Why there is no result.
    #[serde(default)]
    error: Option<ErrorClass>,
}

/// A router's answer; it may say more.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Decision {
    recommended_shard: ShardId,
    decision_id: Value,
}

/// Compares routers on the same real shards, in one run: blocks of time in which one of them gets all requests, in
/// turns; the same arrivals for each. Every decision's outcome is told to the router that made it, once.
///
/// # Errors
/// When an address is none or nobody answers there, a router knows no shards, an option is out of range, there is
/// nothing to send, or it was interrupted.
pub fn drive_live(
    arms: &[Arm],
    arrivals: &[Arrival],
    options: &LiveOptions,
    interrupted: &AtomicBool,
) -> Result<(LiveComparison, Vec<LiveSample>), LoadDriverError> {
    let plan = plan(arms, arrivals, options)?;
    let client = Client::new(&options.http)?;
    arms.iter().try_for_each(|arm| reach(&arm.router, &options.http))?;
    let routers = arms.iter().map(|arm| Router::new(&client, arm)).collect::<Result<Vec<_>, _>>()?;
    let (start, done) = (now(), AtomicBool::new(false));
    let send = |event: &PlannedEvent<'_>| routers[event.arm].place(event, start, options.http.timeout_ms);
    let samples = thread::scope(|scope| {
        scope.spawn(|| keep_up(&routers, options, &done));
        let samples = send_each(&plan, |event| start + event.after, options.http.concurrency, interrupted, send);
        done.store(true, Relaxed);
        samples
    })?;
    Ok((LiveComparison::new(arms, &samples, options)?, samples))
}

/// Asks for addresses now and then, away from the threads that send. A router that does not answer is asked again the
/// next time.
fn keep_up(routers: &[Router<'_>], options: &LiveOptions, done: &AtomicBool) {
    let mut asked = now();
    while !done.load(Relaxed) {
        if millis_since(asked) >= options.refresh_ms {
            routers.iter().for_each(|router| drop(router.addresses.refresh(router.client, &router.arm.router)));
            asked = now();
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// One arm at work.
struct Router<'a> {
    client: &'a Client,
    arm: &'a Arm,
    addresses: Addresses,
}

/// What a shard made of a request.
struct Dispatched {
    total_ms: f64,
    execution: Option<ShardExecution>,
    /// What the router is told.
    error: Option<ErrorClass>,
    /// What the user is told.
    failure: Option<String>,
}

impl<'a> Router<'a> {
    fn new(client: &'a Client, arm: &'a Arm) -> Result<Self, LoadDriverError> {
        Ok(Self { client, arm, addresses: Addresses::ask(client, &arm.router)? })
    }

    fn place(&self, event: &PlannedEvent<'_>, start: Instant, timeout_ms: f64) -> LiveSample {
        let intended = start + event.after;
        let late_ms = millis_since(intended);
        let mut request = serde_json::to_value(event.request).expect("a request has nothing that JSON lacks");
        request["eventAt"] = json!(wall().plus_millis(-late_ms));
        let (asked, decision) = (now(), self.decide(&request));
        let mut sample = LiveSample {
            arm: event.arm,
            round: event.round,
            measured: event.measured,
            sample: LoadSample {
                intended_ms: event.after.as_secs_f64() * 1e3,
                late_ms,
                latency_ms: 0.0,
                shard: None,
                failure: None,
            },
            decision_ms: millis_since(asked),
            execution: None,
            told: None,
        };
        match decision {
            Ok(decision) => {
                request["decisionId"] = decision.decision_id.clone();
                request["timeoutMs"] = json!(timeout_ms);
                let dispatched = self.dispatch(&decision.recommended_shard, &request);
                sample.sample.latency_ms = millis_since(intended);
                sample.told = Some(self.tell(&decision, &dispatched));
                sample.execution = dispatched.execution;
                sample.sample.failure = dispatched.failure;
                sample.sample.shard = Some(decision.recommended_shard);
            }
            Err(reason) => {
                sample.sample.latency_ms = millis_since(intended);
                sample.sample.failure = Some(format!("router: {reason}"));
            }
        }
        sample
    }

    fn decide(&self, request: &Value) -> Result<Decision, String> {
        let body = self.client.tell(&format!("{}{PREDICT}", self.arm.router), &request.to_string())?.success()?;
        serde_json::from_str(&body).map_err(|_| "no shard and decision id in the answer".to_owned())
    }

    fn dispatch(&self, shard: &ShardId, request: &Value) -> Dispatched {
        let asked = now();
        let reply = match self.address(shard) {
            Some(address) => self.client.post(&format!("{address}{EXECUTE}"), &request.to_string()),
            None => Err("shard without address".to_owned()),
        };
        Dispatched::new(reply, millis_since(asked))
    }

    /// Where the shard is; a shard that is new to us is asked for at once.
    fn address(&self, shard: &ShardId) -> Option<String> {
        self.addresses.of(shard).or_else(|| {
            self.addresses.refresh(self.client, &self.arm.router).ok()?;
            self.addresses.of(shard)
        })
    }

    /// Tells the outcome once, whether it arrives or not: told twice, it would count twice.
    fn tell(&self, decision: &Decision, dispatched: &Dispatched) -> bool {
        let execution = dispatched.execution;
        let body = json!({
            "decisionId": decision.decision_id,
            "totalMs": dispatched.total_ms,
            "execMs": execution.map_or(0.0, |execution| execution.exec_ms),
            "queueMs": execution.map_or(0.0, |execution| execution.queue_ms),
            "queueLen": execution.map_or(0, |execution| execution.queue_len),
            "cold": execution.is_some_and(|execution| execution.cold),
            "error": dispatched.error,
            "eventAt": wall(),
        });
        let reply = self.client.tell(&format!("{}{OUTCOMES}", self.arm.router), &body.to_string());
        reply.and_then(Reply::success).is_ok()
    }
}

impl Dispatched {
    fn new(reply: Result<Reply, String>, total_ms: f64) -> Self {
        let failed = |error, failure| Self { total_ms, execution: None, error: Some(error), failure: Some(failure) };
        let reply = match reply {
            Ok(reply) => reply,
            Err(reason) if reason == TIMEOUT => return failed(ErrorClass::Timeout, reason),
            Err(reason) => return failed(ErrorClass::Failed, reason),
        };
        let execution: Option<ShardExecution> = serde_json::from_str(&reply.body).ok();
        match (execution, reply.status) {
            (Some(execution), _) => {
                let failure = execution.error.map(|error| error.as_str().to_owned());
                Self { total_ms, execution: Some(execution), error: execution.error, failure }
            }
            (None, 200..300) => failed(ErrorClass::Failed, "no measurements in the answer".to_owned()),
            (None, status) => failed(ErrorClass::Failed, format!("http {status}")),
        }
    }
}
