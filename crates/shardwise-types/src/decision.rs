//! What is answered: the shard, why, what else was possible, and who decided.

use std::fmt;
use std::sync::Arc;

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize, Serializer};

use crate::{Confidence, ShardId};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal, $meaning:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $word)] $variant),* }

        impl $name {
            /// All of them.
            pub const ALL: [Self; [$($word),*].len()] = [$(Self::$variant),*];

            /// The name as it is written in the history and in JSON.
            pub fn as_str(self) -> &'static str { match self { $(Self::$variant => $word),* } }

            /// What it means, in words that continue a sentence.
            pub fn meaning(self) -> &'static str { match self { $(Self::$variant => $meaning),* } }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(self.meaning()) }
        }
    };
}

words! {
    /// Who decided. A guard that changes the choice has decided.
    DecidedBy {
        /// The model's heads, in the cost.
        Model = "model", "cost with execution, cold start and wait by the model";
        /// A draw from the shards that are nearly as good, so that the history keeps teaching.
        Exploration = "exploration", "drawn from the shards that are nearly as good, to keep learning";
        /// The admission guard: a shard with a free core instead of a crowded one that is hardly better.
        Admission = "admission", "a shard with a free core, because the cheapest is crowded and hardly better";
        /// The slow start guard: another shard, because a new one has had its share for now.
        SlowStart = "slow_start", "passing over a new shard, which has had its share for now";
        /// The cap: the service table's choice, because it takes the model's for far too dear.
        Cap = "cap", "the service table, which takes the model's choice for far too dear";
        /// The bundle's service table in the same cost, without the trees.
        ServiceTable = "service_table", "cost with execution by the service table";
        /// The same cost with what this router measured itself (SED-tab).
        OnlineEstimates = "online_estimates", "cost with execution by this router's own measurements";
        /// The specification's protocol strategy (S1).
        ProtocolStrategy = "protocol_strategy", "the protocol's shards by load, affinity and latency";
        /// The specification's risk strategy (S2).
        RiskStrategy = "risk_strategy", "the risk tier's shards by the weights of the urgency";
        /// The specification's geographic strategy (S3).
        GeographicStrategy = "geographic_strategy", "the shards of the exchange's region";
        /// The specification's resource matcher (S5).
        ResourceMatcher = "resource_matcher", "the shards with the most resources left";
        /// Least in-flight work per core: nothing was measured yet.
        LeastLoaded = "least_loaded", "least work in flight per core";
        /// The router runs it itself: no shard is eligible, and no hard rule forbids it (S13).
        Local = "local", "run by the router itself, because no shard is eligible";
        /// A traffic split that operators made (S12).
        TrafficSplit = "traffic_split", "the function's traffic split, which operators made";
        /// Another policy, named in the log.
        Policy = "policy", "another policy";
    }
}

words! {
    /// Why a better decider was passed over; never silent, always counted.
    FallbackReason {
        /// No bundle is loaded.
        NoModel = "no_model", "no model is loaded";
        /// The bundle has no usable execution head.
        NoExecHead = "no_exec_head", "the model has no execution head";
        /// A head gave NaN, an infinity or a time that is none.
        BadPrediction = "bad_prediction", "the model predicted something that is not a time";
        /// Neither the bundle nor this router has seen anything like the function.
        NothingKnown = "nothing_known", "nothing is known of how long executions take yet";
        /// The bundle was trained too long ago.
        StaleModel = "stale_model", "the model was trained too long ago";
        /// The outcome gate: of late the model erred more than the service table.
        GateClosed = "gate_closed", "the model has erred more than the service table of late";
        /// Too many of the features that the model saw in training are missing.
        MissingFeatures = "missing_features", "too many features are missing";
        /// The decision had no time left for the model.
        OverBudget = "over_budget", "the model has taken more than its time of late";
    }
}

words! {
    /// How far the search for shards had to be widened.
    Widening {
        /// Not at all: the shards that all constraints allow.
        None = "none", "within all constraints";
        /// To the tiers above the request's.
        HigherTier = "higher_tier", "in a higher tier";
        /// To the general shards.
        General = "general", "among the general shards";
        /// To any healthy shard that no hard rule forbids.
        AnyHealthy = "any_healthy", "among all healthy shards";
        /// To shards in doubt: silent for too long, or ejected by the breaker.
        Doubtful = "doubtful", "among shards that are silent or failed of late";
    }
}

