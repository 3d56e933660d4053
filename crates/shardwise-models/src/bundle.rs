//! A model bundle in memory: loaded from a folder only when every byte in it is what its manifest says.
//!
//! The manifest lists the checksums of all files, and the version is the digest of the manifest; so a version names content.
//! Left out: writing (see [`crate::BundleDraft`]) and versions side by side (see [`crate::Registry`]).

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use shardwise_features::{FEATURE_COUNT, FEATURES, ServiceTable, fingerprint, position};

use crate::confidence_curve::{ConfidenceCurve, admit_calibration};
use crate::durable::read_bounded;
use crate::exec_head::{ExecHead, ExecModel, HeadProblem};
use crate::forest::{Forest, ForestError};
use crate::manifest::{
    EXEC_TARGET, ExecManifest, FORMAT_VERSION, FileEntry, MANIFEST_FILE, Manifest, SideManifest, TABLE_FILE,
};
use crate::quantile_head::{QuantileHead, admit_quantiles};
use crate::scorer::{Predictions, Scorer};
use crate::side_head::{SideHead, SideTarget};
use crate::table_file::{TableFileError, table_from_bytes};

/// Longest manifest that is read.
pub(crate) const MAX_MANIFEST_BYTES: u64 = 1 << 20;
/// Largest other file that is read.
pub(crate) const MAX_FILE_BYTES: u64 = 1 << 28;
/// Hexadecimal digits of the digest that name a version.
pub(crate) const VERSION_DIGITS: usize = 16;
/// The folder of a registry in which the names of folders are digests.
pub(crate) const VERSIONS_FOLDER: &str = "versions";

/// Says why a folder is not a bundle that can be served.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A file cannot be read.
    #[error("{}: the model bundle has a file that cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is not there.
    #[error("{}: this file of the model bundle is missing; fetch the bundle again or train", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The manifest cannot be understood.
    #[error("{}: not the manifest of a model bundle: {problem}; fetch the bundle again or train", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The bundle is of another format version.
    #[error("{}: model bundle format {found} is not the format {FORMAT_VERSION} that is read here; use the shardwise that wrote it, or retrain with this version", path.display())]
    FormatVersion {
        /// The manifest.
        path: PathBuf,
        /// The format found.
        found: u64,
    },
    /// The bundle reads features that are computed in another way.
    #[error("{}: the model was made for the features {found}, but this version computes {expected}; retrain with this version", path.display())]
    Fingerprint {
        /// The manifest.
        path: PathBuf,
        /// Fingerprint that the model was trained with.
        found: String,
        /// Fingerprint of this version.
        expected: &'static str,
    },
    /// The names contradict the fingerprint.
    #[error("{}: feature {position} is `{found}` where this version has `{expected}`; retrain with this version", path.display())]
    FeatureName {
        /// The manifest.
        path: PathBuf,
        /// Position of the first name that differs.
        position: usize,
        /// The name there.
        found: String,
        /// The name that belongs there.
        expected: String,
    },
    /// A file is too long or too short.
    #[error("{}: {found} bytes where the manifest says {expected}; the file is cut off or was changed, fetch it again", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Bytes by the manifest.
        expected: u64,
        /// Bytes found, no more than were read.
        found: u64,
    },
    /// A file is larger than any that is served.
    #[error("{}: larger than the {limit} bytes that are allowed for this file of a model bundle", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// A file was changed.
    #[error("{}: the checksum {found} is not the manifest's {expected}; the file was changed, fetch it again", path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
        /// BLAKE3 by the manifest.
        expected: String,
        /// BLAKE3 found.
        found: String,
    },
    /// A folder of a registry is not named by its content.
    #[error("{}: the folder is named for another version than the {found} that lies in it; rename it back or publish again", path.display())]
    Digest {
        /// The folder.
        path: PathBuf,
        /// Version of what lies in it.
        found: String,
    },
    /// The service table cannot be served.
    #[error("{}: the service table cannot be served", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: TableFileError,
    },
    /// The forest cannot be served.
    #[error("{}: the forest cannot be served", path.display())]
    Forest {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ForestError,
    },
    /// The execution head cannot be served.
    #[error("{}: the execution head cannot be served", path.display())]
    Head {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        source: HeadProblem,
    },
    /// The calibration of confidence cannot be served.
    #[error("{}: not a calibration of confidence: {problem}; fetch the bundle again or train", path.display())]
    Calibration {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The bundle cannot be written.
    #[error("{}: the model bundle cannot be written", path.display())]
    Unwritable {
        /// The folder or file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// The heads of a bundle, each of which may be missing.
#[derive(Debug, Clone, Default)]
struct ServedHeads {
    exec: Option<ExecHead>,
    cold: Option<SideHead>,
    wait: Option<SideHead>,
    error: Option<SideHead>,
    quantiles: Option<QuantileHead>,
    confidence: Option<ConfidenceCurve>,
}

impl ServedHeads {
    fn scorer(&self) -> Scorer {
        Scorer::new(self.exec.as_ref(), [self.cold.as_ref(), self.wait.as_ref()])
    }
}

/// A verified, immutable model: what a router decides with.
pub struct ModelBundle {
    digest: String,
    manifest: Manifest,
    heads: ServedHeads,
    scorer: Scorer,
    exec_model: Option<Arc<dyn ExecModel>>,
    service_table: Arc<ServiceTable>,
}

impl fmt::Debug for ModelBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { digest, manifest, .. } = self;
        f.debug_struct("ModelBundle").field("digest", digest).field("name", &manifest.name).finish_non_exhaustive()
    }
}

