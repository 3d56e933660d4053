//! What must survive a power cut: the coordinator's history, and the state of an agent.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::history::{self, summarise};
use crate::{AgentState, Configuration, Record};

/// The name of the history in its folder.
const HISTORY_FILE: &str = "history.ndjson";
/// An agent's state is far smaller; what is larger is something else.
const MOST_STATE_BYTES: u64 = 64 << 20;

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct FileError {
    /// Which.
    pub path: PathBuf,
    /// What is wrong with it and what to do.
    pub problem: String,
}

impl FileError {
    fn new(path: &Path, problem: impl Into<String>) -> Self {
        Self { path: path.to_owned(), problem: problem.into() }
    }
}

/// The history of a fleet's configuration, `history.ndjson` in a folder: one record a line, only ever added to. While
/// it is open for writing nobody else can open it so; reading is free.
#[derive(Debug)]
pub struct History {
    path: PathBuf,
    file: File,
    /// Bytes of whole records.
    len: u64,
    records: Vec<Record>,
    /// Why nothing can be written any more.
    broken: Option<String>,
}

impl History {
    /// Opens the history in a folder for writing, or begins one. What a killed writer wrote last and not to its end is
    /// cut off.
    ///
    /// # Errors
    /// When another process has it open, the disk refuses, or a whole line is damaged or contradicts those before it.
    pub fn open(folder: &Path) -> Result<Self, FileError> {
        let path = folder.join(HISTORY_FILE);
        let wrong = |error: io::Error| FileError::new(&path, format!("cannot be opened: {error}"));
        fs::create_dir_all(folder).map_err(wrong)?;
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(wrong)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(FileError::new(&path, "another coordinator has it open; there is one for a fleet"));
            }
            Err(TryLockError::Error(error)) => {
                return Err(FileError::new(&path, format!("cannot be locked ({error}); use a file system with locks")));
            }
        }
        let (records, len) = read_records(&path, &mut file)?;
        file.set_len(len).and_then(|()| file.seek(SeekFrom::End(0))).map_err(wrong)?;
        sync_folder(folder).map_err(wrong)?;
        Ok(Self { path, file, len, records, broken: None })
    }

    /// Reads the history in a folder without a lock, as for a list; a last line that is being written is left out.
    ///
    /// # Errors
    /// When there is none, it cannot be read, or a whole line is damaged or contradicts those before it.
    pub fn read(folder: &Path) -> Result<Vec<Record>, FileError> {
        let path = folder.join(HISTORY_FILE);
        let mut file =
            File::open(&path).map_err(|error| FileError::new(&path, format!("cannot be opened: {error}")))?;
        Ok(read_records(&path, &mut file)?.0)
    }

    /// All records, in order.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The configuration of a committed version; 0 is the empty one.
    pub fn configuration(&self, version: u64) -> Option<Configuration> {
        history::configuration(&self.records, version)
    }

    /// Adds records: all or none of them, and when this returns they survive a power cut.
    ///
    /// # Errors
    /// When the disk refuses. If it does not even let the rest of a line be removed, nothing can be added any more
    /// until the history is opened again: nobody knows then what is on the disk.
    pub fn append(&mut self, records: &[Record]) -> Result<(), FileError> {
        self.check_open()?;
        let mut text = Vec::new();
        for record in records {
            serde_json::to_writer(&mut text, record).expect("names and numbers are always JSON");
            text.push(b'\n');
        }
        if let Err(error) = self.file.write_all(&text).and_then(|()| self.file.sync_data()) {
            return Err(self.undo(&error));
        }
        self.len += text.len() as u64;
        self.records.extend_from_slice(records);
        Ok(())
    }

    /// Lets go of the file, so that a successor can open it; nothing can be added any more.
    pub(crate) fn close(&mut self) {
        self.broken = Some("the coordinator was stopped".to_owned());
        if let Err(error) = self.file.unlock() {
            tracing::warn!(%error, path = %self.path.display(), "the history cannot be unlocked");
        }
    }

    /// Whether records can be added.
    ///
    /// # Errors
    /// Says why not.
    pub(crate) fn check_open(&self) -> Result<(), FileError> {
        self.broken.as_ref().map_or(Ok(()), |broken| Err(FileError::new(&self.path, broken.clone())))
    }

    fn undo(&mut self, error: &io::Error) -> FileError {
        let undone = self.file.set_len(self.len).and_then(|()| self.file.sync_data());
        let undone = undone.and_then(|()| self.file.seek(SeekFrom::End(0)));
        let mut problem = format!("cannot be written: {error}");
        if let Err(worse) = undone {
            problem +=
                &format!("; what was begun cannot be removed ({worse}): free the disk and restart the coordinator");
            self.broken = Some(problem.clone());
        }
        FileError::new(&self.path, problem)
    }
}

