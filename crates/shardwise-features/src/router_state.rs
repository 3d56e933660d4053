//! What one router saw itself: its own work in flight and what responses carry back. It is never stale, and measured
//! to be the best signal there is; reported load is not.
//!
//! All updates take `&self`. Numbers live in fixed tables of atomics, so a decision takes no lock and allocates nothing.

use serde::{Deserialize, Serialize};
use shardwise_types::{PlacementRequest, Response, ShardId, Timestamp, combine_keys};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::atomic::{get, set, smooth, update};
use crate::service_table::COMPLEXITY_EXPONENT_PRIOR;
use crate::slots::{SlotImage, SlotTable};
use crate::{DecisionContext, Forecast, ServiceTable};

/// Errors in a row after which a shard is ejected.
const BREAKER_ERRORS: f64 = 5.0;
/// The longest ejection is 2 to this power, in seconds.
const BREAKER_MAX_POWER: f64 = 4.0;
/// Time constant of the arrival rate, in ms.
const RATE_WINDOW_MS: f64 = 10_000.0;
/// Weights of the moving averages: the larger, the faster they forget.
const OTHERS_WEIGHT: f64 = 0.3;
const RESIDUAL_WEIGHT: f64 = 0.15;
const EXEC_WEIGHT: f64 = 0.05;
const FUNCTION_WEIGHT: f64 = 0.1;
const RATIO_WEIGHT: f64 = 0.05;
const TRAFFIC_WEIGHT: f64 = 0.02;
/// Failures and requests are forgotten to 1/e after this, in ms: a shard that is passed over for its errors answers nothing
/// that could clear it, so time must.
const ERROR_MEMORY_MS: f64 = 10_000.0;
/// Good requests that a shard is given credit for: one failure by chance is no reason to leave it.
const ERROR_CREDIT: f64 = 100.0;
/// Residuals are clipped to this many units of ln ms, so that one stall does not condemn a shard.
const RESIDUAL_CLIP: f64 = 2.0;
/// Service time assumed when nothing at all is known, in ln ms (10 ms).
const UNKNOWN_SERVICE_LN_MS: f64 = std::f64::consts::LN_10;
/// Fewer samples than this say nothing on their own (shrinkage `n / (n + k)` of the function residual).
const FUNCTION_RESIDUAL_SHRINKAGE: f64 = 3.0;

/// Fields of a shard's slot.
mod shard {
    pub(super) const IN_FLIGHT: usize = 0;
    pub(super) const IN_FLIGHT_CORES: usize = 1;
    pub(super) const PENDING_MS: usize = 2;
    pub(super) const OTHERS: usize = 3;
    pub(super) const EXEC_LN_MS: usize = 4;
    pub(super) const RESIDUAL: usize = 5;
    pub(super) const ERRORS: usize = 6;
    pub(super) const LATENCY_MS: usize = 7;
    pub(super) const PIGGYBACK_QUEUE: usize = 8;
    pub(super) const PIGGYBACK_AT: usize = 9;
    pub(super) const SINCE_REPORT: usize = 10;
    pub(super) const ERRORS_IN_A_ROW: usize = 11;
    pub(super) const EJECTED_UNTIL: usize = 12;
    pub(super) const EJECTIONS: usize = 13;
    pub(super) const RESPONSES: usize = 14;
    pub(super) const EXECUTIONS: usize = 15;
    /// Sum of the instants at which what is in flight was sent, in ns, modulo 2^64.
    pub(super) const SENT_AT: usize = 16;
    pub(super) const DISPATCHES: usize = 17;
    /// Answered requests, forgotten as errors are.
    pub(super) const ANSWERED: usize = 18;
    /// When errors and answered requests were last counted.
    pub(super) const COUNTED_AT: usize = 19;
    pub(super) const FIELDS: usize = 20;
}

/// Fields of a function's slot.
mod function {
    pub(super) const LN_MS: usize = 0;
    pub(super) const SAMPLES: usize = 1;
    pub(super) const RESIDUAL: usize = 2;
    pub(super) const RESIDUAL_SAMPLES: usize = 3;
    pub(super) const COLD_MS: usize = 4;
    pub(super) const COLD_SAMPLES: usize = 5;
    pub(super) const LAST_DISPATCH: usize = 6;
    pub(super) const FIELDS: usize = 7;
}

