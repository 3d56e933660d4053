//! How many decisions were answered, in a file that survives the death of the process, so that its successor can say how many
//! of them never reached the journal.

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Places: one for each thread that counts, and the last for the journal.
const PLACES: usize = 1_024;
/// Bytes of a count.
const WIDTH: usize = 8;

/// The counts of one process. A count is written with one system call and without a lock.
pub(crate) struct Accepted {
    file: File,
    threads: AtomicUsize,
    failures: AtomicU64,
}

thread_local! {
    static PLACE: Cell<Option<(usize, u64)>> = const { Cell::new(None) };
}

impl Accepted {
    /// Reads what the process before left, and begins at nothing. Returns how many decisions that one answered, and how many of
    /// them are in files of the journal that it completed.
    pub(crate) fn open(path: &Path) -> io::Result<(Self, u64, u64)> {
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
        let mut before = vec![0; PLACES * WIDTH];
        let length = usize::try_from(file.metadata()?.len()).unwrap_or(0).min(before.len());
        file.read_exact_at(&mut before[..length], 0)?;
        let count = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("chunks have this width"));
        let mut counts = before.chunks_exact(WIDTH).map(count);
        let completed = counts.next_back().unwrap_or(0);
        let answered = counts.fold(0, u64::saturating_add);
        file.set_len(0)?;
        file.set_len((PLACES * WIDTH) as u64)?;
        Ok((Self { file, threads: AtomicUsize::new(0), failures: AtomicU64::new(0) }, answered, completed))
    }

    /// Counts one decision of this thread.
    pub(crate) fn count(&self) {
        let (place, count) = PLACE.get().unwrap_or_else(|| (self.threads.fetch_add(1, Relaxed), 0));
        PLACE.set(Some((place, count + 1)));
        // More threads than places share the last one, and then some are not counted; there are two by default.
        self.write(place.min(PLACES - 2), count + 1);
    }

    /// Notes how many decisions are in completed files of the journal.
    pub(crate) fn complete(&self, decisions: u64) {
        self.write(PLACES - 1, decisions);
    }

    fn write(&self, place: usize, count: u64) {
        if self.file.write_all_at(&count.to_le_bytes(), (place * WIDTH) as u64).is_err() {
            self.failures.fetch_add(1, Relaxed);
        }
    }

    /// Counts that the file did not take.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// Says that everything answered is in the journal.
    pub(crate) fn clear(&self) -> io::Result<()> {
        self.file.set_len(0)
    }
}
