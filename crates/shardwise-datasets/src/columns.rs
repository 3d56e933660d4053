//! Typed columns between records and polars: what a column may hold, buffers to write and checked values to read.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use polars::prelude::*;
use shardwise_types::{Residence, ShardId};

use crate::values::Values;
use crate::{DatasetError, Place};

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An instant: nanoseconds since 1970, UTC.
    Time,
    /// A 64-bit integer.
    I64,
    /// A 64-bit float.
    F64,
    /// A 32-bit float.
    F32,
    /// True or false.
    Bool,
    /// Text.
    Text,
    /// A list of texts.
    TextList,
    /// A list of 32-bit floats.
    F32List,
}

impl Kind {
    /// Its name as users meet it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Time => "timestamp[ns, UTC]",
            Self::I64 => "int64",
            Self::F64 => "float64",
            Self::F32 => "float32",
            Self::Bool => "bool",
            Self::Text => "string",
            Self::TextList => "list<string>",
            Self::F32List => "list<float32>",
        }
    }

    pub(crate) fn data_type(self) -> DataType {
        match self {
            Self::Time => DataType::Datetime(TimeUnit::Nanoseconds, Some(TimeZone::UTC)),
            Self::I64 => DataType::Int64,
            Self::F64 => DataType::Float64,
            Self::F32 => DataType::Float32,
            Self::Bool => DataType::Boolean,
            Self::Text => DataType::String,
            Self::TextList => DataType::List(Box::new(DataType::String)),
            Self::F32List => DataType::List(Box::new(DataType::Float32)),
        }
    }

    /// Whether a file's column is of this kind. Arrow knows several layouts of one logical type.
    fn accepts(self, found: &ArrowDataType) -> bool {
        use ArrowDataType as A;
        let text = |found: &A| matches!(found, A::Utf8 | A::LargeUtf8 | A::Utf8View);
        let list = |of: &dyn Fn(&A) -> bool| match found {
            A::List(item) | A::LargeList(item) => of(&item.dtype),
            _ => false,
        };
        match self {
            Self::Time => match found {
                A::Timestamp(unit, Some(zone)) => {
                    matches!(unit, ArrowTimeUnit::Nanosecond) && ["UTC", "+00:00", "Etc/UTC"].contains(&zone.as_str())
                }
                _ => false,
            },
            Self::I64 => matches!(found, A::Int64),
            Self::F64 => matches!(found, A::Float64),
            Self::F32 => matches!(found, A::Float32),
            Self::Bool => matches!(found, A::Boolean),
            Self::Text => text(found),
            Self::TextList => list(&text),
            Self::F32List => list(&|item| matches!(item, A::Float32)),
        }
    }
}

/// What a column's values may be beyond their type.
#[derive(Debug, Clone, Copy)]
pub enum Rule {
    /// Anything.
    Any,
    /// A count that fits 32 bits.
    Count,
    /// A whole number, 0 or more.
    Id,
    /// A finite number.
    Finite,
    /// A finite number, 0 or more.
    NotNegative,
    /// A finite number above 0.
    Positive,
    /// A number or NaN, which means that it is not known; not infinite.
    NotInfinite,
    /// Between 0 and 1.
    Share,
    /// Above 0 and at most 1.
    Probability,
    /// Text that is not empty.
    NotEmpty,
    /// One of the words.
    OneOf(fn() -> Vec<&'static str>),
}

impl Rule {
    /// The rule in words; empty when there is none.
    pub fn words(self) -> String {
        match self {
            Self::Any => String::new(),
            Self::Count => "must be a whole number between 0 and 4294967295".to_owned(),
            Self::Id => "must be a whole number, 0 or more, below 2^63".to_owned(),
            Self::Finite => "must be a finite number".to_owned(),
            Self::NotNegative => "must be a finite number, 0 or more".to_owned(),
            Self::Positive => "must be a finite number above 0".to_owned(),
            Self::NotInfinite => "must not be infinite".to_owned(),
            Self::Share => "must lie between 0 and 1".to_owned(),
            Self::Probability => "must lie above 0 and at most at 1".to_owned(),
            Self::NotEmpty => "must not be empty".to_owned(),
            Self::OneOf(words) => format!("must be one of {}", words().join(", ")),
        }
    }