/// Why no shard can be named: a typed refusal that the caller falls back from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error(
    "no eligible shard among {shards}: {unhealthy} unhealthy, {stale} silent or ejected, {forbidden} forbidden by amount, tier or residency, {too_small} without enough memory"
)]
pub struct NoEligibleShard {
    /// Shards in the fleet.
    pub shards: u32,
    /// Unhealthy by their own report, or without any.
    pub unhealthy: u32,
    /// Silent for too long, or ejected by the breaker.
    pub stale: u32,
    /// Forbidden by a hard rule.
    pub forbidden: u32,
    /// Without enough memory.
    pub too_small: u32,
    /// Whether the router may run the request itself (S13): that is on, and no hard rule forbids it.
    #[serde(default)]
    pub may_run_locally: bool,
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

/// How many alternatives an answer names.
pub const MOST_ALTERNATIVES: usize = 3;

/// The answer of `predict_optimal_shard`. Making one allocates nothing; words are made when it is read.
#[derive(Debug, Clone, PartialEq)]
pub struct ShardPrediction {
    /// Where the request should run.
    pub recommended_shard: ShardId,
    /// Probability that it is within 10 % and 5 ms of the best eligible shard.
    pub confidence: Confidence,
    /// Latency that the request is expected to feel, in ms.
    pub expected_latency: f64,
    /// Half of such requests are done within this, in ms.
    pub latency_p50: f64,
    /// Nine in ten are done within this, in ms.
    pub latency_p90: f64,
    /// 99 in a hundred are done within this, in ms.
    pub latency_p99: f64,
    /// Cores wanted on the shard once this request is there, over its cores.
    pub expected_load: f64,
    /// Probability that the request succeeds in time: by the model's head of failures, or as measured of late if that is worse.
    pub success_probability: Confidence,
    /// The terms of the recommended shard's cost.
    pub cost: CostTerms,
    /// The next best, cheapest first.
    pub alternative_shards: ArrayVec<Alternative, MOST_ALTERNATIVES>,
    /// Shards that were eligible.
    pub eligible: u32,
    /// How far the search had to be widened.
    pub widening: Widening,
    /// Whether it is a makeshift: an overflow shard, or one in doubt.
    pub degraded: bool,
    /// Probability with which it was drawn; 1 when nothing was left to chance.
    pub propensity: f64,
    /// Who decided.
    pub decided_by: DecidedBy,
    /// Why a better decider was passed over, if one was.
    pub fallback_reason: Option<FallbackReason>,
    /// The version of the bundle; `None` without one.
    pub model_version: Option<Arc<str>>,
}

impl ShardPrediction {
    /// Why, in words and numbers: the terms of the cost against the runner-up's. They are exact, for the cost is a sum and
    /// the differences of its terms add up to the difference of the costs.
    pub fn reasoning(&self) -> Vec<String> {
        crate::reasoning::explain(self)
    }
}

impl Serialize for ShardPrediction {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Written<'a> {
            recommended_shard: &'a ShardId,
            confidence: Confidence,
            expected_latency: f64,
            latency_p50: f64,
            latency_p90: f64,
            latency_p99: f64,
            expected_load: f64,
            success_probability: Confidence,
            reasoning: Vec<String>,
            alternative_shards: &'a [Alternative],
            cost: &'a CostTerms,
            eligible: u32,
            widening: Widening,
            degraded: bool,
            propensity: f64,
            decided_by: DecidedBy,
            fallback_reason: Option<FallbackReason>,
            model_version: Option<&'a str>,
        }
        Written {
            recommended_shard: &self.recommended_shard,
            confidence: self.confidence,
            expected_latency: self.expected_latency,
            latency_p50: self.latency_p50,
            latency_p90: self.latency_p90,
            latency_p99: self.latency_p99,
            expected_load: self.expected_load,
            success_probability: self.success_probability,
            reasoning: self.reasoning(),
            alternative_shards: &self.alternative_shards,
            cost: &self.cost,
            eligible: self.eligible,
            widening: self.widening,
            degraded: self.degraded,
            propensity: self.propensity,
            decided_by: self.decided_by,
            fallback_reason: self.fallback_reason,
            model_version: self.model_version.as_deref(),
        }
        .serialize(serializer)
    }
}
