//! What a registry promises when the store fails, or the process is killed, at any step.

use std::fmt;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use object_store::memory::InMemory;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result, path::Path as Key,
};

use super::tests::{by, draft, far_future};
use super::*;

const NAME: &str = "example";
const REPETITIONS: usize = 20;

/// How an operation fails.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// Nothing is done.
    Before,
    /// It is done, but the answer is lost.
    After,
    /// Part of the content is written, and an error comes back.
    Short,
    /// Part of the content is written, and the store says that all is well.
    Silent,
    /// A write is told that somebody else is writing, who then fails; all else works.
    Conflict,
}

/// Fails at one of its operations, and works before and after.
#[derive(Debug)]
struct Failing {
    store: InMemory,
    fault: Fault,
    /// The operation that fails, from 0.
    at: usize,
    /// Share of the content that a short write keeps.
    share: f64,
    done: AtomicUsize,
}

impl fmt::Display for Failing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a store that fails")
    }
}

fn full() -> Error {
    Error::Generic { store: "failing", source: "no space left on device".into() }
}

impl Failing {
    /// The fault of this operation, if it is the one.
    fn next(&self) -> Option<Fault> {
        (self.done.fetch_add(1, Relaxed) == self.at).then_some(self.fault)
    }

    /// Only writing knows more than two ways to fail.
    fn check(&self) -> Result<bool> {
        match self.next() {
            Some(Fault::After) => Ok(true),
            Some(Fault::Conflict) | None => Ok(false),
            Some(_) => Err(full()),
        }
    }
}

#[async_trait]
impl ObjectStore for Failing {
    async fn put_opts(&self, key: &Key, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let fault = self.next();
        if fault == Some(Fault::Before) {
            return Err(full());
        }
        if fault == Some(Fault::Conflict) {
            return Err(Error::AlreadyExists { path: key.to_string(), source: "a conflicting request".into() });
        }
        let bytes: Vec<u8> = payload.iter().flatten().copied().collect();
        let kept = match fault {
            Some(Fault::Short | Fault::Silent) => (bytes.len() as f64 * self.share) as usize,
            _ => bytes.len(),
        };
        let result = self.store.put_opts(key, bytes[..kept].to_vec().into(), options).await?;
        if matches!(fault, Some(Fault::After | Fault::Short)) { Err(full()) } else { Ok(result) }
    }

    async fn put_multipart_opts(&self, _: &Key, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(full())
    }

    async fn get_opts(&self, key: &Key, options: GetOptions) -> Result<GetResult> {
        if self.check()? { Err(full()) } else { self.store.get_opts(key, options).await }
    }

