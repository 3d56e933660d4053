//! The figures of an analysis as plain data.

use serde::{Deserialize, Serialize};
use shardwise_types::CostTerms;

use crate::Fact;
#[cfg(feature = "schema")]
use crate::schema::optional_cost_terms;

/// Shares of requests that were done within the latencies that were named for them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CoverageFigures {
    /// What the requests have in common: `all`, `risk`, `load` or `shard`.
    pub by: String,
    /// Its value, such as a risk level or a shard.
    pub of: String,
    /// Requests.
    pub requests: u64,
    /// Share within the named p50; 0.5 is right.
    pub p50: f64,
    /// Share within the named p90; 0.9 is right.
    pub p90: f64,
    /// Share within the named p99; 0.99 is right.
    pub p99: f64,
}

/// Confidence against what came true.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ConfidenceFigures {
    /// Choices that were held against the truth.
    pub choices: u64,
    /// Mean distance of confidence from the share that came true, weighted by choices.
    pub calibration_error: f64,
    /// By confidence, lowest first.
    pub points: Vec<ConfidencePoint>,
}

/// Choices of about the same confidence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ConfidencePoint {
    /// Mean confidence.
    pub confidence: f64,
    /// Share within 10 % and 5 ms of the best shard.
    pub right: f64,
    /// Choices.
    pub choices: u64,
}

/// How much later than on the best eligible shard requests are foreseen to be done when they are placed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Regret {
    /// Choices that were looked at.
    pub choices: u64,
    /// Mean in ms.
    pub mean_ms: f64,
    /// The same of the rival's choices, on its own queues.
    pub rival_mean_ms: Option<f64>,
    /// Share of choices within 10 % and 5 ms of the best.
    pub right: f64,
    /// The mean, by what makes the chosen shard slower than the best.
    pub parts: RegretParts,
    /// By who decided, the most regret first.
    pub by_decider: Vec<DeciderFigures>,
}

/// What a regret is made of, in ms; the sum is the regret. A part is negative where the chosen shard is the faster one.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RegretParts {
    /// Distance.
    pub network_ms: f64,
    /// Queue.
    pub wait_ms: f64,
    /// Running, without loading.
    pub execution_ms: f64,
    /// Loading the function.
    pub cold_ms: f64,
    /// Failures and timeouts, which count as the timeout.
    pub failure_ms: f64,
}

impl RegretParts {
    /// The parts by name, in the order of the fields.
    pub fn named(&self) -> [(&'static str, f64); 5] {
        [
            ("network", self.network_ms),
            ("wait", self.wait_ms),
            ("execution", self.execution_ms),
            ("cold start", self.cold_ms),
            ("failures", self.failure_ms),
        ]
    }
}

/// Regret of the choices of one decider.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DeciderFigures {
    /// Who decided.
    pub decided_by: String,
    /// Choices that were looked at.
    pub choices: u64,
    /// Mean regret in ms.
    pub mean_ms: f64,
    /// Share of all regret.
    pub share: f64,
}

/// What the requests of a slice have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SliceKind {
    /// The protocol.
    Protocol,
    /// The risk tier.
    Risk,
    /// The router's region.
    Region,
    /// Powers of ten of the amount in USD.
    Amount,
    /// The hour of the event, UTC.
    Hour,
    /// How many requests arrived in the same second, by fifths of the seconds.
    Load,
}

impl SliceKind {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 6] = [Self::Protocol, Self::Risk, Self::Region, Self::Amount, Self::Hour, Self::Load];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Protocol => "protocol",
            Self::Risk => "risk",
            Self::Region => "region",
            Self::Amount => "amount",
            Self::Hour => "hour",
            Self::Load => "load",
        }
    }
}

/// A part of the traffic, as the model and its rival served it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Slice {
    /// What the requests have in common.
    pub kind: SliceKind,
    /// Its value.
    pub of: String,
    /// Requests.
    pub requests: u64,
    /// Mean effective latency in ms.
    pub mean_ms: f64,
    /// The rival's.
    pub rival_mean_ms: f64,
    /// 99th percentile in ms.
    pub p99_ms: f64,
    /// The rival's.
    pub rival_p99_ms: f64,
    /// Share beyond the objective of their urgency.
    pub slo_miss: f64,
    /// The rival's.
    pub rival_slo_miss: f64,
    /// Mean over the rival's; below 1 is better.
    pub ratio: f64,
    /// 95 % interval of the ratio, by the jackknife over stretches of time; `None` with too few of them.
    pub interval: Option<[f64; 2]>,
}

impl Slice {
    /// Whether it is shown to be worse than the rival's.
    pub fn loses(&self) -> bool {
        self.interval.is_some_and(|[low, _]| low > 1.0)
    }
}

