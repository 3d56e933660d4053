//! What a function would take on a shard, from the observations: its own level, the shard's, and what is left between them,
//! each believed as far as its samples go. What a longer history taught of a pair is believed before anything is seen of it.

use std::collections::BTreeMap;

use shardwise_types::{FunctionId, ShardId};

use crate::action::NINE_IN_TEN;
use crate::{Cell, Observed};

/// Spread of functions on shards that is believed before anything is seen, in ln.
const PRIOR: f64 = 0.2;
/// Samples that weigh as much as the belief that a shard is like the others.
const SHARD_PRIOR: f64 = 50.0;
/// Of what was taught, so many samples count at most: machines change, and what is seen now is to be believed soon.
const MOST_TAUGHT: f64 = 300.0;
/// Variance of ln latency where it was not measured.
const UNKNOWN_VARIANCE: f64 = 0.5;
/// Rounds of fitting levels of functions and shards in turns.
const ROUNDS: usize = 10;

/// What is expected of a function on a shard.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Expectation {
    /// Mean latency in ms.
    pub latency_ms: f64,
    /// Lower end of its interval.
    pub low_ms: f64,
    /// Upper end of its interval.
    pub high_ms: f64,
    /// Share of the requests that will fail, in [0, 1].
    pub error_rate: f64,
}

/// Whoever was taught by a longer history than the window's, such as a model's service table: how much slower a function is on
/// a shard than both would say, in ln, and the samples behind that; none of what it never saw.
pub type Teacher<'a> = &'a dyn Fn(&FunctionId, &ShardId) -> Option<(f64, f64)>;

/// Shrunken effects of functions, shards and both together, on ln latency.
#[derive(Clone)]
pub struct Effects<'a> {
    teacher: Option<Teacher<'a>>,
    functions: BTreeMap<FunctionId, Level>,
    shards: BTreeMap<ShardId, f64>,
    shard_errors: BTreeMap<ShardId, f64>,
    cells: BTreeMap<(FunctionId, ShardId), (f64, f64, f64)>,
}

#[derive(Debug, Clone, Copy)]
struct Level {
    ln: f64,
    error_rate: f64,
    /// See [`Observed::tail`].
    tail: f64,
}

/// What is believed of a pair before anything is seen of it: an effect, and as how many samples it counts.
fn belief(taught: Option<(f64, f64)>, variance: f64) -> (f64, f64) {
    let alike = variance / (PRIOR * PRIOR);
    taught.map_or((0.0, alike), |(effect_ln, samples)| (effect_ln, alike + samples.clamp(0.0, MOST_TAUGHT)))
}

impl<'a> Effects<'a> {
    /// Fits the effects.
    pub fn of(cells: &[Cell], teacher: Option<Teacher<'a>>) -> Self {
        let mut sorted: Vec<&Cell> = cells.iter().filter(|cell| cell.seen.total_ln.count >= 1.0).collect();
        sorted.sort_by(|a, b| (&a.function, &a.shard).cmp(&(&b.function, &b.shard)));
        let mut totals: BTreeMap<FunctionId, Observed> = BTreeMap::new();
        let mut on_shards: BTreeMap<ShardId, Observed> = BTreeMap::new();
        for cell in &sorted {
            totals.entry(cell.function.clone()).or_default().merge(&cell.seen);
            on_shards.entry(cell.shard.clone()).or_default().merge(&cell.seen);
        }
        let (levels, shards) = fit(&sorted);
        let functions: BTreeMap<FunctionId, Level> = totals
            .into_iter()
            .map(|(function, seen)| {
                let error_rate = seen.error_rate().unwrap_or(0.0);
                let level = Level { ln: levels[&function], error_rate, tail: seen.tail() };
                (function, level)
            })
            .collect();
        let all = on_shards.values().fold((0.0, 0.0), |sum, seen| (sum.0 + seen.errors, sum.1 + seen.requests));
        let usual = if all.1 > 0.0 { all.0 / all.1 } else { 0.0 };
        let shard_errors = on_shards
            .into_iter()
            .map(|(shard, seen)| (shard, (seen.errors + usual * SHARD_PRIOR) / (seen.requests + SHARD_PRIOR)))
            .collect();
        let cells = sorted.iter().map(|cell| {
            let level = functions[&cell.function];
            let moments = &cell.seen.total_ln;
            let variance = moments.variance().unwrap_or(UNKNOWN_VARIANCE).max(1e-4);
            let taught = teacher.and_then(|teacher| teacher(&cell.function, &cell.shard));
            let (believed, belief) = belief(taught, variance);
            let left = moments.mean - level.ln - shards[&cell.shard];
            let effect = (left * moments.count + believed * belief) / (moments.count + belief);
            let errors = (cell.seen.errors + level.error_rate * SHARD_PRIOR) / (cell.seen.requests + SHARD_PRIOR);
            let deviation = (variance / (moments.count + belief)).sqrt();
            ((cell.function.clone(), cell.shard.clone()), (effect, deviation, errors))
        });
        let cells = cells.collect();
        Self { teacher, functions, shards, shard_errors, cells }
    }

    /// What is expected of a function on a shard; none when nothing is known of one of them.
    pub fn expected(&self, function: &FunctionId, shard: &ShardId) -> Option<Expectation> {
        let (level, of_shard) = (self.functions.get(function)?, self.shards.get(shard)?);
        let seen = self.cells.get(&(function.clone(), shard.clone())).copied();
        let (effect, deviation, error_rate) = match seen {
            Some(seen) => seen,
            None => {
                let taught = self.teacher.and_then(|teacher| teacher(function, shard));
                let (believed, belief) = belief(taught, UNKNOWN_VARIANCE);
                let error_rate = self.shard_errors.get(shard)?.max(level.error_rate);
                (believed, (UNKNOWN_VARIANCE / belief).sqrt(), error_rate)
            }
        };
        let at = |deviations: f64| (level.ln + of_shard + effect + deviations * deviation).exp() * level.tail;
        Some(Expectation { latency_ms: at(0.0), low_ms: at(-NINE_IN_TEN), high_ms: at(NINE_IN_TEN), error_rate })
    }
}

type Levels = (BTreeMap<FunctionId, f64>, BTreeMap<ShardId, f64>);

/// Levels of functions and shards, in turns, weighted by samples of which more than a few add little.
fn fit(cells: &[&Cell]) -> Levels {
    let weight = |cell: &Cell| cell.seen.total_ln.count / (1.0 + cell.seen.total_ln.count / SHARD_PRIOR);
    let (mut functions, mut shards): Levels = (BTreeMap::new(), BTreeMap::new());
    cells.iter().for_each(|cell| {
        shards.insert(cell.shard.clone(), 0.0);
    });
    for _ in 0..ROUNDS {
        let mut sums: BTreeMap<&FunctionId, (f64, f64)> = BTreeMap::new();
        for cell in cells {
            let (sum, total) = sums.entry(&cell.function).or_default();
            *sum += weight(cell) * (cell.seen.total_ln.mean - shards[&cell.shard]);
            *total += weight(cell);
        }
        functions = sums.into_iter().map(|(id, (sum, total))| (id.clone(), sum / total)).collect();
        let mut sums: BTreeMap<&ShardId, (f64, f64)> = BTreeMap::new();
        for cell in cells {
            let (sum, total) = sums.entry(&cell.shard).or_default();
            *sum += weight(cell) * (cell.seen.total_ln.mean - functions[&cell.function]);
            *total += weight(cell);
        }
        shards = sums.into_iter().map(|(id, (sum, total))| (id.clone(), sum / (total + SHARD_PRIOR))).collect();
    }
    (functions, shards)
}