    fn delete_stream(&self, keys: BoxStream<'static, Result<Key>>) -> BoxStream<'static, Result<Key>> {
        match self.check() {
            Ok(false) => self.store.delete_stream(keys),
            Ok(true) => self.store.delete_stream(keys).map(|_| Err(full())).boxed(),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.check() {
            Ok(false) => self.store.list(prefix),
            // Some of it comes before the error.
            Ok(true) => self.store.list(prefix).take(1).chain(stream::iter([Err(full())])).boxed(),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Key>) -> Result<ListResult> {
        if self.check()? { Err(full()) } else { self.store.list_with_delimiter(prefix).await }
    }

    async fn copy_opts(&self, _: &Key, _: &Key, _: CopyOptions) -> Result<()> {
        Err(full())
    }
}

fn over(store: Arc<dyn ObjectStore>) -> Registry {
    Registry::in_store(store, "memory", NAME).expect("a sound name")
}

/// Three versions, of which the second is champion and the first was; nothing names the third.
pub(super) fn prepare(registry: &Registry) {
    let versions = [1, 2, 3].map(|seed| registry.publish(&draft(seed)).expect("a version"));
    for version in &versions[..2] {
        registry.set_alias(CHAMPION, version, &by("train")).expect("a move");
    }
}

fn start() -> InMemory {
    let store = Arc::new(InMemory::new());
    prepare(&over(store.clone()));
    store.fork()
}

pub(super) type Action<'a> = &'a dyn Fn(&Registry) -> std::result::Result<(), RegistryError>;

/// All that writes to a registry that was prepared so, one after the other.
pub(super) fn for_each_action(mut check: impl FnMut(&str, Action<'_>)) {
    let new = draft(4);
    let mut signed = draft(5).package().expect("a sound draft");
    signed.sign(&SigningKey::from_seed([1; 32]), by("").at);
    let third = draft(3).bundle().expect("a bundle").version().to_owned();
    let clean_up = AliasMove { at: far_future(), ..by("gc") };
    check("publish", &|registry| registry.publish(&new).map(drop));
    check("import", &|registry| registry.publish_package(&signed).map(drop));
    check("promote", &|registry| registry.set_alias(CHAMPION, &third, &by("operator")).map(drop));
    check("sign", &|registry| registry.sign(&third, &SigningKey::from_seed([1; 32]), by("").at).map(drop));
    check("roll back", &|registry| registry.roll_back(&by("operator")).map(drop));
    check("clean up", &|registry| registry.remove_garbage(5, far_future(), &clean_up).map(drop));
}

/// Lets an action fail at each of its operations, in each way, and looks at what is left. Returns the operations.
fn fail_everywhere(what: &str, start: &InMemory, action: Action<'_>) -> usize {
    let before = over(Arc::new(start.fork())).aliases().expect("aliases");
    let registry = over(Arc::new(start.fork()));
    action(&registry).expect("nothing fails");
    let (after, versions) = (registry.aliases().expect("aliases"), registry.versions().expect("versions"));
    for at in 0.. {
        let mut was_reached = false;
        for repetition in 0..REPETITIONS {
            for fault in [Fault::Before, Fault::After, Fault::Short, Fault::Silent] {
                let share = repetition as f64 / REPETITIONS as f64;
                let failing = Arc::new(Failing { store: start.fork(), fault, at, share, done: AtomicUsize::new(0) });
                let outcome = action(&over(failing.clone()));
                was_reached |= failing.done.load(Relaxed) > at;
                let context = format!("{what}, operation {at}, {fault:?}, {share}: {outcome:?}");

                let left = over(Arc::new(failing.store.fork()));
                let aliases = left.aliases().expect(&context);
                assert!(aliases == before || aliases == after, "{context}: {aliases:?}");
                assert!(outcome.is_err() || aliases == after, "{context}: said to be done");
                left.load(CHAMPION).expect(&context);
                let history = left.history().expect(&context);
                assert_eq!(history.last().map(|entry| &entry.aliases), Some(&aliases), "{context}");
                for version in left.versions().expect(&context) {
                    // Only a store that leaves half an object, which none should, lets a broken version be seen.
                    let is_whole = left.load(&version).is_ok();
                    assert!(is_whole || matches!(fault, Fault::Short | Fault::Silent), "{context}: {version}");
                }
                // A roll-back that happened would be undone by the next; all else may be asked for again.
                if what != "roll back" || aliases == before {
                    action(&left).expect(&context);
                }
                assert_eq!(left.aliases().expect(&context), after, "{context}");
                assert_eq!(left.versions().expect(&context), versions, "{context}");
                for version in &versions {
                    left.load(version).expect(&context);
                }
            }
        }
        if !was_reached {
            return at;
        }
    }
    unreachable!("an action ends")
}

#[test]
fn a_failure_at_any_step_leaves_the_old_state_or_the_new() {
    let start = start();
    for_each_action(|what, action| {
        let operations = fail_everywhere(what, &start, action);
        assert!(operations >= 5, "{what}: only {operations} operations");
    });
}

#[test]
fn whoever_is_told_that_somebody_is_writing_looks_again() {
    let start = start();
    let third = draft(3).bundle().expect("a bundle").version().to_owned();
    let promote = |at| {
        let store = start.fork();
        let failing = Arc::new(Failing { store, fault: Fault::Conflict, at, share: 0.0, done: AtomicUsize::new(0) });
        let registry = over(failing.clone());
        assert!(registry.set_alias(CHAMPION, &third, &by("operator")).expect("a move"), "operation {at}");
        let operations = failing.done.load(Relaxed);
        let history = registry.history().expect("the history");
        assert!(history.len() == 3 && history[2].to.as_ref() == Some(&third), "operation {at}");
        operations
    };
    let undisturbed = promote(usize::MAX);
    // Only one of the operations writes.
    assert_eq!((0..undisturbed).filter(|at| promote(*at) > undisturbed).count(), 1);
}

const WRITER_FOLDER: &str = "SHARDWISE_TEST_WRITER_FOLDER";

/// Not a test by itself: the process that the next test kills. It writes for as long as it lives.
#[test]
fn writer_that_is_killed() {
    let Ok(folder) = std::env::var(WRITER_FOLDER) else { return };
    let registry = Registry::open(Path::new(&folder), NAME).expect("a registry");
    for seed in 10.. {
        let version = registry.publish(&draft(seed)).expect("a version");
        registry.set_alias(CHAMPION, &version, &by("writer")).expect("a move");
        registry.roll_back(&by("writer")).expect("a move");
        registry.remove_garbage(2, far_future(), &by("gc")).expect("a clean-up");
    }
}

#[test]
fn a_killed_writer_leaves_a_registry_that_is_read() {
    let models = tempfile::tempdir().expect("a folder");
    let registry = Registry::open_or_create(models.path(), NAME).expect("a registry");
    for seed in [1, 2] {
        let version = registry.publish(&draft(seed)).expect("a version");
        registry.set_alias(CHAMPION, &version, &by("train")).expect("a move");
    }
    let mut entries = registry.history().expect("a history").len();
    for repetition in 0..REPETITIONS as u64 {
        let mut writer = Command::new(std::env::current_exe().expect("this test"))
            .args(["registry::faults::writer_that_is_killed", "--exact"])
            .env(WRITER_FOLDER, models.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("a process");
        std::thread::sleep(Duration::from_millis(40 + 7 * repetition));
        writer.kill().expect("it is still writing");
        writer.wait().expect("its end");
        registry.load(CHAMPION).expect("the champion");
        registry.load(PREVIOUS).expect("the one before");
        for version in registry.versions().expect("versions") {
            registry.load(&version).expect("a whole version");
        }
        let history = registry.history().expect("a history");
        assert!(history.len() >= entries, "nothing is forgotten");
        entries = history.len();
    }
    assert!(entries > 2 + REPETITIONS, "the writer wrote: {entries} entries");
    // What the killed left aside is found, and nothing else is.
    registry.remove_garbage(2, far_future(), &by("gc")).expect("a clean-up");
    assert_eq!(registry.garbage(2, far_future()).expect("garbage"), Garbage::default());
    assert_eq!(staged_below(models.path()), Vec::<PathBuf>::new());
    registry.load(CHAMPION).expect("the champion");
}

pub(super) fn staged_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let staged = files.into_iter().filter(|path| path.to_string_lossy().contains('#'));
    staged.chain(folders.iter().flat_map(|folder| staged_below(folder))).collect()
}
