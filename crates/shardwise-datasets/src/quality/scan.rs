//! The one pass over the files of a dataset, one file in memory at a time: what is wrong with values, how many outcomes
//! came, and what the columns look like.

use std::collections::BTreeMap;
use std::path::Path;

use shardwise_features::FEATURES;
use shardwise_types::Timestamp;

use super::Spot;
use super::drift::{Distance, distance};
use super::profile::{Counts, Profile};
use crate::columns::Cell;
use crate::rows::{PartRows, column, dataset_columns};
use crate::state::{day_dir, part_file};
use crate::{DatasetCard, DatasetError, DayCard, Kind};

/// Features that move by what they are, with the clock or with the length of the history.
const MOVING: [&str; 5] = ["hour_sin", "hour_cos", "weekday_sin", "weekday_cos", "pair_samples_ln"];
/// Columns beside the features whose drift is judged; ids, times and versions are new every night.
const OTHERS: [&str; 14] = [
    "router",
    "shard",
    "function",
    "protocol",
    "propensity",
    "policy",
    "decided_by",
    "exec_ms",
    "queue_ms",
    "net_ms",
    "total_ms",
    "cold",
    "ok",
    "error_class",
];
/// Labels that every row with an outcome has.
const LABELS: [&str; 6] = ["exec_ms", "queue_ms", "net_ms", "total_ms", "cold", "ok"];

