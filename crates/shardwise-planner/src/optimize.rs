//! The performance optimizer (S6): functions that do badly on a shard, where they would do better, and whether moving pays.
//!
//! Latency and errors are compared with the same function on all other shards, so that a slow function is no slow shard.
//! Everything is in milliseconds of latency over a horizon: what is saved, and what moving costs (state, loads, the requests
//! that wait for them).

mod effects;
mod faults;
mod room;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use shardwise_types::{FunctionId, InvalidInput, ShardId, Timestamp};

pub use effects::{Effects, Expectation, Teacher};
pub use faults::Fault;
use faults::faults;
use room::{all_of, worth};

use crate::{Action, Cell, Estimate, Ledger, PlanError, Unit};

/// Thresholds, proof, horizon and costs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct OptimizeSettings {
    /// Latency is bad above so many times that of elsewhere, above 1.
    pub latency_factor: f64,
    /// Errors are too many above so many times the share of elsewhere, above 1.
    pub error_factor: f64,
    /// Successes for each busy core second are too few below this share of those elsewhere, in (0, 1).
    pub throughput_factor: f64,
    /// Requests here and elsewhere before anything is said, at least 2.
    pub fewest_requests: f64,
    /// Chance of any false alarm among all functions and shards, in (0, 1).
    pub false_alarms: f64,
    /// How many requests say as much as one that is independent of all others, at least 1: bursts are alike.
    pub clustering: f64,
    /// Minutes over which a move is to pay.
    pub horizon_minutes: f64,
    /// Share of the latency that another shard must save, and by which a benefit must exceed its cost, in [0, 1).
    pub hysteresis: f64,
    /// Minutes in which nothing returns to a shard that it left, and shards that took something take no more.
    pub cooldown_minutes: f64,
    /// Minutes after a move of which is not known where it went, in which nothing moves: any shard may have taken it, and the
    /// room on them is not known until their reports show it.
    pub settle_minutes: f64,
    /// Moves of one function within an hour at most.
    pub most_moves_per_function_hour: usize,
    /// What a failure costs, in ms.
    pub failure_ms: f64,
    /// Moving a MB of state, in ms.
    pub state_ms_per_mb: f64,
    /// What a load costs where it was never measured, in ms.
    pub unknown_load_ms: f64,
    /// Shards that are recommended for each function at most, at least 1.
    pub most_recommended: usize,
}

impl Default for OptimizeSettings {
    fn default() -> Self {
        Self {
            latency_factor: 1.5,
            error_factor: 2.0,
            throughput_factor: 0.5,
            fewest_requests: 30.0,
            false_alarms: 0.01,
            clustering: 1.5,
            horizon_minutes: 60.0,
            hysteresis: 0.2,
            cooldown_minutes: 60.0,
            settle_minutes: 15.0,
            most_moves_per_function_hour: 2,
            failure_ms: 1000.0,
            state_ms_per_mb: 1.0,
            unknown_load_ms: 500.0,
            most_recommended: 3,
        }
    }
}

impl OptimizeSettings {
    pub(crate) fn check(&self) -> Result<(), InvalidInput> {
        let within = |field: &str, value: f64, low: f64, high: f64| match value > low && value < high {
            true => Ok(()),
            false => Err(InvalidInput::new(field, format!("{value} must lie between {low} and {high}"))),
        };
        within("latencyFactor", self.latency_factor, 1.0, f64::INFINITY)?;
        within("errorFactor", self.error_factor, 1.0, f64::INFINITY)?;
        within("throughputFactor", self.throughput_factor, 0.0, 1.0)?;
        within("falseAlarms", self.false_alarms, 0.0, 1.0)?;
        within("horizonMinutes", self.horizon_minutes, 0.0, f64::INFINITY)?;
        for (field, value, least) in [
            ("fewestRequests", self.fewest_requests, 2.0),
            ("clustering", self.clustering, 1.0),
            ("hysteresis", self.hysteresis, 0.0),
            ("cooldownMinutes", self.cooldown_minutes, 0.0),
            ("settleMinutes", self.settle_minutes, 0.0),
            ("failureMs", self.failure_ms, 0.0),
            ("stateMsPerMb", self.state_ms_per_mb, 0.0),
            ("unknownLoadMs", self.unknown_load_ms, 0.0),
        ] {
            if !(value.is_finite() && value >= least) {
                return Err(InvalidInput::new(field, format!("{value} must be a finite number, {least} or more")));
            }
        }
        Ok(())
    }
}

