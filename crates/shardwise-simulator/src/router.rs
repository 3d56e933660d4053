//! A simulated router: the same state, snapshots and policy that a real one runs, fed in the same order.
//!
//! It sees only what reports, responses and the market tell it, never the world. Oracles are let see the truth.

use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use shardwise_features::{DecisionContext, DecisionFeatures, FeatureVector, RouterState, ServiceTable, Ticket};
use shardwise_policies::{
    Decision, Observed, Outstanding, ProbeAnswer, Rules, eligible, is_eligible, sed::congestion_ms,
};
use shardwise_types::{
    DecidedBy, FleetSnapshot, MarketRecord, MarketSnapshot, PlacementRequest, Placements, ReportRecord, Response,
    ShardId, Timestamp,
};

use crate::audit::{Audit, Bug};
use crate::player::Player;
use crate::recorder::{Choice, Recorder};
use crate::streams::router_stream;
use crate::truth::{Foreseen, Truth};
use crate::world::{RouterSpec, ShardSpec, WorldError, WorldSpec};

/// Bits of a decision id that count a router's decisions; the rest is the router.
const DECISION_BITS: u32 = 40;

pub(crate) struct SimRouter<'a> {
    pub(crate) spec: &'a RouterSpec,
    pub(crate) player: Player,
    pub(crate) audit: Audit,
    index: u64,
    shards: &'a [ShardSpec],
    known: Known,
    rng: ChaCha8Rng,
    decisions: u64,
    /// Position in the world of each shard of the fleet snapshot.
    world_position: Vec<u16>,
    candidates: Vec<usize>,
    foreseen: Vec<(usize, Foreseen)>,
}

/// What a router knows.
struct Known {
    state: RouterState,
    fleet: FleetSnapshot,
    market: MarketSnapshot,
}

impl Known {
    fn context<'b>(
        &'b self,
        request: &'b PlacementRequest,
        decided_at: Timestamp,
        service_table: Option<&'b ServiceTable>,
    ) -> DecisionContext<'b> {
        let Self { state: router, fleet, market } = self;
        DecisionContext { request, decided_at, fleet, router, market, service_table }
    }
}

/// What is asked of a router.
pub(crate) struct Ask<'a> {
    pub(crate) request: &'a PlacementRequest,
    pub(crate) at: Timestamp,
    /// Which arrival it is, when it is measured.
    pub(crate) measured: Option<usize>,
    /// Whether the recorder may want features.
    pub(crate) records: bool,
    /// Reads a clock in ns.
    pub(crate) stopwatch: Option<fn() -> u64>,
    /// Whether regret is measured.
    pub(crate) regret: bool,
}

/// A request that was given a shard.
pub(crate) struct Placement {
    pub(crate) decision_id: u64,
    pub(crate) decision: Decision,
    pub(crate) ticket: Ticket,
    /// Position in the world.
    pub(crate) shard: u16,
    pub(crate) logged_shards: Vec<ShardId>,
    pub(crate) logged_features: Vec<f32>,
    /// How much later than on the best eligible shard it is foreseen to be done, in ms.
    pub(crate) regret_ms: Option<f64>,
    /// Whether it is within 10 % and 5 ms of the best eligible shard, when that was looked at.
    pub(crate) is_right: Option<bool>,
    /// How long the decision took.
    pub(crate) decide_ns: Option<u64>,
}

impl<'a> SimRouter<'a> {
    pub(crate) fn new(world: &'a WorldSpec, index: usize, player: Player, seed: u64) -> Result<Self, WorldError> {
        let spec = &world.routers[index];
        Ok(Self {
            spec,
            player,
            audit: Audit::new(world.shards.len()),
            index: index as u64,
            shards: &world.shards,
            known: Known {
                state: RouterState::new(),
                fleet: FleetSnapshot::new(Vec::new(), world.network.clone(), spec.region.clone())?,
                market: MarketSnapshot::default(),
            },
            rng: router_stream(seed, index as u64),
            decisions: 0,
            world_position: Vec::new(),
            candidates: Vec::new(),
            foreseen: Vec::new(),
        })
    }

