//! A world estimated from a history: what routers and shards left behind tells who stands where, how fast what runs, and what went
//! wrong when. With it a model can be tried on the arrivals of a runtime whose truth nobody knows.
//!
//! Two passes over the same records: the [`WorldSurvey`] learns names, shapes and service times, the [`WorldFit`] what these leave,
//! shard by shard over time. Left out: what a history cannot tell, such as executions that never began.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use shardwise_features::{ServiceObservations, ServiceTable};
use shardwise_types::{
    ErrorClass, FunctionId, HistoryRecord, Network, PlacementRequest, Region, Response, RouterId, ShardId, ShardShape,
    Timestamp, combine_keys,
};

use crate::world::{
    Fault, FaultKind, FunctionSpec, ResourceClass, RouterSpec, ServiceNoise, ShardSpec, ShardSpeed, SlownessTrace,
    SpeedNoise, Timing, WorldError, WorldSpec,
};

/// Executions that a bin of a shard's time holds in the mean; fewer tell of noise.
const EXECUTIONS_PER_BIN: f64 = 30.0;
/// Bounds of a bin's length, in ms.
const BIN_MS: (f64, f64) = (1_000.0, 600_000.0);
/// Executions that a bin's slowness is shrunk by, toward none.
const BIN_SHRINKAGE: f64 = 10.0;
/// A shard fails in a bin of so many responses of which this share failed.
const FAILING: (f64, f64) = (20.0, 0.2);
/// Least deviation of ln execution from call to call.
const LEAST_LOG_SD: f64 = 0.02;
/// Calls that a function's own deviation is shrunk by, toward the mean of all.
const LOG_SD_SHRINKAGE: f64 = 20.0;
/// Bins of the time since a function last ran on a shard, four to a doubling from 16 ms on.
const GAP_BINS: usize = 128;
/// The first bin that tells how long a function stays loaded: a second.
const SHORTEST_GAP: usize = 24;

/// The first pass: who is there, and how long what takes.
pub struct WorldSurvey {
    network: Network,
    routers: BTreeMap<RouterId, Region>,
    shards: BTreeMap<ShardId, ShardShape>,
    functions: BTreeMap<FunctionId, (PlacementRequest, u64)>,
    open: FxHashMap<u64, (PlacementRequest, ShardId)>,
    observations: ServiceObservations,
    span: Option<(Timestamp, Timestamp)>,
    executions: u64,
    failures: u64,
    answers: u64,
    /// Longest wait of requests that timed out, in ms.
    timed_out_ms: f64,
    reports: Reports,
    warmth: Warmth,
}

/// How reports come.
#[derive(Default)]
struct Reports {
    last: BTreeMap<ShardId, Timestamp>,
    gaps: u64,
    gaps_ms: f64,
    delays_ms: f64,
    heard: u64,
}

/// Cold and warm executions by the time since the function last ran on the shard.
struct Warmth {
    last: FxHashMap<u64, Timestamp>,
    bins: [[u64; 2]; GAP_BINS],
}

impl Default for Warmth {
    fn default() -> Self {
        Self { last: FxHashMap::default(), bins: [[0; 2]; GAP_BINS] }
    }
}

impl Warmth {
    fn observe(&mut self, function: &FunctionId, shard: &ShardId, cold: bool, at: Timestamp) {
        if let Some(last) = self.last.insert(combine_keys(function.key(), shard.key()), at) {
            let doublings = (at.millis_since(last) / 16.0).max(1.0).log2();
            self.bins[((doublings * 4.0) as usize).min(GAP_BINS - 1)][usize::from(cold)] += 1;
        }
    }

