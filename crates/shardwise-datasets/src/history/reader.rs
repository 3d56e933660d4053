//! Opens a history: finds its days and files, and checks every file's columns before a row is read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use polars::prelude::*;
use shardwise_types::{DirectiveRecord, HistoryRecord, Network, RouterId, Timestamp};

use crate::columns::{CheckedFrame, Origin, check_file};
use crate::files::{names_in, parquet_files, read};
use crate::history::{Records, TOPOLOGY_FILE, WORLD_FILE};
use crate::schema::Table;
use crate::values::Values;
use crate::{ColumnSpec, DatasetError, FileSum, Place};

const FILE_COLUMN: &str = "__file";
const ROW_COLUMN: &str = "__row";

/// A history whose files were all found and whose columns were all checked.
pub struct History {
    dir: PathBuf,
    network: Network,
    world_json: Option<String>,
    tables: BTreeMap<(Table, String), Arc<TableDay>>,
    days: Vec<String>,
}

/// The files of one table on one day.
pub(crate) struct TableDay {
    table: Table,
    specs: Vec<ColumnSpec>,
    day: String,
    files: Vec<PathBuf>,
    /// Of each file, the columns that came later and that it does not have.
    lacks: Vec<Vec<&'static str>>,
    pub(crate) rows: u64,
    /// Size in memory, about.
    pub(crate) bytes: u64,
}

impl History {
    /// Opens the history at `dir`.
    ///
    /// # Errors
    /// No history there, no decisions in it, a missing table (but for `shadow`), a file that cannot be read, or a column that is missing
    /// or of the wrong type; the message names the file and the column.
    pub fn open(dir: &Path) -> Result<Self, DatasetError> {
        if !dir.is_dir() || Table::ALL.iter().all(|table| !dir.join(table.name()).is_dir()) {
            return Err(DatasetError::NoHistory { path: dir.to_owned() });
        }
        let mut tables = BTreeMap::new();
        for table in Table::ALL {
            for day in TableDay::find(dir, table)? {
                tables.insert((table, day.day.clone()), Arc::new(day));
            }
        }
        let decisions = tables.values().filter(|day| day.table == Table::Decisions).map(|day| day.rows).sum::<u64>();
        if decisions == 0 {
            return Err(DatasetError::EmptyHistory { path: dir.to_owned(), range: String::new() });
        }
        let days: BTreeSet<String> = tables.keys().map(|(_, day)| day.clone()).collect();
        let world = dir.join(WORLD_FILE);
        let world_json = match world.exists() {
            true => Some(String::from_utf8_lossy(&read(&world)?).into_owned()),
            false => None,
        };
        Ok(Self {
            dir: dir.to_owned(),
            network: read_network(dir)?,
            world_json,
            tables,
            days: days.into_iter().collect(),
        })
    }

    /// Where it lies.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Distances between regions and to exchanges.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// What the simulator knew, when the history was simulated.
    pub fn world_json(&self) -> Option<&str> {
        self.world_json.as_deref()
    }

    /// The days, `YYYY-MM-DD`, rising.
    pub fn days(&self) -> &[String] {
        &self.days
    }

