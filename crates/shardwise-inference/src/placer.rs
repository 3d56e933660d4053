//! The placer: eligible → cost by the cheapest means → cut → cost by the model → guards → draw, with its fallback ladder.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwapOption;
use arrayvec::ArrayVec;
use rand::{Rng, RngExt};
use shardwise_features::{Answer, DecisionContext, Forecast, ServiceTable};
use shardwise_models::{ExecHead, ModelBundle};
use shardwise_policies::{Decision, Observed, Policy, Ranking as StrategyRanking, Strategies};
use shardwise_types::{
    Alternative, Confidence, DecidedBy, FallbackReason, MOST_ALTERNATIVES, NoEligibleShard, ShardPrediction, Widening,
    combine_keys, unit_of,
};

use crate::confidence::{MOST_COMPARED, Uncertain, best, calibrated, close_to_best};
use crate::config::PlacerConfig;
use crate::counts::DecisionCounts;
use crate::gate::{Gate, Trust};
use crate::guards::{self, Draw};
use crate::ranking::{Ranking, Scored, model_fallback};
use crate::revisit::{Revisited, Weighed};
use crate::spread::{Spread, by_heads, kind_of};
use crate::timing::ModelTime;

/// Places requests with a model bundle, or without one until there is one. Decides through `&self`; threads share it.
///
/// What it learns online (whose forecasts to trust, how far off they are) stays when the model is swapped; what it knows of
/// shards is the [`RouterState`](shardwise_features::RouterState)'s, which is the caller's.
pub struct Placer {
    loaded: ArcSwapOption<Loaded>,
    config: PlacerConfig,
    strategies: Strategies,
    gate: Gate,
    spread: Spread,
    model_time: ModelTime,
    draws: AtomicU64,
    counts: DecisionCounts,
}

/// A bundle with what every decision asks of it at hand.
pub(crate) struct Loaded {
    pub(crate) bundle: Arc<ModelBundle>,
    pub(crate) table: Arc<ServiceTable>,
    pub(crate) version: Arc<str>,
}

impl Loaded {
    pub(crate) fn new(bundle: Arc<ModelBundle>) -> Arc<Self> {
        let (table, version) = (bundle.service_table(), bundle.version().into());
        Arc::new(Self { bundle, table, version })
    }
}

/// An answer, and the decision behind it for whoever dispatches and logs.
#[derive(Debug, Clone, PartialEq)]
pub struct Placement {
    /// The answer.
    pub prediction: ShardPrediction,
    /// The position in the fleet, the propensity and the forecast.
    pub decision: Decision,
    /// The service table that it was decided with, for the context under which it is logged: by then another bundle may
    /// serve.
    pub service_table: Option<Arc<ServiceTable>>,
}

/// How a decision is made, beside what is known.
#[derive(Clone, Copy)]
struct Making<'a> {
    draw: Draw,
    /// Features, by their place in the vector, that the model is to see otherwise than they are.
    changes: &'a [(usize, f32)],
}

impl Making<'_> {
    fn by(draw: Draw) -> Self {
        Self { draw, changes: &[] }
    }
}

/// A choice among the ranked: the chosen comes first, then the others, cheapest first.
pub(crate) struct Chosen {
    pub(crate) decided_by: DecidedBy,
    pub(crate) fallback: Option<FallbackReason>,
    pub(crate) propensity: f64,
    widening: Widening,
    forecast: Forecast,
}

thread_local! {
    /// Buffers that live as long as their thread, so that a decision allocates nothing once they have grown.
    static BUFFERS: RefCell<(Ranking, StrategyRanking)> = RefCell::default();
}

impl Default for Placer {
    fn default() -> Self {
        Self::without_model()
    }
}

impl Placer {
    /// A placer that starts on the fallback ladder.
    pub fn without_model() -> Self {
        Self {
            loaded: ArcSwapOption::empty(),
            config: PlacerConfig::default(),
            strategies: Strategies::default(),
            gate: Gate::default(),
            spread: Spread::default(),
            model_time: ModelTime::default(),
            draws: AtomicU64::new(0),
            counts: DecisionCounts::default(),
        }
    }

    /// A placer with a verified bundle.
    pub fn with_model(bundle: Arc<ModelBundle>) -> Self {
        let placer = Self::without_model();
        placer.swap_model(Some(bundle));
        placer
    }

    /// With another configuration.
    #[must_use]
    pub fn with_config(mut self, config: PlacerConfig) -> Self {
        self.config = config;
        self
    }