/// Fields of the slot of a function on a shard.
mod pair {
    /// When this router last sent it there, in ns + 1 (0 is never).
    pub(super) const LAST_DISPATCH: usize = 0;
    /// How many requests this router had sent to the shard by then.
    pub(super) const DISPATCHES: usize = 1;
    pub(super) const FIELDS: usize = 2;
}

/// One router's memory. It is `Sync`; several threads may decide and learn at once.
pub struct RouterState {
    shards: SlotTable<{ shard::FIELDS }>,
    functions: SlotTable<{ function::FIELDS }>,
    /// Protocol × shard: how much slower than the function's mean, in ln ms.
    ratios: SlotTable<1>,
    dispatched: SlotTable<{ pair::FIELDS }>,
    last_arrival: AtomicU64,
    arrivals_per_s: AtomicU64,
    response_ms: AtomicU64,
    error_rate: AtomicU64,
    responses: AtomicU64,
    /// When the last ejection of any shard ends.
    last_ejection_ends: AtomicU64,
}

/// What a router knows of one shard from its own traffic.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ShardLocal {
    /// Own requests that have not come back.
    pub in_flight: f64,
    /// The same in cores: a request counts for the share of its time that it is expected to spend on a core.
    pub in_flight_cores: f64,
    /// Predicted execution time of own requests in flight, in ms.
    pub pending_ms: f64,
    /// Sum over own requests in flight of when they were sent, in ns, modulo 2^64: see [`in_flight_age_ms`](Self::in_flight_age_ms).
    sent_at: u64,
    /// Requests ever sent.
    pub dispatches: f64,
    /// Cores that other routers' requests are estimated to want.
    pub others: f64,
    /// Moving mean of ln execution ms here, 0 before the first.
    pub exec_ln_ms: f64,
    /// Moving mean of ln(measured / expected) execution: above 0 the shard is slower than it should be.
    pub residual: f64,
    /// Share of failed requests over the last ten seconds or so, as if a hundred good ones had come before.
    pub error_rate: f64,
    /// Moving mean of the time from dispatch to response, in ms.
    pub latency_ms: f64,
    /// Requests on the shard when it last answered.
    pub piggyback_queue: f64,
    /// When it last answered.
    pub piggyback_at: Option<Timestamp>,
    /// Own requests sent since the shard's last report.
    pub since_report: f64,
    /// Responses ever.
    pub responses: f64,
    /// Successful warm executions ever.
    pub executions: f64,
}

impl ShardLocal {
    /// Cores that are wanted on the shard now: own and others'.
    pub fn cores_wanted(&self) -> f64 {
        self.in_flight_cores + self.others
    }

    /// How long own requests have been in flight on average, in ms; `None` when there are none. One that runs far longer
    /// than expected holds up what comes after it, and shows here.
    pub fn in_flight_age_ms(&self, now: Timestamp) -> Option<f64> {
        let n = self.in_flight as u64;
        let sum_ns = now.nanos().cast_unsigned().wrapping_mul(n).wrapping_sub(self.sent_at).cast_signed();
        (n > 0).then(|| (sum_ns as f64 / n as f64 / 1e6).max(0.0))
    }

    /// Expected time in the queue of a shard with so many cores, in ms: what is ahead of a request that arrives now, each
    /// taking as long as those in flight are expected to, or `execution_ms` when none of them is this router's.
    pub fn wait_ms(&self, cores: f64, execution_ms: f64) -> f64 {
        let ahead = (self.cores_wanted() - cores + 1.0).max(0.0) / cores;
        let mean_ms = match self.in_flight > 0.0 {
            true => self.pending_ms / self.in_flight * self.residual.exp(),
            false => execution_ms,
        };
        ahead * mean_ms
    }
}

/// Whether a shard may be sent requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// It may.
    Closed,
    /// It failed too often in a row and is ejected for a while.
    Open,
}

