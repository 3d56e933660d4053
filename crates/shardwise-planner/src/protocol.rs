//! Protocol sharding (S9): how many shards a protocol needs, ⌈load / 0.7⌉, with hysteresis so that nothing swings.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use shardwise_types::{InvalidInput, Protocol, ShardId, Timestamp};

use crate::{Action, Estimate, PlanError, Unit};

/// Loads this close to a whole number of shards fill them exactly: 2.1 / 0.7 is 3, not the 3.0000000000000004 of floats.
const ROUNDING: f64 = 1e-9;

/// How full shards are to be, and how slowly they are given back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ProtocolSettings {
    /// Load that a shard is to carry, in (0, 1].
    pub target_utilisation: f64,
    /// Shards are given back only when the load fits into the rest with this share of their target to spare, in [0, 1).
    pub hysteresis: f64,
    /// Minutes after a change before shards are given back; more are taken at once.
    pub cooldown_minutes: f64,
}

impl Default for ProtocolSettings {
    fn default() -> Self {
        Self { target_utilisation: 0.7, hysteresis: 0.1, cooldown_minutes: 30.0 }
    }
}

impl ProtocolSettings {
    pub(crate) fn check(&self) -> Result<(), InvalidInput> {
        let wrong = |field: &str, range: &str| Err(InvalidInput::new(field, format!("must lie in {range}")));
        match () {
            () if !(self.target_utilisation > 0.0 && self.target_utilisation <= 1.0) => {
                wrong("targetUtilisation", "(0, 1]")
            }
            () if !(0.0..1.0).contains(&self.hysteresis) => wrong("hysteresis", "[0, 1)"),
            () if !(self.cooldown_minutes.is_finite() && self.cooldown_minutes >= 0.0) => {
                wrong("cooldownMinutes", "[0, ∞)")
            }
            () => Ok(()),
        }
    }
}

/// A protocol, its load and its shards.
#[derive(Debug, Clone, PartialEq)]
pub struct ProtocolProblem {
    /// The protocol.
    pub protocol: Protocol,
    /// Its load on all shards together, in shards' worth: 0 or more, 1 keeps one shard busy.
    pub total_load: f64,
    /// The shards that serve it, in any order.
    pub current_shards: Vec<ShardId>,
    /// Those of them that serve other protocols as well: no plan for one protocol drains them.
    pub shared: BTreeSet<ShardId>,
    /// Shards that took work again within the window that the load is of, whoever they joined for: what they take of it shows
    /// only by and by.
    pub joined: BTreeSet<ShardId>,
    /// When shards joined or were drained last, if they ever did.
    pub last_change: Option<Timestamp>,
    /// Now.
    pub now: Timestamp,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProtocolAction {
    /// More shards.
    Expand,
    /// Fewer shards.
    Consolidate,
    /// As many.
    Maintain,
}

/// The plan for a protocol.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProtocolOptimization {
    /// The protocol.
    pub protocol: Protocol,
    /// Its load, in shards' worth.
    pub total_load: f64,
    /// Shards that serve it.
    pub current_shards: usize,
    /// Shards that should; at least 1.
    pub recommended_shards: usize,
    /// What to do.
    pub action: ProtocolAction,
    /// Why, in words.
    pub reasoning: String,
    /// The step, if any.
    pub actions: Vec<Action>,
}

