//! The journal: what a router decided and learned, one JSON object a line, in files that only ever grow.
//!
//! `shardwise history import --from journal` makes a history of it. What was written survives the death of the process; what
//! was synced, that of the machine. A full or slow disk never holds up a decision: lines wait in a bounded buffer, then the
//! log before it fills, drops and counts.

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Serialize;
use shardwise_types::{HistoryRecord, OutcomeRecord, ReportRecord};

use crate::disk::{Disk, DiskFile, SystemDisk};

/// The end of the name of a file that is still written to; without its last part the file is complete.
const OPEN: &str = "ndjson.open";
/// How the line of a decision begins; the tag comes first.
const DECISION: &[u8] = br#"{"table":"decision","#;

/// Limits of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalLimits {
    /// Bytes after which a new file is begun.
    pub file_bytes: u64,
    /// Bytes that may wait for a disk that does not take them.
    pub waiting_bytes: usize,
}

impl Default for JournalLimits {
    /// 64 MiB a file, 8 MiB waiting.
    fn default() -> Self {
        Self { file_bytes: 64 << 20, waiting_bytes: 8 << 20 }
    }
}

/// What came too late for the router to learn from it. It is kept under a name of its own, which no history takes: played again
/// from there, it would have happened to the router.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "table", rename_all = "snake_case")]
pub enum LateRecord {
    /// A report that is older than one that came before it.
    LateReport(Box<ReportRecord>),
    /// The outcome of a decision that was no longer waited for.
    LateOutcome(OutcomeRecord),
}

/// What an earlier process left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Whether there are files of any, closed ones included.
    pub has_predecessor: bool,
    /// Files that it had not closed.
    pub files: u64,
    /// Bytes of lines that were cut short, and are cut off.
    pub torn_bytes: u64,
    /// Decisions in the files that it had not closed.
    pub decisions: u64,
}

/// The writing end of a journal; one thread has it.
pub struct Journal {
    disk: Box<dyn Disk>,
    dir: PathBuf,
    boot: String,
    limits: JournalLimits,
    file: Option<OpenFile>,
    files: u64,
    waiting: Vec<u8>,
    /// Decisions among the waiting lines, and those that were written.
    waiting_decisions: u64,
    decisions: u64,
    /// Outcomes among the waiting lines.
    waiting_outcomes: u64,
    /// Of these, those in completed files.
    completed: u64,
}

struct OpenFile {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    /// Bytes of whole lines, and what they were before the last write.
    bytes: u64,
    bytes_before: u64,
    /// Whether the folder keeps its name.
    is_named: bool,
    is_synced: bool,
    /// Whether there may be more in the file than its lines, which a failed write left and nothing has cut off yet.
    is_ragged: bool,
}

impl OpenFile {
    /// Cuts off what is beyond the lines, if anything may be.
    fn trim(&mut self) -> io::Result<()> {
        if self.is_ragged {
            self.file.set_len(self.bytes)?;
            self.is_ragged = false;
        }
        Ok(())
    }

    /// Writes whole lines behind those that are there, or none of them.
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        self.trim()?;
        // After an error the place to write may be anywhere.
        self.file.seek(SeekFrom::Start(self.bytes))?;
        if let Err(error) = self.file.write_all(lines) {
            self.is_ragged = true;
            // Should that fail as well, it is tried again before anything else is written.
            _ = self.trim();
            return Err(error);
        }
        self.bytes_before = self.bytes;
        self.bytes += lines.len() as u64;
        self.is_synced = false;
        Ok(())
    }

    /// Takes the last write back.
    fn take_back(&mut self) {
        self.bytes = self.bytes_before;
        self.is_ragged = true;
        _ = self.trim();
    }

    fn sync(&mut self) -> io::Result<()> {
        if !self.is_synced {
            self.file.sync()?;
            self.is_synced = true;
        }
        Ok(())
    }
}

impl Journal {
    /// Opens the folder for a process that calls itself `boot`, and closes what earlier ones left open.
    ///
    /// # Errors
    /// The folder cannot be made, read or written.
    pub fn open(dir: &Path, boot: &str, limits: JournalLimits) -> io::Result<(Self, Recovered)> {
        Self::open_on(Box::new(SystemDisk), dir, boot, limits)
    }

