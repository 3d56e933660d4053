//! The history: what routers, shards and markets leave behind, one record per row of its six tables.
//!
//! Every record has two clocks. `event_at` is when it happened; `known_at` is when the router learned it, and only what
//! was known may be used to decide or to train. The total order is (`known_at`, `sequence`).

use serde::{Deserialize, Serialize};

use crate::{
    DecidedBy, FallbackReason, FleetSnapshot, PlacementRequest, Placements, Region, Response, RouterId, ShardId,
    ShardReport, ShardShape, Timestamp,
};

/// A decision, known the moment it is made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecisionRecord {
    /// Unique within a history.
    pub decision_id: u64,
    /// Total order among records that are known at the same instant.
    pub sequence: u64,
    /// When it was decided; `event_at` of the row is the request's.
    pub known_at: Timestamp,
    /// Who decided.
    pub router: RouterId,
    /// Where that router stands.
    pub router_region: Region,
    /// What was asked.
    pub request: PlacementRequest,
    /// Where it went.
    pub shard: ShardId,
    /// Probability with which that shard was drawn, in (0, 1].
    pub propensity: f64,
    /// Shards that were eligible.
    pub eligible: u32,
    /// Expected latency in ms, when the policy predicts one.
    pub predicted_ms: Option<f64>,
    /// Name of the policy.
    pub policy: String,
    /// Which of its deciders spoke.
    pub decided_by: DecidedBy,
    /// Why a better one was passed over.
    pub fallback_reason: Option<FallbackReason>,
    /// Version of the model bundle in use; its service table is part of the logged features.
    pub model_version: Option<String>,
    /// For a share of the decisions: the eligible shards, whose features follow.
    pub logged_shards: Vec<ShardId>,
    /// Their feature vectors, row by row, in the order of the feature table.
    #[serde(with = "null_for_missing")]
    pub logged_features: Vec<f32>,
}

/// JSON has no NaN, which is how a feature is missing.
mod null_for_missing {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(values: &[f32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(|value| (!value.is_nan()).then_some(value)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f32>, D::Error> {
        let values = Vec::<Option<f32>>::deserialize(deserializer)?;
        Ok(values.into_iter().map(|value| value.unwrap_or(f32::NAN)).collect())
    }
}

/// What a challenger, which decides nothing, says of a decision; it belongs to the decision and the outcome of the same id.
///
/// It follows from what was known when it was decided, whenever the challenger is asked: hence it has the decision's clocks
/// and its place in the order, right behind it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShadowRecord {
    /// The decision; each challenger speaks of it at most once.
    pub decision_id: u64,
    /// The decision's place among records that are known at the same instant.
    pub sequence: u64,
    /// When the event happened that asked for the request, as in the decision.
    pub event_at: Timestamp,
    /// When it was decided.
    pub known_at: Timestamp,
    /// Version of the challenger; not empty.
    pub model_version: String,
    /// The shard that the challenger finds cheapest.
    pub shard: ShardId,
    /// Whether that is the shard that was really chosen.
    pub agrees: bool,
    /// Latency that it expects there, in ms, 0 or more.
    pub expected_ms: f64,
    /// Latency that it expects on the shard that was really chosen, in ms, 0 or more; none when that was not among the
    /// candidates.
    pub chosen_expected_ms: Option<f64>,
    /// Warm execution that it finds typical there, in ms, above 0, to be held against what the shard measures; none when
    /// its heads could not be asked.
    pub chosen_exec_ms: Option<f32>,
    /// Why its heads could not be asked: then its service table speaks alone.
    pub fallback_reason: Option<FallbackReason>,
}

/// What became of a decision, known when the response (or the timeout) reaches the router.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutcomeRecord {
    /// The decision.
    pub decision_id: u64,
    /// Total order among records that are known at the same instant.
    pub sequence: u64,
    /// When the shard finished.
    pub event_at: Timestamp,
    /// When the router learned it.
    pub known_at: Timestamp,
    /// The router.
    pub router: RouterId,
    /// The response.
    pub response: Response,
}

/// A shard's report as it reached the routers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportRecord {
    /// Total order among records that are known at the same instant.
    pub sequence: u64,
    /// The router that heard it at that time; none is all routers of the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router: Option<RouterId>,
    /// The shard.
    pub shard: ShardId,
    /// What does not change about it.
    pub shape: ShardShape,
    /// What it said; both clocks are in it.
    pub report: ShardReport,
}