impl ProtocolProblem {
    /// Finds the number of shards.
    ///
    /// # Errors
    /// A load that is not 0 or more, a shard that is there twice, settings out of range.
    pub fn solve(&self, settings: &ProtocolSettings) -> Result<ProtocolOptimization, PlanError> {
        settings.check()?;
        if !(self.total_load.is_finite() && self.total_load >= 0.0) {
            let problem = format!("{} is not a load; it must be a finite number, 0 or more", self.total_load);
            return Err(InvalidInput::new("totalLoad", problem).into());
        }
        let mut shards = self.current_shards.clone();
        shards.sort();
        if let Some(pair) = shards.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(InvalidInput::new("currentShards", format!("'{}' is there twice", pair[0])).into());
        }
        let needed = shards_for(self.total_load, settings.target_utilisation);
        let with_room = shards_for(self.total_load, settings.target_utilisation * (1.0 - settings.hysteresis));
        let coming = self.joined.iter().filter(|shard| shards.binary_search(shard).is_err()).count();
        Ok(if needed > shards.len() + coming {
            self.expand(&shards, coming, needed, settings)
        } else if needed > shards.len() {
            let reasoning = format!("{}; they are waited for", self.shortage(&shards, coming, needed, settings));
            self.plan(&shards, needed, ProtocolAction::Maintain, reasoning, vec![])
        } else if with_room < shards.len() {
            match self.cooling(settings) {
                Some(minutes) => self.maintain(
                    &shards,
                    format!("{with_room} would do, but their number changed less than {minutes} minutes ago"),
                ),
                None => self.consolidate(&shards, with_room, settings),
            }
        } else if needed < shards.len() {
            let spare = settings.hysteresis * 100.0;
            self.maintain(&shards, format!("{needed} would just do; they are given back with {spare:.0} % to spare"))
        } else {
            self.maintain(&shards, "current allocation is optimal".to_owned())
        })
    }

    fn cooling(&self, settings: &ProtocolSettings) -> Option<f64> {
        let minutes = settings.cooldown_minutes;
        self.last_change.filter(|last| self.now.millis_since(*last) < minutes * 60_000.0).map(|_| minutes)
    }

    fn shortage(&self, shards: &[ShardId], coming: usize, needed: usize, settings: &ProtocolSettings) -> String {
        let (load, target) = (self.total_load, settings.target_utilisation * 100.0);
        let there =
            format!("a load of {load:.2} shards needs {needed} at {target:.0} %, and there are {}", shards.len());
        if coming > 0 { format!("{there} and {coming} that joined and take little of it yet") } else { there }
    }

    fn expand(
        &self,
        shards: &[ShardId],
        coming: usize,
        needed: usize,
        settings: &ProtocolSettings,
    ) -> ProtocolOptimization {
        let reasoning = self.shortage(shards, coming, needed, settings);
        let count = needed - shards.len() - coming;
        // What lies above the target now, and would wait.
        let above = (self.total_load - shards.len() as f64 * settings.target_utilisation).max(0.0);
        let step = Action::JoinShards {
            group: self.protocol.as_str().to_owned(),
            count: u32::try_from(count).unwrap_or(u32::MAX),
            reason: reasoning.clone(),
            estimated_benefit: Estimate::new(above, above, above, Unit::Shards),
        };
        self.plan(shards, needed, ProtocolAction::Expand, reasoning, vec![step])
    }

    fn consolidate(&self, shards: &[ShardId], rest: usize, settings: &ProtocolSettings) -> ProtocolOptimization {
        let spare = settings.hysteresis * 100.0;
        let reasoning = format!("a load of {:.2} shards fits into {rest} with {spare:.0} % to spare", self.total_load);
        // The last ones go; what others need as well stays.
        let own = shards.iter().rev().filter(|shard| !self.shared.contains(*shard));
        let mut leaving: Vec<ShardId> = own.take(shards.len() - rest).cloned().collect();
        leaving.reverse();
        if leaving.is_empty() {
            let reasoning = format!("{reasoning}; all serve other protocols as well, so that none is drained for it");
            return self.plan(shards, rest, ProtocolAction::Consolidate, reasoning, vec![]);
        }
        let saved = leaving.len() as f64;
        let step = Action::DrainShards {
            group: self.protocol.as_str().to_owned(),
            shards: leaving,
            reason: reasoning.clone(),
            estimated_benefit: Estimate::new(saved, saved, saved, Unit::Shards),
        };
        self.plan(shards, rest, ProtocolAction::Consolidate, reasoning, vec![step])
    }

    fn maintain(&self, shards: &[ShardId], reasoning: String) -> ProtocolOptimization {
        self.plan(shards, shards.len(), ProtocolAction::Maintain, reasoning, vec![])
    }

    fn plan(
        &self,
        shards: &[ShardId],
        recommended_shards: usize,
        action: ProtocolAction,
        reasoning: String,
        actions: Vec<Action>,
    ) -> ProtocolOptimization {
        let (protocol, total_load, current_shards) = (self.protocol.clone(), self.total_load, shards.len());
        ProtocolOptimization { protocol, total_load, current_shards, recommended_shards, action, reasoning, actions }
    }
}

