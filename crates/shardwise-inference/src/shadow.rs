//! A challenger on live decisions, which changes none of them: what it would have chosen and expected, scored elsewhere.
//!
//! Beside a decision only what changes with time is read, under the challenger's own service table: the candidates, and the
//! features of the promising ones. They wait in recycled records of a bounded queue; what finds no room is dropped and
//! counted. A worker asks the heads when it likes. The challenger's choice is the cheapest by its cost: guards and
//! exploration are the router's, and are judged by nothing here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwapOption;
use crossbeam_queue::ArrayQueue;
use shardwise_features::DecisionContext;
use shardwise_models::ModelBundle;
use shardwise_policies::sed::expected_cold_ms;
use shardwise_types::{FallbackReason, ShadowRecord, ShardId, Timestamp};

use crate::config::PlacerConfig;
use crate::decision_log::{LoggedDecision, filled, is_drawn};
use crate::model_slot::ModelSlot;
use crate::placer::Loaded;
use crate::ranking::{Ranking, Scored};

/// Draws the decisions that are shadowed apart from anything else that is drawn by decision.
const SHADOW_DRAW: u64 = 0x7368_6164_6f77;

/// What a shadow is made for.
#[derive(Debug, Clone, PartialEq)]
pub struct ShadowConfig {
    /// Decisions that may wait for the worker; at least 1. Their buffers grow to the size of the fleet.
    pub capacity: usize,
    /// The share of the decisions that are shadowed, in [0, 1].
    pub share: f64,
    /// The cost that the challenger goes by; guards and exploration play no part.
    pub placer: PlacerConfig,
}

/// Decisions on their way from the threads that decide to the one that asks the challenger. Threads share it by reference.
///
/// ```
/// use std::sync::Arc;
///
/// use shardwise_inference::{LoggedDecision, ModelSlot, PlacerConfig, Shadow, ShadowConfig};
/// use shardwise_models::BundleDraft;
/// use shardwise_policies::Decision;
///
/// let golden = shardwise_features::golden::contexts().remove(1);
/// let shadow = Shadow::new(ShadowConfig { capacity: 64, share: 1.0, placer: PlacerConfig::default() });
/// shadow.replace(Arc::new(BundleDraft::example().bundle()?));
/// // Where a decision is logged, before its dispatch:
/// shadow.observe(&LoggedDecision {
///     decision_id: 1,
///     sequence: 1,
///     context: &golden.context(),
///     decision: &Decision::by_rule(0, 1.0, 3),
///     policy: "shardwise",
///     model_version: None,
///     candidates: &[0, 1, 2],
/// });
/// // Now and then, on another thread:
/// assert_eq!(shadow.score(100, |record| println!("{record:?}")), 1);
/// # Ok::<(), shardwise_models::BundleError>(())
/// ```
pub struct Shadow {
    config: ShadowConfig,
    challenger: ArcSwapOption<Loaded>,
    waiting: ArrayQueue<Box<Observed>>,
    free: ArrayQueue<Box<Observed>>,
    observed: AtomicU64,
    dropped: AtomicU64,
}

/// A decision as the challenger saw it.
#[derive(Default)]
struct Observed {
    decision_id: u64,
    sequence: u64,
    event_at: Timestamp,
    known_at: Timestamp,
    /// The bundle by whose table the features are; whatever challenges by now, this one is asked.
    challenger: Option<Arc<Loaded>>,
    ranking: Ranking,
    /// The shards that it is asked about, by their positions in the fleet.
    shards: Vec<(usize, ShardId)>,
    /// Position of the shard that was really chosen.
    chosen: usize,
    expected_cold_ms: f64,
    /// Why the heads cannot be asked, if so.
    fallback: Option<FallbackReason>,
}

