//! The fleet as a router sees it: what shards published, sorted, checked and aged.
//!
//! It reads no clock: whoever delivers says when. Readers take a snapshot without waiting for anybody.

mod checks;
mod sequences;
mod shard;
mod status;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use shardwise_types::{
    FleetSnapshot, InvalidInput, Network, Placements, Region, ReportRecord, ShardId, ShardShape, ShardSnapshot,
    Timestamp,
};

pub use shard::Distrust;
use shard::{Followed, Shard};
pub use status::{FleetCounts, FleetStatus, ShardStatus};

use crate::envelope::{Envelope, EnvelopeId, Refused};

/// How long the view waits, and what it believes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FleetViewConfig {
    /// Time between two reports of a shard, in ms, above 0.
    pub report_period_ms: f64,
    /// Age in ms from which on a report is stale, at least one period.
    pub stale_after_ms: f64,
    /// Periods without anything from anybody after which the subscription counts as silent, at least 1.
    pub silent_after_periods: f64,
    /// Time in ms without anything from a shard, while others are heard, after which it is removed; at least
    /// `staleAfterMs`.
    pub remove_after_ms: f64,
    /// How far in ms a shard's clock may be ahead of the router's, 0 or more.
    pub most_clock_ahead_ms: f64,
    /// Most requests that may wait or run on one shard.
    pub most_requests: u32,
    /// Most numbers that a shard may skip within a boot.
    pub most_skipped: u64,
    /// Most shards, so that nonsense cannot fill the memory; at least 1.
    pub most_shards: usize,
}

impl Default for FleetViewConfig {
    fn default() -> Self {
        Self {
            report_period_ms: 1000.0,
            stale_after_ms: 5000.0,
            silent_after_periods: 5.0,
            remove_after_ms: 300_000.0,
            most_clock_ahead_ms: 10_000.0,
            most_requests: 1_000_000,
            most_skipped: 10_000_000,
            most_shards: 10_000,
        }
    }
}

impl FleetViewConfig {
    fn check(&self) -> Result<(), InvalidInput> {
        for (field, value, least) in [
            ("reportPeriodMs", self.report_period_ms, 1.0),
            ("staleAfterMs", self.stale_after_ms, self.report_period_ms),
            ("silentAfterPeriods", self.silent_after_periods, 1.0),
            ("removeAfterMs", self.remove_after_ms, self.stale_after_ms),
            ("mostClockAheadMs", self.most_clock_ahead_ms, 0.0),
            ("mostShards", self.most_shards as f64, 1.0),
        ] {
            if !(value.is_finite() && value >= least) {
                return Err(InvalidInput::new(field, format!("{value} must be a finite number, {least} or more")));
            }
        }
        Ok(())
    }
}

/// What became of an envelope.
#[derive(Debug, Clone, PartialEq)]
pub enum Ingested {
    /// The newest of its shard: the snapshot follows it. The record belongs in the history.
    New(ReportRecord),
    /// Older than what is followed, and not seen before: the snapshot does not change. The record belongs in the
    /// history.
    Late(ReportRecord),
    /// Seen before.
    Duplicate,
    /// It says what cannot be: the last good report stays and ages.
    Distrusted(InvalidInput),
}

/// The most that a shard may be taken to have, whatever its shape says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Capacity {
    /// Cores that run requests, above 0.
    pub cores: f32,
    /// Memory in MB, above 0.
    pub memory_mb: f32,
}

/// What the view knows, to be kept over a restart; serialise it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct FleetImage {
    shards: BTreeMap<ShardId, Shard>,
    counts: FleetCounts,
    sequence: u64,
}

struct Inner {
    shards: BTreeMap<ShardId, Shard>,
    limits: BTreeMap<ShardId, Capacity>,
    counts: FleetCounts,
    sequence: u64,
    /// Advances with the caller's clock, by two periods at most a step: a clock that jumps ages nobody.
    steady_ms: f64,
    /// As `steady_ms`, but stands still in a silence: nobody vanishes for what the bus does.
    lively_ms: f64,
    /// `steady_ms` when anybody was last heard.
    heard_ms: f64,
    last_now: Option<Timestamp>,
}

/// The fleet as one router sees it.
pub struct FleetView {
    config: FleetViewConfig,
    snapshot: ArcSwap<FleetSnapshot>,
    addresses: ArcSwap<BTreeMap<ShardId, Arc<str>>>,
    inner: Mutex<Inner>,
}

