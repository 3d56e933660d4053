//! What is kept of each finished day, so that a later build goes on from there: `.state/date=….rows.bin` with what is
//! said of its rows, `.state/date=….replay.bin` with the replay at its end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use shardwise_types::{Response, Timestamp};

use crate::quality::ClockHistograms;
use crate::{DatasetError, ReplayImage, files};

/// The folder of the states.
pub(crate) const STATE_DIR: &str = ".state";

/// Where the chosen row of a decision stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct RowAt {
    /// Shared by all rows of the day.
    pub(crate) date: Arc<str>,
    pub(crate) part: u32,
    pub(crate) row: u32,
}

/// What is counted of a day's rows before late labels.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct DayCounts {
    pub(crate) rows: u64,
    /// Rows that got their label before their file was written.
    pub(crate) labelled: u64,
    pub(crate) decisions: u64,
    pub(crate) eligible: u64,
    /// First and last decision.
    pub(crate) span: Option<(Timestamp, Timestamp)>,
    /// Outcomes by total time: number of the bucket (see [`bucket_of`]) and how many.
    pub(crate) total_ms: BTreeMap<u16, u64>,
}

/// What is said of a finished day.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct DayState {
    /// Hash of everything that the day was made from.
    pub(crate) inputs: String,
    pub(crate) counts: DayCounts,
    /// BLAKE3 of its files, in order.
    pub(crate) parts: Vec<String>,
    /// Decisions of the day whose files were written before their outcomes came.
    pub(crate) open: BTreeMap<u64, RowAt>,
    /// Outcomes known on this day for rows whose files had been written, of this day or of earlier ones.
    pub(crate) late: Vec<(u64, RowAt, Response)>,
    /// Hash of the late outcomes that are in the files.
    pub(crate) applied: String,
    /// Hash of the rows' values, late outcomes included.
    pub(crate) content_hash: String,
    /// BLAKE3 of the checkpoint at the end of the day: all that later days know of this one and of those before.
    pub(crate) checkpoint: String,
    /// How far clocks were apart.
    pub(crate) clocks: ClockHistograms,
}

/// The replay at the end of a day.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    pub(crate) replay: ReplayImage,
    pub(crate) block: i64,
    /// Rows of open decisions.
    pub(crate) rows: BTreeMap<u64, RowAt>,
}

/// Name of a day's folder.
pub(crate) fn day_dir(date: &str) -> String {
    format!("date={date}")
}

/// Name of a part of a day.
pub(crate) fn part_file(part: u32) -> String {
    format!("part-{part:04}.parquet")
}

fn rows_path(dataset: &Path, date: &str) -> PathBuf {
    dataset.join(STATE_DIR).join(format!("date={date}.rows.bin"))
}

fn replay_path(dataset: &Path, date: &str) -> PathBuf {
    dataset.join(STATE_DIR).join(format!("date={date}.replay.bin"))
}

fn save<T: Serialize>(path: &Path, value: &T) -> Result<(), DatasetError> {
    files::write(path, &postcard::to_stdvec(value).expect("states are plain data"))
}

/// A state that cannot be read is as good as none: its day is built again.
fn load<T: DeserializeOwned>(path: &Path) -> Option<T> {
    std::fs::read(path).ok().and_then(|bytes| postcard::from_bytes(&bytes).ok())
}

impl DayState {
    pub(crate) fn save(&self, dataset: &Path, date: &str) -> Result<(), DatasetError> {
        save(&rows_path(dataset, date), self)
    }

    pub(crate) fn load(dataset: &Path, date: &str) -> Option<Self> {
        load(&rows_path(dataset, date))
    }

    /// Takes over a finished day of an earlier build, if it was made from the same inputs and its files are as they
    /// were: its files and its replay are linked into the new dataset.
    pub(crate) fn take_over(from: &Path, to: &Path, date: &str, inputs: &str) -> Result<Option<Self>, DatasetError> {
        let Some(state) = Self::load(from, date).filter(|state| state.inputs == inputs) else { return Ok(None) };
        let part = |dir: &Path, number: u32| dir.join(day_dir(date)).join(part_file(number));
        let parts = || (0..).zip(&state.parts);
        let intact =
            parts().all(|(number, digest)| files::digest(&part(from, number)).is_ok_and(|found| found == *digest));
        let same_checkpoint = files::digest(&replay_path(from, date)).is_ok_and(|found| found == state.checkpoint);
        if !intact || !same_checkpoint || Checkpoint::load(from, date).is_none() {
            return Ok(None);
        }
        if !state.parts.is_empty() {
            files::create_dir(&to.join(day_dir(date)))?;
        }
        for (number, _) in parts() {
            files::link(&part(from, number), &part(to, number))?;
        }
        files::link(&replay_path(from, date), &replay_path(to, date))?;
        state.save(to, date)?;
        Ok(Some(state))
    }
}

impl Checkpoint {
    /// Saves it; returns the BLAKE3 of its file.
    pub(crate) fn save(&self, dataset: &Path, date: &str) -> Result<String, DatasetError> {
        let path = replay_path(dataset, date);
        save(&path, self)?;
        files::digest(&path)
    }

    pub(crate) fn load(dataset: &Path, date: &str) -> Option<Self> {
        load(&replay_path(dataset, date)).filter(|checkpoint: &Self| checkpoint.replay.is_usable())
    }
}

/// Buckets per doubling of a time.
const BUCKETS_PER_DOUBLING: f64 = 64.0;

/// The bucket of a time in ms: about 1 % wide, from 1 ms up.
pub(crate) fn bucket_of(ms: f32) -> u16 {
    (f64::from(ms).max(1.0).log2() * BUCKETS_PER_DOUBLING).ceil() as u16
}

/// The upper end of a bucket in ms.
pub(crate) fn bucket_end_ms(bucket: u16) -> f64 {
    (f64::from(bucket) / BUCKETS_PER_DOUBLING).exp2()
}
