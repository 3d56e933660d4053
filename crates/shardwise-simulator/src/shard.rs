//! One shard at work: its cores and queue, which functions are warm, its memory, its neighbours, and what it reports.
//!
//! It knows no network and no router; the engine tells it when things happen.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use rand::RngExt;
use rand_distr::{Exp1, StandardNormal};
use shardwise_types::{ShardReport, Timestamp};

use crate::constants::NANOS_PER_MS;
use crate::streams::{KeyedStream, Purpose, stream};
use crate::world::{Discipline, FaultKind, FunctionSpec, ResourceClass, ShardSpec, SpeedNoise, WorldSpec};

/// Time of the simulation: nanoseconds since the start of the workload.
pub(crate) type SimTime = u64;

/// Milliseconds as simulation time.
pub(crate) fn nanos(ms: f64) -> u64 {
    (ms * NANOS_PER_MS).round() as u64
}

/// Simulation time as milliseconds.
pub(crate) fn millis(nanos: u64) -> f64 {
    nanos as f64 / NANOS_PER_MS
}

/// A shard's state.
pub(crate) struct Shard<'a> {
    spec: &'a ShardSpec,
    /// How long the world had run when the workload began.
    elapsed: SimTime,
    servers: u32,
    /// Attempts on the cores.
    running: Vec<u32>,
    /// Attempts that wait, first come first served.
    queue: VecDeque<u32>,
    sharing: Sharing,
    warm: WarmSet,
    antagonist: Option<Visitor>,
    wandering: Wandering,
    traces: [Option<&'a crate::world::SlownessTrace>; 3],
    memory_pressure: f64,
    memory_slowdown: f64,
    busy: BusyTime,
    present: Presence,
    since_report: Interval,
    recent: RecentLatencies,
    /// When it joins although it was to be absent.
    joins: Option<SimTime>,
}

impl<'a> Shard<'a> {
    pub(crate) fn new(spec: &'a ShardSpec, world: &WorldSpec, seed: u64, index: usize, elapsed: SimTime) -> Self {
        let timing = &world.timing;
        let trace = |resource| spec.slowness.iter().find(|trace| trace.resource == resource);
        Self {
            spec,
            elapsed,
            servers: spec.servers(),
            running: Vec::with_capacity(8),
            queue: VecDeque::with_capacity(64),
            sharing: Sharing::new(timing.discipline),
            warm: WarmSet::new(&world.functions, f64::from(spec.shape.memory_mb), nanos(timing.warm_ttl_ms)),
            antagonist: spec.antagonist.map(|spec| Visitor::new(spec, seed, index)),
            wandering: Wandering::new(spec.noise, seed, index),
            traces: [ResourceClass::Compute, ResourceClass::Memory, ResourceClass::Io].map(trace),
            memory_pressure: timing.memory_pressure,
            memory_slowdown: timing.memory_slowdown,
            busy: BusyTime::default(),
            present: Presence::default(),
            since_report: Interval::default(),
            recent: RecentLatencies::default(),
            joins: None,
        }
    }

    /// Loads a function and keeps it. Returns whether it was not loaded yet.
    pub(crate) fn pin(&mut self, now: SimTime, function: u32) -> bool {
        self.warm.pin(now, function)
    }

    /// Lets it be unloaded when it is not used.
    pub(crate) fn unpin(&mut self, now: SimTime, function: u32) {
        self.warm.unpin(now, function);
    }

    /// Joins the fleet at an instant, if it is absent.
    pub(crate) fn join(&mut self, at: SimTime) {
        self.joins.get_or_insert(at);
    }

    /// Whether another attempt can begin at once: a core is free, or cores are shared.
    pub(crate) fn has_free_core(&self) -> bool {
        self.sharing.discipline == Discipline::ProcessorSharing || self.has_spare_core()
    }

    /// Whether a core has nothing to do.
    pub(crate) fn has_spare_core(&self) -> bool {
        (self.running.len() as u32) < self.servers
    }

    pub(crate) fn servers(&self) -> u32 {
        self.servers
    }

