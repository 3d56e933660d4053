//! What no router can know: when a request would be done on a shard, given all that is on it and on its way to it, and
//! the request's own luck. Oracles decide by it, and regret is measured against it.
//!
//! Under first come first served it is what the engine would do were nothing else to arrive: antagonists and faults are
//! taken to stay as they are. Under processor sharing it is an estimate: the request's share of the cores stays as it is.

use crate::requests::{Attempt, service_draws};
use crate::shard::{Shard, SimTime, millis, nanos};
use crate::tables::{Slots, Tables};
use crate::workload::Workload;
use crate::world::{Discipline, ResourceClass, WorldSpec};

/// The world at one instant, for one arrival.
pub(crate) struct Truth<'a, 'w> {
    pub(crate) world: &'w WorldSpec,
    pub(crate) workload: &'w Workload,
    pub(crate) tables: &'a Tables,
    pub(crate) shards: &'a mut [Shard<'w>],
    pub(crate) attempts: &'a Slots<Attempt>,
    /// Attempts under way to each shard.
    pub(crate) travelling: &'a [Vec<u32>],
    pub(crate) seed: u64,
    pub(crate) now: SimTime,
    pub(crate) arrival: u32,
    /// Reused.
    pub(crate) free_at: &'a mut Vec<SimTime>,
}

/// What a shard would do to an arrival, were nothing else to come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Foreseen {
    /// From now to the answer in ms, at most the timeout, which a failure costs as well.
    pub latency_ms: f64,
    /// There and back, and the calls to the exchange, in ms.
    pub network_ms: f64,
    /// In the queue, in ms.
    pub wait_ms: f64,
    /// On the core, loading included, in ms.
    pub exec_ms: f64,
    /// Of that, loading the function, in ms.
    pub load_ms: f64,
    /// Whether it is answered well and in time.
    pub in_time: bool,
    /// Attempts there and on their way, per core.
    pub utilisation: f64,
}

impl Truth<'_, '_> {
    /// Whether no request can have timed out yet.
    pub(crate) fn is_early(&self) -> bool {
        millis(self.now) < self.world.timing.timeout_ms
    }

    /// What becomes of the arrival on a shard.
    pub(crate) fn foresee(&mut self, shard: u16) -> Foreseen {
        let arrival = &self.workload.arrivals[self.arrival as usize];
        let half_rtt = self.tables.half_rtt(arrival.router as usize, shard);
        let reach = self.now + half_rtt;
        let place = usize::from(shard);
        let (warm_ns, load_ns, fails) = self.execution(shard, reach);
        let exec_ns = warm_ns + load_ns;
        let start = reach.max(self.starts(shard, reach));
        let timeout_ms = self.world.timing.timeout_ms;
        let stretch = match self.world.timing.discipline {
            Discipline::FirstComeFirstServed => 1.0,
            Discipline::ProcessorSharing => self.crowding(place).max(1.0),
        };
        let exchange_ns = self.exchange_ns(shard);
        let done = start + (exec_ns as f64 * stretch) as u64 + exchange_ns + half_rtt;
        let in_time = millis(done - self.now) < timeout_ms && !fails && !self.shards[place].is_silent(self.now);
        Foreseen {
            latency_ms: if in_time { millis(done - self.now) } else { timeout_ms },
            network_ms: millis(2 * half_rtt + exchange_ns),
            wait_ms: millis(start - reach),
            exec_ms: millis(exec_ns),
            load_ms: millis(load_ns),
            in_time,
            utilisation: self.crowding(place),
        }
    }

    /// Latency were the arrival alone there and its function loaded.
    pub(crate) fn alone(&mut self, shard: u16) -> (f64, u64) {
        let arrival = &self.workload.arrivals[self.arrival as usize];
        let rtt = 2 * self.tables.half_rtt(arrival.router as usize, shard);
        let (exec_ns, _) = self.warm_execution(shard);
        let latency_ms = millis(rtt + exec_ns + self.exchange_ns(shard));
        (latency_ms.min(self.world.timing.timeout_ms), exec_ns)
    }

