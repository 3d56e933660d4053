//! What history taught about service times: a hierarchical encoding of function × shard with shrinkage.
//!
//! ```text
//! ln exec = μ + a[function] + b[shard] + c[protocol, shard] + d[function, shard] + β·ln complexity + noise
//! ```
//! Each effect is the mean of what the coarser ones leave, times `n / (n + k)`; so a pair that was seen twice leans on
//! its function and its shard, and a shard that was never seen on the rest. It is fitted on warm successes only.

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use shardwise_types::{FunctionId, PlacementRequest, Response, ShardId, combine_keys};

/// Exponent β of complexity where no history has taught a better one.
pub const COMPLEXITY_EXPONENT_PRIOR: f64 = 0.6;

/// Pseudo-counts k of the shrinkage. The finer an effect, the smaller it is beside the noise of one request (variance
/// about 0.3), so the more samples it needs: about noise variance over effect variance.
const FUNCTION_SHRINKAGE: f64 = 1.0;
const SHARD_SHRINKAGE: f64 = 2.0;
const PROTOCOL_SHARD_SHRINKAGE: f64 = 20.0;
const PAIR_SHRINKAGE: f64 = 30.0;
const CATEGORY_SHRINKAGE: f64 = 5.0;
const COLD_SHRINKAGE: f64 = 3.0;
/// Spread of ln complexity (weighted sum of squares) that the prior of β is worth.
const EXPONENT_PRIOR_WEIGHT: f64 = 50.0;
/// Passes over the effects; more change nothing that can be measured.
const PASSES: usize = 4;

/// Most effects that are kept in rows as well, 128 MiB.
const MAX_IN_ROWS: usize = 1 << 24;

/// An effect and the number of samples behind it.
type Effect = (f32, f32);

/// Fitted service times; read-only.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ServiceTable {
    mean_ln_ms: f32,
    exponent: f32,
    /// Variance of ln exec that the table leaves.
    residual_variance: f32,
    samples: f64,
    global_cold_ms: f32,
    functions: FxHashMap<u64, Effect>,
    shards: FxHashMap<u64, Effect>,
    protocol_shards: FxHashMap<u64, Effect>,
    pairs: FxHashMap<u64, Effect>,
    /// Mean of ln exec by protocol, event type and trading pair (the keys of the three never meet).
    categories: FxHashMap<u64, Effect>,
    /// Extra milliseconds of a cold start, by function.
    cold_ms: FxHashMap<u64, Effect>,
    #[serde(skip)]
    rows: Rows,
}

/// The effects of protocols and functions on shards once more, a row of shards for each: a decision asks for one function on
/// all shards, and finds them side by side. A table that is too large for it, or was not prepared, is read from its maps.
#[derive(Debug, Clone, Default)]
struct Rows {
    /// Place of each shard in a row.
    places: FxHashMap<u64, u32>,
    shards: Box<[Effect]>,
    protocols: FxHashMap<u64, Box<[Effect]>>,
    functions: FxHashMap<u64, Box<[Effect]>>,
}

/// It follows from the rest of the table.
impl PartialEq for Rows {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Rows {
    fn of(table: &ServiceTable) -> Self {
        let rows = table.functions.len() + table.categories.len();
        if rows.saturating_mul(table.shards.len()) > MAX_IN_ROWS {
            return Self::default();
        }
        let row = |effects: &FxHashMap<u64, Effect>, key: &u64| {
            let effect = |shard: &u64| effects.get(&combine_keys(*key, *shard)).copied().unwrap_or_default();
            (*key, table.shards.keys().map(effect).collect())
        };
        Self {
            places: table.shards.keys().copied().zip(0..).collect(),
            shards: table.shards.values().copied().collect(),
            // The keys of protocols are among those of the categories.
            protocols: table.categories.keys().map(|key| row(&table.protocol_shards, key)).collect(),
            functions: table.functions.keys().map(|key| row(&table.pairs, key)).collect(),
        }
    }
}

impl ServiceTable {
    /// Expected warm execution on a shard, complexity included, in ln ms; `None` for a function that it never saw.
    pub fn service_ln_ms(&self, request: &PlacementRequest, id: &ShardId) -> Option<f64> {
        self.of(request).on(id).ln_ms
    }

