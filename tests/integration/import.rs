//! Placements of others become histories: what comes in is what was there, and careless inputs are told in words.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use shardwise_datasets::History;
use shardwise_types::HistoryRecord;

use crate::support::{json, refused, root, shardwise, small_history, text};

/// The example of IMPORT.md.
const EXAMPLE: &str = "data/import";

fn example(name: &str) -> String {
    std::fs::read_to_string(root().join(EXAMPLE).join(name)).expect("the example is committed")
}

/// Runs an import; the arguments of all tests.
fn import<'a>(from: &'a str, map: &'a Path, input: &'a Path, out: &'a Path) -> Vec<&'a str> {
    vec!["history", "import", "--from", from, "--map", text(map), "--input", text(input), "--out", text(out)]
}

fn records(history: &Path) -> Vec<HistoryRecord> {
    let history = History::open(history).expect("a history");
    history.records(None, None).expect("a range").map(|record| record.expect("a record")).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("readable");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

/// A folder with the example's mapping and placements, each changed.
struct Changed {
    folder: tempfile::TempDir,
    map: PathBuf,
    input: PathBuf,
}

impl Changed {
    fn new(map: impl FnOnce(String) -> String, placements: impl FnOnce(String) -> Vec<u8>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (map_file, input) = (folder.path().join("mapping.toml"), folder.path().join("placements.csv"));
        std::fs::write(&map_file, map(example("mapping.toml"))).expect("writable");
        std::fs::write(&input, placements(example("placements.csv"))).expect("writable");
        Self { folder, map: map_file, input }
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("history")
    }

    /// What a refused import says; that it leaves nothing behind is checked.
    fn refused(&self, from: &str) -> String {
        let before = names(self.folder.path());
        let said = refused(&import(from, &self.map, &self.input, &self.out()));
        assert_eq!(names(self.folder.path()), before, "left over");
        said
    }
}

#[test]
fn the_page_shows_the_example_and_the_example_becomes_a_dataset() {
    let page = std::fs::read_to_string(root().join("crates/shardwise-datasets/IMPORT.md")).expect("the page");
    assert!(page.contains(&format!("```toml\n{}```", example("mapping.toml"))), "IMPORT.md shows another mapping");
    let start: Vec<String> = example("placements.csv").lines().take(3).map(str::to_owned).collect();
    assert!(page.contains(&format!("```csv\n{}\n```", start.join("\n"))), "IMPORT.md shows other placements");

    let folder = tempfile::tempdir().expect("a temporary folder");
    let (history, dataset) = (folder.path().join("history"), folder.path().join("dataset"));
    let (map, input) = (root().join(EXAMPLE).join("mapping.toml"), root().join(EXAMPLE).join("placements.csv"));
    let result = json(&import("csv", &map, &input, &history));
    assert_eq!((&result["table"], &result["rows"], &result["refused"]), (&"placements".into(), &39.into(), &1.into()));
    assert_eq!(result["reasons"], serde_json::json!({ "exec_ms is no number": 1 }));
    assert_eq!(result["from"], "2026-10-24T23:59:55Z");
    assert_eq!(result["out"], text(&history));
    let quarantine = std::fs::read_to_string(result["quarantine"].as_str().expect("a path")).expect("readable");
    let row: Value = serde_json::from_str(quarantine.trim()).expect("one line of JSON");
    assert_eq!((&row["row"], &row["reason"]), (&31.into(), &"exec_ms is no number".into()));
    assert_eq!(row["text"].as_str(), example("placements.csv").lines().nth(31), "the row as it stands in the file");

    let records = records(&history);
    let HistoryRecord::Decision(first) = records.iter().find(|r| matches!(r, HistoryRecord::Decision(_))).expect("one")
    else {
        unreachable!()
    };
    assert_eq!(first.request.amount_usd.map(shardwise_types::UsdAmount::usd), Some(8612.68));
    assert_eq!((first.request.function.as_str(), first.shard.as_str(), first.eligible), ("price", "worker-b", 2));
    let outcomes = || records.iter().filter_map(|r| if let HistoryRecord::Outcome(o) = r { Some(o) } else { None });
    let first_outcome = outcomes().next().expect("one");
    assert_eq!((first_outcome.response.exec_ms, first_outcome.response.queue_ms), (12.886, 1.617));
    assert_eq!((first_outcome.response.total_ms, first_outcome.response.cold), (33.503, true));
    assert_eq!(
        first_outcome.known_at.millis_since(first.known_at),
        f64::from(33.503_f32).mul_add(1e6, 0.0).round() / 1e6
    );
    let errors: Vec<&str> =
        outcomes().filter_map(|o| o.response.error.map(shardwise_types::ErrorClass::as_str)).collect();
    assert_eq!(errors, ["timeout", "failed"]);

    let built = json(&["dataset", "build", "--history", text(&history), "--out", text(&dataset)]);
    assert_eq!(built["decisions"], 39);
    let verified = json(&["dataset", "verify", "--history", text(&history), "--dataset", text(&dataset)]);
    assert_eq!(verified["mismatches"], 0);
}

#[test]
fn a_dry_run_shows_and_writes_nothing() {
    let changed = Changed::new(|map| map, String::into_bytes);
    let out = changed.out();
    let mut arguments = import("csv", &changed.map, &changed.input, &out);
    arguments.push("--dry-run");
    let output = shardwise(&arguments);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stderr}");
    let line = stdout.lines().find_map(|line| line.strip_prefix("outcomes: ")).expect("an outcome is shown");
    let shown: Value = serde_json::from_str(line).expect("JSON");
    assert_eq!((&shown["exec_ms"], &shown["cold"]), (&12.886.into(), &true.into()));
    assert!(stderr.contains("row 31") && stderr.contains("'n/a' is no number"), "{stderr}");
    assert_eq!(names(changed.folder.path()), ["mapping.toml", "placements.csv"]);
}

