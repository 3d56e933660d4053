//! Who moves the furniture in each case.

use shardwise_planner::{
    BalanceSettings, ForecastSettings, LoadGroup, ObservationSettings, OptimizeSettings, ReturnSettings, SpikeSettings,
    WarmSettings,
};

use super::{BOOT_MS, CaseWorld, PlanCase};
use crate::EvaluationError;
use crate::plans::{Alert, LEAD_MS, Reaction, Steward, StewardParts};

/// Looks between plans.
const EVERY: u64 = 15;
/// What shards that take something keep free below the threshold: of .1 and .3 the better one on seeds 1 to 4.
const HEADROOM: f64 = 0.3;
/// Replayed functions run for milliseconds or for a minute: a shard's mean latency says which ones it has, not how it does.
const NEVER_MS: f64 = 1e9;
/// Steps of back-tests at most, fewer than those of a single plan: a day has 96 plans.
const TEST_STEPS: usize = 150;
/// Share of their cores that scaling, reactive or planned, keeps shards at.
pub(super) const TARGET: f64 = 0.7;
/// The arm that all others are compared with.
pub(super) const NOTHING: &str = "nothing";

impl CaseWorld {
    /// The arms by name, the one without any planner first.
    pub(super) fn arms(&self) -> Vec<(String, Option<StewardParts>)> {
        let with = match self.case {
            PlanCase::Day => self.day_arms(),
            PlanCase::Spike => self.spike_arms(),
            PlanCase::Warm => vec![("keep-warm".to_owned(), self.warm())],
        };
        let with = with.into_iter().map(|(name, parts)| (name, Some(parts)));
        std::iter::once((NOTHING.to_owned(), None)).chain(with).collect()
    }

    fn warm(&self) -> StewardParts {
        let time_to_live_minutes = self.world.timing.warm_ttl_ms / 60_000.0;
        StewardParts {
            warm: Some((WarmSettings { time_to_live_minutes, ..WarmSettings::default() }, EVERY)),
            ..StewardParts::default()
        }
    }

    fn day_arms(&self) -> Vec<(String, StewardParts)> {
        let settings = BalanceSettings {
            headroom: HEADROOM,
            latency_threshold_ms: NEVER_MS,
            foretell_queues: false,
            ..BalanceSettings::default()
        };
        let forecasts = ForecastSettings { most_test_steps: TEST_STEPS, ..ForecastSettings::default() };
        let balance = Some((settings.clone(), forecasts, EVERY));
        let reactive = BalanceSettings { reactive: true, ..settings };
        // Without a back-test everything goes by its last value.
        let last_values = ForecastSettings { fewest_steps: usize::MAX, ..ForecastSettings::default() };
        let optimize = Some((OptimizeSettings::default(), EVERY));
        let none = StewardParts::default;
        let moving = || StewardParts { returns: Some(ReturnSettings::default()), ..none() };
        [
            ("keep-warm", self.warm()),
            ("balancer", StewardParts { balance: balance.clone(), ..moving() }),
            ("balancer, reactive", StewardParts { balance: Some((reactive, last_values, EVERY)), ..moving() }),
            ("optimizer", StewardParts { optimize: optimize.clone(), ..moving() }),
            ("all", StewardParts { balance, optimize, warm: self.warm().warm, ..moving() }),
        ]
        .map(|(name, parts)| (name.to_owned(), parts))
        .into()
    }

    fn spike_arms(&self) -> Vec<(String, StewardParts)> {
        let reaction = Some(Reaction { target: TARGET, standby: self.standby.clone() });
        let spike_ms = self.options.spike_minutes[0] * 60_000.0;
        let prepared = |lead_ms: f64, group: Option<LoadGroup>| {
            let alert = Alert {
                at: self.workload.start.plus_millis(spike_ms - lead_ms),
                factor: self.options.assumed_volatility,
                group,
                settings: SpikeSettings::default(),
                standby: self.standby.clone(),
                join_ms: LEAD_MS + BOOT_MS,
            };
            let parts = StewardParts { alert: Some(alert), ..StewardParts::default() };
            let of = if group.is_some() { ", arbitrage alone" } else { "" };
            (format!("prepared {:.0} s before{of}", lead_ms / 1000.0), parts)
        };
        let longest = self.options.longest_lead_ms();
        let reactive = ("reactive".to_owned(), StewardParts { reaction, ..StewardParts::default() });
        let all = self.options.alert_leads_ms.iter().map(|lead_ms| prepared(*lead_ms, None));
        let alone = std::iter::once_with(|| prepared(longest, Some(LoadGroup::Arbitrage)));
        std::iter::once(reactive).chain(all).chain(alone).collect()
    }

    pub(super) fn steward(&self, parts: StewardParts) -> Result<Steward, EvaluationError> {
        Steward::new(parts, ObservationSettings::default(), self.table.clone()).map_err(|error| {
            EvaluationError::Simulation {
                policy: "planner".to_owned(),
                seed: self.options.seed,
                problem: error.to_string(),
            }
        })
    }
}