    /// The time after which executions are cold: where a threshold errs least. When none were cold, the usual one, or the
    /// longest after which one was warm.
    fn ttl_ms(&self, usual_ms: f64) -> f64 {
        // While a function is loaded, requests close upon the first are cold as well.
        let bins = || self.bins.iter().enumerate().skip(SHORTEST_GAP);
        let warm: u64 = bins().map(|(_, bin)| bin[0]).sum();
        let starts_at = |place: usize| 16.0 * (place as f64 / 4.0).exp2();
        let longest_warm = bins().rfind(|(_, bin)| bin[0] > 0).map_or(0.0, |(place, _)| starts_at(place + 1));
        if bins().all(|(_, bin)| bin[1] == 0) {
            return longest_warm.max(usual_ms);
        }
        // Cold ones before the threshold and warm ones from it on are errors.
        let (mut cold_before, mut warm_before, mut best) = (0, 0, (u64::MAX, 0.0));
        for (place, [warm_here, cold_here]) in bins() {
            let errors = cold_before + warm - warm_before;
            if errors < best.0 {
                best = (errors, starts_at(place));
            }
            cold_before += cold_here;
            warm_before += warm_here;
        }
        if cold_before + warm - warm_before < best.0 { longest_warm } else { best.1 }
    }
}

impl WorldSurvey {
    /// Nothing is known but the distances.
    pub fn new(network: Network) -> Self {
        Self {
            network,
            routers: BTreeMap::new(),
            shards: BTreeMap::new(),
            functions: BTreeMap::new(),
            open: FxHashMap::default(),
            observations: ServiceObservations::default(),
            span: None,
            executions: 0,
            failures: 0,
            answers: 0,
            timed_out_ms: 0.0,
            reports: Reports::default(),
            warmth: Warmth::default(),
        }
    }

    /// Takes in a record; they come in their order.
    pub fn observe(&mut self, record: &HistoryRecord) {
        match record {
            HistoryRecord::Decision(decision) => {
                let at = decision.known_at;
                self.span = Some(self.span.map_or((at, at), |(first, _)| (first, at)));
                self.routers.entry(decision.router.clone()).or_insert_with(|| decision.router_region.clone());
                let (function, request) = (decision.request.function.clone(), &decision.request);
                self.functions.entry(function).or_insert_with(|| (request.clone(), 0)).1 += 1;
                self.open.insert(decision.decision_id, (request.clone(), decision.shard.clone()));
            }
            HistoryRecord::Outcome(outcome) => {
                let Some((request, shard)) = self.open.remove(&outcome.decision_id) else { return };
                self.answer(&request, &shard, &outcome.response, outcome.event_at);
            }
            HistoryRecord::Report(report) => {
                self.shards.insert(report.shard.clone(), report.shape.clone());
                let at = report.report.event_at;
                if self.reports.last.get(&report.shard) == Some(&at) {
                    // Another router heard it as well.
                    return;
                }
                self.reports.heard += 1;
                self.reports.delays_ms += report.report.known_at.millis_since(at).max(0.0);
                if let Some(last) = self.reports.last.insert(report.shard.clone(), at) {
                    self.reports.gaps += 1;
                    self.reports.gaps_ms += at.millis_since(last).max(0.0);
                }
            }
            HistoryRecord::Market(_) | HistoryRecord::Shadow(_) | HistoryRecord::Directive(_) => {}
        }
    }

    fn answer(&mut self, request: &PlacementRequest, shard: &ShardId, response: &Response, at: Timestamp) {
        self.observations.observe(request, shard, response);
        match response.error {
            Some(ErrorClass::Cancelled) => return,
            Some(ErrorClass::Timeout) => self.timed_out_ms = self.timed_out_ms.max(f64::from(response.total_ms)),
            Some(ErrorClass::Failed) => self.failures += 1,
            Some(ErrorClass::Dropped) => {}
            None => {
                self.executions += u64::from(response.exec_ms > 0.0);
                self.warmth.observe(&request.function, shard, response.cold, at);
            }
        }
        self.answers += 1;
    }

    /// What the second pass needs.
    ///
    /// # Errors
    /// When nothing was decided, or nothing was executed.
    pub fn fit(self) -> Result<WorldFit, WorldError> {
        let Some((from, to)) = self.span else {
            return Err(WorldError::Empty { what: "decisions", remedy: "choose days that the history holds" });
        };
        if self.executions == 0 {
            return Err(WorldError::Empty {
                what: "executions",
                remedy: "a world is estimated from responses that carry exec_ms",
            });
        }
        let duration_ms = to.millis_since(from).max(1.0);
        let per_shard = self.executions as f64 / self.shards.len().max(1) as f64;
        let bin_ms = (EXECUTIONS_PER_BIN * duration_ms / per_shard).clamp(BIN_MS.0, BIN_MS.1);
        let bins = (duration_ms / bin_ms).ceil() as usize + 1;
        let shards = self.shards.keys().map(|id| (id.clone(), vec![Bin::default(); bins])).collect();
        let (table, functions) = (self.observations.fit(), FxHashMap::default());
        Ok(WorldFit { survey: self, table, from, bin_ms, shards, functions, open: FxHashMap::default() })
    }
}

