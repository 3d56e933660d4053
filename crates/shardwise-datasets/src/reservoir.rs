//! Which labelled rows are read when there are more than may be: a stratified sample with weights.
//!
//! Training rows are told apart by how busy the shard was, how rare the function is and which shard it was. Half of the sample
//! is shared out equally among these strata, the other half by their sizes, so that congestion, which is rare and dear,
//! keeps many of its rows. Within a stratum the rows with the smallest hashes of their decisions stay (priority sampling with
//! equal weights, N. Duffield, C. Lund and M. Thorup, *Priority sampling for estimation of arbitrary subset sums*, 2007), so that
//! neither the order of rows nor files nor threads matter. A row that stays weighs as many rows as its stratum has for each
//! that stays (Horvitz and Thompson 1952), which keeps sums and means unbiased.
//!
//! Rows to measure on are thinned alike: what is measured needs no weights.

use std::collections::BinaryHeap;
use std::path::Path;

use rustc_hash::FxHashMap;
use shardwise_types::{Timestamp, combine_keys, key_of};

use crate::rows::{PartRows, column};
use crate::state::{day_dir, part_file};
use crate::training_data::{Split, is_labelled, name_key, split_of};
use crate::{DatasetCard, DatasetError, Splits};

/// Upper ends of the levels of load, in cores wanted per core: idle, busy, nearly full, queueing; above them, congested.
const LOADS: [f32; 4] = [0.25, 0.6, 0.9, 1.3];
/// Groups of functions by how many rows they have.
const FUNCTION_GROUPS: usize = 10;
/// Rows that a stratum must be able to keep; where there are too many strata for that, shards and then functions are not told
/// apart.
const MIN_ROWS: usize = 20;
/// Share of the sample that is shared out equally among the strata.
const EQUAL_SHARE: f64 = 0.5;
const COLUMNS: [&str; 8] = [
    "decision_id",
    "known_at",
    "function",
    "shard",
    "chosen",
    "censored",
    "cores_in_flight_per_core",
    "others_per_core",
];

/// What rows have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Stratum {
    split: Split,
    load: usize,
    /// Key of the function at first, its group later.
    function: u64,
    shard: u64,
}

impl Stratum {
    fn of(rows: &PartRows, row: usize, splits: &Splits) -> Self {
        let known_at = Timestamp::from_nanos(rows.i64(column("known_at"), row));
        let load = cores_wanted_per_core(rows, row);
        Self {
            split: split_of(splits, known_at),
            load: LOADS.partition_point(|end| *end < load),
            function: name_key(rows, "function", row),
            shard: name_key(rows, "shard", row),
        }
    }
}

/// Cores wanted per core of the shard when it was decided, by this router's requests in flight and what it knew of the others'.
fn cores_wanted_per_core(rows: &PartRows, row: usize) -> f32 {
    let known = |name| Some(rows.f32(column(name), row)).filter(|value| value.is_finite()).unwrap_or(0.0);
    known("cores_in_flight_per_core") + known("others_per_core")
}

/// Which fields tell strata apart.
#[derive(Debug, Clone, Copy)]
enum Detail {
    Shards,
    Functions,
    Loads,
}

/// The sample: for each stratum the largest hash that stays, and what its rows weigh.
pub(crate) struct Reservoir {
    detail: Detail,
    groups: FxHashMap<u64, u64>,
    kept: FxHashMap<Stratum, (u64, f32)>,
}

impl Reservoir {
    /// Chooses about `max` of the labelled rows of a dataset, in two passes over a few columns.
    pub(crate) fn fill(dataset: &Path, card: &DatasetCard, max: usize) -> Result<Self, DatasetError> {
        let mut cells: FxHashMap<Stratum, u64> = FxHashMap::default();
        each_row(dataset, card, &mut |stratum, _| *cells.entry(stratum).or_default() += 1)?;
        let mut reservoir = Self { detail: Detail::Shards, groups: groups(&cells), kept: FxHashMap::default() };
        let mut sizes = reservoir.sizes(&cells);
        for detail in [Detail::Functions, Detail::Loads] {
            if sizes.len() * MIN_ROWS > max {
                reservoir.detail = detail;
                sizes = reservoir.sizes(&cells);
            }
        }
        let quotas = quotas(&sizes, max);
        // The smallest hashes of each stratum, the largest of them on top.
        let mut heaps: FxHashMap<Stratum, BinaryHeap<u64>> = FxHashMap::default();
        each_row(dataset, card, &mut |cell, hash| {
            let stratum = reservoir.stratum(cell);
            let heap = heaps.entry(stratum).or_default();
            if heap.len() < quotas[&stratum] {
                heap.push(hash);
            } else if let Some(mut largest) = heap.peek_mut().filter(|largest| hash < **largest) {
                *largest = hash;
            }
        })?;
        let kept = |(stratum, heap): (Stratum, BinaryHeap<u64>)| {
            let weight = sizes[&stratum] as f64 / heap.len() as f64;
            (stratum, (*heap.peek().expect("every stratum keeps a row"), weight as f32))
        };
        reservoir.kept = heaps.into_iter().map(kept).collect();
        Ok(reservoir)
    }