/// One minute of the market.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarketRecord {
    /// Total order among records that are known at the same instant.
    pub sequence: u64,
    /// The router that heard it at that time; none is all routers of the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router: Option<RouterId>,
    /// The end of the minute.
    pub event_at: Timestamp,
    /// When it was learned.
    pub known_at: Timestamp,
    /// What is traded, such as `BTC-PERP`.
    pub instrument: String,
    /// Closing price in US dollars.
    pub price_usd: f64,
    /// Volume in the minute, in units of the instrument.
    pub volume: f64,
    /// Standard deviation of one-minute log returns over the last hour, in basis points.
    pub volatility_bp: Option<f32>,
    /// Log return over the last hour, in basis points.
    pub trend_bp: Option<f32>,
}

/// What holds of functions and shards from now on, by a planner or an operator, as it reached a router; and what else changes its view
/// of the fleet that no report tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectiveRecord {
    /// Total order among records that are known at the same instant.
    pub sequence: u64,
    /// From when on it was to hold.
    pub event_at: Timestamp,
    /// When the router began to follow it.
    pub known_at: Timestamp,
    /// The router.
    pub router: RouterId,
    /// All that holds; what held before does no longer.
    pub placements: Placements,
    /// Shards that the router gave up at that time, because nobody had heard of them for long; they are back when they report.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<ShardId>,
    /// What shards are taken to have from that time on, until they report again: limits that came to hold, or do no longer.
    #[serde(default, skip_serializing_if = "Resized::is_empty")]
    pub resized: Resized,
}

/// Shards and what they are taken to have; lists of one length.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resized {
    /// Which.
    pub shards: Vec<ShardId>,
    /// Cores that run requests, of each.
    pub cores: Vec<f32>,
    /// Memory in MB, of each.
    pub memory_mb: Vec<f32>,
}

impl Resized {
    /// Whether no shard is resized.
    pub fn is_empty(&self) -> bool {
        self.shards.is_empty()
    }

    /// The shards whose size is another one in a fleet than it was before.
    pub fn between(before: &FleetSnapshot, after: &FleetSnapshot) -> Self {
        let mut resized = Self::default();
        for shard in &after.shards {
            let Some(known) = before.position(&shard.id).map(|at| &before.shards[at].shape) else { continue };
            if (known.cores, known.memory_mb) != (shard.shape.cores, shard.shape.memory_mb) {
                resized.shards.push(shard.id.clone());
                resized.cores.push(shard.shape.cores);
                resized.memory_mb.push(shard.shape.memory_mb);
            }
        }
        resized
    }

    /// Has shards of a fleet be of these sizes.
    pub fn apply(&self, fleet: &mut FleetSnapshot) {
        for ((id, cores), memory_mb) in self.shards.iter().zip(&self.cores).zip(&self.memory_mb) {
            if let Some(at) = fleet.position(id) {
                (fleet.shards[at].shape.cores, fleet.shards[at].shape.memory_mb) = (*cores, *memory_mb);
            }
        }
    }
}

/// A record of any of the six tables.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "table", rename_all = "snake_case")]
pub enum HistoryRecord {
    /// A row of `decisions`.
    Decision(Box<DecisionRecord>),
    /// A row of `shadow`.
    Shadow(Box<ShadowRecord>),
    /// A row of `outcomes`.
    Outcome(OutcomeRecord),
    /// A row of `shard_reports`.
    Report(Box<ReportRecord>),
    /// A row of `market`.
    Market(MarketRecord),
    /// A row of `directives`.
    Directive(Box<DirectiveRecord>),
}

impl HistoryRecord {
    /// Its place in the total order.
    pub fn order(&self) -> (Timestamp, u64) {
        match self {
            Self::Decision(record) => (record.known_at, record.sequence),
            Self::Shadow(record) => (record.known_at, record.sequence),
            Self::Outcome(record) => (record.known_at, record.sequence),
            Self::Report(record) => (record.report.known_at, record.sequence),
            Self::Market(record) => (record.known_at, record.sequence),
            Self::Directive(record) => (record.known_at, record.sequence),
        }
    }
}