/// What a shard did in a piece of time.
#[derive(Clone, Copy, Default)]
struct Bin {
    answers: f64,
    failures: f64,
    executions: f64,
    /// What the service times leave of ln execution.
    residuals: f64,
    unhealthy: bool,
}

impl Bin {
    fn slowness_ln(self) -> f64 {
        self.residuals / (self.executions + BIN_SHRINKAGE)
    }
}

/// The second pass: what the mean service times leave.
pub struct WorldFit {
    survey: WorldSurvey,
    table: ServiceTable,
    from: Timestamp,
    bin_ms: f64,
    shards: BTreeMap<ShardId, Vec<Bin>>,
    /// Count, sum and sum of squares of the residuals of each function.
    functions: FxHashMap<u64, [f64; 3]>,
    open: FxHashMap<u64, (PlacementRequest, ShardId)>,
}

impl WorldFit {
    /// Takes in a record of the same history; they come in their order.
    pub fn observe(&mut self, record: &HistoryRecord) {
        match record {
            HistoryRecord::Decision(decision) => {
                self.open.insert(decision.decision_id, (decision.request.clone(), decision.shard.clone()));
            }
            HistoryRecord::Outcome(outcome) => {
                let Some((request, shard)) = self.open.remove(&outcome.decision_id) else { return };
                self.answer(&request, &shard, &outcome.response, outcome.event_at);
            }
            HistoryRecord::Report(report) if !report.report.healthy => {
                if let Some(bin) = self.bin(&report.shard, report.report.event_at) {
                    bin.unhealthy = true;
                }
            }
            HistoryRecord::Report(_)
            | HistoryRecord::Market(_)
            | HistoryRecord::Shadow(_)
            | HistoryRecord::Directive(_) => {}
        }
    }

    fn bin(&mut self, shard: &ShardId, at: Timestamp) -> Option<&mut Bin> {
        let place = (at.millis_since(self.from) / self.bin_ms).max(0.0) as usize;
        self.shards.get_mut(shard)?.get_mut(place)
    }

    fn answer(&mut self, request: &PlacementRequest, shard: &ShardId, response: &Response, at: Timestamp) {
        let expected = self.table.service_ln_ms(request, shard);
        let Some(bin) = self.bin(shard, at) else { return };
        if response.error != Some(ErrorClass::Cancelled) {
            bin.answers += 1.0;
            bin.failures += f64::from(u8::from(response.error == Some(ErrorClass::Failed)));
        }
        let (true, Some(expected)) = (response.is_ok() && response.exec_ms > 0.0 && !response.cold, expected) else {
            return;
        };
        let residual = f64::from(response.exec_ms).ln() - expected;
        bin.executions += 1.0;
        bin.residuals += residual;
        let [n, sum, squares] = self.functions.entry(request.function.key()).or_default();
        *n += 1.0;
        *sum += residual;
        *squares += residual * residual;
    }

    /// The first decision.
    pub fn from(&self) -> Timestamp {
        self.from
    }

    /// The world; times of traces and faults count from the first decision.
    ///
    /// # Errors
    /// When what the history says of a shard or a function is out of range.
    pub fn world(&self) -> Result<WorldSpec, WorldError> {
        let survey = &self.survey;
        let world = WorldSpec {
            network: survey.network.clone(),
            routers: survey
                .routers
                .iter()
                .map(|(id, region)| RouterSpec { id: id.clone(), region: region.clone() })
                .collect(),
            shards: self.shards.iter().map(|(id, bins)| self.shard(id, bins)).collect(),
            functions: survey.functions.values().map(|(request, count)| self.function(request, *count)).collect(),
            timing: self.timing(),
        };
        world.check()?;
        Ok(world)
    }

