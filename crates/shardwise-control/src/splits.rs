//! Where a split sends a request: an immutable snapshot that routers ask for each decision.
//!
//! It holds what is committed for later, too, and switches by the time it is given: whether a router serves the new
//! version does not depend on when its agent was scheduled last.

use std::cmp::Ordering;

use shardwise_types::{FunctionId, ShardId, Timestamp};

use crate::{ActiveSplit, AgentState, Configuration};

/// The splits of all functions, now and after a committed change.
#[derive(Debug, Clone, Default)]
pub struct Splits {
    now: Table,
    next: Option<(Timestamp, Table)>,
}

/// Where a split sends a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick<'a> {
    /// To this shard.
    Shard(&'a ShardId),
    /// The function has no split: the policy decides.
    NoSplit,
    /// No shard of the split is eligible: the policy decides, and counts why.
    NoneEligible,
}

/// One version.
#[derive(Debug, Clone, Default)]
struct Table {
    version: u64,
    /// In the order of [`compare`].
    functions: Vec<(FunctionId, Vec<Step>)>,
}

#[derive(Debug, Clone)]
struct Step {
    from: Timestamp,
    /// Weights above 0, in the order of the shards' names.
    weights: Vec<(ShardId, f64)>,
}

impl Splits {
    /// The splits that an agent with this state serves.
    pub fn of(state: &AgentState) -> Self {
        let committed = state.prepared.as_ref().filter(|prepared| prepared.committed);
        let next = committed.map(|prepared| (prepared.effective_at, Table::of(&prepared.next)));
        Self { now: Table::of(&state.applied), next }
    }

    /// The version that is served at `now`.
    pub fn version(&self, now: Timestamp) -> u64 {
        self.table(now).version
    }

    /// Sends a request of `function` to one of the shards of its split, by its weight among those that are eligible.
    ///
    /// The same `draw`, uniform in [0, 1), gives the same shard; a draw outside is taken as the nearest end. `eligible`
    /// is asked up to twice for each shard and must not change its mind meanwhile. Nothing is allocated.
    pub fn pick(
        &self,
        function: &FunctionId,
        now: Timestamp,
        draw: f64,
        eligible: impl Fn(&ShardId) -> bool,
    ) -> Pick<'_> {
        let Some(weights) = self.table(now).weights(function, now) else { return Pick::NoSplit };
        let candidates = || weights.iter().filter(|(shard, _)| eligible(shard));
        let total: f64 = candidates().map(|(_, weight)| weight).sum();
        // `max` makes 0 of what is not a number.
        let target = draw.max(0.0) * total;
        let mut below = 0.0;
        let mut picked = None;
        for (shard, weight) in candidates() {
            below += weight;
            picked = Some(shard);
            if target < below {
                break;
            }
        }
        picked.map_or(Pick::NoneEligible, Pick::Shard)
    }

    /// The probability with which [`pick`](Self::pick) names the shard, over all draws, in [0, 1].
    pub fn share(
        &self,
        function: &FunctionId,
        now: Timestamp,
        shard: &ShardId,
        eligible: impl Fn(&ShardId) -> bool,
    ) -> f64 {
        let weights = self.table(now).weights(function, now).unwrap_or_default();
        let candidates = || weights.iter().filter(|(shard, _)| eligible(shard));
        let total: f64 = candidates().map(|(_, weight)| weight).sum();
        candidates().find(|(candidate, _)| candidate == shard).map_or(0.0, |(_, weight)| weight / total)
    }

    fn table(&self, now: Timestamp) -> &Table {
        match &self.next {
            Some((from, next)) if *from <= now => next,
            _ => &self.now,
        }
    }
}

impl Table {
    fn of(configuration: &Configuration) -> Self {
        let mut functions: Vec<(FunctionId, Vec<Step>)> =
            configuration.splits.iter().map(|(function, active)| (function.clone(), steps(active))).collect();
        functions.sort_by(|(left, _), (right, _)| compare(left, right));
        Self { version: configuration.version, functions }
    }

    fn weights(&self, function: &FunctionId, now: Timestamp) -> Option<&[(ShardId, f64)]> {
        let found = self.functions.binary_search_by(|(candidate, _)| compare(candidate, function)).ok()?;
        let steps = &self.functions[found].1;
        let begun = steps.partition_point(|step| step.from <= now);
        steps.get(begun.saturating_sub(1)).map(|step| step.weights.as_slice())
    }
}

fn steps(active: &ActiveSplit) -> Vec<Step> {
    let of = |step: &crate::SplitStep| Step {
        from: step.begins_at(active.since),
        weights: step
            .weights
            .iter()
            .filter(|(_, weight)| **weight > 0.0)
            .map(|(id, weight)| (id.clone(), *weight))
            .collect(),
    };
    active.split.steps().iter().map(of).collect()
}

