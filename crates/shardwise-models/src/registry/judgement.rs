//! What a gate said of versions: it stands in the log, with the move that came of it or alone.

use serde::{Deserialize, Serialize};

use super::Registry;
use super::error::RegistryError;
use super::log::AliasMove;
use super::moves::Change;

/// What a gate said of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Judgement {
    /// The version.
    pub version: String,
    /// Whether it may become champion.
    pub may_go_live: bool,
    /// What speaks against it, a sentence each; empty when nothing does.
    pub reasons: Vec<String>,
}

impl Registry {
    /// Notes the judgement of a version that goes nowhere. Returns whether an entry was added: none is when the newest says the
    /// same, which whoever was killed after this and goes on will say again.
    ///
    /// # Errors
    /// When the log cannot be read or written.
    pub fn record_judgement(&self, by: &AliasMove) -> Result<bool, RegistryError> {
        self.change(by, |state| {
            let (aliases, removed) = (state.aliases.clone(), state.removed.clone());
            let is_new = state.judgement != by.judgement;
            Ok(is_new.then_some(Change { alias: None, from: None, to: None, aliases, removed }))
        })
    }

    /// What a gate said last of a version, by its full name; `None` when it was never judged here.
    ///
    /// # Errors
    /// When an entry cannot be read or understood.
    pub fn last_judgement(&self, version: &str) -> Result<Option<Judgement>, RegistryError> {
        self.log().last_judgement(version)
    }
}
