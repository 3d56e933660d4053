//! A router, a placer and their history, and what is claimed of every context that they meet.

use std::convert::Infallible;
use std::sync::Arc;

use rand::TryRng;
use shardwise_features::golden::contexts;
use shardwise_features::{DecisionContext, DecisionFeatures, FeatureVector, RouterConfig, RouterState, Ticket};
use shardwise_inference::{Exploration, Guards, Placement, Placer, PlacerConfig};
use shardwise_models::{BundleDraft, ModelBundle};
use shardwise_policies::{Decision, Mode, Observed, Policy, Strategies, StrategiesConfig};
use shardwise_types::{
    CostTerms, DecidedBy, FleetSnapshot, MarketSnapshot, NoEligibleShard, PlacementRequest, ShardId, ShardPrediction,
    Timestamp, Widening,
};

use crate::generate::{Dice, Names};

/// Draws below the share of exploration that are tried to see every safe shard.
const DRAWS: u32 = 600;
/// Tickets that are out at most; the next one makes the oldest lost.
const MOST_OUT: usize = 64;

/// What all worlds share.
pub(crate) struct Supplies {
    names: Names,
    bundles: [Arc<ModelBundle>; 2],
}

/// What a world has met, to show that it met everything.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) placed: u64,
    pub(crate) refused: u64,
    by_model: u64,
    by_strategy: u64,
    by_guard: u64,
    explored: u64,
    doubtful: u64,
    ejected: u64,
    large: u64,
    shuffled: u64,
    enumerated: u64,
    not_numbers: u64,
}

/// A router and a placer with one configuration.
pub(crate) struct World<'a> {
    supplies: &'a Supplies,
    dice: Dice,
    placer: Placer,
    router: RouterState,
    out: Vec<(Ticket, PlacementRequest, ShardId)>,
    failures: f64,
    /// Whether only requests that the borders let in are ever dispatched. Answers are wild either way.
    is_clean: bool,
    pub(crate) seen: Seen,
}

/// A context that owns its parts.
struct Case {
    request: PlacementRequest,
    fleet: FleetSnapshot,
    market: MarketSnapshot,
    decided_at: Timestamp,
    is_wild: bool,
}

impl Case {
    fn new(dice: &mut Dice, names: &Names) -> Self {
        let is_wild = dice.change_manners();
        let decided_at = dice.instant();
        let (request, market) = (dice.request(names), dice.market());
        Self { request, fleet: dice.fleet(names, decided_at), market, decided_at, is_wild }
    }

    fn context<'a>(&'a self, router: &'a RouterState) -> DecisionContext<'a> {
        let Self { request, fleet, market, decided_at, .. } = self;
        DecisionContext { request, fleet, market, router, decided_at: *decided_at, service_table: None }
    }
}

/// Gives one number for ever, so that a draw can be chosen.
struct Always(u64);

impl Always {
    /// Makes `random::<f64>()` give this number.
    fn draws(unit: f64) -> Self {
        Self((unit * (1_u64 << 53) as f64) as u64 * (1 << 11))
    }
}

impl TryRng for Always {
    type Error = Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((self.0 >> 32) as u32)
    }
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0)
    }
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.fill(self.0 as u8);
        Ok(())
    }
}

impl Supplies {
    pub(crate) fn new() -> Self {
        let golden = contexts().remove(1);
        let context = golden.context();
        let features = DecisionFeatures::new(&context);
        let rows: Vec<_> = (0..3).map(|position| FeatureVector::extract(&features, position).into_array()).collect();
        let table = golden.service_table.clone().expect("the golden context has a table");
        let small = BundleDraft { service_table: table.clone(), ..BundleDraft::example() };
        let bundle = |draft: BundleDraft| Arc::new(draft.bundle().expect("a sound draft"));
        Self { names: Names::new(), bundles: [bundle(small), bundle(shardwise_workload::draft(&rows, table))] }
    }
}

impl Seen {
    pub(crate) fn add(&mut self, other: &Self) {
        self.placed += other.placed;
        self.refused += other.refused;
        self.by_model += other.by_model;
        self.by_strategy += other.by_strategy;
        self.by_guard += other.by_guard;
        self.explored += other.explored;
        self.doubtful += other.doubtful;
        self.ejected += other.ejected;
        self.large += other.large;
        self.shuffled += other.shuffled;
        self.enumerated += other.enumerated;
        self.not_numbers += other.not_numbers;
    }

