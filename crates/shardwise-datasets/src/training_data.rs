//! Reads a dataset for training: the labelled rows of chosen shards as columns in memory, each day checked against the
//! card on the way.

use std::path::Path;

use shardwise_features::FEATURE_COUNT;
use shardwise_types::{Timestamp, key_of};

use crate::card::load_card;
use crate::columns::Cell;
use crate::reservoir::Reservoir;
use crate::rows::{FIRST_FEATURE, PartRows, RowHasher, column};
use crate::state::{day_dir, part_file};
use crate::{DatasetError, DayCard, Splits};

/// What a row may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Split {
    /// To learn from.
    Train,
    /// Nothing: it lies in block 0, or between training and test.
    Gap,
    /// To measure on.
    Test,
}

/// Labelled rows in columns, in the order of the dataset; every column has one value per row, `features` one vector.
#[derive(Debug, Clone, Default)]
pub struct TrainingData {
    /// Feature vectors, row after row.
    pub features: Vec<f32>,
    /// When it was decided.
    pub known_at: Vec<Timestamp>,
    /// Block of time.
    pub block: Vec<i32>,
    /// Key of the function, see [`shardwise_types::key_of`].
    pub function: Vec<u64>,
    /// Key of the shard that it went to.
    pub shard: Vec<u64>,
    /// Execution, loading included, in ms; 0 when it never ran.
    pub exec_ms: Vec<f32>,
    /// In the shard's queue, in ms.
    pub queue_ms: Vec<f32>,
    /// From dispatch to response, in ms.
    pub total_ms: Vec<f32>,
    /// Whether the request succeeded.
    pub ok: Vec<bool>,
    /// Whether the function had to be loaded.
    pub cold: Vec<bool>,
    /// Probability with which the shard was drawn.
    pub propensity: Vec<f64>,
    /// What the row may be used for.
    pub split: Vec<Split>,
    /// How many rows of the dataset it stands for: 1 when none were left out. Sums and means with these weights are
    /// unbiased for all labelled rows.
    pub weight: Vec<f32>,
}

impl TrainingData {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.known_at.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.known_at.is_empty()
    }
}

/// Reads the labelled rows of chosen shards.
///
/// With `max_rows`, a stratified sample of about that many is read, see [`TrainingData::weight`]: rare congestion, rare
/// functions and quiet shards keep more of their training rows than the rest, rows to measure on are kept alike. The choice
/// depends on nothing but the rows and the limit.
///
/// # Errors
/// No dataset there, other features, or files that do not match the card.
pub fn training_data(dataset: &Path, max_rows: Option<usize>) -> Result<TrainingData, DatasetError> {
    let card = load_card(dataset)?;
    let reservoir = match max_rows.filter(|max| (*max as u64) < card.labelled) {
        Some(max) => Some(Reservoir::fill(dataset, &card, max)?),
        None => None,
    };
    let mut data = TrainingData::default();
    for day in &card.days {
        let mut hasher = RowHasher::default();
        for part in 0..day.parts {
            let rows = read_part(dataset, day, part)?;
            hasher.add(&rows);
            data.take(&rows, &card.splits, reservoir.as_ref());
        }
        check_day(dataset, day, hasher.finish())?;
    }
    Ok(data)
}

fn read_part(dataset: &Path, day: &DayCard, part: u32) -> Result<PartRows, DatasetError> {
    PartRows::read(&dataset.join(day_dir(&day.date)).join(part_file(part)))
}

fn check_day(dataset: &Path, day: &DayCard, found: String) -> Result<(), DatasetError> {
    // A day without rows has no files to check.
    if day.rows == 0 || found == day.content_hash {
        return Ok(());
    }
    let path = dataset.join(day_dir(&day.date));
    Err(DatasetError::Tampered { path, what: "hash of the rows", found, expected: day.content_hash.clone() })
}

pub(crate) fn is_labelled(rows: &PartRows, row: usize) -> bool {
    rows.flag(column("chosen"), row) && !rows.flag(column("censored"), row)
}

/// Key of the name in a column; 0 where there is none.
pub(crate) fn name_key(rows: &PartRows, name: &str, row: usize) -> u64 {
    match rows.cell(column(name), row) {
        Cell::Text(text) => key_of(text),
        _ => 0,
    }
}

impl TrainingData {
    fn take(&mut self, rows: &PartRows, splits: &Splits, reservoir: Option<&Reservoir>) {
        let columns = rows.plain_f32();
        let features = &columns[FIRST_FEATURE..FIRST_FEATURE + FEATURE_COUNT];
        for row in (0..rows.rows).filter(|row| is_labelled(rows, *row)) {
            let weight = reservoir.map_or(Some(1.0), |reservoir| reservoir.weight(rows, row, splits));
            if let Some(weight) = weight {
                self.push(rows, features, row, splits);
                self.weight.push(weight);
            }
        }
    }

