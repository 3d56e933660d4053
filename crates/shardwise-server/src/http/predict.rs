//! Placing requests and hearing what became of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shardwise_types::{NoEligibleShard, PlacementRequest};

use super::problem::Problem;
use super::{App, body};
use crate::clock::instant;
use crate::figures::TurnedAway;
use crate::live::{Answer, Outcome, Settled, locally};

/// How many ms the caller is still willing to wait, from the moment that it is read.
const DEADLINE: &str = "x-deadline-ms";

/// `POST /v1/predict-optimal-shard`
pub(super) async fn one(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    let until = deadline(&headers)?;
    let bytes = body::read(&headers, body, &app.config.limits).await?;
    let request: PlacementRequest = body::parse(&bytes)?;
    in_time(&app, until)?;
    let placed = app.live.place(request);
    #[cfg(feature = "otel")]
    let told = placed.as_ref().ok().map(crate::traces::Told::of);
    let response = written(placed).map(|json| json_response(StatusCode::OK, json));
    #[cfg(feature = "otel")]
    let response = response.map(|mut response| {
        response.extensions_mut().insert(told);
        response
    });
    response
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch<'a> {
    #[serde(borrow)]
    requests: Vec<&'a RawValue>,
}

/// `POST /v1/predict-optimal-shard/batch`: each request is answered by itself, in order.
pub(super) async fn batch(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    let until = deadline(&headers)?;
    let bytes = body::read(&headers, body, &app.config.limits).await?;
    let Batch { requests } = serde_json::from_slice(&bytes).map_err(|error| Problem::bad_request(error.to_string()))?;
    let most = app.config.limits.batch;
    if requests.len() > most {
        let detail = format!("{} requests are more than the {most} of a batch; send several", requests.len());
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail));
    }
    let mut json = br#"{"predictions":["#.to_vec();
    for (n, raw) in requests.into_iter().enumerate() {
        if n > 0 {
            json.push(b',');
        }
        let placed = in_time(&app, until).and_then(|()| body::parse(raw.get().as_bytes()));
        let placed = placed.and_then(|request| written(app.live.place(request)));
        json.extend(placed.unwrap_or_else(|problem| problem.to_json().to_string().into_bytes()));
        // Others wait for the thread, too.
        if n % 16 == 15 {
            tokio::task::yield_now().await;
        }
    }
    json.extend(b"]}");
    Ok(json_response(StatusCode::OK, json))
}

/// The answer as JSON.
fn written(placed: Result<Answer, NoEligibleShard>) -> Result<Vec<u8>, Problem> {
    let written = match placed {
        Ok(answer) => serde_json::to_vec(&answer),
        Err(refusal) if refusal.may_run_locally => serde_json::to_vec(&locally(&refusal)),
        Err(refusal) => return Err(nowhere(&refusal)),
    };
    Ok(written.expect("an answer is plain data"))
}

fn nowhere(refusal: &NoEligibleShard) -> Problem {
    let detail = format!("{refusal}; run it yourself, or look at /v1/fleet");
    let extra = serde_json::to_value(refusal).expect("counts are plain data");
    Problem { extra: Some(extra), ..Problem::unavailable("no_eligible_shard", detail) }
}

/// What was done with the outcomes of a request.
#[derive(Default, Serialize)]
struct Tally {
    accepted: usize,
    /// Came before.
    duplicates: usize,
    /// Of decisions that were given up or forgotten; they are in the journal, and nothing was learned.
    late: usize,
    /// Of decisions that another process made; they are in the history.
    unmatched: usize,
}

/// `POST /v1/outcomes`: one, or a list. May be sent again until it is answered with 200.
pub(super) async fn outcomes(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    let bytes = body::read(&headers, body, &app.config.limits).await?;
    let outcomes: Vec<Outcome> = match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'[') => body::parse(&bytes)?,
        _ => vec![body::parse(&bytes)?],
    };
    let mut tally = Tally::default();
    for (n, outcome) in outcomes.iter().enumerate() {
        let settled = app
            .live
            .settle(outcome)
            .map_err(|error| Problem::bad_request(format!("{error} (outcome {n}; those before it were taken)")))?;
        match settled {
            Settled::Taken => tally.accepted += 1,
            Settled::Duplicate => tally.duplicates += 1,
            Settled::Late => tally.late += 1,
            Settled::Unmatched => tally.unmatched += 1,
            Settled::NoRoom => {
                app.live.figures.turn_away(TurnedAway::LogFull);
                let detail = format!("the log has no room from outcome {n} on; send all of them again");
                return Err(Problem::unavailable("log_full", detail));
            }
        }
    }
    Ok(Json(tally).into_response())
}

fn deadline(headers: &HeaderMap) -> Result<Option<Instant>, Problem> {
    let Some(text) = headers.get(DEADLINE) else { return Ok(None) };
    let ms = text.to_str().ok().and_then(|text| text.parse::<u32>().ok());
    let ms = ms.ok_or_else(|| Problem::bad_request(format!("{DEADLINE} must be a whole number of milliseconds")))?;
    Ok(Some(instant() + Duration::from_millis(u64::from(ms))))
}

fn in_time(app: &App, until: Option<Instant>) -> Result<(), Problem> {
    if until.is_some_and(|until| instant() >= until) {
        app.live.figures.turn_away(TurnedAway::Deadline);
        let detail = format!("the {DEADLINE} was over before the request was read");
        return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "deadline", detail));
    }
    Ok(())
}

fn json_response(status: StatusCode, json: Vec<u8>) -> Response {
    let mut response = (status, json).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