/// What must be remembered of a dispatched request until its response comes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ticket {
    shard: u64,
    function: u64,
    protocol_shard: u64,
    /// Expected execution on that shard, complexity included, residuals not, in ln ms.
    service_ln_ms: f64,
    /// What was added to the shard's cores in flight.
    cores: f64,
    /// ln of the request's complexity.
    complexity_ln: f64,
    /// When it was sent.
    sent_at: Timestamp,
    /// What was foretold of it.
    #[serde(skip)]
    pub forecast: Forecast,
}

/// A saved [`RouterState`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RouterImage {
    shards: Vec<SlotImage>,
    functions: Vec<SlotImage>,
    ratios: Vec<SlotImage>,
    dispatched: Vec<SlotImage>,
    totals: [u64; 6],
}

impl Default for RouterState {
    fn default() -> Self {
        Self::new()
    }
}

impl RouterState {
    /// A router that has seen nothing. Takes about 1.3 MiB, once, and never more: it remembers 4,096 shards, 4,096
    /// functions, 4,096 protocol × shard and 32,768 function × shard pairs.
    pub fn new() -> Self {
        Self {
            shards: SlotTable::new(12),
            functions: SlotTable::new(12),
            ratios: SlotTable::new(12),
            dispatched: SlotTable::new(15),
            last_arrival: AtomicU64::new(0),
            arrivals_per_s: AtomicU64::new(0),
            response_ms: AtomicU64::new(0),
            error_rate: AtomicU64::new(0),
            responses: AtomicU64::new(0),
            last_ejection_ends: AtomicU64::new(0),
        }
    }

    /// What is known of a shard at `now`.
    pub fn shard(&self, id: &ShardId, now: Timestamp) -> ShardLocal {
        let Some(fields) = self.shards.find(id.key()) else { return ShardLocal::default() };
        let number = |field: usize| get(&fields[field]);
        ShardLocal {
            in_flight: number(shard::IN_FLIGHT),
            in_flight_cores: number(shard::IN_FLIGHT_CORES),
            pending_ms: number(shard::PENDING_MS),
            sent_at: fields[shard::SENT_AT].load(Relaxed),
            dispatches: number(shard::DISPATCHES),
            others: number(shard::OTHERS),
            exec_ln_ms: number(shard::EXEC_LN_MS),
            residual: number(shard::RESIDUAL),
            error_rate: error_rate(fields, now),
            latency_ms: number(shard::LATENCY_MS),
            piggyback_queue: number(shard::PIGGYBACK_QUEUE),
            piggyback_at: instant(fields[shard::PIGGYBACK_AT].load(Relaxed)),
            since_report: number(shard::SINCE_REPORT),
            responses: number(shard::RESPONSES),
            executions: number(shard::EXECUTIONS),
        }
    }

    /// Own requests that have not come back from a shard; the same as in [`shard`](Self::shard), for those who need
    /// nothing else.
    #[inline]
    pub fn in_flight(&self, id: &ShardId) -> f64 {
        self.shards.find(id.key()).map_or(0.0, |fields| get(&fields[shard::IN_FLIGHT]))
    }

    /// Whether any shard is ejected at `now`; most of the time none is, and then there is nothing to look up.
    #[inline]
    pub fn has_ejected(&self, now: Timestamp) -> bool {
        instant(self.last_ejection_ends.load(Relaxed)).is_some_and(|until| now < until)
    }

    /// Whether the shard is ejected at `now`.
    pub fn breaker(&self, id: &ShardId, now: Timestamp) -> BreakerState {
        let ejected_until =
            self.shards.find(id.key()).and_then(|fields| instant(fields[shard::EJECTED_UNTIL].load(Relaxed)));
        match ejected_until {
            Some(until) if now < until => BreakerState::Open,
            _ => BreakerState::Closed,
        }
    }

    /// When this router last sent the function to the shard.
    pub fn last_dispatch(&self, request: &PlacementRequest, id: &ShardId) -> Option<Timestamp> {
        let fields = self.dispatched.find(combine_keys(request.function.key(), id.key()))?;
        instant(fields[pair::LAST_DISPATCH].load(Relaxed))
    }