    /// What the table knows of a request on any shard, looked up once for all of them.
    pub fn of(&self, request: &PlacementRequest) -> RequestService<'_> {
        let [function, protocol] = [request.function.key(), request.protocol.key()];
        RequestService {
            table: self,
            function,
            protocol,
            function_ln_ms: self.function_ln_ms(request),
            complexity_ln: self.complexity_effect(request),
            pairs: self.rows.functions.get(&function).map_or(&[], |row| row),
            protocols: self.rows.protocols.get(&protocol).map_or(&[], |row| row),
        }
    }

    /// Mean over shards of the function's ln execution ms at complexity 1; `None` for an unseen function.
    pub fn function_ln_ms(&self, request: &PlacementRequest) -> Option<f64> {
        let (effect, _) = self.functions.get(&request.function.key())?;
        Some(f64::from(self.mean_ln_ms) + f64::from(*effect))
    }

    /// How much slower a function is on a shard than both would say, in ln, and the samples behind that; `None` for an unseen
    /// pair.
    pub fn pair_effect(&self, function: &FunctionId, shard: &ShardId) -> Option<(f64, f64)> {
        let (effect, samples) = self.pairs.get(&combine_keys(function.key(), shard.key()))?;
        Some((f64::from(*effect), f64::from(*samples)))
    }

    /// The same table, prepared to be asked by routers: sooner where there are many shards.
    #[must_use]
    pub fn prepared(mut self) -> Self {
        self.rows = Rows::of(&self);
        self
    }

    /// Mean of ln execution ms over everything with this category's key; `None` when unseen, its own bucket.
    pub fn category_ln_ms(&self, key: u64) -> Option<f64> {
        self.categories.get(&key).map(|(mean, _)| f64::from(*mean))
    }

    /// Expected extra milliseconds when the function is not warm.
    pub fn cold_ms(&self, request: &PlacementRequest) -> f64 {
        let (ms, _) = self.cold_ms.get(&request.function.key()).copied().unwrap_or((self.global_cold_ms, 0.0));
        f64::from(ms)
    }

    /// Factor from the exponential of a mean of logs to a mean: exp(σ²/2) of the log-normal.
    pub fn smearing(&self) -> f64 {
        (f64::from(self.residual_variance) / 2.0).exp()
    }

    /// Standard deviation of ln exec that the table leaves.
    pub fn residual_sd(&self) -> f64 {
        f64::from(self.residual_variance).sqrt()
    }

    /// Exponent β of complexity.
    pub fn complexity_exponent(&self) -> f64 {
        f64::from(self.exponent)
    }

    /// Executions behind the table.
    pub fn samples(&self) -> f64 {
        self.samples
    }

    /// Whether every number in it is finite, which a table that was read from a file must prove.
    pub fn is_finite(&self) -> bool {
        let scalars = [self.mean_ln_ms, self.exponent, self.residual_variance, self.global_cold_ms];
        let maps = [&self.functions, &self.shards, &self.protocol_shards, &self.pairs, &self.categories, &self.cold_ms];
        let effects = maps.into_iter().flat_map(|map| map.values());
        self.samples.is_finite()
            && scalars.into_iter().chain(effects.flat_map(|(value, n)| [*value, *n])).all(f32::is_finite)
    }

    fn complexity_effect(&self, request: &PlacementRequest) -> f64 {
        f64::from(self.exponent) * f64::from(request.data_complexity).ln()
    }
}

/// What a table knows of one request.
#[derive(Debug, Clone, Copy)]
pub struct RequestService<'a> {
    table: &'a ServiceTable,
    function: u64,
    protocol: u64,
    function_ln_ms: Option<f64>,
    complexity_ln: f64,
    pairs: &'a [Effect],
    protocols: &'a [Effect],
}

/// What a table knows of one request on one shard.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ShardService {
    /// Expected warm execution, complexity included, in ln ms; `None` for a function that the table never saw.
    pub ln_ms: Option<f64>,
    /// How much slower the shard is than the mean, by itself and for the protocol, in ln; 0 for an unseen shard.
    pub shard_effect: f64,
    /// How much slower the function is on the shard than both would say, in ln; 0 for an unseen pair.
    pub pair_effect: f64,
    /// Samples behind the pair.
    pub pair_samples: f64,
}

