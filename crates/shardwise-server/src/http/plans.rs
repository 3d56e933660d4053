//! Plans for the fleet as it is seen here, and what was measured so far.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use shardwise_control::{Configuration, Entry, Outcome};
use shardwise_planner::{Ledger, PlanKind, Planner};
use shardwise_types::{FunctionId, ShardId};

use super::App;
use super::problem::Problem;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Assumed {
    /// Volatility over the usual that the plan for a spike is to assume.
    factor: Option<f64>,
}

/// `GET /v1/plans/{kind}`
pub(super) async fn plan(
    State(app): State<Arc<App>>,
    kind: Result<Path<String>, PathRejection>,
    query: Result<Query<Assumed>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Path(name) = kind.map_err(|error| Problem::bad_request(error.body_text()))?;
    let Query(Assumed { factor }) = query.map_err(|error| Problem::bad_request(error.body_text()))?;
    let kind = PlanKind::parse(&name).ok_or_else(|| {
        let kinds = PlanKind::ALL.map(PlanKind::as_str).join(", ");
        Problem::new(StatusCode::NOT_FOUND, "not_found", format!("there is no plan '{name}'; there are {kinds}"))
    })?;
    // Forecasts of a large fleet take seconds, and each works on a copy of what was seen: one at a time.
    let permit = app.planning.acquire().await.map_err(|error| Problem::unavailable("planner", error.to_string()))?;
    let of = Arc::clone(&app);
    let made = tokio::task::spawn_blocking(move || make(&of, kind, factor)).await;
    drop(permit);
    made.map_err(|error| Problem::unavailable("planner", error.to_string()))?
}

fn make(app: &App, kind: PlanKind, assumed_spike: Option<f64>) -> Result<Json<Value>, Problem> {
    // A copy: what is seen goes on meanwhile.
    let observations = app.live.seen().clone();
    let ledger = ledger(
        &app.control
            .get()
            .and_then(|control| control.plane.as_ref())
            .map(shardwise_control::ControlPlane::history)
            .unwrap_or_default(),
    );
    let now = app.live.clock.now();
    let table = app.live.decider.placer().and_then(shardwise_inference::Placer::bundle).map(|it| it.service_table());
    let teach = |function: &FunctionId, shard: &ShardId| table.as_ref()?.pair_effect(function, shard);
    let planner = Planner {
        observations: &observations,
        ledger: &ledger,
        settings: &app.config.planner,
        now,
        assumed_spike,
        teacher: Some(&teach),
    };
    let plan = planner.plan(kind).map_err(|error| Problem::bad_request(error.to_string()))?;
    let story = plan.story(&observations);
    Ok(Json(json!({ "kind": kind, "now": now, "plan": plan, "story": story, "leftOut": observations.left_out() })))
}

/// `GET /v1/totals`: all that was answered of each function, and on each shard, since this process began.
pub(super) async fn totals(State(app): State<Arc<App>>) -> Json<Value> {
    let (functions, shards) = {
        let seen = app.live.seen();
        (seen.totals(), seen.totals_of_shards())
    };
    Json(json!({ "now": app.live.clock.now(), "functions": functions, "shards": shards }))
}

/// What was moved and warmed when, by the changes that held.
fn ledger(history: &[Entry]) -> Ledger {
    let mut ledger = Ledger::default();
    let mut held = Configuration::default();
    for Entry { change, .. } in history.iter().filter(|entry| entry.outcome == Outcome::Committed) {
        let next = held.after(change);
        ledger.placed(&held.placements, &next.placements, change.effective_at);
        held = next;
    }
    ledger
}
