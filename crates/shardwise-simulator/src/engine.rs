//! The event loop: requests travel, queue, run, call exchanges and come back; reports and market news arrive late.
//!
//! Time is integer nanoseconds, events are ordered by (time, sequence), and everything random about a request, a
//! shard or a report has a stream of its own, so that runs repeat exactly and compare under common random numbers.
//!
//! ```text
//! router decides ─ rtt/2 ─▶ queue (FCFS, c cores) ─▶ core: loading + execution ─▶ exchange calls × rtt, off the core
//!       ▲                                                                                  │
//!       └────────────── rtt/2 ◀─────────────────────────────────────────────────────────────┘
//! ```
//! Arrivals and client timeouts need no heap: both come in the order of arrival.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::ControlFlow;

use rand::RngExt;
use rand_distr::{Exp1, StandardNormal};
use shardwise_features::Ticket;
use shardwise_policies::Policy;
use shardwise_types::{
    DecisionRecord, ErrorClass, HistoryRecord, OutcomeRecord, ReportRecord, Response, ShardReport, Timestamp,
};

use crate::recorder::Recorder;
use crate::router::{Placement, SimRouter};
use crate::shard::{Shard, SimTime, millis, nanos};
use crate::streams::{Purpose, stream};
use crate::summary::{RunFacts, RunSummary, Tally};
use crate::tables::{Slots, Tables};
use crate::workload::{Arrival, Workload};
use crate::world::{ServiceNoise, WorldError, WorldSpec};

/// Core time of a request that fails at once, in ms.
const FAIL_FAST_MS: f64 = 0.2;

/// A run that cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SimulationError {
    /// The world is not sound.
    #[error(transparent)]
    World(#[from] WorldError),
    /// Policies and routers must pair up.
    #[error("{policies} policies for {routers} routers; give one for each")]
    Policies {
        /// Policies given.
        policies: usize,
        /// Routers of the world.
        routers: usize,
    },
    /// The workload is not one of this world's, or not in the order of time.
    #[error("workload: arrival {index} {problem}; generate the workload from this world")]
    Workload {
        /// Which arrival.
        index: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// A policy named a position outside the fleet.
    #[error("policy '{policy}' chose position {chosen} of a fleet of {shards}; this is a bug in the policy")]
    NoSuchShard {
        /// The policy's name.
        policy: String,
        /// What it chose.
        chosen: usize,
        /// Shards that its router knows.
        shards: usize,
    },
}

/// How a run is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SimulateOptions {
    /// Share of the workload's time that is played but not measured.
    pub warm_up: f64,
}

impl Default for SimulateOptions {
    fn default() -> Self {
        Self { warm_up: 0.1 }
    }
}

/// Plays a workload to one policy per router in a world; a tenth of the time is warm-up and not measured.
///
/// # Errors
/// When the world, the workload or the number of policies is wrong, or a policy names no shard of the fleet.
///
/// ```
/// use shardwise_simulator::{FleetOptions, NoRecorder, Workload, WorkloadOptions, WorldSpec, simulate};
///
/// let world = WorldSpec::generate(1, &FleetOptions::default());
/// let options = WorkloadOptions::new("2026-01-05T12:00:00Z".parse()?, 2_000.0, 0.6);
/// let workload = Workload::generate(&world, 1, &options)?;
/// let policy = Box::new(shardwise_policies::LeastInFlight::default());
/// let summary = simulate(&world, &workload, 1, vec![policy], &mut NoRecorder)?;
/// assert_eq!(summary.counts.arrivals, workload.arrivals.len() as u64);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn simulate(
    world: &WorldSpec,
    workload: &Workload,
    seed: u64,
    policies: Vec<Box<dyn Policy>>,
    recorder: &mut dyn Recorder,
) -> Result<RunSummary, SimulationError> {
    simulate_with(world, workload, seed, policies, recorder, &SimulateOptions::default())
}

/// As [`simulate`], with options.
///
/// # Errors
/// As [`simulate`].
pub fn simulate_with(
    world: &WorldSpec,
    workload: &Workload,
    seed: u64,
    policies: Vec<Box<dyn Policy>>,
    recorder: &mut dyn Recorder,
    options: &SimulateOptions,
) -> Result<RunSummary, SimulationError> {
    world.check()?;
    check_workload(world, workload)?;
    if policies.len() != world.routers.len() {
        return Err(SimulationError::Policies { policies: policies.len(), routers: world.routers.len() });
    }
    let mut simulation = Simulation::new(world, workload, seed, policies, recorder, options)?;
    // An interrupted run is not a failed one.
    let _ = simulation.begin();
    simulation.run()?;
    Ok(simulation.summarise())
}

