//! How good a plan can be at best: a price for everything that is scarce, and what is left of each move's gain at these prices.
//!
//! The moves are a generalized assignment problem with two resources. Its Lagrangian relaxation (Fisher, *Management Science* 27,
//! 1981) asks a price for the room of targets, for a move at all and for one of a function; each source then chooses by itself,
//! and may split a move. Whatever the prices are, that is worth no less than any plan, for what a plan takes of each resource
//! is no more than there is. Prices follow usage less supply, with Polyak's step. Targets that are alike have one price.

use super::state::{Reduced, Source};

/// Classes of targets with a price of their own, at most; so many of ratio times so many of size.
const RATIOS: usize = 8;
const SIZES: usize = 4;
/// Steps of the prices in the first round and in the others, at most, and pieces × classes that each round may look at.
const FEWEST_STEPS: usize = 15;
const MOST_STEPS: usize = 250;
const MOST_WORK: usize = 100_000_000;
/// Steps without a better bound before steps become half as long.
const PATIENCE: usize = 12;
/// Prices are good enough where the bound is no more than this share above the plan.
const CLOSE_ENOUGH: f64 = 1e-3;
/// What costs more by less than about this share of a piece's worth hardly costs more, at steps of full length; for three rounds.
const BLURS: [f64; 3] = [0.1, 0.1, 0.03];
/// A piece is hopeless when its worth misses more than this share of its cost.
const HOPELESS: f64 = 0.4;
/// Steps are not made shorter than this share of Polyak's.
const SHORTEST: f64 = 1e-3;
/// Halvings of the price of memory's relief.
const HALVINGS: usize = 9;

/// What scarce things cost, in core-minutes.
#[derive(Debug, Clone)]
pub(super) struct Prices {
    /// Of each class of targets: a core, and a MB.
    room: Vec<(f64, f64)>,
    any_move: f64,
    /// A move of each function.
    function: Vec<f64>,
}

/// Targets that share a price.
#[derive(Debug, Clone, Default)]
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
        let (part, surplus) = (problem.pieces[piece].part, self.surplus(piece, problem));
        let there = target.map_or(0.0, |target| {
            let (core, mb) = self.room[target];
            surplus - (part.cores * core + part.memory_mb * mb - self.cheapest[piece])
        });
        surplus.max(0.0) - there
    }
}

/// What is asked for at some prices.
struct Answer {
    worth: f64,
    /// Cost and class of each piece where it is cheapest; none where it fits nowhere.
    cheapest: Vec<Option<(f64, usize)>>,
    /// What is used of each class, and how many moves there are, of all functions and of each.
    room: Vec<(f64, f64)>,
    moves: f64,
    function: Vec<f64>,
    /// What relief counts at each source.
    relief: Vec<(f64, f64)>,
}

pub(super) struct Relaxation<'p, 'a> {
    problem: &'p Reduced<'a>,
    classes: Vec<Class>,
    /// Classes that each piece fits on, for those that do not fit on all.
    fits: Vec<Option<Vec<usize>>>,
    every: Vec<usize>,
    of_source: Vec<Vec<usize>>,
}

impl<'p, 'a> Relaxation<'p, 'a> {
    pub(super) fn new(problem: &'p Reduced<'a>) -> Self {
        let mut of_source = vec![vec![]; problem.sources.len()];
        for (place, piece) in problem.pieces.iter().enumerate() {
            of_source[piece.source].push(place);
        }
        let classes = classes(problem);
        let fits = problem.pieces.iter().map(|piece| {
            let fits = |class: &Class| {
                let mut members = class.members.iter();
                members.any(|target| piece.fits(&problem.targets[*target]) && piece.is_allowed(*target))
            };
            let places: Vec<usize> = (0..classes.len()).filter(|class| fits(&classes[*class])).collect();
            (places.len() < classes.len()).then_some(places)
        });
        Self { fits: fits.collect(), every: (0..classes.len()).collect(), problem, classes, of_source }
    }

