//! Files as wholes: staged folders that appear complete or not at all, digests, small reads and writes.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use polars::prelude::*;

use crate::DatasetError;

/// A folder that is filled beside its place and moved there at the end; dropped before, it leaves nothing.
pub(crate) struct StagedDir {
    holder: tempfile::TempDir,
    content: PathBuf,
    target: PathBuf,
    /// Held while its process lives, so that what a killed process left can be told and cleared.
    _lock: fs::File,
}

const LOCK_FILE: &str = "lock";
const OLD: &str = "old";

impl StagedDir {
    /// Starts a folder that will become `target`.
    pub(crate) fn create(target: &Path) -> Result<Self, DatasetError> {
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(parent).map_err(DatasetError::io("create", parent))?;
        let name = target.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let prefix = format!(".{name}.new-");
        clear_leftovers(parent, &prefix, target)?;
        let holder = tempfile::Builder::new()
            .prefix(&prefix)
            .tempdir_in(parent)
            .map_err(DatasetError::io("create a folder in", parent))?;
        // The folder of tempfile is private to its owner; what users get is an ordinary one inside it.
        let content = holder.path().join("content");
        fs::create_dir(&content).map_err(DatasetError::io("create", &content))?;
        let lock_file = holder.path().join(LOCK_FILE);
        let lock = fs::File::create(&lock_file).map_err(DatasetError::io("create", &lock_file))?;
        lock.lock().map_err(DatasetError::io("lock", &lock_file))?;
        Ok(Self { holder, content, target: target.to_owned(), _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.content
    }

    /// A folder beside the content that vanishes with it, whatever becomes of the content.
    pub(crate) fn scratch(&self) -> &Path {
        self.holder.path()
    }

    /// Moves what is there so far to another place beside the target, replacing what stands there.
    pub(crate) fn park(self, at: &Path) -> Result<(), DatasetError> {
        if at.exists() {
            fs::remove_dir_all(at).map_err(DatasetError::io("replace", at))?;
        }
        fs::rename(&self.content, at).map_err(DatasetError::io("keep finished work at", at))
    }

    /// Moves the folder to its place, which must be empty or free.
    pub(crate) fn commit_new(self) -> Result<(), DatasetError> {
        if self.target.is_dir() {
            fs::remove_dir(&self.target).map_err(DatasetError::io("replace", &self.target))?;
        }
        fs::rename(&self.content, &self.target).map_err(DatasetError::io("move the finished folder to", &self.target))
    }

    /// Moves the folder to its place; what was there goes only once the new one stands.
    pub(crate) fn commit_replacing(self) -> Result<(), DatasetError> {
        if !self.target.exists() {
            return self.commit_new();
        }
        let old = self.holder.path().join(OLD);
        fs::rename(&self.target, &old).map_err(DatasetError::io("move aside", &self.target))?;
        let Err(error) = fs::rename(&self.content, &self.target) else { return Ok(()) };
        // The old one goes back, so that a failure changes nothing; if even that fails it stays where it is.
        if fs::rename(&old, &self.target).is_err() {
            let kept = self.holder.keep().join(OLD);
            return Err(DatasetError::io("move the finished folder to its place; the one before is now", &kept)(error));
        }
        Err(DatasetError::io("move the finished folder to", &self.target)(error))
    }
}

/// Clears what killed processes left beside the target; a target that one had moved aside goes back to its place.
fn clear_leftovers(parent: &Path, prefix: &str, target: &Path) -> Result<(), DatasetError> {
    for name in names_in(parent)?.iter().filter(|name| name.starts_with(prefix)) {
        let leftover = parent.join(name);
        let is_dead = fs::File::open(leftover.join(LOCK_FILE)).is_ok_and(|lock| lock.try_lock().is_ok());
        if !is_dead {
            continue;
        }
        let old = leftover.join(OLD);
        if old.exists() && !target.exists() {
            fs::rename(&old, target).map_err(DatasetError::io("put back", target))?;
        }
        fs::remove_dir_all(&leftover).map_err(DatasetError::io("clear", &leftover))?;
    }
    Ok(())
}

/// Whether a folder is missing or empty.
pub(crate) fn is_free(dir: &Path) -> Result<bool, DatasetError> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(DatasetError::io("read", dir)(error)),
    }
}