    /// Features are given as plain values, where they are.
    fn push(&mut self, rows: &PartRows, features: &[Option<&[f32]>], row: usize, splits: &Splits) {
        let known_at = Timestamp::from_nanos(rows.i64(column("known_at"), row));
        self.features.extend((FIRST_FEATURE..).zip(features).map(|(column, plain)| match plain {
            Some(values) => values[row],
            None => rows.f32(column, row),
        }));
        self.known_at.push(known_at);
        self.block.push(i32::try_from(rows.i64(column("block"), row)).unwrap_or(i32::MAX));
        self.function.push(name_key(rows, "function", row));
        self.shard.push(name_key(rows, "shard", row));
        self.exec_ms.push(rows.f32(column("exec_ms"), row));
        self.queue_ms.push(rows.f32(column("queue_ms"), row));
        self.total_ms.push(rows.f32(column("total_ms"), row));
        self.ok.push(rows.flag(column("ok"), row));
        self.cold.push(rows.flag(column("cold"), row));
        self.propensity.push(match rows.cell(column("propensity"), row) {
            Cell::F64(propensity) => propensity,
            _ => f64::NAN,
        });
        self.split.push(split_of(splits, known_at));
    }
}

pub(crate) fn split_of(splits: &Splits, known_at: Timestamp) -> Split {
    if splits.train.contains(known_at) {
        Split::Train
    } else if splits.test.contains(known_at) {
        Split::Test
    } else {
        Split::Gap
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{edit, history, write};
    use crate::{BuildOptions, DatasetCard, build, dataset_columns};
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    fn dataset() -> (tempfile::TempDir, PathBuf, DatasetCard) {
        let folder = tempfile::tempdir().unwrap();
        let (source, out) = (folder.path().join("history"), folder.path().join("dataset"));
        write(&source, &history("2026-01-05T23:45:00Z", 30.0, 1_000.0));
        let card = build(&source, &out, &BuildOptions::default(), &mut |_| true).unwrap();
        (folder, out, card)
    }

    #[test]
    fn all_labelled_rows_of_chosen_shards_are_there() {
        let (_folder, out, card) = dataset();
        let data = training_data(&out, None).unwrap();
        assert_eq!(data.len() as u64, card.labelled);
        assert_eq!(data.features.len(), data.len() * FEATURE_COUNT);
        assert!(data.exec_ms.iter().all(|ms| *ms > 0.0));
        assert_eq!(data.shard.len(), data.len());
        assert!(!data.shard.contains(&0) && data.shard.iter().any(|shard| *shard != data.shard[0]));
        assert!(data.known_at.is_sorted());
        for (at, split) in data.known_at.iter().zip(&data.split) {
            assert_eq!(*split == Split::Train, card.splits.train.contains(*at));
            assert_eq!(*split == Split::Test, card.splits.test.contains(*at));
        }
        assert!(data.split.contains(&Split::Train) && data.split.contains(&Split::Test));
    }

    #[test]
    fn thinning_keeps_the_limit_and_every_function_and_repeats_itself() {
        let (_folder, out, _) = dataset();
        let all = training_data(&out, None).unwrap();
        let thin = training_data(&out, Some(400)).unwrap();
        let again = training_data(&out, Some(400)).unwrap();
        assert!((300..=400).contains(&thin.len()), "{}", thin.len());
        assert_eq!(thin.known_at, again.known_at);
        let count = |data: &TrainingData| {
            let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
            data.function.iter().for_each(|function| *counts.entry(*function).or_default() += 1);
            counts
        };
        assert_eq!(count(&all).len(), count(&thin).len());
        let bits = |data: &TrainingData| data.features.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&thin), bits(&again));
        assert_eq!(training_data(&out, Some(1_000_000)).unwrap().len(), all.len());
    }

    #[test]
    fn a_changed_value_is_refused() {
        let (_folder, out, card) = dataset();
        let file = out.join(day_dir(&card.days[1].date)).join(part_file(0));
        edit(&file, dataset_columns(), "exec_ms", 3, Cell::F32(0.001));
        let error = training_data(&out, None).unwrap_err();
        assert!(matches!(&error, DatasetError::Tampered { path, .. } if path.ends_with("date=2026-01-06")), "{error}");
    }

    #[test]
    fn a_folder_without_a_card_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = training_data(folder.path(), None).unwrap_err();
        assert!(error.to_string().contains("dataset.json"), "{error}");
    }
}
