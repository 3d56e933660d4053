//! Changing traffic splits, limits and placements, and what others ask of the coordinator and of agents here.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use shardwise_control::commands::{
    self, ChangeOptions, Changed, LimitsOptions, PlacementsOptions, RollbackOptions, SplitOptions,
};
use shardwise_control::{AgentHost, ControlError, ControlPlane, Outcome, ShardLimits};
use shardwise_types::Placements;

use super::problem::Problem;
use super::{App, body};

/// Longest time that an agent or the coordinator here may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Who wants a change, and why.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Who {
    author: String,
    why: String,
    #[serde(default)]
    without: Vec<String>,
    /// What the change was made from, so that it does not undo what others have changed since.
    #[serde(default)]
    from_version: Option<u64>,
}

impl From<Who> for ChangeOptions {
    fn from(Who { author, why, without, from_version }: Who) -> Self {
        Self { author, why, without, from_version }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Split {
    function: String,
    /// As `shard-a=0.9,shard-b=0.1`, further ones as `10m@shard-b=1`; none takes the split away.
    #[serde(default)]
    steps: Vec<String>,
    change: Who,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Limits {
    shard: String,
    limits: ShardLimits,
    change: Who,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PlacementsChange {
    /// All of it: what is not named is as if nothing had been said.
    placements: Placements,
    change: Who,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rollback {
    to: u64,
    change: Who,
}

fn plane(app: &App) -> Result<&ControlPlane, Problem> {
    let plane = app.control.get().and_then(|control| control.plane.as_ref());
    plane.ok_or_else(|| {
        let detail = "this router is not the coordinator of its fleet; ask the one that is";
        Problem::new(StatusCode::CONFLICT, "not_coordinator", detail)
    })
}

fn refused(error: &ControlError) -> Problem {
    match error {
        ControlError::Invalid(_) => Problem::bad_request(error.to_string()),
        ControlError::Refused(_) => Problem::new(StatusCode::CONFLICT, "refused", error.to_string()),
        ControlError::NoSuchVersion(_) => Problem::new(StatusCode::NOT_FOUND, "not_found", error.to_string()),
        _ => Problem::unavailable("control", error.to_string()),
    }
}

/// What became of a change: 200 when it holds everywhere, 409 when it was withdrawn.
fn told(changed: Result<Changed, ControlError>) -> Result<Json<Value>, Problem> {
    let Changed(entry) = changed.map_err(|error| refused(&error))?;
    let value = serde_json::to_value(&entry).expect("an entry is plain data");
    match &entry.outcome {
        Outcome::Withdrawn => {
            let detail = "the change was withdrawn and holds nowhere; `extra` says who did not agree, and why";
            Err(Problem { extra: Some(value), ..Problem::new(StatusCode::CONFLICT, "withdrawn", detail) })
        }
        _ => Ok(Json(value)),
    }
}

/// `GET /v1/config`
pub(super) async fn show(State(app): State<Arc<App>>) -> Json<Value> {
    let coordinator = app.control.get().and_then(|control| control.plane.as_ref()).map(ControlPlane::status);
    Json(json!({ "agent": app.live.agent.get().map(AgentHost::status), "coordinator": coordinator }))
}

/// `GET /v1/config/history`
pub(super) async fn history(State(app): State<Arc<App>>) -> Result<Json<Value>, Problem> {
    let mut changes = plane(&app)?.history();
    changes.reverse();
    Ok(Json(json!({ "changes": changes })))
}

/// `POST /v1/config/splits`
pub(super) async fn split(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Result<Json<Value>, Problem> {
    let bytes = body::read(&headers, body, &app.config.limits).await?;
    let Split { function, steps, change } = body::parse(&bytes)?;
    let plane = plane(&app)?;
    let options = SplitOptions { function, steps, change: change.into() };
    told(commands::split(plane, &members(&app), &options).await)
}

/// `POST /v1/config/limits`
pub(super) async fn limits(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let bytes = body::read(&headers, body, &app.config.limits).await?;
    let Limits { shard, limits, change } = body::parse(&bytes)?;
    let plane = plane(&app)?;
    told(commands::limits(plane, &members(&app), &LimitsOptions { shard, limits, change: change.into() }).await)
}

/// `POST /v1/config/placements`
pub(super) async fn placements(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let bytes = body::read(&headers, body, &app.config.limits).await?;
    let PlacementsChange { placements, change } = body::parse(&bytes)?;
    let plane = plane(&app)?;
    let options = PlacementsOptions { placements, change: change.into() };
    told(commands::placements(plane, &members(&app), &options).await)
}

/// `POST /v1/config/rollback`
pub(super) async fn rollback(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let bytes = body::read(&headers, body, &app.config.limits).await?;
    let Rollback { to, change } = body::parse(&bytes)?;
    let plane = plane(&app)?;
    told(commands::rollback(plane, &members(&app), &RollbackOptions { to, change: change.into() }).await)
}

fn members(app: &App) -> Vec<shardwise_control::Member> {
    app.control.get().map(crate::control::Control::members).unwrap_or_default()
}

/// `POST /v1/control/{endpoint}`: what agents ask the coordinator, and it them.
pub(super) async fn endpoint(
    State(app): State<Arc<App>>,
    endpoint: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Vec<u8>, Problem> {
    let Path(endpoint) = endpoint.map_err(|error| Problem::bad_request(error.body_text()))?;
    let bytes = body::read(&headers, body, &app.config.limits).await?;
    let control =
        app.control.get().ok_or_else(|| Problem::unavailable("starting", "the router has only just started"))?;
    control
        .transport
        .answer(&endpoint, bytes.to_vec(), ANSWER_WITHIN)
        .await
        .map_err(|error| Problem::new(StatusCode::NOT_FOUND, "not_found", format!("nobody answers here: {error}")))
}
