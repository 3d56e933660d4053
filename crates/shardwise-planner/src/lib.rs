//! The planner: routers place each request, the planner moves the furniture.
//!
//! Every part is *problem → pure `solve` → plan* (S6, S8, S9 of the specification): no I/O, no clock, no randomness; the
//! instant, the past and the settings are arguments. [`Observations`] folds a history; problems are made from it; plans
//! hold [`Action`]s. Nothing here applies a plan: who does records it in the [`Ledger`], which the next problem is given.
//!
//! ```
//! use shardwise_planner::{ProtocolProblem, ProtocolSettings};
//! use shardwise_types::{ShardId, Timestamp};
//!
//! let problem = ProtocolProblem {
//!     protocol: "aave".into(),
//!     total_load: 1.5,
//!     current_shards: vec![ShardId::new("shard-aave-primary"), ShardId::new("shard-aave-secondary")],
//!     shared: Default::default(),
//!     joined: Default::default(),
//!     last_change: None,
//!     now: Timestamp::default(),
//! };
//! let plan = problem.solve(&ProtocolSettings::default())?;
//! assert_eq!(plan.recommended_shards, 3, "1.5 shards' worth of load at 70 % each");
//! # Ok::<(), shardwise_planner::PlanError>(())
//! ```

mod action;
mod balance;
mod effect;
mod forecast;
mod ledger;
mod observations;
mod optimize;
mod picture;
mod plan;
mod problems;
mod protocol;
mod returns;
mod spike;
mod warm;

pub use action::{Action, Estimate, Unit};
pub use balance::{
    BalanceProblem, BalanceSettings, Bottleneck, BottleneckKind, Expected, LoadBalancingPlan, Part, ShardOutlook,
    SwitchedOffSeries, after_moves,
};
pub use effect::{Effect, EffectReport, judge_effect};
pub use forecast::{
    Ahead, BackTest, Fitted, Forecast, ForecastError, ForecastProblem, ForecastSettings, Forecaster, Loss, Method,
    Past, Prepared, Score, SwitchedOff, Target, forecast,
};
pub use ledger::{Away, Ledger, Move};
pub use observations::{
    Cell, FunctionView, LeftOut, Metric, Moments, ObservationSettings, Observations, Observed, Series, ShardView,
};
pub use optimize::{
    Effects, Expectation, Fault, Improvement, Movable, Optimization, OptimizationPlan, OptimizeProblem,
    OptimizeSettings, RecommendedShard, Teacher,
};
pub use picture::{BeforeAfter, PlanStory};
pub use plan::{Plan, PlanKind, Planner, PlannerSettings, ProtocolPlan, SpikePlan};
pub use protocol::{ProtocolAction, ProtocolOptimization, ProtocolProblem, ProtocolSettings};
pub use returns::{ReturnSettings, returns};
pub use spike::{
    Allocation, ByGroup, Elasticity, GroupLoad, GroupPrediction, LoadGroup, ResourceAllocation, SpikeProblem,
    SpikeSettings, TimeWindow, VolatilityResponse, VolatilitySpike,
};
pub use warm::{WarmCandidate, WarmPlan, WarmProblem, WarmSettings, WarmShard};

/// A problem, a record or settings that are refused: which field, and what would be right.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// A field is out of its range.
    #[error(transparent)]
    Invalid(#[from] shardwise_types::InvalidInput),
    /// A record came behind one that follows it.
    #[error(
        "a record known at {record} came long after one known at {last}; sort the history by known_at and sequence"
    )]
    OutOfOrder {
        /// When the record was known.
        record: shardwise_types::Timestamp,
        /// When the last one was known.
        last: shardwise_types::Timestamp,
    },
}
