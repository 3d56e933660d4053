//! One way to every plan: whoever has observations, a history's or a live fleet's, asks here.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use shardwise_types::{InvalidInput, Protocol, ShardId, Timestamp};

use crate::{
    Action, BalanceProblem, BalanceSettings, ByGroup, Effects, Elasticity, ForecastSettings, Ledger, LoadBalancingPlan,
    Observations, OptimizationPlan, OptimizeProblem, OptimizeSettings, PlanError, ProtocolOptimization,
    ProtocolProblem, ProtocolSettings, ReturnSettings, SpikeProblem, SpikeSettings, Teacher, VolatilityResponse,
    VolatilitySpike, WarmPlan, WarmProblem, WarmSettings, returns,
};

/// A shard serves a protocol when it takes at least this share of the core time that the busiest gives to the protocol.
const SERVES: f64 = 0.05;

/// What to plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanKind {
    /// Functions that do badly on a shard (S6).
    Optimize,
    /// Shards that will run out of something (S8).
    Predict,
    /// A spike of the market's volatility (S9).
    Spike,
    /// Shards for each protocol (S9).
    Protocol,
    /// Functions to keep warm.
    Warm,
}

impl PlanKind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Optimize, Self::Predict, Self::Spike, Self::Protocol, Self::Warm];

    /// Its name in commands and addresses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Optimize => "optimize",
            Self::Predict => "predict",
            Self::Spike => "spike",
            Self::Protocol => "protocol",
            Self::Warm => "warm",
        }
    }

    /// The kind of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// The settings of all parts.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PlannerSettings {
    /// Forecasts of the balancer.
    pub forecasts: ForecastSettings,
    /// The balancer.
    pub balance: BalanceSettings,
    /// The optimizer.
    pub optimize: OptimizeSettings,
    /// Volatility spikes.
    pub spike: SpikeSettings,
    /// Shards for protocols.
    pub protocol: ProtocolSettings,
    /// What is kept warm.
    pub warm: WarmSettings,
    /// When those that were moved away may come back.
    pub returns: ReturnSettings,
}

impl PlannerSettings {
    /// Whether all are in range, as every plan asks of its own.
    ///
    /// # Errors
    /// Names the first that is not, such as `warm.pressure`.
    pub fn check(&self) -> Result<(), InvalidInput> {
        let Self { forecasts, balance, optimize, spike, protocol, warm, returns } = self;
        for (part, checked) in [
            ("forecasts", forecasts.check()),
            ("balance", balance.check()),
            ("optimize", optimize.check()),
            ("spike", spike.check()),
            ("protocol", protocol.check()),
            ("warm", warm.check()),
            ("returns", returns.check()),
        ] {
            checked.map_err(|error| InvalidInput { field: format!("{part}.{}", error.field), ..error })?;
        }
        Ok(())
    }
}

/// The plan for volatility: for a spike that is there, or that is assumed.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SpikePlan {
    /// How each group's load goes with volatility.
    pub elasticities: ByGroup<Elasticity>,
    /// The response; none when the market is calm and no spike was assumed.
    #[serde(flatten)]
    pub response: Option<VolatilityResponse>,
}

/// The plans of all protocols.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProtocolPlan {
    /// By protocol.
    pub protocols: Vec<ProtocolOptimization>,
}

/// A plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Plan {
    /// Of [`PlanKind::Optimize`].
    Optimize(OptimizationPlan),
    /// Of [`PlanKind::Predict`].
    Predict(LoadBalancingPlan),
    /// Of [`PlanKind::Spike`].
    Spike(Box<SpikePlan>),
    /// Of [`PlanKind::Protocol`].
    Protocol(ProtocolPlan),
    /// Of [`PlanKind::Warm`].
    Warm(WarmPlan),
}

/// What a plan is made from.
pub struct Planner<'a> {
    /// What was seen.
    pub observations: &'a Observations,
    /// What was done before.
    pub ledger: &'a Ledger,
    /// The settings.
    pub settings: &'a PlannerSettings,
    /// Now.
    pub now: Timestamp,
    /// Volatility over the usual that a spike's plan is to assume, above 1; none is what the market shows.
    pub assumed_spike: Option<f64>,
    /// What a longer history taught of functions on shards, such as the service table of the model in use.
    pub teacher: Option<Teacher<'a>>,
}

