//! What a registry promises when nothing goes wrong but its input.

use std::fs;
use std::sync::Barrier;

use object_store::memory::InMemory;

use super::*;
use crate::bundle::{BundleError, ModelBundle};
use crate::trust::{Refusal, TrustPolicy};

pub(super) const NAME: &str = "example";

pub(super) fn draft(seed: u64) -> BundleDraft {
    BundleDraft { seed, ..BundleDraft::example() }
}

pub(super) fn registry() -> (tempfile::TempDir, Registry) {
    let models = tempfile::tempdir().expect("a folder");
    let registry = Registry::open_or_create(models.path(), NAME).expect("a registry");
    (models, registry)
}

pub(super) fn by(who: &str) -> AliasMove {
    let at = "2026-01-05T02:00:00Z".parse().expect("a time");
    let metrics = serde_json::json!({"rmse": 0.25, "p99_ms": 41.5});
    AliasMove { at, who: who.to_owned(), why: "it is better".to_owned(), metrics, ..AliasMove::default() }
}

/// After whatever these tests write.
pub(super) fn far_future() -> Timestamp {
    "2200-01-01T00:00:00Z".parse().expect("a time")
}

pub(super) fn folder_of(models: &tempfile::TempDir, version: &str) -> PathBuf {
    models.path().join(NAME).join(VERSIONS_FOLDER).join(version)
}

#[test]
fn alias_moves_survive() {
    let (models, registry) = registry();
    let [one, two] = [1, 2].map(|seed| registry.publish(&draft(seed)).expect("a version"));
    assert!(registry.set_alias(CHAMPION, &one, &by("train")).expect("a move"));
    assert!(registry.set_alias(CHAMPION, &two, &by("nightly")).expect("a move"));
    assert!(!registry.set_alias(CHAMPION, &two, &by("nightly")).expect("no move"));
    let reopened = Registry::open(models.path(), NAME).expect("the same registry");
    assert_eq!(reopened.load(CHAMPION).expect("the champion").version(), two);
    let history = reopened.history().expect("the history");
    let moves: Vec<_> =
        history.iter().map(|entry| (entry.who.as_str(), entry.from.as_deref(), entry.to.as_deref())).collect();
    assert_eq!(moves, [("train", None, Some(one.as_str())), ("nightly", Some(one.as_str()), Some(two.as_str()))]);
    assert_eq!((history[1].at, &history[1].metrics), (by("").at, &by("").metrics));
    ModelBundle::load(&folder_of(&models, &two)).expect("a folder like any bundle's");
}

#[test]
fn roll_back_is_one_more_move() {
    let (_models, registry) = registry();
    assert!(matches!(registry.roll_back(&by("operator")), Err(RegistryError::NoSuchAlias { .. })));
    let [one, two] = [1, 2].map(|seed| registry.publish(&draft(seed)).expect("a version"));
    for version in [&one, &two] {
        registry.set_alias(CHAMPION, version, &by("operator")).expect("a move");
    }
    for (champion, previous) in [(&one, &two), (&two, &one)] {
        assert_eq!(registry.roll_back(&by("operator")).expect("a move"), *champion);
        assert_eq!(registry.alias(CHAMPION).expect("aliases").as_ref(), Some(champion));
        assert_eq!(registry.alias(PREVIOUS).expect("aliases").as_ref(), Some(previous));
    }
    assert_eq!(registry.history().expect("the history").len(), 4);
}

#[test]
fn what_was_decided_against_one_champion_does_not_replace_another() {
    let (_models, registry) = registry();
    let [one, two] = [1, 2].map(|seed| registry.publish(&draft(seed)).expect("a version"));
    assert!(registry.set_alias_if(CHAMPION, &one, None, &by("nightly")).expect("a move"));
    let late = registry.set_alias_if(CHAMPION, &two, None, &by("nightly"));
    assert!(matches!(late, Err(RegistryError::Overtaken { found: Some(found), .. }) if found == one));
    assert!(registry.set_alias_if(CHAMPION, &two, Some(&one), &by("nightly")).expect("a move"));
}

#[test]
fn versions_are_found_by_alias_digest_and_prefix() {
    let (_models, registry) = registry();
    let version = registry.publish(&draft(1)).expect("a version");
    registry.set_alias(CHALLENGER, &version[..4], &by("train")).expect("a move");
    let digest = registry.load(&version).expect("a bundle").digest().to_owned();
    for wanted in [CHALLENGER, &version, &version[..4], &version[..15], &digest] {
        assert_eq!(registry.resolve(wanted).expect(wanted), version);
    }
}

