//! A bounded log of decisions and outcomes that never holds up the decision.
//!
//! Decisions are written into recycled records, so that the steady state allocates nothing. What finds no room is dropped
//! and counted. A writer drains the log when it likes; where it writes to is left to it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crossbeam_queue::ArrayQueue;
use shardwise_features::{DecisionContext, DecisionFeatures, FEATURE_COUNT, FeatureVector};
use shardwise_policies::Decision;
use shardwise_types::{
    DecisionRecord, HistoryRecord, OutcomeRecord, PlacementRequest, Priority, Region, Response, RiskLevel, RouterId,
    ShardId, Timestamp, Urgency, combine_keys, unit_of,
};

/// Draws the decisions whose candidates are logged apart from anything else that is drawn by decision.
const CANDIDATE_DRAW: u64 = 0x6c6f_6767_6564;
/// Names of policies and versions up to this length are written without allocating even the first time.
const USUAL_NAME_BYTES: usize = 32;

/// What a log is made for.
#[derive(Debug, Clone, PartialEq)]
pub struct LogConfig {
    /// Records that may wait for the writer; at least 1. Each takes about half a KiB, from the start.
    pub capacity: usize,
    /// Whose decisions they are.
    pub router: RouterId,
    /// Where that router stands.
    pub router_region: Region,
    /// For this share of the decisions the features of all candidates are logged, in [0, 1].
    pub candidate_share: f64,
}

/// A decision to be logged, before its dispatch changes the router state that its features are computed from.
#[derive(Clone, Copy)]
pub struct LoggedDecision<'a> {
    /// Unique within the history; draws whether the candidates are logged.
    pub decision_id: u64,
    /// Its place among records that are known at the same instant.
    pub sequence: u64,
    /// What was decided on, with the service table of the policy.
    pub context: &'a DecisionContext<'a>,
    /// What was decided.
    pub decision: &'a Decision,
    /// Name of the policy.
    pub policy: &'a str,
    /// Version of the bundle behind it.
    pub model_version: Option<&'a str>,
    /// The eligible shards by their positions in the context's fleet.
    pub candidates: &'a [usize],
}

/// An outcome to be logged.
#[derive(Debug, Clone, Copy)]
pub struct LoggedOutcome<'a> {
    /// The decision.
    pub decision_id: u64,
    /// Its place among records that are known at the same instant.
    pub sequence: u64,
    /// When the shard finished.
    pub event_at: Timestamp,
    /// When the router learned it.
    pub known_at: Timestamp,
    /// The response.
    pub response: &'a Response,
}

/// Records on their way from the threads that decide to the one that writes. Threads share it by reference.
///
/// No call waits for a drain: at most it spins while another thread, in the middle of the same call, stores its record.
///
/// ```
/// use shardwise_inference::{DecisionLog, LogConfig, LoggedDecision};
/// use shardwise_policies::Decision;
///
/// let golden = shardwise_features::golden::contexts().remove(1);
/// let log = DecisionLog::new(LogConfig {
///     capacity: 1024,
///     router: "router-1".into(),
///     router_region: "us-east".into(),
///     candidate_share: 0.02,
/// });
/// log.record(&LoggedDecision {
///     decision_id: 1,
///     sequence: 1,
///     context: &golden.context(),
///     decision: &Decision::by_rule(0, 1.0, 3),
///     policy: "shardwise",
///     model_version: None,
///     candidates: &[0, 1, 2],
/// });
/// assert_eq!(log.drain(100, |record| println!("{record:?}")), 1);
/// ```
pub struct DecisionLog {
    config: LogConfig,
    waiting: ArrayQueue<HistoryRecord>,
    free: ArrayQueue<Box<DecisionRecord>>,
    /// Records that have buffers for candidates. They are large and few, hence kept apart.
    free_wide: ArrayQueue<Box<DecisionRecord>>,
    written: AtomicU64,
    dropped_decisions: AtomicU64,
    dropped_outcomes: AtomicU64,
    without_candidates: AtomicU64,
}