/// ⌈load / utilisation⌉, at least 1.
fn shards_for(load: f64, utilisation: f64) -> usize {
    // Casting saturates: a load beyond all numbers asks for all shards there can be.
    ((load / utilisation - ROUNDING).ceil() as usize).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use shardwise_types::Placements;

    fn problem(total_load: f64, shards: usize) -> ProtocolProblem {
        ProtocolProblem {
            protocol: "aave".into(),
            total_load,
            current_shards: (0..shards).map(|shard| ShardId::new(&format!("shard-aave-{shard:04}"))).collect(),
            shared: BTreeSet::new(),
            joined: BTreeSet::new(),
            last_change: None,
            now: Timestamp::default(),
        }
    }

    fn recommended(load: f64, shards: usize) -> (ProtocolAction, usize) {
        let plan = problem(load, shards).solve(&ProtocolSettings::default()).unwrap();
        (plan.action, plan.recommended_shards)
    }

    #[test]
    fn the_arithmetic_is_the_specifications() {
        use ProtocolAction::{Consolidate, Expand, Maintain};
        for (load, shards, expected) in [
            (0.0, 1, (Maintain, 1)),
            (0.0, 0, (Expand, 1)),
            (0.7, 1, (Maintain, 1)),
            (0.71, 1, (Expand, 2)),
            (1.4, 2, (Maintain, 2)),
            (1.41, 2, (Expand, 3)),
            (2.1, 3, (Maintain, 3)),
            (7.0, 4, (Expand, 10)),
            (0.5, 4, (Consolidate, 1)),
            (1.2, 3, (Consolidate, 2)),
            // 2 would carry it at 70 %, but not with room to spare.
            (1.3, 3, (Maintain, 3)),
        ] {
            assert_eq!(recommended(load, shards), expected, "load {load} on {shards}");
        }
    }

    #[test]
    fn a_load_that_swings_about_a_boundary_changes_the_number_once() {
        for boundary in [0.7, 1.4, 2.1, 7.0] {
            let (mut shards, mut changes) = (recommended(boundary, 1).1, 0);
            for swing in [0.02, -0.02, 0.05, -0.05, 0.01, -0.06, 0.06, -0.01] {
                let (action, next) = recommended(boundary * (1.0 + swing), shards);
                changes += usize::from(action != ProtocolAction::Maintain);
                shards = next;
            }
            assert_eq!(changes, 1, "about {boundary}");
        }
    }

    #[test]
    fn shards_are_not_given_back_right_after_a_change() {
        let mut problem = problem(0.5, 4);
        problem.last_change = Some(problem.now.plus_millis(-60_000.0));
        let plan = problem.solve(&ProtocolSettings::default()).unwrap();
        assert_eq!(plan.action, ProtocolAction::Maintain);
        assert!(plan.reasoning.contains("30 minutes"), "{}", plan.reasoning);
        problem.total_load = 9.0;
        assert_eq!(problem.solve(&ProtocolSettings::default()).unwrap().action, ProtocolAction::Expand);
    }

    #[test]
    fn shards_that_have_just_joined_are_not_asked_for_again() {
        let mut problem = problem(2.1, 1);
        problem.last_change = Some(problem.now);
        problem.joined = [problem.current_shards[0].clone(), "b".into(), "c".into()].into();
        let plan = problem.solve(&ProtocolSettings::default()).unwrap();
        assert_eq!((plan.action, plan.recommended_shards), (ProtocolAction::Maintain, 3));
        assert!(plan.actions.is_empty() && plan.reasoning.contains("2 that joined"), "{}", plan.reasoning);
        problem.total_load = 4.2;
        let plan = problem.solve(&ProtocolSettings::default()).unwrap();
        assert_eq!((plan.action, plan.recommended_shards), (ProtocolAction::Expand, 6));
        assert!(matches!(plan.actions[..], [Action::JoinShards { count: 3, .. }]), "{:?}", plan.actions);
    }

    #[test]
    fn shards_that_others_need_are_not_drained() {
        let mut problem = problem(0.5, 4);
        let drained = |problem: &ProtocolProblem| {
            let plan = problem.solve(&ProtocolSettings::default()).unwrap();
            assert_eq!((plan.action, plan.recommended_shards), (ProtocolAction::Consolidate, 1));
            let step = plan.actions.into_iter().next();
            step.map(|step| step.carried_out_on(&Placements::default()).drained().clone())
        };
        let all = problem.current_shards.clone();
        assert_eq!(drained(&problem).unwrap(), all[1..].iter().cloned().collect());
        problem.shared = [all[2].clone(), all[3].clone()].into();
        assert_eq!(drained(&problem).unwrap(), all[..2].iter().cloned().collect(), "two serve others, and it");
        problem.shared = all.into_iter().collect();
        assert_eq!(drained(&problem), None);
    }

    #[test]
    fn absurd_problems_are_refused() {
        for load in [f64::NAN, -1.0, f64::INFINITY] {
            assert!(problem(load, 2).solve(&ProtocolSettings::default()).is_err(), "{load}");
        }
        let twice = ProtocolProblem { current_shards: vec!["a".into(), "a".into()], ..problem(1.0, 1) };
        assert!(twice.solve(&ProtocolSettings::default()).unwrap_err().to_string().contains("'a' is there twice"));
        let settings = ProtocolSettings { target_utilisation: 0.0, ..ProtocolSettings::default() };
        assert!(problem(1.0, 1).solve(&settings).is_err());
    }

    proptest! {
        #[test]
        fn whoever_follows_the_plan_is_left_alone(load in 0.0..50.0_f64, shards in 0_usize..80) {
            let (action, next) = recommended(load, shards);
            prop_assert!(next >= 1);
            prop_assert!(next as f64 * 0.7 >= load - 1e-6, "{action:?}");
            prop_assert_eq!(recommended(load, next).0, ProtocolAction::Maintain);
        }
    }
}