    /// An attempt arrives.
    pub(crate) fn enter(&mut self, now: SimTime) {
        self.present.enter(now);
    }

    /// An attempt that came at `reached` leaves the queue or the core for good.
    pub(crate) fn leave(&mut self, now: SimTime, reached: SimTime) {
        self.present.leave(now, reached);
    }

    pub(crate) fn enqueue(&mut self, attempt: u32) {
        self.queue.push_back(attempt);
    }

    pub(crate) fn dequeue(&mut self) -> Option<u32> {
        self.queue.pop_front()
    }

    /// How many attempts wait.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// The attempt at a place in the queue.
    pub(crate) fn waiting_at(&self, place: usize) -> u32 {
        self.queue[place]
    }

    /// Attempts on the cores.
    pub(crate) fn running(&self) -> &[u32] {
        &self.running
    }

    /// Takes an attempt out of the queue.
    pub(crate) fn forget_waiting(&mut self, attempt: u32) {
        self.queue.retain(|waiting| *waiting != attempt);
    }

    /// Attempts that wait or run.
    pub(crate) fn occupancy(&self) -> u32 {
        (self.queue.len() + self.running.len()) as u32
    }

    /// Takes a core for a function; returns whether it must be loaded first.
    pub(crate) fn begin(&mut self, now: SimTime, attempt: u32, function: u32) -> bool {
        self.busy.advance(now, self.busy_cores());
        self.running.push(attempt);
        self.warm.begin(now, function)
    }

    /// Frees the core.
    pub(crate) fn finish(&mut self, now: SimTime, attempt: u32, function: u32) {
        self.busy.advance(now, self.busy_cores());
        let place = self.running.iter().position(|running| *running == attempt);
        self.running.swap_remove(place.expect("what finishes was begun"));
        self.warm.finish(now, function);
    }

    /// Whether the function would be found warm at an instant.
    pub(crate) fn is_warm(&self, at: SimTime, function: u32) -> bool {
        self.warm.is_warm(at, function)
    }

    /// All that waits or runs is gone, and so is what was loaded. Returns the attempts.
    pub(crate) fn fail(&mut self, now: SimTime) -> Vec<u32> {
        self.busy.advance(now, self.busy_cores());
        self.warm.unload_all();
        self.sharing.clear();
        self.running.drain(..).chain(self.queue.drain(..)).collect()
    }

    /// Whether it answers nothing right now: it failed, or has not joined.
    pub(crate) fn is_silent(&self, now: SimTime) -> bool {
        self.faults(now).any(|kind| matches!(kind, FaultKind::Down | FaultKind::Absent))
    }

    /// Charges core time that no attempt used.
    pub(crate) fn charge(&mut self, core_ns: u64) {
        self.busy.total_ns += core_ns;
    }

    /// Whether attempts were here, summed over time, for as long as they say they stayed (Little's law).
    pub(crate) fn stays_add_up(&mut self, now: SimTime, still_here_ns: u128) -> bool {
        self.present.adds_up(now, still_here_ns)
    }

    /// Notes how long an attempt took that found so many others.
    pub(crate) fn note_latency(&mut self, in_flight_then: u32, on_shard_ms: f32) {
        self.recent.note(in_flight_then, on_shard_ms);
    }

    /// What it answers to a probe: how long an attempt takes at the present occupancy.
    pub(crate) fn latency_estimate_ms(&self) -> Option<f64> {
        self.recent.median_at(self.occupancy())
    }

    // ── processor sharing ──

    /// An attempt begins to share the cores, with so much work.
    pub(crate) fn share(&mut self, now: SimTime, attempt: u32, work_ns: u64) {
        // The attempt has been begun, so it counts already; the time before was shared without it.
        self.sharing.advance(now, self.servers, self.running.len() - 1);
        self.sharing.add(attempt, work_ns);
    }

    /// The next instant at which a sharing attempt is done, if nothing comes or goes, and a number that names this
    /// state of affairs.
    pub(crate) fn next_shared(&mut self, now: SimTime) -> Option<(SimTime, u16)> {
        self.sharing.next(now, self.servers, self.running.len())
    }

