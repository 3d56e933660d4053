//! The placer: eligible → cost by the cheapest means → cut → cost by the model → cheapest, with its fallback ladder.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rand::Rng;
use shardwise_features::{DecisionContext, DecisionFeatures, FEATURE_COUNT, FeatureVector, ServiceTable};
use shardwise_models::{ExecHead, ModelBundle};
use shardwise_policies::sed::{Candidate, SedConfig};
use shardwise_policies::{Decision, Policy, Rules, eligible};
use shardwise_types::{
    Alternative, Confidence, CostTerms, DecidedBy, FallbackReason, NoEligibleShard, ShardPrediction, Widening,
};

use crate::confidence::{Uncertain, best, close_to_best};

/// An execution time outside of this is no time: a nanosecond to eleven days, in ln ms.
const SANE_LN_MS: std::ops::Range<f64> = -14.0..20.6;

/// What the decision needs to know of the runtime.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlacerConfig {
    /// Hard rules.
    pub rules: Rules,
    /// The cost.
    pub cost: SedConfig,
    /// The model scores this many of the candidates that the service table finds cheapest; measured to cost nothing.
    pub model_candidates: usize,
}

impl Default for PlacerConfig {
    fn default() -> Self {
        Self { rules: Rules::default(), cost: SedConfig::default(), model_candidates: 8 }
    }
}

/// How often each decider spoke and each fallback happened since the placer was made.
#[derive(Debug, Default)]
pub struct DecisionCounts {
    decided_by: [AtomicU64; DecidedBy::ALL.len()],
    fallbacks: [AtomicU64; FallbackReason::ALL.len()],
    refused: AtomicU64,
}

impl DecisionCounts {
    /// Decisions by a decider.
    pub fn decided_by(&self, decider: DecidedBy) -> u64 {
        self.decided_by[decider as usize].load(Relaxed)
    }

    /// Decisions for which a better decider was passed over for this reason.
    pub fn fallbacks(&self, reason: FallbackReason) -> u64 {
        self.fallbacks[reason as usize].load(Relaxed)
    }

    /// Decisions that found no eligible shard.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    fn count(&self, decided_by: DecidedBy, fallback: Option<FallbackReason>) {
        self.decided_by[decided_by as usize].fetch_add(1, Relaxed);
        if let Some(reason) = fallback {
            self.fallbacks[reason as usize].fetch_add(1, Relaxed);
        }
    }
}

/// Places requests with a model bundle, or without one until there is one. Decides through `&self`; threads share it.
pub struct Placer {
    bundle: Option<Arc<ModelBundle>>,
    /// The bundle's, at hand without counting references on every decision.
    table: Option<Arc<ServiceTable>>,
    config: PlacerConfig,
    counts: DecisionCounts,
}

/// A scored candidate.
#[derive(Clone, Copy)]
struct Scored {
    position: usize,
    /// Read once: other threads may dispatch while this one decides.
    candidate: Candidate,
    terms: CostTerms,
}

