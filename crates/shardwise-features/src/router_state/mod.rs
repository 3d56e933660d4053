//! What one router saw itself: its own work in flight and what responses carry back. It is never stale, and measured
//! to be the best signal there is; reported load is not.
//!
//! All updates take `&self`. Numbers live in fixed tables of atomics, so a decision takes no lock and allocates nothing.

mod breaker;
mod config;
mod function_slot;
mod image;
mod in_flight;
mod shard_local;
mod shard_slot;
mod slow_start;
mod stamp;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use shardwise_types::{PlacementRequest, Placements, Response, ShardId, Timestamp, combine_keys};
use std::sync::atomic::Ordering::Relaxed;

use crate::atomic::{AtomicU64, get, set, smooth, update};
use crate::service_table::COMPLEXITY_EXPONENT_PRIOR;
use crate::slots::SlotTable;
use crate::{DecisionContext, Forecast, ServiceTable};

pub use breaker::BreakerState;
pub use config::RouterConfig;
pub use image::{ImageError, RouterImage};
pub use shard_local::ShardLocal;

use breaker::{Breakers, Outcome};
use function_slot::{self as function, pair};
use in_flight::{Generations, InFlight};
use shard_slot as shard;
use slow_start::SlowStart;
use stamp::{instant, stamp};

/// Slots, as powers of two: for shards, functions and protocols on shards; for functions on shards.
const NAME_BITS: u32 = 12;
const PAIR_BITS: u32 = 15;
/// Numbers that belong to no slot.
const TOTALS: usize = 13;
/// Time constant of the arrival rate, in ms.
const RATE_WINDOW_MS: f64 = 10_000.0;
/// Weights of the moving averages: the larger, the faster they forget.
const OTHERS_WEIGHT: f64 = 0.3;
const RESIDUAL_WEIGHT: f64 = 0.15;
const REPORT_GAP_WEIGHT: f64 = 0.2;
/// Time between reports of a shard that has reported once, in ms.
const UNKNOWN_GAP_MS: f64 = 10_000.0;
const EXEC_WEIGHT: f64 = 0.05;
const FUNCTION_WEIGHT: f64 = 0.1;
const RATIO_WEIGHT: f64 = 0.05;
const TRAFFIC_WEIGHT: f64 = 0.02;
/// Residuals are clipped to this many units of ln ms, so that one stall does not condemn a shard.
const RESIDUAL_CLIP: f64 = 2.0;
/// Service time assumed when nothing at all is known, in ln ms (10 ms).
const UNKNOWN_SERVICE_LN_MS: f64 = std::f64::consts::LN_10;
/// Fewer samples than this say nothing on their own (shrinkage `n / (n + k)` of the function residual).
const FUNCTION_RESIDUAL_SHRINKAGE: f64 = 3.0;

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
    /// Requests whose outcome was given up.
    lost: AtomicU64,
    /// Shards of the fleet at the last dispatch.
    fleet_size: AtomicU64,
    breakers: Breakers,
    slow_start: SlowStart,
    generations: Generations,
    config: RouterConfig,
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
    /// The generation in which it counts as in flight.
    generation: u64,
    /// ln of the request's complexity.
    complexity_ln: f64,
    /// When it was sent.
    sent_at: Timestamp,
    /// What was foretold of it.
    #[serde(skip)]
    pub forecast: Forecast,
}

impl Ticket {
    fn in_flight(&self) -> InFlight {
        InFlight {
            count: 1,
            cores: self.cores,
            pending_ms: self.service_ln_ms.exp(),
            sent_at: self.sent_at.nanos().cast_unsigned(),
        }
    }
}

impl Default for RouterState {
    fn default() -> Self {
        Self::new()
    }
}

impl RouterState {
    /// A router that has seen nothing, with the usual limits.
    pub fn new() -> Self {
        Self::with_config(RouterConfig::default())
    }

    /// A router that has seen nothing. Takes about 2.2 MiB, once, and never more: it remembers 4,096 shards, 4,096
    /// functions, 4,096 protocol × shard and 32,768 function × shard pairs. Limits out of range are brought into it.
    pub fn with_config(config: RouterConfig) -> Self {
        let config = config.in_range();
        Self {
            shards: SlotTable::new(NAME_BITS),
            functions: SlotTable::new(NAME_BITS),
            ratios: SlotTable::new(NAME_BITS),
            dispatched: SlotTable::new(PAIR_BITS),
            last_arrival: AtomicU64::new(0),
            arrivals_per_s: AtomicU64::new(0),
            response_ms: AtomicU64::new(0),
            error_rate: AtomicU64::new(0),
            responses: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            fleet_size: AtomicU64::new(0),
            breakers: Breakers::default(),
            slow_start: SlowStart::default(),
            generations: Generations::new(&config),
            config,
        }
    }

