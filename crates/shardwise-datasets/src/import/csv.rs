//! CSV, record by record; a record that is not whole or not UTF-8 is refused by itself.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use csv_core::{ReadRecordResult, ReaderBuilder};

use super::mapping::CsvWords;
use super::source::{LONGEST_ROW, Next, Source, bad, missing};
use super::value::{Raw, Refusal};
use crate::DatasetError;

pub(crate) struct CsvSource {
    path: PathBuf,
    records: Records,
    fields: usize,
    /// Where the columns that were asked for stand in a record.
    wanted: Vec<usize>,
    nulls: Vec<String>,
    row: u64,
}

/// The records of a file; the last one is held.
struct Records {
    reader: csv_core::Reader,
    file: BufReader<File>,
    /// The record as it stands in the file.
    text: Vec<u8>,
    /// Its fields without quotes, one behind the other, and where each ends.
    content: Vec<u8>,
    ends: Vec<usize>,
    fields: usize,
}

impl Records {
    fn open(path: &Path, delimiter: u8) -> std::io::Result<Self> {
        let reader = ReaderBuilder::new().delimiter(delimiter).build();
        let file = BufReader::with_capacity(1 << 18, File::open(path)?);
        Ok(Self { reader, file, text: Vec::new(), content: vec![0; 1024], ends: vec![0; 64], fields: 0 })
    }

    /// Reads the next record; says whether there was one.
    fn advance(&mut self) -> std::io::Result<bool> {
        self.text.clear();
        let (mut written, mut ended) = (0, 0);
        loop {
            let input = self.file.fill_buf()?;
            let (result, read, wrote, ends) =
                self.reader.read_record(input, &mut self.content[written..], &mut self.ends[ended..]);
            self.text.extend_from_slice(&input[..read]);
            self.file.consume(read);
            written += wrote;
            ended += ends;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => self.content.resize(self.content.len() * 2, 0),
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                ReadRecordResult::Record => {
                    self.fields = ended;
                    return Ok(true);
                }
                ReadRecordResult::End => return Ok(false),
            }
            // A quote that never closes would take the memory of the whole file.
            if self.text.len() > LONGEST_ROW {
                return Err(std::io::Error::other("it is longer than 64 MiB; is there a quote that never closes?"));
            }
        }
    }

    fn field(&self, n: usize) -> &[u8] {
        let start = if n == 0 { 0 } else { self.ends[n - 1] };
        &self.content[start..self.ends[n]]
    }
}

impl CsvSource {
    pub(crate) fn open(path: &Path, columns: &[String], words: &CsvWords) -> Result<Self, DatasetError> {
        // Mappings allow ASCII only.
        let mut records = Records::open(path, words.delimiter as u8).map_err(DatasetError::io("open", path))?;
        records.advance().map_err(|error| bad(path, format!("has a header that cannot be read: {error}")))?;
        let name = |n| std::str::from_utf8(records.field(n)).ok().map(|name| name.trim().to_owned());
        let names: Option<Vec<String>> = (0..records.fields).map(name).collect();
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
        let (fields, nulls) = (names.len(), words.nulls.clone());
        Ok(Self { path: path.to_owned(), records, fields, wanted, nulls, row: 0 })
    }

    fn value(&self, column: usize) -> Result<Raw, Refusal> {
        let text = std::str::from_utf8(self.records.field(column)).map_err(|_| {
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
        let there = self.records.advance();
        if !there.map_err(|error| bad(&self.path, format!("cannot be read in row {}: {error}", self.row + 1)))? {
            return Ok(Next::End);
        }
        self.row += 1;
        if self.records.fields != self.fields {
            let (found, fields) = (self.records.fields, self.fields);
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
        String::from_utf8_lossy(self.records.text.trim_ascii()).into_owned()
    }
}
