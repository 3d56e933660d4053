//! Pointing aliases to versions: each change is the next entry of the log, made by one writer only.

use std::collections::BTreeMap;

use shardwise_types::Timestamp;

use super::error::RegistryError;
use super::log::{AliasMove, HistoryEntry, Log, State};
use super::{CHAMPION, LOG_FOLDER, PREVIOUS, Registry, check_name};
use crate::bundle::VERSIONS_FOLDER;
use crate::manifest::MANIFEST_FILE;

/// How often a change is tried when others are faster; each time, one of them was done.
const MAX_ATTEMPTS: usize = 100;

/// What the next entry says.
pub(super) struct Change {
    pub(super) alias: Option<String>,
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
    pub(super) aliases: BTreeMap<String, String>,
    pub(super) removed: BTreeMap<String, i64>,
}

impl Registry {
    /// Points an alias to a version, which is given by another alias, its name or the beginning of it. When the champion
    /// moves, [`PREVIOUS`] follows in the same step. Returns whether the alias moved; where it already points there, nothing
    /// is written.
    ///
    /// # Errors
    /// When the version is not there or cannot be served here, or cannot be written.
    pub fn set_alias(&self, alias: &str, version: &str, by: &AliasMove) -> Result<bool, RegistryError> {
        self.move_alias(alias, version, None, by)
    }

    /// The same, but only while the alias points to `expected`: what was decided against one version must not replace another.
    ///
    /// # Errors
    /// As [`Registry::set_alias`], and when the alias points elsewhere by now.
    pub fn set_alias_if(
        &self,
        alias: &str,
        version: &str,
        expected: Option<&str>,
        by: &AliasMove,
    ) -> Result<bool, RegistryError> {
        self.move_alias(alias, version, Some(expected), by)
    }

    fn move_alias(
        &self,
        alias: &str,
        version: &str,
        expected: Option<Option<&str>>,
        by: &AliasMove,
    ) -> Result<bool, RegistryError> {
        check_name("an alias", alias)?;
        let to = self.load(version)?.version().to_owned();
        self.change(by, |state| {
            let from = state.aliases.get(alias).cloned();
            if expected.is_some_and(|expected| expected != from.as_deref()) {
                return Err(RegistryError::Overtaken { path: self.place(), alias: alias.to_owned(), found: from });
            }
            if from.as_ref() == Some(&to) {
                return Ok(None);
            }
            self.check_not_removed(&to, state)?;
            Ok(Some(moved(state, alias, from, &to)))
        })
    }

    /// Makes the champion before the champion again, and the present one the one before. Returns the champion's version.
    ///
    /// # Errors
    /// When there was none before, or it cannot be served here.
    pub fn roll_back(&self, by: &AliasMove) -> Result<String, RegistryError> {
        let mut champion = String::new();
        self.change(by, |state| {
            let previous = state.aliases.get(PREVIOUS).ok_or_else(|| self.no_such_alias(PREVIOUS))?;
            self.load(previous)?;
            self.check_not_removed(previous, state)?;
            champion.clone_from(previous);
            Ok(Some(moved(state, CHAMPION, state.aliases.get(CHAMPION).cloned(), previous)))
        })?;
        Ok(champion)
    }

    /// Adds the entry that `next` makes of the newest state, until nobody was faster. `None` is no change.
    pub(super) fn change(
        &self,
        by: &AliasMove,
        mut next: impl FnMut(&State) -> Result<Option<Change>, RegistryError>,
    ) -> Result<bool, RegistryError> {
        for _ in 0..MAX_ATTEMPTS {
            let state = self.log().state()?;
            let Some(Change { alias, from, to, aliases, removed }) = next(&state)? else { return Ok(false) };
            let AliasMove { at, who, why, metrics, judgement, forced } = by.clone();
            let entry = HistoryEntry { at, who, why, alias, from, to, aliases, removed, judgement, forced, metrics };
            if self.log().append(&state, &entry)? {
                return Ok(true);
            }
        }
        Err(RegistryError::Busy { path: self.place(), attempts: MAX_ATTEMPTS })
    }

    /// A version may still be seen while it is being removed; one that was published again since may be used.
    fn check_not_removed(&self, version: &str, state: &State) -> Result<(), RegistryError> {
        let Some(at) = state.removed.get(version).map(|at| Timestamp::from_nanos(*at)) else { return Ok(()) };
        let listed = self.list(&format!("{VERSIONS_FOLDER}/{version}"))?;
        if listed.iter().any(|object| object.name == MANIFEST_FILE && object.written_at > at) {
            return Ok(());
        }
        Err(RegistryError::Removed { path: self.versions_path(), version: version.to_owned(), at })
    }

    /// All aliases and the versions that they point to, of one moment.
    ///
    /// # Errors
    /// When the newest entry cannot be read or understood.
    pub fn aliases(&self) -> Result<BTreeMap<String, String>, RegistryError> {
        Ok(self.log().state()?.aliases)
    }

    /// The version that an alias points to; none when there is no such alias.
    ///
    /// # Errors
    /// When the newest entry cannot be read or understood.
    pub fn alias(&self, alias: &str) -> Result<Option<String>, RegistryError> {
        Ok(self.aliases()?.remove(alias))
    }

    /// All changes, the oldest first.
    ///
    /// # Errors
    /// Says which entry cannot be understood.
    pub fn history(&self) -> Result<Vec<HistoryEntry>, RegistryError> {
        self.log().entries()
    }

    pub(super) fn log(&self) -> Log<'_> {
        Log { store: &self.store, prefix: format!("{}/{LOG_FOLDER}", self.name) }
    }
}

/// The change that points an alias to a version; the champion before is remembered in the same step.
fn moved(state: &State, alias: &str, from: Option<String>, to: &str) -> Change {
    let (mut aliases, removed) = (state.aliases.clone(), state.removed.clone());
    if let (CHAMPION, Some(from)) = (alias, &from) {
        aliases.insert(PREVIOUS.to_owned(), from.clone());
    }
    aliases.insert(alias.to_owned(), to.to_owned());
    Change { alias: Some(alias.to_owned()), from, to: Some(to.to_owned()), aliases, removed }
}
