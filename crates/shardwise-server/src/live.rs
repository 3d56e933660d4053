//! One router at work: decides, remembers what waits for its outcome, logs, and learns from what comes back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use shardwise_control::{AgentHost, Pick};
use shardwise_features::{DecisionContext, RouterState};
use shardwise_inference::{DecisionLog, LoggedDecision, LoggedOutcome, Shadow};
use shardwise_monitor::{Capacity, FleetView, Ingested};
use shardwise_planner::Observations;
use shardwise_policies::{Decision, Observed, Rules, eligible};
use shardwise_types::{
    DecidedBy, DirectiveRecord, ErrorClass, FallbackReason, InvalidInput, MarketSnapshot, NoEligibleShard,
    OutcomeRecord, PlacementRequest, Placements, Resized, Response, ShardId, ShardPrediction, Timestamp, combine_keys,
    key_of, unit_of,
};

use crate::accepted::Accepted;
use crate::clock::Clock;
use crate::decider::{Decided, Decider};
use crate::figures::Figures;
use crate::pending::{Claim, Pending, Waiting};
use crate::queue::Queue;
use crate::recent::Recent;

/// What a router is at any time.
pub(crate) struct Live {
    pub(crate) clock: Clock,
    pub(crate) decider: Decider,
    pub(crate) shadow: Option<Arc<Shadow>>,
    pub(crate) router: RouterState,
    pub(crate) view: Arc<FleetView>,
    /// What operators changed; none before the agent has started.
    pub(crate) agent: OnceLock<AgentHost>,
    pub(crate) market: ArcSwap<MarketSnapshot>,
    /// What plans are made from: all that the history is told.
    pub(crate) observations: Mutex<Observations>,
    pub(crate) log: DecisionLog,
    pub(crate) pending: Pending,
    /// Outcomes of decisions that are no longer waited for.
    pub(crate) late: Queue<OutcomeRecord>,
    pub(crate) directives: Queue<DirectiveRecord>,
    /// Held while something happens to the router's state, from the moment that it is known until it has happened: the history
    /// tells of it in that order, and whoever plays it again comes to the same features, bit for bit.
    pub(crate) order: Mutex<()>,
    pub(crate) ids: Ids,
    pub(crate) accepted: Accepted,
    pub(crate) figures: Figures,
    pub(crate) recent: Recent,
}

/// Numbers for decisions and for the order of records.
#[derive(Debug)]
pub(crate) struct Ids {
    first: u64,
    decisions: AtomicU64,
    sequence: AtomicU64,
}

impl Ids {
    /// Ids that no other router's and no other start's run into, but by a chance of one in billions.
    pub(crate) fn of(router: &str, started_at: Timestamp) -> Self {
        let first = combine_keys(key_of(router), started_at.nanos().cast_unsigned());
        Self { first, decisions: AtomicU64::new(0), sequence: AtomicU64::new(0) }
    }

    fn decision(&self) -> u64 {
        // A history holds them in 63 bits.
        self.first.wrapping_add(self.decisions.fetch_add(1, Relaxed)) & (u64::MAX >> 1)
    }

    /// Whether a decision is one of this process.
    fn has_given(&self, decision_id: u64) -> bool {
        let nth = decision_id.wrapping_sub(self.first) & (u64::MAX >> 1);
        nth < self.decisions.load(Relaxed)
    }

    pub(crate) fn sequence(&self) -> u64 {
        self.sequence.fetch_add(1, Relaxed)
    }
}

/// What a client is told.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Answer {
    /// To be sent back with the outcome.
    pub(crate) decision_id: String,
    #[serde(flatten)]
    pub(crate) said: Said,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Said {
    Prediction(Box<ShardPrediction>),
    /// A rival names a shard, and some foretell a latency.
    #[serde(rename_all = "camelCase")]
    Plain {
        recommended_shard: ShardId,
        expected_latency: Option<f64>,
        eligible: u32,
        propensity: f64,
        decided_by: DecidedBy,
        fallback_reason: Option<FallbackReason>,
        reasoning: Vec<String>,
    },
}

