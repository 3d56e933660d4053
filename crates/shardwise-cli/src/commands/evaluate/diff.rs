//! `shardwise evaluate diff`: in what two runs, reports or versions differ.

use std::cmp::Ordering;
use std::path::Path;

use miette::{IntoDiagnostic, miette};
use serde_json::{Value, json};
use shardwise_evaluation::{Change, differences, figure, visible};
use shardwise_models::Registry;

use crate::arguments::EvaluateDiffArguments;
use crate::commands::files;
use crate::output;

/// Where a report lies in a folder that holds one.
const REPORTS: [&str; 2] = ["report.json", "report/report.json"];
/// Longer texts are cut where they are printed.
const WIDEST: usize = 28;

pub(crate) fn run(options: &EvaluateDiffArguments, json: bool) -> miette::Result<()> {
    let [a, b] = [&options.a, &options.b].map(|which| document(which, options));
    let (a, b) = (a?, b?);
    let mut found = differences(&a, &b);
    found.changed.sort_by(largest_first);
    if json {
        return output::print_json(&json!({
            "a": options.a, "b": options.b, "same": found.same, "changed": found.changed,
            "onlyA": found.only_a, "onlyB": found.only_b,
        }));
    }
    let changed = found.changed.len();
    println!(
        "{} values are the same, {changed} differ, {} are only in {}, {} only in {}",
        found.same,
        found.only_a.len(),
        options.a,
        found.only_b.len(),
        options.b
    );
    for change in found.changed.iter().take(options.most) {
        let how = change.ratio.map_or(String::new(), |ratio| format!("{:+.1} %", 100.0 * (ratio - 1.0)));
        println!("{:<60} {:>WIDEST$} {:>WIDEST$} {how:>10}", change.path, shown(&change.a), shown(&change.b));
    }
    if changed > options.most {
        println!("{} more with --most {changed} or --json", changed - options.most);
    }
    Ok(())
}

/// What is no number, such as a verdict, first; then the largest change of a number.
fn largest_first(a: &Change, b: &Change) -> Ordering {
    let size = |change: &Change| match change.ratio {
        Some(ratio) if ratio > 0.0 => ratio.ln().abs(),
        // A change of sign.
        Some(_) => f64::MAX,
        None => f64::INFINITY,
    };
    size(b).total_cmp(&size(a)).then_with(|| a.path.cmp(&b.path))
}

fn shown(value: &Value) -> String {
    let text = match value {
        Value::Number(number) => number.as_f64().map_or_else(|| number.to_string(), figure),
        Value::String(text) => visible(text).replace('\n', " "),
        Value::Array(elements) => format!("a list of {}", elements.len()),
        other => other.to_string(),
    };
    match text.chars().count() > WIDEST {
        true => text.chars().take(WIDEST - 1).chain(['…']).collect(),
        false => text,
    }
}

fn document(which: &str, options: &EvaluateDiffArguments) -> miette::Result<Value> {
    let path = Path::new(which);
    let file =
        if path.is_dir() { REPORTS.iter().map(|name| path.join(name)).find(|file| file.is_file()) } else { None };
    if let Some(file) = file.or_else(|| path.is_file().then(|| path.to_owned())) {
        let text = files::read(&file)?;
        return serde_json::from_str(&text)
            .map_err(|error| miette!(help = "name a report.json", "{} is no JSON: {error}", file.display()));
    }
    if path.is_dir() {
        let help = "a run's folder has report/report.json; an evaluation's has report.json";
        return Err(miette!(help = help, "there is no report in {which}"));
    }
    let Some(models) = &options.models else {
        let help = "name a report.json, a folder with one, or with --models DIR a version or alias";
        return Err(miette!(help = help, "there is no file or folder {which}"));
    };
    let registry = Registry::open(models, &options.name).into_diagnostic()?;
    let version = registry.resolve(which).into_diagnostic()?;
    serde_json::to_value(registry.describe(&version).into_diagnostic()?).into_diagnostic()
}
