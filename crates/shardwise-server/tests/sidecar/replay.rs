//! The journal, played again, comes to the features on which the router decided, bit for bit, whatever came too late.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};
use shardwise_features::{DecisionContext, DecisionFeatures, FeatureVector, RouterState, Ticket};
use shardwise_server::ServeConfig;
use shardwise_types::{DecisionRecord, DirectiveRecord, FleetSnapshot, HistoryRecord, MarketSnapshot};

use crate::answers::envelope;
use crate::support::{Sidecar, config, journal_files, outcome, root};

/// A router as a history tells of it.
struct Played {
    router: RouterState,
    fleet: FleetSnapshot,
    open: HashMap<u64, Ticket>,
}

impl Played {
    fn new() -> Self {
        let sample = std::fs::read_to_string(root("data/sample-fleet.json")).unwrap();
        let fleet = FleetSnapshot { shards: Vec::new(), ..FleetSnapshot::from_json(&sample).unwrap() };
        Self { router: RouterState::new(), fleet, open: HashMap::new() }
    }

    /// Takes in a record; of a decision, says whether the logged features are those that come out here.
    fn apply(&mut self, record: &HistoryRecord) -> Option<bool> {
        match record {
            HistoryRecord::Report(report) => {
                self.fleet.apply_report(report);
                self.router.on_report(&report.shard, report.report.known_at);
            }
            HistoryRecord::Outcome(outcome) => {
                let ticket = self.open.remove(&outcome.decision_id).unwrap();
                self.router.on_response(&ticket, &outcome.response, outcome.known_at);
            }
            HistoryRecord::Decision(decision) => return Some(self.decide(decision)),
            HistoryRecord::Directive(directive) => {
                let DirectiveRecord { known_at, placements, gone, resized, .. } = &**directive;
                self.fleet.shards.retain(|shard| !gone.contains(&shard.id));
                resized.apply(&mut self.fleet);
                self.router.on_placements(&self.fleet.placements, placements, *known_at);
                self.fleet.placements = Arc::new(placements.clone());
            }
            HistoryRecord::Shadow(_) | HistoryRecord::Market(_) => {}
        }
        None
    }

    fn decide(&mut self, decision: &DecisionRecord) -> bool {
        let context = DecisionContext {
            request: &decision.request,
            decided_at: decision.known_at,
            fleet: &self.fleet,
            router: &self.router,
            market: &MarketSnapshot::default(),
            service_table: None,
        };
        let features = DecisionFeatures::new(&context);
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        let positions = decision.logged_shards.iter().map(|shard| self.fleet.position(shard).unwrap());
        let again: Vec<f32> =
            positions.flat_map(|position| FeatureVector::extract(&features, position).into_array()).collect();
        let ticket = self.router.on_dispatch(&context, self.fleet.position(&decision.shard).unwrap());
        self.open.insert(decision.decision_id, ticket);
        !again.is_empty() && bits(&again) == bits(&decision.logged_features)
    }
}

/// Plays lines in the order of a history; returns how many decisions came out the same, and how many there are.
fn played(lines: &[Value]) -> (usize, usize) {
    let mut records: Vec<HistoryRecord> =
        lines.iter().map(|line| serde_json::from_value(line.clone()).unwrap()).collect();
    records.sort_by_key(HistoryRecord::order);
    let mut router = Played::new();
    let same: Vec<bool> = records.iter().filter_map(|record| router.apply(record)).collect();
    (same.iter().filter(|same| **same).count(), same.len())
}

