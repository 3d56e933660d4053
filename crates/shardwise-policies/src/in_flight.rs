//! By this router's own requests in flight per core: the freshest signal there is, blind to what runs where how fast.

use rand::{Rng, RngExt};
use shardwise_features::DecisionContext;
use shardwise_types::NoEligibleShard;

use crate::{Decision, Policy, Rules, eligible};

fn in_flight_per_core(context: &DecisionContext<'_>, position: usize) -> f64 {
    let shard = &context.fleet.shards[position];
    let load = context.router.in_flight(&shard.id) / f64::from(shard.shape.cores);
    // A shard whose cores are no number is as good as full.
    if load.is_nan() { f64::INFINITY } else { load }
}

/// The least requests in flight per core; ties are drawn, so that an idle fleet is not filled from one end.
#[derive(Default)]
pub struct LeastInFlight {
    candidates: Vec<usize>,
    tied: Vec<usize>,
}

impl Policy for LeastInFlight {
    fn name(&self) -> &'static str {
        "least_in_flight"
    }

    fn decide(&mut self, context: &DecisionContext<'_>, rng: &mut dyn Rng) -> Result<Decision, NoEligibleShard> {
        eligible(context, &Rules::default(), &mut self.candidates)?;
        self.tied.clear();
        let mut least = f64::INFINITY;
        for &position in &self.candidates {
            let load = in_flight_per_core(context, position);
            if load < least {
                least = load;
                self.tied.clear();
            }
            if load <= least {
                self.tied.push(position);
            }
        }
        let n = self.tied.len();
        Ok(Decision::by_rule(self.tied[rng.random_range(0..n)], 1.0 / n as f64, self.candidates.len()))
    }
}

/// Power of two choices (Mitzenmacher 2001): of two shards drawn at random, the one with less in flight per core.
#[derive(Default)]
pub struct TwoChoicesInFlight {
    candidates: Vec<usize>,
}

impl Policy for TwoChoicesInFlight {
    fn name(&self) -> &'static str {
        "p2c_in_flight"
    }

    fn decide(&mut self, context: &DecisionContext<'_>, rng: &mut dyn Rng) -> Result<Decision, NoEligibleShard> {
        eligible(context, &Rules::default(), &mut self.candidates)?;
        let n = self.candidates.len();
        if n == 1 {
            return Ok(Decision::by_rule(self.candidates[0], 1.0, 1));
        }
        let first = rng.random_range(0..n);
        let second = (first + rng.random_range(1..n)) % n;
        let load = |index: usize| in_flight_per_core(context, self.candidates[index]);
        let winner = if load(second) < load(first) { second } else { first };
        Ok(Decision::by_rule(self.candidates[winner], self.propensity(context, winner), n))
    }
}

impl TwoChoicesInFlight {
    /// The chance that the ordered pair of draws ends at `winner`: it beats the worse ones in either place and ties
    /// when it is drawn first.
    fn propensity(&self, context: &DecisionContext<'_>, winner: usize) -> f64 {
        let n = self.candidates.len();
        let own = in_flight_per_core(context, self.candidates[winner]);
        let weight: f64 = (0..n)
            .filter(|other| *other != winner)
            .map(|other| match in_flight_per_core(context, self.candidates[other]) {
                load if load > own => 2.0,
                load if load < own => 0.0,
                _ => 1.0,
            })
            .sum();
        weight / (n * (n - 1)) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng, rngs::StdRng};
    use shardwise_features::golden::contexts;

    #[test]
    fn propensities_are_the_frequencies() {
        for mut policy in
            [Box::new(TwoChoicesInFlight::default()) as Box<dyn Policy>, Box::new(LeastInFlight::default())]
        {
            let golden = contexts().remove(1);
            let mut rng = StdRng::seed_from_u64(1);
            let (mut counts, mut stated) = ([0.0; 3], [0.0; 3]);
            for _ in 0..20_000 {
                let decision = policy.decide(&golden.context(), &mut rng).unwrap();
                counts[decision.chosen] += 1.0 / 20_000.0;
                stated[decision.chosen] = decision.propensity;
            }
            for (count, propensity) in counts.iter().zip(stated) {
                assert!((count - propensity).abs() < 0.015, "{}: {counts:?} but {stated:?}", policy.name());
            }
        }
    }
}
