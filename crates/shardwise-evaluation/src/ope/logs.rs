//! Logged decisions beside what a target policy would have done in the same states.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shardwise_features::{DecisionContext, DecisionFeatures, FEATURE_COUNT, FeatureVector, ServiceTable};
use shardwise_policies::Policy;
use shardwise_types::{DecisionRecord, ErrorClass, Response, ShardId, Timestamp};

use crate::EvaluationError;

/// What became of the logged decisions that were looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogCounts {
    /// Decisions of the measured period that were looked at.
    pub decisions: u64,
    /// Those with an outcome, on which estimates stand.
    pub settled: u64,
    /// Those that had none when the log ended.
    pub censored: u64,
    /// Those that were called off, because a copy was answered first.
    pub cancelled: u64,
    /// Those that the target policy would not have placed.
    pub refused: u64,
    /// Those that went to a shard of which nothing was known by its reports.
    pub unknown: u64,
}

/// Watches a log as it is replayed, and asks the target policy in each state.
///
/// The target learns nothing from the log's responses: they are not of its own choices. What routers know of shards is in the
/// context, which every policy sees alike.
pub struct LogReader {
    target: Box<dyn Policy>,
    timeout_ms: f64,
    measured_from: Timestamp,
    every: u64,
    seen: u64,
    /// Places of decisions whose outcome is not there yet.
    open: HashMap<u64, usize>,
    shards: HashMap<ShardId, usize>,
    odds: Vec<(usize, f64)>,
    /// Sum over decisions of the cores that the fleet had.
    cores: f64,
    logs: Logs,
}

/// Decisions with their outcomes, and with what the target would have done.
#[derive(Debug, Default)]
pub struct Logs {
    pub(crate) decisions: Vec<Logged>,
    /// Rows of [`FEATURE_COUNT`] values.
    pub(crate) features: Vec<f32>,
    /// The target's probability of each row's shard.
    pub(crate) odds: Vec<f64>,
    pub(crate) shards: Vec<ShardId>,
    /// Core time that the fleet had, over the decisions that were looked at, in ms.
    pub(crate) core_ms: f64,
    pub(crate) counts: LogCounts,
}

/// One decision.
#[derive(Debug, Clone)]
pub(crate) struct Logged {
    pub(crate) at: Timestamp,
    pub(crate) shard: usize,
    pub(crate) propensity: f64,
    /// Its rows: the logged choice, then all else that the target might choose.
    pub(crate) rows: Range<usize>,
    pub(crate) fate: Fate,
    pub(crate) cost_ms: f64,
    pub(crate) exec_ms: f64,
    pub(crate) queue_ms: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Open,
    Settled,
    Cancelled,
}

impl Logs {
    /// What became of the decisions.
    pub fn counts(&self) -> LogCounts {
        self.counts
    }

    pub(crate) fn row(&self, row: usize) -> &[f32] {
        &self.features[row * FEATURE_COUNT..][..FEATURE_COUNT]
    }
}

impl LogReader {
    /// Looks at every `every`-th decision from `measured_from` on; a failure costs the timeout.
    pub fn new(target: Box<dyn Policy>, timeout_ms: f64, measured_from: Timestamp, every: u64) -> Self {
        Self {
            target,
            timeout_ms,
            measured_from,
            every: every.max(1),
            seen: 0,
            open: HashMap::new(),
            shards: HashMap::new(),
            odds: Vec::new(),
            cores: 0.0,
            logs: Logs::default(),
        }
    }

    /// The table that the contexts must carry.
    pub fn service_table(&self) -> Option<Arc<ServiceTable>> {
        self.target.service_table()
    }