impl Shadow {
    /// A shadow without a challenger, which observes nothing until there is one.
    pub fn new(config: ShadowConfig) -> Self {
        let capacity = config.capacity.max(1);
        Self {
            waiting: ArrayQueue::new(capacity),
            free: filled(capacity, capacity, Box::default),
            config,
            challenger: ArcSwapOption::empty(),
            observed: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    /// No challenger any more; what waits is still scored. Returns the one before.
    pub fn withdraw(&self) -> Option<Arc<ModelBundle>> {
        self.challenger.swap(None).map(|before| Arc::clone(&before.bundle))
    }

    /// Decisions that were taken in, waiting ones included.
    pub fn observed(&self) -> u64 {
        self.observed.load(Relaxed)
    }

    /// Decisions that found no room.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Takes in a decision if it is one of those that are shadowed, or drops and counts it when there is no room. Waits for
    /// nobody and allocates nothing once the buffers have grown.
    ///
    /// # Panics
    /// If a position is not in the context's fleet.
    pub fn observe(&self, logged: &LoggedDecision<'_>) {
        let challenger = self.challenger.load();
        let Some(challenger) = challenger.as_ref() else { return };
        if logged.candidates.is_empty() || !is_drawn(logged.decision_id, SHADOW_DRAW, self.config.share) {
            return;
        }
        // The worker gives a record back only when it is done with it: with none free, there is no room.
        let Some(mut record) = self.free.pop() else {
            self.dropped.fetch_add(1, Relaxed);
            return;
        };
        record.fill(logged, challenger, &self.config.placer);
        match self.waiting.push(record) {
            Ok(()) => _ = self.observed.fetch_add(1, Relaxed),
            Err(record) => {
                _ = self.free.push(record);
                self.dropped.fetch_add(1, Relaxed);
            }
        }
    }

    /// Asks the challenger about at most `max` decisions, in the order in which they came, hands on what it says, and
    /// returns how many there were. The table `shadow` of a history takes what it says as `HistoryRecord::Shadow`, of
    /// decisions that are in it: what is said of one that the log had no room for has to be left out.
    pub fn score(&self, max: usize, mut write: impl FnMut(ShadowRecord)) -> usize {
        let mut scored = 0;
        while scored < max
            && let Some(mut record) = self.waiting.pop()
        {
            if let Some(said) = record.ask(&self.config.placer) {
                write(said);
            }
            _ = self.free.push(record);
            scored += 1;
        }
        scored
    }
}

impl ModelSlot for Shadow {
    fn replace(&self, bundle: Arc<ModelBundle>) -> Option<Arc<ModelBundle>> {
        self.challenger.swap(Some(Loaded::new(bundle))).map(|before| Arc::clone(&before.bundle))
    }

    fn serving(&self) -> Option<Arc<str>> {
        self.challenger.load().as_ref().map(|challenger| Arc::clone(&challenger.version))
    }
}

impl Observed {
    /// Reads what will be another when the challenger is asked.
    fn fill(&mut self, logged: &LoggedDecision<'_>, challenger: &Arc<Loaded>, config: &PlacerConfig) {
        let context = DecisionContext { service_table: Some(&challenger.table), ..*logged.context };
        let (ranking, chosen) = (&mut self.ranking, logged.decision.chosen);
        ranking.positions.clear();
        ranking.positions.extend_from_slice(logged.candidates);
        let something_known = ranking.score(&context, &config.cost, config.model_candidates);
        let mut cut = ranking.promising(config);
        // The one that was really chosen is the one whose outcome will be known.
        let is_chosen = |scored: &Scored| scored.position == chosen;
        if let Some(index) = ranking.scored.iter().position(is_chosen).filter(|index| *index >= cut) {
            ranking.scored.swap(index, cut);
            cut += 1;
        }
        ranking.scored.truncate(cut);
        self.fallback = match something_known {
            true => ranking.extract(&context, cut, config).err(),
            false => Some(FallbackReason::NothingKnown),
        };
        let shard = |scored: &Scored| (scored.position, context.fleet.shards[scored.position].id.clone());
        self.shards.clear();
        self.shards.extend(ranking.scored.iter().map(shard));
        self.decision_id = logged.decision_id;
        self.sequence = logged.sequence;
        self.event_at = context.request.event_at;
        self.known_at = context.decided_at;
        self.chosen = chosen;
        self.expected_cold_ms = expected_cold_ms(&context);
        self.challenger = Some(Arc::clone(challenger));
    }

    /// What the challenger says; its table alone when its heads cannot be asked. Lets go of it.
    fn ask(&mut self, config: &PlacerConfig) -> Option<ShadowRecord> {
        let challenger = self.challenger.take()?;
        let cut = self.ranking.scored.len();
        let fallback = self.fallback.or_else(|| match challenger.bundle.exec() {
            Some(_) => self.ranking.ask(&challenger.bundle, cut, config).err(),
            None => Some(FallbackReason::NoExecHead),
        });
        if fallback.is_none() {
            self.ranking.reprice(cut, &challenger.bundle, self.expected_cold_ms, config);
        }
        let chosen = self.ranking.scored.iter().find(|scored| scored.position == self.chosen);
        let first = self.ranking.scored.first()?;
        let (_, shard) = self.shards.iter().find(|(position, _)| *position == first.position)?;
        Some(ShadowRecord {
            decision_id: self.decision_id,
            sequence: self.sequence,
            event_at: self.event_at,
            known_at: self.known_at,
            model_version: challenger.version.to_string(),
            shard: shard.clone(),
            agrees: first.position == self.chosen,
            expected_ms: first.terms.latency_ms(),
            chosen_expected_ms: chosen.map(|chosen| chosen.terms.latency_ms()),
            chosen_exec_ms: chosen.and_then(|chosen| chosen.model_ms),
            fallback_reason: fallback,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use shardwise_features::golden::{GoldenContext, contexts};
    use shardwise_models::BundleDraft;
    use shardwise_policies::{Decision, Policy};

    use super::*;
    use crate::{Guards, Placer};

    const CANDIDATES: [usize; 3] = [0, 1, 2];

    fn shadow(capacity: usize, share: f64) -> Shadow {
        Shadow::new(ShadowConfig { capacity, share, placer: PlacerConfig::default() })
    }

    fn bundle(seed: u64) -> Arc<ModelBundle> {
        Arc::new(BundleDraft { seed, ..BundleDraft::example() }.bundle().expect("a sound draft"))
    }

    fn observe(shadow: &Shadow, golden: &GoldenContext, id: u64, chosen: usize) {
        shadow.observe(&LoggedDecision {
            decision_id: id,
            sequence: id + 7,
            context: &golden.context(),
            decision: &Decision::by_rule(chosen, 1.0, 3),
            policy: "shardwise",
            model_version: None,
            candidates: &CANDIDATES,
        });
    }

    fn scored(shadow: &Shadow) -> Vec<ShadowRecord> {
        let mut records = Vec::new();
        shadow.score(usize::MAX, |record| records.push(record));
        records
    }

    #[test]
    fn it_says_what_a_placer_with_the_challenger_would_have_said() {
        let golden = contexts().remove(1);
        let challenger = bundle(3);
        let config = PlacerConfig { guards: Guards::none(), exploration: None, ..PlacerConfig::default() };
        let placer = Placer::with_model(Arc::clone(&challenger)).with_config(config);
        let would = placer.place(&golden.context()).expect("a healthy shard");
        let shadow = shadow(8, 1.0);
        shadow.replace(Arc::clone(&challenger));
        for (id, chosen) in [(0, 0), (1, 1), (2, 2), (3, would.decision.chosen)] {
            observe(&shadow, &golden, id, chosen);
        }
        // Neither what the shards do now nor another challenger changes what was observed before.
        (0..20).for_each(|_| _ = golden.router.on_dispatch(&golden.context(), would.decision.chosen));
        shadow.replace(bundle(4));
        let records = scored(&shadow);
        assert_eq!(records.iter().map(|record| record.decision_id).collect::<Vec<_>>(), [0, 1, 2, 3]);
        for record in &records {
            assert_eq!(record.model_version, challenger.version());
            assert_eq!(record.shard, would.prediction.recommended_shard);
            assert_eq!(record.expected_ms.to_bits(), would.prediction.expected_latency.to_bits());
            assert_eq!((record.sequence, record.fallback_reason), (record.decision_id + 7, None));
            assert_eq!((record.event_at, record.known_at), (golden.request.event_at, golden.decided_at));
            assert!(record.chosen_exec_ms.is_some_and(|ms| ms > 0.0));
        }
        let chosen = &records[3];
        assert!(chosen.agrees && chosen.chosen_expected_ms == Some(chosen.expected_ms));
        assert_eq!(records.iter().filter(|record| record.agrees).count(), 2, "one of the three, and the last");
    }

    #[test]
    fn the_one_really_chosen_is_asked_about_however_dear_it_is() {
        let golden = contexts().remove(1);
        let placer = PlacerConfig { model_candidates: 1, ..PlacerConfig::default() };
        let shadow = Shadow::new(ShadowConfig { capacity: 8, share: 1.0, placer });
        shadow.replace(bundle(0));
        (0..3).for_each(|chosen| observe(&shadow, &golden, chosen as u64, chosen));
        assert!(scored(&shadow).iter().all(|record| record.chosen_exec_ms.is_some()));
    }

    #[test]
    fn a_challenger_without_heads_speaks_by_its_table() {
        let (golden, shadow) = (contexts().remove(1), shadow(8, 1.0));
        let table_alone = BundleDraft { exec: None, ..BundleDraft::example() }.bundle().expect("a sound draft");
        shadow.replace(Arc::new(table_alone));
        observe(&shadow, &golden, 0, 1);
        let [record] = &scored(&shadow)[..] else { panic!("one record") };
        assert_eq!((record.fallback_reason, record.chosen_exec_ms), (Some(FallbackReason::NoExecHead), None));
        assert!(record.expected_ms > 0.0 && record.chosen_expected_ms.is_some());
    }

    #[test]
    fn nothing_is_observed_without_a_challenger_or_without_candidates() {
        let (golden, shadow) = (contexts().remove(1), shadow(8, 1.0));
        observe(&shadow, &golden, 0, 0);
        shadow.replace(bundle(0));
        shadow.observe(&LoggedDecision {
            decision_id: 1,
            sequence: 1,
            context: &golden.context(),
            decision: &Decision::by_rule(0, 1.0, 0),
            policy: "shardwise",
            model_version: None,
            candidates: &[],
        });
        assert_eq!(shadow.withdraw().map(|bundle| bundle.version().to_owned()), Some(bundle(0).version().to_owned()));
        observe(&shadow, &golden, 2, 0);
        assert_eq!((shadow.observed(), shadow.dropped(), scored(&shadow).len()), (0, 0, 0));
    }

    #[test]
    fn a_full_queue_drops_and_counts_and_the_share_is_kept() {
        let golden = contexts().remove(1);
        let full = shadow(8, 1.0);
        full.replace(bundle(0));
        for round in 1..=3 {
            (0..20).for_each(|id| observe(&full, &golden, id, 0));
            assert_eq!((full.observed(), full.dropped()), (8 * round, 12 * round));
            assert_eq!(scored(&full).len(), 8);
        }
        let some = shadow(5_000, 0.1);
        some.replace(bundle(0));
        (0..5_000).for_each(|id| observe(&some, &golden, id, 0));
        assert!((400..600).contains(&some.observed()) && some.dropped() == 0, "{}", some.observed());
    }

    #[test]
    fn threads_may_observe_while_a_worker_scores_and_challengers_change() {
        const EACH: u64 = 5_000;
        let (golden, shadow) = (contexts().remove(1), shadow(32, 1.0));
        let challengers = [bundle(0), bundle(1)];
        shadow.replace(Arc::clone(&challengers[0]));
        let mut records = 0;
        thread::scope(|scope| {
            let threads = [0, 1].map(|thread| {
                let (shadow, golden) = (&shadow, &golden);
                scope.spawn(move || (0..EACH).for_each(|n| observe(shadow, golden, 2 * n + thread, n as usize % 3)))
            });
            let mut turn = 0;
            while !threads.iter().all(thread::ScopedJoinHandle::is_finished) {
                shadow.score(16, |_| records += 1);
                turn += 1;
                shadow.replace(Arc::clone(&challengers[turn % 2]));
            }
        });
        shadow.score(usize::MAX, |_| records += 1);
        assert_eq!(shadow.observed() + shadow.dropped(), 2 * EACH);
        assert_eq!((records, shadow.free.len()), (shadow.observed(), 32));
        drop(shadow);
        assert!(challengers.iter().all(|bundle| Arc::strong_count(bundle) == 1), "nothing is kept");
    }

    #[test]
    fn it_is_a_slot_for_a_watcher() {
        let (shadow, placer) = (shadow(1, 1.0), Placer::without_model());
        for slot in [&shadow as &dyn ModelSlot, &placer] {
            assert_eq!(slot.serving(), None);
            assert!(slot.replace(bundle(0)).is_none());
            assert_eq!(
                slot.replace(bundle(1)).map(|before| before.version().to_owned()),
                Some(bundle(0).version().to_owned())
            );
            assert_eq!(slot.serving().as_deref(), Some(bundle(1).version()));
        }
        assert_eq!(placer.model_version().as_deref(), Some(bundle(1).version()));
    }
}