fn check_workload(world: &WorldSpec, workload: &Workload) -> Result<(), SimulationError> {
    let mut before = workload.start;
    for (index, arrival) in workload.arrivals.iter().enumerate() {
        let problem = if arrival.at < before {
            "comes before the one before it, or before the start"
        } else if arrival.at > workload.end {
            "comes after the end"
        } else if arrival.function as usize >= world.functions.len() {
            "asks for a function that the world does not have"
        } else if arrival.router as usize >= world.routers.len() {
            "reaches a router that the world does not have"
        } else {
            before = arrival.at;
            continue;
        };
        return Err(SimulationError::Workload { index, problem });
    }
    Ok(())
}

/// What happens; numbers are slots of requests in flight, shards, or slots of reports under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A request reaches its shard.
    Reach(u32),
    /// It leaves the core.
    LeaveCore(u32),
    /// Its exchange calls are done and the shard answers.
    Answer(u32),
    /// The answer reaches the router.
    Response(u32),
    /// A shard measures itself.
    Measure(u32),
    /// A report reaches the routers.
    Report(u32),
    /// The next market record reaches the routers.
    Market,
    /// Arrivals end; use of the fleet is measured until here.
    End,
}

/// A request between dispatch and the end of the work it causes, which may be after the router gave up.
struct InFlight {
    arrival: u32,
    shard: u16,
    cold: bool,
    failed: bool,
    given_up: bool,
    queue_len: u32,
    exec_ms: f32,
    decision_id: u64,
    ticket: Ticket,
    reached: SimTime,
    started: SimTime,
    answered: SimTime,
}

/// Everything random about a request's execution, from its own stream.
struct ServiceDraws {
    noise: f64,
    failure: f64,
}

/// Marks an arrival that needs no more attention.
const SETTLED: u32 = u32::MAX;

struct Simulation<'a> {
    world: &'a WorldSpec,
    workload: &'a Workload,
    seed: u64,
    tables: Tables,
    shards: Vec<Shard<'a>>,
    routers: Vec<SimRouter<'a>>,
    recorder: &'a mut dyn Recorder,
    records: bool,
    events: BinaryHeap<Reverse<(SimTime, u64, Event)>>,
    event_sequence: u64,
    record_sequence: u64,
    now: SimTime,
    timeout: u64,
    next_arrival: usize,
    /// First arrival whose timeout has not been looked at.
    next_timeout: usize,
    next_market: usize,
    measured_from: usize,
    in_flight: Slots<InFlight>,
    /// Slot of each arrival that is on its way, else [`SETTLED`].
    slot_of: Vec<u32>,
    unsettled: usize,
    ended: bool,
    interrupted: bool,
    reports: Slots<ReportRecord>,
    report_counts: Vec<u64>,
    tally: Tally,
}

/// Something to go on, or a recorder that has enough.
type Flow = ControlFlow<()>;

impl<'a> Simulation<'a> {
    fn new(
        world: &'a WorldSpec,
        workload: &'a Workload,
        seed: u64,
        policies: Vec<Box<dyn Policy>>,
        recorder: &'a mut dyn Recorder,
        options: &SimulateOptions,
    ) -> Result<Self, SimulationError> {
        let arrivals = workload.arrivals.len();
        let measured_at = workload.start.plus_millis(options.warm_up * workload.end.millis_since(workload.start));
        let measured_from = workload.arrivals.partition_point(|arrival| arrival.at < measured_at);
        let shard = |(index, spec)| Shard::new(spec, world, seed, index, nanos(workload.elapsed_ms));
        let router = |(index, policy)| SimRouter::new(world, index, policy, seed);
        Ok(Self {
            world,
            workload,
            seed,
            tables: Tables::new(world),
            shards: world.shards.iter().enumerate().map(shard).collect(),
            routers: policies.into_iter().enumerate().map(router).collect::<Result<_, _>>()?,
            records: recorder.wants_history(),
            recorder,
            events: BinaryHeap::with_capacity(1024),
            event_sequence: 0,
            record_sequence: 0,
            now: 0,
            timeout: nanos(world.timing.timeout_ms),
            next_arrival: 0,
            next_timeout: 0,
            next_market: 0,
            measured_from,
            in_flight: Slots::new(),
            slot_of: vec![SETTLED; arrivals],
            unsettled: 0,
            ended: false,
            interrupted: false,
            reports: Slots::new(),
            report_counts: vec![0; world.shards.len()],
            tally: Tally::new(arrivals, measured_from, world.timing.timeout_ms),
        })
    }