impl ModelBundle {
    /// Reads and verifies the bundle in a folder.
    ///
    /// # Errors
    /// Refuses whatever cannot be served exactly as it was trained, names the file and says what to do.
    pub fn load(folder: &Path) -> Result<Self, BundleError> {
        let manifest = read_file(folder, MANIFEST_FILE, MAX_MANIFEST_BYTES)?;
        let bundle = Self::admit(folder, &manifest, |name, limit| read_file(folder, name, limit))?;
        check_folder_name(folder, bundle.version())?;
        Ok(bundle)
    }

    /// Verifies a bundle that is in memory already: the bytes of its manifest, and its other files by name.
    ///
    /// # Errors
    /// Refuses what [`ModelBundle::load`] would refuse.
    pub fn from_memory(manifest: &[u8], files: &BTreeMap<String, Vec<u8>>) -> Result<Self, BundleError> {
        if manifest.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(BundleError::TooLarge { path: MANIFEST_FILE.into(), limit: MAX_MANIFEST_BYTES });
        }
        Self::admit(Path::new(""), manifest, |name, _| {
            files.get(name).cloned().ok_or_else(|| BundleError::Missing { path: name.into() })
        })
    }

    /// Verifies a manifest and the files that `read` brings, at most one byte more than asked; `place` is for messages.
    pub(crate) fn admit(
        place: &Path,
        manifest_bytes: &[u8],
        read: impl Fn(&str, u64) -> Result<Vec<u8>, BundleError>,
    ) -> Result<Self, BundleError> {
        let manifest = admit_manifest(&place.join(MANIFEST_FILE), manifest_bytes)?;
        let files = admit_files(place, &manifest.files, read)?;
        let service_table = admit_table(place, &files)?;
        let heads = admit_heads(place, &manifest, &files)?;
        let digest = blake3::hash(manifest_bytes).to_hex().to_string();
        let scorer = heads.scorer();
        Ok(Self { digest, manifest, heads, scorer, exec_model: None, service_table: Arc::new(service_table) })
    }

    /// The version: the first 16 hexadecimal digits of the digest.
    pub fn version(&self) -> &str {
        &self.digest[..VERSION_DIGITS]
    }

    /// BLAKE3 of the manifest in 64 hexadecimal digits.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// What the bundle says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Predicts execution times, when it was trained.
    pub fn exec(&self) -> Option<&ExecHead> {
        self.heads.exec.as_ref()
    }

    /// Predicts how probable cold starts are, when it was trained.
    pub fn cold(&self) -> Option<&SideHead> {
        self.heads.cold.as_ref()
    }

    /// Predicts time in queues, when it was trained.
    pub fn wait(&self) -> Option<&SideHead> {
        self.heads.wait.as_ref()
    }

    /// Predicts how probable failures are, when it was trained. It is not among the heads that [`predict`](Self::predict)
    /// asks.
    pub fn error(&self) -> Option<&SideHead> {
        self.heads.error.as_ref()
    }

    /// Predicts quantiles of the latency, when they were trained. They are asked about the chosen shard alone.
    pub fn quantiles(&self) -> Option<&QuantileHead> {
        self.heads.quantiles.as_ref()
    }

    /// What confidence stands for when this bundle decides, when a closed loop told.
    pub fn confidence(&self) -> Option<&ConfidenceCurve> {
        self.heads.confidence.as_ref()
    }

    /// Asks the heads of the cost about the candidates of one decision, one feature vector after the other in `rows`, which differ only
    /// in what is [not the same](shardwise_features::Feature::is_per_decision) for all candidates. The answers are those of
    /// the heads by themselves, bit for bit, and come several times sooner. Allocates nothing once the buffers have grown.
    ///
    /// # Panics
    /// If `rows` does not hold whole feature vectors.
    pub fn predict(&self, rows: &[f32], into: &mut Predictions) {
        let Some(model) = &self.exec_model else {
            return self.scorer.predict(self.exec(), [self.cold(), self.wait()], rows, into);
        };
        self.scorer.predict(None, [self.cold(), self.wait()], rows, into);
        into.exec_ln_ms.resize(rows.len() / FEATURE_COUNT, 0.0);
        model.predict_ln_ms_rows(rows, &mut into.exec_ln_ms);
    }

    /// What history taught about functions and shards.
    pub fn service_table(&self) -> Arc<ServiceTable> {
        Arc::clone(&self.service_table)
    }
}