    /// What is known of a shard at `now`.
    pub fn shard(&self, id: &ShardId, now: Timestamp) -> ShardLocal {
        let Some(fields) = self.shards.find(id.key()) else { return ShardLocal::default() };
        let number = |field: usize| get(&fields[field]);
        let in_flight = self.generations.alive(fields, now);
        ShardLocal {
            in_flight: in_flight.count as f64,
            in_flight_cores: in_flight.cores,
            pending_ms: in_flight.pending_ms,
            sent_at: in_flight.sent_at,
            dispatches: number(shard::DISPATCHES),
            others: number(shard::OTHERS),
            exec_ln_ms: number(shard::EXEC_LN_MS),
            residual: number(shard::RESIDUAL),
            error_rate: shard::error_rate(fields, now),
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
    pub fn in_flight(&self, id: &ShardId, now: Timestamp) -> f64 {
        self.shards.find(id.key()).map_or(0.0, |fields| self.generations.count(fields, now) as f64)
    }

    /// Requests whose outcome never came, as far as they were given up: those to a shard are when it reports, or is sent
    /// to, or answers, the next time.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// The limits that hold.
    pub fn config(&self) -> &RouterConfig {
        &self.config
    }

    /// Whether any shard may be ejected or half-open at `now`; most of the time none is, and then there is nothing to look
    /// up.
    #[inline]
    pub fn has_ejected(&self, now: Timestamp) -> bool {
        self.breakers.any(now)
    }

    /// The state of the shard's breaker at `now`.
    pub fn breaker(&self, id: &ShardId, now: Timestamp) -> BreakerState {
        self.shards.find(id.key()).map_or(BreakerState::Closed, |fields| breaker::state(fields, now))
    }

    /// Whether the shard's breaker lets a request through at `now`: it is closed, or half-open and no trial is out.
    pub fn breaker_admits(&self, id: &ShardId, now: Timestamp) -> bool {
        self.shards.find(id.key()).is_none_or(|fields| breaker::admits(fields, now, self.config.lost_after_ms))
    }

    /// Ejections that were refused because [as many shards as may be](RouterConfig::max_ejected_share) were ejected.
    pub fn refused_ejections(&self) -> u64 {
        self.breakers.refused.load(Relaxed)
    }

    /// Whether any shard is new, so that [`slow_start_allows`](Self::slow_start_allows) is worth asking.
    #[inline]
    pub fn has_new_shards(&self, now: Timestamp) -> bool {
        self.slow_start.is_on(now)
    }

    /// Whether a shard may be sent one more request under slow start. For 30 s after it joined, a new shard's part of the
    /// requests that this router sent since is held at `capacity_share` (its part of the fleet's capacity, in [0, 1])
    /// times its age / 30 s, at least a tenth; the first request is free. True for all other shards.
    #[inline]
    pub fn slow_start_allows(&self, id: &ShardId, capacity_share: f64, now: Timestamp) -> bool {
        !self.slow_start.is_on(now)
            || self.shards.find(id.key()).is_none_or(|fields| self.slow_start.allows(fields, capacity_share, now))
    }

    /// When this router last sent the function to the shard, or the shard was last known to keep it loaded.
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
            .or_else(|| self.service_ln_ms_without_table(request, id))
    }

    /// The same without a table's help.
    pub fn service_ln_ms_without_table(&self, request: &PlacementRequest, id: &ShardId) -> Option<f64> {
        self.online_service_ln_ms(request, id)
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
        let part = InFlight {
            count: 1,
            cores: core_share(context, chosen, service_ln_ms.exp()),
            pending_ms: service_ln_ms.exp(),
            sent_at: context.decided_at.nanos().cast_unsigned(),
        };
        self.drop_lost(fields, context.decided_at);
        let generation = self.generations.enter(fields, &part, context.decided_at);
        self.note_dispatch(fields, context);
        update(&fields[shard::SINCE_REPORT], |n| n + 1.0);
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
            cores: part.cores,
            generation,
            complexity_ln: f64::from(request.data_complexity).ln(),
            sent_at: context.decided_at,
            forecast: Forecast::default(),
        }
    }

    /// Notes that other placements hold from now on. What a shard keeps loaded is read off the placements; what it does not
    /// keep any longer was loaded until now, as if this router had just sent it there.
    pub fn on_placements(&self, before: &Placements, after: &Placements, now: Timestamp) {
        for released in before.warm().difference(after.warm()) {
            let sent = self.shards.find(released.shard.key()).map_or(0.0, |fields| get(&fields[shard::DISPATCHES]));
            let pair = self.dispatched.claim(combine_keys(released.function.key(), released.shard.key()));
            pair[pair::LAST_DISPATCH].store(stamp(now), Relaxed);
            set(&pair[pair::DISPATCHES], sent - 1.0);
        }
    }