    fn shard(&self, id: &ShardId, bins: &[Bin]) -> ShardSpec {
        let pairs = self.survey.functions.values().filter_map(|(request, _)| {
            let plain = PlacementRequest { data_complexity: 1.0, ..request.clone() };
            let slower_ln = self.table.service_ln_ms(&plain, id)? - self.table.function_ln_ms(&plain)?;
            Some((request.function.clone(), (-slower_ln).exp().clamp(1e-3, 1e3)))
        });
        let factor = |bin: &Bin| bin.slowness_ln().exp().clamp(1e-2, 1e3) as f32;
        ShardSpec {
            id: id.clone(),
            shape: ShardShape { cores: whole_cores(&self.survey.shards[id]), ..self.survey.shards[id].clone() },
            speed: ShardSpeed {
                base: 1.0,
                by_resource: [1.0; 3],
                specialities: Vec::new(),
                speciality: 1.0,
                pair_seed: 0,
                pair_sigma: 0.0,
                measured: pairs.collect(),
            },
            noise: SpeedNoise::default(),
            antagonist: None,
            slowness: vec![SlownessTrace {
                resource: ResourceClass::Compute,
                step_ms: self.bin_ms,
                values: bins.iter().map(factor).collect(),
            }],
            faults: self.faults(bins),
        }
    }

    /// Spells of bins in which the shard failed much, or called itself unhealthy.
    fn faults(&self, bins: &[Bin]) -> Vec<Fault> {
        let fails = |bin: &Bin| bin.answers >= FAILING.0 && bin.failures >= FAILING.1 * bin.answers;
        let spells = |kind_of: &dyn Fn(&[Bin]) -> FaultKind, is_in: &dyn Fn(&Bin) -> bool| {
            let mut faults = Vec::new();
            let mut from = 0;
            for spell in bins.chunk_by(|a, b| is_in(a) == is_in(b)) {
                let until = from + spell.len();
                if is_in(&spell[0]) {
                    let [from_ms, until_ms] = [from, until].map(|bin| bin as f64 * self.bin_ms);
                    faults.push(Fault { from_ms, until_ms, kind: kind_of(spell) });
                }
                from = until;
            }
            faults
        };
        let share = |spell: &[Bin]| {
            let sum = |read: fn(&Bin) -> f64| spell.iter().map(read).sum::<f64>();
            FaultKind::Failing(sum(|bin| bin.failures) / sum(|bin| bin.answers).max(1.0))
        };
        let mut faults = spells(&share, &fails);
        faults.extend(spells(&|_| FaultKind::Unhealthy, &|bin| bin.unhealthy));
        faults
    }

    fn function(&self, request: &PlacementRequest, count: u64) -> FunctionSpec {
        let all = self.functions.values().fold([0.0; 3], |sum, one| std::array::from_fn(|i| sum[i] + one[i]));
        let variance =
            |[n, sum, squares]: [f64; 3]| if n > 1.0 { (squares / n - (sum / n).powi(2)).max(0.0) } else { 0.0 };
        // What shards wander by is not the function's.
        let wandering = self.wandering();
        let own = self.functions.get(&request.function.key()).copied().unwrap_or_default();
        let shrunk = (own[0] * variance(own) + LOG_SD_SHRINKAGE * variance(all)) / (own[0] + LOG_SD_SHRINKAGE);
        let base_ln_ms = self.table.function_ln_ms(request).unwrap_or_default();
        FunctionSpec {
            id: request.function.clone(),
            protocol: request.protocol.clone(),
            event_type: request.event_type.clone(),
            trading_pair: request.trading_pair.clone(),
            exchange: request.exchange.clone(),
            urgency: request.urgency,
            risk: request.risk,
            base_ms: base_ln_ms.exp(),
            complexity_exponent: self.table.complexity_exponent().clamp(-3.0, 3.0),
            log_sd: (shrunk - wandering).max(LEAST_LOG_SD.powi(2)).sqrt().min(3.0),
            exchange_calls: request.exchange_calls,
            memory_mb: request.memory_mb,
            load_ms: self.table.cold_ms(request).max(0.0),
            weight: count as f64,
            resource: ResourceClass::Compute,
        }
    }

    /// Variance of ln execution that the shards' slowness over time makes.
    fn wandering(&self) -> f64 {
        let bins = || self.shards.values().flatten();
        let executions: f64 = bins().map(|bin| bin.executions).sum();
        bins().map(|bin| bin.executions * bin.slowness_ln().powi(2)).sum::<f64>() / executions.max(1.0)
    }

