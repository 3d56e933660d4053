//! Volatility spikes (S9): what a jump of the market's volatility will add to each group of functions, and what to have ready.
//!
//! Load goes with a power of volatility, the elasticity, which is learned from the history's minutes; where these show nothing,
//! a prior stands in and is named. Cores are for the load at the target utilisation, and only what the shards do not have.

mod elasticity;
mod groups;

use serde::{Deserialize, Serialize};
use shardwise_types::{InvalidInput, Timestamp};

pub use elasticity::Elasticity;
pub use groups::{ByGroup, LoadGroup};

use crate::action::NINE_IN_TEN;
use crate::{Action, Estimate, PlanError, Series, Unit};

/// What a spike is and what to have ready.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct SpikeSettings {
    /// Words by which functions and protocols belong to groups, in lower case.
    pub words: ByGroup<Vec<String>>,
    /// Volatility over its median from which it is a spike, above 1.
    pub factor: f64,
    /// Minutes that a spike is reckoned to last: ordinary ones take 24 to 60.
    pub duration_minutes: f64,
    /// Elasticities where the history shows none yet.
    pub prior: ByGroup<f64>,
    /// Minutes of history before an elasticity is learned.
    pub fewest_minutes: usize,
    /// How many times the load of now there can be at most, however volatile the market: beyond history nothing is known.
    pub most_multiplier: f64,
    /// Standard deviations of the elasticity that are made ready for, beyond the likeliest; 0 or more.
    pub caution: f64,
    /// Load that a core is to carry, in (0, 1].
    pub target_utilisation: f64,
}

impl Default for SpikeSettings {
    fn default() -> Self {
        let words = |all: &[&str]| all.iter().map(|word| (*word).to_owned()).collect();
        Self {
            words: ByGroup {
                arbitrage: words(&["arbitrage"]),
                yields: words(&["yield", "aave", "compound", "lend", "stak"]),
                risk: words(&["risk", "liquidat", "health"]),
                trading: words(&["trad", "order", "swap", "uniswap", "curve", "dex", "price"]),
            },
            factor: 4.0,
            duration_minutes: 45.0,
            prior: ByGroup { arbitrage: 1.2, yields: 0.4, risk: 0.8, trading: 1.0 },
            fewest_minutes: 240,
            most_multiplier: 20.0,
            caution: 1.0,
            target_utilisation: 0.7,
        }
    }
}

impl SpikeSettings {
    pub(crate) fn check(&self) -> Result<(), InvalidInput> {
        above_one(self.factor)?;
        for (field, value, least) in [
            ("durationMinutes", self.duration_minutes, f64::MIN_POSITIVE),
            ("mostMultiplier", self.most_multiplier, 1.0),
            ("caution", self.caution, 0.0),
            ("prior.arbitrage", self.prior.arbitrage, 0.0),
            ("prior.yield", self.prior.yields, 0.0),
            ("prior.risk", self.prior.risk, 0.0),
            ("prior.trading", self.prior.trading, 0.0),
        ] {
            if !(value.is_finite() && value >= least) {
                return Err(InvalidInput::new(field, format!("{value} must be a finite number, {least} or more")));
            }
        }
        if !(self.target_utilisation > 0.0 && self.target_utilisation <= 1.0) {
            return Err(InvalidInput::new("targetUtilisation", "must lie in (0, 1]"));
        }
        Ok(())
    }
}

fn above_one(factor: f64) -> Result<(), InvalidInput> {
    match factor.is_finite() && factor > 1.0 {
        true => Ok(()),
        false => Err(InvalidInput::new("factor", format!("{factor} must be a finite number above 1"))),
    }
}

/// A jump of the market's volatility.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolatilitySpike {
    /// When it was seen.
    pub at: Timestamp,
    /// Volatility now, in basis points, above 0.
    pub volatility_bp: f64,
    /// What is usual, in basis points, above 0; 1 where a spike is assumed and the market's volatility was never seen, so
    /// that only the ratio of the two says something.
    pub baseline_bp: f64,
    /// Minutes that it is expected to last.
    pub expected_duration: f64,
}

