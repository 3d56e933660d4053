//! From observations to problems: what each part of the planner asks for, read off one fold of the history.

use std::collections::{BTreeMap, BTreeSet};

use shardwise_types::{FunctionId, Protocol, ShardId, ShardShape, Timestamp};

use crate::observations::FunctionView;
use crate::warm::Demand;
use crate::{
    BalanceSettings, ByGroup, Elasticity, Expected, ForecastError, ForecastProblem, ForecastSettings, GroupLoad,
    Ledger, LoadGroup, Metric, Moments, Movable, Observations, Part, PlanError, Series, ShardOutlook, ShardView,
    SpikeSettings, SwitchedOff, WarmCandidate, WarmShard, forecast,
};

/// A shard that was not heard of for longer takes nothing new, in ms.
const SILENT_MS: f64 = 120_000.0;
/// Share of its cores up to which a shard may take more from the optimizer.
const MOST_BUSY: f64 = 0.8;

impl Observations {
    /// What is expected of each shard that has reported, by name.
    ///
    /// # Errors
    /// Settings of forecasts out of range.
    pub fn outlooks(
        &self,
        now: Timestamp,
        ledger: &Ledger,
        forecasts: &ForecastSettings,
        balance: &BalanceSettings,
    ) -> Result<Vec<ShardOutlook>, PlanError> {
        let market = self.volatility();
        let market = (!market.values.is_empty()).then_some(&market);
        let outlook = |shard: ShardView<'_>| {
            let Some((shape, report)) = shard.last else { return Ok(None) };
            let expected = |metric: Metric, last: f64, threshold: Option<f64>| {
                let most = if metric.is_share() { 1.0 } else { f64::INFINITY };
                let series = shard.series(metric);
                let problem = ForecastProblem { series: &series, market, most, threshold, now };
                let highest = series.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let is_quiet = threshold.is_some_and(|threshold| highest < balance.watch_from * threshold);
                if is_quiet && is_fit(&shard, now) {
                    Ok(as_it_is(last, most, SwitchedOff::NoEvents))
                } else {
                    expect(&problem, last, forecasts)
                }
            };
            let queue_per_core = || {
                let last = f64::from(report.queue_len) / f64::from(shape.cores);
                expected(Metric::QueuePerCore, last, None)
            };
            Ok(Some(ShardOutlook {
                id: shard.id.clone(),
                cores: f64::from(shape.cores),
                memory_mb: f64::from(shape.memory_mb),
                accepts: may_take(&shard, now, ledger),
                cpu: expected(Metric::Cpu, f64::from(report.cpu), Some(balance.cpu_threshold))?,
                memory: expected(Metric::Memory, f64::from(report.memory), Some(balance.memory_threshold))?,
                latency_ms: expected(
                    Metric::Latency,
                    f64::from(report.mean_latency_ms),
                    Some(balance.latency_threshold_ms),
                )?,
                queue_per_core: if balance.foretell_queues { queue_per_core()? } else { None },
            }))
        };
        self.shards().into_iter().filter_map(|shard| outlook(shard).transpose()).collect()
    }

    /// Who loads the shards, over the window.
    pub fn parts(&self) -> Vec<Part> {
        let shapes = self.shapes();
        let functions: BTreeMap<&FunctionId, FunctionView<'_>> =
            self.functions().into_iter().map(|view| (view.id, view)).collect();
        let core_ms = self.window_minutes() * 60_000.0;
        let part = |cell: crate::Cell| {
            let view = functions.get(&cell.function)?;
            Some(Part {
                cores: cell.seen.busy_ms / core_ms,
                memory_mb: view.memory_mb,
                exec_ms: cell.seen.exec_ms.mean,
                load_core_minutes: view.cold_cost_ms.unwrap_or(0.0) / 60_000.0,
                allowed: allowed(view, &shapes),
                function: cell.function,
                shard: cell.shard,
            })
        };
        self.cells().into_iter().filter_map(part).collect()
    }

    /// What moving each function involves.
    pub fn movables(&self) -> BTreeMap<FunctionId, Movable> {
        let shapes = self.shapes();
        let movable = |view: FunctionView<'_>| {
            let allowed = allowed(&view, &shapes);
            (view.id.clone(), Movable { memory_mb: view.memory_mb, load_ms: view.cold_cost_ms, allowed })
        };
        self.functions().into_iter().map(movable).collect()
    }

    /// Cores that are free below four fifths of those that there are, on each shard that may take something, by its mean over
    /// the window.
    pub fn free_cores(&self, now: Timestamp, ledger: &Ledger) -> BTreeMap<ShardId, f64> {
        let free = |shard: ShardView<'_>| {
            let (shape, report) = shard.last?;
            let series = shard.series(Metric::Cpu);
            let busy = mean_of_last(&series, self.window_minutes() as usize).unwrap_or(f64::from(report.cpu));
            let cores = (MOST_BUSY - busy) * f64::from(shape.cores);
            (may_take(&shard, now, ledger) && cores > 0.0).then(|| (shard.id.clone(), cores))
        };
        self.shards().into_iter().filter_map(free).collect()
    }

    /// The memory of the shards, without what is held by plan.
    pub fn warm_shards(&self, ledger: &Ledger) -> Vec<WarmShard> {
        let memory: BTreeMap<&FunctionId, f64> =
            self.functions().into_iter().map(|view| (view.id, view.memory_mb)).collect();
        let shard = |view: ShardView<'_>| {
            let (shape, report) = view.last?;
            let memory_mb = f64::from(shape.memory_mb);
            // What was held after the report is not in it.
            let held = ledger.warm_on(view.id).filter(|(_, since)| *since < report.event_at);
            let held: f64 = held.filter_map(|(function, _)| memory.get(function)).sum();
            let used = f64::from(report.memory) * memory_mb - held;
            Some(WarmShard { id: view.id.clone(), memory_mb, used_mb: used.max(0.0) })
        };
        self.shards().into_iter().filter_map(shard).collect()
    }

    /// Functions that could be kept warm: where they are held already, else where they run fastest of the shards that they
    /// were seen on, for there routers will send them once they know that they are warm. So each counts with all its
    /// requests. One whose loads were never measured is taken to load as the median of the others does.
    pub fn warm_candidates(&self, now: Timestamp, ledger: &Ledger) -> Vec<WarmCandidate> {
        let shards = self.shards();
        let fit: BTreeSet<&ShardId> =
            shards.iter().filter(|shard| may_take(shard, now, ledger)).map(|shard| shard.id).collect();
        let mut held: BTreeMap<&FunctionId, Vec<&ShardId>> = BTreeMap::new();
        for (function, shard) in ledger.warm().filter(|(_, shard)| fit.contains(shard)) {
            held.entry(function).or_default().push(shard);
        }
        let cells = self.cells();
        let mut fastest: BTreeMap<&FunctionId, (f64, &ShardId)> = BTreeMap::new();
        for cell in cells.iter().filter(|cell| fit.contains(&cell.shard)) {
            // Where it never ran warm, nothing is known of how fast it would be.
            let ln_ms = if cell.seen.exec_ln.count > 0.0 { cell.seen.exec_ln.mean } else { f64::INFINITY };
            if fastest.get(&cell.function).is_none_or(|(best, _)| ln_ms < *best) {
                fastest.insert(&cell.function, (ln_ms, &cell.shard));
            }
        }
        let functions = self.functions();
        let usual_load_ms = median(functions.iter().filter_map(|view| view.cold_cost_ms).collect());
        let mut candidates = Vec::new();
        for view in functions.iter().filter(|view| view.memory_mb > 0.0) {
            let Some(load_ms) = view.cold_cost_ms.or(usual_load_ms) else { continue };
            let Some(demand) = Demand::of(&view.arrivals()) else { continue };
            let seen = || fastest.get(view.id).map(|(_, shard)| vec![*shard]);
            let places = held.remove(view.id).or_else(seen).unwrap_or_default();
            candidates.extend(places.into_iter().map(|shard| WarmCandidate {
                function: view.id.clone(),
                shard: shard.clone(),
                arrivals_per_minute: demand.per_minute,
                dispersion: demand.dispersion,
                load_ms,
                memory_mb: view.memory_mb,
            }));
        }
        candidates
    }

    /// The groups that feel a spike: what they keep busy, and their share by that of the cores that take work. Shards that
    /// would join are taken to be as large as the mean of all that ever reported.
    pub fn spike_groups(&self, now: Timestamp, ledger: &Ledger, settings: &SpikeSettings) -> ByGroup<GroupLoad> {
        let shards = self.shards();
        let cores = |wanted: &dyn Fn(&ShardView<'_>) -> bool| -> Vec<f64> {
            let wanted = shards.iter().filter(|shard| wanted(shard));
            wanted.filter_map(|shard| Some(f64::from(shard.last?.0.cores))).collect()
        };
        let total: f64 = cores(&|shard| may_take(shard, now, ledger)).iter().sum();
        let cores_per_shard = mean(&cores(&|_| true)).unwrap_or(1.0);
        let busy = self.busy_cores(|_, _| true);
        let volatility = self.volatility();
        ByGroup::of(|group| {
            let in_group = |function: &FunctionId, protocol: &Protocol| {
                LoadGroup::of(function, protocol, &settings.words) == Some(group)
            };
            let busy_cores = self.busy_cores(in_group);
            let learned = Elasticity::learn(&self.arrivals(in_group), &volatility, settings);
            GroupLoad {
                busy_cores,
                cores: if busy > 0.0 { total * busy_cores / busy } else { 0.0 },
                cores_per_shard,
                elasticity: learned.unwrap_or(Elasticity::prior(*settings.prior.get(group))),
            }
        })
    }

    /// A protocol's load over the window in shards' worth, on shards as large as the mean of those that serve it.
    pub fn protocol_load(&self, protocol: &Protocol, current_shards: &[ShardId]) -> f64 {
        let shapes = self.shapes();
        let serving: Vec<f64> = shapes
            .iter()
            .filter(|(id, _)| current_shards.is_empty() || current_shards.contains(id))
            .map(|(_, shape)| f64::from(shape.cores))
            .collect();
        self.busy_cores(|_, of| of == protocol) / mean(&serving).unwrap_or(1.0)
    }

    fn shapes(&self) -> Vec<(&ShardId, &ShardShape)> {
        self.shards().into_iter().filter_map(|shard| Some((shard.id, &shard.last?.0))).collect()
    }
}

