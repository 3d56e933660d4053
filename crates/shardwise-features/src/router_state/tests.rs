//! Claims about a router's memory.

use super::*;
use crate::golden;
use shardwise_types::ErrorClass;

use crate::golden::GoldenContext;

pub(super) const OK: Response =
    Response { error: None, total_ms: 12.0, exec_ms: 10.0, queue_ms: 1.0, queue_len: 3, cold: false };

/// A router in the golden fleet of three, and a clock that starts at the beginning of a generation.
pub(super) struct Bench {
    pub(super) state: RouterState,
    golden: GoldenContext,
}

impl Bench {
    pub(super) fn with(state: RouterState) -> Self {
        Self { state, golden: golden::contexts().remove(0) }
    }

    pub(super) fn at(&self, ms: f64) -> Timestamp {
        Timestamp::from_nanos(1_767_600_000_000_000_000).plus_millis(ms)
    }

    pub(super) fn id(&self, shard: usize) -> ShardId {
        self.golden.fleet.shards[shard].id.clone()
    }

    pub(super) fn send(&self, shard: usize, at_ms: f64) -> Ticket {
        let context = DecisionContext { router: &self.state, decided_at: self.at(at_ms), ..self.golden.context() };
        self.state.on_dispatch(&context, shard)
    }

    pub(super) fn answer(&self, ticket: &Ticket, error: Option<ErrorClass>, at_ms: f64) {
        self.state.on_response(ticket, &Response { error, ..OK }, self.at(at_ms));
    }

    #[cfg(not(loom))]
    pub(super) fn in_flight(&self, shard: usize, at_ms: f64) -> f64 {
        self.state.in_flight(&self.id(shard), self.at(at_ms))
    }
}

/// A linear congruential generator: enough chance for a test, the same everywhere.
pub(super) struct Lcg(pub(super) u64);