    /// Requests that this router sent to the shard since it last sent the function there, that one included: the more,
    /// the likelier the function had to make way for others. `None` when it never did.
    pub fn dispatches_since(&self, request: &PlacementRequest, id: &ShardId) -> Option<f64> {
        let fields = self.dispatched.find(combine_keys(request.function.key(), id.key()))?;
        let sent = self.shards.find(id.key()).map_or(0.0, |shard| get(&shard[shard::DISPATCHES]));
        instant(fields[pair::LAST_DISPATCH].load(Relaxed)).map(|_| sent - get(&fields[pair::DISPATCHES]))
    }

    /// When this router last placed the function anywhere.
    pub fn last_seen(&self, request: &PlacementRequest) -> Option<Timestamp> {
        instant(self.functions.find(request.function.key())?[function::LAST_DISPATCH].load(Relaxed))
    }

    /// How much slower than expected the function has been of late, in ln, shrunk toward 0 when there is little to
    /// go by.
    pub fn function_residual(&self, request: &PlacementRequest) -> f64 {
        let Some(fields) = self.functions.find(request.function.key()) else { return 0.0 };
        let samples = get(&fields[function::RESIDUAL_SAMPLES]);
        get(&fields[function::RESIDUAL]) * samples / (samples + FUNCTION_RESIDUAL_SHRINKAGE)
    }

    /// Expected warm execution by what this router measured itself, complexity included, in ln ms; `None` when it
    /// never ran the function.
    pub fn online_service_ln_ms(&self, request: &PlacementRequest, id: &ShardId) -> Option<f64> {
        let fields = self.functions.find(request.function.key())?;
        (get(&fields[function::SAMPLES]) > 0.0).then(|| {
            let complexity = COMPLEXITY_EXPONENT_PRIOR * f64::from(request.data_complexity).ln();
            get(&fields[function::LN_MS]) + self.ratio(request, id) + complexity
        })
    }

    /// Expected warm execution on a shard, complexity included and residuals not, in ln ms: by the table where it
    /// knows the function, else by what was measured online, else by what the caller expects; `None` when nothing is
    /// known.
    pub fn service_ln_ms(&self, table: Option<&ServiceTable>, request: &PlacementRequest, id: &ShardId) -> Option<f64> {
        table
            .and_then(|table| table.service_ln_ms(request, id))
            .or_else(|| self.online_service_ln_ms(request, id))
            .or_else(|| request.expected_compute_ms.map(|ms| f64::from(ms).ln() + self.ratio(request, id)))
    }

    /// Extra milliseconds that cold starts of the function cost this router; `None` before the first.
    pub fn online_cold_ms(&self, request: &PlacementRequest) -> Option<f64> {
        let fields = self.functions.find(request.function.key())?;
        (get(&fields[function::COLD_SAMPLES]) > 0.0).then(|| get(&fields[function::COLD_MS]))
    }

    /// Requests per second that this router sees, as a moving mean over ten seconds.
    pub fn arrivals_per_s(&self, now: Timestamp) -> f64 {
        let Some(last) = instant(self.last_arrival.load(Relaxed)) else { return 0.0 };
        get(&self.arrivals_per_s) * (-now.millis_since(last).max(0.0) / RATE_WINDOW_MS).exp()
    }

    /// Moving mean of the response time, in ms; `None` before the first response.
    pub fn response_ms(&self) -> Option<f64> {
        (get(&self.responses) > 0.0).then(|| get(&self.response_ms))
    }

    /// Moving share of failed requests; `None` before the first response.
    pub fn error_rate(&self) -> Option<f64> {
        (get(&self.responses) > 0.0).then(|| get(&self.error_rate))
    }

