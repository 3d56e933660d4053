//! The traffic of one thread: requests that come, are sent and are answered some time later.

use std::collections::VecDeque;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use shardwise_features::{DecisionContext, DecisionFeatures, FeatureVector, RouterState, ServiceTable, Ticket};
use shardwise_policies::Observed;
use shardwise_types::{FleetSnapshot, MarketSnapshot, PlacementRequest, Timestamp};

use crate::forests::Row;
use crate::world::{World, refresh, response};

/// Decisions between two reports of all shards.
const REPORT_EVERY: u64 = 500;
/// From dispatch to response, about.
const RESPONSE_MS: f64 = 20.0;

/// One thread's requests, its view of the fleet, and what it waits for.
pub struct Traffic {
    /// Where it places.
    pub world: Arc<World>,
    /// What the router saw.
    pub router: Arc<RouterState>,
    /// As the router sees it.
    pub fleet: FleetSnapshot,
    /// The table of the policy, for the context.
    pub table: Option<Arc<ServiceTable>>,
    requests: Vec<PlacementRequest>,
    market: MarketSnapshot,
    rng: StdRng,
    asked: usize,
    count: u64,
    now: Timestamp,
    in_flight: VecDeque<Sent>,
    most_in_flight: usize,
}

struct Sent {
    function: usize,
    position: usize,
    ticket: Ticket,
}

/// Requests that are in flight on so many shards, placed by one of so many threads: about 60 % of the cores.
pub fn in_flight(shards: usize, threads: usize) -> usize {
    shards * 7 / 5 / threads
}

impl Traffic {
    /// The traffic of one of so many threads.
    pub fn new(world: &Arc<World>, router: &Arc<RouterState>, thread: usize, threads: usize) -> Self {
        Self {
            router: Arc::clone(router),
            fleet: world.fleet.clone(),
            table: None,
            requests: world.requests.clone(),
            market: MarketSnapshot { volatility: Some(7.5), trend: Some(-30.0) },
            rng: StdRng::seed_from_u64(thread as u64),
            asked: 0,
            count: 0,
            now: world.start,
            in_flight: VecDeque::new(),
            most_in_flight: in_flight(world.fleet.shards.len(), threads),
            world: Arc::clone(world),
        }
    }

    /// Lets time pass until the next request.
    pub fn next(&mut self) {
        self.now = self.now.plus_millis(RESPONSE_MS / self.most_in_flight as f64);
        self.count += 1;
        if self.count.is_multiple_of(REPORT_EVERY) {
            refresh(&mut self.fleet, self.now);
        }
        self.asked = self.world.draw(&mut self.rng);
        self.requests[self.asked].event_at = self.now;
    }

    /// The context of the request that came last.
    pub fn context(&self) -> DecisionContext<'_> {
        DecisionContext {
            request: &self.requests[self.asked],
            decided_at: self.now,
            fleet: &self.fleet,
            router: &self.router,
            market: &self.market,
            service_table: self.table.as_deref(),
        }
    }

    /// Sends the request off; when enough are in flight, the oldest is answered.
    pub fn dispatch(&mut self, position: usize, learn: impl FnOnce(&Observed<'_>)) {
        let ticket = self.router.on_dispatch(&self.context(), position);
        self.in_flight.push_back(Sent { function: self.asked, position, ticket });
        if self.in_flight.len() <= self.most_in_flight {
            return;
        }
        let Some(sent) = self.in_flight.pop_front() else { return };
        let (request, shard) = (&self.requests[sent.function], &self.fleet.shards[sent.position]);
        let response = response(request, shard, &mut self.rng);
        self.router.on_response(&sent.ticket, &response, self.now);
        let (ticket, response) = (&sent.ticket, &response);
        learn(&Observed { request, shard: &shard.id, ticket, response, known_at: self.now });
    }
}

/// Rows of features as they come up in this world, for the trees to split.
pub fn typical_rows(world: &Arc<World>) -> Vec<Row> {
    let (mut traffic, mut rng) = (Traffic::new(world, &Arc::default(), 0, 1), StdRng::seed_from_u64(9));
    traffic.table = Some(Arc::clone(&world.table));
    let mut rows = Vec::new();
    for _ in 0..2_000 {
        traffic.next();
        let position = rng.random_range(0..world.fleet.shards.len());
        rows.push(FeatureVector::extract(&DecisionFeatures::new(&traffic.context()), position).into_array());
        traffic.dispatch(position, |_| ());
    }
    rows
}
