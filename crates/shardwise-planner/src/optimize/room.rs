//! Who gets the room that there is, and what could be saved at most.

use std::collections::BTreeMap;

use shardwise_types::FunctionId;

use super::{Optimization, OptimizeProblem, OptimizeSettings, RecommendedShard};

impl OptimizeProblem<'_> {
    /// What all moves could save at most, each to where it saves most, if they could be split and all room were one.
    pub(super) fn best_possible(&self, found: &[(Optimization, f64)]) -> f64 {
        let most = self.free_cores.values().copied().fold(0.0, f64::max);
        let mut left: f64 = self.free_cores.values().sum();
        let mut fitting: Vec<(f64, f64)> = found
            .iter()
            .filter(|(_, cores)| *cores <= most)
            .map(|(one, cores)| (worth(one), cores.max(1e-12)))
            .collect();
        fitting.sort_by(|a, b| (b.0 / b.1).total_cmp(&(a.0 / a.1)));
        let taken = fitting.into_iter().map(|(worth, cores)| {
            let share = (left / cores).min(1.0);
            left -= cores * share;
            worth * share
        });
        taken.sum()
    }

    /// Gives room away in their order, and keeps to the caps. What does not fit on the best goes to the next that
    /// still pays: recommendations before it are dropped.
    pub(super) fn with_room(&self, found: Vec<(Optimization, f64)>, settings: &OptimizeSettings) -> Vec<Optimization> {
        let hour = self.now.plus_millis(-3_600_000.0);
        let mut free = self.free_cores.clone();
        let mut moves: BTreeMap<FunctionId, usize> = BTreeMap::new();
        let mut kept = vec![];
        for (mut one, cores) in found {
            let moved = moves
                .entry(one.function_name.clone())
                .or_insert_with(|| self.ledger.moves_since(&one.function_name, hour));
            let fits = |shard: &RecommendedShard| free.get(&shard.shard).is_some_and(|free| *free >= cores);
            let Some(first) = one.recommended_shards.iter().position(fits) else { continue };
            if *moved >= settings.most_moves_per_function_hour || !self.still_pays(&mut one, first, settings) {
                continue;
            }
            *moved += 1;
            one.recommended_shards.truncate(settings.most_recommended.max(1));
            if let Some(free) = free.get_mut(&one.recommended_shards[0].shard) {
                *free -= cores;
            }
            kept.push(one);
        }
        kept
    }

    /// Makes a later recommendation the first, with what it saves.
    fn still_pays(&self, one: &mut Optimization, first: usize, settings: &OptimizeSettings) -> bool {
        let shard = one.recommended_shards[first].shard.clone();
        let Some(there) = self.expected.expected(&one.function_name, &shard) else { return false };
        one.expected_improvement = one.expected_improvement.on(&there, settings);
        one.recommended_shards.drain(..first);
        one.pays(settings)
    }
}

/// What a move saves beyond what it costs.
pub(super) fn worth(one: &Optimization) -> f64 {
    one.expected_improvement.net_benefit - one.migration_cost
}

pub(super) fn all_of(moves: &[Optimization]) -> f64 {
    moves.iter().map(worth).sum()
}