/// The answer when no shard is eligible and the router's own machine may run the request.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Locally {
    pub(crate) recommended_shard: &'static str,
    pub(crate) decided_by: DecidedBy,
    pub(crate) degraded: bool,
    pub(crate) reasoning: Vec<String>,
}

/// What became of a decision, as a client tells it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Outcome {
    pub(crate) decision_id: String,
    /// From dispatch to response, in ms.
    pub(crate) total_ms: f32,
    /// On a core, loading included, in ms.
    #[serde(default)]
    pub(crate) exec_ms: f32,
    /// In the shard's queue, in ms.
    #[serde(default)]
    pub(crate) queue_ms: f32,
    /// Queued and running when it answered.
    #[serde(default)]
    pub(crate) queue_len: u32,
    #[serde(default)]
    pub(crate) cold: bool,
    #[serde(default)]
    pub(crate) error: Option<ErrorClass>,
    /// When the shard finished; now when left out.
    #[serde(default)]
    pub(crate) event_at: Option<Timestamp>,
}

impl Outcome {
    /// The decision's id and the response.
    fn check(&self) -> Result<(u64, Response), InvalidInput> {
        let id = self.decision_id.parse::<u64>().ok().filter(|id| *id <= u64::MAX >> 1);
        let id = id.ok_or_else(|| {
            InvalidInput::new("decisionId", "is not one; send back the decisionId of the answer, as text")
        })?;
        for (field, ms) in [("totalMs", self.total_ms), ("execMs", self.exec_ms), ("queueMs", self.queue_ms)] {
            if !(ms.is_finite() && ms >= 0.0) {
                return Err(InvalidInput::new(
                    field,
                    format!("{ms} must be a finite number of milliseconds, 0 or more"),
                ));
            }
        }
        let Self { error, total_ms, exec_ms, queue_ms, queue_len, cold, .. } = *self;
        Ok((id, Response { error, total_ms, exec_ms, queue_ms, queue_len, cold }))
    }
}

/// What was done with an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    /// Learned and logged.
    Taken,
    /// Kept only: the decision was given up, or never remembered, and nothing is learned.
    Late,
    /// Logged only: an earlier process, or another router, made the decision.
    Unmatched,
    /// It came before; nothing was done.
    Duplicate,
    /// The log is full; it may be sent again.
    NoRoom,
}

impl Live {
    /// Decides a request.
    pub(crate) fn place(&self, request: PlacementRequest) -> Result<Answer, NoEligibleShard> {
        let in_order = self.in_order();
        let (fleet, market) = (self.view.snapshot(), self.market.load());
        let decided_at = self.clock.now();
        let context = DecisionContext {
            request: &request,
            decided_at,
            fleet: &fleet,
            router: &self.router,
            market: &market,
            service_table: None,
        };
        let decision_id = self.ids.decision();
        let decided = match self.split(&context, decision_id) {
            Some(decided) => Ok(decided),
            None => self.decider.decide(&context),
        };
        let Decided { decision, prediction, service_table } =
            decided.inspect_err(|refusal| self.figures.refuse(refusal))?;
        let context = DecisionContext { service_table: service_table.as_deref(), ..context };
        let mut candidates = Vec::new();
        if self.log.logs_candidates(decision_id) || self.shadow.is_some() {
            // It was decided, so some are eligible; what constraints leave out is no candidate of the log either.
            _ = self.candidates(&context, &mut candidates);
        }
        let logged = LoggedDecision {
            decision_id,
            sequence: self.ids.sequence(),
            context: &context,
            decision: &decision,
            policy: match decision.decided_by {
                DecidedBy::TrafficSplit => DecidedBy::TrafficSplit.as_str(),
                _ => self.decider.name(),
            },
            model_version: prediction.as_ref().and_then(|prediction| prediction.model_version.as_deref()),
            candidates: &candidates,
        };
        self.log.record(&logged);
        if let Some(shadow) = &self.shadow {
            shadow.observe(&logged);
        }
        let shard = fleet.shards[decision.chosen].id.clone();
        // Before the answer leaves: then its outcome may come.
        let mut ticket = self.router.on_dispatch(&context, decision.chosen);
        ticket.forecast = decision.forecast;
        drop(in_order);
        self.accepted.count();
        self.figures.decide(decision.decided_by, decision.fallback_reason);
        self.recent.note(decided_at, decision_id, &request, &shard, &decision, prediction.as_ref());
        if self.pending.has_room() {
            self.pending.insert(decision_id, Waiting { request, shard: shard.clone(), ticket, decided_at });
        }
        let said = prediction.map_or_else(
            || Said::Plain {
                recommended_shard: shard,
                expected_latency: decision.predicted_ms,
                eligible: decision.eligible,
                propensity: decision.propensity,
                decided_by: decision.decided_by,
                fallback_reason: decision.fallback_reason,
                reasoning: vec![decision.decided_by.meaning().to_owned()],
            },
            |prediction| Said::Prediction(Box::new(prediction)),
        );
        Ok(Answer { decision_id: decision_id.to_string(), said })
    }