#[test]
fn too_many_refused_rows_write_the_quarantine_only() {
    // Milliseconds taken for seconds: every time lies thousands of years ahead.
    let wrong = |map: String| {
        map.replace(
            "[time]\nformat = \"local\"\nzone = \"Europe/Berlin\"\n",
            "[time]\nformat = \"epoch\"\nunit = \"s\"\n",
        )
        .replace("pattern = \"%d.%m.%Y %H:%M:%S%.f\"\nambiguous = \"earlier\"\n", "")
    };
    let dates = |csv: String| {
        let mut lines = csv.lines();
        let header = lines.next().expect("a header").to_owned();
        let rows = lines.enumerate().map(|(n, line)| {
            let mut cells: Vec<String> = line.split(';').map(str::to_owned).collect();
            cells[1] = (1_793_000_000_000_u64 + n as u64).to_string();
            cells.join(";")
        });
        [header].into_iter().chain(rows).collect::<Vec<_>>().join("\n").into_bytes()
    };
    let changed = Changed::new(wrong, dates);
    let out = changed.out();
    let output = shardwise(&[import("csv", &changed.map, &changed.input, &out), vec!["--json"]].concat());
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(4), "{stderr}");
    assert!(stderr.contains("most often (40): known_at lies outside 2000 to 2099"), "{stderr}");
    let result: Value = serde_json::from_str(stdout.lines().last().expect("a line")).expect("JSON");
    assert_eq!((&result["rows"], &result["refused"], &result["out"]), (&0.into(), &40.into(), &Value::Null));
    assert_eq!(names(changed.folder.path()), ["history.refused.ndjson", "mapping.toml", "placements.csv"]);
    let quarantine = std::fs::read_to_string(changed.folder.path().join("history.refused.ndjson")).expect("readable");
    assert_eq!(quarantine.lines().count(), 40);
    assert!(quarantine.contains("is its unit right?"), "{quarantine}");
}