    /// The attempts that are done, if nothing came or went since `state`.
    pub(crate) fn shared_done(&mut self, now: SimTime, state: u16) -> Option<u32> {
        if state != self.sharing.state {
            return None;
        }
        self.sharing.advance(now, self.servers, self.running.len());
        self.sharing.pop_done()
    }

    /// Takes an attempt out before its work is done.
    pub(crate) fn stop_sharing(&mut self, now: SimTime, attempt: u32) {
        self.sharing.advance(now, self.servers, self.running.len());
        self.sharing.remove(attempt);
    }

    fn busy_cores(&self) -> u32 {
        (self.running.len() as u32).min(self.servers)
    }

    /// Counts an answer for the next report.
    pub(crate) fn count_answer(&mut self, on_shard_ms: f64, failed: bool) {
        self.since_report.answers += 1;
        self.since_report.failures += u32::from(failed);
        self.since_report.latency_ms += on_shard_ms;
    }

    /// Core time that was used until now, in ns.
    pub(crate) fn busy_ns(&mut self, now: SimTime) -> u64 {
        self.busy.advance(now, self.busy_cores());
        self.busy.total_ns
    }

    /// How much slower than alone and healthy the shard is right now.
    pub(crate) fn slowdown(&mut self, now: SimTime, resource: ResourceClass) -> f64 {
        self.neighbour(now)
            * self.memory()
            * self.wandering.slowness(now, resource)
            * self.trace(now, resource)
            * self.fault_slowness(now)
    }

    /// Share of requests that fail at once right now.
    pub(crate) fn failing_share(&self, now: SimTime) -> f64 {
        let failing = |kind: &FaultKind| match kind {
            FaultKind::Failing(share) => Some(*share),
            _ => None,
        };
        self.faults(now).filter_map(|kind| failing(&kind)).fold(0.0, f64::max)
    }

    /// What the shard says of itself; begins the next interval. The clocks are the engine's to set.
    pub(crate) fn report(&mut self, now: SimTime, noise: f64, rng: &mut KeyedStream) -> ShardReport {
        let mut noisy = |value: f64| value * (1.0 + noise * rng.sample::<f64, _>(StandardNormal)).max(0.0);
        let busy_ns = self.busy_ns(now);
        let interval = std::mem::replace(&mut self.since_report, Interval::beginning(now, busy_ns));
        let capacity_ns = (now - interval.began) as f64 * f64::from(self.servers);
        let own = if capacity_ns > 0.0 { (busy_ns - interval.busy_ns) as f64 / capacity_ns } else { 0.0 };
        // The machine's meters see the neighbour too.
        let cpu = own + (1.0 - own) * self.antagonist.as_ref().map_or(0.0, |visitor| visitor.share);
        let answers = f64::from(interval.answers.max(1));
        ShardReport {
            event_at: Timestamp::default(),
            known_at: Timestamp::default(),
            healthy: !self.faults(now).any(|kind| matches!(kind, FaultKind::Unhealthy)),
            cpu: noisy(cpu).clamp(0.0, 1.0) as f32,
            memory: noisy(self.warm.share()).clamp(0.0, 1.0) as f32,
            queue_len: self.queue.len() as u32,
            running: self.running.len() as u32,
            error_rate: (f64::from(interval.failures) / answers) as f32,
            mean_latency_ms: noisy(interval.latency_ms / answers) as f32,
        }
    }

    fn neighbour(&mut self, now: SimTime) -> f64 {
        self.antagonist.as_mut().map_or(1.0, |visitor| 1.0 / (1.0 - visitor.share_at(now)))
    }

    fn memory(&self) -> f64 {
        let share = self.warm.share();
        if share <= self.memory_pressure {
            return 1.0;
        }
        let depth = (share - self.memory_pressure) / (1.0 - self.memory_pressure);
        1.0 + (self.memory_slowdown - 1.0) * depth.min(1.0)
    }

