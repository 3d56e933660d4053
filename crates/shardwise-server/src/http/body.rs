//! Reading what is sent: JSON, of bounded size, in bounded time.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header::CONTENT_TYPE};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::problem::Problem;
use crate::config::Limits;

/// The bytes of a body that says that it is JSON. What says nothing is refused: a page of another site can have a browser send
/// such a body, but none that says so without asking first.
///
/// # Errors
/// It is something else, too large, too slow, or cut short.
pub(super) async fn read(headers: &HeaderMap, body: Body, limits: &Limits) -> Result<Bytes, Problem> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).and_then(|kind| kind.split(';').next());
    if kind.map(str::trim) != Some("application/json") {
        let detail = "send JSON, with content-type: application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
    }
    let whole = Limited::new(body, limits.body_bytes).collect();
    match tokio::time::timeout(Duration::from_millis(limits.body_ms), whole).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => {
            let detail = format!("the body is larger than {} bytes; send less at a time", limits.body_bytes);
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail))
        }
        Ok(Err(error)) => Err(Problem::bad_request(format!("the body was cut short: {error}"))),
        Err(_) => {
            let detail = format!("the body did not come within {} ms", limits.body_ms);
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "too_slow", detail))
        }
    }
}

/// Reads JSON into what it should be.
///
/// # Errors
/// Says where it is not.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| Problem::bad_request(error.to_string()))
}
