//! Observations: a fold over the history, one record at a time, in bounded memory. All problems are made from it.
//!
//! A minute is the one in which routers learned of something (`known_at`), for nobody can plan by what nobody knows.

mod cells;
mod series;
mod table;
mod views;

use std::collections::{BTreeMap, VecDeque};

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use shardwise_types::{
    DecisionRecord, ErrorClass, FunctionId, HistoryRecord, InvalidInput, MarketRecord, OutcomeRecord, Protocol, Region,
    ReportRecord, ShardId, ShardReport, ShardShape, Timestamp, UsdAmount,
};

use crate::PlanError;
pub use cells::{Cell, Moments, Observed};
pub use series::Series;
use series::{MINUTE_NS, Minutes, SparseCounts, minute_of};
use table::{Table, When};
use views::zeros;
pub use views::{FunctionView, LeftOut, Metric, ShardView};

/// Buckets in the window of function × shard statistics: the window slides by a sixth of its length.
const BUCKETS: i64 = 6;
/// How much later than others a record may come, in ms.
const LATEST_MS: f64 = 60_000.0;
/// Decisions that have their outcome and are still in the order of those that wait, beyond as many as may wait.
const SETTLED: usize = 1024;
/// Cold and warm executions before their difference says what a load costs.
const FEWEST_FOR_COLD_COST: f64 = 3.0;

/// How much is kept. A shard takes 40 bytes a minute, a function 16 for each minute in which it was asked for, a cell
/// some 220 a bucket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ObservationSettings {
    /// Minutes of shards, functions and market, no fewer than those of the window; what repeats weekly needs a week and
    /// more. When there are too many of them, shards and functions that were silent for so long make way.
    pub keep_minutes: usize,
    /// Minutes of function × shard statistics, a multiple of 6, for the window slides by a sixth of itself.
    pub window_minutes: u32,
    /// Shards at most; further ones are not counted.
    pub most_shards: usize,
    /// Functions at most.
    pub most_functions: usize,
    /// Function × shard cells at most, in each sixth of the window.
    pub most_cells: usize,
    /// Decisions without an outcome at most; the oldest are given up.
    pub most_pending: usize,
}

impl Default for ObservationSettings {
    fn default() -> Self {
        Self {
            keep_minutes: 2 * 1440,
            window_minutes: 60,
            most_shards: 2_000,
            most_functions: 50_000,
            most_cells: 200_000,
            most_pending: 500_000,
        }
    }
}

#[derive(Debug, Clone, Default)]
struct ShardState {
    last: Option<(ShardShape, ShardReport)>,
    minutes: [Minutes; 5],
    /// All that was ever answered there.
    total: Observed,
}

#[derive(Debug, Clone)]
struct FunctionState {
    protocol: Protocol,
    residency: Option<Region>,
    max_amount_usd: f64,
    memory_mb: Moments,
    cold_ms: Moments,
    warm_ms: Moments,
    arrivals: SparseCounts,
    /// All that was ever answered, on all shards.
    total: Observed,
}

/// What was seen so far.
#[derive(Debug, Clone)]
pub struct Observations {
    settings: ObservationSettings,
    shards: Table<ShardId, ShardState>,
    functions: Table<FunctionId, FunctionState>,
    window: cells::Window,
    /// Decisions without an outcome, and the records that brought them.
    pending: FxHashMap<u64, (cells::Key, u64)>,
    /// The same, oldest first, with some that have their outcome.
    pending_order: VecDeque<(u64, u64)>,
    volatility: Minutes,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    records: u64,
    left_out: LeftOut,
}

impl Observations {
    /// Nothing seen yet.
    ///
    /// # Errors
    /// A window that is no multiple of 6 minutes, or less to keep than the window.
    pub fn new(settings: ObservationSettings) -> Result<Self, PlanError> {
        let minutes = i64::from(settings.window_minutes);
        if minutes < BUCKETS || minutes % BUCKETS != 0 {
            let problem = format!("{minutes} must be a multiple of {BUCKETS}, and not 0");
            return Err(InvalidInput::new("windowMinutes", problem).into());
        }
        if settings.keep_minutes < settings.window_minutes as usize {
            return Err(InvalidInput::new("keepMinutes", "must be no less than windowMinutes").into());
        }
        Ok(Self {
            settings,
            shards: Table::default(),
            functions: Table::default(),
            window: cells::Window::default(),
            pending: FxHashMap::default(),
            pending_order: VecDeque::new(),
            volatility: Minutes::default(),
            first: None,
            last: None,
            records: 0,
            left_out: LeftOut::default(),
        })
    }

