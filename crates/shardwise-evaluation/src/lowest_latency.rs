//! The learned rivals: send every request where a latency head predicts the least, whatever it is made of.
//!
//! They have neither the cost's arithmetic nor its cut nor its price of congestion.

use std::sync::Arc;

use rand::Rng;
use shardwise_features::{DecisionContext, DecisionFeatures, FeatureVector, ServiceTable};
use shardwise_models::LatencyHead;
use shardwise_policies::{Decision, Policy, Rules, eligible};
use shardwise_types::NoEligibleShard;

/// The least predicted latency among the eligible shards.
pub struct LowestLatency {
    name: &'static str,
    head: Arc<LatencyHead>,
    /// Some features are read off it, as in training.
    table: Arc<ServiceTable>,
    positions: Vec<usize>,
    rows: Vec<f32>,
    ln_ms: Vec<f64>,
}

impl LowestLatency {
    /// `end_to_end_model`: a head that reads all features.
    pub fn end_to_end(head: Arc<LatencyHead>, table: Arc<ServiceTable>) -> Self {
        Self::new("end_to_end_model", head, table)
    }

    /// `spec_feature_model`: a head that reads the specification's features and which shard it is.
    pub fn specification(head: Arc<LatencyHead>, table: Arc<ServiceTable>) -> Self {
        Self::new("spec_feature_model", head, table)
    }

    fn new(name: &'static str, head: Arc<LatencyHead>, table: Arc<ServiceTable>) -> Self {
        Self { name, head, table, positions: Vec::new(), rows: Vec::new(), ln_ms: Vec::new() }
    }

    /// Leaves the predictions for the eligible shards in `ln_ms`.
    fn predict(&mut self, context: &DecisionContext<'_>) {
        let features = DecisionFeatures::new(context);
        self.rows.clear();
        for position in &self.positions {
            let vector = FeatureVector::extract(&features, *position);
            let shard = context.fleet.shards[*position].id.key();
            self.head.columns().push_row(vector.as_slice(), shard, &mut self.rows);
        }
        self.ln_ms.clear();
        self.ln_ms.resize(self.positions.len(), 0.0);
        self.head.predict_ln_ms_rows(&self.rows, &mut self.ln_ms);
    }
}

impl Policy for LowestLatency {
    fn name(&self) -> &'static str {
        self.name
    }

    fn decide(&mut self, context: &DecisionContext<'_>, _rng: &mut dyn Rng) -> Result<Decision, NoEligibleShard> {
        eligible(context, &Rules::default(), &mut self.positions)?;
        self.predict(context);
        // Predictions are never NaN; ties go to the first shard by id, which is the order of the fleet.
        let predicted = self.positions.iter().zip(&self.ln_ms);
        let (chosen, ln_ms) = predicted.min_by(|a, b| a.1.total_cmp(b.1)).expect("an eligible shard was found");
        Ok(Decision { predicted_ms: Some(ln_ms.exp()), ..Decision::by_rule(*chosen, 1.0, self.positions.len()) })
    }

    fn service_table(&self) -> Option<Arc<ServiceTable>> {
        Some(Arc::clone(&self.table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng, rngs::StdRng};
    use shardwise_features::{SPECIFICATION_FEATURES, golden::GoldenContext, golden::contexts, position};
    use shardwise_models::LatencyColumns;
    use shardwise_models::forest::{Forest, Missing, TreeNode};

    /// Predicts `low` up to the threshold and `high` above it.
    fn head(columns: LatencyColumns, feature: usize, threshold: f32, low: f64, high: f64) -> Arc<LatencyHead> {
        let feature = feature as u32;
        let split = TreeNode::Split { feature, threshold, missing: Missing::NanRight, left: 1, right: 2 };
        let tree = vec![split, TreeNode::Leaf(low), TreeNode::Leaf(high)];
        let forest = Forest::new(columns.width(), &[tree]).expect("a sound tree");
        Arc::new(LatencyHead::new(columns, forest).expect("a sound head"))
    }

    fn golden() -> GoldenContext {
        contexts().remove(1)
    }

    fn decide(policy: &mut LowestLatency, golden: &GoldenContext) -> Decision {
        policy.decide(&golden.context(), &mut StdRng::seed_from_u64(1)).expect("an eligible shard")
    }

    fn table(golden: &GoldenContext) -> Arc<ServiceTable> {
        Arc::new(golden.service_table.clone().expect("a table"))
    }

    #[test]
    fn the_shard_whose_name_promises_most_is_chosen_wherever_it_stands() {
        let golden = golden();
        for (position, shard) in golden.fleet.shards.iter().enumerate() {
            let columns = LatencyColumns::specification_and_shard(vec![shard.id.key()]);
            let head = head(columns, SPECIFICATION_FEATURES, 0.5, 4.0, 3.0);
            let decision = decide(&mut LowestLatency::specification(head, table(&golden)), &golden);
            assert_eq!((decision.chosen, decision.predicted_ms), (position, Some(3.0_f64.exp())));
            assert_eq!((decision.propensity, decision.eligible), (1.0, 3));
        }
    }

    #[test]
    fn shards_that_training_never_saw_tie_and_the_first_is_taken() {
        let golden = golden();
        let head = head(LatencyColumns::specification_and_shard(vec![1]), SPECIFICATION_FEATURES, 0.5, 4.0, 3.0);
        assert_eq!(decide(&mut LowestLatency::specification(head, table(&golden)), &golden).chosen, 0);
    }

    #[test]
    fn all_features_of_each_candidate_are_read() {
        let golden = golden();
        let rtt = |position: usize| {
            let network = &golden.fleet.network;
            network.rtt_ms(&golden.fleet.router_region, &golden.fleet.shards[position].shape.region)
        };
        let nearest = (0..3).min_by(|a, b| rtt(*a).total_cmp(&rtt(*b))).expect("three shards");
        let head = head(LatencyColumns::Features, position("rtt_ms").expect("a feature"), rtt(nearest), 1.0, 2.0);
        assert_eq!(decide(&mut LowestLatency::end_to_end(head, table(&golden)), &golden).chosen, nearest);
    }

    #[test]
    fn hard_rules_come_before_any_prediction() {
        let mut golden = golden();
        golden.request.residency = Some(golden.fleet.shards[1].shape.region.clone());
        let columns = LatencyColumns::specification_and_shard(vec![golden.fleet.shards[0].id.key()]);
        let head = head(columns, SPECIFICATION_FEATURES, 0.5, 4.0, 0.0);
        assert_eq!(decide(&mut LowestLatency::specification(head, table(&golden)), &golden).chosen, 1);
    }
}