/// The peak to be ready for; the last value, and why, where there is no forecast; nothing of a shard that fell silent.
fn expect(
    problem: &ForecastProblem<'_>,
    last: f64,
    settings: &ForecastSettings,
) -> Result<Option<Expected>, PlanError> {
    match forecast(problem, settings) {
        Ok(forecast) => Ok(Some(Expected {
            value: forecast.ready_for,
            low: forecast.peak.low.min(forecast.ready_for),
            high: forecast.peak.high.max(forecast.ready_for),
            switched_off: forecast.back_test.switched_off,
        })),
        Err(ForecastError::Stale { .. } | ForecastError::Gap { .. }) => Ok(None),
        Err(ForecastError::TooShort { .. }) => Ok(as_it_is(last, problem.most, SwitchedOff::NoHistory)),
        Err(ForecastError::Invalid(error)) => Err(error.into()),
    }
}

fn as_it_is(last: f64, most: f64, why: SwitchedOff) -> Option<Expected> {
    let known = |last: f64| Expected { switched_off: Some(why), ..Expected::exactly(last.clamp(0.0, most)) };
    last.is_finite().then(|| known(last))
}

/// The shards that hard rules leave to a function: its region's, and those that may see its largest amount; none is all.
fn allowed(view: &FunctionView<'_>, shapes: &[(&ShardId, &ShardShape)]) -> Option<Vec<ShardId>> {
    let may = |shape: &ShardShape| {
        view.residency.is_none_or(|region| *region == shape.region)
            && shape.max_amount_usd.is_none_or(|most| view.max_amount_usd <= most)
            && f64::from(shape.memory_mb) >= view.memory_mb
    };
    let allowed: Vec<ShardId> = shapes.iter().filter(|(_, shape)| may(shape)).map(|(id, _)| (*id).clone()).collect();
    (allowed.len() < shapes.len()).then_some(allowed)
}

fn is_fit(shard: &ShardView<'_>, now: Timestamp) -> bool {
    shard.last.is_some_and(|(_, report)| report.healthy && now.millis_since(report.known_at) < SILENT_MS)
}

/// Whether a shard may be given something: fit, and not drained. Drained shards go on reporting.
fn may_take(shard: &ShardView<'_>, now: Timestamp, ledger: &Ledger) -> bool {
    is_fit(shard, now) && !ledger.is_drained(shard.id)
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn mean_of_last(series: &Series, minutes: usize) -> Option<f64> {
    let mut moments = Moments::default();
    series.values.iter().rev().take(minutes.max(1)).for_each(|value| moments.push(*value));
    (moments.count > 0.0).then_some(moments.mean)
}

#[cfg(test)]
mod tests;