    /// The files that a dataset of what was known before `to` is made from, with their digests: two histories with the same
    /// sums give the same dataset.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn sources(&self, to: Option<Timestamp>) -> Result<Vec<FileSum>, DatasetError> {
        let days = self.days.iter().filter(|day| to.is_none_or(|to| day_start(day) < to));
        let files = days.flat_map(|day| self.files_of(day));
        std::iter::once(TOPOLOGY_FILE.to_owned()).chain(files).map(|file| FileSum::of(&self.dir, &file)).collect()
    }

    /// Rows of each table.
    pub fn row_counts(&self) -> BTreeMap<&'static str, u64> {
        let mut counts: BTreeMap<&'static str, u64> = Table::ALL.iter().map(|table| (table.name(), 0)).collect();
        for day in self.tables.values() {
            *counts.entry(day.table.name()).or_default() += day.rows;
        }
        counts
    }

    /// The routers that decided something in [`from`, `to`), each with the number of its decisions.
    ///
    /// # Errors
    /// A file that cannot be read, or `to` lies before `from`.
    pub fn decisions_by_router(
        &self,
        from: Option<Timestamp>,
        to: Option<Timestamp>,
    ) -> Result<BTreeMap<RouterId, u64>, DatasetError> {
        check_range(from, to)?;
        let mut routers = BTreeMap::new();
        for day in self.tables.values().filter(|day| day.table == Table::Decisions && day.rows > 0) {
            for (router, decisions) in day.rows_by_router(from, to).map_err(day.failed())? {
                *routers.entry(router).or_default() += decisions;
            }
        }
        Ok(routers)
    }

    /// The records known in [`from`, `to`) in the total order (`known_at`, `sequence`, table, id), read piece by piece;
    /// every value is checked on the way, and that each row of `shadow` comes right behind its decision. After an error
    /// the iterator ends.
    ///
    /// # Errors
    /// `to` lies before `from`.
    pub fn records(&self, from: Option<Timestamp>, to: Option<Timestamp>) -> Result<Records<'_>, DatasetError> {
        check_range(from, to)?;
        Ok(Records::new(self, from, to))
    }

    /// What routers were directed, in order, from the beginning.
    ///
    /// # Errors
    /// A file that cannot be read, or a value that is not allowed.
    pub fn directives(&self) -> Result<Vec<DirectiveRecord>, DatasetError> {
        let mut directives = Vec::new();
        for day in self.tables.values().filter(|day| day.table == Table::Directives && day.rows > 0) {
            let start = day_start(&day.day);
            let frame = day.slice(start, start.plus_millis(86_400_000.0))?;
            for row in 0..frame.rows {
                if let HistoryRecord::Directive(directive) = day.table.read(&mut frame.row(row))? {
                    directives.push(*directive);
                }
            }
        }
        Ok(directives)
    }

    pub(crate) fn table_day(&self, table: Table, day: &str) -> Option<&Arc<TableDay>> {
        self.tables.get(&(table, day.to_owned()))
    }

    /// The files of a day in all tables, relative to the history.
    pub(crate) fn files_of(&self, day: &str) -> Vec<String> {
        let of_day = Table::ALL.iter().filter_map(|table| self.table_day(*table, day));
        of_day
            .flat_map(|table_day| &table_day.files)
            .map(|file| file.strip_prefix(&self.dir).unwrap_or(file).to_string_lossy().into_owned())
            .collect()
    }

    /// The first and the last instant at which a decision of a day was known, before `to`.
    pub(crate) fn decision_span(
        &self,
        day: &str,
        to: Option<Timestamp>,
    ) -> Result<Option<(Timestamp, Timestamp)>, DatasetError> {
        match self.table_day(Table::Decisions, day) {
            Some(table_day) => table_day.span(to),
            None => Ok(None),
        }
    }
}

/// Refuses a range that ends before it begins.
pub(crate) fn check_range(from: Option<Timestamp>, to: Option<Timestamp>) -> Result<(), DatasetError> {
    match from.zip(to) {
        Some((from, to)) if to < from => Err(DatasetError::BadOption {
            option: "to",
            problem: format!("{to} lies before {from}; give a range that begins before it ends"),
        }),
        _ => Ok(()),
    }
}

/// The instant at which a day begins in UTC.
pub(crate) fn day_start(day: &str) -> Timestamp {
    day.parse().expect("the days of a history were checked when it was opened")
}

fn read_network(dir: &Path) -> Result<Network, DatasetError> {
    let path = dir.join(TOPOLOGY_FILE);
    serde_json::from_slice(&read(&path)?)
        .map_err(|error| DatasetError::Unreadable { path, problem: format!("not a topology: {error}") })
}

impl TableDay {
    fn find(dir: &Path, table: Table) -> Result<Vec<Self>, DatasetError> {
        let table_dir = dir.join(table.name());
        if !table_dir.is_dir() {
            if table.may_be_missing() {
                return Ok(Vec::new());
            }
            return Err(DatasetError::MissingTable { path: dir.to_owned(), table: table.name() });
        }
        let names = names_in(&table_dir)?;
        names
            .iter()
            .filter(|name| !name.starts_with(['.', '_']))
            .map(|name| Self::open(&table_dir, table, name))
            .collect()
    }

