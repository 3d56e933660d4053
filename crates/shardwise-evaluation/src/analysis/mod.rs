//! Why a model decides as it does, and where: its choices on simulated paths, held against the truth and a rival; and its trees on
//! logged rows.
//!
//! It aggregates while it plays, so that a report over many millions of decisions is as small as one over a few. It does not judge:
//! that is the [verdict](crate::judge)'s.

mod figures;
mod importance;
mod page;
mod played;
mod slices;
mod view;
mod worst;

use serde::{Deserialize, Serialize};

pub use figures::{
    ConfidenceFigures, ConfidencePoint, CoverageFigures, DeciderFigures, Drift, DriftRow, EffectPoint, FeatureEffect,
    FeatureImportance, Importance, LoggedError, Regret, RegretParts, Slice, SliceKind, Validated, ValidatedShard,
    WorstCandidate, WorstDecision, WorstRival,
};
pub use importance::{LoggedRows, importance};
pub(crate) use page::AnalysisView;
pub use played::{Said, Speaker, Spoken, Weigh, play};

/// What was found out about one model.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Analysis {
    /// Its choices, played.
    pub played: Option<Played>,
    /// What moves its predictions of execution, on logged rows of the held-out period; `None` without trees or rows.
    pub importance: Option<Importance>,
    /// How far each feature moved from the days before the held-out ones to these; `None` when one of them has no logged decision.
    pub drift: Option<Drift>,
    /// How far its predictions of execution are off on logged decisions, before the held-out period and in it.
    pub logged: Vec<LoggedError>,
    /// Whether its traffic is spread over the shards as their weights say.
    pub validated: Option<Validated>,
}

/// What became of a model's choices on simulated paths.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Played {
    /// The rival that it is held against on the same arrivals.
    pub rival: String,
    /// The paths.
    pub seeds: Vec<u64>,
    /// Measured requests on all of them.
    pub requests: u64,
    /// Shares of requests that were done within the latencies that were named for them.
    pub coverage: Vec<CoverageFigures>,
    /// Confidence against what came true.
    pub confidence: Option<ConfidenceFigures>,
    /// How much later than on the best shard requests are done, and why.
    pub regret: Option<Regret>,
    /// Parts of the traffic.
    pub slices: Vec<Slice>,
    /// The choices that were furthest from the best, the worst first.
    pub worst: Vec<WorstDecision>,
}
