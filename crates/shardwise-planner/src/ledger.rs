//! The ledger: what was moved when, so that nothing goes back and forth and nothing moves too often.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use shardwise_types::{FunctionId, Placements, ShardId, Timestamp};

use crate::Action;

/// A function that left a shard for another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Move {
    /// When the step was applied.
    pub at: Timestamp,
    /// The shard that it left.
    pub from_shard: ShardId,
    /// Where room was reckoned for it; none when that is not known any more.
    pub to_shard: Option<ShardId>,
}

/// How a function and a shard stand that it left at some time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Away {
    /// Since when it has been away; none when it may come again.
    pub since: Option<Timestamp>,
    /// How often it left.
    pub times: u32,
}

/// Past moves, who stays away from what, and what is kept warm. Whoever applies a step records it here, and takes it back when it is rolled back.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ledger {
    moves: BTreeMap<FunctionId, Vec<Move>>,
    #[serde(default)]
    away: BTreeMap<ShardId, BTreeMap<FunctionId, Away>>,
    /// Since when each function is held.
    warm: BTreeMap<ShardId, BTreeMap<FunctionId, Timestamp>>,
    /// When shards joined or were drained last.
    #[serde(default)]
    shards_changed: Option<Timestamp>,
}

impl Ledger {
    /// Notes a step that was applied. Of joining and draining only the time is kept: the fleet shows who is there.
    pub fn record(&mut self, action: &Action, at: Timestamp) {
        match action {
            Action::MigrateFunction { function_name, from_shard, to_shard, .. } => {
                let step = Move { at, from_shard: from_shard.clone(), to_shard: Some(to_shard.clone()) };
                self.moves.entry(function_name.clone()).or_default().push(step);
                self.leave(function_name, from_shard, at);
                self.come_back(function_name, to_shard);
            }
            Action::ReturnFunction { function_name, shard, .. } => self.come_back(function_name, shard),
            Action::KeepWarm { function_name, shard, .. } => {
                self.warm.entry(shard.clone()).or_default().entry(function_name.clone()).or_insert(at);
            }
            Action::LetCool { function_name, shard, .. } => {
                if let Some(held) = self.warm.get_mut(shard) {
                    held.remove(function_name);
                }
            }
            Action::JoinShards { .. } | Action::DrainShards { .. } => self.shards_changed = Some(at),
        }
    }

    fn leave(&mut self, function: &FunctionId, shard: &ShardId, at: Timestamp) {
        let away = self.away.entry(shard.clone()).or_default().entry(function.clone()).or_default();
        away.times = away.times.saturating_add(u32::from(away.since.is_none()));
        // What runs there in spite of it, because it can nowhere else, may leave again: then the stay begins anew.
        away.since = Some(at);
    }

    fn come_back(&mut self, function: &FunctionId, shard: &ShardId) {
        if let Some(away) = self.away.get_mut(shard).and_then(|left| left.get_mut(function)) {
            away.since = None;
        }
    }

    /// Notes that placements changed: for those who know only what holds and what held, as the history of a fleet's
    /// configuration tells it.
    pub fn placed(&mut self, before: &Placements, after: &Placements, at: Timestamp) {
        for pair in after.avoided().difference(before.avoided()) {
            let step = Move { at, from_shard: pair.shard.clone(), to_shard: None };
            self.moves.entry(pair.function.clone()).or_default().push(step);
            self.leave(&pair.function, &pair.shard, at);
        }
        for pair in before.avoided().difference(after.avoided()) {
            self.come_back(&pair.function, &pair.shard);
        }
        for pair in after.warm().difference(before.warm()) {
            self.warm.entry(pair.shard.clone()).or_default().entry(pair.function.clone()).or_insert(at);
        }
        for pair in before.warm().difference(after.warm()) {
            self.warm.get_mut(&pair.shard).map(|held| held.remove(&pair.function));
        }
        if after.drained() != before.drained() {
            self.shards_changed = Some(at);
        }
    }

    /// When shards joined or were drained last, if they ever did.
    pub fn shards_changed(&self) -> Option<Timestamp> {
        self.shards_changed
    }