    pub(crate) fn allows(self, cell: &Cell<'_>) -> bool {
        match (self, cell) {
            (Self::Count, Cell::I64(n)) => u32::try_from(*n).is_ok(),
            (Self::Id, Cell::I64(n)) => *n >= 0,
            (Self::NotEmpty, Cell::Text(text)) => !text.is_empty(),
            (Self::OneOf(words), Cell::Text(text)) => words().contains(text),
            (rule, Cell::F64(value)) => rule.allows_number(*value),
            (rule, Cell::F32(value)) => rule.allows_number(f64::from(*value)),
            _ => true,
        }
    }

    fn allows_number(self, value: f64) -> bool {
        match self {
            Self::Finite => value.is_finite(),
            Self::NotNegative => value.is_finite() && value >= 0.0,
            Self::Positive => value.is_finite() && value > 0.0,
            Self::NotInfinite => !value.is_infinite(),
            Self::Share => (0.0..=1.0).contains(&value),
            Self::Probability => value > 0.0 && value <= 1.0,
            _ => true,
        }
    }
}

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub struct ColumnSpec {
    /// Its name, the unit last.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Whether it may be null.
    pub nullable: bool,
    /// Whether it came later than its table: files without it are read as if it were null in all rows.
    pub added: bool,
    /// What its values may be.
    pub rule: Rule,
    /// What it is, in one sentence.
    pub doc: &'static str,
}

impl ColumnSpec {
    /// What is wrong with a value, if anything.
    pub(crate) fn problem(&self, cell: &Cell<'_>) -> Option<String> {
        match cell {
            Cell::Null if self.nullable => None,
            Cell::Null => Some("it must not be null".to_owned()),
            cell => (!self.rule.allows(cell)).then(|| {
                let or_null = if self.nullable { " (or null when unknown)" } else { "" };
                format!("it {}{or_null}", self.rule.words())
            }),
        }
    }