/// The records of the whole lines, and how many bytes these are.
fn read_records(path: &Path, file: &mut File) -> Result<(Vec<Record>, u64), FileError> {
    let mut text = Vec::new();
    file.read_to_end(&mut text).map_err(|error| FileError::new(path, format!("cannot be read: {error}")))?;
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    let mut records = Vec::new();
    for (line, number) in text[..whole].split_inclusive(|byte| *byte == b'\n').zip(1..) {
        let record = serde_json::from_slice(line).map_err(|error| {
            FileError::new(path, format!("line {number} is damaged ({error}); restore the file from a copy"))
        })?;
        records.push(record);
    }
    summarise(&records).map_err(|wrong| FileError::new(path, wrong.to_string()))?;
    Ok((records, whole as u64))
}

/// Where an agent keeps what it must not forget: one JSON file, replaced as a whole.
#[derive(Debug, Clone)]
pub struct StateFile {
    path: PathBuf,
}

impl StateFile {
    /// At a path; its folder is made when need be.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// That it must not be written any more, for its agent was stopped.
    pub(crate) fn stopped(&self) -> FileError {
        FileError::new(&self.path, "the agent was stopped")
    }

    /// What was saved last; `None` for a new agent.
    ///
    /// # Errors
    /// When it cannot be read, or holds something else.
    pub fn load(&self) -> Result<Option<AgentState>, FileError> {
        let mut text = Vec::new();
        match File::open(&self.path).and_then(|file| file.take(MOST_STATE_BYTES).read_to_end(&mut text)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(FileError::new(&self.path, format!("cannot be read: {error}"))),
        }
        serde_json::from_slice(&text).map(Some).map_err(|error| {
            let problem = format!("is damaged ({error}); remove it: the agent then asks the coordinator for all of it");
            FileError::new(&self.path, problem)
        })
    }

    /// Replaces it; when this returns the new state survives a power cut, and at any moment there is the old one or the
    /// new one.
    ///
    /// # Errors
    /// When the disk refuses; then the old state is still there.
    pub fn save(&self, state: &AgentState) -> Result<(), FileError> {
        self.replace(&serde_json::to_vec(state).expect("names and numbers are always JSON"))
            .map_err(|error| FileError::new(&self.path, format!("cannot be written: {error}")))
    }

    fn replace(&self, content: &[u8]) -> io::Result<()> {
        // `agent.json` has an empty parent.
        let folder = self.path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(content)?;
        file.as_file().sync_all()?;
        file.persist(&self.path)?;
        sync_folder(folder)
    }
}

