//! What plans ask for: moves, functions to keep warm, shards to join or to drain. Each has a lever that undoes it.

use serde::{Deserialize, Serialize};
use shardwise_types::{FunctionId, Placements, Residence, ShardId};

/// What an [`Estimate`] counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Milliseconds of latency saved, over all requests of the horizon.
    LatencyMs,
    /// Minutes of one core, over the horizon.
    CoreMinutes,
    /// Cores.
    Cores,
    /// Shards' worth of load.
    Shards,
}

/// Of the normal distribution: nine in ten lie within so many deviations.
pub(crate) const NINE_IN_TEN: f64 = 1.645;

/// An estimate with an interval that holds nine times in ten; `low` ≤ `value` ≤ `high`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Estimate {
    /// The most likely value.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// What it counts.
    pub unit: Unit,
}

impl Estimate {
    /// Makes an estimate; the ends are moved to the value where they lie beyond it.
    pub fn new(value: f64, low: f64, high: f64, unit: Unit) -> Self {
        Self { value, low: low.min(value), high: high.max(value), unit }
    }

    /// Sums estimates of one unit. The ends are summed as well, as if all went wrong together: the interval is wide
    /// rather than wrong, for errors of one forecast are shared.
    pub fn sum<'a>(unit: Unit, parts: impl IntoIterator<Item = &'a Self>) -> Self {
        parts.into_iter().fold(Self::new(0.0, 0.0, 0.0, unit), |sum, part| {
            Self::new(sum.value + part.value, sum.low + part.low, sum.high + part.high, unit)
        })
    }
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum Action {
    /// The function avoids a shard; its traffic there is expected to go to another.
    MigrateFunction {
        /// The function.
        function_name: FunctionId,
        /// The shard that it avoids from now on.
        from_shard: ShardId,
        /// Where room was reckoned for it.
        to_shard: ShardId,
        /// Why, in words.
        reason: String,
        /// What it saves.
        estimated_benefit: Estimate,
    },
    /// The function need not avoid a shard any longer.
    ReturnFunction {
        /// The function.
        function_name: FunctionId,
        /// The shard that it avoided.
        shard: ShardId,
        /// Why, in words.
        reason: String,
        /// What it saves, as far as is known.
        estimated_benefit: Estimate,
    },
    /// The function is held in a shard's memory, whether it is asked for or not.
    KeepWarm {
        /// The function.
        function_name: FunctionId,
        /// Where it is held.
        shard: ShardId,
        /// Why, in words.
        reason: String,
        /// What it saves.
        estimated_benefit: Estimate,
    },
    /// The function is not held any longer; the shard may forget it.
    LetCool {
        /// The function.
        function_name: FunctionId,
        /// Where it was held.
        shard: ShardId,
        /// Why, in words.
        reason: String,
        /// What it saves.
        estimated_benefit: Estimate,
    },
    /// Shards that stand by, drained, take work again, or new ones are started, for a protocol or a group of functions.
    JoinShards {
        /// The protocol or group.
        group: String,
        /// How many join; at least 1.
        count: u32,
        /// Why, in words.
        reason: String,
        /// What it brings.
        estimated_benefit: Estimate,
    },
    /// Shards take nothing new, finish what they have, and leave.
    DrainShards {
        /// The protocol or group.
        group: String,
        /// Which ones, in the order in which they leave.
        shards: Vec<ShardId>,
        /// Why, in words.
        reason: String,
        /// What it saves.
        estimated_benefit: Estimate,
    },
}

impl Action {
    /// Why, in words.
    pub fn reason(&self) -> &str {
        match self {
            Self::MigrateFunction { reason, .. }
            | Self::ReturnFunction { reason, .. }
            | Self::KeepWarm { reason, .. }
            | Self::LetCool { reason, .. }
            | Self::JoinShards { reason, .. }
            | Self::DrainShards { reason, .. } => reason,
        }
    }

    /// The function that it concerns; none when it concerns whole shards.
    pub fn function(&self) -> Option<&FunctionId> {
        match self {
            Self::MigrateFunction { function_name, .. }
            | Self::ReturnFunction { function_name, .. }
            | Self::KeepWarm { function_name, .. }
            | Self::LetCool { function_name, .. } => Some(function_name),
            Self::JoinShards { .. } | Self::DrainShards { .. } => None,
        }
    }

    /// The shards that join, of those that are drained, in the order of names; fewer than it asks for when fewer stand by.
    pub fn joining(&self, placements: &Placements) -> Vec<ShardId> {
        match self {
            Self::JoinShards { count, .. } => placements.drained().iter().take(*count as usize).cloned().collect(),
            _ => Vec::new(),
        }
    }

