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
