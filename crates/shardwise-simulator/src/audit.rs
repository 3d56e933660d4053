//! What a policy may not do, found in every run: a bug is named and counted, never averaged away.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shardwise_policies::Decision;

/// A kind of bug in a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bug {
    /// It chose a shard that a hard rule forbids; such a request is not sent and counts as failed.
    IneligibleShard,
    /// It chose a position outside of the fleet; such a request is not sent and counts as failed.
    NoSuchShard,
    /// It refused although a shard was eligible.
    NeedlessRefusal,
    /// Its expected latency is not a number, is infinite or below zero.
    BadPrediction,
    /// Its propensity does not lie in (0, 1].
    BadPropensity,
    /// It sends (nearly) everything to one shard although several are eligible.
    OneShardOnly,
    /// Its decisions take longer than they may.
    SlowDecisions,
    /// It panicked.
    Panic,
    /// The same seed gave another run.
    NotRepeatable,
}

impl Bug {
    /// What it means, for people.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::IneligibleShard => "chose shards that a hard rule forbids",
            Self::NoSuchShard => "chose positions outside of the fleet",
            Self::NeedlessRefusal => "refused although shards were eligible",
            Self::BadPrediction => "expects latencies that are no numbers",
            Self::BadPropensity => "states propensities outside of (0, 1]",
            Self::OneShardOnly => "sends nearly everything to one shard",
            Self::SlowDecisions => "decides too slowly",
            Self::Panic => "panicked",
            Self::NotRepeatable => "gives another result for the same seed",
        }
    }
}

/// A bug that a run found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Its kind.
    pub bug: Bug,
    /// How many decisions show it; 1 for what concerns the whole run.
    pub count: u64,
    /// The first case, or the figure that gives it away.
    pub detail: String,
}

/// Decisions over more than one eligible shard that a verdict on [`Bug::OneShardOnly`] needs.
const ENOUGH_DECISIONS: u64 = 200;
/// Share of such decisions that may go to one shard before the first request can have timed out: later the breaker takes
/// an overloaded shard away for a while, and even a stuck policy wanders.
const MOST_ON_ONE: f64 = 0.98;

/// Watches the decisions of a run.
#[derive(Default)]
pub(crate) struct Audit {
    findings: BTreeMap<Bug, (u64, String)>,
    /// Early decisions over several eligible shards, by shard of the world.
    chosen: Vec<u64>,
}

impl Audit {
    pub(crate) fn new(shards: usize) -> Self {
        Self { chosen: vec![0; shards], ..Self::default() }
    }

    /// Notes a bug; `detail` is only made for the first.
    pub(crate) fn note(&mut self, bug: Bug, detail: impl FnOnce() -> String) {
        self.findings.entry(bug).or_insert_with(|| (0, detail())).0 += 1;
    }

    /// Looks at a decision for a shard of the world; `is_early` while no request can have timed out.
    pub(crate) fn look(&mut self, decision: &Decision, shard: u16, is_early: bool) {
        if is_early && decision.eligible > 1 {
            self.chosen[usize::from(shard)] += 1;
        }
        if let Some(ms) = decision.predicted_ms.filter(|ms| !(ms.is_finite() && *ms >= 0.0)) {
            self.note(Bug::BadPrediction, || format!("an expected latency of {ms} ms"));
        }
        if !(decision.propensity > 0.0 && decision.propensity <= 1.0) {
            self.note(Bug::BadPropensity, || format!("a propensity of {}", decision.propensity));
        }
    }

    /// All that was found; `name` names a shard of the world.
    pub(crate) fn finish(mut self, name: &dyn Fn(usize) -> String) -> Vec<Finding> {
        let all: u64 = self.chosen.iter().sum();
        let most = self.chosen.iter().enumerate().max_by_key(|(_, count)| **count);
        if let Some((shard, &count)) = most.filter(|(_, count)| **count as f64 > MOST_ON_ONE * all as f64)
            && all >= ENOUGH_DECISIONS
        {
            self.note(Bug::OneShardOnly, || format!("{count} of its first {all} decisions chose {}", name(shard)));
        }
        let finding = |(bug, (count, detail))| Finding { bug, count, detail };
        self.findings.into_iter().map(finding).collect()
    }
}