impl FleetView {
    /// A view of a fleet that nobody has heard of yet.
    ///
    /// # Errors
    /// A setting out of its range, or a distance matrix of the wrong size.
    pub fn new(config: FleetViewConfig, network: Network, router_region: Region) -> Result<Self, InvalidInput> {
        Self::restore(FleetImage::default(), config, network, router_region)
    }

    /// A view that knows what the image knew. Hand what the history got since then to [`FleetView::recover`].
    ///
    /// # Errors
    /// A setting out of its range, a distance matrix of the wrong size, or a report in the image that cannot be.
    pub fn restore(
        image: FleetImage,
        config: FleetViewConfig,
        network: Network,
        router_region: Region,
    ) -> Result<Self, InvalidInput> {
        config.check()?;
        let FleetImage { shards, counts, sequence } = image;
        let snapshot = FleetSnapshot::new(snapshots(&shards), network, router_region)?;
        let addresses = ArcSwap::from_pointee(addresses(&shards));
        let inner = Inner {
            shards,
            limits: BTreeMap::new(),
            counts,
            sequence,
            steady_ms: 0.0,
            lively_ms: 0.0,
            heard_ms: 0.0,
            last_now: None,
        };
        Ok(Self { config, snapshot: ArcSwap::from_pointee(snapshot), addresses, inner: Mutex::new(inner) })
    }

    /// What may be restored: all but what is not in the history yet, which the bus must deliver again.
    pub fn image(&self) -> FleetImage {
        let inner = self.lock();
        let shards = inner.shards.iter().map(|(id, shard)| (id.clone(), shard.image())).collect();
        let forgotten = inner.counts.forgotten + inner.counts().unsaved;
        FleetImage { shards, counts: FleetCounts { forgotten, ..inner.counts.clone() }, sequence: inner.sequence }
    }

    /// The fleet now; never waits.
    pub fn snapshot(&self) -> Arc<FleetSnapshot> {
        self.snapshot.load_full()
    }

    /// Takes over where functions are to live; readers see it from the next snapshot on.
    pub fn place(&self, placements: &Arc<Placements>) {
        // Under the lock, as all that changes the snapshot.
        let _inner = self.lock();
        let fleet = FleetSnapshot::clone(&self.snapshot.load());
        self.snapshot.store(Arc::new(FleetSnapshot { placements: Arc::clone(placements), ..fleet }));
    }

    /// Where a shard answers; none when it did not say. Never waits.
    pub fn address(&self, shard: &ShardId) -> Option<Arc<str>> {
        self.addresses.load().get(shard).cloned()
    }

    /// Takes in what was delivered at `received_at` by the router's clock.
    pub fn ingest(&self, envelope: &Envelope, received_at: Timestamp) -> Ingested {
        let mut inner = self.lock();
        inner.hear(received_at, &self.config);
        if let Err(problem) = self.judge(&inner, envelope, received_at) {
            return inner.distrust(&envelope.shard, problem, received_at, &self.config);
        }
        let heard_ms = inner.lively_ms;
        let shard = inner.shards.entry(envelope.shard.clone()).or_default();
        shard.heard_ms = heard_ms;
        if !shard.see(envelope) {
            inner.counts.duplicates += 1;
            return Ingested::Duplicate;
        }
        let is_late = shard.is_late(envelope, received_at, self.config.stale_after_ms);
        let record = inner.record(envelope, received_at);
        if is_late {
            inner.counts.late += 1;
            return Ingested::Late(record);
        }
        inner.counts.new += 1;
        self.follow(&mut inner, envelope, &record);
        Ingested::New(record)
    }

    /// Counts bytes that are no envelope; the shard that they name is distrusted.
    pub fn refuse(&self, refused: &Refused, received_at: Timestamp) {
        let mut inner = self.lock();
        inner.hear(received_at, &self.config);
        inner.counts.refuse(refused.kind);
        let heard_ms = inner.lively_ms;
        if let Some(id) = &refused.shard
            && let Some(shard) = inner.shards.get_mut(id)
        {
            shard.heard_ms = heard_ms;
            shard.distrust(&InvalidInput::new("envelope", &refused.problem), received_at);
        }
    }

