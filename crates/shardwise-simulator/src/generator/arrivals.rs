//! How often functions run, in which minutes, and how bursty they are.
//!
//! Popularity and burstiness are drawn in strata, so that every seed has its share of each kind of function. A function
//! is one of three kinds:
//!
//! | kind | minutes |
//! |---|---|
//! | timer | one invocation every so many minutes, hardly a miss |
//! | steady | binomial counts: as many as are due, less evenly than a timer; some only in a part of the day |
//! | bursty | the day's invocations fall into bursts of unequal height, the likelier at full hours and busy hours |
//!
//! Rhythms of the hour and the day take their part of the dispersion that a function may have, never more.

use rand::RngExt;
use rand_distr::{Binomial, Poisson, StandardNormal};
use shardwise_types::ArrivalTrace;

use super::{DAY_MINUTES, interpolate, strata};
use crate::streams::{KeyedStream, Purpose, stream};

/// ln of the daily count by the share of functions that run more often, from the share [`TAIL_SHARE`] on.
const LN_DAILY: [(f64, f64); 11] = [
    (0.136, 6.97),
    (0.2, 6.186),
    (0.3, 5.59),
    (0.4, 4.55),
    (0.45, 3.99),
    (0.5, 3.6),
    (0.6, 2.71),
    (0.7, 1.95),
    (0.8, 1.1),
    (0.9, 0.1),
    (1.0, -0.1),
];
/// Above, the daily count falls as a power of the share plus an offset, which flattens the top: Zipf and Mandelbrot.
const TAIL_SHARE: f64 = 0.136;
const TAIL_SLOPE: f64 = 1.0;
const TAIL_OFFSET: f64 = 0.002;
/// Daily count at a tenth of the functions: once a minute.
const DAILY_AT_TENTH: f64 = 1440.0;

/// A class of daily rates, and what share of its functions is how dispersed.
struct RateClass {
    /// Most invocations a day.
    most: f64,
    /// Share of functions that are timers, and which periods in minutes they have, by weight.
    timers: f64,
    periods: &'static [(usize, f64)],
    /// Share of the steady ones that run in a part of the day only.
    part_time: f64,
    /// ln of the index of dispersion by the share of the other functions that lie below.
    ln_dispersion: &'static [(f64, f64)],
}

const CLASSES: [RateClass; 4] = [
    RateClass {
        most: 24.0,
        timers: 0.0,
        periods: &[],
        part_time: 0.0,
        ln_dispersion: &[(0.0, 0.0), (0.86, 0.0), (0.9, 0.5), (0.95, 0.95), (0.99, 1.2), (1.0, 1.7)],
    },
    RateClass {
        most: 288.0,
        timers: 0.12,
        periods: &[(5, 0.4), (10, 0.05), (15, 0.3), (60, 0.25)],
        part_time: 0.5,
        ln_dispersion: &[(0.0, -0.2), (0.55, 0.0), (0.72, 0.15), (0.84, 0.9), (0.94, 2.2), (0.98, 3.3), (1.0, 4.6)],
    },
    RateClass {
        most: 1440.0,
        timers: 0.47,
        periods: &[(1, 0.65), (2, 0.05), (3, 0.1), (4, 0.05), (5, 0.15)],
        part_time: 0.75,
        ln_dispersion: &[(0.0, -0.6), (0.45, -0.2), (0.6, 0.3), (0.75, 1.6), (0.9, 4.0), (0.97, 5.7), (1.0, 6.7)],
    },
    RateClass {
        most: f64::INFINITY,
        timers: 0.0,
        periods: &[],
        part_time: 0.0,
        ln_dispersion: &[
            (0.0, -5.0),
            (0.25, -2.8),
            (0.43, -2.4),
            (0.5, -1.6),
            (0.6, -0.2),
            (0.75, 1.6),
            (0.9, 3.9),
            (0.95, 5.2),
            (0.99, 6.3),
            (1.0, 6.9),
        ],
    },
];

/// What remains of the golden ratio above 1.
const GOLDEN_RATIO: f64 = 0.618_033_988_749_895;
/// How likely a timer misses a tick.
const TIMER_MISS: f64 = 0.01;
/// Share of timers with a period above a minute that tick at the full hour.
const TIMER_AT_HOUR: f64 = 0.6;