impl DecisionLog {
    /// A log with all of its records, but for the buffers of candidates, which grow to the size of the fleet.
    pub fn new(config: LogConfig) -> Self {
        let capacity = config.capacity.max(1);
        // `as` takes what is no number, or below 0, for none.
        let wide = (config.candidate_share.min(1.0) * capacity as f64).ceil() as usize;
        Self {
            waiting: ArrayQueue::new(capacity),
            free: filled(capacity, capacity, || Box::new(blank(&config))),
            free_wide: filled(wide.max(1), wide, || Box::new(wide_blank(&config))),
            config,
            written: AtomicU64::new(0),
            dropped_decisions: AtomicU64::new(0),
            dropped_outcomes: AtomicU64::new(0),
            without_candidates: AtomicU64::new(0),
        }
    }

    /// Whose decisions they are.
    pub fn router(&self) -> &RouterId {
        &self.config.router
    }

    /// Records that were taken in, waiting ones included.
    pub fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    /// Records that found no room.
    pub fn dropped(&self) -> u64 {
        self.dropped_decisions() + self.dropped_outcomes.load(Relaxed)
    }

    /// Decisions among them. Whoever offers an outcome hears that there is no room for it, and may offer it again.
    pub fn dropped_decisions(&self) -> u64 {
        self.dropped_decisions.load(Relaxed)
    }

    /// Decisions that were drawn to have their candidates logged and do not, because all buffers for them were taken.
    pub fn without_candidates(&self) -> u64 {
        self.without_candidates.load(Relaxed)
    }

    /// Whether the candidates of a decision are logged: always the same for the same id.
    pub fn logs_candidates(&self, decision_id: u64) -> bool {
        is_drawn(decision_id, CANDIDATE_DRAW, self.config.candidate_share)
    }

    /// Logs a decision, or drops and counts it when there is no room.
    ///
    /// # Panics
    /// If a position is not in the context's fleet.
    pub fn record(&self, logged: &LoggedDecision<'_>) {
        // Also refused at the end; here it spares the work on candidates.
        if self.waiting.is_full() {
            return self.drop_decision();
        }
        let wide = self.wide_record(logged);
        let with_candidates = wide.is_some();
        let Some(mut record) = wide.or_else(|| self.free.pop()) else { return self.drop_decision() };
        fill(&mut record, logged);
        if with_candidates {
            fill_candidates(&mut record, logged);
        }
        self.push(HistoryRecord::Decision(record));
    }

    /// Logs an outcome, or drops and counts it when there is no room. Returns whether it was taken in.
    pub fn record_outcome(&self, logged: &LoggedOutcome<'_>) -> bool {
        let LoggedOutcome { decision_id, sequence, event_at, known_at, response } = *logged;
        let router = self.config.router.clone();
        self.push(HistoryRecord::Outcome(OutcomeRecord {
            decision_id,
            sequence,
            event_at,
            known_at,
            router,
            response: *response,
        }))
    }

    /// Hands at most `max` records to the writer, in the order in which they came, and returns how many. Records of one
    /// thread keep their order; those of several are in the order in which they arrived here.
    pub fn drain(&self, max: usize, mut write: impl FnMut(&HistoryRecord)) -> usize {
        let mut drained = 0;
        while drained < max
            && let Some(record) = self.waiting.pop()
        {
            write(&record);
            self.recycle(record);
            drained += 1;
        }
        drained
    }

    fn wide_record(&self, logged: &LoggedDecision<'_>) -> Option<Box<DecisionRecord>> {
        if !self.logs_candidates(logged.decision_id) {
            return None;
        }
        let wide = self.free_wide.pop();
        if wide.is_none() {
            self.without_candidates.fetch_add(1, Relaxed);
        }
        wide
    }

    fn push(&self, record: HistoryRecord) -> bool {
        match self.waiting.push(record) {
            Ok(()) => {
                self.written.fetch_add(1, Relaxed);
                true
            }
            Err(HistoryRecord::Outcome(_)) => {
                self.dropped_outcomes.fetch_add(1, Relaxed);
                false
            }
            Err(record) => {
                self.recycle(record);
                self.drop_decision();
                false
            }
        }
    }

