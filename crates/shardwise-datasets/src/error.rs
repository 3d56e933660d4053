//! What can go wrong with a history or a dataset; every message names the place and what to do.

use std::path::{Path, PathBuf};

/// A history or a dataset that cannot be written, read or trusted.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// The file system refused.
    #[error("cannot {action} {}: {source}; check the path, its permissions and the space on the disk", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A folder that was to be written holds something else.
    #[error("{} is not empty; name another folder or remove it first", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// There is no history.
    #[error("there is no history at {}; name a folder that holds decisions/, outcomes/, shard_reports/ and market/", path.display())]
    NoHistory {
        /// The folder.
        path: PathBuf,
    },
    /// The history has no decisions.
    #[error("the history at {} holds no decisions{range}; simulate or import some, or widen the time range", path.display())]
    EmptyHistory {
        /// The folder.
        path: PathBuf,
        /// The range that was asked for, if one was.
        range: String,
    },
    /// A table's folder is missing.
    #[error("the history at {} has no table '{table}'; add the folder {table}/date=YYYY-MM-DD/ (an empty {table}/ says that there are no rows)", path.display())]
    MissingTable {
        /// The history.
        path: PathBuf,
        /// The table.
        table: &'static str,
    },
    /// A folder of a table is not a day.
    #[error("{} is not a day of a table; partitions are named date=YYYY-MM-DD", path.display())]
    NotADay {
        /// The folder.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {problem}; it may be cut short or of another kind, so bring it again", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Polars or the file system failed while a file was written.
    #[error("cannot write {}: {problem}; check the space on the disk", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A column is missing.
    #[error("{}: column '{column}' is missing; add it as {expected}", path.display())]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// Its type.
        expected: String,
    },
    /// A column has the wrong type.
    #[error("{}: column '{column}' is {found}, not {expected}; write it as {expected}", path.display())]
    WrongType {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// The type that is needed.
        expected: String,
        /// The type that is there.
        found: String,
    },
    /// A value that its column does not allow.
    #[error("{place}: column '{column}' holds {value}; {rule}")]
    BadValue {
        /// File and row.
        place: Place,
        /// The column.
        column: String,
        /// What it holds.
        value: String,
        /// What it may hold.
        rule: String,
    },
    /// A row that lies in the partition of another day.
    #[error("{place}: known_at is {known_at}, which is not on {date}; move the row to the partition of its day in UTC")]
    WrongDay {
        /// File and row.
        place: Place,
        /// When it was known.
        known_at: String,
        /// The day of the partition.
        date: String,
    },
    /// A decision id that is there twice.
    #[error("{place}: decision {decision_id} is there twice; every decision needs an id of its own, so remove one")]
    DuplicateDecision {
        /// File and row.
        place: Place,
        /// The decision.
        decision_id: u64,
    },
    /// Two rows that nothing puts in order.
    #[error(
        "{place}: another row of {table} has the same known_at, sequence, id and event_at; number the rows with `sequence` or remove one"
    )]
    DuplicateRow {
        /// File and row.
        place: Place,
        /// The table.
        table: &'static str,
    },
    /// What a challenger says of nothing that was decided.
    #[error(
        "{place}: no decision {decision_id} has the same event_at, known_at and sequence as this row of shadow; add the decision, copy the three from it, or remove the row"
    )]
    ShadowWithoutDecision {
        /// File and row.
        place: Place,
        /// The decision.
        decision_id: u64,
    },
    /// An outcome that belongs to nothing.
    #[error(
        "{place}: the outcome of decision {decision_id} has no open decision before it; add the decision, or remove the outcome if it is a second one"
    )]
    OutcomeWithoutDecision {
        /// File and row.
        place: Place,
        /// The decision.
        decision_id: u64,
    },
    /// A decision for a shard that nobody knows.
    #[error(
        "{place}: decision {decision_id} names shard '{shard}', which has not reported by then; add its first report before the decision"
    )]
    UnknownShard {
        /// File and row.
        place: Place,
        /// The decision.
        decision_id: u64,
        /// The shard.
        shard: String,
    },
    /// Logged features of another shape.
    #[error(
        "{place}: decision {decision_id} logs {found} feature values for {shards} shards; {expected} are needed, so the history was logged by another feature table and cannot be verified by this one"
    )]
    LoggedShape {
        /// File and row.
        place: Place,
        /// The decision.
        decision_id: u64,
        /// Shards that were logged.
        shards: usize,
        /// Values there.
        found: usize,
        /// Values needed.
        expected: usize,
    },
    /// A decision was logged under a bundle that is not at hand.
    #[error(
        "{place}: decision {decision_id} was logged under model version '{version}', whose service table is not at hand; bring that bundle to verify the history"
    )]
    UnknownModel {
        /// File and row.
        place: Place,
        /// The decision.
        decision_id: u64,
        /// The version.
        version: String,
    },
    /// What was kept of the routers at the end of an earlier day is of no use.
    #[error("the routers' state of an earlier day cannot be used: {0}; remove the dataset and build it again")]
    RouterImage(#[from] shardwise_features::ImageError),
    /// The caller asked to stop.
    #[error("stopped as asked; finished days are kept, so the same build goes on from there")]
    Interrupted,
    /// An option out of range.
    #[error("option {option}: {problem}")]
    BadOption {
        /// The option.
        option: &'static str,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The folder is not a dataset that this build can read or replace.
    #[error("{} is not a dataset: {problem}", path.display())]
    NotADataset {
        /// The folder.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A dataset made under other features.
    #[error("the dataset at {} was made under feature fingerprint {found}, this program has {expected}; build it again", path.display())]
    OtherFeatures {
        /// The dataset.
        path: PathBuf,
        /// Its fingerprint.
        found: String,
        /// This program's.
        expected: String,
    },
    /// A dataset whose files are not those of its card.
    #[error("{} does not match its card ({what}: {found} instead of {expected}); it was changed after it was made, so build it again", path.display())]
    Tampered {
        /// The file or folder.
        path: PathBuf,
        /// What does not match.
        what: &'static str,
        /// What is there.
        found: String,
        /// What the card says.
        expected: String,
    },
    /// A source of a dataset that is no longer what it was.
    #[error("{} is not what the dataset was made from; bring the old file back or build the dataset again", path.display())]
    SourceChanged {
        /// The file.
        path: PathBuf,
    },
    /// A mapping file that cannot be followed.
    #[error("mapping {}: {problem}", path.display())]
    Mapping {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// An input of an import that cannot be used as a whole.
    #[error("{input} {problem}")]
    Input {
        /// The file or server.
        input: String,
        /// What is wrong and what to do, as the rest of a sentence.
        problem: String,
    },
    /// The caller asked an import to stop.
    #[error("stopped as asked; nothing was written, so the same import begins anew")]
    ImportStopped,
    /// A real trace that cannot be used.
    #[error("trace {}: {problem}", path.display())]
    Trace {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
}

/// Where a row stands: the file and the row in it, counted from 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// The file; empty for a record that comes from no file.
    pub file: PathBuf,
    /// The row in the file, from 0.
    pub row: u64,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.file.as_os_str().is_empty() {
            true => write!(f, "record {}", self.row),
            false => write!(f, "{}, row {}", self.file.display(), self.row),
        }
    }
}

impl DatasetError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    pub(crate) fn unreadable(path: &Path) -> impl Fn(polars::error::PolarsError) -> Self {
        move |error| Self::Unreadable { path: path.to_owned(), problem: error.to_string() }
    }

    pub(crate) fn unwritable(path: &Path) -> impl Fn(polars::error::PolarsError) -> Self {
        move |error| Self::Unwritable { path: path.to_owned(), problem: error.to_string() }
    }

    /// Whether the history itself is of no use as it is, so that the same call will say the same until somebody brings or
    /// mends its rows; all else is about the machine, the dataset or the call.
    #[must_use]
    pub fn is_of_the_history(&self) -> bool {
        match self {
            Self::NoHistory { .. }
            | Self::EmptyHistory { .. }
            | Self::MissingTable { .. }
            | Self::NotADay { .. }
            | Self::Unreadable { .. }
            | Self::MissingColumn { .. }
            | Self::WrongType { .. }
            | Self::BadValue { .. }
            | Self::WrongDay { .. }
            | Self::DuplicateDecision { .. }
            | Self::DuplicateRow { .. }
            | Self::ShadowWithoutDecision { .. }
            | Self::OutcomeWithoutDecision { .. }
            | Self::UnknownShard { .. }
            | Self::LoggedShape { .. }
            | Self::UnknownModel { .. }
            | Self::Trace { .. } => true,
            Self::Io { .. }
            | Self::NotEmpty { .. }
            | Self::Unwritable { .. }
            | Self::RouterImage(_)
            | Self::Interrupted
            | Self::Mapping { .. }
            | Self::Input { .. }
            | Self::ImportStopped
            | Self::BadOption { .. }
            | Self::NotADataset { .. }
            | Self::OtherFeatures { .. }
            | Self::Tampered { .. }
            | Self::SourceChanged { .. } => false,
        }
    }

    /// The same error, with the place that a caller further out knows.
    #[must_use]
    pub(crate) fn at(mut self, known: Place) -> Self {
        match &mut self {
            Self::DuplicateDecision { place, .. }
            | Self::OutcomeWithoutDecision { place, .. }
            | Self::UnknownShard { place, .. }
            | Self::LoggedShape { place, .. }
            | Self::UnknownModel { place, .. } => *place = known,
            _ => {}
        }
        self
    }
}
