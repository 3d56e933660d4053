//! What a function would take on a shard, from the observations alone: its own level, the shard's, and what is left between
//! them, each believed as far as its samples go.

use std::collections::BTreeMap;

use shardwise_types::{FunctionId, ShardId};

use crate::{Cell, Observed};

/// Spread of functions on shards that is believed before anything is seen, in ln.
const PRIOR: f64 = 0.2;
/// Samples that weigh as much as the belief that a shard is like the others.
const SHARD_PRIOR: f64 = 50.0;
/// Rounds of fitting levels of functions and shards in turns.
const ROUNDS: usize = 10;
/// Of the normal distribution: nine in ten lie within so many deviations.
const NINE_IN_TEN: f64 = 1.645;

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

/// Whoever can say what a function would take on a shard: the observations' effects, or a model.
pub trait Expectations {
    /// What is expected there; none when nothing is known of the function or the shard.
    fn expected(&self, function: &FunctionId, shard: &ShardId) -> Option<Expectation>;
}

/// Shrunken effects of functions, shards and both together, on ln latency.
#[derive(Debug, Clone)]
pub struct Effects {
    functions: BTreeMap<FunctionId, Level>,
    shards: BTreeMap<ShardId, f64>,
    shard_errors: BTreeMap<ShardId, f64>,
    cells: BTreeMap<(FunctionId, ShardId), (f64, f64, f64)>,
}

#[derive(Debug, Clone, Copy)]
struct Level {
    ln: f64,
    error_rate: f64,
    /// Arithmetic over geometric mean: what tails add.
    tail: f64,
}

impl Effects {
    /// Fits the effects.
    pub fn of(cells: &[Cell]) -> Self {
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
                let tail = (seen.total_ms.mean / seen.total_ln.mean.exp()).max(1.0);
                let level = Level { ln: levels[&function], error_rate: seen.error_rate().unwrap_or(0.0), tail };
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
            let variance = moments.variance().unwrap_or(0.5).max(1e-4);
            let belief = variance / (PRIOR * PRIOR);
            let left = moments.mean - level.ln - shards[&cell.shard];
            let effect = left * moments.count / (moments.count + belief);
            let errors = (cell.seen.errors + level.error_rate * SHARD_PRIOR) / (cell.seen.requests + SHARD_PRIOR);
            let deviation = (variance / (moments.count + belief)).sqrt();
            ((cell.function.clone(), cell.shard.clone()), (effect, deviation, errors))
        });
        let cells = cells.collect();
        Self { functions, shards, shard_errors, cells }
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

impl Expectations for Effects {
    fn expected(&self, function: &FunctionId, shard: &ShardId) -> Option<Expectation> {
        let (level, of_shard) = (self.functions.get(function)?, self.shards.get(shard)?);
        let unseen = (0.0, PRIOR, self.shard_errors.get(shard)?.max(level.error_rate));
        let (effect, deviation, error_rate) =
            self.cells.get(&(function.clone(), shard.clone())).copied().unwrap_or(unseen);
        let at = |deviations: f64| (level.ln + of_shard + effect + deviations * deviation).exp() * level.tail;
        Some(Expectation { latency_ms: at(0.0), low_ms: at(-NINE_IN_TEN), high_ms: at(NINE_IN_TEN), error_rate })
    }
}
