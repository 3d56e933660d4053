//! Rows whose key, decision and shard, is there twice.

use std::path::Path;

use shardwise_types::{combine_keys, key_of};

use super::Spot;
use crate::rows::{PartRows, column};
use crate::state::{day_dir, part_file};
use crate::{DatasetCard, DatasetError};

/// Keys in memory at a time, 128 MiB; a dataset of more rows is read once more for each.
const MAX_KEYS: u64 = 8 << 20;

/// The decision and the key of the shard's name.
type Key = (u64, u64);

/// How many rows repeat the key of another, and where the first of them stands.
pub(crate) fn duplicates(dataset: &Path, card: &DatasetCard) -> Result<(u64, Option<Spot>), DatasetError> {
    let (mut repeated, mut first) = (0, None);
    let rounds = card.rows.div_ceil(MAX_KEYS).max(1);
    for round in 0..rounds {
        let mut keys: Vec<Key> = Vec::new();
        each_key(dataset, card, |key, _, _| {
            if combine_keys(key.0, 0) % rounds == round {
                keys.push(key);
            }
        })?;
        keys.sort_unstable();
        let twice: Vec<Key> = keys.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
        repeated += twice.len() as u64;
        if let (Some(wanted), None) = (twice.first(), &first) {
            let mut last = None;
            each_key(dataset, card, |key, date, shard| {
                if key == *wanted {
                    last = Some(Spot::new(Some("decision_id"), Some(date), Some(shard)));
                }
            })?;
            first = last;
        }
    }
    Ok((repeated, first))
}

fn each_key(dataset: &Path, card: &DatasetCard, mut take: impl FnMut(Key, &str, &str)) -> Result<(), DatasetError> {
    let (id, shard) = (column("decision_id"), column("shard"));
    for day in &card.days {
        for part in 0..day.parts {
            let path = dataset.join(day_dir(&day.date)).join(part_file(part));
            let rows = PartRows::read_columns(&path, &["decision_id", "shard"])?;
            for row in 0..rows.rows {
                let shard = rows.text(shard, row);
                take((rows.i64(id, row).cast_unsigned(), key_of(shard)), &day.date, shard);
            }
        }
    }
    Ok(())
}