/// Hour of the day (UTC) over the mean.
pub(super) const HOUR_OF_DAY: [f64; 24] = [
    1.03, 0.94, 0.91, 0.87, 0.93, 0.88, 0.97, 1.01, 1.00, 1.04, 1.03, 1.01, 1.09, 1.15, 1.12, 1.10, 1.07, 1.09, 1.08,
    1.00, 0.97, 0.96, 0.91, 0.85,
];
/// Weekend and working day over the mean of the week.
pub(super) const WEEKEND: f64 = 0.92;
pub(super) const WORKING_DAY: f64 = 1.032;
/// What the functions that follow the hour of the day and the week do of it, since timers do not.
const DAY_STRENGTH: f64 = 1.2;
/// Minutes of the hour at which more happens: how much more, for a function that follows them fully.
const MINUTE_SPIKES: [(usize, f64); 12] = [
    (0, 1.5),
    (5, 0.42),
    (10, 0.42),
    (15, 0.45),
    (20, 0.25),
    (25, 0.2),
    (30, 0.88),
    (35, 0.2),
    (40, 0.3),
    (45, 0.5),
    (50, 0.2),
    (55, 0.2),
];
/// Share of a function's dispersion above its least that rhythms may take.
const RHYTHM_SHARE: f64 = 0.5;
/// Most that unequal bursts add to the second moment.
const MOST_UNEQUAL: f64 = 1.8;
/// A function that runs in a part of the day runs in no smaller part than this many times its mean count per minute.
const SHORTEST_PART: f64 = 1.6;
/// Below this mean count per minute all invocations fall alone.
const RARE: f64 = 0.02;
/// The busier a function is within its class, the more of its dispersion lies above 1: by this power of its rate.
const BURSTS_WITH_RATE: f64 = 0.5;
/// Beyond this many times the usual rate of the class it no longer does.
const MOST_RATE: f64 = 2.5;
/// Length of bursts: median in minutes and sigma of ln.
const BURST_MINUTES: f64 = 1.8;
const BURST_SIGMA: f64 = 1.0;
/// Above this daily count minutes are drawn one by one instead of invocation by invocation.
const MANY: f64 = 3_000.0;

/// Generates `days` days of `functions` functions, from a Monday's midnight UTC on.
pub(super) fn generate(seed: u64, functions: usize, days: usize) -> Vec<ArrivalTrace> {
    let plans = plans(seed, functions);
    let profile = MinuteProfile::new();
    let trace = |(index, plan): (usize, &Plan)| {
        let mut per_minute = Vec::with_capacity(days * DAY_MINUTES);
        for day in 0..days {
            let mut rng = stream(seed, Purpose::GeneratedArrivals, ((index as u64) << 16) | day as u64);
            per_minute.extend(day_counts(&mut rng, plan, &profile, day));
        }
        ArrivalTrace { function: format!("generated-{index:05}"), per_minute }
    };
    plans.iter().enumerate().map(trace).collect()
}

/// What a function does every day.
#[derive(Debug, Clone, Copy)]
struct Plan {
    daily: f64,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Timer { period: usize, phase: usize },
    Steady { dispersion: f64, part_of_day: f64 },
    Bursty { dispersion: f64 },
}

fn plans(seed: u64, functions: usize) -> Vec<Plan> {
    let mut rng = stream(seed, Purpose::GeneratedFunctions, 0);
    let mut daily: Vec<f64> = strata(&mut rng, functions).into_iter().map(daily_count).collect();
    daily.sort_by(f64::total_cmp);
    let mut plans = Vec::with_capacity(functions);
    let mut rest = daily.as_slice();
    for class in &CLASSES {
        let (of_class, others) = rest.split_at(rest.partition_point(|daily| *daily <= class.most));
        plans.extend(class_plans(&mut rng, class, of_class));
        rest = others;
    }
    plans
}

/// The daily count that a share of the functions exceeds.
pub(super) fn daily_count(share: f64) -> f64 {
    let daily = if share < TAIL_SHARE {
        DAILY_AT_TENTH * ((0.1 + TAIL_OFFSET) / (share + TAIL_OFFSET)).powf(TAIL_SLOPE)
    } else {
        interpolate(&LN_DAILY, share).exp()
    };
    daily.round().max(1.0)
}

fn class_plans(rng: &mut KeyedStream, class: &RateClass, daily: &[f64]) -> Vec<Plan> {
    // By the golden ratio: functions of about the same rate differ in kind as much as all functions do.
    let offset: f64 = rng.random();
    let places = (0..daily.len()).map(|index| (offset + index as f64 * GOLDEN_RATIO).fract());
    let usual = (daily.iter().map(|daily| daily.ln()).sum::<f64>() / daily.len().max(1) as f64).exp();
    let plan = |(daily, place): (&f64, f64)| {
        if place < class.timers {
            return timer(rng, class.periods, place / class.timers);
        }
        let dispersion = interpolate(class.ln_dispersion, (place - class.timers) / (1.0 - class.timers)).exp();
        let kind = if dispersion > 1.0 {
            Kind::Bursty {
                dispersion: 1.0 + (dispersion - 1.0) * (daily / usual).min(MOST_RATE).powf(BURSTS_WITH_RATE),
            }
        } else {
            let least = daily / DAY_MINUTES as f64 * SHORTEST_PART;
            let part_time = rng.random_bool(class.part_time) && least < 1.0;
            Kind::Steady { dispersion, part_of_day: if part_time { rng.random_range(least..1.0) } else { 1.0 } }
        };
        Plan { daily: *daily, kind }
    };
    daily.iter().zip(places).map(plan).collect()
}

