//! What a source chooses by itself at given costs: a knapsack of cores and memory whose pieces can be split.

use super::super::state::Source;

/// Halvings of the price of memory's relief.
const HALVINGS: usize = 9;

/// A piece of a source, and what moving it costs with everything.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offer {
    /// Its place among those of the source.
    pub(super) asked: usize,
    /// What room for it costs where it is cheapest, which is part of the cost.
    pub(super) room: f64,
    pub(super) cpu: f64,
    pub(super) memory: f64,
    pub(super) cost: f64,
    /// Cost of a core's relief, when memory's counts something.
    pub(super) rate: f64,
}

/// The best that a source can do by itself when pieces can be split, as a bound by duality.
pub(super) struct Relief {
    pub(super) worth: f64,
    /// What a core's worth of relief counts, of cores and of memory: at most all minutes, nothing when there is enough.
    pub(super) counts: (f64, f64),
    /// Which shares of pieces are taken, about, and the memory that they relieve.
    pub(super) taken: Vec<(Offer, f64)>,
    memory: f64,
}

pub(super) fn relief(offers: &mut [Offer], goal: &Source, minutes: f64) -> Relief {
    // What memory's relief counts is guessed, the rest is a fractional knapsack; where there is not enough, it counts in full.
    let mut more = knapsack(offers, goal, minutes, minutes);
    if goal.memory <= 0.0 || more.memory <= goal.memory {
        return more;
    }
    let mut less = knapsack(offers, goal, minutes, 0.0);
    if less.memory >= goal.memory {
        return less;
    }
    let (mut low, mut high) = (0.0, minutes);
    for _ in 0..HALVINGS {
        let middle = (low + high) / 2.0;
        let found = knapsack(offers, goal, minutes, middle);
        if found.memory > goal.memory {
            (high, more) = (middle, found);
        } else {
            (low, less) = (middle, found);
        }
    }
    // Between the two, what is relieved is just enough.
    let share = (goal.memory - less.memory) / (more.memory - less.memory);
    let part = |of: &Relief, share: f64| of.taken.iter().map(move |it| (it.0, it.1 * share)).collect::<Vec<_>>();
    let taken = [part(&less, 1.0 - share), part(&more, share)].concat();
    Relief { taken, memory: goal.memory, ..if less.worth < more.worth { less } else { more } }
}

fn knapsack(offers: &mut [Offer], goal: &Source, minutes: f64, memory: f64) -> Relief {
    for offer in offers.iter_mut() {
        offer.rate = (offer.cost - memory * offer.memory) / offer.cpu.max(1e-12);
    }
    offers.sort_unstable_by(|a, b| a.rate.total_cmp(&b.rate).then(a.asked.cmp(&b.asked)));
    let (mut left, mut cpu, mut used, mut taken) = (goal.cpu, minutes, 0.0, vec![]);
    for offer in offers.iter() {
        if offer.rate >= minutes || (offer.rate > 0.0 && left <= 0.0) {
            break;
        }
        let share = if offer.rate <= 0.0 || offer.cpu <= left { 1.0 } else { left / offer.cpu };
        left = (left - offer.cpu * share).max(0.0);
        used += offer.memory * share;
        taken.push((*offer, share));
        if left <= 0.0 {
            cpu = offer.rate.max(0.0);
        }
    }
    let gain = |offer: &Offer| (cpu * offer.cpu + memory * offer.memory - offer.cost).max(0.0);
    let worth = (minutes - cpu) * goal.cpu + (minutes - memory) * goal.memory + offers.iter().map(gain).sum::<f64>();
    Relief { worth, counts: (cpu, memory), taken, memory: used }
}
