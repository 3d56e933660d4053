//! Writes a history: rows are held column by column, flushed as row groups, and appear as a whole or not at all.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use polars::prelude::*;
use shardwise_types::{HistoryRecord, Network, Timestamp};

use crate::columns::{Cell, TableBuffer, schema_of};
use crate::files::{StagedDir, create_dir, is_free, size, write};
use crate::history::{TOPOLOGY_FILE, WORLD_FILE};
use crate::schema::{Table, cells};
use crate::{DatasetError, Place};

/// Rows of a table that are held before they are written.
const ROWS_PER_GROUP: usize = 65_536;
/// Logged feature values that are held before they are written (16 MiB).
const FLOATS_PER_GROUP: usize = 1 << 22;
/// Days of one table whose files are open at once: records may come late around midnight.
const OPEN_DAYS: usize = 2;

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistorySummary {
    /// Rows of each table.
    pub rows: BTreeMap<&'static str, u64>,
    /// The days, `YYYY-MM-DD`, rising.
    pub days: Vec<String>,
    /// Bytes on disk.
    pub bytes: u64,
}

/// Writes one history; what is not finished leaves nothing behind.
pub struct HistoryWriter {
    staged: StagedDir,
    open: BTreeMap<(Table, String), PartFile>,
    /// Parts already begun, by table and day.
    parts: BTreeMap<(Table, String), u32>,
    rows: BTreeMap<&'static str, u64>,
    bytes: u64,
    records: u64,
}

struct PartFile {
    path: PathBuf,
    writer: polars::io::parquet::write::BatchedWriter<File>,
    buffer: TableBuffer,
    floats: usize,
}

impl HistoryWriter {
    /// Starts a history that will stand at `dir`. `world_json` is the simulator's truth, when the history is simulated.
    ///
    /// # Errors
    /// `dir` holds something already, or nothing can be written beside it.
    pub fn create(dir: &Path, network: &Network, world_json: Option<&str>) -> Result<Self, DatasetError> {
        if !is_free(dir)? {
            return Err(DatasetError::NotEmpty { path: dir.to_owned() });
        }
        let staged = StagedDir::create(dir)?;
        // The folder of a table that may be missing comes with its first row.
        for table in Table::ALL.into_iter().filter(|table| !table.may_be_missing()) {
            create_dir(&staged.path().join(table.name()))?;
        }
        let topology = serde_json::to_vec_pretty(network).expect("a network is plain data");
        write(&staged.path().join(TOPOLOGY_FILE), &topology)?;
        if let Some(world) = world_json {
            write(&staged.path().join(WORLD_FILE), world.as_bytes())?;
        }
        let rows = Table::ALL.iter().map(|table| (table.name(), 0)).collect();
        Ok(Self { staged, open: BTreeMap::new(), parts: BTreeMap::new(), rows, bytes: 0, records: 0 })
    }

    /// Adds a record. Records may come in any order; the closer to their order in time, the fewer files.
    ///
    /// # Errors
    /// A value that its column does not allow, or a disk that does not take the rows.
    #[expect(clippy::needless_pass_by_value, reason = "a recorder gives its records away")]
    pub fn record(&mut self, record: HistoryRecord) -> Result<(), DatasetError> {
        let table = Table::of(&record);
        let (known_at, _) = record.order();
        self.cells(table, known_at, cells(&record))
    }

    /// Adds a row by its cells, in the order of the table's columns.
    pub(crate) fn cells(
        &mut self,
        table: Table,
        known_at: Timestamp,
        cells: Vec<Cell<'_>>,
    ) -> Result<(), DatasetError> {
        self.check(table, &cells)?;
        let part = self.part_for(table, &known_at.date_utc())?;
        part.add(cells)?;
        *self.rows.entry(table.name()).or_default() += 1;
        self.records += 1;
        Ok(())
    }

    /// A folder that lives as long as the writer, for files that belong to the same work.
    pub(crate) fn scratch(&self) -> &Path {
        self.staged.scratch()
    }