    /// With the strategies of the specification under another configuration.
    #[must_use]
    pub fn with_strategies(mut self, strategies: Strategies) -> Self {
        self.strategies = strategies;
        self
    }

    /// The strategies of the specification: constraints and fallbacks, whose maps may grow while the placer decides.
    pub fn strategies(&self) -> &Strategies {
        &self.strategies
    }

    /// Decides with another bundle from now on, or without one. Decisions that have begun end with the one before, which is
    /// returned: whoever keeps it until they have spares them the work of freeing it.
    pub fn swap_model(&self, bundle: Option<Arc<ModelBundle>>) -> Option<Arc<ModelBundle>> {
        self.loaded.swap(bundle.map(Loaded::new)).map(|before| Arc::clone(&before.bundle))
    }

    /// The bundle that decides.
    pub fn bundle(&self) -> Option<Arc<ModelBundle>> {
        self.loaded.load().as_ref().map(|loaded| Arc::clone(&loaded.bundle))
    }

    /// Whose forecasts the gate trusts at present.
    pub fn trust(&self) -> Trust {
        self.config.guards.gate.map_or(Trust::Model, |factor| self.gate.trust(factor))
    }

    /// Its configuration.
    pub fn config(&self) -> &PlacerConfig {
        &self.config
    }

    /// Who decided how often, and which guards fired.
    pub fn counts(&self) -> &DecisionCounts {
        &self.counts
    }

    /// Names the shard where the request should run, with confidence, alternatives and reasons. The context's service
    /// table is replaced by the bundle's.
    ///
    /// # Errors
    /// When no shard is eligible; the caller falls back to local execution.
    pub fn predict_optimal_shard(&self, context: &DecisionContext<'_>) -> Result<ShardPrediction, NoEligibleShard> {
        self.place(context).map(|placement| placement.prediction)
    }

    /// As [`predict_optimal_shard`](Self::predict_optimal_shard), with what a router needs beside the answer. Put the
    /// decision's forecast on the request's ticket, and give the ticket to [`learn`](Self::learn) with the response.
    ///
    /// # Errors
    /// When no shard is eligible.
    pub fn place(&self, context: &DecisionContext<'_>) -> Result<Placement, NoEligibleShard> {
        let making = Making::by(Draw::Uniform(self.draw(context)));
        self.decide_with(context, making, |context, ranking, chosen, loaded| {
            self.placement(context, ranking, chosen, loaded)
        })
    }

    /// Decides again what a placer of the same history and configuration decided in the same state, and tells all that it
    /// weighed: where chance had a say, it says what it said then, when the shard at the position `chosen` came out. It counts
    /// as any decision, so that a placer that revisits a log comes to be what the one was that wrote it.
    ///
    /// # Errors
    /// When no shard is eligible.
    pub fn revisit(&self, context: &DecisionContext<'_>, chosen: usize) -> Result<Revisited, NoEligibleShard> {
        self.weigh(context, Making::by(Draw::Again(chosen)))
    }

    /// Decides as if the model saw these features, given by their place in the vector, otherwise than they are, with nothing
    /// left to chance. The terms of the cost that no head predicts stay, and so do features that follow from a changed one. It
    /// is counted as a decision; nothing is learned from it.
    ///
    /// # Errors
    /// When no shard is eligible.
    ///
    /// # Panics
    /// If there is no such feature.
    pub fn what_if(
        &self,
        context: &DecisionContext<'_>,
        changes: &[(usize, f32)],
    ) -> Result<Revisited, NoEligibleShard> {
        self.weigh(context, Making { draw: Draw::Nothing, changes })
    }

    fn weigh(&self, context: &DecisionContext<'_>, making: Making<'_>) -> Result<Revisited, NoEligibleShard> {
        self.decide_with(context, making, |context, ranking, chosen, loaded| Revisited {
            placement: self.placement(context, ranking, chosen, loaded),
            candidates: ranking.scored.iter().map(Weighed::of).collect(),
        })
    }

    /// Learns from a response how far off the forecast was. A request that was called off teaches nothing.
    pub fn learn(&self, observed: &Observed<'_>) {
        let (forecast, response) = (&observed.ticket.forecast, observed.response);
        self.strategies.on_response(observed);
        if response.error == Some(shardwise_types::ErrorClass::Cancelled) {
            return;
        }
        let measured_ms = match response.is_ok() {
            true => f64::from(response.total_ms),
            false => self.config.cost.runtime.timeout_ms,
        };
        if response.is_ok() && !response.cold {
            self.gate.learn(forecast, f64::from(response.exec_ms));
        }
        if let Some(answer) = forecast.answer.filter(|_| self.config.adaptive_quantiles) {
            self.spread.learn(answer.kind, answer.base_ms.map(f64::from), measured_ms);
        }
    }

