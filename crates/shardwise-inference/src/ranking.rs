//! Candidates with their costs: by the service table or own measurements for all, by the model for the most promising.

use shardwise_features::{DecisionContext, DecisionFeatures, FEATURE_COUNT, FeatureVector};
use shardwise_models::{ExecHead, ModelBundle, Predictions};
use shardwise_policies::sed::{Candidate, SedConfig, expected_cold_ms, fleet_utilisation};
use shardwise_types::{CostTerms, FallbackReason};

use crate::config::{Guards, PlacerConfig};
use crate::gate::Trust;
use crate::placer::Loaded;

/// An execution time outside of this is no time: a nanosecond to eleven days, in ln ms.
const SANE_LN_MS: std::ops::Range<f64> = -14.0..20.6;
const DAY_MS: f64 = 86_400_000.0;

/// A scored candidate.
#[derive(Clone, Copy)]
pub(crate) struct Scored {
    pub(crate) position: usize,
    /// Read once: other threads may dispatch while this one decides.
    pub(crate) candidate: Candidate,
    pub(crate) terms: CostTerms,
    /// Cost without the model.
    pub(crate) plain_ms: f64,
    /// Probability of a cold start.
    pub(crate) cold_probability: f64,
    /// Warm execution that is typical by the model, in ms, when it was asked: the median, where the cost goes by the mean.
    pub(crate) model_ms: Option<f32>,
}

/// The candidates of a decision and the buffers that they need.
#[derive(Default)]
pub(crate) struct Ranking {
    pub(crate) positions: Vec<usize>,
    pub(crate) scored: Vec<Scored>,
    rows: Vec<f32>,
    predictions: Predictions,
}

/// Why the model cannot be asked at all, if so.
pub(crate) fn model_fallback(
    context: &DecisionContext<'_>,
    loaded: &Loaded,
    guards: &Guards,
    trust: Trust,
) -> Option<FallbackReason> {
    if loaded.bundle.exec().is_none() {
        return Some(FallbackReason::NoExecHead);
    }
    let age_days = context.decided_at.millis_since(loaded.bundle.manifest().trained_to) / DAY_MS;
    if guards.max_model_age_days.is_some_and(|days| age_days > days) {
        return Some(FallbackReason::StaleModel);
    }
    (trust < Trust::Model).then_some(FallbackReason::GateClosed)
}

impl Ranking {
    /// Scores all candidates without the model, cheapest first; says whether anything is known of the function.
    pub(crate) fn score(&mut self, context: &DecisionContext<'_>, cost: &SedConfig) -> bool {
        let Self { positions, scored, .. } = self;
        let mut something_known = false;
        scored.clear();
        scored.extend(positions.iter().map(|&position| {
            let candidate = Candidate::read(context, position);
            something_known |= candidate.service_ln_ms.is_some();
            let terms = CostTerms::default();
            Scored { position, candidate, terms, plain_ms: 0.0, cold_probability: 0.0, model_ms: None }
        }));
        let fleet_utilisation = fleet_utilisation(scored.iter().map(|scored| &scored.candidate));
        for scored in scored.iter_mut() {
            scored.candidate.fleet_utilisation = fleet_utilisation;
            scored.terms = scored.candidate.cost(context, cost);
            scored.plain_ms = scored.terms.total_ms();
            scored.cold_probability = if scored.terms.cold_ms > 0.0 { 1.0 } else { 0.0 };
        }
        sort_by_cost(scored);
        something_known
    }

    /// Puts the candidate at a position of the fleet first and leaves the order of the others.
    pub(crate) fn put_first(&mut self, position: usize) {
        if let Some(index) = self.scored.iter().position(|scored| scored.position == position) {
            self.scored[..=index].rotate_right(1);
        }
    }

    /// Least loaded first; ties by shard id.
    pub(crate) fn sort_by_load(&mut self) {
        sort_by(&mut self.scored, |scored| scored.candidate.utilisation());
    }

    /// Scores the most promising with the model and sorts them anew. On a fallback nothing is changed.
    pub(crate) fn rescore(
        &mut self,
        context: &DecisionContext<'_>,
        bundle: &ModelBundle,
        config: &PlacerConfig,
    ) -> Option<FallbackReason> {
        let cut = self.promising(config);
        if let Err(reason) = self.predict(context, bundle, cut, config) {
            return Some(reason);
        }
        for index in 0..cut {
            let terms = self.terms(index, context, bundle, config);
            let scored = &mut self.scored[index];
            scored.terms = terms;
            scored.model_ms = Some(self.predictions.exec_ln_ms[index].exp() as f32);
            if config.cold_head && bundle.cold().is_some() {
                scored.cold_probability = self.predictions.cold[index];
            }
        }
        sort_by_cost(&mut self.scored[..cut]);
        None
    }