    /// Writes what is held and moves the history to its place.
    ///
    /// # Errors
    /// A disk that does not take the rows; nothing is left behind then.
    pub fn finish(mut self) -> Result<HistorySummary, DatasetError> {
        while let Some((_, part)) = self.open.pop_first() {
            self.bytes += part.finish()?;
        }
        for file in [TOPOLOGY_FILE, WORLD_FILE] {
            let path = self.staged.path().join(file);
            self.bytes += if path.exists() { size(&path)? } else { 0 };
        }
        let mut days: Vec<String> = self.parts.into_keys().map(|(_, day)| day).collect();
        days.sort();
        days.dedup();
        self.staged.commit_new()?;
        Ok(HistorySummary { rows: self.rows, days, bytes: self.bytes })
    }

    fn check(&self, table: Table, cells: &[Cell<'_>]) -> Result<(), DatasetError> {
        for (spec, cell) in table.specs().iter().zip(cells) {
            if let Some(rule) = spec.problem(cell) {
                let place = Place { file: PathBuf::new(), row: self.records };
                let column = format!("{}.{}", table.name(), spec.name);
                return Err(DatasetError::BadValue { place, column, value: cell.to_string(), rule });
            }
        }
        Ok(())
    }

    fn part_for(&mut self, table: Table, day: &str) -> Result<&mut PartFile, DatasetError> {
        let key = (table, day.to_owned());
        if !self.open.contains_key(&key) {
            self.close_oldest(table)?;
            let part = self.parts.entry(key.clone()).or_default();
            let dir = self.staged.path().join(table.name()).join(format!("date={day}"));
            create_dir(&dir)?;
            let file = PartFile::create(dir.join(format!("part-{part:04}.parquet")), table)?;
            *part += 1;
            self.open.insert(key.clone(), file);
        }
        Ok(self.open.get_mut(&key).expect("it was opened above"))
    }

    fn close_oldest(&mut self, table: Table) -> Result<(), DatasetError> {
        let open: Vec<_> = self.open.keys().filter(|(of, _)| *of == table).cloned().collect();
        if open.len() >= OPEN_DAYS
            && let Some(part) = self.open.remove(&open[0])
        {
            self.bytes += part.finish()?;
        }
        Ok(())
    }
}

impl PartFile {
    fn create(path: PathBuf, table: Table) -> Result<Self, DatasetError> {
        let specs = table.specs();
        let file = File::create(&path).map_err(DatasetError::io("create", &path))?;
        let writer = ParquetWriter::new(file)
            .with_compression(ParquetCompression::Zstd(None))
            .batched(&schema_of(&specs))
            .map_err(DatasetError::unwritable(&path))?;
        Ok(Self { path, writer, buffer: TableBuffer::new(specs), floats: 0 })
    }

