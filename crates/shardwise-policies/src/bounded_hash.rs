//! Consistent hashing with bounded loads: a function stays on its home shard, where it is warm, until that shard has
//! more than its share in flight; then it moves on along the ring.
//!
//! Mirrokni, Thorup and Zadimoghaddam, *Consistent hashing with bounded loads* (2018), as HAProxy's
//! `hash-balance-factor`; points on the ring and bounds go by cores.

use rand::Rng;
use shardwise_features::DecisionContext;
use shardwise_types::{FleetSnapshot, NoEligibleShard, combine_keys};

use crate::{Decision, Policy, Rules, eligible};

/// Points on the ring per core; more spread functions more evenly.
const POINTS_PER_CORE: f64 = 64.0;
/// A shard has this many points at most.
const MOST_POINTS: f64 = 65_536.0;

/// Knobs of [`BoundedHash`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BoundedHashConfig {
    /// What a shard may have in flight over its share by cores, above 1.
    pub factor: f64,
}

impl Default for BoundedHashConfig {
    /// A twentieth more than the share: of 1.01 to 2, about the best in simulated fleets (seeds 1 to 9). Looser bounds keep
    /// functions warmer and queues longer.
    fn default() -> Self {
        Self { factor: 1.05 }
    }
}

/// The first shard on the ring, from the function's place on, that is below its bound.
pub struct BoundedHash {
    config: BoundedHashConfig,
    ring: Ring,
    candidates: Vec<usize>,
    /// By position in the fleet: eligible and below its bound.
    has_room: Vec<bool>,
}

impl BoundedHash {
    /// With its knobs.
    pub fn new(config: BoundedHashConfig) -> Self {
        Self { config, ring: Ring::default(), candidates: Vec::new(), has_room: Vec::new() }
    }

    /// Marks the candidates that may take one more. Bounds add up to more than the requests, so there is always one.
    fn mark_room(&mut self, context: &DecisionContext<'_>) {
        let shards = &context.fleet.shards;
        let in_flight = |position: &usize| context.router.in_flight(&shards[*position].id, context.decided_at);
        let cores = |position: &usize| f64::from(shards[*position].shape.cores);
        let wanted = 1.0 + self.candidates.iter().map(in_flight).sum::<f64>();
        let per_core = self.config.factor * wanted / self.candidates.iter().map(cores).sum::<f64>();
        self.has_room.clear();
        self.has_room.resize(shards.len(), false);
        for position in &self.candidates {
            self.has_room[*position] = in_flight(position) < (per_core * cores(position)).ceil();
        }
    }
}

impl Default for BoundedHash {
    fn default() -> Self {
        Self::new(BoundedHashConfig::default())
    }
}

impl BoundedHash {
    fn choose(&mut self, context: &DecisionContext<'_>) -> Result<usize, NoEligibleShard> {
        eligible(context, &Rules::default(), &mut self.candidates)?;
        self.ring.follow(context.fleet);
        self.mark_room(context);
        let mut from_home = self.ring.from(context.request.function.key());
        Ok(from_home.find(|position| self.has_room[*position]).unwrap_or(self.candidates[0]))
    }
}

impl Policy for BoundedHash {
    fn name(&self) -> &'static str {
        "bounded_hash"
    }

    fn decide(&mut self, context: &DecisionContext<'_>, _rng: &mut dyn Rng) -> Result<Decision, NoEligibleShard> {
        let chosen = self.choose(context)?;
        Ok(Decision::by_rule(chosen, 1.0, self.candidates.len()))
    }

    fn odds(
        &mut self,
        context: &DecisionContext<'_>,
        out: &mut Vec<(usize, f64)>,
    ) -> Option<Result<(), NoEligibleShard>> {
        Some(self.choose(context).map(|chosen| out.push((chosen, 1.0))))
    }
}

/// Points in the order of their hashes, each a shard's; made anew when shards come, go or change their cores.
#[derive(Default)]
struct Ring {
    /// Key and cores of each shard that the points were made for, in the order of the fleet.
    members: Vec<(u64, f32)>,
    /// Hash and position in the fleet.
    points: Vec<(u64, usize)>,
}

impl Ring {
    fn follow(&mut self, fleet: &FleetSnapshot) {
        let members = || fleet.shards.iter().map(|shard| (shard.id.key(), shard.shape.cores));
        if self.members.iter().copied().eq(members()) {
            return;
        }
        self.members.clear();
        self.members.extend(members());
        self.points.clear();
        for (position, (key, cores)) in self.members.iter().enumerate() {
            let points = (POINTS_PER_CORE * f64::from(*cores)).clamp(1.0, MOST_POINTS) as u64;
            self.points.extend((0..points).map(|point| (combine_keys(*key, point), position)));
        }
        self.points.sort_unstable();
    }

    /// Positions from a key's place on, once around.
    fn from(&self, key: u64) -> impl Iterator<Item = usize> {
        let home = self.points.partition_point(|(hash, _)| *hash < key);
        let (before, after) = self.points.split_at(home);
        after.iter().chain(before).map(|(_, position)| *position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng, rngs::StdRng};
    use shardwise_features::RouterState;
    use shardwise_features::golden::{GoldenContext, contexts};

    fn idle() -> GoldenContext {
        GoldenContext { router: RouterState::new(), ..contexts().remove(1) }
    }

    fn choose(golden: &GoldenContext) -> usize {
        BoundedHash::default().decide(&golden.context(), &mut StdRng::seed_from_u64(1)).unwrap().chosen
    }

    #[test]
    fn a_function_stays_at_home_until_the_bound_and_then_moves_on_along_the_ring() {
        let golden = idle();
        let mut ring = Ring::default();
        ring.follow(&golden.fleet);
        let along: Vec<usize> = ring.from(golden.request.function.key()).collect();
        let home = along[0];
        let next = *along.iter().find(|position| **position != home).unwrap();
        let cores = f64::from(golden.fleet.shards[home].shape.cores);
        for sent in 0..20 {
            // All seven cores have only what home has.
            let bound = (1.05 * f64::from(sent + 1) / 7.0 * cores).ceil();
            if f64::from(sent) < bound {
                assert_eq!(choose(&golden), home, "{sent} in flight, bound {bound}");
            } else {
                assert_eq!(choose(&golden), next, "{sent} in flight, bound {bound}");
                return;
            }
            golden.router.on_dispatch(&golden.context(), home);
        }
        panic!("it never left home");
    }

    #[test]
    fn functions_spread_by_cores() {
        let mut golden = idle();
        let mut counts = [0.0; 3];
        for i in 0..7_000 {
            golden.request.function = format!("function-{i}").into();
            counts[choose(&golden)] += 1.0;
        }
        assert!(
            counts.iter().zip([4_000.0, 2_000.0, 1_000.0]).all(|(n, share)| (n / share - 1.0_f64).abs() < 0.25),
            "{counts:?}"
        );
    }

    #[test]
    fn a_shard_that_leaves_takes_only_its_own_functions_along() {
        let (mut all, mut fewer) = (idle(), idle());
        fewer.fleet.shards.remove(1);
        for i in 0..100 {
            all.request.function = format!("function-{i}").into();
            fewer.request.function = all.request.function.clone();
            let [before, after] = [&all, &fewer].map(|golden| golden.fleet.shards[choose(golden)].id.clone());
            assert!(before == after || before.as_str() == "shard-b", "{before} to {after}");
        }
    }
}
