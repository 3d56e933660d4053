//! `shardwise history import`: placements that others wrote, by a mapping, into a history.

use std::process::ExitCode;

use miette::IntoDiagnostic;
use serde_json::json;
use shardwise_datasets::{Format, ImportOptions, ImportReport, import};

use super::DATA_REFUSED;
use crate::arguments::{HistoryImportArguments, ImportFormat};
use crate::output::{self, Stage};

pub(crate) fn run(arguments: &HistoryImportArguments, json: bool) -> miette::Result<ExitCode> {
    let options = ImportOptions {
        format: match arguments.from {
            ImportFormat::Parquet => Format::Parquet,
            ImportFormat::Csv => Format::Csv,
            ImportFormat::Ndjson => Format::Ndjson,
            ImportFormat::Prometheus => Format::Prometheus,
        },
        map: arguments.map.clone(),
        inputs: arguments.input.clone(),
        out: arguments.out.clone(),
        quarantine: arguments.quarantine.clone(),
        max_refused: arguments.max_refused,
        dry_run: arguments.dry_run,
        since: arguments.since,
        until: arguments.until,
    };
    let mut stage = Stage::start("importing");
    let report = import(&options, &mut |progress| {
        stage.at(progress);
        !output::is_interrupted()
    })
    .into_diagnostic()?;
    stage.done(format!("{} rows taken, {} refused", report.rows, report.refused));
    say(&report, &options);
    if json {
        output::print_json(&json!({
            "table": report.table, "rows": report.rows, "refused": report.refused, "reasons": report.reasons,
            "quarantine": report.quarantine, "from": report.from, "to": report.to, "out": report.out,
            "stored": report.stored, "dry_run": options.dry_run,
        }))?;
    }
    Ok(if report.too_many_refused { ExitCode::from(DATA_REFUSED) } else { ExitCode::SUCCESS })
}

/// What came out goes to standard output, what was wrong to standard error.
fn say(report: &ImportReport, options: &ImportOptions) {
    for (table, row) in &report.first {
        println!("{table}: {}", serde_json::Value::from(row.clone()));
    }
    for row in &report.first_refused {
        eprintln!("would be refused: {}, row {}: {}; it reads: {}", row.source, row.row, row.detail, row.text);
    }
    for (reason, count) in &report.reasons {
        eprintln!("refused {count}: {reason}");
    }
    if let Some(quarantine) = &report.quarantine {
        eprintln!("refused rows are in {}", quarantine.display());
    }
    if report.too_many_refused {
        let (reason, count) = report.most_common_reason().unwrap_or(("no row could be taken", 0));
        let all = report.rows + report.refused;
        let most = options.max_refused;
        eprintln!(
            "{} of {all} rows were refused, and at most a share of {most} may be, so no history was written; most often \
             ({count}): {reason}. Correct the mapping or the data, or allow more with --max-refused",
            report.refused
        );
        return;
    }
    if !report.stored.contains_key("decisions") {
        eprintln!(
            "note: without decisions no dataset can be built from it; add a table that fills them to the mapping"
        );
    }
    let stored: Vec<String> = report.stored.iter().map(|(table, rows)| format!("{rows} {table}")).collect();
    let (out, stored) = (options.out.display(), stored.join(", "));
    match report.out {
        Some(_) => println!("{out}: {stored}"),
        None => println!("{out} would hold {stored}; nothing was written"),
    }
}