    /// What a row weighs; `None` when it is left out.
    pub(crate) fn weight(&self, rows: &PartRows, row: usize, splits: &Splits) -> Option<f32> {
        let (largest, weight) = *self.kept.get(&self.stratum(Stratum::of(rows, row, splits)))?;
        (hash(rows, row) <= largest).then_some(weight)
    }

    fn sizes(&self, cells: &FxHashMap<Stratum, u64>) -> FxHashMap<Stratum, u64> {
        let mut sizes: FxHashMap<Stratum, u64> = FxHashMap::default();
        cells.iter().for_each(|(cell, n)| *sizes.entry(self.stratum(*cell)).or_default() += n);
        sizes
    }

    fn stratum(&self, cell: Stratum) -> Stratum {
        if cell.split != Split::Train {
            return Stratum { load: 0, function: 0, shard: 0, ..cell };
        }
        let function = self.groups.get(&cell.function).copied().unwrap_or(0);
        match self.detail {
            Detail::Shards => Stratum { function, ..cell },
            Detail::Functions => Stratum { function, shard: 0, ..cell },
            Detail::Loads => Stratum { function: 0, shard: 0, ..cell },
        }
    }
}

/// Functions by their number of rows, in ten groups of as many functions.
fn groups(cells: &FxHashMap<Stratum, u64>) -> FxHashMap<u64, u64> {
    let mut rows: FxHashMap<u64, u64> = FxHashMap::default();
    cells.iter().for_each(|(cell, n)| *rows.entry(cell.function).or_default() += n);
    let mut functions: Vec<(u64, u64)> = rows.into_iter().map(|(function, n)| (n, function)).collect();
    functions.sort_unstable();
    let group = |place: usize| (place * FUNCTION_GROUPS / functions.len()) as u64;
    functions.iter().enumerate().map(|(place, (_, function))| (*function, group(place))).collect()
}

/// How many rows each stratum keeps: one at least, or its weight would say nothing.
fn quotas(sizes: &FxHashMap<Stratum, u64>, max: usize) -> FxHashMap<Stratum, usize> {
    let all: u64 = sizes.values().sum();
    let mut quotas = FxHashMap::default();
    for split in [Split::Train, Split::Gap, Split::Test] {
        let of_split = || sizes.iter().filter(|(stratum, _)| stratum.split == split);
        let rows: u64 = of_split().map(|(_, n)| n).sum();
        let max = max as f64 * rows as f64 / all as f64;
        let equal = EQUAL_SHARE * max / of_split().count().max(1) as f64;
        let kept_anyway: f64 = of_split().map(|(_, n)| (*n as f64).min(equal)).sum();
        let beyond: f64 = of_split().map(|(_, n)| (*n as f64 - equal).max(0.0)).sum();
        let share = ((max - kept_anyway) / beyond.max(1.0)).clamp(0.0, 1.0);
        for (stratum, n) in of_split() {
            let n = *n as f64;
            let kept = n.min(equal) + share * (n - equal).max(0.0);
            quotas.insert(*stratum, (kept as usize).max(1));
        }
    }
    quotas
}

fn hash(rows: &PartRows, row: usize) -> u64 {
    const SALT: u64 = key_of("shardwise training rows");
    combine_keys(rows.i64(column("decision_id"), row).cast_unsigned(), SALT)
}

fn each_row(dataset: &Path, card: &DatasetCard, take: &mut dyn FnMut(Stratum, u64)) -> Result<(), DatasetError> {
    for day in &card.days {
        for part in 0..day.parts {
            let path = dataset.join(day_dir(&day.date)).join(part_file(part));
            let rows = PartRows::read_columns(&path, &COLUMNS)?;
            for row in (0..rows.rows).filter(|row| is_labelled(&rows, *row)) {
                take(Stratum::of(&rows, row, &card.splits), hash(&rows, row));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
