//! From observations to problems: what each part of the planner asks for, read off one fold of the history.

use std::collections::{BTreeMap, BTreeSet};

use shardwise_types::{FunctionId, Protocol, ShardId, ShardShape, Timestamp};

use crate::observations::FunctionView;
use crate::warm::Demand;
use crate::{
    BalanceSettings, ByGroup, Elasticity, Expected, ForecastError, ForecastProblem, ForecastSettings, GroupLoad,
    Ledger, LoadGroup, Metric, Moments, Movable, Observations, Part, ProtocolProblem, Series, ShardOutlook, ShardView,
    SpikeSettings, SwitchedOff, WarmCandidate, WarmShard, forecast,
};

/// A shard that was not heard of for longer takes nothing new, in ms.
const SILENT_MS: f64 = 120_000.0;

impl Observations {
    /// What is expected of each shard that has reported, by name.
    pub fn outlooks(
        &self,
        now: Timestamp,
        forecasts: &ForecastSettings,
        balance: &BalanceSettings,
    ) -> Vec<ShardOutlook> {
        let market = self.volatility();
        let market = (!market.values.is_empty()).then_some(&market);
        let outlook = |shard: ShardView<'_>| {
            let (shape, report) = shard.last?;
            let expected = |metric: Metric, last: f64, threshold: Option<f64>| {
                let most = if metric.is_share() { 1.0 } else { f64::INFINITY };
                let series = shard.series(metric);
                let problem = ForecastProblem { series: &series, market, most, threshold, now };
                let highest = series.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let is_quiet = threshold.is_some_and(|threshold| highest < balance.watch_from * threshold);
                if is_quiet && is_fit(&shard, now) {
                    as_it_is(last, most, SwitchedOff::NoEvents)
                } else {
                    expect(&problem, last, forecasts)
                }
            };
            Some(ShardOutlook {
                id: shard.id.clone(),
                cores: f64::from(shape.cores),
                memory_mb: f64::from(shape.memory_mb),
                accepts: is_fit(&shard, now),
                cpu: expected(Metric::Cpu, f64::from(report.cpu), Some(balance.cpu_threshold)),
                memory: expected(Metric::Memory, f64::from(report.memory), Some(balance.memory_threshold)),
                latency_ms: expected(
                    Metric::Latency,
                    f64::from(report.mean_latency_ms),
                    Some(balance.latency_threshold_ms),
                ),
                queue_per_core: balance
                    .foretell_queues
                    .then(|| {
                        let last = f64::from(report.queue_len) / f64::from(shape.cores);
                        expected(Metric::QueuePerCore, last, None)
                    })
                    .flatten(),
            })
        };
        self.shards().into_iter().filter_map(outlook).collect()
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

    /// Cores that are free below a share of those that there are, on each healthy shard, by its mean over the window.
    pub fn free_cores(&self, most_share: f64) -> BTreeMap<ShardId, f64> {
        let free = |shard: ShardView<'_>| {
            let (shape, report) = shard.last?;
            let series = shard.series(Metric::Cpu);
            let busy = mean_of_last(&series, self.window_minutes() as usize).unwrap_or(f64::from(report.cpu));
            let cores = (most_share - busy) * f64::from(shape.cores);
            (report.healthy && cores > 0.0).then(|| (shard.id.clone(), cores))
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
        let fit: BTreeSet<&ShardId> = shards.iter().filter(|shard| is_fit(shard, now)).map(|shard| shard.id).collect();
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

    /// The groups that feel a spike: what they keep busy, and their share of the fleet's cores by that.
    pub fn spike_groups(&self, settings: &SpikeSettings) -> ByGroup<GroupLoad> {
        let shapes = self.shapes();
        let total: f64 = shapes.iter().map(|(_, shape)| f64::from(shape.cores)).sum();
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
                cores_per_shard: if shapes.is_empty() { 1.0 } else { total / shapes.len() as f64 },
                elasticity: learned.unwrap_or(Elasticity::prior(*settings.prior.get(group))),
            }
        })
    }

    /// A protocol's load in shards' worth, on shards as large as the mean of those that serve it.
    pub fn protocol_problem(
        &self,
        protocol: &Protocol,
        current_shards: &[ShardId],
        shared: BTreeSet<ShardId>,
        last_change: Option<Timestamp>,
        now: Timestamp,
    ) -> ProtocolProblem {
        let shapes = self.shapes();
        let serving: Vec<f64> = shapes
            .iter()
            .filter(|(id, _)| current_shards.is_empty() || current_shards.contains(id))
            .map(|(_, shape)| f64::from(shape.cores))
            .collect();
        let cores = if serving.is_empty() { 1.0 } else { serving.iter().sum::<f64>() / serving.len() as f64 };
        let busy = self.busy_cores(|_, of| of == protocol);
        ProtocolProblem {
            protocol: protocol.clone(),
            total_load: busy / cores,
            current_shards: current_shards.to_vec(),
            shared,
            last_change,
            now,
        }
    }

    fn shapes(&self) -> Vec<(&ShardId, &ShardShape)> {
        self.shards().into_iter().filter_map(|shard| Some((shard.id, &shard.last?.0))).collect()
    }
}

