//! How the view stands, for people and metrics.

use serde::{Deserialize, Serialize};
use shardwise_types::{ShardId, Timestamp};

use super::shard::{Distrust, Shard};
use super::{FleetViewConfig, Inner};
use crate::details::SystemMetrics;
use crate::envelope::RefusalKind;

/// What the view did; all but `missing` and `unsaved` only grow. Deliveries are the sum of the first seven.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FleetCounts {
    /// Envelopes that were the newest of their shard.
    pub new: u64,
    /// Envelopes that were older than what was followed.
    pub late: u64,
    /// Envelopes that were seen before.
    pub duplicates: u64,
    /// Envelopes that said what cannot be.
    pub distrusted: u64,
    /// Deliveries that were too large or no envelope.
    pub refused_malformed: u64,
    /// Deliveries of another version.
    pub refused_version: u64,
    /// Deliveries on the subject of another shard.
    pub refused_subject: u64,
    /// Shards that were removed.
    pub removed: u64,
    /// Numbers that were skipped and did not arrive since.
    pub missing: u64,
    /// Those of them that belong to shards that were removed.
    pub missing_of_removed: u64,
    /// Records that are not in the history yet.
    pub unsaved: u64,
    /// Records that were given up before they were in the history; their envelopes come again and count again. New and
    /// late ones are those in the history, these, and the unsaved ones.
    pub forgotten: u64,
}

impl FleetCounts {
    /// Everything that was taken in.
    pub fn deliveries(&self) -> u64 {
        let refused = self.refused_malformed + self.refused_version + self.refused_subject;
        self.new + self.late + self.duplicates + self.distrusted + refused
    }

    pub(super) fn refuse(&mut self, kind: RefusalKind) {
        match kind {
            RefusalKind::TooLarge | RefusalKind::Malformed => self.refused_malformed += 1,
            RefusalKind::UnknownVersion => self.refused_version += 1,
            RefusalKind::WrongSubject => self.refused_subject += 1,
        }
    }
}

/// How one shard stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardStatus {
    /// The shard.
    pub shard: ShardId,
    /// Where it answers.
    pub address: Option<String>,
    /// Age in ms of the report that is followed, 0 or more; none when there never was one.
    pub age_ms: Option<f64>,
    /// Whether that is too old, or missing.
    pub stale: bool,
    /// Why it is not believed; none when it is.
    pub distrust: Option<Distrust>,
    /// What its machine was doing, as it last said since this process began.
    pub system: SystemMetrics,
    /// Numbers that it skipped and that did not arrive since.
    pub missing: u64,
}

/// How the view stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FleetStatus {
    /// Time in ms without anything from anybody, as far as ticks and deliveries tell.
    pub silent_ms: f64,
    /// Whether the subscription counts as silent: decisions go on with what is known.
    pub silent: bool,
    /// The shards, in the order of their names, also those that are only distrusted.
    pub shards: Vec<ShardStatus>,
    /// What it did so far.
    pub counts: FleetCounts,
}

impl FleetStatus {
    pub(super) fn of(inner: &Inner, config: &FleetViewConfig, now: Timestamp) -> Self {
        let status = |(id, shard): (&ShardId, &Shard)| {
            let followed = shard.followed.as_ref();
            let age_ms = followed.map(|followed| now.millis_since(followed.report.event_at).max(0.0));
            ShardStatus {
                shard: id.clone(),
                address: shard.address.clone(),
                age_ms,
                stale: age_ms.is_none_or(|age_ms| age_ms > config.stale_after_ms),
                distrust: shard.distrust.clone(),
                system: shard.system.clone(),
                missing: shard.missing(),
            }
        };
        Self {
            silent_ms: inner.silent_ms(),
            silent: inner.is_silent(config),
            shards: inner.shards.iter().map(status).collect(),
            counts: inner.counts(),
        }
    }
}
