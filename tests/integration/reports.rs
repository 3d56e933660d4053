//! Reports as their readers meet them: pages whose numbers are all in the JSON beside them, and verdicts that say why.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::python::python;
use crate::support::{json, night, root, shardwise, text};

/// Numbers of the prose that code writes: limits, levels and percentiles, which are no findings.
const PROSE: [&str; 12] = ["0", "0.1", "0.25", "1", "2", "5", "10", "50", "90", "95", "99", "99.9"];

/// What each part of a page shows of the JSON, by the id of its heading.
const PARTS: [(&str, &[&str]); 7] = [
    ("", &["verdict", "title", "notes", "closed_loop"]),
    ("closed-loop", &["closed_loop"]),
    ("choices", &["analysis"]),
    ("losses", &["where_it_loses", "analysis"]),
    ("model", &["model", "dataset", "analysis"]),
    ("decision", &["decision"]),
    ("terms", &["terms", "command", "explain"]),
];

/// All numbers and all words of a JSON document.
#[derive(Default)]
struct Contents {
    numbers: Vec<f64>,
    words: BTreeSet<String>,
}

impl Contents {
    fn of(values: &[&Value]) -> Self {
        let mut contents = Self::default();
        values.iter().for_each(|value| contents.add(value));
        contents
    }

