//! The choices that were furthest from the best.

use shardwise_simulator::{Choice, Foreseen};
use shardwise_types::{ShardId, ShardPrediction};

use super::figures::{RegretParts, WorstCandidate, WorstDecision};
use crate::report::request_facts;

/// Choices that are kept.
const MOST: usize = 20;

/// The worst so far, the worst first.
#[derive(Default)]
pub(super) struct Worst {
    pub(super) decisions: Vec<WorstDecision>,
}

impl Worst {
    /// Keeps the choice if it is among the worst.
    pub(super) fn look(
        &mut self,
        seed: u64,
        choice: &Choice<'_>,
        regret_ms: f64,
        parts: RegretParts,
        said: &ShardPrediction,
    ) {
        let place = self.decisions.partition_point(|kept| kept.regret_ms >= regret_ms);
        if place == MOST || regret_ms <= 0.0 {
            return;
        }
        self.decisions.truncate(MOST - 1);
        self.decisions.insert(place, worst_decision(seed, choice, regret_ms, parts, said));
    }
}

fn worst_decision(
    seed: u64,
    choice: &Choice<'_>,
    regret_ms: f64,
    parts: RegretParts,
    said: &ShardPrediction,
) -> WorstDecision {
    let id = |position: usize| &choice.context.fleet.shards[position].id;
    let best = choice.foreseen.iter().min_by(|a, b| a.1.latency_ms.total_cmp(&b.1.latency_ms));
    let named: Vec<&ShardId> = said.alternative_shards.iter().map(|alternative| &alternative.shard).collect();
    let candidate = |position: usize, role: &str| {
        let shard = id(position);
        let foreseen = choice.foreseen.iter().find(|(other, _)| *other == position);
        let alternative = said.alternative_shards.iter().find(|alternative| alternative.shard == *shard);
        let (cost, expected_ms) = match alternative {
            _ if *shard == said.recommended_shard => (Some(said.cost), Some(said.expected_latency)),
            Some(alternative) => (Some(alternative.cost), Some(alternative.expected_latency)),
            None => (None, None),
        };
        let foreseen_ms = foreseen.map_or(f64::NAN, |(_, there)| there.latency_ms);
        WorstCandidate {
            shard: shard.as_str().to_owned(),
            role: role.to_owned(),
            cost,
            cost_ms: cost.map(|cost| cost.total_ms()),
            expected_ms,
            foreseen_ms,
        }
    };
    let chosen = choice.decision.chosen;
    let best = best.map(|(position, _)| *position).filter(|best| *best != chosen);
    let mut candidates = vec![candidate(chosen, "chosen")];
    candidates.extend(best.map(|best| candidate(best, "best")));
    let others = choice.foreseen.iter().map(|(position, _)| *position);
    let others =
        others.filter(|position| *position != chosen && Some(*position) != best && named.contains(&id(*position)));
    candidates.extend(others.map(|position| candidate(position, "alternative")));
    WorstDecision {
        seed,
        at: choice.context.decided_at.to_string(),
        request: request_facts(choice.context.request),
        regret_ms,
        parts,
        confidence: said.confidence.value(),
        decided_by: choice.decision.decided_by.as_str().to_owned(),
        reasoning: said.reasoning(),
        candidates,
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
