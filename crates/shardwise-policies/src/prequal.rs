//! Prequal: probes are sent beside requests and reused; of the probed shards it takes the one with the least latency
//! among those that are not hot, or the one with the least in flight when all are (hot-cold lexicographic).
//!
//! Wydrowski et al., *Load is not what you should balance: Introducing Prequal* (NSDI 2024), with the paper's defaults.
//! Requests in flight count per core, latency includes the way to the shard, and errors have the price that they have
//! in every cost here, in place of the paper's guard against sinkholes. Short of probes, the least in flight is taken.

use std::collections::VecDeque;

use rand::Rng;
use rand::seq::SliceRandom;
use rustc_hash::FxHashMap;
use shardwise_features::DecisionContext;
use shardwise_types::{NoEligibleShard, Timestamp};

use crate::sed::error_ms;
use crate::{Decision, LeastInFlight, Policy, ProbeAnswer, Rules, Runtime, eligible};

/// Fewer probes than this are no choice.
const LEAST_PROBES: usize = 2;

/// Knobs of [`Prequal`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrequalConfig {
    /// Probes sent beside each request.
    pub probes: usize,
    /// Probes kept.
    pub pool: usize,
    /// A probe older than this is dropped, in ms.
    pub max_age_ms: f64,
    /// A shard is hot above this quantile of recently probed requests in flight, in [0, 1].
    pub hot_quantile: f64,
    /// Probed values that the quantile is taken over.
    pub recent: usize,
    /// Requests that a probe may decide, 1 or more.
    pub uses: u32,
    /// What it places for.
    pub runtime: Runtime,
}

impl Default for PrequalConfig {
    /// The paper's: 3 probes, a pool of 16, one second, the 0.84 quantile. Its formula for uses comes to little more
    /// than one for fleets much larger than the pool and to no bound for smaller ones, where routers then crowd onto
    /// the shard that once measured best: 2 uses cost 16 to 41 % of the mean in simulated fleets (load 0.7, seeds 1 to 5).
    fn default() -> Self {
        Self {
            probes: 3,
            pool: 16,
            max_age_ms: 1_000.0,
            hot_quantile: 0.84,
            recent: 64,
            uses: 1,
            runtime: Runtime::default(),
        }
    }
}

/// A probe in the pool.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Probe {
    /// Key of the shard.
    shard: u64,
    cores: f64,
    /// Requests in flight: as probed, and those that this router has sent since.
    in_flight: f64,
    latency_ms: f64,
    known_at: Timestamp,
    /// Requests that it may still decide.
    uses: u32,
}

impl Probe {
    fn per_core(&self) -> f64 {
        self.in_flight / self.cores
    }
}

/// Hot-cold lexicographic choice among reusable probes.
pub struct Prequal {
    config: PrequalConfig,
    pool: Vec<Probe>,
    /// Requests in flight per core of the last probes, and the same sorted.
    recent: VecDeque<f64>,
    sorted: Vec<f64>,
    /// A shard with more in flight per core is hot.
    hot_above: f64,
    /// Whether the next removal takes the worst probe; else it takes the oldest.
    remove_worst: bool,
    /// By key of the shard.
    cores: FxHashMap<u64, f64>,
    candidates: Vec<usize>,
    without_probes: LeastInFlight,
}

impl Prequal {
    /// With its knobs.
    pub fn new(config: PrequalConfig) -> Self {
        Self {
            config,
            pool: Vec::new(),
            recent: VecDeque::new(),
            sorted: Vec::new(),
            hot_above: f64::INFINITY,
            remove_worst: false,
            cores: FxHashMap::default(),
            candidates: Vec::new(),
            without_probes: LeastInFlight::default(),
        }
    }

