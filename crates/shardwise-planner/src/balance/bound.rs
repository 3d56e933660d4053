//! How good a plan can be at best: a price for everything that is scarce, and what is left of each move's gain at these prices.
//!
//! The moves are a generalized assignment problem with two resources. Its Lagrangian relaxation (Fisher, *Management Science* 27,
//! 1981) asks a price for the room of targets, for a move at all and for one of a function; each source then chooses by itself,
//! and may split a move. Whatever the prices are, that is worth no less than any plan, for what a plan takes of each resource
//! is no more than there is. The lowest such worth is found by a bundle method. Targets that are alike have one price.

mod bundle;
mod source;

use super::state::Reduced;
use bundle::{Answer, Lowest, lowest};
use source::{Offer, relief};

/// Classes of targets with a price of their own, at most.
const MOST_CLASSES: usize = 3;
/// Steps of the prices, at most, for one class and for more.
const MOST_STEPS: usize = 150;
/// Prices are good enough where the bound is no more than this share above the plan.
const CLOSE_ENOUGH: f64 = 1e-3;
/// What costs more by less than this share of a piece's worth hardly costs more.
const HARDLY: f64 = 1e-3;
/// Targets have a price of their own where this share of their room, or more, could not be filled.
const LEAST_EMPTY: f64 = 0.01;

/// Targets that share a price.
#[derive(Debug)]
struct Class {
    members: Vec<usize>,
    cores: f64,
    memory_mb: f64,
}

/// The best that is possible, and the prices that show it.
pub(super) struct Bound {
    /// No plan is worth more, in core-minutes.
    pub(super) worth: f64,
    /// What the room and the move of each piece cost at the prices, where they are cheapest; infinite where it fits nowhere.
    pub(super) costs: Vec<f64>,
    /// What of that is room.
    cheapest: Vec<f64>,
    /// What a core and a MB cost on each target.
    pub(super) room: Vec<(f64, f64)>,
    /// What a core's worth of relief counts at each source, of cores and of memory.
    pub(super) relief: Vec<(f64, f64)>,
}

impl Bound {
    /// What a piece is worth above all that it costs, where that is least; below 0 when it is not worth it.
    pub(super) fn surplus(&self, piece: usize, problem: &Reduced<'_>) -> f64 {
        let it = &problem.pieces[piece];
        let (source, counts) = (&problem.sources[it.source], self.relief[it.source]);
        let relief = it.cpu.min(source.cpu) * counts.0 + it.memory.min(source.memory) * counts.1;
        relief - it.price - self.costs[piece]
    }

    /// What of the bound goes when a piece is moved to a target, or is not moved.
    pub(super) fn regret(&self, piece: usize, target: Option<usize>, problem: &Reduced<'_>) -> f64 {
        let surplus = self.surplus(piece, problem);
        let there = target.map_or(0.0, |target| surplus - self.displaced(piece, target, problem));
        surplus.max(0.0) - there
    }

    /// What the room and the move of a piece cost on a target.
    pub(super) fn cost_on(&self, piece: usize, target: usize, problem: &Reduced<'_>) -> f64 {
        self.costs[piece] + self.displaced(piece, target, problem)
    }

    /// What room for a piece costs more on a target than where it is cheapest.
    pub(super) fn displaced(&self, piece: usize, target: usize, problem: &Reduced<'_>) -> f64 {
        let (part, (core, mb)) = (problem.pieces[piece].part, self.room[target]);
        part.cores * core + part.memory_mb * mb - self.cheapest[piece]
    }
}

/// A piece as the relaxation sees it.
struct Asked {
    piece: usize,
    /// Relief, no more than its source needs: beyond that nothing counts, so that not even a single piece is worth more.
    cpu: f64,
    memory: f64,
    price: f64,
    cores: f64,
    memory_mb: f64,
    function: usize,
    /// Whether it fits on each class.
    places: [bool; MOST_CLASSES],
}