/// What moving a function involves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Movable {
    /// State to bring along, in MB, 0 or more.
    pub memory_mb: f64,
    /// What a load adds to an execution, in ms; none when it was never measured.
    pub load_ms: Option<f64>,
    /// The shards that may run it; none is all.
    pub allowed: Option<Vec<ShardId>>,
}

/// A problem of where functions run.
#[derive(Clone, Copy)]
pub struct OptimizeProblem<'a> {
    /// Now.
    pub now: Timestamp,
    /// Beginning of the statistics' window.
    pub since: Timestamp,
    /// Function × shard statistics, in any order; each pair once.
    pub cells: &'a [Cell],
    /// What moving each function involves; functions that are not here stay.
    pub functions: &'a BTreeMap<FunctionId, Movable>,
    /// Cores that are free on each shard that may take something; shards that are not here take nothing.
    pub free_cores: &'a BTreeMap<ShardId, f64>,
    /// What functions would take elsewhere.
    pub expected: &'a Effects<'a>,
    /// Past moves.
    pub ledger: &'a Ledger,
}

/// A shard where a function would do better.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecommendedShard {
    /// The shard.
    pub shard: ShardId,
    /// Latency expected there, in ms.
    pub latency_ms: f64,
    /// Share of failures expected there.
    pub error_rate: f64,
}

/// What a move saves.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Improvement {
    /// Milliseconds of latency saved over the horizon, before the cost of moving: gross, though the specification, which holds
    /// it against that cost, has it by this name.
    pub net_benefit: f64,
    /// Lower end of its interval.
    pub low: f64,
    /// Upper end of its interval.
    pub high: f64,
    /// Mean latency now, in ms.
    pub latency_ms: f64,
    /// Share of failures now.
    pub error_rate: f64,
    /// Requests within the horizon.
    pub requests: f64,
}

/// A function that should leave a shard.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Optimization {
    /// The function.
    pub function_name: FunctionId,
    /// Where it does badly.
    pub current_shard: ShardId,
    /// In what.
    pub faults: Vec<Fault>,
    /// Where it would do better, the best first; room is kept on the first.
    pub recommended_shards: Vec<RecommendedShard>,
    /// What the first saves.
    pub expected_improvement: Improvement,
    /// What moving costs, in ms of latency.
    pub migration_cost: f64,
}

/// All moves that pay.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OptimizationPlan {
    /// The moves, the most useful first.
    pub optimizations: Vec<Optimization>,
    /// Milliseconds of latency saved over the horizon, all moves together, before their cost: a plain number, as the
    /// specification sums it; other plans have an [`Estimate`] by this name.
    pub estimated_benefit: f64,
    /// Milliseconds that moving costs, all moves together.
    pub estimated_migration_time: f64,
    /// Proven: no choice among these moves is worth more than `(estimated_benefit - estimated_migration_time) /
    /// (1 - proven_gap)`; in [0, 1].
    pub proven_gap: f64,
    /// Function × shard pairs that do badly, moved or not.
    pub underperforming: usize,
    /// Whether nothing moves because something did a moment ago, see [`OptimizeSettings::settle_minutes`].
    pub settling: bool,
    /// The steps.
    pub actions: Vec<Action>,
}

impl Improvement {
    /// Milliseconds saved over the horizon on a shard where a request takes so long and fails so often.
    fn saved(&self, latency_ms: f64, error_rate: f64, settings: &OptimizeSettings) -> f64 {
        self.requests * (self.latency_ms - latency_ms + (self.error_rate - error_rate) * settings.failure_ms)
    }

    /// The same with what another shard saves.
    fn on(self, there: &Expectation, settings: &OptimizeSettings) -> Self {
        let saved = |latency_ms: f64| self.saved(latency_ms, there.error_rate, settings);
        Self { net_benefit: saved(there.latency_ms), low: saved(there.high_ms), high: saved(there.low_ms), ..self }
    }
}