    fn recycle(&self, record: HistoryRecord) {
        let HistoryRecord::Decision(record) = record else { return };
        let is_wide = record.logged_features.capacity() > 0;
        let home = if is_wide { &self.free_wide } else { &self.free };
        home.push(record).expect("a queue has room for every record that was made for it");
    }

    fn drop_decision(&self) {
        self.dropped_decisions.fetch_add(1, Relaxed);
    }
}

/// Draws a share of all decisions by their ids; `purpose` keeps draws for one apart from those for another.
pub(crate) fn is_drawn(decision_id: u64, purpose: u64, share: f64) -> bool {
    unit_of(combine_keys(decision_id, purpose)) < share
}

pub(crate) fn filled<T>(capacity: usize, count: usize, make: impl Fn() -> T) -> ArrayQueue<T> {
    let queue = ArrayQueue::new(capacity);
    for _ in 0..count {
        _ = queue.push(make());
    }
    queue
}

/// A record with buffers for names. What is in it is written over before anyone reads it.
fn blank(config: &LogConfig) -> DecisionRecord {
    DecisionRecord {
        decision_id: 0,
        sequence: 0,
        known_at: Timestamp::from_nanos(0),
        router: config.router.clone(),
        router_region: config.router_region.clone(),
        request: blank_request(),
        shard: ShardId::new(""),
        propensity: 1.0,
        eligible: 0,
        predicted_ms: None,
        policy: String::with_capacity(USUAL_NAME_BYTES),
        decided_by: shardwise_types::DecidedBy::Policy,
        fallback_reason: None,
        model_version: Some(String::with_capacity(USUAL_NAME_BYTES)),
        logged_shards: Vec::new(),
        logged_features: Vec::new(),
    }
}

/// The capacity of its features tells it from the others.
fn wide_blank(config: &LogConfig) -> DecisionRecord {
    DecisionRecord { logged_features: Vec::with_capacity(FEATURE_COUNT), ..blank(config) }
}

fn blank_request() -> PlacementRequest {
    PlacementRequest {
        function: "".into(),
        event_type: "".into(),
        protocol: "".into(),
        trading_pair: "".into(),
        exchange: "".into(),
        risk: RiskLevel::Medium,
        urgency: Urgency::Medium,
        priority: Priority::Normal,
        amount_usd: None,
        data_complexity: 1.0,
        expected_compute_ms: None,
        exchange_calls: 0,
        memory_mb: 0.0,
        residency: None,
        event_at: Timestamp::from_nanos(0),
        market: None,
    }
}

/// Writes everything but the candidates over what a recycled record holds. The router never changes.
fn fill(record: &mut DecisionRecord, logged: &LoggedDecision<'_>) {
    let LoggedDecision { context, decision, .. } = logged;
    record.decision_id = logged.decision_id;
    record.sequence = logged.sequence;
    record.known_at = context.decided_at;
    record.request = context.request.clone();
    record.shard = context.fleet.shards[decision.chosen].id.clone();
    record.propensity = decision.propensity;
    record.eligible = decision.eligible;
    record.predicted_ms = decision.predicted_ms;
    write_over(&mut record.policy, logged.policy);
    record.decided_by = decision.decided_by;
    record.fallback_reason = decision.fallback_reason;
    match (&mut record.model_version, logged.model_version) {
        (Some(buffer), Some(version)) => write_over(buffer, version),
        // Models come and go seldom: only then is a buffer made or given up.
        (place, version) => *place = version.map(str::to_owned),
    }
    record.logged_shards.clear();
    record.logged_features.clear();
}

fn fill_candidates(record: &mut DecisionRecord, logged: &LoggedDecision<'_>) {
    let features = DecisionFeatures::new(logged.context);
    for &position in logged.candidates {
        record.logged_shards.push(logged.context.fleet.shards[position].id.clone());
        record.logged_features.extend_from_slice(FeatureVector::extract(&features, position).as_slice());
    }
}