#[test]
fn prefix_of_several_versions_is_refused() {
    let (models, registry) = registry();
    for version in ["abcd000000000000", "abcd111111111111"] {
        fs::create_dir_all(folder_of(&models, version)).expect("a folder");
        fs::write(folder_of(&models, version).join(MANIFEST_FILE), "{}").expect("a file");
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
    assert_eq!(model_names(models.path()).expect("names"), [NAME]);
}

#[test]
fn alias_of_a_version_that_is_gone_is_said() {
    let (models, registry) = registry();
    let version = registry.publish(&draft(1)).expect("a version");
    registry.set_alias(CHAMPION, &version, &by("train")).expect("a move");
    fs::remove_dir_all(folder_of(&models, &version)).expect("gone");
    assert!(matches!(registry.load(CHAMPION), Err(RegistryError::NoSuchVersion { .. })));
}

#[test]
fn publishing_again_changes_nothing() {
    let (models, registry) = registry();
    let version = registry.publish(&draft(1)).expect("a version");
    let manifest = folder_of(&models, &version).join(MANIFEST_FILE);
    let written_at = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).expect("a time");
    let before = written_at(&manifest);
    assert_eq!(registry.publish(&draft(1)).expect("the same version"), version);
    assert_eq!(written_at(&manifest), before);
    assert_eq!(registry.versions().expect("versions"), [version]);
}

#[test]
fn damaged_version_is_not_promoted_and_publishing_again_makes_it_whole() {
    let (models, registry) = registry();
    let version = registry.publish(&draft(1)).expect("a version");
    fs::remove_file(folder_of(&models, &version).join("exec.forest")).expect("damage");
    let refused = registry.set_alias(CHAMPION, &version, &by("train"));
    assert!(matches!(refused, Err(RegistryError::Bundle(BundleError::Missing { .. }))));
    assert_eq!(registry.alias(CHAMPION).expect("no alias"), None);
    registry.publish(&draft(1)).expect("the same version");
    assert!(registry.set_alias(CHAMPION, &version, &by("train")).expect("a move"));
}

#[test]
fn changed_manifest_under_an_old_name_is_refused() {
    let (models, registry) = registry();
    let version = registry.publish(&draft(1)).expect("a version");
    let manifest = folder_of(&models, &version).join(MANIFEST_FILE);
    let other = draft(2).package().expect("a package").manifest;
    fs::write(manifest, other).expect("a changed file");
    assert!(matches!(registry.load(&version), Err(RegistryError::Bundle(BundleError::Digest { .. }))));
}

#[test]
fn unfinished_version_is_not_seen() {
    let (models, registry) = registry();
    let version = draft(1).bundle().expect("a bundle").version().to_owned();
    fs::create_dir_all(folder_of(&models, &version)).expect("a folder");
    fs::write(folder_of(&models, &version).join("exec.forest"), b"half").expect("half a file");
    assert_eq!(registry.versions().expect("versions"), Vec::<String>::new());
    assert!(registry.resolve(&version).is_err());
    let garbage = registry.garbage(1, far_future()).expect("garbage");
    assert_eq!((garbage.versions, garbage.unfinished), (vec![], vec![version.clone()]));
    assert_eq!(registry.publish(&draft(1)).expect("a version"), version);
    registry.load(&version).expect("a whole version");
}

