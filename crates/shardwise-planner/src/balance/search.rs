//! The search: greedy by what a move adds, then exchanges and local changes, then, on small problems, branch and bound.
//!
//! The worth of a set of moves is submodular (relief counts up to the excess only), so that greedy stands on firm ground, and
//! where no single further move helps, no set of further moves does: that is what makes plans idempotent.

mod exact;
mod exchange;
mod local;

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::rc::Rc;

use super::bound::{Bound, tighten};
use super::state::{ROUNDING, Reduced};
use exact::CLOSE_ENOUGH;
use local::MOST_TRIALS;

/// A change must add this much, in core-minutes, or it is rounding.
const LEAST_GAIN: f64 = 1e-9;
/// Pieces × targets up to which branch and bound looks for the exact optimum.
const SMALL: usize = 1_000;

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

/// What greedy takes first, and where it puts it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    /// What adds most.
    Most,
    /// What adds most for the room that it takes.
    MostForRoom,
    /// What adds most for what it takes at the prices of the relaxation, to where that is cheapest.
    MostForPrice,
}

pub(super) struct Search<'p, 'a> {
    problem: &'p Reduced<'a>,
    /// Pieces of each source.
    of_source: Vec<Vec<usize>>,
    way: Way,
    /// Pieces go where the least room is left, or the most.
    tight: bool,
    trials: usize,
    /// All room at the beginning: cores and MB.
    room: (f64, f64),
    /// Prices of what is scarce, and what no plan is worth more than.
    relaxed: Option<Rc<Bound>>,
}

