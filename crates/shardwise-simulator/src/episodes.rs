//! Episodes: short runs of one fleet under different loads, one after the other in one history, for a model to learn from.
//!
//! Every episode begins with routers that have seen nothing. Left out: where the history is written.

use std::ops::ControlFlow;

use shardwise_policies::{Policy, Runtime, SedSoftmax, TwoChoicesInFlight};
use shardwise_types::{HistoryRecord, Timestamp};

use crate::scenario::{SINKHOLE, TROUBLE};
use crate::world::{Fault, FaultKind};
use crate::{Recorder, RunSummary, SimulationError, Workload, WorkloadOptions, WorldError, WorldSpec, simulate};

/// Bits of a decision id that an episode numbers itself; the episode's number stands above them.
const EPISODE_BITS: u32 = 48;
/// How much traffic tells the rate of requests, in ms.
const PROBE_MS: f64 = 10_000.0;

/// A run within a history.
#[derive(Clone, Copy)]
pub struct Episode {
    /// Seed of its traffic and of all chance in it.
    pub seed: u64,
    /// Offered load, as [`Workload::offered_load`] counts it.
    pub load: f64,
    /// Routers that take part, the first of the world's; at most all of them do.
    pub routers: usize,
    /// Makes the policy that places, one for each router.
    pub policy: fn(Runtime) -> Box<dyn Policy>,
    /// Place of a shard, counted around the fleet, that fails 60 % of its requests at once from 30 % to 70 % of the episode.
    pub failing: Option<usize>,
}

/// When episodes take place and how long they are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EpisodeOptions {
    /// When the first begins.
    pub start: Timestamp,
    /// From the start of one to the start of the next, in ms. Whole weeks leave hour and weekday out of what a model
    /// could tell the episodes apart by.
    pub every_ms: f64,
    /// Requests of each, about.
    pub requests: usize,
}

/// Episodes over the loads at which fleets are compared, with one router and with several, with seeds 1 to 9. Of the
/// first four service times are to be learned, of the next seven the rest, and the last two are to be held out; all three
/// parts hold what is usual.
pub fn training_episodes() -> [Episode; 13] {
    let explore = |runtime| -> Box<dyn Policy> { Box::new(SedSoftmax::new(runtime)) };
    let two_choices = |_| -> Box<dyn Policy> { Box::<TwoChoicesInFlight>::default() };
    let episode = |seed, load, routers| Episode { seed, load, routers, policy: explore, failing: None };
    [
        episode(1, 0.7, 4),
        episode(2, 0.5, 1),
        episode(3, 0.85, 4),
        episode(4, 0.7, 1),
        episode(5, 0.5, 4),
        episode(6, 0.95, 1),
        episode(7, 0.7, 4),
        Episode { policy: two_choices, ..episode(8, 0.7, 1) },
        episode(9, 0.95, 4),
        episode(1, 0.85, 1),
        episode(2, 0.85, 4),
        episode(3, 0.7, 1),
        episode(4, 0.85, 4),
    ]
}

/// The same, but that in every second episode a shard fails, another in each: without failures none can be learned.
pub fn failing_episodes() -> [Episode; 13] {
    let mut episodes = training_episodes();
    for (place, episode) in episodes.iter_mut().enumerate().step_by(2) {
        // Far apart, so that they are of different kinds.
        episode.failing = Some(3 * place);
    }
    episodes
}

/// Plays episodes into one recorder, with decision ids that are unique among all of them. Returns the summaries of those
/// that were begun; a recorder that breaks ends the last of them early.
///
/// # Errors
/// When the world or an option is wrong, and as [`simulate`].
pub fn simulate_episodes(
    world: &WorldSpec,
    episodes: &[Episode],
    options: &EpisodeOptions,
    recorder: &mut dyn Recorder,
) -> Result<Vec<RunSummary>, SimulationError> {
    let mut summaries = Vec::with_capacity(episodes.len());
    for (number, episode) in (0_u64..).zip(episodes) {
        let mut world = world_of(world, number, episode.routers);
        let start = options.start.plus_millis(options.every_ms * number as f64);
        let workload = workload_of_requests(&world, episode.seed, start, episode.load, options.requests)?;
        if let Some(place) = episode.failing {
            let duration_ms = workload.end.millis_since(workload.start);
            let (from_ms, until_ms) = (TROUBLE.0 * duration_ms, TROUBLE.1 * duration_ms);
            let shards = world.shards.len();
            let kind = FaultKind::Failing(SINKHOLE);
            world.shards[place % shards].faults.push(Fault { from_ms, until_ms, kind });
        }
        let policies = world.routers.iter().map(|_| (episode.policy)(world.timing.runtime())).collect();
        let mut numbered = Numbered::new(recorder, number);
        summaries.push(simulate(&world, &workload, episode.seed, policies, &mut numbered)?);
        if numbered.stopped {
            break;
        }
    }
    Ok(summaries)
}

/// The world with so many routers, which are others in each episode: whoever replays the history must not take them to
/// remember what those of the episode before had seen.
fn world_of(world: &WorldSpec, number: u64, routers: usize) -> WorldSpec {
    let mut world = world.clone();
    world.routers.truncate(routers);
    for router in &mut world.routers {
        router.id = format!("{}-episode-{}", router.id, number + 1).into();
    }
    world
}