impl RequestService<'_> {
    /// What the table knows of the request on a shard.
    pub fn on(&self, id: &ShardId) -> ShardService {
        let Self { table, function, protocol, .. } = self;
        let shard = id.key();
        let place = table.rows.places.get(&shard).map_or(usize::MAX, |place| *place as usize);
        let find = |row: &[Effect], effects: &FxHashMap<u64, Effect>, key: u64| {
            row.get(place).or_else(|| effects.get(&key)).copied().unwrap_or_default()
        };
        let by_itself = find(&table.rows.shards, &table.shards, shard);
        let for_protocol = find(self.protocols, &table.protocol_shards, combine_keys(*protocol, shard));
        let pair = find(self.pairs, &table.pairs, combine_keys(*function, shard));
        let shard_effect = f64::from(by_itself.0) + f64::from(for_protocol.0);
        let pair_effect = f64::from(pair.0);
        ShardService {
            ln_ms: self.function_ln_ms.map(|ln_ms| ln_ms + shard_effect + pair_effect + self.complexity_ln),
            shard_effect,
            pair_effect,
            pair_samples: f64::from(pair.1),
        }
    }
}

/// Sums over the executions of one function on one shard.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
struct Cell {
    function: u64,
    protocol: u64,
    shard: u64,
    n: f64,
    ln_ms: f64,
    ln_complexity: f64,
}

/// A count and a sum.
type Sum = (f64, f64);

/// What a [`ServiceTable`] is fitted on: sums that grow with each response, so that a table can be made at any time.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ServiceObservations {
    cells: FxHashMap<u64, Cell>,
    categories: FxHashMap<u64, Sum>,
    /// Cold executions by function: count and sum of their milliseconds.
    cold: FxHashMap<u64, Sum>,
    sum_xx: f64,
    sum_xy: f64,
    sum_yy: f64,
}

impl ServiceObservations {
    /// Adds a response; failures and responses that never ran teach nothing about service times.
    pub fn observe(&mut self, request: &PlacementRequest, id: &ShardId, response: &Response) {
        if !response.is_ok() || response.exec_ms <= 0.0 {
            return;
        }
        if response.cold {
            add(&mut self.cold, request.function.key(), f64::from(response.exec_ms));
            return;
        }
        let (x, y) = (f64::from(request.data_complexity).ln(), f64::from(response.exec_ms).ln());
        let cell = self.cells.entry(combine_keys(request.function.key(), id.key())).or_default();
        (cell.function, cell.protocol, cell.shard) = (request.function.key(), request.protocol.key(), id.key());
        cell.n += 1.0;
        cell.ln_ms += y;
        cell.ln_complexity += x;
        self.sum_xx += x * x;
        self.sum_xy += x * y;
        self.sum_yy += y * y;
        for key in [request.protocol.key(), request.event_type.key(), request.trading_pair.key()] {
            add(&mut self.categories, key, y);
        }
    }

    /// Warm executions seen.
    pub fn samples(&self) -> f64 {
        self.cells.values().map(|cell| cell.n).sum()
    }

    /// Fits the table; the order in which responses came does not matter beyond rounding.
    pub fn fit(&self) -> ServiceTable {
        let mut cells: Vec<Cell> = self.cells.values().copied().collect();
        // A fixed order, so that sums round the same way every time.
        cells.sort_by_key(|cell| (cell.function, cell.shard));
        let samples: f64 = cells.iter().map(|cell| cell.n).sum();
        if samples == 0.0 {
            return ServiceTable { exponent: COMPLEXITY_EXPONENT_PRIOR as f32, ..ServiceTable::default() };
        }
        let exponent = self.exponent(&cells);
        let means: Vec<(Cell, f64)> =
            cells.iter().map(|c| (*c, (c.ln_ms - exponent * c.ln_complexity) / c.n)).collect();
        let mean = means.iter().map(|(cell, y)| cell.n * y).sum::<f64>() / samples;
        let effects = Effects::fit(&means, mean);
        let residual_variance = self.residual_variance(&means, &effects, mean, exponent, samples);
        let mut table = ServiceTable {
            mean_ln_ms: mean as f32,
            exponent: exponent as f32,
            residual_variance: residual_variance as f32,
            samples,
            functions: effects.functions.rounded(),
            shards: effects.shards.rounded(),
            protocol_shards: effects.protocol_shards.rounded(),
            pairs: effects.pairs.rounded(),
            categories: shrunk_means(&self.categories, mean),
            ..ServiceTable::default()
        };
        self.fit_cold(&mut table);
        table.prepared()
    }

    /// β within cells, shrunk toward its prior.
    fn exponent(&self, cells: &[Cell]) -> f64 {
        let between_xx: f64 = cells.iter().map(|c| c.ln_complexity * c.ln_complexity / c.n).sum();
        let between_xy: f64 = cells.iter().map(|c| c.ln_complexity * c.ln_ms / c.n).sum();
        let prior = COMPLEXITY_EXPONENT_PRIOR * EXPONENT_PRIOR_WEIGHT;
        (self.sum_xy - between_xy + prior) / (self.sum_xx - between_xx + EXPONENT_PRIOR_WEIGHT).max(f64::MIN_POSITIVE)
    }

