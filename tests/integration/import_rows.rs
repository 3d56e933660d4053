//! Rows that belong together: outcomes find their decisions, or are set aside; a decision may stay without one.

use std::path::Path;

use crate::support::{json, text};

const FLEET: &str = r#"
[[fleet]]
shard = "a"
region = "eu"
cores = 4
clock_ghz = 3.2
memory_mb = 16384
"#;

const DECISION: &str = r#"
decision_id = "id"
known_at = "at"
router = { constant = "r" }
router_region = { constant = "eu" }
function = { constant = "f" }
shard = { constant = "a" }
"#;

const OUTCOME: &str = r#"
exec_ms = "reply.exec"
queue_ms = { constant = 0 }
queue_len = { constant = 0 }
cold = { constant = false }
total_ms = "reply.total"
"#;

fn import(folder: &Path, map: &str, input: &Path, out: &Path) -> serde_json::Value {
    let file = folder.join("mapping.toml");
    std::fs::write(&file, map).expect("writable");
    let arguments = ["history", "import", "--from", "ndjson", "--map", text(&file), "--input", text(input)];
    json(&[&arguments[..], &["--out", text(out), "--max-refused", "0.9"]].concat())
}

#[test]
fn outcomes_apart_find_their_decisions() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let decisions = "{\"id\":1,\"at\":\"2026-01-05T12:00:00Z\"}\n{\"id\":2,\"at\":\"2026-01-05T12:00:01+00:00\"}\n";
    let outcome =
        |id: u64, at: &str| format!("{{\"id\":{id},\"at\":\"{at}\",\"reply\":{{\"exec\":4,\"total\":5.5}}}}\n");
    // The first answers; the second answers again; then one of a decision before which it came, and one of no decision.
    let outcomes = [
        outcome(1, "2026-01-05T12:00:00.0055Z"),
        outcome(1, "2026-01-05T12:00:02Z"),
        outcome(2, "2026-01-05T12:00:00.9Z"),
        outcome(3, "2026-01-05T12:00:02Z"),
    ];
    std::fs::write(folder.path().join("decisions.ndjson"), decisions).expect("writable");
    std::fs::write(folder.path().join("outcomes.ndjson"), outcomes.concat()).expect("writable");
    let map = format!(
        "{FLEET}\n[[tables]]\nfills = \"outcomes\"\ninput = \"outcomes.ndjson\"\n[tables.fields]\ndecision_id = \"id\"\nknown_at = \"at\"\nrouter = {{ constant = \"r\" }}{OUTCOME}\n[[tables]]\nfills = \"decisions\"\ninput = \"decisions.ndjson\"\n[tables.fields]{DECISION}"
    );
    let out = folder.path().join("history");
    let result = import(folder.path(), &map, folder.path(), &out);
    let expected = serde_json::json!({
        "decision has an outcome already": 1, "outcome was known before its decision": 1, "decision is not there": 1,
    });
    assert_eq!(result["reasons"], expected);
    assert_eq!(result["stored"], serde_json::json!({ "decisions": 2, "outcomes": 1, "shard_reports": 1 }));
    assert_eq!(result["table"], "decisions+outcomes");
    let dataset = folder.path().join("dataset");
    let built = json(&["dataset", "build", "--history", text(&out), "--out", text(&dataset)]);
    assert_eq!(built["decisions"], 2, "a dataset is built of it");
}

#[test]
fn a_placement_without_an_outcome_is_a_decision() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let rows = "{\"id\":1,\"at\":\"2026-01-05T12:00:00Z\",\"reply\":{\"exec\":4,\"total\":5.5}}\n\
        {\"id\":2,\"at\":\"2026-01-05T12:00:01Z\"}\n\
        {\"id\":3,\"at\":\"2026-01-05T12:00:02Z\",\"reply\":{\"exec\":null,\"total\":5.5}}\n\
        {\"id\":4,\n";
    let input = folder.path().join("placements.ndjson");
    std::fs::write(&input, rows).expect("writable");
    let map = format!("{FLEET}\n[[tables]]\nfills = \"placements\"\n[tables.fields]{DECISION}{OUTCOME}");
    let result = import(folder.path(), &map, &input, &folder.path().join("history"));
    assert_eq!(result["stored"], serde_json::json!({ "decisions": 2, "outcomes": 1, "shard_reports": 1 }));
    // The third has half an outcome: neither half of the row is stored.
    assert_eq!(result["reasons"], serde_json::json!({ "exec_ms is empty": 1, "row is no JSON object": 1 }));
    assert_eq!((&result["from"], &result["to"]), (&"2026-01-05T12:00:00Z".into(), &"2026-01-05T12:00:01Z".into()));
}
