//! Health and metadata as KServe's Open Inference Protocol v2 has them.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use shardwise_features::FEATURES;

use super::App;
use super::problem::Problem;
use crate::decider::PLACER;

/// What everybody may ask.
pub(super) fn health() -> Router<Arc<App>> {
    Router::new().route("/v2/health/live", get(live)).route("/v2/health/ready", get(ready))
}

pub(super) fn about() -> Router<Arc<App>> {
    Router::new()
        .route("/v2", get(server))
        .route("/v2/models/{name}", get(model))
        .route("/v2/models/{name}/ready", get(model_ready))
}

async fn server() -> Json<Value> {
    Json(json!({ "name": "shardwise", "version": env!("CARGO_PKG_VERSION"), "extensions": ["predict-optimal-shard"] }))
}

async fn live() -> Json<Value> {
    Json(json!({ "live": true }))
}

/// Ready to place: there are shards, and the server is not about to end. A model is no condition: without one it decides all the
/// same.
async fn ready(State(app): State<Arc<App>>) -> Result<Json<Value>, Problem> {
    if app.is_draining() {
        return Err(Problem::unavailable("draining", "the server is about to end"));
    }
    let shards = app.live.view.snapshot().shards.len();
    if shards == 0 {
        return Err(Problem::unavailable(
            "no_shards",
            "no shard is known yet; start some, or name a fleet file with --fleet",
        ));
    }
    Ok(Json(json!({ "ready": true, "shards": shards })))
}

/// The name, if it is that of the model that is served here.
fn known(app: &App, name: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    let Path(name) = name.map_err(|error| Problem::bad_request(error.body_text()))?;
    if name == app.config.name {
        return Ok(name);
    }
    let detail = format!("there is no model '{name}' here; this server serves '{}'", app.config.name);
    Err(Problem::new(StatusCode::NOT_FOUND, "not_found", detail))
}

async fn model(State(app): State<Arc<App>>, name: Result<Path<String>, PathRejection>) -> Result<Json<Value>, Problem> {
    let name = known(&app, name)?;
    let versions: Vec<String> = app.models.serving().into_iter().collect();
    Ok(Json(json!({
        "name": name,
        "versions": versions,
        "platform": PLACER,
        "inputs": FEATURES.iter().map(|feature| json!({ "name": feature.name, "datatype": "FP32", "shape": [-1] })).collect::<Vec<_>>(),
        "outputs": [{ "name": "recommendedShard", "datatype": "BYTES", "shape": [1] }],
    })))
}

async fn model_ready(
    State(app): State<Arc<App>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    let name = known(&app, name)?;
    match app.models.serving() {
        Some(version) => Ok(Json(json!({ "name": name, "ready": true, "version": version }))),
        None => Err(Problem::unavailable("no_model", "no version is served; requests are placed without a model")),
    }
}