/// By key, which is one comparison, and by name among the few that share one.
fn compare(left: &FunctionId, right: &FunctionId) -> Ordering {
    left.key().cmp(&right.key()).then_with(|| left.cmp(right))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Prepared, SplitStep, TrafficSplit};

    fn at(ms: f64) -> Timestamp {
        Timestamp::from_nanos(1_000_000_000_000).plus_millis(ms)
    }

    fn configuration(version: u64, split: TrafficSplit) -> Configuration {
        let splits = [(FunctionId::new("f"), ActiveSplit { since: at(0.0), split })].into();
        Configuration { version, splits, ..Configuration::default() }
    }

    fn weights(weights: &[(&str, f64)]) -> Vec<(ShardId, f64)> {
        weights.iter().map(|(shard, weight)| (ShardId::new(shard), *weight)).collect()
    }

    fn splits(split: TrafficSplit) -> Splits {
        Splits::of(&AgentState { applied: configuration(1, split), ..AgentState::default() })
    }

    fn name<'a>(pick: Pick<'a>) -> &'a str {
        match pick {
            Pick::Shard(shard) => shard.as_str(),
            Pick::NoSplit => "no split",
            Pick::NoneEligible => "none eligible",
        }
    }

    #[test]
    fn the_draw_decides_among_those_that_are_eligible() {
        let splits =
            splits(TrafficSplit::of(weights(&[("a", 0.5), ("b", 0.25), ("c", 0.25), ("d", 0.0)])).expect("right"));
        for (draw, without, expected) in [
            (0.0, "", "a"),
            (0.499, "", "a"),
            (0.5, "", "b"),
            (0.75, "", "c"),
            (0.999_999, "", "c"),
            (1.0, "", "c"),
            (7.0, "", "c"),
            (-1.0, "", "a"),
            (f64::NAN, "", "a"),
            (0.49, "a", "b"),
            (0.5, "a", "c"),
            (0.66, "b", "a"),
            (0.67, "b", "c"),
            (0.5, "abc", "none eligible"),
        ] {
            let pick = splits.pick(&FunctionId::new("f"), at(0.0), draw, |shard| !without.contains(shard.as_str()));
            assert_eq!(name(pick), expected, "{draw} without '{without}'");
        }
        assert_eq!(splits.pick(&FunctionId::new("g"), at(0.0), 0.5, |_| true), Pick::NoSplit);
    }

    #[test]
    fn steps_and_committed_changes_begin_by_the_time_given() {
        let step = |after_ms, shard| SplitStep { after_ms, weights: [(ShardId::new(shard), 1.0)].into() };
        let canary = TrafficSplit::new(vec![step(0, "a"), step(1_000, "b")]).expect("right");
        let after = configuration(2, TrafficSplit::of(weights(&[("c", 1.0)])).expect("right"));
        let prepared = |committed| Prepared { effective_at: at(2_000.0), next: after.clone(), committed };
        let state = |committed| AgentState {
            applied: configuration(1, canary.clone()),
            prepared: Some(prepared(committed)),
            highest: 2,
        };
        for (committed, ms, version, shard) in [
            (true, -1.0, 1, "a"),
            (true, 999.9, 1, "a"),
            (true, 1_000.0, 1, "b"),
            (true, 1_999.9, 1, "b"),
            (true, 2_000.0, 2, "c"),
            (false, 2_000.0, 1, "b"),
        ] {
            let splits = Splits::of(&state(committed));
            assert_eq!(splits.version(at(ms)), version, "{ms} ms");
            assert_eq!(name(splits.pick(&FunctionId::new("f"), at(ms), 0.5, |_| true)), shard, "{ms} ms");
        }
    }

    proptest! {
        #[test]
        fn shares_are_the_weights_of_those_that_are_eligible(
            raw in prop::collection::vec((0_u32..100, any::<bool>()), 1..12),
        ) {
            let sum: u32 = raw.iter().map(|(weight, _)| weight).sum();
            prop_assume!(sum > 0);
            let names: Vec<String> = (0..raw.len()).map(|number| format!("s{number:02}")).collect();
            let share = |weight: u32| f64::from(weight) / f64::from(sum);
            let of = |(id, (weight, _)): (&String, &(u32, bool))| (ShardId::new(id), share(*weight));
            let splits = splits(TrafficSplit::of(names.iter().zip(&raw).map(of)).expect("right"));
            let eligible = |id: &ShardId| names.iter().zip(&raw).any(|(it, (_, is))| it == id.as_str() && *is);
            let left: u32 = raw.iter().filter(|(_, is)| *is).map(|(weight, _)| weight).sum();
            let mut counts = vec![0_u32; raw.len()];
            // The middles of equal parts meet each share exactly.
            for part in 0..left.max(1) {
                let draw = (f64::from(part) + 0.5) / f64::from(left.max(1));
                match splits.pick(&FunctionId::new("f"), at(0.0), draw, eligible) {
                    Pick::Shard(id) => counts[names.iter().position(|it| it == id.as_str()).expect("one of them")] += 1,
                    pick => prop_assert_eq!((pick, left), (Pick::NoneEligible, 0)),
                }
            }
            for ((count, (weight, is)), id) in counts.iter().zip(&raw).zip(&names) {
                prop_assert_eq!(*count, if *is { *weight } else { 0 });
                if *is && left > 0 {
                    let told = splits.share(&FunctionId::new("f"), at(0.0), &ShardId::new(id), eligible);
                    prop_assert!((told - f64::from(*weight) / f64::from(left)).abs() < 1e-9);
                }
            }
        }
    }
}