/// Rows that are wrong in one way, by column, day and shard.
#[derive(Debug, Default)]
pub(crate) struct Faults(BTreeMap<(&'static str, String, String), u64>);

impl Faults {
    fn add(&mut self, column: &'static str, day: &str, shard: &str) {
        *self.0.entry((column, day.to_owned(), shard.to_owned())).or_default() += 1;
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Where there are most.
    pub(crate) fn worst(&self) -> Option<(Spot, u64)> {
        let ((column, day, shard), n) = self.0.iter().max_by_key(|(_, n)| **n)?;
        Some((Spot::new(Some(column), Some(day), Some(shard)), *n))
    }
}

/// Decisions that had time to be answered, and those that were.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Joined {
    pub(crate) decisions: u64,
    pub(crate) answered: u64,
}

impl Joined {
    pub(crate) fn rate(self) -> f64 {
        if self.decisions == 0 { 1.0 } else { self.answered as f64 / self.decisions as f64 }
    }
}

/// How far a column is from the reference.
#[derive(Debug, Clone, Default)]
pub(crate) struct ColumnDistances {
    /// All rows.
    pub(crate) all: Distance,
    /// The rows of days that the reference does not have, when there are enough.
    pub(crate) new_days: Option<Distance>,
    /// The day that is furthest, with its index.
    pub(crate) worst_day: Option<(String, f64)>,
}

/// What one pass found.
pub(crate) struct Scan<'a> {
    card: &'a DatasetCard,
    reference: Option<&'a Profile>,
    min_decisions: u64,
    pub(crate) nulls: Faults,
    pub(crate) ranges: Faults,
    pub(crate) joined: BTreeMap<(String, String), Joined>,
    pub(crate) distances: BTreeMap<&'static str, ColumnDistances>,
    all: Vec<Counts>,
    new: Vec<Counts>,
    judged: Vec<&'static str>,
}

impl<'a> Scan<'a> {
    /// Reads all files.
    ///
    /// # Errors
    /// A file that cannot be read or is not of the dataset's columns, or a day with other rows than the card says.
    pub(crate) fn of(
        dataset: &Path,
        card: &'a DatasetCard,
        reference: Option<&'a Profile>,
        min_decisions: u64,
    ) -> Result<Self, DatasetError> {
        let features = FEATURES.iter().map(|feature| feature.name).filter(|name| !MOVING.contains(name));
        let judged: Vec<&'static str> = features.chain(OTHERS).collect();
        let empty: Vec<Counts> = judged.iter().map(|name| counts_of(dataset_columns()[column(name)].kind)).collect();
        let mut scan = Self {
            card,
            reference,
            min_decisions,
            nulls: Faults::default(),
            ranges: Faults::default(),
            joined: BTreeMap::new(),
            distances: BTreeMap::new(),
            all: empty.clone(),
            new: empty.clone(),
            judged,
        };
        for day in &card.days {
            let mut of_day = empty.clone();
            let mut found = 0;
            for part in 0..day.parts {
                let rows = PartRows::read(&dataset.join(day_dir(&day.date)).join(part_file(part)))?;
                found += rows.rows as u64;
                scan.take(&rows, &day.date, &mut of_day);
            }
            if found != day.rows {
                return Err(DatasetError::Tampered {
                    path: dataset.join(day_dir(&day.date)),
                    what: "rows",
                    found: found.to_string(),
                    expected: day.rows.to_string(),
                });
            }
            scan.end_day(day, &of_day);
        }
        scan.end();
        Ok(scan)
    }

    pub(crate) fn profile(&self) -> Profile {
        let columns = self.judged.iter().zip(&self.all).map(|(name, counts)| ((*name).to_owned(), counts.profile()));
        Profile::new(self.card, columns.collect())
    }

    fn take(&mut self, rows: &PartRows, day: &str, of_day: &mut [Counts]) {
        let shard = column("shard");
        for (place, spec) in dataset_columns().iter().enumerate() {
            for row in 0..rows.rows {
                let cell = rows.cell(place, row);
                if cell == Cell::Null {
                    if !spec.nullable {
                        self.nulls.add(spec.name, day, rows.text(shard, row));
                    }
                } else if !spec.rule.allows(&cell) {
                    self.ranges.add(spec.name, day, rows.text(shard, row));
                }
            }
        }
        let (chosen, censored) = (column("chosen"), column("censored"));
        let settled = Timestamp::plus_millis(self.card.to, -self.card.label_horizon_ms).nanos();
        let placed: Vec<usize> = (0..rows.rows).filter(|row| rows.flag(chosen, *row)).collect();
        for row in &placed {
            let answered = !rows.flag(censored, *row);
            for label in LABELS.iter().filter(|_| answered) {
                if rows.cell(column(label), *row) == Cell::Null {
                    self.nulls.add(label, day, rows.text(shard, *row));
                }
            }
            if rows.i64(column("known_at"), *row) < settled {
                let key = (day.to_owned(), rows.text(shard, *row).to_owned());
                let joined = self.joined.entry(key).or_default();
                joined.decisions += 1;
                joined.answered += u64::from(answered);
            }
        }
        for (name, counts) in self.judged.iter().zip(of_day) {
            let place = column(name);
            placed.iter().for_each(|row| count(counts, rows.cell(place, *row)));
        }
    }

    fn end_day(&mut self, day: &DayCard, of_day: &[Counts]) {
        let is_new = self.reference.is_some_and(|reference| !reference.knows(&day.date, &day.content_hash));
        for (place, counts) in of_day.iter().enumerate() {
            self.all[place].add(counts);
            if is_new {
                self.new[place].add(counts);
            }
            let Some(Distance { psi, .. }) = self.compare(place, counts) else { continue };
            let worst = &mut self.distances.entry(self.judged[place]).or_default().worst_day;
            if worst.as_ref().is_none_or(|(_, largest)| psi > *largest) {
                *worst = Some((day.date.clone(), psi));
            }
        }
    }

    fn end(&mut self) {
        for place in 0..self.judged.len() {
            if let Some(all) = self.compare(place, &self.all[place]) {
                let new_days = self.compare(place, &self.new[place]);
                let distances = self.distances.entry(self.judged[place]).or_default();
                (distances.all, distances.new_days) = (all, new_days);
            }
        }
    }

    /// `None` without a reference that has the column, or with too few rows on either side.
    fn compare(&self, place: usize, counts: &Counts) -> Option<Distance> {
        let reference = self.reference.filter(|reference| reference.rows >= self.min_decisions)?;
        let column = reference.columns.get(self.judged[place])?;
        if counts.total() >= self.min_decisions { distance(column, counts) } else { None }
    }
}

fn counts_of(kind: Kind) -> Counts {
    match kind {
        Kind::Text | Kind::Bool => Counts::names(),
        _ => Counts::numbers(),
    }
}

fn count(counts: &mut Counts, cell: Cell<'_>) {
    match (&counts, cell) {
        (_, Cell::F32(value)) => counts.number(value),
        (_, Cell::F64(value)) => counts.number(value as f32),
        (_, Cell::Text(name)) => counts.name(Some(name)),
        (_, Cell::Bool(value)) => counts.name(Some(if value { "true" } else { "false" })),
        (Counts::Numbers { .. }, _) => counts.number(f32::NAN),
        (Counts::Names { .. }, _) => counts.name(None),
    }
}
