//! The end of a history, held while the rest streams by: memory is bounded whatever the history's length.

use std::collections::VecDeque;

use shardwise_simulator::Workload;
use shardwise_types::{DecisionRecord, MarketRecord, Timestamp};

use super::evaluate::Period;

/// Routers learn online through this many times the measured period before it begins, where the history is that long.
const WARM_UP_PERIODS: usize = 4;
/// Most requests that are measured on a path. A thousand of them lie beyond p99 and a hundred beyond p99.9, so that what
/// intervals over paths tell apart is policies, and not which requests happened to be slow.
const MOST_MEASURED: usize = 100_000;
/// Most requests that are held: the measured ones, and those that routers learn from before.
const MOST_HELD: usize = MOST_MEASURED * (1 + WARM_UP_PERIODS);

/// The latest decisions, and the market that was known with them.
pub(super) struct Window {
    most: Most,
    held_out_from: Timestamp,
    decisions: VecDeque<DecisionRecord>,
    market: VecDeque<MarketRecord>,
    held_out: u64,
    is_whole: bool,
}

/// How many requests may be measured, and how many held.
#[derive(Clone, Copy)]
struct Most {
    measured: usize,
    held: usize,
}

/// What is played of a history.
pub(super) struct Played {
    pub(super) decisions: Vec<DecisionRecord>,
    pub(super) market: Vec<MarketRecord>,
    pub(super) measured: Measured,
}

/// Which part of the held-out end is measured: all of it, or the last part of a long one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Measured {
    pub(super) from: Timestamp,
    pub(super) requests: u64,
    /// Requests from which routers learn before.
    pub(super) learned: u64,
    /// Requests of the whole held-out end.
    pub(super) held_out: u64,
    /// Whether nothing that streamed by was left out, be it measured or before.
    pub(super) is_whole: bool,
}

impl Measured {
    /// Share of a workload's time that comes before.
    pub(super) fn warm_up(&self, workload: &Workload) -> f64 {
        let span_ns = (workload.end.nanos() - workload.start.nanos()).max(1);
        (self.from.nanos() - workload.start.nanos()).max(0) as f64 / span_ns as f64
    }
}

impl Window {
    pub(super) fn new(held_out_from: Timestamp) -> Self {
        Self::of(Most { measured: MOST_MEASURED, held: MOST_HELD }, held_out_from)
    }

    fn of(most: Most, held_out_from: Timestamp) -> Self {
        let (decisions, market) = (VecDeque::new(), VecDeque::new());
        Self { most, held_out_from, decisions, market, held_out: 0, is_whole: true }
    }

    /// Takes a decision, without the features that were logged with it; decisions come in their order.
    pub(super) fn decided(&mut self, mut decision: DecisionRecord) {
        (decision.logged_shards, decision.logged_features) = (Vec::new(), Vec::new());
        self.held_out += u64::from(decision.known_at >= self.held_out_from);
        if self.decisions.len() == self.most.held {
            self.decisions.pop_front();
            self.is_whole = false;
            self.forget_market();
        }
        self.decisions.push_back(decision);
    }

    /// Takes news of the market.
    /// Takes in a minute; one that several routers heard counts once.
    pub(super) fn heard(&mut self, minute: MarketRecord) {
        let same = |known: &MarketRecord| (&known.instrument, known.event_at) == (&minute.instrument, minute.event_at);
        if !self.market.iter().rev().take_while(|known| known.event_at >= minute.event_at).any(same) {
            self.market.push_back(minute);
        }
    }

    pub(super) fn last(&self) -> Option<&DecisionRecord> {
        self.decisions.back()
    }

    /// Of the market before the first decision only the latest news matters.
    fn forget_market(&mut self) {
        let Some(start) = self.decisions.front().map(|first| first.known_at) else { return };
        while self.market.get(1).is_some_and(|second| second.known_at < start) {
            self.market.pop_front();
        }
    }

    /// Ends it. Of a held-out end with more requests than may be measured the last ones are, after as long a warm-up as if they
    /// were all of it.
    pub(super) fn close(mut self, whole: Period) -> Played {
        let mut from = self.held_out_from;
        if self.held_out > self.most.measured as u64 {
            from = self.decisions[self.decisions.len() - self.most.measured].known_at;
            let learned_from = learned_from(from, whole);
            let before = self.decisions.partition_point(|decision| decision.known_at < learned_from);
            self.decisions.drain(..before);
            self.is_whole = false;
            self.forget_market();
        }
        let learned = self.decisions.partition_point(|decision| decision.known_at < from);
        let requests = (self.decisions.len() - learned) as u64;
        let Self { held_out, is_whole, .. } = self;
        Played {
            decisions: self.decisions.into(),
            market: self.market.into(),
            measured: Measured { from, requests, learned: learned as u64, held_out, is_whole },
        }
    }
}

/// From where routers learn when it is measured from an instant to the end.
pub(super) fn learned_from(measured_from: Timestamp, whole: Period) -> Timestamp {
    let measured_ns = whole.to.nanos() - measured_from.nanos();
    Timestamp::from_nanos(measured_from.nanos() - WARM_UP_PERIODS as i64 * measured_ns).max(whole.from)
}

