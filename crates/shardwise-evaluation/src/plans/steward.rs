//! The planner at work in a simulated fleet: it hears what routers hear, makes plans now and then, and has them carried out.

use std::sync::Arc;

use shardwise_features::ServiceTable;
use shardwise_planner::{
    Action, BalanceProblem, BalanceSettings, Effects, ForecastSettings, Ledger, LoadGroup, Metric, ObservationSettings,
    Observations, OptimizeProblem, OptimizeSettings, Plan, PlanError, PlanKind, Planner, PlannerSettings,
    ReturnSettings, SpikeSettings, VolatilityResponse, WarmProblem, WarmSettings, returns,
};
use shardwise_simulator::{Operator, Order};
use shardwise_types::{FunctionId, HistoryRecord, Residence, ShardId, Timestamp};

/// Which plans are made, and how often in looks.
#[derive(Debug, Clone, Default)]
pub struct StewardParts {
    /// The predictive balancer, its forecasts, and every how many looks.
    pub balance: Option<(BalanceSettings, ForecastSettings, u64)>,
    /// The keep-warm plan.
    pub warm: Option<(WarmSettings, u64)>,
    /// The optimizer.
    pub optimize: Option<(OptimizeSettings, u64)>,
    /// When functions that were moved away may come back; without it never.
    pub returns: Option<ReturnSettings>,
    /// Word of a spike, for which the fleet gets ready.
    pub alert: Option<Alert>,
    /// Shards that join when those that are there are busy.
    pub reaction: Option<Reaction>,
    /// Orders that are given at the first look from their instant on.
    pub scheduled: Vec<(Timestamp, Vec<Order>)>,
}

/// Reactive scaling: when the shards are busier than the target in the last minute, so many join that they would not be.
#[derive(Debug, Clone, PartialEq)]
pub struct Reaction {
    /// Mean share of cores in use that is aimed at, in (0, 1).
    pub target: f64,
    /// Shards that may join, in the order in which they do.
    pub standby: Vec<ShardId>,
}

/// Word of a spike of volatility that is to come, as a scheduled announcement or an option that leads the market gives it.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    /// When it comes.
    pub at: Timestamp,
    /// Volatility over the usual that is assumed, above 1.
    pub factor: f64,
    /// The group that it says will be asked for; none is all.
    pub group: Option<LoadGroup>,
    /// How the planner reckons.
    pub settings: SpikeSettings,
    /// Shards that may join, in the order in which they do.
    pub standby: Vec<ShardId>,
    /// From the order until a shard has joined, in ms: only then can it load anything.
    pub join_ms: f64,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    pub(super) moves: u64,
    pub(super) returns: u64,
    pub(super) warmed: u64,
    pub(super) cooled: u64,
    pub(super) joined: u64,
    pub(super) idle_plans: u64,
    pub(super) not_idempotent: u64,
    pub(super) switched_off: [u64; 2],
}

/// Watches a simulated fleet, plans, and gives orders.
pub struct Steward {
    observations: Observations,
    ledger: Ledger,
    parts: StewardParts,
    table: Option<Arc<ServiceTable>>,
    looks: u64,
    counts: Counts,
    response: Option<VolatilityResponse>,
}