    /// Takes in a decision, and what its router knew.
    ///
    /// # Errors
    /// When the target cannot say how probable its choices are.
    pub fn decided(&mut self, context: &DecisionContext<'_>, decision: &DecisionRecord) -> Result<(), EvaluationError> {
        if decision.known_at < self.measured_from {
            return Ok(());
        }
        self.seen += 1;
        if !self.seen.is_multiple_of(self.every) {
            return Ok(());
        }
        self.logs.counts.decisions += 1;
        let Some(chosen) = context.fleet.position(&decision.shard) else {
            self.logs.counts.unknown += 1;
            return Ok(());
        };
        self.odds.clear();
        let said = self.target.odds(context, &mut self.odds);
        if said.ok_or_else(|| EvaluationError::NoOdds(self.target.name().to_owned()))?.is_err() {
            self.logs.counts.refused += 1;
            return Ok(());
        }
        self.cores += context.fleet.shards.iter().map(|shard| f64::from(shard.shape.cores)).sum::<f64>();
        let rows = self.extract(context, chosen);
        let shards = self.shards.len();
        let shard = *self.shards.entry(decision.shard.clone()).or_insert(shards);
        self.open.insert(decision.decision_id, self.logs.decisions.len());
        self.logs.decisions.push(Logged {
            at: decision.known_at,
            shard,
            propensity: decision.propensity,
            rows,
            fate: Fate::Open,
            cost_ms: f64::NAN,
            exec_ms: 0.0,
            queue_ms: 0.0,
        });
        Ok(())
    }

    /// Takes in the outcome of a decision.
    pub fn answered(&mut self, decision_id: u64, response: &Response) {
        let Some(place) = self.open.remove(&decision_id) else { return };
        let logged = &mut self.logs.decisions[place];
        logged.exec_ms = f64::from(response.exec_ms);
        logged.cost_ms = if response.is_ok() { f64::from(response.total_ms) } else { self.timeout_ms };
        // Where a request waited that was not answered in time nobody knows: a queue is what choices can change.
        logged.queue_ms = match response.error {
            Some(ErrorClass::Timeout) => logged.cost_ms,
            _ => f64::from(response.queue_ms),
        };
        logged.fate = match response.error {
            Some(ErrorClass::Cancelled) => Fate::Cancelled,
            _ => Fate::Settled,
        };
    }

    /// All decisions that were settled by the end of the log.
    pub fn finish(self) -> Logs {
        let Self { mut logs, shards, cores, .. } = self;
        let of = |fate: Fate| logs.decisions.iter().filter(|logged| logged.fate == fate).count() as u64;
        logs.counts = LogCounts {
            settled: of(Fate::Settled),
            censored: of(Fate::Open),
            cancelled: of(Fate::Cancelled),
            ..logs.counts
        };
        if let [first, .., last] = &logs.decisions[..] {
            let mean_cores = cores / logs.decisions.len() as f64;
            // Of the executions, too, only every so manieth is there.
            logs.core_ms = mean_cores * last.at.millis_since(first.at) / self.every as f64;
        }
        logs.decisions.retain(|logged| logged.fate == Fate::Settled);
        let mut names: Vec<(usize, ShardId)> = shards.into_iter().map(|(shard, place)| (place, shard)).collect();
        names.sort_unstable();
        logs.shards = names.into_iter().map(|(_, shard)| shard).collect();
        logs
    }

    /// Keeps the features of the logged choice and of what the target might choose.
    fn extract(&mut self, context: &DecisionContext<'_>, chosen: usize) -> Range<usize> {
        let features = DecisionFeatures::new(context);
        let logs = &mut self.logs;
        let first = logs.odds.len();
        let mut keep = |position: usize, odds: f64| {
            logs.features.extend_from_slice(FeatureVector::extract(&features, position).as_slice());
            logs.odds.push(odds);
        };
        let of_chosen = self.odds.iter().filter(|(position, _)| *position == chosen).map(|(_, odds)| odds).sum();
        keep(chosen, of_chosen);
        let others = self.odds.iter().filter(|(position, odds)| *position != chosen && *odds > 0.0);
        others.for_each(|(position, odds)| keep(*position, *odds));
        first..logs.odds.len()
    }
}
