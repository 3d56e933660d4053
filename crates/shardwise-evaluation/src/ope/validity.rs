//! Where an off-policy estimate means something: enough support in the logs, and a target that would not have changed the queues much.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Round;

/// How far the logs carry.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Support {
    /// Rounds with an outcome.
    pub rounds: usize,
    /// Share of the target's choices that the log could have made, estimated: the mean weight of choices that were drawn with
    /// [`Limits::least_propensity`] or more. 1 is full support; above 1 is chance.
    pub covered: f64,
    /// Effective sample size (Σw)² / Σw² over the rounds.
    pub effective_share: f64,
    /// The largest weight.
    pub largest_weight: f64,
}

/// How much the target would have changed the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Shift {
    /// Core time of the executions in the log over all core time.
    pub utilisation: f64,
    /// Share of the core time that the target would move to other shards, estimated by the weights: half the sum of
    /// the differences of the shards' shares.
    pub moved: f64,
    /// Core time of the target over that of the log, estimated by the weights.
    pub core_time: f64,
    /// Share of the logged costs that was waiting for a core; all of a timeout counts as such.
    pub queueing: f64,
}

/// One round, and what else is to be known of it.
#[derive(Debug, Clone, Copy)]
pub struct Weighed<'a> {
    /// The round.
    pub round: &'a Round,
    /// Probability with which its choice was drawn.
    pub propensity: f64,
    /// The shard.
    pub shard: &'a str,
    /// How long it ran there, in ms.
    pub exec_ms: f64,
    /// How long it waited there, in ms; a timeout's whole cost.
    pub queue_ms: f64,
}

/// What an estimate needs; the defaults are those beyond which estimates were measured to be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Choices that were drawn with a smaller probability support nothing.
    pub least_propensity: f64,
    /// Least [`Support::covered`].
    pub least_covered: f64,
    /// Least [`Support::effective_share`].
    pub least_effective_share: f64,
    /// Most of [`Support::largest_weight`].
    pub largest_weight: f64,
    /// Most of [`Shift::utilisation`].
    pub most_utilisation: f64,
    /// Most of [`Shift::moved`].
    pub most_moved: f64,
    /// Most of [`Shift::queueing`]. A fleet that is half busy in the mean may drown in bursts: where more than this was waiting,
    /// estimates were measured to be off by up to one and a half times, below it by a few per cent.
    pub most_queueing: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            least_propensity: 0.005,
            least_covered: 0.9,
            least_effective_share: 0.05,
            largest_weight: 50.0,
            most_utilisation: 0.75,
            most_moved: 0.10,
            most_queueing: 0.25,
        }
    }
}

/// Whether estimates from some logs may be believed, and why not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Validity {
    /// How far the logs carry.
    pub support: Support,
    /// How much the target would have changed the fleet.
    pub shift: Shift,
    /// What the two were held against.
    pub limits: Limits,
    /// What speaks against any number, in sentences; empty when nothing does.
    pub refusals: Vec<String>,
}

impl Validity {
    /// Whether numbers may be given.
    pub fn holds(&self) -> bool {
        self.refusals.is_empty()
    }
}

impl fmt::Display for Validity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.holds() {
            true => f.write_str("the logs carry the estimates"),
            false => write!(f, "no estimate: {}", self.refusals.join("; ")),
        }
    }
}

/// Checks rounds; `core_ms` is the core time that the fleet had.
pub fn validity<'a>(rounds: impl Iterator<Item = Weighed<'a>>, core_ms: f64, limits: Limits) -> Validity {
    let (mut n, mut weights, mut squares, mut covered, mut largest) = (0_usize, 0.0, 0.0, 0.0, 0.0_f64);
    let (mut cost_ms, mut waited_ms) = (0.0, 0.0);
    let mut shards: BTreeMap<&str, [f64; 2]> = BTreeMap::new();
    for Weighed { round, propensity, shard, exec_ms, queue_ms } in rounds {
        n += 1;
        cost_ms += round.outcome;
        waited_ms += queue_ms;
        weights += round.weight;
        squares += round.weight * round.weight;
        covered += if propensity >= limits.least_propensity { round.weight } else { 0.0 };
        largest = largest.max(round.weight);
        let [logged, target] = shards.entry(shard).or_default();
        *logged += exec_ms;
        *target += round.weight * exec_ms;
    }
    let per_round = |sum: f64| sum / (n as f64).max(1.0);
    let all = shards.values().fold([0.0; 2], |[logged, target], own| [logged + own[0], target + own[1]]);
    let share = |own: f64, all: f64| if all > 0.0 { own / all } else { 0.0 };
    let moved = shards.values().map(|own| (share(own[0], all[0]) - share(own[1], all[1])).abs()).sum::<f64>() / 2.0;
    let support = Support {
        rounds: n,
        covered: per_round(covered),
        effective_share: if squares > 0.0 { per_round(weights * weights / squares) } else { 0.0 },
        largest_weight: largest,
    };
    let normalised = share(all[1], weights / n as f64);
    let shift = Shift {
        utilisation: share(all[0], core_ms),
        moved,
        core_time: share(normalised, all[0]),
        queueing: share(waited_ms, cost_ms),
    };
    Validity { support, shift, limits, refusals: refusals(&support, &shift, &limits) }
}