fn timer(rng: &mut KeyedStream, periods: &[(usize, f64)], place: f64) -> Plan {
    let mut below = 0.0;
    let chosen = periods.iter().find(|(_, weight)| {
        below += weight;
        place < below
    });
    let period = chosen.or(periods.last()).map_or(1, |(period, _)| *period);
    let phase = if rng.random_bool(TIMER_AT_HOUR) { 0 } else { rng.random_range(0..period) };
    Plan { daily: (DAY_MINUTES / period) as f64, kind: Kind::Timer { period, phase } }
}

fn day_counts(rng: &mut KeyedStream, plan: &Plan, profile: &MinuteProfile, day: usize) -> Vec<u32> {
    let week = if day % 7 < 5 { WORKING_DAY } else { WEEKEND };
    let daily = plan.daily * (1.0 + DAY_STRENGTH * (week - 1.0));
    match plan.kind {
        Kind::Timer { period, phase } => {
            let ticks = |minute: usize| minute % period == phase;
            (0..DAY_MINUTES).map(|minute| u32::from(ticks(minute) && !rng.random_bool(TIMER_MISS))).collect()
        }
        Kind::Steady { dispersion, part_of_day } => steady(rng, daily, dispersion, part_of_day, profile),
        Kind::Bursty { dispersion } => bursty(rng, daily, dispersion, profile),
    }
}

/// Binomial counts, whose dispersion lies below 1; rhythms as far as there is room.
fn steady(rng: &mut KeyedStream, daily: f64, dispersion: f64, part_of_day: f64, profile: &MinuteProfile) -> Vec<u32> {
    let mean = daily / DAY_MINUTES as f64;
    if mean < RARE {
        let weights = profile.weights(1.0, 1.0);
        return scatter(rng, daily, &weights);
    }
    let tries = (mean / (1.0 - dispersion).max(1e-3)).round().max(mean.ceil()).max(1.0);
    let room = RHYTHM_SHARE * dispersion / mean;
    let mut weights = profile.weights_within(room);
    if part_of_day < 1.0 {
        let idle = ((1.0 - part_of_day) * DAY_MINUTES as f64) as usize;
        let from = rng.random_range(0..DAY_MINUTES);
        (from..from + idle).for_each(|minute| weights[minute % DAY_MINUTES] = 0.0);
        normalise(&mut weights);
    }
    let count = |weight: &f64| {
        let chance = (mean / tries * weight * DAY_MINUTES as f64).clamp(0.0, 1.0);
        Binomial::new(tries as u64, chance).map_or(0, |binomial| rng.sample(binomial) as u32)
    };
    weights.iter().map(count).collect()
}

/// Bursts that cover the share of the day that gives the dispersion; what rhythms take of it is left out of the bursts.
fn bursty(rng: &mut KeyedStream, daily: f64, dispersion: f64, profile: &MinuteProfile) -> Vec<u32> {
    let mean = daily / DAY_MINUTES as f64;
    // Variance of the intensity over its squared mean.
    let variance = (dispersion - 1.0) / mean;
    let mut weights = profile.weights_within(RHYTHM_SHARE * variance);
    let rhythm = relative_variance(&weights);
    // Second moment of the bursts over their squared mean: by how unequal they are, and by the silence between them.
    let moment = 1.0 + (variance - rhythm).max(0.0) / (1.0 + rhythm);
    let unequal = moment.sqrt().min(MOST_UNEQUAL);
    let heights = bursts(rng, unequal / moment, unequal.ln().sqrt(), profile);
    weights.iter_mut().zip(&heights).for_each(|(weight, height)| *weight *= height);
    normalise(&mut weights);
    scatter(rng, daily, &weights)
}

/// Makes the sum of weights 1.
fn normalise(weights: &mut [f64]) {
    let sum: f64 = weights.iter().sum();
    if sum > 0.0 {
        weights.iter_mut().for_each(|weight| *weight /= sum);
    }
}