/// Variants of a bundle that no training made, for trying out what guards do. They keep its name and version.
impl ModelBundle {
    /// The same with another execution head.
    #[must_use]
    pub fn with_exec(&self, exec: Option<ExecHead>) -> Self {
        self.with_heads(ServedHeads { exec, ..self.heads.clone() })
    }

    /// The same service table under the heads of another bundle.
    #[must_use]
    pub fn with_heads_of(&self, other: &Self) -> Self {
        self.with_heads(other.heads.clone())
    }

    /// The same with another model in the place of what the execution head predicts. Its smearing and spread stay the head's.
    #[must_use]
    pub fn with_exec_model(&self, model: Arc<dyn ExecModel>) -> Self {
        // The trees that nobody hears are not asked either.
        let scorer = ServedHeads { exec: None, ..self.heads.clone() }.scorer();
        Self { exec_model: Some(model), scorer, ..self.with_heads(self.heads.clone()) }
    }

    fn with_heads(&self, heads: ServedHeads) -> Self {
        let (digest, manifest, scorer) = (self.digest.clone(), self.manifest.clone(), heads.scorer());
        Self { digest, manifest, heads, scorer, exec_model: None, service_table: self.service_table() }
    }
}

pub(crate) type Files = BTreeMap<String, Vec<u8>>;

fn read_file(folder: &Path, name: &str, limit: u64) -> Result<Vec<u8>, BundleError> {
    let path = folder.join(name);
    let content = match read_bounded(&path, limit) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(BundleError::Missing { path }),
        Err(source) => return Err(BundleError::Unreadable { path, source }),
    };
    if name == MANIFEST_FILE && content.len() as u64 > limit {
        return Err(BundleError::TooLarge { path, limit });
    }
    Ok(content)
}

/// What every format version's manifest says, whatever else is in it.
#[derive(Deserialize)]
struct Probe {
    format_version: u64,
    feature_fingerprint: Option<String>,
}

fn admit_manifest(path: &Path, bytes: &[u8]) -> Result<Manifest, BundleError> {
    let unreadable =
        |error: serde_json::Error| BundleError::Manifest { path: path.to_owned(), problem: error.to_string() };
    let probe: Probe = serde_json::from_slice(bytes).map_err(unreadable)?;
    if probe.format_version != u64::from(FORMAT_VERSION) {
        return Err(BundleError::FormatVersion { path: path.to_owned(), found: probe.format_version });
    }
    if let Some(found) = probe.feature_fingerprint.filter(|found| found != fingerprint()) {
        return Err(BundleError::Fingerprint { path: path.to_owned(), found, expected: fingerprint() });
    }
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(unreadable)?;
    check_feature_names(path, &manifest.feature_names)?;
    Ok(manifest)
}