impl Optimization {
    fn pays(&self, settings: &OptimizeSettings) -> bool {
        self.expected_improvement.net_benefit > self.migration_cost * (1.0 + settings.hysteresis)
    }
}

/// Who is not to be offered anything.
struct Barred<'a> {
    /// Where functions do badly.
    bad: BTreeSet<(&'a FunctionId, &'a ShardId)>,
    /// Shards that took something within the cooldown.
    took: BTreeSet<&'a ShardId>,
    /// When the cooldown began.
    cooling: Timestamp,
}

impl OptimizeProblem<'_> {
    /// Finds what does badly and where it would do better.
    ///
    /// # Errors
    /// Settings out of range, or a pair of function and shard that is there twice.
    pub fn solve(&self, settings: &OptimizeSettings) -> Result<OptimizationPlan, PlanError> {
        settings.check()?;
        let mut cells = self.cells.to_vec();
        cells.sort_by(|a, b| (&a.function, &a.shard).cmp(&(&b.function, &b.shard)));
        let same = |pair: &&[Cell]| pair[0].function == pair[1].function && pair[0].shard == pair[1].shard;
        if let Some(pair) = cells.windows(2).find(same) {
            let field = format!("cells[{} on {}]", pair[0].function, pair[0].shard);
            return Err(InvalidInput::new(&field, "is there twice").into());
        }
        let faults = faults(&cells, settings);
        let ago = |minutes: f64| self.now.plus_millis(-minutes * 60_000.0);
        let cooling = ago(settings.cooldown_minutes);
        let barred = Barred {
            bad: faults.keys().map(|cell| (&cells[*cell].function, &cells[*cell].shard)).collect(),
            took: self.ledger.touched_since(cooling).1,
            cooling,
        };
        let settling = self.ledger.went_anywhere_since(ago(settings.settle_minutes));
        let mut found: Vec<(Optimization, f64)> = faults
            .iter()
            .filter(|_| !settling)
            .filter_map(|(place, faults)| self.opportunity(&cells[*place], &cells, faults, &barred, settings))
            .collect();
        // Stable: equal ones stay in the order of functions and shards.
        found.sort_by(|a, b| worth(&b.0).total_cmp(&worth(&a.0)));
        let best_possible = self.best_possible(&found);
        // Where room is scarce, what is worth most for the room that it takes may come to more than what is worth most.
        let mut by_room = found.clone();
        let density = |(one, cores): &(Optimization, f64)| worth(one) / cores.max(1e-12);
        by_room.sort_by(|a, b| density(b).total_cmp(&density(a)));
        let (by_worth, mut by_room) = (self.with_room(found, settings), self.with_room(by_room, settings));
        by_room.sort_by(|a, b| worth(b).total_cmp(&worth(a)));
        let optimizations = if all_of(&by_room) > all_of(&by_worth) * (1.0 + 1e-9) { by_room } else { by_worth };
        Ok(OptimizationPlan {
            estimated_benefit: optimizations.iter().map(|one| one.expected_improvement.net_benefit).sum(),
            estimated_migration_time: optimizations.iter().map(|one| one.migration_cost).sum(),
            proven_gap: if best_possible > 0.0 { (1.0 - all_of(&optimizations) / best_possible).max(0.0) } else { 0.0 },
            underperforming: faults.len(),
            settling,
            actions: optimizations.iter().map(|one| action(one, settings)).collect(),
            optimizations,
        })
    }

    /// The opportunity and the cores that it takes along, when it pays.
    fn opportunity(
        &self,
        cell: &Cell,
        cells: &[Cell],
        faults: &[Fault],
        barred: &Barred<'_>,
        settings: &OptimizeSettings,
    ) -> Option<(Optimization, f64)> {
        let movable = self.functions.get(&cell.function)?;
        // What the window knows of a shard that it left meanwhile, or that is drained, is history.
        let since = self.since.min(barred.cooling);
        if self.ledger.left_since(&cell.function, &cell.shard, since) || self.ledger.is_drained(&cell.shard) {
            return None;
        }
        let now_ms = typical_ms(cell, cells);
        let now_errors = cell.seen.error_rate()?;
        let minutes = (self.now.millis_since(self.since) / 60_000.0).max(1.0 / 60.0);
        let requests = cell.seen.requests / minutes * settings.horizon_minutes;
        let (latency_ms, error_rate) = (now_ms, now_errors);
        let here = Improvement { net_benefit: 0.0, low: 0.0, high: 0.0, latency_ms, error_rate, requests };
        let may = |shard: &ShardId| {
            *shard != cell.shard
                && !barred.bad.contains(&(&cell.function, shard))
                && !barred.took.contains(shard)
                && !self.ledger.left_since(&cell.function, shard, barred.cooling)
                && movable.allowed.as_ref().is_none_or(|allowed| allowed.contains(shard))
        };
        let least = requests * (now_ms + now_errors * settings.failure_ms) * settings.hysteresis;
        let mut better: Vec<(&ShardId, Expectation)> = self
            .free_cores
            .keys()
            .filter(|shard| may(shard))
            .filter_map(|shard| Some((shard, self.expected.expected(&cell.function, shard)?)))
            .filter(|(_, there)| {
                let there = here.on(there, settings);
                there.net_benefit >= least && there.net_benefit > 0.0 && there.low > 0.0
            })
            .collect();
        better.sort_by(|a, b| {
            let of = |there: &Expectation| here.saved(there.latency_ms, there.error_rate, settings);
            of(&b.1).total_cmp(&of(&a.1)).then(a.0.cmp(b.0))
        });
        let recommended = better.iter().map(|(shard, there)| RecommendedShard {
            shard: (*shard).clone(),
            latency_ms: there.latency_ms,
            error_rate: there.error_rate,
        });
        let optimization = Optimization {
            function_name: cell.function.clone(),
            current_shard: cell.shard.clone(),
            faults: faults.to_vec(),
            recommended_shards: recommended.collect(),
            expected_improvement: here.on(&better.first()?.1, settings),
            migration_cost: migration_cost(cell, movable, minutes, settings),
        };
        optimization.pays(settings).then_some((optimization, cell.seen.busy_ms / (minutes * 60_000.0)))
    }
}

