//! What a reference shard answers over HTTP.
//!
//! | request | answer |
//! |---|---|
//! | `POST /v1/execute`, a placement request, in it `decisionId` and `timeoutMs` if wanted | 200 `{"exec_ms","queue_ms","queue_len","cold","result"}` |
//! | `POST /v1/control/ENDPOINT` | what the shard's agent answers the coordinator |
//! | `GET /v1/report` | the shard, its shape, and its report as it would be published now |
//! | `GET /health/live`, `GET /health/ready` | 200, or 503 when it is draining or calls itself unhealthy |
//!
//! An execution without a result is answered by 500 (failed) or 504 (its time had passed in the queue, so it never ran)
//! with the same fields and `error`. What is refused gets `{"error","problem"}`: 400 what cannot be read, 413 what is
//! too large, 422 what may not run here, 503 when the queue is full or the shard is draining.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use shardwise_types::{InvalidInput, PlacementRequest, UsdAmount};
use tokio::sync::{oneshot, watch};

use super::agent::Outside;
use super::clock;
use super::faults::FaultKind;
use super::options::ShardOptions;
use super::workers::{Execution, Job, Workers};

/// The largest body, in bytes.
const MOST_BYTES: usize = 64 * 1024;
/// The most complex input: beyond it one request could hold a core for minutes.
const MOST_COMPLEXITY: f32 = 100.0;
/// The most calls to an exchange.
const MOST_CALLS: u32 = 64;
/// The longest that a client may say it waits, in ms.
const MOST_TIMEOUT_MS: f64 = 3.6e6;

/// Longest time that the agent may take to answer.
const CONTROL_WITHIN: Duration = Duration::from_secs(5);

/// What the handlers share.
pub(super) struct Server {
    pub(super) options: ShardOptions,
    pub(super) address: String,
    pub(super) boot_id: String,
    pub(super) workers: Arc<Workers>,
    pub(super) outside: Outside,
    /// Turns true when the shard ends, for requests that would be held for ever.
    pub(super) ending: watch::Receiver<bool>,
}

pub(super) fn routes(server: Server) -> Router {
    Router::new()
        .route("/v1/execute", post(execute))
        .route("/v1/report", get(report))
        .route("/v1/control/{endpoint}", post(control))
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .with_state(Arc::new(server))
}

/// A request that is refused.
struct Refused {
    status: StatusCode,
    error: &'static str,
    problem: String,
}

impl Refused {
    fn new(status: StatusCode, error: &'static str, problem: &dyn ToString) -> Self {
        Self { status, error, problem: problem.to_string() }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.error, "problem": self.problem }))).into_response()
    }
}