    /// The best probe of an eligible shard: its index in the pool and the shard's position. `None` when there are too
    /// few to choose from. Ties by shard id, which is the order of the fleet.
    fn best(&self, context: &DecisionContext<'_>) -> Option<(usize, usize)> {
        let shard = |position: usize| &context.fleet.shards[position].id;
        let position_of = |key: u64| self.candidates.iter().copied().find(|position| shard(*position).key() == key);
        let mut best: Option<(bool, f64, usize, usize)> = None;
        let mut usable = 0;
        for (index, probe) in self.pool.iter().enumerate() {
            let Some(position) = position_of(probe.shard) else { continue };
            usable += 1;
            let hot = self.is_hot(probe);
            let value = if hot { probe.per_core() } else { felt_ms(context, position, probe, &self.config.runtime) };
            let value = if value.is_nan() { f64::INFINITY } else { value };
            let is_better = best.is_none_or(|(other_hot, other, _, other_position)| {
                let order = hot.cmp(&other_hot).then(value.total_cmp(&other)).then(position.cmp(&other_position));
                order.is_lt()
            });
            if is_better {
                best = Some((hot, value, index, position));
            }
        }
        best.filter(|_| usable >= LEAST_PROBES).map(|(_, _, index, position)| (index, position))
    }

    fn is_hot(&self, probe: &Probe) -> bool {
        // What is not a number is hot.
        probe.per_core().partial_cmp(&self.hot_above).is_none_or(std::cmp::Ordering::is_gt)
    }

    /// One probe goes with every request, the oldest and the worst in turn, so that the pool does not fill up with
    /// shards that are never chosen.
    fn remove_one(&mut self) {
        let worst = |a: &Probe, b: &Probe| {
            let key = |probe: &Probe| match self.is_hot(probe) {
                true => (true, probe.per_core()),
                false => (false, probe.latency_ms),
            };
            let ((a_hot, a_value), (b_hot, b_value)) = (key(a), key(b));
            a_hot.cmp(&b_hot).then(a_value.total_cmp(&b_value))
        };
        let index = match self.remove_worst {
            true => (0..self.pool.len()).max_by(|a, b| worst(&self.pool[*a], &self.pool[*b])),
            false => (0..self.pool.len()).min_by_key(|index| self.pool[*index].known_at),
        };
        self.remove_worst = !self.remove_worst;
        if let Some(index) = index {
            self.pool.swap_remove(index);
        }
    }

    fn learn_heat(&mut self, per_core: f64) {
        if self.recent.len() >= self.config.recent {
            self.recent.pop_front();
        }
        self.recent.push_back(per_core);
        self.sorted.clear();
        self.sorted.extend(&self.recent);
        let rank = (self.config.hot_quantile * (self.sorted.len() - 1) as f64).round() as usize;
        let (_, value, _) = self.sorted.select_nth_unstable_by(rank, f64::total_cmp);
        self.hot_above = *value;
    }
}

/// The latency that a request would feel: the shard's own estimate, the way there and back, and the price of errors. A
/// shard without an estimate has served nothing and is worth a try.
fn felt_ms(context: &DecisionContext<'_>, position: usize, probe: &Probe, runtime: &Runtime) -> f64 {
    let (fleet, shard) = (context.fleet, &context.fleet.shards[position]);
    let way_ms = f64::from(fleet.network.rtt_ms(&fleet.router_region, &shard.shape.region));
    probe.latency_ms + way_ms + error_ms(context.router.shard(&shard.id, context.decided_at).error_rate, runtime)
}