    fn crowding(&self, shard: usize) -> f64 {
        let there = f64::from(self.shards[shard].occupancy()) + self.travelling[shard].len() as f64;
        (there + 1.0) / f64::from(self.shards[shard].servers())
    }

    fn exchange_ns(&self, shard: u16) -> u64 {
        let request = &self.workload.arrivals[self.arrival as usize].request;
        match request.exchange_calls {
            0 => 0,
            calls => u64::from(calls) * self.tables.exchange_rtt(shard, &request.exchange),
        }
    }

    /// When a core is free for an attempt that arrives at `reach`.
    fn starts(&mut self, shard: u16, reach: SimTime) -> SimTime {
        let place = usize::from(shard);
        if self.world.timing.discipline == Discipline::ProcessorSharing {
            return reach;
        }
        self.free_at.clear();
        self.free_at.extend(self.shards[place].running().iter().map(|slot| self.attempts[*slot].leaves));
        self.free_at.resize(self.shards[place].servers() as usize, self.now);
        let all = [ResourceClass::Compute, ResourceClass::Memory, ResourceClass::Io];
        let slowdowns = all.map(|resource| self.shards[place].slowdown(self.now, resource));
        for waiting in 0..self.shards[place].waiting() {
            let slot = self.shards[place].waiting_at(waiting);
            self.occupy(place, slot, self.now, slowdowns);
        }
        let mut coming: Vec<(SimTime, u32)> =
            self.travelling[place].iter().map(|slot| (self.attempts[*slot].reached, *slot)).collect();
        coming.retain(|(at, _)| *at <= reach);
        coming.sort_unstable();
        for (at, slot) in coming {
            self.occupy(place, slot, at, slowdowns);
        }
        *self.free_at.iter().min().expect("a shard has cores")
    }

    /// The first free core is taken by an attempt that is there at `from`.
    fn occupy(&mut self, shard: usize, slot: u32, from: SimTime, slowdowns: [f64; 3]) {
        let attempt = &self.attempts[slot];
        let index = self.workload.arrivals[attempt.arrival as usize].function;
        let function = &self.world.functions[index as usize];
        let load_ms = if self.shards[shard].is_warm(from, index) { 0.0 } else { function.load_ms };
        let exec_ns = nanos(attempt.plain_ms * slowdowns[function.resource as usize] + load_ms);
        let free = self.free_at.iter_mut().min().expect("a shard has cores");
        *free = (*free).max(from) + exec_ns;
    }

    /// Core time of the arrival on a shard: running and loading; and whether it fails.
    fn execution(&mut self, shard: u16, at: SimTime) -> (u64, u64, bool) {
        let (warm_ns, fails) = self.warm_execution(shard);
        let function = self.workload.arrivals[self.arrival as usize].function;
        let is_warm = self.shards[usize::from(shard)].is_warm(at, function);
        let load_ns = if is_warm { 0 } else { nanos(self.world.functions[function as usize].load_ms) };
        (warm_ns, load_ns, fails)
    }

    fn warm_execution(&mut self, shard: u16) -> (u64, bool) {
        let request = &self.workload.arrivals[self.arrival as usize];
        let function = &self.world.functions[request.function as usize];
        let draws = service_draws(self.world, self.seed, self.arrival, function.log_sd);
        let there = &mut self.shards[usize::from(shard)];
        let fails = draws.luck < there.failing_share(self.now) || draws.luck > 1.0 - self.world.timing.failure_rate;
        let slowdown = there.slowdown(self.now, function.resource);
        let plain_ms =
            self.tables.base_ms(shard, request.function) * function.complexity_factor(request.request.data_complexity);
        (nanos(plain_ms * draws.noise * slowdown), fails)
    }
}
