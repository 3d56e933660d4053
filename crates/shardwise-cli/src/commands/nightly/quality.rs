//! The stage `check`: whether the dataset may be trained on, held against the last one that was.

use std::path::Path;

use miette::miette;
use serde_json::{Value, json};
use shardwise_datasets::{DatasetCard, QualityLimits, QualityReport};

use super::Night;
use super::failure::{Kind, NightFailure, NightResult};
use crate::commands::{dataset, files};
use crate::output::progress;

impl Night<'_> {
    /// Checks the dataset; refuses what is broken, warns of drift, and records what was accepted for the next night.
    pub(super) fn check(&self, key: &str, card: &DatasetCard) -> NightResult<Value> {
        let limits = dataset::limits(&self.options.quality)?;
        let accept_drift = self.options.quality.accept_drift;
        let accepted = self.options.work.join("accepted-profile.json");
        // A build that takes over all days leaves the dataset without its profile.
        let checked_profile = self.options.work.join("stages/profile.json");
        // What was checked under other limits is checked anew.
        let key = format!("{key} {}", quality_key(&limits, accept_drift));
        let checked = self.once(
            "check",
            &key,
            |_| checked_profile.exists(),
            || {
                let reference = Some(accepted.as_path()).filter(|path| path.exists());
                let report = dataset::check_with(&self.dataset, reference, &limits, accept_drift)?;
                self.run.write_json("quality.json", &report)?;
                if !report.accepted {
                    return Err(refusal(&report, card));
                }
                copy(&self.dataset.join("profile.json"), &checked_profile)?;
                Ok(json!(report))
            },
        )?;
        // Only now: a night that was killed before must not be compared with itself.
        copy(&checked_profile, &accepted)?;
        self.run.write_json("quality.json", &checked)?;
        for check in checks(&checked) {
            self.run.figure("check", check["name"].as_str().unwrap_or_default(), &check["value"]);
            if check["ok"] == false {
                progress::warn(said(check));
            }
        }
        Ok(checked)
    }
}

fn copy(from: &Path, to: &Path) -> NightResult<()> {
    Ok(files::write(to, files::read(from)?.as_bytes())?)
}

fn refusal(report: &QualityReport, card: &DatasetCard) -> NightFailure {
    let help = "mend the history's days and run the same command; where the world has changed and drift is all that is said, \
                --accept-drift takes the dataset as it is";
    let failed = report.checks.iter().filter(|check| !check.ok && check.refuses);
    let reasons: Vec<String> = failed.map(|check| format!("{}: {}", check.name, check.sentence)).collect();
    let refused = miette!(help = help, "the dataset {} was refused: {}", card.id, reasons.join("; "));
    NightFailure::new(Kind::DataRefused, refused)
}

/// What of the options decides whether a dataset is accepted.
pub(super) fn quality_key(limits: &QualityLimits, accept_drift: bool) -> String {
    format!("{limits:?} {accept_drift}")
}

fn checks(report: &Value) -> impl Iterator<Item = &Value> {
    report["checks"].as_array().into_iter().flatten()
}

fn said(check: &Value) -> String {
    let word = |field: &str| check[field].as_str().unwrap_or_default().to_owned();
    format!("{}: {}", word("name"), word("sentence"))
}

/// The verdict on the data in a line, for the summary and the report.
pub(super) fn in_a_line(report: &Value) -> String {
    let warnings: Vec<String> = checks(report).filter(|check| check["ok"] == false).map(said).collect();
    match warnings.as_slice() {
        [] => format!("The data holds in all {} checks.", checks(report).count()),
        warnings => format!("The data was accepted with warnings: {}.", warnings.join("; ")),
    }
}