impl Steward {
    /// A steward that has seen nothing; what the service table of the model that places was taught, the optimizer believes.
    ///
    /// # Errors
    /// Settings of the observations out of range.
    pub fn new(
        parts: StewardParts,
        observations: ObservationSettings,
        table: Option<Arc<ServiceTable>>,
    ) -> Result<Self, PlanError> {
        Ok(Self {
            observations: Observations::new(observations)?,
            ledger: Ledger::default(),
            parts,
            table,
            looks: 0,
            counts: Counts::default(),
            response: None,
        })
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// The plan for the spike that was alerted to.
    pub(super) fn response(&self) -> Option<&VolatilityResponse> {
        self.response.as_ref()
    }

    fn is_due(&self, every: u64) -> bool {
        self.looks.is_multiple_of(every.max(1))
    }

    /// Makes a plan, notes it as carried out, and makes it again: then there must be nothing to do. Nothing may return to a
    /// shard that it left within the cooldown, in minutes.
    fn plan(&mut self, now: Timestamp, cooldown: f64, solve: impl Fn(&Self) -> Vec<Action>) -> Vec<Order> {
        let actions = solve(self);
        if actions.is_empty() {
            self.counts.idle_plans += 1;
            return Vec::new();
        }
        actions.iter().for_each(|action| self.note(action, now, cooldown));
        self.counts.not_idempotent += u64::from(!solve(self).is_empty());
        actions.iter().flat_map(orders).collect()
    }

    fn note(&mut self, action: &Action, now: Timestamp, cooldown_minutes: f64) {
        let to = match action {
            Action::MigrateFunction { function_name, to_shard, .. } => Some((function_name, to_shard)),
            Action::ReturnFunction { function_name, shard, .. } => Some((function_name, shard)),
            _ => None,
        };
        if let Some((function, shard)) = to {
            let since = now.plus_millis(-60_000.0 * cooldown_minutes);
            self.counts.returns += u64::from(self.ledger.left_since(function, shard, since));
            self.counts.moves += u64::from(matches!(action, Action::MigrateFunction { .. }));
        }
        self.ledger.record(action, now);
    }

    fn let_back(&mut self, now: Timestamp) -> Vec<Order> {
        let Some(settings) = &self.parts.returns else { return Vec::new() };
        let actions = returns(&self.ledger, now, settings).unwrap_or_default();
        let of_balance = self.parts.balance.as_ref().map(|(settings, ..)| settings.cooldown_minutes);
        let of_optimize = self.parts.optimize.as_ref().map(|(settings, _)| settings.cooldown_minutes);
        let cooldown = of_balance.into_iter().chain(of_optimize).fold(0.0, f64::max);
        actions.iter().for_each(|action| self.note(action, now, cooldown));
        actions.iter().flat_map(orders).collect()
    }

    fn balance(&mut self, now: Timestamp) -> Vec<Order> {
        let Some((settings, forecasts, every)) = self.parts.balance.clone() else { return Vec::new() };
        if !self.is_due(every) {
            return Vec::new();
        }
        let mut series = [0, 0];
        let Ok(shards) = self.observations.outlooks(now, &self.ledger, &forecasts, &settings) else {
            return Vec::new();
        };
        let parts = self.observations.parts();
        for shard in &shards {
            for expected in [shard.cpu, shard.memory, shard.latency_ms].into_iter().flatten() {
                series = [series[0] + u64::from(expected.switched_off.is_some()), series[1] + 1];
            }
        }
        self.counts.switched_off = series;
        self.plan(now, settings.cooldown_minutes, |steward| {
            let ledger = &steward.ledger;
            let problem = BalanceProblem { now, shards: shards.clone(), parts: parts.clone(), ledger };
            problem.solve(&settings).map_or_else(|_| Vec::new(), |plan| plan.actions)
        })
    }

    fn warm(&mut self, now: Timestamp) -> Vec<Order> {
        let Some((settings, every)) = self.parts.warm.clone() else { return Vec::new() };
        if !self.is_due(every) {
            return Vec::new();
        }
        let shards = self.observations.warm_shards(&self.ledger);
        let candidates = self.observations.warm_candidates(now, &self.ledger);
        self.plan(now, 0.0, |steward| {
            let ledger = &steward.ledger;
            let problem = WarmProblem { shards: shards.clone(), candidates: candidates.clone(), ledger };
            problem.solve(&settings).map_or_else(|_| Vec::new(), |plan| plan.actions)
        })
    }

    fn optimize(&mut self, now: Timestamp) -> Vec<Order> {
        let Some((settings, every)) = self.parts.optimize.clone() else { return Vec::new() };
        if !self.is_due(every) {
            return Vec::new();
        }
        let (cells, functions) = (self.observations.cells(), self.observations.movables());
        let table = self.table.clone();
        let teach = |function: &FunctionId, shard: &ShardId| table.as_ref()?.pair_effect(function, shard);
        let free_cores = self.observations.free_cores(now, &self.ledger);
        let expected = Effects::of(&cells, Some(&teach));
        let since = self.observations.window_start();
        self.plan(now, settings.cooldown_minutes, |steward| {
            let problem = OptimizeProblem {
                now,
                since,
                cells: &cells,
                functions: &functions,
                free_cores: &free_cores,
                expected: &expected,
                ledger: &steward.ledger,
            };
            problem.solve(&settings).map_or_else(|_| Vec::new(), |plan| plan.actions)
        })
    }

    /// Has as many shards join as the plan for the spike asks for, if there are so many; loads on each what it joined for,
    /// and drains it when the window is over.
    fn prepare(&mut self, now: Timestamp) -> Vec<Order> {
        let Some(alert) = self.parts.alert.take_if(|alert| alert.at <= now) else { return Vec::new() };
        let settings = PlannerSettings { spike: alert.settings.clone(), ..PlannerSettings::default() };
        let planner = Planner {
            observations: &self.observations,
            ledger: &self.ledger,
            settings: &settings,
            now,
            assumed_spike: Some(alert.factor),
            teacher: None,
        };
        let Ok(Plan::Spike(plan)) = planner.plan(PlanKind::Spike) else { return Vec::new() };
        let Some(response) = plan.response else { return Vec::new() };
        let (mut standby, mut joined, mut warm) = (alert.standby.into_iter(), Vec::new(), Vec::new());
        for action in &response.actions {
            let Action::JoinShards { group, count, .. } = action else { continue };
            if alert.group.is_some_and(|only| only.as_str() != group) {
                continue;
            }
            for shard in standby.by_ref().take(*count as usize) {
                let loaded = self.observations.functions().into_iter().filter(|view| {
                    let of = LoadGroup::of(view.id, view.protocol, &alert.settings.words);
                    of.is_some_and(|of| of.as_str() == group)
                });
                warm.extend(loaded.map(|view| Residence::new(view.id.clone(), shard.clone())));
                joined.push(shard);
            }
        }
        let keep = warm.iter().cloned().map(Order::KeepWarm).collect();
        let leave = warm.into_iter().map(Order::LetCool).chain(joined.iter().cloned().map(Order::Drain)).collect();
        self.parts.scheduled.push((now.plus_millis(alert.join_ms), keep));
        self.parts.scheduled.push((response.time_window.to, leave));
        self.response = Some(response);
        joined.into_iter().map(Order::Join).collect()
    }

    fn react(&mut self) -> Vec<Order> {
        let Some(reaction) = &mut self.parts.reaction else { return Vec::new() };
        let last = |view: &shardwise_planner::ShardView<'_>| view.series(Metric::Cpu).values.last().copied();
        let busy: Vec<f64> = self.observations.shards().iter().filter_map(last).filter(|cpu| cpu.is_finite()).collect();
        let mean = busy.iter().sum::<f64>() / busy.len().max(1) as f64;
        let wanted = (busy.len() as f64 * (mean / reaction.target - 1.0)).ceil().max(0.0) as usize;
        let join: Vec<ShardId> = reaction.standby.drain(..wanted.min(reaction.standby.len())).collect();
        join.into_iter().map(Order::Join).collect()
    }

    fn scheduled(&mut self, now: Timestamp) -> Vec<Order> {
        let (due, later) = std::mem::take(&mut self.parts.scheduled).into_iter().partition(|(at, _)| *at <= now);
        self.parts.scheduled = later;
        let due: Vec<(Timestamp, Vec<Order>)> = due;
        due.into_iter().flat_map(|(_, orders)| orders).collect()
    }
}

impl Operator for Steward {
    fn hear(&mut self, record: &HistoryRecord) {
        // The simulator tells records in their order, which is all that can be wrong with them.
        _ = self.observations.observe(record);
    }

