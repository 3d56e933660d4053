//! The thread that writes the journal: decisions and outcomes when they have come, reports before they are acknowledged.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use shardwise_planner::Observations;
use shardwise_types::{HistoryRecord, ReportRecord};

use crate::clock::instant;
use crate::journal::{Journal, LateRecord};
use crate::live::Live;

/// Time between two writes.
const WRITE_EVERY: Duration = Duration::from_millis(100);
/// Time between two syncs, when nobody waits for one.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// Records that may wait to be kept durably.
const DURABLE_WAITING: usize = 1_024;
/// Shadows that are asked between two writes.
const SHADOWS_PER_WRITE: usize = 2_000;

/// How keeping goes; read by the metrics.
#[derive(Debug, Default)]
pub(crate) struct Keeping {
    pub(crate) decisions: AtomicU64,
    completed: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) waiting_bytes: AtomicU64,
    /// Whether the last write failed.
    pub(crate) is_failing: AtomicBool,
    last_error: Mutex<Option<String>>,
}

impl Keeping {
    fn failed(&self, error: &io::Error) {
        self.errors.fetch_add(1, Relaxed);
        if !self.is_failing.swap(true, Relaxed) {
            tracing::warn!(%error, "the journal cannot be written; what comes waits, then is dropped and counted");
        }
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
    }

    fn succeeded(&self) {
        if self.is_failing.swap(false, Relaxed) {
            tracing::info!("the journal is written again");
        }
    }

    /// What the disk said last, while it says no.
    pub(crate) fn problem(&self) -> Option<String> {
        self.is_failing
            .load(Relaxed)
            .then(|| self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone())
            .flatten()
    }
}

/// What becomes a line of the journal.
pub(crate) enum Line {
    Record(HistoryRecord),
    Late(LateRecord),
}

impl From<ReportRecord> for Line {
    fn from(record: ReportRecord) -> Self {
        Self::Record(HistoryRecord::Report(Box::new(record)))
    }
}

impl Line {
    /// A report that came too late.
    pub(crate) fn late(record: ReportRecord) -> Self {
        Self::Late(LateRecord::LateReport(Box::new(record)))
    }

    fn record(&self) -> Option<&HistoryRecord> {
        match self {
            Self::Record(record) => Some(record),
            Self::Late(_) => None,
        }
    }

    fn add_to(&self, journal: &mut Journal) {
        match self {
            Self::Record(record) => journal.add(record),
            Self::Late(record) => journal.add_late(record),
        }
    }
}

/// A line that somebody waits for.
struct Durable {
    line: Line,
    done: SyncSender<Result<(), String>>,
}

/// Hands records to the thread and waits until they are on disk.
#[derive(Clone)]
pub(crate) struct Keep(SyncSender<Durable>);

impl Keep {
    /// Returns when the line survives the machine; it blocks.
    ///
    /// # Errors
    /// The disk does not take it, or the server ends: it is not kept.
    pub(crate) fn durably(&self, line: Line) -> Result<(), String> {
        let ended = |_| "the server is about to end".to_owned();
        let (done, result) = sync_channel(1);
        self.0.send(Durable { line, done }).map_err(|_| ended(()))?;
        result.recv().map_err(|_| ended(()))?
    }
}

/// The thread; it ends when it is asked to and everything is written, or cannot be.
pub(crate) struct Keeper {
    until: Arc<AtomicBool>,
    thread: JoinHandle<Ended>,
}

/// A channel for records that must be durable.
pub(crate) fn channel() -> (Keep, DurableRecords) {
    let (sender, receiver) = sync_channel(DURABLE_WAITING);
    (Keep(sender), DurableRecords(receiver))
}

pub(crate) struct DurableRecords(Receiver<Durable>);

/// What became of a journal.
pub(crate) struct Ended {
    /// Decisions in it.
    pub(crate) decisions: u64,
    /// Whether all there was is in it, and its last file complete.
    pub(crate) is_whole: bool,
    /// Decisions and outcomes that the disk did not take in the end.
    pub(crate) lost: u64,
}

impl Keeper {
    pub(crate) fn start(
        live: Arc<Live>,
        journal: Journal,
        records: DurableRecords,
        keeping: Arc<Keeping>,
        finish_within: Duration,
    ) -> io::Result<Self> {
        let until = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&until);
        let thread = thread::Builder::new().name("journal".to_owned()).spawn(move || {
            let mut work = Work { live, journal, records: records.0, keeping, synced_at: instant(), finish_within };
            let written = work.run(&is_over);
            let lost = written.err().unwrap_or(0);
            Ended { decisions: work.journal.decisions(), is_whole: written.is_ok(), lost }
        })?;
        Ok(Self { until, thread })
    }

    /// Writes what is left, and returns what became of all that was to be written.
    pub(crate) fn stop(self) -> Option<Ended> {
        self.until.store(true, Relaxed);
        self.thread.join().ok()
    }
}