#[cfg(test)]
mod tests {
    use shardwise_simulator::{FleetOptions, KeepAll, WorkloadOptions, WorldSpec, simulate};
    use shardwise_types::HistoryRecord;

    use super::*;

    /// Decisions of eight seconds and the market beside them, in the order of a history.
    fn records() -> Vec<HistoryRecord> {
        let world = WorldSpec::generate(1, &FleetOptions { shards: 4, functions: 10, ..FleetOptions::default() });
        let options = WorkloadOptions::new("2026-01-05T12:00:00Z".parse().unwrap(), 8_000.0, 0.5);
        let workload = Workload::generate(&world, 1, &options).unwrap();
        let policy = || shardwise_policies::by_name("sed_tab", world.timing.runtime()).unwrap();
        let mut kept = KeepAll::default();
        simulate(&world, &workload, 1, world.routers.iter().map(|_| policy()).collect(), &mut kept).unwrap();
        kept.records.retain(|record| matches!(record, HistoryRecord::Decision(_) | HistoryRecord::Market(_)));
        kept.records
    }

    fn decisions(records: &[HistoryRecord]) -> Vec<&DecisionRecord> {
        let all = records.iter().filter_map(|record| match record {
            HistoryRecord::Decision(decision) => Some(&**decision),
            _ => None,
        });
        all.collect()
    }

    /// The last fifth of the time is held out, as in datasets.
    fn period(records: &[HistoryRecord]) -> Period {
        let all = decisions(records);
        let (from, last) = (all[0].known_at, all[all.len() - 1].known_at);
        let to = Timestamp::from_nanos(last.nanos() + 1);
        let test_from = Timestamp::from_nanos(from.nanos() + (to.nanos() - from.nanos()) * 4 / 5);
        Period { from, test_from, to }
    }

    fn window(records: &[HistoryRecord], most: Most) -> Played {
        let period = period(records);
        let mut window = Window::of(most, period.test_from);
        for record in records {
            match record {
                HistoryRecord::Decision(decision) => window.decided((**decision).clone()),
                HistoryRecord::Market(minute) => window.heard(minute.clone()),
                _ => {}
            }
            assert!(window.decisions.len() <= most.held, "{} are held", window.decisions.len());
        }
        window.close(period)
    }

    #[test]
    fn no_more_is_held_than_may_be_however_long_the_history() {
        let records = records();
        let all = decisions(&records);
        let held_out = all.iter().filter(|decision| decision.known_at >= period(&records).test_from).count();
        let measured = held_out / 3;
        assert!(measured >= 50, "{held_out} are held out");
        for held in [3 * measured, 5 * measured] {
            let played = window(&records, Most { measured, held });
            let Measured { from, requests, learned, held_out: counted, is_whole } = played.measured;
            assert_eq!((requests, counted, is_whole), (measured as u64, held_out as u64, false));
            assert_eq!(from, all[all.len() - measured].known_at, "the last ones are measured");
            assert_eq!(played.decisions.last(), all.last().copied());
            let until = period(&records).to;
            let earliest = from.nanos() - WARM_UP_PERIODS as i64 * (until.nanos() - from.nanos());
            assert!(learned > 0 && played.decisions.iter().all(|decision| decision.known_at.nanos() >= earliest));
            assert!(played.decisions.len() <= held);
        }
    }

    #[test]
    fn a_short_history_is_played_whole() {
        let records = records();
        let all = decisions(&records);
        let played = window(&records, Most { measured: all.len(), held: all.len() });
        assert!(played.decisions.iter().eq(all.iter().copied()));
        assert_eq!(played.measured.from, period(&records).test_from);
        assert_eq!(played.measured.requests, played.measured.held_out);
        assert!(played.measured.is_whole);
        assert_eq!((played.measured.requests + played.measured.learned) as usize, all.len());
    }

    #[test]
    fn of_the_market_before_the_window_the_latest_news_is_kept() {
        let all: Vec<DecisionRecord> = decisions(&records()).into_iter().cloned().collect();
        let second = |n: usize| Timestamp::from_nanos(all[0].known_at.nanos() + n as i64 * 1_000_000_000);
        let minute = |n: usize| MarketRecord {
            sequence: n as u64,
            router: None,
            event_at: second(n),
            known_at: second(n),
            instrument: "BTC-PERP".to_owned(),
            price_usd: 50_000.0,
            volume: 1.0,
            volatility_bp: None,
            trend_bp: None,
        };
        let mut window = Window::of(Most { measured: 10, held: 10 }, second(0));
        for n in 0..1_000 {
            window.heard(minute(n));
            window.decided(DecisionRecord { known_at: second(n).plus_millis(500.0), ..all[0].clone() });
            assert!(window.market.len() <= 12, "{} of {n}", window.market.len());
        }
        let first = window.decisions[0].known_at;
        assert!(window.market[0].known_at < first && window.market[1].known_at > window.market[0].known_at);
        assert_eq!(window.market.iter().filter(|minute| minute.known_at < first).count(), 1);
    }
}