    /// Learns from a response at the instant it arrives.
    pub fn on_response(&self, ticket: &Ticket, response: &Response, known_at: Timestamp) {
        let fields = self.shards.claim(ticket.shard);
        self.drop_lost(fields, known_at);
        in_flight::leave(fields, ticket.generation, &ticket.in_flight());
        breaker::release_trial(fields, ticket.sent_at);
        if response.error == Some(shardwise_types::ErrorClass::Cancelled) {
            return;
        }
        let failed = f64::from(u8::from(!response.is_ok()));
        let first = update(&fields[shard::RESPONSES], |n| n + 1.0) == 1.0;
        shard::count_answer(fields, failed, known_at);
        // A time that is not finite was not measured; a moving mean would never forget it.
        if response.total_ms.is_finite() {
            smooth(&fields[shard::LATENCY_MS], f64::from(response.total_ms), if first { 1.0 } else { EXEC_WEIGHT });
        }
        self.count_response(response, failed);
        let outcome = Outcome { sent_at: ticket.sent_at, known_at, is_ok: response.is_ok() };
        self.breakers.learn(&self.shards, fields, outcome, || self.max_ejected());
        // A request that the shard never answered carries no queue length.
        if response.error != Some(shardwise_types::ErrorClass::Timeout) {
            let queue = f64::from(response.queue_len);
            set(&fields[shard::PIGGYBACK_QUEUE], queue);
            fields[shard::PIGGYBACK_AT].store(stamp(known_at), Relaxed);
            let others = (queue - get(&fields[shard::IN_FLIGHT_CORES])).max(0.0);
            smooth(&fields[shard::OTHERS], others, OTHERS_WEIGHT);
        }
        if response.is_ok() && response.exec_ms > 0.0 && response.exec_ms.is_finite() {
            match response.cold {
                true => self.learn_cold(ticket, f64::from(response.exec_ms)),
                false => self.learn_service(ticket, fields, f64::from(response.exec_ms).ln()),
            }
        }
    }

    /// Notes that a shard reported, at the instant the report arrives.
    pub fn on_report(&self, id: &ShardId, now: Timestamp) {
        let fields = self.shards.claim(id.key());
        set(&fields[shard::SINCE_REPORT], 0.0);
        self.drop_lost(fields, now);
        self.slow_start.on_report(fields, self.config.start_grace_ms, now);
        if let Some(last) = instant(fields[shard::LAST_REPORT].load(Relaxed)) {
            let weight = if get(&fields[shard::REPORT_GAP_MS]) > 0.0 { REPORT_GAP_WEIGHT } else { 1.0 };
            smooth(&fields[shard::REPORT_GAP_MS], now.millis_since(last).max(0.0), weight);
        }
        fields[shard::LAST_REPORT].store(stamp(now), Relaxed);
    }

    /// Moving mean of the time between a shard's reports, in ms. After the first, when nobody knows yet how often it will
    /// report, ten seconds: were shards taken to be silent until their second, all traffic would crowd onto the few that
    /// happened to report last. 0 before the first.
    pub fn report_gap_ms(&self, id: &ShardId) -> f64 {
        let Some(fields) = self.shards.find(id.key()) else { return 0.0 };
        let gap_ms = get(&fields[shard::REPORT_GAP_MS]);
        if gap_ms > 0.0 || instant(fields[shard::LAST_REPORT].load(Relaxed)).is_none() {
            gap_ms
        } else {
            UNKNOWN_GAP_MS
        }
    }

    /// All numbers that belong to no shard and no function, in the order in which they are saved.
    fn totals(&self) -> [&AtomicU64; TOTALS] {
        [
            &self.last_arrival,
            &self.arrivals_per_s,
            &self.response_ms,
            &self.error_rate,
            &self.responses,
            &self.lost,
            &self.fleet_size,
            &self.breakers.unclosed,
            &self.breakers.last_ends,
            &self.breakers.refused,
            &self.slow_start.first_report,
            &self.slow_start.last_join,
            &self.slow_start.sent,
        ]
    }

    fn drop_lost(&self, fields: &shard::Fields, now: Timestamp) {
        let lost = self.generations.drop_lost(fields, now);
        if lost > 0 {
            self.lost.fetch_add(lost, Relaxed);
        }
    }

    /// What breakers and slow start want to know of a request.
    fn note_dispatch(&self, fields: &shard::Fields, context: &DecisionContext<'_>) {
        let (size, now) = (context.fleet.shards.len() as u64, context.decided_at);
        if self.fleet_size.load(Relaxed) != size {
            self.fleet_size.store(size, Relaxed);
        }
        self.slow_start.on_dispatch(now);
        if self.has_ejected(now) {
            breaker::claim_trial(fields, now, self.config.lost_after_ms);
        }
    }

    /// How many shards may be ejected at once.
    fn max_ejected(&self) -> usize {
        (self.fleet_size.load(Relaxed) as f64 * self.config.max_ejected_share).floor() as usize
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
        if response.total_ms.is_finite() {
            smooth(&self.response_ms, f64::from(response.total_ms), weight);
        }
        smooth(&self.error_rate, failed, weight);
    }

    fn learn_cold(&self, ticket: &Ticket, exec_ms: f64) {
        let fields = self.functions.claim(ticket.function);
        let first = update(&fields[function::COLD_SAMPLES], |n| n + 1.0) == 1.0;
        let extra_ms = (exec_ms - ticket.service_ln_ms.exp()).max(0.0);
        smooth(&fields[function::COLD_MS], extra_ms, if first { 1.0 } else { FUNCTION_WEIGHT });
    }

    fn learn_service(&self, ticket: &Ticket, fields: &shard::Fields, exec_ln_ms: f64) {
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
