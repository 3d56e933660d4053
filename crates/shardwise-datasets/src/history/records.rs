//! Streams a history in its one total order: per table, slices of time small enough to hold, merged by a comparison.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rustc_hash::FxHashSet;
use shardwise_types::{DecisionRecord, HistoryRecord, ShadowRecord, ShardId, Timestamp};

use crate::columns::{CheckedFrame, Origin};
use crate::history::reader::{TableDay, day_start};
use crate::schema::Table;
use crate::{DatasetError, History, Place};

/// Rows of one table that are held at once, about.
const ROWS_PER_SLICE: u64 = 100_000;
/// Bytes of one table that are held at once, about.
const BYTES_PER_SLICE: u64 = 64 << 20;
const DAY_MS: f64 = 86_400_000.0;

/// The records of a history in the total order; made by [`History::records`].
pub struct Records<'a> {
    history: &'a History,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    days: VecDeque<&'a str>,
    tables: Vec<TableStream>,
    last: Option<RowOf>,
    decided: Decided,
    failed: bool,
}

/// A row of a slice. Its place is made out only when somebody asks for it, which is when something is wrong.
struct RowOf {
    origin: Arc<Origin>,
    row: usize,
}

impl RowOf {
    fn place(&self) -> Place {
        self.origin.place(self.row)
    }
}

impl<'a> Records<'a> {
    pub(crate) fn new(history: &'a History, from: Option<Timestamp>, to: Option<Timestamp>) -> Self {
        let wanted = |day: &&str| {
            let start = day_start(day);
            from.is_none_or(|from| start.plus_millis(DAY_MS) > from) && to.is_none_or(|to| start < to)
        };
        let days = history.days().iter().map(String::as_str).filter(wanted).collect();
        let decided = Decided::default();
        Self { history, from, to, days, tables: Vec::new(), last: None, decided, failed: false }
    }

    /// File and row of the record that came last.
    pub fn place(&self) -> Place {
        self.last.as_ref().map(RowOf::place).unwrap_or_default()
    }

    fn advance(&mut self) -> Result<Option<HistoryRecord>, DatasetError> {
        loop {
            if let Some(best) = self.earliest() {
                let (record, row) = self.tables[best].take()?;
                match &record {
                    HistoryRecord::Decision(decision) => self.decided.note(decision),
                    HistoryRecord::Shadow(shadow) => self.decided.check(shadow, &row)?,
                    _ => {}
                }
                self.last = Some(row);
                return Ok(Some(record));
            }
            let Some(day) = self.days.pop_front() else { return Ok(None) };
            self.tables = self.open(day)?;
        }
    }

    fn earliest(&self) -> Option<usize> {
        let heads = self.tables.iter().enumerate().filter_map(|(n, table)| Some((table.order()?, n)));
        heads.min().map(|(_, n)| n)
    }

    fn open(&self, day: &str) -> Result<Vec<TableStream>, DatasetError> {
        let present = Table::ALL.iter().filter_map(|table| self.history.table_day(*table, day));
        present.map(|table_day| TableStream::open(table_day, self.from, self.to)).collect()
    }
}

impl Iterator for Records<'_> {
    type Item = Result<HistoryRecord, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.advance().transpose();
        self.failed = matches!(next, Some(Err(_)));
        next
    }
}

/// The decisions at the place in the order that was reached last: what a challenger says of one comes right behind it.
#[derive(Default)]
struct Decided {
    order: Option<(Timestamp, u64)>,
    /// Id, time of the event, and where it went. More than one only when routers number their records alike.
    decisions: Vec<(u64, Timestamp, ShardId)>,
}

impl Decided {
    fn note(&mut self, decision: &DecisionRecord) {
        let order = Some((decision.known_at, decision.sequence));
        if self.order != order {
            self.order = order;
            self.decisions.clear();
        }
        self.decisions.push((decision.decision_id, decision.request.event_at, decision.shard.clone()));
    }

