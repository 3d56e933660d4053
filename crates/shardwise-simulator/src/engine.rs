//! The event loop: requests travel, queue, run, call exchanges and come back; reports and market news arrive late.
//!
//! Time is integer nanoseconds, events are ordered by (time, sequence), and everything random about a request, a
//! shard or a report has a stream of its own, so that runs repeat exactly and compare under common random numbers.
//!
//! ```text
//! router decides ─ rtt/2 ─▶ queue, c cores ─▶ core: loading + execution ─▶ exchange calls × rtt, off the core
//!       ▲                                                                            │
//!       └────────────── rtt/2 ◀───────────────────────────────────────────────────────┘
//! ```
//! Arrivals and the deadlines of first attempts need no heap: both come in the order of arrival. What becomes of a
//! request is in `requests`, what shards say of themselves in `notices`.

use std::ops::ControlFlow;

use shardwise_policies::Policy;
use shardwise_types::{HistoryRecord, ReportRecord, Timestamp};

use crate::audit::Finding;
use crate::events::{Event, EventQueue};
use crate::notices::Message;
use crate::operator::{Operations, Standing};
use crate::player::Player;
use crate::recorder::Recorder;
use crate::requests::Attempt;
use crate::router::SimRouter;
use crate::shard::{Shard, SimTime, millis, nanos};
use crate::summary::{RunFacts, RunSummary, Tally};
use crate::tables::{Slots, Tables};
use crate::workload::Workload;
use crate::world::{WorldError, WorldSpec};

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
    /// The run contradicts itself.
    #[error("the simulator is wrong: {0}; please report this, with the seed")]
    Unsound(String),
}

/// How a run is measured.
#[derive(Debug, Clone, Copy)]
pub struct SimulateOptions {
    /// Share of the workload's time that is played but not measured.
    pub warm_up: f64,
    /// Regret is measured on every so many measured requests; 0 for never.
    pub regret_every: usize,
    /// Reads a clock in ns, to time decisions; what it reads changes nothing else.
    pub stopwatch: Option<fn() -> u64>,
}

impl Default for SimulateOptions {
    fn default() -> Self {
        Self { warm_up: 0.1, regret_every: 0, stopwatch: None }
    }
}

/// Plays a workload to one policy per router in a world; a tenth of the time is warm-up and not measured.
///
/// # Errors
/// When the world, the workload or the number of policies is wrong, or the run contradicts itself.
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

/// As [`simulate`], with options, and with players that may know the truth.
///
/// # Errors
/// As [`simulate`].
pub fn simulate_with<P: Into<Player>>(
    world: &WorldSpec,
    workload: &Workload,
    seed: u64,
    players: Vec<P>,
    recorder: &mut dyn Recorder,
    options: &SimulateOptions,
) -> Result<RunSummary, SimulationError> {
    simulate_operated(world, workload, seed, players, recorder, options, None)
}