    fn open(table_dir: &Path, table: Table, name: &str) -> Result<Self, DatasetError> {
        let dir = table_dir.join(name);
        let day = name
            .strip_prefix("date=")
            .filter(|day| day.len() == 10 && day.parse::<Timestamp>().is_ok_and(|start| start.date_utc() == **day));
        let Some(day) = day.filter(|_| dir.is_dir()) else { return Err(DatasetError::NotADay { path: dir }) };
        let (specs, files) = (table.specs(), parquet_files(&dir)?);
        let (mut rows, mut bytes, mut lacks) = (0, 0, Vec::new());
        for file in &files {
            let checked = check_file(file, &specs)?;
            rows += checked.rows;
            bytes += checked.bytes;
            lacks.push(checked.lacks);
        }
        Ok(Self { table, specs, day: day.to_owned(), files, lacks, rows, bytes })
    }

    pub(crate) fn table(&self) -> Table {
        self.table
    }

    /// All rows, lazily, each with its file and its row there.
    fn scan(&self) -> PolarsResult<LazyFrame> {
        let scans: PolarsResult<Vec<LazyFrame>> =
            (0..).zip(&self.files).zip(&self.lacks).map(|((n, file), lacks)| self.scan_file(n, file, lacks)).collect();
        concat(scans?, UnionArgs { rechunk: false, ..UnionArgs::default() })
    }

    fn scan_file(&self, number: u32, file: &Path, lacks: &[&str]) -> PolarsResult<LazyFrame> {
        let args = ScanArgsParquet {
            row_index: Some(RowIndex { name: ROW_COLUMN.into(), offset: 0 }),
            glob: false,
            hive_options: HiveOptions { enabled: Some(false), ..HiveOptions::default() },
            ..ScanArgsParquet::default()
        };
        let column = |spec: &ColumnSpec| match lacks.contains(&spec.name) {
            true => lit(NULL).cast(spec.kind.data_type()).alias(spec.name),
            false => col(spec.name),
        };
        let mut columns: Vec<Expr> = self.specs.iter().map(column).collect();
        columns.push(col(ROW_COLUMN));
        columns.push(lit(number).cast(DataType::UInt32).alias(FILE_COLUMN));
        Ok(LazyFrame::scan_parquet(PlRefPath::try_from_path(file)?, args)?.select(columns))
    }

    fn failed(&self) -> impl Fn(PolarsError) -> DatasetError {
        let path = self.files.first().cloned().unwrap_or_default();
        move |error| DatasetError::unreadable(&path)(error)
    }

    /// The first and last `known_at` before `to`; refuses rows that have none or that lie in the wrong partition.
    pub(crate) fn span(&self, to: Option<Timestamp>) -> Result<Option<(Timestamp, Timestamp)>, DatasetError> {
        if self.rows == 0 {
            return Ok(None);
        }
        self.check_day()?;
        let known = self.scan().map_err(self.failed())?.select([col("known_at")]);
        let known = match to {
            Some(to) => known.filter(col("known_at").lt(time(to))),
            None => known,
        };
        let frame = known
            .select([col("known_at").min().alias("first"), col("known_at").max().alias("last")])
            .collect_with_engine(Engine::Streaming)
            .map_err(self.failed())?
            .unwrap_single();
        let at = |name: &str| -> PolarsResult<Option<Timestamp>> {
            let series = frame.column(name)?.as_materialized_series().clone();
            Ok(series.datetime()?.physical().get(0).map(Timestamp::from_nanos))
        };
        Ok(at("first").map_err(self.failed())?.zip(at("last").map_err(self.failed())?))
    }

    fn rows_by_router(&self, from: Option<Timestamp>, to: Option<Timestamp>) -> PolarsResult<Vec<(RouterId, u64)>> {
        let (after, before) =
            (from.map(|from| col("known_at").gt_eq(time(from))), to.map(|to| col("known_at").lt(time(to))));
        let rows = self.scan()?.select([col("router"), col("known_at")]);
        let rows = after.into_iter().chain(before).fold(rows, LazyFrame::filter);
        let frame = rows
            .group_by([col("router")])
            .agg([len().cast(DataType::UInt64).alias("decisions")])
            .collect_with_engine(Engine::Streaming)?
            .unwrap_single();
        let routers = frame.column("router")?.as_materialized_series().cast(&DataType::String)?;
        let decisions = frame.column("decisions")?.as_materialized_series();
        let counted = routers.str()?.iter().zip(decisions.u64()?.iter());
        Ok(counted.filter_map(|(router, decisions)| Some((RouterId::new(router?), decisions?))).collect())
    }

