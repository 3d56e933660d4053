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

/// Past moves, who stays away from what, what is kept warm, and which shards stand by. Whoever applies a step records it here;
/// whoever only knows what holds and what held says so ([`Self::placed`]), which is also how a step is taken back. It is as
/// long as what it is made from.
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
    /// Shards that are drained: they may go on reporting, and take nothing.
    #[serde(default)]
    drained: BTreeSet<ShardId>,
    /// Since when shards that were drained take work again.
    #[serde(default)]
    joined: BTreeMap<ShardId, Timestamp>,
}

impl Ledger {
    /// Notes a step that was applied. Of the shards that are to join those do that stand by, in the order in which
    /// [`Action::joining`] takes them; new ones show by their reports.
    pub fn record(&mut self, action: &Action, at: Timestamp) {
        match action {
            Action::MigrateFunction { function_name, from_shard, to_shard, .. } => {
                let step = Move { at, from_shard: from_shard.clone(), to_shard: Some(to_shard.clone()) };
                self.moves.entry(function_name.clone()).or_default().push(step);
                self.leave(function_name, from_shard, at);
                self.come_back(function_name, to_shard);
            }
            Action::ReturnFunction { function_name, shard, .. } => self.come_back(function_name, shard),
            Action::KeepWarm { function_name, shard, .. } => self.hold(function_name, shard, at),
            Action::LetCool { function_name, shard, .. } => self.let_go(function_name, shard),
            Action::JoinShards { count, .. } => {
                let joining: Vec<ShardId> = self.drained.iter().take(*count as usize).cloned().collect();
                joining.into_iter().for_each(|shard| self.join(shard, at));
                self.shards_changed = Some(at);
            }
            Action::DrainShards { shards, .. } => shards.iter().for_each(|shard| self.drain(shard.clone(), at)),
        }
    }

    fn hold(&mut self, function: &FunctionId, shard: &ShardId, at: Timestamp) {
        self.warm.entry(shard.clone()).or_default().entry(function.clone()).or_insert(at);
    }

    fn let_go(&mut self, function: &FunctionId, shard: &ShardId) {
        if let Some(held) = self.warm.get_mut(shard) {
            held.remove(function);
        }
    }

    fn join(&mut self, shard: ShardId, at: Timestamp) {
        self.drained.remove(&shard);
        self.joined.insert(shard, at);
        self.shards_changed = Some(at);
    }