    fn timing(&self) -> Timing {
        let usual = Timing::default();
        let WorldSurvey { reports, timed_out_ms, failures, answers, warmth, .. } = &self.survey;
        let mean = |sum: f64, n: u64, otherwise: f64| if n > 0 { sum / n as f64 } else { otherwise };
        let interval_ms = mean(reports.gaps_ms, reports.gaps, usual.report_interval_ms).max(1.0);
        Timing {
            timeout_ms: if *timed_out_ms > 0.0 { *timed_out_ms } else { usual.timeout_ms },
            warm_ttl_ms: warmth.ttl_ms(usual.warm_ttl_ms).min(MOST_WARM_MS),
            report_interval_ms: interval_ms,
            report_delay_ms: mean(reports.delays_ms, reports.heard, usual.report_delay_ms),
            report_jitter_ms: usual.report_jitter_ms.min(interval_ms / 2.0),
            report_loss: 0.0,
            service_noise: ServiceNoise::LogNormal,
            // The tail is part of the functions' deviation.
            tail_share: 0.0,
            failure_rate: *failures as f64 / (*answers).max(1) as f64,
            ..usual
        }
    }
}

/// A day: what is loaded for longer is loaded.
const MOST_WARM_MS: f64 = 86_400_000.0;

/// Cores are servers of a queue, which are whole.
fn whole_cores(shape: &ShardShape) -> f32 {
    shape.cores.round().clamp(1.0, 1024.0)
}

#[cfg(test)]
mod tests {
    use shardwise_policies::{Policy, by_name};

    use super::*;
    use crate::{FleetOptions, KeepAll, NoRecorder, Workload, WorkloadOptions, simulate};

    const LASTS_MS: f64 = 300_000.0;

    fn truth(unequal: f32) -> (WorldSpec, Workload) {
        let options =
            FleetOptions { shards: 6, routers: 2, functions: 20, heterogeneity: unequal, ..FleetOptions::default() };
        let world = WorldSpec::generate(1, &options);
        let options = WorkloadOptions::new("2026-01-05T12:00:00Z".parse().unwrap(), LASTS_MS, 0.5);
        let workload = Workload::generate(&world, 1, &options).unwrap();
        (world, workload)
    }

    fn policies(world: &WorldSpec, name: &str) -> Vec<Box<dyn Policy>> {
        world.routers.iter().map(|_| by_name(name, world.timing.runtime()).unwrap()).collect()
    }

    fn history(world: &WorldSpec, workload: &Workload) -> Vec<HistoryRecord> {
        let mut kept = KeepAll::default();
        simulate(world, workload, 1, policies(world, "sed_tab_softmax"), &mut kept).unwrap();
        kept.records
    }

    fn estimated(network: Network, records: &[HistoryRecord]) -> Result<WorldSpec, WorldError> {
        let mut survey = WorldSurvey::new(network);
        records.iter().for_each(|record| survey.observe(record));
        let mut fit = survey.fit()?;
        records.iter().for_each(|record| fit.observe(record));
        fit.world()
    }

    #[test]
    fn speeds_and_clocks_are_those_of_the_truth() {
        let (world, workload) = truth(1.0);
        let found = estimated(world.network.clone(), &history(&world, &workload)).unwrap();
        let names = |world: &WorldSpec| {
            let mut names: Vec<String> = world.shards.iter().map(|shard| shard.id.to_string()).collect();
            names.extend(world.routers.iter().map(|router| router.id.as_str().to_owned()));
            names.sort();
            names
        };
        assert_eq!(names(&found), names(&world));
        // Core time by function, with all that slows shards down: antagonists are no part of what is estimated as a speed.
        let true_ms: BTreeMap<&str, f64> =
            world.functions.iter().map(|function| function.id.as_str()).zip(world.mean_service_ms()).collect();
        let off: Vec<(f64, f64)> = found
            .functions
            .iter()
            .zip(found.mean_service_ms())
            .map(|(function, ms)| (function.weight, (ms / true_ms[function.id.as_str()]).ln()))
            .collect();
        let weight: f64 = off.iter().map(|(weight, _)| weight).sum();
        let mean = off.iter().map(|(weight, off)| weight * off).sum::<f64>() / weight;
        let sd = (off.iter().map(|(weight, off)| weight * (off - mean).powi(2)).sum::<f64>() / weight).sqrt();
        assert!(mean.abs() < 0.15 && sd < 0.15, "ln of estimated over true times: {mean:.3} ± {sd:.3}");
        let (found, timing) = (&found.timing, &world.timing);
        assert!((found.report_interval_ms / timing.report_interval_ms - 1.0).abs() < 0.05, "{found:?}");
        assert!((found.report_delay_ms - timing.report_delay_ms).abs() < 2.0 * timing.report_jitter_ms, "{found:?}");
        assert!(found.failure_rate < 4.0 * timing.failure_rate, "{found:?}");
        assert!((0.5..2.0).contains(&(found.warm_ttl_ms / timing.warm_ttl_ms)), "{found:?}");
    }

