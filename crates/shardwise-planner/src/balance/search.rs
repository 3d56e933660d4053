//! The search: greedy by what a move adds, then local changes, then, on small problems, branch and bound.
//!
//! The worth of a set of moves is submodular (relief counts up to the excess only), so that greedy stands on firm ground, and
//! where no single further move helps, no set of further moves does: that is what makes plans idempotent.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::state::Reduced;

/// A change must add this much, in core-minutes, or it is rounding.
const LEAST_GAIN: f64 = 1e-9;
/// Sums of sizes may pass room by this much: rounding, too.
const ROUNDING: f64 = 1e-9;
/// Pieces × targets up to which branch and bound looks for the exact optimum, and nodes that it may visit.
const SMALL: usize = 160;
const MOST_NODES: usize = 50_000;
/// Branch and bound stops where no more than this share can be gained.
const CLOSE_ENOUGH: f64 = 1e-4;
/// Trial changes of the local search at most.
const MOST_TRIALS: usize = 30_000_000;

/// What is moved where, and what that leaves of goals and room.
#[derive(Debug, Clone)]
struct State {
    /// For each piece the target that it goes to.
    to: Vec<Option<usize>>,
    relief: Vec<(f64, f64)>,
    room: Vec<(f64, f64)>,
    function_moves: Vec<usize>,
    moves: usize,
    worth: f64,
}

pub(super) struct Search<'p, 'a> {
    problem: &'p Reduced<'a>,
    /// Pieces of each source.
    of_source: Vec<Vec<usize>>,
    /// Greedy takes what adds most for the room that it takes, or what adds most.
    by_room: bool,
    /// Pieces go where the least room is left, or the most.
    tight: bool,
    trials: usize,
    /// All room at the beginning: cores and MB.
    room: (f64, f64),
}

/// A piece in the heap of greedy: the highest rank first, then the smallest.
struct Candidate {
    rank: f64,
    size: f64,
    piece: usize,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank.total_cmp(&other.rank).then(other.size.total_cmp(&self.size)).then(other.piece.cmp(&self.piece))
    }
}
impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Candidate {}

impl<'p, 'a> Search<'p, 'a> {
    pub(super) fn new(problem: &'p Reduced<'a>) -> Self {
        let mut of_source = vec![vec![]; problem.sources.len()];
        for (place, piece) in problem.pieces.iter().enumerate() {
            of_source[piece.source].push(place);
        }
        let room = problem.targets.iter().fold((0.0, 0.0), |sum, it| (sum.0 + it.cores, sum.1 + it.memory_mb));
        Self { problem, room, of_source, by_room: false, tight: false, trials: 0 }
    }

    /// The moves as (piece, target), in the order of pieces.
    pub(super) fn run(mut self) -> Vec<(usize, usize)> {
        let mut state = self.heuristic();
        if self.problem.pieces.len() * self.problem.targets.len() <= SMALL {
            state = self.branch_and_bound(state);
            self.improve(&mut state);
        }
        state.to.iter().enumerate().filter_map(|(piece, to)| to.map(|target| (piece, target))).collect()
    }

    /// What large problems get.
    fn heuristic(&mut self) -> State {
        let ways = [(false, false), (true, false), (false, true), (true, true)];
        let mut best: Option<State> = None;
        for (by_room, tight) in ways {
            (self.by_room, self.tight) = (by_room, tight);
            let mut state = self.empty();
            self.greedy(&mut state);
            self.improve(&mut state);
            if best.as_ref().is_none_or(|best| state.worth > best.worth + LEAST_GAIN) {
                best = Some(state);
            }
        }
        best.expect("there is more than one way")
    }

    fn empty(&self) -> State {
        State {
            to: vec![None; self.problem.pieces.len()],
            relief: vec![(0.0, 0.0); self.problem.sources.len()],
            room: self.problem.targets.iter().map(|target| (target.cores, target.memory_mb)).collect(),
            function_moves: self.problem.function_moves.clone(),
            moves: self.problem.moves,
            worth: 0.0,
        }
    }

    fn relieved(&self, source: usize, relief: (f64, f64)) -> f64 {
        let goal = &self.problem.sources[source];
        relief.0.min(goal.cpu) + relief.1.min(goal.memory)
    }

    /// What moving a piece adds, wherever it goes.
    fn gain(&self, state: &State, piece: usize) -> f64 {
        let it = &self.problem.pieces[piece];
        let relief = state.relief[it.source];
        let after = (relief.0 + it.cpu, relief.1 + it.memory);
        (self.relieved(it.source, after) - self.relieved(it.source, relief)) * self.problem.minutes - it.price
    }

