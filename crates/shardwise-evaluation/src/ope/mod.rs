//! Off-policy evaluation: what another policy would have cost, estimated from what one that explores has logged.
//!
//! Placements are no bandit: where a request goes changes the queues that later ones meet. An estimate is therefore a mean of
//! what single decisions would have cost *in the states that the logging policy made*, and it is given only where that is
//! close to the truth: see [`Validity`]. Left out: the replay of logs and the model of costs, which
//! the caller brings.

mod estimators;
mod evaluate;
mod logs;
mod validity;

pub use estimators::{Estimate, Estimator, OpeOptions, Round, estimate};
pub use evaluate::{CostModel, FOLDS, OffPolicy, off_policy};
pub use logs::{LogCounts, LogReader, Logs};
pub use validity::{Limits, Shift, Support, Validity, Weighed, validity};