/// The peak to be ready for; the last value, and why, where there is no forecast; nothing of a shard that fell silent.
fn expect(problem: &ForecastProblem<'_>, last: f64, settings: &ForecastSettings) -> Option<Expected> {
    match forecast(problem, settings) {
        Ok(forecast) => Some(Expected {
            value: forecast.ready_for,
            low: forecast.peak.low.min(forecast.ready_for),
            high: forecast.peak.high.max(forecast.ready_for),
            switched_off: forecast.back_test.switched_off,
        }),
        Err(ForecastError::Stale { .. } | ForecastError::Gap { .. }) => None,
        Err(_) => as_it_is(last, problem.most, SwitchedOff::NoHistory),
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
mod tests {
    use super::*;
    use crate::{BalanceProblem, Effects, OptimizeProblem, OptimizeSettings, WarmProblem, WarmSettings};

    #[test]
    fn one_fold_feeds_every_part() {
        let observations = crate::observations::small_history();
        let now = observations.now().unwrap();
        let (ledger, balance) = (Ledger::default(), BalanceSettings { watch_from: 0.0, ..BalanceSettings::default() });
        let shards = observations.outlooks(now, &ForecastSettings::default(), &balance);
        assert_eq!(shards.iter().map(|shard| shard.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(shards[0].cpu.unwrap().switched_off, Some(SwitchedOff::NoHistory), "seventy minutes are too few");
        let parts = observations.parts();
        let cores: f64 = parts.iter().map(|part| part.cores).sum();
        assert!((cores - observations.busy_cores(|_, _| true)).abs() < 1e-9 && cores > 0.0);
        let plan = BalanceProblem { now, shards, parts, ledger: &ledger }.solve(&balance).unwrap();
        assert_eq!((plan.actions.len(), plan.switched_off.len()), (0, 8));
        let later = now.plus_millis(3_600_000.0);
        let silent = observations.outlooks(later, &ForecastSettings::default(), &balance);
        assert!(silent.iter().all(|shard| shard.cpu.is_none()), "nothing is known of who was silent for an hour");

        let cells = observations.cells();
        let (functions, free_cores) = (observations.movables(), observations.free_cores(0.8));
        let problem = OptimizeProblem {
            now,
            since: observations.window_start(),
            cells: &cells,
            functions: &functions,
            free_cores: &free_cores,
            expected: &Effects::of(&cells, None),
            ledger: &ledger,
        };
        let plan = problem.solve(&OptimizeSettings::default()).unwrap();
        assert_eq!(plan.optimizations[0].current_shard.as_str(), "b", "b takes five times as long");

        let warm = WarmProblem {
            shards: observations.warm_shards(&ledger),
            candidates: observations.warm_candidates(now, &ledger),
            ledger: &ledger,
        };
        assert_eq!(warm.candidates[0].shard.as_str(), "a", "there it runs faster, and there all of it would go");
        assert!((warm.candidates[0].arrivals_per_minute - 2.0).abs() < 0.1, "{:?}", warm.candidates[0]);
        warm.solve(&WarmSettings::default()).unwrap();

        let protocol = observations.protocol_problem(&"aave".into(), &["a".into(), "b".into()], [].into(), None, now);
        assert!((protocol.total_load - cores / 2.0).abs() < 1e-9, "shards have two cores");
        let groups = observations.spike_groups(&SpikeSettings::default());
        assert_eq!((groups.yields.cores, groups.yields.elasticity.minutes), (4.0, 0), "aave is all there is");
    }
}