fn write_over(buffer: &mut String, text: &str) {
    buffer.clear();
    buffer.push_str(text);
}

#[cfg(test)]
mod tests {
    use std::thread;

    use shardwise_features::golden::{GoldenContext, contexts};

    use super::*;

    const CANDIDATES: [usize; 3] = [0, 1, 2];

    fn log(capacity: usize, candidate_share: f64) -> DecisionLog {
        let (router, router_region) = ("router-1".into(), "us-east".into());
        DecisionLog::new(LogConfig { capacity, router, router_region, candidate_share })
    }

    fn golden() -> GoldenContext {
        contexts().remove(1)
    }

    fn record(log: &DecisionLog, golden: &GoldenContext, id: u64) {
        log.record(&LoggedDecision {
            decision_id: id,
            sequence: id + 7,
            context: &golden.context(),
            decision: &Decision { predicted_ms: Some(id as f64), ..Decision::by_rule((id % 3) as usize, 0.5, 3) },
            policy: "shardwise",
            model_version: id.is_multiple_of(2).then_some("0123456789abcdef"),
            candidates: &CANDIDATES,
        });
    }

    fn record_outcome(log: &DecisionLog, id: u64) {
        let at = Timestamp::from_nanos(i64::try_from(id).unwrap());
        let response = Response { error: None, total_ms: 9.0, exec_ms: 5.0, queue_ms: 1.0, queue_len: 2, cold: false };
        log.record_outcome(&LoggedOutcome {
            decision_id: id,
            sequence: id,
            event_at: at,
            known_at: at,
            response: &response,
        });
    }

    fn drained(log: &DecisionLog, max: usize) -> Vec<HistoryRecord> {
        let mut records = Vec::new();
        let count = log.drain(max, |record| records.push(record.clone()));
        assert_eq!(count, records.len());
        records
    }

    fn decision(record: &HistoryRecord) -> &DecisionRecord {
        match record {
            HistoryRecord::Decision(record) => record,
            other => panic!("{other:?} is no decision"),
        }
    }

    fn ids(records: &[HistoryRecord]) -> Vec<u64> {
        records.iter().map(|record| decision(record).decision_id).collect()
    }

