//! The reasons of a choice, in words: the terms of its cost against the runner-up's. They are exact, for the cost is a
//! sum and the differences of the terms add up to the difference of the costs.

use shardwise_types::{CostTerms, DecidedBy, FallbackReason, ShardId};

/// Differences below this are not worth a word, in ms.
const WORTH_SAYING_MS: f64 = 0.05;

pub(crate) fn explain(
    chosen: (&ShardId, &CostTerms),
    runner_up: Option<(&ShardId, &CostTerms)>,
    decided_by: DecidedBy,
    fallback: Option<FallbackReason>,
) -> Vec<String> {
    let mut reasons = vec![headline(chosen, runner_up)];
    reasons.extend(runner_up.and_then(|(id, terms)| differences(chosen.1, id, terms)));
    reasons.push(who(decided_by, fallback));
    reasons
}

fn headline(chosen: (&ShardId, &CostTerms), runner_up: Option<(&ShardId, &CostTerms)>) -> String {
    let (id, cost_ms) = (chosen.0, chosen.1.total_ms());
    match runner_up {
        Some((other, terms)) => {
            format!("{id} costs {cost_ms:.1} ms, {:.1} ms less than {other}, the runner-up", terms.total_ms() - cost_ms)
        }
        None => format!("{id} costs {cost_ms:.1} ms and is the only eligible shard"),
    }
}

fn differences(chosen: &CostTerms, other_id: &ShardId, other: &CostTerms) -> Option<String> {
    let pairs = chosen.named().into_iter().zip(other.named());
    let mut parts: Vec<(&str, f64)> = pairs.map(|((name, own), (_, others))| (name, own - others)).collect();
    parts.retain(|(_, ms)| ms.abs() >= WORTH_SAYING_MS);
    parts.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    let words: Vec<String> = parts.iter().map(|(name, ms)| format!("{name} {ms:+.1} ms")).collect();
    (!words.is_empty()).then(|| format!("against {other_id}: {}", words.join(", ")))
}

fn who(decided_by: DecidedBy, fallback: Option<FallbackReason>) -> String {
    let decider = match decided_by {
        DecidedBy::Model => "execution time by the model",
        DecidedBy::ServiceTable => "execution time by the service table",
        DecidedBy::OnlineEstimates => "execution time by this router's own measurements",
        DecidedBy::LeastLoaded => "least work in flight per core",
        DecidedBy::Policy => "another policy",
    };
    fallback.map_or_else(|| decider.to_owned(), |reason| format!("{decider}, because {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_difference_comes_first() {
        let (a, b) = (ShardId::new("a"), ShardId::new("b"));
        let chosen = CostTerms { network_ms: 3.0, execution_ms: 10.0, ..CostTerms::default() };
        let other = CostTerms { network_ms: 1.0, execution_ms: 20.0, ..CostTerms::default() };
        let reasons =
            explain((&a, &chosen), Some((&b, &other)), DecidedBy::ServiceTable, Some(FallbackReason::NoExecHead));
        assert_eq!(reasons[0], "a costs 13.0 ms, 8.0 ms less than b, the runner-up");
        assert_eq!(reasons[1], "against b: execution -10.0 ms, network +2.0 ms");
        assert!(reasons[2].contains("because the model has no execution head"));
    }
}