    /// Counts a request that goes to a shard of the context's fleet; the ticket must come back with its response.
    pub fn on_dispatch(&self, context: &DecisionContext<'_>, chosen: usize) -> Ticket {
        let (request, target) = (context.request, &context.fleet.shards[chosen]);
        self.count_arrival(context.decided_at);
        let fields = self.shards.claim(target.id.key());
        let service_ln_ms = self.service_ln_ms(context.service_table, request, &target.id).unwrap_or_else(|| {
            match get(&fields[shard::EXECUTIONS]) > 0.0 {
                true => get(&fields[shard::EXEC_LN_MS]),
                false => UNKNOWN_SERVICE_LN_MS,
            }
        });
        let cores = core_share(context, chosen, service_ln_ms.exp());
        update(&fields[shard::IN_FLIGHT], |n| n + 1.0);
        update(&fields[shard::IN_FLIGHT_CORES], |n| n + cores);
        update(&fields[shard::PENDING_MS], |ms| ms + service_ln_ms.exp());
        update(&fields[shard::SINCE_REPORT], |n| n + 1.0);
        fields[shard::SENT_AT].fetch_add(context.decided_at.nanos().cast_unsigned(), Relaxed);
        let before = update(&fields[shard::DISPATCHES], |n| n + 1.0) - 1.0;
        let pair = self.dispatched.claim(combine_keys(request.function.key(), target.id.key()));
        pair[pair::LAST_DISPATCH].store(stamp(context.decided_at), Relaxed);
        set(&pair[pair::DISPATCHES], before);
        self.functions.claim(request.function.key())[function::LAST_DISPATCH].store(stamp(context.decided_at), Relaxed);
        Ticket {
            shard: target.id.key(),
            function: request.function.key(),
            protocol_shard: combine_keys(request.protocol.key(), target.id.key()),
            service_ln_ms,
            cores,
            complexity_ln: f64::from(request.data_complexity).ln(),
            sent_at: context.decided_at,
            forecast: Forecast::default(),
        }
    }

    /// Learns from a response at the instant it arrives.
    pub fn on_response(&self, ticket: &Ticket, response: &Response, known_at: Timestamp) {
        let fields = self.shards.claim(ticket.shard);
        settle(&fields[shard::IN_FLIGHT], 1.0);
        settle(&fields[shard::IN_FLIGHT_CORES], ticket.cores);
        settle(&fields[shard::PENDING_MS], ticket.service_ln_ms.exp());
        fields[shard::SENT_AT].fetch_sub(ticket.sent_at.nanos().cast_unsigned(), Relaxed);
        if response.error == Some(shardwise_types::ErrorClass::Cancelled) {
            return;
        }
        let failed = f64::from(u8::from(!response.is_ok()));
        let first = update(&fields[shard::RESPONSES], |n| n + 1.0) == 1.0;
        count_answer(fields, failed, known_at);
        smooth(&fields[shard::LATENCY_MS], f64::from(response.total_ms), if first { 1.0 } else { EXEC_WEIGHT });
        self.count_response(response, failed);
        if response.is_ok() {
            set(&fields[shard::ERRORS_IN_A_ROW], 0.0);
            set(&fields[shard::EJECTIONS], 0.0);
        } else {
            self.eject_after_errors(fields, known_at);
        }
        // A request that the shard never answered carries no queue length.
        if response.error != Some(shardwise_types::ErrorClass::Timeout) {
            let queue = f64::from(response.queue_len);
            set(&fields[shard::PIGGYBACK_QUEUE], queue);
            fields[shard::PIGGYBACK_AT].store(stamp(known_at), Relaxed);
            let others = (queue - get(&fields[shard::IN_FLIGHT_CORES])).max(0.0);
            smooth(&fields[shard::OTHERS], others, OTHERS_WEIGHT);
        }
        if response.is_ok() && response.exec_ms > 0.0 {
            match response.cold {
                true => self.learn_cold(ticket, f64::from(response.exec_ms)),
                false => self.learn_service(ticket, fields, f64::from(response.exec_ms).ln()),
            }
        }
    }

    /// Notes that a shard reported.
    pub fn on_report(&self, id: &ShardId) {
        if let Some(fields) = self.shards.find(id.key()) {
            set(&fields[shard::SINCE_REPORT], 0.0);
        }
    }

