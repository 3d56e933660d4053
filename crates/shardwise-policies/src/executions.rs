//! The last executions of something on a shard, by key: how many succeeded and how long they took.
//!
//! The specification's strategies judge a shard by them; what a key stands for is theirs to say.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;
use shardwise_types::{ErrorClass, Response};

/// Keys remembered at most; later ones stay unknown.
const MOST_KEYS: usize = 32_768;

/// How affinity is made of executions (S1).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AffinityConfig {
    /// Last executions that count.
    pub window: usize,
    /// Weight of the share of successes.
    pub success: f64,
    /// Weight of 1 − mean duration / scale.
    pub speed: f64,
    /// Duration that is worth nothing, in ms.
    pub scale_ms: f64,
    /// Affinity without executions.
    pub unknown: f64,
}

impl Default for AffinityConfig {
    /// The specification's: the last 100, 0.7, 0.3, 10 s, 0.5.
    fn default() -> Self {
        Self { window: 100, success: 0.7, speed: 0.3, scale_ms: 10_000.0, unknown: 0.5 }
    }
}

/// The last executions by key.
pub(crate) struct Executions {
    config: AffinityConfig,
    /// Durations in ms, `None` for a failure, oldest first.
    by_key: FxHashMap<u64, VecDeque<Option<f32>>>,
}

/// What the last executions of a key amount to.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Record {
    pub(crate) executions: f64,
    pub(crate) successes: f64,
    /// Mean duration of the successes, in ms: failing fast is not being fast. 0 without one.
    pub(crate) mean_ms: f64,
}

impl Record {
    /// Share of successes, drawn toward a prior that counts as so many executions.
    pub(crate) fn success_rate(&self, prior: f64, prior_weight: f64) -> f64 {
        (self.successes + prior * prior_weight) / (self.executions + prior_weight)
    }
}

impl Executions {
    pub(crate) fn new(config: AffinityConfig) -> Self {
        Self { config, by_key: FxHashMap::default() }
    }

    pub(crate) fn learn(&mut self, key: u64, response: &Response) {
        let is_new = !self.by_key.contains_key(&key);
        if response.error == Some(ErrorClass::Cancelled) || is_new && self.by_key.len() == MOST_KEYS {
            return;
        }
        let last = self.by_key.entry(key).or_default();
        if last.len() >= self.config.window {
            last.pop_front();
        }
        last.push_back(response.is_ok().then_some(response.exec_ms));
    }

    pub(crate) fn record(&self, key: u64) -> Record {
        let Some(last) = self.by_key.get(&key) else { return Record::default() };
        let (successes, sum_ms) =
            last.iter().flatten().fold((0.0, 0.0), |(n, sum), ms| (n + 1.0, sum + f64::from(*ms)));
        Record { executions: last.len() as f64, successes, mean_ms: sum_ms / f64::max(successes, 1.0) }
    }

    /// Success and speed of a key's executions in one number in [0, 1]; what never succeeded is not fast.
    pub(crate) fn affinity(&self, key: u64) -> f64 {
        let (config, record) = (&self.config, self.record(key));
        if record.executions == 0.0 {
            return config.unknown;
        }
        let speed = if record.successes > 0.0 { (1.0 - record.mean_ms / config.scale_ms).max(0.0) } else { 0.0 };
        config.success * record.successes / record.executions + config.speed * speed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(error: Option<ErrorClass>, exec_ms: f32) -> Response {
        Response { error, total_ms: exec_ms, exec_ms, queue_ms: 0.0, queue_len: 0, cold: false }
    }

    #[test]
    fn affinity_is_success_and_speed() {
        let mut executions = Executions::new(AffinityConfig::default());
        assert_eq!(executions.affinity(1), 0.5, "nothing is known");
        executions.learn(1, &response(None, 5_000.0));
        assert_eq!(executions.affinity(1), 0.7 + 0.3 * 0.5);
        executions.learn(1, &response(Some(ErrorClass::Failed), 0.1));
        assert_eq!(executions.affinity(1), 0.35 + 0.15, "the failure was fast, which is no merit");
        executions.learn(1, &response(Some(ErrorClass::Cancelled), 0.0));
        assert_eq!(executions.affinity(1), 0.35 + 0.15);
    }

    #[test]
    fn only_the_last_hundred_count() {
        let mut executions = Executions::new(AffinityConfig::default());
        (0..50).for_each(|_| executions.learn(1, &response(Some(ErrorClass::Failed), 0.0)));
        (0..100).for_each(|_| executions.learn(1, &response(None, 0.0)));
        assert_eq!(executions.affinity(1), 1.0);
    }

    #[test]
    fn a_slow_shard_loses_its_speed_and_no_more() {
        let mut executions = Executions::new(AffinityConfig::default());
        executions.learn(1, &response(None, 90_000.0));
        assert_eq!(executions.affinity(1), 0.7);
    }
}
