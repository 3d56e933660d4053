//! What a registry in a folder promises when the system keeps only part of what is written.
//!
//! A limit on the size of files does to one process what a full disk does to all: the write that crosses it is short, and
//! the next one fails. A disk is filled, too, when `SHARDWISE_SMALL_DISK` names a folder on one that nobody else uses and
//! that is small, such as `mount -t tmpfs -o size=256k none FOLDER` makes.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::io::Write;
use std::process::Command;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::faults::{Action, for_each_action, prepare, staged_below};
use super::*;

const NAME: &str = "example";
const WITHOUT_ROOM: &str = "SHARDWISE_TEST_WITHOUT_ROOM";

/// Lets no file of this process grow beyond so many bytes; `None` gives it its room back.
fn limit_files(bytes: Option<u64>) {
    let (_, most) = getrlimit(Resource::RLIMIT_FSIZE).expect("the limit");
    setrlimit(Resource::RLIMIT_FSIZE, bytes.unwrap_or(most), most).expect("a limit below the greatest");
}

/// Sizes of all files below a folder.
fn files_below(folder: &Path, into: &mut BTreeMap<PathBuf, u64>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        let metadata = entry.metadata().expect("what it is");
        if metadata.is_dir() {
            files_below(&entry.path(), into);
        } else {
            into.insert(entry.path(), metadata.len());
        }
    }
}

/// A registry like another one, in a folder of its own.
fn copy_of(models: &Path, within: &Path) -> (tempfile::TempDir, Registry) {
    let copy = tempfile::tempdir_in(within).expect("a folder");
    let mut files = BTreeMap::new();
    files_below(models, &mut files);
    for file in files.keys() {
        let to = copy.path().join(file.strip_prefix(models).expect("below it"));
        fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
        fs::copy(file, to).expect("a copy");
    }
    let registry = Registry::open(copy.path(), NAME).expect("a registry");
    (copy, registry)
}

/// Sizes of the files that an action writes.
fn sizes_written(models: &Path, action: Action<'_>) -> BTreeSet<u64> {
    let (copy, registry) = copy_of(models, &std::env::temp_dir());
    let [mut before, mut after] = [(); 2].map(|()| BTreeMap::new());
    files_below(copy.path(), &mut before);
    action(&registry).expect("there is room");
    files_below(copy.path(), &mut after);
    after.into_iter().filter(|(file, _)| !before.contains_key(file)).map(|(_, bytes)| bytes).collect()
}

/// What anybody who reads must find, whatever happened to the writer. Returns the aliases.
fn read_all(models: &Path, context: &str) -> BTreeMap<String, String> {
    let registry = Registry::open(models, NAME).expect(context);
    for wanted in [CHAMPION, PREVIOUS] {
        registry.load(wanted).expect(context);
    }
    for version in registry.versions().expect(context) {
        registry.load(&version).expect(context);
    }
    let aliases = registry.aliases().expect(context);
    let history = registry.history().expect(context);
    assert_eq!(history.last().map(|entry| &entry.aliases), Some(&aliases), "{context}");
    assert_eq!(staged_below(models), Vec::<PathBuf>::new(), "{context}");
    aliases
}

/// An error and those behind it say where, why and what to do.
fn check_said(error: &RegistryError, place: &Path, why: &str, context: &str) {
    let behind = std::iter::successors(Some(error as &dyn Error), |&error| error.source());
    let said: String = behind.map(|error| format!("{error}\n")).collect();
    for part in [&place.display().to_string(), "make room and do it again", why] {
        assert!(said.contains(part), "{context}: {said}");
    }
}

/// Lets an action run with room for files of each size that makes a difference. Returns how often it was refused.
fn run_out_of_room(what: &str, models: &Path, action: Action<'_>) -> usize {
    let before = read_all(models, what);
    let sizes = sizes_written(models, action);
    let most = *sizes.last().expect("something is written");
    let around = sizes.iter().flat_map(|bytes| [bytes / 3, bytes / 2, bytes - 1, *bytes]);
    let limits: BTreeSet<u64> = around.chain([0, 1]).collect();
    let mut refused = 0;
    for limit in limits {
        let context = format!("{what}, files of at most {limit} bytes of {sizes:?}");
        let (copy, registry) = copy_of(models, &std::env::temp_dir());
        limit_files(Some(limit));
        let outcome = action(&registry);
        // Who reads needs no room.
        let left = read_all(copy.path(), &context);
        limit_files(None);
        match &outcome {
            Ok(()) => assert!(limit >= most, "{context}: said to be done"),
            Err(error) => {
                refused += 1;
                assert!(limit < most, "{context}: {error}");
                assert_eq!(left, before, "{context}");
                check_said(error, copy.path(), "File too large", &context);
            }
        }
        action(&registry).unwrap_or_else(|error| panic!("{context}, with room again: {error}"));
        read_all(copy.path(), &context);
        let mut written = BTreeMap::new();
        files_below(copy.path(), &mut written);
        assert!(sizes.iter().all(|bytes| written.values().any(|found| found == bytes)), "{context}: {written:?}");
    }
    refused
}

