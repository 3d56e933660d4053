//! What is counted while requests are answered; read by the metrics and the dashboard.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use shardwise_features::Answer;
use shardwise_types::{DecidedBy, ErrorClass, FallbackReason, NoEligibleShard, Response, Timestamp};

use crate::agreement::Agreement;

/// Reasons of a decision, none included.
const REASONS: usize = FallbackReason::ALL.len() + 1;
/// Upper bounds of the times of an answer, in seconds.
pub(crate) const SECONDS: [f64; 14] =
    [2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1, 0.5, 1.0];
/// Longest time that is told apart, in µs.
const LONGEST_US: u64 = 60_000_000;

/// Why a request was turned away before anything was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TurnedAway {
    /// Work waits too long for a thread.
    Overload,
    /// The process is about to end.
    Draining,
    /// Too many connections.
    Connections,
    /// The log has no room for an outcome.
    LogFull,
    /// The time that the caller allowed is over.
    Deadline,
}

impl TurnedAway {
    pub(crate) const ALL: [Self; 5] =
        [Self::Overload, Self::Draining, Self::Connections, Self::LogFull, Self::Deadline];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Overload => "overload",
            Self::Draining => "draining",
            Self::Connections => "connections",
            Self::LogFull => "log_full",
            Self::Deadline => "deadline",
        }
    }
}

/// The answers of the second that passed.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Second {
    pub(crate) answers: u64,
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) max_us: u64,
}

pub(crate) struct Figures {
    decisions: [[AtomicU64; REASONS]; DecidedBy::ALL.len()],
    refused: AtomicU64,
    local: AtomicU64,
    duplicates: AtomicU64,
    unmatched: AtomicU64,
    late: AtomicU64,
    shadow_agreed: AtomicU64,
    pub(crate) agreement: Agreement,
    splits_without_shard: AtomicU64,
    /// By error, none first.
    outcomes: [AtomicU64; ErrorClass::ALL.len() + 1],
    /// Successes with a forecast, and those within its p50, p90, p99.
    foretold: AtomicU64,
    within: [AtomicU64; 3],
    /// Sums of ms, in µs.
    expected_us: AtomicU64,
    measured_us: AtomicU64,
    turned_away: [AtomicU64; TurnedAway::ALL.len()],
    answers: [AtomicU64; SECONDS.len() + 1],
    answers_us: AtomicU64,
    wall_ahead_us: AtomicI64,
    this_second: Mutex<Histogram<u64>>,
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            decisions: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
            refused: AtomicU64::new(0),
            local: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            unmatched: AtomicU64::new(0),
            late: AtomicU64::new(0),
            shadow_agreed: AtomicU64::new(0),
            agreement: Agreement::default(),
            splits_without_shard: AtomicU64::new(0),
            outcomes: std::array::from_fn(|_| AtomicU64::new(0)),
            foretold: AtomicU64::new(0),
            within: std::array::from_fn(|_| AtomicU64::new(0)),
            expected_us: AtomicU64::new(0),
            measured_us: AtomicU64::new(0),
            turned_away: std::array::from_fn(|_| AtomicU64::new(0)),
            answers: std::array::from_fn(|_| AtomicU64::new(0)),
            answers_us: AtomicU64::new(0),
            wall_ahead_us: AtomicI64::new(0),
            this_second: Mutex::new(
                Histogram::new_with_bounds(1, LONGEST_US, 2).expect("bounds and digits are what it allows"),
            ),
        }
    }
}

impl Figures {
    pub(crate) fn decide(&self, decided_by: DecidedBy, reason: Option<FallbackReason>) {
        let reason = reason.map_or(0, |reason| reason as usize + 1);
        self.decisions[decided_by as usize][reason].fetch_add(1, Relaxed);
    }

    pub(crate) fn refuse(&self, refusal: &NoEligibleShard) {
        let count = if refusal.may_run_locally { &self.local } else { &self.refused };
        count.fetch_add(1, Relaxed);
    }

    pub(crate) fn duplicate(&self) {
        self.duplicates.fetch_add(1, Relaxed);
    }

    pub(crate) fn unmatched(&self) {
        self.unmatched.fetch_add(1, Relaxed);
    }

    pub(crate) fn late(&self) {
        self.late.fetch_add(1, Relaxed);
    }

    /// Counts what a challenger says of a decision at `now`.
    pub(crate) fn shadow_said(&self, agrees: bool, now: Timestamp) {
        self.shadow_agreed.fetch_add(u64::from(agrees), Relaxed);
        self.agreement.count(agrees, now);
    }

    pub(crate) fn split_without_shard(&self) {
        self.splits_without_shard.fetch_add(1, Relaxed);
    }