    fn check(&self, shadow: &ShadowRecord, row: &RowOf) -> Result<(), DatasetError> {
        let decision_id = shadow.decision_id;
        let here = self.order == Some((shadow.known_at, shadow.sequence));
        let decision =
            self.decisions.iter().find(|(id, event_at, _)| (*id, *event_at) == (decision_id, shadow.event_at));
        let Some((_, _, went_to)) = decision.filter(|_| here) else {
            return Err(DatasetError::ShadowWithoutDecision { place: row.place(), decision_id });
        };
        if shadow.agrees == (shadow.shard == *went_to) {
            return Ok(());
        }
        Err(DatasetError::BadValue {
            place: row.place(),
            column: "agrees".to_owned(),
            value: shadow.agrees.to_string(),
            rule: format!(
                "the challenger's shard is '{}', and decision {decision_id} went to '{went_to}'",
                shadow.shard
            ),
        })
    }
}

/// One table of one day: the record that comes next, the slice that it is from, and the slices to come.
struct TableStream {
    day: Arc<TableDay>,
    slices: VecDeque<(Timestamp, Timestamp)>,
    /// The slice after this one, which is read meanwhile.
    next_frame: Option<JoinHandle<Result<CheckedFrame, DatasetError>>>,
    frame: Option<CheckedFrame>,
    row: usize,
    head: Option<HistoryRecord>,
    decisions: FxHashSet<u64>,
}

impl TableStream {
    fn open(day: &Arc<TableDay>, from: Option<Timestamp>, to: Option<Timestamp>) -> Result<Self, DatasetError> {
        let slices = match day.span(None)? {
            Some((first, last)) => {
                let end = last.nanos().saturating_add(1);
                let first = from.map_or(first, |from| first.max(from));
                let end = to.map_or(end, |to| end.min(to.nanos()));
                slices(day, first, Timestamp::from_nanos(end))
            }
            None => VecDeque::new(),
        };
        let day = Arc::clone(day);
        let decisions = FxHashSet::default();
        let mut stream = Self { day, slices, next_frame: None, frame: None, row: 0, head: None, decisions };
        stream.read_ahead();
        stream.refill()?;
        Ok(stream)
    }

    fn order(&self) -> Option<(Timestamp, u64)> {
        self.head.as_ref().map(HistoryRecord::order)
    }

    fn take(&mut self) -> Result<(HistoryRecord, RowOf), DatasetError> {
        let record = self.head.take().expect("a table is taken from only while it has a record");
        let frame = self.frame.as_ref().expect("the record came from a slice");
        let row = RowOf { origin: Arc::clone(&frame.origin), row: self.row };
        self.check(&record, &row)?;
        self.row += 1;
        self.refill()?;
        if let Some(next) = &self.head
            && same_key(&record, next)
        {
            return Err(DatasetError::DuplicateRow { place: self.next_place(), table: self.day.table().name() });
        }
        Ok((record, row))
    }

    fn next_place(&self) -> Place {
        self.frame.as_ref().map(|frame| frame.origin.place(self.row)).unwrap_or_default()
    }

    fn check(&mut self, record: &HistoryRecord, row: &RowOf) -> Result<(), DatasetError> {
        if let HistoryRecord::Decision(decision) = record
            && !self.decisions.insert(decision.decision_id)
        {
            return Err(DatasetError::DuplicateDecision { place: row.place(), decision_id: decision.decision_id });
        }
        Ok(())
    }