fn check_feature_names(path: &Path, found: &[String]) -> Result<(), BundleError> {
    let nothing = "nothing".to_owned();
    for position in 0..found.len().max(FEATURES.len()) {
        let found = found.get(position).unwrap_or(&nothing);
        let expected = FEATURES.get(position).map_or("nothing", |feature| feature.name);
        if found != expected {
            let (found, expected) = (found.clone(), expected.to_owned());
            return Err(BundleError::FeatureName { path: path.to_owned(), position, found, expected });
        }
    }
    Ok(())
}

fn admit_files(
    place: &Path,
    entries: &BTreeMap<String, FileEntry>,
    read: impl Fn(&str, u64) -> Result<Vec<u8>, BundleError>,
) -> Result<Files, BundleError> {
    let mut files = Files::new();
    for (name, entry) in entries {
        if !is_plain_name(name) {
            let problem = format!("`{name}` cannot be the name of a file in the bundle");
            return Err(BundleError::Manifest { path: place.join(MANIFEST_FILE), problem });
        }
        if entry.bytes > MAX_FILE_BYTES {
            return Err(BundleError::TooLarge { path: place.join(name), limit: MAX_FILE_BYTES });
        }
        let content = read(name, entry.bytes)?;
        check_content(&place.join(name), entry, &content)?;
        files.insert(name.clone(), content);
    }
    Ok(files)
}

/// A manifest must not lead out of its folder.
pub(crate) fn is_plain_name(name: &str) -> bool {
    name != MANIFEST_FILE
        && !name.starts_with('.')
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

fn check_content(path: &Path, entry: &FileEntry, content: &[u8]) -> Result<(), BundleError> {
    let path = path.to_owned();
    let is = FileEntry::of(content);
    if is.bytes != entry.bytes {
        return Err(BundleError::Size { path, expected: entry.bytes, found: is.bytes });
    }
    if is.blake3 != entry.blake3 {
        return Err(BundleError::Checksum { path, expected: entry.blake3.clone(), found: is.blake3 });
    }
    Ok(())
}

pub(crate) fn listed<'a>(place: &Path, files: &'a Files, name: &str) -> Result<&'a [u8], BundleError> {
    let not_listed = || BundleError::Manifest {
        path: place.join(MANIFEST_FILE),
        problem: format!("`{name}` is not among its files"),
    };
    files.get(name).map(Vec::as_slice).ok_or_else(not_listed)
}

fn admit_table(place: &Path, files: &Files) -> Result<ServiceTable, BundleError> {
    let bytes = listed(place, files, TABLE_FILE)?;
    table_from_bytes(bytes).map_err(|source| BundleError::Table { path: place.join(TABLE_FILE), source })
}

fn admit_heads(place: &Path, manifest: &Manifest, files: &Files) -> Result<ServedHeads, BundleError> {
    let said = &manifest.heads;
    let side = |head: &Option<SideManifest>, target: SideTarget| {
        head.as_ref().map(|head| admit_side(place, head, target, files)).transpose()
    };
    Ok(ServedHeads {
        exec: said.exec.as_ref().map(|head| admit_exec(place, head, files)).transpose()?,
        cold: side(&said.cold, SideTarget::Cold)?,
        wait: side(&said.wait, SideTarget::Wait)?,
        error: side(&said.error, SideTarget::Error)?,
        quantiles: said.quantiles.as_ref().map(|head| admit_quantiles(place, head, files)).transpose()?,
        confidence: manifest.calibration.as_ref().map(|said| admit_calibration(place, said, files)).transpose()?,
    })
}

fn admit_exec(place: &Path, head: &ExecManifest, files: &Files) -> Result<ExecHead, BundleError> {
    let forest = admit_forest(place, &head.file, files)?;
    exec_head(head, forest).map_err(|source| BundleError::Head { path: place.join(MANIFEST_FILE), source })
}

