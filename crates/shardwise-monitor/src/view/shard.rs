//! What the view remembers of one shard.

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use shardwise_types::{InvalidInput, ShardReport, ShardShape, Timestamp};

use super::sequences::Sequences;
use crate::details::SystemMetrics;
use crate::envelope::{BootId, Envelope};

/// Boots that are told apart; a delivery of an older one passes for new.
const MOST_BOOTS: usize = 16;
/// Records out of the history that are remembered per shard.
const MOST_RECOVERED: usize = 65_536;

/// The numbers of one boot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Boot {
    id: BootId,
    seen: Sequences,
    /// Those of the seen ones that are not in the history yet.
    #[serde(skip)]
    unsaved: BTreeSet<u64>,
}

/// What is followed: the report, and where it stands among the shard's envelopes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Followed {
    pub(super) shape: ShardShape,
    pub(super) report: ShardReport,
    /// None when it came out of the history.
    boot: Option<BootId>,
    sequence: u64,
}

/// Why a shard is not believed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Distrust {
    /// When it first said what cannot be, by the router's clock; what it says is not followed since.
    pub since: Timestamp,
    /// What it last said that cannot be.
    pub problem: String,
    /// How often it did since then.
    pub times: u64,
}

/// What the view remembers of one shard.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Shard {
    pub(super) address: Option<String>,
    /// What it last said of its machine; a new process waits for the next report.
    #[serde(skip)]
    pub(super) system: SystemMetrics,
    pub(super) followed: Option<Followed>,
    pub(super) distrust: Option<Distrust>,
    boots: VecDeque<Boot>,
    recovered: BTreeSet<Timestamp>,
    /// The view's lively clock when it was last heard.
    #[serde(skip)]
    pub(super) heard_ms: f64,
}

impl Shard {
    /// Marks the number as seen; false when it was, or when its report came out of the history.
    pub(super) fn see(&mut self, envelope: &Envelope) -> bool {
        let is_recovered = self.recovered.contains(&envelope.report.event_at);
        let boot = self.boot_mut(&envelope.boot_id);
        let is_new = boot.seen.insert(envelope.sequence) && !is_recovered;
        if is_new {
            boot.unsaved.insert(envelope.sequence);
        }
        is_new
    }

    /// The highest number of that boot so far.
    pub(super) fn highest(&self, boot: &BootId) -> Option<u64> {
        self.boots.iter().find(|known| known.id == *boot).and_then(|known| known.seen.highest())
    }

    pub(super) fn saved(&mut self, boot: &BootId, sequence: u64) {
        if let Some(boot) = self.boots.iter_mut().find(|known| known.id == *boot) {
            boot.unsaved.remove(&sequence);
        }
    }

    /// Whether a number was seen whose record is not in the history yet.
    pub(super) fn is_unsaved(&self, boot: &BootId, sequence: u64) -> bool {
        self.boots.iter().any(|known| known.id == *boot && known.unsaved.contains(&sequence))
    }

    /// Forgets a number whose record is not in the history; false when there is none.
    pub(super) fn forget(&mut self, boot: &BootId, sequence: u64) -> bool {
        let boot = self.boots.iter_mut().find(|known| known.id == *boot);
        let Some(boot) = boot.filter(|boot| boot.unsaved.contains(&sequence)) else { return false };
        boot.unsaved.remove(&sequence);
        boot.seen.remove(sequence);
        true
    }

    /// Whether an envelope is older than what is followed. Within a boot the numbers say so, whatever the clocks do;
    /// between boots the clocks do, as long as the followed boot is heard of.
    pub(super) fn is_late(&self, envelope: &Envelope, received_at: Timestamp, stale_after_ms: f64) -> bool {
        let Some(followed) = &self.followed else { return false };
        if followed.boot.as_ref() == Some(&envelope.boot_id) {
            return envelope.sequence < followed.sequence;
        }
        let silent_ms = received_at.millis_since(followed.report.known_at);
        envelope.report.event_at <= followed.report.event_at && silent_ms <= stale_after_ms
    }

    pub(super) fn follow(&mut self, envelope: &Envelope, report: ShardReport) {
        self.address.clone_from(&envelope.address);
        self.system = envelope.system.clone();
        self.followed = Some(Followed {
            shape: envelope.shape.clone(),
            report,
            boot: Some(envelope.boot_id.clone()),
            sequence: envelope.sequence,
        });
    }

    /// Takes in a record out of the history.
    pub(super) fn recover(&mut self, shape: &ShardShape, report: &ShardReport) {
        self.recovered.insert(report.event_at);
        if self.recovered.len() > MOST_RECOVERED {
            self.recovered.pop_first();
        }
        if self.followed.as_ref().is_none_or(|followed| followed.report.event_at < report.event_at) {
            self.followed = Some(Followed { shape: shape.clone(), report: report.clone(), boot: None, sequence: 0 });
        }
    }

    pub(super) fn distrust(&mut self, problem: &InvalidInput, received_at: Timestamp) {
        let distrust =
            self.distrust.get_or_insert_with(|| Distrust { since: received_at, problem: String::new(), times: 0 });
        distrust.problem = problem.to_string();
        distrust.times += 1;
    }

    /// Numbers that were skipped and did not arrive since.
    pub(super) fn missing(&self) -> u64 {
        self.boots.iter().map(|boot| boot.seen.missing()).sum()
    }

    pub(super) fn unsaved(&self) -> u64 {
        self.boots.iter().map(|boot| boot.unsaved.len() as u64).sum()
    }

    /// What may be restored: what is not in the history yet must come again.
    pub(super) fn image(&self) -> Self {
        let mut image = self.clone();
        for boot in &mut image.boots {
            std::mem::take(&mut boot.unsaved).into_iter().for_each(|number| boot.seen.remove(number));
        }
        image
    }

    fn boot_mut(&mut self, id: &BootId) -> &mut Boot {
        if let Some(place) = self.boots.iter().position(|boot| boot.id == *id) {
            return &mut self.boots[place];
        }
        if self.boots.len() == MOST_BOOTS {
            self.boots.pop_front();
        }
        self.boots.push_back(Boot { id: id.clone(), seen: Sequences::default(), unsaved: BTreeSet::new() });
        self.boots.back_mut().expect("one was pushed")
    }
}
