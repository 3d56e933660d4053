//! Branch and bound: the exact optimum of small problems.

use super::super::bound::Bound;
use super::{LEAST_GAIN, Search, State};

/// Nodes that may be visited.
const MOST_NODES: usize = 50_000;
/// Stops where no more than this share can be gained.
pub(super) const CLOSE_ENOUGH: f64 = 1e-4;

impl Search<'_, '_> {
    /// The best set of moves, and whether it is proven to be within [`CLOSE_ENOUGH`] of the best possible.
    pub(super) fn branch_and_bound(&self, incumbent: State, relaxed: &Bound) -> (State, bool) {
        let mut order: Vec<usize> = (0..self.problem.pieces.len()).collect();
        let empty = self.empty();
        order.sort_by(|a, b| self.gain(&empty, *b).total_cmp(&self.gain(&empty, *a)).then(a.cmp(b)));
        let mut walk = Walk { search: self, relaxed, order, best: incumbent, nodes: 0 };
        walk.visit(&mut empty.clone(), 0, 0.0);
        (walk.best, walk.nodes <= MOST_NODES)
    }
}

/// A depth-first walk over all sets of moves, cut where the bound promises nothing.
struct Walk<'s, 'p, 'a> {
    search: &'s Search<'p, 'a>,
    relaxed: &'s Bound,
    order: Vec<usize>,
    best: State,
    nodes: usize,
}

impl Walk<'_, '_, '_> {
    /// `regret` is what the decisions so far took off the relaxed bound.
    fn visit(&mut self, state: &mut State, depth: usize, regret: f64) {
        self.nodes += 1;
        if state.worth > self.best.worth + LEAST_GAIN {
            self.best = state.clone();
        }
        let Some(&piece) = self.order.get(depth) else { return };
        let enough = self.best.worth + CLOSE_ENOUGH * self.best.worth.abs() + LEAST_GAIN;
        if self.nodes > MOST_NODES || self.relaxed.worth - regret <= enough || self.bound(state, depth) <= enough {
            return;
        }
        if self.search.may_move(state, piece) && self.search.gain(state, piece) > LEAST_GAIN {
            let mut tried: Vec<(f64, f64)> = vec![];
            let mut targets = self.search.targets(piece);
            let regret_of = |target: &usize| self.relaxed.regret(piece, Some(*target), self.search.problem);
            // Stable: equal ones stay in the order of names.
            targets.sort_by(|a, b| regret_of(a).total_cmp(&regret_of(b)));
            for target in targets {
                // Two targets with the same room are one to whoever may go to all.
                let same = self.search.problem.pieces.iter().all(|piece| piece.allowed.is_none())
                    && tried.contains(&state.room[target]);
                if !same && self.search.fits(state, piece, target) {
                    tried.push(state.room[target]);
                    let room = state.clone();
                    self.search.put(state, piece, target);
                    self.visit(state, depth + 1, regret + regret_of(&target));
                    *state = room;
                }
            }
        }
        let stays = self.relaxed.regret(piece, None, self.search.problem);
        self.visit(state, depth + 1, regret + stays);
    }

    /// The worth that could still be reached if room were no matter and pieces could be split, the cheapest relief first.
    fn bound(&self, state: &State, depth: usize) -> f64 {
        let problem = self.search.problem;
        let mut left: Vec<f64> = (0..problem.sources.len())
            .map(|source| {
                let (goal, relief) = (&problem.sources[source], state.relief[source]);
                (goal.cpu - relief.0).max(0.0) + (goal.memory - relief.1).max(0.0)
            })
            .collect();
        let mut rest: Vec<(f64, f64, usize)> = self.order[depth..]
            .iter()
            .map(|piece| {
                let it = &problem.pieces[*piece];
                let goal = &problem.sources[it.source];
                let relief = it.cpu.min(goal.cpu) + it.memory.min(goal.memory);
                (it.price / relief.max(f64::MIN_POSITIVE), relief, it.source)
            })
            .collect();
        rest.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut worth = state.worth;
        for (price, relief, source) in rest {
            let used = relief.min(left[source]);
            if price < problem.minutes {
                left[source] -= used;
                worth += used * (problem.minutes - price);
            }
        }
        worth
    }
}
