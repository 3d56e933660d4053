//! The cores of a shard: threads that take requests from one queue, first come first served.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::Serialize;
use shardwise_control::{ShardLimits, ShardUsage};
use shardwise_monitor::{FunctionRecorder, WaitingCall};
use shardwise_types::{ErrorClass, FunctionId, PlacementRequest, ShardReport, combine_keys, unit_of};
use tokio::sync::oneshot;

use super::clock::{self, millis};
use super::faults::{FaultKind, FaultsAt};
use super::functions::{Arena, FunctionBody, Table};
use super::meter::{Measured, Meter};
use super::options::ShardOptions;
use super::warm::WarmSet;

/// How often a stalled core looks whether the stall is over.
const STALL_LOOK: Duration = Duration::from_millis(5);
/// What a function takes of the memory when the request does not say, in MB.
const USUAL_MEMORY_MB: f32 = 142.0;

/// What became of a request on the shard.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Execution {
    /// On a core, loading included, in ms; 0 when it never ran.
    pub(super) exec_ms: f64,
    /// In the queue, in ms.
    pub(super) queue_ms: f64,
    /// Requests queued and running when it was answered.
    pub(super) queue_len: u32,
    /// Whether the function had to be loaded first.
    pub(super) cold: bool,
    /// What the function returned.
    pub(super) result: Option<u64>,
    /// Why there is no result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<ErrorClass>,
}

/// A request that was taken and has no answer yet.
pub(super) struct Job {
    pub(super) request: PlacementRequest,
    /// When it came.
    pub(super) accepted: Instant,
    /// It is dropped when its turn comes later than this.
    pub(super) deadline: Option<Instant>,
    pub(super) answer: oneshot::Sender<Execution>,
    /// Counts it while it waits.
    pub(super) waiting: WaitingCall,
}

/// Why a request is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the queue is full; ask another shard, or later")]
    Full,
    #[error("the shard is shutting down; ask another one")]
    Draining,
}

/// Cores and queue.
pub(super) struct Workers {
    options: ShardOptions,
    /// What each function does, for the reports.
    pub(super) recorder: Arc<FunctionRecorder>,
    arena: Arena,
    started: Instant,
    state: Mutex<State>,
    changed: Condvar,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct State {
    queue: VecDeque<Job>,
    warm: WarmSet,
    meter: Meter,
    limits: Option<ShardLimits>,
    /// Nothing new is taken.
    draining: bool,
    /// Requests begun so far.
    begun: u64,
}

impl Workers {
    /// Starts one thread for each core.
    pub(super) fn start(options: &ShardOptions) -> Arc<Self> {
        let started = clock::now();
        let state = State {
            queue: VecDeque::new(),
            warm: WarmSet::new(options.shape.memory_mb, Duration::from_secs_f64(options.warm_ttl_ms / 1e3)),
            meter: Meter::new(options.workers() as u32, started),
            limits: None,
            draining: false,
            begun: 0,
        };
        let workers = Arc::new(Self {
            options: options.clone(),
            recorder: Arc::default(),
            arena: Arena::new(),
            started,
            state: Mutex::new(state),
            changed: Condvar::new(),
            threads: Mutex::new(Vec::new()),
        });
        let thread = || {
            let workers = Arc::clone(&workers);
            thread::spawn(move || workers.work())
        };
        let threads = (0..options.workers()).map(|_| thread()).collect();
        *workers.threads.lock().unwrap_or_else(PoisonError::into_inner) = threads;
        workers
    }

    /// Puts a request in the queue.
    pub(super) fn accept(&self, job: Job) -> Result<(), Refusal> {
        let mut state = self.lock();
        if state.draining {
            return Err(Refusal::Draining);
        }
        let most = state.limits.and_then(|limits| limits.max_requests_in_flight);
        let in_flight = state.queue.len() as u32 + state.meter.running();
        if state.queue.len() >= self.options.queue_capacity || most.is_some_and(|most| in_flight >= most) {
            return Err(Refusal::Full);
        }
        state.queue.push_back(job);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Takes nothing new, and returns when all that was taken has been answered.
    pub(super) fn drain(&self) {
        self.lock().draining = true;
        self.changed.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A function that panicked has left its request without an answer, which its client was told.
            let _ = thread.join();
        }
    }

    /// Takes limits that hold from now on.
    pub(super) fn limit(&self, limits: Option<ShardLimits>) {
        let mut state = self.lock();
        let memory_mb = limits.map_or(f64::INFINITY, |limits| limits.max_memory_mb) as f32;
        let most = limits.and_then(|limits| limits.max_concurrent_functions).map_or(usize::MAX, |most| most as usize);
        state.warm.limit(memory_mb.min(self.options.shape.memory_mb), most);
        state.limits = limits;
        drop(state);
        self.changed.notify_all();
    }

    /// Keeps these functions loaded from their next use on, and no others.
    pub(super) fn keep_warm(&self, functions: BTreeSet<FunctionId>) {
        self.lock().warm.keep(functions);
    }

    /// What is used now.
    pub(super) fn usage(&self) -> ShardUsage {
        let state = self.lock();
        let running = state.meter.running();
        ShardUsage {
            cpu_cores: f64::from(running),
            memory_mb: f64::from(state.warm.used_mb()),
            functions: state.warm.len() as u32,
            requests_in_flight: state.queue.len() as u32 + running,
        }
    }

    /// Whether it takes requests.
    pub(super) fn is_ready(&self) -> bool {
        !self.lock().draining && !self.faults().has(FaultKind::Unhealthy)
    }