    /// Where functions live once it was carried out. Shards that have to be started first change nothing here.
    #[must_use]
    pub fn carried_out_on(&self, placements: &Placements) -> Placements {
        let [mut avoided, mut warm] = [placements.avoided().clone(), placements.warm().clone()];
        let mut drained = placements.drained().clone();
        let pair = |function: &FunctionId, shard: &ShardId| Residence::new(function.clone(), shard.clone());
        match self {
            Self::MigrateFunction { function_name, from_shard, to_shard, .. } => {
                avoided.insert(pair(function_name, from_shard));
                avoided.remove(&pair(function_name, to_shard));
            }
            Self::ReturnFunction { function_name, shard, .. } => drop(avoided.remove(&pair(function_name, shard))),
            Self::KeepWarm { function_name, shard, .. } => drop(warm.insert(pair(function_name, shard))),
            Self::LetCool { function_name, shard, .. } => drop(warm.remove(&pair(function_name, shard))),
            Self::JoinShards { .. } => {
                let joining = self.joining(placements);
                drained.retain(|shard| !joining.contains(shard));
            }
            Self::DrainShards { shards, .. } => drained.extend(shards.iter().cloned()),
        }
        Placements::new(avoided, warm, drained)
    }

    /// What it saves or brings.
    pub fn estimated_benefit(&self) -> &Estimate {
        match self {
            Self::MigrateFunction { estimated_benefit, .. }
            | Self::ReturnFunction { estimated_benefit, .. }
            | Self::KeepWarm { estimated_benefit, .. }
            | Self::LetCool { estimated_benefit, .. }
            | Self::JoinShards { estimated_benefit, .. }
            | Self::DrainShards { estimated_benefit, .. } => estimated_benefit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_written_as_the_specification_names_it() {
        let action = Action::MigrateFunction {
            function_name: "f".into(),
            from_shard: "a".into(),
            to_shard: "b".into(),
            reason: "CPU exhaustion mitigation".to_owned(),
            estimated_benefit: Estimate::new(0.3, 0.1, 0.5, Unit::CoreMinutes),
        };
        let json = serde_json::to_value(&action).unwrap();
        assert_eq!(json["type"], "migrate_function");
        for field in ["functionName", "fromShard", "toShard", "reason", "estimatedBenefit"] {
            assert!(!json[field].is_null(), "{field} is missing in {json}");
        }
        assert_eq!(serde_json::from_value::<Action>(json).unwrap(), action);
    }

    #[test]
    fn a_move_there_and_back_leaves_one_pair_to_avoid() {
        let step = |from: &str, to: &str| Action::MigrateFunction {
            function_name: "f".into(),
            from_shard: from.into(),
            to_shard: to.into(),
            reason: String::new(),
            estimated_benefit: Estimate::new(1.0, 1.0, 1.0, Unit::LatencyMs),
        };
        let there = step("a", "b").carried_out_on(&Placements::default());
        assert!(there.avoids(&"f".into(), &"a".into()) && !there.avoids(&"f".into(), &"b".into()));
        let back = step("b", "a").carried_out_on(&there);
        assert!(back.avoids(&"f".into(), &"b".into()) && !back.avoids(&"f".into(), &"a".into()));
    }

    #[test]
    fn shards_that_stand_by_join_and_those_that_drain_stand_by() {
        let estimated_benefit = Estimate::new(2.0, 2.0, 2.0, Unit::Shards);
        let (group, reason) = ("aave".to_owned(), String::new());
        let shards = vec!["b".into(), "a".into()];
        let drain = Action::DrainShards { group: group.clone(), shards, reason: reason.clone(), estimated_benefit };
        let join =
            |count: u32| Action::JoinShards { group: group.clone(), count, reason: reason.clone(), estimated_benefit };
        let drained = drain.carried_out_on(&Placements::default());
        assert_eq!(drained.drained().iter().map(ShardId::as_str).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(join(1).joining(&drained), ["a".into()]);
        assert_eq!(join(1).carried_out_on(&drained).drained().iter().collect::<Vec<_>>(), [&ShardId::new("b")]);
        assert_eq!(join(3).carried_out_on(&drained), Placements::default(), "the third has to be started");
        assert!(drain.joining(&drained).is_empty());
    }

    #[test]
    fn an_interval_holds_its_value() {
        let one = Estimate::new(1.0, 2.0, 0.0, Unit::Shards);
        assert_eq!((one.low, one.high), (1.0, 1.0));
        let sum = Estimate::sum(Unit::Shards, [&one, &Estimate::new(2.0, 1.0, 4.0, Unit::Shards)]);
        assert_eq!((sum.value, sum.low, sum.high), (3.0, 2.0, 5.0));
    }
}
