//! The predictive balancer (S8): shards that will run out of something, and the moves that prevent it, all solved together.
//!
//! What is maximised: core-minutes of overload avoided within the horizon, less the price of the moves. A shard's overload
//! is what its expected peak lies above a threshold, of cores and of memory, both counted in cores (a tenth of the memory
//! is a tenth of the cores). Post-conditions, each with a property test:
//!
//! | name | what holds |
//! |---|---|
//! | sources | only shards with a bottleneck give |
//! | never fights | no shard both gives and takes; no function on a shard moves twice |
//! | room | no shard that takes is pushed above its threshold less the headroom, by the upper end of its forecast |
//! | pays | each move alone is worth more than its price, all others as they are |
//! | cooldown | no function comes to a shard that it left, no relieved shard takes, no shard that took gives; none takes while it is not known who took |
//! | caps | no more moves per function and altogether in the hour, past ones counted |
//! | idempotent | solved again right after it was carried out, there is nothing to do |

mod bound;
mod problem;
mod search;
mod state;

use std::collections::BTreeMap;

use serde::Serialize;
use shardwise_types::{ShardId, Timestamp};

pub use problem::{BalanceProblem, BalanceSettings, Bottleneck, BottleneckKind, Expected, Part, ShardOutlook};
use search::Search;
use state::{Goal, Reduced, goals, reduce};

use crate::{Action, Estimate, Metric, PlanError, SwitchedOff, Unit};

/// A series that the balancer leaves alone, because no forecast of it is worth acting on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SwitchedOffSeries {
    /// The shard.
    pub shard_id: ShardId,
    /// What of it.
    pub metric: Metric,
    /// Why.
    pub why: SwitchedOff,
}

/// What to move, and what it is good for.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancingPlan {
    /// What is expected of each shard, by name.
    pub predictions: Vec<ShardOutlook>,
    /// What will run out, by shard.
    pub bottlenecks: Vec<Bottleneck>,
    /// The moves, the most useful first.
    pub actions: Vec<Action>,
    /// Core-minutes of overload avoided, less the price of the moves; with its interval, where the specification has a number.
    pub estimated_benefit: Estimate,
    /// Proven: no set of moves that keeps to the rules is worth more than `estimated_benefit / (1 - proven_gap)`; in [0, 1].
    pub proven_gap: f64,
    /// When to carry it out.
    pub execution_time: Timestamp,
    /// Series that are left alone.
    pub switched_off: Vec<SwitchedOffSeries>,
    /// Whether no shard takes anything because something moved a moment ago, nobody knows where, see
    /// [`BalanceSettings::settle_minutes`].
    pub settling: bool,
}

impl BalanceProblem<'_> {
    /// Finds bottlenecks and the moves that relieve them.
    ///
    /// # Errors
    /// Settings out of range; shards or parts that are there twice or hold no numbers.
    pub fn solve(&self, settings: &BalanceSettings) -> Result<LoadBalancingPlan, PlanError> {
        settings.check()?;
        self.check()?;
        let mut predictions = self.shards.clone();
        predictions.sort_by(|a, b| a.id.cmp(&b.id));
        // Sums of floats hang on their order.
        let mut parts: Vec<&Part> = self.parts.iter().collect();
        parts.sort_by(|a, b| (&a.function, &a.shard).cmp(&(&b.function, &b.shard)));
        let (bottlenecks, goals) = goals(&predictions, &parts, settings);
        let reduced = reduce(self, &parts, &predictions, &goals, settings);
        let found = Search::new(&reduced).run();
        let actions = self.actions(&reduced, &found.moves, &goals, &bottlenecks, settings);
        Ok(LoadBalancingPlan {
            estimated_benefit: Estimate::sum(Unit::CoreMinutes, actions.iter().map(Action::estimated_benefit)),
            proven_gap: found.gap,
            switched_off: switched_off(&predictions),
            settling: self.is_settling(settings),
            predictions,
            bottlenecks,
            actions,
            execution_time: self.now.plus_millis(settings.execute_in_minutes * 60_000.0),
        })
    }

    fn actions(
        &self,
        reduced: &Reduced<'_>,
        moves: &[(usize, usize)],
        goals: &BTreeMap<&ShardId, Goal>,
        bottlenecks: &[Bottleneck],
        settings: &BalanceSettings,
    ) -> Vec<Action> {
        let mut actions: Vec<Action> = shares(reduced, moves)
            .into_iter()
            .map(|(part, target, worth)| {
                let piece = &reduced.pieces[part];
                let from = &piece.part.shard;
                let kinds: Vec<&str> = bottlenecks
                    .iter()
                    .filter(|bottleneck| bottleneck.shard_id == *from && bottleneck.excess_cores.value > 0.0)
                    .map(|bottleneck| meaning(bottleneck.kind))
                    .collect();
                let certain = goals.get(from).map_or((0.0, 1.0), |goal| goal.certainty);
                // What it costs is certain; what it saves is not.
                let price = piece.price;
                let saved = worth + price;
                Action::MigrateFunction {
                    function_name: piece.part.function.clone(),
                    from_shard: from.clone(),
                    to_shard: reduced.targets[target].id.clone(),
                    reason: format!(
                        "{} mitigation: {:.2} of {} cores' worth within {} minutes",
                        kinds.join(" and "),
                        piece.part.cores,
                        reduced.sources[piece.source].cores,
                        settings.horizon_minutes
                    ),
                    estimated_benefit: Estimate::new(
                        worth,
                        saved * certain.0 - price,
                        saved * certain.1 - price,
                        Unit::CoreMinutes,
                    ),
                }
            })
            .collect();
        let key = |action: &Action| match action {
            Action::MigrateFunction { function_name, from_shard, .. } => (function_name.clone(), from_shard.clone()),
            _ => unreachable!("the balancer only moves"),
        };
        actions.sort_by(|a, b| {
            b.estimated_benefit().value.total_cmp(&a.estimated_benefit().value).then_with(|| key(a).cmp(&key(b)))
        });
        actions
    }
}