    fn fits(&self, state: &State, piece: usize, target: usize) -> bool {
        let part = self.problem.pieces[piece].part;
        let (cores, memory_mb) = state.room[target];
        part.cores <= cores + ROUNDING && part.memory_mb <= memory_mb + ROUNDING
    }

    fn may_move(&self, state: &State, piece: usize) -> bool {
        state.moves > 0 && state.function_moves[self.problem.pieces[piece].function] > 0
    }

    fn targets(&self, piece: usize) -> Vec<usize> {
        let allowed = &self.problem.pieces[piece].allowed;
        allowed.clone().unwrap_or_else(|| (0..self.problem.targets.len()).collect())
    }

    /// The room that a piece takes, relative to all that there is, in cores and in memory.
    fn size(&self, piece: usize) -> f64 {
        let part = self.problem.pieces[piece].part;
        (part.cores / self.room.0 + part.memory_mb / self.room.1).max(1e-9)
    }

    /// The target with the most room left that the piece fits on, or with the least.
    fn place_for(&self, state: &State, piece: usize) -> Option<usize> {
        let best = |best: Option<usize>, target: usize| {
            let better = best.is_none_or(|best| match self.tight {
                true => state.room[target].0 < state.room[best].0,
                false => state.room[target].0 > state.room[best].0,
            });
            if better && self.fits(state, piece, target) { Some(target) } else { best }
        };
        match &self.problem.pieces[piece].allowed {
            Some(allowed) => allowed.iter().copied().fold(None, best),
            None => (0..self.problem.targets.len()).fold(None, best),
        }
    }

    fn put(&self, state: &mut State, piece: usize, target: usize) {
        let it = &self.problem.pieces[piece];
        state.worth += self.gain(state, piece);
        state.to[piece] = Some(target);
        state.relief[it.source].0 += it.cpu;
        state.relief[it.source].1 += it.memory;
        state.room[target].0 -= it.part.cores;
        state.room[target].1 -= it.part.memory_mb;
        state.function_moves[it.function] -= 1;
        state.moves -= 1;
    }

    fn take(&self, state: &mut State, piece: usize) {
        let it = &self.problem.pieces[piece];
        let Some(target) = state.to[piece].take() else { return };
        state.relief[it.source].0 -= it.cpu;
        state.relief[it.source].1 -= it.memory;
        state.room[target].0 += it.part.cores;
        state.room[target].1 += it.part.memory_mb;
        state.function_moves[it.function] += 1;
        state.moves += 1;
        state.worth -= self.gain(state, piece);
    }

    /// Takes the piece that adds most, again and again. Ranks only fall, so that a stale one is an upper bound.
    fn greedy(&mut self, state: &mut State) {
        let candidate = |search: &Self, state: &State, piece: usize| {
            let it = &search.problem.pieces[piece];
            let gain = search.gain(state, piece);
            let rank = if search.by_room { gain / search.size(piece) } else { gain };
            Candidate { rank, size: it.part.cores, piece }
        };
        let unmoved = (0..self.problem.pieces.len()).filter(|piece| state.to[*piece].is_none());
        let mut heap: BinaryHeap<Candidate> = unmoved.map(|piece| candidate(self, state, piece)).collect();
        while let Some(top) = heap.pop() {
            if top.rank <= LEAST_GAIN {
                break;
            }
            let now = candidate(self, state, top.piece);
            if now.rank < top.rank {
                heap.push(now);
            } else if self.may_move(state, top.piece)
                && let Some(target) = self.place_for(state, top.piece)
            {
                self.put(state, top.piece, target);
            }
        }
    }

    /// Local changes until none helps, or the trials are used up.
    fn improve(&mut self, state: &mut State) {
        loop {
            let before = state.worth;
            for piece in 0..self.problem.pieces.len() {
                match state.to[piece] {
                    Some(_) => self.drop_or_swap(state, piece),
                    None => self.add(state, piece),
                }
            }
            if state.worth <= before + LEAST_GAIN || self.trials > MOST_TRIALS {
                break;
            }
        }
        // What the last change made worthless goes, and what it made room for comes: the plan ends where nothing single helps.
        for piece in 0..self.problem.pieces.len() {
            if state.to[piece].is_some() {
                self.drop_worthless(state, piece);
            }
        }
        self.greedy(state);
    }