    fn residual_variance(
        &self,
        means: &[(Cell, f64)],
        effects: &Effects,
        mean: f64,
        exponent: f64,
        samples: f64,
    ) -> f64 {
        // Σ(y − βx)² within cells, plus what the effects miss of each cell's mean.
        let total = self.sum_yy - 2.0 * exponent * self.sum_xy + exponent * exponent * self.sum_xx;
        let of_means: f64 = means.iter().map(|(cell, y)| cell.n * y * y).sum();
        let missed: f64 = means.iter().map(|(cell, y)| cell.n * (y - mean - effects.sum(cell)).powi(2)).sum();
        ((total - of_means + missed) / samples).max(0.0)
    }

    fn fit_cold(&self, table: &mut ServiceTable) {
        let mut extra: Vec<(u64, f64, f64)> = self
            .cold
            .iter()
            .filter_map(|(function, (n, sum_ms))| {
                let warm_ms = (f64::from(table.mean_ln_ms) + f64::from(table.functions.get(function)?.0)).exp()
                    * table.smearing();
                Some((*function, *n, (sum_ms / n - warm_ms).max(0.0)))
            })
            .collect();
        extra.sort_by_key(|(function, ..)| *function);
        let n: f64 = extra.iter().map(|(_, n, _)| n).sum();
        if n > 0.0 {
            let global = extra.iter().map(|(_, n, ms)| n * ms).sum::<f64>() / n;
            table.global_cold_ms = global as f32;
            table.cold_ms = extra
                .iter()
                .map(|(function, n, ms)| {
                    let shrunk = (n * ms + COLD_SHRINKAGE * global) / (n + COLD_SHRINKAGE);
                    (*function, (shrunk as f32, *n as f32))
                })
                .collect();
        }
    }
}

fn add(sums: &mut FxHashMap<u64, Sum>, key: u64, value: f64) {
    let sum = sums.entry(key).or_default();
    sum.0 += 1.0;
    sum.1 += value;
}

fn shrunk_means(sums: &FxHashMap<u64, Sum>, mean: f64) -> FxHashMap<u64, Effect> {
    let shrink = |(n, sum): &Sum| ((sum + CATEGORY_SHRINKAGE * mean) / (n + CATEGORY_SHRINKAGE)) as f32;
    sums.iter().map(|(key, sum)| (*key, (shrink(sum), sum.0 as f32))).collect()
}

/// One family of effects while it is fitted.
#[derive(Default)]
struct Family(FxHashMap<u64, (f64, f64)>);

impl Family {
    fn of(&self, key: u64) -> f64 {
        self.0.get(&key).map_or(0.0, |(effect, _)| *effect)
    }

    /// Refits the family on what the others leave of each cell's mean.
    fn refit(&mut self, left: impl Iterator<Item = (u64, f64, f64)>, shrinkage: f64) {
        let mut sums: FxHashMap<u64, (f64, f64)> = FxHashMap::default();
        for (key, n, y) in left {
            let sum = sums.entry(key).or_default();
            sum.0 += n * y;
            sum.1 += n;
        }
        self.0 = sums.into_iter().map(|(key, (sum, n))| (key, (sum / (n + shrinkage), n))).collect();
    }

    fn rounded(&self) -> FxHashMap<u64, Effect> {
        self.0.iter().map(|(key, (effect, n))| (*key, (*effect as f32, *n as f32))).collect()
    }
}

#[derive(Default)]
struct Effects {
    functions: Family,
    shards: Family,
    protocol_shards: Family,
    pairs: Family,
}

