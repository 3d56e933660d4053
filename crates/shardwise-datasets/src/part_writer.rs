//! Writes the files of a day while its next rows are made: one file at a time, in order, on a thread of its own.

use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use crate::rows::{PartBuffer, RowHasher};
use crate::{DatasetError, files};

/// What is written so far.
#[derive(Default)]
pub(crate) struct Written {
    /// BLAKE3 of the files, in order.
    pub(crate) parts: Vec<String>,
    /// Has taken in the values of all rows.
    pub(crate) hasher: RowHasher,
}

impl Written {
    fn add(mut self, part: PartBuffer, path: &Path) -> Result<Self, DatasetError> {
        part.write(path, &mut self.hasher)?;
        self.parts.push(files::digest(path)?);
        Ok(self)
    }
}

/// Takes the files of a day one after the other; at most one is being written. What is under way comes to its end before
/// the writer goes, so that nobody writes into a folder that is moved or removed.
#[derive(Default)]
pub(crate) struct PartWriter {
    under_way: Option<JoinHandle<Result<Written, DatasetError>>>,
}

impl PartWriter {
    /// Begins to write the next file, as soon as the one before it is written.
    ///
    /// # Errors
    /// What went wrong with the one before it.
    pub(crate) fn write(&mut self, part: PartBuffer, path: PathBuf) -> Result<(), DatasetError> {
        let written = self.written()?;
        self.under_way = Some(thread::spawn(move || written.add(part, &path)));
        Ok(())
    }

    /// Waits for the last file.
    ///
    /// # Errors
    /// What went wrong with it.
    pub(crate) fn written(&mut self) -> Result<Written, DatasetError> {
        let Some(thread) = self.under_way.take() else { return Ok(Written::default()) };
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for PartWriter {
    fn drop(&mut self) {
        if let Some(thread) = self.under_way.take() {
            // Whoever lets a writer go has an error of its own to tell of.
            let _ = thread.join();
        }
    }
}