    /// Takes in a record. A live fleet's come by several ways: within a minute their order does not matter, as long as an
    /// outcome comes behind its decision.
    ///
    /// # Errors
    /// A record that was known more than a minute before the latest one; it is not counted.
    pub fn observe(&mut self, record: &HistoryRecord) -> Result<(), PlanError> {
        let (known_at, _) = record.order();
        if let Some(last) = self.last.filter(|last| last.millis_since(known_at) > LATEST_MS) {
            self.left_out.too_late += 1;
            return Err(PlanError::OutOfOrder { record: known_at, last });
        }
        self.last = self.last.max(Some(known_at));
        self.first.get_or_insert(known_at);
        self.records += 1;
        self.window.forget_before(self.bucket(known_at) - BUCKETS + 1);
        match record {
            HistoryRecord::Decision(record) => self.decision(record),
            HistoryRecord::Outcome(record) => self.outcome(record),
            HistoryRecord::Report(record) => self.report(record),
            HistoryRecord::Market(record) => self.market(record),
            HistoryRecord::Shadow(_) | HistoryRecord::Directive(_) => {}
        }
        Ok(())
    }

    fn when(&self) -> When {
        let keep = i64::try_from(self.settings.keep_minutes).unwrap_or(i64::MAX);
        When { minute: self.until(), keep, serial: self.records }
    }

    fn decision(&mut self, record: &DecisionRecord) {
        let (settings, request, when) = (&self.settings, &record.request, self.when());
        let shard = self.shards.place(&record.shard, settings.most_shards, when, ShardState::default);
        let function = self.functions.place(&request.function, settings.most_functions, when, || FunctionState {
            protocol: request.protocol.clone(),
            residency: None,
            max_amount_usd: 0.0,
            memory_mb: Moments::default(),
            cold_ms: Moments::default(),
            warm_ms: Moments::default(),
            arrivals: SparseCounts::default(),
            total: Observed::default(),
        });
        let Some((function, shard)) = function.zip(shard) else {
            self.left_out.no_room += 1;
            return;
        };
        let minute = minute_of(record.known_at);
        let keep = settings.keep_minutes;
        self.shards.heard(shard, when.minute).minutes[Metric::Arrivals as usize].add(minute, 1.0, keep);
        let state = self.functions.heard(function, when.minute);
        state.protocol.clone_from(&request.protocol);
        state.residency.clone_from(&request.residency);
        state.max_amount_usd = state.max_amount_usd.max(request.amount_usd.map_or(0.0, UsdAmount::usd));
        state.memory_mb.push(f64::from(request.memory_mb));
        state.arrivals.add(minute, keep);
        self.pending.insert(record.decision_id, ((function, shard), when.serial));
        self.pending_order.push_back((record.decision_id, when.serial));
        let waits = |pending: &FxHashMap<u64, (cells::Key, u64)>, (id, serial): &(u64, u64)| {
            pending.get(id).is_some_and(|(_, of)| of == serial)
        };
        while self.pending.len() > settings.most_pending {
            let Some(oldest) = self.pending_order.pop_front() else { break };
            if waits(&self.pending, &oldest) {
                self.pending.remove(&oldest.0);
                self.left_out.given_up += 1;
            }
        }
        // Those that have their outcome go all at once, when they are the larger part.
        if self.pending_order.len() > settings.most_pending.saturating_mul(2).saturating_add(SETTLED) {
            self.pending_order.retain(|decision| waits(&self.pending, decision));
        }
    }

    fn outcome(&mut self, record: &OutcomeRecord) {
        let decided = self.pending.remove(&record.decision_id);
        let is_there =
            |key: cells::Key, serial| self.functions.is_since(key.0, serial) && self.shards.is_since(key.1, serial);
        let Some((key, _)) = decided.filter(|(key, serial)| is_there(*key, *serial)) else {
            self.left_out.unknown_decision += 1;
            return;
        };
        let response = &record.response;
        if response.error == Some(ErrorClass::Cancelled) {
            return;
        }
        let minute = self.until();
        self.shards.heard(key.1, minute).total.push(response);
        let state = self.functions.heard(key.0, minute);
        state.total.push(response);
        if response.is_ok() {
            let exec = if response.cold { &mut state.cold_ms } else { &mut state.warm_ms };
            exec.push(f64::from(response.exec_ms));
        }
        let bucket = self.bucket(record.known_at);
        self.left_out.no_room += u64::from(!self.window.push(bucket, key, response, self.settings.most_cells));
    }

    fn report(&mut self, record: &ReportRecord) {
        let (settings, when) = (&self.settings, self.when());
        let Some(shard) = self.shards.place(&record.shard, settings.most_shards, when, ShardState::default) else {
            self.left_out.no_room += 1;
            return;
        };
        let (report, state) = (&record.report, self.shards.heard(shard, when.minute));
        let minute = minute_of(report.known_at);
        let queue_per_core = report.queue_len as f32 / record.shape.cores.max(f32::MIN_POSITIVE);
        for (metric, value) in [
            (Metric::Cpu, report.cpu),
            (Metric::Memory, report.memory),
            (Metric::Latency, report.mean_latency_ms),
            (Metric::QueuePerCore, queue_per_core),
        ] {
            if value.is_finite() {
                state.minutes[metric as usize].add(minute, value, settings.keep_minutes);
            }
        }
        state.last = Some((record.shape.clone(), report.clone()));
    }