fn refusals(support: &Support, shift: &Shift, limits: &Limits) -> Vec<String> {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let mut refusals = Vec::new();
    // What is not a number holds nowhere.
    let [at_least, below]: [fn(f64, f64) -> bool; 2] = [|value, least| value >= least, |value, most| value < most];
    if !at_least(support.covered, limits.least_covered) {
        refusals.push(format!(
            "the log could have made {} of the target's choices, {} are needed: log with a policy that explores more",
            percent(support.covered),
            percent(limits.least_covered)
        ));
    }
    if !at_least(support.effective_share, limits.least_effective_share) {
        refusals.push(format!(
            "the weighted log is worth {} of its rounds, {} are needed: the policies are too different",
            percent(support.effective_share),
            percent(limits.least_effective_share)
        ));
    }
    if !at_least(limits.largest_weight, support.largest_weight) {
        refusals.push(format!(
            "one round weighs as much as {:.0}, at most {:.0} is allowed",
            support.largest_weight, limits.largest_weight
        ));
    }
    if !below(shift.utilisation, limits.most_utilisation) {
        refusals.push(format!(
            "the fleet was {} busy, below {} is needed: in queues every choice changes what later ones meet, and all \
             estimators are wrong together",
            percent(shift.utilisation),
            percent(limits.most_utilisation)
        ));
    }
    if !below(shift.moved, limits.most_moved) {
        refusals.push(format!(
            "the target would move {} of the core time to other shards, below {} is needed: it would meet other queues than \
             those in the log",
            percent(shift.moved),
            percent(limits.most_moved)
        ));
    }
    if !below(shift.queueing, limits.most_queueing) {
        refusals.push(format!(
            "{} of the logged costs were waiting in queues, below {} is needed: in bursts, too, every choice changes what later \
             ones meet",
            percent(shift.queueing),
            percent(limits.most_queueing)
        ));
    }
    refusals
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hundred rounds on two shards: those on `a` weigh `weight_a`, the others so much that all weigh 1 in the mean.
    fn judged(weight_a: f64, propensity: f64, core_ms: f64) -> Validity {
        judged_after(weight_a, propensity, core_ms, 0.0)
    }

    /// The same when each waited for so long.
    fn judged_after(weight_a: f64, propensity: f64, core_ms: f64, queue_ms: f64) -> Validity {
        let rounds: Vec<(Round, &str)> = (0..100)
            .map(|i| {
                let (weight, shard) = if i % 2 == 0 { (weight_a, "a") } else { (2.0 - weight_a, "b") };
                (Round { at_ns: i, weight, outcome: 1.0, predicted: 1.0, predicted_target: 1.0 }, shard)
            })
            .collect();
        let weighed = |(round, shard)| Weighed { round, propensity, shard, exec_ms: 10.0, queue_ms };
        let rounds = rounds.iter().map(|(round, shard)| weighed((round, *shard)));
        validity(rounds, core_ms, Limits::default())
    }

    #[test]
    fn sound_logs_hold() {
        let validity = judged(1.1, 0.5, 2_000.0);
        assert!(validity.holds(), "{validity}");
        assert_eq!((validity.support.rounds, validity.shift.utilisation), (100, 0.5));
        assert!((validity.shift.moved - 0.05).abs() < 1e-12 && (validity.shift.core_time - 1.0).abs() < 1e-12);
        assert!((validity.support.effective_share - 1.0 / 1.01).abs() < 1e-12);
    }

    #[test]
    fn each_limit_refuses_by_itself() {
        for (validity, words) in [
            (judged(1.0, 0.001, 2_000.0), "0.0 % of the target's choices"),
            (judged(1.0, 0.5, 1_200.0), "83.3 % busy"),
            (judged(1.3, 0.5, 2_000.0), "move 15.0 % of the core time"),
            (judged_after(1.0, 0.5, 2_000.0, 0.3), "30.0 % of the logged costs were waiting"),
        ] {
            assert_eq!(validity.refusals.len(), 1, "{validity}");
            assert!(validity.to_string().contains(words), "{validity}");
        }
        let heavy = Round { at_ns: 0, weight: 1e4, outcome: 1.0, predicted: 1.0, predicted_target: 1.0 };
        let light = Round { weight: 0.0, ..heavy };
        let weighed = |round| Weighed { round, propensity: 0.5, shard: "a", exec_ms: 1.0, queue_ms: 0.0 };
        let rounds = std::iter::once(&heavy).chain((0..9_999).map(|_| &light)).map(weighed);
        let validity = validity(rounds, 1e6, Limits::default());
        let said = validity.to_string();
        assert!(said.contains("worth 0.0 %") && said.contains("as much as 10000"), "{said}");
        assert!(!super::validity(std::iter::empty(), 0.0, Limits::default()).holds(), "nothing carries nothing");
    }
}