    /// The shards that may be chosen, by their positions in the fleet.
    fn candidates(&self, context: &DecisionContext<'_>, out: &mut Vec<usize>) -> Result<(), NoEligibleShard> {
        match self.decider.placer() {
            Some(placer) => placer.strategies().candidates(context, out).map(drop),
            None => eligible(context, &Rules::default(), out),
        }
    }

    /// The decision of the function's traffic split; none without one, or when none of its shards may be chosen.
    fn split(&self, context: &DecisionContext<'_>, decision_id: u64) -> Option<Decided> {
        let splits = self.agent.get()?.splits();
        let (function, now) = (&context.request.function, context.decided_at);
        if splits.pick(function, now, 0.0, |_| true) == Pick::NoSplit {
            return None;
        }
        let mut candidates = Vec::new();
        self.candidates(context, &mut candidates).ok()?;
        let position =
            |shard: &ShardId| context.fleet.position(shard).filter(|at| candidates.binary_search(at).is_ok());
        // A draw for each decision, apart from all others that are made by its id.
        let draw = unit_of(combine_keys(decision_id, key_of("traffic split")));
        let Pick::Shard(shard) = splits.pick(function, now, draw, |shard| position(shard).is_some()) else {
            self.figures.split_without_shard();
            return None;
        };
        let share = splits.share(function, now, shard, |shard| position(shard).is_some());
        let decision = Decision {
            decided_by: DecidedBy::TrafficSplit,
            ..Decision::by_rule(position(shard)?, share, candidates.len())
        };
        Some(Decided { decision, prediction: None, service_table: None })
    }

    /// Learns from an outcome and logs it, each once.
    ///
    /// # Errors
    /// Names the field that is out of range.
    pub(crate) fn settle(&self, outcome: &Outcome) -> Result<Settled, InvalidInput> {
        let (decision_id, response) = outcome.check()?;
        let _in_order = self.in_order();
        let known_at = self.clock.now();
        let event_at = outcome.event_at.unwrap_or(known_at);
        let sequence = self.ids.sequence();
        let logged = LoggedOutcome { decision_id, sequence, event_at, known_at, response: &response };
        match self.pending.claim(decision_id) {
            Claim::Settled => {
                self.figures.duplicate();
                Ok(Settled::Duplicate)
            }
            Claim::Unknown if self.ids.has_given(decision_id) => {
                let router = self.log.router().clone();
                let outcome = OutcomeRecord { decision_id, sequence, event_at, known_at, router, response };
                let is_taken = self.late.add(outcome);
                if is_taken {
                    self.pending.settle_late(decision_id);
                    self.figures.late();
                }
                Ok(if is_taken { Settled::Late } else { Settled::NoRoom })
            }
            Claim::Unknown => {
                let is_taken = self.log.record_outcome(&logged);
                if is_taken {
                    self.figures.unmatched();
                }
                Ok(if is_taken { Settled::Unmatched } else { Settled::NoRoom })
            }
            Claim::Waiting(waiting) => {
                if !self.log.record_outcome(&logged) {
                    self.pending.put_back(decision_id, waiting);
                    return Ok(Settled::NoRoom);
                }
                let Waiting { request, shard, ticket, .. } = &*waiting;
                self.router.on_response(ticket, &response, known_at);
                self.decider.learn(&Observed { request, shard, ticket, response: &response, known_at });
                self.figures.settle(ticket.forecast.answer.as_ref(), &response);
                Ok(Settled::Taken)
            }
        }
    }

