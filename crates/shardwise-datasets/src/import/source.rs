//! What can be read row by row: files as CSV, NDJSON or Parquet, each held a piece at a time.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::Format;
use super::csv::CsvSource;
use super::mapping::Mapping;
use super::ndjson::NdjsonSource;
use super::parquet::ParquetSource;
use super::plan::Plan;
use super::prometheus::PrometheusSource;
use super::value::{Raw, Refusal};
use crate::DatasetError;

/// What a source gives next.
pub(crate) enum Next {
    /// A row, one value for each column that was asked for.
    Row(Vec<Raw>),
    /// A row that cannot be taken apart.
    Broken(Refusal),
    /// Nothing yet: a good moment to look whether the user wants to stop.
    Pause,
    End,
}

/// Rows in the order of the source.
pub(crate) trait Source {
    fn next(&mut self) -> Result<Next, DatasetError>;
    /// The number of the row that came last, from 1 on.
    fn row(&self) -> u64;
    /// That row as text, for the quarantine.
    fn text(&self) -> String;
    /// Called at the end: columns that can only be missed when all rows were seen.
    fn finish(&self) -> Result<(), DatasetError> {
        Ok(())
    }
}

/// Longer rows are no rows: a quote that never closes, or a file without line ends.
pub(crate) const LONGEST_ROW: usize = 64 << 20;

/// Opens an input, and refuses what cannot be of the format before a row is read.
pub(crate) fn open<'a>(
    format: Format,
    input: &str,
    plan: &'a Plan,
    mapping: &Mapping,
) -> Result<Box<dyn Source + 'a>, DatasetError> {
    if format == Format::Prometheus {
        return Ok(Box::new(PrometheusSource::open(input, plan, mapping)?));
    }
    let path = Path::new(input);
    look(path, format)?;
    Ok(match format {
        Format::Csv => Box::new(CsvSource::open(path, &plan.columns, &mapping.csv)?),
        Format::Ndjson => Box::new(NdjsonSource::open(path, &plan.columns)?),
        Format::Parquet => Box::new(ParquetSource::open(path, &plan.columns)?),
        Format::Prometheus => unreachable!("handled above"),
    })
}

/// What the first bytes of a file tell.
fn look(path: &Path, format: Format) -> Result<(), DatasetError> {
    if path.is_dir() {
        return Err(bad(
            path,
            "is a folder; name the file, or give each of [[tables]] an input = \"file\" in that folder",
        ));
    }
    if path.to_string_lossy().starts_with("http") && !path.exists() {
        return Err(bad(path, "is an address; say --from prometheus, or name a file"));
    }
    let mut start = Vec::new();
    let file = File::open(path).map_err(DatasetError::io("open", path))?;
    file.take(64).read_to_end(&mut start).map_err(DatasetError::io("read", path))?;
    let first = start.iter().find(|byte| !byte.is_ascii_whitespace());
    let problem = match (start.as_slice(), format) {
        ([], _) => "is empty; bring it again, or leave it out",
        ([0x1f, 0x8b, ..], _) => "is compressed by gzip; unpack it first, such as by gunzip",
        ([b'P', b'K', 3, 4, ..], _) => "is a zip file (or a spreadsheet); unpack it, or save the sheet as CSV",
        ([0xff, 0xfe, ..] | [0xfe, 0xff, ..], _) => "is UTF-16; save it as UTF-8, such as by iconv -f UTF-16 -t UTF-8",
        ([b'P', b'A', b'R', b'1', ..], Format::Csv | Format::Ndjson) => "is a Parquet file; say --from parquet",
        ([b'P', b'A', b'R', b'1', ..], _) => return Ok(()),
        (_, Format::Parquet) => "is no Parquet file; say --from csv or --from ndjson if it is one of these",
        (_, Format::Csv) if first == Some(&b'{') => "looks like JSON; say --from ndjson if every line is an object",
        (_, Format::Ndjson) if first == Some(&b'[') => {
            "is one JSON array; write one object a line, such as by jq -c '.[]'"
        }
        _ => return Ok(()),
    };
    Err(bad(path, problem))
}

/// An input that cannot be used.
pub(crate) fn bad(input: impl AsRef<Path>, problem: impl std::fmt::Display) -> DatasetError {
    DatasetError::Input { input: input.as_ref().display().to_string(), problem: problem.to_string() }
}

/// A column that a source does not have, beside those that it has.
pub(crate) fn missing(input: &Path, column: &str, there: &[String]) -> DatasetError {
    let there = match there {
        [] => "it has none".to_owned(),
        names => format!("it has {}", names.join(", ")),
    };
    bad(input, format!("has no column '{column}'; {there}; correct the mapping"))
}
