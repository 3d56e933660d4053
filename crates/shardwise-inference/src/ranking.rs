//! Candidates with their costs: by the service table or own measurements for all, by the model for the most promising.

use shardwise_features::{DecisionContext, DecisionFeatures, FEATURE_COUNT, FeatureVector};
use shardwise_models::{ExecHead, ModelBundle, Predictions};
use shardwise_policies::sed::{Candidate, SedConfig, error_ms, expected_cold_ms, fleet_utilisation};
use shardwise_types::{CostTerms, FallbackReason};

use crate::config::{Guards, PlacerConfig};
use crate::gate::Trust;
use crate::placer::Loaded;

/// An execution time outside of this is no time: a nanosecond to eleven days, in ln ms.
pub(crate) const SANE_LN_MS: std::ops::Range<f64> = -14.0..20.6;
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
    /// Place of its features among those that were extracted last.
    row: Option<usize>,
}

/// The candidates of a decision and the buffers that they need.
#[derive(Default)]
pub(crate) struct Ranking {
    pub(crate) positions: Vec<usize>,
    pub(crate) scored: Vec<Scored>,
    order: Vec<(f64, usize)>,
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
    /// Scores all candidates without the model, the `promising` cheapest first; says whether anything is known of how long
    /// executions take: of the function, or of any function on one of the candidates.
    pub(crate) fn score(&mut self, context: &DecisionContext<'_>, cost: &SedConfig, promising: usize) -> bool {
        let Self { positions, scored, .. } = self;
        let mut something_known = false;
        let read = Candidate::reader(context);
        scored.clear();
        scored.extend(positions.iter().map(|&position| {
            let candidate = read(position);
            something_known |= candidate.service_ln_ms.is_some() || candidate.local.executions > 0.0;
            let terms = CostTerms::default();
            Scored { position, candidate, terms, plain_ms: 0.0, cold_probability: 0.0, model_ms: None, row: None }
        }));
        let fleet_utilisation = fleet_utilisation(scored.iter().map(|scored| &scored.candidate));
        for scored in scored.iter_mut() {
            scored.candidate.fleet_utilisation = fleet_utilisation;
            scored.terms = scored.candidate.cost(context, cost);
            scored.plain_ms = scored.terms.total_ms();
            scored.cold_probability = if scored.terms.cold_ms > 0.0 { 1.0 } else { 0.0 };
        }
        self.bring_forward(promising, |scored| scored.plain_ms);
        something_known
    }

    /// Sorts the `count` smallest to the front; ties by shard id, which is the order of the fleet, and what is not a number
    /// last. Candidates are large and fleets may be: only those that it is about are moved.
    fn bring_forward(&mut self, count: usize, value: impl Fn(&Scored) -> f64) {
        let Self { scored, order, .. } = self;
        order.clear();
        order.extend(scored.iter().map(&value).map(nan_is_most).zip(0..));
        let by_value = |a: &(f64, usize), b: &(f64, usize)| {
            a.0.total_cmp(&b.0).then_with(|| scored[a.1].position.cmp(&scored[b.1].position))
        };
        let count = count.clamp(1, scored.len());
        if count < order.len() {
            order.select_nth_unstable_by(count - 1, by_value);
        }
        order[..count].sort_unstable_by(by_value);
        for place in 0..count {
            let from = order[place].1;
            scored.swap(place, from);
            // Who stood at the place is now where the other came from.
            for (_, later) in &mut order[place + 1..count] {
                if *later == place {
                    *later = from;
                }
            }
        }
    }

    /// Puts the candidate at a position of the fleet first and leaves the order of the others.
    pub(crate) fn put_first(&mut self, position: usize) {
        if let Some(index) = self.scored.iter().position(|scored| scored.position == position) {
            self.scored[..=index].rotate_right(1);
        }
    }

    /// The `count` least loaded first.
    pub(crate) fn sort_by_load(&mut self, count: usize) {
        self.bring_forward(count, |scored| scored.candidate.utilisation());
    }

