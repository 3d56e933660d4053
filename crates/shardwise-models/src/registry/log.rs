//! The log of a model: numbered entries, each created once and never changed, each with the whole map of aliases.
//!
//! Object stores cannot rename, but they can refuse to create what is there. So the entry that comes next is made by one
//! writer only, and a reader of the newest entry sees one state as a whole. An entry without its last line break was cut
//! off by a store that loses bytes; it never happened.

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};
use shardwise_types::Timestamp;

use super::error::RegistryError;
use super::judgement::Judgement;
use crate::manifest::as_text;
use crate::store::Store;

/// Longest entry that is read.
const MAX_ENTRY_BYTES: u64 = 1 << 24;
/// Digits in the name of an entry, so that names sort as numbers.
const NUMBER_DIGITS: usize = 10;

/// Who changes the aliases, when and why.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AliasMove {
    /// The instant of the move.
    pub at: Timestamp,
    /// Who moves it, such as `nightly` or `train`.
    pub who: String,
    /// Why, in a sentence.
    pub why: String,
    /// The figures behind it.
    pub metrics: serde_json::Value,
    /// What a gate said of the version.
    pub judgement: Option<Judgement>,
    /// What speaks against it, a sentence each, when it is forced; empty when nothing is.
    pub forced: Vec<String>,
}

/// One entry of the history: what changed, and the state since.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryEntry {
    /// The instant of the change.
    #[serde(serialize_with = "as_text")]
    pub at: Timestamp,
    /// Who changed it.
    pub who: String,
    /// Why.
    pub why: String,
    /// The alias that moved; none when versions were removed or refused.
    pub alias: Option<String>,
    /// The version that the alias pointed to; none for a new alias.
    pub from: Option<String>,
    /// The version that it points to since.
    pub to: Option<String>,
    /// All aliases since.
    pub aliases: BTreeMap<String, String>,
    /// Versions that were removed and may still be seen for a moment, and when in nanoseconds since 1970.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub removed: BTreeMap<String, i64>,
    /// What a gate said of a version, whether or not an alias moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judgement: Option<Judgement>,
    /// What spoke against the move, a sentence each, when it was forced; empty when nothing was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forced: Vec<String>,
    /// The figures behind it.
    pub metrics: serde_json::Value,
}

/// What the newest entry says, and the number of the next.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    next: u64,
    pub(super) aliases: BTreeMap<String, String>,
    pub(super) removed: BTreeMap<String, i64>,
    /// Of the newest entry alone.
    pub(super) judgement: Option<Judgement>,
}

pub(super) struct Log<'a> {
    pub(super) store: &'a Store,
    /// Key of the folder of entries.
    pub(super) prefix: String,
}

impl Log<'_> {
    fn key(&self, number: u64) -> String {
        format!("{}/{number:0NUMBER_DIGITS$}.json", self.prefix)
    }

    fn numbers(&self) -> Result<Vec<u64>, RegistryError> {
        let listed = self.store.list(&self.prefix).map_err(|source| self.io(&self.prefix, source))?;
        let number = |name: &str| name.strip_suffix(".json").filter(|name| name.len() == NUMBER_DIGITS)?.parse().ok();
        Ok(listed.iter().filter_map(|object| number(&object.name)).collect())
    }

    /// Reads an entry; `None` when it was cut off.
    fn entry(&self, number: u64) -> Result<Option<HistoryEntry>, RegistryError> {
        let key = self.key(number);
        let bytes = self.store.get(&key, MAX_ENTRY_BYTES).map_err(|source| self.io(&key, source))?;
        if bytes.last() != Some(&b'\n') {
            return Ok(None);
        }
        let bad = |error: serde_json::Error| RegistryError::BadHistory {
            path: self.store.path(&key),
            problem: error.to_string(),
        };
        serde_json::from_slice(&bytes).map(Some).map_err(bad)
    }

    pub(super) fn state(&self) -> Result<State, RegistryError> {
        let numbers = self.numbers()?;
        let next = numbers.last().map_or(1, |last| last + 1);
        for number in numbers.into_iter().rev() {
            if let Some(HistoryEntry { aliases, removed, judgement, .. }) = self.entry(number)? {
                return Ok(State { next, aliases, removed, judgement });
            }
        }
        Ok(State { next, ..State::default() })
    }

    /// All entries, the oldest first.
    pub(super) fn entries(&self) -> Result<Vec<HistoryEntry>, RegistryError> {
        self.numbers()?.into_iter().filter_map(|number| self.entry(number).transpose()).collect()
    }

    /// The newest judgement of a version.
    pub(super) fn last_judgement(&self, version: &str) -> Result<Option<Judgement>, RegistryError> {
        for number in self.numbers()?.into_iter().rev() {
            let judgement = self.entry(number)?.and_then(|entry| entry.judgement);
            if let Some(judgement) = judgement.filter(|judgement| judgement.version == version) {
                return Ok(Some(judgement));
            }
        }
        Ok(None)
    }

    /// Adds the entry that follows a state; false when somebody else did so first.
    pub(super) fn append(&self, after: &State, entry: &HistoryEntry) -> Result<bool, RegistryError> {
        let key = self.key(after.next);
        let mut line = serde_json::to_vec(entry).map_err(|error| self.io(&key, error.into()))?;
        line.push(b'\n');
        match self.store.create(&key, &line) {
            Ok(()) => Ok(true),
            // A store that tried again by itself may have been first the first time. And S3 says the same while somebody else
            // is still writing, who may yet fail: then nothing is there, and whoever looks again may be first.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match self.entry(after.next) {
                Ok(found) => Ok(found.as_ref() == Some(entry)),
                Err(RegistryError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(false),
                Err(error) => Err(error),
            },
            Err(source) => Err(self.io(&key, source)),
        }
    }

    fn io(&self, key: &str, source: io::Error) -> RegistryError {
        RegistryError::Io { path: self.store.path(key), source }
    }
}
