//! How the requests of one function are shared out among shards, now and in later steps.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shardwise_types::{InvalidInput, ShardId, Timestamp};

/// How far the weights of a step may be from 1 in sum: room for thirds and for decimal fractions, not for a mistake.
pub const WEIGHT_TOLERANCE: f64 = 1e-6;
/// Steps of one split at most.
pub const MOST_STEPS: usize = 64;
/// Shards of one step at most.
pub const MOST_SHARDS: usize = 1024;

/// Weights that hold from some time after the split takes effect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SplitStep {
    /// When they begin to hold, in ms after the split takes effect; 0 for the first step.
    #[serde(default)]
    pub after_ms: u64,
    /// Share of the requests by shard, each in [0, 1], in sum 1.
    pub weights: BTreeMap<ShardId, f64>,
}

/// Shares of requests by shard, checked; several steps make a canary that grows by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Raw", rename_all = "camelCase")]
pub struct TrafficSplit {
    steps: Vec<SplitStep>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Raw {
    steps: Vec<SplitStep>,
}

impl TryFrom<Raw> for TrafficSplit {
    type Error = InvalidInput;

    fn try_from(raw: Raw) -> Result<Self, InvalidInput> {
        Self::new(raw.steps)
    }
}

impl TrafficSplit {
    /// Checks the steps.
    ///
    /// # Errors
    /// Refused are: no step or more than [`MOST_STEPS`]; a first step that is not at 0 ms; times that do not grow; a
    /// step without shards or with more than [`MOST_SHARDS`]; weights that are negative or not finite, or whose sum is
    /// further from 1 than [`WEIGHT_TOLERANCE`].
    pub fn new(steps: Vec<SplitStep>) -> Result<Self, InvalidInput> {
        if steps.is_empty() || steps.len() > MOST_STEPS {
            let problem = format!("{} steps; a split has 1 to {MOST_STEPS}", steps.len());
            return Err(InvalidInput::new("steps", problem));
        }
        if steps[0].after_ms != 0 {
            let problem = format!("{}; the first step begins at 0 ms, when the split takes effect", steps[0].after_ms);
            return Err(InvalidInput::new("steps[0].afterMs", problem));
        }
        for (number, pair) in steps.windows(2).enumerate() {
            if pair[1].after_ms <= pair[0].after_ms {
                let problem = format!(
                    "{} is not after the step before ({}); put them in order",
                    pair[1].after_ms, pair[0].after_ms
                );
                return Err(InvalidInput::new(&format!("steps[{}].afterMs", number + 1), problem));
            }
        }
        for (number, step) in steps.iter().enumerate() {
            check_weights(number, &step.weights)?;
        }
        Ok(Self { steps })
    }

    /// A split of one step.
    ///
    /// # Errors
    /// As of [`Self::new`].
    pub fn of(weights: impl IntoIterator<Item = (ShardId, f64)>) -> Result<Self, InvalidInput> {
        Self::new(vec![SplitStep { after_ms: 0, weights: weights.into_iter().collect() }])
    }

    /// The steps in the order of time; at least one.
    pub fn steps(&self) -> &[SplitStep] {
        &self.steps
    }

    /// The weights that hold at `now` when the split took effect at `since`.
    pub fn weights_at(&self, since: Timestamp, now: Timestamp) -> &BTreeMap<ShardId, f64> {
        let begun = self.steps.partition_point(|step| step.begins_at(since) <= now);
        &self.steps[begun.saturating_sub(1)].weights
    }

    /// All shards that some step names.
    pub fn shards(&self) -> impl Iterator<Item = &ShardId> {
        self.steps.iter().flat_map(|step| step.weights.keys())
    }
}

impl SplitStep {
    /// When the step begins in a split that takes effect at `since`.
    pub fn begins_at(&self, since: Timestamp) -> Timestamp {
        let after_nanos = i64::try_from(self.after_ms).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        Timestamp::from_nanos(since.nanos().saturating_add(after_nanos))
    }
}

fn check_weights(number: usize, weights: &BTreeMap<ShardId, f64>) -> Result<(), InvalidInput> {
    let field = format!("steps[{number}].weights");
    if weights.is_empty() || weights.len() > MOST_SHARDS {
        let problem = format!("{} shards; name 1 to {MOST_SHARDS}", weights.len());
        return Err(InvalidInput::new(&field, problem));
    }
    for (shard, weight) in weights {
        if !(weight.is_finite() && *weight >= 0.0) {
            let problem = format!("{weight} is not a weight; it must be a finite number, 0 or more");
            return Err(InvalidInput::new(&format!("{field}.{shard}"), problem));
        }
    }
    let sum: f64 = weights.values().sum();
    if (sum - 1.0).abs() > WEIGHT_TOLERANCE {
        return Err(InvalidInput::new(&field, format!("the weights are {sum} in sum; make it 1")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(after_ms: u64, weights: &[(&str, f64)]) -> SplitStep {
        SplitStep { after_ms, weights: weights.iter().map(|(shard, weight)| (ShardId::new(shard), *weight)).collect() }
    }

    #[test]
    fn wrong_splits_are_refused_by_field() {
        let whole: &[(&str, f64)] = &[("a", 0.9), ("b", 0.1)];
        for (steps, field) in [
            (vec![], "steps"),
            (vec![step(5, whole)], "steps[0].afterMs"),
            (vec![step(0, whole), step(9, whole), step(9, whole)], "steps[2].afterMs"),
            (vec![step(0, &[])], "steps[0].weights"),
            (vec![step(0, &[("a", 0.5)])], "steps[0].weights"),
            (vec![step(0, whole), step(9, &[("a", -0.1), ("b", 1.1)])], "steps[1].weights.a"),
            (vec![step(0, &[("a", f64::NAN)])], "steps[0].weights.a"),
            (vec![step(0, &[("a", f64::INFINITY)])], "steps[0].weights.a"),
            ((0..=64).map(|n| step(n, whole)).collect(), "steps"),
        ] {
            assert_eq!(TrafficSplit::new(steps.clone()).expect_err("wrong").field, field, "{steps:?}");
        }
        let third = 1.0 / 3.0;
        TrafficSplit::new(vec![step(0, &[("a", third), ("b", third), ("c", third)])]).expect("thirds are 1 in sum");
        let read = serde_json::from_str::<TrafficSplit>(r#"{"steps":[{"weights":{"a":0.5}}]}"#);
        assert!(read.expect_err("half").to_string().contains("steps[0].weights"), "JSON is checked, too");
    }

    #[test]
    fn a_canary_grows_at_its_times() {
        let split = TrafficSplit::new(vec![
            step(0, &[("old", 0.99), ("new", 0.01)]),
            step(600_000, &[("old", 0.5), ("new", 0.5)]),
            step(1_200_000, &[("new", 1.0)]),
        ]);
        let split = split.expect("it is right");
        let since = Timestamp::from_nanos(1_000_000_000);
        let share = |after_ms: f64| split.weights_at(since, since.plus_millis(after_ms))["new"];
        for (after_ms, new) in [(-5.0, 0.01), (0.0, 0.01), (599_999.0, 0.01), (600_000.0, 0.5), (1e7, 1.0)] {
            assert_eq!(share(after_ms), new, "{after_ms} ms");
        }
        let json = serde_json::to_string(&split).expect("numbers and names");
        assert_eq!(serde_json::from_str::<TrafficSplit>(&json).expect("its own"), split);
    }
}