    fn refill(&mut self) -> Result<(), DatasetError> {
        loop {
            if let Some(frame) = &self.frame
                && self.row < frame.rows
            {
                self.head = Some(self.day.table().read(&mut frame.row(self.row))?);
                return Ok(());
            }
            let Some(next) = self.next_frame.take() else { return Ok(()) };
            self.frame = Some(next.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
            self.row = 0;
            self.read_ahead();
        }
    }

    /// Begins to read the slice after this one.
    fn read_ahead(&mut self) {
        self.next_frame = self.slices.pop_front().map(|(from, to)| {
            let day = Arc::clone(&self.day);
            thread::spawn(move || day.slice(from, to))
        });
    }
}

/// Cuts a span into equal times, as many as keep a slice small.
fn slices(day: &TableDay, first: Timestamp, end: Timestamp) -> VecDeque<(Timestamp, Timestamp)> {
    let pieces = (day.rows / ROWS_PER_SLICE).max(day.bytes / BYTES_PER_SLICE) + 1;
    let length = (end.nanos() - first.nanos()).max(0).cast_unsigned() / pieces + 1;
    let mut slices = VecDeque::new();
    let mut from = first.nanos();
    while from < end.nanos() {
        let to = from.saturating_add_unsigned(length).min(end.nanos());
        slices.push_back((Timestamp::from_nanos(from), Timestamp::from_nanos(to)));
        from = to;
    }
    slices
}

fn same_key(a: &HistoryRecord, b: &HistoryRecord) -> bool {
    a.order() == b.order()
        && match (a, b) {
            (HistoryRecord::Decision(a), HistoryRecord::Decision(b)) => {
                (a.decision_id, a.request.event_at) == (b.decision_id, b.request.event_at)
            }
            (HistoryRecord::Shadow(a), HistoryRecord::Shadow(b)) => {
                (a.decision_id, &a.model_version) == (b.decision_id, &b.model_version)
            }
            (HistoryRecord::Outcome(a), HistoryRecord::Outcome(b)) => {
                (a.decision_id, a.event_at) == (b.decision_id, b.event_at)
            }
            (HistoryRecord::Report(a), HistoryRecord::Report(b)) => {
                (&a.router, &a.shard, a.report.event_at) == (&b.router, &b.shard, b.report.event_at)
            }
            (HistoryRecord::Market(a), HistoryRecord::Market(b)) => {
                (&a.router, &a.instrument, a.event_at) == (&b.router, &b.instrument, b.event_at)
            }
            (HistoryRecord::Directive(a), HistoryRecord::Directive(b)) => {
                (&a.router, a.event_at) == (&b.router, b.event_at)
            }
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{read_parquet, write_parquet};
    use crate::sample::{assert_same, at, file_of, history, write};

    #[test]
    fn the_order_does_not_depend_on_files() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("history");
        let records = history("2026-01-05T12:00:00Z", 3.0, 200.0);
        write(&dir, &records);
        for table in Table::ALL {
            let file = file_of(&dir, table, "2026-01-05");
            let frame = read_parquet(&file, None).unwrap().reverse();
            let third = frame.height() / 3;
            write_parquet(&file, &mut frame.slice(third as i64, frame.height())).unwrap();
            write_parquet(&file.with_file_name("another.parquet"), &mut frame.slice(0, third)).unwrap();
        }
        let opened = History::open(&dir).unwrap();
        let read: Result<Vec<HistoryRecord>, _> = opened.records(None, None).unwrap().collect();
        assert_same(&read.unwrap(), &records);
    }

    #[test]
    fn a_range_gives_what_was_known_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("history");
        let records = history("2026-01-05T23:58:00Z", 4.0, 200.0);
        write(&dir, &records);
        let (from, to) = (at("2026-01-05T23:59:00Z"), at("2026-01-06T00:01:00Z"));
        let opened = History::open(&dir).unwrap();
        let read: Result<Vec<HistoryRecord>, _> = opened.records(Some(from), Some(to)).unwrap().collect();
        let expected: Vec<HistoryRecord> =
            records.into_iter().filter(|record| (from..to).contains(&record.order().0)).collect();
        assert_same(&read.unwrap(), &expected);
        assert!(opened.records(Some(to), Some(from)).is_err());
    }

    #[test]
    fn slices_cover_their_span_without_gaps() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("history");
        write(&dir, &history("2026-01-05T12:00:00Z", 1.0, 200.0));
        let opened = History::open(&dir).unwrap();
        let day = opened.table_day(Table::Outcomes, "2026-01-05").unwrap();
        let (first, last) = day.span(None).unwrap().unwrap();
        let middle = first.plus_millis(last.millis_since(first) / 3.0);
        let rows = |from, to| day.slice(from, to).unwrap().rows as u64;
        let end = Timestamp::from_nanos(last.nanos() + 1);
        assert_eq!(rows(first, middle) + rows(middle, end), day.rows);
        let slices = slices(day, first, end);
        assert_eq!((slices[0].0, slices[slices.len() - 1].1), (first, end));
        assert!(slices.iter().zip(slices.iter().skip(1)).all(|(a, b)| a.1 == b.0));
    }
}
