//! NDJSON: one object a line. Columns are keys; `a.b` is the key `b` of the object at `a`.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::source::{LONGEST_ROW, Next, Source, missing};
use super::value::{Raw, Refusal};
use crate::DatasetError;

pub(crate) struct NdjsonSource {
    path: PathBuf,
    reader: BufReader<File>,
    line: Vec<u8>,
    columns: Vec<String>,
    /// Which of the columns were in any row: a key may be missing in some, but not in all.
    seen: Vec<bool>,
    /// The keys of the first row, for the message.
    keys: Option<Vec<String>>,
    row: u64,
}

impl NdjsonSource {
    pub(crate) fn open(path: &Path, columns: &[String]) -> Result<Self, DatasetError> {
        let file = File::open(path).map_err(DatasetError::io("open", path))?;
        let (columns, seen) = (columns.to_vec(), vec![false; columns.len()]);
        let reader = BufReader::with_capacity(1 << 18, file);
        Ok(Self { path: path.to_owned(), reader, line: Vec::new(), columns, seen, keys: None, row: 0 })
    }

    /// Reads a line, the first [`LONGEST_ROW`] bytes of it; says whether there was one and whether it was whole.
    fn read_line(&mut self) -> std::io::Result<(bool, bool)> {
        self.line.clear();
        let n = self.reader.by_ref().take(LONGEST_ROW as u64).read_until(b'\n', &mut self.line)?;
        let is_whole = self.line.last() == Some(&b'\n') || n < LONGEST_ROW;
        if !is_whole {
            self.reader.skip_until(b'\n')?;
        }
        Ok((n > 0, is_whole))
    }

    fn values(&mut self) -> Result<Vec<Raw>, Refusal> {
        let line = self.line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.line);
        if std::str::from_utf8(line).is_err() {
            return Err(Refusal::of("row is not UTF-8", "the line is not UTF-8; save the file as UTF-8"));
        }
        let mut object = match serde_json::from_slice(line) {
            Ok(Value::Object(object)) => object,
            Ok(_) => return Err(Refusal::of("row is no JSON object", "the line is JSON, but no object")),
            Err(error) => {
                return Err(Refusal::of("row is no JSON object", format!("the line is no JSON object: {error}")));
            }
        };
        if self.keys.is_none() {
            self.keys = Some(object.keys().cloned().collect());
        }
        let mut values = Vec::with_capacity(self.columns.len());
        for (column, seen) in self.columns.iter().zip(&mut self.seen) {
            let value = match object.get_mut(column) {
                Some(value) => Some(value),
                None => nested(&mut object, column),
            };
            *seen |= value.is_some();
            values.push(value.map_or(Raw::Null, |value| Raw::from_json(value.clone())));
        }
        Ok(values)
    }
}

fn nested<'a>(object: &'a mut serde_json::Map<String, Value>, column: &str) -> Option<&'a mut Value> {
    let (first, rest) = column.split_once('.')?;
    rest.split('.').try_fold(object.get_mut(first)?, |value, key| value.get_mut(key))
}

impl Source for NdjsonSource {
    fn next(&mut self) -> Result<Next, DatasetError> {
        loop {
            let (is_there, is_whole) = self.read_line().map_err(DatasetError::io("read", &self.path))?;
            if !is_there {
                return Ok(Next::End);
            }
            // Rows are lines, so that an editor finds them; empty ones are counted and skipped.
            self.row += 1;
            if !is_whole {
                return Ok(Next::Broken(Refusal::of("row is longer than 64 MiB", "the line is longer than 64 MiB")));
            }
            if !self.line.trim_ascii().is_empty() {
                return Ok(self.values().map_or_else(Next::Broken, Next::Row));
            }
        }
    }

    fn row(&self) -> u64 {
        self.row
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(self.line.trim_ascii()).into_owned()
    }

    fn finish(&self) -> Result<(), DatasetError> {
        let Some(keys) = &self.keys else { return Ok(()) };
        match self.columns.iter().zip(&self.seen).find(|(_, seen)| !**seen) {
            Some((column, _)) => Err(missing(&self.path, column, keys)),
            None => Ok(()),
        }
    }
}
