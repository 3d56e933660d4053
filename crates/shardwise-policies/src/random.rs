//! Uniformly at random among the eligible shards: the floor under everything.

use rand::{Rng, RngExt};
use shardwise_features::DecisionContext;
use shardwise_types::NoEligibleShard;

use crate::{Decision, Policy, Rules, eligible};

/// Uniformly at random.
#[derive(Default)]
pub struct Random {
    candidates: Vec<usize>,
}

impl Policy for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn decide(&mut self, context: &DecisionContext<'_>, rng: &mut dyn Rng) -> Result<Decision, NoEligibleShard> {
        eligible(context, &Rules::default(), &mut self.candidates)?;
        let n = self.candidates.len();
        Ok(Decision::by_rule(self.candidates[rng.random_range(0..n)], 1.0 / n as f64, n))
    }

    fn odds(
        &mut self,
        context: &DecisionContext<'_>,
        out: &mut Vec<(usize, f64)>,
    ) -> Option<Result<(), NoEligibleShard>> {
        let mut even = |candidates: &[usize]| {
            let each = 1.0 / candidates.len() as f64;
            out.extend(candidates.iter().map(|position| (*position, each)));
        };
        Some(eligible(context, &Rules::default(), &mut self.candidates).map(|()| even(&self.candidates)))
    }

    fn revisit(&mut self, context: &DecisionContext<'_>, chosen: usize) -> Option<Result<Decision, NoEligibleShard>> {
        let eligible = eligible(context, &Rules::default(), &mut self.candidates);
        Some(eligible.map(|()| {
            let n = self.candidates.len();
            let drawn = if self.candidates.contains(&chosen) { chosen } else { self.candidates[0] };
            Decision::by_rule(drawn, 1.0 / n as f64, n)
        }))
    }
}