    /// Scores the most promising with the model and sorts them anew, with some of their features changed. On a fallback
    /// nothing is changed.
    pub(crate) fn rescore(
        &mut self,
        context: &DecisionContext<'_>,
        bundle: &ModelBundle,
        config: &PlacerConfig,
        changes: &[(usize, f32)],
    ) -> Option<FallbackReason> {
        let cut = self.promising(config);
        if let Err(reason) = self.predict(context, bundle, cut, config, changes) {
            return Some(reason);
        }
        self.reprice(cut, bundle, expected_cold_ms(context), config);
        None
    }

    /// Sorts the first `cut` candidates anew by what the heads just predicted of them.
    pub(crate) fn reprice(&mut self, cut: usize, bundle: &ModelBundle, expected_cold_ms: f64, config: &PlacerConfig) {
        for index in 0..cut {
            let typical_ms = self.predictions.exec_ln_ms[index].exp();
            let terms = self.terms(index, typical_ms, bundle, expected_cold_ms, config);
            let scored = &mut self.scored[index];
            scored.terms = terms;
            scored.model_ms = Some(typical_ms as f32);
            if config.cold_head && bundle.cold().is_some() {
                scored.cold_probability = self.predictions.cold[index];
            }
        }
        sort_by_cost(&mut self.scored[..cut]);
    }

    /// Warm execution that is typical by the model of the first candidate, which was ranked without it.
    pub(crate) fn model_ms(
        &mut self,
        context: &DecisionContext<'_>,
        bundle: &ModelBundle,
        config: &PlacerConfig,
        changes: &[(usize, f32)],
    ) -> Option<f32> {
        bundle.exec()?;
        self.predict(context, bundle, 1, config, changes).ok()?;
        Some(self.predictions.exec_ln_ms[0].exp() as f32)
    }

    /// What the quantile heads expect of the first candidate's latency, in ms, when the model scored it.
    pub(crate) fn quantiles_ms(&self, bundle: &ModelBundle) -> Option<[f64; 2]> {
        let (head, row) = (bundle.quantiles()?, self.row_of_first()?);
        Some(head.predict_ms(row))
    }

    /// How probable the first candidate's failure is by the error head, when the model scored it.
    pub(crate) fn failure_probability(&self, bundle: &ModelBundle) -> Option<f64> {
        let (head, row) = (bundle.error()?, self.row_of_first()?);
        let mut probability = [0.0];
        head.predict_rows(row, &mut probability);
        Some(probability[0])
    }

    /// The first candidate's features.
    fn row_of_first(&self) -> Option<&[f32]> {
        let first = self.scored.first().filter(|first| first.model_ms.is_some())?;
        self.rows.get(first.row? * FEATURE_COUNT..)?.get(..FEATURE_COUNT)
    }

    /// Whether no candidate is cheaper than this one without the model.
    pub(crate) fn is_cheapest_without_model(&self, index: usize) -> bool {
        self.scored.iter().all(|other| other.plain_ms >= self.scored[index].plain_ms)
    }

    /// How many of the cheapest to ask the model about. When this router sent the function more lately to one that is not
    /// among them, so that it is more likely to be loaded there, that one takes the place of the last.
    pub(crate) fn promising(&mut self, config: &PlacerConfig) -> usize {
        let cut = config.model_candidates.clamp(1, self.scored.len());
        let (inside, outside) = self.scored.split_at_mut(cut);
        let warmest_inside = inside.iter().filter_map(|scored| scored.candidate.last_dispatch).max();
        let warmest = outside.iter_mut().max_by_key(|scored| scored.candidate.last_dispatch);
        if let (Some(warmest), [_, .., last]) = (warmest, inside)
            && warmest.candidate.last_dispatch > warmest_inside
        {
            std::mem::swap(warmest, last);
        }
        cut
    }