    fn market(&mut self, record: &MarketRecord) {
        if let Some(volatility) = record.volatility_bp.filter(|value| value.is_finite()) {
            self.volatility.add(minute_of(record.known_at), volatility, self.settings.keep_minutes);
        }
    }

    fn bucket(&self, instant: Timestamp) -> i64 {
        minute_of(instant).div_euclid(i64::from(self.settings.window_minutes) / BUCKETS)
    }

    /// When the last record was known; none before the first.
    pub fn now(&self) -> Option<Timestamp> {
        self.last
    }

    /// What was not counted.
    pub fn left_out(&self) -> LeftOut {
        self.left_out
    }

    fn until(&self) -> i64 {
        self.now().map_or(0, minute_of)
    }

    /// Beginning of the minutes that are kept.
    fn since(&self) -> i64 {
        let keep = i64::try_from(self.settings.keep_minutes).unwrap_or(i64::MAX);
        self.first.map_or(0, minute_of).max(self.until().saturating_sub(keep))
    }

    /// Beginning of the window of function × shard statistics.
    pub fn window_start(&self) -> Timestamp {
        let minutes = i64::from(self.settings.window_minutes) / BUCKETS;
        let bucket = self.now().map_or(0, |now| self.bucket(now)) - BUCKETS + 1;
        Timestamp::from_nanos(bucket.saturating_mul(minutes * MINUTE_NS)).max(self.first.unwrap_or_default())
    }

    /// Minutes that the window of function × shard statistics covers so far; more than 0.
    pub fn window_minutes(&self) -> f64 {
        let now = self.now().unwrap_or_default();
        (now.millis_since(self.window_start()) / 60_000.0).max(1.0 / 60.0)
    }

    /// The shards, by name.
    pub fn shards(&self) -> Vec<ShardView<'_>> {
        let (since, until) = (self.since(), self.until());
        self.shards
            .sorted()
            .into_iter()
            .map(|(id, state)| ShardView { id, last: state.last.as_ref(), minutes: &state.minutes, since, until })
            .collect()
    }

    /// The functions, by name.
    pub fn functions(&self) -> Vec<FunctionView<'_>> {
        let (first, until) = (self.since(), self.until());
        let rows = self.functions.sorted().into_iter();
        rows.map(|(id, state)| FunctionView {
            id,
            protocol: &state.protocol,
            residency: state.residency.as_ref(),
            max_amount_usd: state.max_amount_usd,
            memory_mb: state.memory_mb.mean,
            cold_cost_ms: (state.cold_ms.count.min(state.warm_ms.count) >= FEWEST_FOR_COLD_COST)
                .then(|| (state.cold_ms.mean - state.warm_ms.mean).max(0.0)),
            arrivals: &state.arrivals,
            first,
            until,
        })
        .collect()
    }

    /// Function × shard statistics of the window, by function and shard.
    pub fn cells(&self) -> Vec<Cell> {
        let mut cells: Vec<Cell> = self
            .window
            .merged()
            .into_iter()
            .map(|((function, shard), seen)| Cell {
                function: self.functions.get(function).0.clone(),
                shard: self.shards.get(shard).0.clone(),
                seen,
            })
            .collect();
        cells.sort_by(|a, b| (&a.function, &a.shard).cmp(&(&b.function, &b.shard)));
        cells
    }

    /// All that was ever answered of each function, on all shards together; what was so at one time, taken from what is so at
    /// another, is what happened in between.
    pub fn totals(&self) -> BTreeMap<FunctionId, Observed> {
        self.functions.iter().map(|(id, state)| (id.clone(), state.total)).collect()
    }

    /// The same of each shard.
    pub fn totals_of_shards(&self) -> BTreeMap<ShardId, Observed> {
        self.shards.iter().map(|(id, state)| (id.clone(), state.total)).collect()
    }

    /// Requests a minute of all functions that are asked for.
    pub fn arrivals(&self, wanted: impl Fn(&FunctionId, &Protocol) -> bool) -> Series {
        let mut series = zeros(self.since(), self.until());
        for (_, state) in self.functions.iter().filter(|(id, state)| wanted(id, &state.protocol)) {
            state.arrivals.add_to(self.since(), &mut series.values);
        }
        series
    }

    /// Cores that functions kept busy, over the window.
    pub fn busy_cores(&self, wanted: impl Fn(&FunctionId, &Protocol) -> bool) -> f64 {
        let merged = self.window.merged();
        let mut busy: Vec<(cells::Key, f64)> = merged
            .into_iter()
            .filter(|((function, _), _)| {
                let (id, state) = self.functions.get(*function);
                wanted(id, &state.protocol)
            })
            .map(|(key, seen)| (key, seen.busy_ms))
            .collect();
        // Sums of floats hang on their order.
        busy.sort_by_key(|(key, _)| *key);
        busy.iter().map(|(_, ms)| ms).sum::<f64>() / (self.window_minutes() * 60_000.0)
    }

    /// Volatility of the market a minute, in basis points, the mean of all instruments.
    pub fn volatility(&self) -> Series {
        self.volatility.means(self.since(), self.until())
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use tests::{history_of, report_of, small_history};
