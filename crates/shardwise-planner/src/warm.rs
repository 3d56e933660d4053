//! The keep-warm plan: which functions to hold in which shards' memory, though nobody may ask for them for a while.
//!
//! A request is cold when none came before it for as long as a shard keeps what it loaded. Where counts have the variance D
//! times their mean (negative binomial), nothing comes within `T` minutes with probability D^(−λT/(D − 1)) for λ a minute, which
//! is exp(−λT) where D is 1. What is saved is that share of the arrivals times what a load adds; the price is the memory held
//! beyond what would be held anyway, and the core time of loading. Per shard this is a knapsack, filled by benefit for each MB.

mod demand;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use shardwise_types::{FunctionId, InvalidInput, ShardId};

pub(crate) use demand::Demand;

use crate::action::NINE_IN_TEN;
use crate::{Action, Estimate, Ledger, PlanError, Unit};

/// What memory and cores are worth, and how stable a plan is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct WarmSettings {
    /// Minutes that the plan looks ahead, above 0.
    pub horizon_minutes: f64,
    /// Minutes that a shard keeps a function that nobody asks for, above 0.
    pub time_to_live_minutes: f64,
    /// Share of a shard's memory up to which it may be filled, in (0, 1]: pressure above it slows everything.
    pub pressure: f64,
    /// Share up to which what is held stays, no less than `pressure`, at most 1: what runs comes and goes, and nothing is to be
    /// let go and loaded again with it.
    pub release: f64,
    /// Milliseconds of latency that a GB held for a minute must save, 0 or more.
    pub price_ms_per_gb_minute: f64,
    /// Milliseconds of latency that a millisecond of a core must save, 0 or more.
    pub price_ms_per_core_ms: f64,
    /// Share by which what is held counts for more than it is worth, and a newcomer for less, where they compete for memory and
    /// are held against the least benefit, so that equals do not take turns; in [0, 1). Prices are taken off before.
    pub hysteresis: f64,
    /// Least milliseconds saved by holding a function, so that nothing is held for next to nothing.
    pub least_benefit_ms: f64,
}

impl Default for WarmSettings {
    fn default() -> Self {
        Self {
            horizon_minutes: 15.0,
            time_to_live_minutes: 5.0,
            pressure: 0.8,
            release: 0.9,
            price_ms_per_gb_minute: 1.0,
            price_ms_per_core_ms: 0.2,
            hysteresis: 0.25,
            least_benefit_ms: 10.0,
        }
    }
}

impl WarmSettings {
    pub(crate) fn check(&self) -> Result<(), InvalidInput> {
        let positive = [("horizonMinutes", self.horizon_minutes), ("timeToLiveMinutes", self.time_to_live_minutes)];
        let not_negative = [
            ("priceMsPerGbMinute", self.price_ms_per_gb_minute),
            ("priceMsPerCoreMs", self.price_ms_per_core_ms),
            ("leastBenefitMs", self.least_benefit_ms),
        ];
        let wrong =
            |field: &str, range: &str| Err(InvalidInput::new(field, format!("must be a finite number {range}")));
        if let Some((field, _)) = positive.into_iter().find(|(_, value)| !(value.is_finite() && *value > 0.0)) {
            return wrong(field, "above 0");
        }
        if let Some((field, _)) = not_negative.into_iter().find(|(_, value)| !(value.is_finite() && *value >= 0.0)) {
            return wrong(field, "of 0 or more");
        }
        if !(self.pressure > 0.0 && self.pressure <= 1.0) {
            return wrong("pressure", "in (0, 1]");
        }
        if !(self.release >= self.pressure && self.release <= 1.0) {
            return wrong("release", "from the pressure to 1");
        }
        if !(0.0..1.0).contains(&self.hysteresis) {
            return wrong("hysteresis", "in [0, 1)");
        }
        Ok(())
    }
}

/// A function that could be kept warm on a shard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WarmCandidate {
    /// The function.
    pub function: FunctionId,
    /// The shard.
    pub shard: ShardId,
    /// Requests a minute that are expected there once it is warm there. [`crate::Observations::warm_candidates`] reckons with
    /// all of the function's on each shard that it is held on, for routers may send them all to either.
    pub arrivals_per_minute: f64,
    /// Variance over mean of its counts a minute, 0 or more; 1 for Poisson, below it near-periodic.
    pub dispersion: f64,
    /// What a load adds to an execution, in ms.
    pub load_ms: f64,
    /// Memory that it holds, in MB, above 0.
    pub memory_mb: f64,
}

/// The memory of a shard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WarmShard {
    /// Its name.
    pub id: ShardId,
    /// Its memory in MB, above 0.
    pub memory_mb: f64,
    /// Memory that is in use, in MB, without what is kept warm by plan.
    pub used_mb: f64,
}

