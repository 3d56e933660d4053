//! Evaluation: policies against each other on the same simulated sample paths, the verdict on a model, and the report; the page of a
//! generator's check.
//!
//! It also drives load tests against running servers. It publishes nothing. Verdicts come from policies that are run: off-policy
//! estimates are given as well, where queues do not make them wrong.

mod analysis;
mod arena;
mod charts;
mod closed_loop;
mod confidence;
mod cost_bars;
mod decision_page;
mod difference;
mod error;
mod generator_charts;
mod generator_page;
mod load_driver;
mod losses;
mod lowest_latency;
mod numbers;
pub mod ope;
mod page;
mod plan_page;
mod plans;
mod report;
mod results;
mod rivals;
#[cfg(feature = "schema")]
mod schema;
mod shadow_test;
mod statistics;
mod svg;
#[cfg(test)]
mod synthetic;
mod verdict;
mod visible;

pub use analysis::{
    Analysis, ConfidenceFigures, ConfidencePoint, CoverageFigures, DeciderFigures, Drift, DriftRow, EffectPoint,
    FeatureEffect, FeatureImportance, Importance, LoggedError, LoggedRows, Played, Regret, RegretParts, Said, Slice,
    SliceKind, Speaker, Spoken, Validated, ValidatedShard, Weigh, WorstCandidate, WorstDecision, WorstRival,
    importance, play,
};
pub use arena::{
    ArenaLoss, ArenaPage, ArenaPlan, ArenaProgress, ArenaResult, Calibration, Cell, CellKey, CoverageRow, Group,
    LeagueRow, LossKind, Net, Paired, Problem, Roster, RunCell, SPECIMENS, Setting, arena_losses, arena_subject,
    league, paired, run_arena, specimen, write_arena_page,
};
pub use closed_loop::{Contender, SamplePaths, compare, run};
pub use confidence::calibrate;
pub use decision_page::{DecisionPage, PageCandidate, PageRival, PageWhatIf, WhatIfRow, write_decision_page};
pub use difference::{Change, Differences, differences};
pub use error::EvaluationError;
pub use generator_page::{CheckedStatistic, GeneratorCheck, summary, write_generator_page};
pub use load_driver::{
    Arm, ArmResult, HttpOptions, LatencyRatio, LiveComparison, LiveLatency, LiveOptions, LiveSample, LoadDriverError,
    ShardExecution, drive_http, drive_live,
};
pub use losses::{Loss, SeedPair, WhereItLoses, where_it_loses};
pub use lowest_latency::LowestLatency;
pub use numbers::{figure, grouped, plain};
pub use plan_page::{PlanPage, write_plan_page};
pub use plans::{
    Alert, ArmRatios, CaseOptions, CaseResult, CaseWorld, Check, LEAD_MS, PairedArm, Phase, PhaseLatency, PlanArm,
    PlanCase, PlanSetting, Reaction, SpikeDemand, Steward, StewardParts, case_world, paired_arms, run_plans,
};
pub use report::{
    AlternativeFacts, DatasetFacts, ExecScore, ModelFacts, REPORT_SCHEMA, ReportInput, ReportPaths, SampleDecision,
    write_report,
};
pub use results::{
    CANDIDATE, CHAMPION, CdfPoint, ClosedLoop, Comparison, Fact, METRICS, Metric, Metrics, PolicyResult, Replicate,
    SeedResult, TimelinePoint, Unit,
};
pub use rivals::{RivalChoice, rivals};
#[cfg(feature = "schema")]
pub use schema::report_schema;
pub use shadow_test::{Foretold, REQUIRED_CAPITAL, ShadowTest};
pub use verdict::{BASELINES, Evidence, Reason, STANDARD, TOLERANCE, Verdict, judge, refusal, until_decided};
pub use visible::visible;
