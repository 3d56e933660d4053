//! Versions of a model side by side, and the names under which routers ask for them.
//!
//! ```text
//! <models>/<name>/versions/<version>/…            immutable, named by content; there once its manifest is
//! <models>/<name>/versions/<version>/signatures/  one file for each key that signed
//! <models>/<name>/log/0000000001.json, …          one entry per change, each with all aliases, only ever added to
//! ```
//! `<models>` is a folder or a URL: `s3://bucket/prefix` (with the feature `s3`), `file:///folder`, or `memory:///prefix`
//! for as long as the process lives. Readers see the state before a change or the one after, whatever happens to the
//! writer. Left out: deciding who becomes champion.

mod clean_up;
mod error;
#[cfg(test)]
mod faults;
mod log;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;
use shardwise_types::Timestamp;

pub use self::clean_up::Garbage;
pub use self::error::RegistryError;
pub use self::log::{AliasMove, HistoryEntry};
use self::log::{Log, State};
use crate::bundle::{BundleError, MAX_MANIFEST_BYTES, ModelBundle, VERSION_DIGITS, VERSIONS_FOLDER};
use crate::draft::BundleDraft;
use crate::manifest::{MANIFEST_FILE, Manifest};
use crate::package::{Package, version_of};
use crate::signature::{MAX_SIGNATURE_BYTES, SIGNATURES_FOLDER, Signature, SigningKey};
use crate::store::{Listed, Store};
use crate::trust::{Refusal, TrustPolicy};

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
/// How often a change is tried when others are faster; each time, one of them was done.
const MAX_ATTEMPTS: usize = 100;

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

/// What the next entry says.
struct Change {
    alias: Option<String>,
    from: Option<String>,
    to: Option<String>,
    aliases: BTreeMap<String, String>,
    removed: BTreeMap<String, i64>,
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