    fn expected(&self) -> String {
        format!("{}{}", self.kind.name(), if self.nullable { ", nulls allowed" } else { "" })
    }
}

/// One value on its way to or from a column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Cell<'a> {
    Null,
    I64(i64),
    F64(f64),
    F32(f32),
    Bool(bool),
    Text(&'a str),
    Names(Names<'a>),
    Floats(&'a [f32]),
}

/// A list of names, as records hold them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Names<'a> {
    List(&'a [ShardId]),
    Set(&'a BTreeSet<ShardId>),
    /// The functions of pairs, in the order of the pairs.
    Functions(&'a BTreeSet<Residence>),
    /// Their shards.
    Shards(&'a BTreeSet<Residence>),
}

impl<'a> Names<'a> {
    fn iter(self) -> Box<dyn Iterator<Item = &'a str> + 'a> {
        match self {
            Self::List(shards) => Box::new(shards.iter().map(ShardId::as_str)),
            Self::Set(shards) => Box::new(shards.iter().map(ShardId::as_str)),
            Self::Functions(pairs) => Box::new(pairs.iter().map(|pair| pair.function.as_str())),
            Self::Shards(pairs) => Box::new(pairs.iter().map(|pair| pair.shard.as_str())),
        }
    }
}

impl<'a> Cell<'a> {
    pub(crate) fn text_or_null(text: Option<&'a str>) -> Self {
        text.map_or(Cell::Null, Cell::Text)
    }
    pub(crate) fn f64_or_null(value: Option<f64>) -> Self {
        value.map_or(Cell::Null, Cell::F64)
    }
    pub(crate) fn f32_or_null(value: Option<f32>) -> Self {
        value.map_or(Cell::Null, Cell::F32)
    }

    /// An id as the file holds it; ids of 2^63 and more become negative, which the rule refuses.
    pub(crate) fn id(id: u64) -> Self {
        Cell::I64(id.cast_signed())
    }
}

impl std::fmt::Display for Cell<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Cell::Null => f.write_str("null"),
            Cell::I64(value) => write!(f, "{value}"),
            Cell::F64(value) => write!(f, "{value}"),
            Cell::F32(value) => write!(f, "{value}"),
            Cell::Bool(value) => write!(f, "{value}"),
            Cell::Text(text) => write!(f, "'{text}'"),
            Cell::Names(names) => f.debug_list().entries(names.iter()).finish(),
            Cell::Floats(values) => write!(f, "{values:?}"),
        }
    }
}

enum Builder {
    I64(PrimitiveChunkedBuilder<Int64Type>),
    F64(PrimitiveChunkedBuilder<Float64Type>),
    F32(PrimitiveChunkedBuilder<Float32Type>),
    Bool(BooleanChunkedBuilder),
    Text(StringChunkedBuilder),
    TextList(ListStringChunkedBuilder),
    F32List(ListPrimitiveChunkedBuilder<Float32Type>),
}

impl Builder {
    fn new(spec: &ColumnSpec) -> Self {
        let name = PlSmallStr::from_static(spec.name);
        match spec.kind {
            Kind::Time | Kind::I64 => Self::I64(PrimitiveChunkedBuilder::new(name, 0)),
            Kind::F64 => Self::F64(PrimitiveChunkedBuilder::new(name, 0)),
            Kind::F32 => Self::F32(PrimitiveChunkedBuilder::new(name, 0)),
            Kind::Bool => Self::Bool(BooleanChunkedBuilder::new(name, 0)),
            Kind::Text => Self::Text(StringChunkedBuilder::new(name, 0)),
            Kind::TextList => Self::TextList(ListStringChunkedBuilder::new(name, 0, 0)),
            Kind::F32List => Self::F32List(ListPrimitiveChunkedBuilder::new(name, 0, 0, DataType::Float32)),
        }
    }

    fn push(&mut self, cell: &Cell<'_>) {
        match (self, cell) {
            (Self::I64(b), Cell::I64(value)) => b.append_value(*value),
            (Self::F64(b), Cell::F64(value)) => b.append_value(*value),
            (Self::F32(b), Cell::F32(value)) => b.append_value(*value),
            (Self::Bool(b), Cell::Bool(value)) => b.append_value(*value),
            (Self::Text(b), Cell::Text(text)) => b.append_value(text),
            (Self::TextList(b), Cell::Names(names)) => b.append_values_iter(names.iter()),
            (Self::F32List(b), Cell::Floats(values)) => b.append_slice(values),
            (Self::I64(b), Cell::Null) => b.append_null(),
            (Self::F64(b), Cell::Null) => b.append_null(),
            (Self::F32(b), Cell::Null) => b.append_null(),
            (Self::Bool(b), Cell::Null) => b.append_null(),
            (Self::Text(b), Cell::Null) => b.append_null(),
            (Self::TextList(b), Cell::Null) => b.append_null(),
            (Self::F32List(b), Cell::Null) => b.append_opt_slice(None),
            (_, cell) => unreachable!("{cell} is not of the kind that its column declares"),
        }
    }

    fn finish(self, kind: Kind) -> Series {
        match self {
            Self::I64(b) => match kind {
                Kind::Time => b.finish().into_datetime(TimeUnit::Nanoseconds, Some(TimeZone::UTC)).into_series(),
                _ => b.finish().into_series(),
            },
            Self::F64(b) => b.finish().into_series(),
            Self::F32(b) => b.finish().into_series(),
            Self::Bool(b) => b.finish().into_series(),
            Self::Text(b) => b.finish().into_series(),
            Self::TextList(mut b) => b.finish().into_series(),
            Self::F32List(mut b) => b.finish().into_series(),
        }
    }
}

/// Rows on their way to a file, held column by column.
pub(crate) struct TableBuffer {
    specs: Vec<ColumnSpec>,
    builders: Vec<Builder>,
    rows: usize,
}

impl TableBuffer {
    pub(crate) fn new(specs: impl IntoIterator<Item = ColumnSpec>) -> Self {
        let specs: Vec<ColumnSpec> = specs.into_iter().collect();
        Self { builders: specs.iter().map(Builder::new).collect(), specs, rows: 0 }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Adds a row; the cells come in the order of the columns.
    pub(crate) fn push<'a>(&mut self, cells: impl IntoIterator<Item = Cell<'a>>) {
        let mut pushed = 0;
        for (builder, cell) in self.builders.iter_mut().zip(cells) {
            builder.push(&cell);
            pushed += 1;
        }
        assert_eq!(pushed, self.specs.len(), "a row has a value for every column");
        self.rows += 1;
    }

    /// The rows as columns; the buffer is empty afterwards.
    pub(crate) fn take(&mut self) -> Vec<Column> {
        let fresh = self.specs.iter().map(Builder::new).collect();
        let builders = std::mem::replace(&mut self.builders, fresh);
        self.rows = 0;
        builders.into_iter().zip(&self.specs).map(|(b, spec)| b.finish(spec.kind).into_column()).collect()
    }
}

/// The polars schema of the columns.
pub(crate) fn schema_of(specs: &[ColumnSpec]) -> Schema {
    specs.iter().map(|spec| Field::new(PlSmallStr::from_static(spec.name), spec.kind.data_type())).collect()
}

/// A file whose columns were checked.
pub(crate) struct CheckedFile {
    pub(crate) rows: u64,
    /// Size in memory, about.
    pub(crate) bytes: u64,
    /// Columns that came later, and that it does not have.
    pub(crate) lacks: Vec<&'static str>,
}

/// Checks that a file has the columns with their types.
pub(crate) fn check_file(path: &Path, specs: &[ColumnSpec]) -> Result<CheckedFile, DatasetError> {
    let file = std::fs::File::open(path).map_err(DatasetError::io("open", path))?;
    let mut reader = ParquetReader::new(file);
    let schema = reader.schema().map_err(DatasetError::unreadable(path))?;
    let mut lacks = Vec::new();
    for spec in specs {
        let Some(field) = schema.get(spec.name) else {
            if spec.added {
                lacks.push(spec.name);
                continue;
            }
            return Err(DatasetError::MissingColumn {
                path: path.to_owned(),
                column: spec.name.to_owned(),
                expected: spec.expected(),
            });
        };
        if !spec.kind.accepts(&field.dtype) {
            return Err(DatasetError::WrongType {
                path: path.to_owned(),
                column: spec.name.to_owned(),
                expected: spec.expected(),
                found: arrow_name(&field.dtype),
            });
        }
    }
    let metadata = reader.get_metadata().map_err(DatasetError::unreadable(path))?;
    let bytes = metadata.row_groups.iter().map(|group| group.total_byte_size() as u64).sum();
    Ok(CheckedFile { rows: metadata.num_rows as u64, bytes, lacks })
}

fn arrow_name(found: &ArrowDataType) -> String {
    match found {
        ArrowDataType::Timestamp(unit, zone) => {
            format!("timestamp[{unit:?}, {}]", zone.as_ref().map_or("no zone", PlSmallStr::as_str)).to_lowercase()
        }
        other => format!("{other:?}").to_lowercase(),
    }
}

/// Where the rows of a frame came from: files in order, and for each row its file and its row there.
pub(crate) struct Origin {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) file_of: UInt32Chunked,
    pub(crate) row_of: IdxCa,
}

impl Origin {
    pub(crate) fn place(&self, row: usize) -> Place {
        let file = self.file_of.get(row).map_or(0, |file| file as usize);
        Place { file: self.files[file].clone(), row: self.row_of.get(row).map_or(0, u64::from) }
    }
}

/// A frame whose rows are read value by value, in the order of the columns, and checked on the way.
pub(crate) struct CheckedFrame {
    pub(crate) specs: Vec<ColumnSpec>,
    pub(crate) values: Vec<Values>,
    pub(crate) origin: Arc<Origin>,
    pub(crate) rows: usize,
}

impl CheckedFrame {
    pub(crate) fn row(&self, row: usize) -> RowReader<'_> {
        RowReader { frame: self, row, next: 0 }
    }
}

/// Reads the values of one row, column after column.
pub(crate) struct RowReader<'a> {
    frame: &'a CheckedFrame,
    row: usize,
    next: usize,
}

