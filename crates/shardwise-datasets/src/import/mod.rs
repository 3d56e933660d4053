//! Imports: placements that others wrote, by a mapping file, into a history; IMPORT.md says how a mapping is written.
//!
//! A row that cannot be used never stops an import and never vanishes: it goes to the quarantine with its reason. The
//! history appears as a whole or not at all.

mod admission;
mod csv;
mod fields;
mod journal;
mod mapping;
mod ndjson;
mod parquet;
mod plan;
mod prometheus;
mod quarantine;
mod run;
mod source;
mod time;
mod units;
mod value;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use shardwise_types::Timestamp;

pub use journal::{JournalImport, import_journal};
pub use run::import;

/// What a source is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A Parquet file.
    Parquet,
    /// Text with a header, comma separated unless the mapping says otherwise.
    Csv,
    /// One JSON object a line.
    Ndjson,
    /// The range queries of a Prometheus server.
    Prometheus,
}

/// What to import, and where to.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// The format of tables whose mapping does not say their own.
    pub format: Format,
    /// The mapping file.
    pub map: PathBuf,
    /// Files; or the one folder in which the mapping's own inputs lie; or a server such as `http://localhost:9090`.
    pub inputs: Vec<String>,
    /// Where the history will stand; must not exist or be empty.
    pub out: PathBuf,
    /// Where refused rows go; `OUT.refused.ndjson` when left out. A file that is there is replaced.
    pub quarantine: Option<PathBuf>,
    /// The largest share of rows that may be refused, 0 to 1; above it nothing but the quarantine is written.
    pub max_refused: f64,
    /// Write nothing; the report holds the first rows.
    pub dry_run: bool,
    /// Instead of the mapping's `from`, for Prometheus.
    pub since: Option<Timestamp>,
    /// Instead of the mapping's `to`, for Prometheus.
    pub until: Option<Timestamp>,
}

/// How far an import is.
#[derive(Debug, Clone)]
pub struct ImportProgress {
    /// What is read.
    pub input: String,
    /// Rows of sources that were taken.
    pub rows: u64,
    /// Rows of sources that were refused.
    pub refused: u64,
}

impl std::fmt::Display for ImportProgress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} rows taken, {} refused", self.input, self.rows, self.refused)
    }
}

/// A row that was refused, as the quarantine holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefusedRow {
    /// The file or server.
    pub source: String,
    /// The row in it, from 1 on, a header not counted; of NDJSON the line.
    pub row: u64,
    /// Why, in general; refusals are counted by it.
    pub reason: String,
    /// Why, in particular.
    pub detail: String,
    /// The row as text.
    pub text: String,
}

/// What an import did, or would have done.
#[derive(Debug, Clone)]
pub struct ImportReport {
    /// What the mapping's tables fill, in the order in which they were read, joined by `+`.
    pub table: String,
    /// Rows of sources that were taken.
    pub rows: u64,
    /// Rows of sources that were refused.
    pub refused: u64,
    /// How many were refused for which reason.
    pub reasons: BTreeMap<String, u64>,
    /// The file with what was refused; none when nothing was, or in a dry run.
    pub quarantine: Option<PathBuf>,
    /// The first instant at which a row was known.
    pub from: Option<Timestamp>,
    /// The last instant at which a row was known.
    pub to: Option<Timestamp>,
    /// Where the history stands; none when it was not written.
    pub out: Option<PathBuf>,
    /// Rows of the history's tables; reports that stand for the fleet are among them.
    pub stored: BTreeMap<&'static str, u64>,
    /// Whether more rows than allowed were refused, so that no history was written.
    pub too_many_refused: bool,
    /// Of a dry run: the first rows as they would be stored, each with its table.
    pub first: Vec<(&'static str, serde_json::Map<String, serde_json::Value>)>,
    /// Of a dry run: the first rows that would be refused.
    pub first_refused: Vec<RefusedRow>,
}

impl ImportReport {
    /// The reason that was most often given, and how often.
    pub fn most_common_reason(&self) -> Option<(&str, u64)> {
        let most = self.reasons.iter().max_by_key(|(_, count)| **count)?;
        Some((most.0, *most.1))
    }
}
