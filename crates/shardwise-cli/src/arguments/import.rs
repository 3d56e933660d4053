//! The options of `history import`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use shardwise_types::Timestamp;

#[derive(Args)]
pub(crate) struct HistoryImportArguments {
    /// What the input is written in.
    #[arg(long, value_enum)]
    pub(crate) from: ImportFormat,
    /// TOML file that says which column is which field, as described in crates/shardwise-datasets/IMPORT.md.
    #[arg(long, required_if_eq_any = [("from", "parquet"), ("from", "csv"), ("from", "ndjson"), ("from", "prometheus")])]
    pub(crate) map: Option<PathBuf>,
    /// The file, or several; or the folder of the files that the mapping names; or a server as http://host:port; or journals of
    /// routers.
    #[arg(long, required = true, num_args = 1..)]
    pub(crate) input: Vec<String>,
    /// Folder to write; must not exist or be empty.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Show the first rows as they would be stored, and what would be refused; write nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Largest share of rows that may be refused; above it only the quarantine file is written.
    #[arg(long, default_value_t = 0.1, value_name = "SHARE")]
    pub(crate) max_refused: f64,
    /// NDJSON file for refused rows, replaced when it is there; OUT.refused.ndjson when left out.
    #[arg(long, value_name = "FILE")]
    pub(crate) quarantine: Option<PathBuf>,
    /// First instant to ask Prometheus for, instead of the mapping's.
    #[arg(long)]
    pub(crate) since: Option<Timestamp>,
    /// Instant before which to ask Prometheus, instead of the mapping's.
    #[arg(long)]
    pub(crate) until: Option<Timestamp>,
}

/// What an import reads.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImportFormat {
    /// Parquet files.
    Parquet,
    /// Text files with a header.
    Csv,
    /// Files of one JSON object a line.
    Ndjson,
    /// A server's range queries.
    Prometheus,
    /// Folders in which `serve` keeps its journal; they need no mapping.
    Journal,
}
