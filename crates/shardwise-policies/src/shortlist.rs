//! What the specification's strategies share: hard rules first, then the shards that a strategy would like, then a
//! score; and the last rung of every ladder, the least loaded of all eligible shards.

use shardwise_features::DecisionContext;
use shardwise_types::{NoEligibleShard, ShardId, ShardSnapshot};

use crate::{Decision, Rules, eligible};

/// The eligible shards, and those of them that a strategy would like.
#[derive(Default)]
pub(crate) struct Shortlist {
    eligible: Vec<usize>,
    liked: Vec<usize>,
}

impl Shortlist {
    /// Begins with the eligible shards and likes none.
    pub(crate) fn begin(&mut self, context: &DecisionContext<'_>) -> Result<(), NoEligibleShard> {
        self.liked.clear();
        eligible(context, &Rules::default(), &mut self.eligible)
    }

    /// Likes those of the named shards that are eligible and suit; says whether it likes any now.
    pub(crate) fn like<'a>(
        &mut self,
        context: &DecisionContext<'_>,
        names: impl IntoIterator<Item = &'a ShardId>,
        suits: impl Fn(&ShardSnapshot) -> bool,
    ) -> bool {
        for name in names {
            let position =
                context.fleet.position(name).filter(|position| self.eligible.binary_search(position).is_ok());
            let Some(position) = position.filter(|position| suits(&context.fleet.shards[*position])) else { continue };
            // In the order of the fleet, so that ties go by shard id; a name given twice counts once.
            if let Err(place) = self.liked.binary_search(&position) {
                self.liked.insert(place, position);
            }
        }
        !self.liked.is_empty()
    }

    /// Likes every eligible shard that suits; says whether it likes any now.
    pub(crate) fn like_all(&mut self, suits: impl Fn(usize) -> bool) -> bool {
        self.liked.clear();
        self.liked.extend(self.eligible.iter().copied().filter(|position| suits(*position)));
        !self.liked.is_empty()
    }

    /// Keeps only the liked shards within `margin` of the lowest value; all when no value is a number.
    pub(crate) fn keep_within(&mut self, margin: f64, value: impl Fn(usize) -> f64) {
        let lowest = self.liked.iter().map(|position| value(*position)).fold(f64::INFINITY, f64::min);
        if lowest.is_finite() {
            self.liked.retain(|position| value(*position) <= lowest + margin);
        }
    }

    /// The liked shard with the highest score, or, when none is liked, the least loaded of all. Ties go by shard id; a
    /// score that is not a number is the worst.
    pub(crate) fn decide(&self, context: &DecisionContext<'_>, score: impl Fn(usize) -> f64) -> Decision {
        let emptiness = |position: usize| -load(&context.fleet.shards[position]);
        let best = highest(&self.liked, score).or_else(|| highest(&self.eligible, emptiness));
        Decision::by_rule(best.expect("begin leaves at least one"), 1.0, self.eligible.len())
    }
}

fn highest(positions: &[usize], score: impl Fn(usize) -> f64) -> Option<usize> {
    let number = |score: f64| if score.is_nan() { f64::NEG_INFINITY } else { score };
    let mut best: Option<(usize, f64)> = None;
    for &position in positions {
        let score = number(score(position));
        if best.is_none_or(|(_, highest)| score > highest) {
            best = Some((position, score));
        }
    }
    best.map(|(position, _)| position)
}

/// Reported load in [0, 1]. Eligible shards have reported.
pub(crate) fn load(shard: &ShardSnapshot) -> f64 {
    shard.load().map_or(f64::NAN, f64::from)
}

/// Reported mean latency in ms.
pub(crate) fn latency_ms(shard: &ShardSnapshot) -> f64 {
    shard.report.as_ref().map_or(f64::NAN, |report| f64::from(report.mean_latency_ms))
}

/// 1 at no latency, 0 from `scale_ms` on.
pub(crate) fn latency_score(shard: &ShardSnapshot, scale_ms: f64) -> f64 {
    1.0 - (latency_ms(shard) / scale_ms).min(1.0)
}
