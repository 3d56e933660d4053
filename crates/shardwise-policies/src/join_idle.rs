//! Join-Idle-Queue: shards with a core to spare queue up at a router, and requests join them there.
//!
//! Lu et al., *Join-Idle-Queue* (2011), with its random fall-back. Which router a shard tells is drawn by the runtime.

use std::collections::VecDeque;

use rand::{Rng, RngExt};
use shardwise_features::DecisionContext;
use shardwise_types::{NoEligibleShard, ShardId};

use crate::{Decision, Policy, Rules, eligible};

/// Notices kept at most; the oldest goes first.
const MOST_NOTICES: usize = 4_096;

/// The shard that has been idle for longest by its own notice, else a random one.
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
        Ok(Decision::by_rule(self.candidates[rng.random_range(0..n)], 1.0 / n as f64, n))
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
        assert_eq!(taken.map(|decision| decision.propensity), [1.0, 1.0, 1.0 / 3.0], "then it is drawn");
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
