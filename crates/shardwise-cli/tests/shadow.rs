//! The example router under a champion and a challenger, with its records in a history on disk. Here, because no router may
//! depend on what writes Parquet.

use std::collections::BTreeMap;
use std::path::Path;

use shardwise_datasets::{History, HistoryWriter};
use shardwise_models::{AliasMove, BundleDraft, CHALLENGER, CHAMPION, Registry};
use shardwise_types::{DecisionRecord, FleetSnapshot, HistoryRecord, OutcomeRecord, ShadowRecord};

#[path = "../../shardwise-inference/examples/router.rs"]
mod router;

/// Not more than come before the sample's fleet has been silent for too long.
const REQUESTS: u64 = 30;

/// What was kept of a decision: at most one of each.
#[derive(Default)]
struct Joined {
    decision: Option<Box<DecisionRecord>>,
    shadow: Option<Box<ShadowRecord>>,
    outcome: Option<OutcomeRecord>,
}

/// A registry with the sample's champion and, if asked for, another model as challenger; returns both versions.
fn registry(models: &Path, with_challenger: bool) -> [String; 2] {
    let sample = Registry::open(&root().join("models"), "default").expect("the sample's registry");
    let registry = Registry::open_or_create(models, "default").expect("a new registry");
    let champion = registry.publish_package(&sample.package(CHAMPION).expect("a champion")).expect("published");
    // Other heads over the same table, which knows the functions and shards of the sample.
    let service_table = sample.load(CHAMPION).expect("a sound champion").service_table().as_ref().clone();
    let challenger = BundleDraft { name: "default".to_owned(), service_table, ..BundleDraft::example() };
    let challenger = registry.publish(&challenger).expect("published");
    let by = AliasMove {
        at: "2026-01-05T12:00:00Z".parse().expect("a time"),
        who: "test".to_owned(),
        why: "To be followed.".to_owned(),
        ..AliasMove::default()
    };
    registry.set_alias(CHAMPION, &champion, &by).expect("an alias");
    if with_challenger {
        registry.set_alias(CHALLENGER, &challenger, &by).expect("an alias");
    }
    [champion, challenger]
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Runs the router with a history behind it, and reads that back by decision.
fn routed(folder: &Path) -> (History, BTreeMap<u64, Joined>) {
    let fleet = std::fs::read_to_string(root().join("data/sample-fleet.json")).expect("the sample's fleet");
    let network = FleetSnapshot::from_json(&fleet).expect("a fleet").network;
    let dir = folder.join("history");
    let mut writer = HistoryWriter::create(&dir, &network, None).expect("a new history");
    let mut keep = |record: &HistoryRecord| writer.record(record.clone()).expect("a record that its table takes");
    router::route(&folder.join("models"), CHALLENGER, REQUESTS, &mut keep).expect("a healthy fleet");
    writer.finish().expect("a finished history");

    let history = History::open(&dir).expect("the history opens");
    let mut joined = BTreeMap::<u64, Joined>::new();
    for record in history.records(None, None).expect("a range") {
        let twice = match record.expect("a sound record") {
            HistoryRecord::Decision(record) => {
                joined.entry(record.decision_id).or_default().decision.replace(record).is_some()
            }
            HistoryRecord::Shadow(record) => {
                joined.entry(record.decision_id).or_default().shadow.replace(record).is_some()
            }
            HistoryRecord::Outcome(record) => {
                joined.entry(record.decision_id).or_default().outcome.replace(record).is_some()
            }
            other => panic!("the router reports nothing of {other:?}"),
        };
        assert!(!twice);
    }
    (history, joined)
}

#[test]
fn the_example_runs_and_ends_by_itself() {
    router::main().expect("the sample's champion decides and is its own challenger");
}

#[test]
fn what_the_challenger_says_joins_live_decisions_one_to_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let [champion, challenger] = registry(&folder.path().join("models"), true);
    let (history, joined) = routed(folder.path());
    assert_eq!(history.row_counts()["shadow"], REQUESTS);
    assert_eq!(joined.keys().copied().collect::<Vec<_>>(), (1..=REQUESTS).collect::<Vec<_>>());
    for Joined { decision, shadow, outcome } in joined.into_values() {
        let (decision, shadow) = (decision.expect("a decision"), shadow.expect("the challenger's word"));
        assert_eq!(outcome.expect("an outcome").decision_id, shadow.decision_id);
        assert_eq!(decision.model_version.as_ref(), Some(&champion));
        assert_eq!(shadow.model_version, challenger);
        assert_eq!((shadow.known_at, shadow.sequence), (decision.known_at, decision.sequence));
        assert_eq!(shadow.event_at, decision.request.event_at);
        assert_eq!(shadow.agrees, shadow.shard == decision.shard);
        let expected_ms = shadow.chosen_expected_ms.expect("where it went is always asked about");
        assert!(!shadow.agrees || expected_ms.to_bits() == shadow.expected_ms.to_bits());
        assert_eq!(shadow.fallback_reason, None);
        assert!(shadow.chosen_exec_ms.is_some_and(|ms| ms > 0.0), "the challenger's heads answered");
    }
}

#[test]
fn a_router_without_a_challenger_leaves_no_such_table() {
    let folder = tempfile::tempdir().expect("a folder");
    registry(&folder.path().join("models"), false);
    let (history, joined) = routed(folder.path());
    assert_eq!((history.row_counts()["shadow"], joined.len() as u64), (0, REQUESTS));
    assert!(!folder.path().join("history/shadow").exists());
}