    fn add(&mut self, cells: Vec<Cell<'_>>) -> Result<(), DatasetError> {
        self.floats +=
            cells.iter().map(|cell| if let Cell::Floats(values) = cell { values.len() } else { 0 }).sum::<usize>();
        self.buffer.push(cells);
        if self.buffer.rows() >= ROWS_PER_GROUP || self.floats >= FLOATS_PER_GROUP {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DatasetError> {
        self.floats = 0;
        let frame =
            DataFrame::new(self.buffer.rows(), self.buffer.take()).map_err(DatasetError::unwritable(&self.path))?;
        self.writer.write_batch(&frame).map_err(DatasetError::unwritable(&self.path))
    }

    fn finish(mut self) -> Result<u64, DatasetError> {
        if self.buffer.rows() > 0 {
            self.flush()?;
        }
        self.writer.finish().map_err(DatasetError::unwritable(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{assert_same, at, history, names, network, write};
    use crate::{History, TABLES};

    #[test]
    fn a_history_comes_back_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("history");
        let records = history("2026-01-05T23:57:00Z", 6.0, 500.0);
        let mut writer = HistoryWriter::create(&dir, &network(), Some("{\"world\":1}")).unwrap();
        records.iter().for_each(|record| writer.record(record.clone()).unwrap());
        let summary = writer.finish().unwrap();

        let opened = History::open(&dir).unwrap();
        let read: Result<Vec<HistoryRecord>, _> = opened.records(None, None).unwrap().collect();
        assert_same(&read.unwrap(), &records);
        assert_eq!(opened.network(), &network());
        assert_eq!(opened.world_json(), Some("{\"world\":1}"));
        assert_eq!(summary.days, ["2026-01-05", "2026-01-06"]);
        assert_eq!(opened.days(), summary.days);
        assert_eq!(opened.row_counts(), summary.rows);
        assert_eq!(summary.rows.values().sum::<u64>(), records.len() as u64);
        assert_eq!(names(folder.path()), ["history"]);
    }

    #[test]
    fn a_history_without_challengers_gets_no_folder_for_them() {
        let folder = tempfile::tempdir().unwrap();
        let (with, without) = (folder.path().join("with"), folder.path().join("without"));
        let mut records = history("2026-01-05T12:00:00Z", 1.0, 500.0);
        write(&with, &records);
        records.retain(|record| !matches!(record, HistoryRecord::Shadow(_)));
        write(&without, &records);
        let tables = ["decisions", "market", "outcomes", "shadow", "shard_reports", "topology.json"];
        assert_eq!(names(&with), tables);
        assert_eq!(names(&without), tables.iter().filter(|name| **name != "shadow").copied().collect::<Vec<_>>());
    }

    #[test]
    fn records_may_come_in_any_order() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("history");
        let records = history("2026-01-05T23:58:00Z", 4.0, 500.0);
        let backwards: Vec<HistoryRecord> = records.iter().rev().cloned().collect();
        write(&dir, &backwards);
        let opened = History::open(&dir).unwrap();
        let read: Result<Vec<HistoryRecord>, _> = opened.records(None, None).unwrap().collect();
        assert_same(&read.unwrap(), &records);
    }

    #[test]
    fn a_folder_that_is_not_empty_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("notes.txt"), "mine").unwrap();
        let error = HistoryWriter::create(folder.path(), &network(), None).err().unwrap();
        assert!(matches!(error, DatasetError::NotEmpty { .. }), "{error}");
        assert_eq!(names(folder.path()), ["notes.txt"]);
    }

    #[test]
    fn what_is_not_finished_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = HistoryWriter::create(&folder.path().join("history"), &network(), None).unwrap();
        for record in history("2026-01-05T12:00:00Z", 1.0, 500.0) {
            writer.record(record).unwrap();
        }
        drop(writer);
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "in the way").unwrap();
        let error = HistoryWriter::create(&folder.path().join("file/history"), &network(), None).err().unwrap();
        assert!(error.to_string().contains("file"), "{error}");
        assert_eq!(names(folder.path()), ["file"]);
    }

    #[test]
    fn values_out_of_range_are_refused_when_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = HistoryWriter::create(&folder.path().join("history"), &network(), None).unwrap();
        for mut record in history("2026-01-05T12:00:00Z", 1.0, 500.0) {
            if let HistoryRecord::Decision(decision) = &mut record {
                decision.propensity = 0.0;
                let error = writer.record(record).unwrap_err().to_string();
                assert!(error.contains("decisions.propensity") && error.contains("holds 0"), "{error}");
                return;
            }
        }
        unreachable!("the sample has decisions");
    }

    #[test]
    fn days_are_those_of_utc() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("history");
        write(&dir, &history("2026-01-05T23:59:59.990Z", 2.0, 100.0));
        for table in TABLES {
            let days = names(&dir.join(table.name));
            assert!(days.iter().all(|day| ["date=2026-01-05", "date=2026-01-06"].contains(&day.as_str())), "{days:?}");
        }
        assert_eq!(at("2026-01-06").date_utc(), "2026-01-06");
    }
}
