//! Evaluation: policies against each other on the same simulated sample paths, the verdict on a model, and the report.
//!
//! It also drives load tests against running servers. It publishes nothing and estimates nothing off-policy: queues make
//! such estimates wrong, so policies are run.

mod charts;
mod closed_loop;
mod error;
mod load_driver;
mod losses;
mod numbers;
mod page;
mod report;
mod results;
mod statistics;
mod svg;
#[cfg(test)]
mod synthetic;
mod verdict;

pub use closed_loop::{Contender, SamplePaths, compare, run};
pub use error::EvaluationError;
pub use load_driver::{HttpOptions, LoadDriverError, drive_http};
pub use losses::{Loss, SeedPair, WhereItLoses, where_it_loses};
pub use report::{
    AlternativeFacts, DatasetFacts, ExecScore, ModelFacts, ReportInput, ReportPaths, SampleDecision, write_report,
};
pub use results::{
    CANDIDATE, CHAMPION, CdfPoint, ClosedLoop, Comparison, Fact, METRICS, Metric, Metrics, PolicyResult, Replicate,
    SeedResult, TimelinePoint, Unit,
};
pub use verdict::{BASELINES, Evidence, Reason, TOLERANCE, Verdict, judge};