    fn trace(&self, now: SimTime, resource: ResourceClass) -> f64 {
        self.traces[resource as usize].map_or(1.0, |trace| {
            let step = (millis(self.elapsed + now) / trace.step_ms) as usize;
            f64::from(trace.values[step % trace.values.len()])
        })
    }

    /// How far its clock is ahead, in ms.
    pub(crate) fn clock_ahead_ms(&self, now: SimTime) -> f64 {
        let ahead = |kind: FaultKind| if let FaultKind::ClockAhead(ms) = kind { ms } else { 0.0 };
        self.faults(now).map(ahead).sum()
    }

    fn fault_slowness(&self, now: SimTime) -> f64 {
        let slow = |kind: &FaultKind| match kind {
            FaultKind::Slow(factor) => Some(*factor),
            _ => None,
        };
        self.faults(now).filter_map(|kind| slow(&kind)).product()
    }

    /// When faults begin that end all work here, from now on.
    pub(crate) fn failures(&self) -> impl Iterator<Item = SimTime> + '_ {
        let begins = |fault: &crate::world::Fault| nanos(fault.from_ms).checked_sub(self.elapsed);
        self.spec.faults.iter().filter(|fault| matches!(fault.kind, FaultKind::Down)).filter_map(begins)
    }

    fn faults(&self, now: SimTime) -> impl Iterator<Item = FaultKind> + use<'_> {
        let now_ms = millis(self.elapsed + now);
        let has_joined = self.joins.is_some_and(|at| at <= now);
        let is_over = move |fault: &crate::world::Fault| has_joined && matches!(fault.kind, FaultKind::Absent);
        let is_on =
            move |fault: &&crate::world::Fault| (fault.from_ms..fault.until_ms).contains(&now_ms) && !is_over(fault);
        self.spec.faults.iter().filter(is_on).map(|fault| fault.kind)
    }
}

/// Core time in use, summed.
#[derive(Default)]
struct BusyTime {
    total_ns: u64,
    until: SimTime,
}

impl BusyTime {
    fn advance(&mut self, now: SimTime, running: u32) {
        self.total_ns += (now - self.until) * u64::from(running);
        self.until = now;
    }
}

/// How many are present, integrated over time, and how long those that left say they stayed.
#[derive(Default)]
pub(crate) struct Presence {
    count: u64,
    until: SimTime,
    area_ns: u128,
    stayed_ns: u128,
}

impl Presence {
    pub(crate) fn enter(&mut self, now: SimTime) {
        self.pass(now);
        self.count += 1;
    }

    pub(crate) fn leave(&mut self, now: SimTime, since: SimTime) {
        self.pass(now);
        self.count -= 1;
        self.stayed_ns += u128::from(now - since);
    }

    /// Little's law, to the nanosecond; `still_here_ns` is how long those that are present have stayed by now.
    pub(crate) fn adds_up(&mut self, now: SimTime, still_here_ns: u128) -> bool {
        self.pass(now);
        self.area_ns == self.stayed_ns + still_here_ns
    }

    fn pass(&mut self, now: SimTime) {
        self.area_ns += u128::from(now - self.until) * u128::from(self.count);
        self.until = now;
    }
}

/// Attempts that share the cores equally, none faster than one core. Virtual time is the work that each has got.
struct Sharing {
    discipline: Discipline,
    virtual_ns: f64,
    until: SimTime,
    /// By the virtual time at which they are done.
    jobs: BinaryHeap<Reverse<(u64, u32)>>,
    state: u16,
}

impl Sharing {
    fn new(discipline: Discipline) -> Self {
        Self { discipline, virtual_ns: 0.0, until: 0, jobs: BinaryHeap::new(), state: 0 }
    }

    fn rate(servers: u32, sharers: usize) -> f64 {
        (f64::from(servers) / sharers.max(1) as f64).min(1.0)
    }

    fn advance(&mut self, now: SimTime, servers: u32, sharers: usize) {
        self.virtual_ns += (now - self.until) as f64 * Self::rate(servers, sharers);
        self.until = now;
    }

    fn add(&mut self, attempt: u32, work_ns: u64) {
        self.jobs.push(Reverse(((self.virtual_ns + work_ns as f64) as u64, attempt)));
    }