/// Generates about so many requests at an offered load: their rate is measured first, on some seconds of the same traffic.
///
/// # Errors
/// As [`Workload::generate`].
pub fn workload_of_requests(
    world: &WorldSpec,
    seed: u64,
    start: Timestamp,
    load: f64,
    requests: usize,
) -> Result<Workload, WorldError> {
    let options = WorkloadOptions::new(start, PROBE_MS, load);
    let duration_ms = duration_of_requests(world, seed, &options, requests)?;
    Workload::generate(world, seed, &WorkloadOptions { duration_ms, ..options })
}

/// How long about so many requests of such traffic take to come, in ms; the options' own duration does not count.
///
/// # Errors
/// As [`Workload::generate`].
pub fn duration_of_requests(
    world: &WorldSpec,
    seed: u64,
    options: &WorkloadOptions,
    requests: usize,
) -> Result<f64, WorldError> {
    let probe = Workload::generate(world, seed, &WorkloadOptions { duration_ms: PROBE_MS, ..*options })?;
    Ok(PROBE_MS * requests as f64 / probe.arrivals.len().max(1) as f64)
}

/// Adds to every decision id where the episode's ids begin.
pub struct Numbered<'a> {
    recorder: &'a mut dyn Recorder,
    first_id: u64,
    stopped: bool,
}

impl<'a> Numbered<'a> {
    /// Records an episode that has this number, from 0 on, among all in a history.
    pub fn new(recorder: &'a mut dyn Recorder, number: u64) -> Self {
        Self { recorder, first_id: number << EPISODE_BITS, stopped: false }
    }
}

impl Recorder for Numbered<'_> {
    fn wants_history(&self) -> bool {
        self.recorder.wants_history()
    }

    fn wants_features(&self, decision_id: u64) -> bool {
        self.recorder.wants_features(self.first_id + decision_id)
    }

    fn record(&mut self, mut record: HistoryRecord) -> ControlFlow<()> {
        match &mut record {
            HistoryRecord::Decision(decision) => decision.decision_id += self.first_id,
            HistoryRecord::Outcome(outcome) => outcome.decision_id += self.first_id,
            HistoryRecord::Shadow(shadow) => shadow.decision_id += self.first_id,
            HistoryRecord::Report(_) | HistoryRecord::Market(_) | HistoryRecord::Directive(_) => {}
        }
        let flow = self.recorder.record(record);
        self.stopped |= flow.is_break();
        flow
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::{FleetOptions, KeepAll};

    const WEEK_MS: f64 = 7.0 * 86_400_000.0;

    fn world() -> WorldSpec {
        WorldSpec::generate(1, &FleetOptions { shards: 6, routers: 4, functions: 20, ..FleetOptions::default() })
    }

    fn options() -> EpisodeOptions {
        let start = "2026-01-05T12:00:00Z".parse().unwrap();
        EpisodeOptions { start, every_ms: WEEK_MS, requests: 500 }
    }

    #[test]
    fn ids_are_unique_and_outcomes_find_the_decisions_of_their_router() {
        let mut kept = KeepAll::default();
        let episodes = training_episodes();
        let summaries = simulate_episodes(&world(), &episodes, &options(), &mut kept).unwrap();
        assert_eq!(summaries.len(), episodes.len());
        let mut decided = BTreeMap::new();
        let mut routers = vec![BTreeSet::new(); episodes.len()];
        for record in &kept.records {
            if let HistoryRecord::Decision(decision) = record {
                let id = decision.decision_id;
                assert!(decided.insert(id, decision.router.clone()).is_none(), "{id} is there twice");
                assert!(i64::try_from(id).is_ok(), "{id} does not fit a column");
                let week = decision.known_at.millis_since(options().start) / WEEK_MS;
                routers[week as usize].insert(decision.router.clone());
            }
        }
        for record in &kept.records {
            if let HistoryRecord::Outcome(outcome) = record {
                assert_eq!(decided.remove(&outcome.decision_id).as_ref(), Some(&outcome.router));
            }
        }
        assert!(decided.is_empty(), "all are answered within their episode");
        for (seen, episode) in routers.iter().zip(&episodes) {
            assert_eq!(seen.len(), episode.routers);
        }
        let all: BTreeSet<_> = routers.iter().flatten().collect();
        assert_eq!(all.len(), episodes.iter().map(|episode| episode.routers).sum::<usize>(), "no router comes again");
    }

    #[test]
    fn records_of_all_episodes_come_in_the_order_of_time() {
        let mut kept = KeepAll::default();
        simulate_episodes(&world(), &training_episodes(), &options(), &mut kept).unwrap();
        assert!(kept.records.is_sorted_by_key(HistoryRecord::order));
    }

    #[test]
    fn as_many_requests_come_as_were_asked_for() {
        for load in [0.5, 0.95] {
            let workload = workload_of_requests(&world(), 3, options().start, load, 20_000).unwrap();
            assert!((17_000..23_000).contains(&workload.arrivals.len()), "{}", workload.arrivals.len());
            assert!((workload.offered_load(&world()) - load).abs() < 0.1 * load);
        }
    }

    #[test]
    fn a_recorder_that_breaks_ends_it() {
        struct Full(usize);
        impl Recorder for Full {
            fn wants_history(&self) -> bool {
                true
            }
            fn record(&mut self, _record: HistoryRecord) -> ControlFlow<()> {
                self.0 += 1;
                if self.0 < 100 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            }
        }
        let mut full = Full(0);
        let summaries = simulate_episodes(&world(), &training_episodes(), &options(), &mut full).unwrap();
        assert_eq!((summaries.len(), full.0), (1, 100));
    }
}