impl Effects {
    /// Backfitting, from the coarsest family to the finest.
    fn fit(means: &[(Cell, f64)], mean: f64) -> Self {
        let mut effects = Self::default();
        for _ in 0..PASSES {
            let left = |effects: &Self, cell: &Cell, y: f64, own: f64| y - mean - effects.sum(cell) + own;
            let next: Vec<_> = means
                .iter()
                .map(|(c, y)| (c.function, c.n, left(&effects, c, *y, effects.functions.of(c.function))))
                .collect();
            effects.functions.refit(next.into_iter(), FUNCTION_SHRINKAGE);
            let next: Vec<_> =
                means.iter().map(|(c, y)| (c.shard, c.n, left(&effects, c, *y, effects.shards.of(c.shard)))).collect();
            effects.shards.refit(next.into_iter(), SHARD_SHRINKAGE);
            let key = |c: &Cell| combine_keys(c.protocol, c.shard);
            let next: Vec<_> = means
                .iter()
                .map(|(c, y)| (key(c), c.n, left(&effects, c, *y, effects.protocol_shards.of(key(c)))))
                .collect();
            effects.protocol_shards.refit(next.into_iter(), PROTOCOL_SHARD_SHRINKAGE);
            let key = |c: &Cell| combine_keys(c.function, c.shard);
            let next: Vec<_> =
                means.iter().map(|(c, y)| (key(c), c.n, left(&effects, c, *y, effects.pairs.of(key(c))))).collect();
            effects.pairs.refit(next.into_iter(), PAIR_SHRINKAGE);
        }
        effects
    }

    fn sum(&self, cell: &Cell) -> f64 {
        self.functions.of(cell.function)
            + self.shards.of(cell.shard)
            + self.protocol_shards.of(combine_keys(cell.protocol, cell.shard))
            + self.pairs.of(combine_keys(cell.function, cell.shard))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::golden;

    fn request(function: &str, complexity: f32) -> PlacementRequest {
        static ANY: LazyLock<PlacementRequest> = LazyLock::new(|| golden::contexts().remove(0).request);
        PlacementRequest { function: function.into(), data_complexity: complexity, ..ANY.clone() }
    }

    fn response(exec_ms: f64, cold: bool) -> Response {
        Response { error: None, total_ms: exec_ms as f32, exec_ms: exec_ms as f32, queue_ms: 0.0, queue_len: 0, cold }
    }

    /// 20 and 40 ms functions on shards of speed 1 and 2, complexity 1 and 2 with exponent 0.8.
    fn observed() -> ServiceObservations {
        let mut observations = ServiceObservations::default();
        for i in 0..2000 {
            let (function, base_ms) = if i % 2 == 0 { ("light", 20.0) } else { ("heavy", 40.0) };
            let (shard, speed) = if i / 2 % 2 == 0 { ("slow", 1.0) } else { ("fast", 2.0) };
            let complexity: f64 = if i / 4 % 2 == 0 { 1.0 } else { 2.0 };
            let exec_ms = base_ms * complexity.powf(0.8) / speed;
            observations.observe(&request(function, complexity as f32), &shard.into(), &response(exec_ms, false));
        }
        observations
    }

    #[test]
    fn a_known_world_is_recovered() {
        let table = observed().fit();
        for (function, shard, complexity, ms) in
            [("light", "fast", 1.0, 10.0), ("heavy", "slow", 1.0, 40.0), ("heavy", "fast", 2.0, 34.8)]
        {
            let found = table.service_ln_ms(&request(function, complexity), &shard.into()).unwrap().exp();
            assert!((found / ms - 1.0).abs() < 0.02, "{function} on {shard}: {found} instead of {ms}");
        }
        assert!(table.residual_sd() < 0.02);
    }

    #[test]
    fn the_unseen_leans_on_the_coarser_effects() {
        let table = observed().fit();
        let unseen_shard = table.service_ln_ms(&request("light", 1.0), &"new".into()).unwrap().exp();
        assert!((10.0..20.0).contains(&unseen_shard), "{unseen_shard}");
        assert_eq!(table.service_ln_ms(&request("new", 1.0), &"fast".into()), None);
    }

    #[test]
    fn cold_starts_are_kept_apart() {
        let mut observations = observed();
        for _ in 0..100 {
            observations.observe(&request("light", 1.0), &"slow".into(), &response(120.0, true));
        }
        let table = observations.fit();
        let extra = table.cold_ms(&request("light", 1.0));
        assert!((extra - 105.0).abs() < 8.0, "{extra}: 120 ms less the function's mean over shards");
        assert_eq!(
            table.service_ln_ms(&request("heavy", 1.0), &"slow".into()),
            observed().fit().service_ln_ms(&request("heavy", 1.0), &"slow".into())
        );
    }

    #[test]
    fn failures_teach_nothing() {
        let mut observations = ServiceObservations::default();
        let failed = Response { error: Some(shardwise_types::ErrorClass::Failed), ..response(0.1, false) };
        observations.observe(&request("light", 1.0), &"slow".into(), &failed);
        assert_eq!(observations.samples(), 0.0);
        assert!(observations.fit().is_finite());
    }
}