#[test]
fn placements_without_ids_are_numbered_and_a_column_that_lacks_some_is_not() {
    let without = |map: String| map.replacen("decision_id = { column = \"request\", hash = true }\n", "", 1);
    let changed = Changed::new(without, String::into_bytes);
    let result = json(&import("csv", &changed.map, &changed.input, &changed.out()));
    assert_eq!((&result["rows"], &result["refused"]), (&39.into(), &1.into()));
    let ids: Vec<(u64, bool)> = records(&changed.out())
        .iter()
        .filter_map(|record| match record {
            HistoryRecord::Decision(decision) => Some((decision.decision_id, true)),
            HistoryRecord::Outcome(outcome) => Some((outcome.decision_id, false)),
            _ => None,
        })
        .collect();
    let of = |is_decision: bool| {
        let mut ids: Vec<u64> = ids.iter().filter(|(_, d)| *d == is_decision).map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    };
    assert!(of(true).len() == 39 && of(true).is_sorted_by(|a, b| a < b), "{ids:?}");
    assert_eq!(of(true), of(false), "each has its outcome");

    let changed = Changed::new(|map| map, |csv| csv.replacen("req-0001;", ";", 1).into_bytes());
    let result = json(&import("csv", &changed.map, &changed.input, &changed.out()));
    assert_eq!(result["reasons"], serde_json::json!({ "exec_ms is no number": 1, "decision_id is empty": 1 }));
}

#[test]
fn careless_mappings_are_told_in_words() {
    for (from, to, words) in [
        ("exec_ms =", "exec_mss =", &["'exec_mss' is no field of placements", "exec_ms", "mapping.toml"][..]),
        ("unit = \"us\"", "unti = \"us\"", &["unti", "exec_ms", "unit"]),
        ("unit = \"us\"", "unit = \"percent\"", &["exec_ms", "'percent'", "ms, ns, us, s"]),
        ("[csv]", "[cvs]", &["cvs", "csv"]),
        ("Europe/Berlin", "Europe/Bärlin", &["Europe/Bärlin", "IANA"]),
        ("\"ran_us\"", "\"ran\"", &["no column 'ran'", "ran_us", "placements.csv"]),
        ("delimiter = \";\"", "delimiter = \",\"", &["delimiter"]),
        ("exec_ms = { column = \"ran_us\", unit = \"us\" }\n", "", &["exec_ms", "is needed"]),
        ("fills = \"placements\"", "fills = \"shadow\"", &["shadow", "placements"]),
        ("rtt_ms = 18.5", "rtt_ms = -1", &["round-trip", "-1"]),
        ("shard = \"worker-b\"", "shard = \"worker-a\"", &["worker-a", "twice"]),
        ("cold = { column", "cold = { constant = 3, column", &["cold", "column or constant"]),
    ] {
        let changed = Changed::new(|map| map.replacen(from, to, 1), String::into_bytes);
        let said = changed.refused("csv");
        words.iter().for_each(|word| assert!(said.contains(word), "'{word}' is not in: {said}"));
    }
}

#[test]
fn careless_inputs_are_told_in_words() {
    let header = |csv: String| csv.lines().next().expect("a header").to_owned() + "\n";
    let said = |from: &str, placements: &dyn Fn(String) -> Vec<u8>| Changed::new(|map| map, placements).refused(from);
    for (from, placements, word) in [
        ("csv", &(|_| Vec::new()) as &dyn Fn(String) -> Vec<u8>, "is empty"),
        ("csv", &|csv| header(csv).into_bytes(), "holds no rows"),
        ("parquet", &String::into_bytes, "no Parquet file"),
        ("ndjson", &|_| b"[{\"a\":1}]".to_vec(), "jq -c"),
        ("csv", &|_| b"PAR1....PAR1".to_vec(), "--from parquet"),
        ("csv", &|_| vec![0x1f, 0x8b, 8, 0], "gunzip"),
        ("csv", &|csv| [0xff, 0xfe].into_iter().chain(csv.bytes().flat_map(|byte| [byte, 0])).collect(), "UTF-16"),
        ("csv", &|csv| csv.replacen("venue", "venué", 1).chars().map(|c| c as u8).collect(), "not UTF-8"),
    ] {
        let said = said(from, placements);
        assert!(said.contains(word) && said.contains("placements.csv"), "'{word}' is not in: {said}");
    }
    let changed = Changed::new(|map| map, String::into_bytes);
    let said = refused(&import("csv", &changed.map, changed.folder.path(), &changed.out()));
    assert!(said.contains("is a folder"), "{said}");
    let said = refused(&import("csv", &changed.folder.path().join("none.toml"), &changed.input, &changed.out()));
    assert!(said.contains("none.toml"), "{said}");
    std::fs::create_dir(changed.out()).expect("writable");
    std::fs::write(changed.out().join("mine"), "kept").expect("writable");
    let said = changed.refused("csv");
    assert!(said.contains("is not empty"), "{said}");
    assert_eq!(names(&changed.out()), ["mine"]);
}

