//! What is in flight on a shard, in generations, so that outcomes that never come do not count for ever.
//!
//! Time is cut into generations of [`lost_after_ms`](super::RouterConfig::lost_after_ms). A request counts in the one it is
//! sent in, two are alive at once, and what is left of an older one is lost. Generation and number share one atomic word,
//! so a request is either settled or lost, never both. Only the sums beside it can be off, when an outcome that late comes
//! within the very nanoseconds in which its generation is dropped; an idle shard starts from zero again.

use shardwise_types::Timestamp;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use super::RouterConfig;
use super::shard_slot::{self as shard, Fields};
use crate::atomic::{get, set, update};

/// Bits of a word that count; the rest is the generation.
const COUNT_BITS: u32 = 24;

/// What one or more requests in flight add up to.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct InFlight {
    pub(super) count: u64,
    pub(super) cores: f64,
    pub(super) pending_ms: f64,
    pub(super) sent_at: u64,
}

/// How time is cut into generations.
#[derive(Debug, Clone, Copy)]
pub(super) struct Generations {
    length_ns: u64,
}

impl Generations {
    pub(super) fn new(config: &RouterConfig) -> Self {
        Self { length_ns: (config.lost_after_ms * 1e6) as u64 }
    }

    fn at(self, now: Timestamp) -> u64 {
        now.nanos().max(0).cast_unsigned() / self.length_ns
    }

    /// Whether what was sent in a generation is given up at `now`. Reads ask this of every shard: a product is cheaper
    /// than the quotient.
    fn is_lost(self, generation: u64, now: Timestamp) -> bool {
        now.nanos().max(0).cast_unsigned() >= (generation + 2).saturating_mul(self.length_ns)
    }

    /// Counts a request; returns the generation that it belongs to.
    pub(super) fn enter(self, fields: &Fields, part: &InFlight, now: Timestamp) -> u64 {
        let (current, side) = (self.at(now), side(self.at(now)));
        let word = &fields[shard::IN_FLIGHT[side]];
        let mut before = word.load(Acquire);
        let generation = loop {
            // A clock that goes back finds a younger generation in its place, and joins it.
            let generation = current.max(generation(before));
            if generation != self::generation(before) && count(before) > 0 {
                self.drop_lost(fields, now);
                before = word.load(Acquire);
                continue;
            }
            match word.compare_exchange_weak(before, pack(generation, count(before) + 1), AcqRel, Acquire) {
                Ok(_) => break generation,
                Err(found) => before = found,
            }
        };
        add(fields, side, part);
        generation
    }

    /// What is in flight at `now`; what is lost by then does not count, dropped or not.
    pub(super) fn alive(self, fields: &Fields, now: Timestamp) -> InFlight {
        let mut alive = InFlight {
            count: 0,
            cores: get(&fields[shard::IN_FLIGHT_CORES]),
            pending_ms: get(&fields[shard::PENDING_MS]),
            sent_at: fields[shard::SENT_AT].load(Relaxed),
        };
        let mut any_lost = false;
        for side in 0..2 {
            let word = fields[shard::IN_FLIGHT[side]].load(Relaxed);
            if count(word) == 0 {
                continue;
            }
            if self.is_lost(generation(word), now) {
                alive.take(&left(fields, side));
                any_lost = true;
            } else {
                alive.count += count(word);
            }
        }
        // As after `forget_rounding`: whether a loss was dropped yet must not show.
        if any_lost && alive.count == 0 { InFlight::default() } else { alive }
    }

    /// How many requests are in flight at `now`.
    #[inline]
    pub(super) fn count(self, fields: &Fields, now: Timestamp) -> u64 {
        let words = shard::IN_FLIGHT.map(|word| fields[word].load(Relaxed));
        let alive = words.into_iter().filter(|word| count(*word) > 0 && !self.is_lost(generation(*word), now));
        alive.map(count).sum()
    }

    /// Drops what is lost at `now`; returns how many requests that were.
    pub(super) fn drop_lost(self, fields: &Fields, now: Timestamp) -> u64 {
        drop_where(fields, |generation| self.is_lost(generation, now))
    }
}

impl InFlight {
    fn take(&mut self, part: &Self) {
        self.cores = without(self.cores, part.cores);
        self.pending_ms = without(self.pending_ms, part.pending_ms);
        self.sent_at = self.sent_at.wrapping_sub(part.sent_at);
    }
}

/// Settles a request of a generation; false when that was dropped before.
pub(super) fn leave(fields: &Fields, generation: u64, part: &InFlight) -> bool {
    let side = side(generation);
    let word = &fields[shard::IN_FLIGHT[side]];
    let mut before = word.load(Acquire);
    while self::generation(before) == generation && count(before) > 0 {
        match word.compare_exchange_weak(before, before - 1, AcqRel, Acquire) {
            Ok(_) => {
                take(fields, side, part);
                return true;
            }
            Err(found) => before = found,
        }
    }
    false
}

