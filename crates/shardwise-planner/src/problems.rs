//! From what was observed to problems: the same way for a history, for a live fleet, and in a simulated one.

use std::collections::BTreeMap;

use shardwise_types::{FunctionId, Protocol, ShardId, Timestamp};

use crate::forecast::forecast;
use crate::{
    BalanceProblem, BalanceSettings, Cell, Expected, ForecastError, ForecastProblem, ForecastSettings, FunctionView,
    Ledger, Metric, Observations, Part, PlanError, ProtocolProblem, Series, ShardOutlook, ShardView, SwitchedOff,
    WarmCandidate, WarmProblem, WarmShard,
};

/// A shard that was silent for longer takes nothing, in ms.
const SILENT_MS: f64 = 120_000.0;
/// A shard serves a protocol when it takes at least this share of the protocol's core time.
const SERVES: f64 = 0.05;
/// Minutes over which a function's demand is averaged: what is rare needs long, what changes needs short.
const DEMAND_MINUTES: usize = 360;

impl<'a> BalanceProblem<'a> {
    /// The problem that observations pose at `now`: each shard's next minutes as forecast, and who loads it by the core
    /// time of the window.
    ///
    /// # Errors
    /// Forecast settings out of range.
    pub fn observed(
        observations: &Observations,
        now: Timestamp,
        ledger: &'a Ledger,
        settings: &BalanceSettings,
        forecasts: &ForecastSettings,
    ) -> Result<Self, PlanError> {
        let market = observations.volatility();
        let views = observations.shards();
        let foretell = Foretell { market: &market, now, settings: forecasts, watch_from: settings.watch_from };
        let outlook = |view: &ShardView<'_>| -> Result<Option<ShardOutlook>, PlanError> {
            let Some((shape, report)) = view.last else { return Ok(None) };
            Ok(Some(ShardOutlook {
                id: view.id.clone(),
                cores: shape.cores.into(),
                memory_mb: shape.memory_mb.into(),
                accepts: report.healthy && is_heard(view, now),
                cpu: foretell.expected(view, Metric::Cpu, Some(settings.cpu_threshold))?,
                memory: foretell.expected(view, Metric::Memory, Some(settings.memory_threshold))?,
                latency_ms: foretell.expected(view, Metric::Latency, Some(settings.latency_threshold_ms))?,
                queue_per_core: foretell.expected(view, Metric::QueuePerCore, None)?,
            }))
        };
        let shards: Result<Vec<Option<ShardOutlook>>, PlanError> = views.iter().map(outlook).collect();
        let functions = by_name(observations);
        let window_ms = observations.window_minutes() * 60_000.0;
        let part = |cell: &Cell| {
            let function = functions.get(&cell.function)?;
            Some(Part {
                function: cell.function.clone(),
                shard: cell.shard.clone(),
                cores: cell.seen.busy_ms / window_ms,
                memory_mb: function.memory_mb,
                exec_ms: if cell.seen.exec_ms.count > 0.0 { cell.seen.exec_ms.mean } else { 0.0 },
                load_core_minutes: function.cold_cost_ms.unwrap_or(0.0) / 60_000.0,
                allowed: allowed(function, &views),
            })
        };
        let parts = observations.cells().iter().filter_map(part).collect();
        Ok(Self { now, shards: shards?.into_iter().flatten().collect(), parts, ledger })
    }
}

impl<'a> WarmProblem<'a> {
    /// The problem that observations pose at `now`. A function is a candidate where it is held already, else where it runs
    /// fastest of the shards that it was seen on: there routers will send it, once they know that it is warm.
    pub fn observed(observations: &Observations, now: Timestamp, ledger: &'a Ledger) -> Self {
        let views = observations.shards();
        let is_fit = |id: &ShardId| {
            let is_healthy = |view: &ShardView<'_>| view.last.is_some_and(|(_, report)| report.healthy);
            views.iter().any(|view| view.id == id && is_healthy(view) && is_heard(view, now))
        };
        let mut fastest: BTreeMap<FunctionId, (f64, ShardId)> = BTreeMap::new();
        for cell in observations.cells().into_iter().filter(|cell| is_fit(&cell.shard)) {
            // Where it never ran warm, nothing is known of how fast it would be.
            let ln_ms = if cell.seen.exec_ln.count > 0.0 { cell.seen.exec_ln.mean } else { f64::INFINITY };
            match fastest.get(&cell.function) {
                Some((best, _)) if *best <= ln_ms => {}
                _ => drop(fastest.insert(cell.function, (ln_ms, cell.shard))),
            }
        }
        let functions = observations.functions();
        let usual_load_ms = median(functions.iter().filter_map(|function| function.cold_cost_ms).collect());
        let mut candidates = Vec::new();
        for function in &functions {
            let held: Vec<ShardId> = ledger
                .warm()
                .filter(|(held, shard)| *held == function.id && is_fit(shard))
                .map(|(_, s)| s.clone())
                .collect();
            let places = match (held.is_empty(), fastest.get(function.id)) {
                (false, _) => held,
                (true, Some((_, shard))) => vec![shard.clone()],
                (true, None) => continue,
            };
            let Some(load_ms) = function.cold_cost_ms.or(usual_load_ms) else { continue };
            let (rate, dispersion) = demand(&function.arrivals());
            candidates.extend(places.into_iter().map(|shard| WarmCandidate {
                function: function.id.clone(),
                shard,
                arrivals_per_minute: rate,
                dispersion,
                load_ms,
                memory_mb: function.memory_mb.max(1.0),
            }));
        }
        let held_mb = |shard: &ShardId| -> f64 {
            let mine = ledger.warm().filter(|(_, held_on)| *held_on == shard);
            mine.filter_map(|(held, _)| functions.iter().find(|function| function.id == held))
                .map(|function| function.memory_mb)
                .sum()
        };
        let shard = |view: &ShardView<'_>| {
            let (shape, report) = view.last?;
            let memory_mb = f64::from(shape.memory_mb);
            let used_mb = (f64::from(report.memory) * memory_mb - held_mb(view.id)).max(0.0);
            Some(WarmShard { id: view.id.clone(), memory_mb, used_mb })
        };
        Self { shards: views.iter().filter_map(shard).collect(), candidates, ledger }
    }
}

