//! Finding a version by what somebody calls it, and reading it: nothing is handed out that is not what its name says.

use std::collections::BTreeMap;
use std::io;

use super::error::RegistryError;
use super::{MIN_PREFIX_DIGITS, Registry, is_digits, is_name};
use crate::bundle::{BundleError, MAX_MANIFEST_BYTES, ModelBundle, VERSION_DIGITS, VERSIONS_FOLDER};
use crate::manifest::{MANIFEST_FILE, Manifest};
use crate::package::{Package, version_of};
use crate::signature::{MAX_SIGNATURE_BYTES, SIGNATURES_FOLDER, Signature};
use crate::store::Listed;
use crate::trust::{Refusal, TrustPolicy};

impl Registry {
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

    pub(super) fn no_such_alias(&self, alias: &str) -> RegistryError {
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
}