    /// A uniform draw in [0, 1) that the placer's seed, the request and the number of draws before fix.
    fn draw(&self, context: &DecisionContext<'_>) -> f64 {
        let drawn = self.draws.fetch_add(1, Relaxed);
        let request = combine_keys(context.request.function.key(), context.decided_at.nanos().cast_unsigned());
        unit_of(combine_keys(combine_keys(self.config.seed, drawn), request))
    }

    fn decide_with<T>(
        &self,
        context: &DecisionContext<'_>,
        making: Making<'_>,
        answer: impl FnOnce(&DecisionContext<'_>, &Ranking, &Chosen, Option<&Loaded>) -> T,
    ) -> Result<T, NoEligibleShard> {
        let loaded = self.loaded.load();
        let loaded = loaded.as_deref();
        let context = DecisionContext { service_table: loaded.map(|loaded| &*loaded.table), ..*context };
        BUFFERS.with_borrow_mut(|(ranking, by_strategy)| {
            let widening = match self.strategies.candidates(&context, &mut ranking.positions) {
                Ok(widening) => widening,
                Err(refusal) => {
                    let may_run_locally = self.strategies.may_run_locally(&context);
                    self.counts.refuse(may_run_locally);
                    return Err(NoEligibleShard { may_run_locally, ..refusal });
                }
            };
            let (mut decided_by, fallback) = self.rank(&context, ranking, loaded, making.changes);
            if decided_by == DecidedBy::LeastLoaded
                && let Some(strategy) = self.strategies.fall_back(&context, &ranking.positions, by_strategy)
                && let Some(best) = by_strategy.best()
            {
                ranking.put_first(best.position);
                decided_by = strategy;
            }
            let forecast = Forecast::default();
            let mut chosen = Chosen { decided_by, fallback, propensity: 1.0, widening, forecast };
            guards::choose(&context, &self.config, ranking, &mut chosen, making.draw);
            chosen.forecast = self.forecast(&context, ranking, loaded, making.changes);
            self.counts.count(chosen.decided_by, fallback, chosen.widening);
            Ok(answer(&context, ranking, &chosen, loaded))
        })
    }

    /// Leaves the candidates in `ranking.scored`, cheapest first.
    fn rank(
        &self,
        context: &DecisionContext<'_>,
        ranking: &mut Ranking,
        loaded: Option<&Loaded>,
        changes: &[(usize, f32)],
    ) -> (DecidedBy, Option<FallbackReason>) {
        let trust = self.trust();
        // A table that errs more than this router's own measurements is as good as none.
        let table = if trust == Trust::Online { None } else { context.service_table };
        let promising = self.config.model_candidates.max(MOST_ALTERNATIVES + 1);
        let plain_context = DecisionContext { service_table: table, ..*context };
        let something_known = ranking.score(&plain_context, &self.config.cost, promising);
        let Some(loaded) = loaded else {
            let decided_by = if something_known { DecidedBy::OnlineEstimates } else { DecidedBy::LeastLoaded };
            if !something_known {
                ranking.sort_by_load(promising);
            }
            return (decided_by, Some(FallbackReason::NoModel));
        };
        if !something_known {
            ranking.sort_by_load(promising);
            return (DecidedBy::LeastLoaded, Some(FallbackReason::NothingKnown));
        }
        // Without the table's knowledge of the function the cost stands on what this router measured itself.
        let table_knows = table.is_some_and(|table| table.function_ln_ms(context.request).is_some());
        let without_model = if table_knows { DecidedBy::ServiceTable } else { DecidedBy::OnlineEstimates };
        let fallback = model_fallback(context, loaded, &self.config.guards, trust).or_else(|| {
            let started_ns = self.config.guards.budget.map(|budget| (budget.clock_ns)());
            if self.config.guards.budget.is_some_and(|budget| !self.model_time.allows(budget.model_us)) {
                return Some(FallbackReason::OverBudget);
            }
            let fallback = ranking.rescore(context, &loaded.bundle, &self.config, changes);
            if let (Some(budget), Some(started_ns)) = (self.config.guards.budget, started_ns) {
                self.model_time.took((budget.clock_ns)().saturating_sub(started_ns));
            }
            fallback
        });
        (if fallback.is_some() { without_model } else { DecidedBy::Model }, fallback)
    }

    /// What each predictor expects of the chosen, so that outcomes can tell which of them to trust.
    fn forecast(
        &self,
        context: &DecisionContext<'_>,
        ranking: &mut Ranking,
        loaded: Option<&Loaded>,
        changes: &[(usize, f32)],
    ) -> Forecast {
        let chosen = ranking.scored[0];
        let expected_ms = chosen.terms.latency_ms();
        let kind = kind_of(context.request.risk, &chosen.terms, chosen.candidate.utilisation());
        let heads = loaded.filter(|_| self.config.quantile_heads);
        let (kind, base_ms) = match heads.and_then(|loaded| ranking.quantiles_ms(&loaded.bundle)) {
            Some([median_ms, upper_ms]) => (by_heads(kind), [median_ms, upper_ms, upper_ms]),
            None => (kind, [expected_ms; 3]),
        };
        let quantiles_ms = self.spread.quantiles_ms(kind, base_ms).map(narrow);
        let base_ms = base_ms.map(|ms| ms as f32);
        let confidence = self.confidence(context, ranking, loaded).value() as f32;
        let congested = chosen.candidate.utilisation() > 0.7;
        let answer = Answer { expected_ms: narrow(expected_ms), quantiles_ms, base_ms, confidence, congested, kind };
        let is_watched = self.config.guards.gate.is_some();
        let typical_ms =
            |context: &DecisionContext<'_>| chosen.candidate.typical_execution_ms(context, chosen.position) as f32;
        Forecast {
            model_ms: loaded.filter(|_| is_watched).and_then(|loaded| {
                // When the model was passed over it must still be heard, or it could never come back.
                chosen.model_ms.or_else(|| ranking.model_ms(context, &loaded.bundle, &self.config, changes))
            }),
            table_ms: context.service_table.filter(|_| is_watched).map(|_| typical_ms(context)),
            online_ms: (is_watched && context.service_table.is_some())
                .then(|| typical_ms(&DecisionContext { service_table: None, ..*context })),
            challenger_ms: None,
            agreed: ranking.is_cheapest_without_model(0),
            answer: Some(answer),
        }
    }

    fn confidence(&self, context: &DecisionContext<'_>, ranking: &Ranking, loaded: Option<&Loaded>) -> Confidence {
        // What a request feels is judged, not what it costs others.
        let uncertain = |scored: &Scored| Uncertain {
            cost_ms: scored.terms.latency_ms() + scored.terms.error_ms,
            ..uncertain(context, scored, loaded)
        };
        let rivals = ranking.scored.iter().skip(1).take(self.config.model_candidates.max(2) - 1);
        let built_in = calibrated(close_to_best(uncertain(&ranking.scored[0]), rivals.map(uncertain)));
        // The bundle's own calibration is of decisions by its heads.
        let curve =
            loaded.filter(|_| ranking.scored[0].model_ms.is_some()).and_then(|loaded| loaded.bundle.confidence());
        curve.map_or(built_in, |curve| Confidence::clamped(curve.of(built_in.value())))
    }

    fn placement(
        &self,
        context: &DecisionContext<'_>,
        ranking: &Ranking,
        chosen: &Chosen,
        loaded: Option<&Loaded>,
    ) -> Placement {
        Placement {
            prediction: self.prediction(context, ranking, chosen, loaded),
            decision: decision(ranking, chosen),
            service_table: loaded.map(|loaded| Arc::clone(&loaded.table)),
        }
    }

    fn prediction(
        &self,
        context: &DecisionContext<'_>,
        ranking: &Ranking,
        chosen: &Chosen,
        loaded: Option<&Loaded>,
    ) -> ShardPrediction {
        let ranked = &ranking.scored;
        let id = |scored: &Scored| &context.fleet.shards[scored.position].id;
        let first = &ranked[0];
        let rivals = ranked.iter().take(self.config.model_candidates.clamp(2, MOST_COMPARED));
        let rivals: ArrayVec<Uncertain, MOST_COMPARED> =
            rivals.map(|scored| uncertain(context, scored, loaded)).collect();
        let shares = best(&rivals);
        let alternatives =
            ranked.iter().zip(shares).skip(1).take(MOST_ALTERNATIVES).map(|(scored, share)| Alternative {
                shard: id(scored).clone(),
                cost: scored.terms,
                expected_latency: scored.terms.latency_ms(),
                probability_best: Confidence::clamped(share),
            });
        let answer = chosen.forecast.answer.expect("a decision has an answer");
        let [latency_p50, latency_p90, latency_p99] = answer.quantiles_ms.map(f64::from);
        ShardPrediction {
            recommended_shard: id(first).clone(),
            confidence: Confidence::clamped(f64::from(answer.confidence)),
            expected_latency: first.terms.latency_ms(),
            latency_p50,
            latency_p90,
            latency_p99,
            expected_load: (first.candidate.local.cores_wanted() + 1.0) / first.candidate.cores,
            success_probability: Confidence::clamped(1.0 - failure_probability(ranking, loaded)),
            cost: first.terms,
            alternative_shards: alternatives.collect(),
            eligible: u32::try_from(ranked.len()).unwrap_or(u32::MAX),
            widening: chosen.widening,
            degraded: chosen.widening == Widening::Doubtful,
            propensity: chosen.propensity,
            decided_by: chosen.decided_by,
            fallback_reason: chosen.fallback,
            model_version: loaded.map(|loaded| Arc::clone(&loaded.version)),
        }
    }
}

/// How probable the failure of the first candidate is: by the error head, but no less than this router has counted of late.
fn failure_probability(ranking: &Ranking, loaded: Option<&Loaded>) -> f64 {
    let counted = ranking.scored[0].candidate.local.error_rate;
    loaded
        .and_then(|loaded| ranking.failure_probability(&loaded.bundle))
        .map_or(counted, |learned| learned.max(counted))
}

fn decision(ranking: &Ranking, chosen: &Chosen) -> Decision {
    let first = &ranking.scored[0];
    Decision {
        predicted_ms: Some(first.terms.latency_ms()).filter(|ms| ms.is_finite()),
        decided_by: chosen.decided_by,
        fallback_reason: chosen.fallback,
        forecast: chosen.forecast,
        ..Decision::by_rule(first.position, chosen.propensity, ranking.scored.len())
    }
}

/// How far off a cost may be: execution by what the model, or else the table, leaves unexplained; a cold start by whether it
/// comes; a wait by its own length.
fn uncertain(context: &DecisionContext<'_>, scored: &Scored, loaded: Option<&Loaded>) -> Uncertain {
    let head_sd = loaded.and_then(|loaded| loaded.bundle.exec()).map(ExecHead::residual_sd);
    let ln_sd = head_sd.or_else(|| context.service_table.map(ServiceTable::residual_sd)).unwrap_or(1.0);
    let terms = &scored.terms;
    let cold_sd_ms = terms.cold_ms * (1.0 / scored.cold_probability.clamp(0.01, 1.0) - 1.0).sqrt();
    let squares = [ln_sd * terms.execution_ms, cold_sd_ms, terms.wait_ms].map(|sd_ms| sd_ms * sd_ms);
    Uncertain { cost_ms: terms.total_ms(), sd_ms: squares.iter().sum::<f64>().sqrt() }
}

/// The placer as a policy: the very object that routers embed runs in the simulator.
impl Policy for Placer {
    fn name(&self) -> &'static str {
        "shardwise"
    }