/// How high the burst of each minute is, 0 between bursts; they cover the share `active` of the day, a minute at least.
/// `sigma` is the deviation of ln height.
fn bursts(rng: &mut KeyedStream, active: f64, sigma: f64, profile: &MinuteProfile) -> Vec<f64> {
    let wanted = (active * DAY_MINUTES as f64).round().clamp(1.0, DAY_MINUTES as f64) as usize;
    let mut heights = vec![0.0; DAY_MINUTES];
    let mut covered = 0;
    while covered < wanted {
        let height = (sigma * rng.sample::<f64, _>(StandardNormal)).exp();
        let length = (BURST_MINUTES * (BURST_SIGMA * rng.sample::<f64, _>(StandardNormal)).exp()).ceil() as usize;
        let start = profile.draw(rng);
        for minute in start..start + length.min(wanted - covered) {
            let at = &mut heights[minute % DAY_MINUTES];
            covered += usize::from(*at == 0.0);
            *at = height;
        }
    }
    heights
}

/// Spreads a day's invocations over minutes by weights whose sum is 1.
fn scatter(rng: &mut KeyedStream, daily: f64, weights: &[f64]) -> Vec<u32> {
    if daily > MANY {
        let count = |weight: &f64| Poisson::new(daily * weight).map_or(0, |poisson| rng.sample(poisson) as u32);
        return weights.iter().map(count).collect();
    }
    let sums = running_sums(weights);
    let mut counts = vec![0; weights.len()];
    // A day of a rare function can be an empty one.
    let whole = daily.floor() as usize + usize::from(rng.random::<f64>() < daily.fract());
    for _ in 0..whole {
        counts[draw(rng, &sums)] += 1;
    }
    counts
}

fn running_sums(weights: &[f64]) -> Vec<f64> {
    let add = |sum: &mut f64, weight: &f64| {
        *sum += weight;
        Some(*sum)
    };
    weights.iter().scan(0.0, add).collect()
}

fn draw(rng: &mut KeyedStream, sums: &[f64]) -> usize {
    let at = rng.random::<f64>() * sums.last().copied().unwrap_or(0.0);
    sums.partition_point(|sum| *sum <= at).min(sums.len() - 1)
}

fn relative_variance(weights: &[f64]) -> f64 {
    let n = weights.len() as f64;
    let mean = weights.iter().sum::<f64>() / n;
    weights.iter().map(|weight| (weight / mean - 1.0).powi(2)).sum::<f64>() / n
}

/// The rhythms of the day, as departures from 1 by minute, and where bursts start.
struct MinuteProfile {
    of_hour: Vec<f64>,
    of_day: Vec<f64>,
    /// Relative variance of each.
    variance: (f64, f64),
    starts: Vec<f64>,
}

impl MinuteProfile {
    fn new() -> Self {
        let spike =
            |minute: usize| MINUTE_SPIKES.iter().find(|(at, _)| *at == minute % 60).map_or(0.0, |(_, more)| *more);
        let of_hour: Vec<f64> = (0..DAY_MINUTES).map(spike).collect();
        let of_day: Vec<f64> = (0..DAY_MINUTES).map(|minute| DAY_STRENGTH * (HOUR_OF_DAY[minute / 60] - 1.0)).collect();
        let plus_one = |values: &[f64]| relative_variance(&values.iter().map(|value| 1.0 + value).collect::<Vec<_>>());
        let variance = (plus_one(&of_hour), plus_one(&of_day));
        let mut profile = Self { of_hour, of_day, variance, starts: Vec::new() };
        profile.starts = running_sums(&profile.weights(1.0, 1.0));
        profile
    }

    /// Weights of the minutes, whose sum is 1, for a function that follows the hour and the day with these strengths.
    fn weights(&self, hour: f64, day: f64) -> Vec<f64> {
        let of_minute = |(a, b): (&f64, &f64)| (1.0 + hour * a) * (1.0 + day * b);
        let weights: Vec<f64> = self.of_hour.iter().zip(&self.of_day).map(of_minute).collect();
        let sum: f64 = weights.iter().sum();
        weights.into_iter().map(|weight| weight / sum).collect()
    }

    /// The strongest rhythms whose relative variance stays within a bound; the day's come first.
    fn weights_within(&self, bound: f64) -> Vec<f64> {
        let strength = |bound: f64, variance: f64| (bound.max(0.0) / variance).sqrt().min(1.0);
        let day = strength(bound, self.variance.1);
        let hour = strength(bound - day * day * self.variance.1, self.variance.0);
        self.weights(hour, day)
    }

    /// A minute for a burst to start.
    fn draw(&self, rng: &mut KeyedStream) -> usize {
        draw(rng, &self.starts)
    }
}
