//! Where a registry lies: a folder, the memory of this process or an object store, all behind the same few operations.
//!
//! Every object is written whole or not at all, also when the machine stops: that is what object stores promise, and what
//! [`LocalFileSystem`] makes of a folder by writing aside, synchronising and linking. Left out: what the objects mean.

use std::error::Error;
use std::fs;
use std::future::Future;
use std::io;
use std::iter;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::UNIX_EPOCH;

use futures_util::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::{GetOptions, ObjectStore, ObjectStoreExt, PutMode, PutPayload, path::Path as Key};
use shardwise_types::Timestamp;
use url::Url;

/// What `memory:///` names: one store for as long as the process lives.
static MEMORY: LazyLock<Arc<InMemory>> = LazyLock::new(Arc::default);

/// Drives the connections to S3.
#[cfg(feature = "s3")]
static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).thread_name("shardwise-s3").enable_all().build().expect("the system grants a thread")
});

/// An object that a listing found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Its name below the listed prefix.
    pub(crate) name: String,
    /// When it was written.
    pub(crate) written_at: Timestamp,
}

/// A place for objects. Keys are relative to it.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    objects: Arc<dyn ObjectStore>,
    /// The same place as a folder, when it is one.
    folder: Option<PathBuf>,
    prefix: Key,
    /// For messages: the folder or URL.
    place: PathBuf,
}

impl Store {
    /// Opens a folder, which must be there, or what a URL such as `s3://bucket/prefix` names.
    pub(crate) fn open(models: &Path) -> io::Result<Self> {
        let text = models.to_string_lossy();
        if !text.contains("://") {
            return Self::folder(models);
        }
        let url = Url::parse(&text).map_err(|error| wrong_place(&format!("not a URL: {error}")))?;
        let (objects, prefix): (Arc<dyn ObjectStore>, _) = match url.scheme() {
            "file" => {
                let folder = url.to_file_path().map_err(|()| wrong_place("write it as file:///absolute/folder"))?;
                return Self::folder(&folder);
            }
            "memory" => (MEMORY.clone(), Key::from_url_path(url.path()).map_err(io::Error::other)?),
            "s3" | "s3a" => open_s3(&url)?,
            other => {
                return Err(wrong_place(&format!("`{other}` is not supported; take a folder, file, memory or s3")));
            }
        };
        Ok(Self { objects, folder: None, prefix, place: models.to_owned() })
    }

    /// Makes the folder that `models` names, when it names one.
    pub(crate) fn open_or_create(models: &Path) -> io::Result<Self> {
        let text = models.to_string_lossy();
        let file_url = text.starts_with("file://").then(|| Url::parse(&text).ok()?.to_file_path().ok()).flatten();
        if let Some(folder) = file_url.as_deref().or_else(|| (!text.contains("://")).then_some(models)) {
            fs::create_dir_all(folder)?;
        }
        Self::open(models)
    }

    /// Any other store, which `place` names in messages.
    pub(crate) fn of(objects: Arc<dyn ObjectStore>, place: &str) -> Self {
        Self { objects, folder: None, prefix: Key::default(), place: place.into() }
    }

    fn folder(folder: &Path) -> io::Result<Self> {
        // The store would say less clearly that there is no folder.
        fs::metadata(folder)?;
        let objects = LocalFileSystem::new_with_prefix(folder).map_err(to_io)?;
        let objects = Arc::new(objects.with_fsync(true).with_automatic_cleanup(true));
        let place = folder.to_owned();
        Ok(Self { objects, folder: Some(place.clone()), prefix: Key::default(), place })
    }

    /// How messages name a key.
    pub(crate) fn path(&self, key: &str) -> PathBuf {
        self.place.join(key)
    }