    fn next(&mut self, now: SimTime, servers: u32, sharers: usize) -> Option<(SimTime, u16)> {
        self.state = self.state.wrapping_add(1);
        let Reverse((done_at, _)) = self.jobs.peek()?;
        let left_ns = (*done_at as f64 - self.virtual_ns).max(0.0);
        Some((now + (left_ns / Self::rate(servers, sharers)).ceil() as u64, self.state))
    }

    /// Rounding to whole ns may leave a little less than was waited for.
    fn pop_done(&mut self) -> Option<u32> {
        let Reverse((done_at, attempt)) = *self.jobs.peek()?;
        (done_at as f64 <= self.virtual_ns + 1.0).then(|| {
            self.jobs.pop();
            attempt
        })
    }

    fn remove(&mut self, attempt: u32) {
        self.jobs.retain(|Reverse((_, job))| *job != attempt);
    }

    fn clear(&mut self) {
        self.jobs.clear();
        self.state = self.state.wrapping_add(1);
    }
}

/// Answers that a probe's estimate is taken from.
const RECENT: usize = 128;

/// The last answers, with the number of attempts that each found when it came (Prequal, NSDI 2024, section 4).
#[derive(Default)]
struct RecentLatencies {
    answers: VecDeque<(u32, f32)>,
}

impl RecentLatencies {
    fn note(&mut self, in_flight_then: u32, on_shard_ms: f32) {
        if self.answers.len() == RECENT {
            self.answers.pop_front();
        }
        self.answers.push_back((in_flight_then, on_shard_ms));
    }

    /// Median of the answers that found the number nearest to this one.
    fn median_at(&self, in_flight: u32) -> Option<f64> {
        let nearest = self.answers.iter().map(|(then, _)| then.abs_diff(in_flight)).min()?;
        let near = self.answers.iter().filter(|(then, _)| then.abs_diff(in_flight) == nearest);
        let mut latencies: Vec<f32> = near.map(|(_, ms)| *ms).collect();
        let middle = latencies.len() / 2;
        Some(f64::from(*latencies.select_nth_unstable_by(middle, f32::total_cmp).1))
    }
}

/// Sums since the last report.
#[derive(Default)]
struct Interval {
    began: SimTime,
    busy_ns: u64,
    answers: u32,
    failures: u32,
    latency_ms: f64,
}

impl Interval {
    fn beginning(began: SimTime, busy_ns: u64) -> Self {
        Self { began, busy_ns, ..Self::default() }
    }
}

/// An antagonist over time. Its stream is its own and is consumed by time alone, so it is the same for every policy.
struct Visitor {
    spec: crate::world::Antagonist,
    rng: KeyedStream,
    share: f64,
    until: SimTime,
}

impl Visitor {
    fn new(spec: crate::world::Antagonist, seed: u64, index: usize) -> Self {
        let mut rng = stream(seed, Purpose::Antagonist, index as u64);
        let there = rng.random_bool(spec.on_ms / (spec.on_ms + spec.off_ms));
        // As if a spell of the other kind ended at time 0.
        let mut visitor = Self { spec, rng, share: if there { 0.0 } else { 1.0 }, until: 0 };
        visitor.turn();
        visitor
    }

    fn share_at(&mut self, now: SimTime) -> f64 {
        while self.until <= now {
            self.turn();
        }
        self.share
    }

    fn turn(&mut self) {
        let (mean_ms, share) = match self.share > 0.0 {
            true => (self.spec.off_ms, 0.0),
            // A visit that takes nothing is still a visit.
            false => (
                self.spec.on_ms,
                self.rng.random_range(self.spec.least_share..=self.spec.most_share).max(f64::MIN_POSITIVE),
            ),
        };
        self.until += nanos(mean_ms * self.rng.sample::<f64, _>(Exp1)).max(1);
        self.share = share;
    }
}

/// The noise of a shard's speed over time; like the antagonist's, its stream is consumed by time alone.
struct Wandering {
    spec: SpeedNoise,
    rng: KeyedStream,
    ln: [f64; 3],
    until: SimTime,
}

