//! How true the answers of each policy were, over all its cells.

use serde::{Deserialize, Serialize};
use shardwise_simulator::{AnswerRecord, ConfidenceBin};
use shardwise_types::RiskLevel;

use super::run::Cell;
use crate::charts;
use crate::numbers::grouped;

/// Shares of requests that were done within the latencies that were named for them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CoverageRow {
    /// Which requests: `all`, a risk level, or `congested`.
    pub of: String,
    /// Requests.
    pub requests: u64,
    /// Share within the named p50; 0.5 is right.
    pub p50: f64,
    /// Share within the named p90; 0.9 is right.
    pub p90: f64,
    /// Share within the named p99; 0.99 is right.
    pub p99: f64,
}

/// Calibration of one policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// The policy.
    pub policy: String,
    /// Coverage of the latencies that it named.
    pub coverage: Vec<CoverageRow>,
    /// Expected calibration error of its confidence; `None` when no choice was looked at.
    pub confidence_ece: Option<f64>,
    /// What it is made of.
    pub by_confidence: Vec<ConfidenceBin>,
}

/// Of all policies that give answers, in the order in which they come.
pub(crate) fn calibrations(cells: &[Cell]) -> Vec<Calibration> {
    let mut pooled: Vec<(&str, AnswerRecord)> = Vec::new();
    for cell in cells {
        let Some(answers) = &cell.answers else { continue };
        match pooled.iter_mut().find(|(policy, _)| *policy == cell.policy) {
            Some((_, sum)) => sum.add(answers),
            None => pooled.push((&cell.policy, answers.clone())),
        }
    }
    pooled.iter().map(|(policy, answers)| calibration(policy, answers)).collect()
}

fn calibration(policy: &str, answers: &AnswerRecord) -> Calibration {
    let tiers = RiskLevel::ALL.iter().map(|risk| risk.as_str()).zip(&answers.by_risk);
    let parts = [("all", &answers.all), ("congested", &answers.congested)].into_iter().chain(tiers);
    let row = |(of, coverage): (&str, &shardwise_simulator::Coverage)| {
        let [p50, p90, p99] = coverage.shares()?;
        Some(CoverageRow { of: of.to_owned(), requests: coverage.requests, p50, p90, p99 })
    };
    Calibration {
        policy: policy.to_owned(),
        coverage: parts.filter_map(row).collect(),
        confidence_ece: answers.calibration_error(),
        by_confidence: answers.by_confidence.to_vec(),
    }
}

/// Bins with fewer choices say nothing and are not drawn.
const FEWEST_CHOICES: u64 = 30;

/// How true the subject's answers were, for the page.
pub(super) struct CalibrationView {
    /// Named confidence against the share that was right; `None` when no choice was looked at.
    pub(super) svg: Option<String>,
    /// Expected calibration error.
    pub(super) ece: Option<String>,
    /// What was asked, requests, and the three coverages.
    pub(super) rows: Vec<[String; 5]>,
}

impl CalibrationView {
    pub(super) fn new(calibration: &Calibration) -> Self {
        let share = |share: f64| format!("{:.1} %", share * 100.0);
        let row =
            |row: &CoverageRow| [row.of.clone(), grouped(row.requests), share(row.p50), share(row.p90), share(row.p99)];
        Self {
            svg: reliability(calibration),
            ece: calibration.confidence_ece.map(|error| format!("{error:.3}")),
            rows: calibration.coverage.iter().map(row).collect(),
        }
    }
}

fn reliability(calibration: &Calibration) -> Option<String> {
    let bins = calibration.by_confidence.iter().filter(|bin| bin.choices >= FEWEST_CHOICES);
    let points: Vec<(f64, f64)> =
        bins.map(|bin| (bin.confidence / bin.choices as f64, bin.right as f64 / bin.choices as f64)).collect();
    charts::reliability(&calibration.policy, &points)
}
