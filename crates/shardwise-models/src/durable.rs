//! Files that are whole or not there at all, also after a crash: written aside, synchronised, then renamed.
//!
//! What a crash leaves aside begins with `.tmp-`; every reader skips it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// What the names of unfinished files and folders begin with.
pub(crate) const UNFINISHED: &str = ".tmp-";

/// Names a place beside `target` that no other writer uses.
pub(crate) fn unfinished_beside(target: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    target.with_file_name(format!("{UNFINISHED}{name}-{}-{count}", std::process::id()))
}

/// Writes a file that must not be there yet, and waits for the disk.
pub(crate) fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Puts `content` in the place of a file; whoever reads sees all of the old or all of the new.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let unfinished = unfinished_beside(path);
    let replaced = write_new(&unfinished, content).and_then(|()| fs::rename(&unfinished, path));
    if replaced.is_err() {
        // The first error is the one that tells; the rest is skipped by readers.
        let _ = fs::remove_file(&unfinished);
    }
    replaced?;
    sync_folder_of(path)
}

/// Waits until the names in the folder of `path` are on the disk.
pub(crate) fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        // Only Unix lets a folder be opened and synchronised.
        Some(folder) if cfg!(unix) => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

/// Reads a file of at most `limit` bytes; a longer one is cut to `limit + 1`, so that its length tells.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut content)?;
    Ok(content)
}