    /// What goes wrong now.
    pub(super) fn faults(&self) -> FaultsAt<'_> {
        FaultsAt::new(&self.options.faults, millis(clock::now().saturating_duration_since(self.started)))
    }

    /// What the shard says of itself: now, and over the time since the last report, which this one ends.
    pub(super) fn report(&self, now: Instant) -> ShardReport {
        self.report_of(now, Meter::take)
    }

    /// The same without ending it: whoever looks takes nothing from what is published.
    pub(super) fn look(&self, now: Instant) -> ShardReport {
        self.report_of(now, Meter::look)
    }

    fn report_of(&self, now: Instant, measure: impl FnOnce(&mut Meter, Instant) -> Measured) -> ShardReport {
        let (faults, event_at) = (self.faults(), clock::wall());
        let mut state = self.lock();
        let measured = measure(&mut state.meter, now);
        let report = ShardReport {
            event_at,
            known_at: event_at,
            healthy: !state.draining && !faults.has(FaultKind::Unhealthy),
            cpu: measured.cpu,
            memory: state.warm.share(now),
            queue_len: state.queue.len() as u32,
            running: measured.running,
            error_rate: measured.error_rate,
            mean_latency_ms: measured.mean_latency_ms,
        };
        match faults.has(FaultKind::Nonsense) {
            true => ShardReport { cpu: -1.0, memory: 7.0, error_rate: 2.0, ..report },
            false => report,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a core does until the shard is drained.
    fn work(&self) {
        while let Some((job, number)) = self.next() {
            self.stall();
            let (execution, sender) = self.answer(job, number);
            // The client may have gone; its time on the core was spent all the same.
            let _ = sender.send(execution);
        }
    }

    /// The next request and its number; `None` when the shard is drained.
    fn next(&self) -> Option<(Job, u64)> {
        let mut state = self.lock();
        loop {
            let may_run = state.limits.is_none_or(|limits| f64::from(state.meter.running()) < limits.max_cpu_cores);
            if let Some(job) = if may_run || state.draining { state.queue.pop_front() } else { None } {
                state.begun += 1;
                state.meter.began(clock::now());
                return Some((job, state.begun));
            }
            if state.draining {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits while the shard is stalled; not while it is drained, for a stall may have no end.
    fn stall(&self) {
        while self.faults().has(FaultKind::Stall) && !self.lock().draining {
            thread::sleep(STALL_LOOK);
        }
    }

    fn answer(&self, job: Job, number: u64) -> (Execution, oneshot::Sender<Execution>) {
        let began = clock::now();
        let running = job.waiting.start();
        let late = job.deadline.is_some_and(|deadline| began > deadline) || job.answer.is_closed();
        let outcome = match (late, self.fails(number)) {
            (true, _) => Err(ErrorClass::Dropped),
            (false, true) => Err(ErrorClass::Failed),
            (false, false) => Ok(self.execute(&job.request, began)),
        };
        let ended = clock::now();
        running.finish(ended.saturating_duration_since(began), outcome.is_ok());
        let mut state = self.lock();
        state.meter.ended(ended);
        state.meter.answered(millis(ended.saturating_duration_since(job.accepted)), outcome.is_err());
        let execution = Execution {
            exec_ms: if late { 0.0 } else { millis(ended.saturating_duration_since(began)) },
            queue_ms: millis(began.saturating_duration_since(job.accepted)),
            queue_len: state.queue.len() as u32 + state.meter.running(),
            cold: outcome.is_ok_and(|(_, cold)| cold),
            result: outcome.ok().map(|(result, _)| result),
            error: outcome.err(),
        };
        drop(state);
        // A core that was held back by a limit may go on.
        self.changed.notify_one();
        (execution, job.answer)
    }

    /// Whether request number so and so fails, by seed.
    fn fails(&self, number: u64) -> bool {
        let draw = unit_of(combine_keys(self.options.seed, number));
        draw < self.faults().failing()
    }

    /// Runs the function, loads it first when it is not warm, and holds the core as long as a core of this shard would
    /// take.
    fn execute(&self, request: &PlacementRequest, began: Instant) -> (u64, bool) {
        let (body, cpu_before) = (FunctionBody::of(&request.function), clock::thread_cpu());
        let (table, cold) = self.load(&body, request, began);
        let result = body.run(request, &table, &self.arena);
        let wall = clock::now().saturating_duration_since(began);
        let worked = cpu_before.zip(clock::thread_cpu()).map_or(wall, |(before, after)| after.saturating_sub(before));
        let speed = self.options.speed * body.kind.speed_on(self.options.shape.hardware);
        // Nothing runs faster than this machine does.
        let slowness = (1.0 / speed).max(1.0) * self.faults().slowness();
        let due = began + worked.mul_f64(slowness);
        thread::sleep(due.saturating_duration_since(clock::now()));
        (result, cold)
    }

    /// What the function holds, and whether it had to be loaded.
    fn load(&self, body: &FunctionBody, request: &PlacementRequest, now: Instant) -> (Arc<Table>, bool) {
        if let Some(table) = self.lock().warm.touch(&request.function, now) {
            return (table, false);
        }
        let table = Arc::new(body.load());
        let memory_mb = if request.memory_mb > 0.0 { request.memory_mb } else { USUAL_MEMORY_MB };
        self.lock().warm.insert(&request.function, Arc::clone(&table), memory_mb, clock::now());
        (table, true)
    }
}
