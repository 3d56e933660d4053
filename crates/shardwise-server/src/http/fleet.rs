//! What is known of the shards, and what they and the market report by HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use axum::{Json, http::StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shardwise_features::BreakerState;
use shardwise_monitor::{Distrust, Envelope, Ingested, ShardStatus, SystemMetrics, shard_subject};
use shardwise_types::{
    HistoryRecord, MarketRecord, MarketSnapshot, ShardId, ShardReport, ShardShape, ShardSnapshot, Timestamp,
};

use super::problem::Problem;
use super::{App, body};
use crate::keeper::Line;
use crate::live::Live;

/// A shard as it is shown.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ShownShard {
    id: ShardId,
    address: Option<String>,
    shape: ShardShape,
    report: Option<ShardReport>,
    load: Option<f32>,
    /// Since the report came, in ms.
    age_ms: Option<f64>,
    /// What its machine is doing, as it last said.
    system: SystemMetrics,
    is_stale: bool,
    /// Why what it says of itself is not believed at present.
    distrust: Option<Distrust>,
    breaker: &'static str,
    /// Requests of this router that are there.
    in_flight: f64,
    /// Share of this router's requests that failed there of late.
    error_rate: f64,
}

/// All shards, in the order of their names.
pub(crate) fn shown(live: &Live) -> Vec<ShownShard> {
    let now = live.clock.now();
    let fleet = live.view.snapshot();
    let mut statuses: BTreeMap<ShardId, ShardStatus> =
        live.view.status(now).shards.into_iter().map(|status| (status.shard.clone(), status)).collect();
    fleet.shards.iter().map(|shard| shown_shard(live, shard, statuses.remove(&shard.id), now)).collect()
}

fn shown_shard(live: &Live, shard: &ShardSnapshot, status: Option<ShardStatus>, now: Timestamp) -> ShownShard {
    let local = live.router.shard(&shard.id, now);
    ShownShard {
        id: shard.id.clone(),
        address: status.as_ref().and_then(|status| status.address.clone()),
        shape: shard.shape.clone(),
        report: shard.report.clone(),
        load: shard.load(),
        age_ms: status.as_ref().and_then(|status| status.age_ms),
        system: status.as_ref().map(|status| status.system.clone()).unwrap_or_default(),
        is_stale: status.as_ref().is_none_or(|status| status.stale),
        distrust: status.and_then(|status| status.distrust),
        breaker: match live.router.breaker(&shard.id, now) {
            BreakerState::Closed => "closed",
            BreakerState::HalfOpen => "half_open",
            BreakerState::Open => "open",
        },
        in_flight: local.in_flight,
        error_rate: local.error_rate,
    }
}

/// `GET /v1/fleet`
pub(super) async fn show(State(app): State<Arc<App>>) -> Json<Value> {
    let fleet = app.live.view.snapshot();
    Json(json!({
        "at": app.live.clock.now(),
        "routerRegion": fleet.router_region,
        "shards": shown(&app.live),
        "network": fleet.network,
        "market": **app.live.market.load(),
    }))
}

/// `POST /v1/reports`: a shard's envelope, as it would be published on a bus. Answered when it is in the journal.
pub(super) async fn report(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<impl IntoResponse, Problem> {
    let bytes = body::read(&headers, body, &app.config.limits).await?;
    let Named { shard } = body::parse(&bytes)?;
    let subject = shard_subject(&shard).map_err(|error| Problem::bad_request(error.to_string()))?;
    let envelope = Envelope::from_json(&subject, &bytes).map_err(|refused| {
        app.live.view.refuse(&refused, app.live.clock.now());
        Problem::bad_request(refused.to_string())
    })?;
    let ingested = app.live.take_in(&|| app.live.view.ingest(&envelope, app.live.clock.now()));
    let line = match ingested {
        Ingested::New(record) => record.into(),
        Ingested::Late(record) => Line::late(record),
        Ingested::Duplicate if app.live.view.is_saved(&envelope.id()) => {
            return Ok(Json(json!({ "taken": false, "reason": "duplicate" })));
        }
        // Were the disk not to take the first copy, nobody would send it again.
        Ingested::Duplicate => {
            let detail = "a copy of it waits to be written; send it again";
            return Err(Problem::unavailable("journal", detail));
        }
        Ingested::Distrusted(problem) => {
            let detail = format!("the report is not believed: {problem}");
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "distrusted", detail));
        }
    };
    let (view, id) = (Arc::clone(&app.live.view), envelope.id());
    // Whether or not the shard waits for it.
    let told = move |kept: bool| if kept { view.saved(&id) } else { view.forget(&id) };
    keep(&app, line, told).await?;
    Ok(Json(json!({ "taken": true })))
}

/// The part of an envelope that says where it belongs.
#[derive(Deserialize)]
struct Named {
    shard: ShardId,
}

/// Returns when a line is on disk, or cannot be; `told` hears which.
async fn keep(app: &App, line: Line, told: impl FnOnce(bool) + Send + 'static) -> Result<(), Problem> {
    let keep = app.keep.clone();
    let keeping = move || {
        let kept = keep.durably(line);
        told(kept.is_ok());
        kept
    };
    let kept = tokio::task::spawn_blocking(keeping).await.map_err(|error| error.to_string());
    kept.and_then(|kept| kept)
        .map_err(|problem| Problem::unavailable("journal", format!("it is used, but could not be kept: {problem}")))
}

/// A minute of the market, as it is told.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Minute {
    instrument: String,
    price_usd: f64,
    #[serde(default)]
    volume: f64,
    volatility_bp: Option<f32>,
    trend_bp: Option<f32>,
    event_at: Option<Timestamp>,
}

/// `POST /v1/market`
pub(super) async fn market(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<impl IntoResponse, Problem> {
    let bytes = body::read(&headers, body, &app.config.limits).await?;
    let minute: Minute = body::parse(&bytes)?;
    if minute.instrument.is_empty() || !(minute.price_usd.is_finite() && minute.price_usd > 0.0) {
        return Err(Problem::bad_request("instrument must be named, and priceUsd be a finite number above 0"));
    }
    if !(minute.volume.is_finite() && minute.volume >= 0.0) {
        return Err(Problem::bad_request("volume must be a finite number, 0 or more"));
    }
    let snapshot = MarketSnapshot { volatility: minute.volatility_bp, trend: minute.trend_bp };
    snapshot.check().map_err(|error| Problem::bad_request(error.to_string()))?;
    let known_at = app.live.take_market(snapshot);
    let record = HistoryRecord::Market(MarketRecord {
        sequence: app.live.ids.sequence(),
        router: Some(app.live.log.router().clone()),
        event_at: minute.event_at.unwrap_or(known_at),
        known_at,
        instrument: minute.instrument,
        price_usd: minute.price_usd,
        volume: minute.volume,
        volatility_bp: minute.volatility_bp,
        trend_bp: minute.trend_bp,
    });
    keep(&app, Line::Record(record), |_| ()).await?;
    Ok(Json(json!({ "taken": true })))
}