impl<'a> RowReader<'a> {
    fn cell(&mut self) -> Result<(Cell<'a>, usize), DatasetError> {
        let (cell, column) = self.unchecked();
        self.check(cell, column)?;
        Ok((cell, column))
    }

    fn unchecked(&mut self) -> (Cell<'a>, usize) {
        let column = self.next;
        self.next += 1;
        (self.frame.values[column].cell(self.row), column)
    }

    fn check(&self, cell: Cell<'_>, column: usize) -> Result<(), DatasetError> {
        match self.frame.specs[column].problem(&cell) {
            Some(rule) => Err(self.bad_value(column, cell.to_string(), rule)),
            None => Ok(()),
        }
    }

    /// What is wrong with the value that was read last, by more than its own rule.
    pub(crate) fn bad_last(&self, value: String, rule: String) -> DatasetError {
        self.bad_value(self.next - 1, value, rule)
    }

    fn bad_value(&self, column: usize, value: String, rule: String) -> DatasetError {
        let column = self.frame.specs[column].name.to_owned();
        DatasetError::BadValue { place: self.frame.origin.place(self.row), column, value, rule }
    }

    pub(crate) fn i64(&mut self) -> Result<i64, DatasetError> {
        match self.cell()? {
            (Cell::I64(value), _) => Ok(value),
            (_, column) => self.wrong_kind(column),
        }
    }