    fn check_day(&self) -> Result<(), DatasetError> {
        let start = day_start(&self.day);
        let end = start.plus_millis(86_400_000.0);
        let known = || col("known_at");
        let strays = self
            .scan()
            .map_err(self.failed())?
            .select([known(), col(ROW_COLUMN), col(FILE_COLUMN)])
            .filter(known().is_null().or(known().lt(time(start))).or(known().gt_eq(time(end))))
            .limit(1)
            .collect_with_engine(Engine::Streaming)
            .map_err(self.failed())?
            .unwrap_single();
        if strays.height() == 0 {
            return Ok(());
        }
        let origin = self.origin(&strays).map_err(self.failed())?;
        let known_at = strays
            .column("known_at")
            .and_then(|column| Ok(column.as_materialized_series().datetime()?.physical().get(0)))
            .map_err(self.failed())?;
        Err(self.stray(origin.place(0), known_at.map(Timestamp::from_nanos)))
    }

    fn stray(&self, place: Place, known_at: Option<Timestamp>) -> DatasetError {
        match known_at {
            Some(known_at) => DatasetError::WrongDay { place, known_at: known_at.to_string(), date: self.day.clone() },
            None => DatasetError::BadValue {
                place,
                column: "known_at".to_owned(),
                value: "null".to_owned(),
                rule: "it must not be null".to_owned(),
            },
        }
    }

    /// The rows known in [`from`, `to`), in order.
    pub(crate) fn slice(&self, from: Timestamp, to: Timestamp) -> Result<CheckedFrame, DatasetError> {
        self.try_slice(from, to).map_err(self.failed())
    }

    fn try_slice(&self, from: Timestamp, to: Timestamp) -> PolarsResult<CheckedFrame> {
        let frame = self
            .scan()?
            .filter(col("known_at").gt_eq(time(from)).and(col("known_at").lt(time(to))))
            .sort(self.table.order(), SortMultipleOptions::default())
            .collect_with_engine(Engine::Streaming)?
            .unwrap_single();
        let values: PolarsResult<Vec<Values>> = self.specs.iter().map(|spec| Values::of(&frame, spec)).collect();
        let origin = Arc::new(self.origin(&frame)?);
        Ok(CheckedFrame { specs: self.specs.clone(), values: values?, origin, rows: frame.height() })
    }

    fn origin(&self, frame: &DataFrame) -> PolarsResult<Origin> {
        let series = |name: &str| frame.column(name).map(|column| column.as_materialized_series().rechunk());
        let file_of = series(FILE_COLUMN)?.u32()?.clone();
        let row_of = series(ROW_COLUMN)?.idx()?.clone();
        Ok(Origin { files: self.files.clone(), file_of, row_of })
    }
}