    fn decide(&mut self, context: &DecisionContext<'_>, rng: &mut dyn Rng) -> Result<Decision, NoEligibleShard> {
        let making = Making::by(Draw::Uniform(rng.random()));
        self.decide_with(context, making, |_, ranking, chosen, _| decision(ranking, chosen))
    }

    fn revisit(&mut self, context: &DecisionContext<'_>, chosen: usize) -> Option<Result<Decision, NoEligibleShard>> {
        let making = Making::by(Draw::Again(chosen));
        Some(self.decide_with(context, making, |_, ranking, chosen, _| decision(ranking, chosen)))
    }

    fn odds(
        &mut self,
        context: &DecisionContext<'_>,
        out: &mut Vec<(usize, f64)>,
    ) -> Option<Result<(), NoEligibleShard>> {
        let config = self.config;
        Some(self.decide_with(context, Making::by(Draw::Nothing), |_, ranking, chosen, _| {
            guards::odds(&config, &ranking.scored, chosen.propensity, out);
        }))
    }

    fn on_response(&mut self, observed: &Observed<'_>) {
        self.learn(observed);
    }

    fn service_table(&self) -> Option<Arc<ServiceTable>> {
        self.loaded.load().as_ref().map(|loaded| Arc::clone(&loaded.table))
    }

    fn model_version(&self) -> Option<Arc<str>> {
        self.loaded.load().as_ref().map(|loaded| Arc::clone(&loaded.version))
    }
}
/// As 32 bits, and still a number: JSON has no infinity, and callers may expect any time that a number holds.
fn narrow(ms: f64) -> f32 {
    ms.min(f64::from(f32::MAX)) as f32
}
