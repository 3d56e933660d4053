//! What a dataset looks like, small enough to keep: for each column a histogram of equal depth, or counts of names.
//!
//! Values are counted in buckets by the upper 16 bits of the 32-bit float, 128 to a doubling, which needs no range and no second
//! pass and does not depend on the order of the rows; then neighbours are joined until each holds 1/256 of the rows.

use std::collections::BTreeMap;
use std::path::Path;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use crate::{DatasetCard, DatasetError, files, load_card};

/// The profile's file in the folder of a dataset.
pub(crate) const PROFILE_FILE: &str = "profile.json";
const FORMAT_VERSION: u32 = 1;
/// Bins of a histogram, about.
const BINS: u64 = 256;
/// Names that are counted one by one; what is rarer is one more.
const NAMES: usize = 100;

/// What a dataset's chosen rows look like, column by column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    format_version: u32,
    /// Id of the dataset.
    pub dataset: String,
    /// Hash of its rows.
    pub content_hash: String,
    /// Fingerprint of its features.
    pub feature_fingerprint: String,
    /// Rows that were counted: one for each decision.
    pub rows: u64,
    /// Hash of the rows of each day.
    pub(crate) days: BTreeMap<String, String>,
    pub(crate) columns: BTreeMap<String, ColumnProfile>,
}

/// What a column looks like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ColumnProfile {
    /// Numbers: `counts[i]` lie in [`borders[i]`, `borders[i + 1]`).
    Numbers { borders: Vec<f32>, counts: Vec<u64>, missing: u64 },
    /// Names, and how many have a rarer one.
    Names { counts: BTreeMap<String, u64>, rarer: u64, missing: u64 },
}

/// A column while it is counted.
#[derive(Debug, Clone)]
pub(crate) enum Counts {
    Numbers { buckets: FxHashMap<u16, u64>, missing: u64 },
    Names { counts: FxHashMap<String, u64>, missing: u64 },
}

impl Counts {
    pub(crate) fn numbers() -> Self {
        Self::Numbers { buckets: FxHashMap::default(), missing: 0 }
    }

    pub(crate) fn names() -> Self {
        Self::Names { counts: FxHashMap::default(), missing: 0 }
    }

    /// Counts a number; what is not finite is missing.
    pub(crate) fn number(&mut self, value: f32) {
        match self {
            Self::Numbers { buckets, .. } if value.is_finite() => *buckets.entry(bucket(value)).or_default() += 1,
            Self::Numbers { missing, .. } => *missing += 1,
            Self::Names { .. } => unreachable!("a column of names is given names"),
        }
    }

    pub(crate) fn name(&mut self, name: Option<&str>) {
        match (self, name) {
            (Self::Names { counts, .. }, Some(name)) => match counts.get_mut(name) {
                Some(count) => *count += 1,
                None => drop(counts.insert(name.to_owned(), 1)),
            },
            (Self::Names { missing, .. }, None) => *missing += 1,
            (Self::Numbers { .. }, _) => unreachable!("a column of numbers is given numbers"),
        }
    }

    /// Adds what another one counted of the same column.
    pub(crate) fn add(&mut self, other: &Self) {
        match (self, other) {
            (Self::Numbers { buckets, missing }, Self::Numbers { buckets: more, missing: absent }) => {
                more.iter().for_each(|(bucket, n)| *buckets.entry(*bucket).or_default() += n);
                *missing += absent;
            }
            (Self::Names { counts, missing }, Self::Names { counts: more, missing: absent }) => {
                more.iter().for_each(|(name, n)| *counts.entry(name.clone()).or_default() += n);
                *missing += absent;
            }
            _ => unreachable!("a column is of one kind"),
        }
    }

    pub(crate) fn total(&self) -> u64 {
        match self {
            Self::Numbers { buckets, missing } => buckets.values().sum::<u64>() + missing,
            Self::Names { counts, missing } => counts.values().sum::<u64>() + missing,
        }
    }

    pub(crate) fn profile(&self) -> ColumnProfile {
        match self {
            Self::Numbers { buckets, missing } => {
                let sorted: BTreeMap<u16, u64> = buckets.iter().map(|(bucket, n)| (*bucket, *n)).collect();
                let depth = sorted.values().sum::<u64>().div_ceil(BINS);
                let (mut borders, mut counts): (Vec<f32>, Vec<u64>) = (Vec::new(), Vec::new());
                for (bucket, n) in &sorted {
                    match counts.last_mut().filter(|count| **count < depth && *n < depth) {
                        Some(count) => *count += n,
                        None => {
                            borders.push(lower_end(*bucket));
                            counts.push(*n);
                        }
                    }
                }
                borders.extend(sorted.keys().next_back().map(|last| lower_end(last + 1).min(f32::MAX)));
                ColumnProfile::Numbers { borders, counts, missing: *missing }
            }
            Self::Names { counts, missing } => {
                let mut by_count: Vec<(&String, u64)> = counts.iter().map(|(name, n)| (name, *n)).collect();
                by_count.sort_by_key(|(name, n)| (std::cmp::Reverse(*n), *name));
                let rarer = by_count.iter().skip(NAMES).map(|(_, n)| n).sum();
                let kept = by_count.into_iter().take(NAMES).map(|(name, n)| (name.clone(), n));
                ColumnProfile::Names { counts: kept.collect(), rarer, missing: *missing }
            }
        }
    }
}

