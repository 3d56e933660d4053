//! The shortest-expected-delay policies: with online estimates (SED-tab), with history's service table (SED-off), and
//! the exploring one that writes histories a model can learn from.

use std::sync::Arc;

use rand::{Rng, RngExt};
use shardwise_features::{DecisionContext, ServiceTable};
use shardwise_types::{CostTerms, DecidedBy, NoEligibleShard};

use crate::sed::{Candidate, LAMBDA, Runtime, SedConfig, fleet_utilisation};
use crate::{Decision, Policy, Rules, eligible};

/// Costs of all eligible shards, in the order of the fleet.
#[derive(Default)]
struct Scored {
    positions: Vec<usize>,
    candidates: Vec<Candidate>,
    costs: Vec<CostTerms>,
}

impl Scored {
    fn score(&mut self, context: &DecisionContext<'_>, config: &SedConfig) -> Result<(), NoEligibleShard> {
        eligible(context, &Rules::default(), &mut self.positions)?;
        self.candidates.clear();
        let read = Candidate::reader(context);
        self.candidates.extend(self.positions.iter().map(|position| read(*position)));
        let fleet_utilisation = fleet_utilisation(self.candidates.iter());
        let cost = |candidate: &Candidate| Candidate { fleet_utilisation, ..*candidate }.cost(context, config);
        self.costs.clear();
        self.costs.extend(self.candidates.iter().map(cost));
        Ok(())
    }

    /// Cost of a candidate in ms; what is not a number is infinitely dear.
    fn cost_ms(&self, index: usize) -> f64 {
        let cost_ms = self.costs[index].total_ms();
        if cost_ms.is_nan() { f64::INFINITY } else { cost_ms }
    }

    /// Index of the cheapest; ties by shard id, which is the order of the fleet.
    fn cheapest(&self) -> usize {
        let by_cost = |a: &usize, b: &usize| self.cost_ms(*a).total_cmp(&self.cost_ms(*b));
        (0..self.costs.len()).min_by(by_cost).expect("score leaves at least one")
    }

    fn costs(&self, out: &mut Vec<(usize, CostTerms)>) {
        out.extend(self.positions.iter().copied().zip(self.costs.iter().copied()));
    }

    fn decision(&self, index: usize, propensity: f64, decided_by: DecidedBy) -> Decision {
        Decision {
            predicted_ms: Some(self.costs[index].latency_ms()).filter(|ms| ms.is_finite()),
            decided_by,
            ..Decision::by_rule(self.positions[index], propensity, self.positions.len())
        }
    }
}

/// The cheapest by shortest expected delay.
pub struct Sed {
    name: &'static str,
    config: SedConfig,
    table: Option<Arc<ServiceTable>>,
    scored: Scored,
}

impl Sed {
    /// SED-tab: service times that this router measured itself. `sed_tab`, or `sed_tab_lambda` with a price of
    /// congestion.
    pub fn online(lambda: f64, runtime: Runtime) -> Self {
        Self {
            name: if lambda > 0.0 { "sed_tab_lambda" } else { "sed_tab" },
            config: SedConfig { lambda, runtime, ..SedConfig::default() },
            table: None,
            scored: Scored::default(),
        }
    }

    /// SED-off+λ: service times from history's table, no trees. The peer that a model must beat.
    pub fn offline(table: Arc<ServiceTable>, runtime: Runtime) -> Self {
        Self { name: "sed_off_lambda", table: Some(table), ..Self::online(LAMBDA, runtime) }
    }
}

impl Policy for Sed {
    fn name(&self) -> &str {
        self.name
    }

    fn decide(&mut self, context: &DecisionContext<'_>, _rng: &mut dyn Rng) -> Result<Decision, NoEligibleShard> {
        self.scored.score(context, &self.config)?;
        let decided_by = if self.table.is_some() { DecidedBy::ServiceTable } else { DecidedBy::OnlineEstimates };
        Ok(self.scored.decision(self.scored.cheapest(), 1.0, decided_by))
    }

    fn odds(
        &mut self,
        context: &DecisionContext<'_>,
        out: &mut Vec<(usize, f64)>,
    ) -> Option<Result<(), NoEligibleShard>> {
        let scored = self.scored.score(context, &self.config);
        Some(scored.map(|()| out.push((self.scored.positions[self.scored.cheapest()], 1.0))))
    }

    fn costs(&self, out: &mut Vec<(usize, CostTerms)>) {
        self.scored.costs(out);
    }

    fn service_table(&self) -> Option<Arc<ServiceTable>> {
        self.table.clone()
    }
}

/// SED-tab that explores: a softmax over relative costs mixed with uniform draws, so that every eligible shard has a
/// known chance and the history can teach. The default logging policy.
pub struct SedSoftmax {
    config: SedConfig,
    /// A shard that costs this share more than the cheapest is e times less likely.
    temperature: f64,
    /// Share of decisions that are drawn uniformly.
    uniform: f64,
    scored: Scored,
    weights: Vec<f64>,
}