/// Mean latency of a cell on the scale of its function: the geometric mean with what tails add everywhere, so that one
/// request that took for ever moves nothing.
fn typical_ms(cell: &Cell, cells: &[Cell]) -> f64 {
    let mut all = crate::Observed::default();
    let first = cells.partition_point(|other| other.function < cell.function);
    cells[first..].iter().take_while(|other| other.function == cell.function).for_each(|other| all.merge(&other.seen));
    if cell.seen.total_ln.count > 0.0 { cell.seen.total_ln.mean.exp() * all.tail() } else { 0.0 }
}

/// State to move, and loads on the new shard with the requests that wait for them.
fn migration_cost(cell: &Cell, movable: &Movable, minutes: f64, settings: &OptimizeSettings) -> f64 {
    let load_ms = movable.load_ms.unwrap_or(settings.unknown_load_ms);
    let busy = cell.seen.busy_ms / (minutes * 60_000.0);
    let instances = busy.ceil().max(1.0);
    let waiting = cell.seen.requests / (minutes * 60_000.0) * load_ms / 2.0;
    movable.memory_mb * settings.state_ms_per_mb + (instances + waiting) * load_ms
}

fn action(one: &Optimization, settings: &OptimizeSettings) -> Action {
    let words: Vec<String> = one
        .faults
        .iter()
        .map(|fault| match fault {
            Fault::Latency { ratio } => format!("latency {ratio:.1} times that of other shards"),
            Fault::Errors { ratio } => format!("{ratio:.1} times as many failures as on other shards"),
            Fault::Throughput { ratio } => format!("{:.0} % of the throughput of a core elsewhere", ratio * 100.0),
        })
        .collect();
    let improvement = &one.expected_improvement;
    let less = |saved: f64| saved - one.migration_cost;
    Action::MigrateFunction {
        function_name: one.function_name.clone(),
        from_shard: one.current_shard.clone(),
        to_shard: one.recommended_shards[0].shard.clone(),
        reason: format!("{}; pays within {:.0} minutes", words.join(", "), settings.horizon_minutes),
        estimated_benefit: Estimate::new(
            less(improvement.net_benefit),
            less(improvement.low),
            less(improvement.high),
            Unit::LatencyMs,
        ),
    }
}

#[cfg(test)]
mod tests;