    fn look(&mut self, now: Timestamp) -> Vec<Order> {
        self.looks += 1;
        let mut all = self.scheduled(now);
        all.extend(self.prepare(now));
        all.extend(self.react());
        all.extend(self.let_back(now));
        all.extend(self.balance(now));
        all.extend(self.optimize(now));
        all.extend(self.warm(now));
        for order in &all {
            match order {
                Order::KeepWarm(_) => self.counts.warmed += 1,
                Order::LetCool(_) => self.counts.cooled += 1,
                Order::Join(_) => self.counts.joined += 1,
                Order::Avoid(_) | Order::Return(_) | Order::Drain(_) => {}
            }
        }
        all
    }
}

/// What has an action done.
fn orders(action: &Action) -> Vec<Order> {
    match action {
        Action::MigrateFunction { function_name, from_shard, to_shard, .. } => vec![
            Order::Avoid(Residence::new(function_name.clone(), from_shard.clone())),
            Order::Return(Residence::new(function_name.clone(), to_shard.clone())),
        ],
        Action::ReturnFunction { function_name, shard, .. } => {
            vec![Order::Return(Residence::new(function_name.clone(), shard.clone()))]
        }
        Action::KeepWarm { function_name, shard, .. } => {
            vec![Order::KeepWarm(Residence::new(function_name.clone(), shard.clone()))]
        }
        Action::LetCool { function_name, shard, .. } => {
            vec![Order::LetCool(Residence::new(function_name.clone(), shard.clone()))]
        }
        Action::DrainShards { shards, .. } => shards.iter().cloned().map(Order::Drain).collect(),
        // Which shards join is for whoever has them.
        Action::JoinShards { .. } => Vec::new(),
    }
}
