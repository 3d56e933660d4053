//! From the bus into the view and into the history: a report is acknowledged only once its record is stored for good.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::Serialize;
use shardwise_types::{ReportRecord, ShardId, Timestamp};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::backoff::Backoff;
use crate::bus::{Bus, BusError, Delivery};
use crate::envelope::{Envelope, EnvelopeId};
use crate::subject::ALL_SHARDS;
use crate::view::{FleetView, Ingested};

/// Why a record could not be stored.
pub type SinkError = Box<dyn std::error::Error + Send + Sync>;

/// Where records are stored, such as the history.
pub trait ReportSink: Send + Sync {
    /// Stores a record; durable when it returns. It may block.
    ///
    /// # Errors
    /// The record is not stored, nor will it be: the same record is handed in again later.
    fn append(&self, record: &ReportRecord) -> Result<(), SinkError>;

    /// Stores the record of a late report in the same way: the view did not follow it, and whoever plays the history again must
    /// not either.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    fn append_late(&self, record: &ReportRecord) -> Result<(), SinkError> {
        self.append(record)
    }

    /// Calls `take`, which has the view take in an envelope; for those that must know of it before anything else happens.
    fn take_in(&self, take: &dyn Fn() -> Ingested) -> Ingested {
        take()
    }

    /// Calls `tick`, which has the view let shards go that were not heard for long; in the same way.
    fn let_go(&self, tick: &dyn Fn() -> Vec<ShardId>) -> Vec<ShardId> {
        tick()
    }
}

/// Reads the router's wall clock.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// How a follower works.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FollowerConfig {
    /// Records that may wait for the sink; while so many do, nothing more is pulled, and reports age. At least 1.
    pub most_unsaved: usize,
    /// How often the view is told that time passes: one report period.
    pub tick: Duration,
    /// Pause after the sink's first failure; it doubles with each, up to `longest_pause`.
    pub first_pause: Duration,
    /// Longest pause between two attempts.
    pub longest_pause: Duration,
    /// How long records are still stored after a stop, as long as the sink takes them.
    pub finish_within: Duration,
    /// Longest time that an acknowledgement may take; the message comes again if it does not get through.
    pub ack_timeout: Duration,
}

impl Default for FollowerConfig {
    fn default() -> Self {
        Self {
            most_unsaved: 32_768,
            tick: Duration::from_secs(1),
            first_pause: Duration::from_millis(50),
            longest_pause: Duration::from_secs(5),
            finish_within: Duration::from_secs(5),
            ack_timeout: Duration::from_secs(1),
        }
    }
}

/// What a follower did; the view counts what became of each delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FollowerCounts {
    /// Deliveries that it pulled.
    pub delivered: u64,
    /// Records that the sink stored.
    pub saved: u64,
    /// Attempts that the sink failed.
    pub sink_errors: u64,
    /// Acknowledgements that did not get through; those messages come again.
    pub ack_errors: u64,
    /// Records that wait for the sink now.
    pub unsaved: u64,
}

#[derive(Default)]
struct Counts {
    delivered: AtomicU64,
    saved: AtomicU64,
    sink_errors: AtomicU64,
    ack_errors: AtomicU64,
    unsaved: AtomicU64,
}

/// Follows a fleet: pulls deliveries, shows them to the view, stores their records, acknowledges.
pub struct Follower {
    view: Arc<FleetView>,
    sink: Arc<dyn ReportSink>,
    clock: Clock,
    config: FollowerConfig,
    counts: Counts,
}

impl Follower {
    /// A follower that fills that view and that sink.
    pub fn new(view: Arc<FleetView>, sink: Arc<dyn ReportSink>, clock: Clock, config: FollowerConfig) -> Self {
        Self { view, sink, clock, config, counts: Counts::default() }
    }

    /// What it did so far.
    pub fn counts(&self) -> FollowerCounts {
        FollowerCounts {
            delivered: self.counts.delivered.load(Relaxed),
            saved: self.counts.saved.load(Relaxed),
            sink_errors: self.counts.sink_errors.load(Relaxed),
            ack_errors: self.counts.ack_errors.load(Relaxed),
            unsaved: self.counts.unsaved.load(Relaxed),
        }
    }

