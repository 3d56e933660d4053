//! Who decides: the placer with and without trees, two policies, and tower's balancer as the peer.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::SeedableRng;
use shardwise_features::RouterState;
use shardwise_inference::{DecisionLog, LogConfig, LoggedDecision, Placer};
use shardwise_models::BundleDraft;
use shardwise_policies::{Decision, Policy, Runtime, by_name};
use shardwise_workload::{Stopwatch, Traffic, World, draft, in_flight, typical_rows};
use tower::balance::p2c::Balance;
use tower::discover::ServiceList;
use tower::load::{CompleteOnResponse, PeakEwma};
use tower::{Service, ServiceExt};


/// The peer's name in tables.
pub(crate) const TOWER: &str = "tower p2c peak-ewma";
const MODEL: &str = "placer, model";
const TABLE: &str = "placer, table alone";

const LOG: &str = "(log)";
const LOG_CANDIDATES: &str = "(log, candidates)";

/// The contenders, the peer last. In brackets: what it takes to log a decision, without and with its candidates.
pub(crate) const CONTENDERS: [&str; 7] = [MODEL, TABLE, "sed_tab", "peak_ewma_p2c", LOG, LOG_CANDIDATES, TOWER];

/// One thread's share of a contender.
pub(crate) trait Lane: Send {
    /// Places so many requests and times each decision.
    fn place(&mut self, count: usize, watch: &mut Stopwatch);
}

/// The lanes of a contender, one for each thread. Placer and router state are shared, all else is each lane's own.
pub(crate) fn lanes(name: &str, world: &Arc<World>, threads: usize) -> Vec<Box<dyn Lane>> {
    let router = Arc::new(RouterState::new());
    let placer = placer(name, world).map(Arc::new);
    let lane = |thread: usize| -> Box<dyn Lane> {
        let mut traffic = Traffic::new(world, &router, thread, threads);
        match (&placer, name) {
            (Some(placer), _) => {
                traffic.table = Some(Arc::clone(&world.table));
                Box::new(PlacerLane { placer: Arc::clone(placer), traffic })
            }
            (None, LOG) => Box::new(LogLane::new(traffic, 0.0)),
            (None, LOG_CANDIDATES) => Box::new(LogLane::new(traffic, 1.0)),
            (None, TOWER) => Box::new(TowerLane::new(world.fleet.shards.len(), threads)),
            (None, policy) => {
                let policy = by_name(policy, Runtime::default()).expect("a listed policy");
                Box::new(PolicyLane { policy, rng: StdRng::seed_from_u64(thread as u64), traffic })
            }
        }
    };
    (0..threads).map(lane).collect()
}

fn placer(name: &str, world: &Arc<World>) -> Option<Placer> {
    let draft = draft(&typical_rows(world), (*world.table).clone());
    let draft = match name {
        MODEL => draft,
        TABLE => BundleDraft { exec: None, cold: None, wait: None, ..draft },
        _ => return None,
    };
    Some(Placer::with_model(Arc::new(draft.bundle().expect("a sound draft"))))
}

struct PlacerLane {
    placer: Arc<Placer>,
    traffic: Traffic,
}

impl Lane for PlacerLane {
    fn place(&mut self, count: usize, watch: &mut Stopwatch) {
        for _ in 0..count {
            self.traffic.next();
            let context = self.traffic.context();
            watch.start();
            let prediction = black_box(self.placer.predict_optimal_shard(black_box(&context)));
            watch.stop();
            let chosen = prediction.expect("all shards are healthy").recommended_shard;
            let position = self.traffic.fleet.position(&chosen).expect("a shard of the fleet");
            self.traffic.dispatch(position, |_| ());
        }
    }
}

struct PolicyLane {
    policy: Box<dyn Policy>,
    rng: StdRng,
    traffic: Traffic,
}

impl Lane for PolicyLane {
    fn place(&mut self, count: usize, watch: &mut Stopwatch) {
        for _ in 0..count {
            self.traffic.next();
            let context = self.traffic.context();
            watch.start();
            let decision = black_box(self.policy.decide(black_box(&context), &mut self.rng));
            watch.stop();
            let position = decision.expect("all shards are healthy").chosen;
            self.traffic.dispatch(position, |observed| self.policy.on_response(observed));
        }
    }
}

/// Sends requests anywhere and logs them with all shards as candidates.
struct LogLane {
    log: DecisionLog,
    candidates: Vec<usize>,
    traffic: Traffic,
    logged: u64,
}

impl LogLane {
    fn new(mut traffic: Traffic, candidate_share: f64) -> Self {
        traffic.table = Some(Arc::clone(&traffic.world.table));
        let (router, router_region) = ("router-1".into(), traffic.fleet.router_region.clone());
        Self {
            log: DecisionLog::new(LogConfig { capacity: 64, router, router_region, candidate_share }),
            candidates: (0..traffic.fleet.shards.len()).collect(),
            traffic,
            logged: 0,
        }
    }
}

impl Lane for LogLane {
    fn place(&mut self, count: usize, watch: &mut Stopwatch) {
        for _ in 0..count {
            self.traffic.next();
            self.logged += 1;
            let position = (self.logged % self.candidates.len() as u64) as usize;
            let logged = LoggedDecision {
                decision_id: self.logged,
                sequence: self.logged,
                context: &self.traffic.context(),
                decision: &Decision::by_rule(position, 1.0, self.candidates.len()),
                policy: "shardwise",
                model_version: Some("0123456789abcdef"),
                candidates: &self.candidates,
            };
            watch.start();
            self.log.record(black_box(&logged));
            watch.stop();
            self.log.drain(1, |record| _ = black_box(record));
            self.traffic.dispatch(position, |_| ());
        }
    }
}

/// A shard that is always ready and answers at once, so that what is timed is the balancer.
struct Shard;

impl Service<usize> for Shard {
    type Response = usize;
    type Error = Infallible;
    type Future = Ready<Result<usize, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: usize) -> Self::Future {
        ready(Ok(request))
    }
}

type Balancer = Balance<ServiceList<Vec<PeakEwma<Shard>>>, usize>;

/// A balancer and a runtime of its own: tower's balancer is not shared between threads. Its dispatch is part of its
/// decision, and timed with it; as many calls are kept in flight as elsewhere.
struct TowerLane {
    runtime: tokio::runtime::Runtime,
    balancer: Balancer,
    in_flight: VecDeque<<Balancer as Service<usize>>::Future>,
    most_in_flight: usize,
}

impl TowerLane {
    fn new(shards: usize, threads: usize) -> Self {
        let (default_rtt, decay_ns) = (Duration::from_millis(30), 10e9);
        let services = (0..shards).map(|_| PeakEwma::new(Shard, default_rtt, decay_ns, CompleteOnResponse::default()));
        Self {
            runtime: tokio::runtime::Builder::new_current_thread().build().expect("a runtime without drivers"),
            balancer: Balance::new(ServiceList::new::<usize>(services.collect::<Vec<_>>())),
            in_flight: VecDeque::new(),
            most_in_flight: in_flight(shards, threads),
        }
    }
}

impl Lane for TowerLane {
    fn place(&mut self, count: usize, watch: &mut Stopwatch) {
        let Self { runtime, balancer, in_flight, most_in_flight } = self;
        runtime.block_on(async {
            for request in 0..count {
                watch.start();
                let answer = balancer.ready().await.expect("all shards are ready").call(request);
                watch.stop();
                in_flight.push_back(black_box(answer));
                if in_flight.len() > *most_in_flight
                    && let Some(oldest) = in_flight.pop_front()
                {
                    oldest.await.expect("shards do not fail");
                }
            }
        });
    }
}
