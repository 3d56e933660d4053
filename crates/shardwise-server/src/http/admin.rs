//! What operators look at: the dashboard, metrics, the last decisions, the models.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header::{ACCEPT, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use serde::Deserialize;
use serde_json::{Value, json};
use shardwise_inference::Trust;
use shardwise_models::Registry;

use super::problem::Problem;
use super::{App, fleet};
use crate::metrics;

/// Everything is on the page; it may speak with this server only.
const POLICY: &str =
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:";
/// Entries of the registry's history that are shown.
const HISTORY: usize = 50;

/// `GET /`: a page without data, which asks for the token itself where there is one.
pub(super) async fn dashboard() -> impl IntoResponse {
    let headers = [(CONTENT_TYPE, "text/html; charset=utf-8"), (CONTENT_SECURITY_POLICY, POLICY)];
    (headers, include_str!("dashboard.html"))
}

/// `GET /metrics`
pub(super) async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<impl IntoResponse, Problem> {
    let accepted = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let open_metrics = accepted.contains("application/openmetrics-text");
    let text = metrics::text(&app, open_metrics).map_err(|error| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "metrics", format!("the metrics cannot be written: {error}"))
    })?;
    Ok(([(CONTENT_TYPE, if open_metrics { metrics::OPEN_METRICS } else { metrics::CLASSIC })], text))
}

/// `GET /openapi.json`
pub(super) async fn openapi() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], include_str!("openapi.json"))
}

/// `GET /v1/status`
pub(super) async fn status(State(app): State<Arc<App>>) -> Json<Value> {
    Json(summary(&app))
}

/// How the router does, as far as it fits a screen.
pub(super) fn summary(app: &App) -> Value {
    let live = &app.live;
    let bundle = live.decider.placer().and_then(shardwise_inference::Placer::bundle);
    let (foretold, within) = live.figures.coverage();
    let share = |count: u64| if foretold > 0 { Some(count as f64 / foretold as f64) } else { None };
    let [expected_s, measured_s] = live.figures.seconds_foretold();
    json!({
        "at": live.clock.now(),
        "router": app.config.router,
        "policy": live.decider.name(),
        "draining": app.is_draining(),
        "model": {
            "name": app.config.name,
            "version": bundle.as_ref().map(|bundle| bundle.version()),
            "trainedTo": bundle.as_ref().map(|bundle| bundle.manifest().trained_to),
            "ageDays": bundle.as_ref().map(|b| live.clock.now().millis_since(b.manifest().trained_to) / 86_400_000.0),
            "registryUnreachable": app.models.is_unreachable(live.clock.now()),
        },
        "gate": live.decider.placer().filter(|_| bundle.is_some()).map(|placer| match placer.trust() {
            Trust::Model => "model",
            Trust::Table => "service_table",
            Trust::Online => "online_estimates",
        }),
        "shadowAgreement": live.shadow.as_ref().map(|_| {
            live.figures.agreement.shares(live.clock.now()).collect::<std::collections::BTreeMap<_, _>>()
        }),
        "calibration": {
            "measured": foretold,
            "within50": share(within[0]), "within90": share(within[1]), "within99": share(within[2]),
            "measuredOverExpected": (expected_s > 0.0).then(|| measured_s / expected_s),
        },
        "decisions": live.figures.decisions().into_iter().map(|(decider, reason, count)| json!({
            "decidedBy": decider, "reason": reason, "count": count,
        })).collect::<Vec<_>>(),
        "refused": live.figures.refused(),
        "rejected": live.figures.turned_away().collect::<std::collections::BTreeMap<_, _>>(),
        "outcomes": live.figures.outcomes().collect::<std::collections::BTreeMap<_, _>>(),
        "outcomesDuplicate": live.figures.duplicates(),
        "outcomesUnmatched": live.figures.unmatched_outcomes(),
        "outcomesLate": live.figures.late_outcomes(),
        "outcomesMissing": live.pending.given_up(),
        "waiting": live.pending.count(),
        "forgotten": live.pending.turned_away(),
        "log": { "written": live.log.written(), "dropped": live.log.dropped_decisions() },
        "journal": {
            "decisions": app.keeping.decisions.load(Relaxed),
            "errors": app.keeping.errors.load(Relaxed),
            "problem": app.keeping.problem(),
            "lostBefore": app.lost_before,
        },
        "reports": live.view.counts(),
        "reportsSilent": live.view.status(live.clock.now()).silent,
        "clockJumps": live.clock.jumps(),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Most {
    limit: Option<usize>,
}

/// `GET /v1/decisions`: the last ones, a sample of at most twenty a second.
pub(super) async fn decisions(
    State(app): State<Arc<App>>,
    query: Result<Query<Most>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(Most { limit }) = query.map_err(|error| Problem::bad_request(error.body_text()))?;
    Ok(Json(json!({ "decisions": app.live.recent.latest(limit.unwrap_or(20)) })))
}

/// `GET /v1/models`: what is served, what happened here, and what was done to the registry.
pub(super) async fn models(State(app): State<Arc<App>>) -> Json<Value> {
    let (path, name) = (app.config.models.clone(), app.config.name.clone());
    let read = move || -> Result<Value, String> {
        let Some(path) = path else { return Ok(json!({ "aliases": {}, "history": [] })) };
        let registry = Registry::open(&path, &name).map_err(|error| error.to_string())?;
        let aliases = registry.aliases().map_err(|error| error.to_string())?;
        let mut history = registry.history().map_err(|error| error.to_string())?;
        history.reverse();
        history.truncate(HISTORY);
        Ok(json!({ "aliases": aliases, "history": history }))
    };
    // The registry may lie far away.
    let registry = tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| Err(error.to_string()));
    let registry = registry.unwrap_or_else(|problem| json!({ "problem": problem }));
    Json(json!({ "serving": app.models.serving(), "events": app.models.events(), "registry": registry }))
}

/// What the dashboard shows anew each second.
pub(super) fn moment(app: &App, second: crate::figures::Second) -> Value {
    json!({
        "status": summary(app),
        "second": { "answers": second.answers, "p50Us": second.p50_us, "p99Us": second.p99_us, "maxUs": second.max_us },
        "fleet": fleet::shown(&app.live),
        "recent": app.live.recent.latest(12),
        "models": app.models.events().into_iter().take(12).collect::<Vec<_>>(),
    })
}
