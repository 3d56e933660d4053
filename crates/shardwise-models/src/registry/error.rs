//! Why a registry cannot do what it was asked.

use std::io;
use std::path::PathBuf;

use shardwise_types::Timestamp;

use super::MAX_NAME_BYTES;
use crate::bundle::BundleError;
use crate::trust::Refusal;

/// Says why the registry cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A name cannot be the name of a folder everywhere.
    #[error(
        "`{name}` cannot name {what}: take up to {MAX_NAME_BYTES} lower case letters, digits, `-` and `_`, and no name that reads like a version"
    )]
    BadName {
        /// What is named.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// There is no model of that name.
    #[error("{}: no model `{name}`; {}", models.display(), there_are(there))]
    NoSuchModel {
        /// Folder or URL of all models.
        models: PathBuf,
        /// The name.
        name: String,
        /// The names that are there.
        there: Vec<String>,
    },
    /// An alias does not point anywhere yet.
    #[error("{}: model `{name}` has no `{alias}` yet; run `shardwise nightly`, or `shardwise train` and `shardwise models promote`", path.display())]
    NoSuchAlias {
        /// Place of the model.
        path: PathBuf,
        /// The model.
        name: String,
        /// The alias.
        alias: String,
    },
    /// There is no such version.
    #[error("{}: no version `{wanted}`; {}", path.display(), there_are(there))]
    NoSuchVersion {
        /// Place of the versions.
        path: PathBuf,
        /// What was asked for.
        wanted: String,
        /// The versions that are there.
        there: Vec<String>,
    },
    /// A version is being removed.
    #[error("{}: version `{version}` was removed at {at}; publish or import it again", path.display())]
    Removed {
        /// Place of the versions.
        path: PathBuf,
        /// The version.
        version: String,
        /// When it was removed.
        at: Timestamp,
    },
    /// Too few digits.
    #[error("{}: `{wanted}` stands for several versions, {}; give more digits", path.display(), there.join(", "))]
    Ambiguous {
        /// Place of the versions.
        path: PathBuf,
        /// What was asked for.
        wanted: String,
        /// The versions that it stands for.
        there: Vec<String>,
    },
    /// A version belongs to another model.
    #[error("{}: a version of model `{found}` cannot be published there", path.display())]
    OtherModel {
        /// Place of the model.
        path: PathBuf,
        /// The version's model.
        found: String,
    },
    /// An entry of the history cannot be understood.
    #[error("{}: not an entry of the history: {problem}; use the shardwise that wrote it, or restore the file", path.display())]
    BadHistory {
        /// The entry.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Somebody else moved the alias meanwhile.
    #[error("{}: `{alias}` points to {} by now; look at `shardwise models list` and decide again", path.display(), found.as_deref().unwrap_or("nothing"))]
    Overtaken {
        /// Place of the model.
        path: PathBuf,
        /// The alias.
        alias: String,
        /// The version that it points to.
        found: Option<String>,
    },
    /// Others were faster each time.
    #[error("{}: others changed the aliases {attempts} times in a row; try again", path.display())]
    Busy {
        /// Place of the model.
        path: PathBuf,
        /// How often it was tried.
        attempts: usize,
    },
    /// The place cannot be read or written.
    #[error("{}: cannot be read or written", path.display())]
    Io {
        /// The file, folder or URL.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A version cannot be served.
    #[error(transparent)]
    Bundle(BundleError),
    /// A version is not trusted.
    #[error(transparent)]
    Refused(Refusal),
}

impl RegistryError {
    /// The reason in a word, for programs, when a version is there and may not be served.
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Bundle(error) => Some(error.reason()),
            Self::Refused(refusal) => Some(refusal.reason()),
            _ => None,
        }
    }
}

impl From<BundleError> for RegistryError {
    fn from(error: BundleError) -> Self {
        Self::Bundle(error)
    }
}

impl From<Refusal> for RegistryError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Bundle(error) => Self::Bundle(error),
            refusal => Self::Refused(refusal),
        }
    }
}

fn there_are(names: &[String]) -> String {
    if names.is_empty() { "there is none yet, train one".to_owned() } else { format!("there: {}", names.join(", ")) }
}
