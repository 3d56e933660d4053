//! The balancer's problem: shards as they are forecast, who loads them, what was moved before.

use serde::{Deserialize, Serialize};
use shardwise_types::{FunctionId, InvalidInput, ShardId, Timestamp};

use crate::{Estimate, Ledger, PlanError, SwitchedOff};

/// Thresholds, room to keep, and the price of moving.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct BalanceSettings {
    /// Share of the cores from which a shard is exhausted, in (0, 1].
    pub cpu_threshold: f64,
    /// Share of the memory from which a shard is exhausted, in (0, 1].
    pub memory_threshold: f64,
    /// Mean latency in ms from which a shard is slow.
    pub latency_threshold_ms: f64,
    /// A series that stayed below this share of its threshold is taken to stay where it is, without a forecast, in [0, 1]:
    /// forecasts are most of the work, and most shards are never near a threshold.
    pub watch_from: f64,
    /// Whether to foretell queues as well, which are told and never acted on: whoever plans in a loop saves the work.
    pub foretell_queues: bool,
    /// Shards that something moves to stay this far below the thresholds, so that they are not next, in [0, 1).
    pub headroom: f64,
    /// Minutes that a bottleneck is reckoned to last: what relief is worth.
    pub horizon_minutes: f64,
    /// Price of any move in core-minutes, above 0, so that nothing moves for nothing.
    pub move_price_core_minutes: f64,
    /// Minutes in which nothing returns to a shard that it left, shards that were relieved take nothing, and shards that
    /// took something give nothing.
    pub cooldown_minutes: f64,
    /// Minutes in which shards that gave or took neither give nor take again: until then forecasts do not know of it. After a
    /// move of which is not known where it went, no shard takes: any of them may have.
    pub settle_minutes: f64,
    /// Moves of one function within an hour at most.
    pub most_moves_per_function_hour: usize,
    /// Moves of all functions within an hour at most.
    pub most_moves_hour: usize,
    /// Whether to act on series that are switched off, by their last value; else they are only listed.
    pub reactive: bool,
    /// Minutes from now until the plan is to be carried out.
    pub execute_in_minutes: f64,
}

impl Default for BalanceSettings {
    fn default() -> Self {
        Self {
            cpu_threshold: 0.85,
            memory_threshold: 0.9,
            latency_threshold_ms: 500.0,
            watch_from: 0.5,
            foretell_queues: true,
            headroom: 0.1,
            horizon_minutes: 15.0,
            move_price_core_minutes: 0.02,
            cooldown_minutes: 30.0,
            settle_minutes: 15.0,
            most_moves_per_function_hour: 2,
            most_moves_hour: 200,
            reactive: false,
            execute_in_minutes: 5.0,
        }
    }
}

impl BalanceSettings {
    pub(crate) fn check(&self) -> Result<(), InvalidInput> {
        for (field, share) in [("cpuThreshold", self.cpu_threshold), ("memoryThreshold", self.memory_threshold)] {
            if !(share > self.headroom && share <= 1.0) {
                return Err(InvalidInput::new(field, format!("{share} must be above the headroom and at most 1")));
            }
        }
        for (field, value) in [
            ("latencyThresholdMs", self.latency_threshold_ms),
            ("horizonMinutes", self.horizon_minutes),
            ("movePriceCoreMinutes", self.move_price_core_minutes),
        ] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(InvalidInput::new(field, format!("{value} must be a finite number above 0")));
            }
        }
        for (field, value) in [
            ("watchFrom", self.watch_from),
            ("headroom", self.headroom),
            ("cooldownMinutes", self.cooldown_minutes),
            ("settleMinutes", self.settle_minutes),
            ("executeInMinutes", self.execute_in_minutes),
        ] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(InvalidInput::new(field, format!("{value} must be a finite number, 0 or more")));
            }
        }
        Ok(())
    }
}

/// What is expected of one quantity of a shard within the horizon.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Expected {
    /// The peak to be ready for.
    pub value: f64,
    /// Lower end of its interval.
    pub low: f64,
    /// Upper end of its interval.
    pub high: f64,
    /// Why it is only the last value, if so.
    pub switched_off: Option<SwitchedOff>,
}

impl Expected {
    /// What is known for certain.
    pub fn exactly(value: f64) -> Self {
        Self { value, low: value, high: value, switched_off: None }
    }
}