/// Who could be kept warm where.
#[derive(Debug, Clone)]
pub struct WarmProblem<'a> {
    /// The shards, in any order.
    pub shards: Vec<WarmShard>,
    /// Candidates, in any order; each function × shard once. What is held and no candidate is let go.
    pub candidates: Vec<WarmCandidate>,
    /// What is held now.
    pub ledger: &'a Ledger,
}

/// What to hold and what to let go.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WarmPlan {
    /// Steps: what is let go first, then what is held, the most useful first.
    pub actions: Vec<Action>,
    /// Milliseconds of latency that everything held will save within the horizon, prices taken off. A function that is held on
    /// two shards counts on both with what is expected there, so that sums are too high then.
    pub estimated_benefit: Estimate,
    /// Cold starts that everything held will avoid within the horizon, summed like the benefit.
    pub cold_starts_avoided: f64,
    /// Memory held by plan, in MB, on all shards.
    pub memory_mb: f64,
    /// Core time of loading what is new, in ms.
    pub loading_core_ms: f64,
}

/// What a candidate is worth.
#[derive(Debug, Clone, Copy)]
struct Worth {
    avoided: f64,
    /// Saved milliseconds less the price of the memory.
    net_ms: f64,
    held: bool,
}

impl WarmCandidate {
    /// Probability that nobody asks for it within some minutes.
    pub fn silent_for(&self, minutes: f64) -> f64 {
        let expected = self.arrivals_per_minute * minutes;
        let excess = self.dispersion - 1.0;
        if excess > 1e-6 && expected > 0.0 {
            // Variance = mean·D is a gamma-mixed Poisson of shape mean/(D − 1).
            (-expected / excess * excess.ln_1p()).exp()
        } else {
            // Near-periodic arrivals are silent for less long than this says; nothing is promised on that.
            (-expected).exp()
        }
    }

    fn worth(&self, held: bool, settings: &WarmSettings) -> Worth {
        let silent = self.silent_for(settings.time_to_live_minutes);
        let avoided = self.arrivals_per_minute * settings.horizon_minutes * silent;
        // While it is asked for within the time to live, it is in memory anyway.
        let extra_gb_minutes = self.memory_mb / 1024.0 * settings.horizon_minutes * silent;
        // Loads that are avoided cost no core, the one that is made does, once.
        let loads = if held { 0.0 } else { silent } - avoided;
        let price =
            extra_gb_minutes * settings.price_ms_per_gb_minute + loads * self.load_ms * settings.price_ms_per_core_ms;
        Worth { avoided, net_ms: avoided * self.load_ms - price, held }
    }

    fn check(&self) -> Result<(), InvalidInput> {
        let all = [self.arrivals_per_minute, self.dispersion, self.load_ms];
        let sound = all.iter().all(|value| value.is_finite() && *value >= 0.0);
        if sound && self.memory_mb.is_finite() && self.memory_mb > 0.0 {
            return Ok(());
        }
        let field = format!("candidates[{} on {}]", self.function, self.shard);
        Err(InvalidInput::new(&field, "must hold finite numbers, 0 or more, and memory above 0"))
    }
}