struct Relaxation<'p, 'a> {
    problem: &'p Reduced<'a>,
    classes: Vec<Class>,
    /// The pieces by source.
    asked: Vec<Vec<Asked>>,
}

/// The lowest bound that is found, given a plan's worth; it is never below that.
///
/// First all targets have one price; then those at the ends have their own, where that is not enough.
pub(super) fn tighten(problem: &Reduced<'_>, plan: f64) -> Bound {
    let targets = by_ratio(problem);
    let whole = Relaxation::new(problem, &[&targets]);
    let found = whole.lowest(plan, vec![0.0; whole.len()], None);
    let bound = whole.bound(&found, plan);
    let (low, high) = ends(problem, &targets, &bound);
    if found.worth - plan <= CLOSE_ENOUGH * found.worth || high - low == targets.len() {
        return bound;
    }
    let split = Relaxation::new(problem, &[&targets[..low], &targets[low..high], &targets[high..]]);
    let room = |price: f64| std::iter::repeat_n(price, split.classes.len());
    let start = room(found.prices[0]).chain(room(found.prices[1])).chain(found.prices[2..].iter().copied()).collect();
    let finer = split.lowest(plan, start, Some(found.length));
    if finer.worth < found.worth { split.bound(&finer, plan) } else { bound }
}

/// The targets that any piece fits on, those with least memory for each core first.
fn by_ratio(problem: &Reduced<'_>) -> Vec<usize> {
    let targets = &problem.targets;
    let is_use = |at: &usize| problem.pieces.iter().any(|piece| piece.fits(&targets[*at]) && piece.is_allowed(*at));
    let mut order: Vec<usize> = (0..targets.len()).filter(is_use).collect();
    let ratio = |at: usize| targets[at].memory_mb / targets[at].cores;
    order.sort_by(|a, b| ratio(*a).total_cmp(&ratio(*b)).then(a.cmp(b)));
    order
}

/// Where to cut targets by ratio: those with least memory, whose cores no pieces that are worth about their cost could fill, however
/// little memory these have, and those with fewest cores, whose memory none could. Each end is where most would stay empty.
fn ends(problem: &Reduced<'_>, targets: &[usize], bound: &Bound) -> (usize, usize) {
    let is_worth = |at: &usize| bound.surplus(*at, problem) >= -HARDLY * bound.costs[*at];
    let mut pieces: Vec<(f64, f64)> = (0..problem.pieces.len())
        .filter(|at| bound.costs[*at].is_finite() && is_worth(at))
        .map(|at| (problem.pieces[at].part.cores, problem.pieces[at].part.memory_mb))
        .collect();
    let ratio = |(cores, mb): &(f64, f64)| mb / cores.max(1e-12);
    pieces.sort_by(|a, b| ratio(a).total_cmp(&ratio(b)));
    let room = |at: &usize| (problem.targets[*at].cores, problem.targets[*at].memory_mb);
    let swap = |(cores, mb): (f64, f64)| (mb, cores);
    let low = emptiest(targets.iter().map(room), pieces.iter().copied());
    let high = emptiest(targets.iter().rev().map(room).map(swap), pieces.iter().rev().copied().map(swap));
    (low.min(targets.len() - high), targets.len() - high)
}

/// How many of the first targets have most of the first resource left when the first pieces fill them up to the second one.
fn emptiest(targets: impl Iterator<Item = (f64, f64)>, mut pieces: impl Iterator<Item = (f64, f64)>) -> usize {
    let (mut room, mut taken, mut next) = ((0.0, 0.0), (0.0, 0.0), pieces.next());
    let (mut most, mut best) = (0.0_f64, 0);
    for (at, target) in targets.enumerate() {
        room = (room.0 + target.0, room.1 + target.1);
        while let Some(piece) = next.filter(|piece| taken.1 + piece.1 <= room.1) {
            taken = (taken.0 + piece.0, taken.1 + piece.1);
            next = pieces.next();
        }
        if room.0 - taken.0 > most.max(LEAST_EMPTY * room.0) {
            (most, best) = (room.0 - taken.0, at + 1);
        }
    }
    best
}

