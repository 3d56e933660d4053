//! Where the candidate loses: computed from every metric, rival and seed, never chosen by hand.

use serde::{Deserialize, Serialize};

use crate::{ClosedLoop, METRICS, Metric, PolicyResult};

/// The candidate and a rival on one seed in one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SeedPair {
    /// The sample path.
    pub seed: u64,
    /// The candidate's figure.
    pub candidate: f64,
    /// The rival's figure.
    pub rival: f64,
    /// How much worse the candidate is: above 1 is worse; `None` when the rival's figure is 0 and ours is worse.
    pub harm: Option<f64>,
    /// Candidate over rival; `None` when the rival's figure is 0.
    #[serde(default)]
    pub ratio: Option<f64>,
}

/// A metric and a rival, with the seeds that speak against the candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Loss {
    /// The other policy.
    pub rival: String,
    /// The metric's key.
    pub metric: String,
    /// Whether the metric is a goal or for information only.
    pub is_goal: bool,
    /// Seeds compared.
    pub seeds: usize,
    /// The seeds, worst first: those in which the candidate is worse, or the one in which it came closest to it.
    pub pairs: Vec<SeedPair>,
}

/// The answer to "where does it lose?".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WhereItLoses {
    /// Whether the candidate is never worse in any goal; then the entries are the closest calls.
    pub never: bool,
    /// Worst first, goals before what is for information.
    pub losses: Vec<Loss>,
}

/// Closest calls that are shown when the candidate never loses.
const CLOSEST_CALLS: usize = 3;

/// Lists every metric, rival and seed in which the candidate is worse; when it never is in a goal, the closest calls
/// as well.
pub fn where_it_loses(closed_loop: &ClosedLoop) -> WhereItLoses {
    let all = pairings(closed_loop);
    let mut losses: Vec<Loss> = all.iter().filter_map(only_worse_seeds).collect();
    let never = !losses.iter().any(|loss| loss.is_goal);
    if never {
        let mut calls: Vec<Loss> = all.into_iter().filter(|loss| loss.is_goal).map(only_worst_seed).collect();
        sort_worst_first(&mut calls);
        calls.truncate(CLOSEST_CALLS);
        losses.extend(calls);
    }
    sort_worst_first(&mut losses);
    WhereItLoses { never, losses }
}

fn pairings(closed_loop: &ClosedLoop) -> Vec<Loss> {
    let Some(candidate) = closed_loop.policy(&closed_loop.candidate) else { return Vec::new() };
    closed_loop
        .rivals()
        .flat_map(|rival| METRICS.iter().map(move |metric| pairing(metric, candidate, rival)))
        .filter(|loss| !loss.pairs.is_empty())
        .collect()
}

fn pairing(metric: &Metric, candidate: &PolicyResult, rival: &PolicyResult) -> Loss {
    let pair = |(ours, theirs): (&crate::SeedResult, &crate::SeedResult)| {
        let (candidate, rival) = ((metric.read)(&ours.metrics), (metric.read)(&theirs.metrics));
        let ratio = (rival > 0.0).then(|| candidate / rival);
        SeedPair { seed: ours.seed, candidate, rival, harm: metric.harm(candidate, rival), ratio }
    };
    let mut pairs: Vec<SeedPair> = candidate.seeds.iter().zip(&rival.seeds).map(pair).collect();
    pairs.sort_by(|a, b| harm_of(b).total_cmp(&harm_of(a)).then(a.seed.cmp(&b.seed)));
    Loss {
        rival: rival.name.clone(),
        metric: metric.key.to_owned(),
        is_goal: metric.is_goal,
        seeds: pairs.len(),
        pairs,
    }
}

fn only_worse_seeds(loss: &Loss) -> Option<Loss> {
    let pairs: Vec<SeedPair> = loss.pairs.iter().filter(|pair| harm_of(pair) > 1.0).cloned().collect();
    (!pairs.is_empty()).then(|| Loss { pairs, ..loss.clone() })
}

fn only_worst_seed(mut loss: Loss) -> Loss {
    loss.pairs.truncate(1);
    loss
}

fn sort_worst_first(losses: &mut [Loss]) {
    let worst = |loss: &Loss| loss.pairs.first().map_or(0.0, harm_of);
    losses.sort_by(|a, b| {
        b.is_goal
            .cmp(&a.is_goal)
            .then(worst(b).total_cmp(&worst(a)))
            .then_with(|| (&a.rival, &a.metric).cmp(&(&b.rival, &b.metric)))
    });
}

fn harm_of(pair: &SeedPair) -> f64 {
    pair.harm.unwrap_or(f64::INFINITY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic;

    #[test]
    fn every_worse_seed_is_listed() {
        let mut closed_loop = synthetic::closed_loop(&["shardwise", "rival"], 3);
        closed_loop.policies[1].seeds = closed_loop.policies[0].seeds.clone();
        closed_loop.policies[1].seeds[2].metrics.p99_ms = closed_loop.policies[0].seeds[2].metrics.p99_ms / 2.0;
        let answer = where_it_loses(&closed_loop);
        let loss = answer.losses.iter().find(|loss| loss.metric == "p99_ms").unwrap();
        assert!(!answer.never);
        assert_eq!((loss.pairs.len(), loss.pairs[0].seed, loss.pairs[0].harm), (1, 3, Some(2.0)));
    }

    #[test]
    fn a_clean_win_still_names_the_closest_calls() {
        let mut closed_loop = synthetic::closed_loop(&["shardwise", "rival"], 2);
        for policy in &mut closed_loop.policies {
            let factor = if policy.name == "rival" { 2.0 } else { 1.0 };
            for result in &mut policy.seeds {
                result.metrics = synthetic::metrics(50.0 * factor);
            }
        }
        let answer = where_it_loses(&closed_loop);
        assert!(answer.never);
        assert!(answer.losses.iter().any(|loss| loss.is_goal));
    }

    #[test]
    fn the_same_figures_are_no_loss_but_a_closest_call() {
        let mut closed_loop = synthetic::closed_loop(&["shardwise", "twin"], 2);
        closed_loop.policies[1].seeds = closed_loop.policies[0].seeds.clone();
        let answer = where_it_loses(&closed_loop);
        assert!(answer.never && !answer.losses.is_empty());
        assert!(answer.losses.iter().all(|loss| loss.pairs[0].harm == Some(1.0)));
    }
}