    #[test]
    fn what_is_logged_is_what_was_decided_however_often_records_were_used() {
        let (log, golden) = (log(4, 1.0), golden());
        let features = DecisionFeatures::new(&golden.context());
        let rows: Vec<f32> =
            CANDIDATES.iter().flat_map(|&at| FeatureVector::extract(&features, at).into_array()).collect();
        for id in 0..50 {
            record(&log, &golden, id);
            let [logged] = &drained(&log, 9)[..] else { panic!("one record") };
            let expected = DecisionRecord {
                decision_id: id,
                sequence: id + 7,
                known_at: golden.decided_at,
                router: "router-1".into(),
                router_region: "us-east".into(),
                request: golden.request.clone(),
                shard: golden.fleet.shards[(id % 3) as usize].id.clone(),
                propensity: 0.5,
                eligible: 3,
                predicted_ms: Some(id as f64),
                policy: "shardwise".to_owned(),
                decided_by: shardwise_types::DecidedBy::Policy,
                fallback_reason: None,
                model_version: id.is_multiple_of(2).then(|| "0123456789abcdef".to_owned()),
                logged_shards: golden.fleet.shards.iter().map(|shard| shard.id.clone()).collect(),
                logged_features: Vec::new(),
            };
            let bits = |row: &[f32]| row.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&decision(logged).logged_features), bits(&rows));
            assert_eq!(DecisionRecord { logged_features: Vec::new(), ..decision(logged).clone() }, expected);
        }
    }

    #[test]
    fn a_full_log_drops_and_counts_and_goes_on_when_it_is_drained() {
        let (log, golden) = (log(8, 0.0), golden());
        for round in 1..=5 {
            (0..20).for_each(|id| record(&log, &golden, id));
            assert_eq!((log.written(), log.dropped()), (8 * round, 12 * round));
            assert_eq!(ids(&drained(&log, usize::MAX)), (0..8).collect::<Vec<_>>(), "the first are kept");
        }
    }

    #[test]
    fn outcomes_share_the_room_and_the_order() {
        let (log, golden) = (log(4, 0.5), golden());
        for id in 0..3 {
            record(&log, &golden, id);
            record_outcome(&log, id);
        }
        assert_eq!((log.written(), log.dropped()), (4, 2));
        let kinds = drained(&log, 3).iter().map(|r| matches!(r, HistoryRecord::Outcome(_))).collect::<Vec<_>>();
        assert_eq!(kinds, [false, true, false], "at most as many as asked for");
        assert!(matches!(&drained(&log, 3)[..], [HistoryRecord::Outcome(outcome)] if outcome.decision_id == 1));
        (0..4).for_each(|id| record(&log, &golden, id));
        assert_eq!(log.written(), 8, "what a full log refused is free again");
    }

    #[test]
    fn the_candidate_share_is_kept_and_repeats_itself() {
        let golden = golden();
        let with_candidates = |share: f64| {
            let log = log(64, share);
            let mut found = Vec::new();
            for id in 0..5_000 {
                record(&log, &golden, id);
                log.drain(1, |record| found.push(!decision(record).logged_shards.is_empty()));
            }
            assert_eq!(log.without_candidates(), 0);
            found
        };
        for share in [0.0, 0.02, 0.3, 1.0] {
            let found = with_candidates(share);
            let measured = found.iter().filter(|found| **found).count() as f64 / 5_000.0;
            assert!((measured - share).abs() < 0.02 * share.ceil() + 1e-9, "{measured} for {share}");
            assert_eq!(found, with_candidates(share));
        }
        assert!(with_candidates(f64::NAN).iter().all(|found| !found));
    }

    #[test]
    fn a_decision_without_room_for_its_candidates_is_logged_without_them() {
        let (log, golden) = (log(100, 0.1), golden());
        let drawn: Vec<u64> = (0..).filter(|id| log.logs_candidates(*id)).take(15).collect();
        drawn.iter().for_each(|id| record(&log, &golden, *id));
        let records = drained(&log, usize::MAX);
        assert_eq!(ids(&records), drawn);
        assert_eq!(records.iter().filter(|r| !decision(r).logged_shards.is_empty()).count(), 10);
        assert_eq!(log.without_candidates(), 5);
    }

    #[test]
    fn threads_may_record_while_another_drains_and_nothing_is_lost_uncounted() {
        const EACH: u64 = 20_000;
        let (log, golden) = (log(32, 0.1), golden());
        let (mut decisions, mut outcomes) = (Vec::new(), 0);
        let mut take = |record: &HistoryRecord| match record {
            HistoryRecord::Decision(record) => decisions.push(record.decision_id),
            _ => outcomes += 1,
        };
        thread::scope(|scope| {
            let writers = [0, 1].map(|thread| {
                let (log, golden) = (&log, &golden);
                scope.spawn(move || {
                    (0..EACH).for_each(|n| {
                        record(log, golden, n * 2 + thread);
                        record_outcome(log, n);
                    });
                })
            });
            while !writers.iter().all(thread::ScopedJoinHandle::is_finished) {
                log.drain(16, &mut take);
            }
        });
        log.drain(usize::MAX, &mut take);
        assert_eq!(log.written() + log.dropped(), 4 * EACH);
        assert_eq!(decisions.len() as u64 + outcomes, log.written());
        for thread in [0, 1] {
            let of_thread: Vec<_> = decisions.iter().filter(|id| *id % 2 == thread).collect();
            assert!(of_thread.is_sorted(), "records of one thread keep their order");
        }
        assert_eq!((log.free.len(), log.free_wide.len()), (32, 4), "every record came back");
    }
}
