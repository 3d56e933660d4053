//! A decision with all that was weighed, for whoever asks later why.

use shardwise_types::CostTerms;

use crate::placer::Placement;
use crate::ranking::Scored;

/// A decision that was made again.
#[derive(Debug, Clone, PartialEq)]
pub struct Revisited {
    /// The answer and the decision behind it.
    pub placement: Placement,
    /// Every eligible shard, the chosen first.
    pub candidates: Vec<Weighed>,
}

/// What a shard would have cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weighed {
    /// Its position in the context's fleet.
    pub position: usize,
    /// The terms of its cost, by the model where that was asked about it.
    pub terms: CostTerms,
    /// Its cost without the model, in ms.
    pub plain_ms: f64,
    /// Warm execution that is typical there by the model, in ms; `None` where the cost is without the model.
    pub model_ms: Option<f32>,
    /// Probability of a cold start.
    pub cold_probability: f64,
    /// Cores wanted over cores.
    pub utilisation: f64,
}

impl Weighed {
    pub(crate) fn of(scored: &Scored) -> Self {
        let Scored { position, candidate, terms, plain_ms, cold_probability, model_ms, .. } = *scored;
        Self { position, terms, plain_ms, model_ms, cold_probability, utilisation: candidate.utilisation() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    use shardwise_features::golden::{GoldenContext, contexts};
    use shardwise_features::{Ticket, position};
    use shardwise_models::BundleDraft;
    use shardwise_policies::{Observed, Policy};
    use shardwise_types::{DecidedBy, Response};

    use super::*;
    use crate::{Exploration, Placer, PlacerConfig};

    fn placer() -> Placer {
        let bundle = BundleDraft::example().bundle().expect("a sound draft");
        let exploration = Exploration { share: 0.5, dearest: 50.0, most_utilisation: 1e9, ..Exploration::default() };
        Placer::with_model(Arc::new(bundle))
            .with_config(PlacerConfig { exploration: Some(exploration), ..PlacerConfig::default() })
    }

    fn respond(placer: &Placer, golden: &GoldenContext, ticket: &Ticket, chosen: usize, exec_ms: f32) {
        let response = Response { error: None, total_ms: exec_ms, exec_ms, queue_ms: 0.0, queue_len: 1, cold: false };
        placer.learn(&Observed {
            request: &golden.request,
            shard: &golden.fleet.shards[chosen].id,
            ticket,
            response: &response,
            known_at: golden.decided_at,
        });
    }

    #[test]
    fn one_that_revisits_a_log_becomes_the_one_that_wrote_it() {
        let (mut wrote, reads) = (placer(), placer());
        let (mut golden, mut rng) = (contexts().remove(1), StdRng::seed_from_u64(1));
        golden.request.urgency = shardwise_types::Urgency::Medium;
        let mut explored = 0;
        for _ in 0..2_000 {
            golden.decided_at = golden.decided_at.plus_millis(20.0);
            golden.request.data_complexity = rng.random_range(0.2..5.0);
            let logged = wrote.decide(&golden.context(), &mut rng).expect("a healthy shard");
            let again = reads.revisit(&golden.context(), logged.chosen).expect("a healthy shard");
            assert_eq!(again.placement.decision, logged);
            assert_eq!(again.candidates[0].position, logged.chosen);
            assert_eq!(again.candidates.len(), logged.eligible as usize);
            assert_eq!(again.candidates[0].terms, again.placement.prediction.cost);
            explored += usize::from(logged.decided_by == DecidedBy::Exploration);
            let mut ticket = golden.router.on_dispatch(&golden.context(), logged.chosen);
            ticket.forecast = logged.forecast;
            let exec_ms = rng.random_range(1.0..200.0);
            [&wrote, &reads].iter().for_each(|placer| respond(placer, &golden, &ticket, logged.chosen, exec_ms));
        }
        assert!(explored > 200, "{explored}");
        let counted = |placer: &Placer| DecidedBy::ALL.map(|who| placer.counts().decided_by(who));
        assert_eq!(counted(&wrote), counted(&reads));
    }

    #[test]
    fn what_if_changes_what_the_model_sees_and_nothing_else() {
        let (golden, placer) = (contexts().remove(1), placer());
        let as_it_is = placer.what_if(&golden.context(), &[]).expect("a healthy shard");
        let prior = position("prior_service_ln_ms").expect("a feature");
        let slower = placer.what_if(&golden.context(), &[(prior, 5.0)]).expect("a healthy shard");
        for after in &slower.candidates {
            let same = |before: &&Weighed| before.position == after.position;
            let before = as_it_is.candidates.iter().find(same).expect("the same shards are eligible");
            assert_eq!(after.model_ms, Some(5.0_f64.exp() as f32), "a single leaf adds nothing to the prior");
            assert_eq!(after.plain_ms, before.plain_ms, "the table sees the request, not its features");
            assert_eq!(after.terms.network_ms, before.terms.network_ms);
            assert_ne!(after.terms.execution_ms, before.terms.execution_ms);
        }
        assert_eq!(placer.what_if(&golden.context(), &[]).as_ref(), Ok(&as_it_is), "it stays as it was");
    }
}