    fn count(&mut self, prediction: &ShardPrediction) {
        use DecidedBy::{
            Admission, Cap, Exploration, GeographicStrategy, Model, ProtocolStrategy, ResourceMatcher, RiskStrategy,
            SlowStart,
        };
        self.placed += 1;
        match prediction.decided_by {
            Model => self.by_model += 1,
            GeographicStrategy | ProtocolStrategy | ResourceMatcher | RiskStrategy => self.by_strategy += 1,
            Admission | Cap | SlowStart => self.by_guard += 1,
            Exploration => self.explored += 1,
            _ => {}
        }
        self.doubtful += u64::from(prediction.widening == Widening::Doubtful);
        self.not_numbers += u64::from(prediction.expected_latency.is_nan());
    }

    /// A generator that misses a path claims nothing about it.
    pub(crate) fn assert_wide(&self) {
        let common = [self.refused, self.by_model, self.by_strategy, self.explored, self.doubtful, self.shuffled];
        let rare = [self.by_guard, self.ejected, self.not_numbers, self.enumerated];
        assert!(common.iter().all(|seen| *seen > 1_000), "{self:?}");
        assert!(rare.iter().all(|seen| *seen > 20) && self.large > 0, "{self:?}");
    }
}

fn config(dice: &mut Dice) -> PlacerConfig {
    let share = *dice.one(&[0.01, 0.3, 0.999]);
    let exploration = Exploration { share, dearest: *dice.one(&[1.3, 5.0]), ..Exploration::default() };
    let guards = Guards {
        max_model_age_days: Guards::default().max_model_age_days.filter(|_| dice.chance(0.2)),
        max_missing: Guards::default().max_missing.filter(|_| dice.chance(0.5)),
        ..Guards::default()
    };
    PlacerConfig {
        exploration: dice.chance(0.8).then_some(exploration),
        guards: if dice.chance(0.2) { Guards::none() } else { guards },
        model_candidates: *dice.one(&[8, 0, 1, 3]),
        seed: dice.next(),
        ..PlacerConfig::default()
    }
}

fn strategies(dice: &mut Dice) -> Strategies {
    let mut config = StrategiesConfig::default();
    for mode in
        [&mut config.protocol.mode, &mut config.risk.mode, &mut config.geographic.mode, &mut config.resource.mode]
    {
        *mode = *dice.one(&[Mode::Off, Mode::Fallback, Mode::Constraint]);
    }
    config.local.enabled = dice.chance(0.5);
    Strategies::new(config).expect("only the modes differ from the defaults")
}