/// The bucket of a finite number: the upper half of its bits, so turned that buckets rise with the numbers.
pub(crate) fn bucket(value: f32) -> u16 {
    // Minus zero is zero.
    let bits = (value + 0.0).to_bits();
    let rising = if bits >> 31 == 1 { !bits } else { bits | 0x8000_0000 };
    (rising >> 16) as u16
}

/// The smallest number of a bucket.
fn lower_end(bucket: u16) -> f32 {
    let rising = u32::from(bucket) << 16;
    f32::from_bits(if bucket >> 15 == 1 { rising & 0x7fff_ffff } else { !rising })
}

impl Profile {
    pub(crate) fn new(card: &DatasetCard, columns: BTreeMap<String, ColumnProfile>) -> Self {
        let days = card.days.iter().filter(|day| day.rows > 0);
        Self {
            format_version: FORMAT_VERSION,
            dataset: card.id.clone(),
            content_hash: card.content_hash.clone(),
            feature_fingerprint: card.feature_fingerprint.clone(),
            rows: card.decisions,
            days: days.map(|day| (day.date.clone(), day.content_hash.clone())).collect(),
            columns,
        }
    }

    /// Whether it counted these rows of that day.
    pub(crate) fn knows(&self, date: &str, content_hash: &str) -> bool {
        self.days.get(date).is_some_and(|hash| hash == content_hash)
    }

    /// Writes it into the folder of its dataset.
    pub(crate) fn save(&self, dataset: &Path) -> Result<(), DatasetError> {
        let text = serde_json::to_vec(self).expect("a profile is plain data");
        files::write(&dataset.join(PROFILE_FILE), &text)
    }

    /// Reads a profile's file.
    ///
    /// # Errors
    /// No file there, or one that is no profile of this format.
    pub fn load(path: &Path) -> Result<Self, DatasetError> {
        let refused = |problem: String| DatasetError::NotADataset { path: path.to_owned(), problem };
        let again = "make it again with `shardwise dataset check`, or remove it to start anew";
        let profile: Self = serde_json::from_slice(&files::read(path)?)
            .map_err(|error| refused(format!("nor a profile of one ({error}); {again}")))?;
        if profile.format_version != FORMAT_VERSION {
            let found = profile.format_version;
            return Err(refused(format!("its profile is of format {found}, not {FORMAT_VERSION}; {again}")));
        }
        Ok(profile)
    }

    /// The profile in the folder of a dataset; `None` when there is none of the rows that are there now.
    pub(crate) fn of_dataset(dataset: &Path) -> Result<Option<Self>, DatasetError> {
        let card = load_card(dataset)?;
        let profile = Self::load(&dataset.join(PROFILE_FILE)).ok();
        Ok(profile.filter(|profile| profile.content_hash == card.content_hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_rise_with_the_numbers_and_begin_where_they_say() {
        let values = [f32::MIN, -40.5, -1.0, -1e-30, 0.0, 1e-30, 0.5, 1.0, 1.01, 3e7, f32::MAX];
        assert!(values.iter().map(|value| bucket(*value)).is_sorted());
        assert_eq!(bucket(-0.0), bucket(0.0));
        for value in values {
            let (from, to) = (lower_end(bucket(value)), lower_end(bucket(value) + 1));
            assert!(from <= value && (value < to || value < 0.0 && value <= to), "{from} {value} {to}");
            assert!((from - value).abs() <= value.abs() / 128.0, "{from} is not near {value}");
        }
    }

    #[test]
    fn bins_are_of_equal_depth_whatever_the_order() {
        let mut counts = Counts::numbers();
        (0..100_000).for_each(|n| counts.number((n * 7_919 % 100_000) as f32 / 1e3));
        counts.number(f32::NAN);
        let ColumnProfile::Numbers { borders, counts: bins, missing } = counts.profile() else { panic!("numbers") };
        assert_eq!((borders.len(), missing), (bins.len() + 1, 1));
        assert_eq!(bins.iter().sum::<u64>(), 100_000);
        // At the upper end one bucket is 0.5 wide, which is more than a bin's depth.
        assert!((64..=257).contains(&bins.len()) && bins.iter().all(|n| *n <= 1_000), "{bins:?}");
        let mut backwards = Counts::numbers();
        backwards.number(f32::NAN);
        (0..100_000).rev().for_each(|n| backwards.number((n * 7_919 % 100_000) as f32 / 1e3));
        assert_eq!(counts.profile(), backwards.profile());
    }
}