/// A shard, its size and what is expected of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardOutlook {
    /// Its name.
    pub id: ShardId,
    /// Its cores, above 0.
    pub cores: f64,
    /// Its memory in MB, above 0.
    pub memory_mb: f64,
    /// Whether it may take anything: heard of, healthy, not drained.
    pub accepts: bool,
    /// Share of its cores in use, in [0, 1]; none when unknown: such a shard neither gives nor takes.
    pub cpu: Option<Expected>,
    /// Share of its memory in use, in [0, 1].
    pub memory: Option<Expected>,
    /// Mean latency in ms.
    pub latency_ms: Option<Expected>,
    /// Requests that wait, per core; told, never acted on; none also when it was not asked for.
    pub queue_per_core: Option<Expected>,
}

/// What a function is to a shard; a plan moves it as a whole or not at all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    /// The function.
    pub function: FunctionId,
    /// The shard.
    pub shard: ShardId,
    /// Cores that it keeps busy there, 0 or more.
    pub cores: f64,
    /// Memory that it holds there in MB, 0 or more.
    pub memory_mb: f64,
    /// Mean execution in ms, warm; 0 or more.
    pub exec_ms: f64,
    /// What loading it elsewhere costs, in core-minutes, 0 or more.
    pub load_core_minutes: f64,
    /// The shards that may run it (residency, amount, hardware); none is all.
    pub allowed: Option<Vec<ShardId>>,
}

/// All that a plan is made of.
#[derive(Debug, Clone)]
pub struct BalanceProblem<'a> {
    /// Now.
    pub now: Timestamp,
    /// The shards, in any order.
    pub shards: Vec<ShardOutlook>,
    /// Who loads them, in any order; each function × shard once.
    pub parts: Vec<Part>,
    /// Past moves.
    pub ledger: &'a Ledger,
}

impl BalanceProblem<'_> {
    /// What moved since then does not show in forecasts yet.
    pub(super) fn settling_since(&self, settings: &BalanceSettings) -> Timestamp {
        self.now.plus_millis(-settings.settle_minutes * 60_000.0)
    }

    /// Whether any shard may have taken something that does not show yet.
    pub(super) fn is_settling(&self, settings: &BalanceSettings) -> bool {
        self.ledger.went_anywhere_since(self.settling_since(settings))
    }

    pub(super) fn check(&self) -> Result<(), PlanError> {
        let positive = |field: String, value: f64| match value.is_finite() && value > 0.0 {
            true => Ok(()),
            false => Err(InvalidInput::new(&field, format!("{value} must be a finite number above 0"))),
        };
        for shard in &self.shards {
            positive(format!("shards[{}].cores", shard.id), shard.cores)?;
            positive(format!("shards[{}].memoryMb", shard.id), shard.memory_mb)?;
            for expected in [shard.cpu, shard.memory, shard.latency_ms].into_iter().flatten() {
                let rising = 0.0 <= expected.low && expected.low <= expected.value && expected.value <= expected.high;
                if !(rising && expected.high.is_finite()) {
                    let problem = "must be finite numbers, 0 or more, low ≤ value ≤ high (leave it out when unknown)";
                    return Err(InvalidInput::new(&format!("shards[{}]", shard.id), problem).into());
                }
            }
        }
        for part in &self.parts {
            let all = [part.cores, part.memory_mb, part.exec_ms, part.load_core_minutes];
            if !all.iter().all(|value| value.is_finite() && *value >= 0.0) {
                let field = format!("parts[{} on {}]", part.function, part.shard);
                return Err(InvalidInput::new(&field, "must hold finite numbers, 0 or more").into());
            }
        }
        twice(self.shards.iter().map(|shard| shard.id.as_str().to_owned()), "shards")?;
        twice(self.parts.iter().map(|part| format!("{} on {}", part.function, part.shard)), "parts")
    }
}

fn twice(names: impl Iterator<Item = String>, field: &str) -> Result<(), PlanError> {
    let mut names: Vec<String> = names.collect();
    names.sort();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(InvalidInput::new(field, format!("'{}' is there twice", pair[0])).into()),
        None => Ok(()),
    }
}

/// What runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BottleneckKind {
    /// Cores.
    CpuExhaustion,
    /// Memory.
    MemoryExhaustion,
    /// Time: requests take too long.
    HighLatency,
}

/// A shard that is expected to be a problem.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bottleneck {
    /// The shard.
    pub shard_id: ShardId,
    /// What runs out.
    #[serde(rename = "type")]
    pub kind: BottleneckKind,
    /// What is expected: a share, or ms.
    pub expected: f64,
    /// The threshold that it passes.
    pub threshold: f64,
    /// Cores' worth of load that would have to go, 0 when moving load does not help.
    pub excess_cores: Estimate,
}
