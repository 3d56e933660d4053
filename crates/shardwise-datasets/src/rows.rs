//! The rows of a dataset: their columns, buffers of rows that wait for their labels, and the hash of their values.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use polars::prelude::{DataFrame, Float32Chunked, IntoColumn, IntoSeries, PlSmallStr, PolarsResult};
use shardwise_features::{FEATURES, FeatureVector};
use shardwise_types::{DecisionRecord, ErrorClass, Response, ShardId};

use crate::columns::{Cell, TableBuffer, check_file};
use crate::files::{read_parquet, write_parquet};
use crate::values::Values;
use crate::{ColumnSpec, DatasetError, Kind, Rule};

const fn needed(name: &'static str, kind: Kind, rule: Rule, doc: &'static str) -> ColumnSpec {
    ColumnSpec { name, kind, nullable: false, added: false, rule, doc }
}

const fn label(name: &'static str, kind: Kind, rule: Rule, doc: &'static str) -> ColumnSpec {
    ColumnSpec { name, kind, nullable: true, added: false, rule, doc }
}

const FACTS: [ColumnSpec; 13] = [
    needed("decision_id", Kind::I64, Rule::Id, "The decision."),
    needed("router", Kind::Text, Rule::NotEmpty, "Who decided."),
    needed("shard", Kind::Text, Rule::NotEmpty, "The candidate."),
    needed("chosen", Kind::Bool, Rule::Any, "Whether the request went there."),
    needed("known_at", Kind::Time, Rule::Any, "When it was decided."),
    needed("event_at", Kind::Time, Rule::Any, "When the event happened that asked for the request."),
    needed(
        "block",
        Kind::I64,
        Rule::Id,
        "Block of time; what features know of history comes from earlier blocks, 0 knows none.",
    ),
    needed("function", Kind::Text, Rule::NotEmpty, "The function to run."),
    needed("protocol", Kind::Text, Rule::Any, "The protocol that it concerns."),
    needed("propensity", Kind::F64, Rule::Probability, "Probability with which the chosen shard was drawn."),
    needed("policy", Kind::Text, Rule::Any, "Name of the policy."),
    needed("decided_by", Kind::Text, Rule::Any, "Which of its deciders spoke."),
    label("model_version", Kind::Text, Rule::Any, "Version of the bundle in use; null without one."),
];

const LABELS: [ColumnSpec; 8] = [
    label(
        "exec_ms",
        Kind::F32,
        Rule::NotNegative,
        "Execution, loading included; null without an outcome, as all labels.",
    ),
    label("queue_ms", Kind::F32, Rule::NotNegative, "In the shard's queue."),
    label("net_ms", Kind::F32, Rule::NotNegative, "The rest of the total, 0 at least: network and exchange."),
    label("total_ms", Kind::F32, Rule::NotNegative, "From dispatch to response at the router."),
    label("cold", Kind::Bool, Rule::Any, "Whether the function had to be loaded."),
    label("ok", Kind::Bool, Rule::Any, "Whether the request succeeded."),
    label("error_class", Kind::Text, Rule::Any, "Why it failed; null when it succeeded."),
    needed("censored", Kind::Bool, Rule::Any, "Whether it was chosen and its outcome is not known within the history."),
];

static COLUMNS: LazyLock<Vec<ColumnSpec>> = LazyLock::new(|| {
    let features = FEATURES.iter().map(|feature| needed(feature.name, Kind::F32, Rule::NotInfinite, feature.doc));
    FACTS.into_iter().chain(features).chain(LABELS).collect()
});

/// The columns of a dataset, in order.
pub fn dataset_columns() -> &'static [ColumnSpec] {
    &COLUMNS
}

/// Position of a dataset's column.
pub(crate) fn column(name: &str) -> usize {
    COLUMNS.iter().position(|spec| spec.name == name).expect("columns are asked for by the names of the table")
}

/// Position of the first feature.
pub(crate) const FIRST_FEATURE: usize = FACTS.len();

fn label_cells(response: Option<&Response>, chosen: bool) -> [Cell<'static>; LABELS.len()] {
    let Some(response) = response else {
        let mut cells = [Cell::Null; LABELS.len()];
        cells[LABELS.len() - 1] = Cell::Bool(chosen);
        return cells;
    };
    let net_ms = (response.total_ms - response.exec_ms - response.queue_ms).max(0.0);
    [
        Cell::F32(response.exec_ms),
        Cell::F32(response.queue_ms),
        Cell::F32(net_ms),
        Cell::F32(response.total_ms),
        Cell::Bool(response.cold),
        Cell::Bool(response.is_ok()),
        Cell::text_or_null(response.error.map(ErrorClass::as_str)),
        Cell::Bool(false),
    ]
}

/// Rows of one file while their labels are still coming in.
pub(crate) struct PartBuffer {
    facts: TableBuffer,
    /// Row by row, as they come; they are laid out in columns when all are there.
    features: Vec<f32>,
    decisions: Vec<u64>,
    chosen: Vec<bool>,
    responses: Vec<Option<Response>>,
}

