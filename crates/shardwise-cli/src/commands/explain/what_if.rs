//! What the model would have said had it seen other features.

use miette::miette;
use serde::Serialize;
use shardwise_features::{DecisionContext, DecisionFeatures, FEATURES, FeatureVector};
use shardwise_inference::{Revisited, Weighed};
use shardwise_policies::Policy;
use shardwise_types::FallbackReason;

use super::account::Terms;
use super::travel::Scene;
use crate::arguments::Change;

#[derive(Serialize)]
pub(super) struct WhatIf {
    pub(super) changes: Vec<Changed>,
    /// The choice with nothing left to chance: as the features are, and as they are changed.
    pub(super) before: Choice,
    pub(super) after: Choice,
    pub(super) choice_changes: bool,
    /// Cheapest first, after the change.
    pub(super) candidates: Vec<Candidate>,
}

#[derive(Serialize)]
pub(super) struct Changed {
    pub(super) feature: &'static str,
    pub(super) value: f32,
}

#[derive(Serialize)]
pub(super) struct Choice {
    pub(super) shard: String,
    pub(super) cost_ms: f64,
    pub(super) decided_by: &'static str,
    pub(super) fallback_reason: Option<&'static str>,
}

#[derive(Serialize)]
pub(super) struct Candidate {
    pub(super) shard: String,
    /// The changed features as they were, in the order of the changes.
    pub(super) was: Vec<f32>,
    pub(super) before: Said,
    pub(super) after: Said,
}

/// What was said of a candidate; the model's prediction is missing where it was not asked.
#[derive(Serialize)]
pub(super) struct Said {
    pub(super) model_exec_ms: Option<f32>,
    pub(super) cold_probability: f64,
    pub(super) cost_ms: f64,
    pub(super) terms_ms: Terms,
}

impl Said {
    fn of(weighed: &Weighed) -> Self {
        Self {
            model_exec_ms: weighed.model_ms,
            cold_probability: weighed.cold_probability,
            cost_ms: weighed.terms.total_ms(),
            terms_ms: Terms::of(&weighed.terms),
        }
    }
}

/// Asks the placer twice; it stays as it is.
pub(super) fn what_if(scene: &Scene<'_>, changes: &[Change]) -> miette::Result<Option<WhatIf>> {
    if changes.is_empty() {
        return Ok(None);
    }
    let placer = scene.placer().filter(|placer| placer.model_version().is_some()).ok_or_else(|| {
        let help = "leave --what-if out, or choose a decision whose model_version is set";
        miette!(
            help = help,
            "decision {} was made without a model, so no feature was looked at",
            scene.decision.decision_id
        )
    })?;
    let refused = |refusal| miette!("nothing can be asked about decision {}: {refusal}", scene.decision.decision_id);
    let context = &scene.context;
    let before = placer.what_if(context, &[]).map_err(refused)?;
    let changed: Vec<(usize, f32)> = changes.iter().map(|change| (change.feature, change.value)).collect();
    let after = placer.what_if(context, &changed).map_err(refused)?;
    let named = |change: &Change| Changed { feature: FEATURES[change.feature].name, value: change.value };
    Ok(Some(WhatIf {
        changes: changes.iter().map(named).collect(),
        choice_changes: before.placement.decision.chosen != after.placement.decision.chosen,
        candidates: candidates(context, changes, &before, &after),
        before: choice(&before),
        after: choice(&after),
    }))
}

fn choice(revisited: &Revisited) -> Choice {
    let prediction = &revisited.placement.prediction;
    Choice {
        shard: prediction.recommended_shard.to_string(),
        cost_ms: prediction.cost.total_ms(),
        decided_by: prediction.decided_by.as_str(),
        fallback_reason: prediction.fallback_reason.map(FallbackReason::as_str),
    }
}

fn candidates(
    context: &DecisionContext<'_>,
    changes: &[Change],
    before: &Revisited,
    after: &Revisited,
) -> Vec<Candidate> {
    let features = DecisionFeatures::new(context);
    let mut after: Vec<&Weighed> = after.candidates.iter().collect();
    after.sort_by(|a, b| a.terms.total_ms().total_cmp(&b.terms.total_ms()).then(a.position.cmp(&b.position)));
    let candidate = |after: &&Weighed| {
        let before = before.candidates.iter().find(|before| before.position == after.position)?;
        let vector = FeatureVector::extract(&features, after.position);
        Some(Candidate {
            shard: context.fleet.shards[after.position].id.to_string(),
            was: changes.iter().map(|change| vector.as_slice()[change.feature]).collect(),
            before: Said::of(before),
            after: Said::of(after),
        })
    };
    after.iter().filter_map(candidate).collect()
}