/// What each move is worth when a shard's relief is shared among its moves by their size; sums to the plan's worth.
fn shares(reduced: &Reduced<'_>, moves: &[(usize, usize)]) -> Vec<(usize, usize, f64)> {
    let mut totals = vec![(0.0, 0.0); reduced.sources.len()];
    for (part, _) in moves {
        let piece = &reduced.pieces[*part];
        totals[piece.source].0 += piece.cpu;
        totals[piece.source].1 += piece.memory;
    }
    let share = |part: f64, total: f64, excess: f64| if total > 0.0 { part / total * total.min(excess) } else { 0.0 };
    moves
        .iter()
        .map(|(part, target)| {
            let piece = &reduced.pieces[*part];
            let (source, (cpu, memory)) = (&reduced.sources[piece.source], totals[piece.source]);
            let relief = share(piece.cpu, cpu, source.cpu) + share(piece.memory, memory, source.memory);
            (*part, *target, relief * reduced.minutes - piece.price)
        })
        .collect()
}

fn meaning(kind: BottleneckKind) -> &'static str {
    match kind {
        BottleneckKind::CpuExhaustion => "CPU exhaustion",
        BottleneckKind::MemoryExhaustion => "memory exhaustion",
        BottleneckKind::HighLatency => "high latency",
    }
}

fn switched_off(shards: &[ShardOutlook]) -> Vec<SwitchedOffSeries> {
    let of = |shard: &ShardOutlook| {
        let all = [
            (Metric::Cpu, shard.cpu),
            (Metric::Memory, shard.memory),
            (Metric::Latency, shard.latency_ms),
            (Metric::QueuePerCore, shard.queue_per_core),
        ];
        let id = shard.id.clone();
        all.into_iter().filter_map(move |(metric, expected)| {
            let why = expected?.switched_off?;
            Some(SwitchedOffSeries { shard_id: id.clone(), metric, why })
        })
    };
    shards.iter().flat_map(of).collect()
}

/// The outlook and the parts after some moves, as the next problem would have them: for trials, and for pictures of before
/// and after.
pub fn after_moves(shards: &[ShardOutlook], parts: &[Part], actions: &[Action]) -> (Vec<ShardOutlook>, Vec<Part>) {
    let (mut shards, mut parts) = (shards.to_vec(), parts.to_vec());
    for action in actions {
        let Action::MigrateFunction { function_name, from_shard, to_shard, .. } = action else { continue };
        let Some(at) = parts.iter().position(|part| part.function == *function_name && part.shard == *from_shard)
        else {
            continue;
        };
        let moved = parts.remove(at);
        for (id, sign) in [(from_shard, -1.0), (to_shard, 1.0)] {
            if let Some(shard) = shards.iter_mut().find(|shard| shard.id == *id) {
                add(&mut shard.cpu, sign * moved.cores / shard.cores);
                add(&mut shard.memory, sign * moved.memory_mb / shard.memory_mb);
            }
        }
        match parts.iter_mut().find(|part| part.function == *function_name && part.shard == *to_shard) {
            Some(there) => {
                there.cores += moved.cores;
                there.memory_mb = there.memory_mb.max(moved.memory_mb);
            }
            None => parts.push(Part { shard: to_shard.clone(), ..moved }),
        }
    }
    (shards, parts)
}

fn add(expected: &mut Option<Expected>, share: f64) {
    if let Some(expected) = expected {
        let moved = |value: f64| (value + share).max(0.0);
        (expected.value, expected.low, expected.high) =
            (moved(expected.value), moved(expected.low), moved(expected.high));
    }
}

#[cfg(test)]
mod tests;
