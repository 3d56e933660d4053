//! CSV, record by record; a record that is not whole or not UTF-8 is refused by itself.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use csv::{ByteRecord, Reader, ReaderBuilder};

use super::mapping::CsvWords;
use super::source::{LONGEST_ROW, Next, Source, bad, missing};
use super::value::{Raw, Refusal};
use crate::DatasetError;

pub(crate) struct CsvSource {
    path: PathBuf,
    reader: Reader<Bounded>,
    /// Bytes that were read since the last record.
    since: Rc<Cell<usize>>,
    record: ByteRecord,
    fields: usize,
    /// Where the columns that were asked for stand in a record.
    wanted: Vec<usize>,
    nulls: Vec<String>,
    delimiter: u8,
    row: u64,
}

/// Fails when one record takes more than [`LONGEST_ROW`]: a quote that never closes would take the memory instead.
struct Bounded {
    file: File,
    since: Rc<Cell<usize>>,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.since.get() > LONGEST_ROW {
            return Err(io::Error::other("a row is longer than 64 MiB: is there a quote that never closes?"));
        }
        let n = self.file.read(buffer)?;
        self.since.set(self.since.get() + n);
        Ok(n)
    }
}

impl CsvSource {
    pub(crate) fn open(path: &Path, columns: &[String], words: &CsvWords) -> Result<Self, DatasetError> {
        let file = File::open(path).map_err(DatasetError::io("open", path))?;
        let since = Rc::new(Cell::new(0));
        // Mappings allow ASCII only.
        let delimiter = words.delimiter as u8;
        let mut reader = ReaderBuilder::new()
            .delimiter(delimiter)
            .flexible(true)
            .from_reader(Bounded { file, since: Rc::clone(&since) });
        let header = reader.byte_headers().map_err(|error| bad(path, error))?.clone();
        let names: Option<Vec<String>> =
            header.iter().map(|name| std::str::from_utf8(name).ok().map(|name| name.trim().to_owned())).collect();
        let Some(names) = names else {
            return Err(bad(
                path,
                "has column names that are not UTF-8; save it as UTF-8, such as by iconv -f latin1 -t UTF-8",
            ));
        };
        let position = |column: &String| {
            let mut found = names.iter().enumerate().filter(|(_, name)| *name == column).map(|(n, _)| n);
            match (found.next(), found.next()) {
                (Some(_), Some(_)) => Err(bad(path, format!("has two columns named '{column}'; rename one"))),
                (Some(n), None) => Ok(n),
                (None, _) if names.len() == 1 && names[0].contains([';', '\t', '|']) => Err(bad(
                    path,
                    format!(
                        "has only one column, '{}'; say its delimiter in [csv], such as delimiter = \";\"",
                        names[0]
                    ),
                )),
                (None, _) => Err(missing(path, column, &names)),
            }
        };
        let wanted = columns.iter().map(position).collect::<Result<_, _>>()?;
        let (fields, record, nulls) = (names.len(), ByteRecord::new(), words.nulls.clone());
        Ok(Self { path: path.to_owned(), reader, since, record, fields, wanted, nulls, delimiter, row: 0 })
    }

    fn value(&self, column: usize) -> Result<Raw, Refusal> {
        let text = std::str::from_utf8(&self.record[column]).map_err(|_| {
            Refusal::of(
                "row is not UTF-8",
                "the row is not UTF-8; save the file as UTF-8, such as by iconv -f latin1 -t UTF-8",
            )
        })?;
        Ok(if self.nulls.iter().any(|null| null == text) { Raw::Null } else { Raw::Text(text.to_owned()) })
    }
}

impl Source for CsvSource {
    fn next(&mut self) -> Result<Next, DatasetError> {
        let there = self.reader.read_byte_record(&mut self.record);
        // What the reader holds beyond this record was read for the next ones, and is small.
        self.since.set(0);
        if !there.map_err(|error| bad(&self.path, format!("row {}: {error}", self.row + 1)))? {
            return Ok(Next::End);
        }
        self.row += 1;
        if self.record.len() != self.fields {
            let (found, fields) = (self.record.len(), self.fields);
            return Ok(Next::Broken(Refusal::of(
                "row has another number of columns than the header",
                format!("the row has {found} columns, the header {fields}"),
            )));
        }
        let values: Result<Vec<Raw>, Refusal> = self.wanted.iter().map(|column| self.value(*column)).collect();
        Ok(values.map_or_else(Next::Broken, Next::Row))
    }

    fn row(&self) -> u64 {
        self.row
    }

    fn text(&self) -> String {
        let mut writer = csv::WriterBuilder::new().delimiter(self.delimiter).from_writer(Vec::new());
        let written = writer.write_byte_record(&self.record).and_then(|()| Ok(writer.flush()?));
        let bytes = written.ok().and_then(|()| writer.into_inner().ok()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r']).to_owned()
    }
}