    /// Follows under the durable name until `stop` is ready; then stores what waits, as far as the sink takes it in
    /// time. What it does not take is not acknowledged, and the bus delivers it to whoever follows next under the same
    /// name. End it by `stop`: dropped in the middle, what the sink is storing may be stored twice.
    ///
    /// # Errors
    /// The bus refuses the subscription. A broker that goes away is no error.
    pub async fn run(&self, bus: &dyn Bus, durable: &str, stop: impl Future<Output = ()>) -> Result<(), BusError> {
        let mut subscription = bus.subscribe(ALL_SHARDS, durable).await?;
        let mut unsaved = Unsaved::of(&self.view);
        let mut saving: Option<Saving> = None;
        let mut pause = Backoff::new(self.config.first_pause, self.config.longest_pause);
        let mut ticks = tokio::time::interval(self.config.tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_silent = false;
        tokio::pin!(stop);
        loop {
            if saving.is_none() {
                saving = unsaved.first().map(|kept| self.save(kept, pause.next_pause()));
            }
            tokio::select! {
                biased;
                () = &mut stop => break,
                _ = ticks.tick() => self.tick(&mut is_silent),
                saved = join(&mut saving) => {
                    saving = None;
                    if self.settle(saved, &mut pause) {
                        self.forget_first(&mut unsaved).await;
                    }
                }
                delivery = subscription.next(), if unsaved.len() < self.config.most_unsaved.max(1) => {
                    self.take(delivery, &mut unsaved).await;
                }
            }
            self.counts.unsaved.store(unsaved.len() as u64, Relaxed);
        }
        self.finish(saving, unsaved).await;
        Ok(())
    }

    /// Has the view age, and says when the bus falls silent or is heard again.
    fn tick(&self, is_silent: &mut bool) {
        for shard in self.sink.let_go(&|| self.view.tick((self.clock)())) {
            tracing::warn!(%shard, "not heard for long: removed from the fleet");
        }
        let was_silent = std::mem::replace(is_silent, self.view.is_silent());
        match (*is_silent, was_silent) {
            (true, false) => tracing::warn!("no shard reports: decisions go on with what is known"),
            (false, true) => tracing::info!("shards report again"),
            _ => {}
        }
    }

    /// Shows a delivery to the view, and keeps it if its record is to be stored.
    async fn take(&self, delivery: Delivery, unsaved: &mut Unsaved<'_>) {
        self.counts.delivered.fetch_add(1, Relaxed);
        let now = (self.clock)();
        let envelope = match Envelope::from_json(&delivery.subject, &delivery.payload) {
            Ok(envelope) => envelope,
            Err(refused) => {
                tracing::warn!(%refused, "a report was refused");
                self.view.refuse(&refused, now);
                return self.acknowledge(delivery).await;
            }
        };
        match self.sink.take_in(&|| self.view.ingest(&envelope, (self.clock)())) {
            Ingested::New(record) => unsaved.push(envelope.id(), record, false, delivery),
            Ingested::Late(record) => unsaved.push(envelope.id(), record, true, delivery),
            Ingested::Duplicate => {
                if let Some(delivery) = unsaved.keep_copy(&envelope.id(), delivery) {
                    self.acknowledge(delivery).await;
                }
            }
            Ingested::Distrusted(problem) => {
                tracing::warn!(shard = %envelope.shard, %problem, "a report is not believed");
                self.acknowledge(delivery).await;
            }
        }
    }

    /// Stores a record, after a pause, where blocking hurts nobody.
    fn save(&self, kept: Kept, pause: Duration) -> Saving {
        let sink = self.sink.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let saving = tokio::task::spawn_blocking(move || match kept.is_late {
                true => sink.append_late(&kept.record),
                false => sink.append(&kept.record),
            });
            saving.await.unwrap_or_else(|panicked| Err(panicked.into()))
        })
    }

    /// Whether the record is stored.
    fn settle(&self, saved: Result<(), SinkError>, pause: &mut Backoff) -> bool {
        match saved {
            Ok(()) => {
                pause.reset();
                self.counts.saved.fetch_add(1, Relaxed);
                true
            }
            Err(error) => {
                pause.failed();
                self.counts.sink_errors.fetch_add(1, Relaxed);
                tracing::warn!(%error, "a report cannot be stored; it is tried again");
                false
            }
        }
    }

    /// Acknowledges what was stored.
    async fn forget_first(&self, unsaved: &mut Unsaved<'_>) {
        let Some((id, deliveries)) = unsaved.pop() else { return };
        self.view.saved(&id);
        for delivery in deliveries {
            self.acknowledge(delivery).await;
        }
    }

    async fn acknowledge(&self, delivery: Delivery) {
        let heard = tokio::time::timeout(self.config.ack_timeout, delivery.ack()).await;
        if !matches!(heard, Ok(Ok(()))) {
            self.counts.ack_errors.fetch_add(1, Relaxed);
        }
    }

    async fn finish(&self, mut saving: Option<Saving>, mut unsaved: Unsaved<'_>) {
        let mut pause = Backoff::new(self.config.first_pause, self.config.longest_pause);
        let deadline = tokio::time::sleep(self.config.finish_within);
        tokio::pin!(deadline);
        let mut is_over = false;
        // What the sink is storing is waited for in any case: nobody could tell whether it was stored.
        while saving.is_some() || !is_over {
            if saving.is_none() {
                saving = unsaved.first().map(|kept| self.save(kept, Duration::ZERO));
            }
            if saving.is_none() {
                break;
            }
            tokio::select! {
                biased;
                saved = join(&mut saving) => {
                    saving = None;
                    if !self.settle(saved, &mut pause) {
                        break;
                    }
                    self.forget_first(&mut unsaved).await;
                }
                () = &mut deadline, if !is_over => is_over = true,
            }
        }
        self.counts.unsaved.store(unsaved.len() as u64, Relaxed);
    }
}

