//! All bytes of a version: its manifest, the files that the manifest lists, and the signatures; and the one file, a tar, in
//! which a version travels.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

use shardwise_types::Timestamp;

use crate::bundle::{BundleError, MAX_FILE_BYTES, ModelBundle, VERSION_DIGITS, is_plain_name};
use crate::durable::{sync_folder_of, write_new};
use crate::manifest::MANIFEST_FILE;
use crate::signature::{MAX_SIGNATURE_BYTES, SIGNATURES_FOLDER, Signature, SigningKey};
use crate::trust::{Refusal, TrustPolicy};

/// Most files that a package may hold.
const MAX_FILES: usize = 256;

/// A version in bytes; nothing in it is verified before [`Package::admit`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    pub(crate) manifest: Vec<u8>,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) signatures: BTreeMap<String, Vec<u8>>,
}

/// Says why a file is no package.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// It is no tar, or is cut off.
    #[error("not an exported model, or cut off; export it again")]
    Tar(#[from] io::Error),
    /// It holds what no package holds.
    #[error("`{name}` {problem}; take a file that `shardwise models export` wrote")]
    Entry {
        /// Name of the entry.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl Package {
    /// The version that this is: the first digits of the manifest's digest.
    pub fn version(&self) -> String {
        version_of(&self.manifest)
    }

    /// BLAKE3 of the manifest in 64 hexadecimal digits.
    pub fn digest(&self) -> String {
        blake3::hash(&self.manifest).to_hex().to_string()
    }

    /// Adds a signature, in place of an earlier one by the same key.
    pub fn sign(&mut self, key: &SigningKey, at: Timestamp) {
        let signature = Signature::of(&self.digest(), key, at);
        self.signatures.insert(signature.file_name(), signature.to_bytes());
    }

    /// Verifies everything in it under a policy; `place` is for messages.
    ///
    /// # Errors
    /// Says for which reason it is refused.
    pub fn admit(&self, place: &Path, policy: &TrustPolicy) -> Result<ModelBundle, Refusal> {
        let signatures = self.signatures.values().map(Vec::as_slice);
        policy.admit(place, &self.manifest, signatures, |name, _| self.file(place, name))
    }

    pub(crate) fn bundle(&self, place: &Path) -> Result<ModelBundle, BundleError> {
        ModelBundle::admit(place, &self.manifest, |name, _| self.file(place, name))
    }

    fn file(&self, place: &Path, name: &str) -> Result<Vec<u8>, BundleError> {
        self.files.get(name).cloned().ok_or_else(|| BundleError::Missing { path: place.join(name) })
    }

    /// Writes the bundle into a folder that does not exist yet, the manifest last; signatures are a registry's matter.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), BundleError> {
        let unwritable = |path: &Path, source: io::Error| BundleError::Unwritable { path: path.to_owned(), source };
        fs::create_dir_all(folder.parent().unwrap_or(folder)).map_err(|error| unwritable(folder, error))?;
        fs::create_dir(folder).map_err(|error| unwritable(folder, error))?;
        let files = self.files.iter().map(|(name, content)| (name.as_str(), content));
        for (name, content) in files.chain([(MANIFEST_FILE, &self.manifest)]) {
            let path = folder.join(name);
            write_new(&path, content).map_err(|error| unwritable(&path, error))?;
        }
        sync_folder_of(&folder.join(MANIFEST_FILE)).map_err(|error| unwritable(folder, error))
    }

    /// The package as a tar whose bytes depend on its content alone.
    ///
    /// # Errors
    /// Passes on what the tar writer says.
    pub fn to_tar(&self) -> io::Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut append = |name: &str, content: &[u8]| {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, content)
        };
        append(MANIFEST_FILE, &self.manifest)?;
        for (name, content) in &self.files {
            append(name, content)?;
        }
        for (name, content) in &self.signatures {
            append(&format!("{SIGNATURES_FOLDER}/{name}"), content)?;
        }
        tar.into_inner()
    }

    /// Reads a tar and proves nothing of what is in it.
    ///
    /// # Errors
    /// When it is no tar or holds what no package holds.
    pub fn from_tar(bytes: impl Read) -> Result<Self, PackageError> {
        let (mut manifest, mut files, mut signatures) = (None, BTreeMap::new(), BTreeMap::new());
        for (count, entry) in tar::Archive::new(bytes).entries()?.enumerate() {
            let entry = entry?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let wrong = |problem| PackageError::Entry { name: name.clone(), problem };
            let signature = name.strip_prefix(SIGNATURES_FOLDER).and_then(|name| name.strip_prefix('/'));
            let limit = if signature.is_some() { MAX_SIGNATURE_BYTES } else { MAX_FILE_BYTES };
            if count >= MAX_FILES {
                return Err(wrong("is one file too many"));
            }
            if !entry.header().entry_type().is_file() {
                return Err(wrong("is not a file"));
            }
            let size = entry.size();
            if size > limit {
                return Err(wrong("is too large"));
            }
            let mut content = Vec::new();
            entry.take(limit).read_to_end(&mut content)?;
            if content.len() as u64 != size {
                return Err(PackageError::Tar(io::ErrorKind::UnexpectedEof.into()));
            }
            let twice = match signature {
                None if name == MANIFEST_FILE => manifest.replace(content).is_some(),
                None if is_plain_name(&name) => files.insert(name.clone(), content).is_some(),
                Some(name) if is_plain_name(name) => signatures.insert(name.to_owned(), content).is_some(),
                _ => return Err(wrong("cannot be the name of a file in a model")),
            };
            if twice {
                return Err(wrong("is there twice"));
            }
        }
        let missing = || PackageError::Entry { name: MANIFEST_FILE.to_owned(), problem: "is missing" };
        Ok(Self { manifest: manifest.ok_or_else(missing)?, files, signatures })
    }
}