impl Wandering {
    fn new(spec: SpeedNoise, seed: u64, index: usize) -> Self {
        let mut rng = stream(seed, Purpose::SpeedNoise, index as u64);
        let ln = spec.sigma.map(|sigma| sigma * rng.sample::<f64, _>(StandardNormal));
        let first = nanos(spec.step_ms * rng.random::<f64>());
        Self { spec, rng, ln, until: first }
    }

    fn slowness(&mut self, now: SimTime, resource: ResourceClass) -> f64 {
        if self.spec.sigma == [0.0; 3] {
            return 1.0;
        }
        while self.until <= now {
            let kept = self.spec.persistence;
            for (ln, sigma) in self.ln.iter_mut().zip(self.spec.sigma) {
                *ln = kept * *ln + sigma * (1.0 - kept * kept).sqrt() * self.rng.sample::<f64, _>(StandardNormal);
            }
            self.until += nanos(self.spec.step_ms);
        }
        self.ln[resource as usize].exp()
    }
}

const NONE: u32 = u32::MAX;

/// Functions that are loaded. Idle ones form a list from the longest unused, so both the end of their time and
/// eviction under memory pressure take from its head.
struct WarmSet {
    functions: Vec<WarmFunction>,
    longest_unused: u32,
    last_used: u32,
    used_mb: f64,
    capacity_mb: f64,
    ttl: u64,
}

#[derive(Clone, Copy)]
struct WarmFunction {
    memory_mb: f32,
    loaded: bool,
    /// It is not unloaded for want of use or memory.
    pinned: bool,
    running: u32,
    unused_since: SimTime,
    before: u32,
    after: u32,
}

impl WarmFunction {
    /// Whether it is in the list of those that may be unloaded.
    fn is_idle(&self) -> bool {
        self.loaded && self.running == 0 && !self.pinned
    }
}

impl WarmSet {
    fn new(functions: &[FunctionSpec], capacity_mb: f64, ttl: u64) -> Self {
        let cold = |spec: &FunctionSpec| WarmFunction {
            memory_mb: spec.memory_mb,
            loaded: false,
            pinned: false,
            running: 0,
            unused_since: 0,
            before: NONE,
            after: NONE,
        };
        let functions = functions.iter().map(cold).collect();
        Self { functions, longest_unused: NONE, last_used: NONE, used_mb: 0.0, capacity_mb, ttl }
    }

    fn share(&self) -> f64 {
        self.used_mb / self.capacity_mb
    }

    /// Returns whether the function was cold.
    fn begin(&mut self, now: SimTime, function: u32) -> bool {
        self.expire(now);
        let entry = self.functions[function as usize];
        if entry.loaded {
            if entry.is_idle() {
                self.unlink(function);
            }
            self.functions[function as usize].running += 1;
            return false;
        }
        self.functions[function as usize].running = 1;
        self.load(function);
        true
    }

    fn load(&mut self, function: u32) {
        let entry = &mut self.functions[function as usize];
        entry.loaded = true;
        self.used_mb += f64::from(entry.memory_mb);
        while self.used_mb > self.capacity_mb && self.longest_unused != NONE {
            self.unload(self.longest_unused);
        }
    }

    /// Returns whether the function was cold.
    fn pin(&mut self, now: SimTime, function: u32) -> bool {
        self.expire(now);
        let entry = self.functions[function as usize];
        if entry.is_idle() {
            self.unlink(function);
        }
        self.functions[function as usize].pinned = true;
        if !entry.loaded {
            self.load(function);
        }
        !entry.loaded
    }

    fn unpin(&mut self, now: SimTime, function: u32) {
        let entry = &mut self.functions[function as usize];
        if std::mem::take(&mut entry.pinned) && entry.is_idle() {
            self.link(now, function);
        }
    }

    fn finish(&mut self, now: SimTime, function: u32) {
        let entry = &mut self.functions[function as usize];
        entry.running -= 1;
        if entry.is_idle() {
            self.link(now, function);
        }
    }

