//! The values of a column that was read, by row.

use polars::prelude::*;

use crate::ColumnSpec;
use crate::columns::{Cell, Kind};

/// A column's values, ready to be read by row.
pub(crate) enum Values {
    I64(Plain<i64>),
    F64(Plain<f64>),
    F32(Plain<f32>),
    Bool(Plain<bool>),
    Text(StringChunked),
    /// The lists, and which of them are null.
    List(ListChunked, BooleanChunked),
}

/// Values side by side: a row is found by its number alone, where polars would look for its chunk and its bit first.
pub(crate) enum Plain<T> {
    /// None is null.
    Known(Vec<T>),
    Nullable(Vec<Option<T>>),
}

impl<T: Copy> Plain<T> {
    fn get(&self, row: usize) -> Option<T> {
        match self {
            Self::Known(values) => values.get(row).copied(),
            Self::Nullable(values) => values.get(row).copied().flatten(),
        }
    }
}

impl<T: NumericNative> Plain<T> {
    fn of<N: PolarsNumericType<Native = T>>(values: &ChunkedArray<N>) -> Self {
        match values.cont_slice() {
            Ok(values) => Self::Known(values.to_vec()),
            Err(_) => Self::Nullable(values.iter().collect()),
        }
    }
}

impl Values {
    /// A column that is not read.
    pub(crate) fn none() -> Self {
        Self::Bool(Plain::Known(Vec::new()))
    }

    /// Takes a column out of a frame whose types were checked.
    pub(crate) fn of(frame: &DataFrame, spec: &ColumnSpec) -> PolarsResult<Self> {
        let series = frame.column(spec.name)?.as_materialized_series().rechunk();
        Ok(match spec.kind {
            Kind::Time => Self::I64(Plain::of(series.datetime()?.physical())),
            Kind::I64 => Self::I64(Plain::of(series.i64()?)),
            Kind::F64 => Self::F64(Plain::of(series.f64()?)),
            Kind::F32 => Self::F32(Plain::of(series.f32()?)),
            Kind::Bool => Self::Bool(Plain::Nullable(series.bool()?.iter().collect())),
            Kind::Text => Self::Text(series.str()?.clone()),
            Kind::TextList | Kind::F32List => Self::List(series.list()?.clone(), series.is_null()),
        })
    }

    /// The value of a row; a list is told from null only.
    pub(crate) fn cell(&self, row: usize) -> Cell<'_> {
        match self {
            Self::I64(values) => values.get(row).map_or(Cell::Null, Cell::I64),
            Self::F64(values) => values.get(row).map_or(Cell::Null, Cell::F64),
            Self::F32(values) => values.get(row).map_or(Cell::Null, Cell::F32),
            Self::Bool(values) => values.get(row).map_or(Cell::Null, Cell::Bool),
            Self::Text(values) => values.get(row).map_or(Cell::Null, Cell::Text),
            Self::List(_, nulls) => match nulls.get(row) {
                Some(false) => Cell::Floats(&[]),
                _ => Cell::Null,
            },
        }
    }

    pub(crate) fn list(&self, row: usize) -> Option<Series> {
        match self {
            Self::List(_, nulls) if nulls.get(row) != Some(false) => None,
            Self::List(values, _) => values.get_as_series(row),
            _ => unreachable!("only lists are read as lists"),
        }
    }
}