    fn drain(&mut self, shard: ShardId, at: Timestamp) {
        self.joined.remove(&shard);
        self.drained.insert(shard);
        self.shards_changed = Some(at);
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
    /// configuration tells it. Where a function went is not known then.
    pub fn placed(&mut self, before: &Placements, after: &Placements, at: Timestamp) {
        for pair in after.avoided().difference(before.avoided()) {
            let step = Move { at, from_shard: pair.shard.clone(), to_shard: None };
            self.moves.entry(pair.function.clone()).or_default().push(step);
            self.leave(&pair.function, &pair.shard, at);
        }
        for pair in before.avoided().difference(after.avoided()) {
            self.come_back(&pair.function, &pair.shard);
        }
        after.warm().difference(before.warm()).for_each(|pair| self.hold(&pair.function, &pair.shard, at));
        before.warm().difference(after.warm()).for_each(|pair| self.let_go(&pair.function, &pair.shard));
        after.drained().difference(before.drained()).for_each(|shard| self.drain(shard.clone(), at));
        before.drained().difference(after.drained()).for_each(|shard| self.join(shard.clone(), at));
    }

    /// When shards joined or were drained last, if they ever did.
    pub fn shards_changed(&self) -> Option<Timestamp> {
        self.shards_changed
    }

    /// Whether a shard is drained.
    pub fn is_drained(&self, shard: &ShardId) -> bool {
        self.drained.contains(shard)
    }

    /// Shards that were drained and take work again, at `since` or later, by name.
    pub fn joined_since(&self, since: Timestamp) -> impl Iterator<Item = &ShardId> {
        self.joined.iter().filter(move |(_, at)| **at >= since).map(|(shard, _)| shard)
    }

    /// Whether the function left the shard at `since` or later.
    pub fn left_since(&self, function: &FunctionId, shard: &ShardId, since: Timestamp) -> bool {
        self.of(function).iter().any(|step| step.at >= since && step.from_shard == *shard)
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

    /// Whether anything moved at `since` or later of which is not known where it went: any shard may have taken it.
    pub fn went_anywhere_since(&self, since: Timestamp) -> bool {
        self.moves.values().flatten().any(|step| step.at >= since && step.to_shard.is_none())
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
    fn what_left_is_known() {
        let mut ledger = Ledger::default();
        ledger.record(&migrate("a", "b"), minute(5));
        assert!(ledger.left_since(&"f".into(), &"a".into(), minute(5)));
        assert_eq!(ledger.touched_since(minute(5)), ([&"a".into()].into(), [&"b".into()].into()));
        assert!(!ledger.left_since(&"f".into(), &"a".into(), minute(6)), "the cooldown is over");
        assert!(!ledger.left_since(&"f".into(), &"b".into(), minute(0)));
        assert!(!ledger.went_anywhere_since(minute(0)), "where it went is known");
    }

    #[test]
    fn a_move_that_was_taken_back_is_not_tried_again_soon() {
        let avoids_a = migrate("a", "b").carried_out_on(&Placements::default());
        let mut ledger = Ledger::default();
        ledger.placed(&Placements::default(), &avoids_a, minute(5));
        ledger.placed(&avoids_a, &Placements::default(), minute(6));
        assert!(ledger.left_since(&"f".into(), &"a".into(), minute(5)), "it counts as having left");
        assert!(ledger.went_anywhere_since(minute(5)) && !ledger.went_anywhere_since(minute(6)));
        assert!(ledger.away().all(|(_, _, away)| away.since.is_none()), "and it is there");
    }

    #[test]
    fn shards_that_are_drained_are_known_and_when_they_took_work_again() {
        let benefit = Estimate::new(1.0, 1.0, 1.0, Unit::Shards);
        let (group, reason) = ("aave".to_owned(), String::new());
        let shards = vec!["b".into(), "a".into()];
        let drain =
            Action::DrainShards { group: group.clone(), shards, reason: reason.clone(), estimated_benefit: benefit };
        let join = Action::JoinShards { group, count: 1, reason, estimated_benefit: benefit };
        let joined = |ledger: &Ledger, since: i64| ledger.joined_since(minute(since)).cloned().collect::<Vec<_>>();
        let mut recorded = Ledger::default();
        recorded.record(&drain, minute(1));
        assert!(recorded.is_drained(&"a".into()) && recorded.is_drained(&"b".into()));
        recorded.record(&join, minute(2));
        assert!(!recorded.is_drained(&"a".into()) && recorded.is_drained(&"b".into()));
        assert_eq!((joined(&recorded, 2), joined(&recorded, 3)), (vec!["a".into()], vec![]));
        // Placements that were changed by the same steps tell the same.
        let mut placed = Ledger::default();
        let none = Placements::default();
        let drained = drain.carried_out_on(&none);
        placed.placed(&none, &drained, minute(1));
        placed.placed(&drained, &join.carried_out_on(&drained), minute(2));
        assert_eq!(placed, recorded);
        recorded.record(&drain, minute(3));
        assert_eq!((joined(&recorded, 0), recorded.shards_changed()), (vec![], Some(minute(3))));
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
        let let_cool = Action::LetCool {
            function_name: "f".into(),
            shard: "b".into(),
            reason: String::new(),
            estimated_benefit: Estimate::new(1.0, 1.0, 1.0, Unit::LatencyMs),
        };
        let mut ledger = Ledger::default();
        ledger.record(&warm("a"), minute(0));
        ledger.record(&warm("b"), minute(0));
        ledger.record(&let_cool, minute(1));
        let read: Ledger = serde_json::from_str(&serde_json::to_string(&ledger).unwrap()).unwrap();
        assert_eq!(read, ledger);
        assert!(read.is_warm(&"f".into(), &"a".into()) && !read.is_warm(&"f".into(), &"b".into()));
    }
}