    pub(crate) fn id(&mut self) -> Result<u64, DatasetError> {
        self.i64().map(i64::cast_unsigned)
    }

    pub(crate) fn count(&mut self) -> Result<u32, DatasetError> {
        self.i64().map(|n| u32::try_from(n).expect("the column's rule keeps counts within 32 bits"))
    }

    pub(crate) fn time(&mut self) -> Result<shardwise_types::Timestamp, DatasetError> {
        self.i64().map(shardwise_types::Timestamp::from_nanos)
    }

    pub(crate) fn flag(&mut self) -> Result<bool, DatasetError> {
        match self.cell()? {
            (Cell::Bool(value), _) => Ok(value),
            (_, column) => self.wrong_kind(column),
        }
    }

    pub(crate) fn opt_f64(&mut self) -> Result<Option<f64>, DatasetError> {
        match self.cell()? {
            (Cell::F64(value), _) => Ok(Some(value)),
            (Cell::Null, _) => Ok(None),
            (_, column) => self.wrong_kind(column),
        }
    }

    pub(crate) fn f64(&mut self) -> Result<f64, DatasetError> {
        self.opt_f64().map(|value| value.expect("the column's rule refuses nulls"))
    }

    pub(crate) fn opt_f32(&mut self) -> Result<Option<f32>, DatasetError> {
        match self.cell()? {
            (Cell::F32(value), _) => Ok(Some(value)),
            (Cell::Null, _) => Ok(None),
            (_, column) => self.wrong_kind(column),
        }
    }

    pub(crate) fn f32(&mut self) -> Result<f32, DatasetError> {
        self.opt_f32().map(|value| value.expect("the column's rule refuses nulls"))
    }

    pub(crate) fn opt_text(&mut self) -> Result<Option<&'a str>, DatasetError> {
        match self.cell()? {
            (Cell::Text(text), _) => Ok(Some(text)),
            (Cell::Null, _) => Ok(None),
            (_, column) => self.wrong_kind(column),
        }
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, DatasetError> {
        self.opt_text().map(|text| text.expect("the column's rule refuses nulls"))
    }

    /// A word of a list, which is the one that the column's rule allows.
    pub(crate) fn word<T>(&mut self, parse: impl Fn(&str) -> Option<T>) -> Result<T, DatasetError> {
        self.opt_word(parse).map(|word| word.expect("the column's rule refuses nulls"))
    }

    /// The same where there may be none. What parses is on the list, so that the rule is asked about the rest only.
    pub(crate) fn opt_word<T>(&mut self, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, DatasetError> {
        let (cell, column) = self.unchecked();
        if let Cell::Text(text) = cell
            && let Some(word) = parse(text)
        {
            return Ok(Some(word));
        }
        self.check(cell, column)?;
        match cell {
            Cell::Null => Ok(None),
            _ => unreachable!("the column's rule lists the words that parse"),
        }
    }

    /// A list of names; null is an empty one.
    pub(crate) fn names<N: for<'n> From<&'n str>>(&mut self) -> Result<Vec<N>, DatasetError> {
        let (_, column) = self.cell()?;
        let Some(series) = self.frame.values[column].list(self.row) else { return Ok(Vec::new()) };
        let texts = series.str().expect("the type was checked when the file was opened");
        let names: Option<Vec<N>> = texts.iter().map(|text| text.map(N::from)).collect();
        names.ok_or_else(|| self.bad_value(column, "a null".to_owned(), "its items must not be null".to_owned()))
    }

    /// A list of floats; null is an empty one, a null item is NaN.
    pub(crate) fn floats(&mut self) -> Result<Vec<f32>, DatasetError> {
        let (_, column) = self.cell()?;
        let Some(series) = self.frame.values[column].list(self.row) else { return Ok(Vec::new()) };
        let values = series.f32().expect("the type was checked when the file was opened");
        Ok(values.iter().map(|value| value.unwrap_or(f32::NAN)).collect())
    }

    fn wrong_kind<T>(&self, column: usize) -> Result<T, DatasetError> {
        unreachable!("column '{}' is read as another kind than it declares", self.frame.specs[column].name)
    }
}