    /// Takes a step back that did not help. A move stays: going back is a move as well, and the way there is barred for
    /// the cooldown.
    pub fn roll_back(&mut self, action: &Action, at: Timestamp) {
        match action {
            Action::MigrateFunction { function_name, from_shard, to_shard, .. } => {
                let back = Move { at, from_shard: to_shard.clone(), to_shard: Some(from_shard.clone()) };
                self.moves.entry(function_name.clone()).or_default().push(back);
                self.come_back(function_name, from_shard);
            }
            Action::ReturnFunction { function_name, shard, .. } => self.leave(function_name, shard, at),
            Action::KeepWarm { function_name, shard, .. } => {
                if let Some(held) = self.warm.get_mut(shard) {
                    held.remove(function_name);
                }
            }
            Action::LetCool { function_name, shard, .. } => {
                self.warm.entry(shard.clone()).or_default().entry(function_name.clone()).or_insert(at);
            }
            Action::JoinShards { .. } | Action::DrainShards { .. } => self.shards_changed = Some(at),
        }
    }

    /// Whether the function left the shard at `since` or later.
    pub fn left_since(&self, function: &FunctionId, shard: &ShardId, since: Timestamp) -> bool {
        self.of(function).iter().any(|step| step.at >= since && step.from_shard == *shard)
    }

    /// Whether the function came to the shard at `since` or later.
    pub fn came_since(&self, function: &FunctionId, shard: &ShardId, since: Timestamp) -> bool {
        self.of(function).iter().any(|step| step.at >= since && step.to_shard.as_ref() == Some(shard))
    }

    /// How often the function moved at `since` or later.
    pub fn moves_since(&self, function: &FunctionId, since: Timestamp) -> usize {
        self.of(function).iter().filter(|step| step.at >= since).count()
    }

    /// How often anything moved at `since` or later.
    pub fn all_moves_since(&self, since: Timestamp) -> usize {
        self.moves.values().flatten().filter(|step| step.at >= since).count()
    }

    /// Shards that something left, and shards that something came to, at `since` or later.
    pub fn touched_since(&self, since: Timestamp) -> (BTreeSet<&ShardId>, BTreeSet<&ShardId>) {
        let recent = || self.moves.values().flatten().filter(move |step| step.at >= since);
        (recent().map(|step| &step.from_shard).collect(), recent().filter_map(|step| step.to_shard.as_ref()).collect())
    }

    /// The moves of a function, oldest first.
    pub fn of(&self, function: &FunctionId) -> &[Move] {
        self.moves.get(function).map_or(&[], Vec::as_slice)
    }

    /// Functions, shards that they left at some time, and how they stand, in the order of shards and functions.
    pub fn away(&self) -> impl Iterator<Item = (&FunctionId, &ShardId, &Away)> {
        self.away.iter().flat_map(|(shard, left)| left.iter().map(move |(function, away)| (function, shard, away)))
    }

    /// Whether the function is kept warm on the shard.
    pub fn is_warm(&self, function: &FunctionId, shard: &ShardId) -> bool {
        self.warm.get(shard).is_some_and(|held| held.contains_key(function))
    }

    /// What is kept warm, in the order of shards and functions.
    pub fn warm(&self) -> impl Iterator<Item = (&FunctionId, &ShardId)> {
        self.warm.iter().flat_map(|(shard, held)| held.keys().map(move |function| (function, shard)))
    }

    /// What is kept warm on a shard, and since when.
    pub fn warm_on(&self, shard: &ShardId) -> impl Iterator<Item = (&FunctionId, Timestamp)> {
        self.warm.get(shard).into_iter().flatten().map(|(function, since)| (function, *since))
    }