    /// Decides and dispatches; `None` when no shard is eligible, or the policy has a bug.
    pub(crate) fn place(
        &mut self,
        ask: &Ask<'_>,
        truth: &mut Truth<'_, '_>,
        recorder: &mut dyn Recorder,
    ) -> Option<Placement> {
        let table = self.player.service_table();
        let context = self.known.context(ask.request, ask.at, table.as_deref());
        let started = ask.stopwatch.map(|read| read());
        let decided = match &mut self.player {
            Player::Policy(policy) => policy.decide(&context, &mut self.rng).ok(),
            Player::Oracle { lambda } => {
                foresee_best(&context, *lambda, &mut self.candidates, &self.world_position, truth)
            }
            Player::NoQueueBound => None,
        };
        let decide_ns = started.zip(ask.stopwatch).map(|(started, read)| read().saturating_sub(started));
        let Some(decision) = decided else {
            if eligible(&context, &Rules::default(), &mut self.candidates).is_ok() {
                self.audit.note(Bug::NeedlessRefusal, || format!("with {} eligible shards", self.candidates.len()));
            }
            return None;
        };
        let Some(shard) = self.world_position.get(decision.chosen).copied() else {
            let (chosen, shards) = (decision.chosen, self.world_position.len());
            self.audit.note(Bug::NoSuchShard, || format!("position {chosen} in a fleet of {shards}"));
            return None;
        };
        if !is_eligible(&context, &Rules::default(), decision.chosen) {
            let shard = &self.shards[usize::from(shard)].id;
            self.audit.note(Bug::IneligibleShard, || format!("{shard} for a request that may not run there"));
            return None;
        }
        self.audit.look(&decision, shard, truth.is_early());
        self.decisions += 1;
        let decision_id = (self.index << DECISION_BITS) + self.decisions;
        let (mut logged_shards, mut logged_features) = (Vec::new(), Vec::new());
        let wants_features = ask.records && recorder.wants_features(decision_id);
        let (mut regret_ms, mut is_right) = (None, None);
        self.foreseen.clear();
        if (wants_features || ask.regret) && eligible(&context, &Rules::default(), &mut self.candidates).is_ok() {
            if wants_features {
                let features = DecisionFeatures::new(&context);
                for position in &self.candidates {
                    logged_shards.push(self.known.fleet.shards[*position].id.clone());
                    logged_features.extend_from_slice(FeatureVector::extract(&features, *position).as_slice());
                }
            }
            if ask.regret {
                let foresee = |position: &usize| (*position, truth.foresee(self.world_position[*position]));
                self.foreseen.extend(self.candidates.iter().map(foresee));
                let best_ms = self.foreseen.iter().map(|(_, there)| there.latency_ms).fold(f64::INFINITY, f64::min);
                let own_ms = truth.foresee(shard).latency_ms;
                regret_ms = Some((own_ms - best_ms).max(0.0));
                is_right = Some(own_ms <= 1.1 * best_ms + 5.0);
            }
        }
        if let Some(arrival) = ask.measured {
            let foreseen = &self.foreseen;
            recorder.choice(&Choice { arrival, context: &context, decision: &decision, foreseen });
        }
        let mut ticket = self.known.state.on_dispatch(&context, decision.chosen);
        ticket.forecast = decision.forecast;
        let placement = Placement {
            decision_id,
            decision,
            ticket,
            shard,
            logged_shards,
            logged_features,
            regret_ms,
            is_right,
            decide_ns,
        };
        Some(placement)
    }

    /// The shard where the request would run fastest alone: latency in ms, core time, shard. `None` when none is
    /// eligible.
    pub(crate) fn bound(
        &mut self,
        request: &PlacementRequest,
        at: Timestamp,
        truth: &mut Truth<'_, '_>,
    ) -> Option<(f64, u64, u16)> {
        let context = self.known.context(request, at, None);
        eligible(&context, &Rules::default(), &mut self.candidates).ok()?;
        let alone = |position: &usize| {
            let shard = self.world_position[*position];
            let (latency_ms, exec_ns) = truth.alone(shard);
            (latency_ms, exec_ns, shard)
        };
        self.candidates.iter().map(alone).min_by(|a, b| a.0.total_cmp(&b.0))
    }

    /// Sends a copy of a request that is out to another shard, if the policy wants one.
    pub(crate) fn copy(&mut self, request: &PlacementRequest, at: Timestamp, out: &OutAttempt) -> Option<Placement> {
        let position = self.world_position.iter().position(|shard| *shard == out.shard)?;
        let outstanding = Outstanding { position, sent_at: out.sent_at, started: out.started };
        let table = self.player.service_table();
        let context = self.known.context(request, at, table.as_deref());
        let chosen = self.player.policy()?.copy_to(&context, &outstanding)?;
        let shard = self.world_position.get(chosen).copied().filter(|shard| *shard != out.shard)?;
        if !is_eligible(&context, &Rules::default(), chosen) {
            let shard = &self.shards[usize::from(shard)].id;
            self.audit.note(Bug::IneligibleShard, || format!("a copy to {shard}, where it may not run"));
            return None;
        }
        self.decisions += 1;
        Some(Placement {
            decision_id: (self.index << DECISION_BITS) + self.decisions,
            decision: Decision::by_rule(chosen, 1.0, self.world_position.len()),
            ticket: self.known.state.on_dispatch(&context, chosen),
            shard,
            logged_shards: Vec::new(),
            logged_features: Vec::new(),
            regret_ms: None,
            is_right: None,
            decide_ns: None,
        })
    }

