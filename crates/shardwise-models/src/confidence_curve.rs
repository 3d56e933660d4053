//! The calibration of confidence that belongs to a bundle: a curve from what the built-in calibration says to the share of
//! choices that were right when it said that.
//!
//! Left out: how it is fitted, which takes a closed loop in which the truth is known.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::bundle::{BundleError, Files, listed};
use crate::manifest::MANIFEST_FILE;

/// The curve's file.
pub(crate) const CALIBRATION_FILE: &str = "calibration.json";
/// Most knots of a curve.
const MOST_KNOTS: usize = 64;

/// A curve that never falls, linear between its knots and level beyond them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfidenceCurve {
    /// Confidences, rising, and what each stands for, not falling; all in [0, 1].
    knots: Vec<[f64; 2]>,
}

impl ConfidenceCurve {
    /// Checks the knots: `[from, to]` in [0, 1], the first rising, the second not falling, 1 to 64 of them.
    ///
    /// # Errors
    /// Says what is wrong with them.
    pub fn new(knots: Vec<[f64; 2]>) -> Result<Self, String> {
        let curve = Self { knots };
        curve.check().map(|()| curve)
    }

    fn check(&self) -> Result<(), String> {
        if !(1..=MOST_KNOTS).contains(&self.knots.len()) {
            return Err(format!("{} knots where 1 to {MOST_KNOTS} are allowed", self.knots.len()));
        }
        if let Some(knot) = self.knots.iter().find(|knot| !knot.iter().all(|value| (0.0..=1.0).contains(value))) {
            return Err(format!("the knot {knot:?} does not lie between 0 and 1"));
        }
        match self.knots.windows(2).find(|pair| pair[1][0] <= pair[0][0] || pair[1][1] < pair[0][1]) {
            Some(pair) => Err(format!("the knots {:?} and {:?} do not rise", pair[0], pair[1])),
            None => Ok(()),
        }
    }

    /// The knots.
    pub fn knots(&self) -> &[[f64; 2]] {
        &self.knots
    }

    /// What a confidence stands for, in [0, 1]. Allocates nothing.
    pub fn of(&self, confidence: f64) -> f64 {
        let above = self.knots.partition_point(|knot| knot[0] < confidence);
        let Some([x1, y1]) = self.knots.get(above).copied() else { return self.knots[self.knots.len() - 1][1] };
        let Some([x0, y0]) = above.checked_sub(1).map(|below| self.knots[below]) else { return y1 };
        y0 + (y1 - y0) * ((confidence - x0) / (x1 - x0)).clamp(0.0, 1.0)
    }
}

/// What the manifest says of the curve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalibrationManifest {
    /// File of the curve.
    pub file: String,
    /// How well it does.
    pub metrics: CalibrationMetrics,
}

/// Expected calibration errors of confidence, mean distance from the share that was right, on other seeds than those that the
/// curve was fitted on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalibrationMetrics {
    /// Choices that it was fitted on.
    pub train_choices: u64,
    /// Choices that it was measured on.
    pub test_choices: u64,
    /// With the curve.
    pub error: f64,
    /// By the built-in calibration alone.
    pub built_in_error: f64,
}

/// A curve and how well it does.
#[derive(Debug, Clone, PartialEq)]
pub struct CalibrationDraft {
    /// The curve.
    pub curve: ConfidenceCurve,
    /// Its errors.
    pub metrics: CalibrationMetrics,
}

impl CalibrationDraft {
    pub(crate) fn manifest(&self) -> CalibrationManifest {
        CalibrationManifest { file: CALIBRATION_FILE.to_owned(), metrics: self.metrics }
    }

    pub(crate) fn file(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = serde_json::to_vec_pretty(&self.curve)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

/// The curve that a manifest names.
pub(crate) fn admit_calibration(
    place: &Path,
    said: &CalibrationManifest,
    files: &Files,
) -> Result<ConfidenceCurve, BundleError> {
    let bytes = listed(place, files, &said.file)?;
    let problem = |problem: String| BundleError::Calibration { path: place.join(&said.file), problem };
    let curve: ConfidenceCurve = serde_json::from_slice(bytes).map_err(|error| problem(error.to_string()))?;
    curve.check().map_err(problem)?;
    let metrics = &said.metrics;
    match [metrics.error, metrics.built_in_error].iter().all(|error| (0.0..=1.0).contains(error)) {
        true => Ok(curve),
        false => Err(BundleError::Manifest {
            path: place.join(MANIFEST_FILE),
            problem: "an error of the calibration does not lie between 0 and 1".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_linear_between_knots_and_level_beyond() {
        let curve = ConfidenceCurve::new(vec![[0.2, 0.1], [0.6, 0.5], [0.8, 0.5]]).expect("sound knots");
        for (from, to) in [(0.0, 0.1), (0.2, 0.1), (0.4, 0.3), (0.6, 0.5), (0.7, 0.5), (1.0, 0.5)] {
            assert!((curve.of(from) - to).abs() < 1e-12, "{from}: {}", curve.of(from));
        }
        let levels: Vec<f64> = (0..=1000).map(|i| curve.of(f64::from(i) / 1000.0)).collect();
        assert!(levels.is_sorted());
        assert_eq!(ConfidenceCurve::new(vec![[0.5, 0.9]]).expect("one knot").of(0.1), 0.9);
        assert!((0.0..=1.0).contains(&curve.of(f64::NAN)));
    }

    #[test]
    fn knots_that_do_not_rise_are_refused() {
        for (knots, said) in [
            (vec![], "0 knots"),
            (vec![[0.1, 0.2]; 65], "65 knots"),
            (vec![[0.1, 0.2], [0.1, 0.3]], "do not rise"),
            (vec![[0.1, 0.2], [0.2, 0.1]], "do not rise"),
            (vec![[0.1, 1.2]], "between 0 and 1"),
            (vec![[f64::NAN, 0.2]], "between 0 and 1"),
        ] {
            let refusal = ConfidenceCurve::new(knots).expect_err("a refusal");
            assert!(refusal.contains(said), "{refusal}");
        }
    }
}