impl WarmProblem<'_> {
    /// Finds what to hold.
    ///
    /// # Errors
    /// Settings out of range, candidates or shards that hold no numbers or are there twice.
    pub fn solve(&self, settings: &WarmSettings) -> Result<WarmPlan, PlanError> {
        settings.check()?;
        let mut shards: BTreeMap<&ShardId, [f64; 2]> = BTreeMap::new();
        for shard in &self.shards {
            let sound = shard.memory_mb.is_finite() && shard.memory_mb > 0.0 && shard.used_mb >= 0.0;
            let room = [settings.pressure, settings.release].map(|share| shard.memory_mb * share - shard.used_mb);
            if !sound || shards.insert(&shard.id, room).is_some() {
                let problem = "must be there once, with memory above 0 and used memory of 0 or more";
                return Err(InvalidInput::new(&format!("shards[{}]", shard.id), problem).into());
            }
        }
        let mut on: BTreeMap<&ShardId, Vec<(&WarmCandidate, Worth)>> = BTreeMap::new();
        for candidate in &self.candidates {
            candidate.check()?;
            let held = self.ledger.is_warm(&candidate.function, &candidate.shard);
            on.entry(&candidate.shard).or_default().push((candidate, candidate.worth(held, settings)));
        }
        let mut chosen = vec![];
        for (shard, mut candidates) in on {
            candidates.sort_by(|a, b| a.0.function.cmp(&b.0.function));
            if let Some(pair) = candidates.windows(2).find(|pair| pair[0].0.function == pair[1].0.function) {
                let field = format!("candidates[{} on {shard}]", pair[0].0.function);
                return Err(InvalidInput::new(&field, "is there twice").into());
            }
            let room = shards.get(shard).copied().unwrap_or_default();
            chosen.extend(fill(candidates, room, settings));
        }
        Ok(self.plan(&chosen, settings))
    }

    fn plan(&self, chosen: &[(&WarmCandidate, Worth)], settings: &WarmSettings) -> WarmPlan {
        let kept: BTreeSet<(&FunctionId, &ShardId)> =
            chosen.iter().map(|(candidate, _)| (&candidate.function, &candidate.shard)).collect();
        let let_go = self.ledger.warm().filter(|pair| !kept.contains(pair)).map(|(function, shard)| Action::LetCool {
            function_name: function.clone(),
            shard: shard.clone(),
            reason: "what it saves is not worth its memory any more".to_owned(),
            estimated_benefit: self.saved_by_letting_go(function, shard, settings),
        });
        let mut hold: Vec<Action> = chosen
            .iter()
            .filter(|(_, worth)| !worth.held)
            .map(|(candidate, worth)| Action::KeepWarm {
                function_name: candidate.function.clone(),
                shard: candidate.shard.clone(),
                reason: format!(
                    "{:.1} cold starts of {:.0} ms avoided in {:.0} minutes for {:.0} MB",
                    worth.avoided, candidate.load_ms, settings.horizon_minutes, candidate.memory_mb
                ),
                estimated_benefit: interval(candidate, worth),
            })
            .collect();
        // Stable: equal ones stay in the order of shards and functions.
        hold.sort_by(|a, b| b.estimated_benefit().value.total_cmp(&a.estimated_benefit().value));
        let benefits: Vec<Estimate> = chosen.iter().map(|(candidate, worth)| interval(candidate, worth)).collect();
        let new = chosen.iter().filter(|(_, worth)| !worth.held);
        WarmPlan {
            actions: let_go.chain(hold).collect(),
            estimated_benefit: Estimate::sum(Unit::LatencyMs, &benefits),
            cold_starts_avoided: chosen.iter().map(|(_, worth)| worth.avoided).sum(),
            memory_mb: chosen.iter().map(|(candidate, _)| candidate.memory_mb).sum(),
            loading_core_ms: new
                .map(|(candidate, _)| candidate.load_ms * candidate.silent_for(settings.time_to_live_minutes))
                .sum(),
        }
    }

    /// The price that is no longer paid, less what it still saved; 0 of what nobody asks for any more.
    fn saved_by_letting_go(&self, function: &FunctionId, shard: &ShardId, settings: &WarmSettings) -> Estimate {
        let candidate = self.candidates.iter().find(|one| one.function == *function && one.shard == *shard);
        let saved = candidate.map_or(0.0, |candidate| -candidate.worth(true, settings).net_ms);
        Estimate::new(saved, saved, saved, Unit::LatencyMs)
    }
}

/// Counts of avoided cold starts scatter like a Poisson distribution, wider by the dispersion.
fn interval(candidate: &WarmCandidate, worth: &Worth) -> Estimate {
    let spread = NINE_IN_TEN * (worth.avoided * candidate.dispersion.max(1.0)).sqrt();
    let at = |avoided: f64| worth.net_ms + (avoided - worth.avoided) * candidate.load_ms;
    let low = at((worth.avoided - spread).max(0.0));
    Estimate::new(worth.net_ms, low, at(worth.avoided + spread), Unit::LatencyMs)
}

/// Fills a shard's room, one for what is new and one for what is held, the most benefit for each MB first. What is held counts for more, so that equals do not take turns.
fn fill<'c>(
    candidates: Vec<(&'c WarmCandidate, Worth)>,
    room_mb: [f64; 2],
    settings: &WarmSettings,
) -> Vec<(&'c WarmCandidate, Worth)> {
    let favoured = |worth: &Worth| {
        let favour = if worth.held { 1.0 + settings.hysteresis } else { 1.0 - settings.hysteresis };
        worth.net_ms * favour
    };
    let mut worthy: Vec<(&WarmCandidate, Worth)> = candidates
        .into_iter()
        .filter(|(_, worth)| favoured(worth) > 0.0 && favoured(worth) >= settings.least_benefit_ms)
        .collect();
    let density = |(candidate, worth): &(&WarmCandidate, Worth)| favoured(worth) / candidate.memory_mb;
    worthy.sort_by(|a, b| density(b).total_cmp(&density(a)));
    let ([for_new, for_held], mut filled, mut kept) = (room_mb, 0.0, vec![]);
    for (candidate, worth) in worthy {
        let room = if worth.held { for_held } else { for_new };
        if filled + candidate.memory_mb <= room {
            filled += candidate.memory_mb;
            kept.push((candidate, worth));
        }
    }
    kept
}

#[cfg(test)]
mod tests;
