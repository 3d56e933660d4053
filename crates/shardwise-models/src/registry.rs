//! Versions of a model side by side, and the names under which routers ask for them.
//!
//! ```text
//! <models>/<name>/versions/<version>/…            immutable, named by content; there once its manifest is
//! <models>/<name>/versions/<version>/signatures/  one file for each key that signed
//! <models>/<name>/log/0000000001.json, …          one entry per change, each with all aliases, only ever added to
//! ```
//! `<models>` is a folder or a URL: `s3://bucket/prefix` (with the feature `s3`), `file:///folder`, or `memory:///prefix`
//! for as long as the process lives. Readers see the state before a change or the one after, whatever happens to the
//! writer. Left out: deciding who becomes champion; what was decided is kept in the log ([`Judgement`]).

mod clean_up;
mod error;
#[cfg(test)]
mod faults;
mod judgement;
#[cfg(test)]
mod leftovers;
mod log;
mod moves;
#[cfg(all(test, target_os = "linux"))]
mod no_room;
mod reading;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;
use shardwise_types::Timestamp;

pub use self::clean_up::Garbage;
pub use self::error::RegistryError;
pub use self::judgement::Judgement;
pub use self::log::{AliasMove, HistoryEntry};
use crate::bundle::{VERSION_DIGITS, VERSIONS_FOLDER};
use crate::draft::BundleDraft;
use crate::manifest::MANIFEST_FILE;
use crate::package::Package;
use crate::signature::{SIGNATURES_FOLDER, Signature, SigningKey};
use crate::store::{Listed, Store};

/// The alias of the version that routers serve.
pub const CHAMPION: &str = "champion";
/// The alias of a version that might become champion.
pub const CHALLENGER: &str = "challenger";
/// The alias of the champion before; it follows whenever the champion moves.
pub const PREVIOUS: &str = "previous";
/// Fewest digits that stand for a version.
const MIN_PREFIX_DIGITS: usize = 4;
const MAX_NAME_BYTES: usize = 64;
const LOG_FOLDER: &str = "log";

/// The versions and aliases of one model.
#[derive(Debug, Clone)]
pub struct Registry {
    store: Store,
    name: String,
}

/// Lists the models in a folder or at a URL by name; a folder that is not there has none.
///
/// # Errors
/// Says what cannot be read.
pub fn model_names(models: &Path) -> Result<Vec<String>, RegistryError> {
    match Store::open(models) {
        Ok(store) => names_in(&store),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(RegistryError::Io { path: models.to_owned(), source }),
    }
}

fn names_in(store: &Store) -> Result<Vec<String>, RegistryError> {
    let names = store.folders().map_err(|source| RegistryError::Io { path: store.path(""), source })?;
    let mut found = Vec::new();
    for name in names.into_iter().filter(|name| is_name(name)) {
        if (Registry { store: store.clone(), name: name.clone() }).is_there()? {
            found.push(name);
        }
    }
    Ok(found)
}

impl Registry {
    /// Opens the versions of a model that is there, in a folder or at a URL.
    ///
    /// # Errors
    /// When there is no such model, says which there are.
    pub fn open(models: &Path, name: &str) -> Result<Self, RegistryError> {
        check_name("a model", name)?;
        let no_such_model =
            |there| RegistryError::NoSuchModel { models: models.to_owned(), name: name.to_owned(), there };
        let store = match Store::open(models) {
            Ok(store) => store,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(no_such_model(Vec::new())),
            Err(source) => return Err(RegistryError::Io { path: models.to_owned(), source }),
        };
        let registry = Self { store, name: name.to_owned() };
        if registry.is_there()? { Ok(registry) } else { Err(no_such_model(names_in(&registry.store)?)) }
    }

    /// Opens the versions of a model, of which there may be none yet; makes the folder of all models.
    ///
    /// # Errors
    /// Says which folder cannot be made.
    pub fn open_or_create(models: &Path, name: &str) -> Result<Self, RegistryError> {
        check_name("a model", name)?;
        let failed = |source| RegistryError::Io { path: models.to_owned(), source };
        Ok(Self { store: Store::open_or_create(models).map_err(failed)?, name: name.to_owned() })
    }

    /// The versions of a model in any object store, which `place` names in messages.
    ///
    /// # Errors
    /// When the name cannot name a model.
    pub fn in_store(store: Arc<dyn ObjectStore>, place: &str, name: &str) -> Result<Self, RegistryError> {
        check_name("a model", name)?;
        Ok(Self { store: Store::of(store, place), name: name.to_owned() })
    }

