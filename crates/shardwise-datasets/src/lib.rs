//! History in, training data out: the five tables of placements as Parquet, their replay in the one total order, and
//! point-in-time correct datasets that can be built again, checked and trusted.
//!
//! It leaves out features of its own (there is one `extract`, in `shardwise-features`), policies and training.
//!
//! ```no_run
//! use shardwise_datasets::{BuildOptions, build, verify};
//!
//! let (history, out) = ("data/history".as_ref(), "data/datasets/first".as_ref());
//! let card = build(history, out, &BuildOptions::default(), &mut |_| true)?;
//! println!("{} rows, {}", card.rows, card.content_hash);
//! let report = verify(history, out, &|_version| None)?;
//! assert_eq!(report.mismatches, 0);
//! # Ok::<(), shardwise_datasets::DatasetError>(())
//! ```

mod build;
mod card;
mod columns;
mod day;
mod error;
mod files;
mod history;
mod import;
mod part_writer;
mod quality;
mod replay;
mod reservoir;
mod rows;
#[cfg(test)]
mod sample;
mod schema;
mod state;
pub mod traces;
mod training_data;
mod values;
mod verify;

pub use build::{BuildOptions, Progress, build};
pub use card::{Blocks, DatasetCard, DayCard, FileSum, Splits, TimeRange, load_card, load_observations};
pub use columns::{ColumnSpec, Kind, Rule};
pub use error::{DatasetError, Place};
pub use history::{History, HistorySummary, HistoryWriter, Records};
pub use import::{
    Format, ImportOptions, ImportProgress, ImportReport, JournalImport, RefusedRow, import, import_journal,
};
pub use quality::{ColumnDrift, Profile, QualityCheck, QualityLimits, QualityReport, Spot, check_quality, rows_drift};
pub use replay::{Answered, Replay, ReplayImage};
pub use rows::dataset_columns;
pub use schema::{TABLES, TableDoc, history_page};
pub use training_data::{Split, TrainingData, training_data};
pub use verify::{Mismatch, VerifyReport, verify};
