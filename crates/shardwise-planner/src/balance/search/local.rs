//! Local changes of a plan: a move is dropped, added, exchanged, made way for, and targets are packed anew.

use super::super::state::ROUNDING;
use super::{LEAST_GAIN, Search, State};

/// Trial changes at most, in all, and of those for making way in each round.
pub(super) const MOST_TRIALS: usize = 20_000_000;
const MOST_ADDING: usize = 300_000;
/// Pieces that are not moved yet and are tried when a target is packed anew, of so many that are looked at; nodes of that
/// walk, and rounds over all targets.
const NEWCOMERS: usize = 32;
const MOST_LOOKED_AT: usize = 2_000;
const MOST_PACKINGS: usize = 4_000;
const MOST_ROUNDS: usize = 8;
/// A piece is hopeless when it lacks more than this share of its cost at the prices.
const HOPELESS: f64 = 0.3;

impl Search<'_, '_> {
    /// Local changes until none helps, or the trials are used up.
    pub(super) fn improve(&mut self, state: &mut State) {
        let order = self.hopeful(state);
        self.exchange_all(state, &order);
        self.repack_all(state);
        loop {
            let before = state.worth;
            // Making way takes long; packing anew finds more.
            let until = self.trials + MOST_ADDING;
            for &piece in &order {
                match state.to[piece] {
                    Some(_) => self.drop_or_swap(state, piece),
                    None if self.trials < until => self.add(state, piece),
                    None => {}
                }
            }
            self.repack_all(state);
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

    /// The pieces that may be worth their cost, the best bargains as things are first; all when there are no prices.
    pub(super) fn hopeful(&self, state: &State) -> Vec<usize> {
        let all = 0..self.problem.pieces.len();
        let Some(relaxed) = &self.relaxed else { return all.collect() };
        let bargain = |piece: usize| {
            let (price, most) = (self.problem.pieces[piece].price, relaxed.surplus(piece, self.problem));
            let surplus = match state.to[piece] {
                None => self.gain(state, piece) - relaxed.costs[piece],
                Some(_) => most,
            };
            surplus / (relaxed.costs[piece] + price)
        };
        let mut order: Vec<(f64, usize)> = all.map(|at| (bargain(at), at)).filter(|it| it.0 > -HOPELESS).collect();
        order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        order.into_iter().map(|(_, piece)| piece).collect()
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
            self.trials += usize::from(gain > best.0) * self.problem.targets.len();
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
        self.trials += state.to.len() / 8;
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
        let (it, its) = (&self.problem.pieces[piece], &self.problem.pieces[other]);
        let room = (state.room[target].0 + its.part.cores, state.room[target].1 + its.part.memory_mb);
        let fits = it.part.cores <= room.0 + ROUNDING && it.part.memory_mb <= room.1 + ROUNDING;
        if !fits || !it.is_allowed(target) {
            return false;
        }
        let before = state.worth;
        self.take(state, other);
        if self.may_move(state, piece) {
            self.put(state, piece, target);
            if self.gain(state, other) > LEAST_GAIN && self.may_move(state, other) && self.trials <= MOST_TRIALS {
                self.trials += self.problem.targets.len();
                if let Some(elsewhere) = self.place_for(state, other) {
                    self.put(state, other, elsewhere);
                }
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

    /// Packs each target anew, all others as they are, until that helps nowhere.
    fn repack_all(&mut self, state: &mut State) {
        for _ in 0..MOST_ROUNDS {
            let before = state.worth;
            let unmoved: Vec<usize> =
                self.hopeful(state).into_iter().filter(|piece| state.to[*piece].is_none()).collect();
            let mut on: Vec<Vec<usize>> = vec![vec![]; self.problem.targets.len()];
            for (piece, to) in state.to.iter().enumerate() {
                to.iter().for_each(|target| on[*target].push(piece));
            }
            for (target, there) in on.into_iter().enumerate() {
                if self.trials <= MOST_TRIALS {
                    self.repack(state, target, &there, &unmoved);
                }
            }
            if state.worth <= before + LEAST_GAIN {
                break;
            }
        }
    }

    fn repack(&mut self, state: &mut State, target: usize, there: &[usize], unmoved: &[usize]) {
        let Some(relaxed) = &self.relaxed else { return };
        let (all, price) = (&self.problem.targets[target], relaxed.room[target]);
        if price.0 <= 0.0 && price.1 <= 0.0 {
            return;
        }
        let before = state.worth;
        there.iter().for_each(|piece| self.take(state, *piece));
        let is_new = |piece: &usize| {
            let it = &self.problem.pieces[*piece];
            state.to[*piece].is_none() && it.fits(all) && it.is_allowed(target) && self.gain(state, *piece) > LEAST_GAIN
        };
        let new = unmoved.iter().take(MOST_LOOKED_AT).copied().filter(is_new).take(NEWCOMERS);
        let pieces: Vec<usize> = new.chain(there.iter().copied()).collect();
        let cost = |piece: usize| {
            let part = self.problem.pieces[piece].part;
            part.cores * price.0 + part.memory_mb * price.1
        };
        let mut pieces: Vec<(usize, f64)> =
            pieces.into_iter().map(|piece| (piece, self.gain(state, piece) - cost(piece))).collect();
        let density = |(piece, surplus): &(usize, f64)| surplus / cost(*piece).max(1e-12);
        pieces.sort_by(|a, b| density(b).total_cmp(&density(a)).then(a.0.cmp(&b.0)));
        // What the pieces from here on are worth above the price of their room, together.
        let mut above = vec![0.0; pieces.len() + 1];
        for (at, (_, surplus)) in pieces.iter().enumerate().rev() {
            above[at] = above[at + 1] + surplus.max(0.0);
        }
        let mut packing = Packing { search: self, target, pieces, above, price, best: None, worth: before, nodes: 0 };
        packing.visit(state, 0);
        let (best, nodes) = (packing.best.take(), packing.nodes);
        self.trials += nodes * 4 + unmoved.len().min(MOST_LOOKED_AT);
        best.as_deref().unwrap_or(there).iter().for_each(|piece| self.put(state, *piece, target));
    }
}

/// A depth-first walk over what could be put on one target, cut where its room at its price promises nothing.
struct Packing<'s, 'p, 'a> {
    search: &'s Search<'p, 'a>,
    target: usize,
    /// The pieces, and what each is worth above the price of its room.
    pieces: Vec<(usize, f64)>,
    above: Vec<f64>,
    price: (f64, f64),
    /// The best that was found, when it is better than what was there, and its worth.
    best: Option<Vec<usize>>,
    worth: f64,
    nodes: usize,
}

impl Packing<'_, '_, '_> {
    fn visit(&mut self, state: &mut State, depth: usize) {
        self.nodes += 1;
        if state.worth > self.worth + LEAST_GAIN {
            self.worth = state.worth;
            let here =
                self.pieces.iter().map(|(piece, _)| *piece).filter(|piece| state.to[*piece] == Some(self.target));
            self.best = Some(here.collect());
        }
        let room = state.room[self.target];
        let left = room.0.max(0.0) * self.price.0 + room.1.max(0.0) * self.price.1;
        if depth == self.pieces.len()
            || self.nodes > MOST_PACKINGS
            || state.worth + self.above[depth] + left <= self.worth + LEAST_GAIN
        {
            return;
        }
        let piece = self.pieces[depth].0;
        if self.search.fits(state, piece, self.target)
            && self.search.may_move(state, piece)
            && self.search.gain(state, piece) > LEAST_GAIN
        {
            self.search.put(state, piece, self.target);
            self.visit(state, depth + 1);
            self.search.take(state, piece);
        }
        self.visit(state, depth + 1);
    }
}