    /// Says that the record of an envelope is in the history for good.
    pub fn saved(&self, id: &EnvelopeId) {
        if let Some(shard) = self.lock().shards.get_mut(&id.shard) {
            shard.saved(&id.boot, id.sequence);
        }
    }

    /// Whether the record of an envelope that was seen is in the history for good, as far as is remembered.
    pub fn is_saved(&self, id: &EnvelopeId) -> bool {
        self.lock().shards.get(&id.shard).is_none_or(|shard| !shard.is_unsaved(&id.boot, id.sequence))
    }

    /// Forgets that an envelope was seen, because its record was not stored: it is new when it comes again.
    pub fn forget(&self, id: &EnvelopeId) {
        let mut inner = self.lock();
        let shard = inner.shards.get_mut(&id.shard);
        let is_forgotten = shard.is_some_and(|shard| shard.forget(&id.boot, id.sequence));
        inner.counts.forgotten += u64::from(is_forgotten);
    }

    /// Takes in a record that the history got after the image was taken: its envelope, should it come again, is a
    /// duplicate.
    pub fn recover(&self, record: &ReportRecord) {
        let mut inner = self.lock();
        inner.sequence = inner.sequence.max(record.sequence.saturating_add(1));
        inner.shards.entry(record.shard.clone()).or_default().recover(&record.shape, &record.report);
        self.show(&inner, &record.shard);
    }

    /// Lets time pass: call it once a period. Removes shards that were not heard for long, if others were.
    pub fn tick(&self, now: Timestamp) -> Vec<ShardId> {
        let mut inner = self.lock();
        inner.pass(now, &self.config);
        let oldest_ms = inner.lively_ms - self.config.remove_after_ms;
        let is_gone = |shard: &Shard| shard.heard_ms < oldest_ms && shard.unsaved() == 0;
        let gone: Vec<ShardId> =
            inner.shards.iter().filter(|(_, shard)| is_gone(shard)).map(|(id, _)| id.clone()).collect();
        for id in &gone {
            if let Some(shard) = inner.shards.remove(id) {
                inner.counts.removed += 1;
                inner.counts.missing_of_removed += shard.missing();
            }
            self.show(&inner, id);
        }
        gone
    }

    /// Whether nothing was heard from anybody for so long that the bus must be the reason, as far as ticks tell.
    pub fn is_silent(&self) -> bool {
        self.lock().is_silent(&self.config)
    }

    /// Limits what shards are shown to have from now on; who is not among them has what its shape says. The history
    /// gets what is shown, for that is what was decided on.
    pub fn limit(&self, limits: BTreeMap<ShardId, Capacity>) {
        let mut inner = self.lock();
        inner.limits = limits;
        inner.shards.keys().for_each(|id| self.show(&inner, id));
    }

    /// How the view and each shard stand; for people and metrics.
    pub fn status(&self, now: Timestamp) -> FleetStatus {
        FleetStatus::of(&self.lock(), &self.config, now)
    }

    /// What it did since it was made; restored counts go on.
    pub fn counts(&self) -> FleetCounts {
        self.lock().counts()
    }

    fn judge(&self, inner: &Inner, envelope: &Envelope, received_at: Timestamp) -> Result<(), InvalidInput> {
        checks::check(envelope, received_at, &self.config)?;
        let Some(shard) = inner.shards.get(&envelope.shard) else { return inner.check_room(&self.config) };
        let highest = shard.highest(&envelope.boot_id).unwrap_or(envelope.sequence);
        if envelope.sequence.saturating_sub(highest) > self.config.most_skipped {
            let problem = format!("{} comes after {highest}; so many cannot be missing", envelope.sequence);
            return Err(InvalidInput::new("sequence", problem));
        }
        Ok(())
    }

    fn follow(&self, inner: &mut Inner, envelope: &Envelope, record: &ReportRecord) {
        if let Some(shard) = inner.shards.get_mut(&envelope.shard) {
            shard.distrust = None;
            shard.follow(envelope, record.report.clone());
        }
        self.show(inner, &envelope.shard);
    }