/// The names in a folder, sorted.
pub(crate) fn names_in(dir: &Path) -> Result<Vec<String>, DatasetError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(DatasetError::io("read", dir))? {
        let entry = entry.map_err(DatasetError::io("read", dir))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// The Parquet files of a partition, sorted by name.
pub(crate) fn parquet_files(dir: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    let names = names_in(dir)?;
    let parquet = names.iter().filter(|name| name.ends_with(".parquet") && !name.starts_with(['.', '_']));
    Ok(parquet.map(|name| dir.join(name)).collect())
}

pub(crate) fn create_dir(dir: &Path) -> Result<(), DatasetError> {
    fs::create_dir_all(dir).map_err(DatasetError::io("create", dir))
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, DatasetError> {
    fs::read(path).map_err(DatasetError::io("read", path))
}

pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), DatasetError> {
    unlink(path)?;
    fs::write(path, bytes).map_err(DatasetError::io("write", path))
}

pub(crate) fn size(path: &Path) -> Result<u64, DatasetError> {
    fs::metadata(path).map(|metadata| metadata.len()).map_err(DatasetError::io("look at", path))
}

/// The same file at another place: a hard link where the file system has them, else a copy.
pub(crate) fn link(from: &Path, to: &Path) -> Result<(), DatasetError> {
    fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(drop)).map_err(DatasetError::io("write", to))
}

/// Removes a file, if there is one: what is linked elsewhere must not be written through.
fn unlink(path: &Path) -> Result<(), DatasetError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(DatasetError::io("replace", path)(error)),
        _ => Ok(()),
    }
}

/// BLAKE3 of a file's bytes in hexadecimal.
pub(crate) fn digest(path: &Path) -> Result<String, DatasetError> {
    let mut file = fs::File::open(path).map_err(DatasetError::io("open", path))?;
    let mut hasher = blake3::Hasher::new();
    let mut chunk = vec![0; 1 << 18];
    loop {
        match file.read(&mut chunk).map_err(DatasetError::io("read", path))? {
            0 => return Ok(hasher.finalize().to_hex().to_string()),
            n => hasher.update(&chunk[..n]),
        };
    }
}

/// Writes a frame as one Parquet file.
pub(crate) fn write_parquet(path: &Path, frame: &mut DataFrame) -> Result<(), DatasetError> {
    unlink(path)?;
    let file = fs::File::create(path).map_err(DatasetError::io("create", path))?;
    ParquetWriter::new(file)
        .with_compression(ParquetCompression::Zstd(None))
        .finish(frame)
        .map_err(DatasetError::unwritable(path))?;
    Ok(())
}

/// Reads one Parquet file, all of its columns or some.
pub(crate) fn read_parquet(path: &Path, columns: Option<Vec<String>>) -> Result<DataFrame, DatasetError> {
    let file = fs::File::open(path).map_err(DatasetError::io("open", path))?;
    ParquetReader::new(file).with_columns(columns).finish().map_err(DatasetError::unreadable(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_left_is_cleared_and_what_it_moved_aside_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let (target, dead) = (folder.path().join("dataset"), folder.path().join(".dataset.new-dead"));
        fs::create_dir_all(dead.join("content")).unwrap();
        fs::create_dir(dead.join(OLD)).unwrap();
        fs::write(dead.join(OLD).join("dataset.json"), "{}").unwrap();
        fs::write(dead.join(LOCK_FILE), "").unwrap();
        let staged = StagedDir::create(&target).unwrap();
        assert!(!dead.exists());
        assert!(target.join("dataset.json").exists());
        drop(staged);
        assert_eq!(names_in(folder.path()).unwrap(), ["dataset"]);
    }

    #[test]
    fn a_living_process_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("dataset");
        let first = StagedDir::create(&target).unwrap();
        let second = StagedDir::create(&target).unwrap();
        assert!(first.path().exists() && second.path().exists());
    }
}