    #[test]
    fn policies_do_in_the_estimated_world_as_in_the_true_one() {
        for unequal in [0.0, 1.0] {
            let (world, workload) = truth(unequal);
            let found = estimated(world.network.clone(), &history(&world, &workload)).unwrap();
            // The same arrivals; functions have other places there.
            let place = |function: u32| {
                let id = &world.functions[function as usize].id;
                found.functions.iter().position(|one| one.id == *id).unwrap() as u32
            };
            let mut arrivals = workload.arrivals.clone();
            arrivals.iter_mut().for_each(|arrival| arrival.function = place(arrival.function));
            let replayed = Workload { arrivals, ..workload.clone() };
            let mean_ms = |world: &WorldSpec, workload: &Workload, name: &str| {
                simulate(world, workload, 11, policies(world, name), &mut NoRecorder).unwrap().mean_ms
            };
            for name in ["sed_tab", "sed_tab_lambda", "p2c_in_flight", "least_in_flight"] {
                let ratio = mean_ms(&found, &replayed, name) / mean_ms(&world, &workload, name);
                assert!((0.85..1.15).contains(&ratio), "heterogeneity {unequal}, {name}: {ratio:.3} of the true mean");
            }
        }
    }

    #[test]
    fn a_shard_that_fails_or_calls_itself_sick_does_so_again() {
        let (mut world, workload) = truth(0.0);
        world.shards[2].faults = vec![
            Fault { from_ms: 20_000.0, until_ms: 40_000.0, kind: FaultKind::Failing(0.6) },
            Fault { from_ms: 45_000.0, until_ms: 50_000.0, kind: FaultKind::Unhealthy },
        ];
        let found = estimated(world.network.clone(), &history(&world, &workload)).unwrap();
        let id = &world.shards[2].id;
        let faults = &found.shards.iter().find(|shard| shard.id == *id).unwrap().faults;
        let near = |ms: f64, fault_ms: f64| (ms - fault_ms).abs() < 6_000.0;
        let is =
            |fault: &Fault, from_ms: f64, until_ms: f64| near(fault.from_ms, from_ms) && near(fault.until_ms, until_ms);
        assert!(
            faults.iter().any(|fault| fault.kind == FaultKind::Unhealthy && is(fault, 45_000.0, 50_000.0)),
            "{faults:?}"
        );
        let failing = |fault: &&Fault| matches!(fault.kind, FaultKind::Failing(share) if share > 0.3);
        assert!(faults.iter().filter(failing).any(|fault| near(fault.from_ms, 20_000.0)), "{faults:?}");
        let others = found.shards.iter().filter(|shard| shard.id != *id);
        assert_eq!(others.map(|shard| shard.faults.len()).sum::<usize>(), 0);
    }

    #[test]
    fn nothing_makes_no_world() {
        let (world, workload) = truth(0.0);
        let error = estimated(world.network.clone(), &[]).unwrap_err();
        assert!(error.to_string().contains("decisions"), "{error}");
        let mut records = history(&world, &workload);
        records.retain(|record| !matches!(record, HistoryRecord::Outcome(_)));
        let error = estimated(world.network.clone(), &records).unwrap_err();
        assert!(error.to_string().contains("exec_ms"), "{error}");
    }
}