    /// Everything that is remembered, to be restored after a restart or at the start of a day's replay.
    pub fn save(&self) -> RouterImage {
        RouterImage {
            shards: self.shards.save(),
            functions: self.functions.save(),
            ratios: self.ratios.save(),
            dispatched: self.dispatched.save(),
            totals: self.totals().map(|total| total.load(Relaxed)),
        }
    }

    /// A router that remembers what was saved.
    pub fn restore(image: &RouterImage) -> Self {
        let state = Self::new();
        state.shards.restore(&image.shards);
        state.functions.restore(&image.functions);
        state.ratios.restore(&image.ratios);
        state.dispatched.restore(&image.dispatched);
        state.totals().iter().zip(image.totals).for_each(|(total, value)| total.store(value, Relaxed));
        state
    }

    fn totals(&self) -> [&AtomicU64; 6] {
        [
            &self.last_arrival,
            &self.arrivals_per_s,
            &self.response_ms,
            &self.error_rate,
            &self.responses,
            &self.last_ejection_ends,
        ]
    }

    fn ratio(&self, request: &PlacementRequest, id: &ShardId) -> f64 {
        self.ratios.find(combine_keys(request.protocol.key(), id.key())).map_or(0.0, |fields| get(&fields[0]))
    }

    fn count_arrival(&self, now: Timestamp) {
        let rate = self.arrivals_per_s(now) + 1e3 / RATE_WINDOW_MS;
        set(&self.arrivals_per_s, rate);
        self.last_arrival.store(stamp(now), Relaxed);
    }

    fn count_response(&self, response: &Response, failed: f64) {
        let weight = if update(&self.responses, |n| n + 1.0) == 1.0 { 1.0 } else { TRAFFIC_WEIGHT };
        smooth(&self.response_ms, f64::from(response.total_ms), weight);
        smooth(&self.error_rate, failed, weight);
    }

    fn eject_after_errors(&self, fields: &[AtomicU64; shard::FIELDS], now: Timestamp) {
        if update(&fields[shard::ERRORS_IN_A_ROW], |n| n + 1.0) >= BREAKER_ERRORS {
            let power = get(&fields[shard::EJECTIONS]).min(BREAKER_MAX_POWER);
            let until = stamp(now.plus_millis(1000.0 * power.exp2()));
            fields[shard::EJECTED_UNTIL].store(until, Relaxed);
            self.last_ejection_ends.fetch_max(until, Relaxed);
            set(&fields[shard::ERRORS_IN_A_ROW], 0.0);
            update(&fields[shard::EJECTIONS], |n| n + 1.0);
        }
    }

    fn learn_cold(&self, ticket: &Ticket, exec_ms: f64) {
        let fields = self.functions.claim(ticket.function);
        let first = update(&fields[function::COLD_SAMPLES], |n| n + 1.0) == 1.0;
        let extra_ms = (exec_ms - ticket.service_ln_ms.exp()).max(0.0);
        smooth(&fields[function::COLD_MS], extra_ms, if first { 1.0 } else { FUNCTION_WEIGHT });
    }

    fn learn_service(&self, ticket: &Ticket, fields: &[AtomicU64; shard::FIELDS], exec_ln_ms: f64) {
        let first = update(&fields[shard::EXECUTIONS], |n| n + 1.0) == 1.0;
        smooth(&fields[shard::EXEC_LN_MS], exec_ln_ms, if first { 1.0 } else { EXEC_WEIGHT });
        let error = (exec_ln_ms - ticket.service_ln_ms).clamp(-RESIDUAL_CLIP, RESIDUAL_CLIP);
        let beyond_shard = error - get(&fields[shard::RESIDUAL]);
        smooth(&fields[shard::RESIDUAL], error, RESIDUAL_WEIGHT);

        let functions = self.functions.claim(ticket.function);
        update(&functions[function::RESIDUAL_SAMPLES], |n| n + 1.0);
        smooth(&functions[function::RESIDUAL], beyond_shard, FUNCTION_WEIGHT);

        // SED-tab's tables: a mean per function, a ratio per protocol and shard, each fitted to what the other leaves.
        let ratio = &self.ratios.claim(ticket.protocol_shard)[0];
        let plain = exec_ln_ms - COMPLEXITY_EXPONENT_PRIOR * ticket.complexity_ln;
        if update(&functions[function::SAMPLES], |n| n + 1.0) == 1.0 {
            set(&functions[function::LN_MS], plain - get(ratio));
        }
        let left = plain - get(&functions[function::LN_MS]) - get(ratio);
        update(&functions[function::LN_MS], |mean| mean + FUNCTION_WEIGHT * left);
        update(ratio, |r| r + RATIO_WEIGHT * left);
    }
}