impl ProtocolProblem {
    /// The problem of each protocol that was asked for, by name. Its load is the core time of the window over the mean size of
    /// the shards that serve it; those are the ones that took a twentieth of it and more.
    pub fn observed(observations: &Observations, now: Timestamp, last_change: Option<Timestamp>) -> Vec<Self> {
        let functions = by_name(observations);
        let cores: BTreeMap<&ShardId, f64> =
            observations.shards().iter().filter_map(|view| Some((view.id, f64::from(view.last?.0.cores)))).collect();
        let mut busy: BTreeMap<Protocol, BTreeMap<ShardId, f64>> = BTreeMap::new();
        for cell in observations.cells() {
            let Some(function) = functions.get(&cell.function) else { continue };
            *busy.entry(function.protocol.clone()).or_default().entry(cell.shard).or_default() += cell.seen.busy_ms;
        }
        let window_ms = observations.window_minutes() * 60_000.0;
        let problem = |(protocol, by_shard): (Protocol, BTreeMap<ShardId, f64>)| {
            let total_ms: f64 = by_shard.values().sum();
            let serves = |(shard, ms): &(&ShardId, &f64)| **ms >= SERVES * total_ms && cores.contains_key(*shard);
            let current_shards: Vec<ShardId> = by_shard.iter().filter(serves).map(|(shard, _)| shard.clone()).collect();
            let size = current_shards.iter().map(|shard| cores[shard]).sum::<f64>() / current_shards.len() as f64;
            let total_load = if size > 0.0 { total_ms / window_ms / size } else { 0.0 };
            Self { protocol, total_load, current_shards, last_change, now }
        };
        busy.into_iter().map(problem).filter(|problem| !problem.current_shards.is_empty()).collect()
    }
}

/// What forecasts of one plan have in common.
struct Foretell<'a> {
    market: &'a Series,
    now: Timestamp,
    settings: &'a ForecastSettings,
    watch_from: f64,
}

impl Foretell<'_> {
    /// The peak of a metric; the last value, and why, where there can be no forecast; none where there is no value, either.
    fn expected(
        &self,
        view: &ShardView<'_>,
        metric: Metric,
        threshold: Option<f64>,
    ) -> Result<Option<Expected>, PlanError> {
        let series = view.series(metric);
        let last = || series.values.last().copied().filter(|value| value.is_finite());
        let as_it_is = |why| last().map(|value| Expected { switched_off: Some(why), ..Expected::exactly(value) });
        let highest = series.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if threshold.is_some_and(|threshold| highest < self.watch_from * threshold) {
            return Ok(as_it_is(SwitchedOff::NoEvents));
        }
        let most = if metric.is_share() { 1.0 } else { f64::INFINITY };
        let problem = ForecastProblem { series: &series, market: Some(self.market), most, threshold, now: self.now };
        match forecast(&problem, self.settings) {
            Ok(found) => Ok(Some(Expected {
                value: found.peak.value,
                low: found.peak.low,
                high: found.peak.high,
                switched_off: found.back_test.switched_off,
            })),
            Err(ForecastError::Invalid(error)) => Err(error.into()),
            Err(_) => Ok(as_it_is(SwitchedOff::NoHistory)),
        }
    }
}

fn is_heard(view: &ShardView<'_>, now: Timestamp) -> bool {
    view.last.is_some_and(|(_, report)| now.millis_since(report.known_at) < SILENT_MS)
}

fn by_name(observations: &Observations) -> BTreeMap<FunctionId, FunctionView<'_>> {
    observations.functions().into_iter().map(|function| (function.id.clone(), function)).collect()
}

/// The shards that may run a function, by where its data must stay and by the amounts at stake; none is all.
fn allowed(function: &FunctionView<'_>, views: &[ShardView<'_>]) -> Option<Vec<ShardId>> {
    let may = |view: &&ShardView<'_>| {
        view.last.is_some_and(|(shape, _)| {
            let is_there = function.residency.is_none_or(|region| *region == shape.region);
            is_there && shape.max_amount_usd.is_none_or(|most| function.max_amount_usd <= most)
        })
    };
    let shards: Vec<ShardId> = views.iter().filter(may).map(|view| view.id.clone()).collect();
    (shards.len() < views.len()).then_some(shards)
}

/// Requests a minute of late, and how much their number scatters: variance over mean.
fn demand(arrivals: &Series) -> (f64, f64) {
    let values = &arrivals.values[arrivals.values.len().saturating_sub(DEMAND_MINUTES)..];
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    (mean, if mean > 0.0 { variance / mean } else { 1.0 })
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