impl<'a> World<'a> {
    pub(crate) fn new(supplies: &'a Supplies, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let placer = match dice.below(8) {
            0..=3 => Placer::without_model(),
            4..=6 => Placer::with_model(Arc::clone(&supplies.bundles[0])),
            _ => Placer::with_model(Arc::clone(&supplies.bundles[1])),
        };
        // Where all may be, sooner or later all are.
        let max_ejected_share = *dice.one(&[0.5, 1.0]);
        Self {
            supplies,
            placer: placer.with_config(config(&mut dice)).with_strategies(strategies(&mut dice)),
            router: RouterState::with_config(RouterConfig { max_ejected_share, ..RouterConfig::default() }),
            out: Vec::new(),
            failures: *dice.one(&[0.0, 0.1, 0.9, 1.0]),
            is_clean: dice.chance(0.5),
            dice,
            seen: Seen::default(),
        }
    }

    /// Places one request, checks every claim and goes on with the history.
    pub(crate) fn step(&mut self) {
        let case = Case::new(&mut self.dice, &self.supplies.names);
        let context = case.context(&self.router);
        let answer = self.placer.place(&context);
        self.seen.ejected += u64::from(has_ejected(&context));
        self.seen.large += u64::from(case.fleet.shards.len() >= 1_000);
        match &answer {
            Ok(placement) => {
                follows_the_rules(&self.placer, &context, placement);
                if self.is_clean && !case.is_wild {
                    holds_numbers(&placement.prediction);
                }
                self.seen.count(&placement.prediction);
                if self.dice.chance(0.02) {
                    assert!(placement.prediction.reasoning().len() >= 2);
                }
            }
            Err(refusal) => {
                is_justified(&self.placer, &context, refusal);
                self.seen.refused += 1;
            }
        }
        if !case.is_wild && self.dice.chance(0.2) {
            self.forgets_the_order(&case);
        }
        if answer.is_ok() && case.fleet.shards.len() < 100 && self.dice.chance(0.000_5) {
            self.tells_its_propensities(&case);
        }
        if let Ok(placement) = answer {
            self.live(&case, &placement.decision);
        }
    }

    /// The same draw takes the same shard whatever the order in which shards were given.
    fn forgets_the_order(&mut self, case: &Case) {
        let shuffled = self.dice.shuffled(&case.fleet);
        let draw = self.dice.unit() * *self.dice.one(&[1.0, 0.01]);
        let mut decide = |fleet: &FleetSnapshot| {
            let context = DecisionContext { fleet, ..case.context(&self.router) };
            let decision = self.placer.decide(&context, &mut Always::draws(draw));
            decision.map(|decision| fleet.shards[decision.chosen].id.clone())
        };
        assert_eq!(decide(&case.fleet), decide(&shuffled));
        self.seen.shuffled += 1;
    }

    /// Over evenly spaced draws every shard comes up as often as its propensity says, and these add up to one.
    fn tells_its_propensities(&mut self, case: &Case) {
        let share = self.placer.config().exploration.map_or(0.0, |exploration| exploration.share);
        let exploring = (0..DRAWS).map(|n| (share * (f64::from(n) + 0.5) / f64::from(DRAWS), share / f64::from(DRAWS)));
        let mut of_shards = vec![(0.0, 0.0); case.fleet.shards.len()];
        for (draw, weight) in exploring.chain([(share + (1.0 - share) / 2.0, 1.0 - share)]) {
            let context = case.context(&self.router);
            let decision = self.placer.decide(&context, &mut Always::draws(draw)).expect("it was placed before");
            let (frequency, propensity) = &mut of_shards[decision.chosen];
            assert!(*frequency == 0.0 || *propensity == decision.propensity, "it hangs on the draw");
            *frequency += weight;
            *propensity = decision.propensity;
        }
        for (frequency, propensity) in &of_shards {
            let error = (frequency - propensity).abs();
            assert!(error <= 2.0 * share / f64::from(DRAWS) + 1e-9, "{propensity} stated, {frequency} drawn");
        }
        let sum: f64 = of_shards.iter().map(|(_, propensity)| propensity).sum();
        assert!((sum - 1.0).abs() < 1e-9, "propensities add up to {sum}");
        let mut odds = Vec::new();
        let said = self.placer.odds(&case.context(&self.router), &mut odds).expect("a placer knows its odds");
        said.expect("it was placed before");
        let mut stated = vec![0.0; of_shards.len()];
        odds.iter().for_each(|(position, probability)| stated[*position] += probability);
        assert!(of_shards.iter().map(|(_, propensity)| *propensity).eq(stated), "{of_shards:?} drawn of {odds:?}");
        self.seen.enumerated += 1;
    }

    /// Dispatches, answers and reports now and then.
    fn live(&mut self, case: &Case, decision: &Decision) {
        if (!self.is_clean || !case.is_wild) && self.dice.chance(0.5) {
            let shards = &case.fleet.shards;
            let target = if self.dice.chance(0.8) { decision.chosen } else { self.dice.below(shards.len()) };
            let mut ticket = self.router.on_dispatch(&case.context(&self.router), target);
            ticket.forecast = decision.forecast;
            if self.out.len() == MOST_OUT {
                self.out.remove(0);
            }
            self.out.push((ticket, case.request.clone(), shards[target].id.clone()));
        }
        if !self.out.is_empty() && self.dice.chance(0.5) {
            self.answer(case.decided_at);
        }
        if self.dice.chance(0.1) {
            let shard = &self.dice.one(&case.fleet.shards).id;
            self.router.on_report(shard, self.dice.near(case.decided_at, 100.0));
        }
    }

    fn answer(&mut self, now: Timestamp) {
        let (ticket, request, shard) = self.out.swap_remove(self.dice.below(self.out.len()));
        let response = self.dice.wild_response(self.failures);
        let known_at = self.dice.near(now, 100.0);
        self.router.on_response(&ticket, &response, known_at);
        let (request, shard, ticket, response) = (&request, &shard, &ticket, &response);
        self.placer.learn(&Observed { request, shard, ticket, response, known_at });
    }

    /// Another placer of the same seed, given the same requests and fleets in another order, names the same shards.
    pub(crate) fn agrees_with_its_twin(&mut self, twin: &World<'_>, contexts: usize) {
        for _ in 0..contexts {
            let case = Case::new(&mut self.dice, &self.supplies.names);
            if case.is_wild {
                continue;
            }
            let fleet = self.dice.shuffled(&case.fleet);
            let of = |answer: Result<Placement, _>| answer.map(|placement| placement.prediction.recommended_shard);
            let context = case.context(&self.router);
            let mine = self.placer.place(&context);
            assert_eq!(of(mine.clone()), of(twin.placer.place(&DecisionContext { fleet: &fleet, ..context })));
            if let Ok(placement) = mine {
                self.router.on_dispatch(&context, placement.decision.chosen);
            }
        }
    }
}