impl<'p, 'a> Relaxation<'p, 'a> {
    fn new(problem: &'p Reduced<'a>, classes: &[&[usize]]) -> Self {
        let classes: Vec<Class> =
            classes.iter().filter(|members| !members.is_empty()).map(|members| class(problem, members)).collect();
        let mut asked: Vec<Vec<Asked>> = problem.sources.iter().map(|_| vec![]).collect();
        for (at, piece) in problem.pieces.iter().enumerate() {
            let fits = |class: &Class| {
                let mut members = class.members.iter();
                members.any(|target| piece.fits(&problem.targets[*target]) && piece.is_allowed(*target))
            };
            let goal = &problem.sources[piece.source];
            asked[piece.source].push(Asked {
                piece: at,
                cpu: piece.cpu.min(goal.cpu),
                memory: piece.memory.min(goal.memory),
                price: piece.price,
                cores: piece.part.cores,
                memory_mb: piece.part.memory_mb,
                function: piece.function,
                places: std::array::from_fn(|class| classes.get(class).is_some_and(fits)),
            });
        }
        Self { problem, classes, asked }
    }

    /// How many prices there are: of a core and of a MB in each class, of any move, and of a move of each function.
    fn len(&self) -> usize {
        self.any_move() + 1 + self.problem.function_moves.len()
    }

    fn any_move(&self) -> usize {
        2 * self.classes.len()
    }

    fn room(&self, prices: &[f64]) -> Vec<(f64, f64)> {
        let (cores, rest) = prices.split_at(self.classes.len());
        cores.iter().copied().zip(rest.iter().copied()).collect()
    }

    fn moving(&self, asked: &Asked, prices: &[f64]) -> f64 {
        asked.price + prices[self.any_move()] + prices[self.any_move() + 1 + asked.function]
    }

    /// What there is of all that has a price.
    fn supply(&self) -> Vec<f64> {
        let problem = self.problem;
        let cores = self.classes.iter().map(|class| class.cores);
        let memory = self.classes.iter().map(|class| class.memory_mb);
        // More moves than pieces are as good as that many, and infinity has no slope.
        let moves = problem.moves.min(problem.pieces.len());
        let functions = problem.function_moves.iter().map(|moves| *moves as f64);
        cores.chain(memory).chain([moves as f64]).chain(functions).collect()
    }

    fn lowest(&self, plan: f64, start: Vec<f64>, length: Option<f64>) -> Lowest {
        let supply = self.supply();
        let (count, any_move) = (self.classes.len(), self.any_move());
        let sum = |of: &[f64]| of.iter().sum::<f64>().max(1e-9);
        let (cores, memory) = (sum(&supply[..count]), sum(&supply[count..any_move]));
        // All in cores: a MB is as much as it is of all room, so is a move.
        let unit = |at: usize| match at {
            at if at < count => 1.0,
            at if at < any_move => cores / memory,
            _ => cores / supply[any_move].max(1.0),
        };
        let scale: Vec<f64> = supply
            .iter()
            .enumerate()
            .map(|(at, supply)| unit(at) / supply.max(if at < any_move { 1e-9 } else { 0.5 }))
            .collect();
        lowest(|prices| self.answer(prices, &supply), &scale, start, length, (plan, CLOSE_ENOUGH), MOST_STEPS)
    }

    /// What sources choose.
    fn answer(&self, prices: &[f64], supply: &[f64]) -> Answer {
        let worth = prices.iter().zip(supply).map(|(price, supply)| price * supply).sum();
        let mut answer = Answer { worth, below: 0.0, slopes: supply.to_vec() };
        let (room, count, any_move) = (self.room(prices), self.classes.len(), self.any_move());
        let mut offers = vec![];
        for (goal, asked) in self.problem.sources.iter().zip(&self.asked) {
            self.offers(asked, prices, &room, &mut offers);
            let relief = relief(&mut offers, goal, self.problem.minutes);
            answer.worth += relief.worth;
            for (offer, share) in relief.taken {
                let it = &asked[offer.asked];
                let (extra, class) = self.roomiest(it, &room, (&answer.slopes, supply), offer.room);
                answer.below += share * extra;
                answer.slopes[class] -= share * it.cores;
                answer.slopes[count + class] -= share * it.memory_mb;
                answer.slopes[any_move] -= share;
                answer.slopes[any_move + 1 + it.function] -= share;
            }
        }
        answer
    }