#[test]
fn entry_that_was_cut_off_never_happened_and_others_are_refused() {
    let (models, registry) = registry();
    let [one, two] = [1, 2].map(|seed| registry.publish(&draft(seed)).expect("a version"));
    registry.set_alias(CHAMPION, &one, &by("train")).expect("a move");
    let entry = |number: u64| models.path().join(NAME).join(LOG_FOLDER).join(format!("{number:010}.json"));
    fs::write(entry(2), r#"{"at":"2026-01-06T02:0"#).expect("a torn entry");
    assert_eq!(registry.history().expect("whole entries").len(), 1);
    registry.set_alias(CHAMPION, &two, &by("nightly")).expect("a move");
    assert_eq!(registry.history().expect("whole entries").len(), 2);
    assert!(entry(3).exists(), "no entry is written twice");
    for content in ["\n", "{}\n", "{\"aliases\":{\"champion\":\"../../x\"}}\n", "\u{0}\n"] {
        fs::write(entry(3), content).expect("a file");
        assert!(matches!(registry.load(CHAMPION), Err(RegistryError::BadHistory { .. })), "{content}");
    }
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let (models, registry) = registry();
    for name in ["", "..", "a/b", "Ex", "a b", "ab.c", "beef", &"x".repeat(65)] {
        assert!(matches!(Registry::open(models.path(), name), Err(RegistryError::BadName { .. })), "{name}");
        assert!(matches!(registry.set_alias(name, "0123", &by("x")), Err(RegistryError::BadName { .. })), "{name}");
    }
    assert!(matches!(registry.resolve("../log"), Err(RegistryError::NoSuchVersion { .. })));
}

#[test]
fn only_own_versions_are_published() {
    let (models, _) = registry();
    let other = Registry::open_or_create(models.path(), "other").expect("a registry");
    assert!(matches!(other.publish(&draft(1)), Err(RegistryError::OtherModel { .. })));
}

#[test]
fn urls_name_the_same_places_as_folders() {
    let (models, registry) = registry();
    let version = registry.publish(&draft(1)).expect("a version");
    let url = PathBuf::from(format!("file://{}", models.path().display()));
    assert_eq!(Registry::open(&url, NAME).expect("a registry").versions().expect("versions"), [version.as_str()]);
    let memory = Path::new("memory:///some/prefix");
    assert!(matches!(Registry::open(memory, NAME), Err(RegistryError::NoSuchModel { .. })));
    Registry::open_or_create(memory, NAME).expect("a registry").publish(&draft(1)).expect("a version");
    assert_eq!(Registry::open(memory, NAME).expect("a registry").versions().expect("versions"), [version]);
    assert_eq!(model_names(memory).expect("names"), [NAME]);
    for wrong in ["gopher://x/y", "://", "file://relative/x"] {
        assert!(matches!(Registry::open(Path::new(wrong), NAME), Err(RegistryError::Io { .. })), "{wrong}");
    }
}

#[test]
fn signatures_travel_with_a_version_and_policies_read_them() {
    let (_models, registry) = registry();
    let key = SigningKey::from_seed([3; 32]);
    let policy = TrustPolicy { keys: vec![key.public_key()], ..TrustPolicy::default() };
    let version = registry.publish(&draft(1)).expect("a version");
    let refused = registry.load_trusted(&version, &policy);
    assert!(matches!(refused, Err(RegistryError::Refused(Refusal::Unsigned { .. }))));
    registry.sign(&version, &key, by("").at).expect("a signature");
    registry.load_trusted(&version, &policy).expect("a trusted version");
    assert_eq!(registry.signatures(&version).expect("signatures")[0].key, key.public_key().to_string());
    let tar = registry.package(&version).expect("a package").to_tar().expect("a tar");
    let elsewhere = Registry::in_store(Arc::new(InMemory::new()), "elsewhere", NAME).expect("a registry");
    let package = Package::from_tar(tar.as_slice()).expect("a package");
    assert_eq!(elsewhere.publish_package(&package).expect("a version"), version);
    elsewhere.load_trusted(&version, &policy).expect("a trusted version");
}

#[test]
fn clean_up_spares_what_is_named_recent_or_new() {
    let (models, registry) = registry();
    let versions: Vec<String> = (0..6).map(|seed| registry.publish(&draft(seed)).expect("a version")).collect();
    for version in &versions[..4] {
        registry.set_alias(CHAMPION, version, &by("nightly")).expect("a move");
    }
    let at = |recent| {
        let mut found = registry.garbage(recent, far_future()).expect("garbage").versions;
        found.sort_by_key(|version| versions.iter().position(|other| other == version));
        found
    };
    // Entries 3 and 4 name the versions 1, 2 and 3.
    assert_eq!(at(2), [versions[0].clone(), versions[4].clone(), versions[5].clone()]);
    assert_eq!(at(10), versions[4..]);
    assert_eq!(registry.garbage(2, by("").at).expect("garbage"), Garbage::default());
    let clean_up = AliasMove { at: far_future(), ..by("gc") };
    assert_eq!(registry.remove_garbage(10, far_future(), &clean_up).expect("removed").versions.len(), 2);
    assert_eq!(registry.versions().expect("versions").len(), 4);
    assert!(!folder_of(&models, &versions[4]).exists());
    assert_eq!(registry.alias(CHAMPION).expect("aliases").as_ref(), Some(&versions[3]));
    assert_eq!(registry.history().expect("history").last().expect("an entry").removed.len(), 2);
    assert!(registry.remove_garbage(10, far_future(), &clean_up).expect("nothing").versions.is_empty());
    assert_eq!(registry.history().expect("history").len(), 5);
    // Seen before the removal began, promoted after: refused.
    registry.publish(&draft(4)).expect("a version");
    let late = registry.set_alias(CHAMPION, &versions[4], &by("operator"));
    assert!(matches!(late, Err(RegistryError::Removed { .. })), "{late:?}");
}

#[test]
fn judgements_are_kept_with_a_move_or_alone() {
    let (_models, registry) = registry();
    let [one, two] = [1, 2].map(|seed| registry.publish(&draft(seed)).expect("a version"));
    registry.set_alias(CHAMPION, &one, &by("train")).expect("a move");
    assert_eq!(registry.last_judgement(&two).expect("the log"), None);
    let refused = Judgement { version: two.clone(), may_go_live: false, reasons: vec!["p99 is above.".to_owned()] };
    let passed = Judgement { may_go_live: true, reasons: Vec::new(), ..refused.clone() };
    let other = Judgement { version: one.clone(), ..refused.clone() };
    let judged = |judgement: &Judgement| AliasMove { judgement: Some(judgement.clone()), ..by("nightly") };
    for (judgement, is_new) in [(&passed, true), (&passed, false), (&refused, true), (&other, true)] {
        assert_eq!(registry.record_judgement(&judged(judgement)).expect("an entry"), is_new);
    }
    assert_eq!(registry.last_judgement(&two).expect("the log").as_ref(), Some(&refused));
    assert_eq!(registry.alias(CHAMPION).expect("aliases").as_ref(), Some(&one));
    // Only what moves an alias counts among the recent entries.
    assert_eq!(registry.garbage(1, far_future()).expect("garbage").versions, std::slice::from_ref(&two));
    let forced = AliasMove { forced: refused.reasons.clone(), ..by("operator") };
    assert!(registry.set_alias(CHAMPION, &two, &forced).expect("a move"));
    let history = registry.history().expect("the history");
    let last = &history[4];
    assert_eq!((last.to.as_ref(), &last.forced, &last.judgement), (Some(&two), &refused.reasons, &None));
    assert!(history[..4].iter().all(|entry| entry.forced.is_empty()));
    registry.set_alias(CHAMPION, &one, &by("operator")).expect("a move");
    assert!(registry.set_alias(CHAMPION, &two, &judged(&passed)).expect("a move"));
    assert_eq!(registry.last_judgement(&two).expect("the log"), Some(passed));
    assert_eq!(
        registry.garbage(1, far_future()).expect("garbage").versions,
        [] as [&str; 0],
        "a move with a judgement counts"
    );
}

/// In each of several rounds 20 promoters want their version instead of the champion that all of them saw.
fn promoters(registry: &Registry, rounds: usize) {
    let versions: Vec<String> = (0..20).map(|seed| registry.publish(&draft(seed)).expect("a version")).collect();
    let mut champion: Option<String> = None;
    for round in 0..rounds {
        let barrier = Barrier::new(versions.len());
        let (seen, barrier) = (champion.as_deref(), &barrier);
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let promote = |version: &'_ str| {
                barrier.wait();
                registry.set_alias_if(CHAMPION, version, seen, &by(version))
            };
            let threads: Vec<_> = versions.iter().map(|version| scope.spawn(move || promote(version))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        let winners: Vec<_> = (0..20).filter(|place| matches!(outcomes[*place], Ok(true))).collect();
        assert_eq!(winners.len(), 1, "round {round}: {outcomes:?}");
        let lost = |outcome: &&Result<bool, RegistryError>| matches!(outcome, Err(RegistryError::Overtaken { .. }));
        assert!(outcomes.iter().filter(lost).count() >= 18, "round {round}: {outcomes:?}");
        champion = Some(versions[winners[0]].clone());
        assert_eq!(registry.alias(CHAMPION).expect("aliases"), champion);
    }
    // Without a condition all of them come to their turn, one after the other.
    std::thread::scope(|scope| {
        for version in &versions {
            scope.spawn(move || registry.set_alias(CHAMPION, version, &by("stubborn")).expect("a turn"));
        }
    });
    let history = registry.history().expect("the history");
    assert!(history.len() >= rounds + 19);
    for pair in history.windows(2) {
        assert_eq!(pair[1].from, pair[0].to);
        assert_eq!(pair[1].aliases.get(PREVIOUS), pair[0].to.as_ref());
    }
}

#[test]
fn of_twenty_promoters_one_wins_each_round() {
    let memory = Registry::in_store(Arc::new(InMemory::new()), "memory", NAME).expect("a registry");
    promoters(&memory, 20);
    let (_models, folder) = registry();
    promoters(&folder, 20);
}
