//! The trials of a search on disk: a line of JSON that says which search it is, then one for each finished trial.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Trial;
use crate::TrainingError;

/// The journal of one search; the file is locked while it is open.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    pub(super) trials: Vec<Trial>,
}

/// The first line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    search: String,
}

impl Journal {
    /// Opens what a search with this key left, or begins. What a killed writer wrote last and not to its end is cut off.
    pub(super) fn open(path: &Path, key: &str) -> Result<Self, TrainingError> {
        let wrong = |error| problem(path, &format!("cannot be opened: {error}"));
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(wrong)?;
        }
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(wrong)?;
        if let Err(std::fs::TryLockError::WouldBlock) = file.try_lock() {
            return Err(problem(path, "is in use by another search; wait for it, or name another file"));
        }
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(wrong)?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        file.set_len(whole as u64).and_then(|()| file.seek(std::io::SeekFrom::End(0))).map_err(wrong)?;
        let trials = read(&text[..whole], key).map_err(|found| problem(path, &found))?;
        let mut journal = Self { path: path.to_owned(), file, trials };
        if whole == 0 {
            journal.write(&Header { search: key.to_owned() })?;
        }
        Ok(journal)
    }

    /// Adds a finished trial; when this returns, it survives a power cut.
    pub(super) fn append(&mut self, trial: Trial) -> Result<(), TrainingError> {
        self.write(&trial)?;
        self.trials.push(trial);
        Ok(())
    }

    fn write(&mut self, line: &impl Serialize) -> Result<(), TrainingError> {
        let mut text = serde_json::to_vec(line).expect("names and numbers are always JSON");
        text.push(b'\n');
        let written = self.file.write_all(&text).and_then(|()| self.file.sync_data());
        written.map_err(|error| problem(&self.path, &format!("cannot be written: {error}")))
    }
}

/// The trials of a whole journal, which are numbered from 0.
fn read(text: &[u8], key: &str) -> Result<Vec<Trial>, String> {
    let text = std::str::from_utf8(text).map_err(|_| damaged(1))?;
    let mut lines = text.lines().zip(1..);
    let Some((first, _)) = lines.next() else { return Ok(Vec::new()) };
    let header: Header = serde_json::from_str(first).map_err(|_| damaged(1))?;
    if header.search != key {
        return Err("is of a search on other data or with other options; remove it, or name another file".to_owned());
    }
    let mut trials: Vec<Trial> = Vec::new();
    for (line, number) in lines {
        let trial: Trial = serde_json::from_str(line).map_err(|_| damaged(number))?;
        if trial.number as usize != trials.len() {
            return Err(damaged(number));
        }
        trials.push(trial);
    }
    Ok(trials)
}

fn damaged(line: usize) -> String {
    format!("is damaged in line {line}; remove it to search anew")
}

fn problem(path: &Path, problem: &str) -> TrainingError {
    TrainingError::Journal { path: path.to_owned(), problem: problem.to_owned() }
}
