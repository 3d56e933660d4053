//! The choices that were furthest from the best.

use shardwise_policies::Runtime;
use shardwise_simulator::{Choice, Foreseen};
use shardwise_types::{CostTerms, ShardPrediction};

use super::figures::{RegretParts, WorstCandidate, WorstDecision, WorstRival};
use super::played::Spoken;
use crate::CANDIDATE;
use crate::report::request_facts;
use crate::rivals::{RivalChoice, rivals};

/// Choices that are kept.
const MOST: usize = 20;

/// The worst so far, the worst first.
pub(super) struct Worst {
    pub(super) decisions: Vec<WorstDecision>,
    runtime: Runtime,
}

impl Worst {
    pub(super) fn new(runtime: Runtime) -> Self {
        Self { decisions: Vec::new(), runtime }
    }

    /// Keeps the choice if it is among the worst.
    pub(super) fn look(&mut self, seed: u64, choice: &Choice<'_>, regret_ms: f64, parts: RegretParts, spoken: &Spoken) {
        let place = self.decisions.partition_point(|kept| kept.regret_ms >= regret_ms);
        if place == MOST || regret_ms <= 0.0 {
            return;
        }
        self.decisions.truncate(MOST - 1);
        let scene = Scene::new(choice, spoken, self.runtime);
        self.decisions.insert(place, scene.decision(seed, regret_ms, parts));
    }
}

/// A choice with all that others would have made of it.
struct Scene<'a> {
    choice: &'a Choice<'a>,
    said: &'a ShardPrediction,
    costs: Vec<(usize, CostTerms)>,
    rivals: Vec<RivalChoice>,
}

impl<'a> Scene<'a> {
    fn new(choice: &'a Choice<'a>, spoken: &'a Spoken, runtime: Runtime) -> Self {
        let (context, chosen) = (choice.context, choice.decision.chosen);
        let costs = (spoken.weigh)(context, chosen);
        let rivals = rivals(context, chosen, CANDIDATE, spoken.service_table.clone(), runtime);
        Self { choice, said: &spoken.prediction, costs, rivals }
    }

    fn decision(&self, seed: u64, regret_ms: f64, parts: RegretParts) -> WorstDecision {
        let (choice, said) = (self.choice, self.said);
        WorstDecision {
            seed,
            at: choice.context.decided_at.to_string(),
            request: request_facts(choice.context.request),
            regret_ms,
            parts,
            confidence: said.confidence.value(),
            decided_by: choice.decision.decided_by.as_str().to_owned(),
            reasoning: said.reasoning(),
            candidates: self.roles().into_iter().map(|(position, role)| self.candidate(position, role)).collect(),
            rivals: self.rivals.iter().map(|rival| self.rival(rival)).collect(),
        }
    }

    /// The positions that are told of, each once.
    fn roles(&self) -> Vec<(usize, &'static str)> {
        let best = self.choice.foreseen.iter().min_by(|a, b| a.1.latency_ms.total_cmp(&b.1.latency_ms));
        let eligible = || self.choice.foreseen.iter().map(|(position, _)| *position);
        let is_named = |position: &usize| {
            let shard = &self.choice.context.fleet.shards[*position].id;
            self.said.alternative_shards.iter().any(|alternative| alternative.shard == *shard)
        };
        let by_rivals = self.rivals.iter().filter_map(|rival| rival.chosen);
        let by_rivals = by_rivals.filter(|position| self.foreseen_ms(*position).is_some());
        let all = std::iter::once((self.choice.decision.chosen, "chosen"))
            .chain(best.map(|(position, _)| (*position, "best")))
            .chain(eligible().filter(is_named).map(|position| (position, "alternative")))
            .chain(by_rivals.map(|position| (position, "rival")));
        let mut roles: Vec<(usize, &'static str)> = Vec::new();
        for (position, role) in all {
            if roles.iter().all(|(known, _)| *known != position) {
                roles.push((position, role));
            }
        }
        roles
    }

    fn candidate(&self, position: usize, role: &str) -> WorstCandidate {
        let cost = self.cost(position);
        WorstCandidate {
            shard: self.name(position),
            role: role.to_owned(),
            cost,
            cost_ms: cost.map(|cost| cost.total_ms()),
            expected_ms: cost.map(|cost| cost.latency_ms()),
            foreseen_ms: self.foreseen_ms(position).unwrap_or(f64::NAN),
        }
    }

    fn rival(&self, rival: &RivalChoice) -> WorstRival {
        WorstRival {
            policy: rival.policy.clone(),
            shard: rival.chosen.map(|position| self.name(position)),
            agrees: rival.chosen == Some(self.choice.decision.chosen),
            expected_ms: rival.expected_ms,
            cost_ms: rival.chosen.and_then(|position| self.cost(position)).map(|cost| cost.total_ms()),
            foreseen_ms: rival.chosen.and_then(|position| self.foreseen_ms(position)),
        }
    }

    fn name(&self, position: usize) -> String {
        self.choice.context.fleet.shards[position].id.as_str().to_owned()
    }

    fn cost(&self, position: usize) -> Option<CostTerms> {
        self.costs.iter().find(|(other, _)| *other == position).map(|(_, terms)| *terms)
    }

    fn foreseen_ms(&self, position: usize) -> Option<f64> {
        self.choice.foreseen.iter().find(|(other, _)| *other == position).map(|(_, there)| there.latency_ms)
    }
}

/// What makes one shard slower than another, in ms. What the parts do not explain is a failure, which costs the timeout.
pub(super) fn differences(own: &Foreseen, best: &Foreseen) -> RegretParts {
    let network_ms = own.network_ms - best.network_ms;
    let wait_ms = own.wait_ms - best.wait_ms;
    let execution_ms = (own.exec_ms - own.load_ms) - (best.exec_ms - best.load_ms);
    let cold_ms = own.load_ms - best.load_ms;
    let explained_ms = network_ms + wait_ms + execution_ms + cold_ms;
    RegretParts {
        network_ms,
        wait_ms,
        execution_ms,
        cold_ms,
        failure_ms: own.latency_ms - best.latency_ms - explained_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there(network_ms: f64, wait_ms: f64, exec_ms: f64, load_ms: f64, timeout_ms: Option<f64>) -> Foreseen {
        let latency_ms = timeout_ms.unwrap_or(network_ms + wait_ms + exec_ms);
        Foreseen { latency_ms, network_ms, wait_ms, exec_ms, load_ms, in_time: timeout_ms.is_none(), utilisation: 0.5 }
    }

    #[test]
    fn the_parts_of_a_regret_add_up_to_it() {
        let best = there(10.0, 0.0, 20.0, 0.0, None);
        for own in [there(4.0, 30.0, 95.0, 60.0, None), there(4.0, 0.0, 5.0, 0.0, Some(3_000.0))] {
            let parts = differences(&own, &best);
            let sum: f64 = parts.named().iter().map(|(_, ms)| ms).sum();
            assert!((sum - (own.latency_ms - best.latency_ms)).abs() < 1e-9, "{parts:?}");
        }
        let parts = differences(&there(4.0, 30.0, 95.0, 60.0, None), &best);
        assert_eq!((parts.network_ms, parts.wait_ms, parts.execution_ms, parts.cold_ms), (-6.0, 30.0, 15.0, 60.0));
        assert_eq!(parts.failure_ms, 0.0);
    }
}
