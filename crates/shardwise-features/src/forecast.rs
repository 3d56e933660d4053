//! What was foretold of a request when it was placed, kept until its response can be compared with it.

use serde::{Deserialize, Serialize};

/// Warm executions in ms that different predictors expected of the request on the shard that was chosen; `None` when one said
/// nothing.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Forecast {
    /// The model's.
    pub model_ms: Option<f32>,
    /// The service table's.
    pub table_ms: Option<f32>,
    /// That of this router's own measurements.
    pub online_ms: Option<f32>,
    /// That of a challenger that changes no decision; only simulators hear of it before the request is sent.
    pub challenger_ms: Option<f32>,
    /// Whether model and table would have chosen the same shard, so that neither speaks of its own pick.
    pub agreed: bool,
    /// What was answered.
    pub answer: Option<Answer>,
}

/// The part of an answer that time will judge.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Expected latency in ms.
    pub expected_ms: f32,
    /// Latencies within which half, nine tenths and 99 hundredths of such requests are done, in ms.
    pub quantiles_ms: [f32; 3],
    /// What these were before they were corrected by what responses taught, in ms.
    #[serde(default)]
    pub base_ms: [f32; 3],
    /// Probability that the shard is within 10 % and 5 ms of the best, in [0, 1].
    pub confidence: f32,
    /// Whether the shard is busy: more than 0.7 cores wanted for each of its own.
    pub congested: bool,
    /// Which kind of request it was, for whoever learns how far off answers are.
    pub kind: u16,
}