    /// The lowest bound that is found, given a plan's worth; it is never below that.
    pub(super) fn tighten(&self, plan: f64) -> Bound {
        let functions = self.problem.function_moves.len();
        let mut prices =
            Prices { room: vec![(0.0, 0.0); self.classes.len()], any_move: 0.0, function: vec![0.0; functions] };
        let mut all = self.answer(&prices, &self.of_source, BLURS[0]);
        for ((mut length, blur), most_steps) in
            [1.0, 1.0, 0.25].into_iter().zip(BLURS).zip([FEWEST_STEPS, MOST_STEPS, MOST_STEPS])
        {
            // Most pieces are hopeless at any prices that make sense: they are looked at now and then.
            let of_source =
                if most_steps == FEWEST_STEPS { self.of_source.clone() } else { self.hopeful(&all, &prices) };
            let work = of_source.iter().map(Vec::len).sum::<usize>() * self.classes.len();
            let mut best = (self.answer(&prices, &of_source, blur), prices.clone());
            let (mut waited, mut answer, mut next_prices) = (0, None, prices.clone());
            for _ in 0..(MOST_WORK / work.max(1)).min(most_steps) {
                let gap = best.0.worth - plan;
                if gap <= CLOSE_ENOUGH * best.0.worth || length < SHORTEST {
                    break;
                }
                self.step(&mut next_prices, answer.as_ref().unwrap_or(&best.0), plan, length);
                let next = self.answer(&next_prices, &of_source, blur * length);
                waited = if next.worth < best.0.worth - 0.01 * gap { 0 } else { waited + 1 };
                if next.worth < best.0.worth {
                    (best, answer) = ((next, next_prices.clone()), None);
                } else {
                    answer = Some(next);
                }
                if waited > PATIENCE {
                    (length, waited, answer) = (length * 0.5, 0, None);
                    next_prices = best.1.clone();
                }
            }
            let whole = self.answer(&best.1, &self.of_source, blur);
            if whole.worth <= all.worth {
                (all, prices) = (whole, best.1);
            }
        }
        self.bound(all, &prices, plan)
    }

    /// Pieces of each source that are worth their cost, or miss it by no more than a share of it.
    fn hopeful(&self, answer: &Answer, prices: &Prices) -> Vec<Vec<usize>> {
        let is_hopeful = |place: &usize| {
            let piece = &self.problem.pieces[*place];
            let (goal, counts) = (&self.problem.sources[piece.source], answer.relief[piece.source]);
            let worth = piece.cpu.min(goal.cpu) * counts.0 + piece.memory.min(goal.memory) * counts.1;
            answer.cheapest[*place].is_some_and(|(room, _)| {
                let cost = piece.price + room + prices.any_move + prices.function[piece.function];
                worth >= (1.0 - HOPELESS) * cost
            })
        };
        self.of_source.iter().map(|pieces| pieces.iter().copied().filter(is_hopeful).collect()).collect()
    }

    fn bound(&self, answer: Answer, prices: &Prices, plan: f64) -> Bound {
        let mut room = vec![(0.0, 0.0); self.problem.targets.len()];
        for (class, price) in self.classes.iter().zip(&prices.room) {
            class.members.iter().for_each(|target| room[*target] = *price);
        }
        let cost = |(piece, cheapest): (usize, &Option<(f64, usize)>)| {
            let price = prices.any_move + prices.function[self.problem.pieces[piece].function];
            cheapest.map_or(f64::INFINITY, |(cost, _)| cost + price)
        };
        Bound {
            worth: answer.worth.max(plan),
            costs: answer.cheapest.iter().enumerate().map(cost).collect(),
            cheapest: answer.cheapest.iter().map(|it| it.map_or(f64::INFINITY, |(cost, _)| cost)).collect(),
            room,
            relief: answer.relief,
        }
    }

    /// Polyak's step, each price by what its resource is overdrawn by, relative to what there is of it.
    fn step(&self, prices: &mut Prices, answer: &Answer, plan: f64, length: f64) {
        let problem = self.problem;
        let (cores, memory) = self.classes.iter().fold((0.0, 0.0), |sum, it| (sum.0 + it.cores, sum.1 + it.memory_mb));
        // All in cores: a MB is as much as it is of all room, so is a move.
        let (mb, one) =
            (cores / f64::max(memory, 1e-9), cores / (problem.moves.min(problem.pieces.len()).max(1) as f64));
        let over: Vec<(f64, f64)> = self
            .classes
            .iter()
            .zip(&answer.room)
            .zip(&prices.room)
            .map(|((class, used), price)| {
                (slope(used.0 - class.cores, price.0), slope(used.1 - class.memory_mb, price.1))
            })
            .collect();
        let moves = slope(answer.moves - problem.moves as f64, prices.any_move);
        let functions: Vec<f64> = (0..prices.function.len())
            .map(|at| slope(answer.function[at] - problem.function_moves[at] as f64, prices.function[at]))
            .collect();
        let of_room =
            |(over, class): (&(f64, f64), &Class)| over.0.powi(2) / class.cores + over.1.powi(2) / class.memory_mb * mb;
        let cap = |at: usize| (problem.function_moves[at] as f64).max(0.5);
        let size: f64 = over.iter().zip(&self.classes).map(of_room).sum::<f64>()
            + moves.powi(2) / (problem.moves.max(1) as f64) * one
            + (0..functions.len()).map(|at| functions[at].powi(2) / cap(at) * one).sum::<f64>();
        if size <= 0.0 {
            return;
        }
        let step = length * (answer.worth - plan).max(0.0) / size;
        for ((price, over), class) in prices.room.iter_mut().zip(&over).zip(&self.classes) {
            price.0 = (price.0 + step * over.0 / class.cores).max(0.0);
            price.1 = (price.1 + step * over.1 / class.memory_mb * mb).max(0.0);
        }
        prices.any_move = (prices.any_move + step * moves / (problem.moves.max(1) as f64) * one).max(0.0);
        for (at, price) in prices.function.iter_mut().enumerate() {
            *price = (*price + step * functions[at] / cap(at) * one).max(0.0);
        }
    }