/// As [`simulate_with`], with an operator who moves the furniture.
///
/// # Errors
/// As [`simulate`].
pub fn simulate_operated<'a, P: Into<Player>>(
    world: &'a WorldSpec,
    workload: &'a Workload,
    seed: u64,
    players: Vec<P>,
    recorder: &'a mut dyn Recorder,
    options: &SimulateOptions,
    operations: Option<Operations<'a>>,
) -> Result<RunSummary, SimulationError> {
    world.check()?;
    check_workload(world, workload)?;
    if players.len() != world.routers.len() {
        return Err(SimulationError::Policies { policies: players.len(), routers: world.routers.len() });
    }
    let players = players.into_iter().map(Into::into).collect();
    let mut simulation = Simulation::new(world, workload, seed, players, recorder, options)?;
    simulation.records |= operations.is_some();
    simulation.operations = operations;
    // An interrupted run is not a failed one.
    let _ = simulation.begin();
    simulation.run();
    simulation.check_sums()?;
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

/// Marks an arrival that needs no more attention, and the absence of a slot.
pub(crate) const NO_SLOT: u32 = u32::MAX;

pub(crate) struct Simulation<'a> {
    pub(crate) world: &'a WorldSpec,
    pub(crate) workload: &'a Workload,
    pub(crate) seed: u64,
    pub(crate) options: SimulateOptions,
    pub(crate) tables: Tables,
    pub(crate) shards: Vec<Shard<'a>>,
    pub(crate) routers: Vec<SimRouter<'a>>,
    pub(crate) recorder: &'a mut dyn Recorder,
    /// Whether anybody wants the history.
    pub(crate) records: bool,
    pub(crate) operations: Option<Operations<'a>>,
    pub(crate) standing: Standing,
    pub(crate) events: EventQueue,
    record_sequence: u64,
    pub(crate) now: SimTime,
    pub(crate) timeout: u64,
    /// How long a first attempt may take.
    pub(crate) patience: u64,
    next_arrival: usize,
    /// First arrival whose first deadline has not been looked at.
    next_deadline: usize,
    pub(crate) next_market: usize,
    measured_from: usize,
    pub(crate) attempts: Slots<Attempt>,
    /// Slot of an attempt of each arrival that is on its way, else [`NO_SLOT`].
    pub(crate) slot_of: Vec<u32>,
    /// Attempts under way to each shard; kept when someone looks at the truth.
    pub(crate) travelling: Vec<Vec<u32>>,
    pub(crate) truth_is_wanted: bool,
    pub(crate) free_at: Vec<SimTime>,
    pub(crate) unsettled: u64,
    pub(crate) ended: bool,
    interrupted: bool,
    pub(crate) reports: Slots<ReportRecord>,
    pub(crate) report_counts: Vec<u64>,
    pub(crate) messages: Slots<Message>,
    pub(crate) idle_notices: u64,
    pub(crate) wants_idle_notices: bool,
    pub(crate) probes: Vec<u16>,
    pub(crate) tally: Tally,
}

/// Something to go on, or a recorder that has enough.
pub(crate) type Flow = ControlFlow<()>;

