//! Parquet of others, a slice of rows at a time.

use std::fs::File;
use std::path::{Path, PathBuf};

use polars::prelude::*;

use super::source::{Next, Source, bad, missing};
use super::value::Raw;
use crate::DatasetError;

/// Rows that are held at once.
const ROWS_PER_SLICE: usize = 32_768;

pub(crate) struct ParquetSource {
    path: PathBuf,
    columns: Vec<String>,
    rows: usize,
    /// The slice at hand, column by column, and the row in it that comes next.
    slice: Vec<Series>,
    next: usize,
    height: usize,
    /// Rows before the slice.
    before: usize,
    row: u64,
}

impl ParquetSource {
    pub(crate) fn open(path: &Path, columns: &[String]) -> Result<Self, DatasetError> {
        let file = File::open(path).map_err(DatasetError::io("open", path))?;
        let mut reader = ParquetReader::new(file);
        let schema = reader.schema().map_err(DatasetError::unreadable(path))?;
        let names: Vec<String> = schema.iter_names().map(ToString::to_string).collect();
        for column in columns {
            let Some(field) = schema.get(column) else { return Err(missing(path, column, &names)) };
            if !is_read(&field.dtype) {
                return Err(bad(
                    path,
                    format!(
                        "has column '{column}' as {:?}, which is not read; write it as a 32- or 64-bit number, text, bool or timestamp",
                        field.dtype
                    ),
                ));
            }
        }
        let rows = reader.get_metadata().map_err(DatasetError::unreadable(path))?.num_rows;
        let columns = columns.to_vec();
        Ok(Self { path: path.to_owned(), columns, rows, slice: Vec::new(), next: 0, height: 0, before: 0, row: 0 })
    }

    fn refill(&mut self) -> Result<(), DatasetError> {
        self.before += self.height;
        let length = ROWS_PER_SLICE.min(self.rows - self.before);
        let file = File::open(&self.path).map_err(DatasetError::io("open", &self.path))?;
        let frame = ParquetReader::new(file)
            .with_columns(Some(self.columns.clone()))
            .with_slice(Some((self.before, length)))
            .finish()
            .map_err(DatasetError::unreadable(&self.path))?;
        let series = |column: &String| frame.column(column).map(|column| column.as_materialized_series().rechunk());
        self.slice = self
            .columns
            .iter()
            .map(series)
            .collect::<PolarsResult<_>>()
            .map_err(DatasetError::unreadable(&self.path))?;
        (self.height, self.next) = (length, 0);
        Ok(())
    }

    fn values(&self, row: usize) -> Result<Vec<Raw>, DatasetError> {
        let value =
            |series: &Series| series.get(row).map(|value| raw(&value)).map_err(DatasetError::unreadable(&self.path));
        self.slice.iter().map(value).collect()
    }
}

/// What this build of polars decodes and a history can use.
fn is_read(found: &ArrowDataType) -> bool {
    use ArrowDataType as A;
    match found {
        A::Boolean | A::Int8 | A::Int16 | A::Int32 | A::Int64 | A::UInt32 | A::UInt64 => true,
        A::Float32 | A::Float64 | A::Utf8 | A::LargeUtf8 | A::Utf8View | A::Timestamp(_, _) | A::Date32 | A::Null => {
            true
        }
        A::Dictionary(_, values, _) => is_read(values),
        A::List(item) | A::LargeList(item) => is_read(&item.dtype),
        _ => false,
    }
}

fn raw(value: &AnyValue<'_>) -> Raw {
    let nanos = |ticks: i64, unit: TimeUnit| {
        i128::from(ticks)
            * match unit {
                TimeUnit::Nanoseconds => 1,
                TimeUnit::Microseconds => 1_000,
                TimeUnit::Milliseconds => 1_000_000,
            }
    };
    match value {
        AnyValue::Null => Raw::Null,
        AnyValue::Boolean(value) => Raw::Bool(*value),
        AnyValue::Int8(value) => Raw::Int(i128::from(*value)),
        AnyValue::Int16(value) => Raw::Int(i128::from(*value)),
        AnyValue::Int32(value) => Raw::Int(i128::from(*value)),
        AnyValue::Int64(value) => Raw::Int(i128::from(*value)),
        AnyValue::UInt32(value) => Raw::Int(i128::from(*value)),
        AnyValue::UInt64(value) => Raw::Int(i128::from(*value)),
        AnyValue::Float32(value) => Raw::Float(f64::from(*value)),
        AnyValue::Float64(value) => Raw::Float(*value),
        AnyValue::String(text) => Raw::Text((*text).to_owned()),
        AnyValue::Datetime(ticks, unit, Some(_)) => Raw::Instant(nanos(*ticks, *unit)),
        AnyValue::Datetime(ticks, unit, None) => Raw::Naive(nanos(*ticks, *unit)),
        AnyValue::Date(days) => Raw::Naive(i128::from(*days) * 86_400_000_000_000),
        AnyValue::List(items) => Raw::List(items.iter().map(|item| raw(&item)).collect()),
        other => Raw::Text(other.get_str().map_or_else(|| other.to_string(), ToOwned::to_owned)),
    }
}

impl Source for ParquetSource {
    fn next(&mut self) -> Result<Next, DatasetError> {
        if self.next == self.height {
            if self.before + self.height >= self.rows {
                return Ok(Next::End);
            }
            self.refill()?;
        }
        let values = self.values(self.next)?;
        self.next += 1;
        self.row += 1;
        Ok(Next::Row(values))
    }

    fn row(&self) -> u64 {
        self.row
    }

    fn text(&self) -> String {
        let Ok(values) = self.values(self.next.saturating_sub(1)) else { return String::new() };
        let object: serde_json::Map<String, serde_json::Value> =
            self.columns.iter().cloned().zip(values.iter().map(Raw::to_json)).collect();
        serde_json::Value::Object(object).to_string()
    }
}