/// Drops everything; returns how many requests that were.
pub(super) fn drop_all(fields: &Fields) -> u64 {
    drop_where(fields, |_| true)
}

fn drop_where(fields: &Fields, is_lost: impl Fn(u64) -> bool) -> u64 {
    (0..2).map(|side| drop_side(fields, side, &is_lost)).sum()
}

fn drop_side(fields: &Fields, side: usize, is_lost: impl Fn(u64) -> bool) -> u64 {
    let word = &fields[shard::IN_FLIGHT[side]];
    let mut before = word.load(Acquire);
    while count(before) > 0 && is_lost(generation(before)) {
        // Read before the word changes: requests that come later are not in it.
        let left = left(fields, side);
        match word.compare_exchange_weak(before, pack(generation(before), 0), AcqRel, Acquire) {
            Ok(_) => {
                take(fields, side, &left);
                forget_rounding(fields);
                return count(before);
            }
            Err(found) => before = found,
        }
    }
    0
}

/// The sums of many lost requests are off by rounding, which an empty shard must not keep.
fn forget_rounding(fields: &Fields) {
    if shard::IN_FLIGHT.iter().all(|word| count(fields[*word].load(Relaxed)) == 0) {
        let sums = [shard::IN_FLIGHT_CORES, shard::PENDING_MS, shard::SENT_AT];
        let parts = [shard::GENERATION_CORES, shard::GENERATION_PENDING_MS, shard::GENERATION_SENT_AT];
        sums.into_iter().chain(parts.into_iter().flatten()).for_each(|field| set(&fields[field], 0.0));
    }
}

fn left(fields: &Fields, side: usize) -> InFlight {
    InFlight {
        count: 0,
        cores: get(&fields[shard::GENERATION_CORES[side]]),
        pending_ms: get(&fields[shard::GENERATION_PENDING_MS[side]]),
        sent_at: fields[shard::GENERATION_SENT_AT[side]].load(Relaxed),
    }
}

fn add(fields: &Fields, side: usize, part: &InFlight) {
    for field in [shard::IN_FLIGHT_CORES, shard::GENERATION_CORES[side]] {
        update(&fields[field], |cores| cores + part.cores);
    }
    for field in [shard::PENDING_MS, shard::GENERATION_PENDING_MS[side]] {
        update(&fields[field], |ms| ms + part.pending_ms);
    }
    for field in [shard::SENT_AT, shard::GENERATION_SENT_AT[side]] {
        fields[field].fetch_add(part.sent_at, Relaxed);
    }
}

fn take(fields: &Fields, side: usize, part: &InFlight) {
    for field in [shard::IN_FLIGHT_CORES, shard::GENERATION_CORES[side]] {
        update(&fields[field], |cores| without(cores, part.cores));
    }
    for field in [shard::PENDING_MS, shard::GENERATION_PENDING_MS[side]] {
        update(&fields[field], |ms| without(ms, part.pending_ms));
    }
    for field in [shard::SENT_AT, shard::GENERATION_SENT_AT[side]] {
        fields[field].fetch_sub(part.sent_at, Relaxed);
    }
}

/// A sum without a part; rounding must not leave an empty shard a little busy or below zero.
fn without(sum: f64, part: f64) -> f64 {
    if sum - part < 1e-9 { 0.0 } else { sum - part }
}

fn side(generation: u64) -> usize {
    (generation & 1) as usize
}

fn pack(generation: u64, count: u64) -> u64 {
    (generation << COUNT_BITS) | count
}

fn generation(word: u64) -> u64 {
    word >> COUNT_BITS
}

fn count(word: u64) -> u64 {
    word & ((1 << COUNT_BITS) - 1)
}