/// The recommended shard is one of the fleet that constraints and hard rules allow, and the answer agrees with itself.
/// Limits that are not numbers compare with nothing and forbid nothing: the borders refuse them.
fn follows_the_rules(placer: &Placer, context: &DecisionContext<'_>, placement: &Placement) {
    let Placement { prediction, decision, .. } = placement;
    let (request, shard) = (context.request, &context.fleet.shards[decision.chosen]);
    assert_eq!(prediction.recommended_shard, shard.id);
    assert!(placer.strategies().is_allowed(context, decision.chosen), "it is not allowed");
    assert!(shard.is_healthy());
    assert!(request.residency.as_ref().is_none_or(|region| *region == shard.shape.region), "residency");
    let too_small = request.memory_mb > shard.shape.memory_mb;
    let too_much = request.amount_usd.zip(shard.shape.max_amount_usd).is_some_and(|(amount, most)| amount.usd() > most);
    assert!(!too_small && !too_much, "memory or amount");
    assert!(prediction.propensity > 0.0 && prediction.propensity <= 1.0, "{}", prediction.propensity);
    assert_eq!(prediction.propensity, decision.propensity);
    assert!(prediction.alternative_shards.len() < (prediction.eligible as usize).max(1));
    // An answer without a finite expectation says so: the decision predicts nothing.
    let finite = Some(prediction.expected_latency).filter(|ms| ms.is_finite());
    assert_eq!(decision.predicted_ms, finite);
}

/// With requests and reports that the borders let in, every expected number of the answer is a number, whatever shards have
/// answered and whatever the clock says.
fn holds_numbers(prediction: &ShardPrediction) {
    let quantiles_ms = [prediction.latency_p50, prediction.latency_p90, prediction.latency_p99];
    let are_numbers =
        |terms: &CostTerms| terms.named().iter().all(|(_, ms)| !ms.is_nan()) && !terms.total_ms().is_nan();
    assert!(!prediction.expected_latency.is_nan() && !prediction.expected_load.is_nan(), "{prediction:?}");
    assert!(quantiles_ms.iter().all(|ms| !ms.is_nan()) && quantiles_ms.is_sorted(), "{prediction:?}");
    assert!(are_numbers(&prediction.cost), "{prediction:?}");
    assert!(prediction.alternative_shards.iter().all(|other| are_numbers(&other.cost)), "{prediction:?}");
}

/// Whether the breaker keeps requests from any shard of the fleet.
fn has_ejected(context: &DecisionContext<'_>) -> bool {
    let DecisionContext { router, decided_at, fleet, .. } = context;
    router.has_ejected(*decided_at) && fleet.shards.iter().any(|shard| !router.breaker_admits(&shard.id, *decided_at))
}

/// A refusal counts every shard once, and none of them is allowed.
fn is_justified(placer: &Placer, context: &DecisionContext<'_>, refusal: &NoEligibleShard) {
    let shards = context.fleet.shards.len();
    assert_eq!(refusal.shards as usize, shards);
    assert_eq!(refusal.shards, refusal.unhealthy + refusal.forbidden + refusal.too_small);
    let some = if shards > 100 { 1 } else { shards };
    assert!((0..some).all(|position| !placer.strategies().is_allowed(context, position)), "one was allowed");
}