#[test]
fn bad_rows_are_set_aside_one_by_one() {
    // Latin-1 in one row, a cell too many in another, an id twice, a shard that nobody knows, a time that is no time.
    let spoil = |csv: String| {
        let lines: Vec<Vec<u8>> = csv
            .lines()
            .enumerate()
            .map(|(n, line)| match n {
                2 => {
                    line.replace("price", "pr\u{e9}is").replace("risk", "r\u{e9}sk").chars().map(|c| c as u8).collect()
                }
                3 => format!("{line};more").into_bytes(),
                4 => line.replace("req-0003", "req-0000").into_bytes(),
                5 => line.replace("worker-a", "worker-z").replace("worker-b", "worker-z").into_bytes(),
                6 => line.replace("25.10.2026", "yesterday").into_bytes(),
                _ => line.as_bytes().to_vec(),
            })
            .collect();
        lines.join(&b'\n')
    };
    let changed = Changed::new(|map| map, spoil);
    let out = changed.out();
    let mut arguments = import("csv", &changed.map, &changed.input, &out);
    arguments.extend(["--max-refused", "0.2"]);
    let result = json(&arguments);
    assert_eq!((&result["rows"], &result["refused"]), (&34.into(), &6.into()));
    let expected = serde_json::json!({
        "row is not UTF-8": 1, "row has another number of columns than the header": 1, "decision_id is there twice": 1,
        "shard is not in [[fleet]]": 1, "known_at is no local time": 1, "exec_ms is no number": 1,
    });
    assert_eq!(result["reasons"], expected);
    let dataset = changed.folder.path().join("dataset");
    assert_eq!(json(&["dataset", "build", "--history", text(&out), "--out", text(&dataset)])["decisions"], 34);
}

/// The formats of the round trip.
const FORMATS: [&str; 3] = ["csv", "ndjson", "parquet"];

#[test]
fn a_simulated_history_comes_back_field_by_field() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let original = folder.path().join("original");
    small_history(&original, "3");
    let expected = records(&original);
    for format in FORMATS {
        let (sources, out) = (folder.path().join(format), folder.path().join(format!("{format}-history")));
        std::fs::create_dir(&sources).expect("writable");
        std::fs::copy(original.join("topology.json"), folder.path().join("topology.json")).expect("copied");
        let map = folder.path().join("mapping.toml");
        std::fs::write(&map, export(&original, &sources, format)).expect("writable");
        let result = json(&import(format, &map, &sources, &out));
        assert_eq!((&result["refused"], &result["quarantine"]), (&0.into(), &Value::Null), "{format}: {result}");
        assert_eq!(result["rows"], expected.len(), "{format}");
        let found = records(&out);
        assert_eq!(found.len(), expected.len(), "{format}");
        for (found, expected) in found.iter().zip(&expected) {
            // By their text: what is missing among logged features is NaN, which is not equal to itself.
            assert_eq!(format!("{found:?}"), format!("{expected:?}"), "{format}");
        }
        let built = |history: &Path, name: &str| {
            let out = folder.path().join(name);
            json(&["dataset", "build", "--history", text(history), "--out", text(&out)])
        };
        let (found, expected) = (built(&out, &format!("{format}-set")), built(&original, &format!("{format}-first")));
        assert_eq!((&found["hash"], &found["rows"]), (&expected["hash"], &expected["rows"]), "{format}");
    }
}