    /// The same, but that what this process writes goes to `disk`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_on(
        disk: Box<dyn Disk>,
        dir: &Path,
        boot: &str,
        limits: JournalLimits,
    ) -> io::Result<(Self, Recovered)> {
        fs::create_dir_all(dir)?;
        let mut recovered = Recovered { has_predecessor: has_files(dir)?, ..Recovered::default() };
        for path in left_open(dir)? {
            close_left_over(&path, &mut recovered)?;
        }
        let journal = Self {
            disk,
            dir: dir.to_owned(),
            boot: boot.to_owned(),
            limits,
            file: None,
            files: 0,
            waiting: Vec::new(),
            waiting_decisions: 0,
            waiting_outcomes: 0,
            decisions: 0,
            completed: 0,
        };
        Ok((journal, recovered))
    }

    /// Whether another record may be added before a flush.
    pub fn has_room(&self) -> bool {
        self.waiting.len() < self.limits.waiting_bytes
    }

    /// Decisions that were written so far.
    pub fn decisions(&self) -> u64 {
        self.decisions
    }

    /// Of these, those in completed files.
    pub fn completed(&self) -> u64 {
        self.completed
    }

    /// Bytes that wait to be written.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting.len()
    }

    /// Decisions and outcomes that wait to be written, late ones included.
    pub fn waiting_records(&self) -> u64 {
        self.waiting_decisions + self.waiting_outcomes
    }

    /// Adds a record to what waits. Look for [room](Self::has_room) first.
    pub fn add(&mut self, record: &HistoryRecord) {
        self.add_line(record);
        self.waiting_decisions += u64::from(matches!(record, HistoryRecord::Decision(_)));
        self.waiting_outcomes += u64::from(matches!(record, HistoryRecord::Outcome(_)));
    }

    /// Adds what came too late. Look for [room](Self::has_room) first.
    pub fn add_late(&mut self, record: &LateRecord) {
        self.add_line(record);
        self.waiting_outcomes += u64::from(matches!(record, LateRecord::LateOutcome(_)));
    }

    fn add_line(&mut self, line: &impl Serialize) {
        serde_json::to_writer(&mut self.waiting, line).expect("memory takes what is written, and a record is JSON");
        self.waiting.push(b'\n');
    }

    /// Writes what waits; from then on it survives this process.
    ///
    /// # Errors
    /// The disk does not take it: it goes on waiting, and what was written of it is taken back.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        if self.file.as_ref().is_some_and(|open| open.bytes >= self.limits.file_bytes) {
            self.close()?;
        }
        if self.file.is_none() {
            let path = self.dir.join(format!("{}-{:06}.{OPEN}", self.boot, self.files));
            let file = self.disk.create(&path)?;
            self.files += 1;
            let open =
                OpenFile { file, path, bytes: 0, bytes_before: 0, is_named: false, is_synced: true, is_ragged: false };
            self.file = Some(open);
        }
        let open = self.file.as_mut().expect("it was made above");
        if !open.is_named {
            self.disk.sync_folder(&self.dir)?;
            open.is_named = true;
        }
        open.append(&self.waiting)?;
        self.decisions += self.waiting_decisions;
        self.forget_waiting();
        Ok(())
    }

    /// Adds lines, writes them and has the disk keep them, all of them or none: whoever waits for them is told which, and sends
    /// again what was not kept. What waited before must have been [flushed](Self::flush).
    ///
    /// # Errors
    /// The disk says no. None of the lines is in the journal.
    pub fn keep(&mut self, add: impl FnOnce(&mut Self)) -> io::Result<()> {
        add(self);
        self.flush().inspect_err(|_| self.forget_waiting())?;
        self.sync().inspect_err(|_| {
            // A line that may or may not survive would be there twice when it comes again.
            if let Some(open) = self.file.as_mut() {
                open.take_back();
            }
        })
    }

    fn forget_waiting(&mut self) {
        self.waiting.clear();
        (self.waiting_decisions, self.waiting_outcomes) = (0, 0);
    }

    /// Has the disk keep what was written; from then on it survives the machine.
    ///
    /// # Errors
    /// The disk says no.
    pub fn sync(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), OpenFile::sync)
    }

    /// Completes the file that is written to; the next flush begins another.
    ///
    /// # Errors
    /// The disk says no.
    pub fn close(&mut self) -> io::Result<()> {
        let Some(mut open) = self.file.take() else { return Ok(()) };
        let completed = open
            .trim()
            .and_then(|()| open.sync())
            .and_then(|()| self.disk.rename(&open.path, &open.path.with_extension("")));
        if completed.is_err() {
            self.file = Some(open);
            return completed;
        }
        self.completed = self.decisions;
        self.disk.sync_folder(&self.dir)
    }
}

/// Whether there are files of a journal, complete or not.
fn has_files(dir: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(dir)? {
        if entry?.file_name().to_string_lossy().contains(".ndjson") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The files of earlier processes that are still open.
fn left_open(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.split_once('.').is_some_and(|(_, rest)| rest == OPEN) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Cuts off a line that was cut short, counts, and completes the file.
fn close_left_over(path: &Path, recovered: &mut Recovered) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut reader = BufReader::new(&file);
    let (mut whole, mut line) = (0_u64, Vec::new());
    loop {
        line.clear();
        let read = reader.by_ref().read_until(b'\n', &mut line)?;
        if read == 0 {
            break;
        }
        if line.last() != Some(&b'\n') {
            recovered.torn_bytes += read as u64;
            break;
        }
        whole += read as u64;
        recovered.decisions += u64::from(line.starts_with(DECISION));
    }
    file.set_len(whole)?;
    file.sync_all()?;
    recovered.files += 1;
    fs::rename(path, path.with_extension(""))
}