    /// Lets go of moves before an instant, so that a ledger does not grow for years; nothing in force may be older.
    pub fn forget_before(&mut self, instant: Timestamp) {
        for moves in self.moves.values_mut() {
            moves.retain(|step| step.at >= instant);
        }
        self.moves.retain(|_, moves| !moves.is_empty());
        let moves = &self.moves;
        let left_of_late = |function: &FunctionId, shard: &ShardId| {
            moves.get(function).is_some_and(|moves| moves.iter().any(|step| step.from_shard == *shard))
        };
        for (shard, left) in &mut self.away {
            left.retain(|function, away| {
                away.since.is_some_and(|since| since >= instant) || left_of_late(function, shard)
            });
        }
        self.away.retain(|_, left| !left.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Estimate, Unit};
    use shardwise_types::Residence;

    fn migrate(from: &str, to: &str) -> Action {
        Action::MigrateFunction {
            function_name: "f".into(),
            from_shard: from.into(),
            to_shard: to.into(),
            reason: String::new(),
            estimated_benefit: Estimate::new(1.0, 1.0, 1.0, Unit::LatencyMs),
        }
    }

    fn minute(minute: i64) -> Timestamp {
        Timestamp::from_nanos(minute * 60_000_000_000)
    }

    #[test]
    fn what_left_is_known_until_it_is_forgotten() {
        let mut ledger = Ledger::default();
        ledger.record(&migrate("a", "b"), minute(5));
        assert!(ledger.left_since(&"f".into(), &"a".into(), minute(5)));
        assert!(ledger.came_since(&"f".into(), &"b".into(), minute(5)));
        assert!(!ledger.left_since(&"f".into(), &"a".into(), minute(6)), "the cooldown is over");
        assert!(!ledger.left_since(&"f".into(), &"b".into(), minute(0)));
        ledger.forget_before(minute(6));
        assert_eq!(ledger, Ledger::default());
    }

    #[test]
    fn a_move_that_was_rolled_back_is_not_tried_again_soon() {
        let mut ledger = Ledger::default();
        ledger.record(&migrate("a", "b"), minute(5));
        ledger.roll_back(&migrate("a", "b"), minute(6));
        assert!(ledger.left_since(&"f".into(), &"b".into(), minute(5)), "b is barred now");
        assert_eq!(ledger.moves_since(&"f".into(), minute(0)), 2);
    }

    #[test]
    fn placements_over_time_tell_what_was_done() {
        let pair = |shard: &str| Residence::new("f", shard);
        let placements = |avoided: &[&str], warm: &[&str]| {
            let of = |shards: &[&str]| shards.iter().map(|shard| pair(shard)).collect();
            Placements::new(of(avoided), of(warm), [].into())
        };
        let mut ledger = Ledger::default();
        let (first, second) = (placements(&["a"], &["b"]), placements(&["a", "c"], &[]));
        ledger.placed(&Placements::default(), &first, minute(1));
        ledger.placed(&first, &second, minute(2));
        assert_eq!(ledger.of(&"f".into()).iter().map(|step| step.from_shard.as_str()).collect::<Vec<_>>(), ["a", "c"]);
        assert!(ledger.left_since(&"f".into(), &"c".into(), minute(2)) && !ledger.is_warm(&"f".into(), &"b".into()));
        let away = |ledger: &Ledger| -> Vec<(String, Option<Timestamp>, u32)> {
            ledger.away().map(|(_, shard, away)| (shard.to_string(), away.since, away.times)).collect()
        };
        assert_eq!(away(&ledger), [("a".into(), Some(minute(1)), 1), ("c".into(), Some(minute(2)), 1)]);
        ledger.placed(&second, &placements(&["c"], &[]), minute(3));
        ledger.placed(&placements(&["c"], &[]), &second, minute(4));
        assert_eq!(away(&ledger), [("a".into(), Some(minute(4)), 2), ("c".into(), Some(minute(2)), 1)], "a left again");
        let again = migrate("c", "b");
        let mut twice = ledger.clone();
        twice.record(&again, minute(5));
        assert_eq!(away(&twice)[1], ("c".into(), Some(minute(5)), 1), "it ran there all the same, and left once more");
        ledger.forget_before(minute(3));
        assert_eq!(away(&ledger), [("a".into(), Some(minute(4)), 2)], "c left too long ago to be counted");
        assert_eq!(ledger.shards_changed(), None);
        ledger.placed(&Placements::default(), &Placements::new([].into(), [].into(), ["a".into()].into()), minute(5));
        assert_eq!(ledger.shards_changed(), Some(minute(5)));
    }

    #[test]
    fn what_is_kept_warm_survives_a_file() {
        let warm = |shard: &str| Action::KeepWarm {
            function_name: "f".into(),
            shard: shard.into(),
            reason: String::new(),
            estimated_benefit: Estimate::new(1.0, 1.0, 1.0, Unit::LatencyMs),
        };
        let mut ledger = Ledger::default();
        ledger.record(&warm("a"), minute(0));
        ledger.record(&warm("b"), minute(0));
        ledger.roll_back(&warm("b"), minute(1));
        let read: Ledger = serde_json::from_str(&serde_json::to_string(&ledger).unwrap()).unwrap();
        assert_eq!(read, ledger);
        assert!(read.is_warm(&"f".into(), &"a".into()) && !read.is_warm(&"f".into(), &"b".into()));
    }
}