    pub(crate) fn turn_away(&self, reason: TurnedAway) {
        self.turned_away[reason as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn settle(&self, answer: Option<&Answer>, response: &Response) {
        self.outcomes[response.error.map_or(0, |error| error as usize + 1)].fetch_add(1, Relaxed);
        if let Some(answer) = answer.filter(|_| response.is_ok()) {
            self.foretold.fetch_add(1, Relaxed);
            for (within, limit_ms) in self.within.iter().zip(answer.quantiles_ms) {
                within.fetch_add(u64::from(response.total_ms <= limit_ms), Relaxed);
            }
            self.expected_us.fetch_add((answer.expected_ms * 1e3) as u64, Relaxed);
            self.measured_us.fetch_add((response.total_ms * 1e3) as u64, Relaxed);
        }
    }

    /// How long an answer took, from the head of the request to the end of its body.
    pub(crate) fn answer(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        self.answers[SECONDS.partition_point(|bound| *bound < seconds)].fetch_add(1, Relaxed);
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.answers_us.fetch_add(us, Relaxed);
        self.this_second.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(us.max(1));
    }

    pub(crate) fn wall_ahead(&self, ms: f64) {
        self.wall_ahead_us.store((ms * 1e3) as i64, Relaxed);
    }

    /// The answers since the last call.
    pub(crate) fn take_second(&self) -> Second {
        let mut histogram = self.this_second.lock().unwrap_or_else(PoisonError::into_inner);
        let second = Second {
            answers: histogram.len(),
            p50_us: histogram.value_at_quantile(0.5),
            p99_us: histogram.value_at_quantile(0.99),
            max_us: histogram.max(),
        };
        histogram.reset();
        second
    }

    /// All decisions by who decided and why nobody better did; those that never came are left out.
    pub(crate) fn decisions(&self) -> Vec<(DecidedBy, Option<FallbackReason>, u64)> {
        let of = |decider: DecidedBy| {
            let reasons = std::iter::once(None).chain(FallbackReason::ALL.into_iter().map(Some));
            let counts = self.decisions[decider as usize].iter().map(|count| count.load(Relaxed));
            reasons.zip(counts).map(move |(reason, count)| (decider, reason, count))
        };
        let mut all: Vec<_> = DecidedBy::ALL.into_iter().flat_map(of).filter(|(_, _, count)| *count > 0).collect();
        let local = self.local.load(Relaxed);
        if local > 0 {
            all.push((DecidedBy::Local, None, local));
        }
        all
    }

    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Outcomes by error; `ok` first.
    pub(crate) fn outcomes(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let names = std::iter::once("ok").chain(ErrorClass::ALL.into_iter().map(ErrorClass::as_str));
        names.zip(self.outcomes.iter().map(|count| count.load(Relaxed)))
    }

    pub(crate) fn duplicates(&self) -> u64 {
        self.duplicates.load(Relaxed)
    }

    pub(crate) fn unmatched_outcomes(&self) -> u64 {
        self.unmatched.load(Relaxed)
    }

    pub(crate) fn late_outcomes(&self) -> u64 {
        self.late.load(Relaxed)
    }

    pub(crate) fn shadow_agreed(&self) -> u64 {
        self.shadow_agreed.load(Relaxed)
    }

    pub(crate) fn splits_without_shard(&self) -> u64 {
        self.splits_without_shard.load(Relaxed)
    }

    pub(crate) fn turned_away(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        TurnedAway::ALL.into_iter().map(|reason| (reason.as_str(), self.turned_away[reason as usize].load(Relaxed)))
    }

    /// Successes that had a forecast, and those within its p50, p90 and p99.
    pub(crate) fn coverage(&self) -> (u64, [u64; 3]) {
        (self.foretold.load(Relaxed), std::array::from_fn(|n| self.within[n].load(Relaxed)))
    }

    /// Sums of what was expected and measured of them, in seconds.
    pub(crate) fn seconds_foretold(&self) -> [f64; 2] {
        [&self.expected_us, &self.measured_us].map(|sum| sum.load(Relaxed) as f64 / 1e6)
    }

    /// Answers by the upper bounds of [`SECONDS`], what is above all of them last, and the sum in seconds.
    pub(crate) fn answers(&self) -> ([u64; SECONDS.len() + 1], f64) {
        (std::array::from_fn(|n| self.answers[n].load(Relaxed)), self.answers_us.load(Relaxed) as f64 / 1e6)
    }

    pub(crate) fn wall_ahead_seconds(&self) -> f64 {
        self.wall_ahead_us.load(Relaxed) as f64 / 1e6
    }
}
