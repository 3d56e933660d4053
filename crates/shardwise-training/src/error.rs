//! Why there is no model.

use std::path::PathBuf;

use crate::lightgbm_text::ConversionError;
use crate::rows::RowCounts;

/// Says why training gave no model.
#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    /// The dataset cannot be read.
    #[error(transparent)]
    Dataset(#[from] shardwise_datasets::DatasetError),
    /// There is too little to learn from or to measure on.
    #[error(
        "{found} usable {part} rows are too few: {needed} are needed; {counts}; \
         import or simulate a longer history and build the dataset again"
    )]
    TooFewRows {
        /// What the rows are for.
        part: &'static str,
        /// Rows that can be used.
        found: usize,
        /// Rows that must be there.
        needed: usize,
        /// Where the others went.
        counts: RowCounts,
    },
    /// A parameter makes no sense.
    #[error("training parameter `{name}` is {value}: it must be {rule}")]
    Option {
        /// The parameter.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What it must be.
        rule: &'static str,
    },
    /// The columns of the dataset do not match each other.
    #[error(
        "column `{column}` of the training rows has {found} values where {expected} were expected; build the dataset again"
    )]
    Columns {
        /// The column.
        column: &'static str,
        /// Values that belong there.
        expected: usize,
        /// Values that are there.
        found: usize,
    },
    /// LightGBM gave up.
    #[error("LightGBM could not train")]
    LightGbm(#[from] lightgbm3::Error),
    /// The trained trees cannot be served.
    #[error("the trained trees cannot be served")]
    Conversion(#[from] ConversionError),
    /// The served forest answers otherwise than the model that was trained.
    #[error(
        "the served forest answers {served} where LightGBM answers {trained} (parity row {row}): this is a bug, do not serve the model"
    )]
    Parity {
        /// The row of the parity check.
        row: usize,
        /// LightGBM's answer.
        trained: f64,
        /// The forest's answer.
        served: f64,
    },
    /// A rival could not be fitted, so that nothing could be compared.
    #[error("the {rival} to compare with could not be fitted: {problem}")]
    Rival {
        /// The rival.
        rival: &'static str,
        /// What its library says.
        problem: String,
    },
    /// Somebody asked to stop a search; finished trials are kept.
    #[error("interrupted; run the same command to go on")]
    Interrupted,
    /// The journal of a search cannot serve.
    #[error("the search's journal {} {problem}", path.display())]
    Journal {
        /// The journal.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// An engine that is timed gave up.
    #[error("{engine}, which is timed beside the others, failed: {problem}")]
    Engine {
        /// The engine.
        engine: &'static str,
        /// What it says.
        problem: String,
    },
    /// The trained parts do not make a head.
    #[error("the trained parts do not make a head")]
    Head(#[from] shardwise_models::HeadProblem),
}
