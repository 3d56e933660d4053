//! What killed writers leave aside: nobody reads it, and a clean-up finds it.

use std::fs;

use super::tests::{NAME, by, draft, far_future, folder_of, registry};
use super::*;
use crate::trust::TrustPolicy;

/// Files as a killed writer leaves them, beside what is there and where nothing else is.
fn leave_staged(models: &tempfile::TempDir, version: &str) -> Vec<String> {
    let [log, versions] = [LOG_FOLDER, VERSIONS_FOLDER];
    let mut staged = vec![
        format!("{log}/0000000002.json#1"),
        format!("{log}/0000000009.json#12"),
        format!("{versions}/00000000000000ff/exec.forest#1"),
        format!("{versions}/{version}/exec.forest#2"),
        format!("{versions}/{version}/{MANIFEST_FILE}#1"),
        format!("{versions}/{version}/{SIGNATURES_FOLDER}/0123.json#1"),
    ];
    staged.sort();
    for name in &staged {
        let file = models.path().join(NAME).join(name);
        fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        fs::write(file, b"half of so").expect("half a file");
    }
    staged
}

#[test]
fn what_a_killed_writer_staged_is_not_read() {
    let (models, registry) = registry();
    let [one, two] = [1, 2].map(|seed| registry.publish(&draft(seed)).expect("a version"));
    registry.set_alias(CHAMPION, &one, &by("train")).expect("a move");
    let (aliases, history) = (registry.aliases().expect("aliases"), registry.history().expect("the history"));
    leave_staged(&models, &one);
    leave_staged(&models, &two);
    let mut versions = vec![one.clone(), two.clone()];
    versions.sort();
    assert_eq!(registry.versions().expect("versions"), versions);
    assert_eq!(registry.aliases().expect("aliases"), aliases);
    assert_eq!(registry.history().expect("the history"), history);
    assert_eq!(registry.resolve(CHAMPION).expect("the champion"), one);
    registry.load_trusted(&one, &TrustPolicy::default()).expect("a whole version");
    assert!(registry.signatures(&one).expect("signatures").is_empty());
    assert!(registry.package(&one).expect("a package").signatures.is_empty());
    assert_eq!(registry.garbage(1, far_future()).expect("garbage").unfinished, Vec::<String>::new());
    assert_eq!(model_names(models.path()).expect("names"), [NAME]);
    // The next entry is the second: nothing staged has taken its number, nor one after it.
    registry.set_alias(CHAMPION, &two, &by("train")).expect("a move");
    assert!(models.path().join(NAME).join(LOG_FOLDER).join("0000000002.json").exists());
    // A model that was never more than staged is none.
    let other = models.path().join("other").join(VERSIONS_FOLDER).join(&one);
    fs::create_dir_all(&other).expect("a folder");
    fs::write(other.join("exec.forest#1"), b"half").expect("half a file");
    assert_eq!(model_names(models.path()).expect("names"), [NAME]);
}

#[test]
fn clean_up_finds_what_killed_writers_staged_and_spares_what_is_new() {
    let (models, registry) = registry();
    let version = registry.publish(&draft(1)).expect("a version");
    registry.set_alias(CHAMPION, &version, &by("train")).expect("a move");
    let mut staged = leave_staged(&models, &version);
    // Names like these are nobody's but the operator's.
    let notes = ["notes#", "notes#1a", "notes#1#2"].map(|name| folder_of(&models, &version).join(name));
    notes.iter().for_each(|note| fs::write(note, "mine").expect("a file"));
    let file = |name: &String| models.path().join(NAME).join(name);

    let spared = registry.remove_garbage(1, by("").at, &by("gc")).expect("nothing");
    assert_eq!(spared, Garbage::default(), "somebody may be writing them");
    // All but one are made older than the limit.
    let old = "2025-12-31T00:00:00Z".parse::<Timestamp>().expect("a time").nanos();
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(old.unsigned_abs());
    let new = staged.remove(3);
    for name in &staged {
        let opened = fs::File::options().write(true).open(file(name)).expect("a file");
        opened.set_modified(old).expect("a time");
    }
    let expected = Garbage { staged: staged.clone(), ..Garbage::default() };
    assert_eq!(registry.garbage(1, by("").at).expect("garbage"), expected);
    assert!(staged.iter().all(|name| file(name).exists()), "finding removes nothing");
    assert_eq!(registry.remove_garbage(1, by("").at, &by("gc")).expect("removed"), expected);
    assert!(!staged.iter().any(|name| file(name).exists()) && file(&new).exists());
    assert!(!folder_of(&models, "00000000000000ff").exists(), "an empty folder goes, too");
    assert!(notes.iter().all(|note| note.exists()));
    registry.load(CHAMPION).expect("what is named stays whole");
    assert_eq!(registry.history().expect("the history").len(), 1, "no version was removed, so nothing is said");
    assert_eq!(registry.remove_garbage(1, by("").at, &by("gc")).expect("nothing"), Garbage::default());

    // The one that was new when it was looked for, and the name of one that was removed, taken again.
    let [versions, version] = [VERSIONS_FOLDER, &version];
    let key = format!("{NAME}/{versions}/{version}");
    let name = new.rsplit('/').next().expect("a name");
    registry.store.delete_staged(&key, name, by("").at).expect("nothing");
    assert!(file(&new).exists(), "its age is looked at once more");
    registry.store.delete_staged(&key, name, far_future()).expect("removed");
    registry.store.delete_staged(&key, name, far_future()).expect("removed by somebody else");
    assert!(!file(&new).exists());
    registry.store.delete_staged(&key, MANIFEST_FILE, far_future()).expect("nothing");
    registry.load(CHAMPION).expect("only what is staged is removed");
}