impl Lcg {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn after(responses: &[Response]) -> (RouterState, ShardId, Timestamp) {
    let golden = golden::contexts().remove(0);
    let (state, context) = (RouterState::new(), golden.context());
    let id = context.fleet.shards[0].id.clone();
    for response in responses {
        let context = DecisionContext { router: &state, ..context };
        let ticket = state.on_dispatch(&context, 0);
        state.on_response(&ticket, response, context.decided_at);
    }
    let now = context.decided_at;
    (state, id, now)
}

#[test]
fn what_was_sent_is_in_flight_until_it_comes_back() {
    let golden = golden::contexts().remove(0);
    let (state, context) = (RouterState::new(), golden.context());
    let context = DecisionContext { router: &state, ..context };
    let tickets: Vec<_> = (0..3).map(|_| state.on_dispatch(&context, 0)).collect();
    let id = &context.fleet.shards[0].id;
    assert_eq!(state.shard(id, context.decided_at).in_flight, 3.0);
    assert!(state.shard(id, context.decided_at).pending_ms > 0.0);
    tickets.iter().for_each(|ticket| state.on_response(ticket, &OK, context.decided_at));
    let local = state.shard(id, context.decided_at);
    assert_eq!((local.in_flight, local.in_flight_cores, local.pending_ms), (0.0, 0.0, 0.0));
}

#[test]
fn repeated_times_are_learned() {
    let (state, id, now) = after(&[OK; 200]);
    let golden = golden::contexts().remove(0);
    let expected = state.online_service_ln_ms(golden.context().request, &id).unwrap();
    assert!((expected.exp() - 10.0).abs() < 0.1, "{}", expected.exp());
    assert!((state.shard(&id, now).residual).abs() < 0.01);
}

#[test]
fn one_failure_by_chance_exiles_no_shard_and_many_are_forgotten_in_time() {
    let failed = Response { error: Some(ErrorClass::Failed), ..OK };
    let (state, id, now) = after(&[failed]);
    assert!(state.shard(&id, now).error_rate < 0.01);
    let (state, id, now) = after(&[failed, OK, failed, failed, OK, failed, failed, OK, failed, failed]);
    assert!(state.shard(&id, now).error_rate > 0.05);
    assert!(state.shard(&id, now.plus_millis(30_000.0)).error_rate < 0.005);
}

#[test]
fn how_long_requests_are_out_is_known() {
    let golden = golden::contexts().remove(0);
    let (state, context) = (RouterState::new(), golden.context());
    let context = DecisionContext { router: &state, ..context };
    let later = DecisionContext { decided_at: context.decided_at.plus_millis(30.0), ..context };
    let first = state.on_dispatch(&context, 0);
    state.on_dispatch(&later, 0);
    let (id, now) = (&context.fleet.shards[0].id, context.decided_at.plus_millis(50.0));
    let age_ms = || state.shard(id, now).in_flight_age_ms(now);
    assert_eq!(age_ms(), Some(35.0), "50 and 20");
    state.on_response(&first, &OK, now);
    assert_eq!(age_ms(), Some(20.0));
    assert_eq!(state.dispatches_since(context.request, id), Some(1.0));
}

#[test]
fn four_threads_leave_nothing_in_flight() {
    const SHARDS: usize = 8;
    let golden = golden::contexts().remove(0);
    let mut fleet = golden.fleet.clone();
    fleet.shards = (0..SHARDS)
        .map(|n| shardwise_types::ShardSnapshot {
            id: ShardId::new(&format!("shard-{n}")),
            ..fleet.shards[n % 3].clone()
        })
        .collect();
    let state = RouterState::new();
    let work = |seed: u64| {
        let (mut random, mut out) = (Lcg(seed), Vec::new());
        for step in 0..100_000_u32 {
            let now = golden.decided_at.plus_millis(f64::from(step) / 10.0);
            let context = DecisionContext { router: &state, fleet: &fleet, decided_at: now, ..golden.context() };
            out.push(state.on_dispatch(&context, random.below(SHARDS as u64) as usize));
            if out.len() > 8 || random.below(2) == 0 {
                let error = (random.below(3) == 0).then_some(ErrorClass::Failed);
                let ticket = out.swap_remove(random.below(out.len() as u64) as usize);
                state.on_response(&ticket, &Response { error, ..OK }, now);
            }
            if random.below(100) == 0 {
                state.on_report(&fleet.shards[random.below(SHARDS as u64) as usize].id, now);
            }
        }
        out.iter().for_each(|ticket| state.on_response(ticket, &OK, golden.decided_at.plus_millis(10_000.0)));
    };
    std::thread::scope(|scope| (0..4).for_each(|seed| drop(scope.spawn(move || work(seed)))));
    for shard in &fleet.shards {
        let local = state.shard(&shard.id, golden.decided_at.plus_millis(10_000.0));
        assert_eq!((local.in_flight, local.in_flight_cores, local.pending_ms), (0.0, 0.0, 0.0));
        assert_eq!(local.in_flight_age_ms(golden.decided_at), None);
    }
    assert_eq!(state.lost(), 0);
}

#[test]
fn threads_that_lose_outcomes_leave_nothing_in_flight_either() {
    const LOST_AFTER_MS: f64 = 10.0;
    let config = RouterConfig { lost_after_ms: LOST_AFTER_MS, ..RouterConfig::default() };
    let bench = Bench::with(RouterState::with_config(config));
    let never_answered = std::sync::atomic::AtomicU64::new(0);
    let work = |seed: u64| {
        let (mut random, mut out) = (Lcg(seed), Vec::new());
        for step in 0..20_000 {
            let at_ms = f64::from(step) / 10.0;
            out.push(bench.send(random.below(3) as usize, at_ms));
            // Some are kept until they are lost, and are answered then; some never are.
            let ticket = out.swap_remove(random.below(out.len() as u64) as usize);
            match random.below(4) {
                0 => _ = never_answered.fetch_add(1, Relaxed),
                1 => out.push(ticket),
                _ => bench.answer(&ticket, None, at_ms),
            }
        }
        never_answered.fetch_add(out.len() as u64, Relaxed);
    };
    std::thread::scope(|scope| (0..4).for_each(|seed| drop(scope.spawn(move || work(seed)))));
    let end_ms = 2_000.0 + 2.0 * LOST_AFTER_MS;
    for shard in 0..3 {
        bench.state.on_report(&bench.id(shard), bench.at(end_ms));
        let local = bench.state.shard(&bench.id(shard), bench.at(end_ms));
        assert_eq!((local.in_flight, local.in_flight_cores, local.pending_ms), (0.0, 0.0, 0.0));
    }
    assert!(bench.state.lost() >= never_answered.load(Relaxed), "each of them is lost, and some that were late");
}

#[test]
fn threads_may_share_a_router() {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<RouterState>();
}

#[test]
fn a_shard_that_reported_once_is_given_time_for_its_second_report() {
    let golden = golden::contexts().remove(1);
    let (state, id) = (RouterState::new(), golden.fleet.shards[0].id.clone());
    assert_eq!(state.report_gap_ms(&id), 0.0, "it never reported");
    state.on_report(&id, golden.decided_at);
    assert_eq!(state.report_gap_ms(&id), 10_000.0, "nobody knows yet how often it will");
    state.on_report(&id, golden.decided_at.plus_millis(500.0));
    assert_eq!(state.report_gap_ms(&id), 500.0);
}
