//! A history in memory that is slow now and then, and fails when it is told to.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use shardwise_monitor::{ReportSink, SinkError};
use shardwise_types::{ReportRecord, ShardId, Timestamp};

#[derive(Default)]
pub(crate) struct Sink {
    pub(crate) fails: AtomicBool,
    records: Mutex<Vec<ReportRecord>>,
}

impl Sink {
    pub(crate) fn len(&self) -> usize {
        self.records.lock().expect("nobody panicked").len()
    }

    /// What is stored, each once: a shard never measures twice at the same time.
    pub(crate) fn reports(&self) -> BTreeSet<(ShardId, Timestamp)> {
        let records = self.records.lock().expect("nobody panicked");
        records.iter().map(|record| (record.shard.clone(), record.report.event_at)).collect()
    }
}

impl ReportSink for Sink {
    fn append(&self, record: &ReportRecord) -> Result<(), SinkError> {
        if self.fails.load(Relaxed) {
            return Err("no space left on device".into());
        }
        if record.sequence.is_multiple_of(200) {
            std::thread::sleep(Duration::from_millis(100));
        }
        self.records.lock().expect("nobody panicked").push(record.clone());
        Ok(())
    }
}
