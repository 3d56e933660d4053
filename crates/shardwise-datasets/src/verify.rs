//! Verifies: what routers logged is extracted again from the history, and what the dataset holds is built again; both are
//! compared bit for bit.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use shardwise_features::{DecisionFeatures, FEATURE_COUNT, FEATURES, FeatureVector, ServiceTable};
use shardwise_types::{DecisionRecord, HistoryRecord, Timestamp};

use crate::build::build_days;
use crate::columns::Cell;
use crate::replay::unknown_shard;
use crate::rows::{PartRows, column, dataset_columns, same};
use crate::state::{day_dir, part_file};
use crate::{DatasetCard, DatasetError, DayCard, History, Place, Replay, files, load_card};

/// Mismatches that are kept as examples.
const MAX_EXAMPLES: usize = 20;

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct VerifyReport {
    /// Rows that were compared: logged feature vectors and rows of the dataset.
    pub rows: u64,
    /// Rows that differ.
    pub mismatches: u64,
    /// The first of the values that differ.
    pub examples: Vec<Mismatch>,
}

/// A value that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// The decision.
    pub decision_id: u64,
    /// The candidate.
    pub shard: String,
    /// The feature or column.
    pub feature: String,
    /// What was logged by a router or stands in the dataset.
    pub logged: String,
    /// What the history gives now.
    pub extracted: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { decision_id, shard, feature, logged, extracted } = self;
        write!(f, "decision {decision_id}, shard '{shard}', {feature}: {logged} was written, {extracted} is right")
    }
}

/// Verifies a dataset and the history that it was made from.
///
/// Routers that placed with a bundle extracted their features with its service table: `tables` gives it by version.
///
/// # Errors
/// A history or dataset that cannot be read, a dataset of other features, or a version that `tables` does not know.
pub fn verify(
    history: &Path,
    dataset: &Path,
    tables: &dyn Fn(&str) -> Option<Arc<ServiceTable>>,
) -> Result<VerifyReport, DatasetError> {
    let card = load_card(dataset)?;
    let history = History::open(history)?;
    let mut report = VerifyReport::default();
    compare_logged(&history, card.options.to, tables, &mut report)?;
    match changed_source(&history, &card)? {
        Some(path) if report.mismatches == 0 => return Err(DatasetError::SourceChanged { path }),
        Some(_) => {}
        None => compare_dataset(&history, dataset, &card, &mut report)?,
    }
    Ok(report)
}