/// Share of a request's time on the shard that it spends on a core: the rest it waits for an exchange.
fn core_share(context: &DecisionContext<'_>, chosen: usize, service_ms: f64) -> f64 {
    let (request, network) = (context.request, &context.fleet.network);
    let exchange_rtt =
        network.rtt_ms(&context.fleet.shards[chosen].shape.region, network.exchange_region(&request.exchange));
    let waits_ms = f64::from(request.exchange_calls) * f64::from(exchange_rtt);
    service_ms / (service_ms + waits_ms).max(f64::MIN_POSITIVE)
}

/// What is left at `now` of what was counted before.
fn remembered(fields: &[AtomicU64; shard::FIELDS], now: Timestamp) -> f64 {
    let counted_at = instant(fields[shard::COUNTED_AT].load(Relaxed));
    counted_at.map_or(0.0, |at| (-now.millis_since(at).max(0.0) / ERROR_MEMORY_MS).exp())
}

fn error_rate(fields: &[AtomicU64; shard::FIELDS], now: Timestamp) -> f64 {
    let errors = get(&fields[shard::ERRORS]);
    if errors == 0.0 {
        return 0.0;
    }
    let left = remembered(fields, now);
    errors * left / (get(&fields[shard::ANSWERED]) * left + ERROR_CREDIT)
}

fn count_answer(fields: &[AtomicU64; shard::FIELDS], failed: f64, now: Timestamp) {
    let left = remembered(fields, now);
    set(&fields[shard::ERRORS], get(&fields[shard::ERRORS]) * left + failed);
    set(&fields[shard::ANSWERED], get(&fields[shard::ANSWERED]) * left + 1.0);
    fields[shard::COUNTED_AT].store(stamp(now), Relaxed);
}

/// Takes a request's part back; rounding must not leave an empty shard a little busy or below zero.
fn settle(field: &AtomicU64, part: f64) {
    update(field, |sum| if sum - part < 1e-9 { 0.0 } else { sum - part });
}

/// An instant as a field: its nanoseconds, with zero bits kept for "never".
fn stamp(instant: Timestamp) -> u64 {
    (instant.nanos().cast_unsigned()).wrapping_add(1).max(1)
}

fn instant(stamp: u64) -> Option<Timestamp> {
    (stamp != 0).then(|| Timestamp::from_nanos(stamp.wrapping_sub(1).cast_signed()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;
    use shardwise_types::ErrorClass;

    const OK: Response =
        Response { error: None, total_ms: 12.0, exec_ms: 10.0, queue_ms: 1.0, queue_len: 3, cold: false };

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
    fn five_errors_in_a_row_eject_and_the_next_five_for_twice_as_long() {
        let failed = Response { error: Some(ErrorClass::Failed), ..OK };
        let (state, id, now) = after(&[failed; 5]);
        assert_eq!(state.breaker(&id, now.plus_millis(999.0)), BreakerState::Open);
        assert_eq!(state.breaker(&id, now.plus_millis(1001.0)), BreakerState::Closed);
        let (state, id, now) = after(&[failed; 10]);
        assert_eq!(state.breaker(&id, now.plus_millis(1999.0)), BreakerState::Open);
        let (state, id, now) = after(&[failed, failed, failed, failed, OK, failed]);
        assert_eq!(state.breaker(&id, now), BreakerState::Closed);
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
    fn a_restored_router_is_the_same_router() {
        let (state, ..) = after(&[OK, Response { error: Some(ErrorClass::Timeout), ..OK }, OK]);
        assert_eq!(RouterState::restore(&state.save()).save(), state.save());
    }
}
