//! What has happened, as records that are only ever added: the audit, and what a coordinator starts from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shardwise_types::Timestamp;

use crate::{Change, Configuration, Member};

/// One line of the history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Record {
    /// A change was proposed to these members.
    Proposed {
        /// Who wants what, why, and when.
        change: Change,
        /// Who must agree.
        members: Vec<Member>,
    },
    /// All agreed in time. From this line on the change holds.
    Committed {
        /// Which change.
        version: u64,
        /// When it was decided.
        at: Timestamp,
        /// What each member said.
        acknowledgements: Vec<Acknowledgement>,
    },
    /// It holds nowhere, ever.
    Withdrawn {
        /// Which change.
        version: u64,
        /// When it was decided.
        at: Timestamp,
        /// Why, member by member.
        reasons: Vec<String>,
        /// What each member said.
        acknowledgements: Vec<Acknowledgement>,
    },
    /// The coordinator has stopped telling members of the decision.
    Settled {
        /// Which change.
        version: u64,
        /// When.
        at: Timestamp,
        /// Who has not acknowledged the decision; these learn it when they ask.
        unacknowledged: Vec<Member>,
    },
}

/// What one member said of a change before the decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Acknowledgement {
    /// Who.
    pub member: Member,
    /// When it promised, by its own clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepared_at: Option<Timestamp>,
    /// Why it refused, or why its answers did not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// What the records of a history come to.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Summary {
    pub(crate) highest: u64,
    /// The newest committed configuration, the instant from which it holds, and the one before it.
    pub(crate) newest: Configuration,
    pub(crate) newest_from: Timestamp,
    pub(crate) before: Configuration,
    /// The newest change, if the coordinator has not finished with it.
    pub(crate) open: Option<Open>,
}

/// A change that the coordinator has not finished with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Open {
    pub(crate) change: Change,
    pub(crate) members: Vec<Member>,
    pub(crate) decided: Option<Decided>,
}

/// How a change was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decided {
    Committed,
    Withdrawn,
}

/// A history that contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("record {number} of the history: {problem}")]
pub struct Inconsistent {
    /// Which record, from 1.
    pub number: usize,
    /// What is wrong with it.
    pub problem: String,
}

/// Reads the records in order.
pub(crate) fn summarise(records: &[Record]) -> Result<Summary, Inconsistent> {
    let mut summary = Summary::default();
    for (record, number) in records.iter().zip(1..) {
        summary.add(record).map_err(|problem| Inconsistent { number, problem })?;
    }
    Ok(summary)
}

/// The configuration of a committed version, the empty one of version 0 included; none of one that never was, or of a history
/// that contradicts itself before it.
pub(crate) fn configuration(records: &[Record], version: u64) -> Option<Configuration> {
    let (mut summary, mut records) = (Summary::default(), records.iter());
    while summary.newest.version != version {
        summary.add(records.next()?).ok()?;
    }
    Some(summary.newest)
}

impl Summary {
    fn add(&mut self, record: &Record) -> Result<(), String> {
        match record {
            Record::Proposed { change, members } => {
                if change.version <= self.highest || change.from_version != self.newest.version {
                    let (version, from) = (change.version, change.from_version);
                    return Err(format!("version {version} on {from} does not follow version {}", self.newest.version));
                }
                self.highest = change.version;
                self.open = Some(Open { change: change.clone(), members: members.clone(), decided: None });
            }
            Record::Committed { version, .. } => {
                let change = self.decide(*version, Decided::Committed)?.change.clone();
                let next = self.newest.after(&change);
                self.before = std::mem::replace(&mut self.newest, next);
                self.newest_from = change.effective_at;
            }
            Record::Withdrawn { version, .. } => {
                self.decide(*version, Decided::Withdrawn)?;
            }
            Record::Settled { version, .. } => {
                self.open.take_if(|open| open.change.version == *version && open.decided.is_some());
            }
        }
        Ok(())
    }

    fn decide(&mut self, version: u64, decided: Decided) -> Result<&Open, String> {
        match &mut self.open {
            Some(open) if open.change.version == version && open.decided.is_none() => {
                open.decided = Some(decided);
                Ok(open)
            }
            _ => Err(format!("version {version} is decided, but it was not proposed or was decided before")),
        }
    }
}

/// One change and what became of it, for people and programs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Who wants what, why, and when.
    pub change: Change,
    /// Who must agree.
    pub members: Vec<Member>,
    /// What became of it.
    pub outcome: Outcome,
    /// When it was decided.
    pub decided_at: Option<Timestamp>,
    /// Why not, member by member.
    pub reasons: Vec<String>,
    /// What each member said before the decision.
    pub acknowledgements: Vec<Acknowledgement>,
    /// Who had not acknowledged the decision when the coordinator stopped telling it; `None` while it still does.
    pub unacknowledged: Option<Vec<Member>>,
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// Promises are being collected.
    Undecided,
    /// It holds from its instant on, everywhere.
    Committed,
    /// It holds nowhere, ever.
    Withdrawn,
}

impl Outcome {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Undecided => "undecided",
            Self::Committed => "committed",
            Self::Withdrawn => "withdrawn",
        }
    }
}

impl Entry {
    /// Whether there is nothing left to wait for.
    pub(crate) fn is_finished(&self, its_instant_has_come: bool) -> bool {
        match self.outcome {
            // After its instant it cannot be committed any more; its withdrawal could not be recorded.
            Outcome::Undecided => its_instant_has_come,
            Outcome::Withdrawn => true,
            Outcome::Committed => its_instant_has_come || self.unacknowledged.is_some(),
        }
    }
}

/// The changes of a history, oldest first.
pub fn entries<'a>(records: impl IntoIterator<Item = &'a Record>) -> Vec<Entry> {
    let mut entries: BTreeMap<u64, Entry> = BTreeMap::new();
    for record in records {
        let version = record.version();
        if let Record::Proposed { change, members } = record {
            let entry = Entry {
                change: change.clone(),
                members: members.clone(),
                outcome: Outcome::Undecided,
                decided_at: None,
                reasons: Vec::new(),
                acknowledgements: Vec::new(),
                unacknowledged: None,
            };
            entries.insert(version, entry);
        } else if let Some(entry) = entries.get_mut(&version) {
            entry.add(record);
        }
    }
    entries.into_values().collect()
}

impl Entry {
    fn add(&mut self, record: &Record) {
        match record {
            Record::Proposed { .. } => {}
            Record::Committed { at, acknowledgements, .. } => {
                (self.outcome, self.decided_at) = (Outcome::Committed, Some(*at));
                self.acknowledgements.clone_from(acknowledgements);
            }
            Record::Withdrawn { at, reasons, acknowledgements, .. } => {
                (self.outcome, self.decided_at) = (Outcome::Withdrawn, Some(*at));
                self.reasons.clone_from(reasons);
                self.acknowledgements.clone_from(acknowledgements);
            }
            Record::Settled { unacknowledged, .. } => self.unacknowledged = Some(unacknowledged.clone()),
        }
    }
}

impl Record {
    /// The change that it is about.
    pub fn version(&self) -> u64 {
        match self {
            Self::Proposed { change, .. } => change.version,
            Self::Committed { version, .. } | Self::Withdrawn { version, .. } | Self::Settled { version, .. } => {
                *version
            }
        }
    }
}
