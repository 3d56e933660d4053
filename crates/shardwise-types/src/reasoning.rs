//! The reasons of a choice, in words: the terms of its cost against the runner-up's.

use crate::{CostTerms, ShardId, ShardPrediction, Widening};

/// Differences below this are not worth a word, in ms.
const WORTH_SAYING_MS: f64 = 0.05;

pub(crate) fn explain(prediction: &ShardPrediction) -> Vec<String> {
    let chosen = (&prediction.recommended_shard, &prediction.cost);
    let runner_up = prediction.alternative_shards.first().map(|other| (&other.shard, &other.cost));
    let mut reasons = vec![headline(chosen, runner_up)];
    reasons.extend(runner_up.and_then(|(id, terms)| differences(chosen.1, id, terms)));
    reasons.push(who(prediction));
    if prediction.widening != Widening::None {
        reasons.push(format!("found only {}", prediction.widening));
    }
    reasons
}

fn headline(chosen: (&ShardId, &CostTerms), runner_up: Option<(&ShardId, &CostTerms)>) -> String {
    let (id, cost_ms) = (chosen.0, chosen.1.total_ms());
    let Some((other, terms)) = runner_up else {
        return format!("{id} costs {cost_ms:.1} ms and is the only eligible shard");
    };
    let ahead_ms = terms.total_ms() - cost_ms;
    let compared = if ahead_ms < 0.0 { "more" } else { "less" };
    format!("{id} costs {cost_ms:.1} ms, {:.1} ms {compared} than {other}, the runner-up", ahead_ms.abs())
}

fn differences(chosen: &CostTerms, other_id: &ShardId, other: &CostTerms) -> Option<String> {
    let pairs = chosen.named().into_iter().zip(other.named());
    let mut parts: Vec<(&str, f64)> = pairs.map(|((name, own), (_, others))| (name, own - others)).collect();
    parts.retain(|(_, ms)| ms.abs() >= WORTH_SAYING_MS);
    parts.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    let words: Vec<String> = parts.iter().map(|(name, ms)| format!("{name} {ms:+.1} ms")).collect();
    (!words.is_empty()).then(|| format!("against {other_id}: {}", words.join(", ")))
}

fn who(prediction: &ShardPrediction) -> String {
    let decider = prediction.decided_by.meaning();
    prediction.fallback_reason.map_or_else(|| decider.to_owned(), |reason| format!("{decider}, because {reason}"))
}
