//! What becomes of a request: attempts are sent, queue, run and answer; routers give up, try again, send copies and
//! call them off.
//!
//! An attempt is one message to one shard. Its slot is kept while the router waits for it or anything else refers to it:
//! an event, a queue, a core.

use std::ops::ControlFlow;

use rand::RngExt;
use rand_distr::{Exp1, StandardNormal};
use shardwise_features::Ticket;
use shardwise_types::{DecisionRecord, ErrorClass, HistoryRecord, OutcomeRecord, Response};

use crate::engine::{Flow, NO_SLOT, Simulation};
use crate::events::Event;
use crate::player::Player;
use crate::recorder::Recorder;
use crate::router::{Ask, OutAttempt, Placement, SimRouter};
use crate::shard::{SimTime, millis, nanos};
use crate::streams::{Purpose, stream};
use crate::truth::Truth;
use crate::world::{Discipline, ServiceNoise, WorldSpec};

/// Core time of a request that fails at once, in ms.
const FAIL_FAST_MS: f64 = 0.2;

/// Where an attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Travelling,
    Waiting,
    Running,
    /// It has left the core, or will never reach one.
    Gone,
}

/// An attempt to have a request done.
pub(crate) struct Attempt {
    pub(crate) arrival: u32,
    shard: u16,
    stage: Stage,
    /// The router waits for it no more.
    closed: bool,
    /// What refers to it: events, a queue, a core.
    references: u8,
    cold: bool,
    failed: bool,
    /// The router wants to hear when it begins to run, and whether it has heard.
    watched: bool,
    heard_started: bool,
    /// How often the request was sent before.
    tries: u8,
    queue_len: u32,
    /// Attempts that it found on the shard.
    found: u32,
    /// The other copy that is out, else [`NO_SLOT`].
    other: u32,
    exec_ms: f32,
    decision_id: u64,
    ticket: Ticket,
    /// Warm core time here without what the shard suffers at the moment, in ms.
    pub(crate) plain_ms: f64,
    /// Its luck, in [0, 1): below the share of requests that fail it fails.
    luck: f64,
    sent: SimTime,
    /// When it reaches the shard.
    pub(crate) reached: SimTime,
    started: SimTime,
    /// When it leaves the core, under first come first served.
    pub(crate) leaves: SimTime,
    answered: SimTime,
}

impl Attempt {
    pub(crate) fn is_first(&self) -> bool {
        self.tries == 0
    }
}

/// Everything random about a request's execution, from its own stream.
pub(crate) struct ServiceDraws {
    pub(crate) noise: f64,
    pub(crate) luck: f64,
}

impl<'a> Simulation<'a> {
    // ── from the router ──

    pub(crate) fn begin_request(&mut self, index: usize) -> Flow {
        if matches!(self.routers[self.router_of(index)].player, Player::NoQueueBound) {
            self.settle_at_bound(index);
            return ControlFlow::Continue(());
        }
        match self.place(index) {
            Some(placement) => self.send(index, placement, 0, NO_SLOT),
            None => {
                self.tally.counts.refused += 1;
                self.settle(index, None, NO_SHARD);
                ControlFlow::Continue(())
            }
        }
    }

    fn router_of(&self, index: usize) -> usize {
        self.workload.arrivals[index].router as usize
    }

    fn place(&mut self, index: usize) -> Option<Placement> {
        let request = &self.workload.arrivals[index].request;
        let every = self.options.regret_every;
        let regret = every > 0 && self.is_measured(index) && index.is_multiple_of(every);
        let (records, at, stopwatch) = (self.records, self.at(self.now), self.options.stopwatch);
        let measured = self.is_measured(index).then_some(index);
        let placement = self.with_truth(index, |router, truth, recorder| {
            router.place(&Ask { request, at, measured, records, stopwatch, regret }, truth, recorder)
        })?;
        if self.is_measured(index) {
            self.tally.count_decision(placement.regret_ms, placement.decide_ns);
            if let (Some(answer), Some(is_right)) = (&placement.decision.forecast.answer, placement.is_right) {
                self.tally.judge_answer(answer, is_right);
            }
        }
        Some(placement)
    }

