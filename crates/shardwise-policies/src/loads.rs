//! Eligible shards with a load each, and two ways to pick among them: the least, or the better of two drawn; and either again
//! as it was picked before.
//!
//! What a load is, the policies say; lower is better.

use rand::{Rng, RngExt};
use shardwise_features::DecisionContext;
use shardwise_types::NoEligibleShard;

use crate::{Decision, Rules, eligible};

/// Loads of the eligible shards, in the order of the fleet.
#[derive(Default)]
pub(crate) struct Loads {
    positions: Vec<usize>,
    values: Vec<f64>,
    tied: Vec<usize>,
}

impl Loads {
    /// Asks for the load of every eligible shard by its position; what is not a number is as good as full.
    pub(crate) fn read(
        &mut self,
        context: &DecisionContext<'_>,
        mut load: impl FnMut(usize) -> f64,
    ) -> Result<(), NoEligibleShard> {
        eligible(context, &Rules::default(), &mut self.positions)?;
        let number = |load: f64| if load.is_nan() { f64::INFINITY } else { load };
        self.values.clear();
        self.values.extend(self.positions.iter().map(|position| number(load(*position))));
        Ok(())
    }

    /// The least load; ties are drawn, so that an idle fleet is not filled from one end.
    pub(crate) fn draw_least(&mut self, rng: &mut dyn Rng) -> Decision {
        self.tie();
        self.least(rng.random_range(0..self.tied.len()))
    }

    /// What [`Self::draw_least`] might draw.
    pub(crate) fn odds_of_least(&mut self, out: &mut Vec<(usize, f64)>) {
        self.tie();
        let each = 1.0 / self.tied.len() as f64;
        out.extend(self.tied.iter().map(|position| (*position, each)));
    }

    /// The least load again: of those that tie the one that was chosen, or the first where that is not among them.
    pub(crate) fn revisit_least(&mut self, chosen: usize) -> Decision {
        self.tie();
        self.least(self.tied.iter().position(|position| *position == chosen).unwrap_or(0))
    }

    fn least(&self, tied: usize) -> Decision {
        Decision::by_rule(self.tied[tied], 1.0 / self.tied.len() as f64, self.positions.len())
    }

    /// Finds who ties for the least load.
    fn tie(&mut self) {
        self.tied.clear();
        let mut least = f64::INFINITY;
        for (&position, &load) in self.positions.iter().zip(&self.values) {
            if load < least {
                least = load;
                self.tied.clear();
            }
            if load <= least {
                self.tied.push(position);
            }
        }
    }

    /// Of two different shards drawn at random, the one with the lower load.
    pub(crate) fn draw_better_of_two(&self, rng: &mut dyn Rng) -> Decision {
        let n = self.positions.len();
        if n == 1 {
            return Decision::by_rule(self.positions[0], 1.0, 1);
        }
        let first = rng.random_range(0..n);
        let second = (first + rng.random_range(1..n)) % n;
        self.better_of_two(if self.values[second] < self.values[first] { second } else { first })
    }

    /// The better of two again, as it was drawn; where that cannot have won, the one that wins most often.
    pub(crate) fn revisit_better_of_two(&self, chosen: usize) -> Decision {
        let n = self.positions.len();
        if n == 1 {
            return Decision::by_rule(self.positions[0], 1.0, 1);
        }
        let drawn = self.positions.iter().position(|position| *position == chosen);
        let may_win = drawn.filter(|winner| self.propensity_of_two(*winner) > 0.0);
        let by_load = |a: &usize, b: &usize| self.values[*a].total_cmp(&self.values[*b]);
        self.better_of_two(may_win.unwrap_or_else(|| (0..n).min_by(by_load).expect("read leaves at least one")))
    }

    fn better_of_two(&self, winner: usize) -> Decision {
        Decision::by_rule(self.positions[winner], self.propensity_of_two(winner), self.positions.len())
    }

    /// The chance that the ordered pair of draws ends at `winner`: it beats the worse ones in either place and ties
    /// when it is drawn first.
    fn propensity_of_two(&self, winner: usize) -> f64 {
        let n = self.positions.len();
        let own = self.values[winner];
        // Counted without branches, which no processor could foresee.
        let worse: usize = self.values.iter().map(|load| usize::from(*load > own)).sum();
        let not_better = self.values.iter().map(|load| usize::from(*load >= own)).sum::<usize>() - 1;
        (worse + not_better) as f64 / (n * (n - 1)) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng, rngs::StdRng};
    use shardwise_features::golden::contexts;

    fn loads(of: [f64; 3]) -> Loads {
        let golden = contexts().remove(1);
        let mut loads = Loads::default();
        loads.read(&golden.context(), |position| of[position]).unwrap();
        loads
    }

    #[test]
    fn propensities_are_the_frequencies() {
        type Pick = fn(&mut Loads, &mut StdRng) -> Decision;
        let picks: [Pick; 2] = [|loads, rng| loads.draw_least(rng), |loads, rng| loads.draw_better_of_two(rng)];
        for pick in picks {
            let (mut loads, mut rng) = (loads([1.0, 0.5, 0.5]), StdRng::seed_from_u64(1));
            let (mut counts, mut stated) = ([0.0; 3], [0.0; 3]);
            for _ in 0..20_000 {
                let decision = pick(&mut loads, &mut rng);
                counts[decision.chosen] += 1.0 / 20_000.0;
                stated[decision.chosen] = decision.propensity;
            }
            assert!(counts.iter().zip(stated).all(|(count, p)| (count - p).abs() < 0.015), "{counts:?} but {stated:?}");
        }
    }

    #[test]
    fn a_load_that_is_no_number_never_wins() {
        let mut rng = StdRng::seed_from_u64(1);
        for _ in 0..50 {
            assert_eq!(loads([f64::NAN, f64::INFINITY, 9.0]).draw_least(&mut rng).chosen, 2);
            assert_ne!(loads([f64::NAN, 9.0, 9.0]).draw_better_of_two(&mut rng).chosen, 0);
        }
    }
}