/// Not a test by itself: the process that the next test starts, because the limit is one for the whole process.
#[test]
fn writer_without_room() {
    if std::env::var_os(WITHOUT_ROOM).is_none() {
        return;
    }
    let models = tempfile::tempdir().expect("a folder");
    limit_files(Some(40));
    let mut file = fs::File::create_new(models.path().join("probe")).expect("a file");
    assert_eq!(file.write(&[0; 100]).expect("a short write"), 40, "the limit cuts writes short");
    assert_eq!(file.write(&[0; 100]).expect_err("no room").kind(), io::ErrorKind::FileTooLarge);
    limit_files(None);
    fs::remove_file(models.path().join("probe")).expect("gone");
    prepare(&Registry::open_or_create(models.path(), NAME).expect("a registry"));
    for_each_action(|what, action| {
        println!("{what} was refused {} times", run_out_of_room(what, models.path(), action));
    });
}

#[test]
fn without_room_writers_are_refused_and_readers_see_what_was() {
    // The signal that comes with the error would end the process. What a shell ignores is ignored by what it becomes.
    let child = Command::new("sh")
        .args(["-c", r#"trap "" XFSZ; exec "$0" "$@""#])
        .arg(std::env::current_exe().expect("this test"))
        .args(["registry::no_room::writer_without_room", "--exact", "--nocapture"])
        .env(WITHOUT_ROOM, "yes")
        .output()
        .expect("a process");
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{said}{}", String::from_utf8_lossy(&child.stderr));
    let refused = |line: &str| line.strip_suffix(" times")?.rsplit(' ').next()?.parse::<usize>().ok();
    let refused: Vec<_> = said.lines().filter_map(refused).collect();
    assert!(refused.len() == 6 && refused.iter().all(|times| *times >= 4), "{said}");
}

const PAGE: usize = 4096;
/// Not more than a block of any disk.
const PIECE: usize = 512;
/// A disk that holds more than that is not filled.
const MOST_BYTES: u64 = 1 << 24;

/// Fills a disk but for so many pages. Returns the folder of what fills it.
fn fill(disk: &Path, free: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir_in(disk).expect("a folder");
    let mut file = fs::File::create_new(folder.path().join("large")).expect("a file");
    let size = |file: &fs::File| file.metadata().expect("its size").len();
    while file.write_all(&[1; PIECE]).is_ok() {
        assert!(size(&file) < MOST_BYTES, "{} is no small disk", disk.display());
    }
    file.sync_all().expect("it is on the disk");
    // Where a large file finds no room, small ones may.
    for number in 0.. {
        let written = fs::File::create_new(folder.path().join(format!("small-{number}")))
            .and_then(|mut small| small.write_all(&[1; PIECE]).and_then(|()| small.sync_all()));
        if written.is_err() {
            break;
        }
    }
    file.set_len(size(&file).saturating_sub((free * PAGE) as u64)).expect("a shorter file");
    file.sync_all().expect("it is on the disk");
    folder
}

/// Lets an action run with ever more free pages until it is done. Returns how often it was refused.
fn fill_the_disk(what: &str, models: &Path, disk: &Path, action: Action<'_>) -> usize {
    let before = read_all(models, what);
    for free in 0..MOST_BYTES as usize / PAGE {
        let context = format!("{what}, {free} pages");
        let (copy, registry) = copy_of(models, disk);
        let filler = fill(disk, free);
        let outcome = action(&registry);
        let left = read_all(copy.path(), &context);
        filler.close().expect("room again");
        if let Err(error) = &outcome {
            assert_eq!(left, before, "{context}");
            check_said(error, copy.path(), "No space left on device", &context);
        }
        action(&registry).unwrap_or_else(|error| panic!("{context}, with room again: {error}"));
        read_all(copy.path(), &context);
        if outcome.is_ok() {
            return free;
        }
    }
    panic!("{what} needs more than the disk has");
}

#[test]
fn on_a_full_disk_writers_are_refused_and_readers_see_what_was() {
    let Some(disk) = std::env::var_os("SHARDWISE_SMALL_DISK") else {
        eprintln!("skipped: SHARDWISE_SMALL_DISK names no folder on a small disk that may be filled");
        return;
    };
    let models = tempfile::tempdir().expect("a folder");
    prepare(&Registry::open_or_create(models.path(), NAME).expect("a registry"));
    for_each_action(|what, action| {
        let refused = fill_the_disk(what, models.path(), Path::new(&disk), action);
        assert!(refused > 0, "{what} writes");
        println!("{what} was refused {refused} times on a full disk");
    });
}