    /// Asks the heads about the first `cut` candidates, with some of their features changed.
    fn predict(
        &mut self,
        context: &DecisionContext<'_>,
        bundle: &ModelBundle,
        cut: usize,
        config: &PlacerConfig,
        changes: &[(usize, f32)],
    ) -> Result<(), FallbackReason> {
        self.extract(context, cut, config)?;
        for row in self.rows.chunks_exact_mut(FEATURE_COUNT) {
            changes.iter().for_each(|(feature, value)| row[*feature] = *value);
        }
        self.ask(bundle, cut, config)
    }

    /// Extracts the features of the first `cut` candidates.
    pub(crate) fn extract(
        &mut self,
        context: &DecisionContext<'_>,
        cut: usize,
        config: &PlacerConfig,
    ) -> Result<(), FallbackReason> {
        let Self { scored, rows, .. } = self;
        let decision = DecisionFeatures::new(context);
        rows.clear();
        for (row, scored) in scored[..cut].iter_mut().enumerate() {
            scored.row = Some(row);
            rows.extend_from_slice(FeatureVector::extract(&decision, scored.position).as_slice());
        }
        let missing = rows[..FEATURE_COUNT].iter().filter(|value| value.is_nan()).count();
        if config.guards.max_missing.is_some_and(|share| missing as f64 > share * FEATURE_COUNT as f64) {
            return Err(FallbackReason::MissingFeatures);
        }
        Ok(())
    }

    /// Asks the heads about the `cut` candidates whose features were just extracted.
    pub(crate) fn ask(
        &mut self,
        bundle: &ModelBundle,
        cut: usize,
        config: &PlacerConfig,
    ) -> Result<(), FallbackReason> {
        let Self { rows, predictions, .. } = self;
        bundle.predict(rows, predictions);
        if let Some(head) = bundle.error().filter(|_| config.error_blend > 0.0) {
            predictions.error.resize(cut, 0.0);
            head.predict_rows(rows, &mut predictions.error);
        }
        if predictions.exec_ln_ms.len() != cut {
            return Err(FallbackReason::NoExecHead);
        }
        if !predictions.exec_ln_ms.iter().all(|ln_ms| SANE_LN_MS.contains(ln_ms)) {
            return Err(FallbackReason::BadPrediction);
        }
        Ok(())
    }

    /// The terms of a candidate's cost by what the heads just predicted, and what a typical execution takes by that.
    fn terms(
        &self,
        index: usize,
        typical_ms: f64,
        bundle: &ModelBundle,
        expected_cold_ms: f64,
        config: &PlacerConfig,
    ) -> CostTerms {
        let Scored { candidate, terms: plain, .. } = &self.scored[index];
        let execution_ms = typical_ms * bundle.exec().map_or(1.0, ExecHead::smearing);
        let cold_ms = match bundle.cold().is_some() && config.cold_head {
            true => self.predictions.cold[index] * expected_cold_ms,
            false => plain.cold_ms,
        };
        let cost = SedConfig { fleet_price: config.fleet_price, ..config.cost };
        let mut terms = candidate.cost_given(execution_ms, cold_ms, &cost);
        if bundle.wait().is_some() && config.wait_blend > 0.0 {
            terms.wait_ms += config.wait_blend * (self.predictions.wait_ms[index] - terms.wait_ms);
        }
        if bundle.error().is_some() && config.error_blend > 0.0 {
            let learned_ms = error_ms(self.predictions.error[index], &cost.runtime);
            terms.error_ms += config.error_blend * (learned_ms - terms.error_ms);
        }
        terms
    }
}

/// Cheapest first; ties by shard id, which is the order of the fleet.
fn sort_by_cost(scored: &mut [Scored]) {
    let key = |scored: &Scored| nan_is_most(scored.terms.total_ms());
    scored.sort_unstable_by(|a, b| key(a).total_cmp(&key(b)).then(a.position.cmp(&b.position)));
}

fn nan_is_most(value: f64) -> f64 {
    if value.is_nan() { f64::INFINITY } else { value }
}