/// What a search came to.
pub(super) struct Found {
    /// The moves as (piece, target), in the order of pieces.
    pub(super) moves: Vec<(usize, usize)>,
    /// Share of the best possible worth that may be missing, in [0, 1].
    pub(super) gap: f64,
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
        Self { problem, room, of_source, way: Way::Most, tight: false, trials: 0, relaxed: None }
    }

    pub(super) fn run(mut self) -> Found {
        let (mut state, mut best_possible) = self.heuristic();
        let is_small = self.problem.pieces.len() * self.problem.targets.len() <= SMALL;
        if is_small && state.worth < best_possible * (1.0 - CLOSE_ENOUGH) {
            let relaxed = self.relaxed.take().expect("the heuristic has relaxed the problem");
            let (exact, is_proven) = self.branch_and_bound(state, &relaxed);
            (state, self.relaxed) = (exact, Some(relaxed));
            self.improve(&mut state);
            if is_proven {
                best_possible = best_possible.min(state.worth * (1.0 + CLOSE_ENOUGH));
            }
        }
        let gap = if best_possible > LEAST_GAIN { (1.0 - state.worth / best_possible).max(0.0) } else { 0.0 };
        let moves = state.to.iter().enumerate().filter_map(|(piece, to)| to.map(|target| (piece, target)));
        Found { gap, moves: moves.collect() }
    }

    /// What large problems get, and what no plan is worth more than.
    fn heuristic(&mut self) -> (State, f64) {
        let mut tried = vec![];
        for (way, tight) in [(Way::Most, false), (Way::MostForRoom, false), (Way::Most, true), (Way::MostForRoom, true)]
        {
            tried.push(self.greedy_by(way, tight));
        }
        let worth = |tried: &[State]| tried.iter().map(|state| state.worth).fold(0.0, f64::max);
        let relaxed = tighten(self.problem, worth(&tried));
        let best_possible = relaxed.worth;
        self.relaxed = Some(Rc::new(relaxed));
        tried.push(self.greedy_by(Way::MostForPrice, false));
        tried.sort_by(|a, b| b.worth.total_cmp(&a.worth));
        tried.dedup_by(|a, b| a.to == b.to);
        let mut best: Option<State> = None;
        for mut state in tried {
            self.improve(&mut state);
            if best.as_ref().is_none_or(|best| state.worth > best.worth + LEAST_GAIN) {
                best = Some(state);
            }
            let is_close = best.as_ref().is_some_and(|best| best.worth >= best_possible * (1.0 - CLOSE_ENOUGH));
            if is_close || self.trials > MOST_TRIALS {
                break;
            }
        }
        (best.expect("there is more than one way"), best_possible)
    }

    fn greedy_by(&mut self, way: Way, tight: bool) -> State {
        (self.way, self.tight) = (way, tight);
        let mut state = self.empty();
        self.greedy(&mut state);
        state
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

    /// What a piece takes of what is scarce.
    fn size(&self, piece: usize) -> f64 {
        let part = self.problem.pieces[piece].part;
        match (self.way, &self.relaxed) {
            (Way::Most, _) => 1.0,
            (Way::MostForPrice, Some(relaxed)) => relaxed.costs[piece].max(1e-9),
            _ => (part.cores / self.room.0 + part.memory_mb / self.room.1).max(1e-9),
        }
    }

    /// How much what a piece takes of cores and memory is in the proportion of some room; in [0, 1] but for the piece's size.
    fn alignment(&self, part: &crate::Part, room: (f64, f64)) -> f64 {
        let (cores, memory) = (room.0 / self.room.0, room.1 / self.room.1);
        let along = part.cores / self.room.0 * cores + part.memory_mb / self.room.1 * memory;
        along / cores.hypot(memory).max(1e-12)
    }

    /// The target that the piece fits on with the most room left, or with the least, or where room is cheapest.
    fn place_for(&self, state: &State, piece: usize) -> Option<usize> {
        let part = self.problem.pieces[piece].part;
        let prices = self.relaxed.as_ref().filter(|_| self.way == Way::MostForPrice);
        let rank = |target: usize| {
            let room = match (self.tight, self.way) {
                (true, Way::Most | Way::MostForRoom) => state.room[target].0,
                _ => -self.alignment(part, state.room[target]),
            };
            let price = prices.map_or(0.0, |relaxed| {
                let (core, mb) = relaxed.room[target];
                part.cores * core + part.memory_mb * mb
            });
            (price, room)
        };
        let best = |best: Option<(usize, (f64, f64))>, target: usize| {
            if !self.fits(state, piece, target) {
                return best;
            }
            let rank = rank(target);
            if best.is_none_or(|(_, least)| rank < least) { Some((target, rank)) } else { best }
        };
        let found = match &self.problem.pieces[piece].allowed {
            Some(allowed) => allowed.iter().copied().fold(None, best),
            None => (0..self.problem.targets.len()).fold(None, best),
        };
        found.map(|(target, _)| target)
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
            Candidate { rank: gain / search.size(piece), size: it.part.cores, piece }
        };
        let unmoved = (0..self.problem.pieces.len()).filter(|piece| state.to[*piece].is_none());
        let mut heap: BinaryHeap<Candidate> = unmoved.map(|piece| candidate(self, state, piece)).collect();
        // Room only shrinks here: what is no smaller than one that fitted nowhere need not be tried anywhere.
        let mut nowhere: Vec<(f64, f64)> = vec![];
        let no_smaller = |size: (f64, f64), than: &(f64, f64)| size.0 >= than.0 && size.1 >= than.1;
        while let Some(top) = heap.pop() {
            if top.rank <= LEAST_GAIN || state.moves == 0 {
                break;
            }
            let now = candidate(self, state, top.piece);
            let piece = &self.problem.pieces[top.piece];
            let size = (piece.part.cores, piece.part.memory_mb);
            if now.rank < top.rank {
                heap.push(now);
            } else if self.may_move(state, top.piece) && !nowhere.iter().any(|than| no_smaller(size, than)) {
                match self.place_for(state, top.piece) {
                    Some(target) => self.put(state, top.piece, target),
                    None if piece.allowed.is_none() => {
                        nowhere.retain(|it| !no_smaller(*it, &size));
                        nowhere.push(size);
                    }
                    None => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
