//! The quality gate: whether a dataset may be trained on, and why not.
//!
//! What is broken refuses the dataset: columns, nulls, ranges, rows that are there twice, outcomes that are lost, clocks that are
//! apart. That columns look otherwise than in the last accepted dataset is a warning, because the world may have changed;
//! it refuses the dataset only when most columns do, and not when the caller accepts it. The drift of the dataset as a
//! whole decides, for that is what a model learns from: a day in which the market crashed is one of many.
//!
//! The files are read once, one at a time (keys once more for duplicates).

mod clocks;
mod drift;
mod duplicates;
mod limits;
mod profile;
mod scan;
mod verdict;

use std::path::Path;

use serde::Serialize;
use shardwise_features::{FEATURE_COUNT, FEATURES};

pub(crate) use self::clocks::{CLOCKS_FILE, ClockHistograms, write_clocks};
use self::drift::{Distance, distance};
pub use self::limits::QualityLimits;
use self::profile::Counts;
pub(crate) use self::profile::PROFILE_FILE;
pub use self::profile::Profile;
use self::scan::Scan;
use crate::{DatasetError, load_card};

/// What the quality gate found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QualityReport {
    /// Whether the dataset may be trained on.
    pub accepted: bool,
    /// Each check; those that do not hold and do not refuse are warnings.
    pub checks: Vec<QualityCheck>,
    /// How far each column is from the reference, the furthest first; empty without a reference.
    pub columns: Vec<ColumnDrift>,
    /// Id of the dataset that it was compared with.
    pub against: Option<String>,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QualityCheck {
    /// Its name.
    pub name: &'static str,
    /// Whether it holds.
    pub ok: bool,
    /// Whether the dataset is refused when it does not hold.
    pub refuses: bool,
    /// What was found.
    pub value: f64,
    /// What may be, or for a rate must be.
    pub limit: f64,
    /// Where it is worst.
    #[serde(rename = "where")]
    pub spot: Spot,
    /// All that in words.
    pub sentence: String,
}

/// A place in a dataset; what does not apply is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Spot {
    /// The column.
    pub column: Option<String>,
    /// The day, `YYYY-MM-DD`.
    pub day: Option<String>,
    /// The shard.
    pub shard: Option<String>,
}

impl Spot {
    pub(crate) fn new(column: Option<&str>, day: Option<&str>, shard: Option<&str>) -> Self {
        let [column, day, shard] = [column, day, shard].map(|name| name.map(str::to_owned));
        Self { column, day, shard }
    }
}

impl std::fmt::Display for Spot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts = [("column ", &self.column), ("on ", &self.day), ("shard ", &self.shard)];
        let parts: Vec<String> =
            parts.into_iter().filter_map(|(word, name)| Some(format!("{word}{}", name.as_ref()?))).collect();
        f.write_str(&parts.join(", "))
    }
}

/// How far a column is from the reference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ColumnDrift {
    /// The column.
    pub column: &'static str,
    /// Population stability index of all rows.
    pub psi: f64,
    /// Kolmogorov–Smirnov distance of all rows; 0 for names.
    pub ks: f64,
    /// The index of the days that the reference does not have; `None` with too few rows in them.
    pub new_days_psi: Option<f64>,
    /// The distance of these days.
    pub new_days_ks: Option<f64>,
}

/// Checks a dataset, and leaves its profile in its folder. `against` is another dataset or a profile; with `accept_drift` no
/// drift refuses it.
///
/// # Errors
/// No dataset there, one made under other features, or a reference that cannot be read. That a file is missing or broken is
/// no error but a finding.
pub fn check_quality(
    dataset: &Path,
    against: Option<&Path>,
    limits: &QualityLimits,
    accept_drift: bool,
) -> Result<QualityReport, DatasetError> {
    let card = load_card(dataset)?;
    let reference = against.map(reference).transpose()?;
    // Under other features the same name may mean something else.
    let comparable = reference.as_ref().filter(|reference| reference.feature_fingerprint == card.feature_fingerprint);
    let scan = match Scan::of(dataset, &card, comparable, limits.min_decisions) {
        Ok(scan) => scan,
        Err(error) => return Ok(verdict::unreadable(&error)),
    };
    let duplicates = duplicates::duplicates(dataset, &card)?;
    let report = verdict::verdict(dataset, &scan, duplicates, (reference.as_ref(), comparable), limits, accept_drift);
    scan.profile().save(dataset)?;
    Ok(report)
}

/// The profile at a path: of a dataset as it was left there or by a pass over it, else the file.
fn reference(path: &Path) -> Result<Profile, DatasetError> {
    if !path.is_dir() {
        return Profile::load(path);
    }
    match Profile::of_dataset(path)? {
        Some(profile) => Ok(profile),
        None => Ok(Scan::of(path, &load_card(path)?, None, 0)?.profile()),
    }
}

/// How far each feature moved between rows of feature vectors, the furthest by the index first; empty when one side has no
/// rows.
///
/// # Panics
/// If `before` or `now` is not whole feature vectors.
pub fn rows_drift(before: &[f32], now: &[f32]) -> Vec<ColumnDrift> {
    let counted = |rows: &[f32], feature: usize| {
        assert!(rows.len().is_multiple_of(FEATURE_COUNT), "{} values are no feature vectors", rows.len());
        let mut counts = Counts::numbers();
        rows.iter().skip(feature).step_by(FEATURE_COUNT).for_each(|value| counts.number(*value));
        counts
    };
    let of_feature = |feature: usize| {
        let Distance { psi, ks } = distance(&counted(before, feature).profile(), &counted(now, feature))?;
        let column = FEATURES[feature].name;
        Some(ColumnDrift { column, psi, ks, new_days_psi: None, new_days_ks: None })
    };
    let mut rows: Vec<ColumnDrift> = (0..FEATURE_COUNT).filter_map(of_feature).collect();
    rows.sort_by(|a, b| b.psi.total_cmp(&a.psi).then_with(|| a.column.cmp(b.column)));
    rows
}

#[cfg(test)]
mod tests;
