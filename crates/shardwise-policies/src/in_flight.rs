//! By this router's own requests in flight per core: the freshest signal there is, blind to what runs where how fast.

use rand::Rng;
use shardwise_features::DecisionContext;
use shardwise_types::NoEligibleShard;

use crate::loads::Loads;
use crate::{Decision, Policy};

pub(crate) fn in_flight_per_core(context: &DecisionContext<'_>, position: usize) -> f64 {
    let shard = &context.fleet.shards[position];
    context.router.in_flight(&shard.id, context.decided_at) / f64::from(shard.shape.cores)
}

/// The least requests in flight per core; ties are drawn.
#[derive(Default)]
pub struct LeastInFlight {
    loads: Loads,
}

impl Policy for LeastInFlight {
    fn name(&self) -> &'static str {
        "least_in_flight"
    }

    fn decide(&mut self, context: &DecisionContext<'_>, rng: &mut dyn Rng) -> Result<Decision, NoEligibleShard> {
        self.loads.read(context, |position| in_flight_per_core(context, position))?;
        Ok(self.loads.draw_least(rng))
    }

    fn odds(
        &mut self,
        context: &DecisionContext<'_>,
        out: &mut Vec<(usize, f64)>,
    ) -> Option<Result<(), NoEligibleShard>> {
        let read = self.loads.read(context, |position| in_flight_per_core(context, position));
        Some(read.map(|()| self.loads.odds_of_least(out)))
    }

    fn revisit(&mut self, context: &DecisionContext<'_>, chosen: usize) -> Option<Result<Decision, NoEligibleShard>> {
        let read = self.loads.read(context, |position| in_flight_per_core(context, position));
        Some(read.map(|()| self.loads.revisit_least(chosen)))
    }
}

/// Power of two choices (Mitzenmacher 2001): of two shards drawn at random, the one with less in flight per core.
#[derive(Default)]
pub struct TwoChoicesInFlight {
    loads: Loads,
}

impl Policy for TwoChoicesInFlight {
    fn name(&self) -> &'static str {
        "p2c_in_flight"
    }

    fn decide(&mut self, context: &DecisionContext<'_>, rng: &mut dyn Rng) -> Result<Decision, NoEligibleShard> {
        self.loads.read(context, |position| in_flight_per_core(context, position))?;
        Ok(self.loads.draw_better_of_two(rng))
    }

    fn revisit(&mut self, context: &DecisionContext<'_>, chosen: usize) -> Option<Result<Decision, NoEligibleShard>> {
        let read = self.loads.read(context, |position| in_flight_per_core(context, position));
        Some(read.map(|()| self.loads.revisit_better_of_two(chosen)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng, rngs::StdRng};
    use shardwise_features::golden::contexts;

    #[test]
    fn what_counts_is_in_flight_per_core() {
        let mut golden = contexts().remove(1);
        golden.router = shardwise_features::RouterState::new();
        for position in [0, 0, 0, 1, 1, 2] {
            golden.router.on_dispatch(&golden.context(), position);
        }
        let decision = LeastInFlight::default().decide(&golden.context(), &mut StdRng::seed_from_u64(1)).unwrap();
        assert_eq!((decision.chosen, decision.propensity), (0, 1.0), "3 on 4 cores, 2 on 2, 1 on 1");
    }
}