/// The version that a manifest names.
pub(crate) fn version_of(manifest: &[u8]) -> String {
    blake3::hash(manifest).to_hex()[..VERSION_DIGITS].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BundleDraft;

    fn package() -> Package {
        let mut package = BundleDraft::example().package().expect("a sound draft");
        package.sign(&SigningKey::from_seed([7; 32]), Timestamp::from_nanos(5));
        package
    }

    #[test]
    fn a_tar_brings_back_every_byte_and_depends_on_nothing_else() {
        let tar = package().to_tar().expect("a tar");
        assert_eq!(tar, package().to_tar().expect("a tar"));
        assert_eq!(Package::from_tar(tar.as_slice()).expect("a package"), package());
    }

    #[test]
    fn cut_tars_never_give_a_whole_package() {
        let tar = package().to_tar().expect("a tar");
        let end = tar.len() - 2 * 512;
        for length in (0..end).step_by(97) {
            let whole = Package::from_tar(&tar[..length]).is_ok_and(|cut| cut == package());
            assert!(!whole, "{length} of {end} bytes");
        }
    }

    #[test]
    fn odd_tars_are_refused() {
        let odd = |name: &str, kind: tar::EntryType| {
            let mut header = tar::Header::new_old();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(kind);
            header.set_size(0);
            header.set_cksum();
            let mut tar = tar::Builder::new(Vec::new());
            tar.append(&header, io::empty()).expect("an entry");
            Package::from_tar(tar.into_inner().expect("a tar").as_slice())
        };
        for name in ["../x", "/etc/passwd", "a/b", ".x", "signatures/../x"] {
            assert!(matches!(odd(name, tar::EntryType::Regular), Err(PackageError::Entry { .. })), "{name}");
        }
        assert!(matches!(odd("manifest.json", tar::EntryType::Symlink), Err(PackageError::Entry { .. })));
        assert!(matches!(odd("exec.forest", tar::EntryType::Regular), Err(PackageError::Entry { .. })));
        assert!(Package::from_tar([7_u8; 2_000].as_slice()).is_err());
    }
}
