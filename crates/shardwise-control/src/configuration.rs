//! The whole configuration under one version, and changes of it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use shardwise_types::{FunctionId, InvalidInput, Placements, Residence, ShardId, Timestamp};

use crate::{ShardLimits, TrafficSplit};

/// All splits, limits and placements. Whoever has the same version has the same configuration.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Configuration {
    /// The change that made it; 0 is empty and was made by none.
    pub version: u64,
    /// The split of each function that has one.
    pub splits: BTreeMap<FunctionId, ActiveSplit>,
    /// The limits of each shard that was given some.
    pub limits: BTreeMap<ShardId, ShardLimits>,
    /// Where functions are to live.
    #[serde(default, skip_serializing_if = "Placements::is_empty")]
    pub placements: Placements,
}

/// A split and the instant from which the times of its steps count.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ActiveSplit {
    /// When it took effect first. A rollback keeps it: a canary that had run its course does not start again.
    pub since: Timestamp,
    /// The weights.
    pub split: TrafficSplit,
}

/// One change: who wants what, why, and from when on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Its number. Withdrawn changes have numbers, too, and none is used twice.
    pub version: u64,
    /// The version that it was made on.
    pub from_version: u64,
    /// Who wants it.
    pub author: String,
    /// Why.
    pub why: String,
    /// When it was proposed, by the coordinator's clock.
    pub created_at: Timestamp,
    /// From when on it holds, everywhere.
    pub effective_at: Timestamp,
    /// What is to change.
    pub what: What,
}

/// What is to change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum What {
    /// The split of a function.
    Split {
        /// Whose requests are shared out.
        function: FunctionId,
        /// The weights.
        split: TrafficSplit,
    },
    /// A function is placed by the policy alone again.
    NoSplit {
        /// Whose split goes.
        function: FunctionId,
    },
    /// The limits of a shard.
    Limits {
        /// Which shard.
        shard: ShardId,
        /// What it may use at most.
        limits: ShardLimits,
    },
    /// Where functions are to live, all of it.
    Placements {
        /// What is to be avoided, kept warm and drained.
        placements: Placements,
    },
    /// All is to be as it was at an earlier version.
    Rollback {
        /// As it was then; its version is the earlier one.
        configuration: Configuration,
    },
}

impl What {
    /// Checks it by itself and against the shards of the fleet.
    ///
    /// # Errors
    /// Names the first field that is wrong: an unknown shard, an empty name, limits that are none.
    pub fn check(&self, knows: impl Fn(&ShardId) -> bool) -> Result<(), InvalidInput> {
        let known = |field: &str, shard: &ShardId| match knows(shard) {
            true => Ok(()),
            false => Err(InvalidInput::new(field, format!("'{shard}' is not a shard of this fleet"))),
        };
        match self {
            Self::Split { function, split } => {
                check_function(function)?;
                split.shards().try_for_each(|shard| known("weights", shard))
            }
            Self::NoSplit { function } => check_function(function),
            Self::Limits { shard, limits } => {
                known("shard", shard)?;
                limits.check()
            }
            Self::Placements { placements } => {
                let of = |pairs: &BTreeSet<Residence>| -> Result<(), InvalidInput> {
                    pairs.iter().try_for_each(|pair| {
                        check_function(&pair.function)?;
                        known("shard", &pair.shard)
                    })
                };
                of(placements.avoided())?;
                of(placements.warm())?;
                placements.drained().iter().try_for_each(|shard| known("drained", shard))
            }
            // What was in force once may name shards that have gone since; routers pass those over.
            Self::Rollback { configuration } => configuration.limits.values().try_for_each(ShardLimits::check),
        }
    }

    /// What it is in a few words, for people.
    pub fn summary(&self) -> String {
        match self {
            Self::Split { function, split } => {
                let first: Vec<String> =
                    split.steps()[0].weights.iter().map(|(shard, weight)| format!("{shard} {weight}")).collect();
                let later = match split.steps().len() - 1 {
                    0 => String::new(),
                    1 => " and 1 later step".to_owned(),
                    more => format!(" and {more} later steps"),
                };
                format!("split {function}: {}{later}", first.join(", "))
            }
            Self::NoSplit { function } => format!("no split for {function}"),
            Self::Limits { shard, limits } => {
                format!("limits {shard}: {} cores, {} MB", limits.max_cpu_cores, limits.max_memory_mb)
            }
            Self::Placements { placements } => format!(
                "placements: {} avoided, {} warm, {} drained",
                placements.avoided().len(),
                placements.warm().len(),
                placements.drained().len()
            ),
            Self::Rollback { configuration } => format!("back to version {}", configuration.version),
        }
    }
}