/// Waits until the names in a folder are on the disk; only Unix lets a folder be synchronised.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use shardwise_types::{FunctionId, Timestamp};

    use super::*;
    use crate::{Change, Member, What};

    fn records(version: u64, from_version: u64) -> [Record; 2] {
        let (at, what) = (Timestamp::from_nanos(1), What::NoSplit { function: FunctionId::new("f") });
        let (author, why) = ("ann".to_owned(), "a test".to_owned());
        let change = Change { version, from_version, author, why, created_at: at, effective_at: at, what };
        let members = vec![Member::shard("a")];
        [Record::Proposed { change, members }, Record::Committed { version, at, acknowledgements: Vec::new() }]
    }

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }

    #[test]
    fn a_history_is_read_as_it_was_written_by_one_writer_at_a_time() {
        let folder = folder();
        let mut history = History::open(folder.path()).expect("free");
        history.append(&records(1, 0)).expect("room");
        history.append(&records(4, 1)).expect("room");
        let locked = History::open(folder.path()).expect_err("it is open").to_string();
        assert!(locked.contains("another coordinator") && locked.contains("history.ndjson"), "{locked}");
        assert_eq!(History::read(folder.path()).expect("reading is free"), history.records());
        drop(history);
        let history = History::open(folder.path()).expect("free again");
        assert_eq!(history.records(), [records(1, 0), records(4, 1)].concat());
        let known = [0, 1, 2, 4].map(|version| history.configuration(version).map(|it| it.version));
        assert_eq!(known, [Some(0), Some(1), None, Some(4)]);
    }

    #[test]
    fn after_a_write_that_cannot_be_undone_nothing_is_added() {
        let folder = folder();
        let mut history = History::open(folder.path()).expect("free");
        history.append(&records(1, 0)).expect("room");
        history.file = File::open(&history.path).expect("it is there");
        let error = history.append(&records(2, 1)).expect_err("only for reading").to_string();
        assert!(error.contains("cannot be written") && error.contains("restart the coordinator"), "{error}");
        history.file = OpenOptions::new().append(true).open(&history.path).expect("it is there");
        assert_eq!(history.append(&records(2, 1)).expect_err("nobody knows what is there").to_string(), error);
        assert_eq!(history.records(), records(1, 0));
        drop(history);
        assert_eq!(History::open(folder.path()).expect("opened again").records(), records(1, 0));
    }

    #[test]
    fn a_torn_last_line_is_cut_off_wherever_it_was_torn() {
        let folder = folder();
        let path = folder.path().join(HISTORY_FILE);
        History::open(folder.path()).expect("free").append(&records(1, 0)).expect("room");
        let whole = fs::read(&path).expect("written");
        let first = whole.iter().position(|byte| *byte == b'\n').expect("a line") + 1;
        for torn in first..whole.len() {
            fs::write(&path, &whole[..torn]).expect("room");
            assert_eq!(History::read(folder.path()).expect("the first is whole"), records(1, 0)[..1]);
            let mut history = History::open(folder.path()).expect("the first is whole");
            history.append(&records(1, 0)[1..]).expect("room");
            drop(history);
            assert_eq!(fs::read(&path).expect("written"), whole, "torn at {torn}");
        }
    }

    #[test]
    fn a_damaged_line_is_named_and_nothing_is_lost_of_it() {
        let folder = folder();
        let path = folder.path().join(HISTORY_FILE);
        History::open(folder.path()).expect("free").append(&records(1, 0)).expect("room");
        let whole = fs::read_to_string(&path).expect("written");
        for (text, part) in [
            (whole.replacen("\"version\":1", "\"version\":x", 1), "line 1 is damaged"),
            (whole.lines().rev().map(|line| format!("{line}\n")).collect(), "record 1 of the history"),
        ] {
            fs::write(&path, &text).expect("room");
            let error = History::open(folder.path()).expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
            assert_eq!(fs::read_to_string(&path).expect("it is there"), text);
        }
    }

    #[test]
    fn an_agents_state_is_replaced_as_a_whole() {
        let folder = folder();
        let file = StateFile::new(&folder.path().join("agents/a.json"));
        assert_eq!(file.load().expect("a new agent"), None);
        for highest in [1, 2] {
            let state = AgentState { highest, ..AgentState::default() };
            file.save(&state).expect("room");
            assert_eq!(file.load().expect("it was saved"), Some(state));
        }
        assert_eq!(fs::read_dir(folder.path().join("agents")).expect("a folder").count(), 1, "nothing is left over");
        fs::write(folder.path().join("agents/a.json"), "{").expect("room");
        assert!(file.load().expect_err("damaged").to_string().contains("remove it"));
        let nowhere = StateFile::new(&folder.path().join("agents/a.json/b.json"));
        assert!(nowhere.save(&AgentState::default()).expect_err("a file is no folder").to_string().contains("b.json"));
    }
}