    /// What sources ask for of some of their pieces.
    fn answer(&self, prices: &Prices, of_source: &[Vec<usize>], blur: f64) -> Answer {
        let problem = self.problem;
        let mut answer = Answer {
            worth: prices.any_move * problem.moves as f64,
            cheapest: vec![None; problem.pieces.len()],
            room: vec![(0.0, 0.0); self.classes.len()],
            moves: 0.0,
            function: vec![0.0; prices.function.len()],
            relief: Vec::with_capacity(problem.sources.len()),
        };
        for (class, price) in self.classes.iter().zip(&prices.room) {
            answer.worth += class.cores * price.0 + class.memory_mb * price.1;
        }
        answer.worth += prices
            .function
            .iter()
            .zip(&problem.function_moves)
            .map(|(price, moves)| price * *moves as f64)
            .sum::<f64>();
        for &piece in of_source.iter().flatten() {
            answer.cheapest[piece] = self.cheapest(piece, prices);
        }
        for (goal, pieces) in problem.sources.iter().zip(of_source) {
            let offers = pieces.iter().filter_map(|&place| {
                let (piece, (room, _)) = (&problem.pieces[place], answer.cheapest[place]?);
                let cost = piece.price + room + prices.any_move + prices.function[piece.function];
                // Beyond the goal nothing counts, so that not even a single piece is worth more than it.
                Some(Offer {
                    piece: place,
                    cpu: piece.cpu.min(goal.cpu),
                    memory: piece.memory.min(goal.memory),
                    cost,
                    rate: 0.0,
                })
            });
            let relief = relief(offers.collect(), goal, problem.minutes);
            answer.worth += relief.worth;
            answer.relief.push(relief.counts);
            for (place, share) in relief.taken {
                let piece = &problem.pieces[place];
                let worth = problem.minutes * (piece.cpu.min(goal.cpu) + piece.memory.min(goal.memory));
                self.spread(place, share, prices, blur * worth, &mut answer);
                answer.moves += share;
                answer.function[piece.function] += share;
            }
        }
        answer
    }

    /// Counts a piece's room where it costs least, in part where it hardly costs more: else all rush to one class, then to another.
    fn spread(&self, piece: usize, share: f64, prices: &Prices, hardly: f64, answer: &mut Answer) {
        let Some((least, _)) = answer.cheapest[piece] else { return };
        let part = self.problem.pieces[piece].part;
        let weight = |class: usize| {
            let cost = part.cores * prices.room[class].0 + part.memory_mb * prices.room[class].1;
            self.classes[class].cores * (1.0 - (cost - least) / (3.0 * hardly.max(1e-12))).max(0.0).powi(2)
        };
        let places = self.fits[piece].as_ref().unwrap_or(&self.every);
        let weights: Vec<f64> = places.iter().map(|class| weight(*class)).collect();
        let all: f64 = weights.iter().sum();
        for (class, weight) in places.iter().zip(weights) {
            let here = share * weight / all;
            answer.room[*class].0 += here * part.cores;
            answer.room[*class].1 += here * part.memory_mb;
        }
    }