    fn is_there(&self) -> Result<bool, RegistryError> {
        let is_empty = |folder: &str| -> Result<bool, RegistryError> { Ok(self.list(folder)?.is_empty()) };
        Ok(!is_empty(VERSIONS_FOLDER)? || !is_empty(LOG_FOLDER)?)
    }

    /// The name of the model.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the model lies, for messages.
    pub fn place(&self) -> PathBuf {
        self.store.path(&self.name)
    }

    /// All versions, in the order of their names, which says nothing about age.
    ///
    /// # Errors
    /// Says what cannot be read.
    pub fn versions(&self) -> Result<Vec<String>, RegistryError> {
        let listed = self.list(VERSIONS_FOLDER)?;
        Ok(listed.iter().filter_map(|object| finished_version(&object.name)).map(str::to_owned).collect())
    }

    /// Adds a version and returns its name; one that is there already stays as it is.
    ///
    /// # Errors
    /// When the draft cannot be served or written.
    pub fn publish(&self, draft: &BundleDraft) -> Result<String, RegistryError> {
        self.publish_package(&draft.package()?)
    }

    /// Adds a version with its signatures and returns its name. One that is there already only gets the signatures; one that
    /// is damaged is made whole, for its name says what it must be.
    ///
    /// # Errors
    /// When the package cannot be served, belongs to another model, or cannot be written.
    pub fn publish_package(&self, package: &Package) -> Result<String, RegistryError> {
        let version = package.version();
        let bundle = package.bundle(Path::new(""))?;
        if bundle.manifest().name != self.name {
            let found = bundle.manifest().name.clone();
            return Err(RegistryError::OtherModel { path: self.place(), found });
        }
        let is_whole = match self.load(&version) {
            Ok(_) => true,
            Err(RegistryError::NoSuchVersion { .. } | RegistryError::Bundle(_)) => false,
            Err(error) => return Err(error),
        };
        let put = |name: &str, content: &[u8]| {
            let key = self.version_key(&version, name);
            self.store.put(&key, content).map_err(|source| self.io(&key, source))
        };
        if !is_whole {
            package.files.iter().try_for_each(|(name, content)| put(name, content))?;
        }
        for (name, content) in &package.signatures {
            put(&format!("{SIGNATURES_FOLDER}/{name}"), content)?;
        }
        if !is_whole {
            put(MANIFEST_FILE, &package.manifest)?;
        }
        Ok(version)
    }

    /// Signs a version that is there, and returns its name.
    ///
    /// # Errors
    /// When it cannot be served or written.
    pub fn sign(&self, wanted: &str, key: &SigningKey, at: Timestamp) -> Result<String, RegistryError> {
        let bundle = self.load(wanted)?;
        let signature = Signature::of(bundle.digest(), key, at);
        let name = format!("{SIGNATURES_FOLDER}/{}", signature.file_name());
        let key = self.version_key(bundle.version(), &name);
        self.store.put(&key, &signature.to_bytes()).map_err(|source| self.io(&key, source))?;
        Ok(bundle.version().to_owned())
    }

    fn list(&self, folder: &str) -> Result<Vec<Listed>, RegistryError> {
        let key = self.key(folder);
        self.store.list(&key).map_err(|source| self.io(&key, source))
    }

    fn key(&self, below: &str) -> String {
        format!("{}/{below}", self.name)
    }

    fn version_key(&self, version: &str, file: &str) -> String {
        format!("{}/{VERSIONS_FOLDER}/{version}/{file}", self.name)
    }

    fn versions_path(&self) -> PathBuf {
        self.place().join(VERSIONS_FOLDER)
    }

    fn io(&self, key: &str, source: io::Error) -> RegistryError {
        RegistryError::Io { path: self.store.path(key), source }
    }
}

/// The version whose manifest this is, below the folder of versions.
fn finished_version(object: &str) -> Option<&str> {
    object.strip_suffix(MANIFEST_FILE)?.strip_suffix('/').filter(|version| is_version(version))
}

fn is_version(name: &str) -> bool {
    name.len() == VERSION_DIGITS && is_digits(name)
}

fn is_digits(name: &str) -> bool {
    name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn check_name(what: &'static str, name: &str) -> Result<(), RegistryError> {
    if is_name(name) { Ok(()) } else { Err(RegistryError::BadName { what, name: name.to_owned() }) }
}

/// What may name a model or an alias: safe in any file system, and not to be taken for a version.
fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'-' | b'_'))
        && !(is_digits(name) && name.len() >= MIN_PREFIX_DIGITS)
}
