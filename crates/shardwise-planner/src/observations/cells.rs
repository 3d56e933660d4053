//! Function × shard statistics over a sliding window: a ring of buckets that are merged when asked.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use shardwise_types::{FunctionId, Response, ShardId};

/// Count, mean and spread of values, one at a time (Welford) and mergeable (Chan).
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Moments {
    /// How many values.
    pub count: f64,
    /// Their mean; 0 when there are none.
    pub mean: f64,
    /// Sum of their squared distances from the mean.
    pub squares: f64,
}

impl Moments {
    /// Takes in a value; what is not finite is left out.
    pub fn push(&mut self, value: f64) {
        if value.is_finite() {
            self.count += 1.0;
            let distance = value - self.mean;
            self.mean += distance / self.count;
            self.squares += distance * (value - self.mean);
        }
    }

    /// Takes in all values of another.
    pub fn merge(&mut self, other: &Self) {
        let count = self.count + other.count;
        if other.count > 0.0 {
            let distance = other.mean - self.mean;
            self.squares += other.squares + distance * distance * self.count * other.count / count;
            self.mean += distance * other.count / count;
            self.count = count;
        }
    }

    /// Without the values of a part of it.
    #[must_use]
    pub fn without(&self, part: &Self) -> Self {
        let count = self.count - part.count;
        if count <= 0.0 {
            return Self::default();
        }
        let mean = (self.mean * self.count - part.mean * part.count) / count;
        let distance = part.mean - mean;
        let squares = self.squares - part.squares - distance * distance * count * part.count / self.count;
        Self { count, mean, squares: squares.max(0.0) }
    }

    /// Variance of the values; none for fewer than two.
    pub fn variance(&self) -> Option<f64> {
        (self.count >= 2.0).then(|| self.squares / (self.count - 1.0))
    }
}

/// What was measured of a function on a shard within the window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cell {
    /// The function.
    pub function: FunctionId,
    /// The shard.
    pub shard: ShardId,
    /// Its measurements.
    #[serde(flatten)]
    pub seen: Observed,
}

/// Measurements of requests that were answered, failed or not; called-off ones say nothing and are left out.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Observed {
    /// Requests.
    pub requests: f64,
    /// Of these, failed.
    pub errors: f64,
    /// Of these, with a load before the run.
    pub cold: f64,
    /// Core time that they took, loads and failures included, in ms.
    pub busy_ms: f64,
    /// Execution of warm successes, in ms.
    pub exec_ms: Moments,
    /// The same in ln ms: what tells two shards apart where tails are long.
    pub exec_ln: Moments,
    /// Latency of successes at the router, in ms.
    pub total_ms: Moments,
    /// The same in ln ms.
    pub total_ln: Moments,
}

impl Observed {
    /// Takes in an answer.
    pub fn push(&mut self, response: &Response) {
        self.requests += 1.0;
        self.cold += f64::from(u8::from(response.cold));
        self.busy_ms += f64::from(response.exec_ms).max(0.0);
        if !response.is_ok() {
            self.errors += 1.0;
            return;
        }
        let (exec, total) = (f64::from(response.exec_ms), f64::from(response.total_ms));
        if !response.cold && exec > 0.0 {
            self.exec_ms.push(exec);
            self.exec_ln.push(exec.ln());
        }
        if total > 0.0 {
            self.total_ms.push(total);
            self.total_ln.push(total.ln());
        }
    }

    /// Takes in all of another.
    pub fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.cold += other.cold;
        self.busy_ms += other.busy_ms;
        self.exec_ms.merge(&other.exec_ms);
        self.exec_ln.merge(&other.exec_ln);
        self.total_ms.merge(&other.total_ms);
        self.total_ln.merge(&other.total_ln);
    }

    /// Without the measurements of an earlier time.
    #[must_use]
    pub fn without(&self, part: &Self) -> Self {
        Self {
            requests: self.requests - part.requests,
            errors: self.errors - part.errors,
            cold: self.cold - part.cold,
            busy_ms: self.busy_ms - part.busy_ms,
            exec_ms: self.exec_ms.without(&part.exec_ms),
            exec_ln: self.exec_ln.without(&part.exec_ln),
            total_ms: self.total_ms.without(&part.total_ms),
            total_ln: self.total_ln.without(&part.total_ln),
        }
    }

    /// Share of the requests that failed; none without requests.
    pub fn error_rate(&self) -> Option<f64> {
        (self.requests > 0.0).then(|| self.errors / self.requests)
    }

    /// Arithmetic over geometric mean of the latency, at least 1: what tails add.
    pub(crate) fn tail(&self) -> f64 {
        (self.total_ms.mean / self.total_ln.mean.exp()).max(1.0)
    }
}

/// Which function on which shard, as places in the tables of names.
pub(super) type Key = (u32, u32);

/// The last buckets of the window, oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct Window {
    buckets: VecDeque<(i64, FxHashMap<Key, Observed>)>,
}

impl Window {
    /// Takes in a response; false when the bucket is full and the cell is a new one.
    pub(super) fn push(&mut self, bucket: i64, key: Key, response: &Response, most: usize) -> bool {
        if self.buckets.back().is_none_or(|(last, _)| *last < bucket) {
            self.buckets.push_back((bucket, FxHashMap::default()));
        }
        let (_, cells) = self.buckets.back_mut().expect("a bucket was just added");
        let room = cells.len() < most || cells.contains_key(&key);
        if room {
            cells.entry(key).or_default().push(response);
        }
        room
    }

    /// Lets go of buckets before one.
    pub(super) fn forget_before(&mut self, bucket: i64) {
        while self.buckets.front().is_some_and(|(first, _)| *first < bucket) {
            self.buckets.pop_front();
        }
    }

    /// The buckets merged.
    pub(super) fn merged(&self) -> FxHashMap<Key, Observed> {
        let mut all: FxHashMap<Key, Observed> = FxHashMap::default();
        for (key, cell) in self.buckets.iter().flat_map(|(_, cells)| cells) {
            all.entry(*key).or_default().merge(cell);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f64]) -> Moments {
        let mut moments = Moments::default();
        values.iter().for_each(|value| moments.push(*value));
        moments
    }

    #[test]
    fn merging_and_taking_away_are_what_counting_at_once_gives() {
        let (all, head, tail) = (of(&[1.0, 5.0, 2.0, 8.0, 3.0]), of(&[1.0, 5.0]), of(&[2.0, 8.0, 3.0]));
        let mut merged = head;
        merged.merge(&tail);
        for (left, right) in [(merged, all), (all.without(&head), tail)] {
            assert_eq!(left.count, right.count);
            assert!((left.mean - right.mean).abs() < 1e-12, "{left:?} {right:?}");
            assert!((left.squares - right.squares).abs() < 1e-9, "{left:?} {right:?}");
        }
        assert_eq!(all.without(&all), Moments::default());
        assert_eq!(of(&[f64::NAN, 1.0]).count, 1.0);
    }

    #[test]
    fn a_full_bucket_goes_on_with_the_cells_that_it_has() {
        let response = Response { error: None, total_ms: 9.0, exec_ms: 4.0, queue_ms: 0.0, queue_len: 0, cold: false };
        let mut window = Window::default();
        assert!(window.push(1, (0, 0), &response, 1));
        assert!(!window.push(1, (0, 1), &response, 1), "no room for another");
        assert!(window.push(1, (0, 0), &response, 1));
        assert!(window.push(2, (0, 1), &response, 1), "a new bucket has room");
        assert_eq!(window.merged()[&(0, 0)].requests, 2.0);
        window.forget_before(2);
        assert_eq!(window.merged().len(), 1);
    }
}