impl PartBuffer {
    pub(crate) fn new() -> Self {
        let facts = TableBuffer::new(FACTS);
        Self { facts, features: Vec::new(), decisions: Vec::new(), chosen: Vec::new(), responses: Vec::new() }
    }

    pub(crate) fn rows(&self) -> usize {
        self.decisions.len()
    }

    /// Adds a candidate of a decision; returns its row.
    pub(crate) fn push(
        &mut self,
        decision: &DecisionRecord,
        shard: &ShardId,
        block: i64,
        vector: &FeatureVector,
    ) -> u32 {
        let row = u32::try_from(self.rows()).expect("a file holds far fewer rows");
        let chosen = *shard == decision.shard;
        let facts: [Cell<'_>; FACTS.len()] = [
            Cell::id(decision.decision_id),
            Cell::Text(decision.router.as_str()),
            Cell::Text(shard.as_str()),
            Cell::Bool(chosen),
            Cell::I64(decision.known_at.nanos()),
            Cell::I64(decision.request.event_at.nanos()),
            Cell::I64(block),
            Cell::Text(decision.request.function.as_str()),
            Cell::Text(decision.request.protocol.as_str()),
            Cell::F64(decision.propensity),
            Cell::Text(&decision.policy),
            Cell::Text(decision.decided_by.as_str()),
            Cell::text_or_null(decision.model_version.as_deref()),
        ];
        self.facts.push(facts);
        self.features.extend_from_slice(vector.as_slice());
        self.decisions.push(decision.decision_id);
        self.chosen.push(chosen);
        self.responses.push(None);
        row
    }

    pub(crate) fn label(&mut self, row: u32, response: Response) {
        self.responses[row as usize] = Some(response);
    }

    /// Chosen rows without an outcome: decision and row.
    pub(crate) fn unlabelled(&self) -> impl Iterator<Item = (u64, u32)> {
        (0..).zip(&self.decisions).zip(self.chosen.iter().zip(&self.responses)).filter_map(
            |((row, decision), (chosen, response))| (*chosen && response.is_none()).then_some((*decision, row)),
        )
    }

    /// Writes the rows as one file and hashes their values.
    pub(crate) fn write(mut self, path: &Path, hasher: &mut RowHasher) -> Result<(), DatasetError> {
        let mut labels = TableBuffer::new(LABELS);
        for (response, chosen) in self.responses.iter().zip(&self.chosen) {
            labels.push(label_cells(response.as_ref(), *chosen));
        }
        let features = FEATURES.iter().zip(columns_of(&self.features)).map(|(feature, values)| {
            Float32Chunked::from_vec(PlSmallStr::from_static(feature.name), values).into_series().into_column()
        });
        let columns = self.facts.take().into_iter().chain(features).chain(labels.take()).collect();
        let mut frame = DataFrame::new(self.rows(), columns).map_err(DatasetError::unwritable(path))?;
        hasher.add(&PartRows::of(&frame).map_err(DatasetError::unwritable(path))?);
        write_parquet(path, &mut frame)
    }
}

/// Rows that lie one after the other, as columns.
fn columns_of(rows: &[f32]) -> Vec<Vec<f32>> {
    /// So many rows stay in the cache while all of their columns are filled.
    const ROWS_AT_ONCE: usize = 1024;
    let mut columns = vec![Vec::with_capacity(rows.len() / FEATURES.len()); FEATURES.len()];
    for rows in rows.chunks(ROWS_AT_ONCE * FEATURES.len()) {
        for (n, column) in columns.iter_mut().enumerate() {
            column.extend(rows.iter().skip(n).step_by(FEATURES.len()));
        }
    }
    columns
}

/// Rows that were read back from a file of a dataset.
pub(crate) struct PartRows {
    values: Vec<Values>,
    pub(crate) rows: usize,
}

impl PartRows {
    /// Reads all columns; a file that is not of this dataset's kind is refused.
    pub(crate) fn read(path: &Path) -> Result<Self, DatasetError> {
        check_file(path, &COLUMNS)?;
        Self::of(&read_parquet(path, None)?).map_err(DatasetError::unreadable(path))
    }

    fn of(frame: &DataFrame) -> PolarsResult<Self> {
        let values: PolarsResult<Vec<Values>> = COLUMNS.iter().map(|spec| Values::of(frame, spec)).collect();
        Ok(Self { values: values?, rows: frame.height() })
    }

    /// Reads some columns of a file that is known to be of this dataset's kind; the others must not be asked for.
    pub(crate) fn read_columns(path: &Path, names: &[&str]) -> Result<Self, DatasetError> {
        let frame = read_parquet(path, Some(names.iter().map(|name| (*name).to_owned()).collect()))?;
        let values = COLUMNS.iter().map(|spec| match names.contains(&spec.name) {
            true => Values::of(&frame, spec),
            false => Ok(Values::none()),
        });
        let values: PolarsResult<Vec<Values>> = values.collect();
        Ok(Self { values: values.map_err(DatasetError::unreadable(path))?, rows: frame.height() })
    }

