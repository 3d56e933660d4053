//! In turn: every shard gets the same number of requests, whatever it is.

use rand::Rng;
use shardwise_features::DecisionContext;
use shardwise_types::NoEligibleShard;

use crate::{Decision, Policy, Rules, eligible};

/// The next eligible shard after the one before, in the order of the fleet.
#[derive(Default)]
pub struct RoundRobin {
    candidates: Vec<usize>,
    next: usize,
}

impl Policy for RoundRobin {
    fn name(&self) -> &'static str {
        "round_robin"
    }

    fn decide(&mut self, context: &DecisionContext<'_>, _rng: &mut dyn Rng) -> Result<Decision, NoEligibleShard> {
        eligible(context, &Rules::default(), &mut self.candidates)?;
        let index = self.candidates.partition_point(|position| *position < self.next);
        let chosen = self.candidates.get(index).copied().unwrap_or(self.candidates[0]);
        self.next = chosen + 1;
        Ok(Decision::by_rule(chosen, 1.0, self.candidates.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng, rngs::StdRng};
    use shardwise_features::golden::contexts;

    #[test]
    fn each_takes_its_turn_and_the_unhealthy_are_skipped() {
        let mut golden = contexts().remove(1);
        let (mut policy, mut rng) = (RoundRobin::default(), StdRng::seed_from_u64(1));
        let mut take = |golden: &shardwise_features::golden::GoldenContext| {
            [(); 4].map(|()| policy.decide(&golden.context(), &mut rng).unwrap().chosen)
        };
        assert_eq!(take(&golden), [0, 1, 2, 0]);
        golden.fleet.shards[1].report.as_mut().unwrap().healthy = false;
        assert_eq!(take(&golden), [2, 0, 2, 0]);
    }
}
