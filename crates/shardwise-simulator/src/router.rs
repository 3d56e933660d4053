//! A simulated router: the same state, snapshots and policy that a real one runs, fed in the same order.
//!
//! It sees only what reports, responses and the market tell it, never the world.

use rand_chacha::ChaCha8Rng;
use shardwise_features::{DecisionContext, DecisionFeatures, FeatureVector, RouterState, Ticket};
use shardwise_policies::{Decision, Observed, Policy, Rules, eligible};
use shardwise_types::{
    FleetSnapshot, MarketRecord, MarketSnapshot, PlacementRequest, ReportRecord, Response, ShardId, Timestamp,
};

use crate::engine::SimulationError;
use crate::streams::router_stream;
use crate::world::{RouterSpec, ShardSpec, WorldError, WorldSpec};

/// Bits of a decision id that count a router's decisions; the rest is the router.
const DECISION_BITS: u32 = 40;

pub(crate) struct SimRouter<'a> {
    pub(crate) spec: &'a RouterSpec,
    pub(crate) policy: Box<dyn Policy>,
    index: u64,
    shards: &'a [ShardSpec],
    state: RouterState,
    fleet: FleetSnapshot,
    market: MarketSnapshot,
    rng: ChaCha8Rng,
    decisions: u64,
    /// Position in the world of each shard of the fleet snapshot.
    world_position: Vec<u16>,
    candidates: Vec<usize>,
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
}

impl<'a> SimRouter<'a> {
    pub(crate) fn new(
        world: &'a WorldSpec,
        index: usize,
        policy: Box<dyn Policy>,
        seed: u64,
    ) -> Result<Self, WorldError> {
        let spec = &world.routers[index];
        Ok(Self {
            spec,
            policy,
            index: index as u64,
            shards: &world.shards,
            state: RouterState::new(),
            fleet: FleetSnapshot::new(Vec::new(), world.network.clone(), spec.region.clone())?,
            market: MarketSnapshot::default(),
            rng: router_stream(seed, index as u64),
            decisions: 0,
            world_position: Vec::new(),
            candidates: Vec::new(),
        })
    }

    /// Decides and dispatches; `None` when the policy refuses. `wants_features` is asked with the decision's id.
    pub(crate) fn place(
        &mut self,
        request: &PlacementRequest,
        at: Timestamp,
        wants_features: &dyn Fn(u64) -> bool,
    ) -> Result<Option<Placement>, SimulationError> {
        let table = self.policy.service_table();
        let context = DecisionContext {
            request,
            decided_at: at,
            fleet: &self.fleet,
            router: &self.state,
            market: &self.market,
            service_table: table.as_deref(),
        };
        let Ok(decision) = self.policy.decide(&context, &mut self.rng) else { return Ok(None) };
        let Some(shard) = self.world_position.get(decision.chosen).copied() else {
            return Err(SimulationError::NoSuchShard {
                policy: self.policy.name().to_owned(),
                chosen: decision.chosen,
                shards: self.world_position.len(),
            });
        };
        self.decisions += 1;
        let decision_id = (self.index << DECISION_BITS) + self.decisions;
        let (mut logged_shards, mut logged_features) = (Vec::new(), Vec::new());
        if wants_features(decision_id) && eligible(&context, &Rules::default(), &mut self.candidates).is_ok() {
            let features = DecisionFeatures::new(&context);
            for position in &self.candidates {
                logged_shards.push(self.fleet.shards[*position].id.clone());
                logged_features.extend_from_slice(FeatureVector::extract(&features, *position).as_slice());
            }
        }
        let ticket = self.state.on_dispatch(&context, decision.chosen);
        Ok(Some(Placement { decision_id, decision, ticket, shard, logged_shards, logged_features }))
    }

    pub(crate) fn on_response(&mut self, shard: u16, ticket: &Ticket, response: &Response, known_at: Timestamp) {
        self.state.on_response(ticket, response, known_at);
        let shard = &self.shards[usize::from(shard)].id;
        self.policy.on_response(&Observed { shard, ticket, response, known_at });
    }

    pub(crate) fn on_report(&mut self, record: &ReportRecord) {
        self.fleet.apply_report(record);
        if self.fleet.shards.len() != self.world_position.len() {
            let position = |id: &ShardId| self.shards.iter().position(|shard| shard.id == *id);
            let positions =
                self.fleet.shards.iter().map(|known| position(&known.id).expect("the world's shards report"));
            self.world_position = positions.map(|position| position as u16).collect();
        }
        self.state.on_report(&record.shard);
        self.policy.on_report(&record.shard, &record.report);
    }

    pub(crate) fn on_market(&mut self, record: &MarketRecord) {
        self.market = MarketSnapshot { volatility: record.volatility_bp, trend: record.trend_bp };
    }
}