fn check_function(function: &FunctionId) -> Result<(), InvalidInput> {
    if function.as_str().trim().is_empty() {
        return Err(InvalidInput::new("function", "it is empty; name the function"));
    }
    Ok(())
}

impl Configuration {
    /// The configuration that a change makes of this one.
    #[must_use]
    pub fn after(&self, change: &Change) -> Self {
        let mut next = self.clone();
        match &change.what {
            What::Split { function, split } => {
                let active = ActiveSplit { since: change.effective_at, split: split.clone() };
                next.splits.insert(function.clone(), active);
            }
            What::NoSplit { function } => {
                next.splits.remove(function);
            }
            What::Limits { shard, limits } => {
                next.limits.insert(shard.clone(), *limits);
            }
            What::Placements { placements } => next.placements = placements.clone(),
            What::Rollback { configuration } => next = configuration.clone(),
        }
        next.version = change.version;
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(version: u64, what: What) -> Change {
        let at = Timestamp::from_nanos(version as i64);
        let (author, why) = ("ann".to_owned(), "a test".to_owned());
        Change { version, from_version: version - 1, author, why, created_at: at, effective_at: at, what }
    }

    fn split(function: &str) -> What {
        let split = TrafficSplit::of([(ShardId::new("a"), 1.0)]).expect("it is right");
        What::Split { function: FunctionId::new(function), split }
    }

    #[test]
    fn a_rollback_restores_all_but_the_version() {
        let one = Configuration::default().after(&change(1, split("f")));
        let limits = ShardLimits {
            max_cpu_cores: 1.0,
            max_memory_mb: 1.0,
            max_concurrent_functions: None,
            max_requests_in_flight: None,
        };
        let two = one.after(&change(2, What::Limits { shard: ShardId::new("a"), limits }));
        let three = two.after(&change(3, What::NoSplit { function: FunctionId::new("f") }));
        assert_eq!((three.splits.len(), three.limits.len(), three.version), (0, 1, 3));
        let back = three.after(&change(4, What::Rollback { configuration: one.clone() }));
        assert_eq!(back, Configuration { version: 4, ..one });
    }

    #[test]
    fn unknown_shards_and_empty_names_are_refused() {
        let knows = |shard: &ShardId| shard.as_str() == "b";
        assert_eq!(split("f").check(knows).expect_err("a is unknown").field, "weights");
        assert_eq!(split(" ").check(|_| true).expect_err("no name").field, "function");
        split("f").check(|_| true).expect("it is right");
    }

    #[test]
    fn placements_are_replaced_as_a_whole_and_their_shards_must_be_known() {
        let avoided = |shard: &str| Placements::new([Residence::new("f", shard)].into(), [].into(), [].into());
        let what = |placements: Placements| What::Placements { placements };
        let one = Configuration::default().after(&change(1, what(avoided("a"))));
        let two = one.after(&change(2, what(avoided("b"))));
        assert_eq!(two.placements, avoided("b"));
        assert_eq!(two.after(&change(3, What::Rollback { configuration: one.clone() })).placements, avoided("a"));
        let drained = Placements::new([].into(), [].into(), [ShardId::new("a")].into());
        let knows = |shard: &ShardId| shard.as_str() == "b";
        assert_eq!(what(drained).check(knows).expect_err("a is unknown").field, "drained");
        assert_eq!(what(avoided("a")).check(knows).expect_err("a is unknown").field, "shard");
        what(avoided("b")).check(knows).expect("it is right");
        let json = serde_json::to_string(&two).expect("names and numbers");
        assert_eq!(serde_json::from_str::<Configuration>(&json).expect("its own"), two);
    }

    #[test]
    fn changes_are_read_as_they_were_written() {
        let written = change(1, split("f"));
        let json = serde_json::to_string(&written).expect("names and numbers");
        assert!(json.contains(r#""what":{"kind":"split","function":"f""#), "{json}");
        assert_eq!(serde_json::from_str::<Change>(&json).expect("its own"), written);
    }
}
