//! What was foretold of a request when it was placed, kept until its response can be compared with it.

use serde::{Deserialize, Serialize};

/// Latencies in ms that different predictors expected of the request on the shard that was chosen; `None` when one said
/// nothing.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Forecast {
    /// The model's.
    pub model_ms: Option<f32>,
    /// The service table's.
    pub table_ms: Option<f32>,
    /// That of this router's own measurements.
    pub online_ms: Option<f32>,
    /// The expected latency that was answered.
    pub answered_ms: Option<f32>,
    /// Which kind of request it was, for those who learn how far off forecasts are.
    pub kind: u16,
}
