//! Removing versions that nothing names any more, and what killed writers left.

use std::collections::{BTreeMap, BTreeSet};

use shardwise_types::Timestamp;

use super::error::RegistryError;
use super::log::AliasMove;
use super::moves::Change;
use super::{LOG_FOLDER, Registry, finished_version, is_version};
use crate::bundle::VERSIONS_FOLDER;
use crate::manifest::MANIFEST_FILE;

/// What a clean-up would remove, or removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Garbage {
    /// Versions that nothing names.
    pub versions: Vec<String>,
    /// Versions that were never finished.
    pub unfinished: Vec<String>,
    /// Files that writers left when they were killed, below the model's folder. Nobody reads them.
    pub staged: Vec<String>,
}

impl Registry {
    /// What no alias and none of the last `recent` entries of the history names, refusals aside, and was written before an
    /// instant: old versions, those that were never finished, and files that were never linked to their names.
    ///
    /// # Errors
    /// Says what cannot be read.
    pub fn garbage(&self, recent: usize, written_before: Timestamp) -> Result<Garbage, RegistryError> {
        let history = self.history()?;
        // Night after night may refuse; what was live lately must not be forgotten for it.
        let changes = history.iter().rev().filter(|entry| entry.alias.is_some() || entry.judgement.is_none());
        let named: BTreeSet<&String> = changes.take(recent.max(1)).flat_map(|entry| entry.aliases.values()).collect();
        let mut newest = BTreeMap::new();
        let listed = self.list(VERSIONS_FOLDER)?;
        for object in &listed {
            let version = object.name.split('/').next().unwrap_or_default();
            let written_at = newest.entry(version.to_owned()).or_insert(object.written_at);
            *written_at = object.written_at.max(*written_at);
        }
        let finished: BTreeSet<&str> = listed.iter().filter_map(|object| finished_version(&object.name)).collect();
        newest.retain(|version, written_at| {
            is_version(version) && *written_at < written_before && !named.contains(version)
        });
        let (versions, unfinished) = newest.into_keys().partition(|version| finished.contains(version.as_str()));
        Ok(Garbage { versions, unfinished, staged: self.staged(written_before)? })
    }

    fn staged(&self, written_before: Timestamp) -> Result<Vec<String>, RegistryError> {
        let mut staged = Vec::new();
        for folder in [LOG_FOLDER, VERSIONS_FOLDER] {
            let key = self.key(folder);
            let found = self.store.staged(&key).map_err(|source| self.io(&key, source))?;
            let old = found.into_iter().filter(|file| file.written_at < written_before);
            staged.extend(old.map(|file| format!("{folder}/{}", file.name)));
        }
        Ok(staged)
    }

    /// Removes what [`Registry::garbage`] finds. The history says so first, so that nobody promotes what is being removed.
    ///
    /// # Errors
    /// Says what cannot be read or removed; what is left is found again.
    pub fn remove_garbage(
        &self,
        recent: usize,
        written_before: Timestamp,
        by: &AliasMove,
    ) -> Result<Garbage, RegistryError> {
        let mut garbage = Garbage::default();
        self.change(by, |state| {
            garbage = self.garbage(recent, written_before)?;
            let removed: BTreeMap<_, _> =
                garbage.versions.iter().map(|version| (version.clone(), by.at.nanos())).collect();
            let is_said = removed.keys().all(|version| state.removed.contains_key(version));
            let (alias, from, to, aliases) = (None, None, None, state.aliases.clone());
            Ok((!is_said).then_some(Change { alias, from, to, aliases, removed }))
        })?;
        for version in garbage.versions.iter().chain(&garbage.unfinished) {
            // The manifest goes first: without it the version is not there.
            let manifest = self.version_key(version, MANIFEST_FILE);
            self.store.delete(&manifest).map_err(|source| self.io(&manifest, source))?;
            for object in self.list(&format!("{VERSIONS_FOLDER}/{version}"))? {
                let key = self.version_key(version, &object.name);
                self.store.delete(&key).map_err(|source| self.io(&key, source))?;
            }
        }
        for file in &garbage.staged {
            let removed = self.store.delete_staged(&self.name, file, written_before);
            removed.map_err(|source| self.io(&self.key(file), source))?;
        }
        Ok(garbage)
    }
}
