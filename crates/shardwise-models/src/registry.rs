//! Versions of a model side by side in a folder, and the names under which routers ask for them.
//!
//! ```text
//! <models>/<name>/versions/<version>/…      immutable, named by content
//! <models>/<name>/aliases/champion          {"version":"…"}
//! <models>/<name>/history.ndjson            one line per move of an alias, only ever appended to
//! ```
//! A version appears whole or not at all, an alias moves in one step. Left out: deciding who becomes champion.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shardwise_types::Timestamp;

use crate::bundle::{BundleError, ModelBundle, VERSION_DIGITS, VERSIONS_FOLDER};
use crate::draft::BundleDraft;
use crate::durable::{UNFINISHED, read_bounded, replace, sync_folder_of, unfinished_beside};
use crate::manifest::as_text;

/// The alias of the version that routers serve.
pub const CHAMPION: &str = "champion";
/// Fewest digits that stand for a version.
const MIN_PREFIX_DIGITS: usize = 4;
const MAX_NAME_BYTES: usize = 64;
const MAX_ALIAS_BYTES: u64 = 4096;
const ALIASES_FOLDER: &str = "aliases";
const HISTORY_FILE: &str = "history.ndjson";
const LOCK_FILE: &str = ".lock";

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
        /// Folder of all models.
        models: PathBuf,
        /// The name.
        name: String,
        /// The names that are there.
        there: Vec<String>,
    },
    /// An alias does not point anywhere yet.
    #[error("{}: model `{name}` has no `{alias}` yet; run `shardwise nightly`, or `shardwise train` and promote a version", path.display())]
    NoSuchAlias {
        /// File of the alias.
        path: PathBuf,
        /// The model.
        name: String,
        /// The alias.
        alias: String,
    },
    /// The file of an alias cannot be understood.
    #[error("{}: this is not an alias, which is one line such as {{\"version\":\"0123456789abcdef\"}}; set it again", path.display())]
    BadAlias {
        /// The file.
        path: PathBuf,
    },
    /// There is no such version.
    #[error("{}: no version `{wanted}`; {}", path.display(), there_are(there))]
    NoSuchVersion {
        /// Folder of the versions.
        path: PathBuf,
        /// What was asked for.
        wanted: String,
        /// The versions that are there.
        there: Vec<String>,
    },
    /// Too few digits.
    #[error("{}: `{wanted}` stands for several versions, {}; give more digits", path.display(), there.join(", "))]
    Ambiguous {
        /// Folder of the versions.
        path: PathBuf,
        /// What was asked for.
        wanted: String,
        /// The versions that it stands for.
        there: Vec<String>,
    },
    /// A draft belongs to another model.
    #[error("{}: a version of model `{found}` cannot be published there", path.display())]
    OtherModel {
        /// Folder of the model.
        path: PathBuf,
        /// The draft's model.
        found: String,
    },
    /// A line of the history cannot be understood.
    #[error("{}, line {line}: not a line of the history: {problem}", path.display())]
    BadHistory {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A file or folder cannot be read or written.
    #[error("{}: cannot be read or written", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A version cannot be served.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

fn there_are(names: &[String]) -> String {
    if names.is_empty() { "there is none yet, train one".to_owned() } else { format!("there: {}", names.join(", ")) }
}

/// Who moves an alias, when and why.
#[derive(Debug, Clone, PartialEq)]
pub struct AliasMove {
    /// The instant of the move.
    pub at: Timestamp,
    /// Who moves it, such as `nightly` or `train`.
    pub who: String,
    /// Why, in a sentence.
    pub why: String,
    /// The figures behind it.
    pub metrics: serde_json::Value,
}

/// One move of an alias as the history keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryLine {
    /// The instant of the move.
    #[serde(serialize_with = "as_text")]
    pub at: Timestamp,
    /// Who moved it.
    pub who: String,
    /// The alias.
    pub alias: String,
    /// The version that it pointed to; none for a new alias.
    pub from: Option<String>,
    /// The version that it points to since.
    pub to: String,
    /// Why.
    pub why: String,
    /// The figures behind it.
    pub metrics: serde_json::Value,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AliasFile {
    version: String,
}

/// The versions and aliases of one model.
#[derive(Debug, Clone)]
pub struct Registry {
    folder: PathBuf,
    name: String,
}

/// Lists the models in a folder by name; a folder that is not there has none.
///
/// # Errors
/// Says which folder cannot be read.
pub fn model_names(models: &Path) -> Result<Vec<String>, RegistryError> {
    let mut names = folder_names(models)?;
    names.retain(|name| is_name(name) && models.join(name).join(VERSIONS_FOLDER).is_dir());
    Ok(names)
}

impl Registry {
    /// Opens the versions of a model that is there.
    ///
    /// # Errors
    /// When there is no such model, says which there are.
    pub fn open(models: &Path, name: &str) -> Result<Self, RegistryError> {
        let registry = Self::at(models, name)?;
        if registry.versions_folder().is_dir() {
            return Ok(registry);
        }
        let (models, name) = (models.to_owned(), name.to_owned());
        Err(RegistryError::NoSuchModel { there: model_names(&models)?, models, name })
    }

    /// Opens the versions of a model, and makes room for them when there are none yet.
    ///
    /// # Errors
    /// Says which folder cannot be made.
    pub fn open_or_create(models: &Path, name: &str) -> Result<Self, RegistryError> {
        let registry = Self::at(models, name)?;
        let versions = registry.versions_folder();
        fs::create_dir_all(&versions).map_err(|source| RegistryError::Io { path: versions, source })?;
        Ok(registry)
    }

    fn at(models: &Path, name: &str) -> Result<Self, RegistryError> {
        if !is_name(name) {
            return Err(RegistryError::BadName { what: "a model", name: name.to_owned() });
        }
        Ok(Self { folder: models.join(name), name: name.to_owned() })
    }

    /// The folder of the model.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// All versions, in the order of their names, which says nothing about age.
    ///
    /// # Errors
    /// Says which folder cannot be read.
    pub fn versions(&self) -> Result<Vec<String>, RegistryError> {
        let mut versions = folder_names(&self.versions_folder())?;
        versions.retain(|name| name.len() == VERSION_DIGITS && is_digits(name));
        Ok(versions)
    }

    /// Adds a version and returns its name; one that is there already stays as it is.
    ///
    /// # Errors
    /// When the draft cannot be served or written, or the version is there but damaged.
    pub fn publish(&self, draft: &BundleDraft) -> Result<String, RegistryError> {
        if draft.name != self.name {
            return Err(RegistryError::OtherModel { path: self.folder.clone(), found: draft.name.clone() });
        }
        let encoded = draft.encode()?;
        let folder = self.versions_folder().join(&encoded.version);
        if !folder.exists() {
            let unfinished = unfinished_beside(&folder);
            let written = encoded.write(&unfinished).map_err(RegistryError::from);
            let published = written.and_then(|()| move_into_place(&unfinished, &folder));
            if published.is_err() {
                // The first error is the one that tells; readers skip what is left.
                let _ = fs::remove_dir_all(&unfinished);
            }
            published?;
        }
        ModelBundle::load(&folder)?;
        Ok(encoded.version)
    }

    /// Points an alias to a version, which is given by another alias, its name or the beginning of it. Returns whether
    /// the alias moved; where it already points there, nothing is written.
    ///
    /// # Errors
    /// When the version is not there or cannot be served here, or the disk refuses.
    pub fn set_alias(&self, alias: &str, version: &str, by: AliasMove) -> Result<bool, RegistryError> {
        if !is_name(alias) {
            return Err(RegistryError::BadName { what: "an alias", name: alias.to_owned() });
        }
        let to = ModelBundle::load(&self.resolve(version)?)?.version().to_owned();
        let _lock = self.lock()?;
        let from = self.alias(alias)?;
        if from.as_ref() == Some(&to) {
            return Ok(false);
        }
        let AliasMove { at, who, why, metrics } = by;
        // The line comes first: a move without a line must not happen, a crash between the two repeats `from`.
        let line = HistoryLine { at, who, alias: alias.to_owned(), from, to: to.clone(), why, metrics };
        self.append_history(&line)?;
        self.write_alias(alias, to)?;
        Ok(true)
    }

    /// The version that an alias points to; none when there is no such alias.
    ///
    /// # Errors
    /// When its file cannot be understood.
    pub fn alias(&self, alias: &str) -> Result<Option<String>, RegistryError> {
        let path = self.alias_file(alias);
        let content = match read_bounded(&path, MAX_ALIAS_BYTES) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(RegistryError::Io { path, source }),
        };
        match serde_json::from_slice::<AliasFile>(&content) {
            Ok(AliasFile { version }) if version.len() == VERSION_DIGITS && is_digits(&version) => Ok(Some(version)),
            _ => Err(RegistryError::BadAlias { path }),
        }
    }

    /// Finds the folder of a version by an alias, its name, its digest or the beginning of either.
    ///
    /// # Errors
    /// When nothing or more than one version is meant; says which there are.
    pub fn resolve(&self, wanted: &str) -> Result<PathBuf, RegistryError> {
        if is_digits(wanted) && wanted.len() >= MIN_PREFIX_DIGITS {
            return self.resolve_digits(wanted);
        }
        if !is_name(wanted) {
            return Err(self.no_such_version(wanted)?);
        }
        let version = self.alias(wanted)?.ok_or_else(|| RegistryError::NoSuchAlias {
            path: self.alias_file(wanted),
            name: self.name.clone(),
            alias: wanted.to_owned(),
        })?;
        self.resolve_digits(&version)
    }

    fn resolve_digits(&self, wanted: &str) -> Result<PathBuf, RegistryError> {
        let digits = &wanted[..wanted.len().min(VERSION_DIGITS)];
        let mut found = self.versions()?;
        found.retain(|version| version.starts_with(digits));
        match found.as_slice() {
            [version] => Ok(self.versions_folder().join(version)),
            [] => Err(self.no_such_version(wanted)?),
            _ => {
                let (path, wanted) = (self.versions_folder(), wanted.to_owned());
                Err(RegistryError::Ambiguous { path, wanted, there: found })
            }
        }
    }

    fn no_such_version(&self, wanted: &str) -> Result<RegistryError, RegistryError> {
        let (path, there) = (self.versions_folder(), self.versions()?);
        Ok(RegistryError::NoSuchVersion { path, wanted: wanted.to_owned(), there })
    }

    /// Loads a version, given as for [`Registry::resolve`].
    ///
    /// # Errors
    /// When it is not there or cannot be served.
    pub fn load(&self, wanted: &str) -> Result<ModelBundle, RegistryError> {
        Ok(ModelBundle::load(&self.resolve(wanted)?)?)
    }

    /// All moves of aliases, the oldest first. A last line that a crash cut off, whose move never happened, is left out.
    ///
    /// # Errors
    /// Says which line cannot be understood.
    pub fn history(&self) -> Result<Vec<HistoryLine>, RegistryError> {
        let path = self.history_file();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(RegistryError::Io { path, source }),
        };
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        let parse = |(index, line): (usize, &str)| {
            serde_json::from_str(line).map_err(|error| RegistryError::BadHistory {
                path: path.clone(),
                line: index + 1,
                problem: error.to_string(),
            })
        };
        whole.lines().enumerate().map(parse).collect()
    }

    fn append_history(&self, line: &HistoryLine) -> Result<(), RegistryError> {
        let path = self.history_file();
        let mut text = serde_json::to_string(line).map_err(|error| self.io(HISTORY_FILE, error.into()))?;
        text.push('\n');
        let append = || {
            cut_torn_line(&path)?;
            let mut file = OpenOptions::new().append(true).create(true).open(&path)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        append().map_err(|error| self.io(HISTORY_FILE, error))
    }

    fn write_alias(&self, alias: &str, version: String) -> Result<(), RegistryError> {
        let path = self.alias_file(alias);
        let write = || {
            fs::create_dir_all(self.folder.join(ALIASES_FOLDER))?;
            let mut line = serde_json::to_vec(&AliasFile { version })?;
            line.push(b'\n');
            replace(&path, &line)
        };
        write().map_err(|source| RegistryError::Io { path: path.clone(), source })
    }

    /// Keeps other processes from moving aliases until it is dropped.
    fn lock(&self) -> Result<File, RegistryError> {
        let lock = || {
            let file = File::create(self.folder.join(LOCK_FILE))?;
            file.lock()?;
            Ok(file)
        };
        lock().map_err(|error| self.io(LOCK_FILE, error))
    }

    fn io(&self, file: &str, source: io::Error) -> RegistryError {
        RegistryError::Io { path: self.folder.join(file), source }
    }

    fn versions_folder(&self) -> PathBuf {
        self.folder.join(VERSIONS_FOLDER)
    }

    fn alias_file(&self, alias: &str) -> PathBuf {
        self.folder.join(ALIASES_FOLDER).join(alias)
    }

    fn history_file(&self) -> PathBuf {
        self.folder.join(HISTORY_FILE)
    }
}