/// A choice that was far from the best.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WorstDecision {
    /// The path.
    pub seed: u64,
    /// When it was made.
    pub at: String,
    /// The request in words.
    pub request: Vec<Fact>,
    /// How much later than on the best shard it was foreseen to be done, in ms.
    pub regret_ms: f64,
    /// What that is made of.
    pub parts: RegretParts,
    /// Confidence in it.
    pub confidence: f64,
    /// Who decided.
    pub decided_by: String,
    /// Why, in words.
    pub reasoning: Vec<String>,
    /// The chosen shard first, then the best, then what was named as alternatives or chosen by a rival.
    pub candidates: Vec<WorstCandidate>,
    /// What rivals would have chosen in the same state.
    #[serde(default)]
    pub rivals: Vec<WorstRival>,
}

/// A shard that a request could have gone to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WorstCandidate {
    /// The shard.
    pub shard: String,
    /// What it is: `chosen`, `best`, `alternative` or `rival`.
    pub role: String,
    /// The terms of the cost as the model saw it; `None` when it did not see it.
    #[cfg_attr(feature = "schema", schemars(schema_with = "optional_cost_terms"))]
    pub cost: Option<CostTerms>,
    /// Their sum, in ms.
    pub cost_ms: Option<f64>,
    /// Latency that the model expected, in ms.
    pub expected_ms: Option<f64>,
    /// Latency that was foreseen with the truth, in ms.
    pub foreseen_ms: f64,
}

/// What a rival would have chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WorstRival {
    /// The rival.
    pub policy: String,
    /// Its shard; `None` when it finds none.
    pub shard: Option<String>,
    /// Whether that is the shard that was chosen.
    pub agrees: bool,
    /// Latency that the rival expected there, in ms.
    pub expected_ms: Option<f64>,
    /// What the shard costs as the model saw it, in ms.
    pub cost_ms: Option<f64>,
    /// Latency that was foreseen there with the truth, in ms.
    pub foreseen_ms: Option<f64>,
}

/// What moves the predictions of execution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Importance {
    /// Rows that were explained.
    pub rows: u64,
    /// Mean prediction in ln ms, from which contributions start.
    pub mean_ln_ms: f64,
    /// Furthest that mean and contributions were from the prediction, in ln ms.
    pub largest_gap: f64,
    /// The largest mean contribution first.
    pub features: Vec<FeatureImportance>,
    /// How the first of them act.
    pub effects: Vec<FeatureEffect>,
}

/// What one feature does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FeatureImportance {
    /// The feature.
    pub feature: String,
    /// Mean absolute contribution (exact TreeSHAP) in ln ms.
    pub mean_contribution: f64,
    /// Share of the sum of squares that all splits explain on these rows; a split on noise gains next to nothing here.
    pub gain: f64,
}

/// How a prediction moves with one feature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FeatureEffect {
    /// The feature.
    pub feature: String,
    /// By value, rising; what is missing is left out.
    pub points: Vec<EffectPoint>,
}

/// Rows of about the same value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EffectPoint {
    /// Mean value.
    pub value: f64,
    /// Mean contribution in ln ms.
    pub mean: f64,
    /// A tenth of the contributions are below.
    pub low: f64,
    /// A tenth are above.
    pub high: f64,
}

/// How far features moved.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Drift {
    /// Features that moved: an index above 0.1.
    pub moved: usize,
    /// Features that are another population: an index above 0.25.
    pub other: usize,
    /// All features, the furthest first.
    pub features: Vec<DriftRow>,
}

impl Drift {
    /// Counts what moved.
    pub fn new(features: Vec<DriftRow>) -> Self {
        let above = |limit: f64| features.iter().filter(|row| row.psi > limit).count();
        Self { moved: above(0.1), other: above(0.25), features }
    }
}

/// How far a feature moved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DriftRow {
    /// The feature.
    pub feature: String,
    /// Population stability index: below 0.1 is stable, above 0.25 another population.
    pub psi: f64,
    /// Kolmogorov–Smirnov distance, 0 to 1.
    pub ks: f64,
}

/// How far predictions of execution are off on logged, warm executions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LoggedError {
    /// `before` the held-out period, or `held out`.
    pub period: String,
    /// Rows.
    pub rows: u64,
    /// Root mean square error of ln ms.
    pub rmse: f64,
    /// Mean of prediction less outcome in ln ms; above 0 it predicts too much.
    pub bias: f64,
    /// The error of the service table alone.
    pub table_rmse: f64,
}

/// Traffic against the shards' weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Validated {
    /// The verdict in a word.
    pub verdict: String,
    /// What is to be read with it.
    pub meaning: String,
    /// The shards that are furthest from their share first.
    pub shards: Vec<ValidatedShard>,
}

/// One shard's traffic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ValidatedShard {
    /// The shard.
    pub shard: String,
    /// Requests.
    pub requests: u64,
    /// Share of all requests.
    pub share: f64,
    /// Share that was expected.
    pub expected: f64,
    /// Share over the expected one.
    pub ratio: f64,
}
