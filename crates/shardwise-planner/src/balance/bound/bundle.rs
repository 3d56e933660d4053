//! A proximal bundle method (Kiwiel, *Mathematical Programming* 46, 1990): the lowest point of a convex function of prices.
//!
//! Each answer is a plane below the function. The next prices are where the highest of the planes is lowest, at a charge for
//! the way from the best prices so far. Where a subgradient method jumps to and fro between things that cost the same, a
//! bundle remembers both sides.

/// Planes that are remembered, changes of their weights for each step, and the share of a promise that these may miss.
const MOST_PLANES: usize = 40;
const MOST_WORK: usize = 1_000_000;
const MISSED: f64 = 0.05;
/// The best prices move where at least this share of what was promised is kept; twice as far where it is the second.
const KEPT: f64 = 0.1;
const WELL_KEPT: f64 = 0.5;
/// Steps that keep too little before they become half as long.
const PATIENCE: usize = 15;
/// There is nothing more to be had where the planes promise no more than this share, so many times in a row.
const NOTHING: f64 = 1e-4;
const ASSURED: usize = 2;
/// Heights that differ by less than this share of the function are the same.
const ROUNDING: f64 = 1e-9;

/// What the function is at some prices.
pub(super) struct Answer {
    pub(super) worth: f64,
    /// A plane that is nowhere above it: how far below it the plane lies there, and how that rises with each price.
    pub(super) below: f64,
    pub(super) slopes: Vec<f64>,
}

/// The lowest that was found.
pub(super) struct Lowest {
    pub(super) worth: f64,
    pub(super) prices: Vec<f64>,
    /// How long steps were in the end.
    pub(super) length: f64,
}

struct Plane {
    /// Its height where all prices are 0.
    at_zero: f64,
    slopes: Vec<f64>,
    /// Its share of the step; they sum to 1.
    weight: f64,
}

struct Bundle<'s> {
    /// How far each price goes for the same slope.
    scale: &'s [f64],
    planes: Vec<Plane>,
    /// The prices that any plane would have rise; all others stay 0.
    moving: Vec<usize>,
    moves: Vec<bool>,
    best: Lowest,
}

/// Looks for the lowest point from some prices on, until it is no further than a share above `floor`, below which it never is.
/// The first step is as long as `length`, or as Polyak's.
pub(super) fn lowest(
    ask: impl Fn(&[f64]) -> Answer,
    scale: &[f64],
    start: Vec<f64>,
    length: Option<f64>,
    (floor, close_enough): (f64, f64),
    most_steps: usize,
) -> Lowest {
    let first = ask(&start);
    let size: f64 = first.slopes.iter().zip(scale).map(|(slope, scale)| slope.min(0.0).powi(2) * scale).sum();
    let polyak = (first.worth - floor).max(NOTHING * first.worth) / size.max(f64::MIN_POSITIVE);
    let best = Lowest { worth: first.worth, prices: start, length: length.unwrap_or(polyak) };
    let mut bundle = Bundle { scale, planes: vec![], moving: vec![], moves: vec![false; scale.len()], best };
    bundle.remember(first, &bundle.best.prices.clone(), 1.0);
    let (mut missed, mut assured) = (0, 0);
    for _ in 0..most_steps {
        if bundle.best.worth - floor <= close_enough * bundle.best.worth || bundle.moving.is_empty() {
            break;
        }
        let (prices, promised) = bundle.next();
        assured = if promised <= NOTHING * bundle.best.worth { assured + 1 } else { 0 };
        if assured > ASSURED {
            break;
        }
        let answer = ask(&prices);
        let kept = bundle.best.worth - answer.worth;
        let worth = answer.worth;
        bundle.remember(answer, &prices, 0.0);
        if kept > 0.0 {
            (bundle.best.worth, bundle.best.prices) = (worth, prices);
        }
        if kept >= KEPT * promised.max(0.0) {
            missed = 0;
            bundle.best.length *= if kept >= WELL_KEPT * promised { 2.0 } else { 1.0 };
        } else {
            missed += 1;
            if missed >= PATIENCE {
                (bundle.best.length, missed) = (bundle.best.length / 2.0, 0);
            }
        }
    }
    bundle.best
}

