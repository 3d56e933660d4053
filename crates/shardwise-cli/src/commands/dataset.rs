//! `shardwise dataset …`: histories into datasets, and back to check.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use miette::{IntoDiagnostic, miette};
use serde_json::json;
use shardwise_datasets::{
    BuildOptions, DatasetCard, DatasetError, QualityLimits, QualityReport, VerifyReport, check_quality,
};
use shardwise_features::ServiceTable;
use shardwise_models::Registry;
use shardwise_training::{TrainOptions, dataset_rows, exec_rows};

use super::{DATA_REFUSED, files};
use crate::arguments::{BuildArguments, CheckArguments, QualityArguments, RowsArguments, VerifyArguments};
use crate::output::{self, Stage};

pub(crate) fn build(options: &BuildArguments, json: bool) -> miette::Result<()> {
    let range = BuildOptions { from: options.from, to: options.to, ..BuildOptions::default() };
    let card = build_with(&options.history, &options.out, &range).into_diagnostic()?;
    if json {
        return output::print_json(&json!({
            "dataset": options.out, "rows": card.rows, "decisions": card.decisions,
            "candidates_per_decision": card.candidates_per_decision, "fingerprint": card.feature_fingerprint,
            "hash": card.content_hash, "days_reused": card.days_reused, "days_built": card.days_built,
        }));
    }
    println!(
        "{}: {} rows of {} decisions, hash {}",
        options.out.display(),
        card.rows,
        card.decisions,
        &card.content_hash[..16]
    );
    Ok(())
}

pub(crate) fn check(options: &CheckArguments, json: bool) -> miette::Result<ExitCode> {
    let (limits, accept_drift) = (limits(&options.quality).into_diagnostic()?, options.quality.accept_drift);
    let report = check_with(&options.dataset, options.against.as_deref(), &limits, accept_drift).into_diagnostic()?;
    if json {
        output::print_json(&json!(report))?;
    } else {
        for check in &report.checks {
            let sign = match (check.ok, check.refuses) {
                (true, _) => "✓",
                (false, true) => "✗",
                (false, false) => "!",
            };
            println!("{sign} {}: {}", check.name, check.sentence);
        }
        println!("the dataset is {}", if report.accepted { "accepted" } else { "refused" });
    }
    Ok(ExitCode::from(if report.accepted { 0 } else { DATA_REFUSED }))
}

pub(crate) fn rows(options: &RowsArguments, json: bool) -> miette::Result<()> {
    let stage = Stage::start("choosing rows");
    let max_rows = TrainOptions::default().max_rows;
    let (rows, origin) = dataset_rows(&options.dataset, max_rows).into_diagnostic()?;
    let chosen = exec_rows(&rows, &origin.dataset, max_rows).into_diagnostic()?;
    stage.done(format!("{} of {}", chosen.len(), rows.len()));
    files::write(&options.out, &chosen.to_bytes())?;
    if json {
        let result =
            json!({ "out": options.out, "rows": chosen.len(), "early": chosen.early, "dataset": chosen.dataset });
        return output::print_json(&result);
    }
    println!(
        "{}: {} rows, the last {} of which tell when to stop",
        options.out.display(),
        chosen.len(),
        chosen.len() as u64 - chosen.early
    );
    Ok(())
}

/// The limits that were asked for.
pub(crate) fn limits(options: &QualityArguments) -> Result<QualityLimits, DatasetError> {
    options.limits.as_deref().map_or_else(|| Ok(QualityLimits::default()), QualityLimits::load)
}

/// Checks with progress.
pub(crate) fn check_with(
    dataset: &Path,
    against: Option<&Path>,
    limits: &QualityLimits,
    accept_drift: bool,
) -> Result<QualityReport, DatasetError> {
    let stage = Stage::start("checking the dataset");
    let report = check_quality(dataset, against, limits, accept_drift)?;
    let failed = report.checks.iter().filter(|check| !check.ok).count();
    stage.done(format!("{} checks, {failed} of which do not hold", report.checks.len()));
    Ok(report)
}

/// Builds with progress.
pub(crate) fn build_with(history: &Path, out: &Path, options: &BuildOptions) -> Result<DatasetCard, DatasetError> {
    let mut stage = Stage::start("building the dataset");
    let card = shardwise_datasets::build(history, out, options, &mut |progress| {
        stage.count(progress.days_done as u64, progress.days as u64, &progress);
        !output::is_interrupted()
    })?;
    stage.done(format!("{} rows, {} days built, {} kept", card.rows, card.days_built, card.days_reused));
    Ok(card)
}

pub(crate) fn verify(options: &VerifyArguments, json: bool) -> miette::Result<()> {
    let open = |models: &PathBuf| Registry::open(models, &options.name);
    let registry = options.models.as_ref().map(open).transpose().into_diagnostic()?;
    let report = verify_with(&options.history, &options.dataset, registry.as_ref()).into_diagnostic()?;
    if json {
        output::print_json(&json!({ "rows": report.rows, "mismatches": report.mismatches }))?;
    } else {
        println!("{} rows compared, {} mismatches", report.rows, report.mismatches);
    }
    no_mismatch(&report)
}

/// Verifies with progress.
pub(crate) fn verify_with(
    history: &Path,
    dataset: &Path,
    registry: Option<&Registry>,
) -> Result<VerifyReport, DatasetError> {
    let stage = Stage::start("verifying the dataset");
    let table = |version: &str| -> Option<Arc<ServiceTable>> {
        registry.and_then(|registry| registry.load(version).ok()).map(|bundle| bundle.service_table())
    };
    let report = shardwise_datasets::verify(history, dataset, &table)?;
    stage.done(format!("{} rows, {} mismatches", report.rows, report.mismatches));
    Ok(report)
}

/// A mismatch is an error: features would mean one thing in training and another in routers.
pub(crate) fn no_mismatch(report: &VerifyReport) -> miette::Result<()> {
    let Some(first) = report.examples.first() else { return Ok(()) };
    Err(miette!(
        help = "the dataset or the history was changed after it was written, or another version of shardwise wrote it: build the dataset again",
        "{} of {} rows differ; the first is {first}",
        report.mismatches,
        report.rows
    ))
}