async fn execute(
    State(server): State<Arc<Server>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Execution>), Refused> {
    let accepted = clock::now();
    let body = body.map_err(|error| Refused::new(error.status(), "invalid_body", &error.body_text()))?;
    let (request, timeout_ms) =
        parse(&body).map_err(|error| Refused::new(StatusCode::BAD_REQUEST, "invalid_request", &error))?;
    server
        .check_rules(&request)
        .map_err(|error| Refused::new(StatusCode::UNPROCESSABLE_ENTITY, "forbidden", &error))?;
    server.swallow().await?;
    let away_ms = server.away_ms(&request);
    let (answer, answered) = oneshot::channel();
    let deadline = timeout_ms.map(|timeout_ms| accepted + Duration::from_secs_f64(timeout_ms / 1e3));
    let unavailable = |problem: &dyn ToString| Refused::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", problem);
    let waiting = server.workers.recorder.arrive(&request.function);
    let job = Job { request, accepted, deadline, answer, waiting };
    server.workers.accept(job).map_err(|refusal| unavailable(&refusal))?;
    let execution = answered.await.map_err(|_| unavailable(&"the function ended without an answer"))?;
    tokio::time::sleep(Duration::from_secs_f64(away_ms / 1e3)).await;
    let status = match execution.error {
        None => StatusCode::OK,
        Some(shardwise_types::ErrorClass::Dropped) => StatusCode::GATEWAY_TIMEOUT,
        Some(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Ok((status, Json(execution)))
}

/// Reads a placement request, and how long the client waits.
fn parse(body: &[u8]) -> Result<(PlacementRequest, Option<f64>), InvalidInput> {
    let mut value: Value = serde_json::from_slice(body).map_err(|e| InvalidInput::new("body", e.to_string()))?;
    let fields = value.as_object_mut().ok_or_else(|| InvalidInput::new("body", "must be a JSON object"))?;
    match fields.remove("decisionId") {
        None | Some(Value::Null | Value::String(_) | Value::Number(_)) => {}
        Some(_) => return Err(InvalidInput::new("decisionId", "must be a text or a number")),
    }
    let timeout_ms = match fields.remove("timeoutMs") {
        None | Some(Value::Null) => None,
        Some(value) => Some(value.as_f64().filter(|ms| (0.0..=MOST_TIMEOUT_MS).contains(ms)).ok_or_else(|| {
            InvalidInput::new("timeoutMs", format!("{value} must be a number from 0 to {MOST_TIMEOUT_MS}"))
        })?),
    };
    let request = PlacementRequest::from_json(&value.to_string())?;
    if request.data_complexity > MOST_COMPLEXITY {
        let problem = format!("{} is more than a shard runs; at most {MOST_COMPLEXITY}", request.data_complexity);
        return Err(InvalidInput::new("dataComplexity", problem));
    }
    if request.exchange_calls > MOST_CALLS {
        let problem = format!("{} is more than a shard makes; at most {MOST_CALLS}", request.exchange_calls);
        return Err(InvalidInput::new("exchangeCalls", problem));
    }
    Ok((request, timeout_ms))
}

impl Server {
    /// The hard rules: amount, residency, memory.
    fn check_rules(&self, request: &PlacementRequest) -> Result<(), InvalidInput> {
        let shape = &self.options.shape;
        let amount_usd = request.amount_usd.map_or(0.0, UsdAmount::usd);
        if let Some(limit_usd) = shape.max_amount_usd.filter(|limit_usd| amount_usd > *limit_usd) {
            let problem = format!("{amount_usd} is above the {limit_usd} that may run on {}", self.options.id);
            return Err(InvalidInput::new("amountUsd", problem));
        }
        if let Some(region) = request.residency.as_ref().filter(|region| **region != shape.region) {
            let problem = format!("must stay in {region}, and {} stands in {}", self.options.id, shape.region);
            return Err(InvalidInput::new("residency", problem));
        }
        if request.memory_mb > shape.memory_mb {
            let problem = format!("{} is more than the {} of {}", request.memory_mb, shape.memory_mb, self.options.id);
            return Err(InvalidInput::new("memoryMb", problem));
        }
        Ok(())
    }

    /// A black hole holds what it is sent until the client goes away, or the shard ends.
    async fn swallow(&self) -> Result<(), Refused> {
        if !self.workers.faults().has(FaultKind::BlackHole) {
            return Ok(());
        }
        // An error means that whoever would say it is gone: the end as well.
        let _ = self.ending.clone().wait_for(|ending| *ending).await;
        Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", &"the shard has ended"))
    }

    /// How long an answer travels: to the router and back, and to the exchange and back for each call.
    fn away_ms(&self, request: &PlacementRequest) -> f64 {
        let exchange_rtt_ms = self.options.rtt_to_exchange_ms(request.exchange.as_str());
        self.options.rtt_ms + f64::from(request.exchange_calls) * exchange_rtt_ms
    }
}

async fn report(State(server): State<Arc<Server>>) -> Json<Value> {
    let report = server.workers.look(clock::now());
    Json(json!({
        "shard": server.options.id,
        "shape": server.options.shape,
        "address": server.address,
        "bootId": server.boot_id,
        "report": report,
    }))
}

/// What the coordinator says to the shard's agent.
async fn control(
    State(server): State<Arc<Server>>,
    Path(endpoint): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Vec<u8>, Refused> {
    let body = body.map_err(|error| Refused::new(error.status(), "invalid_body", &error.body_text()))?;
    let nobody = |problem: &dyn ToString| Refused::new(StatusCode::NOT_FOUND, "not_found", problem);
    let transport = server.outside.transport.as_ref();
    let transport = transport.ok_or_else(|| nobody(&"this shard takes part in no changes; name its state folder"))?;
    transport.answer(&endpoint, body.to_vec(), CONTROL_WITHIN).await.map_err(|error| nobody(&error))
}

async fn live() -> Json<Value> {
    Json(json!({ "status": "live" }))
}

async fn ready(State(server): State<Arc<Server>>) -> (StatusCode, Json<Value>) {
    let (status, text) = match server.workers.is_ready() {
        true => (StatusCode::OK, "ready"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
    };
    (status, Json(json!({ "status": text, "shard": server.options.id, "bootId": server.boot_id })))
}
