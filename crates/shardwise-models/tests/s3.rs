//! A registry in a real S3 store, written and read over the network by several clients at a time.
//!
//! Runs with `--features s3` when `SHARDWISE_S3` names an endpoint and a bucket that is there, `http://127.0.0.1:5000/bucket`;
//! the usual `AWS_…` variables give credentials. Any store will do that refuses to create what is there (`If-None-Match`). A
//! local one: `pip install 'moto[server]'`, `moto_server -p 5000`, `curl -X PUT http://127.0.0.1:5000/bucket`.

#![cfg(feature = "s3")]

use std::env;
use std::path::Path;
use std::process::Command;
use std::sync::Barrier;
use std::thread;

use shardwise_models::{
    AliasMove, BundleDraft, CHAMPION, PREVIOUS, Package, Registry, RegistryError, SigningKey, TrustPolicy, model_names,
};
use shardwise_types::Timestamp;
use url::Url;

const NAME: &str = "example";
const PLACE: &str = "SHARDWISE_TEST_S3_PLACE";
const PROMOTERS: u64 = 8;
const ROUNDS: usize = 12;

fn by(who: &str) -> AliasMove {
    let at = "2026-01-05T02:00:00Z".parse().expect("a time");
    let metrics = serde_json::json!({"rmse": 0.25});
    AliasMove { at, who: who.to_owned(), why: "it is better".to_owned(), metrics, ..AliasMove::default() }
}

fn far_future() -> Timestamp {
    "2200-01-01T00:00:00Z".parse().expect("a time")
}

fn draft(seed: u64) -> BundleDraft {
    BundleDraft { seed, ..BundleDraft::example() }
}

/// The store is told by environment variables, as users tell it; only a new process can be given them.
#[test]
fn registry_in_s3() {
    let Ok(store) = env::var("SHARDWISE_S3") else {
        eprintln!("skipped: SHARDWISE_S3 names no endpoint and bucket, such as http://127.0.0.1:5000/bucket");
        return;
    };
    let url = Url::parse(&store).expect("SHARDWISE_S3 is a URL");
    // Each run has a prefix of its own, for it counts what it finds.
    let unique = tempfile::tempdir().expect("a folder");
    let unique = unique.path().file_name().expect("a name").to_string_lossy().replace('.', "");
    let mut child = Command::new(env::current_exe().expect("this test"));
    child.args(["writers_and_readers_in_s3", "--exact", "--nocapture"]);
    child.env(PLACE, format!("s3:/{}/{unique}", url.path().trim_end_matches('/')));
    child.env("AWS_ENDPOINT", url.origin().ascii_serialization());
    child.env("AWS_ALLOW_HTTP", (url.scheme() == "http").to_string());
    for (name, value) in [("REGION", "us-east-1"), ("ACCESS_KEY_ID", "test"), ("SECRET_ACCESS_KEY", "test")] {
        let name = format!("AWS_{name}");
        if env::var_os(&name).is_none() {
            child.env(name, value);
        }
    }
    let output = child.output().expect("a process");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("rounds, one winner each"), "{said}");
    println!("{said}");
}

/// Not a test by itself: the process that the one above starts.
#[test]
fn writers_and_readers_in_s3() {
    let Ok(place) = env::var(PLACE) else { return };
    let place = Path::new(&place);
    assert_eq!(model_names(place).expect("names"), Vec::<String>::new());
    assert!(matches!(Registry::open(place, NAME), Err(RegistryError::NoSuchModel { .. })));

    let registry = Registry::open_or_create(place, NAME).expect("a registry");
    let versions: Vec<String> = (0..PROMOTERS).map(|seed| registry.publish(&draft(seed)).expect("a version")).collect();
    assert_eq!(registry.publish(&draft(0)).expect("the same version"), versions[0]);
    assert_eq!(model_names(place).expect("names"), [NAME]);
    let mut sorted = versions.clone();
    sorted.sort();
    assert_eq!(Registry::open(place, NAME).expect("a registry").versions().expect("versions"), sorted);

    let champion = one_promoter_wins_each_round(place, &versions);
    roll_back_and_forth(&registry, &versions, &champion);
    all_promoters_come_to_their_turn(place, &versions);
    signed_versions_travel(&registry, &versions[1]);
    clean_up(&registry, &versions);
    // Schemes may be spelled so.
    let loud = place.to_str().expect("a URL").replacen("s3://", "S3://", 1);
    Registry::open(Path::new(&loud), NAME).expect("a registry").load(CHAMPION).expect("the champion");
    let nowhere = Registry::open(Path::new("s3://no-such-bucket-anywhere/models"), NAME);
    assert!(matches!(nowhere, Err(RegistryError::Io { .. })), "{nowhere:?}");
}