fn time(at: Timestamp) -> Expr {
    lit(at.nanos()).cast(DataType::Datetime(TimeUnit::Nanoseconds, Some(TimeZone::UTC)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::Cell;
    use crate::files::{read_parquet, write_parquet};
    use crate::sample::{assert_same, edit, file_of, history, write};

    const DAY: &str = "2026-01-05";

    /// A history of one minute, spoiled, and the error of opening and reading it.
    fn refused(spoil: impl FnOnce(&Path)) -> String {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("history");
        write(&dir, &history("2026-01-05T12:00:00Z", 1.0, 200.0));
        spoil(&dir);
        let read = || -> Result<(), DatasetError> {
            History::open(&dir)?.records(None, None)?.try_for_each(|record| record.map(drop))
        };
        read().unwrap_err().to_string()
    }

    fn assert_says(error: &str, words: &[&str]) {
        words.iter().for_each(|word| assert!(error.contains(word), "'{word}' is not in: {error}"));
    }

    fn spoiled(table: Table, column: &str, cell: Cell<'_>) -> String {
        refused(|dir| edit(&file_of(dir, table, DAY), &table.specs(), column, 7, cell))
    }

    #[test]
    fn routers_and_their_decisions_are_counted_in_a_range() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("history");
        let records = history("2026-01-05T23:59:00Z", 2.0, 200.0);
        write(&dir, &records);
        let opened = History::open(&dir).unwrap();
        let [from, to] = ["2026-01-05T23:59:20Z", "2026-01-06T00:00:30Z"].map(|at| at.parse().unwrap());
        for (from, to) in [(None, None), (Some(from), None), (None, Some(to)), (Some(from), Some(to))] {
            let mut expected: BTreeMap<RouterId, u64> = BTreeMap::new();
            for record in opened.records(from, to).unwrap() {
                if let HistoryRecord::Decision(decision) = record.unwrap() {
                    *expected.entry(decision.router).or_default() += 1;
                }
            }
            assert!(!expected.is_empty());
            assert_eq!(opened.decisions_by_router(from, to).unwrap(), expected);
        }
        assert!(opened.decisions_by_router(Some(to), Some(from)).is_err(), "it ends before it begins");
    }

    #[test]
    fn files_from_before_routers_were_told_apart_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("history");
        let records = history("2026-01-05T12:00:00Z", 1.0, 200.0);
        write(&dir, &records);
        for table in [Table::ShardReports, Table::Market] {
            let file = file_of(&dir, table, DAY);
            let mut frame = read_parquet(&file, None).unwrap();
            assert!(frame.drop_in_place("router").is_ok());
            write_parquet(&file, &mut frame).unwrap();
        }
        let read: Vec<HistoryRecord> =
            History::open(&dir).unwrap().records(None, None).unwrap().map(Result::unwrap).collect();
        assert_same(&read, &records);
    }

    #[test]
    fn what_was_directed_is_read_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("history");
        let records = history("2026-01-05T23:58:00Z", 4.0, 200.0);
        write(&dir, &records);
        let directed: Vec<HistoryRecord> =
            records.into_iter().filter(|record| matches!(record, HistoryRecord::Directive(_))).collect();
        let read = History::open(&dir).unwrap().directives().unwrap();
        let read: Vec<HistoryRecord> = read.into_iter().map(|it| HistoryRecord::Directive(Box::new(it))).collect();
        assert!(!read.is_empty());
        assert_same(&read, &directed);
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = History::open(Path::new("/no/such/history")).err().unwrap();
        assert_says(&error.to_string(), &["/no/such/history", "decisions/"]);
    }

    #[test]
    fn a_missing_table_is_named() {
        assert_says(&refused(|dir| std::fs::remove_dir_all(dir.join("outcomes")).unwrap()), &["outcomes"]);
    }

    #[test]
    fn a_history_may_have_no_shadow_and_no_directives() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("history");
        let mut records = history("2026-01-05T23:58:00Z", 4.0, 200.0);
        write(&dir, &records);
        let with = History::open(&dir).unwrap().row_counts();
        // As histories are that were written before there were such tables.
        for table in Table::ALL.into_iter().filter(|table| table.may_be_missing()) {
            std::fs::remove_dir_all(dir.join(table.name())).unwrap();
        }
        let opened = History::open(&dir).unwrap();
        let without = opened.row_counts();
        assert!(with["shadow"] > 100 && without["shadow"] == 0);
        assert!(with["directives"] == 2 && without["directives"] == 0);
        assert!(Table::ALL.iter().all(|t| t.may_be_missing() || with[t.name()] == without[t.name()]));
        records.retain(|record| !matches!(record, HistoryRecord::Shadow(_) | HistoryRecord::Directive(_)));
        let read: Result<Vec<HistoryRecord>, _> = opened.records(None, None).unwrap().collect();
        assert_same(&read.unwrap(), &records);
    }

    #[test]
    fn no_other_table_may_be_missing() {
        for table in Table::ALL.into_iter().filter(|table| !table.may_be_missing()) {
            assert_says(&refused(|dir| std::fs::remove_dir_all(dir.join(table.name())).unwrap()), &[table.name()]);
        }
    }

    #[test]
    fn what_a_challenger_says_of_no_decision_is_named() {
        let elsewhere = ["shadow", "row 7", "no decision", "known_at"];
        for (column, cell) in [
            ("decision_id", Cell::I64(1_000_000)),
            ("sequence", Cell::I64(1)),
            ("event_at", Cell::I64(day_start(DAY).nanos())),
            ("known_at", Cell::I64(day_start(DAY).nanos())),
        ] {
            assert_says(&spoiled(Table::Shadow, column, cell), &elsewhere);
        }
        let error = refused(|dir| {
            // Of the decisions whose rows are gone, what was said of them stays.
            let file = file_of(dir, Table::Decisions, DAY);
            write_parquet(&file, &mut read_parquet(&file, None).unwrap().slice(0, 200)).unwrap();
            std::fs::remove_dir_all(dir.join("outcomes/date=2026-01-05")).unwrap();
        });
        assert_says(&error, &["shadow", "no decision 202"]);
    }

    #[test]
    fn a_challenger_that_agrees_with_what_was_not_chosen_is_named() {
        let claims = [true, false].map(|agrees| {
            let folder = tempfile::tempdir().unwrap();
            let dir = folder.path().join("history");
            write(&dir, &history("2026-01-05T12:00:00Z", 1.0, 200.0));
            edit(&file_of(&dir, Table::Shadow, DAY), &Table::Shadow.specs(), "agrees", 7, Cell::Bool(agrees));
            let read: Result<Vec<HistoryRecord>, _> =
                History::open(&dir).unwrap().records(None, None).unwrap().collect();
            read.err().map(|error| error.to_string())
        });
        let ([Some(error), None] | [None, Some(error)]) = &claims else { panic!("one of the two is true: {claims:?}") };
        assert_says(error, &["shadow", "row 7", "agrees", "went to"]);
    }

    #[test]
    fn a_challenger_that_speaks_twice_of_a_decision_is_named() {
        let error = refused(|dir| {
            let file = file_of(dir, Table::Shadow, DAY);
            let frame = read_parquet(&file, None).unwrap();
            write_parquet(&file, &mut frame.vstack(&frame.slice(9, 1)).unwrap()).unwrap();
        });
        assert_says(&error, &["another row of shadow"]);
    }

    #[test]
    fn a_history_without_decisions_is_empty() {
        let error = refused(|dir| std::fs::remove_dir_all(dir.join("decisions/date=2026-01-05")).unwrap());
        assert_says(&error, &["no decisions"]);
    }

    #[test]
    fn a_folder_that_is_no_day_is_named() {
        assert_says(&refused(|dir| std::fs::create_dir(dir.join("market/2026")).unwrap()), &["market/2026", "date="]);
    }

    #[test]
    fn a_file_cut_in_the_middle_is_named() {
        let error = refused(|dir| {
            let file = file_of(dir, Table::Outcomes, DAY);
            let bytes = std::fs::read(&file).unwrap();
            std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
        });
        assert_says(&error, &["outcomes", "part-0000.parquet", "cut short"]);
    }

    #[test]
    fn a_missing_column_is_named_with_its_type() {
        let error = refused(|dir| {
            let file = file_of(dir, Table::Decisions, DAY);
            let mut frame = read_parquet(&file, None).unwrap().drop("propensity").unwrap();
            write_parquet(&file, &mut frame).unwrap();
        });
        assert_says(&error, &["decisions", "propensity", "float64"]);
    }

    #[test]
    fn a_column_of_the_wrong_type_is_named_with_both() {
        let error = refused(|dir| {
            let file = file_of(dir, Table::Outcomes, DAY);
            let mut frame = read_parquet(&file, None).unwrap();
            let cast = frame.column("exec_ms").unwrap().cast(&DataType::Float64).unwrap();
            frame.with_column(cast).unwrap();
            write_parquet(&file, &mut frame).unwrap();
        });
        assert_says(&error, &["outcomes", "exec_ms", "float64", "float32"]);
    }

    #[test]
    fn times_without_a_zone_are_refused() {
        let error = refused(|dir| {
            let file = file_of(dir, Table::Market, DAY);
            let mut frame = read_parquet(&file, None).unwrap();
            let cast =
                frame.column("known_at").unwrap().cast(&DataType::Datetime(TimeUnit::Nanoseconds, None)).unwrap();
            frame.with_column(cast).unwrap();
            write_parquet(&file, &mut frame).unwrap();
        });
        assert_says(&error, &["market", "known_at", "no zone", "timestamp[ns, UTC]"]);
    }

    #[test]
    fn values_out_of_range_are_named_by_file_row_and_column() {
        let place = ["part-0000.parquet, row 7"];
        for (table, column, cell, words) in [
            (Table::Decisions, "amount_usd", Cell::F64(f64::NAN), ["amount_usd", "NaN"]),
            (Table::Decisions, "amount_usd", Cell::F64(-5.0), ["-5", "0 or more"]),
            (Table::Decisions, "propensity", Cell::F64(0.0), ["propensity", "above 0"]),
            (Table::Decisions, "propensity", Cell::F64(1.5), ["propensity", "1.5"]),
            (Table::Decisions, "risk_level", Cell::Text("extreme"), ["'extreme'", "low, medium, high, critical"]),
            (Table::Decisions, "router", Cell::Null, ["router", "null"]),
            (Table::Decisions, "eligible", Cell::I64(-1), ["eligible", "-1"]),
            (Table::Shadow, "model_version", Cell::Text(""), ["model_version", "empty"]),
            (Table::Shadow, "expected_ms", Cell::F64(f64::NAN), ["expected_ms", "NaN"]),
            (Table::Shadow, "chosen_expected_ms", Cell::F64(-1.0), ["chosen_expected_ms", "0 or more"]),
            (Table::Shadow, "chosen_exec_ms", Cell::F32(0.0), ["chosen_exec_ms", "above 0"]),
            (Table::Shadow, "fallback_reason", Cell::Text("tired"), ["'tired'", "no_exec_head"]),
            (Table::Outcomes, "exec_ms", Cell::F32(f32::INFINITY), ["exec_ms", "inf"]),
            (Table::Outcomes, "queue_ms", Cell::F32(-1.0), ["queue_ms", "-1"]),
            (Table::Outcomes, "error_class", Cell::Text("odd"), ["'odd'", "failed, timeout, dropped"]),
        ] {
            let error = spoiled(table, column, cell);
            assert_says(&error, &words);
            assert_says(&error, &place);
        }
        assert_says(
            &refused(|dir| {
                let file = file_of(dir, Table::ShardReports, DAY);
                edit(&file, &Table::ShardReports.specs(), "cpu", 1, Cell::F32(2.0));
            }),
            &["cpu", "row 1", "between 0 and 1"],
        );
    }

    #[test]
    fn pairs_of_which_one_half_is_missing_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("history");
        write(&dir, &history("2026-01-05T12:00:00Z", 2.0, 200.0));
        let file = file_of(&dir, Table::Directives, DAY);
        let mut frame = read_parquet(&file, None).unwrap();
        let mut none = frame.column("drained_shards").unwrap().clone();
        none.rename("avoided_shards".into());
        frame.with_column(none).unwrap();
        write_parquet(&file, &mut frame).unwrap();
        let read: Result<Vec<HistoryRecord>, _> = History::open(&dir).unwrap().records(None, None).unwrap().collect();
        let error = read.unwrap_err().to_string();
        assert_says(&error, &["directives", "row 0", "avoided_shards", "0 names", "one for each of the 1 functions"]);
    }

    #[test]
    fn a_row_without_a_time_or_of_another_day_is_named() {
        assert_says(&spoiled(Table::Outcomes, "known_at", Cell::Null), &["row 7", "known_at", "null"]);
        let next_day = Cell::I64(day_start("2026-01-06").nanos());
        assert_says(&spoiled(Table::Outcomes, "known_at", next_day), &["row 7", "not on 2026-01-05"]);
    }

    #[test]
    fn a_decision_id_that_is_there_twice_is_named() {
        assert_says(&spoiled(Table::Decisions, "decision_id", Cell::I64(3)), &["decision 3", "twice"]);
    }

    #[test]
    fn rows_that_nothing_orders_are_refused() {
        let error = refused(|dir| {
            let file = file_of(dir, Table::Market, DAY);
            let frame = read_parquet(&file, None).unwrap();
            write_parquet(&file, &mut frame.vstack(&frame).unwrap()).unwrap();
        });
        assert_says(&error, &["market", "sequence"]);
    }
}
