//! All there is to tell of one decision; as JSON it is what the README documents.

use std::collections::BTreeMap;

use serde::Serialize;
use shardwise_evaluation::RivalChoice;
use shardwise_features::{DecisionContext, DecisionFeatures, FEATURES, FeatureVector};
use shardwise_policies::sed::Candidate as Read;
use shardwise_policies::{Policy, Runtime};
use shardwise_types::{
    CostTerms, MarketSnapshot, OutcomeRecord, PlacementRequest, Response, ShardPrediction, Timestamp,
};

use super::compare::{Compared, Difference, Made, compare};
use super::travel::{Scene, Weighed, Weighing};
use super::what_if::WhatIf;

#[derive(Serialize)]
pub(super) struct Account {
    /// What makes it again; for the caller to add.
    pub(super) command: String,
    pub(super) decision_id: u64,
    pub(super) decided_at: Timestamp,
    pub(super) router: String,
    pub(super) router_region: String,
    pub(super) policy: String,
    pub(super) model_version: Option<String>,
    pub(super) request: PlacementRequest,
    pub(super) knew: Knew,
    pub(super) logged: Made,
    pub(super) again: Option<Made>,
    /// `None` when it could not be made again.
    pub(super) identical: Option<bool>,
    pub(super) logged_features_compared: u64,
    pub(super) differences: Vec<Difference>,
    pub(super) notes: Vec<String>,
    pub(super) answer: Option<Answer>,
    pub(super) reasons: Vec<String>,
    pub(super) candidates: Vec<Candidate>,
    pub(super) rivals: Vec<Rival>,
    pub(super) outcome: Option<Outcome>,
    pub(super) what_if: Option<WhatIf>,
}

/// What the router knew, beside what is in the features.
#[derive(Serialize)]
pub(super) struct Knew {
    pub(super) shards: usize,
    pub(super) healthy: usize,
    pub(super) eligible: usize,
    pub(super) newest_report_ms: Option<f64>,
    pub(super) oldest_report_ms: Option<f64>,
    pub(super) market: MarketSnapshot,
    /// Own requests that were out.
    pub(super) in_flight: f64,
    pub(super) arrivals_per_s: f64,
    pub(super) response_ms: Option<f64>,
    pub(super) error_rate: Option<f64>,
}

/// What a placer says of its choice.
#[derive(Serialize)]
pub(super) struct Answer {
    pub(super) confidence: f64,
    pub(super) expected_ms: f64,
    pub(super) p50_ms: f64,
    pub(super) p90_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) success_probability: f64,
    pub(super) expected_load: f64,
    pub(super) widening: &'static str,
    pub(super) degraded: bool,
}

/// The terms of a cost, in ms.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Terms {
    pub(super) network: f64,
    pub(super) execution: f64,
    pub(super) cold: f64,
    pub(super) wait: f64,
    pub(super) errors: f64,
    pub(super) congestion: f64,
}

impl Terms {
    pub(super) fn of(terms: &CostTerms) -> Self {
        Self {
            network: terms.network_ms,
            execution: terms.execution_ms,
            cold: terms.cold_ms,
            wait: terms.wait_ms,
            errors: terms.error_ms,
            congestion: terms.congestion_ms,
        }
    }
}

/// A shard that was eligible.
#[derive(Serialize)]
pub(super) struct Candidate {
    pub(super) shard: String,
    pub(super) chosen: bool,
    /// Whether nothing costs less.
    pub(super) best: bool,
    pub(super) cost_ms: Option<f64>,
    pub(super) latency_ms: Option<f64>,
    pub(super) terms_ms: Option<Terms>,
    /// Whether the heads of the model were asked about it.
    pub(super) by_model: bool,
    pub(super) model_exec_ms: Option<f32>,
    pub(super) cost_without_model_ms: Option<f64>,
    pub(super) cold_probability: Option<f64>,
    pub(super) utilisation: f64,
    pub(super) features: BTreeMap<&'static str, f32>,
}

/// What another policy would have chosen.
#[derive(Serialize)]
pub(super) struct Rival {
    pub(super) policy: String,
    /// `None` when it finds no shard.
    pub(super) shard: Option<String>,
    pub(super) agrees: bool,
    /// Below 1 where shards tie.
    pub(super) propensity: Option<f64>,
    /// Latency that it expects there.
    pub(super) expected_ms: Option<f64>,
    /// What the shard costs by the policy that decided.
    pub(super) cost_ms: Option<f64>,
}

/// What became of it.
#[derive(Serialize)]
pub(super) struct Outcome {
    pub(super) known_at: Timestamp,
    #[serde(flatten)]
    pub(super) response: Response,
}

impl From<&OutcomeRecord> for Outcome {
    fn from(outcome: &OutcomeRecord) -> Self {
        Self { known_at: outcome.known_at, response: outcome.response }
    }
}

