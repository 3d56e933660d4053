//! The card of a dataset, `dataset.json`: what it is, what it was made from, how to split it, and how to make it again.

use std::path::Path;

use serde::{Deserialize, Serialize, Serializer};
use shardwise_features::{FEATURES, ServiceObservations, fingerprint};
use shardwise_types::Timestamp;

use crate::{BuildOptions, DatasetError, files};

/// The version of the format of datasets that this crate writes and reads.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// The card's file.
pub(crate) const CARD_FILE: &str = "dataset.json";
/// What was seen of service times up to the end of the training split.
pub(crate) const OBSERVATIONS_FILE: &str = "service_observations.bin";

/// What a dataset is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatasetCard {
    /// Version of the format.
    pub format_version: u32,
    /// Name of the dataset, taken from its content hash.
    pub id: String,
    /// BLAKE3 over the values of all rows in order: not over files, so neither partitioning nor engine matter.
    pub content_hash: String,
    /// Fingerprint of the feature table that the rows were extracted with.
    pub feature_fingerprint: String,
    /// The features, in the order of the vector.
    pub feature_names: Vec<String>,
    /// Rows: one per decision and candidate.
    pub rows: u64,
    /// Rows with labels.
    pub labelled: u64,
    /// Chosen rows whose outcome is not known within the history.
    pub censored: u64,
    /// Decisions.
    pub decisions: u64,
    /// Mean number of shards that were eligible, as logged.
    pub candidates_per_decision: f64,
    /// The first decision.
    #[serde(serialize_with = "utc")]
    pub from: Timestamp,
    /// Just after the last decision.
    #[serde(serialize_with = "utc")]
    pub to: Timestamp,
    /// Which time is for what.
    pub splits: Splits,
    /// How long labels take to come, in ms: the gap between training and test.
    pub label_horizon_ms: f64,
    /// The blocks of time whose service encodings are fitted on earlier blocks.
    pub blocks: Blocks,
    /// The days.
    pub days: Vec<DayCard>,
    /// The history's files.
    pub sources: Vec<FileSum>,
    /// What was seen of service times up to the end of the training split.
    pub observations: FileSum,
    /// How it was asked for.
    pub options: BuildOptions,
    /// The command that makes it again.
    pub remake: String,
    /// Days that were kept from an earlier build.
    pub days_reused: u32,
    /// Days that were built.
    pub days_built: u32,
}

/// A file and what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSum {
    /// Its path below the history or the dataset.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// BLAKE3 of its bytes.
    pub blake3: String,
}

impl FileSum {
    pub(crate) fn of(dir: &Path, path: &str) -> Result<Self, DatasetError> {
        let file = dir.join(path);
        Ok(Self { path: path.to_owned(), bytes: files::size(&file)?, blake3: files::digest(&file)? })
    }
}

/// One day of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DayCard {
    /// The day of the decisions, `YYYY-MM-DD`.
    pub date: String,
    /// Its rows.
    pub rows: u64,
    /// Its files, in the order of the rows.
    pub parts: u32,
    /// BLAKE3 over the values of its rows.
    pub content_hash: String,
}

/// A part of a dataset's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeRange {
    /// The first instant.
    #[serde(serialize_with = "utc")]
    pub from: Timestamp,
    /// The instant after the last.
    #[serde(serialize_with = "utc")]
    pub to: Timestamp,
    /// Rows decided in it.
    pub rows: u64,
}

impl TimeRange {
    /// Whether it holds an instant.
    pub fn contains(&self, at: Timestamp) -> bool {
        self.from <= at && at < self.to
    }
}

/// Which time is for what; block 0, which has no service encodings, comes before all three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Splits {
    /// To learn from: four fifths of the time after block 0.
    pub train: TimeRange,
    /// For nothing: while labels of the training part were still coming in.
    pub gap: TimeRange,
    /// To measure on.
    pub test: TimeRange,
}

/// The blocks of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocks {
    /// Length of a block in seconds; blocks are aligned to UTC.
    pub length_s: u64,
    /// Number of blocks, the first, which is 0, included.
    pub count: u64,
    /// An instant of block 0: the first decision of the history.
    #[serde(serialize_with = "utc")]
    pub first_at: Timestamp,
}

/// Writes an instant as UTC text.
fn utc<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(at)
}

/// Reads a dataset's card; one made under other features is refused.
///
/// # Errors
/// No dataset there, a card that cannot be read, or another fingerprint.
pub fn load_card(dataset: &Path) -> Result<DatasetCard, DatasetError> {
    let refused = |problem: String| DatasetError::NotADataset { path: dataset.to_owned(), problem };
    let path = dataset.join(CARD_FILE);
    if !path.exists() {
        return Err(refused(format!("it has no {CARD_FILE}; build one with `shardwise dataset build`")));
    }
    let card: DatasetCard = serde_json::from_slice(&files::read(&path)?)
        .map_err(|error| refused(format!("its {CARD_FILE} cannot be read ({error}); build it again")))?;
    if card.format_version != FORMAT_VERSION {
        let found = card.format_version;
        return Err(refused(format!("its format is {found}, this program reads {FORMAT_VERSION}; build it again")));
    }
    let names_match = card.feature_names.iter().eq(FEATURES.iter().map(|feature| feature.name));
    if card.feature_fingerprint != fingerprint() || !names_match {
        return Err(DatasetError::OtherFeatures {
            path: dataset.to_owned(),
            found: card.feature_fingerprint,
            expected: fingerprint().to_owned(),
        });
    }
    Ok(card)
}

/// What was seen of service times up to the end of the training split.
///
/// # Errors
/// No dataset there, or a file that does not match the card.
pub fn load_observations(dataset: &Path) -> Result<ServiceObservations, DatasetError> {
    let expected = load_card(dataset)?.observations;
    let path = dataset.join(&expected.path);
    let found = files::digest(&path)?;
    if found != expected.blake3 {
        return Err(DatasetError::Tampered { path, what: "BLAKE3", found, expected: expected.blake3 });
    }
    postcard::from_bytes(&files::read(&path)?)
        .map_err(|error| DatasetError::Unreadable { path, problem: error.to_string() })
}