    /// Has the view take in a report, and learns from it.
    pub(crate) fn take_in(&self, take: &dyn Fn() -> Ingested) -> Ingested {
        let _in_order = self.in_order();
        let mut ingested = take();
        if let Ingested::New(record) | Ingested::Late(record) = &mut ingested {
            // When it was known is this router's own time.
            record.router = Some(self.log.router().clone());
        }
        if let Ingested::New(record) = &ingested {
            self.router.on_report(&record.shard, record.report.known_at);
            self.decider.hear(&record.shard, &record.report);
        }
        ingested
    }

    /// Follows other placements from now on.
    pub(crate) fn take_placements(&self, placements: &Arc<Placements>) {
        let _in_order = self.in_order();
        let before = Arc::clone(&self.view.snapshot().placements);
        if before == *placements {
            return;
        }
        let known_at = self.clock.now();
        self.router.on_placements(&before, placements, known_at);
        self.view.place(placements);
        self.tell(known_at, Vec::new(), Resized::default());
    }

    /// Lets shards go that were not heard for long: `tick` has the view do so, and says which.
    pub(crate) fn let_go(&self, tick: &dyn Fn() -> Vec<ShardId>) -> Vec<ShardId> {
        let _in_order = self.in_order();
        let known_at = self.clock.now();
        let gone = tick();
        if !gone.is_empty() {
            self.tell(known_at, gone.clone(), Resized::default());
        }
        gone
    }

    /// Takes shards to have no more than this from now on.
    pub(crate) fn limit(&self, limits: BTreeMap<ShardId, Capacity>) {
        let _in_order = self.in_order();
        let (known_at, before) = (self.clock.now(), self.view.snapshot());
        self.view.limit(limits);
        let resized = Resized::between(&before, &self.view.snapshot());
        if !resized.is_empty() {
            self.tell(known_at, Vec::new(), resized);
        }
    }

    /// Has the journal say what changed the view of the fleet that no report tells; called in the order of all that happens.
    fn tell(&self, known_at: Timestamp, gone: Vec<ShardId>, resized: Resized) {
        let is_taken = self.directives.add(DirectiveRecord {
            sequence: self.ids.sequence(),
            event_at: known_at,
            known_at,
            router: self.log.router().clone(),
            placements: Placements::clone(&self.view.snapshot().placements),
            gone,
            resized,
        });
        if !is_taken {
            tracing::warn!("the journal takes no more directives; it will not say what this router follows");
        }
    }

    /// Takes in the market; returns when that was.
    pub(crate) fn take_market(&self, market: MarketSnapshot) -> Timestamp {
        let _in_order = self.in_order();
        self.market.store(Arc::new(market));
        self.clock.now()
    }

    /// What was seen so far; nobody may hold it for long.
    pub(crate) fn seen(&self) -> MutexGuard<'_, Observations> {
        // A record is counted whole or not.
        self.observations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn in_order(&self) -> MutexGuard<'_, ()> {
        // It guards an order, which nobody can leave half done.
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is done every second, away from the requests.
    pub(crate) fn tick(&self, outcome_wait_ms: f64) {
        self.figures.wall_ahead(self.clock.look_at_the_wall());
        self.pending.give_up(self.clock.now().plus_millis(-outcome_wait_ms));
    }
}

/// The answer that has the caller run the request itself.
pub(crate) fn locally(refusal: &NoEligibleShard) -> Locally {
    Locally {
        recommended_shard: "local",
        decided_by: DecidedBy::Local,
        degraded: true,
        reasoning: vec![format!("{}: {refusal}", DecidedBy::Local.meaning())],
    }
}
