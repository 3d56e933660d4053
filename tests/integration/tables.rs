//! Tables of histories as frames, for tests that write them in other forms.

use std::fs::File;
use std::path::Path;

use polars::prelude::*;
use serde_json::Value;

use crate::support::contents;

/// All rows of a table.
pub(crate) fn read(table: &Path) -> DataFrame {
    let frames = contents(table).into_iter().map(|(path, _)| {
        let file = File::open(path).expect("readable");
        ParquetReader::new(file).finish().expect("Parquet")
    });
    frames.reduce(|above, below| above.vstack(&below).expect("the same columns")).expect("a file of the table")
}

/// Its columns, and its rows as JSON; times are in RFC 3339.
pub(crate) fn rows(frame: &DataFrame) -> (Vec<String>, Vec<Vec<Value>>) {
    let names: Vec<String> = frame.get_column_names().into_iter().map(ToString::to_string).collect();
    let column = |name: &String| frame.column(name).expect("a column").as_materialized_series().rechunk();
    let series: Vec<Series> = names.iter().map(column).collect();
    let value = |series: &Series, row: usize| json(&series.get(row).expect("a row"));
    let rows = (0..frame.height()).map(|row| series.iter().map(|series| value(series, row)).collect());
    (names, rows.collect())
}

/// Writes a frame as Parquet, its columns renamed to `my_…`.
pub(crate) fn write_renamed(mut frame: DataFrame, file: &Path) {
    let names: Vec<String> = frame.get_column_names().into_iter().map(|name| format!("my_{name}")).collect();
    frame.set_column_names(&names).expect("as many names");
    ParquetWriter::new(File::create(file).expect("writable")).finish(&mut frame).expect("written");
}

fn json(value: &AnyValue<'_>) -> Value {
    match value {
        AnyValue::Null => Value::Null,
        AnyValue::Boolean(value) => (*value).into(),
        AnyValue::Int64(value) => (*value).into(),
        // By its own digits, which are those that a reader of 32 bits needs.
        AnyValue::Float32(value) if value.is_nan() => Value::Null,
        AnyValue::Float32(value) => value.to_string().parse::<f64>().expect("a number").into(),
        AnyValue::Float64(value) => (*value).into(),
        AnyValue::String(text) => (*text).into(),
        AnyValue::Datetime(nanos, TimeUnit::Nanoseconds, _) => {
            shardwise_types::Timestamp::from_nanos(*nanos).to_string().into()
        }
        AnyValue::List(items) => items.iter().map(|item| json(&item)).collect(),
        other => panic!("histories hold no {other:?}"),
    }
}