/// Makes a decision again and tells of it; what became of it is for the caller to add.
pub(super) fn account(scene: &mut Scene<'_>, runtime: Runtime, what_if: Option<WhatIf>) -> Account {
    let weighing = scene.weigh();
    let Compared { again, differences, feature_rows } = compare(scene, &weighing.again);
    let Scene { decision, context, .. } = scene;
    let known = again.is_some() || !differences.is_empty();
    Account {
        command: String::new(),
        decision_id: decision.decision_id,
        decided_at: decision.known_at,
        router: decision.router.to_string(),
        router_region: decision.router_region.to_string(),
        policy: decision.policy.clone(),
        model_version: decision.model_version.clone(),
        request: decision.request.clone(),
        knew: knew(context, weighing.candidates.len()),
        logged: Made::logged(decision),
        identical: known.then_some(differences.is_empty()),
        logged_features_compared: feature_rows,
        reasons: reasons(&weighing, again.as_ref()),
        again,
        differences,
        notes: Vec::new(),
        answer: weighing.prediction.as_ref().map(answer),
        candidates: candidates(context, scene.chosen, &weighing.candidates),
        rivals: rivals(scene, runtime, &weighing.candidates),
        outcome: None,
        what_if,
    }
}

fn knew(context: &DecisionContext<'_>, eligible: usize) -> Knew {
    let shards = &context.fleet.shards;
    let reports = || shards.iter().filter_map(|shard| shard.report.as_ref());
    let ages = reports().map(|report| context.decided_at.millis_since(report.event_at));
    let (newest, oldest) =
        ages.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), age| (least.min(age), most.max(age)));
    let in_flight = shards.iter().map(|shard| context.router.in_flight(&shard.id, context.decided_at));
    Knew {
        shards: shards.len(),
        healthy: reports().filter(|report| report.healthy).count(),
        eligible,
        newest_report_ms: newest.is_finite().then_some(newest),
        oldest_report_ms: oldest.is_finite().then_some(oldest),
        market: context.market_now(),
        in_flight: in_flight.sum(),
        arrivals_per_s: context.router.arrivals_per_s(context.decided_at),
        response_ms: context.router.response_ms(),
        error_rate: context.router.error_rate(),
    }
}

fn answer(prediction: &ShardPrediction) -> Answer {
    Answer {
        confidence: prediction.confidence.value(),
        expected_ms: prediction.expected_latency,
        p50_ms: prediction.latency_p50,
        p90_ms: prediction.latency_p90,
        p99_ms: prediction.latency_p99,
        success_probability: prediction.success_probability.value(),
        expected_load: prediction.expected_load,
        widening: prediction.widening.as_str(),
        degraded: prediction.degraded,
    }
}

/// A placer's own; of other policies, who decided and how far it was left to chance.
fn reasons(weighing: &Weighing, again: Option<&Made>) -> Vec<String> {
    if let Some(prediction) = &weighing.prediction {
        return prediction.reasoning();
    }
    let Some(again) = again else { return Vec::new() };
    let mut reasons = vec![again.decided_by.meaning().to_owned()];
    if again.propensity < 1.0 {
        reasons.push(format!("drawn with probability {:.3}", again.propensity));
    }
    reasons
}

fn candidates(context: &DecisionContext<'_>, chosen: usize, weighed: &[Weighed]) -> Vec<Candidate> {
    let features = DecisionFeatures::new(context);
    let read = Read::reader(context);
    let least_ms = weighed.first().and_then(|first| first.terms).map(|terms| terms.total_ms());
    let candidate = |weighed: &Weighed| {
        let vector = FeatureVector::extract(&features, weighed.position);
        let cost_ms = weighed.terms.map(|terms| terms.total_ms());
        Candidate {
            shard: context.fleet.shards[weighed.position].id.to_string(),
            chosen: weighed.position == chosen,
            best: cost_ms.is_some() && cost_ms == least_ms,
            cost_ms,
            latency_ms: weighed.terms.map(|terms| terms.latency_ms()),
            terms_ms: weighed.terms.as_ref().map(Terms::of),
            by_model: weighed.model_ms.is_some(),
            model_exec_ms: weighed.model_ms,
            cost_without_model_ms: weighed.plain_ms,
            cold_probability: weighed.cold_probability,
            utilisation: read(weighed.position).utilisation(),
            features: FEATURES.iter().map(|feature| feature.name).zip(vector.as_slice().iter().copied()).collect(),
        }
    };
    weighed.iter().map(candidate).collect()
}

/// What others would have chosen in the same state.
fn rivals(scene: &Scene<'_>, runtime: Runtime, weighed: &[Weighed]) -> Vec<Rival> {
    let Scene { decision, context, chosen, .. } = scene;
    let table = scene.placer().and_then(Policy::service_table);
    let rival = |rival: RivalChoice| {
        let cost =
            weighed.iter().find(|weighed| Some(weighed.position) == rival.chosen).and_then(|weighed| weighed.terms);
        Rival {
            policy: rival.policy,
            shard: rival.chosen.map(|position| context.fleet.shards[position].id.to_string()),
            agrees: rival.chosen == Some(*chosen),
            propensity: rival.propensity,
            expected_ms: rival.expected_ms,
            cost_ms: cost.map(|terms| terms.total_ms()),
        }
    };
    shardwise_evaluation::rivals(context, *chosen, &decision.policy, table, runtime).into_iter().map(rival).collect()
}