    /// Asks the router of an arrival, with the truth beside it.
    fn with_truth<T>(
        &mut self,
        index: usize,
        ask: impl FnOnce(&mut SimRouter<'a>, &mut Truth<'_, 'a>, &mut dyn Recorder) -> T,
    ) -> T {
        let mut truth = Truth {
            world: self.world,
            workload: self.workload,
            tables: &self.tables,
            shards: &mut self.shards,
            attempts: &self.attempts,
            travelling: &self.travelling,
            seed: self.seed,
            now: self.now,
            arrival: index as u32,
            free_at: &mut self.free_at,
        };
        ask(&mut self.routers[self.workload.arrivals[index].router as usize], &mut truth, &mut *self.recorder)
    }

    /// The bound knows no queue: the request is done when it would be, alone.
    fn settle_at_bound(&mut self, index: usize) {
        let arrival = &self.workload.arrivals[index];
        let alone = self.with_truth(index, |router, truth, _| router.bound(&arrival.request, arrival.at, truth));
        let Some((latency_ms, exec_ns, shard)) = alone else {
            self.tally.counts.refused += 1;
            return self.settle(index, None, NO_SHARD);
        };
        self.shards[usize::from(shard)].charge(exec_ns);
        self.tally.counts.completed += 1;
        self.settle(index, Some(latency_ms as f32), shard);
    }

    /// Sends an attempt; `other` is the copy of it that is out.
    fn send(&mut self, index: usize, placement: Placement, tries: u8, other: u32) -> Flow {
        let arrival = &self.workload.arrivals[index];
        let at = self.at(self.now);
        let router = &mut self.routers[arrival.router as usize];
        let look_again = match other {
            NO_SLOT => router.look_again_ms(&arrival.request, at, &placement.decision),
            _ => None,
        };
        let travel = self.tables.half_rtt(arrival.router as usize, placement.shard);
        let function = &self.world.functions[arrival.function as usize];
        let draws = service_draws(self.world, self.seed, index as u32, function.log_sd);
        let slot = self.attempts.put(Attempt {
            arrival: index as u32,
            shard: placement.shard,
            stage: Stage::Travelling,
            closed: false,
            references: 0,
            cold: false,
            failed: false,
            watched: look_again.is_some(),
            heard_started: false,
            tries,
            queue_len: 0,
            found: 0,
            other,
            exec_ms: 0.0,
            decision_id: placement.decision_id,
            ticket: placement.ticket,
            plain_ms: self.tables.base_ms(placement.shard, arrival.function)
                * function.complexity_factor(arrival.request.data_complexity)
                * draws.noise,
            luck: draws.luck,
            sent: self.now,
            reached: self.now + travel,
            started: 0,
            leaves: 0,
            answered: 0,
        });
        match other {
            NO_SLOT => self.slot_of[index] = slot,
            other => self.attempts[other].other = slot,
        }
        if self.truth_is_wanted {
            self.travelling[usize::from(placement.shard)].push(slot);
        }
        self.schedule(travel, Event::Reach(slot), slot);
        if let Some(ms) = look_again {
            self.events.push(self.now + nanos(ms), Event::LookAgain(index as u32));
        }
        if tries > 0 {
            let due = (self.now + self.patience).min(self.deadline(index));
            self.events.push(due, Event::Deadline(index as u32));
        }
        self.send_probes(index);
        if self.records { self.record_decision(index, placement) } else { ControlFlow::Continue(()) }
    }

    /// A deadline of something that is tried again; others may have been sent since it was set.
    pub(crate) fn late_deadline(&mut self, index: usize) -> Flow {
        let slot = self.slot_of[index];
        let is_due = slot != NO_SLOT
            && (self.now >= self.deadline(index) || self.attempts[slot].sent + self.patience == self.now);
        if is_due { self.give_up(index) } else { ControlFlow::Continue(()) }
    }

    /// The router gives up on all that is out for an arrival, and may try again.
    pub(crate) fn give_up(&mut self, index: usize) -> Flow {
        let slot = self.slot_of[index];
        let (shard, tries) = (self.attempts[slot].shard, self.attempts[slot].tries);
        for slot in [slot, self.attempts[slot].other] {
            if slot != NO_SLOT {
                let waited_ms = millis(self.now - self.attempts[slot].sent) as f32;
                self.close(slot, &without_answer(ErrorClass::Timeout, waited_ms), self.now)?;
            }
        }
        if self.now < self.deadline(index)
            && let Some(flow) = self.try_again(index, tries)
        {
            return flow;
        }
        self.tally.counts.timeouts += 1;
        self.settle(index, None, shard);
        ControlFlow::Continue(())
    }

    /// Sends the request once more, if it may be and a shard is eligible.
    fn try_again(&mut self, index: usize, tries: u8) -> Option<Flow> {
        if u32::from(tries) + 1 >= self.world.timing.attempts {
            return None;
        }
        let placement = self.place(index)?;
        self.tally.counts.retries += 1;
        Some(self.send(index, placement, tries + 1, NO_SLOT))
    }

    pub(crate) fn look_again(&mut self, index: usize) -> Flow {
        let slot = self.slot_of[index];
        if slot == NO_SLOT || self.attempts[slot].other != NO_SLOT {
            return ControlFlow::Continue(());
        }
        let out = &self.attempts[slot];
        let out = OutAttempt { shard: out.shard, sent_at: self.at(out.sent), started: out.heard_started };
        let tries = self.attempts[slot].tries;
        let (arrival, at) = (&self.workload.arrivals[index], self.at(self.now));
        let Some(copy) = self.routers[arrival.router as usize].copy(&arrival.request, at, &out) else {
            return ControlFlow::Continue(());
        };
        self.tally.counts.copies += 1;
        self.send(index, copy, tries, slot)
    }

    pub(crate) fn hear_started(&mut self, slot: u32) {
        self.attempts[slot].heard_started = true;
        self.release(slot);
    }

    pub(crate) fn respond(&mut self, slot: u32) -> Flow {
        if self.attempts[slot].closed {
            self.release(slot);
            return ControlFlow::Continue(());
        }
        let attempt = &self.attempts[slot];
        let (index, other, shard, tries) = (attempt.arrival as usize, attempt.other, attempt.shard, attempt.tries);
        let response = Response {
            error: attempt.failed.then_some(ErrorClass::Failed),
            total_ms: millis(self.now - attempt.sent) as f32,
            exec_ms: attempt.exec_ms,
            queue_ms: self.queue_ms(attempt),
            queue_len: attempt.queue_len,
            cold: attempt.cold,
        };
        let answered = attempt.answered;
        self.close(slot, &response, answered)?;
        self.release(slot);
        if response.is_ok() {
            if other != NO_SLOT {
                self.call_off(other)?;
            }
            self.tally.counts.completed += 1;
            let since_arrival = self.now - self.since_start(self.workload.arrivals[index].at);
            self.settle(index, Some(millis(since_arrival) as f32), shard);
            return ControlFlow::Continue(());
        }
        if other != NO_SLOT {
            // The copy may still answer.
            self.slot_of[index] = other;
            self.attempts[other].other = NO_SLOT;
            return ControlFlow::Continue(());
        }
        if let Some(flow) = self.try_again(index, tries) {
            return flow;
        }
        self.tally.counts.failed += 1;
        self.settle(index, None, shard);
        ControlFlow::Continue(())
    }

    /// What was waited because of others: in the queue, or while cores were shared.
    fn queue_ms(&self, attempt: &Attempt) -> f32 {
        match self.world.timing.discipline {
            Discipline::FirstComeFirstServed => millis(attempt.started - attempt.reached) as f32,
            Discipline::ProcessorSharing => {
                (millis(attempt.leaves - attempt.started) as f32 - attempt.exec_ms).max(0.0)
            }
        }
    }

    fn call_off(&mut self, slot: u32) -> Flow {
        self.tally.counts.cancelled += 1;
        let (arrival, shard) = (self.attempts[slot].arrival as usize, self.attempts[slot].shard);
        let waited_ms = millis(self.now - self.attempts[slot].sent) as f32;
        let travel = self.tables.half_rtt(self.router_of(arrival), shard);
        self.schedule(travel, Event::Cancel(slot), slot);
        self.close(slot, &without_answer(ErrorClass::Cancelled, waited_ms), self.now)
    }

    /// The router is done with an attempt: it learns, and the outcome is recorded.
    fn close(&mut self, slot: u32, response: &Response, event_at: SimTime) -> Flow {
        let known_at = self.at(self.now);
        let attempt = &mut self.attempts[slot];
        attempt.closed = true;
        let arrival = &self.workload.arrivals[attempt.arrival as usize];
        let router = &mut self.routers[arrival.router as usize];
        router.on_response(&arrival.request, attempt.shard, &attempt.ticket, response, known_at);
        let decision_id = attempt.decision_id;
        if let Some(answer) = attempt.ticket.forecast.answer.filter(|_| response.error != Some(ErrorClass::Cancelled)) {
            let good_ms = response.is_ok().then_some(response.total_ms);
            self.tally.count_answer(attempt.arrival as usize, &answer, arrival.request.risk, good_ms);
        }
        if attempt.references == 0 {
            self.attempts.free(slot);
        }
        if !self.records {
            return ControlFlow::Continue(());
        }
        let router = router.spec.id.clone();
        let (sequence, event_at) = (self.next_record(), self.at(event_at));
        let record = OutcomeRecord { decision_id, sequence, event_at, known_at, router, response: *response };
        self.record(HistoryRecord::Outcome(record))
    }

    /// Ends a request: `Some` latency of a good answer, `None` for everything else.
    fn settle(&mut self, index: usize, good_ms: Option<f32>, shard: u16) {
        self.slot_of[index] = NO_SLOT;
        self.unsettled -= 1;
        let arrival = &self.workload.arrivals[index];
        self.tally.close(self.now, self.since_start(arrival.at));
        self.tally.settle(index, good_ms, &arrival.request, shard);
        if self.is_measured(index) {
            self.recorder.settled(index, good_ms);
        }
    }

    fn record_decision(&mut self, index: usize, placement: Placement) -> Flow {
        let sequence = self.next_record();
        let arrival = &self.workload.arrivals[index];
        let router = &self.routers[arrival.router as usize];
        let decision = placement.decision;
        let record = DecisionRecord {
            decision_id: placement.decision_id,
            sequence,
            known_at: self.at(self.now),
            router: router.spec.id.clone(),
            router_region: router.spec.region.clone(),
            request: arrival.request.clone(),
            shard: self.world.shards[usize::from(placement.shard)].id.clone(),
            propensity: decision.propensity,
            eligible: decision.eligible,
            predicted_ms: decision.predicted_ms,
            policy: router.player.name().to_owned(),
            decided_by: decision.decided_by,
            fallback_reason: decision.fallback_reason,
            model_version: router.player.model_version().map(|version| version.to_string()),
            logged_shards: placement.logged_shards,
            logged_features: placement.logged_features,
        };
        self.record(HistoryRecord::Decision(Box::new(record)))
    }

    // ── on the shard ──

    pub(crate) fn reach(&mut self, slot: u32) {
        let attempt = &self.attempts[slot];
        let (shard, is_called_off) = (usize::from(attempt.shard), attempt.stage == Stage::Gone);
        if self.truth_is_wanted {
            self.travelling[shard].retain(|travelling| *travelling != slot);
        }
        if is_called_off || self.shards[shard].is_silent(self.now) {
            self.attempts[slot].stage = Stage::Gone;
            return self.release(slot);
        }
        self.attempts[slot].found = self.shards[shard].occupancy();
        self.shards[shard].enter(self.now);
        // The reference of the event becomes that of the queue or the core.
        if self.shards[shard].has_free_core() {
            self.start(slot);
        } else {
            self.attempts[slot].stage = Stage::Waiting;
            self.shards[shard].enqueue(slot);
        }
    }

    fn start(&mut self, slot: u32) {
        let attempt = &mut self.attempts[slot];
        let arrival = &self.workload.arrivals[attempt.arrival as usize];
        let function = &self.world.functions[arrival.function as usize];
        let shard = &mut self.shards[usize::from(attempt.shard)];
        let fails_fast = attempt.luck < shard.failing_share(self.now);
        let slowdown = shard.slowdown(self.now, function.resource);
        let cold = shard.begin(self.now, slot, arrival.function);
        let exec_ms = match fails_fast {
            true => FAIL_FAST_MS,
            false => attempt.plain_ms * slowdown + if cold { function.load_ms } else { 0.0 },
        };
        attempt.failed = fails_fast || attempt.luck > 1.0 - self.world.timing.failure_rate;
        (attempt.cold, attempt.exec_ms, attempt.started) = (cold, exec_ms as f32, self.now);
        (attempt.stage, attempt.leaves) = (Stage::Running, self.now + nanos(exec_ms));
        self.tally.count_execution(attempt.arrival as usize, cold);
        if attempt.watched {
            let heard = self.now + self.tables.half_rtt(arrival.router as usize, attempt.shard);
            attempt.references += 1;
            self.events.push(heard, Event::Started(slot));
        }
        let (shard, leaves) = (usize::from(attempt.shard), attempt.leaves);
        match self.world.timing.discipline {
            Discipline::FirstComeFirstServed => self.events.push(leaves, Event::LeaveCore(slot)),
            Discipline::ProcessorSharing => {
                self.shards[shard].share(self.now, slot, nanos(exec_ms));
                self.schedule_shared(shard);
            }
        }
    }

    fn schedule_shared(&mut self, shard: usize) {
        if let Some((at, state)) = self.shards[shard].next_shared(self.now) {
            self.events.push(at, Event::Shared(((shard as u32) << 16) | u32::from(state)));
        }
    }

    pub(crate) fn end_shared(&mut self, bits: u32) {
        let (shard, state) = ((bits >> 16) as usize, bits as u16);
        let Some(slot) = self.shards[shard].shared_done(self.now, state) else { return };
        self.attempts[slot].leaves = self.now;
        self.leave_core(slot);
        self.schedule_shared(shard);
    }

    pub(crate) fn leave_core(&mut self, slot: u32) {
        if self.attempts[slot].stage == Stage::Gone {
            return self.release(slot);
        }
        self.free_core(slot);
        let attempt = &self.attempts[slot];
        let (shard, failed) = (attempt.shard, attempt.failed);
        let arrival = &self.workload.arrivals[attempt.arrival as usize];
        self.start_next(usize::from(shard));
        let calls = u64::from(if failed { 0 } else { arrival.request.exchange_calls });
        let waits = calls * if calls > 0 { self.tables.exchange_rtt(shard, &arrival.request.exchange) } else { 0 };
        if waits > 0 {
            self.events.push(self.now + waits, Event::Answer(slot));
        } else {
            self.answer(slot);
        }
    }

    /// Takes an attempt off its core.
    fn free_core(&mut self, slot: u32) {
        let attempt = &mut self.attempts[slot];
        attempt.stage = Stage::Gone;
        let function = self.workload.arrivals[attempt.arrival as usize].function;
        let shard = &mut self.shards[usize::from(attempt.shard)];
        shard.finish(self.now, slot, function);
        shard.leave(self.now, attempt.reached);
    }

    /// Gives the free core to the first waiting attempt whose request's time is not up; without one, says so.
    fn start_next(&mut self, shard: usize) {
        while let Some(slot) = self.shards[shard].dequeue() {
            let (arrival, reached) = (self.attempts[slot].arrival as usize, self.attempts[slot].reached);
            if self.now < self.deadline(arrival) {
                return self.start(slot);
            }
            // Its router has given up: deadlines come before events of the same instant.
            self.shards[shard].leave(self.now, reached);
            self.shards[shard].count_answer(millis(self.now - reached), true);
            self.tally.counts.dropped += 1;
            self.attempts[slot].stage = Stage::Gone;
            self.release(slot);
        }
        if self.wants_idle_notices {
            self.tell_idle(shard);
        }
    }

    pub(crate) fn answer(&mut self, slot: u32) {
        let attempt = &mut self.attempts[slot];
        let shard = &mut self.shards[usize::from(attempt.shard)];
        if shard.is_silent(self.now) {
            return self.release(slot);
        }
        (attempt.answered, attempt.queue_len) = (self.now, shard.occupancy());
        let on_shard_ms = millis(self.now - attempt.reached);
        shard.count_answer(on_shard_ms, attempt.failed);
        shard.note_latency(attempt.found, on_shard_ms as f32);
        let travel =
            self.tables.half_rtt(self.workload.arrivals[attempt.arrival as usize].router as usize, attempt.shard);
        self.events.push_after(self.now, travel, Event::Response(slot));
    }

    /// Word that an attempt is called off has come.
    pub(crate) fn cancelled(&mut self, slot: u32) {
        let attempt = &mut self.attempts[slot];
        let (shard, stage, reached) = (usize::from(attempt.shard), attempt.stage, attempt.reached);
        attempt.stage = Stage::Gone;
        match stage {
            Stage::Waiting => {
                self.shards[shard].forget_waiting(slot);
                self.shards[shard].leave(self.now, reached);
                self.release(slot);
            }
            Stage::Running => {
                self.stop_running(slot, shard);
                self.start_next(shard);
                self.reschedule_shared(shard);
            }
            // It will find itself gone when it comes, or has answered already.
            Stage::Travelling | Stage::Gone => {}
        }
        self.release(slot);
    }

    /// Takes an attempt off its core before its time. Under first come first served its end is still to come and keeps
    /// the reference.
    fn stop_running(&mut self, slot: u32, shard: usize) {
        if self.world.timing.discipline == Discipline::ProcessorSharing {
            self.shards[shard].stop_sharing(self.now, slot);
            self.free_core(slot);
            self.release(slot);
        } else {
            self.free_core(slot);
        }
    }

    fn reschedule_shared(&mut self, shard: usize) {
        if self.world.timing.discipline == Discipline::ProcessorSharing {
            self.schedule_shared(shard);
        }
    }

    /// A shard fails with all its work.
    pub(crate) fn fail(&mut self, shard: usize) {
        for slot in self.shards[shard].fail(self.now) {
            let attempt = &mut self.attempts[slot];
            let (stage, reached) = (attempt.stage, attempt.reached);
            attempt.stage = Stage::Gone;
            self.shards[shard].leave(self.now, reached);
            let its_end_is_to_come =
                stage == Stage::Running && self.world.timing.discipline == Discipline::FirstComeFirstServed;
            if !its_end_is_to_come {
                self.release(slot);
            }
        }
    }

    // ── slots ──

    /// Something about an attempt will have crossed the network.
    fn schedule(&mut self, travel: SimTime, event: Event, slot: u32) {
        self.attempts[slot].references += 1;
        self.events.push_after(self.now, travel, event);
    }

    /// Something that referred to an attempt is gone.
    fn release(&mut self, slot: u32) {
        let attempt = &mut self.attempts[slot];
        attempt.references -= 1;
        if attempt.references == 0 && attempt.closed {
            self.attempts.free(slot);
        }
    }
}

/// Stands for the shard of a request that was not placed.
const NO_SHARD: u16 = u16::MAX;

fn without_answer(error: ErrorClass, waited_ms: f32) -> Response {
    Response { error: Some(error), total_ms: waited_ms, exec_ms: 0.0, queue_ms: 0.0, queue_len: 0, cold: false }
}

pub(crate) fn service_draws(world: &WorldSpec, seed: u64, arrival: u32, log_sd: f64) -> ServiceDraws {
    let timing = &world.timing;
    let mut rng = stream(seed, Purpose::Service, arrival.into());
    let luck = rng.random();
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
    ServiceDraws { noise, luck }
}