    /// Puts a function that is not used any more at the end of the list.
    fn link(&mut self, now: SimTime, function: u32) {
        let last = self.last_used;
        let entry = &mut self.functions[function as usize];
        (entry.unused_since, entry.before, entry.after) = (now, last, NONE);
        self.last_used = function;
        match last {
            NONE => self.longest_unused = function,
            last => self.functions[last as usize].after = function,
        }
    }

    fn expire(&mut self, now: SimTime) {
        while self.longest_unused != NONE
            && self.functions[self.longest_unused as usize].unused_since.saturating_add(self.ttl) <= now
        {
            self.unload(self.longest_unused);
        }
    }

    fn is_warm(&self, at: SimTime, function: u32) -> bool {
        let entry = self.functions[function as usize];
        entry.loaded && (!entry.is_idle() || entry.unused_since.saturating_add(self.ttl) > at)
    }

    fn unload_all(&mut self) {
        for entry in &mut self.functions {
            (entry.loaded, entry.running, entry.before, entry.after) = (false, 0, NONE, NONE);
        }
        (self.longest_unused, self.last_used, self.used_mb) = (NONE, NONE, 0.0);
    }

    fn unload(&mut self, function: u32) {
        self.unlink(function);
        let entry = &mut self.functions[function as usize];
        entry.loaded = false;
        self.used_mb -= f64::from(entry.memory_mb);
    }

    fn unlink(&mut self, function: u32) {
        let WarmFunction { before, after, .. } = self.functions[function as usize];
        match before {
            NONE => self.longest_unused = after,
            before => self.functions[before as usize].after = after,
        }
        match after {
            NONE => self.last_used = before,
            after => self.functions[after as usize].before = before,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FleetOptions, WorldSpec};

    fn warm_set(capacity_mb: f64) -> WarmSet {
        let mut world = WorldSpec::generate(1, &FleetOptions { functions: 4, ..FleetOptions::default() });
        world.functions.iter_mut().for_each(|function| function.memory_mb = 100.0);
        WarmSet::new(&world.functions, capacity_mb, 50)
    }

    #[test]
    fn a_function_stays_warm_until_its_time_is_up() {
        let mut set = warm_set(1e4);
        assert!(set.begin(0, 1), "first use");
        set.finish(10, 1);
        assert!(!set.begin(59, 1));
        set.finish(60, 1);
        assert!(set.begin(110, 1), "unused for its whole time");
        assert_eq!(set.used_mb, 100.0);
    }

    #[test]
    fn the_longest_unused_gives_way_and_what_runs_does_not() {
        let mut set = warm_set(250.0);
        for function in [0, 1] {
            set.begin(0, function);
        }
        set.finish(1, 0);
        assert!(set.begin(2, 2), "0 must go, 1 runs");
        assert!(!set.functions[0].loaded && set.functions[1].loaded);
        assert!(set.begin(3, 3), "nothing is idle: memory is overdrawn");
        assert_eq!(set.used_mb, 300.0);
    }

    #[test]
    fn idle_functions_leave_the_middle_of_the_list_unharmed() {
        let mut set = warm_set(1e4);
        (0..3).for_each(|function| {
            set.begin(0, function);
        });
        (0..3).for_each(|function| set.finish(u64::from(function), function));
        assert!(!set.begin(5, 1));
        set.expire(51);
        assert_eq!([0, 1, 2].map(|f: usize| set.functions[f].loaded), [false, true, true]);
        set.expire(52);
        assert_eq!((set.longest_unused, set.last_used), (NONE, NONE));
    }

    #[test]
    fn an_antagonist_is_there_its_share_of_the_time() {
        let spec = crate::world::Antagonist { on_ms: 6.0, off_ms: 18.0, least_share: 0.2, most_share: 0.7 };
        let mut visitor = Visitor::new(spec, 1, 0);
        let slowness: f64 = (0..200_000).map(|i| 1.0 / (1.0 - visitor.share_at(nanos(f64::from(i))))).sum();
        assert!((slowness / 2e5 - 1.24).abs() < 0.02, "{}", slowness / 2e5);
    }
}