struct Work {
    live: Arc<Live>,
    journal: Journal,
    records: Receiver<Durable>,
    keeping: Arc<Keeping>,
    synced_at: Instant,
    /// How long a disk that says no is asked again in the end.
    finish_within: Duration,
}

impl Work {
    /// Writes until it is over, and then what is left; fails with the number of decisions and outcomes that the disk did not take.
    fn run(&mut self, is_over: &AtomicBool) -> Result<(), u64> {
        loop {
            let is_last = is_over.load(Relaxed);
            let first = match self.records.recv_timeout(if is_last { Duration::ZERO } else { WRITE_EVERY }) {
                Ok(durable) => Some(durable),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => {
                    thread::sleep(if is_last { Duration::ZERO } else { WRITE_EVERY });
                    None
                }
            };
            let is_whole = self.write_log(is_last);
            if let Some(first) = first {
                self.write_durably(first);
            }
            if self.synced_at.elapsed() >= SYNC_EVERY || is_last {
                self.sync();
            }
            if is_last {
                return self.finish(is_whole);
            }
        }
    }

    /// Completes the journal; a disk that says no is asked again for a while. Returns how many decisions and outcomes it did not
    /// take in the end, none if everything is there and complete.
    fn finish(&mut self, mut is_whole: bool) -> Result<(), u64> {
        let deadline = instant() + self.finish_within;
        while !(is_whole && self.journal.close().is_ok()) {
            if instant() >= deadline {
                let mut lost = self.journal.waiting_records();
                while self.live.log.drain(1, |_| lost += 1) == 1 {}
                while self.live.late.take().is_some() {
                    lost += 1;
                }
                return Err(lost);
            }
            thread::sleep(WRITE_EVERY);
            is_whole = self.write_log(true);
        }
        Ok(())
    }

    /// What is logged, as long as the disk takes it: as much as waits at most, or all there is `until_empty`. Returns whether the
    /// disk took it.
    fn write_log(&mut self, until_empty: bool) -> bool {
        loop {
            let mut taken = 0;
            let mut seen = self.live.seen();
            while self.journal.has_room()
                && self.live.log.drain(1, |record| {
                    self.journal.add(record);
                    observe(&mut seen, record);
                }) == 1
            {
                taken += 1;
            }
            drop(seen);
            while self.journal.has_room()
                && let Some(directive) = self.live.directives.take()
            {
                self.journal.add(&HistoryRecord::Directive(Box::new(directive)));
                taken += 1;
            }
            while self.journal.has_room()
                && let Some(outcome) = self.live.late.take()
            {
                self.journal.add_late(&LateRecord::LateOutcome(outcome));
                taken += 1;
            }
            if let Some(shadow) = self.live.shadow.as_deref().filter(|_| self.journal.has_room()) {
                taken += shadow.score(SHADOWS_PER_WRITE, |said| {
                    self.live.figures.shadow_said(said.agrees, self.live.clock.now());
                    self.journal.add(&HistoryRecord::Shadow(Box::new(said)));
                });
            }
            let was_full = !self.journal.has_room();
            let written = self.journal.flush();
            self.note(&written);
            let is_done = !was_full && (taken == 0 || !until_empty);
            if written.is_err() || is_done {
                return written.is_ok();
            }
        }
    }

    /// This record and those that came meanwhile, each on disk before it is said to be.
    fn write_durably(&mut self, first: Durable) {
        let batch: Vec<Durable> = std::iter::once(first).chain(self.records.try_iter().take(DURABLE_WAITING)).collect();
        // Behind lines that the disk does not take nothing is promised.
        let add = |journal: &mut Journal| batch.iter().for_each(|durable| durable.line.add_to(journal));
        let kept = self.journal.flush().and_then(|()| self.journal.keep(add));
        self.note(&kept);
        if kept.is_ok() {
            let mut seen = self.live.seen();
            batch.iter().filter_map(|durable| durable.line.record()).for_each(|record| observe(&mut seen, record));
        }
        let told = kept.map_err(|error| error.to_string());
        for durable in batch {
            // Whoever has gone will send it again.
            _ = durable.done.send(told.clone());
        }
    }

    fn sync(&mut self) {
        // That nothing is left to be synced is no success: only writes tell.
        if let Err(error) = self.journal.sync() {
            self.keeping.failed(&error);
        }
        self.synced_at = instant();
    }

    fn note(&self, result: &io::Result<()>) {
        match result {
            Ok(()) => self.keeping.succeeded(),
            Err(error) => self.keeping.failed(error),
        }
        if self.keeping.completed.swap(self.journal.completed(), Relaxed) != self.journal.completed() {
            self.live.accepted.complete(self.journal.completed());
        }
        self.keeping.decisions.store(self.journal.decisions(), Relaxed);
        self.keeping.waiting_bytes.store(self.journal.waiting_bytes() as u64, Relaxed);
    }
}

/// Counts a record for the planner; one that comes more than a minute late counts for the history alone.
fn observe(seen: &mut Observations, record: &HistoryRecord) {
    if let Err(error) = seen.observe(record) {
        tracing::debug!(%error, "a record is too late for the planner");
    }
}
