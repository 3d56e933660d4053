//! Where functions live: what a planner or an operator said about functions and shards, which all routers follow.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{FunctionId, ShardId, combine_keys};

/// A function on a shard.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Residence {
    /// The function.
    pub function: FunctionId,
    /// Where.
    pub shard: ShardId,
}

impl Residence {
    /// A function on a shard.
    pub fn new(function: impl Into<FunctionId>, shard: impl Into<ShardId>) -> Self {
        Self { function: function.into(), shard: shard.into() }
    }

    fn key(&self) -> u64 {
        combine_keys(self.function.key(), self.shard.key())
    }
}

/// What holds of functions and shards: which pairs to avoid, which are kept warm, which shards are to run empty.
///
/// Avoiding and draining are doubts, not hard rules: when nothing else is left, such a shard is used after all.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Lists", into = "Lists")]
pub struct Placements {
    avoided: BTreeSet<Residence>,
    warm: BTreeSet<Residence>,
    drained: BTreeSet<ShardId>,
    /// Keys of what is avoided, of the shards that are drained, and, salted, of what is kept warm, sorted: what a decision looks
    /// up.
    keys: Vec<u64>,
}

/// Tells keys of what is kept warm from those of what is avoided.
const WARM: u64 = 1;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Lists {
    #[serde(default)]
    avoided: BTreeSet<Residence>,
    #[serde(default)]
    warm: BTreeSet<Residence>,
    #[serde(default)]
    drained: BTreeSet<ShardId>,
}

impl From<Lists> for Placements {
    fn from(Lists { avoided, warm, drained }: Lists) -> Self {
        Self::new(avoided, warm, drained)
    }
}

impl From<Placements> for Lists {
    fn from(Placements { avoided, warm, drained, .. }: Placements) -> Self {
        Self { avoided, warm, drained }
    }
}

impl Placements {
    /// Pairs to avoid, pairs that are kept warm, shards to run empty.
    pub fn new(avoided: BTreeSet<Residence>, warm: BTreeSet<Residence>, drained: BTreeSet<ShardId>) -> Self {
        let away = avoided.iter().map(Residence::key).chain(drained.iter().map(ShardId::key));
        let mut keys: Vec<u64> = away.chain(warm.iter().map(|pair| combine_keys(pair.key(), WARM))).collect();
        keys.sort_unstable();
        Self { avoided, warm, drained, keys }
    }

    /// Whether nothing is said at all.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether any shard may have to be passed over; most of the time none has.
    #[inline]
    pub fn avoids_any(&self) -> bool {
        !(self.avoided.is_empty() && self.drained.is_empty())
    }

    /// Whether a function should go elsewhere while it can.
    #[inline]
    pub fn avoids(&self, function: &FunctionId, shard: &ShardId) -> bool {
        self.has(shard.key()) || self.has(combine_keys(function.key(), shard.key()))
    }

    fn has(&self, key: u64) -> bool {
        self.keys.binary_search(&key).is_ok()
    }

    /// Whether a shard keeps a function loaded whether or not it is used.
    #[inline]
    pub fn keeps_warm(&self, function: &FunctionId, shard: &ShardId) -> bool {
        !self.warm.is_empty() && self.has(combine_keys(combine_keys(function.key(), shard.key()), WARM))
    }

    /// Whether anything is said of a shard.
    pub fn names(&self, shard: &ShardId) -> bool {
        self.drained.contains(shard) || self.avoided.iter().chain(&self.warm).any(|pair| pair.shard == *shard)
    }

    /// These placements without what came between two others: what was added is gone, what was taken away is back, and what
    /// else has changed since stays.
    #[must_use]
    pub fn without_change(&self, before: &Self, after: &Self) -> Self {
        fn taken_back<T: Ord + Clone>(
            of: impl Fn(&Placements) -> &BTreeSet<T>,
            [now, before, after]: [&Placements; 3],
        ) -> BTreeSet<T> {
            let (now, before, after) = (of(now), of(before), of(after));
            let kept = now.iter().filter(|it| before.contains(it) || !after.contains(it));
            kept.chain(before.difference(after)).cloned().collect()
        }
        let all = [self, before, after];
        Self::new(taken_back(|it| &it.avoided, all), taken_back(|it| &it.warm, all), taken_back(|it| &it.drained, all))
    }

    /// Pairs to avoid.
    pub fn avoided(&self) -> &BTreeSet<Residence> {
        &self.avoided
    }

    /// Functions that shards keep loaded whether or not they are used.
    pub fn warm(&self) -> &BTreeSet<Residence> {
        &self.warm
    }

    /// Shards that are to run empty.
    pub fn drained(&self) -> &BTreeSet<ShardId> {
        &self.drained
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_and_whole_shards_are_avoided_and_what_is_warm_is_not() {
        let pair = |function: &str, shard: &str| Residence::new(function, shard);
        let placements = Placements::new([pair("f", "a")].into(), [pair("f", "b")].into(), ["c".into()].into());
        let avoids = |function: &str, shard: &str| placements.avoids(&function.into(), &shard.into());
        assert!(avoids("f", "a") && avoids("f", "c") && avoids("g", "c"));
        assert!(!avoids("g", "a") && !avoids("f", "b"));
        assert!(placements.avoids_any() && !placements.is_empty() && Placements::default().is_empty());
        let warm = |function: &str, shard: &str| placements.keeps_warm(&function.into(), &shard.into());
        assert_eq!([warm("f", "b"), warm("f", "a"), warm("g", "b")], [true, false, false]);
    }

    #[test]
    fn a_change_is_taken_back_and_what_others_changed_stays() {
        let of = |avoided: &[&str], drained: &[&str]| {
            let avoided = avoided.iter().map(|shard| Residence::new("f", *shard)).collect();
            Placements::new(avoided, BTreeSet::new(), drained.iter().map(|shard| ShardId::new(shard)).collect())
        };
        let (before, after) = (of(&["a"], &["c"]), of(&["b"], &["c", "d"]));
        let now = of(&["b", "x"], &["d", "e"]);
        assert_eq!(now.without_change(&before, &after), of(&["a", "x"], &["e"]), "c was taken back by somebody else");
        assert_eq!(after.without_change(&before, &after), before);
        assert!(now.names(&"x".into()) && now.names(&"e".into()) && !now.names(&"a".into()));
    }

    #[test]
    fn it_reads_what_it_writes() {
        let placements = Placements::new([Residence::new("f", "a")].into(), BTreeSet::new(), ["c".into()].into());
        let json = serde_json::to_string(&placements).unwrap();
        assert_eq!(json, r#"{"avoided":[{"function":"f","shard":"a"}],"warm":[],"drained":["c"]}"#);
        assert_eq!(serde_json::from_str::<Placements>(&json).unwrap(), placements);
        assert!(serde_json::from_str::<Placements>(r#"{"cold":[]}"#).is_err());
    }
}