#[cfg(all(test, loom))]
mod interleavings;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::tests::{Bench, Lcg};
    use crate::router_state::{RouterConfig, RouterState, Ticket};

    const LOST_AFTER_MS: f64 = 1_000.0;

    fn bench() -> Bench {
        Bench::with(RouterState::with_config(RouterConfig { lost_after_ms: LOST_AFTER_MS, ..RouterConfig::default() }))
    }

    #[test]
    fn an_outcome_in_time_is_settled_and_one_that_never_comes_is_lost_soon_after() {
        let bench = bench();
        let waited_for = bench.send(0, 999.0);
        bench.send(0, 999.0);
        assert_eq!(bench.in_flight(0, 1_998.0), 2.0);
        bench.answer(&waited_for, None, 1_998.0);
        assert_eq!((bench.in_flight(0, 1_998.0), bench.in_flight(0, 3_000.0)), (1.0, 0.0));
        assert_eq!(bench.state.lost(), 0, "seen, not yet dropped");
        bench.state.on_report(&bench.id(0), bench.at(3_000.0));
        assert_eq!(bench.state.lost(), 1);
    }

    #[test]
    fn an_outcome_after_the_loss_settles_nothing() {
        let bench = bench();
        let late = bench.send(0, 0.0);
        let young = bench.send(0, 2_500.0);
        assert_eq!((bench.in_flight(0, 2_500.0), bench.state.lost()), (1.0, 1));
        bench.answer(&late, None, 2_600.0);
        assert_eq!(bench.in_flight(0, 2_600.0), 1.0);
        bench.answer(&young, None, 2_700.0);
        bench.answer(&late, None, 2_800.0);
        assert_eq!(bench.in_flight(0, 2_800.0), 0.0);
    }

    #[test]
    fn a_clock_that_goes_back_loses_nothing() {
        let bench = bench();
        let tickets = [2_500.0, 100.0, 1_700.0].map(|at_ms| bench.send(0, at_ms));
        assert_eq!(bench.in_flight(0, 2_500.0), 3.0);
        tickets.iter().for_each(|ticket| bench.answer(ticket, None, 2_400.0));
        assert_eq!((bench.in_flight(0, 2_500.0), bench.state.lost()), (0.0, 0));
    }

    /// Every request by itself: sent in a generation, and gone when the one after the next begins.
    #[derive(Default)]
    struct Naive {
        out: Vec<(Ticket, f64)>,
        /// Lost and not answered yet.
        gone: Vec<Ticket>,
        lost: u64,
    }

    impl Naive {
        fn lose(&mut self, now_ms: f64) {
            let generation = |ms: f64| (ms / LOST_AFTER_MS).floor();
            let is_lost = |sent_ms: f64| generation(sent_ms) + 1.0 < generation(now_ms);
            let lost = self.out.extract_if(.., |(_, sent_ms)| is_lost(*sent_ms));
            let gone = self.gone.len();
            self.gone.extend(lost.map(|(ticket, _)| ticket));
            self.lost += (self.gone.len() - gone) as u64;
        }

        fn sum(&self, part: impl Fn(&Ticket) -> f64) -> f64 {
            self.out.iter().map(|(ticket, _)| part(ticket)).sum()
        }

        fn agrees_with(&self, bench: &Bench, now_ms: f64) {
            let local = bench.state.shard(&bench.id(0), bench.at(now_ms));
            assert_eq!(local.in_flight, self.out.len() as f64);
            assert_eq!(bench.in_flight(0, now_ms), self.out.len() as f64);
            assert!((local.in_flight_cores - self.sum(|ticket| ticket.cores)).abs() < 1e-6);
            assert!((local.pending_ms - self.sum(|ticket| ticket.service_ln_ms.exp())).abs() < 1e-6);
            let age_ms = self.out.iter().map(|(_, sent_ms)| now_ms - sent_ms).sum::<f64>() / self.out.len() as f64;
            assert!((local.in_flight_age_ms(bench.at(now_ms)).unwrap_or(0.0) - age_ms.max(0.0)).abs() < 1e-3);
        }
    }

    #[test]
    fn a_random_history_agrees_with_every_request_counted_by_itself() {
        for seed in 0..20 {
            let (bench, mut random, mut naive) = (bench(), Lcg(seed), Naive::default());
            let mut now_ms = 0.0;
            for _ in 0..3_000 {
                now_ms += random.below(60) as f64;
                naive.lose(now_ms);
                naive.agrees_with(&bench, now_ms);
                match random.below(10) {
                    0..=4 => naive.out.push((bench.send(0, now_ms), now_ms)),
                    5..=7 if !naive.out.is_empty() => {
                        let (ticket, _) = naive.out.swap_remove(random.below(naive.out.len() as u64) as usize);
                        bench.answer(&ticket, None, now_ms);
                    }
                    8 if !naive.gone.is_empty() => {
                        bench.answer(&naive.gone.swap_remove(0), None, now_ms);
                    }
                    _ => bench.state.on_report(&bench.id(0), bench.at(now_ms)),
                }
                naive.agrees_with(&bench, now_ms);
            }
            let end_ms = now_ms + 2.0 * LOST_AFTER_MS;
            naive.lose(end_ms);
            bench.state.on_report(&bench.id(0), bench.at(end_ms));
            let local = bench.state.shard(&bench.id(0), bench.at(end_ms));
            assert_eq!((local.in_flight, local.in_flight_cores, local.pending_ms), (0.0, 0.0, 0.0));
            assert_eq!(bench.state.lost(), naive.lost);
        }
    }
}