fn changed_source(history: &History, card: &DatasetCard) -> Result<Option<std::path::PathBuf>, DatasetError> {
    for source in &card.sources {
        let path = history.dir().join(&source.path);
        if !path.exists() || files::digest(&path)? != source.blake3 {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn compare_logged(
    history: &History,
    to: Option<Timestamp>,
    tables: &dyn Fn(&str) -> Option<Arc<ServiceTable>>,
    report: &mut VerifyReport,
) -> Result<(), DatasetError> {
    let mut replay = Replay::new(history.network().clone());
    let mut version: Option<String> = None;
    // What came later is no part of what the dataset was made from.
    let mut records = history.records(None, to)?;
    while let Some(record) = records.next() {
        let record = record?;
        if let HistoryRecord::Decision(decision) = &record {
            if decision.model_version != version {
                version.clone_from(&decision.model_version);
                replay.set_table(table_of(decision, tables).map_err(|error| error.at(records.place()))?);
            }
            compare_decision(&mut replay, decision, report).map_err(|error| error.at(records.place()))?;
        }
        replay.apply(&record).map_err(|error| error.at(records.place()))?;
    }
    Ok(())
}

fn table_of(
    decision: &DecisionRecord,
    tables: &dyn Fn(&str) -> Option<Arc<ServiceTable>>,
) -> Result<Option<Arc<ServiceTable>>, DatasetError> {
    let Some(version) = &decision.model_version else { return Ok(None) };
    let unknown = || DatasetError::UnknownModel {
        place: Place::default(),
        decision_id: decision.decision_id,
        version: version.clone(),
    };
    tables(version).map(Some).ok_or_else(unknown)
}

fn compare_decision(
    replay: &mut Replay,
    decision: &DecisionRecord,
    report: &mut VerifyReport,
) -> Result<(), DatasetError> {
    let (shards, found) = (decision.logged_shards.len(), decision.logged_features.len());
    if found != shards * FEATURE_COUNT {
        let decision_id = decision.decision_id;
        let expected = shards * FEATURE_COUNT;
        return Err(DatasetError::LoggedShape { place: Place::default(), decision_id, shards, found, expected });
    }
    if shards == 0 {
        return Ok(());
    }
    let context = replay.context(decision);
    let features = DecisionFeatures::new(&context);
    for (shard, logged) in decision.logged_shards.iter().zip(decision.logged_features.chunks_exact(FEATURE_COUNT)) {
        let candidate = context.fleet.position(shard).ok_or_else(|| unknown_shard(decision, shard))?;
        let extracted = FeatureVector::extract(&features, candidate);
        let values = logged.iter().zip(extracted.as_slice()).zip(FEATURES);
        let differing = values.filter(|((logged, extracted), _)| !same(Cell::F32(**logged), Cell::F32(**extracted)));
        report.row(differing.map(|((logged, extracted), feature)| Mismatch {
            decision_id: decision.decision_id,
            shard: shard.as_str().to_owned(),
            feature: feature.name.to_owned(),
            logged: logged.to_string(),
            extracted: extracted.to_string(),
        }));
    }
    Ok(())
}

impl VerifyReport {
    /// Counts a compared row with the values that differ in it.
    fn row(&mut self, differing: impl Iterator<Item = Mismatch>) {
        self.rows += 1;
        let mut differs = false;
        for mismatch in differing {
            differs = true;
            if self.examples.len() < MAX_EXAMPLES {
                self.examples.push(mismatch);
            }
        }
        self.mismatches += u64::from(differs);
    }
}

/// Builds the dataset again, beside it or, where that is not possible, in the temporary folder, and compares.
fn compare_dataset(
    history: &History,
    dataset: &Path,
    card: &DatasetCard,
    report: &mut VerifyReport,
) -> Result<(), DatasetError> {
    let beside = dataset.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let work = tempfile::tempdir_in(beside)
        .or_else(|_| tempfile::tempdir())
        .map_err(DatasetError::io("create a folder in", &std::env::temp_dir()))?;
    let again = work.path().join("dataset");
    let days: Vec<String> = card.days.iter().map(|day| day.date.clone()).collect();
    let rebuilt = build_days(history, &again, &card.options, &days, &mut |_| true)?;
    for (old, new) in card.days.iter().zip(&rebuilt.days) {
        compare_day(dataset, &again, old, new, report)?;
    }
    Ok(())
}

fn compare_day(
    dataset: &Path,
    again: &Path,
    old: &DayCard,
    new: &DayCard,
    report: &mut VerifyReport,
) -> Result<(), DatasetError> {
    let mut held = DayRows::new(dataset, old);
    let mut right = DayRows::new(again, new);
    loop {
        let (held_row, right_row) = (held.next()?, right.next()?);
        match (held_row, right_row) {
            (None, None) => return Ok(()),
            (Some(row), None) => report.row(std::iter::once(missing(held.part(), row, "a row", "no row"))),
            (None, Some(row)) => report.row(std::iter::once(missing(right.part(), row, "no row", "a row"))),
            (Some(held_row), Some(right_row)) => {
                let columns = 0..dataset_columns().len();
                let (held, right) = (held.part(), right.part());
                let differing = columns.filter(|c| !same(held.cell(*c, held_row), right.cell(*c, right_row)));
                report.row(differing.map(|c| Mismatch {
                    feature: dataset_columns()[c].name.to_owned(),
                    logged: held.cell(c, held_row).to_string(),
                    extracted: right.cell(c, right_row).to_string(),
                    ..missing(right, right_row, "", "")
                }));
            }
        }
    }
}

fn missing(part: &PartRows, row: usize, logged: &str, extracted: &str) -> Mismatch {
    let shard = match part.cell(column("shard"), row) {
        Cell::Text(shard) => shard.to_owned(),
        other => other.to_string(),
    };
    Mismatch {
        decision_id: part.i64(column("decision_id"), row).cast_unsigned(),
        shard,
        feature: "row".to_owned(),
        logged: logged.to_owned(),
        extracted: extracted.to_owned(),
    }
}

/// The rows of a day, file after file.
struct DayRows {
    files: std::vec::IntoIter<std::path::PathBuf>,
    part: Option<PartRows>,
    row: usize,
}

impl DayRows {
    fn new(dataset: &Path, day: &DayCard) -> Self {
        let dir = dataset.join(day_dir(&day.date));
        let files: Vec<_> = (0..day.parts).map(|part| dir.join(part_file(part))).collect();
        Self { files: files.into_iter(), part: None, row: 0 }
    }

    /// Moves to the next row; its number within [`Self::part`].
    fn next(&mut self) -> Result<Option<usize>, DatasetError> {
        loop {
            if let Some(part) = &self.part
                && self.row < part.rows
            {
                self.row += 1;
                return Ok(Some(self.row - 1));
            }
            let Some(file) = self.files.next() else { return Ok(None) };
            self.part = Some(PartRows::read(&file)?);
            self.row = 0;
        }
    }

    fn part(&self) -> &PartRows {
        self.part.as_ref().expect("a row was returned from it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::CARD_FILE;
    use crate::sample::{edit, file_of, history, names, write};
    use crate::schema::Table;
    use crate::{BuildOptions, build};
    use std::path::PathBuf;

    const DAY: &str = "2026-01-05";

    struct Bench(tempfile::TempDir);

    impl Bench {
        fn new(spoil: impl FnOnce(&mut Vec<HistoryRecord>)) -> Self {
            let bench = Self(tempfile::tempdir().unwrap());
            let mut records = history("2026-01-05T23:50:00Z", 15.0, 1_000.0);
            spoil(&mut records);
            write(&bench.path("history"), &records);
            build(&bench.path("history"), &bench.path("dataset"), &BuildOptions::default(), &mut |_| true).unwrap();
            bench
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn part(&self) -> PathBuf {
            self.path("dataset").join(day_dir(DAY)).join(part_file(1))
        }

        fn verify(&self) -> Result<VerifyReport, DatasetError> {
            verify(&self.path("history"), &self.path("dataset"), &|_| None)
        }
    }

    #[test]
    fn what_was_not_touched_has_no_mismatch() {
        let bench = Bench::new(|_| {});
        let report = bench.verify().unwrap();
        let card = load_card(&bench.path("dataset")).unwrap();
        assert_eq!((report.mismatches, report.examples.len()), (0, 0));
        // Every fifth of 900 decisions logs three shards.
        assert_eq!(report.rows, card.rows + 540);
        assert_eq!(names(bench.0.path()), ["dataset", "history"]);
    }

    #[test]
    fn one_flipped_bit_of_a_logged_feature_is_found() {
        let bench = Bench::new(|records| {
            let logged = records.iter_mut().find_map(|record| match record {
                HistoryRecord::Decision(decision) if decision.decision_id == 500 => Some(&mut decision.logged_features),
                _ => None,
            });
            let value = &mut logged.unwrap()[1];
            *value = f32::from_bits(value.to_bits() ^ 1);
        });
        let report = bench.verify().unwrap();
        assert_eq!((report.mismatches, report.examples.len()), (1, 1));
        assert_eq!((report.examples[0].decision_id, report.examples[0].feature.as_str()), (500, FEATURES[1].name));
    }

    #[test]
    fn one_flipped_bit_of_the_dataset_is_found() {
        for name in ["data_complexity", "exec_ms"] {
            let bench = Bench::new(|_| {});
            let part = PartRows::read(&bench.part()).unwrap();
            let row = (0..part.rows).find(|row| !part.f32(column(name), *row).is_nan()).unwrap();
            let flipped = f32::from_bits(part.f32(column(name), row).to_bits() ^ 1);
            edit(&bench.part(), dataset_columns(), name, row, Cell::F32(flipped));
            let report = bench.verify().unwrap();
            assert_eq!((report.mismatches, report.examples[0].feature.as_str()), (1, name));
        }
    }

    #[test]
    fn rows_that_were_removed_are_found() {
        let bench = Bench::new(|_| {});
        let last = bench.path("dataset").join(day_dir("2026-01-06"));
        let file = files::parquet_files(&last).unwrap().pop().unwrap();
        let frame = files::read_parquet(&file, None).unwrap();
        files::write_parquet(&file, &mut frame.slice(0, frame.height() - 2)).unwrap();
        let report = bench.verify().unwrap();
        assert_eq!((report.mismatches, report.examples[0].logged.as_str()), (2, "no row"));
    }

    #[test]
    fn a_source_that_changed_is_named() {
        let bench = Bench::new(|_| {});
        let file = file_of(&bench.path("history"), Table::Outcomes, DAY);
        edit(&file, &Table::Outcomes.specs(), "total_ms", 550, Cell::F32(1.0));
        let changed = bench.verify();
        assert!(changed.map_or(true, |report| report.mismatches > 0), "found by the logged features or by the hash");
        let bench = Bench::new(|_| {});
        let market = file_of(&bench.path("history"), Table::Market, DAY);
        edit(&market, &Table::Market.specs(), "price_usd", 1, Cell::F64(1.0));
        let error = bench.verify().unwrap_err();
        assert!(matches!(&error, DatasetError::SourceChanged { path } if *path == market), "{error}");
    }

    #[test]
    fn a_dataset_of_other_features_is_refused() {
        let bench = Bench::new(|_| {});
        let card = bench.path("dataset").join(CARD_FILE);
        let own = shardwise_features::fingerprint();
        let text = std::fs::read_to_string(&card).unwrap();
        std::fs::write(&card, text.replace(own, &own.replace(['a', '1'], "0"))).unwrap();
        let error = bench.verify().unwrap_err();
        assert!(matches!(error, DatasetError::OtherFeatures { .. }), "{error}");
    }

    #[test]
    fn decisions_of_a_model_need_its_table() {
        let bench = Bench::new(|records| {
            for record in records {
                if let HistoryRecord::Decision(decision) = record
                    && decision.decision_id == 600
                {
                    decision.model_version = Some("v7".to_owned());
                }
            }
        });
        let error = bench.verify().unwrap_err().to_string();
        assert!(error.contains("'v7'") && error.contains("decision 600"), "{error}");
        let empty = |version: &str| (version == "v7").then(|| Arc::new(ServiceTable::default()));
        let report = verify(&bench.path("history"), &bench.path("dataset"), &empty).unwrap();
        let ids: Vec<u64> = report.examples.iter().map(|mismatch| mismatch.decision_id).collect();
        assert!(ids.contains(&600), "what that table decided differs: {ids:?}");
        assert!(ids.iter().all(|id| *id >= 600), "and nothing before it: {ids:?}");
    }

    #[test]
    fn features_of_another_table_are_refused_by_their_number() {
        let bench = Bench::new(|records| {
            for record in records {
                if let HistoryRecord::Decision(decision) = record {
                    decision.logged_features.pop();
                }
            }
        });
        let error = bench.verify().unwrap_err().to_string();
        assert!(error.contains("3 shards") && error.contains("row 0"), "{error}");
    }
}