impl Planner<'_> {
    /// Makes a plan.
    ///
    /// # Errors
    /// Settings of any part out of range, named as by [`PlannerSettings::check`]; an assumed spike that is none.
    pub fn plan(&self, kind: PlanKind) -> Result<Plan, PlanError> {
        self.settings.check()?;
        Ok(match kind {
            PlanKind::Optimize => Plan::Optimize(self.optimize()?),
            PlanKind::Predict => Plan::Predict(self.predict()?),
            PlanKind::Spike => Plan::Spike(Box::new(self.spike()?)),
            PlanKind::Protocol => Plan::Protocol(self.protocols()?),
            PlanKind::Warm => Plan::Warm(self.warm()?),
        })
    }

    fn optimize(&self) -> Result<OptimizationPlan, PlanError> {
        let cells = self.observations.cells();
        let free_cores = self.observations.free_cores(self.now, self.ledger);
        let functions = self.observations.movables();
        let expected = Effects::of(&cells, self.teacher);
        let problem = OptimizeProblem {
            now: self.now,
            since: self.observations.window_start(),
            cells: &cells,
            functions: &functions,
            free_cores: &free_cores,
            expected: &expected,
            ledger: self.ledger,
        };
        let mut plan = problem.solve(&self.settings.optimize)?;
        plan.actions.extend(self.returns()?);
        Ok(plan)
    }

    /// Stays that are over; part of every plan that moves.
    fn returns(&self) -> Result<Vec<Action>, PlanError> {
        returns(self.ledger, self.now, &self.settings.returns)
    }

    fn predict(&self) -> Result<LoadBalancingPlan, PlanError> {
        let PlannerSettings { forecasts, balance, .. } = self.settings;
        let shards = self.observations.outlooks(self.now, self.ledger, forecasts, balance)?;
        let parts = self.observations.parts();
        let mut plan = BalanceProblem { now: self.now, shards, parts, ledger: self.ledger }.solve(balance)?;
        plan.actions.extend(self.returns()?);
        Ok(plan)
    }

    fn spike(&self) -> Result<SpikePlan, PlanError> {
        let (settings, volatility) = (&self.settings.spike, self.observations.volatility());
        let groups = self.observations.spike_groups(self.now, self.ledger, settings);
        let elasticities = ByGroup::of(|group| groups.get(group).elasticity);
        let event = match self.assumed_spike {
            Some(factor) => Some(VolatilitySpike::assumed(factor, &volatility, self.now, settings)?),
            None => VolatilitySpike::at_the_end_of(&volatility, settings),
        };
        let response = event.map(|event| SpikeProblem { event, groups }.solve(settings)).transpose()?;
        Ok(SpikePlan { elasticities, response })
    }

    fn protocols(&self) -> Result<ProtocolPlan, PlanError> {
        let serving = self.serving();
        let joined: BTreeSet<ShardId> = self.ledger.joined_since(self.observations.window_start()).cloned().collect();
        let plan = |(protocol, shards): (&Protocol, &Vec<ShardId>)| {
            let others = serving.iter().filter(|(other, _)| *other != protocol).flat_map(|(_, theirs)| theirs);
            let problem = ProtocolProblem {
                protocol: protocol.clone(),
                total_load: self.observations.protocol_load(protocol, shards),
                current_shards: shards.clone(),
                shared: others.filter(|shard| shards.contains(shard)).cloned().collect(),
                joined: joined.clone(),
                last_change: self.ledger.shards_changed(),
                now: self.now,
            };
            problem.solve(&self.settings.protocol)
        };
        let protocols: Result<Vec<ProtocolOptimization>, PlanError> = serving.iter().map(plan).collect();
        Ok(ProtocolPlan { protocols: protocols? })
    }

    fn warm(&self) -> Result<WarmPlan, PlanError> {
        let problem = WarmProblem {
            shards: self.observations.warm_shards(self.ledger),
            candidates: self.observations.warm_candidates(self.now, self.ledger),
            ledger: self.ledger,
        };
        problem.solve(&self.settings.warm)
    }

    /// The shards that serve each protocol, without those that are drained: whoever gives it a twentieth and more of what the
    /// busiest gives. A share of the whole would be nobody's where many serve evenly.
    fn serving(&self) -> BTreeMap<Protocol, Vec<ShardId>> {
        let protocol_of: BTreeMap<_, _> =
            self.observations.functions().into_iter().map(|view| (view.id.clone(), view.protocol.clone())).collect();
        let mut busy: BTreeMap<Protocol, BTreeMap<ShardId, f64>> = BTreeMap::new();
        for cell in self.observations.cells() {
            let Some(protocol) = protocol_of.get(&cell.function) else { continue };
            let by_shard = busy.entry(protocol.clone()).or_default();
            if !self.ledger.is_drained(&cell.shard) {
                *by_shard.entry(cell.shard).or_default() += cell.seen.busy_ms;
            }
        }
        let serving = |by_shard: BTreeMap<ShardId, f64>| {
            let most = by_shard.values().copied().fold(0.0, f64::max);
            by_shard.into_iter().filter(|(_, ms)| *ms >= SERVES * most).map(|(shard, _)| shard).collect()
        };
        busy.into_iter().map(|(protocol, by_shard)| (protocol, serving(by_shard))).collect()
    }
}

impl Plan {
    /// Its steps.
    pub fn actions(&self) -> Vec<&Action> {
        match self {
            Self::Optimize(plan) => plan.actions.iter().collect(),
            Self::Predict(plan) => plan.actions.iter().collect(),
            Self::Spike(plan) => plan.response.iter().flat_map(|response| &response.actions).collect(),
            Self::Protocol(plan) => plan.protocols.iter().flat_map(|protocol| &protocol.actions).collect(),
            Self::Warm(plan) => plan.actions.iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests;