/// Several clients, each with connections of its own, want their version in the place of the champion that all of them saw.
/// Returns the last champion.
fn one_promoter_wins_each_round(place: &Path, versions: &[String]) -> String {
    let registry = Registry::open(place, NAME).expect("a registry");
    let clients: Vec<_> = versions.iter().map(|_| Registry::open(place, NAME).expect("a registry")).collect();
    let mut champion: Option<String> = None;
    let mut wins = vec![0; versions.len()];
    for round in 0..ROUNDS {
        let barrier = Barrier::new(versions.len());
        let (seen, barrier) = (champion.as_deref(), &barrier);
        let outcomes: Vec<_> = thread::scope(|scope| {
            let promote = |client: &Registry, version: &str| {
                barrier.wait();
                client.set_alias_if(CHAMPION, version, seen, &by(version))
            };
            let pairs = clients.iter().zip(versions);
            let threads: Vec<_> =
                pairs.map(|(client, version)| scope.spawn(move || promote(client, version))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        let winners: Vec<_> = (0..versions.len()).filter(|place| matches!(outcomes[*place], Ok(true))).collect();
        assert_eq!(winners.len(), 1, "round {round}: {outcomes:?}");
        let lost = |outcome: &&Result<bool, RegistryError>| matches!(outcome, Err(RegistryError::Overtaken { .. }));
        // The champion himself has nothing to win.
        assert!(outcomes.iter().filter(lost).count() >= versions.len() - 2, "round {round}: {outcomes:?}");
        wins[winners[0]] += 1;
        champion = Some(versions[winners[0]].clone());
        assert_eq!(registry.alias(CHAMPION).expect("aliases"), champion);
        assert_eq!(registry.history().expect("the history").len(), round + 1);
    }
    println!("{ROUNDS} rounds, one winner each of {}; wins: {wins:?}", versions.len());
    champion.expect("a winner")
}

fn roll_back_and_forth(registry: &Registry, versions: &[String], champion: &String) {
    let before = registry.alias(PREVIOUS).expect("aliases").expect("the one before");
    assert!(before != *champion && versions.contains(&before));
    for (back, previous) in [(&before, champion), (champion, &before)] {
        assert_eq!(registry.roll_back(&by("operator")).expect("a move"), *back);
        assert_eq!(registry.alias(PREVIOUS).expect("aliases").as_ref(), Some(previous));
        assert_eq!(registry.load(CHAMPION).expect("the champion").version(), back);
    }
}

/// Without a condition nobody is refused, and each entry follows the one before.
fn all_promoters_come_to_their_turn(place: &Path, versions: &[String]) {
    let registry = Registry::open(place, NAME).expect("a registry");
    let before = registry.history().expect("the history").len();
    let moved = thread::scope(|scope| {
        let promote = |version: &str| {
            let client = Registry::open(place, NAME).expect("a registry");
            client.set_alias(CHAMPION, version, &by("stubborn")).expect("a turn")
        };
        let threads: Vec<_> = versions.iter().map(|version| scope.spawn(move || promote(version))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).filter(|moved| *moved).count()
    });
    let history = registry.history().expect("the history");
    assert_eq!(history.len(), before + moved, "each move is one entry, and no entry is lost");
    assert!(moved >= versions.len() - 1, "the champion may come first: {moved}");
    for pair in history.windows(2) {
        assert_eq!(pair[1].from, pair[0].to);
        assert_eq!(pair[1].aliases.get(PREVIOUS), pair[0].to.as_ref());
    }
    println!("{moved} moves of {} at a time, all in the history of {}", versions.len(), history.len());
}

fn signed_versions_travel(registry: &Registry, version: &str) {
    let key = SigningKey::from_seed([3; 32]);
    let policy = TrustPolicy { keys: vec![key.public_key()], ..TrustPolicy::default() };
    assert!(matches!(registry.load_trusted(version, &policy), Err(RegistryError::Refused(_))), "not signed yet");
    registry.sign(version, &key, by("").at).expect("a signature");
    registry.load_trusted(version, &policy).expect("a trusted version");
    let tar = registry.package(version).expect("a package").to_tar().expect("a tar");
    let folder = tempfile::tempdir().expect("a folder");
    let elsewhere = Registry::open_or_create(folder.path(), NAME).expect("a registry");
    let package = Package::from_tar(tar.as_slice()).expect("a package");
    assert_eq!(elsewhere.publish_package(&package).expect("a version"), version);
    elsewhere.load_trusted(version, &policy).expect("a trusted version");
}

fn clean_up(registry: &Registry, versions: &[String]) {
    let named = registry.aliases().expect("aliases");
    let found = registry.garbage(1, far_future()).expect("garbage");
    assert_eq!(found.versions.len(), versions.len() - 2, "all but the champion and the one before");
    assert!(found.unfinished.is_empty() && found.staged.is_empty());
    let clean_up = AliasMove { at: far_future(), ..by("gc") };
    assert_eq!(registry.remove_garbage(1, far_future(), &clean_up).expect("removed"), found);
    let mut left: Vec<_> = named.values().cloned().collect();
    left.sort();
    assert_eq!(registry.versions().expect("versions"), left);
    let late = registry.set_alias(CHAMPION, &found.versions[0], &by("operator"));
    assert!(matches!(late, Err(RegistryError::NoSuchVersion { .. })), "{late:?}");
}