impl Policy for Prequal {
    fn name(&self) -> &'static str {
        "prequal"
    }

    fn decide(&mut self, context: &DecisionContext<'_>, rng: &mut dyn Rng) -> Result<Decision, NoEligibleShard> {
        eligible(context, &Rules::default(), &mut self.candidates)?;
        let max_age_ms = self.config.max_age_ms;
        self.pool.retain(|probe| context.decided_at.millis_since(probe.known_at) <= max_age_ms);
        let best = self.best(context);
        let decision = match best {
            Some((index, position)) => {
                self.pool[index].uses -= 1;
                Decision::by_rule(position, 1.0, self.candidates.len())
            }
            None => self.without_probes.decide(context, rng)?,
        };
        let chosen = context.fleet.shards[decision.chosen].id.key();
        self.pool.iter_mut().filter(|probe| probe.shard == chosen).for_each(|probe| probe.in_flight += 1.0);
        self.pool.retain(|probe| probe.uses > 0);
        self.remove_one();
        Ok(decision)
    }

    fn probe(&mut self, context: &DecisionContext<'_>, rng: &mut dyn Rng, out: &mut Vec<usize>) {
        let probes = self.config.probes;
        let (drawn, _) = self.candidates.partial_shuffle(rng, probes);
        for position in drawn {
            let shard = &context.fleet.shards[*position];
            self.cores.insert(shard.id.key(), f64::from(shard.shape.cores));
            out.push(*position);
        }
    }

    fn on_probe(&mut self, answer: &ProbeAnswer<'_>) {
        let shard = answer.shard.key();
        let probe = Probe {
            shard,
            cores: self.cores.get(&shard).copied().unwrap_or(1.0),
            in_flight: f64::from(answer.in_flight),
            latency_ms: answer.latency_ms.unwrap_or(0.0),
            known_at: answer.known_at,
            uses: self.config.uses,
        };
        self.learn_heat(probe.per_core());
        self.pool.retain(|known| known.shard != shard);
        self.pool.push(probe);
        if self.pool.len() > self.config.pool {
            self.remove_worst = false;
            self.remove_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng, rngs::StdRng};
    use shardwise_features::RouterState;
    use shardwise_features::golden::{GoldenContext, contexts};

    /// A fleet without distances, and a policy that knows its cores (4, 2 and 1).
    fn fresh() -> (GoldenContext, Prequal) {
        let mut golden = GoldenContext { router: RouterState::new(), ..contexts().remove(1) };
        golden.fleet.network.rtt_ms.fill(0.0);
        let mut policy = Prequal::new(PrequalConfig { hot_quantile: 0.5, uses: 2, ..PrequalConfig::default() });
        policy.candidates.extend(0..3);
        let mut probed = Vec::new();
        policy.probe(&golden.context(), &mut StdRng::seed_from_u64(1), &mut probed);
        probed.sort_unstable();
        assert_eq!(probed, [0, 1, 2], "each once");
        (golden, policy)
    }

    fn answer(policy: &mut Prequal, golden: &GoldenContext, position: usize, in_flight: u32, latency_ms: f64) {
        policy.on_probe(&ProbeAnswer {
            shard: &golden.fleet.shards[position].id,
            in_flight,
            latency_ms: Some(latency_ms),
            known_at: golden.decided_at,
        });
    }

    fn decide(policy: &mut Prequal, golden: &GoldenContext) -> Decision {
        policy.decide(&golden.context(), &mut StdRng::seed_from_u64(1)).unwrap()
    }

    #[test]
    fn the_fastest_of_the_cold_is_taken() {
        let (golden, mut policy) = fresh();
        answer(&mut policy, &golden, 0, 8, 50.0);
        answer(&mut policy, &golden, 1, 4, 20.0);
        answer(&mut policy, &golden, 2, 9, 1.0);
        assert_eq!(decide(&mut policy, &golden).chosen, 1, "2 per core are not hot, 9 are");
    }

    #[test]
    fn when_all_are_hot_the_least_in_flight_per_core_is_taken() {
        let (golden, mut policy) = fresh();
        answer(&mut policy, &golden, 0, 16, 90.0);
        answer(&mut policy, &golden, 1, 10, 20.0);
        answer(&mut policy, &golden, 2, 6, 1.0);
        policy.hot_above = 1.0;
        assert_eq!(decide(&mut policy, &golden).chosen, 0, "4 per core, 5 and 6 elsewhere");
    }

    #[test]
    fn own_requests_are_counted_until_the_next_probe() {
        let (golden, mut policy) = fresh();
        answer(&mut policy, &golden, 0, 0, 5.0);
        answer(&mut policy, &golden, 1, 0, 9.0);
        answer(&mut policy, &golden, 2, 2, 90.0);
        policy.remove_worst = true;
        policy.hot_above = 0.0;
        assert_eq!(decide(&mut policy, &golden).chosen, 0);
        assert_eq!(decide(&mut policy, &golden).chosen, 1, "the first is hot by what was just sent there");
    }

    #[test]
    fn probes_grow_old_and_are_used_up() {
        let (mut golden, mut policy) = fresh();
        policy.config.uses = 1;
        for position in 0..3 {
            answer(&mut policy, &golden, position, 0, 10.0);
        }
        decide(&mut policy, &golden);
        assert_eq!(policy.pool.len(), 1, "one was used up, the oldest removed");
        answer(&mut policy, &golden, 0, 0, 10.0);
        golden.decided_at = golden.decided_at.plus_millis(1_001.0);
        decide(&mut policy, &golden);
        assert!(policy.pool.is_empty());
    }
}