type Saving = JoinHandle<Result<(), SinkError>>;

/// Waits for what runs; for ever when nothing does.
async fn join(saving: &mut Option<Saving>) -> Result<(), SinkError> {
    match saving {
        Some(saving) => saving.await.unwrap_or_else(|panicked| Err(panicked.into())),
        None => std::future::pending().await,
    }
}

/// Copies of one message that are kept to be acknowledged with it.
const MOST_COPIES: usize = 8;

/// Records that wait for the sink, in the order in which they came. The view forgets what is left in the end, so that
/// it does not pass for a duplicate when it comes again.
struct Unsaved<'a> {
    view: &'a FleetView,
    order: VecDeque<EnvelopeId>,
    records: HashMap<EnvelopeId, (Kept, VecDeque<Delivery>)>,
}

/// A record that waits for the sink.
#[derive(Clone)]
struct Kept {
    record: Arc<ReportRecord>,
    is_late: bool,
}

impl Drop for Unsaved<'_> {
    fn drop(&mut self) {
        self.order.iter().for_each(|id| self.view.forget(id));
    }
}

impl<'a> Unsaved<'a> {
    fn of(view: &'a FleetView) -> Self {
        Self { view, order: VecDeque::new(), records: HashMap::new() }
    }

    fn len(&self) -> usize {
        self.order.len()
    }

    fn first(&self) -> Option<Kept> {
        self.records.get(self.order.front()?).map(|(kept, _)| kept.clone())
    }

    fn push(&mut self, id: EnvelopeId, record: ReportRecord, is_late: bool, delivery: Delivery) {
        self.order.push_back(id.clone());
        let kept = Kept { record: Arc::new(record), is_late };
        self.records.insert(id, (kept, VecDeque::from([delivery])));
    }

    /// Keeps a further copy of what waits; hands it back when its record is stored.
    fn keep_copy(&mut self, id: &EnvelopeId, delivery: Delivery) -> Option<Delivery> {
        let Some((_, deliveries)) = self.records.get_mut(id) else { return Some(delivery) };
        if deliveries.len() == MOST_COPIES {
            deliveries.pop_front();
        }
        deliveries.push_back(delivery);
        None
    }

    fn pop(&mut self) -> Option<(EnvelopeId, VecDeque<Delivery>)> {
        let id = self.order.pop_front()?;
        let (_, deliveries) = self.records.remove(&id)?;
        Some((id, deliveries))
    }
}

#[cfg(test)]
#[path = "follower/tests.rs"]
mod tests;