/// Buffers that live as long as their thread, so that a decision allocates nothing once they have grown.
#[derive(Default)]
struct Scratch {
    positions: Vec<usize>,
    scored: Vec<Scored>,
    rows: Vec<f32>,
    ln_ms: Vec<f64>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Placer {
    /// A placer that starts on the fallback ladder.
    pub fn without_model() -> Self {
        Self { bundle: None, table: None, config: PlacerConfig::default(), counts: DecisionCounts::default() }
    }

    /// A placer with a verified bundle.
    pub fn with_model(bundle: Arc<ModelBundle>) -> Self {
        Self { table: Some(bundle.service_table()), bundle: Some(bundle), ..Self::without_model() }
    }

    /// With another configuration.
    #[must_use]
    pub fn with_config(mut self, config: PlacerConfig) -> Self {
        self.config = config;
        self
    }

    /// Who decided how often.
    pub fn counts(&self) -> &DecisionCounts {
        &self.counts
    }

    /// Names the shard where the request should run, with confidence, alternatives and reasons. The context's service
    /// table is replaced by the bundle's.
    ///
    /// # Errors
    /// When no shard is eligible; the caller falls back to local execution.
    pub fn predict_optimal_shard(&self, context: &DecisionContext<'_>) -> Result<ShardPrediction, NoEligibleShard> {
        self.decide_with(context, |context, ranked, decided_by, fallback| {
            self.prediction(context, ranked, decided_by, fallback)
        })
    }

    fn decide_with<T>(
        &self,
        context: &DecisionContext<'_>,
        answer: impl FnOnce(&DecisionContext<'_>, &[Scored], DecidedBy, Option<FallbackReason>) -> T,
    ) -> Result<T, NoEligibleShard> {
        let context = DecisionContext { service_table: self.table(), ..*context };
        SCRATCH.with_borrow_mut(|scratch| {
            if let Err(refusal) = eligible(&context, &self.config.rules, &mut scratch.positions) {
                self.counts.refused.fetch_add(1, Relaxed);
                return Err(refusal);
            }
            let (decided_by, fallback) = self.rank(&context, scratch);
            self.counts.count(decided_by, fallback);
            Ok(answer(&context, &scratch.scored, decided_by, fallback))
        })
    }

    fn table(&self) -> Option<&ServiceTable> {
        self.table.as_deref()
    }

    /// Leaves the candidates in `scratch.scored`, cheapest first.
    fn rank(&self, context: &DecisionContext<'_>, scratch: &mut Scratch) -> (DecidedBy, Option<FallbackReason>) {
        let Scratch { positions, scored, rows, ln_ms } = scratch;
        let mut something_known = false;
        scored.clear();
        scored.extend(positions.iter().map(|&position| {
            let candidate = Candidate::read(context, position);
            something_known |= candidate.service_ln_ms.is_some();
            let terms = candidate.cost(context, position, &self.config.cost);
            Scored { position, candidate, terms }
        }));
        sort_by_cost(scored);
        if !something_known {
            sort_by_load(scored);
            let reason = if self.bundle.is_some() { FallbackReason::NothingKnown } else { FallbackReason::NoModel };
            return (DecidedBy::LeastLoaded, Some(reason));
        }
        let Some(bundle) = &self.bundle else { return (DecidedBy::OnlineEstimates, Some(FallbackReason::NoModel)) };
        // Without the table's knowledge of the function the cost stands on what this router measured itself.
        let table_knows = self.table().is_some_and(|table| table.function_ln_ms(context.request).is_some());
        let without_model = if table_knows { DecidedBy::ServiceTable } else { DecidedBy::OnlineEstimates };
        let Some(head) = bundle.exec() else { return (without_model, Some(FallbackReason::NoExecHead)) };
        let cut = self.config.model_candidates.clamp(1, scored.len());
        predict(head, context, &scored[..cut], rows, ln_ms);
        if !ln_ms.iter().all(|ln_ms| SANE_LN_MS.contains(ln_ms)) {
            return (without_model, Some(FallbackReason::BadPrediction));
        }
        for (scored, ln_ms) in scored[..cut].iter_mut().zip(ln_ms.iter()) {
            let execution_ms = ln_ms.exp() * head.smearing();
            scored.terms = scored.candidate.cost_given(execution_ms, scored.terms.cold_ms, &self.config.cost);
        }
        sort_by_cost(&mut scored[..cut]);
        (DecidedBy::Model, None)
    }

    fn prediction(
        &self,
        context: &DecisionContext<'_>,
        ranked: &[Scored],
        decided_by: DecidedBy,
        fallback: Option<FallbackReason>,
    ) -> ShardPrediction {
        let shard = |scored: &Scored| &context.fleet.shards[scored.position];
        let chosen = &ranked[0];
        let uncertain = |scored: &Scored| self.uncertain(scored);
        let rivals = &ranked[..ranked.len().min(self.config.model_candidates.max(2))];
        let others_of = |one: usize| {
            let others = rivals.iter().enumerate().filter(move |(other, _)| *other != one);
            others.map(|(_, scored)| uncertain(scored))
        };
        let alternatives = rivals.iter().enumerate().skip(1).take(3).map(|(rank, scored)| Alternative {
            shard: shard(scored).id.clone(),
            cost: scored.terms,
            expected_latency: scored.terms.latency_ms(),
            probability_best: best(uncertain(scored), others_of(rank)),
        });
        let wanted = chosen.candidate.local.cores_wanted();
        ShardPrediction {
            recommended_shard: shard(chosen).id.clone(),
            confidence: close_to_best(uncertain(chosen), others_of(0)),
            expected_latency: chosen.terms.latency_ms(),
            expected_load: (wanted + 1.0) / chosen.candidate.cores,
            latency_p50: chosen.terms.latency_ms(),
            latency_p90: chosen.terms.latency_ms(),
            latency_p99: chosen.terms.latency_ms(),
            success_probability: Confidence::clamped(1.0 - chosen.candidate.local.error_rate),
            eligible: u32::try_from(ranked.len()).unwrap_or(u32::MAX),
            widening: Widening::None,
            degraded: false,
            alternative_shards: alternatives.collect(),
            cost: chosen.terms,
            propensity: 1.0,
            decided_by,
            fallback_reason: fallback,
            model_version: self.bundle.as_ref().map(|bundle| bundle.version().into()),
        }
    }

    /// The spread of a cost is that of its execution term: what the model, or else the table, leaves unexplained.
    fn uncertain(&self, scored: &Scored) -> Uncertain {
        let head_sd = self.bundle.as_ref().and_then(|bundle| bundle.exec()).map(ExecHead::residual_sd);
        let ln_sd = head_sd.or_else(|| self.table().map(ServiceTable::residual_sd)).unwrap_or(1.0);
        Uncertain { cost_ms: scored.terms.total_ms(), sd_ms: ln_sd * scored.terms.execution_ms }
    }
}

/// Execution times of the candidates by the head, in ln ms, into `ln_ms`.
fn predict(
    head: &ExecHead,
    context: &DecisionContext<'_>,
    scored: &[Scored],
    rows: &mut Vec<f32>,
    ln_ms: &mut Vec<f64>,
) {
    let decision = DecisionFeatures::new(context);
    rows.clear();
    for candidate in scored {
        rows.extend_from_slice(FeatureVector::extract(&decision, candidate.position).as_slice());
    }
    ln_ms.clear();
    ln_ms.resize(rows.len() / FEATURE_COUNT, 0.0);
    head.predict_ln_ms_rows(rows, ln_ms);
}

/// Cheapest first; ties by shard id, which is the order of the fleet.
fn sort_by_cost(scored: &mut [Scored]) {
    sort_by(scored, |scored| scored.terms.total_ms());
}

/// Least loaded first; ties by shard id.
fn sort_by_load(scored: &mut [Scored]) {
    sort_by(scored, |scored| scored.candidate.utilisation());
}

/// Smallest first; what is not a number comes last.
fn sort_by(scored: &mut [Scored], value: impl Fn(&Scored) -> f64) {
    let key = |scored: &Scored| Some(value(scored)).filter(|value| !value.is_nan()).unwrap_or(f64::INFINITY);
    scored.sort_unstable_by(|a, b| key(a).total_cmp(&key(b)).then(a.position.cmp(&b.position)));
}

/// The placer as a policy: the very object that routers embed runs in the simulator.
impl Policy for Placer {
    fn name(&self) -> &'static str {
        "shardwise"
    }

    fn decide(&mut self, context: &DecisionContext<'_>, _rng: &mut dyn Rng) -> Result<Decision, NoEligibleShard> {
        self.decide_with(context, |_, ranked, decided_by, fallback_reason| Decision {
            predicted_ms: Some(ranked[0].terms.latency_ms()),
            decided_by,
            fallback_reason,
            ..Decision::by_rule(ranked[0].position, 1.0, ranked.len())
        })
    }

    fn service_table(&self) -> Option<Arc<ServiceTable>> {
        self.table.clone()
    }

    fn model_version(&self) -> Option<&str> {
        self.bundle.as_ref().map(|bundle| bundle.version())
    }
}