    pub(crate) fn cell(&self, column: usize, row: usize) -> Cell<'_> {
        self.values[column].cell(row)
    }

    pub(crate) fn text(&self, column: usize, row: usize) -> &str {
        match self.cell(column, row) {
            Cell::Text(text) => text,
            _ => "",
        }
    }

    pub(crate) fn i64(&self, column: usize, row: usize) -> i64 {
        match self.cell(column, row) {
            Cell::I64(value) => value,
            _ => i64::MIN,
        }
    }

    pub(crate) fn f32(&self, column: usize, row: usize) -> f32 {
        match self.cell(column, row) {
            Cell::F32(value) => value,
            _ => f32::NAN,
        }
    }

    pub(crate) fn flag(&self, column: usize, row: usize) -> bool {
        self.cell(column, row) == Cell::Bool(true)
    }
}

/// Sets the labels of some rows of a file; `None` makes a row censored.
pub(crate) fn relabel(path: &Path, changes: &BTreeMap<u32, Option<Response>>) -> Result<(), DatasetError> {
    let part = PartRows::read(path)?;
    let first_label = COLUMNS.len() - LABELS.len();
    let mut labels = TableBuffer::new(LABELS);
    for (row, at) in (0..part.rows).zip(0_u32..) {
        match changes.get(&at) {
            Some(response) => labels.push(label_cells(response.as_ref(), true)),
            None => labels.push((first_label..COLUMNS.len()).map(|column| part.cell(column, row))),
        }
    }
    let frame = read_parquet(path, None)?;
    let facts = frame.columns()[..first_label].iter().cloned();
    let columns = facts.chain(labels.take()).collect();
    let mut relabelled = DataFrame::new(part.rows, columns).map_err(DatasetError::unwritable(path))?;
    write_parquet(path, &mut relabelled)
}

/// Hashes rows by their values: neither the files that hold them nor the bits of a NaN matter.
#[derive(Default)]
pub(crate) struct RowHasher {
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
}

impl RowHasher {
    pub(crate) fn add(&mut self, part: &PartRows) {
        for row in 0..part.rows {
            for column in 0..COLUMNS.len() {
                self.cell(part.cell(column, row));
            }
            if self.buffer.len() > 1 << 16 {
                self.drain();
            }
        }
    }

    pub(crate) fn finish(mut self) -> String {
        self.drain();
        self.hasher.finalize().to_hex().to_string()
    }

    fn drain(&mut self) {
        self.hasher.update(&self.buffer);
        self.buffer.clear();
    }

    fn cell(&mut self, cell: Cell<'_>) {
        let mut put = |kind: u8, bytes: &[u8]| {
            self.buffer.push(kind);
            self.buffer.extend_from_slice(bytes);
        };
        match cell {
            Cell::Null => put(0, &[]),
            Cell::I64(value) => put(1, &value.to_le_bytes()),
            Cell::F32(value) => put(2, &canonical(value).to_le_bytes()),
            Cell::F64(value) => put(3, &value.to_bits().to_le_bytes()),
            Cell::Bool(value) => put(4, &[u8::from(value)]),
            Cell::Text(text) => {
                put(5, &(text.len() as u64).to_le_bytes());
                self.buffer.extend_from_slice(text.as_bytes());
            }
            Cell::Names(_) | Cell::Floats(_) => unreachable!("a dataset has no lists"),
        }
    }
}

/// The bits of a float; all NaNs are one.
pub(crate) fn canonical(value: f32) -> u32 {
    if value.is_nan() { f32::NAN.to_bits() } else { value.to_bits() }
}

/// Whether two values are the same, bit for bit; all NaNs are one.
pub(crate) fn same(a: Cell<'_>, b: Cell<'_>) -> bool {
    match (a, b) {
        (Cell::F32(a), Cell::F32(b)) => canonical(a) == canonical(b),
        (Cell::F64(a), Cell::F64(b)) => a.to_bits() == b.to_bits(),
        (a, b) => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_columns_share_a_name() {
        let names: std::collections::BTreeSet<_> = COLUMNS.iter().map(|spec| spec.name).collect();
        assert_eq!(names.len(), COLUMNS.len());
        assert_eq!(COLUMNS[FIRST_FEATURE].name, FEATURES[0].name);
    }

    #[test]
    fn one_nan_is_as_good_as_another_but_zeros_differ_by_sign() {
        let other_nan = f32::from_bits(f32::NAN.to_bits() | 1);
        assert!(same(Cell::F32(f32::NAN), Cell::F32(other_nan)));
        assert!(!same(Cell::F32(0.0), Cell::F32(-0.0)));
        assert!(!same(Cell::Null, Cell::F32(f32::NAN)));
    }
}