impl Bundle<'_> {
    fn remember(&mut self, answer: Answer, prices: &[f64], weight: f64) {
        if self.planes.len() == MOST_PLANES {
            let lighter = |a: usize, b: usize| if self.planes[b].weight < self.planes[a].weight { b } else { a };
            self.planes.remove((0..MOST_PLANES).fold(0, lighter));
            let all: f64 = self.planes.iter().map(|plane| plane.weight).sum();
            self.planes.iter_mut().for_each(|plane| plane.weight /= all);
        }
        for (at, slope) in answer.slopes.iter().enumerate() {
            if !self.moves[at] && (*slope < 0.0 || self.best.prices[at] > 0.0) {
                self.moves[at] = true;
                self.moving.push(at);
            }
        }
        let rise: f64 = answer.slopes.iter().zip(prices).map(|(slope, price)| slope * price).sum();
        self.planes.push(Plane { at_zero: answer.worth - answer.below - rise, slopes: answer.slopes, weight });
    }

    /// The next prices to ask at, and by how much the planes promise that these are lower than the best.
    ///
    /// The weights of the planes solve the dual of the step: weight goes from the lowest plane that has some to the highest,
    /// until all that have some are about as high.
    fn next(&mut self) -> (Vec<f64>, f64) {
        let length = self.best.length;
        let sum = |at: &usize| self.planes.iter().map(|plane| plane.weight * plane.slopes[*at]).sum();
        let mut slopes: Vec<f64> = self.moving.iter().map(sum).collect();
        let mut prices = self.best.prices.clone();
        let mut promised = 0.0;
        for _ in 0..MOST_WORK / (self.planes.len() * self.moving.len()).max(1) {
            for (at, slope) in self.moving.iter().zip(&slopes) {
                prices[*at] = (self.best.prices[*at] - length * self.scale[*at] * slope).max(0.0);
            }
            let rise = |plane: &Plane| self.moving.iter().map(|at| plane.slopes[*at] * prices[*at]).sum::<f64>();
            let heights: Vec<f64> = self.planes.iter().map(|plane| plane.at_zero + rise(plane)).collect();
            let high = (0..heights.len()).fold(0, |a, b| if heights[b] > heights[a] { b } else { a });
            promised = self.best.worth - heights[high];
            let bends: Vec<usize> = self.moving.iter().copied().filter(|at| prices[*at] > 0.0).collect();
            let bend = |upper: &Plane, lower: &Plane| {
                length
                    * bends
                        .iter()
                        .map(|at| (upper.slopes[*at] - lower.slopes[*at]).powi(2) * self.scale[*at])
                        .sum::<f64>()
            };
            // Of the planes with weight, the one that most is to be had from.
            let (mut apart, mut most, mut change) = (0.0_f64, 0.0, None);
            let weighty = (0..heights.len()).filter(|at| self.planes[*at].weight > 0.0);
            for at in weighty {
                let (by, bend) = (heights[high] - heights[at], bend(&self.planes[high], &self.planes[at]));
                apart = apart.max(by);
                let share = if bend > 0.0 { (by / bend).min(self.planes[at].weight) } else { self.planes[at].weight };
                let gain = share * (by - share * bend / 2.0);
                if gain > most {
                    (most, change) = (gain, Some((at, share)));
                }
            }
            let Some((low, share)) = change else { break };
            if apart <= f64::max(MISSED * promised, ROUNDING * self.best.worth) {
                break;
            }
            for (slope, at) in slopes.iter_mut().zip(&self.moving) {
                *slope += share * (self.planes[high].slopes[*at] - self.planes[low].slopes[*at]);
            }
            self.planes[high].weight += share;
            self.planes[low].weight -= share;
        }
        (prices, promised)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The highest of some planes, (height where all prices are 0, slopes).
    fn highest(planes: &[(f64, [f64; 2])], prices: &[f64]) -> Answer {
        let height = |(at_zero, slopes): &(f64, [f64; 2])| at_zero + slopes[0] * prices[0] + slopes[1] * prices[1];
        let top = planes.iter().max_by(|a, b| height(a).total_cmp(&height(b))).unwrap();
        Answer { worth: height(top), below: 0.0, slopes: top.1.to_vec() }
    }

    #[test]
    fn the_lowest_point_is_found_where_planes_meet_and_where_a_price_is_0() {
        // The first three meet at (2, 3), where all are 5; the others have their lowest point at (3, 0), where both are 4.
        let inner = [(15.0, [-2.0, -2.0]), (2.0, [3.0, -1.0]), (1.0, [-1.0, 2.0])];
        let edge = [(10.0, [-2.0, 1.0]), (1.0, [1.0, 2.0])];
        for (planes, lowest_worth, at) in [(&inner[..], 5.0, [2.0, 3.0]), (&edge[..], 4.0, [3.0, 0.0])] {
            let found = lowest(|prices| highest(planes, prices), &[1.0, 0.5], vec![0.0; 2], None, (0.0, 0.0), 200);
            assert!((found.worth - lowest_worth).abs() < 1e-3 * lowest_worth, "{}", found.worth);
            assert!(found.prices.iter().zip(at).all(|(price, at)| (price - at).abs() < 0.05), "{:?}", found.prices);
        }
    }

    #[test]
    fn it_stops_where_the_floor_is_near() {
        let asked = std::cell::Cell::new(0);
        let ask = |prices: &[f64]| {
            asked.set(asked.get() + 1);
            highest(&[(10.0, [-1.0, 0.0]), (0.0, [0.0, 0.0])], prices)
        };
        let found = lowest(ask, &[1.0, 1.0], vec![0.0; 2], None, (9.99, 1e-2), 200);
        assert_eq!((found.worth, asked.get()), (10.0, 1));
    }
}