    /// Has readers see what is known of a shard; called under the lock, so that changes are shown in their order.
    fn show(&self, inner: &Inner, id: &ShardId) {
        let shard = inner.shards.get(id);
        let mut fleet = FleetSnapshot::clone(&self.snapshot.load());
        let mut now = shard.and_then(|shard| shard.followed.as_ref()).map(|followed| snapshot(id, followed));
        if let Some(now) = &mut now {
            inner.limit(id, &mut now.shape);
        }
        match (fleet.shards.binary_search_by(|known| known.id.cmp(id)), now) {
            (Ok(place), Some(now)) => fleet.shards[place] = now,
            (Err(place), Some(now)) => fleet.shards.insert(place, now),
            (Ok(place), None) => drop(fleet.shards.remove(place)),
            (Err(_), None) => {}
        }
        self.snapshot.store(Arc::new(fleet));
        let address = shard.and_then(|shard| shard.address.as_deref());
        if self.addresses.load().get(id).map(|known| &**known) != address {
            self.addresses.store(Arc::new(addresses(&inner.shards)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Whoever panicked left counts behind at worst.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn limit(&self, id: &ShardId, shape: &mut ShardShape) {
        if let Some(limit) = self.limits.get(id) {
            shape.cores = shape.cores.min(limit.cores);
            shape.memory_mb = shape.memory_mb.min(limit.memory_mb);
        }
    }

    fn pass(&mut self, now: Timestamp, config: &FleetViewConfig) {
        if let Some(before) = self.last_now.replace(now) {
            let step_ms = now.millis_since(before).clamp(0.0, 2.0 * config.report_period_ms);
            self.steady_ms += step_ms;
            if !self.is_silent(config) {
                self.lively_ms += step_ms;
            }
        }
    }

    fn hear(&mut self, received_at: Timestamp, config: &FleetViewConfig) {
        self.pass(received_at, config);
        self.heard_ms = self.steady_ms;
    }

    fn silent_ms(&self) -> f64 {
        self.steady_ms - self.heard_ms
    }

    fn is_silent(&self, config: &FleetViewConfig) -> bool {
        self.silent_ms() > config.silent_after_periods * config.report_period_ms
    }

    fn check_room(&self, config: &FleetViewConfig) -> Result<(), InvalidInput> {
        if self.shards.len() < config.most_shards {
            return Ok(());
        }
        let problem = format!("one more than {}; is it a shard? If so, raise mostShards", config.most_shards);
        Err(InvalidInput::new("shard", problem))
    }

    fn distrust(
        &mut self,
        id: &ShardId,
        problem: InvalidInput,
        received_at: Timestamp,
        config: &FleetViewConfig,
    ) -> Ingested {
        self.counts.distrusted += 1;
        let heard_ms = self.lively_ms;
        if self.shards.contains_key(id) || self.check_room(config).is_ok() {
            let shard = self.shards.entry(id.clone()).or_default();
            shard.heard_ms = heard_ms;
            shard.distrust(&problem, received_at);
        }
        Ingested::Distrusted(problem)
    }

    fn record(&mut self, envelope: &Envelope, received_at: Timestamp) -> ReportRecord {
        let sequence = self.sequence;
        self.sequence += 1;
        let mut report = envelope.report.clone();
        report.known_at = received_at;
        let mut shape = envelope.shape.clone();
        self.limit(&envelope.shard, &mut shape);
        ReportRecord { sequence, router: None, shard: envelope.shard.clone(), shape, report }
    }

    fn counts(&self) -> FleetCounts {
        let sum = |of: fn(&Shard) -> u64| self.shards.values().map(of).sum::<u64>();
        FleetCounts {
            missing: self.counts.missing_of_removed + sum(Shard::missing),
            unsaved: sum(Shard::unsaved),
            ..self.counts.clone()
        }
    }
}

fn snapshot(id: &ShardId, followed: &Followed) -> ShardSnapshot {
    ShardSnapshot { id: id.clone(), shape: followed.shape.clone(), report: Some(followed.report.clone()) }
}

fn snapshots(shards: &BTreeMap<ShardId, Shard>) -> Vec<ShardSnapshot> {
    let followed = shards.iter().filter_map(|(id, shard)| Some((id, shard.followed.as_ref()?)));
    followed.map(|(id, followed)| snapshot(id, followed)).collect()
}

fn addresses(shards: &BTreeMap<ShardId, Shard>) -> BTreeMap<ShardId, Arc<str>> {
    let known = shards.iter().filter_map(|(id, shard)| Some((id, shard.address.as_deref()?)));
    known.map(|(id, address)| (id.clone(), address.into())).collect()
}

#[cfg(test)]
#[path = "view/tests.rs"]
mod tests;
