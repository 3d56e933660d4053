//! How good a dataset must be.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{DatasetError, files};

/// The limits of the quality gate. Rows that break the schema, hold what their column may not, or are there twice have none: one
/// is too many.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QualityLimits {
    /// Share of the decisions, of each day and of each shard on it, whose outcome must be known once it had time to come. A
    /// timeout is an outcome, so only what was lost on the way is missing, and what is lost more often on one shard than on
    /// another makes that shard look as its surviving rows do.
    pub min_join_rate: f64,
    /// Ms that 99 % of a clock's rows may be off on a day. A second is a period of reports, so that more would give the age of
    /// reports another meaning; machines that are kept by NTP are a thousand times closer.
    pub max_clock_skew_ms: f64,
    /// Population stability index above which a column's drift is a warning.
    pub warn_psi: f64,
    /// Kolmogorov–Smirnov distance above which it is one.
    pub warn_ks: f64,
    /// Share of the columns that may drift that far before the dataset is refused. A crash of the market moves the market's columns
    /// and the loads; when more than half of all columns moved, most of what a model would learn from is something else.
    pub max_drifted: f64,
    /// Fewest decisions whose drift, and of a shard on a day whose join rate, is judged: among fewer, chance alone comes near
    /// the limits (the index of two samples of n and m rows from the same distribution has a mean of about
    /// (bins − 1) · (1/n + 1/m); B. Yurdakul, *Statistical Properties of Population Stability Index*, 2018).
    pub min_decisions: u64,
}

impl Default for QualityLimits {
    fn default() -> Self {
        Self {
            min_join_rate: 0.95,
            max_clock_skew_ms: 1_000.0,
            warn_psi: 0.25,
            warn_ks: 0.2,
            max_drifted: 0.5,
            min_decisions: 1_000,
        }
    }
}

impl QualityLimits {
    /// Reads limits from TOML; those that are left out keep their defaults.
    ///
    /// # Errors
    /// A file that cannot be read, a name that is no limit, or a value out of range.
    pub fn load(path: &Path) -> Result<Self, DatasetError> {
        let refused = |problem: String| DatasetError::BadOption { option: "limits", problem };
        let text = String::from_utf8_lossy(&files::read(path)?).into_owned();
        let limits: Self =
            toml::from_str(&text).map_err(|error| refused(format!("{}: {}", path.display(), error.message())))?;
        for (name, value, most) in [
            ("min_join_rate", limits.min_join_rate, 1.0),
            ("max_clock_skew_ms", limits.max_clock_skew_ms, f64::MAX),
            ("warn_psi", limits.warn_psi, f64::MAX),
            ("warn_ks", limits.warn_ks, 1.0),
            ("max_drifted", limits.max_drifted, 1.0),
        ] {
            // NaN is in no range.
            if !(0.0..=most).contains(&value) {
                let upper = if most == 1.0 { " and at most 1" } else { "" };
                let problem = format!("{}: {name} is {value}; it must be 0 or more{upper}", path.display());
                return Err(refused(problem));
            }
        }
        Ok(limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_and_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("limits.toml");
        let load = |text: &str| {
            std::fs::write(&path, text).unwrap();
            QualityLimits::load(&path).map_err(|error| error.to_string())
        };
        assert_eq!(load("").unwrap(), QualityLimits::default());
        assert_eq!(load("warn_psi = 0.1").unwrap(), QualityLimits { warn_psi: 0.1, ..QualityLimits::default() });
        for (text, said) in
            [("max_psi = 1.0", "max_psi"), ("min_join_rate = 1.5", "at most 1"), ("max_drifted = nan", "max_drifted")]
        {
            assert!(load(text).unwrap_err().contains(said), "{text}: {:?}", load(text));
        }
    }
}
