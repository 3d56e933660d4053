//! By the load that shards report (the fullest of CPU, memory and queue, see `ShardReport::load`): always a report old,
//! so all routers run to the shard that was empty a second ago.
//!
//! Mitzenmacher, *How useful is old information?* (2000): the least reported herds, two choices soften it.

use rand::Rng;
use shardwise_features::DecisionContext;
use shardwise_types::NoEligibleShard;

use crate::loads::Loads;
use crate::{Decision, Policy};

/// Reported load in [0, 1]; NaN, which is as good as full, for a shard that never reported.
pub(crate) fn reported_load(context: &DecisionContext<'_>, position: usize) -> f64 {
    context.fleet.shards[position].load().map_or(f64::NAN, f64::from)
}

/// The least reported load; ties are drawn.
#[derive(Default)]
pub struct LeastReported {
    loads: Loads,
}

impl Policy for LeastReported {
    fn name(&self) -> &'static str {
        "least_reported"
    }

    fn decide(&mut self, context: &DecisionContext<'_>, rng: &mut dyn Rng) -> Result<Decision, NoEligibleShard> {
        self.loads.read(context, |position| reported_load(context, position))?;
        Ok(self.loads.draw_least(rng))
    }

    fn odds(
        &mut self,
        context: &DecisionContext<'_>,
        out: &mut Vec<(usize, f64)>,
    ) -> Option<Result<(), NoEligibleShard>> {
        let read = self.loads.read(context, |position| reported_load(context, position));
        Some(read.map(|()| self.loads.odds_of_least(out)))
    }

    fn revisit(&mut self, context: &DecisionContext<'_>, chosen: usize) -> Option<Result<Decision, NoEligibleShard>> {
        let read = self.loads.read(context, |position| reported_load(context, position));
        Some(read.map(|()| self.loads.revisit_least(chosen)))
    }
}

/// Of two shards drawn at random, the one that reported less load.
#[derive(Default)]
pub struct TwoChoicesReported {
    loads: Loads,
}

impl Policy for TwoChoicesReported {
    fn name(&self) -> &'static str {
        "p2c_reported"
    }

    fn decide(&mut self, context: &DecisionContext<'_>, rng: &mut dyn Rng) -> Result<Decision, NoEligibleShard> {
        self.loads.read(context, |position| reported_load(context, position))?;
        Ok(self.loads.draw_better_of_two(rng))
    }

    fn revisit(&mut self, context: &DecisionContext<'_>, chosen: usize) -> Option<Result<Decision, NoEligibleShard>> {
        let read = self.loads.read(context, |position| reported_load(context, position));
        Some(read.map(|()| self.loads.revisit_better_of_two(chosen)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng, rngs::StdRng};
    use shardwise_features::golden::contexts;

    #[test]
    fn own_work_does_not_change_what_was_reported() {
        let golden = contexts().remove(1);
        let (mut policy, mut rng) = (LeastReported::default(), StdRng::seed_from_u64(1));
        for _ in 0..100 {
            let decision = policy.decide(&golden.context(), &mut rng).unwrap();
            assert_eq!(decision.chosen, 0, "the emptiest by its report");
            golden.router.on_dispatch(&golden.context(), decision.chosen);
        }
    }
}