/// Renames a finished version; when someone else published the same content meanwhile, theirs stays.
fn move_into_place(unfinished: &Path, folder: &Path) -> Result<(), RegistryError> {
    let moved = match fs::rename(unfinished, folder) {
        Err(_) if folder.is_dir() => fs::remove_dir_all(unfinished),
        renamed => renamed,
    };
    moved.and_then(|()| sync_folder_of(folder)).map_err(|source| RegistryError::Io { path: folder.to_owned(), source })
}

/// Cuts off a last line without an end, which a crash left.
fn cut_torn_line(path: &Path) -> io::Result<()> {
    let content = match fs::read(path) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let whole = content.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    if whole == content.len() {
        return Ok(());
    }
    OpenOptions::new().write(true).open(path)?.set_len(whole as u64)
}

/// Names of the folders in a folder, ordered; unfinished ones are left out.
fn folder_names(folder: &Path) -> Result<Vec<String>, RegistryError> {
    let failed = |source| RegistryError::Io { path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with(UNFINISHED) && entry.path().is_dir() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn is_digits(name: &str) -> bool {
    name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// What may name a model or an alias: safe in any file system, and not to be taken for a version.
fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'-' | b'_'))
        && !(is_digits(name) && name.len() >= MIN_PREFIX_DIGITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "example";

    fn draft(seed: u64) -> BundleDraft {
        BundleDraft { seed, ..BundleDraft::example() }
    }

    fn registry() -> (tempfile::TempDir, Registry) {
        let models = tempfile::tempdir().expect("a folder");
        let registry = Registry::open_or_create(models.path(), NAME).expect("a registry");
        (models, registry)
    }

    fn by(who: &str) -> AliasMove {
        let at = "2026-01-05T02:00:00Z".parse().expect("a time");
        let metrics = serde_json::json!({"rmse": 0.25, "p99_ms": 41.5});
        AliasMove { at, who: who.to_owned(), why: "it is better".to_owned(), metrics }
    }

    #[test]
    fn alias_moves_survive() {
        let (models, registry) = registry();
        let [one, two] = [1, 2].map(|seed| registry.publish(&draft(seed)).expect("a version"));
        assert!(registry.set_alias(CHAMPION, &one, by("train")).expect("a move"));
        assert!(registry.set_alias(CHAMPION, &two, by("nightly")).expect("a move"));
        assert!(!registry.set_alias(CHAMPION, &two, by("nightly")).expect("no move"));
        let reopened = Registry::open(models.path(), NAME).expect("the same registry");
        assert_eq!(reopened.load(CHAMPION).expect("the champion").version(), two);
        let history = reopened.history().expect("the history");
        let moves: Vec<_> =
            history.iter().map(|line| (line.who.as_str(), line.from.as_deref(), line.to.as_str())).collect();
        assert_eq!(moves, [("train", None, one.as_str()), ("nightly", Some(one.as_str()), two.as_str())]);
        assert_eq!((history[1].at, &history[1].metrics), (by("").at, &by("").metrics));
    }

    #[test]
    fn roll_back_is_one_more_move() {
        let (_models, registry) = registry();
        let [one, two] = [1, 2].map(|seed| registry.publish(&draft(seed)).expect("a version"));
        for version in [&one, &two, &one] {
            registry.set_alias(CHAMPION, version, by("operator")).expect("a move");
        }
        assert_eq!(registry.load(CHAMPION).expect("the champion").version(), one);
        assert_eq!(registry.history().expect("the history").len(), 3);
    }

    #[test]
    fn versions_are_found_by_alias_digest_and_prefix() {
        let (_models, registry) = registry();
        let version = registry.publish(&draft(1)).expect("a version");
        registry.set_alias("challenger", &version[..4], by("train")).expect("a move");
        let digest = registry.load(&version).expect("a bundle").digest().to_owned();
        for wanted in ["challenger", &version, &version[..4], &version[..15], &digest] {
            assert!(registry.resolve(wanted).expect(wanted).ends_with(&version));
        }
    }

    #[test]
    fn prefix_of_several_versions_is_refused() {
        let (_models, registry) = registry();
        for version in ["abcd000000000000", "abcd111111111111"] {
            fs::create_dir(registry.versions_folder().join(version)).expect("a folder");
        }
        let error = registry.resolve("abcd").expect_err("two are meant");
        assert!(matches!(&error, RegistryError::Ambiguous { there, .. } if there.len() == 2), "{error}");
        assert!(registry.resolve("abcd0").is_ok());
    }

    #[test]
    fn what_is_not_there_is_said_with_what_is() {
        let (models, registry) = registry();
        let said = |error: RegistryError| error.to_string();
        assert!(said(registry.resolve(CHAMPION).expect_err("no champion")).contains("shardwise nightly"));
        assert!(said(registry.resolve("0123abcd").expect_err("no version")).contains("there is none yet"));
        let version = registry.publish(&draft(1)).expect("a version");
        assert!(said(registry.resolve("ffff").expect_err("no version")).contains(&version));
        let error = said(Registry::open(models.path(), "exmaple").expect_err("no such model"));
        assert!(error.contains("no model `exmaple`") && error.contains("there: example"), "{error}");
        assert!(Registry::open(Path::new("no/such/folder"), NAME).is_err());
    }

    #[test]
    fn alias_of_a_version_that_is_gone_is_said() {
        let (_models, registry) = registry();
        let version = registry.publish(&draft(1)).expect("a version");
        registry.set_alias(CHAMPION, &version, by("train")).expect("a move");
        fs::remove_dir_all(registry.resolve(&version).expect("a folder")).expect("gone");
        assert!(matches!(registry.load(CHAMPION), Err(RegistryError::NoSuchVersion { .. })));
    }

    #[test]
    fn publishing_again_changes_nothing() {
        let (_models, registry) = registry();
        let version = registry.publish(&draft(1)).expect("a version");
        let manifest = registry.resolve(&version).expect("a folder").join("manifest.json");
        let written_at = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).expect("a time");
        let before = written_at(&manifest);
        assert_eq!(registry.publish(&draft(1)).expect("the same version"), version);
        assert_eq!(written_at(&manifest), before);
        assert_eq!(registry.versions().expect("versions"), [version]);
    }

    #[test]
    fn damaged_version_is_not_taken_for_published() {
        let (_models, registry) = registry();
        let version = registry.publish(&draft(1)).expect("a version");
        fs::remove_file(registry.resolve(&version).expect("a folder").join("exec.forest")).expect("damage");
        assert!(matches!(registry.publish(&draft(1)), Err(RegistryError::Bundle(BundleError::Missing { .. }))));
        assert!(registry.set_alias(CHAMPION, &version, by("train")).is_err());
        assert_eq!(registry.alias(CHAMPION).expect("no alias"), None);
    }

    #[test]
    fn interrupted_publish_leaves_no_version() {
        let (models, registry) = registry();
        let version = draft(1).bundle().expect("a bundle").version().to_owned();
        let unfinished = unfinished_beside(&registry.versions_folder().join(&version));
        fs::create_dir(&unfinished).expect("a folder");
        fs::write(unfinished.join("exec.forest"), b"half").expect("half a file");
        assert_eq!(registry.versions().expect("versions"), Vec::<String>::new());
        assert!(registry.resolve(&version).is_err());
        assert_eq!(registry.publish(&draft(1)).expect("a version"), version);
        assert_eq!(registry.versions().expect("versions"), [version]);
        assert_eq!(model_names(models.path()).expect("names"), [NAME]);
    }

    #[test]
    fn torn_line_of_the_history_is_a_move_that_never_happened() {
        let (_models, registry) = registry();
        let [one, two] = [1, 2].map(|seed| registry.publish(&draft(seed)).expect("a version"));
        registry.set_alias(CHAMPION, &one, by("train")).expect("a move");
        let mut text = fs::read_to_string(registry.history_file()).expect("a history");
        text.push_str(r#"{"at":"2026-01-06T02:0"#);
        fs::write(registry.history_file(), text).expect("a torn line");
        assert_eq!(registry.history().expect("whole lines").len(), 1);
        registry.set_alias(CHAMPION, &two, by("nightly")).expect("a move");
        assert_eq!(registry.history().expect("whole lines").len(), 2);
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let (models, registry) = registry();
        for name in ["", "..", "a/b", "Ex", "a b", "ab.c", "beef", &"x".repeat(65)] {
            assert!(matches!(Registry::open(models.path(), name), Err(RegistryError::BadName { .. })), "{name}");
            assert!(matches!(registry.set_alias(name, "0123", by("x")), Err(RegistryError::BadName { .. })), "{name}");
        }
        assert!(matches!(registry.resolve("../aliases"), Err(RegistryError::NoSuchVersion { .. })));
    }

    #[test]
    fn spoilt_alias_files_are_refused() {
        let (_models, registry) = registry();
        fs::create_dir(registry.folder().join(ALIASES_FOLDER)).expect("a folder");
        for content in ["", "{}", r#"{"version":"../../x"}"#, r#"{"version":"abcd"}"#, "\u{0}"] {
            fs::write(registry.alias_file(CHAMPION), content).expect("a file");
            assert!(matches!(registry.load(CHAMPION), Err(RegistryError::BadAlias { .. })), "{content}");
        }
    }

    #[test]
    fn only_own_versions_are_published() {
        let (models, _) = registry();
        let other = Registry::open_or_create(models.path(), "other").expect("a registry");
        assert!(matches!(other.publish(&draft(1)), Err(RegistryError::OtherModel { .. })));
    }
}