impl VolatilitySpike {
    /// The spike at the end of a series of volatilities, if there is one.
    pub fn at_the_end_of(volatility: &Series, settings: &SpikeSettings) -> Option<Self> {
        let now = volatility.values.last().copied().filter(|value| value.is_finite())?;
        let baseline_bp = usual_bp(volatility)?;
        (now >= settings.factor * baseline_bp).then(|| Self {
            at: volatility.end(),
            volatility_bp: now,
            baseline_bp,
            expected_duration: settings.duration_minutes,
        })
    }

    /// A spike of so many times what was usual so far.
    ///
    /// # Errors
    /// A factor that is not a finite number above 1.
    pub fn assumed(
        factor: f64,
        volatility: &Series,
        at: Timestamp,
        settings: &SpikeSettings,
    ) -> Result<Self, InvalidInput> {
        above_one(factor)?;
        let baseline_bp = usual_bp(volatility).unwrap_or(1.0);
        let expected_duration = settings.duration_minutes;
        Ok(Self { at, volatility_bp: factor * baseline_bp, baseline_bp, expected_duration })
    }
}

/// The median; none when nothing is known.
fn usual_bp(volatility: &Series) -> Option<f64> {
    let mut known: Vec<f64> =
        volatility.values.iter().copied().filter(|value| value.is_finite() && *value > 0.0).collect();
    known.sort_by(f64::total_cmp);
    known.get(known.len() / 2).copied()
}

/// A group of functions and the shards that serve it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupLoad {
    /// Cores that it keeps busy now, 0 or more.
    pub busy_cores: f64,
    /// Cores that are there for it, 0 or more.
    pub cores: f64,
    /// Cores of a shard that would join, above 0.
    pub cores_per_shard: f64,
    /// How it goes with volatility.
    pub elasticity: Elasticity,
}

/// A spike, and who feels it.
#[derive(Debug, Clone, PartialEq)]
pub struct SpikeProblem {
    /// The spike.
    pub event: VolatilitySpike,
    /// The groups.
    pub groups: ByGroup<GroupLoad>,
}

/// What a group will need.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupPrediction {
    /// Load over the load of now.
    pub multiplier: f64,
    /// Lower end of its interval.
    pub low: f64,
    /// Upper end of its interval.
    pub high: f64,
    /// Cores that are busy now.
    pub busy_cores: f64,
    /// Cores that will be busy beyond those of now.
    pub extra_cores: f64,
    /// Whether the elasticity was learned, or is a prior.
    pub learned: bool,
}

/// What a group gets beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Allocation {
    /// Cores beyond those that are there.
    pub extra_cores: f64,
    /// Shards that join for them.
    pub shards: u32,
}

/// What every group gets, by the specification's names.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceAllocation {
    /// For arbitrage.
    pub arbitrage_shards: Allocation,
    /// For yields.
    pub yield_shards: Allocation,
    /// For risk.
    pub risk_shards: Allocation,
    /// For trading.
    pub trading_shards: Allocation,
}

/// From when till when.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TimeWindow {
    /// The beginning.
    pub from: Timestamp,
    /// The end; what joined leaves again.
    pub to: Timestamp,
}

/// The plan for a spike.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VolatilityResponse {
    /// The spike.
    pub trigger_event: VolatilitySpike,
    /// What each group will need.
    pub load_prediction: ByGroup<GroupPrediction>,
    /// What each group gets beforehand.
    pub resource_allocation: ResourceAllocation,
    /// From when till when.
    pub time_window: TimeWindow,
    /// Core-minutes of the shards that join, over the window.
    pub cost_estimate: f64,
    /// The steps.
    pub actions: Vec<Action>,
}