    /// What the room for a piece costs, and in which class, where it is cheapest.
    fn cheapest(&self, piece: usize, prices: &Prices) -> Option<(f64, usize)> {
        let part = self.problem.pieces[piece].part;
        let cost = |price: &(f64, f64)| part.cores * price.0 + part.memory_mb * price.1;
        let lower = |best: (f64, usize), next: (f64, usize)| if next.0 < best.0 { next } else { best };
        let none = (f64::INFINITY, 0);
        let best = match &self.fits[piece] {
            Some(places) => places.iter().map(|class| (cost(&prices.room[*class]), *class)).fold(none, lower),
            None => prices.room.iter().enumerate().map(|(class, price)| (cost(price), class)).fold(none, lower),
        };
        best.0.is_finite().then_some(best)
    }
}

/// A price of 0 does not fall.
fn slope(over: f64, price: f64) -> f64 {
    if price <= 0.0 { over.max(0.0) } else { over }
}

/// A piece of a source, and what moving it costs with everything.
struct Offer {
    piece: usize,
    cpu: f64,
    memory: f64,
    cost: f64,
    /// Cost of a core's relief, when memory's counts something.
    rate: f64,
}

/// The best that a source can do by itself when pieces can be split, as a bound by duality.
struct Relief {
    worth: f64,
    /// What a core's worth of relief counts, of cores and of memory: at most all minutes, nothing when there is enough.
    counts: (f64, f64),
    /// Which shares of pieces are taken, about, and the memory that they relieve.
    taken: Vec<(usize, f64)>,
    memory: f64,
}

fn relief(mut offers: Vec<Offer>, goal: &Source, minutes: f64) -> Relief {
    // What memory's relief counts is guessed, the rest is a fractional knapsack; where there is not enough, it counts in full.
    let mut best = knapsack(&mut offers, goal, minutes, minutes);
    if goal.memory <= 0.0 || best.memory <= goal.memory {
        return best;
    }
    let (mut low, mut high) = (0.0, minutes);
    for _ in 0..HALVINGS {
        let middle = (low + high) / 2.0;
        let found = knapsack(&mut offers, goal, minutes, middle);
        if found.memory > goal.memory {
            high = middle;
        } else {
            low = middle;
        }
        if found.worth < best.worth {
            best = found;
        }
    }
    best
}

fn knapsack(offers: &mut [Offer], goal: &Source, minutes: f64, memory: f64) -> Relief {
    for offer in offers.iter_mut() {
        offer.rate = (offer.cost - memory * offer.memory) / offer.cpu.max(1e-12);
    }
    offers.sort_unstable_by(|a, b| a.rate.total_cmp(&b.rate).then(a.piece.cmp(&b.piece)));
    let (mut left, mut cpu, mut used, mut taken) = (goal.cpu, minutes, 0.0, vec![]);
    for offer in offers.iter() {
        if offer.rate >= minutes || (offer.rate > 0.0 && left <= 0.0) {
            break;
        }
        let share = if offer.rate <= 0.0 || offer.cpu <= left { 1.0 } else { left / offer.cpu };
        left = (left - offer.cpu * share).max(0.0);
        used += offer.memory * share;
        taken.push((offer.piece, share));
        if left <= 0.0 {
            cpu = offer.rate.max(0.0);
        }
    }
    let gain = |offer: &Offer| (cpu * offer.cpu + memory * offer.memory - offer.cost).max(0.0);
    let worth = (minutes - cpu) * goal.cpu + (minutes - memory) * goal.memory + offers.iter().map(gain).sum::<f64>();
    Relief { worth, counts: (cpu, memory), taken, memory: used }
}

/// Targets by how much memory they have for each core, then by size, so that each class is about as large.
fn classes(problem: &Reduced<'_>) -> Vec<Class> {
    let targets = &problem.targets;
    let mut order: Vec<usize> = (0..targets.len()).collect();
    let ratio = |at: &usize| targets[*at].memory_mb / targets[*at].cores;
    let by = |of: &dyn Fn(&usize) -> f64, order: &mut [usize]| {
        order.sort_by(|a, b| of(a).total_cmp(&of(b)).then(a.cmp(b)));
    };
    by(&ratio, &mut order);
    let of_ratio = if targets.len() <= RATIOS * SIZES { 1 } else { targets.len().div_ceil(RATIOS) };
    let mut classes = vec![];
    for alike in order.chunks_mut(of_ratio.max(1)) {
        by(&|at: &usize| targets[*at].cores, alike);
        for members in alike.chunks(alike.len().div_ceil(SIZES).max(1)) {
            let mut class = Class { members: members.to_vec(), ..Class::default() };
            for target in members {
                class.cores += targets[*target].cores;
                class.memory_mb += targets[*target].memory_mb;
            }
            classes.push(class);
        }
    }
    classes
}