    /// Of the classes where room for a piece costs the least or hardly more, the one with most left, and what it costs more:
    /// else all rush to one class, then to another.
    fn roomiest(&self, it: &Asked, room: &[(f64, f64)], (left, supply): (&[f64], &[f64]), least: f64) -> (f64, usize) {
        let count = self.classes.len();
        let hardly = HARDLY * self.problem.minutes * (it.cpu + it.memory);
        let mut best = (f64::NEG_INFINITY, 0.0, 0);
        for class in (0..count).filter(|class| it.places[*class]) {
            let extra = it.cores * room[class].0 + it.memory_mb * room[class].1 - least;
            let share = |at: usize, takes: f64| (left[at] - takes) / supply[at];
            let after = share(class, it.cores).min(share(count + class, it.memory_mb));
            if extra <= hardly && after > best.0 {
                best = (after, extra, class);
            }
        }
        (best.1, best.2)
    }

    /// The pieces of a source that are worth what they cost if all relief counts.
    fn offers(&self, asked: &[Asked], prices: &[f64], room: &[(f64, f64)], offers: &mut Vec<Offer>) {
        offers.clear();
        for (at, it) in asked.iter().enumerate() {
            let moving = self.moving(it, prices);
            let worth = self.problem.minutes * (it.cpu + it.memory);
            if let Some(room) = cheapest(it, room)
                && moving + room < worth
            {
                offers.push(Offer { asked: at, room, cpu: it.cpu, memory: it.memory, cost: moving + room, rate: 0.0 });
            }
        }
    }

    fn bound(&self, found: &Lowest, plan: f64) -> Bound {
        let (problem, prices) = (self.problem, &found.prices);
        let (classes, mut room) = (self.room(prices), vec![(0.0, 0.0); problem.targets.len()]);
        for (class, price) in self.classes.iter().zip(&classes) {
            class.members.iter().for_each(|target| room[*target] = *price);
        }
        let mut offers = vec![];
        let mut bound = Bound {
            worth: found.worth.max(plan),
            costs: vec![f64::INFINITY; problem.pieces.len()],
            cheapest: vec![f64::INFINITY; problem.pieces.len()],
            room,
            relief: vec![],
        };
        for (goal, asked) in problem.sources.iter().zip(&self.asked) {
            self.offers(asked, prices, &classes, &mut offers);
            bound.relief.push(relief(&mut offers, goal, problem.minutes).counts);
            for it in asked {
                if let Some(room) = cheapest(it, &classes) {
                    bound.cheapest[it.piece] = room;
                    bound.costs[it.piece] = room + self.moving(it, prices) - it.price;
                }
            }
        }
        bound
    }
}

/// What the room for a piece costs where it is cheapest; none where it fits nowhere.
fn cheapest(asked: &Asked, room: &[(f64, f64)]) -> Option<f64> {
    let there = (0..room.len()).filter(|class| asked.places[*class]);
    there.map(|class| asked.cores * room[class].0 + asked.memory_mb * room[class].1).reduce(f64::min)
}

fn class(problem: &Reduced<'_>, members: &[usize]) -> Class {
    let sum = |of: &dyn Fn(usize) -> f64| members.iter().map(|at| of(*at)).sum();
    let targets = &problem.targets;
    let (cores, memory_mb) = (sum(&|at| targets[at].cores), sum(&|at| targets[at].memory_mb));
    Class { members: members.to_vec(), cores, memory_mb }
}
