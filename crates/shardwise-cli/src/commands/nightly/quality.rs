//! The stage `check`: whether the dataset may be trained on, held against the last one that was.

use std::path::PathBuf;

use miette::miette;
use serde_json::{Value, json};
use shardwise_datasets::{DatasetCard, QualityLimits};

use super::Night;
use super::failure::{Kind, NightFailure, NightResult};
use crate::commands::{dataset, files};
use crate::output::progress;

impl Night<'_> {
    /// What the last accepted dataset looked like.
    fn accepted_profile(&self) -> PathBuf {
        self.options.work.join("accepted-profile.json")
    }

    /// Checks the dataset; refuses what is broken, warns of drift, and records what was accepted for the next night.
    pub(super) fn check(&self, key: &str, card: &DatasetCard) -> NightResult<Value> {
        let limits = dataset::limits(&self.options.quality)?;
        // What was accepted with drift once need not be accepted again, and what was checked under other limits is checked anew.
        let key = format!("{key} {}", quality_key(&limits, self.options.quality.accept_drift));
        let checked = self.once(
            "check",
            &key,
            |_| self.accepted_profile().exists(),
            || {
                let reference = Some(self.accepted_profile()).filter(|path| path.exists());
                let accept_drift = self.options.quality.accept_drift;
                let report = dataset::check_with(&self.dataset, reference.as_deref(), &limits, accept_drift)?;
                self.run.write_json("quality.json", &report)?;
                if !report.accepted {
                    let help = "mend the history's days and run the same command; where the world has changed and drift is all that \
                                is said, --accept-drift takes the dataset as it is";
                    let failed = report.checks.iter().filter(|check| !check.ok && check.refuses);
                    let reasons: Vec<String> =
                        failed.map(|check| format!("{}: {}", check.name, check.sentence)).collect();
                    let refused = miette!(help = help, "the dataset {} was refused: {}", card.id, reasons.join("; "));
                    return Err(NightFailure::new(Kind::DataRefused, refused));
                }
                // After this the stage counts as done; the next night compares with what this one accepted.
                files::write(&self.accepted_profile(), files::read(&self.dataset.join("profile.json"))?.as_bytes())?;
                Ok(json!(report))
            },
        )?;
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