/// Writes the tables of a history under other names and in other units; returns the mapping that undoes it.
fn export(history: &Path, sources: &Path, format: &str) -> String {
    let mut map = "[topology]\nfile = \"topology.json\"\n".to_owned();
    for table in ["decisions", "outcomes", "shard_reports", "market"] {
        let frame = crate::tables::read(&history.join(table));
        let (columns, rows) = crate::tables::rows(&frame);
        let file = sources.join(format!("{table}.{format}"));
        match format {
            "parquet" => crate::tables::write_renamed(frame, &file),
            "csv" => std::fs::write(&file, csv_of(&columns, &rows)).expect("writable"),
            _ => std::fs::write(&file, ndjson_of(&columns, rows)).expect("writable"),
        }
        map += &format!("\n[[tables]]\nfills = \"{table}\"\ninput = \"{table}.{format}\"\n\n[tables.fields]\n");
        for column in columns {
            let words = match column.as_str() {
                "event_at" | "known_at" if format == "csv" => ", format = \"epoch\", unit = \"ns\"",
                _ => "",
            };
            map += &format!("{column} = {{ column = \"my_{column}\"{words} }}\n");
        }
    }
    map
}

fn csv_of(columns: &[String], rows: &[Vec<Value>]) -> String {
    let mut lines = vec![columns.iter().map(|column| format!("my_{column}")).collect::<Vec<_>>().join(",")];
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let cell = |column: &String, value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) if ["event_at", "known_at"].contains(&column.as_str()) => {
            text.parse::<shardwise_types::Timestamp>().expect("a time").nanos().to_string()
        }
        Value::String(text) => quoted(text),
        other => quoted(&other.to_string()),
    };
    for row in rows {
        lines.push(columns.iter().zip(row).map(|(column, value)| cell(column, value)).collect::<Vec<_>>().join(","));
    }
    lines.join("\n") + "\n"
}

fn ndjson_of(columns: &[String], rows: Vec<Vec<Value>>) -> String {
    let line = |row: Vec<Value>| {
        let object: Map<String, Value> = columns.iter().map(|column| format!("my_{column}")).zip(row).collect();
        Value::Object(object).to_string() + "\n"
    };
    rows.into_iter().map(line).collect()
}

/// The example with many rows, so that an import takes a while.
fn long() -> Changed {
    let many = |csv: String| {
        let (header, first) = (csv.lines().next().expect("a header"), csv.lines().nth(1).expect("a row"));
        let rows = (0..600_000).map(|n| first.replace("req-0000", &format!("req-{n}")));
        let lines: Vec<String> = [header.to_owned()].into_iter().chain(rows).collect();
        lines.join("\n").into_bytes()
    };
    Changed::new(|map| map, many)
}

/// Starts an import, waits until it has begun to write, and sends a signal; returns how it ended.
fn stopped_by(signal: &str, changed: &Changed) -> std::process::ExitStatus {
    let out = changed.out();
    let mut running = std::process::Command::new(crate::support::binary())
        .args(import("csv", &changed.map, &changed.input, &out))
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("the binary starts");
    let has_begun = || names(changed.folder.path()).iter().any(|name| name.starts_with(".history.new-"));
    while !has_begun() {
        assert_eq!(running.try_wait().expect("a process"), None, "it ended before it began");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let id = running.id().to_string();
    let sent = std::process::Command::new("kill").args([signal, &id]).status().expect("kill runs");
    assert!(sent.success());
    running.wait().expect("it ends")
}

#[test]
fn an_import_that_is_stopped_or_killed_leaves_no_half_history() {
    let changed = long();
    let before = names(changed.folder.path());
    assert_eq!(stopped_by("-INT", &changed).code(), Some(130), "Ctrl-C is heard");
    assert_eq!(names(changed.folder.path()), before, "left over");
    assert_eq!(stopped_by("-KILL", &changed).code(), None, "killed");
    assert!(!changed.out().exists(), "half a history");
    let result = json(&import("csv", &changed.map, &changed.input, &changed.out()));
    assert_eq!(result["rows"], 600_000);
    let after: Vec<String> = names(changed.folder.path()).into_iter().filter(|name| name.starts_with('.')).collect();
    assert!(after.is_empty(), "the next import clears what a killed one left: {after:?}");
}