impl<'a> Simulation<'a> {
    fn new(
        world: &'a WorldSpec,
        workload: &'a Workload,
        seed: u64,
        players: Vec<Player>,
        recorder: &'a mut dyn Recorder,
        options: &SimulateOptions,
    ) -> Result<Self, SimulationError> {
        let arrivals = workload.arrivals.len();
        let measured_at = workload.start.plus_millis(options.warm_up * workload.end.millis_since(workload.start));
        let measured_from = workload.arrivals.partition_point(|arrival| arrival.at < measured_at);
        let knows = |player: &Player| !matches!(player, Player::Policy(_));
        let wants_idle_notices =
            players.iter().any(|player| matches!(player, Player::Policy(policy) if policy.wants_idle_notices()));
        let truth_is_wanted = options.regret_every > 0 || players.iter().any(knows);
        let shard = |(index, spec)| Shard::new(spec, world, seed, index, nanos(workload.elapsed_ms));
        let router = |(index, player)| SimRouter::new(world, index, player, seed);
        let timeout = nanos(world.timing.timeout_ms);
        let may_retry = world.timing.attempts > 1;
        Ok(Self {
            world,
            workload,
            seed,
            options: *options,
            tables: Tables::new(world),
            shards: world.shards.iter().enumerate().map(shard).collect(),
            routers: players.into_iter().enumerate().map(router).collect::<Result<_, _>>()?,
            records: recorder.wants_history(),
            recorder,
            operations: None,
            standing: Standing::default(),
            events: EventQueue::new(),
            record_sequence: 0,
            now: 0,
            timeout,
            patience: if may_retry { timeout.min(nanos(world.timing.attempt_timeout_ms)) } else { timeout },
            next_arrival: 0,
            next_deadline: 0,
            next_market: 0,
            measured_from,
            attempts: Slots::new(),
            slot_of: vec![NO_SLOT; arrivals],
            travelling: vec![Vec::new(); world.shards.len()],
            truth_is_wanted,
            free_at: Vec::new(),
            unsettled: 0,
            ended: false,
            interrupted: false,
            reports: Slots::new(),
            report_counts: vec![0; world.shards.len()],
            messages: Slots::new(),
            idle_notices: 0,
            wants_idle_notices,
            probes: Vec::new(),
            tally: Tally::new(arrivals, measured_from, world.timing.timeout_ms, options.stopwatch.is_some()),
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
            self.events.push(offset, Event::Measure(shard as u32));
            let failures: Vec<SimTime> = self.shards[shard].failures().collect();
            failures.into_iter().for_each(|at| self.events.push(at, Event::Fail(shard as u32)));
            let mut report = self.measure(shard);
            if self.shards[shard].is_silent(0) {
                continue;
            }
            report.event_at = self.workload.start.plus_millis(-self.world.timing.report_delay_ms);
            let record = self.report_record(shard, report);
            self.interruptible(|simulation| simulation.tell_report(record))?;
        }
        if self.wants_idle_notices {
            (0..self.shards.len()).for_each(|shard| self.tell_idle(shard));
        }
        self.begin_operations();
        self.events.push(self.since_start(self.workload.end), Event::End(0));
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

    fn run(&mut self) {
        while !self.interrupted && !self.is_over() {
            let arrival = self.workload.arrivals.get(self.next_arrival).map(|arrival| self.since_start(arrival.at));
            let deadline = self.next_deadline();
            let event = self.events.next_at();
            let arrival = arrival.unwrap_or(SimTime::MAX);
            // On a tie a client gives up before the answer is there, and news is read before a decision.
            let flow = if deadline <= event && deadline <= arrival {
                self.now = deadline;
                let arrival = self.next_deadline;
                self.next_deadline += 1;
                self.give_up(arrival)
            } else if event <= arrival {
                let (time, event) = self.events.pop().expect("it was just looked at");
                self.now = time;
                self.handle(event)
            } else {
                self.now = arrival;
                self.arrive()
            };
            self.interrupted |= flow.is_break();
        }
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
            Event::Market(_) => {
                let flow = self.tell_market();
                self.schedule_market();
                return flow;
            }
            Event::End(_) => {
                self.ended = true;
                self.tally.busy_ns[1] = self.busy_ns();
            }
            Event::Shared(bits) => self.end_shared(bits),
            Event::Fail(shard) => self.fail(shard as usize),
            Event::Deadline(arrival) => return self.late_deadline(arrival as usize),
            Event::LookAgain(arrival) => return self.look_again(arrival as usize),
            Event::Started(slot) => self.hear_started(slot),
            Event::Cancel(slot) => self.cancelled(slot),
            Event::Message(slot) => self.deliver(slot),
            Event::Look(_) => self.look(),
            Event::Obey(batch) => return self.obey(batch as usize),
        }
        ControlFlow::Continue(())
    }

    fn arrive(&mut self) -> Flow {
        let index = self.next_arrival;
        self.next_arrival += 1;
        if index == self.measured_from {
            self.tally.busy_ns[0] = self.busy_ns();
        }
        self.tally.counts.arrivals += 1;
        self.unsettled += 1;
        self.tally.open(self.now);
        self.begin_request(index)
    }

    // ── time and order ──

    pub(crate) fn is_measured(&self, arrival: usize) -> bool {
        arrival >= self.measured_from
    }

    /// Hands a record to the operator and the recorder.
    pub(crate) fn record(&mut self, record: HistoryRecord) -> Flow {
        self.hear(&record);
        match self.recorder.wants_history() {
            true => self.recorder.record(record),
            false => ControlFlow::Continue(()),
        }
    }

    pub(crate) fn next_record(&mut self) -> u64 {
        self.record_sequence += 1;
        self.record_sequence
    }

    pub(crate) fn since_start(&self, at: Timestamp) -> SimTime {
        u64::try_from(at.nanos().saturating_sub(self.workload.start.nanos())).unwrap_or(0)
    }

    pub(crate) fn at(&self, time: SimTime) -> Timestamp {
        Timestamp::from_nanos(self.workload.start.nanos().saturating_add_unsigned(time))
    }

    /// When a request is of no more use to whoever asked.
    pub(crate) fn deadline(&self, arrival: usize) -> SimTime {
        self.since_start(self.workload.arrivals[arrival].at) + self.timeout
    }

    /// The next deadline of a first attempt that is on its way.
    fn next_deadline(&mut self) -> SimTime {
        while self.next_deadline < self.next_arrival {
            let arrival = self.next_deadline;
            // What is tried again has a deadline of its own.
            if self.slot_of[arrival] != NO_SLOT && self.attempts[self.slot_of[arrival]].is_first() {
                return self.since_start(self.workload.arrivals[arrival].at) + self.patience;
            }
            self.next_deadline += 1;
        }
        SimTime::MAX
    }

    fn busy_ns(&mut self) -> Vec<u64> {
        let now = self.now;
        self.shards.iter_mut().map(|shard| shard.busy_ns(now)).collect()
    }

    /// Requests are conserved, and Little's law holds to the nanosecond, for the system and for every shard.
    fn check_sums(&mut self) -> Result<(), SimulationError> {
        let counts = self.tally.counts;
        let settled = counts.completed + counts.failed + counts.timeouts + counts.refused;
        if counts.arrivals != settled + self.unsettled {
            return Err(SimulationError::Unsound(format!("{} arrivals, but {settled} ends", counts.arrivals)));
        }
        let still_out = |index: &usize| self.slot_of[*index] != NO_SLOT;
        let waited = |index: usize| u128::from(self.now - self.since_start(self.workload.arrivals[index].at));
        let still_out_ns = match self.unsettled {
            0 => 0,
            _ => (0..self.next_arrival).filter(still_out).map(waited).sum(),
        };
        if !self.tally.stays_add_up(self.now, still_out_ns) {
            return Err(SimulationError::Unsound("requests in the system and their times do not fit".to_owned()));
        }
        for shard in 0..self.shards.len() {
            let there = &self.shards[shard];
            let waiting = (0..there.waiting()).map(|place| there.waiting_at(place));
            let present = waiting.chain(there.running().iter().copied());
            let still_here_ns = present.map(|slot| u128::from(self.now - self.attempts[slot].reached)).sum();
            if !self.shards[shard].stays_add_up(self.now, still_here_ns) {
                let id = &self.world.shards[shard].id;
                return Err(SimulationError::Unsound(format!("requests on {id} and their times do not fit")));
            }
        }
        Ok(())
    }

    fn summarise(mut self) -> RunSummary {
        self.tally.counts.in_flight = self.unsettled;
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
        let findings = self.findings();
        self.tally.summarise(&RunFacts {
            policy: self.routers[0].player.name(),
            seed: self.seed,
            cores: &cores,
            measured_ns: until.saturating_sub(measured_from).max(1) as f64,
            end: self.at(self.now),
            arrival_ms: &|arrival| millis(self.since_start(self.workload.arrivals[arrival].at)),
            findings,
        })
    }

    /// What the audits of all routers found, each kind once.
    fn findings(&mut self) -> Vec<Finding> {
        let name = |shard: usize| self.world.shards[shard].id.to_string();
        let mut all: Vec<Finding> = Vec::new();
        for router in &mut self.routers {
            for finding in std::mem::take(&mut router.audit).finish(&name) {
                match all.iter_mut().find(|known| known.bug == finding.bug) {
                    Some(known) => known.count += finding.count,
                    None => all.push(finding),
                }
            }
        }
        all
    }
}