    /// Reads an object of at most `limit` bytes; a longer one is cut to `limit + 1`, so that its length tells.
    pub(crate) fn get(&self, key: &str, limit: u64) -> io::Result<Vec<u8>> {
        let key = self.key(key);
        let reading = async {
            let object = self.objects.get(&key).await?;
            if object.meta.size <= limit {
                return object.bytes().await;
            }
            drop(object);
            let options = GetOptions { range: Some((0..limit + 1).into()), ..GetOptions::default() };
            self.objects.get_opts(&key, options).await?.bytes().await
        };
        self.wait(reading).map(Into::into).map_err(to_io)
    }

    /// Writes an object, or replaces it; whoever reads sees all of the old or all of the new.
    pub(crate) fn put(&self, key: &str, content: &[u8]) -> io::Result<()> {
        self.write(key, content, PutMode::Overwrite)
    }

    /// Writes an object that must not be there: of several writers one succeeds, and the others get
    /// [`io::ErrorKind::AlreadyExists`].
    pub(crate) fn create(&self, key: &str, content: &[u8]) -> io::Result<()> {
        self.write(key, content, PutMode::Create)
    }

    fn write(&self, key: &str, content: &[u8], mode: PutMode) -> io::Result<()> {
        let payload = PutPayload::from(content.to_vec());
        self.wait(self.objects.put_opts(&self.key(key), payload, mode.into())).map_err(to_io)?;
        // A store that lost bytes without a word would else be found out by readers.
        if self.get(key, content.len() as u64)? != content {
            return Err(io::Error::new(
                io::ErrorKind::WriteZero,
                "not all bytes were kept; make room on the disk and do it again",
            ));
        }
        Ok(())
    }

    /// Removes an object; one that is not there is removed already.
    pub(crate) fn delete(&self, key: &str) -> io::Result<()> {
        match self.wait(self.objects.delete(&self.key(key))) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(to_io(error)),
        }
    }

    /// All objects below a prefix, ordered by name.
    pub(crate) fn list(&self, prefix: &str) -> io::Result<Vec<Listed>> {
        let prefix = self.key(prefix);
        let found: Vec<_> = self.wait(self.objects.list(Some(&prefix)).try_collect()).map_err(to_io)?;
        let listed = |object: &object_store::ObjectMeta| {
            let name: Vec<_> = object.location.prefix_match(&prefix)?.map(|part| part.as_ref().to_owned()).collect();
            let nanos = object.last_modified.timestamp_nanos_opt().unwrap_or_default();
            Some(Listed { name: name.join("/"), written_at: Timestamp::from_nanos(nanos) })
        };
        let mut listed: Vec<_> = found.iter().filter_map(listed).collect();
        listed.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(listed)
    }

    /// Names of what would be folders here, ordered.
    pub(crate) fn folders(&self) -> io::Result<Vec<String>> {
        let found = self.wait(self.objects.list_with_delimiter(Some(&self.prefix))).map_err(to_io)?;
        let mut names: Vec<_> =
            found.common_prefixes.iter().filter_map(|prefix| Some(prefix.filename()?.to_owned())).collect();
        names.sort();
        Ok(names)
    }

    /// Files below a prefix that were written aside and not yet linked to their names, ordered by name. Their writer is at
    /// work, or was killed. Only folders have them; [`Store::list`] never shows them.
    pub(crate) fn staged(&self, prefix: &str) -> io::Result<Vec<Listed>> {
        let mut found = Vec::new();
        if let Some(folder) = &self.folder {
            find_staged(&folder.join(prefix), "", &mut found)?;
        }
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }

    /// Removes a file that [`Store::staged`] found below a prefix, when it is still older than an instant, and the folders
    /// that are empty then. A writer that is at work on it after all fails and says so; it cannot link what is not there.
    pub(crate) fn delete_staged(&self, prefix: &str, name: &str, written_before: Timestamp) -> io::Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let file = folder.join(prefix).join(name);
        // Somebody may have cleaned up meanwhile, and a writer taken the name that became free.
        let is_old = if_there(fs::symlink_metadata(&file))?
            .map(|found| written_at(&found))
            .transpose()?
            .is_some_and(|written_at| written_at < written_before);
        if is_old && is_staged(name) {
            if_there(fs::remove_file(&file))?;
            let above = file.ancestors().skip(1).take_while(|above| *above != folder);
            // The first folder that is not empty stays, and all above it.
            above.take_while(|above| fs::remove_dir(above).is_ok()).for_each(drop);
        }
        Ok(())
    }

    fn key(&self, key: &str) -> Key {
        Key::from(format!("{}/{key}", self.prefix))
    }

    fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        #[cfg(feature = "s3")]
        let _connections = is_s3(&self.place).then(|| RUNTIME.enter());
        futures_executor::block_on(work)
    }
}