    /// What is known at the start: market news from before, and every shard's first report.
    fn begin(&mut self) -> Flow {
        while self.market_at(self.next_market).is_some_and(|at| at == 0) {
            self.interruptible(Self::tell_market)?;
        }
        self.schedule_market();
        let interval = nanos(self.world.timing.report_interval_ms);
        let shards = self.shards.len() as u64;
        for shard in 0..self.shards.len() {
            let offset = interval * (2 * shard as u64 + 1) / (2 * shards);
            self.schedule(offset, Event::Measure(shard as u32));
            let mut report = self.measure(shard);
            report.event_at = self.workload.start.plus_millis(-self.world.timing.report_delay_ms);
            let record = self.report_record(shard, report);
            self.interruptible(|simulation| simulation.tell_report(record))?;
        }
        self.schedule(self.since_start(self.workload.end), Event::End);
        if self.measured_from == 0 {
            self.tally.busy_ns[0] = self.busy_ns();
        }
        ControlFlow::Continue(())
    }

    fn interruptible(&mut self, step: impl FnOnce(&mut Self) -> Flow) -> Flow {
        let flow = step(self);
        self.interrupted |= flow.is_break();
        flow
    }

    fn run(&mut self) -> Result<(), SimulationError> {
        while !self.interrupted && !self.is_over() {
            let arrival = self.workload.arrivals.get(self.next_arrival).map(|arrival| self.since_start(arrival.at));
            let timeout = self.next_deadline();
            let event = self.events.peek().map_or(SimTime::MAX, |Reverse((time, ..))| *time);
            let arrival = arrival.unwrap_or(SimTime::MAX);
            // On a tie a client gives up before the answer is there, and news is read before a decision.
            let flow = if timeout <= event && timeout <= arrival {
                self.now = timeout;
                self.give_up()
            } else if event <= arrival {
                let Reverse((time, _, event)) = self.events.pop().expect("it was just looked at");
                self.now = time;
                self.handle(event)
            } else {
                self.now = arrival;
                self.arrive()?
            };
            self.interrupted |= flow.is_break();
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.ended && self.unsettled == 0 && self.next_arrival == self.workload.arrivals.len()
    }

    fn handle(&mut self, event: Event) -> Flow {
        match event {
            Event::Reach(slot) => self.reach(slot),
            Event::LeaveCore(slot) => self.leave_core(slot),
            Event::Answer(slot) => self.answer(slot),
            Event::Response(slot) => return self.respond(slot),
            Event::Measure(shard) => self.send_report(shard as usize),
            Event::Report(slot) => {
                let record = self.reports.take(slot);
                return self.tell_report(record);
            }
            Event::Market => {
                let flow = self.tell_market();
                self.schedule_market();
                return flow;
            }
            Event::End => {
                self.ended = true;
                self.tally.busy_ns[1] = self.busy_ns();
            }
        }
        ControlFlow::Continue(())
    }

    // ── requests ──

    fn arrive(&mut self) -> Result<Flow, SimulationError> {
        let index = self.next_arrival;
        self.next_arrival += 1;
        if index == self.measured_from {
            self.tally.busy_ns[0] = self.busy_ns();
        }
        self.tally.counts.arrivals += 1;
        let workload = self.workload;
        let arrival = &workload.arrivals[index];
        let router = &mut self.routers[arrival.router as usize];
        let (records, recorder) = (self.records, &*self.recorder);
        let placed = router.place(&arrival.request, arrival.at, &|id| records && recorder.wants_features(id))?;
        let Some(placement) = placed else {
            self.tally.counts.refused += 1;
            self.tally.settle(index, None, arrival.request.urgency.objective_ms());
            return Ok(ControlFlow::Continue(()));
        };
        self.dispatch(index, arrival, &placement);
        if self.records { Ok(self.record_decision(arrival, placement)) } else { Ok(ControlFlow::Continue(())) }
    }

    fn dispatch(&mut self, index: usize, arrival: &Arrival, placement: &Placement) {
        let slot = self.in_flight.put(InFlight {
            arrival: index as u32,
            shard: placement.shard,
            cold: false,
            failed: false,
            given_up: false,
            queue_len: 0,
            exec_ms: 0.0,
            decision_id: placement.decision_id,
            ticket: placement.ticket,
            reached: 0,
            started: 0,
            answered: 0,
        });
        self.slot_of[index] = slot;
        self.unsettled += 1;
        let travel = self.tables.half_rtt(arrival.router as usize, placement.shard);
        self.schedule(self.now + travel, Event::Reach(slot));
    }

    fn reach(&mut self, slot: u32) {
        let request = &mut self.in_flight[slot];
        request.reached = self.now;
        let shard = usize::from(request.shard);
        if self.shards[shard].has_free_core() {
            self.start(slot);
        } else {
            self.shards[shard].enqueue(slot);
        }
    }

    fn start(&mut self, slot: u32) {
        let request = &mut self.in_flight[slot];
        let arrival = &self.workload.arrivals[request.arrival as usize];
        let function = &self.world.functions[arrival.function as usize];
        let shard = &mut self.shards[usize::from(request.shard)];
        let draws = service_draws(self.world, self.seed, request.arrival, function.log_sd);
        let fails_fast = draws.failure < shard.failing_share(self.now);
        let slowdown = shard.slowdown(self.now, function.resource);
        let cold = shard.begin(self.now, arrival.function);
        let warm_ms = self.tables.base_ms(request.shard, arrival.function)
            * complexity_factor(arrival.request.data_complexity, function.complexity_exponent)
            * draws.noise
            * slowdown;
        let exec_ms = match fails_fast {
            true => FAIL_FAST_MS,
            false => warm_ms + if cold { function.load_ms } else { 0.0 },
        };
        request.failed = fails_fast || draws.failure > 1.0 - self.world.timing.failure_rate;
        (request.cold, request.exec_ms, request.started) = (cold, exec_ms as f32, self.now);
        self.tally.count_execution(request.arrival as usize, cold);
        self.schedule(self.now + nanos(exec_ms), Event::LeaveCore(slot));
    }

    fn leave_core(&mut self, slot: u32) {
        let request = &self.in_flight[slot];
        let (shard, failed) = (request.shard, request.failed);
        let arrival = &self.workload.arrivals[request.arrival as usize];
        self.shards[usize::from(shard)].finish(self.now, arrival.function);
        self.start_next(usize::from(shard));
        let calls = u64::from(if failed { 0 } else { arrival.request.exchange_calls });
        let waits = calls * if calls > 0 { self.tables.exchange_rtt(shard, &arrival.request.exchange) } else { 0 };
        if waits > 0 {
            self.schedule(self.now + waits, Event::Answer(slot));
        } else {
            self.answer(slot);
        }
    }

    /// Gives the free core to the first waiting request whose time is not up.
    fn start_next(&mut self, shard: usize) {
        while let Some(slot) = self.shards[shard].dequeue() {
            let (arrival, reached) = (self.in_flight[slot].arrival as usize, self.in_flight[slot].reached);
            if self.now < self.deadline(arrival) {
                return self.start(slot);
            }
            // Its router has given up: deadlines come before events of the same instant.
            self.shards[shard].count_answer(millis(self.now - reached), true);
            self.tally.counts.dropped += 1;
            self.in_flight.take(slot);
        }
    }

    fn answer(&mut self, slot: u32) {
        let request = &mut self.in_flight[slot];
        let shard = &mut self.shards[usize::from(request.shard)];
        (request.answered, request.queue_len) = (self.now, shard.occupancy());
        shard.count_answer(millis(self.now - request.reached), request.failed);
        let router = self.workload.arrivals[request.arrival as usize].router as usize;
        let travel = self.tables.half_rtt(router, request.shard);
        self.schedule(self.now + travel, Event::Response(slot));
    }

    fn respond(&mut self, slot: u32) -> Flow {
        let request = self.in_flight.take(slot);
        if request.given_up {
            return ControlFlow::Continue(());
        }
        let total_ms = millis(self.now - self.since_start(self.workload.arrivals[request.arrival as usize].at)) as f32;
        let response = Response {
            error: request.failed.then_some(ErrorClass::Failed),
            total_ms,
            exec_ms: request.exec_ms,
            queue_ms: millis(request.started - request.reached) as f32,
            queue_len: request.queue_len,
            cold: request.cold,
        };
        let counts = &mut self.tally.counts;
        *(if request.failed { &mut counts.failed } else { &mut counts.completed }) += 1;
        self.settle(&request, &response, self.at(request.answered))
    }

    /// The router gives up on the arrival whose deadline it is.
    fn give_up(&mut self) -> Flow {
        let slot = self.slot_of[self.next_timeout];
        self.in_flight[slot].given_up = true;
        let (arrival, shard) = (self.in_flight[slot].arrival, self.in_flight[slot].shard);
        let (decision_id, ticket) = (self.in_flight[slot].decision_id, self.in_flight[slot].ticket);
        let response = Response {
            error: Some(ErrorClass::Timeout),
            total_ms: self.world.timing.timeout_ms as f32,
            exec_ms: 0.0,
            queue_ms: 0.0,
            queue_len: 0,
            cold: false,
        };
        self.tally.counts.timeouts += 1;
        self.close(arrival, shard, decision_id, &ticket, &response, self.at(self.now))
    }

    fn settle(&mut self, request: &InFlight, response: &Response, event_at: Timestamp) -> Flow {
        self.close(request.arrival, request.shard, request.decision_id, &request.ticket, response, event_at)
    }

    fn close(
        &mut self,
        arrival: u32,
        shard: u16,
        decision_id: u64,
        ticket: &Ticket,
        response: &Response,
        event_at: Timestamp,
    ) -> Flow {
        let index = arrival as usize;
        let arrival = &self.workload.arrivals[index];
        self.slot_of[index] = SETTLED;
        self.unsettled -= 1;
        self.tally.settle(index, response.is_ok().then_some(response.total_ms), arrival.request.urgency.objective_ms());
        let known_at = self.at(self.now);
        let router = &mut self.routers[arrival.router as usize];
        router.on_response(shard, ticket, response, known_at);
        if !self.records {
            return ControlFlow::Continue(());
        }
        let router = router.spec.id.clone();
        let sequence = self.next_record();
        let record = OutcomeRecord { decision_id, sequence, event_at, known_at, router, response: *response };
        self.recorder.record(HistoryRecord::Outcome(record))
    }

    fn record_decision(&mut self, arrival: &Arrival, placement: Placement) -> Flow {
        let sequence = self.next_record();
        let router = &self.routers[arrival.router as usize];
        let decision = placement.decision;
        let record = DecisionRecord {
            decision_id: placement.decision_id,
            sequence,
            known_at: arrival.at,
            router: router.spec.id.clone(),
            router_region: router.spec.region.clone(),
            request: arrival.request.clone(),
            shard: self.world.shards[usize::from(placement.shard)].id.clone(),
            propensity: decision.propensity,
            eligible: decision.eligible,
            predicted_ms: decision.predicted_ms,
            policy: router.policy.name().to_owned(),
            decided_by: decision.decided_by,
            fallback_reason: decision.fallback_reason,
            model_version: router.policy.model_version().map(str::to_owned),
            logged_shards: placement.logged_shards,
            logged_features: placement.logged_features,
        };
        self.recorder.record(HistoryRecord::Decision(Box::new(record)))
    }

    // ── reports and market ──

    /// A shard measures itself, and the report sets out unless it is lost.
    fn send_report(&mut self, shard: usize) {
        let timing = &self.world.timing;
        self.schedule(self.now + nanos(timing.report_interval_ms), Event::Measure(shard as u32));
        let mut report = self.measure(shard);
        let count = self.report_counts[shard];
        let mut rng = stream(self.seed, Purpose::Reports, ((shard as u64) << 32) + 2 * count);
        let lost = rng.random_bool(timing.report_loss);
        let travel = nanos(timing.report_delay_ms + timing.report_jitter_ms * rng.random::<f64>());
        if lost {
            return;
        }
        (report.event_at, report.known_at) = (self.at(self.now), self.at(self.now + travel));
        let record = self.report_record(shard, report);
        let slot = self.reports.put(record);
        self.schedule(self.now + travel, Event::Report(slot));
    }

    fn measure(&mut self, shard: usize) -> ShardReport {
        self.report_counts[shard] += 1;
        let index = ((shard as u64) << 32) + 2 * self.report_counts[shard] + 1;
        let mut rng = stream(self.seed, Purpose::Reports, index);
        let mut report = self.shards[shard].report(self.now, self.world.timing.report_noise, &mut rng);
        report.known_at = self.at(self.now);
        report
    }

    fn report_record(&self, shard: usize, report: ShardReport) -> ReportRecord {
        let spec = &self.world.shards[shard];
        ReportRecord { sequence: 0, shard: spec.id.clone(), shape: spec.shape.clone(), report }
    }

    fn tell_report(&mut self, mut record: ReportRecord) -> Flow {
        self.routers.iter_mut().for_each(|router| router.on_report(&record));
        if !self.records {
            return ControlFlow::Continue(());
        }
        record.sequence = self.next_record();
        self.recorder.record(HistoryRecord::Report(Box::new(record)))
    }

    /// When a market record becomes known in the run; what is older than the start is known at the start.
    fn market_at(&self, index: usize) -> Option<SimTime> {
        self.workload.market.get(index).map(|record| self.since_start(record.known_at))
    }

    fn schedule_market(&mut self) {
        if let Some(at) = self.market_at(self.next_market) {
            self.schedule(at.max(self.now), Event::Market);
        }
    }

    fn tell_market(&mut self) -> Flow {
        let record = &self.workload.market[self.next_market];
        self.next_market += 1;
        self.routers.iter_mut().for_each(|router| router.on_market(record));
        if !self.records {
            return ControlFlow::Continue(());
        }
        let mut record = record.clone();
        record.sequence = self.next_record();
        self.recorder.record(HistoryRecord::Market(record))
    }

    // ── time and order ──

    fn schedule(&mut self, at: SimTime, event: Event) {
        self.event_sequence += 1;
        self.events.push(Reverse((at, self.event_sequence, event)));
    }

    fn next_record(&mut self) -> u64 {
        self.record_sequence += 1;
        self.record_sequence
    }

    fn since_start(&self, at: Timestamp) -> SimTime {
        u64::try_from(at.nanos().saturating_sub(self.workload.start.nanos())).unwrap_or(0)
    }

    fn at(&self, time: SimTime) -> Timestamp {
        Timestamp::from_nanos(self.workload.start.nanos().saturating_add_unsigned(time))
    }

    fn deadline(&self, arrival: usize) -> SimTime {
        self.since_start(self.workload.arrivals[arrival].at) + self.timeout
    }

    /// The next deadline of a request that is on its way.
    fn next_deadline(&mut self) -> SimTime {
        while self.next_timeout < self.next_arrival && self.slot_of[self.next_timeout] == SETTLED {
            self.next_timeout += 1;
        }
        if self.next_timeout < self.next_arrival { self.deadline(self.next_timeout) } else { SimTime::MAX }
    }

    fn busy_ns(&mut self) -> Vec<u64> {
        let now = self.now;
        self.shards.iter_mut().map(|shard| shard.busy_ns(now)).collect()
    }

    fn summarise(mut self) -> RunSummary {
        self.tally.counts.in_flight = self.unsettled as u64;
        if !self.ended {
            self.tally.busy_ns[1] = self.busy_ns();
        }
        if self.next_arrival <= self.measured_from {
            self.tally.busy_ns[0] = self.tally.busy_ns[1].clone();
        }
        let measured_from =
            self.workload.arrivals.get(self.measured_from).map_or(0, |first| self.since_start(first.at));
        let until = self.since_start(self.workload.end).min(self.now);
        let cores: Vec<f64> = self.world.shards.iter().map(|shard| f64::from(shard.servers())).collect();
        self.tally.summarise(&RunFacts {
            policy: self.routers[0].policy.name(),
            seed: self.seed,
            cores: &cores,
            measured_ns: until.saturating_sub(measured_from).max(1) as f64,
            end: self.at(self.now),
            arrival_ms: &|arrival| millis(self.since_start(self.workload.arrivals[arrival].at)),
        })
    }
}

fn complexity_factor(complexity: f32, exponent: f64) -> f64 {
    if complexity == 1.0 { 1.0 } else { f64::from(complexity).powf(exponent) }
}

fn service_draws(world: &WorldSpec, seed: u64, arrival: u32, log_sd: f64) -> ServiceDraws {
    let timing = &world.timing;
    let mut rng = stream(seed, Purpose::Service, arrival.into());
    let failure = rng.random();
    let noise = match timing.service_noise {
        ServiceNoise::Exponential => rng.sample(Exp1),
        ServiceNoise::LogNormal => {
            let tail: f64 = match rng.random::<f64>() < timing.tail_share {
                true => (1.0 - rng.random::<f64>()).powf(-1.0 / timing.tail_exponent).min(timing.tail_cap),
                false => 1.0,
            };
            (log_sd * rng.sample::<f64, _>(StandardNormal)).exp() * tail
        }
    };
    ServiceDraws { noise, failure }
}
