//! `shardwise history import`: placements that others wrote, by a mapping, or journals of routers, into a history.

use std::path::PathBuf;
use std::process::ExitCode;

use miette::{IntoDiagnostic, miette};
use serde_json::json;
use shardwise_datasets::{Format, ImportOptions, ImportProgress, ImportReport, JournalImport, import, import_journal};

use super::DATA_REFUSED;
use crate::arguments::{HistoryImportArguments, ImportFormat};
use crate::output::{self, Stage};

pub(crate) fn run(arguments: &HistoryImportArguments, json: bool) -> miette::Result<ExitCode> {
    let mut stage = Stage::start("importing");
    let mut progress = |progress: &ImportProgress| {
        stage.at(progress);
        !output::is_interrupted()
    };
    let report = match format(arguments.from) {
        Some(format) => import(&mapped(arguments, format)?, &mut progress),
        None if arguments.dry_run || arguments.since.is_some() || arguments.until.is_some() => {
            return Err(miette!("a journal is imported as it is; leave out --dry-run, --since and --until"));
        }
        None => import_journal(&journals(arguments), &mut progress),
    }
    .into_diagnostic()?;
    stage.done(format!("{} rows taken, {} refused", report.rows, report.refused));
    say(&report, arguments);
    if json {
        output::print_json(&json!({
            "table": report.table, "rows": report.rows, "refused": report.refused, "reasons": report.reasons,
            "quarantine": report.quarantine, "from": report.from, "to": report.to, "out": report.out,
            "stored": report.stored, "dry_run": arguments.dry_run,
        }))?;
    }
    Ok(if report.too_many_refused { ExitCode::from(DATA_REFUSED) } else { ExitCode::SUCCESS })
}

/// None for a journal, which needs no mapping.
fn format(from: ImportFormat) -> Option<Format> {
    match from {
        ImportFormat::Parquet => Some(Format::Parquet),
        ImportFormat::Csv => Some(Format::Csv),
        ImportFormat::Ndjson => Some(Format::Ndjson),
        ImportFormat::Prometheus => Some(Format::Prometheus),
        ImportFormat::Journal => None,
    }
}

fn mapped(arguments: &HistoryImportArguments, format: Format) -> miette::Result<ImportOptions> {
    Ok(ImportOptions {
        format,
        map: arguments.map.clone().ok_or_else(|| miette!("name the mapping file with --map"))?,
        inputs: arguments.input.clone(),
        out: arguments.out.clone(),
        quarantine: arguments.quarantine.clone(),
        max_refused: arguments.max_refused,
        dry_run: arguments.dry_run,
        since: arguments.since,
        until: arguments.until,
    })
}

fn journals(arguments: &HistoryImportArguments) -> JournalImport {
    JournalImport {
        journals: arguments.input.iter().map(PathBuf::from).collect(),
        out: arguments.out.clone(),
        quarantine: arguments.quarantine.clone(),
        max_refused: arguments.max_refused,
    }
}

/// What came out goes to standard output, what was wrong to standard error.
fn say(report: &ImportReport, options: &HistoryImportArguments) {
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