/// Adds what lies staged in a folder, whose name below the first one is `name`. Links to elsewhere are not followed.
fn find_staged(folder: &Path, name: &str, found: &mut Vec<Listed>) -> io::Result<()> {
    for entry in if_there(fs::read_dir(folder))?.into_iter().flatten() {
        let entry = entry?;
        // What cannot be spelled was not written here.
        let Some(name) = entry.file_name().to_str().map(|last| format!("{name}{last}")) else { continue };
        // Writers finish while this looks: what was listed may be gone.
        let Some(metadata) = if_there(entry.metadata())? else { continue };
        if metadata.is_dir() {
            find_staged(&entry.path(), &format!("{name}/"), found)?;
        } else if metadata.is_file() && is_staged(&name) {
            found.push(Listed { name, written_at: written_at(&metadata)? });
        }
    }
    Ok(())
}

/// Whether [`LocalFileSystem`] names a file so until it has its content: `<name>#<number>`.
fn is_staged(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    let number = file.split_once('#').map(|(_, number)| number).unwrap_or_default();
    !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())
}

fn written_at(metadata: &fs::Metadata) -> io::Result<Timestamp> {
    let since = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Timestamp::from_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)))
}

fn if_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

#[cfg(feature = "s3")]
fn open_s3(url: &Url) -> io::Result<(Arc<dyn ObjectStore>, Key)> {
    let (_, prefix) = object_store::ObjectStoreScheme::parse(url).map_err(io::Error::other)?;
    let bucket = object_store::aws::AmazonS3Builder::from_env().with_url(url.as_str());
    Ok((Arc::new(bucket.build().map_err(to_io)?), prefix))
}

/// Whether a place is a URL of S3; schemes may be spelled in upper case, and folders may begin like them.
#[cfg(feature = "s3")]
fn is_s3(place: &Path) -> bool {
    let scheme = place.to_str().and_then(|text| text.split_once("://")).map(|(scheme, _)| scheme.to_ascii_lowercase());
    matches!(scheme.as_deref(), Some("s3" | "s3a"))
}

#[cfg(not(feature = "s3"))]
fn open_s3(_url: &Url) -> io::Result<(Arc<dyn ObjectStore>, Key)> {
    Err(wrong_place("this shardwise was built without S3; build it with `--features s3`"))
}

fn wrong_place(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, problem)
}

/// What a store says that is full. The system's own words do not say what to do.
#[derive(Debug, thiserror::Error)]
#[error(
    "no room for it: the disk is full, or a quota or a limit on the size of files is reached; make room and do it again"
)]
struct NoRoom(#[source] object_store::Error);

/// The kind of the system's error, when that is what is behind it and it says that there is no room.
fn no_room(error: &object_store::Error) -> Option<io::ErrorKind> {
    let behind = iter::successors(Some(error as &dyn Error), |&error| error.source());
    behind.filter_map(|error| error.downcast_ref::<io::Error>()).map(io::Error::kind).find(|kind| {
        matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::FileTooLarge | io::ErrorKind::QuotaExceeded)
    })
}

fn to_io(error: object_store::Error) -> io::Error {
    if let Some(kind) = no_room(&error) {
        return io::Error::new(kind, NoRoom(error));
    }
    let kind = match &error {
        object_store::Error::NotFound { .. } => io::ErrorKind::NotFound,
        object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. } => {
            io::ErrorKind::AlreadyExists
        }
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            io::ErrorKind::PermissionDenied
        }
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}
