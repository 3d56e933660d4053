//! How far the clocks of a history are apart, gathered while its records are replayed and kept beside the rows.
//!
//! Clocks of routers and shards can only be compared through what they say of one event, as NTP does (RFC 5905): a response left
//! its shard not before it had waited and run there, and not after the router had it. By the router's clock that is between
//! `known_at` − `total_ms` + `queue_ms` + `exec_ms` and `known_at`; how far the shard's `event_at` lies outside is the
//! least that the two clocks are apart. Of all else only `event_at` ≤ `known_at` is sure.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use shardwise_types::{HistoryRecord, ShardId, Timestamp};

use crate::state::{bucket_end_ms, bucket_of};
use crate::{DatasetError, files};

/// What was found of clocks, in the folder of a dataset.
pub(crate) const CLOCKS_FILE: &str = "clocks.json";
/// The share of rows that is within what is reported of a clock: one row in a hundred may be a slip.
const QUANTILE: f64 = 0.99;

/// For each clock, how many rows are that many ms off, in buckets of about 1 %; bucket 0 is 1 ms or less.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct ClockHistograms(BTreeMap<Clock, BTreeMap<u16, u64>>);

/// A clock, known by the kind of rows that it stamps and who owns it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Clock {
    rows: Stamped,
    owner: String,
}

/// The rows whose `event_at` is held against a router's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stamped {
    /// Events that asked for requests; the owner is the router that had them.
    Decisions,
    /// Responses; the owner is the shard.
    Outcomes,
    /// Reports; the owner is the shard.
    ShardReports,
    /// Minutes of the market; the owner is the instrument.
    Market,
}

/// How far one clock was off on one day.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ClockFacts {
    pub(crate) date: String,
    pub(crate) rows: Stamped,
    pub(crate) owner: String,
    /// Rows that were looked at.
    pub(crate) count: u64,
    /// Ms that 99 % of the rows are off at most; 1 for all that is less.
    pub(crate) p99_ms: f64,
    /// The same of all rows.
    pub(crate) max_ms: f64,
}

impl ClockHistograms {
    /// Takes in a record; `shard_of` tells where an open decision went.
    pub(crate) fn take<'a>(&mut self, record: &'a HistoryRecord, shard_of: impl FnOnce(u64) -> Option<&'a ShardId>) {
        match record {
            HistoryRecord::Decision(decision) => {
                let ahead = ahead_ms(decision.request.event_at, decision.known_at);
                self.add(Stamped::Decisions, decision.router.as_str(), ahead);
            }
            HistoryRecord::Outcome(outcome) => {
                let response = &outcome.response;
                // Of what failed, nobody may have run anything: a timeout is the router's own.
                let Some(shard) = shard_of(outcome.decision_id).filter(|_| response.is_ok()) else { return };
                let least_ms = f64::from(response.total_ms - response.queue_ms - response.exec_ms);
                let ahead = ahead_ms(outcome.event_at, outcome.known_at);
                let behind = outcome.known_at.millis_since(outcome.event_at) - least_ms;
                self.add(Stamped::Outcomes, shard.as_str(), ahead.max(behind));
            }
            HistoryRecord::Report(report) => {
                let ahead = ahead_ms(report.report.event_at, report.report.known_at);
                self.add(Stamped::ShardReports, report.shard.as_str(), ahead);
            }
            HistoryRecord::Market(minute) => {
                self.add(Stamped::Market, &minute.instrument, ahead_ms(minute.event_at, minute.known_at));
            }
            // Its clocks are those of its decision, or the history is refused.
            HistoryRecord::Shadow(_) => {}
            // One clock gives both times.
            HistoryRecord::Directive(_) => {}
        }
    }

    fn add(&mut self, rows: Stamped, owner: &str, ms: f64) {
        let bucket = bucket_of(ms as f32);
        let clock = Clock { rows, owner: owner.to_owned() };
        *self.0.entry(clock).or_default().entry(bucket).or_default() += 1;
    }

    /// What it comes to.
    pub(crate) fn facts(&self, date: &str) -> Vec<ClockFacts> {
        let facts = |(clock, buckets): (&Clock, &BTreeMap<u16, u64>)| {
            let count: u64 = buckets.values().sum();
            let wanted = (count as f64 * QUANTILE).ceil() as u64;
            let mut below = 0;
            let within = buckets.iter().find(|(_, n)| {
                below += **n;
                below >= wanted
            });
            let end_ms = |bucket: Option<&u16>| bucket.map_or(1.0, |bucket| bucket_end_ms(*bucket));
            ClockFacts {
                date: date.to_owned(),
                rows: clock.rows,
                owner: clock.owner.clone(),
                count,
                p99_ms: end_ms(within.map(|(bucket, _)| bucket)),
                max_ms: end_ms(buckets.keys().next_back()),
            }
        };
        self.0.iter().map(facts).collect()
    }
}

/// How far an event lies after the router knew of it, in ms.
fn ahead_ms(event_at: Timestamp, known_at: Timestamp) -> f64 {
    event_at.millis_since(known_at)
}

pub(crate) fn write_clocks(dataset: &Path, clocks: &[ClockFacts]) -> Result<(), DatasetError> {
    let text = serde_json::to_vec_pretty(clocks).expect("facts are plain data");
    files::write(&dataset.join(CLOCKS_FILE), &text)
}

/// `None` when the dataset has none that can be read.
pub(crate) fn read_clocks(dataset: &Path) -> Option<Vec<ClockFacts>> {
    std::fs::read(dataset.join(CLOCKS_FILE)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok())
}
