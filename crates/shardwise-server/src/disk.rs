//! The disk under the journal, and the only way to it: tests put one in its place that is slow, full, or gives up halfway.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::path::Path;

use crate::files::sync_folder;

/// What a journal asks of a disk.
pub trait Disk: Send {
    /// Makes a file that is not there yet.
    ///
    /// # Errors
    /// The disk says no: there is no file then.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Gives a file another name.
    ///
    /// # Errors
    /// The disk says no.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Keeps the names in a folder, whatever happens to the machine.
    ///
    /// # Errors
    /// The disk says no.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

/// A file that a journal writes.
pub trait DiskFile: Write + Seek + Send {
    /// Cuts the file off.
    ///
    /// # Errors
    /// The disk says no.
    fn set_len(&mut self, bytes: u64) -> io::Result<()>;

    /// Keeps what was written, whatever happens to the machine.
    ///
    /// # Errors
    /// The disk says no; it may have kept some of it.
    fn sync(&mut self) -> io::Result<()>;
}

/// The system's.
pub(crate) struct SystemDisk;

impl Disk for SystemDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().create_new(true).write(true).open(path)?;
        Ok(Box::new(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        sync_folder(folder)
    }
}

impl DiskFile for File {
    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        File::set_len(self, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}