impl SedSoftmax {
    /// With temperature 0.3 and 15 % uniform draws.
    pub fn new(runtime: Runtime) -> Self {
        Self {
            config: SedConfig { lambda: 0.0, runtime, ..SedConfig::default() },
            temperature: 0.3,
            uniform: 0.15,
            scored: Scored::default(),
            weights: Vec::new(),
        }
    }

    /// With another temperature, above 0, and share of uniform draws, in [0, 1].
    #[must_use]
    pub fn exploring(self, temperature: f64, uniform: f64) -> Self {
        Self { temperature, uniform, ..self }
    }

    /// With a price of congestion.
    #[must_use]
    pub fn pricing(self, lambda: f64) -> Self {
        Self { config: SedConfig { lambda, ..self.config }, ..self }
    }

    /// Leaves the probability of every eligible shard in `weights`.
    fn weigh(&mut self, context: &DecisionContext<'_>) -> Result<(), NoEligibleShard> {
        self.scored.score(context, &self.config)?;
        let least = self.scored.cost_ms(self.scored.cheapest()).max(f64::MIN_POSITIVE);
        // Relative to an infinite cost nothing is cheaper: all are equally likely.
        let weight = |cost_ms: f64| match least.is_finite() {
            true => (-(cost_ms / least - 1.0) / self.temperature).exp(),
            false => 1.0,
        };
        self.weights.clear();
        self.weights.extend((0..self.scored.costs.len()).map(|index| weight(self.scored.cost_ms(index))));
        let total: f64 = self.weights.iter().sum();
        let even = self.uniform / self.weights.len() as f64;
        self.weights.iter_mut().for_each(|weight| *weight = (1.0 - self.uniform) * *weight / total + even);
        Ok(())
    }

    fn decision(&self, index: usize) -> Decision {
        self.scored.decision(index, self.weights[index], DecidedBy::OnlineEstimates)
    }
}

impl Policy for SedSoftmax {
    fn name(&self) -> &'static str {
        "sed_tab_softmax"
    }

    fn decide(&mut self, context: &DecisionContext<'_>, rng: &mut dyn Rng) -> Result<Decision, NoEligibleShard> {
        self.weigh(context)?;
        Ok(self.decision(draw(&self.weights, rng.random::<f64>())))
    }

    fn revisit(&mut self, context: &DecisionContext<'_>, chosen: usize) -> Option<Result<Decision, NoEligibleShard>> {
        Some(self.weigh(context).map(|()| {
            let drawn = self.scored.positions.iter().position(|position| *position == chosen);
            self.decision(drawn.unwrap_or_else(|| self.scored.cheapest()))
        }))
    }

    fn costs(&self, out: &mut Vec<(usize, CostTerms)>) {
        self.scored.costs(out);
    }

    fn odds(
        &mut self,
        context: &DecisionContext<'_>,
        out: &mut Vec<(usize, f64)>,
    ) -> Option<Result<(), NoEligibleShard>> {
        let weighed = self.weigh(context);
        Some(weighed.map(|()| out.extend(self.scored.positions.iter().copied().zip(self.weights.iter().copied()))))
    }
}

/// The index at which the running sum of probabilities passes a uniform draw.
fn draw(probabilities: &[f64], uniform: f64) -> usize {
    let mut left = uniform;
    for (index, probability) in probabilities.iter().enumerate() {
        left -= probability;
        if left < 0.0 {
            return index;
        }
    }
    probabilities.len() - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng, rngs::StdRng};
    use shardwise_features::golden::contexts;

    #[test]
    fn the_faster_shard_wins_when_all_else_is_equal() {
        let mut golden = contexts().remove(1);
        golden.router = shardwise_features::RouterState::new();
        golden.fleet.network.rtt_ms.fill(0.0);
        let table = Arc::new(golden.service_table.clone().unwrap());
        let decision =
            Sed::offline(table, Runtime::default()).decide(&golden.context(), &mut StdRng::seed_from_u64(1)).unwrap();
        assert_eq!(golden.fleet.shards[decision.chosen].id.as_str(), "shard-a", "8 ms there, 12 and 16 elsewhere");
    }

    #[test]
    fn the_explorers_propensities_are_its_frequencies() {
        let golden = contexts().remove(1);
        let (mut policy, mut rng) = (SedSoftmax::new(Runtime::default()), StdRng::seed_from_u64(7));
        let (mut counts, mut stated) = ([0.0; 3], [0.0; 3]);
        for _ in 0..20_000 {
            let decision = policy.decide(&golden.context(), &mut rng).unwrap();
            counts[decision.chosen] += 1.0 / 20_000.0;
            stated[decision.chosen] = decision.propensity;
        }
        assert!((stated.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{stated:?}");
        assert!(stated.iter().all(|p| *p >= 0.05), "uniform draws reach every shard");
        assert!(counts.iter().zip(stated).all(|(count, p)| (count - p).abs() < 0.015), "{counts:?} but {stated:?}");
    }
}