impl SpikeProblem {
    /// Finds what to have ready.
    ///
    /// # Errors
    /// Settings, volatilities or loads out of range.
    pub fn solve(&self, settings: &SpikeSettings) -> Result<VolatilityResponse, PlanError> {
        settings.check()?;
        self.check()?;
        let (event, caution) = (&self.event, settings.caution);
        let jump = event.volatility_bp / event.baseline_bp;
        let load_prediction = ByGroup::of(|group| {
            let load = self.groups.get(group);
            let at = |deviations: f64| load.elasticity.multiplier(jump, deviations, settings.most_multiplier);
            GroupPrediction {
                multiplier: at(0.0),
                low: at(-NINE_IN_TEN),
                high: at(NINE_IN_TEN),
                busy_cores: load.busy_cores,
                extra_cores: (at(0.0) - 1.0) * load.busy_cores,
                learned: load.elasticity.minutes > 0,
            }
        });
        let allocations = ByGroup::of(|group| {
            let load = self.groups.get(group);
            let ready_for = load.elasticity.multiplier(jump, caution, settings.most_multiplier) * load.busy_cores;
            let extra_cores = (ready_for / settings.target_utilisation - load.cores).max(0.0);
            Allocation { extra_cores, shards: (extra_cores / load.cores_per_shard - 1e-9).ceil() as u32 }
        });
        let to = event.at.plus_millis(event.expected_duration * 60_000.0);
        let joined = |group: LoadGroup| {
            f64::from(allocations.get(group).shards) * self.groups.get(group).cores_per_shard * event.expected_duration
        };
        Ok(VolatilityResponse {
            trigger_event: event.clone(),
            resource_allocation: ResourceAllocation {
                arbitrage_shards: allocations.arbitrage,
                yield_shards: allocations.yields,
                risk_shards: allocations.risk,
                trading_shards: allocations.trading,
            },
            time_window: TimeWindow { from: event.at, to },
            cost_estimate: LoadGroup::ALL.into_iter().map(joined).sum(),
            actions: LoadGroup::ALL
                .into_iter()
                .filter(|group| allocations.get(*group).shards > 0)
                .map(|group| self.join(group, allocations.get(group), load_prediction.get(group)))
                .collect(),
            load_prediction,
        })
    }

    fn join(&self, group: LoadGroup, allocation: &Allocation, prediction: &GroupPrediction) -> Action {
        let load = self.groups.get(group);
        // What would find no core: never more than what joins.
        let waiting = |multiplier: f64| {
            let capacity = f64::from(allocation.shards) * load.cores_per_shard;
            (multiplier * load.busy_cores - load.cores).clamp(0.0, capacity) * self.event.expected_duration
        };
        Action::JoinShards {
            group: group.as_str().to_owned(),
            count: allocation.shards,
            reason: format!(
                "volatility is {:.1} times the usual: {:.1} times the load of {} is expected for {:.0} minutes",
                self.event.volatility_bp / self.event.baseline_bp,
                prediction.multiplier,
                group.as_str(),
                self.event.expected_duration
            ),
            estimated_benefit: Estimate::new(
                waiting(prediction.multiplier),
                waiting(prediction.low),
                waiting(prediction.high),
                Unit::CoreMinutes,
            ),
        }
    }

    fn check(&self) -> Result<(), InvalidInput> {
        let event = &self.event;
        for (field, value) in [
            ("volatilityBp", event.volatility_bp),
            ("baselineBp", event.baseline_bp),
            ("expectedDuration", event.expected_duration),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err(InvalidInput::new(field, format!("{value} must be a finite number above 0")));
            }
        }
        for group in LoadGroup::ALL {
            let load = self.groups.get(group);
            let all = [load.busy_cores, load.cores, load.elasticity.value, load.elasticity.deviation];
            let sound = all.iter().all(|value| value.is_finite() && *value >= 0.0);
            if !(sound && load.cores_per_shard.is_finite() && load.cores_per_shard > 0.0) {
                let field = format!("groups.{}", group.as_str());
                return Err(InvalidInput::new(&field, "must hold finite numbers, 0 or more, and shards with cores"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