/// All lines of the only journal, whatever they are.
fn lines(folder: &tempfile::TempDir) -> Vec<Value> {
    let files = journal_files(&folder.path().join("data/journal"));
    let text: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn what_came_too_late_is_kept_and_is_not_played_again() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(ServeConfig { log_share: 1.0, outcome_wait_ms: 2_000.0, ..config(&folder) });
    let report = |sequence: u64, cpu: f64| {
        let mut envelope = envelope("shard-aave-primary", sequence);
        envelope["report"]["cpu"] = json!(cpu);
        assert_eq!(sidecar.post("/v1/reports", &envelope).1["taken"], true);
    };
    let forgotten = sidecar.place();
    report(0, 0.2);
    report(2, 0.3);
    for _ in 0..20 {
        let answer = sidecar.place();
        sidecar.settle(&answer);
    }
    sidecar.wait_until("the first is given up", |status| status["outcomesMissing"] == 1);
    report(1, 0.9);
    assert_eq!(sidecar.settle(&forgotten).1, json!({ "accepted": 0, "duplicates": 0, "late": 1, "unmatched": 0 }));
    assert_eq!(sidecar.settle(&forgotten).1["duplicates"], 1, "it is kept once");
    for _ in 0..20 {
        let answer = sidecar.place();
        assert_eq!(sidecar.post("/v1/outcomes", &outcome(&answer)).1["accepted"], 1);
    }
    assert!(sidecar.get("/metrics").1.contains("shardwise_outcomes_late_total 1\n"));
    sidecar.stop();

    let (late, told): (Vec<Value>, Vec<Value>) =
        lines(&folder).into_iter().partition(|line| line["table"].as_str().unwrap().starts_with("late_"));
    assert_eq!(late.len(), 2, "nothing that was accepted is lost: {late:?}");
    assert_eq!(played(&told), (41, 41));
    // The test would see it if one of them were told: each by itself makes another router of it.
    for line in &late {
        let mut told = told.clone();
        let mut line = line.clone();
        line["table"] = json!(line["table"].as_str().unwrap().trim_start_matches("late_"));
        told.push(line);
        let (same, all) = played(&told);
        assert!(same < all, "{same} of {all}");
    }
}

#[test]
fn a_router_with_a_past_logs_no_features() {
    let folder = tempfile::tempdir().unwrap();
    let start = || Sidecar::start(ServeConfig { log_share: 1.0, ..config(&folder) });
    let sidecar = start();
    sidecar.place();
    sidecar.stop();
    // A history goes on where the journal left off, whether or not the router still remembers it.
    std::fs::remove_file(folder.path().join("data/memory.json")).unwrap();
    let sidecar = start();
    sidecar.place();
    sidecar.stop();
    let logged = |line: &Value| line["logged_shards"].as_array().map_or(0, Vec::len) > 0;
    let decisions: Vec<Value> = lines(&folder).into_iter().filter(|line| line["table"] == "decision").collect();
    assert_eq!(decisions.iter().map(logged).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn what_routers_are_directed_is_told_so_that_features_under_it_can_be_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(ServeConfig { log_share: 1.0, ..config(&folder) });
    let shards = sidecar.json("/v1/fleet")["shards"].as_array().unwrap().clone();
    // The sample's shards are names in a file: they have no agents that could agree.
    let without: Vec<String> = shards.iter().map(|shard| format!("shard/{}", shard["id"].as_str().unwrap())).collect();
    let change = json!({ "author": "ann", "why": "a test", "without": without });
    let function = crate::support::request()["function"].clone();
    let pairs = |from: usize| -> Vec<Value> {
        shards[from..].iter().map(|shard| json!({ "function": function, "shard": shard["id"] })).collect()
    };
    let direct = |placements: Value| {
        let ask = || sidecar.post("/v1/config/placements", &json!({ "placements": placements, "change": change }));
        let entry = loop {
            let (status, entry) = ask();
            if status == 200 {
                break entry;
            }
            // The change before has just taken effect.
            assert!(status == 409 && entry["detail"].as_str().unwrap().contains("try again after"), "{entry}");
            std::thread::sleep(std::time::Duration::from_millis(200));
        };
        let version = &entry["change"]["version"];
        let holds = || sidecar.json("/v1/config")["agent"]["serves"] == *version;
        while !holds() {
            let answer = sidecar.place();
            sidecar.settle(&answer);
        }
    };
    let decide = || (0..10).for_each(|_| drop(sidecar.settle(&sidecar.place())));
    decide();
    direct(json!({ "warm": pairs(0), "avoided": pairs(1) }));
    decide();
    direct(json!({ "warm": pairs(1) }));
    decide();
    sidecar.stop();

    let lines = lines(&folder);
    let is_directive = |line: &&Value| line["table"] == "directive";
    assert_eq!(lines.iter().filter(is_directive).count(), 2);
    let (same, all) = played(&lines);
    assert!(same == all && all > 30, "{same} of {all}");
    let untold: Vec<Value> = lines.iter().filter(|line| !is_directive(line)).cloned().collect();
    assert!(played(&untold).0 < all, "what is warm is among the features");
}
