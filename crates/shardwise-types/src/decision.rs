//! What is answered: the shard, why, what else was possible, and who decided.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Confidence, ShardId};

/// Who decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecidedBy {
    /// The model's execution head, in the cost.
    Model,
    /// The bundle's service table in the same cost, without the trees.
    ServiceTable,
    /// The same cost with what this router measured itself (SED-tab).
    OnlineEstimates,
    /// Least in-flight work per core: nothing is known of the function anywhere.
    LeastLoaded,
    /// Another policy, named in the log.
    Policy,
}

/// Why a better decider was passed over; never silent, always counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FallbackReason {
    /// No bundle is loaded.
    NoModel,
    /// The bundle has no usable execution head.
    NoExecHead,
    /// The head gave NaN, an infinity or a negative time.
    BadPrediction,
    /// Neither the bundle nor this router has seen anything like the function.
    NothingKnown,
}

impl DecidedBy {
    /// All deciders.
    pub const ALL: [Self; 5] =
        [Self::Model, Self::ServiceTable, Self::OnlineEstimates, Self::LeastLoaded, Self::Policy];

    /// The name as it is written in the history.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::ServiceTable => "service_table",
            Self::OnlineEstimates => "online_estimates",
            Self::LeastLoaded => "least_loaded",
            Self::Policy => "policy",
        }
    }
}

impl FallbackReason {
    /// All reasons.
    pub const ALL: [Self; 4] = [Self::NoModel, Self::NoExecHead, Self::BadPrediction, Self::NothingKnown];

    /// The name as it is written in the history.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoModel => "no_model",
            Self::NoExecHead => "no_exec_head",
            Self::BadPrediction => "bad_prediction",
            Self::NothingKnown => "nothing_known",
        }
    }
}

impl fmt::Display for FallbackReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoModel => "no model is loaded",
            Self::NoExecHead => "the model has no execution head",
            Self::BadPrediction => "the model predicted something that is not a time",
            Self::NothingKnown => "nothing is known of the function yet",
        })
    }
}

/// Why no shard can be named: a typed refusal that the caller falls back from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error(
    "no eligible shard among {shards}: {unhealthy} unhealthy or ejected, {stale} without a fresh report, {forbidden} forbidden by amount or residency, {too_small} without enough memory"
)]
pub struct NoEligibleShard {
    /// Shards in the fleet.
    pub shards: u32,
    /// Unhealthy by their own report or ejected by the breaker.
    pub unhealthy: u32,
    /// Without a report young enough.
    pub stale: u32,
    /// Forbidden by a hard rule.
    pub forbidden: u32,
    /// Without enough memory.
    pub too_small: u32,
}

/// The additive terms of a candidate's cost, in ms. Their sum is the cost.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CostTerms {
    /// Router to shard and shard to exchange.
    pub network_ms: f64,
    /// On a core, without loading.
    pub execution_ms: f64,
    /// Loading the function when it is not warm there.
    pub cold_ms: f64,
    /// In the shard's queue.
    pub wait_ms: f64,
    /// Probability of an error × timeout.
    pub error_ms: f64,
    /// The price of congestion, λ: what this request costs the others.
    pub congestion_ms: f64,
}

impl CostTerms {
    /// The cost in ms.
    pub fn total_ms(&self) -> f64 {
        self.latency_ms() + self.error_ms + self.congestion_ms
    }

    /// The part that the request itself will feel, in ms.
    pub fn latency_ms(&self) -> f64 {
        self.network_ms + self.execution_ms + self.cold_ms + self.wait_ms
    }

    /// The terms by name, in the order of the fields.
    pub fn named(&self) -> [(&'static str, f64); 6] {
        [
            ("network", self.network_ms),
            ("execution", self.execution_ms),
            ("cold start", self.cold_ms),
            ("wait", self.wait_ms),
            ("errors", self.error_ms),
            ("congestion", self.congestion_ms),
        ]
    }
}

/// A candidate that was not chosen.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Alternative {
    /// The shard.
    pub shard: ShardId,
    /// The terms of its cost.
    pub cost: CostTerms,
    /// Latency that it would have, in ms.
    pub expected_latency: f64,
    /// Probability that it would have been the best.
    pub probability_best: Confidence,
}

/// The answer of `predict_optimal_shard`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardPrediction {
    /// Where the request should run.
    pub recommended_shard: ShardId,
    /// Probability that it is within 10 % and 5 ms of the best eligible shard.
    pub confidence: Confidence,
    /// Latency that the request will feel, in ms.
    pub expected_latency: f64,
    /// Requests per core on the shard once this one is there.
    pub expected_load: f64,
    /// Why, in words and numbers: the terms of the cost against the runner-up.
    pub reasoning: Vec<String>,
    /// The next best, cheapest first, three at most.
    pub alternative_shards: Vec<Alternative>,
    /// The terms of the recommended shard's cost.
    pub cost: CostTerms,
    /// Probability with which it was drawn; 1 when nothing was left to chance.
    pub propensity: f64,
    /// Who decided.
    pub decided_by: DecidedBy,
    /// Why a better decider was passed over, if one was.
    pub fallback_reason: Option<FallbackReason>,
    /// The version of the bundle; `None` without one.
    pub model_version: Option<String>,
}
