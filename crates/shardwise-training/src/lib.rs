//! Learns models from datasets: fits the heads, checks that what is served answers as what was trained, and measures both
//! beside their rivals on rows that no one trained on.
//!
//! The same dataset, options and seed give the same bundle, byte for byte. Left out: datasets themselves, the gate that
//! decides who becomes champion, and anything that serves.

mod baselines;
mod cost_model;
mod dataset;
mod error;
mod error_head;
mod exec;
mod exec_rows;
mod figures;
mod grow;
mod latency;
mod lightgbm_text;
mod options;
mod quantiles;
mod rows;
mod score_bench;
mod search;
mod side;
mod train;
mod train_bench;

pub use cost_model::{CostModel, fit_cost_model};
pub use dataset::{dataset_rows, train};
pub use error::TrainingError;
pub use exec_rows::{ExecFigures, exec_rows, measure_exec_model};
pub use latency::{LatencyMetrics, LatencyModels, train_latency, train_latency_rows};
pub use lightgbm_text::{ConversionError, covered_forest_from_lightgbm_text, forest_from_lightgbm_text};
pub use options::TrainOptions;
pub use rows::{Part, Rows};
pub use score_bench::{
    EngineDifference, EngineTime, LeftOut, Parity, ScoreBench, ScoreBenchOptions, check_parity, score_bench,
};
pub use search::{Parameters, SearchOptions, Searched, Trial, search};
pub use train::{Origin, Trained, measure_exec, train_rows};
pub use train_bench::{BenchHead, HeadTimes, TrainBenchPlan, TrainTimes, train_here, train_in_python};
