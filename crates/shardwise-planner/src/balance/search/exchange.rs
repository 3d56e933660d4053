//! Fills targets to the brim: a piece that is not moved comes, alone or for one that is there.
//!
//! Where room is scarce there are many more pieces than are moved, so that one of about the right size is nearly always found.
//! Pieces are looked up by what they cost at the prices of the target, from what its room is worth downward.

use std::collections::BTreeMap;

use super::super::bound::Bound;
use super::super::state::ROUNDING;
use super::local::MOST_TRIALS;
use super::{LEAST_GAIN, Search, State};

/// Pieces that are looked at for each place that they could come to: of about the right size, and as many of the best bargains,
/// which are these at the beginning of a round.
const MOST_LOOKED_AT: usize = 100;
const MOST_BARGAINS: usize = 2_000;
/// Rounds over all targets, and exchanges on each in a round for each piece there.
const MOST_ROUNDS: usize = 6;
const MOST_EXCHANGES: usize = 4;

/// How much of the prices of room and moves counts, step by step: while most of it does, what takes much for what it adds goes,
/// and what needs little of what is scarce comes to where it is; at last only worth counts.
const WEIGHTS: [f64; 5] = [0.9, 0.9, 0.9, 0.0, 0.0];

/// Pieces by what room for them costs on targets of one price.
type ByCost = Vec<(f64, usize)>;

impl Search<'_, '_> {
    /// Exchanges until none helps; what room is left then goes to whatever fits. Never makes a plan worse.
    pub(super) fn exchange_all(&mut self, state: &mut State, order: &[usize]) {
        let Some(relaxed) = self.relaxed.clone() else { return };
        let before = state.clone();
        let mut lists: BTreeMap<(u64, u64), ByCost> = BTreeMap::new();
        for (core, mb) in &relaxed.room {
            lists.entry((core.to_bits(), mb.to_bits())).or_insert_with(|| {
                let cost = |piece: usize| {
                    let part = self.problem.pieces[piece].part;
                    (part.cores * core + part.memory_mb * mb, piece)
                };
                let mut list: ByCost = order.iter().map(|piece| cost(*piece)).collect();
                list.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                list
            });
        }
        for weight in WEIGHTS {
            for _ in 0..MOST_ROUNDS {
                let mut changes = 0;
                let bargains: Vec<usize> = self
                    .hopeful(state)
                    .into_iter()
                    .filter(|piece| state.to[*piece].is_none())
                    .take(MOST_BARGAINS)
                    .collect();
                let mut on: Vec<Vec<usize>> = vec![vec![]; self.problem.targets.len()];
                for (piece, to) in state.to.iter().enumerate() {
                    to.iter().for_each(|target| on[*target].push(piece));
                }
                for (target, there) in on.iter_mut().enumerate() {
                    let (core, mb) = relaxed.room[target];
                    if (core > 0.0 || mb > 0.0) && self.trials <= MOST_TRIALS {
                        let list = &lists[&(core.to_bits(), mb.to_bits())];
                        changes += self.exchange(state, (target, there), &relaxed, (list, &bargains), weight);
                    }
                }
                if changes == 0 {
                    break;
                }
            }
            self.greedy(state);
        }
        // While prices count, worth may be lost.
        if state.worth < before.worth {
            *state = before;
        }
    }

    /// The best exchange on a target, again and again; how many there were.
    fn exchange(
        &mut self,
        state: &mut State,
        (target, there): (usize, &mut Vec<usize>),
        relaxed: &Bound,
        lists: (&ByCost, &[usize]),
        weight: f64,
    ) -> usize {
        let most = MOST_EXCHANGES * (there.len() + 1);
        for change in 0..most {
            let mut best: Option<(f64, Option<usize>, Option<usize>)> = None;
            for goes in std::iter::once(None).chain((0..there.len()).map(Some)) {
                let mut lost = 0.0;
                if let Some(at) = goes {
                    self.take(state, there[at]);
                    lost = self.value(state, there[at], target, relaxed, weight);
                }
                let least = lost + best.map_or(0.0, |best| best.0) + LEAST_GAIN;
                let comes = self.comes(state, target, relaxed, lists, least.max(0.0), weight);
                let gain = comes.map_or(0.0, |(value, _)| value) - lost;
                if gain > best.map_or(0.0, |best| best.0) + LEAST_GAIN {
                    best = Some((gain, goes, comes.map(|(_, piece)| piece)));
                }
                if let Some(at) = goes {
                    self.put(state, there[at], target);
                }
            }
            let Some((_, goes, comes)) = best else { return change };
            if let Some(at) = goes {
                self.take(state, there.swap_remove(at));
            }
            if let Some(piece) = comes {
                self.put(state, piece, target);
                there.push(piece);
            }
        }
        most
    }

    /// What moving a piece to a target adds, less what it costs at some share of the prices.
    fn value(&self, state: &State, piece: usize, target: usize, relaxed: &Bound, weight: f64) -> f64 {
        self.gain(state, piece) - weight * relaxed.cost_on(piece, target, self.problem)
    }

    /// The piece of most value that fits on a target, of those that cost about as much as there is room and of bargains;
    /// none below `least`.
    fn comes(
        &mut self,
        state: &State,
        target: usize,
        relaxed: &Bound,
        (by_cost, bargains): (&ByCost, &[usize]),
        least: f64,
        weight: f64,
    ) -> Option<(f64, usize)> {
        let ((cores, memory_mb), (core, mb)) = (state.room[target], relaxed.room[target]);
        let room = (cores + ROUNDING) * core + (memory_mb + ROUNDING) * mb;
        let end = by_cost.partition_point(|(cost, _)| *cost <= room);
        let unmoved = by_cost[..end].iter().rev().map(|(_, piece)| *piece).filter(|piece| state.to[*piece].is_none());
        let mut best = (least, None);
        let bargains = bargains.iter().copied().filter(|piece| state.to[*piece].is_none());
        for piece in unmoved.take(MOST_LOOKED_AT).chain(bargains.take(MOST_LOOKED_AT)) {
            self.trials += 1;
            if self.fits(state, piece, target)
                && self.may_move(state, piece)
                && self.problem.pieces[piece].is_allowed(target)
            {
                let value = self.value(state, piece, target, relaxed, weight);
                if value > best.0 {
                    best = (value, Some(piece));
                }
            }
        }
        best.1.map(|piece| (best.0, piece))
    }
}