    fn drop_worthless(&self, state: &mut State, piece: usize) -> bool {
        let Some(target) = state.to[piece] else { return false };
        self.take(state, piece);
        let worthless = self.gain(state, piece) <= LEAST_GAIN;
        if !worthless {
            self.put(state, piece, target);
        }
        worthless
    }

    /// Drops a move that adds nothing, or exchanges it for a better one of the same source.
    fn drop_or_swap(&mut self, state: &mut State, piece: usize) {
        if self.drop_worthless(state, piece) || self.trials > MOST_TRIALS {
            return;
        }
        let Some(target) = state.to[piece] else { return };
        self.take(state, piece);
        let mut best = (self.gain(state, piece) + LEAST_GAIN, piece, target);
        for &other in &self.of_source[self.problem.pieces[piece].source] {
            self.trials += 1;
            if state.to[other].is_some() || other == piece || !self.may_move(state, other) {
                continue;
            }
            let gain = self.gain(state, other);
            if gain > best.0
                && let Some(target) = self.place_for(state, other)
            {
                best = (gain, other, target);
            }
        }
        self.put(state, best.1, best.2);
    }

    /// Adds a move: where there is room, where room can be made by moving another on, or in the place of a lesser one.
    fn add(&mut self, state: &mut State, piece: usize) {
        if self.gain(state, piece) <= LEAST_GAIN || self.trials > MOST_TRIALS {
            return;
        }
        if self.may_move(state, piece)
            && let Some(target) = self.place_for(state, piece)
        {
            self.put(state, piece, target);
            return;
        }
        let moved: Vec<usize> = (0..state.to.len()).filter(|other| state.to[*other].is_some()).collect();
        for other in moved {
            self.trials += 1;
            if self.makes_way(state, piece, other) {
                return;
            }
        }
    }

    /// Tries the piece with another one out of its place: the other elsewhere, or not moved at all.
    fn makes_way(&mut self, state: &mut State, piece: usize, other: usize) -> bool {
        let Some(target) = state.to[other] else { return false };
        let before = state.worth;
        self.take(state, other);
        let goes = self.may_move(state, piece)
            && self.fits(state, piece, target)
            && self.problem.pieces[piece].allowed.as_ref().is_none_or(|allowed| allowed.contains(&target));
        if goes {
            self.put(state, piece, target);
            if self.gain(state, other) > LEAST_GAIN
                && self.may_move(state, other)
                && let Some(elsewhere) = self.place_for(state, other)
            {
                self.put(state, other, elsewhere);
            }
            if state.worth > before + LEAST_GAIN {
                return true;
            }
            self.take(state, other);
            self.take(state, piece);
        }
        self.put(state, other, target);
        false
    }

    fn branch_and_bound(&mut self, incumbent: State) -> State {
        let mut order: Vec<usize> = (0..self.problem.pieces.len()).collect();
        let empty = self.empty();
        order.sort_by(|a, b| self.gain(&empty, *b).total_cmp(&self.gain(&empty, *a)).then(a.cmp(b)));
        let mut walk = Walk { search: self, order, best: incumbent, nodes: 0 };
        walk.visit(&mut empty.clone(), 0);
        walk.best
    }
}

/// A depth-first walk over all sets of moves, cut where the bound promises nothing.
struct Walk<'s, 'p, 'a> {
    search: &'s Search<'p, 'a>,
    order: Vec<usize>,
    best: State,
    nodes: usize,
}

impl Walk<'_, '_, '_> {
    fn visit(&mut self, state: &mut State, depth: usize) {
        self.nodes += 1;
        if state.worth > self.best.worth + LEAST_GAIN {
            self.best = state.clone();
        }
        let Some(&piece) = self.order.get(depth) else { return };
        let hopeless = self.bound(state, depth) <= self.best.worth + CLOSE_ENOUGH * self.best.worth.abs() + LEAST_GAIN;
        if hopeless || self.nodes > MOST_NODES {
            return;
        }
        if self.search.may_move(state, piece) && self.search.gain(state, piece) > LEAST_GAIN {
            let mut tried: Vec<(f64, f64)> = vec![];
            for target in self.search.targets(piece) {
                // Two targets with the same room are one to whoever may go to all.
                let same = self.search.problem.pieces.iter().all(|piece| piece.allowed.is_none())
                    && tried.contains(&state.room[target]);
                if !same && self.search.fits(state, piece, target) {
                    tried.push(state.room[target]);
                    let room = state.clone();
                    self.search.put(state, piece, target);
                    self.visit(state, depth + 1);
                    *state = room;
                }
            }
        }
        self.visit(state, depth + 1);
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

#[cfg(test)]
mod tests;