    /// Warm execution that is typical by the model of the first candidate, which was ranked without it.
    pub(crate) fn model_ms(
        &mut self,
        context: &DecisionContext<'_>,
        bundle: &ModelBundle,
        config: &PlacerConfig,
    ) -> Option<f32> {
        bundle.exec()?;
        self.predict(context, bundle, 1, config).ok()?;
        Some(self.predictions.exec_ln_ms[0].exp() as f32)
    }

    /// Whether no candidate is cheaper than this one without the model.
    pub(crate) fn is_cheapest_without_model(&self, index: usize) -> bool {
        self.scored.iter().all(|other| other.plain_ms >= self.scored[index].plain_ms)
    }

    /// Moves the cheapest, and those that are warmest, to the front; says how many they are.
    fn promising(&mut self, config: &PlacerConfig) -> usize {
        let mut cut = config.model_candidates.clamp(1, self.scored.len());
        for _ in 0..config.warm_candidates {
            // The warmest of all may be among the cheapest already; then nothing need be moved.
            let warmest = |scored: &[Scored]| scored.iter().filter_map(|scored| scored.candidate.last_dispatch).max();
            let (inside, outside) = (warmest(&self.scored[..cut]), warmest(&self.scored[cut..]));
            if outside.is_none() || outside <= inside {
                break;
            }
            let found = self.scored[cut..].iter().position(|scored| scored.candidate.last_dispatch == outside);
            self.scored.swap(cut, cut + found.expect("it was found there"));
            cut += 1;
        }
        cut
    }

    /// Asks the heads about the first `cut` candidates.
    fn predict(
        &mut self,
        context: &DecisionContext<'_>,
        bundle: &ModelBundle,
        cut: usize,
        config: &PlacerConfig,
    ) -> Result<(), FallbackReason> {
        let Self { scored, rows, predictions, .. } = self;
        let decision = DecisionFeatures::new(context);
        rows.clear();
        for scored in &scored[..cut] {
            rows.extend_from_slice(FeatureVector::extract(&decision, scored.position).as_slice());
        }
        let missing = rows[..FEATURE_COUNT].iter().filter(|value| value.is_nan()).count();
        if config.guards.max_missing.is_some_and(|share| missing as f64 > share * FEATURE_COUNT as f64) {
            return Err(FallbackReason::MissingFeatures);
        }
        bundle.predict(rows, predictions);
        if predictions.exec_ln_ms.len() != cut {
            return Err(FallbackReason::NoExecHead);
        }
        if !predictions.exec_ln_ms.iter().all(|ln_ms| SANE_LN_MS.contains(ln_ms)) {
            return Err(FallbackReason::BadPrediction);
        }
        Ok(())
    }

    /// The terms of a candidate's cost by what the heads just predicted.
    fn terms(
        &self,
        index: usize,
        context: &DecisionContext<'_>,
        bundle: &ModelBundle,
        config: &PlacerConfig,
    ) -> CostTerms {
        let candidate = &self.scored[index].candidate;
        let smearing = bundle.exec().map_or(1.0, ExecHead::smearing);
        let execution_ms = self.predictions.exec_ln_ms[index].exp() * smearing;
        let cold_ms = match bundle.cold().is_some() && config.cold_head {
            true => self.predictions.cold[index] * expected_cold_ms(context),
            false if candidate.is_warm(context, &config.cost) => 0.0,
            false => expected_cold_ms(context),
        };
        let cost = SedConfig { fleet_price: config.fleet_price, ..config.cost };
        let mut terms = candidate.cost_given(execution_ms, cold_ms, &cost);
        if bundle.wait().is_some() && config.wait_blend > 0.0 {
            terms.wait_ms += config.wait_blend * (self.predictions.wait_ms[index] - terms.wait_ms);
        }
        terms
    }
}

/// Cheapest first; ties by shard id, which is the order of the fleet.
fn sort_by_cost(scored: &mut [Scored]) {
    sort_by(scored, |scored| scored.terms.total_ms());
}

/// Smallest first; what is not a number comes last.
fn sort_by(scored: &mut [Scored], value: impl Fn(&Scored) -> f64) {
    let key = |scored: &Scored| Some(value(scored)).filter(|value| !value.is_nan()).unwrap_or(f64::INFINITY);
    scored.sort_unstable_by(|a, b| key(a).total_cmp(&key(b)).then(a.position.cmp(&b.position)));
}
