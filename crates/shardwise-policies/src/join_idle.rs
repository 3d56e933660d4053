//! Join-Idle-Queue: shards with a core to spare queue up at a router, and requests join them there.
//!
//! Lu et al., *Join-Idle-Queue* (2011), with its random fall-back, drawn by cores because shards are unequal. Which router
//! a shard tells is drawn by the runtime.

use std::collections::VecDeque;

use rand::{Rng, RngExt};
use shardwise_features::DecisionContext;
use shardwise_types::{NoEligibleShard, ShardId};

use crate::{Decision, Policy, Rules, eligible};

/// Notices kept at most; the oldest goes first.
const MOST_NOTICES: usize = 4_096;

/// The shard whose notice has waited longest, else one drawn by cores.
#[derive(Default)]
pub struct JoinIdle {
    /// Keys of shards, a notice each, oldest first.
    idle: VecDeque<u64>,
    candidates: Vec<usize>,
}

impl JoinIdle {
    /// Uses up the oldest notice of an eligible shard. Notices of others stay: the next request may be allowed there.
    fn take_notice(&mut self, context: &DecisionContext<'_>) -> Option<usize> {
        let key = |position: usize| context.fleet.shards[position].id.key();
        let eligible = |notice: u64| self.candidates.iter().copied().find(|position| key(*position) == notice);
        let (index, chosen) =
            self.idle.iter().enumerate().find_map(|(index, notice)| Some((index, eligible(*notice)?)))?;
        self.idle.remove(index);
        Some(chosen)
    }

    /// Draws an eligible shard in proportion to its cores; the draw and its chance.
    fn draw_by_cores(&self, context: &DecisionContext<'_>, rng: &mut dyn Rng) -> (usize, f64) {
        // A shard whose cores are no number is hardly ever drawn.
        let cores = |position: &usize| f64::from(context.fleet.shards[*position].shape.cores).max(f64::MIN_POSITIVE);
        let all: f64 = self.candidates.iter().map(cores).sum();
        let mut left = rng.random::<f64>() * all;
        let reaches = |position: &&usize| {
            left -= cores(position);
            left < 0.0
        };
        let drawn = self.candidates.iter().find(reaches).or(self.candidates.last());
        let chosen = *drawn.expect("eligible leaves at least one");
        (chosen, cores(&chosen) / all)
    }
}

impl Policy for JoinIdle {
    fn name(&self) -> &'static str {
        "join_idle"
    }

    fn decide(&mut self, context: &DecisionContext<'_>, rng: &mut dyn Rng) -> Result<Decision, NoEligibleShard> {
        eligible(context, &Rules::default(), &mut self.candidates)?;
        let n = self.candidates.len();
        if let Some(chosen) = self.take_notice(context) {
            return Ok(Decision::by_rule(chosen, 1.0, n));
        }
        let (chosen, share) = self.draw_by_cores(context, rng);
        Ok(Decision::by_rule(chosen, share, n))
    }

    fn wants_idle_notices(&self) -> bool {
        true
    }

    fn on_idle(&mut self, shard: &ShardId) {
        if self.idle.len() == MOST_NOTICES {
            self.idle.pop_front();
        }
        self.idle.push_back(shard.key());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng, rngs::StdRng};
    use shardwise_features::golden::contexts;
    use shardwise_types::UsdAmount;

    #[test]
    fn a_notice_is_used_once() {
        let golden = contexts().remove(1);
        let (mut policy, mut rng) = (JoinIdle::default(), StdRng::seed_from_u64(1));
        policy.on_idle(&"shard-c".into());
        policy.on_idle(&"shard-b".into());
        let taken = [(); 3].map(|()| policy.decide(&golden.context(), &mut rng).unwrap());
        assert_eq!([taken[0].chosen, taken[1].chosen], [2, 1]);
        let shares = [4.0 / 7.0, 2.0 / 7.0, 1.0 / 7.0];
        assert_eq!(
            taken.map(|decision| decision.propensity),
            [1.0, 1.0, shares[taken[2].chosen]],
            "then it is drawn by cores"
        );
    }

    #[test]
    fn a_notice_of_a_shard_that_may_not_serve_is_kept_for_the_next() {
        let mut golden = contexts().remove(1);
        let (mut policy, mut rng) = (JoinIdle::default(), StdRng::seed_from_u64(1));
        policy.on_idle(&"shard-b".into());
        golden.request.amount_usd = UsdAmount::new(2e6).ok();
        assert_eq!(policy.decide(&golden.context(), &mut rng).unwrap().chosen, 0);
        golden.request.amount_usd = None;
        assert_eq!(policy.decide(&golden.context(), &mut rng).unwrap().chosen, 1);
    }
}
