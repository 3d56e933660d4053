//! The HTTP interface: what is asked, in which form, and what is answered. `openapi.json` describes it.

mod access;
mod admin;
mod body;
mod configuration;
mod events;
mod fleet;
mod inference_protocol;
mod listener;
mod plans;
mod predict;
pub(crate) mod problem;
mod shedding;
mod tls;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::sync::{Semaphore, watch};

use crate::clock::instant;
use crate::config::ServeConfig;
use crate::control::Control;
use crate::figures::TurnedAway;
use crate::keeper::{Keep, Keeping};
use crate::live::Live;
use crate::model_log::ModelLog;

pub(crate) use access::Token;
pub(crate) use events::publish;
pub(crate) use listener::{Listener, serve};
pub(crate) use shedding::Pressure;
pub(crate) use tls::acceptor;

use problem::Problem;

/// What handlers share.
pub(crate) struct App {
    pub(crate) config: ServeConfig,
    pub(crate) live: Arc<Live>,
    pub(crate) keep: Keep,
    pub(crate) keeping: Arc<Keeping>,
    pub(crate) pressure: Pressure,
    /// Whose turn it is to plan.
    pub(crate) planning: Semaphore,
    pub(crate) token: Option<Token>,
    pub(crate) models: ModelLog,
    /// What operators change while it runs; none before that has started.
    pub(crate) control: OnceLock<Control>,
    /// The state as the dashboard gets it, made anew each second.
    pub(crate) moments: watch::Sender<String>,
    #[cfg(feature = "otel")]
    pub(crate) traces: Option<crate::traces::Traces>,
    pub(crate) is_draining: AtomicBool,
    /// Decisions that the process before answered and never wrote.
    pub(crate) lost_before: u64,
}

impl App {
    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Relaxed)
    }
}

/// What clients of the router ask.
pub(crate) fn requests(app: &Arc<App>) -> Router {
    finish(request_routes(app), Router::new(), app)
}

/// What operators ask.
pub(crate) fn administration(app: &Arc<App>) -> Router {
    finish(administration_routes(), dashboard(), app)
}

/// Both on one listener.
pub(crate) fn everything(app: &Arc<App>) -> Router {
    finish(request_routes(app).merge(administration_routes()), dashboard(), app)
}

fn request_routes(app: &Arc<App>) -> Router<Arc<App>> {
    let admitted = Router::new()
        .route("/v1/predict-optimal-shard", post(predict::one))
        .route("/v1/predict-optimal-shard/batch", post(predict::batch))
        .route("/v1/outcomes", post(predict::outcomes))
        .route_layer(middleware::from_fn_with_state(Arc::clone(app), admit));
    #[cfg(feature = "otel")]
    let admitted = admitted.route_layer(middleware::from_fn_with_state(Arc::clone(app), crate::traces::follow));
    let others = Router::new()
        .route("/v1/fleet", get(fleet::show))
        .route("/v1/reports", post(fleet::report))
        .route("/v1/market", post(fleet::market))
        .route("/v1/control/{endpoint}", post(configuration::endpoint));
    admitted.merge(others)
}

fn administration_routes() -> Router<Arc<App>> {
    Router::new()
        .route("/metrics", get(admin::metrics))
        .route("/openapi.json", get(admin::openapi))
        .route("/v1/status", get(admin::status))
        .route("/v1/decisions", get(admin::decisions))
        .route("/v1/models", get(admin::models))
        .route("/v1/events", get(events::stream))
        .route("/v1/plans/{kind}", get(plans::plan))
        .route("/v1/totals", get(plans::totals))
        .route("/v1/config", get(configuration::show))
        .route("/v1/config/history", get(configuration::history))
        .route("/v1/config/splits", post(configuration::split))
        .route("/v1/config/limits", post(configuration::limits))
        .route("/v1/config/placements", post(configuration::placements))
        .route("/v1/config/rollback", post(configuration::rollback))
}

/// A browser cannot send a token with the first request to a page.
fn dashboard() -> Router<Arc<App>> {
    Router::new().route("/", get(admin::dashboard))
}

/// Health is for everybody, and what is `open`; all else asks for the token, where there is one.
fn finish(routes: Router<Arc<App>>, open: Router<Arc<App>>, app: &Arc<App>) -> Router {
    routes
        .merge(inference_protocol::about())
        .route_layer(middleware::from_fn_with_state(Arc::clone(app), access::check))
        .merge(inference_protocol::health())
        .merge(open)
        .fallback(nothing_here)
        .method_not_allowed_fallback(not_this_way)
        .with_state(Arc::clone(app))
}

/// Turns work away while there is too much of it, and takes the time of what is done.
async fn admit(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = instant();
    if app.is_draining() {
        app.live.figures.turn_away(TurnedAway::Draining);
        return Problem::unavailable("draining", "the server is about to end; ask another one").into_response();
    }
    if app.pressure.is_too_high() {
        app.live.figures.turn_away(TurnedAway::Overload);
        let detail = "more is asked than can be answered in time; try again, or ask another server";
        return Problem::unavailable("overloaded", detail).into_response();
    }
    let response = next.run(request).await;
    app.live.figures.answer(started.elapsed());
    response
}

async fn nothing_here(request: Request) -> Problem {
    let detail = format!("there is nothing at {}; /openapi.json lists what there is", request.uri().path());
    Problem::new(axum::http::StatusCode::NOT_FOUND, "not_found", detail)
}

async fn not_this_way(request: Request) -> Problem {
    let detail =
        format!("{} does not take {}; /openapi.json says what it takes", request.uri().path(), request.method());
    Problem::new(axum::http::StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}