pub(crate) fn admit_forest(place: &Path, file: &str, files: &Files) -> Result<Forest, BundleError> {
    let bytes = listed(place, files, file)?;
    Forest::from_bytes(bytes).map_err(|source| BundleError::Forest { path: place.join(file), source })
}

fn admit_side(place: &Path, head: &SideManifest, target: SideTarget, files: &Files) -> Result<SideHead, BundleError> {
    let forest = admit_forest(place, &head.file, files)?;
    let problem = |source| BundleError::Head { path: place.join(MANIFEST_FILE), source };
    if head.target != target {
        let (found, expected) = (head.target.as_str().to_owned(), target.as_str());
        return Err(problem(HeadProblem::Target { found, expected }));
    }
    if head.trees != forest.n_trees() {
        return Err(problem(HeadProblem::Trees { expected: head.trees, found: forest.n_trees() }));
    }
    SideHead::new(target, forest).map_err(problem)
}

fn exec_head(head: &ExecManifest, forest: Forest) -> Result<ExecHead, HeadProblem> {
    if head.target != EXEC_TARGET {
        return Err(HeadProblem::Target { found: head.target.clone(), expected: EXEC_TARGET });
    }
    if head.trees != forest.n_trees() {
        return Err(HeadProblem::Trees { expected: head.trees, found: forest.n_trees() });
    }
    let no_such_feature = || HeadProblem::NoSuchFeature { name: head.offset_feature.clone() };
    let offset_feature = position(&head.offset_feature).ok_or_else(no_such_feature)?;
    ExecHead::new(forest, offset_feature, head.offset_default_ln_ms, head.smearing, head.residual_sd)
}