    /// When the request just placed should be looked at again, in ms from now.
    pub(crate) fn look_again_ms(&mut self, request: &PlacementRequest, at: Timestamp, made: &Decision) -> Option<f64> {
        let table = self.player.service_table();
        let context = self.known.context(request, at, table.as_deref());
        self.player.policy()?.look_again_ms(&context, made).filter(|ms| *ms >= 0.0)
    }

    /// Shards of the world that the policy wants to probe.
    pub(crate) fn probes(&mut self, request: &PlacementRequest, at: Timestamp, out: &mut Vec<u16>) {
        let context = self.known.context(request, at, None);
        let Some(policy) = self.player.policy() else { return };
        self.candidates.clear();
        policy.probe(&context, &mut self.rng, &mut self.candidates);
        out.clear();
        out.extend(self.candidates.iter().filter_map(|position| self.world_position.get(*position)));
    }

    pub(crate) fn on_probe(&mut self, shard: u16, in_flight: u32, latency_ms: Option<f64>, known_at: Timestamp) {
        let shard = &self.shards[usize::from(shard)].id;
        if let Some(policy) = self.player.policy() {
            policy.on_probe(&ProbeAnswer { shard, in_flight, latency_ms, known_at });
        }
    }

    pub(crate) fn on_idle(&mut self, shard: u16) {
        let shard = &self.shards[usize::from(shard)].id;
        if let Some(policy) = self.player.policy() {
            policy.on_idle(shard);
        }
    }

    pub(crate) fn on_response(
        &mut self,
        request: &PlacementRequest,
        shard: u16,
        ticket: &Ticket,
        response: &Response,
        known_at: Timestamp,
    ) {
        self.known.state.on_response(ticket, response, known_at);
        let shard = &self.shards[usize::from(shard)].id;
        if let Some(policy) = self.player.policy() {
            policy.on_response(&Observed { request, shard, ticket, response, known_at });
        }
    }

    pub(crate) fn on_report(&mut self, record: &ReportRecord) {
        self.known.fleet.apply_report(record);
        if self.known.fleet.shards.len() != self.world_position.len() {
            let position = |id: &ShardId| self.shards.iter().position(|shard| shard.id == *id);
            let positions =
                self.known.fleet.shards.iter().map(|known| position(&known.id).expect("the world's shards report"));
            self.world_position = positions.map(|position| position as u16).collect();
        }
        self.known.state.on_report(&record.shard, record.report.known_at);
        if let Some(policy) = self.player.policy() {
            policy.on_report(&record.shard, &record.report);
        }
    }

    /// Takes over where functions are to live.
    pub(crate) fn follow(&mut self, placements: &Arc<Placements>, now: Timestamp) {
        self.known.state.on_placements(&self.known.fleet.placements, placements, now);
        self.known.fleet.placements = Arc::clone(placements);
    }

    pub(crate) fn on_market(&mut self, record: &MarketRecord) {
        self.known.market = MarketSnapshot { volatility: record.volatility_bp, trend: record.trend_bp };
    }
}

/// An attempt that is out, as far as its router knows.
pub(crate) struct OutAttempt {
    pub(crate) shard: u16,
    pub(crate) sent_at: Timestamp,
    pub(crate) started: bool,
}

/// The eligible shard where the request is foreseen to be done first, congestion priced in.
fn foresee_best(
    context: &DecisionContext<'_>,
    lambda: f64,
    candidates: &mut Vec<usize>,
    world_position: &[u16],
    truth: &mut Truth<'_, '_>,
) -> Option<Decision> {
    eligible(context, &Rules::default(), candidates).ok()?;
    let cost = |position: &usize| {
        let foreseen = truth.foresee(world_position[*position]);
        let price_ms = congestion_ms(lambda, foreseen.exec_ms, foreseen.utilisation);
        (foreseen.latency_ms + price_ms, foreseen.latency_ms, *position)
    };
    let (_, latency_ms, chosen) = candidates.iter().map(cost).min_by(|a, b| a.0.total_cmp(&b.0))?;
    Some(Decision {
        predicted_ms: Some(latency_ms),
        decided_by: DecidedBy::Policy,
        ..Decision::by_rule(chosen, 1.0, candidates.len())
    })
}
