//! Where a run's history goes: a sink that the caller writes. Nothing is built for a sink that does not want it.

use std::ops::ControlFlow;

use shardwise_features::DecisionContext;
use shardwise_policies::Decision;
use shardwise_types::HistoryRecord;

use crate::truth::Foreseen;

/// A measured choice, as it is made.
pub struct Choice<'a> {
    /// Which arrival of the workload; one that is sent again is placed again.
    pub arrival: usize,
    /// What the router knew.
    pub context: &'a DecisionContext<'a>,
    /// What it chose.
    pub decision: &'a Decision,
    /// What each eligible shard would do to it, by position in the context's fleet; empty where regret is not measured.
    pub foreseen: &'a [(usize, Foreseen)],
}

/// Takes the records of a run in the order (`known_at`, `sequence`).
pub trait Recorder {
    /// Whether records are wanted at all; asked once, at the start.
    fn wants_history(&self) -> bool;

    /// Whether the features of all eligible shards should be logged with this decision.
    fn wants_features(&self, _decision_id: u64) -> bool {
        false
    }

    /// Takes a record; `Break` ends the run, and the summary covers what was done by then.
    fn record(&mut self, record: HistoryRecord) -> ControlFlow<()>;

    /// Hears of every measured choice, whether or not it wants history.
    fn choice(&mut self, _choice: &Choice<'_>) {}

    /// Hears how long a measured arrival took in ms; `None` when it failed, timed out or was refused.
    fn settled(&mut self, _arrival: usize, _good_ms: Option<f32>) {}
}

/// Wants nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoRecorder;

impl Recorder for NoRecorder {
    fn wants_history(&self) -> bool {
        false
    }

    fn record(&mut self, _record: HistoryRecord) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// Keeps everything in memory, for tests and short runs.
#[derive(Debug, Clone, Default)]
pub struct KeepAll {
    /// The records so far.
    pub records: Vec<HistoryRecord>,
    /// Log the features of every decision whose id is a multiple of this; 0 for none.
    pub features_every: u64,
}

impl Recorder for KeepAll {
    fn wants_history(&self) -> bool {
        true
    }

    fn wants_features(&self, decision_id: u64) -> bool {
        self.features_every > 0 && decision_id.is_multiple_of(self.features_every)
    }

    fn record(&mut self, record: HistoryRecord) -> ControlFlow<()> {
        self.records.push(record);
        ControlFlow::Continue(())
    }
}
