//! Refused rows: written beside the history that is being made, counted by reason, moved to their place at the end.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::RefusedRow;
use crate::DatasetError;
use crate::history::HistoryWriter;

/// Refused rows of a dry run that are kept to be shown.
const SHOWN: usize = 10;

pub(crate) struct Quarantine {
    /// Where rows are written meanwhile; a dry run writes nowhere.
    scratch: Option<PathBuf>,
    file: Option<BufWriter<File>>,
    pub(crate) refused: u64,
    pub(crate) reasons: BTreeMap<String, u64>,
    pub(crate) first: Vec<RefusedRow>,
}

impl Quarantine {
    pub(crate) fn new(scratch: Option<PathBuf>) -> Self {
        Self { scratch, file: None, refused: 0, reasons: BTreeMap::new(), first: Vec::new() }
    }

    pub(crate) fn add(&mut self, row: RefusedRow) -> Result<(), DatasetError> {
        self.refused += 1;
        *self.reasons.entry(row.reason.clone()).or_default() += 1;
        let Some(path) = &self.scratch else {
            if self.first.len() < SHOWN {
                self.first.push(row);
            }
            return Ok(());
        };
        let mut file = match self.file.take() {
            Some(file) => file,
            None => BufWriter::new(File::create(path).map_err(DatasetError::io("create", path))?),
        };
        let line = serde_json::to_string(&row).expect("a refused row is plain data");
        writeln!(file, "{line}").map_err(DatasetError::io("write", path))?;
        self.file = Some(file);
        Ok(())
    }

    /// Moves the file to its place, replacing what is there; `None` when nothing was refused.
    pub(crate) fn keep(&mut self, at: &Path) -> Result<Option<PathBuf>, DatasetError> {
        let (Some(mut file), Some(scratch)) = (self.file.take(), &self.scratch) else { return Ok(None) };
        file.flush().map_err(DatasetError::io("write", scratch))?;
        let moved = fs::rename(scratch, at).or_else(|error| match error.kind() {
            // Another file system: beside its place first, so that a reader sees it whole or not at all.
            std::io::ErrorKind::CrossesDevices => {
                let beside = at.with_extension("part");
                fs::copy(scratch, &beside)?;
                fs::rename(&beside, at)
            }
            _ => Err(error),
        });
        moved.map_err(DatasetError::io("write the quarantine to", at))?;
        Ok(Some(at.to_owned()))
    }
}

/// How an import ends.
pub(super) struct Ended {
    /// Whether more rows than allowed were refused, so that no history was written.
    pub(super) too_many_refused: bool,
    /// The file with what was refused.
    pub(super) quarantine: Option<PathBuf>,
    /// Where the history stands.
    pub(super) out: Option<PathBuf>,
}

/// Moves refused rows to their place, and the history too unless more than the share `max_refused` of all rows was refused.
pub(super) fn end(
    quarantine: &mut Quarantine,
    at: Option<&Path>,
    writer: Option<HistoryWriter>,
    out: &Path,
    taken: u64,
    max_refused: f64,
) -> Result<Ended, DatasetError> {
    let refused = quarantine.refused;
    let too_many_refused = taken == 0 || refused as f64 > max_refused * (taken + refused) as f64;
    let quarantine = quarantine.keep(&at.map_or_else(|| beside(out), Path::to_owned))?;
    let out = match writer {
        Some(writer) if !too_many_refused => {
            writer.finish()?;
            Some(out.to_owned())
        }
        _ => None,
    };
    Ok(Ended { too_many_refused, quarantine, out })
}

/// Where a history's refused rows go when nobody says where.
fn beside(out: &Path) -> PathBuf {
    let name = out.file_name().map_or_else(|| "history".to_owned(), |name| name.to_string_lossy().into_owned());
    out.with_file_name(format!("{name}.refused.ndjson"))
}