    fn add(&mut self, value: &Value) {
        match value {
            Value::Number(number) => self.numbers.push(number.as_f64().expect("a finite number")),
            Value::String(text) => self.words.extend(text.split_whitespace().map(str::to_owned)),
            Value::Array(all) => {
                self.numbers.push(all.len() as f64);
                all.iter().for_each(|value| self.add(value));
            }
            Value::Object(all) => all.values().for_each(|value| self.add(value)),
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// Whether a number as it is written is one of these as it is, in percent, or as a change in percent, rounded.
    fn has(&self, written: &str) -> bool {
        let plain = written.replace(',', "").replace('−', "-");
        let Ok(value) = plain.parse::<f64>() else { return false };
        let decimals = plain.split('e').next().and_then(|digits| digits.split_once('.')).map_or(0, |(_, d)| d.len());
        let exponent = plain.split_once('e').map_or(0, |(_, e)| e.parse::<i32>().expect("an exponent"));
        let half = 0.500_001 * 10_f64.powi(exponent - decimals as i32);
        let near = |x: f64| (x.abs() - value.abs()).abs() <= half;
        self.numbers.iter().any(|x| near(*x) || near(100.0 * x) || near(100.0 * (x - 1.0)))
    }
}

/// The texts of a page: what stands between tags, without styles and without the round values along axes.
fn texts(html: &str) -> String {
    let mut texts = String::new();
    let mut rest = html;
    let mut is_shown = true;
    while let Some(tag_at) = rest.find('<') {
        if is_shown {
            texts.push_str(&rest[..tag_at]);
        }
        let end = tag_at + rest[tag_at..].find('>').expect("a tag ends");
        let tag = &rest[tag_at + 1..end];
        is_shown = !tag.contains("label tick") && !tag.starts_with("style") && !tag.starts_with("title");
        texts.push(' ');
        rest = &rest[end + 1..];
    }
    let marks = [
        ("&#39;", "'"),
        ("&#x27;", "'"),
        ("&quot;", "\""),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&#60;", "<"),
        ("&#62;", ">"),
    ];
    marks
        .iter()
        .fold(texts, |texts, (mark, letter)| texts.replace(mark, letter))
        .replace("&#38;", "&")
        .replace("&amp;", "&")
}

/// Words that hold a number, without what stands around it.
fn numbers(text: &str) -> Vec<(&str, &str)> {
    let around = |letter: char| !letter.is_alphanumeric() && letter != '−' && letter != '-' && letter != '+';
    let words = text.split(|letter: char| letter.is_whitespace());
    words
        .map(|word| (word, word.trim_matches(around).trim_start_matches('+').trim_end_matches('.')))
        .filter(|(_, bare)| bare.trim_start_matches(['−', '-']).starts_with(|c: char| c.is_ascii_digit()))
        .collect()
}

/// Numbers of a report that are not in its JSON, with the part that shows them.
fn strangers(html: &str, report: &Value) -> Vec<String> {
    strangers_on(html, |id| {
        let (_, fields) = PARTS.iter().find(|(part, _)| *part == id).unwrap_or(&PARTS[PARTS.len() - 1]);
        Contents::of(&fields.iter().map(|field| &report[*field]).collect::<Vec<_>>())
    })
}

/// Numbers of a decision's page that are not in what `explain --json` says.
pub(crate) fn strangers_of_decision(html: &str, account: &Value) -> Vec<String> {
    strangers_on(html, |_| Contents::of(&[account]))
}

/// Numbers of a page that its parts, by the ids of their headings, do not hold.
fn strangers_on(html: &str, of_part: impl Fn(&str) -> Contents) -> Vec<String> {
    let templates = root().join("crates/shardwise-evaluation/templates");
    let mut prose = Contents::default();
    for file in fs::read_dir(templates).expect("templates") {
        let template = fs::read_to_string(file.expect("a file").path()).expect("text");
        prose.words.extend(texts(&template).split_whitespace().map(str::to_owned));
    }
    let mut found = Vec::new();
    let starts: Vec<(usize, &str)> = std::iter::once((0, ""))
        .chain(html.match_indices("<h2 id=\"").map(|(at, mark)| {
            let id = &html[at + mark.len()..];
            (at, &id[..id.find('"').expect("an id ends")])
        }))
        .collect();
    let mut shown = 0;
    for (place, (start, id)) in starts.iter().enumerate() {
        let end = starts.get(place + 1).map_or(html.len(), |(next, _)| *next);
        let contents = of_part(id);
        let part = texts(&html[*start..end]);
        for (word, bare) in numbers(&part) {
            shown += 1;
            let is_known = contents.words.contains(word)
                || contents.words.iter().any(|known| known.contains(bare) && !bare.is_empty() && bare.len() > 3)
                || prose.words.contains(word)
                || PROSE.contains(&bare)
                || contents.has(bare);
            if !is_known {
                found.push(format!("{id}: {word}"));
            }
        }
    }
    assert!(shown > 100, "only {shown} numbers were found on the page");
    found
}

fn report_of(folder: &Path) -> (String, Value) {
    let html = fs::read_to_string(folder.join("report.html")).expect("a page");
    let json = fs::read_to_string(folder.join("report.json")).expect("its numbers");
    (html, serde_json::from_str(&json).expect("JSON"))
}

/// Checks a report, and that the check can fail; says so when there is no Python to do it.
fn fits_its_schema(folder: &Path, report: &Value) {
    const CHECK: &str = "import json, sys, jsonschema
schema, report = (json.load(open(f'{sys.argv[1]}/report{end}.json')) for end in ('.schema', ''))
jsonschema.Draft202012Validator.check_schema(schema)
check = jsonschema.Draft202012Validator(schema)
wrong = [f'{error.json_path}: {error.message[:200]}' for error in check.iter_errors(report)]
assert not wrong, wrong
report['verdict']['may_go_live'] = 'maybe'
report['a_field_that_nobody_named'] = 1
print(len(list(check.iter_errors(report))))";
    let Some(python) = python() else { return };
    let output = Command::new(python).args(["-c", CHECK]).arg(folder).output().expect("Python starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "2", "a word is no verdict, and no field comes unnamed");
    assert_eq!(report["format"], 1);
}

#[test]
fn every_number_of_the_page_is_in_the_json_and_the_json_is_what_its_schema_says() {
    let folder = night().path("work/report");
    let (html, report) = report_of(&folder);
    assert_eq!(strangers(&html, &report), [""; 0]);
    for part in ["played", "importance", "drift", "logged", "validated"] {
        assert!(!report["analysis"][part].is_null(), "{part} was not looked at");
    }
    let worst = report["analysis"]["played"]["worst"].as_array().expect("the worst choices");
    assert_eq!(worst.len(), 20);
    for choice in worst {
        let rivals = choice["rivals"].as_array().expect("its rivals");
        assert_eq!(rivals.len(), 6, "{rivals:?}");
        let all = rivals.iter().chain(choice["candidates"].as_array().expect("its candidates"));
        for told in all.filter(|told| told["shard"].is_string()) {
            assert!(told["cost_ms"].is_number() && told["foreseen_ms"].is_number(), "{told}");
        }
    }
    fits_its_schema(&folder, &report);

    // The walk would notice: with other figures behind it the same page is full of strangers.
    let mut other = report;
    other["closed_loop"]["policies"] = Value::Array(Vec::new());
    other["analysis"]["played"]["slices"] = Value::Array(Vec::new());
    assert!(strangers(&html, &other).len() > 50);
}

#[test]
fn a_good_model_a_strange_one_and_none_are_told_apart_at_the_top() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let history = night().path("history");
    let none = folder.path().join("none");
    // Of another fleet with the same names of shards: what it learned is wrong here.
    let [elsewhere, dataset, strange] = ["elsewhere", "dataset", "models"].map(|name| folder.path().join(name));
    json(&["history", "simulate", "--fleet-seed", "8", "--seed", "1", "--hours", "0.016", "--out", text(&elsewhere)]);
    json(&["dataset", "build", "--history", text(&elsewhere), "--out", text(&dataset)]);
    json(&["train", "--dataset", text(&dataset), "--models", text(&strange)]);
    let evaluate = |models: &Path, name: &str| {
        let out = folder.path().join(name);
        let arguments =
            ["--models", text(models), "--history", text(&history), "--out", text(&out), "--replicates", "2"];
        let found = json(&[&["evaluate"], &arguments[..], &["--most-replicates", "8"]].concat());
        let (html, report) = report_of(&out);
        assert_eq!(found["verdict"], report["verdict"]);
        assert_eq!(strangers(&html, &report), [""; 0], "{name}");
        fits_its_schema(&out, &report);
        let top = html.split("<h2").next().expect("a top").to_owned();
        (found, texts(&top))
    };
    let (good, said) = evaluate(&night().path("work/models"), "good");
    assert_eq!(good["verdict"]["may_go_live"], true, "{good}");
    assert!(said.contains("Yes, it may."), "{said}");
    let (bad, said) = evaluate(&strange, "strange");
    assert_eq!(bad["verdict"]["may_go_live"], false);
    assert!(said.contains("No, not yet.") && said.contains("Fails:"), "{said}");
    let (none, said) = evaluate(&none, "no-model");
    assert_eq!(none["verdict"]["may_go_live"], false);
    assert!(none["version"].is_null() && said.contains("There is no model 'default'"), "{said}");
    assert!(none["verdict"]["reasons"] != bad["verdict"]["reasons"]);
}

/// Gives things in a copy of a history names that mean harm: markup, formulas, turned text, colours, ten thousand letters.
const POISON: &str = r#"
import json, pathlib, shutil, sys
import pyarrow as pa, pyarrow.parquet as pq
source, target = map(pathlib.Path, sys.argv[1:])
shutil.copytree(source, target)
harm = "</td></svg><script>alert('%s')</script><img src=x onerror=alert(1)>\u202e=HYPERLINK(\"http://x\")\u2066&\x1b[31m\r"
first = pq.read_table(next((source / "decisions").rglob("*.parquet")), partitioning=None)
names = {}
for column in ["function", "protocol", "trading_pair", "exchange", "event_type", "shard", "router", "router_region"]:
    counts = sorted(first[column].value_counts().to_pylist(), key=lambda row: -row["counts"])
    name = counts[0]["values"]
    names[name] = harm % column + ("x" * 10_000 if column == "protocol" else "")
swap = lambda text: names.get(text, text)

def walk(value):
    if isinstance(value, dict):
        return {swap(key): walk(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [walk(inner) for inner in value]
    return swap(value) if isinstance(value, str) else value

for path in target.glob("*.json"):
    path.write_text(json.dumps(walk(json.loads(path.read_text()))))
for path in target.rglob("*.parquet"):
    table = pq.read_table(path, partitioning=None)
    for place, field in enumerate(table.schema):
        if "string" not in str(field.type):
            continue
        if "list" in str(field.type):
            texts = [texts and [swap(text) for text in texts] for texts in table.column(place).to_pylist()]
            column = pa.array(texts, type=pa.large_list(pa.large_string()))
        else:
            column = pa.array([swap(text) for text in table.column(place).to_pylist()], type=pa.large_string())
        table = table.set_column(place, field.name, column)
    pq.write_table(table, path, compression="zstd")
"#;

#[test]
fn names_that_mean_harm_do_none() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (history, out) = (folder.path().join("history"), folder.path().join("out"));
    let poison = Command::new(python).args(["-c", POISON]).arg(night().path("history")).arg(&history).output();
    let poison = poison.expect("Python starts");
    assert!(poison.status.success(), "{}", String::from_utf8_lossy(&poison.stderr));
    let models = night().path("work/models");
    let arguments =
        ["evaluate", "--models", text(&models), "--history", text(&history), "--out", text(&out), "--replicates", "1"];
    let printed = shardwise(&arguments);
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let printed = String::from_utf8(printed.stdout).expect("UTF-8");
    let (html, report) = report_of(&out);
    assert!(harmless(&html), "the page");
    assert!(harmless(&printed), "the terminal");
    assert!(
        !html.contains("<script") && !html.contains("<img") && html.contains("&lt;script&gt;"),
        "a name became markup"
    );
    assert!(html.contains("⟨U+202E⟩"), "what turns text is made visible");
    assert!(html.len() < 2_000_000, "{} bytes", html.len());
    let whole = |value: &Value| value.to_string().contains(&"x".repeat(10_000));
    assert!(whole(&report["analysis"]["played"]["slices"]), "the JSON holds names whole");
    fits_its_schema(&out, &report);

    let page = out.join("decision.html");
    for id in ["7", "70", "700"] {
        let told = shardwise(&["explain", "--history", text(&history), "--decision", id, "--html", text(&page)]);
        assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
        let told = String::from_utf8(told.stdout).expect("UTF-8");
        let html = fs::read_to_string(&page).expect("a page");
        assert!(harmless(&html) && harmless(&told), "decision {id}");
        assert!(!html.contains("<script") && !html.contains("<img"), "a name became markup");
        assert!(html.contains("&lt;script&gt;") && html.contains("⟨U+202E⟩"), "the router's name is shown");
        assert!(html.len() < 2_000_000, "{} bytes", html.len());
    }
}

/// Whether nothing turns text, colours it or writes over it.
fn harmless(shown: &str) -> bool {
    !['\u{202e}', '\u{2066}', '\u{1b}', '\r', '\u{0}'].iter().any(|harm| shown.contains(*harm))
}