    /// Who claims to have signed a version; whether that is so, only a [`TrustPolicy`] says.
    ///
    /// # Errors
    /// When the version is not there, or a signature cannot be read.
    pub fn signatures(&self, wanted: &str) -> Result<Vec<Signature>, RegistryError> {
        let version = self.resolve(wanted)?;
        let path = self.store.path(&self.version_key(&version, SIGNATURES_FOLDER));
        let parse = |bytes: &Vec<u8>| {
            serde_json::from_slice(bytes).map_err(|error| {
                let problem = format!("a signature cannot be read: {error}");
                Refusal::Tampered { path: path.clone(), problem }.into()
            })
        };
        self.signature_files(&version)?.values().map(parse).collect()
    }

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
    fn change(
        &self,
        by: &AliasMove,
        mut next: impl FnMut(&State) -> Result<Option<Change>, RegistryError>,
    ) -> Result<bool, RegistryError> {
        for _ in 0..MAX_ATTEMPTS {
            let state = self.log().state()?;
            let Some(Change { alias, from, to, aliases, removed }) = next(&state)? else { return Ok(false) };
            let AliasMove { at, who, why, metrics } = by.clone();
            if self.log().append(&state, &HistoryEntry { at, who, why, alias, from, to, aliases, removed, metrics })? {
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

    /// Finds a version by an alias, its name, its digest or the beginning of either.
    ///
    /// # Errors
    /// When nothing or more than one version is meant; says which there are.
    pub fn resolve(&self, wanted: &str) -> Result<String, RegistryError> {
        if is_digits(wanted) && wanted.len() >= MIN_PREFIX_DIGITS {
            return self.resolve_digits(wanted);
        }
        if !is_name(wanted) {
            return Err(self.no_such_version(wanted)?);
        }
        let version = self.alias(wanted)?.ok_or_else(|| self.no_such_alias(wanted))?;
        self.resolve_digits(&version)
    }

    fn resolve_digits(&self, wanted: &str) -> Result<String, RegistryError> {
        let digits = &wanted[..wanted.len().min(VERSION_DIGITS)];
        let mut found = self.versions()?;
        found.retain(|version| version.starts_with(digits));
        match found.len() {
            1 => Ok(found.remove(0)),
            0 => Err(self.no_such_version(wanted)?),
            _ => Err(RegistryError::Ambiguous { path: self.versions_path(), wanted: wanted.to_owned(), there: found }),
        }
    }

    fn no_such_version(&self, wanted: &str) -> Result<RegistryError, RegistryError> {
        let (path, there) = (self.versions_path(), self.versions()?);
        Ok(RegistryError::NoSuchVersion { path, wanted: wanted.to_owned(), there })
    }

    fn no_such_alias(&self, alias: &str) -> RegistryError {
        RegistryError::NoSuchAlias { path: self.place(), name: self.name.clone(), alias: alias.to_owned() }
    }

    /// Loads a version, given as for [`Registry::resolve`].
    ///
    /// # Errors
    /// When it is not there or cannot be served.
    pub fn load(&self, wanted: &str) -> Result<ModelBundle, RegistryError> {
        self.load_trusted(wanted, &TrustPolicy::default())
    }

    /// Loads a version when the policy allows it.
    ///
    /// # Errors
    /// When it is not there, cannot be served, or for which reason it is refused.
    pub fn load_trusted(&self, wanted: &str, policy: &TrustPolicy) -> Result<ModelBundle, RegistryError> {
        let version = self.resolve(wanted)?;
        let place = self.store.path(&self.version_key(&version, ""));
        let signatures =
            if *policy == TrustPolicy::default() { BTreeMap::new() } else { self.signature_files(&version)? };
        let manifest = self.manifest(&version)?;
        let read = |name: &str, limit: u64| self.read(&version, name, limit);
        let bundle = policy.admit(&place, &manifest, signatures.values().map(Vec::as_slice), read)?;
        if bundle.version() != version {
            return Err(BundleError::Digest { path: place, found: bundle.version().to_owned() }.into());
        }
        Ok(bundle)
    }

    /// All bytes of a version, verified, to take it elsewhere.
    ///
    /// # Errors
    /// When it is not there or cannot be served.
    pub fn package(&self, wanted: &str) -> Result<Package, RegistryError> {
        let bundle = self.load(wanted)?;
        let version = bundle.version();
        let mut files = BTreeMap::new();
        for (name, entry) in &bundle.manifest().files {
            files.insert(name.clone(), self.read(version, name, entry.bytes)?);
        }
        Ok(Package { manifest: self.manifest(version)?, files, signatures: self.signature_files(version)? })
    }

    /// What a version says of itself, even when it cannot be served here; its files are not looked at.
    ///
    /// # Errors
    /// When it is not there, or its manifest is not what the version's name says.
    pub fn describe(&self, wanted: &str) -> Result<Manifest, RegistryError> {
        let version = self.resolve(wanted)?;
        let bytes = self.manifest(&version)?;
        let path = self.store.path(&self.version_key(&version, MANIFEST_FILE));
        let found = version_of(&bytes);
        if found != version {
            return Err(BundleError::Digest { path, found }.into());
        }
        let unreadable = |error: serde_json::Error| BundleError::Manifest { path, problem: error.to_string() };
        Ok(serde_json::from_slice(&bytes).map_err(unreadable)?)
    }

    fn manifest(&self, version: &str) -> Result<Vec<u8>, BundleError> {
        let manifest = self.read(version, MANIFEST_FILE, MAX_MANIFEST_BYTES)?;
        if manifest.len() as u64 > MAX_MANIFEST_BYTES {
            let path = self.store.path(&self.version_key(version, MANIFEST_FILE));
            return Err(BundleError::TooLarge { path, limit: MAX_MANIFEST_BYTES });
        }
        Ok(manifest)
    }

    fn read(&self, version: &str, name: &str, limit: u64) -> Result<Vec<u8>, BundleError> {
        let key = self.version_key(version, name);
        let path = || self.store.path(&key);
        self.store.get(&key, limit).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => BundleError::Missing { path: path() },
            _ => BundleError::Unreadable { path: path(), source: error },
        })
    }

    fn signature_files(&self, version: &str) -> Result<BTreeMap<String, Vec<u8>>, RegistryError> {
        let folder = format!("{VERSIONS_FOLDER}/{version}/{SIGNATURES_FOLDER}");
        let read = |object: Listed| {
            let bytes = self.read(version, &format!("{SIGNATURES_FOLDER}/{}", object.name), MAX_SIGNATURE_BYTES)?;
            Ok((object.name, bytes))
        };
        self.list(&folder)?.into_iter().map(read).collect()
    }

    /// All changes, the oldest first.
    ///
    /// # Errors
    /// Says which entry cannot be understood.
    pub fn history(&self) -> Result<Vec<HistoryEntry>, RegistryError> {
        self.log().entries()
    }

    fn log(&self) -> Log<'_> {
        Log { store: &self.store, prefix: format!("{}/{LOG_FOLDER}", self.name) }
    }

    fn list(&self, folder: &str) -> Result<Vec<Listed>, RegistryError> {
        let key = format!("{}/{folder}", self.name);
        self.store.list(&key).map_err(|source| self.io(&key, source))
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

/// The change that points an alias to a version; the champion before is remembered in the same step.
fn moved(state: &State, alias: &str, from: Option<String>, to: &str) -> Change {
    let (mut aliases, removed) = (state.aliases.clone(), state.removed.clone());
    if let (CHAMPION, Some(from)) = (alias, &from) {
        aliases.insert(PREVIOUS.to_owned(), from.clone());
    }
    aliases.insert(alias.to_owned(), to.to_owned());
    Change { alias: Some(alias.to_owned()), from, to: Some(to.to_owned()), aliases, removed }
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