/// In a registry a folder's name promises its content; elsewhere it promises nothing.
fn check_folder_name(folder: &Path, version: &str) -> Result<(), BundleError> {
    // A relative path such as `.` hides the names.
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let is_in_registry = folder.parent().and_then(Path::file_name).is_some_and(|name| name == VERSIONS_FOLDER);
    if is_in_registry && folder.file_name().is_none_or(|name| name != version) {
        return Err(BundleError::Digest { path: folder, found: version.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::BundleDraft;
    use crate::manifest::EXEC_FILE;

    const FILES: [&str; 3] = [MANIFEST_FILE, EXEC_FILE, TABLE_FILE];

    /// Writes the example as a version of a registry and returns its folder.
    fn published(home: &tempfile::TempDir) -> PathBuf {
        let aside = home.path().join("aside");
        let version = BundleDraft::example().write(&aside).expect("a bundle");
        let versions = home.path().join(VERSIONS_FOLDER);
        fs::create_dir(&versions).expect("a folder");
        let folder = versions.join(version);
        fs::rename(aside, &folder).expect("a rename");
        folder
    }

    /// Loads the example after `edit` has changed one of its files, outside a registry.
    fn load_edited(name: &str, edit: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Result<ModelBundle, BundleError> {
        let home = tempfile::tempdir().expect("a folder");
        let folder = home.path().join("bundle");
        BundleDraft::example().write(&folder).expect("a bundle");
        let content = fs::read(folder.join(name)).expect("a file");
        fs::write(folder.join(name), edit(content)).expect("a changed file");
        ModelBundle::load(&folder)
    }

    fn replaced(from: &str, to: &str) -> impl FnOnce(Vec<u8>) -> Vec<u8> + use<> {
        let (from, to) = (from.to_owned(), to.to_owned());
        move |content| {
            let text = String::from_utf8(content).expect("text");
            assert!(text.contains(&from), "no `{from}` in {text}");
            text.replacen(&from, &to, 1).into_bytes()
        }
    }

    #[test]
    fn what_was_written_is_loaded() {
        let home = tempfile::tempdir().expect("a folder");
        let folder = published(&home);
        let draft = BundleDraft::example();
        let bundle = ModelBundle::load(&folder).expect("a sound bundle");
        assert_eq!(bundle.exec(), draft.exec.as_ref().map(|exec| &exec.head));
        assert_eq!(*bundle.service_table(), draft.service_table);
        assert_eq!(bundle.version(), folder.file_name().expect("a name"));
        assert_eq!(bundle.digest().len(), 64);
        assert_eq!(bundle.manifest().feature_names.len(), FEATURES.len());
        assert_eq!(draft.bundle().expect("the same without a disk").digest(), bundle.digest());
    }

    #[test]
    fn any_changed_byte_in_a_registry_is_refused() {
        let home = tempfile::tempdir().expect("a folder");
        let folder = published(&home);
        for name in FILES {
            let content = fs::read(folder.join(name)).expect("a file");
            for place in 0..content.len() {
                let mut mutant = content.clone();
                mutant[place] ^= 1 << (place % 8);
                fs::write(folder.join(name), &mutant).expect("a changed file");
                assert!(ModelBundle::load(&folder).is_err(), "{name}, byte {place}");
            }
            fs::write(folder.join(name), &content).expect("the file as it was");
        }
        assert!(ModelBundle::load(&folder).is_ok());
    }

    #[test]
    fn changed_content_fails_its_checksum() {
        for name in [EXEC_FILE, TABLE_FILE] {
            let flipped = |mut content: Vec<u8>| {
                content[30] ^= 1;
                content
            };
            assert!(matches!(load_edited(name, flipped), Err(BundleError::Checksum { .. })), "{name}");
        }
    }

    #[test]
    fn longer_and_shorter_files_are_refused() {
        for name in [EXEC_FILE, TABLE_FILE] {
            let longer = |content: Vec<u8>| [content, vec![0; 1000]].concat();
            assert!(matches!(load_edited(name, longer), Err(BundleError::Size { .. })), "{name}");
            let shorter = |content: Vec<u8>| content[1..].to_vec();
            assert!(matches!(load_edited(name, shorter), Err(BundleError::Size { .. })), "{name}");
        }
        let endless = |_| vec![b' '; MAX_MANIFEST_BYTES as usize + 7];
        assert!(matches!(load_edited(MANIFEST_FILE, endless), Err(BundleError::TooLarge { .. })));
    }

    #[test]
    fn missing_files_are_named() {
        for name in FILES {
            let home = tempfile::tempdir().expect("a folder");
            let folder = published(&home);
            fs::remove_file(folder.join(name)).expect("one file less");
            match ModelBundle::load(&folder) {
                Err(BundleError::Missing { path }) => assert!(path.ends_with(name)),
                other => panic!("{name}: {other:?}"),
            }
        }
        assert!(matches!(ModelBundle::load(Path::new("no/such/folder")), Err(BundleError::Missing { .. })));
    }

    #[test]
    fn renamed_folder_in_a_registry_is_refused() {
        let home = tempfile::tempdir().expect("a folder");
        let folder = published(&home);
        let renamed = folder.with_file_name("0123456789abcdef");
        fs::rename(&folder, &renamed).expect("a rename");
        assert!(matches!(ModelBundle::load(&renamed), Err(BundleError::Digest { .. })));
        let outside = home.path().join("anywhere");
        fs::rename(&renamed, &outside).expect("a rename");
        assert!(ModelBundle::load(&outside).is_ok());
    }

    #[test]
    fn other_features_are_refused_with_both_fingerprints() {
        let other = "0".repeat(64);
        let error = load_edited(MANIFEST_FILE, replaced(fingerprint(), &other)).expect_err("a refusal").to_string();
        assert!(error.contains(fingerprint()) && error.contains(&other), "{error}");
        assert!(error.contains("retrain with this version"), "{error}");
    }

    #[test]
    fn feature_names_must_agree_in_order() {
        let swapped = replaced("\"event_type_ln_ms\"", "\"data_complexity\"");
        assert!(matches!(load_edited(MANIFEST_FILE, swapped), Err(BundleError::FeatureName { position: 0, .. })));
        let more = replaced("\"event_type_ln_ms\"", "\"event_type_ln_ms\", \"data_complexity\"");
        assert!(matches!(load_edited(MANIFEST_FILE, more), Err(BundleError::FeatureName { position: 2, .. })));
    }

    #[test]
    fn unknown_formats_are_refused_before_their_content_is_read() {
        let edit = |_| br#"{"format_version": 7, "shape": "unheard of"}"#.to_vec();
        assert!(matches!(load_edited(MANIFEST_FILE, edit), Err(BundleError::FormatVersion { found: 7, .. })));
    }

    #[test]
    fn truncated_manifests_are_refused_wherever_they_end() {
        let home = tempfile::tempdir().expect("a folder");
        let folder = published(&home);
        let whole = fs::read(folder.join(MANIFEST_FILE)).expect("a file");
        for length in 0..whole.len() - 2 {
            fs::write(folder.join(MANIFEST_FILE), &whole[..length]).expect("a cut file");
            assert!(matches!(ModelBundle::load(&folder), Err(BundleError::Manifest { .. })), "{length} bytes");
        }
    }

    #[test]
    fn manifests_that_lie_about_the_head_are_refused() {
        for (from, to, problem) in [
            ("\"trees\": 1", "\"trees\": 2", "has 1 trees, but its manifest says 2"),
            ("\"target\": \"ln warm exec_ms\"", "\"target\": \"exec_ms\"", "its target is `exec_ms`"),
            (
                "\"offset_feature\": \"prior_service_ln_ms\"",
                "\"offset_feature\": \"shard_name\"",
                "no feature `shard_name`",
            ),
            ("\"smearing\": ", "\"smearing\": -", "its `smearing` is -"),
        ] {
            match load_edited(MANIFEST_FILE, replaced(from, to)) {
                Err(BundleError::Head { source, .. }) => assert!(source.to_string().contains(problem), "{source}"),
                other => panic!("{problem}: {other:?}"),
            }
        }
    }

    #[test]
    fn manifests_cannot_lead_out_of_their_folder() {
        for name in ["../../secret", "/etc/passwd", "", ".hidden", "a/b", "a\\\\b", "manifest.json"] {
            let edit = replaced(&format!("\"{EXEC_FILE}\": {{"), &format!("\"{name}\": {{"));
            match load_edited(MANIFEST_FILE, edit) {
                Err(BundleError::Manifest { problem, .. }) => assert!(problem.contains("cannot be the name"), "{name}"),
                other => panic!("{name}: {other:?}"),
            }
        }
        let huge = replaced("\"bytes\": ", "\"bytes\": 999999999");
        assert!(matches!(load_edited(MANIFEST_FILE, huge), Err(BundleError::TooLarge { .. })));
    }

    #[test]
    fn unlisted_files_and_unknown_fields_are_refused() {
        let unlisted = replaced(&format!("\"file\": \"{EXEC_FILE}\""), "\"file\": \"other.forest\"");
        assert!(matches!(load_edited(MANIFEST_FILE, unlisted), Err(BundleError::Manifest { .. })));
        let unknown = replaced("\"seed\"", "\"sead\"");
        assert!(matches!(load_edited(MANIFEST_FILE, unknown), Err(BundleError::Manifest { .. })));
    }

    #[test]
    fn sealed_nonsense_in_place_of_a_file_is_refused() {
        let home = tempfile::tempdir().expect("a folder");
        for (name, nonsense) in [(EXEC_FILE, b"SWFOREST nonsense".as_slice()), (TABLE_FILE, b"SWSTABLE nonsense")] {
            let folder = home.path().join(name);
            BundleDraft::example().write(&folder).expect("a bundle");
            let sound = FileEntry::of(&fs::read(folder.join(name)).expect("a file"));
            fs::write(folder.join(name), nonsense).expect("a changed file");
            let manifest = fs::read_to_string(folder.join(MANIFEST_FILE)).expect("a manifest");
            let resealed = manifest
                .replace(&sound.blake3, &FileEntry::of(nonsense).blake3)
                .replace(&format!("\"bytes\": {},", sound.bytes), "\"bytes\": 17,");
            fs::write(folder.join(MANIFEST_FILE), resealed).expect("a changed manifest");
            let refused = ModelBundle::load(&folder);
            assert!(matches!(refused, Err(BundleError::Forest { .. } | BundleError::Table { .. })), "{refused:?}");
        }
    }
}
